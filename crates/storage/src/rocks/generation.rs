//! One generation of one replica's state: an open database, and the views of it.
//!
//! Records are kept under their own keys, which are at least two bytes long; the position is kept under the one-byte
//! key `0x00`, in the same write batch as the data it belongs to.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use machine::view::Visit;
use machine::{Change, View, ViewError};
use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, ReadOptions, Snapshot, WriteBatch, WriteOptions};

use super::checkpoint::Hashes;
use super::files;
use super::hot::Hot;
use super::open::Places;
use super::options::{Shared, rocks_error};
use crate::{Applied, misuse, seal, view_error};

const APPLIED_KEY: &[u8] = &[0];
const FIRST_KEY: &[u8] = &[0, 0];

/// Closed, and its directory removed if it is obsolete, when nothing reads it any more.
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) db: DB,
    hashes: Arc<Hashes>,
    hot: Hot,
    /// Declared after the database, so dropped once that is closed: closing still writes files.
    end: End,
}

struct End {
    dir: PathBuf,
    obsolete: AtomicBool,
    closed: Arc<Closed>,
    /// Keeps the lock on the data directory as long as something of it is open.
    _shared: Arc<Shared>,
}

/// Lets the next opener wait until this one's files are closed.
#[derive(Default)]
pub(super) struct Closed {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Closed {
    /// False if it is still open after `patience`.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let mut done = self.done.lock();
        self.changed.wait_while_for(&mut done, |done| !*done, patience);
        *done
    }

    pub(super) fn is_done(&self) -> bool {
        *self.done.lock()
    }
}

impl Generation {
    /// Opens `dir`, which must exist unless `create`.
    pub(super) fn open(
        shared: &Arc<Shared>,
        dir: PathBuf,
        number: u64,
        create: bool,
    ) -> io::Result<Generation> {
        let db = DB::open(&shared.state(create)?, &dir)
            .map_err(|error| rocks_error(&dir, "cannot open the state in", &error))?;
        // A position that cannot be read would stop the replica at its first step: better now, by name.
        read_applied(&db, &dir)?;
        let end = End {
            dir,
            obsolete: AtomicBool::new(false),
            closed: Arc::default(),
            _shared: shared.clone(),
        };
        Ok(Generation {
            number,
            db,
            hashes: Arc::default(),
            hot: Hot::new(shared.hot.clone()),
            end,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.end.dir
    }

    /// Hashes of its tables, as far as they are known.
    pub(super) fn hashes(&self) -> Arc<Hashes> {
        self.hashes.clone()
    }

    pub(super) fn closed(&self) -> Arc<Closed> {
        self.end.closed.clone()
    }

    /// Removes the directory once the last reader is gone.
    pub(super) fn retire(&self) {
        self.end.obsolete.store(true, Ordering::Release);
    }

    /// After a failed switch: removes the directory unless the marker came to name it.
    pub(super) fn retire_unless_named(&self, places: &Places) {
        if !matches!(places.read_marker(), Ok(Some(number)) if number == self.number) {
            self.retire();
        }
    }

    pub(super) fn commit(&self, changes: &[Change], applied: &Applied) -> io::Result<()> {
        let bytes: usize = changes
            .iter()
            .map(|c| c.key.len() + c.value.as_ref().map_or(0, Bytes::len) + 16)
            .sum();
        let mut batch = WriteBatch::with_capacity_bytes(bytes + 256);
        for change in changes {
            if change.key.len() < FIRST_KEY.len() {
                return Err(misuse("a record's key has at least two bytes"));
            }
            match &change.value {
                Some(value) => batch.put(&change.key, value),
                None => batch.delete(&change.key),
            }
        }
        batch.put(APPLIED_KEY, seal::applied(applied));
        let mut options = WriteOptions::new();
        options.disable_wal(true);
        let write = || {
            self.db
                .write_opt(batch, &options)
                .map_err(|error| rocks_error(self.dir(), "cannot write the state in", &error))
        };
        self.hot.commit(changes, write)
    }

    pub(super) fn applied(&self) -> io::Result<Option<Applied>> {
        read_applied(&self.db, self.dir())
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.db
            .flush()
            .map_err(|error| rocks_error(self.dir(), "cannot flush the state in", &error))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = files::remove_dir(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "an old generation stays until the next start");
        }
        *self.closed.done.lock() = true;
        self.closed.changed.notify_all();
    }
}

/// The position in an open database, whether it is live or a copy.
pub(super) fn read_applied(db: &DB, dir: &Path) -> io::Result<Option<Applied>> {
    let failed = |error: rocksdb::Error| rocks_error(dir, "cannot read the state in", &error);
    let Some(value) = db.get_pinned(APPLIED_KEY).map_err(failed)? else {
        return Ok(None);
    };
    seal::parse_applied(&format!("the position in {}", dir.display()), &value).map(Some)
}

/// Reads every block, so that each checksum is verified.
pub(super) fn verify(db: &DB, dir: &Path) -> io::Result<()> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_verify_checksums(true);
    options.set_readahead_size(1 << 20);
    let mut records = db.raw_iterator_opt(options);
    records.seek_to_first();
    while records.valid() {
        records.next();
    }
    records
        .status()
        .map_err(|error| rocks_error(dir, "cannot read the state in", &error))
}

impl View for Generation {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        self.hot
            .read(key, || get(&self.db, self.dir(), key, &ReadOptions::default()))
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        scan(
            &self.db,
            self.dir(),
            (from, to, reverse),
            ReadOptions::default(),
            visit,
        )
    }
}

fn unreadable(dir: &Path, error: &rocksdb::Error) -> ViewError {
    view_error(rocks_error(dir, "cannot read the state in", error))
}

fn get(db: &DB, dir: &Path, key: &[u8], options: &ReadOptions) -> Result<Option<Bytes>, ViewError> {
    if key.len() < FIRST_KEY.len() {
        return Ok(None);
    }
    let value = db
        .get_pinned_opt(key, options)
        .map_err(|error| unreadable(dir, &error))?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

fn scan(
    db: &DB,
    dir: &Path,
    (from, to, reverse): (&[u8], &[u8], bool),
    mut options: ReadOptions,
    visit: Visit<'_>,
) -> Result<(), ViewError> {
    let from = from.max(FIRST_KEY);
    if from >= to {
        return Ok(());
    }
    options.set_iterate_range(from.to_vec()..to.to_vec());
    options.set_total_order_seek(true);
    let mut records = db.raw_iterator_opt(options);
    if reverse {
        records.seek_to_last();
    } else {
        records.seek_to_first();
    }
    while let Some((key, value)) = records.item() {
        if let ControlFlow::Break(()) = visit(key, value) {
            return Ok(());
        }
        if reverse {
            records.prev();
        } else {
            records.next();
        }
    }
    records.status().map_err(|error| unreadable(dir, &error))
}

/// A generation as it was at one moment.
pub(super) struct Point {
    /// Declared before the generation it points into, so dropped before it.
    snapshot: Snapshot<'static>,
    generation: Arc<Generation>,
}

impl Point {
    pub(super) fn new(generation: Arc<Generation>) -> Point {
        let snapshot = generation.db.snapshot();
        #[expect(unsafe_code, reason = "an owned snapshot borrows from what it owns")]
        // SAFETY: only the lifetime changes. The snapshot borrows the `DB` inside `generation`, which an `Arc` keeps at
        // one address and which `Point` keeps alive: fields are dropped in order of declaration, the snapshot first,
        // and it never leaves this struct.
        let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
        Point { snapshot, generation }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl View for Point {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        get(&self.generation.db, self.generation.dir(), key, &self.options())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        scan(
            &self.generation.db,
            self.generation.dir(),
            (from, to, reverse),
            self.options(),
            visit,
        )
    }
}
