//! The gRPC services of a controller, all on the client port.

pub mod cluster;
pub mod direct;
pub mod error;
pub mod etcd;
pub mod reflection;
