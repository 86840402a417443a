//! Histories as Jepsen writes them: a map a line in EDN, one for each call and one for each return, in order of time, so
//! that any other judge can look at them too.
//!
//! What was asked and answered keeps its shape: the name of the variant becomes `:f`, what it carries `:value`. Where
//! an answer carries something it stands in `:value`, and what was asked in `:ask`.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::history::{Operation, Outcome};

/// The history in EDN.
pub fn write<A: Serialize, R: Serialize>(history: &[Operation<A, R>]) -> serde_json::Result<String> {
    let mut lines = Vec::with_capacity(2 * history.len());
    for (at, operation) in history.iter().enumerate() {
        let (name, asked) = variant(serde_json::to_value(&operation.ask)?);
        let (kind, value) = match &operation.outcome {
            Outcome::Ok(answer) => ("ok", variant(serde_json::to_value(answer)?).1),
            Outcome::Failed(_) => ("fail", Value::Null),
            Outcome::Unknown(_) => ("info", Value::Null),
        };
        let value = if value.is_null() { asked.clone() } else { value };
        let process = operation.client;
        let call = format!(
            "{{:process {process}, :type :invoke, :f :{name}, :value {}",
            edn(&asked)
        );
        let returned = format!(
            "{{:process {process}, :type :{kind}, :f :{name}, :value {}, :ask {}, :node {}{}",
            edn(&value),
            edn(&asked),
            operation.node,
            error(&operation.outcome)
        );
        // Calls before returns at the same moment, as in `linear`.
        lines.push((operation.call_ns, 0, at, call));
        lines.push((operation.return_ns, 1, at, returned));
    }
    lines.sort();
    let mut text = String::new();
    for (index, (time, _, _, line)) in lines.into_iter().enumerate() {
        let _ = writeln!(text, "{line}, :time {time}, :index {index}}}");
    }
    Ok(text)
}

fn error<R>(outcome: &Outcome<R>) -> String {
    match outcome {
        Outcome::Ok(_) => String::new(),
        Outcome::Failed(text) | Outcome::Unknown(text) => {
            format!(", :error {}", edn(&Value::from(text.as_str())))
        }
    }
}

/// The name of an enum's variant, and what it carries.
fn variant(value: Value) -> (String, Value) {
    match value {
        Value::String(name) => (name, Value::Null),
        Value::Object(mut fields) if fields.len() == 1 => {
            let name = fields.keys().next().cloned().unwrap_or_default();
            let carried = fields.remove(&name).unwrap_or_default();
            (name, carried)
        }
        other => ("value".into(), other),
    }
}

fn edn(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        // JSON's escapes are EDN's too.
        Value::String(_) => value.to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(edn).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!(":{} {}", name.replace('_', "-"), edn(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::register::{Answer, Ask};

    #[test]
    fn calls_and_returns_stand_in_order_of_time() {
        let operation = |client, call_ns, return_ns, ask, outcome| Operation {
            client,
            node: 3,
            call_ns,
            return_ns,
            ask,
            outcome,
        };
        let history = vec![
            operation(1, 0, 7, Ask::Write(5), Outcome::Ok(Answer::Done)),
            operation(2, 2, 4, Ask::Read, Outcome::Ok(Answer::Value(Some(5)))),
            operation(
                3,
                4,
                9,
                Ask::Cas { from: None, to: 1 },
                Outcome::Unknown("said \"no\"".into()),
            ),
        ];
        let expected = "\
{:process 1, :type :invoke, :f :write, :value 5, :time 0, :index 0}
{:process 2, :type :invoke, :f :read, :value nil, :time 2, :index 1}
{:process 3, :type :invoke, :f :cas, :value {:from nil, :to 1}, :time 4, :index 2}
{:process 2, :type :ok, :f :read, :value 5, :ask nil, :node 3, :time 4, :index 3}
{:process 1, :type :ok, :f :write, :value 5, :ask 5, :node 3, :time 7, :index 4}
{:process 3, :type :info, :f :cas, :value {:from nil, :to 1}, :ask {:from nil, :to 1}, :node 3, :error \"said \\\"no\\\"\", \
                        :time 9, :index 5}
";
        assert_eq!(write(&history).expect("encodes"), expected);
    }
}
