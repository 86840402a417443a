//! The live end of one key space on this node: recent revisions, and who wants which keys of the next ones.
//!
//! ```text
//!  apply (or another node) ──push──► ring ──dispatch──► inboxes of streams ──► responses
//!                                     ▲                      ▲
//!                                     └── join: from memory, or "read history first"
//! ```
//!
//! Invariant: a watch that has joined with `next` gets every matching event of revisions `>= next` exactly once,
//! or its stream's inbox says from which revision on it does not. Checked by `watch::tests`.

mod state;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use types::limits;

use super::event::{Batch, Revision};
use super::inbox::Inbox;
use super::index::Selector;
use super::leadership::Leadership;

use state::{Member, State};

/// Names a stream within a feed.
pub type StreamId = u64;

/// Where the events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Not known yet.
    #[default]
    None,
    /// The replica on this node.
    Local,
    /// Another node.
    Remote,
}

/// Answer to [`Feed::join`].
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one lives for a moment, on the stack")]
pub enum Joined {
    /// From now on events come to the inbox, after those of the batch. All watches have what is below `next`.
    Live {
        /// Matching events from memory.
        batch: Option<Batch>,
        /// One beyond the newest revision they cover.
        next: i64,
    },
    /// What is wanted first is not in memory.
    Behind,
    /// It is not known yet where the feed begins; the inbox is nudged when it is.
    NotReady,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Feed {
    /// Pushed and not looked at yet: all that the thread that applies ever waits for.
    incoming: Mutex<Incoming>,
    state: Mutex<State>,
    work: Notify,
    /// Nudges whoever drives the feed: it was reset.
    pub reset: Notify,
    /// Whether there is a leader.
    pub leadership: Leadership,
}

#[derive(Debug, Default)]
struct Incoming {
    /// Only its revisions are taken: others would crowd them out, and leave no gap to be noticed.
    origin: Origin,
    revisions: Vec<(Origin, Revision)>,
    size_bytes: usize,
}

impl Incoming {
    fn take(&mut self) -> Vec<(Origin, Revision)> {
        self.size_bytes = 0;
        std::mem::take(&mut self.revisions)
    }
}

impl Feed {
    /// The state, with all that was pushed before. Held while dispatching; [`Feed::push`] does not take it.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        let incoming = self.incoming.lock().take();
        for (origin, revision) in incoming {
            state.absorb(origin, revision);
        }
        state
    }

    /// Adds a stream.
    pub fn attach(&self, inbox: Arc<Inbox>) -> StreamId {
        let mut state = self.lock();
        state.next_stream += 1;
        let stream = state.next_stream;
        let groups = HashSet::new();
        state.streams.insert(stream, Member { inbox, groups });
        stream
    }

    /// Removes a stream and its watches.
    pub fn detach(&self, stream: StreamId) {
        let mut state = self.lock();
        state.leave_all(stream);
        state.streams.remove(&stream);
    }

    /// Takes a stream's watches out of all groups.
    pub fn leave_all(&self, stream: StreamId) {
        self.lock().leave_all(stream);
    }

    /// Takes one watch out of its group.
    pub fn leave(&self, stream: StreamId, selector: &Selector, token: u64) {
        self.lock().leave(stream, selector, token);
    }

    /// Sets the origin. Another one than before begins anew: see [`Feed::restart`].
    pub fn set_origin(&self, origin: Origin) {
        let mut state = self.lock();
        // What is pushed in between is older than what the driver asks for next.
        self.incoming.lock().origin = origin;
        if state.origin != origin {
            state.origin = origin;
            state.restart();
        }
    }

    /// What the feed knew is no longer the whole truth (a snapshot replaced the state): all watches go back to
    /// history from where they are, and the head is unknown again.
    pub fn restart(&self) {
        self.lock().restart();
        self.reset.notify_one();
    }

    /// Counts restarts.
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// [`Feed::restart`] if events come from the replica here.
    pub fn restart_local(&self) {
        let mut state = self.lock();
        if state.origin == Origin::Local {
            state.restart();
        }
        drop(state);
        self.reset.notify_one();
    }

    /// The origin has everything up to `revision`; what comes later will be pushed. Ignored if the feed was
    /// restarted since `epoch`, when the revision was being found out.
    pub fn begin(&self, revision: i64, epoch: u64) {
        let mut state = self.lock();
        if state.epoch == epoch && state.head.is_none() {
            state.begin(revision);
            self.work.notify_one();
        }
    }

    /// Newest revision known, if any is.
    pub fn head(&self) -> Option<i64> {
        self.lock().head
    }

    /// The next revision, from `origin`. Ignored if it is not the feed's origin or the revision is known; after a
    /// gap, all watches go back to history.
    pub fn push(&self, origin: Origin, revision: Revision) {
        let mut incoming = self.incoming.lock();
        if incoming.origin != origin {
            return;
        }
        incoming.size_bytes += revision.size_bytes();
        if incoming.size_bytes > limits::WATCH_RING_BYTES {
            // Nobody has looked for long. The gap sends all watches to history.
            incoming.revisions.clear();
            incoming.size_bytes = revision.size_bytes();
        }
        incoming.revisions.push((origin, revision));
        drop(incoming);
        self.work.notify_one();
    }

    /// Puts a stream's watches of one selector into its group, if what they want next is in memory or still to come.
    pub fn join(&self, stream: StreamId, selector: &Selector, tokens: &[u64], next: i64) -> Joined {
        let mut state = self.lock();
        if state.head.is_none() {
            return Joined::NotReady;
        }
        let mut batch = None;
        let mut reached = next;
        if next <= state.dispatched {
            if state.ring.first().is_none_or(|first| first > next) {
                return Joined::Behind;
            }
            let mut matching = Batch::default();
            for revision in state
                .ring
                .since(next)
                .take_while(|r| r.revision <= state.dispatched)
            {
                for (n, event) in revision.events.iter().enumerate() {
                    if selector.matches(event.key()) {
                        matching.pick(revision, n);
                    }
                }
            }
            reached = state.dispatched + 1;
            batch = (!matching.is_empty()).then_some(matching);
        }
        state.enter(stream, selector, tokens);
        Joined::Live { batch, next: reached }
    }

    /// Hands what was pushed to the inboxes; returns how many watches were given something.
    pub fn dispatch(&self) -> usize {
        self.lock().dispatch()
    }

    /// The revision up to which the stream has been given everything, if it has also taken it.
    pub fn progress(&self, inbox: &Inbox) -> Option<i64> {
        let mut state = self.lock();
        state.head?;
        state.dispatch();
        inbox.is_clear().then_some(state.dispatched)
    }

    /// Dispatches whenever something was pushed. Waits a little after much fan-out, so that one response carries
    /// several revisions and the fan-out leaves most of the processor to others.
    pub async fn run_dispatch(&self) {
        loop {
            self.work.notified().await;
            let given = self.dispatch();
            let pause = PAUSE_PER_WATCH
                .saturating_mul(u32::try_from(given).unwrap_or(u32::MAX))
                .min(PAUSE_MAX);
            if pause >= PAUSE_MIN {
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Ten times what handing an event to one watch costs, about: fan-out takes a tenth of the processor at most.
const PAUSE_PER_WATCH: Duration = Duration::from_micros(50);
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(40);

#[cfg(test)]
mod tests;
