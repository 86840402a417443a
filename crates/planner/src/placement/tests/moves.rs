//! A replica takes the place of another one, or is to and does not.

use super::*;

/// A settled cluster of four nodes and one partition, with a move of its first replica begun.
fn moving(voter: bool) -> (Model, Replica) {
    let mut model = Model::new(3, 1);
    model.converge();
    model.join(4);
    let partition = &mut model.map.partitions[1];
    let old = match voter {
        true => partition.replicas[0].clone(),
        false => {
            let learner = Replica {
                id: 98,
                node: 4,
                ..Replica::default()
            };
            partition.replicas.push(learner.clone());
            model.join(5);
            learner
        }
    };
    let node = if voter { 4 } else { 5 };
    model.map.partitions[1].replicas.push(Replica {
        id: 99,
        node,
        voter,
        replaces: old.id,
        ..Replica::default()
    });
    model.settle();
    (model, old)
}

#[test]
fn a_moved_replica_goes_once_its_heir_has_caught_up() {
    for voter in [true, false] {
        let (mut model, old) = moving(voter);
        let group = model.seen.partitions.get_mut(&PartitionId(1)).expect("seen");
        group.caught_up.remove(&ReplicaId(99));
        // Ripe, and not frozen: no other rule takes either of the two away meanwhile.
        assert_eq!(planned(&model, &Policy::default()), vec![]);
        let group = model.seen.partitions.get_mut(&PartitionId(1)).expect("seen");
        group.caught_up.insert(ReplicaId(99));
        let frozen = Policy {
            frozen: true,
            ..Policy::default()
        };
        let steps = planned(&model, &frozen);
        let is_old = |step: &Step| matches!(step, Step::Remove { replica, .. } if replica.0 == old.id);
        assert!(steps.len() == 1 && is_old(&steps[0]), "{steps:?}");
    }
}

#[test]
fn a_move_that_would_leave_no_sound_majority_waits() {
    let (mut model, _) = moving(true);
    let others: Vec<ReplicaId> = model.map.partitions[1].replicas[1..3]
        .iter()
        .map(|replica| ReplicaId(replica.id))
        .collect();
    let group = model.seen.partitions.get_mut(&PartitionId(1)).expect("seen");
    group.caught_up.retain(|id| !others.contains(id));
    assert_eq!(planned(&model, &Policy::default()), vec![]);
}

/// The old replica stays in the end.
fn check_called_off(model: &mut Model, old: &Replica) {
    model.converge();
    model.check_placed();
    let replicas = &model.map.partitions[1].replicas;
    assert!(
        replicas.iter().any(|replica| replica.id == old.id),
        "{replicas:?}"
    );
}

#[test]
fn a_move_to_a_node_that_is_drained_is_called_off() {
    let (mut model, old) = moving(true);
    model.state(4, NodeState::Draining);
    check_called_off(&mut model, &old);
}

/// Its new replica has not caught up, and never will if the node is dead.
#[test]
fn a_move_to_a_node_that_is_drained_is_called_off_before_it_has_caught_up() {
    let (mut model, old) = moving(true);
    let group = model.seen.partitions.get_mut(&PartitionId(1)).expect("seen");
    group.voters.remove(&ReplicaId(99));
    group.caught_up.remove(&ReplicaId(99));
    group.learners.insert(ReplicaId(99));
    model.seen.alive.remove(&NodeId(4));
    assert_eq!(planned(&model, &Policy::default()), vec![], "it may come back");
    model.state(4, NodeState::Draining);
    let steps = planned(&model, &Policy::default());
    let is_new = |step: &Step| {
        matches!(
            step,
            Step::Remove {
                replica: ReplicaId(99),
                ..
            }
        )
    };
    assert!(steps.len() == 1 && is_new(&steps[0]), "{steps:?}");
    check_called_off(&mut model, &old);
}

#[test]
fn a_voter_of_the_meta_partition_that_never_began_gives_way_when_its_node_is_drained() {
    let mut model = Model::new(4, 1);
    model.converge();
    let meta = &model.map.partitions[0];
    let new = meta
        .replicas
        .iter()
        .find(|replica| replica.voter)
        .expect("one votes");
    let (id, node) = (ReplicaId(new.id), new.node);
    let group = model.seen.partitions.get_mut(&PartitionId::META).expect("seen");
    group.voters.remove(&id);
    group.caught_up.remove(&id);
    group.learners.insert(id);
    model.seen.alive.remove(&NodeId(node));
    model.state(node, NodeState::Draining);
    let steps = plan_placement(&model.map, &model.seen, &Policy::default());
    let demoted =
        |step: &Step| matches!(step, Step::SetVoter { replica, voter: false, .. } if *replica == id);
    assert!(steps.iter().any(demoted), "{steps:?}");
}
