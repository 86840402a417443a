//! Numbers that only grow, and fence whoever holds an older one.

use std::fmt;

macro_rules! epoch {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

epoch!(
    /// Random number made when a data directory is created; the cluster remembers it with the node id.
    Incarnation(u64)
);
epoch!(
    /// Random number made at each process start; tells two processes of one identity apart.
    BootId(u64)
);
epoch!(
    /// Generation of a partition's directory, or of a plan.
    Generation(u64)
);
epoch!(
    /// The format that every node of the cluster understands; gates new commands.
    ClusterVersion(u32)
);

/// The newest format this build writes and understands.
pub const CLUSTER_VERSION: ClusterVersion = ClusterVersion(1);

/// The oldest a peer may understand: nodes from it to [`CLUSTER_VERSION`] can be in one cluster, as while it is
/// being upgraded node by node.
pub const CLUSTER_VERSION_OLDEST: ClusterVersion = ClusterVersion(1);
