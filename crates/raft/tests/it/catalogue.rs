//! Bugs that other systems had, each provoked here: `docs/catalogue.md` has the whole list.

use std::collections::BTreeSet;
use std::time::Duration;

use types::ReplicaId;

use crate::kit::*;

fn purged(cluster: &Cluster, n: u64) -> bool {
    let log = cluster.disks[&n].log(std::sync::Arc::new(|_: &str| {}));
    log.state(replica_of(n)).unwrap().purged.is_some()
}

/// openraft 1828, braft 292: the leader's log is purged to its end, nobody writes, and a member has nothing.
#[tokio::test]
async fn an_idle_group_without_a_log_fills_an_empty_member() {
    let cluster = Cluster::keeping_little(4).await;
    cluster.form(&[1, 2, 3]).await;
    let mut last = 0;
    for n in 0..40 {
        last = cluster.put(&format!("k{n}"), "1").await.unwrap().index;
    }
    let leader = cluster.wait_leader().await;
    eventually("the log is purged", || purged(&cluster, leader)).await;
    let replica = cluster.replica(leader);
    cluster.node(4).open(P, replica_of(4)).await.unwrap();
    changed(|| replica.add_learner(replica_of(4), types::NodeId(4))).await;
    let late = cluster.replica(4);
    late.wait_applied(last, LIMIT).await.unwrap();
    assert_eq!(get(&late, "k0").as_deref(), Some("1"));
    let voters: BTreeSet<ReplicaId> = (1..=4).map(replica_of).collect();
    changed(|| replica.set_voters(voters.clone())).await;
}

/// openraft: an election triggered on whoever leads deposed it.
#[tokio::test]
async fn a_leader_that_is_asked_to_lead_goes_on_leading() {
    let cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    let replica = cluster.replica(leader);
    let term = replica.status().term;
    for _ in 0..3 {
        replica.transfer_leader(replica_of(leader)).await.unwrap();
        cluster.put("a", "1").await.unwrap();
    }
    assert_eq!((cluster.leader(), replica.status().term), (Some(leader), term));
}

/// openraft: the node asked to purge while it builds a snapshot forgot to, and an idle node's log stayed for ever.
#[tokio::test]
async fn every_log_is_purged_though_nobody_writes_any_more() {
    let cluster = Cluster::keeping_little(3).await;
    cluster.form(&[1, 2, 3]).await;
    for n in 0..60 {
        cluster.put(&format!("k{n}"), "1").await.unwrap();
    }
    for n in 1..=3 {
        eventually("the log is purged", || purged(&cluster, n)).await;
    }
}

/// etcd 18055: two snapshots of one state in quick succession. Here two members need the state at the same time, and
/// again after each has lost it.
#[tokio::test]
async fn two_members_get_the_state_at_once_and_once_more() {
    let mut cluster = Cluster::keeping_little(3).await;
    cluster.form(&[1, 2, 3]).await;
    for round in 0..2 {
        let leader = cluster.wait_leader().await;
        let others: Vec<u64> = (1..=3).filter(|n| *n != leader).collect();
        // One stays, so that there is a majority to write with; then the other's turn.
        for away in &others {
            cluster.kill(*away).await;
            for n in 0..30 {
                cluster.put(&format!("k{round}.{away}.{n}"), "1").await.unwrap();
            }
            cluster.restart(*away).await;
        }
        let last = cluster.put("last", &round.to_string()).await.unwrap().index;
        for n in 1..=3 {
            cluster.replica(n).wait_applied(last, LIMIT).await.unwrap();
        }
    }
}

/// openraft: the timers of many groups drift together, so that their elections collide for long. 200 groups lose the
/// node that leads them all, without a word; nobody tells them but their own time-outs.
#[tokio::test]
async fn many_groups_elect_at_once_and_do_not_collide_for_long() {
    const GROUPS: u32 = 200;
    let mut cluster = Cluster::slow_to_elect(3).await;
    let partitions: Vec<_> = (101..=100 + GROUPS).map(types::PartitionId).collect();
    for partition in &partitions {
        cluster.form_group(*partition, &[1, 2, 3]).await;
    }
    let terms_before: Vec<u64> = partitions
        .iter()
        .map(|partition| cluster.node(1).replica(*partition).unwrap().status().term)
        .collect();
    cluster.kill(1).await;
    let led = |cluster: &Cluster, partition| {
        [2, 3]
            .iter()
            .any(|n| cluster.node(*n).replica(partition).unwrap().is_leader())
    };
    let begun = tokio::time::Instant::now();
    for partition in &partitions {
        eventually("a leader for each", || led(&cluster, *partition)).await;
    }
    let took = begun.elapsed();
    let rises: Vec<u64> = partitions
        .iter()
        .zip(&terms_before)
        .map(|(partition, before)| {
            let terms = [2, 3].map(|n| cluster.node(n).replica(*partition).unwrap().status().term);
            terms[0].max(terms[1]) - before
        })
        .collect();
    let most = rises.iter().max().copied().unwrap_or(0);
    assert!(most <= 8, "terms rose by up to {most}: {rises:?}");
    assert!(took < Duration::from_secs(15), "took {took:?}");
}
