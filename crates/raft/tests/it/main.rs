//! Tests of the raft crate over real stores and a real loopback network.
#![allow(clippy::unwrap_used)]

mod catalogue;
mod cluster;
mod elections;
mod flaky;
mod kit;
mod links;
mod members;
mod power;
mod quick;
mod rocks;
mod single;
mod suite;
mod traffic;
mod transfer;
mod trouble;
mod wall;
