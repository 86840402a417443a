//! Over real loopback TCP: each process is a runtime of its own, so that killing it closes its sockets at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use env::{Env, Incoming};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proto::peer::{Frame, JoinReply, JoinRequest, Kind, Lane};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use types::limits::BULK_CHUNK_BYTES;
use types::{BootId, ClusterId, ClusterVersion, Incarnation, NodeId, PartitionId, ReplicaId};

use super::*;
use crate::RequestError;

mod refusals;

const LIMIT: Duration = Duration::from_secs(20);
const P: PartitionId = PartitionId(3);
const STREAM_ITEM_BYTES: usize = 64 * 1024;

/// Echoes queries, records the order of appends, never answers proposals, streams as many answers as asked.
#[derive(Default)]
struct Handler {
    order: Mutex<Vec<u64>>,
    produced: AtomicU64,
    cancelled: Arc<AtomicU64>,
}

struct CountDrop(Arc<AtomicU64>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn known(node: u64, incarnation: u64, address: &str) -> KnownPeer {
    KnownPeer {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        boots: 0,
        address: address.to_owned(),
    }
}

fn number(body: &Bytes) -> u64 {
    u64::from_be_bytes(body[..8].try_into().expect("eight bytes"))
}

/// Asks for an answer that no frame may carry.
const TOO_LARGE: &[u8] = b"too large";

impl FrameHandler for Arc<Handler> {
    fn handle(&self, _: NodeId, frame: Frame) -> BoxFuture<'static, Result<Bytes, Status>> {
        let this = self.clone();
        async move {
            match frame.kind() {
                Kind::Append => {
                    let n = number(&frame.body);
                    this.order.lock().push(n);
                    // Some answers come later than others.
                    for _ in 0..n % 3 {
                        tokio::task::yield_now().await;
                    }
                    Ok(frame.body)
                }
                Kind::Propose => std::future::pending().await,
                Kind::Admin => Err(Status::not_found("nothing there")),
                _ if frame.body == TOO_LARGE => Ok(vec![0; FRAME_BYTES_MAX + 1].into()),
                _ => Ok(frame.body),
            }
        }
        .boxed()
    }

    fn handle_stream(
        &self,
        _: NodeId,
        frame: Frame,
        out: mpsc::Sender<Bytes>,
    ) -> BoxFuture<'static, Result<(), Status>> {
        let this = self.clone();
        let gone = CountDrop(self.cancelled.clone());
        async move {
            let _gone = gone;
            for n in 0..number(&frame.body) {
                let mut item = vec![0; STREAM_ITEM_BYTES];
                item[..8].copy_from_slice(&n.to_be_bytes());
                if out.send(Bytes::from(item)).await.is_err() {
                    break;
                }
                this.produced.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        }
        .boxed()
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinReply, Status>> {
        let reply = JoinReply {
            node_id: request.node_id,
            ..JoinReply::default()
        };
        std::future::ready(Ok(reply)).boxed()
    }
}

fn mine(node: u64, boot: u64) -> Mine {
    Mine {
        cluster: ClusterId(7),
        node: NodeId(node),
        incarnation: Incarnation(node * 11),
        boot: BootId(boot),
        boots: boot,
        version: ClusterVersion(1),
        oldest: ClusterVersion(1),
        address: String::new(),
    }
}

struct Process {
    runtime: Option<Runtime>,
    peers: Arc<Peers>,
    handler: Arc<Handler>,
    address: String,
}

impl Process {
    fn start(mut mine: Mine, at: &str) -> Process {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("runtime");
        let handler = Arc::new(Handler::default());
        let (peers, address) = runtime.block_on(async {
            let env = Env::production();
            let deadline = Instant::now() + LIMIT;
            let listen = loop {
                match env.net.listen(at).await {
                    Ok(listen) => break listen,
                    Err(error) => assert!(Instant::now() < deadline, "{at}: {error}"),
                }
            };
            let address = listen.local_address();
            mine.address.clone_from(&address);
            let carrier = Arc::new(Grpc::new(env.net.clone()));
            let peers = Peers::start(mine, env, carrier, Arc::new(handler.clone()));
            let server = tonic::transport::Server::builder().add_service(peers.service().server());
            tokio::spawn(server.serve_with_incoming(Incoming::new(listen)));
            (peers, address)
        });
        Process {
            runtime: Some(runtime),
            peers,
            handler,
            address,
        }
    }

    fn fresh(node: u64) -> Process {
        Process::start(mine(node, 1), "127.0.0.1:0")
    }

    fn on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("alive").block_on(work)
    }

    fn knows(&self, peers: &[(u64, &str)]) {
        let peers = peers.iter().map(|(n, at)| known(*n, n * 11, at)).collect();
        self.on(async { self.peers.set_peers(peers, Vec::new()) });
    }

    fn call(
        &self,
        to: u64,
        lane: Lane,
        kind: Kind,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, RequestError> {
        let (to, none) = (NodeId(to), ReplicaId(0));
        self.on(self.peers.call(to, lane, frame(kind, P, none, none, body), limit))
    }

    fn status(&self, node: u64) -> PeerStatus {
        self.peers
            .status()
            .into_iter()
            .find(|status| status.node == NodeId(node))
            .expect("known")
    }

    /// All its sockets close; nothing is said.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn pair() -> (Process, Process) {
    let (one, two) = (Process::fresh(1), Process::fresh(2));
    one.knows(&[(1, &one.address), (2, &two.address)]);
    two.knows(&[(1, &one.address), (2, &two.address)]);
    for (from, to) in [(&one, 2), (&two, 1)] {
        for lane in [Lane::Control, Lane::Log, Lane::Request, Lane::Bulk] {
            eventually("every lane connects", || {
                from.call(to, lane, Kind::Query, Bytes::from_static(b"up?"), LIMIT)
                    .is_ok()
            });
        }
    }
    (one, two)
}

#[test]
fn requests_are_answered_refused_or_not_sent() {
    let (one, _two) = pair();
    let body = Bytes::from_static(b"hello");
    assert_eq!(
        one.call(2, Lane::Request, Kind::Query, body.clone(), LIMIT),
        Ok(body.clone())
    );
    let refused = one.call(2, Lane::Request, Kind::Admin, body.clone(), LIMIT);
    assert_eq!(
        refused,
        Err(RequestError::Refused {
            code: tonic::Code::NotFound,
            text: "nothing there".into()
        })
    );
    let unknown_node = one.call(9, Lane::Request, Kind::Query, body.clone(), LIMIT);
    assert!(
        matches!(unknown_node, Err(RequestError::NotSent(_))),
        "{unknown_node:?}"
    );
    let late = one.call(2, Lane::Request, Kind::Propose, body, Duration::from_millis(30));
    assert!(matches!(late, Err(RequestError::Unknown(_))), "{late:?}");
    assert_eq!(one.status(2).state, PeerState::Alive);
    assert_eq!(one.status(2).suspicion, "");
}

#[test]
fn a_request_to_who_is_not_connected_fails_at_once() {
    let one = Process::fresh(1);
    one.knows(&[(2, "127.0.0.1:1")]);
    let before = Instant::now();
    let failed = one.call(2, Lane::Log, Kind::Append, Bytes::from_static(b"x"), LIMIT);
    assert!(matches!(failed, Err(RequestError::NotSent(_))), "{failed:?}");
    assert!(before.elapsed() < LIMIT / 2);
    eventually("the refusal shows", || {
        one.status(2).suspicion.contains("not reached")
    });
    assert_eq!(
        one.status(2).state,
        PeerState::Silent,
        "no evidence without a connection before"
    );
}

#[test]
fn order_is_kept_and_every_reply_finds_its_request() {
    const COUNT: u64 = 50_000;
    let (one, two) = pair();
    let before = Instant::now();
    one.on(async {
        let mut replies = std::collections::VecDeque::new();
        for n in 0..COUNT {
            let body = Bytes::copy_from_slice(&[n.to_be_bytes().as_slice(), &[7; 292]].concat());
            let frame = frame(Kind::Append, P, ReplicaId(2), ReplicaId(1), body);
            replies.push_back((n, one.peers.begin(NodeId(2), Lane::Log, frame).expect("queued")));
            if replies.len() >= 1000 {
                let (n, reply) = replies.pop_front().expect("some");
                assert_eq!(number(&reply.within(LIMIT).await.expect("answered")), n);
            }
        }
        for (n, reply) in replies {
            assert_eq!(number(&reply.within(LIMIT).await.expect("answered")), n);
        }
    });
    eprintln!("{COUNT} appends of 300 bytes: {:?}", before.elapsed());
    let order = two.handler.order.lock();
    assert!(order.iter().copied().eq(0..COUNT), "out of order");
}

fn vanish(graceful: bool) -> Duration {
    let (one, mut two) = pair();
    let mut deaths = one.peers.deaths();
    let pending = {
        let frame = frame(Kind::Propose, P, ReplicaId(0), ReplicaId(0), Bytes::new());
        one.peers.begin(NodeId(2), Lane::Request, frame).expect("sent")
    };
    // An answer on the same lane afterwards: the request before it was written.
    one.call(2, Lane::Request, Kind::Query, Bytes::new(), LIMIT)
        .expect("answered");
    if graceful {
        two.on(two.peers.stop());
    }
    let before = Instant::now();
    two.kill();
    let death = one.on(async { tokio::time::timeout(LIMIT, deaths.recv()).await });
    let took = before.elapsed();
    let evidence = DeadEvidence {
        node: NodeId(2),
        boot: BootId(1),
        planned: graceful,
    };
    assert_eq!(death.expect("in time").expect("open"), evidence);
    let lost = one.on(pending.within(LIMIT));
    assert!(matches!(lost, Err(RequestError::Unknown(_))), "{lost:?}");
    let status = one.status(2);
    assert_eq!(status.state, PeerState::Dead);
    let suspicion = &status.suspicion;
    assert_eq!(suspicion.contains("planned"), graceful, "{suspicion}");
    assert!(
        !suspicion.contains("nothing was heard"),
        "by its connection, not by its silence: {suspicion}"
    );
    let health = one.peers.health(NodeId(2)).expect("known");
    assert!(one.on(health.confirms_dead(BootId(1), Duration::ZERO)));
    assert!(!one.on(health.confirms_dead(BootId(2), Duration::ZERO)));

    // The next process of the same node ends the suspicion.
    let again = Process::start(mine(2, 2), &two.address);
    again.knows(&[(1, &one.address)]);
    eventually("it is connected again", || {
        one.status(2).state == PeerState::Alive
    });
    assert_eq!(one.status(2).boot, BootId(2));
    eventually("requests work again", || {
        one.call(2, Lane::Log, Kind::Query, Bytes::new(), LIMIT).is_ok()
    });
    took
}

#[test]
fn a_killed_process_is_found_dead_at_once() {
    let best = (0..3).map(|_| vanish(false)).min().expect("three");
    eprintln!("found dead after {best:?}");
    assert!(best < SILENT_AFTER, "{best:?}: no sooner than by its silence");
}

#[test]
fn a_planned_stop_is_told_apart() {
    vanish(true);
}

#[test]
fn a_silent_process_is_not_called_dead() {
    let (one, two) = pair();
    let mut deaths = one.peers.deaths();
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    // Its only worker and the timer stand still; the kernel goes on taking connections for it.
    two.runtime.as_ref().expect("alive").spawn(async move {
        let _ = held.recv();
    });
    eventually("it is called silent", || one.status(2).state == PeerState::Silent);
    // Also after its connections were cut and new ones got no answer.
    eventually("its connections were cut", || {
        one.status(2).suspicion.contains("connection lost")
    });
    assert!(deaths.try_recv().is_err(), "silence is no evidence");
    go_on.send(()).expect("held");
    eventually("it is alive again", || one.status(2).state == PeerState::Alive);
    assert!(deaths.try_recv().is_err());
}

/// Fills the bulk lane, then asks on the control lane; returns whether the answer came before the bulk was through.
async fn overtakes(peers: &Peers) -> bool {
    let none = ReplicaId(0);
    let chunk = Bytes::from(vec![7; BULK_CHUNK_BYTES]);
    let bulk = || frame(Kind::CheckpointChunk, P, none, none, chunk.clone());
    let mut queued = Vec::new();
    while let Ok(reply) = peers.begin(NodeId(2), Lane::Bulk, bulk()) {
        queued.push(reply);
    }
    let last = queued.pop().expect("the lane takes some");
    let body = Bytes::from_static(b"vote");
    let ask = frame(Kind::Query, P, none, none, body);
    let answer = peers.call(NodeId(2), Lane::Control, ask, LIMIT);
    answer.await.expect("answered");
    let overtook = last.within(LIMIT).now_or_never().is_none();
    for reply in queued {
        reply.within(LIMIT).await.expect("taken");
    }
    overtook
}

#[test]
fn bulk_does_not_delay_control() {
    let (one, _two) = pair();
    // Behind the bulk it could not overtake once; beside it a pause of this process may let the bulk win sometimes.
    let overtook = (0..10).any(|_| one.on(overtakes(&one.peers)));
    assert!(overtook, "what was queued after the bulk was answered after it");
}

#[test]
fn a_slow_consumer_is_bounded_and_misses_nothing() {
    const COUNT: u64 = 500;
    let (one, two) = pair();
    let body = Bytes::copy_from_slice(&COUNT.to_be_bytes());
    let mut answers = one
        .on(async { one.peers.stream(NodeId(2), P, body.clone()) })
        .expect("begun");
    let produced = || two.handler.produced.load(Ordering::SeqCst);
    eventually("the window fills", || {
        produced() * STREAM_ITEM_BYTES as u64 >= STREAM_WINDOW_BYTES as u64
    });
    // Other requests of the lane go on, and whatever the producer could still do it does meanwhile.
    for _ in 0..200 {
        one.call(2, Lane::Request, Kind::Query, Bytes::new(), LIMIT)
            .expect("not delayed");
    }
    let bound = STREAM_WINDOW_BYTES as u64 / STREAM_ITEM_BYTES as u64 * 2 + 32;
    assert!(
        produced() <= bound,
        "{} produced ahead, at most {bound}",
        produced()
    );
    let got = one.on(async {
        let mut got = Vec::new();
        while let Some(answer) = answers.recv().await {
            got.push(number(&answer.expect("no error")));
        }
        got
    });
    assert!(got.into_iter().eq(0..COUNT));

    let abandoned = one
        .on(async { one.peers.stream(NodeId(2), P, body) })
        .expect("begun");
    eventually("it runs", || produced() > COUNT);
    assert_eq!(two.handler.cancelled.load(Ordering::SeqCst), 1);
    drop(abandoned);
    eventually("it is cancelled", || {
        two.handler.cancelled.load(Ordering::SeqCst) == 2
    });
}

#[test]
fn a_moved_peer_is_found_at_its_new_address() {
    let (one, mut two) = pair();
    two.kill();
    eventually("it is gone", || !one.peers.is_connected(NodeId(2)));
    let moved = Process::start(mine(2, 2), "127.0.0.1:0");
    moved.knows(&[(1, &one.address)]);
    one.knows(&[(2, &moved.address)]);
    eventually("it is found", || {
        one.call(2, Lane::Bulk, Kind::Query, Bytes::new(), LIMIT).is_ok()
    });
    assert_eq!(one.status(2).boot, BootId(2));
}

#[test]
fn a_frame_beyond_the_limit_is_not_sent() {
    let (one, _two) = pair();
    let failed = one.call(
        2,
        Lane::Bulk,
        Kind::Query,
        Bytes::from(vec![0; FRAME_BYTES_MAX + 1]),
        LIMIT,
    );
    assert!(matches!(failed, Err(RequestError::NotSent(_))), "{failed:?}");
    let asked = Bytes::from_static(TOO_LARGE);
    let failed = one.call(2, Lane::Bulk, Kind::Query, asked, LIMIT);
    assert!(
        matches!(
            &failed,
            Err(RequestError::Refused {
                code: tonic::Code::OutOfRange,
                ..
            })
        ),
        "{failed:?}"
    );
    let largest = Bytes::from(vec![0; FRAME_BYTES_MAX]);
    assert_eq!(
        one.call(2, Lane::Bulk, Kind::Query, largest.clone(), LIMIT),
        Ok(largest)
    );
}

#[test]
fn garbage_on_the_port_is_answered_with_an_error() {
    let one = Process::fresh(1);
    let env = Env::production();
    one.on(async {
        use proto::peer::peer_client::PeerClient;
        let channel =
            tonic::transport::Endpoint::from_shared(format!("http://{}", one.address)).expect("uri");
        let channel = channel
            .connect_with_connector(env::Connector::new(env.net.clone(), LIMIT))
            .await
            .expect("up");
        let mut client = PeerClient::new(channel);
        let no_hello = futures::stream::iter([proto::peer::Frames::default()]);
        let status = client.lane(no_hello).await.expect_err("refused");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        let joined = client
            .join(JoinRequest {
                node_id: 4,
                ..JoinRequest::default()
            })
            .await
            .expect("passed on");
        assert_eq!(joined.into_inner().node_id, 4);
    });
}
