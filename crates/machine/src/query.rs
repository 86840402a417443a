//! Reads: a closed list of questions and their answers, so that any node can pass one on.

use bytes::Bytes;

use crate::command::{KeyValue, RangeRequest, RangeResponse};
use crate::outcome::Refusal;

mod answer;
mod hash;
mod history;

pub use answer::answer;

/// A question about one namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Query {
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    #[prost(uint32, tag = "2")]
    pub namespace: u32,
    #[prost(oneof = "Ask", tags = "3, 4, 5, 6, 7, 8, 9")]
    pub ask: Option<Ask>,
    /// The leader's clock when it answers, which runs ahead of the applied one between batches.
    #[prost(uint64, tag = "10")]
    pub clock_ms: u64,
}

/// Closed list.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Ask {
    /// Keys.
    #[prost(message, tag = "3")]
    Range(RangeRequest),
    /// One lease: granted and remaining time, keys if asked.
    #[prost(message, tag = "4")]
    Lease(AskLease),
    /// All leases.
    #[prost(message, tag = "5")]
    Leases(crate::outcome::Empty),
    /// Hash of keys and versions up to a revision (0: newest).
    #[prost(message, tag = "6")]
    HashKv(AskRevision),
    /// Revision, compact revision, counts, bytes, settings.
    #[prost(message, tag = "7")]
    Namespace(crate::outcome::Empty),
    /// Events of revisions from..=to from history, for watchers; bounded by `limit_bytes`.
    #[prost(message, tag = "8")]
    History(AskHistory),
    /// A transaction without writes; one with writes is refused (`Invalid`).
    #[prost(message, tag = "9")]
    Txn(crate::command::TxnRequest),
}

/// One lease.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AskLease {
    #[prost(int64, tag = "1")]
    pub id: i64,
    #[prost(bool, tag = "2")]
    pub keys: bool,
}

/// A revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AskRevision {
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

/// A stretch of history.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AskHistory {
    /// First revision wanted.
    #[prost(int64, tag = "1")]
    pub from: i64,
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
    /// Stops after the revision that exceeds it.
    #[prost(uint64, tag = "4")]
    pub limit_bytes: u64,
    #[prost(bool, tag = "5")]
    pub prev_kv: bool,
}

/// The answer, with the namespace's revision at the point of reading.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    #[prost(int64, tag = "1")]
    pub revision: i64,
    #[prost(oneof = "Told", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub told: Option<Told>,
}

/// Closed list.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Told {
    #[prost(message, tag = "2")]
    Refused(Refusal),
    #[prost(message, tag = "3")]
    Range(RangeResponse),
    #[prost(message, tag = "4")]
    Lease(LeaseInfo),
    #[prost(message, tag = "5")]
    Leases(LeaseList),
    #[prost(message, tag = "6")]
    HashKv(HashKv),
    #[prost(message, tag = "7")]
    Namespace(NamespaceInfo),
    #[prost(message, tag = "8")]
    History(History),
    #[prost(message, tag = "9")]
    Txn(crate::outcome::TxnDone),
}

/// A lease as seen on the machine's clock; `remaining_ms` is relative to the last applied clock.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseInfo {
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Granted, in seconds; 0 and `remaining_ms` -1000: no such lease.
    #[prost(int64, tag = "2")]
    pub granted_s: i64,
    #[prost(int64, tag = "3")]
    pub remaining_ms: i64,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub keys: Vec<Bytes>,
}

/// Lease ids, ascending.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeaseList {
    #[prost(int64, repeated, tag = "1")]
    pub ids: Vec<i64>,
}

/// Hash of the history that a compaction would keep at `compact_revision`, up to `hash_revision`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HashKv {
    #[prost(uint32, tag = "1")]
    pub hash: u32,
    #[prost(int64, tag = "2")]
    pub compact_revision: i64,
    #[prost(int64, tag = "3")]
    pub hash_revision: i64,
}

/// A namespace's numbers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespaceInfo {
    #[prost(int64, tag = "1")]
    pub revision: i64,
    #[prost(int64, tag = "2")]
    pub compact_revision: i64,
    /// Whether compacted records are still to be removed.
    #[prost(bool, tag = "3")]
    pub compaction_pending: bool,
    #[prost(uint64, tag = "4")]
    pub keys: u64,
    /// Bytes of live keys and values.
    #[prost(uint64, tag = "5")]
    pub live_bytes: u64,
    /// Bytes of all keys and values, history included: what the quota counts.
    #[prost(uint64, tag = "6")]
    pub total_bytes: u64,
    #[prost(uint64, tag = "7")]
    pub leases: u64,
    #[prost(message, optional, tag = "8")]
    pub settings: Option<crate::command::NamespaceSettings>,
}

/// Events from history, whole revisions, ascending.
#[derive(Clone, PartialEq, prost::Message)]
pub struct History {
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<HistoryEvent>,
    /// The scan saw everything up to and including this revision.
    #[prost(int64, tag = "2")]
    pub through: i64,
}

/// One event of history.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HistoryEvent {
    #[prost(bool, tag = "1")]
    pub delete: bool,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
    #[prost(message, optional, tag = "3")]
    pub prev_kv: Option<KeyValue>,
}

#[cfg(test)]
mod tests;
