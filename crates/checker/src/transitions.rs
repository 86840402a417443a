//! The states of things that live: services, instances, rollouts, operations. Whoever looks may miss states in between,
//! and sees what was so at some moment between the call and the return of the look. No illegal way must ever be visible:
//! from what was seen to what was seen later leads a way in the table of transitions, as short as time allows.
//!
//! What shows more than a state shows a version with it, raised by each change: then one step of the version is one
//! transition, and equal versions are equal states. Nobody who looks later sees less.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history::{Operation, check_shape};

/// What may follow what. A state that stands nowhere is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<S> {
    initial: BTreeSet<S>,
    next: BTreeMap<S, BTreeSet<S>>,
}

impl<S: Copy + Ord> Table<S> {
    /// `initial`: what a thing may begin in. `next`: from each state, those that may follow at once. To stay is no
    /// transition.
    pub fn new(initial: &[S], next: &[(S, &[S])]) -> Table<S> {
        let mut table = Table {
            initial: initial.iter().copied().collect(),
            next: BTreeMap::new(),
        };
        for state in initial {
            table.next.entry(*state).or_default();
        }
        for (from, to) in next {
            for state in *to {
                table.next.entry(*state).or_default();
            }
            table.next.entry(*from).or_default().extend(*to);
        }
        table
    }

    /// Whether there is such a state.
    pub fn is_state(&self, state: S) -> bool {
        self.next.contains_key(&state)
    }

    /// Whether nothing follows it.
    pub fn is_final(&self, state: S) -> bool {
        self.next.get(&state).is_some_and(BTreeSet::is_empty)
    }

    /// Whether a final state can be reached.
    fn ends(&self, from: S) -> bool {
        let from = BTreeSet::from([from]);
        let mut states = self.next.keys().copied();
        states.any(|state| self.is_final(state) && self.distance(&from, state).is_some())
    }

    /// Whether exactly `steps` transitions lead from one state to the other.
    fn leads_in(&self, from: S, to: S, steps: u64) -> bool {
        let mut reached = BTreeSet::from([from]);
        let mut met = BTreeMap::new();
        let mut left = steps;
        while left > 0 {
            // What repeats itself is not walked again and again, however many steps there are.
            if let Some(before) = met.insert(reached.clone(), left) {
                left %= before - left;
                met.clear();
                if left == 0 {
                    break;
                }
            }
            reached = reached
                .iter()
                .flat_map(|state| &self.next[state])
                .copied()
                .collect();
            left -= 1;
        }
        reached.contains(&to)
    }

    /// How many transitions it takes at least from any of `from`; `None` if no way leads there.
    fn distance(&self, from: &BTreeSet<S>, to: S) -> Option<u64> {
        let mut todo: VecDeque<(S, u64)> = from.iter().map(|state| (*state, 0)).collect();
        let mut met = from.clone();
        while let Some((state, steps)) = todo.pop_front() {
            if state == to {
                return Some(steps);
            }
            for next in self.next.get(&state).into_iter().flatten() {
                if met.insert(*next) {
                    todo.push_back((*next, steps + 1));
                }
            }
        }
        None
    }
}

/// What a look at one thing showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen<S> {
    /// Its state.
    pub state: S,
    /// Raised by one with each transition, 1 in the first state; 0 if it is not told.
    pub version: u64,
}

/// Two looks that cannot both be, by their places in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The later look.
    pub operation: usize,
    /// The earlier one; `None` if the later cannot be by itself.
    pub before: Option<usize>,
    /// What is wrong.
    pub text: String,
}

type Op<S> = Operation<(), Option<Seen<S>>>;
type Look<'h, S> = (usize, &'h Op<S>, Seen<S>);

/// Judges all looks at one thing. An answer without a state says that there is no such thing: not yet, or no more. It ends
/// in a final state, and once it was missed it does not come back: identities are not given twice.
pub fn check<S: Copy + Ord + Debug>(table: &Table<S>, history: &[Op<S>]) -> Verdict<Vec<Finding>> {
    if let Err(malformed) = check_shape(history) {
        return malformed.into();
    }
    let mut looks: Vec<Look<'_, S>> = Vec::new();
    let mut absent = Vec::new();
    let mut findings = Vec::new();
    for (at, operation) in history.iter().enumerate() {
        match operation.answer() {
            Some(Some(seen)) => {
                if let Some(text) = alone(table, *seen) {
                    findings.push(finding(at, None, text));
                } else {
                    looks.push((at, operation, *seen));
                }
            }
            Some(None) => absent.push((at, operation)),
            None => {}
        }
    }
    findings.extend(versions(table, &looks));
    findings.extend(in_time(table, &looks));
    findings.extend(gone(table, &looks, &absent));
    findings.sort_by_key(|finding| (finding.operation, finding.before));
    findings.dedup();
    match (findings.is_empty(), looks.len()) {
        (false, _) => Verdict::Violated(findings),
        (true, 0 | 1) => Verdict::Unknown(format!("{} looks show nothing", looks.len())),
        (true, _) => Verdict::Valid,
    }
}

fn finding(operation: usize, before: Option<usize>, text: String) -> Finding {
    Finding {
        operation,
        before,
        text,
    }
}

/// What is wrong with one look by itself.
fn alone<S: Copy + Ord + Debug>(table: &Table<S>, seen: Seen<S>) -> Option<String> {
    let Seen { state, version } = seen;
    if !table.is_state(state) {
        return Some(format!("{state:?} is no state"));
    }
    let first = table.distance(&table.initial, state);
    let steps = version.checked_sub(1);
    match (first, steps) {
        (None, _) => Some(format!("no way leads to {state:?}")),
        (Some(_), None) => None,
        (Some(_), Some(steps)) => {
            let leads = table
                .initial
                .iter()
                .any(|from| table.leads_in(*from, state, steps));
            (!leads).then(|| format!("{state:?} is not {steps} steps from the beginning"))
        }
    }
}

/// Looks that found nothing, against those that found something before and after.
fn gone<S: Copy + Ord + Debug>(
    table: &Table<S>,
    looks: &[Look<'_, S>],
    absent: &[(usize, &Op<S>)],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, missed) in absent {
        let mut before = looks
            .iter()
            .filter(|(_, look, _)| look.return_ns < missed.call_ns)
            .peekable();
        if before.peek().is_none() {
            continue;
        }
        findings.extend(
            before
                .filter(|(_, _, seen)| !table.ends(seen.state))
                .map(|(earlier, _, seen)| {
                    finding(
                        *at,
                        Some(*earlier),
                        format!("gone, and {:?} cannot end", seen.state),
                    )
                }),
        );
        let after = looks
            .iter()
            .filter(|(_, look, _)| look.call_ns > missed.return_ns);
        findings.extend(
            after.map(|(later, _, seen)| {
                finding(*later, Some(*at), format!("{:?}, and was gone", seen.state))
            }),
        );
    }
    findings
}

/// Looks that tell their versions, in the order of these: neighbours decide, whoever looked and when.
fn versions<S: Copy + Ord + Debug>(table: &Table<S>, looks: &[Look<'_, S>]) -> Vec<Finding> {
    let mut told: Vec<_> = looks.iter().filter(|(_, _, seen)| seen.version > 0).collect();
    told.sort_by_key(|(at, operation, seen)| (seen.version, operation.call_ns, *at));
    let mut findings = Vec::new();
    for pair in told.windows(2) {
        let ((before, _, old), (at, _, new)) = (pair[0], pair[1]);
        let steps = new.version - old.version;
        if !table.leads_in(old.state, new.state, steps) {
            let text = format!("{:?} to {:?} in {steps} steps", old.state, new.state);
            findings.push(finding(*at, Some(*before), text));
        }
    }
    findings
}

/// Each look against all that had returned before it began: the newest versions, and every state.
fn in_time<S: Copy + Ord + Debug>(table: &Table<S>, looks: &[Look<'_, S>]) -> Vec<Finding> {
    let mut moments = Vec::with_capacity(2 * looks.len());
    for (nth, (_, operation, _)) in looks.iter().enumerate() {
        moments.push((operation.call_ns, false, nth));
        moments.push((operation.return_ns, true, nth));
    }
    moments.sort_unstable();
    let mut newest: Option<usize> = None;
    let mut states: BTreeMap<S, usize> = BTreeMap::new();
    let mut findings = Vec::new();
    for (_, returned, nth) in moments {
        let (at, _, seen) = &looks[nth];
        if returned {
            states.entry(seen.state).or_insert(nth);
            if newest.is_none_or(|newest| looks[newest].2.version < seen.version) {
                newest = Some(nth);
            }
            continue;
        }
        if let Some((before, _, old)) = newest.map(|newest| looks[newest])
            && seen.version > 0
            && seen.version < old.version
        {
            let text = format!("version {} after {}", seen.version, old.version);
            findings.push(finding(*at, Some(before), text));
        }
        for (state, earlier) in &states {
            if table.distance(&BTreeSet::from([*state]), seen.state).is_none() {
                let text = format!("{state:?} to {:?}: no way leads there", seen.state);
                findings.push(finding(*at, Some(looks[*earlier].0), text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests;
