//! Keys and ranges of keys, as three parts of the program understand them: the records, the watches, the checks. They
//! must agree. And the codec of records' keys: it keeps the order, and gives back what it was given.

use bytes::Bytes;
use machine::record::Space;
use machine::record::key::{self, Kind, UserRange};
use server::service::etcd::check;
use server::watch::index::{Index, Selector};
use types::{NamespaceId, Slot};

use crate::input::{Input, part};

/// Key, end, two more keys, and a space.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (from, to) = (input.part(), input.part());
    let keys = [input.part(), input.part(), from, to];
    let number = input.number();
    let space = Space::new(Slot(number as u16), NamespaceId((number >> 16) as u32));
    ranges(from, to, &keys, space);
    codec(&keys, number, space);
    records(input.rest());
}

fn ranges(from: &[u8], to: &[u8], keys: &[&[u8]], space: Space) {
    let (from, to) = (Bytes::copy_from_slice(from), Bytes::copy_from_slice(to));
    let range = UserRange::new(&from, &to);
    let selector = Selector {
        key: from.clone(),
        range_end: to.clone(),
    };
    let mut index = Index::default();
    index.insert(&selector, 1);
    let end = check::range_end(&from, &to);
    let (heads, versions) = (range.heads(space), range.versions(space));
    // No key is empty: the checks see to that.
    for key in keys.iter().filter(|key| !key.is_empty()) {
        let inside = range.contains(key);
        assert!(!range.is_all() || inside, "all holds {key:02x?}");
        assert_eq!(selector.matches(key), inside, "watches differ on {key:02x?}");
        assert!(!(selector.is_empty() && inside));
        let mut met = 0;
        index.visit(key, |group| met += group);
        assert_eq!(met == 1, inside, "the index differs on {key:02x?}");
        let checked = from.as_ref() <= *key && end.as_ref().is_none_or(|end| *key < end.as_slice());
        assert_eq!(checked, inside, "the checks differ on {key:02x?}");
        let head = key::head(space, key);
        assert_eq!(
            heads.0 <= head && head < heads.1,
            inside,
            "heads differ on {key:02x?}"
        );
        for revision in [0, 1, i64::MAX] {
            let version = key::version(space, key, revision);
            let there = versions.0 <= version && version < versions.1;
            assert_eq!(there, inside, "versions differ on {key:02x?}");
        }
    }
    index.remove(&selector);
    index.visit(&from, |_| panic!("it was removed"));
}

fn codec(keys: &[&[u8]], number: u64, space: Space) {
    for key in keys {
        let mut escaped = Vec::new();
        key::escape(key, &mut escaped);
        assert_eq!(key::unescape(&escaped).as_deref(), Ok(*key));
        let version = key::version(space, key, number as i64);
        let (found, kind, rest) = key::split(&version).expect("just made");
        assert_eq!((found, kind), (space, Kind::Version as u8));
        let (escaped_there, revision) = key::split_version(rest).expect("just made");
        assert_eq!(
            (escaped_there, revision),
            (escaped.as_slice(), (number as i64).max(0))
        );
        for other in keys {
            let mut escaped_other = Vec::new();
            key::escape(other, &mut escaped_other);
            assert_eq!(escaped.cmp(&escaped_other), key.cmp(other), "the order is kept");
        }
    }
    let (first, next) = key::space(space);
    assert!(next.is_none_or(|next| first < next && key::head(space, &[0xff; 40]) < next));
    assert_eq!(key::lease_id(number) as u64 ^ (1 << 63), number);
    let attachments = key::attachments(space, number as i64);
    let attachment = key::attachment(space, number as i64, keys[0]);
    assert!(attachments.0 <= attachment && attachment < attachments.1);
}

/// Bytes that stand where a record's key should.
fn records(bytes: &[u8]) {
    if let Ok((_, _, rest)) = key::split(bytes) {
        let _ = key::split_log(rest);
        let _ = key::split_version(rest);
        let _ = key::number_at(rest, 0);
    }
    if let Ok(key) = key::unescape(bytes) {
        let mut again = Vec::new();
        key::escape(&key, &mut again);
        assert_eq!(again, bytes);
    }
}

/// One key, a prefix, everything, an empty range, bytes at the ends.
pub fn seeds() -> Vec<Vec<u8>> {
    let cases: [[&[u8]; 4]; 7] = [
        [b"a", b"", b"a", b"b"],
        [b"a/", b"a0", b"a/b", b"a0"],
        [b"\0", b"\0", b"", b"\xff\xff"],
        [b"b", b"\0", b"a", b"c"],
        [b"b", b"a", b"a", b"b"],
        [b"\0", b"\0\xff", b"\0\0", b"\0\xff\x01"],
        [b"\xff", b"\xff\xff", b"\xff\x01", b""],
    ];
    let number = (u64::from(u16::MAX) | 7 << 16).to_le_bytes();
    let seed = |case: &[&[u8]; 4]| {
        let parts = case.iter().flat_map(|bytes| part(bytes));
        let mut seed: Vec<u8> = parts.chain(number).collect();
        seed.extend_from_slice(&key::version(Space::PARTITION, b"a\0", 3));
        seed
    };
    cases.iter().map(seed).collect()
}
