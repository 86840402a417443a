//! The log's one writer: takes everything that waits, writes it as one batch with one sync, then tells those who asked,
//! in order ([`crate::Finish`]). After a failed write nothing is tried again.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rocksdb::{WriteBatch, WriteOptions};
use types::{ReplicaId, limits};

use super::codec;
use super::log::Shared;
use super::mirror::Mirror;
use super::options::{Step, rocks_error};
use crate::{Done, LogRecord};

/// What the writer does to one replica.
pub(super) enum Op {
    /// `before`: bytes of the replica's log ahead of the first record.
    Append {
        records: Vec<LogRecord>,
        before: u64,
    },
    Vote(Bytes),
    /// Removes `from..to`.
    Truncate {
        from: u64,
        to: u64,
    },
    /// Removes `from..=through`.
    Purge {
        from: u64,
        through: u64,
        id: Bytes,
    },
    Remove,
}

pub(super) struct Queued {
    pub(super) replica: ReplicaId,
    pub(super) mirror: Arc<Mutex<Mirror>>,
    /// The mirror's epoch once the operation was applied to it.
    pub(super) epoch: u64,
    pub(super) op: Op,
    pub(super) done: Done,
}

impl Queued {
    fn size_bytes(&self) -> usize {
        match &self.op {
            Op::Append { records, .. } => records.iter().map(|record| record.data.len() + 64).sum(),
            Op::Vote(_) | Op::Truncate { .. } | Op::Purge { .. } | Op::Remove => 64,
        }
    }
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Work {
    ops: Vec<Queued>,
    committed: BTreeMap<ReplicaId, Bytes>,
}

#[derive(Default)]
struct Waiting {
    work: Work,
    bytes: usize,
    closing: bool,
    failed: Option<String>,
}

/// Operations on their way to the writer. Bounded: [`Queue::wait_for_room`] comes before [`Queue::push`].
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    work: Condvar,
    room: Condvar,
}

impl Queue {
    pub(super) fn wait_for_room(&self) {
        let full = |waiting: &mut Waiting| {
            let ops = waiting.work.ops.len();
            let full = waiting.bytes >= limits::LOG_QUEUE_BYTES || ops >= limits::LOG_QUEUE_OPERATIONS;
            full && waiting.failed.is_none()
        };
        self.room.wait_while(&mut self.waiting.lock(), full);
    }

    /// Gives back the callback if the log has failed.
    pub(super) fn push(&self, queued: Queued) -> Result<(), (Done, io::Error)> {
        let mut waiting = self.waiting.lock();
        if let Some(failed) = &waiting.failed {
            return Err((queued.done, io::Error::other(failed.clone())));
        }
        if matches!(queued.op, Op::Remove) {
            waiting.work.committed.remove(&queued.replica);
        }
        waiting.bytes += queued.size_bytes();
        waiting.work.ops.push(queued);
        self.work.notify_one();
        Ok(())
    }

    /// Waits for no one and wakes no one: it goes with the next batch.
    pub(super) fn push_committed(&self, replica: ReplicaId, committed: Bytes) {
        self.waiting.lock().work.committed.insert(replica, committed);
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closing = true;
        self.work.notify_one();
    }

    /// Everything that waits; `None` once closed and empty.
    fn take(&self) -> Option<Work> {
        let mut waiting = self.waiting.lock();
        while waiting.work.ops.is_empty() && !waiting.closing {
            self.work.wait(&mut waiting);
        }
        let work = mem::take(&mut waiting.work);
        waiting.bytes = 0;
        self.room.notify_all();
        (!work.ops.is_empty() || !work.committed.is_empty()).then_some(work)
    }

    /// Refuses all further work, and returns what is waiting.
    fn fail(&self, error: &str) -> Work {
        let mut waiting = self.waiting.lock();
        waiting.failed = Some(error.to_owned());
        self.room.notify_all();
        mem::take(&mut waiting.work)
    }
}

/// The writer's thread.
pub(super) fn run(shared: &Shared) {
    let mut scratch = Vec::new();
    while let Some(work) = shared.queue.take() {
        let batch = batch(&work, &mut scratch);
        match write(shared, batch) {
            Ok(elapsed) => finish(shared, work, elapsed),
            Err(error) => return fail(shared, work, &error),
        }
    }
}

fn batch(work: &Work, scratch: &mut Vec<u8>) -> WriteBatch {
    let bytes: usize = work.ops.iter().map(Queued::size_bytes).sum();
    let mut batch = WriteBatch::with_capacity_bytes(bytes + 64 * work.committed.len());
    for Queued { replica, op, .. } in &work.ops {
        let entry = |index| codec::key(*replica, codec::ENTRY, index);
        match op {
            Op::Append { records, before } => {
                let mut before = *before;
                for record in records {
                    let key = entry(record.index);
                    codec::entry(scratch, &key, before, &record.data);
                    batch.put(key, &scratch[..]);
                    before += record.data.len() as u64;
                }
            }
            Op::Vote(vote) => put_mark(&mut batch, *replica, codec::VOTE, vote),
            Op::Truncate { from, to } => batch.delete_range(entry(*from), entry(*to)),
            Op::Purge { from, through, id } => {
                batch.delete_range(entry(*from), entry(through + 1));
                put_mark(&mut batch, *replica, codec::PURGED, &codec::purged(*through, id));
            }
            Op::Remove => {
                let end = codec::key(*replica, codec::ENTRY + 1, 0);
                batch.delete_range(codec::key(*replica, codec::MARK, 0), end);
            }
        }
    }
    for (replica, committed) in &work.committed {
        put_mark(&mut batch, *replica, codec::COMMITTED, committed);
    }
    batch
}

fn put_mark(batch: &mut WriteBatch, replica: ReplicaId, which: u64, payload: &[u8]) {
    let key = codec::key(replica, codec::MARK, which);
    batch.put(key, codec::mark(&key, payload));
}

#[expect(
    clippy::disallowed_methods,
    reason = "measures the disk for metrics; decides nothing"
)]
fn write(shared: &Shared, batch: WriteBatch) -> io::Result<Duration> {
    shared.options.probe(Step::LogBeforeSync)?;
    let begin = std::time::Instant::now();
    if !batch.is_empty() {
        let mut options = WriteOptions::new();
        options.set_sync(true);
        shared
            .db
            .write_opt(batch, &options)
            .map_err(|error| rocks_error(&shared.dir, "cannot write the log", &error))?;
    }
    let elapsed = begin.elapsed();
    shared.options.probe(Step::LogAfterSync)?;
    Ok(elapsed)
}

fn finish(shared: &Shared, work: Work, elapsed: Duration) {
    let bytes: usize = work.ops.iter().map(Queued::size_bytes).sum();
    shared
        .counters
        .count(elapsed, work.ops.len() as u64, bytes as u64);
    let budget = shared.cache_budget();
    for queued in &work.ops {
        let next = match &queued.op {
            Op::Append { records, .. } => records.last().map(|record| record.index + 1),
            Op::Truncate { from, .. } => Some(*from),
            Op::Remove => {
                shared.removed(queued.replica, &queued.mirror);
                None
            }
            Op::Purge { .. } | Op::Vote(_) => None,
        };
        if let Some(next) = next {
            let mut mirror = queued.mirror.lock();
            mirror.wrote(queued.epoch, next);
            mirror.evict(budget);
        }
    }
    let finished = work.ops.into_iter().map(|queued| (queued.done, Ok(())));
    shared.options.finish(finished.collect());
}

fn fail(shared: &Shared, work: Work, error: &io::Error) {
    let text = error.to_string();
    tracing::error!(error = %text, "the log failed and takes no more writes");
    let rest = shared.queue.fail(&text);
    (shared.fatal)(&text);
    let failed = work.ops.into_iter().chain(rest.ops);
    let failed = failed.map(|queued| (queued.done, Err(io::Error::new(error.kind(), text.clone()))));
    shared.options.finish(failed.collect());
}
