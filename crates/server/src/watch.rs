//! Events of applied revisions, handed to watchers: from memory when recent, from history else. A slow watcher
//! costs bounded memory and misses nothing.
//!
//! - [`Hub`]: all watched key spaces of the node; `raft`'s listener pushes into it.
//! - `feed`: one key space: a `ring` of recent revisions, an `index` of who wants which keys, dispatch to inboxes.
//! - `inbox`: what waits for one stream, bounded; when full, the stream reads history instead.
//! - [`stream`]: one client's stream: requests, responses, the way between history and feed.
//! - `driver`, [`proxy`]: where a feed's events come from, this node's replica or another node.
//! - `leadership`: whether there is a leader, for streams that want to know.
//! - `event`, [`frame`]: events encoded once and shared by all responses.
//!
//! Must never block the thread that applies, and never hold more than the limits of `types::limits` for a client.

mod driver;
pub mod event;
mod feed;
pub mod frame;
mod hub;
mod inbox;
pub mod index;
mod leadership;
pub mod proxy;
mod ring;
pub mod source;
pub mod stream;
mod table;

pub use hub::{Hub, HubStats};
pub use proxy::serve_remote;
pub use source::Source;

#[cfg(test)]
mod tests;
