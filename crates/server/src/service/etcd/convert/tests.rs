//! Nothing is lost between the two forms.

use super::*;
use prost::Message;

#[test]
fn requests_keep_every_field_on_the_wire() {
    let asked = PbRangeRequest {
        key: b"k".to_vec(),
        range_end: b"z".to_vec(),
        limit: 3,
        revision: 4,
        sort_order: 1,
        sort_target: 2,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 5,
        max_mod_revision: 6,
        min_create_revision: 7,
        max_create_revision: 8,
    };
    assert_eq!(asked.encode_to_vec(), range(asked.clone()).encode_to_vec());
    let asked = PbPutRequest {
        key: b"k".to_vec(),
        value: b"v".to_vec(),
        lease: 9,
        prev_kv: true,
        ignore_value: true,
        ignore_lease: true,
    };
    assert_eq!(asked.encode_to_vec(), put(asked.clone()).encode_to_vec());
    let asked = PbDeleteRequest {
        key: b"k".to_vec(),
        range_end: b"z".to_vec(),
        prev_kv: true,
    };
    assert_eq!(asked.encode_to_vec(), delete(asked.clone()).encode_to_vec());
}

#[test]
fn a_union_that_does_not_fit_counts_as_zero() {
    let mut given = PbCompare {
        target: 1,
        key: b"k".to_vec(),
        ..PbCompare::default()
    };
    given.target_union = Some(PbTargetUnion::Version(5));
    assert_eq!(compare(given.clone()).number, 0);
    given.target = 0;
    assert_eq!(compare(given.clone()).number, 5);
    given.target = 3;
    given.target_union = Some(PbTargetUnion::Value(b"v".to_vec()));
    assert_eq!(compare(given).value, Bytes::from_static(b"v"));
}

#[test]
fn nested_answers_keep_order_and_shape() {
    let kv = KeyValue {
        key: "k".into(),
        value: "v".into(),
        mod_revision: 2,
        ..KeyValue::default()
    };
    let inner = TxnDone {
        succeeded: true,
        responses: vec![ResponseOp {
            revision: 8,
            done: Some(OperationDone::Put(Put {
                prev_kv: Some(kv.clone()),
            })),
        }],
    };
    let outer = TxnDone {
        succeeded: false,
        responses: vec![
            ResponseOp {
                revision: 9,
                done: Some(OperationDone::Range(RangeResponse {
                    kvs: vec![kv],
                    more: true,
                    count: 7,
                })),
            },
            ResponseOp {
                revision: 9,
                done: Some(OperationDone::Txn(inner)),
            },
        ],
    };
    let header = PbResponseHeader {
        revision: 9,
        cluster_id: 1,
        ..PbResponseHeader::default()
    };
    let got = txn_response(header, outer);
    assert_eq!(got.responses.len(), 2);
    let Some(PbTxnOpResponse::ResponseRange(range)) = &got.responses[0].response else {
        panic!()
    };
    assert_eq!((range.count, range.more, range.kvs.len()), (7, true, 1));
    assert_eq!(range.header.map(|h| (h.revision, h.cluster_id)), Some((9, 0)));
    let Some(PbTxnOpResponse::ResponseTxn(nested)) = &got.responses[1].response else {
        panic!()
    };
    assert!(nested.succeeded && nested.responses.len() == 1);
}
