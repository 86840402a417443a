//! Adapts openraft to our storage, peers and state machine. The only crate that names openraft.
//!
//! One [`Node`] holds all groups of a process; a [`Replica`] is one group's replica here. Raft's node id is the
//! replica's id, so a replica that was wiped or copied can never vote under an id that has voted before.
//!
//! Must never: answer a proposal before its entry is applied here, send a proposal again whose fate is unknown,
//! or serve a linearizable read from a lease.

mod appends;
mod clock;
mod committed;
mod config;
pub mod convert;
mod error;
mod groups;
mod listener;
mod log_store;
mod membership;
mod network;
mod node;
pub mod peer;
mod propose;
mod purge;
mod read;
mod replica;
mod runtime;
mod state_machine;
mod trouble;
pub mod types;

pub use appends::Appends;
pub use config::{NodeConfig, Retention, Timing};
pub use error::{MembershipError, ProposeError, RaftError, ReadError, RequestError};
pub use listener::{ApplyListener, RequestHandler};
pub use log_store::ReplicaLog;
pub use network::{Receiving, Room};
pub use node::{Node, NodeStats};
pub use peer::{FRAME_BYTES_MAX, KnownPeer, PeerState, PeerStatus};
pub use propose::Proposed;
pub use read::ReadPoint;
pub use replica::{Marks, Replica, ReplicaStatus};
pub use state_machine::{Ended, Progress, StateMachine};
pub use trouble::Trouble;
