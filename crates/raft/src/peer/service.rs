//! The other end of a peer's lanes: takes their hellos, handles their frames, writes the replies. One stream is one
//! future without tasks or queues of its own: reading, handling and replying happen where HTTP/2 polls for output,
//! so a peer that does not read its replies is not read from either.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use proto::peer::peer_server::{Peer as PeerRpc, PeerServer};
use proto::peer::{Frame, Frames, Hello, JoinReply, JoinRequest, Kind, Lane};
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Request, Response, Status, Streaming};
use types::NodeId;
use types::limits::{LANE_MESSAGE_BYTES, LANE_QUEUE};

use super::carrier::Arriving;
use super::frames::{Outbox, reply_frame};
use super::peers::{Arrival, Shared};
use super::stream::{self, Producer};
use super::{HANDSHAKE_LIMIT, MESSAGE_BYTES_MAX};

/// Serves the frames of peers. Called in the order in which the frames of a lane arrive, and the returned future is
/// polled once before the next frame is looked at: what must keep that order happens before its first suspension.
pub trait FrameHandler: Send + Sync + 'static {
    /// One request, one reply. Dropped if the connection is lost.
    fn handle(&self, from: NodeId, frame: Frame) -> BoxFuture<'static, Result<Bytes, Status>>;
    /// One request, many replies.
    fn handle_stream(
        &self,
        from: NodeId,
        frame: Frame,
        out: mpsc::Sender<Bytes>,
    ) -> BoxFuture<'static, Result<(), Status>>;
    /// A node without an identity asks to be admitted.
    fn join(&self, request: JoinRequest) -> BoxFuture<'static, Result<JoinReply, Status>>;
}

/// The gRPC service of the peer port.
#[derive(Clone)]
pub struct PeerService(pub(super) Arc<Shared>);

impl PeerService {
    /// As tonic mounts it.
    pub fn server(self) -> PeerServer<PeerService> {
        PeerServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Takes a lane that a peer at `remote` has opened, whatever carries it. Nothing happens unless what this returns is
    /// polled; dropping it closes the lane.
    pub async fn serve(&self, remote: &str, mut inbound: Arriving) -> Result<LaneServer, Status> {
        let shared = self.0.clone();
        if shared.leaving.is_cancelled() {
            return Err(Status::unavailable("this node is stopping"));
        }
        let first = tokio::time::timeout(HANDSHAKE_LIMIT, inbound.next())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))?
            .transpose()?;
        let hello = first
            .and_then(|frames| frames.hello)
            .ok_or_else(|| Status::invalid_argument("a lane begins with a hello"))?;
        let lane = Lane::try_from(hello.lane).map_err(|_| Status::invalid_argument("no such lane"))?;
        let arrival = shared.admit(&hello, lane).map_err(|refusal| {
            shared.counters.count_refusal();
            shared.note_refusal(NodeId(hello.node_id), remote, &refusal, "refused");
            refusal.status()
        })?;
        Ok(LaneServer::new(shared, arrival, lane, inbound))
    }
}

#[tonic::async_trait]
impl PeerRpc for PeerService {
    type LaneStream = LaneServer;

    async fn lane(&self, request: Request<Streaming<Frames>>) -> Result<Response<LaneServer>, Status> {
        let remote = request
            .extensions()
            .get::<env::Remote>()
            .map(|remote| remote.0.to_string());
        let remote = remote
            .or_else(|| request.remote_addr().map(|remote| remote.to_string()))
            .unwrap_or_default();
        let served = self.serve(&remote, request.into_inner().boxed()).await?;
        Ok(Response::new(served))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        self.0.handler.join(request.into_inner()).await.map(Response::new)
    }
}

/// One incoming lane.
pub struct LaneServer {
    shared: Arc<Shared>,
    arrival: Arrival,
    inbound: Arriving,
    hello: Option<Hello>,
    running: FuturesUnordered<BoxFuture<'static, Frame>>,
    /// Replies that are ready now.
    replies: Vec<Frame>,
    reply_bytes: usize,
    /// Where streamed answers wait.
    outbox: Arc<Outbox>,
    streams: HashMap<u64, Arc<Producer>>,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    replaced: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl Drop for LaneServer {
    fn drop(&mut self) {
        self.outbox.close();
        self.streams.values().for_each(|producer| producer.cancel());
    }
}

impl LaneServer {
    fn new(shared: Arc<Shared>, arrival: Arrival, lane: Lane, inbound: Arriving) -> LaneServer {
        let hello = shared.mine.hello(lane, NodeId(0));
        LaneServer {
            leaving: Box::pin(shared.leaving.clone().cancelled_owned()),
            replaced: Box::pin(arrival.replaced.clone().cancelled_owned()),
            shared,
            arrival,
            inbound,
            hello: Some(hello),
            running: FuturesUnordered::new(),
            replies: Vec::new(),
            reply_bytes: 0,
            outbox: Arc::new(Outbox::default()),
            streams: HashMap::new(),
            ended: false,
        }
    }

    fn reply(&mut self, frame: Frame) {
        self.reply_bytes += frame.body.len();
        self.replies.push(frame);
    }

    fn begin(&mut self, frame: Frame, cx: &mut Context<'_>) {
        let from = self.arrival.node();
        let (id, kind) = (frame.id, frame.kind);
        match Kind::try_from(kind) {
            Ok(Kind::Ping) => self.reply(reply_frame(id, kind, Ok(Bytes::new()))),
            Ok(Kind::Goodbye) => self.arrival.peer.health.goodbye(),
            Ok(Kind::StreamCredit) => {
                if let Some(producer) = self.streams.get(&id) {
                    producer.grant(frame.body);
                }
            }
            Ok(Kind::WatchCancel) => {
                if let Some(producer) = self.streams.remove(&id) {
                    producer.cancel();
                }
            }
            Ok(Kind::Watch) => self.begin_stream(from, frame),
            Ok(Kind::Unspecified) | Err(_) => {
                let status = Status::unimplemented(format!("frame of unknown kind {kind}"));
                self.reply(reply_frame(id, kind, Err(status)));
            }
            Ok(_) => {
                let mut work = unconstrained(self.shared.handler.handle(from, frame));
                match Pin::new(&mut work).poll(cx) {
                    Poll::Ready(result) if id != 0 => self.reply(reply_frame(id, kind, result)),
                    Poll::Ready(_) => {}
                    Poll::Pending => self
                        .running
                        .push(work.map(move |result| reply_frame(id, kind, result)).boxed()),
                }
            }
        }
    }

    fn begin_stream(&mut self, from: NodeId, frame: Frame) {
        let (id, kind) = (frame.id, frame.kind);
        self.streams.retain(|_, producer| !producer.is_over());
        if self.streams.len() >= LANE_QUEUE {
            let status = Status::resource_exhausted("too many streams between these nodes");
            return self.reply(reply_frame(id, kind, Err(status)));
        }
        let producer = stream::produce(&self.shared.handler, from, frame, self.outbox.clone());
        self.streams.insert(id, producer);
    }

    /// Reads while there is something to read and room to handle it.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) {
        while !self.ended && self.running.len() < LANE_QUEUE && self.reply_bytes < LANE_MESSAGE_BYTES {
            match self.inbound.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    self.arrival.peer.health.heard();
                    self.shared.counters.count_in(message.frames.len());
                    for frame in message.frames {
                        self.begin(frame, cx);
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => self.ended = true,
                Poll::Pending => return,
            }
        }
    }

    fn poll_running(&mut self, cx: &mut Context<'_>) {
        while self.reply_bytes < LANE_MESSAGE_BYTES {
            let Poll::Ready(Some(reply)) = self.running.poll_next_unpin(cx) else {
                return;
            };
            if reply.id != 0 {
                self.reply(reply);
            }
        }
    }

    fn take_replies(&mut self) -> Frames {
        self.reply_bytes = 0;
        Frames {
            hello: None,
            frames: std::mem::take(&mut self.replies),
        }
    }
}

impl Stream for LaneServer {
    type Item = Result<Frames, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(hello) = this.hello.take() {
            return Poll::Ready(Some(Ok(Frames {
                hello: Some(hello),
                frames: Vec::new(),
            })));
        }
        if this.ended || this.replaced.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if this.leaving.as_mut().poll(cx).is_ready() {
            this.ended = true;
            let goodbye = Frame {
                kind: Kind::Goodbye as i32,
                ..Frame::default()
            };
            return Poll::Ready(Some(Ok(Frames {
                hello: None,
                frames: vec![goodbye],
            })));
        }
        this.poll_inbound(cx);
        this.poll_running(cx);
        let outbox = this.outbox.clone();
        let _ = outbox.poll_drain(&mut this.replies, cx);
        if !this.replies.is_empty() {
            this.shared.counters.count_out(this.replies.len());
            return Poll::Ready(Some(Ok(this.take_replies())));
        }
        if this.ended {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }
}
