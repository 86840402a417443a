//! A node without a replica follows a watched key space through a node that has one: one stream for all its watches,
//! resumed elsewhere from the next revision when it breaks. What passes are etcd's `WatchResponse`s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::proto::{PbEvent, PbKeyValue, PbWatchResponse};
use futures::StreamExt;
use machine::EventKind;
use machine::command::KeyValue;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;
use types::{NamespaceId, PartitionId, Slot, limits};

use super::event::{Coded, Revision};
use super::feed::{Feed, Origin};
use super::frame::Frame;
use super::index::Selector;
use super::source::Source;
use super::stream::{self, Create, Options, Request, Responses};
use crate::Core;
use crate::core::{KeySpace, ServerError};

/// How often it is looked whether the replica that serves another node is still here.
const LOOK: Duration = Duration::from_millis(500);

/// Format of [`Open`].
const FORMAT: u32 = 1;

/// What a follower asks for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Open {
    /// Format of this message.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// Number of the namespace.
    #[prost(uint32, tag = "2")]
    pub namespace: u32,
    /// Its slot.
    #[prost(uint32, tag = "3")]
    pub slot: u32,
    /// First revision wanted; 0 for what comes after now.
    #[prost(int64, tag = "4")]
    pub from: i64,
    /// Its name, for messages.
    #[prost(string, tag = "5")]
    pub name: String,
}

/// Follows until the stream breaks.
pub(super) async fn follow(
    feed: &Feed,
    source: &Arc<dyn Source>,
    space: &KeySpace,
) -> Result<(), ServerError> {
    let (head, epoch) = (feed.head(), feed.epoch());
    let open = Open {
        format: FORMAT,
        namespace: space.id.0,
        slot: u32::from(space.slot.0),
        from: head.map_or(0, |head| head + 1),
        name: space.name.to_string(),
    };
    let mut responses = source
        .open_remote(space.partition, open.encode_to_vec().into())
        .await?;
    let mut joining = Joining::default();
    while let Some(bytes) = responses.recv().await {
        let response = PbWatchResponse::decode(bytes?).map_err(|error| ServerError::Internal {
            text: format!("a peer's watch response: {error}"),
        })?;
        if response.canceled {
            // The history that is missing here is gone there too: each watch finds out by itself.
            feed.restart();
            return Ok(());
        }
        if response.created && head.is_none() {
            feed.begin(response.header.map_or(0, |header| header.revision), epoch);
        }
        for revision in joining.add(response.events, response.fragment) {
            feed.push(Origin::Remote, revision);
        }
        if !joining.has_room() {
            // Each watch reads from history what concerns it.
            feed.restart();
            return Err(ServerError::TooLarge {
                text: format!("revision {} is too large to be passed on", joining.revision()),
            });
        }
    }
    Ok(())
}

/// Groups events, which come in order, by revision; puts together again what was cut.
#[derive(Default)]
struct Joining {
    /// The last one may go on.
    revisions: Vec<Revision>,
    /// Of that one, while it goes on.
    size_bytes: usize,
}

impl Joining {
    /// Takes a response; gives the revisions that are whole. `cut`: the last one goes on in the next response.
    fn add(&mut self, events: Vec<PbEvent>, cut: bool) -> Vec<Revision> {
        for event in events {
            self.take(event);
        }
        if !cut {
            self.size_bytes = 0;
            return std::mem::take(&mut self.revisions);
        }
        let goes_on = self.revisions.split_off(self.revisions.len().saturating_sub(1));
        std::mem::replace(&mut self.revisions, goes_on)
    }

    fn take(&mut self, event: PbEvent) {
        let kind = if event.r#type == 1 {
            EventKind::Delete
        } else {
            EventKind::Put
        };
        let Some(kv) = event.kv.map(key_value) else {
            return;
        };
        let coded = Coded::new(kind, &kv, event.prev_kv.map(key_value).as_ref());
        if self.revision() != kv.mod_revision {
            self.size_bytes = 0;
            self.revisions.push(Revision {
                revision: kv.mod_revision,
                events: Vec::new(),
            });
        }
        self.size_bytes += coded.size_bytes();
        if let Some(last) = self.revisions.last_mut() {
            last.events.push(coded);
        }
    }

    /// The last one; 0 if there is none.
    fn revision(&self) -> i64 {
        self.revisions.last().map_or(0, |last| last.revision)
    }

    /// Whether what goes on may go on.
    fn has_room(&self) -> bool {
        self.size_bytes <= limits::WATCH_REVISION_BYTES
    }
}

fn key_value(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        key: kv.key.into(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value.into(),
        lease: kv.lease,
    }
}

/// Serves a watch stream opened by another node with [`Core::open_remote_watch`]: `body` is an [`Open`], every
/// `Bytes` sent to `out` arrives there. Ends when `out` is closed. Never serves through a third node.
pub async fn serve_remote(
    core: &Arc<Core>,
    partition: PartitionId,
    body: Bytes,
    out: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let open = Open::decode(body).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if open.format != FORMAT {
        return Err(Status::failed_precondition(format!(
            "watch format {} is not known here",
            open.format
        )));
    }
    if !Core::is_local(core, partition) {
        return Err(not_here(partition));
    }
    let slot = u16::try_from(open.slot).map_err(|_| Status::invalid_argument("slot out of range"))?;
    let space = KeySpace {
        id: NamespaceId(open.namespace),
        slot: Slot(slot),
        partition,
        name: open.name.as_str().into(),
    };
    let source: Arc<dyn Source> = core.clone();
    serve(core.hub(), source, space, open.from, out).await
}

/// Sends everything from `from` on (0: after now) until `out` is closed.
pub(super) async fn serve(
    hub: &Arc<super::Hub>,
    source: Arc<dyn Source>,
    space: KeySpace,
    from: i64,
    out: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let everything = Selector::everything();
    let create = Create {
        key: everything.key,
        range_end: everything.range_end,
        start_revision: from,
        previous: true,
        fragment: true,
        ..Create::default()
    };
    let partition = space.partition;
    let requests = futures::stream::iter([Ok(Request::Create(create))]).chain(futures::stream::pending());
    let mut frames = stream::open(hub, source.clone(), space, Options::default(), Box::pin(requests));
    while let Some(chunk) = next_chunk(&mut frames, &source, partition).await? {
        for frame in chunk {
            if out.send(Frame::into_bytes(frame)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The next chunk; an error as soon as the replica here no longer serves.
async fn next_chunk(
    frames: &mut Responses,
    source: &Arc<dyn Source>,
    partition: PartitionId,
) -> Result<Option<Vec<Frame>>, Status> {
    loop {
        let chunk = tokio::time::timeout(LOOK, frames.recv()).await;
        if !source.is_local(partition) {
            return Err(not_here(partition));
        }
        if let Ok(chunk) = chunk {
            return chunk.transpose();
        }
    }
}

fn not_here(partition: PartitionId) -> Status {
    Status::failed_precondition(format!("no replica of partition {partition} here"))
}
