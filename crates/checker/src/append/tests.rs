//! Histories of a few transactions, each with one thing to say. Very many more: `tests/appends`.

use super::*;

fn read(key: &str, seen: &[u64]) -> Step {
    Step::Read {
        key: key.into(),
        seen: Some(seen.to_vec()),
    }
}

fn append(key: &str, value: u64) -> Step {
    Step::Append {
        key: key.into(),
        value,
    }
}

fn transaction(client: u64, times: (u64, u64), steps: &[Step]) -> Transaction {
    let unseen = |step: &Step| match step {
        Step::Read { key, .. } => Step::Read {
            key: key.clone(),
            seen: None,
        },
        Step::Append { .. } => step.clone(),
    };
    Operation {
        client,
        node: 1,
        call_ns: times.0,
        return_ns: times.1,
        ask: steps.iter().map(unseen).collect(),
        outcome: Outcome::Ok(steps.to_vec()),
    }
}

fn kinds(history: &[Transaction]) -> Vec<(String, Vec<usize>)> {
    match check(history) {
        Verdict::Violated(found) => found
            .into_iter()
            .map(|found| (found.kind, found.operations))
            .collect(),
        verdict => vec![(format!("{verdict:?}"), Vec::new())],
    }
}

#[test]
fn says_what_is_no_order_of_transactions() {
    let valid = [("Valid".to_owned(), Vec::new())];
    let in_turn = [
        transaction(1, (0, 1), &[append("x", 1)]),
        transaction(2, (2, 3), &[read("x", &[1]), append("x", 2)]),
        transaction(1, (4, 5), &[read("x", &[1, 2])]),
    ];
    assert_eq!(kinds(&in_turn), valid);
    let skew = [
        transaction(1, (0, 9), &[read("y", &[]), append("x", 1)]),
        transaction(2, (1, 8), &[read("x", &[]), append("y", 1)]),
        transaction(3, (10, 11), &[read("x", &[1]), read("y", &[1])]),
    ];
    assert_eq!(kinds(&skew), [("G2-item".to_owned(), vec![0, 1])]);
    let stale = [
        transaction(1, (0, 1), &[append("x", 1)]),
        transaction(2, (2, 3), &[read("x", &[])]),
        transaction(3, (4, 5), &[read("x", &[1])]),
    ];
    assert_eq!(kinds(&stale), [("G-single-item-realtime".to_owned(), vec![0, 1])]);
    let mut failed = in_turn.clone();
    failed[0].outcome = Outcome::Failed("refused".into());
    assert!(
        kinds(&failed).iter().any(|(kind, _)| kind == "G1a"),
        "{:?}",
        kinds(&failed)
    );
}

#[test]
fn an_unknown_transaction_may_have_happened() {
    let mut history = vec![
        transaction(1, (0, 1), &[append("x", 1)]),
        transaction(2, (2, 3), &[read("x", &[1])]),
    ];
    history[0].outcome = Outcome::Unknown("lost".into());
    assert_eq!(check(&history), Verdict::Valid);
}

/// Where no transaction depends on another, every order is right.
#[test]
fn what_says_nothing_is_no_anomaly() {
    assert_eq!(check(&[]), Verdict::Valid);
    let apart = [
        transaction(1, (0, 9), &[read("x", &[])]),
        transaction(2, (0, 9), &[append("y", 1)]),
    ];
    assert_eq!(check(&apart), Verdict::Valid);
}

#[test]
fn elements_come_from_somewhere_and_stay_together() {
    let alone = [transaction(1, (0, 1), &[read("x", &[7])])];
    assert_eq!(kinds(&alone), [("unwritten".to_owned(), vec![0])]);
    let elsewhere = [
        transaction(1, (0, 1), &[append("y", 7)]),
        transaction(2, (2, 3), &[read("x", &[7])]),
    ];
    assert_eq!(kinds(&elsewhere), [("unwritten".to_owned(), vec![1])]);
    let seen = |seen| {
        [
            transaction(1, (0, 1), &[append("x", 1), append("y", 9), append("x", 2)]),
            transaction(2, (2, 3), &[append("x", 3), read("x", seen), append("x", 4)]),
        ]
    };
    assert_eq!(check(&seen(&[1, 2, 3])), Verdict::Valid);
    assert_eq!(kinds(&seen(&[2, 1, 3])), [("torn".to_owned(), vec![1, 0])]);
}

#[test]
fn a_client_may_ask_when_it_is_answered() {
    let mut history = [
        transaction(1, (0, 5), &[append("x", 1)]),
        transaction(1, (5, 9), &[read("x", &[1])]),
        transaction(2, (10, 11), &[read("x", &[])]),
    ];
    assert!(kinds(&history)[0].0.starts_with('G'), "{:?}", kinds(&history));
    history[2] = transaction(2, (4, 11), &[read("x", &[])]);
    assert_eq!(check(&history), Verdict::Valid);
    // Numbers of clients may be as large as they like.
    history[2] = transaction(u64::MAX, (10, 11), &[read("x", &[])]);
    assert!(check(&history).is_violated());
}

#[test]
fn what_no_client_could_have_seen_is_undecided() {
    let good = transaction(1, (0, 1), &[append("x", 1), read("x", &[1])]);
    let with = |steps: &[Step]| Transaction {
        outcome: Outcome::Ok(steps.to_vec()),
        ..good.clone()
    };
    let unseen = Step::Read {
        key: "x".into(),
        seen: None,
    };
    for steps in [
        &[append("x", 1)][..],
        &[append("x", 1), read("x", &[1]), read("x", &[1])],
        &[append("x", 2), read("x", &[1])],
        &[append("x", 1), read("y", &[])],
        &[append("x", 1), append("x", 2)],
        &[append("x", 1), unseen],
    ] {
        let verdict = check(&[with(steps)]);
        let text = "operation 0: the answer is not to what was asked";
        assert_eq!(verdict, Verdict::Unknown(text.into()), "{steps:?}");
    }
    let again = [good.clone(), transaction(2, (2, 3), &[append("x", 1)])];
    let text = "operation 1: 1 is appended to x a second time";
    assert_eq!(check(&again), Verdict::Unknown(text.into()));
    let early = transaction(1, (3, 2), &[append("x", 1)]);
    assert!(matches!(check(&[early]), Verdict::Unknown(_)));
}
