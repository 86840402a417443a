//! The meta leader's part: looks at all nodes, asks `planner` what should be where, proposes the steps, and moves
//! leaders. Quick while something moves, so that a fresh cluster spreads in seconds; slow when all is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use machine::outcome::RefusalKind;
use machine::record::meta::{
    AddReplica, Change, ClusterMap, MoveReplica, NodeState, RemoveReplica, SetVoter,
};
use planner::{Observed, Policy, Step, Transfer, has_surplus, plan_leaders, plan_placement};
use proto::peer::NodeReport;
use tokio::time::Instant;
use types::limits::REPLICATION_FACTOR;
use types::{NodeId, PartitionId};

use super::observed;
use crate::core::{Core, ServerError, meta_command};

/// Between rounds while something moves.
const BUSY: Duration = Duration::from_millis(150);
/// Between rounds when all is settled.
const QUIET: Duration = Duration::from_secs(2);

/// A voter more than wanted is dropped only after so long: a person who added it may be about to remove another.
const SURPLUS_KEPT: Duration = Duration::from_secs(10);

/// What this node remembers as long as it leads the meta partition. Losing it only delays.
#[derive(Default)]
struct Memory {
    /// Since when a partition has more voters than wanted.
    surplus_since: BTreeMap<PartitionId, Instant>,
}

impl Memory {
    /// Partitions whose surplus may go.
    fn ripe(&mut self, map: &ClusterMap) -> BTreeSet<PartitionId> {
        let active = map
            .nodes
            .iter()
            .filter(|node| node.state == NodeState::Active as i32)
            .count();
        let target = REPLICATION_FACTOR.min(active);
        let surplus: BTreeSet<PartitionId> = map
            .partitions
            .iter()
            .filter(|partition| has_surplus(partition, target))
            .map(|partition| PartitionId(partition.id))
            .collect();
        self.surplus_since.retain(|id, _| surplus.contains(id));
        let now = Instant::now();
        let is_ripe = |id: &PartitionId| {
            let since = *self.surplus_since.entry(*id).or_insert(now);
            now.duration_since(since) >= SURPLUS_KEPT
        };
        surplus.into_iter().filter(is_ripe).collect()
    }
}

/// One leader moved, or to be moved.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaderMove {
    /// As planned.
    pub transfer: Transfer,
    /// Whether it was done; an error says why not. `None` in a dry run.
    pub done: Option<Result<(), ServerError>>,
}

/// Never ends.
pub(super) async fn run(core: Arc<Core>) {
    let mut changed = core.map_changed();
    let mut memory = Memory::default();
    loop {
        changed.mark_unchanged();
        let leads = core.leads(PartitionId::META);
        if !leads {
            memory = Memory::default();
        }
        let busy = leads && one_round(&core, &mut memory).await;
        tokio::select! {
            _ = changed.changed(), if leads && !busy => tokio::time::sleep(BUSY / 5).await,
            () = core.woken().leadership.notified(), if !busy => tokio::time::sleep(BUSY / 5).await,
            () = tokio::time::sleep(if busy { BUSY } else { QUIET }) => {}
        }
    }
}

/// Plans and acts once; returns whether something still moves.
async fn one_round(core: &Arc<Core>, memory: &mut Memory) -> bool {
    if core.refresh_map().is_err() {
        return false;
    }
    let map = core.map();
    if map.cluster.is_none() {
        return false;
    }
    super::version::follow(core, &map).await;
    let frozen = map.cluster.as_ref().is_some_and(|cluster| cluster.frozen);
    let reports = core.gather(&[], false).await;
    let mut seen = observed(&reports);
    seen.ripe = memory.ripe(&map);
    let unsettled = map.partitions.iter().any(|partition| {
        let group = seen.partitions.get(&PartitionId(partition.id));
        partition.is_moving() || group.is_some_and(|group| !planner::placement::settled(partition, group))
    });
    let steps = plan_placement(
        &map,
        &seen,
        &Policy {
            frozen,
            ..Policy::default()
        },
    );
    let planned = !steps.is_empty();
    propose(core, steps).await;
    if !planned && !frozen {
        let moved = balance(core, &seen).await;
        return unsettled || moved;
    }
    planned || unsettled
}

async fn propose(core: &Core, steps: Vec<Step>) {
    let proposals = steps.into_iter().map(|step| async move {
        tracing::info!(?step, "placement");
        let command = meta_command(change(&step));
        match core.propose(PartitionId::META, command).await {
            Ok(_) => {}
            // Another change came first: the next round plans anew.
            Err(ServerError::Refused(refusal)) if refusal.kind() == RefusalKind::Stale => {}
            Err(error) => tracing::warn!(?step, %error, "placement step failed, it will be planned again"),
        }
    });
    futures::future::join_all(proposals).await;
}

fn change(step: &Step) -> Change {
    match *step {
        Step::Add {
            partition,
            generation,
            node,
            voter,
            ..
        } => Change::AddReplica(AddReplica {
            partition: partition.0,
            generation,
            node: node.0,
            voter,
        }),
        Step::Move {
            partition,
            generation,
            from,
            to,
            ..
        } => Change::MoveReplica(MoveReplica {
            partition: partition.0,
            generation,
            from: from.0,
            to: to.0,
        }),
        Step::Remove {
            partition,
            generation,
            replica,
            ..
        } => Change::RemoveReplica(RemoveReplica {
            partition: partition.0,
            generation,
            replica: replica.0,
        }),
        Step::SetVoter {
            partition,
            generation,
            replica,
            voter,
            ..
        } => Change::SetVoter(SetVoter {
            partition: partition.0,
            generation,
            replica: replica.0,
            voter,
        }),
    }
}

async fn balance(core: &Core, seen: &Observed) -> bool {
    let plan = plan_leaders(&core.map(), seen, &Policy::default());
    let moved = perform(core, plan).await;
    moved.iter().any(|moved| matches!(moved.done, Some(Ok(()))))
}

async fn perform(core: &Core, plan: Vec<Transfer>) -> Vec<LeaderMove> {
    let moves = plan.into_iter().map(|transfer| async move {
        let done = core.transfer_leader(transfer.partition, transfer.to).await;
        match &done {
            Ok(()) => tracing::info!(?transfer, "leader moved"),
            Err(error) => tracing::info!(?transfer, %error, "leader not moved"),
        }
        LeaderMove {
            transfer,
            done: Some(done),
        }
    });
    futures::future::join_all(moves).await
}

/// One balancing by request: what would move, or what moved. Nothing moves while the balancer is frozen.
pub async fn balance_once(core: &Core, dry_run: bool) -> Vec<LeaderMove> {
    let reports: BTreeMap<NodeId, NodeReport> = core.gather(&[], false).await;
    let policy = Policy {
        transfers: usize::MAX,
        ..Policy::default()
    };
    let plan = plan_leaders(&core.map(), &observed(&reports), &policy);
    if dry_run {
        return plan
            .into_iter()
            .map(|transfer| LeaderMove { transfer, done: None })
            .collect();
    }
    perform(core, plan).await
}
