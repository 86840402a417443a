//! Settings of one controller: a plain struct per part, read from TOML. `validate` reports every fault at once.

#[cfg(test)]
mod tests;
mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use validate::{Fault, validate};

/// Everything that can be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// This controller.
    pub node: NodeConfig,
    /// Where it listens.
    pub listen: Listen,
    /// Where others reach it.
    pub advertise: Advertise,
    /// Which cluster it belongs to.
    pub cluster: ClusterConfig,
    /// Timing of elections.
    pub raft: RaftConfig,
    /// Bounds.
    pub limits: Limits,
    /// Memory of the stores.
    pub storage: StorageConfig,
    /// Logging.
    pub log: LogConfig,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Name shown to people. Default: `node-<id>`.
    pub name: String,
    /// Join under this id. Default: the cluster gives one. Ignored once the node has an identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Directory of everything that lasts. Default `holdfast-data`. Put it on the disk with the fastest fsync.
    pub data_dir: PathBuf,
    /// Worker threads. Default 1, which is the fastest on hosts with few cores; more helps above four cores and
    /// costs cross-thread wake-ups on each write.
    pub worker_threads: usize,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            name: String::new(),
            id: None,
            data_dir: PathBuf::from("holdfast-data"),
            worker_threads: 1,
        }
    }
}

/// `[listen]`: `host:port` to bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// etcd v3 and `holdfast.v1` gRPC. Default `127.0.0.1:2379`.
    pub client: String,
    /// Other controllers. Default `127.0.0.1:2380`. Keep it away from clients.
    pub peer: String,
    /// Metrics and health. Default `127.0.0.1:2381`.
    pub http: String,
}

impl Default for Listen {
    fn default() -> Listen {
        Listen {
            client: "127.0.0.1:2379".into(),
            peer: "127.0.0.1:2380".into(),
            http: "127.0.0.1:2381".into(),
        }
    }
}

/// `[advertise]`: `host:port` told to others. Default: as in `[listen]`, which then must name an address that others
/// can reach (not `0.0.0.0`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Advertise {
    /// For clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// For controllers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// For metrics and health.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
}

/// `[cluster]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Peer addresses of nodes to ask for admission at the first start. Ignored once the node has an identity.
    pub join: Vec<String>,
    /// Join only a cluster with this id (hexadecimal). Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect_id: Option<String>,
}

/// `[raft]`: elections, in milliseconds (shorter finds a dead leader sooner and costs idle load and false alarms on a slow
/// host), and how much log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RaftConfig {
    /// Between heartbeats of a leader. Default 300.
    pub heartbeat_ms: u64,
    /// Shortest silence before an election. Default 1000; at least three heartbeats.
    pub election_min_ms: u64,
    /// Longest silence before an election. Default 1500.
    pub election_max_ms: u64,
    /// Applied entries of a replica after which its log is cut. Default 50000. Less saves disk; replicas that lag by
    /// more get the whole state instead of what they miss.
    pub log_entries: u64,
    /// Bytes of a replica's log after which it is cut. Default 24 MiB.
    pub log_bytes: u64,
    /// Applied entries that are left in a log that is cut, for replicas that lag a little. Default 10000.
    pub log_entries_kept: u64,
}

impl Default for RaftConfig {
    fn default() -> RaftConfig {
        RaftConfig {
            heartbeat_ms: 300,
            election_min_ms: 1000,
            election_max_ms: 1500,
            log_entries: types::limits::LOG_ENTRIES_BEFORE_PURGE,
            log_bytes: types::limits::LOG_BYTES_BEFORE_PURGE,
            log_entries_kept: types::limits::LOG_ENTRIES_KEPT,
        }
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How long a request waits for a leader and its answer. Default 5000 ms. Longer hides outages from clients.
    pub request_timeout_ms: u64,
    /// Writes of one partition in flight on this node before new ones are refused. Default 8192. More costs memory
    /// and latency under overload.
    pub partition_queue: usize,
    /// Free bytes on the data disk below which writes are refused. Default 256 MiB. Less risks a full disk.
    pub disk_reserve_bytes: u64,
    /// Concurrent requests of one client connection. Default 4096.
    pub streams_per_connection: u32,
    /// Between the notices of progress that quiet watches may ask for. Default 600000 ms, as in etcd. Less costs
    /// messages, and lets clients resume nearer to the present.
    pub watch_progress_ms: u64,
    /// Between comparisons of the state hashes of a partition's replicas, by whoever leads it. Default 60000 ms. Less
    /// finds a difference sooner, and costs messages.
    pub compare_replicas_ms: u64,
    /// How long a shutdown waits for leaders to move and requests to finish. Default 5000 ms.
    pub drain_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_timeout_ms: 5000,
            partition_queue: types::limits::PARTITION_QUEUE,
            disk_reserve_bytes: types::limits::DISK_RESERVE_BYTES,
            streams_per_connection: types::limits::STREAMS_PER_CONNECTION,
            watch_progress_ms: types::limits::WATCH_PROGRESS_MS,
            compare_replicas_ms: types::limits::COMPARE_REPLICAS_MS,
            drain_timeout_ms: 5000,
        }
    }
}

/// `[storage]`: memory of the stores, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// Cache of state blocks, write buffers counted. Default 64 MiB. More makes reads of cold keys faster.
    pub cache_bytes: usize,
    /// Write buffers of all partitions. Default 96 MiB. Less makes many small flushes.
    pub write_buffers_bytes: usize,
}

impl Default for StorageConfig {
    fn default() -> StorageConfig {
        StorageConfig {
            cache_bytes: 64 << 20,
            write_buffers_bytes: 96 << 20,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or filter directives. Default `info`.
    pub level: String,
    /// `auto` (pretty on a terminal, JSON else), `pretty` or `json`. Default `auto`.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            level: "info".into(),
            format: LogFormat::Auto,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON else.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One object per line.
    Json,
}

impl Config {
    /// Reads TOML. A key that does not exist is refused by name.
    pub fn parse(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# {error}\n"))
    }

    /// `host:port` for clients, as told to others.
    pub fn advertised_client(&self) -> &str {
        self.advertise.client.as_deref().unwrap_or(&self.listen.client)
    }

    /// `host:port` for controllers, as told to others.
    pub fn advertised_peer(&self) -> &str {
        self.advertise.peer.as_deref().unwrap_or(&self.listen.peer)
    }

    /// `host:port` for metrics and health, as told to others.
    pub fn advertised_http(&self) -> &str {
        self.advertise.http.as_deref().unwrap_or(&self.listen.http)
    }
}
