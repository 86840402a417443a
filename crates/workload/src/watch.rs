//! Half of the clients write, half watch ranges of what is written: over broken connections and from node to node, each
//! going on where it had come to. Each watcher is held against the log.

use std::time::Duration;

use async_trait::async_trait;
use checker::Verdict;
use checker::history::{Operation, Outcome};
use checker::watch::{self, Message, Watch};
use etcd_client::{Client as Etcd, WatchFilterType, WatchOptions};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::client::{Client, PATIENCE};
use crate::log::{self, Log};
use crate::process::{OverEtcd, Process};
use crate::record::{Judge, Name, Past, Record, Recorded, fate};
use crate::{Finding, Workload};

/// Keys that are written.
const KEYS: u64 = 8;
/// How long a watch may be silent before its client believes that it is broken. Progress is asked for more often.
const SILENCE: Duration = Duration::from_millis(4000);

/// Revisions after which every range has seen something.
const EVENTS_ENOUGH: usize = 300;

/// What clients do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Writes a key.
    Put {
        /// Which.
        key: String,
        /// What to.
        value: String,
    },
    /// Removes a key.
    Delete(String),
    /// Waits for the next message to this watcher.
    Watch(usize),
}

/// What they get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is written, or gone.
    Done,
    /// A message.
    Told(Message),
}

/// What watchers are held against.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Known {
    /// What each of them asked for.
    watches: Vec<Watch>,
    /// What happened, and up to which revision each must have come.
    log: Option<(Log, i64)>,
}

/// The workload.
#[derive(Default)]
pub struct Watching {
    record: Record<Watching>,
    /// Up to which revision each watcher was sent everything.
    came_to: Mutex<Vec<i64>>,
}

/// In the order of their numbers.
fn key(number: u64) -> String {
    format!("k{number:02}")
}

#[async_trait]
impl Workload for Watching {
    fn name(&self) -> &'static str {
        "watch"
    }

    async fn work(&self, client: Client) {
        match client.id % 2 {
            0 => self.write(client).await,
            _ => self.watch(client).await,
        }
    }

    async fn finish(&self, client: &Client) -> Result<(), String> {
        let read = log::read(client, client.any_node(), self.namespace()).await?;
        // Watchers may be behind: each goes on from where it was.
        let count = self.came_to.lock().len();
        for at in 0..count {
            while self.came_to.lock()[at] < read.1 {
                self.follow(client, at, Some(read.1)).await?;
            }
        }
        self.record.known(|known| known.log = Some(read));
        Ok(())
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Watching {
    type Ask = Ask;
    type Answer = Answer;
    type Known = Known;

    fn judge(past: &Past<Watching>) -> Vec<Finding> {
        let Some((log, through)) = &past.known.log else {
            return vec![Finding::undecided("there is no log to judge by")];
        };
        let (mut findings, mut valid) = (Vec::new(), 0);
        let mut undecided = None;
        for (at, watch) in past.known.watches.iter().enumerate() {
            let told = told(past, at);
            let messages: Vec<Message> = told.iter().map(|told| told.1.clone()).collect();
            match watch::check(watch, &messages, log, *through) {
                Verdict::Valid => valid += 1,
                Verdict::Unknown(why) => undecided = Some(Finding::undecided(&why)),
                Verdict::Violated(wrong) => {
                    let text = format!("{watch:?}: {}", wrong[0].text);
                    // What is missing in the end is missing after the last.
                    let message = told.get(wrong[0].message).or(told.last());
                    findings.push(match message {
                        Some((place, _)) => Finding::at(&at.to_string(), *place, &text),
                        None => Finding::new(text),
                    });
                }
            }
        }
        // Of one watcher, that nothing it wanted has happened; if that is so of all, nothing was shown.
        findings.extend(undecided.filter(|_| valid == 0 && log.len() > EVENTS_ENOUGH));
        findings
    }

    fn concerns(ask: &Ask, watcher: &str) -> bool {
        match ask {
            Ask::Watch(at) => at.to_string() == watcher,
            Ask::Put { .. } | Ask::Delete(_) => true,
        }
    }
}

/// What a watcher was told, and where that stands in the history.
fn told(past: &Past<Watching>, watcher: usize) -> Vec<(usize, &Message)> {
    let all = past.operations.iter().enumerate();
    let messages = all.filter_map(|(place, operation)| match (&operation.ask, operation.answer()) {
        (Ask::Watch(at), Some(Answer::Told(message))) if *at == watcher => Some((place, message)),
        _ => None,
    });
    messages.collect()
}

impl Watching {
    async fn write(&self, client: Client) {
        let mut number = 0;
        let mut process = Process::start(&self.record, &client, self.namespace()).await;
        while client.goes_on() {
            number += 1;
            let key = key(client.below(KEYS));
            let ask = match client.once_in(5) {
                true => Ask::Delete(key),
                false => Ask::Put {
                    key,
                    value: format!("{}.{number}", client.id),
                },
            };
            if process.ask(ask).await.is_none() {
                process.turn().await;
            }
            client.pause(0, 60).await;
        }
    }

    async fn watch(&self, client: Client) {
        let from = client.below(KEYS);
        let mut watch = Watch {
            key: key(from),
            end: (!client.once_in(3)).then(|| key(from + 1 + client.below(KEYS))),
            start: 2,
            puts: !client.once_in(6),
            deletes: !client.once_in(6),
            previous: client.once_in(2),
        };
        let at = self.record.known(|known| {
            // One that wants neither puts nor deletions is worth a try, but not alone.
            watch.puts |= known.watches.is_empty();
            self.came_to.lock().push(watch.start - 1);
            known.watches.push(watch);
            known.watches.len() - 1
        });
        while client.goes_on() {
            if self.follow(&client, at, None).await.is_err() {
                client.pause(10, 300).await;
            }
        }
    }

    /// Takes what a watcher was told at last.
    fn take(&self, client: &Client, (at, node): (usize, usize), call_ns: u64, message: Message) {
        let revision = match &message {
            Message::Events { events, fragment } if !fragment => events.last().map(|seen| seen.revision),
            Message::Events { .. } => None,
            Message::Progress(revision) => Some(*revision),
        };
        if let Some(came_to) = self.came_to.lock().get_mut(at) {
            *came_to = revision.unwrap_or(0).max(*came_to);
        }
        let operation = Operation {
            client: Name::of(client).number(),
            node: node as u64 + 1,
            call_ns,
            return_ns: client.now_ns(),
            ask: Ask::Watch(at),
            outcome: Outcome::Ok(Answer::Told(message)),
        };
        self.record.add(client, operation);
    }

    /// One connection of a watcher: until it breaks, is silent for too long, or has come to `through`.
    async fn follow(&self, client: &Client, at: usize, through: Option<i64>) -> Result<(), String> {
        let watch = self.record.known(|known| known.watches[at].clone());
        let start = self.came_to.lock()[at] + 1;
        let mut options = WatchOptions::new()
            .with_start_revision(start)
            .with_progress_notify();
        if let Some(end) = &watch.end {
            options = options.with_range(end.as_str());
        }
        if watch.previous {
            options = options.with_prev_key();
        }
        let filters = [
            (!watch.puts, WatchFilterType::NoPut),
            (!watch.deletes, WatchFilterType::NoDelete),
        ];
        let filters: Vec<_> = filters
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, filter)| filter)
            .collect();
        options = options.with_filters(filters);
        let (node, mut etcd) = client.connect(self.namespace()).await;
        let opened = tokio::time::timeout(PATIENCE, etcd.watch(watch.key.as_str(), Some(options))).await;
        let mut stream = opened
            .map_err(|_| "no watch in time")?
            .map_err(|error| error.to_string())?;
        let mut asked = tokio::time::Instant::now();
        let (mut heard, mut call_ns) = (asked, client.now_ns());
        while through.map_or_else(|| client.goes_on(), |through| self.came_to.lock()[at] < through) {
            if asked.elapsed() > SILENCE / 4 {
                asked = tokio::time::Instant::now();
                let _ = stream.request_progress().await;
            }
            let next = match tokio::time::timeout(SILENCE / 4, stream.message()).await {
                Ok(next) => next
                    .map_err(|error| error.to_string())?
                    .ok_or("the watch ended")?,
                Err(_) if heard.elapsed() < SILENCE => continue,
                Err(_) => return Err("the watch is silent".into()),
            };
            heard = tokio::time::Instant::now();
            if next.canceled() {
                return Err(format!("cancelled: {}", next.cancel_reason()));
            }
            if !next.created() {
                self.take(client, (at, node), call_ns, log::message(&next));
                call_ns = client.now_ns();
            }
        }
        Ok(())
    }
}

#[async_trait]
impl OverEtcd for Watching {
    async fn perform(etcd: &mut Etcd, ask: &Ask) -> Result<Answer, Outcome<()>> {
        let done = match ask {
            Ask::Put { key, value } => etcd.put(key.as_str(), value.as_str(), None).await.map(drop),
            Ask::Delete(key) => etcd.delete(key.as_str(), None).await.map(drop),
            Ask::Watch(_) => return Err(Outcome::Failed("a watcher does not write".into())),
        };
        done.map_err(|error| fate(&error))?;
        Ok(Answer::Done)
    }
}
