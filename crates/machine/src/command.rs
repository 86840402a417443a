//! What the log carries. These messages are at once the machine's input and its persistent form, so that one
//! definition cannot drift from the other (docs/rfc/0002). Tags are never reused; fields are only added.

use bytes::Bytes;

/// The format of a [`Batch`] that this build writes; a node that meets a newer one stops.
pub const BATCH_FORMAT: u32 = 1;

/// One log entry: commands proposed together, applied in order.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// [`BATCH_FORMAT`] of the writer.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// The leader's machine clock, in milliseconds; `apply` clamps it to be monotonic.
    #[prost(uint64, tag = "2")]
    pub clock_ms: u64,
    /// Wall clock of the leader, milliseconds since 1970, for people only.
    #[prost(uint64, tag = "3")]
    pub wall_ms: u64,
    /// In order.
    #[prost(message, repeated, tag = "4")]
    pub commands: Vec<Command>,
}

/// One command with who sent it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// Who asked; `root` until authentication exists.
    #[prost(string, tag = "1")]
    pub principal: String,
    /// Revision of the permissions that admitted it.
    #[prost(uint64, tag = "2")]
    pub auth_revision: u64,
    /// Session, or 0 for none.
    #[prost(uint64, tag = "3")]
    pub client_id: u64,
    /// Number within the session, from 1; a retry repeats it.
    #[prost(uint64, tag = "4")]
    pub seq: u64,
    /// Slot of the key space (or [`types::Slot::PARTITION`]).
    #[prost(uint32, tag = "5")]
    pub slot: u32,
    /// Namespace number (0 in partition-wide commands).
    #[prost(uint32, tag = "6")]
    pub namespace: u32,
    /// What to do.
    #[prost(
        oneof = "Body",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23"
    )]
    pub body: Option<Body>,
}

/// Closed list of commands. `None` in a [`Command`] is a kind this build does not know: the node stops.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    /// Write a key.
    #[prost(message, tag = "10")]
    Put(PutRequest),
    /// Delete keys.
    #[prost(message, tag = "11")]
    DeleteRange(DeleteRangeRequest),
    /// Compare, then one of two lists.
    #[prost(message, tag = "12")]
    Txn(TxnRequest),
    /// Forget revisions below one, logically, at once.
    #[prost(message, tag = "13")]
    Compact(Compact),
    /// Remove some records of compacted revisions; the leader repeats it until nothing remains.
    #[prost(message, tag = "14")]
    CompactStep(CompactStep),
    /// New lease; id 0 lets the machine choose.
    #[prost(message, tag = "15")]
    LeaseGrant(LeaseGrant),
    /// End a lease and delete its keys.
    #[prost(message, tag = "16")]
    LeaseRevoke(LeaseId),
    /// Renew leases.
    #[prost(message, tag = "17")]
    LeaseKeepAlive(LeaseId),
    /// The leader found this lease past its deadline; ignored if the generation has moved on.
    #[prost(message, tag = "18")]
    LeaseExpire(LeaseExpire),
    /// Quota and retention of a namespace; creates its records on first use.
    #[prost(message, tag = "19")]
    NamespaceConfigure(NamespaceSettings),
    /// Moves the clock.
    #[prost(message, tag = "20")]
    Tick(Tick),
    /// Register `client_id` (in the command) as a session.
    #[prost(message, tag = "21")]
    SessionOpen(SessionOpen),
    /// End sessions that were silent too long.
    #[prost(message, tag = "22")]
    SessionExpire(SessionExpire),
    /// Cluster records; partition 0 only.
    #[prost(message, tag = "23")]
    Meta(crate::record::meta::MetaCommand),
}

impl Command {
    /// Whether this build knows what it asks. What is not known must not reach a log: every replica would stop at it.
    pub fn is_known(&self) -> bool {
        match &self.body {
            Some(Body::Meta(meta)) => meta.change.is_some(),
            body => body.is_some(),
        }
    }
}

/// A key with its value and versions; etcd's `mvccpb.KeyValue`, tags included.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Revision of the last creation.
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    /// Revision of the last write.
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// Writes since the last creation; 0 in deletions.
    #[prost(int64, tag = "4")]
    pub version: i64,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
    /// Attached lease, or 0.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// As etcd's `RangeRequest`; enums keep etcd's numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Empty: one key. `"\0"`: from `key` on (with key `"\0"`: all).
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// 0: the newest.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    /// 0 none, 1 ascending, 2 descending.
    #[prost(int32, tag = "5")]
    pub sort_order: i32,
    /// 0 key, 1 version, 2 create, 3 mod, 4 value.
    #[prost(int32, tag = "6")]
    pub sort_target: i32,
    #[prost(bool, tag = "7")]
    pub serializable: bool,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
    #[prost(bool, tag = "9")]
    pub count_only: bool,
    #[prost(int64, tag = "10")]
    pub min_mod_revision: i64,
    #[prost(int64, tag = "11")]
    pub max_mod_revision: i64,
    #[prost(int64, tag = "12")]
    pub min_create_revision: i64,
    #[prost(int64, tag = "13")]
    pub max_create_revision: i64,
}

/// Answer to a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
    #[prost(int64, tag = "4")]
    pub count: i64,
}

/// As etcd's `PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    #[prost(int64, tag = "3")]
    pub lease: i64,
    #[prost(bool, tag = "4")]
    pub prev_kv: bool,
    #[prost(bool, tag = "5")]
    pub ignore_value: bool,
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// As etcd's `DeleteRangeRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteRangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub range_end: Bytes,
    #[prost(bool, tag = "3")]
    pub prev_kv: bool,
}

/// As etcd's `Compare`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// 0 equal, 1 greater, 2 less, 3 not equal.
    #[prost(int32, tag = "1")]
    pub result: i32,
    /// 0 version, 1 create, 2 mod, 3 value, 4 lease.
    #[prost(int32, tag = "2")]
    pub target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub key: Bytes,
    /// For targets version, create, mod, lease.
    #[prost(int64, tag = "4")]
    pub number: i64,
    /// For target value.
    #[prost(bytes = "bytes", tag = "7")]
    pub value: Bytes,
    #[prost(bytes = "bytes", tag = "64")]
    pub range_end: Bytes,
}

/// As etcd's `TxnRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestOp {
    #[prost(oneof = "Operation", tags = "1, 2, 3, 4")]
    pub operation: Option<Operation>,
}

/// Closed list.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Operation {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

/// Answer to one operation of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseOp {
    /// Revision that etcd puts into the header of this operation's answer.
    #[prost(int64, tag = "15")]
    pub revision: i64,
    #[prost(oneof = "OperationDone", tags = "1, 2, 3, 4")]
    pub done: Option<OperationDone>,
}

/// Closed list.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OperationDone {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "2")]
    Put(crate::outcome::Put),
    #[prost(message, tag = "3")]
    Deleted(crate::outcome::Deleted),
    #[prost(message, tag = "4")]
    Txn(crate::outcome::TxnDone),
}

/// Logical compaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compact {
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// A bounded part of removing compacted records.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompactStep {
    /// Records to look at, at most.
    #[prost(uint32, tag = "1")]
    pub records: u32,
}

/// New lease.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseGrant {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(int64, tag = "2")]
    pub ttl_s: i64,
}

/// A lease.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseId {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Expiry of one lease at one generation (raised by each keep-alive).
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseExpire {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
}

/// Settings of a namespace as its partition needs them. Zero means the default of `types::limits`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct NamespaceSettings {
    #[prost(uint64, tag = "1")]
    pub quota_bytes: u64,
    /// Revisions kept by automatic compaction.
    #[prost(int64, tag = "2")]
    pub retain_revisions: i64,
    /// Milliseconds of history kept by automatic compaction.
    #[prost(uint64, tag = "3")]
    pub retain_ms: u64,
    /// In a partition: the generation of the map's record that these are from; older ones than known change nothing.
    #[prost(uint64, tag = "4")]
    pub generation: u64,
}

/// Moves the clock; carries nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tick {}

/// Registers a session.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionOpen {}

/// Ends sessions silent since before this machine time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionExpire {
    #[prost(uint64, tag = "1")]
    pub silent_since_ms: u64,
}
