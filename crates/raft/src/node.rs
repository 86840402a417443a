//! Everything Raft of one process: its replicas, its peers, and the tasks that serve all groups together.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use futures::future::join_all;
use proto::peer::peer_server::PeerServer;
use proto::peer::{Frame, Kind, Lane};
use storage::{LogStats, LogStore, PartitionStore, PartitionStores};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use types::epoch::{CLUSTER_VERSION, CLUSTER_VERSION_OLDEST};
use types::{NodeId, PartitionId, ReplicaId};

use crate::appends::Appends;
use crate::clock::MachineClock;
use crate::committed::Told;
use crate::config::{NodeConfig, group_config};
use crate::error::{RaftError, RequestError};
use crate::groups::Groups;
use crate::listener::{ApplyListener, RequestHandler};
use crate::log_store::{ReplicaLog, durable};
use crate::network::{Network, Room};
use crate::peer::{Carrier, Grpc, KnownPeer, Mine, PeerService, PeerStatus, PeersStats, frame};
use crate::propose;
use crate::purge;
use crate::replica::{Counters, Group, Replica};
use crate::runtime;
use crate::state_machine::{Progress, StateMachine};
use crate::trouble::Trouble;
use crate::types::{Fatal, Members, Raft, ReplicaNode};

/// How long a stopping node tries to hand its leaders over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
/// How long the last users of a removed replica's state are waited for.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);
const RELEASE_POLL: Duration = Duration::from_millis(5);

/// Counters and sizes of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeStats {
    /// Replicas open here.
    pub replicas: usize,
    /// Those that lead.
    pub leaders: usize,
    /// Commands waiting to be proposed, over all partitions.
    pub queued: usize,
    /// Log entries proposed here since start.
    pub entries: u64,
    /// Commands they carried.
    pub commands: u64,
    /// Of the log store.
    pub log: LogStats,
    /// Of the peer transport.
    pub peers: PeersStats,
}

/// Everything Raft of one process.
pub struct Node {
    config: NodeConfig,
    env: Env,
    log: Arc<dyn LogStore>,
    stores: Arc<dyn PartitionStores>,
    listener: Arc<dyn ApplyListener>,
    pub(crate) network: Arc<Network>,
    groups: Arc<Groups>,
    counters: Arc<Counters>,
    appends: Arc<Appends>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Node {
    /// Starts the peer transport. Opens no replica, and knows no peer yet.
    pub async fn start(
        config: NodeConfig,
        env: Env,
        log: Arc<dyn LogStore>,
        stores: Arc<dyn PartitionStores>,
        handler: Arc<dyn RequestHandler>,
        listener: Arc<dyn ApplyListener>,
    ) -> Result<Arc<Node>, RaftError> {
        let carrier = Arc::new(Grpc::new(env.net.clone()));
        Node::start_over(carrier, config, env, log, stores, handler, listener).await
    }

    /// [`Node::start`], whatever carries its lanes. [`Node::peers_served`] takes those that others open.
    pub async fn start_over(
        carrier: Arc<dyn Carrier>,
        config: NodeConfig,
        env: Env,
        log: Arc<dyn LogStore>,
        stores: Arc<dyn PartitionStores>,
        handler: Arc<dyn RequestHandler>,
        listener: Arc<dyn ApplyListener>,
    ) -> Result<Arc<Node>, RaftError> {
        // Refuse a bad configuration at start, not when the first replica is opened.
        group_config(PartitionId::META, config.timing)?;
        runtime::tick_together(config.timing.tick());
        let groups = Arc::new(Groups::default());
        let mine = Mine {
            cluster: config.cluster,
            node: config.node,
            incarnation: config.incarnation,
            boot: config.boot,
            boots: config.boots,
            version: CLUSTER_VERSION,
            oldest: CLUSTER_VERSION_OLDEST,
            address: config.peer_address.clone(),
        };
        let (disk, reserve) = (stores.clone(), config.disk_reserve_bytes);
        let room: Room = Arc::new(move || Ok(disk.free_bytes()?.saturating_sub(reserve)));
        let network = Network::start(mine, env.clone(), carrier, groups.clone(), handler, room);
        let purging = purge::run(
            Arc::downgrade(&groups),
            Arc::downgrade(&network),
            log.clone(),
            stores.clone(),
            config.retention,
        );
        let tasks = vec![tokio::spawn(purging)];
        let counters = Arc::default();
        let appends = Appends::new(env.clock.clone());
        Ok(Arc::new(Node {
            config,
            env,
            log,
            stores,
            listener,
            network,
            groups,
            counters,
            appends,
            tasks,
        }))
    }

    /// This node's id.
    pub fn node_id(&self) -> NodeId {
        self.config.node
    }

    /// How long this node's appends take.
    pub fn appends(&self) -> &Arc<Appends> {
        &self.appends
    }

    /// Who the peers are from now on, and who was removed for good. Unknown incarnations are refused.
    pub fn set_peers(&self, peers: Vec<KnownPeer>, removed: Vec<NodeId>) {
        self.network.peers.set_peers(peers, removed);
    }

    /// Opens a replica, or creates it. The same again returns the one that is open.
    pub async fn open(&self, partition: PartitionId, replica: ReplicaId) -> Result<Replica, RaftError> {
        let _changing = self.groups.lock(partition).await;
        if let Some(open) = self.groups.get(partition) {
            if open.replica_id() == replica {
                return Ok(open);
            }
            return Err(RaftError::OtherReplica {
                partition,
                open: open.replica_id(),
                asked: replica,
            });
        }
        if self.groups.is_forbidden(replica) {
            return Err(RaftError::Removed(replica));
        }
        let stores = self.stores.clone();
        let opening = self.env.blocking.run(move || stores.open(partition, replica));
        let store = opening
            .await
            .flatten()
            .map_err(|source| RaftError::Storage { partition, source })?;
        let group = self.group(partition, replica, store).await?;
        let replica = Replica::start(group, self.listener.clone());
        self.groups.insert(replica.clone());
        Ok(replica)
    }

    async fn group(
        &self,
        partition: PartitionId,
        replica: ReplicaId,
        store: Arc<dyn PartitionStore>,
    ) -> Result<Group, RaftError> {
        let storage_error = |source| RaftError::Storage { partition, source };
        let timing = self.config.timing;
        let progress = Progress::new(self.env.clock.clone());
        let trouble = Trouble::new(partition, replica, self.listener.clone());
        let (told, seen_to) = (progress.clone(), trouble.clone());
        let log = ReplicaLog::open(self.log.clone(), replica, told, seen_to, self.appends.clone())
            .map_err(storage_error)?;
        let machine = StateMachine::open(
            partition,
            store.clone(),
            self.listener.clone(),
            progress.clone(),
            trouble.clone(),
            self.env.blocking,
        )
        .map_err(storage_error)?;
        // openraft's error does not say whether it met damage.
        let not_started = |error: Fatal| match trouble.damage() {
            Some(text) => storage_error(io::Error::new(io::ErrorKind::InvalidData, text)),
            None => RaftError::Group {
                partition,
                text: error.to_string(),
            },
        };
        let network = self.network.factory(partition, trouble.clone());
        let raft = Raft::new(replica.0, group_config(partition, timing)?, network, log, machine)
            .await
            .map_err(not_started)?;
        // Answered only after the group has published its state: nobody may take a fresh replica for one without
        // term and members.
        raft.with_raft_state(|_| ()).await.map_err(not_started)?;
        progress.serve();
        Ok(Group {
            partition,
            replica,
            metrics: raft.metrics(),
            server: raft.server_metrics(),
            raft,
            store,
            clock: MachineClock::new(self.env.clock.clone(), progress.clone()),
            progress,
            trouble,
            in_flight: propose::in_flight(),
            changing: tokio::sync::Mutex::default(),
            told: Told::default(),
            peers: Arc::downgrade(&self.network.peers),
            counters: self.counters.clone(),
            timing,
        })
    }

    /// Opens a replica and, if its log is pristine, makes it the only voter of a new group.
    pub async fn found(&self, partition: PartitionId, replica: ReplicaId) -> Result<Replica, RaftError> {
        let opened = self.open(partition, replica).await?;
        let group_error = |text: String| RaftError::Group { partition, text };
        let raft = &opened.group().raft;
        if !raft
            .is_initialized()
            .await
            .map_err(|error| group_error(error.to_string()))?
        {
            let members: Members = BTreeMap::from([(
                replica.0,
                ReplicaNode {
                    node: self.config.node.0,
                },
            )]);
            raft.initialize(members)
                .await
                .map_err(|error| group_error(error.to_string()))?;
        }
        Ok(opened)
    }

    /// From now on these ids are never opened.
    pub fn forbid(&self, replicas: &[ReplicaId]) {
        replicas.iter().for_each(|replica| self.groups.forbid(*replica));
    }

    /// Shuts a replica down and deletes its state, then its log: an id without state can never be mistaken for one
    /// that has not voted. What fails is tried again by [`Node::finish_removals`].
    pub async fn remove(&self, partition: PartitionId, replica: ReplicaId) -> Result<(), RaftError> {
        let _changing = self.groups.lock(partition).await;
        let storage_error = |source| RaftError::Storage { partition, source };
        self.groups.forbid(replica);
        self.groups.removing(partition, replica);
        if let Some(open) = self.groups.take(partition, replica) {
            stop(vec![open]).await;
        }
        let stores = self.stores.clone();
        let removing = self.env.blocking.run(move || stores.remove(partition, replica));
        removing.await.flatten().map_err(storage_error)?;
        durable(|done| self.log.remove(replica, done))
            .await
            .map_err(storage_error)?;
        self.groups.removed(partition, replica);
        Ok(())
    }

    /// Carries on removals that failed; returns whether none is left.
    pub async fn finish_removals(&self) -> bool {
        let mut all = true;
        for (partition, replica) in self.groups.unfinished() {
            if let Err(error) = self.remove(partition, replica).await {
                tracing::warn!(%partition, %replica, %error, "cannot remove the replica yet");
                all = false;
            }
        }
        all
    }

    /// The replica of a partition here.
    pub fn replica(&self, partition: PartitionId) -> Option<Replica> {
        self.groups.get(partition)
    }

    /// All replicas here.
    pub fn replicas(&self) -> Vec<Replica> {
        self.groups.all()
    }

    /// What is known of each peer.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.network.peers.status()
    }

    /// Set once, to the sentence with which this process must stop: the others refuse its identity.
    pub fn fatal_refusal(&self) -> watch::Receiver<Option<String>> {
        self.network.peers.fatal_refusal()
    }

    /// Asks another node's [`RequestHandler`]. `request_id` is that of the client's request, if it is for one.
    pub async fn request(
        &self,
        to: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
        request_id: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        let nobody = ReplicaId(0);
        let ask = Frame {
            request_id,
            ..frame(kind, partition, nobody, nobody, body)
        };
        self.network.peers.call(to, Lane::Request, ask, deadline).await
    }

    /// Asks another node's [`RequestHandler`] for a stream. Only of kind `KIND_WATCH`.
    pub async fn request_stream(
        &self,
        to: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
    ) -> Result<mpsc::Receiver<Result<Bytes, RequestError>>, RequestError> {
        if kind != Kind::Watch {
            return Err(RequestError::NotSent(format!(
                "{} is no kind of stream",
                kind.as_str_name()
            )));
        }
        self.network.peers.stream(to, partition, body)
    }

    /// To be mounted on the peer port.
    pub fn peer_service(&self) -> PeerServer<PeerService> {
        self.peers_served().server()
    }

    /// The peer port, whatever carries the lanes that others open.
    pub fn peers_served(&self) -> PeerService {
        self.network.peers.service()
    }

    /// Counters and sizes.
    pub fn stats(&self) -> NodeStats {
        let replicas = self.groups.all();
        NodeStats {
            replicas: replicas.len(),
            leaders: replicas.iter().filter(|replica| replica.is_leader()).count(),
            queued: replicas.iter().map(Replica::queue_depth).sum(),
            entries: self.counters.entries.load(Ordering::Relaxed),
            commands: self.counters.commands.load(Ordering::Relaxed),
            log: self.log.stats(),
            peers: self.network.peers.stats(),
        }
    }

    /// Hands leaders over to caught-up voters, as far as that works in a bounded time, then stops all groups,
    /// flushes their state and says goodbye to the peers.
    pub async fn shutdown(&self) {
        let replicas = self.groups.all();
        let hand_over = join_all(replicas.iter().map(|replica| self.hand_over(replica)));
        if timeout(HAND_OVER_LIMIT, hand_over).await.is_err() {
            tracing::warn!("not all leaders could be handed over in time");
        }
        let replicas = self.groups.drain();
        let stores: Vec<_> = replicas
            .iter()
            .map(|replica| (replica.partition(), replica.store()))
            .collect();
        join_all(replicas.iter().map(Replica::stop)).await;
        drop(replicas);
        let flushed = self.env.blocking.run(move || {
            for (partition, store) in stores {
                // Nothing is lost: what was not flushed is replayed from the log.
                if let Err(error) = store.flush() {
                    tracing::warn!(%partition, %error, "flush at shutdown");
                }
            }
        });
        let _ = flushed.await;
        self.network.peers.stop().await;
        for task in &self.tasks {
            task.abort();
        }
    }

    /// Stops as a crash would: connections are cut first, nothing is handed over, flushed or said. For tests.
    pub async fn abandon(&self) {
        self.network.peers.set_peers(Vec::new(), Vec::new());
        stop(self.groups.drain()).await;
        for task in &self.tasks {
            task.abort();
        }
    }

    /// Whether there is a connection to a node over which requests can be sent now.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.network.peers.is_connected(node)
    }

    /// Tries voters on nodes that are connected, the most caught up first.
    async fn hand_over(&self, replica: &Replica) {
        let status = replica.status();
        if !status.is_leader {
            return;
        }
        let mut voters: Vec<_> = status
            .voters
            .iter()
            .filter(|(voter, node)| *voter != replica.replica_id() && self.network.peers.is_connected(*node))
            .map(|(voter, _)| (status.matched.get(voter).copied().unwrap_or(0), *voter))
            .collect();
        voters.sort_unstable_by(|a, b| b.cmp(a));
        for (_, voter) in voters {
            match replica.transfer_leader(voter).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(partition = %replica.partition(), %voter, %error, "leader was not handed over");
                    if !replica.is_leader() {
                        return;
                    }
                }
            }
        }
    }
}

/// Stops replicas and waits, within bounds, until nobody uses their states any more.
async fn stop(replicas: Vec<Replica>) {
    join_all(replicas.iter().map(Replica::stop)).await;
    let stores: Vec<_> = replicas
        .iter()
        .map(|replica| Arc::downgrade(&replica.store()))
        .collect();
    drop(replicas);
    let deadline = Instant::now() + RELEASE_LIMIT;
    while stores.iter().any(|store| store.strong_count() > 0) && Instant::now() < deadline {
        tokio::time::sleep(RELEASE_POLL).await;
    }
}
