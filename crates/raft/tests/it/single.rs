//! One node alone: proposals, reads, the clock, bounds, restart, removal.

use machine::command::{Body, Tick};
use machine::outcome::Done;
use raft::{ProposeError, RaftError, ReadError};
use tokio::time::Instant;
use types::NodeId;

use crate::kit::*;

#[tokio::test]
async fn proposes_reads_and_comes_back_with_its_state() {
    let mut cluster = Cluster::new(1).await;
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    let first = replica.propose(put("a", "1"), LIMIT).await.unwrap();
    assert!(matches!(first.reply.done, Some(Done::Put(_))), "{first:?}");
    let second = replica.propose(put("a", "2"), LIMIT).await.unwrap();
    assert!(second.index > first.index && second.reply.revision == first.reply.revision + 1);
    let point = replica.read_index(LIMIT).await.unwrap();
    assert!(point.index >= second.index && point.term == second.term);
    assert_eq!(get(&replica, "a").as_deref(), Some("2"));
    let again = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    assert_eq!(
        again.status(),
        replica.status(),
        "the same again is the one that is open"
    );

    drop((replica, again));
    cluster.kill(1).await;
    cluster.restart(1).await;
    let replica = cluster.replica(1);
    replica.wait_recovered(LIMIT).await.unwrap();
    eventually("it leads again", || replica.is_leader()).await;
    replica.read_index(LIMIT).await.unwrap();
    assert_eq!(get(&replica, "a").as_deref(), Some("2"));
    let heard = &cluster.up[&1].heard;
    assert!(
        heard
            .leaderships
            .lock()
            .iter()
            .any(|(leader, _, mine)| *mine && *leader == Some(NodeId(1)))
    );
    assert!(heard.fatal.lock().is_empty());
}

#[tokio::test]
async fn many_proposals_share_entries_and_each_gets_its_own_reply() {
    let cluster = Cluster::new(1).await;
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    let proposals = (0..500).map(|n| {
        let replica = replica.clone();
        async move {
            replica
                .propose(put(&format!("k{n}"), &n.to_string()), LIMIT)
                .await
                .unwrap()
        }
    });
    let replies = futures::future::join_all(proposals).await;
    let mut revisions: Vec<_> = replies.iter().map(|done| done.reply.revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 500, "each its own revision");
    let stats = cluster.node(1).stats();
    assert_eq!(stats.commands, 500);
    assert!(stats.entries < 250, "batched into {} entries", stats.entries);
    let readers = futures::future::join_all((0..50).map(|_| replica.read_index(LIMIT))).await;
    assert!(
        readers
            .iter()
            .all(|point| point.as_ref().unwrap().index >= replies[499].index)
    );
}

#[tokio::test]
async fn refuses_what_is_too_large_and_follows_no_one() {
    let cluster = Cluster::new(1).await;
    let replica = cluster.node(1).open(P, replica_of(1)).await.unwrap();
    let alone = replica.propose(put("a", "1"), LIMIT).await;
    assert_eq!(alone, Err(ProposeError::NotLeader { leader: None }));
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    let huge = "x".repeat(types::limits::REQUEST_BYTES + types::limits::KEY_BYTES);
    assert_eq!(
        replica.propose(put("a", &huge), LIMIT).await,
        Err(ProposeError::TooLarge)
    );
    let other = cluster.node(1).open(P, replica_of(2)).await;
    assert!(matches!(other, Err(RaftError::OtherReplica { .. })));
}

#[tokio::test]
async fn the_clock_never_goes_back_over_a_restart() {
    let mut cluster = Cluster::new(1).await;
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    eventually("time passes", || replica.clock_ms() > 50).await;
    replica
        .propose(command(Body::Tick(Tick {})), LIMIT)
        .await
        .unwrap();
    let before = replica.clock_ms();
    assert!(before > 50);
    drop(replica);
    cluster.kill(1).await;
    cluster.restart(1).await;
    let replica = cluster.replica(1);
    eventually("it leads again", || replica.is_leader()).await;
    replica.read_index(LIMIT).await.unwrap();
    assert!(replica.clock_ms() >= 50, "{} after {before}", replica.clock_ms());
}

#[tokio::test]
async fn a_removed_replica_leaves_nothing_and_never_returns() {
    let cluster = Cluster::new(1).await;
    let node = cluster.node(1);
    let replica = node.found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    replica.propose(put("a", "1"), LIMIT).await.unwrap();
    drop(replica);
    node.remove(P, replica_of(1)).await.unwrap();
    assert!(node.replica(P).is_none());
    assert_eq!(cluster.disks[&1].stores().list().unwrap(), Vec::new());
    let log = cluster.disks[&1].log(std::sync::Arc::new(|_: &str| {}));
    assert_eq!(log.replicas().unwrap(), Vec::new());
    assert!(matches!(
        node.open(P, replica_of(1)).await,
        Err(RaftError::Removed(_))
    ));
    node.remove(P, replica_of(1)).await.unwrap();
    let fresh = node.found(P, replica_of(9)).await.unwrap();
    eventually("a new replica leads", || fresh.is_leader()).await;
    assert_eq!(get(&fresh, "a"), None);
}

#[tokio::test]
async fn a_removal_that_failed_is_finished_later() {
    let cluster = Cluster::new(1).await;
    let node = cluster.node(1);
    let replica = node.found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    let reading = replica.store();
    drop(replica);
    let busy = node.remove(P, replica_of(1)).await;
    assert!(matches!(busy, Err(RaftError::Storage { .. })), "{busy:?}");
    assert!(!node.finish_removals().await, "somebody still reads it");
    assert_eq!(
        cluster.disks[&1].stores().list().unwrap(),
        vec![(P, replica_of(1))]
    );
    drop(reading);
    assert!(node.finish_removals().await);
    assert_eq!(cluster.disks[&1].stores().list().unwrap(), Vec::new());
    let log = cluster.disks[&1].log(std::sync::Arc::new(|_: &str| {}));
    assert_eq!(log.replicas().unwrap(), Vec::new());
    assert!(node.finish_removals().await, "nothing is left to do");
}

#[tokio::test]
async fn an_id_that_is_gone_is_not_opened() {
    let cluster = Cluster::new(1).await;
    cluster.node(1).forbid(&[replica_of(1)]);
    let opened = cluster.node(1).open(P, replica_of(1)).await;
    assert!(matches!(opened, Err(RaftError::Removed(_))));
    assert_eq!(cluster.disks[&1].stores().list().unwrap(), Vec::new());
    cluster.node(1).open(P, replica_of(2)).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_replica_that_is_stopped() {
    let mut cluster = Cluster::new(1).await;
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    let never = replica.status().applied + 1_000;
    let wait = move || {
        let replica = replica.clone();
        tokio::spawn(async move { replica.wait_applied(never, LIMIT).await })
    };
    let before = wait();
    cluster.kill(1).await;
    let after = wait();
    assert_eq!(before.await.unwrap(), Err(ReadError::Stopped));
    assert_eq!(after.await.unwrap(), Err(ReadError::Stopped));
}

/// A leader whose log turns out to be damaged stops, in a process that goes on. What it told last was that it leads.
#[tokio::test]
async fn a_leader_that_stopped_leads_no_more_and_nobody_waits_for_it() {
    let (cluster, _) = Cluster::linked(3, 3, timing()).await;
    let leader = cluster.wait_leader().await;
    cluster.put_surely("a", "1").await;
    let replica = cluster.replica(leader);
    let heard = &cluster.up[&leader].heard;
    let status = replica.status();
    let waiting = {
        let replica = replica.clone();
        let never = status.applied + 1_000;
        tokio::spawn(async move { replica.wait_applied(never, LIMIT).await })
    };
    (1..20).for_each(|more| cluster.disks[&leader].damage_entry(replica_of(leader), status.last_log + more));
    let writes = futures::future::join_all((0..20).map(|_| replica.propose(put("a", "2"), LIMIT)));
    let begun = Instant::now();
    let writes = writes.await;
    assert!(writes.iter().all(Result::is_err), "{writes:?}");
    assert_eq!(waiting.await.unwrap(), Err(ReadError::Stopped));
    assert!(begun.elapsed() < LIMIT / 2, "ended by their own time");

    let status = replica.status();
    assert!(
        status.stopped.is_some() && !status.is_leader && status.leader.is_none(),
        "{status:?}"
    );
    assert!(!replica.is_leader() && replica.leader().is_none());
    let last = heard.leaderships.lock().last().copied();
    assert!(matches!(last, Some((None, _, false))), "{last:?}");
    assert!(replica.propose(put("a", "3"), LIMIT).await.is_err());
    assert!(replica.read_index(LIMIT).await.is_err());
    eventually("another leads", || {
        cluster.leader().is_some_and(|other| other != leader)
    })
    .await;
    cluster.put_surely("a", "4").await;
}
