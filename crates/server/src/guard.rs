//! Keeps the data disk from filling: below the reserve, writes led here are refused, leaders move away, an alarm is
//! raised; above one and a half times the reserve all that ends by itself. And knows whether it is slow: then leaders
//! move away too, if others are faster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use storage::PartitionStores;

/// Between two measurements.
const EVERY: Duration = Duration::from_millis(250);

/// The state of this node's disk.
pub struct Guard {
    reserve_bytes: u64,
    free_bytes: AtomicU64,
    full: AtomicBool,
    slow: AtomicBool,
    refused: AtomicU64,
}

impl Guard {
    /// A guard that keeps `reserve_bytes` free.
    pub fn new(reserve_bytes: u64) -> Guard {
        Guard {
            reserve_bytes,
            free_bytes: AtomicU64::new(u64::MAX),
            full: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes a measurement; returns whether the state changed.
    pub fn measure(&self, free_bytes: u64) -> bool {
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        let was = self.full.load(Ordering::Relaxed);
        let margin = (self.reserve_bytes / 2).min(types::limits::DISK_MARGIN_BYTES);
        let enough = self.reserve_bytes.saturating_add(margin);
        let full = if was {
            free_bytes < enough
        } else {
            free_bytes < self.reserve_bytes
        };
        self.full.store(full, Ordering::Relaxed);
        full != was
    }

    /// Whether writes are refused.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Whether what is written here takes long to be durable.
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Free bytes at the last measurement.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Writes refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts a refusal and says why.
    pub fn refuse(&self) -> String {
        self.refused.fetch_add(1, Ordering::Relaxed);
        format!(
            "{} bytes free on the leader's data disk, {} are kept in reserve",
            self.free_bytes(),
            self.reserve_bytes
        )
    }
}

/// Measures until `stop`.
pub async fn watch(
    guard: Arc<Guard>,
    stores: Arc<dyn PartitionStores>,
    appends: Arc<raft::Appends>,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let slow = appends.are_slow();
        match (guard.slow.swap(slow, Ordering::Relaxed), slow) {
            (false, true) => tracing::error!("the data disk is slow: leaders move to nodes that are faster"),
            (true, false) => tracing::info!("the data disk is fast again"),
            (false, false) | (true, true) => {}
        }
        match stores.free_bytes() {
            Ok(free) if guard.measure(free) => {
                if guard.is_full() {
                    tracing::error!(
                        free,
                        reserve = guard.reserve_bytes,
                        "disk nearly full: writes are refused"
                    );
                } else {
                    tracing::info!(free, "disk has room again: writes are accepted");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot measure free disk space"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_below_the_reserve_and_recovers_well_above_it() {
        let guard = Guard::new(100);
        for (free, full, changed) in [
            (1000, false, false),
            (100, false, false),
            (99, true, true),
            (120, true, false),
            (150, false, true),
        ] {
            assert_eq!(
                (guard.measure(free), guard.is_full()),
                (changed, full),
                "{free} free"
            );
        }
    }
}
