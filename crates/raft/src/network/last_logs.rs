//! Which logs the replicas of another node have: asked before somebody stands, and before somebody is to stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use proto::peer::{self, Kind, Lane, LastLog, LastLogs};
use tonic::Status;
use types::{NodeId, PartitionId, ReplicaId};

use super::Registry;
use crate::RequestError;
use crate::convert;
use crate::peer::{Peers, frame};

/// A replica's last log id in Raft's order: term, its leader, index; all 0 if its log is empty.
pub(crate) type Last = (u64, u64, u64);

/// Asks a node which log each of these replicas has. Those that are not open there are absent from the answer.
pub(crate) async fn ask(
    peers: &Arc<Peers>,
    node: NodeId,
    replicas: &[(PartitionId, ReplicaId)],
    limit: Duration,
) -> Result<BTreeMap<ReplicaId, Last>, RequestError> {
    let groups = replicas.iter().map(|(partition, replica)| LastLog {
        partition: partition.0,
        replica: replica.0,
        last_log_id: None,
    });
    let question = convert::encode(&LastLogs {
        groups: groups.collect(),
    });
    let frame = frame(
        Kind::LastLog,
        PartitionId::META,
        ReplicaId(0),
        ReplicaId(0),
        question,
    );
    let answer = peers.call(node, Lane::Control, frame, limit).await?;
    let answer: LastLogs = convert::decode("last logs", answer)
        .map_err(|error| RequestError::Unknown(format!("node {node} answered nonsense: {error}")))?;
    Ok(answer.groups.into_iter().map(last).collect())
}

fn last(group: LastLog) -> (ReplicaId, Last) {
    let last = group.last_log_id.unwrap_or_default();
    (ReplicaId(group.replica), (last.term, last.replica, last.index))
}

/// The last log id of each group asked for that is here.
pub(super) fn answer(registry: &dyn Registry, body: Bytes) -> Result<Bytes, Status> {
    let mut asked: peer::LastLogs = convert::decode("last logs", body)?;
    asked.groups.retain_mut(|group| {
        let (partition, replica) = (PartitionId(group.partition), ReplicaId(group.replica));
        let Some((raft, _)) = registry.raft(partition, replica) else {
            return false;
        };
        // A core that has stopped answers nobody: there is nothing to elect.
        if raft.metrics().borrow_watched().running_state.is_err() {
            return false;
        }
        let last = raft.data_metrics().borrow_watched().last_log;
        group.last_log_id = last.map(|id| convert::log_id_out(&id));
        true
    });
    Ok(convert::encode(&asked))
}
