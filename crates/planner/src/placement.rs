//! Where replicas should be. Adding comes before removing, except that a broken replica goes first, since its node
//! cannot hold a second one of the same partition.
//!
//! Invariant: no plan puts two replicas of a partition on one node, and none removes the last caught-up voter
//! (checked by the property tests).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use machine::record::meta::{ClusterMap, NodeState, Partition, Replica};
use types::{NodeId, PartitionId, ReplicaId};

use crate::input::{Observed, PartitionSeen, Policy};

/// One change of the wanted replicas; maps to one meta command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Want a new replica.
    Add {
        /// Of this partition.
        partition: PartitionId,
        /// As it was when planned.
        generation: u64,
        /// There.
        node: NodeId,
        /// Voting.
        voter: bool,
        /// For people.
        reason: &'static str,
    },
    /// Want a replica there in place of the one here.
    Move {
        /// Of this partition.
        partition: PartitionId,
        /// As it was when planned.
        generation: u64,
        /// Here.
        from: NodeId,
        /// There.
        to: NodeId,
        /// For people.
        reason: &'static str,
    },
    /// Want a replica no longer.
    Remove {
        /// Of this partition.
        partition: PartitionId,
        /// As it was when planned.
        generation: u64,
        /// This one.
        replica: ReplicaId,
        /// For people.
        reason: &'static str,
    },
    /// Let a replica vote, or only follow.
    SetVoter {
        /// Of this partition.
        partition: PartitionId,
        /// As it was when planned.
        generation: u64,
        /// This one.
        replica: ReplicaId,
        /// Vote?
        voter: bool,
        /// For people.
        reason: &'static str,
    },
}

impl Step {
    /// The partition it changes.
    pub fn partition(&self) -> PartitionId {
        match self {
            Step::Add { partition, .. }
            | Step::Move { partition, .. }
            | Step::Remove { partition, .. }
            | Step::SetVoter { partition, .. } => *partition,
        }
    }
}

/// The next steps towards the wanted placement; empty when there is nothing to do or all must wait.
pub fn plan_placement(map: &ClusterMap, seen: &Observed, policy: &Policy) -> Vec<Step> {
    let mut planning = Planning::new(map, seen, policy);
    for partition in &map.partitions {
        if planning.busy >= policy.changes_in_flight {
            break;
        }
        let before = planning.steps.len();
        if partition.id == PartitionId::META.0 {
            planning.meta(partition);
        } else {
            planning.repair(partition);
        }
        if planning.steps.len() > before {
            planning.busy += 1;
        }
    }
    if planning.steps.is_empty() && planning.busy == 0 && !policy.frozen {
        planning.spread();
    }
    planning.steps
}

struct Planning<'a> {
    map: &'a ClusterMap,
    seen: &'a Observed,
    policy: &'a Policy,
    active: BTreeSet<NodeId>,
    /// Wanted replicas per active node, the meta partition left out, planned ones counted.
    load: BTreeMap<NodeId, usize>,
    /// Partitions that are still moving towards what is already wanted, but for those that wait for a node that is gone.
    busy: usize,
    steps: Vec<Step>,
}

impl<'a> Planning<'a> {
    fn new(map: &'a ClusterMap, seen: &'a Observed, policy: &'a Policy) -> Planning<'a> {
        let active: BTreeSet<NodeId> = map
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Active as i32)
            .map(|node| NodeId(node.id))
            .collect();
        let mut load: BTreeMap<NodeId, usize> = active.iter().map(|node| (*node, 0)).collect();
        let mut busy = 0;
        for partition in &map.partitions {
            if partition.id != PartitionId::META.0 {
                for replica in &partition.replicas {
                    if let Some(count) = load.get_mut(&NodeId(replica.node)) {
                        *count += 1;
                    }
                }
            }
            if let Some(group) = seen.partitions.get(&PartitionId(partition.id))
                && group.leader.is_some()
                && (!settled(partition, group) || partition.is_moving())
                && !waits_for_the_dead(partition, group, seen)
            {
                busy += 1;
            }
        }
        Planning {
            map,
            seen,
            policy,
            active,
            load,
            busy,
            steps: Vec::new(),
        }
    }

    fn is_active(&self, replica: &Replica) -> bool {
        self.active.contains(&NodeId(replica.node))
    }

    /// The replica that takes this one's place. One on a node that is itself to be emptied takes nobody's.
    fn heir<'p>(&self, partition: &'p Partition, replica: &Replica) -> Option<&'p Replica> {
        partition.heir(replica.id).filter(|heir| self.is_active(heir))
    }

    fn stays(&self, partition: &Partition, replica: &Replica) -> bool {
        self.is_active(replica) && self.heir(partition, replica).is_none()
    }

    /// The live, active node with the fewest replicas that holds none of this partition and has room.
    fn candidate(&self, partition: &Partition) -> Option<NodeId> {
        self.load
            .iter()
            .filter(|(node, _)| self.seen.alive.contains(node) && !self.seen.full.contains(node))
            .filter(|(node, _)| !partition.replicas.iter().any(|replica| replica.node == node.0))
            // Of several the first: the count alone, which goes up with each one planned, spreads them.
            .min_by_key(|(_, count)| **count)
            .map(|(node, _)| *node)
    }

    /// Replaces what is broken, adds what is missing, drops what is too much. One kind of step per call: what
    /// follows is planned once this one is done.
    fn repair(&mut self, partition: &Partition) {
        let Some(group) = self.seen.partitions.get(&PartitionId(partition.id)) else {
            return;
        };
        if group.leader.is_none() {
            return;
        }
        let settled = settled(partition, group);
        if self.remove_broken(partition, group)
            || self.call_off(partition, group)
            || (settled && self.end_move(partition, group))
        {
            return;
        }
        let staying = partition
            .replicas
            .iter()
            .filter(|replica| replica.voter && self.stays(partition, replica))
            .count();
        let target = self.policy.replication_factor.min(self.active.len());
        if staying < target {
            self.add_missing(partition, target - staying);
            return;
        }
        if settled {
            self.drop_surplus(partition, group);
        }
    }

    /// Drops what is to begin on a node that is leaving, and is no voter yet: it may never catch up.
    fn call_off(&mut self, partition: &Partition, group: &PartitionSeen) -> bool {
        let begun = partition
            .replicas
            .iter()
            .find(|replica| !self.is_active(replica) && !group.voters.contains(&ReplicaId(replica.id)));
        if let Some(replica) = begun {
            self.remove(partition, replica, "node is leaving");
        }
        begun.is_some()
    }

    /// Drops a replica whose heir has caught up. The membership is settled, so the heir votes if it is to.
    fn end_move(&mut self, partition: &Partition, group: &PartitionSeen) -> bool {
        let replaced = partition.replicas.iter().find(|replica| {
            self.heir(partition, replica)
                .is_some_and(|heir| group.caught_up.contains(&ReplicaId(heir.id)))
        });
        match replaced {
            Some(replica) if sound_without(group, ReplicaId(replica.id)) => {
                self.remove(partition, replica, "moved");
                true
            }
            Some(_) | None => false,
        }
    }

    fn remove(&mut self, partition: &Partition, replica: &Replica, reason: &'static str) {
        if partition.id != PartitionId::META.0
            && let Some(count) = self.load.get_mut(&NodeId(replica.node))
        {
            *count = count.saturating_sub(1);
        }
        self.steps.push(Step::Remove {
            partition: PartitionId(partition.id),
            generation: partition.generation,
            replica: ReplicaId(replica.id),
            reason,
        });
    }

    fn remove_broken(&mut self, partition: &Partition, group: &PartitionSeen) -> bool {
        let broken = partition
            .replicas
            .iter()
            .find(|replica| self.seen.broken.contains(&ReplicaId(replica.id)));
        match broken {
            Some(replica) if sound_without(group, ReplicaId(replica.id)) => {
                self.remove(partition, replica, "damaged");
                true
            }
            Some(_) | None => false,
        }
    }

    fn add_missing(&mut self, partition: &Partition, missing: usize) {
        let mut planned = partition.clone();
        for _ in 0..missing {
            let Some(node) = self.candidate(&planned) else {
                return;
            };
            self.steps.push(Step::Add {
                partition: PartitionId(partition.id),
                generation: planned.generation,
                node,
                voter: true,
                reason: "too few voters",
            });
            // The machine raises the generation with each change: the second step names what the first leaves.
            planned.generation += 1;
            // Only where it is counts here.
            planned.replicas.push(Replica {
                node: node.0,
                ..Replica::default()
            });
            *self.load.entry(node).or_default() += 1;
        }
    }

    fn drop_surplus(&mut self, partition: &Partition, group: &PartitionSeen) {
        let caught_up = partition
            .replicas
            .iter()
            .filter(|replica| replica.voter && self.stays(partition, replica))
            .filter(|replica| group.caught_up.contains(&ReplicaId(replica.id)))
            .count();
        let target = self.policy.replication_factor.min(self.active.len());
        if caught_up < target {
            return;
        }
        // One whose node is gone goes before one that lives, if without the latter there were no majority.
        let sound = |replica: &&Replica| sound_without(group, ReplicaId(replica.id));
        let mut leaving = partition
            .replicas
            .iter()
            .filter(|replica| !self.is_active(replica));
        if leaving.clone().next().is_some() {
            if let Some(replica) = leaving.find(sound) {
                self.remove(partition, replica, "node is leaving");
            }
            return;
        }
        let surplus = has_surplus(partition, target)
            && !self.policy.frozen
            && self.seen.ripe.contains(&PartitionId(partition.id));
        let heaviest = partition
            .replicas
            .iter()
            .filter(|replica| replica.voter && self.stays(partition, replica))
            .filter(sound)
            .max_by_key(|replica| (self.load.get(&NodeId(replica.node)).copied(), replica.id));
        if let Some(replica) = heaviest
            && surplus
        {
            self.remove(partition, replica, "more voters than wanted");
        }
    }

    /// Every node follows the meta partition; up to three active ones vote in it.
    fn meta(&mut self, partition: &Partition) {
        let Some(group) = self.seen.partitions.get(&PartitionId::META) else {
            return;
        };
        if group.leader.is_none() || self.remove_broken(partition, group) || self.demote_new(partition, group)
        {
            return;
        }
        let (id, generation) = (PartitionId::META, partition.generation);
        let absent = self
            .active
            .iter()
            .find(|node| !partition.replicas.iter().any(|replica| replica.node == node.0));
        if let Some(node) = absent {
            let (node, reason) = (*node, "every node follows the meta partition");
            self.steps.push(Step::Add {
                partition: id,
                generation,
                node,
                voter: false,
                reason,
            });
            return;
        }
        let voting = partition
            .replicas
            .iter()
            .filter(|replica| replica.voter && self.is_active(replica))
            .count();
        let target = self.policy.replication_factor.min(self.active.len());
        if voting < target {
            let fit: Vec<ReplicaId> = partition
                .replicas
                .iter()
                .filter(|replica| !replica.voter && self.is_active(replica))
                .filter(|replica| self.seen.alive.contains(&NodeId(replica.node)))
                .map(|replica| ReplicaId(replica.id))
                .take(target - voting)
                .collect();
            for (generation, replica) in (generation..).zip(fit) {
                let reason = "too few voters of the meta partition";
                self.steps.push(Step::SetVoter {
                    partition: id,
                    generation,
                    replica,
                    voter: true,
                    reason,
                });
            }
        } else if settled(partition, group) {
            self.demote_leaving(partition, group, target);
        }
    }

    /// A voter of the meta partition whose node is leaving only follows, once enough others have caught up.
    fn demote_leaving(&mut self, partition: &Partition, group: &PartitionSeen, target: usize) {
        let caught_up = partition.replicas.iter().filter(|replica| {
            replica.voter && self.is_active(replica) && group.caught_up.contains(&ReplicaId(replica.id))
        });
        let leaving = partition
            .replicas
            .iter()
            .filter(|replica| replica.voter && !self.is_active(replica))
            .find(|replica| sound_without(group, ReplicaId(replica.id)));
        if let Some(replica) = leaving
            && caught_up.count() >= target
        {
            self.demote(partition, replica);
        }
    }

    /// A replica of the meta partition that is to vote, and does not yet, on a node that is leaving: it may never catch up.
    fn demote_new(&mut self, partition: &Partition, group: &PartitionSeen) -> bool {
        let begun = partition.replicas.iter().find(|replica| {
            replica.voter && !self.is_active(replica) && !group.voters.contains(&ReplicaId(replica.id))
        });
        if let Some(replica) = begun {
            self.demote(partition, replica);
        }
        begun.is_some()
    }

    fn demote(&mut self, partition: &Partition, replica: &Replica) {
        self.steps.push(Step::SetVoter {
            partition: PartitionId::META,
            generation: partition.generation,
            replica: ReplicaId(replica.id),
            voter: false,
            reason: "node is leaving",
        });
    }

    /// When all is settled: moves replicas from the fullest node to the emptiest.
    fn spread(&mut self) {
        let mut moved = 0;
        for partition in &self.map.partitions {
            if partition.id == PartitionId::META.0 || moved * 4 >= self.policy.changes_in_flight {
                continue;
            }
            let known = self.seen.partitions.get(&PartitionId(partition.id));
            if !known.is_some_and(|group| group.leader.is_some() && settled(partition, group)) {
                continue;
            }
            let Some(to) = self.candidate(partition) else {
                continue;
            };
            let from = partition
                .replicas
                .iter()
                .filter_map(|replica| {
                    self.load
                        .get(&NodeId(replica.node))
                        .map(|count| (*count, replica.node))
                })
                .max();
            let Some((heaviest, from)) = from else { continue };
            if heaviest < self.load[&to] + 2 {
                continue;
            }
            moved += 1;
            *self.load.entry(to).or_default() += 1;
            if let Some(count) = self.load.get_mut(&NodeId(from)) {
                *count -= 1;
            }
            self.steps.push(Step::Move {
                partition: PartitionId(partition.id),
                generation: partition.generation,
                from: NodeId(from),
                to,
                reason: "spread over nodes",
            });
        }
    }
}

/// Whether a replica that is to begin is on a node that does not answer. Nothing goes on there, and nothing is sent: who
/// waits for it must not keep others from being changed.
fn waits_for_the_dead(partition: &Partition, group: &PartitionSeen, seen: &Observed) -> bool {
    let begins = |replica: &&Replica| !group.voters.contains(&ReplicaId(replica.id));
    let mut begun = partition.replicas.iter().filter(begins);
    begun.any(|replica| !seen.alive.contains(&NodeId(replica.node)))
}

/// Whether a majority of the voters left without a replica has caught up.
fn sound_without(group: &PartitionSeen, replica: ReplicaId) -> bool {
    let remaining: BTreeSet<_> = group.voters.iter().filter(|voter| **voter != replica).collect();
    let healthy = remaining
        .iter()
        .filter(|voter| group.caught_up.contains(voter))
        .count();
    healthy > remaining.len() / 2
}

/// Whether more replicas are to vote than wanted, those left out that are being moved away.
pub fn has_surplus(partition: &Partition, target: usize) -> bool {
    let voters = partition.replicas.iter().filter(|replica| replica.voter);
    voters
        .filter(|replica| partition.heir(replica.id).is_none())
        .count()
        > target
}

/// Whether the group's membership is what is wanted.
pub fn settled(partition: &Partition, group: &PartitionSeen) -> bool {
    let wanted = |voter: bool| -> BTreeSet<ReplicaId> {
        let of = partition.replicas.iter().filter(|replica| replica.voter == voter);
        of.map(|replica| ReplicaId(replica.id)).collect()
    };
    wanted(true) == group.voters && wanted(false) == group.learners
}
