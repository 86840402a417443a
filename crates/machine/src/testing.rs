//! One replica in memory for unit tests: applies bodies, asks queries, checks every invariant after each batch.

use types::{NamespaceId, Slot};

use crate::command::{BATCH_FORMAT, Batch, Body, Command, PutRequest};
use crate::outcome::{Done, Outcome, Reply, Stamp};
use crate::query::{Ask, Query, Told};
use crate::record::Space;
use crate::{MemView, invariant};

/// The key space that tests use.
pub const SPACE: Space = Space {
    slot: Slot(3),
    namespace: NamespaceId(2),
};

/// A replica.
#[derive(Default)]
pub struct Replica {
    pub view: MemView,
    pub clock_ms: u64,
    pub index: u64,
    /// What the last batch returned.
    pub outcome: Outcome,
}

impl Replica {
    pub fn batch(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        self.index += 1;
        let batch = Batch {
            format: BATCH_FORMAT,
            clock_ms: self.clock_ms,
            wall_ms: 0,
            commands,
        };
        let stamp = Stamp {
            term: 1,
            index: self.index,
        };
        self.outcome = crate::apply(&self.view, stamp, &batch).expect("memory never fails");
        self.view.commit(&self.outcome.changes);
        assert_eq!(
            invariant::check(&self.view).expect("memory never fails"),
            Vec::<String>::new()
        );
        self.outcome.replies.clone()
    }

    pub fn reply(&mut self, command: Command) -> Reply {
        self.batch(vec![command]).remove(0)
    }

    pub fn done(&mut self, body: Body) -> Done {
        self.reply(command(SPACE, body)).done.expect("always done")
    }

    /// The refusal's kind, or `None`.
    pub fn refusal(&mut self, body: Body) -> Option<crate::outcome::RefusalKind> {
        refusal_of(&self.done(body))
    }

    pub fn put(&mut self, key: &str, value: &str) -> i64 {
        let reply = self.reply(command(SPACE, put(key, value, 0)));
        assert!(matches!(reply.done, Some(Done::Put(_))), "{reply:?}");
        reply.revision
    }

    pub fn ask(&self, ask: Ask) -> Told {
        let query = Query {
            slot: u32::from(SPACE.slot.0),
            namespace: SPACE.namespace.0,
            ask: Some(ask),
            clock_ms: 0,
        };
        crate::answer(&self.view, &query)
            .expect("memory never fails")
            .told
            .expect("always told")
    }
}

/// A command without session.
pub fn command(space: Space, body: Body) -> Command {
    let (slot, namespace) = (u32::from(space.slot.0), space.namespace.0);
    Command {
        principal: "root".into(),
        slot,
        namespace,
        body: Some(body),
        ..Default::default()
    }
}

pub fn put(key: &str, value: &str, lease: i64) -> Body {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    Body::Put(PutRequest {
        key,
        value,
        lease,
        ..Default::default()
    })
}

pub fn refusal_of(done: &Done) -> Option<crate::outcome::RefusalKind> {
    match done {
        Done::Refused(refusal) => Some(refusal.kind()),
        _ => None,
    }
}
