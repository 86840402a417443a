//! A short log, and what watchers of it are sent.

use super::*;

fn pair(key: &str, modified: i64) -> Pair {
    Pair {
        key: key.into(),
        value: format!("v{modified}"),
        created: modified,
        modified,
        version: 1,
        lease: 0,
    }
}

fn put(key: &str, revision: i64) -> Event {
    Event::Put(pair(key, revision))
}

/// a comes; b and c come in one revision; a goes, and comes back.
fn log() -> BTreeMap<i64, Vec<Event>> {
    BTreeMap::from([
        (2, vec![put("a", 2)]),
        (3, vec![put("b", 3), put("c", 3)]),
        (4, vec![Event::Delete("a".into())]),
        (5, vec![put("a", 5)]),
    ])
}

fn all() -> Watch {
    Watch {
        key: "a".into(),
        end: Some("z".into()),
        start: 2,
        puts: true,
        deletes: true,
        previous: true,
    }
}

fn seen(revision: i64, event: Event, previous: Option<Pair>) -> Seen {
    Seen {
        revision,
        event,
        previous,
    }
}

/// What a watcher of everything is sent.
fn right() -> Vec<Seen> {
    vec![
        seen(2, put("a", 2), None),
        seen(3, put("b", 3), None),
        seen(3, put("c", 3), None),
        seen(4, Event::Delete("a".into()), Some(pair("a", 2))),
        seen(5, put("a", 5), None),
    ]
}

fn message(events: &[Seen]) -> Message {
    Message::Events {
        events: events.to_vec(),
        fragment: false,
    }
}

fn check_all(messages: &[Message]) -> Result<bool, Vec<(usize, String)>> {
    match check(&all(), messages, &log(), 5) {
        Verdict::Valid => Ok(true),
        Verdict::Unknown(_) => Ok(false),
        Verdict::Violated(found) => Err(found.into_iter().map(|f| (f.message, f.text)).collect()),
    }
}

fn wrong(messages: &[Message], at: usize, text: &str) {
    let found = check_all(messages).expect_err(text);
    assert!(
        found
            .iter()
            .any(|(message, said)| *message == at && said.contains(text)),
        "{found:?}"
    );
}

#[test]
fn what_is_right_passes_however_it_is_cut_into_messages() {
    let events = right();
    assert_eq!(check_all(&[message(&events)]), Ok(true));
    let marked = [
        message(&events[..1]),
        Message::Progress(2),
        message(&events[1..]),
        Message::Progress(5),
    ];
    assert_eq!(check_all(&marked), Ok(true));
    let fragment = Message::Events {
        events: events[..2].to_vec(),
        fragment: true,
    };
    assert_eq!(check_all(&[fragment, message(&events[2..])]), Ok(true));
}

#[test]
fn each_promise_is_kept() {
    let events = right();
    let without = |at: usize| [message(&events[..at]), message(&events[at + 1..])];
    wrong(&without(0), 1, "was left out");
    wrong(&[message(&events[..4])], 1, "was never sent");
    wrong(&[message(&events[..2]), message(&events[2..])], 0, "cut in two");
    wrong(
        &[
            message(&events[..3]),
            message(&events[..1]),
            message(&events[3..]),
        ],
        1,
        "was sent before",
    );
    wrong(
        &[
            message(&events[3..4]),
            message(&events[..3]),
            message(&events[4..]),
        ],
        1,
        "was sent before",
    );
    wrong(
        &[Message::Progress(3), message(&events)],
        0,
        "progress 3 came before",
    );
    wrong(
        &[Message::Progress(3), message(&events)],
        1,
        "came after the progress mark 3",
    );
    wrong(
        &[message(&events), Message::Progress(5), Message::Progress(4)],
        2,
        "progress went back",
    );
    let mut other = events.clone();
    other[3].previous = None;
    wrong(&[message(&other)], 0, "is nothing that");
    let foreign = seen(5, put("zz", 5), None);
    wrong(&[message(&events), message(&[foreign])], 1, "is nothing that");
    let fragment = Message::Events {
        events: events[..2].to_vec(),
        fragment: true,
    };
    wrong(
        &[fragment, Message::Progress(2), message(&events[2..])],
        1,
        "within a revision",
    );
}

#[test]
fn filters_and_ranges_say_what_is_to_be_seen() {
    let check = |watch: Watch, events: &[Seen]| check(&watch, &[message(events)], &log(), 5);
    let events = right();
    let one = Watch {
        key: "c".into(),
        end: None,
        previous: false,
        ..all()
    };
    assert_eq!(check(one.clone(), &events[2..3]), Verdict::Valid);
    assert!(check(one.clone(), &events[1..3]).is_violated());
    let deletes = Watch { puts: false, ..all() };
    assert_eq!(check(deletes.clone(), &events[3..4]), Verdict::Valid);
    assert!(check(deletes, &events[3..]).is_violated());
    let late = Watch { start: 5, ..all() };
    assert_eq!(check(late, &events[4..]), Verdict::Valid);
    let never = Watch {
        key: "q".into(),
        ..one
    };
    assert!(matches!(check(never, &[]), Verdict::Unknown(_)));
}

#[test]
fn without_the_whole_log_there_is_no_verdict() {
    let judge = |log: &BTreeMap<i64, Vec<Event>>, through| check(&all(), &[message(&right())], log, through);
    assert_eq!(judge(&log(), 5), Verdict::Valid);
    assert_eq!(
        judge(&log(), 6),
        Verdict::Unknown("the log does not tell of revision 6".into())
    );
    let mut holes = log();
    holes.remove(&3);
    assert_eq!(
        judge(&holes, 5),
        Verdict::Unknown("the log does not tell of revision 3".into())
    );
}
