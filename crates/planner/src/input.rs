//! What plans are made from, beside the cluster map.

use std::collections::{BTreeMap, BTreeSet};

use types::{NodeId, PartitionId, ReplicaId};

/// What was last seen of one partition's group, as told by its leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionSeen {
    /// The node that leads it.
    pub leader: Option<NodeId>,
    /// Replicas that vote, by the leader's membership.
    pub voters: BTreeSet<ReplicaId>,
    /// Replicas that only follow.
    pub learners: BTreeSet<ReplicaId>,
    /// Members whose log is close to the leader's end, and whose node answers and is not still starting.
    pub caught_up: BTreeSet<ReplicaId>,
}

/// What was seen of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Nodes that answer.
    pub alive: BTreeSet<NodeId>,
    /// Nodes that should lead nothing for now (disk nearly full or slow, stopping).
    pub avoid_leaders: BTreeSet<NodeId>,
    /// Nodes without room for another replica.
    pub full: BTreeSet<NodeId>,
    /// By partition; absent: nothing known.
    pub partitions: BTreeMap<PartitionId, PartitionSeen>,
    /// Replicas whose node says that they are damaged and gone: to be replaced under a new id.
    pub broken: BTreeSet<ReplicaId>,
    /// Partitions that may lose a surplus voter now: it was not put there by a person a moment ago.
    pub ripe: BTreeSet<PartitionId>,
}

/// Numbers that steer plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Voters wanted per partition, when there are nodes enough.
    pub replication_factor: usize,
    /// Partitions whose replicas may be changing at once.
    pub changes_in_flight: usize,
    /// Leaders moved by one plan.
    pub transfers: usize,
    /// Only repairs and drains; nothing is moved for balance, no surplus is dropped.
    pub frozen: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            replication_factor: types::limits::REPLICATION_FACTOR,
            changes_in_flight: 48,
            transfers: 16,
            frozen: false,
        }
    }
}
