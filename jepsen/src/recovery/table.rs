//! What all rounds come to: a row for each fault and each side of it, and the goals that were missed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use workload::numbers::Numbers;

use super::fault::{Fault, Goal};
use super::round::Sample;
use crate::spread;

/// Kinds of failures that are printed of each row.
const PRINTED: usize = 3;
/// Letters of each.
const LETTERS: usize = 160;

/// Some percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them are no longer.
    pub p50_ms: f64,
    /// All but one in a hundred.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// Pauses of partitions on one side of one fault.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The fault.
    pub fault: Fault,
    /// They were led where it struck.
    pub led: bool,
    /// Rounds in which there were some.
    pub rounds: usize,
    /// How many pauses there are.
    pub samples: usize,
    /// From the strike on.
    pub pause: Spread,
    /// Between which bounds the median lies in 95 of 100 cases.
    pub p50_between_ms: Option<(f64, f64)>,
    /// And that of the 99th percentile.
    pub p99_between_ms: Option<(f64, f64)>,
    /// Before the strike.
    pub usual: Spread,
    /// From the mending on.
    pub mending: Spread,
    /// Partitions to which writes did not come back before the mending.
    pub lost: usize,
    /// Requests that failed, by what was said.
    pub failed: BTreeMap<String, u64>,
    /// Goals that were missed.
    pub missed: Vec<String>,
    /// Goals that would be missed, were the usual gaps not as long.
    pub unclear: Vec<String>,
}

/// The rows of these samples.
pub fn rows(samples: &[Sample], numbers: &mut Numbers) -> Vec<Row> {
    let sides: BTreeSet<(Fault, bool)> = samples.iter().map(|it| (it.fault, !it.led)).collect();
    let of = |(fault, other): (Fault, bool)| {
        let side: Vec<&Sample> = samples
            .iter()
            .filter(|it| it.fault == fault && it.led != other)
            .collect();
        row(fault, !other, &side, numbers)
    };
    sides.into_iter().map(of).collect()
}

fn row(fault: Fault, led: bool, samples: &[&Sample], numbers: &mut Numbers) -> Row {
    let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    for sample in samples {
        rounds.entry(sample.round).or_default().push(sample.pause_ms);
        for failure in &sample.failed {
            *failed.entry(failure.text.clone()).or_default() += 1;
        }
    }
    let rounds: Vec<Vec<f64>> = rounds.into_values().collect();
    let mut row = Row {
        fault,
        led,
        rounds: rounds.len(),
        samples: samples.len(),
        pause: spread(samples, |it| it.pause_ms),
        p50_between_ms: spread::bounds(&rounds, 50, numbers),
        p99_between_ms: spread::bounds(&rounds, 99, numbers),
        usual: spread(samples, |it| it.usual_ms),
        mending: spread(samples, |it| it.mending_ms),
        lost: samples.iter().filter(|it| !it.recovered).count(),
        failed,
        missed: Vec::new(),
        unclear: Vec::new(),
    };
    (row.missed, row.unclear) = judge(&row, fault.goal());
    row
}

fn spread(samples: &[&Sample], of: fn(&Sample) -> f64) -> Spread {
    let mut sorted: Vec<f64> = samples.iter().map(|it| of(it)).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |part| spread::percentile(&sorted, part).unwrap_or_default();
    Spread {
        p50_ms: at(50),
        p99_ms: at(99),
        max_ms: at(100),
    }
}

/// Goals that were missed, and those of which nothing can be said: gaps without any fault are above the goal already, and
/// what the fault adds to them is not.
fn judge(row: &Row, goal: Goal) -> (Vec<String>, Vec<String>) {
    let (mut missed, mut unclear) = (Vec::new(), Vec::new());
    for (name, found, usual, wanted) in [
        ("p50", row.pause.p50_ms, row.usual.p50_ms, goal.p50_ms),
        ("p99", row.pause.p99_ms, row.usual.p99_ms, goal.p99_ms),
        ("longest", row.pause.max_ms, row.usual.max_ms, goal.max_ms),
    ] {
        let Some(wanted) = wanted.filter(|wanted| found > *wanted) else {
            continue;
        };
        let text = format!("{name} {found:.0} ms, at most {wanted:.0}");
        match usual > wanted && found <= usual + wanted {
            true => unclear.push(format!("{text}, usual {usual:.0}")),
            false => missed.push(text),
        }
    }
    let failures = row.failures();
    if goal.failed.is_some_and(|most| failures > most) {
        missed.push(format!("{failures} requests failed"));
    }
    (missed, unclear)
}

impl Row {
    /// Requests that failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// Whose pauses they are.
    pub fn side(&self) -> &'static str {
        match self.led {
            true => "led there",
            false => "others",
        }
    }
}

/// For people.
pub fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "  {:<8} {:<9} {:>6} {:>6}  {:<22} {:<22} {:>6} {:>6}  {:<11} {:>7}  goal\n",
        "fault",
        "partition",
        "rounds",
        "pauses",
        "p50 ms (95 in 100)",
        "p99 ms (95 in 100)",
        "max ms",
        "usual",
        "mending max",
        "failed"
    );
    for row in rows {
        let between = |value: f64, bounds: Option<(f64, f64)>| match bounds {
            Some((low, high)) => format!("{value:.0} ({low:.0} to {high:.0})"),
            None => format!("{value:.0}"),
        };
        let goal = match (row.missed.is_empty(), row.unclear.is_empty()) {
            (false, _) => format!("MISSED: {}", row.missed.join("; ")),
            (true, false) => format!("unclear: {}", row.unclear.join("; ")),
            (true, true) if row.fault.goal() == Goal::default() => "none".to_owned(),
            (true, true) => "met".to_owned(),
        };
        let _ = writeln!(
            text,
            "  {:<8} {:<9} {:>6} {:>6}  {:<22} {:<22} {:>6.0} {:>6.0}  {:>11.0} {:>7}  {goal}",
            row.fault.name(),
            row.side(),
            row.rounds,
            row.samples,
            between(row.pause.p50_ms, row.p50_between_ms),
            between(row.pause.p99_ms, row.p99_between_ms),
            row.pause.max_ms,
            row.usual.max_ms,
            row.mending.max_ms,
            row.failures(),
        );
    }
    for row in rows {
        let mut failed: Vec<(&String, &u64)> = row.failed.iter().collect();
        failed.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (what, count) in failed.into_iter().take(PRINTED) {
            let short: String = what.chars().take(LETTERS).collect();
            let _ = writeln!(text, "  {} {}: {count} x {short}", row.fault.name(), row.side());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::round::Failure;

    fn sample(fault: Fault, round: u32, led: bool, pause_ms: f64) -> Sample {
        Sample {
            fault,
            round,
            partition: 1,
            led,
            pause_ms,
            pause_after_ms: 5.0,
            usual_ms: 10.0,
            mending_ms: 20.0,
            recovered: true,
            failed: Vec::new(),
        }
    }

    fn failure(text: &str) -> Failure {
        Failure {
            after_ms: 30.0,
            text: text.into(),
        }
    }

    fn check(samples: &[Sample], wanted: &[(&str, &str, usize)]) {
        let rows = rows(samples, &mut Numbers::of(1, "rows"));
        let found: Vec<(String, &str, usize)> = rows
            .iter()
            .map(|row| (row.fault.name(), row.side(), row.missed.len()))
            .collect();
        let wanted: Vec<(String, &str, usize)> = wanted
            .iter()
            .map(|(fault, side, missed)| ((*fault).to_owned(), *side, *missed))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn goals_are_of_the_fault_and_hold_for_both_sides() {
        let pauses = |fault, led, ms: &[f64]| -> Vec<Sample> {
            let samples = ms.iter().enumerate();
            samples
                .map(|(round, ms)| sample(fault, round as u32, led, *ms))
                .collect()
        };
        check(
            &pauses(Fault::Kill, true, &[80.0, 90.0, 500.0]),
            &[("kill", "led there", 0)],
        );
        check(
            &pauses(Fault::Kill, true, &[80.0, 90.0, 501.0]),
            &[("kill", "led there", 1)],
        );
        check(
            &pauses(Fault::Kill, true, &[80.0, 151.0, 501.0]),
            &[("kill", "led there", 2)],
        );
        check(&pauses(Fault::Cut, true, &[3999.0]), &[("cut", "led there", 0)]);
        check(
            &pauses(Fault::Pause, true, &[9000.0]),
            &[("pause", "led there", 0)],
        );
        let mut both = pauses(Fault::Move, false, &[101.0]);
        both.extend(pauses(Fault::Move, true, &[50.0]));
        check(&both, &[("move", "led there", 0), ("move", "others", 1)]);
        both[1].failed.push(failure("busy"));
        check(&both, &[("move", "led there", 1), ("move", "others", 1)]);
        both.truncate(1);
        both[0].usual_ms = 101.0;
        check(&both, &[("move", "others", 0)]);
        // Too long for that.
        both[0].pause_ms = 202.0;
        check(&both, &[("move", "others", 1)]);
    }

    #[test]
    fn people_are_told_the_figures_and_what_was_missed() {
        let mut samples: Vec<Sample> = (0..6)
            .map(|round| sample(Fault::Restart, round, true, 40.0 + f64::from(round) * 20.0))
            .collect();
        samples[0].failed.push(failure("the leader changed"));
        let text = text(&rows(&samples, &mut Numbers::of(1, "rows")));
        for wanted in [
            "80 (",
            "max",
            "MISSED: longest 140 ms, at most 100; 1 requests failed",
            "1 x the leader changed",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }
}
