//! The leader's machine clock: the clock of the applied state plus this process's own monotonic time since.
//!
//! It never goes back within a process, and a new leader starts where the applied state stands, so a jump of any
//! wall clock can neither expire nor freeze anything.

use std::sync::Arc;

use parking_lot::Mutex;
use types::planted::{self, Planted};

use crate::state_machine::Progress;

/// Clock of one replica.
pub(crate) struct MachineClock {
    monotonic: Arc<dyn env::Clock>,
    progress: Arc<Progress>,
    base: Mutex<Base>,
}

#[derive(Default)]
struct Base {
    /// Term in which this replica leads and since which it counts; 0 before the first.
    term: u64,
    clock_ms: u64,
    since_ms: u64,
}

impl MachineClock {
    pub(crate) fn new(monotonic: Arc<dyn env::Clock>, progress: Arc<Progress>) -> Self {
        MachineClock {
            monotonic,
            progress,
            base: Mutex::default(),
        }
    }

    /// The clock now. `leads` is the term in which this replica leads, if it does; a follower's clock is that of
    /// its applied state.
    pub(crate) fn now_ms(&self, leads: Option<u64>) -> u64 {
        let applied_ms = self.progress.clock_ms();
        let Some(term) = leads else { return applied_ms };
        let now_ms = match planted::is(Planted::LeaseByWallClock) {
            true => self.monotonic.wall_ms(),
            false => self.monotonic.now_ms(),
        };
        let mut base = self.base.lock();
        let counted_ms = base.clock_ms + now_ms.saturating_sub(base.since_ms);
        // Entries of earlier terms may still be applied after this one began: start again from what they say.
        if base.term != term || applied_ms > counted_ms {
            let reset = planted::is(Planted::LeaseReset) && base.term != term;
            *base = Base {
                term,
                clock_ms: applied_ms,
                since_ms: now_ms + if reset { 20_000 } else { 0 },
            };
            return applied_ms;
        }
        counted_ms
    }

    /// For people only.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.monotonic.wall_ms()
    }
}
