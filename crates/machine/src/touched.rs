//! What a transaction would write: keys put, ranges deleted. Looked up in order, never one by one: a request of legal
//! size may nest tens of thousands of puts beside hundreds of deletes, and every replica checks it while it applies.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Keys put and ranges deleted.
#[derive(Debug, Clone)]
pub struct Touched<K> {
    puts: BTreeSet<K>,
    /// Begin, and end unless it is open; none is empty, and no two meet.
    deletes: BTreeMap<K, Option<K>>,
}

impl<K> Default for Touched<K> {
    fn default() -> Touched<K> {
        Touched {
            puts: BTreeSet::new(),
            deletes: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Touched<K> {
    /// Adds a key put.
    pub fn put(&mut self, key: K) {
        self.puts.insert(key);
    }

    /// Adds a deletion of `begin <= key < end`, or of all from `begin` on.
    pub fn delete(&mut self, mut begin: K, mut end: Option<K>) {
        if end.as_ref().is_some_and(|end| *end <= begin) {
            return;
        }
        if let Some((before, until)) = self.deletes.range(..=&begin).next_back()
            && until.as_ref().is_none_or(|until| *until >= begin)
        {
            begin = before.clone();
        }
        while let Some((met, _)) = self.deletes.range(&begin..).next() {
            if end.as_ref().is_some_and(|end| met > end) {
                break;
            }
            let met = met.clone();
            let until = self.deletes.remove(&met).expect("it was just met");
            end = end.zip(until).map(|(end, until)| end.max(until));
        }
        self.deletes.insert(begin, end);
    }

    /// Adds all of `other`.
    pub fn unite(&mut self, mut other: Touched<K>) {
        // The smaller goes into the larger, else deep nesting would move the same keys once a level.
        if self.puts.len() + self.deletes.len() < other.puts.len() + other.deletes.len() {
            std::mem::swap(self, &mut other);
        }
        self.puts.extend(other.puts);
        for (begin, end) in other.deletes {
            self.delete(begin, end);
        }
    }

    /// Whether `other` puts a key that is put or deleted here.
    pub fn is_met_by_puts_of(&self, other: &Touched<K>) -> bool {
        if !self.puts.is_disjoint(&other.puts) {
            return true;
        }
        if other.puts.len() <= self.deletes.len() {
            return other.puts.iter().any(|key| self.deletes_key(key));
        }
        self.deletes.iter().any(|(begin, end)| {
            let end = end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut met = other.puts.range((Bound::Included(begin), end));
            met.next().is_some()
        })
    }

    fn deletes_key(&self, key: &K) -> bool {
        let before = self.deletes.range(..=key).next_back();
        before.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    /// A key, and how often keys were compared.
    #[derive(Clone, Debug)]
    struct Counted<'c>(u32, &'c Cell<u64>);

    impl Ord for Counted<'_> {
        fn cmp(&self, other: &Self) -> Ordering {
            self.1.set(self.1.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted<'_> {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Counted<'_> {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }

    impl Eq for Counted<'_> {}

    #[test]
    fn many_keys_meet_many_ranges_in_few_comparisons() {
        let compared = Cell::new(0);
        let key = |n: u32| Counted(2 * n, &compared);
        let mut all = Touched::default();
        (0..75_000).for_each(|n| all.put(key(n)));
        for round in 0..200 {
            let mut other = Touched::default();
            for n in 0..500 {
                let begin = 2 * (n * 200 + round) + 1;
                other.delete(Counted(begin, &compared), Some(Counted(begin + 1, &compared)));
            }
            assert!(!all.is_met_by_puts_of(&other) && !other.is_met_by_puts_of(&all));
            all.unite(other);
        }
        assert!(compared.get() < 50_000_000, "{} comparisons", compared.get());
    }

    type Written = Vec<(u32, Option<u32>)>;

    fn of((puts, deletes): &(Vec<u32>, Written)) -> Touched<u32> {
        let mut touched = Touched::default();
        puts.iter().for_each(|key| touched.put(*key));
        let parts = deletes.iter().map(|(begin, end)| {
            let mut part = Touched::default();
            part.delete(*begin, *end);
            part
        });
        parts.for_each(|part| touched.unite(part));
        touched
    }

    fn written() -> impl Strategy<Value = (Vec<u32>, Written)> {
        let delete = (0u32..40, prop::option::weighted(0.9, 0u32..40));
        let few = prop::collection::vec(0u32..40, 0..5);
        (few, prop::collection::vec(delete, 0..5))
    }

    proptest! {
        #[test]
        fn ranges_hold_what_each_of_them_held(all in written(), others in written()) {
            let holds = |key: u32| all.1.iter().any(|(begin, end)| *begin <= key && end.is_none_or(|end| key < end));
            let touched = of(&all);
            (0..50).for_each(|key| assert_eq!(touched.deletes_key(&key), holds(key), "{key}"));
            let expected = others.0.iter().any(|key| all.0.contains(key) || holds(*key));
            prop_assert_eq!(touched.is_met_by_puts_of(&of(&others)), expected);
        }
    }
}
