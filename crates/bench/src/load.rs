//! A closed loop: so many clients over so many connections, each sending its next request when the last is
//! answered. The connections go round the endpoints, the leader's first, on both systems alike.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::kv::Connection;

/// Connections that the clients share.
pub const CONNECTIONS: usize = 16;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 256;
/// Keys that the loads go over.
pub const KEYS: u64 = 10_000;
/// Runs before the count begins.
const WARM_UP: Duration = Duration::from_millis(700);

/// What each client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Operation {
    /// Write one key.
    Put,
    /// Read one key, linearizably.
    Get,
    /// Read one key from whoever is asked.
    GetSerializable,
}

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Answers a second.
    pub rate: f64,
    /// Median latency, milliseconds.
    pub p50_ms: f64,
    /// Latency that one in a hundred exceeded, milliseconds.
    pub p99_ms: f64,
    /// Requests that were refused or failed.
    pub errors: u64,
    /// All answers, those of the time before it counted included.
    pub answers: u64,
}

struct Seen {
    latency_us: Histogram<u64>,
    errors: u64,
    answers: u64,
    counts_from: Instant,
    ends: Instant,
}

/// A new histogram of microseconds.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 120_000_000, 3).context("make a histogram")
}

/// The key of a number.
pub fn key(number: u64) -> Vec<u8> {
    format!("bench/{number:012}").into_bytes()
}

/// A value that does not compress to nothing.
pub fn value(random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = vec![0; VALUE_BYTES];
    random.fill(&mut bytes[..]);
    bytes
}

/// Opens `count` connections round `endpoints`.
pub async fn connect(endpoints: &[String], count: usize) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::new();
    for index in 0..count {
        connections.push(Connection::open(&endpoints[index % endpoints.len()]).await?);
    }
    Ok(connections)
}

/// Writes every key once.
pub async fn fill(endpoints: &[String]) -> anyhow::Result<()> {
    let connections = connect(endpoints, CONNECTIONS).await?;
    let mut tasks = Vec::new();
    for (part, mut connection) in connections.into_iter().enumerate() {
        tasks.push(async move {
            let mut random = SmallRng::seed_from_u64(part as u64);
            for number in (part as u64..KEYS).step_by(CONNECTIONS) {
                connection
                    .put(key(number), value(&mut random))
                    .await
                    .context("fill")?;
            }
            anyhow::Ok(())
        });
    }
    futures::future::try_join_all(tasks).await?;
    Ok(())
}

/// Runs one load.
pub async fn run(
    endpoints: &[String],
    operation: Operation,
    clients: usize,
    length: Duration,
) -> anyhow::Result<Measured> {
    let connections = connect(endpoints, CONNECTIONS.min(clients)).await?;
    let counts_from = Instant::now() + WARM_UP;
    let ends = counts_from + length;
    let seen = Rc::new(RefCell::new(Seen {
        latency_us: histogram()?,
        errors: 0,
        answers: 0,
        counts_from,
        ends,
    }));
    let local = LocalSet::new();
    for client in 0..clients {
        let connection = connections[client % connections.len()].clone();
        local.spawn_local(one_client(connection, operation, client as u64, seen.clone()));
    }
    local.await;
    let seen = seen.borrow();
    let ms = |quantile: f64| seen.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    let rate = seen.latency_us.len() as f64 / length.as_secs_f64();
    Ok(Measured {
        rate,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        errors: seen.errors,
        answers: seen.answers,
    })
}

async fn one_client(mut connection: Connection, operation: Operation, seed: u64, seen: Rc<RefCell<Seen>>) {
    let mut random = SmallRng::seed_from_u64(seed);
    let (counts_from, ends) = (seen.borrow().counts_from, seen.borrow().ends);
    loop {
        let key = key(random.random_range(0..KEYS));
        let started = Instant::now();
        let ok = match operation {
            Operation::Put => connection.put(key, value(&mut random)).await.map(drop),
            Operation::Get => connection.get(key, false).await.map(drop),
            Operation::GetSerializable => connection.get(key, true).await.map(drop),
        };
        let now = Instant::now();
        if now >= ends {
            return;
        }
        let mut seen = seen.borrow_mut();
        seen.answers += u64::from(ok.is_ok());
        match ok {
            Ok(()) if started >= counts_from => {
                seen.latency_us
                    .saturating_record((now - started).as_micros() as u64);
            }
            Ok(()) => {}
            Err(_) => seen.errors += 1,
        }
    }
}
