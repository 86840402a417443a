//! Puts and deletes, alone or as parts of one revision.

use std::ops::ControlFlow;

use bytes::Bytes;
use prost::Message;
use types::limits;
use types::planted::{self, Planted};

use super::{Context, Stop, refusal};
use crate::command::{DeleteRangeRequest, KeyValue, PutRequest};
use crate::outcome::{Deleted, Done, Event, EventKind, Events, Put, Refusal, RefusalKind};
use crate::record::key::{self, UserRange};
use crate::record::kv::{self, Namespace, Pair, Version};
use crate::record::{Space, decode, encode};
use crate::view::{View, ViewError, Visit};

/// Changes of one revision being made. Nothing may be refused once the first was made.
pub(super) struct Write<'c, 'v> {
    pub context: &'c mut Context<'v>,
    pub space: Space,
    /// Numbers of the space as they will be, its revision excepted.
    pub numbers: Namespace,
    events: Vec<Event>,
    /// Of the previous pairs in `events`.
    previous_bytes: u64,
    /// Whether there are none, since they would be too large.
    cut: bool,
}

/// A key that is about to be deleted.
struct Doomed {
    key: Bytes,
    lease: i64,
    size_bytes: u64,
    /// Of its head.
    hash: u128,
    /// Its pair, if anybody needs that.
    before: Option<KeyValue>,
}

impl<'c, 'v> Write<'c, 'v> {
    pub fn begin(context: &'c mut Context<'v>, space: Space) -> Result<Write<'c, 'v>, ViewError> {
        let numbers = context.numbers(space)?.clone();
        Ok(Write {
            context,
            space,
            numbers,
            events: Vec::new(),
            previous_bytes: 0,
            cut: false,
        })
    }

    /// The revision that reads see now: the new one as soon as something was changed.
    pub fn current(&self) -> i64 {
        self.numbers.revision + i64::from(!self.events.is_empty())
    }

    /// The revision that changes get.
    pub fn next(&self) -> i64 {
        self.numbers.revision + 1
    }

    /// The newest pair of a key, by the key of its record.
    fn head(&self, place: &Bytes) -> Result<Option<Pair>, ViewError> {
        let bytes = self.context.overlay.read(place)?;
        bytes.map(|bytes| decode("a head", bytes)).transpose()
    }

    /// Writes a key.
    pub fn put(&mut self, request: &PutRequest) -> Result<Put, ViewError> {
        let place = key::head(self.space, &request.key);
        let before = self.head(&place)?.map(|pair| pair.kv);
        let revision = self.next();
        let mut kv = KeyValue {
            key: request.key.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value: request.value.clone(),
            lease: request.lease,
        };
        if let Some(before) = &before {
            kv.create_revision = before.create_revision;
            kv.version = before.version + 1;
            if request.ignore_value {
                kv.value = before.value.clone();
            }
            if request.ignore_lease {
                kv.lease = before.lease;
            }
        }
        self.attach(&kv, before.as_ref())?;
        let pair = Pair {
            kv,
            sub: self.events.len() as u32,
            delete: false,
        };
        let encoded = encode(&pair);
        self.context.overlay.put(place, encoded.clone())?;
        self.numbers.live_bytes += pair.size_bytes();
        match &before {
            Some(before) => self.numbers.live_bytes -= (before.key.len() + before.value.len()) as u64,
            None => self.numbers.keys += 1,
        }
        let told = request.prev_kv && !planted::is(Planted::PreviousForgotten);
        let prev_kv = before.as_ref().filter(|_| told).cloned();
        self.record(EventKind::Put, pair, encoded, before)?;
        Ok(Put { prev_kv })
    }

    fn delete(&mut self, doomed: Doomed) -> Result<(), ViewError> {
        let place = key::head(self.space, &doomed.key);
        self.context.overlay.remove_hashed(place, doomed.hash)?;
        if doomed.lease != 0 {
            self.context.overlay.remove_known(
                key::attachment(self.space, doomed.lease, &doomed.key),
                Bytes::new(),
            )?;
        }
        let kv = KeyValue {
            key: doomed.key,
            mod_revision: self.next(),
            ..Default::default()
        };
        let pair = Pair {
            kv,
            sub: self.events.len() as u32,
            delete: true,
        };
        let encoded = encode(&pair);
        self.numbers.keys -= 1;
        self.numbers.live_bytes -= doomed.size_bytes;
        if doomed.before.is_none() {
            self.cut_events();
        }
        self.record(EventKind::Delete, pair, encoded, doomed.before)
    }

    /// Deletes a range.
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<Deleted, ViewError> {
        let range = UserRange::new(&request.key, &request.range_end);
        let mut doomed = self.doomed(&range, request.prev_kv)?;
        let deleted = doomed.len() as i64;
        let prev_kvs = match request.prev_kv {
            true => doomed.iter().filter_map(|doomed| doomed.before.clone()).collect(),
            false => Vec::new(),
        };
        if planted::is(Planted::LastKeySpared) && doomed.len() > 1 {
            doomed.pop();
        }
        for doomed in doomed {
            self.delete(doomed)?;
        }
        Ok(Deleted { deleted, prev_kvs })
    }

    /// The keys of a range, ascending; with their pairs if these are asked for, or are few enough for events.
    fn doomed(&self, range: &UserRange, asked: bool) -> Result<Vec<Doomed>, ViewError> {
        let overlay = &self.context.overlay;
        let (mut met, mut damage) = (Vec::new(), None);
        let mut met_bytes = self.previous_bytes;
        each_head(self.context, self.space, range, &mut |place, value| {
            let hash = overlay.hash_of(place, value);
            match decode::<Pair>("a head", Bytes::copy_from_slice(value)) {
                Ok(pair) => {
                    met_bytes += pair.size_bytes();
                    let needed = asked || (!self.cut && met_bytes <= limits::WATCH_PREVIOUS_BYTES);
                    met.push(Doomed {
                        // A copy: the key as decoded would keep the whole record.
                        key: Bytes::copy_from_slice(&pair.kv.key),
                        lease: pair.kv.lease,
                        size_bytes: pair.size_bytes(),
                        hash,
                        before: needed.then_some(pair.kv),
                    });
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    damage = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        damage.map_or(Ok(met), Err)
    }

    /// Deletes a key that is attached to a lease, which ends.
    pub fn delete_attached(&mut self, user_key: &[u8], lease: i64) -> Result<(), ViewError> {
        let range = UserRange::One(Bytes::copy_from_slice(user_key));
        match self.doomed(&range, false)?.pop() {
            Some(doomed) if doomed.lease == lease => self.delete(doomed),
            _ => Err(ViewError::new(format!(
                "key {user_key:02x?} is attached to lease {lease}, and does not say so"
            ))),
        }
    }

    fn attach(&mut self, kv: &KeyValue, before: Option<&KeyValue>) -> Result<(), ViewError> {
        let old = before.map_or(0, |before| before.lease);
        if old == kv.lease {
            return Ok(());
        }
        if old != 0 {
            self.context
                .overlay
                .remove_known(key::attachment(self.space, old, &kv.key), Bytes::new())?;
        }
        if kv.lease != 0 {
            self.context
                .overlay
                .insert(key::attachment(self.space, kv.lease, &kv.key), Bytes::new())?;
        }
        Ok(())
    }

    /// Version, log record and event of one change.
    fn record(
        &mut self,
        kind: EventKind,
        pair: Pair,
        encoded: Bytes,
        prev_kv: Option<KeyValue>,
    ) -> Result<(), ViewError> {
        let revision = pair.kv.mod_revision;
        let version = Version {
            sub: pair.sub,
            delete: pair.delete,
        };
        let overlay = &self.context.overlay;
        overlay.insert(key::version(self.space, &pair.kv.key, revision), encode(&version))?;
        overlay.insert(key::log(self.space, revision, pair.sub), encoded)?;
        self.numbers.total_bytes += pair.size_bytes();
        self.previous_bytes += prev_kv.as_ref().map_or(0, bytes_of);
        if self.previous_bytes > limits::WATCH_PREVIOUS_BYTES {
            self.cut_events();
        }
        self.events.push(Event {
            kind,
            kv: pair.kv,
            prev_kv: prev_kv.filter(|_| !self.cut),
        });
        Ok(())
    }

    /// Leaves previous pairs out of the revision's events.
    fn cut_events(&mut self) {
        if !self.cut {
            self.cut = true;
            self.events.iter_mut().for_each(|event| event.prev_kv = None);
        }
    }

    /// Ends the revision: it is raised if anything changed.
    pub fn finish(mut self) {
        if !self.events.is_empty() {
            let stuck = planted::is(Planted::RevisionStuck) && self.numbers.revision % 20 == 19;
            self.numbers.revision += i64::from(!stuck);
            self.context.push_events(Events {
                namespace: self.space.namespace.0,
                revision: self.numbers.revision,
                events: self.events,
                cut: self.cut,
            });
        }
        self.context.set_numbers(self.space, self.numbers);
    }
}

/// Visits the heads of a range, ascending.
fn each_head(
    context: &Context<'_>,
    space: Space,
    range: &UserRange,
    visit: Visit<'_>,
) -> Result<(), ViewError> {
    let overlay = &context.overlay;
    let UserRange::One(user_key) = range else {
        let (from, to) = range.heads(space);
        return overlay.scan(&from, &to, false, visit);
    };
    let place = key::head(space, user_key);
    if let Some(value) = overlay.get(&place)? {
        let _ = visit(&place, &value);
    }
    Ok(())
}

fn bytes_of(kv: &KeyValue) -> u64 {
    (kv.key.len() + kv.value.len()) as u64
}

/// Adds what the answer would carry of pairs as they are now, and refuses what no answer can, before it is read in.
pub(super) fn check_previous(
    context: &Context<'_>,
    space: Space,
    range: &UserRange,
    bytes: &mut u64,
) -> Result<(), Stop> {
    each_head(context, space, range, &mut |_, value| {
        *bytes += value.len() as u64;
        if *bytes > limits::PREVIOUS_BYTES {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if *bytes > limits::PREVIOUS_BYTES {
        let text = format!(
            "the previous pairs take more than {} bytes: do without, or change fewer keys at once",
            limits::PREVIOUS_BYTES
        );
        return Err(refusal(RefusalKind::Invalid, text).into());
    }
    Ok(())
}

/// What is wrong with a put whatever the state.
pub(super) fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(refusal(RefusalKind::EmptyKey, "etcdserver: key is not provided"));
    }
    if request.key.len() > limits::KEY_BYTES {
        let text = format!(
            "the key has {} bytes, the limit is {}",
            request.key.len(),
            limits::KEY_BYTES
        );
        return Err(refusal(RefusalKind::Invalid, text));
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(refusal(RefusalKind::Invalid, "etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(refusal(RefusalKind::Invalid, "etcdserver: lease is provided"));
    }
    Ok(())
}

/// What is wrong with a delete whatever the state.
pub(super) fn check_delete(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(refusal(RefusalKind::EmptyKey, "etcdserver: key is not provided"));
    }
    Ok(())
}

/// Refuses what is too large for a log entry.
pub(super) fn check_size(encoded_bytes: usize) -> Result<(), Refusal> {
    if encoded_bytes > limits::REQUEST_BYTES {
        return Err(refusal(RefusalKind::Invalid, "etcdserver: request is too large"));
    }
    Ok(())
}

/// Refuses what the namespace has no room for.
pub(super) fn check_quota(numbers: &Namespace, more_bytes: u64) -> Result<(), Refusal> {
    let quota = numbers.quota_bytes();
    let held = numbers
        .leases
        .saturating_mul(limits::LEASE_BYTES)
        .saturating_add(numbers.total_bytes);
    if more_bytes > 0 && held.saturating_add(more_bytes) > quota {
        let text = format!("the namespace holds {held} of at most {quota} bytes");
        return Err(super::refusal_at(
            RefusalKind::NoSpace,
            text,
            quota.min(i64::MAX as u64) as i64,
        ));
    }
    Ok(())
}

/// Refuses a lease that does not exist.
pub(super) fn check_lease(context: &Context<'_>, space: Space, id: i64) -> Result<(), Stop> {
    if id != 0 && context.overlay.read(&key::lease(space, id))?.is_none() {
        return Err(refusal(
            RefusalKind::LeaseNotFound,
            "etcdserver: requested lease not found",
        )
        .into());
    }
    Ok(())
}

/// Refuses to keep the value or lease of a key that does not exist.
pub(super) fn check_kept(context: &Context<'_>, space: Space, request: &PutRequest) -> Result<(), Stop> {
    let keeps = request.ignore_value || request.ignore_lease;
    if keeps && context.overlay.get(&key::head(space, &request.key))?.is_none() {
        return Err(refusal(RefusalKind::KeyNotFound, "etcdserver: key not found").into());
    }
    Ok(())
}

/// Bytes that a put adds; the value that it keeps is written anew.
pub(super) fn put_bytes(context: &Context<'_>, space: Space, request: &PutRequest) -> Result<u64, ViewError> {
    let kept = match request.ignore_value {
        true => kv::head(&context.overlay, space, &request.key)?.map_or(0, |pair| pair.kv.value.len()),
        false => 0,
    };
    Ok((request.key.len() + request.value.len() + kept) as u64)
}

/// The command.
pub(super) fn put(context: &mut Context<'_>, space: Space, request: &PutRequest) -> Result<Done, Stop> {
    check_put(request)?;
    check_size(request.encoded_len())?;
    let bytes = put_bytes(context, space, request)?;
    check_quota(context.numbers(space)?, bytes)?;
    check_lease(context, space, request.lease)?;
    check_kept(context, space, request)?;
    let mut write = Write::begin(context, space)?;
    let done = write.put(request)?;
    write.finish();
    Ok(Done::Put(done))
}

/// The command.
pub(super) fn delete_range(
    context: &mut Context<'_>,
    space: Space,
    request: &DeleteRangeRequest,
) -> Result<Done, Stop> {
    check_delete(request)?;
    check_size(request.encoded_len())?;
    if request.prev_kv {
        let range = UserRange::new(&request.key, &request.range_end);
        check_previous(context, space, &range, &mut 0)?;
    }
    let mut write = Write::begin(context, space)?;
    let deleted = write.delete_range(request)?;
    write.finish();
    Ok(Done::Deleted(deleted))
}
