//! The log of all replicas of a node in one RocksDB. Layout: `codec`; writing: `writer`; recent entries: `mirror`.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::{DB, DBRecoveryMode, ReadOptions};
use types::{ReplicaId, limits};

use super::codec;
use super::load;
use super::mirror::Mirror;
use super::options::{Options, environment, rocks_error};
use super::tail;
use super::writer::{self, Op, Queue, Queued};
use crate::{Done, Fatal, LogRecord, LogState, LogStats, LogStore, damaged, lock, misuse};

/// The log store. Dropping it writes what is queued and closes the database.
pub struct Log {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

pub(super) struct Shared {
    pub(super) db: DB,
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) queue: Queue,
    pub(super) fatal: Fatal,
    pub(super) counters: Counters,
    replicas: RwLock<BTreeMap<ReplicaId, Arc<Mutex<Mirror>>>>,
}

#[derive(Default)]
pub(super) struct Counters {
    syncs: AtomicU64,
    sync_us: AtomicU64,
    slowest_us: AtomicU64,
    operations: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, elapsed: Duration, operations: u64, bytes: u64) {
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_us.fetch_add(us, Ordering::Relaxed);
        self.slowest_us.fetch_max(us, Ordering::Relaxed);
        self.operations.fetch_add(operations, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Log {
    /// Opens or creates the log in `dir`. `InvalidData`: damaged, of another format, or another cluster's or node's.
    /// `ResourceBusy`: open in another process.
    pub fn open(dir: &Path, options: Options, fatal: Fatal) -> io::Result<Arc<dyn LogStore>> {
        Ok(Arc::new(Log::start(dir, options, fatal)?))
    }

    fn start(dir: &Path, options: Options, fatal: Fatal) -> io::Result<Log> {
        lock::create_dir(dir)?;
        let env = environment(&options)?;
        let mut settings = options.log(&env)?;
        settings.create_if_missing(!dir.join("CURRENT").exists());
        let db = open_db(&mut settings, dir)?;
        load::check_owner(&db, dir, options.owner)?;
        let replicas = load::replicas(&db, dir)?;
        let shared = Arc::new(Shared {
            db,
            dir: dir.to_owned(),
            options,
            queue: Queue::default(),
            fatal,
            counters: Counters::default(),
            replicas: RwLock::new(replicas),
        });
        let writer = spawn_writer(shared.clone())?;
        Ok(Log {
            shared,
            writer: Some(writer),
        })
    }

    /// Applies an operation to the mirror and queues it, as one step for others of the same replica.
    fn submit(
        &self,
        replica: ReplicaId,
        done: Done,
        apply: impl FnOnce(&mut Mirror) -> io::Result<Option<Op>>,
    ) {
        if !self.on_writer() {
            self.shared.queue.wait_for_room();
        }
        let refused = self
            .shared
            .with_mirror(replica, |mirror, state| match apply(state) {
                Ok(Some(op)) => {
                    let queued = Queued {
                        replica,
                        mirror: mirror.clone(),
                        epoch: state.epoch(),
                        op,
                        done,
                    };
                    let pushed = self.shared.queue.push(queued);
                    pushed.err().map(|(done, error)| (done, Err(error)))
                }
                Ok(None) => Some((done, Ok(()))),
                Err(error) => Some((done, Err(error))),
            });
        if let Some((done, result)) = refused {
            done(result);
        }
    }

    fn on_writer(&self) -> bool {
        self.writer
            .as_ref()
            .is_some_and(|writer| writer.thread().id() == thread::current().id())
    }
}

/// Opens the database. What a power cut tore at its end was never acknowledged: it is dropped, and nothing else is.
fn open_db(settings: &mut rocksdb::Options, dir: &Path) -> io::Result<DB> {
    let failed = |error: &rocksdb::Error| rocks_error(dir, "cannot open the log", error);
    let refused = match DB::open(settings, dir) {
        Ok(db) => return Ok(db),
        Err(error) => error,
    };
    let torn = match refused.kind() {
        rocksdb::ErrorKind::Corruption => tail::find(dir)?,
        _ => None,
    };
    let Some(torn) = torn else {
        return Err(failed(&refused));
    };
    tracing::warn!(
        file = %torn.file.display(), offset = torn.offset, bytes = torn.size_bytes, error = %refused,
        "the last write to the log was torn before it was synced, and is dropped",
    );
    settings.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    DB::open(settings, dir).map_err(|error| failed(&error))
}

/// The one thread that owns the log's disk: it blocks in syncs, and never waits for a task.
fn spawn_writer(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("log-writer".into())
        .spawn(move || writer::run(&shared))
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.queue.close();
        if !self.on_writer()
            && let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(dir = %self.shared.dir.display(), "the log's writer panicked");
        }
    }
}

impl LogStore for Log {
    fn append(&self, replica: ReplicaId, records: Vec<LogRecord>, done: Done) {
        self.submit(replica, done, |mirror| {
            mirror.whole()?;
            let Some(first) = records.first() else {
                return Ok(None);
            };
            let start = mirror.expected().unwrap_or(first.index);
            for (record, index) in records.iter().zip(start..) {
                if record.index != index {
                    let found = record.index;
                    return Err(misuse(format!(
                        "replica {replica}: appending {found}, expected {index}"
                    )));
                }
            }
            let before = mirror.append(&records);
            Ok(Some(Op::Append { records, before }))
        });
    }

    fn save_vote(&self, replica: ReplicaId, vote: Bytes, done: Done) {
        self.submit(replica, done, |mirror| {
            mirror.whole()?;
            mirror.vote = Some(vote.clone());
            Ok(Some(Op::Vote(vote)))
        });
    }

    fn save_committed(&self, replica: ReplicaId, committed: Bytes) {
        self.shared.with_mirror(replica, |_, mirror| {
            mirror.committed = Some(committed.clone());
            self.shared.queue.push_committed(replica, committed);
        });
    }

    fn truncate_after(&self, replica: ReplicaId, last: Option<u64>, done: Done) {
        self.submit(replica, done, |mirror| {
            mirror.whole()?;
            let from = last.map_or(mirror.first(), |last| last + 1);
            let to = mirror.next();
            if from >= to {
                return Ok(None);
            }
            if from < mirror.first() {
                let first = mirror.first();
                return Err(misuse(format!(
                    "replica {replica}: truncating to {from}, the log begins at {first}"
                )));
            }
            let before = self.shared.before(replica, mirror, from)?;
            mirror.truncate(from, before);
            Ok(Some(Op::Truncate { from, to }))
        });
    }

    fn purge(&self, replica: ReplicaId, through: u64, id: Bytes, done: Done) {
        self.submit(replica, done, |mirror| {
            mirror.whole()?;
            if mirror
                .purged
                .as_ref()
                .is_some_and(|(purged, _)| *purged >= through)
            {
                return Ok(None);
            }
            let from = mirror.first();
            let before = self.shared.before(replica, mirror, through + 1)?;
            mirror.purge(through, id.clone(), before);
            Ok(Some(Op::Purge {
                from: from.min(through),
                through,
                id,
            }))
        });
    }

    fn remove(&self, replica: ReplicaId, done: Done) {
        self.submit(replica, done, |mirror| {
            mirror.clear();
            Ok(Some(Op::Remove))
        });
    }

    fn read(&self, replica: ReplicaId, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        let Some(mirror) = self.shared.find(replica) else {
            return Ok(Vec::new());
        };
        loop {
            let mut records = Vec::new();
            let mut bytes = 0;
            let state = mirror.lock();
            state.whole()?;
            let (first, epoch) = (state.first(), state.epoch());
            let range = range.start.max(first)..range.end.min(state.next());
            if range.is_empty() {
                return Ok(records);
            }
            let split = state.cached_from().max(range.start);
            if split > range.start {
                drop(state);
                let stored = range.start..range.end.min(split);
                let result = self.shared.read_stored(replica, stored.clone(), max_bytes);
                let state = mirror.lock();
                if state.first() != first || state.epoch() != epoch {
                    continue;
                }
                records = result?;
                bytes = records.iter().map(|record| record.data.len()).sum();
                if bytes >= max_bytes || (records.len() as u64) < stored.end - stored.start {
                    return Ok(records);
                }
                if state.cached_from() > split {
                    continue; // Some of what was cached has been evicted meanwhile.
                }
                take_cached(&state, split..range.end, max_bytes, &mut bytes, &mut records);
            } else {
                take_cached(&state, range, max_bytes, &mut bytes, &mut records);
            }
            return Ok(records);
        }
    }

    fn state(&self, replica: ReplicaId) -> io::Result<LogState> {
        let Some(mirror) = self.shared.find(replica) else {
            return Ok(LogState::default());
        };
        let mirror = mirror.lock();
        mirror.whole()?;
        let entry = |index| self.shared.entry(replica, &mirror, index);
        let last = mirror.last();
        Ok(LogState {
            first: last.map(|_| entry(mirror.first())).transpose()?,
            last: last.map(entry).transpose()?,
            purged: mirror.purged.clone(),
            vote: mirror.vote.clone(),
            committed: mirror.committed.clone(),
        })
    }

    fn replicas(&self) -> io::Result<Vec<ReplicaId>> {
        let replicas = self.shared.replicas.read();
        Ok(replicas
            .iter()
            .filter(|(_, mirror)| !mirror.lock().is_empty())
            .map(|(id, _)| *id)
            .collect())
    }

    fn size_bytes(&self, replica: ReplicaId) -> u64 {
        self.shared
            .find(replica)
            .map_or(0, |mirror| mirror.lock().size_bytes())
    }

    fn stats(&self) -> LogStats {
        let counters = &self.shared.counters;
        LogStats {
            syncs: counters.syncs.load(Ordering::Relaxed),
            sync_us: counters.sync_us.load(Ordering::Relaxed),
            slowest_us: counters.slowest_us.swap(0, Ordering::Relaxed),
            operations: counters.operations.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
        }
    }
}

fn take_cached(
    mirror: &Mirror,
    range: Range<u64>,
    max_bytes: usize,
    bytes: &mut usize,
    records: &mut Vec<LogRecord>,
) {
    for cached in range.map_while(|index| mirror.cached(index)) {
        if !records.is_empty() && *bytes + cached.record.data.len() > max_bytes {
            return;
        }
        *bytes += cached.record.data.len();
        records.push(cached.record.clone());
    }
}

impl Shared {
    fn find(&self, replica: ReplicaId) -> Option<Arc<Mutex<Mirror>>> {
        self.replicas.read().get(&replica).cloned()
    }

    fn mirror(&self, replica: ReplicaId) -> Arc<Mutex<Mirror>> {
        assert_ne!(replica, ReplicaId(u64::MAX), "this id is the store's own");
        match self.find(replica) {
            Some(mirror) => mirror,
            None => self.replicas.write().entry(replica).or_default().clone(),
        }
    }

    /// Changes the mirror that stands for the replica now.
    fn with_mirror<T>(
        &self,
        replica: ReplicaId,
        act: impl FnOnce(&Arc<Mutex<Mirror>>, &mut Mirror) -> T,
    ) -> T {
        loop {
            let mirror = self.mirror(replica);
            let mut state = mirror.lock();
            if !state.gone {
                return act(&mirror, &mut state);
            }
        }
    }

    /// A removal was written: forgets the replica, unless it has been given something since.
    pub(super) fn removed(&self, replica: ReplicaId, mirror: &Arc<Mutex<Mirror>>) {
        let mut replicas = self.replicas.write();
        let mut state = mirror.lock();
        let mine = replicas
            .get(&replica)
            .is_some_and(|found| Arc::ptr_eq(found, mirror));
        if mine && state.is_empty() {
            state.gone = true;
            replicas.remove(&replica);
        }
    }

    /// Bytes of recent entries that each replica may keep.
    pub(super) fn cache_budget(&self) -> usize {
        let replicas = self.replicas.read().len().max(1);
        limits::LOG_CACHE_BYTES.min(limits::LOG_CACHE_NODE_BYTES / replicas)
    }

    /// Bytes of the replica's log ahead of `index`.
    fn before(&self, replica: ReplicaId, mirror: &Mirror, index: u64) -> io::Result<u64> {
        if let Some(cached) = mirror.cached(index) {
            return Ok(cached.before);
        }
        if index >= mirror.next() {
            return Ok(mirror.next_before());
        }
        self.stored(replica, index).map(|(_, before)| before)
    }

    fn entry(&self, replica: ReplicaId, mirror: &Mirror, index: u64) -> io::Result<LogRecord> {
        match mirror.cached(index) {
            Some(cached) => Ok(cached.record.clone()),
            None => self
                .stored(replica, index)
                .map(|(data, _)| LogRecord { index, data }),
        }
    }

    fn stored(&self, replica: ReplicaId, index: u64) -> io::Result<(Bytes, u64)> {
        let key = codec::key(replica, codec::ENTRY, index);
        match self
            .db
            .get_pinned(key)
            .map_err(|error| self.unreadable(replica, index, &error))?
        {
            Some(value) => self.parse(replica, index, &key, &value),
            None => Err(self.broken(replica, index, "is missing")),
        }
    }

    fn read_stored(&self, replica: ReplicaId, range: Range<u64>, max: usize) -> io::Result<Vec<LogRecord>> {
        let mut options = ReadOptions::default();
        let (from, to) = (
            codec::key(replica, codec::ENTRY, range.start),
            codec::key(replica, codec::ENTRY, range.end),
        );
        options.set_iterate_range(from.to_vec()..to.to_vec());
        options.set_readahead_size(256 << 10);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        for index in range {
            iterator
                .status()
                .map_err(|error| self.unreadable(replica, index, &error))?;
            let expected = codec::key(replica, codec::ENTRY, index);
            let Some((_, value)) = iterator.item().filter(|(key, _)| *key == expected) else {
                return Err(self.broken(replica, index, "is missing"));
            };
            let (data, _) = self.parse(replica, index, &expected, value)?;
            if !records.is_empty() && bytes + data.len() > max {
                break;
            }
            bytes += data.len();
            records.push(LogRecord { index, data });
            iterator.next();
        }
        Ok(records)
    }

    fn parse(&self, replica: ReplicaId, index: u64, key: &[u8], value: &[u8]) -> io::Result<(Bytes, u64)> {
        codec::parse_entry(key, value).map_err(|wrong| self.broken(replica, index, &wrong.to_string()))
    }

    fn unreadable(&self, replica: ReplicaId, index: u64, error: &rocksdb::Error) -> io::Error {
        let doing = format!("cannot read entry {index} of replica {replica} in");
        rocks_error(&self.dir, &doing, error)
    }

    /// Names the files that may hold the entry, newest level first.
    fn broken(&self, replica: ReplicaId, index: u64, wrong: &str) -> io::Error {
        let key = codec::key(replica, codec::ENTRY, index);
        let covers = |from: &Option<Vec<u8>>, to: &Option<Vec<u8>>| {
            from.as_deref() <= Some(&key[..]) && Some(&key[..]) <= to.as_deref()
        };
        let files: Vec<String> = match self.db.live_files() {
            Ok(files) => files
                .iter()
                .filter(|f| covers(&f.start_key, &f.end_key))
                .map(|f| f.name.clone())
                .collect(),
            Err(error) => vec![error.to_string()],
        };
        let dir = self.dir.display();
        damaged(format!(
            "log {dir}: entry {index} of replica {replica} {wrong} (files {})",
            files.join(" ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn removed_replicas_take_nothing_from_the_cache_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let fatal: Fatal = Arc::new(|error| panic!("{error}"));
        let log = Log::start(dir.path(), Options::default(), fatal).unwrap();
        let (sender, receiver) = channel();
        let told = || -> Done {
            let sender = sender.clone();
            Box::new(move |result| sender.send(result).unwrap())
        };
        let whole = log.shared.cache_budget();
        for id in 1..=200 {
            log.save_vote(ReplicaId(id), Bytes::from_static(b"vote"), told());
            log.remove(ReplicaId(id), told());
        }
        (0..400).for_each(|_| receiver.recv().unwrap().unwrap());
        assert_eq!(log.shared.cache_budget(), whole);
        assert_eq!(log.shared.replicas.read().len(), 0);
        // One that comes back before its removal is written keeps what it was given.
        for _ in 0..200 {
            log.remove(ReplicaId(7), told());
            log.save_vote(ReplicaId(7), Bytes::from_static(b"again"), told());
            assert_eq!(log.state(ReplicaId(7)).unwrap().vote.unwrap(), "again");
        }
        (0..400).for_each(|_| receiver.recv().unwrap().unwrap());
        assert_eq!(log.state(ReplicaId(7)).unwrap().vote.unwrap(), "again");
    }
}
