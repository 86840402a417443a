//! What `lease` promises, the plainest way: is there any end of the lease, by time or by a revocation, that fits all that
//! was seen, and with which a lease renewed at every moment at which it may have been lives until then? Every end is
//! tried, and time goes on one by one. Shares no code with the judge.

use checker::history::Operation;
use checker::lease::{Answer, Ask, Terms};

/// One operation.
pub type Op = Operation<Ask, Answer>;

/// What is true of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// Some end explains it.
    Right,
    /// None does.
    Wrong,
    /// No client could have seen it, or nobody looked: there is nothing to judge.
    NoEvidence,
}

/// Whether it found the lease alive.
fn looked(operation: &Op) -> Option<bool> {
    match operation.answer() {
        Some(Answer::Alive(found) | Answer::There(found)) => Some(*found),
        Some(Answer::Done) | None => None,
    }
}

fn earlier(history: &[Op], one: usize, other: usize) -> bool {
    history[one].client == history[other].client
        && (history[one].call_ns, one) < (history[other].call_ns, other)
}

fn pairs(length: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..length).flat_map(move |one| (0..length).map(move |other| (one, other)))
}

fn shaped(history: &[Op]) -> bool {
    let waits = |(one, other): (usize, usize)| {
        !earlier(history, one, other)
            || !history[one].is_unknown() && history[one].return_ns <= history[other].call_ns
    };
    pairs(history.len()).all(waits)
        && history
            .iter()
            .all(|operation| operation.call_ns <= operation.return_ns)
}

/// What ends a lease.
#[derive(Clone, Copy)]
enum End<'h> {
    Time,
    Revocation(&'h Op),
}

/// The last moment at which an operation may happen, if the lease ends then.
fn last(operation: &Op, end_ns: u64) -> u64 {
    match operation.is_unknown() {
        true => end_ns,
        false => operation.return_ns.min(end_ns),
    }
}

/// Whether everything fits a lease that was granted then and ended then.
fn fits(history: &[Op], terms: Terms, granted_ns: u64, end_ns: u64, end: End<'_>) -> bool {
    // The last moment at which a new term can have begun.
    let newest_ns = match end {
        End::Revocation(revocation) => {
            if end_ns < revocation.call_ns || last(revocation, end_ns) < end_ns {
                return false;
            }
            end_ns
        }
        End::Time if granted_ns + terms.ttl_ns > end_ns + terms.drift_ns => return false,
        End::Time => end_ns + terms.drift_ns - terms.ttl_ns,
    };
    let seen = history.iter().all(|operation| match looked(operation) {
        Some(true) if operation.ask == Ask::KeepAlive => operation.call_ns <= newest_ns.min(end_ns),
        Some(true) => operation.call_ns <= end_ns,
        Some(false) => operation.return_ns >= end_ns,
        None if operation.ask == Ask::Revoke && operation.answer().is_some() => operation.return_ns >= end_ns,
        None => true,
    });
    if !seen {
        return false;
    }
    let renews = |operation: &&Op| {
        operation.ask == Ask::KeepAlive && (operation.is_unknown() || looked(operation) == Some(true))
    };
    let mut term_ns = granted_ns;
    for now_ns in granted_ns..=end_ns {
        if now_ns > term_ns + terms.ttl_ns + terms.grace_ns {
            return false;
        }
        let mut renewals = history.iter().filter(renews);
        if renewals.any(|it| it.call_ns <= now_ns && now_ns <= last(it, newest_ns.min(end_ns))) {
            term_ns = now_ns;
        }
    }
    true
}

/// Tries everything.
pub fn judge(history: &[Op], terms: Terms) -> Truth {
    if !shaped(history) || history.iter().all(|operation| looked(operation).is_none()) {
        return Truth::NoEvidence;
    }
    let over = |operation: &Op| {
        looked(operation) == Some(false) || operation.ask == Ask::Revoke && operation.answer().is_some()
    };
    let back = |(one, other): (usize, usize)| {
        earlier(history, one, other) && over(&history[one]) && looked(&history[other]) == Some(true)
    };
    if pairs(history.len()).any(back) {
        return Truth::Wrong;
    }
    let newest_ns = history.iter().map(|operation| operation.return_ns).max();
    let horizon_ns = newest_ns.unwrap_or_default() + 2 * terms.ttl_ns + terms.grace_ns;
    let revocations = history
        .iter()
        .filter(|operation| operation.ask == Ask::Revoke && !operation.is_failed());
    let ends: Vec<End<'_>> = revocations.map(End::Revocation).chain([End::Time]).collect();
    let grant = &history[0];
    let explained = (grant.call_ns..=grant.return_ns).any(|granted_ns| {
        (granted_ns..=horizon_ns).any(|end_ns| {
            ends.iter()
                .any(|end| fits(history, terms, granted_ns, end_ns, *end))
        })
    });
    match explained {
        true => Truth::Right,
        false => Truth::Wrong,
    }
}
