//! Against brute force: every order that the times allow is tried, for histories so small that this ends.

use super::*;
use crate::numbers::Numbers;
use crate::register::{Answer, Ask, Register};

type Op = Operation<Ask, Answer>;

/// Tries every order: next is any operation that was called before all that are left returned.
fn brute_force(history: &[Op], done: u32, state: Option<u64>) -> bool {
    let left = || {
        let live = |at: &usize| done & (1 << at) == 0 && !history[*at].is_failed();
        (0..history.len()).filter(live)
    };
    if left().all(|at| history[at].is_unknown()) {
        return true;
    }
    let first_return = left()
        .filter(|at| !history[*at].is_unknown())
        .map(|at| history[at].return_ns)
        .min();
    left()
        .filter(|at| Some(history[*at].call_ns) <= first_return)
        .any(|at| {
            Register
                .step(&state, &history[at].ask, history[at].answer())
                .is_some_and(|next| brute_force(history, done | 1 << at, next))
        })
}

fn ask(numbers: &mut Numbers) -> Ask {
    match numbers.below(5) {
        0 | 1 => Ask::Read,
        2 => Ask::Write(numbers.below(3)),
        3 => Ask::Cas {
            from: Some(numbers.below(3)).filter(|from| *from > 0),
            to: numbers.below(3),
        },
        _ => Ask::Delete,
    }
}

/// Answers at random: most such histories are wrong.
fn guess(ask: &Ask, numbers: &mut Numbers) -> Answer {
    match ask {
        Ask::Read => Answer::Value(Some(numbers.below(3)).filter(|_| numbers.below(3) > 0)),
        Ask::Write(_) | Ask::Delete => Answer::Done,
        Ask::Cas { .. } => Answer::Swapped(numbers.below(2) == 0),
    }
}

/// Of a register that takes each operation at a random moment between call and return: right by construction.
fn right(length: u64, unknown: bool, numbers: &mut Numbers) -> Vec<Op> {
    let mut state = None;
    let mut history = Vec::new();
    for at in 0..length {
        let moment = 10 * at;
        let asked = ask(numbers);
        let outcome = match numbers.below(8) {
            0 => Outcome::Failed("refused".into()),
            kind => {
                let answer = [
                    Answer::Value(state),
                    Answer::Done,
                    Answer::Swapped(true),
                    Answer::Swapped(false),
                ];
                let fits = |answer: &&Answer| Register.step(&state, &asked, Some(answer)).is_some();
                let answer = answer.iter().find(fits).expect("one of them is right").clone();
                // One that nobody heard of may not have happened.
                let lost = unknown && kind == 1;
                if !lost || numbers.below(2) == 0 {
                    state = Register
                        .step(&state, &asked, None)
                        .expect("a register takes everything");
                }
                if lost {
                    Outcome::Unknown("lost".into())
                } else {
                    Outcome::Ok(answer)
                }
            }
        };
        history.push(Op {
            client: at,
            node: 1,
            call_ns: moment.saturating_sub(numbers.below(35)),
            return_ns: moment + 1 + numbers.below(35),
            ask: asked,
            outcome,
        });
    }
    history
}

/// Changes one thing that a client saw, or when.
fn spoil(history: &mut Vec<Op>, numbers: &mut Numbers) {
    let at = numbers.below(history.len() as u64) as usize;
    let other = numbers.below(history.len() as u64) as usize;
    match numbers.below(4) {
        0 => drop(history.remove(at)),
        1 => {
            let outcome = history[at].outcome.clone();
            history[at].outcome = std::mem::replace(&mut history[other].outcome, outcome);
        }
        2 => history[at].return_ns = history[at].call_ns + 1,
        _ => {
            let guessed = guess(&history[at].ask, numbers);
            history[at].outcome = Outcome::Ok(guessed);
        }
    }
}

fn compare(history: &[Op], seed: u64) -> bool {
    let expected = brute_force(history, 0, None);
    let verdict = check(&Register, history, u64::MAX);
    assert_eq!(
        verdict.is_valid(),
        expected,
        "history {seed}: {verdict:?} for {history:#?}"
    );
    assert_eq!(verdict.is_violated(), !expected, "history {seed}");
    expected
}

#[test]
fn says_what_brute_force_says() {
    let mut numbers = Numbers(1);
    let (mut valid, mut violated) = (0, 0);
    for seed in 0..400_000 {
        let history: Vec<Op> = (0..2 + numbers.below(5))
            .map(|client| {
                let (call_ns, asked) = (numbers.below(12), ask(&mut numbers));
                Op {
                    client,
                    node: 1,
                    call_ns,
                    return_ns: call_ns + 1 + numbers.below(12),
                    outcome: match numbers.below(9) {
                        0 => Outcome::Failed("refused".into()),
                        1 => Outcome::Unknown("lost".into()),
                        _ => Outcome::Ok(guess(&asked, &mut numbers)),
                    },
                    ask: asked,
                }
            })
            .collect();
        *(if compare(&history, seed) {
            &mut valid
        } else {
            &mut violated
        }) += 1;
    }
    assert!(
        valid > 50_000 && violated > 50_000,
        "{valid} valid, {violated} violated"
    );
}

#[test]
fn passes_what_is_right_and_finds_each_change_that_makes_it_wrong() {
    let mut numbers = Numbers(2);
    let mut found = 0;
    for seed in 0..300_000 {
        let mut history = right(4 + numbers.below(5), true, &mut numbers);
        assert_eq!(
            check(&Register, &history, u64::MAX),
            Verdict::Valid,
            "history {seed}: {history:#?}"
        );
        spoil(&mut history, &mut numbers);
        found += u64::from(!compare(&history, seed));
    }
    assert!(found > 50_000, "only {found} changes made a history wrong");
}

fn op(client: u64, times: (u64, u64), ask: Ask, answer: Answer) -> Op {
    Op {
        client,
        node: 1,
        call_ns: times.0,
        return_ns: times.1,
        ask,
        outcome: Outcome::Ok(answer),
    }
}

#[test]
fn names_the_first_answer_that_cannot_be() {
    let history = vec![
        op(1, (0, 1), Ask::Write(1), Answer::Done),
        op(1, (2, 3), Ask::Write(2), Answer::Done),
        op(2, (4, 5), Ask::Read, Answer::Value(Some(1))),
        op(2, (6, 7), Ask::Read, Answer::Value(Some(2))),
    ];
    let expected = Impossible {
        operation: 2,
        prefix: vec![0, 1],
        states: vec![Some(2)],
    };
    assert_eq!(check(&Register, &history, u64::MAX), Verdict::Violated(expected));
}

#[test]
fn what_takes_too_long_is_undecided() {
    let mut history: Vec<Op> = (0..30)
        .map(|client| op(client, (0, 100), Ask::Write(client), Answer::Done))
        .collect();
    history.push(op(99, (101, 102), Ask::Read, Answer::Value(Some(77))));
    let verdict = check(&Register, &history, 100_000);
    assert_eq!(verdict, Verdict::Unknown("too many orders to try".into()));
    let crowd: Vec<Op> = (0..=OPEN as u64)
        .map(|client| op(client, (0, 100), Ask::Read, Answer::Value(None)))
        .collect();
    assert!(matches!(check(&Register, &crowd, u64::MAX), Verdict::Unknown(_)));
}

#[test]
fn a_long_history_of_one_key_takes_no_longer_for_being_long() {
    let mut numbers = Numbers(3);
    let history = right(100_000, false, &mut numbers);
    assert_eq!(check(&Register, &history, 50_000_000), Verdict::Valid);
}

#[test]
fn what_no_client_could_have_seen_is_undecided() {
    let history = vec![
        op(1, (0, 1), Ask::Write(1), Answer::Done),
        op(2, (9, 8), Ask::Read, Answer::Value(Some(7))),
    ];
    assert!(matches!(
        check(&Register, &history, u64::MAX),
        Verdict::Unknown(_)
    ));
}

#[test]
fn keys_are_judged_by_themselves() {
    let on = |client, times, key: &'static str, ask, answer| {
        let operation = op(client, times, ask, answer);
        (key, operation)
    };
    let both = [
        on(1, (0, 1), "a", Ask::Write(1), Answer::Done),
        on(1, (2, 3), "b", Ask::Read, Answer::Value(None)),
        on(2, (4, 5), "a", Ask::Read, Answer::Value(Some(2))),
    ];
    let history: Vec<Operation<&str, ()>> = both
        .iter()
        .map(|(key, operation)| Operation {
            client: operation.client,
            node: operation.node,
            call_ns: operation.call_ns,
            return_ns: operation.return_ns,
            ask: *key,
            outcome: Outcome::Ok(()),
        })
        .collect();
    let keys = by_key(&history, |key| *key);
    let judged: Vec<bool> = keys
        .values()
        .map(|places| places.iter().map(|at| both[*at].1.clone()).collect::<Vec<Op>>())
        .map(|of_key| check(&Register, &of_key, u64::MAX).is_valid())
        .collect();
    assert_eq!(
        (keys.into_keys().collect::<Vec<_>>(), judged),
        (vec!["a", "b"], vec![false, true])
    );
}
