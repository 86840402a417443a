//! Judge `linear` and porcupine-rs, on the same histories of registers. Neither knows of the other: where they differ, one
//! is wrong, and the history is printed.
//!
//! porcupine-rs 0.3.0 says *illegal* when it runs out of time, if it is asked to explain as well. It is asked for the
//! verdict alone here, and given no limit of time: then it has two answers, and both are final.

use std::collections::BTreeMap;

use checker::history::{Operation, Outcome};
use checker::linear::{self, Model};
use checker::register::{Answer, Ask, Register};
use numbers::Numbers;

#[path = "../../src/numbers.rs"]
mod numbers;

/// What is asked of one of several registers.
type KeyAsk = (u64, Ask);
type Op = Operation<KeyAsk, Answer>;

/// The same operation as the other judge has it: question and answer in one; without an answer nobody saw it.
#[derive(Debug, Clone)]
struct Registers;

#[derive(Debug, Clone)]
struct Asked {
    key: u64,
    ask: Ask,
    answer: Option<Answer>,
}

impl porcupine_rs::Model for Registers {
    type State = Option<u64>;
    type Op = Asked;
    type Metadata = ();

    fn partition_operations(
        history: &[porcupine_rs::Operation<Self>],
    ) -> Vec<Vec<porcupine_rs::Operation<Self>>> {
        let mut keys: BTreeMap<u64, Vec<porcupine_rs::Operation<Self>>> = BTreeMap::new();
        for operation in history {
            keys.entry(operation.op.key).or_default().push(operation.clone());
        }
        keys.into_values().collect()
    }

    fn init() -> Option<u64> {
        None
    }

    // Written a second time, in its words: this is what the other model is compared with.
    fn step(state: &Option<u64>, asked: &Asked) -> (bool, Option<u64>) {
        let same = |right: Answer| asked.answer.as_ref().is_none_or(|answer| *answer == right);
        match asked.ask {
            Ask::Read => (same(Answer::Value(*state)), *state),
            Ask::Write(value) => (same(Answer::Done), Some(value)),
            Ask::Delete => (same(Answer::Done), None),
            Ask::Cas { from, to } => {
                let swaps = from == *state;
                (
                    same(Answer::Swapped(swaps)),
                    if swaps { Some(to) } else { *state },
                )
            }
        }
    }
}

/// What never happened is left out; what nobody heard of returns after everything.
fn theirs(history: &[Op]) -> Vec<porcupine_rs::Operation<Registers>> {
    let happened = history.iter().filter(|operation| !operation.is_failed());
    let as_theirs = happened.map(|operation| porcupine_rs::Operation {
        client_id: None,
        call_time: operation.call_ns as i64,
        return_time: if operation.is_unknown() {
            i64::MAX
        } else {
            operation.return_ns as i64
        },
        op: Asked {
            key: operation.ask.0,
            ask: operation.ask.1.clone(),
            answer: operation.answer().cloned(),
        },
        metadata: None,
    });
    as_theirs.collect()
}

fn ours(history: &[Op]) -> bool {
    let keys = linear::by_key(history, |(key, _)| *key);
    let mut right = true;
    for places in keys.values() {
        let of_key: Vec<Operation<Ask, Answer>> = places
            .iter()
            .map(|at| history[*at].asking(history[*at].ask.1.clone()))
            .collect();
        let verdict = linear::check(&Register, &of_key, u64::MAX);
        assert!(
            verdict.is_valid() || verdict.is_violated(),
            "{verdict:?} of {of_key:#?}"
        );
        right &= verdict.is_valid();
    }
    right
}

fn compare(history: &[Op]) -> bool {
    let right = ours(history);
    let second = porcupine_rs::check_operations(&theirs(history));
    assert_eq!(
        right, second,
        "linear says {right}, porcupine-rs {second}, of {history:#?}"
    );
    right
}

fn ask(values: u64, numbers: &mut Numbers) -> Ask {
    match numbers.below(6) {
        0..3 => Ask::Read,
        3 => Ask::Write(numbers.below(values)),
        4 => Ask::Cas {
            from: Some(numbers.below(values)).filter(|_| numbers.below(3) > 0),
            to: numbers.below(values),
        },
        _ => Ask::Delete,
    }
}

fn guess(ask: &Ask, values: u64, numbers: &mut Numbers) -> Answer {
    match ask {
        Ask::Read => Answer::Value(Some(numbers.below(values)).filter(|_| numbers.below(3) > 0)),
        Ask::Write(_) | Ask::Delete => Answer::Done,
        Ask::Cas { .. } => Answer::Swapped(numbers.below(2) == 0),
    }
}

/// Of registers that take each operation at a moment between call and return: right by construction. One in so many is of
/// unknown outcome: each is open for ever, so that either judge takes twice as long.
fn right(length: u64, keys: u64, unknown: u64, numbers: &mut Numbers) -> Vec<Op> {
    let mut held: BTreeMap<u64, u64> = BTreeMap::new();
    let spread = 1 + numbers.below(20);
    let one = |at: u64| {
        let (key, asked) = (numbers.below(keys), ask(4, numbers));
        let state = held.get(&key).copied();
        let answer = match asked {
            Ask::Read => Answer::Value(state),
            Ask::Write(_) | Ask::Delete => Answer::Done,
            Ask::Cas { from, .. } => Answer::Swapped(from == state),
        };
        let fate = numbers.below(unknown);
        // One that nobody heard of may not have happened.
        let happened = fate > 1 || (fate == 1 && numbers.below(2) == 0);
        let next = Register
            .step(&state, &asked, None)
            .filter(|_| happened)
            .unwrap_or(state);
        match next {
            Some(value) => held.insert(key, value),
            None => held.remove(&key),
        };
        Op {
            client: at,
            node: 1,
            call_ns: (5 * at).saturating_sub(numbers.below(spread)),
            return_ns: 5 * at + numbers.below(spread),
            ask: (key, asked),
            outcome: match fate {
                0 => Outcome::Failed("refused".into()),
                1 => Outcome::Unknown("lost".into()),
                _ => Outcome::Ok(answer),
            },
        }
    };
    (0..length).map(one).collect()
}

/// Changes one thing that a client saw, or when.
fn spoil(history: &mut Vec<Op>, numbers: &mut Numbers) {
    let at = numbers.below(history.len() as u64) as usize;
    match numbers.below(5) {
        0 => drop(history.remove(at)),
        1 => history[at].return_ns = history[at].call_ns,
        2 => {
            let length = history[at].return_ns - history[at].call_ns;
            history[at].call_ns = numbers.below(5 * history.len() as u64);
            history[at].return_ns = history[at].call_ns + length;
        }
        3 => history[at].outcome = Outcome::Unknown("lost".into()),
        _ => history[at].outcome = Outcome::Ok(guess(&history[at].ask.1, 4, numbers)),
    }
}

/// Drawn answers, at drawn times.
fn guessed(length: u64, numbers: &mut Numbers) -> Vec<Op> {
    let one = |client| {
        let (call_ns, asked) = (numbers.below(16), ask(3, numbers));
        Op {
            client,
            node: 1,
            call_ns,
            return_ns: call_ns + numbers.below(16),
            outcome: match numbers.below(9) {
                0 => Outcome::Failed("refused".into()),
                1 => Outcome::Unknown("lost".into()),
                _ => Outcome::Ok(guess(&asked, 3, numbers)),
            },
            ask: (0, asked),
        }
    };
    (0..length).map(one).collect()
}

#[test]
fn a_million_tiny_histories() {
    const ROUNDS: u64 = 1_000_000;
    let mut numbers = Numbers(23);
    let mut valid = 0;
    for round in 0..ROUNDS {
        let length = 2 + numbers.below(7);
        let history = if round % 4 == 0 {
            let mut history = right(length, 1, 10, &mut numbers);
            for _ in 0..1 + numbers.below(3) {
                // One stays: what changes next has something to change.
                if history.len() > 1 {
                    spoil(&mut history, &mut numbers);
                }
            }
            history
        } else {
            guessed(length, &mut numbers)
        };
        valid += u64::from(compare(&history));
    }
    println!("{valid} of {ROUNDS} have an order");
    assert!(valid > ROUNDS / 4 && valid < ROUNDS / 2, "{valid} of {ROUNDS}");
}

#[test]
fn long_histories_of_several_keys() {
    const ROUNDS: u64 = 2_000;
    let mut numbers = Numbers(24);
    let mut violated = 0;
    for round in 0..ROUNDS {
        let mut history = right(200, 2 + numbers.below(6), 100, &mut numbers);
        assert!(
            compare(&history),
            "history {round} is right by construction: {history:#?}"
        );
        for _ in 0..1 + numbers.below(3) {
            spoil(&mut history, &mut numbers);
        }
        violated += u64::from(!compare(&history));
    }
    println!("{violated} of {ROUNDS} changed histories have no order");
    assert!(
        violated > ROUNDS / 4 && violated < ROUNDS,
        "{violated} of {ROUNDS}"
    );
}
