//! The key-value store, replayed in the order of the revisions that its answers carry. Looks at every operation, in
//! n log n, so that it holds for a night's run.
//!
//! What is needed beside the history is the log of a key space: everything that happened, revision by revision, as a
//! watch from the beginning or the final state tells it. Then:
//! 1. each revision was made by one operation that was acknowledged or whose outcome is unknown, never by one that
//!    failed, and each acknowledged write is there, as it was asked for and as it was answered;
//! 2. what is read at a revision is what the log says it was;
//! 3. an operation that begins after another has returned is at its revision or later, and later if it wrote.
//!
//! Together that is strict serializability with the revisions as the order. Serializable reads are exempt from the last
//! rule, not from the others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history;
use store::{Store, changes, executed};

mod store;

/// What is asked of the store. Keys and values are text: workloads choose theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Pairs of a range.
    Range {
        /// First key.
        key: String,
        /// One past the last key; `None`: only `key`.
        end: Option<String>,
        /// As of which revision; 0: now, as always within a transaction.
        revision: i64,
        /// Whether any replica may answer from what it has.
        serializable: bool,
    },
    /// Writes a pair.
    Put {
        /// Which.
        key: String,
        /// What to.
        value: String,
        /// Lease it is attached to, or 0.
        lease: i64,
    },
    /// Removes a range.
    Delete {
        /// First key.
        key: String,
        /// One past the last key; `None`: only `key`.
        end: Option<String>,
    },
    /// Compares, then does the one or the other.
    Txn {
        /// All must hold.
        compare: Vec<Compare>,
        /// Done if they do.
        success: Vec<Ask>,
        /// Done if not.
        failure: Vec<Ask>,
    },
}

/// A comparison of a transaction, always for equality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compare {
    /// The value of a key. A key that is not there has none.
    Value {
        /// Which.
        key: String,
        /// Compared with.
        value: String,
    },
    /// The revision of a key's last write; 0: it is not there.
    Modified {
        /// Which.
        key: String,
        /// Compared with.
        revision: i64,
    },
    /// How often a key was written since it was created; 0: it is not there.
    Version {
        /// Which.
        key: String,
        /// Compared with.
        version: i64,
    },
}

/// A key and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Revision of its creation.
    pub created: i64,
    /// Revision of its last write.
    pub modified: i64,
    /// Writes since its creation.
    pub version: i64,
    /// Lease it is attached to, or 0.
    pub lease: i64,
}

/// An answer, with the revision that its header carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The key space's revision: of the write, or as of which was read.
    pub revision: i64,
    /// The rest.
    pub body: Body,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// To a range: its pairs in the order of keys.
    Range(Vec<Pair>),
    /// To a put: the pair before.
    Put(Option<Pair>),
    /// To a delete: the pairs that were there, in the order of keys.
    Deleted(Vec<Pair>),
    /// To a transaction.
    Txn {
        /// Whether the comparisons held.
        succeeded: bool,
        /// Of what was done.
        responses: Vec<Body>,
    },
}

/// One change of a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It was written.
    Put(Pair),
    /// It was removed.
    Delete(String),
}

/// One operation of the history.
pub type Operation = history::Operation<Ask, Answer>;

/// Something that broke the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose answer, by its place in the history; `None` if it is the log's.
    pub operation: Option<usize>,
    /// What is wrong.
    pub text: String,
}

/// Findings after which the judge stops: the first are the ones to read.
const FINDINGS: usize = 100;

/// Judges the history of one key space that was empty at revision 1. `log` holds the events of each revision after that.
pub fn check(history: &[Operation], log: &BTreeMap<i64, Vec<Event>>) -> Verdict<Vec<Finding>> {
    if let Err(malformed) = history::check_shape(history) {
        return malformed.into();
    }
    if let Some(missing) = gap(log) {
        return Verdict::Unknown(format!("the log does not tell of revision {missing}"));
    }
    let mut judge = Judge::new(history, log);
    judge.replay();
    judge.real_time();
    if judge.findings.is_empty() {
        Verdict::Valid
    } else {
        Verdict::Violated(judge.findings)
    }
}

/// The first revision that the log leaves out.
pub(crate) fn gap(log: &BTreeMap<i64, Vec<Event>>) -> Option<i64> {
    let told = log
        .iter()
        .filter(|(_, events)| !events.is_empty())
        .map(|(revision, _)| *revision);
    let first = (2..).zip(told).find(|(expected, told)| expected != told);
    first.map(|(expected, _)| expected)
}

struct Judge<'h> {
    history: &'h [Operation],
    log: &'h BTreeMap<i64, Vec<Event>>,
    store: Store,
    /// Acknowledged operations by the revision of their answers.
    answered: BTreeMap<i64, Vec<usize>>,
    /// Ranges as of an earlier revision, by that.
    past: BTreeMap<i64, Vec<usize>>,
    /// Operations of unknown outcome that no revision has been laid to yet, in order of their calls.
    unknown: BTreeSet<(u64, usize)>,
    /// Operations that changed something, with the revision they made.
    wrote: BTreeMap<usize, i64>,
    findings: Vec<Finding>,
}

impl<'h> Judge<'h> {
    fn new(history: &'h [Operation], log: &'h BTreeMap<i64, Vec<Event>>) -> Judge<'h> {
        let (mut answered, mut past) = (
            BTreeMap::<i64, Vec<usize>>::new(),
            BTreeMap::<i64, Vec<usize>>::new(),
        );
        let mut unknown = BTreeSet::new();
        for (at, operation) in history.iter().enumerate() {
            if operation.is_unknown() {
                unknown.insert((operation.call_ns, at));
            }
            let Some(answer) = operation.answer() else {
                continue;
            };
            match operation.ask {
                Ask::Range { revision, .. } if revision != 0 => past.entry(revision).or_default().push(at),
                _ => answered.entry(answer.revision).or_default().push(at),
            }
        }
        Judge {
            history,
            log,
            store: Store::default(),
            answered,
            past,
            unknown,
            wrote: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    fn find(&mut self, operation: Option<usize>, text: impl Into<String>) {
        if self.findings.len() < FINDINGS {
            self.findings.push(Finding {
                operation,
                text: text.into(),
            });
        }
    }

    /// Revision by revision: who made it, and what was read at it.
    fn replay(&mut self) {
        self.read_at(1);
        let log = self.log;
        for (revision, events) in log {
            self.made(*revision, events);
            self.store.apply(events);
            self.read_at(*revision);
        }
        let last = log.last_key_value().map_or(1, |(last, _)| *last);
        let beyond = self
            .answered
            .split_off(&(last + 1))
            .into_iter()
            .chain(self.past.split_off(&(last + 1)));
        for at in beyond.flat_map(|(_, operations)| operations).collect::<Vec<_>>() {
            self.find(Some(at), format!("its revision is beyond the log's last, {last}"));
        }
        let before = self
            .answered
            .values()
            .chain(self.past.values())
            .flatten()
            .copied()
            .collect::<Vec<_>>();
        for at in before {
            self.find(Some(at), "its revision is before the first");
        }
    }

    /// Finds who made a revision: the one acknowledged operation that wrote at it, or one of unknown outcome.
    fn made(&mut self, revision: i64, events: &[Event]) {
        let answered = self.answered.get(&revision).map_or(&[][..], Vec::as_slice);
        let says_so = |at: &usize| {
            let operation = &self.history[*at];
            operation
                .answer()
                .is_some_and(|answer| executed(&operation.ask, &answer.body))
        };
        let writers: Vec<usize> = answered.iter().copied().filter(says_so).collect();
        match writers[..] {
            [] => self.made_by_unknown(revision, events),
            [writer] => self.compare_write(writer, revision, events),
            [writer, other, ..] => {
                self.compare_write(writer, revision, events);
                self.find(
                    Some(other),
                    format!("revision {revision} was given to operation {writer} too"),
                );
            }
        }
    }

    fn compare_write(&mut self, at: usize, revision: i64, events: &[Event]) {
        let operation = &self.history[at];
        let (expected, body) = changes(&self.store, &operation.ask, revision);
        self.wrote.insert(at, revision);
        if expected != events {
            self.find(
                Some(at),
                format!(
                    "at revision {revision} it should have made {expected:?}, and the log has {events:?}"
                ),
            );
        }
        if let Some(answer) = operation.answer()
            && answer.body != body
        {
            self.find(
                Some(at),
                format!(
                    "answered {:?} at revision {revision}, and {body:?} is right",
                    answer.body
                ),
            );
        }
    }

    fn made_by_unknown(&mut self, revision: i64, events: &[Event]) {
        let maker = self.unknown.iter().copied().find(|(_, at)| {
            let ask = &self.history[*at].ask;
            changes(&self.store, ask, revision).0 == events
        });
        match maker {
            Some((call_ns, at)) => {
                self.unknown.remove(&(call_ns, at));
                self.wrote.insert(at, revision);
            }
            None => {
                let failed = self.history.iter().position(|operation| {
                    operation.is_failed() && changes(&self.store, &operation.ask, revision).0 == events
                });
                let text = match failed {
                    Some(_) => format!("it failed, and made revision {revision}: {events:?}"),
                    None => format!("nobody made revision {revision}: {events:?}"),
                };
                self.find(failed, text);
            }
        }
    }

    /// Compares what was read at a revision, the state being that of it.
    fn read_at(&mut self, revision: i64) {
        let answered = self.answered.remove(&revision).unwrap_or_default();
        let past = self.past.remove(&revision).unwrap_or_default();
        for at in answered.into_iter().chain(past) {
            if self.wrote.contains_key(&at) {
                continue;
            }
            let operation = &self.history[at];
            let Some(answer) = operation.answer() else {
                continue;
            };
            if matches!(operation.ask, Ask::Range { revision: asked, .. } if asked > answer.revision) {
                self.find(Some(at), "it reads the future");
                continue;
            }
            let (made, body) = changes(&self.store, &operation.ask, revision + 1);
            if !made.is_empty() {
                self.find(
                    Some(at),
                    format!("acknowledged at revision {revision}, and not there: {made:?}"),
                );
            } else if body != answer.body {
                self.find(
                    Some(at),
                    format!(
                        "answered {:?} at revision {revision}, and {body:?} is right",
                        answer.body
                    ),
                );
            }
        }
    }

    /// Who begins after another returned is not before it.
    fn real_time(&mut self) {
        let mut moments = Vec::with_capacity(2 * self.history.len());
        for (at, operation) in self.history.iter().enumerate() {
            if operation.answer().is_some() {
                moments.push((operation.call_ns, false, at));
                moments.push((operation.return_ns, true, at));
            } else if self.wrote.contains_key(&at) {
                moments.push((operation.call_ns, false, at));
            }
        }
        moments.sort_unstable();
        let mut newest = (0, None);
        for (_, returned, at) in moments {
            let answered = self.history[at].answer().map(|answer| answer.revision);
            let wrote = self.wrote.get(&at).copied();
            let Some(revision) = wrote.or(answered) else {
                continue;
            };
            if returned {
                newest = newest.max((revision, Some(at)));
                continue;
            }
            let serializable = matches!(
                self.history[at].ask,
                Ask::Range {
                    serializable: true,
                    ..
                }
            );
            let late = if wrote.is_some() {
                revision <= newest.0
            } else {
                revision < newest.0
            };
            if late && !serializable {
                let (seen, by) = newest;
                let by = by.map_or_else(String::new, |by| format!(" by operation {by}"));
                self.find(
                    Some(at),
                    format!("its revision is {revision}, and {seen} was seen{by} before it began"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
