//! The leader's machine clock: the clock of the applied state plus this process's own monotonic time since.
//!
//! It never goes back within a process, and a new leader goes on from where the applied state stands, so a jump of any
//! wall clock can neither expire nor freeze anything.
//!
//! What passed between the last entry and the change of leaders is not lost: a replica counts from the moment when it
//! applied that entry, which is never before its leader stamped it. Else a partition whose leader moves again and again
//! would hardly age. But only as long as a leader would have kept silent at most: the time without any leader is nobody's,
//! so that leases outlive an outage in which nobody could keep them alive.

use std::sync::Arc;

use parking_lot::Mutex;
use types::planted::{self, Planted};

use crate::state_machine::Progress;

/// While leases live, a leader logs its clock about as often.
const COUNTED_MS: u64 = 1000;

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
        let applied = self.progress.clock();
        let Some(term) = leads else {
            return applied.clock_ms;
        };
        let (now_ms, passed_ms) = match planted::is(Planted::LeaseByWallClock) {
            true => (self.monotonic.wall_ms(), 0),
            false => {
                let now_ms = self.monotonic.now_ms();
                (now_ms, now_ms.saturating_sub(applied.at_ms).min(COUNTED_MS))
            }
        };
        let mut base = self.base.lock();
        let counted_ms = base.clock_ms + now_ms.saturating_sub(base.since_ms);
        // Entries of earlier terms may still be applied after this one began: start again from what they say.
        if base.term != term || applied.clock_ms > counted_ms {
            let reset = planted::is(Planted::LeaseReset) && base.term != term;
            *base = Base {
                term,
                clock_ms: applied.clock_ms + passed_ms,
                since_ms: now_ms + if reset { 20_000 } else { 0 },
            };
            return base.clock_ms;
        }
        counted_ms
    }

    /// For people only.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.monotonic.wall_ms()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    /// Says what it is told to say, in milliseconds.
    #[derive(Default)]
    struct Told(AtomicU64);

    impl env::Clock for Told {
        fn now(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::SeqCst))
        }
        fn wall_ms(&self) -> u64 {
            0
        }
    }

    /// A replica on a process whose clock it shares.
    struct Replica {
        monotonic: Arc<Told>,
        progress: Arc<Progress>,
        clock: MachineClock,
    }

    impl Replica {
        fn new() -> Replica {
            let monotonic = Arc::new(Told::default());
            let progress = Progress::new(monotonic.clone());
            let clock = MachineClock::new(monotonic.clone(), progress.clone());
            Replica {
                monotonic,
                progress,
                clock,
            }
        }

        fn at(&self, ms: u64) -> &Replica {
            self.monotonic.0.store(ms, Ordering::SeqCst);
            self
        }

        fn apply(&self, clock_ms: u64) {
            self.progress.advance_clock(clock_ms);
        }
    }

    #[test]
    fn a_new_leader_counts_from_when_it_applied_the_last_entry() {
        let replica = Replica::new();
        replica.at(5_000).apply(100);
        assert_eq!(replica.at(5_300).clock.now_ms(None), 100, "a follower's");
        assert_eq!(replica.at(5_400).clock.now_ms(Some(2)), 500);
        assert_eq!(replica.at(5_600).clock.now_ms(Some(2)), 700);
        // What it applies again moves nothing, and what it stamped itself is not ahead of it.
        replica.apply(100);
        replica.apply(650);
        assert_eq!(replica.at(5_700).clock.now_ms(Some(2)), 800);
    }

    #[test]
    fn time_without_a_leader_is_not_counted() {
        let replica = Replica::new();
        replica.at(5_000).apply(100);
        assert_eq!(replica.at(65_000).clock.now_ms(Some(2)), 100 + COUNTED_MS);
        assert_eq!(replica.at(65_200).clock.now_ms(Some(2)), 300 + COUNTED_MS);
    }

    /// Simulation, seed 148: a lease of 4 s lived for 12, as its partition's leader moved all the time.
    #[test]
    fn leaders_that_move_all_the_time_hardly_hold_the_clock_up() {
        const EACH_MS: u64 = 400;
        const DELAY_MS: u64 = 10;
        let replicas = [Replica::new(), Replica::new()];
        let mut clock_ms = 0;
        for term in 1..=50 {
            let from = term * EACH_MS;
            let leader = &replicas[term as usize % 2];
            let stamp = leader.at(from).clock.now_ms(Some(term));
            assert!(
                (clock_ms..=from).contains(&stamp),
                "{stamp} at {from} after {clock_ms}"
            );
            clock_ms = stamp;
            for replica in &replicas {
                replica.at(from + DELAY_MS).apply(stamp);
            }
        }
        let lost = 50 * EACH_MS - clock_ms;
        assert!(
            lost <= EACH_MS + 50 * DELAY_MS,
            "{lost} ms of {} lost",
            50 * EACH_MS
        );
    }
}
