//! Chaos on real processes: controllers on hosts of their own, faults from a seed, clients whose histories are judged.
//!
//! Must never: touch the network, the mounts or the processes of the machine it runs on. Everything is in namespaces
//! that end with the run.

mod clock;
mod cluster;
mod controller;
mod cuts;
mod disk;
mod excuse;
mod fabric;
mod ground;
mod hosts;
mod inside;
mod judge;
mod leaders;
mod nemesis;
mod options;
mod page;
mod recovery;
mod report;
mod run;
mod settled;
mod silence;
mod soak;
mod spread;
mod store;
mod system;
mod torment;
mod verdict;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use ground::Format;
use options::Options;
use recovery::Recovery;
use report::Report;

/// What a harness that failed exits with.
const HARNESS: u8 = 3;

/// Holdfast under chaos: real processes, each on a host of its own, hurt from a seed while clients work; what the clients
/// saw is judged.
#[derive(Debug, Parser)]
#[command(
    name = "jepsen",
    after_help = "\
Examples:
  jepsen/run --workload register --nemesis cut --time 60s
  jepsen/run --workload kv,bank --nemesis kill,pause --time 5m --seed 7
  jepsen/run                                       everything mixed, for a minute
  jepsen/run recovery --fault kill --rounds 50     how long writes pause after a leader is killed
  jepsen/run judge jepsen/store/latest             what a run left, judged again

Exit status: 0 passed; 1 a promise was broken, or a goal missed; 2 undecided, or faults or load were not exercised; 3 the harness failed."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// One run
    Run(Box<Options>),
    /// Many runs one after the other, each with the next seed
    Soak(Box<soak::Soak>),
    /// How long writes pause after one fault, many times over, against the goals
    Recovery(Box<Recovery>),
    /// Histories that were kept, judged again
    Judge(judge::Again),
    /// Clients alone, on a cluster that somebody else hurts and mends (jepsen/compose)
    Drive {
        /// host:port of each controller, in the order of their ids
        #[arg(long, value_delimiter = ',', required = true)]
        endpoints: Vec<String>,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// The workloads and the nemeses there are
    List,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.verb {
        Verb::Run(options) => one(&options),
        Verb::Drive { endpoints, options } => {
            run::drive(&options, endpoints).and_then(|report| tell(&options, &report))
        }
        Verb::Judge(again) => again.all(),
        Verb::Soak(soak) => soak::soak(&soak, soak.run.ground.seed()),
        Verb::Recovery(recovery) => recover(&recovery),
        Verb::List => {
            list();
            Ok(0)
        }
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("jepsen: {error:#}");
            ExitCode::from(HARNESS)
        }
    }
}

fn one(options: &Options) -> Result<u8> {
    inside::enter()?;
    hosts::check()?;
    tell(options, &run::run(options)?)
}

fn recover(options: &Recovery) -> Result<u8> {
    inside::enter()?;
    hosts::check()?;
    recovery::recovery(options)
}

fn tell(options: &Options, report: &Report) -> Result<u8> {
    match options.ground.output {
        Format::Text => print!("{}", report.text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(report)?),
    }
    Ok(report.judgement.verdict.status())
}

fn list() {
    let mut text = format!("workloads: {}\nnemeses:\n", workload::NAMES.join(" "));
    for kind in nemesis::all() {
        text += &format!("  {:<10} {}\n", kind.name(), kind.about());
    }
    // Whoever reads may have read enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
