//! What is committed stays: it is on the synced disks of a majority of the voters when the first replica takes it for
//! committed, and every replica that takes an index for committed has the same entry there.

use std::collections::BTreeMap;

use types::{PartitionId, ReplicaId};
use xxhash_rust::xxh3::xxh3_64;

use super::{Invariant, Open, Seen};

/// What was committed so far.
#[derive(Default)]
pub struct Committed {
    entries: BTreeMap<PartitionId, BTreeMap<u64, u64>>,
    /// Up to where each replica of each boot was looked at.
    looked: BTreeMap<(ReplicaId, u64), u64>,
}

impl Invariant for Committed {
    fn name(&self) -> &'static str {
        "committed entries stay"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for open in seen.open {
            let host = &seen.hosts[open.at];
            let known = self.looked.entry((open.replica, host.boots)).or_default();
            let committed = open.status.committed;
            if committed <= *known {
                continue;
            }
            let entries = self.entries.entry(open.partition).or_default();
            let from = (*known).max(host.disk.purged(open.replica)) + 1;
            for index in from..=committed {
                // Purged, or still on its way into a state that was sent whole.
                let Some(data) = host.disk.entry(open.replica, index, false) else {
                    continue;
                };
                let hash = xxh3_64(&data);
                match entries.get(&index) {
                    Some(first) if *first != hash => {
                        return Err(format!(
                            "replica {} of partition {} has committed another entry {index} than the first that did",
                            open.replica, open.partition
                        ));
                    }
                    Some(_) => {}
                    None => {
                        entries.insert(index, hash);
                        held(seen, open, index, &data)?;
                    }
                }
            }
            *known = committed;
        }
        Ok(())
    }
}

/// A majority of the voters must hold a freshly committed entry where no crash takes it away.
fn held(seen: &Seen<'_>, open: &Open, index: u64, data: &[u8]) -> Result<(), String> {
    let status = &open.status;
    let holds = |replica: &&ReplicaId| {
        let Some((_, node)) = status.voters.iter().find(|(id, _)| id == *replica) else {
            return false;
        };
        let Some(host) = seen.hosts.iter().find(|host| host.id == node.0) else {
            return false;
        };
        let disk = host.disk;
        let synced = disk.entry(**replica, index, true);
        synced.is_some_and(|synced| *synced == *data)
            || disk.purged_synced(**replica) >= index
            || super::durable_index(disk, open.partition, **replica) >= index
    };
    // What a node that lost its data had acknowledged before is still being counted by a leader.
    let lost = usize::from(seen.lost);
    let majority = |set: &Vec<ReplicaId>| 2 * (set.iter().filter(holds).count() + lost) > set.len();
    // Of two sets one is enough to look for: the entry may be from before the change, and needs the older one alone.
    match status.quorums.is_empty() || status.quorums.iter().any(majority) {
        true => Ok(()),
        false => Err(format!(
            "entry {index} of partition {} is taken for committed by replica {}, and no majority of {:?} has synced it",
            open.partition, open.replica, status.quorums
        )),
    }
}
