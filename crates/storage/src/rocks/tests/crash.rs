//! Processes that die at every step of the write order, and what they leave behind. The test binary starts itself as a
//! child that works on a directory, says on its output what was acknowledged, and dies; the parent opens what is left.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use bytes::Bytes;
use machine::Change;
use types::{PartitionId, ReplicaId};

use super::super::{Log, Options, Partitions, Probe, Step};
use super::no_fatal;
use crate::{Applied, LogRecord, LogStore, PartitionStore};

const CHILD: &str = "HOLDFAST_STORAGE_CHILD";
const STEP: &str = "HOLDFAST_STORAGE_STEP";
const ROUNDS: u64 = 120;
const SOURCES: [ReplicaId; 2] = [ReplicaId(1), ReplicaId(2)];
const TARGET: ReplicaId = ReplicaId(3);

/// Where a child kills itself, besides the stores' own steps: the caller's, between one store and the other.
const CALLER_STEPS: [&str; 3] = ["BetweenLogAndState", "AfterFlush", "AfterFinish"];

fn entry(replica: ReplicaId, index: u64) -> LogRecord {
    LogRecord {
        index,
        data: Bytes::from(format!("entry {index} of {replica} {}", "x".repeat(300))),
    }
}

fn applied(index: u64) -> Applied {
    Applied {
        log_id: Bytes::from(index.to_string()),
        membership: Bytes::from_static(b"members"),
    }
}

fn index_of(applied: Option<Applied>) -> u64 {
    applied.map_or(0, |applied| {
        String::from_utf8_lossy(&applied.log_id).parse().unwrap()
    })
}

fn changes(replica: ReplicaId, index: u64) -> [Change; 2] {
    let value = Bytes::from(format!("value {index} of {replica}"));
    let own = Change {
        key: Bytes::from(format!("key-{index:05}")),
        value: Some(value.clone()),
    };
    [
        own,
        Change {
            key: Bytes::from_static(b"newest"),
            value: Some(value),
        },
    ]
}

/// Dies at the `nth` time that `name` is reached, without any clean-up.
struct Fuse {
    name: String,
    nth: usize,
    seen: AtomicUsize,
}

impl Fuse {
    fn reached(&self, name: &str) {
        if self.name == name && self.seen.fetch_add(1, Ordering::SeqCst) + 1 == self.nth {
            std::process::abort();
        }
    }
}

/// The child's whole life. Does nothing when run as an ordinary test.
#[test]
fn child_process() {
    let Ok(dir) = env::var(CHILD) else { return };
    let fuse = env::var(STEP).unwrap_or_default();
    let (name, nth) = fuse
        .split_once(' ')
        .map_or(("", 0), |(name, nth)| (name, nth.parse().unwrap()));
    let fuse = Arc::new(Fuse {
        name: name.to_owned(),
        nth,
        seen: AtomicUsize::new(0),
    });
    let probed = fuse.clone();
    let probe: Probe = Arc::new(move |step: Step| {
        probed.reached(&format!("{step:?}"));
        Ok(())
    });
    let options = Options {
        probe: Some(probe),
        ..Options::default()
    };
    let log = Log::open(&Path::new(&dir).join("log"), options.clone(), no_fatal()).unwrap();
    let stores = Partitions::open(&Path::new(&dir).join("partitions"), options).unwrap();
    let target = stores.open(PartitionId(1), TARGET).unwrap();
    let open: Vec<_> = SOURCES
        .iter()
        .map(|id| {
            (
                *id,
                stores
                    .open(PartitionId(u32::try_from(id.0).unwrap()), *id)
                    .unwrap(),
            )
        })
        .collect();
    for index in 1..=ROUNDS {
        for (id, store) in &open {
            work(&fuse, &*log, *id, &**store, index);
        }
        if index.is_multiple_of(20) {
            install(&fuse, &*open[0].1, &*target);
            say(&format!("installed {TARGET} {index}"));
        }
    }
    say("end 0 0");
}

fn say(line: &str) {
    // One write: a line is there whole or not at all.
    io::stdout()
        .write_all(format!("\nack {line}\n").as_bytes())
        .unwrap();
    io::stdout().flush().unwrap();
}

fn durable(start: impl FnOnce(crate::Done)) {
    let (sender, receiver) = channel();
    start(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap().unwrap();
}

fn work(fuse: &Fuse, log: &dyn LogStore, id: ReplicaId, store: &dyn PartitionStore, index: u64) {
    durable(|done| log.append(id, vec![entry(id, index)], done));
    say(&format!("appended {id} {index}"));
    if index.is_multiple_of(7) {
        durable(|done| log.save_vote(id, Bytes::from(index.to_string()), done));
        say(&format!("voted {id} {index}"));
    }
    fuse.reached("BetweenLogAndState");
    store.commit(&changes(id, index), &applied(index)).unwrap();
    if index.is_multiple_of(10) {
        store.flush().unwrap();
        say(&format!("flushed {id} {index}"));
        fuse.reached("AfterFlush");
        durable(|done| log.purge(id, index - 5, Bytes::from_static(b"purged"), done));
        say(&format!("purged {id} {}", index - 5));
    }
}

fn install(fuse: &Fuse, from: &dyn PartitionStore, to: &dyn PartitionStore) {
    let frozen = from.checkpoint().unwrap();
    let mut incoming = to.receive().unwrap();
    for file in frozen.files() {
        let data = frozen.read(&file.name, 0, usize::MAX).unwrap();
        incoming.write(&file.name, 0, &data).unwrap();
    }
    incoming.finish().unwrap();
    fuse.reached("AfterFinish");
    to.install(incoming).unwrap();
}

/// The newest index acknowledged, by what and for whom.
type Acknowledged = BTreeMap<(String, ReplicaId), u64>;

fn start(dir: &Path, step: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "rocks::tests::crash::child_process",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD, dir)
        .env(STEP, step)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// Reads acknowledgements until the child ends; kills it after `most` of them.
fn run(dir: &Path, step: &str, most: usize) -> Acknowledged {
    let (mut child, output) = start(dir, step);
    let mut acknowledged = Acknowledged::new();
    let mut seen = 0;
    for line in output.lines() {
        let line = line.unwrap();
        let parts: Vec<&str> = line.split(' ').collect();
        if let ["ack", what, replica, index] = parts[..] {
            acknowledged.insert(
                (what.to_owned(), replica.parse().unwrap()),
                index.parse().unwrap(),
            );
            seen += 1;
            if seen == most {
                child.kill().unwrap(); // SIGKILL; what it said before that is still read.
            }
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success(), "{step}: the child dies");
    assert!(
        seen > 0 && !acknowledged.contains_key(&("end".to_owned(), ReplicaId(0))),
        "{step}: it dies on the way"
    );
    acknowledged
}

fn check(name: &str, dir: &Path, acknowledged: &Acknowledged) {
    let newest = |what: &str, id: ReplicaId| acknowledged.get(&(what.to_owned(), id)).copied().unwrap_or(0);
    let log = Log::open(&dir.join("log"), Options::default(), no_fatal()).unwrap();
    let stores = Partitions::open(&dir.join("partitions"), Options::default()).unwrap();
    for id in SOURCES {
        let state = log.state(id).unwrap();
        let purged = state.purged.as_ref().map_or(0, |(index, _)| *index);
        let last = state.last.as_ref().map_or(purged, |record| record.index);
        assert!(
            last >= newest("appended", id),
            "{name}: log of {id} ends at {last}: {acknowledged:?}"
        );
        assert!(
            purged >= newest("purged", id) && purged <= newest("flushed", id),
            "{name}: purged {purged}"
        );
        let expected: Vec<LogRecord> = (purged + 1..=last).map(|index| entry(id, index)).collect();
        assert_eq!(log.read(id, 0..u64::MAX, usize::MAX).unwrap(), expected, "{name}");
        let vote = state
            .vote
            .map_or(0, |vote| String::from_utf8_lossy(&vote).parse::<u64>().unwrap());
        assert!(vote >= newest("voted", id), "{name}: vote {vote}");

        let store = stores
            .open(PartitionId(u32::try_from(id.0).unwrap()), id)
            .unwrap();
        let index = check_state(name, &*store, id);
        assert!(
            index >= newest("flushed", id),
            "{name}: state of {id} at {index}: {acknowledged:?}"
        );
        assert!(
            purged <= index && index <= last,
            "{name}: the log continues the state: {purged} {index} {last}"
        );
        // What is missing is replayed from the log.
        for index in index + 1..=last {
            store.commit(&changes(id, index), &applied(index)).unwrap();
        }
        assert_eq!(check_state(name, &*store, id), last);
    }
    let target = stores.open(PartitionId(1), TARGET).unwrap();
    let installed = check_state(name, &*target, SOURCES[0]);
    assert!(
        installed >= newest("installed", TARGET),
        "{name}: installed {installed}: {acknowledged:?}"
    );
    assert!(
        installed.is_multiple_of(20),
        "{name}: an install is whole or not at all"
    );
    let names = super::files(&dir.join("partitions/1"), "");
    assert_eq!(
        names.len(),
        4,
        "{name}: two generations and their markers, no leftovers: {names:?}"
    );
}

/// Checks that the records are exactly those of the position, and returns it.
fn check_state(name: &str, store: &dyn PartitionStore, id: ReplicaId) -> u64 {
    let index = index_of(store.applied().unwrap());
    let mut expected: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    for change in (1..=index).flat_map(|index| changes(id, index)) {
        expected.insert(change.key, change.value.unwrap());
    }
    let mut found = BTreeMap::new();
    let view = store.latest();
    view.scan(b"a", b"z", false, &mut |key, value| {
        found.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(
        found == expected,
        "{name}: state of {id} at {index} holds {} records",
        found.len()
    );
    index
}

#[test]
fn nothing_acknowledged_is_lost_whatever_step_a_process_dies_at() {
    let steps = [
        Step::LogBeforeSync,
        Step::LogAfterSync,
        Step::BeforeCommit,
        Step::AfterCommit,
        Step::BeforeMarker,
        Step::AfterMarker,
    ];
    let steps = steps.map(|step| format!("{step:?}"));
    for step in steps.iter().map(String::as_str).chain(CALLER_STEPS) {
        let rare = ["BeforeMarker", "AfterMarker", "AfterFinish"].contains(&step);
        let moments: &[usize] = if rare { &[1, 3] } else { &[2, 9, 17] };
        for nth in moments {
            let dir = tempfile::tempdir().unwrap();
            let fuse = format!("{step} {nth}");
            let acknowledged = run(dir.path(), &fuse, usize::MAX);
            check(&fuse, dir.path(), &acknowledged);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_a_process_is_killed_at_any_moment() {
    for after in [1, 10, 57, 133, 260] {
        let dir = tempfile::tempdir().unwrap();
        let acknowledged = run(dir.path(), "", after);
        check(&format!("killed after {after}"), dir.path(), &acknowledged);
    }
}

/// No write-ahead log for the state: what was not flushed is gone, as one suffix, and the log has it.
#[test]
fn unflushed_commits_are_lost_together() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = run(dir.path(), "AfterCommit 18", usize::MAX);
    let stores = Partitions::open(&dir.path().join("partitions"), Options::default()).unwrap();
    let store = stores.open(PartitionId(1), SOURCES[0]).unwrap();
    assert_eq!(acknowledged[&("appended".to_owned(), SOURCES[0])], 9);
    assert_eq!(check_state("unflushed", &*store, SOURCES[0]), 0);
}
