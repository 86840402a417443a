//! What is purged and flushed, case by case.

use super::*;

fn check(log: Log, purge: Option<u64>, flush: bool) {
    assert_eq!(log.step(Retention::default()), Step { purge, flush }, "{log:?}");
}

#[test]
fn purges_only_what_was_flushed_and_is_not_needed() {
    let small = Log {
        applied: 1000,
        last: 1000,
        bytes: 1000,
        ..Log::default()
    };
    check(small, None, false);
    let long = Log {
        applied: 60_000,
        last: 60_000,
        bytes: 6_000_000,
        ..Log::default()
    };
    check(long, None, true);
    check(
        Log {
            flushed: 49_000,
            ..long
        },
        Some(49_000),
        true,
    );
    check(
        Log {
            flushed: 60_000,
            ..long
        },
        Some(50_000),
        false,
    );
    check(
        Log {
            flushed: 60_000,
            slowest: Some(30_000),
            ..long
        },
        Some(30_000),
        false,
    );
    check(
        Log {
            flushed: 60_000,
            slowest: Some(0),
            ..long
        },
        None,
        false,
    );
    let endless = Log {
        applied: 260_000,
        last: 260_000,
        ..long
    };
    check(
        Log {
            flushed: 260_000,
            slowest: Some(0),
            ..endless
        },
        Some(250_000),
        false,
    );
}

#[test]
fn keeps_what_follows_a_checkpoint_that_is_being_sent() {
    let sending = Log {
        applied: 500_000,
        last: 500_000,
        flushed: 500_000,
        bytes: 1 << 30,
        slowest: Some(0),
        sent: Some(30_000),
        room: 2 << 30,
        ..Log::default()
    };
    check(sending, Some(30_000), false);
    check(
        Log {
            purged: 30_000,
            ..sending
        },
        None,
        false,
    );
    let no_room = Log {
        room: 1 << 29,
        ..sending
    };
    assert!(
        no_room.step(Retention::default()).purge > Some(490_000 - 10_000),
        "{:?}",
        no_room.step(Retention::default())
    );
}

#[test]
fn keeps_fewer_entries_when_they_are_large() {
    let large = Log {
        applied: 100,
        last: 100,
        flushed: 100,
        bytes: 100 << 20,
        ..Log::default()
    };
    check(large, Some(94), false);
    check(
        Log {
            purged: 94,
            bytes: 6 << 20,
            ..large
        },
        None,
        false,
    );
}
