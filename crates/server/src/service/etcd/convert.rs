//! Between etcd's messages and the machine's. Field by field; nothing is decided here.

use bytes::Bytes;
use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbPutRequest, PbPutResponse, PbRangeRequest,
    PbRangeResponse, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse,
    PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use machine::command::{
    Compare, DeleteRangeRequest, KeyValue, Operation, OperationDone, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseOp, TxnRequest,
};
use machine::outcome::{Deleted, Put, TxnDone};

/// Range.
pub fn range(r: PbRangeRequest) -> RangeRequest {
    RangeRequest {
        key: Bytes::from(r.key),
        range_end: Bytes::from(r.range_end),
        limit: r.limit,
        revision: r.revision,
        sort_order: r.sort_order,
        sort_target: r.sort_target,
        serializable: r.serializable,
        keys_only: r.keys_only,
        count_only: r.count_only,
        min_mod_revision: r.min_mod_revision,
        max_mod_revision: r.max_mod_revision,
        min_create_revision: r.min_create_revision,
        max_create_revision: r.max_create_revision,
    }
}

/// Put.
pub fn put(r: PbPutRequest) -> PutRequest {
    PutRequest {
        key: Bytes::from(r.key),
        value: Bytes::from(r.value),
        lease: r.lease,
        prev_kv: r.prev_kv,
        ignore_value: r.ignore_value,
        ignore_lease: r.ignore_lease,
    }
}

/// Delete.
pub fn delete(r: PbDeleteRequest) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: Bytes::from(r.key),
        range_end: Bytes::from(r.range_end),
        prev_kv: r.prev_kv,
    }
}

/// Transaction.
pub fn txn(r: PbTxnRequest) -> TxnRequest {
    TxnRequest {
        compare: r.compare.into_iter().map(compare).collect(),
        success: r.success.into_iter().map(request_op).collect(),
        failure: r.failure.into_iter().map(request_op).collect(),
    }
}

/// A compare. As in etcd, a union that does not fit the target counts as zero or empty.
pub fn compare(c: PbCompare) -> Compare {
    let (number, value) = match (c.target, c.target_union) {
        (0, Some(PbTargetUnion::Version(n))) => (n, Vec::new()),
        (1, Some(PbTargetUnion::CreateRevision(n))) => (n, Vec::new()),
        (2, Some(PbTargetUnion::ModRevision(n))) => (n, Vec::new()),
        (3, Some(PbTargetUnion::Value(v))) => (0, v),
        (4, Some(PbTargetUnion::Lease(n))) => (n, Vec::new()),
        _ => (0, Vec::new()),
    };
    Compare {
        result: c.result,
        target: c.target,
        key: Bytes::from(c.key),
        number,
        value: Bytes::from(value),
        range_end: Bytes::from(c.range_end),
    }
}

fn request_op(op: PbTxnRequestOp) -> RequestOp {
    let operation = op.request.map(|request| match request {
        PbTxnOpRequest::RequestRange(r) => Operation::Range(range(r)),
        PbTxnOpRequest::RequestPut(r) => Operation::Put(put(r)),
        PbTxnOpRequest::RequestDeleteRange(r) => Operation::DeleteRange(delete(r)),
        PbTxnOpRequest::RequestTxn(r) => Operation::Txn(txn(r)),
    });
    RequestOp { operation }
}

/// A pair.
pub fn key_value(kv: KeyValue) -> PbKeyValue {
    PbKeyValue {
        key: kv.key.into(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value.into(),
        lease: kv.lease,
    }
}

/// Answer to a range. Within a transaction etcd leaves the header's other fields out too.
pub fn range_response(header: PbResponseHeader, r: RangeResponse) -> PbRangeResponse {
    PbRangeResponse {
        header: Some(header),
        kvs: r.kvs.into_iter().map(key_value).collect(),
        more: r.more,
        count: r.count,
    }
}

/// Answer to a put.
pub fn put_response(header: PbResponseHeader, r: Put) -> PbPutResponse {
    PbPutResponse {
        header: Some(header),
        prev_kv: r.prev_kv.map(key_value),
    }
}

/// Answer to a delete.
pub fn delete_response(header: PbResponseHeader, r: Deleted) -> PbDeleteResponse {
    PbDeleteResponse {
        header: Some(header),
        deleted: r.deleted,
        prev_kvs: r.prev_kvs.into_iter().map(key_value).collect(),
    }
}

/// Answer to a transaction; the headers inside carry a revision only, as etcd's do.
pub fn txn_response(header: PbResponseHeader, r: TxnDone) -> PbTxnResponse {
    PbTxnResponse {
        header: Some(header),
        succeeded: r.succeeded,
        responses: r.responses.into_iter().map(response_op).collect(),
    }
}

fn response_op(op: ResponseOp) -> PbResponseOp {
    let inner = PbResponseHeader {
        revision: op.revision,
        ..PbResponseHeader::default()
    };
    let response = op.done.map(|done| match done {
        OperationDone::Range(r) => PbTxnOpResponse::ResponseRange(range_response(inner, r)),
        OperationDone::Put(r) => PbTxnOpResponse::ResponsePut(put_response(inner, r)),
        OperationDone::Deleted(r) => PbTxnOpResponse::ResponseDeleteRange(delete_response(inner, r)),
        OperationDone::Txn(r) => PbTxnOpResponse::ResponseTxn(txn_response(inner, r)),
    });
    PbResponseOp { response }
}

#[cfg(test)]
mod tests;
