//! Counters and histograms of a node. What others count (Raft, stores, disk) is read when somebody asks.

mod node;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use types::{NodeId, PartitionId};

use self::node::Node;
use crate::core::Core;

/// Labels of what is counted per partition.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByPartition {
    partition: u32,
}

/// Labels of what is counted per gRPC code.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCode {
    code: String,
}

type PerPartition = Family<ByPartition, Gauge<f64, AtomicU64>>;

/// Everything counted, and the registry that prints it.
pub struct Metrics {
    registry: Registry,
    /// Changes of leadership seen by replicas here.
    pub leadership_changes: Counter,
    /// Writes refused because a partition's queue was full.
    pub refused_busy: Counter,
    /// Requests of clients.
    pub requests: Counter,
    /// Replicas found damaged here.
    pub damaged_replicas: Counter,
    /// Consistency checks done.
    pub consistency_checks: Counter,
    requests_failed: Family<ByCode, Counter>,
    commit_seconds: Family<ByPartition, Histogram, fn() -> Histogram>,
    partitions: Partitions,
    node: Node,
}

#[derive(Default)]
struct Partitions {
    leads: PerPartition,
    leader_node: PerPartition,
    term: PerPartition,
    committed: PerPartition,
    applied: PerPartition,
    queue_depth: PerPartition,
    in_flight: PerPartition,
    size_bytes: PerPartition,
    log_bytes: PerPartition,
}

fn commit_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0002, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("holdfast"),
            leadership_changes: Counter::default(),
            refused_busy: Counter::default(),
            requests: Counter::default(),
            damaged_replicas: Counter::default(),
            consistency_checks: Counter::default(),
            requests_failed: Family::default(),
            commit_seconds: Family::new_with_constructor(commit_histogram as fn() -> Histogram),
            partitions: Partitions::default(),
            node: Node::default(),
        };
        metrics.register_counters();
        metrics.register_partitions();
        metrics.node.register(&mut metrics.registry);
        metrics
    }
}

impl Metrics {
    fn register_counters(&mut self) {
        let r = &mut self.registry;
        r.register(
            "leadership_changes",
            "Changes of leadership seen here",
            self.leadership_changes.clone(),
        );
        r.register(
            "refused_busy",
            "Writes refused because a partition was overloaded",
            self.refused_busy.clone(),
        );
        r.register("requests", "Requests of clients", self.requests.clone());
        r.register(
            "requests_failed",
            "Requests of clients that ended with an error before any answer, by gRPC code",
            self.requests_failed.clone(),
        );
        r.register(
            "damaged_replicas",
            "Replicas found damaged here",
            self.damaged_replicas.clone(),
        );
        r.register(
            "consistency_checks",
            "Comparisons of state hashes done",
            self.consistency_checks.clone(),
        );
        r.register(
            "commit_seconds",
            "From proposal to reply at the leader",
            self.commit_seconds.clone(),
        );
    }

    fn register_partitions(&mut self) {
        let (r, p) = (&mut self.registry, &self.partitions);
        r.register("partition_leads", "1 if the replica here leads", p.leads.clone());
        r.register(
            "partition_leader_node",
            "Node that leads, 0 if none is known",
            p.leader_node.clone(),
        );
        r.register("partition_term", "Raft term", p.term.clone());
        r.register("partition_committed", "Log index committed", p.committed.clone());
        r.register("partition_applied", "Log index applied here", p.applied.clone());
        r.register(
            "partition_queue_depth",
            "Commands waiting to be proposed",
            p.queue_depth.clone(),
        );
        r.register(
            "partition_in_flight",
            "Writes admitted here and not answered",
            p.in_flight.clone(),
        );
        r.register("partition_size_bytes", "State on disk", p.size_bytes.clone());
        r.register("partition_log_bytes", "Log not purged", p.log_bytes.clone());
    }

    /// A request ended with an error.
    pub fn failed(&self, code: tonic::Code) {
        let code = format!("{code:?}");
        self.requests_failed.get_or_create(&ByCode { code }).inc();
    }

    /// A write led here was committed and applied.
    pub fn committed(&self, partition: PartitionId, took: Duration) {
        self.commit_seconds
            .get_or_create(&ByPartition {
                partition: partition.0,
            })
            .observe(took.as_secs_f64());
    }

    /// Everything as text, read anew.
    pub fn render(&self, core: &Core) -> String {
        self.read_partitions(core);
        self.node.read(core);
        self.text()
    }

    /// Everything as text, as it was last read.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# {error}\n"),
        }
    }

    fn read_partitions(&self, core: &Core) {
        let p = &self.partitions;
        let all = [
            &p.leads,
            &p.leader_node,
            &p.term,
            &p.committed,
            &p.applied,
            &p.queue_depth,
            &p.in_flight,
            &p.size_bytes,
            &p.log_bytes,
        ];
        all.into_iter().for_each(|family| family.clear());
        for replica in core.raft().replicas() {
            let status = replica.status();
            let label = ByPartition {
                partition: replica.partition().0,
            };
            let set = |family: &PerPartition, value: f64| {
                family.get_or_create(&label).set(value);
            };
            set(&p.leads, f64::from(u8::from(status.is_leader)));
            set(
                &p.leader_node,
                status.leader.map_or(0.0, |(_, node)| node.0 as f64),
            );
            set(&p.term, status.term as f64);
            set(&p.committed, status.committed as f64);
            set(&p.applied, status.applied as f64);
            set(&p.queue_depth, status.queue_depth as f64);
            set(&p.in_flight, core.in_flight(replica.partition()) as f64);
            set(&p.size_bytes, replica.store().size_bytes() as f64);
            set(&p.log_bytes, core.log_bytes(replica.replica_id()) as f64);
        }
    }

    /// Peers that were removed are no longer printed.
    pub fn forget_peer(&self, node: NodeId) {
        self.node.forget_peer(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_per_partition() {
        let metrics = Metrics::default();
        metrics.committed(PartitionId(3), Duration::from_millis(2));
        let text = metrics.text();
        assert!(
            text.contains("holdfast_commit_seconds_count{partition=\"3\"} 1"),
            "{text}"
        );
    }
}
