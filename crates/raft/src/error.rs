//! Why something did not work, by operation. A time-out is always *unknown*, never failure.

use types::{NodeId, PartitionId, ReplicaId};

use crate::state_machine::Ended;

/// Opening, founding or removing a replica, or starting the node.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The store refused.
    #[error("storage of partition {partition}: {source}")]
    Storage {
        /// Which partition.
        partition: PartitionId,
        /// Why.
        source: std::io::Error,
    },
    /// Another replica of this partition is open here.
    #[error("partition {partition} is open here as replica {open}, not {asked}")]
    OtherReplica {
        /// Which partition.
        partition: PartitionId,
        /// What is open.
        open: ReplicaId,
        /// What was asked for.
        asked: ReplicaId,
    },
    /// This replica was removed and must never come back under its old id.
    #[error("replica {0} was removed and its id is never used again")]
    Removed(ReplicaId),
    /// A configuration that openraft does not accept.
    #[error("raft configuration: {0}")]
    Config(String),
    /// The group could not be started, or stopped by itself.
    #[error("group of partition {partition}: {text}")]
    Group {
        /// Which partition.
        partition: PartitionId,
        /// Why.
        text: String,
    },
    /// Peers could not be started.
    #[error("peer transport: {0}")]
    Peers(String),
}

/// A request to another node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It never left this node: safe to send again elsewhere.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The other side answered with an error.
    #[error("refused ({code:?}): {text}")]
    Refused {
        /// gRPC code.
        code: tonic::Code,
        /// Its sentence.
        text: String,
    },
    /// It was sent and no answer came: it may or may not have happened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// A proposal that got no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The replica here does not lead; nothing was appended.
    #[error("not the leader{}", hint(leader))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// The queue of this partition is full; nothing was appended.
    #[error("the partition's queue is full, try again later")]
    Busy,
    /// The command does not fit a log entry; nothing was appended.
    #[error("the command is too large for a log entry")]
    TooLarge,
    /// It may or may not take effect.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The replica is shut down; nothing was appended.
    #[error("the replica is stopped")]
    Stopped,
}

/// A read point could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The replica here does not lead.
    #[error("not the leader{}", hint(leader))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// No quorum confirmed in time, or the local state did not get that far in time.
    #[error("deadline exceeded: {0}")]
    Deadline(String),
    /// The replica is shut down.
    #[error("the replica is stopped")]
    Stopped,
}

impl From<Ended> for ReadError {
    fn from(Ended: Ended) -> Self {
        ReadError::Stopped
    }
}

/// A change of leader or members that did not happen, or not visibly so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// The replica here does not lead.
    #[error("not the leader{}", hint(leader))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Another change is not finished; try again.
    #[error("another membership change is in progress")]
    InProgress,
    /// The replica is unknown to the group, or has the wrong role.
    #[error("{0}")]
    Invalid(String),
    /// The target of a transfer is too far behind.
    #[error("replica {replica} lags {lag} entries behind")]
    Lagging {
        /// Who.
        replica: ReplicaId,
        /// Entries.
        lag: u64,
    },
    /// The target of a transfer could not take over now: its node does not answer, or has not opened it yet.
    #[error("replica {replica} on node {node} cannot take over now: {why}")]
    Unreachable {
        /// Who.
        replica: ReplicaId,
        /// Where it is.
        node: NodeId,
        /// For people.
        why: String,
    },
    /// The leadership went away, and not to the one asked for, or not for long.
    #[error("the leadership was given up, and node {leader} leads by now")]
    PassedOn {
        /// Who leads.
        leader: NodeId,
    },
    /// It may or may not have happened; look at the status.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The replica is shut down.
    #[error("the replica is stopped")]
    Stopped,
}

impl MembershipError {
    /// Whether the same call may work a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            MembershipError::InProgress
                | MembershipError::Lagging { .. }
                | MembershipError::Unreachable { .. }
                | MembershipError::Unknown(_)
        )
    }
}

fn hint(leader: &Option<NodeId>) -> String {
    match leader {
        Some(node) => format!(", node {node} is"),
        None => String::new(),
    }
}
