//! The watches of one stream: who they are and what each has been given.

use std::collections::{HashMap, VecDeque};

use super::event::Shape;
use super::index::Selector;

/// One watch.
#[derive(Debug, Clone)]
pub struct Watch {
    /// As the client knows it.
    pub id: i64,
    /// What it watches.
    pub selector: Selector,
    /// What it wants of each event.
    pub shape: Shape,
    /// Large responses may be cut.
    pub fragment: bool,
    /// Wants to hear of progress now and then.
    pub progress: bool,
    /// Was sent nothing since the last time progress was due.
    pub quiet: bool,
    /// Everything below was sent (or is older than wanted).
    pub next: i64,
    /// In a group of the feed: events come to the inbox.
    pub joined: bool,
}

/// Watches that stand at one revision of one selector and have to read history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// What they watch.
    pub selector: Selector,
    /// First revision they want.
    pub next: i64,
    /// Who they are.
    pub tokens: Vec<u64>,
    /// History must be looked at even if memory has it: it knows what was compacted.
    pub must_read: bool,
    /// The last look brought nothing new.
    pub stalled: bool,
}

/// All watches of a stream. A token is never used again, an id may be.
#[derive(Debug, Default)]
pub struct Table {
    watches: HashMap<u64, Watch>,
    ids: HashMap<i64, u64>,
    next_token: u64,
    next_id: i64,
}

impl Table {
    /// How many.
    pub fn len(&self) -> usize {
        self.watches.len()
    }

    /// An id for a watch that asks for `wanted` (0: any); `None` if it is taken.
    pub fn free_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.ids.contains_key(&wanted)).then_some(wanted);
        }
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    /// Adds a watch; returns its token.
    pub fn insert(&mut self, watch: Watch) -> u64 {
        self.next_token += 1;
        self.ids.insert(watch.id, self.next_token);
        self.watches.insert(self.next_token, watch);
        self.next_token
    }

    /// Removes by id.
    pub fn remove_id(&mut self, id: i64) -> Option<(u64, Watch)> {
        let token = self.ids.remove(&id)?;
        self.watches.remove(&token).map(|watch| (token, watch))
    }

    /// Removes by token.
    pub fn remove(&mut self, token: u64) -> Option<Watch> {
        let watch = self.watches.remove(&token)?;
        self.ids.remove(&watch.id);
        Some(watch)
    }

    /// A watch.
    pub fn get_mut(&mut self, token: u64) -> Option<&mut Watch> {
        self.watches.get_mut(&token)
    }

    /// Drops tokens of watches that are gone.
    pub fn retain_known(&self, tokens: &mut Vec<u64>) {
        tokens.retain(|token| self.watches.contains_key(token));
    }

    /// Whether any of these wants previous pairs.
    pub fn want_previous(&self, tokens: &[u64]) -> bool {
        tokens
            .iter()
            .any(|token| self.watches.get(token).is_some_and(|watch| watch.shape.previous))
    }

    /// All joined watches are out of their groups, and were given everything below `lost_from`: where they stand
    /// now, together where they stand together.
    pub fn scatter(&mut self, lost_from: i64) -> VecDeque<Behind> {
        let mut by_place: HashMap<(Selector, i64), Vec<u64>> = HashMap::new();
        for (token, watch) in &mut self.watches {
            if watch.joined {
                watch.joined = false;
                watch.next = watch.next.max(lost_from);
                by_place
                    .entry((watch.selector.clone(), watch.next))
                    .or_default()
                    .push(*token);
            }
        }
        let behind = |((selector, next), tokens)| Behind {
            selector,
            next,
            tokens,
            must_read: false,
            stalled: false,
        };
        by_place.into_iter().map(behind).collect()
    }

    /// Whether all have joined and were given everything up to `revision`; tells them so if they have.
    pub fn all_at(&mut self, revision: i64) -> bool {
        let all = self
            .watches
            .values()
            .all(|watch| watch.joined && watch.next <= revision + 1);
        if all {
            self.watches
                .values_mut()
                .for_each(|watch| watch.next = revision + 1);
        }
        all
    }

    /// Watches that want to hear of progress and were sent nothing since the last call.
    pub fn due_for_progress(&mut self) -> Vec<u64> {
        let mut due = Vec::new();
        for (token, watch) in &mut self.watches {
            if watch.progress && watch.quiet {
                due.push(*token);
            }
            watch.quiet = true;
        }
        due
    }

    /// Whether any watch wants to hear of progress.
    pub fn any_progress(&self) -> bool {
        self.watches.values().any(|watch| watch.progress)
    }
}
