//! What a feed knows and who is in it; always under the feed's lock.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Origin, StreamId};
use crate::watch::event::{Batch, Revision};
use crate::watch::inbox::{Delivery, Inbox};
use crate::watch::index::{GroupId, Index, Selector};
use crate::watch::ring::Ring;

#[derive(Debug, Default)]
pub struct State {
    pub origin: Origin,
    /// Newest revision known; `None` until the origin has said where it stands. What comes before that waits in the
    /// ring: it may be old, applied again after a restart.
    pub head: Option<i64>,
    /// Raised by each restart.
    pub epoch: u64,
    /// Everything up to this is in the inboxes.
    pub dispatched: i64,
    pub ring: Ring,
    pub index: Index,
    pub groups: HashMap<GroupId, Group>,
    pub by_selector: HashMap<Selector, GroupId>,
    pub next_group: GroupId,
    pub streams: HashMap<StreamId, Member>,
    pub next_stream: StreamId,
}

#[derive(Debug)]
pub struct Member {
    pub inbox: Arc<Inbox>,
    pub groups: HashSet<GroupId>,
}

#[derive(Debug)]
pub struct Group {
    pub selector: Selector,
    pub members: HashMap<StreamId, Arc<Vec<u64>>>,
}

impl State {
    pub fn lose(&self) {
        for member in self.streams.values() {
            member.inbox.lose(self.dispatched + 1);
        }
    }

    /// Takes in what was pushed.
    pub fn absorb(&mut self, origin: Origin, revision: Revision) {
        let number = revision.revision;
        let newest = self.head.or_else(|| self.ring.last());
        if self.origin != origin || newest.is_some_and(|newest| number <= newest) {
            return;
        }
        if newest.is_some_and(|newest| newest + 1 != number) {
            self.ring.clear();
            if self.head.is_some() {
                self.lose();
                self.dispatched = number - 1;
            }
        }
        if self.head.is_some() {
            self.head = Some(number);
        }
        self.ring.push(Arc::new(revision));
    }

    /// The origin has everything up to `revision`; the ring may have what came meanwhile.
    pub fn begin(&mut self, revision: i64) {
        if self.ring.last() < Some(revision) {
            // What lies between was applied before it was pushed, and is not looked at any more.
            self.ring.clear();
        }
        self.dispatched = revision;
        self.head = self.ring.last().max(Some(revision));
        for member in self.streams.values() {
            member.inbox.nudge();
        }
    }

    pub fn restart(&mut self) {
        if self.head.is_some() {
            self.dispatch();
            self.lose();
        }
        self.head = None;
        self.epoch += 1;
        self.ring.clear();
    }

    pub fn enter(&mut self, stream: StreamId, selector: &Selector, tokens: &[u64]) {
        let id = match self.by_selector.get(selector) {
            Some(id) => *id,
            None => {
                self.next_group += 1;
                let id = self.next_group;
                self.index.insert(selector, id);
                self.by_selector.insert(selector.clone(), id);
                self.groups.insert(
                    id,
                    Group {
                        selector: selector.clone(),
                        members: HashMap::new(),
                    },
                );
                id
            }
        };
        if let Some(member) = self.streams.get_mut(&stream) {
            member.groups.insert(id);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            Arc::make_mut(group.members.entry(stream).or_default()).extend_from_slice(tokens);
        }
    }

    pub fn leave(&mut self, stream: StreamId, selector: &Selector, token: u64) {
        let Some(id) = self.by_selector.get(selector).copied() else {
            return;
        };
        let Some(tokens) = self
            .groups
            .get_mut(&id)
            .and_then(|group| group.members.get_mut(&stream))
        else {
            return;
        };
        let tokens = Arc::make_mut(tokens);
        tokens.retain(|t| *t != token);
        if tokens.is_empty() {
            if let Some(member) = self.streams.get_mut(&stream) {
                member.groups.remove(&id);
            }
            self.leave_group(stream, id);
        }
    }

    pub fn leave_all(&mut self, stream: StreamId) {
        let Some(member) = self.streams.get_mut(&stream) else {
            return;
        };
        for id in std::mem::take(&mut member.groups) {
            self.leave_group(stream, id);
        }
    }

    fn leave_group(&mut self, stream: StreamId, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.members.remove(&stream);
        if group.members.is_empty() {
            self.drop_group(id);
        }
    }

    fn drop_group(&mut self, id: GroupId) {
        if let Some(group) = self.groups.remove(&id) {
            self.index.remove(&group.selector);
            self.by_selector.remove(&group.selector);
        }
    }

    pub fn dispatch(&mut self) -> usize {
        let Some(head) = self.head else { return 0 };
        if self.dispatched >= head {
            return 0;
        }
        let from = self.dispatched + 1;
        if self.ring.first().is_none_or(|first| first > from) {
            // Pushed out of memory before it was handed over.
            self.lose();
            self.dispatched = head;
            return 0;
        }
        let mut batches: HashMap<GroupId, Batch> = HashMap::new();
        for revision in self.ring.since(from) {
            for (n, event) in revision.events.iter().enumerate() {
                self.index
                    .visit(event.key(), |id| batches.entry(id).or_default().pick(revision, n));
            }
        }
        self.dispatched = head;
        let mut given = 0;
        for (id, batch) in batches {
            let Some(group) = self.groups.get(&id) else {
                continue;
            };
            let batch = Arc::new(batch);
            for (stream, tokens) in &group.members {
                if let Some(member) = self.streams.get(stream) {
                    given += tokens.len();
                    member.inbox.push(
                        Delivery {
                            batch: batch.clone(),
                            tokens: tokens.clone(),
                        },
                        from,
                    );
                }
            }
        }
        given
    }
}
