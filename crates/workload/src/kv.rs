//! Puts, deletes, reads of all kinds and transactions on few keys, judged by the order of revisions: every answer carries
//! its revision, and the log tells what each revision did.

use async_trait::async_trait;
use checker::history::Outcome;
use checker::revision::{self, Answer, Ask, Compare, Operation};
use etcd_client::Client as Etcd;

use crate::client::Client;
use crate::log::{self, Log};
use crate::process::{OverEtcd, Process};
use crate::record::{Judge, Past, Record, Recorded};
use crate::{Finding, Workload, etcd};

/// Keys that all clients share.
const KEYS: u64 = 6;

/// The workload.
#[derive(Default)]
pub struct Kv {
    record: Record<Kv>,
}

#[async_trait]
impl Workload for Kv {
    fn name(&self) -> &'static str {
        "kv"
    }

    async fn work(&self, client: Client) {
        let mut number = 0;
        let mut process = Process::start(&self.record, &client, self.namespace()).await;
        while client.goes_on() {
            number += 1;
            let answer = process.ask(next(&client, number)).await;
            if answer.is_none() || client.once_in(50) {
                process.turn().await;
            }
            client.pause(0, 30).await;
        }
    }

    async fn finish(&self, client: &Client) -> Result<(), String> {
        let mut logs = Vec::new();
        for node in 0..client.site.endpoints.len() {
            logs.push(log::read(client, node, self.namespace()).await?.0);
        }
        let first = logs.swap_remove(0);
        match logs.iter().all(|log| *log == first) {
            true => self.record.known(|log| *log = Some(first)),
            false => return Err("two nodes tell different histories".into()),
        }
        Ok(())
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Kv {
    type Ask = Ask;
    type Answer = Answer;
    type Known = Option<Log>;

    fn judge(past: &Past<Kv>) -> Vec<Finding> {
        replayed(&past.operations, past.known.as_ref())
    }

    fn concerns(ask: &Ask, key: &str) -> bool {
        touches(ask, key)
    }
}

#[async_trait]
impl OverEtcd for Kv {
    async fn perform(etcd: &mut Etcd, ask: &Ask) -> Result<Answer, Outcome<()>> {
        etcd::ask(etcd, ask).await
    }
}

/// What is wrong with a history by a log.
pub(crate) fn replayed(history: &[Operation], log: Option<&Log>) -> Vec<Finding> {
    let Some(log) = log else {
        return vec![Finding::undecided("there is no log to judge by")];
    };
    Finding::of(revision::check(history, log), |found| {
        let Some(at) = found.operation else {
            return Finding::new(found.text);
        };
        let asked = first_key(&history[at].ask);
        Finding::at(found.key.as_deref().unwrap_or(asked), at, &found.text)
    })
}

/// The key that a question is about, or the first one.
fn first_key(ask: &Ask) -> &str {
    match ask {
        Ask::Range { key, .. } | Ask::Put { key, .. } | Ask::Delete { key, .. } => key,
        Ask::Txn { success, .. } => success.first().map_or("", first_key),
    }
}

/// Whether a key is among those that a question is about.
pub(crate) fn touches(ask: &Ask, one: &str) -> bool {
    match ask {
        Ask::Put { key, .. } => key == one,
        Ask::Range { key, end, .. } | Ask::Delete { key, end } => match end {
            Some(end) => (key.as_str()..end.as_str()).contains(&one),
            None => key == one,
        },
        Ask::Txn { success, failure, .. } => success.iter().chain(failure).any(|ask| touches(ask, one)),
    }
}

fn key(client: &Client) -> String {
    format!("k{}", client.below(KEYS))
}

/// One key, or some, or all.
fn end(client: &Client) -> Option<String> {
    match client.below(4) {
        0 => Some(format!("k{}", client.below(KEYS + 1))),
        1 => Some("l".into()),
        _ => None,
    }
}

fn put(client: &Client, number: u64) -> Ask {
    Ask::Put {
        key: key(client),
        value: format!("{}.{number}", client.id),
        lease: 0,
    }
}

fn range(client: &Client, serializable: bool) -> Ask {
    Ask::Range {
        key: key(client),
        end: end(client),
        revision: 0,
        serializable,
    }
}

fn delete(client: &Client) -> Ask {
    let many = client.once_in(8);
    Ask::Delete {
        key: key(client),
        end: if many { end(client) } else { None },
    }
}

fn compare(client: &Client) -> Compare {
    let key = key(client);
    match client.below(3) {
        0 => Compare::Modified { key, revision: 0 },
        1 => Compare::Version {
            key,
            version: 1 + client.below(3) as i64,
        },
        _ => Compare::Value {
            key,
            value: format!("{}.{}", client.id, client.below(50)),
        },
    }
}

/// What a client asks next; `number` makes its values its own.
pub(crate) fn next(client: &Client, number: u64) -> Ask {
    match client.below(100) {
        0..40 => put(client, number),
        40..48 => delete(client),
        48..70 => range(client, false),
        70..80 => range(client, true),
        _ => Ask::Txn {
            compare: (0..client.below(3)).map(|_| compare(client)).collect(),
            success: vec![put(client, number), range(client, false)],
            failure: vec![range(client, false)],
        },
    }
}
