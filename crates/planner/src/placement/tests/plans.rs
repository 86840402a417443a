//! Single plans, where a model that goes on until all is done would hide a detour.

use std::collections::BTreeMap;

use machine::record::meta::{NodeState, Replica};
use types::{NodeId, PartitionId, ReplicaId};

use super::{Model, planned};
use crate::input::{PartitionSeen, Policy};
use crate::placement::{Step, plan_placement, settled};

fn plan(model: &Model, changes_in_flight: usize) -> Vec<Step> {
    let policy = Policy {
        changes_in_flight,
        ..Policy::default()
    };
    plan_placement(&model.map, &model.seen, &policy)
}

/// Settled, with a fourth node that follows the meta partition and holds nothing else.
fn joined(partitions: u32) -> Model {
    let mut model = Model::new(3, partitions);
    model.converge();
    model.join(4);
    let steps = plan(&model, 48);
    assert_eq!(steps.len(), 1, "the meta partition comes first: {steps:?}");
    steps.into_iter().for_each(|step| model.perform(step));
    model.settle();
    model
}

fn group(model: &mut Model, partition: u32) -> &mut PartitionSeen {
    let id = PartitionId(partition);
    model.seen.partitions.get_mut(&id).expect("settled before")
}

/// How often each node is named.
fn counted(nodes: impl Iterator<Item = NodeId>) -> Vec<(u64, usize)> {
    let mut counts = BTreeMap::new();
    nodes.for_each(|node| *counts.entry(node.0).or_default() += 1);
    counts.into_iter().collect()
}

#[test]
fn no_more_is_added_than_is_missing_and_evenly() {
    let mut model = Model::new(6, 10);
    model.settle();
    let added = plan(&model, 48).into_iter().filter_map(|step| match step {
        Step::Add { partition, node, .. } if partition != PartitionId::META => Some(node),
        _ => None,
    });
    assert_eq!(counted(added), vec![(2, 4), (3, 4), (4, 4), (5, 4), (6, 4)]);
}

/// Gives partitions 1, 2 and so on voters on these nodes.
fn place(model: &mut Model, nodes: &[&[u64]]) {
    for (partition, nodes) in model.map.partitions[1..].iter_mut().zip(nodes) {
        partition.replicas.clear();
        for node in *nodes {
            let id = u64::from(partition.id) * 100 + node;
            partition.replicas.push(voter(id, *node));
        }
    }
    model.settle();
}

fn voter(id: u64, node: u64) -> Replica {
    Replica {
        id,
        node,
        voter: true,
        ..Replica::default()
    }
}

#[test]
fn what_is_removed_makes_room_in_the_same_plan() {
    let mut model = joined(3);
    place(&mut model, &[&[1, 3, 4], &[1, 3], &[1, 2, 3]]);
    let added = |model: &Model| {
        let steps = plan(model, 48).into_iter();
        steps.filter_map(|step| match step {
            Step::Add { partition, node, .. } => Some((partition.0, node.0)),
            _ => None,
        })
    };
    let first = |model: &Model| added(model).next();
    assert_eq!(first(&model), Some((2, 2)), "nodes 2 and 4 hold one each");
    model.seen.broken.insert(ReplicaId(104));
    assert_eq!(first(&model), Some((2, 4)), "node 4 is to hold none");
}

#[test]
fn no_plan_begins_more_changes_than_the_policy_says() {
    let mut model = Model::new(3, 16);
    model.settle();
    for changes_in_flight in [0, 1, 4, 9] {
        let mut begun: Vec<_> = plan(&model, changes_in_flight)
            .iter()
            .map(Step::partition)
            .collect();
        begun.dedup();
        assert_eq!(begun.len(), changes_in_flight);
    }
}

#[test]
fn what_moves_already_counts_as_a_change_in_flight() {
    let mut model = joined(8);
    for partition in 1..=4 {
        group(&mut model, partition).voters.pop_first();
    }
    let gone = model.map.partitions[7].replicas.pop().expect("placed");
    group(&mut model, 7).voters.remove(&ReplicaId(gone.id));
    assert_eq!(plan(&model, 4), vec![], "four are under way");
    assert_eq!(plan(&model, 5).len(), 1, "one more may begin");
}

/// A node that joined and died keeps its share of partitions waiting, for as long as it is dead: the others go on.
#[test]
fn what_waits_for_a_dead_node_keeps_nobody_from_being_changed() {
    let mut model = joined(8);
    model.join(9);
    for partition in 1..=4 {
        model.map.partitions[partition]
            .replicas
            .push(voter(900 + partition as u64, 9));
    }
    let gone = model.map.partitions[7].replicas.pop().expect("placed");
    group(&mut model, 7).voters.remove(&ReplicaId(gone.id));
    assert_eq!(plan(&model, 4), vec![], "four are under way");
    model.seen.alive.remove(&NodeId(9));
    let planned: Vec<_> = plan(&model, 4).iter().map(Step::partition).collect();
    assert!(planned.contains(&PartitionId(7)), "{planned:?}");
}

#[test]
fn balance_waits_until_nothing_else_moves() {
    let mut model = joined(8);
    assert!(!plan(&model, 48).is_empty(), "there is something to balance");
    group(&mut model, 3).voters.pop_first();
    assert_eq!(plan(&model, 48), vec![]);
}

#[test]
fn nothing_is_moved_for_balance_while_frozen() {
    let model = joined(8);
    let frozen = Policy {
        frozen: true,
        ..Policy::default()
    };
    assert_eq!(plan_placement(&model.map, &model.seen, &frozen), vec![]);
}

#[test]
fn balance_leaves_alone_what_has_no_leader() {
    let mut model = joined(8);
    for partition in 1..=8 {
        group(&mut model, partition).leader = None;
    }
    assert_eq!(plan(&model, 48), vec![]);
}

#[test]
fn one_plan_evens_out_and_goes_no_further() {
    let model = joined(16);
    let steps = plan(&model, 1000);
    let from = steps.iter().filter_map(|step| match step {
        Step::Move { from, .. } => Some(*from),
        _ => None,
    });
    assert_eq!(counted(from), vec![(1, 4), (2, 4), (3, 4)]);
    let to = steps.iter().filter_map(|step| match step {
        Step::Move { to, .. } => Some(*to),
        _ => None,
    });
    assert_eq!(counted(to), vec![(4, 12)]);
}

#[test]
fn a_broken_replica_stays_while_the_others_are_no_sound_majority() {
    let mut model = Model::new(3, 1);
    place(&mut model, &[&[1, 2, 3]]);
    model.seen.broken.insert(ReplicaId(103));
    group(&mut model, 1).caught_up.remove(&ReplicaId(102));
    assert_eq!(planned(&model, &Policy::default()), vec![]);
    group(&mut model, 1).caught_up.insert(ReplicaId(102));
    assert_eq!(planned(&model, &Policy::default()).len(), 1);
}

#[test]
fn a_broken_replica_of_the_meta_partition_is_replaced() {
    let mut model = joined(1);
    let broken = model.map.partitions[0].replicas[1].clone();
    model.seen.broken.insert(ReplicaId(broken.id));
    model.converge();
    let replicas = &model.map.partitions[0].replicas;
    assert!(replicas.iter().all(|replica| replica.id != broken.id));
    assert!(replicas.iter().any(|replica| replica.node == broken.node));
}

#[test]
fn a_leaving_replica_stays_until_enough_others_have_caught_up() {
    let mut model = joined(1);
    place(&mut model, &[&[1, 2, 3, 4]]);
    model.state(4, NodeState::Draining);
    group(&mut model, 1).caught_up.remove(&ReplicaId(103));
    assert_eq!(planned(&model, &Policy::default()), vec![]);
    group(&mut model, 1).caught_up.insert(ReplicaId(103));
    let steps = planned(&model, &Policy::default());
    assert!(
        matches!(
            steps[..],
            [Step::Remove {
                replica: ReplicaId(104),
                ..
            }]
        ),
        "{steps:?}"
    );
}

#[test]
fn a_surplus_is_dropped_from_the_voters_alone() {
    let mut model = joined(1);
    model.join(5);
    place(&mut model, &[&[1, 2, 3, 4, 5]]);
    model.map.partitions[1].replicas[4].voter = false;
    model.settle();
    let steps = planned(&model, &Policy::default());
    assert!(
        matches!(
            steps[..],
            [Step::Remove {
                replica: ReplicaId(104),
                ..
            }]
        ),
        "{steps:?}"
    );
}

#[test]
fn a_membership_is_settled_if_voters_and_learners_are_as_wanted() {
    let mut model = joined(1);
    place(&mut model, &[&[1, 2, 3]]);
    let partition = &mut model.map.partitions[1];
    partition.replicas[2].voter = false;
    let partition = partition.clone();
    let ids = |ids: &[u64]| ids.iter().map(|id| ReplicaId(*id)).collect();
    for (voters, learners, wanted) in [
        (&[101, 102][..], &[103][..], true),
        (&[101, 102], &[], false),
        (&[101], &[103], false),
        (&[101, 102, 103], &[], false),
        (&[101, 102], &[103, 104], false),
    ] {
        let group = PartitionSeen {
            voters: ids(voters),
            learners: ids(learners),
            ..PartitionSeen::default()
        };
        assert_eq!(settled(&partition, &group), wanted, "{group:?}");
    }
}
