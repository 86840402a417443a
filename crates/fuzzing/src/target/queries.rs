//! Questions as another node sends them, or a client by way of the checks: each is answered, twice the same.

use machine::Query;
use machine::command::{Compare, Operation, RangeRequest, RequestOp, TxnRequest};
use machine::outcome::Empty;
use machine::query::{Answer, Ask, AskHistory, AskLease, AskRevision};

use super::world::{self, SPACE};
use crate::input::{decode, seed};

/// First byte: nothing yet. Then the question.
pub fn run(bytes: &[u8]) {
    let Some(query) = bytes.split_first().and_then(|(_, rest)| decode::<Query>(rest)) else {
        return;
    };
    let view = world::view();
    let answer = machine::answer(view, &query);
    assert_eq!(machine::answer(view, &query), answer, "the same again");
    if let Ok(answer) = answer {
        let encoded = prost::Message::encode_to_vec(&answer);
        assert_eq!(decode::<Answer>(&encoded), Some(answer));
    }
}

/// Each question there is.
pub fn seeds() -> Vec<Vec<u8>> {
    let range = RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        limit: 2,
        sort_order: 2,
        sort_target: 3,
        ..RangeRequest::default()
    };
    let read = RequestOp {
        operation: Some(Operation::Range(range.clone())),
    };
    let txn = TxnRequest {
        compare: vec![Compare {
            key: "a".into(),
            range_end: "c".into(),
            number: 1,
            ..Compare::default()
        }],
        success: vec![read.clone()],
        failure: vec![read],
    };
    let asks = [
        Ask::Range(range.clone()),
        Ask::Range(RangeRequest {
            revision: 4,
            range_end: vec![0].into(),
            min_mod_revision: 1,
            max_create_revision: 5,
            ..range
        }),
        Ask::Lease(AskLease { id: 9, keys: true }),
        Ask::Leases(Empty {}),
        Ask::HashKv(AskRevision { revision: 4 }),
        Ask::Namespace(Empty {}),
        Ask::History(AskHistory {
            from: 4,
            key: vec![0].into(),
            range_end: vec![0].into(),
            limit_bytes: 100,
            prev_kv: true,
        }),
        Ask::Txn(txn),
    ];
    let query = |ask| Query {
        slot: u32::from(SPACE.slot.0),
        namespace: SPACE.namespace.0,
        ask: Some(ask),
        clock_ms: 11_000,
    };
    asks.into_iter().map(|ask| seed(0, &query(ask))).collect()
}
