//! The client against a scripted server: retries, failover, sessions, streams.

use client::{Client, ErrorKind, NewNamespace, Options, v1};
use futures::future::BoxFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use types::NodeId;
use v1::cluster_server::{Cluster, ClusterServer};

/// What a server answers to the writes it gets, in order; then well.
#[derive(Default)]
struct Script {
    failures: Vec<Status>,
    seen: Vec<v1::Session>,
    sessions: u64,
    drains: Vec<v1::Session>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Script>>);

impl Fake {
    fn failing(failures: Vec<Status>) -> Fake {
        Fake(Arc::new(Mutex::new(Script {
            failures,
            ..Script::default()
        })))
    }

    fn seen(&self) -> Vec<(u64, u64)> {
        self.0
            .lock()
            .expect("lock")
            .seen
            .iter()
            .map(|s| (s.client_id, s.seq))
            .collect()
    }

    #[expect(clippy::disallowed_methods, reason = "a real port for a scripted server")]
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let router = tonic::transport::Server::builder().add_service(ClusterServer::new(self.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

type Steps = tokio_stream::Iter<std::vec::IntoIter<Result<v1::Progress, Status>>>;
type Maps = tokio_stream::Iter<std::vec::IntoIter<Result<v1::Map, Status>>>;

// Spelled out as `async_trait` would: it does not look into macros.
macro_rules! refuse {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {
        $(fn $name<'a, 'b>(&'a self, _: Request<$request>) -> BoxFuture<'b, Result<Response<$answer>, Status>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("not in this test")) })
        })*
    };
}

#[tonic::async_trait]
impl Cluster for Fake {
    type WatchMapStream = Maps;
    type MoveReplicaStream = Steps;
    type DrainNodeStream = Steps;

    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let mut script = self.0.lock().expect("lock");
        script.sessions += 1;
        Ok(Response::new(v1::OpenSessionResponse {
            client_id: 100 + script.sessions,
            ttl_ms: 1000,
        }))
    }

    async fn put_namespace(
        &self,
        request: Request<v1::PutNamespaceRequest>,
    ) -> Result<Response<v1::PutNamespaceResponse>, Status> {
        let request = request.into_inner();
        let mut script = self.0.lock().expect("lock");
        script.seen.push(request.session.expect("writes carry a session"));
        if !script.failures.is_empty() {
            return Err(script.failures.remove(0));
        }
        let namespace = v1::Namespace {
            id: 7,
            name: request.name,
            ..Default::default()
        };
        Ok(Response::new(v1::PutNamespaceResponse {
            namespace: Some(namespace),
        }))
    }

    async fn watch_map(&self, _: Request<v1::GetMapRequest>) -> Result<Response<Maps>, Status> {
        let mut script = self.0.lock().expect("lock");
        script.sessions += 1;
        let newest = script.sessions;
        // Each connection repeats the map before it breaks.
        let maps = [newest.saturating_sub(1), newest].map(|revision| {
            Ok(v1::Map {
                revision,
                ..Default::default()
            })
        });
        let broken = [Err(Status::unavailable("going down"))];
        let all: Vec<_> = maps.into_iter().chain(broken).collect();
        Ok(Response::new(tokio_stream::iter(all)))
    }

    async fn drain_node(&self, request: Request<v1::NodeRequest>) -> Result<Response<Steps>, Status> {
        let mut script = self.0.lock().expect("lock");
        script
            .drains
            .push(request.into_inner().session.expect("a session"));
        let first = Ok(v1::Progress {
            done: 1,
            total: 2,
            text: "leaders".to_owned(),
        });
        let last = match script.drains.len() {
            1 => Err(Status::unavailable("going down")),
            _ => Ok(v1::Progress {
                done: 2,
                total: 2,
                text: "replicas".to_owned(),
            }),
        };
        Ok(Response::new(tokio_stream::iter(vec![first, last])))
    }

    async fn move_replica(&self, _: Request<v1::MoveReplicaRequest>) -> Result<Response<Steps>, Status> {
        Err(Status::failed_precondition(
            "node 2 has no replica of partition 5",
        ))
    }

    refuse! {
        status(v1::StatusRequest) -> v1::StatusResponse;
        list_nodes(v1::ListNodesRequest) -> v1::ListNodesResponse;
        list_partitions(v1::ListPartitionsRequest) -> v1::ListPartitionsResponse;
        get_map(v1::GetMapRequest) -> v1::Map;
        transfer_leader(v1::TransferLeaderRequest) -> v1::TransferLeaderResponse;
        balance(v1::BalanceRequest) -> v1::BalanceResponse;
        set_frozen(v1::SetFrozenRequest) -> v1::SetFrozenResponse;
        add_replica(v1::AddReplicaRequest) -> v1::AddReplicaResponse;
        promote_replica(v1::ReplicaRequest) -> v1::ReplicaResponse;
        remove_replica(v1::ReplicaRequest) -> v1::ReplicaResponse;
        undrain_node(v1::NodeRequest) -> v1::NodeResponse;
        remove_node(v1::NodeRequest) -> v1::NodeResponse;
        list_namespaces(v1::ListNamespacesRequest) -> v1::ListNamespacesResponse;
        check_consistency(v1::CheckConsistencyRequest) -> v1::CheckConsistencyResponse;
    }
}

fn quick() -> Options {
    Options {
        timeout: Duration::from_secs(3),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_retry_repeats_the_number_and_the_next_write_takes_another() {
    let fake = Fake::failing(vec![
        Status::unavailable("lost the leader"),
        Status::deadline_exceeded("late"),
    ]);
    let client = Client::new([fake.serve().await], quick()).expect("well formed");
    let namespace = client
        .put_namespace(NewNamespace::named("a"))
        .await
        .expect("done at the third try");
    assert_eq!((namespace.id, namespace.name.as_str()), (7, "a"));
    client
        .put_namespace(NewNamespace::named("b"))
        .await
        .expect("done");
    assert_eq!(fake.seen(), [(101, 1), (101, 1), (101, 1), (101, 2)]);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let fake = Fake::failing(vec![Status::already_exists("namespace a exists")]);
    let client = Client::new([fake.serve().await], quick()).expect("well formed");
    let error = client
        .put_namespace(NewNamespace::named("a"))
        .await
        .expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Refused);
    assert_eq!(error.operation, "PutNamespace");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn an_expired_session_ends_the_write_and_the_next_opens_another() {
    let mut expired = Status::failed_precondition("session 101 has expired");
    let mark = "1".parse().expect("ascii");
    expired.metadata_mut().insert("holdfast-session-expired", mark);
    let fake = Fake::failing(vec![expired]);
    let client = Client::new([fake.serve().await], quick()).expect("well formed");
    let error = client
        .put_namespace(NewNamespace::named("a"))
        .await
        .expect_err("expired");
    assert_eq!(error.kind, ErrorKind::SessionExpired);
    client
        .put_namespace(NewNamespace::named("a"))
        .await
        .expect("done");
    assert_eq!(fake.seen(), [(101, 1), (102, 1)]);
}

#[tokio::test]
async fn trouble_to_the_end_is_unknown() {
    let fake = Fake::failing(vec![Status::unavailable("no leader"); 1000]);
    let options = Options {
        timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let client = Client::new([fake.serve().await], options).expect("well formed");
    let error = client
        .put_namespace(NewNamespace::named("a"))
        .await
        .expect_err("no leader");
    assert_eq!(error.kind, ErrorKind::Unknown, "{error}");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let fake = Fake::default();
    let client = Client::new(["127.0.0.1:1".to_owned(), fake.serve().await], quick()).expect("well formed");
    client
        .put_namespace(NewNamespace::named("a"))
        .await
        .expect("done by the second");
    assert_eq!(fake.seen(), [(101, 1)]);
}

#[tokio::test]
async fn a_broken_drain_is_joined_under_its_session() {
    let fake = Fake::default();
    let client = Client::new([fake.serve().await], quick()).expect("well formed");
    let mut stream = client.drain_node(NodeId(2)).await.expect("begun");
    let mut steps = Vec::new();
    while let Some(step) = stream.next().await.expect("joined") {
        steps.push(step.done);
    }
    assert_eq!(steps, [1, 1, 2]);
    let drains = fake.0.lock().expect("lock").drains.clone();
    assert_eq!(drains.len(), 2);
    assert_eq!(drains[0], drains[1]);
}

#[tokio::test]
async fn a_refused_move_says_why() {
    let fake = Fake::default();
    let client = Client::new([fake.serve().await], quick()).expect("well formed");
    let Err(error) = client
        .move_replica(types::PartitionId(5), NodeId(2), NodeId(3))
        .await
    else {
        panic!("refused");
    };
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.to_string().contains("no replica of partition 5"), "{error}");
}

#[tokio::test]
async fn maps_never_go_back() {
    let fake = Fake::default();
    let client = Client::new([fake.serve().await], quick()).expect("well formed");
    let mut maps = client.watch_map();
    let mut revisions = Vec::new();
    for _ in 0..3 {
        revisions.push(maps.next().await.expect("a map").revision);
    }
    assert_eq!(revisions, [1, 2, 3]);
}
