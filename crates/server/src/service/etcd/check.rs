//! What etcd refuses before a request reaches the log, in etcd's order. Bounds come from `types::limits`.

use std::collections::BTreeSet;

use etcd_client::proto::{
    PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest, PbTxnRequest, PbTxnRequestOp,
};
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
    Writes::of(&r.success)?;
    Writes::of(&r.failure)?;
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
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    /// Begin, and end unless it is open.
    deletes: Vec<(&'a [u8], Option<Vec<u8>>)>,
}

impl<'a> Writes<'a> {
    fn of(ops: &'a [PbTxnRequestOp]) -> Result<Writes<'a>, Status> {
        let mut all = Writes::default();
        for op in ops {
            if let Some(PbTxnOpRequest::RequestDeleteRange(r)) = &op.request {
                all.deletes.push((&r.key, range_end(&r.key, &r.range_end)));
            }
        }
        for op in ops {
            if let Some(PbTxnOpRequest::RequestTxn(r)) = &op.request {
                let first = Writes::of(&r.success)?;
                let second = Writes::of(&r.failure)?;
                first.puts.iter().try_for_each(|key| all.put(key, false))?;
                second
                    .puts
                    .iter()
                    .try_for_each(|key| all.put(key, first.puts.contains(key)))?;
                all.deletes.extend(first.deletes);
                all.deletes.extend(second.deletes);
            }
        }
        for op in ops {
            if let Some(PbTxnOpRequest::RequestPut(r)) = &op.request {
                all.put(&r.key, false)?;
            }
        }
        Ok(all)
    }

    fn put(&mut self, key: &'a [u8], twice_allowed: bool) -> Checked {
        let new = self.puts.insert(key);
        let deleted = self
            .deletes
            .iter()
            .any(|(begin, end)| *begin <= key && end.as_ref().is_none_or(|end| key < end.as_slice()));
        if deleted || !(new || twice_allowed) {
            return Err(error::DUPLICATE_KEY.into());
        }
        Ok(())
    }
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
