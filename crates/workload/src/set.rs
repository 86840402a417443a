//! A set that only grows, one key an element, read whole: the simplest question whether anything was lost.

use std::collections::BTreeSet;

use async_trait::async_trait;
use checker::history::Outcome;
use checker::set::{self, Answer, Ask, Wrong};
use etcd_client::{Client as Etcd, GetOptions};

use crate::client::Client;
use crate::process::{OverEtcd, Process};
use crate::record::{Judge, Past, Record, Recorded, fate};
use crate::{Finding, Workload};

/// The workload.
#[derive(Default)]
pub struct Set {
    record: Record<Set>,
}

#[async_trait]
impl Workload for Set {
    fn name(&self) -> &'static str {
        "set"
    }

    async fn work(&self, client: Client) {
        let mut number = 0;
        let mut process = Process::start(&self.record, &client, self.namespace()).await;
        while client.goes_on() {
            number += 1;
            let ask = match client.once_in(20) {
                true => Ask::Read,
                false => Ask::Add(client.id * 1_000_000 + number),
            };
            if process.ask(ask).await.is_none() {
                process.turn().await;
            }
            client.pause(5, 60).await;
        }
    }

    async fn finish(&self, client: &Client) -> Result<(), String> {
        for node in 0..client.site.endpoints.len() {
            let mut process = Process::start_at(&self.record, client, self.namespace(), node).await;
            let read = process.ask(Ask::Read).await;
            read.ok_or("the last read was not answered")?;
        }
        Ok(())
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Set {
    type Ask = Ask;
    type Answer = Answer;
    type Known = ();

    fn judge(past: &Past<Set>) -> Vec<Finding> {
        Finding::of(set::check(&past.operations), |found| {
            let text = match found.wrong {
                Wrong::Lost => "it was in, and from this read on never again",
                Wrong::Stale => "it was in, is missing here, and came back",
                Wrong::Phantom => "it is read, and nobody asked for it before",
            };
            Finding::at(&found.element.to_string(), found.read, text)
        })
    }

    fn concerns(ask: &Ask, key: &str) -> bool {
        match ask {
            Ask::Add(element) => element.to_string() == key,
            Ask::Read => true,
        }
    }
}

#[async_trait]
impl OverEtcd for Set {
    async fn perform(etcd: &mut Etcd, ask: &Ask) -> Result<Answer, Outcome<()>> {
        let failed = |error: etcd_client::Error| fate(&error);
        match ask {
            Ask::Add(element) => {
                etcd.put(format!("e{element}"), "", None).await.map_err(failed)?;
                Ok(Answer::Added)
            }
            Ask::Read => {
                let options = GetOptions::new().with_prefix().with_keys_only();
                let got = etcd.get("e", Some(options)).await.map_err(failed)?;
                let numbers = got
                    .kvs()
                    .iter()
                    .map(|kv| kv.key_str().unwrap_or_default()[1..].parse());
                let elements: Result<BTreeSet<u64>, _> = numbers.collect();
                Ok(Answer::Elements(
                    elements.map_err(|_| Outcome::Unknown("no number".into()))?,
                ))
            }
        }
    }
}
