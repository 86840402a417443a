//! Checkpoints on their way to other replicas. What follows a checkpoint stays in the log until the replica that gets
//! it can go on from there: otherwise a large state under steady writes would be sent again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use env::Clock;
use parking_lot::Mutex;
use types::{PartitionId, ReplicaId};

use super::CATCH_UP_LIMIT;

type Target = (PartitionId, ReplicaId);

struct Sent {
    /// What the checkpoint contains.
    index: u64,
    /// When it was installed, if it was.
    installed: Option<Duration>,
}

/// All checkpoints that this node sends.
pub struct Sendings {
    clock: Arc<dyn Clock>,
    sent: Mutex<BTreeMap<Target, Sent>>,
}

/// A checkpoint being sent; given up when dropped, unless it was installed.
pub(super) struct Sending<'a> {
    sendings: &'a Sendings,
    target: Target,
}

impl Sending<'_> {
    /// The replica goes on from there now.
    pub(super) fn installed(self) {
        let now = self.sendings.clock.now();
        if let Some(sent) = self.sendings.sent.lock().get_mut(&self.target) {
            sent.installed = Some(now);
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut sent = self.sendings.sent.lock();
        if sent
            .get(&self.target)
            .is_some_and(|sent| sent.installed.is_none())
        {
            sent.remove(&self.target);
        }
    }
}

impl Sendings {
    /// None yet.
    pub fn new(clock: Arc<dyn Clock>) -> Sendings {
        Sendings {
            clock,
            sent: Mutex::default(),
        }
    }

    /// A checkpoint that contains everything through `index` is about to be sent.
    pub(super) fn begin(&self, partition: PartitionId, to: ReplicaId, index: u64) -> Sending<'_> {
        let target = (partition, to);
        let sent = Sent {
            index,
            installed: None,
        };
        self.sent.lock().insert(target, sent);
        Sending {
            sendings: self,
            target,
        }
    }

    /// The log is needed from after this index on, by replicas of which `matched` says what they have.
    pub fn needed(&self, partition: PartitionId, matched: impl Fn(ReplicaId) -> u64) -> Option<u64> {
        let now = self.clock.now();
        let mut sent = self.sent.lock();
        sent.retain(|_, sent| {
            sent.installed
                .is_none_or(|installed| now.saturating_sub(installed) < CATCH_UP_LIMIT)
        });
        let here = (partition, ReplicaId(0))..=(partition, ReplicaId(u64::MAX));
        let needed = sent.range(here);
        needed.map(|((_, to), sent)| sent.index.max(matched(*to))).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Hand(Mutex<Duration>);

    impl Clock for Hand {
        fn now(&self) -> Duration {
            *self.0.lock()
        }

        fn wall_ms(&self) -> u64 {
            0
        }
    }

    #[test]
    fn the_log_is_kept_until_the_receiver_has_caught_up() {
        let hand = Arc::new(Hand::default());
        let sendings = Sendings::new(hand.clone());
        let (one, two) = (ReplicaId(1), ReplicaId(2));
        let needed = |matched: u64| sendings.needed(PartitionId(3), |_| matched);
        assert_eq!(needed(0), None);
        let first = sendings.begin(PartitionId(3), one, 70);
        let second = sendings.begin(PartitionId(3), two, 50);
        let _other = sendings.begin(PartitionId(4), one, 5);
        assert_eq!(needed(0), Some(50));
        drop(second);
        *hand.0.lock() += 10 * CATCH_UP_LIMIT;
        assert_eq!(needed(0), Some(70), "however long it takes");
        first.installed();
        assert_eq!(needed(0), Some(70));
        assert_eq!(needed(90), Some(90), "it goes on from there");
        *hand.0.lock() += CATCH_UP_LIMIT;
        assert_eq!(needed(90), None);
    }
}
