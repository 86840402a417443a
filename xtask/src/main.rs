//! Repository automation. `cargo run --release -p xtask -- tidy` checks what neither rustc nor clippy can:
//! the crate layers, the sizes of files and functions, the words, and what must not be in the tree.
//!
//! Must never edit anything: it reports, and a person (or `make fix`) changes.

mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Repository automation.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the layout and the house style; prints each fault with file, line and what to do instead.
    Tidy,
    /// Print the layer table: each crate and what it may depend on.
    Layers,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().task {
        Task::Tidy => tidy::run(&root()?),
        Task::Layers => {
            tidy::layers::print();
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The root of the repository: the folder above this crate's. Cargo says where that is, and not the compiler: checkouts
/// that share a target folder share this program too.
fn root() -> anyhow::Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").context("run this by `cargo run -p xtask`")?;
    let here = PathBuf::from(here);
    Ok(here.parent().context("xtask has no parent folder")?.to_path_buf())
}
