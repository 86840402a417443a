//! A history in EDN.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::{BESIDE, TXN, is_plain};
use crate::history::{Operation, Outcome};

/// The history of a workload in EDN, and what its judge has to know beside it.
pub fn write<A: Serialize, R: Serialize, B: Serialize>(
    workload: &str,
    history: &[Operation<A, R>],
    beside: &B,
) -> serde_json::Result<String> {
    let mut lines = Vec::with_capacity(2 * history.len());
    for (at, operation) in history.iter().enumerate() {
        let asked = Asked::of(serde_json::to_value(&operation.ask)?);
        let (kind, answer) = match &operation.outcome {
            Outcome::Ok(answer) => ("ok", Some(serde_json::to_value(answer)?)),
            Outcome::Failed(_) => ("fail", None),
            Outcome::Unknown(_) => ("info", None),
        };
        let value = answer.clone().map_or(Value::Null, |answer| variant(answer).1);
        let value = if value.is_null() {
            asked.value.clone()
        } else {
            value
        };
        let (process, f) = (operation.client, &asked.f);
        let call = format!(
            "{{:process {process}, :type :invoke, :f :{f}, :value {}",
            asked.edn(&asked.value)
        );
        let answer = answer.map_or(String::new(), |answer| format!(", :answer {}", edn(&answer)));
        let returned = format!(
            "{{:process {process}, :type :{kind}, :f :{f}, :value {}, :ask {}{answer}, :node {}{}",
            asked.edn(&value),
            asked.edn(&asked.value),
            operation.node,
            error(&operation.outcome)
        );
        // Calls before returns at the same moment, as in `linear`.
        lines.push((operation.call_ns, 0, at, call));
        lines.push((operation.return_ns, 1, at, returned));
    }
    lines.sort();
    let (end, end_ns) = (lines.len(), lines.last().map_or(0, |last| last.0));
    let mut text = String::new();
    for (index, (time, _, place, line)) in lines.into_iter().enumerate() {
        let _ = writeln!(text, "{line}, :place {place}, :time {time}, :index {index}}}");
    }
    let _ = writeln!(
        text,
        "{{:process :nemesis, :type :info, :f :{BESIDE}, :value {}, :workload {}, :time {end_ns}, :index {end}}}",
        edn(&serde_json::to_value(beside)?),
        edn(&Value::from(workload))
    );
    Ok(text)
}

/// What was asked, as Jepsen tells it.
struct Asked {
    f: String,
    /// Of one thing among many.
    key: Option<Value>,
    value: Value,
}

impl Asked {
    fn of(mut ask: Value) -> Asked {
        let of_one = ask
            .as_object_mut()
            .filter(|fields| fields.len() == 2 && fields.contains_key("key") && fields.contains_key("ask"));
        let (key, ask) = match of_one {
            Some(fields) => (fields.remove("key"), fields.remove("ask").unwrap_or_default()),
            None => (None, ask),
        };
        let (f, value) = variant(ask);
        Asked { f, key, value }
    }

    /// Something that was asked or answered here.
    fn edn(&self, value: &Value) -> String {
        let value = match value {
            Value::Array(steps) if self.f == TXN => {
                format!("[{}]", steps.iter().map(step).collect::<Vec<_>>().join(" "))
            }
            value => edn(value),
        };
        match &self.key {
            Some(key) => format!("[{} {value}]", edn(key)),
            None => value,
        }
    }
}

/// A step of a transaction: its name is a keyword.
fn step(step: &Value) -> String {
    match step.as_array().map(Vec::as_slice) {
        Some([Value::String(name), rest @ ..]) if is_plain(name) => {
            let rest: Vec<String> = rest.iter().map(edn).collect();
            format!("[:{name} {}]", rest.join(" "))
        }
        _ => edn(step),
    }
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
        Value::Array(steps) => (TXN.into(), Value::Array(steps)),
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
