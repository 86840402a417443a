//! What is done to a cluster, one file each. To add one: write the file, and name it in [`all`].
//!
//! A fault begins, lasts for a while, and is mended. Several may last at a time. When it is mended it says what proves
//! that it was there: a fault that nobody noticed was none.

use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use workload::numbers::Numbers;

mod clock;
mod cut;
mod disk;
mod kill;
mod link;
mod members;
mod pause;
mod power;
mod restart;

/// One kind of fault.
pub trait Nemesis {
    /// A word, for the command line, the plan and the count.
    fn name(&self) -> &'static str;
    /// One line for people.
    fn about(&self) -> &'static str;
    /// Begins it; `None` if there is nothing that it could be done to now.
    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>>;
}

/// What proves that a fault was there.
pub type Seen = Option<String>;

/// Ends a fault, and says how it was seen.
pub type Mend = Box<dyn FnOnce(&mut Cluster) -> Result<Seen>>;

/// A fault that lasts.
pub struct Begun {
    /// For how long.
    pub lasts: Duration,
    /// What it is.
    pub text: String,
    /// Ends it, and says how it was seen.
    pub mend: Mend,
}

impl Begun {
    /// A fault of so many milliseconds.
    pub fn new(
        lasts_ms: u64,
        text: impl Into<String>,
        mend: impl FnOnce(&mut Cluster) -> Result<Seen> + 'static,
    ) -> Option<Begun> {
        Some(Begun {
            lasts: Duration::from_millis(lasts_ms),
            text: text.into(),
            mend: Box::new(mend),
        })
    }
}

/// All of them.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(clock::Clock),
        Box::new(cut::Cut),
        Box::new(cut::Reset),
        Box::new(disk::Disks::Slow),
        Box::new(disk::Disks::Failing),
        Box::new(disk::Disks::Flipping),
        Box::new(disk::Disks::Full),
        Box::new(kill::Kill),
        Box::new(link::Links::Slow),
        Box::new(link::Links::Lossy),
        Box::new(link::Links::Doubling),
        Box::new(link::Links::Shuffling),
        Box::new(link::Links::Narrow),
        Box::new(members::Members),
        Box::new(pause::Pause),
        Box::new(power::Power),
        Box::new(restart::Restart),
    ]
}

/// One of these positions: half the time the leader of some partition, if it is among them.
fn target(cluster: &Cluster, numbers: &mut Numbers, among: &[usize]) -> Option<usize> {
    if among.is_empty() {
        return None;
    }
    let any = *numbers.pick(among);
    let (wants_leader, partition) = (
        numbers.once_in(2),
        numbers.below(u64::from(cluster.partitions) + 1),
    );
    let leader = wants_leader.then(|| cluster.leader(partition as u32)).flatten();
    Some(leader.filter(|leader| among.contains(leader)).unwrap_or(any))
}
