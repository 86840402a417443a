//! What `revision` promises, the plainest way: is there any order of the operations, with any of the unknown ones left
//! out, in which a store of a few lines gives every answer, every revision and the whole log? Shares no code with the
//! judge.

use std::collections::BTreeMap;

use checker::revision::{Answer, Ask, Body, Compare, Event, Operation, Pair};

/// What happened, revision by revision.
pub type Log = BTreeMap<i64, Vec<Event>>;

/// What is true of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// Some order explains it.
    Right,
    /// None does.
    Wrong,
    /// No client could have seen it, or the log leaves something out: there is nothing to judge.
    NoEvidence,
}

/// The pairs as of each revision, from 1 on, in the order of keys.
#[derive(Debug, Clone)]
pub struct World(Vec<Vec<Pair>>);

impl World {
    /// Empty, at revision 1.
    pub fn new() -> World {
        World(vec![Vec::new()])
    }

    /// The revision it is at.
    pub fn revision(&self) -> i64 {
        self.0.len() as i64
    }

    /// The same at an earlier revision.
    pub fn back_to(&self, revision: i64) -> World {
        World(self.0[..revision as usize].to_vec())
    }

    /// Does one thing. Returns what changed, and the answer; `None` if it asks for the future.
    pub fn step(&mut self, ask: &Ask) -> Option<(Vec<Event>, Answer)> {
        let now = self.revision();
        if let Ask::Range { revision: past, .. } = ask
            && *past > 0
        {
            let mut pairs = self.0.get(*past as usize - 1)?.clone();
            let body = run(&mut pairs, ask, now, &mut Vec::new());
            return Some((Vec::new(), Answer { revision: now, body }));
        }
        let (mut pairs, mut events) = (self.0[self.0.len() - 1].clone(), Vec::new());
        let body = run(&mut pairs, ask, now + 1, &mut events);
        if !events.is_empty() {
            self.0.push(pairs);
        }
        let revision = self.revision();
        Some((events, Answer { revision, body }))
    }

    fn undo(&mut self, revision: i64) {
        self.0.truncate(revision as usize);
    }
}

fn inside(key: &str, end: Option<&String>, pair: &Pair) -> bool {
    match end {
        None => pair.key == key,
        Some(end) => pair.key.as_str() >= key && pair.key < *end,
    }
}

fn holds(pairs: &[Pair], compare: &Compare) -> bool {
    let of = |wanted: &String| pairs.iter().find(|pair| pair.key == *wanted);
    match compare {
        Compare::Value { key, value } => of(key).map(|pair| &pair.value) == Some(value),
        Compare::Modified { key, revision } => of(key).map_or(0, |pair| pair.modified) == *revision,
        Compare::Version { key, version } => of(key).map_or(0, |pair| pair.version) == *version,
    }
}

fn run(pairs: &mut Vec<Pair>, ask: &Ask, revision: i64, events: &mut Vec<Event>) -> Body {
    match ask {
        Ask::Range { key, end, .. } => {
            let found = pairs.iter().filter(|pair| inside(key, end.as_ref(), pair));
            Body::Range(found.cloned().collect())
        }
        Ask::Put { key, value, lease } => {
            let old = pairs.iter().position(|pair| pair.key == *key);
            let old = old.map(|at| pairs.remove(at));
            let (created, version) = match &old {
                Some(old) => (old.created, old.version + 1),
                None => (revision, 1),
            };
            let new = Pair {
                key: key.clone(),
                value: value.clone(),
                created,
                modified: revision,
                version,
                lease: *lease,
            };
            events.push(Event::Put(new.clone()));
            pairs.push(new);
            pairs.sort();
            Body::Put(old)
        }
        Ask::Delete { key, end } => {
            let (gone, left) = std::mem::take(pairs)
                .into_iter()
                .partition(|pair| inside(key, end.as_ref(), pair));
            *pairs = left;
            let gone: Vec<Pair> = gone;
            events.extend(gone.iter().map(|pair| Event::Delete(pair.key.clone())));
            Body::Deleted(gone)
        }
        Ask::Txn {
            compare,
            success,
            failure,
        } => {
            let succeeded = compare.iter().all(|compare| holds(pairs, compare));
            let mut responses = Vec::new();
            for ask in if succeeded { success } else { failure } {
                responses.push(run(pairs, ask, revision, events));
            }
            Body::Txn { succeeded, responses }
        }
    }
}

/// Whether one operation came to its client's mind before the other.
fn earlier(history: &[Operation], one: usize, other: usize) -> bool {
    history[one].client == history[other].client
        && (history[one].call_ns, one) < (history[other].call_ns, other)
}

fn shaped(history: &[Operation]) -> bool {
    let waits = |one: usize, other: usize| {
        !earlier(history, one, other)
            || !history[one].is_unknown() && history[one].return_ns <= history[other].call_ns
    };
    let all = 0..history.len();
    all.clone().all(|one| all.clone().all(|other| waits(one, other)))
        && history
            .iter()
            .all(|operation| operation.call_ns <= operation.return_ns)
}

/// Who must come before an operation: whoever had an answer before it began. A serializable read waits for nobody.
fn waits_for(history: &[Operation], other: usize) -> u32 {
    let alone = matches!(
        history[other].ask,
        Ask::Range {
            serializable: true,
            ..
        }
    );
    let mut before = 0;
    for (one, operation) in history.iter().enumerate() {
        let over = operation.return_ns < history[other].call_ns || earlier(history, one, other);
        if operation.answer().is_some() && over && !alone {
            before |= 1 << one;
        }
    }
    before
}

struct Search<'h> {
    history: &'h [Operation],
    log: &'h Log,
    waits_for: Vec<u32>,
    answered: u32,
}

impl Search<'_> {
    /// Whether the rest can be done, in any order.
    fn explains(&self, world: &mut World, done: u32) -> bool {
        let now = world.revision();
        if done & self.answered == self.answered && now == self.log.len() as i64 + 1 {
            return true;
        }
        for (at, operation) in self.history.iter().enumerate() {
            let waits = self.waits_for[at] & !done != 0;
            if done & 1 << at != 0 || waits || operation.is_failed() {
                continue;
            }
            let Some((events, right)) = world.step(&operation.ask) else {
                continue;
            };
            let as_logged = events.is_empty() || self.log.get(&(now + 1)) == Some(&events);
            let as_answered = operation.answer().is_none_or(|answer| *answer == right);
            if as_logged && as_answered && self.explains(world, done | 1 << at) {
                return true;
            }
            world.undo(now);
        }
        false
    }
}

/// Tries everything.
pub fn judge(history: &[Operation], log: &Log) -> Truth {
    let told =
        log.keys().copied().eq(2..2 + log.len() as i64) && log.values().all(|events| !events.is_empty());
    if !shaped(history) || !told {
        return Truth::NoEvidence;
    }
    let answered = history.iter().enumerate();
    let answered = answered.filter(|(_, operation)| operation.answer().is_some());
    let search = Search {
        history,
        log,
        waits_for: (0..history.len()).map(|at| waits_for(history, at)).collect(),
        answered: answered.map(|(at, _)| 1 << at).sum(),
    };
    match search.explains(&mut World::new(), 0) {
        true => Truth::Right,
        false => Truth::Wrong,
    }
}
