//! Events as bytes: each is encoded once, then copied into the responses of however many watches want it.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use machine::command::KeyValue;
use machine::{EventKind, Events};
use prost::encoding::{encode_varint, encoded_len_varint};
use types::limits;
use types::planted::{self, Planted};

/// Field `events` of etcd's `WatchResponse`, as a length-delimited field's key.
const EVENTS_FIELD: u8 = 11 << 3 | 2;

/// One event, encoded as etcd's `mvccpb.Event` but for its previous pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Coded {
    kind: EventKind,
    key: Bytes,
    body: Bytes,
    /// The field `prev_kv`, key included; empty if there is none.
    previous: Bytes,
}

impl Coded {
    /// Encodes.
    pub fn new(kind: EventKind, kv: &KeyValue, previous: Option<&KeyValue>) -> Coded {
        let mut body = BytesMut::with_capacity(kv.key.len() + kv.value.len() + 48);
        if kind == EventKind::Delete {
            prost::encoding::int32::encode(1, &1, &mut body);
        }
        prost::encoding::message::encode(2, kv, &mut body);
        let mut prev = BytesMut::new();
        if let Some(previous) = previous {
            prost::encoding::message::encode(3, previous, &mut prev);
        }
        // The key is copied: what it points into may be the whole log entry.
        let key = Bytes::copy_from_slice(&kv.key);
        Coded {
            kind,
            key,
            body: body.freeze(),
            previous: prev.freeze(),
        }
    }

    /// The key it is about.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Memory it takes, about.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.body.len() + self.previous.len() + 64
    }

    fn append(&self, shape: Shape, out: &mut BytesMut) {
        let previous = if shape.previous {
            self.previous.as_ref()
        } else {
            &[]
        };
        let len = self.body.len() + previous.len();
        out.reserve(1 + encoded_len_varint(len as u64) + len);
        out.put_u8(EVENTS_FIELD);
        encode_varint(len as u64, out);
        out.put_slice(&self.body);
        out.put_slice(previous);
    }
}

/// All events of one revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The revision.
    pub revision: i64,
    /// In order.
    pub events: Vec<Coded>,
}

impl Revision {
    /// Encodes what a batch did at one revision.
    pub fn new(events: &Events) -> Revision {
        let code = |e: &machine::Event| Coded::new(e.kind, &e.kv, e.prev_kv.as_ref());
        Revision {
            revision: events.revision,
            events: events.events.iter().map(code).collect(),
        }
    }

    /// Memory it takes, about.
    pub fn size_bytes(&self) -> usize {
        self.events.iter().map(Coded::size_bytes).sum()
    }
}

/// What a watch wants of each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// The previous pair.
    pub previous: bool,
    /// No puts.
    pub no_put: bool,
    /// No deletions.
    pub no_delete: bool,
}

impl Shape {
    const COUNT: usize = 8;

    fn index(self) -> usize {
        usize::from(self.previous) | usize::from(self.no_put) << 1 | usize::from(self.no_delete) << 2
    }

    fn wants(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }
}

/// Encoded events of whole revisions: the body of one response.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The last revision in it.
    pub last: i64,
    /// Field `events`, repeated.
    pub bytes: Bytes,
    /// Where a watch that allows fragments may cut; empty unless the part exceeds the limit.
    pub cuts: Vec<usize>,
}

impl Part {
    /// The fragments of this part: slices, the last one marked `false`.
    pub fn fragments(&self) -> Vec<(Bytes, bool)> {
        let mut all = Vec::with_capacity(self.cuts.len() + 1);
        let mut from = 0;
        for cut in &self.cuts {
            all.push((self.bytes.slice(from..*cut), true));
            from = *cut;
        }
        all.push((self.bytes.slice(from..), false));
        all
    }
}

/// Some events of one revision: indexes into it.
type Picked = (Arc<Revision>, Vec<u32>);

/// The events of a stretch of revisions that match one selector, encoded once for each shape that is asked for.
#[derive(Debug, Default)]
pub struct Batch {
    picked: Vec<Picked>,
    size_bytes: usize,
    shapes: [OnceLock<Arc<[Part]>>; Shape::COUNT],
}

impl Batch {
    /// Adds an event; revisions come in ascending order.
    pub fn pick(&mut self, revision: &Arc<Revision>, event: usize) {
        let event = u32::try_from(event).unwrap_or(u32::MAX);
        match self.picked.last_mut() {
            Some((last, events)) if last.revision == revision.revision => events.push(event),
            Some(_) | None => {
                self.size_bytes += revision.size_bytes();
                self.picked.push((revision.clone(), vec![event]));
            }
        }
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.picked.is_empty()
    }

    /// First revision with an event here.
    pub fn first(&self) -> i64 {
        self.picked.first().map_or(0, |(r, _)| r.revision)
    }

    /// Last revision with an event here.
    pub fn last(&self) -> i64 {
        self.picked.last().map_or(0, |(r, _)| r.revision)
    }

    /// Memory it keeps alive, about.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// What a watch of this shape is sent that has everything below `from`.
    pub fn parts(&self, shape: Shape, from: i64) -> Arc<[Part]> {
        if from > self.first() {
            return self.encode(shape, from);
        }
        self.shapes[shape.index()]
            .get_or_init(|| self.encode(shape, from))
            .clone()
    }

    fn encode(&self, shape: Shape, from: i64) -> Arc<[Part]> {
        let mut parts = Vec::new();
        let mut part = BytesMut::new();
        let mut last = 0;
        for (revision, events) in self.picked.iter().filter(|(r, _)| r.revision >= from) {
            let (bytes, cuts) = encode_revision(revision, events, shape);
            if bytes.is_empty() {
                continue;
            }
            if !part.is_empty() && part.len() + bytes.len() > limits::WATCH_RESPONSE_BYTES {
                parts.push(Part {
                    last,
                    bytes: part.split().freeze(),
                    cuts: Vec::new(),
                });
            }
            last = revision.revision;
            if cuts.is_empty() && planted::is(Planted::WatchReordered) && last % 10 == 0 {
                let earlier = std::mem::replace(&mut part, bytes);
                part.unsplit(earlier);
            } else if cuts.is_empty() {
                part.unsplit(bytes);
            } else {
                parts.push(Part {
                    last,
                    bytes: bytes.freeze(),
                    cuts,
                });
            }
        }
        if !part.is_empty() {
            parts.push(Part {
                last,
                bytes: part.freeze(),
                cuts: Vec::new(),
            });
        }
        parts.into()
    }
}

/// The chosen events of a revision, and where to cut them if they exceed a response's limit.
fn encode_revision(revision: &Revision, events: &[u32], shape: Shape) -> (BytesMut, Vec<usize>) {
    let mut bytes = BytesMut::new();
    let mut cuts = Vec::new();
    let mut begin = 0;
    for event in events {
        let Some(event) = revision.events.get(*event as usize) else {
            continue;
        };
        if !shape.wants(event.kind) {
            continue;
        }
        let before = bytes.len();
        event.append(shape, &mut bytes);
        if before > begin && bytes.len() - begin > limits::WATCH_RESPONSE_BYTES {
            cuts.push(before);
            begin = before;
        }
    }
    (bytes, cuts)
}

#[cfg(test)]
mod tests;
