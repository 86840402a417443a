//! Whether a watched key space has a leader: when it last answered, for the streams that end without one. What is
//! known here of the leader's name does not tell, with a replica here or without: it stays when the leader is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::source::Source;
use crate::core::KeySpace;

/// How often the leader is asked while somebody wants to know.
const ASK: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub struct Leadership {
    wanted: AtomicUsize,
    answered: Mutex<Option<Instant>>,
}

impl Leadership {
    /// One more stream wants to know.
    pub fn want(&self) {
        self.wanted.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn unwant(&self) {
        self.wanted.fetch_sub(1, Ordering::Relaxed);
    }

    /// When the leader last answered; `None` if it never did.
    pub fn answered(&self) -> Option<Instant> {
        *self.answered.lock()
    }

    /// Asks, as long as somebody wants to know. Never ends.
    pub async fn ask(&self, source: &Arc<dyn Source>, space: &KeySpace) {
        loop {
            let wanted = self.wanted.load(Ordering::Relaxed) > 0;
            if wanted && source.revision(space).await.is_ok() {
                *self.answered.lock() = Some(Instant::now());
            }
            tokio::time::sleep(ASK).await;
        }
    }
}
