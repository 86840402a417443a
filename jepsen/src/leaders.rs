//! Who led each partition, and when: asked for as long as a run lasts, for the pages of what went wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use checker::page::Band;
use client::{Client, Options};
use env::Clock;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use types::Slot;
use workload::Workload;

/// The partition that knows of the cluster.
const META: u32 = 0;
/// Between two questions.
const LOOK: Duration = Duration::from_millis(250);
/// A question without an answer for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// One line of `leaders.jsonl`: somebody led a partition, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    /// The partition.
    pub partition: u32,
    /// The node.
    pub node: u64,
    /// In this term.
    pub term: u64,
    /// First seen: since the run began, as the histories count.
    pub from_ms: u64,
    /// Last seen.
    pub to_ms: u64,
}

impl Led {
    /// To be drawn.
    pub fn band(&self) -> Band {
        Band {
            from_ns: self.from_ms * 1_000_000,
            to_ns: self.to_ms * 1_000_000,
            text: format!("node {} led in term {}", self.node, self.term),
        }
    }
}

/// What was seen, by partition, term and node: the first time, and the last. More than one may believe at a time that it
/// leads.
#[derive(Debug, Default)]
struct Seen(BTreeMap<(u32, u64, u64), (u64, u64)>);

impl Seen {
    fn add(&mut self, now: Duration, partition: u32, term: u64, node: u64) {
        let now_ms = now.as_millis() as u64;
        let span = self.0.entry((partition, term, node)).or_insert((now_ms, now_ms));
        *span = (span.0.min(now_ms), span.1.max(now_ms));
    }

    fn all(&self) -> Vec<Led> {
        let all = self.0.iter();
        all.map(|((partition, term, node), (from_ms, to_ms))| Led {
            partition: *partition,
            node: *node,
            term: *term,
            from_ms: *from_ms,
            to_ms: *to_ms,
        })
        .collect()
    }
}

/// Asks until it is dropped.
pub struct Leaders {
    client: Client,
    seen: Arc<Mutex<Seen>>,
    asking: Vec<JoinHandle<()>>,
}

impl Leaders {
    /// Begins to ask these controllers, each for itself: one that is cut off sees something else than the others.
    pub fn watch(endpoints: &[String], clock: Arc<dyn Clock>) -> Result<Leaders> {
        let client =
            |endpoints: &[String]| Client::new(endpoints, Options::default()).context("cannot ask who leads");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let asking = endpoints.iter().map(|endpoint| {
            let one = client(std::slice::from_ref(endpoint))?;
            Ok(tokio::spawn(ask(one, clock.clone(), seen.clone())))
        });
        Ok(Leaders {
            client: client(endpoints)?,
            asking: asking.collect::<Result<_>>()?,
            seen,
        })
    }

    /// All that was seen so far.
    pub fn seen(&self) -> Vec<Led> {
        self.seen.lock().all()
    }

    /// The partition that each workload asks.
    pub async fn partitions(&self, workloads: &[Arc<dyn Workload>]) -> Result<BTreeMap<String, u32>> {
        let map = self.client.map().await.context("cannot ask for the map")?;
        let partition = |workload: &Arc<dyn Workload>| {
            if workload.is_about_the_cluster() {
                return Some(META);
            }
            let slot = u32::from(Slot::of_namespace(workload.namespace()).0);
            let mut ranges = map.slots.iter();
            let range = ranges.find(|range| (range.first..=range.last).contains(&slot))?;
            Some(range.partition)
        };
        let known = workloads
            .iter()
            .filter_map(|workload| Some((workload.name().to_owned(), partition(workload)?)));
        Ok(known.collect())
    }
}

impl Drop for Leaders {
    fn drop(&mut self) {
        self.asking.iter().for_each(JoinHandle::abort);
    }
}

async fn ask(client: Client, clock: Arc<dyn Clock>, seen: Arc<Mutex<Seen>>) {
    loop {
        // Whoever cannot say now is asked again.
        if let Ok(Ok(partitions)) = tokio::time::timeout(PATIENCE, client.partitions(&[])).await {
            let now = clock.now();
            let mut seen = seen.lock();
            for partition in partitions.iter().filter(|it| it.leader_node != 0) {
                seen.add(now, partition.id, partition.term, partition.leader_node);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_one_band_as_long_as_anybody_sees_it() {
        let mut seen = Seen::default();
        let looks = [
            (100, 1, 5, 1),
            (100, 2, 4, 3),
            (350, 1, 5, 1),
            (900, 1, 6, 2),
            // The one that was deposed does not know it yet.
            (1100, 1, 5, 1),
            (1300, 1, 6, 2),
            (1300, 2, 4, 3),
        ];
        for (ms, partition, term, node) in looks {
            seen.add(Duration::from_millis(ms), partition, term, node);
        }
        let found: Vec<String> = seen
            .all()
            .iter()
            .map(|led| format!("{} {:?}", led.partition, led.band()))
            .collect();
        let band = |from_ms: u64, to_ms: u64, text: &str| Band {
            from_ns: from_ms * 1_000_000,
            to_ns: to_ms * 1_000_000,
            text: text.to_owned(),
        };
        let wanted = [
            (1, band(100, 1100, "node 1 led in term 5")),
            (1, band(900, 1300, "node 2 led in term 6")),
            (2, band(100, 1300, "node 3 led in term 4")),
        ];
        assert_eq!(
            found,
            wanted.map(|(partition, band)| format!("{partition} {band:?}"))
        );
    }
}
