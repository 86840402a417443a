//! A hash of a key space's history that does not depend on how far compaction has removed records.

use std::ops::ControlFlow;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::HashKv;
use crate::record::key;
use crate::record::kv::{self, Namespace, Pair};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

/// Hashes every event up to `revision` that a finished compaction would have kept.
pub(super) fn hash(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    revision: i64,
) -> Result<HashKv, ViewError> {
    let from = key::log(space, 0, 0);
    let to = key::log(space, revision + 1, 0);
    let mut hash = Xxh3::new();
    let mut damage = None;
    view.scan(&from, &to, false, &mut |key, value| {
        match kept(view, space, numbers, value) {
            Ok(true) => {
                // The revision and sub, then the event.
                hash.update(&key[key::PREFIX_BYTES..]);
                hash.update(&(value.len() as u32).to_le_bytes());
                hash.update(value);
            }
            Ok(false) => {}
            Err(error) => {
                damage = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    match damage {
        Some(error) => Err(error),
        None => Ok(HashKv {
            hash: hash.digest() as u32,
            compact_revision: numbers.compact_revision,
            hash_revision: revision,
        }),
    }
}

/// Whether compaction keeps this event.
fn kept(view: &dyn View, space: Space, numbers: &Namespace, value: &[u8]) -> Result<bool, ViewError> {
    if !numbers.compaction_pending {
        return Ok(true);
    }
    let event: Pair = decode("a log record", Bytes::copy_from_slice(value))?;
    let at = event.kv.mod_revision;
    if at >= numbers.compact_revision {
        return Ok(true);
    }
    let newest = kv::version_at(view, space, &event.kv.key, numbers.compact_revision)?;
    Ok(!event.delete && newest.is_some_and(|(newest, _)| newest == at))
}
