//! The leader's part: moves the group's membership to the wanted replicas, one change after the other
//! (`planner::membership` says which), many partitions side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use planner::{Change, Members, next_change};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use types::limits::TRANSFER_LAG_ENTRIES;
use types::planted::{self, Planted};
use types::{NodeId, PartitionId, ReplicaId};

use crate::core::Core;

/// Memberships that are changed side by side.
const AT_ONCE: usize = 24;
/// Between looks at a replica that has to catch up, at first.
const CATCH_UP: Duration = Duration::from_millis(20);
/// The same when it takes long.
const SELDOM: Duration = Duration::from_millis(500);
/// After so long without progress, the change goes on with the replicas that are ready.
const IMPATIENT_AFTER: Duration = Duration::from_secs(10);
/// One partition is worked on for at most so long before the map is looked at again from the start.
const TURN: Duration = Duration::from_secs(30);
/// An heir that could not take over is not asked again for so long.
const AVOIDED: Duration = Duration::from_secs(1);
/// Between looks when nothing happens.
const LOOK: Duration = Duration::from_secs(2);

/// Never ends.
pub(super) async fn run(core: Arc<Core>) {
    let working: Arc<Mutex<BTreeSet<PartitionId>>> = Arc::default();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut changed = core.map_changed();
    let mut driven = futures::stream::FuturesUnordered::new();
    loop {
        changed.mark_unchanged();
        for replica in core.led_here() {
            let partition = replica.partition();
            if unsettled(&core, partition) && working.lock().insert(partition) {
                let (core, working, places) = (core.clone(), working.clone(), places.clone());
                driven.push(tokio::spawn(async move {
                    drive(&core, partition, &places).await;
                    working.lock().remove(&partition);
                }));
            }
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = core.woken().leadership.notified() => {}
            Some(_) = driven.next(), if !driven.is_empty() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What the leader here sees; `None` if the replica here does not lead.
fn members(core: &Core, partition: PartitionId) -> Option<(raft::Replica, Members)> {
    let replica = core.replica(partition)?;
    let status = replica.status();
    if !status.is_leader {
        return None;
    }
    let nodes: BTreeMap<ReplicaId, NodeId> = status.voters.iter().chain(&status.learners).copied().collect();
    // Of a node that is gone, what it had when it went says nothing of what it can do.
    let near = |(id, node): &(&ReplicaId, &NodeId)| {
        let matched = status.matched.get(*id).copied().unwrap_or(0);
        let level = matched > 0 && matched + TRANSFER_LAG_ENTRIES >= status.last_log;
        **id == replica.replica_id() || (level && core.raft().is_connected(**node))
    };
    let members = Members {
        own: replica.replica_id(),
        voters: status.voters.iter().map(|(id, _)| *id).collect(),
        learners: status.learners.iter().map(|(id, _)| *id).collect(),
        caught_up: nodes.iter().filter(near).map(|(id, _)| *id).collect(),
        joint: status.is_joint,
        nodes,
    };
    Some((replica, members))
}

/// `avoided`: heirs that could not take over a moment ago.
fn next(
    core: &Core,
    partition: PartitionId,
    impatient: bool,
    avoided: &BTreeMap<ReplicaId, Instant>,
) -> Option<(raft::Replica, Change)> {
    let map = core.map();
    let wanted = map.partitions.iter().find(|known| known.id == partition.0)?;
    let (replica, mut members) = members(core, partition)?;
    members.caught_up.retain(|id| !avoided.contains_key(id));
    let change = next_change(wanted, &members, impatient);
    Some((replica, change))
}

fn unsettled(core: &Core, partition: PartitionId) -> bool {
    next(core, partition, false, &BTreeMap::new()).is_some_and(|(_, change)| change != Change::Done)
}

/// Changes one partition until it is as wanted, led elsewhere, or the turn is over.
async fn drive(core: &Core, partition: PartitionId, places: &Semaphore) {
    let begun = Instant::now();
    let mut progress = Instant::now();
    let mut avoided = BTreeMap::new();
    while begun.elapsed() < TURN {
        let place = places.acquire().await;
        let impatient = progress.elapsed() > IMPATIENT_AFTER;
        avoided.retain(|_, since: &mut Instant| since.elapsed() < AVOIDED);
        let Some((replica, change)) = next(core, partition, impatient, &avoided) else {
            return;
        };
        tracing::debug!(%partition, ?change, "membership");
        if let Change::HandOver(heir) = change {
            avoided.insert(heir, Instant::now());
        }
        let done = match change {
            Change::Done => return,
            Change::Wait => {
                // Else those that wait for a node that is gone would keep all others from being changed.
                drop(place);
                let pause = (progress.elapsed() / 8).clamp(CATCH_UP, SELDOM);
                tokio::time::sleep(pause).await;
                continue;
            }
            Change::AddLearner(id, node) => replica.add_learner(id, node).await,
            Change::SetVoters(voters) => replica.set_voters(voters).await,
            Change::RemoveLearner(id) => replica.remove_learner(id).await,
            Change::HandOver(heir) => replica.transfer_leader(heir).await,
        };
        match done {
            Ok(()) => progress = Instant::now(),
            // A leader that is handing over refuses changes, and may still be told as the leader: without a pause the
            // next turn would begin at once, and end like this one.
            Err(
                raft::MembershipError::NotLeader { .. }
                | raft::MembershipError::PassedOn { .. }
                | raft::MembershipError::Stopped,
            ) => {
                if !planted::is(Planted::MembershipSpin) {
                    tokio::time::sleep(CATCH_UP).await;
                }
                return;
            }
            Err(error) => {
                tracing::debug!(%partition, %error, "membership change will be tried again");
                tokio::time::sleep(CATCH_UP * 2).await;
            }
        }
    }
}
