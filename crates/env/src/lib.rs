//! The seam to the outside: clock, randomness, network, and threads for work that blocks. Built once in `main` (or in the simulator) and passed
//! down; nothing else reads a wall clock, asks for entropy or opens a socket.

#![allow(clippy::disallowed_methods, reason = "this crate is the seam that wraps them")]

pub mod blocking;
pub mod clock;
pub mod net;
pub mod rng;

use std::sync::Arc;

pub use blocking::Blocking;
pub use clock::{Clock, SystemClock};
pub use net::{Bound, Connection, Connector, Incoming, Listen, Net, Once, Remote, TcpNet};
pub use rng::{Rng, SeededRng};

/// What a process needs from outside itself. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Connections.
    pub net: Arc<dyn Net>,
    /// Where work is done that keeps its thread.
    pub blocking: Blocking,
}

impl Env {
    /// The real thing: system clock, seed from the system's entropy, TCP.
    pub fn production() -> Env {
        Env {
            clock: Arc::new(SystemClock::default()),
            rng: Arc::new(SeededRng::from_system()),
            net: Arc::new(TcpNet),
            blocking: Blocking::Pool,
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}
