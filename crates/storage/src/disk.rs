//! What a controller keeps: a few small files, the log, the partitions' state. Two disks: a directory with RocksDB in
//! it, and one in memory that crashes on demand.

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;

use types::{ClusterId, NodeId};

use crate::{Done, Fatal, LogStore, PartitionStores};

/// Whose log this is. Written into a new log, compared with an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// Takes the callbacks of one batch of the log, with what came of each, in order, and sees to it that they are called.
/// Runs on the log's writer, which does nothing else meanwhile.
pub type Finish = Arc<dyn Fn(Vec<(Done, io::Result<()>)>) + Send + Sync>;

/// Where logs and states are.
#[derive(Clone)]
pub struct Stores {
    /// Of all replicas.
    pub log: Arc<dyn LogStore>,
    /// One state each.
    pub partitions: Arc<dyn PartitionStores>,
}

/// A store that does not open.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {what}")]
pub struct OpenError {
    /// Which.
    pub what: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// The disk of one controller. Small files are known by name, and replaced whole: after a crash there is the old content
/// or the new one, and once [`Disk::replace`] has returned, the new one.
pub trait Disk: Send + Sync + 'static {
    /// What to call it in a sentence.
    fn place(&self) -> &Path;
    /// Holds it for this process until the returned value is dropped; `ResourceBusy` if another process has it.
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// Content of a small file, `None` if there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Gives a small file new content, durably.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Removes a small file if it is there, durably.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Whether there is a log.
    fn has_log(&self) -> bool;
    /// Whether stores were ever opened here, even if they are not whole.
    fn is_used(&self) -> bool;
    /// Opens log and states. Refuses a log of someone else. Blocks while it reads.
    fn open(self: Arc<Self>, owner: Owner, finish: Finish, fatal: Fatal) -> Result<Stores, OpenError>;
}
