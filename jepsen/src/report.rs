//! What came of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::fabric::link;
use crate::silence::Silence;
use crate::store::Store;
use crate::torment::Count;
use crate::verdict::{self, Evidence, Judged, Verdict};

/// Reasons that are printed; all are kept.
const PRINTED: usize = 20;
/// Letters of a reason that are printed.
const LETTERS: usize = 400;

/// How long things took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Clients worked.
    pub worked: Duration,
    /// From the end of the faults until all was in order.
    pub order: Duration,
}

/// What was seen besides.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What the fabric did to packets.
    pub packets: link::Count,
    /// What clients felt of each kind of fault.
    pub silences: BTreeMap<String, Silence>,
}

/// The verdict, and all that it goes by.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Why, if it is no pass.
    pub reasons: Vec<String>,
    /// By workload.
    pub by_workload: BTreeMap<String, Judged>,
}

impl Judgement {
    /// Judges what is known.
    pub fn of(evidence: &Evidence) -> Judgement {
        let (verdict, reasons) = verdict::judge(evidence);
        Judgement {
            verdict,
            reasons,
            by_workload: evidence.workloads.clone(),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        self.workloads() + &self.why()
    }

    fn workloads(&self) -> String {
        let mut text = String::new();
        for (name, judged) in &self.by_workload {
            let _ = writeln!(
                text,
                "  {name:<10} {:>8} answered {:>6} refused {:>6} unknown {:>4} findings, judged in {:.1} s",
                judged.ok,
                judged.failed,
                judged.unknown,
                judged.findings.len(),
                judged.judged_ms as f64 / 1000.0
            );
        }
        text
    }

    fn why(&self) -> String {
        let mut text = String::new();
        for reason in self.reasons.iter().take(PRINTED) {
            let short: String = reason.chars().take(LETTERS).collect();
            let _ = writeln!(text, "  {short}");
        }
        if self.reasons.len() > PRINTED {
            let _ = writeln!(text, "  ... and {} more", self.reasons.len() - PRINTED);
        }
        text
    }
}

/// The summary.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The verdict.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// The command that does it again.
    pub again: String,
    /// What all draws from.
    pub seed: u64,
    /// How long clients worked.
    pub seconds: f64,
    /// From the end of the faults until all was in order.
    pub order_seconds: f64,
    /// Operations answered.
    pub ok: u64,
    /// Operations whose fate nobody knows.
    pub unknown: u64,
    /// Faults begun.
    pub faults: u64,
    /// By kind.
    pub by_kind: BTreeMap<String, Count>,
    /// What the fabric did to packets.
    pub packets: link::Count,
    /// How long the workload that suffered most had no answer after a fault that stood alone.
    pub silences: BTreeMap<String, Silence>,
    /// Where everything is.
    pub store: String,
}

impl Report {
    /// Judges what is known; `again` is the command that does it again.
    pub fn new(again: &str, seed: u64, evidence: &Evidence, times: Times, seen: Seen) -> Report {
        let sum = |of: fn(&Judged) -> u64| evidence.workloads.values().map(of).sum();
        Report {
            judgement: Judgement::of(evidence),
            again: again.to_owned(),
            seed,
            seconds: times.worked.as_secs_f64(),
            order_seconds: times.order.as_secs_f64(),
            ok: sum(|judged| judged.ok),
            unknown: sum(|judged| judged.unknown),
            faults: evidence.faults.values().map(|count| count.begun).sum(),
            by_kind: evidence.faults.clone(),
            packets: seen.packets,
            silences: seen.silences,
            store: String::new(),
        }
    }

    /// Writes it beside what it is about.
    pub fn keep(&self, store: &Store) -> Result<()> {
        let mut kept = self.clone();
        kept.store = store.dir().display().to_string();
        store.json("summary.json", &kept)?;
        store.write("summary.txt", &kept.text())
    }

    /// The verdict in a few words.
    pub fn title(&self) -> String {
        format!(
            "{:?}: seed {}, {} answered, {} faults",
            self.judgement.verdict, self.seed, self.ok, self.faults
        )
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.judgement.workloads();
        for (kind, count) in &self.by_kind {
            let _ = writeln!(
                text,
                "  {kind:<10} {:>8} begun {:>6} seen",
                count.begun, count.seen
            );
        }
        for (kind, silence) in &self.silences {
            let Silence {
                faults,
                p50_ms,
                p99_ms,
                max_ms,
            } = silence;
            let _ = writeln!(
                text,
                "  silence after {kind} of one node alone: p50 {p50_ms} ms, p99 {p99_ms} ms, longest {max_ms} ms, of {faults}"
            );
        }
        let _ = writeln!(
            text,
            "  {} answered in {:.0} s ({:.0}/s), {} faults, in order {:.1} s after the last, {:?}",
            self.ok,
            self.seconds,
            self.ok as f64 / self.seconds.max(0.001),
            self.faults,
            self.order_seconds,
            self.packets
        );
        text += &self.judgement.why();
        let _ = writeln!(text, "{:?}; again: {}", self.judgement.verdict, self.again);
        text
    }
}
