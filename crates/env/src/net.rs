//! Connections: what tonic's connector and server take, over TCP here and over a simulated network in the
//! simulator. Never resolves, retries or pools: callers decide that.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic::transport::server::Connected;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// Any two-way byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// One connection, whoever made it.
pub struct Connection {
    io: Box<dyn Io>,
    remote: Arc<str>,
    gathers: bool,
}

impl Connection {
    /// Wraps a stream.
    pub fn new(io: impl Io, remote: &str) -> Connection {
        Connection {
            io: Box::new(io),
            remote: remote.into(),
            gathers: true,
        }
    }

    /// The same connection, for many messages of up to a kilobyte. HTTP/2 hands a payload of more than 256 bytes to a
    /// connection that takes several buffers at once, by itself; for any other it copies those of up to a kilobyte
    /// together, and writes many of them with one call.
    pub fn of_small_messages(self) -> Connection {
        Connection {
            gathers: false,
            ..self
        }
    }

    /// Address of the other end.
    pub fn remote(&self) -> &Arc<str> {
        &self.remote
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.gathers && self.io.is_write_vectored()
    }
}

/// What a tonic service sees of the other end.
#[derive(Debug, Clone)]
pub struct Remote(pub Arc<str>);

impl Connected for Connection {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        Remote(self.remote.clone())
    }
}

/// Makes and takes connections.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Connects to `host:port`, giving up with [`io::ErrorKind::TimedOut`]. A refused connection must be told
    /// as [`io::ErrorKind::ConnectionRefused`]: it is evidence.
    async fn connect(&self, address: &str, limit: Duration) -> io::Result<Connection>;
    /// Listens on `host:port` (port 0: any).
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listen>>;
    /// Takes `host:port` (port 0: any) and refuses connections until it is told to listen: they would wait for somebody
    /// who cannot serve them yet. A network that knows no such thing listens at once.
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Bound>> {
        Ok(Box::new(Listening(self.listen(address).await?)))
    }
}

/// A port that is taken.
#[async_trait]
pub trait Bound: Send + 'static {
    /// Where it is, with the true port.
    fn local_address(&self) -> String;
    /// Takes connections from now on.
    async fn listen(self: Box<Self>) -> io::Result<Box<dyn Listen>>;
}

/// One that listens already.
struct Listening(Box<dyn Listen>);

#[async_trait]
impl Bound for Listening {
    fn local_address(&self) -> String {
        self.0.local_address()
    }

    async fn listen(self: Box<Self>) -> io::Result<Box<dyn Listen>> {
        Ok(self.0)
    }
}

/// A bound listener.
#[async_trait]
pub trait Listen: Send + 'static {
    /// The next connection.
    async fn accept(&mut self) -> io::Result<Connection>;
    /// Where it listens, with the true port.
    fn local_address(&self) -> String;
}

/// The real network. Nagle's algorithm is off: every message is flushed whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

#[async_trait]
impl Net for TcpNet {
    async fn connect(&self, address: &str, limit: Duration) -> io::Result<Connection> {
        let stream = match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        };
        stream.set_nodelay(true)?;
        Ok(Connection::new(stream, address))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listen>> {
        Ok(Box::new(TcpListen(TcpListener::bind(address).await?)))
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Bound>> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "there is no such address");
        for address in tokio::net::lookup_host(address).await? {
            match bind(address) {
                Ok(socket) => return Ok(Box::new(TcpBound(socket))),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As a listener does: what is left of connections of before is in nobody's way.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

struct TcpBound(TcpSocket);

#[async_trait]
impl Bound for TcpBound {
    fn local_address(&self) -> String {
        told(self.0.local_addr())
    }

    async fn listen(self: Box<Self>) -> io::Result<Box<dyn Listen>> {
        Ok(Box::new(TcpListen(self.0.listen(BACKLOG)?)))
    }
}

fn told(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|error| error.to_string(), |address| address.to_string())
}

struct TcpListen(TcpListener);

#[async_trait]
impl Listen for TcpListen {
    async fn accept(&mut self) -> io::Result<Connection> {
        let (stream, remote) = self.0.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Connection::new(stream, &remote.to_string()))
    }

    fn local_address(&self) -> String {
        told(self.0.local_addr())
    }
}

type Accepting = Pin<Box<dyn Future<Output = (Box<dyn Listen>, io::Result<Connection>)> + Send>>;

/// A listener as the stream that tonic's server takes. Errors of a single accept are passed over; when the process
/// has run out of descriptors it waits a little.
pub struct Incoming {
    accepting: Accepting,
}

impl Incoming {
    /// Takes over a listener.
    pub fn new(listen: Box<dyn Listen>) -> Incoming {
        Incoming {
            accepting: Incoming::accept(listen),
        }
    }

    fn accept(mut listen: Box<dyn Listen>) -> Accepting {
        Box::pin(async move {
            let connection = listen.accept().await;
            if connection.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (listen, connection)
        })
    }
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Poll::Ready((listen, connection)) = self.accepting.as_mut().poll(cx) else {
                return Poll::Pending;
            };
            self.accepting = Incoming::accept(listen);
            if connection.is_ok() {
                return Poll::Ready(Some(connection));
            }
        }
    }
}

/// The connector that tonic's `Endpoint::connect_with_connector` takes.
#[derive(Clone)]
pub struct Connector {
    net: Arc<dyn Net>,
    limit: Duration,
}

impl Connector {
    /// Connects over `net`, each attempt within `limit`.
    pub fn new(net: Arc<dyn Net>, limit: Duration) -> Connector {
        Connector { net, limit }
    }
}

impl tower::Service<tonic::transport::Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Connection>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: tonic::transport::Uri) -> Self::Future {
        let (net, limit) = (self.net.clone(), self.limit);
        Box::pin(async move {
            let authority = uri
                .authority()
                .map(|authority| authority.to_string())
                .unwrap_or_default();
            net.connect(&authority, limit).await.map(TokioIo::new)
        })
    }
}

/// A connector that hands out one connection made before, once: for channels that must not reconnect by themselves.
#[derive(Clone)]
pub struct Once(Arc<std::sync::Mutex<Option<Connection>>>);

impl Once {
    /// Hands out `connection`.
    pub fn new(connection: Connection) -> Once {
        Once(Arc::new(std::sync::Mutex::new(Some(connection))))
    }
}

impl tower::Service<tonic::transport::Uri> for Once {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<Connection>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::transport::Uri) -> Self::Future {
        let taken = match self.0.lock() {
            Ok(mut slot) => slot.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        std::future::ready(
            taken
                .map(TokioIo::new)
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn a_port_that_is_taken_refuses_until_it_listens() {
        let bound = TcpNet.bind("localhost:0").await.expect("a free port");
        let address = bound.local_address();
        let connect = || TcpNet.connect(&address, Duration::from_secs(1));
        let refused = connect().await.err().expect("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listen = bound.listen().await.expect("listens");
        connect().await.expect("connects");
        let taken = TcpNet.bind(&address).await.err().expect("somebody listens there");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn connects_refuses_and_times_out() {
        let listen = TcpNet.listen("127.0.0.1:0").await.expect("listen");
        let address = listen.local_address();
        let mut incoming = Incoming::new(listen);
        let mut out = TcpNet
            .connect(&address, Duration::from_secs(1))
            .await
            .expect("connect");
        let mut other = incoming.next().await.expect("open").expect("accepted");
        out.write_all(b"hello").await.expect("write");
        let mut buf = [0; 5];
        other.read_exact(&mut buf).await.expect("read");
        assert_eq!(&buf, b"hello");
        drop(incoming);
        let refused = TcpNet
            .connect(&address, Duration::from_secs(1))
            .await
            .err()
            .expect("refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
