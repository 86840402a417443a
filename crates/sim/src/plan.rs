//! Everything that a seed decides: the cluster, its disks and links, the faults, the load.

use server::config::RaftConfig;

use workload::numbers::Numbers;

/// How long a sync takes.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone)]
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
    /// What is done to it, if that is not left to the seed.
    pub faults: Option<Vec<String>>,
}

impl Plan {
    /// The run of a seed.
    pub fn of(seed: u64) -> Plan {
        let mut numbers = Numbers::of(seed, "plan");
        let nodes = *numbers.pick(&[1, 3, 3, 3, 3, 3, 5, 5]);
        let partitions = *numbers.pick(&[1, 1, 2, 3, 4, 8, 16]);
        let latency_ms = *numbers.pick(&[(0, 1), (1, 3), (1, 10), (2, 40)]);
        let heartbeat_ms = *numbers.pick(&[100, 300]);
        let min = heartbeat_ms * 4;
        // Few: states are sent whole to whoever was away for a while.
        let log_entries = *numbers.pick(&[10, 50, 300, 50_000]);
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
            calm: numbers.once_in(8),
            faults: None,
        }
    }

    /// The same, but for what clients do and what is done to the cluster, where any is named.
    pub fn only(mut self, workloads: &[String], faults: &[String]) -> Plan {
        if !workloads.is_empty() {
            self.workloads = workloads.to_vec();
        }
        if !faults.is_empty() {
            self.faults = Some(faults.to_vec());
            self.calm = false;
        }
        self
    }
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
