//! What is known of one peer's life, for all groups together. Evidence of death is a lost control connection
//! followed by a refused one; silence alone is never evidence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use env::Clock;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use types::{BootId, NodeId};

use super::SILENT_AFTER;

/// A peer's process is gone, as far as can be told from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadEvidence {
    /// The peer.
    pub node: NodeId,
    /// The process.
    pub boot: BootId,
    /// It had said that it would stop.
    pub planned: bool,
}

/// How a peer seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Heard of late.
    Alive,
    /// Not heard of late, and no evidence of death: paused, cut off, or never reached.
    Silent,
    /// Its process is gone.
    Dead,
}

impl std::fmt::Display for PeerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PeerState::Alive => "alive",
            PeerState::Silent => "silent",
            PeerState::Dead => "dead",
        })
    }
}

/// What `holdfast nodes` shows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Where it is dialled.
    pub address: String,
    /// How it seems to be.
    pub state: PeerState,
    /// Its newest process that was met; 0 if none.
    pub boot: BootId,
    /// Format its build understands; 0 if never met.
    pub version: u32,
    /// Milliseconds since anything was heard.
    pub last_heard: Option<u64>,
    /// What is suspected and why; empty if nothing.
    pub suspicion: String,
    /// Rounds of quick elections held because it seemed dead.
    pub quick_elections: u64,
    /// Groups stood for in those rounds.
    pub quick_groups: u64,
    /// The last refusal between us and it.
    pub refusal: Option<String>,
}

/// Where the control connection to a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Never made, or not since its address changed.
    Never,
    /// Made and not lost.
    Connected(BootId),
    /// Lost; what comes next decides.
    Lost(BootId),
    /// Lost, then refused.
    Dead(BootId),
}

#[derive(Default)]
struct Notes {
    goodbye: bool,
    lost_why: String,
    refused_why: String,
    dead_since_ms: u64,
    version: u32,
    refusal: Option<String>,
}

/// One peer's detector.
pub struct Health {
    node: NodeId,
    clock: Arc<dyn Clock>,
    /// Milliseconds on the clock, plus one; 0 for never.
    heard_ms: AtomicU64,
    standing: watch::Sender<Standing>,
    notes: Mutex<Notes>,
    events: broadcast::Sender<DeadEvidence>,
    quick_rounds: AtomicU64,
    quick_groups: AtomicU64,
}

impl Health {
    /// Nothing known yet. Evidence is published on `events`.
    pub fn new(node: NodeId, clock: Arc<dyn Clock>, events: broadcast::Sender<DeadEvidence>) -> Health {
        Health {
            node,
            clock,
            heard_ms: AtomicU64::new(0),
            standing: watch::Sender::new(Standing::Never),
            notes: Mutex::default(),
            events,
            quick_rounds: AtomicU64::new(0),
            quick_groups: AtomicU64::new(0),
        }
    }

    /// Something arrived.
    pub fn heard(&self) {
        self.heard_ms.store(self.clock.now_ms() + 1, Ordering::Relaxed);
    }

    /// Time since anything arrived.
    pub fn silence(&self) -> Option<Duration> {
        match self.heard_ms.load(Ordering::Relaxed) {
            0 => None,
            heard => Some(Duration::from_millis(
                (self.clock.now_ms() + 1).saturating_sub(heard),
            )),
        }
    }

    /// The standing now.
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// The standing and its changes.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// A handshake on the control lane succeeded. Ends any suspicion.
    pub fn connected(&self, boot: BootId, version: u32) {
        self.heard();
        *self.notes.lock() = Notes {
            version,
            ..Notes::default()
        };
        self.standing.send_replace(Standing::Connected(boot));
    }

    /// The control connection broke.
    pub fn lost(&self, why: &str) {
        self.notes.lock().lost_why = why.to_owned();
        self.standing.send_modify(|standing| {
            if let Standing::Connected(boot) = *standing {
                *standing = Standing::Lost(boot);
            }
        });
    }

    /// The peer is to be found elsewhere now: what happened at the old address is no evidence.
    pub fn moved(&self) {
        self.standing.send_replace(Standing::Never);
    }

    /// An attempt to connect failed.
    pub fn unreachable(&self, why: &str) {
        self.notes.lock().refused_why = why.to_owned();
    }

    /// A connection was refused: nobody listens there. Evidence, if one had been lost before.
    pub fn refused(&self, why: &str) {
        let mut dead = None;
        let planned = {
            let mut notes = self.notes.lock();
            notes.refused_why = why.to_owned();
            notes.goodbye
        };
        self.standing.send_if_modified(|standing| match *standing {
            Standing::Lost(boot) => {
                *standing = Standing::Dead(boot);
                dead = Some(boot);
                true
            }
            Standing::Never | Standing::Connected(_) | Standing::Dead(_) => false,
        });
        if let Some(boot) = dead {
            self.notes.lock().dead_since_ms = self.clock.now_ms();
            tracing::warn!(node = %self.node, boot = boot.0, planned, why, "the peer's process is gone");
            // Nobody may be listening.
            let _ = self.events.send(DeadEvidence {
                node: self.node,
                boot,
                planned,
            });
        }
    }

    /// It said that it is about to stop as planned.
    pub fn goodbye(&self) {
        self.notes.lock().goodbye = true;
    }

    /// A hello between us was refused.
    pub fn refusal(&self, text: &str) {
        self.notes.lock().refusal = Some(text.to_owned());
    }

    /// Whether this detector finds that process dead, waiting up to `limit` for it to make up its mind.
    pub async fn confirms_dead(&self, boot: BootId, limit: Duration) -> bool {
        let mut standing = self.watch();
        let decided = standing.wait_for(|standing| match standing {
            Standing::Dead(dead) => *dead == boot,
            Standing::Never | Standing::Connected(_) | Standing::Lost(_) => false,
        });
        matches!(tokio::time::timeout(limit, decided).await, Ok(Ok(_)))
    }

    /// A round of quick elections began, for `groups` groups.
    pub fn count_quick(&self, groups: u64) {
        self.quick_rounds.fetch_add(1, Ordering::Relaxed);
        self.quick_groups.fetch_add(groups, Ordering::Relaxed);
    }

    fn suspicion(&self, state: PeerState, notes: &Notes) -> String {
        match (state, self.standing()) {
            (PeerState::Alive, _) => String::new(),
            (PeerState::Dead, _) => {
                let ago = self.clock.now_ms().saturating_sub(notes.dead_since_ms);
                let how = if notes.goodbye {
                    "stopped as planned"
                } else {
                    "process is gone"
                };
                format!(
                    "{how} since {ago} ms: connection lost ({}), then {}",
                    notes.lost_why, notes.refused_why
                )
            }
            (PeerState::Silent, Standing::Never) if notes.refused_why.is_empty() => "not reached yet".into(),
            (PeerState::Silent, Standing::Never) => format!("not reached: {}", notes.refused_why),
            (PeerState::Silent, Standing::Connected(_)) => "connected, but nothing is heard".into(),
            (PeerState::Silent, Standing::Lost(_)) => {
                format!("connection lost ({}), {}", notes.lost_why, notes.refused_why)
            }
            (PeerState::Silent, Standing::Dead(_)) => notes.refused_why.clone(),
        }
    }

    /// For people.
    pub fn status(&self, address: String) -> PeerStatus {
        let silence = self.silence();
        let state = match self.standing() {
            Standing::Dead(_) => PeerState::Dead,
            Standing::Never | Standing::Connected(_) | Standing::Lost(_) => match silence {
                Some(silence) if silence <= SILENT_AFTER => PeerState::Alive,
                Some(_) | None => PeerState::Silent,
            },
        };
        let boot = match self.standing() {
            Standing::Never => BootId(0),
            Standing::Connected(boot) | Standing::Lost(boot) | Standing::Dead(boot) => boot,
        };
        let notes = self.notes.lock();
        PeerStatus {
            node: self.node,
            address,
            state,
            boot,
            version: notes.version,
            last_heard: silence.map(|silence| silence.as_millis() as u64),
            suspicion: self.suspicion(state, &notes),
            quick_elections: self.quick_rounds.load(Ordering::Relaxed),
            quick_groups: self.quick_groups.load(Ordering::Relaxed),
            refusal: notes.refusal.clone(),
        }
    }
}
