//! Puts and deletes, alone or as parts of one revision.

use bytes::Bytes;
use prost::Message;
use types::limits;
use types::planted::{self, Planted};

use super::{Context, Stop, refusal};
use crate::command::{DeleteRangeRequest, KeyValue, PutRequest};
use crate::outcome::{Deleted, Done, Event, EventKind, Events, Put, Refusal, RefusalKind};
use crate::record::key::{self, UserRange};
use crate::record::kv::{Namespace, Pair, Version};
use crate::record::{Space, decode, encode};
use crate::view::{View, ViewError};

/// Changes of one revision being made. Nothing may be refused once the first was made.
pub(super) struct Write<'c, 'v> {
    pub context: &'c mut Context<'v>,
    pub space: Space,
    /// Numbers of the space as they will be, its revision excepted.
    pub numbers: Namespace,
    events: Vec<Event>,
}

impl<'c, 'v> Write<'c, 'v> {
    pub fn begin(context: &'c mut Context<'v>, space: Space) -> Result<Write<'c, 'v>, ViewError> {
        let numbers = context.numbers(space)?.clone();
        Ok(Write {
            context,
            space,
            numbers,
            events: Vec::new(),
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

    /// Deletes a key whose pair the caller has read.
    pub fn delete(&mut self, before: KeyValue) -> Result<(), ViewError> {
        self.context.overlay.remove(key::head(self.space, &before.key))?;
        if before.lease != 0 {
            self.context.overlay.remove_known(
                key::attachment(self.space, before.lease, &before.key),
                Bytes::new(),
            )?;
        }
        let kv = KeyValue {
            key: before.key.clone(),
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
        self.numbers.live_bytes -= (before.key.len() + before.value.len()) as u64;
        self.record(EventKind::Delete, pair, encoded, Some(before))
    }

    /// Deletes a range; returns the pairs before, ascending.
    pub fn delete_range(&mut self, range: &UserRange) -> Result<Vec<KeyValue>, ViewError> {
        let doomed = match range {
            UserRange::One(user_key) => {
                let head = self.head(&key::head(self.space, user_key))?;
                head.into_iter().map(|pair| pair.kv).collect()
            }
            UserRange::Until(..) | UserRange::From(_) => {
                super::range::heads(&self.context.overlay, self.space, range)?
            }
        };
        let spared = usize::from(planted::is(Planted::LastKeySpared) && doomed.len() > 1);
        for before in &doomed[..doomed.len() - spared] {
            self.delete(before.clone())?;
        }
        Ok(doomed)
    }

    /// The pair of a key, for a lease that ends.
    pub fn delete_attached(&mut self, user_key: &[u8], lease: i64) -> Result<(), ViewError> {
        match self.head(&key::head(self.space, user_key))? {
            Some(pair) if pair.kv.lease == lease => self.delete(pair.kv),
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
        self.events.push(Event {
            kind,
            kv: pair.kv,
            prev_kv,
        });
        Ok(())
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
            });
        }
        self.context.set_numbers(self.space, self.numbers);
    }
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
    if more_bytes > 0 && numbers.total_bytes.saturating_add(more_bytes) > quota {
        let text = format!(
            "the namespace holds {} of at most {quota} bytes",
            numbers.total_bytes
        );
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

/// Bytes that a put adds.
pub(super) fn put_bytes(request: &PutRequest) -> u64 {
    (request.key.len() + request.value.len()) as u64
}

/// The command.
pub(super) fn put(context: &mut Context<'_>, space: Space, request: &PutRequest) -> Result<Done, Stop> {
    check_put(request)?;
    check_size(request.encoded_len())?;
    check_quota(context.numbers(space)?, put_bytes(request))?;
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
    let mut write = Write::begin(context, space)?;
    let before = write.delete_range(&UserRange::new(&request.key, &request.range_end))?;
    write.finish();
    Ok(Done::Deleted(deleted(before, request.prev_kv)))
}

/// The reply to a delete.
pub(super) fn deleted(before: Vec<KeyValue>, prev_kv: bool) -> Deleted {
    Deleted {
        deleted: before.len() as i64,
        prev_kvs: if prev_kv { before } else { Vec::new() },
    }
}
