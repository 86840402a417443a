//! The key codec. Layout, big-endian so that bytes order as numbers:
//!
//! ```text
//! slot u16 | namespace u32 | kind u8 | family key
//! ```
//! User keys stand last and raw where nothing follows them, else escaped (`00` as `00 FF`, end `00 01`), which
//! keeps their order. Kinds are never reused.

use bytes::Bytes;

use super::Space;
use crate::view::ViewError;

/// Families of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// `-` : numbers of a namespace. The lowest kind, so that it stands first in its space.
    Namespace = 0x01,
    /// user key : newest pair.
    Head = 0x02,
    /// escaped user key, mod revision : where in the log.
    Version = 0x03,
    /// revision, sub : event.
    Log = 0x04,
    /// lease id : lease.
    Lease = 0x05,
    /// lease id, user key : attachment.
    Attachment = 0x06,
    /// deadline, lease id : generation.
    Deadline = 0x07,
    /// `-` : which revision was current when.
    Samples = 0x08,
    /// client id : session.
    Session = 0x09,
    /// client id, seq : reply.
    SessionReply = 0x0a,
    /// minute of last use, client id : nothing.
    SessionIdle = 0x0b,
    /// `-` : clock and hash of the partition.
    State = 0x40,
    /// `-` : the cluster.
    Cluster = 0x60,
    /// node id : node.
    Node = 0x61,
    /// partition id : partition.
    Partition = 0x62,
    /// namespace id : name and settings.
    NamespaceEntry = 0x63,
}

/// Bytes before the family key.
pub const PREFIX_BYTES: usize = 7;

/// Start of a key of `kind`, with room for `more` bytes.
fn start(space: Space, kind: Kind, more: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(PREFIX_BYTES + more);
    key.extend_from_slice(&space.slot.0.to_be_bytes());
    key.extend_from_slice(&space.namespace.0.to_be_bytes());
    key.push(kind as u8);
    key
}

/// A key without family key.
pub fn single(space: Space, kind: Kind) -> Bytes {
    start(space, kind, 0).into()
}

/// A key whose family key is one number.
pub fn number(space: Space, kind: Kind, number: u64) -> Bytes {
    let mut key = start(space, kind, 8);
    key.extend_from_slice(&number.to_be_bytes());
    key.into()
}

/// A key whose family key is two numbers.
pub fn numbers(space: Space, kind: Kind, first: u64, second: u64) -> Bytes {
    let mut key = start(space, kind, 16);
    key.extend_from_slice(&first.to_be_bytes());
    key.extend_from_slice(&second.to_be_bytes());
    key.into()
}

/// All records of a family: `from` inclusive, `to` exclusive.
pub fn family(space: Space, kind: Kind) -> (Bytes, Bytes) {
    let from = start(space, kind, 0);
    let mut to = from.clone();
    to[PREFIX_BYTES - 1] += 1;
    (from.into(), to.into())
}

/// The first possible key of a space, and of the one after it (`None` after the last).
pub fn space(space: Space) -> (Bytes, Option<Bytes>) {
    let mut from = Vec::with_capacity(PREFIX_BYTES);
    from.extend_from_slice(&space.slot.0.to_be_bytes());
    from.extend_from_slice(&space.namespace.0.to_be_bytes());
    let joined = (u64::from(space.slot.0) << 32 | u64::from(space.namespace.0)) + 1;
    let next = (joined >> 48 == 0).then(|| Bytes::copy_from_slice(&joined.to_be_bytes()[2..]));
    (from.into(), next)
}

/// Slot, namespace and kind of a key.
pub fn split(key: &[u8]) -> Result<(Space, u8, &[u8]), ViewError> {
    if key.len() < PREFIX_BYTES {
        return Err(ViewError::new(format!("key {key:02x?} is too short")));
    }
    let slot = types::Slot(u16::from_be_bytes([key[0], key[1]]));
    let namespace = types::NamespaceId(u32::from_be_bytes([key[2], key[3], key[4], key[5]]));
    Ok((Space::new(slot, namespace), key[6], &key[PREFIX_BYTES..]))
}

/// The number at `offset` of a family key.
pub fn number_at(family_key: &[u8], offset: usize) -> Result<u64, ViewError> {
    let bytes = family_key
        .get(offset..offset + 8)
        .and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(u64::from_be_bytes)
        .ok_or_else(|| ViewError::new(format!("family key {family_key:02x?} is too short")))
}

/// Newest pair of a user key.
pub fn head(space: Space, user_key: &[u8]) -> Bytes {
    let mut key = start(space, Kind::Head, user_key.len());
    key.extend_from_slice(user_key);
    key.into()
}

/// One version of a user key. Without revision: a bound below all its versions.
pub fn version(space: Space, user_key: &[u8], revision: i64) -> Bytes {
    let mut key = version_start(space, user_key);
    key.extend_from_slice(&(revision.max(0) as u64).to_be_bytes());
    key.into()
}

fn version_start(space: Space, user_key: &[u8]) -> Vec<u8> {
    let mut key = start(space, Kind::Version, user_key.len() + 12);
    escape(user_key, &mut key);
    key
}

/// One event of the revision log.
pub fn log(space: Space, revision: i64, sub: u32) -> Bytes {
    let mut key = start(space, Kind::Log, 12);
    key.extend_from_slice(&(revision.max(0) as u64).to_be_bytes());
    key.extend_from_slice(&sub.to_be_bytes());
    key.into()
}

/// Revision and sub of a log key.
pub fn split_log(family_key: &[u8]) -> Result<(i64, u32), ViewError> {
    let revision = number_at(family_key, 0)?;
    let sub = family_key
        .get(8..12)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes);
    sub.map(|sub| (revision as i64, sub))
        .ok_or_else(|| ViewError::new(format!("log key {family_key:02x?} is too short")))
}

/// Escaped user key (terminator included) and revision of a version key.
pub fn split_version(family_key: &[u8]) -> Result<(&[u8], i64), ViewError> {
    let at = family_key.len().checked_sub(8);
    let at = at.ok_or_else(|| ViewError::new(format!("version key {family_key:02x?} is too short")))?;
    Ok((&family_key[..at], number_at(family_key, at)? as i64))
}

/// Lease ids may be negative; this keeps their order.
fn lease_number(id: i64) -> u64 {
    (id as u64) ^ (1 << 63)
}

/// The inverse of the order-preserving form of a lease id.
pub fn lease_id(number: u64) -> i64 {
    (number ^ (1 << 63)) as i64
}

/// A lease.
pub fn lease(space: Space, id: i64) -> Bytes {
    number(space, Kind::Lease, lease_number(id))
}

/// A lease's place in the deadline index.
pub fn deadline(space: Space, deadline_ms: u64, id: i64) -> Bytes {
    numbers(space, Kind::Deadline, deadline_ms, lease_number(id))
}

/// A key attached to a lease.
pub fn attachment(space: Space, id: i64, user_key: &[u8]) -> Bytes {
    let mut key = start(space, Kind::Attachment, 8 + user_key.len());
    key.extend_from_slice(&lease_number(id).to_be_bytes());
    key.extend_from_slice(user_key);
    key.into()
}

/// All attachments of a lease.
pub fn attachments(space: Space, id: i64) -> (Bytes, Bytes) {
    let from = attachment(space, id, b"");
    let to = match lease_number(id).checked_add(1) {
        Some(next) => number(space, Kind::Attachment, next),
        None => family(space, Kind::Attachment).1,
    };
    (from, to)
}

/// Appends the escaped form of a user key.
pub fn escape(user_key: &[u8], out: &mut Vec<u8>) {
    for byte in user_key {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

/// Undoes [`escape`].
pub fn unescape(escaped: &[u8]) -> Result<Bytes, ViewError> {
    let damaged = || ViewError::new(format!("escaped key {escaped:02x?} is damaged"));
    let mut out = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    loop {
        match rest {
            [0, 1] => return Ok(out.into()),
            [0, 0xff, tail @ ..] => {
                out.push(0);
                rest = tail;
            }
            [byte, tail @ ..] if *byte != 0 => {
                out.push(*byte);
                rest = tail;
            }
            _ => return Err(damaged()),
        }
    }
}

/// A range of user keys, as etcd writes it: key and `range_end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRange {
    /// Empty `range_end`.
    One(Bytes),
    /// `key <= k < range_end`.
    Until(Bytes, Bytes),
    /// `range_end` is one zero byte.
    From(Bytes),
}

impl UserRange {
    /// From a request's two fields.
    pub fn new(key: &Bytes, range_end: &Bytes) -> UserRange {
        match range_end.as_ref() {
            [] => UserRange::One(key.clone()),
            [0] => UserRange::From(key.clone()),
            _ => UserRange::Until(key.clone(), range_end.clone()),
        }
    }

    /// Whether it holds every key there can be.
    pub fn is_all(&self) -> bool {
        matches!(self, UserRange::From(key) if key.as_ref() <= [0].as_slice())
    }

    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            UserRange::One(one) => one.as_ref() == key,
            UserRange::Until(from, to) => from.as_ref() <= key && key < to.as_ref(),
            UserRange::From(from) => from.as_ref() <= key,
        }
    }

    /// Its first possible key, and the first key past it unless it has no end.
    pub fn ends(&self) -> (Bytes, Option<Bytes>) {
        match self {
            UserRange::One(key) => {
                let mut next = Vec::with_capacity(key.len() + 1);
                next.extend_from_slice(key);
                next.push(0);
                (key.clone(), Some(next.into()))
            }
            UserRange::Until(from, to) => (from.clone(), Some(to.clone())),
            UserRange::From(from) => (from.clone(), None),
        }
    }

    /// Bounds among head records.
    pub fn heads(&self, space: Space) -> (Bytes, Bytes) {
        match self {
            UserRange::One(key) => {
                let mut to = head(space, key).to_vec();
                to.push(0);
                (head(space, key), to.into())
            }
            UserRange::Until(from, to) => (head(space, from), head(space, to)),
            UserRange::From(from) => (head(space, from), family(space, Kind::Head).1),
        }
    }

    /// Bounds among version records.
    pub fn versions(&self, space: Space) -> (Bytes, Bytes) {
        match self {
            UserRange::One(key) => {
                let from = version_start(space, key);
                let mut to = from.clone();
                *to.last_mut().expect("the terminator was just appended") += 1;
                (from.into(), to.into())
            }
            UserRange::Until(from, to) => {
                (version_start(space, from).into(), version_start(space, to).into())
            }
            UserRange::From(from) => (version_start(space, from).into(), family(space, Kind::Version).1),
        }
    }
}

#[cfg(test)]
mod tests;
