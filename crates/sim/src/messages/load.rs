//! Registers asked of replicas directly: commands that are proposed, and reads at a point that a majority confirmed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use checker::history::Outcome;
use checker::register::{Answer, Ask};
use machine::command::{
    Body, Compare, DeleteRangeRequest, Operation, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use machine::outcome::Done;
use machine::query::{Ask as Question, Told};
use machine::{Command, Query};
use raft::{ProposeError, Replica};
use types::{PartitionId, Slot};
use workload::Client;
use workload::register::Asked;
use xxhash_rust::xxh3::xxh3_64;

use super::cluster::Members;

/// How long a proposal or a read is waited for.
const LIMIT: Duration = Duration::from_millis(1500);
/// How often a client follows a hint to another leader.
const HINTS: usize = 3;
/// Compares values, as in etcd.
const VALUE: i32 = 3;
/// Compares versions.
const VERSION: i32 = 0;

/// One client, at one node at a time.
pub struct Direct {
    members: Arc<Members>,
    client: Client,
    node: usize,
}

/// Why there is no answer.
type NoAnswer = Outcome<()>;

impl Direct {
    /// A client at any node.
    pub fn new(members: Arc<Members>, client: Client) -> Direct {
        let node = client.any_node();
        Direct {
            members,
            client,
            node,
        }
    }

    /// A message on its way between this client and a node.
    async fn travel(&self) {
        let (low, high) = self.members.latency_ms;
        let ms = self.client.site.env.rng.between(low, high + 1);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// Asks the node here, or who is said to lead there.
    async fn ask(&self, key: &str, ask: &Ask) -> Result<Answer, NoAnswer> {
        let partition =
            PartitionId(1 + (xxh3_64(key.as_bytes()) % u64::from(self.members.partitions)) as u32);
        let mut at = self.node;
        for _ in 0..HINTS {
            let Some(replica) = self.members.replica(at, partition) else {
                return Err(Outcome::Failed("there is no replica".into()));
            };
            match replica.leader() {
                _ if replica.is_leader() => return perform(&replica, key, ask).await,
                Some((_, node)) => at = node.0 as usize - 1,
                None => break,
            }
        }
        Err(Outcome::Failed("nobody is said to lead".into()))
    }
}

#[async_trait]
impl Asked for Direct {
    fn node(&self) -> usize {
        self.node
    }

    async fn turn(&mut self) {
        self.node = self.client.any_node();
    }

    async fn perform(&mut self, key: &str, ask: &Ask) -> Result<Answer, NoAnswer> {
        self.travel().await;
        let answer = self.ask(key, ask).await;
        self.travel().await;
        answer
    }
}

async fn perform(replica: &Replica, key: &str, ask: &Ask) -> Result<Answer, NoAnswer> {
    let key = Bytes::from(key.to_owned());
    let body = match ask {
        Ask::Read => return read(replica, key).await,
        Ask::Write(value) => Body::Put(put(key, *value)),
        Ask::Delete => Body::DeleteRange(DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        }),
        Ask::Cas { from, to } => Body::Txn(swap(key, *from, *to)),
    };
    let slot = u32::from(Slot::of_namespace("default").0);
    let command = Command {
        principal: "root".into(),
        slot,
        namespace: 1,
        body: Some(body),
        ..Command::default()
    };
    let proposed = replica
        .propose(command, LIMIT)
        .await
        .map_err(|error| match error {
            ProposeError::Unknown(text) => Outcome::Unknown(text),
            error => Outcome::Failed(error.to_string()),
        })?;
    match proposed.reply.done {
        Some(Done::Txn(txn)) => Ok(Answer::Swapped(txn.succeeded)),
        Some(Done::Put(_) | Done::Deleted(_)) => Ok(Answer::Done),
        Some(Done::Refused(refused)) => Err(Outcome::Failed(format!("{refused:?}"))),
        other => Err(Outcome::Unknown(format!(
            "an answer to something else: {other:?}"
        ))),
    }
}

fn put(key: Bytes, value: u64) -> PutRequest {
    PutRequest {
        key,
        value: Bytes::from(value.to_string()),
        ..PutRequest::default()
    }
}

fn swap(key: Bytes, from: Option<u64>, to: u64) -> TxnRequest {
    let holds = Compare {
        target: from.map_or(VERSION, |_| VALUE),
        key: key.clone(),
        value: from.map(|from| Bytes::from(from.to_string())).unwrap_or_default(),
        ..Compare::default()
    };
    let then = RequestOp {
        operation: Some(Operation::Put(put(key, to))),
    };
    TxnRequest {
        compare: vec![holds],
        success: vec![then],
        failure: Vec::new(),
    }
}

async fn read(replica: &Replica, key: Bytes) -> Result<Answer, NoAnswer> {
    // Nothing happened, whatever went wrong.
    let failed = |text: String| Outcome::Failed(text);
    let point = replica.read_index(LIMIT).await;
    let point = point.map_err(|error| failed(error.to_string()))?;
    let applied = replica.wait_applied(point.index, LIMIT).await;
    applied.map_err(|error| failed(error.to_string()))?;
    let range = RangeRequest {
        key,
        ..RangeRequest::default()
    };
    let query = Query {
        slot: u32::from(Slot::of_namespace("default").0),
        namespace: 1,
        ask: Some(Question::Range(range)),
        ..Query::default()
    };
    let store = replica.store();
    let answer = machine::answer(&*store.latest(), &query).map_err(|error| failed(error.to_string()))?;
    let Some(Told::Range(range)) = answer.told else {
        return Err(failed("an answer to something else".into()));
    };
    let value = range
        .kvs
        .first()
        .map(|kv| String::from_utf8_lossy(&kv.value).parse());
    let value = value.transpose().map_err(|_| failed("no number".into()))?;
    Ok(Answer::Value(value))
}
