//! Standing connections to the other controllers: four lanes to each, one detector for each, one handshake.
//!
//! ```text
//! this node --control--> peer     votes, heartbeats, transfers, pings    each lane: one TCP connection,
//!           --log------> peer     appends                                one gRPC stream of `Frames`,
//!           --request--> peer     forwarded commands, queries, watches   requests out, replies back
//!           --bulk-----> peer     checkpoints
//! ```
//! The peer holds its own four towards us. A request never waits for a connection: it fails as not sent.
//! Must never: send a request twice, queue without bound, or let one lane wait for another.

use std::time::Duration;

mod arrivals;
mod carrier;
mod connection;
mod counters;
mod detector;
mod frames;
mod handshake;
mod lane;
mod peers;
mod pings;
mod request;
mod service;
mod stream;

pub use carrier::{Arriving, Carrier, Grpc, NotCarried, Sending};
pub use counters::PeersStats;
pub use detector::{DeadEvidence, Health, PeerState, PeerStatus};
pub use frames::{frame, reply_frame};
pub use handshake::{Known, KnownPeer, Mine, Refusal, RefusalKind, Seen, check_cluster, check_node};
pub use peers::{Peers, PeersConfig};
pub use request::Reply;
pub use service::{FrameHandler, PeerService};

/// Longest wait for a TCP connection to a peer.
pub const CONNECT_LIMIT: Duration = Duration::from_millis(1000);
/// Longest wait for the peer's hello on a new connection.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_millis(1000);
/// After a lost control connection: how often it is tried again, and for how long.
pub const PROBE_EVERY: Duration = Duration::from_millis(2);
/// See [`PROBE_EVERY`].
pub const PROBE_FOR: Duration = Duration::from_millis(50);
/// First wait after a failed attempt; doubles up to [`BACKOFF_MAX`], with jitter.
pub const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A peer from which nothing was heard for this long is pinged.
pub const PING_EVERY: Duration = Duration::from_millis(150);
/// A peer from which nothing was heard for this long is called silent.
pub const SILENT_AFTER: Duration = Duration::from_millis(1000);
/// Connections to a peer that was silent for this long are cut and made anew, so that a healed network is
/// used at once and not after TCP's next retransmission.
pub const CUT_AFTER: Duration = Duration::from_millis(2500);
/// Another boot of a node counts as alive if heard within this time.
pub const IN_USE_WITHIN: Duration = Duration::from_millis(1000);
/// Being told for this long that one's node id is in use by another process stops the process.
pub const IN_USE_FATAL_AFTER: Duration = Duration::from_millis(3000);
/// Largest message of a lane.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest body of a frame.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes waiting for one lane before requests are refused.
pub const LANE_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// HTTP/2 receive window of a lane.
pub const LANE_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of one streamed answer in flight.
pub const STREAM_WINDOW_BYTES: i64 = 1024 * 1024;

#[cfg(test)]
mod tests;
