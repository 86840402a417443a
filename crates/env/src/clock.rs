//! Clocks. Monotonic time decides; wall time is only recorded for people.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time since an arbitrary start.
    fn now(&self) -> Duration;
    /// Milliseconds since the Unix epoch. May jump; never decides anything.
    fn wall_ms(&self) -> u64;

    /// [`Clock::now`] in milliseconds.
    fn now_ms(&self) -> u64 {
        self.now().as_millis() as u64
    }
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}
