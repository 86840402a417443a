//! Randomness: one seeded generator, so that a run can be repeated.

use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

/// A source of random numbers.
pub trait Rng: Send + Sync + 'static {
    /// The next number.
    fn next_u64(&self) -> u64;

    /// A number in `low..high`; `low` if that is empty.
    fn between(&self, low: u64, high: u64) -> u64 {
        if high <= low {
            low
        } else {
            low + self.next_u64() % (high - low)
        }
    }

    /// The next number that is not 0, for ids where 0 means none.
    fn nonzero(&self) -> u64 {
        loop {
            let next = self.next_u64();
            if next != 0 {
                return next;
            }
        }
    }
}

/// A generator that repeats itself for the same seed.
#[derive(Debug)]
pub struct SeededRng(Mutex<StdRng>);

impl SeededRng {
    /// Repeatable.
    pub fn new(seed: u64) -> SeededRng {
        SeededRng(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Seeded by the system's entropy.
    pub fn from_system() -> SeededRng {
        SeededRng(Mutex::new(StdRng::from_os_rng()))
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        match self.0.lock() {
            Ok(mut rng) => rng.random(),
            Err(poisoned) => poisoned.into_inner().random(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_repeat_and_ranges_hold() {
        let (a, b) = (SeededRng::new(7), SeededRng::new(7));
        for _ in 0..1000 {
            let n = a.between(20, 50);
            assert_eq!(n, b.between(20, 50));
            assert!((20..50).contains(&n));
        }
        assert_eq!(a.between(5, 5), 5);
    }
}
