//! Damaged files: found, named, and kept apart from what is whole.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use bytes::Bytes;
use machine::Change;
use types::{PartitionId, ReplicaId};

use super::super::{Log, Options, Partitions, codec};
use super::{Fixture, Rocks, files, no_fatal};
use crate::{Applied, LogRecord, LogStore, PartitionStore, PartitionStores, seal};

const R: ReplicaId = ReplicaId(1);

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

fn record(index: u64) -> LogRecord {
    LogRecord {
        index,
        data: Bytes::from(vec![index as u8; 2000]),
    }
}

fn append(log: &dyn LogStore, index: u64) {
    let (sender, receiver) = channel();
    log.append(
        R,
        vec![record(index)],
        Box::new(move |result| sender.send(result).unwrap()),
    );
    receiver.recv().unwrap().unwrap();
}

/// A log of a process that was killed: all is in the write-ahead log. Returns its directory.
fn killed_log(rocks: &mut Rocks) -> PathBuf {
    let log = rocks.log().unwrap();
    (1..=100).for_each(|index| append(&*log, index));
    rocks.crash();
    rocks.dir().join("log")
}

fn largest(paths: Vec<PathBuf>) -> PathBuf {
    paths
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

#[test]
fn damage_within_the_write_ahead_log_is_refused_by_name() {
    for tenth in [1, 5, 9] {
        let mut rocks = Rocks::new();
        let dir = killed_log(&mut rocks);
        let wal = largest(files(&dir, ".log"));
        flip(
            &wal,
            usize::try_from(fs::metadata(&wal).unwrap().len()).unwrap() * tenth / 10,
        );
        let error = Log::open(&dir, Options::default(), no_fatal())
            .err()
            .expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    }
}

#[test]
fn a_torn_tail_of_the_write_ahead_log_loses_only_itself() {
    let mut rocks = Rocks::new();
    let dir = killed_log(&mut rocks);
    let wal = largest(files(&dir, ".log"));
    let size = fs::metadata(&wal).unwrap().len();
    fs::File::options()
        .write(true)
        .open(&wal)
        .unwrap()
        .set_len(size - 100)
        .unwrap();
    let log = Log::open(&dir, Options::default(), no_fatal()).unwrap();
    assert_eq!(
        log.read(R, 0..999, usize::MAX).unwrap(),
        (1..100).map(record).collect::<Vec<_>>()
    );
    append(&*log, 100);
}

/// Bytes of the last write in [`torn_log`]: it touches three blocks of the write-ahead log.
const LAST_BYTES: usize = 64 << 10;

/// As [`killed_log`], with a large entry of `filling`, and as many behind it. Returns the write-ahead log and where the
/// record of the large one begins.
fn torn_log(rocks: &mut Rocks, flushed: bool, filling: u8, behind: u64) -> (PathBuf, usize) {
    let mut log = rocks.log().unwrap();
    (1..=100).for_each(|index| append(&*log, index));
    if flushed {
        drop(log);
        log = rocks.log().unwrap();
    }
    let wal = largest(files(&rocks.dir().join("log"), ".log"));
    let begin = usize::try_from(fs::metadata(&wal).unwrap().len()).unwrap();
    super::append_filled(&*log, 101, LAST_BYTES, filling);
    (0..behind).for_each(|index| append(&*log, 102 + index));
    rocks.crash();
    (rocks.dir().join("log").join(wal.file_name().unwrap()), begin)
}

fn change(path: &Path, change: impl Fn(&mut [u8])) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_last_write_that_lacks_a_page_loses_only_itself() {
    for flushed in [false, true] {
        for page in (0..=LAST_BYTES / 4096).step_by(if flushed { 8 } else { 1 }) {
            let mut rocks = Rocks::new();
            let (wal, begin) = torn_log(&mut rocks, flushed, 7, 0);
            let from = (begin / 4096 + page) * 4096;
            change(&wal, |bytes| {
                let to = bytes.len().min(from + 4096);
                bytes[from.max(begin)..to].fill(0);
            });
            // What recovery began and another power cut ended.
            fs::write(wal.with_file_name("999999.log"), []).unwrap();
            let whole: Vec<LogRecord> = (1..=100).map(record).collect();
            let log = rocks
                .log()
                .unwrap_or_else(|error| panic!("page {page} from {begin}: {error}"));
            assert_eq!(log.read(R, 0..999, usize::MAX).unwrap(), whole, "page {page}");
            append(&*log, 101);
            rocks.crash();
            let log = rocks.log().unwrap();
            assert_eq!(log.read(R, 101..999, usize::MAX).unwrap(), [record(101)]);
        }
    }
}

#[test]
fn damage_that_a_torn_write_does_not_leave_is_refused_as_before() {
    let zero = |bytes: &mut [u8], at: usize| bytes[at / 4096 * 4096..][..4096].fill(0);
    let block = |at: usize| at / 32_768 * 32_768;
    type Damage<'a> = (&'a str, (u8, u64), &'a dyn Fn(&mut [u8], usize));
    let damages: [Damage<'_>; 9] = [
        ("a byte of the last write", (7, 0), &|bytes, begin| {
            bytes[begin + 40_000] ^= 0x40
        }),
        (
            "a byte beside zeros that were written",
            (0, 0),
            &|bytes, begin| bytes[begin + 40] ^= 1,
        ),
        ("its checksum, beside such zeros", (0, 0), &|bytes, begin| {
            bytes[begin + 1] ^= 1
        }),
        ("its kind, beside such zeros", (0, 0), &|bytes, begin| {
            bytes[begin + 6] ^= 2
        }),
        ("half a page of zeros within it", (7, 0), &|bytes, begin| {
            bytes[(begin / 4096 + 3) * 4096..][..2048].fill(0);
        }),
        ("a page and a byte elsewhere", (7, 0), &|bytes, begin| {
            zero(bytes, begin + 60_000);
            bytes[begin + 100] ^= 1;
        }),
        ("a page before it", (7, 0), &|bytes, begin| {
            zero(bytes, begin - 50_000)
        }),
        (
            "a page of it, with whole writes behind",
            (7, 5),
            &|bytes, begin| {
                zero(bytes, begin + 40_000);
            },
        ),
        (
            "its last header, with whole writes behind",
            (7, 2),
            &|bytes, begin| {
                zero(bytes, block(begin + LAST_BYTES));
            },
        ),
    ];
    for (name, (filling, behind), damage) in damages {
        let mut rocks = Rocks::new();
        let (wal, begin) = torn_log(&mut rocks, false, filling, behind);
        change(&wal, |bytes| damage(bytes, begin));
        let before = fs::read(&wal).unwrap();
        let error = rocks.log().err().unwrap_or_else(|| panic!("{name}: is refused"));
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
        assert!(fs::read(&wal).unwrap() == before, "{name}: what is there stays");
    }
}

#[test]
fn a_damaged_entry_is_named_with_its_file() {
    let mut rocks = Rocks::new();
    let dir = killed_log(&mut rocks);
    // Opening flushes what the write-ahead log held; closing leaves it in a table.
    drop(Log::open(&dir, Options::default(), no_fatal()).unwrap());
    let table = largest(files(&dir, ".sst"));
    flip(
        &table,
        usize::try_from(fs::metadata(&table).unwrap().len()).unwrap() / 2,
    );
    let log = Log::open(&dir, Options::default(), no_fatal()).unwrap();
    let error = log.read(R, 1..101, usize::MAX).expect_err("one is damaged");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    let (text, name) = (
        error.to_string(),
        table.file_name().unwrap().to_string_lossy().into_owned(),
    );
    assert!(
        text.contains("of replica 1") && text.contains("entry ") && text.contains(&name),
        "{text}"
    );
    assert_eq!(
        log.read(R, 1..10, usize::MAX).unwrap().len(),
        9,
        "the others are whole"
    );
}

/// A log of two replicas, the first of them with this record of its own replaced by bytes that fail their checksum.
fn log_with_damaged(rocks: &mut Rocks, kind: u8, index: u64) -> PathBuf {
    let other = ReplicaId(2);
    let log = rocks.log().unwrap();
    for replica in [R, other] {
        let (sender, receiver) = channel();
        let told = |sender: &std::sync::mpsc::Sender<io::Result<()>>| -> crate::Done {
            let sender = sender.clone();
            Box::new(move |result| sender.send(result).unwrap())
        };
        log.append(replica, (1..=20).map(record).collect(), told(&sender));
        log.save_vote(replica, Bytes::from_static(b"vote"), told(&sender));
        log.purge(replica, 5, Bytes::from_static(b"id"), told(&sender));
        log.save_committed(replica, Bytes::from_static(b"committed"));
        log.append(replica, vec![record(21)], told(&sender));
        (0..4).for_each(|_| receiver.recv().unwrap().unwrap());
    }
    drop(log);
    let dir = rocks.dir().join("log");
    let db = rocksdb::DB::open(&rocksdb::Options::default(), &dir).unwrap();
    let key = codec::key(R, kind, index);
    let mut value = db.get(key).unwrap().expect("it is there");
    *value.last_mut().unwrap() ^= 1;
    db.put(key, value).unwrap();
    dir
}

#[test]
fn a_damaged_record_of_one_replica_leaves_the_others_alone() {
    let records = [
        (codec::MARK, codec::VOTE, "the vote"),
        (codec::MARK, codec::COMMITTED, "the committed id"),
        (codec::MARK, codec::PURGED, "the purge mark"),
        (codec::ENTRY, 6, "entry 6"),
        (codec::ENTRY, 21, "entry 21"),
    ];
    for (kind, index, name) in records {
        let mut rocks = Rocks::new();
        let dir = log_with_damaged(&mut rocks, kind, index);
        let open = || Log::open(&dir, Options::default(), no_fatal()).unwrap();
        let log = open();
        assert_eq!(log.replicas().unwrap(), vec![R, ReplicaId(2)], "{name}");
        let errors = [
            log.state(R).expect_err("damaged"),
            log.read(R, 0..99, usize::MAX).expect_err("damaged"),
        ];
        for error in errors {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{name}: {error}");
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("of replica 1"), "{text}");
        }
        let (sender, receiver) = channel();
        let vote = Bytes::from_static(b"another vote");
        let asked = sender.clone();
        log.save_vote(R, vote, Box::new(move |result| asked.send(result).unwrap()));
        let refused = receiver.recv().unwrap().expect_err("it votes no more");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{name}: {refused}");
        assert_eq!(log.read(ReplicaId(2), 0..99, usize::MAX).unwrap().len(), 16);
        log.remove(R, Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap().unwrap();
        assert_eq!(log.state(R).unwrap(), crate::LogState::default());
        drop(log);
        assert_eq!(
            open().replicas().unwrap(),
            vec![ReplicaId(2)],
            "{name}: gone for good"
        );
    }
}

/// Two partitions of a process that was stopped, with one table each.
fn two_partitions(rocks: &mut Rocks) -> PathBuf {
    let stores = rocks.stores().unwrap();
    for partition in [1, 2] {
        let store = stores.open(PartitionId(partition), R).unwrap();
        let changes: Vec<Change> = (0..2000)
            .map(|n: u32| Change {
                key: Bytes::from(format!("key-{n:05}")),
                value: Some(Bytes::from(format!("{:x}", n.wrapping_mul(0x9e37_79b9)))),
            })
            .collect();
        let applied = Applied {
            log_id: Bytes::from_static(b"1"),
            membership: Bytes::new(),
        };
        store.commit(&changes, &applied).unwrap();
        store.flush().unwrap();
    }
    rocks.dir().join("partitions")
}

fn count(store: &dyn PartitionStore) -> Result<usize, String> {
    let mut found = 0;
    let scan = store.latest().scan(b"key", b"kez", false, &mut |_, _| {
        found += 1;
        ControlFlow::Continue(())
    });
    scan.map(|()| found).map_err(|error| error.to_string())
}

fn check_other(stores: &dyn PartitionStores) {
    assert_eq!(count(&*stores.open(PartitionId(2), R).unwrap()), Ok(2000));
}

#[test]
fn a_damaged_block_is_not_served_and_others_go_on() {
    let mut rocks = Rocks::new();
    let root = two_partitions(&mut rocks);
    let dir = root.join("1/1-1");
    let table = largest(files(&dir, ".sst"));
    flip(
        &table,
        usize::try_from(fs::metadata(&table).unwrap().len()).unwrap() / 3,
    );
    let stores = rocks.stores().unwrap();
    let store = stores.open(PartitionId(1), R).unwrap();
    let error = count(&*store).expect_err("damaged");
    assert!(error.contains(&dir.display().to_string()), "{error}");
    check_other(&*stores);
    drop(store);
    stores.remove(PartitionId(1), R).unwrap();
    assert_eq!(count(&*stores.open(PartitionId(1), R).unwrap()), Ok(0));
}

#[test]
fn a_damaged_table_is_found_before_it_is_sent() {
    let mut rocks = Rocks::new();
    let root = two_partitions(&mut rocks);
    let dir = root.join("1/1-1");
    let stores = rocks.stores().unwrap();
    let store = stores.open(PartitionId(1), R).unwrap();
    // Its blocks are in the cache, and its hash is known.
    assert_eq!(count(&*store), Ok(2000));
    assert!(!store.checkpoint().unwrap().list().unwrap().is_empty());
    let checkpoint = store.checkpoint().unwrap();
    let table = largest(files(&dir, ".sst"));
    flip(
        &table,
        usize::try_from(fs::metadata(&table).unwrap().len()).unwrap() / 3,
    );
    for _ in 0..2 {
        let error = checkpoint.list().expect_err("damaged");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let name = table.file_name().unwrap().to_string_lossy().into_owned();
        assert!(error.to_string().contains(&name), "{error}");
    }
    checkpoint
        .read("CURRENT", 0, 9)
        .expect_err("nothing of it is sent");
}

#[test]
fn damage_seen_at_open_names_the_directory_and_touches_no_other() {
    let missing = |path: &Path| fs::remove_file(path).unwrap();
    let cut = |path: &Path| fs::write(path, &fs::read(path).unwrap()[..10]).unwrap();
    let turned = |path: &Path| {
        let size = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
        flip(path, size - 5);
    };
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 7] = [
        (".sst", &missing),
        (".sst", &cut),
        (".sst", &turned),
        ("CURRENT", &missing),
        ("CURRENT", &cut),
        ("MANIFEST", &missing),
        ("MANIFEST", &turned),
    ];
    for (number, (kind, damage)) in damages.into_iter().enumerate() {
        let mut rocks = Rocks::new();
        let root = two_partitions(&mut rocks);
        let dir = root.join("1/1-1");
        let found = files(&dir, "")
            .into_iter()
            .find(|path| path.to_string_lossy().contains(kind))
            .unwrap();
        damage(&found);
        let stores = Partitions::open(&root, Options::default()).unwrap();
        let error = stores
            .open(PartitionId(1), R)
            .err()
            .unwrap_or_else(|| panic!("case {number}: {kind} is refused"));
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "case {number}: {error}");
        assert!(
            error.to_string().contains(&dir.display().to_string()),
            "case {number}: {error}"
        );
        check_other(&*stores);
        stores.remove(PartitionId(1), R).unwrap();
        assert_eq!(count(&*stores.open(PartitionId(1), R).unwrap()), Ok(0));
    }
}

#[test]
fn a_damaged_or_lost_marker_is_refused_by_name() {
    for lost in [false, true] {
        let mut rocks = Rocks::new();
        let root = two_partitions(&mut rocks);
        let marker = root.join("1/1.current");
        if lost {
            fs::remove_file(&marker).unwrap();
        } else {
            flip(&marker, 10);
        }
        let stores = Partitions::open(&root, Options::default()).unwrap();
        let error = stores.open(PartitionId(1), R).err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("1.current"), "{error}");
        check_other(&*stores);
        assert!(stores.list().unwrap().contains(&(PartitionId(1), R)));
    }
}

/// Raises the format in a sealed file, whose content begins with it.
fn raise_format(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let mut content = seal::unseal(&bytes).unwrap().to_vec();
    content[0] += 1;
    fs::write(path, seal::sealed(&content)).unwrap();
}

#[test]
fn a_marker_of_another_format_is_refused_by_name_and_nothing_is_touched() {
    let mut rocks = Rocks::new();
    let root = two_partitions(&mut rocks);
    let marker = root.join("1/1.current");
    raise_format(&marker);
    // What a crash left is only removed by who knows the format.
    let left = root.join("1/1-2.incoming");
    fs::create_dir(&left).unwrap();
    let error = Partitions::open(&root, Options::default())
        .err()
        .expect("refused");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    let text = format!("{} has format 2, this build reads 1", marker.display());
    assert_eq!(error.to_string(), text);
    assert!(left.exists() && root.join("1/1-1").exists());
}

#[test]
fn a_log_of_another_format_is_refused_by_name() {
    for (key, what) in [
        (codec::OWNER_KEY, "its owner record"),
        (codec::key(R, codec::MARK, codec::VOTE), "the vote of replica 1"),
        (codec::key(R, codec::ENTRY, 100), "entry 100 of replica 1"),
    ] {
        let mut rocks = Rocks::new();
        let dir = killed_log(&mut rocks);
        drop(Log::open(&dir, Options::default(), no_fatal()).unwrap());
        let db = rocksdb::DB::open_default(&dir).unwrap();
        let mut value = db.get(key).unwrap().unwrap_or_else(|| codec::mark(&key, b"vote"));
        value[0] += 1;
        db.put(key, value).unwrap();
        drop(db);
        let error = Log::open(&dir, Options::default(), no_fatal())
            .err()
            .expect("refused");
        let text = format!("{what} has format 2, this build reads 1");
        assert!(error.to_string().contains(&text), "{error}");
        assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    }
}

#[test]
fn a_copy_of_another_format_is_refused_by_name() {
    let mut rocks = Rocks::new();
    two_partitions(&mut rocks);
    let stores = rocks.stores().unwrap();
    let store = stores.open(PartitionId(1), R).unwrap();
    let checkpoint = store.checkpoint().unwrap();
    let mut incoming = store.receive().unwrap();
    for file in checkpoint.files() {
        let mut data = checkpoint.read(&file.name, 0, usize::MAX).unwrap().to_vec();
        if file.name == "CONTENTS" {
            let text = String::from_utf8(seal::unseal(&data).unwrap().to_vec()).unwrap();
            data = seal::sealed(text.replacen("checkpoint 1", "checkpoint 2", 1).as_bytes());
        }
        incoming.write(&file.name, 0, &data).unwrap();
    }
    let error = incoming.finish().expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
    assert_eq!(error.to_string(), "the copy has format 2, this build reads 1");
}
