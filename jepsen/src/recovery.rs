//! How long writes pause after one fault, many times over: faults of one kind, one after the other and each alone, on a
//! cluster that is in order, while partitions are written without rest.
//!
//! ```text
//!  order    probers begin   strike             writes are back      mend            order
//!    |----------|--- usual ---|------- pause -------|-- watched --|---- mending ----|--|
//! ```
//!
//! Must never: count for a fault what another one did.

mod fault;
mod prober;
mod round;
mod table;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use client::{Client, NewNamespace};
use env::SystemClock;
use serde::Serialize;
use workload::numbers::Numbers;

use crate::cluster::Cluster;
use crate::ground::{Format, Ground};
use crate::options::duration;
use crate::run::{FORMING, attend};
use crate::settled;
use crate::store::Store;
use fault::Fault;
use prober::Pace;
use round::{Place, Round, Sample};
use table::Row;

/// Puts each second that all probers together try, unless something else is asked for.
const PUTS: u64 = 800;
/// Shortest time between two puts of a prober.
const EVERY_MS: u64 = 5;

/// Many single faults.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  jepsen/run recovery                                  every fault 20 times, one partition
  jepsen/run recovery --partitions 64 --fault kill,cut --rounds 50

A pause is the longest gap between two acknowledged puts of one partition, of which a part lies between the strike and the
mending (of restart and move: and the time when all is in order again). Usual: the longest gap in the two seconds before the strike.
Puts go through the nodes that are not struck; in restart and move through all. `nothing` is for comparison: no fault, the
same questions. Goals, which both sides must meet:
  kill            p50 at most 150 ms, p99 at most 500 ms
  cut, power      at most 4 s
  restart, move   at most 100 ms, and no failed request

Exit status: 0 all goals met; 1 a goal missed, or a promise broken; 2 a fault was not seen to have an effect, or the goal is
below what is usual on this machine; 3 the harness failed.")]
pub struct Recovery {
    /// What is done to a node that leads.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Fault::all())]
    pub fault: Vec<Fault>,
    /// How often each is done.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub rounds: u32,
    /// Partitions beside the meta partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: u32,
    /// Partitions that are written meanwhile, at most; half of them are led by the node that is struck. All groups take
    /// part in what happens to a node, and more probers only keep the machine busy.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub probers: u32,
    /// Milliseconds between two puts of a prober. Default: 5, or as many as keep all of them at 800 puts a second.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub every: Option<u64>,
    /// How long a put may take before it has failed.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub deadline: Duration,
    /// What it all stands on.
    #[command(flatten)]
    pub ground: Ground,
}

/// The summary.
#[derive(Debug, Clone, Serialize)]
struct Report {
    again: String,
    nodes: u64,
    partitions: u32,
    probed: u32,
    rounds: u32,
    every_ms: u64,
    rows: Vec<Row>,
    broken: Vec<String>,
    unseen: Vec<String>,
    store: String,
}

/// Runs it all. The exit status.
pub fn recovery(options: &Recovery) -> Result<u8> {
    let seed = options.ground.seed();
    let binary = options.ground.binary()?;
    let store = options.ground.store(seed, &options.again(seed))?;
    let cluster = Cluster::start(&options.ground, options.partitions, seed, &binary, &store, false)?;
    let report = attend(options.all(seed, cluster, store.clone()))?;
    store.json("recovery.json", &report)?;
    store.write("summary.txt", &report.text())?;
    match options.ground.output {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.status())
}

impl Recovery {
    fn again(&self, seed: u64) -> String {
        let faults: Vec<String> = self.fault.iter().map(|fault| fault.name()).collect();
        format!(
            "jepsen/run recovery --fault {} --rounds {} --partitions {} --probers {} --every {} --deadline {}s {}",
            faults.join(","),
            self.rounds,
            self.partitions,
            self.probers,
            self.every_ms(),
            self.deadline.as_secs(),
            self.ground.words(seed).join(" ")
        )
    }

    fn every_ms(&self) -> u64 {
        let shared = u64::from(self.partitions.min(self.probers)) * 1000 / PUTS;
        self.every.unwrap_or_else(|| shared.max(EVERY_MS))
    }

    async fn all(&self, seed: u64, cluster: Cluster, store: Store) -> Result<Report> {
        let mut place = self.place(seed, cluster).await?;
        let mut report = Report {
            again: self.again(seed),
            nodes: self.ground.nodes,
            partitions: self.partitions,
            probed: self.partitions.min(self.probers),
            rounds: self.rounds,
            every_ms: self.every_ms(),
            rows: Vec::new(),
            broken: Vec::new(),
            unseen: Vec::new(),
            store: store.dir().display().to_string(),
        };
        let mut samples: Vec<Sample> = Vec::new();
        let mut lines = store.lines("rounds.jsonl")?;
        'faults: for fault in &self.fault {
            let mut seen = 0;
            for number in 0..self.rounds {
                let round = place.round(*fault, number).await;
                let round = round.with_context(|| format!("{}, round {}", fault.name(), number + 1))?;
                self.tell(*fault, number, &round);
                for sample in &round.samples {
                    lines.add(sample)?;
                }
                samples.extend(round.samples);
                seen += u32::from(round.seen.is_some());
                report.broken.extend(round.broken);
                // What would come after that would say nothing.
                if !report.broken.is_empty() {
                    break 'faults;
                }
            }
            if seen < self.rounds {
                let text = format!("{}: seen in {seen} of {} rounds", fault.name(), self.rounds);
                report.unseen.push(text);
            }
        }
        drop(place);
        report.broken.extend(store.panics()?);
        report.rows = table::rows(&samples, &mut Numbers::of(seed, "bounds"));
        Ok(report)
    }

    /// A cluster in order, with a key space in each partition.
    async fn place(&self, seed: u64, mut cluster: Cluster) -> Result<Place> {
        let clock = Arc::new(SystemClock::default());
        let formed = settled::wait(&mut cluster, &*clock, FORMING).await;
        formed.map_err(|missing| anyhow!("no cluster came into being: {missing}"))?;
        let operator = Client::new(cluster.endpoints(), client::Options::default())?;
        let places = prober::places(&operator.map().await?.slots, self.partitions);
        ensure!(
            places.len() == self.partitions as usize,
            "{} of {} partitions have slots",
            places.len(),
            self.partitions
        );
        for (_, name) in &places {
            operator.put_namespace(NewNamespace::named(name)).await?;
        }
        let mut place = Place {
            cluster,
            operator,
            places,
            probers: self.probers as usize,
            pace: Pace {
                every: Duration::from_millis(self.every_ms()),
                deadline: self.deadline,
            },
            clock,
            numbers: Numbers::of(seed, "faults"),
            patience: self.ground.patience,
        };
        place.order().await.map_err(|missing| anyhow!(missing))?;
        Ok(place)
    }

    fn tell(&self, fault: Fault, number: u32, round: &Round) {
        let mut text = format!(
            "jepsen: {} {} of {}, node {}",
            fault.name(),
            number + 1,
            self.rounds,
            round.node
        );
        for row in table::rows(&round.samples, &mut Numbers::of(0, "unused")) {
            text += &format!(
                "; {} {}: p50 {:.0} ms, max {:.0} (usual {:.0}, mending {:.0}), {} failed",
                row.samples,
                row.side(),
                row.pause.p50_ms,
                row.pause.max_ms,
                row.usual.max_ms,
                row.mending.max_ms,
                row.failures()
            );
        }
        let seen = round.seen.as_deref().unwrap_or("NOT SEEN");
        eprintln!(
            "{text}; in order after {:.1} s; {seen}",
            round.order.as_secs_f64()
        );
    }
}

impl Report {
    fn status(&self) -> u8 {
        let missed = self.rows.iter().any(|row| !row.missed.is_empty());
        let unclear = self.rows.iter().any(|row| !row.unclear.is_empty());
        match (
            missed || !self.broken.is_empty(),
            unclear || !self.unseen.is_empty(),
        ) {
            (true, _) => 1,
            (false, true) => 2,
            (false, false) => 0,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} controllers, {} partitions, a put each {} ms in {} of them\n",
            self.nodes, self.partitions, self.every_ms, self.probed
        );
        text += &table::text(&self.rows);
        for line in self.broken.iter().chain(&self.unseen) {
            text += &format!("  {line}\n");
        }
        let verdict = match self.status() {
            0 => "All goals met",
            1 => "Missed",
            _ => "Inconclusive",
        };
        text += &format!("{verdict}; again: {}\n", self.again);
        text
    }
}
