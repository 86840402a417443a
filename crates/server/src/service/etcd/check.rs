//! What etcd refuses before a request reaches the log, in etcd's order. Bounds come from `types::limits`.

use std::borrow::Cow;

use etcd_client::proto::{
    PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};
use machine::Touched;
use prost::Message;
use tonic::Status;
use types::limits;

use crate::service::error;

type Checked = Result<(), Status>;

/// Every request: its size.
pub fn size(request: &impl Message) -> Checked {
    let size_bytes = request.encoded_len();
    if size_bytes > limits::REQUEST_BYTES {
        let detail = format!(
            "{size_bytes} bytes, at most {} are allowed",
            limits::REQUEST_BYTES
        );
        return Err(error::TOO_LARGE.status(&detail));
    }
    Ok(())
}

fn key(key: &[u8], range_end: &[u8]) -> Checked {
    if key.is_empty() {
        return Err(error::EMPTY_KEY.into());
    }
    let size_bytes = key.len().max(range_end.len());
    if size_bytes > limits::KEY_BYTES {
        let detail = format!(
            "a key of {size_bytes} bytes, at most {} are allowed",
            limits::KEY_BYTES
        );
        return Err(error::TOO_LARGE.status(&detail));
    }
    Ok(())
}

/// Range.
pub fn range(r: &PbRangeRequest) -> Checked {
    key(&r.key, &r.range_end)?;
    let sortable = (0..=2).contains(&r.sort_order) && (0..=4).contains(&r.sort_target);
    if sortable {
        Ok(())
    } else {
        Err(error::INVALID_SORT.into())
    }
}

/// Put.
pub fn put(r: &PbPutRequest) -> Checked {
    key(&r.key, &[])?;
    if r.ignore_value && !r.value.is_empty() {
        return Err(error::VALUE_PROVIDED.into());
    }
    if r.ignore_lease && r.lease != 0 {
        return Err(error::LEASE_PROVIDED.into());
    }
    Ok(())
}

/// Delete.
pub fn delete(r: &PbDeleteRequest) -> Checked {
    key(&r.key, &r.range_end)
}

/// Transaction: counts and keys of all levels first, then keys written twice.
pub fn txn(r: &PbTxnRequest) -> Checked {
    operations(r, limits::TXN_OPERATIONS, limits::TXN_DEPTH)?;
    writes(&r.success)?;
    writes(&r.failure)?;
    Ok(())
}

fn operations(r: &PbTxnRequest, allowed: usize, depth: usize) -> Checked {
    let count = r.compare.len().max(r.success.len()).max(r.failure.len());
    if count > allowed {
        return Err(error::TOO_MANY_OPS.into());
    }
    if depth == 0 {
        let detail = format!("transactions nest at most {} deep", limits::TXN_DEPTH);
        return Err(error::TOO_MANY_OPS.status(&detail));
    }
    for compare in &r.compare {
        key(&compare.key, &compare.range_end)?;
    }
    r.success
        .iter()
        .chain(&r.failure)
        .try_for_each(|op| operation(op, allowed - count, depth - 1))
}

fn operation(op: &PbTxnRequestOp, allowed: usize, depth: usize) -> Checked {
    match &op.request {
        Some(PbTxnOpRequest::RequestRange(r)) => range(r),
        Some(PbTxnOpRequest::RequestPut(r)) => put(r),
        Some(PbTxnOpRequest::RequestDeleteRange(r)) => delete(r),
        Some(PbTxnOpRequest::RequestTxn(r)) => operations(r, allowed, depth),
        None => Err(error::KEY_NOT_FOUND.into()),
    }
}

/// Whether a transaction writes nothing, in any branch.
pub fn reads_only(r: &PbTxnRequest) -> bool {
    r.success.iter().chain(&r.failure).all(|op| match &op.request {
        Some(PbTxnOpRequest::RequestRange(_)) => true,
        Some(PbTxnOpRequest::RequestTxn(r)) => reads_only(r),
        Some(PbTxnOpRequest::RequestPut(_) | PbTxnOpRequest::RequestDeleteRange(_)) | None => false,
    })
}

/// Whether all reads of a read-only transaction may be stale. One that only compares has not said so (etcd answers it
/// from whoever is asked all the same).
pub fn serializable(r: &PbTxnRequest) -> bool {
    let mut operations = r.success.iter().chain(&r.failure).peekable();
    operations.peek().is_some()
        && operations.all(|op| match &op.request {
            Some(PbTxnOpRequest::RequestRange(r)) => r.serializable,
            Some(PbTxnOpRequest::RequestTxn(r)) => serializable(r),
            Some(PbTxnOpRequest::RequestPut(_) | PbTxnOpRequest::RequestDeleteRange(_)) | None => false,
        })
}

/// Keys and ranges that one branch writes. A key may be put once, and not both put and deleted; branches that
/// exclude each other may put the same key.
fn writes(ops: &[PbTxnRequestOp]) -> Result<Touched<Cow<'_, [u8]>>, Status> {
    let mut all = Touched::default();
    for op in ops {
        if let Some(PbTxnOpRequest::RequestDeleteRange(r)) = &op.request {
            let end = range_end(&r.key, &r.range_end);
            all.delete(Cow::from(&r.key), end.map(Cow::from));
        }
    }
    let mut join = |these: Touched<_>| {
        if all.is_met_by_puts_of(&these) {
            return Err(Status::from(error::DUPLICATE_KEY));
        }
        all.unite(these);
        Ok(())
    };
    for op in ops {
        if let Some(PbTxnOpRequest::RequestTxn(r)) = &op.request {
            let mut nested = writes(&r.success)?;
            nested.unite(writes(&r.failure)?);
            join(nested)?;
        }
    }
    for op in ops {
        if let Some(PbTxnOpRequest::RequestPut(r)) = &op.request {
            let mut put = Touched::default();
            put.put(Cow::from(&r.key));
            join(put)?;
        }
    }
    Ok(all)
}

/// Exclusive end of a request's range, `None` if it has none.
pub fn range_end(key: &[u8], range_end: &[u8]) -> Option<Vec<u8>> {
    match range_end {
        [] => {
            let mut end = key.to_vec();
            end.push(0);
            Some(end)
        }
        [0] => None,
        end => Some(end.to_vec()),
    }
}

#[cfg(test)]
mod tests;
