//! Groups over real connections: three processes, each a runtime of its own, with default timing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use env::{Env, Incoming};
use futures::FutureExt;
use futures::future::BoxFuture;
use machine::command::{Body, PutRequest};
use machine::{Command, Outcome};
use openraft::async_runtime::watch::WatchReceiver;
use proto::peer::{self, Frame, JoinReply, JoinRequest, Kind, Lane};
use storage::memory::MemoryDisk;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use types::{BootId, ClusterId, ClusterVersion, Incarnation, NodeId, PartitionId, ReplicaId, Slot};

use super::receive::Receiving;
use crate::convert;
use crate::peer::{FrameHandler, Grpc, KnownPeer, Mine, PeerState, Peers, frame};
use crate::{ApplyListener, Node, NodeConfig, Replica, RequestError, RequestHandler, Retention, Timing};

const LIMIT: Duration = Duration::from_secs(20);
const GROUPS: u32 = 8;
/// The node that the forger claims to be.
const FORGER: u64 = 9;

pub(super) struct Nothing;

#[async_trait]
impl RequestHandler for Nothing {
    async fn handle(
        &self,
        _: NodeId,
        _: Kind,
        _: PartitionId,
        body: Bytes,
        _: Bytes,
    ) -> Result<Bytes, Status> {
        Ok(body)
    }

    async fn handle_stream(
        &self,
        _: NodeId,
        _: Kind,
        _: PartitionId,
        _: Bytes,
        _: mpsc::Sender<Bytes>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, Status> {
        Err(Status::unimplemented("not here"))
    }
}

impl ApplyListener for Nothing {
    fn applied(&self, _: PartitionId, _: u64, _: &Arc<Outcome>) {}
    fn installed(&self, _: PartitionId) {}
    fn leadership(&self, _: PartitionId, _: Option<NodeId>, _: u64, _: bool) {}
}

impl FrameHandler for Nothing {
    fn handle(&self, _: NodeId, frame: Frame) -> BoxFuture<'static, Result<Bytes, Status>> {
        std::future::ready(Ok(frame.body)).boxed()
    }

    fn handle_stream(
        &self,
        _: NodeId,
        _: Frame,
        _: mpsc::Sender<Bytes>,
    ) -> BoxFuture<'static, Result<(), Status>> {
        std::future::ready(Ok(())).boxed()
    }

    fn join(&self, _: JoinRequest) -> BoxFuture<'static, Result<JoinReply, Status>> {
        std::future::ready(Err(Status::unimplemented("not here"))).boxed()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime")
}

pub(super) struct Process {
    runtime: Option<Runtime>,
    pub(super) node: Arc<Node>,
    address: String,
}

impl Process {
    pub(super) fn start(n: u64, timing: Timing) -> Process {
        let runtime = runtime();
        let (node, address) = runtime.block_on(async {
            let env = Env::production();
            let listen = env.net.listen("127.0.0.1:0").await.expect("listen");
            let address = listen.local_address();
            let config = NodeConfig {
                node: NodeId(n),
                cluster: ClusterId(7),
                incarnation: Incarnation(n),
                boot: BootId(100 + n),
                boots: 1,
                peer_address: address.clone(),
                timing,
                retention: Retention::default(),
                disk_reserve_bytes: 0,
            };
            let disk = MemoryDisk::new();
            let log = disk.log(Arc::new(|text: &str| panic!("{text}")));
            let node = Node::start(
                config,
                env,
                log,
                disk.stores(),
                Arc::new(Nothing),
                Arc::new(Nothing),
            );
            let node = node.await.expect("started");
            let server = tonic::transport::Server::builder().add_service(node.peer_service());
            tokio::spawn(server.serve_with_incoming(Incoming::new(listen)));
            (node, address)
        });
        Process {
            runtime: Some(runtime),
            node,
            address,
        }
    }

    pub(super) fn on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("alive").block_on(work)
    }

    fn replica(&self, partition: u32) -> Replica {
        self.node.replica(PartitionId(partition)).expect("open")
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
#[expect(clippy::disallowed_methods, reason = "outside of any runtime")]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn replica_of(partition: u32, n: u64) -> ReplicaId {
    ReplicaId(u64::from(partition) * 10 + n)
}

fn known(node: u64, incarnation: u64, address: String) -> KnownPeer {
    KnownPeer {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        boots: 0,
        address,
    }
}

/// Nodes 1 to 3; node 1 leads all groups.
fn cluster() -> Vec<Process> {
    cluster_with(Timing::default())
}

fn cluster_with(timing: Timing) -> Vec<Process> {
    let nodes: Vec<Process> = (1..=3).map(|n| Process::start(n, timing)).collect();
    let addresses = nodes
        .iter()
        .zip(1..)
        .map(|(process, n)| known(n, n, process.address.clone()));
    let mut addresses: Vec<_> = addresses.collect();
    // Nobody is there yet; see `forger`.
    addresses.push(known(FORGER, 0, "127.0.0.1:1".into()));
    for process in &nodes {
        process.on(async { process.node.set_peers(addresses.clone(), Vec::new()) });
    }
    for partition in 0..GROUPS {
        form(&nodes, partition);
    }
    nodes
}

fn form(nodes: &[Process], partition: u32) {
    let id = PartitionId(partition);
    let first = nodes[0]
        .on(nodes[0].node.found(id, replica_of(partition, 1)))
        .expect("founded");
    eventually("the founder leads", || first.is_leader());
    for (process, n) in nodes.iter().zip(1..).skip(1) {
        process
            .on(process.node.open(id, replica_of(partition, n)))
            .expect("opened");
        eventually("the learner is added", || {
            nodes[0]
                .on(first.add_learner(replica_of(partition, n), NodeId(n)))
                .is_ok()
        });
    }
    let voters: BTreeSet<_> = (1..=3).map(|n| replica_of(partition, n)).collect();
    eventually("all vote", || {
        nodes[0].on(first.set_voters(voters.clone())).is_ok()
    });
    for process in nodes {
        let replica = process.replica(partition);
        eventually("all know the voters and the leader", || {
            let status = replica.status();
            status.voters.len() == 3 && !status.is_joint && status.leader.is_some()
        });
    }
}

pub(super) fn propose(process: &Process, partition: u32) -> bool {
    let put = PutRequest {
        key: Bytes::from_static(b"key"),
        ..PutRequest::default()
    };
    let slot = u32::from(Slot::of_namespace("default").0);
    let command = Command {
        slot,
        namespace: 1,
        body: Some(Body::Put(put)),
        ..Command::default()
    };
    process
        .on(process.replica(partition).propose(command, LIMIT))
        .inspect_err(|error| eprintln!("partition {partition}: {error}"))
        .is_ok()
}

/// Time-outs that never come about in a test: whoever is elected is elected for another reason.
const PATIENT: Timing = Timing {
    heartbeat_ms: 300,
    election_min_ms: 600_000,
    election_max_ms: 900_000,
};
/// How long quick elections may take. They take tens of milliseconds.
const QUICK: Duration = Duration::from_secs(10);

/// Kills the leader of all groups; whether others came to lead all of them.
fn led_again() -> bool {
    let mut nodes = cluster_with(PATIENT);
    let before = Instant::now();
    nodes[0].kill();
    let led = |partition| {
        let mut others = nodes[1..].iter();
        others.any(|process| process.replica(partition).is_leader())
    };
    while !(0..GROUPS).all(led) {
        if before.elapsed() > QUICK {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    eprintln!("{GROUPS} groups led again after {:?}", before.elapsed());
    for partition in 0..GROUPS {
        eventually("it takes commands", || {
            nodes[1..].iter().any(|process| propose(process, partition))
        });
    }
    for process in &nodes[1..] {
        let status = process
            .node
            .peers()
            .into_iter()
            .find(|status| status.node == NodeId(1))
            .expect("known");
        assert_eq!(status.state, PeerState::Dead);
        assert!(status.quick_elections <= 1, "{status:?}");
    }
    true
}

#[test]
fn groups_of_a_killed_process_elect_at_once() {
    // Candidates that split the votes of their one quick round wait for their time-outs: rare, and no fault.
    assert!((0..3).any(|_| led_again()), "no quick election came to its end");
}

#[test]
fn a_planned_transfer_does_not_wait_for_leases() {
    let nodes = cluster();
    let (leader, target) = (nodes[0].replica(0), nodes[2].replica(0));
    let before = Instant::now();
    eventually("the transfer is taken", || {
        nodes[0].on(leader.transfer_leader(replica_of(0, 3))).is_ok()
    });
    eventually("the target leads", || target.is_leader());
    eprintln!("transferred in {:?}", before.elapsed());
    eventually("the new leader takes commands", || propose(&nodes[2], 0));
}

/// A member that lies about deaths.
fn forger(nodes: &[Process]) -> (Runtime, Arc<Peers>) {
    let runtime = runtime();
    let mine = Mine {
        cluster: ClusterId(7),
        node: NodeId(FORGER),
        incarnation: Incarnation(1),
        boot: BootId(1),
        boots: 1,
        version: ClusterVersion(1),
        oldest: ClusterVersion(1),
        address: "127.0.0.1:1".into(),
    };
    let peers = runtime.block_on(async {
        let peers = {
            let env = Env::production();
            let carrier = Arc::new(Grpc::new(env.net.clone()));
            Peers::start(mine, env, carrier, Arc::new(Nothing))
        };
        let addresses = nodes
            .iter()
            .zip(1..)
            .map(|(process, n)| known(n, n, process.address.clone()));
        peers.set_peers(addresses.collect(), Vec::new());
        peers
    });
    eventually("the forger is let in", || {
        (1..=3).all(|n| peers.is_connected(NodeId(n)))
    });
    (runtime, peers)
}

fn ask_vote(runtime: &Runtime, peers: &Peers, request: &peer::VoteRequest) -> peer::VoteResponse {
    let body = convert::encode(request);
    let (to, own) = (replica_of(0, 2), replica_of(0, 3));
    let ask = frame(Kind::Vote, PartitionId(0), to, own, body);
    let vote = peers.call(NodeId(2), Lane::Control, ask, LIMIT);
    convert::decode("vote response", runtime.block_on(vote).expect("answered")).expect("well formed")
}

#[test]
fn a_voter_believes_its_own_detector_only() {
    let nodes = cluster();
    let (runtime, peers) = forger(&nodes);
    let term = nodes[1].replica(0).status().term;
    let vote = peer::Vote {
        term: term + 5,
        replica: replica_of(0, 3).0,
        committed: false,
    };
    let last_log_id = Some(peer::LogId {
        term: term + 5,
        replica: replica_of(0, 3).0,
        index: 1_000_000,
    });
    let mut request = peer::VoteRequest {
        vote: Some(vote),
        last_log_id,
        leadership_transfer: true,
        planned: false,
        dead_node: 1,
        dead_boot_id: 101,
    };
    for (dead_node, dead_boot_id) in [(1, 101), (1, 7), (2, 102), (3, 103), (0, 0)] {
        (request.dead_node, request.dead_boot_id) = (dead_node, dead_boot_id);
        let answer = ask_vote(&runtime, &peers, &request);
        assert!(
            !answer.granted,
            "node {dead_node} lives, and its lease holds: {answer:?}"
        );
    }
    assert!(nodes[0].replica(0).is_leader());
    assert_eq!(nodes[1].replica(0).status().term, term);
    // The same with the leader's own word for it is honoured.
    request.planned = true;
    let answer = ask_vote(&runtime, &peers, &request);
    assert!(answer.granted, "{answer:?}");
}

#[test]
fn a_replica_that_is_not_here_is_said_so() {
    let nodes = cluster();
    let (runtime, peers) = forger(&nodes);
    let append = |to: ReplicaId, body: &'static [u8]| {
        let body = Bytes::from_static(body);
        let ask = frame(Kind::Append, PartitionId(0), to, ReplicaId(0), body);
        let call = peers.call(NodeId(2), Lane::Log, ask, LIMIT);
        match runtime.block_on(call) {
            Err(RequestError::Refused { code, .. }) => Some(code),
            Err(RequestError::NotSent(_)) => None,
            other => panic!("{other:?}"),
        }
    };
    // The log lane is connected a little after the control lane.
    eventually("the log lane is up", || append(ReplicaId(77), b"").is_some());
    assert_eq!(append(ReplicaId(77), b""), Some(tonic::Code::NotFound));
    assert_eq!(
        append(replica_of(0, 2), b"\xff\xff\xff"),
        Some(tonic::Code::InvalidArgument)
    );
}

/// A transfer of the files of a founded replica's state, driven by hand.
#[test]
fn a_broken_transfer_goes_on_where_it_was() {
    let process = Process::start(1, Timing::default());
    let source = process
        .on(process.node.found(PartitionId(0), ReplicaId(1)))
        .expect("founded");
    eventually("it leads", || source.is_leader());
    assert!(propose(&process, 0));
    let raft = source.group().raft.clone();
    let checkpoint = source.store().checkpoint().expect("checkpoint");
    let (log_id, membership) = convert::applied_in(&checkpoint.applied()).expect("applied");
    let target = MemoryDisk::new()
        .stores()
        .open(PartitionId(0), ReplicaId(2))
        .expect("open");
    let vote = raft.metrics().borrow_watched().vote;
    let begin = |snapshot_id: &str| {
        let files = checkpoint.files().into_iter();
        let files = files.map(|file| peer::FileSize {
            name: file.name,
            size_bytes: file.size_bytes,
        });
        let meta = peer::SnapshotMeta {
            last_log_id: Some(convert::log_id_out(&log_id)),
            membership: Some(convert::stored_membership_out(&membership)),
            snapshot_id: snapshot_id.into(),
        };
        convert::encode(&peer::CheckpointBegin {
            vote: Some(convert::vote_out(&vote)),
            meta: Some(meta),
            files: files.collect(),
        })
    };
    let receiving = Receiving::new(Env::production(), Arc::new(|| Ok(1 << 20)));
    let at = (PartitionId(0), ReplicaId(2));
    let begun = |answer: Bytes| convert::decode::<peer::CheckpointBegun>("begun", answer).expect("begun");
    let file = checkpoint
        .files()
        .into_iter()
        .max_by_key(|file| file.size_bytes)
        .expect("a file");
    let half = (file.size_bytes / 2) as usize;
    let data = checkpoint.read(&file.name, 0, half).expect("read");
    process.on(async {
        let first = begun(
            receiving
                .begin(at, target.clone(), begin("a"))
                .await
                .expect("begun"),
        );
        let chunk = peer::CheckpointChunk {
            transfer_id: first.transfer_id,
            name: file.name.clone(),
            offset: 0,
            hash: xxhash_rust::xxh3::xxh3_64(&data),
            data: data.clone(),
        };
        let send = |chunk: peer::CheckpointChunk| receiving.chunk(at, convert::encode(&chunk));
        let code = |result: Result<Bytes, Status>| result.expect_err("refused").code();
        let damaged = peer::CheckpointChunk {
            hash: 1,
            ..chunk.clone()
        };
        assert_eq!(code(send(damaged).await), tonic::Code::DataLoss);
        let other = peer::CheckpointChunk {
            transfer_id: 1,
            ..chunk.clone()
        };
        assert_eq!(code(send(other).await), tonic::Code::Aborted);
        let gap = peer::CheckpointChunk {
            offset: 5,
            ..chunk.clone()
        };
        assert_eq!(code(send(gap).await), tonic::Code::OutOfRange);
        let stranger = peer::CheckpointChunk {
            name: "stranger".into(),
            ..chunk.clone()
        };
        assert_eq!(code(send(stranger).await), tonic::Code::InvalidArgument);
        send(chunk.clone()).await.expect("taken");
        send(chunk).await.expect("taken once more, written once");

        let end = convert::encode(&peer::CheckpointEnd {
            transfer_id: first.transfer_id,
        });
        assert_eq!(
            code(receiving.end(at, raft.clone(), end).await),
            tonic::Code::DataLoss
        );
        let again = begun(
            receiving
                .begin(at, target.clone(), begin("a"))
                .await
                .expect("again"),
        );
        assert_eq!(again.transfer_id, first.transfer_id);
        let there = peer::FileSize {
            name: file.name.clone(),
            size_bytes: data.len() as u64,
        };
        assert_eq!(again.received, vec![there]);
        let anew = begun(
            receiving
                .begin(at, target.clone(), begin("b"))
                .await
                .expect("anew"),
        );
        assert_ne!(anew.transfer_id, first.transfer_id);
        assert!(anew.received.is_empty());
    });
}
