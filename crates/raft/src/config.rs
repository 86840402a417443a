//! What a node is told about itself, and openraft's configuration derived from it.

use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy, StepDownPolicy};
use types::limits::{LOG_BYTES_BEFORE_PURGE, LOG_ENTRIES_BEFORE_PURGE, LOG_ENTRIES_KEPT};
use types::{BootId, ClusterId, Incarnation, NodeId, PartitionId};

use crate::error::RaftError;

/// How often leaders speak, and how long followers wait. Shorter detects silent failures sooner, costs idle CPU
/// and elects needlessly when a machine pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats of one group.
    pub heartbeat_ms: u64,
    /// Shortest silence after which a follower stands for election.
    pub election_min_ms: u64,
    /// Longest. Also the leader's lease, within which voters refuse other candidates.
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            heartbeat_ms: 300,
            election_min_ms: 1000,
            election_max_ms: 1500,
        }
    }
}

impl Timing {
    /// Longest election time-out.
    pub fn election_max(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }

    /// Between two looks of a group at its timers: by so much heartbeats and elections can be late.
    pub fn tick(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms) / 3
    }

    /// How long a change of leader or members is waited for: some elections.
    pub fn change_limit(&self) -> Duration {
        4 * self.election_max()
    }
}

/// How long a replica's log may grow, and how much of it is kept when it is cut. Less of either saves disk and time at
/// a start, and makes replicas that lag get the whole state instead of what they miss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Applied entries after which the log is cut.
    pub entries: u64,
    /// Bytes after which it is cut.
    pub bytes: u64,
    /// Applied entries that are kept then, for replicas that lag a little; fewer if they are large.
    pub kept: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            entries: LOG_ENTRIES_BEFORE_PURGE,
            bytes: LOG_BYTES_BEFORE_PURGE,
            kept: LOG_ENTRIES_KEPT,
        }
    }
}

/// Everything Raft needs to know about this process.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Of its data directory.
    pub incarnation: Incarnation,
    /// Of this process.
    pub boot: BootId,
    /// How many times the data directory was opened.
    pub boots: u64,
    /// Where peers reach it.
    pub peer_address: String,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// When logs are cut.
    pub retention: Retention,
    /// Free bytes of the data disk that checkpoints from elsewhere must leave.
    pub disk_reserve_bytes: u64,
}

/// How long a whole checkpoint may take to send. The transfer itself gives up earlier when nothing moves.
const SNAPSHOT_TIMEOUT_MS: u64 = 30 * 60 * 1000;
/// Entries of one append; the bytes are bounded by the log store's reads.
const APPEND_ENTRIES: u64 = 256;
/// Messages waiting for one group's core task.
const CORE_QUEUE: u64 = 4096;

/// openraft's configuration of one group.
///
/// Snapshots and purges are ours ([`crate::Node`] decides them by bytes and entries), so openraft's own policies
/// are switched off. A restarted leader must stand for election again: it may have lost an unsynced tail that its
/// followers committed.
pub(crate) fn group_config(partition: PartitionId, timing: Timing) -> Result<Arc<Config>, RaftError> {
    let config = Config {
        cluster_name: format!("partition {partition}"),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        max_payload_entries: APPEND_ENTRIES,
        replication_lag_threshold: 1000,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        api_channel_size: Some(CORE_QUEUE),
        notification_channel_size: Some(CORE_QUEUE),
        removed_leader_step_down: StepDownPolicy::After(timing.heartbeat_ms / 2),
        quorum_loss_probe_interval: Some(2 * timing.election_max_ms),
        enable_pre_vote: Some(true),
        backoff: "20ms 50ms 100ms 200ms 400ms".to_string(),
        allow_log_reversion: None,
        enable_leader_restore: Some(false),
        ..Default::default()
    };
    config
        .validate()
        .map(Arc::new)
        .map_err(|error| RaftError::Config(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_nonsense_is_refused() {
        assert!(group_config(PartitionId(1), Timing::default()).is_ok());
        let upside_down = Timing {
            heartbeat_ms: 300,
            election_min_ms: 200,
            election_max_ms: 100,
        };
        assert!(matches!(
            group_config(PartitionId(1), upside_down),
            Err(RaftError::Config(_))
        ));
    }
}
