//! One group's replica on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use machine::Command;
use openraft::Instant;
use openraft::alias::WatchReceiverOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use storage::{PartitionStore, PointView};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use types::limits::PARTITION_QUEUE;
use types::{NodeId, PartitionId, ReplicaId};

use crate::clock::MachineClock;
use crate::committed;
use crate::config::Timing;
use crate::error::{MembershipError, ProposeError, ReadError};
use crate::listener::ApplyListener;
use crate::membership;
use crate::peer::Peers;
use crate::propose::{self, Proposal, Proposed};
use crate::read::{self, ReadPoint, Reader};
use crate::state_machine::Progress;
use crate::trouble::{Trouble, Watched};
use crate::types::{LeaderId, Raft, TypeConfig};

/// Counters of all groups of a node.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) entries: AtomicU64,
    pub(crate) commands: AtomicU64,
}

impl Counters {
    pub(crate) fn count_batch(&self, commands: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
    }
}

/// What the parts of a replica share.
pub(crate) struct Group {
    pub(crate) partition: PartitionId,
    pub(crate) replica: ReplicaId,
    pub(crate) raft: Raft,
    pub(crate) metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    pub(crate) server: WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
    pub(crate) store: Arc<dyn PartitionStore>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) trouble: Arc<Trouble>,
    pub(crate) clock: MachineClock,
    /// Entries that may still be proposed: see [`crate::propose::pause`].
    pub(crate) in_flight: Arc<Semaphore>,
    /// Held while members change or the leadership is handed over: one at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) told: committed::Told,
    /// Which nodes are reached.
    pub(crate) peers: Weak<Peers>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) timing: Timing,
}

/// What a replica knows about its group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Who leads, as far as known here.
    pub leader: Option<(ReplicaId, NodeId)>,
    /// Whether it is this replica.
    pub is_leader: bool,
    /// Current term.
    pub term: u64,
    /// Index of the last entry here; 0 if none.
    pub last_log: u64,
    /// Known to be committed by a quorum; 0 if none.
    pub committed: u64,
    /// Applied here; 0 if none.
    pub applied: u64,
    /// Replicas that vote, in either set while a change is under way.
    pub voters: Vec<(ReplicaId, NodeId)>,
    /// Replicas that do not.
    pub learners: Vec<(ReplicaId, NodeId)>,
    /// Whether a change of voters is half done (two sets of voters).
    pub is_joint: bool,
    /// The sets of voters, of each of which a majority is needed: two while a change is half done.
    pub quorums: Vec<Vec<ReplicaId>>,
    /// Last entry known to be on each replica; only on the leader.
    pub matched: BTreeMap<ReplicaId, u64>,
    /// Commands waiting to be proposed.
    pub queue_depth: usize,
    /// Since a quorum last confirmed this leader; only on the leader.
    pub millis_since_quorum_ack: Option<u64>,
    /// Why the group stopped, if it did.
    pub stopped: Option<String>,
    /// What of its log or state is damaged, if anything was found to be: it must be replaced under a new id.
    pub damaged: Option<String>,
}

/// How far a replica is. Cheaper than [`ReplicaStatus`], of which nothing else that lasts changes without one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// Current term.
    pub term: u64,
    /// Index of the last entry here; 0 if none.
    pub last_log: u64,
    /// Known to be committed by a quorum; 0 if none.
    pub committed: u64,
    /// Applied here; 0 if none.
    pub applied: u64,
    /// Up to where the log was purged; 0 if it never was.
    pub purged: u64,
}

impl Group {
    /// The leadership this replica holds, if it does.
    pub(crate) fn leads(&self) -> Option<LeaderId> {
        let server = self.server.borrow_watched();
        let mine = server.vote.committed && server.vote.leader_id.node_id == self.replica.0;
        // What a core told last is not taken back when it ends by a panic or by damage.
        let lives = !self.progress.is_ended();
        (mine && server.state.is_leader() && lives).then_some(server.vote.leader_id)
    }

    /// Who leads, as far as known here.
    pub(crate) fn leader(&self) -> Option<(ReplicaId, NodeId)> {
        let leader = leader_of(&self.server.borrow_watched());
        leader.filter(|_| !self.progress.is_ended())
    }

    /// The node that holds a member.
    pub(crate) fn holder(&self, replica: ReplicaId) -> Option<NodeId> {
        let server = self.server.borrow_watched();
        server
            .membership_config
            .get_node(&replica.0)
            .map(|node| NodeId(node.node))
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        let metrics = self.metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let at = |replica: u64| {
            let node = membership.get_node(&replica).map_or(0, |node| node.node);
            (ReplicaId(replica), NodeId(node))
        };
        let ids = |set: &BTreeSet<u64>| set.iter().map(|id| ReplicaId(*id)).collect();
        let matched = metrics.replication.iter().flatten();
        let ended = self.progress.is_ended();
        let running = metrics.running_state.as_ref().err().map(ToString::to_string);
        ReplicaStatus {
            leader: metrics.current_leader.map(at).filter(|_| !ended),
            is_leader: metrics.state.is_leader() && !ended,
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            committed: metrics.local_committed.map_or(0, |id| id.index),
            applied: self.progress.applied_index(),
            voters: membership.voter_ids().map(at).collect(),
            learners: membership.learner_ids().map(at).collect(),
            is_joint: membership.get_joint_config().len() > 1,
            quorums: membership.get_joint_config().iter().map(ids).collect(),
            matched: matched
                .map(|(id, log)| (ReplicaId(*id), log.map_or(0, |log| log.index)))
                .collect(),
            queue_depth: 0,
            millis_since_quorum_ack: metrics
                .last_quorum_acked
                .map(|at| at.elapsed().as_millis() as u64),
            stopped: running.or_else(|| ended.then(|| "its core ended without a word".to_owned())),
            damaged: self.trouble.damage().map(str::to_owned),
        }
    }
}

/// The leader that these metrics name, if its node is known.
pub(crate) fn leader_of(server: &RaftServerMetrics<TypeConfig>) -> Option<(ReplicaId, NodeId)> {
    let leader = server.current_leader?;
    let node = server.membership_config.get_node(&leader)?;
    Some((ReplicaId(leader), NodeId(node.node)))
}

struct Inner {
    group: Arc<Group>,
    proposals: mpsc::Sender<Proposal>,
    readers: mpsc::Sender<Reader>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One group's replica here; cheap to clone.
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

impl Replica {
    /// Starts the tasks of a replica: one that proposes, one that confirms reads, one that tells of leaders.
    pub(crate) fn start(group: Group, listener: Arc<dyn ApplyListener>) -> Replica {
        let group = Arc::new(group);
        let (proposals, proposed) = propose::queue();
        let (readers, reading) = read::queue();
        let tasks = vec![
            tokio::spawn(propose::run(group.clone(), proposed)),
            tokio::spawn(read::run(group.clone(), reading)),
            tokio::spawn(tell_leaders(group.clone(), listener)),
        ];
        Replica(Arc::new(Inner {
            group,
            proposals,
            readers,
            tasks,
        }))
    }

    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.0.group
    }

    /// Stops the group; waiting proposals end as unknown.
    pub(crate) async fn stop(&self) {
        // The only error is that the core task panicked or was cancelled; it is down in any case.
        let _ = self.0.group.raft.shutdown().await;
        self.0.group.progress.end();
        for task in &self.0.tasks {
            task.abort();
        }
    }

    /// Its partition.
    pub fn partition(&self) -> PartitionId {
        self.0.group.partition
    }

    /// Its id.
    pub fn replica_id(&self) -> ReplicaId {
        self.0.group.replica
    }

    /// Its state as it is now, unchanged by what is applied later. Damage that is met costs the replica, whoever reads.
    pub fn view(&self) -> Arc<dyn PointView> {
        let (view, trouble) = (self.0.group.store.point(), self.0.group.trouble.clone());
        Arc::new(Watched { view, trouble })
    }

    /// Its state.
    pub fn store(&self) -> Arc<dyn PartitionStore> {
        self.0.group.store.clone()
    }

    /// Proposes a command and waits until it is applied here. Only on the leader.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<Proposed, ProposeError> {
        propose::propose(&self.0.group, &self.0.proposals, command, deadline).await
    }

    /// A point at which the local state may be read linearizably. Only on the leader.
    pub async fn read_index(&self, deadline: Duration) -> Result<ReadPoint, ReadError> {
        read::read_index(&self.0.group, &self.0.readers, deadline).await
    }

    /// Waits until the entry at `index` is applied here.
    pub async fn wait_applied(&self, index: u64, deadline: Duration) -> Result<(), ReadError> {
        read::wait_applied(&self.0.group.progress, index, deadline).await
    }

    /// The same for an entry that a leader has just said is committed; the replica takes its word for it.
    pub async fn wait_committed(&self, point: ReadPoint, deadline: Duration) -> Result<(), ReadError> {
        committed::wait_applied(&self.0.group, point, deadline).await
    }

    /// After a restart: waits until this replica has caught up with what it had before, so that reads do not go
    /// back in time. (What it applied and had not yet synced itself may still be missing.)
    pub async fn wait_recovered(&self, deadline: Duration) -> Result<(), ReadError> {
        match timeout(deadline, self.0.group.progress.recovered()).await {
            Ok(recovered) => Ok(recovered?),
            Err(_) => Err(ReadError::Deadline(
                "what was applied before the restart is not yet applied again".into(),
            )),
        }
    }

    /// What is known about the group.
    pub fn status(&self) -> ReplicaStatus {
        let mut status = self.0.group.status();
        status.queue_depth = self.queue_depth();
        status
    }

    /// How far it is.
    pub fn marks(&self) -> Marks {
        let group = &self.0.group;
        let metrics = group.metrics.borrow_watched();
        Marks {
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            committed: metrics.local_committed.map_or(0, |id| id.index),
            applied: group.progress.applied_index(),
            purged: metrics.purged.map_or(0, |id| id.index),
        }
    }

    /// Commands waiting to be proposed.
    pub fn queue_depth(&self) -> usize {
        PARTITION_QUEUE - self.0.proposals.capacity()
    }

    /// Who leads, as far as known here. Cheaper than [`Replica::status`].
    pub fn leader(&self) -> Option<(ReplicaId, NodeId)> {
        self.0.group.leader()
    }

    /// Whether this replica leads. Cheaper than [`Replica::status`].
    pub fn is_leader(&self) -> bool {
        self.0.group.leads().is_some()
    }

    /// The machine's clock: on the leader it moves, elsewhere it is that of the applied state.
    pub fn clock_ms(&self) -> u64 {
        let group = &self.0.group;
        group.clock.now_ms(group.leads().map(|leader| leader.term))
    }

    /// Hands the leadership to a voter that is caught up. Only on the leader.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), MembershipError> {
        membership::transfer_leader(&self.0.group, to).await
    }

    /// Adds a replica that does not vote. Does not wait for it to catch up. Only on the leader.
    pub async fn add_learner(&self, replica: ReplicaId, node: NodeId) -> Result<(), MembershipError> {
        membership::add_learner(&self.0.group, replica, node).await
    }

    /// Makes exactly these members vote. Those that voted before stay as learners. Only on the leader.
    pub async fn set_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), MembershipError> {
        membership::set_voters(&self.0.group, voters).await
    }

    /// Removes a member that does not vote. Only on the leader.
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<(), MembershipError> {
        membership::remove_learner(&self.0.group, replica).await
    }
}

/// Tells the listener of each change of leader or term.
async fn tell_leaders(group: Arc<Group>, listener: Arc<dyn ApplyListener>) {
    let mut server = group.server.clone();
    let mut told = None;
    loop {
        let seen = {
            let server = server.borrow_watched();
            let mine = server.vote.committed
                && server.vote.leader_id.node_id == group.replica.0
                && server.state.is_leader();
            (
                leader_of(&server).map(|(_, node)| node),
                server.vote.leader_id.term,
                mine,
            )
        };
        if told != Some(seen) {
            told = Some(seen);
            let (leader, term, mine) = seen;
            listener.leadership(group.partition, leader, term, mine);
        }
        if server.changed().await.is_err() {
            // The core is down, whoever stopped it.
            group.progress.end();
            let term = told.map_or(0, |(_, term, _)| term);
            listener.leadership(group.partition, None, term, false);
            return;
        }
    }
}
