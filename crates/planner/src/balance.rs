//! Which leaders should move so that every node leads about as many partitions as the others.
//!
//! Invariant: a transfer goes only to a caught-up voter on a live, active node that may lead, and each one brings
//! the counts closer together, or takes a leader off a node that should lead nothing (checked by the property tests).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use machine::record::meta::{ClusterMap, NodeState, Partition};
use types::{NodeId, PartitionId, ReplicaId};

use crate::input::{Observed, Policy};

/// Hand a partition's leadership over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// This one.
    pub partition: PartitionId,
    /// Led here now.
    pub from: NodeId,
    /// To be led there.
    pub to: NodeId,
    /// The replica that takes over.
    pub replica: ReplicaId,
    /// For people.
    pub reason: &'static str,
}

/// Transfers to do now, at most `policy.transfers`.
pub fn plan_leaders(map: &ClusterMap, seen: &Observed, policy: &Policy) -> Vec<Transfer> {
    let mut leaders: BTreeMap<PartitionId, NodeId> = BTreeMap::new();
    for (id, group) in &seen.partitions {
        if let Some(leader) = group.leader {
            leaders.insert(*id, leader);
        }
    }
    let mut load = allowed(map, seen);
    for leader in leaders.values() {
        if let Some(count) = load.get_mut(leader) {
            *count += 1;
        }
    }
    let mut plan = Vec::new();
    while plan.len() < policy.transfers {
        let Some(transfer) = best(map, seen, &leaders, &load) else {
            break;
        };
        if let Some(count) = load.get_mut(&transfer.from) {
            *count -= 1;
        }
        *load.entry(transfer.to).or_default() += 1;
        leaders.insert(transfer.partition, transfer.to);
        plan.push(transfer);
    }
    plan
}

/// Nodes that may lead, with zero each.
fn allowed(map: &ClusterMap, seen: &Observed) -> BTreeMap<NodeId, usize> {
    map.nodes
        .iter()
        .filter(|node| node.state == NodeState::Active as i32)
        .map(|node| NodeId(node.id))
        .filter(|node| seen.alive.contains(node) && !seen.avoid_leaders.contains(node))
        .map(|node| (node, 0))
        .collect()
}

/// The transfer that helps most: off a forbidden node first, then from the fullest to the emptiest.
fn best(
    map: &ClusterMap,
    seen: &Observed,
    leaders: &BTreeMap<PartitionId, NodeId>,
    load: &BTreeMap<NodeId, usize>,
) -> Option<Transfer> {
    let mut best: Option<(usize, Transfer)> = None;
    for partition in &map.partitions {
        let id = PartitionId(partition.id);
        let Some(from) = leaders.get(&id).copied() else {
            continue;
        };
        let Some((to, replica)) = target(partition, seen, from, load) else {
            continue;
        };
        let (gain, reason) = match load.get(&from) {
            None => (usize::MAX - load[&to], "its node should lead nothing"),
            Some(count) if *count >= load[&to] + 2 => (count - load[&to], "leads more than others"),
            Some(_) => continue,
        };
        if best.as_ref().is_none_or(|(least, _)| gain > *least) {
            best = Some((
                gain,
                Transfer {
                    partition: id,
                    from,
                    to,
                    replica,
                    reason,
                },
            ));
        }
    }
    best.map(|(_, transfer)| transfer)
}

fn target(
    partition: &Partition,
    seen: &Observed,
    from: NodeId,
    load: &BTreeMap<NodeId, usize>,
) -> Option<(NodeId, ReplicaId)> {
    let group = seen.partitions.get(&PartitionId(partition.id))?;
    partition
        .replicas
        .iter()
        .map(|replica| (NodeId(replica.node), ReplicaId(replica.id)))
        .filter(|(node, _)| *node != from && load.contains_key(node))
        .filter(|(_, replica)| group.voters.contains(replica) && group.caught_up.contains(replica))
        .min_by_key(|(node, _)| (load[node], *node))
}
