//! Tests of the RocksDB stores: conformance, damage, refusals, and processes that die.

mod crash;
mod damage;
mod refuse;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use machine::Change;
use tempfile::TempDir;
use types::ReplicaId;

use super::{DirDisk, Log, Options, Partitions, Step};
use crate::suite::{self, Fixture};
use crate::{Applied, Checkpoint, Incoming, Owner, PartitionStore};
use crate::{Fatal, LogRecord, LogStore, PartitionStores};

/// A crash is modelled by copying the files while the process that wrote them still has them open: what it held in
/// memory is not in the copy.
struct Rocks {
    root: TempDir,
    boot: u32,
}

impl Rocks {
    fn new() -> Rocks {
        Rocks {
            root: tempfile::tempdir().unwrap(),
            boot: 0,
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.boot.to_string())
    }
}

impl Fixture for Rocks {
    fn log(&mut self) -> io::Result<Arc<dyn LogStore>> {
        Log::open(&self.dir().join("log"), Options::default(), no_fatal())
    }

    fn stores(&mut self) -> io::Result<Arc<dyn PartitionStores>> {
        Partitions::open(&self.dir().join("partitions"), Options::default())
    }

    fn crash(&mut self) {
        let from = self.dir();
        self.boot += 1;
        copy_tree(&from, &self.dir());
    }
}

#[test]
fn the_whole_disk_conforms() {
    for (name, case) in suite::DISK_CASES {
        println!("{name}");
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("not there yet");
        case(&|| Arc::new(DirDisk::new(&path, Options::default())));
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            match fs::copy(entry.path(), to) {
                // RocksDB removes what a flush made obsolete in the background.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

fn no_fatal() -> Fatal {
    Arc::new(|error| panic!("fatal: {error}"))
}

fn record(index: u64) -> LogRecord {
    LogRecord {
        index,
        data: Bytes::from(format!("entry {index}")),
    }
}

fn owned(cluster: u64, node: u64) -> Options {
    let owner = Owner {
        cluster: types::ClusterId(cluster),
        node: types::NodeId(node),
    };
    Options {
        owner: Some(owner),
        ..Options::default()
    }
}

/// Files in `dir` whose names end so, sorted.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| path.to_string_lossy().ends_with(suffix));
    found.sort();
    found
}

#[test]
fn conforms() {
    suite::run(|| Box::new(Rocks::new()));
}

/// Appends one record of `bytes` zeros, and waits until it is durable.
fn append(log: &dyn LogStore, index: u64, bytes: usize) {
    append_filled(log, index, bytes, 0);
}

fn append_filled(log: &dyn LogStore, index: u64, bytes: usize, filling: u8) {
    let record = LogRecord {
        index,
        data: Bytes::from(vec![filling; bytes]),
    };
    let (sender, durable) = channel();
    let done = Box::new(move |result| sender.send(result).unwrap());
    log.append(ReplicaId(1), vec![record], done);
    durable.recv().unwrap().unwrap();
}

/// RocksDB can write to its manifest with each sync once a write-ahead log is full: see `Options::log`.
#[test]
fn a_sync_is_of_the_write_ahead_log_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        log_buffer_bytes: 1 << 20,
        ..Options::default()
    };
    let log = Log::open(dir.path(), options, no_fatal()).unwrap();
    let mut index = 0;
    while files(dir.path(), ".log").len() < 2 {
        index += 1;
        assert!(index < 1000, "no memtable was ever full");
        append(&*log, index, 64 << 10);
    }
    let manifests = || -> u64 {
        let named = |path: &PathBuf| path.to_string_lossy().contains("MANIFEST");
        let manifests = files(dir.path(), "").into_iter().filter(named);
        manifests.map(|path| fs::metadata(path).unwrap().len()).sum()
    };
    let before = manifests();
    (1..=50).for_each(|n| append(&*log, index + n, 10));
    // One record may still tell of the log that is full.
    let grown = manifests() - before;
    assert!(grown < 200, "50 syncs wrote {grown} bytes to the manifest");
}

/// Directories in `dir`.
fn dirs(dir: &Path) -> usize {
    files(dir, "").iter().filter(|path| path.is_dir()).count()
}

/// Files below `dir`.
fn count(dir: &Path) -> usize {
    let below = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    below
        .map(|path| match path.is_dir() {
            true => count(&path),
            false => 1,
        })
        .sum()
}

/// A replica's state with something in it.
fn filled(stores: &dyn PartitionStores) -> Arc<dyn PartitionStore> {
    let store = stores.open(types::PartitionId(1), ReplicaId(1)).unwrap();
    let applied = Applied {
        log_id: Bytes::from_static(b"1"),
        ..Applied::default()
    };
    let key = Bytes::from_static(b"key");
    let value = Some(key.clone());
    store.commit(&[Change { key, value }], &applied).unwrap();
    store.flush().unwrap();
    store
}

/// A copy of it, as it comes from another node, not finished.
fn sent(store: &dyn PartitionStore, checkpoint: &dyn Checkpoint) -> Box<dyn Incoming> {
    let mut incoming = store.receive().unwrap();
    for file in checkpoint.files() {
        let data = checkpoint.read(&file.name, 0, usize::MAX).unwrap();
        incoming.write(&file.name, 0, &data).unwrap();
    }
    incoming
}

/// What is copied for another node, or comes from one, would fill the disk.
#[test]
fn copies_go_away_with_their_owners() {
    let mut rocks = Rocks::new();
    let stores = rocks.stores().unwrap();
    let store = filled(&*stores);
    let before = count(&rocks.dir());
    let checkpoint = store.checkpoint().unwrap();
    let incoming = sent(&*store, &*checkpoint);
    assert!(count(&rocks.dir()) >= before + 2 * checkpoint.files().len());
    drop((checkpoint, incoming));
    assert_eq!(count(&rocks.dir()), before);
}

#[test]
fn a_removed_replica_keeps_each_generation_that_is_read() {
    let root = tempfile::tempdir().unwrap();
    let (partition, replica) = (types::PartitionId(1), ReplicaId(1));
    let stores = Partitions::open(root.path(), Options::default()).unwrap();
    let store = filled(&*stores);
    let point = store.point();
    let mut incoming = sent(&*store, &*store.checkpoint().unwrap());
    incoming.finish().unwrap();
    store.install(incoming).unwrap();
    drop(store);
    let generations = || dirs(&root.path().join("1"));
    for _ in 0..2 {
        stores.remove(partition, replica).unwrap();
        assert_eq!(generations(), 1, "the one that is read");
        assert_eq!(point.get(b"key").unwrap().unwrap(), "key");
        assert!(stores.open(partition, replica).is_err(), "being removed");
    }
    drop(point);
    stores.remove(partition, replica).unwrap();
    assert_eq!(count(root.path()), 1, "the lock");
    drop(stores.open(partition, replica).unwrap());
}

#[test]
fn a_switch_that_fails_leaves_what_the_marker_names() {
    for (step, left) in [(Step::BeforeMarker, 1), (Step::AfterMarker, 2)] {
        let root = tempfile::tempdir().unwrap();
        let probe = move |now: Step| match now == step {
            true => Err(io::Error::other("the disk fails")),
            false => Ok(()),
        };
        let options = Options {
            probe: Some(Arc::new(probe)),
            ..Options::default()
        };
        let stores = Partitions::open(root.path(), options).unwrap();
        let store = filled(&*stores);
        let mut incoming = sent(&*store, &*store.checkpoint().unwrap());
        incoming.finish().unwrap();
        let generations = || dirs(&root.path().join("1"));
        assert_eq!(generations(), 2, "the state and the copy");
        assert!(store.install(incoming).is_err());
        assert_eq!(generations(), left, "{step:?}");
    }
}

#[test]
fn more_replicas_may_have_more_files_open() {
    let log = crate::open_files(0);
    assert!(log >= 2 * super::LOG_FILES as u64);
    assert_eq!(crate::open_files(10) - log, 20 * super::STATE_FILES as u64);
}
