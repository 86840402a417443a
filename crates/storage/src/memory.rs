//! Twins of the production stores in memory, with a model of what a crash leaves behind. No threads, no clock: a
//! simulator decides when a sync happens, whether it fails, and what of the unsynced tail survives.
//!
//! ```text
//! log     what is there now = synced image + unsynced operations, in order
//! state   what is there now = durable image + commits since, in order
//! crash   keeps a prefix of each; the last log append may be cut between two records
//! ```

mod disk;
mod files;
mod log;
mod state;

#[cfg(test)]
mod tests;

pub use disk::{Choose, MemoryDisk};
