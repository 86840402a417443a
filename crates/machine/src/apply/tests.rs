//! Cases that the model test does not reach: limits, time, sessions' windows, formats, housekeeping.

use bytes::Bytes;
use types::limits;

use crate::command::*;
use crate::memory::MemView;
use crate::outcome::*;
use crate::query::*;
use crate::record::{self, Space};
use crate::testing::{Replica, SPACE, command, put, refusal_of};
use crate::view::{View, ViewError, Visit};
use crate::{ApplyError, Stamp};

mod bounds;
mod damage;
mod housekeeping;
mod large;

fn delete(key: &str, range_end: &'static [u8]) -> Body {
    let key = key.to_owned().into();
    Body::DeleteRange(DeleteRangeRequest {
        key,
        range_end: Bytes::from_static(range_end),
        prev_kv: false,
    })
}

fn op(body: Body) -> RequestOp {
    let operation = match body {
        Body::Put(put) => Operation::Put(put),
        Body::DeleteRange(delete) => Operation::DeleteRange(delete),
        Body::Txn(txn) => Operation::Txn(txn),
        other => panic!("{other:?} is no operation"),
    };
    RequestOp {
        operation: Some(operation),
    }
}

fn txn(success: Vec<RequestOp>) -> Body {
    Body::Txn(TxnRequest {
        success,
        ..Default::default()
    })
}

fn nest(depth: usize) -> Body {
    if depth == 0 {
        txn(Vec::new())
    } else {
        txn(vec![op(nest(depth - 1))])
    }
}

fn numbers(replica: &Replica) -> NamespaceInfo {
    match replica.ask(Ask::Namespace(Empty {})) {
        Told::Namespace(info) => info,
        other => panic!("asked for numbers, told {other:?}"),
    }
}

#[test]
fn malformed_requests_are_refused_and_change_nothing() {
    use RefusalKind::*;
    let long = "k".repeat(limits::KEY_BYTES + 1);
    let large = "v".repeat(limits::REQUEST_BYTES + 1);
    let many = |n: usize| {
        (0..n)
            .map(|i| op(put(&format!("k{i}"), "", 0)))
            .collect::<Vec<_>>()
    };
    let with = |change: fn(&mut PutRequest)| {
        let mut request = PutRequest {
            key: "a".into(),
            ..Default::default()
        };
        change(&mut request);
        Body::Put(request)
    };
    let cases = [
        (put("", "v", 0), Some(EmptyKey)),
        (put(&long, "v", 0), Some(Invalid)),
        (put("a", &large, 0), Some(Invalid)),
        (put("a", "v", 77), Some(LeaseNotFound)),
        (
            with(|put| (put.ignore_value, put.value) = (true, "v".into())),
            Some(Invalid),
        ),
        (
            with(|put| (put.ignore_lease, put.lease) = (true, 1)),
            Some(Invalid),
        ),
        (with(|put| put.ignore_value = true), Some(KeyNotFound)),
        (delete("", b"\0"), Some(EmptyKey)),
        (txn(vec![RequestOp { operation: None }]), Some(KeyNotFound)),
        (txn(many(limits::TXN_OPERATIONS + 1)), Some(TooManyOperations)),
        (nest(limits::TXN_DEPTH), Some(TooManyOperations)),
        (
            txn(vec![op(put("a", "1", 0)), op(put("a", "2", 0))]),
            Some(DuplicateKey),
        ),
        (
            txn(vec![op(put("a", "1", 0)), op(delete("a", b""))]),
            Some(DuplicateKey),
        ),
        (
            txn(vec![op(delete("A", b"\0")), op(put("a", "1", 0))]),
            Some(DuplicateKey),
        ),
        (
            txn(vec![
                op(txn(vec![op(put("a", "1", 0))])),
                op(txn(vec![op(delete("a", b"b"))])),
            ]),
            Some(DuplicateKey),
        ),
        (Body::Compact(Compact { revision: 0 }), Some(Compacted)),
        (Body::Compact(Compact { revision: 2 }), Some(FutureRevision)),
        (
            Body::LeaseGrant(LeaseGrant {
                id: 1,
                ttl_s: limits::LEASE_TTL_MAX_S + 1,
            }),
            Some(LeaseTtlTooLarge),
        ),
        (Body::LeaseRevoke(LeaseId { id: 1 }), Some(LeaseNotFound)),
        (Body::LeaseKeepAlive(LeaseId { id: 1 }), Some(LeaseNotFound)),
        (Body::SessionOpen(SessionOpen {}), Some(Invalid)),
        (
            Body::NamespaceConfigure(NamespaceSettings {
                retain_revisions: -1,
                ..Default::default()
            }),
            Some(Invalid),
        ),
        (delete("a", b""), None),
        (Body::CompactStep(CompactStep { records: 0 }), None),
        (nest(limits::TXN_DEPTH - 1), None),
    ];
    let mut replica = Replica::default();
    for (body, expected) in cases {
        assert_eq!(replica.refusal(body.clone()), expected, "{body:?}");
        assert_eq!(numbers(&replica).revision, 1);
        assert_eq!(
            replica.view.len(),
            1 + usize::from(expected.is_none() && replica.view.len() == 2)
        );
    }
    assert_eq!(replica.refusal(txn(many(limits::TXN_OPERATIONS))), None);
    assert_eq!(numbers(&replica).revision, 2);
}

#[test]
fn what_only_a_newer_build_knows_stops_the_node() {
    let replica = Replica::default();
    let unknown = Command {
        body: None,
        ..command(SPACE, Body::Tick(Tick {}))
    };
    let meta = Body::Meta(crate::record::meta::MetaCommand { change: None });
    let batches = [
        Batch {
            format: BATCH_FORMAT + 1,
            ..Default::default()
        },
        Batch {
            format: BATCH_FORMAT,
            commands: vec![unknown],
            ..Default::default()
        },
        Batch {
            format: BATCH_FORMAT,
            commands: vec![command(Space::PARTITION, meta)],
            ..Default::default()
        },
    ];
    for batch in batches {
        let known = batch.commands.iter().any(Command::is_known);
        assert!(!known, "what stops a node must not reach a log");
        let result = crate::apply(&replica.view, Stamp::default(), &batch);
        assert!(matches!(result, Err(ApplyError::Unsupported(_))), "{result:?}");
    }
    assert!(command(SPACE, Body::Tick(Tick {})).is_known());
    // The same of a state that a newer build has written.
    let mut replica = Replica::default();
    replica.done(put("a", "1", 0));
    let newer = record::state::State {
        format: BATCH_FORMAT + 1,
        ..record::state::read(&replica.view).expect("memory never fails")
    };
    let key = record::key::single(Space::PARTITION, record::key::Kind::State);
    replica.view.put(key, record::encode(&newer));
    let result = crate::apply(&replica.view, Stamp::default(), &Batch::default());
    assert!(matches!(result, Err(ApplyError::Unsupported(_))), "{result:?}");
}

#[test]
fn keys_live_in_key_spaces_only() {
    let mut replica = Replica::default();
    for (slot, namespace) in [(4096, 1), (65535, 1), (70_000, 1), (5, 0)] {
        let reply = replica.reply(Command {
            slot,
            namespace,
            ..command(SPACE, put("a", "v", 0))
        });
        assert_eq!(refusal_of(&reply.done.expect("done")), Some(RefusalKind::Invalid));
        let ask = Some(Ask::Namespace(Empty {}));
        let answer = crate::answer(
            &replica.view,
            &Query {
                slot,
                namespace,
                ask,
                clock_ms: 0,
            },
        )
        .expect("memory never fails");
        assert!(matches!(answer.told, Some(Told::Refused(_))));
    }
}

#[test]
fn settings_of_an_older_generation_change_nothing() {
    let mut replica = Replica::default();
    let space = |replica: &Replica| record::kv::namespace(&replica.view, SPACE).expect("memory never fails");
    let settings = |generation, quota_bytes| NamespaceSettings {
        generation,
        quota_bytes,
        ..Default::default()
    };
    assert!(
        !space(&replica).is_outdated(&settings(1, 0)),
        "these are the defaults"
    );
    assert!(space(&replica).is_outdated(&settings(1, 10)));
    for (generation, quota_bytes, known) in [(2, 20, 20), (1, 10, 20), (0, 5, 20), (2, 20, 20), (3, 30, 30)] {
        replica.done(Body::NamespaceConfigure(settings(generation, quota_bytes)));
        assert_eq!(space(&replica).quota_bytes(), known, "at {generation}");
    }
    for (generation, outdated) in [(2, false), (3, false), (4, true)] {
        assert_eq!(space(&replica).is_outdated(&settings(generation, 0)), outdated);
    }
}

#[test]
fn a_quota_refuses_writes_until_compaction_makes_room() {
    let mut replica = Replica::default();
    let settings = NamespaceSettings {
        quota_bytes: 100,
        ..Default::default()
    };
    assert_eq!(replica.refusal(Body::NamespaceConfigure(settings)), None);
    let value = "v".repeat(29);
    for _ in 0..3 {
        replica.put("a", &value);
    }
    assert_eq!(replica.refusal(put("a", &value, 0)), Some(RefusalKind::NoSpace));
    let two = txn(vec![op(put("a", "123456", 0)), op(put("b", "123456", 0))]);
    assert_eq!(replica.refusal(two), Some(RefusalKind::NoSpace));
    let grant = Body::LeaseGrant(LeaseGrant { id: 1, ttl_s: 10 });
    assert_eq!(replica.refusal(grant), Some(RefusalKind::NoSpace));
    assert_eq!(numbers(&replica).total_bytes, 90);
    assert_eq!(replica.refusal(Body::Compact(Compact { revision: 4 })), None);
    assert_eq!(record::kv::compaction_pending(&replica.view), Ok(vec![SPACE]));
    let mut removed = 0;
    loop {
        match replica.done(Body::CompactStep(CompactStep { records: 1 })) {
            Done::Step(step) => {
                removed += step.removed;
                if !step.remaining {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((removed, numbers(&replica).total_bytes), (2, 30));
    assert_eq!(record::kv::compaction_pending(&replica.view), Ok(vec![]));
    assert_eq!(replica.put("a", &value), 5);
    assert_eq!(
        replica.refusal(delete("a", b"")),
        None,
        "deletes are never refused"
    );
}

#[test]
fn leases_end_by_command_on_the_machines_clock() {
    let mut replica = Replica::default();
    let granted = replica.done(Body::LeaseGrant(LeaseGrant { id: 0, ttl_s: 0 }));
    let Done::Lease(LeaseDone { id, ttl_s }) = granted else {
        panic!("{granted:?}")
    };
    assert!(id > 0 && ttl_s == limits::LEASE_TTL_MIN_S);
    replica.batch(vec![
        command(SPACE, put("a", "1", id)),
        command(SPACE, put("b", "1", id)),
    ]);
    assert_eq!(record::lease::next_deadline(&replica.view), Ok(Some(2000)));
    replica.clock_ms = 1999;
    assert_eq!(record::lease::due(&replica.view, replica.clock_ms, 9), Ok(vec![]));
    assert!(matches!(
        replica.done(Body::LeaseKeepAlive(LeaseId { id })),
        Done::Lease(_)
    ));
    replica.clock_ms = 2500;
    // Of a generation that was renewed since: void.
    replica.done(Body::LeaseExpire(LeaseExpire { id, generation: 1 }));
    assert_eq!(numbers(&replica).leases, 1);
    // A clock that falls back does not; an expiry before the deadline is void.
    replica.clock_ms = 0;
    replica.done(Body::LeaseExpire(LeaseExpire { id, generation: 2 }));
    assert_eq!(
        record::state::read(&replica.view)
            .expect("memory never fails")
            .clock_ms,
        2500
    );
    replica.clock_ms = 3999;
    let due = record::lease::due(&replica.view, replica.clock_ms, 9).expect("memory never fails");
    assert_eq!(
        due.iter().map(|due| (due.id, due.generation)).collect::<Vec<_>>(),
        vec![(id, 2)]
    );
    // Past its deadline nobody can bring it back, though it is still there.
    let late = replica.done(Body::LeaseKeepAlive(LeaseId { id }));
    assert_eq!(refusal_of(&late), Some(RefusalKind::LeaseNotFound));
    assert_eq!(numbers(&replica).leases, 1);
    let before = numbers(&replica).revision;
    replica.done(Body::LeaseExpire(LeaseExpire { id, generation: 2 }));
    let info = numbers(&replica);
    assert_eq!((info.leases, info.keys, info.revision), (0, 0, before + 1));
    let kinds: Vec<_> = replica.outcome.events[0]
        .events
        .iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(kinds, vec![EventKind::Delete, EventKind::Delete]);
    assert_eq!(record::lease::next_deadline(&replica.view), Ok(None));
}

#[test]
fn a_session_answers_retries_and_refuses_what_it_forgot() {
    let mut replica = Replica::default();
    let send = |replica: &mut Replica, seq: u64, body: Body| {
        replica.reply(Command {
            client_id: 9,
            seq,
            ..command(SPACE, body)
        })
    };
    let unknown = send(&mut replica, 1, put("a", "1", 0));
    assert_eq!(
        refusal_of(&unknown.done.expect("done")),
        Some(RefusalKind::SessionExpired)
    );
    send(&mut replica, 0, Body::SessionOpen(SessionOpen {}));
    let first = send(&mut replica, 1, put("a", "1", 0));
    assert_eq!(first.revision, 2);
    // A retry, whatever it carries, gets the first answer; so does one of a refusal.
    assert_eq!(send(&mut replica, 1, put("a", "2", 0)), first);
    let refused = send(&mut replica, 2, put("", "", 0));
    assert_eq!(send(&mut replica, 2, put("a", "2", 0)), refused);
    let kept = |replica: &Replica, seq| record::session::reply(&replica.view, SPACE, 9, seq);
    assert_eq!(kept(&replica, 2), Ok(Some(refused)));
    assert_eq!(kept(&replica, 3), Ok(None));
    // Out of order within the window is executed once; below it, never.
    let late = record::session::WINDOW + 5;
    assert_eq!(send(&mut replica, late, put("a", "3", 0)).revision, 3);
    assert_eq!(send(&mut replica, late - 1, put("a", "4", 0)).revision, 4);
    let lost = send(&mut replica, 1, put("a", "5", 0)).done.expect("done");
    assert_eq!(refusal_of(&lost), Some(RefusalKind::SessionExpired));
    assert_eq!(send(&mut replica, 0, put("a", "6", 0)).revision, 4);
    // It ends after silence, by command, and only then.
    replica.clock_ms = 100_000;
    send(&mut replica, late + 1, Body::Tick(Tick {}));
    replica.clock_ms = 150_000;
    replica.done(Body::SessionExpire(SessionExpire {
        silent_since_ms: 100_000,
    }));
    assert_eq!(record::session::silent(&replica.view, 100_000), Ok(vec![]));
    assert_eq!(record::session::silent(&replica.view, 100_001), Ok(vec![SPACE]));
    let expired = replica.done(Body::SessionExpire(SessionExpire {
        silent_since_ms: 100_001,
    }));
    assert_eq!(
        expired,
        Done::Step(StepDone {
            remaining: false,
            removed: 1
        })
    );
    let gone = send(&mut replica, late + 2, put("a", "7", 0)).done.expect("done");
    assert_eq!(refusal_of(&gone), Some(RefusalKind::SessionExpired));
}

#[test]
fn retention_by_count_and_by_age() {
    let mut replica = Replica::default();
    let settings = NamespaceSettings {
        retain_revisions: 50,
        retain_ms: 64_000,
        ..Default::default()
    };
    replica.done(Body::NamespaceConfigure(settings));
    for at in 0..40 {
        replica.clock_ms = at * 1000;
        replica.put("a", "v");
    }
    let wanted = |replica: &Replica, clock_ms| record::kv::auto_compact(&replica.view, clock_ms);
    assert_eq!(wanted(&replica, 40_000), Ok(vec![]));
    // Revision r was written at (r - 2) seconds; what is older than 64 s may go.
    assert_eq!(wanted(&replica, 64_000 + 10_000), Ok(vec![(SPACE, 12)]));
    for _ in 0..20 {
        replica.put("a", "v");
    }
    assert_eq!(wanted(&replica, 40_000), Ok(vec![(SPACE, 11)]));
    assert_eq!(replica.refusal(Body::Compact(Compact { revision: 11 })), None);
    assert_eq!(wanted(&replica, 40_000), Ok(vec![]));
    // The samples stay bounded, however long it goes on.
    for at in 40..500 {
        replica.clock_ms = at * 1000;
        replica.put("a", "v");
    }
    let samples = record::kv::samples(&replica.view, SPACE)
        .expect("memory never fails")
        .samples;
    assert!(samples.len() <= record::kv::SAMPLES && samples.is_sorted_by_key(|sample| sample.clock_ms));
    assert!(wanted(&replica, 500_000).expect("memory never fails")[0].1 > 400);
}

#[test]
fn spaces_do_not_see_each_other() {
    let mut replica = Replica::default();
    let other = Space::new(types::Slot(3), types::NamespaceId(1));
    replica.put("a", "here");
    let reply = replica.reply(command(other, put("a", "there", 0)));
    assert_eq!(reply.revision, 2);
    assert_eq!(replica.put("b", "here"), 3);
    assert_eq!(
        record::state::namespaces_in(&replica.view),
        Ok(vec![other, SPACE])
    );
    let (sum, records) =
        record::state::recompute_slot(&replica.view, types::Slot(3)).expect("memory never fails");
    let state = record::state::read(&replica.view).expect("memory never fails");
    assert_eq!((sum, records as usize), (state.sum(), replica.view.len() - 1));
    let later = record::state::State {
        index: state.index + 1,
        ..state
    };
    assert_ne!(state.digest(), later.digest());
}

/// Found by fuzzing: a session under the partition's slot and a namespace was counted, and then found by nobody.
#[test]
fn the_partition_has_no_namespaces() {
    let mut replica = Replica::default();
    let mut open = command(Space::PARTITION, Body::SessionOpen(SessionOpen {}));
    (open.client_id, open.namespace) = (77, 1);
    let done = replica.reply(open).done.expect("always done");
    assert_eq!(refusal_of(&done), Some(RefusalKind::Invalid));
}

#[test]
fn reads_in_a_transaction_see_what_it_did() {
    let mut replica = Replica::default();
    replica.put("a", "1");
    let get = RequestOp {
        operation: Some(Operation::Range(RangeRequest {
            key: "a".into(),
            ..Default::default()
        })),
    };
    let read_only = TxnRequest {
        success: vec![get.clone()],
        ..Default::default()
    };
    assert!(matches!(replica.ask(Ask::Txn(read_only)), Told::Txn(done) if done.responses[0].revision == 2));
    let writing = TxnRequest {
        success: vec![op(put("a", "2", 0))],
        ..Default::default()
    };
    assert!(matches!(replica.ask(Ask::Txn(writing)), Told::Refused(_)));
    let done = replica.done(txn(vec![get.clone(), op(put("a", "2", 0)), get]));
    let Done::Txn(done) = done else { panic!("{done:?}") };
    let seen: Vec<_> = done
        .responses
        .iter()
        .map(|response| match &response.done {
            Some(OperationDone::Range(range)) => (response.revision, range.kvs[0].mod_revision),
            _ => (response.revision, 0),
        })
        .collect();
    assert_eq!(seen, vec![(2, 2), (3, 0), (3, 3)]);
}

#[test]
fn a_watch_at_the_compact_revision_sees_its_deletion() {
    let mut replica = Replica::default();
    replica.put("a", "1");
    replica.done(delete("a", b""));
    replica.put("b", "1");
    replica.done(Body::Compact(Compact { revision: 3 }));
    let history = |replica: &Replica, from| {
        let all = Bytes::from_static(b"\0");
        replica.ask(Ask::History(AskHistory {
            from,
            key: all.clone(),
            range_end: all,
            limit_bytes: 0,
            prev_kv: true,
        }))
    };
    for _ in 0..2 {
        let Told::History(told) = history(&replica, 3) else {
            panic!("not compacted")
        };
        assert_eq!((told.events.len(), told.through), (1, 3));
        assert!(told.events[0].delete && told.events[0].prev_kv.is_none());
        replica.done(Body::CompactStep(CompactStep { records: 100 }));
    }
    let Told::Refused(refusal) = history(&replica, 2) else {
        panic!("compacted")
    };
    assert_eq!((refusal.kind(), refusal.detail), (RefusalKind::Compacted, 3));
}

/// Counts the records that scans meet, and the bytes of all values read.
struct Counting<'a> {
    view: &'a MemView,
    met: std::cell::Cell<usize>,
    value_bytes: std::cell::Cell<usize>,
}

impl Counting<'_> {
    fn new(view: &MemView) -> Counting<'_> {
        Counting {
            view,
            met: std::cell::Cell::default(),
            value_bytes: std::cell::Cell::default(),
        }
    }
}

impl View for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        let value = self.view.get(key)?;
        let bytes = value.as_ref().map_or(0, Bytes::len);
        self.value_bytes.set(self.value_bytes.get() + bytes);
        Ok(value)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError> {
        self.view.scan(from, to, reverse, &mut |key, value| {
            self.met.set(self.met.get() + 1);
            self.value_bytes.set(self.value_bytes.get() + value.len());
            visit(key, value)
        })
    }
}

#[test]
fn compacting_one_key_with_many_versions_costs_what_its_events_cost() {
    const VERSIONS: usize = 1500;
    let mut replica = Replica::default();
    replica.batch(
        (0..VERSIONS)
            .map(|_| command(SPACE, put("hot", "v", 0)))
            .collect(),
    );
    let revision = numbers(&replica).revision;
    replica.done(Body::Compact(Compact { revision }));
    let view = Counting::new(&replica.view);
    let step = Body::CompactStep(CompactStep {
        records: VERSIONS as u32,
    });
    let batch = Batch {
        format: BATCH_FORMAT,
        clock_ms: 0,
        wall_ms: 0,
        commands: vec![command(SPACE, step)],
    };
    let stamp = Stamp {
        term: 1,
        index: replica.index + 1,
    };
    let outcome = crate::apply(&view, stamp, &batch).expect("memory never fails");
    let Some(Done::Step(step)) = &outcome.replies[0].done else {
        panic!("{:?}", outcome.replies)
    };
    assert_eq!((step.remaining, step.removed), (false, VERSIONS as u64 - 1));
    assert!(
        view.met.get() <= 3 * VERSIONS,
        "met {} records for {VERSIONS} events",
        view.met.get()
    );
}
