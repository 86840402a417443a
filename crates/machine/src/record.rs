//! How records are keyed and encoded. Every record is a protobuf message under a key that begins with slot and
//! namespace, so that a slot can be moved, split off or restored as a range of keys.

use bytes::Bytes;
use types::{NamespaceId, Slot};

use crate::view::ViewError;

pub mod key;
pub mod kv;
pub mod lease;
pub mod meta;
pub mod session;
pub mod state;

/// A key space, or whatever else is under one slot and namespace number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space {
    /// Its slot.
    pub slot: Slot,
    /// Its namespace; 0 for partition-wide records.
    pub namespace: NamespaceId,
}

impl Space {
    /// Records of the partition itself.
    pub const PARTITION: Space = Space {
        slot: Slot::PARTITION,
        namespace: NamespaceId(0),
    };

    /// The space of slot and namespace.
    pub fn new(slot: Slot, namespace: NamespaceId) -> Space {
        Space { slot, namespace }
    }

    /// As numbers on the wire; `None` if there is no such space. The partition's own records are of no namespace:
    /// what was written under one there would be found by nobody.
    pub fn from_wire(slot: u32, namespace: u32) -> Option<Space> {
        let slot = Slot(u16::try_from(slot).ok()?);
        let known = match slot {
            Slot::PARTITION => namespace == 0,
            slot => slot.0 < types::id::SLOTS,
        };
        known.then_some(Space {
            slot,
            namespace: NamespaceId(namespace),
        })
    }

    /// Whether keys and leases can live here: a slot of the hash space, and a namespace.
    pub fn is_key_space(&self) -> bool {
        self.slot != Slot::PARTITION && self.namespace.0 != 0
    }
}

/// Decodes a record; damage is the view's.
pub(crate) fn decode<M: prost::Message + Default>(what: &str, bytes: Bytes) -> Result<M, ViewError> {
    M::decode(bytes).map_err(|error| ViewError::new(format!("{what} is damaged: {error}")))
}

/// Encodes a record.
pub(crate) fn encode<M: prost::Message>(message: &M) -> Bytes {
    Bytes::from(message.encode_to_vec())
}
