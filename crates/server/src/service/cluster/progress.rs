//! Changes that take a while: moving a replica, draining a node. The first step is a command; the rest is the
//! reconcilers' work, which is watched and told here. A client that goes away, or this node with it, stops only the
//! telling; asked again, it is joined, since the same command changes nothing twice.

use std::time::Duration;

use machine::outcome::{Refusal, RefusalKind};
use machine::record::meta::{Change, MoveReplica, NodeState, Partition, SetNodeState};
use planner::PartitionSeen;
use proto::v1;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use types::{NodeId, PartitionId, ReplicaId};

use super::change::ANY;
use super::{Answers, Native, allocated};
use crate::core::ServerError;
use crate::reconcile::observed;

/// Between looks.
const LOOK: Duration = Duration::from_millis(150);
/// A move or drain that makes no progress for so long is reported as stuck; it goes on by itself.
const STUCK: Duration = Duration::from_secs(120);
/// A drain that makes no progress for so long says which nodes it waits for.
const SLOW: Duration = Duration::from_secs(2);

type Out = mpsc::Sender<Result<v1::Progress, Status>>;

async fn tell(out: &Out, done: u32, total: u32, text: String) -> Result<(), ServerError> {
    let progress = v1::Progress { done, total, text };
    out.send(Ok(progress))
        .await
        .map_err(|_| ServerError::Unavailable {
            text: "nobody listens any more".into(),
        })
}

/// Tells of `work`, whose first step is done.
fn stream<F>(work: impl FnOnce(Out) -> F) -> Answers<v1::Progress>
where
    F: Future<Output = Result<(), ServerError>> + Send + 'static,
{
    let (out, answers) = mpsc::channel(8);
    let worked = work(out.clone());
    tokio::spawn(async move {
        if let Err(error) = worked.await {
            let _ = out.send(Err(Status::from(error.after_write()))).await;
        }
    });
    Box::pin(ReceiverStream::new(answers))
}

/// Where a move stands. The planner carries it out; this only looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The map wants the new replica.
    Wanted,
    /// The group has it as it is wanted, caught up.
    Joined,
    /// The map no longer wants a replica on the node it moves from.
    Replaced,
    /// The group has nobody left that is not wanted.
    Left,
}

/// `None`: the new replica was taken away again before the old one went.
fn stage(partition: &Partition, group: Option<&PartitionSeen>, from: u64, new: u64) -> Option<Stage> {
    let wanted = |id: &ReplicaId| partition.replicas.iter().any(|replica| replica.id == id.0);
    if !partition.replicas.iter().any(|replica| replica.node == from) {
        let left = group.is_some_and(|group| group.voters.iter().chain(&group.learners).all(wanted));
        return Some(if left { Stage::Left } else { Stage::Replaced });
    }
    let heir = partition.replicas.iter().find(|replica| replica.id == new)?;
    let joined = group.is_some_and(|group| {
        let members = if heir.voter {
            &group.voters
        } else {
            &group.learners
        };
        members.contains(&ReplicaId(new)) && group.caught_up.contains(&ReplicaId(new))
    });
    Some(if joined { Stage::Joined } else { Stage::Wanted })
}

/// See `Cluster.MoveReplica`.
pub(super) async fn move_replica(
    native: Native,
    request: v1::MoveReplicaRequest,
) -> Result<Answers<v1::Progress>, ServerError> {
    let change = Change::MoveReplica(MoveReplica {
        partition: request.partition,
        generation: ANY,
        from: request.from_node,
        to: request.to_node,
    });
    let new = allocated(native.change(change, request.session).await?)?.id;
    Ok(stream(|out| async move {
        watch_move(&native, &request, new, &out).await
    }))
}

async fn watch_move(
    native: &Native,
    request: &v1::MoveReplicaRequest,
    new: u64,
    out: &Out,
) -> Result<(), ServerError> {
    let id = PartitionId(request.partition);
    let (from, to) = (request.from_node, request.to_node);
    let mut told = None;
    let mut progress = Instant::now();
    loop {
        native.core.refresh_map()?;
        let seen = observed(&native.core.gather(&[id.0], false).await);
        let map = native.core.map();
        let partition = map.partitions.iter().find(|partition| partition.id == id.0);
        let partition = partition.ok_or(ServerError::UnknownPartition { partition: id })?;
        let Some(now) = stage(partition, seen.partitions.get(&id), from, new) else {
            return Err(ServerError::Refused(Refusal {
                kind: RefusalKind::Stale as i32,
                text: format!("the move was called off: replica {new} on node {to} is no longer wanted"),
                detail: 0,
            }));
        };
        if told < Some(now) {
            (told, progress) = (Some(now), Instant::now());
            let text = match now {
                Stage::Wanted => format!("replica {new} is wanted on node {to}"),
                Stage::Joined => format!("replica {new} has caught up"),
                Stage::Replaced => format!("no replica is wanted on node {from} any more"),
                Stage::Left => format!("node {from} is no member of the group any more"),
            };
            tell(out, now as u32 + 1, Stage::Left as u32 + 1, text).await?;
        }
        if now == Stage::Left {
            return Ok(());
        }
        if progress.elapsed() > STUCK {
            return Err(ServerError::Timeout {
                text: format!("partition {id} makes no progress; it goes on in the background"),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// See `Cluster.DrainNode`.
pub(super) async fn drain(
    native: Native,
    request: v1::NodeRequest,
) -> Result<Answers<v1::Progress>, ServerError> {
    native.core.read_map().await?;
    let map = native.core.map();
    let others = map
        .nodes
        .iter()
        .filter(|node| node.id != request.node && node.state == NodeState::Active as i32);
    if others.count() == 0 {
        return Err(ServerError::Invalid {
            text: "no other active node could take the replicas".into(),
        });
    }
    let state = NodeState::Draining as i32;
    native
        .change(
            Change::SetNodeState(SetNodeState {
                node: request.node,
                state,
            }),
            request.session,
        )
        .await?;
    Ok(stream(|out| async move {
        watch_drain(&native, NodeId(request.node), &out).await
    }))
}

/// What a drain has still to do.
#[derive(Default, PartialEq, Eq)]
struct Remaining {
    /// Replicas wanted or held on the node, and partitions led there.
    left: u32,
    /// Partitions led there.
    leaders: u32,
    /// Active nodes that are not there, and how: no replica is given up that stands in for one of theirs.
    absent: Vec<(u64, &'static str)>,
}

impl std::fmt::Display for Remaining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (left, leaders) = (self.left, self.leaders);
        write!(f, "{left} replicas are still to be moved, {leaders} of them lead")?;
        for (node, how) in &self.absent {
            write!(
                f,
                "; node {node} {how}: what needs it waits until it is back, or drained too"
            )?;
        }
        Ok(())
    }
}

async fn watch_drain(native: &Native, node: NodeId, out: &Out) -> Result<(), ServerError> {
    let total = remaining(native, node).await.left;
    let mut last = Remaining::default();
    let mut progress = Instant::now();
    loop {
        let mut now = remaining(native, node).await;
        if progress.elapsed() < SLOW {
            now.absent.clear();
        }
        let done = total.saturating_sub(now.left);
        if now.left == 0 {
            return tell(out, total, total, format!("node {node} holds nothing any more")).await;
        }
        if now.left != last.left {
            progress = Instant::now();
        } else if progress.elapsed() > STUCK {
            return Err(ServerError::Timeout {
                text: format!("no progress, but it goes on: {now}"),
            });
        }
        if now != last {
            tell(out, done, total, now.to_string()).await?;
            last = now;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The meta partition counts while it votes there.
async fn remaining(native: &Native, node: NodeId) -> Remaining {
    let _ = native.core.refresh_map();
    let map = native.core.map();
    let reports = native.core.gather(&[], false).await;
    let seen = observed(&reports);
    let mut left = 0;
    for partition in &map.partitions {
        let wanted = partition
            .replicas
            .iter()
            .any(|replica| replica.node == node.0 && (replica.voter || partition.id != PartitionId::META.0));
        let held = partition.id != PartitionId::META.0
            && reports
                .get(&node)
                .is_some_and(|r| r.replicas.iter().any(|replica| replica.partition == partition.id));
        let led = seen
            .partitions
            .get(&PartitionId(partition.id))
            .and_then(|group| group.leader)
            == Some(node);
        left += u32::from(wanted || held || led);
    }
    let leaders = seen
        .partitions
        .values()
        .filter(|group| group.leader == Some(node))
        .count();
    let active = map
        .nodes
        .iter()
        .filter(|node| node.state == NodeState::Active as i32);
    let absent = active.filter_map(|node| match reports.get(&NodeId(node.id)) {
        None => Some((node.id, "does not answer")),
        Some(report) => report.starting.then_some((node.id, "is still starting")),
    });
    Remaining {
        left,
        leaders: leaders as u32,
        absent: absent.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use machine::record::meta::Replica;

    use super::*;

    /// Replicas have the ids of their nodes; those wanted vote.
    fn check(wanted: &[u64], voters: &[u64], caught_up: &[u64], stands: Option<Stage>) {
        let replicas = wanted.iter().map(|id| Replica {
            id: *id,
            node: *id,
            voter: true,
            ..Replica::default()
        });
        let partition = Partition {
            id: 1,
            generation: 1,
            replicas: replicas.collect(),
        };
        let ids = |ids: &[u64]| ids.iter().map(|id| ReplicaId(*id)).collect::<BTreeSet<_>>();
        let group = PartitionSeen {
            voters: ids(voters),
            caught_up: ids(caught_up),
            ..PartitionSeen::default()
        };
        assert_eq!(stage(&partition, Some(&group), 1, 4), stands);
    }

    #[test]
    fn a_move_goes_through_its_stages() {
        check(&[1, 2, 3, 4], &[1, 2, 3], &[1, 2, 3, 4], Some(Stage::Wanted));
        check(&[1, 2, 3, 4], &[1, 2, 3, 4], &[1, 2, 3], Some(Stage::Wanted));
        check(&[1, 2, 3, 4], &[1, 2, 3, 4], &[1, 2, 3, 4], Some(Stage::Joined));
        check(&[2, 3, 4], &[1, 2, 3, 4], &[2, 3, 4], Some(Stage::Replaced));
        check(&[2, 3, 4], &[2, 3, 4], &[2, 3, 4], Some(Stage::Left));
        check(&[1, 2, 3], &[1, 2, 3], &[1, 2, 3], None);
        check(&[2, 3, 5], &[2, 3, 5], &[2, 3, 5], Some(Stage::Left));
    }
}
