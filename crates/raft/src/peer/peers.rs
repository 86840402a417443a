//! All peers of this node: who they are, what is sent to them, what they may do here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use parking_lot::{Mutex, RwLock};
use proto::peer::{Frame, Hello, Kind, Lane as Which};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use types::{Incarnation, NodeId, PartitionId, ReplicaId};

use super::arrivals::Arrivals;
use super::carrier::Carrier;
use super::counters::{Counters, PeersStats};
use super::detector::{DeadEvidence, Health, PeerStatus, Standing};
use super::frames::frame;
use super::handshake::{self, Known, KnownPeer, Mine, Refusal, RefusalKind, Seen};
use super::lane::{self, Lane};
use super::request::Reply;
use super::service::{FrameHandler, PeerService};
use super::{IN_USE_FATAL_AFTER, IN_USE_WITHIN, pings, stream};
use crate::RequestError;

/// What a process says of itself to its peers.
pub type PeersConfig = Mine;

const LANES: [Which; 4] = [Which::Control, Which::Log, Which::Request, Which::Bulk];
const REFUSALS_KEPT: usize = 32;
/// Announced deaths that a slow listener may lag behind.
const EVENTS: usize = 64;

/// One peer.
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) health: Arc<Health>,
    /// Told to try again at once.
    pub(super) kick: Notify,
    /// Counts how often all connections were cut.
    pub(super) cuts: watch::Sender<u64>,
    /// Removed from the map.
    pub(super) gone: CancellationToken,
    incarnation: AtomicU64,
    boots: AtomicU64,
    address: watch::Sender<String>,
    lanes: [Lane; 4],
    arrivals: Mutex<Arrivals>,
    /// Since when it says that our node id is in use, by our clock, plus one.
    in_use_since_ms: AtomicU64,
    says_foreign: AtomicBool,
}

impl Peer {
    fn new(shared: &Shared, known: KnownPeer) -> Peer {
        let clock = shared.env.clock.clone();
        Peer {
            node: known.node,
            health: Arc::new(Health::new(known.node, clock, shared.events.clone())),
            kick: Notify::new(),
            cuts: watch::Sender::new(0),
            gone: CancellationToken::new(),
            incarnation: AtomicU64::new(known.incarnation.0),
            boots: AtomicU64::new(known.boots),
            address: watch::Sender::new(known.address),
            lanes: std::array::from_fn(|_| Lane::default()),
            arrivals: Mutex::default(),
            in_use_since_ms: AtomicU64::new(0),
            says_foreign: AtomicBool::new(false),
        }
    }

    fn update(&self, known: KnownPeer) {
        self.incarnation.store(known.incarnation.0, Ordering::Relaxed);
        self.boots.store(known.boots, Ordering::Relaxed);
        self.address.send_if_modified(|old| {
            let changed = *old != known.address;
            *old = known.address;
            changed
        });
    }

    pub(super) fn address(&self) -> String {
        self.address.borrow().clone()
    }

    pub(super) fn watch_address(&self) -> watch::Receiver<String> {
        self.address.subscribe()
    }

    pub(super) fn lane(&self, which: Which) -> &Lane {
        &self.lanes[which as usize]
    }

    /// Its side accepted our hello.
    pub(super) fn accepted_us(&self) {
        self.in_use_since_ms.store(0, Ordering::Relaxed);
        self.says_foreign.store(false, Ordering::Relaxed);
    }

    fn check(&self, hello: &Hello, arrivals: &Arrivals) -> Result<(), Refusal> {
        let heard = self
            .health
            .silence()
            .is_some_and(|silence| silence <= IN_USE_WITHIN);
        let connected = self.health.standing() == Standing::Connected(arrivals.boot);
        let seen = Seen {
            boot: arrivals.boot,
            boots: arrivals.boots,
            listed: self.boots.load(Ordering::Relaxed),
            address: arrivals.address.clone(),
            live: heard && (connected || !arrivals.lanes.is_empty()),
        };
        let incarnation = Incarnation(self.incarnation.load(Ordering::Relaxed));
        handshake::check_node(hello, Known::Member(incarnation, &self.address.borrow()), &seen)
    }

    /// Checks the hello of the process at this peer's address, and remembers it.
    pub(super) fn meet(&self, hello: &Hello) -> Result<(), Refusal> {
        let mut arrivals = self.arrivals.lock();
        if hello.node_id != self.node.0 {
            let text = format!(
                "wrong node: node {} answers at the address of node {}",
                hello.node_id, self.node
            );
            return Err(Refusal {
                kind: RefusalKind::WrongNode,
                text,
            });
        }
        self.check(hello, &arrivals)?;
        arrivals.remember(hello);
        Ok(())
    }

    fn admit(self: &Arc<Self>, hello: &Hello, lane: Which) -> Result<Arrival, Refusal> {
        let mut arrivals = self.arrivals.lock();
        self.check(hello, &arrivals)?;
        arrivals.remember(hello);
        arrivals.next += 1;
        let (number, replaced) = (arrivals.next, CancellationToken::new());
        if let Some((_, old)) = arrivals.lanes.insert(lane as i32, (number, replaced.clone())) {
            old.cancel();
        }
        drop(arrivals);
        self.health.heard();
        if lane == Which::Control && self.lane(Which::Control).link().is_none() {
            self.kick.notify_one();
        }
        Ok(Arrival {
            peer: self.clone(),
            lane: lane as i32,
            number,
            replaced,
        })
    }

    fn close_arrivals(&self) {
        for (_, token) in std::mem::take(&mut self.arrivals.lock().lanes).into_values() {
            token.cancel();
        }
    }
}

/// An incoming lane that was let in; leaves the books when dropped.
pub(super) struct Arrival {
    pub(super) peer: Arc<Peer>,
    /// A newer connection took this one's place, or the peer was removed.
    pub(super) replaced: CancellationToken,
    lane: i32,
    number: u64,
}

impl Arrival {
    pub(super) fn node(&self) -> NodeId {
        self.peer.node
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut arrivals = self.peer.arrivals.lock();
        if arrivals
            .lanes
            .get(&self.lane)
            .is_some_and(|(number, _)| *number == self.number)
        {
            arrivals.lanes.remove(&self.lane);
        }
    }
}

/// What the tasks of all lanes share.
pub(super) struct Shared {
    pub(super) mine: Mine,
    pub(super) env: Env,
    pub(super) carrier: Arc<dyn Carrier>,
    pub(super) handler: Arc<dyn FrameHandler>,
    /// No new lanes, and goodbye to the open ones.
    pub(super) leaving: CancellationToken,
    /// Everything ends.
    pub(super) stop: CancellationToken,
    pub(super) counters: Counters,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    removed: RwLock<BTreeSet<NodeId>>,
    events: broadcast::Sender<DeadEvidence>,
    fatal: watch::Sender<Option<String>>,
    refusals: Mutex<VecDeque<(u64, String)>>,
}

impl Shared {
    /// All peers, as of now.
    pub(super) fn all(&self) -> Vec<Arc<Peer>> {
        self.peers.read().values().cloned().collect()
    }

    /// Checks an incoming hello.
    pub(super) fn admit(&self, hello: &Hello, lane: Which) -> Result<Arrival, Refusal> {
        handshake::check_cluster(hello, &self.mine, false)?;
        let node = NodeId(hello.node_id);
        if self.removed.read().contains(&node) {
            return Err(handshake::refusal_of(hello, Known::Removed));
        }
        let peer = self.peers.read().get(&node).cloned();
        let Some(peer) = peer else {
            self.counters.strangers.fetch_add(1, Ordering::Relaxed);
            return Err(handshake::refusal_of(hello, Known::No));
        };
        peer.admit(hello, lane)
    }

    /// Keeps the last refusals for people; the same sentence is logged once.
    pub(super) fn note_refusal(&self, node: NodeId, address: &str, refusal: &Refusal, what: &str) {
        let text = format!("{what}: node {node} at {address}: {}", refusal.text);
        if let Some(peer) = self.peers.read().get(&node) {
            peer.health.refusal(&text);
        }
        let mut kept = self.refusals.lock();
        let known = kept.iter().any(|(_, other)| *other == text);
        kept.retain(|(_, other)| *other != text);
        kept.push_back((self.env.clock.wall_ms(), text.clone()));
        if kept.len() > REFUSALS_KEPT {
            kept.pop_front();
        }
        drop(kept);
        if !known {
            tracing::warn!(%node, address, rule = ?refusal.kind, text, "handshake");
        }
    }

    /// A peer refused this node. Some reasons mean that this process must stop.
    pub(super) fn refused_there(&self, peer: &Peer, refusal: Refusal) {
        self.counters.refused_by.fetch_add(1, Ordering::Relaxed);
        self.note_refusal(peer.node, &peer.address(), &refusal, "refused by");
        let foreign = refusal.kind == RefusalKind::ForeignCluster;
        peer.says_foreign.store(foreign, Ordering::Relaxed);
        let now = self.env.clock.now_ms() + 1;
        let lasting = if refusal.kind == RefusalKind::InUse {
            let since = peer
                .in_use_since_ms
                .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
            let since = since.unwrap_or_else(|since| since);
            since != 0 && Duration::from_millis(now - since) >= IN_USE_FATAL_AFTER
        } else {
            peer.in_use_since_ms.store(0, Ordering::Relaxed);
            false
        };
        let everywhere_foreign = foreign
            && self
                .peers
                .read()
                .values()
                .all(|peer| peer.says_foreign.load(Ordering::Relaxed));
        if refusal.kind.is_fatal() || lasting || everywhere_foreign {
            let text = format!(
                "node {} at {} refused this node: {}",
                peer.node,
                peer.address(),
                refusal.text
            );
            self.fatal.send_if_modified(|fatal| {
                let first = fatal.is_none();
                fatal.get_or_insert(text);
                first
            });
        }
    }
}

/// The peers of this process. Dropping it ends all lanes.
pub struct Peers {
    shared: Arc<Shared>,
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.shared.leaving.cancel();
        self.shared.stop.cancel();
    }
}

impl Peers {
    /// Begins without peers; see [`Peers::set_peers`].
    pub fn start(
        config: PeersConfig,
        env: Env,
        carrier: Arc<dyn Carrier>,
        handler: Arc<dyn FrameHandler>,
    ) -> Arc<Peers> {
        let shared = Arc::new(Shared {
            mine: config,
            env,
            carrier,
            handler,
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            counters: Counters::default(),
            peers: RwLock::default(),
            removed: RwLock::default(),
            events: broadcast::Sender::new(EVENTS),
            fatal: watch::Sender::new(None),
            refusals: Mutex::default(),
        });
        tokio::spawn(pings::keep_watch(shared.clone()));
        Arc::new(Peers { shared })
    }

    /// Who the peers are from now on, and who was removed for good. This node itself may be named and is passed over.
    pub fn set_peers(&self, peers: Vec<KnownPeer>, removed: Vec<NodeId>) {
        let shared = &self.shared;
        let wanted: BTreeMap<NodeId, KnownPeer> = peers
            .into_iter()
            .filter(|known| known.node != shared.mine.node)
            .map(|known| (known.node, known))
            .collect();
        *shared.removed.write() = removed.into_iter().collect();
        let mut current = shared.peers.write();
        current.retain(|node, peer| {
            let keep = wanted.contains_key(node);
            if !keep {
                peer.gone.cancel();
                peer.close_arrivals();
            }
            keep
        });
        for (node, known) in wanted {
            if let Some(peer) = current.get(&node) {
                peer.update(known);
                continue;
            }
            let peer = Arc::new(Peer::new(shared, known));
            for which in LANES {
                tokio::spawn(lane::run(shared.clone(), peer.clone(), which));
            }
            current.insert(node, peer);
        }
    }

    fn peer(&self, node: NodeId) -> Result<Arc<Peer>, RequestError> {
        let peer = self.shared.peers.read().get(&node).cloned();
        peer.ok_or_else(|| RequestError::NotSent(format!("node {node} is not known here")))
    }

    /// Queues a request; the answer is waited for separately.
    pub fn begin(&self, to: NodeId, lane: Which, frame: Frame) -> Result<Reply, RequestError> {
        let peer = self.peer(to)?;
        peer.lane(lane).connected(&peer)?.call(frame)
    }

    /// One request, one reply, within `deadline`.
    pub async fn call(
        &self,
        to: NodeId,
        lane: Which,
        frame: Frame,
        deadline: Duration,
    ) -> Result<Bytes, RequestError> {
        self.begin(to, lane, frame)?.within(deadline).await
    }

    /// A frame without a reply.
    pub fn one_way(&self, to: NodeId, lane: Which, frame: Frame) -> Result<(), RequestError> {
        let peer = self.peer(to)?;
        peer.lane(lane).connected(&peer)?.cast(frame)
    }

    /// One request of kind `KIND_WATCH`, many replies, on the request lane. Dropping the receiver cancels it.
    pub fn stream(
        &self,
        to: NodeId,
        partition: PartitionId,
        body: Bytes,
    ) -> Result<mpsc::Receiver<Result<Bytes, RequestError>>, RequestError> {
        let peer = self.peer(to)?;
        let link = peer.lane(Which::Request).connected(&peer)?;
        stream::consume(
            link,
            frame(Kind::Watch, partition, ReplicaId(0), ReplicaId(0), body),
        )
    }

    /// The service for the peer port; mount [`PeerService::server`].
    pub fn service(&self) -> PeerService {
        PeerService(self.shared.clone())
    }

    /// What is known of each peer.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.shared
            .peers
            .read()
            .values()
            .map(|peer| peer.health.status(peer.address()))
            .collect()
    }

    /// The detector of a peer.
    pub fn health(&self, node: NodeId) -> Option<Arc<Health>> {
        self.shared
            .peers
            .read()
            .get(&node)
            .map(|peer| peer.health.clone())
    }

    /// Whether the control lane to a peer is up.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.health(node)
            .is_some_and(|health| matches!(health.standing(), Standing::Connected(_)))
    }

    /// Announces deaths as they are found.
    pub fn deaths(&self) -> broadcast::Receiver<DeadEvidence> {
        self.shared.events.subscribe()
    }

    /// Set once, to the sentence with which this process must stop: others refuse its identity.
    pub fn fatal_refusal(&self) -> watch::Receiver<Option<String>> {
        self.shared.fatal.subscribe()
    }

    /// Counters.
    pub fn stats(&self) -> PeersStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeersStats {
            frames_in: read(&counters.frames_in),
            replies_out: read(&counters.frames_out),
            messages_in: read(&counters.messages_in),
            messages_out: read(&counters.messages_out),
            connections_lost: read(&counters.lost),
            refusals: read(&counters.refusals),
            strangers: read(&counters.strangers),
            refused_by_others: read(&counters.refused_by),
            last_refusals: self.shared.refusals.lock().iter().cloned().collect(),
        }
    }

    /// Says goodbye and ends all lanes, within a tenth of a second.
    pub async fn stop(&self) {
        self.shared.leaving.cancel();
        let peers = self.shared.all();
        let links: Vec<_> = peers
            .iter()
            .filter_map(|peer| peer.lane(Which::Control).link())
            .collect();
        for link in &links {
            // A peer that is gone needs no goodbye.
            let _ = link.cast(Frame {
                kind: Kind::Goodbye as i32,
                ..Frame::default()
            });
        }
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if links.iter().all(|link| link.outbox.len() == 0) {
                break;
            }
        }
        self.shared.stop.cancel();
        peers.iter().for_each(|peer| peer.close_arrivals());
    }
}
