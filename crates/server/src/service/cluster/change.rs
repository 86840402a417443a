//! Single changes: one command, or one transfer, one answer. What a command answers comes from its reply, which is
//! the first one also when the command is sent again.

use std::time::Duration;

use machine::Command;
use machine::command::{Body, SessionOpen};
use machine::outcome::{Refusal, RefusalKind};
use machine::record::Space;
use machine::record::meta::{
    AddReplica, Change, NodeRef, NodeState, Partition, RemoveReplica, SetFrozen, SetNodeState, SetVoter,
};
use proto::v1;
use tokio::time::Instant;
use types::{NodeId, PartitionId};

use super::{Native, allocated};
use crate::core::{Core, ServerError};
use crate::reconcile::{LeaderMove, balance_once, observed};

/// The generation of what people ask for: they name a node or a replica, and mean it whatever else has changed.
pub(super) const ANY: u64 = 0;
/// How long a transfer that was begun before is waited for.
const TRANSFERRED: Duration = Duration::from_secs(2);
/// Between looks at it.
const LOOK: Duration = Duration::from_millis(100);

/// See `Cluster.OpenSession`.
pub(super) async fn open_session(core: &Core) -> Result<v1::OpenSessionResponse, ServerError> {
    let client_id = core.random_id();
    let command = Command {
        client_id,
        slot: u32::from(Space::PARTITION.slot.0),
        body: Some(Body::SessionOpen(SessionOpen {})),
        ..Command::default()
    };
    core.propose(PartitionId::META, command).await?;
    Ok(v1::OpenSessionResponse {
        client_id,
        ttl_ms: types::limits::SESSION_TTL_MS,
    })
}

/// See `Cluster.TransferLeader`. Asked again under its session, it moves nothing: it waits for what was begun, and
/// tells who leads.
pub(super) async fn transfer(
    native: &Native,
    request: v1::TransferLeaderRequest,
) -> Result<v1::TransferLeaderResponse, ServerError> {
    let (partition, node) = (PartitionId(request.partition), NodeId(request.node));
    let leader = if native.begins(request.session).await? {
        native.core.transfer_leader(partition, node).await?;
        Some(node)
    } else {
        transferred(&native.core, partition, node).await
    };
    Ok(v1::TransferLeaderResponse {
        leader_node: leader.map_or(0, |leader| leader.0),
    })
}

/// The leader, once it is `wanted`, or else the one there is after a while.
async fn transferred(core: &Core, partition: PartitionId, wanted: NodeId) -> Option<NodeId> {
    let deadline = Instant::now() + TRANSFERRED;
    loop {
        let seen = observed(&core.gather(&[partition.0], false).await);
        let leader = seen.partitions.get(&partition).and_then(|group| group.leader);
        if leader == Some(wanted) || Instant::now() >= deadline {
            return leader;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// See `Cluster.Balance`.
pub(super) async fn balance(core: &Core, dry_run: bool) -> v1::BalanceResponse {
    let frozen = core.map().cluster.as_ref().is_some_and(|cluster| cluster.frozen);
    let moves = balance_once(core, dry_run || frozen).await;
    let describe = |LeaderMove { transfer, done }: LeaderMove| v1::Move {
        partition: transfer.partition.0,
        from_node: transfer.from.0,
        to_node: transfer.to.0,
        reason: transfer.reason.to_owned(),
        done: matches!(done, Some(Ok(()))),
        error: match done {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => String::new(),
        },
    };
    v1::BalanceResponse {
        moves: moves.into_iter().map(describe).collect(),
        frozen,
    }
}

/// See `Cluster.SetFrozen`.
pub(super) async fn set_frozen(
    native: &Native,
    request: v1::SetFrozenRequest,
) -> Result<v1::SetFrozenResponse, ServerError> {
    let frozen = SetFrozen {
        frozen: request.frozen,
    };
    let reply = native.change(Change::SetFrozen(frozen), request.session).await?;
    Ok(v1::SetFrozenResponse {
        map_revision: reply.revision as u64,
    })
}

/// See `Cluster.AddReplica`.
pub(super) async fn add_replica(
    native: &Native,
    request: v1::AddReplicaRequest,
) -> Result<v1::AddReplicaResponse, ServerError> {
    let add = AddReplica {
        partition: request.partition,
        generation: ANY,
        node: request.node,
        voter: request.voter,
    };
    let added = allocated(native.change(Change::AddReplica(add), request.session).await?)?;
    Ok(v1::AddReplicaResponse {
        replica: added.id,
        generation: added.generation,
    })
}

async fn change_replica(
    native: &Native,
    change: Change,
    session: Option<v1::Session>,
) -> Result<v1::ReplicaResponse, ServerError> {
    let done = allocated(native.change(change, session).await?)?;
    Ok(v1::ReplicaResponse {
        generation: done.generation,
    })
}

/// See `Cluster.PromoteReplica`.
pub(super) async fn promote(
    native: &Native,
    request: v1::ReplicaRequest,
) -> Result<v1::ReplicaResponse, ServerError> {
    let promote = SetVoter {
        partition: request.partition,
        generation: ANY,
        replica: request.replica,
        voter: true,
    };
    change_replica(native, Change::SetVoter(promote), request.session).await
}

/// See `Cluster.RemoveReplica`.
pub(super) async fn remove_replica(
    native: &Native,
    request: v1::ReplicaRequest,
) -> Result<v1::ReplicaResponse, ServerError> {
    let remove = RemoveReplica {
        partition: request.partition,
        generation: ANY,
        replica: request.replica,
    };
    change_replica(native, Change::RemoveReplica(remove), request.session).await
}

async fn change_node(
    native: &Native,
    change: Change,
    session: Option<v1::Session>,
) -> Result<v1::NodeResponse, ServerError> {
    let reply = native.change(change, session).await?;
    Ok(v1::NodeResponse {
        map_revision: reply.revision as u64,
    })
}

/// See `Cluster.UndrainNode`.
pub(super) async fn undrain(
    native: &Native,
    request: v1::NodeRequest,
) -> Result<v1::NodeResponse, ServerError> {
    let active = SetNodeState {
        node: request.node,
        state: NodeState::Active as i32,
    };
    change_node(native, Change::SetNodeState(active), request.session).await
}

/// A refusal that the cluster's state explains, not the request.
fn not_now(text: String) -> ServerError {
    ServerError::Refused(Refusal {
        kind: RefusalKind::Stale as i32,
        text,
        detail: 0,
    })
}

/// See `Cluster.RemoveNode`. The node must have been drained; its replica of the meta partition goes last.
pub(super) async fn remove_node(
    native: &Native,
    request: v1::NodeRequest,
) -> Result<v1::NodeResponse, ServerError> {
    let core = &native.core;
    core.read_map().await?;
    let map = core.map();
    let mut begun = false;
    let node = map.nodes.iter().find(|node| node.id == request.node);
    if node.is_some_and(|node| node.state == NodeState::Active as i32) {
        return Err(not_now(format!(
            "node {} is active: drain it first",
            request.node
        )));
    }
    let of_node = |partition: &Partition| {
        let mut replicas = partition.replicas.iter();
        let replica = replicas.find(|replica| replica.node == request.node)?;
        Some((partition.id, replica.clone()))
    };
    let held: Vec<_> = map.partitions.iter().filter_map(of_node).collect();
    match &held[..] {
        [] => {}
        [(id, replica)] if *id == PartitionId::META.0 && !replica.voter => {
            let remove = RemoveReplica {
                partition: *id,
                generation: ANY,
                replica: replica.id,
            };
            native.change(Change::RemoveReplica(remove), None).await?;
            begun = true;
        }
        held => {
            let text = format!(
                "node {} still holds {} replicas: drain it first",
                request.node,
                held.len()
            );
            return Err(not_now(text));
        }
    }
    let remove = NodeRef { node: request.node };
    change_node(native, Change::RemoveNode(remove), request.session)
        .await
        .map_err(|error| if begun { error.after_write() } else { error })
}
