//! Watches of random logs, right by construction and then with one thing changed: the judge against the promises, written
//! here a second time, each by itself and over the whole of what was sent.

use std::collections::BTreeMap;

use checker::revision::{Event, Pair};
use checker::watch::{Message, Seen, Watch, check};

/// Numbers that look random, the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

type Log = BTreeMap<i64, Vec<Event>>;

/// A log, and each of its events with what was there before.
fn log(numbers: &mut Numbers) -> (Log, Vec<Seen>) {
    let (mut log, mut all) = (Log::new(), Vec::new());
    let mut store: BTreeMap<String, Pair> = BTreeMap::new();
    for revision in 2..4 + numbers.below(5) as i64 {
        let mut events = Vec::new();
        let first = numbers.below(4);
        for nth in 0..1 + numbers.below(2) {
            let key = ["a", "b", "c", "d"][(first + nth) % 4].to_owned();
            let before = store.get(&key).cloned();
            let event = if before.is_some() && numbers.below(3) == 0 {
                store.remove(&key);
                Event::Delete(key)
            } else {
                let pair = Pair {
                    key: key.clone(),
                    value: format!("v{revision}"),
                    created: before.as_ref().map_or(revision, |before| before.created),
                    modified: revision,
                    version: before.as_ref().map_or(1, |before| before.version + 1),
                    lease: 0,
                };
                store.insert(key, pair.clone());
                Event::Put(pair)
            };
            events.push(event.clone());
            all.push(Seen {
                revision,
                event,
                previous: before,
            });
        }
        log.insert(revision, events);
    }
    (log, all)
}

fn watch(numbers: &mut Numbers) -> Watch {
    let end = [None, Some("c".to_owned()), Some("z".to_owned())];
    Watch {
        key: ["a", "b"][numbers.below(2)].to_owned(),
        end: end[numbers.below(3)].clone(),
        start: 2 + numbers.below(2) as i64,
        puts: numbers.below(4) > 0,
        deletes: numbers.below(4) > 0,
        previous: numbers.below(2) == 0,
    }
}

/// What the watch should be sent.
fn wanted(watch: &Watch, all: &[Seen]) -> Vec<Seen> {
    let mut wanted = Vec::new();
    for seen in all {
        let (key, kind) = match &seen.event {
            Event::Put(pair) => (&pair.key, watch.puts),
            Event::Delete(key) => (key, watch.deletes),
        };
        let inside = match &watch.end {
            None => key == &watch.key,
            Some(end) => key >= &watch.key && key < end,
        };
        if inside && kind && seen.revision >= watch.start {
            let previous = seen.previous.clone().filter(|_| watch.previous);
            wanted.push(Seen {
                previous,
                ..seen.clone()
            });
        }
    }
    wanted
}

/// In messages: whole revisions, or fragments that say so; marks of progress between them.
fn deliver(wanted: &[Seen], numbers: &mut Numbers) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut from = 0;
    while from < wanted.len() {
        let to = (from + 1 + numbers.below(3)).min(wanted.len());
        let last = wanted[to - 1].revision;
        let fragment = wanted.get(to).is_some_and(|next| next.revision == last);
        messages.push(Message::Events {
            events: wanted[from..to].to_vec(),
            fragment,
        });
        if !fragment && numbers.below(3) == 0 {
            messages.push(Message::Progress(last));
        }
        from = to;
    }
    messages
}

fn spoil(messages: &mut Vec<Message>, numbers: &mut Numbers) {
    if messages.is_empty() {
        return;
    }
    let (at, other) = (numbers.below(messages.len()), numbers.below(messages.len()));
    match numbers.below(7) {
        0 => drop(messages.remove(at)),
        1 => messages.swap(at, other),
        2 => messages.insert(other, messages[at].clone()),
        kind => match &mut messages[at] {
            Message::Progress(revision) => *revision += [-2, -1, 1, 2][numbers.below(4)],
            Message::Events { events, fragment } => {
                let nth = numbers.below(events.len());
                match kind {
                    3 => drop(events.remove(nth)),
                    4 => events.swap(nth, 0),
                    5 => *fragment = !*fragment,
                    _ => events[nth].previous = None,
                }
            }
        },
    }
}

/// Each promise, over everything that was sent.
fn right(wanted: &[Seen], messages: &[Message]) -> bool {
    let events = |messages: &[Message]| -> Vec<Seen> {
        let of = |message: &Message| match message {
            Message::Events { events, .. } => events.clone(),
            Message::Progress(_) => Vec::new(),
        };
        messages.iter().flat_map(of).collect()
    };
    // Filter, ordered, unique, reliable, previous pair.
    if events(messages) != wanted {
        return false;
    }
    let mut marks = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let sent = events(&messages[..=at]).len();
        match message {
            // Atomic: what is not said to go on does not.
            Message::Events {
                events,
                fragment: false,
            } => {
                let last = events.last().map(|seen| seen.revision);
                if wanted.get(sent).is_some_and(|next| Some(next.revision) == last) {
                    return false;
                }
            }
            Message::Events { fragment: true, .. } => {
                if matches!(messages.get(at + 1), Some(Message::Progress(_))) {
                    return false;
                }
            }
            // Bookmarkable: everything up to it was sent, nothing up to it comes.
            Message::Progress(revision) => {
                let later = wanted[sent..].iter().any(|seen| seen.revision <= *revision);
                if later || marks.last().is_some_and(|last| last > revision) {
                    return false;
                }
                marks.push(*revision);
            }
        }
    }
    true
}

#[test]
fn says_what_the_promises_say() {
    let mut numbers = Numbers(5);
    let (mut valid, mut violated) = (0, 0);
    for round in 0..300_000 {
        let (log, all) = log(&mut numbers);
        let watch = watch(&mut numbers);
        let wanted = wanted(&watch, &all);
        let mut messages = deliver(&wanted, &mut numbers);
        let through = 1 + log.len() as i64;
        let judge = |messages: &[Message]| check(&watch, messages, &log, through);
        assert!(!judge(&messages).is_violated(), "round {round}: {messages:#?}");
        assert_eq!(judge(&messages).is_valid(), !wanted.is_empty(), "round {round}");
        spoil(&mut messages, &mut numbers);
        let (verdict, expected) = (judge(&messages), right(&wanted, &messages));
        assert_eq!(
            verdict.is_violated(),
            !expected,
            "round {round}: {verdict:?} for {watch:?}, {messages:#?} and {log:#?}"
        );
        valid += u64::from(verdict.is_valid());
        violated += u64::from(verdict.is_violated());
    }
    assert!(
        valid > 30_000 && violated > 60_000,
        "{valid} valid, {violated} violated"
    );
}
