//! One controller, put together: identity, stores, groups, reconcilers, ports. Everything is handed its parts here;
//! nothing is global.
//!
//! ```text
//! lock directory -> bind ports -> identity (or join) -> stores -> groups -> peer port
//!   -> replicas on disk -> found or follow -> reconcilers, housekeeping, guard -> client and HTTP ports
//! ```
//! Stopping goes the other way: leaders move away while everything still answers, then ports close, then groups stop.

mod first;
mod serve;
mod stop;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use env::Env;
use machine::record::meta::NodeState;
use storage::{LogStore, PartitionStores, rocks};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{BootId, ClusterId, Incarnation, NodeId};

use crate::config::{Config, Fault, validate};
use crate::core::{Core, Handler, Listener, Parts};
use crate::guard::Guard;
use crate::identity::{DataDir, First, Identity, IdentityError};
use crate::join::JoinError;
use crate::metrics::Metrics;
use crate::reconcile;
use crate::{files, guard, housekeeping};

/// Exit code after a failure that must not be survived (failed sync, broken promise); the text is on stderr.
pub const EXIT_FATAL: i32 = 70;

/// Why a controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Faults of the configuration.
    #[error("the configuration has faults: {}", list(.0))]
    Config(Vec<Fault>),
    /// The data directory.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A port.
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen {
        /// For whom.
        what: &'static str,
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Nothing to be.
    #[error("{0} has no identity: run 'holdfast init' to found a cluster, or set cluster.join to join one")]
    NoIdentity(String),
    /// Admission.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The stores.
    #[error("cannot open {what}: {source}")]
    Storage {
        /// Which store.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The groups.
    #[error("cannot start: {0}")]
    Raft(#[from] raft::RaftError),
}

fn list(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    lines.join("; ")
}

/// Writes the identity of a new cluster's first node; its first start founds the cluster.
pub fn init(config: &Config, partitions: u32, env: &Env) -> Result<Identity, StartError> {
    let faults = validate(config);
    if !faults.is_empty() {
        return Err(StartError::Config(faults));
    }
    if partitions == 0 || partitions > types::limits::PARTITIONS {
        let text = format!("{partitions} is not between 1 and {}", types::limits::PARTITIONS);
        return Err(StartError::Config(vec![Fault {
            key: "partitions".into(),
            text,
        }]));
    }
    let data = DataDir::lock(&config.node.data_dir)?;
    let identity = Identity {
        cluster: ClusterId(env.rng.nonzero()),
        node: NodeId(1),
        incarnation: Incarnation(env.rng.nonzero()),
    };
    data.create(&identity, &First::Found { partitions })?;
    Ok(identity)
}

/// Where logs and states are.
struct Stores {
    log: Arc<dyn LogStore>,
    partitions: Arc<dyn PartitionStores>,
}

/// A running controller.
pub struct Node {
    core: Arc<Core>,
    config: Arc<Config>,
    ports: serve::Ports,
    tasks: TaskTracker,
    stop: CancellationToken,
    data: Arc<DataDir>,
}

impl Node {
    /// Starts a controller; returns when it takes requests (which may still wait for leaders).
    pub async fn start(config: Config, env: Env) -> Result<Node, StartError> {
        let faults = validate(&config);
        if !faults.is_empty() {
            return Err(StartError::Config(faults));
        }
        files::raise_limit();
        let config = Arc::new(config);
        let data = Arc::new(DataDir::lock(&config.node.data_dir)?);
        let listeners = serve::Listeners::bind(&config, &env).await?;
        let identity = first::identity(&config, &env, &data, listeners.advertised(&config)).await?;
        let boots = data.boot()?;
        data.check_log()?;
        let stores = open_stores(&config, &identity).await?;
        data.log_made()?;
        let core = make_core(&config, &env, &identity);
        let raft = start_raft(
            &config,
            &env,
            &identity,
            boots,
            &stores,
            &core,
            listeners.peer_address(),
        )
        .await?;
        core.attach(raft.clone());
        tracing::info!(cluster = %identity.cluster, node = %identity.node, boots, "starting");

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut ports = serve::Ports::default();
        let addresses = listeners.advertised(&config);
        let (client, http) = ports.serve_peers(listeners, raft.peer_service(), &stop);
        let meta = first::open_replicas(&core, &data, &stores).await?;
        core.update_serving();
        tasks.spawn(guard::watch(
            core.guard().clone(),
            stores.partitions.clone(),
            stop.clone(),
        ));
        let me = first::Me {
            identity,
            boots,
            name: config.node.name.clone(),
            addresses,
            meta,
        };
        tasks.spawn(first::follow_up(core.clone(), data.clone(), me, stop.clone()));
        reconcile::start(&core, &data, &tasks, &stop);
        tasks.spawn(heed_refusals(raft.clone(), stop.clone()));
        tasks.spawn(housekeeping::run(core.clone(), stop.clone()));
        ports.serve_clients(client, &core, &config, &stop);
        ports.serve_http(http, &core, &stop);
        Ok(Node {
            core,
            config,
            ports,
            tasks,
            stop,
            data,
        })
    }

    /// What services use.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Where it listens for clients, with the true port.
    pub fn client_address(&self) -> &str {
        &self.ports.client
    }

    /// Where it listens for metrics and health, with the true port.
    pub fn http_address(&self) -> &str {
        &self.ports.http
    }

    /// Stops cleanly: leaders move away, requests finish, ports close, groups stop.
    pub async fn shutdown(self) {
        let limit = Duration::from_millis(self.config.limits.drain_timeout_ms);
        tracing::info!("stopping");
        self.core.stop();
        stop::hand_over(&self.core, limit).await;
        self.ports.drain(limit.min(Duration::from_secs(2))).await;
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
        if tokio::time::timeout(limit, self.core.raft().shutdown())
            .await
            .is_err()
        {
            tracing::warn!("groups did not stop in time");
        }
        self.ports.close().await;
        drop(self.data);
        tracing::info!("stopped");
    }
}

/// Says why and ends the process at once: no promise can be kept any more.
fn fatal(text: &str) {
    tracing::error!(text, "fatal: the process stops");
    eprintln!("holdfast: fatal: {text}");
    std::process::exit(EXIT_FATAL);
}

/// Stops the process when the others refuse its identity.
async fn heed_refusals(raft: Arc<raft::Node>, stop: CancellationToken) {
    let mut refusal = raft.fatal_refusal();
    tokio::select! {
        () = stop.cancelled() => {}
        Ok(text) = refusal.wait_for(Option::is_some) => fatal(text.as_deref().unwrap_or_default()),
    }
}

/// Has the log's callbacks called by a task: each would wake tasks of its own from the writer's thread, and each wake-up
/// from there costs more than all that is done here. What waits is bounded by what the log's queue takes.
fn call_back_here() -> rocks::Finish {
    let (sender, mut finished) = tokio::sync::mpsc::unbounded_channel::<Vec<_>>();
    tokio::spawn(async move {
        while let Some(batch) = finished.recv().await {
            call_back(batch);
        }
    });
    Arc::new(move |batch| {
        // The task goes with the runtime, before the log is closed.
        if let Err(unsent) = sender.send(batch) {
            call_back(unsent.0);
        }
    })
}

fn call_back(batch: Vec<(storage::Done, std::io::Result<()>)>) {
    for (done, result) in batch {
        done(result);
    }
}

async fn open_stores(config: &Arc<Config>, identity: &Identity) -> Result<Stores, StartError> {
    let (config, owner) = (
        config.clone(),
        rocks::Owner {
            cluster: identity.cluster,
            node: identity.node,
        },
    );
    let finish = call_back_here();
    let opened = tokio::task::spawn_blocking(move || {
        let options = rocks::Options {
            owner: Some(owner),
            finish: Some(finish),
            cache_bytes: config.storage.cache_bytes,
            state_buffers_bytes: config.storage.write_buffers_bytes,
            ..rocks::Options::default()
        };
        let dir = &config.node.data_dir;
        let log = rocks::Log::open(&dir.join("log"), options.clone(), Arc::new(fatal)).map_err(|source| {
            StartError::Storage {
                what: "the log",
                source,
            }
        })?;
        let partitions =
            rocks::Partitions::open(&storage::partitions_path(dir), options).map_err(|source| {
                StartError::Storage {
                    what: "the partitions' state",
                    source,
                }
            })?;
        Ok(Stores { log, partitions })
    });
    opened.await.map_err(|error| StartError::Storage {
        what: "the stores",
        source: std::io::Error::other(error),
    })?
}

fn make_core(config: &Config, env: &Env, identity: &Identity) -> Arc<Core> {
    Core::new(Parts {
        cluster: identity.cluster,
        node: identity.node,
        timeout: Duration::from_millis(config.limits.request_timeout_ms),
        partition_queue: config.limits.partition_queue,
        guard: Arc::new(Guard::new(config.limits.disk_reserve_bytes)),
        metrics: Arc::new(Metrics::default()),
        rng: env.rng.clone(),
    })
}

async fn start_raft(
    config: &Config,
    env: &Env,
    identity: &Identity,
    boots: u64,
    stores: &Stores,
    core: &Arc<Core>,
    peer_address: &str,
) -> Result<Arc<raft::Node>, StartError> {
    let settings = raft::NodeConfig {
        node: identity.node,
        cluster: identity.cluster,
        incarnation: identity.incarnation,
        boot: BootId(env.rng.nonzero()),
        boots,
        peer_address: config
            .advertise
            .peer
            .clone()
            .unwrap_or_else(|| peer_address.to_owned()),
        timing: raft::Timing {
            heartbeat_ms: config.raft.heartbeat_ms,
            election_min_ms: config.raft.election_min_ms,
            election_max_ms: config.raft.election_max_ms,
        },
        disk_reserve_bytes: config.limits.disk_reserve_bytes,
    };
    core.keep_log(stores.log.clone());
    let handler = Arc::new(Handler::new(core));
    let listener = Arc::new(Listener::new(core, Arc::new(fatal)));
    let (log, partitions) = (stores.log.clone(), stores.partitions.clone());
    Ok(raft::Node::start(settings, env.clone(), log, partitions, handler, listener).await?)
}

/// The record of this node as it goes into the map.
fn record(me: &first::Me) -> machine::record::meta::Node {
    machine::record::meta::Node {
        id: me.identity.node.0,
        incarnation: me.identity.incarnation.0,
        peer_address: me.addresses.peer.clone(),
        client_address: me.addresses.client.clone(),
        http_address: me.addresses.http.clone(),
        state: NodeState::Active as i32,
        version: types::epoch::CLUSTER_VERSION.0,
        boots: me.boots,
        name: match me.name.as_str() {
            "" => format!("node-{}", me.identity.node),
            name => name.to_owned(),
        },
    }
}
