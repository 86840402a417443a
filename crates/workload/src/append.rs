//! Transactions that read lists and append to them, judged for strict serializability by what depends on what.
//!
//! A transaction reads its lists first, then writes them on condition that none has changed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use checker::append::{self, Anomaly, Step};
use checker::history::Outcome;
use etcd_client::{Client as Etcd, Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use crate::client::Client;
use crate::process::{OverEtcd, Process};
use crate::record::{Judge, Past, Record, Recorded, fate};
use crate::{Finding, Workload};

/// Lists in use at a time.
const LISTS: u64 = 4;
/// Time after which other lists are used, in nanoseconds: a list is written whole at each append.
const TURN_NS: u64 = 8_000_000_000;

/// The workload.
#[derive(Default)]
pub struct Append {
    record: Record<Append>,
}

#[async_trait]
impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    async fn work(&self, client: Client) {
        let mut number = 0;
        let mut process = Process::start(&self.record, &client, self.namespace()).await;
        while client.goes_on() {
            let steps: Vec<Step> = (0..1 + client.below(3))
                .map(|_| step(&client, &mut number))
                .collect();
            if process.ask(steps).await.is_none() && client.once_in(2) {
                process.turn().await;
            }
            client.pause(0, 50).await;
        }
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Append {
    type Ask = Vec<Step>;
    type Answer = Vec<Step>;
    type Known = ();

    fn judge(past: &Past<Append>) -> Vec<Finding> {
        Finding::of(append::check(&past.operations), |anomaly| located(past, anomaly))
    }

    fn concerns(ask: &Vec<Step>, list: &str) -> bool {
        ask.iter().any(|step| key(step) == list)
    }
}

/// An anomaly is told by the last transaction of it, about the list that most of them have in common.
fn located(past: &Past<Append>, anomaly: Anomaly) -> Finding {
    let text = format!("{}: {}", anomaly.kind, anomaly.text);
    let mut others = anomaly.operations;
    others.sort_by_key(|at| past.operations[*at].return_ns);
    let Some(last) = others.pop() else {
        return Finding::new(text);
    };
    let lists = past.operations[last].ask.iter().map(key);
    let shared = lists.max_by_key(|list| {
        let touching = others
            .iter()
            .filter(|at| Append::concerns(&past.operations[**at].ask, list));
        touching.count()
    });
    let mut finding = Finding::at(shared.unwrap_or_default(), last, &text);
    if let Some(at) = &mut finding.at {
        at.others = others;
    }
    finding
}

fn step(client: &Client, number: &mut u64) -> Step {
    let key = format!("l{}-{}", client.now_ns() / TURN_NS, client.below(LISTS));
    if client.once_in(2) {
        return Step::Read { key, seen: None };
    }
    *number += 1;
    Step::Append {
        key,
        value: client.id * 1_000_000 + *number,
    }
}

/// A list and the revision of its last write.
struct List {
    elements: Vec<u64>,
    revision: i64,
}

async fn lists(etcd: &mut Etcd, steps: &[Step]) -> Result<BTreeMap<String, List>, Outcome<()>> {
    let keys: Vec<String> = steps.iter().map(|step| key(step).to_owned()).collect();
    let gets: Vec<_> = keys.iter().map(|key| TxnOp::get(key.as_str(), None)).collect();
    let got = etcd
        .txn(Txn::new().and_then(gets))
        .await
        .map_err(|error| fate(&error))?;
    let mut lists = BTreeMap::new();
    for (key, response) in keys.into_iter().zip(got.op_responses()) {
        let TxnOpResponse::Get(got) = response else {
            return Err(Outcome::Unknown("no answer to a read".into()));
        };
        let kv = got.kvs().first();
        let elements = kv.map_or("", |kv| kv.value_str().unwrap_or_default());
        let elements: Result<Vec<u64>, _> = elements.split_whitespace().map(str::parse).collect();
        let list = List {
            elements: elements.map_err(|_| Outcome::Unknown("no number".into()))?,
            revision: kv.map_or(0, |kv| kv.mod_revision()),
        };
        lists.insert(key, list);
    }
    Ok(lists)
}

fn key(step: &Step) -> &str {
    match step {
        Step::Read { key, .. } | Step::Append { key, .. } => key,
    }
}

#[async_trait]
impl OverEtcd for Append {
    async fn perform(etcd: &mut Etcd, steps: &Vec<Step>) -> Result<Vec<Step>, Outcome<()>> {
        let mut lists = lists(etcd, steps).await?;
        let unchanged: Vec<_> = lists
            .iter()
            .map(|(key, list)| Compare::mod_revision(key.as_str(), CompareOp::Equal, list.revision))
            .collect();
        let (mut seen, mut writes) = (Vec::new(), false);
        for step in steps {
            let list = lists.get_mut(key(step)).map(|list| &mut list.elements);
            let Some(list) = list else { continue };
            seen.push(match step {
                Step::Read { key, .. } => Step::Read {
                    key: key.clone(),
                    seen: Some(list.clone()),
                },
                Step::Append { value, .. } => {
                    writes = true;
                    list.push(*value);
                    step.clone()
                }
            });
        }
        // All lists were read by one transaction: nothing is left to do if none is written.
        if !writes {
            return Ok(seen);
        }
        let written = steps
            .iter()
            .filter(|step| matches!(step, Step::Append { .. }))
            .map(key);
        let written: std::collections::BTreeSet<&str> = written.collect();
        let puts: Vec<_> = written
            .into_iter()
            .map(|key| {
                let elements = lists[key].elements.iter().map(u64::to_string).collect::<Vec<_>>();
                TxnOp::put(key, elements.join(" "), None)
            })
            .collect();
        let done = etcd
            .txn(Txn::new().when(unchanged).and_then(puts))
            .await
            .map_err(|error| fate(&error))?;
        match done.succeeded() {
            true => Ok(seen),
            false => Err(Outcome::Failed("a list has changed".into())),
        }
    }
}
