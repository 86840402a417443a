//! Leadership moves away before a process stops, so that nobody waits for an election.

use std::sync::Arc;
use std::time::Duration;

use types::ReplicaId;
use types::limits::TRANSFER_LAG_ENTRIES;

use crate::core::Core;

/// Hands over every partition led here that somebody else can lead, within `limit`.
pub(super) async fn hand_over(core: &Arc<Core>, limit: Duration) {
    let moves = core.led_here().into_iter().map(|replica| async move {
        for heir in heirs(&replica) {
            match replica.transfer_leader(heir).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(partition = %replica.partition(), %heir, %error, "not handed over");
                    if !replica.is_leader() {
                        return;
                    }
                }
            }
        }
    });
    if tokio::time::timeout(limit, futures::future::join_all(moves))
        .await
        .is_err()
    {
        tracing::warn!("some partitions were not handed over in time");
    }
}

/// Caught-up voters elsewhere, the most advanced first.
fn heirs(replica: &raft::Replica) -> Vec<ReplicaId> {
    let status = replica.status();
    let matched = |id: &ReplicaId| status.matched.get(id).copied().unwrap_or(0);
    let mut heirs: Vec<ReplicaId> = status
        .voters
        .iter()
        .map(|(id, _)| *id)
        .filter(|id| *id != replica.replica_id())
        .filter(|id| matched(id) > 0 && matched(id) + TRANSFER_LAG_ENTRIES >= status.last_log)
        .collect();
    // Spread over the others: not every partition goes to the same node.
    let turn = replica.partition().0 as usize % heirs.len().max(1);
    heirs.rotate_left(turn);
    heirs
}
