//! `holdfast config`: check a configuration, print the default one.

use crate::config::{Overrides, load};
use crate::failure::{Failure, Result};
use crate::output::Output;
use clap::Subcommand;
use serde::Serialize;
use server::config::Config;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast config default > /etc/holdfast.toml
  holdfast config check --config /etc/holdfast.toml")]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Name every fault of a configuration, as `serve` would read it with the same flags
    #[command(after_help = "\
Examples:
  holdfast config check --config /etc/holdfast.toml
  holdfast config check --config /etc/holdfast.toml --set raft.heartbeat_ms=100")]
    Check(Box<Check>),
    /// Print every key with its default
    #[command(after_help = "\
Examples:
  holdfast config default > /etc/holdfast.toml")]
    Default,
}

/// What to check.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// The file.
    #[arg(long, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
    warnings: Vec<String>,
}

/// Does it.
pub fn run(args: Args, output: &Output) -> Result {
    match args.verb {
        Verb::Default => {
            let config = Config::default();
            output.show(&config, |_| commented(&config.to_toml()))
        }
        Verb::Check(args) => {
            let config = load(args.config.as_deref(), &args.overrides)?;
            let checked = Checked {
                valid: true,
                warnings: warnings(&config),
            };
            output.show(&checked, |_| {
                let mut text = "the configuration is valid".to_owned();
                for warning in &checked.warnings {
                    text.push_str(&format!("\nwarning: {warning}"));
                }
                text
            })
        }
    }
}

/// What is allowed and still worth a word, as this machine is now.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let shared = [
        ("listen.peer", &config.listen.peer),
        ("listen.client", &config.listen.client),
    ];
    let joins_others = config
        .cluster
        .join
        .iter()
        .any(|address| !address.starts_with("127.") && !address.starts_with("localhost"));
    for (key, address) in shared {
        if joins_others && (address.starts_with("127.") || address.starts_with("localhost")) {
            warnings.push(format!(
                "{key} = {address} cannot be reached from the hosts that cluster.join names"
            ));
        }
    }
    if config.raft.election_min_ms < 500 {
        warnings.push(
            "raft.election_min_ms below 500 deposes leaders when a host is slow for a moment".to_owned(),
        );
    }
    if let Some(parent) = existing(&config.node.data_dir)
        && let Err(error) = writable(parent)
    {
        warnings.push(format!("node.data_dir: {error}"));
    }
    warnings
}

fn existing(path: &Path) -> Option<&Path> {
    path.ancestors()
        .find(|ancestor| !ancestor.as_os_str().is_empty() && ancestor.exists())
}

fn writable(path: &Path) -> Result {
    let read_only = std::fs::metadata(path).map(|meta| meta.permissions().readonly());
    match read_only {
        Ok(false) => Ok(()),
        Ok(true) => Err(Failure::failed(format!("{} cannot be written", path.display()))),
        Err(error) => Err(Failure::failed(format!("{}: {error}", path.display()))),
    }
}

/// What each key is for, above its line.
const COMMENTS: &[(&str, &str)] = &[
    ("[node]", "This controller."),
    ("name", "Shown to people. Empty: node-<id>."),
    (
        "data_dir",
        "Everything that lasts. Put it on the disk with the fastest fsync.",
    ),
    (
        "worker_threads",
        "1 is fastest on few cores; more helps above four.",
    ),
    ("[listen]", "host:port to bind. For 0.0.0.0 set [advertise] too."),
    ("client", "etcd v3 and holdfast.v1 gRPC."),
    ("peer", "Other controllers. Keep it away from clients."),
    ("http", "/metrics, /livez, /readyz."),
    (
        "[advertise]",
        "host:port told to others: client, peer, http. Default: as in [listen].",
    ),
    (
        "[cluster]",
        "Which cluster this node belongs to. expect_id = \"<hex>\" refuses any other.",
    ),
    ("join", "Peer addresses to ask for admission at the first start."),
    (
        "[raft]",
        "Elections, in milliseconds: shorter finds a dead leader sooner, and costs idle load and false alarms. \
         How much log is kept.",
    ),
    ("heartbeat_ms", "Between heartbeats of a leader."),
    (
        "election_min_ms",
        "Shortest silence before an election; at least three heartbeats.",
    ),
    ("election_max_ms", "Longest silence before an election."),
    (
        "log_entries",
        "Applied entries of a replica after which its log is cut.",
    ),
    ("log_bytes", "Bytes of a replica's log after which it is cut."),
    (
        "log_entries_kept",
        "Applied entries left in a log that is cut, for replicas that lag a little.",
    ),
    (
        "[limits]",
        "Bounds; a bound that is hit gives an error that names it.",
    ),
    (
        "request_timeout_ms",
        "How long a request waits for a leader and its answer.",
    ),
    (
        "partition_queue",
        "Writes of one partition in flight on this node before new ones are refused.",
    ),
    (
        "disk_reserve_bytes",
        "Free bytes on the data disk below which writes are refused.",
    ),
    (
        "streams_per_connection",
        "Concurrent requests of one client connection.",
    ),
    (
        "watch_progress_ms",
        "Between notices of progress on quiet watches that ask for them.",
    ),
    (
        "compare_replicas_ms",
        "Between comparisons of the state hashes of a partition's replicas.",
    ),
    (
        "drain_timeout_ms",
        "How long a shutdown waits for leaders to move and requests to finish.",
    ),
    ("[storage]", "Memory of the stores, in bytes."),
    ("cache_bytes", "Cache of state blocks, write buffers counted."),
    ("write_buffers_bytes", "Write buffers of all partitions."),
    ("[log]", "Logging, to stderr."),
    ("level", "error, warn, info, debug, trace, or filter directives."),
    (
        "format",
        "auto (pretty on a terminal, JSON else), pretty or json.",
    ),
];

fn commented(toml: &str) -> String {
    let mut text = String::from(
        "# Holdfast: one controller. Every key with its default; HOLDFAST_* and flags override it.\n",
    );
    for line in toml.lines() {
        let key = line.split(" =").next().unwrap_or(line);
        if let Some((_, comment)) = COMMENTS.iter().find(|(name, _)| *name == key) {
            text.push_str(&format!("# {comment}\n"));
        }
        text.push_str(line);
        text.push('\n');
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_default_is_the_default_and_every_key_is_explained() {
        let text = commented(&Config::default().to_toml());
        assert_eq!(Config::parse(&text).expect("parses"), Config::default());
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            let explained = pair[1].is_empty() || pair[1].starts_with('#') || pair[0].starts_with('#');
            assert!(explained, "{} has no comment", pair[1]);
        }
    }
}
