//! Reading ranges, now or at an earlier revision, as etcd 3.5 does: what is fetched, then filtered, then sorted,
//! then cut.

use std::cmp::Ordering;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Stop, refusal, refusal_at};
use crate::command::{KeyValue, RangeRequest, RangeResponse};
use crate::outcome::{Refusal, RefusalKind};
use crate::record::key::{self, UserRange};
use crate::record::kv::{self, Namespace, Pair, Version};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

/// What is wrong with a range whatever the state.
pub(crate) fn check(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(refusal(RefusalKind::EmptyKey, "etcdserver: key is not provided"));
    }
    if !(0..=2).contains(&request.sort_order) || !(0..=4).contains(&request.sort_target) {
        return Err(refusal(RefusalKind::Invalid, "etcdserver: invalid sort option"));
    }
    Ok(())
}

/// A refusal that names the compact revision.
pub(crate) fn compacted(numbers: &Namespace) -> Refusal {
    let text = "etcdserver: mvcc: required revision has been compacted";
    refusal_at(RefusalKind::Compacted, text, numbers.compact_revision)
}

/// A refusal that names the current revision.
pub(crate) fn future(current: i64) -> Refusal {
    refusal_at(
        RefusalKind::FutureRevision,
        "etcdserver: mvcc: required revision is a future revision",
        current,
    )
}

/// The revision to read at, if it can be read. `current` is what reads see now.
pub(crate) fn revision_of(asked: i64, numbers: &Namespace, current: i64) -> Result<i64, Refusal> {
    if asked > current {
        Err(future(current))
    } else if asked <= 0 {
        Ok(current)
    } else if asked < numbers.compact_revision {
        Err(compacted(numbers))
    } else {
        Ok(asked)
    }
}

/// Answers a range request that passed [`check`].
pub(crate) fn range(
    view: &dyn View,
    space: Space,
    numbers: &Namespace,
    current: i64,
    request: &RangeRequest,
) -> Result<RangeResponse, Stop> {
    let revision = revision_of(request.revision, numbers, current)?;
    let range = UserRange::new(&request.key, &request.range_end);
    let filtered = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let fetch = match request.count_only {
        true => Fetch::Nothing,
        // Everything is fetched, to be sorted and cut afterwards.
        false if request.sort_order != 0 || filtered || limit == 0 => Fetch::All,
        // One more than the limit, which tells whether there is more.
        false => Fetch::First(limit.saturating_add(1)),
    };
    let (mut kvs, count) = if revision == current {
        newest(view, space, &range, fetch, numbers.keys)?
    } else {
        historic(view, space, &range, revision, fetch)?
    };
    if filtered {
        kvs.retain(|kv| passes(request, kv));
    }
    sort(request, &mut kvs);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    Ok(RangeResponse {
        kvs,
        more,
        count: count as i64,
    })
}

/// How many pairs a range needs.
#[derive(Clone, Copy)]
enum Fetch {
    Nothing,
    First(usize),
    All,
}

impl Fetch {
    fn wants(self, have: usize) -> bool {
        match self {
            Fetch::Nothing => false,
            Fetch::First(limit) => have < limit,
            Fetch::All => true,
        }
    }

    /// What a range of one key needs, and its count.
    fn at_most_one(self, pair: Option<Pair>) -> (Vec<KeyValue>, u64) {
        let count = u64::from(pair.is_some());
        let wanted = pair.filter(|_| self.wants(0));
        (wanted.map(|pair| pair.kv).into_iter().collect(), count)
    }
}

/// All pairs of a range, newest versions, ascending.
pub(crate) fn heads(view: &dyn View, space: Space, range: &UserRange) -> Result<Vec<KeyValue>, ViewError> {
    newest(view, space, range, Fetch::All, 0).map(|(kvs, _)| kvs)
}

fn newest(
    view: &dyn View,
    space: Space,
    range: &UserRange,
    fetch: Fetch,
    keys_in_all: u64,
) -> Result<(Vec<KeyValue>, u64), ViewError> {
    if let UserRange::One(user_key) = range {
        return Ok(fetch.at_most_one(kv::head(view, space, user_key)?));
    }
    let (from, to) = range.heads(space);
    let mut kvs = Vec::new();
    let mut count = 0;
    // The number of all keys is known without counting them.
    let counts = !range.is_all() || matches!(fetch, Fetch::All);
    let mut damage = None;
    if counts || fetch.wants(0) {
        view.scan(&from, &to, false, &mut |_, value| {
            count += 1;
            if fetch.wants(kvs.len()) {
                match decode::<Pair>("a head", Bytes::copy_from_slice(value)) {
                    Ok(pair) => kvs.push(pair.kv),
                    Err(error) => {
                        damage = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            } else if !counts {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
    }
    match damage {
        Some(error) => Err(error),
        None => Ok((kvs, if counts { count } else { keys_in_all })),
    }
}

/// Pairs as they were at `revision`.
fn historic(
    view: &dyn View,
    space: Space,
    range: &UserRange,
    revision: i64,
    fetch: Fetch,
) -> Result<(Vec<KeyValue>, u64), ViewError> {
    if let UserRange::One(user_key) = range {
        return Ok(fetch.at_most_one(kv::pair_at(view, space, user_key, revision)?));
    }
    let mut places = Vec::new();
    let mut count = 0;
    versions_at(view, space, range, revision, &mut |at, version| {
        count += 1;
        if fetch.wants(places.len()) {
            places.push((at, version.sub));
        }
    })?;
    let mut kvs = Vec::with_capacity(places.len());
    for (at, sub) in places {
        kvs.push(kv::logged(view, space, at, sub)?.kv);
    }
    Ok((kvs, count))
}

/// Visits the version of each key of a range that was live at `revision`.
fn versions_at(
    view: &dyn View,
    space: Space,
    range: &UserRange,
    revision: i64,
    visit: &mut dyn FnMut(i64, Version),
) -> Result<(), ViewError> {
    let (from, to) = range.versions(space);
    let mut key: Vec<u8> = Vec::new();
    let mut best: Option<(i64, Version)> = None;
    let mut damage = None;
    view.scan(&from, &to, false, &mut |record_key, value| {
        let parsed = key::split_version(&record_key[key::PREFIX_BYTES..]).and_then(|(escaped, at)| {
            decode::<Version>("a version", Bytes::copy_from_slice(value))
                .map(|version| (escaped, at, version))
        });
        let (escaped, at, version) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                damage = Some(error);
                return ControlFlow::Break(());
            }
        };
        if escaped != key {
            if let Some((at, version)) = best.take().filter(|(_, version)| !version.delete) {
                visit(at, version);
            }
            key.clear();
            key.extend_from_slice(escaped);
        }
        if at <= revision {
            best = Some((at, version));
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = damage {
        return Err(error);
    }
    if let Some((at, version)) = best.filter(|(_, version)| !version.delete) {
        visit(at, version);
    }
    Ok(())
}

fn passes(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within = |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(
        kv.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && within(
        kv.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

fn sort(request: &RangeRequest, kvs: &mut [KeyValue]) {
    // A target without an order sorts ascending, what was fetched only, as etcd does.
    let (by_key, descending) = (request.sort_target == 0, request.sort_order == 2);
    if by_key {
        if descending {
            kvs.reverse();
        }
        return;
    }
    let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
        match request.sort_target {
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        }
    };
    if descending {
        kvs.sort_by(|a, b| compare(b, a));
    } else {
        kvs.sort_by(compare);
    }
}
