//! Compares the state hashes of a partition's replicas at one log index. Replicas keep the hashes of their last
//! entries, so a comparison costs a few small messages and waits for no pause in the traffic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use proto::peer::{AdminAsk, AdminReply, Kind, admin_ask};
use types::{NodeId, PartitionId, ReplicaId};

use crate::core::{Core, ServerError};

/// Attempts to meet at one index before the answer is that it was not possible.
const ATTEMPTS: usize = 8;
/// Partitions compared side by side by the periodic check.
const AT_ONCE: usize = 2;

/// Hashes of all replicas of one partition.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// The log index they are of.
    pub index: u64,
    /// By replica: node, and hash or what went wrong.
    pub replicas: Vec<(ReplicaId, NodeId, Result<Bytes, String>)>,
}

impl Comparison {
    /// Whether every replica answered with the same hash.
    pub fn equal(&self) -> bool {
        let mut hashes = self.replicas.iter().map(|(_, _, hash)| hash.as_ref().ok());
        let first = hashes.next().flatten();
        first.is_some() && hashes.all(|hash| hash == first)
    }

    /// Replicas whose hash differs from the leader's, which comes first.
    pub fn differing(&self) -> Vec<(ReplicaId, NodeId)> {
        let Some((_, _, Ok(leader))) = self.replicas.first() else {
            return Vec::new();
        };
        let differs = |hash: &Result<Bytes, String>| hash.as_ref().is_ok_and(|hash| hash != leader);
        self.replicas
            .iter()
            .filter(|(_, _, hash)| differs(hash))
            .map(|(id, node, _)| (*id, *node))
            .collect()
    }
}

/// Compares all wanted replicas of a partition, the leader's first.
pub async fn compare(core: &Core, partition: PartitionId) -> Result<Comparison, ServerError> {
    let mut last = Comparison::default();
    for _ in 0..ATTEMPTS {
        core.read_index(partition).await?;
        let map = core.map();
        let found = map.partitions.iter().find(|known| known.id == partition.0);
        let found = found.ok_or(ServerError::UnknownPartition { partition })?;
        let Some((leader, _)) = core.leader(partition).or_else(|| first_holder(found)) else {
            continue;
        };
        let base = match ask(core, leader, partition, 0).await {
            Ok(base) => base,
            Err(_) => continue,
        };
        let mut others: Vec<_> = found.replicas.iter().collect();
        others.sort_by_key(|replica| (replica.node != leader.0, replica.id));
        let asked = others.into_iter().map(|replica| {
            let (node, base) = (NodeId(replica.node), &base);
            async move {
                let hash = match ask(core, node, partition, base.index).await {
                    Ok(told) if told.index == base.index => Ok(told.hash),
                    Ok(told) => Err(format!("is at index {}, not {}", told.index, base.index)),
                    Err(error) => Err(error.to_string()),
                };
                (ReplicaId(replica.id), node, hash)
            }
        });
        last = Comparison {
            index: base.index,
            replicas: futures::future::join_all(asked).await,
        };
        if last.replicas.iter().all(|(_, _, hash)| hash.is_ok()) {
            return Ok(last);
        }
    }
    Ok(last)
}

fn first_holder(partition: &machine::record::meta::Partition) -> Option<(NodeId, u64)> {
    partition
        .replicas
        .iter()
        .find(|replica| replica.voter)
        .map(|replica| (NodeId(replica.node), 0))
}

async fn ask(
    core: &Core,
    node: NodeId,
    partition: PartitionId,
    index: u64,
) -> Result<AdminReply, ServerError> {
    let body = AdminAsk {
        ask: Some(admin_ask::Ask::HashAt(index)),
    }
    .encode_to_vec();
    let told = core.admin(node, Kind::Admin, partition, body.into()).await?;
    AdminReply::decode(told).map_err(|error| ServerError::Internal {
        text: error.to_string(),
    })
}

/// Never ends: compares what is led here, each partition `every` so often, a little at a time.
pub(super) async fn run(core: Arc<Core>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let led = core.led_here();
        let partitions: Vec<PartitionId> = led.iter().map(raft::Replica::partition).collect();
        core.forget_differing_but(&partitions);
        futures::stream::iter(led)
            .for_each_concurrent(AT_ONCE, |replica| {
                let core = core.clone();
                async move { check(&core, replica.partition()).await }
            })
            .await;
    }
}

async fn check(core: &Core, partition: PartitionId) {
    let Ok(comparison) = compare(core, partition).await else {
        return;
    };
    core.metrics().consistency_checks.inc();
    let differing = comparison.differing();
    for (replica, node) in &differing {
        tracing::error!(%partition, %replica, %node, index = comparison.index, "replica differs from its leader");
    }
    let replicas = differing.into_iter().map(|(replica, _)| replica);
    core.mark_differing(partition, replicas.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(hashes: &[Result<&'static str, &str>]) -> Comparison {
        let replicas = hashes.iter().enumerate().map(|(n, hash)| {
            let hash = hash
                .map(|text| Bytes::from_static(text.as_bytes()))
                .map_err(str::to_owned);
            (ReplicaId(n as u64), NodeId(n as u64), hash)
        });
        Comparison {
            index: 1,
            replicas: replicas.collect(),
        }
    }

    #[test]
    fn equal_means_all_answered_and_agree() {
        assert!(comparison(&[Ok("a"), Ok("a"), Ok("a")]).equal());
        assert!(!comparison(&[Ok("a"), Ok("b")]).equal());
        assert!(!comparison(&[Ok("a"), Err("away")]).equal());
        assert!(!comparison(&[]).equal());
        let differing = comparison(&[Ok("a"), Err("away"), Ok("b")]).differing();
        assert_eq!(differing, vec![(ReplicaId(2), NodeId(2))]);
    }
}
