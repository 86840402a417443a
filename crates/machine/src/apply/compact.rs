//! Compaction: at once for readers, in bounded steps for the records.
//!
//! A step walks the log from the last compaction's revision towards the new one. Each event it meets makes the
//! older versions of its key superfluous; a deletion also itself, unless it is at the compact revision, where a
//! watcher may still begin. So the work depends on what was written, not on how many keys there are.

use std::ops::ControlFlow;

use bytes::Bytes;
use types::limits;
use types::planted::{self, Planted};

use super::{Context, Stop, range};
use crate::command::Compact;
use crate::outcome::{Done, Effect, Empty, StepDone};
use crate::record::key;
use crate::record::kv::{Namespace, Pair, Version};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

/// The command.
pub(super) fn compact(context: &mut Context<'_>, space: Space, request: &Compact) -> Result<Done, Stop> {
    let mut numbers = context.numbers(space)?.clone();
    if request.revision <= numbers.compact_revision {
        return Err(range::compacted(&numbers).into());
    }
    if request.revision > numbers.revision {
        return Err(range::future(numbers.revision).into());
    }
    // Deletions at the old compact revision were kept, and are now to be met again: those too that a step has passed
    // which ended amid that revision.
    if numbers.cursor_revision >= numbers.compact_revision {
        (numbers.cursor_revision, numbers.cursor_sub) = (numbers.compact_revision, 0);
    }
    numbers.compact_revision = request.revision;
    numbers.compaction_pending = true;
    context.set_numbers(space, numbers);
    context.push_effect(Effect::Compaction {
        namespace: space.namespace.0,
    });
    Ok(Done::Empty(Empty {}))
}

/// The command: looks at no more than `records` events, and stops earlier once it has read many bytes.
pub(super) fn step(context: &mut Context<'_>, space: Space, records: usize) -> Result<Done, Stop> {
    let mut numbers = context.numbers(space)?.clone();
    if !numbers.compaction_pending {
        return Ok(Done::Step(StepDone {
            remaining: false,
            removed: 0,
        }));
    }
    let (met, mut next) = events(context, space, &numbers, records)?;
    let before_bytes = numbers.total_bytes;
    let mut removed = 0;
    for event in met {
        // What an event makes superfluous may be much larger than the event.
        if before_bytes - numbers.total_bytes >= limits::COMPACT_STEP_BYTES {
            next = Some((event.kv.mod_revision, event.sub));
            break;
        }
        removed += older_version(context, space, &mut numbers, &event)?;
        let taken = planted::is(Planted::CompactedAlive) && event.kv.version % 4 == 3;
        if (event.delete || taken) && event.kv.mod_revision < numbers.compact_revision {
            removed += forget(context, space, &mut numbers, &event)?;
        }
    }
    numbers.compaction_pending = next.is_some();
    (numbers.cursor_revision, numbers.cursor_sub) = next.unwrap_or((numbers.compact_revision, 0));
    let remaining = numbers.compaction_pending;
    context.set_numbers(space, numbers);
    Ok(Done::Step(StepDone { remaining, removed }))
}

/// Where the next step begins; `None` if this one was the last.
type Cursor = Option<(i64, u32)>;

/// The next events at or below the compact revision, without their values.
fn events(
    context: &Context<'_>,
    space: Space,
    numbers: &Namespace,
    limit: usize,
) -> Result<(Vec<Pair>, Cursor), ViewError> {
    let from = key::log(space, numbers.cursor_revision, numbers.cursor_sub);
    let to = key::log(space, numbers.compact_revision + 1, 0);
    let mut met = Vec::new();
    let mut met_bytes = 0;
    let mut next = None;
    context.overlay.scan(&from, &to, false, &mut |key, value| {
        if met.len() == limit || met_bytes >= limits::COMPACT_STEP_BYTES {
            next = Some(key::split_log(&key[key::PREFIX_BYTES..]));
            return ControlFlow::Break(());
        }
        let event = decode("a log record", Bytes::copy_from_slice(value)).map(|mut event: Pair| {
            met_bytes += event.size_bytes();
            event.kv.value = Bytes::new();
            // A copy: the key as decoded would keep the whole record.
            event.kv.key = Bytes::copy_from_slice(&event.kv.key);
            event
        });
        met.push(event);
        ControlFlow::Continue(())
    })?;
    Ok((met.into_iter().collect::<Result<_, _>>()?, next.transpose()?))
}

/// Removes the version of the event's key before the event. There is at most one: each event met earlier removed
/// its own predecessor. Looked for from the event downwards, past which lie only records already removed.
fn older_version(
    context: &Context<'_>,
    space: Space,
    numbers: &mut Namespace,
    event: &Pair,
) -> Result<u64, ViewError> {
    if !event.delete && event.kv.version == 1 {
        // A creation follows nothing, or a deletion that was met before it and, being below it, removed.
        return Ok(0);
    }
    let from = key::version(space, &event.kv.key, 0);
    let to = key::version(space, &event.kv.key, event.kv.mod_revision);
    let mut found = None;
    context.overlay.scan(&from, &to, true, &mut |key, value| {
        found = Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Break(())
    })?;
    let Some((key, value)) = found else {
        return Ok(0);
    };
    let (_, revision) = key::split_version(&key[key::PREFIX_BYTES..])?;
    let version: Version = decode("a version", value.clone())?;
    context.overlay.remove_known(key, value)?;
    forget_event(context, space, numbers, revision, version.sub)?;
    Ok(1)
}

/// Removes a deletion itself.
fn forget(
    context: &Context<'_>,
    space: Space,
    numbers: &mut Namespace,
    event: &Pair,
) -> Result<u64, ViewError> {
    context
        .overlay
        .remove(key::version(space, &event.kv.key, event.kv.mod_revision))?;
    forget_event(context, space, numbers, event.kv.mod_revision, event.sub)?;
    Ok(1)
}

fn forget_event(
    context: &Context<'_>,
    space: Space,
    numbers: &mut Namespace,
    revision: i64,
    sub: u32,
) -> Result<(), ViewError> {
    let key = key::log(space, revision, sub);
    let Some(bytes) = context.overlay.read(&key)? else {
        return Err(ViewError::new(format!(
            "log record {revision}/{sub} of {space:?} is missing"
        )));
    };
    let pair: Pair = decode("a log record", bytes)?;
    context.overlay.remove(key)?;
    let left = numbers.total_bytes.checked_sub(pair.size_bytes());
    numbers.total_bytes =
        left.ok_or_else(|| ViewError::new(format!("bytes of {space:?} were miscounted")))?;
    Ok(())
}
