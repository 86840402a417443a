//! A history from EDN: calls and returns, put together again.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{BESIDE, TXN, reader};
use crate::history::{Kept, Operation, Outcome};

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
    /// In which line it stands.
    pub line: usize,
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
    let maps = maps(text)?.into_iter();
    maps.filter_map(|(line, fields)| event(line, fields).transpose())
        .collect()
}

fn wrong(line: usize, what: &str) -> Unreadable {
    Unreadable(format!("line {line}: {what}"))
}

/// A map, and the line that it ends in.
type Placed = (usize, Map<String, Value>);

fn maps(text: &str) -> Result<Vec<Placed>, Unreadable> {
    let values = reader::parse(text).map_err(Unreadable)?.into_iter();
    values
        .map(|(line, value)| match value {
            Value::Object(fields) => Ok((line, fields)),
            _ => Err(wrong(line, "a history is made of maps")),
        })
        .collect()
}

/// The event that a map is; `None` if it is no client's.
fn event(line: usize, mut fields: Map<String, Value>) -> Result<Option<Event>, Unreadable> {
    let process = fields.remove("process").unwrap_or_default();
    if process.is_string() {
        return Ok(None);
    }
    let kind = match fields.remove("type").as_ref().and_then(Value::as_str) {
        Some("invoke") => Kind::Invoke,
        Some("ok") => Kind::Ok,
        Some("fail") => Kind::Fail,
        Some("info") => Kind::Info,
        _ => return Err(wrong(line, "its :type is none of :invoke, :ok, :fail, :info")),
    };
    let time = fields.remove("time");
    let f = match fields.remove("f") {
        Some(Value::String(f)) => f,
        _ => return Err(wrong(line, "it has no :f")),
    };
    Ok(Some(Event {
        line,
        process: process
            .as_u64()
            .ok_or_else(|| wrong(line, "it has no :process"))?,
        kind,
        f,
        value: fields.remove("value").unwrap_or_default(),
        time_ns: time
            .as_ref()
            .and_then(Value::as_u64)
            .ok_or_else(|| wrong(line, "it has no :time"))?,
        fields,
    }))
}

/// Reads what [`write()`](super::write()) wrote. A call without a return is of unknown outcome.
pub fn read<A: DeserializeOwned, R: DeserializeOwned, B: DeserializeOwned>(
    text: &str,
) -> Result<Kept<A, R, B>, Unreadable> {
    let mut maps = maps(text)?;
    let (line, mut fields) = end(&mut maps)?;
    let workload = of_workload(line, &fields)?;
    let beside = serde_json::from_value(fields.remove("value").unwrap_or_default());
    let beside = beside.map_err(|error| wrong(line, &error.to_string()))?;
    let events = maps.into_iter().map(|(line, fields)| event(line, fields));
    let events = events.collect::<Result<Vec<_>, _>>()?;
    Ok(Kept {
        workload,
        operations: operations(events.into_iter().flatten().collect())?,
        beside,
    })
}

/// Of which workload a history is.
pub fn workload(text: &str) -> Result<String, Unreadable> {
    let (line, fields) = end(&mut maps(text)?)?;
    of_workload(line, &fields)
}

/// The last map, without which a history was cut off.
fn end(maps: &mut Vec<Placed>) -> Result<Placed, Unreadable> {
    let last = maps.pop_if(|(_, fields)| fields.get("f").is_some_and(|f| f == BESIDE));
    let after = 1 + maps.last().map_or(0, |(line, _)| *line);
    last.ok_or_else(|| wrong(after, "the history is cut off: its end is missing"))
}

fn of_workload(line: usize, fields: &Map<String, Value>) -> Result<String, Unreadable> {
    let workload = fields.get("workload").and_then(Value::as_str);
    let workload = workload.ok_or_else(|| wrong(line, "it has no :workload"))?;
    Ok(workload.to_owned())
}

/// Calls and returns, put together.
fn operations<A: DeserializeOwned, R: DeserializeOwned>(
    events: Vec<Event>,
) -> Result<Vec<Operation<A, R>>, Unreadable> {
    let end_ns = events.iter().map(|event| event.time_ns).max().unwrap_or(0);
    let mut open: BTreeMap<u64, Event> = BTreeMap::new();
    let mut operations = BTreeMap::new();
    for event in events {
        let (line, process) = (event.line, event.process);
        if event.kind == Kind::Invoke {
            if open.insert(process, event).is_some() {
                return Err(wrong(line, &format!("process {process} calls twice")));
            }
            continue;
        }
        let call = open.remove(&process);
        let call = call.ok_or_else(|| wrong(line, &format!("process {process} did not call")))?;
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
    let line = returned.map_or(call.line, |event| event.line);
    let wrong = |what: &str| {
        wrong(
            line,
            &format!("process {} at {} ns: {what}", call.process, call.time_ns),
        )
    };
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

/// The ask whose variant, if it has variants, is `f`; of one thing among many, if it names one.
fn asked<A: DeserializeOwned>(f: &str, value: &Value) -> Option<A> {
    let variant = |value: &Value| match value {
        Value::Null => Value::from(f),
        value => Value::Object(Map::from_iter([(f.to_owned(), value.clone())])),
    };
    let carrying_nothing = || Value::Object(Map::from_iter([(f.to_owned(), Value::Null)]));
    let of_one = |pair: &[Value]| match pair {
        [key, value] => Some(serde_json::json!({ "key": key, "ask": variant(value) })),
        _ => None,
    };
    let candidates = [
        (f == "value" || f == TXN && value.is_array()).then(|| value.clone()),
        Some(variant(value)),
        value.is_null().then(carrying_nothing),
        value.as_array().and_then(|pair| of_one(pair)),
    ];
    candidates
        .into_iter()
        .flatten()
        .find_map(|candidate| serde_json::from_value(candidate).ok())
}
