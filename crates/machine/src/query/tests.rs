//! What answers promise beyond agreeing with the model: how much one reads, and that hashes tell histories apart.

use bytes::Bytes;
use types::limits;

use crate::command::{Body, Compact, CompactStep};
use crate::query::*;
use crate::record::{encode, kv};
use crate::testing::{Replica, SPACE, command, put};

fn history(replica: &Replica, from: i64, key: &'static str, limit_bytes: u64) -> (Vec<i64>, i64) {
    let told = replica.ask(Ask::History(AskHistory {
        from,
        key: key.into(),
        range_end: Bytes::new(),
        limit_bytes,
        prev_kv: false,
    }));
    let Told::History(history) = told else {
        panic!("asked for history, told {told:?}")
    };
    let events = history.events.iter().flat_map(|event| &event.kv);
    (events.map(|kv| kv.mod_revision).collect(), history.through)
}

#[test]
fn history_stops_after_the_revision_that_exceeds_the_limit() {
    let mut replica = Replica::default();
    for _ in 0..4 {
        replica.put("a", "a value longer than the key of its record");
    }
    let first = kv::logged(&replica.view, SPACE, 2, 0).expect("memory never fails");
    let bytes = encode(&first).len() as u64;
    assert_eq!(history(&replica, 1, "a", bytes - 1), (vec![2], 2));
    assert_eq!(history(&replica, 1, "a", bytes), (vec![2, 3], 3));
    assert_eq!(history(&replica, 3, "a", 1), (vec![3], 3));
    assert_eq!(history(&replica, 1, "a", 1 << 20), (vec![2, 3, 4, 5], 5));
}

/// A watch of little in a large history gets an answer now and then, so that it can be told how far it is.
#[test]
fn history_that_nobody_asked_for_is_read_in_parts() {
    let mut replica = Replica::default();
    let value = "v".repeat(1024 * 1024);
    assert!(value.len() < limits::REQUEST_BYTES);
    for _ in 0..6 {
        replica.put("large", &value);
    }
    replica.put("a", "v");
    assert_eq!(history(&replica, 1, "a", 1000), (vec![], 5), "four of a megabyte");
    assert_eq!(history(&replica, 6, "a", 1000), (vec![8], 8));
}

#[test]
fn an_earlier_revision_shows_what_lived_then() {
    let mut replica = Replica::default();
    let all = Bytes::from_static(b"\0");
    for key in ["a", "b", "c"] {
        replica.put(key, "v");
    }
    for key in ["c", "a"] {
        let gone = crate::command::DeleteRangeRequest {
            key: key.into(),
            ..Default::default()
        };
        replica.done(Body::DeleteRange(gone));
    }
    replica.put("c", "w");
    let expected = ["a", "ab", "abc", "ab", "b", "bc"];
    for (revision, expected) in (2..).zip(expected) {
        let told = replica.ask(Ask::Range(RangeRequest {
            key: all.clone(),
            range_end: all.clone(),
            revision,
            ..Default::default()
        }));
        let Told::Range(range) = told else {
            panic!("asked for a range, told {told:?}")
        };
        let keys: Vec<_> = range.kvs.iter().map(|kv| kv.key.clone()).collect();
        assert_eq!(keys.concat(), expected.as_bytes(), "at {revision}");
    }
}

fn hash(replica: &Replica, revision: i64) -> HashKv {
    match replica.ask(Ask::HashKv(AskRevision { revision })) {
        Told::HashKv(hash) => hash,
        other => panic!("asked for a hash, told {other:?}"),
    }
}

#[test]
fn hashes_tell_histories_apart_up_to_their_revision() {
    let mut replica = Replica::default();
    let mut hashes = Vec::new();
    for value in ["1", "2", "3"] {
        let revision = replica.put("a", value);
        let told = hash(&replica, 0);
        assert_eq!((told.compact_revision, told.hash_revision), (0, revision));
        assert!(!hashes.contains(&told.hash), "{told:?}, before it {hashes:?}");
        hashes.push(told.hash);
    }
    for (revision, expected) in (2..).zip(&hashes) {
        assert_eq!(hash(&replica, revision).hash, *expected, "at {revision}");
    }
    let mut other = Replica::default();
    other.put("a", "2");
    assert_ne!(
        hash(&other, 0).hash,
        hashes[0],
        "of the same keys at the same revisions"
    );
    // It is of what is kept, whether or not the rest is removed yet.
    replica.done(Body::Compact(Compact { revision: 4 }));
    let pending = hash(&replica, 0);
    assert_ne!(pending.hash, hashes[2]);
    replica.done(Body::CompactStep(CompactStep { records: 100 }));
    assert_eq!(hash(&replica, 0), pending);
}

#[test]
fn a_lease_is_told_with_its_keys_if_they_are_asked_for() {
    let mut replica = Replica::default();
    replica.done(Body::LeaseGrant(crate::command::LeaseGrant { id: 4, ttl_s: 60 }));
    // Longer than what stands before it in its record's key.
    let key = "a key of some length";
    replica.reply(command(SPACE, put(key, "v", 4)));
    for (keys, expected) in [(true, vec![Bytes::from(key)]), (false, vec![])] {
        let told = replica.ask(Ask::Lease(AskLease { id: 4, keys }));
        let expected = LeaseInfo {
            id: 4,
            granted_s: 60,
            remaining_ms: 60_000,
            keys: expected,
        };
        assert_eq!(told, Told::Lease(expected));
    }
}
