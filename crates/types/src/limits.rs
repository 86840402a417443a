//! Every bound in one place. A bound that is hit gives a clear error, never a silent drop.

/// Largest client request, in bytes.
pub const REQUEST_BYTES: usize = 1536 * 1024;
/// Largest message that is read at all, in bytes: one beyond [`REQUEST_BYTES`] gets etcd's refusal, one beyond this
/// that of the transport.
pub const MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// Largest key, in bytes.
pub const KEY_BYTES: usize = 16 * 1024;
/// Most operations in one branch of a transaction, together with those of the branches it is nested in, as in etcd.
pub const TXN_OPERATIONS: usize = 1000;
/// Deepest nesting of transactions.
pub const TXN_DEPTH: usize = 16;
/// Commands that one log entry carries at most.
pub const BATCH_COMMANDS: usize = 1024;
/// Bytes of commands that one log entry carries at most.
pub const BATCH_BYTES: usize = 1024 * 1024;
/// Commands waiting for a partition before new ones are refused with a retry hint.
pub const PARTITION_QUEUE: usize = 8192;
/// Log entries of one partition proposed and not yet applied.
pub const ENTRIES_IN_FLIGHT: usize = 4;
/// How long commands wait for the entries before theirs, to go together in one, in milliseconds. Less: more, smaller
/// entries. More: commands wait longer where an entry takes long.
pub const ENTRY_ALONE_MS: u64 = 10;
/// Bytes of recent events kept in memory per partition for watchers.
pub const WATCH_RING_BYTES: usize = 4 * 1024 * 1024;
/// Responses buffered for one watch stream before its watches read history instead.
pub const WATCH_STREAM_BUFFER: usize = 256;
/// Bytes of one watch response before it is cut (fragment) or sent on its own.
pub const WATCH_RESPONSE_BYTES: usize = 1024 * 1024;
/// Bytes of one revision that a node without a replica takes in for its watches. Of a larger one, each watch reads
/// from history what concerns it.
pub const WATCH_REVISION_BYTES: usize = 128 * 1024 * 1024;
/// Bytes of previous pairs that the events of one revision carry. Of a larger one, each watch reads from history what
/// concerns it.
pub const WATCH_PREVIOUS_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of previous pairs that one answer carries: no more would pass between two nodes.
pub const PREVIOUS_BYTES: u64 = 60 * 1024 * 1024;
/// Watches on one stream.
pub const WATCHES_PER_STREAM: usize = 100_000;
/// Milliseconds between notices of progress on quiet watches, unless configured otherwise (etcd's default).
pub const WATCH_PROGRESS_MS: u64 = 10 * 60 * 1000;
/// Milliseconds between comparisons of the replicas of a partition, unless configured otherwise.
pub const COMPARE_REPLICAS_MS: u64 = 60 * 1000;
/// Records removed by one compaction step.
pub const COMPACT_STEP_RECORDS: usize = 2000;
/// Bytes of keys and values, looked at or removed, after which a compaction step ends.
pub const COMPACT_STEP_BYTES: u64 = 4 * 1024 * 1024;
/// Leases expired by one command batch.
pub const LEASES_PER_EXPIRY: usize = 1000;
/// Bytes that a lease counts against its namespace's quota while it lives (etcd's `leaseOverhead`).
pub const LEASE_BYTES: u64 = 64;
/// Longest lease, in seconds (etcd's bound).
pub const LEASE_TTL_MAX_S: i64 = 9_000_000_000;
/// Shortest lease, in seconds: twice the tick, so that a leader change cannot use it up.
pub const LEASE_TTL_MIN_S: i64 = 2;
/// Concurrent HTTP/2 streams of one client connection.
pub const STREAMS_PER_CONNECTION: u32 = 4096;
/// Longest id that a client gives a request, in bytes.
pub const REQUEST_ID_BYTES: usize = 64;
/// Failed requests that are logged in a second; the rest is counted.
pub const FAILURES_LOGGED: usize = 20;
/// Requests one node forwards to one peer and has not yet an answer to.
pub const FORWARDS_IN_FLIGHT: usize = 16 * 1024;
/// Frames queued for one lane to one peer.
pub const LANE_QUEUE: usize = 8192;
/// Bytes of frames that one lane message carries before the next begins.
pub const LANE_MESSAGE_BYTES: usize = 1024 * 1024;
/// Chunk of a partition's files on the bulk lane.
pub const BULK_CHUNK_BYTES: usize = 512 * 1024;
/// Log bytes of one replica after which it is flushed and purged.
pub const LOG_BYTES_BEFORE_PURGE: u64 = 24 * 1024 * 1024;
/// Log entries of one replica after which it is flushed and purged.
pub const LOG_ENTRIES_BEFORE_PURGE: u64 = 50_000;
/// Applied entries kept in the log for followers that lag a little.
pub const LOG_ENTRIES_KEPT: u64 = 10_000;
/// Bytes of recent log entries kept in memory per replica.
pub const LOG_CACHE_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of recent log entries kept in memory for all replicas of a node together.
pub const LOG_CACHE_NODE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes waiting for the log's writer before callers wait too.
pub const LOG_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Operations waiting for the log's writer before callers wait too.
pub const LOG_QUEUE_OPERATIONS: usize = 64 * 1024;
/// Partitions of one cluster.
pub const PARTITIONS: u32 = 1024;
/// Namespaces of one cluster.
pub const NAMESPACES: u32 = 4096;
/// Longest namespace name, in bytes.
pub const NAMESPACE_NAME_BYTES: usize = 128;
/// Bytes of keys and values that a namespace may hold unless its quota says otherwise.
pub const NAMESPACE_QUOTA_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// Sessions of the native API per partition.
pub const SESSIONS: usize = 100_000;
/// A session that was silent for this long expires, by a logged command.
pub const SESSION_TTL_MS: u64 = 15 * 60 * 1000;
/// Free bytes on the data disk below which writes are refused.
pub const DISK_RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// Free bytes above the reserve at which writes are taken again, at most.
pub const DISK_MARGIN_BYTES: u64 = 128 * 1024 * 1024;
/// Replicas of a partition that vote, when there are nodes enough.
pub const REPLICATION_FACTOR: usize = 3;
/// Revisions kept before automatic compaction, unless the namespace says otherwise.
pub const RETAIN_REVISIONS: i64 = 1_000_000;
/// Milliseconds of history kept before automatic compaction, unless the namespace says otherwise.
pub const RETAIN_MS: u64 = 60 * 60 * 1000;
/// Bytes of batches applied in one go before other tasks get their turn.
pub const APPLY_YIELD_BYTES: usize = 64 * 1024;
/// Bytes of log entries read in one go, for one append to a follower or for apply.
pub const LOG_READ_BYTES: usize = 1024 * 1024;
/// Entries that the target of a planned leader transfer may be behind.
pub const TRANSFER_LAG_ENTRIES: u64 = 64;
/// Nodes of one cluster, removed ones not counted.
pub const NODES: usize = 256;
