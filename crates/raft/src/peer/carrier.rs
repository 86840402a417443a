//! How the stream of a lane comes from one node to another: as gRPC over a connection of its own, or, in a simulation,
//! as messages that are handed over.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use env::{Connection, Net, Once};
use futures::stream::BoxStream;
use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use proto::peer::Frames;
use proto::peer::peer_client::PeerClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::{CONNECT_LIMIT, HANDSHAKE_LIMIT, LANE_WINDOW_BYTES, MESSAGE_BYTES_MAX};

/// What one side of a lane writes: its hello, then frames. Ends when the lane does.
pub type Sending = BoxStream<'static, Frames>;
/// What one side of a lane reads. On the side that opened it, dropping it closes the lane.
pub type Arriving = BoxStream<'static, Result<Frames, Status>>;

/// Why a stream could not be opened.
#[derive(Debug)]
pub enum NotCarried {
    /// No connection. One that was refused must be told as [`io::ErrorKind::ConnectionRefused`]: it is evidence.
    Connect(io::Error),
    /// A connection, but no stream.
    Broken(String),
    /// The other side refused the stream.
    Refused(Status),
}

/// Opens the streams of lanes.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Opens a stream to the peer port at `address`, within a bounded time.
    async fn open(&self, address: &str, sending: Sending) -> Result<Arriving, NotCarried>;
}

/// gRPC, each stream on a connection of its own.
pub struct Grpc {
    net: Arc<dyn Net>,
}

impl Grpc {
    /// Connects over `net`.
    pub fn new(net: Arc<dyn Net>) -> Grpc {
        Grpc { net }
    }
}

#[async_trait]
impl Carrier for Grpc {
    async fn open(&self, address: &str, sending: Sending) -> Result<Arriving, NotCarried> {
        let io = self
            .net
            .connect(address, CONNECT_LIMIT)
            .await
            .map_err(NotCarried::Connect)?;
        let cut = Arc::new(Cut::default());
        let ends = CutOnDrop(cut.clone());
        let connection = Connection::new(Cuttable { io, cut }, address);
        let opened = tokio::time::timeout(HANDSHAKE_LIMIT, begin(connection, Named(sending))).await;
        let (client, inbound) =
            opened.map_err(|_| NotCarried::Broken("connected, but no stream came".into()))??;
        Ok(Held {
            inbound,
            _ends: ends,
            _client: client,
        }
        .boxed())
    }
}

/// A stream under a name: the compiler cannot see that a future which holds the nameless one may change threads.
struct Named(Sending);

impl Stream for Named {
    type Item = Frames;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frames>> {
        self.0.poll_next_unpin(cx)
    }
}

/// A stream, and the client that holds its connection.
type Begun = (PeerClient<Channel>, Streaming<Frames>);

async fn begin(connection: Connection, sending: Named) -> Result<Begun, NotCarried> {
    let channel = Endpoint::from_static("http://peer")
        .initial_stream_window_size(LANE_WINDOW_BYTES)
        .initial_connection_window_size(LANE_WINDOW_BYTES)
        .connect_with_connector(Once::new(connection))
        .await
        .map_err(|error| NotCarried::Broken(chain(&error)))?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let inbound = client.lane(sending).await.map_err(NotCarried::Refused)?;
    Ok((client, inbound.into_inner()))
}

/// A stream, and what must last as long.
struct Held {
    inbound: Streaming<Frames>,
    _ends: CutOnDrop,
    _client: PeerClient<Channel>,
}

impl Stream for Held {
    type Item = Result<Frames, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inbound.poll_next_unpin(cx)
    }
}

/// Ends the connection with whoever used it.
struct CutOnDrop(Arc<Cut>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Ends a connection from outside, even one whose peer does not answer any more.
#[derive(Default)]
struct Cut {
    cut: AtomicBool,
    reader: AtomicWaker,
}

impl Cut {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.reader.wake();
    }

    fn check(&self) -> io::Result<()> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "cut by this node",
            ));
        }
        Ok(())
    }
}

struct Cuttable {
    io: Connection,
    cut: Arc<Cut>,
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cut.reader.register(cx.waker());
        self.cut.check()?;
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cut.check()?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.cut.check()?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The innermost cause of a broken stream.
pub fn reason(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => chain(source),
        None => status.message().to_owned(),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
