//! The end of a write-ahead log that RocksDB refuses: whether its damage can only be that of a write which a power cut
//! tore, and which nobody was told of. RFC 0025. Must never: call damage torn that may be of what was synced.
//!
//! ```text
//! file     blocks of 32 KiB; a record is one write, in one fragment per block that it touches
//! fragment crc32c u32, masked | length u16 | kind u8 | part of the record     (none begins in a block's last 6 bytes)
//! ```
//! Each write is synced before the next begins: torn is the last record of the newest file, or none. Its pages reach the
//! disk in any order, and one that did not reads as zeros. So the rule is:
//! 1. Every file before the newest is whole, and so is every record of the newest up to some record.
//! 2. From there to the end of the file, fragments lie as those of that one record do.
//! 3. Each of them is whole, or cut short by the end of the file, or has a page of zeros in it; one at least has.
//! 4. Where such a page took a fragment's header, no other record begins in that block.
//! 5. Where the header is there, no change of one byte mends the fragment: zeros may have been written, and a flipped bit
//!    beside them is damage to what may have been acknowledged.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::files;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// What write-back writes at once.
const PAGE: usize = 4096;
/// A page that the record shares, with the record before it or with the end of the file, must have this many of its bytes.
/// A header is never zeros: where the page took one, the header alone will do.
const LEAST_ZEROS: usize = 512;
/// A file that is no longer has no operation in it: a record's header, a sequence number, a count of zero. RocksDB writes
/// that at the end of a recovery that dropped something.
const NOTHING: u64 = HEADER as u64 + 12;

/// A torn write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// The file that ends with it.
    pub(super) file: PathBuf,
    /// Where it begins.
    pub(super) offset: usize,
    /// Bytes from there to the end.
    pub(super) size_bytes: usize,
}

/// Finds a torn write in a log that is not open. `None`: there is none, or something else is damaged too.
pub(super) fn find(dir: &Path) -> io::Result<Option<Torn>> {
    let mut logs: Vec<(u64, PathBuf)> = files::names(dir)?
        .iter()
        .filter_map(|name| Some((name.strip_suffix(".log")?.parse().ok()?, dir.join(name))))
        .collect();
    logs.sort();
    while let Some((_, newest)) = logs.pop() {
        if fs::metadata(&newest)?.len() <= NOTHING {
            continue;
        }
        for (_, older) in &logs {
            let bytes = fs::read(older)?;
            if first_damaged(&bytes) < bytes.len() {
                return Ok(None);
            }
        }
        let bytes = fs::read(&newest)?;
        return Ok(torn_at(&bytes).map(|offset| Torn {
            file: newest,
            offset,
            size_bytes: bytes.len() - offset,
        }));
    }
    Ok(None)
}

fn block_end(at: usize) -> usize {
    (at / BLOCK + 1) * BLOCK
}

/// Checksum, length and kind.
fn header(bytes: &[u8], at: usize) -> Option<(u32, usize, u8)> {
    let [a, b, c, d, low, high, kind] = *bytes.get(at..)?.first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_le_bytes([low, high]));
    Some((unmask(u32::from_le_bytes([a, b, c, d])), length, kind))
}

/// Kind and end of the fragment at `at`, if there is a whole one.
fn fragment(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let (sum, length, kind) = header(bytes, at)?;
    let end = at + HEADER + length;
    let whole = end <= block_end(at) && crc(bytes.get(at + HEADER - 1..end)?) == sum;
    whole.then_some((kind, end))
}

/// Where the first record begins that is not whole; no less than the length if all are.
fn first_damaged(bytes: &[u8]) -> usize {
    let (mut at, mut begun) = (0, None);
    loop {
        if block_end(at) - at < HEADER {
            at = block_end(at);
        }
        let (end, open) = match (fragment(bytes, at), begun) {
            (Some((FULL, end)), None) => (end, None),
            (Some((FIRST, end)), None) => (end, Some(at)),
            (Some((MIDDLE, end)), Some(_)) => (end, begun),
            (Some((LAST, end)), Some(_)) => (end, None),
            (Some(_) | None, _) => return begun.unwrap_or(at),
        };
        (at, begun) = (end, open);
    }
}

/// What a fragment is, if it is one of a torn record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// The file ends within it.
    Cut,
    /// A page of it is missing.
    Torn,
}

/// Where the last record begins, if it is torn and nothing else is damaged.
fn torn_at(bytes: &[u8]) -> Option<usize> {
    let start = first_damaged(bytes);
    let mut at = start;
    let mut torn = false;
    while at < bytes.len() {
        torn |= part(bytes, start, at)? == Part::Torn;
        at = block_end(at);
    }
    torn.then_some(start)
}

/// The fragment at `at` of the record at `start`, which reaches to the end of the file. `None`: it is damaged otherwise.
fn part(bytes: &[u8], start: usize, at: usize) -> Option<Part> {
    let end = block_end(at).min(bytes.len());
    let missing = |to: usize, least: usize| has_missing_page(bytes, start, at..to, least);
    if missing(end.min(at + HEADER), HEADER) {
        let hidden = (at + 1..end).any(|at| begins_record(bytes, at));
        return (!hidden).then_some(Part::Torn);
    }
    let Some((sum, length, kind)) = header(&bytes[..end], at) else {
        return Some(Part::Cut);
    };
    let (stop, room) = (at + HEADER + length, block_end(at) - at - HEADER);
    let begins = at == start;
    let goes_on = kind == if begins { FIRST } else { MIDDLE } && length == room;
    let closes = kind == if begins { FULL } else { LAST } && length <= room && stop >= bytes.len();
    if !goes_on && !closes {
        return None;
    }
    if stop > bytes.len() {
        return Some(Part::Cut);
    }
    let checked = &bytes[at + HEADER - 1..stop];
    let found = crc(checked);
    if found == sum {
        return Some(Part::Whole);
    }
    let torn = missing(end, LEAST_ZEROS) && !one_byte_mends(found, sum, checked.len());
    torn.then_some(Part::Torn)
}

/// Whether a page that `range` touches reads as zeros, as far as it is of the record at `start`, and is `least` long.
fn has_missing_page(bytes: &[u8], start: usize, range: Range<usize>, least: usize) -> bool {
    (range.start / PAGE..range.end.div_ceil(PAGE)).any(|page| {
        let piece = &bytes[start.max(page * PAGE)..bytes.len().min((page + 1) * PAGE)];
        piece.len() >= least && piece.iter().all(|byte| *byte == 0)
    })
}

fn begins_record(bytes: &[u8], at: usize) -> bool {
    // The kind first: it is all that most places need.
    matches!(bytes.get(at + HEADER - 1), Some(&(FULL | FIRST))) && fragment(bytes, at).is_some()
}

const CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The byte whose entry in [`CRC`] has this first byte: there is exactly one.
const BY_FIRST: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[(CRC[byte] >> 24) as usize] = byte as u8;
        byte += 1;
    }
    table
};

/// CRC-32C.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (crc >> 8) ^ CRC[usize::from(crc as u8 ^ byte)];
    !bytes.iter().fold(u32::MAX, step)
}

/// RocksDB keeps checksums turned and raised by a constant.
fn unmask(sum: u32) -> u32 {
    sum.wrapping_sub(0xa282_ead8).rotate_left(15)
}

fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Whether other content in one byte, of the `length` that were checked or of the checksum itself, would make them agree.
fn one_byte_mends(found: u32, sum: u32, length: usize) -> bool {
    let apart = (mask(found) ^ mask(sum)).to_le_bytes();
    if apart.iter().filter(|byte| **byte != 0).count() == 1 {
        return true;
    }
    // What one byte adds is its entry in the table, moved on by a step for each byte that follows: go back from the last.
    let mut apart = found ^ sum;
    (0..length).any(|_| {
        let byte = BY_FIRST[(apart >> 24) as usize];
        let entry = CRC[usize::from(byte)];
        let mends = apart == entry && byte != 0;
        apart = ((apart ^ entry) << 8) | u32::from(byte);
        mends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_rocksdb() {
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        assert_eq!(unmask(mask(0xe306_9283)), 0xe306_9283);
    }

    #[test]
    fn a_change_of_one_byte_is_told_from_a_page_of_zeros() {
        let bytes: Vec<u8> = (0..30_000_u32).map(|n| (n * n) as u8 ^ (n >> 7) as u8).collect();
        let sum = crc(&bytes);
        for at in [0, 1, 999, 29_998, 29_999] {
            for change in [1, 0x40, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                assert!(one_byte_mends(crc(&changed), sum, bytes.len()), "{at} {change}");
                assert!(
                    !one_byte_mends(crc(&changed), sum, bytes.len() - 1 - at),
                    "{at} {change}"
                );
            }
        }
        assert!(one_byte_mends(sum, unmask(mask(sum) ^ 0x0400), bytes.len()));
        let mut torn = bytes.clone();
        torn[4096..8192].fill(0);
        assert!(!one_byte_mends(crc(&torn), sum, bytes.len()));
    }
}
