//! Records of one key space: its numbers, heads, versions, the revision log, and which revision was when.
//!
//! ```text
//! head     user key            -> Pair        newest pair of each live key
//! version  user key, revision  -> Version     where in the log; tombstones too
//! log      revision, sub       -> Pair        what happened
//! ```
//! Invariant: each version has its log record and the other way round; each head equals its newest version, which
//! is no tombstone (`invariant::check`).

use std::ops::ControlFlow;

use bytes::Bytes;
use types::limits;

use super::key::{self, Kind};
use super::{Space, decode, encode};
use crate::command::{KeyValue, NamespaceSettings};
use crate::view::{View, ViewError};

/// Numbers of a key space.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespace {
    /// Current revision; 1 while nothing was written.
    #[prost(int64, tag = "1")]
    pub revision: i64,
    /// Reads below it are refused; 0: none compacted.
    #[prost(int64, tag = "2")]
    pub compact_revision: i64,
    /// Whether records of compacted revisions are still to be removed.
    #[prost(bool, tag = "3")]
    pub compaction_pending: bool,
    /// Next log record that compaction looks at: revision.
    #[prost(int64, tag = "4")]
    pub cursor_revision: i64,
    /// And sub.
    #[prost(uint32, tag = "5")]
    pub cursor_sub: u32,
    /// Live keys.
    #[prost(uint64, tag = "6")]
    pub keys: u64,
    /// Bytes of live keys and values.
    #[prost(uint64, tag = "7")]
    pub live_bytes: u64,
    /// Bytes of all keys and values in the log.
    #[prost(uint64, tag = "8")]
    pub total_bytes: u64,
    /// Leases.
    #[prost(uint64, tag = "9")]
    pub leases: u64,
    /// Lease ids drawn so far.
    #[prost(uint64, tag = "10")]
    pub lease_draws: u64,
    /// Quota and retention.
    #[prost(message, optional, tag = "11")]
    pub settings: Option<NamespaceSettings>,
    /// Clock of the newest sample.
    #[prost(uint64, tag = "12")]
    pub sampled_ms: u64,
}

impl Namespace {
    pub(crate) fn unused() -> Namespace {
        Namespace {
            revision: 1,
            ..Default::default()
        }
    }

    /// Whether the partition has not heard of `wanted`, settings of the map, and would act otherwise if it had.
    pub fn is_outdated(&self, wanted: &NamespaceSettings) -> bool {
        match &self.settings {
            Some(known) => known.generation < wanted.generation,
            None => {
                let defaults = NamespaceSettings {
                    generation: wanted.generation,
                    ..NamespaceSettings::default()
                };
                *wanted != defaults
            }
        }
    }

    /// Bytes it may hold.
    pub fn quota_bytes(&self) -> u64 {
        match self.settings.as_ref().map_or(0, |settings| settings.quota_bytes) {
            0 => limits::NAMESPACE_QUOTA_BYTES,
            bytes => bytes,
        }
    }

    /// Revisions that automatic compaction keeps.
    pub fn retain_revisions(&self) -> i64 {
        match self
            .settings
            .as_ref()
            .map_or(0, |settings| settings.retain_revisions)
        {
            0 => limits::RETAIN_REVISIONS,
            revisions => revisions,
        }
    }

    /// Milliseconds of history that automatic compaction keeps.
    pub fn retain_ms(&self) -> u64 {
        match self.settings.as_ref().map_or(0, |settings| settings.retain_ms) {
            0 => limits::RETAIN_MS,
            ms => ms,
        }
    }
}

/// A pair as a head holds it, or what happened to it as the log does; both are the same bytes after a put.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pair {
    /// The pair; key and mod revision only if deleted.
    #[prost(message, required, tag = "1")]
    pub kv: KeyValue,
    /// Place within its revision.
    #[prost(uint32, tag = "2")]
    pub sub: u32,
    /// Whether the key was deleted.
    #[prost(bool, tag = "3")]
    pub delete: bool,
}

impl Pair {
    /// What it counts against the quota.
    pub fn size_bytes(&self) -> u64 {
        (self.kv.key.len() + self.kv.value.len()) as u64
    }
}

/// Where a version is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Version {
    /// Its place within its revision.
    #[prost(uint32, tag = "1")]
    pub sub: u32,
    /// Whether it is a deletion.
    #[prost(bool, tag = "2")]
    pub delete: bool,
}

/// Which revision was current when, ascending.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Samples {
    /// At most [`SAMPLES`].
    #[prost(message, repeated, tag = "1")]
    pub samples: Vec<Sample>,
}

/// One of [`Samples`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sample {
    /// Machine clock.
    #[prost(uint64, tag = "1")]
    pub clock_ms: u64,
    /// Revision current then.
    #[prost(int64, tag = "2")]
    pub revision: i64,
}

/// Samples kept; they are [`SAMPLES`]`/2` to the retention time apart.
pub const SAMPLES: usize = 128;

/// The numbers of a key space; those of an unused one if it has no record.
pub fn namespace(view: &dyn View, space: Space) -> Result<Namespace, ViewError> {
    match view.get(&key::single(space, Kind::Namespace))? {
        Some(bytes) => decode("a namespace record", bytes),
        None => Ok(Namespace::unused()),
    }
}

/// The newest pair of a key.
pub fn head(view: &dyn View, space: Space, user_key: &[u8]) -> Result<Option<Pair>, ViewError> {
    view.get(&key::head(space, user_key))?
        .map(|bytes| decode("a head", bytes))
        .transpose()
}

/// A record of the log.
pub fn log(view: &dyn View, space: Space, revision: i64, sub: u32) -> Result<Option<Pair>, ViewError> {
    view.get(&key::log(space, revision, sub))?
        .map(|bytes| decode("a log record", bytes))
        .transpose()
}

/// A record of the log that a version names.
pub fn logged(view: &dyn View, space: Space, revision: i64, sub: u32) -> Result<Pair, ViewError> {
    log(view, space, revision, sub)?.ok_or_else(|| {
        ViewError::new(format!(
            "log record {revision}/{sub} of namespace {} is missing",
            space.namespace
        ))
    })
}

/// The newest version of a key at or below `revision`.
pub fn version_at(
    view: &dyn View,
    space: Space,
    user_key: &[u8],
    revision: i64,
) -> Result<Option<(i64, Version)>, ViewError> {
    let from = key::version(space, user_key, 0);
    let to = key::version(space, user_key, revision.saturating_add(1));
    let mut found = None;
    view.scan(&from, &to, true, &mut |key, value| {
        found = Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        ControlFlow::Break(())
    })?;
    let Some((key, value)) = found else {
        return Ok(None);
    };
    let (_, at) = key::split_version(&key[key::PREFIX_BYTES..])?;
    Ok(Some((at, decode("a version", value)?)))
}

/// The pair of a key as it was at `revision`, if it existed then.
pub fn pair_at(view: &dyn View, space: Space, key: &[u8], revision: i64) -> Result<Option<Pair>, ViewError> {
    match version_at(view, space, key, revision)? {
        Some((at, version)) if !version.delete => logged(view, space, at, version.sub).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// Samples of a key space.
pub fn samples(view: &dyn View, space: Space) -> Result<Samples, ViewError> {
    match view.get(&key::single(space, Kind::Samples))? {
        Some(bytes) => decode("a samples record", bytes),
        None => Ok(Samples::default()),
    }
}

pub(crate) fn encode_samples(samples: &Samples) -> Bytes {
    encode(samples)
}

/// Key spaces with compacted revisions whose records are still there; the leader proposes a step for each.
pub fn compaction_pending(view: &dyn View) -> Result<Vec<Space>, ViewError> {
    let mut pending = Vec::new();
    for space in super::state::namespaces_in(view)? {
        if namespace(view, space)?.compaction_pending {
            pending.push(space);
        }
    }
    Ok(pending)
}

/// Key spaces that their retention would compact now, each with the revision to compact at.
pub fn auto_compact(view: &dyn View, clock_ms: u64) -> Result<Vec<(Space, i64)>, ViewError> {
    let mut wanted = Vec::new();
    for space in super::state::namespaces_in(view)? {
        let numbers = namespace(view, space)?;
        let retain = numbers.retain_revisions();
        let mut target = 0;
        // A tenth late, so that a steady writer is not compacted at each look.
        if numbers.revision - numbers.compact_revision > retain.saturating_add(retain / 10) {
            target = numbers.revision - retain;
        }
        if numbers.sampled_ms != 0 {
            let before = clock_ms.saturating_sub(numbers.retain_ms());
            let samples = samples(view, space)?.samples;
            let aged = samples.iter().rev().find(|sample| sample.clock_ms <= before);
            target = target.max(aged.map_or(0, |sample| sample.revision));
        }
        if target > numbers.compact_revision && target <= numbers.revision {
            wanted.push((space, target));
        }
    }
    Ok(wanted)
}
