//! The production stores: one RocksDB for the log of all replicas, one per partition replica for its state.
//!
//! Must never: answer before the write order in the crate's comment allows it, or serve bytes that failed a checksum.

mod checkpoint;
mod codec;
mod disk;
mod files;
mod generation;
mod hot;
mod load;
mod log;
mod mirror;
mod open;
mod options;
mod state;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use disk::DirDisk;
pub use log::Log;
pub use open::Partitions;
pub use options::{LOG_FILES, Options, Probe, STATE_FILES, Step};
