//! Records that make no sense stop the batch: an answer made from them would let replicas differ.

use super::*;
use crate::record::key;
use crate::record::kv;

/// Applying `body` to the records of `replica`, changed so, is an error that says `text`.
fn check(replica: &Replica, change: impl FnOnce(&mut MemView), body: Body, text: &str) {
    let mut view = replica.view.clone();
    change(&mut view);
    let batch = Batch {
        format: BATCH_FORMAT,
        commands: vec![command(SPACE, body)],
        ..Default::default()
    };
    let stamp = Stamp {
        term: 1,
        index: replica.index + 1,
    };
    match crate::apply(&view, stamp, &batch) {
        Err(ApplyError::View(error)) => assert!(error.to_string().contains(text), "{error}"),
        other => panic!("{other:?}, and no error that says {text:?}"),
    }
}

#[test]
fn an_attached_key_that_does_not_say_so_stops_its_lease_from_ending() {
    let mut replica = Replica::default();
    replica.done(Body::LeaseGrant(LeaseGrant { id: 4, ttl_s: 60 }));
    replica.done(put("a", "1", 4));
    let mut head = kv::head(&replica.view, SPACE, b"a")
        .expect("readable")
        .expect("there");
    head.kv.lease = 5;
    let revoke = || Body::LeaseRevoke(LeaseId { id: 4 });
    let place = key::head(SPACE, b"a");
    let (other, text) = (
        record::encode(&head),
        "is attached to lease 4, and does not say so",
    );
    check(&replica, |view| view.put(place.clone(), other), revoke(), text);
    check(&replica, |view| view.remove(&place), revoke(), text);
}

#[test]
fn a_version_without_its_log_record_stops_compaction() {
    let mut replica = Replica::default();
    replica.put("a", "1");
    replica.put("a", "2");
    replica.done(Body::Compact(Compact { revision: 3 }));
    let step = Body::CompactStep(CompactStep { records: 9 });
    let lose = |view: &mut MemView| view.remove(&key::log(SPACE, 2, 0));
    check(&replica, lose, step, "log record 2/0");
}

#[test]
fn sums_that_would_fall_below_nothing_stop_the_batch() {
    let mut replica = Replica::default();
    replica.done(Body::LeaseGrant(LeaseGrant { id: 4, ttl_s: 60 }));
    replica.put("a", "1");
    replica.put("a", "2");
    replica.done(Body::Compact(Compact { revision: 3 }));
    let numbers = kv::namespace(&replica.view, SPACE).expect("readable");
    let miscounted = kv::Namespace {
        leases: 0,
        total_bytes: 1,
        ..numbers
    };
    let place = key::single(SPACE, key::Kind::Namespace);
    let miscount = |view: &mut MemView| view.put(place.clone(), record::encode(&miscounted));
    let revoke = Body::LeaseRevoke(LeaseId { id: 4 });
    check(&replica, miscount, revoke, "leases of");
    let step = Body::CompactStep(CompactStep { records: 9 });
    check(&replica, miscount, step, "bytes of");
}
