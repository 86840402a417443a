//! A node's clocks: the runtime's time, and a wall clock that may be wrong by any amount.
//!
//! The runtime's time is turmoil's. It runs faster than the others' where [`Pace`] says so, timers included.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use env::Clock;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What the wall clocks show when a run begins: 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// How a node's time differs from the others'. Shared by all boots of the node.
#[derive(Debug, Default)]
pub struct Pace {
    /// Added to the wall clock, in milliseconds.
    pub wall_off_ms: AtomicI64,
    extra_permille: AtomicU64,
    jump_ms: AtomicU64,
    changed: Notify,
}

impl Pace {
    /// From now on, so much time passes in addition, in thousandths of the time that passes for all.
    pub fn set_extra(&self, permille: u64) {
        self.extra_permille.store(permille, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// So much time passes at once when the node next runs, in milliseconds.
    pub fn jump(&self, ms: u64) {
        self.jump_ms.fetch_add(ms, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Moves the node's time as told, for as long as it runs. Part of each boot.
    pub async fn drive(self: Arc<Self>) {
        let mut owed = 0;
        loop {
            match self.extra_permille.load(Ordering::Relaxed) {
                0 => self.changed.notified().await,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
            owed += self.extra_permille.load(Ordering::Relaxed);
            let extra_ms = owed / 1000 + self.jump_ms.swap(0, Ordering::Relaxed);
            owed %= 1000;
            if extra_ms > 0 {
                tokio::time::advance(Duration::from_millis(extra_ms)).await;
            }
        }
    }
}

/// The clocks of one boot.
pub struct SimClock {
    begun: Instant,
    pace: Arc<Pace>,
}

impl SimClock {
    /// Of a boot that begins now, within the node's runtime.
    pub fn new(pace: Arc<Pace>) -> SimClock {
        SimClock {
            begun: Instant::now(),
            pace,
        }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        // Asked from outside the runtime, between two steps, there is no time that could have passed.
        match tokio::runtime::Handle::try_current() {
            Ok(_) => self.begun.elapsed(),
            Err(_) => Duration::ZERO,
        }
    }

    fn wall_ms(&self) -> u64 {
        let passed = turmoil::sim_elapsed().unwrap_or_default().as_millis() as i64;
        (EPOCH_MS + passed + self.pace.wall_off_ms.load(Ordering::Relaxed)).max(0) as u64
    }
}

/// The time of the run, which no host's skew touches: what clients' recordings are made by. One thread runs everything,
/// so each question gets a later answer than the one before: recordings have the order in which things happened.
#[derive(Debug, Default)]
pub struct TrueClock {
    /// `None` where turmoil tells the time.
    begun: Option<Instant>,
    last_ns: AtomicU64,
}

impl TrueClock {
    /// Of a run on one runtime, which began at `begun`.
    pub fn since(begun: Instant) -> TrueClock {
        TrueClock {
            begun: Some(begun),
            last_ns: AtomicU64::new(0),
        }
    }
}

impl Clock for TrueClock {
    fn now(&self) -> Duration {
        let passed = match self.begun {
            Some(begun) => begun.elapsed(),
            None => turmoil::sim_elapsed().unwrap_or_default(),
        };
        let now_ns = (passed.as_nanos() as u64).max(self.last_ns.load(Ordering::Relaxed) + 1);
        self.last_ns.store(now_ns, Ordering::Relaxed);
        Duration::from_nanos(now_ns)
    }

    fn wall_ms(&self) -> u64 {
        EPOCH_MS as u64 + self.now_ms()
    }
}
