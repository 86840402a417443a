//! Quick elections: when a peer's process is found dead, the groups it led elect at once instead of waiting for
//! their time-outs. Raft's log and vote checks stay, so nothing committed can be lost; a false alarm costs a pause.
//!
//! ```text
//! death of node D found -> ask the other voters which logs they have (one message each)
//!   mine is the most advanced (ties: by turns)  -> stand as soon as all have answered
//!   else, or somebody does not answer           -> stand after 20-50 ms, unless someone stands by then
//! nobody leads 300 ms later                     -> all of it once more, then it is left to the time-outs
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use env::Env;
use futures::future::{BoxFuture, Shared, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::WaitError;
use tokio::sync::broadcast;
use types::{BootId, NodeId, PartitionId, ReplicaId};

use super::Registry;
use super::dispatch::leader_node;
use super::last_logs::{self, Last};
use super::marks::{Marks, Reason};
use crate::peer::{DeadEvidence, Peers};
use crate::types::{Metrics, Raft, TransferRequest, Vote};

/// Jitter of those that do not stand first; nobody's answer is waited for longer.
const JITTER_MS: (u64, u64) = (20, 50);
/// After a round for a node, the next one for the same node waits this long; doubling, up to the last, while rounds
/// follow each other within twice the wait.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));
/// Longest wait for one replica to begin its election.
const STAND_LIMIT: Duration = Duration::from_secs(1);
/// How often one death makes a replica stand. The second time is for when the first candidate met a voter that did not
/// know of the death yet: its vote for itself then keeps the other from being elected in that term.
const ATTEMPTS: usize = 2;
/// Longest wait for somebody to lead, before the next attempt.
const ELECTED_WITHIN: Duration = Duration::from_millis(300);

/// When rounds may be held.
#[derive(Default)]
struct Rounds {
    /// Last boot, last round, wait before the next.
    nodes: BTreeMap<NodeId, (BootId, Duration, Duration)>,
}

impl Rounds {
    /// Invariant: at most one round per boot of a node, and none within the back-off.
    fn allow(&mut self, evidence: &DeadEvidence, now: Duration) -> bool {
        let Some((boot, last, wait)) = self.nodes.get_mut(&evidence.node) else {
            self.nodes.insert(evidence.node, (evidence.boot, now, BACKOFF.0));
            return true;
        };
        if *boot == evidence.boot {
            return false;
        }
        *boot = evidence.boot;
        let since = now.saturating_sub(*last);
        if since < *wait {
            return false;
        }
        let quiet = since >= *wait * 2;
        *wait = if quiet {
            BACKOFF.0
        } else {
            (*wait * 2).min(BACKOFF.1)
        };
        *last = now;
        true
    }
}

/// A group that lost its leader.
struct Orphan {
    partition: PartitionId,
    replica: ReplicaId,
    raft: Raft,
    /// When its leader was found dead.
    lost: Vote,
    /// When this attempt began.
    vote: Vote,
    /// The other voters that may live.
    others: Vec<(ReplicaId, NodeId)>,
}

/// See the module.
pub(super) struct Quick {
    peers: Weak<Peers>,
    registry: Arc<dyn Registry>,
    marks: Arc<Marks>,
    env: Env,
}

impl Quick {
    pub(super) fn new(peers: &Arc<Peers>, registry: Arc<dyn Registry>, marks: Arc<Marks>, env: Env) -> Quick {
        Quick {
            peers: Arc::downgrade(peers),
            registry,
            marks,
            env,
        }
    }

    /// Until the peers are gone.
    pub(super) async fn run(self, mut deaths: broadcast::Receiver<DeadEvidence>) {
        let mut rounds = Rounds::default();
        // Groups that cannot elect hold nobody up whose leader dies a moment later.
        let mut held = FuturesUnordered::new();
        loop {
            let death = tokio::select! {
                biased;
                death = deaths.recv() => death,
                Some(()) = held.next(), if !held.is_empty() => continue,
            };
            let evidence = match death {
                Ok(evidence) => evidence,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            let Some(peers) = self.peers.upgrade() else { return };
            let orphans = self.orphans(evidence.node);
            if orphans.is_empty() || !rounds.allow(&evidence, self.env.clock.now()) {
                continue;
            }
            tracing::warn!(node = %evidence.node, groups = orphans.len(), "quick election");
            if let Some(health) = peers.health(evidence.node) {
                health.count_quick(orphans.len() as u64);
            }
            held.push(self.round(peers, evidence, orphans));
        }
    }

    /// Groups here that the dead node led and in which this node votes.
    fn orphans(&self, dead: NodeId) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        for (partition, replica, raft) in self.registry.groups() {
            if leader_node(&raft) != Some(dead) {
                continue;
            }
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let membership = metrics.membership_config.membership();
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            if !voters.contains(&replica.0) {
                continue;
            }
            let others = voters.iter().filter(|voter| **voter != replica.0);
            let others = others
                .filter_map(|voter| Some((ReplicaId(*voter), NodeId(membership.get_node(voter)?.node))));
            orphans.push(Orphan {
                partition,
                replica,
                lost: metrics.vote,
                vote: metrics.vote,
                others: others.filter(|(_, node)| *node != dead).collect(),
                raft: raft.clone(),
            });
        }
        orphans
    }

    async fn round(&self, peers: Arc<Peers>, evidence: DeadEvidence, mut orphans: Vec<Orphan>) {
        for _ in 0..ATTEMPTS {
            let asked = ask(&peers, &orphans);
            let standing: FuturesUnordered<_> = orphans
                .into_iter()
                .map(|orphan| {
                    let nodes = orphan.others.iter().map(|(_, node)| node);
                    let theirs = nodes.filter_map(|node| asked.get(node).cloned()).collect();
                    self.attempt(evidence, orphan, theirs)
                })
                .collect();
            orphans = standing.filter_map(std::future::ready).collect().await;
            if orphans.is_empty() {
                return;
            }
            tracing::info!(node = %evidence.node, groups = orphans.len(), "not led yet");
        }
        tracing::warn!(node = %evidence.node, groups = orphans.len(), "not led yet: left to the time-outs");
    }

    /// The group again, with the vote that it has by then, if nobody came to lead it.
    async fn attempt(&self, evidence: DeadEvidence, orphan: Orphan, theirs: Vec<Asked>) -> Option<Orphan> {
        self.stand(evidence, &orphan, theirs).await;
        let wait = orphan.raft.wait(Some(ELECTED_WITHIN));
        // It may be the one that was taken for dead, in a later term.
        let is_led = |seen: &Metrics| seen.vote.committed && seen.vote.leader_id != orphan.lost.leader_id;
        match wait.metrics(is_led, "somebody leads").await {
            Ok(_) | Err(WaitError::ShuttingDown) => None,
            Err(WaitError::Timeout(..)) => {
                // The wait looks no more once its time is over: whoever leads by now is not to be deposed.
                let now = orphan.raft.metrics().borrow_watched().clone();
                match is_led(&now) {
                    true => None,
                    false => Some(Orphan {
                        vote: now.vote,
                        ..orphan
                    }),
                }
            }
        }
    }

    async fn stand(&self, evidence: DeadEvidence, orphan: &Orphan, theirs: Vec<Asked>) {
        let jitter = Duration::from_millis(self.env.rng.between(JITTER_MS.0, JITTER_MS.1));
        let first = async {
            match comes_first(orphan, &join_all(theirs).await) {
                true => {}
                false => std::future::pending().await,
            }
        };
        // Who is not first follows, in case that those before it do not come through.
        let _ = tokio::time::timeout(jitter, first).await;
        // Someone else stood and was heard meanwhile: leave it to them.
        if orphan.raft.metrics().borrow_watched().vote != orphan.vote {
            return;
        }
        self.marks
            .set(orphan.partition, Reason::Dead(evidence.node, evidence.boot));
        let request = TransferRequest::new(orphan.vote, orphan.replica.0, None);
        match tokio::time::timeout(STAND_LIMIT, orphan.raft.handle_transfer_leader(request)).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::info!(partition = %orphan.partition, %error, "did not stand"),
            Ok(Err(error)) => tracing::info!(partition = %orphan.partition, %error, "did not stand"),
            Err(_) => tracing::info!(partition = %orphan.partition, "did not stand in time"),
        }
    }
}

/// The last log ids of one node's replicas, as far as it answers in time.
type Asked = Shared<BoxFuture<'static, Arc<BTreeMap<ReplicaId, Last>>>>;

/// Asks each node once, for all groups.
fn ask(peers: &Arc<Peers>, orphans: &[Orphan]) -> BTreeMap<NodeId, Asked> {
    let mut questions: BTreeMap<NodeId, Vec<(PartitionId, ReplicaId)>> = BTreeMap::new();
    for orphan in orphans {
        for (replica, node) in &orphan.others {
            let question = (orphan.partition, *replica);
            questions.entry(*node).or_default().push(question);
        }
    }
    let asking = questions.into_iter().map(|(node, replicas)| {
        let peers = peers.clone();
        let asked = async move {
            let limit = Duration::from_millis(JITTER_MS.1);
            let answer = last_logs::ask(&peers, node, &replicas, limit).await;
            Arc::new(answer.unwrap_or_default())
        };
        (node, asked.boxed().shared())
    });
    asking.collect()
}

/// Whether this replica has the most advanced log of all voters that may live. Who did not answer may have a better one.
fn comes_first(orphan: &Orphan, theirs: &[Arc<BTreeMap<ReplicaId, Last>>]) -> bool {
    // Read now: what was on its way when the leader died may have come in since.
    let last_log = orphan.raft.data_metrics().borrow_watched().last_log;
    let mine = last_log.map_or((0, 0, 0), |id| {
        (id.leader_id.term, id.leader_id.node_id, id.index)
    });
    let (partition, own) = (orphan.partition, orphan.replica);
    orphan.others.iter().all(|(replica, _)| {
        let told = theirs.iter().find_map(|told| told.get(replica));
        told.is_some_and(|other| {
            mine > *other || (mine == *other && turn(partition, own) < turn(partition, *replica))
        })
    })
}

/// Order among replicas with equal logs. It differs from partition to partition, so that the groups of a dead node
/// spread over those that are left, and the balancer need not move half of them a moment later.
fn turn(partition: PartitionId, replica: ReplicaId) -> (u64, ReplicaId) {
    // Finalizer of splitmix64: each bit of the ids changes half the bits.
    let mut mixed = replica.0 ^ (u64::from(partition.0) << 32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31), replica)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_round_per_boot_with_back_off() {
        let mut rounds = Rounds::default();
        let died = |boot| DeadEvidence {
            node: NodeId(2),
            boot: BootId(boot),
            planned: false,
        };
        let at = Duration::from_millis;
        assert!(rounds.allow(&died(1), at(0)));
        assert!(!rounds.allow(&died(1), at(100_000)), "same boot");
        assert!(rounds.allow(&died(2), at(101_000)));
        assert!(!rounds.allow(&died(3), at(101_500)), "within the back-off");
        assert!(rounds.allow(&died(4), at(102_500)));
        assert!(!rounds.allow(&died(5), at(104_000)), "the back-off doubled");
        assert!(rounds.allow(&died(6), at(110_000)), "and ends after a quiet time");
        assert!(rounds.allow(&died(7), at(111_000)));
    }

    #[test]
    fn with_equal_logs_each_survivor_stands_first_in_its_share_of_the_groups() {
        // Ids as they are given out: one node after the other, or one partition after the other.
        for ids in [|p: u64| [p, 64 + p], |p: u64| [2 * p, 2 * p + 1]] {
            let first = (1..=64)
                .filter(|p| {
                    let partition = PartitionId(*p as u32);
                    let [one, other] = ids(*p).map(|id| turn(partition, ReplicaId(id)));
                    assert_ne!(one, other);
                    one < other
                })
                .count();
            assert!((20..=44).contains(&first), "{first} of 64");
        }
    }
}
