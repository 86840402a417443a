//! When the log of a replica is cut.
//!
//! The rule: a replica whose log holds more than [`Retention::bytes`] or [`Retention::entries`] applied entries is
//! flushed, and then purged up to what
//! 1. was applied and flushed here (openraft's "snapshot" is exactly that), and
//! 2. leaves [`Retention::kept`] entries, fewer if they are large, for replicas that lag a little, and
//! 3. on the leader: every member has, unless the log has grown to `LAGGARD_FACTOR` times the bound; a member
//!    that is further behind than that gets a checkpoint instead, and
//! 4. no checkpoint that is being sent ends before, unless what is kept for its sake takes too much of the free disk.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use storage::{LogStore, PartitionStores};

use crate::config::Retention;
use crate::groups::Groups;
use crate::network::{Network, Sendings};
use crate::replica::Group;

/// How often the logs are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How much longer the log may grow for the sake of a member that lags.
const LAGGARD_FACTOR: u64 = 5;
/// The part of the free disk that one log may take while a checkpoint is sent.
const SENT_SHARE: u64 = 4;

/// Where a replica's log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Log {
    purged: u64,
    flushed: u64,
    applied: u64,
    last: u64,
    bytes: u64,
    /// On the leader: what the slowest member has.
    slowest: Option<u64>,
    /// Up to which nobody will need it who is being sent a checkpoint.
    sent: Option<u64>,
    /// Bytes that may be kept for their sake.
    room: u64,
}

/// What to do about it, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Step {
    purge: Option<u64>,
    flush: bool,
}

impl Log {
    fn step(&self, retention: Retention) -> Step {
        let entries = self.applied.saturating_sub(self.purged);
        if self.bytes <= retention.bytes && entries <= retention.entries {
            return Step::default();
        }
        let held = self.last.saturating_sub(self.purged).max(1);
        let entry_bytes = (self.bytes / held).max(1);
        let keep = retention.kept.min(retention.bytes / 4 / entry_bytes);
        let mut through = self.applied.saturating_sub(keep);
        let patient = self.bytes <= LAGGARD_FACTOR.saturating_mul(retention.bytes)
            && entries <= LAGGARD_FACTOR.saturating_mul(retention.entries);
        if let Some(slowest) = self.slowest
            && patient
        {
            through = through.min(slowest);
        }
        if let Some(sent) = self.sent
            && self.bytes <= self.room
        {
            through = through.min(sent);
        }
        // While writes go on, a flush is always a little behind by the time it is done: take what there is.
        let flushed = through.min(self.flushed);
        Step {
            purge: (flushed > self.purged).then_some(flushed),
            flush: self.flushed < through,
        }
    }
}

fn look(group: &Group, log: &dyn LogStore, sendings: &Sendings, free_bytes: u64) -> Log {
    let metrics = group.metrics.borrow_watched();
    let index = |id: &Option<crate::types::LogId>| id.map_or(0, |id| id.index);
    Log {
        purged: index(&metrics.purged),
        flushed: index(&metrics.snapshot),
        applied: index(&metrics.last_applied),
        last: metrics.last_log_index.unwrap_or(0),
        bytes: log.size_bytes(group.replica),
        slowest: metrics
            .replication
            .as_ref()
            .and_then(|members| members.values().map(index).min()),
        sent: sendings.needed(group.partition, |to| {
            let members = metrics.replication.as_ref();
            members.and_then(|members| members.get(&to.0)).map_or(0, index)
        }),
        room: free_bytes / SENT_SHARE,
    }
}

/// Looks at all logs each second until the node is gone.
pub(crate) async fn run(
    groups: Weak<Groups>,
    network: Weak<Network>,
    log: Arc<dyn LogStore>,
    stores: Arc<dyn PartitionStores>,
    retention: Retention,
) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (Some(groups), Some(network)) = (groups.upgrade(), network.upgrade()) else {
            return;
        };
        // Unknown is none: then nothing is kept.
        let free_bytes = stores.free_bytes().unwrap_or(0);
        for replica in groups.all() {
            let group = replica.group();
            let trigger = group.raft.trigger();
            let step = look(group, &*log, &network.sendings, free_bytes).step(retention);
            // A group that has stopped needs no purge.
            if let Some(through) = step.purge {
                let _ = trigger.purge_log(through).await;
            }
            if step.flush {
                let _ = trigger.snapshot().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
