//! The machine against a simple model: random commands and reads, compaction in steps, sessions that retry, and at
//! random points a copy of the records, from which a replay of the log must arrive at the same bytes.

#[path = "model/reference.rs"]
mod reference;

use bytes::Bytes;
use machine::command::*;
use machine::outcome::*;
use machine::query::*;
use machine::record::{self, Space};
use machine::{MemView, invariant};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use reference::Model;
use types::{NamespaceId, Slot};

const SPACE: Space = Space {
    slot: Slot(77),
    namespace: NamespaceId(5),
};

/// What happens next.
#[derive(Clone, Debug)]
enum Transition {
    /// One log entry; the clock moves on by so much.
    Batch {
        later_ms: u64,
        commands: Vec<Command>,
    },
    /// One step of removing compacted records.
    CompactStep(u32),
    Range(RangeRequest),
    /// The same at the compact revision.
    RangeAtCompact(RangeRequest),
    /// History from so many revisions back, or from the compact revision if there are not so many.
    History {
        back: i64,
        key: Bytes,
        end: Bytes,
    },
    Lease(i64),
    /// What the leader's housekeeping does: expire what is due.
    ExpireDue,
    /// Keep a copy to replay from.
    Copy,
    /// Replay from the copy.
    Replay,
}

#[derive(Clone, Debug)]
struct Reference {
    model: Model,
    /// Answers to the last batch.
    replies: Vec<Reply>,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![Just("a"), Just("b"), Just("a\0"), Just("ab"), Just("c")].prop_map(Bytes::from)
}

fn end() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => Just(""), 1 => Just("\0"), 1 => Just("b"), 1 => Just("ac"), 1 => Just("d")]
        .prop_map(Bytes::from)
}

fn rare() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.12)
}

fn put() -> impl Strategy<Value = PutRequest> {
    let lease = prop_oneof![6 => Just(0i64), 2 => 1i64..4, 1 => Just(9i64)];
    (key(), "[xy]{0,2}", lease, any::<bool>(), rare(), rare()).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value: value.into(),
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range() -> impl Strategy<Value = RangeRequest> {
    let revision = prop_oneof![2 => Just(0i64), 2 => 1i64..40];
    let bound = || prop_oneof![5 => Just(0i64), 1 => 1i64..30];
    (
        key(),
        end(),
        0i64..4,
        revision,
        0i32..3,
        0i32..5,
        rare(),
        rare(),
        (bound(), bound(), bound(), bound()),
    )
        .prop_map(
            |(key, range_end, limit, revision, sort_order, sort_target, keys_only, count_only, bounds)| {
                RangeRequest {
                    key,
                    range_end,
                    limit,
                    revision,
                    sort_order,
                    sort_target,
                    keys_only,
                    count_only,
                    min_mod_revision: bounds.0,
                    max_mod_revision: bounds.1,
                    min_create_revision: bounds.2,
                    max_create_revision: bounds.3,
                    ..Default::default()
                }
            },
        )
}

fn compare() -> impl Strategy<Value = Compare> {
    (0i32..4, 0i32..5, key(), end(), 0i64..6, "[xy]{0,1}").prop_map(
        |(result, target, key, range_end, number, value)| Compare {
            result,
            target,
            key,
            range_end,
            number,
            value: value.into(),
        },
    )
}

fn operation(depth: u32) -> BoxedStrategy<RequestOp> {
    let plain = prop_oneof![
        4 => put().prop_map(Operation::Put),
        2 => delete().prop_map(Operation::DeleteRange),
        2 => range().prop_map(Operation::Range),
    ];
    let operation = match depth {
        0 => plain.boxed(),
        _ => prop_oneof![4 => plain, 1 => txn(depth - 1).prop_map(Operation::Txn)].boxed(),
    };
    operation
        .prop_map(|operation| RequestOp {
            operation: Some(operation),
        })
        .boxed()
}

fn txn(depth: u32) -> BoxedStrategy<TxnRequest> {
    let branch = || prop::collection::vec(operation(depth), 0..4);
    (prop::collection::vec(compare(), 0..3), branch(), branch())
        .prop_map(|(compare, success, failure)| TxnRequest {
            compare,
            success,
            failure,
        })
        .boxed()
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        10 => put().prop_map(Body::Put),
        4 => delete().prop_map(Body::DeleteRange),
        6 => txn(2).prop_map(Body::Txn),
        2 => (0i64..40).prop_map(|revision| Body::Compact(Compact { revision })),
        3 => (1i64..4, 0i64..9).prop_map(|(id, ttl_s)| Body::LeaseGrant(LeaseGrant { id, ttl_s })),
        1 => (1i64..4).prop_map(|id| Body::LeaseRevoke(LeaseId { id })),
        2 => (1i64..4).prop_map(|id| Body::LeaseKeepAlive(LeaseId { id })),
        1 => (1i64..4, 1u64..4).prop_map(|(id, generation)| Body::LeaseExpire(LeaseExpire { id, generation })),
        1 => Just(Body::Tick(Tick {})),
        3 => Just(Body::SessionOpen(SessionOpen {})),
        1 => (0u64..200_000).prop_map(|silent_since_ms| Body::SessionExpire(SessionExpire { silent_since_ms })),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let seq = prop_oneof![5 => 1u64..5, 1 => 1u64..80];
    (body(), prop::bool::weighted(0.3), 1u64..3, seq).prop_map(|(body, session, client, seq)| {
        let about = matches!(body, Body::SessionOpen(_));
        let client_id = if session || about { client } else { 0 };
        Command {
            principal: "root".into(),
            client_id,
            seq: if client_id == 0 { 0 } else { seq },
            slot: u32::from(SPACE.slot.0),
            namespace: SPACE.namespace.0,
            body: Some(body),
            ..Default::default()
        }
    })
}

impl ReferenceStateMachine for Reference {
    type State = Reference;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Reference> {
        Just(Reference {
            model: Model::new(),
            replies: Vec::new(),
        })
        .boxed()
    }

    fn transitions(_: &Reference) -> BoxedStrategy<Transition> {
        let later = prop_oneof![3 => 0u64..50, 1 => 0u64..5000, 1 => 0u64..100_000];
        prop_oneof![
            12 => (later, prop::collection::vec(command(), 1..5))
                .prop_map(|(later_ms, commands)| Transition::Batch { later_ms, commands }),
            2 => (1u32..6).prop_map(Transition::CompactStep),
            4 => range().prop_map(Transition::Range),
            1 => range().prop_map(Transition::RangeAtCompact),
            2 => (key(), end()).prop_map(|(key, end)| Transition::History { back: i64::MAX, key, end }),
            2 => (0i64..30, key(), end()).prop_map(|(back, key, end)| Transition::History { back, key, end }),
            1 => (1i64..5).prop_map(Transition::Lease),
            1 => Just(Transition::ExpireDue),
            1 => Just(Transition::Copy),
            1 => Just(Transition::Replay),
        ]
        .boxed()
    }

    fn apply(mut state: Reference, transition: &Transition) -> Reference {
        let model = &mut state.model;
        match transition {
            Transition::Batch { later_ms, commands } => {
                model.clock_ms += later_ms;
                state.replies = commands.iter().map(|command| model.command(command)).collect();
            }
            Transition::ExpireDue => {
                let due: Vec<_> = model
                    .leases
                    .iter()
                    .filter(|(_, lease)| lease.deadline_ms <= model.clock_ms)
                    .collect();
                let mut due: Vec<_> = due
                    .iter()
                    .map(|(id, lease)| (lease.deadline_ms, **id, lease.generation))
                    .collect();
                due.sort_unstable();
                for (_, id, generation) in due {
                    let body = Some(Body::LeaseExpire(LeaseExpire { id, generation }));
                    model.command(&Command {
                        body,
                        ..Default::default()
                    });
                }
            }
            Transition::CompactStep(_)
            | Transition::Range(_)
            | Transition::RangeAtCompact(_)
            | Transition::History { .. }
            | Transition::Lease(_)
            | Transition::Copy
            | Transition::Replay => {}
        }
        state
    }
}

/// A replica: its records, its log, and a copy of earlier records.
#[derive(Default)]
struct Replica {
    view: MemView,
    log: Vec<Batch>,
    copy: MemView,
    copied: usize,
    clock_ms: u64,
    events: Vec<Events>,
}

fn stamp(position: usize) -> Stamp {
    Stamp {
        term: 1,
        index: position as u64 + 1,
    }
}

impl Replica {
    fn propose(&mut self, commands: Vec<Command>) -> Outcome {
        let batch = Batch {
            format: BATCH_FORMAT,
            clock_ms: self.clock_ms,
            wall_ms: 1,
            commands,
        };
        let outcome = machine::apply(&self.view, stamp(self.log.len()), &batch).expect("memory never fails");
        self.view.commit(&outcome.changes);
        self.log.push(batch);
        self.events.extend(outcome.events.clone());
        outcome
    }

    fn one(&mut self, body: Body) -> Reply {
        let command = Command {
            slot: u32::from(SPACE.slot.0),
            namespace: SPACE.namespace.0,
            body: Some(body),
            ..Default::default()
        };
        self.propose(vec![command]).replies.remove(0)
    }

    fn ask(&self, ask: Ask) -> Told {
        let query = Query {
            slot: u32::from(SPACE.slot.0),
            namespace: SPACE.namespace.0,
            ask: Some(ask),
            ..Query::default()
        };
        machine::answer(&self.view, &query)
            .expect("memory never fails")
            .told
            .expect("always told")
    }

    fn check_range(&self, model: &Model, request: RangeRequest) {
        let told = self.ask(Ask::Range(request.clone()));
        match model.range(&request) {
            Ok(expected) => assert_eq!(told, Told::Range(expected)),
            Err(kind) => assert!(refused_as(&told, kind), "{told:?} instead of {kind:?}"),
        }
    }

    fn hash_kv(&self) -> HashKv {
        match self.ask(Ask::HashKv(AskRevision { revision: 0 })) {
            Told::HashKv(hash) => hash,
            other => panic!("asked for a hash, told {other:?}"),
        }
    }
}

/// Texts and numbers of refusals are checked elsewhere.
fn blank(mut reply: Reply) -> Reply {
    if let Some(Done::Refused(refusal)) = &mut reply.done {
        *refusal = Refusal {
            kind: refusal.kind,
            ..Default::default()
        };
    }
    reply
}

fn refused_as(told: &Told, kind: RefusalKind) -> bool {
    matches!(told, Told::Refused(refusal) if refusal.kind() == kind)
}

impl StateMachineTest for Replica {
    type SystemUnderTest = Replica;
    type Reference = Reference;

    fn init_test(_: &Reference) -> Replica {
        Replica::default()
    }

    fn apply(mut replica: Replica, reference: &Reference, transition: Transition) -> Replica {
        let model = &reference.model;
        match transition {
            Transition::Batch { later_ms, commands } => {
                replica.clock_ms += later_ms;
                let replies: Vec<_> = replica.propose(commands).replies.into_iter().map(blank).collect();
                assert_eq!(
                    replies,
                    reference.replies.iter().cloned().map(blank).collect::<Vec<_>>()
                );
            }
            Transition::CompactStep(records) => {
                let before = replica.hash_kv();
                replica.one(Body::CompactStep(CompactStep { records }));
                assert_eq!(
                    replica.hash_kv(),
                    before,
                    "what compaction keeps depends on its progress"
                );
            }
            Transition::Range(request) => replica.check_range(model, request),
            Transition::RangeAtCompact(request) => {
                replica.check_range(
                    model,
                    RangeRequest {
                        revision: model.compact,
                        ..request
                    },
                );
            }
            Transition::History { back, key, end } => {
                let from = if back < model.revision {
                    model.revision - back
                } else {
                    model.compact.max(1)
                };
                let ask = AskHistory {
                    from,
                    key: key.clone(),
                    range_end: end.clone(),
                    limit_bytes: 30,
                    prev_kv: true,
                };
                let told = replica.ask(Ask::History(ask.clone()));
                match model.history(from, &key, &end) {
                    Ok(expected) => assert_eq!(read_on(&replica, told, ask, model.revision), expected),
                    Err(kind) => assert!(refused_as(&told, kind), "{told:?} instead of {kind:?}"),
                }
            }
            Transition::Lease(id) => {
                assert_eq!(
                    replica.ask(Ask::Lease(AskLease { id, keys: true })),
                    Told::Lease(model.lease(id))
                );
            }
            Transition::ExpireDue => {
                let due =
                    record::lease::due(&replica.view, replica.clock_ms, 100).expect("memory never fails");
                for due in due {
                    replica.one(Body::LeaseExpire(LeaseExpire {
                        id: due.id,
                        generation: due.generation,
                    }));
                }
            }
            Transition::Copy => {
                replica.copy = replica.view.clone();
                replica.copied = replica.log.len();
            }
            Transition::Replay => {
                let mut again = replica.copy.clone();
                for (position, batch) in replica.log.iter().enumerate().skip(replica.copied) {
                    let outcome = machine::apply(&again, stamp(position), batch).expect("memory never fails");
                    again.commit(&outcome.changes);
                }
                assert_eq!(again, replica.view);
            }
        }
        replica
    }

    fn check_invariants(replica: &Replica, reference: &Reference) {
        let model = &reference.model;
        assert_eq!(
            invariant::check(&replica.view).expect("memory never fails"),
            Vec::<String>::new()
        );
        let events: Vec<_> = replica
            .events
            .iter()
            .map(|events| (events.revision, events.events.clone()))
            .collect();
        let expected: Vec<_> = model
            .events
            .iter()
            .map(|(revision, events)| (*revision, events.clone()))
            .collect();
        assert_eq!(events, expected);
        assert_eq!(
            record::state::read(&replica.view)
                .expect("memory never fails")
                .sessions,
            model.sessions.len() as u64
        );
    }
}

/// Reads history on until it has seen `last`.
fn read_on(replica: &Replica, told: Told, mut ask: AskHistory, last: i64) -> Vec<HistoryEvent> {
    let (mut told, mut all) = (told, Vec::new());
    loop {
        let Told::History(history) = told else {
            panic!("asked for history, told {told:?}")
        };
        all.extend(history.events);
        if history.through >= last {
            return all;
        }
        assert!(
            history.through >= ask.from,
            "history makes no progress at {}",
            ask.from
        );
        ask.from = history.through + 1;
        told = replica.ask(Ask::History(ask.clone()));
    }
}

prop_state_machine! {
    // 1024, unless PROPTEST_CASES asks for fewer or more than its 256.
    #![proptest_config(ProptestConfig { cases: 4 * ProptestConfig::default().cases, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_machine_agrees_with_the_model(sequential 1..60 => Replica);
}
