//! Serves the frames of peers: Raft's from the group they name, everything else from the node.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use env::Env;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::TransferLeaderError;
use proto::peer::{self, Frame, JoinReply, JoinRequest, Kind};
use tokio::sync::mpsc;
use tonic::Status;
use types::planted::{self, Planted};
use types::{BootId, NodeId, PartitionId, ReplicaId};

use super::last_logs;
use super::marks::{Marks, Reason};
use super::receive::{self, Receiving, Room};
use super::{CONFIRM_LIMIT, Registry};
use crate::convert::{self, Malformed};
use crate::listener::RequestHandler;
use crate::peer::{FrameHandler, Peers};
use crate::types::{Raft, TransferRequest, TypeConfig};

type Reply = BoxFuture<'static, Result<Bytes, Status>>;

/// See the module.
pub struct Dispatch {
    registry: Arc<dyn Registry>,
    requests: Arc<dyn RequestHandler>,
    marks: Arc<Marks>,
    receiving: Arc<Receiving>,
    peers: Arc<OnceLock<Weak<Peers>>>,
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("the group stopped: {error}"))
}

impl Dispatch {
    /// `peers` is set once they are started. `room`: what checkpoints from elsewhere may take.
    pub fn new(
        registry: Arc<dyn Registry>,
        requests: Arc<dyn RequestHandler>,
        marks: Arc<Marks>,
        env: Env,
        peers: Arc<OnceLock<Weak<Peers>>>,
        room: Room,
    ) -> Arc<Dispatch> {
        let receiving = Arc::new(Receiving::new(env, room));
        tokio::spawn(receive::sweep(Arc::downgrade(&receiving)));
        Arc::new(Dispatch {
            registry,
            requests,
            marks,
            receiving,
            peers,
        })
    }

    fn raft(&self, frame: &Frame) -> Result<(Raft, Arc<dyn storage::PartitionStore>), Status> {
        let (partition, replica) = (PartitionId(frame.partition), ReplicaId(frame.to_replica));
        self.registry.raft(partition, replica).ok_or_else(|| {
            Status::not_found(format!("replica {replica} of partition {partition} is not here"))
        })
    }

    fn group(&self, kind: Kind, frame: Frame) -> Reply {
        let (raft, store) = match self.raft(&frame) {
            Ok(found) => found,
            Err(status) => return std::future::ready(Err(status)).boxed(),
        };
        let at = (PartitionId(frame.partition), ReplicaId(frame.to_replica));
        let receiving = self.receiving.clone();
        match kind {
            Kind::Append | Kind::Heartbeat => append(raft, frame.body).boxed(),
            Kind::Vote => vote(raft, frame.body, self.peers.clone()).boxed(),
            Kind::PreVote => pre_vote(raft, frame.body).boxed(),
            Kind::TransferLeader => transfer(raft, at, frame.body, self.marks.clone()).boxed(),
            Kind::CheckpointBegin => async move { receiving.begin(at, store, frame.body).await }.boxed(),
            Kind::CheckpointChunk => async move { receiving.chunk(at, frame.body).await }.boxed(),
            _ => async move { receiving.end(at, raft, frame.body).await }.boxed(),
        }
    }
}

async fn append(raft: Raft, body: Bytes) -> Result<Bytes, Status> {
    let request: peer::AppendRequest = convert::decode("append request", body)?;
    let request = convert::append_request_in(request)?;
    if planted::is(Planted::FollowerAcksEarly) {
        tokio::spawn(async move { raft.append_entries(request).await });
        return Ok(convert::encode(&convert::append_response_out(
            &crate::types::AppendResponse::Success,
        )));
    }
    let response = raft.append_entries(request).await.map_err(stopped)?;
    Ok(convert::encode(&convert::append_response_out(&response)))
}

async fn pre_vote(raft: Raft, body: Bytes) -> Result<Bytes, Status> {
    let request: peer::VoteRequest = convert::decode("vote request", body)?;
    let response = raft
        .pre_vote(convert::vote_request_in(&request)?)
        .await
        .map_err(stopped)?;
    Ok(convert::encode(&convert::vote_response_out(&response)))
}

/// Invariant: a vote past the leases is granted only for a transfer that the leader asked for, or if the detector
/// here finds the leader's process dead.
async fn vote(raft: Raft, body: Bytes, peers: Arc<OnceLock<Weak<Peers>>>) -> Result<Bytes, Status> {
    let wire: peer::VoteRequest = convert::decode("vote request", body)?;
    let mut request = convert::vote_request_in(&wire)?;
    if request.leadership_transfer && !wire.planned {
        let peers = peers.get().and_then(Weak::upgrade);
        let health = peers.and_then(|peers| peers.health(NodeId(wire.dead_node)));
        let led_there = leader_node(&raft).is_none_or(|node| node == NodeId(wire.dead_node));
        request.leadership_transfer = match health {
            Some(health) if led_there => {
                health
                    .confirms_dead(BootId(wire.dead_boot_id), CONFIRM_LIMIT)
                    .await
            }
            Some(_) | None => false,
        };
    }
    let response = raft.vote(request).await.map_err(stopped)?;
    Ok(convert::encode(&convert::vote_response_out(&response)))
}

/// The node of the group's leader, as far as this replica knows.
pub(super) fn leader_node(raft: &Raft) -> Option<NodeId> {
    let metrics = raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let leader = metrics.current_leader?;
    metrics
        .membership_config
        .get_node(&leader)
        .map(|node| NodeId(node.node))
}

async fn transfer(
    raft: Raft,
    at: (PartitionId, ReplicaId),
    body: Bytes,
    marks: Arc<Marks>,
) -> Result<Bytes, Status> {
    let request: peer::TransferRequest = convert::decode("transfer request", body)?;
    let request = convert::transfer_request_in(&request)?;
    if *request.to_node_id() == at.1.0 {
        marks.set(at.0, Reason::Planned);
    }
    match raft
        .handle_transfer_leader(request.clone())
        .await
        .map_err(stopped)?
    {
        Ok(()) => Ok(Bytes::new()),
        // The reply tells what is here instead of what was expected.
        Err(TransferLeaderError::VoteChanged { actual, .. }) => Ok(convert::encode(
            &convert::transfer_request_out(&TransferRequest::new(actual, 1, None)),
        )),
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            let vote = *request.from_leader();
            Ok(convert::encode(&convert::transfer_request_out(
                &TransferRequest::new(vote, 2, actual),
            )))
        }
    }
}

/// Reads what [`transfer`] replied.
pub(super) fn transfer_refusal(
    asked: &TransferRequest,
    actual: &peer::TransferRequest,
) -> Result<TransferLeaderError<TypeConfig>, Malformed> {
    let read = convert::transfer_request_in(actual)?;
    Ok(match actual.to {
        1 => TransferLeaderError::VoteChanged {
            expected: *asked.from_leader(),
            actual: *read.from_leader(),
        },
        _ => TransferLeaderError::LogNotFlushed {
            expected: asked.last_log_id().copied(),
            actual: read.last_log_id().copied(),
        },
    })
}

impl FrameHandler for Dispatch {
    fn handle(&self, from: NodeId, frame: Frame) -> Reply {
        match Kind::try_from(frame.kind) {
            Ok(
                kind @ (Kind::Append
                | Kind::Heartbeat
                | Kind::Vote
                | Kind::PreVote
                | Kind::TransferLeader
                | Kind::CheckpointBegin
                | Kind::CheckpointChunk
                | Kind::CheckpointEnd),
            ) => self.group(kind, frame),
            Ok(Kind::LastLog) => {
                std::future::ready(last_logs::answer(self.registry.as_ref(), frame.body)).boxed()
            }
            Ok(kind) => {
                let requests = self.requests.clone();
                let partition = PartitionId(frame.partition);
                async move {
                    requests
                        .handle(from, kind, partition, frame.body, frame.request_id)
                        .await
                }
                .boxed()
            }
            Err(_) => {
                let status = Status::unimplemented(format!("frame of unknown kind {}", frame.kind));
                std::future::ready(Err(status)).boxed()
            }
        }
    }

    fn handle_stream(
        &self,
        from: NodeId,
        frame: Frame,
        out: mpsc::Sender<Bytes>,
    ) -> BoxFuture<'static, Result<(), Status>> {
        let requests = self.requests.clone();
        let partition = PartitionId(frame.partition);
        let kind = Kind::try_from(frame.kind).unwrap_or(Kind::Watch);
        async move {
            requests
                .handle_stream(from, kind, partition, frame.body, out)
                .await
        }
        .boxed()
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinReply, Status>> {
        let requests = self.requests.clone();
        async move { requests.join(request).await }.boxed()
    }
}
