//! Records that apply reads again and again (heads of busy keys, numbers of busy key spaces), as they were last
//! committed. A look into a memtable costs microseconds, one in here a fraction of one.
//!
//! Invariant: what is here equals what the database has. Readers fill it and commits change it under one lock.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lru::LruCache;
use machine::{Change, ViewError};
use parking_lot::Mutex;

/// Larger records are not kept.
const RECORD_BYTES: usize = 4 << 10;
/// What one record takes beside its key and value, about.
const OVERHEAD_BYTES: usize = 160;

/// What all partitions of a node may keep together.
pub(super) struct Budget {
    bytes: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget {
            bytes,
            used: AtomicUsize::new(0),
        }
    }

    fn is_spent(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.bytes
    }
}

/// The records of one generation.
pub(super) struct Hot {
    records: Mutex<LruCache<Bytes, Bytes>>,
    budget: Arc<Budget>,
}

fn weight(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD_BYTES
}

impl Hot {
    pub(super) fn new(budget: Arc<Budget>) -> Hot {
        Hot {
            records: Mutex::new(LruCache::unbounded()),
            budget,
        }
    }

    /// The record, from here or by `load`.
    pub(super) fn read(
        &self,
        key: &[u8],
        load: impl FnOnce() -> Result<Option<Bytes>, ViewError>,
    ) -> Result<Option<Bytes>, ViewError> {
        let mut records = self.records.lock();
        if let Some(value) = records.get(key) {
            return Ok(Some(value.clone()));
        }
        let loaded = load()?;
        if let Some(value) = &loaded {
            self.keep(&mut records, Bytes::copy_from_slice(key), value.clone());
        }
        Ok(loaded)
    }

    /// Writes changes by `write`; what is here follows, unless that failed.
    pub(super) fn commit(
        &self,
        changes: &[Change],
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let mut records = self.records.lock();
        write()?;
        for change in changes {
            let Some(known) = records.peek_mut(&change.key) else {
                continue;
            };
            match &change.value {
                Some(value) if value.len() <= RECORD_BYTES => {
                    self.budget.used.fetch_add(value.len(), Ordering::Relaxed);
                    self.budget.used.fetch_sub(known.len(), Ordering::Relaxed);
                    *known = value.clone();
                }
                Some(_) | None => self.forget(records.pop_entry(&change.key)),
            }
        }
        Ok(())
    }

    fn keep(&self, records: &mut LruCache<Bytes, Bytes>, key: Bytes, value: Bytes) {
        if value.len() > RECORD_BYTES {
            return;
        }
        while self.budget.is_spent() {
            match records.pop_lru() {
                Some(oldest) => self.forget(Some(oldest)),
                // Others have it all.
                None => return,
            }
        }
        self.budget
            .used
            .fetch_add(weight(&key, &value), Ordering::Relaxed);
        records.put(key, value);
    }

    fn forget(&self, record: Option<(Bytes, Bytes)>) {
        if let Some((key, value)) = record {
            self.budget
                .used
                .fetch_sub(weight(&key, &value), Ordering::Relaxed);
        }
    }
}

impl Drop for Hot {
    fn drop(&mut self) {
        let mut records = self.records.lock();
        while let Some(oldest) = records.pop_lru() {
            self.forget(Some(oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &'static str, value: Option<&'static str>) -> Change {
        Change {
            key: Bytes::from(key),
            value: value.map(Bytes::from),
        }
    }

    fn load(value: &'static str) -> impl FnOnce() -> Result<Option<Bytes>, ViewError> {
        move || Ok(Some(Bytes::from(value)))
    }

    fn absent() -> Result<Option<Bytes>, ViewError> {
        Ok(None)
    }

    #[test]
    fn follows_what_is_committed_and_nothing_else() {
        let hot = Hot::new(Arc::new(Budget::new(1 << 20)));
        let read = |key: &str| hot.read(key.as_bytes(), absent).expect("no failure");
        assert_eq!(hot.read(b"a", load("1")), Ok(Some("1".into())));
        assert_eq!(read("a"), Some("1".into()));
        hot.commit(&[change("a", Some("2")), change("b", Some("1"))], || Ok(()))
            .expect("written");
        assert_eq!(read("a"), Some("2".into()));
        assert_eq!(read("b"), None, "only what was read is kept");
        let failed = hot.commit(&[change("a", Some("3"))], || Err(io::Error::other("disk")));
        assert!(failed.is_err());
        assert_eq!(read("a"), Some("2".into()), "what failed is not there");
        hot.commit(&[change("a", None)], || Ok(())).expect("written");
        assert_eq!(read("a"), None);
        assert_eq!(hot.budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn stays_within_the_budget_of_all() {
        let budget = Arc::new(Budget::new(10 * weight(b"k00", b"v")));
        let (one, two) = (Hot::new(budget.clone()), Hot::new(budget.clone()));
        for n in 0..50 {
            let key = format!("k{n:02}");
            assert_eq!(one.read(key.as_bytes(), load("v")), Ok(Some("v".into())));
        }
        assert_eq!(one.records.lock().len(), 10);
        assert_eq!(two.read(b"k00", load("v")), Ok(Some("v".into())));
        assert_eq!(two.records.lock().len(), 0, "the budget is spent elsewhere");
        drop(one);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        assert_eq!(two.read(b"k00", load("v")), Ok(Some("v".into())));
        assert_eq!(two.records.lock().len(), 1);
    }
}
