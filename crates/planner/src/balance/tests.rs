//! Tables for the balancer.

use std::collections::BTreeSet;

use machine::record::meta::{ClusterMap, Node, Partition, Replica};
use types::{NodeId, PartitionId, ReplicaId};

use super::plan_leaders;
use crate::input::{Observed, PartitionSeen, Policy};

fn cluster(nodes: u64, leaders: &[u64]) -> (ClusterMap, Observed) {
    let mut map = ClusterMap::default();
    let mut seen = Observed::default();
    for id in 1..=nodes {
        map.nodes.push(Node {
            id,
            ..Default::default()
        });
        seen.alive.insert(NodeId(id));
    }
    for (n, leader) in leaders.iter().enumerate() {
        let replicas: Vec<Replica> = (1..=nodes)
            .map(|node| Replica {
                id: n as u64 * 100 + node,
                node,
                voter: true,
                ..Replica::default()
            })
            .collect();
        let voters: BTreeSet<_> = replicas.iter().map(|r| ReplicaId(r.id)).collect();
        map.partitions.push(Partition {
            id: n as u32,
            generation: 1,
            replicas,
        });
        let group = PartitionSeen {
            leader: Some(NodeId(*leader)),
            caught_up: voters.clone(),
            voters,
            learners: BTreeSet::new(),
        };
        seen.partitions.insert(PartitionId(n as u32), group);
    }
    (map, seen)
}

fn check(nodes: u64, leaders: &[u64], avoid: &[u64], wanted: &[usize]) {
    let (map, mut seen) = cluster(nodes, leaders);
    seen.avoid_leaders = avoid.iter().map(|id| NodeId(*id)).collect();
    let plan = plan_leaders(
        &map,
        &seen,
        &Policy {
            transfers: 1000,
            ..Policy::default()
        },
    );
    for step in &plan {
        seen.partitions.get_mut(&step.partition).expect("known").leader = Some(step.to);
    }
    let counts: Vec<usize> = (1..=nodes)
        .map(|node| {
            seen.partitions
                .values()
                .filter(|group| group.leader == Some(NodeId(node)))
                .count()
        })
        .collect();
    assert_eq!(counts, wanted, "plan {plan:?}");
}

#[test]
fn all_on_one_node_spread_evenly() {
    check(3, &[1; 16], &[], &[6, 5, 5]);
}

#[test]
fn even_stays() {
    let (map, seen) = cluster(3, &[1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(plan_leaders(&map, &seen, &Policy::default()), vec![]);
}

#[test]
fn forbidden_node_loses_all() {
    check(3, &[1, 1, 2, 3], &[1], &[0, 2, 2]);
}

#[test]
fn lagging_replicas_are_not_chosen() {
    let (map, mut seen) = cluster(2, &[1, 1, 1]);
    for group in seen.partitions.values_mut() {
        group.caught_up.clear();
    }
    assert_eq!(plan_leaders(&map, &seen, &Policy::default()), vec![]);
}

/// Found by mutation: nothing asked for fewer moves than were worth making.
#[test]
fn no_plan_moves_more_leaders_than_the_policy_says() {
    let (map, seen) = cluster(3, &[1; 16]);
    for transfers in [0, 1, 4] {
        let policy = Policy {
            transfers,
            ..Policy::default()
        };
        assert_eq!(plan_leaders(&map, &seen, &policy).len(), transfers);
    }
}

/// The first transfer of a plan, as what goes where.
fn first(map: &ClusterMap, seen: &Observed) -> Option<(u32, u64, u64)> {
    let plan = plan_leaders(map, seen, &Policy::default());
    plan.first()
        .map(|step| (step.partition.0, step.from.0, step.to.0))
}

#[test]
fn a_forbidden_node_is_relieved_before_anything_is_evened_out() {
    for leaders in [&[2, 2, 2, 2, 2, 2, 1, 3][..], &[2, 1], &[2, 2, 2, 2, 2, 2, 1]] {
        let (map, mut seen) = cluster(3, leaders);
        seen.avoid_leaders.insert(NodeId(1));
        let moved = first(&map, &seen).expect("there is something to move");
        assert_eq!(moved.1, 1, "{leaders:?}: {moved:?}");
    }
}

#[test]
fn several_forbidden_nodes_lose_all() {
    check(4, &[1, 1, 2, 3], &[1, 2], &[0, 0, 2, 2]);
}

#[test]
fn the_transfer_that_evens_out_most_comes_first() {
    // Partition 0 can go from five leaders to three, partition 8 from four to none.
    let (mut map, mut seen) = cluster(4, &[1, 1, 1, 1, 1, 3, 3, 3, 2, 2, 2, 2]);
    let on = |replica: &Replica, nodes: &[u64]| nodes.contains(&replica.node);
    for partition in &mut map.partitions {
        let nodes: &[u64] = match partition.id {
            0 => &[1, 3],
            8 => &[2, 4],
            1..5 => &[1],
            5..8 => &[3],
            _ => &[2],
        };
        partition.replicas.retain(|replica| on(replica, nodes));
    }
    assert_eq!(first(&map, &seen), Some((8, 2, 4)));
    // Whichever comes first in the map.
    map.partitions.swap(0, 8);
    assert_eq!(first(&map, &seen), Some((8, 2, 4)));
    // With nobody to take it, the smaller step is made.
    seen.alive.remove(&NodeId(4));
    assert_eq!(first(&map, &seen), Some((0, 1, 3)));
}
