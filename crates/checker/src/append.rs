//! Transactions that read lists and append to them: what each read saw tells in which order the appends happened, and so
//! which transaction depends on which. A cycle among them is an anomaly. The search is crate `adya`'s; asked for is
//! strict serializability, as for everything in one key space.
//!
//! `adya` takes on trust that each element that was seen was appended by somebody, and that what one transaction appends
//! to a list stays together and in its order. Both are looked at here. To `adya` a history in which no transaction depends
//! on another is undecided; but then every order is right.
//!
//! Judged against brute force in `tests/appends`.

use std::collections::BTreeMap;

use adya::{History, Opts, Valid, Workload};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Verdict;
use crate::history::{Malformed, Operation, Outcome, check_shape};

/// One step of a transaction. Written as Elle's are: `["r", key, seen]`, `["append", key, value]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "(String, String, Value)")]
pub enum Step {
    /// Reads a list.
    Read {
        /// Which.
        key: String,
        /// What was seen; `None` in what is asked.
        seen: Option<Vec<u64>>,
    },
    /// Appends to a list. Each value is appended to a key once.
    Append {
        /// To which.
        key: String,
        /// What.
        value: u64,
    },
}

impl From<Step> for Value {
    fn from(step: Step) -> Value {
        match step {
            Step::Read { key, seen } => json!(["r", key, seen]),
            Step::Append { key, value } => json!(["append", key, value]),
        }
    }
}

impl TryFrom<(String, String, Value)> for Step {
    type Error = serde_json::Error;

    fn try_from((name, key, value): (String, String, Value)) -> Result<Step, serde_json::Error> {
        match name.as_str() {
            "r" => Ok(Step::Read {
                key,
                seen: serde_json::from_value(value)?,
            }),
            "append" => Ok(Step::Append {
                key,
                value: serde_json::from_value(value)?,
            }),
            _ => Err(serde::de::Error::custom(format!(
                "{name:?} is no step of a transaction"
            ))),
        }
    }
}

/// Transactions that cannot have happened as they were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// Its name in the literature: G0, G1c, G-single, G2 and so on.
    pub kind: String,
    /// The transactions, by their places in the history.
    pub operations: Vec<usize>,
    /// How they depend on each other.
    pub text: String,
}

/// A transaction: what its reads saw is in its answer.
pub type Transaction = Operation<Vec<Step>, Vec<Step>>;

/// How `adya` calls that no transaction depends on another.
const NO_DEPENDENCE: &str = "empty-transaction-graph";

/// Judges a history of transactions on one key space.
pub fn check(history: &[Transaction]) -> Verdict<Vec<Anomaly>> {
    let well_formed = check_shape(history).and_then(|()| check_answers(history));
    let writers = match well_formed.and_then(|()| Writers::of(history)) {
        Ok(writers) => writers,
        Err(malformed) => return malformed.into(),
    };
    let mut anomalies = writers.misplaced(history);
    let (text, operations) = lines(history);
    let known = match History::from_json(&text) {
        Ok(known) => known,
        Err(error) => return Verdict::Unknown(error.to_string()),
    };
    let options = Opts {
        models: vec!["strict-serializable".into()],
        ..Opts::default()
    };
    let report = adya::check(&known, Workload::ListAppend, &options);
    if report.valid == Valid::False {
        let found = report.anomalies.into_values().flatten();
        anomalies.extend(found.map(|anomaly| Anomaly {
            kind: anomaly.kind,
            operations: involved(&anomaly.ops, &operations),
            text: anomaly.explanation,
        }));
    }
    if !anomalies.is_empty() {
        return Verdict::Violated(anomalies);
    }
    match report.anomaly_types.as_slice() {
        [] => Verdict::Valid,
        [only] if only == NO_DEPENDENCE => Verdict::Valid,
        types => Verdict::Unknown(types.join(", ")),
    }
}

/// Checks that each answer is to what was asked.
fn check_answers(history: &[Transaction]) -> Result<(), Malformed> {
    let fits = |(asked, answered): (&Step, &Step)| match (asked, answered) {
        (Step::Read { key, .. }, Step::Read { key: of, seen }) => key == of && seen.is_some(),
        (asked, answered) => asked == answered,
    };
    for (at, operation) in history.iter().enumerate() {
        let Some(answer) = operation.answer() else {
            continue;
        };
        if operation.ask.len() != answer.len() || !operation.ask.iter().zip(answer).all(fits) {
            let text = "the answer is not to what was asked".into();
            return Err(Malformed { at, text });
        }
    }
    Ok(())
}

/// Who appended what.
struct Writers<'h> {
    /// To each list, by transaction, in its order.
    appended: BTreeMap<(&'h str, usize), Vec<u64>>,
    /// Which transaction, by list and element.
    writer: BTreeMap<(&'h str, u64), usize>,
}

impl<'h> Writers<'h> {
    fn of(history: &'h [Transaction]) -> Result<Self, Malformed> {
        let (mut appended, mut writer) = (BTreeMap::new(), BTreeMap::new());
        for (at, operation) in history.iter().enumerate() {
            for step in &operation.ask {
                let Step::Append { key, value } = step else {
                    continue;
                };
                if writer.insert((key.as_str(), *value), at).is_some() {
                    let text = format!("{value} is appended to {key} a second time");
                    return Err(Malformed { at, text });
                }
                let of_list: &mut Vec<u64> = appended.entry((key.as_str(), at)).or_default();
                of_list.push(*value);
            }
        }
        Ok(Writers { appended, writer })
    }

    /// What `adya` does not look for. (What a transaction sees of its own appends, it does.)
    fn misplaced(&self, history: &[Transaction]) -> Vec<Anomaly> {
        let mut anomalies = Vec::new();
        for (reader, operation) in history.iter().enumerate() {
            for step in operation.answer().into_iter().flatten() {
                let Step::Read {
                    key,
                    seen: Some(seen),
                } = step
                else {
                    continue;
                };
                anomalies.extend(self.misplaced_in(reader, key, seen));
            }
        }
        anomalies
    }

    fn misplaced_in(&self, reader: usize, key: &str, seen: &[u64]) -> Option<Anomaly> {
        let mut left = seen;
        while let Some(first) = left.first() {
            let Some(writer) = self.writer.get(&(key, *first)).copied() else {
                return Some(Anomaly {
                    kind: "unwritten".into(),
                    operations: vec![reader],
                    text: format!("{first} was seen in {key}, and nobody appended it"),
                });
            };
            let together = self.appended[&(key, writer)].as_slice();
            left = if writer == reader {
                &left[1..]
            } else if let Some(after) = left.strip_prefix(together) {
                after
            } else {
                return Some(Anomaly {
                    kind: "torn".into(),
                    operations: vec![reader, writer],
                    text: format!("{together:?} were appended to {key} together, and {seen:?} was seen"),
                });
            };
        }
        None
    }
}

/// The operations behind lines, each once.
fn involved(lines: &[u64], operations: &[usize]) -> Vec<usize> {
    let at = |line: &u64| operations.get(usize::try_from(*line).ok()?).copied();
    let mut involved: Vec<usize> = lines.iter().filter_map(at).collect();
    involved.sort_unstable();
    involved.dedup();
    involved
}

/// The history as `adya` reads it, a line for each call and each return, and which operation each line is of. Each has a
/// process of its own: a client may ask in the moment in which it is answered, and what meets, meets in either order.
fn lines(history: &[Transaction]) -> (String, Vec<usize>) {
    let mut lines = Vec::with_capacity(2 * history.len());
    for (at, operation) in history.iter().enumerate() {
        let line =
            |kind: &str, steps: &[Step]| json!({"type": kind, "process": at, "value": steps}).to_string();
        let returned = match &operation.outcome {
            Outcome::Ok(seen) => line("ok", seen),
            Outcome::Failed(_) => line("fail", &operation.ask),
            Outcome::Unknown(_) => line("info", &operation.ask),
        };
        lines.push((operation.call_ns, 0, at, line("invoke", &operation.ask)));
        lines.push((operation.return_ns, 1, at, returned));
    }
    lines.sort();
    let operations = lines.iter().map(|(_, _, at, _)| *at).collect();
    let texts: Vec<String> = lines.into_iter().map(|(_, _, _, text)| text).collect();
    (texts.join("\n"), operations)
}

#[cfg(test)]
mod tests;
