//! Each node's own part: open the replicas that the map gives it, remove those it no longer does once their group has
//! dropped them, give up those that are damaged so that they are replaced under a new id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use machine::record::meta::ClusterMap;
use prost::Message;
use proto::peer::{self, Kind, NodeReport};
use types::{NodeId, PartitionId, ReplicaId};

use crate::core::Core;
use crate::identity::DataDir;

/// Replicas opened side by side.
const OPENING: usize = 4;
/// Between looks while something is left to do.
const SOON: Duration = Duration::from_millis(250);
/// Between looks when nothing happens.
const LOOK: Duration = Duration::from_secs(3);

/// How long a leader may take to find that a majority follows it.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(2);

/// A replica that the map gives this node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Given {
    partition: PartitionId,
    replica: ReplicaId,
    /// It begins its group alone: nothing was ever added to it.
    founder: bool,
}

/// Never ends.
pub(super) async fn run(core: Arc<Core>, data: Arc<DataDir>) {
    let mut changed = core.map_changed();
    loop {
        changed.mark_unchanged();
        let pending = settle(&core, &data).await | core.update_serving();
        let pause = if pending { SOON } else { LOOK };
        tokio::select! {
            _ = changed.changed() => {}
            () = core.woken().leadership.notified(), if pending => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What the map gives `node`.
fn given(map: &ClusterMap, node: u64) -> Vec<Given> {
    let mut given = Vec::new();
    for partition in &map.partitions {
        if let Some(replica) = partition.replicas.iter().find(|replica| replica.node == node) {
            let founder = replica.founder && partition.replicas.len() == 1 && partition.generation <= 1;
            given.push(Given {
                partition: PartitionId(partition.id),
                replica: ReplicaId(replica.id),
                founder,
            });
        }
    }
    given
}

/// Opens and removes; returns whether something is left to do.
async fn settle(core: &Arc<Core>, data: &Arc<DataDir>) -> bool {
    let map = core.map();
    let mut pending = settle_damaged_meta(core, data, &map).await;
    if map.cluster.is_none() {
        return pending;
    }
    let given = given(&map, core.node_id().0);
    let mut to_open = Vec::new();
    for wanted in &given {
        match core.replica(wanted.partition) {
            None if core.is_broken(wanted.replica) => pending = true,
            None => to_open.push(wanted.clone()),
            Some(open) if open.replica_id() == wanted.replica => give_up_if_damaged(core, open, data).await,
            Some(_) => pending = true,
        }
    }
    let opened = futures::stream::iter(to_open)
        .map(|wanted| open(core.clone(), data.clone(), wanted))
        .buffer_unordered(OPENING)
        .collect::<Vec<bool>>()
        .await;
    pending |= opened.into_iter().any(|opened| !opened);
    let wanted: BTreeSet<ReplicaId> = given.iter().map(|given| given.replica).collect();
    // Ids only: a replica's state is removed once nobody holds the replica any more, this loop included.
    let open: Vec<(PartitionId, ReplicaId)> = core
        .raft()
        .replicas()
        .iter()
        .map(|replica| (replica.partition(), replica.replica_id()))
        .collect();
    let unwanted = open.into_iter().filter(|(_, id)| !wanted.contains(id));
    // The map that is known may be older than a replica of the meta partition that was just given for a lost one.
    let unwanted =
        unwanted.filter(|(partition, _)| *partition != PartitionId::META || is_map_from_here(core, &map));
    for (partition, id) in unwanted {
        pending |= !remove_if_dropped(core, data, &map, partition, id).await;
    }
    pending | !core.raft().finish_removals().await
}

/// Sees to damage in the replica of the meta partition, whatever the map says: it may be that very replica that the map
/// cannot be read from, so that nobody will tell that it is to go. Once its group has dropped it, it goes, and the node asks
/// for another one. Returns whether that is still to come.
async fn settle_damaged_meta(core: &Arc<Core>, data: &Arc<DataDir>, map: &ClusterMap) -> bool {
    let Some(meta) = core.replica(PartitionId::META) else {
        return false;
    };
    let id = meta.replica_id();
    give_up_if_damaged(core, meta, data).await;
    core.is_broken(id) && !remove_if_dropped(core, data, map, PartitionId::META, id).await
}

/// Whether the replica of the meta partition that is open here has come as far as the map that is known.
fn is_map_from_here(core: &Core, map: &ClusterMap) -> bool {
    let known = map.cluster.as_ref().map_or(0, |cluster| cluster.map_revision);
    core.refresh_map().is_ok_and(|revision| revision >= known)
}

async fn open(core: Arc<Core>, data: Arc<DataDir>, wanted: Given) -> bool {
    let Given {
        partition,
        replica,
        founder,
    } = wanted;
    let opened = match founder {
        true => core.raft().found(partition, replica).await,
        false => core.raft().open(partition, replica).await,
    };
    match opened {
        Ok(_) => true,
        Err(error) => {
            failed_open(&core, &data, partition, replica, &error).await;
            false
        }
    }
}

/// Decides what a replica that cannot be opened means: damage is given up, anything else is tried again.
pub(crate) async fn failed_open(
    core: &Core,
    data: &DataDir,
    partition: PartitionId,
    replica: ReplicaId,
    error: &raft::RaftError,
) {
    if is_damage(error) {
        tracing::error!(%partition, %replica, %error, "replica is damaged: it is given up and will be replaced");
        core.metrics().damaged_replicas.inc();
        discard(core, data, partition, replica).await;
    } else {
        tracing::warn!(%partition, %replica, %error, "cannot open the replica yet");
    }
}

/// Whether the replica can never be opened again under its id.
fn is_damage(error: &raft::RaftError) -> bool {
    match error {
        raft::RaftError::Storage { source, .. } => source.kind() == std::io::ErrorKind::InvalidData,
        raft::RaftError::Removed(_) => true,
        raft::RaftError::OtherReplica { .. }
        | raft::RaftError::Config(_)
        | raft::RaftError::Group { .. }
        | raft::RaftError::Peers(_) => false,
    }
}

/// Removes what is left of a replica, remembering first, durably, that its id must never come back. What no other node
/// could rebuild is kept: somebody may restore the file, and even a damaged copy is better than none.
async fn discard(core: &Core, data: &DataDir, partition: PartitionId, replica: ReplicaId) {
    let known = core.is_broken(replica);
    core.give_up(replica);
    if !others_hold(&core.map(), data, partition, replica) {
        if !known {
            tracing::error!(%partition, %replica, "no other node holds the partition: the damaged replica is kept");
        }
        return;
    }
    if let Err(error) = data.remember_gone(replica) {
        tracing::error!(%partition, %replica, %error, "cannot remember that the replica is gone, it is kept");
        return;
    }
    if let Err(error) = core.raft().remove(partition, replica).await {
        tracing::warn!(%partition, %replica, %error, "cannot remove the damaged state yet");
    }
    core.leaders().forget(partition);
    core.hashes().forget(partition);
}

/// Whether another node votes in a partition. If the map cannot be read: whether there is another node at all.
fn others_hold(map: &ClusterMap, data: &DataDir, partition: PartitionId, replica: ReplicaId) -> bool {
    match map.partitions.iter().find(|known| known.id == partition.0) {
        Some(known) => known
            .replicas
            .iter()
            .any(|other| other.voter && other.id != replica.0),
        None => data.remembered_peers().is_ok_and(|peers| !peers.is_empty()),
    }
}

/// A replica in which damage was met while it ran is given up. Nothing else is a reason to: what stops a group otherwise
/// may stop all its replicas, and what they hold is whole. One that still runs votes and follows until its group has
/// dropped it, which it does once it can spare it: its log may be needed, and damage that one read met is no haste.
async fn give_up_if_damaged(core: &Core, replica: raft::Replica, data: &DataDir) {
    let status = replica.status();
    let Some(what) = status.damaged else {
        return;
    };
    let (partition, id) = (replica.partition(), replica.replica_id());
    let (runs, known) = (status.stopped.is_none(), core.is_broken(id));
    if known && runs {
        return;
    }
    // Its state is removed once nobody holds it.
    drop(replica);
    if !known {
        tracing::error!(%partition, replica = %id, what, "the replica is damaged: it is given up and will be replaced");
        core.metrics().damaged_replicas.inc();
    }
    match runs {
        true => core.give_up(id),
        false => discard(core, data, partition, id).await,
    }
}

/// Removes a replica that is no longer wanted, if its group has dropped it; returns whether it is gone.
async fn remove_if_dropped(
    core: &Arc<Core>,
    data: &DataDir,
    map: &ClusterMap,
    partition: PartitionId,
    id: ReplicaId,
) -> bool {
    let known = map.partitions.iter().any(|known| known.id == partition.0);
    if !known && !core.is_broken(id) {
        return false;
    }
    let Some(term) = core.replica(partition).map(|replica| replica.status().term) else {
        return false;
    };
    let reports = core.gather(&[partition.0], false).await;
    let Some(leader) = dropped_by(&reports, partition, id) else {
        return false;
    };
    if leader.term < term && !leads(core, partition, leader).await {
        return false;
    }
    if let Err(error) = data.remember_gone(id) {
        tracing::warn!(%partition, replica = %id, %error, "cannot remember that the replica is gone");
        return false;
    }
    match core.raft().remove(partition, id).await {
        Ok(()) => {
            tracing::info!(%partition, replica = %id, "removed a replica that moved away");
            core.leaders().forget(partition);
            core.hashes().forget(partition);
            core.hub().installed(partition);
            core.poke().notify_one();
            true
        }
        Err(error) => {
            tracing::warn!(%partition, replica = %id, %error, "cannot remove the replica yet");
            false
        }
    }
}

/// A leader that says that a replica is no member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dropper {
    node: NodeId,
    replica: ReplicaId,
    term: u64,
}

/// The newest leader, if it says that the replica is no member.
fn dropped_by(
    reports: &BTreeMap<NodeId, NodeReport>,
    partition: PartitionId,
    id: ReplicaId,
) -> Option<Dropper> {
    let told = reports
        .iter()
        .flat_map(|(node, report)| report.replicas.iter().map(|replica| (*node, replica)));
    let leaders = told.filter(|(_, it)| it.partition == partition.0 && it.leads && it.replica != id.0);
    // Of two leaders of one term the one with the lower id can commit nothing.
    let (node, leader) = leaders.max_by_key(|(_, report)| (report.term, report.replica))?;
    let known = !leader.members.is_empty();
    let dropped = known && leader.members.iter().all(|member| member.replica != id.0);
    dropped.then_some(Dropper {
        node,
        replica: ReplicaId(leader.replica),
        term: leader.term,
    })
}

/// Whether a majority follows that leader now. The replica here has seen a higher term than the leader's: either there is a
/// newer leader, which may have taken it in, or it stood itself after it was dropped, again and again, and nobody listened.
async fn leads(core: &Core, partition: PartitionId, leader: Dropper) -> bool {
    let nothing = Bytes::new();
    let asked = core.raft().request(
        leader.node,
        Kind::ReadIndex,
        partition,
        nothing.clone(),
        nothing,
        CONFIRMED_WITHIN,
    );
    let told = asked
        .await
        .ok()
        .and_then(|body| peer::ReadIndex::decode(body).ok());
    told.is_some_and(|told| (told.term, told.leader) == (leader.term, leader.replica.0))
}

/// Replicas on this disk, newest id per partition: what a restart opens before the map says more.
pub(crate) fn on_disk(listed: Vec<(PartitionId, ReplicaId)>) -> BTreeMap<PartitionId, ReplicaId> {
    let mut newest = BTreeMap::new();
    for (partition, replica) in listed {
        let known = newest.entry(partition).or_insert(replica);
        *known = replica.max(*known);
    }
    newest
}

#[cfg(test)]
mod tests;
