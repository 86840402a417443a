//! What clients saw, in the order in which they finished, and how that is judged: by what is recorded and nothing else, so
//! that a record that was kept is judged again as it was at first.
//!
//! *Outcomes.* Only what was refused before anything was proposed is recorded as failed. No answer, a broken connection, a
//! time limit, an answer that says nothing about the fate: all that is unknown, and its client goes on under a new number.

use std::time::Duration;

use checker::edn;
use checker::history::{self, Kept, Operation, Outcome};
use checker::page::{self, Background};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::Code;

use crate::client::{Client, PATIENCE};
use crate::{Finding, Tally};

/// What a workload asks, is answered and has to know, and what its history must be like.
pub trait Judge: Sized + Send + Sync + 'static {
    /// What is asked.
    type Ask: Clone + Serialize + DeserializeOwned + Send + Sync;
    /// What is answered.
    type Answer: Clone + Serialize + DeserializeOwned + Send;
    /// What has to be known beside what clients saw.
    type Known: Clone + Default + Serialize + DeserializeOwned + Send;

    /// What is wrong.
    fn judge(past: &Past<Self>) -> Vec<Finding>;
    /// Whether an operation has to do with the key of a finding.
    fn concerns(_ask: &Self::Ask, _key: &str) -> bool {
        true
    }
    /// Whether it may be without an answer though nothing was wrong with the cluster.
    fn is_patient(_ask: &Self::Ask) -> bool {
        false
    }
}

/// An operation of a workload.
pub type Done<J> = Operation<<J as Judge>::Ask, <J as Judge>::Answer>;

/// Everything that is judged.
pub struct Past<J: Judge> {
    /// What clients saw.
    pub operations: Vec<Done<J>>,
    /// What has to be known besides.
    pub known: J::Known,
    /// Whether nothing was done to the cluster but what was asked of it.
    pub calm: bool,
}

/// What stands in a file beside the operations.
#[derive(Serialize, Deserialize)]
struct Beside<K> {
    calm: bool,
    known: K,
}

/// The past of a workload, while it is going on and after.
pub struct Record<J: Judge>(Mutex<Past<J>>);

impl<J: Judge> Default for Record<J> {
    fn default() -> Record<J> {
        Record(Mutex::new(Past {
            operations: Vec::new(),
            known: J::Known::default(),
            calm: false,
        }))
    }
}

/// A record, whatever is in it.
pub trait Recorded: Send + Sync {
    /// How many operations of which kind.
    fn tally(&self) -> Tally;
    /// What is wrong.
    fn judge(&self) -> Vec<Finding>;
    /// All of it as JSON lines.
    fn lines(&self, workload: &str) -> serde_json::Result<String>;
    /// All of it in EDN.
    fn edn(&self, workload: &str) -> serde_json::Result<String>;
    /// Takes what [`Recorded::lines`] wrote instead of what there is. The error names the line.
    fn take_lines(&self, text: &str) -> Result<(), String>;
    /// The same of [`Recorded::edn`].
    fn take_edn(&self, text: &str) -> Result<(), String>;
    /// A page that shows a finding; `None` if it is nowhere in the history.
    fn page(
        &self,
        workload: &str,
        finding: &Finding,
        background: &Background,
    ) -> serde_json::Result<Option<String>>;
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

impl<J: Judge> Record<J> {
    /// Does one operation and records it. Returns what was answered.
    pub async fn operate(
        &self,
        client: &Client,
        name: &mut Name,
        node: usize,
        ask: J::Ask,
        doing: impl Future<Output = Result<J::Answer, Outcome<()>>>,
    ) -> Option<J::Answer> {
        self.operate_for(client, name, (node, PATIENCE), ask, doing).await
    }

    /// As [`Record::operate`], with a time limit of its own beside the node.
    pub async fn operate_for(
        &self,
        client: &Client,
        name: &mut Name,
        (node, limit): (usize, Duration),
        ask: J::Ask,
        doing: impl Future<Output = Result<J::Answer, Outcome<()>>>,
    ) -> Option<J::Answer> {
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
        self.add(
            client,
            Operation {
                client: name.number(),
                node: node as u64 + 1,
                call_ns,
                return_ns: client.now_ns(),
                ask,
                outcome,
            },
        );
        if unknown {
            name.life += 1;
        }
        answer
    }

    /// Adds an operation of a client.
    pub fn add(&self, client: &Client, operation: Done<J>) {
        let mut past = self.0.lock();
        past.calm = client.site.calm;
        past.operations.push(operation);
    }

    /// Looks at what has to be known besides, or changes it.
    pub fn known<T>(&self, look: impl FnOnce(&mut J::Known) -> T) -> T {
        look(&mut self.0.lock().known)
    }

    fn take(&self, kept: Kept<J::Ask, J::Answer, Beside<J::Known>>) {
        *self.0.lock() = Past {
            operations: kept.operations,
            known: kept.beside.known,
            calm: kept.beside.calm,
        };
    }
}

impl<J: Judge> Past<J> {
    fn beside(&self) -> Beside<&J::Known> {
        Beside {
            calm: self.calm,
            known: &self.known,
        }
    }

    /// Operations whose fate nobody knows though nothing was wrong with the cluster.
    fn unanswered(&self) -> usize {
        let of_all = self.operations.iter();
        let late = of_all.filter(|operation| operation.is_unknown() && !J::is_patient(&operation.ask));
        late.count()
    }
}

impl<J: Judge> Recorded for Record<J> {
    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for operation in &self.0.lock().operations {
            match &operation.outcome {
                Outcome::Ok(_) => tally.ok += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::Unknown(_) => tally.unknown += 1,
            }
        }
        tally
    }

    fn judge(&self) -> Vec<Finding> {
        let past = self.0.lock();
        let mut findings = J::judge(&past);
        let unanswered = past.unanswered();
        if past.calm && unanswered > 0 {
            let text = format!("{unanswered} operations without an answer, and nothing was wrong");
            findings.push(Finding::new(text));
        }
        findings
    }

    fn lines(&self, workload: &str) -> serde_json::Result<String> {
        let past = self.0.lock();
        let mut out = Vec::new();
        history::write(&mut out, workload, &past.operations, &past.beside())
            .map_err(serde_json::Error::io)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn edn(&self, workload: &str) -> serde_json::Result<String> {
        let past = self.0.lock();
        edn::write(workload, &past.operations, &past.beside())
    }

    fn take_lines(&self, text: &str) -> Result<(), String> {
        let kept = history::read(text.as_bytes()).map_err(|error| error.to_string())?;
        self.take(kept);
        Ok(())
    }

    fn take_edn(&self, text: &str) -> Result<(), String> {
        let kept = edn::read(text).map_err(|error| error.to_string())?;
        self.take(kept);
        Ok(())
    }

    fn page(
        &self,
        workload: &str,
        finding: &Finding,
        background: &Background,
    ) -> serde_json::Result<Option<String>> {
        let past = self.0.lock();
        let Some(at) = &finding.at else { return Ok(None) };
        let concerned = |place: &usize| {
            *place == at.operation
                || at.others.contains(place)
                || J::concerns(&past.operations[*place].ask, &at.key)
        };
        let of: Vec<usize> = (0..past.operations.len()).filter(concerned).collect();
        let title = format!("{workload} {}", at.key);
        page::draw((&title, &finding.text), &past.operations, &of, at, background).map(Some)
    }
}
