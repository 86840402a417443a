//! Newtypes for every identifier, so that a node can never be passed where a replica is meant.

use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

id!(
    /// A controller process and its data directory. Never reused within a cluster; starts at 1.
    NodeId(u64)
);
id!(
    /// One Raft group. Partition 0 is the *meta* partition.
    PartitionId(u32)
);
id!(
    /// One copy of a partition on one node. Unique in the cluster, never reused: a replica that was wiped,
    /// damaged or moved comes back under a new id. This is the node id that Raft sees.
    ReplicaId(u64)
);
id!(
    /// A namespace's number, given once by the meta partition; names may be reused, numbers are not.
    NamespaceId(u32)
);
id!(
    /// One of [`SLOTS`] hash buckets that map to partitions.
    Slot(u16)
);
id!(
    /// A session of the native API: `client_id` + `seq` identify a write.
    ClientId(u64)
);

/// The cluster's random id, given once at bootstrap. Shown in hexadecimal, as etcd does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(ClusterId)
    }
}

/// How many slots the hash space has. Fixed for the life of a cluster.
pub const SLOTS: u16 = 4096;

impl PartitionId {
    /// The partition that keeps nodes, the slot map, namespaces and policies.
    pub const META: PartitionId = PartitionId(0);
}

impl Slot {
    /// Records that belong to the partition itself and move with no slot.
    pub const PARTITION: Slot = Slot(u16::MAX);

    /// The slot of a namespace's key space. FNV-1a, since it must never change and is tiny.
    pub fn of_namespace(name: &str) -> Slot {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in name.as_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Slot(((hash ^ (hash >> 32)) % u64::from(SLOTS)) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_id_round_trips() {
        let id = ClusterId(0xabc);
        assert_eq!(id.to_string(), "0000000000000abc");
        assert_eq!(id.to_string().parse::<ClusterId>(), Ok(id));
    }

    #[test]
    fn slots_are_stable_and_in_range() {
        // Changing this number would lose every key of every cluster: the map is by slot.
        assert_eq!(Slot::of_namespace("default"), Slot::of_namespace("default"));
        for n in 0..10_000 {
            assert!(Slot::of_namespace(&format!("ns-{n}")).0 < SLOTS);
        }
    }
}
