//! News from apply, turned into signals for tasks. Runs inside the apply loop: stores, wakes, never waits.

use std::sync::{Arc, Weak};

use machine::{Effect, Outcome};
use tokio::sync::Notify;
use types::{NodeId, PartitionId};

use super::Core;
use super::leaders::Leader;

/// Who is to be woken.
#[derive(Default)]
pub struct Woken {
    /// The map changed, or something reconcilers look at.
    pub map: Notify,
    /// A compaction needs the leader's attention.
    pub housekeeping: Notify,
    /// Leadership of some partition changed.
    pub leadership: Notify,
}

/// The listener given to `raft`.
pub struct Listener {
    core: Weak<Core>,
    fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Listener {
    /// Tells `core`; calls `fatal` when the process must stop.
    pub fn new(core: &Arc<Core>, fatal: Arc<dyn Fn(&str) + Send + Sync>) -> Listener {
        Listener {
            core: Arc::downgrade(core),
            fatal,
        }
    }
}

impl raft::ApplyListener for Listener {
    fn applied(&self, partition: PartitionId, index: u64, outcome: &Arc<Outcome>) {
        let Some(core) = self.core.upgrade() else { return };
        core.hashes.applied(partition, index, outcome);
        core.hub.applied(partition, index, outcome);
        for effect in &outcome.effects {
            match effect {
                Effect::MetaChanged if partition == PartitionId::META => core.woken.map.notify_one(),
                Effect::MetaChanged => {}
                Effect::Compaction { .. } => core.woken.housekeeping.notify_one(),
            }
        }
    }

    fn installed(&self, partition: PartitionId) {
        let Some(core) = self.core.upgrade() else { return };
        core.hashes.forget(partition);
        core.hub.installed(partition);
        if partition == PartitionId::META {
            core.woken.map.notify_one();
        }
    }

    fn leadership(&self, partition: PartitionId, leader: Option<NodeId>, term: u64, mine: bool) {
        let Some(core) = self.core.upgrade() else { return };
        core.leaders.set(
            partition,
            Leader {
                node: leader,
                term,
                mine,
            },
        );
        core.metrics.leadership_changes.inc();
        core.woken.leadership.notify_waiters();
        core.woken.housekeeping.notify_one();
    }

    fn fatal(&self, partition: PartitionId, text: &str) {
        (self.fatal)(&format!("partition {partition}: {text}"));
    }
}
