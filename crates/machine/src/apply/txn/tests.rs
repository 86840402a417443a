//! Which transactions would write a key twice: the check against one that compares each with each.

use proptest::prelude::*;

use super::*;
use crate::command::{DeleteRangeRequest, PutRequest};

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just("a"),
        Just("a\0"),
        Just("ab"),
        Just("b"),
        Just("c"),
        Just("d")
    ]
    .prop_map(Bytes::from)
}

fn end() -> impl Strategy<Value = Bytes> {
    prop_oneof![6 => Just(""), 1 => Just("\0"), 3 => Just("b"), 2 => Just("cc")].prop_map(Bytes::from)
}

fn operations(depth: u32) -> BoxedStrategy<Vec<RequestOp>> {
    let put = key().prop_map(|key| {
        Operation::Put(PutRequest {
            key,
            ..Default::default()
        })
    });
    let delete = (key(), end()).prop_map(|(key, range_end)| {
        Operation::DeleteRange(DeleteRangeRequest {
            key,
            range_end,
            prev_kv: false,
        })
    });
    let operation = match depth {
        0 => prop_oneof![3 => put, 1 => delete].boxed(),
        _ => {
            let nested = (operations(depth - 1), operations(depth - 1)).prop_map(|(success, failure)| {
                Operation::Txn(TxnRequest {
                    success,
                    failure,
                    ..Default::default()
                })
            });
            prop_oneof![3 => put, 2 => delete, 3 => nested].boxed()
        }
    };
    let operation = operation.prop_map(|operation| RequestOp {
        operation: Some(operation),
    });
    prop::collection::vec(operation, 0..4).boxed()
}

#[derive(Default)]
struct Naive {
    puts: Vec<Bytes>,
    deletes: Vec<UserRange>,
}

impl Naive {
    fn deletes_any(&self, keys: &[Bytes]) -> bool {
        keys.iter()
            .any(|key| self.deletes.iter().any(|range| range.contains(key)))
    }

    /// `None` if a key would be written twice.
    fn of(operations: &[RequestOp]) -> Option<Naive> {
        let mut all = Naive::default();
        for op in operations {
            let mut these = Naive::default();
            match op.operation.as_ref().expect("generated") {
                Operation::Put(put) => these.puts.push(put.key.clone()),
                Operation::DeleteRange(delete) => {
                    these.deletes.push(UserRange::new(&delete.key, &delete.range_end))
                }
                Operation::Txn(nested) => {
                    these = Naive::of(&nested.success)?;
                    let other = Naive::of(&nested.failure)?;
                    these.puts.extend(other.puts);
                    these.deletes.extend(other.deletes);
                }
                Operation::Range(_) => {}
            }
            let twice = these.puts.iter().any(|key| all.puts.contains(key));
            if twice || all.deletes_any(&these.puts) || these.deletes_any(&all.puts) {
                return None;
            }
            all.puts.extend(these.puts);
            all.deletes.extend(these.deletes);
        }
        Some(all)
    }
}

proptest! {
    #[test]
    fn the_verdict_on_nested_transactions_is_that_of_comparing_each_with_each(operations in operations(3)) {
        prop_assert_eq!(intervals(&operations).is_ok(), Naive::of(&operations).is_some());
    }
}
