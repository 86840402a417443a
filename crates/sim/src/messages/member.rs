//! One node of this tier: a disk that outlives its processes, and the process that runs now.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use env::{Blocking, Env, SeededRng};
use machine::Outcome;
use parking_lot::Mutex;
use proto::peer::{JoinReply, JoinRequest, Kind};
use raft::{ApplyListener, KnownPeer, Node, NodeConfig, RequestHandler, Retention, Timing};
use server::core::Hashes;
use storage::memory::MemoryDisk;
use tokio::sync::{Notify, mpsc};
use tonic::Status;
use types::{BootId, ClusterId, Incarnation, NodeId, PartitionId, ReplicaId};
use workload::numbers::Numbers;

use super::fabric::{Fabric, Lanes, NoSockets, Port};
use super::wire::Life;
use crate::clock::SimClock;
use crate::plan::{Plan, SyncDelay};
use crate::world::Down;

const CLUSTER: ClusterId = ClusterId(42);

/// A running process.
struct Process {
    life: Arc<Life>,
    hashes: Arc<Hashes>,
    /// `None` until it has started.
    node: Option<Arc<Node>>,
}

/// A node.
pub struct Member {
    /// Its host.
    pub name: String,
    /// From 1.
    pub id: u64,
    /// What lasts.
    pub disk: Arc<MemoryDisk>,
    /// How long its syncs take.
    pub sync_delay: Mutex<SyncDelay>,
    plan: Plan,
    fabric: Arc<Fabric>,
    /// Told when anything happens here.
    news: Arc<Notify>,
    /// Replicas that their groups have dropped: what the map of a real cluster says.
    pub dropped: Mutex<BTreeSet<ReplicaId>>,
    boots: AtomicU64,
    process: Mutex<Option<Process>>,
    ends: Mutex<VecDeque<String>>,
}

impl Member {
    /// Node `id` of a cluster; nothing runs yet.
    pub fn new(plan: &Plan, id: u64, fabric: &Arc<Fabric>, news: &Arc<Notify>) -> Arc<Member> {
        Arc::new(Member {
            name: host(id),
            id,
            disk: MemoryDisk::new(),
            sync_delay: Mutex::new(plan.sync_delay.clone()),
            plan: plan.clone(),
            fabric: fabric.clone(),
            news: news.clone(),
            dropped: Mutex::default(),
            boots: AtomicU64::new(0),
            process: Mutex::default(),
            ends: Mutex::default(),
        })
    }

    /// Process starts so far.
    pub fn boots(&self) -> u64 {
        self.boots.load(Ordering::Relaxed)
    }

    /// Whether no process runs.
    pub fn is_down(&self) -> bool {
        self.process.lock().is_none()
    }

    /// All Raft of it, and the hashes of its states, while it runs.
    pub fn running(&self) -> Option<(Arc<Node>, Arc<Hashes>)> {
        let process = self.process.lock();
        let process = process.as_ref()?;
        Some((process.node.clone()?, process.hashes.clone()))
    }

    /// Why processes ended by themselves since the last call.
    pub fn ends(&self) -> Vec<String> {
        self.ends.lock().drain(..).collect()
    }

    /// Starts a process.
    pub fn start(self: &Arc<Self>) {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed) + 1;
        let life = Arc::<Life>::default();
        *self.process.lock() = Some(Process {
            life: life.clone(),
            hashes: Arc::default(),
            node: None,
        });
        self.fabric.set_port(
            &self.name,
            Port {
                life: life.clone(),
                service: None,
            },
        );
        let (gone, syncing) = (life.gone.clone(), self.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = gone.cancelled() => {}
                () = syncing.sync_disk(boot) => {}
            }
        });
        let member = self.clone();
        tokio::spawn(async move {
            if let Err(text) = member.clone().run(boot, life.clone()).await {
                member.ended(&life, &text);
            }
        });
    }

    /// Ends the process. Its tasks may go on for a while: they reach neither disk nor network.
    pub fn end(&self, how: Down, numbers: &mut Numbers) {
        let Some(process) = self.process.lock().take() else {
            return;
        };
        process.life.end(how == Down::Power);
        how.befalls(&self.disk, numbers);
        if let Some(node) = process.node {
            tokio::spawn(async move { node.abandon().await });
        }
    }

    fn ended(&self, life: &Life, text: &str) {
        if !life.gone.is_cancelled() {
            life.end(false);
            self.disk.power_off();
            self.ends.lock().push_back(text.to_owned());
            self.news.notify_one();
        }
    }

    async fn run(self: Arc<Self>, boot: u64, life: Arc<Life>) -> Result<(), String> {
        let hashes = match &*self.process.lock() {
            Some(process) => process.hashes.clone(),
            None => return Ok(()),
        };
        let news = Arc::new(News {
            member: self.clone(),
            life: life.clone(),
            hashes,
        });
        let fatal = news.clone();
        let log = self
            .disk
            .log(Arc::new(move |text| fatal.member.ended(&fatal.life, text)));
        let lanes = Arc::new(Lanes {
            host: self.name.clone(),
            life: life.clone(),
            fabric: self.fabric.clone(),
        });
        let (config, env) = (self.config(boot), self.env(boot));
        let stores = self.disk.stores();
        let node = Node::start_over(lanes, config, env, log, stores, Arc::new(Nothing), news);
        let node = node.await.map_err(|error| error.to_string())?;
        for (partition, replica) in self.disk.stores().list().map_err(|error| error.to_string())? {
            let dropped = self.dropped.lock().contains(&replica);
            let done = match dropped {
                true => node.remove(partition, replica).await,
                false => node.open(partition, replica).await.map(drop),
            };
            done.map_err(|error| error.to_string())?;
        }
        node.set_peers((1..=self.plan.nodes).map(known).collect(), Vec::new());
        let service = Some(node.peers_served());
        if let Some(process) = &mut *self.process.lock()
            && Arc::ptr_eq(&process.life, &life)
        {
            process.node = Some(node);
            self.fabric.set_port(&self.name, Port { life, service });
        }
        Ok(())
    }

    fn config(&self, boot: u64) -> NodeConfig {
        let raft = &self.plan.timing;
        NodeConfig {
            node: NodeId(self.id),
            cluster: CLUSTER,
            incarnation: Incarnation(self.id),
            boot: BootId(self.id * 1_000_000 + boot),
            boots: boot,
            peer_address: self.name.clone(),
            timing: Timing {
                heartbeat_ms: raft.heartbeat_ms,
                election_min_ms: raft.election_min_ms,
                election_max_ms: raft.election_max_ms,
            },
            retention: Retention {
                entries: raft.log_entries,
                bytes: raft.log_bytes,
                kept: raft.log_entries_kept,
            },
            disk_reserve_bytes: 1 << 20,
        }
    }

    fn env(&self, boot: u64) -> Env {
        let seed = self.plan.seed.wrapping_mul(1000).wrapping_add(self.id);
        Env {
            clock: Arc::new(SimClock::new(Arc::default())),
            rng: Arc::new(SeededRng::new(seed.wrapping_mul(1000).wrapping_add(boot))),
            net: Arc::new(NoSockets),
            blocking: Blocking::Inline,
        }
    }

    /// The disk's own work, as in the first tier: what waits is synced a while after it began to wait.
    async fn sync_disk(self: Arc<Self>, boot: u64) {
        let mut numbers = Numbers::of(self.plan.seed ^ (boot << 40), &self.name);
        let asked = Arc::new(Notify::new());
        let ask = asked.clone();
        self.disk.on_waiting(move || ask.notify_one());
        self.disk.hold_sync(true);
        loop {
            asked.notified().await;
            if self.disk.waiting() {
                let delay = self.sync_delay.lock().pick(&mut numbers);
                tokio::time::sleep(Duration::from_millis(delay)).await;
                self.disk.sync();
            }
        }
    }
}

fn host(id: u64) -> String {
    format!("node-{id}")
}

fn known(id: u64) -> KnownPeer {
    KnownPeer {
        node: NodeId(id),
        incarnation: Incarnation(id),
        boots: 0,
        address: host(id),
    }
}

/// Hears what happens in a process.
struct News {
    member: Arc<Member>,
    life: Arc<Life>,
    hashes: Arc<Hashes>,
}

impl ApplyListener for News {
    fn applied(&self, partition: PartitionId, index: u64, outcome: &Arc<Outcome>) {
        self.hashes.applied(partition, index, outcome);
        self.member.news.notify_one();
    }

    fn installed(&self, partition: PartitionId) {
        self.hashes.forget(partition);
        self.member.news.notify_one();
    }

    fn leadership(&self, _: PartitionId, _: Option<NodeId>, _: u64, _: bool) {
        self.member.news.notify_one();
    }

    fn fatal(&self, partition: PartitionId, text: &str) {
        self.member
            .ended(&self.life, &format!("partition {partition}: {text}"));
    }
}

/// Nodes of this tier ask each other nothing beside Raft.
struct Nothing;

#[async_trait]
impl RequestHandler for Nothing {
    async fn handle(&self, _: NodeId, _: Kind, _: PartitionId, _: Bytes, _: Bytes) -> Result<Bytes, Status> {
        Err(Status::unimplemented("there are no services in this tier"))
    }

    async fn handle_stream(
        &self,
        _: NodeId,
        _: Kind,
        _: PartitionId,
        _: Bytes,
        _: mpsc::Sender<Bytes>,
    ) -> Result<(), Status> {
        Err(Status::unimplemented("there are no services in this tier"))
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, Status> {
        Err(Status::unimplemented("there are no services in this tier"))
    }
}
