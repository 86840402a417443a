//! Reads watch responses at a fraction of what a full decode costs: a thousand watchers live in one process, on
//! the cores that the cluster needs. Takes from each event the first eight bytes of its value, the time at which it
//! was written, and leaves the rest.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// `WatchResponse.events`, `Event.kv`, `KeyValue.value`.
const EVENTS: u32 = 11;
const KV: u32 = 2;
const VALUE: u32 = 5;

/// The events of one response: the first eight bytes of each value, big-endian (0 if it has fewer).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Events {
    /// One per event, in order.
    pub marks: Vec<u64>,
}

/// Reads one response, to the end of `body`.
pub fn read(body: &mut impl Buf) -> Result<Events, prost::DecodeError> {
    let mut events = Events::default();
    while body.has_remaining() {
        let (tag, wire) = decode_key(body)?;
        if tag == EVENTS && wire == WireType::LengthDelimited {
            let rest = enter(body)?;
            events.marks.push(read_event(body, rest)?);
        } else {
            skip_field(wire, tag, body, DecodeContext::default())?;
        }
    }
    Ok(events)
}

/// Reads one event, which ends when `rest` bytes remain.
fn read_event(body: &mut impl Buf, rest: usize) -> Result<u64, prost::DecodeError> {
    let mut mark = 0;
    while body.remaining() > rest {
        let (tag, wire) = decode_key(body)?;
        match (tag, wire) {
            (KV, WireType::LengthDelimited) => {
                let end = enter(body)?;
                mark = read_key_value(body, end)?;
            }
            _ => skip_field(wire, tag, body, DecodeContext::default())?,
        }
    }
    Ok(mark)
}

fn read_key_value(body: &mut impl Buf, rest: usize) -> Result<u64, prost::DecodeError> {
    let mut mark = 0;
    while body.remaining() > rest {
        let (tag, wire) = decode_key(body)?;
        if tag == VALUE && wire == WireType::LengthDelimited {
            let end = enter(body)?;
            if body.remaining() >= end + 8 {
                mark = body.get_u64();
            }
            body.advance(body.remaining().saturating_sub(end));
        } else {
            skip_field(wire, tag, body, DecodeContext::default())?;
        }
    }
    Ok(mark)
}

/// Reads a length; returns how many bytes remain after what it measures.
fn enter(body: &mut impl Buf) -> Result<usize, prost::DecodeError> {
    let length = decode_varint(body)? as usize;
    // A length beyond the end ends at the end; the counts will not fit, and the run will say so.
    Ok(body.remaining().saturating_sub(length))
}

#[cfg(test)]
mod tests {
    //! The short cut sees what the full encoding holds.
    use super::*;
    use etcd_client::proto::{PbEvent, PbKeyValue, PbWatchResponse};
    use prost::Message;

    #[test]
    fn marks_of_all_events() {
        let event = |mark: u64, length: usize| {
            let mut value = mark.to_be_bytes().to_vec();
            value.resize(length, b'x');
            let kv = PbKeyValue {
                key: b"watched/1".to_vec(),
                value,
                mod_revision: 7,
                ..PbKeyValue::default()
            };
            PbEvent {
                kv: Some(kv.clone()),
                prev_kv: Some(kv),
                ..PbEvent::default()
            }
        };
        let events = vec![event(1, 256), event(u64::MAX, 8), event(3, 4), PbEvent::default()];
        let response = PbWatchResponse {
            watch_id: 5,
            events,
            ..PbWatchResponse::default()
        };
        let mut bytes = prost::bytes::Bytes::from(response.encode_to_vec());
        assert_eq!(read(&mut bytes).expect("reads").marks, [1, u64::MAX, 0, 0]);
        let mut empty = prost::bytes::Bytes::from(
            PbWatchResponse {
                created: true,
                ..Default::default()
            }
            .encode_to_vec(),
        );
        assert_eq!(read(&mut empty).expect("reads"), Events::default());
    }
}
