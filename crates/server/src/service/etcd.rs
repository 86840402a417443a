//! etcd's v3 API on the client port: `KV`, `Watch`, `Lease`, `Cluster`, `Maintenance`, `Lock`, `Election`; `Auth`
//! is refused. Requests are checked in etcd's order and with etcd's texts, then handed to [`Core`].
//! No service here knows of Raft or of the machine's records.

mod auth;
pub mod check;
mod cluster;
pub mod convert;
mod election;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod session;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbResponseHeader};
use machine::command::Body;
use machine::outcome::Done;
use machine::query::{Ask, Told};
use machine::{Command, Query};
use proto::election::election_server::ElectionServer;
use proto::lock::lock_server::LockServer;
use proto::metadata::NAMESPACE;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;

use crate::Core;
use crate::config::Limits;
use crate::core::{KeySpace, Queried};

/// The namespace of clients that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The etcd version whose behaviour this API has; clients look at it before they use newer calls.
pub const ETCD_VERSION: &str = "3.5.21";

/// What all etcd services share.
#[derive(Clone)]
pub struct Etcd {
    core: Arc<Core>,
    /// Between notices of progress on quiet watches.
    progress_every: Duration,
}

/// All etcd services, to be mounted on the client port; the key-value service by itself, which has a way of its own.
pub fn routes(core: Arc<Core>, limits: &Limits) -> (PbKvServer<Etcd>, tonic::service::Routes) {
    let etcd = Etcd {
        core,
        progress_every: Duration::from_millis(limits.watch_progress_ms),
    };
    let gzip = CompressionEncoding::Gzip;
    let bytes = types::limits::MESSAGE_BYTES;
    let kv = PbKvServer::new(etcd.clone())
        .accept_compressed(gzip)
        .max_decoding_message_size(bytes);
    let others = tonic::service::Routes::new(
        PbLeaseServer::new(etcd.clone())
            .accept_compressed(gzip)
            .max_decoding_message_size(bytes),
    )
    .add_service(watch::WatchServer::new(etcd.clone()))
    .add_service(
        PbClusterServer::new(etcd.clone())
            .accept_compressed(gzip)
            .max_decoding_message_size(bytes),
    )
    .add_service(
        PbMaintenanceServer::new(etcd.clone())
            .accept_compressed(gzip)
            .max_decoding_message_size(bytes),
    )
    .add_service(
        LockServer::new(etcd.clone())
            .accept_compressed(gzip)
            .max_decoding_message_size(bytes),
    )
    .add_service(
        ElectionServer::new(etcd)
            .accept_compressed(gzip)
            .max_decoding_message_size(bytes),
    )
    .add_service(auth::AuthRefused);
    (kv, others)
}

/// What a command came to.
struct Written {
    header: PbResponseHeader,
    done: Option<Done>,
}

impl Etcd {
    /// The key space that the request's metadata names.
    fn space<'s>(
        &'s self,
        metadata: &MetadataMap,
    ) -> impl Future<Output = Result<KeySpace, Status>> + Send + use<'s> {
        // Owned: a request of a stream cannot be borrowed while somebody waits.
        let name = match metadata.get(NAMESPACE) {
            None => Ok(DEFAULT_NAMESPACE.to_owned()),
            Some(value) => value
                .to_str()
                .map(str::to_owned)
                .map_err(|_| Status::invalid_argument("metadata holdfast-namespace is not ASCII text")),
        };
        async move { Ok(self.core.find_key_space(&name?).await?) }
    }

    fn header(&self, revision: i64, raft_term: u64) -> PbResponseHeader {
        PbResponseHeader {
            cluster_id: self.core.cluster_id().0,
            member_id: self.core.node_id().0,
            revision,
            raft_term,
        }
    }

    async fn write(&self, space: &KeySpace, body: Body) -> Result<Written, Status> {
        let proposed = self.core.propose(space.partition, command(space, body)).await?;
        let header = self.header(proposed.reply.revision, proposed.term);
        Ok(Written {
            header,
            done: proposed.reply.done,
        })
    }

    async fn ask(&self, space: &KeySpace, ask: Ask, serializable: bool) -> Result<Queried, Status> {
        let query = Query {
            slot: u32::from(space.slot.0),
            namespace: space.id.0,
            ask: Some(ask),
            ..Query::default()
        };
        Ok(self.core.query(space.partition, query, serializable).await?)
    }

    fn header_of(&self, queried: &Queried) -> PbResponseHeader {
        self.header(queried.answer.revision, queried.term)
    }
}

fn command(space: &KeySpace, body: Body) -> Command {
    Command {
        principal: "root".to_owned(),
        slot: u32::from(space.slot.0),
        namespace: space.id.0,
        body: Some(body),
        ..Command::default()
    }
}

/// The answer was of another kind than the question: a defect, never the client's fault.
fn mismatch(what: &str) -> Status {
    Status::internal(format!("the state machine answered {what} with something else"))
}

fn told(queried: Queried) -> Result<Told, Status> {
    queried.answer.told.ok_or_else(|| mismatch("a query"))
}

#[cfg(test)]
mod tests;
