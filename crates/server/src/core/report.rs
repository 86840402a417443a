//! What a node tells of its replicas, and gathering that from all nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use proto::peer::{Kind, MemberReport, NodeReport, ReplicaReport, StatusAsk};
use types::{NodeId, PartitionId};

use super::Core;
use crate::request;

/// How long a node may take to report before it counts as unreachable.
const PATIENCE: Duration = Duration::from_millis(800);

/// What an operator should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Writes led by the node are refused: its data disk is nearly full.
    NoSpace,
    /// A replica of the node is damaged or differs from its leader, and is not replaced yet.
    Corrupt,
}

impl Alarm {
    /// etcd's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Alarm::NoSpace => "NOSPACE",
            Alarm::Corrupt => "CORRUPT",
        }
    }
}

/// The alarms that a report tells of.
pub(super) fn alarms(report: &NodeReport) -> Vec<Alarm> {
    let damaged = !report.differing.is_empty() || !report.broken.is_empty();
    let raised = [(report.disk_full, Alarm::NoSpace), (damaged, Alarm::Corrupt)];
    raised
        .into_iter()
        .filter_map(|(raised, alarm)| raised.then_some(alarm))
        .collect()
}

impl Core {
    /// What this node says of `partitions` (empty: all it holds).
    pub fn report(&self, partitions: &[u32], sizes: bool) -> NodeReport {
        let replicas = match partitions {
            [] => self.raft().replicas(),
            some => some
                .iter()
                .filter_map(|id| self.replica(PartitionId(*id)))
                .collect(),
        };
        NodeReport {
            node: self.node.0,
            replicas: replicas
                .iter()
                .map(|replica| replica_report(replica, sizes))
                .collect(),
            disk_free_bytes: self.guard.free_bytes(),
            disk_full: self.guard.is_full(),
            disk_slow: self.guard.is_slow(),
            broken: self.broken.lock().iter().map(|id| id.0).collect(),
            stopping: self.is_stopping(),
            starting: !self.is_started(),
            differing: self.differing.lock().values().flatten().map(|id| id.0).collect(),
        }
    }

    /// Reports of all nodes that answer in time, this one included.
    pub async fn gather(&self, partitions: &[u32], sizes: bool) -> BTreeMap<NodeId, NodeReport> {
        let body = StatusAsk {
            partitions: partitions.to_vec(),
            sizes,
        }
        .encode_to_vec();
        // As many as are known, whether or not there is a map here.
        let peers = self.raft().peers().into_iter();
        let others = peers.map(|peer| {
            let (node, body) = (peer.node, body.clone().into());
            async move {
                let told = self
                    .raft()
                    .request(
                        node,
                        Kind::Status,
                        PartitionId::META,
                        body,
                        request::id(),
                        PATIENCE,
                    )
                    .await;
                Some((node, NodeReport::decode(told.ok()?).ok()?))
            }
        });
        let told = futures::future::join_all(others).await;
        let mut reports: BTreeMap<NodeId, NodeReport> = told.into_iter().flatten().collect();
        reports.insert(self.node, self.report(partitions, sizes));
        reports
    }
}

fn replica_report(replica: &raft::Replica, sizes: bool) -> ReplicaReport {
    let status = replica.status();
    let mut members = Vec::new();
    if status.is_leader {
        let both = [(true, &status.voters), (false, &status.learners)];
        for (voter, list) in both {
            members.extend(list.iter().map(|(id, node)| MemberReport {
                replica: id.0,
                node: node.0,
                voter,
                matched: status.matched.get(id).copied().unwrap_or(0),
            }));
        }
    }
    ReplicaReport {
        partition: replica.partition().0,
        replica: replica.replica_id().0,
        leader_node: status.leader.map_or(0, |(_, node)| node.0),
        leads: status.is_leader,
        term: status.term,
        last_log: status.last_log,
        committed: status.committed,
        applied: status.applied,
        size_bytes: if sizes { replica.store().size_bytes() } else { 0 },
        members,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_tell_of_alarms() {
        let mut report = NodeReport::default();
        assert!(alarms(&report).is_empty());
        report.broken = vec![7];
        assert_eq!(alarms(&report), [Alarm::Corrupt]);
        report.disk_full = true;
        assert_eq!(alarms(&report), [Alarm::NoSpace, Alarm::Corrupt]);
        report.broken.clear();
        report.differing = vec![8];
        assert_eq!(alarms(&report), [Alarm::NoSpace, Alarm::Corrupt]);
    }
}
