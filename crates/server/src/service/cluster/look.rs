//! What the cluster looks like: the map from the state applied here, the rest from all nodes that answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use machine::record::meta::{ClusterMap, NodeState, Partition};
use planner::Observed;
use proto::peer::{NodeReport, ReplicaReport};
use proto::v1;
use types::{NodeId, PartitionId, ReplicaId, Slot};

use super::Answers;
use crate::core::{Core, ServerError, partition_of};
use crate::reconcile::{compare, observed};

/// How long a caller that asks for leaders waits while an election is under way.
const PARTITIONS_LISTED_MAX: usize = types::limits::PARTITIONS as usize + 1;

fn state_name(state: i32) -> &'static str {
    match NodeState::try_from(state) {
        Ok(NodeState::Active) => "active",
        Ok(NodeState::Draining) => "draining",
        Ok(NodeState::Removed) => "removed",
        Err(_) => "unknown",
    }
}

fn revision(map: &ClusterMap) -> u64 {
    map.cluster.as_ref().map_or(0, |cluster| cluster.map_revision)
}

/// See `Cluster.Status`.
pub(super) async fn status(core: &Core) -> v1::StatusResponse {
    let map = core.map();
    let reports = core.gather(&[], false).await;
    let seen = observed(&reports);
    let members: Vec<_> = map
        .nodes
        .iter()
        .filter(|node| node.state != NodeState::Removed as i32)
        .collect();
    let cluster = map.cluster.clone().unwrap_or_default();
    let led = map
        .partitions
        .iter()
        .filter(|partition| leader(&seen, partition.id).is_some())
        .count();
    let short = map
        .partitions
        .iter()
        .filter(|partition| is_short(partition, &seen, members.len()))
        .count();
    v1::StatusResponse {
        cluster_id: core.cluster_id().0,
        node_id: core.node_id().0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_version: cluster.version,
        map_revision: cluster.map_revision,
        nodes: members.len() as u32,
        nodes_reachable: reports.len() as u32,
        partitions: map.partitions.len() as u32,
        partitions_with_leader: led as u32,
        partitions_under_replicated: short as u32,
        frozen: cluster.frozen,
        problems: problems(&map, &reports, &seen, led, short),
    }
}

fn leader(seen: &Observed, partition: u32) -> Option<NodeId> {
    seen.partitions
        .get(&PartitionId(partition))
        .and_then(|group| group.leader)
}

/// Whether a partition has fewer caught-up voters on reachable nodes than it should.
fn is_short(partition: &Partition, seen: &Observed, nodes: usize) -> bool {
    let Some(group) = seen.partitions.get(&PartitionId(partition.id)) else {
        return true;
    };
    let sound = partition
        .replicas
        .iter()
        .filter(|replica| seen.alive.contains(&NodeId(replica.node)))
        .filter(|replica| {
            let id = ReplicaId(replica.id);
            group.voters.contains(&id) && group.caught_up.contains(&id) && !seen.broken.contains(&id)
        })
        .count();
    sound < types::limits::REPLICATION_FACTOR.min(nodes)
}

fn problems(
    map: &ClusterMap,
    reports: &BTreeMap<NodeId, NodeReport>,
    seen: &Observed,
    led: usize,
    short: usize,
) -> Vec<String> {
    let mut problems = Vec::new();
    if map.cluster.is_none() {
        problems.push("this node has not received the cluster map".to_owned());
    }
    for node in map
        .nodes
        .iter()
        .filter(|node| node.state != NodeState::Removed as i32)
    {
        if !reports.contains_key(&NodeId(node.id)) {
            problems.push(format!("node {} ({}) does not answer", node.id, node.name));
        }
    }
    if led < map.partitions.len() {
        problems.push(format!(
            "{} of {} partitions have no leader",
            map.partitions.len() - led,
            map.partitions.len()
        ));
    }
    if short > 0 {
        problems.push(format!(
            "{short} partitions have fewer caught-up voters than wanted"
        ));
    }
    for report in reports.values() {
        if report.disk_full {
            problems.push(format!(
                "node {}: disk nearly full, {} bytes free",
                report.node, report.disk_free_bytes
            ));
        }
        if report.disk_slow {
            problems.push(format!(
                "node {}: disk slow, others lead where they can",
                report.node
            ));
        }
        for replica in &report.differing {
            problems.push(format!(
                "replica {replica} differs from its leader (seen by node {})",
                report.node
            ));
        }
    }
    for replica in &seen.broken {
        problems.push(format!("replica {replica} is damaged and will be replaced"));
    }
    problems
}

/// See `Cluster.ListNodes`.
pub(super) async fn nodes(core: &Core) -> v1::ListNodesResponse {
    let map = core.map();
    let reports = core.gather(&[], false).await;
    let mut nodes = describe_nodes(core, &map, Some(&observed(&reports)));
    for node in &mut nodes {
        let report = reports.get(&NodeId(node.id));
        node.starting = report.is_some_and(|report| report.starting);
    }
    v1::ListNodesResponse {
        nodes,
        map_revision: revision(&map),
    }
}

fn describe_nodes(core: &Core, map: &ClusterMap, seen: Option<&Observed>) -> Vec<v1::Node> {
    let peers = core.raft().peers();
    let describe = |node: &machine::record::meta::Node| {
        let id = NodeId(node.id);
        let replicas = map
            .partitions
            .iter()
            .filter(|p| p.replicas.iter().any(|replica| replica.node == node.id))
            .count();
        let leads = |seen: &Observed| {
            seen.partitions
                .values()
                .filter(|group| group.leader == Some(id))
                .count()
        };
        let peer = peers.iter().find(|peer| peer.node == id);
        v1::Node {
            id: node.id,
            name: node.name.clone(),
            state: state_name(node.state).to_owned(),
            peer_address: node.peer_address.clone(),
            client_address: node.client_address.clone(),
            http_address: node.http_address.clone(),
            leaders: seen.map_or(0, leads) as u32,
            replicas: replicas as u32,
            detector: match peer {
                _ if id == core.node_id() => "alive".to_owned(),
                Some(peer) => peer.state.to_string(),
                None => String::new(),
            },
            last_heard_ms: peer.and_then(|peer| peer.last_heard).unwrap_or(0),
            suspicion: peer.map(|peer| peer.suspicion.clone()).unwrap_or_default(),
            version: node.version,
            quick_elections: peer.map_or(0, |peer| peer.quick_elections as u32),
            starting: false,
        }
    };
    map.nodes.iter().map(describe).collect()
}

/// See `Cluster.ListPartitions`.
pub(super) async fn partitions(
    core: &Core,
    asked: &[u32],
) -> Result<v1::ListPartitionsResponse, ServerError> {
    let map = core.map();
    if asked.len() > PARTITIONS_LISTED_MAX {
        return Err(ServerError::Invalid {
            text: format!("{} partitions asked for", asked.len()),
        });
    }
    if let Some(id) = asked
        .iter()
        .find(|id| !map.partitions.iter().any(|partition| partition.id == **id))
    {
        return Err(ServerError::UnknownPartition {
            partition: PartitionId(*id),
        });
    }
    let reports = core.gather(asked, true).await;
    let held = by_replica(&reports);
    let partitions = map
        .partitions
        .iter()
        .filter(|partition| asked.is_empty() || asked.contains(&partition.id))
        .map(|partition| describe_partition(&map, partition, &held))
        .collect();
    Ok(v1::ListPartitionsResponse {
        partitions,
        map_revision: revision(&map),
    })
}

type Held<'a> = BTreeMap<(u32, u64), (NodeId, &'a ReplicaReport)>;

fn by_replica(reports: &BTreeMap<NodeId, NodeReport>) -> Held<'_> {
    let mut held = BTreeMap::new();
    for (node, report) in reports {
        for replica in &report.replicas {
            held.insert((replica.partition, replica.replica), (*node, replica));
        }
    }
    held
}

fn describe_partition(map: &ClusterMap, partition: &Partition, held: &Held<'_>) -> v1::Partition {
    let here = held.range((partition.id, 0)..=(partition.id, u64::MAX));
    let leader = here
        .clone()
        .map(|(_, found)| *found)
        .filter(|(_, report)| report.leads)
        .max_by_key(|(_, report)| report.term);
    let mut ids: BTreeSet<(u64, u64)> = partition
        .replicas
        .iter()
        .map(|replica| (replica.id, replica.node))
        .collect();
    if let Some((_, report)) = leader {
        ids.extend(report.members.iter().map(|member| (member.replica, member.node)));
    }
    let end = leader.map_or(0, |(_, report)| report.last_log);
    let replicas = ids.into_iter().map(|(id, node)| {
        let report = held.get(&(partition.id, id)).map(|(_, report)| *report);
        let applied = report.map_or(0, |report| report.applied);
        v1::Replica {
            id,
            node,
            role: role(id, report, leader.map(|(_, report)| report)).to_owned(),
            applied,
            lag: end.saturating_sub(applied),
            wanted: partition.replicas.iter().any(|replica| replica.id == id) && partition.heir(id).is_none(),
        }
    });
    let count = map.cluster.as_ref().map_or(1, |cluster| cluster.partitions);
    let lives_here = |name: &str| partition_of(Slot::of_namespace(name), count).0 == partition.id;
    v1::Partition {
        id: partition.id,
        generation: partition.generation,
        leader_node: leader.map_or(0, |(node, _)| node.0),
        term: leader.map_or(0, |(_, report)| report.term),
        committed: leader.map_or(0, |(_, report)| report.committed),
        replicas: replicas.collect(),
        size_bytes: here.map(|(_, (_, report))| report.size_bytes).max().unwrap_or(0),
        namespaces: map
            .namespaces
            .iter()
            .map(|n| n.name.clone())
            .filter(|name| lives_here(name))
            .collect(),
    }
}

fn role(id: u64, report: Option<&ReplicaReport>, leader: Option<&ReplicaReport>) -> &'static str {
    let member = leader.and_then(|leader| leader.members.iter().find(|member| member.replica == id));
    match (report, leader, member) {
        (None, _, _) => "absent",
        (Some(_), Some(leader), _) if leader.replica == id => "leader",
        (Some(_), _, Some(member)) if !member.voter => "learner",
        (Some(_), Some(_), None) => "learner",
        (Some(_), _, _) => "follower",
    }
}

/// See `Cluster.GetMap`.
pub(super) fn map(core: &Core) -> Result<v1::Map, ServerError> {
    let map = core.map();
    if map.cluster.is_none() {
        return Err(ServerError::Unavailable {
            text: "this node has not received the cluster map".into(),
        });
    }
    Ok(describe_map(core, &map))
}

fn describe_map(core: &Core, map: &ClusterMap) -> v1::Map {
    let count = map.cluster.as_ref().map_or(1, |cluster| cluster.partitions);
    let partitions = map.partitions.iter().map(|partition| {
        let id = PartitionId(partition.id);
        let (leader_node, term) = core.leader(id).map_or((0, 0), |(node, term)| (node.0, term));
        let replicas = partition.replicas.iter().map(|replica| v1::Replica {
            id: replica.id,
            node: replica.node,
            role: if replica.node == leader_node {
                "leader"
            } else if replica.voter {
                "follower"
            } else {
                "learner"
            }
            .to_owned(),
            wanted: partition.heir(replica.id).is_none(),
            ..v1::Replica::default()
        });
        let replicas = replicas.collect();
        v1::Partition {
            id: id.0,
            generation: partition.generation,
            leader_node,
            term,
            replicas,
            ..Default::default()
        }
    });
    v1::Map {
        revision: revision(map),
        cluster_id: core.cluster_id().0,
        nodes: describe_nodes(core, map, None),
        partitions: partitions.collect(),
        slots: slots(count),
        namespaces: map
            .namespaces
            .iter()
            .map(|namespace| super::space::describe(namespace, count))
            .collect(),
    }
}

fn slots(count: u32) -> Vec<v1::SlotRange> {
    let mut ranges: Vec<v1::SlotRange> = Vec::new();
    for slot in 0..types::id::SLOTS {
        let partition = partition_of(Slot(slot), count).0;
        match ranges.last_mut() {
            Some(range) if range.partition == partition => range.last = u32::from(slot),
            _ => ranges.push(v1::SlotRange {
                first: u32::from(slot),
                last: u32::from(slot),
                partition,
            }),
        }
    }
    ranges
}

/// See `Cluster.WatchMap`. Changes that come faster than the client reads are told as one.
pub(super) fn watch_map(core: Arc<Core>) -> Answers<v1::Map> {
    let changes = tokio_stream::wrappers::WatchStream::new(core.map_changed());
    let maps = changes.filter_map(move |_| {
        let core = core.clone();
        async move { map(&core).ok().map(Ok) }
    });
    Box::pin(maps)
}

/// See `Cluster.CheckConsistency`.
pub(super) async fn consistency(
    core: &Core,
    partition: PartitionId,
) -> Result<v1::CheckConsistencyResponse, ServerError> {
    let limit = Duration::from_secs(20);
    let compared = tokio::time::timeout(limit, compare(core, partition)).await;
    let compared = compared.map_err(|_| ServerError::Timeout {
        text: "replicas did not meet at one index".into(),
    })??;
    let replicas = compared
        .replicas
        .iter()
        .map(|(replica, node, hash)| v1::ReplicaHash {
            replica: replica.0,
            node: node.0,
            hash: hash
                .as_ref()
                .map(|hash| hash.iter().map(|byte| format!("{byte:02x}")).collect())
                .unwrap_or_default(),
            error: hash.as_ref().err().cloned().unwrap_or_default(),
        });
    Ok(v1::CheckConsistencyResponse {
        index: compared.index,
        replicas: replicas.collect(),
        equal: compared.equal(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_ranges_cover_everything_once() {
        for count in [1, 16, 1000] {
            let ranges = slots(count);
            assert_eq!(ranges.len() as u32, count);
            assert_eq!((ranges[0].first, ranges[ranges.len() - 1].last), (0, 4095));
            assert!(ranges.windows(2).all(|pair| pair[0].last + 1 == pair[1].first));
        }
    }
}
