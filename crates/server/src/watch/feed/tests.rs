//! Revisions that come before it is known where the feed begins.

use super::*;
use crate::watch::event::Coded;
use crate::watch::inbox::Taken;
use machine::EventKind;
use machine::command::KeyValue;

fn revision(revision: i64) -> Revision {
    let kv = KeyValue {
        key: "k".into(),
        mod_revision: revision,
        ..KeyValue::default()
    };
    let events = vec![Coded::new(EventKind::Put, &kv, None)];
    Revision { revision, events }
}

/// A feed that was given `pushed` before it began at `begun`, and one revision after.
fn begun_late(pushed: std::ops::RangeInclusive<i64>, begun: i64) -> (Feed, StreamId, Arc<Inbox>) {
    let feed = Feed::default();
    feed.set_origin(Origin::Local);
    let inbox = Arc::new(Inbox::default());
    let stream = feed.attach(inbox.clone());
    pushed.for_each(|n| feed.push(Origin::Local, revision(n)));
    assert!(matches!(join(&feed, stream, 1), Joined::NotReady));
    assert_eq!(feed.head(), None, "what was pushed may be old");
    feed.begin(begun, feed.epoch());
    (feed, stream, inbox)
}

fn join(feed: &Feed, stream: StreamId, next: i64) -> Joined {
    feed.join(stream, &Selector::everything(), &[7], next)
}

fn revisions(batch: &Batch) -> (i64, i64) {
    (batch.first(), batch.last())
}

#[test]
fn what_came_before_the_beginning_is_handed_over() {
    let (feed, stream, inbox) = begun_late(5..=8, 6);
    assert_eq!(feed.head(), Some(8));
    match join(&feed, stream, 5) {
        Joined::Live { batch, next } => {
            assert_eq!((batch.as_ref().map(revisions), next), (Some((5, 6)), 7));
        }
        other => panic!("{other:?}"),
    }
    feed.push(Origin::Local, revision(9));
    feed.dispatch();
    match inbox.take() {
        Taken::Delivery(delivery) => assert_eq!(revisions(&delivery.batch), (7, 9)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_older_than_the_beginning_leaves_no_gap() {
    let (feed, stream, _) = begun_late(5..=7, 9);
    assert_eq!(feed.head(), Some(9));
    feed.push(Origin::Local, revision(10));
    assert!(
        matches!(join(&feed, stream, 6), Joined::Behind),
        "8 and 9 are not in memory"
    );
    match join(&feed, stream, 10) {
        Joined::Live {
            batch: None,
            next: 10,
        } => {}
        other => panic!("{other:?}"),
    }
}

/// While the replica here catches up, it pushes what a feed that another node supplies has long had.
#[test]
fn what_another_origin_pushes_crowds_nothing_out() {
    let feed = Feed::default();
    feed.set_origin(Origin::Remote);
    feed.begin(100, feed.epoch());
    let inbox = Arc::new(Inbox::default());
    let stream = feed.attach(inbox.clone());
    assert!(matches!(join(&feed, stream, 101), Joined::Live { .. }));
    feed.push(Origin::Remote, revision(101));
    let kv = KeyValue {
        key: "k".into(),
        value: vec![0; limits::WATCH_RING_BYTES].into(),
        ..KeyValue::default()
    };
    let events = vec![Coded::new(EventKind::Put, &kv, None)];
    for revision in 1..4 {
        let events = events.clone();
        feed.push(Origin::Local, Revision { revision, events });
    }
    feed.dispatch();
    match inbox.take() {
        Taken::Delivery(delivery) => assert_eq!(revisions(&delivery.batch), (101, 101)),
        other => panic!("{other:?}"),
    }
}
