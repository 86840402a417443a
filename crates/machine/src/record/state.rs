//! The partition's own record: clock, position, and the hash of all other records.
//!
//! Invariant: `State::sum` is the wrapping sum of one hash per record, this one excepted ([`recompute`], checked
//! by `invariant::check`). `State::digest` also covers this record.

use std::ops::ControlFlow;

use xxhash_rust::xxh3::xxh3_128;

use super::key::{self, Kind};
use super::{Space, decode, encode};
use crate::view::{View, ViewError};

/// Clock, position and hash.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct State {
    /// [`crate::command::BATCH_FORMAT`] of the newest batch applied.
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// The machine's clock.
    #[prost(uint64, tag = "2")]
    pub clock_ms: u64,
    /// The leader's wall clock at the last batch, for people only.
    #[prost(uint64, tag = "3")]
    pub wall_ms: u64,
    /// Term of the last batch.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// Log index of the last batch: hashes compare only where these are equal.
    #[prost(uint64, tag = "5")]
    pub index: u64,
    /// Sessions in the partition.
    #[prost(uint64, tag = "6")]
    pub sessions: u64,
    /// Upper half of the hash of all other records.
    #[prost(fixed64, tag = "7")]
    pub sum_high: u64,
    /// Lower half of it.
    #[prost(fixed64, tag = "8")]
    pub sum_low: u64,
}

impl State {
    /// The multiset hash of all other records.
    pub fn sum(&self) -> u128 {
        u128::from(self.sum_high) << 64 | u128::from(self.sum_low)
    }

    /// Sets [`State::sum`].
    pub(crate) fn set_sum(&mut self, sum: u128) {
        self.sum_high = (sum >> 64) as u64;
        self.sum_low = sum as u64;
    }

    /// One number that two replicas at the same index must share.
    pub fn digest(&self) -> u128 {
        xxh3_128(&encode(self))
    }
}

/// Key of the record.
pub fn state_key() -> bytes::Bytes {
    key::single(Space::PARTITION, Kind::State)
}

/// The record, or an empty one before the first batch.
pub fn read(view: &dyn View) -> Result<State, ViewError> {
    match view.get(&state_key())? {
        Some(bytes) => decode("the state record", bytes),
        None => Ok(State::default()),
    }
}

/// Hashes records one by one; keeps its buffer.
#[derive(Default)]
pub(crate) struct RecordHash {
    buffer: Vec<u8>,
}

impl RecordHash {
    /// The hash of one record.
    pub fn of(&mut self, key: &[u8], value: &[u8]) -> u128 {
        self.buffer.clear();
        self.buffer.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        xxh3_128(&self.buffer)
    }
}

/// Computes [`State::sum`] anew from every record of the view.
pub fn recompute(view: &dyn View) -> Result<u128, ViewError> {
    let own = state_key();
    let mut hash = RecordHash::default();
    let mut sum = 0u128;
    view.scan(&[], &[0xff; 8], false, &mut |key, value| {
        if key != own.as_ref() {
            sum = sum.wrapping_add(hash.of(key, value));
        }
        ControlFlow::Continue(())
    })?;
    Ok(sum)
}

/// Hash and number of the records of one slot, for a restore or a move.
pub fn recompute_slot(view: &dyn View, slot: types::Slot) -> Result<(u128, u64), ViewError> {
    let from = slot.0.to_be_bytes();
    let to = slot
        .0
        .checked_add(1)
        .map_or(vec![0xff; 8], |next| next.to_be_bytes().to_vec());
    let mut hash = RecordHash::default();
    let (mut sum, mut records) = (0u128, 0u64);
    view.scan(&from, &to, false, &mut |key, value| {
        sum = sum.wrapping_add(hash.of(key, value));
        records += 1;
        ControlFlow::Continue(())
    })?;
    Ok((sum, records))
}

/// Every space with records of key spaces, ascending (those of the partition itself excepted).
pub fn namespaces_in(view: &dyn View) -> Result<Vec<Space>, ViewError> {
    let mut found = Vec::new();
    let mut from = bytes::Bytes::new();
    let end = types::Slot::PARTITION.0.to_be_bytes();
    loop {
        let mut met = None;
        view.scan(&from, &end, false, &mut |key, _| {
            met = Some(key::split(key).map(|(space, _, _)| space));
            ControlFlow::Break(())
        })?;
        let Some(space) = met.transpose()? else {
            return Ok(found);
        };
        found.push(space);
        match key::space(space).1 {
            Some(next) => from = next,
            None => return Ok(found),
        }
    }
}
