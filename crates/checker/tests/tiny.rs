//! The special judges against brute force, on very many histories so small that it ends: most are wrong in some way. What
//! a judge promises is written here a second time, in the plainest way: every order, every pair, every subset.

use std::collections::{BTreeMap, BTreeSet};

use checker::history::{Operation, Outcome};
use checker::linear::{self, Model};
use checker::{Verdict, bank, counter, lock, set, unique};

/// Numbers that look random, the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

fn operation<A, R>(client: u64, numbers: &mut Numbers, ask: A, outcome: Outcome<R>) -> Operation<A, R> {
    let call_ns = numbers.below(14);
    Operation {
        client,
        node: 1,
        call_ns,
        return_ns: call_ns + 1 + numbers.below(8),
        ask,
        outcome,
    }
}

/// Mostly an answer.
fn outcome<R>(numbers: &mut Numbers, answer: R) -> Outcome<R> {
    match numbers.below(8) {
        0 => Outcome::Failed("refused".into()),
        1 => Outcome::Unknown("lost".into()),
        _ => Outcome::Ok(answer),
    }
}

/// Judges `rounds` histories both ways. A judge that finds no evidence may say so of what is right, and of nothing else.
fn compare<A: std::fmt::Debug, R: std::fmt::Debug, V: std::fmt::Debug>(
    rounds: u64,
    mut make: impl FnMut(&mut Numbers) -> Vec<Operation<A, R>>,
    judge: impl Fn(&[Operation<A, R>]) -> Verdict<V>,
    right: impl Fn(&[Operation<A, R>]) -> bool,
) {
    let mut numbers = Numbers(7);
    let (mut valid, mut violated) = (0, 0);
    for round in 0..rounds {
        let history = make(&mut numbers);
        let (verdict, expected) = (judge(&history), right(&history));
        assert_eq!(
            verdict.is_violated(),
            !expected,
            "round {round}: {verdict:?} for {history:#?}"
        );
        valid += u64::from(verdict.is_valid());
        violated += u64::from(verdict.is_violated());
    }
    assert!(
        valid > rounds / 20 && violated > rounds / 20,
        "{valid} valid, {violated} violated"
    );
}

/// One element: in or not. Asked `true`: add it.
struct Element;

impl Model for Element {
    type Ask = bool;
    type Answer = bool;
    type State = bool;

    fn initial(&self) -> bool {
        false
    }

    fn step(&self, state: &bool, add: &bool, answer: Option<&bool>) -> Option<bool> {
        let right = answer.is_none_or(|seen| *add || seen == state);
        right.then_some(*state || *add)
    }
}

/// How high, asked to add so much, or to tell.
struct Sum;

impl Model for Sum {
    type Ask = u64;
    type Answer = u64;
    type State = u64;

    fn initial(&self) -> u64 {
        0
    }

    fn step(&self, state: &u64, add: &u64, answer: Option<&u64>) -> Option<u64> {
        let right = answer.is_none_or(|seen| *add > 0 || seen == state);
        right.then_some(state + add)
    }
}

fn as_model<A, R, X, Y>(operation: &Operation<A, R>, ask: X, answer: impl Fn(&R) -> Y) -> Operation<X, Y> {
    Operation {
        client: operation.client,
        node: 1,
        call_ns: operation.call_ns,
        return_ns: operation.return_ns,
        ask,
        outcome: match &operation.outcome {
            Outcome::Ok(given) => Outcome::Ok(answer(given)),
            Outcome::Failed(text) => Outcome::Failed(text.clone()),
            Outcome::Unknown(text) => Outcome::Unknown(text.clone()),
        },
    }
}

/// Each element by itself has an order of its addition and the reads. (A judge of histories with an order of all
/// elements together is `linear`.)
fn set_is_right(history: &[Operation<set::Ask, set::Answer>]) -> bool {
    (0..4).all(|element| {
        let of_element = history
            .iter()
            .filter_map(|operation| match (&operation.ask, operation.answer()) {
                (set::Ask::Add(other), _) if *other != element => None,
                (set::Ask::Add(_), _) => Some(as_model(operation, true, |_| true)),
                (set::Ask::Read, _) => Some(as_model(operation, false, |answer| match answer {
                    set::Answer::Elements(elements) => elements.contains(&element),
                    set::Answer::Added => unreachable!("to a read"),
                })),
            });
        let of_element: Vec<_> = of_element.collect();
        linear::check(&Element, &of_element, u64::MAX).is_valid()
    })
}

#[test]
fn sets() {
    let make = |numbers: &mut Numbers| {
        let added = 1 + numbers.below(3);
        let mut history: Vec<_> = (0..added)
            .map(|element| {
                let outcome = outcome(numbers, set::Answer::Added);
                operation(element, numbers, set::Ask::Add(element), outcome)
            })
            .collect();
        for client in 0..1 + numbers.below(4) {
            // Now and then one that nobody added.
            let most = added + u64::from(numbers.below(12) == 0);
            let seen: BTreeSet<u64> = (0..most).filter(|_| numbers.below(3) > 0).collect();
            let answer = Outcome::Ok(set::Answer::Elements(seen));
            history.push(operation(10 + client, numbers, set::Ask::Read, answer));
        }
        history
    };
    compare(400_000, make, set::check, set_is_right);
}

/// Each read by itself has an order with the additions: then it is between the bounds, and since each adds 1, at each
/// value between them.
#[test]
fn counters() {
    let make = |numbers: &mut Numbers| {
        let mut history: Vec<_> = (0..1 + numbers.below(4))
            .map(|client| {
                let outcome = outcome(numbers, counter::Answer::Added);
                operation(client, numbers, counter::Ask::Add(1), outcome)
            })
            .collect();
        for client in 0..1 + numbers.below(3) {
            let answer = Outcome::Ok(counter::Answer::Value(numbers.below(5)));
            history.push(operation(10 + client, numbers, counter::Ask::Read, answer));
        }
        history
    };
    let right = |history: &[Operation<counter::Ask, counter::Answer>]| {
        let reads = history
            .iter()
            .filter(|operation| operation.ask == counter::Ask::Read);
        reads.into_iter().all(|read| {
            let alone = history.iter().filter_map(|operation| match operation.ask {
                counter::Ask::Add(amount) => Some(as_model(operation, amount, |_| 0)),
                counter::Ask::Read if operation.client == read.client => {
                    Some(as_model(operation, 0, |answer| match answer {
                        counter::Answer::Value(value) => *value,
                        counter::Answer::Added | counter::Answer::Again => unreachable!("to a read"),
                    }))
                }
                counter::Ask::Read => None,
            });
            linear::check(&Sum, &alone.collect::<Vec<_>>(), u64::MAX).is_valid()
        })
    };
    compare(400_000, make, counter::check, right);
}

/// Every pair: tokens differ, and follow the order of time; so do those of writes that were taken.
#[test]
fn locks() {
    let make = |numbers: &mut Numbers| -> Vec<Operation<lock::Ask, lock::Answer>> {
        let one = |client| {
            let token = numbers.below(9);
            let (ask, answer) = match numbers.below(5) {
                0..3 => (lock::Ask::Acquire, lock::Answer::Acquired(token)),
                3 => (
                    lock::Ask::Write(token),
                    lock::Answer::Written(numbers.below(3) > 0),
                ),
                _ => (lock::Ask::Release, lock::Answer::Released),
            };
            let outcome = outcome(numbers, answer);
            operation(client, numbers, ask, outcome)
        };
        (0..5).map(one).collect()
    };
    let right = |history: &[Operation<lock::Ask, lock::Answer>]| {
        let token =
            |operation: &Operation<lock::Ask, lock::Answer>| match (&operation.ask, operation.answer()) {
                (lock::Ask::Acquire, Some(lock::Answer::Acquired(token))) => Some((true, *token)),
                (lock::Ask::Write(token), Some(lock::Answer::Written(true))) => Some((false, *token)),
                _ => None,
            };
        let pairs = history.iter().enumerate().flat_map(|(at, one)| {
            let others = history.iter().enumerate().filter(move |(other, _)| *other != at);
            others.map(move |(_, other)| (one, other))
        });
        pairs
            .into_iter()
            .all(|(one, other)| match (token(one), token(other)) {
                (Some((true, first)), Some((true, second))) => {
                    first != second && (one.return_ns >= other.call_ns || first < second)
                }
                (Some((false, first)), Some((false, second))) => {
                    one.return_ns >= other.call_ns || first <= second
                }
                _ => true,
            })
    };
    compare(600_000, make, lock::check, right);
}

#[test]
fn unique_ids() {
    let make = |numbers: &mut Numbers| -> Vec<Operation<(), u64>> {
        let one = |client| {
            let id = numbers.below(12);
            let outcome = outcome(numbers, id);
            operation(client, numbers, (), outcome)
        };
        (0..4).map(one).collect()
    };
    let right = |history: &[Operation<(), u64>]| {
        let ids: Vec<u64> = history
            .iter()
            .filter_map(|operation| operation.answer().copied())
            .collect();
        ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
    };
    compare(400_000, make, unique::check, right);
}

/// Money moves in a bank that is right, and reads see it; then one balance of one read is another.
#[test]
fn banks() {
    let make = |numbers: &mut Numbers| {
        let mut balances: BTreeMap<u64, i64> = (0..3).map(|account| (account, 2)).collect();
        let mut history = Vec::new();
        for client in 0..6 {
            let (from, to, amount) = (numbers.below(3), numbers.below(3), 1 + numbers.below(2));
            let moved = from != to && balances[&from] >= amount as i64;
            if moved {
                *balances.entry(from).or_default() -= amount as i64;
                *balances.entry(to).or_default() += amount as i64;
            }
            let transfer = bank::Ask::Transfer { from, to, amount };
            let answer = Outcome::Ok(bank::Answer::Transferred(moved));
            history.push(operation(2 * client, numbers, transfer, answer));
            let mut seen = balances.clone();
            match numbers.below(20) {
                0 => *seen.entry(numbers.below(3)).or_default() += 1,
                1 => drop(seen.remove(&numbers.below(3))),
                2 => {
                    *seen.entry(0).or_default() -= 3;
                    *seen.entry(1).or_default() += 3;
                }
                _ => {}
            }
            let answer = Outcome::Ok(bank::Answer::Balances(seen));
            history.push(operation(2 * client + 1, numbers, bank::Ask::Read, answer));
        }
        history
    };
    let right = |history: &[Operation<bank::Ask, bank::Answer>]| {
        history.iter().all(|operation| match operation.answer() {
            Some(bank::Answer::Balances(seen)) => {
                let mut split = BTreeSet::new();
                for first in 0..=6 {
                    split.extend((0..=6 - first).map(|second| [first, second, 6 - first - second]));
                }
                split
                    .iter()
                    .any(|split| seen.values().eq(split.iter()) && seen.keys().eq([0, 1, 2].iter()))
            }
            _ => true,
        })
    };
    compare(100_000, make, |history| bank::check(history, 3, 6), right);
}
