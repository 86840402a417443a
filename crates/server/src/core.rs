//! The way of a request: which partition, which node leads it, one hop there, and the answer back.
//! Services use this and never Raft. A write whose fate is unclear is never sent again, unless a session's number
//! makes the machine return the first answer.

pub mod admission;
mod attempt;
mod error;
mod hashes;
pub mod leaders;
mod listen;
mod report;
mod route;
mod serve;
mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use machine::outcome::Reply;
use machine::query::Answer;
use machine::record::meta::ClusterMap;
use parking_lot::{Mutex, RwLock};
use storage::{Fatal, LogStore};
use tokio::sync::{Notify, mpsc, watch};
use types::{ClusterId, NamespaceId, NodeId, PartitionId, ReplicaId, Slot};

pub use error::ServerError;
pub use hashes::Hashes;
pub use listen::{Listener, Woken};
pub use raft::ReadPoint;
pub use report::Alarm;
pub use serve::Handler;
pub use space::{meta_command, partition_of};

use crate::guard::Guard;
use crate::metrics::Metrics;
use admission::Admission;
use leaders::Leaders;
use space::Names;

/// Where a namespace's keys live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    /// Its number: what records and commands carry.
    pub id: NamespaceId,
    /// The slot of its key space.
    pub slot: Slot,
    /// The partition that holds the slot.
    pub partition: PartitionId,
    /// Its name.
    pub name: Arc<str>,
}

/// A write that was committed and applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposed {
    /// Term of the entry.
    pub term: u64,
    /// The replica that led then; 0 if its node does not say.
    pub leader: ReplicaId,
    /// Log index of the entry.
    pub index: u64,
    /// The machine's answer; never `Done::Refused`, which is [`ServerError::Refused`].
    pub reply: Reply,
}

/// A read that was answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Queried {
    /// Term known to the replica that answered.
    pub term: u64,
    /// Log index it had applied at least.
    pub index: u64,
    /// The machine's answer; never `Told::Refused`, which is [`ServerError::Refused`].
    pub answer: Answer,
}

/// What a [`Core`] is made from.
pub struct Parts {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// How long a request may take.
    pub timeout: Duration,
    /// Writes of one partition in flight.
    pub partition_queue: usize,
    /// The disk.
    pub guard: Arc<Guard>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Random numbers for ids, threads for what scans much, connections.
    pub env: Env,
    /// Ends the process.
    pub fatal: Fatal,
}

/// Everything services need of a controller.
pub struct Core {
    cluster: ClusterId,
    node: NodeId,
    timeout: Duration,
    raft: OnceLock<Arc<raft::Node>>,
    log: OnceLock<Arc<dyn LogStore>>,
    hub: Arc<crate::watch::Hub>,
    names: RwLock<Arc<Names>>,
    /// When the last look at the newest map for an unknown name began; held while one is under way.
    looked: tokio::sync::Mutex<Option<tokio::time::Instant>>,
    map_revision: watch::Sender<u64>,
    leaders: Arc<Leaders>,
    points: Arc<route::Points>,
    admission: Admission,
    guard: Arc<Guard>,
    metrics: Arc<Metrics>,
    env: Env,
    fatal: Fatal,
    hashes: Arc<Hashes>,
    woken: Arc<Woken>,
    /// Partitions whose replica here can serve reads of applied state.
    serving: RwLock<BTreeSet<PartitionId>>,
    /// Replicas found damaged here and given up, until the map no longer names them.
    broken: Mutex<BTreeSet<ReplicaId>>,
    /// Replicas here that differ from their leader, by partition.
    differing: Mutex<BTreeMap<PartitionId, Vec<ReplicaId>>>,
    started: AtomicBool,
    stopping: AtomicBool,
}

impl Core {
    /// A core that can answer once [`Core::attach`] was called.
    pub fn new(parts: Parts) -> Arc<Core> {
        Arc::new(Core {
            cluster: parts.cluster,
            node: parts.node,
            timeout: parts.timeout,
            raft: OnceLock::new(),
            log: OnceLock::new(),
            hub: crate::watch::Hub::new(),
            names: RwLock::default(),
            looked: tokio::sync::Mutex::default(),
            map_revision: watch::Sender::new(0),
            leaders: Arc::default(),
            points: Arc::default(),
            admission: Admission::new(parts.partition_queue),
            guard: parts.guard,
            metrics: parts.metrics,
            env: parts.env,
            fatal: parts.fatal,
            hashes: Arc::default(),
            woken: Arc::default(),
            serving: RwLock::default(),
            broken: Mutex::default(),
            differing: Mutex::default(),
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        })
    }

    /// A random id that is not 0.
    pub fn random_id(&self) -> u64 {
        self.env.rng.nonzero()
    }

    /// What this process has of the outside.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// Says why and ends the process: no promise can be kept any more.
    pub fn fatal(&self, text: &str) {
        (self.fatal)(text);
    }

    /// Gives the core its groups; once, before any service is mounted.
    pub fn attach(&self, raft: Arc<raft::Node>) {
        assert!(self.raft.set(raft).is_ok(), "a core is attached once");
    }

    /// Gives the core the log, for its sizes; once.
    pub fn keep_log(&self, log: Arc<dyn LogStore>) {
        let _ = self.log.set(log);
    }

    /// Bytes in the log of one replica.
    pub fn log_bytes(&self, replica: ReplicaId) -> u64 {
        self.log.get().map_or(0, |log| log.size_bytes(replica))
    }

    /// Writes of a partition admitted here and not answered.
    pub fn in_flight(&self, partition: PartitionId) -> usize {
        self.admission.in_flight(partition)
    }

    /// The cluster.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// All groups of this node.
    pub fn raft(&self) -> &Arc<raft::Node> {
        self.raft.get().expect("attached before anything is served")
    }

    /// Events of applied revisions.
    pub fn hub(&self) -> &Arc<crate::watch::Hub> {
        &self.hub
    }

    /// The disk.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Who leads what.
    pub fn leaders(&self) -> &Arc<Leaders> {
        &self.leaders
    }

    /// Recent state hashes.
    pub fn hashes(&self) -> &Arc<Hashes> {
        &self.hashes
    }

    /// Signals from apply to the tasks that act on them.
    pub fn woken(&self) -> &Arc<Woken> {
        &self.woken
    }

    /// How long a request may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The cluster map as applied here.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.names.read().map.clone()
    }

    /// Fires with the map's revision when the map changes.
    pub fn map_changed(&self) -> watch::Receiver<u64> {
        self.map_revision.subscribe()
    }

    /// The key space of a namespace, from the local map, which may be late: see [`Core::find_key_space`].
    pub fn key_space(&self, name: &str) -> Result<KeySpace, ServerError> {
        let names = self.names.read();
        match names.spaces.get(name) {
            Some(space) => Ok(space.clone()),
            None if names.map.cluster.is_none() => Err(ServerError::Unavailable {
                text: "this node has not yet received the cluster map".into(),
            }),
            None => Err(ServerError::UnknownNamespace {
                name: name.to_owned(),
            }),
        }
    }

    /// Reads the map from the meta replica here; returns its revision. Called when apply says it changed.
    pub fn refresh_map(&self) -> Result<u64, ServerError> {
        let Some(view) = self.local_view(PartitionId::META) else {
            return Ok(0);
        };
        let map = machine::record::meta::read(&*view).map_err(|error| ServerError::Corrupt {
            partition: PartitionId::META,
            text: error.to_string(),
        })?;
        let revision = map.cluster.as_ref().map_or(0, |cluster| cluster.map_revision);
        let mut names = self.names.write();
        if revision > names.revision() || names.map.cluster.is_none() {
            *names = Arc::new(Names::new(map));
            drop(names);
            self.map_revision.send_replace(revision);
        }
        Ok(revision)
    }

    /// The replica here, open or not.
    pub fn replica(&self, partition: PartitionId) -> Option<raft::Replica> {
        self.raft.get()?.replica(partition)
    }

    /// The replicas here that lead now, as they themselves say: what others tell of leaders can be late.
    pub fn led_here(&self) -> Vec<raft::Replica> {
        let replicas = self.raft.get().map(|raft| raft.replicas()).unwrap_or_default();
        replicas.into_iter().filter(raft::Replica::is_leader).collect()
    }

    /// Whether the replica here leads.
    pub fn leads(&self, partition: PartitionId) -> bool {
        self.replica(partition).is_some_and(|replica| replica.is_leader())
    }

    /// Whether this node holds a replica of the partition that can serve reads of applied state.
    /// One that is still catching up, or was dropped by its group, does not count.
    pub fn is_local(&self, partition: PartitionId) -> bool {
        self.serving.read().contains(&partition)
    }

    /// Looks again at which replicas here can serve; returns whether some of those in `given` cannot yet.
    pub fn update_serving(&self) -> bool {
        let map = self.map();
        let mut serving = BTreeSet::new();
        let mut missing = false;
        for partition in &map.partitions {
            let given = partition
                .replicas
                .iter()
                .find(|replica| replica.node == self.node.0);
            let Some(given) = given else { continue };
            let id = PartitionId(partition.id);
            let ready = self.replica(id).is_some_and(|replica| {
                let status = replica.status();
                let member =
                    |list: &[(ReplicaId, NodeId)]| list.iter().any(|(member, _)| member.0 == given.id);
                replica.replica_id().0 == given.id
                    && (member(&status.voters) || (!given.voter && member(&status.learners)))
            });
            match ready {
                true => drop(serving.insert(id)),
                false => missing = true,
            }
        }
        *self.serving.write() = serving;
        missing
    }

    /// The local replica's state at this moment, for watches (history) and serializable reads.
    pub fn local_view(&self, partition: PartitionId) -> Option<Arc<dyn storage::PointView>> {
        self.replica(partition).map(|replica| replica.view())
    }

    /// The node that leads the partition and the term, as far as known here.
    pub fn leader(&self, partition: PartitionId) -> Option<(NodeId, u64)> {
        let known = self.leaders.get(partition);
        known.node.map(|node| (node, known.term))
    }

    /// The same, asked of the partition where no replica here would tell; `None` if it has not answered in time.
    pub async fn find_leader(&self, partition: PartitionId, limit: Duration) -> Option<(NodeId, u64)> {
        if !self.is_local(partition) {
            let asked = tokio::time::timeout(limit, self.read_index(partition)).await;
            asked.ok()?.ok()?;
        }
        self.leader(partition)
    }

    /// Index applied by the local replica.
    pub fn applied(&self, partition: PartitionId) -> Option<u64> {
        self.replica(partition).map(|replica| replica.status().applied)
    }

    /// Whether the node has opened all that it holds and takes requests.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// The node takes requests from now on.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether the node is on its way out: it should lead nothing and accept nothing new.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The node begins to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Remembers that a replica here is damaged and was given up; the meta leader replaces it.
    pub fn give_up(&self, replica: ReplicaId) {
        self.broken.lock().insert(replica);
    }

    /// Forgets given-up replicas that the map no longer names.
    pub fn prune_broken(&self) {
        let map = self.map();
        let mut broken = self.broken.lock();
        broken.retain(|id| {
            map.partitions
                .iter()
                .any(|p| p.replicas.iter().any(|replica| replica.id == id.0))
        });
    }

    /// Whether a replica was given up.
    pub fn is_broken(&self, replica: ReplicaId) -> bool {
        self.broken.lock().contains(&replica)
    }

    /// Remembers which replicas differ from the one here, which leads; none, if all are equal.
    pub fn mark_differing(&self, partition: PartitionId, replicas: Vec<ReplicaId>) {
        let mut differing = self.differing.lock();
        match replicas.is_empty() {
            true => differing.remove(&partition),
            false => differing.insert(partition, replicas),
        };
    }

    /// Forgets what was found of partitions that others lead by now: they compare too, and would never be asked here.
    pub fn forget_differing_but(&self, led: &[PartitionId]) {
        let mut differing = self.differing.lock();
        differing.retain(|partition, _| led.contains(partition));
    }

    /// Alarms raised here.
    pub fn alarms(&self) -> Vec<Alarm> {
        report::alarms(&self.report(&[PartitionId::META.0], false))
    }

    /// Alarms of all nodes that answer in time.
    pub async fn alarms_everywhere(&self) -> Vec<(NodeId, Alarm)> {
        let reports = self.gather(&[PartitionId::META.0], false).await;
        let of = |(node, told)| report::alarms(&told).into_iter().map(move |alarm| (node, alarm));
        reports.into_iter().flat_map(of).collect()
    }

    /// Hands leadership of a partition to a node, which must hold a voting, caught-up replica.
    pub async fn transfer_leader(&self, partition: PartitionId, to: NodeId) -> Result<(), ServerError> {
        route::transfer(self, partition, to).await
    }

    /// Opens a stream to a node that holds the partition (KIND_WATCH): it ends when the receiver is dropped or the
    /// other side fails. The other side is `watch::serve_remote`.
    pub async fn open_remote_watch(
        &self,
        partition: PartitionId,
        body: Bytes,
    ) -> Result<mpsc::Receiver<Result<Bytes, ServerError>>, ServerError> {
        route::remote_watch(self, partition, body).await
    }

    /// Wakes the tasks that act on the map.
    pub fn poke(&self) -> &Notify {
        &self.woken.map
    }
}
