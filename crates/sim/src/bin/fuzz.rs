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
///   fuzz --seed 7 --show-plan > 7.json      what the seed decides, to be kept: fuzz --plan 7.json runs it
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Args {
    /// The seed to run.
    #[arg(long, required_unless_present_any = ["seeds", "plan"])]
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
    /// Take what a seed would decide about cluster, load and kinds of faults from this file; the seed too, if none is
    /// given. A plan stays as it is when workloads and faults are added.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Print the plan, to be kept, and run nothing.
    #[arg(long, conflicts_with = "seeds")]
    show_plan: bool,
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
    let plan = match plan(&args) {
        Ok(plan) => plan,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if args.show_plan {
        many::tell(&serde_json::to_string_pretty(&plan).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    match args.seeds {
        None => one(plan, &args),
        Some(seeds) => many::run(&many::Orders {
            seeds,
            jobs: args.jobs.max(1),
            twice: args.twice,
            until_found: args.until_found,
            within: args.within.map(Duration::from_secs),
            options: options(&args),
        }),
    }
}

/// What to run. Of many seeds, the first: whatever is wrong with it is wrong with all.
fn plan(args: &Args) -> Result<Plan, String> {
    let seed = args.seed.or(args.seeds.map(|seeds| seeds.from));
    let mut plan = match (&args.plan, args.messages) {
        (Some(path), _) => Plan::read(path).map_err(|error| format!("{error:#}"))?,
        (None, true) => sim::messages::plan(seed.unwrap_or(0)),
        (None, false) => sim::run::plan(seed.unwrap_or(0)),
    };
    plan.seed = seed.unwrap_or(plan.seed);
    let plan = plan.only(&args.workloads, &args.faults);
    plan.check(&match args.messages {
        true => sim::messages::faults(),
        false => sim::run::faults(),
    })?;
    Ok(plan)
}

/// What one seed's process is told besides its seed.
fn options(args: &Args) -> Vec<String> {
    let mut options = Vec::new();
    for (name, values) in [("--workloads", &args.workloads), ("--faults", &args.faults)] {
        if !values.is_empty() {
            options.extend([name.to_owned(), values.join(",")]);
        }
    }
    if let Some(plan) = &args.plan {
        options.extend(["--plan".to_owned(), plan.display().to_string()]);
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

fn one(plan: Plan, args: &Args) -> ExitCode {
    let seed = plan.seed;
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
        true => sim::messages::run(plan, trace.clone(), store.as_deref()),
        false => sim::run::run(plan, trace.clone(), store.as_deref()),
    };
    let (lines, hash) = trace.digest();
    many::tell(&many::trace_line(seed, lines, hash));
    match result {
        Ok(report) => {
            many::tell(&report.line());
            ExitCode::SUCCESS
        }
        Err(violation) => {
            many::tell(&format!("violated: {violation}"));
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
