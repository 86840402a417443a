//! Who this data directory is: written once, checked at each start, locked while in use.
//!
//! ```text
//! DATA/identity   cluster, node, incarnation, checksum; written once, after admission
//! DATA/boots      process starts, raised and synced before anything is sent
//! DATA/first      what the first start has still to do: found the cluster, or open the meta replica it was given
//! DATA/peers      where peers were last, for a start at which the map cannot be read
//! DATA/log-made   there once the log was made
//! DATA/gone       replicas removed here, whose ids must never come back
//! DATA/LOCK       held by the running process
//! ```
//! Must never: change an identity, or invent one for a directory that has other files of a node in it.

mod file;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::Disk;
use storage::rocks::{DirDisk, Options};
use types::{ClusterId, Incarnation, NodeId, ReplicaId};

use file::Record;

/// Format of the files here.
const FORMAT: u64 = 1;
/// Removed replicas remembered.
const GONE_KEPT: usize = 4096;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process holds the lock.
    #[error("data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A file does not have the content that was written.
    #[error("{} is damaged: {text}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        text: String,
    },
    /// Written by another version.
    #[error("{} has format {found}, this build reads {FORMAT}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// There is one already.
    #[error("{} already belongs to node {node} of cluster {cluster}", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        cluster: ClusterId,
        /// Its node.
        node: NodeId,
    },
    /// State without an identity: something removed it, or mixed directories.
    #[error("{} holds a node's state but no identity file: restore it, or start from an empty directory", .0.display())]
    Stray(PathBuf),
    /// The log was there and is gone.
    #[error(
        "the log in {} is gone, and with it this node's votes: start it from an empty directory, so that it joins as a \
         new node, and remove the old one",
        .0.display()
    )]
    LogGone(PathBuf),
    /// The disk.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Who this directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeId,
    /// Made with the directory.
    pub incarnation: Incarnation,
}

/// What the first start has still to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// Found the cluster with so many partitions.
    Found {
        /// Beside the meta partition.
        partitions: u32,
    },
    /// Open this replica of the meta partition and wait for the map; the peers are to be reached until the map is here.
    Open {
        /// As given at admission.
        replica: ReplicaId,
        /// To be reached until the map is here.
        peers: Vec<(NodeId, String)>,
    },
}

/// A data directory, locked until dropped.
pub struct DataDir {
    disk: Arc<dyn Disk>,
    writing: parking_lot::Mutex<()>,
    _lock: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for DataDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataDir({})", self.path().display())
    }
}

impl DataDir {
    /// Creates the directory if needed and locks it.
    pub fn lock(path: &Path) -> Result<DataDir, IdentityError> {
        DataDir::on(Arc::new(DirDisk::new(path, Options::default())))
    }

    /// Locks a disk.
    pub fn on(disk: Arc<dyn Disk>) -> Result<DataDir, IdentityError> {
        match disk.lock() {
            Ok(lock) => Ok(DataDir {
                disk,
                writing: parking_lot::Mutex::default(),
                _lock: lock,
            }),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                Err(IdentityError::InUse(disk.place().to_owned()))
            }
            Err(source) => Err(IdentityError::Io {
                doing: "lock",
                path: disk.place().to_owned(),
                source,
            }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.disk.place()
    }

    fn read(&self, name: &str) -> Result<Option<Record>, IdentityError> {
        Record::read(&*self.disk, name)
    }

    fn write(&self, name: &str, record: &Record) -> Result<(), IdentityError> {
        record.write(&*self.disk, name)
    }

    /// The identity, if there is one. State without one is refused.
    pub fn identity(&self) -> Result<Option<Identity>, IdentityError> {
        let Some(record) = self.read("identity")? else {
            if self.disk.is_used() {
                return Err(IdentityError::Stray(self.path().to_owned()));
            }
            return Ok(None);
        };
        Ok(Some(Identity {
            cluster: ClusterId(record.number("cluster", 16)?),
            node: NodeId(record.number("node", 10)?),
            incarnation: Incarnation(record.number("incarnation", 16)?),
        }))
    }

    /// Writes the identity and what the first start has to do. Refused if there is one.
    pub fn create(&self, identity: &Identity, first: &First) -> Result<(), IdentityError> {
        if let Some(old) = self.identity()? {
            return Err(IdentityError::Exists {
                path: self.path().to_owned(),
                cluster: old.cluster,
                node: old.node,
            });
        }
        let mut record = Record::new("first");
        match first {
            First::Found { partitions } => record.set("found", partitions),
            First::Open { replica, peers } => {
                record.set("open", replica);
                for (node, address) in peers {
                    record.set("peer", format!("{node} {address}"));
                }
            }
        }
        self.write("first", &record)?;
        let mut record = Record::new("identity");
        record.set("cluster", identity.cluster);
        record.set("node", identity.node);
        record.set("incarnation", format!("{:016x}", identity.incarnation.0));
        self.write("identity", &record)
    }

    /// The incarnation that a join asks with; the same one until it is admitted, so that a repeated request gets
    /// the same node id.
    pub fn joining(&self, fresh: Incarnation) -> Result<Incarnation, IdentityError> {
        if let Some(record) = self.read("joining")? {
            return Ok(Incarnation(record.number("incarnation", 16)?));
        }
        let mut record = Record::new("joining");
        record.set("incarnation", format!("{:016x}", fresh.0));
        self.write("joining", &record)?;
        Ok(fresh)
    }

    /// What the first start has still to do, if anything.
    pub fn first(&self) -> Result<Option<First>, IdentityError> {
        let Some(record) = self.read("first")? else {
            return Ok(None);
        };
        if record.has("found") {
            return Ok(Some(First::Found {
                partitions: record.number_as("found", 10)?,
            }));
        }
        Ok(Some(First::Open {
            replica: ReplicaId(record.number("open", 10)?),
            peers: peers(&record),
        }))
    }

    /// The first start's work is done.
    pub fn first_done(&self) -> Result<(), IdentityError> {
        for name in ["first", "joining"] {
            self.disk.remove(name).map_err(|source| IdentityError::Io {
                doing: "remove",
                path: self.path().join(name),
                source,
            })?;
        }
        Ok(())
    }

    /// Remembers, durably, that a replica was removed here: its id must never come back, whatever an old map says.
    pub fn remember_gone(&self, replica: ReplicaId) -> Result<(), IdentityError> {
        let _one = self.writing.lock();
        let mut gone = self.gone()?;
        if gone.contains(&replica) {
            return Ok(());
        }
        gone.push(replica);
        let mut record = Record::new("gone");
        // Only the newest matter: an old map cannot be older than the newest few hundred moves.
        for replica in gone.iter().rev().take(GONE_KEPT).rev() {
            record.set("replica", replica);
        }
        self.write("gone", &record)
    }

    /// Replicas that were removed here.
    pub fn gone(&self) -> Result<Vec<ReplicaId>, IdentityError> {
        let record = self.read("gone")?;
        let Some(record) = record else {
            return Ok(Vec::new());
        };
        // One that cannot be read may be the one whose return this file is there to refuse.
        let ids = record.all("replica").map(|id| match id.parse() {
            Ok(id) => Ok(id),
            Err(_) => Err(record.damaged(&format!("{id:?} is no replica"))),
        });
        ids.collect()
    }

    /// Refuses a directory whose log was there and is gone: votes were in it, so this node must never vote again.
    pub fn check_log(&self) -> Result<(), IdentityError> {
        let made = self.read("log-made")?.is_some();
        match made && !self.disk.has_log() {
            true => Err(IdentityError::LogGone(self.path().to_owned())),
            false => Ok(()),
        }
    }

    /// Remembers that the log was made.
    pub fn log_made(&self) -> Result<(), IdentityError> {
        match self.read("log-made")? {
            Some(_) => Ok(()),
            None => self.write("log-made", &Record::new("log-made")),
        }
    }

    /// Remembers where peers were, for a start at which the map cannot be read.
    pub fn remember_peers(&self, peers: &[(NodeId, String)]) -> Result<(), IdentityError> {
        let mut record = Record::new("peers");
        for (node, address) in peers {
            record.set("peer", format!("{node} {address}"));
        }
        self.write("peers", &record)
    }

    /// Where peers were.
    pub fn remembered_peers(&self) -> Result<Vec<(NodeId, String)>, IdentityError> {
        Ok(self
            .read("peers")?
            .map(|record| peers(&record))
            .unwrap_or_default())
    }

    /// Peers of before: those last remembered, and at the first start those given at the admission.
    pub fn given_peers(&self) -> Result<Vec<(NodeId, String)>, IdentityError> {
        let mut peers = self.remembered_peers()?;
        if let Some(First::Open { peers: given, .. }) = self.first()? {
            peers.extend(given);
        }
        Ok(peers)
    }

    /// Counts one more process start, durably.
    pub fn boot(&self) -> Result<u64, IdentityError> {
        let boots = match self.read("boots")? {
            Some(record) => {
                let boots = record.number("boots", 10)?.checked_add(1);
                boots.ok_or_else(|| record.damaged("more starts than can be"))?
            }
            None => 1,
        };
        let mut record = Record::new("boots");
        record.set("boots", boots);
        self.write("boots", &record)?;
        Ok(boots)
    }
}

fn peers(record: &Record) -> Vec<(NodeId, String)> {
    record
        .all("peer")
        .filter_map(|text| text.split_once(' '))
        .filter_map(|(node, address)| Some((node.parse().ok()?, address.to_owned())))
        .collect()
}
