//! What a node may say of itself, and what the cluster knows better.

use types::limits;

use super::*;

fn known(replica: &Replica, id: u64) -> Node {
    let nodes = map(replica).nodes.into_iter();
    nodes.rev().find(|node| node.id == id).expect("admitted")
}

fn drained(replica: &mut Replica, node: u64) {
    let state = NodeState::Draining as i32;
    let drain = SetNodeState { node, state };
    assert_eq!(change(replica, Change::SetNodeState(drain)), Ok(None));
}

fn removed(replica: &mut Replica, node: u64) {
    let meta = map(replica).partitions[0].clone();
    let mut replicas = meta.replicas.iter();
    let held = replicas.find(|replica| replica.node == node).expect("follows it");
    let give_up = RemoveReplica {
        partition: 0,
        generation: 0,
        replica: held.id,
    };
    change(replica, Change::RemoveReplica(give_up)).expect("not the last voter");
    assert_eq!(change(replica, Change::RemoveNode(NodeRef { node })), Ok(None));
}

/// As somebody asks who thinks of itself as drained.
fn draining(node: Node) -> Node {
    Node {
        state: NodeState::Draining as i32,
        ..node
    }
}

#[test]
fn the_first_node_is_number_one_and_active() {
    let bootstrap = |node| {
        Change::Bootstrap(Bootstrap {
            cluster_id: 7,
            partitions: 2,
            node,
            version: 1,
        })
    };
    let mut replica = Replica::default();
    for wrong in [None, Some(node(2, 100)), Some(node(1, 0))] {
        let refused = Err(RefusalKind::Invalid);
        assert_eq!(
            change(&mut replica, bootstrap(wrong.clone())),
            refused,
            "{wrong:?}"
        );
    }
    assert_eq!(
        id(change(&mut replica, bootstrap(Some(draining(node(0, 100)))))),
        1
    );
    assert_eq!(
        known(&replica, 1),
        Node {
            id: 1,
            ..node(0, 100)
        }
    );
}

#[test]
fn a_node_says_where_it_is_and_the_cluster_in_what_state() {
    let mut replica = cluster();
    let boots = 3;
    let asked = draining(Node {
        boots,
        ..node(0, 200)
    });
    assert_eq!(id(change(&mut replica, Change::AdmitNode(asked))), 2);
    let admitted = Node {
        id: 2,
        boots,
        ..node(0, 200)
    };
    assert_eq!(known(&replica, 2), admitted);
    drained(&mut replica, 2);
    let before = revision(&replica);
    drained(&mut replica, 2);
    assert_eq!(revision(&replica), before, "it was draining already");
    // A retry with an address of later, from an earlier copy of what it knows.
    let peer_address = String::from("elsewhere:1");
    let again = Node {
        peer_address: peer_address.clone(),
        boots: 1,
        ..node(0, 200)
    };
    for _ in 0..2 {
        assert_eq!(id(change(&mut replica, Change::AdmitNode(again.clone()))), 2);
        assert_eq!(revision(&replica), before + 1, "the second changes nothing");
    }
    let expected = draining(Node {
        peer_address,
        ..admitted
    });
    assert_eq!(known(&replica, 2), expected);
    // The same when it starts.
    let started = Node {
        boots: 4,
        ..node(2, 200)
    };
    assert_eq!(
        change(&mut replica, Change::NodeStarted(started.clone())),
        Ok(None)
    );
    assert_eq!(known(&replica, 2), draining(started));
}

#[test]
fn ids_that_are_asked_for_are_small() {
    let mut replica = cluster();
    let most = u64::from(u32::MAX);
    let too_large = Change::AdmitNode(node(most + 1, 200));
    assert_eq!(change(&mut replica, too_large), Err(RefusalKind::Invalid));
    assert_eq!(id(change(&mut replica, Change::AdmitNode(node(most, 200)))), most);
}

#[test]
fn a_cluster_has_so_many_nodes_those_that_were_removed_not_counted() {
    let mut replica = cluster();
    for number in 2..=limits::NODES as u64 {
        let admitted = change(&mut replica, Change::AdmitNode(node(0, 1000 + number)));
        assert_eq!(id(admitted), number);
    }
    let more = || Change::AdmitNode(node(0, 9999));
    assert_eq!(change(&mut replica, more()), Err(RefusalKind::LimitReached));
    removed(&mut replica, 9);
    assert_eq!(id(change(&mut replica, more())), limits::NODES as u64 + 1);
}

#[test]
fn a_removed_node_does_not_hold_the_version_back() {
    let mut replica = cluster();
    let upgraded = |id, incarnation| Node {
        version: 2,
        ..node(id, incarnation)
    };
    change(&mut replica, Change::AdmitNode(node(0, 200))).expect("admitted");
    change(&mut replica, Change::NodeStarted(upgraded(1, 100))).expect("known");
    let raise = || Change::RaiseVersion(RaiseVersion { version: 2 });
    assert_eq!(change(&mut replica, raise()), Err(RefusalKind::Stale));
    removed(&mut replica, 2);
    assert_eq!(change(&mut replica, raise()), Ok(None));
}

/// It tells whoever asked what map to wait for.
#[test]
fn a_change_is_answered_with_the_maps_revision() {
    let mut replica = cluster();
    for frozen in [true, false, false] {
        let change = Some(Change::SetFrozen(SetFrozen { frozen }));
        let body = Body::Meta(MetaCommand { change });
        let told = replica.reply(command(Space::PARTITION, body)).revision;
        assert_eq!(told as u64, revision(&replica));
    }
    assert_eq!(revision(&replica), 3);
}

#[test]
fn a_voter_can_be_made_a_learner_while_another_one_votes() {
    let mut replica = cluster();
    change(&mut replica, Change::AdmitNode(node(0, 200))).expect("admitted");
    let vote = |replica, voter| {
        Change::SetVoter(SetVoter {
            partition: 0,
            generation: 0,
            replica,
            voter,
        })
    };
    let second = map(&replica).partitions[0].replicas[1].id;
    for (voter, generation) in [(true, 2), (false, 3), (false, 3), (true, 4)] {
        let told = change(&mut replica, vote(second, voter)).expect("not refused");
        assert_eq!(
            told,
            Some(Allocated {
                id: second,
                generation
            }),
            "{voter}"
        );
        assert_eq!(map(&replica).partitions[0].replicas[1].voter, voter);
    }
}

#[test]
fn nobody_takes_the_place_of_two() {
    let mut replica = cluster();
    for incarnation in [200, 300] {
        change(&mut replica, Change::AdmitNode(node(0, incarnation))).expect("admitted");
    }
    let add = AddReplica {
        partition: 1,
        generation: 0,
        node: 2,
        voter: true,
    };
    change(&mut replica, Change::AddReplica(add)).expect("admitted");
    change(&mut replica, moved(2, 3)).expect("not refused");
    assert!(map(&replica).partitions[1].is_moving());
    assert!(!map(&replica).partitions[2].is_moving());
    assert_eq!(change(&mut replica, moved(1, 3)), Err(RefusalKind::Stale));
}

#[test]
fn a_namespaces_settings_are_told_with_their_generation() {
    let settings = crate::command::NamespaceSettings {
        quota_bytes: 5,
        ..Default::default()
    };
    let namespace = Namespace {
        settings: Some(settings),
        generation: 3,
        ..Default::default()
    };
    let expected = crate::command::NamespaceSettings {
        generation: 3,
        ..settings
    };
    assert_eq!(namespace.configuration(), expected);
}
