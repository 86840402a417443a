//! News from apply, turned into signals for tasks. Runs inside the apply loop: stores, wakes, never waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use machine::record::state;
use machine::{Effect, Outcome};
use parking_lot::Mutex;
use tokio::sync::Notify;
use types::{NodeId, PartitionId};

use super::Core;
use super::leaders::Leader;

/// Who is to be woken.
#[derive(Default)]
pub struct Woken {
    /// The map changed, or something reconcilers look at.
    pub map: Notify,
    /// A compaction needs the leader's attention.
    pub housekeeping: Notify,
    /// Leadership of some partition changed.
    pub leadership: Notify,
}

/// State hashes of the last entries of each partition, to be compared between replicas at equal indexes.
#[derive(Default)]
pub struct Hashes {
    recent: Mutex<BTreeMap<PartitionId, VecDeque<(u64, u128)>>>,
}

/// Hashes kept per partition: enough to cover the way of a request between nodes under load.
const KEPT: usize = 512;

impl Hashes {
    fn push(&self, partition: PartitionId, index: u64, hash: u128) {
        let mut recent = self.recent.lock();
        let hashes = recent.entry(partition).or_default();
        if hashes.len() == KEPT {
            hashes.pop_front();
        }
        hashes.push_back((index, hash));
    }

    /// The hash after `index`, if it is still known.
    pub fn at(&self, partition: PartitionId, index: u64) -> Option<u128> {
        let recent = self.recent.lock();
        let hashes = recent.get(&partition)?;
        let at = hashes.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(hashes[at].1)
    }

    /// Those after `index` that are still known, in order.
    pub fn after(&self, partition: PartitionId, index: u64) -> Vec<(u64, u128)> {
        let recent = self.recent.lock();
        let known = recent.get(&partition).into_iter().flatten();
        let mut after: Vec<_> = known.rev().take_while(|(at, _)| *at > index).copied().collect();
        after.reverse();
        after
    }

    /// The newest.
    pub fn newest(&self, partition: PartitionId) -> Option<(u64, u128)> {
        self.recent.lock().get(&partition)?.back().copied()
    }

    /// Forgets a partition: its state was replaced or removed.
    pub fn forget(&self, partition: PartitionId) {
        self.recent.lock().remove(&partition);
    }
}

/// The listener given to `raft`.
pub struct Listener {
    core: Weak<Core>,
    fatal: Arc<dyn Fn(&str) + Send + Sync>,
    state_key: Bytes,
}

impl Listener {
    /// Tells `core`; calls `fatal` when the process must stop.
    pub fn new(core: &Arc<Core>, fatal: Arc<dyn Fn(&str) + Send + Sync>) -> Listener {
        Listener {
            core: Arc::downgrade(core),
            fatal,
            state_key: state::state_key(),
        }
    }
}

impl raft::ApplyListener for Listener {
    fn applied(&self, partition: PartitionId, index: u64, outcome: &Arc<Outcome>) {
        let Some(core) = self.core.upgrade() else { return };
        let record = outcome
            .changes
            .iter()
            .rev()
            .find(|change| change.key == self.state_key);
        if let Some(Ok(state)) = record
            .and_then(|change| change.value.clone())
            .map(<state::State as prost::Message>::decode)
        {
            core.hashes.push(partition, index, state.digest());
        }
        core.hub.applied(partition, index, outcome);
        for effect in &outcome.effects {
            match effect {
                Effect::MetaChanged if partition == PartitionId::META => core.woken.map.notify_one(),
                Effect::MetaChanged => {}
                Effect::Compaction { .. } => core.woken.housekeeping.notify_one(),
            }
        }
    }

    fn installed(&self, partition: PartitionId) {
        let Some(core) = self.core.upgrade() else { return };
        core.hashes.forget(partition);
        core.hub.installed(partition);
        if partition == PartitionId::META {
            core.woken.map.notify_one();
        }
    }

    fn leadership(&self, partition: PartitionId, leader: Option<NodeId>, term: u64, mine: bool) {
        let Some(core) = self.core.upgrade() else { return };
        core.leaders.set(
            partition,
            Leader {
                node: leader,
                term,
                mine,
            },
        );
        core.metrics.leadership_changes.inc();
        core.woken.leadership.notify_waiters();
        core.woken.housekeeping.notify_one();
    }

    fn fatal(&self, partition: PartitionId, text: &str) {
        (self.fatal)(&format!("partition {partition}: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_found_by_index_and_bounded() {
        let hashes = Hashes::default();
        for index in 0..2 * KEPT as u64 {
            hashes.push(PartitionId(1), index * 2, u128::from(index));
        }
        let last = 2 * KEPT as u64 - 1;
        assert_eq!(hashes.newest(PartitionId(1)), Some((last * 2, u128::from(last))));
        assert_eq!(
            hashes.at(PartitionId(1), last * 2 - 2),
            Some(u128::from(last - 1))
        );
        assert_eq!(hashes.at(PartitionId(1), last * 2 - 1), None);
        assert_eq!(hashes.at(PartitionId(1), 0), None, "forgotten");
        assert_eq!(hashes.at(PartitionId(2), 0), None);
    }
}
