//! The cluster's version follows what all its nodes understand: it is raised when the last one was upgraded.

use machine::outcome::RefusalKind;
use machine::record::meta::{Change, ClusterMap, NodeState, RaiseVersion};
use types::PartitionId;

use crate::core::{Core, ServerError, meta_command};

/// The version to raise to, if all nodes understand a newer one.
fn wanted(map: &ClusterMap) -> Option<u32> {
    let cluster = map.cluster.as_ref()?;
    let held = map
        .nodes
        .iter()
        .filter(|node| node.state != NodeState::Removed as i32);
    let understood = held.map(|node| node.version).min()?;
    (understood > cluster.version).then_some(understood)
}

/// Raises the version if it is time to. Only the meta partition's leader calls this.
pub(super) async fn follow(core: &Core, map: &ClusterMap) {
    let Some(version) = wanted(map) else { return };
    tracing::info!(
        version,
        "every node understands a newer format: the cluster's version is raised"
    );
    let raise = Change::RaiseVersion(RaiseVersion { version });
    match core.propose(PartitionId::META, meta_command(raise)).await {
        Ok(_) => {}
        // An older node came meanwhile.
        Err(ServerError::Refused(refusal)) if refusal.kind() == RefusalKind::Stale => {}
        Err(error) => {
            tracing::warn!(version, %error, "the version could not be raised, it will be tried again")
        }
    }
}

#[cfg(test)]
mod tests {
    use machine::record::meta::{Cluster, Node};

    use super::*;

    #[test]
    fn raised_once_every_node_understands_it() {
        let node = |id, version, state: NodeState| Node {
            id,
            version,
            state: state as i32,
            ..Node::default()
        };
        let map = |nodes| ClusterMap {
            cluster: Some(Cluster {
                version: 1,
                ..Cluster::default()
            }),
            nodes,
            ..ClusterMap::default()
        };
        let active = NodeState::Active;
        assert_eq!(wanted(&map(vec![node(1, 1, active), node(2, 1, active)])), None);
        assert_eq!(wanted(&map(vec![node(1, 2, active), node(2, 1, active)])), None);
        assert_eq!(
            wanted(&map(vec![node(1, 3, active), node(2, 2, active)])),
            Some(2)
        );
        let gone = node(2, 1, NodeState::Removed);
        assert_eq!(wanted(&map(vec![node(1, 2, active), gone])), Some(2));
        assert_eq!(wanted(&ClusterMap::default()), None);
    }
}
