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
use storage::{Finish, OpenError, Owner, Stores};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::{BootId, ClusterId, Incarnation, NodeId};

use crate::config::{Config, Fault, validate};
use crate::core::{Core, Handler, Listener, Parts};
use crate::guard::Guard;
use crate::host::Host;
use crate::identity::{DataDir, First, Identity, IdentityError};
use crate::join::JoinError;
use crate::metrics::Metrics;
use crate::reconcile;
use crate::{files, guard, housekeeping};

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
    #[error(transparent)]
    Storage(#[from] OpenError),
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
    init_on(config, partitions, &Host::production(config, env.clone()))
}

/// [`init`], wherever the node is to live.
pub fn init_on(config: &Config, partitions: u32, host: &Host) -> Result<Identity, StartError> {
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
    let data = DataDir::on(host.disk.clone())?;
    let env = &host.env;
    let identity = Identity {
        cluster: ClusterId(env.rng.nonzero()),
        node: NodeId(1),
        incarnation: Incarnation(env.rng.nonzero()),
    };
    data.create(&identity, &First::Found { partitions })?;
    Ok(identity)
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
        let host = Host::production(&config, env);
        Node::start_on(config, host).await
    }

    /// [`Node::start`], wherever the node lives.
    pub async fn start_on(config: Config, host: Host) -> Result<Node, StartError> {
        let env = host.env.clone();
        let faults = validate(&config);
        if !faults.is_empty() {
            return Err(StartError::Config(faults));
        }
        files::raise_limit();
        let config = Arc::new(config);
        let data = Arc::new(DataDir::on(host.disk.clone())?);
        let listeners = serve::Listeners::bind(&config, &env).await?;
        let identity = first::identity(&config, &env, &data, listeners.advertised(&config)).await?;
        let boots = data.boot()?;
        data.check_log()?;
        let stores = open_stores(&host, &identity).await?;
        data.log_made()?;
        let core = make_core(&config, &host, &identity);
        let raft = start_raft(
            &config,
            &host,
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
            raft.appends().clone(),
            stop.clone(),
        ));
        let me = first::Me {
            identity,
            boots,
            name: config.node.name.clone(),
            addresses,
            meta,
        };
        let own = record(&me);
        tasks.spawn(first::follow_up(core.clone(), data.clone(), me, stop.clone()));
        let compare_every = Duration::from_millis(config.limits.compare_replicas_ms);
        reconcile::start(&core, &data, own, compare_every, &tasks, &stop);
        tasks.spawn(heed_refusals(core.clone(), stop.clone()));
        tasks.spawn(housekeeping::run(core.clone(), stop.clone()));
        ports.serve_clients(client.listen().await?, &core, &config, &stop);
        ports.serve_http(http.listen().await?, &core, &stop);
        core.set_started();
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

/// Stops the process when the others refuse its identity.
async fn heed_refusals(core: Arc<Core>, stop: CancellationToken) {
    let mut refusal = core.raft().fatal_refusal();
    tokio::select! {
        () = stop.cancelled() => {}
        Ok(text) = refusal.wait_for(Option::is_some) => core.fatal(text.as_deref().unwrap_or_default()),
    }
}

/// Has the log's callbacks called by a task: each would wake tasks of its own from the writer's thread, and each wake-up
/// from there costs more than all that is done here. What waits is bounded by what the log's queue takes.
fn call_back_here() -> Finish {
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

async fn open_stores(host: &Host, identity: &Identity) -> Result<Stores, StartError> {
    let owner = Owner {
        cluster: identity.cluster,
        node: identity.node,
    };
    let (disk, fatal, finish) = (host.disk.clone(), host.fatal.clone(), call_back_here());
    let opening = host.env.blocking.run(move || disk.open(owner, finish, fatal));
    Ok(opening.await.map_err(|source| OpenError {
        what: "the stores",
        source,
    })??)
}

fn make_core(config: &Config, host: &Host, identity: &Identity) -> Arc<Core> {
    Core::new(Parts {
        cluster: identity.cluster,
        node: identity.node,
        timeout: Duration::from_millis(config.limits.request_timeout_ms),
        partition_queue: config.limits.partition_queue,
        guard: Arc::new(Guard::new(config.limits.disk_reserve_bytes)),
        metrics: Arc::new(Metrics::default()),
        env: host.env.clone(),
        fatal: host.fatal.clone(),
    })
}

async fn start_raft(
    config: &Config,
    host: &Host,
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
        boot: BootId(host.env.rng.nonzero()),
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
        retention: raft::Retention {
            entries: config.raft.log_entries,
            bytes: config.raft.log_bytes,
            kept: config.raft.log_entries_kept,
        },
        disk_reserve_bytes: config.limits.disk_reserve_bytes,
    };
    core.keep_log(stores.log.clone());
    let handler = Arc::new(Handler::new(core));
    let listener = Arc::new(Listener::new(core, host.fatal.clone()));
    let (log, partitions) = (stores.log.clone(), stores.partitions.clone());
    Ok(raft::Node::start(settings, host.env.clone(), log, partitions, handler, listener).await?)
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
