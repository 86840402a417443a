//! What becomes of an error of the stores. openraft stops the group at any of them and cannot tell them apart.
//!
//! Damage is noted: the replica is given up and replaced under a new id. Every other error (a full disk, no file left
//! to open, a disk that fails) says nothing of what is stored and may meet all replicas of a partition at one time:
//! the process stops, and comes back with everything it had.

use std::io;
use std::sync::{Arc, OnceLock};

use types::{PartitionId, ReplicaId};

use crate::listener::ApplyListener;

/// Errors of one replica's stores end here.
pub struct Trouble {
    partition: PartitionId,
    replica: ReplicaId,
    listener: Arc<dyn ApplyListener>,
    damage: OnceLock<String>,
}

impl Trouble {
    /// Whose.
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// None yet.
    pub fn new(partition: PartitionId, replica: ReplicaId, listener: Arc<dyn ApplyListener>) -> Arc<Trouble> {
        Arc::new(Trouble {
            partition,
            replica,
            listener,
            damage: OnceLock::new(),
        })
    }

    /// Passes a result on, after it was seen to. Every result that openraft gets from a store goes through here.
    pub fn check<T>(&self, doing: &str, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                self.damage.get_or_init(|| format!("{doing}: {error}"));
            } else {
                let text = format!("{doing} of replica {}: {error}", self.replica);
                self.listener.fatal(self.partition, &text);
            }
        })
    }

    /// What is damaged, if anything was found to be.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }
}
