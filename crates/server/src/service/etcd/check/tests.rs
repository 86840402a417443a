//! What etcd refuses, in its order.

use super::*;

fn put_op(key: &str) -> PbTxnRequestOp {
    let put = PbPutRequest {
        key: key.into(),
        ..PbPutRequest::default()
    };
    PbTxnRequestOp {
        request: Some(PbTxnOpRequest::RequestPut(put)),
    }
}
fn delete_op(key: &str, end: &str) -> PbTxnRequestOp {
    let delete = PbDeleteRequest {
        key: key.into(),
        range_end: end.into(),
        prev_kv: false,
    };
    PbTxnRequestOp {
        request: Some(PbTxnOpRequest::RequestDeleteRange(delete)),
    }
}
fn range_op(serializable: bool) -> PbTxnRequestOp {
    let range = PbRangeRequest {
        key: b"k".to_vec(),
        serializable,
        ..PbRangeRequest::default()
    };
    PbTxnRequestOp {
        request: Some(PbTxnOpRequest::RequestRange(range)),
    }
}
fn txn_op(success: Vec<PbTxnRequestOp>, failure: Vec<PbTxnRequestOp>) -> PbTxnRequestOp {
    let txn = PbTxnRequest {
        compare: vec![],
        success,
        failure,
    };
    PbTxnRequestOp {
        request: Some(PbTxnOpRequest::RequestTxn(txn)),
    }
}
fn check(success: Vec<PbTxnRequestOp>, expected: Option<error::EtcdError>) {
    let got = txn(&PbTxnRequest {
        compare: vec![],
        success,
        failure: vec![],
    });
    assert_eq!(
        got.err().map(|s| s.message().to_owned()),
        expected.map(|e| e.text.to_owned())
    );
}

#[test]
fn keys_written_twice_are_refused() {
    let dup = Some(error::DUPLICATE_KEY);
    check(vec![put_op("a"), put_op("b")], None);
    check(vec![put_op("a"), put_op("a")], dup);
    check(vec![put_op("b"), delete_op("a", "c")], dup);
    check(vec![put_op("c"), delete_op("a", "c")], None);
    check(vec![put_op("c"), delete_op("a", "\0")], dup);
    check(vec![put_op("a"), delete_op("a", "")], dup);
    check(vec![delete_op("a", "c"), delete_op("a", "b")], None);
    check(vec![put_op("a"), txn_op(vec![put_op("a")], vec![])], dup);
    check(vec![txn_op(vec![put_op("a")], vec![put_op("a")])], None);
    check(
        vec![
            txn_op(vec![put_op("a")], vec![]),
            txn_op(vec![], vec![put_op("a")]),
        ],
        dup,
    );
    check(vec![txn_op(vec![delete_op("a", "b")], vec![]), put_op("a")], dup);
}

#[test]
fn counts_come_before_keys_and_keys_before_duplicates() {
    let many: Vec<_> = (0..=limits::TXN_OPERATIONS).map(|_| put_op("")).collect();
    check(many, Some(error::TOO_MANY_OPS));
    check(vec![put_op("a"), put_op("a"), put_op("")], Some(error::EMPTY_KEY));
    check(vec![PbTxnRequestOp { request: None }], Some(error::KEY_NOT_FOUND));
    let full: Vec<_> = (0..limits::TXN_OPERATIONS)
        .map(|n| put_op(&n.to_string()))
        .collect();
    check(full.clone(), None);
    let mut nested = full;
    nested[0] = txn_op(vec![put_op("x")], vec![]);
    check(nested, Some(error::TOO_MANY_OPS));
    let mut deep = put_op("a");
    for _ in 0..=limits::TXN_DEPTH {
        deep = txn_op(vec![deep], vec![]);
    }
    check(vec![deep], Some(error::TOO_MANY_OPS));
}

#[test]
fn read_only_transactions_are_recognised() {
    let of = |success| PbTxnRequest {
        compare: vec![],
        success,
        failure: vec![],
    };
    assert!(reads_only(&of(vec![
        range_op(false),
        txn_op(vec![range_op(true)], vec![])
    ])));
    assert!(!reads_only(&of(vec![
        range_op(false),
        txn_op(vec![], vec![put_op("a")])
    ])));
    assert!(serializable(&of(vec![range_op(true)])));
    assert!(!serializable(&of(vec![])), "nothing was said of stale answers");
    assert!(!serializable(&of(vec![
        range_op(true),
        txn_op(vec![range_op(false)], vec![])
    ])));
}

#[test]
fn single_requests() {
    let text = |r: Checked| r.err().map(|s| s.message().to_owned()).unwrap_or_default();
    let mut p = PbPutRequest {
        key: b"k".to_vec(),
        ..PbPutRequest::default()
    };
    assert_eq!(text(put(&p)), "");
    p.ignore_value = true;
    p.value = b"v".to_vec();
    assert_eq!(text(put(&p)), error::VALUE_PROVIDED.text);
    p.value.clear();
    p.ignore_lease = true;
    p.lease = 1;
    assert_eq!(text(put(&p)), error::LEASE_PROVIDED.text);
    p.key = vec![b'k'; limits::KEY_BYTES + 1];
    assert_eq!(text(put(&p)), error::TOO_LARGE.text);
    let r = PbRangeRequest {
        key: b"k".to_vec(),
        sort_order: 3,
        ..PbRangeRequest::default()
    };
    assert_eq!(text(range(&r)), error::INVALID_SORT.text);
    p.value = vec![0; limits::REQUEST_BYTES];
    assert_eq!(text(size(&p)), error::TOO_LARGE.text);
}
