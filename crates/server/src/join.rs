//! Admission of new nodes: asking for it, and granting it. The answer of the state machine decides; this passes it on.

use std::sync::Arc;
use std::time::Duration;

use env::{Connector, Net};
use machine::outcome::{Done, RefusalKind};
use machine::record::meta::{AddReplica, Change, Node, NodeState, RemoveReplica};
use proto::peer::peer_client::PeerClient;
use proto::peer::{JoinReply, JoinRequest, PeerAddress};
use tonic::{Code, Status};
use types::{NodeId, PartitionId};

use crate::core::{Core, ServerError, meta_command};

/// Format of join messages.
pub const FORMAT: u32 = 1;
/// How long one address may take to answer.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a connection may take.
const CONNECTING: Duration = Duration::from_secs(2);
/// Between rounds over all addresses.
const PAUSE: Duration = Duration::from_millis(300);

/// Why a node was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The cluster says no, and will say so again.
    #[error("the cluster refused to admit this node: {0}")]
    Refused(String),
    /// A node of another cluster answered.
    #[error("{address} belongs to cluster {found}, not {wanted}")]
    OtherCluster {
        /// Who answered.
        address: String,
        /// Its cluster.
        found: types::ClusterId,
        /// As configured.
        wanted: types::ClusterId,
    },
}

/// Admits a node, through whoever leads the meta partition.
pub async fn admit(core: &Core, request: JoinRequest) -> Result<JoinReply, Status> {
    if request.format != FORMAT {
        return Err(Status::failed_precondition(format!(
            "join format {} is not understood here, {FORMAT} is: use the same version of holdfast",
            request.format
        )));
    }
    if request.cluster_id != 0 && request.cluster_id != core.cluster_id().0 {
        return Err(Status::failed_precondition(format!(
            "this is cluster {}",
            core.cluster_id()
        )));
    }
    if core.map().cluster.is_none() {
        return Err(Status::unavailable(
            "the cluster is not founded yet, or this node has not received its map",
        ));
    }
    let node = Node {
        id: request.node_id,
        incarnation: request.incarnation,
        peer_address: request.peer_address,
        client_address: request.client_address,
        http_address: request.http_address,
        name: request.name,
        version: request.version,
        state: NodeState::Active as i32,
        boots: 0,
    };
    let command = meta_command(Change::AdmitNode(node));
    let proposed = core
        .propose(PartitionId::META, command)
        .await
        .map_err(|error| status(&error))?;
    let Some(Done::Allocated(allocated)) = proposed.reply.done else {
        return Err(Status::internal("the meta partition did not allocate a node id"));
    };
    core.refresh_map().map_err(|error| status(&error))?;
    let node = NodeId(allocated.id);
    if request.meta_lost {
        let lost = request.meta_replica_lost;
        replace_meta(core, node, lost)
            .await
            .map_err(|error| passing(&error))?;
    }
    reply(core, node)
}

/// Gives a node that lost its replica of the meta partition another one, under a new id; if it has one already that is
/// not the lost one (0: it does not know), that.
async fn replace_meta(core: &Core, node: NodeId, lost: u64) -> Result<(), ServerError> {
    let meta = |core: &Core| {
        let map = core.map();
        let found = map
            .partitions
            .iter()
            .find(|partition| partition.id == PartitionId::META.0)
            .cloned();
        found.ok_or(ServerError::UnknownPartition {
            partition: PartitionId::META,
        })
    };
    let partition = meta(core)?;
    let held = partition.replicas.iter().find(|replica| replica.node == node.0);
    if let Some(lost) = held.filter(|held| lost == 0 || held.id == lost) {
        tracing::warn!(%node, replica = lost.id, "replacing a lost replica of the meta partition");
        let remove = RemoveReplica {
            partition: 0,
            generation: partition.generation,
            replica: lost.id,
        };
        core.propose(PartitionId::META, meta_command(Change::RemoveReplica(remove)))
            .await?;
        core.refresh_map()?;
    }
    let partition = meta(core)?;
    if !partition.replicas.iter().any(|replica| replica.node == node.0) {
        let add = AddReplica {
            partition: 0,
            generation: partition.generation,
            node: node.0,
            voter: false,
        };
        core.propose(PartitionId::META, meta_command(Change::AddReplica(add)))
            .await?;
        core.refresh_map()?;
    }
    Ok(())
}

fn reply(core: &Core, node: NodeId) -> Result<JoinReply, Status> {
    let map = core.map();
    let meta = map
        .partitions
        .iter()
        .find(|partition| partition.id == PartitionId::META.0);
    let replica = meta.and_then(|partition| partition.replicas.iter().find(|replica| replica.node == node.0));
    let Some(replica) = replica else {
        return Err(Status::unavailable(format!(
            "node {node} has no replica of the meta partition yet"
        )));
    };
    let peers = map
        .nodes
        .iter()
        .filter(|peer| peer.state != NodeState::Removed as i32 && peer.id != node.0)
        .map(|peer| PeerAddress {
            node: peer.id,
            address: peer.peer_address.clone(),
        })
        .collect();
    Ok(JoinReply {
        cluster_id: core.cluster_id().0,
        node_id: node.0,
        peers,
        meta_replica: replica.id,
    })
}

/// The map changed in between: the same question a little later finds it as it is then.
fn passing(error: &ServerError) -> Status {
    match error {
        ServerError::Refused(refusal)
            if matches!(refusal.kind(), RefusalKind::Stale | RefusalKind::AlreadyExists) =>
        {
            Status::unavailable(refusal.text.clone())
        }
        other => status(other),
    }
}

fn status(error: &ServerError) -> Status {
    match error {
        ServerError::Refused(refusal) if refusal.kind() == RefusalKind::AlreadyExists => {
            Status::already_exists(refusal.text.clone())
        }
        ServerError::Refused(refusal) => Status::failed_precondition(refusal.text.clone()),
        other => Status::unavailable(other.to_string()),
    }
}

/// Asks each address in turn until one admits this node. Ends only with an answer.
pub async fn ask(
    net: &Arc<dyn Net>,
    addresses: &[String],
    request: &JoinRequest,
) -> Result<JoinReply, JoinError> {
    loop {
        for address in addresses {
            match ask_one(net, address, request.clone()).await {
                Ok(reply) if request.cluster_id != 0 && reply.cluster_id != request.cluster_id => {
                    return Err(JoinError::OtherCluster {
                        address: address.clone(),
                        found: types::ClusterId(reply.cluster_id),
                        wanted: types::ClusterId(request.cluster_id),
                    });
                }
                Ok(reply) => return Ok(reply),
                Err(refused) if matches!(refused.code(), Code::FailedPrecondition | Code::AlreadyExists) => {
                    return Err(JoinError::Refused(format!("{address}: {}", refused.message())));
                }
                Err(error) => tracing::info!(address, error = error.message(), "not admitted yet"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask_one(net: &Arc<dyn Net>, address: &str, request: JoinRequest) -> Result<JoinReply, Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Status::invalid_argument(error.to_string()))?
        .timeout(PATIENCE);
    let channel = endpoint
        .connect_with_connector(Connector::new(net.clone(), CONNECTING))
        .await
        .map_err(|error| Status::unavailable(format!("cannot connect: {error}")))?;
    Ok(PeerClient::new(channel).join(request).await?.into_inner())
}
