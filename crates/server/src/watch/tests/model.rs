//! A key space in memory that writes, compacts, is replaced by a snapshot, and is followed from another node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use etcd_client::proto::PbWatchResponse;
use machine::command::KeyValue;
use machine::outcome::{Refusal, RefusalKind};
use machine::query::{AskHistory, History, HistoryEvent};
use machine::{Event, EventKind, Events, Outcome};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, mpsc};
use types::{NamespaceId, PartitionId, Slot, limits};

use crate::core::{KeySpace, ServerError};
use crate::watch::index::Selector;
use crate::watch::source::{Past, Source};
use crate::watch::{Hub, proxy};

/// One event as a watch saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub revision: i64,
    pub key: Vec<u8>,
    pub delete: bool,
}

/// Adds a response's events; a revision is never split over two.
pub fn append(seen: &mut Vec<Seen>, response: &PbWatchResponse) {
    let last = seen.last().map_or(0, |s| s.revision);
    for event in &response.events {
        let kv = event.kv.as_ref().expect("an event has a pair");
        assert!(
            kv.mod_revision > last,
            "revision {} comes again or split",
            kv.mod_revision
        );
        seen.push(Seen {
            revision: kv.mod_revision,
            key: kv.key.clone(),
            delete: event.r#type == 1,
        });
    }
}

#[derive(Default)]
struct State {
    log: Vec<Events>,
    live: BTreeMap<Bytes, KeyValue>,
    compacted: i64,
    asked: u64,
}

pub struct World {
    /// The node whose clients we are.
    pub hub: Arc<Hub>,
    /// The node that has a replica if this one has none.
    other: Arc<Hub>,
    state: Arc<Mutex<State>>,
    local: AtomicBool,
    cut: Arc<Notify>,
    pub done: AtomicBool,
    pub leaderless: AtomicBool,
    /// The replica here cannot say yet where it stands.
    pub recovering: AtomicBool,
    /// The other node's replica serves.
    pub other_serves: Arc<AtomicBool>,
    /// Streams that the other node serves.
    pub carried: Arc<AtomicUsize>,
}

/// No frame between nodes is larger: one event beside what a response holds.
const FRAME_BYTES: usize = 2 * limits::WATCH_RESPONSE_BYTES;

const PARTITION: PartitionId = PartitionId(3);

impl World {
    pub fn new(local: bool) -> Arc<World> {
        Arc::new(World {
            hub: Hub::new(),
            other: Hub::new(),
            state: Arc::default(),
            local: AtomicBool::new(local),
            cut: Arc::default(),
            done: AtomicBool::new(false),
            leaderless: AtomicBool::new(false),
            recovering: AtomicBool::new(false),
            other_serves: Arc::new(AtomicBool::new(true)),
            carried: Arc::default(),
        })
    }

    pub fn space(&self) -> KeySpace {
        KeySpace {
            id: NamespaceId(7),
            slot: Slot(1),
            partition: PARTITION,
            name: "test".into(),
        }
    }

    pub fn revision(&self) -> i64 {
        self.state.lock().revision()
    }

    pub fn set_local(&self, local: bool) {
        self.local.store(local, Ordering::Relaxed);
    }

    pub fn put(&self, key: &str, value: usize) {
        self.write(vec![(key.to_owned(), Some(Bytes::from(value.to_string())))], true);
    }

    pub fn put_many(&self, keys: impl Iterator<Item = String>, value_bytes: usize) {
        self.write(
            keys.map(|key| (key, Some(vec![1; value_bytes].into()))).collect(),
            true,
        );
    }

    pub fn delete(&self, key: &str) {
        self.write(vec![(key.to_owned(), None)], true);
    }

    pub fn compact(&self, revision: i64) {
        self.state.lock().compacted = revision;
    }

    /// Revisions that come by snapshot.
    pub fn install(&self, revisions: usize) {
        for n in 0..revisions {
            self.write(vec![(format!("k{}", n % 5), Some("s".into()))], false);
        }
        self.hub.installed(PARTITION);
        self.other.installed(PARTITION);
    }

    /// Cuts every connection to the other node.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    fn write(&self, writes: Vec<(String, Option<Bytes>)>, applied: bool) {
        let mut state = self.state.lock();
        let revision = state.revision() + 1;
        let mut events = Vec::new();
        for (key, value) in writes {
            let key = Bytes::from(key);
            let prev_kv = state.live.remove(&key);
            let mut kv = KeyValue {
                key: key.clone(),
                mod_revision: revision,
                ..KeyValue::default()
            };
            match value {
                Some(value) => {
                    kv.value = value;
                    state.live.insert(key, kv.clone());
                    events.push(Event {
                        kind: EventKind::Put,
                        kv,
                        prev_kv,
                    });
                }
                None if prev_kv.is_some() => events.push(Event {
                    kind: EventKind::Delete,
                    kv,
                    prev_kv,
                }),
                None => {}
            }
        }
        if events.is_empty() {
            return;
        }
        let events = Events {
            namespace: 7,
            revision,
            events,
            cut: false,
        };
        state.log.push(events.clone());
        if applied {
            let outcome = Arc::new(Outcome {
                events: vec![events],
                ..Outcome::default()
            });
            if self.local.load(Ordering::Relaxed) {
                self.hub.applied(PARTITION, 0, &outcome);
            }
            self.other.applied(PARTITION, 0, &outcome);
        }
    }

    pub fn expected(&self, key: &str, range_end: &str, from: i64) -> Vec<Seen> {
        let selector = selector(key.to_owned(), range_end.to_owned());
        let state = self.state.lock();
        let mut all = Vec::new();
        for events in state.log.iter().filter(|e| e.revision >= from) {
            for event in events.events.iter().filter(|e| selector.matches(&e.kv.key)) {
                let delete = event.kind == EventKind::Delete;
                all.push(Seen {
                    revision: events.revision,
                    key: event.kv.key.to_vec(),
                    delete,
                });
            }
        }
        all
    }
}

fn selector(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Selector {
    Selector {
        key: key.into(),
        range_end: range_end.into(),
    }
}

impl State {
    fn revision(&self) -> i64 {
        self.log.last().map_or(1, |events| events.revision)
    }

    fn history(&mut self, ask: &AskHistory) -> Result<Past, ServerError> {
        if ask.from.max(1) < self.compacted {
            let kind = RefusalKind::Compacted as i32;
            return Err(ServerError::Refused(Refusal {
                kind,
                text: String::new(),
                detail: self.compacted,
            }));
        }
        // Now and then little at a time, so that a watch is behind for longer.
        self.asked += 1;
        let most = if self.asked.is_multiple_of(2) { 3 } else { 10_000 };
        let selector = selector(ask.key.clone(), ask.range_end.clone());
        let mut past = Past {
            revision: self.revision(),
            history: History::default(),
        };
        past.history.through = past.revision;
        let (mut taken, mut size_bytes) = (0, 0);
        for events in self.log.iter().filter(|e| e.revision >= ask.from) {
            let matching: Vec<_> = events
                .events
                .iter()
                .filter(|e| selector.matches(&e.kv.key))
                .collect();
            size_bytes += matching.iter().map(|e| e.kv.value.len()).sum::<usize>();
            past.history
                .events
                .extend(matching.into_iter().map(|event| HistoryEvent {
                    delete: event.kind == EventKind::Delete,
                    kv: Some(event.kv.clone()),
                    prev_kv: if ask.prev_kv { event.prev_kv.clone() } else { None },
                }));
            taken += 1;
            if taken >= most || size_bytes as u64 > ask.limit_bytes {
                past.history.through = events.revision;
                break;
            }
        }
        Ok(past)
    }
}

#[tonic::async_trait]
impl Source for World {
    async fn revision(&self, _: &KeySpace) -> Result<i64, ServerError> {
        tokio::task::yield_now().await;
        if self.leaderless.load(Ordering::Relaxed) {
            return Err(ServerError::NoLeader {
                partition: PARTITION,
                text: String::new(),
            });
        }
        Ok(World::revision(self))
    }

    async fn history(&self, _: &KeySpace, ask: AskHistory) -> Result<Past, ServerError> {
        tokio::task::yield_now().await;
        let past = self.state.lock().history(&ask);
        tokio::task::yield_now().await;
        past
    }

    async fn local_revision(&self, _: &KeySpace) -> Result<Option<i64>, ServerError> {
        tokio::task::yield_now().await;
        if self.recovering.load(Ordering::Relaxed) {
            let text = "recovering".to_owned();
            return Err(ServerError::Unavailable { text });
        }
        let revision = World::revision(self);
        tokio::task::yield_now().await;
        Ok(self.local.load(Ordering::Relaxed).then_some(revision))
    }

    fn is_local(&self, _: PartitionId) -> bool {
        self.local.load(Ordering::Relaxed)
    }

    async fn open_remote(
        &self,
        _: PartitionId,
        body: Bytes,
    ) -> Result<mpsc::Receiver<Result<Bytes, ServerError>>, ServerError> {
        let (out, responses) = mpsc::channel(4);
        let (through, mut carried) = mpsc::channel(4);
        let (hub, cut) = (self.other.clone(), self.cut.clone());
        if !self.other_serves.load(Ordering::Relaxed) {
            return Err(ServerError::UnknownPartition { partition: PARTITION });
        }
        let source = Arc::new(Other {
            state: self.state.clone(),
            serves: self.other_serves.clone(),
        });
        let open = proxy::Open::decode(body).expect("ours");
        let space = self.space();
        let streams = self.carried.clone();
        streams.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _ = proxy::serve(&hub, source, space, open.from, through).await;
            streams.fetch_sub(1, Ordering::Relaxed);
        });
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = cut.notified() => {
                        let text = "cut".to_owned();
                        let _ = out.send(Err(ServerError::Unavailable { text })).await;
                        return;
                    }
                    bytes = carried.recv() => {
                        let Some(bytes) = bytes else { return };
                        assert!(bytes.len() <= FRAME_BYTES, "a frame of {} bytes", bytes.len());
                        if out.send(Ok(bytes)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(responses)
    }

    fn term(&self, _: PartitionId) -> u64 {
        1
    }

    fn identity(&self) -> (u64, u64) {
        (1, 1)
    }
}

/// The node with a replica.
struct Other {
    state: Arc<Mutex<State>>,
    serves: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl Source for Other {
    async fn revision(&self, _: &KeySpace) -> Result<i64, ServerError> {
        Ok(self.state.lock().revision())
    }

    async fn history(&self, _: &KeySpace, ask: AskHistory) -> Result<Past, ServerError> {
        tokio::task::yield_now().await;
        self.state.lock().history(&ask)
    }

    async fn local_revision(&self, _: &KeySpace) -> Result<Option<i64>, ServerError> {
        Ok(Some(self.state.lock().revision()))
    }

    fn is_local(&self, _: PartitionId) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    async fn open_remote(
        &self,
        partition: PartitionId,
        _: Bytes,
    ) -> Result<mpsc::Receiver<Result<Bytes, ServerError>>, ServerError> {
        Err(ServerError::UnknownPartition { partition })
    }

    fn term(&self, _: PartitionId) -> u64 {
        1
    }

    fn identity(&self) -> (u64, u64) {
        (1, 2)
    }
}
