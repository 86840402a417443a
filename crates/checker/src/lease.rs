//! One lease, and a key that is attached to it. It does not end before its time, by the clock of the one who records;
//! once it was seen to have ended it is over for good; and it does end.

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history::{Operation, check_shape};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The lease, with the key attached to it. The first operation of a history.
    Grant,
    /// A new term for it.
    KeepAlive,
    /// Its end.
    Revoke,
    /// Is the key there?
    Read,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To a grant or a revocation.
    Done,
    /// To a keep-alive: whether the lease still lives.
    Alive(bool),
    /// To a read: whether the key is there.
    There(bool),
}

/// How long a lease lives, and how much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Its time to live, in nanoseconds.
    pub ttl_ns: u64,
    /// How much earlier it may end: the difference in speed of the clocks.
    pub drift_ns: u64,
    /// How much later it must have ended.
    pub grace_ns: u64,
}

/// Something that broke the promise, by the operation's place in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which operation.
    pub operation: usize,
    /// What is wrong.
    pub text: String,
}

type Op = Operation<Ask, Answer>;

/// Whether an answer shows the lease alive; `None` if it shows nothing.
fn shows(operation: &Op) -> Option<bool> {
    match operation.answer()? {
        Answer::Alive(alive) => Some(*alive),
        Answer::There(there) => Some(*there),
        Answer::Done => None,
    }
}

/// Whether it may have given the lease a new term.
fn may_renew(operation: &Op) -> bool {
    !operation.is_failed()
        && matches!(operation.ask, Ask::Grant | Ask::KeepAlive)
        && !matches!(operation.answer(), Some(Answer::Alive(false)))
}

/// Judges the history of one lease.
pub fn check(history: &[Op], terms: Terms) -> Verdict<Vec<Finding>> {
    if let Err(malformed) = check_shape(history) {
        return malformed.into();
    }
    let mut findings = Vec::new();
    let mut shown = 0;
    for (at, operation) in history.iter().enumerate() {
        let wrong = match shows(operation) {
            Some(true) => outlived(history, operation, terms).or_else(|| revived(history, operation)),
            Some(false) => early(history, operation, terms),
            None => continue,
        };
        shown += 1;
        if let Some(text) = wrong {
            findings.push(Finding { operation: at, text });
        }
    }
    match (findings.is_empty(), shown) {
        (false, _) => Verdict::Violated(findings),
        (true, 0) => Verdict::Unknown("nobody looked".into()),
        (true, _) => Verdict::Valid,
    }
}

/// It is gone: is it past the term that it certainly had, unless somebody may have revoked it?
fn early(history: &[Op], gone: &Op, terms: Terms) -> Option<String> {
    let revoked = |operation: &Op| {
        operation.ask == Ask::Revoke && !operation.is_failed() && operation.call_ns <= gone.return_ns
    };
    if history.iter().any(revoked) {
        return None;
    }
    // Acknowledged before the look began: its term began no earlier than its call.
    let renewed = history.iter().filter(|operation| {
        may_renew(operation) && operation.answer().is_some() && operation.return_ns < gone.call_ns
    });
    let until_ns = renewed.map(|operation| operation.call_ns + terms.ttl_ns).max()?;
    let early_ns = until_ns
        .checked_sub(gone.return_ns + terms.drift_ns)
        .filter(|early_ns| *early_ns > 0)?;
    Some(format!("it ended at least {early_ns} ns early"))
}

/// It is alive: was it seen to have ended before?
fn revived(history: &[Op], alive: &Op) -> Option<String> {
    let ended = history.iter().position(|operation| {
        let over = shows(operation) == Some(false)
            || operation.ask == Ask::Revoke && operation.answer() == Some(&Answer::Done);
        over && operation.return_ns < alive.call_ns
    });
    ended.map(|ended| format!("it had ended by operation {ended}"))
}

/// It is alive: may anybody have given it a term that is not long over?
fn outlived(history: &[Op], alive: &Op, terms: Terms) -> Option<String> {
    let mut last_ns = 0;
    for operation in history.iter().filter(|operation| may_renew(operation)) {
        if operation.call_ns > alive.return_ns {
            continue;
        }
        // What nobody answered may take effect at any time; the look may be a renewal itself.
        if operation.is_unknown() || operation.return_ns >= alive.call_ns {
            return None;
        }
        last_ns = last_ns.max(operation.return_ns);
    }
    let over_ns = last_ns + terms.ttl_ns + terms.grace_ns;
    let late_ns = alive
        .call_ns
        .checked_sub(over_ns)
        .filter(|late_ns| *late_ns > 0)?;
    Some(format!("it should have ended at least {late_ns} ns before"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    const TERMS: Terms = Terms {
        ttl_ns: 100,
        drift_ns: 5,
        grace_ns: 20,
    };

    fn op(times: (u64, u64), ask: Ask, outcome: Outcome<Answer>) -> Op {
        Operation {
            client: times.0,
            node: 1,
            call_ns: times.0,
            return_ns: times.1,
            ask,
            outcome,
        }
    }

    fn keep(times: (u64, u64), alive: bool) -> Op {
        op(times, Ask::KeepAlive, Outcome::Ok(Answer::Alive(alive)))
    }

    fn read(times: (u64, u64), there: bool) -> Op {
        op(times, Ask::Read, Outcome::Ok(Answer::There(there)))
    }

    const NOTHING: [usize; 0] = [];

    /// After a grant from 10 to 20: the places of what is wrong.
    fn wrong(operations: &[Op]) -> Vec<usize> {
        let mut history = vec![op((10, 20), Ask::Grant, Outcome::Ok(Answer::Done))];
        history.extend_from_slice(operations);
        match check(&history, TERMS) {
            Verdict::Violated(found) => found.iter().map(|finding| finding.operation).collect(),
            verdict => {
                assert!(verdict.is_valid(), "{verdict:?}");
                Vec::new()
            }
        }
    }

    #[test]
    fn it_ends_in_time_and_for_good() {
        assert_eq!(wrong(&[read((30, 40), true), read((200, 210), false)]), NOTHING);
        assert_eq!(wrong(&[read((100, 104), false)]), [1], "6 ns early");
        assert_eq!(
            wrong(&[read((100, 105), false)]),
            NOTHING,
            "5 ns early are forgiven"
        );
        assert_eq!(wrong(&[keep((100, 105), true), read((150, 160), false)]), [2]);
        assert_eq!(
            wrong(&[keep((100, 155), true), read((150, 160), false)]),
            NOTHING,
            "perhaps it came before"
        );
        assert_eq!(wrong(&[read((140, 150), true)]), NOTHING, "the grace");
        assert_eq!(wrong(&[read((141, 150), true)]), [1], "it never ends");
        assert_eq!(wrong(&[keep((100, 110), true), read((220, 225), true)]), NOTHING);
        assert_eq!(
            wrong(&[read((120, 125), false), read((130, 135), true)]),
            [2],
            "it came back"
        );
        assert_eq!(wrong(&[read((120, 125), false), keep((126, 135), true)]), [2]);
        let unknown = op((100, 110), Ask::KeepAlive, Outcome::Unknown("lost".into()));
        assert_eq!(wrong(&[unknown.clone(), read((300, 310), true)]), NOTHING);
        assert_eq!(wrong(&[unknown, read((120, 125), false)]), NOTHING);
        let revoked = op((30, 35), Ask::Revoke, Outcome::Ok(Answer::Done));
        assert_eq!(wrong(&[revoked.clone(), read((40, 45), false)]), NOTHING);
        assert_eq!(wrong(&[revoked, read((40, 45), true)]), [2]);
        let grant = [op((10, 20), Ask::Grant, Outcome::Ok(Answer::Done))];
        assert!(matches!(check(&grant, TERMS), Verdict::Unknown(_)));
    }
}
