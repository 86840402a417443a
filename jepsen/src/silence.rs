//! How long nothing was answered after a fault began, from the last answer before it: what clients feel of an election.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::spread;
use crate::torment::Fault;

/// What follows a fault within this time is put down to it.
const AFTER_MS: u64 = 2000;
/// No other fault may last so long before it: what one does should not be counted for another.
const BEFORE_MS: u64 = 1500;
/// Answers a second from which on silence says something.
const BUSY: f64 = 15.0;
const NS_IN_MS: u64 = 1_000_000;

/// Silences after faults of one kind, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// Faults that stood alone.
    pub faults: usize,
    /// Half of them silenced the workload that suffered most for no longer than this.
    pub p50_ms: u64,
    /// All but one in a hundred.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// When a workload's operations were answered, in nanoseconds, in order. Reads that ask nobody are left out.
pub fn answers(history: &str) -> Vec<u64> {
    let answered = history.lines().filter_map(|line| {
        let operation: Value = serde_json::from_str(line).ok()?;
        operation["outcome"].get("ok")?;
        let asks_nobody = operation["ask"]["range"]["serializable"] == true;
        (!asks_nobody).then(|| operation["return_ns"].as_u64())?
    });
    let mut times: Vec<u64> = answered.collect();
    times.sort_unstable();
    times
}

/// The silences after each kind of fault, of faults that struck one node and met no other.
pub fn after(faults: &[Fault], workloads: &[Vec<u64>]) -> BTreeMap<String, Silence> {
    let busy: Vec<&Vec<u64>> = workloads.iter().filter(|times| is_busy(times)).collect();
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (at, fault) in faults.iter().enumerate() {
        let (from, to) = (fault.from_ms.saturating_sub(BEFORE_MS), fault.from_ms + AFTER_MS);
        let alone = |(other, it): (usize, &Fault)| other == at || it.to_ms < from || it.from_ms > to;
        if busy.is_empty() || !of_one_node(&fault.text) || !faults.iter().enumerate().all(alone) {
            continue;
        }
        let worst = busy.iter().map(|times| longest(times, fault.from_ms)).max();
        found.entry(fault.kind.clone()).or_default().extend(worst);
    }
    found
        .into_iter()
        .map(|(kind, silences)| (kind, sum(silences)))
        .collect()
}

fn of_one_node(text: &str) -> bool {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.is_some_and(|(nodes, _)| !nodes.contains(','))
}

fn is_busy(times: &[u64]) -> bool {
    match (times.first(), times.last()) {
        (Some(first), Some(last)) if last > first => times.len() as f64 * 1e9 / (last - first) as f64 > BUSY,
        _ => false,
    }
}

fn longest(times: &[u64], from_ms: u64) -> u64 {
    let (from, to) = (from_ms * NS_IN_MS, (from_ms + AFTER_MS) * NS_IN_MS);
    spread::longest(times, from, to).length / NS_IN_MS
}

fn sum(mut silences: Vec<u64>) -> Silence {
    silences.sort_unstable();
    let of = |part| spread::percentile(&silences, part).unwrap_or_default();
    Silence {
        faults: silences.len(),
        p50_ms: of(50),
        p99_ms: of(99),
        max_ms: of(100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_after_a_fault_that_stood_alone() {
        let fault = |from_ms, text: &str| Fault {
            from_ms,
            to_ms: from_ms + 500,
            kind: "kill".into(),
            text: text.into(),
            seen: None,
        };
        // An answer each 10 ms, but none from 1000 to 1150 and from 8000 to 9000.
        let silent = |ms: &u64| (1000..1150).contains(ms) || (8000..9000).contains(ms);
        let times: Vec<u64> = (0..2000)
            .map(|at| at * 10)
            .filter(|ms| !silent(ms))
            .map(|ms| ms * NS_IN_MS)
            .collect();
        let alone = [fault(1000, "kill [2]"), fault(5000, "kill [1, 2]")];
        let found = after(&alone, std::slice::from_ref(&times));
        let wanted = Silence {
            faults: 1,
            p50_ms: 160,
            p99_ms: 160,
            max_ms: 160,
        };
        assert_eq!(found["kill"], wanted);
        let met = [fault(1000, "kill [2]"), fault(2000, "kill [1]")];
        assert!(after(&met, &[times]).is_empty());
    }

    #[test]
    fn answers_are_those_that_somebody_gave() {
        let history = r#"{"format":1}
{"return_ns":7,"ask":"read","outcome":{"ok":1}}
{"return_ns":5,"ask":"read","outcome":{"ok":1}}
{"return_ns":6,"ask":"read","outcome":{"unknown":"late"}}
{"return_ns":4,"ask":{"range":{"serializable":true}},"outcome":{"ok":1}}"#;
        assert_eq!(answers(history), [5, 7]);
    }
}
