//! One simulated controller: a disk and clocks that outlive its processes, and the process that runs now. The code that
//! runs is the server's own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use env::{Blocking, Env, SeededRng};
use parking_lot::Mutex;
use server::{Config, Core, Host, Node};
use storage::memory::MemoryDisk;
use tokio::sync::Notify;

use crate::clock::{Pace, SimClock};
use crate::net::{Links, SimNet};
use crate::plan::{Plan, SyncDelay};

/// Ports of every controller, each on its own host.
pub const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const HTTP_PORT: u16 = 2381;

/// What became of the process that ran last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It ended itself: a promise could not be kept.
    Fatal(String),
    /// It did not start.
    NotStarted(String),
    /// It was asked to stop, and did.
    Stopped,
}

/// A controller.
pub struct Controller {
    /// Its host's name.
    pub name: String,
    /// What lasts.
    pub disk: Arc<MemoryDisk>,
    /// Its time.
    pub pace: Arc<Pace>,
    /// How long its syncs take.
    pub sync_delay: Mutex<SyncDelay>,
    links: Links,
    /// Of all controllers.
    peers: Vec<String>,
    id: AtomicU64,
    config: Mutex<Config>,
    seed: u64,
    boots: AtomicU64,
    core: Mutex<Option<Arc<Core>>>,
    ends: Mutex<VecDeque<End>>,
    stop: Notify,
}

impl Controller {
    /// The controller `id` of `plan`. Its first one founds the cluster, the others join through it.
    pub fn new(plan: &Plan, id: u64, links: &Links) -> Arc<Controller> {
        let name = format!("node-{id}");
        let mut config = Config::default();
        config.node.data_dir = "memory".into();
        config.listen.client = format!("{name}:{CLIENT_PORT}");
        config.listen.peer = format!("{name}:{PEER_PORT}");
        config.listen.http = format!("{name}:{HTTP_PORT}");
        config.raft = plan.timing.clone();
        config.limits.watch_progress_ms = 1000;
        if id > 1 {
            config.node.id = Some(id);
            config.cluster.join = vec![format!("node-1:{PEER_PORT}")];
        }
        Arc::new(Controller {
            id: AtomicU64::new(id),
            name,
            disk: MemoryDisk::new(),
            pace: Arc::default(),
            sync_delay: Mutex::new(plan.sync_delay.clone()),
            links: links.clone(),
            peers: (1..=plan.nodes)
                .map(|id| format!("node-{id}:{PEER_PORT}"))
                .collect(),
            config: Mutex::new(config),
            seed: plan.seed.wrapping_mul(1000).wrapping_add(id),
            boots: AtomicU64::new(0),
            core: Mutex::default(),
            ends: Mutex::default(),
            stop: Notify::new(),
        })
    }

    /// Its node id: from 1, another after each loss of its disk.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Everything on its disk is gone; the process, which must not run, will join as a new node.
    pub fn wipe(&self) {
        self.disk.wipe();
        let mut config = self.config.lock();
        config.node.id = None;
        config.cluster.join = self.peers.clone();
    }

    /// What services use, while the process runs.
    pub fn core(&self) -> Option<Arc<Core>> {
        self.core.lock().clone()
    }

    /// Process starts so far.
    pub fn boots(&self) -> u64 {
        self.boots.load(Ordering::Relaxed)
    }

    /// What became of processes since the last call.
    pub fn ends(&self) -> Vec<End> {
        self.ends.lock().drain(..).collect()
    }

    /// The process is gone: it can no longer be looked into.
    pub fn forget(&self) {
        *self.core.lock() = None;
    }

    /// Asks the process to stop cleanly, or the next one if none is up.
    pub fn ask_to_stop(&self) {
        self.stop.notify_one();
    }

    /// Writes the identity of the first node. Outside of any runtime.
    pub fn found(&self, partitions: u32) -> anyhow::Result<()> {
        let env = Env {
            clock: Arc::new(env::SystemClock::default()),
            rng: Arc::new(SeededRng::new(self.seed)),
            net: Arc::new(SimNet {
                host: self.name.clone(),
                links: self.links.clone(),
                alive: Arc::new(AtomicBool::new(true)),
            }),
            blocking: Blocking::Inline,
        };
        let host = Host {
            env,
            disk: self.disk.clone(),
            fatal: Arc::new(|text| panic!("while founding: {text}")),
        };
        server::init_on(&self.config.lock(), partitions, &host)?;
        Ok(())
    }

    /// One process, from its start to its end. Runs within the host's runtime, which may end it at any moment.
    pub async fn run(self: Arc<Self>) {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(self.pace.clone().drive());
        tokio::spawn(self.clone().sync_disk(boot));
        let alive = Arc::new(AtomicBool::new(true));
        let host = Host {
            env: Env {
                clock: Arc::new(SimClock::new(self.pace.clone())),
                rng: Arc::new(SeededRng::new(self.seed.wrapping_mul(1000).wrapping_add(boot))),
                net: Arc::new(SimNet {
                    host: self.name.clone(),
                    links: self.links.clone(),
                    alive: alive.clone(),
                }),
                blocking: Blocking::Inline,
            },
            disk: self.disk.clone(),
            fatal: self.clone().fatal(alive),
        };
        let config = self.config.lock().clone();
        let node = match Node::start_on(config, host).await {
            Ok(node) => node,
            Err(error) => {
                self.ends.lock().push_back(End::NotStarted(client::chain(&error)));
                return;
            }
        };
        self.id.store(node.core().raft().node_id().0, Ordering::Relaxed);
        *self.core.lock() = Some(node.core().clone());
        self.stop.notified().await;
        self.forget();
        node.shutdown().await;
        self.ends.lock().push_back(End::Stopped);
    }

    fn fatal(self: Arc<Self>, alive: Arc<AtomicBool>) -> storage::Fatal {
        Arc::new(move |text| {
            if alive.swap(false, Ordering::Relaxed) {
                tracing::error!(text, "fatal: the process stops");
                // The stores are dead at once; tasks that still run in this step reach neither disk nor network.
                self.disk.power_off();
                self.ends.lock().push_back(End::Fatal(text.to_owned()));
            }
        })
    }

    /// The disk's own work: what waits is synced a while after it began to wait.
    async fn sync_disk(self: Arc<Self>, boot: u64) {
        let mut numbers = workload::numbers::Numbers::new(self.seed ^ (boot << 40));
        let asked = Arc::new(Notify::new());
        let ask = asked.clone();
        self.disk.on_waiting(move || ask.notify_one());
        self.disk.hold_sync(true);
        loop {
            asked.notified().await;
            // What else comes in this moment goes along.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if self.disk.waiting() {
                let delay = self.sync_delay.lock().pick(&mut numbers);
                if delay > 0 {
                    tokio::time::sleep(Duration::from_millis(delay)).await;
                }
                self.disk.sync();
            }
        }
    }
}
