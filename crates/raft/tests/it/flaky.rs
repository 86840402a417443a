//! A network that lets so many bytes through to one address on a connection, then cuts it or holds it up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use env::{Connection, Net, TcpNet};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, interval};

/// Between looks at whether a connection may go on.
const LOOK: Duration = Duration::from_millis(5);

/// What is done to connections.
#[derive(Default)]
pub struct Rule {
    /// To where; none: nothing is done.
    pub target: Mutex<Option<String>>,
    /// After how many bytes on one connection.
    pub after: AtomicU64,
    /// Connections still to be cut.
    pub cuts: AtomicU64,
    /// Whether what follows waits.
    pub held: AtomicBool,
    /// Whether something has waited.
    pub waited: AtomicBool,
    /// Bytes written to the target.
    pub written: AtomicU64,
}

/// See the module.
pub struct Flaky(pub Arc<Rule>);

#[async_trait]
impl Net for Flaky {
    async fn connect(&self, address: &str, limit: Duration) -> io::Result<Connection> {
        let connection = TcpNet.connect(address, limit).await?;
        if self.0.target.lock().as_deref() != Some(address) {
            return Ok(connection);
        }
        let io = Watched {
            io: connection,
            rule: self.0.clone(),
            written: 0,
            cut: false,
            wait: None,
        };
        Ok(Connection::new(io, address))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn env::Listen>> {
        TcpNet.listen(address).await
    }
}

struct Watched {
    io: Connection,
    rule: Arc<Rule>,
    written: u64,
    cut: bool,
    wait: Option<Interval>,
}

fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

impl Watched {
    fn poll_let(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.written >= self.rule.after.load(Ordering::SeqCst) {
            let one_less = |cuts: u64| cuts.checked_sub(1);
            let cuts = &self.rule.cuts;
            self.cut |= cuts
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                .is_ok();
            while !self.cut && self.rule.held.load(Ordering::SeqCst) {
                self.rule.waited.store(true, Ordering::SeqCst);
                let look = self.wait.get_or_insert_with(|| interval(LOOK));
                ready!(look.poll_tick(cx));
            }
        }
        Poll::Ready(if self.cut { Err(broken()) } else { Ok(()) })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut {
            return Poll::Ready(Err(broken()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_let(cx))?;
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.written += written as u64;
        self.rule.written.fetch_add(written as u64, Ordering::SeqCst);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
