//! Watches, held against the log of the key space: what a watcher was sent is what happened in its range, from where it
//! began, in order, each once, whole revisions, with nothing left out before the point it came to.
//!
//! | promise | here |
//! |---|---|
//! | filter | no event outside the range, none of a kind that was filtered out |
//! | ordered, unique | revisions ascend; none is sent twice |
//! | atomic | all events of a revision come together |
//! | reliable, resumable | no event between the first asked for and the last seen is missing |
//! | bookmarkable | after a progress mark nothing at or below it comes |
//! | previous pair | it is the one the log had before |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::revision::{Event, Pair, gap};

/// What a watcher asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// First key.
    pub key: String,
    /// One past the last; `None`: only `key`.
    pub end: Option<String>,
    /// The first revision wanted.
    pub start: i64,
    /// Whether puts are wanted.
    pub puts: bool,
    /// Whether deletes are.
    pub deletes: bool,
    /// Whether each event is to bring the pair before it.
    pub previous: bool,
}

/// One event as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it happened.
    pub revision: i64,
    /// What happened.
    pub event: Event,
    /// What was there before, if that was asked for and there was something.
    pub previous: Option<Pair>,
}

/// One message to a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Events, whole revisions unless it says that the rest follows.
    Events {
        /// In order.
        events: Vec<Seen>,
        /// Whether the last revision goes on in the next message.
        fragment: bool,
    },
    /// Everything up to this revision was sent.
    Progress(i64),
}

/// Something that broke a promise, by the message's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which message; one past the last if something is missing at the end.
    pub message: usize,
    /// What is wrong.
    pub text: String,
}

/// Judges what one watcher was sent, over all its reconnections, up to revision `through`, which it must have come to.
/// `log` holds all revisions from 2 on.
pub fn check(
    watch: &Watch,
    messages: &[Message],
    log: &BTreeMap<i64, Vec<Event>>,
    through: i64,
) -> Verdict<Vec<Finding>> {
    let last = log.last_key_value().map_or(1, |(last, _)| *last);
    if let Some(missing) = gap(log).or((through > last).then_some(last + 1)) {
        return Verdict::Unknown(format!("the log does not tell of revision {missing}"));
    }
    let expected = expected(watch, log, through);
    let mut judge = Judge {
        watch,
        expected: &expected,
        next: 0,
        progress: 0,
        findings: Vec::new(),
    };
    let mut open = None;
    for (at, message) in messages.iter().enumerate() {
        match message {
            Message::Events { events, fragment } => {
                judge.events(at, events);
                let last = events.last().map(|seen| seen.revision);
                judge.whole(at, last.filter(|_| !fragment));
                open = if *fragment { last } else { None };
            }
            Message::Progress(_) if open.is_some() => {
                judge.find(at, "a progress mark within a revision");
            }
            Message::Progress(revision) => judge.progressed(at, *revision),
        }
    }
    if let Some(missing) = expected.get(judge.next) {
        judge.find(messages.len(), format!("{missing:?} was never sent"));
    }
    match judge.findings.is_empty() {
        false => Verdict::Violated(judge.findings),
        true if expected.is_empty() => Verdict::Unknown("nothing happened that it should have seen".into()),
        true => Verdict::Valid,
    }
}

/// What it should be sent, in order.
fn expected(watch: &Watch, log: &BTreeMap<i64, Vec<Event>>, through: i64) -> Vec<Seen> {
    let mut pairs: BTreeMap<&String, &Pair> = BTreeMap::new();
    let mut expected = Vec::new();
    for (revision, events) in log.range(..=through) {
        for event in events {
            let (key, wanted) = match event {
                Event::Put(pair) => (&pair.key, watch.puts),
                Event::Delete(key) => (key, watch.deletes),
            };
            let before = match event {
                Event::Put(pair) => pairs.insert(key, pair),
                Event::Delete(key) => pairs.remove(key),
            };
            if wanted && *revision >= watch.start && covers(watch, key) {
                expected.push(Seen {
                    revision: *revision,
                    event: event.clone(),
                    previous: before.cloned().filter(|_| watch.previous),
                });
            }
        }
    }
    expected
}

fn covers(watch: &Watch, key: &String) -> bool {
    match &watch.end {
        None => *key == watch.key,
        Some(end) => *key >= watch.key && key < end,
    }
}

struct Judge<'w> {
    watch: &'w Watch,
    expected: &'w [Seen],
    /// The next that should come.
    next: usize,
    progress: i64,
    findings: Vec<Finding>,
}

impl Judge<'_> {
    fn find(&mut self, message: usize, text: impl Into<String>) {
        self.findings.push(Finding {
            message,
            text: text.into(),
        });
    }

    fn events(&mut self, at: usize, events: &[Seen]) {
        for seen in events {
            if seen.revision <= self.progress {
                let progress = self.progress;
                self.find(at, format!("{seen:?} came after the progress mark {progress}"));
            }
            match self.expected.get(self.next) {
                Some(expected) if expected == seen => self.next += 1,
                _ => self.misplaced(at, seen),
            }
        }
    }

    /// One that is not the next: says what it is instead, and goes on behind it if it is ahead.
    fn misplaced(&mut self, at: usize, seen: &Seen) {
        let place = self.expected.iter().position(|expected| expected == seen);
        match place {
            Some(place) if place < self.next => self.find(at, format!("{seen:?} was sent before")),
            Some(place) => {
                for missing in &self.expected[self.next..place] {
                    self.find(at, format!("{missing:?} was left out"));
                }
                self.next = place + 1;
            }
            None => {
                let watch = self.watch;
                self.find(at, format!("{seen:?} is nothing that {watch:?} should see"));
            }
        }
    }

    /// A message that does not say that more follows ends with a whole revision.
    fn whole(&mut self, at: usize, last: Option<i64>) {
        let cut = self
            .expected
            .get(self.next)
            .is_some_and(|next| Some(next.revision) == last);
        if cut {
            self.find(at, format!("revision {} is cut in two", last.unwrap_or_default()));
        }
    }

    fn progressed(&mut self, at: usize, revision: i64) {
        if revision < self.progress {
            let before = self.progress;
            self.find(at, format!("progress went back from {before} to {revision}"));
        }
        if let Some(missing) = self
            .expected
            .get(self.next)
            .filter(|next| next.revision <= revision)
        {
            self.find(at, format!("progress {revision} came before {missing:?}"));
        }
        self.progress = self.progress.max(revision);
    }
}

#[cfg(test)]
mod tests;
