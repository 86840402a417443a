//! Answers queries.

use super::{
    Answer, Ask, AskLease, AskRevision, LeaseInfo, LeaseList, NamespaceInfo, Query, Told, hash, history,
};
use crate::apply::{Context, Stop, range, refusal, txn};
use crate::command::{RangeRequest, TxnRequest};
use crate::outcome::RefusalKind;
use crate::record::Space;
use crate::record::kv::{self, Namespace};
use crate::record::{lease, state};
use crate::view::{ApplyError, View, ViewError};

/// Answers `query` from `view`. A question that cannot be answered is refused; the only error is the view's.
pub fn answer(view: &dyn View, query: &Query) -> Result<Answer, ViewError> {
    let Some(space) = Space::from_wire(query.slot, query.namespace).filter(Space::is_key_space) else {
        let text = format!(
            "slot {} and namespace {} are no key space",
            query.slot, query.namespace
        );
        return Ok(Answer {
            revision: 0,
            told: Some(Told::Refused(refusal(RefusalKind::Invalid, text))),
        });
    };
    let numbers = kv::namespace(view, space)?;
    let told = match tell(view, space, &numbers, query) {
        Ok(told) => told,
        Err(Stop::Refused(refusal)) => Told::Refused(refusal),
        Err(Stop::Failed(ApplyError::View(error))) => return Err(error),
        Err(Stop::Failed(ApplyError::Unsupported(text))) => {
            Told::Refused(refusal(RefusalKind::Invalid, text))
        }
    };
    Ok(Answer {
        revision: numbers.revision,
        told: Some(told),
    })
}

fn tell(view: &dyn View, space: Space, numbers: &Namespace, query: &Query) -> Result<Told, Stop> {
    match &query.ask {
        Some(Ask::Range(request)) => tell_range(view, space, numbers, request),
        Some(Ask::Lease(request)) => Ok(Told::Lease(tell_lease(view, space, query.clock_ms, request)?)),
        Some(Ask::Leases(_)) => Ok(Told::Leases(LeaseList {
            ids: lease::ids(view, space)?,
        })),
        Some(Ask::HashKv(request)) => tell_hash(view, space, numbers, request),
        Some(Ask::Namespace(_)) => Ok(Told::Namespace(info(numbers))),
        Some(Ask::History(request)) => history::tell(view, space, numbers, request).map(Told::History),
        Some(Ask::Txn(request)) => tell_txn(view, space, request),
        None => Err(refusal(RefusalKind::Invalid, "a query of unknown kind").into()),
    }
}

fn tell_range(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    request: &RangeRequest,
) -> Result<Told, Stop> {
    range::check(request)?;
    range::range(view, space, numbers, numbers.revision, request).map(Told::Range)
}

fn tell_txn(view: &dyn View, space: Space, request: &TxnRequest) -> Result<Told, Stop> {
    if txn::writes(request) {
        return Err(refusal(
            RefusalKind::Invalid,
            "a query cannot carry a transaction that writes",
        )
        .into());
    }
    txn::txn(&mut Context::new(view)?, space, request).map(Told::Txn)
}

fn tell_lease(view: &dyn View, space: Space, clock_ms: u64, request: &AskLease) -> Result<LeaseInfo, Stop> {
    let Some(lease) = lease::read(view, space, request.id)? else {
        return Ok(LeaseInfo {
            id: request.id,
            granted_s: 0,
            remaining_ms: -1000,
            keys: Vec::new(),
        });
    };
    let clock_ms = state::read(view)?.clock_ms.max(clock_ms);
    // Not below zero: until it is ended by command, it exists.
    let remaining_ms = lease.deadline_ms.saturating_sub(clock_ms) as i64;
    let keys = if request.keys {
        lease::keys(view, space, lease.id)?
    } else {
        Vec::new()
    };
    Ok(LeaseInfo {
        id: lease.id,
        granted_s: lease.ttl_s,
        remaining_ms,
        keys,
    })
}

fn tell_hash(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    request: &AskRevision,
) -> Result<Told, Stop> {
    let revision = range::revision_of(request.revision, numbers, numbers.revision)?;
    Ok(Told::HashKv(hash::hash(view, space, numbers, revision)?))
}

fn info(numbers: &Namespace) -> NamespaceInfo {
    NamespaceInfo {
        revision: numbers.revision,
        compact_revision: numbers.compact_revision,
        compaction_pending: numbers.compaction_pending,
        keys: numbers.keys,
        live_bytes: numbers.live_bytes,
        total_bytes: numbers.total_bytes,
        leases: numbers.leases,
        settings: Some(numbers.settings.unwrap_or_default()),
    }
}
