//! Which replicas are to be opened, kept or removed.

use machine::record::meta::{Partition, Replica};
use proto::peer::{MemberReport, ReplicaReport};

use super::*;

fn map(generation: u64, replicas: &[(u64, u64, bool)]) -> ClusterMap {
    let replicas = replicas
        .iter()
        .map(|(id, node, founder)| Replica {
            id: *id,
            node: *node,
            voter: true,
            founder: *founder,
            replaces: 0,
        })
        .collect();
    ClusterMap {
        partitions: vec![Partition {
            id: 4,
            generation,
            replicas,
        }],
        ..ClusterMap::default()
    }
}

#[test]
fn only_an_untouched_partition_is_founded() {
    let founder = |generation, replicas: &[(u64, u64, bool)]| given(&map(generation, replicas), 1)[0].founder;
    assert!(founder(1, &[(9, 1, true)]));
    assert!(
        !founder(2, &[(9, 1, true)]),
        "others may have been added and removed"
    );
    assert!(!founder(2, &[(9, 1, true), (10, 2, false)]));
    assert!(!founder(1, &[(9, 1, false)]));
    assert_eq!(given(&map(1, &[(9, 1, true)]), 2), vec![]);
}

#[test]
fn a_deposed_leader_cannot_have_a_replica_removed() {
    let report = |node: u64, term: u64, members: &[u64]| {
        let members = members.iter().map(|replica| MemberReport {
            replica: *replica,
            ..MemberReport::default()
        });
        let replica = ReplicaReport {
            partition: 4,
            replica: node,
            leads: true,
            term,
            members: members.collect(),
            ..ReplicaReport::default()
        };
        let told = NodeReport {
            replicas: vec![replica],
            ..NodeReport::default()
        };
        (NodeId(node), told)
    };
    let dropped = |reports: &[&(NodeId, NodeReport)]| {
        let reports = reports.iter().map(|report| (*report).clone()).collect();
        dropped_by(&reports, PartitionId(4), ReplicaId(9)).map(|leader| (leader.node.0, leader.term))
    };
    let (old, new) = (report(1, 5, &[1, 2]), report(2, 6, &[1, 2, 9]));
    assert_eq!(
        dropped(&[&old]),
        Some((1, 5)),
        "to be asked, by who has seen a newer term"
    );
    assert_eq!(dropped(&[&old, &new]), None, "a newer leader answers");
    assert_eq!(dropped(&[&new]), None);
    assert_eq!(dropped(&[&report(1, 6, &[])]), None, "it knows no members yet");
    assert_eq!(dropped(&[]), None);
    // Two leaders of one term: the replica with the higher id can commit, wherever it is.
    let (sham, real) = (report(1, 6, &[1, 2]), report(2, 6, &[1, 2, 9]));
    assert_eq!(dropped(&[&sham, &real]), None);
    let elsewhere = |on: u64, (_, told): &(NodeId, NodeReport)| (NodeId(on), told.clone());
    assert_eq!(dropped(&[&elsewhere(2, &sham), &elsewhere(1, &real)]), None);
}

#[test]
fn what_nobody_else_holds_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = DataDir::lock(dir.path()).expect("locked");
    let held =
        |map: &ClusterMap, partition: u32| others_hold(map, &data, PartitionId(partition), ReplicaId(9));
    assert!(!held(&map(1, &[(9, 1, true)]), 4));
    assert!(held(&map(1, &[(9, 1, true), (10, 2, false)]), 4));
    // Not in the map: it may be the map that cannot be read.
    assert!(!held(&ClusterMap::default(), 4));
    data.remember_peers(&[(types::NodeId(2), "h:1".into())])
        .expect("written");
    assert!(held(&ClusterMap::default(), 4));
}

#[test]
fn the_newest_replica_of_a_partition_is_opened() {
    let listed = vec![
        (PartitionId(1), ReplicaId(3)),
        (PartitionId(1), ReplicaId(8)),
        (PartitionId(2), ReplicaId(4)),
    ];
    let wanted = BTreeMap::from([(PartitionId(1), ReplicaId(8)), (PartitionId(2), ReplicaId(4))]);
    assert_eq!(on_disk(listed), wanted);
}
