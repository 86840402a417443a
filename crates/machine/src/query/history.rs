//! Events from the revision log, for watchers that begin in the past or fell behind.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{AskHistory, History, HistoryEvent};
use crate::apply::{Stop, range};
use crate::record::key::{self, UserRange};
use crate::record::kv::{self, Namespace, Pair};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

/// Bytes of the log looked at by one query, so that a narrow range over a long history cannot hold a thread.
const SCAN_BYTES: usize = 4 * 1024 * 1024;

/// Whole revisions from `from` on, until the limit is exceeded or nothing is left.
pub(super) fn tell(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    request: &AskHistory,
) -> Result<History, Stop> {
    let first = request.from.max(1);
    if first < numbers.compact_revision {
        return Err(range::compacted(numbers).into());
    }
    let wanted = UserRange::new(&request.key, &request.range_end);
    let (found, through) = scan(view, space, numbers, first, &wanted, request.limit_bytes)?;
    let mut events = Vec::with_capacity(found.len());
    for pair in found {
        let prev_kv = match request.prev_kv {
            true => before(view, space, numbers, &pair)?.map(|pair| pair.kv),
            false => None,
        };
        events.push(HistoryEvent {
            delete: pair.delete,
            kv: Some(pair.kv),
            prev_kv,
        });
    }
    Ok(History { events, through })
}

/// Events of the range, and the last revision that was seen whole.
fn scan(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    first: i64,
    wanted: &UserRange,
    limit_bytes: u64,
) -> Result<(Vec<Pair>, i64), ViewError> {
    let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    let (mut found, mut found_bytes, mut seen_bytes) = (Vec::new(), 0, 0);
    let mut through = numbers.revision;
    let mut damage = None;
    // Revision of the last record met: a limit takes effect where the next revision begins.
    let mut last = first;
    let mut meet = |key: &[u8], value: &[u8]| -> Result<ControlFlow<()>, ViewError> {
        let (revision, _) = key::split_log(&key[key::PREFIX_BYTES..])?;
        if revision != last && (found_bytes > limit || seen_bytes > SCAN_BYTES) {
            through = revision - 1;
            return Ok(ControlFlow::Break(()));
        }
        last = revision;
        seen_bytes += key.len() + value.len();
        let pair: Pair = decode("a log record", Bytes::copy_from_slice(value))?;
        if wanted.contains(&pair.kv.key) {
            found_bytes += value.len();
            found.push(pair);
        }
        Ok(ControlFlow::Continue(()))
    };
    let from = key::log(space, first, 0);
    let to = key::log(space, numbers.revision + 1, 0);
    view.scan(&from, &to, false, &mut |key, value| {
        meet(key, value).unwrap_or_else(|error| {
            damage = Some(error);
            ControlFlow::Break(())
        })
    })?;
    match damage {
        Some(error) => Err(error),
        None => Ok((found, through)),
    }
}

/// The pair before an event; none at the compact revision, since what was before it is forgotten.
fn before(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    event: &Pair,
) -> Result<Option<Pair>, ViewError> {
    let created = !event.delete && event.kv.version == 1;
    if created || event.kv.mod_revision <= numbers.compact_revision {
        return Ok(None);
    }
    kv::pair_at(view, space, &event.kv.key, event.kv.mod_revision - 1)
}
