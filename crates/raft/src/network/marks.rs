//! Why a replica here stands for election past the leases: the leader asked for it, or the leader's process is dead.
//! The request for votes must say which.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use env::Clock;
use parking_lot::Mutex;
use types::{BootId, NodeId, PartitionId};

use super::PLANNED_FOR;

/// The reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The leader asked this replica to take over.
    Planned,
    /// The leader's process was found dead.
    Dead(NodeId, BootId),
}

/// The newest reason of each group.
pub struct Marks {
    clock: Arc<dyn Clock>,
    groups: Mutex<BTreeMap<PartitionId, (Reason, Duration)>>,
}

impl Marks {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Marks {
        Marks {
            clock,
            groups: Mutex::default(),
        }
    }

    /// From now on, for a few seconds.
    pub fn set(&self, partition: PartitionId, reason: Reason) {
        self.groups.lock().insert(partition, (reason, self.clock.now()));
    }

    /// The reason, if it is fresh.
    pub fn get(&self, partition: PartitionId) -> Option<Reason> {
        let mut groups = self.groups.lock();
        let (reason, since) = *groups.get(&partition)?;
        if self.clock.now().saturating_sub(since) > PLANNED_FOR {
            groups.remove(&partition);
            return None;
        }
        Some(reason)
    }
}
