//! The three ports: peers, clients, HTTP.

use std::sync::Arc;
use std::time::Duration;

use env::{Bound, Connection, Env, Incoming, Listen};
use futures::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::StartError;
use crate::config::Config;
use crate::core::Core;
use crate::http;
use crate::request::Requests;
use crate::service;
use crate::service::direct::Direct;

/// HTTP/2 pings find clients that are gone.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A ping must be answered in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest list of request headers.
const HEADER_BYTES: u32 = 16 * 1024;
/// Flow-control windows of one client stream and connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bound and not yet served. Peers may connect at once and wait; clients are refused and go elsewhere until this node can
/// answer them.
pub(super) struct Listeners {
    client: Unserved,
    peer: Box<dyn Listen>,
    http: Unserved,
    peer_address: String,
}

/// A port that refuses connections as yet.
pub(super) struct Unserved {
    bound: Box<dyn Bound>,
    what: &'static str,
    address: String,
}

impl Unserved {
    async fn bind(env: &Env, what: &'static str, address: &str) -> Result<Unserved, StartError> {
        let bound = env.net.bind(address).await;
        Ok(Unserved {
            bound: bound.map_err(|source| cannot_listen(what, address, source))?,
            what,
            address: address.to_owned(),
        })
    }

    /// Takes connections from now on.
    pub(super) async fn listen(self) -> Result<Box<dyn Listen>, StartError> {
        let listening = self.bound.listen().await;
        listening.map_err(|source| cannot_listen(self.what, &self.address, source))
    }
}

fn cannot_listen(what: &'static str, address: &str, source: std::io::Error) -> StartError {
    StartError::Listen {
        what,
        address: address.to_owned(),
        source,
    }
}

/// What others are told.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) client: String,
    pub(super) peer: String,
    pub(super) http: String,
}

impl Listeners {
    /// Binds all ports, or says which one is taken.
    pub(super) async fn bind(config: &Config, env: &Env) -> Result<Listeners, StartError> {
        let address = &config.listen.peer;
        let peer = env.net.listen(address).await;
        let peer = peer.map_err(|source| cannot_listen("controllers", address, source))?;
        Ok(Listeners {
            client: Unserved::bind(env, "clients", &config.listen.client).await?,
            http: Unserved::bind(env, "metrics and health", &config.listen.http).await?,
            peer_address: peer.local_address(),
            peer,
        })
    }

    pub(super) fn peer_address(&self) -> &str {
        &self.peer_address
    }

    /// As configured; a port of 0 is told as the one that was bound.
    pub(super) fn advertised(&self, config: &Config) -> Addresses {
        let told = |set: &Option<String>, listen: &str, bound: String| match set {
            Some(address) => address.clone(),
            None if listen.ends_with(":0") => bound,
            None => listen.to_owned(),
        };
        Addresses {
            client: told(
                &config.advertise.client,
                &config.listen.client,
                self.client.bound.local_address(),
            ),
            peer: told(
                &config.advertise.peer,
                &config.listen.peer,
                self.peer_address.clone(),
            ),
            http: told(
                &config.advertise.http,
                &config.listen.http,
                self.http.bound.local_address(),
            ),
        }
    }
}

/// Tasks that serve.
#[derive(Default)]
pub(super) struct Ports {
    pub(super) client: String,
    pub(super) http: String,
    peers: Option<JoinHandle<()>>,
    clients: Option<JoinHandle<()>>,
    plain: Option<JoinHandle<()>>,
    leave: CancellationToken,
    leave_peers: CancellationToken,
}

impl Ports {
    /// Serves peers; gives the other listeners back.
    pub(super) fn serve_peers<S>(
        &mut self,
        listeners: Listeners,
        service: S,
        _stop: &CancellationToken,
    ) -> (Unserved, Unserved)
    where
        S: tower::Service<
                tonic::codegen::http::Request<tonic::body::Body>,
                Response = tonic::codegen::http::Response<tonic::body::Body>,
                Error = std::convert::Infallible,
            > + tonic::server::NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        (self.client, self.http) = (
            listeners.client.bound.local_address(),
            listeners.http.bound.local_address(),
        );
        let server = Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(raft::peer::LANE_WINDOW_BYTES)
            .initial_connection_window_size(raft::peer::LANE_WINDOW_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(service);
        let leave = self.leave_peers.clone();
        self.peers = Some(tokio::spawn(async move {
            let served = server
                .serve_with_incoming_shutdown(Incoming::new(listeners.peer), leave.cancelled_owned())
                .await;
            log_end("peers", served);
        }));
        (listeners.client, listeners.http)
    }

    /// Serves clients: etcd's API, our own, health, reflection.
    pub(super) fn serve_clients(
        &mut self,
        listen: Box<dyn Listen>,
        core: &Arc<Core>,
        config: &Config,
        stop: &CancellationToken,
    ) {
        let (reporter, health) = tonic_health::server::health_reporter();
        tokio::spawn(report_health(core.clone(), reporter, stop.clone()));
        let (kv, others) = service::etcd::routes(core.clone(), &config.limits);
        let routes = others
            .add_service(service::cluster::server(core.clone()))
            .add_service(health);
        let routes = service::reflection::add(routes);
        let requests = Requests::new(core.random_id(), core.metrics().clone());
        let server = Server::builder()
            .tcp_nodelay(true)
            .max_concurrent_streams(Some(config.limits.streams_per_connection))
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(Some(HEADER_BYTES))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .layer(requests)
            .layer(Direct::to(kv))
            .add_routes(routes);
        let incoming = Incoming::new(listen).map(|made| made.map(Connection::of_small_messages));
        let leave = self.leave.clone();
        self.clients = Some(tokio::spawn(async move {
            let served = server
                .serve_with_incoming_shutdown(incoming, leave.cancelled_owned())
                .await;
            log_end("clients", served);
        }));
    }

    /// Serves metrics and health.
    pub(super) fn serve_http(&mut self, listen: Box<dyn Listen>, core: &Arc<Core>, stop: &CancellationToken) {
        let router = http::router(core.clone());
        let stop = stop.clone();
        self.plain = Some(tokio::spawn(async move {
            let served = axum::serve(Plain(listen), router)
                .with_graceful_shutdown(stop.cancelled_owned())
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP port failed");
            }
        }));
    }

    /// Takes no more clients; lets requests finish within `limit`. Streams that never end are cut after it.
    pub(super) async fn drain(&self, limit: Duration) {
        self.leave.cancel();
        let Some(clients) = &self.clients else { return };
        let begun = tokio::time::Instant::now();
        while !clients.is_finished() && begun.elapsed() < limit {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        clients.abort();
    }

    /// Closes what is left.
    pub(super) async fn close(&self) {
        self.leave_peers.cancel();
        for task in [&self.peers, &self.clients, &self.plain].into_iter().flatten() {
            task.abort();
        }
    }
}

fn log_end(what: &str, served: Result<(), tonic::transport::Error>) {
    if let Err(error) = served {
        tracing::error!(%error, "the port for {what} failed");
    }
}

/// Keeps gRPC health in step with readiness.
async fn report_health(
    core: Arc<Core>,
    reporter: tonic_health::server::HealthReporter,
    stop: CancellationToken,
) {
    let mut was = None;
    loop {
        let ready = http::not_ready(&core).is_empty();
        if was != Some(ready) {
            let status = if ready {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            for name in [
                "",
                "holdfast.v1.Cluster",
                "etcdserverpb.KV",
                "etcdserverpb.Watch",
                "etcdserverpb.Lease",
            ] {
                reporter.set_service_status(name, status).await;
            }
            was = Some(ready);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
        }
    }
}

/// Our listener as axum's.
struct Plain(Box<dyn Listen>);

impl axum::serve::Listener for Plain {
    type Io = Connection;
    type Addr = String;

    async fn accept(&mut self) -> (Connection, String) {
        loop {
            match self.0.accept().await {
                Ok(connection) => {
                    let remote = connection.remote().to_string();
                    return (connection, remote);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<String> {
        Ok(self.0.local_address())
    }
}
