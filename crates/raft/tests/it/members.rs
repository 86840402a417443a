//! Bugs of `docs/catalogue.md` about majorities and members: what counts, what is believed, who may read.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use raft::{Replica, convert};
use types::{NodeId, ReplicaId};

use crate::kit::*;
use crate::links::Links;
use crate::traffic::Traffic;

/// On how many synced disks an entry is.
fn copies(cluster: &Cluster, index: u64) -> usize {
    let holds = |n: &u64| cluster.disks[n].entry(replica_of(*n), index, true).is_some();
    (1..=5).filter(holds).count()
}

/// openraft 1802: acknowledgements of a voter that was ahead already made a majority of five. One or two voters acknowledge
/// one entry after the other, while the disks of the rest (the leader's among them, or not) sync nothing.
#[tokio::test]
async fn no_acknowledgement_counts_twice_towards_a_majority() {
    let cluster = Cluster::linked(5, 5, calm()).await.0;
    let leader = cluster.wait_leader().await;
    let followers: Vec<u64> = (1..=5).filter(|n| *n != leader).collect();
    let f = |n: usize| followers[n % 4];
    for round in 0..8 {
        // Two disks sync: the leader's and another, or two others.
        let mut held = vec![f(round), f(round + 1)];
        held.push(if round < 4 { f(round + 2) } else { leader });
        let status = cluster.replica(leader).status();
        let settled = status.last_log;
        eventually("nothing is on its way", || {
            cluster.replica(leader).status().committed >= settled
        })
        .await;
        held.iter().for_each(|n| cluster.disks[n].hold_sync(true));
        for n in 0..10 {
            let replica = cluster.replica(leader);
            let late = replica.propose(put(&format!("k{round}.{n}"), "1"), Duration::from_millis(20));
            assert!(late.await.is_err(), "acknowledged by two of five");
        }
        let last = cluster.replica(leader).status().last_log;
        assert!(last > settled + 1, "some entries: {settled} to {last}");
        let acking: Vec<u64> = followers.iter().copied().filter(|n| !held.contains(n)).collect();
        eventually("who can has acknowledged all", || {
            let matched = cluster.replica(leader).status().matched;
            acking.iter().all(|n| matched.get(&replica_of(*n)) == Some(&last))
        })
        .await;
        let nothing = || (1..=5).all(|n| cluster.replica(n).status().committed <= settled);
        holds_for("nothing is committed", Duration::from_millis(50), nothing).await;
        assert_eq!(copies(&cluster, last), 2);
        // A third disk is enough.
        cluster.disks[&held[2]].hold_sync(false);
        eventually("a majority has them", || {
            cluster.replica(leader).status().committed >= last
        })
        .await;
        assert!((settled + 1..=last).all(|index| copies(&cluster, index) >= 3));
        held.iter().for_each(|n| cluster.disks[n].hold_sync(false));
    }
    let last = cluster.put_surely("last", "1").await;
    for n in 1..=5 {
        cluster.replica(n).wait_applied(last.index, LIMIT).await.unwrap();
    }
}

/// Members as a replica knows them.
fn members(replica: &Replica) -> (BTreeSet<ReplicaId>, BTreeSet<ReplicaId>) {
    let status = replica.status();
    let ids = |all: Vec<(ReplicaId, NodeId)>| all.into_iter().map(|(id, _)| id).collect();
    (ids(status.voters), ids(status.learners))
}

fn cut_off(links: &Links, these: &[u64], rest: &[u64]) {
    for one in these {
        rest.iter().for_each(|other| links.cut(*one, *other));
    }
}

/// openraft 1808, ScyllaDB 9551: a leader that is cut off appends members that are never committed, and a follower takes
/// them; the rest elects, cuts its log, and sends both a state whose members are older. Theirs are the cluster's again,
/// after a restart as well.
#[tokio::test]
async fn members_that_were_never_committed_go_when_a_state_is_copied() {
    let links = Links::default();
    let setup = Setup {
        retention: keeping_little(),
        links: Some(links.clone()),
        ..Setup::default()
    };
    let mut cluster = Cluster::made(5, setup).await;
    cluster.form(&[1, 2, 3, 4, 5]).await;
    let old = cluster.wait_leader().await;
    let mut rest: Vec<u64> = (1..=5).filter(|n| *n != old).collect();
    let follower = rest.remove(0);
    let nobody = ReplicaId(900);
    cut_off(&links, &[old, follower], &rest);
    let (leads, follows) = (cluster.replica(old), cluster.replica(follower));
    tokio::select! {
        changed = leads.add_learner(nobody, NodeId(9)) => panic!("by two of five: {changed:?}"),
        () = eventually("the follower takes it", || members(&follows).1.contains(&nobody)) => {}
    }
    let stale = follows.status().last_log.max(leads.status().last_log);
    eventually("the rest elects", || {
        cluster.leader().is_some_and(|leader| rest.contains(&leader))
    })
    .await;
    let leader = cluster.wait_leader().await;
    let mut written = 0;
    while cluster.disks[&leader].purged(replica_of(leader)) <= stale {
        written += 1;
        assert!(written < 50_000, "the log is never purged");
        cluster.put_surely(&format!("k{}", written % 20), "1").await;
    }
    drop((leads, follows));
    links.mend_all();
    let last = cluster.put_surely("last", "1").await;
    let voters: BTreeSet<ReplicaId> = (1..=5).map(replica_of).collect();
    for n in [old, follower] {
        cluster.replica(n).wait_applied(last.index, LIMIT).await.unwrap();
        let installed = cluster.up[&n].heard.installed.load(Ordering::SeqCst);
        assert!(installed > 0, "the state was copied to node {n}");
        assert_eq!(members(&cluster.replica(n)), (voters.clone(), BTreeSet::new()));
        cluster.kill(n).await;
        cluster.restart(n).await;
        assert_eq!(members(&cluster.replica(n)), (voters.clone(), BTreeSet::new()));
    }
    // Majorities are counted among them: any three are one.
    for n in [rest[0], rest[1]] {
        cluster.kill(n).await;
    }
    cluster.put_surely("with three", "1").await;
}

/// openraft 1810: a leader whose replication to a member hung froze while members changed.
#[tokio::test]
async fn a_member_that_hangs_while_members_change_holds_nobody_up() {
    let (cluster, links) = Cluster::linked(4, 3, calm()).await;
    let leader = cluster.wait_leader().await;
    let hangs = (1..=3).find(|n| *n != leader).unwrap();
    let rest: Vec<u64> = (1..=4).filter(|n| *n != hangs).collect();
    let left: Vec<u64> = rest.iter().copied().filter(|n| *n < 4).collect();
    let leads = cluster.replica(leader);
    let (traffic, all) = (Traffic::default(), left.iter().map(|n| cluster.replica(*n)));
    let all: Vec<Replica> = all.collect();
    let change = async {
        traffic.more(50).await;
        cut_off(&links, &[hangs], &rest);
        traffic.more(50).await;
        cluster.join(&leads, 4).await;
        traffic.more(50).await;
        let voters: BTreeSet<ReplicaId> = rest.iter().map(|n| replica_of(*n)).collect();
        changed(|| leads.set_voters(voters.clone())).await;
        traffic.more(50).await;
        changed(|| leads.remove_learner(replica_of(hangs))).await;
        traffic.more(50).await;
        let read = traffic.reads.load(Ordering::SeqCst);
        eventually("reads go on", || traffic.reads.load(Ordering::SeqCst) > read + 50).await;
        traffic.stop();
    };
    tokio::join!(traffic.go_on(&all), change);
    assert!(leads.is_leader());
    let longest = *traffic.longest.lock();
    assert!(
        longest < Duration::from_millis(1500),
        "writes stood still for {longest:?}"
    );
    let expected: BTreeSet<ReplicaId> = rest.iter().map(|n| replica_of(*n)).collect();
    assert_eq!(members(&leads), (expected, BTreeSet::new()));
}

/// Does what only a leader does, by whoever leads.
async fn by_the_leader<F>(cluster: &Cluster, what: &str, change: impl Fn(Replica) -> F)
where
    F: Future<Output = Result<(), raft::MembershipError>>,
{
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let leader = cluster.replica(cluster.wait_leader().await);
        match change(leader).await {
            Ok(()) => return,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{what}: {error}"),
        }
        tokio::task::yield_now().await;
    }
}

/// TiKV 18570: a replica that was just removed served a read. The leader removes itself, three times, while clients read
/// through every replica that ever was.
#[tokio::test]
async fn reads_while_leaders_are_removed_are_never_stale() {
    let cluster = Cluster::new(6).await;
    cluster.form(&[1, 2, 3]).await;
    for n in 4..=6 {
        cluster.node(n).open(P, replica_of(n)).await.unwrap();
    }
    let all: Vec<Replica> = (1..=6).map(|n| cluster.replica(n)).collect();
    let traffic = Traffic::default();
    let mut voters: BTreeSet<u64> = BTreeSet::from([1, 2, 3]);
    let mut removed = Vec::new();
    let moves = async {
        for fresh in 4..=6 {
            traffic.more(50).await;
            let add =
                |leader: Replica| async move { leader.add_learner(replica_of(fresh), NodeId(fresh)).await };
            by_the_leader(&cluster, "add", add).await;
            let last = cluster.replica(cluster.wait_leader().await).status().last_log;
            cluster.replica(fresh).wait_applied(last, LIMIT).await.unwrap();
            let gone = cluster.wait_leader().await;
            voters.remove(&gone);
            voters.insert(fresh);
            let ids: BTreeSet<ReplicaId> = voters.iter().map(|n| replica_of(*n)).collect();
            by_the_leader(&cluster, "voters", |leader| {
                let ids = ids.clone();
                async move { leader.set_voters(ids).await }
            })
            .await;
            let remove = |leader: Replica| async move { leader.remove_learner(replica_of(gone)).await };
            by_the_leader(&cluster, "remove", remove).await;
            removed.push(gone);
            eventually("another leads", || {
                cluster.leader().is_some_and(|leader| voters.contains(&leader))
            })
            .await;
            traffic.more(50).await;
        }
        traffic.stop();
    };
    tokio::join!(traffic.go_on(&all), moves);
    assert!(traffic.reads.load(Ordering::SeqCst) > 0);
    for n in removed {
        let replica = cluster.replica(n);
        let read = replica.read_index(Duration::from_millis(100)).await;
        assert!(read.is_err(), "a removed replica was read: {read:?}");
        // Somebody still holds it, so its state is not deleted yet; it is stopped all the same.
        assert!(cluster.node(n).remove(P, replica_of(n)).await.is_err());
        assert!(replica.read_index(LIMIT).await.is_err());
        assert!(replica.wait_applied(u64::MAX, LIMIT).await.is_err());
    }
}

/// The same of a leader that was removed while it was cut off, and wakes up.
#[tokio::test]
async fn a_leader_that_was_removed_while_it_was_cut_off_serves_no_read() {
    let (cluster, links) = Cluster::linked(3, 3, timing()).await;
    cluster.put_surely("a", "old").await;
    let old = cluster.wait_leader().await;
    let rest: Vec<u64> = (1..=3).filter(|n| *n != old).collect();
    cut_off(&links, &[old], &rest);
    eventually("the rest elects", || cluster.leader() != Some(old)).await;
    let ids: BTreeSet<ReplicaId> = rest.iter().map(|n| replica_of(*n)).collect();
    by_the_leader(&cluster, "voters", |leader| {
        let ids = ids.clone();
        async move { leader.set_voters(ids).await }
    })
    .await;
    let remove = |leader: Replica| async move { leader.remove_learner(replica_of(old)).await };
    by_the_leader(&cluster, "remove", remove).await;
    cluster.put_surely("a", "new").await;
    let replica = cluster.replica(old);
    assert!(replica.is_leader(), "it does not know");
    assert_eq!(get(&replica, "a").as_deref(), Some("old"));
    let reads = futures::future::join_all((0..50).map(|_| replica.read_index(LIMIT)));
    let wake = async {
        eventually("reads wait", || {
            replica.status().millis_since_quorum_ack.is_some()
        })
        .await;
        links.mend_all();
        eventually("it leads no more", || !replica.is_leader()).await;
    };
    let (reads, ()) = tokio::join!(reads, wake);
    assert!(reads.iter().all(Result::is_err), "{reads:?}");
    let read = replica.read_index(Duration::from_millis(100)).await;
    assert!(read.is_err(), "{read:?}");
    cluster.put_surely("a", "newer").await;
}

/// openraft 1892, at the start: a state that ends before the log does, in a later term, contradicts it.
#[tokio::test]
async fn a_state_that_contradicts_the_log_is_refused_at_the_start() {
    let mut cluster = Cluster::new(1).await;
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    for n in 0..20 {
        cluster.put_surely(&format!("k{n}"), "1").await;
    }
    let term = replica.status().term;
    drop(replica);
    cluster.kill(1).await;
    let store = cluster.disks[&1].stores().open(P, replica_of(1)).unwrap();
    let (mut log_id, membership) = convert::applied_in(&store.applied().unwrap().unwrap()).unwrap();
    log_id.leader_id.term = term + 1;
    log_id.index -= 10;
    let applied = convert::applied_out(&log_id, &membership);
    store.commit(&[], &applied).unwrap();
    drop(store);
    cluster.boot(1).await;
    let opened = cluster.node(1).open(P, replica_of(1)).await;
    let error = opened.err().expect("it contradicts");
    assert!(error.to_string().contains("corrupted"), "{error}");
    assert!(cluster.node(1).replica(P).is_none());
}
