//! Requests with many answers. The consumer grants bytes; the producer sends no more than that ahead, so a slow
//! consumer costs bounded memory and never delays the lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proto::peer::{Frame, Kind};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use types::{NodeId, PartitionId, ReplicaId};

use super::STREAM_WINDOW_BYTES;
use super::frames::{Outbox, frame, reply_frame};
use super::request::Link;
use super::service::FrameHandler;
use crate::RequestError;

/// Answers buffered at the consumer beside the window.
const CONSUMER_BUFFER: usize = 4;
/// Answers buffered at the producer.
const PRODUCER_BUFFER: usize = 16;
/// What one answer costs beside its bytes.
const ANSWER_OVERHEAD_BYTES: i64 = 64;

fn cost(body: &Bytes) -> i64 {
    body.len() as i64 + ANSWER_OVERHEAD_BYTES
}

/// The consumer's side.
pub fn consume(
    link: Arc<Link>,
    request: Frame,
) -> Result<mpsc::Receiver<Result<Bytes, RequestError>>, RequestError> {
    let (id, mut arriving) = link.open_stream(request)?;
    let (sender, receiver) = mpsc::channel(CONSUMER_BUFFER);
    tokio::spawn(async move {
        let mut taken = 0;
        loop {
            let answer = tokio::select! {
                () = sender.closed() => break cancel(&link, id),
                answer = arriving.recv() => answer,
            };
            let Some(answer) = answer else { break };
            let ended = answer.is_err();
            taken += answer.as_ref().map_or(0, cost);
            if sender.send(answer).await.is_err() {
                break cancel(&link, id);
            }
            if ended {
                break;
            }
            if taken >= STREAM_WINDOW_BYTES / 4 {
                let mut body = BytesMut::with_capacity(8);
                body.put_i64(taken);
                // If it is lost, so is the stream.
                let _ = link.cast(with_id(Kind::StreamCredit, id, body.freeze()));
                taken = 0;
            }
        }
    });
    Ok(receiver)
}

fn with_id(kind: Kind, id: u64, body: Bytes) -> Frame {
    Frame {
        id,
        ..frame(kind, PartitionId(0), ReplicaId(0), ReplicaId(0), body)
    }
}

fn cancel(link: &Link, id: u64) {
    if !link.abandon(id) {
        // If it is lost, so is the stream.
        let _ = link.cast(with_id(Kind::WatchCancel, id, Bytes::new()));
    }
}

/// The producer's side: what the lane's reader may do to a stream in progress.
pub struct Producer {
    window: AtomicI64,
    granted: Notify,
    cancelled: CancellationToken,
}

impl Producer {
    /// The consumer took some more.
    pub fn grant(&self, mut body: Bytes) {
        if body.remaining() == 8 {
            self.window.fetch_add(body.get_i64().max(0), Ordering::AcqRel);
            self.granted.notify_one();
        }
    }

    /// The consumer is gone, or the stream is over.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Nothing more comes.
    pub fn is_over(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    async fn take(&self, bytes: i64) {
        while self.window.load(Ordering::Acquire) <= 0 {
            self.granted.notified().await;
        }
        self.window.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// Starts answering `request` in a task of its own.
pub fn produce(
    handler: &Arc<dyn FrameHandler>,
    from: NodeId,
    request: Frame,
    outbox: Arc<Outbox>,
) -> Arc<Producer> {
    let producer = Arc::new(Producer {
        window: AtomicI64::new(STREAM_WINDOW_BYTES),
        granted: Notify::new(),
        cancelled: CancellationToken::new(),
    });
    let (id, kind) = (request.id, request.kind);
    let (sender, receiver) = mpsc::channel(PRODUCER_BUFFER);
    let work = handler.handle_stream(from, request, sender);
    let control = producer.clone();
    tokio::spawn(async move {
        let both = async { tokio::join!(work, forward(&control, id, receiver, &outbox)).0 };
        let result = tokio::select! {
            () = control.cancelled.cancelled() => return,
            result = both => result,
        };
        // A closed outbox has told the other side already.
        let _ = outbox
            .push_waiting(reply_frame(id, kind, result.map(|()| Bytes::new())))
            .await;
        control.cancel();
    });
    producer
}

async fn forward(producer: &Producer, id: u64, mut receiver: mpsc::Receiver<Bytes>, outbox: &Outbox) {
    while let Some(body) = receiver.recv().await {
        producer.take(cost(&body)).await;
        let answer: Result<Bytes, Status> = Ok(body);
        if outbox
            .push_waiting(reply_frame(id, Kind::WatchEvents as i32, answer))
            .await
            .is_err()
        {
            return;
        }
    }
}
