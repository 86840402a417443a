//! One node's disk: outlives the stores opened on it, and crashes on demand.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use types::{PartitionId, ReplicaId};

use super::files::Files;
use super::log::{LogDisk, MemoryLog};
use super::state::{MemoryStores, StateDisk};
use crate::{Applied, Done, Fatal, LogStore, PartitionStores};

/// Picks one of `n` outcomes: returns a number below `n`. A simulator gives its seeded generator.
pub type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

/// A disk in memory. Stores opened on it stop working at [`MemoryDisk::crash`]; open them anew.
pub struct MemoryDisk {
    inner: Mutex<Disk>,
    ready: Mutex<Ready>,
    asked: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
pub(super) struct Disk {
    /// Raised by each crash: stores of an earlier boot are dead.
    pub(super) boot: u64,
    pub(super) held: bool,
    pub(super) failing: bool,
    pub(super) failed: Option<String>,
    pub(super) unreadable: bool,
    /// Pieces of copies that come with a flipped bit from now on.
    pub(super) flips: u32,
    pub(super) fatal: Option<Fatal>,
    pub(super) free_bytes: u64,
    pub(super) log: LogDisk,
    pub(super) states: BTreeMap<(PartitionId, ReplicaId), StateDisk>,
    pub(super) files: Files,
}

/// Callbacks in the order in which they must fire. One caller fires at a time; others only queue.
#[derive(Default)]
struct Ready {
    queue: VecDeque<(Done, Option<String>)>,
    firing: bool,
}

impl MemoryDisk {
    /// An empty disk with a tebibyte free.
    pub fn new() -> Arc<MemoryDisk> {
        let disk = Disk {
            free_bytes: 1 << 40,
            ..Disk::default()
        };
        Arc::new(MemoryDisk {
            inner: Mutex::new(disk),
            ready: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    /// Opens the log that is on this disk.
    pub fn log(self: &Arc<Self>, fatal: Fatal) -> Arc<dyn LogStore> {
        let mut disk = self.inner.lock();
        disk.fatal = Some(fatal);
        Arc::new(MemoryLog {
            disk: self.clone(),
            boot: disk.boot,
        })
    }

    /// Opens the states that are on this disk.
    pub fn stores(self: &Arc<Self>) -> Arc<dyn PartitionStores> {
        let boot = self.inner.lock().boot;
        Arc::new(MemoryStores {
            disk: self.clone(),
            boot,
        })
    }

    /// Power is lost: keeps what was synced and a prefix, chosen by `choose`, of what was not; possibly only the first
    /// records of the append that follows. Callbacks that wait never fire. Ends [`hold_sync`](Self::hold_sync) and
    /// [`fail_sync`](Self::fail_sync) and [`fail_reads`](Self::fail_reads).
    pub fn crash(&self, choose: Choose<'_>) {
        self.end(|log, choose| log.crash(choose), choose);
    }

    /// The process is killed: what it had written to the log is with the system, synced or not; commits of states since
    /// the last flush were in its memory, and a prefix of them, chosen by `choose`, is left. Else as [`Self::crash`].
    pub fn kill(&self, choose: Choose<'_>) {
        self.end(|log, _| log.crash(&mut |n| n - 1), choose);
    }

    fn end(&self, log: impl FnOnce(&mut LogDisk, Choose<'_>) -> Vec<Done>, choose: Choose<'_>) {
        let mut disk = self.inner.lock();
        disk.boot += 1;
        disk.held = false;
        disk.failing = false;
        disk.unreadable = false;
        disk.failed = None;
        disk.fatal = None;
        disk.files.unlock();
        let silenced = log(&mut disk.log, choose);
        for state in disk.states.values_mut() {
            state.crash(choose);
        }
        drop(disk);
        let queued = std::mem::take(&mut self.ready.lock().queue);
        drop((silenced, queued));
    }

    /// While on, syncs of the log do not come back: entries are readable, and callbacks wait. Turning it off does what
    /// has waited.
    pub fn hold_sync(&self, on: bool) {
        self.inner.lock().held = on;
        self.settle();
    }

    /// Calls `asked` each time that something is left to wait for a sync that is held.
    pub fn on_waiting(&self, asked: impl Fn() + Send + Sync + 'static) {
        *self.asked.lock() = Some(Arc::new(asked));
    }

    /// Does one sync, held or not, of all that waits now.
    pub fn sync(&self) {
        let held = std::mem::take(&mut self.inner.lock().held);
        self.settle();
        self.inner.lock().held = held;
    }

    /// From now on every sync fails, until the crash that follows.
    pub fn fail_sync(&self) {
        self.inner.lock().failing = true;
    }

    /// From now on every read fails, until the crash that follows.
    pub fn fail_reads(&self) {
        self.inner.lock().unreadable = true;
    }

    /// Syncs and reads work again, unless a sync has failed already.
    pub fn mend(&self) {
        let mut disk = self.inner.lock();
        disk.failing = false;
        disk.unreadable = false;
    }

    /// In each of the next `pieces` of copies that are received here, one bit is flipped.
    pub fn flip_received(&self, pieces: u32) {
        self.inner.lock().flips = pieces;
    }

    /// What [`PartitionStores::free_bytes`] says from now on.
    pub fn set_free_bytes(&self, free_bytes: u64) {
        self.inner.lock().free_bytes = free_bytes;
    }

    /// Damages an entry of the log on the disk: reading it fails.
    pub fn damage_entry(&self, replica: ReplicaId, index: u64) {
        self.inner.lock().log.damaged.insert((replica, index));
    }

    /// Damages a replica's state: opening and reading it fail until it is removed or replaced.
    pub fn damage_state(&self, partition: PartitionId, replica: ReplicaId) {
        if let Some(state) = self.inner.lock().states.get_mut(&(partition, replica)) {
            state.damaged = true;
        }
    }

    /// Everything on it is gone. No process may have it open.
    pub fn wipe(&self) {
        let mut disk = self.inner.lock();
        let (boot, free_bytes) = (disk.boot, disk.free_bytes);
        *disk = Disk {
            boot: boot + 1,
            free_bytes,
            ..Disk::default()
        };
    }

    /// The stores that are open now are dead, and what they had not synced is as unsure as before.
    pub fn power_off(&self) {
        self.inner.lock().boot += 1;
    }

    /// Whether someone waits for a sync.
    pub fn waiting(&self) -> bool {
        self.inner.lock().waits()
    }

    /// An entry as it is on the disk now: as read, or as a crash that keeps nothing unsynced would leave it.
    pub fn entry(&self, replica: ReplicaId, index: u64, synced: bool) -> Option<Bytes> {
        self.inner.lock().log.entry(replica, index, synced)
    }

    /// Up to which index a replica's log was purged, as read.
    pub fn purged(&self, replica: ReplicaId) -> u64 {
        self.inner.lock().log.purged(replica, false)
    }

    /// The same, as a crash that keeps nothing unsynced would leave it.
    pub fn purged_synced(&self, replica: ReplicaId) -> u64 {
        self.inner.lock().log.purged(replica, true)
    }

    /// Position of a replica's state that no crash can take back.
    pub fn durable(&self, partition: PartitionId, replica: ReplicaId) -> Option<Applied> {
        let disk = self.inner.lock();
        disk.states.get(&(partition, replica))?.durable()
    }

    /// Operations of the log that a crash now could lose.
    pub fn unsynced(&self) -> usize {
        self.inner.lock().log.unsynced.len()
    }

    /// Runs `act` on the disk as it is, whoever has it open.
    pub(super) fn with_any<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.inner.lock())
    }

    /// Runs `act` on the disk of `boot`.
    pub(super) fn with<T>(&self, boot: u64, act: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.inner.lock();
        if disk.boot != boot {
            return Err(io::Error::other("the process that opened this store has crashed"));
        }
        act(&mut disk)
    }

    /// Fires a callback after those that wait before it.
    pub(super) fn answer(&self, done: Done, error: Option<String>) {
        self.ready.lock().queue.push_back((done, error));
        self.fire();
    }

    /// Syncs the log unless it is held, and fires what can be fired.
    pub(super) fn settle(&self) {
        let mut disk = self.inner.lock();
        if !disk.held {
            let error = disk.sync_error();
            let fatal = disk
                .fatal
                .clone()
                .filter(|_| error.is_some() && disk.failed.is_none());
            disk.failed = error.clone();
            let done = disk.log.sync(error.is_none());
            self.ready
                .lock()
                .queue
                .extend(done.into_iter().map(|done| (done, error.clone())));
            drop(disk);
            if let (Some(fatal), Some(error)) = (fatal, error) {
                fatal(&error);
            }
        } else {
            let waits = disk.waits();
            drop(disk);
            let asked = self.asked.lock().clone().filter(|_| waits);
            if let Some(asked) = asked {
                asked();
            }
        }
        self.fire();
    }

    fn fire(&self) {
        let mut ready = self.ready.lock();
        if ready.firing {
            return;
        }
        while let Some((done, error)) = ready.queue.pop_front() {
            ready.firing = true;
            drop(ready);
            done(error.map_or(Ok(()), |error| Err(io::Error::other(error))));
            ready = self.ready.lock();
            ready.firing = false;
        }
    }
}

impl Disk {
    fn waits(&self) -> bool {
        self.log.unsynced.iter().any(|(_, _, done)| done.is_some())
    }

    pub(super) fn read_error(&self) -> io::Result<()> {
        match self.unreadable {
            true => Err(io::Error::other("cannot read: the disk fails")),
            false => Ok(()),
        }
    }

    pub(super) fn sync_error(&self) -> Option<String> {
        let failing = self.failing.then(|| "cannot sync: the disk fails".to_owned());
        self.failed.clone().or(failing)
    }
}
