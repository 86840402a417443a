//! Durable log and partition state, behind two traits with two implementations: RocksDB, and a memory store that
//! models what a crash leaves behind. `suite` is what both must pass.
//!
//! Write order, stated here and nowhere else:
//! 1. A log append or vote is answered only after its bytes are synced.
//! 2. State is written without a write-ahead log; applied log id, membership and data are one atomic batch.
//! 3. The log is purged only up to an applied id that was flushed ([`PartitionStore::flush`]) before.
//!
//! A failed sync is reported once, through [`Fatal`], and the process stops: it is never tried again.

pub mod disk;
pub mod lock;
pub mod memory;
pub mod rocks;
mod seal;
pub mod suite;

use std::any::Any;
use std::fmt::Display;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use machine::{Change, View, ViewError};
use types::{PartitionId, ReplicaId};

pub use disk::{Disk, Finish, OpenError, Owner, Stores};

/// Fired once, when what was asked is durable or has failed.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Called when the store can no longer promise anything (failed sync, damaged log). Production stops the process.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// One entry of one replica's log. `data` is opaque here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Position, dense within a replica.
    pub index: u64,
    /// Encoded entry.
    pub data: Bytes,
}

/// What a replica's log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// First entry still there.
    pub first: Option<LogRecord>,
    /// Last entry.
    pub last: Option<LogRecord>,
    /// Index and opaque id given to the last [`LogStore::purge`].
    pub purged: Option<(u64, Bytes)>,
    /// As saved by [`LogStore::save_vote`].
    pub vote: Option<Bytes>,
    /// As saved by [`LogStore::save_committed`]; may be older than the newest saved.
    pub committed: Option<Bytes>,
}

/// Counters since start, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogStats {
    /// Syncs done.
    pub syncs: u64,
    /// Total time in syncs, in microseconds.
    pub sync_us: u64,
    /// Duration of the slowest sync since the last call, in microseconds.
    pub slowest_us: u64,
    /// Operations (appends, votes, …) those syncs carried.
    pub operations: u64,
    /// Bytes appended.
    pub bytes: u64,
}

/// The log of all replicas of a node: one writer, one batch, one sync for all that wait.
/// Operations of one replica take effect in call order. Entries are readable as soon as `append` returned.
pub trait LogStore: Send + Sync + 'static {
    /// Appends entries (dense, ascending), durable when `done` fires.
    fn append(&self, replica: ReplicaId, records: Vec<LogRecord>, done: Done);
    /// Saves the vote, durable when `done` fires.
    fn save_vote(&self, replica: ReplicaId, vote: Bytes, done: Done);
    /// Saves the committed id with the next batch; no sync of its own.
    fn save_committed(&self, replica: ReplicaId, committed: Bytes);
    /// Removes entries after `last` (`None`: all), durable when `done` fires.
    fn truncate_after(&self, replica: ReplicaId, last: Option<u64>, done: Done);
    /// Removes entries up to and including `through`, remembering `id`.
    fn purge(&self, replica: ReplicaId, through: u64, id: Bytes, done: Done);
    /// Removes everything of a replica.
    fn remove(&self, replica: ReplicaId, done: Done);
    /// Entries in `range`, in order, stopping after `max_bytes` (at least one if there is one).
    fn read(&self, replica: ReplicaId, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>>;
    /// What is there, after a restart or now.
    fn state(&self, replica: ReplicaId) -> io::Result<LogState>;
    /// Replicas that have anything in this log.
    fn replicas(&self) -> io::Result<Vec<ReplicaId>>;
    /// Bytes of entries of a replica not yet purged (an estimate after a restart).
    fn size_bytes(&self, replica: ReplicaId) -> u64;
    /// Counters.
    fn stats(&self) -> LogStats;
}

/// Opaque position and membership, committed with the data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Encoded log id.
    pub log_id: Bytes,
    /// Encoded stored membership.
    pub membership: Bytes,
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Name, without directories.
    pub name: String,
    /// Size.
    pub size_bytes: u64,
}

/// A frozen copy of one partition's state; removed when dropped.
pub trait Checkpoint: Send + Sync {
    /// What it contains, read from the copy itself.
    fn applied(&self) -> Applied;
    /// Its files, sorted by name. Reads the whole copy the first time, to verify it: blocks. `InvalidData`: the state
    /// that it was made of is damaged.
    fn list(&self) -> io::Result<Vec<CheckpointFile>>;
    /// The same for tests and for copies within a node, which are verified where they arrive: none without a list.
    fn files(&self) -> Vec<CheckpointFile> {
        self.list().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot list a checkpoint");
            Vec::new()
        })
    }
    /// Bytes of a file from `offset`, at most `len`; empty at its end.
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes>;
}

/// A checkpoint that is being received from elsewhere; removed when dropped unless installed.
pub trait Incoming: Send {
    /// Appends to a file. `name` must not contain a path separator.
    fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Opens what was received and returns what it contains; refuses damaged or incomplete data.
    fn finish(&mut self) -> io::Result<Applied>;
    /// For the store that made it, to take it back at [`PartitionStore::install`].
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// A readable state at one point.
pub trait PointView: View + Send + Sync {}
impl<T: View + Send + Sync> PointView for T {}

/// State of one replica.
pub trait PartitionStore: Send + Sync + 'static {
    /// The newest state; each read sees the newest.
    fn latest(&self) -> Box<dyn View + Send + '_>;
    /// The state now, unchanged by later commits.
    fn point(&self) -> Arc<dyn PointView>;
    /// Commits changes and position in one atomic batch.
    fn commit(&self, changes: &[Change], applied: &Applied) -> io::Result<()>;
    /// Position of the newest commit; `None` if nothing was ever committed.
    fn applied(&self) -> io::Result<Option<Applied>>;
    /// Makes everything committed before the call durable.
    fn flush(&self) -> io::Result<()>;
    /// Freezes a copy (flushing first).
    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>>;
    /// Replaces the state by a finished [`Incoming`] (a new generation), atomically; old `point`s stay readable.
    fn install(&self, incoming: Box<dyn Incoming>) -> io::Result<()>;
    /// Begins receiving a checkpoint beside the state.
    fn receive(&self) -> io::Result<Box<dyn Incoming>>;
    /// Approximate bytes on disk.
    fn size_bytes(&self) -> u64;
}

/// All partitions' state of a node.
pub trait PartitionStores: Send + Sync + 'static {
    /// Opens (or creates) the state of one replica. One at a time per replica.
    fn open(&self, partition: PartitionId, replica: ReplicaId) -> io::Result<Arc<dyn PartitionStore>>;
    /// Removes the state of a replica that is not open (any more).
    fn remove(&self, partition: PartitionId, replica: ReplicaId) -> io::Result<()>;
    /// Replicas that have a directory here.
    fn list(&self) -> io::Result<Vec<(PartitionId, ReplicaId)>>;
    /// Free bytes of the disk the state is on.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// Files that a node with so many replicas may have open: the production stores', and as many again for connections.
pub fn open_files(replicas: usize) -> u64 {
    2 * (rocks::LOG_FILES + rocks::STATE_FILES * replicas) as u64
}

/// Where the production stores are.
pub fn partitions_path(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("partitions")
}

/// The one place that makes a [`ViewError`].
pub(crate) fn view_error(error: io::Error) -> ViewError {
    match error.kind() {
        io::ErrorKind::InvalidData => ViewError::damaged(error.to_string()),
        _ => ViewError::unreachable(error.to_string()),
    }
}

/// An error of kind `InvalidData`: what was read is damaged or of another cluster.
pub(crate) fn damaged(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// An error of kind `Unsupported`: what was read is whole, and another version of holdfast wrote it. It is kept.
pub(crate) fn other_format(what: impl Display, found: impl Display, known: impl Display) -> io::Error {
    let text = format!("{what} has format {found}, this build reads {known}");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// An error of kind `InvalidInput`: the caller broke the contract.
pub(crate) fn misuse(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.into())
}
