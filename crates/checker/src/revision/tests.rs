//! Histories of a store that is right by construction, and the same with one thing wrong.

use super::*;
use crate::history::Outcome;
use crate::numbers::Numbers;

fn key(numbers: &mut Numbers) -> String {
    format!("k{}", numbers.below(5))
}

type Log = BTreeMap<i64, Vec<Event>>;

fn put(at: u64, numbers: &mut Numbers) -> Ask {
    Ask::Put {
        key: key(numbers),
        value: format!("v{at}"),
        lease: 0,
    }
}

fn ask(at: u64, revision: i64, numbers: &mut Numbers) -> Ask {
    let end = |numbers: &mut Numbers| (numbers.below(2) == 0).then(|| "k4".to_owned());
    match numbers.below(8) {
        0..3 => put(at, numbers),
        3 => Ask::Delete {
            key: key(numbers),
            end: end(numbers),
        },
        4 => Ask::Txn {
            compare: vec![Compare::Version {
                key: key(numbers),
                version: numbers.below(2) as i64,
            }],
            success: vec![put(at, numbers)],
            failure: vec![Ask::Range {
                key: key(numbers),
                end: end(numbers),
                revision: 0,
                serializable: false,
            }],
        },
        5 => Ask::Range {
            key: key(numbers),
            end: end(numbers),
            revision: 1 + numbers.below(revision as u64) as i64,
            serializable: false,
        },
        _ => Ask::Range {
            key: key(numbers),
            end: end(numbers),
            revision: 0,
            serializable: false,
        },
    }
}

/// A store that takes each operation at a moment between call and return, and the log of what happened.
fn right(length: u64, numbers: &mut Numbers) -> (Vec<Operation>, Log) {
    let (mut store, mut revision) = (Store::default(), 1);
    let mut stores = vec![Store::default(), Store::default()];
    let (mut history, mut log) = (Vec::new(), Log::new());
    for at in 0..length {
        let asked = ask(at, revision, numbers);
        let (happens, lost) = match numbers.below(10) {
            0 => (false, None),
            1 => (numbers.below(2) == 0, Some(true)),
            _ => (true, Some(false)),
        };
        let past = match asked {
            Ask::Range { revision, .. } if revision > 0 => Some(&stores[revision as usize]),
            _ => None,
        };
        let (events, body) = changes(past.unwrap_or(&store), &asked, revision + 1);
        if happens && !events.is_empty() {
            revision += 1;
            store.apply(&events);
            stores.push(store.clone());
            log.insert(revision, events);
        }
        let moment = 10 * at;
        history.push(Operation {
            client: at,
            node: 1,
            call_ns: moment.saturating_sub(numbers.below(30)),
            return_ns: moment + 1 + numbers.below(30),
            ask: asked,
            outcome: match lost {
                None => Outcome::Failed("refused".into()),
                Some(true) => Outcome::Unknown("lost".into()),
                Some(false) => Outcome::Ok(Answer { revision, body }),
            },
        });
    }
    (history, log)
}

#[test]
fn passes_what_is_right() {
    let mut numbers = Numbers(1);
    for seed in 0..20_000 {
        let (history, log) = right(1 + numbers.below(40), &mut numbers);
        assert_eq!(
            check(&history, &log),
            Verdict::Valid,
            "seed {seed}: {history:#?} {log:#?}"
        );
    }
}

#[test]
fn judges_a_long_history() {
    let (history, log) = right(50_000, &mut Numbers(2));
    assert_eq!(check(&history, &log), Verdict::Valid);
}

/// What was recorded, and what happened.
struct Case {
    history: Vec<Operation>,
    log: Log,
}

/// Changes what the system did or said; false if this case has nothing to change that way.
type Fault = fn(&mut Case, &mut Numbers) -> bool;

fn pick(history: &[Operation], numbers: &mut Numbers, fits: impl Fn(&Operation) -> bool) -> Option<usize> {
    let all: Vec<usize> = (0..history.len()).filter(|at| fits(&history[*at])).collect();
    (!all.is_empty()).then(|| all[numbers.below(all.len() as u64) as usize])
}

fn wrote(operation: &Operation) -> bool {
    operation
        .answer()
        .is_some_and(|answer| executed(&operation.ask, &answer.body))
}

fn answer(operation: &mut Operation) -> &mut Answer {
    match &mut operation.outcome {
        Outcome::Ok(answer) => answer,
        Outcome::Failed(_) | Outcome::Unknown(_) => panic!("picked among the answered"),
    }
}

/// An acknowledged write is lost: everything after it moves down by one revision.
fn lost_write(case: &mut Case, numbers: &mut Numbers) -> bool {
    let Case { history, log } = case;
    let Some(at) = pick(history, numbers, wrote) else {
        return false;
    };
    let lost = answer(&mut history[at]).revision;
    let events = log.split_off(&lost);
    log.extend(
        events
            .into_iter()
            .skip(1)
            .map(|(revision, events)| (revision - 1, events)),
    );
    true
}

/// A failed write happened after all.
fn failed_write_happened(case: &mut Case, numbers: &mut Numbers) -> bool {
    let history = &mut case.history;
    let put = |operation: &Operation| wrote(operation) && matches!(operation.ask, Ask::Put { .. });
    let Some(at) = pick(history, numbers, put) else {
        return false;
    };
    history[at].outcome = Outcome::Failed("refused".into());
    true
}

/// Two writes get one revision.
fn revision_twice(case: &mut Case, numbers: &mut Numbers) -> bool {
    let history = &mut case.history;
    let Some(one) = pick(history, numbers, wrote) else {
        return false;
    };
    let Some(other) = pick(history, numbers, wrote) else {
        return false;
    };
    let revision = answer(&mut history[one]).revision;
    answer(&mut history[other]).revision = revision;
    one != other
}

/// A read that began after a write had returned does not see it.
fn stale_read(case: &mut Case, numbers: &mut Numbers) -> bool {
    let Case { history, log } = case;
    let Some(at) = pick(history, numbers, wrote) else {
        return false;
    };
    let (returned, seen) = (history[at].return_ns, answer(&mut history[at]).revision);
    let mut store = Store::default();
    log.range(..seen).for_each(|(_, events)| store.apply(events));
    let ask = Ask::Range {
        key: "k0".into(),
        end: Some("k9".into()),
        revision: 0,
        serializable: false,
    };
    let (_, body) = changes(&store, &ask, 0);
    let revision = seen - 1;
    history.push(Operation {
        client: u64::MAX,
        node: 1,
        call_ns: returned + 1,
        return_ns: returned + 2,
        ask,
        outcome: Outcome::Ok(Answer { revision, body }),
    });
    true
}

/// A read sees a value that another revision had.
fn wrong_value(case: &mut Case, numbers: &mut Numbers) -> bool {
    let history = &mut case.history;
    let body = |operation: &Operation| operation.answer().map(|answer| answer.body.clone());
    let reads =
        |operation: &Operation| matches!(body(operation), Some(Body::Range(pairs)) if !pairs.is_empty());
    let Some(at) = pick(history, numbers, reads) else {
        return false;
    };
    let Body::Range(pairs) = &mut answer(&mut history[at]).body else {
        return false;
    };
    pairs[0].version += 1;
    true
}

/// A transaction says that it took the other way.
fn wrong_branch(case: &mut Case, numbers: &mut Numbers) -> bool {
    let history = &mut case.history;
    let txn = |operation: &Operation| {
        matches!(
            operation.answer().map(|answer| &answer.body),
            Some(Body::Txn { .. })
        )
    };
    let Some(at) = pick(history, numbers, txn) else {
        return false;
    };
    let Body::Txn { succeeded, .. } = &mut answer(&mut history[at]).body else {
        return false;
    };
    *succeeded = !*succeeded;
    true
}

/// Two revisions change places in the log. (Two deletes may: they do not say when they happened.)
fn reordered(case: &mut Case, numbers: &mut Numbers) -> bool {
    let log = &mut case.log;
    if log.len() < 2 {
        return false;
    }
    let first = 2 + numbers.below(log.len() as u64 - 1) as i64;
    let (one, other) = (log[&first].clone(), log[&(first + 1)].clone());
    if !one
        .iter()
        .chain(&other)
        .any(|event| matches!(event, Event::Put(_)))
    {
        return false;
    }
    log.insert(first, other);
    log.insert(first + 1, one);
    true
}

#[test]
fn finds_every_fault() {
    let faults: &[(&str, Fault)] = &[
        ("a lost write", lost_write),
        ("a failed write that happened", failed_write_happened),
        ("one revision for two", revision_twice),
        ("a stale read", stale_read),
        ("a wrong value", wrong_value),
        ("a wrong branch", wrong_branch),
        ("revisions out of order", reordered),
    ];
    let mut numbers = Numbers(3);
    for (name, fault) in faults {
        let mut made = 0;
        while made < 2_000 {
            let (history, log) = right(30, &mut numbers);
            let mut case = Case { history, log };
            if !fault(&mut case, &mut numbers) {
                continue;
            }
            made += 1;
            let verdict = check(&case.history, &case.log);
            let Case { history, log } = case;
            assert!(
                verdict.is_violated(),
                "{name}: {verdict:?} for {history:#?} {log:#?}"
            );
        }
    }
}

#[test]
fn without_evidence_there_is_no_verdict() {
    let (history, mut log) = right(40, &mut Numbers(4));
    log.remove(&3);
    assert_eq!(
        check(&history, &log),
        Verdict::Unknown("the log does not tell of revision 3".into())
    );
}

fn delete_a() -> Ask {
    Ask::Delete {
        key: "a".into(),
        end: None,
    }
}

fn read_a(revision: i64) -> Ask {
    Ask::Range {
        key: "a".into(),
        end: None,
        revision,
        serializable: false,
    }
}

fn put_v(key: &str) -> Ask {
    Ask::Put {
        key: key.into(),
        value: "v".into(),
        lease: 0,
    }
}

/// One operation, of a client of its own for each call.
fn operation((call_ns, return_ns): (u64, u64), ask: Ask, outcome: Outcome<Answer>) -> Operation {
    Operation {
        client: call_ns,
        node: 1,
        call_ns,
        return_ns,
        ask,
        outcome,
    }
}

fn answered(times: (u64, u64), ask: Ask, revision: i64, body: Body) -> Operation {
    operation(times, ask, Outcome::Ok(Answer { revision, body }))
}

fn lost(call_ns: u64, ask: Ask) -> Operation {
    operation((call_ns, call_ns), ask, Outcome::Unknown("lost".into()))
}

/// The log of operations that did something, one revision each.
fn logged(asks: &[Ask]) -> Log {
    let (mut store, mut log) = (Store::default(), Log::new());
    for (revision, ask) in (2..).zip(asks) {
        let (events, _) = changes(&store, ask, revision);
        store.apply(&events);
        log.insert(revision, events);
    }
    log
}

/// Both lost deletes fit revision 3, and only the first fits revision 6.
#[test]
fn what_is_unknown_is_laid_where_it_explains_most() {
    let both = Ask::Delete {
        key: "a".into(),
        end: Some("c".into()),
    };
    let log = logged(&[put_v("a"), delete_a(), put_v("a"), put_v("b"), both.clone()]);
    let put = |times, key, revision| answered(times, put_v(key), revision, Body::Put(None));
    let mut history = vec![
        put((1, 9), "a", 2),
        put((2, 9), "a", 4),
        put((3, 9), "b", 5),
        lost(4, both),
        lost(5, delete_a()),
    ];
    assert_eq!(check(&history, &log), Verdict::Valid);
    // It began after revision 5 was seen: it cannot have made 3, and the other cannot have made both.
    history[4].call_ns = 10;
    history[4].return_ns = 10;
    assert!(check(&history, &log).is_violated());
}

/// The revision that an answer carries is judged even where it was not asked as of that.
#[test]
fn a_read_of_the_past_tells_no_revision_beyond_the_log() {
    let log = logged(&[put_v("a")]);
    let read = |revision| {
        vec![
            answered((0, 1), put_v("a"), 2, Body::Put(None)),
            answered((2, 3), read_a(1), revision, Body::Range(Vec::new())),
        ]
    };
    assert_eq!(check(&read(2), &log), Verdict::Valid);
    assert!(check(&read(3), &log).is_violated());
}

/// Simulated time stands still between an answer and the next question.
#[test]
fn a_client_sees_its_own_write_in_the_same_moment() {
    let log = logged(&[put_v("a")]);
    let mut history = vec![
        answered((0, 5), put_v("a"), 2, Body::Put(None)),
        answered((5, 9), read_a(0), 1, Body::Range(Vec::new())),
    ];
    assert_eq!(check(&history, &log), Verdict::Valid, "another client's");
    history[1].client = history[0].client;
    assert!(check(&history, &log).is_violated());
}

/// An operation of unknown outcome that does nothing explains nothing.
#[test]
fn an_empty_revision_is_no_evidence() {
    let history = [lost(0, read_a(0))];
    let log = Log::from([(2, Vec::new())]);
    assert_eq!(
        check(&history, &log),
        Verdict::Unknown("the log does not tell of revision 2".into())
    );
}
