//! One controller: its configuration and identity, the routing of requests to partitions, the reconcilers, and the
//! services clients speak to. Consensus is in `raft`, decisions about state in `machine`, placement in `planner`.
//! Begin with [`node`]: it shows how everything is put together.

pub mod config;
pub mod core;
mod files;
pub mod guard;
pub mod host;
pub mod housekeeping;
pub mod http;
pub mod identity;
pub mod join;
pub mod metrics;
pub mod node;
pub mod reconcile;
pub mod request;
pub mod service;
pub mod watch;

pub use config::Config;
pub use core::Core;
pub use host::Host;
pub use node::{Node, StartError, init, init_on};
