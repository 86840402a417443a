//! A state with something of everything in it: what inputs are applied to and asked of. Made once, copied for each.

use std::sync::OnceLock;

use bytes::Bytes;
use machine::command::{
    BATCH_FORMAT, Batch, Body, Command, Compact, DeleteRangeRequest, LeaseGrant, NamespaceSettings,
    PutRequest, SessionOpen,
};
use machine::record::Space;
use machine::record::meta::{AddReplica, Bootstrap, Change, MetaCommand, Node};
use machine::{MemView, Outcome, Stamp};
use types::{NamespaceId, Slot};

/// The key space that is used.
pub const SPACE: Space = Space {
    slot: Slot(3),
    namespace: NamespaceId(1),
};
/// The session that is open.
pub const CLIENT: u64 = 77;
/// Log index of the state.
pub const INDEX: u64 = 5;

/// A command on the key space, without session.
pub fn command(body: Body) -> Command {
    Command {
        principal: "root".into(),
        slot: u32::from(SPACE.slot.0),
        namespace: SPACE.namespace.0,
        body: Some(body),
        ..Command::default()
    }
}

/// A command on the partition's own records.
pub fn of_partition(body: Body) -> Command {
    Command {
        slot: u32::from(Space::PARTITION.slot.0),
        namespace: 0,
        ..command(body)
    }
}

/// A change of the cluster's records.
pub fn change(change: Change) -> Command {
    of_partition(Body::Meta(MetaCommand { change: Some(change) }))
}

/// One log entry.
pub fn batch(commands: Vec<Command>) -> Batch {
    Batch {
        format: BATCH_FORMAT,
        clock_ms: 10_000,
        wall_ms: 1,
        commands,
    }
}

/// A pair to write.
pub fn put(key: &'static str, value: &'static str, lease: i64) -> Body {
    Body::Put(PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        lease,
        ..PutRequest::default()
    })
}

fn node(name: &str, incarnation: u64) -> Node {
    Node {
        incarnation,
        peer_address: format!("{name}:2380"),
        client_address: format!("{name}:2379"),
        http_address: format!("{name}:2381"),
        version: 1,
        boots: 1,
        name: name.to_owned(),
        ..Node::default()
    }
}

/// A node that asks for admission.
pub fn newcomer() -> Node {
    node("d", 0xd)
}

/// The log entries that made it.
pub fn history() -> Vec<Batch> {
    let add = |node| AddReplica {
        partition: 1,
        generation: 0,
        node,
        voter: true,
    };
    vec![
        batch(vec![
            change(Change::Bootstrap(Bootstrap {
                cluster_id: 0xc1,
                partitions: 2,
                node: Some(node("a", 0xa)),
                version: 1,
            })),
            change(Change::AdmitNode(node("b", 0xb))),
            change(Change::AdmitNode(node("c", 0xc))),
            change(Change::AddReplica(add(2))),
        ]),
        batch(vec![
            command(Body::NamespaceConfigure(NamespaceSettings {
                quota_bytes: 4096,
                retain_revisions: 100,
                retain_ms: 60_000,
                generation: 1,
            })),
            command(Body::LeaseGrant(LeaseGrant { id: 9, ttl_s: 10 })),
            command(put("a", "1", 0)),
            command(put("b", "2", 9)),
            command(put("b/c", "3", 9)),
        ]),
        batch(vec![
            command(put("a", "4", 0)),
            command(Body::DeleteRange(DeleteRangeRequest {
                key: Bytes::from_static(b"b/c"),
                ..DeleteRangeRequest::default()
            })),
            command(put("\0z", "5", 0)),
        ]),
        batch(vec![
            command(Body::Compact(Compact { revision: 3 })),
            Command {
                client_id: CLIENT,
                ..of_partition(Body::SessionOpen(SessionOpen {}))
            },
        ]),
        batch(vec![Command {
            client_id: CLIENT,
            seq: 1,
            ..command(put("s", "6", 0))
        }]),
    ]
}

/// Applies one log entry.
pub fn apply(view: &mut MemView, index: u64, batch: &Batch) -> Result<Outcome, machine::ApplyError> {
    let outcome = machine::apply(view, Stamp { term: 2, index }, batch)?;
    view.commit(&outcome.changes);
    Ok(outcome)
}

/// The state.
pub fn view() -> &'static MemView {
    static VIEW: OnceLock<MemView> = OnceLock::new();
    VIEW.get_or_init(|| {
        let mut view = MemView::default();
        for (index, batch) in (1..).zip(history()) {
            let outcome = apply(&mut view, index, &batch).expect("known commands on a state in memory");
            assert_eq!(outcome.replies.len(), batch.commands.len());
        }
        whole(&view);
        view
    })
}

/// Asserts that the records agree with each other.
pub fn whole(view: &MemView) {
    let faults = machine::invariant::check(view).expect("written by this build");
    assert!(faults.is_empty(), "{faults:#?}");
}
