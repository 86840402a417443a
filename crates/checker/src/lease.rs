//! One lease, and a key that is attached to it. It does not end before its time, by the clock of the one who records;
//! once it was seen to have ended it is over for good; and it does end.
//!
//! A keep-alive gives new terms at moments between its call and its answer, perhaps more than once, as a message that is
//! sent again does; one that nobody answered, at any moments from its call on, or never. None does it once the lease is
//! over. Operations of one client follow one another even if the clock did not move between them.

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history::{Operation, check_shape};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The lease, with the key attached to it. The first operation of a history, and the only one of its kind; others begin
    /// after it was answered.
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
    let (mut shown, until_ns) = (false, latest_end(history, terms));
    for (at, operation) in history.iter().enumerate() {
        let wrong = match shows(operation) {
            Some(true) => outlived(operation, until_ns).or_else(|| revived(history, at)),
            Some(false) => early(history, operation, terms),
            None => continue,
        };
        shown = true;
        if let Some(text) = wrong {
            findings.push(Finding { operation: at, text });
        }
    }
    match (findings.is_empty(), shown) {
        (false, _) => Verdict::Violated(findings),
        (true, false) => Verdict::Unknown("nobody looked".into()),
        (true, true) => Verdict::Valid,
    }
}

/// It is gone: is it past the terms that it had, unless somebody may have revoked it?
fn early(history: &[Op], gone: &Op, terms: Terms) -> Option<String> {
    // A keep-alive that found it alive came before the end, whenever that was; so its term had begun. One that began only
    // after the look is another matter: the lease came back.
    let had = |renewal: &&Op| match renewal.answer() {
        Some(Answer::Alive(_)) => renewal.call_ns <= gone.return_ns,
        Some(Answer::Done | Answer::There(_)) => renewal.return_ns < gone.call_ns,
        None => false,
    };
    let renewals = history.iter().filter(|operation| may_renew(operation));
    let early_ns = renewals
        .filter(had)
        .filter_map(|renewal| cut_short_ns(history, renewal, gone, terms))
        .max()?;
    Some(format!("it ended at least {early_ns} ns early"))
}

/// By how much at least a look that found it gone, nobody having revoked it, came before the end of a renewal's term.
fn cut_short_ns(history: &[Op], renewal: &Op, gone: &Op, terms: Terms) -> Option<u64> {
    let revoked = |operation: &Op| {
        operation.ask == Ask::Revoke && !operation.is_failed() && operation.call_ns <= gone.return_ns
    };
    if history.iter().any(revoked) {
        return None;
    }
    // The term began no earlier than the call.
    let until_ns = renewal.call_ns + terms.ttl_ns;
    let early_ns = until_ns.checked_sub(gone.return_ns + terms.drift_ns);
    early_ns.filter(|early_ns| *early_ns > 0)
}

/// It is alive: was it seen to have ended before?
fn revived(history: &[Op], alive: usize) -> Option<String> {
    let ended = (0..history.len()).find(|at| {
        let operation = &history[*at];
        let over = shows(operation) == Some(false)
            || operation.ask == Ask::Revoke && operation.answer() == Some(&Answer::Done);
        over && comes_before(history, *at, alive)
    });
    ended.map(|ended| format!("it had ended by operation {ended}"))
}

/// Whether the one had returned when the other began.
fn comes_before(history: &[Op], one: usize, other: usize) -> bool {
    let (before, after) = (&history[one], &history[other]);
    before.return_ns < after.call_ns
        || before.client == after.client && (before.call_ns, one) < (after.call_ns, other)
}

/// It is alive: may anybody have given it a term that is not long over?
fn outlived(alive: &Op, until_ns: Option<u64>) -> Option<String> {
    let late_ns = alive.call_ns.checked_sub(until_ns?)?;
    (late_ns > 0).then(|| format!("it should have ended at least {late_ns} ns before"))
}

/// When it must have ended, each renewal having come as late as it can; `None` if one of unknown fate may come at any
/// time. A renewal that begins after the end is none.
fn latest_end(history: &[Op], terms: Terms) -> Option<u64> {
    let mut renewals: Vec<&Op> = history.iter().filter(|operation| may_renew(operation)).collect();
    renewals.sort_by_key(|renewal| renewal.call_ns);
    let mut until_ns = 0;
    for renewal in renewals {
        if renewal.ask != Ask::Grant && renewal.call_ns > until_ns {
            break;
        }
        if !renewal.is_unknown() {
            until_ns = until_ns.max(renewal.return_ns + terms.ttl_ns + terms.grace_ns);
            continue;
        }
        // It never happened, if it would have kept alive what was found gone.
        let too_soon =
            |gone: &Op| shows(gone) == Some(false) && cut_short_ns(history, renewal, gone, terms).is_some();
        if !history.iter().any(too_soon) {
            return None;
        }
    }
    Some(until_ns)
}

#[cfg(test)]
mod tests;
