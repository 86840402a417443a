//! What waits for one watch stream: bounded. When it is full, what follows is not kept; the stream is told from
//! which revision it has lost events and reads them from history at its own pace.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use types::limits;

use super::event::Batch;

/// Events for some watches of the stream.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Shared with all watches of the same selector, here and on other streams.
    pub batch: Arc<Batch>,
    /// Tokens of the watches.
    pub tokens: Arc<Vec<u64>>,
}

/// What [`Inbox::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// Next in order.
    Delivery(Delivery),
    /// All before it was taken; events from this revision on were not kept.
    Lost(i64),
    /// Nothing.
    Empty,
}

/// One stream's deliveries.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Delivery>,
    size_bytes: usize,
    lost_from: Option<i64>,
}

impl Inbox {
    /// Adds a delivery of a stretch of revisions that begins at `from`, unless there is no room.
    pub fn push(&self, delivery: Delivery, from: i64) {
        let mut state = self.state.lock();
        if state.lost_from.is_some() {
            return;
        }
        let size_bytes = delivery.batch.size_bytes();
        let full = state.waiting.len() >= limits::WATCH_STREAM_BUFFER
            || (state.size_bytes + size_bytes > limits::WATCH_RING_BYTES && !state.waiting.is_empty());
        if full {
            state.lost_from = Some(from);
        } else {
            state.size_bytes += size_bytes;
            state.waiting.push_back(delivery);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Events from `from` on will not come, unless it is known already that earlier ones will not.
    pub fn lose(&self, from: i64) {
        self.state.lock().lost_from.get_or_insert(from);
        self.wake.notify_one();
    }

    /// The oldest delivery.
    pub fn take(&self) -> Taken {
        let mut state = self.state.lock();
        match (state.waiting.pop_front(), state.lost_from) {
            (Some(delivery), _) => {
                state.size_bytes = state.size_bytes.saturating_sub(delivery.batch.size_bytes());
                Taken::Delivery(delivery)
            }
            (None, Some(from)) => Taken::Lost(from),
            (None, None) => Taken::Empty,
        }
    }

    /// The stream has left all groups: it may be given events again.
    pub fn found(&self) {
        self.state.lock().lost_from = None;
    }

    /// Nothing waits and nothing was lost.
    pub fn is_clear(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.lost_from.is_none()
    }

    /// Wakes the stream for another reason.
    pub fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Returns when there may be something to take.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}
