//! What never goes back, and what never overtakes what: the term of a replica, for as long as its disk lasts; what it has
//! committed and applied, within one process; and purged <= durable <= applied <= committed <= last.

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
            let boot = seen.controllers[open.at].boots();
            let before = self.before.entry(open.replica).or_default();
            let told = |what: &str, before: u64, now: u64| {
                Err(format!(
                    "{what} of replica {} of partition {} went back from {before} to {now}",
                    open.replica, open.partition
                ))
            };
            let status = &open.status;
            if before.boot == boot {
                if status.term < before.term {
                    return told("the term", before.term, status.term);
                }
                if status.committed < before.committed {
                    return told("what is committed", before.committed, status.committed);
                }
                if status.applied < before.applied {
                    return told("what is applied", before.applied, status.applied);
                }
            }
            *before = Before {
                boot,
                term: status.term,
                committed: status.committed,
                applied: status.applied,
            };
            bounds(seen, open)?;
        }
        Ok(())
    }
}

fn bounds(seen: &Seen<'_>, open: &Open) -> Result<(), String> {
    let purged = seen.controllers[open.at].disk.purged(open.replica);
    let status = &open.status;
    // Committed and last are told by one task, applied by another, and the former may be late.
    match purged <= status.applied && status.committed <= status.last_log.max(status.applied) {
        true => Ok(()),
        false => Err(format!(
            "replica {} of partition {}: purged {purged}, applied {}, committed {}, last {}",
            open.replica, open.partition, status.applied, status.committed, status.last_log
        )),
    }
}
