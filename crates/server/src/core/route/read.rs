//! Reads. A linearizable one needs a point from the leader and a replica that has come so far; the replica here will do,
//! so that answers are not carried between nodes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::Blocking;
use machine::Query;
use machine::query::Told;
use parking_lot::Mutex;
use prost::Message;
use proto::peer::{self, Kind};
use tokio::sync::oneshot;
use tokio::time::Instant;
use types::{NodeId, PartitionId, ReplicaId};

use super::cost::{answers_much, asks_clock, scans};
use super::{ATTEMPT, Place, Repeat, decode, last_word, unknown_leader};
use crate::core::attempt::Failed;
use crate::core::{Core, KeySpace, Queried, ReadPoint, ServerError};

/// How long a read waits for the replica here. One that takes longer is behind, and the leader may answer.
const BEHIND: Duration = Duration::from_millis(50);

impl Core {
    /// Answers a question, linearizably unless `serializable`. From any node.
    pub async fn query(
        &self,
        partition: PartitionId,
        query: Query,
        serializable: bool,
    ) -> Result<Queried, ServerError> {
        let queried = match self.replica(partition).filter(|_| self.is_local(partition)) {
            Some(replica) if serializable => self
                .query_applied(&replica, query, self.timeout)
                .await
                .map_err(|error| last_word(partition, error))?,
            Some(replica) if !asks_clock(&query) => self.query_at_point(&replica, query).await?,
            _ => self.query_at_leader(partition, query, serializable).await?,
        };
        match queried.answer.told {
            Some(Told::Refused(refusal)) => Err(ServerError::Refused(refusal)),
            _ => Ok(queried),
        }
    }

    /// Answers from the replica here, once it has applied what the leader names. A large answer waits for that as long
    /// as it takes.
    async fn query_at_point(&self, replica: &raft::Replica, query: Query) -> Result<Queried, ServerError> {
        let partition = replica.partition();
        let deadline = self.answer_by();
        let point = self.read_point(partition).await?;
        let large = answers_much(&query);
        let until = if large {
            deadline
        } else {
            deadline.min(Instant::now() + BEHIND)
        };
        let answered = match reach(replica, point, until).await {
            Ok(()) => answer(self.env.blocking, replica, query, point.term, point.index).await,
            Err(_) if !large => return self.query_at_leader(partition, query, false).await,
            Err(error) => Err(error),
        };
        answered.map_err(|error| last_word(partition, error))
    }

    async fn query_at_leader(
        &self,
        partition: PartitionId,
        query: Query,
        serializable: bool,
    ) -> Result<Queried, ServerError> {
        self.at_leader(partition, Repeat::Read, |place, left| {
            let query = query.clone();
            async move {
                match place {
                    Place::Here(replica) => self.query_here(&replica, query, left).await,
                    Place::There(node) => self.query_there(partition, node, query, serializable, left).await,
                    Place::Unknown => Err(unknown_leader()),
                }
            }
        })
        .await
    }

    /// A linearizable point; applied by the local replica, if any, on return.
    pub async fn read_index(&self, partition: PartitionId) -> Result<ReadPoint, ServerError> {
        let deadline = self.answer_by();
        let point = self.read_point(partition).await?;
        if let Some(replica) = self.replica(partition).filter(|_| self.is_local(partition)) {
            let reached = reach(&replica, point, deadline).await;
            reached.map_err(|error| last_word(partition, error))?;
        }
        Ok(point)
    }

    /// Takes the map in as it is now. A node that is still catching up waits until it has: what it knew before is no
    /// answer.
    pub async fn read_map(&self) -> Result<(), ServerError> {
        let deadline = self.answer_by();
        let point = self.read_point(PartitionId::META).await?;
        let replica = self
            .replica(PartitionId::META)
            .ok_or_else(|| ServerError::Unavailable {
                text: "this node has not received the cluster's map yet".into(),
            })?;
        let reached = reach(&replica, point, deadline).await;
        reached.map_err(|error| last_word(PartitionId::META, error))?;
        self.refresh_map().map(drop)
    }

    /// The key space of a namespace. A name that the map here does not have may have been made a moment ago elsewhere:
    /// the newest map decides. One look at it is under way at a time, and answers all who asked before it began, so
    /// that unknown names do not burden the meta partition.
    pub async fn find_key_space(&self, name: &str) -> Result<KeySpace, ServerError> {
        match self.key_space(name) {
            Err(ServerError::UnknownNamespace { .. }) => {}
            known => return known,
        }
        let asked = Instant::now();
        let unread = |why: String| ServerError::Unavailable {
            text: format!("namespace '{name}' is not known here, and the newest map cannot be read: {why}"),
        };
        let turn = tokio::time::timeout_at(self.answer_by(), self.looked.lock()).await;
        let mut looked = turn.map_err(|_| unread("too many wait for it".to_owned()))?;
        if looked.is_none_or(|began| began < asked) {
            let began = Instant::now();
            self.read_map().await.map_err(|error| unread(error.to_string()))?;
            *looked = Some(began);
        }
        drop(looked);
        self.key_space(name)
    }

    /// A linearizable point, wherever the replica here is.
    async fn read_point(&self, partition: PartitionId) -> Result<ReadPoint, ServerError> {
        self.at_leader(partition, Repeat::Read, |place, left| async move {
            match place {
                Place::Here(replica) => replica.read_index(left).await.map_err(Failed::read),
                Place::There(node) => {
                    let point = self.points.ask(self.raft(), partition, node, left).await?;
                    self.led_by(partition, node, point.term);
                    Ok(point)
                }
                Place::Unknown => Err(unknown_leader()),
            }
        })
        .await
    }

    /// Answers from the replica here, which should lead.
    pub(in crate::core) async fn query_here(
        &self,
        replica: &raft::Replica,
        mut query: Query,
        left: Duration,
    ) -> Result<Queried, Failed> {
        let point = replica.read_index(left).await.map_err(Failed::read)?;
        query.clock_ms = replica.clock_ms();
        answer(self.env.blocking, replica, query, point.term, point.index).await
    }

    /// Answers from what is applied here, once what was served before a restart is applied again.
    pub(in crate::core) async fn query_applied(
        &self,
        replica: &raft::Replica,
        query: Query,
        left: Duration,
    ) -> Result<Queried, Failed> {
        replica.wait_recovered(left).await.map_err(Failed::read)?;
        let status = replica.status();
        answer(self.env.blocking, replica, query, status.term, status.applied).await
    }

    async fn query_there(
        &self,
        partition: PartitionId,
        node: NodeId,
        query: Query,
        serializable: bool,
        left: Duration,
    ) -> Result<Queried, Failed> {
        let ask = peer::QueryRequest {
            query: query.encode_to_vec().into(),
            serializable,
        };
        let told = self
            .ask(node, Kind::Query, partition, ask.encode_to_vec().into(), left)
            .await?;
        let told = decode::<peer::Queried>(told)?;
        if !serializable {
            self.led_by(partition, node, told.term);
        }
        Ok(Queried {
            term: told.term,
            index: told.index,
            answer: decode(told.answer)?,
        })
    }
}

/// Waits until the replica has applied what the leader has told. One that is stopped never will.
async fn reach(replica: &raft::Replica, point: ReadPoint, until: Instant) -> Result<(), Failed> {
    let left = until.saturating_duration_since(Instant::now());
    let reached = replica.wait_committed(point, left).await;
    reached.map_err(Failed::read)
}

/// Reads at one point in time. What may scan much leaves the runtime's threads alone.
async fn answer(
    blocking: Blocking,
    replica: &raft::Replica,
    query: Query,
    term: u64,
    index: u64,
) -> Result<Queried, Failed> {
    let partition = replica.partition();
    let heavy = scans(&query);
    let view = replica.view();
    let read = move || machine::answer(&*view, &query);
    let answered = if heavy {
        blocking.run(read).await.map_err(|error| {
            Failed::Final(ServerError::Internal {
                text: format!("a read failed: {error}"),
            })
        })?
    } else {
        read()
    };
    match answered {
        Ok(answer) => Ok(Queried { term, index, answer }),
        Err(error) => Err(Failed::Final(ServerError::Corrupt {
            partition,
            text: error.to_string(),
        })),
    }
}

type Reader = oneshot::Sender<Result<ReadPoint, Failed>>;

/// Points of partitions that are led elsewhere: one request to a leader for all readers that wait; who comes while it is
/// on its way waits for the next. Bounded by the requests that clients may have open here.
///
/// Must never: give a reader a point that was asked for before it came: what was written in between would be missing.
#[derive(Default)]
pub struct Points(Mutex<BTreeMap<(PartitionId, NodeId), Vec<Reader>>>);

impl Points {
    async fn ask(
        self: &Arc<Self>,
        raft: &Arc<raft::Node>,
        partition: PartitionId,
        node: NodeId,
        left: Duration,
    ) -> Result<ReadPoint, Failed> {
        let raft = raft.clone();
        let request = move || {
            let raft = raft.clone();
            async move {
                let nothing = Bytes::new();
                let asked = raft.request(
                    node,
                    Kind::ReadIndex,
                    partition,
                    nothing.clone(),
                    nothing,
                    ATTEMPT,
                );
                let body = asked
                    .await
                    .map_err(|error| Failed::request(partition, node, error))?;
                let told = decode::<peer::ReadIndex>(body)?;
                Ok(ReadPoint {
                    term: told.term,
                    leader: ReplicaId(told.leader),
                    index: told.index,
                })
            }
        };
        self.wait((partition, node), left, request).await
    }

    /// Waits for a point that `request` brings, which begins after this was called.
    async fn wait<F>(
        self: &Arc<Self>,
        place: (PartitionId, NodeId),
        left: Duration,
        request: impl Fn() -> F + Send + 'static,
    ) -> Result<ReadPoint, Failed>
    where
        F: Future<Output = Result<ReadPoint, Failed>> + Send,
    {
        let (reader, answered) = oneshot::channel();
        let first = match self.0.lock().entry(place) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(reader);
                false
            }
            Entry::Vacant(none) => {
                none.insert(vec![reader]);
                true
            }
        };
        if first {
            let points = self.clone();
            tokio::spawn(async move {
                while let Some(readers) = points.take(place) {
                    let point = request().await;
                    for reader in readers {
                        let _ = reader.send(point.clone());
                    }
                }
            });
        }
        match tokio::time::timeout(left, answered).await {
            Ok(Ok(point)) => point,
            Ok(Err(_)) => Err(Failed::Again {
                leader: None,
                text: "the node is stopping".into(),
            }),
            Err(_) => Err(Failed::Unknown(format!(
                "node {} did not answer in time",
                place.1
            ))),
        }
    }

    /// Those that wait; `None`, and the place is given up, if nobody does.
    fn take(&self, place: (PartitionId, NodeId)) -> Option<Vec<Reader>> {
        let mut places = self.0.lock();
        let waiting = std::mem::take(places.get_mut(&place)?);
        if waiting.is_empty() {
            places.remove(&place);
            return None;
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    const PLACE: (PartitionId, NodeId) = (PartitionId(3), NodeId(7));

    /// The leader's log grows with each request, so that a point tells which one brought it.
    struct Leader {
        points: Arc<Points>,
        asked: Arc<AtomicU64>,
        answers: Arc<Semaphore>,
    }

    impl Leader {
        fn new() -> Leader {
            Leader {
                points: Arc::default(),
                asked: Arc::default(),
                answers: Arc::new(Semaphore::new(0)),
            }
        }

        fn read(&self, left: Duration) -> impl Future<Output = Result<u64, Failed>> + use<> {
            let (points, asked, answers) = (self.points.clone(), self.asked.clone(), self.answers.clone());
            async move {
                let request = move || {
                    let (asked, answers) = (asked.clone(), answers.clone());
                    async move {
                        let index = asked.fetch_add(1, Ordering::SeqCst) + 1;
                        answers.acquire().await.expect("open").forget();
                        Ok(ReadPoint {
                            term: 1,
                            leader: ReplicaId(1),
                            index,
                        })
                    }
                };
                let point = points.wait(PLACE, left, request).await?;
                Ok(point.index)
            }
        }

        fn spawn_read(&self) -> tokio::task::JoinHandle<Result<u64, Failed>> {
            tokio::spawn(self.read(Duration::from_secs(60)))
        }

        /// Lets everything run that can.
        async fn settle(&self) {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn readers_share_a_request_that_began_after_they_came() {
        let leader = Leader::new();
        let early = [leader.spawn_read(), leader.spawn_read()];
        leader.settle().await;
        assert_eq!(leader.asked.load(Ordering::SeqCst), 1, "one request for both");
        let late = [leader.spawn_read(), leader.spawn_read(), leader.spawn_read()];
        leader.settle().await;
        assert_eq!(leader.asked.load(Ordering::SeqCst), 1, "the next one waits");
        leader.answers.add_permits(2);
        for reader in early {
            assert_eq!(reader.await.expect("no panic"), Ok(1));
        }
        for reader in late {
            assert_eq!(
                reader.await.expect("no panic"),
                Ok(2),
                "the first began before they came"
            );
        }
        leader.settle().await;
        assert!(leader.points.0.lock().is_empty(), "nobody waits, nothing is kept");
    }

    #[tokio::test]
    async fn a_reader_does_not_wait_longer_than_it_wants() {
        let leader = Leader::new();
        let answer = leader.read(Duration::from_millis(20)).await;
        assert!(matches!(answer, Err(Failed::Unknown(_))), "{answer:?}");
        leader.answers.add_permits(1);
        leader.settle().await;
        assert!(leader.points.0.lock().is_empty());
    }
}
