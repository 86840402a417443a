//! The network of simulated processes: turmoil's sockets, with links that can be cut.
//!
//! turmoil's TCP does not send again what was lost, so a cut that lost messages would break streams that a real network
//! only delays. Links are therefore cut where they are read: what was sent waits, and comes when the link is whole again,
//! unless one end has given up by then.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use env::{Bound, Connection, Listen, Net};
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// From one host to another.
pub type Link = (String, String);

/// What is wrong with the links between hosts.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    cut: BTreeSet<Link>,
    /// Over which no connection is made.
    refused: BTreeSet<Link>,
    /// One for each stream that is read over a link, for as long as there is one.
    readers: BTreeMap<Link, Vec<Weak<AtomicWaker>>>,
    /// Raised for a pair of hosts when all their connections break.
    breaks: BTreeMap<Link, u64>,
}

impl Links {
    /// From now on nothing comes through, unless so already.
    pub fn cut(&self, link: Link) -> bool {
        self.0.lock().cut.insert(link)
    }

    /// What waited comes through, and what follows.
    pub fn join(&self, link: &Link) {
        let mut state = self.0.lock();
        state.cut.remove(link);
        let woken = state.readers_of(link);
        drop(state);
        woken.iter().for_each(|waker| waker.wake());
    }

    /// Whether nothing comes through.
    pub fn is_cut(&self, link: &Link) -> bool {
        self.0.lock().cut.contains(link)
    }

    /// From now on connections from the one to the other are refused, unless so already; those there are break.
    pub fn refuse(&self, link: Link) -> bool {
        let fresh = self.0.lock().refused.insert(link.clone());
        if fresh {
            self.reset(&link.0, &link.1);
        }
        fresh
    }

    /// Connections are made again.
    pub fn admit(&self, link: &Link) {
        self.0.lock().refused.remove(link);
    }

    /// Whether connections are refused.
    pub(crate) fn is_refused(&self, link: &Link) -> bool {
        self.0.lock().refused.contains(link)
    }

    /// All connections there are between two hosts break, in both directions.
    pub fn reset(&self, a: &str, b: &str) {
        let mut state = self.0.lock();
        let mut woken = Vec::new();
        for link in [(a.to_owned(), b.to_owned()), (b.to_owned(), a.to_owned())] {
            woken.extend(state.readers_of(&link));
            *state.breaks.entry(link).or_default() += 1;
        }
        drop(state);
        woken.iter().for_each(|waker| waker.wake());
    }

    /// How often the connections of a link were broken.
    pub(crate) fn breaks(&self, link: &Link) -> u64 {
        self.0.lock().breaks.get(link).copied().unwrap_or(0)
    }

    /// Somebody who is to be woken when a link changes, until it is dropped.
    pub(crate) fn reader(&self, link: &Link) -> Arc<AtomicWaker> {
        let waker = Arc::new(AtomicWaker::new());
        let mut state = self.0.lock();
        let readers = state.readers.entry(link.clone()).or_default();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&waker));
        waker
    }

    /// Waits until a link is whole.
    pub(crate) async fn open(&self, link: &Link) {
        let waker = self.reader(link);
        let open = |cx: &mut Context<'_>| {
            waker.register(cx.waker());
            match self.is_cut(link) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        };
        std::future::poll_fn(open).await;
    }
}

impl State {
    fn readers_of(&self, link: &Link) -> Vec<Arc<AtomicWaker>> {
        let readers = self.readers.get(link).into_iter().flatten();
        readers.filter_map(Weak::upgrade).collect()
    }
}

/// Connections of one boot of one host.
#[derive(Clone)]
pub struct SimNet {
    /// Name of the host.
    pub host: String,
    /// Of all hosts.
    pub links: Links,
    /// Cleared when the process is dead though its tasks still run, until the step is over.
    pub alive: Arc<AtomicBool>,
}

fn split(address: &str) -> io::Result<(&str, u16)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host, port.parse().map_err(|_| wrong())?))
}

#[async_trait]
impl Net for SimNet {
    async fn connect(&self, address: &str, limit: Duration) -> io::Result<Connection> {
        let (host, port) = split(address)?;
        let out = (self.host.clone(), host.to_owned());
        let back = (out.1.clone(), out.0.clone());
        let connecting = async {
            // Both ways are needed: the question, and its answer.
            self.links.open(&out).await;
            self.links.open(&back).await;
            if self.links.is_refused(&out) {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            TcpStream::connect((host, port)).await
        };
        let stream = tokio::time::timeout(limit, connecting).await;
        let stream = stream.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
        let made = Guarded::new(stream, back, self.links.clone(), self.alive.clone());
        Ok(Connection::new(made, address))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listen>> {
        let (_, port) = split(address)?;
        Ok(Box::new(SimListen {
            listener: TcpListener::bind(("0.0.0.0", port)).await?,
            address: format!("{}:{port}", self.host),
            host: self.host.clone(),
            links: self.links.clone(),
            alive: self.alive.clone(),
        }))
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Bound>> {
        let (_, port) = split(address)?;
        Ok(Box::new(SimBound {
            address: format!("{}:{port}", self.host),
            net: self.clone(),
        }))
    }
}

/// A port that refuses as long as it is bound only: nobody listens at it.
struct SimBound {
    net: SimNet,
    address: String,
}

#[async_trait]
impl Bound for SimBound {
    fn local_address(&self) -> String {
        self.address.clone()
    }

    async fn listen(self: Box<Self>) -> io::Result<Box<dyn Listen>> {
        self.net.listen(&self.address).await
    }
}

struct SimListen {
    listener: TcpListener,
    address: String,
    host: String,
    links: Links,
    alive: Arc<AtomicBool>,
}

#[async_trait]
impl Listen for SimListen {
    async fn accept(&mut self) -> io::Result<Connection> {
        let (stream, remote) = self.listener.accept().await?;
        let from = turmoil::reverse_lookup(remote.ip()).unwrap_or_else(|| remote.ip().to_string());
        let link = (from, self.host.clone());
        let made = Guarded::new(stream, link, self.links.clone(), self.alive.clone());
        Ok(Connection::new(made, &remote.to_string()))
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}

/// A stream over a link that may be cut, of a process that may have died in this very step.
struct Guarded {
    stream: TcpStream,
    /// On which it is read.
    link: Link,
    links: Links,
    /// Woken when the link changes.
    waker: Arc<AtomicWaker>,
    breaks: u64,
    alive: Arc<AtomicBool>,
}

impl Guarded {
    fn new(stream: TcpStream, link: Link, links: Links, alive: Arc<AtomicBool>) -> Guarded {
        Guarded {
            breaks: links.breaks(&link),
            waker: links.reader(&link),
            stream,
            link,
            links,
            alive,
        }
    }

    fn check(&self) -> io::Result<()> {
        if !self.alive.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        match self.links.breaks(&self.link) == self.breaks {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
        }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.waker.register(cx.waker());
        self.check()?;
        if self.links.is_cut(&self.link) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
