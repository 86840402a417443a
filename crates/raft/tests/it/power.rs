//! Loss of power: what was acknowledged is there afterwards, whoever had synced it.

use crate::kit::*;

/// The leader commits through its followers while its own sync is held, answers, loses power, and is back before
/// anyone stood for election. It must not lead on from its shortened log.
#[tokio::test]
async fn a_leader_that_lost_its_unsynced_tail_does_not_lead_on() {
    for round in 0..3 {
        leader_loses_its_tail(Cluster::slow_to_elect(3).await, round, true).await;
    }
}

/// The same, while the others elect at once.
#[tokio::test]
async fn a_leader_that_lost_its_unsynced_tail_does_not_take_acknowledged_writes_with_it() {
    for round in 0..3 {
        leader_loses_its_tail(Cluster::new(3).await, round, false).await;
    }
}

async fn leader_loses_its_tail(mut cluster: Cluster, round: usize, before_anyone_elects: bool) {
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    cluster.put("before", "1").await.unwrap();
    let term = cluster.replica(leader).status().term;
    cluster.disks[&leader].hold_sync(true);
    for n in 0..20 {
        cluster.put(&format!("k{n}"), &round.to_string()).await.unwrap();
    }
    assert!(
        cluster.disks[&leader].unsynced() > 0,
        "the leader's own disk has not synced"
    );
    cluster.kill(leader).await;
    // Rounds differ in how much of the unsynced tail survives: nothing, something, all.
    cluster.disks[&leader].crash(&mut |n| (n - 1) * round / 2);
    cluster.restart(leader).await;
    if before_anyone_elects {
        for n in 1..=3 {
            assert_eq!(cluster.replica(n).status().term, term, "it is back in time");
        }
    }
    let now = cluster.wait_leader().await;
    assert!(
        cluster.replica(now).status().term > term,
        "whoever leads was elected anew"
    );
    let last = cluster.put("after", "1").await.unwrap();
    for n in 1..=3 {
        cluster.replica(n).wait_applied(last.index, LIMIT).await.unwrap();
        for key in 0..20 {
            let value = get(&cluster.replica(n), &format!("k{key}"));
            assert_eq!(value.as_deref(), Some(&*round.to_string()), "k{key} on node {n}");
        }
    }
}

#[tokio::test]
async fn all_lose_power_at_once_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    for n in 0..30 {
        cluster.put(&format!("k{n}"), "1").await.unwrap();
    }
    for n in 1..=3 {
        cluster.kill(n).await;
        cluster.disks[&n].crash(&mut |_| 0);
    }
    for n in 1..=3 {
        cluster.restart(n).await;
    }
    let last = cluster.put("after", "1").await.unwrap();
    for n in 1..=3 {
        cluster.replica(n).wait_applied(last.index, LIMIT).await.unwrap();
        for key in 0..30 {
            assert_eq!(get(&cluster.replica(n), &format!("k{key}")).as_deref(), Some("1"));
        }
    }
}
