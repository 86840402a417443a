//! Quick elections: when a peer's process is found dead, the groups it led elect at once instead of waiting for
//! their time-outs. Raft's log and vote checks stay, so nothing committed can be lost; a false alarm costs a pause.
//!
//! ```text
//! death of node D found -> ask the other voters which logs they have (one message each)
//!   mine is the most advanced (ties: lowest replica id) -> stand now
//!   else                                                -> stand after 20-50 ms, unless someone leads by then
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use env::Env;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::broadcast;
use types::{BootId, NodeId, PartitionId, ReplicaId};

use super::Registry;
use super::dispatch::leader_node;
use super::last_logs::{self, Last};
use super::marks::{Marks, Reason};
use crate::peer::{DeadEvidence, Peers};
use crate::types::{LogId, Raft, TransferRequest, Vote};

/// How long the others may take to say which logs they have.
const ASK_LIMIT: Duration = Duration::from_millis(10);
/// Jitter of those that do not stand first.
const JITTER_MS: (u64, u64) = (20, 50);
/// After a round for a node, the next one for the same node waits this long; doubling, up to the last, while rounds
/// follow each other within twice the wait.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(16));
/// Longest wait for one replica to begin its election.
const STAND_LIMIT: Duration = Duration::from_secs(1);

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
    vote: Vote,
    last_log: Option<LogId>,
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
        loop {
            let evidence = match deaths.recv().await {
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
            self.round(&peers, evidence, orphans).await;
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
                vote: metrics.vote,
                last_log: raft.data_metrics().borrow_watched().last_log,
                others: others.filter(|(_, node)| *node != dead).collect(),
                raft: raft.clone(),
            });
        }
        orphans
    }

    async fn round(&self, peers: &Arc<Peers>, evidence: DeadEvidence, orphans: Vec<Orphan>) {
        let theirs = ask(peers, &orphans).await;
        let mut standing: FuturesUnordered<_> = orphans
            .into_iter()
            .map(|orphan| {
                let wait = match comes_first(&orphan, &theirs) {
                    true => Duration::ZERO,
                    false => Duration::from_millis(self.env.rng.between(JITTER_MS.0, JITTER_MS.1)),
                };
                self.stand(evidence, orphan, wait)
            })
            .collect();
        while standing.next().await.is_some() {}
    }

    async fn stand(&self, evidence: DeadEvidence, orphan: Orphan, wait: Duration) {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
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

/// The last log ids of the other voters, as far as they answer in time.
async fn ask(peers: &Arc<Peers>, orphans: &[Orphan]) -> BTreeMap<ReplicaId, Last> {
    let mut questions: BTreeMap<NodeId, Vec<(PartitionId, ReplicaId)>> = BTreeMap::new();
    for orphan in orphans {
        for (replica, node) in &orphan.others {
            let question = (orphan.partition, *replica);
            questions.entry(*node).or_default().push(question);
        }
    }
    let asking = questions
        .iter()
        .map(|(node, replicas)| last_logs::ask(peers, *node, replicas, ASK_LIMIT));
    let answers = futures::future::join_all(asking).await;
    answers.into_iter().flatten().flatten().collect()
}

/// Whether this replica has the most advanced log of those that answered. Who did not answer is not waited for
/// longer than the jitter.
fn comes_first(orphan: &Orphan, theirs: &BTreeMap<ReplicaId, Last>) -> bool {
    let mine = orphan.last_log.map_or((0, 0), |id| (id.leader_id.term, id.index));
    orphan
        .others
        .iter()
        .all(|(replica, _)| match theirs.get(replica) {
            Some(other) => mine > *other || (mine == *other && orphan.replica < *replica),
            None => false,
        })
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
}
