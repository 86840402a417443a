//! What never goes back, and what never overtakes what: the term of a replica, which it tells once it is synced; what it
//! has committed and applied, within one process; and its log is purged only of what its state holds where no crash takes it
//! away, and ends no earlier than what is committed.

use std::collections::BTreeMap;

use types::ReplicaId;

use super::{Invariant, Open, Seen};

/// What was seen of a replica.
#[derive(Default, Clone, Copy)]
struct Before {
    boot: u64,
    term: u64,
    committed: u64,
    applied: u64,
    purged: u64,
}

/// What was seen of all of them.
#[derive(Default)]
pub struct Order {
    before: BTreeMap<ReplicaId, Before>,
}

impl Invariant for Order {
    fn name(&self) -> &'static str {
        "nothing goes back"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for open in seen.open {
            let boot = seen.hosts[open.at].boots;
            let before = self.before.entry(open.replica).or_default();
            let told = |what: &str, before: u64, now: u64| {
                Err(format!(
                    "{what} of replica {} of partition {} went back from {before} to {now}",
                    open.replica, open.partition
                ))
            };
            let status = &open.status;
            if status.term < before.term {
                return told("the term", before.term, status.term);
            }
            if before.boot == boot {
                if status.committed < before.committed {
                    return told("what is committed", before.committed, status.committed);
                }
                if status.applied < before.applied {
                    return told("what is applied", before.applied, status.applied);
                }
            }
            let purged = seen.hosts[open.at].disk.purged(open.replica);
            if purged > before.purged {
                covered(seen, open, purged)?;
            }
            *before = Before {
                boot,
                purged,
                term: status.term,
                committed: status.committed,
                applied: status.applied,
            };
            bounds(open)?;
        }
        Ok(())
    }
}

/// What was purged from the log is durable in the state.
fn covered(seen: &Seen<'_>, open: &Open, purged: u64) -> Result<(), String> {
    let index = super::durable_index(seen.hosts[open.at].disk, open.partition, open.replica);
    match purged <= index {
        true => Ok(()),
        false => Err(format!(
            "the log of replica {} of partition {} is purged up to {purged}, and its state is durable up to {index}",
            open.replica, open.partition
        )),
    }
}

fn bounds(open: &Open) -> Result<(), String> {
    let status = &open.status;
    // Committed and last are told by one task, applied by another, and the former may be late.
    match status.committed <= status.last_log.max(status.applied) {
        true => Ok(()),
        false => Err(format!(
            "replica {} of partition {}: applied {}, committed {}, last {}",
            open.replica, open.partition, status.applied, status.committed, status.last_log
        )),
    }
}
