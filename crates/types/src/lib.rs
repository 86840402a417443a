//! Identifiers, units and limits that every other crate speaks in. No behaviour beyond parsing and printing.

pub mod epoch;
pub mod id;
pub mod limits;
pub mod planted;

pub use epoch::{BootId, ClusterVersion, Generation, Incarnation};
pub use id::{ClientId, ClusterId, NamespaceId, NodeId, PartitionId, ReplicaId, Slot};
