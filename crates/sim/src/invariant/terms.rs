//! Leaders are not deposed without end: the term of a partition rises by a bounded number in any few seconds, whatever is
//! done to the cluster. Each fault may cost some elections, and a split vote another; a loop costs hundreds.

use std::collections::{BTreeMap, VecDeque};

use types::PartitionId;

use super::{Invariant, Seen};

/// How long a time is looked at together, in milliseconds.
const WINDOW_MS: u64 = 10_000;
/// By how much a term may rise within them.
const RISES: u64 = 60;

/// Terms as they rose.
#[derive(Default)]
pub struct Terms {
    /// When each partition's term rose, and to what.
    rises: BTreeMap<PartitionId, VecDeque<(u64, u64)>>,
}

impl Invariant for Terms {
    fn name(&self) -> &'static str {
        "terms do not run away"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for open in seen.open {
            let rises = self.rises.entry(open.partition).or_default();
            let term = open.status.term;
            if rises.back().is_none_or(|(_, last)| term > *last) {
                rises.push_back((seen.now_ms, term));
            }
            while rises.len() > 1 && rises[0].0 + WINDOW_MS < seen.now_ms {
                rises.pop_front();
            }
            let first = rises.front().map_or(term, |(_, first)| *first);
            if term > first + RISES {
                return Err(format!(
                    "the term of partition {} rose from {first} to {term} within {WINDOW_MS} ms",
                    open.partition
                ));
            }
        }
        Ok(())
    }
}
