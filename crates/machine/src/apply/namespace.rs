//! Settings of a key space.

use super::{Context, Stop, refusal};
use crate::command::NamespaceSettings;
use crate::outcome::{Done, Empty, RefusalKind};
use crate::record::Space;

/// The command. It may come late, or twice: settings older than those known change nothing.
pub(super) fn configure(
    context: &mut Context<'_>,
    space: Space,
    settings: &NamespaceSettings,
) -> Result<Done, Stop> {
    if settings.retain_revisions < 0 {
        return Err(refusal(RefusalKind::Invalid, "retain_revisions is negative").into());
    }
    let mut numbers = context.numbers(space)?.clone();
    let known = numbers.settings.map_or(0, |settings| settings.generation);
    if settings.generation >= known && numbers.settings.as_ref() != Some(settings) {
        numbers.settings = Some(*settings);
        context.set_numbers(space, numbers);
    }
    Ok(Done::Empty(Empty {}))
}
