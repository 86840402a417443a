//! How many writes of one partition may be under way on this node. What is too much is refused at once, with a hint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use types::PartitionId;

/// Counts writes in flight per partition.
pub struct Admission {
    most: usize,
    in_flight: RwLock<BTreeMap<PartitionId, Arc<AtomicUsize>>>,
}

/// One admitted write; leaves when dropped, on success, error and cancel alike.
pub struct Admitted(Arc<AtomicUsize>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// At most `most` per partition.
    pub fn new(most: usize) -> Admission {
        Admission {
            most,
            in_flight: RwLock::default(),
        }
    }

    /// Admits one write, or says after how many milliseconds to try again.
    pub fn enter(&self, partition: PartitionId) -> Result<Admitted, u64> {
        let known = self.in_flight.read().get(&partition).cloned();
        let count = known.unwrap_or_else(|| self.in_flight.write().entry(partition).or_default().clone());
        let before = count.fetch_add(1, Ordering::Relaxed);
        let admitted = Admitted(count);
        if before >= self.most {
            Err(RETRY_MS)
        } else {
            Ok(admitted)
        }
    }

    /// Writes in flight.
    pub fn in_flight(&self, partition: PartitionId) -> usize {
        self.in_flight
            .read()
            .get(&partition)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

/// How long a refused client should wait.
pub const RETRY_MS: u64 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_above_the_bound_and_gives_places_back() {
        let admission = Admission::new(2);
        let first = admission.enter(PartitionId(1));
        let second = admission.enter(PartitionId(1));
        assert!(first.is_ok() && second.is_ok());
        assert!(admission.enter(PartitionId(1)).is_err());
        assert!(
            admission.enter(PartitionId(2)).is_ok(),
            "partitions do not share places"
        );
        drop(first);
        assert!(admission.enter(PartitionId(1)).is_ok());
        assert_eq!(admission.in_flight(PartitionId(1)), 1);
        drop(second);
        assert_eq!(admission.in_flight(PartitionId(1)), 0);
    }
}
