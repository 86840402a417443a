//! The next single change that moves a group's membership towards what is wanted. Learners first, then all voters in
//! one joint change, then what is left over goes.
//!
//! A node holds one replica of a partition at a time. A member that is not wanted any more, on a node where another one is
//! wanted, therefore goes first, though the group is smaller meanwhile: the other one cannot begin before.
//!
//! Invariant: a replica votes only after it has caught up, a leader that is to go hands over before it goes, and no change
//! of voters is begun that leaves a majority of them out of reach.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use machine::record::meta::Partition;
use types::{NodeId, ReplicaId};

/// A group as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The leader itself.
    pub own: ReplicaId,
    /// Voters, of either set while a change is half done.
    pub voters: BTreeSet<ReplicaId>,
    /// Members that do not vote.
    pub learners: BTreeSet<ReplicaId>,
    /// Members that are reached, and close to the end of the leader's log.
    pub caught_up: BTreeSet<ReplicaId>,
    /// A change of voters is half done.
    pub joint: bool,
    /// Where each member is.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Let a new replica follow.
    AddLearner(ReplicaId, NodeId),
    /// Make exactly these vote.
    SetVoters(BTreeSet<ReplicaId>),
    /// Let another one lead, which then goes on.
    HandOver(ReplicaId),
    /// Drop a replica that does not vote.
    RemoveLearner(ReplicaId),
    /// Somebody must catch up first.
    Wait,
    /// Nothing is left to do.
    Done,
}

/// The next change. `impatient`: some replica has not caught up for long; go on with those that have.
pub fn next_change(wanted: &Partition, members: &Members, impatient: bool) -> Change {
    if let Some(change) = clear_the_way(wanted, members) {
        return change;
    }
    let known = |id: &ReplicaId| members.voters.contains(id) || members.learners.contains(id);
    let absent = wanted
        .replicas
        .iter()
        .find(|replica| !known(&ReplicaId(replica.id)));
    if let Some(replica) = absent {
        return Change::AddLearner(ReplicaId(replica.id), NodeId(replica.node));
    }
    let target: BTreeSet<ReplicaId> = wanted
        .replicas
        .iter()
        .filter(|replica| replica.voter)
        .map(|replica| ReplicaId(replica.id))
        .collect();
    if members.voters != target || members.joint {
        return towards(&target, members, impatient);
    }
    let wanted_ids: BTreeSet<ReplicaId> = wanted
        .replicas
        .iter()
        .map(|replica| ReplicaId(replica.id))
        .collect();
    match members.learners.difference(&wanted_ids).next() {
        Some(surplus) => Change::RemoveLearner(*surplus),
        None => Change::Done,
    }
}

/// What makes room for a replica that cannot begin, since its node still holds another one of this group.
fn clear_the_way(wanted: &Partition, members: &Members) -> Option<Change> {
    let wanted_ids: BTreeSet<ReplicaId> = wanted
        .replicas
        .iter()
        .map(|replica| ReplicaId(replica.id))
        .collect();
    let cannot_begin = |id: &ReplicaId| !members.voters.contains(id) && !members.caught_up.contains(id);
    let waiting: BTreeSet<NodeId> = wanted
        .replicas
        .iter()
        .filter(|replica| cannot_begin(&ReplicaId(replica.id)))
        .map(|replica| NodeId(replica.node))
        .collect();
    let mut there = members.nodes.iter();
    let (id, _) = there.find(|(id, node)| !wanted_ids.contains(id) && waiting.contains(node))?;
    if members.learners.contains(id) {
        return Some(Change::RemoveLearner(*id));
    }
    let left: BTreeSet<ReplicaId> = members
        .voters
        .iter()
        .filter(|voter| *voter != id)
        .copied()
        .collect();
    let mut heirs = left.intersection(&members.caught_up);
    match (members.joint, *id == members.own) {
        (true, _) => None,
        (false, true) => heirs.next().map(|heir| Change::HandOver(*heir)),
        (false, false) => Some(set_voters(left, members)),
    }
}

/// Makes these vote, if a majority of them could go on alone. Else the group would stand still from the moment in which the
/// change is written until one of the missing comes back, though it can write now.
fn set_voters(voters: BTreeSet<ReplicaId>, members: &Members) -> Change {
    let up = voters.intersection(&members.caught_up).count();
    // What is half done already needs that majority anyway.
    match up > voters.len() / 2 || members.joint {
        true => Change::SetVoters(voters),
        false => Change::Wait,
    }
}

fn towards(target: &BTreeSet<ReplicaId>, members: &Members, impatient: bool) -> Change {
    if target.is_empty() {
        return Change::Wait;
    }
    let ready = |id: &ReplicaId| members.voters.contains(id) || members.caught_up.contains(id);
    if target.iter().all(ready) {
        if target.contains(&members.own) {
            return set_voters(target.clone(), members);
        }
        let heir = target
            .iter()
            .find(|id| members.voters.contains(id) && members.caught_up.contains(id));
        return match heir {
            Some(heir) if !members.joint => Change::HandOver(*heir),
            _ => {
                let voters: BTreeSet<_> = target.iter().copied().chain([members.own]).collect();
                // All that is missing is somebody who could take over.
                match voters == members.voters && !members.joint {
                    true => Change::Wait,
                    false => set_voters(voters, members),
                }
            }
        };
    }
    let partial: BTreeSet<ReplicaId> = members
        .voters
        .iter()
        .chain(target.iter().filter(|id| members.caught_up.contains(id)))
        .copied()
        .collect();
    if impatient && (partial != members.voters || members.joint) {
        return set_voters(partial, members);
    }
    Change::Wait
}
