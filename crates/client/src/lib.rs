//! Client of a Holdfast cluster: every call of `holdfast.v1.Cluster`, over any number of controllers, with failover,
//! deadlines, retries that never do a write twice, and errors named by what to do next.
//!
//! ```no_run
//! # async fn run() -> Result<(), client::Error> {
//! let cluster = client::Client::new(["127.0.0.1:2379", "127.0.0.1:2389"], client::Options::default())?;
//! println!("{} of {} partitions lead", cluster.status().await?.partitions_with_leader, 17);
//! let namespace = cluster.put_namespace(client::NewNamespace::named("team-a")).await?;
//! // Keys are spoken to with the etcd client, on the same port.
//! let mut kv = cluster.kv(&namespace.name).await?;
//! kv.put("greeting", "hello", None).await.expect("stored");
//! # Ok(()) }
//! ```
//!
//! **Writes.** The client opens a session with the first write. Each write carries the session's `client_id` and a
//! `seq`; a retry repeats both, so the cluster answers with what the first one did. Writes of one [`Client`] go one
//! after another; make another client for writes side by side.
//!
//! **Time.** A call ends by [`Options::timeout`]. A write whose time is up before an answer came ends with
//! [`ErrorKind::Unknown`]: it may or may not have been done.

mod call;
mod error;
mod kv;
mod lent;
mod retry;
mod route;
mod session;
mod stream;

pub use call::NewNamespace;
pub use error::{Error, ErrorKind, chain};
pub use kv::connect_kv;
/// Metadata of requests and answers.
pub use proto::metadata;
/// The messages of `holdfast.v1`.
pub use proto::v1;
pub use route::{Options, Spread};
pub use stream::{MapStream, ProgressStream};
pub use types::{NodeId, PartitionId, ReplicaId};

use route::Route;
use session::Sessions;
use std::sync::Arc;

/// A handle to one cluster. Cheap to clone; clones share connections and the session.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    route: Route,
    sessions: Sessions,
}

impl Client {
    /// A client of the cluster behind `endpoints` (`host:port`, or `http://host:port`). Nothing is dialled yet.
    pub fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Client, Error> {
        let route = Route::new(endpoints, options)?;
        Ok(Client {
            inner: Arc::new(Inner {
                route,
                sessions: Sessions::default(),
            }),
        })
    }

    /// The endpoints, as `host:port`.
    pub fn endpoints(&self) -> Vec<String> {
        self.inner.route.names()
    }

    /// A client of the same options that speaks to one endpoint alone, to ask a certain node.
    pub fn only(&self, endpoint: &str) -> Result<Client, Error> {
        Client::new([endpoint], self.inner.route.options().clone())
    }

    /// An etcd client of one namespace (`default` is etcd's own behaviour) over the same endpoints: keys,
    /// transactions, leases, watches, locks, elections.
    pub async fn kv(&self, namespace: &str) -> Result<etcd_client::Client, Error> {
        connect_kv(
            self.inner.route.names(),
            namespace,
            self.inner.route.options().clone(),
        )
        .await
    }
}
