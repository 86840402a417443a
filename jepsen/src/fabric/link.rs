//! One direction of one link: what becomes of each packet, by rules and a stream of random numbers of its own.
//!
//! Must never: look at the time itself, or at what a packet says.

use workload::numbers::Numbers;

/// How a link treats packets. The default passes all at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Each takes so long.
    pub delay_us: u64,
    /// And up to so much more.
    pub jitter_us: u64,
    /// Of a million, so many are lost.
    pub loss_ppm: u32,
    /// Of a million, so many come twice.
    pub twice_ppm: u32,
    /// Of a million, so many are held back, so that later ones overtake them.
    pub overtaken_ppm: u32,
    /// By so much.
    pub held_us: u64,
    /// Bytes a second that go through. 0: as many as come.
    pub rate_bytes: u64,
}

/// Bytes that wait for their turn where the rate is limited; what comes beyond them is lost, as at any router.
const QUEUE_BYTES: u64 = 256 * 1024;

/// What a link did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// Packets that went through.
    pub passed: u64,
    /// That were lost.
    pub lost: u64,
    /// That came twice.
    pub twice: u64,
    /// That others may have overtaken.
    pub held: u64,
    /// That came later than they were sent.
    pub delayed: u64,
}

/// When a packet is to be there: never, once, or twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// Microseconds since the fabric began.
    pub first_us: Option<u64>,
    /// Once more.
    pub second_us: Option<u64>,
}

/// A direction of a link.
#[derive(Debug)]
pub struct Link {
    numbers: Numbers,
    /// When the last packet that kept its place is there.
    last_us: u64,
    /// When everything that was let in has gone through the narrow place.
    free_us: u64,
    /// What was done.
    pub count: Count,
}

impl Link {
    /// The link from one port to another.
    pub fn new(seed: u64, from: usize, to: usize) -> Link {
        Link {
            numbers: Numbers::of(seed, &format!("link {from} {to}")),
            last_us: 0,
            free_us: 0,
            count: Count::default(),
        }
    }

    /// Decides about a packet of so many bytes.
    pub fn decide(&mut self, rule: &Rule, bytes: usize, now_us: u64) -> Fate {
        let lost = Fate {
            first_us: None,
            second_us: None,
        };
        if self.numbers.in_a_million(rule.loss_ppm) {
            self.count.lost += 1;
            return lost;
        }
        let Some(through_us) = self.narrow(rule, bytes as u64, now_us) else {
            self.count.lost += 1;
            return lost;
        };
        let jitter_us = match rule.jitter_us {
            0 => 0,
            most => self.numbers.below(most + 1),
        };
        let mut due_us = through_us + rule.delay_us + jitter_us;
        if self.numbers.in_a_million(rule.overtaken_ppm) {
            self.count.held += 1;
            due_us += rule.held_us;
        } else {
            // Jitter alone keeps the order: packets wait for each other.
            due_us = due_us.max(self.last_us);
            self.last_us = due_us;
        }
        let twice = self.numbers.in_a_million(rule.twice_ppm);
        self.count.passed += 1;
        self.count.twice += u64::from(twice);
        self.count.delayed += u64::from(due_us > now_us);
        Fate {
            first_us: Some(due_us),
            second_us: twice.then_some(due_us),
        }
    }

    /// When the packet is through the narrow place; `None` if too many wait before it.
    fn narrow(&mut self, rule: &Rule, bytes: u64, now_us: u64) -> Option<u64> {
        if rule.rate_bytes == 0 {
            self.free_us = now_us;
            return Some(now_us);
        }
        let begins_us = self.free_us.max(now_us);
        if (begins_us - now_us) * rule.rate_bytes / 1_000_000 > QUEUE_BYTES {
            return None;
        }
        self.free_us = begins_us + bytes * 1_000_000 / rule.rate_bytes;
        Some(self.free_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(seed: u64, rule: &Rule, packets: u64) -> (Vec<Fate>, Count) {
        let mut link = Link::new(seed, 1, 2);
        let fates = (0..packets).map(|at| link.decide(rule, 1000, at * 10)).collect();
        (fates, link.count)
    }

    #[test]
    fn without_rules_all_pass_at_once() {
        let (fates, count) = fates(1, &Rule::default(), 100);
        for (at, fate) in fates.iter().enumerate() {
            assert_eq!((fate.first_us, fate.second_us), (Some(at as u64 * 10), None));
        }
        assert_eq!((count.passed, count.lost, count.delayed), (100, 0, 0));
    }

    #[test]
    fn a_seed_decides_and_another_decides_otherwise() {
        let rule = Rule {
            delay_us: 500,
            jitter_us: 300,
            loss_ppm: 100_000,
            twice_ppm: 50_000,
            overtaken_ppm: 50_000,
            held_us: 2000,
            rate_bytes: 0,
        };
        assert_eq!(fates(7, &rule, 2000), fates(7, &rule, 2000));
        assert_ne!(fates(7, &rule, 2000), fates(8, &rule, 2000));
        let count = fates(7, &rule, 20_000).1;
        assert!((1800..2200).contains(&count.lost), "{count:?}");
        assert!((700..1100).contains(&count.twice), "{count:?}");
        assert!((700..1100).contains(&count.held), "{count:?}");
    }

    #[test]
    fn jitter_alone_keeps_the_order() {
        let rule = Rule {
            jitter_us: 5000,
            ..Rule::default()
        };
        let due: Vec<_> = fates(3, &rule, 500).0.iter().map(|fate| fate.first_us).collect();
        assert!(due.is_sorted());
    }

    #[test]
    fn a_narrow_link_takes_its_time_and_then_loses() {
        let rule = Rule {
            rate_bytes: 1_000_000,
            ..Rule::default()
        };
        let (fates, count) = fates(3, &rule, 1000);
        assert_eq!(fates[0].first_us, Some(1000));
        assert_eq!(fates[9].first_us, Some(10_000));
        assert!((200..300).contains(&count.passed), "{count:?}");
        assert_eq!(count.passed + count.lost, 1000);
    }
}
