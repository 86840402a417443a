//! The cluster's records: ids below their allocators, replicas on nodes that are there, a voter in each partition.

use std::collections::BTreeSet;

use super::Faults;
use crate::record::meta::{self, NodeState};
use crate::view::{View, ViewError};

pub(super) fn check(view: &dyn View, faults: &mut Faults) -> Result<(), ViewError> {
    let map = meta::read(view)?;
    let Some(cluster) = &map.cluster else {
        let empty = map.nodes.is_empty() && map.partitions.is_empty() && map.namespaces.is_empty();
        faults.unless(empty, || "there are cluster records, and no cluster".into());
        return Ok(());
    };
    let present: BTreeSet<u64> = map
        .nodes
        .iter()
        .filter(|node| node.state() != NodeState::Removed)
        .map(|node| node.id)
        .collect();
    for node in &map.nodes {
        faults.unless(node.id < cluster.next_node, || {
            format!("node {} is past its allocator", node.id)
        });
    }
    let incarnations: BTreeSet<u64> = map.nodes.iter().map(|node| node.incarnation).collect();
    faults.unless(incarnations.len() == map.nodes.len(), || {
        "two nodes share an incarnation".into()
    });
    faults.unless(map.partitions.len() == cluster.partitions as usize + 1, || {
        format!(
            "{} partitions are wanted, {} are there",
            cluster.partitions + 1,
            map.partitions.len()
        )
    });
    let mut replicas = BTreeSet::new();
    for partition in &map.partitions {
        let id = partition.id;
        faults.unless(partition.replicas.iter().any(|replica| replica.voter), || {
            format!("partition {id} has no voter")
        });
        moves(partition, faults);
        let mut nodes = BTreeSet::new();
        for replica in &partition.replicas {
            faults.unless(
                replica.id < cluster.next_replica && replicas.insert(replica.id),
                || {
                    format!(
                        "replica {} of partition {id} is not unique, or past its allocator",
                        replica.id
                    )
                },
            );
            faults.unless(
                present.contains(&replica.node) && nodes.insert(replica.node),
                || {
                    format!(
                        "replica {} of partition {id} is on node {}",
                        replica.id, replica.node
                    )
                },
            );
        }
    }
    namespaces(&map, cluster, faults);
    Ok(())
}

/// Who is replaced is there, by one heir; and who replaces is replaced by another only, so that a chain has an end.
fn moves(partition: &meta::Partition, faults: &mut Faults) {
    let mut replaced = BTreeSet::new();
    for heir in partition.replicas.iter().filter(|replica| replica.replaces != 0) {
        let there = partition.replicas.iter().any(|other| other.id == heir.replaces);
        faults.unless(there && replaced.insert(heir.replaces), || {
            format!("replica {} replaces {}, gone or taken", heir.id, heir.replaces)
        });
    }
    let mut left = replaced.clone();
    for end in partition
        .replicas
        .iter()
        .filter(|replica| !replaced.contains(&replica.id))
    {
        let mut next = end.replaces;
        let leaving = |id: u64| partition.replicas.iter().find(|other| other.id == id);
        while let Some(leaving) = leaving(next).filter(|leaving| left.remove(&leaving.id)) {
            next = leaving.replaces;
        }
    }
    faults.unless(left.is_empty(), || {
        format!("in partition {} nobody stays in place of {left:?}", partition.id)
    });
}

fn namespaces(map: &meta::ClusterMap, cluster: &meta::Cluster, faults: &mut Faults) {
    let names: BTreeSet<&str> = map
        .namespaces
        .iter()
        .map(|namespace| namespace.name.as_str())
        .collect();
    faults.unless(names.len() == map.namespaces.len(), || {
        "two namespaces share a name".into()
    });
    for namespace in &map.namespaces {
        faults.unless(namespace.id < cluster.next_namespace, || {
            format!("namespace {} is past its allocator", namespace.name)
        });
    }
}
