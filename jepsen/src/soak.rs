//! A long time under chaos, in slices: each a run of its own, with a new cluster and the next seed, so that histories stay
//! short enough to judge and a failure is found where it happened.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::options::{Options, duration};

/// Faults wanted in an hour.
const FAULTS: f64 = 300.0;
/// Operations wanted in an hour.
const OPERATIONS: f64 = 500_000.0;
const HOUR_S: f64 = 3600.0;

/// Many runs.
#[derive(Debug, Clone, Args)]
pub struct Soak {
    /// How long one of them lasts.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub slice: Duration,
    /// What each does; --time is for all together.
    #[command(flatten)]
    pub run: Options,
}

#[derive(Default)]
struct Sum {
    seconds: f64,
    answered: u64,
    faults: u64,
    worst: u8,
    failed: Vec<String>,
    kinds: BTreeMap<String, u64>,
}

/// Runs them; the exit status is the worst of theirs, or 2 if all together did too little.
pub fn soak(soak: &Soak, first_seed: u64) -> Result<u8> {
    ensure!(!soak.slice.is_zero(), "--slice must be some time");
    let slices = soak.run.time.as_secs().div_ceil(soak.slice.as_secs()).max(1);
    let mut sum = Sum::default();
    for slice in 0..slices {
        let seed = first_seed + slice;
        eprintln!("jepsen: slice {} of {slices}, seed {seed}", slice + 1);
        let (status, report) = one(soak, seed)?;
        sum.add(seed, status, &report);
        eprintln!("jepsen: {}", sum.text());
    }
    let hours = sum.seconds / HOUR_S;
    let too_little = (sum.faults as f64) < FAULTS * hours || (sum.answered as f64) < OPERATIONS * hours;
    println!("{}", sum.text());
    for line in &sum.failed {
        println!("  {line}");
    }
    if too_little {
        println!("  too little: {FAULTS} faults and {OPERATIONS} operations an hour are wanted");
    }
    Ok(match sum.worst {
        0 if too_little => 2,
        worst => worst,
    })
}

fn one(soak: &Soak, seed: u64) -> Result<(u8, Value)> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let words = soak.run.words(soak.slice, seed);
    let said = Command::new(program)
        .arg("run")
        .args(&words)
        .args(["-o", "json"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run a slice")?;
    let status = said
        .status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(3);
    Ok((status, serde_json::from_slice(&said.stdout).unwrap_or_default()))
}

impl Sum {
    fn add(&mut self, seed: u64, status: u8, report: &Value) {
        self.seconds += report["seconds"].as_f64().unwrap_or_default();
        self.answered += report["ok"].as_u64().unwrap_or_default();
        self.faults += report["faults"].as_u64().unwrap_or_default();
        for (kind, count) in report["by_kind"].as_object().into_iter().flatten() {
            *self.kinds.entry(kind.clone()).or_default() += count["begun"].as_u64().unwrap_or_default();
        }
        // A broken promise weighs most, then a harness that failed, then too little.
        let weight = |status: u8| [0, 3, 1, 2][usize::from(status.min(3))];
        if weight(status) > weight(self.worst) {
            self.worst = status;
        }
        if status != 0 {
            let reason = report["reasons"][0].as_str().unwrap_or("no report");
            let again = report["again"].as_str().unwrap_or_default();
            let short: String = reason.chars().take(300).collect();
            self.failed
                .push(format!("seed {seed}: status {status}: {short}; again: {again}"));
        }
    }

    fn text(&self) -> String {
        format!(
            "{:.0} s of work, {} operations answered ({:.0}/s), {} faults {:?}, {} slices failed",
            self.seconds,
            self.answered,
            self.answered as f64 / self.seconds.max(0.001),
            self.faults,
            self.kinds,
            self.failed.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_slice_decides() {
        for (statuses, worst) in [(&[0, 2, 3][..], 3), (&[3, 1, 0], 1), (&[0, 0], 0), (&[2, 0], 2)] {
            let mut sum = Sum::default();
            for status in statuses {
                let report = serde_json::json!({ "seconds": 10.0, "ok": 100, "faults": 2, "by_kind": { "kill": { "begun": 2 } } });
                sum.add(1, *status, &report);
            }
            assert_eq!(sum.worst, worst, "{statuses:?}");
            assert_eq!(sum.kinds["kill"], 2 * statuses.len() as u64);
        }
    }
}
