//! What watches need of the rest of the node: revisions, history, and other nodes' events.

use std::sync::Arc;

use bytes::Bytes;
use env::Blocking;
use machine::outcome::Empty;
use machine::query::{Ask, AskHistory, History, Told};
use machine::{Answer, Query};
use tokio::sync::mpsc;
use types::PartitionId;

use crate::Core;
use crate::core::{KeySpace, ServerError};

/// Some history, and how far there is more.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    /// Newest revision where it was read.
    pub revision: i64,
    /// The events.
    pub history: History,
}

/// Implemented by [`Core`], and by a model in tests.
#[tonic::async_trait]
pub trait Source: Send + Sync + 'static {
    /// Newest revision of a key space, linearizably.
    async fn revision(&self, space: &KeySpace) -> Result<i64, ServerError>;
    /// Events from history, as this node's replica has it (or another's, if there is none here).
    async fn history(&self, space: &KeySpace, ask: AskHistory) -> Result<Past, ServerError>;
    /// Newest revision applied here; `None` without a replica that may serve.
    async fn local_revision(&self, space: &KeySpace) -> Result<Option<i64>, ServerError>;
    /// Whether a replica here pushes its events.
    fn is_local(&self, partition: PartitionId) -> bool;
    /// Opens [`super::proxy::serve_remote`] on a node that has a replica.
    async fn open_remote(
        &self,
        partition: PartitionId,
        body: Bytes,
    ) -> Result<mpsc::Receiver<Result<Bytes, ServerError>>, ServerError>;
    /// Newest term known of the partition; 0 if none is.
    fn term(&self, partition: PartitionId) -> u64;
    /// For headers: cluster id and node id.
    fn identity(&self) -> (u64, u64);
}

fn query(space: &KeySpace, ask: Ask) -> Query {
    Query {
        slot: u32::from(space.slot.0),
        namespace: space.id.0,
        ask: Some(ask),
        ..Query::default()
    }
}

fn mismatch() -> ServerError {
    ServerError::Internal {
        text: "the state machine answered another question".to_owned(),
    }
}

#[tonic::async_trait]
impl Source for Core {
    async fn revision(&self, space: &KeySpace) -> Result<i64, ServerError> {
        let asked = self.query(space.partition, query(space, Ask::Namespace(Empty {})), false);
        Ok(asked.await?.answer.revision)
    }

    async fn history(&self, space: &KeySpace, ask: AskHistory) -> Result<Past, ServerError> {
        let query = query(space, Ask::History(ask));
        // A replica that is still being added knows less than was sent already.
        let view = self
            .local_view(space.partition)
            .filter(|_| Core::is_local(self, space.partition));
        let answer = match view {
            Some(view) => look(self.env().blocking, view, query, space.partition).await?,
            None => self.query(space.partition, query, true).await?.answer,
        };
        match answer.told {
            Some(Told::History(history)) => Ok(Past {
                revision: answer.revision,
                history,
            }),
            Some(Told::Refused(refusal)) => Err(ServerError::Refused(refusal)),
            Some(_) | None => Err(mismatch()),
        }
    }

    async fn local_revision(&self, space: &KeySpace) -> Result<Option<i64>, ServerError> {
        let Some(replica) = self.replica(space.partition) else {
            return Ok(None);
        };
        if let Err(error) = replica.wait_recovered(self.timeout()).await {
            return Err(ServerError::Unavailable {
                text: error.to_string(),
            });
        }
        let query = query(space, Ask::Namespace(Empty {}));
        Ok(Some(
            look(self.env().blocking, replica.view(), query, space.partition)
                .await?
                .revision,
        ))
    }

    fn is_local(&self, partition: PartitionId) -> bool {
        Core::is_local(self, partition)
    }

    async fn open_remote(
        &self,
        partition: PartitionId,
        body: Bytes,
    ) -> Result<mpsc::Receiver<Result<Bytes, ServerError>>, ServerError> {
        self.open_remote_watch(partition, body).await
    }

    fn term(&self, partition: PartitionId) -> u64 {
        self.leaders().get(partition).term
    }

    fn identity(&self) -> (u64, u64) {
        (self.cluster_id().0, self.node_id().0)
    }
}

/// Reads the state here, away from the threads that carry heartbeats.
async fn look(
    blocking: Blocking,
    view: Arc<dyn storage::PointView>,
    query: Query,
    partition: PartitionId,
) -> Result<Answer, ServerError> {
    let read = blocking.run(move || machine::answer(&*view, &query)).await;
    match read {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ServerError::Corrupt {
            partition,
            text: error.to_string(),
        }),
        Err(error) => Err(ServerError::Internal {
            text: error.to_string(),
        }),
    }
}
