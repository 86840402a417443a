//! From the nodes' reports to what plans are made from.

use std::collections::BTreeMap;

use planner::{Observed, PartitionSeen};
use proto::peer::NodeReport;
use types::limits::TRANSFER_LAG_ENTRIES;
use types::{NodeId, PartitionId, ReplicaId};

/// What all reports say together. Of two leaders of a partition, the one of the higher term is believed.
pub fn observed(reports: &BTreeMap<NodeId, NodeReport>) -> Observed {
    let mut seen = Observed::default();
    let mut terms: BTreeMap<PartitionId, u64> = BTreeMap::new();
    // Where all are slow, nobody would be better.
    let some_fast = reports.values().any(|report| !report.disk_slow);
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
            let term = terms.entry(partition).or_default();
            if replica.term < *term {
                continue;
            }
            *term = replica.term;
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
mod tests {
    use proto::peer::{MemberReport, ReplicaReport};

    use super::*;

    fn report(node: u64, term: u64, matched: &[(u64, u64)]) -> (NodeId, NodeReport) {
        let members = matched.iter().map(|(replica, matched)| MemberReport {
            replica: *replica,
            node: *replica,
            voter: true,
            matched: *matched,
        });
        let replica = ReplicaReport {
            partition: 1,
            replica: node,
            leader_node: node,
            leads: true,
            term,
            last_log: 1000,
            members: members.collect(),
            ..ReplicaReport::default()
        };
        (
            NodeId(node),
            NodeReport {
                node,
                replicas: vec![replica],
                ..NodeReport::default()
            },
        )
    }

    fn answers(node: u64) -> (NodeId, NodeReport) {
        (
            NodeId(node),
            NodeReport {
                node,
                ..NodeReport::default()
            },
        )
    }

    #[test]
    fn the_newest_leader_is_believed_and_laggards_are_known() {
        let reports = [
            report(1, 7, &[(1, 1000), (2, 990), (3, 10)]),
            report(2, 6, &[]),
            answers(3),
        ]
        .into_iter()
        .collect();
        let seen = observed(&reports);
        let group = &seen.partitions[&PartitionId(1)];
        assert_eq!(group.leader, Some(NodeId(1)));
        assert_eq!(
            group.caught_up,
            [ReplicaId(1), ReplicaId(2)].into_iter().collect()
        );
        assert_eq!(group.voters.len(), 3);
    }

    #[test]
    fn a_slow_disk_leads_nothing_unless_all_are_slow() {
        let told = |slow: [bool; 3]| {
            let node = |(node, disk_slow)| {
                let (node, report) = answers(node);
                (node, NodeReport { disk_slow, ..report })
            };
            observed(&(1..).zip(slow).map(node).collect()).avoid_leaders
        };
        assert_eq!(told([false, true, true]), [NodeId(2), NodeId(3)].into());
        assert!(told([true; 3]).is_empty());
        assert!(told([false; 3]).is_empty());
    }

    #[test]
    fn nothing_moves_to_a_node_that_is_still_starting() {
        let (second, starting) = report(2, 6, &[]);
        let starting = NodeReport {
            starting: true,
            ..starting
        };
        let reports = [
            report(1, 7, &[(1, 1000), (2, 1000), (3, 1000)]),
            (second, starting),
            answers(3),
        ]
        .into_iter()
        .collect();
        let group = &observed(&reports).partitions[&PartitionId(1)];
        assert_eq!(
            group.caught_up,
            [ReplicaId(1), ReplicaId(3)].into_iter().collect()
        );
        assert_eq!(group.voters.len(), 3);
    }

    /// Else a node could be drained away until the group's majority is on nodes that are gone.
    #[test]
    fn who_does_not_answer_has_not_caught_up_whatever_it_had() {
        let reports = [report(1, 7, &[(1, 1000), (2, 1000), (3, 1000)]), answers(2)]
            .into_iter()
            .collect();
        let group = &observed(&reports).partitions[&PartitionId(1)];
        assert_eq!(
            group.caught_up,
            [ReplicaId(1), ReplicaId(2)].into_iter().collect()
        );
    }
}
