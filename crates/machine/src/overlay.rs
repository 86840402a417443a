//! Reads through changes not yet committed. Each record's value in the view is read at most once. Of one that changes
//! only the hash is kept, which is what the state hash needs: a batch may remove far more than fits into memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::outcome::Change;
use crate::record::state::RecordHash;
use crate::view::{View, ViewError, Visit};

enum Entry {
    /// As in the view.
    Read(Option<Bytes>),
    /// The hash of the record in the view, and its newest value.
    Written { base: Option<u128>, now: Option<Bytes> },
}

impl Entry {
    fn now(&self) -> &Option<Bytes> {
        match self {
            Entry::Read(now) | Entry::Written { now, .. } => now,
        }
    }
}

/// A view with changes on top.
pub struct Overlay<'a> {
    view: &'a dyn View,
    entries: RefCell<BTreeMap<Bytes, Entry>>,
    hash: RefCell<RecordHash>,
}

impl<'a> Overlay<'a> {
    /// No changes yet.
    pub fn new(view: &'a dyn View) -> Overlay<'a> {
        Overlay {
            view,
            entries: RefCell::new(BTreeMap::new()),
            hash: RefCell::default(),
        }
    }

    /// The newest value under `key`.
    pub fn read(&self, key: &Bytes) -> Result<Option<Bytes>, ViewError> {
        match self.entries.borrow_mut().entry(key.clone()) {
            btree_map::Entry::Occupied(known) => Ok(known.get().now().clone()),
            btree_map::Entry::Vacant(place) => {
                let base = self.view.get(key)?;
                place.insert(Entry::Read(base.clone()));
                Ok(base)
            }
        }
    }

    /// The hash of a record, for [`Overlay::remove_hashed`].
    pub fn hash_of(&self, key: &[u8], value: &[u8]) -> u128 {
        self.hash.borrow_mut().of(key, value)
    }

    /// Writes a record, whatever was there.
    pub fn put(&self, key: Bytes, value: Bytes) -> Result<(), ViewError> {
        self.change(key, Some(value), |key| self.hash_in_view(key))
    }

    /// Writes a record known to be absent, which saves reading it.
    pub fn insert(&self, key: Bytes, value: Bytes) -> Result<(), ViewError> {
        debug_assert!(self.get(&key)?.is_none(), "inserted record {key:02x?} exists");
        self.change(key, Some(value), |_| Ok(None))
    }

    /// Removes a record, whatever was there.
    pub fn remove(&self, key: Bytes) -> Result<(), ViewError> {
        self.change(key, None, |key| self.hash_in_view(key))
    }

    /// Removes a record whose newest value the caller has read.
    pub fn remove_known(&self, key: Bytes, value: Bytes) -> Result<(), ViewError> {
        self.change(key, None, |key| Ok(Some(self.hash_of(key, &value))))
    }

    /// Removes a record whose newest value the caller has read and hashed.
    pub fn remove_hashed(&self, key: Bytes, hash: u128) -> Result<(), ViewError> {
        self.change(key, None, |_| Ok(Some(hash)))
    }

    fn hash_in_view(&self, key: &Bytes) -> Result<Option<u128>, ViewError> {
        let base = self.view.get(key)?;
        Ok(base.map(|value| self.hash_of(key, &value)))
    }

    fn change(
        &self,
        key: Bytes,
        now: Option<Bytes>,
        base: impl FnOnce(&Bytes) -> Result<Option<u128>, ViewError>,
    ) -> Result<(), ViewError> {
        let mut entries = self.entries.borrow_mut();
        let mut place = match entries.entry(key) {
            btree_map::Entry::Occupied(known) => known,
            btree_map::Entry::Vacant(place) => {
                let base = base(place.key())?;
                place.insert(Entry::Written { base, now });
                return Ok(());
            }
        };
        let base = match place.get() {
            Entry::Read(base) => base.as_ref().map(|value| self.hash_of(place.key(), value)),
            Entry::Written { base, .. } => *base,
        };
        *place.get_mut() = Entry::Written { base, now };
        Ok(())
    }

    /// Bytes of all values held.
    #[cfg(test)]
    pub(crate) fn value_bytes(&self) -> usize {
        let entries = self.entries.borrow();
        entries
            .values()
            .map(|entry| entry.now().as_ref().map_or(0, Bytes::len))
            .sum()
    }

    /// The changes, in key order, and the state hash moved along from `sum`.
    pub fn finish(self, mut sum: u128) -> (Vec<Change>, u128) {
        let mut hash = self.hash.into_inner();
        let mut changes = Vec::new();
        for (key, entry) in self.entries.into_inner() {
            let Entry::Written { base, now } = entry else {
                continue;
            };
            let new = now.as_ref().map(|now| hash.of(&key, now));
            if base == new {
                continue;
            }
            sum = sum.wrapping_sub(base.unwrap_or(0)).wrapping_add(new.unwrap_or(0));
            changes.push(Change { key, value: now });
        }
        (changes, sum)
    }

    /// The first written record of a range, or the last.
    fn pending(&self, range: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool) -> Option<Pending> {
        let entries = self.entries.borrow();
        let mut written = entries
            .range::<[u8], _>(range)
            .filter_map(|(key, entry)| match entry {
                Entry::Written { now, .. } => Some((key, now)),
                Entry::Read(_) => None,
            });
        let next = if reverse {
            written.next_back()
        } else {
            written.next()
        };
        next.map(|(key, now)| (key.clone(), now.clone()))
    }
}

/// A written record and its newest value.
type Pending = (Bytes, Option<Bytes>);

impl View for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        if let Some(entry) = self.entries.borrow().get(key) {
            return Ok(entry.now().clone());
        }
        self.view.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        if from >= to {
            return Ok(());
        }
        // One record at a time, so that `visit` may read through this overlay; it must not write.
        let after = |last: &Bytes| {
            if reverse {
                self.pending((Bound::Included(from), Bound::Excluded(last)), true)
            } else {
                self.pending((Bound::Excluded(last), Bound::Excluded(to)), false)
            }
        };
        let mut pending = self.pending((Bound::Included(from), Bound::Excluded(to)), reverse);
        let mut broken = false;
        self.view.scan(from, to, reverse, &mut |key, value| {
            while let Some((first, now)) = pending.take() {
                let order = if reverse {
                    key.cmp(&first)
                } else {
                    first.as_ref().cmp(key)
                };
                if order.is_gt() {
                    pending = Some((first, now));
                    break;
                }
                pending = after(&first);
                if let Some(now) = &now
                    && visit(&first, now).is_break()
                {
                    broken = true;
                    return ControlFlow::Break(());
                }
                if order.is_eq() {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            broken = flow.is_break();
            flow
        })?;
        while let Some((key, now)) = pending.take().filter(|_| !broken) {
            broken = now.as_ref().is_some_and(|now| visit(&key, now).is_break());
            pending = after(&key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemView;

    fn keys(view: &dyn View, from: &[u8], to: &[u8], reverse: bool, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut seen = Vec::new();
        view.scan(from, to, reverse, &mut |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            if seen.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .expect("memory never fails");
        seen
    }

    #[test]
    fn scans_as_if_committed() {
        let mut base = MemView::default();
        for key in ["b", "d", "f", "h"] {
            base.put(key.into(), "old".into());
        }
        let overlay = Overlay::new(&base);
        for (key, value) in [
            ("a", Some("1")),
            ("d", Some("2")),
            ("f", None),
            ("g", Some("3")),
            ("i", Some("4")),
        ] {
            match value {
                Some(value) => overlay.put(key.into(), value.into()).expect("memory never fails"),
                None => overlay.remove(key.into()).expect("memory never fails"),
            }
        }
        let mut committed = base.clone();
        let (changes, sum) = {
            let again = Overlay::new(&base);
            for change in [
                ("a", Some("1")),
                ("d", Some("2")),
                ("f", None),
                ("g", Some("3")),
                ("i", Some("4")),
            ] {
                again
                    .change(change.0.into(), change.1.map(Bytes::from), |key| {
                        again.hash_in_view(key)
                    })
                    .expect("memory");
            }
            again.finish(crate::record::state::recompute(&base).expect("memory"))
        };
        committed.commit(&changes);
        assert_eq!(sum, crate::record::state::recompute(&committed).expect("memory"));
        for reverse in [false, true] {
            for limit in 1..9 {
                for (from, to) in [("a", "z"), ("b", "h"), ("c", "d"), ("d", "c"), ("e", "g")] {
                    let (from, to) = (from.as_bytes(), to.as_bytes());
                    assert_eq!(
                        keys(&overlay, from, to, reverse, limit),
                        keys(&committed, from, to, reverse, limit)
                    );
                }
            }
        }
    }
}
