//! What this crate calls back into: requests of other nodes, and news from the log.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use machine::Outcome;
use proto::peer::{JoinReply, JoinRequest, Kind};
use tokio::sync::mpsc;
use tonic::Status;
use types::{NodeId, PartitionId};

/// Serves what other nodes ask on the request lane, and joins.
#[async_trait]
pub trait RequestHandler: Send + Sync {
    /// One request, one reply. `request_id` is that of the client's request it is made for, if any.
    async fn handle(
        &self,
        from: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
        request_id: Bytes,
    ) -> Result<Bytes, Status>;

    /// One request, many replies through `out`; ends when this returns or the other side went away
    /// (then `out` is closed).
    async fn handle_stream(
        &self,
        from: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
        out: mpsc::Sender<Bytes>,
    ) -> Result<(), Status>;

    /// A node without an identity asks to be admitted.
    async fn join(&self, request: JoinRequest) -> Result<JoinReply, Status>;
}

/// Hears what happens to the replicas here. Called from the apply loop, in log order per partition: must not block.
pub trait ApplyListener: Send + Sync {
    /// The entry at `index` was applied and committed to the store.
    fn applied(&self, partition: PartitionId, index: u64, outcome: &Arc<Outcome>);
    /// The whole state was replaced by a snapshot.
    fn installed(&self, partition: PartitionId);
    /// Leader or term changed, as far as the replica here knows. `mine`: the replica here leads.
    fn leadership(&self, partition: PartitionId, leader: Option<NodeId>, term: u64, mine: bool);
    /// This replica can go on only by breaking a promise (an entry of a newer version, a failed write): the
    /// process must stop.
    fn fatal(&self, partition: PartitionId, text: &str) {
        tracing::error!(%partition, text, "stopping");
        std::process::exit(70);
    }
}
