//! Three to four nodes over loopback: elections, reads, a laggard after a purge, members that come and go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use raft::{MembershipError, PeerState, ProposeError, ReadError};
use types::limits::LOG_BYTES_BEFORE_PURGE;
use types::{NodeId, ReplicaId};

use crate::kit::*;

#[tokio::test]
async fn a_new_leader_has_everything_that_was_acknowledged() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    for n in 0..50 {
        cluster.put(&format!("k{n}"), "before").await.unwrap();
    }
    let dead = cluster.wait_leader().await;
    cluster.kill(dead).await;
    let leader = cluster.wait_leader().await;
    assert_ne!(leader, dead);
    cluster.put("after", "1").await.unwrap();
    let replica = cluster.replica(leader);
    replica.read_index(LIMIT).await.unwrap();
    for n in 0..50 {
        assert_eq!(get(&replica, &format!("k{n}")).as_deref(), Some("before"));
    }
    cluster.restart(dead).await;
    let back = cluster.replica(dead);
    let index = replica.status().committed;
    back.wait_applied(index, LIMIT).await.unwrap();
    assert_eq!(get(&back, "after").as_deref(), Some("1"));
    for running in cluster.up.values() {
        assert_eq!(running.heard.gaps.load(std::sync::atomic::Ordering::SeqCst), 0);
        assert!(running.heard.fatal.lock().is_empty());
    }
}

#[tokio::test]
async fn followers_refuse_and_point_to_the_leader() {
    let cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    let other = (1..=3).find(|n| *n != leader).unwrap();
    let follower = cluster.replica(other);
    eventually("the follower knows the leader", || follower.leader().is_some()).await;
    let hint = Some(NodeId(leader));
    let proposed = follower.propose(put("a", "1"), LIMIT).await;
    assert_eq!(proposed, Err(ProposeError::NotLeader { leader: hint }));
    assert_eq!(
        follower.read_index(LIMIT).await,
        Err(ReadError::NotLeader { leader: hint })
    );
    let moved = follower.transfer_leader(replica_of(other)).await;
    assert!(
        matches!(moved, Ok(()) | Err(MembershipError::NotLeader { .. })),
        "{moved:?}"
    );
}

#[tokio::test]
async fn a_minority_confirms_no_read_and_commits_nothing() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    cluster.put("a", "1").await.unwrap();
    for n in 1..=3 {
        if n != leader {
            cluster.kill(n).await;
        }
    }
    let replica = cluster.replica(leader);
    let read = replica.read_index(Duration::from_millis(800)).await;
    assert!(
        matches!(read, Err(ReadError::Deadline(_) | ReadError::NotLeader { .. })),
        "{read:?}"
    );
    let proposed = replica.propose(put("a", "2"), Duration::from_millis(300)).await;
    assert!(
        matches!(
            proposed,
            Err(ProposeError::Unknown(_) | ProposeError::NotLeader { .. })
        ),
        "{proposed:?}"
    );
    assert_eq!(get(&replica, "a").as_deref(), Some("1"));
}

/// What was there at the start is applied: what has been appended since does not count.
#[tokio::test]
async fn a_replica_without_a_quorum_has_recovered() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    for n in (1..=3).filter(|n| *n != leader) {
        cluster.kill(n).await;
    }
    let replica = cluster.replica(leader);
    let proposed = replica.propose(put("a", "1"), Duration::from_millis(200)).await;
    assert!(proposed.is_err(), "{proposed:?}");
    let status = replica.status();
    assert!(status.last_log > status.applied, "{status:?}");
    replica.wait_recovered(Duration::from_millis(200)).await.unwrap();
}

#[tokio::test]
async fn recovery_ends_where_a_new_leader_has_cut_the_log() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    let others: Vec<u64> = (1..=3).filter(|n| *n != leader).collect();
    for n in &others {
        cluster.kill(*n).await;
    }
    let replica = cluster.replica(leader);
    let committed = replica.status().committed;
    // More than a new leader writes by itself: the cut-off tail is never reached again.
    let mut tail = 0;
    while tail < types::limits::ENTRIES_IN_FLIGHT as u64 {
        let proposed = replica.propose(put("lost", "1"), Duration::from_millis(20)).await;
        assert!(proposed.is_err(), "{proposed:?}");
        tail = replica.status().last_log - committed;
    }
    drop(replica);
    cluster.kill(leader).await;
    for n in &others {
        cluster.restart(*n).await;
    }
    cluster.wait_leader().await;
    cluster.restart(leader).await;
    let back = cluster.replica(leader);
    back.wait_recovered(LIMIT).await.unwrap();
    assert!(back.status().applied < committed + tail, "{:?}", back.status());
    assert_eq!(get(&back, "lost"), None);
}

#[tokio::test]
async fn a_laggard_gets_a_checkpoint_after_the_log_was_purged() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    cluster.put("early", "1").await.unwrap();
    let leader = cluster.wait_leader().await;
    let lagging = (1..=3).find(|n| *n != leader).unwrap();
    cluster.kill(lagging).await;
    // Entries of half a mebibyte: the rule purges long before the bound in entries.
    let large = "x".repeat(512 * 1024);
    let leader = cluster.wait_leader().await;
    let replica = cluster.replica(leader);
    let log = cluster.disks[&leader].log(std::sync::Arc::new(|_: &str| {}));
    let purged = || log.state(replica_of(leader)).unwrap().purged.is_some();
    // For the laggard's sake the log grows to five times the bound; then it takes two looks, a second apart.
    for n in 0..6 * LOG_BYTES_BEFORE_PURGE / large.len() as u64 {
        cluster.put(&format!("large{}", n % 8), &large).await.unwrap();
    }
    let until = tokio::time::Instant::now() + LIMIT;
    while !purged() {
        assert!(tokio::time::Instant::now() < until, "never purged");
        cluster.put("small", "1").await.unwrap();
    }
    let last = cluster.put("late", "1").await.unwrap();
    cluster.restart(lagging).await;
    let back = cluster.replica(lagging);
    // All that was written comes over, old versions of the keys too.
    back.wait_applied(last.index, 6 * LIMIT).await.unwrap();
    assert_eq!(get(&back, "early").as_deref(), Some("1"));
    assert_eq!(get(&back, "late").as_deref(), Some("1"));
    let heard = &cluster.up[&lagging].heard;
    assert!(
        heard.installed.load(std::sync::atomic::Ordering::SeqCst) >= 1,
        "it came by checkpoint"
    );
    assert!(replica.status().stopped.is_none());
}

#[tokio::test]
async fn members_come_and_go_while_writes_go_on() {
    let cluster = Cluster::new(4).await;
    cluster.form(&[1, 2, 3]).await;
    cluster.put("a", "1").await.unwrap();
    let leader = cluster.wait_leader().await;
    let gone = (1..=3).find(|n| *n != leader).unwrap();
    let replica = cluster.replica(leader);
    cluster.join(&replica, 4).await;
    let voters: BTreeSet<ReplicaId> = (1..=4).filter(|n| *n != gone).map(replica_of).collect();
    changed(|| replica.set_voters(voters.clone())).await;
    cluster.put("b", "1").await.unwrap();
    changed(|| replica.remove_learner(replica_of(gone))).await;
    changed(|| replica.remove_learner(replica_of(gone))).await;
    let status = replica.status();
    assert_eq!(
        status.voters.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(),
        voters
    );
    assert!(status.learners.is_empty() && !status.is_joint, "{status:?}");
    cluster.node(gone).remove(P, replica_of(gone)).await.unwrap();
    changed(|| replica.transfer_leader(replica_of(4))).await;
    eventually("node 4 leads", || cluster.leader() == Some(4)).await;
    let last = cluster.put("c", "1").await.unwrap();
    let new = cluster.replica(4);
    new.wait_applied(last.index, LIMIT).await.unwrap();
    for key in ["a", "b", "c"] {
        assert_eq!(get(&new, key).as_deref(), Some("1"));
    }
    let unknown = new.add_learner(replica_of(1), NodeId(2)).await;
    assert!(matches!(unknown, Err(MembershipError::Invalid(_))), "{unknown:?}");
}

#[tokio::test]
async fn a_graceful_stop_hands_the_leader_over() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    let term = cluster.replica(leader).status().term;
    let stopping = cluster.up.remove(&leader).unwrap();
    stopping.node.shutdown().await;
    let next = cluster
        .leader()
        .expect("someone leads as soon as the stop is through");
    assert_ne!(next, leader);
    assert_eq!(
        cluster.replica(next).status().term,
        term + 1,
        "one planned election"
    );
    cluster.put("a", "1").await.unwrap();
}

/// Commands of all writers.
#[derive(Default)]
struct Written {
    answered: AtomicU64,
    failed: Mutex<Vec<ProposeError>>,
    stop: AtomicBool,
}

/// Proposes to whoever leads, one command after the other, until told to stop.
async fn write_on(replicas: &[raft::Replica], writer: u64, written: &Written) {
    while !written.stop.load(Ordering::Relaxed) {
        let Some(leader) = replicas.iter().find(|replica| replica.is_leader()) else {
            tokio::task::yield_now().await;
            continue;
        };
        match leader.propose(put(&format!("w{writer}"), "x"), LIMIT).await {
            Ok(_) => drop(written.answered.fetch_add(1, Ordering::Relaxed)),
            Err(ProposeError::NotLeader { .. }) => tokio::task::yield_now().await,
            Err(error) => written.failed.lock().push(error),
        }
    }
}

#[tokio::test]
async fn a_transfer_leaves_no_command_of_unknown_fate() {
    let cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let written = Written::default();
    let replicas: Vec<raft::Replica> = (1..=3).map(|n| cluster.replica(n)).collect();
    let writers = (0..32).map(|writer| write_on(&replicas, writer, &written));
    let transfers = async {
        let mut moved = 0;
        for _ in 0..12 {
            let before = written.answered.load(Ordering::Relaxed);
            let more = || written.answered.load(Ordering::Relaxed) > before + 100;
            eventually("the leader takes commands", more).await;
            let from = cluster.wait_leader().await;
            let heir = replica_of(from % 3 + 1);
            moved += u32::from(cluster.replica(from).transfer_leader(heir).await.is_ok());
        }
        written.stop.store(true, Ordering::Relaxed);
        moved
    };
    let (_, moved) = tokio::join!(futures::future::join_all(writers), transfers);
    let failed = written.failed.lock();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(moved >= 6, "only {moved} of 12 transfers came about");
}

#[tokio::test]
async fn nothing_is_transferred_while_an_entry_is_in_flight() {
    let cluster = Cluster::slow_to_elect(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    let followers = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let hold = |held| followers.map(|n| cluster.disks[&n].hold_sync(held));
    let replica = cluster.replica(leader);
    let term = replica.status().term;
    hold(true);
    let proposed = replica.propose(put("a", "1"), LIMIT);
    let transferred = async {
        eventually("it is in flight", || {
            let status = replica.status();
            status.last_log > status.committed
        })
        .await;
        let transferred = replica.transfer_leader(replica_of(followers[0])).await;
        hold(false);
        transferred
    };
    let (proposed, transferred) = tokio::join!(proposed, transferred);
    assert!(
        matches!(transferred, Err(MembershipError::Unknown(_))),
        "{transferred:?}"
    );
    proposed.expect("it has waited only for the disks");
    assert_eq!((replica.is_leader(), replica.status().term), (true, term));
}

/// Three nodes, the leader and a follower whose process is gone, which the leader knows.
async fn one_is_gone() -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    cluster.put("before", "1").await.unwrap();
    let leader = cluster.wait_leader().await;
    let gone = (1..=3).find(|n| *n != leader).unwrap();
    cluster.kill(gone).await;
    eventually("its end is noticed", || {
        let peers = cluster.node(leader).peers();
        let peer = peers.iter().find(|peer| peer.node == NodeId(gone));
        peer.is_some_and(|peer| peer.state == PeerState::Dead)
    })
    .await;
    (cluster, leader, gone)
}

/// The leader does not hand over to that node, says why, and leads on.
async fn check_stays(cluster: &Cluster, leader: u64, to: u64, reason: &str) {
    let replica = cluster.replica(leader);
    let term = replica.status().term;
    match replica.transfer_leader(replica_of(to)).await {
        Err(MembershipError::Unreachable { why, .. }) => assert!(why.contains(reason), "{why}"),
        other => panic!("{other:?}"),
    }
    cluster.put("after", "1").await.unwrap();
    let status = replica.status();
    assert!(status.is_leader && status.term == term, "{status:?}");
}

/// Its log was level when it was last heard of, and whoever hands over to nobody leads no more.
#[tokio::test]
async fn nobody_hands_over_to_a_node_that_is_gone() {
    let (cluster, leader, gone) = one_is_gone().await;
    check_stays(&cluster, leader, gone, "not connected").await;
}

/// Its node is back and connected, and opens one replica after the other: this one is not there yet.
#[tokio::test]
async fn nobody_hands_over_to_a_replica_that_is_not_open_yet() {
    let (mut cluster, leader, starting) = one_is_gone().await;
    cluster.boot(starting).await;
    eventually("it is connected again", || {
        cluster.node(leader).is_connected(NodeId(starting))
    })
    .await;
    check_stays(&cluster, leader, starting, "not open").await;
    let target = replica_of(starting);
    cluster.node(starting).open(P, target).await.unwrap();
    let replica = cluster.replica(leader);
    changed(|| replica.transfer_leader(target)).await;
    assert!(cluster.replica(starting).is_leader());
}
