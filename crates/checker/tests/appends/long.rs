//! Long histories that are right by construction, each with a change that leaves no order, whatever else is in it. Brute
//! force would not end here: each change says why it is one.

#![expect(
    clippy::ptr_arg,
    reason = "all changes have one signature, and some of them add or take away"
)]

use std::collections::BTreeMap;

use checker::append::{self, Step, Transaction};
use checker::history::Outcome;

use crate::make;
use crate::numbers::Numbers;

/// Finds where the change can be made, and makes it in one of the places; `None` if there is none.
type Change = fn(&mut Vec<Transaction>, &mut Numbers) -> Option<()>;

/// A read: its transaction, its step, its list, and what it saw.
struct Read {
    at: usize,
    step: usize,
    key: String,
    seen: Vec<u64>,
}

fn reads(history: &[Transaction]) -> Vec<Read> {
    let mut reads = Vec::new();
    for (at, transaction) in history.iter().enumerate() {
        for (step, read) in transaction.answer().into_iter().flatten().enumerate() {
            if let Step::Read {
                key,
                seen: Some(seen),
            } = read
            {
                let (key, seen) = (key.clone(), seen.clone());
                reads.push(Read { at, step, key, seen });
            }
        }
    }
    reads
}

/// Who appended each element. No two lists have the same.
fn writers(history: &[Transaction]) -> BTreeMap<u64, usize> {
    let of = |(at, transaction): (usize, &Transaction)| {
        let appended = transaction.ask.iter().filter_map(move |step| match step {
            Step::Append { value, .. } => Some((*value, at)),
            Step::Read { .. } => None,
        });
        appended.collect::<Vec<_>>()
    };
    history.iter().enumerate().flat_map(of).collect()
}

fn pick<T>(mut all: Vec<T>, numbers: &mut Numbers) -> Option<T> {
    let at = numbers.below(all.len().max(1) as u64) as usize;
    (at < all.len()).then(|| all.swap_remove(at))
}

/// Changes what one read saw.
fn change(history: &mut [Transaction], read: &Read, how: impl FnOnce(&mut Vec<u64>)) {
    if let Outcome::Ok(steps) = &mut history[read.at].outcome
        && let Some(seen) = crate::seen(&mut steps[read.step])
    {
        how(seen);
    }
}

fn change_all(history: &mut [Transaction], mut how: impl FnMut(&mut Vec<u64>)) {
    for read in reads(history) {
        change(history, &read, &mut how);
    }
}

/// What is asked of one list, by its appends.
fn appends_to<'h>(key: &'h str, transaction: &'h Transaction) -> impl Iterator<Item = u64> + 'h {
    transaction.ask.iter().filter_map(move |step| match step {
        Step::Append { key: to, value } if to == key => Some(*value),
        Step::Append { .. } | Step::Read { .. } => None,
    })
}

/// Nobody appended it.
fn unwritten(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let read = pick(reads(history), numbers)?;
    let at = numbers.below(read.seen.len() as u64 + 1) as usize;
    change(history, &read, |seen| seen.insert(at, 999_999));
    Some(())
}

/// Each element is appended once.
fn twice(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let all = reads(history).into_iter().filter(|read| !read.seen.is_empty());
    let read = pick(all.collect(), numbers)?;
    let element = pick(read.seen.clone(), numbers)?;
    change(history, &read, |seen| seen.push(element));
    Some(())
}

/// What was refused never happened.
fn refused(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut all = Vec::new();
    for read in reads(history) {
        let failed = history.iter().filter(|transaction| transaction.is_failed());
        let elements: Vec<u64> = failed.flat_map(|failed| appends_to(&read.key, failed)).collect();
        all.extend(elements.into_iter().map(|element| (read.at, read.step, element)));
    }
    let (at, step, element) = pick(all, numbers)?;
    let read = reads(history)
        .into_iter()
        .find(|read| (read.at, read.step) == (at, step))?;
    change(history, &read, |seen| seen.push(element));
    Some(())
}

/// Two elements that some other read saw in their order, one right after the other.
fn neighbours(history: &[Transaction], numbers: &mut Numbers) -> Option<(Read, usize)> {
    let all = reads(history);
    let mut found = Vec::new();
    for read in all.iter().filter(|read| read.seen.len() > 1) {
        let at = numbers.below(read.seen.len() as u64 - 1) as usize;
        let others = all
            .iter()
            .filter(|other| (other.at, other.step) != (read.at, read.step));
        let mut others = others.filter(|other| other.key == read.key);
        if others.any(|other| other.seen.len() > at + 1) {
            found.push((read.at, read.step, at));
        }
    }
    let (transaction, step, at) = pick(found, numbers)?;
    let read = all
        .into_iter()
        .find(|read| (read.at, read.step) == (transaction, step))?;
    Some((read, at))
}

/// Two reads disagree about an order.
fn swapped(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let (read, at) = neighbours(history, numbers)?;
    change(history, &read, |seen| seen.swap(at, at + 1));
    Some(())
}

/// Another read saw the element before the one that is seen after it here.
fn gap(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let (read, at) = neighbours(history, numbers)?;
    change(history, &read, |seen| {
        seen.remove(at);
    });
    Some(())
}

/// Reads, each with a transaction that appended an element that it saw; both were answered.
fn seen_of(history: &[Transaction]) -> Vec<(Read, usize, u64)> {
    let writers = writers(history);
    let mut all = Vec::new();
    for read in reads(history) {
        for element in &read.seen {
            let writer = writers[element];
            if writer != read.at && history[writer].answer().is_some() {
                let (key, seen) = (read.key.clone(), read.seen.clone());
                all.push((Read { key, seen, ..read }, writer, *element));
            }
        }
    }
    all
}

/// The last element was appended by who had returned before the reader asked.
fn stale(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut all = seen_of(history);
    all.retain(|(read, writer, element)| {
        history[*writer].return_ns < history[read.at].call_ns && read.seen.last() == Some(element)
    });
    let (read, ..) = pick(all, numbers)?;
    change(history, &read, |seen| seen.truncate(seen.len() - 1));
    Some(())
}

/// No read saw the element, not even one that was asked after it had been appended.
fn lost(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut all = seen_of(history);
    all.retain(|(read, writer, _)| history[*writer].return_ns < history[read.at].call_ns);
    let (.., element) = pick(all, numbers)?;
    change_all(history, |seen| seen.retain(|other| *other != element));
    Some(())
}

/// It was seen by who had returned before it was appended.
fn future(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut all = Vec::new();
    for read in reads(history) {
        let returned = history[read.at].return_ns;
        let later = history
            .iter()
            .filter(|transaction| transaction.call_ns > returned);
        let element = later.flat_map(|later| appends_to(&read.key, later)).next();
        all.extend(element.map(|element| (read, element)));
    }
    let (read, element) = pick(all, numbers)?;
    change(history, &read, |seen| seen.push(element));
    Some(())
}

/// A client of its own, so that it need not wait.
fn moved(history: &mut [Transaction], at: usize, call_ns: u64) {
    let transaction = &mut history[at];
    (transaction.client, transaction.call_ns, transaction.return_ns) = (1_000_000, call_ns, call_ns + 1);
}

/// A transaction was asked after another had returned that saw it.
fn later(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let (read, writer, _) = pick(seen_of(history), numbers)?;
    let after = history[read.at].return_ns + 1;
    moved(history, writer, after);
    Some(())
}

/// A reader returned before what it saw was asked.
fn earlier(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut all = seen_of(history);
    all.retain(|(_, writer, _)| history[*writer].call_ns > 1);
    let (read, ..) = pick(all, numbers)?;
    moved(history, read.at, 0);
    Some(())
}

/// A transaction does not see what it has just appended.
fn own(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut all = reads(history);
    let own = |read: &Read| {
        let before = &history[read.at].ask[..read.step];
        let mut appended = before.iter().rev().filter_map(|step| match step {
            Step::Append { key, value } if *key == read.key => Some(*value),
            Step::Append { .. } | Step::Read { .. } => None,
        });
        appended.next()
    };
    all.retain(|read| own(read).is_some());
    let read = pick(all, numbers)?;
    let element = own(&read)?;
    change(history, &read, |seen| seen.retain(|other| *other != element));
    Some(())
}

/// A transaction sees the first of what another appends to a list, and not the rest.
fn half(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut all = seen_of(history);
    all.retain(|(read, writer, element)| {
        let mut together = appends_to(&read.key, &history[*writer]);
        together.next() == Some(*element) && together.next().is_some()
    });
    let (read, _, element) = pick(all, numbers)?;
    change(history, &read, |seen| {
        let first = seen.iter().position(|other| *other == element);
        seen.truncate(first.map_or(0, |first| first + 1));
    });
    Some(())
}

/// What one transaction appends to a list is there the other way round, and all reads agree.
fn reversed(history: &mut Vec<Transaction>, numbers: &mut Numbers) -> Option<()> {
    let mut pairs = Vec::new();
    for (read, writer, first) in seen_of(history) {
        let together: Vec<u64> = appends_to(&read.key, &history[writer]).collect();
        if together.len() > 1 && together[0] == first {
            pairs.push((first, together[1]));
        }
    }
    let (first, second) = pick(pairs, numbers)?;
    change_all(history, |seen| {
        for element in seen {
            *element = match *element {
                it if it == first => second,
                it if it == second => first,
                it => it,
            };
        }
    });
    Some(())
}

/// All at once, on lists that nobody else uses.
fn aside(history: &mut Vec<Transaction>, transactions: Vec<Vec<Step>>) -> Option<()> {
    for (client, steps) in (2_000_000..).zip(transactions) {
        let mut ask = steps.clone();
        for step in &mut ask {
            if let Step::Read { seen, .. } = step {
                *seen = None;
            }
        }
        history.push(Transaction {
            client,
            node: 1,
            call_ns: 50,
            return_ns: 60,
            ask,
            outcome: Outcome::Ok(steps),
        });
    }
    Some(())
}

fn read(key: &str, seen: &[u64]) -> Step {
    let (key, seen) = (key.into(), Some(seen.to_vec()));
    Step::Read { key, seen }
}

fn append(key: &str, value: u64) -> Step {
    Step::Append {
        key: key.into(),
        value,
    }
}

/// Each saw the list that the other appends to before it did.
fn skew(history: &mut Vec<Transaction>, _: &mut Numbers) -> Option<()> {
    let one = vec![read("p", &[]), append("q", 1)];
    let other = vec![read("q", &[]), append("p", 1)];
    aside(history, vec![one, other])
}

/// Two readers saw two appends in either order.
fn fork(history: &mut Vec<Transaction>, _: &mut Numbers) -> Option<()> {
    let one = vec![read("p", &[1]), read("q", &[])];
    let other = vec![read("p", &[]), read("q", &[1])];
    aside(
        history,
        vec![vec![append("p", 1)], vec![append("q", 1)], one, other],
    )
}

/// Both appended to what only one can have met.
fn lost_update(history: &mut Vec<Transaction>, _: &mut Numbers) -> Option<()> {
    let both = [1, 2].map(|value| vec![read("p", &[]), append("p", value)]);
    aside(history, both.into())
}

const CHANGES: &[(&str, Change)] = &[
    ("unwritten", unwritten),
    ("twice", twice),
    ("refused", refused),
    ("swapped", swapped),
    ("gap", gap),
    ("stale", stale),
    ("lost", lost),
    ("future", future),
    ("later", later),
    ("earlier", earlier),
    ("own", own),
    ("half", half),
    ("reversed", reversed),
    ("skew", skew),
    ("fork", fork),
    ("lost update", lost_update),
];

#[test]
fn finds_each_change_in_long_histories() {
    const ROUNDS: u64 = 30;
    let mut numbers = Numbers(19);
    let mut made = vec![0; CHANGES.len()];
    for round in 0..ROUNDS {
        let right = make::right(50 + numbers.below(151), 2 + numbers.below(10), &mut numbers);
        let verdict = append::check(&right);
        assert!(verdict.is_valid(), "round {round}: {verdict:?} of {right:#?}");
        for ((name, change), made) in CHANGES.iter().zip(&mut made) {
            let mut history = right.clone();
            if change(&mut history, &mut numbers).is_some() {
                *made += 1;
                let verdict = append::check(&history);
                assert!(
                    verdict.is_violated(),
                    "{name}, round {round}: {verdict:?} of {history:#?}"
                );
            }
        }
    }
    for ((name, _), made) in CHANGES.iter().zip(made) {
        assert!(made > ROUNDS / 2, "{name}: made {made} times");
    }
}
