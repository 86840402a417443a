//! What every implementation of the stores must do, as functions over a [`Fixture`]. Each panics with what is wrong.
//! Both implementations run all of [`CASES`] in their tests.

mod disk;
mod log;
mod random;
mod state;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::{Disk, Done, LogStore, PartitionStores};

/// A disk that stores can be opened on again and again.
pub trait Fixture {
    /// Opens the log; what was opened before is dropped by then, or belongs to a time before a crash.
    fn log(&mut self) -> io::Result<Arc<dyn LogStore>>;
    /// Opens the states, under the same condition.
    fn stores(&mut self) -> io::Result<Arc<dyn PartitionStores>>;
    /// The process dies, at the least; what is open belongs to the past.
    fn crash(&mut self);
}

/// Properties of a whole disk, by name; `fresh` makes an empty one.
pub const DISK_CASES: &[(&str, DiskCase)] = &[
    ("small files are replaced, read and removed", disk::files),
    ("one process has it", disk::lock),
    ("stores are of one owner, and used from then on", disk::owner),
];

/// One property of a whole disk.
pub type DiskCase = fn(&dyn Fn() -> Arc<dyn Disk>);

/// One property.
pub type Case = fn(&mut dyn Fixture);

/// All properties, by name.
pub const CASES: &[(&str, Case)] = &[
    (
        "log: entries of two replicas are readable at once",
        log::entries_are_readable_at_once,
    ),
    (
        "log: reads are cut by bytes and by bounds",
        log::reads_are_bounded,
    ),
    (
        "log: truncated entries are gone, others take their place",
        log::truncates,
    ),
    ("log: truncating everything", log::truncates_everything),
    ("log: purged entries are gone and remembered", log::purges),
    ("log: purging past the end", log::purges_past_the_end),
    (
        "log: votes and committed ids of two replicas",
        log::votes_and_committed,
    ),
    ("log: removing a replica leaves the other", log::removes),
    ("log: callbacks fire in order", log::callbacks_in_order),
    ("log: gaps are refused", log::gaps_are_refused),
    (
        "log: acknowledged means there after a crash",
        log::acknowledged_survives_a_crash,
    ),
    ("log: any history equals a plain map", random::log_equals_a_map),
    ("state: get and scan in both directions", state::reads),
    ("state: points do not change", state::points_do_not_change),
    (
        "state: data and position are one",
        state::data_and_position_are_one,
    ),
    (
        "state: a crash loses a suffix, never what was flushed",
        state::crash_loses_a_suffix,
    ),
    (
        "state: a checkpoint is frozen and installs elsewhere",
        state::checkpoint_installs_elsewhere,
    ),
    (
        "state: incomplete or damaged copies are refused",
        state::bad_copies_are_refused,
    ),
    (
        "state: names that lead elsewhere are refused",
        state::foreign_names_are_refused,
    ),
    ("state: open once, list, remove", state::opens_once_lists_removes),
    ("state: partitions are apart", state::partitions_are_apart),
];

/// Runs every case on a fresh fixture.
pub fn run(mut fresh: impl FnMut() -> Box<dyn Fixture>) {
    for (name, case) in CASES {
        eprintln!("{name}");
        case(&mut *fresh());
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

/// A callback, and where its result arrives.
fn done() -> (Done, Receiver<io::Result<()>>) {
    let (sender, receiver) = channel();
    let done: Done = Box::new(move |result| {
        // Whoever waited may have given up.
        sender.send(result).unwrap_or_default();
    });
    (done, receiver)
}

/// Starts something and waits until it is durable.
fn wait(start: impl FnOnce(Done)) -> io::Result<()> {
    let (done, receiver) = done();
    start(done);
    receiver.recv_timeout(PATIENCE).expect("the callback fires")
}

/// As [`wait`], for what must succeed.
fn durable(start: impl FnOnce(Done)) {
    wait(start).expect("the write succeeds");
}
