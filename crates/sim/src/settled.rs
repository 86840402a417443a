//! When a cluster is in order: every partition is led, has the replicas it should have, and they agree.

use std::collections::BTreeMap;

use machine::record::meta::NodeState;
use types::PartitionId;

use crate::world::World;

/// What is still missing, `None` if nothing is.
pub fn missing(world: &World) -> Option<String> {
    let wanted = world.plan.partitions as usize + 1;
    let replicas_each = (world.plan.nodes as usize).min(3);
    let mut leaders: BTreeMap<PartitionId, u64> = BTreeMap::new();
    let mut positions: BTreeMap<PartitionId, Vec<(u64, u64)>> = BTreeMap::new();
    for controller in &world.controllers {
        let Some(core) = controller.core() else {
            return Some(format!("{} is down or starting", controller.name));
        };
        let map = core.map();
        // Removed ones are remembered, so that nobody gets their ids.
        let nodes = map.nodes.iter();
        let nodes = nodes
            .filter(|node| node.state != NodeState::Removed as i32)
            .count();
        if nodes != world.controllers.len() {
            return Some(format!("{} knows of {nodes} nodes", controller.name));
        }
        if map.partitions.len() != wanted {
            return Some(format!(
                "{} knows of {} partitions",
                controller.name,
                map.partitions.len()
            ));
        }
        for replica in core.raft().replicas() {
            let status = replica.status();
            let partition = replica.partition();
            if status.is_leader {
                leaders.insert(partition, controller.id());
                let voting = status.voters.len();
                if status.is_joint || voting < replicas_each {
                    return Some(format!("partition {partition} has {voting} voters"));
                }
            }
            positions
                .entry(partition)
                .or_default()
                .push((controller.id(), status.applied));
        }
    }
    if leaders.len() < wanted {
        return Some(format!("{} of {wanted} partitions are led", leaders.len()));
    }
    let apart = positions
        .iter()
        .find(|(_, held)| held.iter().any(|(_, applied)| *applied != held[0].1));
    apart.map(|(partition, held)| format!("partition {partition} is applied up to (node, index) {held:?}"))
}
