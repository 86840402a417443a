//! One replica here speaks to one replica elsewhere.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{SnapshotResponse, TransferLeaderResponse};
use proto::peer::{self, Kind, Lane};
use tonic::Code;
use types::{NodeId, PartitionId, ReplicaId};

use super::marks::Reason;
use super::pipeline::Pipeline;
use super::{APPEND_LIMIT, CONTROL_LIMIT_MIN, Network, checkpoint};
use crate::RequestError;
use crate::convert;
use crate::peer::{Reply, frame};
use crate::trouble::Trouble;
use crate::types::{
    AppendRequest, AppendResponse, Snapshot, SnapshotData, StreamAppendResult, TransferRequest, TypeConfig,
    Vote, VoteRequest, VoteResponse,
};

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

/// What a client is for; decides the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Replicate,
    Heartbeat,
}

/// The client.
pub struct GroupClient {
    pub(super) network: Arc<Network>,
    pub(super) partition: PartitionId,
    pub(super) own: ReplicaId,
    pub(super) trouble: Arc<Trouble>,
    pub(super) target: ReplicaId,
    pub(super) node: NodeId,
    pub(super) purpose: Purpose,
}

/// A failed request as openraft wants it: what surely did not arrive makes it back off.
pub(super) fn rpc_error(error: RequestError) -> RPCError<TypeConfig> {
    match error {
        RequestError::NotSent(text) => RPCError::Unreachable(Unreachable::from_string(text)),
        RequestError::Refused {
            code: Code::NotFound | Code::Unavailable,
            text,
        } => RPCError::Unreachable(Unreachable::from_string(text)),
        RequestError::Refused { text, .. } => RPCError::Network(NetworkError::from_string(text)),
        RequestError::Unknown(text) => RPCError::Network(NetworkError::from_string(text)),
    }
}

pub(super) fn malformed(error: convert::Malformed) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(&error))
}

impl GroupClient {
    pub(super) fn begin(&self, lane: Lane, kind: Kind, body: Bytes) -> Result<Reply, RequestError> {
        let frame = frame(kind, self.partition, self.target, self.own, body);
        self.network.peers.begin(self.node, lane, frame)
    }

    pub(super) async fn call(
        &self,
        lane: Lane,
        kind: Kind,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, RequestError> {
        self.begin(lane, kind, body)?.within(limit).await
    }

    async fn control(&self, kind: Kind, body: Bytes, option: &RPCOption) -> Rpc<Bytes> {
        let limit = option.soft_ttl().max(CONTROL_LIMIT_MIN);
        self.call(Lane::Control, kind, body, limit)
            .await
            .map_err(rpc_error)
    }
}

impl RaftNetworkV2<TypeConfig> for GroupClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(&mut self, rpc: AppendRequest, option: RPCOption) -> Rpc<AppendResponse> {
        let body = convert::encode(&convert::append_request_out(&rpc));
        let answer = match self.purpose {
            Purpose::Heartbeat => self.control(Kind::Heartbeat, body, &option).await?,
            Purpose::Replicate => {
                let limit = option.soft_ttl().max(APPEND_LIMIT);
                self.call(Lane::Log, Kind::Append, body, limit)
                    .await
                    .map_err(rpc_error)?
            }
        };
        let answer = convert::decode("append response", answer).map_err(malformed)?;
        convert::append_response_in(&answer).map_err(malformed)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult>>>>
    where
        S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
    {
        match self.purpose {
            Purpose::Heartbeat => stream_append_sequential(self, input, option),
            Purpose::Replicate => {
                let limit = option.soft_ttl().max(APPEND_LIMIT);
                let pipeline: BoxStream<'s, _> = Box::pin(Pipeline::new(self, input, limit));
                Box::pin(std::future::ready(Ok(pipeline)))
            }
        }
    }

    async fn vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Rpc<VoteResponse> {
        let mut request = convert::vote_request_out(&rpc);
        if rpc.leadership_transfer {
            match self.network.marks.get(self.partition) {
                Some(Reason::Planned) => request.planned = true,
                Some(Reason::Dead(node, boot)) => {
                    request.dead_node = node.0;
                    request.dead_boot_id = boot.0;
                }
                None => request.leadership_transfer = false,
            }
        }
        let answer = self
            .control(Kind::Vote, convert::encode(&request), &option)
            .await?;
        let answer = convert::decode("vote response", answer).map_err(malformed)?;
        convert::vote_response_in(&answer).map_err(malformed)
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, option: RPCOption) -> Rpc<VoteResponse> {
        let body = convert::encode(&convert::vote_request_out(&rpc));
        let answer = self.control(Kind::PreVote, body, &option).await?;
        let answer = convert::decode("vote response", answer).map_err(malformed)?;
        convert::vote_response_in(&answer).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Local(checkpoint) = snapshot.snapshot else {
            let text = "only a local checkpoint can be sent";
            return Err(StreamingError::Network(NetworkError::from_string(text)));
        };
        let index = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let kept = self.network.sendings.begin(self.partition, self.target, index);
        let sending = checkpoint::send(self, vote, &snapshot.meta, checkpoint);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => {
                let vote = sent?;
                kept.installed();
                Ok(SnapshotResponse::new(vote))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let body = convert::encode(&convert::transfer_request_out(&request));
        let limit = option.hard_ttl().max(CONTROL_LIMIT_MIN);
        let answer = self
            .call(Lane::Control, Kind::TransferLeader, body, limit)
            .await
            .map_err(rpc_error)?;
        let refusal: Option<peer::TransferRequest> = match answer.is_empty() {
            true => None,
            false => Some(convert::decode("transfer response", answer).map_err(malformed)?),
        };
        Ok(match refusal {
            None => Ok(()),
            Some(actual) => Err(super::dispatch::transfer_refusal(&request, &actual).map_err(malformed)?),
        })
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(
            (0u32..).map(|nth| Duration::from_millis(20 << nth.min(4))),
        ))
    }
}
