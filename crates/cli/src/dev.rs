//! A cluster on one machine: where its nodes are, their processes, and whether they are ready.

pub mod child;
pub mod plan;
pub mod ready;
