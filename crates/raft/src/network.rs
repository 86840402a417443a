//! Raft over the peers' lanes: requests of our groups out, requests of theirs in.
//!
//! ```text
//! openraft -> GroupClient -> Peers ===lane===> PeerService -> Dispatch -> Raft of that replica
//! ```
//! Votes, heartbeats and transfers go on the control lane, appends on the log lane, checkpoints on the bulk lane.
//! Every request names the replica it is for; a node that does not hold it says so, and the sender backs off.
//! Must never: hand a request to another replica than the one it names, or let a quick election past a voter whose
//! own detector does not find the old leader dead.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use env::Env;
use types::{PartitionId, ReplicaId};

use crate::listener::RequestHandler;
use crate::peer::{Carrier, Peers, PeersConfig};
use crate::trouble::Trouble;
use crate::types::Raft;

mod checkpoint;
mod client;
mod dispatch;
mod factory;
pub(crate) mod last_logs;
mod marks;
mod pipeline;
mod quick;
mod receive;
mod sendings;

pub use dispatch::Dispatch;
pub use factory::Factory;
pub use marks::Marks;
pub use receive::{Receiving, Room};
pub use sendings::Sendings;

/// Appends in flight to one replica.
pub const APPENDS_IN_FLIGHT: usize = 64;
/// An append that was not answered for this long fails. Longer than a slow disk takes, shorter than a dead link.
pub const APPEND_LIMIT: Duration = Duration::from_millis(2000);
/// Shortest time that a heartbeat, vote or transfer is given.
pub const CONTROL_LIMIT_MIN: Duration = Duration::from_millis(100);
/// Chunks of one checkpoint in flight.
pub const CHUNKS_IN_FLIGHT: usize = 4;
/// One chunk of a checkpoint must be taken within this time.
pub const CHUNK_LIMIT: Duration = Duration::from_secs(10);
/// How long the receiver of a checkpoint waits for the end of its installation before it says that it goes on.
pub const INSTALL_NEWS: Duration = Duration::from_secs(2);
/// After its checkpoint was installed, a replica may take so long to catch up from the log that was kept for it.
pub const CATCH_UP_LIMIT: Duration = Duration::from_secs(60);
/// How often a broken transfer is taken up again, with nothing received in between, before it starts over.
pub const TRANSFER_RESUMES: u32 = 5;
/// A receiver without room for a checkpoint is asked again after this time.
pub const NO_ROOM_PAUSE: Duration = Duration::from_secs(5);
/// Checkpoints that a node receives at one time.
pub const TRANSFERS: usize = 8;
/// A transfer without a chunk for this long is given up by the receiver.
pub const TRANSFER_IDLE: Duration = Duration::from_secs(60);
/// Bytes a second that a node sends of checkpoints, over all of them.
pub const BULK_BYTES_PER_SECOND: u64 = 128 * 1024 * 1024;
/// How long after the old leader asked for it a transfer counts as planned.
pub const PLANNED_FOR: Duration = Duration::from_secs(5);
/// How long a voter lets its own detector make up its mind about a quick election.
pub const CONFIRM_LIMIT: Duration = Duration::from_millis(40);

/// The replicas of this node.
pub trait Registry: Send + Sync + 'static {
    /// The group of exactly this replica, if it is open here.
    fn raft(
        &self,
        partition: PartitionId,
        replica: ReplicaId,
    ) -> Option<(Raft, Arc<dyn storage::PartitionStore>)>;
    /// All groups open here.
    fn groups(&self) -> Vec<(PartitionId, ReplicaId, Raft)>;
}

/// Peers and Raft's traffic with them, for one process.
pub struct Network {
    /// Lanes and detectors.
    pub peers: Arc<Peers>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) env: Env,
    pub(crate) pace: checkpoint::Pace,
    pub(crate) sendings: Sendings,
    quick: tokio::task::JoinHandle<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.quick.abort();
    }
}

impl Network {
    /// Starts without peers. `registry` and `requests` are what incoming requests are served from, `room` is what
    /// checkpoints from elsewhere may take.
    pub fn start(
        config: PeersConfig,
        env: Env,
        carrier: Arc<dyn Carrier>,
        registry: Arc<dyn Registry>,
        requests: Arc<dyn RequestHandler>,
        room: Room,
    ) -> Arc<Network> {
        let marks = Arc::new(Marks::new(env.clock.clone()));
        let known = Arc::new(OnceLock::new());
        let dispatch = Dispatch::new(
            registry.clone(),
            requests,
            marks.clone(),
            env.clone(),
            known.clone(),
            room,
        );
        let peers = Peers::start(config, env.clone(), carrier, dispatch);
        // The only place that sets it.
        let _ = known.set(Arc::downgrade(&peers));
        let quick = quick::Quick::new(&peers, registry, marks.clone(), env.clone());
        Arc::new(Network {
            quick: tokio::spawn(quick.run(peers.deaths())),
            peers,
            marks,
            sendings: Sendings::new(env.clock.clone()),
            pace: checkpoint::Pace::new(env.clock.clone(), BULK_BYTES_PER_SECOND),
            env,
        })
    }

    /// What openraft takes for the group of one replica here.
    pub fn factory(self: &Arc<Self>, partition: PartitionId, trouble: Arc<Trouble>) -> Factory {
        Factory::new(self.clone(), partition, trouble)
    }
}

#[cfg(test)]
mod tests;
