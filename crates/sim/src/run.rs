//! What a seed goes through: a cluster comes into being, faults come while clients work, then everything is mended and
//! must come to order, and what the clients saw is judged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use checker::page::Background;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use workload::{Client, Workload, kept, space};

use crate::fault::{self, Faults, Hurt};
use crate::plan::Plan;
use crate::trace::Trace;
use crate::world::{Violation, World};

/// What came of a run that found nothing wrong.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Simulated time.
    pub simulated_ms: u64,
    /// Operations answered.
    pub operations: u64,
    /// Operations whose fate nobody knows.
    pub unknown: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Report {
    /// As one line.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From a line.
    pub fn parse(line: &str) -> Option<Report> {
        serde_json::from_str(line).ok()
    }
}

/// Kinds of faults in this tier.
pub fn faults() -> Vec<&'static str> {
    fault::names(&fault::all())
}

/// What a seed is in this tier.
pub fn plan(seed: u64) -> Plan {
    Plan::of(seed, &faults())
}

/// Runs one seed.
pub fn run(plan: Plan, trace: Trace, store: Option<&Path>) -> Result<Report, Violation> {
    trace.note(&format!("{plan:?}"));
    let workloads: Vec<_> = plan
        .workloads
        .iter()
        .filter_map(|name| workload::named(name))
        .collect();
    let mut world = World::new(plan, trace).map_err(|error| Violation {
        at_ms: 0,
        text: format!("cannot begin: {error:#}"),
    })?;
    world.settle("all partitions in order")?;
    for workload in &workloads {
        prepare(&mut world, workload)?;
        for _ in 0..world.plan.clients {
            world.start_worker(workload.clone());
        }
    }
    let mut faults = Faults::of(&world, fault::all());
    fault::torment(&mut world, &mut faults)?;
    heal(&mut world)?;
    world.stop_clients()?;
    world.settle("all partitions in order again")?;
    let mut report = Report {
        faults: faults.count,
        ..Report::default()
    };
    let background = Background {
        faults: faults.past,
        leaders: Vec::new(),
    };
    for workload in &workloads {
        finish(&mut world, workload)?;
        judge(&world, &**workload, store, &background)?;
        let tally = workload.record().tally();
        report.operations += tally.ok;
        report.unknown += tally.unknown;
    }
    report.simulated_ms = world.now_ms();
    Ok(report)
}

/// Everything runs again; writes must be possible within a bounded time, which the settling sees to.
fn heal(world: &mut World) -> Result<(), Violation> {
    for at in 0..world.controllers.len() {
        world.bring_up(at);
    }
    world.stop_disturbing();
    world.settle("all partitions in order after the faults")
}

/// Runs something on a client host until it has worked once.
fn done_once<F>(world: &mut World, what: &str, run: impl Fn(Client) -> F + 'static) -> Result<(), Violation>
where
    F: Future<Output = Result<(), String>> + 'static,
{
    let last = Arc::new(Mutex::new(String::new()));
    let said = last.clone();
    let done: Arc<AtomicBool> = world.start_client(move |client| async move {
        let mut attempt = client.clone();
        while let Err(text) = run(attempt.clone()).await {
            *said.lock() = text;
            tokio::time::sleep(Duration::from_millis(200)).await;
            // Another client: this one may have left something of unknown fate.
            attempt.id += 10_000;
        }
    });
    world.until(what, |_| match done.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err(last.lock().clone()),
    })
}

fn prepare(world: &mut World, workload: &Arc<dyn Workload>) -> Result<(), Violation> {
    let workload = workload.clone();
    let what = format!("{} prepared", workload.name());
    done_once(world, &what, move |client| {
        let workload = workload.clone();
        async move {
            let said = |status: tonic::Status| status.to_string();
            space::make(&client, client.any_node(), workload.namespace())
                .await
                .map_err(said)?;
            workload.prepare(&client).await.map_err(said)
        }
    })
}

fn finish(world: &mut World, workload: &Arc<dyn Workload>) -> Result<(), Violation> {
    let workload = workload.clone();
    let what = format!("{} finished", workload.name());
    done_once(world, &what, move |client| {
        let workload = workload.clone();
        async move { workload.finish(&client).await }
    })
}

/// What a workload's clients saw; its history is kept in `store` if something was wrong, and pages of that.
pub fn judge(
    world: &impl Hurt,
    workload: &dyn Workload,
    store: Option<&Path>,
    background: &Background,
) -> Result<(), Violation> {
    let findings = workload.record().judge();
    let tally = workload.record().tally();
    world.trace().note(&format!("{}: {tally:?}", workload.name()));
    let Some(first) = findings.first() else {
        return Ok(());
    };
    if let Some(store) = store {
        let kept = kept::keep(store, workload)
            .and_then(|()| kept::draw(store, workload, &findings, background).map(drop));
        if let Err(error) = kept {
            world
                .trace()
                .note(&format!("the history cannot be kept: {error}"));
        }
    }
    let text = format!(
        "{}: {} (of {} findings)",
        workload.name(),
        first.text,
        findings.len()
    );
    let at_ms = world.now_ms();
    Err(Violation { at_ms, text })
}
