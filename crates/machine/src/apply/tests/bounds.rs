//! What is exactly at a limit passes, and one more does not.

use prost::Message;

use super::*;

fn check(replica: &mut Replica, body: Body, refused: Option<RefusalKind>) {
    let asked = format!("{body:.200?}");
    assert_eq!(replica.refusal(body), refused, "{asked}");
}

fn range(change: fn(&mut RangeRequest)) -> RequestOp {
    let mut request = RangeRequest {
        key: "a".into(),
        ..Default::default()
    };
    change(&mut request);
    RequestOp {
        operation: Some(Operation::Range(request)),
    }
}

#[test]
fn keys_requests_and_leases_may_be_as_large_as_their_limits() {
    let mut replica = Replica::default();
    let key = "k".repeat(limits::KEY_BYTES);
    check(&mut replica, put(&key, "v", 0), None);
    let bytes_of = |value: usize| {
        let body = put("a", &"v".repeat(value), 0);
        let Body::Put(request) = &body else {
            unreachable!("made above")
        };
        (request.encoded_len(), body)
    };
    let over = bytes_of(limits::REQUEST_BYTES).0 - limits::REQUEST_BYTES;
    let (bytes, body) = bytes_of(limits::REQUEST_BYTES - over);
    assert_eq!(bytes, limits::REQUEST_BYTES);
    check(&mut replica, body, None);
    let ttl_s = limits::LEASE_TTL_MAX_S;
    check(&mut replica, Body::LeaseGrant(LeaseGrant { id: 1, ttl_s }), None);
}

#[test]
fn a_quota_may_be_used_up_and_what_adds_nothing_passes_beyond_it() {
    let mut replica = Replica::default();
    let quota = |quota_bytes| {
        Body::NamespaceConfigure(NamespaceSettings {
            quota_bytes,
            ..Default::default()
        })
    };
    check(&mut replica, quota(10), None);
    check(
        &mut replica,
        put("a", "1234567890", 0),
        Some(RefusalKind::NoSpace),
    );
    check(&mut replica, put("a", "123456789", 0), None);
    // The quota can be lowered below what is there.
    check(&mut replica, quota(5), None);
    check(&mut replica, txn(vec![range(|_| ())]), None);
    check(&mut replica, txn(vec![op(delete("a", b""))]), None);
}

#[test]
fn leases_take_room_while_they_live() {
    let mut replica = Replica::default();
    let settings = NamespaceSettings {
        quota_bytes: 3 * limits::LEASE_BYTES,
        ..Default::default()
    };
    check(&mut replica, Body::NamespaceConfigure(settings), None);
    let grant = |id| Body::LeaseGrant(LeaseGrant { id, ttl_s: 60 });
    let full = Some(RefusalKind::NoSpace);
    for id in 1..=3 {
        check(&mut replica, grant(id), None);
    }
    check(&mut replica, grant(4), full);
    check(&mut replica, put("a", "", 0), full);
    check(&mut replica, Body::LeaseRevoke(LeaseId { id: 1 }), None);
    check(&mut replica, put("a", "1", 0), None);
    check(&mut replica, grant(4), full);
    replica.clock_ms = 60_000;
    let body = Body::LeaseExpire(LeaseExpire { id: 2, generation: 1 });
    check(&mut replica, body, None);
    check(&mut replica, grant(4), None);
}

#[test]
fn a_value_that_is_kept_takes_room_once_more() {
    let mut replica = Replica::default();
    let settings = NamespaceSettings {
        quota_bytes: 12,
        ..Default::default()
    };
    check(&mut replica, Body::NamespaceConfigure(settings), None);
    check(&mut replica, put("a", "1234", 0), None);
    let keep = || {
        Body::Put(PutRequest {
            key: "a".into(),
            ignore_value: true,
            ..Default::default()
        })
    };
    check(&mut replica, keep(), None);
    let full = Some(RefusalKind::NoSpace);
    check(&mut replica, keep(), full);
    check(&mut replica, txn(vec![op(keep())]), full);
}

#[test]
fn a_nested_transaction_has_the_operations_that_its_parent_leaves() {
    let puts = |from: usize, count: usize| -> Vec<RequestOp> {
        let keys = from..from + count;
        keys.map(|key| op(put(&format!("k{key}"), "", 0))).collect()
    };
    let with_nested = |nested: usize| {
        let mut operations = puts(0, 399);
        operations.push(op(txn(puts(1000, nested))));
        txn(operations)
    };
    let mut replica = Replica::default();
    let left = limits::TXN_OPERATIONS - 400;
    check(
        &mut replica,
        with_nested(left + 1),
        Some(RefusalKind::TooManyOperations),
    );
    check(&mut replica, with_nested(left), None);
}

#[test]
fn ranges_have_the_orders_and_targets_that_etcd_has() {
    let mut replica = Replica::default();
    let invalid = Some(RefusalKind::Invalid);
    check(
        &mut replica,
        txn(vec![range(|range| range.sort_order = 3)]),
        invalid,
    );
    check(
        &mut replica,
        txn(vec![range(|range| range.sort_target = 5)]),
        invalid,
    );
    let last = |range: &mut RangeRequest| (range.sort_order, range.sort_target) = (2, 4);
    check(&mut replica, txn(vec![range(last)]), None);
    let keyless = |range: &mut RangeRequest| range.key = Bytes::new();
    check(
        &mut replica,
        txn(vec![range(keyless)]),
        Some(RefusalKind::EmptyKey),
    );
    let Told::Refused(refusal) = replica.ask(Ask::Range(RangeRequest::default())) else {
        panic!("a range without a key is answered")
    };
    assert_eq!(refusal.kind(), RefusalKind::EmptyKey);
}

/// As etcd: alone, a negative revision means the newest; in a transaction, only -1 does, and only before any compaction.
#[test]
fn a_negative_revision_in_a_transaction_is_a_compacted_one() {
    let mut replica = Replica::default();
    replica.put("a", "1");
    let compacted = Some(RefusalKind::Compacted);
    check(&mut replica, txn(vec![range(|range| range.revision = -1)]), None);
    check(
        &mut replica,
        txn(vec![range(|range| range.revision = -2)]),
        compacted,
    );
    check(&mut replica, Body::Compact(Compact { revision: 2 }), None);
    check(
        &mut replica,
        txn(vec![range(|range| range.revision = -1)]),
        compacted,
    );
    check(&mut replica, txn(vec![range(|_| ())]), None);
}

/// A large space is asked for little: what is not shown is not read either.
#[test]
fn a_range_reads_no_more_than_it_shows() {
    let mut replica = Replica::default();
    for key in 0..50 {
        replica.put(&format!("k{key:02}"), "v");
    }
    let all = Bytes::from_static(b"\0");
    let met = |count_only: bool, limit: i64| {
        let view = Counting::new(&replica.view);
        let request = RangeRequest {
            key: all.clone(),
            range_end: all.clone(),
            limit,
            count_only,
            ..Default::default()
        };
        let query = Query {
            slot: u32::from(SPACE.slot.0),
            namespace: SPACE.namespace.0,
            ask: Some(Ask::Range(request)),
            clock_ms: 0,
        };
        let answer = crate::answer(&view, &query).expect("memory never fails");
        let Some(Told::Range(range)) = answer.told else {
            panic!("{answer:?}")
        };
        (range.count, range.kvs.len(), range.more, view.met.get())
    };
    assert_eq!(met(true, 0), (50, 0, false, 0), "the number of all keys is known");
    // One more than shown tells whether there is more, and the one after it ends the scan.
    assert_eq!(met(false, 3), (50, 3, true, 5));
    assert_eq!(met(false, 0), (50, 50, false, 50));
}

#[test]
#[should_panic(expected = "revisions only grow")]
fn a_revision_that_falls_stops_the_process() {
    set_numbers(3, 2);
}

#[test]
#[should_panic(expected = "revisions only grow")]
fn a_compact_revision_that_falls_stops_the_process() {
    set_numbers(5, 1);
}

#[test]
#[should_panic(expected = "compacted past the current revision")]
fn a_compact_revision_past_the_current_one_stops_the_process() {
    set_numbers(5, 6);
}

/// Over revision 4, compacted at 2.
fn set_numbers(revision: i64, compact_revision: i64) {
    let view = MemView::default();
    let mut context = crate::apply::Context::new(&view).expect("memory never fails");
    let numbers = |revision, compact_revision| record::kv::Namespace {
        revision,
        compact_revision,
        ..Default::default()
    };
    context.set_numbers(SPACE, numbers(4, 2));
    context.set_numbers(SPACE, numbers(revision, compact_revision));
}
