//! What a stream sends: events from memory and from history, progress, ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use etcd_client::proto::{PbResponseHeader, PbWatchResponse};
use machine::EventKind;
use machine::command::KeyValue;
use machine::outcome::RefusalKind;
use machine::query::{AskHistory, HistoryEvent};
use tonic::Status;
use types::limits;
use types::planted::{self, Planted};

use super::requests::{NEVER_COMPACTED, NO_WATCH, passes};
use super::{Connection, End, RETRY};
use crate::core::ServerError;
use crate::watch::event::{Batch, Coded, Part, Revision};
use crate::watch::feed::Joined;
use crate::watch::frame::Frame;
use crate::watch::source::Past;
use crate::watch::table::Behind;

/// Responses in one chunk, and their bytes, at most (one response may exceed the latter).
const CHUNK_FRAMES: usize = 128;
const CHUNK_BYTES: usize = 64 * 1024;

impl Connection {
    pub(super) fn frame(&self, id: i64, revision: i64) -> Frame {
        let (cluster_id, member_id) = self.source.identity();
        let raft_term = self.source.term(self.space.partition);
        let header = PbResponseHeader {
            cluster_id,
            member_id,
            revision,
            raft_term,
        };
        let head = PbWatchResponse {
            header: Some(header),
            watch_id: id,
            ..PbWatchResponse::default()
        };
        Frame {
            head,
            events: Bytes::new(),
        }
    }

    pub(super) fn push(&mut self, frame: Frame) {
        self.chunk_bytes += frame.events.len();
        self.chunk.push(frame);
    }

    pub(super) async fn flush_if_full(&mut self) -> Result<(), End> {
        if self.chunk.len() >= CHUNK_FRAMES || self.chunk_bytes >= CHUNK_BYTES {
            return self.flush().await;
        }
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), End> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.chunk_bytes = 0;
        let chunk = std::mem::take(&mut self.chunk);
        self.out.send(Ok(chunk)).await.map_err(|_| End::Gone)
    }

    /// Sends each watch what it has not been sent of a batch. `newest` is the revision to put into the header of
    /// the last part, if it is not that part's own.
    pub(super) async fn send_batch(
        &mut self,
        tokens: &[u64],
        batch: &Batch,
        newest: Option<i64>,
    ) -> Result<(), End> {
        let template = self.frame(0, 0);
        let last = batch.last();
        for token in tokens {
            let Some(watch) = self.table.get_mut(*token) else {
                continue;
            };
            if last < watch.next {
                continue;
            }
            let parts = batch.parts(watch.shape, watch.next);
            let (id, fragment) = (watch.id, watch.fragment);
            watch.next = last + 1;
            watch.quiet &= parts.is_empty();
            if planted::is(Planted::WatchGap) && last % 50 == 0 {
                continue;
            }
            for (n, part) in parts.iter().enumerate() {
                let revision = if n + 1 == parts.len() {
                    newest.unwrap_or(part.last)
                } else {
                    part.last
                };
                self.push_part(&template, id, revision, part, fragment);
                if planted::is(Planted::WatchTwice) && last % 50 == 0 {
                    self.push_part(&template, id, revision, part, fragment);
                }
                self.flush_if_full().await?;
            }
        }
        Ok(())
    }

    fn push_part(&mut self, template: &Frame, id: i64, revision: i64, part: &Part, fragment: bool) {
        let mut head = template.head.clone();
        head.watch_id = id;
        if let Some(header) = &mut head.header {
            header.revision = revision;
        }
        if !fragment || part.cuts.is_empty() {
            return self.push(Frame {
                head,
                events: part.bytes.clone(),
            });
        }
        for (events, more) in part.fragments() {
            head.fragment = more;
            self.push(Frame {
                head: head.clone(),
                events,
            });
        }
    }

    /// Lets watches that are behind join the feed, or begins to read history for those that come first.
    pub(super) async fn catch_up(&mut self) -> Result<(), End> {
        while self.past.is_none() {
            let Some(mut behind) = self.behind.pop_front() else {
                return Ok(());
            };
            self.table.retain_known(&mut behind.tokens);
            if behind.tokens.is_empty() {
                continue;
            }
            if behind.must_read {
                self.read_past(behind);
                continue;
            }
            match self
                .feed
                .join(self.stream, &behind.selector, &behind.tokens, behind.next)
            {
                Joined::Live { batch, next } => {
                    if let Some(batch) = batch {
                        self.send_batch(&behind.tokens, &batch, None).await?;
                    }
                    for token in &behind.tokens {
                        if let Some(watch) = self.table.get_mut(*token) {
                            watch.joined = true;
                            watch.next = watch.next.max(next);
                        }
                    }
                }
                Joined::Behind => self.read_past(behind),
                Joined::NotReady => {
                    self.behind.push_front(behind);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn read_past(&mut self, behind: Behind) {
        let ask = AskHistory {
            from: behind.next,
            key: behind.selector.key.clone(),
            range_end: behind.selector.range_end.clone(),
            limit_bytes: limits::WATCH_RESPONSE_BYTES as u64,
            prev_kv: self.table.want_previous(&behind.tokens),
        };
        let (source, space, stalled) = (self.source.clone(), self.space.clone(), behind.stalled);
        let future = Box::pin(async move {
            if stalled {
                tokio::time::sleep(RETRY).await;
            }
            source.history(&space, ask).await
        });
        self.past = Some((behind, future));
    }

    pub(super) async fn receive_past(&mut self, past: Result<Past, ServerError>) -> Result<(), End> {
        let Some((mut behind, _)) = self.past.take() else {
            return Ok(());
        };
        match past {
            // As in etcd: below what nothing is compacted to is compacted, and at it there is nothing to send.
            Ok(_) if behind.next < NEVER_COMPACTED => {
                self.end_compacted(&behind.tokens, NEVER_COMPACTED).await
            }
            Ok(_) if behind.next == NEVER_COMPACTED => {
                let stand = |token: &u64| self.table.get_mut(*token).map(|watch| watch.next);
                let next = behind.tokens.iter().filter_map(stand).max();
                self.stand_at(behind, next.unwrap_or_default());
                Ok(())
            }
            Ok(past) => {
                let through = past.history.through;
                let newest = (through >= past.revision).then_some(past.revision);
                let batch = batch_of(past.history.events);
                self.send_batch(&behind.tokens, &batch, newest).await?;
                behind.stalled = through < behind.next;
                self.stand_at(behind, through + 1);
                Ok(())
            }
            Err(ServerError::Refused(refusal)) if refusal.kind == RefusalKind::Compacted as i32 => {
                self.end_compacted(&behind.tokens, refusal.detail).await
            }
            Err(error) if passes(&error) => {
                behind.stalled = true;
                self.behind.push_back(behind);
                Ok(())
            }
            Err(error) => Err(End::Failed(Status::from(error))),
        }
    }

    /// Watches have been sent everything below `next`.
    fn stand_at(&mut self, mut behind: Behind, next: i64) {
        behind.must_read = false;
        behind.next = behind.next.max(next);
        for token in &behind.tokens {
            if let Some(watch) = self.table.get_mut(*token) {
                watch.next = watch.next.max(behind.next);
            }
        }
        self.behind.push_back(behind);
    }

    async fn end_compacted(&mut self, tokens: &[u64], compact_revision: i64) -> Result<(), End> {
        let revision = self.feed.head().unwrap_or(compact_revision);
        for token in tokens {
            let Some(watch) = self.table.remove(*token) else {
                continue;
            };
            self.hub.watches.fetch_sub(1, Ordering::Relaxed);
            let mut frame = self.frame(watch.id, revision);
            frame.head.canceled = true;
            frame.head.compact_revision = compact_revision;
            self.push(frame);
            self.flush_if_full().await?;
        }
        Ok(())
    }

    /// Tells of progress, once everything up to the revision to be told was sent.
    pub(super) fn tell_progress(&mut self) {
        if self.progress_due.is_empty() && !self.progress_asked {
            return;
        }
        let Some(revision) = self.feed.progress(&self.inbox) else {
            return;
        };
        for token in std::mem::take(&mut self.progress_due) {
            let Some(watch) = self.table.get_mut(token) else {
                continue;
            };
            if watch.joined && watch.next <= revision + 1 {
                watch.next = revision + 1;
                let id = watch.id;
                let frame = self.frame(id, revision);
                self.push(frame);
            }
        }
        if self.progress_asked && self.waiting.is_empty() && self.table.all_at(revision) {
            self.progress_asked = false;
            if self.table.len() > 0 {
                let frame = self.frame(NO_WATCH, revision);
                self.push(frame);
            }
        }
    }
}

/// History as a batch: grouped by revision, in order.
fn batch_of(events: Vec<HistoryEvent>) -> Batch {
    let mut revisions: VecDeque<Revision> = VecDeque::new();
    for event in events {
        let kind = if event.delete {
            EventKind::Delete
        } else {
            EventKind::Put
        };
        let kv: KeyValue = event.kv.unwrap_or_default();
        let coded = Coded::new(kind, &kv, event.prev_kv.as_ref());
        match revisions.back_mut() {
            Some(last) if last.revision == kv.mod_revision => last.events.push(coded),
            Some(_) | None => revisions.push_back(Revision {
                revision: kv.mod_revision,
                events: vec![coded],
            }),
        }
    }
    let mut batch = Batch::default();
    for revision in revisions {
        let revision = Arc::new(revision);
        (0..revision.events.len()).for_each(|n| batch.pick(&revision, n));
    }
    batch
}
