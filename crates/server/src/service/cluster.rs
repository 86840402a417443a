//! The native `holdfast.v1.Cluster` service: looking at the cluster and changing it. Changes are commands to the meta
//! partition, with the caller's session, so that a retry returns the first answer; what follows from them is the
//! reconcilers' work, whose progress is streamed.

mod change;
mod look;
mod progress;
mod space;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use machine::outcome::{Allocated, Done};
use machine::record::meta::{Begin, Change};
use machine::{Command, Reply};
use proto::v1;
use proto::v1::cluster_server::{Cluster, ClusterServer};
use tonic::{Request, Response, Status};
use types::PartitionId;

use crate::core::{Core, ServerError, meta_command};

/// Largest request to this service.
const REQUEST_BYTES: usize = 64 * 1024;

/// The service.
#[derive(Clone)]
pub struct Native {
    core: Arc<Core>,
}

/// To be mounted on the client port.
pub fn server(core: Arc<Core>) -> ClusterServer<Native> {
    ClusterServer::new(Native { core }).max_decoding_message_size(REQUEST_BYTES)
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Native {
    /// Commits a change of the cluster's records under the caller's session.
    async fn change(&self, change: Change, session: Option<v1::Session>) -> Result<Reply, ServerError> {
        let session = session.unwrap_or_default();
        let command = Command {
            client_id: session.client_id,
            seq: session.seq,
            ..meta_command(change)
        };
        let proposed = self.core.propose(PartitionId::META, command).await?;
        self.core.refresh_map()?;
        self.core.poke().notify_one();
        Ok(proposed.reply)
    }

    /// Whether something that is no command is to be done now: under a session, once, by whoever is told first.
    async fn begins(&self, session: Option<v1::Session>) -> Result<bool, ServerError> {
        if session.is_none_or(|session| session.client_id == 0) {
            return Ok(true);
        }
        let token = self.core.random_id();
        let reply = self.change(Change::Begin(Begin { token }), session).await?;
        Ok(allocated(reply)?.id == token)
    }
}

fn allocated(reply: Reply) -> Result<Allocated, ServerError> {
    match reply.done {
        Some(Done::Allocated(allocated)) => Ok(allocated),
        other => Err(ServerError::Internal {
            text: format!("unexpected reply {other:?}"),
        }),
    }
}

fn sent<T>(result: Result<T, ServerError>) -> Answer<T> {
    result.map(Response::new).map_err(Status::from)
}

#[tonic::async_trait]
impl Cluster for Native {
    type WatchMapStream = Answers<v1::Map>;
    type MoveReplicaStream = Answers<v1::Progress>;
    type DrainNodeStream = Answers<v1::Progress>;

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        Ok(Response::new(look::status(&self.core).await))
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        Ok(Response::new(look::nodes(&self.core).await))
    }

    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Answer<v1::ListPartitionsResponse> {
        sent(look::partitions(&self.core, &request.into_inner().partitions).await)
    }

    async fn get_map(&self, _: Request<v1::GetMapRequest>) -> Answer<v1::Map> {
        sent(look::map(&self.core))
    }

    async fn watch_map(&self, _: Request<v1::GetMapRequest>) -> Answer<Self::WatchMapStream> {
        Ok(Response::new(look::watch_map(self.core.clone())))
    }

    async fn open_session(&self, _: Request<v1::OpenSessionRequest>) -> Answer<v1::OpenSessionResponse> {
        sent(change::open_session(&self.core).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Answer<v1::TransferLeaderResponse> {
        sent(change::transfer(self, request.into_inner()).await)
    }

    async fn balance(&self, request: Request<v1::BalanceRequest>) -> Answer<v1::BalanceResponse> {
        Ok(Response::new(
            change::balance(&self.core, request.into_inner().dry_run).await,
        ))
    }

    async fn set_frozen(&self, request: Request<v1::SetFrozenRequest>) -> Answer<v1::SetFrozenResponse> {
        sent(change::set_frozen(self, request.into_inner()).await)
    }

    async fn add_replica(&self, request: Request<v1::AddReplicaRequest>) -> Answer<v1::AddReplicaResponse> {
        sent(change::add_replica(self, request.into_inner()).await)
    }

    async fn promote_replica(&self, request: Request<v1::ReplicaRequest>) -> Answer<v1::ReplicaResponse> {
        sent(change::promote(self, request.into_inner()).await)
    }

    async fn remove_replica(&self, request: Request<v1::ReplicaRequest>) -> Answer<v1::ReplicaResponse> {
        sent(change::remove_replica(self, request.into_inner()).await)
    }

    async fn move_replica(
        &self,
        request: Request<v1::MoveReplicaRequest>,
    ) -> Answer<Self::MoveReplicaStream> {
        sent(progress::move_replica(self.clone(), request.into_inner()).await)
    }

    async fn drain_node(&self, request: Request<v1::NodeRequest>) -> Answer<Self::DrainNodeStream> {
        sent(progress::drain(self.clone(), request.into_inner()).await)
    }

    async fn undrain_node(&self, request: Request<v1::NodeRequest>) -> Answer<v1::NodeResponse> {
        sent(change::undrain(self, request.into_inner()).await)
    }

    async fn remove_node(&self, request: Request<v1::NodeRequest>) -> Answer<v1::NodeResponse> {
        sent(change::remove_node(self, request.into_inner()).await)
    }

    async fn list_namespaces(
        &self,
        _: Request<v1::ListNamespacesRequest>,
    ) -> Answer<v1::ListNamespacesResponse> {
        sent(space::list(&self.core).await)
    }

    async fn put_namespace(
        &self,
        request: Request<v1::PutNamespaceRequest>,
    ) -> Answer<v1::PutNamespaceResponse> {
        sent(space::put(self, request.into_inner()).await)
    }

    async fn check_consistency(
        &self,
        request: Request<v1::CheckConsistencyRequest>,
    ) -> Answer<v1::CheckConsistencyResponse> {
        sent(look::consistency(&self.core, PartitionId(request.into_inner().partition)).await)
    }
}
