//! Transactions that read lists and append to them: what each read saw tells in which order the appends happened, and so
//! which transaction depends on which. A cycle among them is an anomaly. The search is crate `adya`'s; asked for is
//! strict serializability, as for everything in one key space.

use adya::{History, Opts, Valid, Workload};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Verdict;
use crate::history::{Operation, Outcome, check_shape};

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

/// Judges a history of transactions on one key space.
pub fn check(history: &[Operation<Vec<Step>, Vec<Step>>]) -> Verdict<Vec<Anomaly>> {
    if let Err(malformed) = check_shape(history) {
        return malformed.into();
    }
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
    match report.valid {
        Valid::True => Verdict::Valid,
        Valid::Unknown => Verdict::Unknown(report.anomaly_types.join(", ")),
        Valid::False => {
            let found = report.anomalies.into_values().flatten();
            let anomalies = found.map(|anomaly| Anomaly {
                kind: anomaly.kind,
                operations: involved(&anomaly.ops, &operations),
                text: anomaly.explanation,
            });
            Verdict::Violated(anomalies.collect())
        }
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

/// The history as `adya` reads it, a line for each call and each return, and which operation each line is of.
fn lines(history: &[Operation<Vec<Step>, Vec<Step>>]) -> (String, Vec<usize>) {
    let mut lines = Vec::with_capacity(2 * history.len());
    for (at, operation) in history.iter().enumerate() {
        let line = |kind: &str, steps: &[Step]| {
            json!({"type": kind, "process": operation.client, "value": steps}).to_string()
        };
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
mod tests {
    use super::*;

    type Transaction = Operation<Vec<Step>, Vec<Step>>;

    fn read(key: &str, seen: &[u64]) -> Step {
        Step::Read {
            key: key.into(),
            seen: Some(seen.to_vec()),
        }
    }

    fn append(key: &str, value: u64) -> Step {
        Step::Append {
            key: key.into(),
            value,
        }
    }

    fn transaction(client: u64, times: (u64, u64), steps: &[Step]) -> Transaction {
        let unseen = |step: &Step| match step {
            Step::Read { key, .. } => Step::Read {
                key: key.clone(),
                seen: None,
            },
            Step::Append { .. } => step.clone(),
        };
        Operation {
            client,
            node: 1,
            call_ns: times.0,
            return_ns: times.1,
            ask: steps.iter().map(unseen).collect(),
            outcome: Outcome::Ok(steps.to_vec()),
        }
    }

    fn kinds(history: &[Transaction]) -> Vec<(String, Vec<usize>)> {
        match check(history) {
            Verdict::Violated(found) => found
                .into_iter()
                .map(|found| (found.kind, found.operations))
                .collect(),
            verdict => vec![(format!("{verdict:?}"), Vec::new())],
        }
    }

    #[test]
    fn says_what_is_no_order_of_transactions() {
        let valid = [("Valid".to_owned(), Vec::new())];
        let in_turn = [
            transaction(1, (0, 1), &[append("x", 1)]),
            transaction(2, (2, 3), &[read("x", &[1]), append("x", 2)]),
            transaction(1, (4, 5), &[read("x", &[1, 2])]),
        ];
        assert_eq!(kinds(&in_turn), valid);
        let skew = [
            transaction(1, (0, 9), &[read("y", &[]), append("x", 1)]),
            transaction(2, (1, 8), &[read("x", &[]), append("y", 1)]),
            transaction(3, (10, 11), &[read("x", &[1]), read("y", &[1])]),
        ];
        assert_eq!(kinds(&skew), [("G2-item".to_owned(), vec![0, 1])]);
        let stale = [
            transaction(1, (0, 1), &[append("x", 1)]),
            transaction(2, (2, 3), &[read("x", &[])]),
            transaction(3, (4, 5), &[read("x", &[1])]),
        ];
        assert_eq!(kinds(&stale), [("G-single-item-realtime".to_owned(), vec![0, 1])]);
        let mut failed = in_turn.clone();
        failed[0].outcome = Outcome::Failed("refused".into());
        assert!(
            kinds(&failed).iter().any(|(kind, _)| kind == "G1a"),
            "{:?}",
            kinds(&failed)
        );
    }

    #[test]
    fn an_unknown_transaction_may_have_happened() {
        let mut history = vec![
            transaction(1, (0, 1), &[append("x", 1)]),
            transaction(2, (2, 3), &[read("x", &[1])]),
        ];
        history[0].outcome = Outcome::Unknown("lost".into());
        assert_eq!(check(&history), Verdict::Valid);
    }
}
