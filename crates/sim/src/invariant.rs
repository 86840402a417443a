//! What must hold after each step, one file each. To add one: write the file, and name it in [`all`].

use std::collections::BTreeMap;

use raft::{Marks, ReplicaStatus};
use server::core::Hashes;
use storage::memory::MemoryDisk;
use types::{PartitionId, ReplicaId};

mod committed;
mod hashes;
mod order;
mod queues;
mod terms;

/// One replica that is open.
pub struct Open {
    /// Index of its host.
    pub at: usize,
    /// Its partition.
    pub partition: PartitionId,
    /// Its id, which no other replica ever has.
    pub replica: ReplicaId,
    /// What it says of itself.
    pub status: ReplicaStatus,
}

/// One host: its disk, and what runs there.
pub struct Host<'a> {
    /// The id of its node.
    pub id: u64,
    /// Process starts so far.
    pub boots: u64,
    /// Its disk.
    pub disk: &'a MemoryDisk,
    /// Its process, if there is one: all Raft of it, and the hashes of its states.
    pub process: Option<(&'a raft::Node, &'a Hashes)>,
}

/// What an invariant looks at.
pub struct Seen<'a> {
    /// All hosts.
    pub hosts: &'a [Host<'a>],
    /// Simulated time.
    pub now_ms: u64,
    /// Whether a node has lost what it had.
    pub lost: bool,
    /// Replicas that are open and have changed since the last look.
    pub open: &'a [Open],
}

/// A property of every reachable state, or of every two states of which one follows the other.
pub trait Invariant {
    /// In a few words.
    fn name(&self) -> &'static str;
    /// What is wrong, if something is.
    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String>;
}

/// All of them, of a new run.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<committed::Committed>::default(),
        Box::<hashes::Hashes>::default(),
        Box::<order::Order>::default(),
        Box::new(queues::Queues),
        Box::<terms::Terms>::default(),
    ]
}

/// Finds out which replicas have changed: most have not, most of the time, and to look at all of them costs more than to
/// run them.
#[derive(Default)]
pub struct Looks {
    /// By host and replica: its boot then, and how far it was.
    last: BTreeMap<(usize, ReplicaId), (u64, Marks)>,
}

impl Looks {
    /// Every replica that is open and was not so, or is further, since the last call.
    pub fn changed(&mut self, hosts: &[Host<'_>]) -> Vec<Open> {
        let mut changed = Vec::new();
        for (at, host) in hosts.iter().enumerate() {
            let Some((raft, _)) = host.process else { continue };
            for replica in raft.replicas() {
                let now = (host.boots, replica.marks());
                if self.last.insert((at, replica.replica_id()), now) != Some(now) {
                    changed.push(Open {
                        at,
                        partition: replica.partition(),
                        replica: replica.replica_id(),
                        status: replica.status(),
                    });
                }
            }
        }
        changed
    }
}

/// Up to which entry a replica's state holds everything, whatever crashes.
pub fn durable_index(disk: &MemoryDisk, partition: PartitionId, replica: ReplicaId) -> u64 {
    let applied = disk.durable(partition, replica);
    let position = applied.map(|applied| raft::convert::applied_in(&applied).expect("written by this code"));
    position.map_or(0, |(id, _)| id.index)
}
