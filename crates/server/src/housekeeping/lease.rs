//! Leases past their deadline end by a command that names their generation: one renewed meanwhile lives on.

use machine::command::{Body, LeaseExpire};
use machine::record::lease;
use machine::{Command, View, ViewError};
use types::limits::LEASES_PER_EXPIRY;

use super::own;

/// One command per lease that is due.
pub(super) fn expiries(view: &dyn View, clock_ms: u64) -> Result<Vec<Command>, ViewError> {
    let due = lease::due(view, clock_ms, LEASES_PER_EXPIRY)?;
    let expire = |due: lease::Due| {
        own(
            due.space,
            Body::LeaseExpire(LeaseExpire {
                id: due.id,
                generation: due.generation,
            }),
        )
    };
    Ok(due.into_iter().map(expire).collect())
}
