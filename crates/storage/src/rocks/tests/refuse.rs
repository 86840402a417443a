//! What is refused: another's log, a directory in use, work after a failed write.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use types::{PartitionId, ReplicaId, limits};

use super::super::{Log, Options, Partitions, Step};
use super::{no_fatal, owned, record};
use crate::LogStore;

const R: ReplicaId = ReplicaId(1);
const PATIENCE: Duration = Duration::from_secs(60);

fn append(log: &dyn LogStore, index: u64) -> io::Result<()> {
    let (sender, receiver) = channel();
    log.append(
        R,
        vec![record(index)],
        Box::new(move |result| sender.send(result).unwrap()),
    );
    receiver.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_log_of_another_cluster_or_node_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(Log::open(dir.path(), owned(0xaaaa, 1), no_fatal()).unwrap());
    drop(Log::open(dir.path(), owned(0xaaaa, 1), no_fatal()).unwrap());
    for (owner, expected) in [
        (
            owned(0xbbbb, 1),
            "belongs to cluster 000000000000aaaa, this node is of cluster 000000000000bbbb",
        ),
        (owned(0xaaaa, 2), "belongs to node 1, this is node 2"),
    ] {
        let error = Log::open(dir.path(), owner, no_fatal()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(
            error.to_string().contains(&dir.path().display().to_string()),
            "{error}"
        );
    }
    drop(Log::open(dir.path(), Options::default(), no_fatal()).unwrap());
}

#[test]
fn a_directory_in_use_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (log_dir, state_dir) = (dir.path().join("log"), dir.path().join("partitions"));
    let log = Log::open(&log_dir, owned(1, 1), no_fatal()).unwrap();
    let stores = Partitions::open(&state_dir, Options::default()).unwrap();
    let errors = [
        Log::open(&log_dir, owned(1, 1), no_fatal()).err().unwrap(),
        Partitions::open(&state_dir, Options::default()).err().unwrap(),
    ];
    for error in errors {
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(error.to_string().contains("is in use"), "{error}");
    }
    drop((log, stores));
    Log::open(&log_dir, owned(1, 1), no_fatal()).unwrap();
    Partitions::open(&state_dir, Options::default()).unwrap();
}

#[test]
fn a_failed_write_is_fatal_once_and_never_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let asked = broken.clone();
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = writes.clone();
    let probe = move |step: Step| {
        if step == Step::LogBeforeSync {
            counted.fetch_add(1, Ordering::SeqCst);
            if asked.load(Ordering::SeqCst) {
                return Err(io::Error::other("EIO"));
            }
        }
        Ok(())
    };
    let options = Options {
        probe: Some(Arc::new(probe)),
        ..Options::default()
    };
    let fatals = Arc::new(Mutex::new(Vec::new()));
    let told = fatals.clone();
    let log = Log::open(
        dir.path(),
        options,
        Arc::new(move |error| told.lock().unwrap().push(error.to_owned())),
    )
    .unwrap();
    append(&*log, 1).unwrap();
    broken.store(true, Ordering::SeqCst);
    append(&*log, 2).unwrap_err();
    broken.store(false, Ordering::SeqCst);
    for index in 3..6 {
        assert!(append(&*log, index).unwrap_err().to_string().contains("EIO"));
    }
    assert_eq!(*fatals.lock().unwrap(), ["EIO"]);
    assert_eq!(writes.load(Ordering::SeqCst), 2, "nothing is tried again");
    drop(log);
    let log = Log::open(dir.path(), Options::default(), no_fatal()).unwrap();
    assert_eq!(log.read(R, 0..9, usize::MAX).unwrap(), vec![record(1)]);
}

/// A log whose syncs wait until the returned sender sends or is dropped; and how many have begun.
fn held_log(
    dir: &std::path::Path,
) -> (
    Arc<dyn LogStore>,
    std::sync::mpsc::SyncSender<()>,
    Arc<AtomicUsize>,
) {
    let (release, held) = sync_channel::<()>(0);
    let held = Mutex::new(held);
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let probe = move |step: Step| {
        if step == Step::LogBeforeSync {
            counted.fetch_add(1, Ordering::SeqCst);
            held.lock().unwrap().recv().unwrap_or_default();
        }
        Ok(())
    };
    let options = Options {
        probe: Some(Arc::new(probe)),
        ..Options::default()
    };
    (Log::open(dir, options, no_fatal()).unwrap(), release, begun)
}

#[test]
fn what_waits_goes_into_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (log, release, begun) = held_log(dir.path());
    let (sender, receiver) = channel();
    let vote = |replica: u64| {
        let sender = sender.clone();
        log.save_vote(
            ReplicaId(replica),
            Bytes::new(),
            Box::new(move |_| sender.send(replica).unwrap()),
        );
    };
    vote(0);
    while begun.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    (1..=64).for_each(vote);
    drop(release);
    let told: Vec<u64> = (0..=64)
        .map(|_| receiver.recv_timeout(PATIENCE).unwrap())
        .collect();
    assert_eq!(told, (0..=64).collect::<Vec<_>>());
    let stats = log.stats();
    assert_eq!((stats.syncs, stats.operations), (2, 65));
}

#[test]
fn a_full_queue_makes_callers_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (log, release, begun) = held_log(dir.path());
    let pushed = Arc::new(AtomicUsize::new(0));
    let (counted, pusher_log, held) = (pushed.clone(), log.clone(), begun.clone());
    let (sender, receiver) = channel();
    let all = limits::LOG_QUEUE_OPERATIONS + 1000;
    let pusher = std::thread::Builder::new()
        .name("pusher".into())
        .spawn(move || {
            for number in 0..all {
                let sender = sender.clone();
                pusher_log.save_vote(R, Bytes::new(), Box::new(move |_| sender.send(number).unwrap()));
                counted.fetch_add(1, Ordering::SeqCst);
                // The writer takes all that is there: it is to be held with the first one alone.
                while held.load(Ordering::SeqCst) == 0 {
                    std::thread::yield_now();
                }
            }
        })
        .unwrap();
    while pushed.load(Ordering::SeqCst) < limits::LOG_QUEUE_OPERATIONS {
        std::thread::yield_now();
    }
    // The rest fill the queue, and the last ones cannot get in.
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    assert!(pushed.load(Ordering::SeqCst) < all);
    drop(release);
    pusher.join().unwrap();
    for number in 0..all {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), number);
    }
}

#[test]
fn an_interrupted_first_open_and_an_interrupted_removal_are_carried_on() {
    let dir = tempfile::tempdir().unwrap();
    let partition = dir.path().join("5");
    std::fs::create_dir_all(partition.join("1-1")).unwrap();
    std::fs::create_dir_all(partition.join("2-1")).unwrap();
    std::fs::create_dir_all(partition.join("2-4.incoming")).unwrap();
    std::fs::create_dir_all(partition.join("2-5.checkpoint")).unwrap();
    std::fs::write(partition.join("2.removed"), []).unwrap();
    let stores = Partitions::open(dir.path(), Options::default()).unwrap();
    let names: Vec<_> = super::files(&partition, "");
    assert_eq!(names, [partition.join("1-1")]);
    stores.open(PartitionId(5), R).unwrap();
}
