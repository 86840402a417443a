//! How the log is laid out in RocksDB.
//!
//! ```text
//! key    replica u64 BE | kind u8 | index u64 BE
//! entry  format u8 | checksum u64 | bytes appended before this entry u64 | data
//! mark   format u8 | checksum u64 | payload                  (vote, committed, purged)
//! owner  under the key of seventeen 0xff bytes: format u8 | checksum u64 | cluster u64 | node u64
//! ```
//! Checksums cover the key too, so that an entry found in another's place is refused.

use std::{fmt, io};

use bytes::Bytes;
use types::ReplicaId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Version of this layout. A log with a higher one was written by a newer holdfast.
pub(super) const FORMAT: u8 = 1;

pub(super) const MARK: u8 = 0;
pub(super) const ENTRY: u8 = 1;
pub(super) const VOTE: u64 = 1;
pub(super) const COMMITTED: u64 = 2;
pub(super) const PURGED: u64 = 3;

const ENTRY_HEADER: usize = 17;
const MARK_HEADER: usize = 9;

pub(super) type Key = [u8; 17];

/// Replica `u64::MAX` is kept for the store's own record.
pub(super) const OWNER_KEY: Key = [0xff; 17];

pub(super) fn key(replica: ReplicaId, kind: u8, index: u64) -> Key {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&replica.0.to_be_bytes());
    key[8] = kind;
    key[9..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(super) fn parse_key(key: &[u8]) -> Option<(ReplicaId, u8, u64)> {
    let key: &Key = key.try_into().ok()?;
    let (replica, rest) = key.split_first_chunk::<8>()?;
    let (kind, index) = rest.split_first()?;
    let index: [u8; 8] = index.try_into().ok()?;
    Some((
        ReplicaId(u64::from_be_bytes(*replica)),
        *kind,
        u64::from_be_bytes(index),
    ))
}

fn checksum(key: &[u8], before: u64, data: &[u8]) -> u64 {
    xxh3_64_with_seed(data, xxh3_64_with_seed(key, before))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Encodes an entry into `out`, which is cleared first. `before`: bytes of the replica's log ahead of it.
pub(super) fn entry(out: &mut Vec<u8>, key: &Key, before: u64, data: &[u8]) {
    out.clear();
    out.push(FORMAT);
    out.extend_from_slice(&checksum(key, before, data).to_le_bytes());
    out.extend_from_slice(&before.to_le_bytes());
    out.extend_from_slice(data);
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is whole, and of another version of this layout.
    Format(u8),
    /// It is damaged, and how.
    Damaged(String),
}

impl Wrong {
    /// The error, which names the value.
    pub(super) fn error(&self, what: &str) -> io::Error {
        match self {
            Wrong::Format(found) => crate::other_format(what, found, FORMAT),
            Wrong::Damaged(wrong) => crate::damaged(format!("{what} {wrong}")),
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::Format(found) => write!(f, "has format {found}, this build reads {FORMAT}"),
            Wrong::Damaged(wrong) => f.write_str(wrong),
        }
    }
}

/// The data and `before` of an entry, or what is wrong with it.
pub(super) fn parse_entry(key: &[u8], value: &[u8]) -> Result<(Bytes, u64), Wrong> {
    let (sum, before) = match (value.first(), u64_at(value, 1), u64_at(value, 9)) {
        (Some(&FORMAT), Some(sum), Some(before)) => (sum, before),
        (Some(&format), Some(_), Some(_)) => return Err(Wrong::Format(format)),
        _ => return Err(too_short(value)),
    };
    let data = &value[ENTRY_HEADER..];
    if checksum(key, before, data) != sum {
        return Err(Wrong::Damaged("fails its checksum".into()));
    }
    Ok((Bytes::copy_from_slice(data), before))
}

pub(super) fn mark(key: &Key, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(MARK_HEADER + payload.len());
    out.push(FORMAT);
    out.extend_from_slice(&checksum(key, 0, payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

fn too_short(value: &[u8]) -> Wrong {
    Wrong::Damaged(format!("is {} bytes, too short", value.len()))
}

pub(super) fn parse_mark(key: &[u8], value: &[u8]) -> Result<Bytes, Wrong> {
    let sum = match (value.first(), u64_at(value, 1)) {
        (Some(&FORMAT), Some(sum)) => sum,
        (Some(&format), Some(_)) => return Err(Wrong::Format(format)),
        _ => return Err(too_short(value)),
    };
    let payload = &value[MARK_HEADER..];
    if checksum(key, 0, payload) != sum {
        return Err(Wrong::Damaged("fails its checksum".into()));
    }
    Ok(Bytes::copy_from_slice(payload))
}

pub(super) fn purged(index: u64, id: &[u8]) -> Vec<u8> {
    [&index.to_le_bytes()[..], id].concat()
}

pub(super) fn parse_purged(payload: &Bytes) -> Option<(u64, Bytes)> {
    Some((u64_at(payload, 0)?, payload.slice(8..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_by_replica_then_index() {
        let low = key(ReplicaId(1), ENTRY, 255);
        let high = key(ReplicaId(1), ENTRY, 256);
        assert!(low < high && high < key(ReplicaId(2), MARK, 0));
        assert_eq!(parse_key(&high), Some((ReplicaId(1), ENTRY, 256)));
        assert_eq!(parse_key(b"short"), None);
    }

    #[test]
    fn every_flipped_bit_of_an_entry_is_seen() {
        let key = key(ReplicaId(7), ENTRY, 9);
        let mut good = Vec::new();
        entry(&mut good, &key, 1234, b"some data");
        assert_eq!(
            parse_entry(&key, &good),
            Ok((Bytes::from_static(b"some data"), 1234))
        );
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_entry(&key, &bad).is_err(), "bit {bit}");
        }
        assert!(parse_entry(&super::key(ReplicaId(7), ENTRY, 10), &good).is_err());
        assert!(parse_entry(&key, &good[..10]).is_err());
    }
}
