//! The bytes of one execution, taken from the front.

use std::fmt::Debug;

use prost::Message;

/// What is left of them. Past their end there are zeros.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of them.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// A string whose length stands before it, in two bytes; what there is of it.
    pub fn part(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        part
    }

    /// A number.
    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        u64::from_le_bytes(bytes)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `bytes` as [`Input::part`] reads them.
pub fn part(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("seeds are small");
    [&length.to_le_bytes()[..], bytes].concat()
}

/// A seed: which of a target's messages, and the message.
pub fn seed(which: u8, message: &impl Message) -> Vec<u8> {
    [&[which][..], &message.encode_to_vec()].concat()
}

/// Decodes a message, if it is one, and asserts that it survives its own encoding.
pub fn decode<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.len(), message.encoded_len(), "{message:?}");
    let again = M::decode(encoded.as_slice());
    assert_eq!(again.as_ref(), Ok(&message), "not the same after encoding");
    Some(message)
}
