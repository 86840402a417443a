//! The network of this tier: lanes between processes, each two [`Wire`]s.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use env::{Connection, Listen, Net};
use futures::StreamExt;
use parking_lot::Mutex;
use raft::peer::{Arriving, CONNECT_LIMIT, Carrier, HANDSHAKE_LIMIT, NotCarried, PeerService, Sending};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use workload::numbers::Numbers;

use super::wire::{Life, Wire};
use crate::net::{Link, Links};

/// Messages that a node has written and no wire has taken.
const WRITTEN: usize = 16;

/// What takes lanes at a host.
pub struct Port {
    /// The process.
    pub life: Arc<Life>,
    /// `None` until it listens.
    pub service: Option<PeerService>,
}

/// All hosts and links.
pub struct Fabric {
    /// What is wrong with the links.
    pub links: Links,
    ports: Mutex<BTreeMap<String, Port>>,
    usual_ms: (u64, u64),
    slow_ms: Mutex<BTreeMap<Link, u64>>,
    numbers: Mutex<Numbers>,
}

impl Fabric {
    /// Links that take so many milliseconds.
    pub fn new(seed: u64, latency_ms: (u64, u64)) -> Arc<Fabric> {
        Arc::new(Fabric {
            links: Links::default(),
            ports: Mutex::default(),
            usual_ms: latency_ms,
            slow_ms: Mutex::default(),
            numbers: Mutex::new(Numbers::of(seed, "fabric")),
        })
    }

    /// A host's process has changed.
    pub fn set_port(&self, host: &str, port: Port) {
        self.ports.lock().insert(host.to_owned(), port);
    }

    /// From now on messages between two hosts take so long at most.
    pub fn set_latency(&self, (a, b): Link, most_ms: u64) {
        let mut slow = self.slow_ms.lock();
        slow.insert((a.clone(), b.clone()), most_ms);
        slow.insert((b, a), most_ms);
    }

    /// How long the next message over a link takes.
    pub fn latency(&self, link: &Link) -> Duration {
        let (low, usual) = self.usual_ms;
        let most = self.slow_ms.lock().get(link).copied().unwrap_or(usual);
        Duration::from_millis(self.numbers.lock().between(low, most))
    }

    /// Who listens at a host.
    fn listener(&self, host: &str) -> Listener {
        match self.ports.lock().get(host) {
            Some(port) if port.life.gone.is_cancelled() && port.life.is_silent() => Listener::Off,
            Some(port) if !port.life.gone.is_cancelled() => match &port.service {
                Some(service) => Listener::Up(service.clone(), port.life.clone()),
                None => Listener::Down,
            },
            Some(_) | None => Listener::Down,
        }
    }
}

/// What answers at a host.
enum Listener {
    /// A process.
    Up(PeerService, Arc<Life>),
    /// The kernel, which refuses.
    Down,
    /// Nobody: it has no power.
    Off,
}

/// Opens lanes for one process.
pub struct Lanes {
    /// Where it runs.
    pub host: String,
    /// Whose lanes they are.
    pub life: Arc<Life>,
    /// All links.
    pub fabric: Arc<Fabric>,
}

#[async_trait]
impl Carrier for Lanes {
    async fn open(&self, address: &str, sending: Sending) -> Result<Arriving, NotCarried> {
        let out = (self.host.clone(), address.to_owned());
        let back = (out.1.clone(), out.0.clone());
        let connecting = self.connect(&out, &back);
        let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        let (service, life) = connected
            .map_err(|_| NotCarried::Connect(late()))?
            .map_err(NotCarried::Connect)?;
        let up = Wire::new(
            sending.map(Ok).boxed(),
            self.life.clone(),
            self.fabric.clone(),
            out,
        );
        let (writer, written) = mpsc::channel(WRITTEN);
        tokio::spawn(serve(
            service,
            self.host.clone(),
            up.boxed(),
            life.clone(),
            writer,
        ));
        let mut down = Wire::new(
            ReceiverStream::new(written).boxed(),
            life,
            self.fabric.clone(),
            back,
        );
        match tokio::time::timeout(HANDSHAKE_LIMIT, down.next()).await {
            Ok(Some(Ok(first))) => Ok(futures::stream::iter([Ok(first)]).chain(down).boxed()),
            Ok(Some(Err(status))) => Err(NotCarried::Refused(status)),
            Ok(None) => Err(NotCarried::Broken("closed".into())),
            Err(_) => Err(NotCarried::Broken("connected, but no stream came".into())),
        }
    }
}

impl Lanes {
    async fn connect(&self, out: &Link, back: &Link) -> io::Result<(PeerService, Arc<Life>)> {
        let fabric = &self.fabric;
        // Both ways are needed: the question, and its answer.
        fabric.links.open(out).await;
        tokio::time::sleep(fabric.latency(out)).await;
        let refused = fabric.links.is_refused(out);
        let listener = fabric.listener(&out.1);
        fabric.links.open(back).await;
        tokio::time::sleep(fabric.latency(back)).await;
        match listener {
            Listener::Up(service, life) if !refused => Ok((service, life)),
            Listener::Up(..) | Listener::Down => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
            Listener::Off => std::future::pending().await,
        }
    }
}

/// The other side of a lane, until its process ends or nothing more is to come.
async fn serve(
    service: PeerService,
    remote: String,
    arriving: Arriving,
    life: Arc<Life>,
    writer: mpsc::Sender<Result<proto::peer::Frames, tonic::Status>>,
) {
    let serving = async {
        match service.serve(&remote, arriving).await {
            Ok(mut lane) => {
                while let Some(message) = lane.next().await {
                    if writer.send(message).await.is_err() {
                        return;
                    }
                }
            }
            // If it cannot be said, nobody waits for it.
            Err(refusal) => drop(writer.send(Err(refusal)).await),
        }
    };
    tokio::select! {
        () = life.gone.cancelled() => {}
        () = serving => {}
    }
}

/// There are no sockets in this tier.
pub struct NoSockets;

#[async_trait]
impl Net for NoSockets {
    async fn connect(&self, _: &str, _: Duration) -> io::Result<Connection> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    async fn listen(&self, _: &str) -> io::Result<Box<dyn Listen>> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
