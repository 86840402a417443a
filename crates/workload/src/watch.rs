//! Half of the clients write, half watch ranges of what is written: over broken connections and from node to node, each
//! going on where it had come to. Each watcher is held against the log.

use std::time::Duration;

use async_trait::async_trait;
use checker::Verdict;
use checker::watch::{self, Message, Watch};
use etcd_client::{WatchFilterType, WatchOptions};
use parking_lot::Mutex;

use crate::client::{Client, PATIENCE};
use crate::log::{self, Log};
use crate::{Finding, Tally, Workload};

/// Keys that are written.
const KEYS: u64 = 8;
/// How long a watch may be silent before its client believes that it is broken. Progress is asked for more often.
const SILENCE: Duration = Duration::from_millis(4000);

/// Revisions after which every range has seen something.
const EVENTS_ENOUGH: usize = 300;

/// What one watcher asked for and was sent.
#[derive(Debug, Clone, serde::Serialize)]
struct Watched {
    watch: Watch,
    messages: Vec<Message>,
}

/// The workload.
#[derive(Default)]
pub struct Watching {
    watched: Mutex<Vec<Watched>>,
    log: Mutex<Option<(Log, i64)>>,
    written: Mutex<Tally>,
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
        let count = self.watched.lock().len();
        for at in 0..count {
            while self.came_to(at) < read.1 {
                self.follow(client, at, Some(read.1)).await?;
            }
        }
        *self.log.lock() = Some(read);
        Ok(())
    }

    fn judge(&self) -> Vec<Finding> {
        let workload = self.name();
        let Some((log, through)) = &*self.log.lock() else {
            let text = "there is no log to judge by".into();
            return vec![Finding { workload, text }];
        };
        let (mut findings, mut valid) = (Vec::new(), 0);
        let mut undecided = None;
        for watched in &*self.watched.lock() {
            match watch::check(&watched.watch, &watched.messages, log, *through) {
                Verdict::Valid => valid += 1,
                Verdict::Unknown(why) => undecided = Some(format!("undecided: {why}")),
                Verdict::Violated(wrong) => {
                    let text = format!("{:?}: {:?}", watched.watch, wrong[0]);
                    findings.push(Finding { workload, text });
                }
            }
        }
        // Of one watcher, that nothing it wanted has happened; if that is so of all, nothing was shown.
        if let Some(text) = undecided.filter(|_| valid == 0 && log.len() > EVENTS_ENOUGH) {
            findings.push(Finding { workload, text });
        }
        findings
    }

    fn tally(&self) -> Tally {
        let events = self
            .watched
            .lock()
            .iter()
            .map(|watched| watched.messages.len() as u64)
            .sum::<u64>();
        let mut tally = *self.written.lock();
        tally.ok += events;
        tally
    }

    fn history(&self) -> String {
        let watched = self.watched.lock();
        let lines = watched
            .iter()
            .map(|watched| serde_json::to_string(watched).unwrap_or_default() + "\n");
        lines.collect()
    }
}

impl Watching {
    async fn write(&self, client: Client) {
        let mut number = 0;
        let (_, mut etcd) = client.connect(self.namespace()).await;
        while client.goes_on() {
            number += 1;
            let key = key(client.below(KEYS));
            let written = match client.once_in(5) {
                true => etcd.delete(key, None).await.map(drop),
                false => etcd
                    .put(key, format!("{}.{number}", client.id), None)
                    .await
                    .map(drop),
            };
            match written {
                Ok(()) => self.written.lock().ok += 1,
                Err(_) => {
                    self.written.lock().unknown += 1;
                    (_, etcd) = client.connect(self.namespace()).await;
                }
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
        let at = {
            let mut all = self.watched.lock();
            // One that wants neither puts nor deletions is worth a try, but not alone.
            watch.puts |= all.is_empty();
            all.push(Watched {
                watch,
                messages: Vec::new(),
            });
            all.len() - 1
        };
        while client.goes_on() {
            if self.follow(&client, at, None).await.is_err() {
                client.pause(10, 300).await;
            }
        }
    }

    /// The revision up to which everything was sent.
    fn came_to(&self, at: usize) -> i64 {
        let all = self.watched.lock();
        let last = all[at].messages.iter().rev().map(|message| match message {
            Message::Events { events, fragment } if !fragment => {
                events.last().map_or(0, |seen| seen.revision)
            }
            Message::Events { .. } => 0,
            Message::Progress(revision) => *revision,
        });
        last.max().unwrap_or(0).max(all[at].watch.start - 1)
    }

    /// One connection of a watcher: until it breaks, is silent for too long, or has come to `through`.
    async fn follow(&self, client: &Client, at: usize, through: Option<i64>) -> Result<(), String> {
        let watch = self.watched.lock()[at].watch.clone();
        let start = self.came_to(at) + 1;
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
        let (_, mut etcd) = client.connect(self.namespace()).await;
        let opened = tokio::time::timeout(PATIENCE, etcd.watch(watch.key.as_str(), Some(options))).await;
        let mut stream = opened
            .map_err(|_| "no watch in time")?
            .map_err(|error| error.to_string())?;
        let mut asked = tokio::time::Instant::now();
        let mut heard = asked;
        while through.map_or_else(|| client.goes_on(), |through| self.came_to(at) < through) {
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
                self.watched.lock()[at].messages.push(log::message(&next));
            }
        }
        Ok(())
    }
}
