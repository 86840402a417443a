//! Runs one seed, or many of them as processes of their own.

use std::process::ExitCode;

use clap::Parser;
use mad_turmoil::time::SimClocksGuard;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sim::plan::Plan;
use sim::trace::Trace;

/// A step takes a millisecond or so; the slowest, with everything being judged, a few seconds.
const STANDSTILL: std::time::Duration = std::time::Duration::from_secs(60);

/// Simulated clusters under faults.
#[derive(Debug, Parser)]
struct Args {
    /// The seed to run.
    #[arg(long)]
    seed: u64,
    /// Write the trace here.
    #[arg(long)]
    trace: Option<std::path::PathBuf>,
    /// Write histories that were found wrong here.
    #[arg(long)]
    store: Option<std::path::PathBuf>,
    /// What of the log goes into the trace.
    #[arg(long, default_value = "info")]
    level: tracing::Level,
}

fn main() -> ExitCode {
    let args = Args::parse();
    watch_for_standstill(args.seed);
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(args.seed));
    let _clocks = SimClocksGuard::init();
    let file = args
        .trace
        .as_ref()
        .map(|path| std::fs::File::create(path).expect("a file"));
    let trace = Trace::begin(file, args.level);
    let result = sim::run::run(Plan::of(args.seed), trace.clone(), args.store.as_deref());
    let (lines, hash) = trace.digest();
    println!("seed {} lines {lines} trace {hash:016x}", args.seed);
    match result {
        Ok(report) => {
            println!("seed {}: {report:?}", args.seed);
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {}: {violation}", args.seed);
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
    let steps = sim::world::steps();
    let watching = std::thread::Builder::new().name("standstill".into());
    let watched = watching.spawn(move || {
        let mut last = 0;
        loop {
            std::thread::sleep(STANDSTILL);
            let now = steps.load(std::sync::atomic::Ordering::Relaxed);
            if now == last {
                println!("seed {seed}: at {now} ms: standstill: a step did not end within {STANDSTILL:?}");
                std::process::exit(1);
            }
            last = now;
        }
    });
    drop(watched);
}
