//! One lane to one peer: keeps it connected, reads its replies. The control lane goes first and tells the detector
//! what it meets; the others wait until it is connected.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::RwLock;
use proto::peer::{Frame, Kind, Lane as Which};
use types::BootId;

use super::carrier;
use super::connection::{self, Established, OpenError};
use super::detector::Standing;
use super::handshake::RefusalKind;
use super::peers::{Peer, Shared};
use super::request::Link;
use super::{BACKOFF_MAX, BACKOFF_MIN, PROBE_EVERY, PROBE_FOR};
use crate::RequestError;

/// Where requests of one lane to one peer go.
#[derive(Default)]
pub struct Lane {
    link: RwLock<Option<Arc<Link>>>,
}

impl Lane {
    /// The connection, if there is one.
    pub fn link(&self) -> Option<Arc<Link>> {
        self.link.read().clone()
    }

    /// The connection, or why a request cannot be sent.
    pub fn connected(&self, peer: &Peer) -> Result<Arc<Link>, RequestError> {
        self.link()
            .ok_or_else(|| RequestError::NotSent(format!("node {} is not connected", peer.node)))
    }
}

/// A connection in use; whatever ends it, whoever waits for an answer is told.
struct Installed<'a> {
    lane: &'a Lane,
    link: Arc<Link>,
    why: String,
}

impl<'a> Installed<'a> {
    fn new(lane: &'a Lane, link: Arc<Link>) -> Installed<'a> {
        *lane.link.write() = Some(link.clone());
        Installed {
            lane,
            link,
            why: "the lane was closed".into(),
        }
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        *self.lane.link.write() = None;
        self.link.close(&self.why);
    }
}

/// How long to wait before the next attempt.
struct Backoff {
    wait: Duration,
    /// Time left of quick probes after a lost connection.
    probing: Duration,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff {
            wait: BACKOFF_MIN,
            probing: Duration::ZERO,
        }
    }

    fn next(&mut self, shared: &Shared) -> Duration {
        if self.probing > Duration::ZERO {
            self.probing = self.probing.saturating_sub(PROBE_EVERY);
            return PROBE_EVERY;
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(BACKOFF_MAX);
        let jitter = shared.env.rng.between(0, wait.as_millis() as u64 / 2 + 1);
        wait + Duration::from_millis(jitter)
    }
}

/// Why reading ended.
enum End {
    /// The connection broke, or the peer ended it.
    Lost(String),
    /// This node ended it since the peer was silent for too long.
    Cut,
    /// The peer is to be found elsewhere now.
    Moved,
}

/// Keeps `which` connected until the peer is gone or this node stops.
pub async fn run(shared: Arc<Shared>, peer: Arc<Peer>, which: Which) {
    tokio::select! {
        () = shared.stop.cancelled() => {}
        () = peer.gone.cancelled() => {}
        () = keep_connected(&shared, &peer, which) => {}
    }
}

async fn keep_connected(shared: &Shared, peer: &Peer, which: Which) {
    let control = which == Which::Control;
    let mut backoff = Backoff::new();
    let mut address = peer.watch_address();
    loop {
        if !control {
            let mut standing = peer.health.watch();
            // The sender lives as long as the peer.
            let _ = standing
                .wait_for(|standing| matches!(standing, Standing::Connected(_)))
                .await;
        }
        address.mark_unchanged();
        match connection::open(shared, peer, which).await {
            Ok(established) => {
                backoff = Backoff::new();
                let end = use_connection(shared, peer, which, established).await;
                if control {
                    tell_detector(shared, peer, &end);
                    backoff.probing = PROBE_FOR;
                }
            }
            Err(error) => report(shared, peer, which, error),
        }
        if matches!(peer.health.standing(), Standing::Dead(_)) {
            backoff.probing = Duration::ZERO;
        }
        let wait = backoff.next(shared);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = address.changed() => { backoff = Backoff::new(); }
            () = peer.kick.notified(), if control => { backoff = Backoff::new(); }
        }
    }
}

fn tell_detector(shared: &Shared, peer: &Peer, end: &End) {
    match end {
        End::Lost(why) => peer.health.lost(why),
        End::Cut => peer.health.lost("nothing was heard for too long"),
        End::Moved => peer.health.moved(),
    }
    shared.counters.count_lost();
}

async fn use_connection(shared: &Shared, peer: &Peer, which: Which, mut established: Established) -> End {
    let mut address = peer.watch_address();
    let mut cuts = peer.cuts.subscribe();
    let mut installed = Installed::new(peer.lane(which), established.link.clone());
    if which == Which::Control {
        peer.health
            .connected(BootId(established.hello.boot_id), established.hello.version);
        peer.accepted_us();
        tracing::info!(node = %peer.node, address = peer.address(), boot = established.hello.boot_id, "peer connected");
    }
    let link = established.link.clone();
    let end = loop {
        tokio::select! {
            message = established.inbound.next() => match message {
                Some(Ok(message)) => {
                    peer.health.heard();
                    shared.counters.count_in(message.frames.len());
                    arrived(peer, &link, which, message.frames);
                }
                None => break End::Lost("closed by the peer".into()),
                Some(Err(status)) => break End::Lost(carrier::reason(&status)),
            },
            _ = cuts.changed() => break End::Cut,
            _ = address.changed() => break End::Moved,
        }
    };
    installed.why = match &end {
        End::Lost(why) => format!("connection to node {} lost: {why}", peer.node),
        End::Cut => format!(
            "connection to node {} cut: nothing was heard for too long",
            peer.node
        ),
        End::Moved => format!("node {} has another address now", peer.node),
    };
    end
}

fn arrived(peer: &Peer, link: &Link, which: Which, frames: Vec<Frame>) {
    if which == Which::Control && frames.iter().any(|frame| frame.kind == Kind::Goodbye as i32) {
        peer.health.goodbye();
    }
    link.deliver(frames);
}

fn report(shared: &Shared, peer: &Peer, which: Which, error: OpenError) {
    let control = which == Which::Control;
    match error {
        OpenError::Connect(error) if control && error.kind() == io::ErrorKind::ConnectionRefused => {
            peer.health.refused(&error.to_string());
        }
        OpenError::Connect(error) => peer.health.unreachable(&error.to_string()),
        OpenError::Handshake(why) => peer.health.unreachable(&why),
        OpenError::RefusedThere(refusal) => shared.refused_there(peer, refusal),
        OpenError::RefusedHere(refusal) => {
            // Meeting oneself at a peer's address is a wrong address, nothing worse.
            if refusal.kind != RefusalKind::Myself {
                shared.counters.count_refusal();
            }
            shared.note_refusal(peer.node, &peer.address(), &refusal, "refused here");
        }
    }
}
