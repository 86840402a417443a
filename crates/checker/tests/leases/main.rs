//! The judge of leases against brute force: tiny lives of a lease, right by construction and then with one or two things
//! changed.

use std::collections::BTreeMap;

use checker::Verdict;
use checker::history::Outcome;
use checker::lease::{self, Answer, Ask, Terms};

use brute::{Op, Truth};
use numbers::Numbers;

mod brute;
#[path = "../../src/numbers.rs"]
mod numbers;

const GRANT_NS: u64 = 2;

/// How the lease lives: it is renewed with some of what is asked, and ends at some moment that its terms allow.
struct Life {
    terms: Terms,
    term_ns: u64,
    end_ns: u64,
    over: bool,
}

impl Life {
    fn renew(&mut self, now_ns: u64, numbers: &mut Numbers) {
        let Terms {
            ttl_ns,
            drift_ns,
            grace_ns,
        } = self.terms;
        self.term_ns = now_ns;
        self.end_ns = now_ns + ttl_ns - drift_ns + numbers.below(drift_ns + grace_ns + 1);
    }

    fn answer(&mut self, ask: &Ask, now_ns: u64, numbers: &mut Numbers) -> Answer {
        self.over |= now_ns >= self.end_ns;
        match ask {
            Ask::Grant => Answer::Done,
            Ask::Read => Answer::There(!self.over),
            Ask::Revoke => {
                self.over = true;
                Answer::Done
            }
            Ask::KeepAlive => {
                if !self.over {
                    self.renew(now_ns, numbers);
                }
                Answer::Alive(!self.over)
            }
        }
    }
}

fn terms(numbers: &mut Numbers) -> Terms {
    Terms {
        ttl_ns: 3 + numbers.below(3),
        drift_ns: numbers.below(3),
        grace_ns: numbers.below(3),
    }
}

/// A history and the terms it is judged by.
#[derive(Debug, Clone)]
struct Case {
    terms: Terms,
    history: Vec<Op>,
}

/// A grant, and two to six operations of up to three clients.
fn right(numbers: &mut Numbers) -> Case {
    let terms = terms(numbers);
    let (call_ns, return_ns) = (numbers.below(GRANT_NS), GRANT_NS);
    let granted_ns = call_ns + numbers.below(return_ns - call_ns + 1);
    let mut life = Life {
        terms,
        term_ns: granted_ns,
        end_ns: 0,
        over: false,
    };
    life.renew(granted_ns, numbers);
    let mut history = vec![Op {
        client: 0,
        node: 1,
        call_ns,
        return_ns,
        ask: Ask::Grant,
        outcome: Outcome::Ok(Answer::Done),
    }];
    // Until when each client waits; the number under which it goes on.
    let mut clients = [(GRANT_NS + 1, 0), (GRANT_NS + 1, 10), (GRANT_NS + 1, 20)];
    let (clients_used, mut moment) = (1 + numbers.below(3), GRANT_NS + 1);
    // In half of the histories nobody revokes it, and nearly all is answered: these say most.
    let (asks, fates) = [(8, 8), (7, 24)][numbers.below(2) as usize];
    for _ in 0..2 + numbers.below(5) {
        let client = &mut clients[numbers.below(clients_used) as usize];
        let (free_ns, number) = *client;
        moment = free_ns.max(moment + numbers.below(5));
        let call_ns = moment - numbers.below((moment - free_ns).min(5) + 1);
        let ask = match numbers.below(asks) {
            7 => Ask::Revoke,
            0..4 => Ask::KeepAlive,
            _ => Ask::Read,
        };
        let fate = numbers.below(fates);
        let outcome = match fate {
            0 => Outcome::Failed("refused".into()),
            1 => Outcome::Unknown("lost before".into()),
            2 => {
                life.answer(&ask, moment, numbers);
                Outcome::Unknown("lost after".into())
            }
            _ => Outcome::Ok(life.answer(&ask, moment, numbers)),
        };
        let return_ns = if fate < 3 {
            call_ns
        } else {
            moment + numbers.below(5)
        };
        *client = (
            return_ns,
            number + u64::from(matches!(outcome, Outcome::Unknown(_))),
        );
        history.push(Op {
            client: number,
            node: 1,
            call_ns,
            return_ns,
            ask,
            outcome,
        });
    }
    Case { terms, history }
}

/// Changes something; may find nothing to change. The grant stays as it is.
type Spoil = fn(&mut Case, &mut Numbers);

const SPOILS: &[(&str, Spoil)] = &[
    ("an operation is not in the history", unrecorded),
    ("another answer", other_answer),
    ("all looks after it are the same", same_answers),
    ("another fate", other_fate),
    ("two answers change places", swapped_answers),
    ("it came before or after", shifted),
    ("it took longer or shorter", shifted_return),
    ("another client asked", other_client),
];

/// Any but the grant.
fn any<'h>(history: &'h mut [Op], numbers: &mut Numbers) -> Option<&'h mut Op> {
    let at = 1 + numbers.below(history.len() as u64) as usize;
    history.get_mut(at)
}

fn flip(operation: &mut Op, to: Option<bool>) {
    if let Outcome::Ok(Answer::Alive(found) | Answer::There(found)) = &mut operation.outcome {
        *found = to.unwrap_or(!*found);
    }
}

fn unrecorded(case: &mut Case, numbers: &mut Numbers) {
    if case.history.len() > 1 {
        case.history
            .remove(1 + numbers.below(case.history.len() as u64 - 1) as usize);
    }
}

fn other_answer(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        flip(operation, None);
    }
}

fn same_answers(case: &mut Case, numbers: &mut Numbers) {
    let from = 1 + numbers.below(case.history.len() as u64) as usize;
    let found = numbers.below(2) == 0;
    case.history[from..]
        .iter_mut()
        .for_each(|operation| flip(operation, Some(found)));
}

fn other_fate(case: &mut Case, numbers: &mut Numbers) {
    let last = case.history.len() as u64 - 1;
    if let Some(operation) = any(&mut case.history, numbers) {
        operation.outcome = match numbers.below(3) {
            0 => Outcome::Unknown("lost".into()),
            1 => Outcome::Failed("refused".into()),
            _ => Outcome::Ok(match operation.ask {
                Ask::Grant | Ask::Revoke => Answer::Done,
                Ask::KeepAlive => Answer::Alive(numbers.below(2) == 0),
                Ask::Read => Answer::There(numbers.below(2) == 0),
            }),
        };
        // Whose fate is unknown, asks no more under that name.
        operation.client += 300 * numbers.below(1 + last);
    }
}

fn swapped_answers(case: &mut Case, numbers: &mut Numbers) {
    let length = case.history.len() as u64;
    let (one, other) = (numbers.below(length) as usize, numbers.below(length) as usize);
    if case.history[one].ask == case.history[other].ask {
        let outcome = case.history[one].outcome.clone();
        case.history[one].outcome = std::mem::replace(&mut case.history[other].outcome, outcome);
    }
}

/// Nothing begins before the grant was answered.
fn shifted(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        let length = operation.return_ns.saturating_sub(operation.call_ns);
        let moved = operation.call_ns + numbers.below(16);
        operation.call_ns = moved.saturating_sub(8).max(GRANT_NS + 1);
        operation.return_ns = operation.call_ns + length;
        operation.client += 200 * numbers.below(2);
    }
}

fn shifted_return(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        operation.return_ns = match numbers.below(8) {
            0 => operation.return_ns.saturating_sub(numbers.below(8)),
            _ => operation.call_ns + numbers.below(12),
        };
        operation.client += 200 * numbers.below(2);
    }
}

fn other_client(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        operation.client = [0, 10, 20, 400][numbers.below(4) as usize];
    }
}

/// What the judge must say where brute force knows.
fn compare(case: &Case, what: &str) -> Truth {
    let truth = brute::judge(&case.history, case.terms);
    let verdict = lease::check(&case.history, case.terms);
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
fn says_what_every_end_says() {
    let mut numbers = Numbers(13);
    let mut counts: BTreeMap<(&str, Truth), u64> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let right = right(&mut numbers);
        assert_ne!(compare(&right, "right by construction"), Truth::Wrong);
        for _ in 0..2 {
            let mut case = right.clone();
            let (name, spoil) = SPOILS[numbers.below(SPOILS.len() as u64) as usize];
            spoil(&mut case, &mut numbers);
            if numbers.below(2) == 0 {
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
    assert!(count(Truth::Wrong).sum::<u64>() > all / 10, "{counts:?}");
    assert!(count(Truth::Right).sum::<u64>() > all / 3, "{counts:?}");
    // Each change is worth its place: it makes something wrong.
    for (name, _) in SPOILS {
        let wrong = counts.get(&(*name, Truth::Wrong)).copied().unwrap_or_default();
        assert!(wrong > all / 1000, "{name}: {counts:?}");
    }
}
