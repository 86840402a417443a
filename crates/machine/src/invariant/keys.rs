//! Heads, versions and the log of a key space say the same; its numbers are their sums; nothing that a finished
//! compaction should have removed is left.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Faults, family};
use crate::record::key::{self, Kind};
use crate::record::kv::{self, Namespace, Pair, Version};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

type Versions = BTreeMap<Bytes, Vec<(i64, Version)>>;

pub(super) fn check(view: &dyn View, space: Space, faults: &mut Faults) -> Result<(), ViewError> {
    let numbers = kv::namespace(view, space)?;
    faults.unless(
        numbers.compact_revision <= numbers.revision && numbers.revision >= 1,
        || format!("{space:?}: impossible revisions {numbers:?}"),
    );
    let versions = versions(view, space)?;
    let log = log(view, space, &numbers, &versions, faults)?;
    heads(view, space, &numbers, &versions, &log, faults)?;
    for (key, versions) in &versions {
        for (revision, version) in versions {
            faults.unless(log.contains_key(&(*revision, version.sub)), || {
                format!(
                    "{space:?}: version {revision}/{} of {key:?} has no log record",
                    version.sub
                )
            });
        }
        if !numbers.compaction_pending {
            compacted(space, &numbers, key, versions, faults);
        }
    }
    Ok(())
}

fn versions(view: &dyn View, space: Space) -> Result<Versions, ViewError> {
    let mut versions = Versions::new();
    for (family_key, value) in family(view, space, Kind::Version)? {
        let (escaped, revision) = key::split_version(&family_key)?;
        let version = decode("a version", value)?;
        versions
            .entry(key::unescape(escaped)?)
            .or_default()
            .push((revision, version));
    }
    Ok(versions)
}

fn log(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    versions: &Versions,
    faults: &mut Faults,
) -> Result<BTreeMap<(i64, u32), Pair>, ViewError> {
    let mut log = BTreeMap::new();
    let mut total = 0;
    for (family_key, value) in family(view, space, Kind::Log)? {
        let at = key::split_log(&family_key)?;
        let pair: Pair = decode("a log record", value)?;
        total += pair.size_bytes();
        faults.unless(
            (pair.kv.mod_revision, pair.sub) == at && at.0 <= numbers.revision,
            || format!("{space:?}: log record {at:?} says {pair:?}"),
        );
        let indexed = versions.get(&pair.kv.key).is_some_and(|versions| {
            versions.contains(&(
                at.0,
                Version {
                    sub: at.1,
                    delete: pair.delete,
                },
            ))
        });
        faults.unless(indexed, || {
            format!("{space:?}: log record {at:?} of {:?} has no version", pair.kv.key)
        });
        log.insert(at, pair);
    }
    faults.unless(total == numbers.total_bytes, || {
        format!(
            "{space:?}: {} bytes are counted, the log has {total}",
            numbers.total_bytes
        )
    });
    Ok(log)
}

fn heads(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    versions: &Versions,
    log: &BTreeMap<(i64, u32), Pair>,
    faults: &mut Faults,
) -> Result<(), ViewError> {
    let (mut keys, mut live) = (0, 0);
    for (family_key, value) in family(view, space, Kind::Head)? {
        let pair: Pair = decode("a head", value)?;
        keys += 1;
        live += pair.size_bytes();
        faults.unless(pair.kv.key == family_key && !pair.delete, || {
            format!("{space:?}: the head of {family_key:?} says {pair:?}")
        });
        let newest = versions.get(&family_key).and_then(|versions| versions.last());
        let at = (pair.kv.mod_revision, pair.sub);
        faults.unless(
            newest.is_some_and(|(revision, version)| (*revision, version.sub) == at),
            || {
                format!(
                    "{space:?}: the head of {family_key:?} is at {at:?}, its newest version is {newest:?}"
                )
            },
        );
        faults.unless(log.get(&at) == Some(&pair), || {
            format!("{space:?}: the head of {family_key:?} differs from log record {at:?}")
        });
    }
    faults.unless((keys, live) == (numbers.keys, numbers.live_bytes), || {
        format!("{space:?}: {keys} keys of {live} bytes are there, counted are {numbers:?}")
    });
    let alive = |versions: &&Vec<(i64, Version)>| versions.last().is_some_and(|(_, version)| !version.delete);
    let alive = versions.values().filter(alive).count() as u64;
    faults.unless(alive == keys, || {
        format!("{space:?}: {alive} keys end alive, {keys} have heads")
    });
    Ok(())
}

/// After compaction, one version at most below the compact revision is left of a key, and it is live there.
fn compacted(
    space: Space,
    numbers: &Namespace,
    key: &Bytes,
    versions: &[(i64, Version)],
    faults: &mut Faults,
) {
    let compact = numbers.compact_revision;
    let below: Vec<_> = versions
        .iter()
        .filter(|(revision, _)| *revision <= compact)
        .collect();
    let superfluous = below.len() > 1
        || below
            .iter()
            .any(|(revision, version)| version.delete && *revision < compact);
    faults.unless(!superfluous, || {
        format!("{space:?}: {key:?} keeps {below:?}, compacted at {compact}")
    });
}
