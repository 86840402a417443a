//! Processes that die while history is compacted: no revision that was told is given again, nothing compacted comes back,
//! and what is live stays. One directory goes through all the deaths; a child works on it by the machine itself, flushing
//! all the time, and the parent follows it in memory.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{self, Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use bytes::Bytes;
use machine::command::{BATCH_FORMAT, Body, Compact, CompactStep, DeleteRangeRequest, PutRequest};
use machine::record::Space;
use machine::record::kv::{self, Namespace};
use machine::{Batch, Change, Command, MemView, Stamp, View, invariant};
use types::{NamespaceId, PartitionId, ReplicaId, Slot};

use storage::rocks::{Log, Options, Partitions, Probe};
use storage::{Applied, Done, LogRecord, LogStore, PartitionStore};

/// Of a child: its directory.
const CHILD: &str = "HOLDFAST_COMPACTION_CHILD";
/// And where it dies: `STEP NTH`.
const FUSE: &str = "HOLDFAST_COMPACTION_FUSE";

const REPLICA: ReplicaId = ReplicaId(1);
const SPACE: Space = Space {
    slot: Slot(3),
    namespace: NamespaceId(2),
};
const KEYS: u64 = 9;
/// The smallest that RocksDB takes: it flushes and compacts by itself as well.
const BUFFER_BYTES: usize = 64 << 10;

/// The command that an entry holds: `put KEY`, `delete KEY`, `compact REVISION`, `step RECORDS`.
fn command(entry: &str) -> Command {
    let (what, number) = entry.split_once(' ').unwrap();
    let key = Bytes::from(number.to_owned());
    let body = match what {
        "put" => Body::Put(PutRequest {
            key,
            value: Bytes::from(vec![b'x'; 400]),
            ..PutRequest::default()
        }),
        "delete" => Body::DeleteRange(DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        }),
        "compact" => Body::Compact(Compact {
            revision: number.parse().unwrap(),
        }),
        "step" => Body::CompactStep(CompactStep {
            records: number.parse().unwrap(),
        }),
        other => panic!("{other}"),
    };
    Command {
        slot: u32::from(SPACE.slot.0),
        namespace: SPACE.namespace.0,
        body: Some(body),
        ..Command::default()
    }
}

/// What the entry at `index` is to be: writes, and steps of a compaction in between as long as one is under way.
fn next(index: u64, numbers: &Namespace) -> String {
    let key = index * 7 % KEYS;
    match index % 24 {
        _ if numbers.compaction_pending && index.is_multiple_of(2) => "step 2".to_owned(),
        0 if numbers.revision > numbers.compact_revision + 8 => format!("compact {}", numbers.revision - 3),
        3 | 11 | 17 => format!("delete {key}"),
        _ => format!("put {key}"),
    }
}

fn changes(view: &dyn View, index: u64, entry: &str) -> Vec<Change> {
    let batch = Batch {
        format: BATCH_FORMAT,
        commands: vec![command(entry)],
        ..Batch::default()
    };
    machine::apply(view, Stamp { term: 1, index }, &batch)
        .unwrap()
        .changes
}

fn commit(store: &dyn PartitionStore, index: u64, entry: &str) {
    let changes = changes(&*store.latest(), index, entry);
    let applied = Applied {
        log_id: Bytes::from(index.to_string()),
        membership: Bytes::from_static(b"members"),
    };
    store.commit(&changes, &applied).unwrap();
}

fn applied(store: &dyn PartitionStore) -> u64 {
    store.applied().unwrap().map_or(0, |applied| {
        String::from_utf8_lossy(&applied.log_id).parse().unwrap()
    })
}

fn numbers(view: &dyn View) -> Namespace {
    kv::namespace(view, SPACE).unwrap()
}

fn open(dir: &Path, probe: Option<Probe>) -> (Arc<dyn LogStore>, Arc<dyn PartitionStore>) {
    let options = Options {
        state_buffer_bytes: BUFFER_BYTES,
        probe,
        ..Options::default()
    };
    let log = Log::open(
        &dir.join("log"),
        options.clone(),
        Arc::new(|text: &str| panic!("{text}")),
    )
    .unwrap();
    let stores = Partitions::open(&dir.join("partitions"), options).unwrap();
    (log, stores.open(PartitionId(1), REPLICA).unwrap())
}

fn durable(start: impl FnOnce(Done)) {
    let (sender, receiver) = channel();
    start(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap().unwrap();
}

/// Tells the parent, in one write: a line is there whole or not at all.
fn say(line: &str) {
    let mut out = io::stdout();
    out.write_all(format!("\nack {line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Starts this test as a child that works on `dir`.
fn start(dir: &Path, fuse: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_process", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir)
        .env(FUSE, fuse)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// Entries of the log after `index`.
fn entries_after(log: &dyn LogStore, index: u64) -> Vec<(u64, String)> {
    let records = log.read(REPLICA, index + 1..u64::MAX, usize::MAX).unwrap();
    let text = |record: LogRecord| String::from_utf8(record.data.to_vec()).unwrap();
    records
        .into_iter()
        .map(|record| (record.index, text(record)))
        .collect()
}

/// The child's whole life: what is in the log is applied, then more is logged and applied. Its fuse counts steps of
/// compactions alone. Does nothing when run as an ordinary test.
#[test]
fn child_process() {
    let Ok(dir) = env::var(CHILD) else { return };
    let fuse = env::var(FUSE).unwrap();
    let (name, nth) = fuse.split_once(' ').unwrap();
    let (name, nth): (String, usize) = (name.to_owned(), nth.parse().unwrap());
    let seen = AtomicUsize::new(0);
    let compacting = Arc::new(AtomicBool::new(false));
    let probed = compacting.clone();
    let probe: Probe = Arc::new(move |step| {
        let counts = probed.load(Ordering::SeqCst) && format!("{step:?}") == name;
        if counts && seen.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            std::process::abort();
        }
        Ok(())
    });
    let (log, store) = open(Path::new(&dir), Some(probe));
    let flushed = Arc::new(AtomicU64::new(0));
    let (flushing, upto) = (store.clone(), flushed.clone());
    let flusher = thread::Builder::new().name("flusher".into());
    let flusher = flusher.spawn(move || {
        loop {
            let before = applied(&*flushing);
            flushing.flush().unwrap();
            upto.store(before, Ordering::SeqCst);
        }
    });
    drop(flusher.unwrap());
    let mut index = applied(&*store);
    let mut waiting = entries_after(&*log, index).into_iter();
    loop {
        index += 1;
        let entry = match waiting.next() {
            Some((_, entry)) => entry,
            None => {
                let entry = next(index, &numbers(&*store.latest()));
                let record = LogRecord {
                    index,
                    data: Bytes::from(entry.clone()),
                };
                durable(|done| log.append(REPLICA, vec![record], done));
                entry
            }
        };
        compacting.store(entry.starts_with("step"), Ordering::SeqCst);
        commit(&*store, index, &entry);
        let now = numbers(&*store.latest());
        say(&format!(
            "{index} {} {} {}",
            now.revision,
            now.compact_revision,
            entry.replace(' ', "-")
        ));
        let purge = flushed.load(Ordering::SeqCst);
        if index.is_multiple_of(8) && purge > 0 {
            durable(|done| log.purge(REPLICA, purge, Bytes::from_static(b"purged"), done));
        }
    }
}

/// What the parent knows: the whole log, and the revision and the compact revision that were told after each entry.
#[derive(Default)]
struct Known {
    log: BTreeMap<u64, String>,
    told: BTreeMap<u64, (i64, i64)>,
}

impl Known {
    /// One life, which ends by its fuse, or is killed after so many steps of compactions.
    fn live(&mut self, dir: &Path, fuse: &str, steps: usize) {
        let (mut child, output) = start(dir, fuse);
        let mut seen = 0;
        for line in output.lines() {
            let line = line.unwrap();
            let ["ack", index, revision, compacted, entry] = line.split(' ').collect::<Vec<_>>()[..] else {
                continue;
            };
            let index = index.parse().unwrap();
            let now = (revision.parse().unwrap(), compacted.parse().unwrap());
            let before = self.told.insert(index, now);
            assert!(
                before.is_none_or(|before| before == now),
                "{index}: {before:?}, then {now:?}"
            );
            self.log.insert(index, entry.replace('-', " "));
            seen += usize::from(entry.starts_with("step"));
            if seen == steps {
                child.kill().unwrap(); // SIGKILL; what it said before that is still read.
            }
        }
        assert!(!child.wait().unwrap().success(), "{fuse}: the child dies");
    }

    /// All records are those of the position, and with the rest of the log all that was told is so again.
    fn check(&mut self, name: &str, dir: &Path) {
        let (log, store) = open(dir, None);
        let at = applied(&*store);
        let rest = entries_after(&*log, at);
        let last = rest.last().map_or(at, |(index, _)| *index);
        assert!(
            self.told.keys().all(|told| *told <= last),
            "{name}: ends at {last}"
        );
        self.log.extend(rest);
        let (mut expected, mut before) = (MemView::default(), (0, 0));
        for (index, entry) in &self.log {
            let changes = changes(&expected, *index, entry);
            expected.commit(&changes);
            if *index > at {
                commit(&*store, *index, entry);
            }
            if *index >= at {
                let same = records(&*store.latest()) == records(&expected);
                assert!(same, "{name}: opened at {at}, not as it was at {index}");
            }
            let numbers = numbers(&expected);
            let now = (numbers.revision, numbers.compact_revision);
            assert!(
                now.0 >= before.0 && now.1 >= before.1,
                "{name}: {before:?}, then {now:?}"
            );
            assert!(
                self.told.get(index).is_none_or(|told| *told == now),
                "{name}: entry {index}"
            );
            before = now;
        }
        let faults = invariant::check(&*store.latest()).unwrap();
        assert_eq!(faults, Vec::<String>::new(), "{name}");
    }
}

fn records(view: &dyn View) -> BTreeMap<Bytes, Bytes> {
    let mut found = BTreeMap::new();
    view.scan(&[0, 0], &[0xff; 8], false, &mut |key, value| {
        found.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

/// etcd 17780: after a crash during a compaction the revision was lower than before.
#[test]
fn no_revision_goes_down_whenever_a_process_dies_during_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = Known::default();
    for nth in [1, 2, 5, 11, 23] {
        for (fuse, steps) in [
            ("BeforeCommit", usize::MAX),
            ("AfterCommit", usize::MAX),
            ("", nth),
        ] {
            let fuse = format!("{fuse} {nth}");
            known.live(dir.path(), &fuse, steps);
            known.check(&fuse, dir.path());
        }
    }
    let newest = known.told.values().next_back();
    assert!(
        newest.is_some_and(|(_, compacted)| *compacted > 100),
        "{newest:?}"
    );
}
