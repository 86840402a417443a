//! One replica's log and vote as openraft sees them, over the node's shared [`LogStore`].
//!
//! Must never: report an entry or vote as durable before the store did, or hand out a log with a hole.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use storage::{LogRecord, LogStore};
use tokio::sync::oneshot;
use types::ReplicaId;
use types::limits::LOG_READ_BYTES;
use types::planted::{self, Planted};

use crate::appends::Appends;
use crate::convert;
use crate::state_machine::Progress;
use crate::trouble::Trouble;
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// Log of one replica; clones share it and serve as readers.
#[derive(Clone)]
pub struct ReplicaLog {
    store: Arc<dyn LogStore>,
    replica: ReplicaId,
    progress: Arc<Progress>,
    trouble: Arc<Trouble>,
    appends: Arc<Appends>,
    /// The newest vote given to the store: readers stop serving an old leader as soon as a newer vote is on its way.
    vote: Arc<Mutex<Option<Vote>>>,
}

impl ReplicaLog {
    /// Reads the vote, and tells `progress` where the log ends; refuses a log whose records cannot be decoded.
    pub fn open(
        store: Arc<dyn LogStore>,
        replica: ReplicaId,
        progress: Arc<Progress>,
        trouble: Arc<Trouble>,
        appends: Arc<Appends>,
    ) -> io::Result<Self> {
        let state = store.state(replica)?;
        let vote = state
            .vote
            .map(|bytes| convert::vote_from_bytes(&bytes))
            .transpose()?;
        let last = state.last.map(|record| record.index);
        progress.found(last.or(state.purged.map(|(index, _)| index)).unwrap_or(0));
        Ok(ReplicaLog {
            store,
            replica,
            progress,
            trouble,
            appends,
            vote: Arc::new(Mutex::new(vote)),
        })
    }

    fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let entries = self.read_dense(start, end, max_bytes);
        self.trouble.check("read the log", entries)
    }

    fn read_dense(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let records = self.store.read(self.replica, start..end, max_bytes)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(records.len());
        for record in &records {
            let entry = decode(record)?;
            if let Some(before) = entries.last()
                && before.log_id.index + 1 != record.index
            {
                let text = format!(
                    "hole in the log of replica {} before {}",
                    self.replica, record.index
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn log_state(&self) -> io::Result<LogState<TypeConfig>> {
        let state = self.store.state(self.replica)?;
        let purged = match state.purged {
            Some((index, id)) => {
                let id = convert::log_id_from_bytes(&id)?;
                if id.index != index {
                    let text = format!("log id {id} is stored as purged at {index}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                Some(id)
            }
            None => None,
        };
        let last = state
            .last
            .as_ref()
            .map(decode)
            .transpose()?
            .map(|entry| entry.log_id);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.or(purged),
        })
    }
}

fn decode(record: &LogRecord) -> io::Result<Entry> {
    let entry = convert::entry_in(convert::decode("entry", record.data.clone())?)?;
    if entry.log_id.index != record.index {
        let text = format!("entry {} is stored at {}", entry.log_id, record.index);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(entry)
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for ReplicaLog {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        let ready = Vec::new().into_iter();
        futures::stream::unfold(
            (log, start, ready, false),
            move |(log, next, mut ready, failed)| async move {
                if failed {
                    return None;
                }
                if let Some(entry) = ready.next() {
                    return Some((Ok(entry), (log, next, ready, false)));
                }
                match log.read(next, end, LOG_READ_BYTES) {
                    Ok(entries) => {
                        let next = entries.last()?.log_id.index + 1;
                        let mut ready = entries.into_iter();
                        let entry: Entry = ready.next()?;
                        Some((Ok(entry), (log, next, ready, false)))
                    }
                    Err(error) => Some((Err(error), (log, next, ready, true))),
                }
            },
        )
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*self.vote.lock())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, LOG_READ_BYTES)
    }
}

/// Waits for a store's callback.
pub(crate) async fn durable(start: impl FnOnce(storage::Done)) -> io::Result<()> {
    let (done, fired) = oneshot::channel();
    start(Box::new(move |result| {
        // The waiter may have gone away, as when the group is shut down.
        let _ = done.send(result);
    }));
    fired
        .await
        .map_err(|_| io::Error::other("the log store stopped"))?
}

impl RaftLogStorage<TypeConfig> for ReplicaLog {
    type LogReader = ReplicaLog;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.trouble.check("read the log's bounds", self.log_state())
    }

    async fn get_log_reader(&mut self) -> ReplicaLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        *self.vote.lock() = Some(*vote);
        let bytes = convert::vote_bytes(vote);
        if planted::is(Planted::VoteNotSynced) {
            self.store.save_vote(self.replica, bytes, Box::new(drop));
            return Ok(());
        }
        let saved = durable(|done| self.store.save_vote(self.replica, bytes, done)).await;
        self.trouble.check("save the vote", saved)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.store
                .save_committed(self.replica, convert::log_id_bytes(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let committed = self.store.state(self.replica).and_then(|state| {
            let id = state.committed.map(|bytes| convert::log_id_from_bytes(&bytes));
            Ok(id.transpose()?)
        });
        self.trouble.check("read the committed id", committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let record = |entry: Entry| LogRecord {
            index: entry.log_id.index,
            data: convert::encode(&convert::entry_out(&entry)),
        };
        let records: Vec<LogRecord> = entries.into_iter().map(record).collect();
        if records.is_empty() {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        if planted::is(Planted::AckBeforeSync) {
            self.store.append(self.replica, records, Box::new(drop));
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let (trouble, begun) = (self.trouble.clone(), self.appends.begin());
        let done = move |result| {
            drop(begun);
            callback.io_completed(trouble.check("append", result));
        };
        self.store.append(self.replica, records, Box::new(done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let last = last.map(|id| id.index);
        if planted::is(Planted::CutNotPersisted) {
            self.progress.truncated(last.unwrap_or(0));
            return Ok(());
        }
        let truncated = durable(|done| self.store.truncate_after(self.replica, last, done)).await;
        self.trouble.check("truncate the log", truncated)?;
        self.progress.truncated(last.unwrap_or(0));
        Ok(())
    }

    async fn purge(&mut self, through: LogId) -> io::Result<()> {
        let id = convert::log_id_bytes(&through);
        let purged = durable(|done| self.store.purge(self.replica, through.index, id, done)).await;
        self.trouble.check("purge the log", purged)
    }
}
