//! The replicas that are open on this node, and those that were removed and must not come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use storage::PartitionStore;
use tokio::sync::OwnedMutexGuard;
use types::{PartitionId, ReplicaId};

use crate::network::Registry;
use crate::replica::Replica;
use crate::types::Raft;

/// Replicas by partition: at most one of each here.
#[derive(Default)]
pub(crate) struct Groups {
    open: RwLock<BTreeMap<PartitionId, Replica>>,
    /// Removed, now or by an earlier process. Their frames are refused: an id is never used again.
    forbidden: RwLock<BTreeSet<ReplicaId>>,
    /// Of those: what is still to be deleted.
    removing: Mutex<BTreeSet<(PartitionId, ReplicaId)>>,
    /// Held while a partition is opened or removed.
    changing: Mutex<BTreeMap<PartitionId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Groups {
    pub(crate) fn get(&self, partition: PartitionId) -> Option<Replica> {
        self.open.read().get(&partition).cloned()
    }

    /// All, by partition.
    pub(crate) fn all(&self) -> Vec<Replica> {
        self.open.read().values().cloned().collect()
    }

    pub(crate) fn insert(&self, replica: Replica) {
        let before = self.open.write().insert(replica.partition(), replica);
        assert!(before.is_none(), "one replica of a partition at a time");
    }

    /// Takes a replica out for good, if it is the one that is open.
    pub(crate) fn take(&self, partition: PartitionId, replica: ReplicaId) -> Option<Replica> {
        let mut open = self.open.write();
        open.get(&partition).filter(|open| open.replica_id() == replica)?;
        open.remove(&partition)
    }

    pub(crate) fn forbid(&self, replica: ReplicaId) {
        self.forbidden.write().insert(replica);
    }

    pub(crate) fn is_forbidden(&self, replica: ReplicaId) -> bool {
        self.forbidden.read().contains(&replica)
    }

    /// A removal begins.
    pub(crate) fn removing(&self, partition: PartitionId, replica: ReplicaId) {
        self.removing.lock().insert((partition, replica));
    }

    /// A removal is through.
    pub(crate) fn removed(&self, partition: PartitionId, replica: ReplicaId) {
        self.removing.lock().remove(&(partition, replica));
    }

    /// Removals that began and are not through.
    pub(crate) fn unfinished(&self) -> Vec<(PartitionId, ReplicaId)> {
        self.removing.lock().iter().copied().collect()
    }

    /// Takes all out, to stop them; they may be opened again by another process.
    pub(crate) fn drain(&self) -> Vec<Replica> {
        std::mem::take(&mut *self.open.write()).into_values().collect()
    }

    /// One opening or removal of a partition at a time.
    pub(crate) async fn lock(&self, partition: PartitionId) -> OwnedMutexGuard<()> {
        let lock = self.changing.lock().entry(partition).or_default().clone();
        lock.lock_owned().await
    }
}

impl Registry for Groups {
    fn raft(&self, partition: PartitionId, replica: ReplicaId) -> Option<(Raft, Arc<dyn PartitionStore>)> {
        let open = self.get(partition).filter(|open| open.replica_id() == replica)?;
        Some((open.group().raft.clone(), open.store()))
    }

    fn groups(&self) -> Vec<(PartitionId, ReplicaId, Raft)> {
        let open = self.open.read();
        let open = open.values();
        open.map(|open| (open.partition(), open.replica_id(), open.group().raft.clone()))
            .collect()
    }
}
