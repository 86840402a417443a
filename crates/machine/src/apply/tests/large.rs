//! Writes that concern more bytes than should be held at once.

use super::*;
use crate::apply::Context;
use crate::apply::kv_write;
use crate::apply::lease;

/// 40 keys of 1 MiB, attached to a lease.
fn forty() -> Replica {
    let mut replica = Replica::default();
    replica.done(Body::LeaseGrant(LeaseGrant { id: 4, ttl_s: 60 }));
    let value = "v".repeat(1 << 20);
    for n in 0..40 {
        replica.done(put(&format!("k{n:02}"), &value, 4));
    }
    replica
}

fn all(prev_kv: bool) -> DeleteRangeRequest {
    let all = Bytes::from_static(b"\0");
    DeleteRangeRequest {
        key: all.clone(),
        range_end: all,
        prev_kv,
    }
}

/// Bytes of values that a batch holds after `write`, and how many it read to get there.
fn held(replica: &Replica, write: impl FnOnce(&mut Context<'_>)) -> (usize, usize) {
    let view = Counting::new(&replica.view);
    let mut context = Context::new(&view).expect("memory never fails");
    write(&mut context);
    let events = context.events.iter().flat_map(|events| &events.events);
    let previous = events.map(|event| event.prev_kv.as_ref().map_or(0, |kv| kv.value.len()));
    let held = previous.sum::<usize>() + context.overlay.value_bytes();
    (held, view.value_bytes.get())
}

#[test]
fn values_that_nobody_asked_for_are_read_once_and_not_held() {
    let replica = forty();
    let (held_bytes, read_bytes) = held(&replica, |context| {
        let done = kv_write::delete_range(context, SPACE, &all(false)).expect("done");
        assert!(matches!(done, Done::Deleted(deleted) if deleted.deleted == 40));
    });
    assert!(held_bytes < 1 << 20, "{held_bytes} bytes held");
    assert!(read_bytes < 41 << 20, "{read_bytes} bytes read");
    let (held_bytes, read_bytes) = held(&replica, |context| {
        lease::revoke(context, SPACE, 4).expect("done");
    });
    assert!(held_bytes < 1 << 20, "{held_bytes} bytes held");
    assert!(read_bytes < 41 << 20, "{read_bytes} bytes read");
}

#[test]
fn events_with_too_many_previous_pairs_are_left_to_history() {
    let mut replica = forty();
    replica.done(delete("k00", b"k10"));
    let few = replica.outcome.events.remove(0);
    assert!(!few.cut && few.events.iter().all(|event| event.prev_kv.is_some()));
    let Done::Deleted(deleted) = replica.done(Body::DeleteRange(all(true))) else {
        panic!("{:?}", replica.outcome.replies)
    };
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (30, 30));
    let many = replica.outcome.events.remove(0);
    assert_eq!((many.cut, many.events.len()), (true, 30));
    assert!(many.events.iter().all(|event| event.prev_kv.is_none()));
    assert_eq!(many.revision, few.revision + 1);
}

#[test]
fn an_answer_that_could_not_be_sent_is_refused_before_anything_changes() {
    let mut replica = forty();
    let value = "v".repeat(1 << 20);
    for n in 40..60 {
        replica.put(&format!("k{n}"), &value);
    }
    let revision = numbers(&replica).revision;
    let deletes = |prev_kv| {
        let halves = [("a", "k30"), ("k30", "z")].map(|(key, end)| RequestOp {
            operation: Some(Operation::DeleteRange(DeleteRangeRequest {
                key: key.into(),
                range_end: end.into(),
                prev_kv,
            })),
        });
        txn(halves.to_vec())
    };
    for body in [Body::DeleteRange(all(true)), deletes(true)] {
        assert_eq!(replica.refusal(body), Some(RefusalKind::Invalid));
        assert_eq!(numbers(&replica).revision, revision);
    }
    assert_eq!(replica.refusal(deletes(false)), None);
    assert_eq!(
        (numbers(&replica).revision, numbers(&replica).keys),
        (revision + 1, 0)
    );
}
