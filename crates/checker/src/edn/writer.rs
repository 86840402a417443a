//! A history in EDN.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::is_plain;
use crate::history::{Operation, Outcome};

/// The history in EDN.
pub fn write<A: Serialize, R: Serialize>(history: &[Operation<A, R>]) -> serde_json::Result<String> {
    let mut lines = Vec::with_capacity(2 * history.len());
    for (at, operation) in history.iter().enumerate() {
        let (name, asked) = variant(serde_json::to_value(&operation.ask)?);
        let (kind, answer) = match &operation.outcome {
            Outcome::Ok(answer) => ("ok", Some(serde_json::to_value(answer)?)),
            Outcome::Failed(_) => ("fail", None),
            Outcome::Unknown(_) => ("info", None),
        };
        let value = answer.clone().map_or(Value::Null, |answer| variant(answer).1);
        let value = if value.is_null() { asked.clone() } else { value };
        let process = operation.client;
        let call = format!(
            "{{:process {process}, :type :invoke, :f :{name}, :value {}",
            edn(&asked)
        );
        let answer = answer.map_or(String::new(), |answer| format!(", :answer {}", edn(&answer)));
        let returned = format!(
            "{{:process {process}, :type :{kind}, :f :{name}, :value {}, :ask {}{answer}, :node {}{}",
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
    for (index, (time, _, place, line)) in lines.into_iter().enumerate() {
        let _ = writeln!(text, "{line}, :place {place}, :time {time}, :index {index}}}");
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
        Value::String(name) if is_plain(&name) => (name, Value::Null),
        Value::Object(mut fields) if fields.len() == 1 && fields.keys().all(|name| is_plain(name)) => {
            let name = fields.keys().next().cloned().unwrap_or_default();
            let carried = fields.remove(&name).unwrap_or_default();
            (name, carried)
        }
        other => ("value".into(), other),
    }
}

/// One value. A key is a keyword where that is readable, a number where it is one, else text.
pub fn edn(value: &Value) -> String {
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
                .map(|(name, value)| format!("{} {}", key(name), edn(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

fn key(name: &str) -> String {
    let number = name.parse::<i64>().is_ok_and(|number| number.to_string() == name);
    match (is_plain(name), number) {
        (true, _) => format!(":{}", name.replace('_', "-")),
        (false, true) => name.to_owned(),
        (false, false) => Value::from(name).to_string(),
    }
}
