//! All feeds of a node. Key spaces that nobody watches cost a look-up per applied batch, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use machine::Outcome;
use parking_lot::RwLock;
use tokio::task::JoinHandle;
use types::{NamespaceId, PartitionId};

use super::driver;
use super::event::Revision;
use super::feed::{Feed, Origin};
use super::source::Source;
use crate::core::KeySpace;

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubStats {
    /// Open watch streams.
    pub streams: usize,
    /// Watches on them.
    pub watches: usize,
    /// Watched key spaces.
    pub feeds: usize,
}

/// Events of applied revisions, for whoever watches.
#[derive(Default)]
pub struct Hub {
    partitions: RwLock<HashMap<PartitionId, HashMap<u32, Entry>>>,
    pub(super) streams: AtomicUsize,
    pub(super) watches: AtomicUsize,
}

struct Entry {
    feed: Arc<Feed>,
    users: usize,
    tasks: [JoinHandle<()>; 2],
}

/// Keeps a feed going; the last one to be dropped ends it.
pub struct FeedUser {
    hub: Arc<Hub>,
    partition: PartitionId,
    namespace: NamespaceId,
    /// The feed.
    pub feed: Arc<Feed>,
}

impl Hub {
    /// An empty hub.
    pub fn new() -> Arc<Hub> {
        Arc::default()
    }

    /// Called after each batch a local replica applied, in order. Never blocks.
    pub fn applied(&self, partition: PartitionId, _index: u64, outcome: &Arc<Outcome>) {
        if outcome.events.is_empty() {
            return;
        }
        let partitions = self.partitions.read();
        let Some(feeds) = partitions.get(&partition) else {
            return;
        };
        for events in &outcome.events {
            let Some(entry) = feeds.get(&events.namespace) else {
                continue;
            };
            match events.cut {
                // Watches read this revision from history, where the previous pairs are.
                true => entry.feed.restart_local(),
                false => entry.feed.push(Origin::Local, Revision::new(events)),
            }
        }
    }

    /// The local replica's state was replaced by a snapshot: watchers read history from where they are.
    pub fn installed(&self, partition: PartitionId) {
        let partitions = self.partitions.read();
        for entry in partitions
            .get(&partition)
            .into_iter()
            .flat_map(|feeds| feeds.values())
        {
            entry.feed.restart_local();
        }
    }

    /// Numbers for metrics.
    pub fn stats(&self) -> HubStats {
        HubStats {
            streams: self.streams.load(Ordering::Relaxed),
            watches: self.watches.load(Ordering::Relaxed),
            feeds: self.partitions.read().values().map(HashMap::len).sum(),
        }
    }

    /// The feed of a key space, started if it is not there. Needs a Tokio runtime.
    pub fn feed(self: &Arc<Hub>, space: &KeySpace, source: &Arc<dyn Source>) -> FeedUser {
        let mut partitions = self.partitions.write();
        let feeds = partitions.entry(space.partition).or_default();
        let entry = feeds.entry(space.id.0).or_insert_with(|| {
            let feed = Arc::new(Feed::default());
            let dispatching = feed.clone();
            let dispatch = tokio::spawn(async move { dispatching.run_dispatch().await });
            let drive = tokio::spawn(driver::run(feed.clone(), source.clone(), space.clone()));
            Entry {
                feed,
                users: 0,
                tasks: [dispatch, drive],
            }
        });
        entry.users += 1;
        FeedUser {
            hub: self.clone(),
            partition: space.partition,
            namespace: space.id,
            feed: entry.feed.clone(),
        }
    }
}

impl Drop for FeedUser {
    fn drop(&mut self) {
        let mut partitions = self.hub.partitions.write();
        let Some(feeds) = partitions.get_mut(&self.partition) else {
            return;
        };
        let Some(entry) = feeds.get_mut(&self.namespace.0) else {
            return;
        };
        entry.users -= 1;
        if entry.users > 0 {
            return;
        }
        entry.tasks.iter().for_each(JoinHandle::abort);
        feeds.remove(&self.namespace.0);
        if feeds.is_empty() {
            partitions.remove(&self.partition);
        }
    }
}
