//! The command line: global options and the list of verbs. Each verb's own arguments are in its file.

use crate::command;
use clap::{Parser, Subcommand, ValueEnum};
use std::time::Duration;

/// Holdfast keeps the state of stateful services on a few active controllers.
#[derive(Parser, Debug)]
#[command(
    name = "holdfast",
    version,
    propagate_version = true,
    disable_help_subcommand = true
)]
#[command(after_help = "\
Examples:
  holdfast dev                                  a cluster of three controllers on this machine
  holdfast status                               how the cluster is
  holdfast --endpoints 10.0.0.1:2379 nodes list -o json
  ETCDCTL_API=3 etcdctl put greeting hello      keys are spoken to with any etcd client

Exit status: 0 done; 1 not done; 2 wrong arguments or configuration; 3 nobody could be asked, or it is not known
whether it was done.")]
pub struct Args {
    /// Options that every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options that every verb takes.
#[derive(clap::Args, Debug, Clone)]
pub struct Global {
    /// Controllers to ask, as host:port; the first that answers is taken.
    #[arg(
        long,
        global = true,
        env = "HOLDFAST_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379",
        value_name = "HOST:PORT,..."
    )]
    pub endpoints: Vec<String>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Longest to wait for an answer: 500ms, 10s, 2m.
    #[arg(long, global = true, default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: stable names in snake_case.
    Json,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run one controller
    Serve(Box<command::serve::Args>),
    /// Make a data directory the first of a new cluster
    Init(command::init::Args),
    /// Run a whole cluster on this machine
    Dev(command::dev::Args),
    /// Check a configuration, or print the default one
    Config(command::config::Args),
    /// Show the cluster at a glance
    Status(command::status::Args),
    /// Show and change the cluster's controllers
    Nodes(command::nodes::Args),
    /// Show partitions, move their leaders and replicas
    Partitions(command::partitions::Args),
    /// Show, create and configure namespaces
    Namespaces(command::namespaces::Args),
    /// Print a script that completes commands in a shell
    Completions(command::completions::Args),
}

/// Parses `500ms`, `10s`, `2m`, `1h`; a plain number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a duration such as 500ms, 10s or 2m"))?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1.0,
        "" | "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        other => return Err(format!("{other:?} is not a unit of time: use ms, s, m or h")),
    };
    let millis = number * unit_ms;
    if !(0.0..=86_400_000.0 * 365.0).contains(&millis) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok(Duration::from_millis(millis.round() as u64))
}

/// Parses `1048576`, `64KiB`, `512MiB`, `8GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is not a size such as 64MiB or 8GiB"))?;
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        other => {
            return Err(format!(
                "{other:?} is not a unit of size: use KiB, MiB, GiB or TiB"
            ));
        }
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("{text:?} is out of range"))
}

#[cfg(test)]
mod tests;
