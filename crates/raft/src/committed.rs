//! What a leader says of committed entries by the way, in its answers to forwarded requests. Who was answered waits for
//! the local replica; the news that would move it comes with the next append, perhaps a millisecond later. So the
//! answer itself is taken for the append that the leader could have sent: no entries, committed up to here.
//!
//! Must never: take anyone's word but that of the very leader whose log this replica follows. The term alone does not tell:
//! it may have a second one, which was elected before it and can commit nothing, and whose entries may be what is here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use types::ReplicaId;

use crate::error::ReadError;
use crate::read::{self, ReadPoint};
use crate::replica::Group;
use crate::types::{AppendRequest, LogId, Vote};

/// The highest index that was passed on: those that wait for one batch are told once.
#[derive(Default)]
pub(crate) struct Told(AtomicU64);

/// Waits until the entry at the point is applied here, which its leader has said is committed.
pub(crate) async fn wait_applied(
    group: &Group,
    point: ReadPoint,
    deadline: Duration,
) -> Result<(), ReadError> {
    let applied = read::wait_applied(&group.progress, point.index, deadline);
    tokio::pin!(applied);
    let vote = group.server.borrow_watched().vote;
    let needed = group.progress.applied_index() < point.index;
    let append = needed.then(|| group.told.append(vote, group.replica, point));
    let Some(append) = append.flatten() else {
        return applied.await;
    };
    tokio::select! {
        biased;
        result = &mut applied => return result,
        // Whatever comes of it (the entry may not be here yet): the leader's own appends do the rest. Boxed, since one of
        // many waiters makes it, and each has room for it.
        _ = Box::pin(group.raft.append_entries(append)) => {}
    }
    applied.await
}

impl Told {
    /// The append to make of an answer; `None` if it was made, or the replica does not follow that leader.
    fn append(&self, vote: Vote, replica: ReplicaId, point: ReadPoint) -> Option<AppendRequest> {
        let leader = vote.leader_id;
        let told_by = (point.term, point.leader.0);
        let follows = vote.committed && (leader.term, leader.node_id) == told_by && point.leader != replica;
        if !follows || self.0.fetch_max(point.index, Ordering::Relaxed) >= point.index {
            return None;
        }
        let log_id = LogId::new(leader, point.index);
        Some(AppendRequest {
            vote,
            prev_log_id: Some(log_id),
            entries: Vec::new(),
            leader_commit: Some(log_id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(7);

    /// That this one led in that term, and said so of that index.
    fn said(term: u64, leader: u64, index: u64) -> ReadPoint {
        ReadPoint {
            term,
            leader: ReplicaId(leader),
            index,
        }
    }

    #[test]
    fn the_leader_that_is_followed_is_believed_once_and_nobody_else() {
        let led = |leader: u64| Vote::new_committed(3, leader);
        let told = Told::default();
        let none = |vote: Vote, point: ReadPoint, why: &str| {
            assert!(told.append(vote, ME, point).is_none(), "{why}");
        };
        none(Vote::new(3, 8), said(3, 8, 5), "not elected yet");
        none(led(8), said(2, 8, 5), "an older term");
        none(led(8), said(4, 8, 5), "a term not heard of yet");
        none(led(7), said(3, 7, 5), "it leads itself");
        none(led(8), said(3, 9, 5), "another leader of the same term");
        none(led(8), said(3, 0, 5), "nobody says who");
        let append = told.append(led(8), ME, said(3, 8, 5)).expect("the leader's word");
        let log_id = Some(LogId::new(led(8).leader_id, 5));
        assert_eq!((append.prev_log_id, append.leader_commit), (log_id, log_id));
        assert!(append.entries.is_empty());
        none(led(8), said(3, 8, 5), "told before");
        none(led(8), said(3, 8, 4), "older news");
        assert!(told.append(led(8), ME, said(3, 8, 6)).is_some());
    }
}
