//! Puts and gets at 1, 64 and 256 clients, Holdfast and etcd in turn, the median of the rounds.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use super::{median, partitions};
use crate::load::{self, Measured, Operation};
use crate::report::{Row, Section, Target};
use crate::system::{Kind, System};
use crate::{Options, say};

const OPERATIONS: &[(Operation, &str)] = &[
    (Operation::Put, "put"),
    (Operation::Get, "get, linearizable"),
    (Operation::GetSerializable, "get, serializable"),
];
/// Numbers of clients, unless others are asked for.
const CLIENTS: &[usize] = &[1, 64, 256];
/// Partitions of the cluster: what `make run` starts.
const PARTITIONS: u32 = 16;

/// What one load showed.
#[derive(Clone, Copy)]
struct Run {
    measured: Measured,
    /// Processor time of the three nodes, microseconds for each answer.
    cpu_us: f64,
}

type Results = BTreeMap<(Kind, Operation, usize), Vec<Run>>;

/// Runs all loads.
pub async fn run(options: &Options) -> anyhow::Result<Section> {
    let mut results = Results::new();
    for round in 1..=options.rounds {
        for kind in [
            Kind::Etcd,
            Kind::Holdfast {
                partitions: PARTITIONS,
            },
        ] {
            say(format!(
                "throughput, round {round} of {}: {kind:?}",
                options.rounds
            ));
            let system = System::start(options, kind).await?;
            one_round(options, kind, &system, &mut results).await?;
            system.stop().await?;
        }
    }
    Ok(section(&results))
}

fn clients(options: &Options) -> Vec<usize> {
    if options.clients.is_empty() {
        return CLIENTS.to_vec();
    }
    options.clients.clone()
}

async fn one_round(
    options: &Options,
    kind: Kind,
    system: &System,
    results: &mut Results,
) -> anyhow::Result<()> {
    let endpoints = leader_first(system, kind).await?;
    load::fill(&endpoints).await?;
    let wanted = |operation| options.load.is_empty() || options.load.contains(operation);
    for (operation, name) in OPERATIONS.iter().filter(|(operation, _)| wanted(operation)) {
        for clients in &clients(options) {
            let before = system.cpu_seconds()?;
            let measured = load::run(&endpoints, *operation, *clients, options.load_length()).await?;
            let cpu_us = (system.cpu_seconds()? - before) * 1e6 / measured.answers.max(1) as f64;
            say(format!(
                "  {name}, {clients} clients: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {} errors, processor {cpu_us:.0} us each",
                measured.rate, measured.p50_ms, measured.p99_ms, measured.errors
            ));
            results
                .entry((kind, *operation, *clients))
                .or_default()
                .push(Run { measured, cpu_us });
        }
    }
    Ok(())
}

/// The endpoints, beginning with the node that leads the loaded key space: what a single client meets must not
/// be luck.
async fn leader_first(system: &System, kind: Kind) -> anyhow::Result<Vec<String>> {
    let mut endpoints = system.endpoints.clone();
    let leader = match kind {
        Kind::Etcd => etcd_leader(&endpoints).await?,
        Kind::Holdfast { .. } => {
            let all = partitions(&endpoints[0]).await?;
            let home = all
                .iter()
                .find(|partition| partition.namespaces.iter().any(|name| name == "default"));
            home.context("no partition holds the default namespace")?
                .leader_node as usize
                - 1
        }
    };
    endpoints.rotate_left(leader);
    Ok(endpoints)
}

async fn etcd_leader(endpoints: &[String]) -> anyhow::Result<usize> {
    for (index, endpoint) in endpoints.iter().enumerate() {
        let mut client = etcd_client::Client::connect([endpoint], None).await?;
        let status = client.status().await?;
        if status
            .header()
            .is_some_and(|header| header.member_id() == status.leader())
        {
            return Ok(index);
        }
    }
    anyhow::bail!("etcd has no leader")
}

fn section(results: &Results) -> Section {
    let mut rows = Vec::new();
    for (operation, name) in OPERATIONS {
        let measured = results.keys().filter(|(_, measured, _)| measured == operation);
        let numbers: BTreeSet<usize> = measured.map(|(_, _, clients)| *clients).collect();
        for clients in numbers {
            let of = |kind: Kind| {
                results
                    .get(&(kind, *operation, clients))
                    .cloned()
                    .unwrap_or_default()
            };
            let ours = of(Kind::Holdfast {
                partitions: PARTITIONS,
            });
            rows.extend(compare(*operation, name, clients, &ours, &of(Kind::Etcd)));
        }
    }
    Section {
        title: "Puts and gets".to_string(),
        note: format!(
            "{} partitions, of which the load meets one (one key space). Each connection goes to the next endpoint, \
             beginning with the leader's; medians of the rounds.",
            PARTITIONS
        ),
        rows,
    }
}

fn compare(operation: Operation, name: &str, clients: usize, ours: &[Run], theirs: &[Run]) -> Vec<Row> {
    let middle = |all: &[Run], pick: fn(&Run) -> f64| median(all.iter().map(pick).collect());
    let target = match (operation, clients) {
        (Operation::Put, 256) => Target::RatioAtLeast(1.8),
        (Operation::Put, 64) => Target::RatioAtLeast(1.5),
        (Operation::Get, 256) => Target::RatioAtLeast(2.5),
        _ => Target::None,
    };
    let latency_target = if (operation, clients) == (Operation::Put, 1) {
        Target::RatioAtMost(0.8)
    } else {
        Target::None
    };
    let row = |what: &str, unit: &'static str, pick: fn(&Run) -> f64, target: Target| Row {
        measure: format!("{name}, {clients} clients, {what}"),
        unit,
        holdfast: middle(ours, pick),
        etcd: Some(middle(theirs, pick)),
        target,
    };
    let mut rows = vec![
        row("rate", "/s", |run| run.measured.rate, target),
        row("p50", "ms", |run| run.measured.p50_ms, latency_target),
        row("p99", "ms", |run| run.measured.p99_ms, Target::None),
        row(
            "processor time of the nodes",
            "us",
            |run| run.cpu_us,
            Target::None,
        ),
    ];
    let errors: u64 = ours.iter().map(|run| run.measured.errors).sum();
    if errors > 0 {
        rows.push(row(
            "errors",
            "",
            |run| run.measured.errors as f64,
            Target::AtMost(0.0),
        ));
    }
    rows
}
