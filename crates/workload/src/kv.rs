//! Puts, deletes, reads of all kinds and transactions on few keys, judged by the order of revisions: every answer carries
//! its revision, and the log tells what each revision did.

use async_trait::async_trait;
use checker::Verdict;
use checker::revision::{self, Answer, Ask, Compare};
use parking_lot::Mutex;

use crate::client::Client;
use crate::log::{self, Log};
use crate::record::{Name, Record};
use crate::{Finding, Tally, Workload, etcd};

/// Keys that all clients share.
const KEYS: u64 = 6;

/// The workload.
#[derive(Default)]
pub struct Kv {
    record: Record<Ask, Answer>,
    log: Mutex<Option<Log>>,
}

#[async_trait]
impl Workload for Kv {
    fn name(&self) -> &'static str {
        "kv"
    }

    async fn work(&self, client: Client) {
        let mut name = Name::of(&client);
        let mut number = 0;
        let (mut node, mut etcd) = client.connect(self.namespace()).await;
        while client.goes_on() {
            number += 1;
            let ask = next(&client, number);
            let doing = etcd::ask(&mut etcd, &ask);
            let answer = self
                .record
                .operate(&client, &mut name, node, ask.clone(), doing)
                .await;
            if answer.is_none() || client.once_in(50) {
                (node, etcd) = client.connect(self.namespace()).await;
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
            true => *self.log.lock() = Some(first),
            false => return Err("two nodes tell different histories".into()),
        }
        Ok(())
    }

    fn judge(&self) -> Vec<Finding> {
        let verdict = match &*self.log.lock() {
            None => Verdict::Unknown("there is no log to judge by".into()),
            Some(log) => revision::check(&self.record.operations(), log),
        };
        Finding::of(self.name(), verdict)
    }

    fn tally(&self) -> Tally {
        self.record.tally()
    }

    fn history(&self) -> String {
        self.record.lines(self.name())
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
