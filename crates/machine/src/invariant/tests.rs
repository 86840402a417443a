//! Each property notices damage: a check that cannot fail proves nothing.

use crate::MemView;
use crate::command::{Body, Compact, DeleteRangeRequest, LeaseGrant};
use crate::record::key::{self, Kind};
use crate::record::kv::{self, Namespace, Pair, Version};
use crate::record::lease::Deadline;
use crate::record::session::{Session, WINDOW};
use crate::record::{Space, encode};
use crate::testing::{Replica, SPACE, command, put};

mod map;

fn replica() -> Replica {
    let mut replica = Replica::default();
    replica.done(Body::LeaseGrant(LeaseGrant { id: 4, ttl_s: 60 }));
    replica.done(put("a", "1", 4));
    replica.put("b", "1");
    replica.put("a", "2");
    replica.reply(crate::Command {
        client_id: 5,
        ..command(SPACE, Body::SessionOpen(crate::command::SessionOpen {}))
    });
    replica
}

/// Whether a fault that says `text` is found.
fn found(view: &MemView, text: &str) -> bool {
    let faults = super::check(view).expect("readable");
    faults.iter().any(|fault| fault.contains(text))
}

/// One record is something else: the fault that says `text` is found, and was not there before.
fn check(sound: &MemView, key: bytes::Bytes, value: bytes::Bytes, text: &str) {
    assert_eq!(super::check(sound).expect("readable"), Vec::<String>::new());
    let mut damaged = sound.clone();
    damaged.put(key.clone(), value);
    let faults = super::check(&damaged).expect("readable");
    assert!(
        found(&damaged, text),
        "{key:02x?} damaged, {text:?} not in {faults:?}"
    );
}

#[test]
fn any_lost_record_is_noticed() {
    let sound = replica().view;
    let keys: Vec<_> = sound.iter().map(|(key, _)| key.clone()).collect();
    assert!(keys.len() > 10);
    for key in keys {
        let mut damaged = sound.clone();
        damaged.remove(&key);
        let faults = super::check(&damaged).expect("readable");
        let kind = key[key::PREFIX_BYTES - 1];
        // Samples are in the hash alone.
        let least = if kind == Kind::Samples as u8 || kind == Kind::State as u8 {
            1
        } else {
            2
        };
        assert!(faults.len() >= least, "{key:02x?} lost, and only {faults:?}");
    }
}

#[test]
fn wrong_records_are_noticed() {
    let sound = replica().view;
    let cases = [
        (
            key::single(SPACE, Kind::Namespace),
            encode(&Namespace {
                revision: 4,
                keys: 2,
                ..Default::default()
            }),
        ),
        (
            key::version(SPACE, b"b", 3),
            encode(&Version {
                sub: 1,
                delete: false,
            }),
        ),
        (key::attachment(SPACE, 4, b"b"), bytes::Bytes::new()),
        (key::deadline(SPACE, 1, 4), bytes::Bytes::new()),
        (key::numbers(SPACE, Kind::SessionIdle, 9, 5), bytes::Bytes::new()),
        (key::number(Space::PARTITION, Kind::Node, 1), bytes::Bytes::new()),
    ];
    for (key, value) in cases {
        let mut damaged = sound.clone();
        damaged.put(key.clone(), value);
        let faults = super::check(&damaged).expect("readable");
        assert!(faults.len() >= 2, "{key:02x?} damaged, and only {faults:?}");
    }
}

#[test]
fn no_more_faults_are_listed_than_somebody_reads() {
    let mut damaged = replica().view;
    for deadline_ms in 1..400 {
        damaged.put(key::deadline(SPACE, deadline_ms, 4), bytes::Bytes::new());
    }
    assert_eq!(super::check(&damaged).expect("readable").len(), 300);
}

#[test]
fn impossible_revisions_are_noticed() {
    let sound = replica().view;
    let numbers = kv::namespace(&sound, SPACE).expect("readable");
    for (revision, compact_revision) in [(4, 5), (0, 0)] {
        let wrong = Namespace {
            revision,
            compact_revision,
            ..numbers.clone()
        };
        let key = key::single(SPACE, Kind::Namespace);
        check(&sound, key, encode(&wrong), "impossible revisions");
    }
}

#[test]
fn a_log_record_elsewhere_than_it_says_is_noticed() {
    let sound = replica().view;
    let pair = kv::logged(&sound, SPACE, 3, 0).expect("readable");
    let elsewhere = |revision, sub| (key::log(SPACE, revision, sub), encode(&pair));
    for (key, value) in [elsewhere(3, 1), elsewhere(2, 0)] {
        check(&sound, key, value, "says");
    }
    let mut late = pair.clone();
    late.kv.mod_revision = 5;
    check(&sound, key::log(SPACE, 5, 0), encode(&late), "says");
}

#[test]
fn a_head_of_another_key_or_of_a_deletion_is_noticed() {
    let sound = replica().view;
    let head = kv::head(&sound, SPACE, b"b").expect("readable").expect("there");
    let mut other = head.clone();
    other.kv.key = "a".into();
    let deleted = Pair { delete: true, ..head };
    for wrong in [other, deleted] {
        let says = format!("the head of {:?} says", bytes::Bytes::from("b"));
        check(&sound, key::head(SPACE, b"b"), encode(&wrong), &says);
    }
}

#[test]
fn what_compaction_should_have_removed_is_noticed() {
    let mut replica = replica();
    replica.done(Body::DeleteRange(DeleteRangeRequest {
        key: "b".into(),
        ..Default::default()
    }));
    // "a" was written at 2 and 4, "b" at 3 and deleted at 5.
    let finished = |revision| Namespace {
        compact_revision: revision,
        ..kv::namespace(&replica.view, SPACE).expect("readable")
    };
    let key = key::single(SPACE, Kind::Namespace);
    let kept = |name: &'static str| format!("{:?} keeps", bytes::Bytes::from(name));
    for (revision, a, b) in [(3, false, false), (4, true, false), (5, true, true)] {
        let mut damaged = replica.view.clone();
        damaged.put(key.clone(), encode(&finished(revision)));
        assert_eq!(found(&damaged, &kept("a")), a, "compacted at {revision}");
        assert_eq!(found(&damaged, &kept("b")), b, "compacted at {revision}");
    }
    // Of a deletion, nothing is left once it is below.
    replica.put("c", "1");
    replica.done(Body::Compact(Compact { revision: 6 }));
    replica.done(Body::CompactStep(crate::command::CompactStep { records: 100 }));
    let version = Version { sub: 0, delete: true };
    check(
        &replica.view,
        key::version(SPACE, b"b", 5),
        encode(&version),
        &kept("b"),
    );
}

#[test]
fn a_deadline_that_differs_from_its_lease_is_noticed() {
    let sound = replica().view;
    for (deadline_ms, generation) in [(60_000, 2), (60_001, 1)] {
        let key = key::deadline(SPACE, deadline_ms, 4);
        check(&sound, key, encode(&Deadline { generation }), "is stale");
    }
}

#[test]
fn an_attachment_to_no_lease_is_noticed() {
    let sound = replica().view;
    let key = key::attachment(SPACE, 9, b"b");
    check(&sound, key, bytes::Bytes::new(), "names no lease");
}

#[test]
fn a_reply_outside_of_its_sessions_window_is_noticed() {
    let mut sound = replica().view;
    let last_seq = WINDOW + 10;
    let known = crate::record::session::read(&sound, SPACE, 5).expect("readable");
    let session = Session {
        last_seq,
        ..known.expect("opened")
    };
    sound.put(key::number(SPACE, Kind::Session, 5), encode(&session));
    for (seq, outlived) in [(10, true), (11, false), (last_seq, false), (last_seq + 1, true)] {
        let mut view = sound.clone();
        view.put(
            key::numbers(SPACE, Kind::SessionReply, 5, seq),
            bytes::Bytes::new(),
        );
        assert_eq!(
            found(&view, "outlived its session's window"),
            outlived,
            "reply {seq}"
        );
    }
}
