//! Seeded mutations: what tends to break decoders of CBOR.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Heads of CBOR items that claim much: arrays, maps, strings and bytes of up to 2^64 - 1, and endless ones.
const CLAIMS: [&[u8]; 8] = [
    &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9a, 0x7f, 0xff, 0xff, 0xff],
    &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5a, 0x3f, 0xff, 0xff, 0xff],
    &[0x7b, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00],
    &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9f],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

/// Makes inputs.
pub struct Mutator(ChaCha8Rng);

impl Mutator {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.0.next_u64()) * end as u128) >> 64) as usize
    }

    /// So many random bytes at most, under a given frame.
    pub fn noise(&mut self, tag: u8, max: usize) -> Vec<u8> {
        let mut out = vec![0; 2 + self.below(max)];
        self.0.fill_bytes(&mut out);
        out[0] = tag;
        out[1] = 1;
        out
    }

    /// `original` with a few things changed; its first two bytes, the frame, mostly stay.
    pub fn mutate(&mut self, original: &[u8], other: &[u8]) -> Vec<u8> {
        let mut out = original.to_vec();
        for _ in 0..1 + self.below(4) {
            let frame = if self.below(20) == 0 { 0 } else { 2.min(out.len()) };
            let at = frame + self.below(out.len().saturating_sub(frame).max(1));
            let at = at.min(out.len());
            match self.below(8) {
                0 | 1 if at < out.len() => out[at] ^= 1 << self.below(8),
                2 if at < out.len() => out[at] = self.0.next_u64() as u8,
                3 => out.truncate(at),
                4 => {
                    let claim = CLAIMS[self.below(CLAIMS.len())];
                    out.splice(at..(at + 1).min(out.len()), claim.iter().copied());
                }
                5 => {
                    let from = self.below(other.len().max(1)).min(other.len());
                    let to = (from + self.below(64)).min(other.len());
                    out.splice(at..at, other[from..to].iter().copied());
                }
                6 => {
                    let to = (at + self.below(64)).min(out.len());
                    let copy = out[at..to].to_vec();
                    out.splice(at..at, copy);
                }
                _ => {
                    let to = (at + self.below(16)).min(out.len());
                    out.drain(at..to);
                }
            }
        }
        out
    }
}
