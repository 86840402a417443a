//! Which groups of watches an event's key concerns: by exact key, by prefix, and by other ranges.
//! Cost per key: one look-up, one per distinct length of a watched prefix, one comparison per other range.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// What a watch watches. As in etcd: no `range_end` is one key, `"\0"` is everything from `key` on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// First key.
    pub key: Bytes,
    /// Exclusive end.
    pub range_end: Bytes,
}

impl Selector {
    /// Everything in a namespace.
    pub fn everything() -> Selector {
        Selector {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
        }
    }

    /// Whether it can match any key at all.
    pub fn is_empty(&self) -> bool {
        !self.range_end.is_empty() && self.range_end.as_ref() != b"\0" && self.key >= self.range_end
    }

    /// Whether `key` is in it.
    pub fn matches(&self, key: &[u8]) -> bool {
        match self.range_end.as_ref() {
            [] => key == self.key.as_ref(),
            [0] => key >= self.key.as_ref(),
            end => key >= self.key.as_ref() && key < end,
        }
    }

    fn is_prefix(&self) -> bool {
        let mut end = self.key.to_vec();
        match end.last_mut() {
            Some(last) if *last < u8::MAX => *last += 1,
            Some(_) | None => return false,
        }
        self.range_end.as_ref() == end.as_slice()
    }
}

/// Number of a group of watches with the same selector.
pub type GroupId = u64;

/// Selectors and their groups.
#[derive(Debug, Default)]
pub struct Index {
    keys: HashMap<Bytes, GroupId>,
    prefixes: BTreeMap<usize, HashMap<Bytes, GroupId>>,
    ranges: BTreeMap<Selector, GroupId>,
}

impl Index {
    /// Adds a selector that is not in it.
    pub fn insert(&mut self, selector: &Selector, group: GroupId) {
        if selector.range_end.is_empty() {
            self.keys.insert(selector.key.clone(), group);
        } else if selector.is_prefix() {
            let same_length = self.prefixes.entry(selector.key.len()).or_default();
            same_length.insert(selector.key.clone(), group);
        } else {
            self.ranges.insert(selector.clone(), group);
        }
    }

    /// Removes a selector.
    pub fn remove(&mut self, selector: &Selector) {
        if selector.range_end.is_empty() {
            self.keys.remove(&selector.key);
        } else if selector.is_prefix() {
            if let Some(same_length) = self.prefixes.get_mut(&selector.key.len()) {
                same_length.remove(&selector.key);
                if same_length.is_empty() {
                    self.prefixes.remove(&selector.key.len());
                }
            }
        } else {
            self.ranges.remove(selector);
        }
    }

    /// Calls `visit` for each group that `key` concerns.
    pub fn visit(&self, key: &[u8], mut visit: impl FnMut(GroupId)) {
        if let Some(group) = self.keys.get(key) {
            visit(*group);
        }
        for (len, same_length) in self.prefixes.range(..=key.len()) {
            if let Some(group) = same_length.get(&key[..*len]) {
                visit(*group);
            }
        }
        for (selector, group) in &self.ranges {
            if selector.key.as_ref() > key {
                break;
            }
            if selector.matches(key) {
                visit(*group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn selector(key: &str, range_end: &str) -> Selector {
        Selector {
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        }
    }

    #[test]
    fn the_index_finds_what_comparing_finds() {
        let words = ["a", "aa", "ab", "abc", "b", "ba", "c", "z"];
        let mut selectors = BTreeSet::new();
        for key in words {
            for end in ["", "\0", "b", "ab", "ac", "c", "zz", "{"] {
                let candidate = selector(key, end);
                if !candidate.is_empty() {
                    selectors.insert(candidate);
                }
            }
        }
        let selectors: Vec<_> = selectors.into_iter().collect();
        let mut index = Index::default();
        for (n, selector) in selectors.iter().enumerate() {
            index.insert(selector, n as u64);
        }
        for removed in 0..=selectors.len() {
            for key in words.iter().chain(&["", "abcd", "zzz", "\0"]) {
                let mut found = BTreeSet::new();
                index.visit(key.as_bytes(), |group| assert!(found.insert(group), "twice"));
                let expected: BTreeSet<u64> = (removed..selectors.len())
                    .filter(|n| selectors[*n].matches(key.as_bytes()))
                    .map(|n| n as u64)
                    .collect();
                assert_eq!(found, expected, "{key}");
            }
            if let Some(selector) = selectors.get(removed) {
                index.remove(selector);
            }
        }
    }

    #[test]
    fn empty_ranges_are_known() {
        assert!(selector("b", "a").is_empty() && selector("b", "b").is_empty());
        assert!(!selector("b", "").is_empty() && !selector("b", "\0").is_empty());
    }
}
