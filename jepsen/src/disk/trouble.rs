//! What goes wrong with a disk now, and how often it did.

use std::time::Duration;

use workload::numbers::Numbers;

/// Which requests fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Syncs of files and folders.
    Sync,
}

/// What happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that got EIO.
    pub failed: u64,
    /// Syncs that were held up.
    pub slow: u64,
    /// Reads that came back with a bit flipped.
    pub flipped: u64,
    /// Requests that found no space.
    pub full: u64,
}

/// The state of a disk. The default is a good one.
#[derive(Debug)]
pub struct Trouble {
    /// The power is off: nothing is written any more.
    pub off: bool,
    /// One in so many of these fails.
    pub fails: Option<(Fails, u64)>,
    /// Each sync takes so much longer.
    pub slow: Duration,
    /// One in so many reads has a bit flipped. 0: none.
    pub flips: u64,
    /// What happened so far.
    pub count: Count,
    numbers: Numbers,
}

impl Trouble {
    /// None yet.
    pub fn new(seed: u64, node: u64) -> Trouble {
        Trouble {
            off: false,
            fails: None,
            slow: Duration::ZERO,
            flips: 0,
            count: Count::default(),
            numbers: Numbers::of(seed, &format!("disk {node}")),
        }
    }

    /// Whether this one fails.
    pub fn strikes(&mut self, kind: Fails) -> bool {
        let struck = match self.fails {
            Some((fails, times)) => fails == kind && self.numbers.once_in(times),
            None => false,
        };
        self.count.failed += u64::from(struck);
        struck
    }

    /// How long a sync is held up.
    pub fn held_up(&mut self) -> Duration {
        self.count.slow += u64::from(!self.slow.is_zero());
        self.slow
    }

    /// Flips a bit of what was read, if it is to be.
    pub fn flip(&mut self, bytes: &mut [u8]) {
        if self.flips > 0 && !bytes.is_empty() && self.numbers.once_in(self.flips) {
            let bit = self.numbers.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            self.count.flipped += 1;
        }
    }
}
