//! Settings of key spaces live in the map. What a partition has not heard of is told again: whoever changed the map may
//! have died before it told the partition.

use std::collections::BTreeMap;

use machine::command::{Body, NamespaceSettings};
use machine::record::meta::ClusterMap;
use machine::record::{Space, kv};
use machine::{Command, View, ViewError};
use types::{NamespaceId, PartitionId, Slot};

use super::own;
use crate::core::partition_of;

/// Key spaces with the settings that the map has for them.
pub(super) type Configured = Vec<(Space, NamespaceSettings)>;

/// Those of each partition.
pub(super) fn by_partition(map: &ClusterMap) -> BTreeMap<PartitionId, Configured> {
    let partitions = map.cluster.as_ref().map_or(1, |cluster| cluster.partitions);
    let mut found: BTreeMap<PartitionId, Configured> = BTreeMap::new();
    for namespace in &map.namespaces {
        let slot = Slot::of_namespace(&namespace.name);
        let space = Space {
            slot,
            namespace: NamespaceId(namespace.id),
        };
        let configured = found.entry(partition_of(slot, partitions)).or_default();
        configured.push((space, namespace.configuration()));
    }
    found
}

/// One command per key space whose settings are older here.
pub(super) fn outdated(view: &dyn View, wanted: &Configured) -> Result<Vec<Command>, ViewError> {
    let mut commands = Vec::new();
    for (space, settings) in wanted {
        if kv::namespace(view, *space)?.is_outdated(settings) {
            commands.push(own(*space, Body::NamespaceConfigure(*settings)));
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use machine::record::meta::{Cluster, Namespace};
    use machine::{Batch, MemView, Stamp};

    use super::*;

    fn map(generation: u64, quota_bytes: u64) -> ClusterMap {
        let namespace = Namespace {
            id: 7,
            name: "team".into(),
            settings: Some(NamespaceSettings {
                quota_bytes,
                ..NamespaceSettings::default()
            }),
            generation,
        };
        ClusterMap {
            cluster: Some(Cluster {
                partitions: 4,
                ..Cluster::default()
            }),
            namespaces: vec![namespace],
            ..ClusterMap::default()
        }
    }

    #[test]
    fn a_partition_is_told_what_it_missed_once() {
        let home = partition_of(Slot::of_namespace("team"), 4);
        let mut view = MemView::default();
        let told = |view: &MemView, map: &ClusterMap| {
            let found = by_partition(map);
            assert_eq!(found.keys().collect::<Vec<_>>(), vec![&home]);
            outdated(view, &found[&home]).expect("memory never fails")
        };
        assert_eq!(told(&view, &map(1, 0)), vec![], "the defaults hold anyway");
        for (generation, quota_bytes) in [(1, 10), (2, 20), (3, 0)] {
            let map = map(generation, quota_bytes);
            let commands = told(&view, &map);
            assert_eq!(commands.len(), 1, "generation {generation}");
            let batch = Batch {
                commands,
                ..Batch::default()
            };
            let outcome = machine::apply(&view, Stamp::default(), &batch).expect("memory never fails");
            view.commit(&outcome.changes);
            assert_eq!(told(&view, &map), vec![]);
        }
        assert_eq!(told(&view, &map(2, 20)), vec![], "an older map");
    }
}
