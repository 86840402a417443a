//! Pure planning: from the cluster map (what is wanted) and what was observed, to steps. A plan leaves no choice to
//! whoever carries it out, and each step names the generation it was made from, so that a stale one is refused.
//!
//! Must never: read a clock, draw a random number, do I/O, log, or iterate an unordered map.

pub mod balance;
pub mod input;
pub mod membership;
pub mod placement;

pub use balance::{Transfer, plan_leaders};
pub use input::{Observed, PartitionSeen, Policy};
pub use membership::{Change, Members, next_change};
pub use placement::{Step, has_surplus, plan_placement};
