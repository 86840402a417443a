//! Sessions of the native API: which writes of a client were executed, and what was answered.
//!
//! Replies are kept for the newest [`WINDOW`] sequence numbers. Within the window, a number without a reply was
//! never executed; below it nothing is known any more, and the write is refused.

use std::ops::ControlFlow;

use super::key::{self, Kind};
use super::{Space, decode};
use crate::outcome::Reply;
use crate::view::{View, ViewError};

/// Replies kept per session.
pub const WINDOW: u64 = 32;

/// Idle sessions are indexed by this unit, so that the index changes at most once a minute per session.
pub const IDLE_UNIT_MS: u64 = 60_000;

/// A session.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Session {
    /// Highest sequence number executed.
    #[prost(uint64, tag = "1")]
    pub last_seq: u64,
    /// Machine clock at its last command.
    #[prost(uint64, tag = "2")]
    pub used_ms: u64,
    /// Its place in the idle index: minute.
    #[prost(uint64, tag = "3")]
    pub idle_unit: u64,
}

/// A session, if it is known.
pub fn read(view: &dyn View, space: Space, client_id: u64) -> Result<Option<Session>, ViewError> {
    let bytes = view.get(&key::number(space, Kind::Session, client_id))?;
    bytes.map(|bytes| decode("a session", bytes)).transpose()
}

/// The reply kept for a sequence number.
pub fn reply(view: &dyn View, space: Space, client_id: u64, seq: u64) -> Result<Option<Reply>, ViewError> {
    let bytes = view.get(&key::numbers(space, Kind::SessionReply, client_id, seq))?;
    bytes.map(|bytes| decode("a session's reply", bytes)).transpose()
}

/// Clients of a space that were silent since before `since_ms`, at most `limit`.
pub fn silent_in(view: &dyn View, space: Space, since_ms: u64, limit: usize) -> Result<Vec<u64>, ViewError> {
    let (from, _) = key::family(space, Kind::SessionIdle);
    let to = key::number(
        space,
        Kind::SessionIdle,
        (since_ms / IDLE_UNIT_MS).saturating_add(1),
    );
    let mut candidates = Vec::new();
    let mut damage = None;
    view.scan(
        &from,
        &to,
        false,
        &mut |key, _| match key::number_at(&key[key::PREFIX_BYTES..], 8) {
            Ok(client_id) => {
                candidates.push(client_id);
                ControlFlow::Continue(())
            }
            Err(error) => {
                damage = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    if let Some(error) = damage {
        return Err(error);
    }
    let mut silent = Vec::new();
    for client_id in candidates {
        if silent.len() >= limit {
            break;
        }
        if read(view, space, client_id)?.is_some_and(|session| session.used_ms < since_ms) {
            silent.push(client_id);
        }
    }
    Ok(silent)
}

/// Spaces with sessions silent since before `since_ms`; the leader proposes `SessionExpire` in each.
pub fn silent(view: &dyn View, since_ms: u64) -> Result<Vec<Space>, ViewError> {
    if super::state::read(view)?.sessions == 0 {
        return Ok(Vec::new());
    }
    let mut spaces = super::state::namespaces_in(view)?;
    spaces.push(Space::PARTITION);
    let mut found = Vec::new();
    for space in spaces {
        if !silent_in(view, space, since_ms, 1)?.is_empty() {
            found.push(space);
        }
    }
    Ok(found)
}
