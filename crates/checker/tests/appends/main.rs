//! The judge of lists against brute force: histories so small that every order of their transactions can be tried, right by
//! construction and then with one or two things changed. Then long ones, with a change that leaves no order.

use checker::append::{self, Step, Transaction};

use numbers::Numbers;
use spoil::SPOILS;

mod brute;
mod long;
mod make;
#[path = "../../src/numbers.rs"]
mod numbers;
mod spoil;

/// The elements of a list, to be shortened, or to have some in other places.
fn seen(step: &mut Step) -> Option<&mut Vec<u64>> {
    match step {
        Step::Read { seen, .. } => seen.as_mut(),
        Step::Append { .. } => None,
    }
}

/// Judges a history both ways. Says whether it is right.
fn compare(history: &[Transaction], what: &str) -> bool {
    let right = brute::right(history);
    let verdict = append::check(history);
    assert_eq!(verdict.is_valid(), right, "{what}: {verdict:?} of {history:#?}");
    assert_eq!(
        verdict.is_violated(),
        !right,
        "{what}: {verdict:?} of {history:#?}"
    );
    right
}

/// Histories that are right; each is then changed.
const ROUNDS: u64 = 70_000;

#[test]
fn says_what_every_order_says() {
    let mut numbers = Numbers(17);
    let (mut right, mut wrong) = (0, vec![0; SPOILS.len()]);
    for _ in 0..ROUNDS {
        let length = 2 + numbers.below(4);
        let mut history = make::right(length, 1 + numbers.below(3), &mut numbers);
        assert!(compare(&history, "right by construction"), "{history:#?}");
        let at = numbers.below(SPOILS.len() as u64) as usize;
        let (name, spoil) = SPOILS[at];
        spoil(&mut history, &mut numbers);
        if numbers.below(4) == 0 {
            let (_, spoil) = SPOILS[numbers.below(SPOILS.len() as u64) as usize];
            spoil(&mut history, &mut numbers);
        }
        match compare(&history, name) {
            true => right += 1,
            false => wrong[at] += 1,
        }
    }
    println!("{ROUNDS} right, then changed: {right} right, {wrong:?} wrong");
    assert!(right > ROUNDS / 3 && right < ROUNDS * 2 / 3, "{right} right");
    // Each change is worth its place.
    for ((name, _), wrong) in SPOILS.iter().zip(wrong) {
        assert!(wrong > ROUNDS / 200, "{name}: made {wrong} wrong");
    }
}

/// What is seen is drawn: few of these have an order, and those that do were not made to have one.
#[test]
fn says_what_every_order_says_of_guesses() {
    let mut numbers = Numbers(18);
    let mut right = 0;
    for _ in 0..ROUNDS {
        let mut history = make::right(2 + numbers.below(3), 1 + numbers.below(2), &mut numbers);
        spoil::guess(&mut history, &mut numbers);
        right += u64::from(compare(&history, "guessed"));
    }
    println!("{right} of {ROUNDS} guesses right");
    assert!(right > ROUNDS / 20 && right < ROUNDS / 2, "{right} of {ROUNDS}");
}
