//! Against brute force: every life that the table allows is tried, for looks so few that this ends.

use super::*;
use crate::history::Outcome;
use crate::numbers::Numbers;

/// An instance, in short: it may be lost and found again, and ends once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Pending,
    Starting,
    Ready,
    NotReady,
    Draining,
    Gone,
    /// In no row of the table.
    Unheard,
}

use State::*;

const STATES: [State; 7] = [Pending, Starting, Ready, NotReady, Draining, Gone, Unheard];
/// Nothing in these tests lives longer.
const STEPS: usize = 7;

fn table() -> Table<State> {
    Table::new(
        &[Pending],
        &[
            (Pending, &[Starting, Gone]),
            (Starting, &[Ready, Gone]),
            (Ready, &[NotReady, Draining]),
            (NotReady, &[Ready, Draining]),
            (Draining, &[Gone]),
        ],
    )
}

type Op = Operation<(), Option<Seen<State>>>;

fn look(client: u64, times: (u64, u64), seen: Option<(State, u64)>) -> Op {
    Operation {
        client,
        node: 1,
        call_ns: times.0,
        return_ns: times.1,
        ask: (),
        outcome: Outcome::Ok(seen.map(|(state, version)| Seen { state, version })),
    }
}

/// Every life of at most [`STEPS`] transitions.
fn lives() -> Vec<Vec<State>> {
    let table = table();
    let mut lives = vec![vec![Pending]];
    let mut newest = lives.clone();
    for _ in 0..STEPS {
        let longer = newest.iter().flat_map(|life| {
            let next = &table.next[life.last().expect("it begins")];
            next.iter()
                .map(|next| life.iter().copied().chain([*next]).collect())
        });
        newest = longer.collect();
        lives.extend(newest.clone());
    }
    lives
}

/// Whether the looks, in some order that their times allow, saw this life: each a moment of it, none an earlier one than
/// a look that had returned before it began.
fn saw(life: &[State], history: &[Op], done: u32, moment: usize) -> bool {
    let left = || (0..history.len()).filter(|at| done & (1 << at) == 0);
    let Some(first_return) = left().map(|at| history[at].return_ns).min() else {
        return true;
    };
    left()
        .filter(|at| history[*at].call_ns <= first_return)
        .any(|at| {
            let seen = history[at]
                .answer()
                .expect("all were answered")
                .expect("of something");
            (moment..life.len())
                .filter(|now| life[*now] == seen.state)
                .filter(|now| seen.version == 0 || seen.version == *now as u64 + 1)
                .any(|now| saw(life, history, done | 1 << at, now))
        })
}

fn brute_force(lives: &[Vec<State>], history: &[Op]) -> bool {
    lives.iter().any(|life| saw(life, history, 0, 0))
}

/// Looks at one life, at moments between their calls and returns.
fn right(lives: &[Vec<State>], looks: u64, versions: bool, numbers: &mut Numbers) -> Vec<Op> {
    let life = &lives[numbers.below(lives.len() as u64) as usize];
    let mut moment = 0;
    let look = |at| {
        moment += numbers.below((life.len() - moment).min(3) as u64) as usize;
        let version = if versions { moment as u64 + 1 } else { 0 };
        let times = (
            (10 * at as u64).saturating_sub(numbers.below(15)),
            10 * at as u64 + 1 + numbers.below(15),
        );
        look(at as u64, times, Some((life[moment], version)))
    };
    (0..looks as usize).map(look).collect()
}

fn spoil(history: &mut [Op], numbers: &mut Numbers) {
    let count = history.len() as u64;
    let (at, other) = (numbers.below(count) as usize, numbers.below(count) as usize);
    let outcome = history[at].outcome.clone();
    match numbers.below(4) {
        0 => history[at].outcome = std::mem::replace(&mut history[other].outcome, outcome),
        1 => history[at].return_ns = history[at].call_ns + 1,
        kind => {
            let Outcome::Ok(Some(seen)) = &mut history[at].outcome else {
                return;
            };
            if kind == 2 {
                seen.state = STATES[numbers.below(7) as usize];
            } else if seen.version > 0 {
                seen.version = 1 + numbers.below(STEPS as u64);
            }
        }
    }
}

/// Says that something is illegal only where brute force says so. With versions, always where it says so.
#[test]
fn says_what_brute_force_says() {
    let (lives, table) = (lives(), table());
    let mut numbers = Numbers(1);
    let mut counts = BTreeMap::new();
    for round in 0..60_000 {
        let versions = round % 2 == 0;
        let mut history = right(&lives, 2 + numbers.below(3), versions, &mut numbers);
        assert_eq!(
            check(&table, &history),
            Verdict::Valid,
            "round {round}: {history:#?}"
        );
        spoil(&mut history, &mut numbers);
        let legal = brute_force(&lives, &history);
        let verdict = check(&table, &history);
        assert!(
            legal || versions || !verdict.is_valid() || is_subtle(&history),
            "round {round}: {history:#?}"
        );
        if legal || versions {
            assert_eq!(
                verdict.is_valid(),
                legal,
                "round {round}: {verdict:?} for {history:#?}"
            );
        }
        *counts.entry((versions, legal)).or_insert(0) += 1;
    }
    assert!(
        counts.len() == 4 && counts.values().all(|count| *count > 1_000),
        "{counts:?}"
    );
}

/// Without versions, what took place at once is compared in pairs: an order of three that no pair shows passes.
fn is_subtle(history: &[Op]) -> bool {
    history.iter().enumerate().any(|(at, one)| {
        let mut others = history.iter().enumerate().filter(|(other, _)| *other != at);
        others.any(|(_, other)| one.call_ns <= other.return_ns && other.call_ns <= one.return_ns)
    })
}

#[test]
fn what_is_gone_stays_gone() {
    let table = table();
    let found = |history: &[Op]| match check(&table, history) {
        Verdict::Violated(found) => found.iter().map(|f| (f.before, f.operation)).collect(),
        verdict => vec![(None, usize::from(!verdict.is_valid()))],
    };
    let valid = [(None, 0)];
    let seen = |at: u64, state, version| look(at, (at, at + 1), Some((state, version)));
    let none = |at: u64| look(at, (at, at + 1), None);
    assert_eq!(found(&[none(0), seen(2, Pending, 1), seen(4, Ready, 3)]), valid);
    assert_eq!(found(&[seen(0, Pending, 0), seen(2, Gone, 0), none(4)]), valid);
    assert_eq!(found(&[seen(0, Pending, 0), seen(2, Ready, 0), none(4)]), valid);
    let back = [seen(0, Pending, 0), none(2), seen(4, Ready, 0)];
    assert_eq!(found(&back), [(Some(1), 2)]);
    assert_eq!(found(&[seen(0, Gone, 0), seen(2, Pending, 0)]), [(Some(0), 1)]);
    assert_eq!(found(&[seen(0, Unheard, 0), seen(2, Pending, 0)]), [(None, 0)]);
    assert_eq!(found(&[seen(0, Starting, 1), seen(2, Ready, 3)]), [(None, 0)]);
    assert_eq!(found(&[seen(0, Ready, 3), seen(2, NotReady, 3)]), [(None, 1)]);
    assert_eq!(found(&[seen(0, Ready, 5), seen(2, Ready, 3)]), [(Some(0), 1)]);
    assert!(matches!(
        check(&table, &[none(0), seen(2, Ready, 3)]),
        Verdict::Unknown(_)
    ));
    let for_ever = Table::new(&[Ready], &[(Ready, &[NotReady]), (NotReady, &[Ready])]);
    let ended = check(&for_ever, &[seen(0, Ready, 0), seen(2, NotReady, 0), none(4)]);
    assert!(ended.is_violated(), "it cannot end");
    assert!(table.is_final(Gone) && !table.is_final(Ready) && !table.is_final(Unheard));
}

#[test]
fn long_lives_are_judged_at_once() {
    let table = table();
    let seen = |at: u64, state, version| look(at, (at, at + 1), Some((state, version)));
    let odd = 2_000_000_000_000_000_001;
    let ready = [seen(0, Ready, 3), seen(2, Ready, odd), seen(4, NotReady, odd + 1)];
    assert_eq!(check(&table, &ready), Verdict::Valid);
    let late = [seen(0, Ready, 3), seen(2, Ready, odd + 1)];
    assert!(check(&table, &late).is_violated());
}
