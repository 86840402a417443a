//! As `kv`, while history is compacted: what is live stays, at every revision that is still there. One client follows all
//! changes from the first, so that the log is known though the cluster forgets it; nothing is compacted that it has not
//! seen.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use checker::history::Outcome;
use checker::revision::{Answer, Ask};
use checker::watch::Message;
use etcd_client::{Client as Etcd, WatchOptions};
use serde::{Deserialize, Serialize};

use crate::client::{Client, PATIENCE};
use crate::log::{self, Log};
use crate::process::{OverEtcd, Process};
use crate::record::{Judge, Past, Record, Recorded};
use crate::{Finding, Workload, etcd, kv};

/// How far back reads go.
const BACK: u64 = 60;

/// What was followed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Followed {
    log: Log,
    /// Whether that is all of it.
    whole: bool,
}

/// The workload.
#[derive(Default)]
pub struct Compaction {
    record: Record<Compaction>,
    /// Up to which revision the log is known.
    known: AtomicI64,
    followed: AtomicBool,
}

#[async_trait]
impl Workload for Compaction {
    fn name(&self) -> &'static str {
        "compact"
    }

    async fn work(&self, client: Client) {
        if !self.followed.swap(true, Ordering::Relaxed) {
            while client.goes_on() {
                // Whatever ends it: from where it was.
                let _ = self.follow(&client, None).await;
                client.pause(10, 200).await;
            }
            return;
        }
        let mut number = 0;
        let mut process = Process::start(&self.record, &client, self.namespace()).await;
        while client.goes_on() {
            number += 1;
            if client.once_in(25) {
                self.compact(&client, process.etcd()).await;
            }
            let ask = match client.once_in(4) {
                true => self.past(&client),
                false => kv::next(&client, number),
            };
            // What is compacted is refused, wherever one asks.
            let may_be_refused = matches!(ask, Ask::Range { revision: 1.., .. });
            if process.ask(ask).await.is_none() && !may_be_refused || client.once_in(50) {
                process.turn().await;
            }
            client.pause(0, 30).await;
        }
    }

    async fn finish(&self, client: &Client) -> Result<(), String> {
        let mut through = 0;
        for node in 0..client.site.endpoints.len() {
            let mut process = Process::start_at(&self.record, client, self.namespace(), node).await;
            let ask = Ask::Range {
                key: "a".into(),
                end: Some("z".into()),
                revision: 0,
                serializable: false,
            };
            let read = process.ask(ask).await;
            through = read.ok_or("the last read was not answered")?.revision;
        }
        while self.known.load(Ordering::Relaxed) < through {
            self.follow(client, Some(through)).await?;
        }
        self.record.known(|followed| followed.whole = true);
        Ok(())
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Compaction {
    type Ask = Ask;
    type Answer = Answer;
    type Known = Followed;

    fn judge(past: &Past<Compaction>) -> Vec<Finding> {
        let Followed { log, whole } = &past.known;
        kv::replayed(&past.operations, whole.then_some(log))
    }

    fn concerns(ask: &Ask, key: &str) -> bool {
        kv::touches(ask, key)
    }
}

#[async_trait]
impl OverEtcd for Compaction {
    async fn perform(etcd: &mut Etcd, ask: &Ask) -> Result<Answer, Outcome<()>> {
        etcd::ask(etcd, ask).await
    }
}

impl Compaction {
    /// A read of some keys as they were.
    fn past(&self, client: &Client) -> Ask {
        let known = self.known.load(Ordering::Relaxed);
        Ask::Range {
            key: "a".into(),
            end: Some("z".into()),
            revision: (known - client.below(BACK) as i64).max(1),
            serializable: client.once_in(3),
        }
    }

    /// Forgets what is older than some revision that the follower has seen. Whether that was done does not matter here.
    async fn compact(&self, client: &Client, etcd: &mut Etcd) {
        let known = self.known.load(Ordering::Relaxed);
        let through = known - client.below(BACK / 2) as i64;
        if through > 1 {
            let _ = tokio::time::timeout(PATIENCE, etcd.compact(through, None)).await;
        }
    }

    /// Takes in what happened since, until the watch breaks, is silent for long, or has come to `through`.
    async fn follow(&self, client: &Client, through: Option<i64>) -> Result<(), String> {
        let known = || self.known.load(Ordering::Relaxed);
        let (_, mut etcd) = client.connect(self.namespace()).await;
        let options = WatchOptions::new()
            .with_all_keys()
            .with_start_revision((known() + 1).max(2));
        let opened = tokio::time::timeout(PATIENCE, etcd.watch("", Some(options))).await;
        let opened = opened.map_err(|_| "no watch in time")?;
        let mut stream = opened.map_err(|error| error.to_string())?;
        while through.map_or_else(|| client.goes_on(), |through| known() < through) {
            let next = tokio::time::timeout(2 * PATIENCE, stream.message()).await;
            let next = next.map_err(|_| "the watch is silent")?;
            let next = next
                .map_err(|error| error.to_string())?
                .ok_or("the watch ended")?;
            if next.canceled() {
                return Err(format!("cancelled: {}", next.cancel_reason()));
            }
            if let Message::Events { events, .. } = log::message(&next) {
                self.record.known(|followed| {
                    for seen in events {
                        self.known.fetch_max(seen.revision, Ordering::Relaxed);
                        followed.log.entry(seen.revision).or_default().push(seen.event);
                    }
                });
            }
        }
        Ok(())
    }
}
