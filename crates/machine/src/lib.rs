//! The deterministic state machine of one partition: key spaces with revisions, leases, sessions, and, in
//! partition 0, the cluster's own records. It decides; it never performs.
//!
//! `apply(view, stamp, batch) -> Outcome` is synchronous and total. A refused command is a reply. The only
//! error is that `view` could not be read, which the shell treats as damage to this replica.
//!
//! Must never: read a clock, draw a random number, do I/O, log, or iterate an unordered map.
//!
//! Invariant: two replicas that applied the same log ids hold the same records and the same state hash
//! (`record::state`, checked by the consistency checker of `server`).

pub mod apply;
pub mod command;
pub mod invariant;
pub mod memory;
pub mod outcome;
pub mod overlay;
pub mod query;
pub mod record;
#[cfg(test)]
mod testing;
pub mod touched;
pub mod view;

pub use apply::apply;
pub use command::{Batch, Command};
pub use memory::MemView;
pub use outcome::{Change, Effect, Event, EventKind, Events, Outcome, Reply, Stamp};
pub use query::{Answer, Query, answer};
pub use touched::Touched;
pub use view::{ApplyError, View, ViewError};
