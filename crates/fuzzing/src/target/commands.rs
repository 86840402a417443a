//! A log entry's batch, decoded and applied: it never stops a replica but where it says that it is of a newer build;
//! twice on equal states it does the same; afterwards the records agree.

use machine::command::{
    Batch, Body, CompactStep, Compare, LeaseExpire, LeaseId, Operation, RequestOp, SessionExpire, Tick,
    TxnRequest,
};
use machine::record::meta::{
    AddReplica, Begin, Change, MoveReplica, Namespace, NodeRef, NodeState, RaiseVersion, RemoveReplica,
    SetFrozen, SetNodeState, SetVoter,
};
use machine::record::state;
use machine::{ApplyError, Command, MemView, Stamp};

use super::world::{self, batch, change, command, of_partition, put};
use crate::input::{decode, seed};

/// First byte: what the state is. Then the batch.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let Some(batch) = decode::<Batch>(rest) else {
        return;
    };
    let mut view = match which % 8 {
        0 => MemView::default(),
        _ => world::view().clone(),
    };
    let stamp = Stamp {
        term: 2,
        index: world::INDEX + 1,
    };
    let outcome = machine::apply(&view, stamp, &batch);
    assert_eq!(machine::apply(&view, stamp, &batch), outcome, "the same again");
    match outcome {
        Ok(outcome) => {
            assert_eq!(outcome.replies.len(), batch.commands.len(), "a reply per command");
            assert!(outcome.replies.iter().all(|reply| reply.done.is_some()));
            view.commit(&outcome.changes);
            world::whole(&view);
            let state = state::read(&view).expect("just written");
            assert_eq!((state.term, state.index), (stamp.term, stamp.index));
        }
        Err(ApplyError::Unsupported(_)) => {
            let newer = batch.format > machine::command::BATCH_FORMAT;
            assert!(newer || batch.commands.iter().any(|command| !command.is_known()));
        }
        Err(ApplyError::View(error)) => panic!("a state in memory can be read: {error}"),
    }
}

fn of_keys() -> Vec<Command> {
    let op = |operation| RequestOp {
        operation: Some(operation),
    };
    let Body::Put(written) = put("t", "7", 0) else {
        unreachable!("a put")
    };
    let txn = TxnRequest {
        compare: vec![Compare {
            target: 3,
            key: "a".into(),
            value: "4".into(),
            ..Compare::default()
        }],
        success: vec![op(Operation::Put(written))],
        failure: vec![op(Operation::Txn(TxnRequest::default()))],
    };
    vec![
        command(put("a", "8", 9)),
        command(Body::Txn(txn)),
        command(Body::CompactStep(CompactStep { records: 1 })),
        command(Body::LeaseRevoke(LeaseId { id: 9 })),
        command(Body::LeaseKeepAlive(LeaseId { id: 9 })),
        command(Body::LeaseExpire(LeaseExpire { id: 9, generation: 1 })),
        of_partition(Body::Tick(Tick {})),
        of_partition(Body::SessionExpire(SessionExpire {
            silent_since_ms: 20_000,
        })),
        Command {
            client_id: world::CLIENT,
            seq: 2,
            ..command(put("s", "9", 0))
        },
    ]
}

fn of_cluster() -> Vec<Change> {
    let (partition, generation, node, replica, voter) = (1, 0, 3, 2, true);
    vec![
        Change::AdmitNode(world::newcomer()),
        Change::NodeStarted(machine::record::meta::Node {
            id: 2,
            boots: 2,
            incarnation: 0xb,
            ..world::newcomer()
        }),
        Change::SetNodeState(SetNodeState {
            node,
            state: NodeState::Draining as i32,
        }),
        Change::RemoveNode(NodeRef { node }),
        Change::AddReplica(AddReplica {
            partition,
            generation,
            node,
            voter,
        }),
        Change::RemoveReplica(RemoveReplica {
            partition,
            generation,
            replica,
        }),
        Change::SetVoter(SetVoter {
            partition,
            generation,
            replica,
            voter,
        }),
        Change::PutNamespace(Namespace {
            name: "n".into(),
            ..Namespace::default()
        }),
        Change::SetFrozen(SetFrozen { frozen: true }),
        Change::RaiseVersion(RaiseVersion { version: 1 }),
        Change::MoveReplica(MoveReplica {
            partition,
            generation,
            from: 1,
            to: 3,
        }),
        Change::Begin(Begin { token: 4 }),
    ]
}

/// Each command there is, alone; all of them in one entry; the entries that made the state.
pub fn seeds() -> Vec<Vec<u8>> {
    let all: Vec<Command> = of_keys()
        .into_iter()
        .chain(of_cluster().into_iter().map(change))
        .collect();
    let alone = all.iter().map(|command| seed(1, &batch(vec![command.clone()])));
    let mut seeds: Vec<Vec<u8>> = alone.collect();
    seeds.push(seed(1, &batch(all)));
    seeds.extend(world::history().iter().map(|batch| seed(0, batch)));
    seeds
}
