//! One fault on one node: struck, and mended later; and what was promised for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use client::{Client, NodeId, PartitionId};
use rustix::process::Signal;
use serde::Serialize;
use workload::numbers::Numbers;

use crate::cluster::Cluster;
use crate::cuts::{self, Link, Way};

/// How long a planned stop may take.
const STOPPING: Duration = Duration::from_secs(30);
/// Between two looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// Leaders moved in one round, and the time between two of them.
const MOVES: usize = 8;
const BETWEEN_MOVES: Duration = Duration::from_millis(300);

/// What is done to a node that leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Its process ends at once: kill -9.
    Kill,
    /// No packet reaches or leaves its host; nothing is reset.
    Cut,
    /// Its process stands still: SIGSTOP.
    Pause,
    /// Its host is gone without a word, and with it what was not synced.
    Power,
    /// It is asked to stop, and started again: SIGTERM.
    Restart,
    /// Leaders are moved off it, by request.
    Move,
    /// Nothing: what the machine itself, and all that is asked meanwhile, comes to.
    Nothing,
}

/// What pauses may come to at most, in milliseconds, and how many requests may fail.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Goal {
    /// Half of the pauses.
    pub p50_ms: Option<f64>,
    /// All but one in a hundred.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
    /// Requests.
    pub failed: Option<u64>,
}

impl Fault {
    /// All of them.
    pub fn all() -> Vec<Fault> {
        Fault::value_variants().to_vec()
    }

    /// A word.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What was promised. Of a process that stands still, nothing was.
    pub fn goal(self) -> Goal {
        match self {
            Fault::Kill => Goal {
                p50_ms: Some(150.0),
                p99_ms: Some(500.0),
                ..Goal::default()
            },
            // To the others, a host without power is one that is cut off.
            Fault::Cut | Fault::Power => Goal {
                max_ms: Some(4000.0),
                ..Goal::default()
            },
            Fault::Restart | Fault::Move => Goal {
                max_ms: Some(100.0),
                failed: Some(0),
                ..Goal::default()
            },
            Fault::Pause | Fault::Nothing => Goal::default(),
        }
    }

    /// Whether somebody asked for it: then nobody is to notice, not at the mending nor through the node itself.
    pub fn is_planned(self) -> bool {
        matches!(self, Fault::Restart | Fault::Move | Fault::Nothing)
    }

    /// How long is watched at least before it is mended.
    pub fn watched(self) -> Duration {
        match self {
            Fault::Kill | Fault::Nothing => Duration::from_secs(3),
            Fault::Cut | Fault::Pause | Fault::Power => Duration::from_secs(6),
            Fault::Restart | Fault::Move => Duration::ZERO,
        }
    }
}

/// A fault that was struck and is to be mended.
pub struct Struck {
    /// Partitions that were led there.
    pub led: BTreeSet<u32>,
    /// What proves that it was there.
    pub seen: Option<String>,
    /// Requests of the fault itself that failed, by partition.
    pub failed: BTreeMap<u32, String>,
    fault: Fault,
    victim: usize,
    links: Vec<Link>,
    refused: u64,
}

/// Strikes a node that leads these partitions.
pub async fn strike(
    fault: Fault,
    cluster: &mut Cluster,
    operator: &Client,
    (victim, led): (usize, BTreeSet<u32>),
    numbers: &mut Numbers,
) -> Result<Struck> {
    let mut struck = Struck {
        led,
        seen: None,
        failed: BTreeMap::new(),
        fault,
        victim,
        links: cuts::off(victim, cluster.controllers.len() + 1),
        refused: 0,
    };
    let controller = &mut cluster.controllers[victim];
    match fault {
        Fault::Kill => struck.seen = controller.put_down()?.map(|status| status.to_string()),
        Fault::Pause => {
            controller.signal(Signal::STOP)?;
            controller.paused = true;
        }
        Fault::Restart => {
            controller.signal(Signal::TERM)?;
            controller.stopping = true;
        }
        Fault::Cut => {
            struck.refused = cluster.hosts.cuts.refused()?;
            cluster.hosts.cuts.begin(&struck.links, Way::Drop)?;
        }
        Fault::Power => {
            // First, so that nobody is told by the kernel that the process is gone.
            cluster.hosts.cuts.begin(&struck.links, Way::Drop)?;
            let status = cluster.controllers[victim].put_down()?;
            let lost = cluster.controllers[victim].disk.lose_power(numbers);
            struck.seen = status.map(|_| format!("{} writes and {} changes of names lost", lost.0, lost.1));
        }
        Fault::Move => struck.move_leaders(cluster, operator).await?,
        Fault::Nothing => struck.seen = Some("nothing was done".to_owned()),
    }
    Ok(struck)
}

impl Struck {
    /// Some of the leaders, one after the other, each to another of the other nodes in turn.
    async fn move_leaders(&mut self, cluster: &Cluster, operator: &Client) -> Result<()> {
        let nodes = cluster.controllers.len();
        let others: Vec<usize> = (0..nodes).filter(|node| *node != self.victim).collect();
        let moved: Vec<u32> = self.led.iter().copied().take(MOVES).collect();
        for (turn, partition) in moved.iter().enumerate() {
            let to = others
                .get(turn % others.len().max(1))
                .context("nobody to move to")?;
            let to = NodeId(*to as u64 + 1);
            let failed = match operator.transfer_leader(PartitionId(*partition), to).await {
                Ok(leader) if leader == to => None,
                Ok(leader) => Some(format!("moved to node {to}, and led by node {leader}")),
                Err(error) => Some(error.to_string()),
            };
            match failed {
                None => self.seen = Some(format!("{} of {} moved", turn + 1, moved.len())),
                Some(text) => drop(self.failed.insert(*partition, text)),
            }
            tokio::time::sleep(BETWEEN_MOVES).await;
        }
        self.led = moved.into_iter().collect();
        Ok(())
    }

    /// Ends the fault.
    pub async fn mend(&mut self, cluster: &mut Cluster) -> Result<()> {
        let victim = self.victim;
        match self.fault {
            Fault::Kill => cluster.controllers[victim].let_up()?,
            Fault::Pause => {
                let controller = &mut cluster.controllers[victim];
                let still = controller.state().filter(|state| *state == 'T');
                self.seen = still.map(|_| "it stood still".to_owned());
                controller.signal(Signal::CONT)?;
                controller.paused = false;
            }
            Fault::Restart => {
                self.seen = Some(stopped(cluster, victim).await?);
                cluster.controllers[victim].start()?;
            }
            Fault::Cut => {
                let refused = cluster.hosts.cuts.refused()?.saturating_sub(self.refused);
                self.seen = (refused > 0).then(|| format!("{refused} packets refused"));
                cluster.hosts.cuts.end(&self.links, Way::Drop)?;
            }
            Fault::Power => {
                cluster.hosts.cuts.end(&self.links, Way::Drop)?;
                cluster.controllers[victim].disk.regain_power();
                cluster.controllers[victim].let_up()?;
            }
            Fault::Move | Fault::Nothing => {}
        }
        Ok(())
    }
}

/// Waits until a process that was asked to stop has stopped.
async fn stopped(cluster: &mut Cluster, victim: usize) -> Result<String> {
    let waiting = async {
        loop {
            if let Some(status) = cluster.controllers[victim].ended()? {
                return anyhow::Ok(status.to_string());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(STOPPING, waiting).await {
        Ok(status) => status,
        Err(_) => bail!(
            "node {} does not stop within {} s",
            victim + 1,
            STOPPING.as_secs()
        ),
    }
}
