//! Changes of leader and members, each bounded in time. A change that timed out may still happen: look at the
//! status, then ask again.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{ChangeMembers, RaftMetrics};
use tokio::time::{Instant, sleep, timeout};
use types::limits::TRANSFER_LAG_ENTRIES;
use types::{NodeId, ReplicaId};

use crate::error::MembershipError;
use crate::network::last_logs;
use crate::propose::{self, leader_node};
use crate::replica::{Group, leader_of};
use crate::types::{ReplicaNode, TypeConfig};

type Changed = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// Between looks at how far the target of a transfer is.
const LAG_POLL: Duration = Duration::from_millis(10);

/// How long a target that lags a little is waited for once nothing new is proposed.
const LEVEL_LIMIT: Duration = Duration::from_millis(200);

/// How long the target's node may take to say that the target is there, once nothing new is proposed.
const ASK_LIMIT: Duration = Duration::from_millis(200);

/// Hands the leadership to `to` and waits until it moved. What is proposed meanwhile waits, and is then sent to the new
/// leader: an entry still in flight would have an unknown fate.
pub(crate) async fn transfer_leader(group: &Group, to: ReplicaId) -> Result<(), MembershipError> {
    if to == group.replica {
        return Ok(());
    }
    wait_for_target(group, to).await?;
    let limit = group.timing.change_limit();
    let turn = timeout(limit, group.changing.lock()).await;
    let _turn = turn.map_err(|_| MembershipError::InProgress)?;
    let paused = timeout(group.timing.election_max(), propose::pause(group)).await;
    let _paused = paused
        .map_err(|_| MembershipError::Unknown("what was proposed before is not committed yet".into()))?;
    // If it does not come level in time, the transfer goes on: Raft elects nobody whose log is shorter than a majority's.
    let _ = timeout(LEVEL_LIMIT, level(group, to)).await;
    // Members may have changed while this waited, and whoever hands over to nobody leads no more until it is deposed.
    check_target(group, to, ASK_LIMIT).await?;
    let begun = group.leads().ok_or_else(|| not_leader(group))?;
    group
        .raft
        .trigger()
        .transfer_leader(to.0)
        .await
        .map_err(|_| MembershipError::Stopped)?;
    let mut server = group.server.clone();
    let moved = async {
        loop {
            let (leader, vote) = {
                let server = server.borrow_watched();
                (leader_of(&server), server.vote.leader_id)
            };
            if let Some(outcome) = outcome(leader.filter(|_| vote != begun), to) {
                return outcome;
            }
            server.changed().await.map_err(|_| MembershipError::Stopped)?;
        }
    };
    timeout(limit, moved).await.map_err(|_| {
        MembershipError::Unknown(format!(
            "replica {to} did not take the lead within {} ms",
            limit.as_millis()
        ))
    })?
}

/// What a hand-over came to, by who leads after the one who handed over. Of leaders that follow each other quickly only
/// the last may be seen: it need not be `to`.
fn outcome(next: Option<(ReplicaId, NodeId)>, to: ReplicaId) -> Option<Result<(), MembershipError>> {
    let (leader, node) = next?;
    Some(match leader == to {
        true => Ok(()),
        false => Err(MembershipError::PassedOn { leader: node }),
    })
}

fn not_leader(group: &Group) -> MembershipError {
    MembershipError::NotLeader {
        leader: group.leader().map(|(_, node)| node),
    }
}

/// Returns when the log of `to` ends where the log here ends, or this replica does not lead any more.
async fn level(group: &Group, to: ReplicaId) {
    let mut metrics = group.metrics.clone();
    let behind = |metrics: &RaftMetrics<TypeConfig>| {
        let matched = metrics
            .replication
            .as_ref()
            .map(|all| all.get(&to.0).copied().flatten());
        matched.is_some_and(|matched| matched.map(|id| id.index) < metrics.last_log_index)
    };
    loop {
        let level = !behind(&metrics.borrow_watched());
        if level || metrics.changed().await.is_err() {
            return;
        }
    }
}

/// A new leader learns within a heartbeat how far its followers' logs go; until then all of them seem to lag.
async fn wait_for_target(group: &Group, to: ReplicaId) -> Result<(), MembershipError> {
    let limit = Duration::from_millis(3 * group.timing.heartbeat_ms);
    let end = Instant::now() + limit;
    loop {
        match check_target(group, to, limit).await {
            Err(MembershipError::Lagging { .. }) if Instant::now() < end => sleep(LAG_POLL).await,
            outcome => return outcome,
        }
    }
}

/// Its log may have been level when it was last heard of: whether it is there to take over, only its node can say. Who
/// hands over to nobody leads no more until it is deposed.
async fn check_target(group: &Group, to: ReplicaId, limit: Duration) -> Result<(), MembershipError> {
    let node = level_voter(group, to)?;
    let refused = |why| MembershipError::Unreachable {
        replica: to,
        node,
        why,
    };
    let peers = group.peers.upgrade().ok_or(MembershipError::Stopped)?;
    let asked = [(group.partition, to)];
    let open = last_logs::ask(&peers, node, &asked, limit)
        .await
        .map_err(|error| refused(error.to_string()))?;
    match open.contains_key(&to) {
        true => Ok(()),
        false => Err(refused("it is not open there".into())),
    }
}

/// The node of a voter that, as far as is known here, is nearly level.
fn level_voter(group: &Group, to: ReplicaId) -> Result<NodeId, MembershipError> {
    let status = group.status();
    if !status.is_leader {
        return Err(MembershipError::NotLeader {
            leader: status.leader.map(|(_, node)| node),
        });
    }
    let Some((_, node)) = status.voters.iter().find(|(replica, _)| *replica == to) else {
        return Err(MembershipError::Invalid(format!(
            "replica {to} is no voter of partition {}",
            group.partition
        )));
    };
    let matched = status.matched.get(&to).copied().unwrap_or(0);
    let lag = status.last_log.saturating_sub(matched);
    if lag > TRANSFER_LAG_ENTRIES {
        return Err(MembershipError::Lagging { replica: to, lag });
    }
    Ok(*node)
}

/// Adds a replica that does not vote; does not wait for it to catch up.
pub(crate) async fn add_learner(
    group: &Group,
    replica: ReplicaId,
    node: NodeId,
) -> Result<(), MembershipError> {
    if let Some(there) = group.holder(replica) {
        if there == node {
            return Ok(());
        }
        let text = format!("replica {replica} is on node {there}, and never moves to node {node}");
        return Err(MembershipError::Invalid(text));
    }
    let members = BTreeMap::from([(replica.0, ReplicaNode { node: node.0 })]);
    change(
        group,
        group
            .raft
            .change_membership(ChangeMembers::AddNodes(members), true),
    )
    .await
}

/// Makes exactly these replicas vote; all must be members. Those that voted before stay as learners.
pub(crate) async fn set_voters(group: &Group, voters: BTreeSet<ReplicaId>) -> Result<(), MembershipError> {
    if voters.is_empty() {
        return Err(MembershipError::Invalid("a group needs a voter".into()));
    }
    let voters = voters.into_iter().map(|replica| replica.0).collect();
    change(
        group,
        group
            .raft
            .change_membership(ChangeMembers::ReplaceAllVoters(voters), true),
    )
    .await
}

/// Removes a replica that does not vote.
pub(crate) async fn remove_learner(group: &Group, replica: ReplicaId) -> Result<(), MembershipError> {
    if group.leads().is_some() && group.holder(replica).is_none() {
        return Ok(());
    }
    let gone = BTreeSet::from([replica.0]);
    change(
        group,
        group
            .raft
            .change_membership(ChangeMembers::RemoveNodes(gone), true),
    )
    .await
}

async fn change(group: &Group, changed: impl Future<Output = Changed>) -> Result<(), MembershipError> {
    if group.leads().is_none() {
        return Err(not_leader(group));
    }
    let limit = group.timing.change_limit();
    let changed = async {
        let _turn = group.changing.lock().await;
        changed.await
    };
    match timeout(limit, changed).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(RaftError::Fatal(_))) => Err(MembershipError::Stopped),
        Ok(Err(RaftError::APIError(error))) => Err(membership_error(error)),
        Err(_) => Err(MembershipError::Unknown(format!(
            "not committed within {} ms",
            limit.as_millis()
        ))),
    }
}

fn membership_error(error: ClientWriteError<TypeConfig>) -> MembershipError {
    match error {
        ClientWriteError::ForwardToLeader(to) => MembershipError::NotLeader {
            leader: leader_node(&to),
        },
        ClientWriteError::LogEntryDiscarded(_) => {
            MembershipError::Unknown("leadership moved while the change was pending".into())
        }
        // The leader has not committed an entry of its own term yet, or another change is not through.
        ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
        | ClientWriteError::ChangeMembershipError(ChangeMembershipError::UncommittedLeaderLog(_)) => {
            MembershipError::InProgress
        }
        other => MembershipError::Invalid(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_ends_with_the_next_leader_whoever_it_is() {
        let (to, other) = (ReplicaId(2), ReplicaId(3));
        assert!(outcome(None, to).is_none());
        assert!(matches!(outcome(Some((to, NodeId(5))), to), Some(Ok(()))));
        let passed_on = outcome(Some((other, NodeId(6))), to);
        assert!(matches!(
            passed_on,
            Some(Err(MembershipError::PassedOn { leader: NodeId(6) }))
        ));
    }
}
