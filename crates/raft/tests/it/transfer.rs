//! Checkpoints to a replica that lags, while the connection breaks and while writes go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use env::Env;
use machine::command::{Body, PutRequest};
use storage::LogStore;

use crate::flaky::{Flaky, Rule};
use crate::kit::*;

const VALUE_BYTES: usize = 512 * 1024;
const STATE_VALUES: usize = 48;
/// Each value is there twice: as what its key holds now, and as what happened.
const STATE_BYTES: u64 = 2 * (STATE_VALUES * VALUE_BYTES) as u64;

/// Three nodes, of which one is down; the log it would need is purged, the state takes many chunks.
struct Lagging {
    cluster: Cluster,
    rule: Arc<Rule>,
    leader: u64,
    lagging: u64,
}

impl Lagging {
    async fn new() -> Lagging {
        let rule = Arc::new(Rule::default());
        let net = Arc::new(Flaky(rule.clone()));
        let mut cluster = Cluster::with(
            3,
            Env {
                net,
                ..Env::production()
            },
        )
        .await;
        cluster.form(&[1, 2, 3]).await;
        let leader = cluster.wait_leader().await;
        let lagging = (1..=3).find(|n| *n != leader).unwrap();
        cluster.kill(lagging).await;
        let large = "x".repeat(VALUE_BYTES);
        for n in 0..STATE_VALUES {
            cluster.put(&format!("large{n}"), &large).await.unwrap();
        }
        let leader = cluster.wait_leader().await;
        let this = Lagging {
            cluster,
            rule,
            leader,
            lagging,
        };
        this.fill_log(&[leader, this.third()], 0).await;
        this
    }

    fn log(&self, n: u64) -> Arc<dyn LogStore> {
        self.cluster.disks[&n].log(Arc::new(|_: &str| {}))
    }

    fn purged(&self, n: u64) -> u64 {
        let state = self.log(n).state(replica_of(n)).unwrap();
        state.purged.map_or(0, |(index, _)| index)
    }

    /// The node that neither leads nor lags.
    fn third(&self) -> u64 {
        (1..=3)
            .find(|n| ![self.leader, self.lagging].contains(n))
            .unwrap()
    }

    /// Writes, without adding to the state, until the logs of these nodes are purged beyond `index`.
    async fn fill_log(&self, nodes: &[u64], index: u64) {
        let refused = || {
            command(Body::Put(PutRequest {
                key: Bytes::from_static(b"refused"),
                value: Bytes::from(vec![b'x'; VALUE_BYTES]),
                lease: 12345,
                ..PutRequest::default()
            }))
        };
        let deadline = tokio::time::Instant::now() + 3 * LIMIT;
        while nodes.iter().any(|n| self.purged(*n) <= index) {
            assert!(tokio::time::Instant::now() < deadline, "never purged");
            let leader = self.cluster.replica(self.leader);
            leader.propose(refused(), LIMIT).await.unwrap();
        }
    }

    /// The node that lags comes back; on connections to it the rule holds.
    async fn bring_back(&mut self, after: u64) {
        self.rule.after.store(after, Ordering::SeqCst);
        *self.rule.target.lock() = Some(self.cluster.address(self.lagging));
        self.cluster.restart(self.lagging).await;
    }

    async fn check_caught_up(&self) {
        let last = self.cluster.put("late", "1").await.unwrap();
        let back = self.cluster.replica(self.lagging);
        back.wait_applied(last.index, 3 * LIMIT).await.unwrap();
        assert_eq!(get(&back, "late").as_deref(), Some("1"));
        assert!(get(&back, "large0").is_some());
        let heard = &self.cluster.up[&self.lagging].heard;
        assert_eq!(
            heard.installed.load(Ordering::SeqCst),
            1,
            "one checkpoint was enough"
        );
        assert!(heard.fatal.lock().is_empty());
    }
}

#[tokio::test]
async fn a_checkpoint_goes_on_after_its_connection_was_cut() {
    let mut lagging = Lagging::new().await;
    lagging.rule.cuts.store(1, Ordering::SeqCst);
    lagging.bring_back(STATE_BYTES / 4 * 3).await;
    lagging.check_caught_up().await;
    assert_eq!(lagging.rule.cuts.load(Ordering::SeqCst), 0, "it was cut");
    let written = lagging.rule.written.load(Ordering::SeqCst);
    // What it has in its log came after the checkpoint.
    let entries = lagging
        .log(lagging.lagging)
        .size_bytes(replica_of(lagging.lagging));
    assert!(
        written < STATE_BYTES * 3 / 2 + entries * 5 / 4,
        "{written} bytes for a state of {STATE_BYTES} and {entries} of log: what was there was sent again"
    );
}

#[tokio::test]
async fn a_checkpoint_under_writes_is_sent_once() {
    let mut lagging = Lagging::new().await;
    lagging.rule.held.store(true, Ordering::SeqCst);
    lagging.bring_back(STATE_BYTES / 4).await;
    let rule = lagging.rule.clone();
    eventually("the checkpoint is on its way", || {
        rule.waited.load(Ordering::SeqCst)
    })
    .await;
    let sent = lagging.cluster.replica(lagging.leader).status().applied;
    lagging.fill_log(&[lagging.third()], sent).await;
    assert!(lagging.purged(lagging.leader) < sent, "what follows it is kept");
    rule.held.store(false, Ordering::SeqCst);
    lagging.check_caught_up().await;
}
