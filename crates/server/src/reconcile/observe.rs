//! From the nodes' reports to what plans are made from.

use std::collections::BTreeMap;

use planner::{Observed, PartitionSeen};
use proto::peer::NodeReport;
use types::limits::TRANSFER_LAG_ENTRIES;
use types::{NodeId, PartitionId, ReplicaId};

/// What all reports say together. Of two leaders of a partition, the one of the higher term is believed; of one term, the
/// one with the higher id: the other one can commit nothing.
pub fn observed(reports: &BTreeMap<NodeId, NodeReport>) -> Observed {
    let mut seen = Observed::default();
    let mut leaders: BTreeMap<PartitionId, (u64, u64)> = BTreeMap::new();
    // Where all that may lead are slow, nobody would be better.
    let fast =
        |report: &NodeReport| !(report.disk_slow || report.disk_full || report.stopping || report.starting);
    let some_fast = reports.values().any(fast);
    for (node, report) in reports {
        seen.alive.insert(*node);
        if report.disk_full || report.stopping || report.disk_slow && some_fast {
            seen.avoid_leaders.insert(*node);
        }
        if report.disk_full {
            seen.full.insert(*node);
        }
        seen.broken.extend(report.broken.iter().map(|id| ReplicaId(*id)));
        for replica in report.replicas.iter().filter(|replica| replica.leads) {
            let partition = PartitionId(replica.partition);
            let leader = leaders.entry(partition).or_default();
            if (replica.term, replica.replica) < *leader {
                continue;
            }
            *leader = (replica.term, replica.replica);
            let mut group = PartitionSeen {
                leader: Some(*node),
                ..PartitionSeen::default()
            };
            group.caught_up.insert(ReplicaId(replica.replica));
            for member in &replica.members {
                let id = ReplicaId(member.replica);
                let set = if member.voter {
                    &mut group.voters
                } else {
                    &mut group.learners
                };
                set.insert(id);
                // What was matched may be from before its node went away, or came back.
                let there = reports.get(&NodeId(member.node));
                let up = there.is_some_and(|there| !there.starting);
                let level = member.matched + TRANSFER_LAG_ENTRIES >= replica.last_log && member.matched > 0;
                if level && up {
                    group.caught_up.insert(id);
                }
            }
            seen.partitions.insert(partition, group);
        }
    }
    seen
}

#[cfg(test)]
mod tests;
