//! State hashes of the last entries of each partition, to be compared between replicas at equal indexes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use machine::Outcome;
use machine::record::state;
use parking_lot::Mutex;
use prost::Message;
use types::PartitionId;

/// Hashes kept per partition: enough to cover the way of a request between nodes under load.
const KEPT: usize = 512;

/// The hashes of all partitions here.
pub struct Hashes {
    recent: Mutex<BTreeMap<PartitionId, VecDeque<(u64, u128)>>>,
    state_key: Bytes,
}

impl Default for Hashes {
    fn default() -> Hashes {
        Hashes {
            recent: Mutex::default(),
            state_key: state::state_key(),
        }
    }
}

impl Hashes {
    /// Takes the hash that the entry at `index` has left.
    pub fn applied(&self, partition: PartitionId, index: u64, outcome: &Outcome) {
        let changes = outcome.changes.iter().rev();
        let record = changes
            .filter(|change| change.key == self.state_key)
            .find_map(|change| change.value.clone());
        if let Some(Ok(state)) = record.map(state::State::decode) {
            self.push(partition, index, state.digest());
        }
    }

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
