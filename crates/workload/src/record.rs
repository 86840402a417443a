//! What clients saw, in the order in which they finished.
//!
//! *Outcomes.* Only what was refused before anything was proposed is recorded as failed. No answer, a broken connection, a
//! time limit, an answer that says nothing about the fate: all that is unknown, and its client goes on under a new number.

use std::time::Duration;

use checker::history::{Operation, Outcome};
use parking_lot::Mutex;
use serde::Serialize;
use tonic::Code;

use crate::Tally;
use crate::client::{Client, PATIENCE};

/// The operations of a workload.
pub struct Record<A, R> {
    operations: Mutex<Vec<Operation<A, R>>>,
}

impl<A, R> Default for Record<A, R> {
    fn default() -> Record<A, R> {
        Record {
            operations: Mutex::default(),
        }
    }
}

/// A client's number in the history. Another one after each unknown outcome.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    client: u64,
    life: u64,
}

impl Name {
    /// The first of a client.
    pub fn of(client: &Client) -> Name {
        Name {
            client: client.id,
            life: 0,
        }
    }

    /// As it stands in the history.
    pub fn number(self) -> u64 {
        self.client * 1_000_000 + self.life
    }
}

/// What an error of etcd's client says about the fate of a request.
pub fn fate(error: &etcd_client::Error) -> Outcome<()> {
    let text = error.to_string();
    match error {
        etcd_client::Error::GRpcStatus(status) => status_fate(status),
        etcd_client::Error::InvalidArgs(_) => Outcome::Failed(text),
        _ => Outcome::Unknown(text),
    }
}

/// What a status says about the fate of a request.
pub fn status_fate(status: &tonic::Status) -> Outcome<()> {
    let text = format!("{:?}: {}", status.code(), status.message());
    // Exhausted: no room on the disk, in a queue, in a quota. All of that is asked before anything is proposed, or is the
    // state machine's own refusal.
    let refused = [
        Code::ResourceExhausted,
        Code::InvalidArgument,
        Code::OutOfRange,
        Code::FailedPrecondition,
        Code::NotFound,
        Code::AlreadyExists,
        Code::Unimplemented,
    ];
    let not_sent = status.metadata().contains_key(proto::metadata::NOT_SENT);
    match not_sent || refused.contains(&status.code()) {
        true => Outcome::Failed(text),
        false => Outcome::Unknown(text),
    }
}

impl<A: Clone + Serialize, R: Clone + Serialize> Record<A, R> {
    /// Does one operation and records it. Returns what was answered.
    pub async fn operate(
        &self,
        client: &Client,
        name: &mut Name,
        node: usize,
        ask: A,
        doing: impl Future<Output = Result<R, Outcome<()>>>,
    ) -> Option<R> {
        self.operate_for(client, name, (node, PATIENCE), ask, doing).await
    }

    /// As [`Record::operate`], with a time limit of its own beside the node.
    pub async fn operate_for(
        &self,
        client: &Client,
        name: &mut Name,
        (node, limit): (usize, Duration),
        ask: A,
        doing: impl Future<Output = Result<R, Outcome<()>>>,
    ) -> Option<R> {
        let call_ns = client.now_ns();
        let outcome = match tokio::time::timeout(limit, doing).await {
            Ok(Ok(answer)) => Outcome::Ok(answer),
            Ok(Err(Outcome::Failed(text))) => Outcome::Failed(text),
            Ok(Err(Outcome::Unknown(text))) => Outcome::Unknown(text),
            Ok(Err(Outcome::Ok(()))) => Outcome::Unknown("no answer".into()),
            Err(_) => Outcome::Unknown("no answer in time".into()),
        };
        let answer = match &outcome {
            Outcome::Ok(answer) => Some(answer.clone()),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        };
        let unknown = matches!(outcome, Outcome::Unknown(_));
        self.operations.lock().push(Operation {
            client: name.number(),
            node: node as u64 + 1,
            call_ns,
            return_ns: client.now_ns(),
            ask,
            outcome,
        });
        if unknown {
            name.life += 1;
        }
        answer
    }

    /// All of them.
    pub fn operations(&self) -> Vec<Operation<A, R>> {
        self.operations.lock().clone()
    }

    /// How many of which kind.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &*self.operations.lock() {
            match &operation.outcome {
                Outcome::Ok(_) => tally.ok += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::Unknown(_) => tally.unknown += 1,
            }
        }
        tally
    }

    /// As JSON lines.
    pub fn lines(&self, workload: &str) -> String {
        let mut out = Vec::new();
        match checker::history::write(&mut out, workload, &self.operations.lock()) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(error) => format!("cannot be written: {error}\n"),
        }
    }
}
