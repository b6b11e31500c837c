//! Damages bytes at random, by a seed.
//!
//! Owns: the ways of damage. Does not own: what is damaged.

/// Small numbers in all sizes, and the edges of what a length may be.
const EDGES: [i64; 12] =
    [0, 1, -1, 2, 127, 128, i16::MAX as i64, u16::MAX as i64, i32::MAX as i64, i32::MIN as i64, i64::MAX, 0x7fff_ff00];

/// A fixed sequence of numbers that look random (xorshift64*).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `end`, which is at least 1.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Damages `bytes` a few times; `other` gives parts to copy.
pub(super) fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        // Near the start are the headers.
        let at = if dice.below(3) == 0 { at.min(dice.below(80)) } else { at };
        let length = (1 + dice.below(16)).min(bytes.len() - at);
        match dice.below(10) {
            0 => overwrite(bytes, at, &[dice.next() as u8]),
            1 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << dice.below(8)),
            2 => overwrite(bytes, at, &EDGES[dice.below(EDGES.len())].to_be_bytes()[4..]),
            3 => overwrite(bytes, at, &EDGES[dice.below(EDGES.len())].to_be_bytes()[6..]),
            4 => overwrite(bytes, at, &EDGES[dice.below(EDGES.len())].to_le_bytes()[..4]),
            // A number of as many bytes as they come, in Kafka's variable encoding.
            5 => overwrite(bytes, at, &[0xff, 0xff, 0xff, 0xff, 0x0f][dice.below(5)..]),
            6 => bytes.truncate(at),
            7 => drop(bytes.drain(at..at + length)),
            8 => {
                let part = bytes[at..at + length].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let from = dice.below(other.len() + 1);
                let part = &other[from..(from + dice.below(200)).min(other.len())];
                let end = (at + part.len()).min(bytes.len());
                bytes.splice(at..end, part.iter().copied());
            }
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, with) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *with;
    }
}
