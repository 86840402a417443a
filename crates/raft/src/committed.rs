//! What a leader says of committed entries by the way, in its answers to forwarded requests. Who was answered waits for
//! the local replica; the news that would move it comes with the next append, perhaps a millisecond later. So the
//! answer itself is taken for the append that the leader could have sent: no entries, committed up to here.
//!
//! Must never: take anyone's word but that of the leader of the replica's own term.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use types::ReplicaId;

use crate::error::ReadError;
use crate::read;
use crate::replica::Group;
use crate::types::{AppendRequest, LogId, Vote};

/// The highest index that was passed on: those that wait for one batch are told once.
#[derive(Default)]
pub(crate) struct Told(AtomicU64);

/// Waits until the entry at `index` is applied here, which the leader of `term` has said is committed.
pub(crate) async fn wait_applied(
    group: &Group,
    term: u64,
    index: u64,
    deadline: Duration,
) -> Result<(), ReadError> {
    let applied = read::wait_applied(&group.progress, index, deadline);
    tokio::pin!(applied);
    let vote = group.server.borrow_watched().vote;
    let needed = group.progress.applied_index() < index;
    let append = needed.then(|| group.told.append(vote, group.replica, term, index));
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
    fn append(&self, vote: Vote, replica: ReplicaId, term: u64, index: u64) -> Option<AppendRequest> {
        let leader = vote.leader_id;
        let follows = vote.committed && leader.term == term && leader.node_id != replica.0;
        if !follows || self.0.fetch_max(index, Ordering::Relaxed) >= index {
            return None;
        }
        let log_id = LogId::new(leader, index);
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

    #[test]
    fn the_leader_of_the_term_is_believed_once_and_nobody_else() {
        let led = |leader: u64| Vote::new_committed(3, leader);
        let told = Told::default();
        assert!(
            told.append(Vote::new(3, 8), ME, 3, 5).is_none(),
            "not elected yet"
        );
        assert!(told.append(led(8), ME, 2, 5).is_none(), "an older term");
        assert!(told.append(led(8), ME, 4, 5).is_none(), "a term not heard of yet");
        assert!(told.append(led(7), ME, 3, 5).is_none(), "it leads itself");
        let append = told.append(led(8), ME, 3, 5).expect("the leader's word");
        let log_id = Some(LogId::new(led(8).leader_id, 5));
        assert_eq!((append.prev_log_id, append.leader_commit), (log_id, log_id));
        assert!(append.entries.is_empty());
        assert!(told.append(led(8), ME, 3, 5).is_none(), "told before");
        assert!(told.append(led(8), ME, 3, 4).is_none(), "older news");
        assert!(told.append(led(8), ME, 3, 6).is_some());
    }
}
