//! `holdfast serve`: one controller, until a signal stops it.

use crate::config::{Overrides, load};
use crate::failure::{Failure, Result};
use crate::{logging, process};
use env::Env;
use server::config::Config;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast serve --config /etc/holdfast.toml
  holdfast serve --data-dir /var/lib/holdfast --listen-client 10.0.0.2:2379 \\
      --listen-peer 10.0.0.2:2380 --listen-http 10.0.0.2:2381 --join 10.0.0.1:2380

Every key of the file can be set by a variable too: raft.heartbeat_ms is HOLDFAST_RAFT_HEARTBEAT_MS.
The first controller of a cluster needs `holdfast init`; the others join it. SIGTERM and Ctrl-C hand leaders over to
other controllers, then stop; a second signal stops at once.")]
pub struct Args {
    /// Settings as TOML; see `holdfast config default`
    #[arg(long, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the process id here, and remove it at the end
    #[arg(long, env = "HOLDFAST_PID_FILE", value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// What a stop may take beyond the time for handing over.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Serves.
pub fn run(args: &Args) -> Result {
    let config = load(args.config.as_deref(), &args.overrides)?;
    logging::start(&config.log)?;
    logging::abort_on_panic();
    let pid = std::process::id();
    if let Some(path) = &args.pid_file {
        process::write_pid(path, pid)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))?;
    }
    let result = serve(config);
    if let Some(path) = &args.pid_file {
        process::remove_pid(path, pid);
    }
    if let Err(failure) = &result
        && !std::io::stderr().is_terminal()
    {
        // A person reads it once, from `main`; who collects logs gets a line of its form too.
        tracing::error!("{failure}");
    }
    result
}

fn serve(config: Config) -> Result {
    let runtime = runtime(config.node.worker_threads)
        .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
    // On a worker, where there are several: the main thread only waits, so that nothing is handed between threads.
    let outcome = runtime.block_on(async { tokio::spawn(until_stopped(config)).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.map_err(|error| Failure::failed(format!("the controller's task ended: {error}")))?
}

/// One thread takes tasks strictly in turn: what arrives on many connections is worked on together, and answers that
/// are ready together leave together. Among several, what was just woken goes first, which spreads the work sooner, and
/// writes each answer by itself.
fn runtime(workers: usize) -> std::io::Result<Runtime> {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder
        .worker_threads(workers)
        .thread_name("holdfast")
        .enable_all()
        .build()
}

async fn until_stopped(config: Config) -> Result {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    // Handing over, finishing requests and stopping groups are bounded by this each.
    let limit = 3 * Duration::from_millis(config.limits.drain_timeout_ms) + STOP_GRACE;
    // A signal counts during the start too: a joining node may wait long to be admitted.
    let node = tokio::select! {
        started = server::Node::start(config, Env::production()) => {
            started.map_err(|error| Failure::failed(client::chain(&error)))?
        }
        name = stop_signal(&mut terminate, &mut interrupt) => {
            tracing::info!(signal = name, "stopped before the start was done");
            return Ok(());
        }
    };
    let name = stop_signal(&mut terminate, &mut interrupt).await;
    tracing::info!(signal = name, "stopping: leaders are handed over");
    tokio::select! {
        () = node.shutdown() => {
            tracing::info!("stopped");
            Ok(())
        }
        name = stop_signal(&mut terminate, &mut interrupt) => {
            tracing::warn!(signal = name, "stopped at once by a second signal");
            Err(Failure::failed("stopped at once by a second signal"))
        }
        () = tokio::time::sleep(limit) => {
            Err(Failure::failed(format!("did not stop within {limit:?}")).advise("see the log for what held it"))
        }
    }
}

async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
