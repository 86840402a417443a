//! One watch response, ready to be written: the head as a message, the events as shared bytes.

use bytes::{BufMut, Bytes, BytesMut};
use etcd_client::proto::PbWatchResponse;
use prost::Message;

/// `head` has no events; `events` is the encoded field. Protobuf fields may come in any order, so one after the
/// other they are a `WatchResponse`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Frame {
    /// Everything but the events.
    pub head: PbWatchResponse,
    /// The encoded events.
    pub events: Bytes,
}

impl Frame {
    /// Writes it.
    pub fn encode(&self, out: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        self.head.encode(out)?;
        out.put_slice(&self.events);
        Ok(())
    }

    /// Its bytes.
    pub fn into_bytes(self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_bytes());
        self.head.encode(&mut out).expect("BytesMut grows");
        out.put_slice(&self.events);
        out.freeze()
    }

    /// Bytes it takes on the wire.
    pub fn size_bytes(&self) -> usize {
        self.head.encoded_len() + self.events.len()
    }

    /// The message, events included.
    pub fn into_response(self) -> Result<PbWatchResponse, prost::DecodeError> {
        let mut response = self.head;
        response.merge(self.events)?;
        Ok(response)
    }
}
