//! What `apply` returns: changes to commit in one atomic batch, a reply per command, events, effects.

use bytes::Bytes;

use crate::command::{KeyValue, ResponseOp};

/// Where in the log a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
}

/// One record written (`Some`) or removed (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Encoded key, slot and namespace first.
    pub key: Bytes,
    /// Encoded record.
    pub value: Option<Bytes>,
}

/// Put or delete, as etcd's watch events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The key was written.
    Put,
    /// The key was deleted; its `kv` has key and mod revision only.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Put or delete.
    pub kind: EventKind,
    /// The key after the change.
    pub kv: KeyValue,
    /// The key before it, if it existed.
    pub prev_kv: Option<KeyValue>,
}

/// All events of one revision of one namespace: a watcher gets all or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// Namespace number.
    pub namespace: u32,
    /// The revision they all carry.
    pub revision: i64,
    /// In order of the operations.
    pub events: Vec<Event>,
    /// Whether their previous pairs were left out, being too large: watchers find them in history.
    pub cut: bool,
}

/// What the leader should do next. Hints only: a new leader derives all of them from state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A namespace has compacted revisions whose records are still there.
    Compaction {
        /// Its number.
        namespace: u32,
    },
    /// Nodes, partitions, namespaces or policies changed.
    MetaChanged,
}

/// Everything one batch did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// To be committed in order, atomically with the applied log id.
    pub changes: Vec<Change>,
    /// One per command, in order.
    pub replies: Vec<Reply>,
    /// Per namespace and revision, ascending.
    pub events: Vec<Events>,
    /// Hints.
    pub effects: Vec<Effect>,
}

/// The answer to one command. Persisted in sessions and sent between nodes, hence a message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// The namespace's revision after the command.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// What came of it.
    #[prost(oneof = "Done", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub done: Option<Done>,
}

/// The ways a command ends.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Done {
    /// Nothing to say (tick, compact, configure, …).
    #[prost(message, tag = "2")]
    Empty(Empty),
    /// Refused; nothing changed.
    #[prost(message, tag = "3")]
    Refused(Refusal),
    /// Put: the previous pair if asked for.
    #[prost(message, tag = "4")]
    Put(Put),
    /// Delete.
    #[prost(message, tag = "5")]
    Deleted(Deleted),
    /// Transaction.
    #[prost(message, tag = "6")]
    Txn(TxnDone),
    /// Lease granted or kept alive: id, TTL in seconds.
    #[prost(message, tag = "7")]
    Lease(LeaseDone),
    /// A step of work is done; `remaining` says whether more is left.
    #[prost(message, tag = "8")]
    Step(StepDone),
    /// An id was allocated by a meta command.
    #[prost(message, tag = "9")]
    Allocated(Allocated),
}

/// No content.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

/// Why a command was refused.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    /// A [`RefusalKind`].
    #[prost(enumeration = "RefusalKind", tag = "1")]
    pub kind: i32,
    /// A sentence for people; etcd kinds carry etcd's text in the server.
    #[prost(string, tag = "2")]
    pub text: String,
    /// A number the kind speaks of (compact revision, current session seq, …).
    #[prost(int64, tag = "3")]
    pub detail: i64,
}

/// Closed list of refusals; the server maps each to a gRPC code and text in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum RefusalKind {
    /// Never sent.
    Unspecified = 0,
    /// etcd `ErrCompacted`; `detail` is the compact revision.
    Compacted = 1,
    /// etcd `ErrFutureRev`.
    FutureRevision = 2,
    /// etcd `ErrLeaseNotFound`.
    LeaseNotFound = 3,
    /// etcd `ErrLeaseExist`.
    LeaseExists = 4,
    /// etcd `ErrLeaseTTLTooLarge`.
    LeaseTtlTooLarge = 5,
    /// etcd `ErrKeyNotFound` (ignore_value / ignore_lease on a missing key).
    KeyNotFound = 6,
    /// etcd `ErrEmptyKey`.
    EmptyKey = 7,
    /// etcd `ErrDuplicateKey`.
    DuplicateKey = 8,
    /// etcd `ErrTooManyOps`.
    TooManyOperations = 9,
    /// etcd `ErrNoSpace`: the namespace's byte quota.
    NoSpace = 10,
    /// etcd `ErrValueProvided` / `ErrLeaseProvided`, malformed ranges and the like.
    Invalid = 11,
    /// The session is unknown or has expired.
    SessionExpired = 12,
    /// Too many of something; `text` names it.
    LimitReached = 13,
    /// Something that must not exist yet does.
    AlreadyExists = 14,
    /// A node, partition, namespace or replica that does not exist.
    NotFound = 15,
    /// The precondition (generation, epoch, state) does not hold; `detail` is the current value.
    Stale = 16,
}

/// Reply to a put.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// The pair before, if `prev_kv` was asked for and it existed.
    #[prost(message, optional, tag = "1")]
    pub prev_kv: Option<KeyValue>,
}

/// Reply to a delete.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Deleted {
    /// How many keys went.
    #[prost(int64, tag = "1")]
    pub deleted: i64,
    /// The pairs before, if asked for.
    #[prost(message, repeated, tag = "2")]
    pub prev_kvs: Vec<KeyValue>,
}

/// Reply to a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnDone {
    /// Whether the compares held.
    #[prost(bool, tag = "1")]
    pub succeeded: bool,
    /// One per operation of the branch taken.
    #[prost(message, repeated, tag = "2")]
    pub responses: Vec<ResponseOp>,
}

/// Reply to lease commands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseDone {
    /// Lease id.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Granted time to live in seconds.
    #[prost(int64, tag = "2")]
    pub ttl_s: i64,
}

/// Reply to a step of background work.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StepDone {
    /// Whether another step is needed.
    #[prost(bool, tag = "1")]
    pub remaining: bool,
    /// Records removed by this step.
    #[prost(uint64, tag = "2")]
    pub removed: u64,
}

/// Reply to an allocating meta command.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Allocated {
    /// The new node, namespace or replica id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The generation of the record it is in.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
}
