//! What openraft is told about us: identities, log entries, replies. The only place that configures its types.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use machine::Outcome;
use openraft::RaftTypeConfig;
use storage::{Checkpoint, Incoming};

use crate::state_machine::StateMachine;

/// What one log entry carries: an encoded [`machine::Batch`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EncodedBatch(pub Bytes);

impl fmt::Debug for EncodedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for EncodedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

/// Which node holds a replica. Addresses are not kept in Raft's membership: the meta partition has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaNode {
    /// The controller.
    pub node: u64,
}

/// Hands the result of one proposal back. Runs inside apply, so it must not block.
pub struct Respond<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Respond<T> {
    /// Calls `then` with the result.
    pub fn new(then: impl FnOnce(T) + Send + 'static) -> Self {
        Respond(Box::new(then))
    }
}

impl<T: openraft::OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T> for Respond<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The type configuration. Written by hand, since the macro cannot override `Responder`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

#[allow(deprecated)]
impl RaftTypeConfig for TypeConfig {
    type D = EncodedBatch;
    /// Shared between the waiting proposals and the [`crate::ApplyListener`].
    type R = Arc<Outcome>;
    /// A [`types::ReplicaId`].
    type NodeId = u64;
    type Node = ReplicaNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = crate::runtime::Runtime;
    type Responder<T>
        = Respond<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// A state in flight: read from here, or received from elsewhere and about to be installed.
pub enum SnapshotData {
    /// A frozen copy of the local state, to be sent.
    Local(Arc<dyn Checkpoint>),
    /// A finished copy from another replica, to be installed.
    Received(Box<dyn Incoming>),
    /// The local state was flushed; nothing to send. Only ever the result of building a snapshot.
    Flushed,
}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotData::Local(_) => write!(f, "local checkpoint"),
            SnapshotData::Received(_) => write!(f, "received checkpoint"),
            SnapshotData::Flushed => write!(f, "flushed state"),
        }
    }
}

/// One group.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
/// Why a group stopped.
pub type Fatal = openraft::errors::Fatal<TypeConfig>;
/// Term and replica that leads in it.
pub type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
/// What a group tells of itself.
pub type Metrics = openraft::RaftMetrics<TypeConfig>;
/// Leader and index of an entry.
pub type LogId = openraft::LogId<LeaderId>;
/// Who may lead.
pub type Vote = openraft::Vote<LeaderId>;
/// What an entry carries.
pub type Payload = openraft::EntryPayload<EncodedBatch, u64, ReplicaNode>;
/// One log entry.
pub type Entry = openraft::Entry<LeaderId, Payload>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, ReplicaNode>;
/// A membership and the entry that set it.
pub type StoredMembership = openraft::StoredMembership<LeaderId, u64, ReplicaNode>;
/// What a snapshot contains.
pub type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, ReplicaNode>;
/// A snapshot.
pub type Snapshot = openraft::Snapshot<LeaderId, u64, ReplicaNode, SnapshotData>;
/// Replicas by id.
pub type Members = BTreeMap<u64, ReplicaNode>;
/// Request for votes.
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
/// Answer to it.
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
/// Entries for a follower, or a heartbeat.
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
/// Answer to it.
pub type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
/// Answer within a stream of appends.
pub type StreamAppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
/// The leader asks another replica to take over.
pub type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
