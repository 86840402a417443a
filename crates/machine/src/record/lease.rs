//! Leases, what is attached to them, and the index of their deadlines. Deadlines are on the partition's clock.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::key::{self, Kind};
use super::{Space, decode};
use crate::view::{View, ViewError};

/// A lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Lease {
    /// Its id.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Granted time to live, in seconds.
    #[prost(int64, tag = "2")]
    pub ttl_s: i64,
    /// When it ends unless renewed, on the machine's clock.
    #[prost(uint64, tag = "3")]
    pub deadline_ms: u64,
    /// Raised by each renewal, so that an expiry proposed before one is void.
    #[prost(uint64, tag = "4")]
    pub generation: u64,
}

/// Value of the deadline index.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Deadline {
    /// [`Lease::generation`].
    #[prost(uint64, tag = "1")]
    pub generation: u64,
}

/// A lease past its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Where it is.
    pub space: Space,
    /// Its id.
    pub id: i64,
    /// The generation to name in `LeaseExpire`.
    pub generation: u64,
    /// When it was due.
    pub deadline_ms: u64,
}

/// A lease, if there is one with this id.
pub fn read(view: &dyn View, space: Space, id: i64) -> Result<Option<Lease>, ViewError> {
    view.get(&key::lease(space, id))?
        .map(|bytes| decode("a lease", bytes))
        .transpose()
}

/// Keys attached to a lease, ascending.
pub fn keys(view: &dyn View, space: Space, id: i64) -> Result<Vec<Bytes>, ViewError> {
    let (from, to) = key::attachments(space, id);
    let mut keys = Vec::new();
    view.scan(&from, &to, false, &mut |key, _| {
        keys.push(Bytes::copy_from_slice(&key[key::PREFIX_BYTES + 8..]));
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

/// Ids of all leases of a key space, those that end first first.
pub fn ids(view: &dyn View, space: Space) -> Result<Vec<i64>, ViewError> {
    let mut met = Vec::new();
    let end = key::family(space, Kind::Deadline).1;
    deadlines(view, space, &end, usize::MAX, &mut met)?;
    Ok(met.into_iter().map(|lease| lease.id).collect())
}

/// Leases whose deadline is at or before `clock_ms`, at most `limit`, the oldest first within each key space.
pub fn due(view: &dyn View, clock_ms: u64, limit: usize) -> Result<Vec<Due>, ViewError> {
    let mut due = Vec::new();
    for space in super::state::namespaces_in(view)? {
        if due.len() >= limit {
            break;
        }
        let to = key::number(space, Kind::Deadline, clock_ms.saturating_add(1));
        deadlines(view, space, &to, limit, &mut due)?;
    }
    Ok(due)
}

/// The earliest deadline of the partition; `None` if it has no lease. While there is one, the clock must be logged.
pub fn next_deadline(view: &dyn View) -> Result<Option<u64>, ViewError> {
    let mut first: Option<u64> = None;
    for space in super::state::namespaces_in(view)? {
        let mut met = Vec::new();
        deadlines(view, space, &key::family(space, Kind::Deadline).1, 1, &mut met)?;
        if let Some(next) = met.first() {
            first = Some(first.map_or(next.deadline_ms, |first| first.min(next.deadline_ms)));
        }
    }
    Ok(first)
}

/// Appends the entries of the deadline index before `to`, until `into` has `limit`.
fn deadlines(
    view: &dyn View,
    space: Space,
    to: &[u8],
    limit: usize,
    into: &mut Vec<Due>,
) -> Result<(), ViewError> {
    let (from, _) = key::family(space, Kind::Deadline);
    let mut damage = None;
    view.scan(&from, to, false, &mut |key, value| {
        match deadline(space, key, value) {
            Ok(due) => into.push(due),
            Err(error) => damage = Some(error),
        }
        if damage.is_some() || into.len() >= limit {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    damage.map_or(Ok(()), Err)
}

/// Decodes one entry of the deadline index.
pub(crate) fn deadline(space: Space, key: &[u8], value: &[u8]) -> Result<Due, ViewError> {
    let family_key = &key[key::PREFIX_BYTES..];
    let entry: Deadline = decode("a deadline", Bytes::copy_from_slice(value))?;
    Ok(Due {
        space,
        id: key::lease_id(key::number_at(family_key, 8)?),
        generation: entry.generation,
        deadline_ms: key::number_at(family_key, 0)?,
    })
}
