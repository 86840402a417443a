//! The whole cluster on one thread, under a seed: real server code and real tonic over turmoil's network, stores in
//! memory that crash. Begin with [`run`]: it shows what a seed goes through.
//!
//! Must never: read a real clock or real entropy once a run has begun. One process runs one seed.

pub mod clock;
pub mod controller;
pub mod fault;
pub mod invariant;
pub mod many;
pub mod messages;
pub mod net;
pub mod plan;
pub mod run;
pub mod settled;
pub mod trace;
pub mod world;
