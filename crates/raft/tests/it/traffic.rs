//! A writer and readers beside whatever a test does: nothing acknowledged may be missing from a read that begins later,
//! whoever serves it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use raft::{ProposeError, Proposed, Replica};
use tokio::time::Instant;

use crate::kit::*;

/// How long one attempt to write or read may take.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Numbers are written to one key, each greater than the last.
#[derive(Default)]
pub struct Traffic {
    /// The last number whose write was acknowledged.
    acknowledged: AtomicU64,
    /// Reads that were served.
    pub reads: AtomicU64,
    /// Longest time without an acknowledgement.
    pub longest: Mutex<Duration>,
    stop: AtomicBool,
}

impl Cluster {
    /// Puts through whoever leads, again until it is acknowledged: that it may be done twice does no harm.
    pub async fn put_surely(&self, key: &str, value: &str) -> Proposed {
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.put(key, value).await {
                Ok(proposed) => return proposed,
                Err(error) => assert!(Instant::now() < deadline, "never acknowledged: {error}"),
            }
        }
    }
}

/// The number that a replica's own state has.
pub fn number(replica: &Replica) -> u64 {
    get(replica, "number").map_or(0, |text| text.parse().unwrap())
}

impl Traffic {
    /// Writes through whoever leads, and reads from each of these in turn whenever it says that it may be read.
    pub async fn go_on(&self, replicas: &[Replica]) {
        tokio::join!(self.write(replicas), self.read(replicas));
    }

    async fn write(&self, replicas: &[Replica]) {
        let (mut next, mut last) = (self.acknowledged() + 1, Instant::now());
        while !self.stop.load(Ordering::SeqCst) {
            let leading = replicas.iter().filter(|replica| replica.is_leader());
            let Some(leader) = leading.max_by_key(|replica| replica.status().term) else {
                tokio::task::yield_now().await;
                continue;
            };
            match leader.propose(put("number", &next.to_string()), ATTEMPT).await {
                Ok(_) => {
                    self.acknowledged.store(next, Ordering::SeqCst);
                    let mut longest = self.longest.lock();
                    *longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                Err(ProposeError::NotLeader { .. }) => tokio::task::yield_now().await,
                // It may yet be done: the number is not used again.
                Err(_) => {}
            }
            next += 1;
        }
    }

    async fn read(&self, replicas: &[Replica]) {
        for replica in replicas.iter().cycle() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let before = self.acknowledged();
            if replica.read_index(ATTEMPT).await.is_ok() {
                let found = number(replica);
                assert!(found >= before, "read {found} after {before} was acknowledged");
                self.reads.fetch_add(1, Ordering::SeqCst);
            }
            tokio::task::yield_now().await;
        }
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for more acknowledged writes.
    pub async fn more(&self, writes: u64) {
        let goal = self.acknowledged() + writes;
        eventually("writes go on", || self.acknowledged() >= goal).await;
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
