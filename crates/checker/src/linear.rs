//! Is there any order of the operations, each at one moment between its call and its return, in which every answer is
//! right? Wing and Gong's question, answered event by event (Lowe's just-in-time form): the judge keeps every state the
//! system may be in, together with which of the operations that are still open have already taken effect. When an
//! operation returns it must have: the ways in which it can have are tried, and what allows none of them is dropped.
//! When nothing is left, no order exists, and the operation that returned is the first that cannot be explained.
//!
//! An operation of unknown outcome is open from its call on and for ever: it may take effect at any time, or never.
//! The work grows with the number of operations open at once, not with the length of the history. Split histories of
//! independent keys ([`by_key`]), and keep those of one key short.
//!
//! Judged against brute force in its tests, and beside another checker, porcupine-rs, in `make second-opinion`. That one is
//! a workspace of its own, in `second-opinion/`: what porcupine-rs depends on (criterion, regex, rayon) is a minute of
//! building, and would change features of serde and regex-automata in test builds alone, so that most of the workspace
//! would be built twice.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::Verdict;
use crate::history::{Operation, Outcome, check_shape};

/// The object that the history should be one of, as if it did one thing at a time.
pub trait Model {
    /// What is asked.
    type Ask;
    /// What is answered.
    type Answer;
    /// What it is in.
    type State: Clone + Ord;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// The state after the operation; `None` if it would have answered otherwise. Without an answer nobody saw it.
    fn step(
        &self,
        state: &Self::State,
        ask: &Self::Ask,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;
}

/// Why no order exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impossible<S> {
    /// The operation whose answer cannot be explained, by its place in the history.
    pub operation: usize,
    /// An order of operations that explains all answers before it.
    pub prefix: Vec<usize>,
    /// The states the system may have been in when it returned.
    pub states: Vec<S>,
}

/// Operations that can be open at once.
pub const OPEN: usize = u128::BITS as usize;

/// The order in which operations took effect, the newest first; shared by all that went the same way.
type Path = Option<Rc<Link>>;

struct Link {
    operation: usize,
    before: Path,
}

fn after(path: &Path, operation: usize) -> Path {
    Some(Rc::new(Link {
        operation,
        before: path.clone(),
    }))
}

fn order(path: &Path) -> Vec<usize> {
    let mut order = Vec::new();
    let mut next = path.as_ref();
    while let Some(link) = next {
        order.push(link.operation);
        next = link.before.as_ref();
    }
    order.reverse();
    order
}

// Paths are long: taking one apart link by link must not take as many frames.
impl Drop for Link {
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(link) = next {
            match Rc::try_unwrap(link) {
                Ok(mut alone) => next = alone.before.take(),
                Err(_) => return,
            }
        }
    }
}

/// Which open operations have taken effect, by slot, and the state they led to.
type Possible<S> = BTreeMap<(u128, S), Path>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    Return,
}

/// Judges one history. Gives up, undecided, after `steps` steps of the model.
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Ask, M::Answer>],
    steps: u64,
) -> Verdict<Impossible<M::State>> {
    if let Err(malformed) = check_shape(history) {
        return malformed.into();
    }
    let mut search = Search {
        model,
        history,
        open: [None; OPEN],
        possible: Possible::from([((0, model.initial()), None)]),
        left: steps,
    };
    for (event, operation) in events(history) {
        let decided = match event {
            Event::Call => search.call(operation),
            Event::Return => search.returned(operation),
        };
        if let Some(verdict) = decided {
            return verdict;
        }
    }
    Verdict::Valid
}

/// Calls and returns in the order of time. Where they meet, calls come first: then more orders are allowed, none fewer.
fn events<A, R>(history: &[Operation<A, R>]) -> Vec<(Event, usize)> {
    let mut events = Vec::with_capacity(2 * history.len());
    for (at, operation) in history.iter().enumerate() {
        match operation.outcome {
            Outcome::Failed(_) => {}
            Outcome::Unknown(_) => events.push((operation.call_ns, Event::Call, at)),
            Outcome::Ok(_) => {
                events.push((operation.call_ns, Event::Call, at));
                events.push((operation.return_ns, Event::Return, at));
            }
        }
    }
    events.sort_unstable();
    events.into_iter().map(|(_, event, at)| (event, at)).collect()
}

struct Search<'h, M: Model> {
    model: &'h M,
    history: &'h [Operation<M::Ask, M::Answer>],
    open: [Option<usize>; OPEN],
    possible: Possible<M::State>,
    left: u64,
}

impl<M: Model> Search<'_, M> {
    fn call(&mut self, operation: usize) -> Option<Verdict<Impossible<M::State>>> {
        match self.open.iter().position(Option::is_none) {
            Some(slot) => {
                self.open[slot] = Some(operation);
                None
            }
            None => Some(Verdict::Unknown(format!(
                "more than {OPEN} operations are open at once"
            ))),
        }
    }

    fn returned(&mut self, operation: usize) -> Option<Verdict<Impossible<M::State>>> {
        let slot = self.open.iter().position(|open| *open == Some(operation));
        let slot = slot.expect("called before it returned, by its shape");
        let bit = 1u128 << slot;
        let mut met = BTreeSet::new();
        let mut next = Possible::new();
        let mut todo: Vec<((u128, M::State), Path)> = self
            .possible
            .iter()
            .map(|(key, path)| (key.clone(), path.clone()))
            .collect();
        while let Some(((done, state), path)) = todo.pop() {
            if done & bit != 0 {
                next.entry((done & !bit, state)).or_insert(path);
                continue;
            }
            if !met.insert((done, state.clone())) {
                continue;
            }
            for (other, open) in self.open.iter().enumerate() {
                let Some(open) = open.filter(|_| done & (1 << other) == 0) else {
                    continue;
                };
                if self.left == 0 {
                    return Some(Verdict::Unknown("too many orders to try".into()));
                }
                self.left -= 1;
                let asked = &self.history[open];
                if let Some(state) = self.model.step(&state, &asked.ask, asked.answer()) {
                    todo.push(((done | 1 << other, state), after(&path, open)));
                }
            }
        }
        if next.is_empty() {
            return Some(Verdict::Violated(self.impossible(operation)));
        }
        self.possible = next;
        self.open[slot] = None;
        None
    }

    fn impossible(&self, operation: usize) -> Impossible<M::State> {
        let longest = self.possible.values().map(order).max_by_key(Vec::len);
        let states: BTreeSet<_> = self.possible.keys().map(|(_, state)| state.clone()).collect();
        Impossible {
            operation,
            prefix: longest.unwrap_or_default(),
            states: states.into_iter().collect(),
        }
    }
}

/// The places of a history's operations, one list for each key.
pub fn by_key<A, R, K: Ord>(
    history: &[Operation<A, R>],
    mut key: impl FnMut(&A) -> K,
) -> BTreeMap<K, Vec<usize>> {
    let mut keys: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (at, operation) in history.iter().enumerate() {
        keys.entry(key(&operation.ask)).or_default().push(at);
    }
    keys
}

#[cfg(test)]
mod tests;
