//! One direction of a lane: what is written comes out some milliseconds later, in order, while the link is whole.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::task::AtomicWaker;
use futures::{FutureExt, Stream, StreamExt};
use proto::peer::Frames;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::fabric::Fabric;
use crate::net::Link;

/// Messages under way in one direction before the writer waits, as for a full window.
const UNDER_WAY: usize = 64;

/// The life of a process.
#[derive(Default)]
pub struct Life {
    /// Cancelled when it ends.
    pub gone: CancellationToken,
    /// It ended without a word: its connections were not closed.
    silent: AtomicBool,
}

impl Life {
    /// It ends; the others are told unless `silent`.
    pub fn end(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
        self.gone.cancel();
    }

    /// Whether it ended without a word.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }
}

/// What comes from one process over one link.
pub struct Wire {
    from: BoxStream<'static, Result<Frames, Status>>,
    /// Nothing comes of it any more.
    written: bool,
    life: Arc<Life>,
    gone: BoxFuture<'static, ()>,
    fabric: Arc<Fabric>,
    link: Link,
    changed: Arc<AtomicWaker>,
    breaks: u64,
    /// When each message arrives; `None` is the end.
    under_way: VecDeque<(Instant, Option<Result<Frames, Status>>)>,
    sleep: Pin<Box<Sleep>>,
}

impl Wire {
    /// Carries `from`, which the process of `life` writes, over `link`.
    pub fn new(
        from: BoxStream<'static, Result<Frames, Status>>,
        life: Arc<Life>,
        fabric: Arc<Fabric>,
        link: Link,
    ) -> Wire {
        Wire {
            from,
            written: false,
            gone: life.gone.clone().cancelled_owned().boxed(),
            life,
            changed: fabric.links.reader(&link),
            breaks: fabric.links.breaks(&link),
            fabric,
            link,
            under_way: VecDeque::new(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }

    fn send(&mut self, message: Option<Result<Frames, Status>>) {
        let due = Instant::now() + self.fabric.latency(&self.link);
        let after = self.under_way.back().map_or(due, |(last, _)| *last);
        self.under_way.push_back((due.max(after), message));
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) {
        while !self.written && self.under_way.len() < UNDER_WAY {
            // What a process that is gone has written before is on its way, unless its power went too.
            let gone = self.gone.poll_unpin(cx).is_ready();
            self.written = gone;
            if gone {
                if !self.life.is_silent() {
                    self.send(None);
                }
                return;
            }
            match self.from.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => self.send(Some(message)),
                Poll::Ready(None) => {
                    self.written = true;
                    self.send(None);
                }
                Poll::Pending => return,
            }
        }
    }
}

impl Stream for Wire {
    type Item = Result<Frames, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.changed.register(cx.waker());
        if this.fabric.links.breaks(&this.link) != this.breaks {
            return Poll::Ready(Some(Err(Status::unavailable("connection reset"))));
        }
        this.poll_written(cx);
        if this.fabric.links.is_cut(&this.link) {
            return Poll::Pending;
        }
        loop {
            let Some((due, _)) = this.under_way.front() else {
                return Poll::Pending;
            };
            if *due <= Instant::now() {
                let arrived = this.under_way.pop_front().and_then(|(_, message)| message);
                if this.under_way.len() + 1 == UNDER_WAY {
                    // There is room again.
                    cx.waker().wake_by_ref();
                }
                return Poll::Ready(arrived);
            }
            this.sleep.as_mut().reset(*due);
            if this.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
