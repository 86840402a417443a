//! Every order of the transactions that their times allow, each of unknown outcome in it or not.

use std::collections::BTreeMap;

use checker::append::{Step, Transaction};

type Lists<'h> = BTreeMap<&'h str, Vec<u64>>;

/// Whether some order explains all that was seen.
pub fn right(history: &[Transaction]) -> bool {
    goes_on(history, 0, &Lists::new())
}

/// Next is any transaction that was called before all that are left returned. Those of unknown outcome never return, and
/// what never took effect is simply left.
fn goes_on<'h>(history: &'h [Transaction], done: u32, lists: &Lists<'h>) -> bool {
    let left = || (0..history.len()).filter(|at| done & (1 << at) == 0 && !history[*at].is_failed());
    let answered = || left().filter(|at| !history[*at].is_unknown());
    let Some(first_return) = answered().map(|at| history[at].return_ns).min() else {
        return true;
    };
    left()
        .filter(|at| history[*at].call_ns <= first_return)
        .any(|at| after(lists, &history[at]).is_some_and(|lists| goes_on(history, done | 1 << at, &lists)))
}

/// The lists after a transaction; `None` if it would have seen something else.
fn after<'h>(lists: &Lists<'h>, transaction: &'h Transaction) -> Option<Lists<'h>> {
    let mut lists = lists.clone();
    for step in transaction.answer().unwrap_or(&transaction.ask) {
        match step {
            Step::Append { key, value } => lists.entry(key).or_default().push(*value),
            Step::Read { seen: None, .. } => {}
            Step::Read {
                key,
                seen: Some(seen),
            } => {
                let list = lists.get(key.as_str()).map_or(&[][..], Vec::as_slice);
                if list != seen {
                    return None;
                }
            }
        }
    }
    Some(lists)
}
