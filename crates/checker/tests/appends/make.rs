//! Histories of lists that are right by construction: each transaction takes effect at a moment between its call and its
//! return, as a whole.

use std::collections::BTreeMap;

use checker::append::{Step, Transaction};
use checker::history::Outcome;

use crate::numbers::Numbers;

/// So many transactions on so many lists. Times are few, so that many meet.
pub fn right(length: u64, lists: u64, numbers: &mut Numbers) -> Vec<Transaction> {
    let mut held: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    // Some histories have little at once, some much.
    let spread = 1 + numbers.below(12);
    let mut elements = 0;
    let mut history: Vec<Transaction> = Vec::new();
    for at in 0..length {
        let ask: Vec<Step> = (0..1 + numbers.below(3))
            .map(|_| ask(lists, &mut elements, numbers))
            .collect();
        let outcome = match numbers.below(10) {
            0 => Outcome::Failed("refused".into()),
            1 => {
                if numbers.below(2) == 0 {
                    perform(&ask, &mut held);
                }
                Outcome::Unknown("lost".into())
            }
            _ => Outcome::Ok(perform(&ask, &mut held)),
        };
        let moment = 3 * at;
        let call_ns = moment.saturating_sub(numbers.below(spread));
        history.push(Transaction {
            client: client(&history, call_ns, at, numbers),
            node: 1,
            call_ns,
            return_ns: moment + numbers.below(spread),
            ask,
            outcome,
        });
    }
    history
}

fn ask(lists: u64, elements: &mut u64, numbers: &mut Numbers) -> Step {
    let key = format!("l{}", numbers.below(lists));
    if numbers.below(2) == 0 {
        return Step::Read { key, seen: None };
    }
    *elements += 1;
    Step::Append {
        key,
        value: *elements,
    }
}

/// Performs all steps, and says what was seen.
fn perform(ask: &[Step], held: &mut BTreeMap<String, Vec<u64>>) -> Vec<Step> {
    let mut answer = ask.to_vec();
    for step in &mut answer {
        match step {
            Step::Read { key, seen } => *seen = Some(held.get(key).cloned().unwrap_or_default()),
            Step::Append { key, value } => held.entry(key.clone()).or_default().push(*value),
        }
    }
    answer
}

/// Now and then one that is free at that time, and be it since that very moment; else another.
fn client(history: &[Transaction], call_ns: u64, at: u64, numbers: &mut Numbers) -> u64 {
    let free = |transaction: &&Transaction| {
        let of_client = history.iter().filter(|other| other.client == transaction.client);
        let mut of_client = of_client.into_iter();
        of_client.all(|other| other.return_ns <= call_ns && !other.is_unknown())
    };
    let again = history
        .iter()
        .rev()
        .take(10)
        .find(free)
        .filter(|_| numbers.below(3) > 0);
    again.map_or(at, |transaction| transaction.client)
}
