//! What happened in a key space, revision by revision, read through a watch from its beginning.

use std::collections::BTreeMap;

use checker::revision::Event;
use checker::watch::{Message, Seen};
use etcd_client::{EventType, WatchOptions, WatchResponse};

use crate::client::{Client, PATIENCE};
use crate::etcd::pair;

/// Every change of a key space.
pub type Log = BTreeMap<i64, Vec<Event>>;

/// One message of a watch as the judge takes it.
pub fn message(response: &WatchResponse) -> Message {
    if response.events().is_empty() {
        return Message::Progress(response.header().map_or(0, |header| header.revision()));
    }
    let events = response.events().iter().filter_map(|event| {
        let kv = event.kv()?;
        Some(Seen {
            revision: kv.mod_revision(),
            event: match event.event_type() {
                EventType::Put => Event::Put(pair(kv)),
                EventType::Delete => Event::Delete(String::from_utf8_lossy(kv.key()).into_owned()),
            },
            previous: event.prev_kv().map(pair),
        })
    });
    Message::Events {
        events: events.collect(),
        // Not asked for.
        fragment: false,
    }
}

/// Reads a key space from its beginning up to the revision that it has now.
pub async fn read(client: &Client, node: usize, namespace: &'static str) -> Result<(Log, i64), String> {
    let mut etcd = client.etcd(node, namespace).await;
    let within = |what: &'static str| move |_| format!("{what}: no answer in time");
    let got = tokio::time::timeout(PATIENCE, etcd.get("a", None)).await;
    let got = got.map_err(within("get"))?.map_err(|error| error.to_string())?;
    let through = got.header().map_or(0, |header| header.revision());
    let options = WatchOptions::new().with_all_keys().with_start_revision(2);
    let watch = tokio::time::timeout(PATIENCE, etcd.watch("", Some(options))).await;
    let mut stream = watch
        .map_err(within("watch"))?
        .map_err(|error| error.to_string())?;
    let mut log = Log::new();
    while through > 1 && log.last_key_value().is_none_or(|(last, _)| *last < through) {
        let next = tokio::time::timeout(PATIENCE, stream.message()).await;
        let next = next
            .map_err(within("events"))?
            .map_err(|error| error.to_string())?;
        let response = next.ok_or("the watch ended")?;
        if response.canceled() {
            return Err(format!("the watch was cancelled: {}", response.cancel_reason()));
        }
        if let Message::Events { events, .. } = message(&response) {
            for seen in events {
                log.entry(seen.revision).or_default().push(seen.event);
            }
        }
    }
    Ok((log, through))
}
