//! A lock with fencing tokens. A lock alone cannot exclude: a holder that was paused may act after its time. So each
//! acquisition brings a token, and what the lock guards refuses any token lower than one it has seen.
//!
//! Promised: no token is given twice; who asks after another was answered gets a higher one; and the guarded resource
//! takes tokens in ascending order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history::{Operation, check_shape};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The lock, for whoever asks.
    Acquire,
    /// Gives it back.
    Release,
    /// Writes to what it guards, showing this token.
    Write(u64),
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is yours, under this token.
    Acquired(u64),
    /// It is free.
    Released,
    /// Whether the write was taken; refused if the token was too low.
    Written(bool),
}

/// Something that broke the promise, by the operation's place in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The later of the two operations.
    pub operation: usize,
    /// The earlier.
    pub before: usize,
    /// What is wrong.
    pub text: String,
}

/// Judges the history of one lock.
pub fn check(history: &[Operation<Ask, Answer>]) -> Verdict<Vec<Finding>> {
    if let Err(malformed) = check_shape(history) {
        return malformed.into();
    }
    let (mut acquired, mut written) = (Vec::new(), Vec::new());
    for (at, operation) in history.iter().enumerate() {
        match (&operation.ask, operation.answer()) {
            (Ask::Acquire, Some(Answer::Acquired(token))) => acquired.push((at, *token)),
            (Ask::Write(token), Some(Answer::Written(true))) => written.push((at, *token)),
            _ => {}
        }
    }
    let mut findings = twice(&acquired);
    findings.extend(backwards(history, &acquired, false));
    findings.extend(backwards(history, &written, true));
    match (findings.is_empty(), acquired.len()) {
        (false, _) => Verdict::Violated(findings),
        (true, 0 | 1) => Verdict::Unknown(format!("{} acquisitions show nothing", acquired.len())),
        (true, _) => Verdict::Valid,
    }
}

fn twice(acquired: &[(usize, u64)]) -> Vec<Finding> {
    let mut given = BTreeMap::new();
    let mut findings = Vec::new();
    for (at, token) in acquired {
        if let Some(before) = given.insert(*token, *at) {
            findings.push(Finding {
                operation: *at,
                before,
                text: format!("token {token} was given twice"),
            });
        }
    }
    findings
}

/// Pairs of which one began after the other had returned, with a lower token; the same one may write again.
fn backwards(history: &[Operation<Ask, Answer>], tokens: &[(usize, u64)], again: bool) -> Vec<Finding> {
    let mut moments = Vec::with_capacity(2 * tokens.len());
    for (at, token) in tokens {
        moments.push((history[*at].call_ns, false, *at, *token));
        moments.push((history[*at].return_ns, true, *at, *token));
    }
    moments.sort_unstable();
    let mut highest: Option<(u64, usize)> = None;
    let mut findings = Vec::new();
    for (_, returned, at, token) in moments {
        match highest {
            Some((seen, before)) if !returned && (token < seen || token == seen && !again) => {
                findings.push(Finding {
                    operation: at,
                    before,
                    text: format!("token {token} came after {seen}"),
                });
            }
            _ if returned => highest = highest.max(Some((token, at))),
            _ => {}
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    fn acquire(times: (u64, u64), token: u64) -> Operation<Ask, Answer> {
        Operation {
            client: times.0,
            node: 1,
            call_ns: times.0,
            return_ns: times.1,
            ask: Ask::Acquire,
            outcome: Outcome::Ok(Answer::Acquired(token)),
        }
    }

    fn write(times: (u64, u64), token: u64, taken: bool) -> Operation<Ask, Answer> {
        Operation {
            ask: Ask::Write(token),
            outcome: Outcome::Ok(Answer::Written(taken)),
            ..acquire(times, 0)
        }
    }

    #[test]
    fn tokens_rise_and_the_guarded_takes_them_in_order() {
        let found = |history: &[Operation<Ask, Answer>]| match check(history) {
            Verdict::Violated(found) => found.iter().map(|f| (f.before, f.operation)).collect(),
            verdict => vec![(usize::from(!verdict.is_valid()), 0)],
        };
        let valid = [(0, 0)];
        assert_eq!(found(&[acquire((0, 1), 5), acquire((2, 3), 6)]), valid);
        assert_eq!(
            found(&[acquire((0, 9), 6), acquire((2, 3), 5)]),
            valid,
            "at once: in any order"
        );
        assert_eq!(found(&[acquire((0, 1), 6), acquire((2, 3), 5)]), [(0, 1)]);
        assert_eq!(found(&[acquire((0, 9), 5), acquire((2, 3), 5)]), [(0, 1)]);
        let held = [acquire((0, 1), 5), acquire((2, 3), 6)];
        let with = |writes: &[Operation<Ask, Answer>]| found(&[&held[..], writes].concat());
        assert_eq!(
            with(&[
                write((4, 5), 5, true),
                write((6, 7), 6, true),
                write((8, 9), 6, true)
            ]),
            valid
        );
        assert_eq!(with(&[write((4, 5), 6, true), write((6, 7), 5, false)]), valid);
        assert_eq!(with(&[write((4, 5), 6, true), write((6, 7), 5, true)]), [(2, 3)]);
        assert!(matches!(check(&held[..1]), Verdict::Unknown(_)));
    }
}
