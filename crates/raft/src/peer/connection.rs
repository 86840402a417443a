//! Opens one lane: TCP, HTTP/2, stream, both hellos. Knows nothing of retries.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use env::{Connection, Once};
use futures::task::AtomicWaker;
use proto::peer::peer_client::PeerClient;
use proto::peer::{Frames, Hello, Lane};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::frames::{Outbox, Outgoing};
use super::handshake::{self, Refusal};
use super::peers::{Peer, Shared};
use super::request::Link;
use super::{CONNECT_LIMIT, HANDSHAKE_LIMIT, LANE_WINDOW_BYTES, MESSAGE_BYTES_MAX};

/// Ends a connection from outside, even one whose peer does not answer any more.
#[derive(Default)]
pub struct Cut {
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

/// A lane that is open. Dropping it closes the connection.
pub struct Established {
    /// Where requests go.
    pub link: Arc<Link>,
    /// Where replies come from.
    pub inbound: Streaming<Frames>,
    /// What the peer said of itself.
    pub hello: Hello,
    cut: Arc<Cut>,
    _client: PeerClient<Channel>,
}

impl Drop for Established {
    fn drop(&mut self) {
        self.cut.cut();
    }
}

/// Why a lane could not be opened.
pub enum OpenError {
    /// No connection.
    Connect(io::Error),
    /// A connection, but no proper answer.
    Handshake(String),
    /// The peer refused this node.
    RefusedThere(Refusal),
    /// This node refused the peer.
    RefusedHere(Refusal),
}

/// Opens `lane` to `peer`.
pub async fn open(shared: &Shared, peer: &Peer, lane: Lane) -> Result<Established, OpenError> {
    let address = peer.address();
    let io = shared
        .env
        .net
        .connect(&address, CONNECT_LIMIT)
        .await
        .map_err(OpenError::Connect)?;
    let cut = Arc::new(Cut::default());
    let connection = Connection::new(Cuttable { io, cut: cut.clone() }, &address);
    match tokio::time::timeout(
        HANDSHAKE_LIMIT,
        greet(shared, peer, lane, connection, cut.clone()),
    )
    .await
    {
        Ok(Ok(established)) => Ok(established),
        Ok(Err(error)) => {
            cut.cut();
            Err(error)
        }
        Err(_) => {
            cut.cut();
            Err(OpenError::Handshake("connected, but no hello came".into()))
        }
    }
}

async fn greet(
    shared: &Shared,
    peer: &Peer,
    lane: Lane,
    connection: Connection,
    cut: Arc<Cut>,
) -> Result<Established, OpenError> {
    let channel = Endpoint::from_static("http://peer")
        .initial_stream_window_size(LANE_WINDOW_BYTES)
        .initial_connection_window_size(LANE_WINDOW_BYTES)
        .connect_with_connector(Once::new(connection))
        .await
        .map_err(|error| OpenError::Handshake(chain(&error)))?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let outbox = Arc::new(Outbox::default());
    let outgoing = Outgoing::new(shared.mine.hello(lane, peer.node), outbox.clone());
    let mut inbound = client
        .lane(outgoing)
        .await
        .map_err(refused_or_failed)?
        .into_inner();
    let first = inbound.message().await.map_err(refused_or_failed)?;
    let hello = first
        .and_then(|frames| frames.hello)
        .ok_or_else(|| OpenError::Handshake("the stream did not begin with a hello".into()))?;
    handshake::check_cluster(&hello, &shared.mine, true).map_err(OpenError::RefusedHere)?;
    peer.meet(&hello).map_err(OpenError::RefusedHere)?;
    let link = Arc::new(Link::new(outbox));
    Ok(Established {
        link,
        inbound,
        hello,
        cut,
        _client: client,
    })
}

fn refused_or_failed(status: tonic::Status) -> OpenError {
    match Refusal::from_status(&status) {
        Some(refusal) => OpenError::RefusedThere(refusal),
        None => OpenError::Handshake(reason(&status)),
    }
}

/// The innermost cause of a broken stream.
pub fn reason(status: &tonic::Status) -> String {
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
