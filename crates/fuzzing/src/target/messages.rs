//! What clients send, etcd's and our own messages: refused by the checks, or a command that every replica applies and
//! a question that is answered.

use etcd_client::proto::{
    PbCompactionRequest, PbCompare, PbDeleteRequest, PbLeaseGrantRequest, PbPutRequest, PbRangeRequest,
    PbTargetUnion, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp, PbWatchRequest,
};
use machine::command::{Body, Compact, LeaseGrant};
use machine::outcome::Done;
use machine::query::Ask;
use machine::{Command, Query};
use prost::Message;
use proto::v1;
use server::service::etcd::{check, convert};

use super::world::{self, SPACE};
use crate::input::{decode, seed};

/// First byte: which message. Then the message.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    match which % 10 {
        0 => range(rest),
        1 => put(rest),
        2 => delete(rest),
        3 => txn(rest),
        4 => {
            let asked: Option<PbCompactionRequest> = decode(rest);
            write(asked.map(|asked| {
                Body::Compact(Compact {
                    revision: asked.revision,
                })
            }));
        }
        5 => {
            let asked: Option<PbLeaseGrantRequest> = decode(rest);
            write(asked.map(|asked| {
                Body::LeaseGrant(LeaseGrant {
                    id: asked.id,
                    ttl_s: asked.ttl,
                })
            }));
        }
        6 => drop(decode::<PbWatchRequest>(rest)),
        _ => native(which / 10, rest),
    }
}

fn write(body: Option<Body>) {
    let Some(body) = body else { return };
    let batch = world::batch(vec![world::command(body)]);
    let again = machine::Batch::decode(batch.encode_to_vec().as_slice());
    assert_eq!(again.as_ref(), Ok(&batch), "it survives the log");
    let mut view = world::view().clone();
    let outcome = world::apply(&mut view, world::INDEX + 1, &batch);
    let outcome = outcome.expect("what is let through is applied");
    assert!(outcome.replies.iter().all(|reply| reply.done.is_some()));
    let refused = |done: &Option<Done>| matches!(done, Some(Done::Refused(_)));
    if outcome.replies.iter().all(|reply| refused(&reply.done)) {
        assert!(outcome.events.is_empty(), "refused, and yet it happened");
    }
    world::whole(&view);
}

fn ask(ask: Ask) {
    let query = Query {
        slot: u32::from(SPACE.slot.0),
        namespace: SPACE.namespace.0,
        ask: Some(ask),
        clock_ms: 0,
    };
    let answer = machine::answer(world::view(), &query).expect("what is let through is answered");
    assert!(answer.told.is_some());
}

fn range(bytes: &[u8]) {
    let Some(asked) = decode::<PbRangeRequest>(bytes) else {
        return;
    };
    if check::size(&asked).and(check::range(&asked)).is_ok() {
        ask(Ask::Range(convert::range(asked)));
    }
}

fn put(bytes: &[u8]) {
    let asked = decode::<PbPutRequest>(bytes);
    let checked = asked.filter(|asked| check::size(asked).and(check::put(asked)).is_ok());
    write(checked.map(|asked| Body::Put(convert::put(asked))));
}

fn delete(bytes: &[u8]) {
    let asked = decode::<PbDeleteRequest>(bytes);
    let checked = asked.filter(|asked| check::size(asked).and(check::delete(asked)).is_ok());
    write(checked.map(|asked| Body::DeleteRange(convert::delete(asked))));
}

fn txn(bytes: &[u8]) {
    let Some(asked) = decode::<PbTxnRequest>(bytes) else {
        return;
    };
    if check::size(&asked).and(check::txn(&asked)).is_err() {
        return;
    }
    let reads_only = check::reads_only(&asked);
    assert!(
        reads_only || !check::serializable(&asked),
        "a write that may be stale"
    );
    if reads_only {
        ask(Ask::Txn(convert::txn(asked)));
    } else {
        write(Some(Body::Txn(convert::txn(asked))));
    }
}

/// Our own: only their form; what they ask is a command or a look at the map.
fn native(which: u8, bytes: &[u8]) {
    match which % 8 {
        0 => drop(decode::<v1::ListPartitionsRequest>(bytes)),
        1 => drop(decode::<v1::TransferLeaderRequest>(bytes)),
        2 => drop(decode::<v1::BalanceRequest>(bytes)),
        3 => drop(decode::<v1::AddReplicaRequest>(bytes)),
        4 => drop(decode::<v1::MoveReplicaRequest>(bytes)),
        5 => drop(decode::<v1::PutNamespaceRequest>(bytes)),
        6 => drop(decode::<v1::CheckConsistencyRequest>(bytes)),
        _ => drop(decode::<Command>(bytes).map(|command| command.is_known())),
    }
}

fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp {
        request: Some(request),
    }
}

/// One that only reads, and one with something of everything.
fn transactions(
    range: &PbRangeRequest,
    put: &PbPutRequest,
    delete: &PbDeleteRequest,
) -> (PbTxnRequest, PbTxnRequest) {
    let compare = PbCompare {
        target: 2,
        key: b"a".to_vec(),
        target_union: Some(PbTargetUnion::ModRevision(4)),
        ..PbCompare::default()
    };
    let reading = PbTxnRequest {
        success: vec![op(PbTxnOpRequest::RequestRange(range.clone()))],
        ..PbTxnRequest::default()
    };
    let writing = PbTxnRequest {
        compare: vec![compare],
        success: vec![
            op(PbTxnOpRequest::RequestPut(put.clone())),
            op(PbTxnOpRequest::RequestTxn(reading.clone())),
        ],
        failure: vec![op(PbTxnOpRequest::RequestDeleteRange(delete.clone()))],
    };
    (reading, writing)
}

/// Each message there is, transactions in several shapes.
pub fn seeds() -> Vec<Vec<u8>> {
    let range = PbRangeRequest {
        key: b"a".to_vec(),
        range_end: b"z".to_vec(),
        sort_order: 1,
        sort_target: 4,
        ..PbRangeRequest::default()
    };
    let put = PbPutRequest {
        key: b"a".to_vec(),
        value: b"v".to_vec(),
        lease: 9,
        prev_kv: true,
        ..PbPutRequest::default()
    };
    let ignoring = PbPutRequest {
        key: b"b".to_vec(),
        ignore_value: true,
        ignore_lease: true,
        ..PbPutRequest::default()
    };
    let delete = PbDeleteRequest {
        key: b"b".to_vec(),
        range_end: vec![0],
        prev_kv: true,
    };
    let (reading, writing) = transactions(&range, &put, &delete);
    let session = Some(v1::Session { client_id: 7, seq: 1 });
    vec![
        seed(0, &range),
        seed(1, &put),
        seed(1, &ignoring),
        seed(2, &delete),
        seed(3, &reading),
        seed(3, &writing),
        seed(
            4,
            &PbCompactionRequest {
                revision: 4,
                physical: true,
            },
        ),
        seed(5, &PbLeaseGrantRequest { id: 12, ttl: 30 }),
        seed(
            57,
            &v1::PutNamespaceRequest {
                name: "n".into(),
                quota_bytes: 1 << 20,
                session,
                ..v1::PutNamespaceRequest::default()
            },
        ),
        seed(77, &world::command(world::put("a", "1", 0))),
    ]
}
