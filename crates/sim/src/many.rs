//! Many seeds, each in a process of its own: a library that keeps something for the whole process cannot carry it from
//! one run into the next.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::run::Report;

/// Seeds, without the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub from: u64,
    to: u64,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Range, String> {
        let wrong = || format!("{text:?} is not FROM..TO, as in 0..200");
        let (from, to) = text.split_once("..").ok_or_else(wrong)?;
        let (from, to) = (
            from.parse().map_err(|_| wrong())?,
            to.parse().map_err(|_| wrong())?,
        );
        if from >= to {
            return Err(format!("there is no seed in {text}"));
        }
        Ok(Range { from, to })
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Orders {
    /// Which.
    pub seeds: Range,
    /// Processes at a time.
    pub jobs: usize,
    /// Whether each is run twice and compared.
    pub twice: bool,
    /// Whether to end with the first that fails, and to call that a success.
    pub until_found: bool,
    /// After which no more are begun.
    pub within: Option<Duration>,
    /// Told to each process besides its seed.
    pub options: Vec<String>,
}

/// A line for whoever reads. If nobody does any more, the work is done all the same, and the status tells.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// How a process tells of its trace.
pub fn trace_line(seed: u64, lines: u64, hash: u64) -> String {
    format!("seed {seed}: trace of {lines} lines, {hash:016x}")
}

#[derive(Default)]
struct Sum {
    ran: u64,
    failed: Vec<u64>,
    simulated_ms: u64,
    operations: u64,
    unknown: u64,
    faults: BTreeMap<String, u64>,
}

/// Runs them, a line for each that fails, and a summary.
pub fn run(orders: &Orders) -> ExitCode {
    let begun = uptime();
    let elapsed = || uptime().saturating_sub(begun);
    let (next, sum) = (AtomicU64::new(orders.seeds.from), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..orders.jobs {
            scope.spawn(|| {
                let found = || {
                    orders.until_found
                        && !sum
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .failed
                            .is_empty()
                };
                while orders.within.is_none_or(|within| elapsed() < within) && !found() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= orders.seeds.to {
                        return;
                    }
                    let came = attempt(seed, orders);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.add(seed, came, &orders.options);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.print(elapsed());
    match sum.failed.is_empty() != orders.until_found && sum.ran > 0 {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Real time, which the clocks of this program do not tell: those are a run's.
fn uptime() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(0.0))
}

/// One seed, or why it failed.
fn attempt(seed: u64, orders: &Orders) -> Result<Report, String> {
    let first = process(seed, &orders.options)?;
    if orders.twice {
        let second = process(seed, &orders.options)?;
        if first.0 != second.0 {
            return Err(format!(
                "the same seed went two ways: {} and {}",
                first.0, second.0
            ));
        }
    }
    Ok(first.1)
}

fn process(seed: u64, options: &[String]) -> Result<(String, Report), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .arg("--seed")
        .arg(seed.to_string())
        .args(options)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    if !output.status.success() {
        let found = lines.next_back().unwrap_or("it said nothing");
        return Err(format!(
            "{} ({})",
            found.chars().take(600).collect::<String>(),
            output.status
        ));
    }
    let trace = lines.next().unwrap_or_default().to_owned();
    let report = lines.next().and_then(Report::parse);
    Ok((trace, report.ok_or("it told no result")?))
}

impl Sum {
    fn add(&mut self, seed: u64, came: Result<Report, String>, options: &[String]) {
        self.ran += 1;
        match came {
            Ok(report) => {
                self.simulated_ms += report.simulated_ms;
                self.operations += report.operations;
                self.unknown += report.unknown;
                for (name, count) in report.faults {
                    *self.faults.entry(name).or_default() += count;
                }
            }
            Err(why) => {
                self.failed.push(seed);
                tell(&format!("seed {seed}: {why}"));
                tell(&format!(
                    "  again: fuzz --seed {seed} {} --trace {seed}.trace",
                    options.join(" ")
                ));
            }
        }
    }

    fn print(&self, took: Duration) {
        tell(&format!(
            "{} seeds, {} failed {:?}; {:.2} simulated hours in {:.0} s; {} operations answered, {} of unknown fate",
            self.ran,
            self.failed.len(),
            self.failed,
            self.simulated_ms as f64 / 3_600_000.0,
            took.as_secs_f64(),
            self.operations,
            self.unknown,
        ));
        tell(&format!("faults: {:?}", self.faults));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_refused() {
        assert_eq!("3..5".parse(), Ok(Range { from: 3, to: 5 }));
        for wrong in ["3", "5..3", "a..b", "3..3"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }
}
