//! Sessions that were silent for too long end by a logged command.

use machine::command::{Body, SessionExpire};
use machine::record::session;
use machine::{Command, View, ViewError};
use types::limits::SESSION_TTL_MS;

use super::own;

/// One command per space with silent sessions.
pub(super) fn expiries(view: &dyn View, clock_ms: u64) -> Result<Vec<Command>, ViewError> {
    let Some(silent_since_ms) = clock_ms.checked_sub(SESSION_TTL_MS) else {
        return Ok(Vec::new());
    };
    let spaces = session::silent(view, silent_since_ms)?;
    let expire = |space| own(space, Body::SessionExpire(SessionExpire { silent_since_ms }));
    Ok(spaces.into_iter().map(expire).collect())
}
