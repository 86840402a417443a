//! Damage to the cluster's records.

use super::check;
use crate::MemView;
use crate::command::Body;
use crate::record::key::{self, Kind};
use crate::record::meta::{self, Bootstrap, Change, MetaCommand, MoveReplica, Node, Partition};
use crate::record::{Space, encode};
use crate::testing::{Replica, command};

/// Two nodes and one partition, whose replica is moving from one to the other.
fn cluster() -> MemView {
    let mut replica = Replica::default();
    let node = |incarnation| Node {
        incarnation,
        version: 1,
        ..Default::default()
    };
    let bootstrap = Bootstrap {
        cluster_id: 7,
        partitions: 1,
        node: Some(node(100)),
        version: 1,
    };
    let begin = MoveReplica {
        partition: 1,
        generation: 0,
        from: 1,
        to: 2,
    };
    for change in [
        Change::Bootstrap(bootstrap),
        Change::AdmitNode(node(200)),
        Change::MoveReplica(begin),
    ] {
        let body = Body::Meta(MetaCommand { change: Some(change) });
        replica.reply(command(Space::PARTITION, body));
    }
    replica.view
}

/// Partition 1 is something else.
fn check_partition(change: impl FnOnce(&mut Partition), text: &str) {
    let sound = cluster();
    let mut partition = meta::partition(&sound, 1).expect("readable").expect("there");
    change(&mut partition);
    let key = key::number(Space::PARTITION, Kind::Partition, 1);
    check(&sound, key, encode(&partition), text);
}

/// The cluster's own record is something else.
fn check_cluster(change: impl FnOnce(&mut meta::Cluster), text: &str) {
    let sound = cluster();
    let mut cluster = meta::cluster(&sound).expect("readable").expect("there");
    change(&mut cluster);
    check(
        &sound,
        key::single(Space::PARTITION, Kind::Cluster),
        encode(&cluster),
        text,
    );
}

#[test]
fn ids_past_their_allocators_are_noticed() {
    check_cluster(|cluster| cluster.next_node = 2, "node 2 is past its allocator");
    check_cluster(
        |cluster| cluster.next_replica = 4,
        "replica 4 of partition 1 is not unique",
    );
    check_cluster(
        |cluster| cluster.next_namespace = 1,
        "default is past its allocator",
    );
    check_cluster(
        |cluster| cluster.partitions = 2,
        "3 partitions are wanted, 2 are there",
    );
}

#[test]
fn two_of_what_there_is_once_are_noticed() {
    let sound = cluster();
    let mut node = meta::node(&sound, 2).expect("readable").expect("there");
    node.incarnation = 100;
    let key = key::number(Space::PARTITION, Kind::Node, 2);
    check(&sound, key, encode(&node), "two nodes share an incarnation");
    let namespace = meta::namespace(&sound, 1).expect("readable").expect("there");
    let key = key::number(Space::PARTITION, Kind::NamespaceEntry, 2);
    check(&sound, key, encode(&namespace), "two namespaces share a name");
    check_partition(
        |partition| partition.replicas[1].id = 1,
        "replica 1 of partition 1 is not unique",
    );
    check_partition(|partition| partition.replicas[1].node = 1, "is on node 1");
}

#[test]
fn replicas_on_nodes_that_are_not_there_are_noticed() {
    check_partition(|partition| partition.replicas[1].node = 3, "is on node 3");
}

#[test]
fn a_partition_without_a_voter_is_noticed() {
    let silence = |partition: &mut Partition| {
        let replicas = partition.replicas.iter_mut();
        replicas.for_each(|replica| replica.voter = false);
    };
    check_partition(silence, "partition 1 has no voter");
}

#[test]
fn moves_that_do_not_end_are_noticed() {
    check_partition(
        |partition| partition.replicas[1].replaces = 77,
        "replaces 77, gone or taken",
    );
    let two_heirs = |partition: &mut Partition| {
        let mut other = partition.replicas[1].clone();
        other.id = 1;
        partition.replicas.push(other);
    };
    check_partition(two_heirs, "gone or taken");
    let circle = |partition: &mut Partition| partition.replicas[0].replaces = partition.replicas[1].id;
    check_partition(circle, "nobody stays");
}
