//! Probers: each puts one small key of one partition again and again, as a user of crate `client` would, and notes when
//! it was told that it is there.
//!
//! A put that gets no answer holds the next one back for a while only: else one request that was lost with a leader would
//! look like a pause of the partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Client, Options};
use env::{Clock, SystemClock};
use parking_lot::Mutex;
use proto::v1::SlotRange;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use types::Slot;

/// How long a put that is not answered holds back the next.
const HELD_BACK: Duration = Duration::from_millis(50);
/// Puts of one prober that nobody has answered yet, at most.
const WAITING: usize = 24;
/// Answers that show that a prober works.
const WORKS: usize = 10;
/// How long probers may take to begin.
const BEGINNING: Duration = Duration::from_secs(30);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(50);
/// The key.
const KEY: &str = "probe";

/// How often a prober puts, and how long it waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one put to the next.
    pub every: Duration,
    /// A put that took longer has failed.
    pub deadline: Duration,
}

/// What a prober saw, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When puts were acknowledged, in order.
    pub acked_ns: Vec<u64>,
    /// When puts failed, and how.
    pub failed: Vec<(u64, String)>,
}

/// A prober at work.
struct Prober {
    partition: u32,
    seen: Arc<Mutex<Seen>>,
}

/// All probers of a round. They stop when it is dropped.
pub struct Probers {
    clock: Arc<SystemClock>,
    pace: Pace,
    probers: Vec<Prober>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Probers {
    /// One for each of these partitions, with the key space it has there, through these endpoints.
    pub async fn begin(
        places: &[(u32, String)],
        endpoints: &[String],
        pace: Pace,
        clock: Arc<SystemClock>,
    ) -> Result<Probers> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let mut probers = Vec::new();
        for (at, (partition, namespace)) in places.iter().enumerate() {
            let options = Options {
                first: at,
                ..Options::default()
            };
            let client = Client::new(endpoints, options)?;
            let kv = client.kv(namespace).await?;
            let seen = Arc::new(Mutex::new(Seen::default()));
            let later = pace.every * at as u32 / places.len() as u32;
            let work = work(kv, pace, clock.clone(), seen.clone(), stop.clone());
            tasks.spawn(async move {
                // Not all at the same moment.
                tokio::time::sleep(later).await;
                work.await;
            });
            probers.push(Prober {
                partition: *partition,
                seen,
            });
        }
        let probers = Probers {
            clock,
            pace,
            probers,
            stop,
            tasks,
        };
        match probers.have_answers(0, BEGINNING).await {
            true => Ok(probers),
            false => bail!("nothing is answered before anything was done"),
        }
    }

    /// Waits until each has had some answers since a moment, the last of them just now. False if that takes too long.
    pub async fn have_answers(&self, since_ns: u64, limit: Duration) -> bool {
        let end = self.clock.now() + limit;
        let lately = (10 * self.pace.every + HELD_BACK).as_nanos() as u64;
        loop {
            let now = self.clock.now();
            let works = |prober: &Prober| {
                let seen = prober.seen.lock();
                let since = seen.acked_ns.partition_point(|at| *at <= since_ns);
                let last = seen.acked_ns.last().copied().unwrap_or_default();
                seen.acked_ns.len() - since >= WORKS && last + lately >= now.as_nanos() as u64
            };
            if self.probers.iter().all(works) {
                return true;
            }
            if now >= end {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends them. What each saw, by partition.
    pub async fn end(mut self) -> Result<Vec<(u32, Seen)>> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a prober panicked")?;
        }
        let seen = self.probers.iter().map(|prober| {
            let seen = std::mem::take(&mut *prober.seen.lock());
            (prober.partition, seen)
        });
        Ok(seen.collect())
    }
}

async fn work(
    kv: etcd_client::Client,
    pace: Pace,
    clock: Arc<SystemClock>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
) {
    let mut ticks = tokio::time::interval(pace.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut puts = JoinSet::new();
    let mut last = Duration::ZERO;
    let mut number: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        while puts.try_join_next().is_some() {}
        let held_back = !puts.is_empty() && clock.now() < last + HELD_BACK;
        if held_back || puts.len() >= WAITING {
            continue;
        }
        last = clock.now();
        number += 1;
        puts.spawn(put(
            kv.clone(),
            number,
            pace.deadline,
            clock.clone(),
            seen.clone(),
        ));
    }
}

async fn put(
    mut kv: etcd_client::Client,
    number: u64,
    deadline: Duration,
    clock: Arc<SystemClock>,
    seen: Arc<Mutex<Seen>>,
) {
    let done = tokio::time::timeout(deadline, kv.put(KEY, number.to_string(), None)).await;
    let mut seen = seen.lock();
    let now_ns = clock.now().as_nanos() as u64;
    match done {
        Ok(Ok(_)) => seen.acked_ns.push(now_ns),
        Ok(Err(error)) => seen.failed.push((now_ns, error.to_string())),
        Err(_) => seen
            .failed
            .push((now_ns, format!("no answer within {} ms", deadline.as_millis()))),
    }
}

/// A key space in each partition but the meta partition, by the slots of the map.
pub fn places(slots: &[SlotRange], partitions: u32) -> Vec<(u32, String)> {
    let partition_of = |name: &str| {
        let slot = u32::from(Slot::of_namespace(name).0);
        let range = slots
            .iter()
            .find(|range| (range.first..=range.last).contains(&slot));
        range.map(|range| range.partition)
    };
    let mut places: Vec<(u32, String)> = Vec::new();
    for name in (0..u32::from(types::id::SLOTS)).map(|number| format!("probe-{number}")) {
        let Some(partition) = partition_of(&name) else {
            continue;
        };
        let wanted = (1..=partitions).contains(&partition);
        if wanted && !places.iter().any(|(taken, _)| *taken == partition) {
            places.push((partition, name));
        }
    }
    places.sort_unstable();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_gets_a_key_space_of_its_own() {
        for partitions in [1, 3, 64] {
            let width = u32::from(types::id::SLOTS).div_ceil(partitions);
            let slots: Vec<SlotRange> = (0..partitions)
                .map(|at| SlotRange {
                    first: at * width,
                    last: ((at + 1) * width).min(u32::from(types::id::SLOTS)) - 1,
                    partition: at + 1,
                })
                .collect();
            let places = places(&slots, partitions);
            let found: Vec<u32> = places.iter().map(|(partition, _)| *partition).collect();
            assert_eq!(found, (1..=partitions).collect::<Vec<u32>>());
            for (partition, name) in &places {
                let slot = u32::from(Slot::of_namespace(name).0);
                assert_eq!(slot / width + 1, *partition, "{name}");
            }
        }
        assert!(places(&[], 3).is_empty());
    }
}
