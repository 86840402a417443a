//! A thousand watchers of one range while it is written to at a steady rate: does every event arrive, how late,
//! and what do the watchers cost the writers.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::kv::{Connection, Watching};
use crate::load::{CONNECTIONS, VALUE_BYTES, connect, histogram};
use crate::report::{Row, Section, Target};
use crate::system::{Kind, System};
use crate::{Options, say};

const WATCHERS: usize = 1000;
const PUTS_PER_SECOND: u32 = 500;
/// Tasks that write, each at its part of the rate.
const WRITERS: u32 = 16;
const LENGTH: Duration = Duration::from_secs(10);
/// How long late events are waited for.
const LATE: Duration = Duration::from_secs(30);

struct Seen {
    latency_us: Histogram<u64>,
    events: u64,
}

struct Outcome {
    put_rate: f64,
    delivered: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures both systems, first without watchers, then with.
pub async fn run(options: &Options) -> anyhow::Result<Section> {
    let mut results = Vec::new();
    for kind in [Kind::Etcd, Kind::Holdfast { partitions: 16 }] {
        say(format!("watchers: {kind:?}"));
        let system = System::start(options, kind).await?;
        let alone = one_run(&system, 0).await?;
        let watched = one_run(&system, WATCHERS).await?;
        say(format!(
            "  puts {:.0}/s alone, {:.0}/s watched; delivered {:.2} %, p50 {:.1} ms, p99 {:.1} ms",
            alone.put_rate, watched.put_rate, watched.delivered, watched.p50_ms, watched.p99_ms
        ));
        system.stop().await?;
        results.push((watched.put_rate / alone.put_rate, watched));
    }
    let row = |measure: &str, unit: &'static str, pick: fn(&(f64, Outcome)) -> f64, target: Target| Row {
        measure: measure.to_string(),
        unit,
        holdfast: pick(&results[1]),
        etcd: Some(pick(&results[0])),
        target,
    };
    let rows = vec![
        row("events delivered", "%", |r| r.1.delivered, Target::AtLeast(100.0)),
        row(
            "latency from put to event, p50",
            "ms",
            |r| r.1.p50_ms,
            Target::None,
        ),
        row(
            "latency from put to event, p99",
            "ms",
            |r| r.1.p99_ms,
            Target::AtMost(100.0),
        ),
        row(
            "puts, of the rate without watchers",
            "",
            |r| r.0,
            Target::AtLeast(0.7),
        ),
    ];
    let note = format!(
        "{WATCHERS} watch streams over {CONNECTIONS} connections to all nodes, {PUTS_PER_SECOND} puts/s offered. The \
         watchers share two cores with the cluster: their own work is in the latency."
    );
    Ok(Section {
        title: "Watchers".to_string(),
        note,
        rows,
    })
}

async fn one_run(system: &System, watchers: usize) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let connections = connect(&system.endpoints, CONNECTIONS).await?;
    let seen = Rc::new(RefCell::new(Seen {
        latency_us: histogram()?,
        events: 0,
    }));
    let local = LocalSet::new();
    local
        .run_until(async {
            for index in 0..watchers {
                let mut connection = connections[index % CONNECTIONS].clone();
                let responses = connection
                    .watch(b"watched/".to_vec(), b"watched0".to_vec())
                    .await?;
                tokio::task::spawn_local(watcher(responses, seen.clone(), start));
            }
            let began = Instant::now();
            let writers =
                (0..WRITERS).map(|n| writer(connections[n as usize % CONNECTIONS].clone(), n, start));
            let puts: u64 = futures::future::try_join_all(writers).await?.iter().sum();
            let put_rate = puts as f64 / began.elapsed().as_secs_f64();
            let expected = puts * watchers as u64;
            wait_delivered(&seen, expected).await;
            let seen = seen.borrow();
            let ms = |quantile: f64| seen.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
            let delivered = if expected == 0 {
                100.0
            } else {
                seen.events as f64 / expected as f64 * 100.0
            };
            Ok(Outcome {
                put_rate,
                delivered,
                p50_ms: ms(0.5),
                p99_ms: ms(0.99),
            })
        })
        .await
}

async fn wait_delivered(seen: &Rc<RefCell<Seen>>, expected: u64) {
    let end = Instant::now() + LATE;
    while seen.borrow().events < expected && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes at its part of the rate; the value begins with the time of writing.
async fn writer(mut connection: Connection, number: u32, start: Instant) -> anyhow::Result<u64> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * WRITERS / PUTS_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ends = Instant::now() + LENGTH;
    let mut puts = 0;
    while Instant::now() < ends {
        ticks.tick().await;
        let mut value = vec![b'x'; VALUE_BYTES];
        value[..8].copy_from_slice(&(start.elapsed().as_micros() as u64).to_be_bytes());
        connection
            .put(format!("watched/{number}").into_bytes(), value)
            .await?;
        puts += 1;
    }
    Ok(puts)
}

async fn watcher(mut responses: Watching, seen: Rc<RefCell<Seen>>, start: Instant) {
    while let Ok(Some(events)) = responses.message().await {
        let now_us = start.elapsed().as_micros() as u64;
        let mut seen = seen.borrow_mut();
        for written_us in &events.marks {
            seen.latency_us
                .saturating_record(now_us.saturating_sub(*written_us).max(1));
        }
        seen.events += events.marks.len() as u64;
    }
}
