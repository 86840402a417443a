//! The beginning of a process: who it is, which replicas it opens, founding or following, and telling the cluster
//! that it is back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use futures::StreamExt;
use machine::outcome::RefusalKind;
use machine::record::meta::{Bootstrap, Change};
use proto::peer::JoinRequest;
use storage::{OpenError, Stores};
use tokio_util::sync::CancellationToken;
use types::{ClusterId, Incarnation, NodeId, PartitionId, ReplicaId};

use super::serve::Addresses;
use super::{StartError, record};
use crate::config::Config;
use crate::core::{Core, ServerError, meta_command};
use crate::files;
use crate::identity::{DataDir, First, Identity};
use crate::reconcile::{all_peers, failed_open, on_disk, unseen};

/// The meta partition's replica that founds a cluster: the first id the machine gives out.
const FOUNDER: ReplicaId = ReplicaId(1);
/// Replicas opened side by side at the start.
const OPENING: usize = 4;
/// Between looks at the replica of the meta partition.
const LOOK: Duration = Duration::from_secs(1);
/// Between attempts to tell the cluster something.
const PAUSE: Duration = Duration::from_millis(200);

/// What this process tells of itself.
pub(super) struct Me {
    pub(super) identity: Identity,
    pub(super) boots: u64,
    pub(super) name: String,
    pub(super) addresses: Addresses,
    /// The replica of the meta partition that is on disk, or that is to be made.
    pub(super) meta: Option<ReplicaId>,
}

/// The identity on disk, or the one a cluster gives.
pub(super) async fn identity(
    config: &Config,
    env: &Env,
    data: &DataDir,
    addresses: Addresses,
) -> Result<Identity, StartError> {
    if let Some(identity) = data.identity()? {
        return Ok(identity);
    }
    if config.cluster.join.is_empty() {
        return Err(StartError::NoIdentity(config.node.data_dir.display().to_string()));
    }
    let incarnation = data.joining(Incarnation(env.rng.nonzero()))?;
    let expected: Option<ClusterId> = config.cluster.expect_id.as_ref().and_then(|id| id.parse().ok());
    let request = JoinRequest {
        format: crate::join::FORMAT,
        node_id: config.node.id.unwrap_or(0),
        incarnation: incarnation.0,
        peer_address: addresses.peer,
        client_address: addresses.client,
        http_address: addresses.http,
        name: config.node.name.clone(),
        version: types::epoch::CLUSTER_VERSION.0,
        cluster_id: expected.map_or(0, |id| id.0),
        meta_lost: false,
        meta_replica_lost: 0,
    };
    tracing::info!(join = ?config.cluster.join, "asking to be admitted");
    let reply = crate::join::ask(&env.net, &config.cluster.join, &request).await?;
    let identity = Identity {
        cluster: ClusterId(reply.cluster_id),
        node: NodeId(reply.node_id),
        incarnation,
    };
    let peers = reply
        .peers
        .into_iter()
        .map(|peer| (NodeId(peer.node), peer.address))
        .collect();
    data.create(
        &identity,
        &First::Open {
            replica: ReplicaId(reply.meta_replica),
            peers,
        },
    )?;
    tracing::info!(cluster = %identity.cluster, node = %identity.node, "admitted");
    Ok(identity)
}

/// Opens what is on disk, the meta partition first: it says where peers are. Returns the replica of that one.
pub(super) async fn open_replicas(
    core: &Arc<Core>,
    data: &DataDir,
    stores: &Stores,
) -> Result<Option<ReplicaId>, StartError> {
    let mut listed = stores.partitions.list().map_err(|source| OpenError {
        what: "the partitions' state",
        source,
    })?;
    remove_gone(core, data, stores, &mut listed).await?;
    give_up_stateless(core, data, stores, &listed).await?;
    files::check_limit(listed.len());
    let mut replicas = on_disk(listed);
    let first = data.first()?;
    let peers = data
        .given_peers()?
        .into_iter()
        .map(|(node, address)| unseen(node, address));
    core.raft().set_peers(peers.collect(), Vec::new());
    let meta = match (&first, replicas.remove(&PartitionId::META)) {
        (Some(First::Found { .. }), _) => {
            core.raft().found(PartitionId::META, FOUNDER).await?;
            Some(FOUNDER)
        }
        (Some(First::Open { replica, .. }), None) => Some(*replica),
        (_, there) => there,
    };
    match meta {
        Some(replica) => open(core, data, PartitionId::META, replica).await,
        None => tracing::error!("the replica of the meta partition is gone: waiting to be given another"),
    }
    match core.refresh_map() {
        Ok(0) => {}
        Ok(_) => {
            let (peers, removed) = all_peers(core, data, BTreeMap::new());
            core.raft().set_peers(peers, removed);
        }
        Err(error) => tracing::error!(%error, "cannot read the cluster map"),
    }
    let begun = tokio::time::Instant::now();
    let count = replicas.len();
    futures::stream::iter(replicas)
        .for_each_concurrent(OPENING, |(partition, replica)| {
            open(core, data, partition, replica)
        })
        .await;
    if count > 0 {
        tracing::info!(
            replicas = count,
            ms = begun.elapsed().as_millis() as u64,
            "replicas are open"
        );
    }
    Ok(meta)
}

/// Replicas that were given up or moved away never come back: what an interrupted removal left of them goes now.
async fn remove_gone(
    core: &Arc<Core>,
    data: &DataDir,
    stores: &Stores,
    listed: &mut Vec<(PartitionId, ReplicaId)>,
) -> Result<(), StartError> {
    let gone = data.gone()?;
    core.raft().forbid(&gone);
    gone.iter().for_each(|replica| core.give_up(*replica));
    let (left, kept) = std::mem::take(listed)
        .into_iter()
        .partition::<Vec<_>, _>(|(_, replica)| gone.contains(replica));
    *listed = kept;
    for (partition, replica) in left {
        tracing::info!(%partition, %replica, "removing what was left of a removed replica");
        if let Err(error) = core.raft().remove(partition, replica).await {
            tracing::warn!(%partition, %replica, %error, "cannot remove the replica yet");
        }
    }
    let logs = stores.log.replicas().map_err(|source| OpenError {
        what: "the log",
        source,
    })?;
    for replica in logs.into_iter().filter(|replica| gone.contains(replica)) {
        stores.log.remove(replica, Box::new(|_| {}));
    }
    Ok(())
}

/// A replica whose log was purged, but whose state is gone, cannot be rebuilt from here: it is given up.
async fn give_up_stateless(
    core: &Arc<Core>,
    data: &DataDir,
    stores: &Stores,
    listed: &[(PartitionId, ReplicaId)],
) -> Result<(), StartError> {
    let failed = |source| OpenError {
        what: "the log",
        source,
    };
    for replica in stores.log.replicas().map_err(failed)? {
        let known = listed.iter().any(|(_, listed)| *listed == replica) || core.is_broken(replica);
        let lost = || match stores.log.state(replica) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(true),
            state => state.map(|state| state.purged.is_some()),
        };
        if !known && lost().map_err(failed)? {
            tracing::error!(%replica, "the replica's state is gone and its log does not reach back: it is given up");
            core.metrics().damaged_replicas.inc();
            core.give_up(replica);
            data.remember_gone(replica)?;
            stores.log.remove(replica, Box::new(|_| {}));
        }
    }
    Ok(())
}

/// Opens the replica of the meta partition, again until it works. Asks the peers for another one only if the one here
/// is gone or damaged: to be replaced is the end of a replica and of what it has promised.
async fn hold_meta(
    core: &Arc<Core>,
    data: &DataDir,
    me: &Me,
    replica: &mut Option<ReplicaId>,
) -> Result<(), String> {
    while core.replica(PartitionId::META).is_none() {
        match (*replica).filter(|replica| !core.is_broken(*replica)) {
            Some(replica) => {
                tokio::time::sleep(PAUSE).await;
                open(core, data, PartitionId::META, replica).await;
            }
            None => tokio::select! {
                given = regain_meta(core, data, me, *replica) => *replica = Some(given?),
                // The map gave it one meanwhile.
                () = opened(core) => {}
            },
        }
    }
    Ok(())
}

async fn opened(core: &Core) {
    while core.replica(PartitionId::META).is_none() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks the peers for another replica of the meta partition.
async fn regain_meta(
    core: &Arc<Core>,
    data: &DataDir,
    me: &Me,
    lost: Option<ReplicaId>,
) -> Result<ReplicaId, String> {
    let peers = data.remembered_peers().map_err(|error| error.to_string())?;
    let (known, _) = all_peers(core, data, peers.into_iter().collect());
    let others = known.into_iter().filter(|known| known.node != me.identity.node);
    let addresses: Vec<String> = others.map(|known| known.address).collect();
    if addresses.is_empty() {
        return Err(
            "the replica of the meta partition is gone, and no other node is known that could give another"
                .into(),
        );
    }
    tracing::warn!(?addresses, "asking for another replica of the meta partition");
    let request = JoinRequest {
        format: crate::join::FORMAT,
        node_id: me.identity.node.0,
        incarnation: me.identity.incarnation.0,
        peer_address: me.addresses.peer.clone(),
        client_address: me.addresses.client.clone(),
        http_address: me.addresses.http.clone(),
        name: me.name.clone(),
        version: types::epoch::CLUSTER_VERSION.0,
        cluster_id: me.identity.cluster.0,
        meta_lost: true,
        meta_replica_lost: lost.map_or(0, |lost| lost.0),
    };
    let reply = crate::join::ask(&core.env().net, &addresses, &request)
        .await
        .map_err(|error| error.to_string())?;
    let told = reply.peers.into_iter();
    let told = told.map(|peer| (NodeId(peer.node), peer.address)).collect();
    let (peers, removed) = all_peers(core, data, told);
    core.raft().set_peers(peers, removed);
    Ok(ReplicaId(reply.meta_replica))
}

async fn open(core: &Arc<Core>, data: &DataDir, partition: PartitionId, replica: ReplicaId) {
    if let Err(error) = core.raft().open(partition, replica).await {
        failed_open(core, data, partition, replica, &error).await;
    }
}

/// Founds the cluster if that is still to be done, then tells it that this node has started.
pub(super) async fn follow_up(core: Arc<Core>, data: Arc<DataDir>, me: Me, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = follow(&core, &data, &me) => {}
    }
}

/// Never ends.
async fn follow(core: &Arc<Core>, data: &DataDir, me: &Me) {
    let mut meta = me.meta;
    if let Err(why) = hold_meta(core, data, me, &mut meta).await {
        core.fatal(&why);
    }
    tokio::join!(settle(core, data, me), keep_meta(core, data, me, meta));
}

/// Never ends.
async fn keep_meta(core: &Arc<Core>, data: &DataDir, me: &Me, mut meta: Option<ReplicaId>) {
    // It may be given up while it runs too, and what gives this node another one comes by the very map that is in it.
    let mut missing = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let open = core.replica(PartitionId::META);
        let gone = open.is_none();
        meta = open.map(|open| open.replica_id()).or(meta);
        // One that gives way to another, by the map that is here, is missing for a moment.
        let follows = mapped_meta(core).is_some_and(|other| Some(other) != meta && !core.is_broken(other));
        if gone && missing && !follows {
            // All other partitions are served: this is tried again, and who was removed is told so elsewhere.
            if let Err(why) = hold_meta(core, data, me, &mut meta).await {
                tracing::error!(why, "cannot get another replica of the meta partition");
            }
        }
        missing = gone;
    }
}

/// This node's replica of the meta partition, as the map here says.
fn mapped_meta(core: &Core) -> Option<ReplicaId> {
    let map = core.map();
    let mut partitions = map.partitions.iter();
    let meta = partitions.find(|partition| partition.id == PartitionId::META.0)?;
    let held = meta
        .replicas
        .iter()
        .find(|replica| replica.node == core.node_id().0)?;
    Some(ReplicaId(held.id))
}

async fn settle(core: &Arc<Core>, data: &DataDir, me: &Me) {
    let first = data.first().unwrap_or_else(|error| {
        core.fatal(&error.to_string());
        None
    });
    if let Some(First::Found { partitions }) = first {
        let bootstrap = Bootstrap {
            cluster_id: me.identity.cluster.0,
            partitions,
            node: Some(record(me)),
            version: types::epoch::CLUSTER_VERSION.0,
        };
        tell(core, Change::Bootstrap(bootstrap), "found the cluster").await;
        tracing::info!(cluster = %me.identity.cluster, partitions, "founded");
    }
    // An older map is not enough: the peers that were given at the admission are needed until it has come this far.
    while !core.map().nodes.iter().any(|node| node.id == core.node_id().0) {
        let _ = core.refresh_map();
        tokio::time::sleep(PAUSE / 4).await;
    }
    core.update_serving();
    core.poke().notify_one();
    if first.is_some()
        && let Err(error) = data.first_done()
    {
        tracing::error!(%error, "cannot remove the mark of the first start");
    }
    if !matches!(first, Some(First::Found { .. })) {
        tell(core, Change::NodeStarted(record(me)), "report the start").await;
    }
}

/// Proposes until it is done or can never be.
async fn tell(core: &Core, change: Change, what: &str) {
    let mut said = false;
    loop {
        match core
            .propose(PartitionId::META, meta_command(change.clone()))
            .await
        {
            Ok(_) => return,
            Err(ServerError::Refused(refusal)) => match refusal.kind() {
                RefusalKind::AlreadyExists => return,
                RefusalKind::Stale | RefusalKind::NotFound | RefusalKind::Invalid => {
                    return core.fatal(&format!("the cluster refuses this node: {}", refusal.text));
                }
                _ => tracing::warn!(text = refusal.text, "cannot {what}"),
            },
            Err(error) if !said => {
                said = true;
                tracing::info!(%error, "waiting for the meta partition to {what}");
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}
