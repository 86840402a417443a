//! What a log store must do.

use std::ops::Range;

use bytes::Bytes;
use types::ReplicaId;

use super::{Fixture, PATIENCE, done, durable, wait};
use crate::{LogRecord, LogState, LogStore};

const A: ReplicaId = ReplicaId(1);
const B: ReplicaId = ReplicaId(256);

fn record(index: u64, text: &str) -> LogRecord {
    LogRecord {
        index,
        data: Bytes::from(format!("{text}-{index}")),
    }
}

fn records(range: Range<u64>, text: &str) -> Vec<LogRecord> {
    range.map(|index| record(index, text)).collect()
}

fn append(log: &dyn LogStore, replica: ReplicaId, range: Range<u64>, text: &str) {
    durable(|done| log.append(replica, records(range, text), done));
}

#[track_caller]
fn check(log: &dyn LogStore, replica: ReplicaId, expected: &[LogRecord]) {
    let found = log.read(replica, 0..u64::MAX, usize::MAX).expect("readable");
    assert_eq!(found, expected);
    let state = log.state(replica).expect("readable");
    assert_eq!(
        (state.first.as_ref(), state.last.as_ref()),
        (expected.first(), expected.last())
    );
    let bytes: usize = expected.iter().map(|record| record.data.len()).sum();
    assert_eq!(log.size_bytes(replica), bytes as u64);
}

pub(super) fn entries_are_readable_at_once(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    assert_eq!(log.replicas().expect("readable"), vec![]);
    assert_eq!(log.state(A).expect("readable"), LogState::default());
    let mut waiting = Vec::new();
    for index in 0..50 {
        for (replica, text) in [(A, "a"), (B, "b")] {
            let (done, receiver) = done();
            log.append(replica, records(index..index + 1, text), done);
            check(&*log, replica, &records(0..index + 1, text));
            waiting.push(receiver);
        }
    }
    for receiver in waiting {
        receiver.recv_timeout(PATIENCE).expect("fires").expect("succeeds");
    }
    let stats = log.stats();
    assert!(
        stats.syncs > 0 && stats.operations == 100 && stats.bytes > 0,
        "{stats:?}"
    );
    drop(log);
    let log = fixture.log().expect("opens again");
    assert_eq!(log.replicas().expect("readable"), vec![A, B]);
    check(&*log, A, &records(0..50, "a"));
    check(&*log, B, &records(0..50, "b"));
    append(&*log, A, 50..52, "a");
    check(&*log, A, &records(0..52, "a"));
}

pub(super) fn reads_are_bounded(fixture: &mut dyn Fixture) {
    let mut log = fixture.log().expect("opens");
    append(&*log, A, 5..15, "entry");
    for reopened in [false, true] {
        if reopened {
            drop(log);
            log = fixture.log().expect("opens again");
        }
        let read = |range, bytes| log.read(A, range, bytes).expect("readable");
        assert_eq!(read(7..9, usize::MAX), records(7..9, "entry"));
        assert_eq!(read(0..6, usize::MAX), records(5..6, "entry"));
        assert_eq!(read(14..99, usize::MAX), records(14..15, "entry"));
        assert_eq!(read(15..99, usize::MAX), vec![]);
        assert_eq!(read(8..8, usize::MAX), vec![]);
        assert_eq!(read(5..15, 0), records(5..6, "entry"), "at least one");
        assert_eq!(read(5..15, 15), records(5..7, "entry"), "two of seven bytes fit");
        assert_eq!(log.read(B, 0..99, usize::MAX).expect("readable"), vec![]);
    }
}

pub(super) fn truncates(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    append(&*log, A, 1..11, "old");
    append(&*log, B, 1..11, "other");
    // All three are queued together: the second must not be undone by the first's completion.
    let (first, second, third) = (done(), done(), done());
    log.append(A, records(11..13, "old"), first.0);
    log.truncate_after(A, Some(5), second.0);
    log.append(A, records(6..9, "new"), third.0);
    let expected = [records(1..6, "old"), records(6..9, "new")].concat();
    check(&*log, A, &expected);
    for receiver in [first.1, second.1, third.1] {
        receiver.recv_timeout(PATIENCE).expect("fires").expect("succeeds");
    }
    check(&*log, A, &expected);
    durable(|done| log.truncate_after(A, Some(8), done));
    durable(|done| log.truncate_after(A, Some(100), done));
    check(&*log, A, &expected);
    drop(log);
    let log = fixture.log().expect("opens again");
    check(&*log, A, &expected);
    check(&*log, B, &records(1..11, "other"));
    durable(|done| log.truncate_after(A, Some(2), done));
    check(&*log, A, &records(1..3, "old"));
    append(&*log, A, 3..4, "newest");
    check(
        &*log,
        A,
        &[records(1..3, "old"), records(3..4, "newest")].concat(),
    );
}

pub(super) fn truncates_everything(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    append(&*log, A, 0..4, "old");
    durable(|done| log.truncate_after(A, None, done));
    check(&*log, A, &[]);
    append(&*log, A, 0..2, "new");
    check(&*log, A, &records(0..2, "new"));
    durable(|done| log.purge(A, 0, Bytes::from_static(b"p"), done));
    durable(|done| log.truncate_after(A, None, done));
    check(&*log, A, &[]);
    drop(log);
    let log = fixture.log().expect("opens again");
    check(&*log, A, &[]);
    append(&*log, A, 1..3, "after");
    check(&*log, A, &records(1..3, "after"));
}

pub(super) fn purges(fixture: &mut dyn Fixture) {
    let mut log = fixture.log().expect("opens");
    append(&*log, A, 1..21, "a");
    append(&*log, B, 1..6, "b");
    let id = Bytes::from_static(b"id of 10");
    durable(|done| log.purge(A, 10, id.clone(), done));
    durable(|done| log.purge(A, 4, Bytes::from_static(b"late"), done));
    for _ in 0..2 {
        check(&*log, A, &records(11..21, "a"));
        check(&*log, B, &records(1..6, "b"));
        assert_eq!(log.state(A).expect("readable").purged, Some((10, id.clone())));
        assert_eq!(log.state(B).expect("readable").purged, None);
        drop(log);
        log = fixture.log().expect("opens again");
    }
    durable(|done| log.purge(A, 15, Bytes::from_static(b"id of 15"), done));
    append(&*log, A, 21..22, "a");
    check(&*log, A, &records(16..22, "a"));
    wait(|done| log.truncate_after(A, Some(3), done)).expect_err("what is purged cannot be truncated");
}

pub(super) fn purges_past_the_end(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    append(&*log, A, 1..4, "a");
    let id = Bytes::from_static(b"from a snapshot");
    // The append is still queued when the purge overtakes its entries.
    let (first, second) = (done(), done());
    log.append(A, records(4..8, "a"), first.0);
    log.purge(A, 100, id.clone(), second.0);
    check(&*log, A, &[]);
    for receiver in [first.1, second.1] {
        receiver.recv_timeout(PATIENCE).expect("fires").expect("succeeds");
    }
    check(&*log, A, &[]);
    wait(|done| log.append(A, records(8..9, "a"), done)).expect_err("must follow what is purged");
    append(&*log, A, 101..103, "a");
    drop(log);
    let log = fixture.log().expect("opens again");
    check(&*log, A, &records(101..103, "a"));
    assert_eq!(log.state(A).expect("readable").purged, Some((100, id)));
}

pub(super) fn votes_and_committed(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    durable(|done| log.save_vote(A, Bytes::from_static(b"vote 1"), done));
    durable(|done| log.save_vote(B, Bytes::from_static(b"vote b"), done));
    log.save_committed(A, Bytes::from_static(b"committed 1"));
    assert_eq!(
        log.state(A).expect("readable").committed,
        Some(Bytes::from_static(b"committed 1"))
    );
    log.save_committed(A, Bytes::from_static(b"committed 2"));
    durable(|done| log.save_vote(A, Bytes::from_static(b"vote 2"), done));
    let expected = LogState {
        vote: Some(Bytes::from_static(b"vote 2")),
        committed: Some(Bytes::from_static(b"committed 2")),
        ..LogState::default()
    };
    assert_eq!(log.state(A).expect("readable"), expected);
    drop(log);
    let log = fixture.log().expect("opens again");
    assert_eq!(log.state(A).expect("readable"), expected);
    assert_eq!(
        log.state(B).expect("readable").vote,
        Some(Bytes::from_static(b"vote b"))
    );
    assert_eq!(log.state(B).expect("readable").committed, None);
}

pub(super) fn removes(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    for (replica, text) in [(A, "a"), (B, "b")] {
        append(&*log, replica, 1..10, text);
        durable(|done| log.save_vote(replica, Bytes::from_static(b"vote"), done));
        durable(|done| log.purge(replica, 2, Bytes::from_static(b"2"), done));
        log.save_committed(replica, Bytes::from_static(b"committed"));
    }
    durable(|done| log.remove(A, done));
    assert_eq!(log.state(A).expect("readable"), LogState::default());
    assert_eq!(log.replicas().expect("readable"), vec![B]);
    check(&*log, B, &records(3..10, "b"));
    drop(log);
    let log = fixture.log().expect("opens again");
    assert_eq!(log.replicas().expect("readable"), vec![B]);
    assert_eq!(log.state(A).expect("readable"), LogState::default());
    check(&*log, B, &records(3..10, "b"));
    append(&*log, A, 1..3, "again");
    check(&*log, A, &records(1..3, "again"));
}

pub(super) fn callbacks_in_order(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    let (sender, receiver) = std::sync::mpsc::channel();
    for number in 0..200 {
        let sender = sender.clone();
        let replica = if number % 3 == 0 { A } else { B };
        log.save_vote(
            replica,
            Bytes::from(format!("vote {number}")),
            Box::new(move |result| sender.send((number, result.is_ok())).expect("the test waits")),
        );
    }
    for number in 0..200 {
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok((number, true)));
    }
}

pub(super) fn gaps_are_refused(fixture: &mut dyn Fixture) {
    let log = fixture.log().expect("opens");
    append(&*log, A, 3..5, "a");
    for bad in [
        vec![record(6, "gap")],
        vec![record(4, "again")],
        vec![record(5, "a"), record(7, "gap")],
    ] {
        let error = wait(|done| log.append(A, bad, done)).expect_err("not dense");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
    durable(|done| log.append(A, Vec::new(), done));
    check(&*log, A, &records(3..5, "a"));
}

pub(super) fn acknowledged_survives_a_crash(fixture: &mut dyn Fixture) {
    for round in 0..4 {
        let log = fixture.log().expect("opens");
        let next = 1 + round * 10;
        check(&*log, A, &records(1..next, "a"));
        append(&*log, A, next..next + 12, "a");
        durable(|done| log.truncate_after(A, Some(next + 9), done));
        log.save_committed(A, Bytes::from(format!("committed {round}")));
        durable(|done| log.save_vote(A, Bytes::from(format!("vote {round}")), done));
        fixture.crash();
        let log = fixture.log().expect("opens after a crash");
        let state = log.state(A).expect("readable");
        assert_eq!(state.vote, Some(Bytes::from(format!("vote {round}"))));
        assert_eq!(state.committed, Some(Bytes::from(format!("committed {round}"))));
        check(&*log, A, &records(1..next + 10, "a"));
        drop(log);
    }
}
