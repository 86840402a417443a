//! Nodes: admitted once per data directory, removed for ever.

use types::limits;

use super::super::{Stop, refusal, refusal_at};
use super::Edit;
use crate::outcome::{Allocated, Done, Empty, Refusal, RefusalKind};
use crate::record::key::Kind;
use crate::record::meta::{self as records, Node, NodeRef, NodeState, Partition, SetNodeState};

/// At the address that the cluster knows, it is the known node with another directory; elsewhere, another node.
fn other_incarnation(known: &Node, request: &Node) -> Refusal {
    let id = known.id;
    let text = if request.peer_address == known.peer_address {
        format!("node id {id} belongs to another incarnation: the data directory of node {id} was wiped")
    } else {
        format!(
            "node id {id} belongs to another incarnation, at {}: it is reused by {}",
            known.peer_address, request.peer_address
        )
    };
    refusal(RefusalKind::AlreadyExists, text)
}

impl Edit<'_, '_> {
    pub(super) fn admit(&mut self, request: &Node) -> Result<Done, Stop> {
        if request.incarnation == 0 || request.id > u64::from(u32::MAX) {
            return Err(refusal(
                RefusalKind::Invalid,
                "a node without incarnation, or with too large an id",
            )
            .into());
        }
        self.check_version(request)?;
        let nodes = records::nodes(&self.context.overlay)?;
        if let Some(known) = nodes.iter().find(|node| node.incarnation == request.incarnation) {
            return self.admit_again(known, request);
        }
        if let Some(other) = nodes.iter().find(|node| node.id == request.id) {
            return Err(match other.state() {
                NodeState::Removed => refusal(RefusalKind::Stale, format!("node {} was removed", other.id)),
                NodeState::Active | NodeState::Draining => other_incarnation(other, request),
            }
            .into());
        }
        let held = nodes
            .iter()
            .filter(|node| node.state() != NodeState::Removed)
            .count();
        if held >= limits::NODES {
            let text = format!("the cluster has {} nodes, the limit", limits::NODES);
            return Err(refusal(RefusalKind::LimitReached, text).into());
        }
        let id = if request.id == 0 {
            self.cluster.next_node
        } else {
            request.id
        };
        self.cluster.next_node = self.cluster.next_node.max(id.saturating_add(1));
        self.put(
            Kind::Node,
            id,
            &Node {
                id,
                state: NodeState::Active as i32,
                ..request.clone()
            },
        )?;
        self.join_meta(id)?;
        self.changed();
        Ok(Done::Allocated(Allocated { id, generation: 1 }))
    }

    /// A node whose first admission it did not hear of, or that changed its addresses since.
    fn admit_again(&mut self, known: &Node, request: &Node) -> Result<Done, Stop> {
        if known.state() == NodeState::Removed {
            return Err(refusal(RefusalKind::Stale, format!("node {} was removed", known.id)).into());
        }
        if request.id != 0 && request.id != known.id {
            let text = format!("this data directory is node {}, not {}", known.id, request.id);
            return Err(refusal_at(RefusalKind::AlreadyExists, text, known.id as i64).into());
        }
        let boots = known.boots.max(request.boots);
        let node = Node {
            id: known.id,
            state: known.state,
            boots,
            ..request.clone()
        };
        if node != *known {
            self.put(Kind::Node, node.id, &node)?;
            self.changed();
        }
        Ok(Done::Allocated(Allocated {
            id: known.id,
            generation: 1,
        }))
    }

    /// Every node follows the meta partition; the first few vote in it.
    fn join_meta(&mut self, node: u64) -> Result<(), Stop> {
        let mut partition = self.partition(0)?;
        let voters = partition.replicas.iter().filter(|replica| replica.voter).count();
        let replica = self.new_replica(node, voters < limits::REPLICATION_FACTOR, false);
        partition.replicas.push(replica);
        self.put_partition(partition)?;
        Ok(())
    }

    pub(super) fn started(&mut self, request: &Node) -> Result<Done, Stop> {
        let known = self.node(request.id)?;
        if known.incarnation != request.incarnation {
            return Err(other_incarnation(&known, request).into());
        }
        if request.boots < known.boots {
            let text = format!(
                "node {} was started {} times, this copy {}",
                known.id, known.boots, request.boots
            );
            return Err(refusal_at(RefusalKind::Stale, text, known.boots as i64).into());
        }
        self.check_version(request)?;
        let mut node = Node {
            state: known.state,
            ..request.clone()
        };
        if node.name.is_empty() {
            node.name.clone_from(&known.name);
        }
        if node != known {
            self.put(Kind::Node, node.id, &node)?;
            self.changed();
        }
        Ok(Done::Empty(Empty {}))
    }

    pub(super) fn set_state(&mut self, request: &SetNodeState) -> Result<Done, Stop> {
        let mut node = self.node(request.node)?;
        match request.state() {
            NodeState::Active | NodeState::Draining => {}
            NodeState::Removed => {
                return Err(refusal(RefusalKind::Invalid, "a node is removed by its own command").into());
            }
        }
        if node.state != request.state {
            node.set_state(request.state());
            self.put(Kind::Node, node.id, &node)?;
            self.changed();
        }
        Ok(Done::Empty(Empty {}))
    }

    pub(super) fn remove_node(&mut self, request: &NodeRef) -> Result<Done, Stop> {
        let known = records::node(&self.context.overlay, request.node)?;
        if known.is_some_and(|node| node.state() == NodeState::Removed) {
            return Ok(Done::Empty(Empty {}));
        }
        let mut node = self.node(request.node)?;
        let partitions = records::partitions(&self.context.overlay)?;
        let holds = |partition: &&Partition| partition.replicas.iter().any(|replica| replica.node == node.id);
        if let Some(partition) = partitions.iter().find(holds) {
            let text = format!(
                "node {} still holds a replica of partition {}",
                node.id, partition.id
            );
            return Err(refusal_at(RefusalKind::Stale, text, i64::from(partition.id)).into());
        }
        node.set_state(NodeState::Removed);
        self.put(Kind::Node, node.id, &node)?;
        self.changed();
        Ok(Done::Empty(Empty {}))
    }
}
