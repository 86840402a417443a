//! Frames waiting for one lane: many are drained into one message, by whoever writes the stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use proto::peer::{Frame, Frames, Hello, Kind};
use types::limits::{LANE_MESSAGE_BYTES, LANE_QUEUE};
use types::{PartitionId, ReplicaId};

use super::{FRAME_BYTES_MAX, LANE_QUEUE_BYTES};

/// Bytes that a frame takes beside its body, about.
const FRAME_OVERHEAD_BYTES: usize = 32;

/// A request frame; its id is given when it is sent.
pub fn frame(kind: Kind, partition: PartitionId, to: ReplicaId, from: ReplicaId, body: Bytes) -> Frame {
    Frame {
        id: 0,
        reply: false,
        kind: kind as i32,
        partition: partition.0,
        to_replica: to.0,
        from_replica: from.0,
        body,
        code: 0,
        request_id: Bytes::new(),
    }
}

/// The reply to request `id`. One larger than any frame may be becomes an error: it would end the connection, and
/// with it all that others wait for.
pub fn reply_frame(id: u64, kind: i32, result: Result<Bytes, tonic::Status>) -> Frame {
    let fitting = result.and_then(|body| {
        if body.len() <= FRAME_BYTES_MAX {
            return Ok(body);
        }
        Err(tonic::Status::out_of_range(format!(
            "the answer has {} bytes, nodes carry at most {FRAME_BYTES_MAX} for each other: ask for less at once",
            body.len()
        )))
    });
    let (code, body) = match fitting {
        Ok(body) => (0, body),
        Err(status) => (status.code() as u32, Bytes::from(status.message().to_owned())),
    };
    Frame {
        id,
        reply: true,
        kind,
        partition: 0,
        to_replica: 0,
        from_replica: 0,
        body,
        code,
        request_id: Bytes::new(),
    }
}

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Too much is waiting.
    Full,
    /// The frame is larger than any may be.
    TooLarge,
    /// The stream is over.
    Closed,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    closed: bool,
    writer: Option<Waker>,
    room: Vec<Waker>,
}

/// A bounded queue with one writer behind it.
#[derive(Default)]
pub struct Outbox(Mutex<Waiting>);

fn weight(frame: &Frame) -> usize {
    frame.body.len() + frame.request_id.len() + FRAME_OVERHEAD_BYTES
}

impl Outbox {
    /// Queues a frame.
    pub fn push(&self, frame: Frame) -> Result<(), Rejected> {
        if frame.body.len() > FRAME_BYTES_MAX {
            return Err(Rejected::TooLarge);
        }
        let mut waiting = self.0.lock();
        if waiting.closed {
            return Err(Rejected::Closed);
        }
        if waiting.frames.len() >= LANE_QUEUE || waiting.bytes >= LANE_QUEUE_BYTES {
            return Err(Rejected::Full);
        }
        Outbox::enqueue(&mut waiting, frame);
        let writer = waiting.writer.take();
        drop(waiting);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    fn enqueue(waiting: &mut Waiting, frame: Frame) {
        waiting.bytes += weight(&frame);
        waiting.frames.push_back(frame);
    }

    /// Queues a frame as soon as there is room.
    pub async fn push_waiting(&self, frame: Frame) -> Result<(), Rejected> {
        let mut frame = Some(frame);
        std::future::poll_fn(|cx| {
            let mut waiting = self.0.lock();
            if waiting.closed {
                return Poll::Ready(Err(Rejected::Closed));
            }
            if waiting.frames.len() >= LANE_QUEUE || waiting.bytes >= LANE_MESSAGE_BYTES * 4 {
                waiting.room.push(cx.waker().clone());
                return Poll::Pending;
            }
            if let Some(frame) = frame.take() {
                Outbox::enqueue(&mut waiting, frame);
            }
            if let Some(writer) = waiting.writer.take() {
                writer.wake();
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.0.lock().frames.len()
    }

    /// Takes back a request that was not written yet.
    pub fn take_back(&self, id: u64) -> bool {
        let mut waiting = self.0.lock();
        match waiting
            .frames
            .iter()
            .position(|frame| frame.id == id && !frame.reply)
        {
            Some(at) => {
                if let Some(frame) = waiting.frames.remove(at) {
                    waiting.bytes -= weight(&frame);
                }
                true
            }
            None => false,
        }
    }

    /// Ends the stream and returns what was not written.
    pub fn close(&self) -> Vec<Frame> {
        let mut waiting = self.0.lock();
        waiting.closed = true;
        waiting.bytes = 0;
        let left = waiting.frames.drain(..).collect();
        let wake: Vec<Waker> = waiting
            .writer
            .take()
            .into_iter()
            .chain(waiting.room.drain(..))
            .collect();
        drop(waiting);
        wake.into_iter().for_each(Waker::wake);
        left
    }

    /// Moves what waits into `into`, up to the size of one message; `None` once closed.
    pub fn poll_drain(&self, into: &mut Vec<Frame>, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let mut waiting = self.0.lock();
        if waiting.frames.is_empty() {
            if waiting.closed {
                return Poll::Ready(None);
            }
            match &mut waiting.writer {
                Some(writer) => writer.clone_from(cx.waker()),
                None => waiting.writer = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let mut size = 0;
        into.reserve(waiting.frames.len().min(1024));
        while size < LANE_MESSAGE_BYTES {
            let Some(frame) = waiting.frames.pop_front() else {
                break;
            };
            size += weight(&frame);
            into.push(frame);
        }
        waiting.bytes -= size;
        let room: Vec<Waker> = waiting.room.drain(..).collect();
        drop(waiting);
        room.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(()))
    }
}

/// What this side writes on a lane it opened: hello, then whatever waits.
pub struct Outgoing {
    hello: Option<Hello>,
    outbox: Arc<Outbox>,
}

impl Outgoing {
    /// Begins with `hello`.
    pub fn new(hello: Hello, outbox: Arc<Outbox>) -> Outgoing {
        Outgoing {
            hello: Some(hello),
            outbox,
        }
    }
}

impl Stream for Outgoing {
    type Item = Frames;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frames>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(Frames {
                hello: Some(hello),
                frames: Vec::new(),
            }));
        }
        let mut frames = Vec::new();
        self.outbox
            .poll_drain(&mut frames, cx)
            .map(|open| open.map(|()| Frames { hello: None, frames }))
    }
}
