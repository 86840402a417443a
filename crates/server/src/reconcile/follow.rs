//! Follows the map: reads it when apply says it changed, tells the peer transport, remembers addresses for the next
//! start. The map here can be older than the cluster: a node that is still catching up keeps the peers it was given when
//! it was admitted; one that a stranger of its own cluster knocks at, or that has had no leader of the meta partition for
//! long, asks the peers it knows for those it does not. Else a leader that joined meanwhile could never bring the map.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use machine::record::meta::{ClusterMap, Node, NodeState};
use proto::peer::JoinRequest;
use raft::KnownPeer;
use tokio::time::Instant;
use types::{Incarnation, NodeId, PartitionId};

use crate::core::Core;
use crate::identity::DataDir;

/// After so long without a leader of the meta partition, peers are asked for the others.
const LOST_AFTER: Duration = Duration::from_secs(4);
/// Between looks when nothing happens.
const LOOK: Duration = Duration::from_secs(2);

/// Never ends. `own`: this node as its process is now, of which the map may know another address.
pub(super) async fn run(core: Arc<Core>, data: Arc<DataDir>, own: Node) {
    let mut seen = 0;
    let mut led_at = Instant::now();
    let mut strangers = 0;
    let mut asked_at = None;
    loop {
        match core.refresh_map() {
            Ok(revision) if revision > seen => {
                seen = revision;
                adopt(&core, &data, BTreeMap::new());
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot read the cluster map"),
        }
        if core.leader(PartitionId::META).is_some() {
            led_at = Instant::now();
        }
        let knocked = core.raft().stats().peers.strangers;
        let lost = led_at.elapsed() > LOST_AFTER || knocked > strangers;
        if lost && asked_at.is_none_or(|at: Instant| at.elapsed() > LOST_AFTER) {
            strangers = knocked;
            asked_at = Some(Instant::now());
            let told = ask_peers(&core, &own).await;
            if !told.is_empty() {
                adopt(&core, &data, told);
            }
        }
        tokio::select! {
            () = core.woken().map.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Tells the transport who the peers are.
fn adopt(core: &Core, data: &DataDir, more: BTreeMap<NodeId, String>) {
    let (peers, removed) = all_peers(core, data, more);
    for node in &removed {
        core.metrics().forget_peer(*node);
    }
    let addresses: Vec<(NodeId, String)> = peers
        .iter()
        .filter(|known| known.node != core.node_id())
        .map(|known| (known.node, known.address.clone()))
        .collect();
    if let Err(error) = data.remember_peers(&addresses) {
        tracing::warn!(%error, "cannot remember the peers' addresses");
    }
    core.raft().set_peers(peers, removed);
    core.prune_broken();
}

/// Peers as the map has them, those in `more`, and as long as the map here is older than this node's admission, those
/// that were known then; and who was removed for good.
pub(crate) fn all_peers(
    core: &Core,
    data: &DataDir,
    mut more: BTreeMap<NodeId, String>,
) -> (Vec<KnownPeer>, Vec<NodeId>) {
    let map = core.map();
    if !map.nodes.iter().any(|node| node.id == core.node_id().0) {
        match data.given_peers() {
            Ok(given) => given.into_iter().for_each(|(node, address)| {
                more.entry(node).or_insert(address);
            }),
            Err(error) => tracing::warn!(%error, "cannot read the peers that were given"),
        }
    }
    let (mut peers, removed) = peers_of(&map);
    for (node, address) in more {
        if !peers.iter().any(|known| known.node == node) && !removed.contains(&node) {
            peers.push(unseen(node, address));
        }
    }
    (peers, removed)
}

/// A peer of which no more than the address is known.
pub(crate) fn unseen(node: NodeId, address: String) -> KnownPeer {
    KnownPeer {
        node,
        incarnation: Incarnation(0),
        boots: 0,
        address,
    }
}

/// Peers as the map has them, and those removed for good.
fn peers_of(map: &ClusterMap) -> (Vec<KnownPeer>, Vec<NodeId>) {
    let (removed, members): (Vec<_>, Vec<_>) = map
        .nodes
        .iter()
        .partition(|node| node.state == NodeState::Removed as i32);
    let peers = members
        .into_iter()
        .map(|node| KnownPeer {
            node: NodeId(node.id),
            incarnation: Incarnation(node.incarnation),
            boots: node.boots,
            address: node.peer_address.clone(),
        })
        .collect();
    (peers, removed.into_iter().map(|node| NodeId(node.id)).collect())
}

/// Asks known peers for all peers, the way a joining node does: they admit a known incarnation again.
async fn ask_peers(core: &Core, own: &Node) -> BTreeMap<NodeId, String> {
    let mut told = BTreeMap::new();
    let request = JoinRequest {
        format: crate::join::FORMAT,
        node_id: own.id,
        incarnation: own.incarnation,
        peer_address: own.peer_address.clone(),
        client_address: own.client_address.clone(),
        http_address: own.http_address.clone(),
        name: own.name.clone(),
        version: own.version,
        cluster_id: core.cluster_id().0,
        meta_lost: false,
        meta_replica_lost: 0,
    };
    tracing::info!("the map here may be old: asking peers for the cluster's nodes");
    let known = core.raft().peers().into_iter();
    let addresses: Vec<String> = known.map(|peer| peer.address).collect();
    let asked = tokio::time::timeout(
        Duration::from_secs(5),
        crate::join::ask(&core.env().net, &addresses, &request),
    )
    .await;
    if let Ok(Ok(reply)) = asked {
        told.extend(
            reply
                .peers
                .into_iter()
                .map(|peer| (NodeId(peer.node), peer.address)),
        );
    }
    told
}
