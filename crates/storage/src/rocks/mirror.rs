//! What one replica's log holds, in memory: its bounds, its marks, and its recent entries.
//!
//! ```text
//! purged | first ......... cached_from ........ written ........ next
//!        |  in the database |  in both          |  in memory only |
//! ```
//! Invariant: `first <= next` and `cached_from <= max(written, first)`, so that each entry is in the database or cached;
//! checked by [`Mirror::check`] after each change. Operations still queued are already applied here.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use crate::{LogRecord, damaged};

/// An entry, and how many bytes of the replica's log are ahead of it.
#[derive(Debug, Clone)]
pub(super) struct Cached {
    pub(super) record: LogRecord,
    pub(super) before: u64,
}

#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purged: Option<(u64, Bytes)>,
    /// What was found damaged when the log was opened. Nothing is read or added until the replica is removed.
    damaged: Option<String>,
    /// The replica was removed, and another mirror stands for what may follow under its id.
    pub(super) gone: bool,
    first: u64,
    next: u64,
    cache: VecDeque<Cached>,
    cache_bytes: usize,
    written: u64,
    epoch: u64,
    /// Bytes ahead of `first`, and ahead of `next`.
    first_before: u64,
    next_before: u64,
}

impl Mirror {
    /// As found at open: a mark, or an entry at either end, that cannot be read.
    pub(super) fn broken(what: String) -> Mirror {
        Mirror {
            damaged: Some(what),
            ..Mirror::default()
        }
    }

    /// An error of kind `InvalidData` if it was found damaged.
    pub(super) fn whole(&self) -> io::Result<()> {
        match &self.damaged {
            Some(what) => Err(damaged(what.clone())),
            None => Ok(()),
        }
    }

    /// As found at open: entries `first..next`, all in the database.
    pub(super) fn found(&mut self, first: u64, next: u64, first_before: u64, next_before: u64) {
        self.first = first;
        self.next = next;
        self.written = next;
        self.first_before = first_before;
        self.next_before = next_before;
        self.check();
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn last(&self) -> Option<u64> {
        (self.first < self.next).then(|| self.next - 1)
    }

    pub(super) fn cached_from(&self) -> u64 {
        self.next - self.cache.len() as u64
    }

    /// Changes whenever entries that were there are no longer part of the log.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Bytes of the log ahead of the next entry.
    pub(super) fn next_before(&self) -> u64 {
        self.next_before
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.next_before.saturating_sub(self.first_before)
    }

    pub(super) fn is_empty(&self) -> bool {
        let nothing = self.vote.is_none() && self.committed.is_none() && self.purged.is_none();
        nothing && self.last().is_none() && self.damaged.is_none()
    }

    pub(super) fn cached(&self, index: u64) -> Option<&Cached> {
        self.cache
            .get(usize::try_from(index.checked_sub(self.cached_from())?).ok()?)
    }

    /// Where the next entry must be; `None` if any index will do.
    pub(super) fn expected(&self) -> Option<u64> {
        (self.last().is_some() || self.purged.is_some()).then_some(self.next)
    }

    /// Returns what to write: the records, and the bytes ahead of the first.
    pub(super) fn append(&mut self, records: &[LogRecord]) -> u64 {
        let before = self.next_before;
        if self.expected().is_none()
            && let Some(record) = records.first()
        {
            (self.first, self.next, self.written) = (record.index, record.index, record.index);
        }
        for record in records {
            assert_eq!(record.index, self.next, "log records are dense");
            self.cache.push_back(Cached {
                record: record.clone(),
                before: self.next_before,
            });
            self.cache_bytes += record.data.len();
            self.next_before += record.data.len() as u64;
            self.next += 1;
        }
        self.check();
        before
    }

    /// Keeps entries below `next`; `before` are the bytes ahead of it.
    pub(super) fn truncate(&mut self, next: u64, before: u64) {
        assert!(self.first <= next && next <= self.next, "truncate within the log");
        while self.next > next {
            if let Some(cached) = self.cache.pop_back() {
                self.cache_bytes -= cached.record.data.len();
            }
            self.next -= 1;
        }
        self.next_before = before;
        self.written = self.written.min(next);
        self.epoch += 1;
        self.check();
    }

    /// Drops entries through `through`; `before` are the bytes ahead of the entry that follows.
    pub(super) fn purge(&mut self, through: u64, id: Bytes, before: u64) {
        self.purged = Some((through, id));
        let first = through + 1;
        while self.cached_from() < first && self.pop_front() {}
        if first >= self.next {
            self.next = first;
            self.next_before = before;
            self.written = first;
            self.epoch += 1;
        }
        self.first = first;
        self.first_before = before;
        self.written = self.written.max(first);
        self.check();
    }

    pub(super) fn clear(&mut self) {
        *self = Mirror {
            epoch: self.epoch + 1,
            ..Mirror::default()
        };
    }

    /// The database now holds everything below `next`, as it was at `epoch`.
    pub(super) fn wrote(&mut self, epoch: u64, next: u64) {
        if epoch == self.epoch {
            self.written = self.written.max(next.min(self.next));
        }
    }

    /// Forgets the oldest cached entries that the database holds.
    pub(super) fn evict(&mut self, budget_bytes: usize) {
        while self.cache_bytes > budget_bytes && self.cached_from() < self.written && self.pop_front() {}
        self.check();
    }

    fn pop_front(&mut self) -> bool {
        let popped = self.cache.pop_front();
        self.cache_bytes -= popped.as_ref().map_or(0, |cached| cached.record.data.len());
        popped.is_some()
    }

    fn check(&self) {
        assert!(
            self.first <= self.next,
            "first {} after next {}",
            self.first,
            self.next
        );
        assert!(
            self.cached_from() <= self.written.max(self.first),
            "an entry is neither written nor cached"
        );
        assert!(
            self.written <= self.next,
            "written {} past next {}",
            self.written,
            self.next
        );
    }
}
