//! Mutations of seeds for builds that cannot say what code was reached: blind, cheap, and the same in each run.

/// Numbers that look random (SplitMix64).
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next one, below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }
}

/// Largest input.
pub const INPUT_BYTES: usize = 1024;

/// Bytes at which code changes its mind: ends of ranges, lengths and tags of varints, signs.
const EDGES: [u8; 12] = [0, 1, 2, 0x08, 0x0a, 0x12, 0x7f, 0x80, 0xfe, 0xff, b' ', b'\n'];

/// Makes `input` a seed with a few changes.
pub fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    input.clear();
    input.extend_from_slice(&seeds[numbers.below(seeds.len())]);
    for _ in 0..=numbers.below(4) {
        change(input, seeds, numbers);
    }
    input.truncate(INPUT_BYTES);
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
    let at = numbers.below(input.len() + 1);
    match numbers.below(9) {
        0 => input.truncate(at),
        1 => input.insert(at, numbers.draw() as u8),
        2 => input.insert(at, EDGES[numbers.below(EDGES.len())]),
        3 => {
            let other = &seeds[numbers.below(seeds.len())];
            let from = numbers.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        4 => {
            let to = (at + 1 + numbers.below(8)).min(input.len());
            input.drain(at..to);
        }
        5 => {
            let to = (at + 1 + numbers.below(16)).min(input.len());
            input.extend_from_within(at..to);
        }
        // The largest varint: lengths, revisions and counts that nobody has.
        6 => drop(input.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])),
        7 => byte(input, at, |_| EDGES[numbers.below(EDGES.len())]),
        _ => byte(input, at, |byte| byte ^ 1 << numbers.below(8)),
    }
}

fn byte(input: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = change(*byte);
    }
}
