//! `bench`: loads and comparisons. Starts Holdfast and etcd in turn on this machine, as real processes, and
//! measures both from outside, over their client ports. Writes a table for people and a file for programs.
//!
//! Must never judge: it reports numbers beside the targets, and exits with success unless it could not measure.
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator measures real time and real processes"
)]

mod events;
mod kv;
mod load;
mod measure;
mod process;
mod report;
mod socket;
mod system;

/// What the load itself costs should hide as little as can be of what the systems cost.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measure Holdfast against etcd on this machine.
#[derive(Parser, Debug)]
#[command(after_help = "\
Examples:
  bench --holdfast ~/.cache/holdfast/target/release/holdfast --out docs/benchmarks.md
  bench --holdfast ./holdfast --only throughput --rounds 1 --seconds 2")]
pub struct Options {
    /// The program to measure.
    #[arg(long)]
    holdfast: PathBuf,
    /// What to compare with.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Write the table here, `NAME.md`, with the remarks in `NAME.remarks.md` behind it. It is printed in any case.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the numbers here (default: beside the table, ending in .json).
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the clusters keep their data. Its disk's fsync is part of what is measured.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data_dir: PathBuf,
    /// Rounds of the loads; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Length of one load.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Keys of the restart measurement.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Measure only these.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Of puts and gets, measure only these.
    #[arg(long, value_enum)]
    load: Vec<load::Operation>,
    /// Of the loads, only those with so many clients.
    #[arg(long)]
    clients: Vec<usize>,
}

/// One part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Puts and gets, against etcd.
    Throughput,
    /// Processor time and memory of an idle cluster.
    Idle,
    /// Serving again after kill -9, with many keys.
    Restart,
    /// The gap when a leader's process is killed, cut off, or stopped.
    Failover,
    /// A thousand watchers of one range.
    Watchers,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn load_length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("could not measure: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = report::Report::new(options)?;
    if options.wants(Part::Throughput) {
        report.add(measure::throughput::run(options).await?);
    }
    if options.wants(Part::Idle) {
        report.add(measure::idle::run(options).await?);
    }
    if options.wants(Part::Restart) {
        report.add(measure::restart::run(options).await?);
    }
    if options.wants(Part::Failover) {
        report.add(measure::failover::run(options).await?);
    }
    if options.wants(Part::Watchers) {
        report.add(measure::watchers::run(options).await?);
    }
    report.write(options)
}

/// Tells a person what goes on.
fn say(text: impl AsRef<str>) {
    eprintln!("bench: {}", text.as_ref());
}
