//! The state of one replica: the current generation, and how another takes its place.
//!
//! ```text
//! install:  R-7.incoming --rename--> R-7 --open--> marker R.current = 7 (fsync, rename, fsync) --> R-6 is removed
//!           a crash before the marker leaves R-6 in force; leftovers are removed at the next open
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use machine::view::Visit;
use machine::{Change, View, ViewError};
use parking_lot::{Mutex, RwLock};

use super::checkpoint::{RocksCheckpoint, RocksIncoming};
use super::files;
use super::generation::{Generation, Point};
use super::open::{Places, Slot};
use super::options::{Shared, Step};
use crate::{Applied, Checkpoint, Incoming, PartitionStore, PointView, misuse};

pub(super) struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) places: Places,
    pub(super) slot: Arc<Mutex<Slot>>,
    current: RwLock<Arc<Generation>>,
    installing: Mutex<()>,
    copies: AtomicU64,
}

impl Store {
    pub(super) fn new(
        shared: Arc<Shared>,
        places: Places,
        slot: Arc<Mutex<Slot>>,
        generation: Arc<Generation>,
    ) -> Store {
        Store {
            shared,
            places,
            slot,
            current: RwLock::new(generation),
            installing: Mutex::new(()),
            copies: AtomicU64::new(1),
        }
    }

    fn current(&self) -> Arc<Generation> {
        self.current.read().clone()
    }

    /// A name for a copy that no other of this process has. What an earlier process left was removed at its open.
    fn copy_dir(&self, kind: &str) -> PathBuf {
        self.places
            .copy(self.copies.fetch_add(1, Ordering::Relaxed), kind)
    }

    fn switch(&self, generation: Arc<Generation>) -> io::Result<()> {
        self.shared.options.probe(Step::BeforeMarker)?;
        self.places.write_marker(generation.number)?;
        self.shared.options.probe(Step::AfterMarker)?;
        self.slot.lock().hold(&generation);
        let old = std::mem::replace(&mut *self.current.write(), generation);
        old.retire();
        Ok(())
    }
}

/// Reads whichever generation is current.
struct Latest<'a>(&'a Store);

impl View for Latest<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.0.current().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        self.0.current().scan(from, to, reverse, visit)
    }
}

impl PartitionStore for Store {
    fn latest(&self) -> Box<dyn View + Send + '_> {
        Box::new(Latest(self))
    }

    fn point(&self) -> Arc<dyn PointView> {
        Arc::new(Point::new(self.current()))
    }

    fn commit(&self, changes: &[Change], applied: &Applied) -> io::Result<()> {
        self.shared.options.probe(Step::BeforeCommit)?;
        self.current().commit(changes, applied)?;
        self.shared.options.probe(Step::AfterCommit)
    }

    fn applied(&self) -> io::Result<Option<Applied>> {
        self.current().applied()
    }

    fn flush(&self) -> io::Result<()> {
        self.current().flush()
    }

    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>> {
        let generation = self.current();
        if generation.applied()?.is_none() {
            return Err(misuse("nothing was committed yet: there is nothing to freeze"));
        }
        let dir = self.copy_dir("checkpoint");
        Ok(Arc::new(RocksCheckpoint::take(&self.shared, &generation, dir)?))
    }

    fn install(&self, incoming: Box<dyn Incoming>) -> io::Result<()> {
        let Ok(incoming) = incoming.into_any().downcast::<RocksIncoming>() else {
            return Err(misuse("only what this store received can be installed"));
        };
        if !self.places.owns(incoming.dir()) {
            return Err(misuse("only what this store received can be installed"));
        }
        let _one_at_a_time = self.installing.lock();
        let number = self.current().number + 1;
        let dir = self.places.generation(number);
        files::remove_dir(&dir)?;
        incoming.rename(&dir)?;
        let generation = Arc::new(Generation::open(&self.shared, dir, number, false)?);
        self.switch(generation.clone())
            .inspect_err(|_| generation.retire_unless_named(&self.places))
    }

    fn receive(&self) -> io::Result<Box<dyn Incoming>> {
        Ok(Box::new(RocksIncoming::begin(
            &self.shared,
            self.copy_dir("incoming"),
        )?))
    }

    fn size_bytes(&self) -> u64 {
        let size = self
            .current()
            .db
            .property_int_value("rocksdb.live-sst-files-size");
        size.ok().flatten().unwrap_or(0)
    }
}
