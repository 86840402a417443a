//! What becomes of an error of the stores. openraft stops the group at any of them and cannot tell them apart.
//!
//! Damage is noted: the replica is given up and replaced under a new id. Every other error (a full disk, no file left
//! to open, a disk that fails) says nothing of what is stored and may meet all replicas of a partition at one time:
//! the process stops, and comes back with everything it had.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use machine::view::Visit;
use machine::{View, ViewError};
use storage::PointView;
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
                self.note(|| format!("{doing}: {error}"));
            } else {
                let text = format!("{doing} of replica {}: {error}", self.replica);
                self.listener.fatal(self.partition, &text);
            }
        })
    }

    fn note(&self, text: impl FnOnce() -> String) {
        self.damage.get_or_init(text);
    }

    /// What is damaged, if anything was found to be.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }
}

/// A state as it is read for clients: what only they meet comes to the same as what is met elsewhere.
pub(crate) struct Watched {
    pub(crate) view: Arc<dyn PointView>,
    pub(crate) trouble: Arc<Trouble>,
}

impl Watched {
    fn check<T>(&self, read: Result<T, ViewError>) -> Result<T, ViewError> {
        read.inspect_err(|error| {
            if error.is_damage() {
                self.trouble.note(|| error.to_string());
            } else if error.is_unreachable() {
                let text = format!("read the state of replica {}: {error}", self.trouble.replica);
                self.trouble.listener.fatal(self.trouble.partition, &text);
            }
        })
    }
}

impl View for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.check(self.view.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        self.check(self.view.scan(from, to, reverse, visit))
    }
}
