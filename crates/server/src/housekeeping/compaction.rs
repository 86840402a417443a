//! History is compacted by age and count, and what was compacted is removed in small steps between other work.

use machine::command::{Body, Compact, CompactStep};
use machine::record::kv;
use machine::{Command, View, ViewError};
use types::limits::COMPACT_STEP_RECORDS;

use super::own;

/// One step for each key space with compacted records left.
pub(super) fn steps(view: &dyn View) -> Result<Vec<Command>, ViewError> {
    let step = CompactStep {
        records: COMPACT_STEP_RECORDS as u32,
    };
    let pending = kv::compaction_pending(view)?;
    Ok(pending
        .into_iter()
        .map(|space| own(space, Body::CompactStep(step.clone())))
        .collect())
}

/// What retention asks for now.
pub(super) fn automatic(view: &dyn View, clock_ms: u64) -> Result<Vec<Command>, ViewError> {
    let wanted = kv::auto_compact(view, clock_ms)?;
    Ok(wanted
        .into_iter()
        .map(|(space, revision)| own(space, Body::Compact(Compact { revision })))
        .collect())
}
