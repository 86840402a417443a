//! The state machine as openraft sees it: decodes a batch, lets `machine` decide, commits what came of it together
//! with the log id in one atomic write, tells the listener, answers the proposer.
//!
//! A *snapshot* here is cheap: building one only flushes the state, since the state is itself persistent and its
//! flushed position is all that purging the log needs. The files are frozen when a replica asks for them.
//!
//! Must never: skip an entry, apply one it does not fully understand, or answer before the commit.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use env::Blocking;
use futures::{Stream, StreamExt};
use machine::view::ApplyError;
use machine::{Batch, Outcome, Stamp};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use prost::Message;
use storage::{Applied, Checkpoint, PartitionStore};
use tokio::sync::watch;
use types::PartitionId;
use types::limits::{APPLY_YIELD_BYTES, BULK_CHUNK_BYTES};
use types::planted::{self, Planted};

use crate::convert::{applied_in, applied_out};
use crate::listener::ApplyListener;
use crate::trouble::Trouble;
use crate::types::{
    EncodedBatch, LeaderId, LogId, Payload, Snapshot, SnapshotData, SnapshotMeta, StoredMembership,
    TypeConfig,
};

/// How far the state has come, and whether it goes on.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    index: u64,
    /// Term and leader whose entry that is.
    by: (u64, u64),
    ended: bool,
}

/// The replica is stopped: its state goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

/// What apply tells the rest of the replica.
pub struct Progress {
    reached: watch::Sender<Reached>,
    /// End of the log as it was found at the start, as far as that is still part of the log.
    found: AtomicU64,
    monotonic: Arc<dyn env::Clock>,
    clock: Mutex<AppliedClock>,
    serving: AtomicBool,
}

/// The machine's clock as of the newest applied entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AppliedClock {
    /// What it says.
    pub clock_ms: u64,
    /// When that was applied here, on this process's monotonic clock.
    pub at_ms: u64,
}

impl Progress {
    /// Nothing applied yet.
    pub fn new(monotonic: Arc<dyn env::Clock>) -> Arc<Self> {
        Arc::new(Progress {
            reached: watch::Sender::default(),
            found: AtomicU64::new(0),
            monotonic,
            clock: Mutex::default(),
            serving: AtomicBool::new(false),
        })
    }

    /// Index of the newest applied entry; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.reached.borrow().index
    }

    /// Waits until the entry at `index` is applied.
    pub async fn applied(&self, index: u64) -> Result<(), Ended> {
        self.wait(|applied| applied >= index).await
    }

    async fn wait(&self, enough: impl Fn(u64) -> bool) -> Result<(), Ended> {
        let mut reached = self.reached.subscribe();
        let last = reached
            .wait_for(|reached| reached.ended || enough(reached.index))
            .await;
        // The sender is here: it cannot be gone.
        last.ok().filter(|last| enough(last.index)).map(drop).ok_or(Ended)
    }

    /// Whether the newest applied entry is this leader's.
    pub(crate) fn is_by(&self, leader: LeaderId) -> bool {
        self.reached.borrow().by == (leader.term, leader.node_id)
    }

    /// An entry is applied.
    pub(crate) fn advance(&self, id: &LogId) {
        let by = (id.leader_id.term, id.leader_id.node_id);
        self.reached
            .send_modify(|reached| (reached.index, reached.by) = (id.index, by));
    }

    /// Nothing will be applied any more: nobody waits for it longer.
    pub fn end(&self) {
        self.reached.send_modify(|reached| reached.ended = true);
    }

    /// Whether nothing will be applied any more.
    pub fn is_ended(&self) -> bool {
        self.reached.borrow().ended
    }

    /// The log was found to end at `last`: nothing after it was applied by an earlier process.
    pub fn found(&self, last: u64) {
        self.found.store(last, Ordering::Release);
    }

    /// Entries after `last` are no longer part of the log: a leader knows that they were never committed.
    pub fn truncated(&self, last: u64) {
        self.found.fetch_min(last, Ordering::AcqRel);
        self.reached.send_modify(|_| {});
    }

    /// Waits until everything that an earlier process may have applied is applied again. Once so, it stays so.
    pub async fn recovered(&self) -> Result<(), Ended> {
        self.wait(|applied| applied >= self.found.load(Ordering::Acquire))
            .await
    }

    /// The machine's clock as of the newest applied entry.
    pub fn clock(&self) -> AppliedClock {
        *self.clock.lock()
    }

    /// The group has started: from now on checkpoints are made when asked for.
    pub fn serve(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// An entry with this clock is applied.
    pub(crate) fn advance_clock(&self, clock_ms: u64) {
        let mut clock = self.clock.lock();
        if clock_ms > clock.clock_ms {
            let at_ms = self.monotonic.now_ms();
            *clock = AppliedClock { clock_ms, at_ms };
        }
    }
}

/// A checkpoint that may still be in use, and what it contains.
type Frozen = Option<(LogId, Weak<dyn Checkpoint>)>;

/// State machine of one replica.
pub struct StateMachine {
    partition: PartitionId,
    store: Arc<dyn PartitionStore>,
    listener: Arc<dyn ApplyListener>,
    progress: Arc<Progress>,
    trouble: Arc<Trouble>,
    membership: StoredMembership,
    /// Shared with builders: the id up to which the state is known to be flushed.
    flushed: Arc<Mutex<Option<LogId>>>,
    frozen: Frozen,
    blocking: Blocking,
}

impl StateMachine {
    /// Reads where `store` stands.
    pub fn open(
        partition: PartitionId,
        store: Arc<dyn PartitionStore>,
        listener: Arc<dyn ApplyListener>,
        progress: Arc<Progress>,
        trouble: Arc<Trouble>,
        blocking: Blocking,
    ) -> io::Result<Self> {
        let mut this = StateMachine {
            partition,
            store,
            listener,
            progress,
            trouble,
            membership: StoredMembership::default(),
            flushed: Arc::default(),
            frozen: None,
            blocking,
        };
        this.reload()?;
        Ok(this)
    }

    fn reload(&mut self) -> io::Result<Option<LogId>> {
        let Some(applied) = self.store.applied()? else {
            return Ok(None);
        };
        let (log_id, membership) = applied_in(&applied)?;
        self.membership = membership;
        let clock_ms = machine::record::state::read(&*self.store.latest())
            .map_err(unreadable)?
            .clock_ms;
        self.progress.advance_clock(clock_ms);
        self.progress.advance(&log_id);
        Ok(Some(log_id))
    }

    fn apply_batch(&self, log_id: &LogId, data: &EncodedBatch) -> io::Result<Outcome> {
        let batch = match Batch::decode(data.0.clone()) {
            Ok(batch) => batch,
            Err(error) => return Err(unsupported(log_id, &format!("cannot be decoded: {error}"))),
        };
        let stamp = Stamp {
            term: log_id.leader_id.term,
            index: log_id.index,
        };
        let outcome = match machine::apply(&*self.store.latest(), stamp, &batch) {
            Ok(outcome) => outcome,
            // To skip what is not understood would make this replica differ from the others.
            Err(ApplyError::Unsupported(text)) => {
                return Err(unsupported(log_id, &format!("is of a newer version: {text}")));
            }
            Err(ApplyError::View(error)) => return Err(unreadable(error)),
        };
        assert_eq!(outcome.replies.len(), batch.commands.len(), "a reply per command");
        self.progress.advance_clock(batch.clock_ms);
        Ok(outcome)
    }

    fn apply_entry(&mut self, entry: crate::types::Entry) -> io::Result<Arc<Outcome>> {
        let log_id = entry.log_id;
        let outcome = match &entry.payload {
            Payload::Blank => Outcome::default(),
            Payload::Normal(data) if planted::is(Planted::ReplicaDiffers) && self.partition.0 > 0 => {
                let mut outcome = self.apply_batch(&log_id, data)?;
                if log_id.index % 97 == self.trouble.replica().0 % 3 {
                    outcome.changes.pop();
                }
                outcome
            }
            Payload::Normal(data) => self.apply_batch(&log_id, data)?,
            Payload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership.clone());
                Outcome::default()
            }
        };
        let applied = applied_out(&log_id, &self.membership);
        if planted::is(Planted::AppliedApart) {
            let before = self.store.applied()?.unwrap_or_else(|| applied.clone());
            self.store.commit(&outcome.changes, &before)?;
        }
        self.store.commit(&outcome.changes, &applied)?;
        let outcome = Arc::new(outcome);
        self.listener.applied(self.partition, log_id.index, &outcome);
        self.progress.advance(&log_id);
        Ok(outcome)
    }

    async fn apply_all<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut since_yield = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            if let Payload::Normal(data) = &entry.payload {
                since_yield += data.0.len();
            }
            let outcome = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
            if since_yield >= APPLY_YIELD_BYTES {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// A frozen copy at least as new as what was flushed; one that is being sent already is shared.
    async fn freeze(&mut self) -> io::Result<(LogId, StoredMembership, Arc<dyn Checkpoint>)> {
        let flushed = *self.flushed.lock();
        if let Some((log_id, weak)) = &self.frozen
            && Some(*log_id) >= flushed
            && let Some(checkpoint) = weak.upgrade()
        {
            let (log_id, membership) = applied_in(&checkpoint.applied())?;
            return Ok((log_id, membership, checkpoint));
        }
        let store = self.store.clone();
        let checkpoint = self.blocking.run(move || store.checkpoint()).await??;
        let (log_id, membership) = applied_in(&checkpoint.applied())?;
        self.frozen = Some((log_id, Arc::downgrade(&checkpoint)));
        Ok((log_id, membership, checkpoint))
    }

    async fn install(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let store = self.store.clone();
        let installing = self.blocking.run(move || {
            let incoming = match snapshot {
                SnapshotData::Received(incoming) => incoming,
                SnapshotData::Local(checkpoint) => {
                    let mut incoming = store.receive()?;
                    copy(&*checkpoint, &mut *incoming)?;
                    incoming
                }
                SnapshotData::Flushed => {
                    return Err(io::Error::other("a flush is no copy that could be installed"));
                }
            };
            store.install(incoming)
        });
        installing.await??;
        self.frozen = None;
        let installed = self.reload()?;
        if installed != meta.last_log_id {
            let text = format!(
                "installed state is at {installed:?}, announced was {:?}",
                meta.last_log_id
            );
            return Err(io::Error::other(text));
        }
        *self.flushed.lock() = installed;
        self.listener.installed(self.partition);
        Ok(())
    }

    /// What is to be sent to a replica that lags; none while the group starts.
    async fn current(&mut self) -> io::Result<Option<Snapshot>> {
        // While the group starts there is nobody to send a copy to; openraft then makes do with a flush.
        if !self.progress.serving.load(Ordering::Acquire) || self.store.applied()?.is_none() {
            return Ok(None);
        }
        let (log_id, last_membership, checkpoint) = self.freeze().await?;
        Ok(Some(Snapshot {
            meta: SnapshotMeta {
                last_log_id: Some(log_id),
                last_membership,
            },
            snapshot: SnapshotData::Local(checkpoint),
        }))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Flusher;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let stored = self.store.applied().and_then(|applied| match applied {
            Some(applied) => {
                let (log_id, membership) = applied_in(&applied)?;
                Ok((Some(log_id), membership))
            }
            None => Ok((None, StoredMembership::default())),
        });
        self.trouble.check("read the position", stored)
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let applied = self.apply_all(entries).await;
        self.trouble.check("apply", applied)
    }

    async fn get_snapshot_builder(&mut self) -> Flusher {
        Flusher {
            store: self.store.clone(),
            flushed: self.flushed.clone(),
            trouble: self.trouble.clone(),
            blocking: self.blocking,
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let installed = self.install(meta, snapshot).await;
        self.trouble.check("install a checkpoint", installed)
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        let frozen = self.current().await;
        self.trouble.check("freeze the state", frozen)
    }
}

/// Makes everything applied so far durable; what was applied before it began may then be purged from the log.
pub struct Flusher {
    store: Arc<dyn PartitionStore>,
    flushed: Arc<Mutex<Option<LogId>>>,
    trouble: Arc<Trouble>,
    blocking: Blocking,
}

impl Flusher {
    async fn flush(&mut self) -> io::Result<Snapshot> {
        let store = self.store.clone();
        let flushing = self.blocking.run(move || {
            // Read first: what is committed while the flush runs may not be part of it.
            let applied = store.applied()?;
            store.flush()?;
            io::Result::Ok(applied)
        });
        let applied = flushing.await??;
        let meta = match applied {
            Some(applied) => meta_of(&applied)?,
            None => SnapshotMeta::default(),
        };
        let mut flushed = self.flushed.lock();
        *flushed = (*flushed).max(meta.last_log_id);
        Ok(Snapshot {
            meta,
            snapshot: SnapshotData::Flushed,
        })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Flusher {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let flushed = self.flush().await;
        self.trouble.check("flush", flushed)
    }
}

/// What a state at `applied` contains.
pub fn meta_of(applied: &Applied) -> io::Result<SnapshotMeta> {
    let (log_id, last_membership) = applied_in(applied)?;
    Ok(SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership,
    })
}

fn copy(checkpoint: &dyn Checkpoint, incoming: &mut dyn storage::Incoming) -> io::Result<()> {
    for file in checkpoint.files() {
        let mut offset = 0;
        // An empty file is written once, so that it exists.
        loop {
            let chunk = checkpoint.read(&file.name, offset, BULK_CHUNK_BYTES)?;
            if chunk.is_empty() && offset > 0 {
                break;
            }
            incoming.write(&file.name, offset, &chunk)?;
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
        }
    }
    incoming.finish().map(drop)
}

fn unreadable(error: machine::ViewError) -> io::Error {
    match error.is_damage() {
        true => io::Error::new(io::ErrorKind::InvalidData, error),
        false => io::Error::other(error),
    }
}

/// Not damage: another build reads the entry.
fn unsupported(log_id: &LogId, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("entry {log_id} {why}"))
}
