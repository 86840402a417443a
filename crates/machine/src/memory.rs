//! A view in memory, for tests of every crate and for tools that work on a copy. Not the simulator's store: that
//! one is in `storage` and models crashes.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::outcome::Change;
use crate::view::{View, ViewError, Visit};

/// Ordered records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemView {
    records: BTreeMap<Bytes, Bytes>,
}

impl MemView {
    /// Applies changes in order.
    pub fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            match &change.value {
                Some(value) => self.records.insert(change.key.clone(), value.clone()),
                None => self.records.remove(&change.key),
            };
        }
    }

    /// Writes one record.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.records.insert(key, value);
    }

    /// Removes one record.
    pub fn remove(&mut self, key: &[u8]) {
        self.records.remove(key);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All records, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.records.iter()
    }
}

impl View for MemView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        Ok(self.records.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        if from >= to {
            return Ok(());
        }
        let range = self
            .records
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let mut see = |(key, value): (&Bytes, &Bytes)| -> ControlFlow<()> { visit(key, value) };
        let _ = if reverse {
            range.rev().try_for_each(&mut see)
        } else {
            { range }.try_for_each(&mut see)
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_written_and_not_removed() {
        let mut view = MemView::default();
        assert!(view.is_empty());
        let change = |key: &'static str, value: Option<&'static str>| Change {
            key: key.into(),
            value: value.map(Bytes::from),
        };
        view.commit(&[change("b", Some("1")), change("a", Some("2")), change("b", None)]);
        view.put("c".into(), "3".into());
        assert!(!view.is_empty());
        let held: Vec<_> = view.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        assert_eq!(held, [(&b"a"[..], &b"2"[..]), (b"c", b"3")]);
        view.remove(b"a");
        assert_eq!((view.len(), view.get(b"a")), (1, Ok(None)));
    }
}
