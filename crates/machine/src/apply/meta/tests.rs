//! The life of a cluster's records, step by step, and what is refused at each.

use crate::command::Body;
use crate::outcome::{Allocated, Done, Effect, RefusalKind};
use crate::record::Space;
use crate::record::meta::*;
use crate::testing::{Replica, command, refusal_of};

mod nodes;

fn change(replica: &mut Replica, change: Change) -> Result<Option<Allocated>, RefusalKind> {
    let body = Body::Meta(MetaCommand { change: Some(change) });
    let done = replica
        .reply(command(Space::PARTITION, body))
        .done
        .expect("always done");
    match refusal_of(&done) {
        Some(kind) => Err(kind),
        None => Ok(match done {
            Done::Allocated(allocated) => Some(allocated),
            _ => None,
        }),
    }
}

fn id(result: Result<Option<Allocated>, RefusalKind>) -> u64 {
    result.expect("not refused").expect("allocated").id
}

fn node(id: u64, incarnation: u64) -> Node {
    Node {
        id,
        incarnation,
        version: 1,
        peer_address: format!("h{incarnation}:1"),
        ..Default::default()
    }
}

fn cluster() -> Replica {
    let mut replica = Replica::default();
    let bootstrap = Bootstrap {
        cluster_id: 7,
        partitions: 2,
        node: Some(node(1, 100)),
        version: 1,
    };
    assert_eq!(id(change(&mut replica, Change::Bootstrap(bootstrap))), 1);
    replica
}

fn map(replica: &Replica) -> ClusterMap {
    read(&replica.view).expect("memory never fails")
}

fn revision(replica: &Replica) -> u64 {
    map(replica).cluster.expect("bootstrapped").map_revision
}

#[test]
fn bootstrap_happens_once() {
    let mut replica = Replica::default();
    let early = Change::SetFrozen(SetFrozen { frozen: true });
    assert_eq!(change(&mut replica, early), Err(RefusalKind::NotFound));
    for (cluster_id, partitions, version) in [(0, 2, 1), (7, 0, 1), (7, 5000, 1), (7, 2, 2)] {
        let bootstrap = Bootstrap {
            cluster_id,
            partitions,
            node: Some(node(1, 100)),
            version,
        };
        assert_eq!(
            change(&mut replica, Change::Bootstrap(bootstrap)),
            Err(RefusalKind::Invalid)
        );
    }
    let mut replica = cluster();
    assert_eq!(replica.outcome.effects, vec![Effect::MetaChanged]);
    let told = map(&replica);
    assert_eq!(told.partitions.len(), 3);
    for partition in &told.partitions {
        let founder = Replica0 {
            id: u64::from(partition.id) + 1,
            node: 1,
            voter: true,
            founder: true,
            replaces: 0,
        };
        assert_eq!((partition.generation, &partition.replicas), (1, &vec![founder]));
    }
    assert_eq!(
        (told.namespaces[0].id, told.namespaces[0].name.as_str()),
        (1, "default")
    );
    let again = Bootstrap {
        cluster_id: 8,
        partitions: 1,
        node: Some(node(1, 100)),
        version: 1,
    };
    assert_eq!(
        change(&mut replica, Change::Bootstrap(again)),
        Err(RefusalKind::AlreadyExists)
    );
}

use crate::record::meta::Replica as Replica0;

#[test]
fn nodes_are_admitted_by_incarnation_and_never_come_back() {
    let mut replica = cluster();
    assert_eq!(id(change(&mut replica, Change::AdmitNode(node(0, 200)))), 2);
    assert_eq!(
        id(change(&mut replica, Change::AdmitNode(node(0, 200)))),
        2,
        "a retry"
    );
    assert_eq!(id(change(&mut replica, Change::AdmitNode(node(9, 300)))), 9);
    assert_eq!(id(change(&mut replica, Change::AdmitNode(node(0, 400)))), 10);
    let voters: Vec<_> = map(&replica).partitions[0]
        .replicas
        .iter()
        .map(|r| (r.node, r.voter))
        .collect();
    assert_eq!(voters, vec![(1, true), (2, true), (9, true), (10, false)]);
    let cases = [
        (node(2, 500), RefusalKind::AlreadyExists),
        (node(3, 200), RefusalKind::AlreadyExists),
        (node(0, 0), RefusalKind::Invalid),
        (
            Node {
                version: 0,
                ..node(0, 600)
            },
            RefusalKind::Invalid,
        ),
    ];
    for (request, kind) in cases {
        assert_eq!(change(&mut replica, Change::AdmitNode(request)), Err(kind));
    }
    let holds = Change::RemoveNode(NodeRef { node: 10 });
    assert_eq!(change(&mut replica, holds.clone()), Err(RefusalKind::Stale));
    let meta = map(&replica).partitions[0].clone();
    let gone = meta
        .replicas
        .iter()
        .find(|replica| replica.node == 10)
        .expect("there")
        .id;
    let remove = RemoveReplica {
        partition: 0,
        generation: meta.generation,
        replica: gone,
    };
    change(&mut replica, Change::RemoveReplica(remove)).expect("a learner may go");
    assert_eq!(change(&mut replica, holds.clone()), Ok(None));
    assert_eq!(change(&mut replica, holds), Ok(None), "a retry");
    for request in [node(0, 400), node(10, 700)] {
        assert_eq!(
            change(&mut replica, Change::AdmitNode(request)),
            Err(RefusalKind::Stale)
        );
    }
    assert_eq!(id(change(&mut replica, Change::AdmitNode(node(0, 800)))), 11);
}

#[test]
fn a_start_of_an_old_copy_is_refused() {
    let mut replica = cluster();
    let started = |boots| {
        Change::NodeStarted(Node {
            boots,
            ..node(1, 100)
        })
    };
    assert_eq!(change(&mut replica, started(5)), Ok(None));
    let before = revision(&replica);
    assert_eq!(change(&mut replica, started(5)), Ok(None), "a retry");
    assert_eq!(revision(&replica), before);
    assert_eq!(change(&mut replica, started(4)), Err(RefusalKind::Stale));
    let foreign = Change::NodeStarted(Node {
        boots: 9,
        ..node(1, 101)
    });
    assert_eq!(change(&mut replica, foreign), Err(RefusalKind::AlreadyExists));
    assert_eq!(
        change(&mut replica, Change::NodeStarted(node(4, 101))),
        Err(RefusalKind::NotFound)
    );
}

#[test]
fn replicas_change_by_generation() {
    let mut replica = cluster();
    let second = id(change(&mut replica, Change::AdmitNode(node(0, 200))));
    let add = |generation, node| {
        Change::AddReplica(AddReplica {
            partition: 1,
            generation,
            node,
            voter: false,
        })
    };
    assert_eq!(change(&mut replica, add(7, second)), Err(RefusalKind::Stale));
    assert_eq!(change(&mut replica, add(1, 99)), Err(RefusalKind::NotFound));
    assert_eq!(change(&mut replica, add(1, 1)), Err(RefusalKind::AlreadyExists));
    let added = change(&mut replica, add(1, second))
        .expect("not refused")
        .expect("allocated");
    assert_eq!(added.generation, 2);
    let vote = |generation, replica, voter| {
        Change::SetVoter(SetVoter {
            partition: 1,
            generation,
            replica,
            voter,
        })
    };
    assert_eq!(
        change(&mut replica, vote(2, 2, false)),
        Err(RefusalKind::Invalid),
        "the last voter"
    );
    assert_eq!(
        change(&mut replica, vote(2, 77, true)),
        Err(RefusalKind::NotFound)
    );
    let voting = change(&mut replica, vote(2, added.id, true))
        .expect("not refused")
        .expect("told");
    assert_eq!(voting.generation, 3);
    let remove = |generation, replica| {
        Change::RemoveReplica(RemoveReplica {
            partition: 1,
            generation,
            replica,
        })
    };
    assert_eq!(change(&mut replica, remove(2, 2)), Err(RefusalKind::Stale));
    change(&mut replica, remove(3, 2)).expect("another one votes");
    assert_eq!(
        change(&mut replica, remove(4, added.id)),
        Err(RefusalKind::Invalid),
        "the last voter"
    );
    let drain = SetNodeState {
        node: second,
        state: NodeState::Draining as i32,
    };
    assert_eq!(change(&mut replica, Change::SetNodeState(drain)), Ok(None));
    let partition2 = AddReplica {
        partition: 2,
        generation: 1,
        node: second,
        voter: false,
    };
    assert_eq!(
        change(&mut replica, Change::AddReplica(partition2)),
        Err(RefusalKind::Stale),
        "draining"
    );
    let remove = SetNodeState {
        node: second,
        state: NodeState::Removed as i32,
    };
    assert_eq!(
        change(&mut replica, Change::SetNodeState(remove)),
        Err(RefusalKind::Invalid)
    );
}

/// Node and what it replaces, of each replica of partition 1.
fn placed(replica: &Replica) -> Vec<(u64, u64, bool)> {
    let map = map(replica);
    let all = map.partitions[1].replicas.iter();
    all.map(|replica| (replica.node, replica.replaces, replica.voter))
        .collect()
}

fn moved(from: u64, to: u64) -> Change {
    Change::MoveReplica(MoveReplica {
        partition: 1,
        generation: 0,
        from,
        to,
    })
}

#[test]
fn a_move_is_wanted_once_and_can_be_called_off() {
    let mut replica = cluster();
    for incarnation in [200, 300] {
        change(&mut replica, Change::AdmitNode(node(0, incarnation))).expect("admitted");
    }
    for (wrong, kind) in [
        (moved(9, 1), RefusalKind::NotFound),
        (moved(2, 3), RefusalKind::NotFound),
        (moved(1, 9), RefusalKind::NotFound),
        (moved(1, 1), RefusalKind::Invalid),
        (
            Change::MoveReplica(MoveReplica {
                from: 1,
                to: 2,
                ..Default::default()
            }),
            RefusalKind::Invalid,
        ),
        (
            Change::MoveReplica(MoveReplica {
                partition: 1,
                generation: 7,
                from: 1,
                to: 2,
            }),
            RefusalKind::Stale,
        ),
    ] {
        assert_eq!(change(&mut replica, wrong.clone()), Err(kind), "{wrong:?}");
    }
    let old = map(&replica).partitions[1].replicas[0].id;
    let new = id(change(&mut replica, moved(1, 2)));
    let wanted = vec![(1, 0, true), (2, old, true)];
    assert_eq!(placed(&replica), wanted);
    let before = revision(&replica);
    assert_eq!(id(change(&mut replica, moved(1, 2))), new, "told again");
    assert_eq!(revision(&replica), before);
    assert_eq!(
        change(&mut replica, moved(1, 3)),
        Err(RefusalKind::Stale),
        "it goes elsewhere"
    );
    // The way back.
    assert_eq!(id(change(&mut replica, moved(2, 1))), old);
    assert_eq!(placed(&replica), vec![(1, new, true), (2, 0, true)]);
    assert_eq!(id(change(&mut replica, moved(1, 2))), new);
    assert_eq!(placed(&replica), wanted);
    // On from there, while the first one is under way; then the one in the middle goes.
    change(&mut replica, moved(2, 3)).expect("not refused");
    assert_eq!(
        change(&mut replica, moved(3, 1)),
        Err(RefusalKind::Stale),
        "a circle"
    );
    let remove = |replica| {
        Change::RemoveReplica(RemoveReplica {
            partition: 1,
            generation: 0,
            replica,
        })
    };
    change(&mut replica, remove(new)).expect("not the last voter");
    assert_eq!(placed(&replica), vec![(1, 0, true), (3, old, true)]);
    change(&mut replica, remove(old)).expect("not the last voter");
    assert_eq!(placed(&replica), vec![(3, 0, true)]);
    assert!(change(&mut replica, moved(1, 3)).is_ok(), "it is done");
}

#[test]
fn a_move_takes_a_replica_that_is_there() {
    let mut replica = cluster();
    change(&mut replica, Change::AdmitNode(node(0, 200))).expect("admitted");
    let add = AddReplica {
        partition: 1,
        generation: 0,
        node: 2,
        voter: false,
    };
    let learner = id(change(&mut replica, Change::AddReplica(add)));
    let old = map(&replica).partitions[1].replicas[0].id;
    assert_eq!(id(change(&mut replica, moved(1, 2))), learner);
    assert_eq!(placed(&replica), vec![(1, 0, true), (2, old, true)]);
}

#[test]
fn what_is_no_command_begins_once() {
    let mut replica = cluster();
    let open = Body::SessionOpen(crate::command::SessionOpen {});
    let begin = |token| {
        Body::Meta(MetaCommand {
            change: Some(Change::Begin(Begin { token })),
        })
    };
    let mut send = |body| {
        let sent = crate::Command {
            client_id: 5,
            seq: 1,
            ..command(Space::PARTITION, body)
        };
        replica.reply(sent).done
    };
    send(open);
    let first = Some(Done::Allocated(Allocated {
        id: 77,
        generation: 0,
    }));
    assert_eq!(send(begin(77)), first);
    assert_eq!(send(begin(78)), first, "a retry");
}

#[test]
fn a_wiped_node_and_a_reused_id_are_told_apart() {
    let mut replica = cluster();
    let mut said = |change| {
        let body = Body::Meta(MetaCommand { change: Some(change) });
        match replica.reply(command(Space::PARTITION, body)).done {
            Some(Done::Refused(refusal)) => refusal.text,
            other => panic!("not refused: {other:?}"),
        }
    };
    let wiped = Node {
        peer_address: "h100:1".into(),
        ..node(1, 500)
    };
    for change in [Change::AdmitNode(wiped.clone()), Change::NodeStarted(wiped)] {
        let text = said(change);
        assert!(text.ends_with("was wiped"), "{text}");
    }
    for change in [Change::AdmitNode(node(1, 500)), Change::NodeStarted(node(1, 500))] {
        let text = said(change);
        assert!(text.ends_with("at h100:1: it is reused by h500:1"), "{text}");
    }
}

#[test]
fn namespaces_have_names_once_and_numbers_for_ever() {
    let mut replica = cluster();
    let named = |name: &str| {
        Change::PutNamespace(Namespace {
            name: name.into(),
            ..Default::default()
        })
    };
    let long = "n".repeat(129);
    for name in ["", "a/b", "a b", long.as_str()] {
        assert_eq!(
            change(&mut replica, named(name)),
            Err(RefusalKind::Invalid),
            "{name}"
        );
    }
    assert_eq!(
        change(&mut replica, named("default")),
        Err(RefusalKind::AlreadyExists)
    );
    assert_eq!(id(change(&mut replica, named("blue"))), 2);
    let settings = Some(crate::command::NamespaceSettings {
        quota_bytes: 5,
        ..Default::default()
    });
    let put = |id, generation, name: &str| {
        Change::PutNamespace(Namespace {
            id,
            name: name.into(),
            settings,
            generation,
        })
    };
    assert_eq!(change(&mut replica, put(3, 0, "")), Err(RefusalKind::NotFound));
    assert_eq!(change(&mut replica, put(2, 9, "")), Err(RefusalKind::Stale));
    assert_eq!(change(&mut replica, put(2, 1, "red")), Err(RefusalKind::Invalid));
    assert_eq!(
        change(&mut replica, put(2, 1, "")),
        Ok(Some(Allocated { id: 2, generation: 2 }))
    );
    assert_eq!(map(&replica).namespaces[0].name, "blue", "ascending by name");
    let before = revision(&replica);
    change(&mut replica, Change::SetFrozen(SetFrozen { frozen: true })).expect("not refused");
    change(&mut replica, Change::SetFrozen(SetFrozen { frozen: true })).expect("not refused");
    assert_eq!(revision(&replica), before + 1);
}

#[test]
fn the_version_is_raised_when_every_node_understands_it_and_then_binds() {
    let mut replica = cluster();
    let raise = || Change::RaiseVersion(RaiseVersion { version: 2 });
    assert_eq!(change(&mut replica, raise()), Err(RefusalKind::Stale));
    let upgraded = Node {
        version: 2,
        boots: 2,
        ..node(1, 100)
    };
    assert_eq!(change(&mut replica, Change::NodeStarted(upgraded)), Ok(None));
    let before = revision(&replica);
    assert_eq!(change(&mut replica, raise()), Ok(None));
    assert_eq!(map(&replica).cluster.expect("bootstrapped").version, 2);
    assert_eq!(revision(&replica), before + 1);
    assert_eq!(change(&mut replica, raise()), Ok(None), "raised already");
    assert_eq!(revision(&replica), before + 1);
    // From now on an older build is not let in, neither as a new node nor as the old one started again.
    let refused = Err(RefusalKind::Invalid);
    assert_eq!(change(&mut replica, Change::AdmitNode(node(0, 101))), refused);
    let downgraded = Node {
        boots: 3,
        ..node(1, 100)
    };
    assert_eq!(change(&mut replica, Change::NodeStarted(downgraded)), refused);
}
