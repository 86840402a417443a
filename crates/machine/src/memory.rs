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
