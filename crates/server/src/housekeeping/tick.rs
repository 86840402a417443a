//! The clock is logged while something depends on it, so that a new leader starts at most a tick behind.

use machine::command::{Body, Tick};
use machine::record::{Space, lease, state};
use machine::{Command, View, ViewError};

use super::own;

/// A tick is due this long after the last batch, while there are leases.
const LEASE_TICK_MS: u64 = 950;
/// While there are only sessions, which live for many minutes.
const SESSION_TICK_MS: u64 = 60_000;

/// The tick, if it is due.
pub(super) fn due(view: &dyn View, clock_ms: u64) -> Result<Option<Command>, ViewError> {
    let state = state::read(view)?;
    let behind = clock_ms.saturating_sub(state.clock_ms);
    if behind < LEASE_TICK_MS {
        return Ok(None);
    }
    let wanted = (state.sessions > 0 && behind >= SESSION_TICK_MS) || lease::next_deadline(view)?.is_some();
    Ok(wanted.then(|| own(Space::PARTITION, Body::Tick(Tick {}))))
}
