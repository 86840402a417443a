//! What a partition store must do.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;
use machine::{Change, View};
use types::{PartitionId, ReplicaId};

use super::Fixture;
use crate::{Applied, Checkpoint, Incoming, PartitionStore};

const P: PartitionId = PartitionId(3);
const R: ReplicaId = ReplicaId(7);
const S: ReplicaId = ReplicaId(8);

fn at(index: u64) -> Applied {
    Applied {
        log_id: Bytes::from(format!("log {index}")),
        membership: Bytes::from(format!("members {index}")),
    }
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number:04}"))
}

fn put(number: u64, value: &str) -> Change {
    Change {
        key: key(number),
        value: Some(Bytes::from(value.to_owned())),
    }
}

fn delete(number: u64) -> Change {
    Change {
        key: key(number),
        value: None,
    }
}

/// Commit number `index`: writes its own key, overwrites a shared one.
fn commit(store: &dyn PartitionStore, index: u64) {
    let changes = [
        put(index, &format!("value {index}")),
        put(0, &format!("newest {index}")),
    ];
    store.commit(&changes, &at(index)).expect("commits");
}

fn dump(view: &dyn View) -> BTreeMap<Bytes, Bytes> {
    let mut found = BTreeMap::new();
    view.scan(&[], &[0xff; 20], false, &mut |key, value| {
        found.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        ControlFlow::Continue(())
    })
    .expect("readable");
    found
}

fn keys(view: &dyn View, from: &[u8], to: &[u8], reverse: bool, most: usize) -> Vec<Bytes> {
    let mut found = Vec::new();
    view.scan(from, to, reverse, &mut |key, _| {
        found.push(Bytes::copy_from_slice(key));
        if found.len() == most {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .expect("readable");
    found
}

/// The state after commits `1..=index` of [`commit`].
fn after(index: u64) -> BTreeMap<Bytes, Bytes> {
    let mut expected: BTreeMap<Bytes, Bytes> = (1..=index)
        .map(|i| (key(i), Bytes::from(format!("value {i}"))))
        .collect();
    if index > 0 {
        expected.insert(key(0), Bytes::from(format!("newest {index}")));
    }
    expected
}

fn copy(from: &dyn Checkpoint, into: &mut dyn Incoming) -> io::Result<()> {
    for file in from.files() {
        let mut offset = 0;
        loop {
            let data = from.read(&file.name, offset, 1000)?;
            if data.is_empty() && offset == file.size_bytes {
                break;
            }
            into.write(&file.name, offset, &data)?;
            offset += data.len() as u64;
        }
    }
    Ok(())
}

pub(super) fn reads(fixture: &mut dyn Fixture) {
    let stores = fixture.stores().expect("opens");
    let store = stores.open(P, R).expect("opens");
    assert_eq!(store.applied().expect("readable"), None);
    let low = Change {
        key: Bytes::from_static(&[0, 0]),
        value: Some(Bytes::from_static(b"low")),
    };
    let high = Change {
        key: Bytes::from_static(&[0xff, 0xff, 1]),
        value: Some(Bytes::new()),
    };
    let changes: Vec<Change> = (1..=9)
        .map(|n| put(n, "v"))
        .chain([low, high, delete(5), delete(77)])
        .collect();
    store.commit(&changes, &at(1)).expect("commits");
    for flushed in [false, true] {
        if flushed {
            store.flush().expect("flushes");
        }
        let view = store.latest();
        assert_eq!(
            view.get(&key(1)).expect("readable"),
            Some(Bytes::from_static(b"v"))
        );
        assert_eq!(view.get(&key(5)).expect("readable"), None);
        assert_eq!(
            view.get(&[0]).expect("readable"),
            None,
            "the position is not a record"
        );
        assert_eq!(view.get(&[0xff, 0xff, 1]).expect("readable"), Some(Bytes::new()));
        let all = keys(&*view, &[], &[0xff; 20], false, usize::MAX);
        assert_eq!(all.len(), 10);
        assert!(all.is_sorted());
        let mut backwards = keys(&*view, &[], &[0xff; 20], true, usize::MAX);
        backwards.reverse();
        assert_eq!(all, backwards);
        assert_eq!(
            keys(&*view, &key(2), &key(7), false, usize::MAX),
            [2, 3, 4, 6].map(key)
        );
        assert_eq!(keys(&*view, &key(2), &key(7), true, 2), [6, 4].map(key));
        assert_eq!(keys(&*view, &key(2), &key(7), false, 1), [2].map(key));
        assert!(keys(&*view, &key(5), &key(6), false, usize::MAX).is_empty());
        assert!(keys(&*view, &key(7), &key(2), true, usize::MAX).is_empty());
        assert!(keys(&*view, &key(7), &key(7), false, usize::MAX).is_empty());
    }
    let short = Change {
        key: Bytes::from_static(b"x"),
        value: None,
    };
    assert_eq!(
        store.commit(&[short], &at(2)).expect_err("too short").kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(store.applied().expect("readable"), Some(at(1)));
}

pub(super) fn points_do_not_change(fixture: &mut dyn Fixture) {
    let stores = fixture.stores().expect("opens");
    let store = stores.open(P, R).expect("opens");
    let empty = store.point();
    let mut points = Vec::new();
    for index in 1..=10 {
        commit(&*store, index);
        points.push((index, store.point()));
        if index % 3 == 0 {
            store.flush().expect("flushes");
        }
    }
    drop(store);
    assert!(dump(&*empty).is_empty());
    for (index, point) in &points {
        assert_eq!(dump(&**point), after(*index));
        assert_eq!(
            point.get(&key(0)).expect("readable"),
            Some(Bytes::from(format!("newest {index}")))
        );
    }
    let store = stores.open(P, R).expect("opens while points are read");
    commit(&*store, 11);
    assert_eq!(dump(&*store.latest()), after(11));
    assert_eq!(dump(&*points[4].1), after(5));
}

pub(super) fn data_and_position_are_one(fixture: &mut dyn Fixture) {
    for round in 0..3 {
        let stores = fixture.stores().expect("opens");
        let store = stores.open(P, R).expect("opens");
        let index = round * 5;
        assert_eq!(store.applied().expect("readable"), (index > 0).then(|| at(index)));
        assert_eq!(dump(&*store.latest()), after(index));
        for index in index + 1..=index + 5 {
            commit(&*store, index);
            assert_eq!(store.applied().expect("readable"), Some(at(index)));
        }
        store.flush().expect("flushes");
    }
}

pub(super) fn crash_loses_a_suffix(fixture: &mut dyn Fixture) {
    let mut index = 0;
    for round in 0..5 {
        let stores = fixture.stores().expect("opens");
        let store = stores.open(P, R).expect("opens");
        for step in 1..=20 {
            commit(&*store, index + step);
            if step == 8 + round {
                store.flush().expect("flushes");
            }
        }
        let flushed = index + 8 + round;
        fixture.crash();
        let stores = fixture.stores().expect("opens after a crash");
        let store = stores.open(P, R).expect("opens after a crash");
        let applied = store.applied().expect("readable").expect("flushed");
        let found = (flushed..=index + 20).find(|index| at(*index) == applied);
        index = found.expect("at least what was flushed, at most what was committed");
        assert_eq!(
            dump(&*store.latest()),
            after(index),
            "data goes with the position"
        );
    }
}

pub(super) fn checkpoint_installs_elsewhere(fixture: &mut dyn Fixture) {
    let stores = fixture.stores().expect("opens");
    let source = stores.open(P, R).expect("opens");
    assert!(source.checkpoint().is_err(), "nothing to freeze");
    for index in 1..=30 {
        commit(&*source, index);
    }
    let frozen = source.checkpoint().expect("freezes");
    for index in 31..=40 {
        commit(&*source, index);
    }
    source.flush().expect("flushes");
    assert_eq!(frozen.applied(), at(30));
    assert!(frozen.files().is_sorted_by(|a, b| a.name < b.name));
    assert!(frozen.read("no such file", 0, 10).is_err());

    let target = stores.open(P, S).expect("opens");
    commit(&*target, 1);
    let old = target.point();
    let mut incoming = target.receive().expect("begins");
    copy(&*frozen, &mut *incoming).expect("copies");
    assert_eq!(incoming.finish().expect("is whole"), at(30));
    target.install(incoming).expect("installs");
    assert_eq!(target.applied().expect("readable"), Some(at(30)));
    assert_eq!(dump(&*target.latest()), after(30));
    assert_eq!(dump(&*old), after(1), "a point survives an install");
    drop(old);
    commit(&*target, 31);
    target.flush().expect("flushes");

    // Its own checkpoint takes it back; dropping one that was not installed changes nothing.
    let mut incoming = target.receive().expect("begins");
    copy(&*frozen, &mut *incoming).expect("copies");
    drop(incoming);
    assert_eq!(dump(&*target.latest()), after(31));
    let mut unfinished = target.receive().expect("begins");
    copy(&*frozen, &mut *unfinished).expect("copies");
    assert!(target.install(unfinished).is_err(), "not finished");
    let mut foreign = source.receive().expect("begins");
    copy(&*frozen, &mut *foreign).expect("copies");
    foreign.finish().expect("is whole");
    assert!(target.install(foreign).is_err(), "received by another");
    drop((frozen, source, target));
    fixture.crash();
    let stores = fixture.stores().expect("opens after a crash");
    assert_eq!(dump(&*stores.open(P, S).expect("opens").latest()), after(31));
    assert_eq!(dump(&*stores.open(P, R).expect("opens").latest()), after(40));
}

pub(super) fn bad_copies_are_refused(fixture: &mut dyn Fixture) {
    let stores = fixture.stores().expect("opens");
    let source = stores.open(P, R).expect("opens");
    (1..=200).for_each(|index| commit(&*source, index));
    let frozen = source.checkpoint().expect("freezes");
    let target = stores.open(P, S).expect("opens");
    assert!(
        target.receive().expect("begins").finish().is_err(),
        "nothing was received"
    );
    for bad in frozen.files() {
        for fault in ["missing", "short", "flipped"] {
            let mut incoming = target.receive().expect("begins");
            for file in frozen.files() {
                let size = usize::try_from(file.size_bytes).expect("small");
                let mut data = frozen.read(&file.name, 0, size).expect("readable").to_vec();
                if file.name == bad.name {
                    match fault {
                        "missing" => continue,
                        "short" => data.truncate(size - 1),
                        _ => data[size / 2] ^= 0x10,
                    }
                }
                incoming.write(&file.name, 0, &data).expect("writes");
            }
            let error = incoming.finish().expect_err(&format!("{}: {fault}", bad.name));
            assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidData,
                "{}: {fault}: {error}",
                bad.name
            );
        }
    }
    assert_eq!(target.applied().expect("readable"), None);
}

pub(super) fn foreign_names_are_refused(fixture: &mut dyn Fixture) {
    let stores = fixture.stores().expect("opens");
    let store = stores.open(P, R).expect("opens");
    let mut incoming = store.receive().expect("begins");
    for name in [
        "../escape.sst",
        "/etc/escape.sst",
        "",
        "..",
        "LOCK",
        "a/b.sst",
        "a\0.sst",
    ] {
        assert!(incoming.write(name, 0, b"data").is_err(), "{name:?}");
    }
}

pub(super) fn opens_once_lists_removes(fixture: &mut dyn Fixture) {
    let stores = fixture.stores().expect("opens");
    assert!(stores.list().expect("readable").is_empty());
    let first = stores.open(P, R).expect("opens");
    let second = stores.open(PartitionId(0), S).expect("opens");
    commit(&*first, 1);
    assert_eq!(
        stores.open(P, R).err().expect("is open").kind(),
        io::ErrorKind::ResourceBusy
    );
    assert_eq!(
        stores.remove(P, R).expect_err("is open").kind(),
        io::ErrorKind::ResourceBusy
    );
    assert_eq!(
        stores.list().expect("readable"),
        vec![(PartitionId(0), S), (P, R)]
    );
    assert!(stores.free_bytes().expect("readable") > 0);
    drop(first);
    stores.remove(P, R).expect("removes");
    stores.remove(P, R).expect("again, with nothing there");
    assert_eq!(stores.list().expect("readable"), vec![(PartitionId(0), S)]);
    let first = stores.open(P, R).expect("opens a new one");
    assert_eq!(first.applied().expect("readable"), None);
    assert!(dump(&*first.latest()).is_empty());
    drop((first, second, stores));
    let stores = fixture.stores().expect("opens again");
    assert_eq!(
        stores.list().expect("readable"),
        vec![(PartitionId(0), S), (P, R)]
    );
}

pub(super) fn partitions_are_apart(fixture: &mut dyn Fixture) {
    let stores = fixture.stores().expect("opens");
    let open: Vec<_> = (0..4)
        .map(|p| {
            stores
                .open(PartitionId(p), ReplicaId(10 + u64::from(p)))
                .expect("opens")
        })
        .collect();
    for index in 1..=20 {
        for (number, store) in open.iter().enumerate() {
            if index <= 5 * (number as u64 + 1) {
                commit(&**store, index);
            }
        }
    }
    for (number, store) in open.iter().enumerate() {
        let last = 5 * (number as u64 + 1);
        assert_eq!(dump(&*store.latest()), after(last));
        assert_eq!(store.applied().expect("readable"), Some(at(last)));
    }
    let size_before = open[0].size_bytes();
    open[0].flush().expect("flushes");
    assert!(open[0].size_bytes() >= size_before && open[0].size_bytes() > 0);
}
