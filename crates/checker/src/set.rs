//! A set that only grows, read whole. For each element: once its addition was acknowledged, or a read has returned that
//! saw it, every read that begins later sees it. The simplest way to ask whether anything was lost.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history::{Operation, check_shape};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Adds an element. Each is added once.
    Add(u64),
    /// All elements.
    Read,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is in.
    Added,
    /// All of them.
    Elements(BTreeSet<u64>),
}

/// What is wrong with an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It was in, and from some read on never again.
    Lost,
    /// It was in, was missing in a read, and came back.
    Stale,
    /// It was read, and nobody asked for it before.
    Phantom,
}

/// An element, what is wrong with it, and the read that shows it, by its place in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The element.
    pub element: u64,
    /// What is wrong.
    pub wrong: Wrong,
    /// The first read that shows it.
    pub read: usize,
}

/// Judges a history. An acknowledged element that no read could have seen is no evidence: the last operation should be
/// a read.
pub fn check(history: &[Operation<Ask, Answer>]) -> Verdict<Vec<Finding>> {
    if let Err(malformed) = check_shape(history) {
        return malformed.into();
    }
    let reads = reads(history);
    let mut findings = Vec::new();
    let mut unread = 0;
    let asked = additions(history);
    for (element, added) in &asked {
        let seen = reads
            .iter()
            .filter(|(_, elements)| elements.contains(element))
            .map(|(at, _)| *at);
        let first_seen_ns = seen.clone().map(|at| history[at].return_ns).min();
        let Some(since_ns) = added.acknowledged_ns.into_iter().chain(first_seen_ns).min() else {
            continue;
        };
        if let Some(read) = seen.clone().find(|at| history[*at].return_ns < added.called_ns) {
            findings.push(Finding {
                element: *element,
                wrong: Wrong::Phantom,
                read,
            });
        }
        let later = |at: &usize| history[*at].call_ns > since_ns;
        let missing = reads
            .iter()
            .filter(|(_, elements)| !elements.contains(element))
            .map(|(at, _)| *at)
            .find(later);
        let last_seen_ns = seen.clone().map(|at| history[at].call_ns).max();
        if let Some(read) = missing {
            let back = last_seen_ns.is_some_and(|last_ns| last_ns > history[read].return_ns);
            findings.push(Finding {
                element: *element,
                wrong: if back { Wrong::Stale } else { Wrong::Lost },
                read,
            });
        } else if added.acknowledged_ns.is_some() && !reads.iter().any(|(at, _)| later(at)) {
            unread += 1;
        }
    }
    findings.extend(phantoms(&reads, &asked));
    if !findings.is_empty() {
        return Verdict::Violated(findings);
    }
    if unread > 0 || reads.is_empty() {
        return Verdict::Unknown(format!(
            "{unread} elements were added, and nobody read after that"
        ));
    }
    Verdict::Valid
}

type Reads<'h> = Vec<(usize, &'h BTreeSet<u64>)>;

/// Reads in the order of their calls.
fn reads(history: &[Operation<Ask, Answer>]) -> Reads<'_> {
    let mut reads: Reads<'_> = Vec::new();
    for (at, operation) in history.iter().enumerate() {
        if let Some(Answer::Elements(elements)) = operation.answer() {
            reads.push((at, elements));
        }
    }
    reads.sort_by_key(|(at, _)| history[*at].call_ns);
    reads
}

struct Addition {
    called_ns: u64,
    acknowledged_ns: Option<u64>,
}

/// Additions that may have happened.
fn additions(history: &[Operation<Ask, Answer>]) -> BTreeMap<u64, Addition> {
    let mut additions = BTreeMap::new();
    for operation in history.iter().filter(|operation| !operation.is_failed()) {
        if let Ask::Add(element) = operation.ask {
            let addition = Addition {
                called_ns: operation.call_ns,
                acknowledged_ns: operation.answer().map(|_| operation.return_ns),
            };
            additions.insert(element, addition);
        }
    }
    additions
}

/// Elements that nobody asked for, or that were refused.
fn phantoms(reads: &Reads<'_>, asked: &BTreeMap<u64, Addition>) -> Vec<Finding> {
    let mut met = BTreeSet::new();
    let mut findings = Vec::new();
    for (read, elements) in reads {
        for element in elements.iter().filter(|element| !asked.contains_key(element)) {
            if met.insert(*element) {
                findings.push(Finding {
                    element: *element,
                    wrong: Wrong::Phantom,
                    read: *read,
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    fn operation(times: (u64, u64), ask: Ask, outcome: Outcome<Answer>) -> Operation<Ask, Answer> {
        Operation {
            client: times.0,
            node: 1,
            call_ns: times.0,
            return_ns: times.1,
            ask,
            outcome,
        }
    }

    fn read(times: (u64, u64), elements: &[u64]) -> Operation<Ask, Answer> {
        let elements = elements.iter().copied().collect();
        operation(times, Ask::Read, Outcome::Ok(Answer::Elements(elements)))
    }

    /// 1 is acknowledged, 2 unknown, 3 refused; then these reads.
    fn judge(reads: &[Operation<Ask, Answer>]) -> Result<Verdict<()>, Vec<(u64, Wrong, usize)>> {
        let mut history = vec![
            operation((0, 10), Ask::Add(1), Outcome::Ok(Answer::Added)),
            operation((1, 11), Ask::Add(2), Outcome::Unknown("lost".into())),
            operation((2, 12), Ask::Add(3), Outcome::Failed("refused".into())),
        ];
        history.extend(reads.iter().cloned());
        match check(&history) {
            Verdict::Valid => Ok(Verdict::Valid),
            Verdict::Unknown(text) => Ok(Verdict::Unknown(text)),
            Verdict::Violated(found) => Err(found.iter().map(|f| (f.element, f.wrong, f.read)).collect()),
        }
    }

    #[test]
    fn what_is_in_stays_in() {
        assert_eq!(
            judge(&[read((5, 8), &[]), read((20, 21), &[1])]),
            Ok(Verdict::Valid)
        );
        assert_eq!(
            judge(&[read((20, 21), &[1]), read((30, 31), &[1, 2])]),
            Ok(Verdict::Valid)
        );
        assert_eq!(judge(&[read((20, 21), &[])]), Err(vec![(1, Wrong::Lost, 3)]));
        let stale = [read((20, 21), &[]), read((30, 31), &[1])];
        assert_eq!(judge(&stale), Err(vec![(1, Wrong::Stale, 3)]));
        let seen_and_gone = [read((20, 21), &[1, 2]), read((30, 31), &[1])];
        assert_eq!(judge(&seen_and_gone), Err(vec![(2, Wrong::Lost, 4)]));
        assert_eq!(
            judge(&[read((20, 21), &[1, 3])]),
            Err(vec![(3, Wrong::Phantom, 3)])
        );
        assert_eq!(
            judge(&[read((20, 21), &[1, 9])]),
            Err(vec![(9, Wrong::Phantom, 3)])
        );
        assert!(matches!(judge(&[read((5, 8), &[1])]), Ok(Verdict::Unknown(_))));
        assert!(matches!(judge(&[]), Ok(Verdict::Unknown(_))));
    }

    #[test]
    fn what_nobody_read_afterwards_is_no_evidence() {
        let nothing = |count: u64| {
            let text = format!("{count} elements were added, and nobody read after that");
            Verdict::Unknown(text)
        };
        let add = |at| operation((at, at + 1), Ask::Add(at), Outcome::Ok(Answer::Added));
        assert_eq!(check(&[add(0), add(2)]), nothing(2));
        assert_eq!(check(&[read((5, 6), &[])]), Verdict::Valid);
        assert_eq!(check(&[read((0, 3), &[]), add(2)]), nothing(1));
        let lost = operation((0, 1), Ask::Add(0), Outcome::Unknown("lost".into()));
        assert_eq!(check(&[lost]), nothing(0));
    }
}
