//! Links between nodes over loopback that hold what is sent, turn connections away, or lead them elsewhere; each
//! direction alone.
//!
//! Whoever dials knows both ends, so a rule takes hold where a connection was dialled: writing there is the one
//! direction, reading there is the other.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use env::{Connection, Net, TcpNet};
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is wrong with a direction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// What is sent waits.
    Held,
    /// Connections break and new ones are refused.
    Refused,
    /// New connections end up at another address.
    Elsewhere(String),
}

#[derive(Default)]
struct State {
    /// Who listens where.
    homes: BTreeMap<String, u64>,
    rules: BTreeMap<(u64, u64), Rule>,
    /// How often the connections from one to the other were broken.
    breaks: BTreeMap<(u64, u64), u64>,
    /// Whoever may wait for a change.
    waiting: Vec<Weak<AtomicWaker>>,
}

/// All links of a cluster.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<State>>);

impl Links {
    /// A node listens there.
    pub fn at(&self, node: u64, address: &str) {
        self.0.lock().homes.insert(address.to_owned(), node);
    }

    /// The network as one node has it.
    pub fn of(&self, node: u64) -> Arc<dyn Net> {
        Arc::new(LinkedNet {
            node,
            links: self.clone(),
        })
    }

    /// From now on what `from` sends to `to` waits.
    pub fn hold(&self, from: u64, to: u64) {
        self.set((from, to), Some(Rule::Held));
    }

    /// The same in both directions.
    pub fn cut(&self, a: u64, b: u64) {
        self.hold(a, b);
        self.hold(b, a);
    }

    /// Connections that `from` has made to `to` break, and new ones are refused.
    pub fn refuse(&self, from: u64, to: u64) {
        *self.0.lock().breaks.entry((from, to)).or_default() += 1;
        self.set((from, to), Some(Rule::Refused));
    }

    /// New connections of `from` to `to` are made to that address.
    pub fn lead(&self, from: u64, to: u64, address: &str) {
        self.set((from, to), Some(Rule::Elsewhere(address.to_owned())));
    }

    /// All is well from `from` to `to`.
    pub fn mend(&self, from: u64, to: u64) {
        self.set((from, to), None);
    }

    /// All is well.
    pub fn mend_all(&self) {
        self.change(|state| state.rules.clear());
    }

    fn set(&self, link: (u64, u64), rule: Option<Rule>) {
        self.change(|state| {
            match rule {
                Some(rule) => state.rules.insert(link, rule),
                None => state.rules.remove(&link),
            };
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock();
        change(&mut state);
        let woken: Vec<_> = state.waiting.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        woken.iter().for_each(|waker| waker.wake());
    }

    fn waker(&self) -> Arc<AtomicWaker> {
        let waker = Arc::new(AtomicWaker::new());
        let mut state = self.0.lock();
        state.waiting.retain(|waker| waker.strong_count() > 0);
        state.waiting.push(Arc::downgrade(&waker));
        waker
    }

    fn is_held(&self, link: (u64, u64)) -> bool {
        self.0.lock().rules.get(&link) == Some(&Rule::Held)
    }

    fn breaks(&self, link: (u64, u64)) -> u64 {
        self.0.lock().breaks.get(&link).copied().unwrap_or(0)
    }

    /// Where a connection leads, as soon as both directions let it through.
    fn way(&self, link: (u64, u64), address: &str) -> Poll<io::Result<String>> {
        let back = (link.1, link.0);
        let rule = self.0.lock().rules.get(&link).cloned();
        match rule {
            Some(Rule::Refused) => Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused))),
            Some(Rule::Held) => Poll::Pending,
            Some(Rule::Elsewhere(other)) => Poll::Ready(Ok(other)),
            None if self.is_held(back) => Poll::Pending,
            None => Poll::Ready(Ok(address.to_owned())),
        }
    }
}

struct LinkedNet {
    node: u64,
    links: Links,
}

#[async_trait]
impl Net for LinkedNet {
    async fn connect(&self, address: &str, limit: Duration) -> io::Result<Connection> {
        let home = self.links.0.lock().homes.get(address).copied();
        let Some(to) = home else {
            return TcpNet.connect(address, limit).await;
        };
        let link = (self.node, to);
        let (reader, writer) = (self.links.waker(), self.links.waker());
        let breaks = self.links.breaks(link);
        let way = std::future::poll_fn(|cx| {
            reader.register(cx.waker());
            self.links.way(link, address)
        });
        let way = tokio::time::timeout(limit, way).await;
        let way = way.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
        let linked = Linked {
            io: TcpNet.connect(&way, limit).await?,
            link,
            breaks,
            links: self.links.clone(),
            reader,
            writer,
        };
        Ok(Connection::new(linked, address))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn env::Listen>> {
        TcpNet.listen(address).await
    }
}

struct Linked {
    io: Connection,
    /// Who dialled whom.
    link: (u64, u64),
    breaks: u64,
    links: Links,
    reader: Arc<AtomicWaker>,
    writer: Arc<AtomicWaker>,
}

impl Linked {
    fn check(&self) -> io::Result<()> {
        match self.links.breaks(self.link) == self.breaks {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        }
    }
}

impl AsyncRead for Linked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reader.register(cx.waker());
        self.check()?;
        let (from, to) = self.link;
        if self.links.is_held((to, from)) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Linked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.register(cx.waker());
        self.check()?;
        if self.links.is_held(self.link) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A network on which a refused connection looks like one that nobody answers: no evidence of death, hence no quick
/// elections.
pub struct NoEvidence;

#[async_trait]
impl Net for NoEvidence {
    async fn connect(&self, address: &str, limit: Duration) -> io::Result<env::Connection> {
        let connected = TcpNet.connect(address, limit).await;
        connected.map_err(|error| io::Error::new(io::ErrorKind::TimedOut, error))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn env::Listen>> {
        TcpNet.listen(address).await
    }
}
