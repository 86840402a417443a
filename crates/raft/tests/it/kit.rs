//! A cluster in one process: nodes over loopback, disks that outlive them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use env::{Clock, Env};
use machine::command::{Body, PutRequest, RangeRequest};
use machine::query::{Ask, Told};
use machine::{Command, Outcome, Query};
use parking_lot::Mutex;
use proto::peer::{JoinReply, JoinRequest, Kind};
use raft::{
    ApplyListener, KnownPeer, Node, NodeConfig, ProposeError, Proposed, Replica, RequestHandler, Retention,
    Timing,
};
use storage::memory::MemoryDisk;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Status;
use types::{BootId, ClusterId, Incarnation, NodeId, PartitionId, ReplicaId, Slot};

use crate::links::{Links, NoEvidence};

pub const P: PartitionId = PartitionId(7);
pub const LIMIT: Duration = Duration::from_secs(20);
pub const NAMESPACE: u32 = 1;

pub fn timing() -> Timing {
    Timing {
        heartbeat_ms: 60,
        election_min_ms: 300,
        election_max_ms: 500,
    }
}

/// Time-outs that do not come about because the machine is busy.
pub fn calm() -> Timing {
    Timing {
        heartbeat_ms: 100,
        election_min_ms: 1500,
        election_max_ms: 2500,
    }
}

pub fn slot() -> u32 {
    u32::from(Slot::of_namespace("default").0)
}

/// The replica of partition `P` on a node.
pub fn replica_of(n: u64) -> ReplicaId {
    ReplicaId(100 + n)
}

/// The replica of any partition on a node.
fn replica_in(partition: PartitionId, n: u64) -> ReplicaId {
    match partition {
        P => replica_of(n),
        other => ReplicaId(10_000 + 10 * u64::from(other.0) + n),
    }
}

pub struct Refuse;

#[async_trait]
impl RequestHandler for Refuse {
    async fn handle(
        &self,
        _: NodeId,
        kind: Kind,
        _: PartitionId,
        body: Bytes,
        _: Bytes,
    ) -> Result<Bytes, Status> {
        match kind {
            Kind::Status => Ok(body),
            _ => Err(Status::unimplemented("not served in this test")),
        }
    }

    async fn handle_stream(
        &self,
        _: NodeId,
        _: Kind,
        _: PartitionId,
        _: Bytes,
        _: tokio::sync::mpsc::Sender<Bytes>,
    ) -> Result<(), Status> {
        Err(Status::unimplemented("not served in this test"))
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, Status> {
        Err(Status::unimplemented("not served in this test"))
    }
}

/// What a listener heard.
#[derive(Default)]
pub struct Heard {
    pub applied: AtomicU64,
    pub installed: AtomicU64,
    pub leaderships: Mutex<Vec<(Option<NodeId>, u64, bool)>>,
    pub fatal: Mutex<Vec<String>>,
    pub gaps: AtomicU64,
}

impl ApplyListener for Heard {
    fn applied(&self, _: PartitionId, index: u64, _: &Arc<Outcome>) {
        let before = self.applied.swap(index, Ordering::SeqCst);
        if before != 0 && before + 1 != index {
            self.gaps.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn installed(&self, _: PartitionId) {
        self.applied.store(0, Ordering::SeqCst);
        self.installed.fetch_add(1, Ordering::SeqCst);
    }

    fn leadership(&self, _: PartitionId, leader: Option<NodeId>, term: u64, mine: bool) {
        self.leaderships.lock().push((leader, term, mine));
    }

    fn fatal(&self, _: PartitionId, text: &str) {
        self.fatal.lock().push(text.to_owned());
    }
}

/// What a cluster runs with.
pub struct Setup {
    pub env: Env,
    pub timing: Timing,
    pub retention: Retention,
    /// If there are any, all connections go over them.
    pub links: Option<Links>,
    /// Of single nodes.
    pub clocks: BTreeMap<u64, Arc<dyn Clock>>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            env: Env::production(),
            timing: timing(),
            retention: Retention::default(),
            links: None,
            clocks: BTreeMap::new(),
        }
    }
}

/// Logs are cut after a few entries, and nothing is kept.
pub fn keeping_little() -> Retention {
    Retention {
        entries: 10,
        kept: 0,
        ..Retention::default()
    }
}

/// A running node.
pub struct Running {
    pub node: Arc<Node>,
    pub heard: Arc<Heard>,
    serving: JoinHandle<()>,
}

/// Nodes 1.. on loopback, their disks kept while they are down.
pub struct Cluster {
    setup: Setup,
    addresses: BTreeMap<u64, String>,
    pub disks: BTreeMap<u64, Arc<MemoryDisk>>,
    pub up: BTreeMap<u64, Running>,
    boots: u64,
}

impl Cluster {
    pub async fn new(nodes: u64) -> Cluster {
        Cluster::with(nodes, Env::production()).await
    }

    /// Without quick elections.
    pub async fn slow_to_elect(nodes: u64) -> Cluster {
        let net = Arc::new(NoEvidence);
        let env = Env {
            net,
            ..Env::production()
        };
        Cluster::with(nodes, env).await
    }

    /// Logs are cut after a few entries, and nothing is kept.
    pub async fn keeping_little(nodes: u64) -> Cluster {
        let retention = keeping_little();
        let setup = Setup {
            retention,
            ..Setup::default()
        };
        Cluster::made(nodes, setup).await
    }

    /// Over links, with nodes `1..=voters` as voters.
    pub async fn linked(nodes: u64, voters: u64, timing: Timing) -> (Cluster, Links) {
        let links = Links::default();
        let setup = Setup {
            timing,
            links: Some(links.clone()),
            ..Setup::default()
        };
        let cluster = Cluster::made(nodes, setup).await;
        cluster.form(&(1..=voters).collect::<Vec<_>>()).await;
        (cluster, links)
    }

    pub async fn with(nodes: u64, env: Env) -> Cluster {
        let setup = Setup {
            env,
            ..Setup::default()
        };
        Cluster::made(nodes, setup).await
    }

    pub async fn made(nodes: u64, setup: Setup) -> Cluster {
        let mut cluster = Cluster {
            setup,
            addresses: BTreeMap::new(),
            disks: BTreeMap::new(),
            up: BTreeMap::new(),
            boots: 0,
        };
        let mut bound = Vec::new();
        for n in 1..=nodes {
            let listen = cluster.setup.env.net.listen("127.0.0.1:0").await.unwrap();
            if let Some(links) = &cluster.setup.links {
                links.at(n, &listen.local_address());
            }
            cluster.addresses.insert(n, listen.local_address());
            cluster.disks.insert(n, MemoryDisk::new());
            bound.push((n, listen));
        }
        for (n, listen) in bound {
            cluster.start(n, listen).await;
        }
        cluster
    }

    fn env_of(&self, n: u64) -> Env {
        let mut env = self.setup.env.clone();
        if let Some(links) = &self.setup.links {
            env.net = links.of(n);
        }
        if let Some(clock) = self.setup.clocks.get(&n) {
            env.clock = clock.clone();
        }
        env
    }

    async fn start(&mut self, n: u64, listen: Box<dyn env::Listen>) {
        self.boots += 1;
        let config = NodeConfig {
            node: NodeId(n),
            cluster: ClusterId(42),
            incarnation: Incarnation(1000 + n),
            boot: BootId(self.boots),
            boots: self.boots,
            peer_address: self.addresses[&n].clone(),
            timing: self.setup.timing,
            retention: self.setup.retention,
            disk_reserve_bytes: 1 << 20,
        };
        let heard = Arc::new(Heard::default());
        let disk = &self.disks[&n];
        let fatal = heard.clone();
        let log = disk.log(Arc::new(move |text: &str| {
            fatal.fatal.lock().push(text.to_owned())
        }));
        let node = Node::start(
            config,
            self.env_of(n),
            log,
            disk.stores(),
            Arc::new(Refuse),
            heard.clone(),
        );
        let node = node.await.unwrap();
        let service = node.peer_service();
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server
                .serve_with_incoming(env::Incoming::new(listen))
                .await
                .unwrap();
        });
        let peers = self.addresses.iter();
        let peers = peers
            .map(|(id, at)| KnownPeer {
                node: NodeId(*id),
                incarnation: Incarnation(1000 + id),
                boots: 0,
                address: at.clone(),
            })
            .collect();
        node.set_peers(peers, Vec::new());
        self.up.insert(n, Running { node, heard, serving });
    }

    /// The process is gone at once; its disk stays as it is.
    pub async fn kill(&mut self, n: u64) {
        let running = self.up.remove(&n).unwrap();
        running.serving.abort();
        running.node.abandon().await;
    }

    /// Where a node listens.
    pub fn address(&self, n: u64) -> String {
        self.addresses[&n].clone()
    }

    /// Starts a node again on what its disk holds, and opens its replica if it had one.
    pub async fn restart(&mut self, n: u64) {
        self.boot(n).await;
        let held = self.disks[&n].stores().list().unwrap();
        for (partition, replica) in held {
            self.node(n).open(partition, replica).await.unwrap();
        }
    }

    /// Starts a node again, and opens nothing.
    pub async fn boot(&mut self, n: u64) {
        let deadline = Instant::now() + LIMIT;
        let listen = loop {
            match self.setup.env.net.listen(&self.addresses[&n]).await {
                Ok(listen) => break listen,
                Err(error) => assert!(Instant::now() < deadline, "port of node {n}: {error}"),
            }
            tokio::task::yield_now().await;
        };
        self.start(n, listen).await;
    }

    pub fn node(&self, n: u64) -> &Arc<Node> {
        &self.up[&n].node
    }

    pub fn replica(&self, n: u64) -> Replica {
        self.node(n).replica(P).unwrap()
    }

    /// Founds partition `P` on the first node and adds voters on the others.
    pub async fn form(&self, voters: &[u64]) {
        self.form_group(P, voters).await;
    }

    /// The same of another partition.
    pub async fn form_group(&self, partition: PartitionId, voters: &[u64]) {
        let id = |n: u64| replica_in(partition, n);
        let first = self
            .node(voters[0])
            .found(partition, id(voters[0]))
            .await
            .unwrap();
        eventually("the founder leads", || first.is_leader()).await;
        for n in &voters[1..] {
            self.join(&first, *n).await;
        }
        let ids: BTreeSet<_> = voters.iter().map(|n| id(*n)).collect();
        changed(|| first.set_voters(ids.clone())).await;
        for n in voters {
            let replica = self.node(*n).replica(partition).unwrap();
            eventually("all know the voters", || {
                replica.status().voters.len() == voters.len()
            })
            .await;
        }
    }

    /// Opens a replica on node `n` and makes it a learner that is caught up.
    pub async fn join(&self, leader: &Replica, n: u64) {
        let partition = leader.partition();
        let id = replica_in(partition, n);
        self.node(n).open(partition, id).await.unwrap();
        changed(|| leader.add_learner(id, NodeId(n))).await;
        eventually("the learner catches up", || {
            let status = leader.status();
            let matched = status.matched.get(&id);
            matched.is_some_and(|matched| *matched + 8 >= status.last_log)
        })
        .await;
    }

    /// The node that leads `P` and knows it.
    pub fn leader(&self) -> Option<u64> {
        let leads = |running: &Running| running.node.replica(P).is_some_and(|replica| replica.is_leader());
        let leading = self.up.iter().filter(|(_, running)| leads(running));
        leading
            .max_by_key(|(_, running)| running.node.replica(P).unwrap().status().term)
            .map(|(n, _)| *n)
    }

    pub async fn wait_leader(&self) -> u64 {
        eventually("someone leads", || self.leader().is_some()).await;
        self.leader().unwrap()
    }

    /// Puts through whoever leads, again only when it certainly did not happen.
    pub async fn put(&self, key: &str, value: &str) -> Result<Proposed, ProposeError> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let result = match self.leader() {
                Some(n) => self.replica(n).propose(put(key, value), LIMIT).await,
                None => Err(ProposeError::NotLeader { leader: None }),
            };
            match result {
                Err(ProposeError::NotLeader { .. } | ProposeError::Stopped) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                result => return result,
            }
        }
    }
}

/// Runs a membership change until it is through.
pub async fn changed<F>(mut change: impl FnMut() -> F)
where
    F: Future<Output = Result<(), raft::MembershipError>>,
{
    let deadline = Instant::now() + LIMIT;
    loop {
        match change().await {
            Ok(()) => return,
            Err(error) => {
                assert!(error.is_retryable() && Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What must be so at every look for that long.
pub async fn holds_for(what: &str, time: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert!(holds(), "not any more: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn command(body: Body) -> Command {
    Command {
        principal: "root".into(),
        slot: slot(),
        namespace: NAMESPACE,
        body: Some(body),
        ..Command::default()
    }
}

pub fn put(key: &str, value: &str) -> Command {
    command(Body::Put(PutRequest {
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
        ..PutRequest::default()
    }))
}

/// What a replica's own state says of a key.
pub fn get(replica: &Replica, key: &str) -> Option<String> {
    let range = RangeRequest {
        key: Bytes::from(key.to_owned()),
        ..RangeRequest::default()
    };
    let query = Query {
        slot: slot(),
        namespace: NAMESPACE,
        ask: Some(Ask::Range(range)),
        ..Query::default()
    };
    let store = replica.store();
    let answer = machine::answer(&*store.latest(), &query).unwrap();
    match answer.told {
        Some(Told::Range(range)) => range
            .kvs
            .first()
            .map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()),
        told => panic!("{told:?}"),
    }
}
