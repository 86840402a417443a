//! The cluster's own records, in partition 0: nodes, partitions, namespaces, policy, allocators; and the commands
//! that change them.

mod read;

use crate::command::NamespaceSettings;

pub use read::{cluster, namespace, namespaces, node, nodes, partition, partitions, read};

/// A node of the cluster.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub incarnation: u64,
    /// `host:port` that peers dial.
    #[prost(string, tag = "3")]
    pub peer_address: String,
    /// `host:port` that clients dial.
    #[prost(string, tag = "4")]
    pub client_address: String,
    /// `host:port` of metrics and health.
    #[prost(string, tag = "5")]
    pub http_address: String,
    #[prost(enumeration = "NodeState", tag = "6")]
    pub state: i32,
    /// Highest [`types::epoch::CLUSTER_VERSION`] the node understands.
    #[prost(uint32, tag = "7")]
    pub version: u32,
    /// Process starts seen, so that an old copy of its directory is recognised.
    #[prost(uint64, tag = "8")]
    pub boots: u64,
    #[prost(string, tag = "9")]
    pub name: String,
}

/// What the cluster wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum NodeState {
    /// Takes replicas and leaders.
    Active = 0,
    /// Its replicas are being moved away.
    Draining = 1,
    /// Gone for good; its id is never reused.
    Removed = 2,
}

/// A partition and where it should be.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Partition {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Raised by each change of `replicas`; a plan names the one it was made from.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// Wanted replicas. The partition's leader moves the Raft membership towards them.
    #[prost(message, repeated, tag = "3")]
    pub replicas: Vec<Replica>,
}

/// One wanted replica.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Replica {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub node: u64,
    /// Votes, or only follows.
    #[prost(bool, tag = "3")]
    pub voter: bool,
    /// The one replica that begins the group alone, at the partition's creation.
    #[prost(bool, tag = "4")]
    pub founder: bool,
    /// The replica of this partition that goes once this one has caught up; 0 for none.
    #[prost(uint64, tag = "5")]
    pub replaces: u64,
}

impl Partition {
    /// The replica that takes the place of `replica`, which is thereby leaving.
    pub fn heir(&self, replica: u64) -> Option<&Replica> {
        self.replicas.iter().find(|other| other.replaces == replica)
    }

    /// Whether a replica is being moved.
    pub fn is_moving(&self) -> bool {
        self.replicas.iter().any(|replica| replica.replaces != 0)
    }
}

/// A namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespace {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub settings: Option<NamespaceSettings>,
    #[prost(uint64, tag = "4")]
    pub generation: u64,
}

impl Namespace {
    /// The settings as the partition that holds the keys is told them: with their generation.
    pub fn configuration(&self) -> NamespaceSettings {
        NamespaceSettings {
            generation: self.generation,
            ..self.settings.unwrap_or_default()
        }
    }
}

/// The cluster: one record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Cluster {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Format every node understands.
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(uint64, tag = "3")]
    pub restore_epoch: u64,
    /// Revision of the map: raised by every meta command that changed something.
    #[prost(uint64, tag = "4")]
    pub map_revision: u64,
    #[prost(uint64, tag = "5")]
    pub next_node: u64,
    #[prost(uint64, tag = "6")]
    pub next_replica: u64,
    #[prost(uint32, tag = "7")]
    pub next_namespace: u32,
    /// Partitions that slots are spread over: slot `s` is in partition `1 + s * partitions / 4096`.
    #[prost(uint32, tag = "8")]
    pub partitions: u32,
    /// The balancer changes nothing while set.
    #[prost(bool, tag = "9")]
    pub frozen: bool,
}

/// A change of the cluster's records.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetaCommand {
    #[prost(oneof = "Change", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13")]
    pub change: Option<Change>,
}

/// Closed list. Where a change names a `generation`, it is that of the record a plan was made from; 0 is a person's
/// wish, which holds at whatever generation it meets.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Change {
    /// First command of a cluster: the cluster record, its first node (id 1), partitions `0..=n` founded there,
    /// and namespace `default`. Refused with `AlreadyExists` if there is a cluster record.
    #[prost(message, tag = "1")]
    Bootstrap(Bootstrap),
    /// Admit a node: allocates its id (reply `Allocated`) unless one is asked for; a known incarnation gets its
    /// id again. An id taken by another incarnation, or removed, is refused (`AlreadyExists` / `Stale`).
    /// Also gives the node a learner replica of partition 0.
    #[prost(message, tag = "2")]
    AdmitNode(Node),
    /// A known node started: addresses, version, boots. Fewer boots than known: `Stale`.
    #[prost(message, tag = "3")]
    NodeStarted(Node),
    /// Active or draining.
    #[prost(message, tag = "4")]
    SetNodeState(SetNodeState),
    /// Forget a node that holds no replica any more (else refused `Stale`), for ever.
    #[prost(message, tag = "5")]
    RemoveNode(NodeRef),
    /// Add a replica (id allocated, reply `Allocated`), if `generation` matches.
    #[prost(message, tag = "6")]
    AddReplica(AddReplica),
    /// Remove a replica from the wanted ones, if `generation` matches. The last voter cannot be removed. What was to
    /// take its place takes over what it was to replace.
    #[prost(message, tag = "7")]
    RemoveReplica(RemoveReplica),
    /// Vote or only follow, if `generation` matches.
    #[prost(message, tag = "8")]
    SetVoter(SetVoter),
    /// Create (id 0; reply `Allocated`) or change a namespace.
    #[prost(message, tag = "9")]
    PutNamespace(Namespace),
    /// Freeze or thaw the balancer.
    #[prost(message, tag = "10")]
    SetFrozen(SetFrozen),
    /// Raise the cluster's version: from then on commands of that version may be logged, and no node that does not
    /// understand it is admitted. Refused (`Stale`) while a node does not.
    #[prost(message, tag = "11")]
    RaiseVersion(RaiseVersion),
    /// Want a replica on one node in place of the one on another, which goes once the new one has caught up. Told
    /// again while that lasts or afterwards, it changes nothing. Reply `Allocated`: the replica on the target.
    #[prost(message, tag = "12")]
    MoveReplica(MoveReplica),
    /// Changes nothing. Sent under a session before something that is no command, so that it is begun once: the reply
    /// `Allocated` carries the token of the first time.
    #[prost(message, tag = "13")]
    Begin(Begin),
}

/// See [`Change::RaiseVersion`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaiseVersion {
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

/// See [`Change::Bootstrap`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bootstrap {
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    #[prost(uint32, tag = "2")]
    pub partitions: u32,
    #[prost(message, optional, tag = "3")]
    pub node: Option<Node>,
    #[prost(uint32, tag = "4")]
    pub version: u32,
}

/// See [`Change::SetNodeState`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetNodeState {
    #[prost(uint64, tag = "1")]
    pub node: u64,
    #[prost(enumeration = "NodeState", tag = "2")]
    pub state: i32,
}

/// A node by id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeRef {
    #[prost(uint64, tag = "1")]
    pub node: u64,
}

/// See [`Change::AddReplica`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct AddReplica {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    #[prost(uint64, tag = "3")]
    pub node: u64,
    #[prost(bool, tag = "4")]
    pub voter: bool,
}

/// See [`Change::RemoveReplica`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct RemoveReplica {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    #[prost(uint64, tag = "3")]
    pub replica: u64,
}

/// See [`Change::SetVoter`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetVoter {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    #[prost(uint64, tag = "3")]
    pub replica: u64,
    #[prost(bool, tag = "4")]
    pub voter: bool,
}

/// See [`Change::SetFrozen`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetFrozen {
    #[prost(bool, tag = "1")]
    pub frozen: bool,
}

/// See [`Change::MoveReplica`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct MoveReplica {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// The node that gives its replica up.
    #[prost(uint64, tag = "3")]
    pub from: u64,
    /// The node that is to hold one. It may hold one already.
    #[prost(uint64, tag = "4")]
    pub to: u64,
}

/// See [`Change::Begin`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Begin {
    #[prost(uint64, tag = "1")]
    pub token: u64,
}

/// Everything partition 0 says about the cluster, read in one go by `record::meta` readers.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct ClusterMap {
    /// `None` before bootstrap.
    pub cluster: Option<Cluster>,
    /// Ascending by id; removed ones included.
    pub nodes: Vec<Node>,
    /// Ascending by id, the meta partition first.
    pub partitions: Vec<Partition>,
    /// Ascending by name.
    pub namespaces: Vec<Namespace>,
}
