//! A client of a workload: connections to each controller, a time limit on everything, numbers of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use env::{Connector, Env};
use etcd_client::{Channel, Client as Etcd};
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Request, Response};
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_millis(2000);
/// How long it waits for a connection.
const CONNECTING: Duration = Duration::from_millis(500);

/// Where a workload runs.
#[derive(Clone)]
pub struct Site {
    /// Time, numbers, connections.
    pub env: Env,
    /// `host:port` of each controller for clients.
    pub endpoints: Vec<String>,
    /// How many times longer than usual clients rest between two operations.
    pub leisure: u64,
    /// Whether nothing is done to the cluster but what is asked of it: then nothing may be late.
    pub calm: bool,
    /// Set when clients are to stop.
    pub stop: Arc<AtomicBool>,
}

/// One client.
#[derive(Clone)]
pub struct Client {
    /// Its number, from 1; other than all others'.
    pub id: u64,
    /// Where it is.
    pub site: Site,
}

impl Client {
    /// Whether it is to go on.
    pub fn goes_on(&self) -> bool {
        !self.site.stop.load(Ordering::Relaxed)
    }

    /// Time since some beginning that all clients share, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.site.env.clock.now().as_nanos() as u64
    }

    /// A number below `bound`.
    pub fn below(&self, bound: u64) -> u64 {
        self.site.env.rng.between(0, bound)
    }

    /// True once in `times`.
    pub fn once_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of the controllers, from 0.
    pub fn any_node(&self) -> usize {
        self.below(self.site.endpoints.len() as u64) as usize
    }

    /// Rests a while: so long, or as many times longer as the site says.
    pub async fn pause(&self, low_ms: u64, high_ms: u64) {
        let ms = self.site.env.rng.between(low_ms, high_ms + 1);
        tokio::time::sleep(Duration::from_millis(ms * self.site.leisure)).await;
    }

    /// A connection to a controller, made when it is first used and again after it broke.
    pub fn channel(&self, node: usize) -> tonic::transport::Channel {
        self.endpoint(node).connect_with_connector_lazy(self.connector())
    }

    /// A controller that takes connections, and an etcd client of one key space there. Nothing was sent yet: what cannot be
    /// sent is nothing that could have happened.
    pub async fn connect(&self, namespace: &'static str) -> (usize, Etcd) {
        loop {
            let node = self.any_node();
            let endpoint = self.endpoint(node);
            let connected = endpoint.connect_with_connector(self.connector());
            if let Ok(Ok(channel)) = tokio::time::timeout(CONNECTING, connected).await {
                return (node, etcd(channel, namespace).await);
            }
            self.pause(10, 100).await;
        }
    }

    /// An etcd client of one key space at a certain controller. Nothing is sent yet.
    pub async fn etcd(&self, node: usize, namespace: &'static str) -> Etcd {
        etcd(self.channel(node), namespace).await
    }

    fn endpoint(&self, node: usize) -> Endpoint {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.site.endpoints[node]));
        endpoint.expect("an endpoint is host:port").timeout(PATIENCE)
    }

    fn connector(&self) -> Connector {
        Connector::new(self.site.env.net.clone(), CONNECTING)
    }
}

async fn etcd(channel: tonic::transport::Channel, namespace: &'static str) -> Etcd {
    let named = Named {
        channel,
        namespace: HeaderValue::from_static(namespace),
    };
    let made = Etcd::from_channel(Channel::Custom(BoxCloneSyncService::new(named)), None).await;
    made.expect("a client without credentials asks nothing")
}

/// Names the namespace in each request.
#[derive(Clone)]
struct Named {
    channel: tonic::transport::Channel,
    namespace: HeaderValue,
}

impl Service<Request<Body>> for Named {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.channel.poll_ready(cx).map_err(BoxError::from)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(proto::metadata::NAMESPACE, self.namespace.clone());
        let sent = self.channel.call(request);
        Box::pin(async move { sent.await.map_err(BoxError::from) })
    }
}
