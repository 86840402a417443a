//! Names of key spaces, and where slots are.

use std::collections::BTreeMap;
use std::sync::Arc;

use machine::Command;
use machine::command::Body;
use machine::record::meta::{Change, ClusterMap, MetaCommand};
use types::{NamespaceId, PartitionId, Slot};

use super::KeySpace;

/// The map, with the namespaces made findable.
#[derive(Default)]
pub(super) struct Names {
    pub(super) map: Arc<ClusterMap>,
    pub(super) spaces: BTreeMap<Arc<str>, KeySpace>,
}

impl Names {
    pub(super) fn new(map: ClusterMap) -> Names {
        let partitions = map.cluster.as_ref().map_or(1, |cluster| cluster.partitions);
        let spaces = map.namespaces.iter().map(|namespace| {
            let name: Arc<str> = namespace.name.as_str().into();
            let slot = Slot::of_namespace(&name);
            let partition = partition_of(slot, partitions);
            (
                name.clone(),
                KeySpace {
                    id: NamespaceId(namespace.id),
                    slot,
                    partition,
                    name,
                },
            )
        });
        Names {
            spaces: spaces.collect(),
            map: Arc::new(map),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.map
            .cluster
            .as_ref()
            .map_or(0, |cluster| cluster.map_revision)
    }
}

/// The partition that holds a slot, of `partitions` beside the meta partition.
pub fn partition_of(slot: Slot, partitions: u32) -> PartitionId {
    PartitionId(1 + u32::from(slot.0) * partitions.max(1) / u32::from(types::id::SLOTS))
}

/// A change of the cluster's records, without a session.
pub fn meta_command(change: Change) -> Command {
    Command {
        principal: "root".to_owned(),
        slot: u32::from(Slot::PARTITION.0),
        body: Some(Body::Meta(MetaCommand { change: Some(change) })),
        ..Command::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_spread_over_all_partitions_in_order() {
        for partitions in [1, 3, 16, 256, 1024] {
            let of = |slot| partition_of(Slot(slot), partitions).0;
            assert_eq!((of(0), of(4095)), (1, partitions));
            for slot in 1..4096 {
                assert!(
                    of(slot) == of(slot - 1) || of(slot) == of(slot - 1) + 1,
                    "{partitions}: slot {slot}"
                );
            }
        }
    }

    #[test]
    fn names_lead_to_their_partition() {
        let cluster = machine::record::meta::Cluster {
            partitions: 16,
            map_revision: 3,
            ..Default::default()
        };
        let namespace = machine::record::meta::Namespace {
            id: 1,
            name: "default".into(),
            ..Default::default()
        };
        let names = Names::new(ClusterMap {
            cluster: Some(cluster),
            namespaces: vec![namespace],
            ..Default::default()
        });
        let space = &names.spaces["default"];
        assert_eq!(space.partition, partition_of(Slot::of_namespace("default"), 16));
        assert_eq!((names.revision(), space.id), (3, NamespaceId(1)));
    }
}
