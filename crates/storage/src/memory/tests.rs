//! Tests of the memory stores.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use machine::Change;
use parking_lot::Mutex;
use types::{PartitionId, ReplicaId};

use super::MemoryDisk;
use crate::suite::{self, Fixture};
use crate::{Applied, Done, Fatal, LogRecord, LogStore, PartitionStores};

const R: ReplicaId = ReplicaId(1);

/// Crashes keep the part of the unsynced tail that `keep` asks for, in tenths.
struct Memory {
    disk: Arc<MemoryDisk>,
    keep: usize,
}

impl Fixture for Memory {
    fn log(&mut self) -> io::Result<Arc<dyn LogStore>> {
        Ok(self.disk.log(Arc::new(|error| panic!("fatal: {error}"))))
    }

    fn stores(&mut self) -> io::Result<Arc<dyn PartitionStores>> {
        Ok(self.disk.stores())
    }

    fn crash(&mut self) {
        let keep = self.keep;
        self.disk.crash(&mut |n| (n - 1) * keep / 10);
    }
}

#[test]
fn a_killed_process_leaves_its_log_and_loses_what_it_had_in_memory() {
    let disk = MemoryDisk::new();
    let log = disk.log(Arc::new(|error| panic!("fatal: {error}")));
    let store = disk.stores().open(PartitionId(1), R).unwrap();
    store.commit(&[], &Applied::default()).unwrap();
    disk.hold_sync(true);
    log.save_vote(R, Bytes::from_static(b"vote"), Box::new(drop));
    disk.kill(&mut |_| 0);
    let log = disk.log(Arc::new(|error| panic!("fatal: {error}")));
    assert_eq!(log.state(R).unwrap().vote.as_deref(), Some(&b"vote"[..]));
    let store = disk.stores().open(PartitionId(1), R).unwrap();
    assert_eq!(store.applied().unwrap(), None);
}

#[test]
fn the_whole_disk_conforms() {
    for (name, case) in suite::DISK_CASES {
        println!("{name}");
        let disk = MemoryDisk::new();
        case(&|| disk.clone());
    }
}

#[test]
fn conforms() {
    for keep in [0, 5, 10] {
        suite::run(|| {
            Box::new(Memory {
                disk: MemoryDisk::new(),
                keep,
            })
        });
    }
}

fn record(index: u64) -> LogRecord {
    LogRecord {
        index,
        data: Bytes::from(format!("entry {index}")),
    }
}

/// Notes what callbacks say.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(u64, bool)>>>);

impl Told {
    fn done(&self, number: u64) -> Done {
        let told = self.0.clone();
        Box::new(move |result| told.lock().push((number, result.is_ok())))
    }

    fn take(&self) -> Vec<(u64, bool)> {
        std::mem::take(&mut self.0.lock())
    }
}

fn ignore() -> Fatal {
    Arc::new(|_| {})
}

#[test]
fn held_syncs_are_readable_and_untold_until_released() {
    let disk = MemoryDisk::new();
    let told = Told::default();
    let log = disk.log(ignore());
    disk.hold_sync(true);
    for index in 1..=3 {
        log.append(R, vec![record(index)], told.done(index));
    }
    assert_eq!(log.read(R, 0..9, usize::MAX).unwrap().len(), 3);
    assert_eq!((told.take(), disk.unsynced()), (vec![], 3));
    disk.hold_sync(false);
    assert_eq!(
        (told.take(), disk.unsynced()),
        (vec![(1, true), (2, true), (3, true)], 0)
    );
}

#[test]
fn a_crash_keeps_any_prefix_of_what_was_held_and_tells_nobody() {
    for kept in 0..=3 {
        let disk = MemoryDisk::new();
        let told = Told::default();
        let log = disk.log(ignore());
        log.append(R, vec![record(1)], told.done(1));
        disk.hold_sync(true);
        for index in 2..=4 {
            log.append(R, vec![record(index)], told.done(index));
        }
        disk.crash(&mut |n| kept.min(n - 1));
        assert!(log.read(R, 0..9, usize::MAX).is_err(), "the old process is gone");
        assert_eq!(told.take(), vec![(1, true)]);
        let log = disk.log(ignore());
        assert_eq!(log.read(R, 0..9, usize::MAX).unwrap().len(), 1 + kept);
        log.append(R, vec![record(2 + kept as u64)], told.done(9));
        assert_eq!(told.take(), vec![(9, true)]);
    }
}

#[test]
fn a_torn_append_keeps_its_first_records() {
    let disk = MemoryDisk::new();
    let log = disk.log(ignore());
    disk.hold_sync(true);
    log.append(R, (1..=5).map(record).collect(), Told::default().done(1));
    let mut choices = [0, 3].into_iter();
    disk.crash(&mut |_| choices.next().unwrap_or(0));
    assert_eq!(disk.log(ignore()).read(R, 0..9, usize::MAX).unwrap().len(), 3);
}

#[test]
fn a_failed_sync_is_fatal_once_and_never_tried_again() {
    let disk = MemoryDisk::new();
    let (told, fatals) = (Told::default(), Arc::new(Mutex::new(0)));
    let count = fatals.clone();
    let log = disk.log(Arc::new(move |_| *count.lock() += 1));
    log.append(R, vec![record(1)], told.done(1));
    disk.fail_sync();
    for index in 2..=3 {
        log.append(R, vec![record(index)], told.done(index));
    }
    log.save_vote(R, Bytes::from_static(b"vote"), told.done(4));
    assert_eq!(
        (told.take(), *fatals.lock()),
        (vec![(1, true), (2, false), (3, false), (4, false)], 1)
    );
    disk.crash(&mut |_| 0);
    let log = disk.log(ignore());
    assert_eq!(log.read(R, 0..9, usize::MAX).unwrap().len(), 1);
    log.append(R, vec![record(2)], told.done(5));
    assert_eq!(told.take(), vec![(5, true)]);
}

#[test]
fn a_callback_that_writes_is_told_after_those_before_it() {
    let disk = MemoryDisk::new();
    let told = Told::default();
    let log = disk.log(ignore());
    disk.hold_sync(true);
    let (again, inner, first) = (log.clone(), told.done(3), told.done(1));
    log.append(
        R,
        vec![record(1)],
        Box::new(move |result| {
            first(result);
            again.append(R, vec![record(3)], inner);
        }),
    );
    log.append(R, vec![record(2)], told.done(2));
    disk.hold_sync(false);
    assert_eq!(told.take(), vec![(1, true), (2, true), (3, true)]);
}

#[test]
fn damage_and_free_space_are_seen() {
    let disk = MemoryDisk::new();
    let (log, stores) = (disk.log(ignore()), disk.stores());
    log.append(R, vec![record(1)], Told::default().done(1));
    disk.damage_entry(R, 1);
    let error = log.read(R, 0..9, usize::MAX).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("entry 1 of replica 1"), "{error}");

    let store = stores.open(PartitionId(1), R).unwrap();
    let change = Change {
        key: Bytes::from_static(b"key"),
        value: Some(Bytes::new()),
    };
    store.commit(&[change], &Applied::default()).unwrap();
    disk.damage_state(PartitionId(1), R);
    assert!(store.latest().get(b"key").is_err());
    drop(store);
    assert_eq!(
        stores.open(PartitionId(1), R).err().unwrap().kind(),
        io::ErrorKind::InvalidData
    );
    stores.remove(PartitionId(1), R).unwrap();
    stores.open(PartitionId(1), R).unwrap();
    disk.set_free_bytes(5);
    assert_eq!(stores.free_bytes().unwrap(), 5);
}

#[test]
fn how_far_a_log_was_purged_is_told_as_read_and_as_synced() {
    let disk = MemoryDisk::new();
    let log = disk.log(Arc::new(|error| panic!("fatal: {error}")));
    let records = (1..=9).map(|index| LogRecord {
        index,
        data: Bytes::from_static(b"x"),
    });
    log.append(R, records.collect(), Box::new(|result| result.unwrap()));
    assert_eq!((disk.purged(R), disk.purged_synced(R)), (0, 0));
    disk.hold_sync(true);
    log.purge(
        R,
        4,
        Bytes::from_static(b"id"),
        Box::new(|result| result.unwrap()),
    );
    assert_eq!((disk.purged(R), disk.purged_synced(R)), (4, 0));
    disk.sync();
    assert_eq!((disk.purged(R), disk.purged_synced(R)), (4, 4));
}
