//! From commands to log entries: one task per replica drains its queue into batches.
//!
//! Must never: propose a command again whose fate is unknown, or answer one before its entry is applied here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use machine::command::BATCH_FORMAT;
use machine::{Batch, Command, Outcome, Reply};
use openraft::errors::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use types::limits::{
    BATCH_BYTES, BATCH_COMMANDS, ENTRIES_IN_FLIGHT, ENTRY_ALONE_MS, KEY_BYTES, PARTITION_QUEUE, REQUEST_BYTES,
};
use types::{NodeId, ReplicaId};

use crate::error::ProposeError;
use crate::replica::Group;
use crate::types::{EncodedBatch, ReplicaNode, Respond, TypeConfig};

/// Largest encoded command: a client's largest request, and room for what this cluster adds to it.
const COMMAND_BYTES: usize = REQUEST_BYTES + KEY_BYTES;

/// A command that was applied, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposed {
    /// Term of its entry.
    pub term: u64,
    /// The replica that led then.
    pub leader: ReplicaId,
    /// Index of its entry.
    pub index: u64,
    /// What the machine answered.
    pub reply: Reply,
}

pub(crate) type ProposeResult = Result<Proposed, ProposeError>;

/// A command in the queue.
pub(crate) struct Proposal {
    command: Command,
    size_bytes: usize,
    answer: oneshot::Sender<ProposeResult>,
}

/// The queue of one replica.
pub(crate) fn queue() -> (mpsc::Sender<Proposal>, mpsc::Receiver<Proposal>) {
    mpsc::channel(PARTITION_QUEUE)
}

/// Queues `command` and waits for its reply.
pub(crate) async fn propose(
    group: &Group,
    queue: &mpsc::Sender<Proposal>,
    command: Command,
    deadline: Duration,
) -> ProposeResult {
    if group.leads().is_none() {
        return Err(not_leader(group));
    }
    let size_bytes = command.encoded_len();
    if size_bytes > COMMAND_BYTES {
        return Err(ProposeError::TooLarge);
    }
    let (answer, answered) = oneshot::channel();
    match queue.try_send(Proposal {
        command,
        size_bytes,
        answer,
    }) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(_)) => return Err(ProposeError::Busy),
        Err(mpsc::error::TrySendError::Closed(_)) => return Err(ProposeError::Stopped),
    }
    match timeout(deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(ProposeError::Unknown(
            "the replica stopped before the entry was applied".into(),
        )),
        Err(_) => Err(ProposeError::Unknown("deadline exceeded".into())),
    }
}

fn not_leader(group: &Group) -> ProposeError {
    ProposeError::NotLeader {
        leader: group.leader().map(|(_, node)| node),
    }
}

/// The permits of a new group.
pub(crate) fn in_flight() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT))
}

/// Leave to propose one entry more. What comes while entries are on their way waits for them and goes in one entry, which
/// costs as much as each of four small ones would; but not for long, or commands would wait for two rounds where a round
/// is slow.
async fn leave(in_flight: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let alone = in_flight.clone().acquire_many_owned(ENTRIES_IN_FLIGHT as u32);
    let permits = match timeout(Duration::from_millis(ENTRY_ALONE_MS), alone).await {
        Ok(all) => all,
        Err(_) => in_flight.clone().acquire_owned().await,
    };
    let mut permits = permits.expect("the semaphore is never closed");
    permits.split(1).expect("at least one was acquired")
}

/// Waits until every entry proposed here was answered. While the result is held, commands wait in the queue.
pub(crate) async fn pause(group: &Group) -> OwnedSemaphorePermit {
    let all = group
        .in_flight
        .clone()
        .acquire_many_owned(ENTRIES_IN_FLIGHT as u32);
    all.await.expect("the semaphore is never closed")
}

/// Runs until the queue's senders are gone or the group stops.
pub(crate) async fn run(group: Arc<Group>, mut queue: mpsc::Receiver<Proposal>) {
    let mut first = None;
    loop {
        let next = match first.take() {
            Some(proposal) => Some(proposal),
            None => queue.recv().await,
        };
        let Some(next) = next else { return };
        // Before the rest is taken: what queues up while all entries are in flight becomes one batch. And not before
        // there is something to propose: who waits for all permits waits for entries only.
        let permit = leave(&group.in_flight).await;
        let (proposals, rest) = collect(next, &mut queue);
        first = rest;
        if !submit(&group, proposals, permit).await {
            queue.close();
        }
    }
}

/// Takes what waits, up to the bounds of a batch; also returns the one that did not fit any more.
fn collect(first: Proposal, queue: &mut mpsc::Receiver<Proposal>) -> (Vec<Proposal>, Option<Proposal>) {
    let mut bytes = first.size_bytes;
    let mut proposals = vec![first];
    while proposals.len() < BATCH_COMMANDS {
        let Ok(next) = queue.try_recv() else { break };
        if bytes + next.size_bytes > BATCH_BYTES {
            return (proposals, Some(next));
        }
        bytes += next.size_bytes;
        proposals.push(next);
    }
    (proposals, None)
}

/// Proposes one entry. False if the group has stopped.
async fn submit(group: &Arc<Group>, mut proposals: Vec<Proposal>, permit: OwnedSemaphorePermit) -> bool {
    // Whoever gave up waiting was told "unknown"; not proposing at all is the better of the two fates.
    proposals.retain(|proposal| !proposal.answer.is_closed());
    if proposals.is_empty() {
        return true;
    }
    let Some(leader) = group.leads() else {
        for proposal in proposals {
            let _ = proposal.answer.send(Err(not_leader(group)));
        }
        return true;
    };
    let mut commands = Vec::with_capacity(proposals.len());
    let mut answers = Vec::with_capacity(proposals.len());
    for proposal in proposals {
        commands.push(proposal.command);
        answers.push(proposal.answer);
    }
    group.counters.count_batch(commands.len());
    let batch = Batch {
        format: BATCH_FORMAT,
        clock_ms: group.clock.now_ms(Some(leader.term)),
        wall_ms: group.clock.wall_ms(),
        commands,
    };
    let data = EncodedBatch(Bytes::from(batch.encode_to_vec()));
    let respond = Respond::new(move |result| {
        distribute(result, answers);
        drop(permit);
    });
    // Bound to this leadership: the clock it is stamped with means nothing in another term.
    group
        .raft
        .write(data)
        .with_leader(leader)
        .responder(respond)
        .await
        .is_ok()
}

fn distribute(result: ClientWriteResult<TypeConfig>, answers: Vec<oneshot::Sender<ProposeResult>>) {
    match result {
        Ok(done) => {
            let outcome: Arc<Outcome> = done.data;
            let (led, index) = (done.log_id.leader_id, done.log_id.index);
            for (answer, reply) in answers.into_iter().zip(&outcome.replies) {
                let _ = answer.send(Ok(Proposed {
                    term: led.term,
                    leader: ReplicaId(led.node_id),
                    index,
                    reply: reply.clone(),
                }));
            }
        }
        Err(error) => {
            let error = propose_error(error);
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

fn propose_error(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        // Refused before anything was appended.
        ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader {
            leader: leader_node(&to),
        },
        // Appended, then this replica lost its leadership: another leader may still commit it.
        ClientWriteError::LogEntryDiscarded(_) => {
            ProposeError::Unknown("leadership moved while it was pending".into())
        }
        other => ProposeError::Unknown(other.to_string()),
    }
}

/// The node that a refusal points to.
pub(crate) fn leader_node(to: &ForwardToLeader<TypeConfig>) -> Option<NodeId> {
    to.leader_node.map(|ReplicaNode { node }| NodeId(node))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn what_comes_meanwhile_waits_for_the_entry_before_it_but_not_for_long() {
        let in_flight = in_flight();
        let first = leave(&in_flight).now_or_never().expect("nothing is on its way");
        let mut second = Box::pin(leave(&in_flight));
        assert!(second.as_mut().now_or_never().is_none(), "one is on its way");
        drop(first);
        let second = second.now_or_never().expect("none is any more");

        let begun = Instant::now();
        let third = leave(&in_flight).await;
        assert!(begun.elapsed() >= Duration::from_millis(ENTRY_ALONE_MS));
        assert_eq!(in_flight.available_permits(), ENTRIES_IN_FLIGHT - 2);
        let mut more = Vec::new();
        while in_flight.available_permits() > 0 {
            more.push(leave(&in_flight).await);
        }
        let mut beyond = Box::pin(leave(&in_flight));
        let waited = timeout(Duration::from_millis(3 * ENTRY_ALONE_MS), &mut beyond).await;
        assert!(waited.is_err(), "no more than {ENTRIES_IN_FLIGHT}");
        drop((second, third, more));
        drop(beyond.await);
    }
}
