//! Transactions. As in etcd, every compare (of nested transactions too) is decided on the state before, then every
//! operation of the branches taken is checked, then all of them are executed as one revision.

use bytes::Bytes;
use prost::Message;
use types::limits;
use types::planted::{self, Planted};

use super::kv_write::{self, Write};
use super::{Context, Stop, range, refusal};
use crate::command::{Compare, KeyValue, Operation, OperationDone, RequestOp, ResponseOp, TxnRequest};
use crate::outcome::{Refusal, RefusalKind, TxnDone};
use crate::record::Space;
use crate::record::key::UserRange;
use crate::record::kv::Namespace;
use crate::touched::Touched;
use crate::view::ViewError;

/// Which branch is taken, and the same of the transactions in that branch, in order.
struct Path {
    success: bool,
    nested: Vec<Path>,
}

impl Path {
    fn branch<'r>(&self, request: &'r TxnRequest) -> &'r [RequestOp] {
        if self.success {
            &request.success
        } else {
            &request.failure
        }
    }
}

/// Executes a transaction.
pub(crate) fn txn(context: &mut Context<'_>, space: Space, request: &TxnRequest) -> Result<TxnDone, Stop> {
    check(request, limits::TXN_OPERATIONS, limits::TXN_DEPTH)?;
    intervals(&request.success)?;
    intervals(&request.failure)?;
    kv_write::check_size(request.encoded_len())?;
    let numbers = context.numbers(space)?.clone();
    let path = decide(context, space, request)?;
    let mut bytes = 0;
    each_taken(request, &path, &mut |operation| {
        if let Operation::Put(put) = operation {
            bytes += kv_write::put_bytes(context, space, put)?;
        }
        Ok(())
    })?;
    kv_write::check_quota(&numbers, bytes)?;
    each_taken(request, &path, &mut |operation| {
        check_put_state(context, space, operation)
    })?;
    each_taken(request, &path, &mut |operation| {
        check_range_state(&numbers, operation)
    })?;
    let mut previous_bytes = 0;
    each_taken(request, &path, &mut |operation| {
        check_previous(context, space, operation, &mut previous_bytes)
    })?;
    let mut write = Write::begin(context, space)?;
    let done = execute(&mut write, request, &path)?;
    write.finish();
    Ok(done)
}

/// Whether a transaction can change anything.
pub(crate) fn writes(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .any(|op| match &op.operation {
            Some(Operation::Put(_) | Operation::DeleteRange(_)) => true,
            Some(Operation::Txn(nested)) => writes(nested),
            Some(Operation::Range(_)) | None => false,
        })
}

/// What is wrong with a transaction whatever the state.
fn check(request: &TxnRequest, operations: usize, depth: usize) -> Result<(), Refusal> {
    let most = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if most > operations || depth == 0 {
        return Err(refusal(
            RefusalKind::TooManyOperations,
            "etcdserver: too many operations in txn request",
        ));
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(refusal(RefusalKind::EmptyKey, "etcdserver: key is not provided"));
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.operation {
            Some(Operation::Range(request)) => range::check(request)?,
            Some(Operation::Put(request)) => kv_write::check_put(request)?,
            Some(Operation::DeleteRange(request)) => kv_write::check_delete(request)?,
            Some(Operation::Txn(request)) => check(request, operations - most, depth - 1)?,
            // etcd's answer to an operation without content.
            None => return Err(refusal(RefusalKind::KeyNotFound, "etcdserver: key not found")),
        }
    }
    Ok(())
}

/// Refuses a list of operations that may change one key twice (etcd's `checkIntervals`; stricter in two cases that
/// etcd lets through: a delete "from key on", and deletes of one nested transaction against puts of an earlier one).
fn intervals(operations: &[RequestOp]) -> Result<Touched<Bytes>, Refusal> {
    let mut touched = Touched::default();
    for op in operations {
        let mut these = Touched::default();
        match &op.operation {
            Some(Operation::Put(put)) => these.put(put.key.clone()),
            Some(Operation::DeleteRange(delete)) => {
                let (begin, end) = UserRange::new(&delete.key, &delete.range_end).ends();
                these.delete(begin, end);
            }
            Some(Operation::Txn(nested)) => {
                // Only one of the branches is taken, so that they may share keys.
                these = intervals(&nested.success)?;
                these.unite(intervals(&nested.failure)?);
            }
            Some(Operation::Range(_)) | None => {}
        }
        if touched.is_met_by_puts_of(&these) || these.is_met_by_puts_of(&touched) {
            return Err(refusal(
                RefusalKind::DuplicateKey,
                "etcdserver: duplicate key given in txn request",
            ));
        }
        touched.unite(these);
    }
    Ok(touched)
}

fn decide(context: &Context<'_>, space: Space, request: &TxnRequest) -> Result<Path, ViewError> {
    let mut success = true;
    for compare in &request.compare {
        if !holds(context, space, compare)? {
            success = false;
            break;
        }
    }
    let mut path = Path {
        success,
        nested: Vec::new(),
    };
    for op in path.branch(request) {
        if let Some(Operation::Txn(nested)) = &op.operation {
            path.nested.push(decide(context, space, nested)?);
        }
    }
    Ok(path)
}

/// A compare of a range holds if it holds for every key; one of nothing compares with an empty pair, values excepted.
fn holds(context: &Context<'_>, space: Space, compare: &Compare) -> Result<bool, ViewError> {
    const VALUE: i32 = 3;
    let range = UserRange::new(&compare.key, &compare.range_end);
    let kvs = range::heads(&context.overlay, space, &range)?;
    if kvs.is_empty() {
        return Ok(compare.target != VALUE && holds_for(compare, &KeyValue::default()));
    }
    Ok(kvs.iter().all(|kv| holds_for(compare, kv)))
}

fn holds_for(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match compare.target {
        0 => kv.version.cmp(&compare.number),
        1 => kv.create_revision.cmp(&compare.number),
        2 if planted::is(Planted::CompareIgnored) && kv.version > 0 => std::cmp::Ordering::Equal,
        2 => kv.mod_revision.cmp(&compare.number),
        3 => kv.value.cmp(&compare.value),
        4 => kv.lease.cmp(&compare.number),
        _ => std::cmp::Ordering::Equal,
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        3 => order.is_ne(),
        _ => true,
    }
}

/// Visits the operations of the branches taken, those of nested transactions in their place.
fn each_taken(
    request: &TxnRequest,
    path: &Path,
    visit: &mut dyn FnMut(&Operation) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut nested = path.nested.iter();
    for operation in path.branch(request).iter().filter_map(|op| op.operation.as_ref()) {
        match operation {
            Operation::Txn(inner) => {
                let path = nested
                    .next()
                    .expect("one path per nested transaction, by `decide`");
                each_taken(inner, path, visit)?;
            }
            Operation::Range(_) | Operation::Put(_) | Operation::DeleteRange(_) => visit(operation)?,
        }
    }
    Ok(())
}

fn check_put_state(context: &Context<'_>, space: Space, operation: &Operation) -> Result<(), Stop> {
    if let Operation::Put(put) = operation {
        kv_write::check_kept(context, space, put)?;
        kv_write::check_lease(context, space, put.lease)?;
    }
    Ok(())
}

fn check_previous(
    context: &Context<'_>,
    space: Space,
    operation: &Operation,
    bytes: &mut u64,
) -> Result<(), Stop> {
    let range = match operation {
        Operation::Put(put) if put.prev_kv => UserRange::One(put.key.clone()),
        Operation::DeleteRange(delete) if delete.prev_kv => UserRange::new(&delete.key, &delete.range_end),
        Operation::Put(_) | Operation::DeleteRange(_) | Operation::Range(_) | Operation::Txn(_) => {
            return Ok(());
        }
    };
    kv_write::check_previous(context, space, &range, bytes)
}

fn check_range_state(numbers: &Namespace, operation: &Operation) -> Result<(), Stop> {
    if let Operation::Range(request) = operation {
        // Unlike alone, a negative revision in a transaction is one that was compacted, once anything was.
        if request.revision < 0 && (numbers.compact_revision > 0 || request.revision < -1) {
            return Err(range::compacted(numbers).into());
        }
        range::revision_of(request.revision, numbers, numbers.revision)?;
    }
    Ok(())
}

fn execute(write: &mut Write<'_, '_>, request: &TxnRequest, path: &Path) -> Result<TxnDone, Stop> {
    let branch = path.branch(request);
    let mut nested = path.nested.iter();
    let mut responses = Vec::with_capacity(branch.len());
    for operation in branch.iter().filter_map(|op| op.operation.as_ref()) {
        let (revision, done) = match operation {
            Operation::Range(request) => {
                let current = write.current();
                let found = range::range(
                    &write.context.overlay,
                    write.space,
                    &write.numbers,
                    current,
                    request,
                )?;
                (current, OperationDone::Range(found))
            }
            Operation::Put(request) => {
                let done = write.put(request)?;
                (write.next(), OperationDone::Put(done))
            }
            Operation::DeleteRange(request) => {
                let deleted = write.delete_range(request)?;
                (write.current(), OperationDone::Deleted(deleted))
            }
            Operation::Txn(request) => {
                let path = nested
                    .next()
                    .expect("one path per nested transaction, by `decide`");
                // etcd leaves the header of a nested answer empty.
                (0, OperationDone::Txn(execute(write, request, path)?))
            }
        };
        responses.push(ResponseOp {
            revision,
            done: Some(done),
        });
    }
    Ok(TxnDone {
        succeeded: path.success,
        responses,
    })
}

#[cfg(test)]
mod tests;
