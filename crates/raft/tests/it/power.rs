//! Loss of power: what was acknowledged is there afterwards, whoever had synced it.

use std::time::Duration;

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

/// Whether a replica's log has an entry, be it synced or not.
fn has(cluster: &Cluster, n: u64, index: u64, synced: bool) -> bool {
    cluster.disks[&n].entry(replica_of(n), index, synced).is_some()
}

/// The newest index that anybody takes for committed. All up to there is on the synced disks of a majority.
fn committed(cluster: &Cluster, since: u64) -> u64 {
    let replicas = cluster.up.values().filter_map(|running| running.node.replica(P));
    let newest = replicas.map(|replica| replica.status().committed).max().unwrap();
    for index in since..=newest {
        let copies = (1..=3).filter(|n| has(cluster, *n, index, true)).count();
        assert!(copies >= 2, "entry {index} is committed, on {copies} disks of 3");
    }
    newest
}

/// Entries that nobody acknowledges in time. Returns the last one's index.
async fn propose_in_vain(cluster: &Cluster, leader: u64, keys: &str) -> u64 {
    let replica = cluster.replica(leader);
    for n in 0..3 {
        let late = replica.propose(put(&format!("{keys}.{n}"), "1"), Duration::from_millis(20));
        assert!(late.await.is_err(), "acknowledged by one of three");
    }
    replica.status().last_log
}

/// openraft: acknowledgements from before a follower's log went back still counted. Here they are on their way while the
/// follower's power fails: it has synced a part of what it was sent and has said so, the rest is gone, and questions about
/// that are open. What it has said commits what it has synced, and nothing else, whether it is back by then or not.
#[tokio::test]
async fn what_a_follower_said_before_it_lost_its_tail_commits_none_of_it() {
    let (mut cluster, links) = Cluster::linked(3, 3, calm()).await;
    for round in 0..4 {
        let leader = cluster.wait_leader().await;
        let others: Vec<u64> = (1..=3).filter(|n| *n != leader).collect();
        let (loses, other) = (others[round % 2], others[(round + 1) % 2]);
        let (held, is_back) = (if round < 2 { other } else { leader }, round % 2 == 0);
        let settled = cluster.put_surely("settled", &round.to_string()).await.index;
        eventually("all have synced it", || {
            (1..=3).all(|n| has(&cluster, n, settled, true))
        })
        .await;
        cluster.disks[&held].hold_sync(true);
        links.hold(loses, leader);
        let synced = propose_in_vain(&cluster, leader, &format!("synced {round}")).await;
        eventually("it has synced them", || has(&cluster, loses, synced, true)).await;
        cluster.disks[&loses].hold_sync(true);
        let lost = propose_in_vain(&cluster, leader, &format!("lost {round}")).await;
        assert!(lost > synced && synced > settled, "{settled}, {synced}, {lost}");
        eventually("it has taken them in", || has(&cluster, loses, lost, false)).await;
        // So that the leader, which writes to nobody, reads what came before the end of the connection.
        links.hold(leader, loses);
        cluster.kill(loses).await;
        cluster.disks[&loses].crash(&mut |_| 0);
        cluster.disks[&loses].hold_sync(true);
        assert!(!has(&cluster, loses, synced + 1, false), "its tail is gone");
        if is_back {
            cluster.restart(loses).await;
        }
        assert_eq!(committed(&cluster, settled), settled);
        links.mend(loses, leader);
        eventually("what it said counts", || committed(&cluster, settled) >= synced).await;
        links.mend_all();
        if is_back {
            eventually("it is sent them again", || has(&cluster, loses, lost, false)).await;
        }
        let no_more = || committed(&cluster, settled) == synced;
        holds_for("no more is committed", Duration::from_millis(100), no_more).await;
        for disk in cluster.disks.values() {
            disk.hold_sync(false);
        }
        if !is_back {
            cluster.restart(loses).await;
        }
        let last = cluster.put_surely("last", &round.to_string()).await;
        let entry = |n: u64, index| cluster.disks[&n].entry(replica_of(n), index, false);
        for n in 1..=3 {
            cluster.replica(n).wait_applied(last.index, LIMIT).await.unwrap();
            let same = (settled..=lost).all(|index| entry(n, index) == entry(leader, index));
            assert!(same, "what the leader had is lost on node {n}");
        }
    }
}
