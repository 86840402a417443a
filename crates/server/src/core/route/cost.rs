//! What a request may cost: whether it scans much, and whether it makes the state larger.

use machine::command::{Body, Operation, RequestOp, TxnRequest};
use machine::query::Ask;
use machine::{Command, Query};

/// Whether a query may look at many records.
pub(super) fn scans(query: &Query) -> bool {
    match &query.ask {
        // A limit bounds what is returned; what is counted may still be everything.
        Some(Ask::Range(range)) => !range.range_end.is_empty(),
        Some(Ask::Lease(lease)) => lease.keys,
        Some(Ask::Namespace(_)) | None => false,
        Some(Ask::Leases(_) | Ask::HashKv(_) | Ask::History(_) | Ask::Txn(_)) => true,
    }
}

/// Whether an answer may be larger than what nodes should carry for each other.
pub(super) fn answers_much(query: &Query) -> bool {
    scans(query) && !asks_clock(query)
}

/// Whether the answer depends on the leader's clock: what is left of a lease.
pub(super) fn asks_clock(query: &Query) -> bool {
    matches!(query.ask, Some(Ask::Lease(_)))
}

/// Whether a command may be applied twice without harm, so that it can be sent again when its fate is unclear.
pub(super) fn is_idempotent(command: &Command) -> bool {
    matches!(
        command.body,
        Some(Body::LeaseKeepAlive(_) | Body::CompactStep(_) | Body::Tick(_))
    )
}

/// Whether a command may make the state larger: what is refused when the disk is nearly full.
pub(super) fn grows(command: &Command) -> bool {
    fn txn(request: &TxnRequest) -> bool {
        request.success.iter().chain(&request.failure).any(operation)
    }
    fn operation(op: &RequestOp) -> bool {
        match &op.operation {
            Some(Operation::Put(_)) => true,
            Some(Operation::Txn(nested)) => txn(nested),
            Some(Operation::Range(_) | Operation::DeleteRange(_)) | None => false,
        }
    }
    match &command.body {
        Some(Body::Put(_) | Body::LeaseGrant(_) | Body::SessionOpen(_)) => true,
        Some(Body::Txn(request)) => txn(request),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use machine::command::{DeleteRangeRequest, PutRequest, RangeRequest};
    use machine::outcome::Empty;

    fn txn(operations: Vec<Operation>) -> TxnRequest {
        let failure = operations
            .into_iter()
            .map(|op| RequestOp { operation: Some(op) })
            .collect();
        TxnRequest {
            failure,
            ..TxnRequest::default()
        }
    }

    #[test]
    fn a_full_disk_refuses_what_grows_and_nothing_else() {
        let put = || Operation::Put(PutRequest::default());
        let nested = txn(vec![Operation::Txn(txn(vec![put()]))]);
        let frees = txn(vec![Operation::DeleteRange(DeleteRangeRequest::default())]);
        for (body, wanted) in [
            (Body::Put(PutRequest::default()), true),
            (Body::Txn(nested), true),
            (Body::Txn(frees), false),
            (Body::DeleteRange(DeleteRangeRequest::default()), false),
        ] {
            assert_eq!(
                grows(&Command {
                    body: Some(body.clone()),
                    ..Command::default()
                }),
                wanted,
                "{body:?}"
            );
        }
    }

    #[test]
    fn long_scans_leave_the_runtime() {
        let range = |end: &'static [u8], limit| {
            Ask::Range(RangeRequest {
                range_end: Bytes::from_static(end),
                limit,
                ..RangeRequest::default()
            })
        };
        for (ask, wanted) in [
            (range(b"", 0), false),
            (range(b"z", 0), true),
            (range(b"z", 10), true),
            (Ask::Namespace(Empty {}), false),
        ] {
            assert_eq!(
                scans(&Query {
                    ask: Some(ask.clone()),
                    ..Query::default()
                }),
                wanted,
                "{ask:?}"
            );
        }
    }
}
