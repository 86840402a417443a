//! The key-value store, replayed in the order of the revisions that its answers carry. Looks at every operation, in
//! n log n, so that it holds for a night's run; each revision that nobody was answered for looks at every operation of
//! unknown fate as well, of which there should be few.
//!
//! What is needed beside the history is the log of a key space: everything that happened, revision by revision, as a
//! watch from the beginning or the final state tells it. Then:
//! 1. each revision was made by one operation that was acknowledged or whose outcome is unknown, never by one that
//!    failed, and each acknowledged write is there, as it was asked for and as it was answered;
//! 2. what is read at a revision is what the log says it was;
//! 3. an operation that begins after another has returned is at its revision or later, and later if it wrote; operations
//!    of one client begin after one another even if the clock did not move between them.
//!
//! Together that is strict serializability with the revisions as the order. Serializable reads are exempt from the last
//! rule, not from the others: what they saw, others see after them.
//!
//! A log that leaves out a revision in its middle is no evidence: no verdict, whatever else is wrong. One that ends before
//! the newest answer is wrong.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history;
use makers::Makers;
use store::{Store, changes, executed, may_make};

mod makers;
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

impl Event {
    /// Which key it changed.
    fn key(&self) -> &str {
        match self {
            Event::Put(pair) => &pair.key,
            Event::Delete(key) => key,
        }
    }
}

/// One operation of the history.
pub type Operation = history::Operation<Ask, Answer>;

/// Something that broke the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose answer, by its place in the history; if it is the log that is wrong, who saw that first, if anybody did.
    pub operation: Option<usize>,
    /// The key that changed, if it is the log that is wrong.
    pub key: Option<String>,
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
    let mut told = (2..).zip(log);
    let first = told.find(|(expected, (revision, events))| expected != *revision || events.is_empty());
    first.map(|(expected, _)| expected)
}

/// A revision that an answer told of, and whose answer it was.
type Told = (i64, Option<usize>);

/// For each operation the newest revision that was known before it began.
fn known_before(history: &[Operation]) -> Vec<Told> {
    let mut moments = Vec::with_capacity(2 * history.len());
    for (at, operation) in history.iter().enumerate() {
        moments.push((operation.call_ns, false, at));
        if operation.answer().is_some() {
            moments.push((operation.return_ns, true, at));
        }
    }
    moments.sort_unstable();
    let mut before = vec![(0, None); history.len()];
    let (mut newest, mut newest_of) = ((0, None), BTreeMap::<u64, Told>::new());
    for (_, returned, at) in moments {
        let operation = &history[at];
        let told = operation
            .answer()
            .map_or((0, None), |answer| (answer.revision, Some(at)));
        if returned {
            newest = newest.max(told);
        } else {
            // A client waits: by its next call this is answered, if only in the same moment.
            let own = newest_of.entry(operation.client).or_default();
            before[at] = newest.max(*own);
            *own = told.max(*own);
        }
    }
    before
}

struct Judge<'h> {
    history: &'h [Operation],
    log: &'h BTreeMap<i64, Vec<Event>>,
    store: Store,
    /// Acknowledged operations by the revision of their answers.
    answered: BTreeMap<i64, Vec<usize>>,
    /// Ranges as of an earlier revision, by that.
    past: BTreeMap<i64, Vec<usize>>,
    /// Operations of unknown outcome.
    unknown: Vec<usize>,
    /// Which of them made what.
    makers: Makers,
    /// Operations that changed something, with the revision they made.
    wrote: BTreeMap<usize, i64>,
    /// What was known before each operation began.
    before: Vec<Told>,
    findings: Vec<Finding>,
}

impl<'h> Judge<'h> {
    fn new(history: &'h [Operation], log: &'h BTreeMap<i64, Vec<Event>>) -> Judge<'h> {
        let (mut answered, mut past) = (
            BTreeMap::<i64, Vec<usize>>::new(),
            BTreeMap::<i64, Vec<usize>>::new(),
        );
        let mut unknown = Vec::new();
        for (at, operation) in history.iter().enumerate() {
            if operation.is_unknown() {
                unknown.push(at);
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
            makers: Makers::default(),
            wrote: BTreeMap::new(),
            before: known_before(history),
            findings: Vec::new(),
        }
    }

    fn find(&mut self, operation: Option<usize>, text: impl Into<String>) {
        self.find_in(None, operation, text.into());
    }

    fn find_in(&mut self, changed: Option<&Event>, operation: Option<usize>, text: String) {
        if self.findings.len() < FINDINGS {
            let key = changed.map(|event| event.key().to_owned());
            self.findings.push(Finding { operation, key, text });
        }
    }

    /// The last revision.
    fn last(&self) -> i64 {
        self.log.last_key_value().map_or(1, |(last, _)| *last)
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
        self.wrote.extend(std::mem::take(&mut self.makers).made());
        let last = self.last();
        let late = self
            .answered
            .split_off(&(last + 1))
            .into_iter()
            .chain(self.past.split_off(&(last + 1)));
        for at in late.flat_map(|(_, operations)| operations).collect::<Vec<_>>() {
            self.find(Some(at), beyond(last));
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
        let makes = |at: &usize| {
            let ask = &self.history[*at].ask;
            may_make(ask, &events[0]) && changes(&self.store, ask, revision).0 == events
        };
        let in_time = |at: &usize| self.before[*at].0 < revision;
        let fit = self.unknown.iter().copied().filter(|at| in_time(at) && makes(at));
        let fit = fit.collect();
        if self.makers.explain(revision, fit) {
            return;
        }
        let unanswered = |at: &usize| self.history[*at].answer().is_none();
        let suspect = (0..self.history.len()).find(|at| unanswered(at) && makes(at));
        let how = match suspect.map(|at| &self.history[at]) {
            Some(suspect) if suspect.is_failed() => "it failed, and made",
            Some(_) => "nobody made, for it made another or began after that was seen,",
            None => "nobody made",
        };
        let first = suspect.or_else(|| self.first_that_saw(revision));
        let text = format!("{how} revision {revision}: {events:?}");
        self.find_in(events.first(), first, text);
    }

    /// The operation that was the first to be told of a revision, or of a later one.
    fn first_that_saw(&self, revision: i64) -> Option<usize> {
        let saw = |at: &usize| {
            let answer = self.history[*at].answer();
            answer.is_some_and(|answer| answer.revision >= revision)
        };
        let all = (0..self.history.len()).filter(saw);
        all.min_by_key(|at| self.history[*at].return_ns)
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
            if answer.revision > self.last() {
                self.find(Some(at), beyond(self.last()));
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
        for at in 0..self.history.len() {
            let (known, by) = self.before[at];
            let wrote = self.wrote.get(&at).copied();
            let answered = self.history[at].answer().map(|answer| answer.revision);
            let Some(revision) = wrote.or(answered) else {
                continue;
            };
            let serializable = matches!(
                self.history[at].ask,
                Ask::Range {
                    serializable: true,
                    ..
                }
            );
            let late = match wrote {
                Some(_) => revision <= known,
                None => revision < known && !serializable,
            };
            if late {
                let by = by.map_or_else(String::new, |by| format!(" by operation {by}"));
                self.find(
                    Some(at),
                    format!("its revision is {revision}, and {known} was seen{by} before it began"),
                );
            }
        }
    }
}

fn beyond(last: i64) -> String {
    format!("its revision is beyond the log's last, {last}")
}

#[cfg(test)]
mod tests;
