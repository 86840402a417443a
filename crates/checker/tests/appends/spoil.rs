//! One thing changed in a history. What comes of it may be wrong, or right all the same.

#![expect(
    clippy::ptr_arg,
    reason = "all changes have one signature, and some of them add or take away"
)]

use checker::append::{Step, Transaction};
use checker::history::Outcome;

use crate::numbers::Numbers;
use crate::seen;

/// Changes something; may find nothing to change.
pub type Spoil = fn(&mut Vec<Transaction>, &mut Numbers);

/// All of them.
pub const SPOILS: &[(&str, Spoil)] = &[
    ("an element less was seen", less),
    ("an element more was seen", more),
    ("an element was seen twice", twice),
    ("an element was not seen where it is in other reads", gap),
    ("two elements change places in a read", swapped),
    ("two elements change places in all reads", swapped_everywhere),
    ("an element was seen by nobody", lost_everywhere),
    ("nobody appended it", unwritten),
    ("a transaction is not in the history", unrecorded),
    ("it took effect at another time", shifted),
    ("it took less time", shorter),
    ("another fate", other_fate),
    ("what was seen changes places", swapped_answers),
];

/// Draws one of them.
pub fn any<'l, T>(all: &'l mut [T], numbers: &mut Numbers) -> Option<&'l mut T> {
    let at = numbers.below(all.len().max(1) as u64) as usize;
    all.get_mut(at)
}

/// What all reads saw.
pub fn reads(history: &mut [Transaction]) -> Vec<&mut Vec<u64>> {
    let answers = history
        .iter_mut()
        .filter_map(|transaction| match &mut transaction.outcome {
            Outcome::Ok(steps) => Some(steps),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        });
    answers.flatten().filter_map(seen).collect()
}

/// Of the reads that saw so much.
fn of_length<'h>(
    least: usize,
    history: &'h mut [Transaction],
    numbers: &mut Numbers,
) -> Option<&'h mut Vec<u64>> {
    let mut long: Vec<_> = reads(history)
        .into_iter()
        .filter(|seen| seen.len() >= least)
        .collect();
    let at = numbers.below(long.len().max(1) as u64) as usize;
    (at < long.len()).then(|| long.swap_remove(at))
}

fn less(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(seen) = of_length(1, history, numbers) {
        seen.pop();
    }
}

fn appended(history: &[Transaction]) -> Vec<u64> {
    let steps = history.iter().flat_map(|transaction| &transaction.ask);
    let values = steps.filter_map(|step| match step {
        Step::Append { value, .. } => Some(*value),
        Step::Read { .. } => None,
    });
    values.collect()
}

fn more(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    let mut elements = appended(history);
    let element = any(&mut elements, numbers).map(|element| *element);
    if let (Some(seen), Some(element)) = (of_length(0, history, numbers), element) {
        let at = numbers.below(seen.len() as u64 + 1) as usize;
        seen.insert(at, element);
    }
}

fn twice(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(seen) = of_length(1, history, numbers) {
        let again = seen[numbers.below(seen.len() as u64) as usize];
        let at = numbers.below(seen.len() as u64 + 1) as usize;
        seen.insert(at, again);
    }
}

fn gap(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(seen) = of_length(2, history, numbers) {
        seen.remove(numbers.below(seen.len() as u64 - 1) as usize);
    }
}

fn two(seen: &[u64], numbers: &mut Numbers) -> (usize, usize) {
    let length = seen.len() as u64;
    (numbers.below(length) as usize, numbers.below(length) as usize)
}

fn swapped(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(seen) = of_length(2, history, numbers) {
        let (one, other) = two(seen, numbers);
        seen.swap(one, other);
    }
}

/// As if they had been appended in the other order, as far as reads tell.
fn swapped_everywhere(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    let Some(seen) = of_length(2, history, numbers) else {
        return;
    };
    let (one, other) = two(seen, numbers);
    let (one, other) = (seen[one], seen[other]);
    for seen in reads(history) {
        for element in seen {
            *element = match *element {
                it if it == one => other,
                it if it == other => one,
                it => it,
            };
        }
    }
}

fn lost_everywhere(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    let mut elements = appended(history);
    if let Some(lost) = any(&mut elements, numbers) {
        reads(history)
            .into_iter()
            .for_each(|seen| seen.retain(|element| element != lost));
    }
}

fn unwritten(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(seen) = of_length(0, history, numbers) {
        seen.insert(numbers.below(seen.len() as u64 + 1) as usize, 99);
    }
}

fn unrecorded(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    // One stays: what changes next has something to change.
    if history.len() > 1 {
        history.remove(numbers.below(history.len() as u64) as usize);
    }
}

/// Under a name of its own: it need not wait for another.
fn renamed<'h>(history: &'h mut [Transaction], numbers: &mut Numbers) -> Option<&'h mut Transaction> {
    let free = history.iter().map(|transaction| transaction.client).max()? + 1;
    let transaction = any(history, numbers)?;
    transaction.client = free;
    Some(transaction)
}

fn shifted(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(transaction) = renamed(history, numbers) {
        let length = transaction.return_ns - transaction.call_ns;
        transaction.call_ns = numbers.below(20);
        transaction.return_ns = transaction.call_ns + length;
    }
}

fn shorter(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(transaction) = any(history, numbers) {
        let length = transaction.return_ns - transaction.call_ns;
        transaction.call_ns += numbers.below(length + 1);
        transaction.return_ns = transaction.call_ns;
    }
}

fn other_fate(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    if let Some(transaction) = renamed(history, numbers) {
        transaction.outcome = match numbers.below(3) {
            0 => Outcome::Failed("refused".into()),
            1 => Outcome::Unknown("lost".into()),
            _ => {
                let mut answer = transaction.ask.clone();
                for step in &mut answer {
                    if let Step::Read { seen, .. } = step {
                        *seen = Some(Vec::new());
                    }
                }
                Outcome::Ok(answer)
            }
        };
    }
}

fn swapped_answers(history: &mut Vec<Transaction>, numbers: &mut Numbers) {
    let mut all = reads(history);
    let length = all.len() as u64;
    if length > 1 {
        let (one, other) = (numbers.below(length) as usize, numbers.below(length) as usize);
        let saw = all[one].clone();
        *all[one] = std::mem::replace(all[other], saw);
    }
}

/// Draws anew what each read saw: some of what is appended to its list, in some order.
pub fn guess(history: &mut [Transaction], numbers: &mut Numbers) {
    let mut orders: std::collections::BTreeMap<String, Vec<u64>> = Default::default();
    for step in history.iter().flat_map(|transaction| &transaction.ask) {
        if let Step::Append { key, value } = step {
            let order = orders.entry(key.clone()).or_default();
            order.insert(numbers.below(order.len() as u64 + 1) as usize, *value);
        }
    }
    for transaction in history {
        let Outcome::Ok(steps) = &mut transaction.outcome else {
            continue;
        };
        for step in steps {
            let Step::Read { key, seen } = step else { continue };
            let order = orders.get(key).map_or(&[][..], Vec::as_slice);
            *seen = Some(order[..numbers.below(order.len() as u64 + 1) as usize].to_vec());
        }
    }
}
