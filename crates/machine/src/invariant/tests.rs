//! Each property notices damage: a check that cannot fail proves nothing.

use crate::command::{Body, LeaseGrant};
use crate::record::key::{self, Kind};
use crate::record::kv::{Namespace, Version};
use crate::record::{Space, encode};
use crate::testing::{Replica, SPACE, command, put};

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
