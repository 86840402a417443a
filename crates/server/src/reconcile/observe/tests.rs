//! What reports of leaders, laggards and disks come to.

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
    let full = NodeReport {
        disk_full: true,
        ..NodeReport::default()
    };
    let slow = NodeReport {
        disk_slow: true,
        ..NodeReport::default()
    };
    let reports = [(NodeId(1), full), (NodeId(2), slow.clone()), (NodeId(3), slow)];
    let seen = observed(&reports.into());
    assert_eq!(
        seen.avoid_leaders,
        [NodeId(1)].into(),
        "the full one's are taken over"
    );
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

/// The one with the lower id was voted down by the other, and can commit nothing.
#[test]
fn of_two_leaders_of_one_term_the_one_with_the_higher_id_is_believed() {
    let led = |node: u64, replica: u64| {
        let (at, mut report) = report(node, 7, &[]);
        report.replicas[0].replica = replica;
        (at, report)
    };
    let leader = |reports: [(NodeId, NodeReport); 2]| {
        let seen = observed(&reports.into_iter().collect());
        seen.partitions[&PartitionId(1)].leader
    };
    assert_eq!(leader([led(1, 12), led(2, 11)]), Some(NodeId(1)));
    assert_eq!(leader([led(1, 11), led(2, 12)]), Some(NodeId(2)));
}
