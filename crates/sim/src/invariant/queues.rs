//! No queue grows over its bound.

use types::limits::PARTITION_QUEUE;

use super::{Invariant, Seen};

/// Nothing to remember.
pub struct Queues;

impl Invariant for Queues {
    fn name(&self) -> &'static str {
        "queues are bounded"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for open in seen.open {
            if open.status.queue_depth > PARTITION_QUEUE {
                let (partition, depth) = (open.partition, open.status.queue_depth);
                return Err(format!("{depth} commands wait in partition {partition}"));
            }
        }
        Ok(())
    }
}
