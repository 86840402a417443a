//! The `holdfast` binary: parses arguments, runs one verb, and turns its outcome into an exit status.

mod args;
mod command;
mod config;
mod dev;
mod failure;
mod logging;
mod output;
mod process;
mod progress;

/// Requests allocate and free pieces of some kilobytes, which the system's allocator serves from its slow path. Few
/// arenas, and freed memory given back soon, keep the process small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[expect(
    unsafe_code,
    reason = "the allocator reads its settings from a symbol of this name"
)]
#[unsafe(export_name = "malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 47] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match command::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
