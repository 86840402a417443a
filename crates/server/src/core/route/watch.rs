//! Opening a stream of events at a node that holds the partition, the leader first.

use std::time::Duration;

use bytes::Bytes;
use proto::peer::Kind;
use raft::RequestError;
use tokio::sync::mpsc;
use types::{NodeId, PartitionId};

use super::{Place, Repeat, last_word, unknown_leader};
use crate::core::attempt::Failed;
use crate::core::{Core, ServerError};

/// Responses taken before they are looked at: each may be large.
const AHEAD: usize = 4;

/// See [`Core::open_remote_watch`].
pub(in crate::core) async fn remote_watch(
    core: &Core,
    partition: PartitionId,
    body: Bytes,
) -> Result<mpsc::Receiver<Result<Bytes, ServerError>>, ServerError> {
    let opened = core
        .at_leader(partition, Repeat::Read, |place, left| {
            let body = body.clone();
            async move {
                match place {
                    Place::Here(_) => Err(Failed::Final(ServerError::Invalid {
                        text: "the replica is here".into(),
                    })),
                    Place::There(node) => {
                        let opened = core
                            .raft()
                            .request_stream(node, Kind::Watch, partition, body)
                            .await;
                        let opened = opened.map_err(|error| Failed::request(partition, node, error))?;
                        Opened::wait(partition, node, opened, left).await
                    }
                    Place::Unknown => Err(unknown_leader()),
                }
            }
        })
        .await?;
    let (out, answers) = mpsc::channel(AHEAD);
    tokio::spawn(opened.forward(out));
    Ok(answers)
}

/// A stream that the other node has begun to answer. That the request was queued says nothing yet: the refusal of a
/// node that holds no replica comes as the first answer.
struct Opened {
    partition: PartitionId,
    node: NodeId,
    first: Bytes,
    rest: mpsc::Receiver<Result<Bytes, RequestError>>,
}

impl Opened {
    /// Waits for the first answer.
    async fn wait(
        partition: PartitionId,
        node: NodeId,
        mut rest: mpsc::Receiver<Result<Bytes, RequestError>>,
        left: Duration,
    ) -> Result<Opened, Failed> {
        match tokio::time::timeout(left, rest.recv()).await {
            Ok(Some(Ok(first))) => Ok(Opened {
                partition,
                node,
                first,
                rest,
            }),
            Ok(Some(Err(error))) => Err(Failed::request(partition, node, error)),
            Ok(None) => Err(Failed::Unknown(format!("node {node}: the stream ended at once"))),
            Err(_) => Err(Failed::Unknown(format!("node {node}: the stream did not begin"))),
        }
    }

    async fn forward(mut self, out: mpsc::Sender<Result<Bytes, ServerError>>) {
        let mut next = Ok(self.first);
        while out.send(next).await.is_ok() {
            let taken = tokio::select! {
                () = out.closed() => return,
                taken = self.rest.recv() => taken,
            };
            let Some(taken) = taken else { return };
            next = taken.map_err(|error| {
                last_word(self.partition, Failed::request(self.partition, self.node, error))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId(3);
    const NODE: NodeId = NodeId(2);

    async fn begin(answers: Vec<Result<Bytes, RequestError>>) -> Result<Opened, Failed> {
        let (out, opened) = mpsc::channel(4);
        for answer in answers {
            out.send(answer).await.expect("room");
        }
        drop(out);
        Opened::wait(PARTITION, NODE, opened, Duration::from_secs(60)).await
    }

    fn refused(leader: Option<NodeId>) -> RequestError {
        let text = "the partition has no replica there".to_owned();
        let status = Failed::Again { leader, text }.to_wire();
        RequestError::Refused {
            code: status.code(),
            text: status.message().to_owned(),
        }
    }

    #[tokio::test]
    async fn a_refusal_sends_the_request_to_another_node() {
        for leader in [None, Some(NodeId(7))] {
            match begin(vec![Err(refused(leader))]).await {
                Err(Failed::Again { leader: told, .. }) => assert_eq!(told, leader),
                other => panic!("{:?}", other.err()),
            }
        }
        let ended = begin(Vec::new()).await;
        assert!(matches!(ended, Err(Failed::Unknown(_))), "{:?}", ended.err());
    }

    #[tokio::test]
    async fn a_silent_node_is_not_waited_for_to_the_end() {
        let (_out, opened) = mpsc::channel(1);
        let silent = Opened::wait(PARTITION, NODE, opened, Duration::from_millis(10)).await;
        assert!(matches!(silent, Err(Failed::Unknown(_))), "{:?}", silent.err());
    }

    #[tokio::test]
    async fn everything_passes_from_the_first_answer_on() {
        let answers = vec![Ok("created".into()), Ok("event".into()), Err(refused(None))];
        let opened = begin(answers).await.unwrap_or_else(|failed| panic!("{failed:?}"));
        let (out, mut passed) = mpsc::channel(8);
        opened.forward(out).await;
        assert_eq!(passed.recv().await, Some(Ok("created".into())));
        assert_eq!(passed.recv().await, Some(Ok("event".into())));
        assert!(matches!(
            passed.recv().await,
            Some(Err(ServerError::NoLeader { .. }))
        ));
        assert_eq!(passed.recv().await, None);
    }
}
