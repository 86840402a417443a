//! Black-box tests of the built `holdfast` binary: what every test file shares.
//!
//! Nothing here links the server. A cluster is real processes, killed with real signals.

pub mod cluster;
pub mod etcd;
pub mod http;
pub mod load;
pub mod net;
pub mod raw;
pub mod until;

pub use cluster::Cluster;
pub use until::until;
