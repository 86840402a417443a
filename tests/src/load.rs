//! Clients that write and read while a test does harm. They remember what was acknowledged, so that a test can ask for
//! all of it afterwards, and what failed, for the tests in which nothing may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::NewNamespace;
use etcd_client::proto::{PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;

use crate::raw::{Raw, never_sent};

/// The namespaces written to. Their slots are such that each of 2, 4 or 6 partitions holds at least one.
pub const SPACES: [&str; 6] = ["default", "alpha", "north", "gamma", "omega", "south"];

/// Longest wait for one answer; what came of the write is then unknown.
const PATIENCE: Duration = Duration::from_secs(6);
/// Keys of each client and round in each namespace.
const KEYS: u64 = 50;
/// How many writes go between two reads.
const READ_EVERY: u64 = 4;

/// By namespace and key: the last number that was acknowledged.
pub type Acknowledged = BTreeMap<(&'static str, String), u64>;

/// Several clients, each with keys of its own, going round the endpoints when one fails them.
pub struct Load {
    shared: Arc<Shared>,
    running: JoinHandle<Result<Acknowledged>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    failed: Mutex<Vec<String>>,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    /// Starts `clients` clients, each beginning at another endpoint.
    pub fn start(endpoints: Vec<String>, clients: usize) -> Load {
        let shared = Arc::new(Shared::default());
        let (load, running) = (run(endpoints, clients, shared.clone()), shared.clone());
        let running = tokio::spawn(async move {
            let done = load.await;
            if let Err(error) = &done {
                running.failed.lock().push(format!("{error:#}"));
            }
            done
        });
        Load { shared, running }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits until `more` further writes are acknowledged.
    pub async fn progress(&self, more: u64, limit: Duration) -> Result<()> {
        let goal = self.acknowledged() + more;
        crate::until("writes go on", limit, || async {
            ensure!(
                !self.running.is_finished(),
                "the load ended by itself: {:?}",
                self.failed().last()
            );
            Ok((self.acknowledged() >= goal).then_some(()))
        })
        .await
    }

    /// Requests so far that were sent and not answered well. One that found nobody listening was not sent.
    pub fn failed(&self) -> Vec<String> {
        self.shared.failed.lock().clone()
    }

    /// Stops the clients and returns what was acknowledged. Fails if a read gave less than had been acknowledged.
    pub async fn finish(self) -> Result<Acknowledged> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let acknowledged = self.running.await??;
        let wrong = self.shared.wrong.lock();
        ensure!(wrong.is_empty(), "wrong answers: {wrong:?}");
        Ok(acknowledged)
    }
}

async fn run(endpoints: Vec<String>, clients: usize, shared: Arc<Shared>) -> Result<Acknowledged> {
    make_spaces(&endpoints).await.context("make the namespaces")?;
    let clients = (0..clients).map(|n| tokio::spawn(work(n, endpoints.clone(), shared.clone())));
    let mut all = Acknowledged::new();
    for done in join_all(clients).await {
        all.extend(done?);
    }
    Ok(all)
}

/// Makes the namespaces, and waits until every node knows them.
async fn make_spaces(endpoints: &[String]) -> Result<()> {
    let cluster = client::Client::new(endpoints, client::Options::default())?;
    for name in SPACES.into_iter().filter(|name| *name != "default") {
        cluster.put_namespace(NewNamespace::named(name)).await?;
    }
    for endpoint in endpoints {
        let mut raw = connect(endpoint).await?;
        for name in SPACES {
            crate::until("the namespace is known", PATIENCE, || {
                let mut raw = raw.clone();
                async move { Ok(Some(get(&mut raw, name, "load/").await?)) }
            })
            .await?;
        }
        get(&mut raw, "default", "load/").await?;
    }
    Ok(())
}

/// Connects to a node, which may still be starting.
async fn connect(endpoint: &str) -> Result<Raw> {
    crate::until("the node takes clients", PATIENCE, || async {
        Ok(Some(Raw::connect(endpoint).await?))
    })
    .await
}

async fn put(raw: &mut Raw, space: &'static str, key: &str, number: u64) -> Result<(), Status> {
    let message = PbPutRequest {
        key: key.into(),
        value: number.to_string().into(),
        ..PbPutRequest::default()
    };
    let _: PbPutResponse = raw.call_in(Some(space), "/etcdserverpb.KV/Put", message).await?;
    Ok(())
}

/// The number under `key`, 0 if there is none.
async fn get(raw: &mut Raw, space: &'static str, key: &str) -> Result<u64, Status> {
    let message = PbRangeRequest {
        key: key.into(),
        ..PbRangeRequest::default()
    };
    let found: PbRangeResponse = raw
        .call_in(Some(space), "/etcdserverpb.KV/Range", message)
        .await?;
    let value = found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value));
    Ok(value.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// One client: the keys it alone writes, and their last acknowledged numbers.
struct Work {
    n: usize,
    number: u64,
    /// Part of the keys. A write that failed may yet be done: its key is not used again.
    round: u64,
    last: Acknowledged,
    shared: Arc<Shared>,
}

async fn work(n: usize, endpoints: Vec<String>, shared: Arc<Shared>) -> Acknowledged {
    let mut work = Work {
        n,
        number: 0,
        round: 0,
        last: Acknowledged::new(),
        shared,
    };
    let mut at = n;
    while !work.is_over() {
        let endpoint = &endpoints[at % endpoints.len()];
        at += 1;
        let Ok(Ok(mut raw)) = timeout(PATIENCE, Raw::connect(endpoint)).await else {
            continue;
        };
        while !work.is_over() {
            match timeout(PATIENCE, work.step(&mut raw)).await {
                Ok(Ok(())) => {}
                Ok(Err(status)) if never_sent(&status) => break,
                Ok(Err(status)) => {
                    work.fail(format!("{endpoint}: {status:?}"));
                    break;
                }
                Err(_) => {
                    work.fail(format!("{endpoint}: no answer within {PATIENCE:?}"));
                    break;
                }
            }
        }
    }
    work.last
}

impl Work {
    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    fn fail(&mut self, text: String) {
        self.round += 1;
        self.shared.failed.lock().push(text);
    }

    /// One write and, every few writes, a read of it.
    async fn step(&mut self, raw: &mut Raw) -> Result<(), Status> {
        self.number += 1;
        let number = self.number;
        let space = SPACES[number as usize % SPACES.len()];
        let key = format!("load/{}/{}/{}", self.n, self.round, number % KEYS);
        put(raw, space, &key, number).await?;
        self.last.insert((space, key.clone()), number);
        self.shared.acknowledged.fetch_add(1, Ordering::SeqCst);
        if number.is_multiple_of(READ_EVERY) {
            let found = get(raw, space, &key).await?;
            if found != number {
                let text = format!("{space} {key}: wrote {number}, read {found}");
                self.shared.wrong.lock().push(text);
            }
        }
        Ok(())
    }
}

/// Asks one node for everything that was acknowledged. A later unacknowledged write may have taken its place.
pub async fn assert_present(endpoint: &str, acknowledged: &Acknowledged) -> Result<()> {
    let mut found = Acknowledged::new();
    let mut raw = connect(endpoint).await?;
    for space in SPACES {
        let message = PbRangeRequest {
            key: "load/".into(),
            range_end: "load0".into(),
            ..PbRangeRequest::default()
        };
        let all: PbRangeResponse = raw
            .call_in(Some(space), "/etcdserverpb.KV/Range", message)
            .await?;
        for kv in all.kvs {
            let number = String::from_utf8_lossy(&kv.value).parse()?;
            found.insert((space, String::from_utf8(kv.key)?), number);
        }
    }
    for ((space, key), number) in acknowledged {
        let there = found.get(&(*space, key.clone())).copied().unwrap_or(0);
        ensure!(
            there >= *number,
            "{space} {key}: acknowledged {number}, found {there}"
        );
    }
    Ok(())
}
