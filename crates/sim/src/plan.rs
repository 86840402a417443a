//! Everything that a seed decides: the cluster, its disks and links, the faults, the load.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use server::config::RaftConfig;

use workload::numbers::Numbers;

/// How long a sync takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncDelay {
    /// Most of them, in milliseconds.
    pub usual_ms: (u64, u64),
    /// One in so many is slow.
    pub slow_once_in: u64,
    /// How long that takes, in milliseconds.
    pub slow_ms: (u64, u64),
}

impl SyncDelay {
    /// For the next sync, in milliseconds.
    pub fn pick(&self, numbers: &mut Numbers) -> u64 {
        let (low, high) = match numbers.once_in(self.slow_once_in) {
            true => self.slow_ms,
            false => self.usual_ms,
        };
        numbers.between(low, high)
    }
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it follows from.
    pub seed: u64,
    /// Controllers.
    pub nodes: u64,
    /// Partitions beside the meta partition.
    pub partitions: u32,
    /// Delay of a message, in milliseconds.
    pub latency_ms: (u64, u64),
    /// How long a step is, in milliseconds: what nodes say to each other takes effect at its end. Longer ones are cheaper.
    pub step_ms: u64,
    /// Of all disks.
    pub sync_delay: SyncDelay,
    /// Of elections.
    pub timing: RaftConfig,
    /// How long faults come, in milliseconds.
    pub safety_ms: u64,
    /// Between two faults, in milliseconds.
    pub gap_ms: (u64, u64),
    /// Clients of each workload.
    pub clients: u64,
    /// How many times longer than usual they rest between two operations.
    pub leisure: u64,
    /// What clients do.
    pub workloads: Vec<String>,
    /// Whether nothing is done to it: then no request may be left without an answer, though leaders and replicas move.
    pub calm: bool,
    /// Kinds of faults that are brought over it.
    pub faults: Vec<String>,
}

impl Plan {
    /// The run of a seed, with some of `faults`.
    pub fn of(seed: u64, faults: &[&str]) -> Plan {
        let mut numbers = Numbers::of(seed, "plan");
        let nodes = *numbers.pick(&[1, 3, 3, 3, 3, 3, 5, 5]);
        let partitions = *numbers.pick(&[1, 1, 2, 3, 4, 8, 16]);
        let latency_ms = *numbers.pick(&[(0, 1), (1, 3), (1, 10), (2, 40)]);
        let heartbeat_ms = *numbers.pick(&[100, 300]);
        let min = heartbeat_ms * 4;
        // Few: states are sent whole to whoever was away for a while.
        let log_entries = *numbers.pick(&[10, 50, 300, 50_000]);
        let calm = numbers.once_in(8);
        Plan {
            seed,
            nodes,
            partitions,
            latency_ms,
            step_ms: *numbers.pick(&[1, 1, 4]),
            sync_delay: SyncDelay {
                usual_ms: *numbers.pick(&[(0, 1), (0, 5), (2, 12)]),
                slow_once_in: *numbers.pick(&[20, 100, 1000]),
                slow_ms: *numbers.pick(&[(10, 50), (50, 300)]),
            },
            timing: RaftConfig {
                heartbeat_ms,
                election_min_ms: min,
                election_max_ms: min + min / 2,
                log_entries,
                log_entries_kept: *numbers.pick(&[0, 1, log_entries / 2]),
                ..RaftConfig::default()
            },
            safety_ms: 60_000,
            gap_ms: *numbers.pick(&[(200, 2000), (1000, 6000), (3000, 15_000)]),
            clients: *numbers.pick(&[2, 3, 5, 8]),
            leisure: *numbers.pick(&[1, 5, 20]),
            workloads: some_workloads(&mut numbers),
            calm,
            faults: match calm {
                true => Vec::new(),
                false => some_faults(seed, faults),
            },
        }
    }

    /// A plan that was kept.
    pub fn read(path: &Path) -> anyhow::Result<Plan> {
        let what = || path.display().to_string();
        let text = std::fs::read(path).with_context(what)?;
        serde_json::from_slice(&text).with_context(what)
    }

    /// Refuses what nobody knows: a run without the fault that it is about would show nothing.
    pub fn check(&self, faults: &[&str]) -> Result<(), String> {
        let known = |what: &str, names: &[String], known: &[&str]| match names
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            Some(name) => Err(format!(
                "there is no {what} {name:?}; there are: {}",
                known.join(", ")
            )),
            None => Ok(()),
        };
        known("fault", &self.faults, faults)?;
        known("workload", &self.workloads, workload::NAMES)
    }

    /// The same, but for what clients do and what is done to the cluster, where any is named.
    pub fn only(mut self, workloads: &[String], faults: &[String]) -> Plan {
        if !workloads.is_empty() {
            self.workloads = workloads.to_vec();
        }
        if !faults.is_empty() {
            self.faults = faults.to_vec();
            self.calm = false;
        }
        self
    }
}

/// A few, seldom all, so that they meet in all combinations over the seeds.
fn some_faults(seed: u64, names: &[&str]) -> Vec<String> {
    let mut numbers = Numbers::of(seed, "kinds of faults");
    let all = numbers.once_in(4);
    let some = names.iter().filter(|_| all || numbers.once_in(2));
    some.map(|name| (*name).to_owned()).collect()
}

/// One to three of them, seldom all: many seeds with little load go further than few with much.
fn some_workloads(numbers: &mut Numbers) -> Vec<String> {
    let mut names: Vec<String> = workload::NAMES.iter().map(|name| (*name).to_owned()).collect();
    if numbers.once_in(10) {
        return names;
    }
    let wanted = numbers.between(1, 3) as usize;
    while names.len() > wanted {
        names.remove(numbers.below(names.len() as u64) as usize);
    }
    names
}
