//! The second tier: Raft alone, and no bytes. Nodes are `raft::Node`s over disks in memory, as in a controller; what
//! their lanes write is handed over as it is, some milliseconds later, without gRPC, connections or sockets. Time leaps
//! from one thing that happens to the next. No services, map or etcd API: clients ask replicas, and what moves leaders and
//! replicas is here. So a seed goes through far more time, elections and changes of members than in the first tier.
//!
//! What it cannot do: pause a process or bend its time, for all nodes share one runtime.

use std::path::Path;

use checker::page::Background;

use crate::fault::{self, Faults, Hurt};
use crate::plan::Plan;
use crate::run::{Report, judge};
use crate::trace::Trace;
use crate::world::Violation;

mod cluster;
mod fabric;
mod load;
mod member;
mod moves;
mod wire;

use cluster::Cluster;
use workload::Workload;
use workload::register::Registers;

/// How long faults come, in simulated milliseconds: elections and changes of members take time and little work.
const SAFETY_MS: u64 = 600_000;
/// How many times longer than usual clients rest between two operations.
const LEISURE: &[u64] = &[20, 50, 100];

/// Kinds of faults in this tier.
pub fn faults() -> Vec<&'static str> {
    fault::names(&fault::of_hosts::<Cluster>())
}

/// What a seed is in this tier.
pub fn plan(seed: u64) -> Plan {
    let mut plan = Plan::of(seed, &faults());
    let mut numbers = workload::numbers::Numbers::of(seed, "messages");
    plan.safety_ms = SAFETY_MS;
    plan.leisure = *numbers.pick(LEISURE);
    plan.workloads = vec!["register".into(), "moves".into()];
    plan
}

/// Runs one seed.
pub fn run(plan: Plan, trace: Trace, store: Option<&Path>) -> Result<Report, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.map_err(|error| Violation {
        at_ms: 0,
        text: format!("cannot begin: {error}"),
    })?;
    runtime.block_on(go(plan, trace, store))
}

async fn go(plan: Plan, trace: Trace, store: Option<&Path>) -> Result<Report, Violation> {
    trace.begin_time();
    trace.note(&format!("{plan:?}"));
    let mut cluster = Cluster::new(plan, trace);
    cluster.form().await?;
    let registers = std::sync::Arc::new(Registers::default());
    for _ in 0..cluster.plan().clients {
        cluster.start_worker(registers.clone());
    }
    cluster.start_moves();
    let mut faults = Faults::of(&cluster, fault::of_hosts());
    let end = cluster.now_ms() + cluster.plan().safety_ms;
    while cluster.now_ms() < end {
        faults.turn(&mut cluster);
        cluster.pass_until(faults.next_ms().min(end)).await?;
    }
    faults.mend(&mut cluster);
    cluster.heal().await?;
    cluster.stop_clients().await?;
    cluster.settle("all partitions in order again").await?;
    let background = Background {
        faults: faults.past,
        leaders: Vec::new(),
    };
    judge(&cluster, &*registers, store, &background)?;
    let tally = registers.record().tally();
    Ok(Report {
        simulated_ms: cluster.now_ms(),
        operations: tally.ok,
        unknown: tally.unknown,
        faults: faults.count,
    })
}
