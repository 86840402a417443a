//! Order and inverses of the key codec.

use proptest::prelude::*;
use types::{NamespaceId, Slot};

use super::*;

const HERE: Space = Space {
    slot: Slot(7),
    namespace: NamespaceId(9),
};

proptest! {
    #[test]
    fn escaping_keeps_order_and_inverts(a in bytes(), b in bytes()) {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        escape(&a, &mut left);
        escape(&b, &mut right);
        prop_assert_eq!(a.cmp(&b), left.cmp(&right));
        prop_assert_eq!(unescape(&left).expect("own encoding").to_vec(), a);
    }

    #[test]
    fn ranges_agree_with_their_bounds(key in bytes(), end in bytes(), probe in bytes(), revision in 1i64..9) {
        let range = UserRange::new(&key.into(), &end.into());
        let (from, to) = range.heads(HERE);
        let head = head(HERE, &probe);
        prop_assert_eq!(from <= head && head < to, range.contains(&probe));
        let (from, to) = range.versions(HERE);
        let version = version(HERE, &probe, revision);
        prop_assert_eq!(from <= version && version < to, range.contains(&probe));
    }

    #[test]
    fn lease_ids_keep_their_order(a in any::<i64>(), b in any::<i64>()) {
        prop_assert_eq!(a.cmp(&b), lease(HERE, a).cmp(&lease(HERE, b)));
        prop_assert_eq!(lease_id(number_at(&lease(HERE, a)[PREFIX_BYTES..], 0).expect("long enough")), a);
        let (from, to) = attachments(HERE, a);
        let probe = attachment(HERE, b, b"k");
        prop_assert_eq!(from <= probe && probe < to, a == b);
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), Just(b'a')], 0..5)
}

#[test]
fn spaces_follow_each_other() {
    let (from, next) = space(HERE);
    assert_eq!(from.as_ref(), [0, 7, 0, 0, 0, 9]);
    assert_eq!(next.expect("not the last").as_ref(), [0, 7, 0, 0, 0, 10]);
    let (_, next) = space(Space::new(Slot(7), NamespaceId(u32::MAX)));
    assert_eq!(next.expect("not the last").as_ref(), [0, 8, 0, 0, 0, 0]);
    assert_eq!(space(Space::new(Slot(u16::MAX), NamespaceId(u32::MAX))).1, None);
}

#[test]
fn what_is_no_escaped_key_is_damage() {
    for damaged in [
        &b""[..],
        b"a",
        b"\0",
        b"a\0",
        b"\0\x02\0\x01",
        b"\0\0\x01",
        b"a\0\x01b",
    ] {
        assert!(unescape(damaged).is_err(), "{damaged:?}");
    }
}

#[test]
fn what_is_too_short_for_its_numbers_is_damage() {
    let key = log(HERE, 5, 6);
    let (space, kind, family_key) = split(&key).expect("own encoding");
    assert_eq!((space, kind), (HERE, Kind::Log as u8));
    assert_eq!(split_log(family_key).expect("own encoding"), (5, 6));
    assert!(split(&key[..PREFIX_BYTES - 1]).is_err());
    assert!(
        split(&key[..PREFIX_BYTES]).is_ok(),
        "of some kinds there is one record"
    );
    assert!(split_log(&family_key[..11]).is_err());
    assert!(number_at(family_key, 5).is_err());
    assert!(split_version(&family_key[..7]).is_err());
}
