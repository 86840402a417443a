//! The store as it should be, small enough to be believed.

use std::collections::BTreeMap;

use super::{Ask, Body, Compare, Event, Pair};

/// All pairs as of one revision.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pairs: BTreeMap<String, Pair>,
}

impl Store {
    /// What the log says happened next.
    pub(super) fn apply(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Put(pair) => drop(self.pairs.insert(pair.key.clone(), pair.clone())),
                Event::Delete(key) => drop(self.pairs.remove(key)),
            }
        }
    }
}

/// What an operation would change at `revision`, and what it should answer.
pub(super) fn changes(store: &Store, ask: &Ask, revision: i64) -> (Vec<Event>, Body) {
    let mut working = Working {
        store,
        changed: BTreeMap::new(),
        events: Vec::new(),
        revision,
    };
    let body = working.run(ask);
    (working.events, body)
}

/// Whether the answer says that something was changed.
pub(super) fn executed(ask: &Ask, body: &Body) -> bool {
    match (ask, body) {
        (Ask::Put { .. }, _) => true,
        (Ask::Delete { .. }, Body::Deleted(removed)) => !removed.is_empty(),
        (Ask::Txn { success, failure, .. }, Body::Txn { succeeded, responses }) => {
            let taken = if *succeeded { success } else { failure };
            taken.iter().zip(responses).any(|(ask, body)| executed(ask, body))
        }
        _ => false,
    }
}

/// Whether an operation could be what an event comes from, whatever was there before. Spares [`changes`] for most.
pub(super) fn may_make(ask: &Ask, event: &Event) -> bool {
    match (ask, event) {
        (Ask::Range { .. }, _) => false,
        (Ask::Put { key, value, .. }, Event::Put(pair)) => *key == pair.key && *value == pair.value,
        (Ask::Delete { key, end }, Event::Delete(gone)) => match end {
            None => key == gone,
            Some(end) => key <= gone && gone < end,
        },
        (Ask::Put { .. }, Event::Delete(_)) | (Ask::Delete { .. }, Event::Put(_)) => false,
        (Ask::Txn { success, failure, .. }, _) => {
            success.iter().chain(failure).any(|ask| may_make(ask, event))
        }
    }
}

/// A store while one operation runs: what it changed lies over what was there.
struct Working<'s> {
    store: &'s Store,
    changed: BTreeMap<String, Option<Pair>>,
    events: Vec<Event>,
    revision: i64,
}

impl Working<'_> {
    fn pair(&self, key: &str) -> Option<&Pair> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.store.pairs.get(key),
        }
    }

    fn range(&self, key: &str, end: Option<&String>) -> Vec<Pair> {
        let Some(end) = end else {
            return self.pair(key).cloned().into_iter().collect();
        };
        if end.as_str() <= key {
            return Vec::new();
        }
        let range = || key.to_owned()..end.clone();
        let mut found: BTreeMap<&String, &Pair> = self.store.pairs.range(range()).collect();
        for (key, changed) in self.changed.range(range()) {
            match changed {
                Some(pair) => found.insert(key, pair),
                None => found.remove(key),
            };
        }
        found.into_values().cloned().collect()
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Value { key, value } => self.pair(key).is_some_and(|pair| pair.value == *value),
            Compare::Modified { key, revision } => {
                self.pair(key).map_or(0, |pair| pair.modified) == *revision
            }
            Compare::Version { key, version } => self.pair(key).map_or(0, |pair| pair.version) == *version,
        }
    }

    fn change(&mut self, event: Event) {
        match &event {
            Event::Put(pair) => self.changed.insert(pair.key.clone(), Some(pair.clone())),
            Event::Delete(key) => self.changed.insert(key.clone(), None),
        };
        self.events.push(event);
    }

    fn run(&mut self, ask: &Ask) -> Body {
        match ask {
            Ask::Range { key, end, .. } => Body::Range(self.range(key, end.as_ref())),
            Ask::Put { key, value, lease } => {
                let before = self.pair(key).cloned();
                self.change(Event::Put(Pair {
                    key: key.clone(),
                    value: value.clone(),
                    created: before.as_ref().map_or(self.revision, |before| before.created),
                    modified: self.revision,
                    version: before.as_ref().map_or(0, |before| before.version) + 1,
                    lease: *lease,
                }));
                Body::Put(before)
            }
            Ask::Delete { key, end } => {
                let removed = self.range(key, end.as_ref());
                for pair in &removed {
                    self.change(Event::Delete(pair.key.clone()));
                }
                Body::Deleted(removed)
            }
            Ask::Txn {
                compare,
                success,
                failure,
            } => {
                let succeeded = compare.iter().all(|compare| self.holds(compare));
                let taken = if succeeded { success } else { failure };
                Body::Txn {
                    succeeded,
                    responses: taken.iter().map(|ask| self.run(ask)).collect(),
                }
            }
        }
    }
}
