//! The time of day decides nothing, however wrong it is on whoever leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use env::{Clock, Env};
use machine::Query;
use machine::command::{Body, LeaseGrant, Tick};
use machine::query::{Ask, AskLease, Told};
use raft::Replica;
use tokio::time::Instant;

use crate::kit::*;

const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 3600 * 1000;
const LEASE_S: i64 = 600;
/// What a busy machine may take for a step.
const SLACK: Duration = Duration::from_secs(20);

/// The system's clocks, of which one shows another time of day.
struct Wrong {
    clock: Arc<dyn Clock>,
    by_ms: AtomicI64,
}

impl Clock for Wrong {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall_ms(&self) -> u64 {
        self.clock
            .wall_ms()
            .saturating_add_signed(self.by_ms.load(Ordering::SeqCst))
    }
}

/// What is left of the lease, by a replica's own clock.
fn left(replica: &Replica) -> Duration {
    let query = Query {
        slot: slot(),
        namespace: NAMESPACE,
        ask: Some(Ask::Lease(AskLease { id: 7, keys: false })),
        clock_ms: replica.clock_ms(),
    };
    let answer = machine::answer(&*replica.store().latest(), &query).unwrap();
    match answer.told {
        Some(Told::Lease(lease)) => Duration::from_millis(lease.remaining_ms.max(0) as u64),
        told => panic!("{told:?}"),
    }
}

#[tokio::test]
async fn a_wall_clock_ten_years_off_on_the_leader_moves_nothing() {
    let wrong = |n: u64| {
        let clock = Env::production().clock;
        let by_ms = AtomicI64::new(0);
        (n, Arc::new(Wrong { clock, by_ms }))
    };
    let clocks: BTreeMap<u64, Arc<Wrong>> = (1..=3).map(wrong).collect();
    let given = clocks
        .iter()
        .map(|(n, clock)| (*n, clock.clone() as Arc<dyn Clock>));
    let setup = Setup {
        clocks: given.collect(),
        ..Setup::default()
    };
    let mut cluster = Cluster::made(3, setup).await;
    cluster.form(&[1, 2, 3]).await;
    let first = cluster.replica(cluster.wait_leader().await);
    let grant = Body::LeaseGrant(LeaseGrant {
        id: 7,
        ttl_s: LEASE_S,
    });
    first.propose(command(grant), LIMIT).await.unwrap();
    let (begun, mut clock_ms) = (Instant::now(), first.clock_ms());
    drop(first);
    // Ahead on the first leader; behind on the next, whose clock goes on from what the first has told; ahead again.
    for by_ms in [TEN_YEARS_MS, -TEN_YEARS_MS, TEN_YEARS_MS] {
        let leader = cluster.wait_leader().await;
        clocks[&leader].by_ms.store(by_ms, Ordering::SeqCst);
        for n in 0..5 {
            cluster.put_surely("tick", &n.to_string()).await;
            let replica = cluster.replica(leader);
            // Whoever leads now; a change of leader here is no fault.
            let _ = replica.propose(command(Body::Tick(Tick {})), LIMIT).await;
        }
        let replica = cluster.replica(cluster.wait_leader().await);
        replica.read_index(LIMIT).await.unwrap();
        let (now_ms, spent) = (replica.clock_ms(), begun.elapsed());
        assert!(
            now_ms >= clock_ms,
            "the clock went back from {clock_ms} to {now_ms}"
        );
        let moved = Duration::from_millis(now_ms - clock_ms);
        assert!(
            moved <= spent + SLACK,
            "the clock moved by {moved:?} in {spent:?}"
        );
        let granted = Duration::from_secs(LEASE_S as u64);
        let rest = left(&replica);
        assert!(
            rest <= granted && rest + spent + SLACK >= granted,
            "{rest:?} of {granted:?} left after {spent:?}"
        );
        clock_ms = now_ms;
        drop(replica);
        cluster.kill(leader).await;
        cluster.wait_leader().await;
        cluster.restart(leader).await;
    }
}
