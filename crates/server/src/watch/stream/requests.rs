//! Requests of a stream, worked on in the order they came.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tonic::Status;
use types::limits;

use super::{Connection, Create, End, RETRY, Request};
use crate::core::ServerError;
use crate::service::error;
use crate::watch::event::Shape;
use crate::watch::index::Selector;
use crate::watch::table::{Behind, Watch};

/// etcd's `mvcc.ErrWatcherDuplicateID`.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";
/// etcd's compact revision of a key space of which nothing was compacted.
pub(super) const NEVER_COMPACTED: i64 = -1;
/// etcd's `mvcc.ErrEmptyWatcherRange`.
const EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// What etcd answers instead of an id where there is no watch.
pub(super) const NO_WATCH: i64 = -1;

impl Connection {
    pub(super) async fn take_requests(&mut self) -> Result<(), End> {
        while let Some(request) = self.waiting.front() {
            let now = match request {
                Request::Create(create) if create.start_revision == 0 => match self.resolved {
                    Some(now) if self.covered > 0 => now,
                    Some(_) | None => {
                        self.find_start();
                        return Ok(());
                    }
                },
                Request::Create(_) | Request::Cancel(_) => match self.feed.head() {
                    Some(head) => head,
                    None => return Ok(()),
                },
                Request::Progress => 0,
            };
            let Some(request) = self.waiting.pop_front() else {
                return Ok(());
            };
            self.covered = self.covered.saturating_sub(1);
            if self.covered == 0 {
                self.resolved = None;
            }
            match request {
                Request::Create(create) => self.create(create, now),
                Request::Cancel(id) => self.cancel(id, now),
                // Without a watch, etcd says nothing.
                Request::Progress => self.progress_asked |= self.table.len() > 0,
            }
            self.flush_if_full().await?;
        }
        Ok(())
    }

    /// Finds out what "now" is, for all that wait: no acknowledged write is newer.
    fn find_start(&mut self) {
        if self.start.is_some() {
            return;
        }
        self.covered = self.waiting.len();
        self.resolved = None;
        let (source, space) = (self.source.clone(), self.space.clone());
        let require_leader = self.options.require_leader;
        self.start = Some(Box::pin(async move {
            loop {
                match source.revision(&space).await {
                    Ok(revision) => return Ok(revision),
                    Err(ServerError::NoLeader { .. }) if require_leader => {
                        return Err(error::NO_LEADER.into());
                    }
                    Err(error) if passes(&error) => tokio::time::sleep(RETRY).await,
                    Err(error) => return Err(Status::from(error)),
                }
            }
        }));
    }

    fn create(&mut self, mut create: Create, now: i64) {
        if create.key.is_empty() {
            create.key = Bytes::from_static(b"\0");
        }
        let selector = Selector {
            key: create.key,
            range_end: create.range_end,
        };
        let refused = if selector.key.len().max(selector.range_end.len()) > limits::KEY_BYTES {
            Some(error::TOO_LARGE.text.to_owned())
        } else if selector.is_empty() {
            Some(EMPTY_RANGE.to_owned())
        } else if self.table.len() >= limits::WATCHES_PER_STREAM {
            Some(format!(
                "etcdserver: at most {} watches on one stream",
                limits::WATCHES_PER_STREAM
            ))
        } else {
            None
        };
        let id = match refused {
            Some(reason) => return self.refuse(reason, now),
            None => match self.table.free_id(create.watch_id) {
                Some(id) => id,
                None => return self.refuse(DUPLICATE_ID.to_owned(), now),
            },
        };
        let from_now = create.start_revision <= 0;
        let next = if from_now { now + 1 } else { create.start_revision };
        let shape = Shape {
            previous: create.previous,
            no_put: create.no_put,
            no_delete: create.no_delete,
        };
        let watch = Watch {
            id,
            selector: selector.clone(),
            shape,
            fragment: create.fragment,
            progress: create.progress,
            quiet: true,
            next,
            joined: false,
        };
        let token = self.table.insert(watch);
        self.hub.watches.fetch_add(1, Ordering::Relaxed);
        let mut frame = self.frame(id, now);
        frame.head.created = true;
        self.push(frame);
        // One that begins in the past asks history first, which knows whether it was compacted.
        let must_read = next <= now || create.start_revision < 0;
        self.behind.push_back(Behind {
            selector,
            next: if must_read { create.start_revision } else { next },
            tokens: vec![token],
            must_read,
            stalled: false,
        });
    }

    fn refuse(&mut self, reason: String, now: i64) {
        let mut frame = self.frame(NO_WATCH, now);
        frame.head.created = true;
        frame.head.canceled = true;
        frame.head.cancel_reason = reason;
        self.push(frame);
    }

    fn cancel(&mut self, id: i64, now: i64) {
        let Some((token, watch)) = self.table.remove_id(id) else {
            return;
        };
        self.hub.watches.fetch_sub(1, Ordering::Relaxed);
        if watch.joined {
            self.feed.leave(self.stream, &watch.selector, token);
        }
        let mut frame = self.frame(id, now);
        frame.head.canceled = true;
        self.push(frame);
    }
}

/// Whether the question may be asked again: it is a read, so nothing can be done twice.
pub(super) fn passes(error: &ServerError) -> bool {
    match error {
        ServerError::NoLeader { .. }
        | ServerError::Busy { .. }
        | ServerError::Timeout { .. }
        | ServerError::Unavailable { .. } => true,
        ServerError::UnknownNamespace { .. }
        | ServerError::UnknownPartition { .. }
        | ServerError::TooLarge { .. }
        | ServerError::NoSpace { .. }
        | ServerError::Corrupt { .. }
        | ServerError::Refused(_)
        | ServerError::Invalid { .. }
        | ServerError::Internal { .. } => false,
    }
}
