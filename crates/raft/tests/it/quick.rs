//! Quick elections under an adversary (`docs/rfc/0005-quick-elections.md`): whatever looks like a dead process and is none
//! costs a pause at most, and what is one is never believed beyond its evidence.

use std::time::Duration;

use env::{Net, TcpNet};
use raft::{PeerState, Replica};
use tokio::time::Instant;
use types::NodeId;

use crate::kit::*;
use crate::links::Links;
use crate::traffic::{Traffic, number};

fn others(all: u64, one: u64) -> Vec<u64> {
    (1..=all).filter(|n| *n != one).collect()
}

/// What node `n` says of a peer: how it seems to be, and how many quick elections there were because it seemed dead.
fn seen(cluster: &Cluster, n: u64, peer: u64) -> (PeerState, u64) {
    let peers = cluster.node(n).peers().into_iter();
    let found = peers.into_iter().find(|status| status.node == NodeId(peer));
    let status = found.expect("known");
    (status.state, status.quick_elections)
}

fn is_dead(cluster: &Cluster, n: u64, peer: u64) -> bool {
    seen(cluster, n, peer).0 == PeerState::Dead
}

fn highest_term(cluster: &Cluster) -> u64 {
    let terms = cluster.up.keys().map(|n| cluster.replica(*n).status().term);
    terms.max().unwrap_or(0)
}

fn replicas(cluster: &Cluster) -> Vec<Replica> {
    cluster.up.keys().map(|n| cluster.replica(*n)).collect()
}

/// All that run have applied the same, nothing is missing, and nobody stopped.
async fn in_order(cluster: &Cluster) {
    let last = cluster.put_surely("last", "1").await;
    for (n, running) in &cluster.up {
        let replica = cluster.replica(*n);
        replica.wait_applied(last.index, LIMIT).await.unwrap();
        assert_eq!(get(&replica, "last").as_deref(), Some("1"));
        assert_eq!(replica.status().stopped, None);
        assert!(running.heard.fatal.lock().is_empty());
    }
}

/// The listener of a leader that lives is away, for all others: both find it dead, and one of them is elected.
#[tokio::test]
async fn a_false_alarm_costs_a_pause_and_nothing_else() {
    let (cluster, links) = Cluster::linked(3, 3, calm()).await;
    let alive = cluster.wait_leader().await;
    let term = highest_term(&cluster);
    let (traffic, all) = (Traffic::default(), replicas(&cluster));
    let alarm = async {
        traffic.more(50).await;
        others(3, alive).iter().for_each(|n| links.refuse(*n, alive));
        eventually("another leads", || cluster.leader() != Some(alive)).await;
        traffic.more(50).await;
        links.mend_all();
        let now = cluster.wait_leader().await;
        let follower = cluster.replica(alive);
        eventually("it follows the new leader", || {
            follower.leader().is_some_and(|(_, node)| node == NodeId(now))
        })
        .await;
        traffic.more(50).await;
        traffic.stop();
    };
    tokio::join!(traffic.go_on(&all), alarm);
    in_order(&cluster).await;
    let rounds: u64 = others(3, alive).iter().map(|n| seen(&cluster, *n, alive).1).sum();
    assert!((1..=2).contains(&rounds), "{rounds} quick elections");
    let risen = highest_term(&cluster) - term;
    assert!(risen <= 3, "the term rose by {risen}");
    assert!(
        all.iter()
            .all(|replica| number(replica) >= traffic.acknowledged())
    );
}

/// Whoever leads loses its listener for a moment, again and again. Each process is taken for dead once by each of the
/// others; from then on nothing comes of it.
#[tokio::test]
async fn flapping_listeners_depose_each_process_once() {
    const FLAPS: usize = 24;
    let (cluster, links) = Cluster::linked(3, 3, calm()).await;
    let mut terms = Vec::new();
    for n in 0..FLAPS {
        let leader = cluster.wait_leader().await;
        let rest = others(3, leader);
        rest.iter().for_each(|n| links.refuse(*n, leader));
        eventually("it is taken for dead", || {
            rest.iter().all(|n| is_dead(&cluster, *n, leader))
        })
        .await;
        links.mend_all();
        eventually("it is met again", || {
            rest.iter()
                .all(|n| seen(&cluster, *n, leader).0 == PeerState::Alive)
        })
        .await;
        cluster.put_surely("flap", &n.to_string()).await;
        terms.push(highest_term(&cluster));
    }
    in_order(&cluster).await;
    for n in 1..=3 {
        for peer in others(3, n) {
            let (_, rounds) = seen(&cluster, n, peer);
            assert!(rounds <= 1, "node {n} held {rounds} because of node {peer}");
        }
    }
    assert_eq!(
        terms[FLAPS - 8],
        terms[FLAPS - 1],
        "deposed again and again: {terms:?}"
    );
}

/// What is to be found at the port of a process that died.
#[derive(Clone, Copy, PartialEq)]
enum Squatter {
    /// Takes connections and says nothing.
    Mute,
    /// Takes connections and closes them.
    Closing,
    /// Another node of this cluster.
    Node,
}

/// Where it listens, for node `n`.
async fn squat(cluster: &Cluster, what: Squatter, n: u64) -> String {
    if what == Squatter::Node {
        return cluster.address(n);
    }
    let mut listen = TcpNet.listen("127.0.0.1:0").await.unwrap();
    let address = listen.local_address();
    tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok(connection) = listen.accept().await {
            if what == Squatter::Mute {
                taken.push(connection);
            }
        }
    });
    address
}

/// Nobody is refused at the port: that is no evidence, and the time-outs elect.
#[tokio::test]
async fn a_dead_process_whose_port_is_taken_is_left_to_the_time_outs() {
    for what in [Squatter::Mute, Squatter::Closing, Squatter::Node] {
        let (mut cluster, links) = Cluster::linked(3, 3, timing()).await;
        let dead = cluster.wait_leader().await;
        let rest = others(3, dead);
        for (n, other) in [(rest[0], rest[1]), (rest[1], rest[0])] {
            links.lead(n, dead, &squat(&cluster, what, other).await);
        }
        cluster.put_surely("before", "1").await;
        cluster.kill(dead).await;
        in_order(&cluster).await;
        for n in &rest {
            assert_eq!(seen(&cluster, *n, dead).1, 0, "evidence where there is none");
            assert!(!is_dead(&cluster, *n, dead));
        }
        links.mend_all();
        cluster.restart(dead).await;
        in_order(&cluster).await;
    }
}

/// One survivor is refused at the port, the other finds it taken. The one stands, the other does not believe it.
#[tokio::test]
async fn survivors_that_see_different_things_elect_all_the_same() {
    let (mut cluster, links) = Cluster::linked(3, 3, timing()).await;
    let dead = cluster.wait_leader().await;
    let rest = others(3, dead);
    links.lead(rest[0], dead, &squat(&cluster, Squatter::Mute, rest[1]).await);
    cluster.kill(dead).await;
    in_order(&cluster).await;
    assert_eq!(seen(&cluster, rest[0], dead).1, 0);
    links.mend_all();
    cluster.restart(dead).await;
    in_order(&cluster).await;
}

/// A leader is found dead while it stands still and hears nothing: what it sends waits, new connections to it are
/// refused. It goes on believing that it leads.
async fn unheard(cluster: &Cluster, links: &Links) -> u64 {
    let leader = cluster.wait_leader().await;
    for n in others(3, leader) {
        links.hold(leader, n);
        links.refuse(n, leader);
    }
    eventually("another leads", || cluster.leader() != Some(leader)).await;
    assert!(cluster.replica(leader).is_leader(), "it does not know");
    leader
}

#[tokio::test]
async fn a_leader_that_was_deposed_without_knowing_it_serves_no_read() {
    let (cluster, links) = Cluster::linked(3, 3, calm()).await;
    cluster.put_surely("a", "old").await;
    let old = unheard(&cluster, &links).await;
    let written = cluster.put_surely("a", "new").await;
    let replica = cluster.replica(old);
    assert_eq!(
        get(&replica, "a").as_deref(),
        Some("old"),
        "it has not heard of it"
    );
    for _ in 0..5 {
        let read = replica.read_index(Duration::from_millis(100)).await;
        assert!(read.is_err(), "{read:?}");
    }
    // These wait in it when it wakes up.
    let reads = futures::future::join_all((0..50).map(|_| replica.read_index(LIMIT)));
    let wake = async {
        let held = || replica.is_leader() && get(&replica, "a").as_deref() == Some("old");
        holds_for("it sleeps", Duration::from_millis(200), held).await;
        links.mend_all();
    };
    let (reads, ()) = tokio::join!(reads, wake);
    for point in reads.into_iter().flatten() {
        assert!(point.index >= written.index, "served what was old: {point:?}");
    }
    in_order(&cluster).await;
}

/// Two nodes refuse each other while the third reaches both. The one takes the leader for dead and stands; the third
/// knows better, as often as it is asked.
#[tokio::test]
async fn a_link_that_rejects_between_two_nodes_deposes_nobody() {
    let (cluster, links) = Cluster::linked(3, 3, calm()).await;
    let leader = cluster.wait_leader().await;
    let (cut, third) = (others(3, leader)[0], others(3, leader)[1]);
    let term = cluster.replica(leader).status().term;
    links.refuse(leader, cut);
    links.refuse(cut, leader);
    eventually("it is taken for dead", || is_dead(&cluster, cut, leader)).await;
    // Nothing is written meanwhile: its log is as good as the others'.
    eventually("it has stood", || cluster.replica(cut).status().term > term).await;
    let leads = || {
        let statuses = [leader, third].map(|n| cluster.replica(n).status());
        cluster.replica(leader).is_leader() && statuses.iter().all(|status| status.term == term)
    };
    // Three of its time-outs.
    let time = Duration::from_millis(3 * calm().election_max_ms);
    holds_for("the leader leads", time, leads).await;
    let (traffic, all) = (Traffic::default(), replicas(&cluster));
    let more = async {
        traffic.more(50).await;
        traffic.stop();
    };
    tokio::join!(traffic.go_on(&all), more);
    assert!(leads(), "the leader leads");
    assert_eq!(seen(&cluster, cut, leader).1, 1, "one round");
    let alone = highest_term(&cluster);
    assert!(alone - term <= 2, "two attempts: {alone} after {term}");
    links.mend_all();
    in_order(&cluster).await;
    let risen = highest_term(&cluster) - alone;
    assert!(risen <= 2, "the term rose by {risen} when they met again");
}

/// The leader dies. One survivor has not got what was acknowledged last, and finds the death at once; the other at the
/// same time, or only after the first has stood and failed.
async fn lagging_first(lagging: u64, ahead: u64, late: bool) {
    let (mut cluster, links) = Cluster::linked(3, 3, calm()).await;
    assert_eq!(cluster.wait_leader().await, 1, "the founder");
    let term = highest_term(&cluster);
    links.hold(1, lagging);
    for n in 0..20 {
        cluster.put_surely(&format!("k{n}"), "1").await;
    }
    let behind = cluster.replica(lagging);
    assert!(behind.status().last_log < cluster.replica(ahead).status().last_log);
    if late {
        links.hold(1, ahead);
    }
    links.refuse(lagging, 1);
    cluster.kill(1).await;
    if late {
        eventually("it has stood", || behind.status().term > term).await;
        links.mend(1, ahead);
    }
    eventually("someone leads", || cluster.leader().is_some()).await;
    assert_eq!(cluster.leader(), Some(ahead));
    let heard = cluster.up[&lagging].heard.leaderships.lock().clone();
    assert!(!heard.iter().any(|(_, _, mine)| *mine), "{heard:?}");
    in_order(&cluster).await;
    for n in 0..20 {
        assert_eq!(get(&behind, &format!("k{n}")).as_deref(), Some("1"));
    }
}

#[tokio::test]
async fn a_lagging_survivor_that_stands_first_does_not_lead() {
    for late in [false, true] {
        // Ids decide between votes of one term: either way round.
        lagging_first(3, 2, late).await;
        lagging_first(2, 3, late).await;
    }
}

/// The leader dies, and the survivor with the higher id finds it at once; it stands, and the other, which does not know of
/// the death yet, refuses. When the other knows, the first one's vote for itself is in its way.
#[tokio::test]
async fn a_survivor_that_stood_too_early_does_not_keep_the_other_from_leading() {
    for (early, late) in [(3, 2), (2, 3)] {
        let (mut cluster, links) = Cluster::linked(3, 3, calm()).await;
        assert_eq!(cluster.wait_leader().await, 1, "the founder");
        cluster.put_surely("a", "1").await;
        let term = highest_term(&cluster);
        links.hold(1, late);
        links.refuse(early, 1);
        cluster.kill(1).await;
        let first = cluster.replica(early);
        eventually("it has stood", || first.status().term > term).await;
        // So long that the voter's patience is over, and the candidate has its answer.
        let nobody = || cluster.leader().is_none();
        holds_for("node does not know yet", Duration::from_millis(60), nobody).await;
        let knows = Instant::now();
        links.mend(1, late);
        eventually("someone leads", || cluster.leader().is_some()).await;
        let took = knows.elapsed();
        assert!(took < Duration::from_millis(1000), "{took:?}: by the time-outs");
        in_order(&cluster).await;
    }
}
