//! Read points: one ReadIndex round for all readers that wait; who comes meanwhile gets the next round.
//!
//! Must never: answer from a lease, or before the local state has reached the point.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use types::ReplicaId;
use types::limits::PARTITION_QUEUE;
use types::planted::{self, Planted};

use crate::error::ReadError;
use crate::propose::leader_node;
use crate::replica::Group;
use crate::state_machine::Progress;
use crate::types::LogId;

/// What a linearizable read may be served at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPoint {
    /// Term of the leader that confirmed it.
    pub term: u64,
    /// That leader: a term may have two, of which one can commit. 0: not told.
    pub leader: ReplicaId,
    /// All that was committed when it was confirmed is at or before it. Its entry is itself committed if the leader is told.
    pub index: u64,
}

pub(crate) type Reader = oneshot::Sender<Result<ReadPoint, ReadError>>;

/// Readers of one replica.
pub(crate) fn queue() -> (mpsc::Sender<Reader>, mpsc::Receiver<Reader>) {
    mpsc::channel(PARTITION_QUEUE)
}

/// Waits for a read point.
pub(crate) async fn read_index(
    group: &Group,
    queue: &mpsc::Sender<Reader>,
    deadline: Duration,
) -> Result<ReadPoint, ReadError> {
    if group.leads().is_none() {
        return Err(ReadError::NotLeader {
            leader: group.leader().map(|(_, node)| node),
        });
    }
    let (reader, answered) = oneshot::channel();
    let wait = async {
        queue.send(reader).await.map_err(|_| ReadError::Stopped)?;
        answered.await.map_err(|_| ReadError::Stopped)?
    };
    match timeout(deadline, wait).await {
        Ok(result) => result,
        Err(_) => Err(ReadError::Deadline(
            "no quorum confirmed the leader in time".into(),
        )),
    }
}

/// Waits until `index` is applied.
pub(crate) async fn wait_applied(
    progress: &Progress,
    index: u64,
    deadline: Duration,
) -> Result<(), ReadError> {
    if progress.applied_index() >= index {
        return Ok(());
    }
    match timeout(deadline, progress.applied(index)).await {
        Ok(reached) => Ok(reached?),
        Err(_) => Err(ReadError::Deadline(format!(
            "applied up to {}, {index} was waited for",
            progress.applied_index()
        ))),
    }
}

/// Runs until the queue's senders are gone or the group stops.
pub(crate) async fn run(group: Arc<Group>, mut queue: mpsc::Receiver<Reader>) {
    let mut waiting: Vec<Reader> = Vec::new();
    loop {
        if waiting.is_empty() && queue.recv_many(&mut waiting, PARTITION_QUEUE).await == 0 {
            return;
        }
        while let Ok(reader) = queue.try_recv() {
            waiting.push(reader);
        }
        match round(&group).await {
            Ok(Some(point)) => answer(&mut waiting, Ok(point)),
            // No quorum yet: readers that still wait are served by a later round, together with newcomers.
            Ok(None) => waiting.retain(|reader| !reader.is_closed()),
            Err(error) => answer(&mut waiting, Err(error)),
        }
    }
}

fn answer(waiting: &mut Vec<Reader>, result: Result<ReadPoint, ReadError>) {
    for reader in waiting.drain(..) {
        let _ = reader.send(result.clone());
    }
}

async fn round(group: &Group) -> Result<Option<ReadPoint>, ReadError> {
    if planted::is(Planted::StaleRead)
        && group.leads().is_some()
        && let Some(id) = group.metrics.borrow_watched().last_applied
    {
        return Ok(Some(point(id)));
    }
    let confirmed = match group.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(confirmed) => confirmed,
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
            return Err(ReadError::NotLeader {
                leader: leader_node(&to),
            });
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => return Ok(None),
        Err(RaftError::Fatal(_)) => return Err(ReadError::Stopped),
    };
    let id = *confirmed.read_log_id().log_id();
    match wait_applied(&group.progress, id.index, group.timing.election_max()).await {
        Ok(()) => Ok(Some(known_committed(point(id), &id, &group.progress))),
        Err(ReadError::Deadline(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The point as it may be told to others. A leader is confirmed by who answers its heartbeats, and may name an entry that
/// nobody else has yet: its own first one. If another leader overwrites that while it is waited for, the read is none the
/// worse, since all that was committed when it came is applied; but who takes the point's word for that entry would commit
/// what was discarded. An applied entry of the same leader shows that those before it are committed too.
fn known_committed(point: ReadPoint, id: &LogId, progress: &Progress) -> ReadPoint {
    match progress.is_by(id.leader_id) {
        true => point,
        false => ReadPoint {
            leader: ReplicaId(0),
            ..point
        },
    }
}

/// The entry's own leader, which is who is asked: a leader confirms no reads before an entry of its own is committed. To
/// call an older entry this leader's would make a log id that nobody ever had.
fn point(id: LogId) -> ReadPoint {
    ReadPoint {
        term: id.leader_id.term,
        leader: ReplicaId(id.leader_id.node_id),
        index: id.index,
    }
}

#[cfg(test)]
mod tests {
    use env::SystemClock;

    use super::*;
    use crate::types::LeaderId;

    fn entry(term: u64, leader: u64, index: u64) -> LogId {
        LogId::new(
            LeaderId {
                term,
                node_id: leader,
            },
            index,
        )
    }

    /// What is waited for may be an entry that nobody else ever had, and what came instead another leader's.
    #[test]
    fn nobody_is_told_that_an_entry_is_committed_which_another_leader_has_overwritten() {
        let named = entry(3, 7, 20);
        let told = |applied: LogId| {
            let progress = Progress::new(std::sync::Arc::new(SystemClock::default()));
            progress.advance(&applied);
            known_committed(point(named), &named, &progress)
        };
        assert_eq!(told(named), point(named));
        assert_eq!(
            told(entry(3, 7, 23)),
            point(named),
            "a later one of the same leader"
        );
        for other in [entry(4, 8, 20), entry(3, 9, 20), entry(5, 7, 26)] {
            let point = told(other);
            assert_eq!((point.leader, point.index), (ReplicaId(0), 20), "{other:?}");
        }
    }
}
