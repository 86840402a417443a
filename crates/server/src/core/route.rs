//! Finding the leader, asking it once, and deciding what a failure means.

mod cost;
mod read;
mod watch;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use machine::Command;
use machine::outcome::{Done, Reply};
use prost::Message;
use proto::peer::Kind;
use tokio::time::Instant;
use types::planted::{self, Planted};
use types::{NodeId, PartitionId, ReplicaId};

use self::cost::{grows, is_idempotent};
pub(super) use self::read::Points;
pub(super) use self::watch::remote_watch;
use super::attempt::Failed;
use super::leaders::Leader;
use super::{Core, Proposed, ReadPoint, ServerError};
use crate::request;

/// The longest wait before the leader is looked up again; a change of leader ends it at once.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The longest single attempt of what may be asked again.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// What an attempt of unclear fate means for the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing: ask again.
    Read,
    /// Doing it again comes to the same: send it again, and remember that it may have been done.
    Same,
    /// It may have been done, and must not be done twice.
    Never,
}

/// Where to ask.
enum Place {
    Here(Box<raft::Replica>),
    There(NodeId),
    Unknown,
}

impl Core {
    /// Commits one command. From any node; waits until the local replica, if any, has applied it.
    pub async fn propose(
        &self,
        partition: PartitionId,
        mut command: Command,
    ) -> Result<Proposed, ServerError> {
        if command.principal.is_empty() {
            "root".clone_into(&mut command.principal);
        }
        let repeat = if command.client_id != 0 || is_idempotent(&command) {
            Repeat::Same
        } else {
            Repeat::Never
        };
        let proposed = self
            .at_leader(partition, repeat, |place, left| {
                let command = command.clone();
                async move {
                    match place {
                        Place::Here(replica) => self.propose_here(&replica, command, left).await,
                        Place::There(node) => self.propose_there(partition, node, command, left).await,
                        Place::Unknown => Err(unknown_leader()),
                    }
                }
            })
            .await?;
        match proposed.reply.done {
            Some(Done::Refused(refusal)) => Err(ServerError::Refused(refusal)),
            _ => Ok(proposed),
        }
    }

    /// Asks the leader until it answers, the failure is final, or time is up. Fails with `NoLeader` only if nothing
    /// was done.
    async fn at_leader<T, F>(
        &self,
        partition: PartitionId,
        repeat: Repeat,
        mut ask: impl FnMut(Place, Duration) -> F,
    ) -> Result<T, ServerError>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let deadline = self.answer_by();
        let mut changes = self.leaders.changes();
        let mut turn = 0;
        let mut maybe_done = false;
        loop {
            changes.mark_unchanged();
            let mut left = deadline.saturating_duration_since(Instant::now());
            if repeat != Repeat::Never {
                // A leader that is silent is not waited for to the end: another may have been elected meanwhile.
                left = left.min(ATTEMPT);
            }
            let place = self
                .place(partition, turn)
                .map_err(|error| truly(error, maybe_done))?;
            turn += 1;
            let failed = match ask(place, left).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let (hint, text) = match failed {
                Failed::Final(error) => return Err(truly(error, maybe_done)),
                Failed::Unknown(text) if repeat == Repeat::Never => {
                    return Err(ServerError::Timeout { text });
                }
                Failed::Unknown(text) => {
                    maybe_done |= repeat == Repeat::Same;
                    (None, text)
                }
                Failed::Again { leader, text } => (leader, text),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(truly(ServerError::NoLeader { partition, text }, maybe_done));
            }
            self.leaders.hint(partition, hint, self.is_local(partition));
            // Without a wait only if the next attempt goes elsewhere: the same one would fail the same way, again and again.
            let elsewhere = self.leaders.follows(partition, hint, self.node);
            if !elsewhere || self.is_local(partition) {
                let _ = tokio::time::timeout(left.min(LOOK_AGAIN), changes.changed()).await;
            }
        }
    }

    /// When whoever asked, or this node, stops waiting.
    fn answer_by(&self) -> Instant {
        let deadline = Instant::now() + self.timeout;
        request::answer_by().map_or(deadline, |wanted| wanted.min(deadline))
    }

    /// The leader's place; without any idea, each holder of a replica in turn.
    fn place(&self, partition: PartitionId, turn: usize) -> Result<Place, ServerError> {
        if self.raft.get().is_none() {
            return Err(ServerError::Unavailable {
                text: "this node is starting".into(),
            });
        }
        let known = self.leaders.get(partition);
        let replica = self.replica(partition);
        match (known.node, replica) {
            (Some(node), Some(replica)) if node == self.node => Ok(Place::Here(Box::new(replica))),
            (Some(node), _) if node != self.node => Ok(Place::There(node)),
            (None, Some(_)) if self.is_local(partition) || partition == PartitionId::META => {
                Ok(Place::Unknown)
            }
            _ => {
                let names = self.names.read().clone();
                let found = names.map.partitions.iter().find(|found| found.id == partition.0);
                let Some(found) = found else {
                    if names.map.cluster.is_none() {
                        return Err(ServerError::Unavailable {
                            text: "the cluster map is not here yet".into(),
                        });
                    }
                    return Err(ServerError::UnknownPartition { partition });
                };
                let nodes: Vec<u64> = found
                    .replicas
                    .iter()
                    .map(|r| r.node)
                    .filter(|node| *node != self.node.0)
                    .collect();
                Ok(nodes
                    .get(turn % nodes.len().max(1))
                    .map_or(Place::Unknown, |node| Place::There(NodeId(*node))))
            }
        }
    }

    /// Proposes to the replica here, which should lead.
    pub(super) async fn propose_here(
        &self,
        replica: &raft::Replica,
        command: Command,
        left: Duration,
    ) -> Result<Proposed, Failed> {
        let partition = replica.partition();
        if self.guard.is_full() && grows(&command) {
            return Err(Failed::Final(ServerError::NoSpace {
                text: self.guard.refuse(),
            }));
        }
        let _admitted = self.admission.enter(partition).map_err(|retry_ms| {
            self.metrics.refused_busy.inc();
            Failed::Final(ServerError::Busy { partition, retry_ms })
        })?;
        let begun = Instant::now();
        let done = replica
            .propose(command, left)
            .await
            .map_err(|error| Failed::propose(partition, error))?;
        self.metrics.committed(partition, begun.elapsed());
        Ok(Proposed {
            term: done.term,
            leader: done.leader,
            index: done.index,
            reply: done.reply,
        })
    }

    async fn propose_there(
        &self,
        partition: PartitionId,
        node: NodeId,
        command: Command,
        left: Duration,
    ) -> Result<Proposed, Failed> {
        let until = Instant::now() + left;
        let body = Bytes::from(command.encode_to_vec());
        if planted::is(Planted::ForwardTwice) {
            let _ = self.ask(node, Kind::Propose, partition, body.clone(), left).await;
        }
        let told = self.ask(node, Kind::Propose, partition, body, left).await?;
        let told = decode::<proto::peer::Proposed>(told)?;
        self.led_by(partition, node, told.term);
        // From here on it has happened: nothing that goes wrong may lead to another attempt.
        let reply = decode::<Reply>(told.reply)?;
        let (term, leader, index) = (told.term, ReplicaId(told.leader), told.index);
        let point = ReadPoint { term, leader, index };
        self.wait_here(partition, point, until).await?;
        Ok(Proposed {
            term,
            leader,
            index,
            reply,
        })
    }

    async fn ask(
        &self,
        node: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
        left: Duration,
    ) -> Result<Bytes, Failed> {
        let answer = self
            .raft()
            .request(node, kind, partition, body, request::id(), left)
            .await;
        answer.map_err(|error| Failed::request(partition, node, error))
    }

    /// A node has answered what only the leader answers: remembered, unless a replica here tells who leads.
    fn led_by(&self, partition: PartitionId, node: NodeId, term: u64) {
        let leader = Leader {
            node: Some(node),
            term,
            mine: false,
        };
        // Nearly always it is known: then nobody is woken and nothing is locked for long.
        if self.leaders.get(partition) != leader && !self.is_local(partition) {
            self.leaders.answered(partition, leader);
        }
    }

    /// Waits until the replica here, if there is one, has applied what the leader has told. One that is stopped has
    /// nothing more to show: what was written is written.
    async fn wait_here(&self, partition: PartitionId, told: ReadPoint, until: Instant) -> Result<(), Failed> {
        let Some(replica) = self.replica(partition).filter(|_| self.is_local(partition)) else {
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now());
        match replica.wait_committed(told, left).await {
            Ok(()) | Err(raft::ReadError::Stopped) => Ok(()),
            Err(_) => Err(Failed::Final(ServerError::Timeout {
                text: format!(
                    "committed at index {}, but the replica here has not applied it yet",
                    told.index
                ),
            })),
        }
    }

    /// A request of the cluster's own business to one node.
    pub async fn admin(
        &self,
        node: NodeId,
        kind: Kind,
        partition: PartitionId,
        body: Bytes,
    ) -> Result<Bytes, ServerError> {
        if node == self.node {
            return super::serve::admin(self, kind, partition, body)
                .await
                .map_err(|e| last_word(partition, e));
        }
        self.ask(node, kind, partition, body, self.timeout)
            .await
            .map_err(|error| last_word(partition, error))
    }
}

fn decode<M: Message + Default>(body: Bytes) -> Result<M, Failed> {
    M::decode(body).map_err(|error| {
        Failed::Final(ServerError::Internal {
            text: format!("answer of a peer: {error}"),
        })
    })
}

fn unknown_leader() -> Failed {
    Failed::Again {
        leader: None,
        text: "no leader is known, an election may be under way".into(),
    }
}

/// A failure whose earlier attempt may have been done does not say that nothing was.
fn truly(error: ServerError, maybe_done: bool) -> ServerError {
    if maybe_done { error.after_write() } else { error }
}

/// What remains to be said when nothing is tried any more.
pub(super) fn last_word(partition: PartitionId, failed: Failed) -> ServerError {
    match failed {
        Failed::Final(error) => error,
        Failed::Unknown(text) => ServerError::Timeout { text },
        Failed::Again { text, .. } => ServerError::NoLeader { partition, text },
    }
}

/// See [`Core::transfer_leader`].
pub(super) async fn transfer(core: &Core, partition: PartitionId, to: NodeId) -> Result<(), ServerError> {
    let map = core.map();
    let found = map.partitions.iter().find(|found| found.id == partition.0);
    let replica = found
        .ok_or(ServerError::UnknownPartition { partition })?
        .replicas
        .iter()
        .find(|replica| replica.node == to.0 && replica.voter)
        .map(|replica| ReplicaId(replica.id))
        .ok_or_else(|| ServerError::Invalid {
            text: format!("node {to} holds no voting replica of partition {partition}"),
        })?;
    let ask = proto::peer::AdminAsk {
        ask: Some(proto::peer::admin_ask::Ask::TransferTo(replica.0)),
    };
    let body = Bytes::from(ask.encode_to_vec());
    core.at_leader(partition, Repeat::Same, |place, left| {
        let body = body.clone();
        async move {
            match place {
                Place::Here(_) if core.node == to => Ok(()),
                Place::There(node) if node == to => Ok(()),
                Place::Here(_) => super::serve::admin(core, Kind::Admin, partition, body)
                    .await
                    .map(|_| ()),
                Place::There(node) => core
                    .ask(node, Kind::Admin, partition, body, left)
                    .await
                    .map(|_| ()),
                Place::Unknown => Err(unknown_leader()),
            }
        }
    })
    .await
}
