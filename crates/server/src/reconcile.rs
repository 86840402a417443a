//! Moves what is towards what is wanted. Every node follows the map (peers, replicas to open or remove); the leader
//! of each partition moves its membership; the leader of the meta partition plans placement and leaders.
//!
//! All of it starts over from map and observation each time: nothing here must survive a restart.

mod consistency;
mod follow;
mod membership;
mod observe;
mod placement;
mod replicas;
mod version;

use std::sync::Arc;
use std::time::Duration;

use machine::record::meta::Node;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::Core;
use crate::identity::DataDir;

pub use consistency::{Comparison, compare};
pub(crate) use follow::{all_peers, unseen};
pub use observe::observed;
pub use placement::{LeaderMove, balance_once};
pub(crate) use replicas::{failed_open, on_disk};

/// Starts all reconcilers of this node; they end at `stop`. Replicas are compared `compare_every` so often.
pub fn start(
    core: &Arc<Core>,
    data: &Arc<DataDir>,
    own: Node,
    compare_every: Duration,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    tasks.spawn(until(stop.clone(), follow::run(core.clone(), data.clone(), own)));
    tasks.spawn(until(stop.clone(), replicas::run(core.clone(), data.clone())));
    tasks.spawn(until(stop.clone(), membership::run(core.clone())));
    tasks.spawn(until(stop.clone(), placement::run(core.clone())));
    tasks.spawn(until(stop.clone(), consistency::run(core.clone(), compare_every)));
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
