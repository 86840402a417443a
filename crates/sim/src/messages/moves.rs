//! Leaders and replicas change nodes, as the reconcilers of a controller have them do: a replica is added as a learner,
//! voters are exchanged, who votes no more is removed from the group and then from its node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use raft::{MembershipError, Replica};
use tokio::time::sleep;
use types::{NodeId, PartitionId, ReplicaId};
use workload::Client;

use super::cluster::{Members, passes};

/// Replicas that a partition has.
const REPLICAS: usize = 3;
/// Between two attempts at something that may work a little later.
const AGAIN: Duration = Duration::from_millis(50);

/// Founds a partition at a node, and gives it voters at the nodes that follow. Nothing is done to the cluster meanwhile.
pub async fn found(members: Arc<Members>, partition: PartitionId, first: usize) {
    let node = loop {
        match members.all[first].running() {
            Some((node, _)) => break node,
            None => sleep(AGAIN).await,
        }
    };
    let id = members.next_replica();
    while node.found(partition, id).await.is_err() {
        sleep(AGAIN).await;
    }
    let others = members.all.len().min(REPLICAS) - 1;
    for step in 1..=others {
        let at = (first + step) % members.all.len();
        while add(&members, partition, at).await.is_err() {
            sleep(AGAIN).await;
        }
    }
}

/// What the leader of a partition has to say of it.
fn led(members: &Members, partition: PartitionId) -> Result<Replica, MembershipError> {
    let leader = members.leader(partition);
    leader.ok_or(MembershipError::NotLeader { leader: None })
}

/// A new replica at a node, which becomes a voter.
async fn add(members: &Members, partition: PartitionId, at: usize) -> Result<(), MembershipError> {
    let leader = led(members, partition)?;
    let status = leader.status();
    let node = NodeId(at as u64 + 1);
    let mut held = status.voters.iter().chain(&status.learners);
    let id = match held.find(|(_, holder)| *holder == node) {
        Some((id, _)) => *id,
        None => open(members, partition, at).await?,
    };
    leader.add_learner(id, node).await?;
    let mut voters: BTreeSet<ReplicaId> = leader.status().voters.iter().map(|(voter, _)| *voter).collect();
    voters.insert(id);
    leader.set_voters(voters).await
}

/// A replica at a node that is open there, or one under a new id.
async fn open(members: &Members, partition: PartitionId, at: usize) -> Result<ReplicaId, MembershipError> {
    let (node, _) = members.all[at].running().ok_or(MembershipError::Stopped)?;
    if let Some(open) = node.replica(partition) {
        return Ok(open.replica_id());
    }
    let id = members.next_replica();
    if node.open(partition, id).await.is_err() {
        // What is left of it is never opened: it is nobody's member.
        members.all[at].dropped.lock().insert(id);
        return Err(MembershipError::Stopped);
    }
    Ok(id)
}

/// Takes a replica out of its group, and then from its node.
async fn drop_replica(
    members: &Members,
    leader: &Replica,
    gone: (ReplicaId, NodeId),
) -> Result<(), MembershipError> {
    let (id, node) = gone;
    let voters: BTreeSet<ReplicaId> = leader.status().voters.iter().map(|(voter, _)| *voter).collect();
    if voters.contains(&id) {
        let rest: BTreeSet<_> = voters.into_iter().filter(|voter| *voter != id).collect();
        leader.set_voters(rest).await?;
    }
    leader.remove_learner(id).await?;
    remove(members, leader.partition(), id, node).await;
    Ok(())
}

/// Removes from its node what is no member of its group any more. What does not work is done when the node starts again,
/// or at the end.
async fn remove(members: &Members, partition: PartitionId, id: ReplicaId, node: NodeId) {
    let member = &members.all[node.0 as usize - 1];
    member.dropped.lock().insert(id);
    if let Some((node, _)) = member.running() {
        let _ = node.remove(partition, id).await;
    }
}

/// Moves one thing after another until told to stop.
pub async fn disturb(members: Arc<Members>, client: Client) {
    while client.goes_on() {
        client.pause(5, 100).await;
        let partition = PartitionId(1 + client.below(u64::from(members.partitions)) as u32);
        // Whatever came of it: the next one looks at what there is.
        let _ = one(&members, &client, partition).await;
    }
}

async fn one(members: &Members, client: &Client, partition: PartitionId) -> Result<(), MembershipError> {
    let leader = led(members, partition)?;
    let status = leader.status();
    let at = client.below(members.all.len() as u64) as usize;
    let node = NodeId(at as u64 + 1);
    match client.below(4) {
        0 | 1 => {
            let voter = client.below(status.voters.len().max(1) as u64) as usize;
            let (to, _) = status.voters.get(voter).ok_or(MembershipError::Stopped)?;
            leader.transfer_leader(*to).await
        }
        2 => add(members, partition, at).await,
        _ => {
            let held = status.voters.iter().chain(&status.learners);
            let gone = held.copied().find(|(_, holder)| *holder == node);
            let spare = status.voters.len() > REPLICAS.min(members.all.len()) - 1;
            match gone.filter(|_| spare && status.voters.len() > 1) {
                // A leader that is to go hands over first, as under a controller; what it was asked has no answer else.
                Some((id, _)) if id == leader.replica_id() && client.site.calm => {
                    let heir = status.voters.iter().find(|(voter, _)| *voter != id);
                    let (heir, _) = heir.ok_or(MembershipError::Stopped)?;
                    leader.transfer_leader(*heir).await
                }
                Some(gone) => drop_replica(members, &leader, gone).await,
                None => Ok(()),
            }
        }
    }
}

/// Learners that were never made voters, and replicas that no group has, are removed; changes half done are finished.
/// All nodes run, and nothing else moves.
pub async fn clear_away(members: Arc<Members>) {
    for partition in (1..=members.partitions).map(PartitionId) {
        loop {
            match clear(&members, partition).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => assert!(
                    passes(&error),
                    "what moves have left cannot be cleared away: {error}"
                ),
            }
            sleep(AGAIN).await;
        }
    }
}

/// Whether nothing is left to do for a partition.
async fn clear(members: &Members, partition: PartitionId) -> Result<bool, MembershipError> {
    let leader = led(members, partition)?;
    let status = leader.status();
    if status.is_joint {
        let voters = status.voters.iter().map(|(voter, _)| *voter).collect();
        leader.set_voters(voters).await?;
        return Ok(false);
    }
    if let Some(learner) = status.learners.first() {
        drop_replica(members, &leader, *learner).await?;
        return Ok(false);
    }
    // Confirmed by a majority: what is seen here is what the group is.
    let confirmed = leader.read_index(Duration::from_secs(1)).await;
    confirmed.map_err(|error| MembershipError::Unknown(error.to_string()))?;
    let voters = leader.status().voters;
    for at in 0..members.all.len() {
        let Some(open) = members.replica(at, partition) else {
            continue;
        };
        let (id, node) = (open.replica_id(), NodeId(at as u64 + 1));
        if !voters.contains(&(id, node)) {
            drop(open);
            remove(members, partition, id, node).await;
            return Ok(false);
        }
    }
    Ok(true)
}
