//! Runs one seed, or many of them, each as a process of its own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use mad_turmoil::time::SimClocksGuard;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sim::many;
use sim::plan::Plan;
use sim::trace::Trace;

/// A step takes a millisecond or so; the slowest, with everything being judged, a few seconds.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Simulated clusters under faults. The same seed gives the same run, to the byte.
///
/// Examples:
///   fuzz --seed 7 --trace /tmp/7.trace      one run, and what happened in it
///   fuzz --seeds 0..200 --jobs 2            many runs; says which failed, and how to repeat each
///   fuzz --seeds 0..20 --twice              each twice: the traces must be equal
///   fuzz --messages --seeds 0..1000         Raft alone, without gRPC: far more time, elections and moves
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Args {
    /// The seed to run.
    #[arg(long, required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Seeds to run, FROM..TO (without TO).
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<many::Range>,
    /// Processes at a time.
    #[arg(long, default_value_t = 1, requires = "seeds")]
    jobs: usize,
    /// Run each seed twice and compare.
    #[arg(long, requires = "seeds")]
    twice: bool,
    /// Stop after so many seconds of real time; seeds not begun by then are left out.
    #[arg(long, requires = "seeds")]
    within: Option<u64>,
    /// The second tier: Raft alone, messages without gRPC, ten times as much time for a seed and much faster.
    #[arg(long, conflicts_with = "workloads")]
    messages: bool,
    /// Run only these workloads.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Bring only these faults.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    /// Plant this fault (a build with HOLDFAST_PLANTED=1 has them).
    #[arg(long)]
    plant: Option<String>,
    /// Run until the first seed that fails, and succeed if one does.
    #[arg(long, requires = "seeds", conflicts_with = "twice")]
    until_found: bool,
    /// Write the trace here.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// What of the log goes into the trace.
    #[arg(long, default_value = "info")]
    level: tracing::Level,
    /// Write histories that were found wrong here.
    #[arg(long)]
    store: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Err(text)) = args.plant.as_deref().map(types::planted::choose) {
        eprintln!("{text}");
        return ExitCode::from(2);
    }
    match (args.seed, args.seeds) {
        (Some(seed), _) => one(seed, &args),
        (None, Some(seeds)) => many::run(&many::Orders {
            seeds,
            jobs: args.jobs.max(1),
            twice: args.twice,
            until_found: args.until_found,
            within: args.within.map(Duration::from_secs),
            options: options(&args),
        }),
        (None, None) => ExitCode::FAILURE,
    }
}

/// What one seed's process is told besides its seed.
fn options(args: &Args) -> Vec<String> {
    let mut options = Vec::new();
    for (name, values) in [("--workloads", &args.workloads), ("--faults", &args.faults)] {
        if !values.is_empty() {
            options.extend([name.to_owned(), values.join(",")]);
        }
    }
    if args.messages {
        options.push("--messages".to_owned());
    }
    if let Some(plant) = &args.plant {
        options.extend(["--plant".to_owned(), plant.clone()]);
    }
    if let Some(store) = &args.store {
        options.extend(["--store".to_owned(), store.display().to_string()]);
    }
    options
}

fn one(seed: u64, args: &Args) -> ExitCode {
    watch_for_standstill(seed);
    // From here on, time and entropy are the run's own, for every library in this process.
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let _clocks = SimClocksGuard::init();
    let file = match args.trace.as_ref().map(std::fs::File::create).transpose() {
        Ok(file) => file,
        Err(error) => {
            eprintln!("the trace cannot be written: {error}");
            return ExitCode::from(2);
        }
    };
    let trace = Trace::begin(file, args.level);
    let store = args.store.as_ref().map(|store| store.join(seed.to_string()));
    let result = match args.messages {
        true => {
            let plan = sim::messages::plan(seed).only(&[], &args.faults);
            sim::messages::run(plan, trace.clone(), store.as_deref())
        }
        false => {
            let plan = Plan::of(seed).only(&args.workloads, &args.faults);
            sim::run::run(plan, trace.clone(), store.as_deref())
        }
    };
    let (lines, hash) = trace.digest();
    println!("{}", many::trace_line(seed, lines, hash));
    match result {
        Ok(report) => {
            println!("{}", report.line());
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("violated: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// A step that never ends is a violation too: some task goes round without waiting for anything. Real time is only looked
/// at here, and nothing of the run sees it.
#[expect(
    clippy::disallowed_methods,
    reason = "this thread is no part of the run: it measures the real time that a step takes"
)]
fn watch_for_standstill(seed: u64) {
    let watching = std::thread::Builder::new().name("standstill".into());
    let watched = watching.spawn(move || {
        let mut last = 0;
        loop {
            std::thread::sleep(STANDSTILL);
            let now = sim::world::steps().load(Ordering::Relaxed);
            if now == last {
                println!(
                    "violated: seed {seed}, at {now} ms: standstill: a step did not end within {STANDSTILL:?}"
                );
                std::process::exit(1);
            }
            last = now;
        }
    });
    // Without the thread, a standstill is found by whoever started this process.
    drop(watched);
}
