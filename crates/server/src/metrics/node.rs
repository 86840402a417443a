//! Numbers of a node that others keep (Raft, the log, the disk, watches): read when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use raft::peer::{PeerState, PeerStatus, PeersStats};
use storage::LogStats;
use types::NodeId;

use crate::core::Core;
use crate::watch::HubStats;

/// Labels of what is told of each peer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByPeer {
    peer: u64,
}

/// Labels of a peer's state: 1 for the one it is in, 0 for the others.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByState {
    peer: u64,
    state: &'static str,
}

type Level = Gauge<f64, AtomicU64>;
type Seconds = Counter<f64, AtomicU64>;

/// The numbers.
#[derive(Default)]
pub(super) struct Node {
    log: Log,
    proposals: Proposals,
    watches: Watches,
    peers: Peers,
    memory_bytes: Level,
    disk_free_bytes: Level,
    disk_full: Level,
    disk_slow: Level,
    refused_disk: Counter,
    replicas: Level,
    leaders: Level,
    map_revision: Level,
    alarms: Level,
}

#[derive(Default)]
struct Log {
    fsyncs: Counter,
    fsync_seconds: Seconds,
    fsync_slowest_seconds: Level,
    operations: Counter,
    written_bytes: Counter,
}

#[derive(Default)]
struct Proposals {
    entries: Counter,
    commands: Counter,
}

#[derive(Default)]
struct Watches {
    streams: Level,
    watches: Level,
    key_spaces: Level,
}

#[derive(Default)]
struct Peers {
    state: Family<ByState, Level>,
    heard_seconds: Family<ByPeer, Level>,
    quick_elections: Family<ByPeer, Counter>,
    frames_received: Counter,
    replies_sent: Counter,
    messages_received: Counter,
    messages_sent: Counter,
    connections_lost: Counter,
    refusals: Counter,
    refused_by_others: Counter,
}

/// Sets a counter to what was counted elsewhere; that only grows.
fn count(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

fn flag(level: &Level, value: bool) {
    level.set(f64::from(u8::from(value)));
}

impl Node {
    pub(super) fn register(&self, r: &mut Registry) {
        self.log.register(r);
        self.proposals.register(r);
        self.watches.register(r);
        self.peers.register(r);
        r.register("memory_bytes", "Resident memory", self.memory_bytes.clone());
        r.register(
            "disk_free_bytes",
            "Free on the data disk",
            self.disk_free_bytes.clone(),
        );
        let help = "1 while writes are refused for want of disk";
        r.register("disk_full", help, self.disk_full.clone());
        let help = "1 while appends are not durable in time: leaders move away";
        r.register("disk_slow", help, self.disk_slow.clone());
        r.register(
            "refused_disk",
            "Writes refused for want of disk",
            self.refused_disk.clone(),
        );
        r.register("replicas", "Replicas here", self.replicas.clone());
        r.register("leaders", "Partitions led here", self.leaders.clone());
        let help = "Revision of the cluster map here";
        r.register("map_revision", help, self.map_revision.clone());
        r.register("alarms", "Alarms raised here", self.alarms.clone());
    }

    /// Reads everything anew.
    pub(super) fn read(&self, core: &Core) {
        let stats = core.raft().stats();
        self.log.read(&stats.log);
        count(&self.proposals.entries, stats.entries);
        count(&self.proposals.commands, stats.commands);
        self.watches.read(core.hub().stats());
        self.peers.read(&stats.peers, &core.raft().peers());
        self.memory_bytes.set(resident_bytes() as f64);
        self.disk_free_bytes.set(core.guard().free_bytes() as f64);
        flag(&self.disk_full, core.guard().is_full());
        flag(&self.disk_slow, core.guard().is_slow());
        count(&self.refused_disk, core.guard().refused());
        self.replicas.set(stats.replicas as f64);
        self.leaders.set(stats.leaders as f64);
        let map = core.map();
        let revision = map.cluster.as_ref().map_or(0, |cluster| cluster.map_revision);
        self.map_revision.set(revision as f64);
        self.alarms.set(core.alarms().len() as f64);
    }

    /// A peer that was removed is no longer told of.
    pub(super) fn forget_peer(&self, node: NodeId) {
        let peer = node.0;
        for state in STATES {
            let state = name(state);
            self.peers.state.remove(&ByState { peer, state });
        }
        self.peers.heard_seconds.remove(&ByPeer { peer });
        self.peers.quick_elections.remove(&ByPeer { peer });
    }
}

impl Log {
    fn register(&self, r: &mut Registry) {
        r.register("log_fsyncs", "Syncs of the log", self.fsyncs.clone());
        let help = "Time spent in syncs of the log";
        r.register("log_fsync_seconds", help, self.fsync_seconds.clone());
        let help = "Slowest sync since the last look at this page";
        r.register(
            "log_fsync_slowest_seconds",
            help,
            self.fsync_slowest_seconds.clone(),
        );
        let help = "Operations that the syncs carried: more than one a sync is group commit at work";
        r.register("log_operations", help, self.operations.clone());
        r.register(
            "log_written_bytes",
            "Bytes appended to the log",
            self.written_bytes.clone(),
        );
    }

    fn read(&self, stats: &LogStats) {
        count(&self.fsyncs, stats.syncs);
        let seconds = stats.sync_us as f64 / 1e6;
        self.fsync_seconds
            .inner()
            .store(seconds.to_bits(), Ordering::Relaxed);
        self.fsync_slowest_seconds.set(stats.slowest_us as f64 / 1e6);
        count(&self.operations, stats.operations);
        count(&self.written_bytes, stats.bytes);
    }
}

impl Proposals {
    fn register(&self, r: &mut Registry) {
        r.register(
            "proposed_entries",
            "Log entries proposed here",
            self.entries.clone(),
        );
        let help = "Commands that the entries carried: divided by them, the size of a batch";
        r.register("proposed_commands", help, self.commands.clone());
    }
}

impl Watches {
    fn register(&self, r: &mut Registry) {
        r.register("watch_streams", "Open watch streams", self.streams.clone());
        r.register("watches", "Watches on the streams", self.watches.clone());
        r.register(
            "watched_key_spaces",
            "Key spaces watched here",
            self.key_spaces.clone(),
        );
    }

    fn read(&self, stats: HubStats) {
        self.streams.set(stats.streams as f64);
        self.watches.set(stats.watches as f64);
        self.key_spaces.set(stats.feeds as f64);
    }
}

/// Every state, so that the ones a peer is not in are told as 0.
const STATES: [PeerState; 3] = [PeerState::Alive, PeerState::Silent, PeerState::Dead];

fn name(state: PeerState) -> &'static str {
    match state {
        PeerState::Alive => "alive",
        PeerState::Silent => "silent",
        PeerState::Dead => "dead",
    }
}

impl Peers {
    fn register(&self, r: &mut Registry) {
        let help = "1 for the state that the detector finds the peer in";
        r.register("peer_state", help, self.state.clone());
        let help = "Since anything was heard of the peer";
        r.register("peer_heard_seconds", help, self.heard_seconds.clone());
        let help = "Quick elections because the peer seemed dead";
        r.register("peer_quick_elections", help, self.quick_elections.clone());
        let help = "Frames of peers that arrived";
        r.register("peer_frames_received", help, self.frames_received.clone());
        r.register("peer_replies_sent", "Replies to peers", self.replies_sent.clone());
        let help = "Messages of peers, each with several frames";
        r.register("peer_messages_received", help, self.messages_received.clone());
        let help = "Messages of replies to peers";
        r.register("peer_messages_sent", help, self.messages_sent.clone());
        let help = "Control connections to peers that were lost";
        r.register("peer_connections_lost", help, self.connections_lost.clone());
        let help = "Handshakes that this node refused";
        r.register("handshakes_refused", help, self.refusals.clone());
        let help = "Handshakes of this node that others refused";
        r.register(
            "handshakes_refused_by_others",
            help,
            self.refused_by_others.clone(),
        );
    }

    fn read(&self, stats: &PeersStats, peers: &[PeerStatus]) {
        for peer in peers {
            let label = ByPeer { peer: peer.node.0 };
            for state in STATES {
                let label = ByState {
                    peer: peer.node.0,
                    state: name(state),
                };
                flag(&self.state.get_or_create(&label), peer.state == state);
            }
            if let Some(heard_ms) = peer.last_heard {
                let seconds = heard_ms as f64 / 1e3;
                self.heard_seconds.get_or_create(&label).set(seconds);
            }
            count(&self.quick_elections.get_or_create(&label), peer.quick_elections);
        }
        count(&self.frames_received, stats.frames_in);
        count(&self.replies_sent, stats.replies_out);
        count(&self.messages_received, stats.messages_in);
        count(&self.messages_sent, stats.messages_out);
        count(&self.connections_lost, stats.connections_lost);
        count(&self.refusals, stats.refusals);
        count(&self.refused_by_others, stats.refused_by_others);
    }
}

/// Resident memory of this process; 0 where `/proc` does not tell.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn own_memory_is_known() {
        assert!(resident_bytes() > 100_000);
    }

    #[test]
    fn a_peer_is_in_one_state_until_it_is_forgotten() {
        let (node, mut registry) = (Node::default(), Registry::default());
        node.register(&mut registry);
        let peer = PeerStatus {
            node: NodeId(2),
            address: String::new(),
            state: PeerState::Silent,
            boot: types::BootId(1),
            version: 1,
            last_heard: Some(1500),
            suspicion: String::new(),
            quick_elections: 3,
            quick_groups: 5,
            refusal: None,
        };
        node.peers.read(&PeersStats::default(), &[peer]);
        let text = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).expect("encodes");
            text
        };
        for line in [
            "peer_state{peer=\"2\",state=\"alive\"} 0",
            "peer_state{peer=\"2\",state=\"silent\"} 1",
            "peer_heard_seconds{peer=\"2\"} 1.5",
            "peer_quick_elections_total{peer=\"2\"} 3",
        ] {
            assert!(
                text(&registry).contains(line),
                "{line} is not in\n{}",
                text(&registry)
            );
        }
        node.forget_peer(NodeId(2));
        assert!(!text(&registry).contains("peer=\"2\""), "{}", text(&registry));
    }
}
