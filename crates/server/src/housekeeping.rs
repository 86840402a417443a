//! What the leader of a partition owes to time: leases and sessions end, the clock is logged, history is compacted.
//! One task per node looks at all partitions led here; everything it decides is a logged command.
//!
//! Nothing is remembered between rounds: a new leader derives all of it from state.

mod compaction;
mod lease;
mod session;
mod settings;
mod tick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use machine::command::Body;
use machine::record::Space;
use machine::{Command, View, ViewError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use types::PartitionId;

use crate::core::Core;

/// Between rounds.
const ROUND: Duration = Duration::from_millis(500);
/// Before a round that was asked for.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a command may take before the next round tries again from state.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks at retention, sessions and settings.
const SELDOM: Duration = Duration::from_secs(10);

/// One command of the partition's own business.
fn own(space: Space, body: Body) -> Command {
    Command {
        principal: "root".to_owned(),
        slot: u32::from(space.slot.0),
        namespace: space.namespace.0,
        body: Some(body),
        ..Command::default()
    }
}

/// What a partition needs now. Reads only. `configured`: in the rounds that look at what needs it seldom, the settings
/// of its key spaces.
fn wanted(
    view: &dyn View,
    clock_ms: u64,
    configured: Option<&settings::Configured>,
) -> Result<Vec<Command>, ViewError> {
    let mut commands = lease::expiries(view, clock_ms)?;
    commands.extend(compaction::steps(view)?);
    if let Some(configured) = configured {
        commands.extend(settings::outdated(view, configured)?);
        commands.extend(compaction::automatic(view, clock_ms)?);
        commands.extend(session::expiries(view, clock_ms)?);
    }
    if commands.is_empty() {
        commands.extend(tick::due(view, clock_ms)?);
    }
    Ok(commands)
}

/// Runs until `stop`.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut seldom = tokio::time::Instant::now();
    let mut work = Work::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ROUND) => {}
            () = core.woken().housekeeping.notified() => tokio::time::sleep(PAUSE).await,
            Some(done) = work.running.join_next() => {
                // A task that panicked has aborted the process.
                let Ok((partition, remaining)) = done else { continue };
                work.busy.remove(&partition);
                if !remaining {
                    continue;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        let is_seldom = seldom.elapsed() >= SELDOM;
        if is_seldom {
            seldom = tokio::time::Instant::now();
        }
        one_round(&core, is_seldom, &mut work).await;
    }
}

/// What was proposed and is not answered yet. A partition that cannot commit delays no other.
#[derive(Default)]
struct Work {
    busy: BTreeSet<PartitionId>,
    /// Each returns its partition, and whether work remains there.
    running: JoinSet<(PartitionId, bool)>,
}

/// Looks at every partition led here that is not busy.
async fn one_round(core: &Arc<Core>, seldom: bool, work: &mut Work) {
    let replicas: Vec<raft::Replica> = core
        .led_here()
        .into_iter()
        .filter(|replica| !work.busy.contains(&replica.partition()))
        .collect();
    if replicas.is_empty() {
        return;
    }
    // The rounds that look at what needs it seldom know the settings of all key spaces.
    let configured = seldom.then(|| settings::by_partition(&core.map()));
    let looked = core.env().blocking.run(move || look(replicas, configured));
    let Ok(found) = looked.await else { return };
    for (replica, commands) in found {
        let partition = replica.partition();
        work.busy.insert(partition);
        work.running.spawn(async move {
            let proposals = commands.into_iter().map(|command| perform(&replica, command));
            let remaining = futures::future::join_all(proposals).await;
            (partition, remaining.contains(&true))
        });
    }
}

/// What each partition needs now; those that need nothing are left out.
fn look(
    replicas: Vec<raft::Replica>,
    configured: Option<BTreeMap<PartitionId, settings::Configured>>,
) -> Vec<(raft::Replica, Vec<Command>)> {
    let (mut found, none) = (Vec::new(), settings::Configured::new());
    for replica in replicas {
        let configured = configured.as_ref();
        let configured = configured.map(|all| all.get(&replica.partition()).unwrap_or(&none));
        match wanted(&*replica.view(), replica.clock_ms(), configured) {
            Ok(commands) if commands.is_empty() => {}
            Ok(commands) => found.push((replica, commands)),
            Err(error) => {
                tracing::error!(partition = %replica.partition(), %error, "cannot read the partition")
            }
        }
    }
    found
}

/// Proposes one command; returns whether a step said that work remains.
async fn perform(replica: &raft::Replica, command: Command) -> bool {
    match replica.propose(command, PATIENCE).await {
        Ok(done) => matches!(done.reply.done, Some(machine::outcome::Done::Step(step)) if step.remaining),
        Err(raft::ProposeError::NotLeader { .. } | raft::ProposeError::Stopped) => false,
        Err(error) => {
            tracing::debug!(partition = %replica.partition(), %error, "housekeeping will try again");
            false
        }
    }
}
