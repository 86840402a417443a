//! What the lanes count, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of all lanes.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) frames_in: AtomicU64,
    pub(super) frames_out: AtomicU64,
    pub(super) messages_in: AtomicU64,
    pub(super) messages_out: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) refusals: AtomicU64,
    pub(super) strangers: AtomicU64,
    pub(super) refused_by: AtomicU64,
}

impl Counters {
    pub(super) fn count_in(&self, frames: usize) {
        self.messages_in.fetch_add(1, Ordering::Relaxed);
        self.frames_in.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(super) fn count_out(&self, frames: usize) {
        self.messages_out.fetch_add(1, Ordering::Relaxed);
        self.frames_out.fetch_add(frames as u64, Ordering::Relaxed);
    }

    pub(super) fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counters since start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeersStats {
    /// Frames that arrived.
    pub frames_in: u64,
    /// Replies sent.
    pub replies_out: u64,
    /// Messages that arrived.
    pub messages_in: u64,
    /// Messages of replies sent.
    pub messages_out: u64,
    /// Control connections lost.
    pub connections_lost: u64,
    /// Hellos refused by this node.
    pub refusals: u64,
    /// Of these, nodes of this cluster that are not known here: the list of peers may be old.
    pub strangers: u64,
    /// Hellos of this node refused by others.
    pub refused_by_others: u64,
    /// The last refusals, newest last, with the wall time in milliseconds.
    pub last_refusals: Vec<(u64, String)>,
}
