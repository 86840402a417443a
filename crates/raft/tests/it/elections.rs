//! Bugs of `docs/catalogue.md` that kept others from electing, or deposed a leader that was well.

use std::time::Duration;

use types::ReplicaId;

use crate::kit::*;

fn others(one: u64) -> Vec<u64> {
    (1..=3).filter(|n| *n != one).collect()
}

/// hashicorp/raft 605: a leader that was cut off and met again by the only other node alive was refused by it, and neither
/// was ever elected. Cut in both directions, and in each alone.
#[tokio::test]
async fn two_of_three_elect_again_whatever_was_cut_between_them() {
    let (mut cluster, links) = Cluster::linked(3, 3, timing()).await;
    let dead = others(cluster.wait_leader().await)[0];
    cluster.kill(dead).await;
    for round in 0..6 {
        let leader = cluster.wait_leader().await;
        cluster.put_surely("round", &round.to_string()).await;
        let other = others(leader).into_iter().find(|n| *n != dead).unwrap();
        if round % 3 != 1 {
            links.hold(leader, other);
        }
        if round % 3 != 2 {
            links.hold(other, leader);
        }
        let alone = || {
            let status = cluster.replica(leader).status();
            let unheard = status.millis_since_quorum_ack.unwrap_or(u64::MAX);
            !status.is_leader || unheard > 2 * timing().election_max_ms
        };
        eventually("it is without its majority", alone).await;
        links.mend_all();
        let last = cluster.put_surely("round", "over").await;
        for n in [leader, other] {
            cluster.replica(n).wait_applied(last.index, LIMIT).await.unwrap();
        }
    }
}

/// canonical/raft 279: a node that lags and was restarted is one of the two that are left; it refuses nobody for ever, and
/// does not lead. Nobody has evidence of a death: everything goes by time-outs.
#[tokio::test]
async fn a_lagging_node_that_was_restarted_lets_the_other_be_elected() {
    let mut cluster = Cluster::slow_to_elect(3).await;
    cluster.form(&[1, 2, 3]).await;
    for round in 0..3 {
        let leader = cluster.wait_leader().await;
        let (lagging, ahead) = (others(leader)[round % 2], others(leader)[(round + 1) % 2]);
        cluster.kill(lagging).await;
        for n in 0..20 {
            cluster.put_surely(&format!("k{n}"), &round.to_string()).await;
        }
        cluster.kill(leader).await;
        if round == 2 {
            cluster.kill(ahead).await;
            cluster.restart(ahead).await;
        }
        cluster.restart(lagging).await;
        assert_eq!(cluster.wait_leader().await, ahead);
        let last = cluster.put_surely("after", "1").await;
        cluster.restart(leader).await;
        for n in 1..=3 {
            let replica = cluster.replica(n);
            replica.wait_applied(last.index, LIMIT).await.unwrap();
            assert_eq!(get(&replica, "k19"), Some(round.to_string()));
        }
    }
}

/// openraft: a heartbeat names what the leader has committed; a follower that does not hold it looked like one whose log
/// went back. Here heartbeats come while a follower has fallen behind, and while it cannot sync what it is sent.
#[tokio::test]
async fn heartbeats_to_a_follower_whose_log_is_short_depose_nobody() {
    let (mut cluster, _links) = Cluster::linked(3, 3, calm()).await;
    let leader = cluster.wait_leader().await;
    let term = cluster.replica(leader).status().term;
    let follower = others(leader)[0];
    for round in 0..4 {
        cluster.kill(follower).await;
        for n in 0..20 {
            cluster.put_surely(&format!("k{n}"), &round.to_string()).await;
        }
        cluster.disks[&follower].hold_sync(true);
        cluster.restart(follower).await;
        let behind = cluster.replica(follower);
        eventually("it hears the leader", || behind.leader().is_some()).await;
        let leads = || cluster.replica(leader).is_leader() && behind.status().term == term;
        holds_for("the leader leads", Duration::from_millis(500), leads).await;
        cluster.disks[&follower].hold_sync(false);
        let last = cluster.put_surely("last", "1").await;
        behind.wait_applied(last.index, LIMIT).await.unwrap();
        for n in 1..=3 {
            let status = cluster.replica(n).status();
            assert_eq!((status.term, status.stopped), (term, None));
        }
    }
}

/// openraft: an answer that came late took a leader's knowledge of a follower back. A new leader, which knows nothing of its
/// followers, asks one that lacks much; the answers come late, and in heaps.
#[tokio::test]
async fn late_answers_of_a_follower_take_nothing_back() {
    let (mut cluster, links) = Cluster::linked(3, 3, calm()).await;
    let first = cluster.wait_leader().await;
    let (leader, late) = (others(first)[0], others(first)[1]);
    for round in 0..3 {
        cluster.kill(late).await;
        for n in 0..100 {
            cluster.put_surely(&format!("k{n}"), &round.to_string()).await;
        }
        let (from, to) = if round % 2 == 0 {
            (first, leader)
        } else {
            (leader, first)
        };
        eventually("it leads", || cluster.leader() == Some(from)).await;
        let before = cluster.replica(from);
        changed(|| before.transfer_leader(replica_of(to))).await;
        cluster.restart(late).await;
        let (leads, behind) = (cluster.replica(to), cluster.replica(late));
        let mut most = 0;
        let mut goes_on = || {
            let matched = leads
                .status()
                .matched
                .get(&replica_of(late))
                .copied()
                .unwrap_or(0);
            let back = matched < most;
            most = most.max(matched);
            !back && leads.is_leader()
        };
        for _ in 0..10 {
            links.hold(late, to);
            holds_for("nothing goes back", Duration::from_millis(40), &mut goes_on).await;
            cluster.put_surely("more", "1").await;
            links.mend_all();
            holds_for("nothing goes back", Duration::from_millis(10), &mut goes_on).await;
        }
        let last = cluster.put_surely("last", "1").await;
        behind.wait_applied(last.index, LIMIT).await.unwrap();
        holds_for("nothing goes back", Duration::from_millis(50), &mut goes_on).await;
    }
}

/// A log of which something is damaged may have lost what its replica promised. It is not opened, so it votes for nobody,
/// and one node of three that is left elects nobody.
#[tokio::test]
async fn a_replica_whose_log_is_damaged_votes_no_more() {
    let mut cluster = Cluster::new(3).await;
    cluster.form(&[1, 2, 3]).await;
    let leader = cluster.wait_leader().await;
    let (damaged, left) = (others(leader)[0], others(leader)[1]);
    for n in 0..20 {
        cluster.put_surely(&format!("k{n}"), "1").await;
    }
    cluster.kill(damaged).await;
    // Its state goes back to nothing, so that it must read its log.
    cluster.disks[&damaged].crash(&mut |_| 0);
    cluster.disks[&damaged].damage_entry(replica_of(damaged), 5);
    cluster.boot(damaged).await;
    for _ in 0..2 {
        let opened = cluster.node(damaged).open(P, replica_of(damaged)).await;
        assert!(opened.is_err(), "it is damaged");
    }
    cluster.put_surely("without it", "1").await;
    cluster.kill(leader).await;
    let replica = cluster.replica(left);
    let alone = || !replica.is_leader() && cluster.node(damaged).replica(P).is_none();
    let time = Duration::from_millis(4 * timing().election_max_ms);
    holds_for("nobody is elected", time, alone).await;
    cluster.restart(leader).await;
    let last = cluster.put_surely("after", "1").await;
    for n in [leader, left] {
        let replica = cluster.replica(n);
        replica.wait_applied(last.index, LIMIT).await.unwrap();
        for key in ["k0", "k19", "without it"] {
            assert_eq!(get(&replica, key).as_deref(), Some("1"));
        }
    }
    // Under a new id it is filled again, and votes.
    let fresh = ReplicaId(900);
    cluster
        .node(damaged)
        .remove(P, replica_of(damaged))
        .await
        .unwrap();
    cluster.node(damaged).open(P, fresh).await.unwrap();
    let leads = cluster.replica(cluster.wait_leader().await);
    changed(|| leads.add_learner(fresh, types::NodeId(damaged))).await;
    let voters = [replica_of(leader), replica_of(left), fresh];
    changed(|| leads.set_voters(voters.into_iter().collect())).await;
    changed(|| leads.remove_learner(replica_of(damaged))).await;
    let filled = cluster.replica(damaged);
    let last = cluster.put_surely("at last", "1").await;
    filled.wait_applied(last.index, LIMIT).await.unwrap();
    assert_eq!(get(&filled, "k0").as_deref(), Some("1"));
}

/// Nebula 3415, NuRaft 185: a vote was told before it was synced. Of the two that are left one cannot sync: neither its own
/// vote nor the one it is asked for counts, whoever stands.
#[tokio::test]
async fn a_vote_that_is_not_synced_elects_nobody() {
    let (mut cluster, _links) = Cluster::linked(3, 3, calm()).await;
    for round in 0..4 {
        let dead = cluster.wait_leader().await;
        let (slow, other) = (others(dead)[round % 2], others(dead)[(round + 1) % 2]);
        cluster.put_surely("round", &round.to_string()).await;
        let term = cluster.replica(other).status().term;
        cluster.disks[&slow].hold_sync(true);
        cluster.kill(dead).await;
        if round == 0 {
            let stood = || cluster.replica(other).status().term > term;
            eventually("one stands", stood).await;
        }
        let nobody = || cluster.leader().is_none();
        holds_for("nobody leads", Duration::from_millis(500), nobody).await;
        cluster.disks[&slow].hold_sync(false);
        let last = cluster.put_surely("round", "over").await;
        cluster.restart(dead).await;
        for n in 1..=3 {
            cluster.replica(n).wait_applied(last.index, LIMIT).await.unwrap();
        }
    }
}
