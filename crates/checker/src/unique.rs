//! Ids that are drawn: no two answers give the same one.

use std::collections::BTreeMap;

use crate::Verdict;
use crate::history::Operation;

/// An id that was given more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twice {
    /// The id.
    pub id: u64,
    /// To which operations, by their places in the history.
    pub operations: Vec<usize>,
}

/// Judges a history of draws.
pub fn check<A>(history: &[Operation<A, u64>]) -> Verdict<Vec<Twice>> {
    let mut given: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, operation) in history.iter().enumerate() {
        if let Some(id) = operation.answer() {
            given.entry(*id).or_default().push(at);
        }
    }
    if given.is_empty() {
        return Verdict::Unknown("no id was given".into());
    }
    given.retain(|_, operations| operations.len() > 1);
    if given.is_empty() {
        return Verdict::Valid;
    }
    let twice = given.into_iter().map(|(id, operations)| Twice { id, operations });
    Verdict::Violated(twice.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    #[test]
    fn each_id_is_given_once() {
        let history = |ids: &[Option<u64>]| -> Vec<Operation<(), u64>> {
            let operation = |(client, id): (u64, &Option<u64>)| Operation {
                client,
                node: 1,
                call_ns: client,
                return_ns: client + 1,
                ask: (),
                outcome: id.map_or(Outcome::Unknown("lost".into()), Outcome::Ok),
            };
            (0..).zip(ids).map(operation).collect()
        };
        assert_eq!(check(&history(&[Some(1), None, Some(2), None])), Verdict::Valid);
        let twice = Twice {
            id: 7,
            operations: vec![0, 2],
        };
        assert_eq!(
            check(&history(&[Some(7), Some(1), Some(7)])),
            Verdict::Violated(vec![twice])
        );
        assert!(matches!(check(&history(&[None])), Verdict::Unknown(_)));
    }
}
