//! The newest revisions of one key space, bounded by bytes, without gaps.

use std::collections::VecDeque;
use std::sync::Arc;

use types::limits;

use super::event::Revision;

/// Recent revisions, ascending.
#[derive(Debug, Default)]
pub struct Ring {
    revisions: VecDeque<Arc<Revision>>,
    size_bytes: usize,
}

impl Ring {
    /// Adds the next revision and forgets the oldest ones beyond the limit (never the one just added).
    pub fn push(&mut self, revision: Arc<Revision>) {
        self.size_bytes += revision.size_bytes();
        self.revisions.push_back(revision);
        while self.size_bytes > limits::WATCH_RING_BYTES && self.revisions.len() > 1 {
            if let Some(oldest) = self.revisions.pop_front() {
                self.size_bytes -= oldest.size_bytes();
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.revisions.clear();
        self.size_bytes = 0;
    }

    /// The oldest revision it has.
    pub fn first(&self) -> Option<i64> {
        self.revisions.front().map(|r| r.revision)
    }

    /// The newest revision it has.
    pub fn last(&self) -> Option<i64> {
        self.revisions.back().map(|r| r.revision)
    }

    /// What it has from `from` on.
    pub fn since(&self, from: i64) -> impl Iterator<Item = &Arc<Revision>> {
        let skipped = self.revisions.partition_point(|r| r.revision < from);
        self.revisions.range(skipped..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::event::Coded;
    use machine::EventKind;
    use machine::command::KeyValue;

    #[test]
    fn bounded_and_contiguous() {
        let mut ring = Ring::default();
        for revision in 1..=100 {
            let value = vec![0u8; limits::WATCH_RING_BYTES / 10].into();
            let kv = KeyValue {
                key: "k".into(),
                value,
                mod_revision: revision,
                ..KeyValue::default()
            };
            let events = vec![Coded::new(EventKind::Put, &kv, None)];
            ring.push(Arc::new(Revision { revision, events }));
        }
        let kept: Vec<_> = ring.since(0).map(|r| r.revision).collect();
        assert_eq!(kept, (92..=100).collect::<Vec<_>>());
        assert_eq!(ring.since(99).count(), 2);
        assert_eq!(ring.first(), Some(92));
        ring.clear();
        assert_eq!(ring.since(0).count(), 0);
    }
}
