//! A history from EDN: calls and returns, put together again.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::reader;
use crate::history::{Operation, Outcome};

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Invoke,
    /// It returned.
    Ok,
    /// It certainly never happened.
    Fail,
    /// Nobody knows.
    Info,
}

/// One line: a call, or a return.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Whose.
    pub process: u64,
    /// What it is.
    pub kind: Kind,
    /// What is asked.
    pub f: String,
    /// With what, or what came of it.
    pub value: Value,
    /// When, in nanoseconds.
    pub time_ns: u64,
    /// Everything else.
    pub fields: Map<String, Value>,
}

/// Why a text is no history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// The calls and returns of a history that anybody wrote. What is no client's, as what a nemesis did, is left out.
pub fn events(text: &str) -> Result<Vec<Event>, Unreadable> {
    let mut events = Vec::new();
    for (at, value) in reader::parse(text).map_err(Unreadable)?.into_iter().enumerate() {
        let wrong = |what: &str| Unreadable(format!("map {}: {what}", at + 1));
        let Value::Object(mut fields) = value else {
            return Err(wrong("a history is made of maps"));
        };
        let process = fields.remove("process").unwrap_or_default();
        if process.is_string() {
            continue;
        }
        let kind = match fields.remove("type").as_ref().and_then(Value::as_str) {
            Some("invoke") => Kind::Invoke,
            Some("ok") => Kind::Ok,
            Some("fail") => Kind::Fail,
            Some("info") => Kind::Info,
            _ => return Err(wrong("its :type is none of :invoke, :ok, :fail, :info")),
        };
        let time = fields.remove("time");
        events.push(Event {
            process: process.as_u64().ok_or_else(|| wrong("it has no :process"))?,
            kind,
            f: match fields.remove("f") {
                Some(Value::String(f)) => f,
                _ => return Err(wrong("it has no :f")),
            },
            value: fields.remove("value").unwrap_or_default(),
            time_ns: time
                .as_ref()
                .and_then(Value::as_u64)
                .ok_or_else(|| wrong("it has no :time"))?,
            fields,
        });
    }
    Ok(events)
}

/// Reads what [`write()`](super::write()) wrote. A call without a return is of unknown outcome.
pub fn read<A: DeserializeOwned, R: DeserializeOwned>(
    text: &str,
) -> Result<Vec<Operation<A, R>>, Unreadable> {
    let events = events(text)?;
    let end_ns = events.iter().map(|event| event.time_ns).max().unwrap_or(0);
    let mut open: BTreeMap<u64, Event> = BTreeMap::new();
    let mut operations = BTreeMap::new();
    for event in events {
        if event.kind == Kind::Invoke {
            let process = event.process;
            if open.insert(process, event).is_some() {
                return Err(Unreadable(format!("process {process} calls twice")));
            }
            continue;
        }
        let call = open.remove(&event.process);
        let call = call.ok_or_else(|| Unreadable(format!("process {} did not call", event.process)))?;
        let (place, operation) = join(&call, Some(&event), end_ns)?;
        operations.insert(place, operation);
    }
    for call in open.values() {
        let (place, operation) = join(call, None, end_ns)?;
        operations.insert(place, operation);
    }
    Ok(operations.into_values().collect())
}

/// One operation and its place.
fn join<A: DeserializeOwned, R: DeserializeOwned>(
    call: &Event,
    returned: Option<&Event>,
    end_ns: u64,
) -> Result<(u64, Operation<A, R>), Unreadable> {
    let wrong = |what: &str| Unreadable(format!("process {} at {} ns: {what}", call.process, call.time_ns));
    let number = |name: &str| returned.and_then(|event| event.fields.get(name)?.as_u64());
    let place = call.fields.get("place").and_then(Value::as_u64);
    let text = returned.and_then(|event| event.fields.get("error")?.as_str());
    let text = text.unwrap_or("no answer").to_owned();
    let outcome = match returned.map(|event| event.kind) {
        Some(Kind::Ok) => {
            let answer = returned.and_then(|event| event.fields.get("answer")).cloned();
            let answer = answer.ok_or_else(|| wrong("it has no :answer"))?;
            Outcome::Ok(serde_json::from_value(answer).map_err(|error| wrong(&error.to_string()))?)
        }
        Some(Kind::Fail) => Outcome::Failed(text),
        Some(Kind::Info | Kind::Invoke) | None => Outcome::Unknown(text),
    };
    let operation = Operation {
        client: call.process,
        node: number("node").unwrap_or(0),
        call_ns: call.time_ns,
        return_ns: returned.map_or(end_ns, |event| event.time_ns),
        ask: asked(&call.f, &call.value).ok_or_else(|| wrong(&format!("nobody can ask :{}", call.f)))?,
        outcome,
    };
    Ok((place.ok_or_else(|| wrong("it has no :place"))?, operation))
}

/// The ask whose variant, if it has variants, is `f`.
fn asked<A: DeserializeOwned>(f: &str, value: &Value) -> Option<A> {
    let variant = || Value::Object(Map::from_iter([(f.to_owned(), value.clone())]));
    let candidates = [
        (f == "value").then(|| value.clone()),
        value.is_null().then(|| Value::from(f)),
        Some(variant()),
    ];
    candidates
        .into_iter()
        .flatten()
        .find_map(|candidate| serde_json::from_value(candidate).ok())
}
