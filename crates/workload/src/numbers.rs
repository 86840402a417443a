//! Random numbers of a run: one stream for each thing that draws, so that one more drawing disturbs nothing else.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A stream of numbers.
#[derive(Debug)]
pub struct Numbers(StdRng);

impl Numbers {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Numbers {
        Numbers(StdRng::seed_from_u64(seed))
    }

    /// The stream of something named, within the run of `seed`.
    pub fn of(seed: u64, name: &str) -> Numbers {
        Numbers::new(seed ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.random_range(0..bound)
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// True so often in a million times.
    pub fn in_a_million(&mut self, times: u32) -> bool {
        self.below(1_000_000) < u64::from(times)
    }

    /// One of them. There is one at least.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
