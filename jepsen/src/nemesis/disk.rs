//! The disk of a node is slow, fails, lies or is full. What a failed sync or a damaged record ends is the process, which
//! is started again once the disk is good.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use super::{Begun, Nemesis, target};
use crate::cluster::Cluster;
use crate::controller::RESERVE_BYTES;
use crate::disk::trouble::{Count, Fails, Trouble};
use workload::numbers::Numbers;

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disks {
    /// Syncs take long.
    Slow,
    /// Reads, writes or syncs give EIO.
    Failing,
    /// Reads give wrong bits.
    Flipping,
    /// There is no space left.
    Full,
}

impl Nemesis for Disks {
    fn name(&self) -> &'static str {
        match self {
            Disks::Slow => "slow-disk",
            Disks::Failing => "eio",
            Disks::Flipping => "flip",
            Disks::Full => "full",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Disks::Slow => "each sync of a node takes 20 to 1000 ms",
            Disks::Failing => "reads, writes or syncs of a node give EIO, all or some",
            Disks::Flipping => "reads of a node come back with a bit flipped, after a kill",
            Disks::Full => "the disk of a node is full, or nearly so",
        }
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let mut working = cluster.working();
        working.retain(|at| !cluster.controllers[*at].disk_hurt);
        let Some(victim) = target(cluster, numbers, &working) else {
            return Ok(None);
        };
        let controller = &mut cluster.controllers[victim];
        controller.disk_hurt = true;
        if self.may_end_a_process() {
            controller.excuse.begin();
        }
        let before = controller.disk.trouble(|trouble| trouble.count);
        let mut text = format!("{} of [{}]", self.name(), victim + 1);
        match self {
            Disks::Slow => {
                let each = Duration::from_millis(*numbers.pick(&[20, 100, 500, 1000]));
                controller.disk.trouble(|trouble| trouble.slow = each);
                text += &format!(": {each:?} each sync");
            }
            Disks::Failing => {
                let fails = *numbers.pick(&[Fails::Read, Fails::Write, Fails::Sync, Fails::Sync]);
                let times = *numbers.pick(&[1, 10, 50]);
                controller
                    .disk
                    .trouble(|trouble| trouble.fails = Some((fails, times)));
                text += &format!(": {fails:?}, one in {times}");
            }
            Disks::Flipping => {
                let times = *numbers.pick(&[3, 20, 100]);
                controller.disk.trouble(|trouble| trouble.flips = times);
                // What a process has read it keeps in memory: a new one reads again.
                controller.kill()?;
                controller.start()?;
                text += &format!(": one read in {times}");
            }
            Disks::Full => {
                let spare = *numbers.pick(&[0, 64 << 10, 1 << 20, 32 << 20]);
                controller.disk.fill(spare)?;
                text += &format!(": {spare} bytes left");
            }
        }
        let kind = *self;
        Ok(Begun::new(numbers.between(1000, 8000), text, move |cluster| {
            kind.mend(cluster, victim, before)
        }))
    }
}

impl Disks {
    /// A disk that is merely slow is no reason to.
    fn may_end_a_process(self) -> bool {
        !matches!(self, Disks::Slow)
    }

    fn mend(self, cluster: &mut Cluster, victim: usize, before: Count) -> Result<Option<String>> {
        let controller = &mut cluster.controllers[victim];
        let free = controller.disk.free()?;
        controller.disk.empty()?;
        let after = controller.disk.trouble(|trouble: &mut Trouble| {
            trouble.fails = None;
            trouble.slow = Duration::ZERO;
            trouble.flips = 0;
            trouble.count
        });
        controller.disk_hurt = false;
        if self.may_end_a_process() {
            controller.excuse.mend(Instant::now());
        }
        // It may have ended because of this, or be about to.
        let ended = match controller.ended()? {
            Some(status) => format!(", the process ended: {status}"),
            None if !controller.runs() => ", the process had ended".into(),
            None => String::new(),
        };
        if controller.held_down == 0 && !controller.stopping {
            controller.start()?;
        }
        let effects = match self {
            Disks::Slow => after.slow - before.slow,
            Disks::Failing => after.failed - before.failed,
            Disks::Flipping => after.flipped - before.flipped,
            // A controller that keeps a reserve refuses before the disk does.
            Disks::Full if free < RESERVE_BYTES => return Ok(Some(format!("{free} bytes were free{ended}"))),
            Disks::Full => 0,
        };
        Ok((effects > 0).then(|| format!("{effects} requests{ended}")))
    }
}
