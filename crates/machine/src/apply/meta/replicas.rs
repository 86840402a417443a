//! Where replicas are wanted; each change names the generation it was planned from.

use super::super::{Stop, refusal, refusal_at};
use super::Edit;
use crate::outcome::{Allocated, Done, Refusal, RefusalKind};
use crate::record::meta::{
    self as records, AddReplica, MoveReplica, NodeState, Partition, RemoveReplica, SetVoter,
};

impl Edit<'_, '_> {
    pub(super) fn add_replica(&mut self, request: &AddReplica) -> Result<Done, Stop> {
        let mut partition = self.partition_at(request.partition, request.generation)?;
        self.check_active(request.node)?;
        if let Some(place) = place_on(&partition, request.node) {
            let replica = partition.replicas[place].id;
            let text = format!(
                "node {} holds replica {replica} of partition {}",
                request.node, partition.id
            );
            return Err(refusal_at(RefusalKind::AlreadyExists, text, replica as i64).into());
        }
        let replica = self.new_replica(request.node, request.voter, false);
        let id = replica.id;
        partition.replicas.push(replica);
        let generation = self.put_partition(partition)?;
        self.changed();
        Ok(Done::Allocated(Allocated { id, generation }))
    }

    pub(super) fn remove_replica(&mut self, request: &RemoveReplica) -> Result<Done, Stop> {
        let mut partition = self.partition_at(request.partition, request.generation)?;
        let place = place(&partition, request.replica)?;
        if last_voter(&partition, place) {
            return Err(refusal(
                RefusalKind::Invalid,
                "the last voter of a partition cannot be removed",
            )
            .into());
        }
        let gone = partition.replicas.remove(place);
        if let Some(heir) = partition
            .replicas
            .iter_mut()
            .find(|other| other.replaces == gone.id)
        {
            heir.replaces = gone.replaces;
        }
        let generation = self.put_partition(partition)?;
        self.changed();
        Ok(Done::Allocated(Allocated {
            id: request.replica,
            generation,
        }))
    }

    pub(super) fn move_replica(&mut self, request: &MoveReplica) -> Result<Done, Stop> {
        let known = self.partition_at(request.partition, request.generation)?;
        let old = place_on(&known, request.from);
        let new = place_on(&known, request.to);
        self.check_move(&known, request, old, new)?;
        let mut partition = known.clone();
        let new = match new {
            Some(new) => new,
            None => {
                let replica = self.new_replica(request.to, false, false);
                partition.replicas.push(replica);
                partition.replicas.len() - 1
            }
        };
        let id = partition.replicas[new].id;
        if let Some(old) = old {
            let leaving = &mut partition.replicas[old];
            if leaving.replaces == id {
                // The way back of a move that has not ended.
                leaving.replaces = 0;
            }
            let (leaving, voter) = (leaving.id, leaving.voter);
            let heir = &mut partition.replicas[new];
            heir.replaces = leaving;
            heir.voter |= voter;
        }
        let mut generation = known.generation;
        if partition != known {
            generation = self.put_partition(partition)?;
            self.changed();
        }
        Ok(Done::Allocated(Allocated { id, generation }))
    }

    /// Invariant: nobody has two heirs, and no chain of them closes; so somebody always stays (`invariant::map`).
    fn check_move(
        &self,
        partition: &Partition,
        request: &MoveReplica,
        old: Option<usize>,
        new: Option<usize>,
    ) -> Result<(), Stop> {
        let (from, to) = (request.from, request.to);
        if partition.id == 0 || from == to {
            let text = "the meta partition stays on every node, and a move has two nodes";
            return Err(refusal(RefusalKind::Invalid, text).into());
        }
        if records::node(&self.context.overlay, from)?.is_none() {
            return Err(refusal(RefusalKind::NotFound, format!("there is no node {from}")).into());
        }
        let Some(old) = old.map(|place| &partition.replicas[place]) else {
            // It is done, or there is nothing to do it with.
            return match new {
                Some(_) => Ok(()),
                None => Err(refusal(
                    RefusalKind::NotFound,
                    format!("node {from} holds no replica of partition {}", partition.id),
                )
                .into()),
            };
        };
        self.check_active(to)?;
        let busy = |replica: u64, node: u64| {
            let text = format!("replica {replica} is moving to node {node}");
            Err(refusal(RefusalKind::Stale, text).into())
        };
        if let Some(heir) = partition.heir(old.id).filter(|heir| heir.node != to) {
            return busy(old.id, heir.node);
        }
        let Some(new) = new.map(|place| &partition.replicas[place]) else {
            return Ok(());
        };
        match partition.heir(new.id) {
            Some(heir) if heir.id != old.id => busy(new.id, heir.node),
            _ if new.replaces != 0 && new.replaces != old.id => busy(new.replaces, to),
            _ => Ok(()),
        }
    }

    fn check_active(&self, node: u64) -> Result<(), Stop> {
        match self.node(node)?.state() {
            NodeState::Active => Ok(()),
            NodeState::Draining | NodeState::Removed => {
                Err(refusal(RefusalKind::Stale, format!("node {node} is being drained")).into())
            }
        }
    }

    pub(super) fn set_voter(&mut self, request: &SetVoter) -> Result<Done, Stop> {
        let mut partition = self.partition_at(request.partition, request.generation)?;
        let place = place(&partition, request.replica)?;
        if !request.voter && last_voter(&partition, place) {
            return Err(refusal(
                RefusalKind::Invalid,
                "the last voter of a partition must go on voting",
            )
            .into());
        }
        let mut generation = partition.generation;
        if partition.replicas[place].voter != request.voter {
            partition.replicas[place].voter = request.voter;
            generation = self.put_partition(partition)?;
            self.changed();
        }
        Ok(Done::Allocated(Allocated {
            id: request.replica,
            generation,
        }))
    }
}

/// Where the replica of a node stands among those of a partition.
fn place_on(partition: &Partition, node: u64) -> Option<usize> {
    partition.replicas.iter().position(|replica| replica.node == node)
}

/// Where a replica stands among those of its partition.
fn place(partition: &Partition, replica: u64) -> Result<usize, Refusal> {
    let place = partition.replicas.iter().position(|known| known.id == replica);
    place.ok_or_else(|| {
        let text = format!("partition {} has no replica {replica}", partition.id);
        refusal(RefusalKind::NotFound, text)
    })
}

fn last_voter(partition: &Partition, place: usize) -> bool {
    let voters = partition.replicas.iter().filter(|replica| replica.voter).count();
    voters == 1 && partition.replicas[place].voter
}
