//! What every kind of run stands on: how many controllers, of which program, and where results go.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use env::{Rng, SeededRng};

use crate::options::duration;
use crate::store::Store;
use crate::system;

/// How to print the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The ground of a run.
#[derive(Debug, Clone, Args)]
pub struct Ground {
    /// Controllers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// What everything draws from. Default: another one each time.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Bytes of each node's disk.
    #[arg(long, default_value_t = 1 << 30)]
    pub disk_bytes: u64,
    /// How long the cluster may take to come to order once everything is mended.
    #[arg(long, default_value = "120s", value_parser = duration)]
    pub patience: Duration,
    /// Where results go, each run into a folder of its own.
    #[arg(long, default_value = "jepsen/store")]
    pub store: PathBuf,
    /// The program under test. Default: the one beside this program.
    #[arg(long, env = "HOLDFAST_BIN")]
    pub binary: Option<PathBuf>,
    /// How to print the summary.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub output: Format,
}

impl Ground {
    /// The seed that was asked for, or any.
    pub fn seed(&self) -> u64 {
        self.seed
            .unwrap_or_else(|| SeededRng::from_system().between(1, 1_000_000))
    }

    /// The program under test.
    pub fn binary(&self) -> Result<PathBuf> {
        let beside = || std::env::current_exe().map(|me| me.with_file_name("holdfast"));
        let named = self.binary.clone().map_or_else(beside, Ok)?;
        ensure!(
            named.exists(),
            "{} is missing: make build, or --binary",
            named.display()
        );
        named.canonicalize().context("cannot find the program under test")
    }

    /// A folder for a run, with the command that does it again.
    pub fn store(&self, seed: u64, again: &str) -> Result<Store> {
        let date = system::run("date", &["+%Y%m%dT%H%M%S"])?;
        let store = Store::new(&self.store, &format!("{}-{seed}", date.trim()))?;
        store.write("plan.txt", &format!("{again}\n"))?;
        eprintln!("jepsen: seed {seed}, results in {}", store.dir().display());
        Ok(store)
    }

    /// These options as words of a command, with a seed.
    pub fn words(&self, seed: u64) -> Vec<String> {
        let mut words = Vec::new();
        let mut say = |name: &str, value: String| {
            words.push(format!("--{name}"));
            words.push(value);
        };
        say("seed", seed.to_string());
        say("nodes", self.nodes.to_string());
        say("disk-bytes", self.disk_bytes.to_string());
        say("patience", format!("{}s", self.patience.as_secs()));
        say("store", self.store.display().to_string());
        if let Some(binary) = &self.binary {
            say("binary", binary.display().to_string());
        }
        words
    }
}
