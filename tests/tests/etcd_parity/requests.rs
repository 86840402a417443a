//! Requests that no client library sends: values out of range, halves of messages, nonsense.

use anyhow::{Context, Result};
use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbCompare, PbDeleteRequest, PbDeleteResponse, PbKeyValue,
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbTargetUnion, PbTxnOpRequest,
    PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use tests::raw::Raw;
use tonic::Status;

use super::{Pair, read};

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";

fn put(key: &str, value: &str) -> PbPutRequest {
    PbPutRequest {
        key: key.into(),
        value: value.into(),
        ..PbPutRequest::default()
    }
}

fn range(key: &str, range_end: &str) -> PbRangeRequest {
    PbRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..PbRangeRequest::default()
    }
}

fn delete(key: &str, range_end: &str) -> PbDeleteRequest {
    PbDeleteRequest {
        key: key.into(),
        range_end: range_end.into(),
        prev_kv: true,
    }
}

/// Numbers out of range, empty and open ranges.
pub async fn ranges(pair: &mut Pair) -> Result<()> {
    for (key, value) in [("a", "3"), ("b", "2"), ("c", "1"), ("c", "0")] {
        pair.ask::<_, PbPutResponse>("put", PUT, put(key, value)).await?;
    }
    let all = range("\0", "\0");
    let reads = [
        PbRangeRequest {
            limit: -1,
            ..all.clone()
        },
        PbRangeRequest {
            limit: i64::MAX,
            ..all.clone()
        },
        PbRangeRequest {
            limit: i64::MIN,
            ..all.clone()
        },
        PbRangeRequest {
            revision: -5,
            ..all.clone()
        },
        PbRangeRequest {
            revision: i64::MAX,
            ..all.clone()
        },
        PbRangeRequest {
            min_mod_revision: -1,
            ..all.clone()
        },
        PbRangeRequest {
            max_mod_revision: -1,
            ..all.clone()
        },
        PbRangeRequest {
            min_create_revision: -1,
            ..all.clone()
        },
        PbRangeRequest {
            max_create_revision: -1,
            ..all.clone()
        },
        PbRangeRequest {
            limit: 1,
            count_only: true,
            ..all.clone()
        },
        PbRangeRequest {
            keys_only: true,
            count_only: true,
            ..all.clone()
        },
        PbRangeRequest {
            limit: 2,
            sort_order: 2,
            sort_target: 4,
            ..all.clone()
        },
        PbRangeRequest {
            limit: 1,
            max_mod_revision: 3,
            ..all.clone()
        },
        PbRangeRequest {
            count_only: true,
            max_mod_revision: 3,
            ..all.clone()
        },
        range("b", "a"),
        range("a", "a"),
        range("", "\0"),
        range("b", "\0"),
    ];
    for (number, message) in reads.into_iter().enumerate() {
        pair.ask::<_, PbRangeResponse>(&format!("range {number}"), RANGE, message)
            .await?;
    }
    // etcd 3.4 ignores an unknown order, and an unknown target ends its process.
    let refused = "InvalidArgument: etcdserver: invalid sort option";
    for (sort_order, sort_target) in [(99, 0), (-1, 0), (1, 99), (0, 5), (0, -1)] {
        let message = PbRangeRequest {
            sort_order,
            sort_target,
            ..all.clone()
        };
        pair.only_ours::<_, PbRangeResponse>(RANGE, message, refused)
            .await?;
    }
    let puts = [
        PbPutRequest {
            lease: -1,
            ..put("a", "x")
        },
        PbPutRequest {
            ignore_value: true,
            ignore_lease: true,
            ..put("a", "")
        },
        PbPutRequest {
            ignore_value: true,
            ignore_lease: true,
            ..put("none", "")
        },
        PbPutRequest {
            ignore_lease: true,
            lease: 7,
            ..put("a", "x")
        },
        PbPutRequest {
            prev_kv: true,
            ..put("none", "")
        },
        put("\0", "zero"),
    ];
    for (number, message) in puts.into_iter().enumerate() {
        pair.ask::<_, PbPutResponse>(&format!("put {number}"), PUT, message)
            .await?;
    }
    for (number, (key, end)) in [("b", "a"), ("", "\0"), ("c", "\0"), ("\0", "")]
        .into_iter()
        .enumerate()
    {
        pair.ask::<_, PbDeleteResponse>(&format!("delete {number}"), DELETE, delete(key, end))
            .await?;
    }
    Ok(())
}

fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp {
        request: Some(request),
    }
}

fn op_put(key: &str) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestPut(put(key, "txn")))
}

fn op_delete(key: &str, end: &str) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestDeleteRange(delete(key, end)))
}

fn op_range(message: PbRangeRequest) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestRange(message))
}

fn txn(success: Vec<PbTxnRequestOp>) -> PbTxnRequest {
    PbTxnRequest {
        success,
        ..PbTxnRequest::default()
    }
}

fn nested(success: Vec<PbTxnRequestOp>, failure: Vec<PbTxnRequestOp>) -> PbTxnRequestOp {
    op(PbTxnOpRequest::RequestTxn(PbTxnRequest {
        compare: Vec::new(),
        success,
        failure,
    }))
}

/// Compares of unknown targets and results, and of a target with another's operand.
fn compares() -> Vec<PbCompare> {
    let unions = [
        None,
        Some(PbTargetUnion::Version(1)),
        Some(PbTargetUnion::CreateRevision(2)),
        Some(PbTargetUnion::ModRevision(2)),
        Some(PbTargetUnion::Value(b"3".to_vec())),
        Some(PbTargetUnion::Lease(0)),
    ];
    let mut all = Vec::new();
    for target in [0, 1, 2, 3, 4, 99, -1] {
        for result in [0, 1, 2, 3, 99] {
            for union in &unions {
                for (key, range_end) in [("a", ""), ("missing", ""), ("a", "c")] {
                    all.push(PbCompare {
                        result,
                        target,
                        key: key.into(),
                        range_end: range_end.into(),
                        target_union: union.clone(),
                    });
                }
            }
        }
    }
    all
}

/// Transactions that are refused, or nearly.
fn odd_transactions() -> Vec<PbTxnRequest> {
    let none = || PbTxnRequestOp { request: None };
    let many = |n: usize| (0..n).map(|n| op_put(&format!("many/{n}"))).collect::<Vec<_>>();
    let ranged = |message| txn(vec![op_range(message)]);
    let empty_compare = PbCompare::default();
    vec![
        txn(vec![none()]),
        txn(vec![nested(vec![none()], vec![])]),
        txn(vec![op_put("")]),
        PbTxnRequest {
            failure: vec![op_put("")],
            ..PbTxnRequest::default()
        },
        txn(vec![nested(vec![], vec![op_put("")])]),
        txn(vec![op_delete("", "")]),
        txn(vec![op_range(range("", ""))]),
        PbTxnRequest {
            compare: vec![empty_compare],
            ..PbTxnRequest::default()
        },
        // One key twice, on every path to it.
        txn(vec![op_put("k"), op_put("k")]),
        PbTxnRequest {
            failure: vec![op_put("k"), op_put("k")],
            ..PbTxnRequest::default()
        },
        txn(vec![op_put("k"), nested(vec![op_put("k")], vec![])]),
        txn(vec![nested(vec![], vec![op_put("k")]), op_put("k")]),
        txn(vec![nested(vec![op_put("k")], vec![op_put("k")])]),
        txn(vec![
            nested(vec![op_put("k")], vec![]),
            nested(vec![op_put("k")], vec![]),
        ]),
        txn(vec![
            nested(vec![nested(vec![op_put("k")], vec![])], vec![]),
            op_put("k"),
        ]),
        txn(vec![op_put("k"), op_delete("k", "")]),
        txn(vec![op_put("k"), op_delete("j", "l")]),
        txn(vec![op_put("k"), op_delete("k", "k")]),
        txn(vec![op_put("k"), op_delete("l", "m")]),
        txn(vec![op_put("k"), op_delete("j", "k")]),
        txn(vec![op_delete("k", ""), op_delete("k", "")]),
        txn(vec![op_delete("j", "m"), op_delete("k", "l")]),
        txn(vec![op_put("k"), nested(vec![op_delete("k", "")], vec![])]),
        txn(vec![nested(vec![op_delete("j", "l")], vec![]), op_put("k")]),
        txn(vec![nested(vec![op_put("k")], vec![op_delete("k", "")])]),
        // Reads within.
        ranged(PbRangeRequest {
            revision: -5,
            ..range("a", "")
        }),
        ranged(PbRangeRequest {
            revision: -1,
            ..range("a", "")
        }),
        ranged(PbRangeRequest {
            revision: 1,
            ..range("a", "")
        }),
        ranged(PbRangeRequest {
            revision: 1 << 40,
            ..range("a", "")
        }),
        ranged(PbRangeRequest {
            limit: -1,
            ..range("a", "z")
        }),
        txn(vec![
            op_range(range("z", "a")),
            op_put("seen"),
            op_range(range("seen", "")),
        ]),
        txn(vec![
            op_put("seen"),
            op_delete("seen2", ""),
            nested(vec![op_range(range("seen", ""))], vec![]),
        ]),
        // How many.
        txn(many(1000)),
        txn(many(1001)),
        txn(vec![nested(many(999), vec![])]),
        txn(vec![nested(many(1000), vec![])]),
        PbTxnRequest {
            failure: many(1001),
            ..PbTxnRequest::default()
        },
    ]
}

/// Transactions.
pub async fn transactions(pair: &mut Pair) -> Result<()> {
    for (key, value) in [("a", "3"), ("b", "2")] {
        pair.ask::<_, PbPutResponse>("put", PUT, put(key, value)).await?;
    }
    for compare in compares() {
        let what = format!("{compare:?}");
        let message = PbTxnRequest {
            compare: vec![compare],
            ..PbTxnRequest::default()
        };
        pair.ask::<_, PbTxnResponse>(&what, TXN, message).await?;
    }
    for (number, message) in odd_transactions().into_iter().enumerate() {
        pair.ask::<_, PbTxnResponse>(&format!("txn {number}"), TXN, message)
            .await?;
    }
    // etcd lets this through, and the key has two versions of one revision (RFC 0008).
    let message = txn(vec![
        nested(vec![op_delete("k", "")], vec![]),
        nested(vec![op_put("k")], vec![]),
    ]);
    let refused = "InvalidArgument: etcdserver: duplicate key given in txn request";
    pair.only_ours::<_, PbTxnResponse>(TXN, message, refused).await
}

/// Leases of no, negative, huge time, and the numbers that are no lease.
pub async fn leases(pair: &mut Pair) -> Result<()> {
    for (id, ttl) in [
        (1, 0),
        (2, -1),
        (3, i64::MIN),
        (4, 9_000_000_000),
        (5, 9_000_000_001),
        (6, i64::MAX),
        (-7, 60),
        (i64::MIN, 60),
        (i64::MAX, 60),
        (4, 60),
    ] {
        let message = PbLeaseGrantRequest { ttl, id };
        pair.ask::<_, PbLeaseGrantResponse>(&format!("grant {id} {ttl}"), GRANT, message)
            .await?;
    }
    let leased = PbPutRequest {
        lease: -7,
        ..put("leased", "x")
    };
    pair.ask::<_, PbPutResponse>("put on a negative lease", PUT, leased)
        .await?;
    for id in [0, 404, -404] {
        let message = PbLeaseTimeToLiveRequest { id, keys: true };
        pair.ask::<_, PbLeaseTimeToLiveResponse>(&format!("time to live {id}"), TIME_TO_LIVE, message)
            .await?;
    }
    let expected = keep_alive(&pair.etcd.endpoint).await?;
    let got = keep_alive(pair.ours()).await?;
    pair.compare("keep alive", &expected, &got);
    for id in [0, 404, -7, -7] {
        let message = PbLeaseRevokeRequest { id };
        pair.ask::<_, PbLeaseRevokeResponse>(&format!("revoke {id}"), REVOKE, message)
            .await?;
    }
    pair.ask::<_, PbRangeResponse>("what was leased", RANGE, range("leased", ""))
        .await
}

/// Renews several leases on one stream: one that is not there is told by a time of 0.
async fn keep_alive(endpoint: &str) -> Result<String> {
    let ids = [-7, 404, i64::MAX, 0, -7];
    let requests = ids.map(|id| PbLeaseKeepAliveRequest { id });
    let mut raw = Raw::connect(endpoint).await?;
    let path = "/etcdserverpb.Lease/LeaseKeepAlive";
    let mut answers = raw
        .stream::<_, PbLeaseKeepAliveResponse>(path, futures::stream::iter(requests))
        .await?;
    let mut said = Vec::new();
    for _ in ids {
        let answer = answers.message().await?.context("the stream ended")?;
        said.push(read(Ok(answer))?);
    }
    Ok(said.join(" | "))
}

/// Compaction at and beyond its bounds, and reads around it.
pub async fn compactions(pair: &mut Pair) -> Result<()> {
    // etcd takes this once (RFC 0008).
    let nothing = PbCompactionRequest::default();
    let refused = "OutOfRange: etcdserver: mvcc: required revision has been compacted";
    pair.only_ours::<_, PbCompactionResponse>(COMPACT, nothing, refused)
        .await?;
    for (number, revision) in [-1, 3, 3, 2, 0, -1, i64::MAX].into_iter().enumerate() {
        let message = PbCompactionRequest {
            revision,
            physical: number % 2 == 0,
        };
        pair.ask::<_, PbCompactionResponse>(&format!("compact {revision}"), COMPACT, message)
            .await?;
    }
    for revision in [-5, -1, 0, 1, 2, 3, 4] {
        let message = PbRangeRequest {
            revision,
            ..range("a", "")
        };
        pair.ask::<_, PbRangeResponse>(&format!("range at {revision}"), RANGE, message.clone())
            .await?;
        let what = format!("txn with a range at {revision}");
        pair.ask::<_, PbTxnResponse>(&what, TXN, txn(vec![op_range(message)]))
            .await?;
    }
    Ok(())
}

/// Too much, no protobuf, no such method: codes are compared, and the first one's text.
pub async fn no_requests(pair: &mut Pair) -> Result<()> {
    let huge = put("huge", &"x".repeat(1600 * 1024));
    pair.ask::<_, PbPutResponse>("a huge put", PUT, huge).await?;
    let broken = || PbKeyValue {
        key: vec![0x0a, 0xff, 0xff],
        ..PbKeyValue::default()
    };
    for path in [TXN, "/etcdserverpb.KV/Nothing", "/nobody.Service/Nothing"] {
        let mut etcd = Raw::connect(&pair.etcd.endpoint).await?;
        let theirs: Result<PbTxnResponse, Status> = etcd.call(path, broken()).await;
        let mut ours = Raw::connect(pair.ours()).await?;
        let got: Result<PbTxnResponse, Status> = ours.call(path, broken()).await;
        let code =
            |answer: Result<PbTxnResponse, Status>| format!("{:?}", answer.err().map(|status| status.code()));
        pair.compare(path, &code(theirs), &code(got));
    }
    Ok(())
}
