//! One round: a node that leads is struck while all partitions are written, mended, and what each partition felt of it is
//! told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::Client;
use env::{Clock, SystemClock};
use serde::Serialize;
use workload::numbers::Numbers;

use super::fault::{self, Fault};
use super::prober::{Pace, Probers, Seen};
use crate::cluster::Cluster;
use crate::settled;
use crate::spread::{self, Gap};

/// Puts before the strike: what gaps there are without one.
const USUAL: Duration = Duration::from_secs(2);
/// How long writes may be away.
const LIMIT: Duration = Duration::from_secs(30);
/// After the mending, before anybody asks whether all is in order: questions cost time that writes lack.
const QUIET: Duration = Duration::from_secs(2);
/// Puts after all is in order.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// How long leaders may take to be spread evenly again.
const BALANCING: Duration = Duration::from_secs(60);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(500);

/// What one partition felt of one fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The fault.
    pub fault: Fault,
    /// The round.
    pub round: u32,
    /// The partition.
    pub partition: u32,
    /// It was led where the fault struck.
    pub led: bool,
    /// The longest gap between two acknowledged puts from the strike on; of planned faults, until all is in order again.
    pub pause_ms: f64,
    /// So long after the strike it began.
    pub pause_after_ms: f64,
    /// The longest before the strike.
    pub usual_ms: f64,
    /// The longest from the mending until all is in order.
    pub mending_ms: f64,
    /// Puts came through again before it was mended.
    pub recovered: bool,
    /// Puts that failed.
    pub failed: Vec<Failure>,
}

/// A put that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// So long after the strike its caller was told; before it, if that is less than 0.
    pub after_ms: f64,
    /// What was said.
    pub text: String,
}

/// What a round came to.
pub struct Round {
    /// What each partition felt.
    pub samples: Vec<Sample>,
    /// What proves that the fault was there.
    pub seen: Option<String>,
    /// The node that was struck.
    pub node: u64,
    /// From the mending until all was in order.
    pub order: Duration,
    /// Order that did not come, and other broken promises.
    pub broken: Vec<String>,
}

/// Where rounds take place.
pub struct Place {
    /// The cluster.
    pub cluster: Cluster,
    /// Its operator's client, of all endpoints.
    pub operator: Client,
    /// A key space in each partition.
    pub places: Vec<(u32, String)>,
    /// Partitions that are written, at most.
    pub probers: usize,
    /// How often probers put.
    pub pace: Pace,
    /// Time.
    pub clock: Arc<SystemClock>,
    /// What the faults draw from.
    pub numbers: Numbers,
    /// How long order may take.
    pub patience: Duration,
}

/// Moments of a round.
struct Moments {
    usual_from: u64,
    struck: u64,
    mended: u64,
    ended: u64,
}

impl Place {
    /// Does one round.
    pub async fn round(&mut self, fault: Fault, round: u32) -> Result<Round> {
        let (victim, led) = self.victim(round).await?;
        let all = self.cluster.endpoints();
        let kept = |at: &usize| fault.is_planned() || *at != victim;
        let endpoints: Vec<String> = (0..all.len()).filter(kept).map(|at| all[at].clone()).collect();
        let probed = probed(&self.places, &led, self.probers);
        let probers = Probers::begin(&probed, &endpoints, self.pace, self.clock.clone()).await?;
        let usual_from = self.now_ns();
        tokio::time::sleep(USUAL).await;
        let struck_at = self.now_ns();
        let target = (victim, led);
        let struck = fault::strike(
            fault,
            &mut self.cluster,
            &self.operator,
            target,
            &mut self.numbers,
        );
        let mut struck = struck.await?;
        tokio::time::sleep(fault.watched()).await;
        let recovered = fault.is_planned() || probers.have_answers(struck_at, LIMIT).await;
        let mended = self.now_ns();
        struck.mend(&mut self.cluster).await?;
        let mut broken = Vec::new();
        tokio::time::sleep(QUIET).await;
        broken.extend(self.order().await.err());
        let order = self.clock.now() - Duration::from_nanos(mended);
        tokio::time::sleep(AFTERWARDS).await;
        for (at, status) in self.cluster.ended()? {
            broken.push(format!(
                "{}: node {} ended by itself: {status}",
                fault.name(),
                at + 1
            ));
        }
        let moments = Moments {
            usual_from,
            struck: struck_at,
            mended,
            ended: self.now_ns(),
        };
        let seen = probers.end().await?;
        for (partition, text) in &struck.failed {
            if !probed.iter().any(|(id, _)| id == partition) {
                broken.push(format!("{}: partition {partition}: {text}", fault.name()));
            }
        }
        let samples = seen.into_iter().map(|(partition, mut seen)| {
            let failed = struck.failed.get(&partition);
            seen.failed
                .extend(failed.map(|text| (moments.struck, text.clone())));
            let led = struck.led.contains(&partition);
            let name = (fault, round, partition, led, recovered);
            sample(name, seen, &moments)
        });
        Ok(Round {
            samples: samples.collect(),
            seen: struck.seen,
            node: victim as u64 + 1,
            order,
            broken,
        })
    }

    /// Waits until all is in order and leaders are spread evenly; what is missing, if that takes too long.
    pub async fn order(&mut self) -> Result<(), String> {
        let clock = self.clock.clone();
        let order = settled::wait(&mut self.cluster, &*clock, self.patience).await;
        order.map_err(|missing| format!("no order after everything was mended: {missing}"))?;
        let end = clock.now() + BALANCING;
        loop {
            let planned = match self.operator.balance(true).await {
                Ok(answer) if answer.moves.is_empty() => return Ok(()),
                Ok(answer) => format!("{} leaders are still to move", answer.moves.len()),
                Err(error) => error.to_string(),
            };
            if clock.now() >= end {
                return Err(format!(
                    "leaders are not spread evenly after {} s: {planned}",
                    BALANCING.as_secs()
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The position of a node that leads, another one in each round as far as there is one, and all that it leads.
    async fn victim(&self, round: u32) -> Result<(usize, BTreeSet<u32>)> {
        let mut led: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for partition in self.operator.partitions(&[]).await? {
            if partition.id != 0 && partition.leader_node != 0 {
                led.entry(partition.leader_node).or_default().insert(partition.id);
            }
        }
        ensure!(!led.is_empty(), "nobody leads");
        let turn = round as usize % led.len();
        let (node, led) = led.into_iter().nth(turn).context("nobody leads")?;
        Ok((node as usize - 1, led))
    }

    fn now_ns(&self) -> u64 {
        self.clock.now().as_nanos() as u64
    }
}

fn sample(
    (fault, round, partition, led, recovered): (Fault, u32, u32, bool, bool),
    seen: Seen,
    moments: &Moments,
) -> Sample {
    // Whoever waits in the end has waited until then at least.
    let mut times = seen.acked_ns;
    times.push(moments.ended);
    let ms = |gap: Gap| gap.length as f64 / 1e6;
    let longest = |from, to| spread::longest(&times, from, to);
    // The gap that the strike falls into is the fault's; the one that the mending falls into is the mending's, unless writes
    // were still away.
    let until = |end: u64| &times[..times.partition_point(|at| *at <= end)];
    let usual = spread::longest(until(moments.struck), moments.usual_from, moments.struck);
    let pause = match (fault.is_planned(), recovered) {
        (true, _) => longest(moments.struck, moments.ended),
        (false, true) => spread::longest(until(moments.mended), moments.struck, moments.mended),
        (false, false) => longest(moments.struck, moments.mended),
    };
    let failed = seen
        .failed
        .into_iter()
        .filter(|(at, _)| *at >= moments.usual_from)
        .map(|(at, text)| Failure {
            after_ms: (at as f64 - moments.struck as f64) / 1e6,
            text,
        });
    Sample {
        fault,
        round,
        partition,
        led,
        pause_ms: ms(pause),
        pause_after_ms: (pause.from as f64 - moments.struck as f64) / 1e6,
        usual_ms: ms(usual),
        mending_ms: ms(longest(moments.mended, moments.ended)),
        recovered,
        failed: failed.collect(),
    }
}

/// At most so many places, half of them of these partitions, as far as there are enough of both.
fn probed(places: &[(u32, String)], led: &BTreeSet<u32>, most: usize) -> Vec<(u32, String)> {
    let (here, elsewhere): (Vec<_>, Vec<_>) = places.iter().cloned().partition(|(id, _)| led.contains(id));
    let others = elsewhere
        .len()
        .min((most / 2).max(most.saturating_sub(here.len())));
    here.into_iter()
        .take(most - others)
        .chain(elsewhere.into_iter().take(others))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer each 10 ms for 10 s, but for the time between two moments.
    fn seen(silent: std::ops::Range<u64>) -> Seen {
        let times = (0..1000).map(|at| at * 10).filter(|ms| !silent.contains(ms));
        Seen {
            acked_ns: times.map(|ms| ms * 1_000_000).collect(),
            failed: vec![(500_000_000, "early".into()), (3_000_000_000, "late".into())],
        }
    }

    fn check(fault: Fault, silent: std::ops::Range<u64>, pause_ms: f64, mending_ms: f64) {
        let ms = 1_000_000;
        let moments = Moments {
            usual_from: 1000 * ms,
            struck: 3005 * ms,
            mended: 6005 * ms,
            ended: 10_000 * ms,
        };
        let recovered = silent.end < 10_000;
        let sample = sample((fault, 1, 1, true, recovered), seen(silent.clone()), &moments);
        let found = (sample.pause_ms, sample.usual_ms, sample.mending_ms);
        assert_eq!(found, (pause_ms, 10.0, mending_ms), "{fault:?} {silent:?}");
        let late = Failure {
            after_ms: -5.0,
            text: "late".into(),
        };
        assert_eq!(sample.failed, [late]);
    }

    #[test]
    fn a_pause_is_put_down_to_the_fault_or_to_the_mending() {
        check(Fault::Kill, 3010..3100, 100.0, 10.0);
        check(Fault::Kill, 2990..3100, 120.0, 10.0);
        check(Fault::Kill, 6010..6200, 10.0, 200.0);
        check(Fault::Restart, 6010..6200, 200.0, 200.0);
        // It never came back.
        check(Fault::Cut, 3010..20_000, 7000.0, 7000.0);
    }

    #[test]
    fn half_of_what_is_probed_is_led_by_the_node_that_is_struck() {
        let places: Vec<(u32, String)> = (1..=64).map(|id| (id, id.to_string())).collect();
        let led: BTreeSet<u32> = (1..=64).filter(|id| id % 3 == 0).collect();
        for (most, here, elsewhere) in [(16, 8, 8), (64, 21, 43), (100, 21, 43), (1, 1, 0), (50, 21, 29)] {
            let probed = probed(&places, &led, most);
            let (mine, others): (Vec<_>, Vec<_>) = probed.iter().partition(|(id, _)| led.contains(id));
            assert_eq!((mine.len(), others.len()), (here, elsewhere), "{most}");
        }
        assert_eq!(probed(&places[..1], &BTreeSet::from([1]), 16).len(), 1);
    }
}
