//! Changes of the cluster's records. Preconditions are checked here, at apply: a plan made from an older state is
//! refused, never merged.

use types::limits;

use super::{Context, Stop, refusal, refusal_at};
use crate::command::NamespaceSettings;
use crate::outcome::{Allocated, Done, Effect, Empty, Refusal, RefusalKind};
use crate::record::key::{self, Kind};
use crate::record::meta::{
    self as records, Bootstrap, Change, Cluster, MetaCommand, Namespace, Node, NodeState, Partition, Replica,
};
use crate::record::{Space, encode};
use crate::view::ViewError;

mod namespaces;
mod nodes;
mod replicas;

/// The command: the change, and if it changed anything, the map's revision.
pub(super) fn meta(context: &mut Context<'_>, command: &MetaCommand) -> Result<Done, Stop> {
    let change = command
        .change
        .as_ref()
        .expect("checked before anything is executed");
    let cluster = records::cluster(&context.overlay)?;
    let mut cluster = match (change, cluster) {
        (Change::Bootstrap(_), Some(cluster)) => {
            let text = format!("this is cluster {:016x} already", cluster.id);
            return Err(refusal(RefusalKind::AlreadyExists, text).into());
        }
        (Change::Bootstrap(request), None) => new_cluster(request)?,
        (_, Some(cluster)) => cluster,
        (_, None) => return Err(refusal(RefusalKind::NotFound, "the cluster is not bootstrapped").into()),
    };
    let before = cluster.map_revision;
    let mut edit = Edit {
        context,
        cluster: &mut cluster,
    };
    let done = match change {
        Change::Bootstrap(request) => edit.bootstrap(request),
        Change::AdmitNode(request) => edit.admit(request),
        Change::NodeStarted(request) => edit.started(request),
        Change::SetNodeState(request) => edit.set_state(request),
        Change::RemoveNode(request) => edit.remove_node(request),
        Change::AddReplica(request) => edit.add_replica(request),
        Change::RemoveReplica(request) => edit.remove_replica(request),
        Change::SetVoter(request) => edit.set_voter(request),
        Change::PutNamespace(request) => edit.put_namespace(request),
        Change::SetFrozen(request) => edit.set_frozen(request.frozen),
        Change::RaiseVersion(request) => edit.raise_version(request.version),
        Change::MoveReplica(request) => edit.move_replica(request),
        Change::Begin(request) => Ok(Done::Allocated(Allocated {
            id: request.token,
            generation: 0,
        })),
    }?;
    if cluster.map_revision != before {
        context
            .overlay
            .put(key::single(Space::PARTITION, Kind::Cluster), encode(&cluster))?;
        context.push_effect(Effect::MetaChanged);
    }
    Ok(done)
}

/// Revision of the map; 0 before bootstrap.
pub(super) fn map_revision(context: &Context<'_>) -> Result<i64, ViewError> {
    Ok(records::cluster(&context.overlay)?.map_or(0, |cluster| cluster.map_revision as i64))
}

fn new_cluster(request: &Bootstrap) -> Result<Cluster, Refusal> {
    if request.cluster_id == 0 {
        return Err(refusal(RefusalKind::Invalid, "cluster id 0"));
    }
    if !(1..=limits::PARTITIONS).contains(&request.partitions) {
        let text = format!(
            "{} partitions, the limit is {}",
            request.partitions,
            limits::PARTITIONS
        );
        return Err(refusal(RefusalKind::Invalid, text));
    }
    Ok(Cluster {
        id: request.cluster_id,
        version: request.version,
        restore_epoch: 1,
        map_revision: 0,
        next_node: 1,
        next_replica: 1,
        next_namespace: 1,
        partitions: request.partitions,
        frozen: false,
    })
}

/// One change being made. Writes only after its last refusal.
struct Edit<'c, 'v> {
    context: &'c mut Context<'v>,
    cluster: &'c mut Cluster,
}

impl Edit<'_, '_> {
    fn put<M: prost::Message>(&mut self, kind: Kind, id: u64, record: &M) -> Result<(), ViewError> {
        self.context
            .overlay
            .put(key::number(Space::PARTITION, kind, id), encode(record))
    }

    /// To be called once by each change that changes something.
    fn changed(&mut self) {
        self.cluster.map_revision += 1;
    }

    fn new_replica(&mut self, node: u64, voter: bool, founder: bool) -> Replica {
        let id = self.cluster.next_replica;
        self.cluster.next_replica += 1;
        Replica {
            id,
            node,
            voter,
            founder,
            replaces: 0,
        }
    }

    fn partition(&self, id: u32) -> Result<Partition, Stop> {
        records::partition(&self.context.overlay, id)?
            .ok_or_else(|| refusal(RefusalKind::NotFound, format!("there is no partition {id}")).into())
    }

    /// A partition whose generation is the one a plan was made from, if it was made from one.
    fn partition_at(&self, id: u32, generation: u64) -> Result<Partition, Stop> {
        let partition = self.partition(id)?;
        if generation != 0 && partition.generation != generation {
            let text = format!(
                "partition {id} is at generation {}, not {generation}",
                partition.generation
            );
            return Err(refusal_at(RefusalKind::Stale, text, partition.generation as i64).into());
        }
        Ok(partition)
    }

    /// Writes a partition with changed replicas.
    fn put_partition(&mut self, mut partition: Partition) -> Result<u64, ViewError> {
        let voters = partition.replicas.iter().filter(|replica| replica.voter).count();
        assert!(voters > 0, "partition {} is left without a voter", partition.id);
        partition.generation += 1;
        self.put(Kind::Partition, u64::from(partition.id), &partition)?;
        Ok(partition.generation)
    }

    fn node(&self, id: u64) -> Result<Node, Stop> {
        let node = records::node(&self.context.overlay, id)?;
        let node = node.ok_or_else(|| refusal(RefusalKind::NotFound, format!("there is no node {id}")))?;
        if node.state() == NodeState::Removed {
            return Err(refusal(RefusalKind::Stale, format!("node {id} was removed")).into());
        }
        Ok(node)
    }

    /// Refuses a node that does not understand what the cluster writes.
    fn check_version(&self, node: &Node) -> Result<(), Refusal> {
        if node.version < self.cluster.version {
            let text = format!(
                "the node understands version {}, the cluster is at {}",
                node.version, self.cluster.version
            );
            return Err(refusal_at(
                RefusalKind::Invalid,
                text,
                i64::from(self.cluster.version),
            ));
        }
        Ok(())
    }

    fn bootstrap(&mut self, request: &Bootstrap) -> Result<Done, Stop> {
        let Some(node) = &request.node else {
            return Err(refusal(RefusalKind::Invalid, "bootstrap without a node").into());
        };
        if node.id > 1 || node.incarnation == 0 {
            return Err(refusal(
                RefusalKind::Invalid,
                "the first node has id 1, and an incarnation",
            )
            .into());
        }
        self.check_version(node)?;
        self.cluster.next_node = 2;
        self.put(
            Kind::Node,
            1,
            &Node {
                id: 1,
                state: NodeState::Active as i32,
                ..node.clone()
            },
        )?;
        for id in 0..=request.partitions {
            let replicas = vec![self.new_replica(1, true, true)];
            self.put(
                Kind::Partition,
                u64::from(id),
                &Partition {
                    id,
                    generation: 1,
                    replicas,
                },
            )?;
        }
        let id = self.cluster.next_namespace;
        self.cluster.next_namespace += 1;
        let settings = Some(NamespaceSettings::default());
        let namespace = Namespace {
            id,
            name: "default".into(),
            settings,
            generation: 1,
        };
        self.put(Kind::NamespaceEntry, u64::from(id), &namespace)?;
        self.changed();
        Ok(Done::Allocated(Allocated { id: 1, generation: 1 }))
    }

    fn raise_version(&mut self, version: u32) -> Result<Done, Stop> {
        let nodes = records::nodes(&self.context.overlay)?;
        let mut held = nodes.iter().filter(|node| node.state() != NodeState::Removed);
        if let Some(node) = held.find(|node| node.version < version) {
            let text = format!(
                "node {} understands version {}, not {version}",
                node.id, node.version
            );
            return Err(refusal_at(RefusalKind::Stale, text, node.id as i64).into());
        }
        if version > self.cluster.version {
            self.cluster.version = version;
            self.changed();
        }
        Ok(Done::Empty(Empty {}))
    }

    fn set_frozen(&mut self, frozen: bool) -> Result<Done, Stop> {
        if self.cluster.frozen != frozen {
            self.cluster.frozen = frozen;
            self.changed();
        }
        Ok(Done::Empty(Empty {}))
    }
}

#[cfg(test)]
mod tests;
