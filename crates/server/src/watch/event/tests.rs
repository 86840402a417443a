//! Encoded events are etcd's.

use super::*;
use etcd_client::proto::PbWatchResponse;
use prost::Message;

fn kv(key: &str, value: usize, revision: i64) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: vec![7; value].into(),
        mod_revision: revision,
        ..KeyValue::default()
    }
}

fn revision(revision: i64, events: Vec<Coded>) -> Arc<Revision> {
    Arc::new(Revision { revision, events })
}

fn put(key: &str, value: usize, revision: i64) -> Coded {
    Coded::new(
        EventKind::Put,
        &kv(key, value, revision),
        Some(&kv(key, 1, revision - 1)),
    )
}

fn decode(bytes: &Bytes) -> PbWatchResponse {
    PbWatchResponse::decode(bytes.clone()).expect("decodes")
}

fn all(revisions: &[Arc<Revision>]) -> Batch {
    let mut batch = Batch::default();
    for revision in revisions {
        (0..revision.events.len()).for_each(|n| batch.pick(revision, n));
    }
    batch
}

#[test]
fn encoded_events_are_etcds() {
    let delete = Coded::new(EventKind::Delete, &kv("b", 0, 5), None);
    let batch = all(&[revision(5, vec![put("a", 3, 5), delete])]);
    let parts = batch.parts(
        Shape {
            previous: true,
            ..Shape::default()
        },
        0,
    );
    let got = decode(&parts[0].bytes);
    assert_eq!(got.events.len(), 2);
    assert_eq!(got.events[0].r#type, 0);
    assert_eq!(got.events[0].prev_kv.as_ref().map(|kv| kv.mod_revision), Some(4));
    assert_eq!(got.events[1].r#type, 1);
    assert_eq!(
        got.events[1].kv.as_ref().map(|kv| kv.key.clone()),
        Some(b"b".to_vec())
    );
    let plain = decode(&batch.parts(Shape::default(), 0)[0].bytes);
    assert!(plain.events.iter().all(|e| e.prev_kv.is_none()));
    let puts = decode(
        &batch.parts(
            Shape {
                no_delete: true,
                ..Shape::default()
            },
            0,
        )[0]
        .bytes,
    );
    assert_eq!(puts.events.len(), 1);
    let neither = Shape {
        no_delete: true,
        no_put: true,
        previous: false,
    };
    assert!(batch.parts(neither, 0).is_empty());
}

#[test]
fn parts_end_at_revisions_and_respect_where_a_watch_stands() {
    let half = limits::WATCH_RESPONSE_BYTES / 2 - 100;
    let revisions: Vec<_> = (1..=5).map(|r| revision(r, vec![put("k", half, r)])).collect();
    let batch = all(&revisions);
    assert_eq!((batch.first(), batch.last()), (1, 5));
    let lasts = |from| {
        batch
            .parts(Shape::default(), from)
            .iter()
            .map(|p| p.last)
            .collect::<Vec<_>>()
    };
    assert_eq!(lasts(0), [2, 4, 5]);
    assert_eq!(lasts(4), [5]);
    assert_eq!(lasts(6), [] as [i64; 0]);
}

#[test]
fn one_large_revision_is_one_part_with_cuts() {
    let third = limits::WATCH_RESPONSE_BYTES / 3;
    let events = (0..7).map(|n| put(&n.to_string(), third, 9)).collect();
    let parts = all(&[revision(9, events)]).parts(Shape::default(), 0);
    assert_eq!(parts.len(), 1);
    let fragments = parts[0].fragments();
    assert_eq!(
        fragments.iter().map(|f| f.1).collect::<Vec<_>>(),
        [true, true, true, false]
    );
    let total: usize = fragments.iter().map(|f| decode(&f.0).events.len()).sum();
    assert_eq!(total, 7);
    assert!(
        fragments
            .iter()
            .all(|f| f.0.len() <= limits::WATCH_RESPONSE_BYTES)
    );
}
