//! Every call of `holdfast.v1.Cluster`, one function each.

use crate::error::Error;
use crate::stream::{MapStream, ProgressStream, Task};
use crate::{Client, v1};
use proto::v1::cluster_client::ClusterClient;
use tonic::transport::Channel;
use types::{NodeId, PartitionId, ReplicaId};

pub(crate) type Stub = ClusterClient<Channel>;

/// What [`Client::put_namespace`] is to create or change. Zeroes stand for the cluster's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewNamespace {
    /// Its name.
    pub name: String,
    /// Bytes of keys and values it may hold.
    pub quota_bytes: u64,
    /// Revisions kept before automatic compaction.
    pub retain_revisions: i64,
    /// Milliseconds of history kept before automatic compaction.
    pub retain_ms: u64,
    /// Refuse if it exists.
    pub create_only: bool,
}

impl NewNamespace {
    /// One with default settings.
    pub fn named(name: impl Into<String>) -> NewNamespace {
        NewNamespace {
            name: name.into(),
            ..NewNamespace::default()
        }
    }
}

/// Sends a read, with retries.
macro_rules! read {
    ($client:ident, $name:literal, $method:ident, $message:expr) => {{
        let plan = $client.plan($name);
        let send = |mut stub: Stub, request| async move { stub.$method(request).await };
        $client.unary(plan, $message, send).await
    }};
}

/// Sends a write under the client's session: `$message` is a closure from the session field to the request.
macro_rules! write {
    ($client:ident, $name:literal, $method:ident, $message:expr) => {{
        let turn = $client.turn().await?;
        let plan = $client.plan($name);
        let send = |mut stub: Stub, request| async move { stub.$method(request).await };
        let outcome = $client.unary(plan, ($message)(turn.session()), send).await;
        turn.finish(outcome)
    }};
}

impl Client {
    /// The cluster at a glance, as the node that answers sees it.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        read!(self, "Status", status, v1::StatusRequest {})
    }

    /// All nodes, with what the answering node's failure detector thinks of them.
    pub async fn nodes(&self) -> Result<Vec<v1::Node>, Error> {
        let answer = read!(self, "ListNodes", list_nodes, v1::ListNodesRequest {})?;
        Ok(answer.nodes)
    }

    /// The named partitions, or all if none is named.
    pub async fn partitions(&self, which: &[PartitionId]) -> Result<Vec<v1::Partition>, Error> {
        let partitions: Vec<u32> = which.iter().map(|id| id.0).collect();
        let message = v1::ListPartitionsRequest { partitions };
        let answer = read!(self, "ListPartitions", list_partitions, message)?;
        Ok(answer.partitions)
    }

    /// The cluster map: nodes, partitions, slots, namespaces, under one revision.
    pub async fn map(&self) -> Result<v1::Map, Error> {
        read!(self, "GetMap", get_map, v1::GetMapRequest {})
    }

    /// The map now, then again after each change, for as long as it is polled. Reconnects by itself and never goes
    /// back in revision.
    pub fn watch_map(&self) -> MapStream {
        MapStream::new(self.clone())
    }

    /// Moves a partition's leader to a node that has an up-to-date voter. Answers with the leader afterwards.
    pub async fn transfer_leader(&self, partition: PartitionId, node: NodeId) -> Result<NodeId, Error> {
        let answer = write!(self, "TransferLeader", transfer_leader, |session| {
            v1::TransferLeaderRequest {
                partition: partition.0,
                node: node.0,
                session,
            }
        })?;
        Ok(NodeId(answer.leader_node))
    }

    /// Spreads leaders evenly now, or only says how. Doing it twice changes nothing more, so it needs no session.
    pub async fn balance(&self, dry_run: bool) -> Result<v1::BalanceResponse, Error> {
        read!(self, "Balance", balance, v1::BalanceRequest { dry_run })
    }

    /// Holds the balancer and the placement of replicas still, or lets them go on. Answers with the map revision.
    pub async fn set_frozen(&self, frozen: bool) -> Result<u64, Error> {
        let answer = write!(self, "SetFrozen", set_frozen, |session| v1::SetFrozenRequest {
            frozen,
            session
        })?;
        Ok(answer.map_revision)
    }

    /// Adds a replica of a partition on a node, as voter or as learner. Answers once it is in the map; catching up
    /// goes on after that.
    pub async fn add_replica(
        &self,
        partition: PartitionId,
        node: NodeId,
        voter: bool,
    ) -> Result<v1::AddReplicaResponse, Error> {
        write!(self, "AddReplica", add_replica, |session| v1::AddReplicaRequest {
            partition: partition.0,
            node: node.0,
            voter,
            session
        })
    }

    /// Makes a learner a voter, once it has caught up. Answers with the partition's generation.
    pub async fn promote_replica(&self, partition: PartitionId, replica: ReplicaId) -> Result<u64, Error> {
        let answer = write!(self, "PromoteReplica", promote_replica, |session| {
            v1::ReplicaRequest {
                partition: partition.0,
                replica: replica.0,
                session,
            }
        })?;
        Ok(answer.generation)
    }

    /// Takes a replica away. Answers with the partition's generation.
    pub async fn remove_replica(&self, partition: PartitionId, replica: ReplicaId) -> Result<u64, Error> {
        let answer = write!(self, "RemoveReplica", remove_replica, |session| {
            v1::ReplicaRequest {
                partition: partition.0,
                replica: replica.0,
                session,
            }
        })?;
        Ok(answer.generation)
    }

    /// Moves a partition's replica from one node to another, data and all, while it serves. Progress is streamed;
    /// the move is done when the stream ends without an error, and goes on if nobody reads it.
    pub async fn move_replica(
        &self,
        partition: PartitionId,
        from: NodeId,
        to: NodeId,
    ) -> Result<ProgressStream, Error> {
        let session = self.lone_session().await?;
        let request = v1::MoveReplicaRequest {
            partition: partition.0,
            from_node: from.0,
            to_node: to.0,
            session,
        };
        ProgressStream::start(self.clone(), Task::Move(request)).await
    }

    /// Empties a node: leaders first, then replicas, while they serve. Streams progress like
    /// [`Client::move_replica`].
    pub async fn drain_node(&self, node: NodeId) -> Result<ProgressStream, Error> {
        let session = self.lone_session().await?;
        ProgressStream::start(
            self.clone(),
            Task::Drain(v1::NodeRequest {
                node: node.0,
                session,
            }),
        )
        .await
    }

    /// Lets a drained node take replicas and leaders again. Answers with the map revision.
    pub async fn undrain_node(&self, node: NodeId) -> Result<u64, Error> {
        let answer = write!(self, "UndrainNode", undrain_node, |session| v1::NodeRequest {
            node: node.0,
            session
        })?;
        Ok(answer.map_revision)
    }

    /// Forgets a drained node for ever; its id is never used again. Answers with the map revision.
    pub async fn remove_node(&self, node: NodeId) -> Result<u64, Error> {
        let answer = write!(self, "RemoveNode", remove_node, |session| v1::NodeRequest {
            node: node.0,
            session
        })?;
        Ok(answer.map_revision)
    }

    /// All namespaces, with their revisions and sizes.
    pub async fn namespaces(&self) -> Result<Vec<v1::Namespace>, Error> {
        let answer = read!(
            self,
            "ListNamespaces",
            list_namespaces,
            v1::ListNamespacesRequest {}
        )?;
        Ok(answer.namespaces)
    }

    /// Creates a namespace, or changes its settings.
    pub async fn put_namespace(&self, new: NewNamespace) -> Result<v1::Namespace, Error> {
        let answer = write!(self, "PutNamespace", put_namespace, |session| {
            v1::PutNamespaceRequest {
                name: new.name.clone(),
                quota_bytes: new.quota_bytes,
                retain_revisions: new.retain_revisions,
                retain_ms: new.retain_ms,
                session,
                create_only: new.create_only,
            }
        })?;
        Ok(answer.namespace.unwrap_or_default())
    }

    /// The state hash of each replica of a partition at one log index; they must be equal.
    pub async fn check_consistency(
        &self,
        partition: PartitionId,
    ) -> Result<v1::CheckConsistencyResponse, Error> {
        let message = v1::CheckConsistencyRequest {
            partition: partition.0,
        };
        read!(self, "CheckConsistency", check_consistency, message)
    }
}
