//! The judge by revisions against brute force: histories so small that every order of their operations can be tried,
//! right by construction and then with one or two things changed.

use std::collections::BTreeMap;

use checker::{Verdict, revision};

use brute::Truth;
use make::Case;
use numbers::Numbers;
use spoil::SPOILS;

mod brute;
mod make;
#[path = "../../src/numbers.rs"]
mod numbers;
mod spoil;

/// What the judge must say where brute force knows.
fn compare(case: &Case, what: &str) -> Truth {
    let truth = brute::judge(&case.history, &case.log);
    let verdict = revision::check(&case.history, &case.log);
    let says = match verdict {
        Verdict::Valid => Truth::Right,
        Verdict::Violated(_) => Truth::Wrong,
        Verdict::Unknown(_) => Truth::NoEvidence,
    };
    assert_eq!(
        says, truth,
        "{what}: the judge says {verdict:?}, the other is true, of {case:#?}"
    );
    truth
}

/// Histories that are right; each is changed twice.
const ROUNDS: u64 = 250_000;

#[test]
fn says_what_every_order_says() {
    let mut numbers = Numbers(11);
    let mut counts: BTreeMap<(&str, Truth), u64> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let right = make::right(&mut numbers);
        assert_eq!(compare(&right, "right by construction"), Truth::Right);
        for _ in 0..2 {
            let mut case = right.clone();
            let (name, spoil) = SPOILS[numbers.below(SPOILS.len() as u64) as usize];
            spoil(&mut case, &mut numbers);
            if numbers.below(4) == 0 {
                let (_, spoil) = SPOILS[numbers.below(SPOILS.len() as u64) as usize];
                spoil(&mut case, &mut numbers);
            }
            *counts.entry((name, compare(&case, name))).or_default() += 1;
        }
    }
    let count = |truth| {
        let of_truth = counts.iter().filter(move |((_, of), _)| *of == truth);
        of_truth.map(|(_, count)| count)
    };
    let all = 2 * ROUNDS;
    println!(
        "{} wrong, {} right, {} without evidence",
        count(Truth::Wrong).sum::<u64>(),
        count(Truth::Right).sum::<u64>(),
        count(Truth::NoEvidence).sum::<u64>()
    );
    assert!(count(Truth::Wrong).sum::<u64>() > all / 5, "{counts:?}");
    assert!(count(Truth::Right).sum::<u64>() > all / 3, "{counts:?}");
    // Each change is worth its place: it makes much wrong, or takes the evidence.
    for (name, _) in SPOILS {
        let wrong = counts.get(&(*name, Truth::Wrong)).copied().unwrap_or_default();
        let untold = counts
            .get(&(*name, Truth::NoEvidence))
            .copied()
            .unwrap_or_default();
        assert!(wrong + untold > all / 500, "{name}: {counts:?}");
    }
}
