//! Whether a process may end by itself: while a fault lasts that can end it, and a moment longer, since what has met an
//! error takes some time to end, and the fault may be mended meanwhile.

use std::time::Duration;

use tokio::time::Instant;

/// How long a process may take to end once it has met an error of its disk.
const ENDING: Duration = Duration::from_secs(2);

/// Of one process.
#[derive(Default)]
pub struct Excuse {
    lasting: u32,
    mended: Option<Instant>,
}

impl Excuse {
    /// A fault begins that may end the process.
    pub fn begin(&mut self) {
        self.lasting += 1;
    }

    /// One of them is mended.
    pub fn mend(&mut self, now: Instant) {
        self.lasting = self.lasting.saturating_sub(1);
        self.mended = Some(now);
    }

    /// All of them are mended.
    pub fn mend_all(&mut self, now: Instant) {
        if self.lasting > 0 {
            self.lasting = 1;
            self.mend(now);
        }
    }

    /// Whether a fault lasts.
    pub fn lasts(&self) -> bool {
        self.lasting > 0
    }

    /// Whether the process may have ended because of one.
    pub fn holds(&self, now: Instant) -> bool {
        self.lasts() || self.mended.is_some_and(|mended| now - mended < ENDING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_end_a_moment_after_what_ends_it() {
        let begun = Instant::now();
        let mut excuse = Excuse::default();
        assert!(!excuse.holds(begun));
        excuse.begin();
        excuse.begin();
        excuse.mend(begun);
        assert!(excuse.holds(begun + 10 * ENDING), "the other one lasts");
        let mended = begun + 10 * ENDING;
        excuse.mend_all(mended);
        assert!(!excuse.lasts() && excuse.holds(mended + ENDING / 2));
        assert!(!excuse.holds(mended + ENDING), "that was something else");
    }
}
