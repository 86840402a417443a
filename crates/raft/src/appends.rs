//! How long appends take to be durable, over all groups of a node: by that it knows that its disk has become slow.
//!
//! One slow sync says little: the machine was busy, the process was paused. A disk is slow if for a while nothing was
//! durable in time, seen several times; and it is well again only after a longer while without that, so that leaders do
//! not go to and fro.

use std::sync::Arc;
use std::time::Duration;

use env::Clock;
use parking_lot::Mutex;

/// An append that takes longer is slow. Well above what a busy disk takes, well below an election time-out.
const SLOW: Duration = Duration::from_millis(250);
/// For so long nothing else was seen.
const LASTING: Duration = Duration::from_millis(1500);
/// So often at least.
const TIMES: u32 = 3;
/// What comes within this time of another is one and the same: a batch, or the end of a pause.
const APART: Duration = Duration::from_millis(100);
/// Without that for so long, the disk is well again.
const CALM: Duration = Duration::from_secs(10);

/// The appends of a node.
pub struct Appends {
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

/// An append that is on its way to the disk, until it is dropped.
pub(crate) struct Append {
    appends: Arc<Appends>,
    began: Duration,
}

impl Appends {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Appends> {
        let seen = Mutex::default();
        Arc::new(Appends { clock, seen })
    }

    /// Whether the disk is slow. What hangs is noticed only here: to be asked a few times a second.
    pub fn are_slow(&self) -> bool {
        self.seen.lock().look(self.clock.now())
    }

    /// One begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Append {
        let (appends, began) = (self.clone(), self.clock.now());
        self.seen.lock().begin(began);
        Append { appends, began }
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        let now = self.appends.clock.now();
        self.appends.seen.lock().end(self.began, now);
    }
}

#[derive(Debug, Default)]
struct Seen {
    /// Appends on their way.
    waiting: u64,
    /// When one ended, or began while none was on its way.
    moved: Duration,
    /// Slow ones in a row: since when, how often, and the last one.
    since: Duration,
    times: u32,
    last: Option<Duration>,
    /// When they were enough to call the disk slow, the last time.
    slow: Option<Duration>,
}

impl Seen {
    fn begin(&mut self, now: Duration) {
        if self.waiting == 0 {
            self.moved = now;
        }
        self.waiting += 1;
    }

    fn end(&mut self, began: Duration, now: Duration) {
        self.waiting -= 1;
        self.moved = now;
        match now.saturating_sub(began) < SLOW {
            true => self.times = 0,
            false => self.strike(began, now),
        }
    }

    fn strike(&mut self, began: Duration, now: Duration) {
        let last = self.last.unwrap_or_default();
        if self.times == 0 || began.saturating_sub(last) > LASTING {
            (self.since, self.times) = (began, 0);
        }
        if self.times == 0 || now.saturating_sub(last) >= APART {
            self.times += 1;
        }
        self.last = Some(now);
    }

    fn look(&mut self, now: Duration) -> bool {
        if self.waiting > 0 && now.saturating_sub(self.moved) >= SLOW {
            self.strike(self.moved, now);
        }
        let lasting = |last: &Duration| last.saturating_sub(self.since) >= LASTING;
        if self.times >= TIMES
            && let Some(last) = self.last.filter(lasting)
        {
            self.slow = Some(last);
        }
        self.slow.is_some_and(|slow| now.saturating_sub(slow) < CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Appends one after the other, each so long, looked at after each; returns whether the disk was called slow.
    fn one_by_one(seen: &mut Seen, now: &mut u64, times: u64, took_ms: u64) -> bool {
        let mut slow = false;
        for _ in 0..times {
            seen.begin(MS(*now));
            *now += took_ms;
            seen.end(MS(*now - took_ms), MS(*now));
            slow = seen.look(MS(*now));
        }
        slow
    }

    #[test]
    fn a_disk_is_slow_after_seconds_and_well_again_after_a_longer_while() {
        let (mut seen, mut now) = (Seen::default(), 1000);
        assert!(!one_by_one(&mut seen, &mut now, 1000, 20));
        assert!(!one_by_one(&mut seen, &mut now, 2, 500), "after a second");
        assert!(one_by_one(&mut seen, &mut now, 2, 500), "after two");
        assert!(one_by_one(&mut seen, &mut now, 400, 20), "8 s of calm");
        assert!(!one_by_one(&mut seen, &mut now, 100, 20), "10 s of calm");
    }

    #[test]
    fn slow_ones_among_fast_ones_say_nothing() {
        let (mut seen, mut now) = (Seen::default(), 1000);
        for _ in 0..20 {
            assert!(!one_by_one(&mut seen, &mut now, 2, 700));
            assert!(!one_by_one(&mut seen, &mut now, 1, 249));
        }
    }

    #[test]
    fn one_slow_one_now_and_then_does_not_hold_it_up() {
        let (mut seen, mut now) = (Seen::default(), 1000);
        assert!(one_by_one(&mut seen, &mut now, 4, 500));
        one_by_one(&mut seen, &mut now, 300, 20);
        one_by_one(&mut seen, &mut now, 1, 400);
        assert!(!one_by_one(&mut seen, &mut now, 200, 20), "10 s later");
    }

    #[test]
    fn slow_ones_that_are_far_apart_say_nothing() {
        let (mut seen, mut now) = (Seen::default(), 1000);
        for _ in 0..20 {
            assert!(!one_by_one(&mut seen, &mut now, 1, 400));
            now += 2000;
        }
    }

    #[test]
    fn a_pause_is_no_slow_disk() {
        let (mut seen, now) = (Seen::default(), 1000);
        (0..100).for_each(|_| seen.begin(MS(now)));
        // Everything that waited is told of at once, and what was asked next is fast.
        (0..100).for_each(|n| seen.end(MS(now), MS(now + 5000 + n / 10)));
        assert!(!seen.look(MS(now + 5011)));
        seen.begin(MS(now + 5012));
        seen.end(MS(now + 5012), MS(now + 5020));
        assert!(!seen.look(MS(now + 5300)));
    }

    #[test]
    fn a_disk_that_hangs_is_slow_before_anything_ends() {
        let mut seen = Seen::default();
        seen.begin(MS(1000));
        let slow: Vec<u64> = (1..=20)
            .map(|n| n * 250)
            .filter(|after| seen.look(MS(1000 + after)))
            .collect();
        assert_eq!(slow.first(), Some(&1500));
        // Nothing was asked of it for long, and so nothing was slow.
        seen.end(MS(1000), MS(6100));
        assert!(!seen.look(MS(16_100)));
    }
}
