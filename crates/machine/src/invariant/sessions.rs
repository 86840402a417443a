//! Sessions, their replies and the idle index agree.

use std::collections::BTreeMap;

use super::{Faults, family};
use crate::outcome::Reply;
use crate::record::key::{self, Kind};
use crate::record::session::{Session, WINDOW};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

/// Returns how many sessions there are.
pub(super) fn check(view: &dyn View, space: Space, faults: &mut Faults) -> Result<u64, ViewError> {
    let mut sessions = BTreeMap::new();
    for (family_key, value) in family(view, space, Kind::Session)? {
        sessions.insert(
            key::number_at(&family_key, 0)?,
            decode::<Session>("a session", value)?,
        );
    }
    for (family_key, value) in family(view, space, Kind::SessionReply)? {
        let (client, seq) = (key::number_at(&family_key, 0)?, key::number_at(&family_key, 8)?);
        decode::<Reply>("a session's reply", value)?;
        let kept = sessions
            .get(&client)
            .is_some_and(|session| seq <= session.last_seq && seq.saturating_add(WINDOW) > session.last_seq);
        faults.unless(kept, || {
            format!("{space:?}: a reply to {client}/{seq} outlived its session's window")
        });
    }
    let mut indexed = 0;
    for (family_key, _) in family(view, space, Kind::SessionIdle)? {
        let (unit, client) = (key::number_at(&family_key, 0)?, key::number_at(&family_key, 8)?);
        indexed += 1;
        let agrees = sessions
            .get(&client)
            .is_some_and(|session| session.idle_unit == unit);
        faults.unless(agrees, || {
            format!("{space:?}: the idle index of session {client} is stale")
        });
    }
    faults.unless(indexed == sessions.len(), || {
        format!(
            "{space:?}: {indexed} sessions are indexed, {} are there",
            sessions.len()
        )
    });
    Ok(sessions.len() as u64)
}
