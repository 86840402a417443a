//! Replicas that have applied the same entries have the same state.

use std::collections::BTreeMap;

use types::{PartitionId, ReplicaId};

use super::{Invariant, Seen};

/// Hashes of states, by partition and index.
#[derive(Default)]
pub struct Hashes {
    states: BTreeMap<PartitionId, BTreeMap<u64, (u128, ReplicaId)>>,
    looked: BTreeMap<(ReplicaId, u64), u64>,
}

impl Invariant for Hashes {
    fn name(&self) -> &'static str {
        "equal entries, equal state"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for open in seen.open {
            let host = &seen.hosts[open.at];
            let Some((_, hashes)) = host.process else {
                continue;
            };
            let known = self.looked.entry((open.replica, host.boots)).or_default();
            if open.status.applied <= *known {
                continue;
            }
            let states = self.states.entry(open.partition).or_default();
            for (index, hash) in hashes.after(open.partition, *known) {
                *known = (*known).max(index);
                let (first, by) = *states.entry(index).or_insert((hash, open.replica));
                if first != hash {
                    return Err(format!(
                        "replicas {by} and {} of partition {} differ after entry {index}",
                        open.replica, open.partition
                    ));
                }
            }
        }
        Ok(())
    }
}
