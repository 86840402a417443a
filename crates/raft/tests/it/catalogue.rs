//! Bugs that other systems had, each provoked here: `docs/catalogue.md` has the whole list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use tokio::time::Instant;
use types::{PartitionId, ReplicaId};

use crate::kit::*;
use crate::links::NoEvidence;

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

/// Terms of many groups, each as the running node knows it that is furthest ahead.
fn terms(cluster: &Cluster, partitions: &[PartitionId]) -> Vec<u64> {
    let term = |partition: &PartitionId| {
        let replicas = cluster.up.values().filter_map(|n| n.node.replica(*partition));
        replicas.map(|replica| replica.status().term).max().unwrap()
    };
    partitions.iter().map(term).collect()
}

fn leads(cluster: &Cluster, n: u64, partition: PartitionId) -> bool {
    cluster
        .node(n)
        .replica(partition)
        .is_some_and(|replica| replica.is_leader())
}

/// Kills a node. Returns how long each group that it led was without a leader, and how many terms each spent.
async fn elections_without(
    cluster: &mut Cluster,
    partitions: &[PartitionId],
    dead: u64,
) -> (Vec<Duration>, Vec<u64>) {
    let led = partitions
        .iter()
        .copied()
        .filter(|partition| leads(cluster, dead, *partition));
    let led: Vec<PartitionId> = led.collect();
    let before = terms(cluster, &led);
    cluster.kill(dead).await;
    let (begun, mut took) = (Instant::now(), BTreeMap::new());
    let living: Vec<u64> = cluster.up.keys().copied().collect();
    eventually("a leader for each", || {
        for partition in &led {
            if !took.contains_key(partition) && living.iter().any(|n| leads(cluster, *n, *partition)) {
                took.insert(*partition, begun.elapsed());
            }
        }
        took.len() == led.len()
    })
    .await;
    let spent = terms(cluster, &led)
        .iter()
        .zip(before)
        .map(|(now, before)| now - before)
        .collect();
    let mut took: Vec<Duration> = took.into_values().collect();
    took.sort();
    (took, spent)
}

/// openraft: the timers of many groups drift together, so that their elections collide for long. 500 groups lose the
/// node that leads them all, without a word; nobody tells them but their own time-outs. Those that elected the same node
/// then lose that one too: what they had in common has not brought them together.
#[tokio::test]
async fn many_groups_elect_at_once_and_do_not_collide_for_long() {
    const GROUPS: u32 = 500;
    let net = Arc::new(NoEvidence);
    let setup = Setup {
        env: Env {
            net,
            ..Env::production()
        },
        timing: calm(),
        ..Setup::default()
    };
    let mut cluster = Cluster::made(3, setup).await;
    let partitions: Vec<_> = (101..=100 + GROUPS).map(PartitionId).collect();
    for partition in &partitions {
        cluster.form_group(*partition, &[1, 2, 3]).await;
    }
    for dead in [1, 2] {
        let (took, spent) = elections_without(&mut cluster, &partitions, dead).await;
        let groups = took.len();
        assert!(groups > 100, "node {dead} led {groups} groups");
        let at = |percent: usize| took[(groups - 1) * percent / 100];
        println!("{groups} groups after {:?} to {:?}", at(0), at(100));
        assert!(
            at(100) < Duration::from_secs(10),
            "the last elected after {:?}",
            at(100)
        );
        // Time-outs are spread over a second.
        let apart = at(95) - at(5);
        assert!(
            apart > Duration::from_millis(300),
            "nine in ten elected within {apart:?}"
        );
        let (most, all) = (spent.iter().max().unwrap(), spent.iter().sum::<u64>() as usize);
        assert!(
            *most <= 8 && all <= 2 * groups,
            "{all} terms for {groups} groups, up to {most}"
        );
        cluster.restart(dead).await;
        let back = || {
            let replicas = cluster.node(dead).replicas();
            replicas.len() == partitions.len() && replicas.iter().all(|replica| replica.leader().is_some())
        };
        eventually("it is back", back).await;
    }
}
