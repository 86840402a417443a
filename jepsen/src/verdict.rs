//! The rule of a run: what was violated, what is undecided, and what was not exercised all fail it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::torment::Count;

/// Answers that a workload must have had for its history to say anything.
const ENOUGH: u64 = 10;

/// What came of a run. Each is worse than those before it, but that a harness that failed shows nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything was exercised, and every promise kept.
    Passed,
    /// The run shows too little, or a judge could not decide.
    Inconclusive,
    /// A promise was broken.
    Violated,
}

impl Verdict {
    /// The exit status. 3 is a harness that failed.
    pub fn status(self) -> u8 {
        match self {
            Verdict::Passed => 0,
            Verdict::Violated => 1,
            Verdict::Inconclusive => 2,
        }
    }
}

/// What one workload did and what its judge found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Judged {
    /// Answered.
    pub ok: u64,
    /// Refused.
    pub failed: u64,
    /// Of unknown fate.
    pub unknown: u64,
    /// What was wrong.
    pub findings: Vec<String>,
    /// How long the judge took.
    pub judged_ms: u64,
}

/// Everything that is judged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// By workload.
    pub workloads: BTreeMap<String, Judged>,
    /// By kind of fault.
    pub faults: BTreeMap<String, Count>,
    /// Answers wanted each second.
    pub rate: f64,
    /// How long clients worked.
    pub seconds: f64,
    /// Promises broken that no workload judges: a panic, an end, an order that did not come.
    pub broken: Vec<String>,
}

/// The verdict, with every reason.
pub fn judge(evidence: &Evidence) -> (Verdict, Vec<String>) {
    let mut reasons: Vec<(Verdict, String)> = Vec::new();
    for text in &evidence.broken {
        reasons.push((Verdict::Violated, text.clone()));
    }
    for (name, judged) in &evidence.workloads {
        for text in &judged.findings {
            let verdict = match text.contains("undecided: ") {
                true => Verdict::Inconclusive,
                false => Verdict::Violated,
            };
            reasons.push((verdict, format!("{name}: {text}")));
        }
        if judged.ok < ENOUGH {
            let text = format!(
                "{name}: {} operations answered, {ENOUGH} at least are wanted",
                judged.ok
            );
            reasons.push((Verdict::Inconclusive, text));
        }
    }
    for (kind, count) in &evidence.faults {
        if count.seen == 0 {
            let text = format!(
                "{kind}: begun {} times, and never seen to have an effect",
                count.begun
            );
            reasons.push((Verdict::Inconclusive, text));
        }
    }
    let answered: u64 = evidence.workloads.values().map(|judged| judged.ok).sum();
    let rate = answered as f64 / evidence.seconds.max(0.001);
    if rate < evidence.rate {
        let text = format!(
            "{rate:.0} operations answered a second, {} at least are wanted",
            evidence.rate
        );
        reasons.push((Verdict::Inconclusive, text));
    }
    let verdict = reasons.iter().map(|(verdict, _)| *verdict).max();
    let texts = reasons.into_iter().map(|(_, text)| text).collect();
    (verdict.unwrap_or(Verdict::Passed), texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        let judged = Judged {
            ok: 5000,
            ..Judged::default()
        };
        Evidence {
            workloads: [("kv".to_owned(), judged)].into(),
            faults: [("kill".to_owned(), Count { begun: 3, seen: 2 })].into(),
            rate: 100.0,
            seconds: 10.0,
            broken: Vec::new(),
        }
    }

    #[test]
    fn what_is_violated_undecided_or_not_exercised_fails() {
        type Change = fn(&mut Evidence);
        let found = |evidence: &mut Evidence, text: &str| {
            let kv = evidence.workloads.get_mut("kv").expect("there");
            kv.findings.push(text.to_owned());
        };
        let cases: [(&str, Change, Verdict); 7] = [
            ("all well", |_| {}, Verdict::Passed),
            (
                "a fault never seen",
                |it| {
                    it.faults.insert("kill".into(), Count { begun: 3, seen: 0 });
                },
                Verdict::Inconclusive,
            ),
            ("too slow", |it| it.seconds = 60.0, Verdict::Inconclusive),
            (
                "idle",
                |it| it.workloads.entry("set".into()).or_default().ok = 1,
                Verdict::Inconclusive,
            ),
            ("broken", |it| it.broken.push("panic".into()), Verdict::Violated),
            (
                "broken and slow",
                |it| {
                    it.broken.push("panic".into());
                    it.seconds = 60.0;
                },
                Verdict::Violated,
            ),
            (
                "no rate wanted",
                |it| {
                    it.seconds = 60.0;
                    it.rate = 0.0;
                },
                Verdict::Passed,
            ),
        ];
        for (what, change, wanted) in cases {
            let mut evidence = good();
            change(&mut evidence);
            assert_eq!(judge(&evidence).0, wanted, "{what}");
        }
        let mut evidence = good();
        found(&mut evidence, "r3: undecided: too many steps");
        assert_eq!(judge(&evidence).0, Verdict::Inconclusive);
        found(&mut evidence, "a read went back");
        let (verdict, reasons) = judge(&evidence);
        assert_eq!((verdict, reasons.len()), (Verdict::Violated, 2));
    }
}
