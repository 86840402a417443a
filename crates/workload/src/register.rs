//! Registers that are read, written and swapped, judged without looking at revisions: by linearizability of each alone.
//! Each register is used for a while and then left, so that the search stays short.

use async_trait::async_trait;
use checker::Verdict;
use checker::history::{Of, Outcome};
use checker::linear;
use checker::register::{Answer, Ask, Register};
use etcd_client::{Client as Etcd, Compare, CompareOp, Txn, TxnOp};

use crate::client::Client;
use crate::record::{Judge, Name, Past, Record, Recorded, fate};
use crate::{Finding, Workload};

/// Registers in use at a time.
const AT_ONCE: u64 = 6;
/// Time after which other registers are used, in nanoseconds.
const TURN_NS: u64 = 3_000_000_000;
/// Steps of the judge for one register before it gives up.
const STEPS: u64 = 20_000_000;

/// Who is asked.
#[async_trait]
pub trait Asked: Send {
    /// The node it speaks to, from 0.
    fn node(&self) -> usize;
    /// Speaks to another node from now on, or to the same one anew.
    async fn turn(&mut self);
    /// Asks about one register.
    async fn perform(&mut self, key: &str, ask: &Ask) -> Result<Answer, Outcome<()>>;
}

/// The workload.
#[derive(Default)]
pub struct Registers {
    record: Record<Registers>,
}

impl Registers {
    /// The work of one client, whoever is asked.
    pub async fn work_over(&self, client: Client, mut over: impl Asked) {
        let mut name = Name::of(&client);
        let mut number = 0;
        while client.goes_on() {
            number += 1;
            let key = format!("r{}-{}", client.now_ns() / TURN_NS, client.below(AT_ONCE));
            let value = client.id * 1_000_000 + number;
            let ask = match client.below(10) {
                0..4 => Ask::Read,
                4..8 => Ask::Write(value),
                8 => Ask::Delete,
                _ => Ask::Cas {
                    // Now and then it is what this client wrote last.
                    from: Some(client.id * 1_000_000 + number.saturating_sub(1 + client.below(3))),
                    to: value,
                },
            };
            let of = Of {
                key: key.clone(),
                ask: ask.clone(),
            };
            let node = over.node();
            let doing = over.perform(&key, &ask);
            let answer = self.record.operate(&client, &mut name, node, of, doing).await;
            if answer.is_none() || client.once_in(20) {
                over.turn().await;
            }
            client.pause(0, 40).await;
        }
    }
}

/// Over the etcd API of one node.
struct OverEtcd {
    client: Client,
    namespace: &'static str,
    node: usize,
    etcd: Etcd,
}

#[async_trait]
impl Asked for OverEtcd {
    fn node(&self) -> usize {
        self.node
    }

    async fn turn(&mut self) {
        (self.node, self.etcd) = self.client.connect(self.namespace).await;
    }

    async fn perform(&mut self, key: &str, ask: &Ask) -> Result<Answer, Outcome<()>> {
        perform(&mut self.etcd, key, ask).await
    }
}

#[async_trait]
impl Workload for Registers {
    fn name(&self) -> &'static str {
        "register"
    }

    async fn work(&self, client: Client) {
        let (node, etcd) = client.connect(self.namespace()).await;
        let namespace = self.namespace();
        let over = OverEtcd {
            client: client.clone(),
            namespace,
            node,
            etcd,
        };
        self.work_over(client, over).await;
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Registers {
    type Ask = Of<Ask>;
    type Answer = Answer;
    type Known = ();

    fn judge(past: &Past<Registers>) -> Vec<Finding> {
        let registers = linear::by_key(&past.operations, |of| of.key.clone()).into_iter();
        let found = registers.filter_map(|(key, places)| one(past, &key, places));
        found.collect()
    }

    fn concerns(ask: &Of<Ask>, key: &str) -> bool {
        ask.key == key
    }
}

/// What is wrong with one register.
fn one(past: &Past<Registers>, key: &str, mut places: Vec<usize>) -> Option<Finding> {
    // A read that nobody had an answer to says nothing.
    places.retain(|at| {
        let operation = &past.operations[*at];
        !(operation.is_unknown() && operation.ask.ask == Ask::Read)
    });
    let here = places.iter().map(|at| &past.operations[*at]);
    let history: Vec<_> = here
        .map(|operation| operation.asking(operation.ask.ask.clone()))
        .collect();
    match linear::check(&Register, &history, STEPS) {
        Verdict::Valid => None,
        Verdict::Unknown(why) => Some(Finding::new(format!("{key}: undecided: {why}"))),
        Verdict::Violated(impossible) => {
            let operation = &history[impossible.operation];
            let text = format!(
                "no order explains {:?} to {:?}: {} operations are explained, and then it holds one of {:?}",
                operation.answer(),
                operation.ask,
                impossible.prefix.len(),
                impossible.states
            );
            let mut finding = Finding::at(key, places[impossible.operation], &text);
            if let Some(at) = &mut finding.at {
                at.order = impossible.prefix.iter().map(|at| places[*at]).collect();
            }
            Some(finding)
        }
    }
}

async fn perform(etcd: &mut Etcd, key: &str, ask: &Ask) -> Result<Answer, Outcome<()>> {
    let failed = |error: etcd_client::Error| fate(&error);
    match ask {
        Ask::Read => {
            let got = etcd.get(key, None).await.map_err(failed)?;
            let value = got
                .kvs()
                .first()
                .map(|kv| kv.value_str().unwrap_or_default().parse());
            let value = value
                .transpose()
                .map_err(|_| Outcome::Unknown("no number".into()))?;
            Ok(Answer::Value(value))
        }
        Ask::Write(value) => {
            etcd.put(key, value.to_string(), None).await.map_err(failed)?;
            Ok(Answer::Done)
        }
        Ask::Delete => {
            etcd.delete(key, None).await.map_err(failed)?;
            Ok(Answer::Done)
        }
        Ask::Cas { from, to } => {
            let holds = match from {
                Some(from) => Compare::value(key, CompareOp::Equal, from.to_string()),
                None => Compare::version(key, CompareOp::Equal, 0),
            };
            let swap = Txn::new()
                .when([holds])
                .and_then([TxnOp::put(key, to.to_string(), None)]);
            let done = etcd.txn(swap).await.map_err(failed)?;
            Ok(Answer::Swapped(done.succeeded()))
        }
    }
}
