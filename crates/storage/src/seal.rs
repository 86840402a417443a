//! Small records with a checksum in front, and the position in that form. Both implementations use it.

use std::io;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Applied, damaged, other_format};

/// Version of the position's encoding.
const FORMAT: u8 = 1;

/// `bytes` with their checksum in front.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&xxh3_64(bytes).to_le_bytes()[..], bytes].concat()
}

/// What was [`sealed`], if it is whole.
pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = bytes.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*sum) == xxh3_64(rest)).then_some(rest)
}

/// A position, sealed.
pub(crate) fn applied(applied: &Applied) -> Vec<u8> {
    let length = (applied.log_id.len() as u32).to_le_bytes();
    sealed(&[&[FORMAT][..], &length, &applied.log_id, &applied.membership].concat())
}

/// The position in what [`applied`] made. `what` names it in errors.
pub(crate) fn parse_applied(what: &str, bytes: &[u8]) -> io::Result<Applied> {
    let record = unseal(bytes).ok_or_else(|| damaged(format!("{what} fails its checksum")))?;
    match record.split_first() {
        Some((&FORMAT, rest)) => decode(rest).ok_or_else(|| damaged(format!("{what} is too short"))),
        Some((format, _)) => Err(other_format(what, format, FORMAT)),
        None => Err(damaged(format!("{what} is empty"))),
    }
}

fn decode(record: &[u8]) -> Option<Applied> {
    let (length, rest) = record.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (log_id, membership) = rest.split_at_checked(length)?;
    Some(Applied {
        log_id: Bytes::copy_from_slice(log_id),
        membership: Bytes::copy_from_slice(membership),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_position_is_seen() {
        let position = Applied {
            log_id: Bytes::from_static(b"id"),
            membership: Bytes::from_static(b"members"),
        };
        let good = applied(&position);
        let parse = |bytes: &[u8]| parse_applied("the position", bytes);
        assert_eq!(parse(&good).unwrap(), position);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad).is_err(), "bit {bit}");
        }
        assert!(parse(&good[..good.len() - 1]).is_err());
    }

    #[test]
    fn a_position_of_another_format_is_no_damage() {
        let newer = sealed(&[FORMAT + 1, 0, 0]);
        let error = parse_applied("the position", &newer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "the position has format 2, this build reads 1");
    }
}
