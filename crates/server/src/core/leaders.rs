//! Who leads what, as told by local replicas and by nodes that were asked; and a signal when that changes.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use tokio::sync::watch;
use types::{NodeId, PartitionId};

/// What is known of one partition's leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leader {
    /// Who.
    pub node: Option<NodeId>,
    /// The newest term known here; 0 if none is.
    pub term: u64,
    /// The replica here leads.
    pub mine: bool,
}

/// Leaders by partition.
pub struct Leaders {
    known: RwLock<BTreeMap<PartitionId, Leader>>,
    changes: watch::Sender<u64>,
}

impl Default for Leaders {
    fn default() -> Leaders {
        Leaders {
            known: RwLock::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Leaders {
    /// The last known leader.
    pub fn get(&self, partition: PartitionId) -> Leader {
        self.known.read().get(&partition).copied().unwrap_or_default()
    }

    /// The local replica says so.
    pub fn set(&self, partition: PartitionId, leader: Leader) {
        self.known.write().insert(partition, leader);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Another node says so; what the local replica says is not overwritten by that.
    pub fn hint(&self, partition: PartitionId, node: Option<NodeId>, has_replica: bool) {
        if !has_replica {
            let mut known = self.known.write();
            let leader = known.entry(partition).or_default();
            // The replica here tells each change once: overwritten, it would not know any more that it leads.
            if !leader.mine {
                leader.node = node;
            }
        }
    }

    /// Whether a hint is followed: the next attempt goes to the node it names, and not where the last one went.
    pub fn follows(&self, partition: PartitionId, hint: Option<NodeId>, here: NodeId) -> bool {
        hint.is_some_and(|node| node != here && self.get(partition).node == Some(node))
    }

    /// Another node has answered as the leader of a term, which nobody leads but it. An answer of an older term
    /// says nothing any more.
    pub fn answered(&self, partition: PartitionId, leader: Leader) {
        let mut known = self.known.write();
        let before = known.entry(partition).or_default();
        if before.term > leader.term {
            return;
        }
        *before = leader;
        drop(known);
        self.changes.send_modify(|count| *count += 1);
    }

    /// The local replica is gone.
    pub fn forget(&self, partition: PartitionId) {
        self.known.write().remove(&partition);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Fires at each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: PartitionId = PartitionId(3);

    fn leader(node: u64, term: u64) -> Leader {
        Leader {
            node: Some(NodeId(node)),
            term,
            mine: false,
        }
    }

    #[test]
    fn an_answer_is_kept_until_a_newer_one() {
        let leaders = Leaders::default();
        let changes = leaders.changes();
        leaders.answered(PARTITION, leader(2, 5));
        assert_eq!(leaders.get(PARTITION), leader(2, 5));
        assert!(
            changes.has_changed().expect("open"),
            "who waits for a leader is told"
        );
        leaders.answered(PARTITION, leader(1, 4));
        assert_eq!(leaders.get(PARTITION), leader(2, 5), "an answer that came late");
        leaders.answered(PARTITION, leader(3, 6));
        assert_eq!(leaders.get(PARTITION), leader(3, 6));
    }

    #[test]
    fn a_late_hint_does_not_depose_the_leader_here() {
        let leaders = Leaders::default();
        let mine = Leader {
            mine: true,
            ..leader(1, 5)
        };
        leaders.set(PARTITION, mine);
        leaders.hint(PARTITION, Some(NodeId(1)), false);
        leaders.hint(PARTITION, None, false);
        assert_eq!(leaders.get(PARTITION), mine);
    }

    #[test]
    fn a_hint_that_is_not_taken_is_not_followed() {
        let (leaders, here, there) = (Leaders::default(), NodeId(1), NodeId(2));
        let check = |expected, hint| assert_eq!(leaders.follows(PARTITION, hint, here), expected, "{hint:?}");
        leaders.hint(PARTITION, Some(there), false);
        check(true, Some(there));
        check(false, Some(here));
        check(false, None);
        // A leader that hands over names its heir, and still is the one this node knows of.
        leaders.set(
            PARTITION,
            Leader {
                mine: true,
                ..leader(1, 5)
            },
        );
        leaders.hint(PARTITION, Some(there), false);
        check(false, Some(there));
    }

    #[test]
    fn a_hint_changes_the_node_and_keeps_the_term() {
        let leaders = Leaders::default();
        leaders.answered(PARTITION, leader(2, 5));
        leaders.hint(PARTITION, None, true);
        assert_eq!(
            leaders.get(PARTITION),
            leader(2, 5),
            "the replica here knows better"
        );
        leaders.hint(PARTITION, None, false);
        assert_eq!(
            (leaders.get(PARTITION).node, leaders.get(PARTITION).term),
            (None, 5)
        );
        leaders.hint(PARTITION, Some(NodeId(4)), false);
        assert_eq!(leaders.get(PARTITION), leader(4, 5));
        leaders.answered(PARTITION, leader(1, 5));
        assert_eq!(
            leaders.get(PARTITION),
            leader(1, 5),
            "an answer is more than a hint"
        );
    }
}
