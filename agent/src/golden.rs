//! For tests of formats that only the agent knows: golden bytes, and mutations of them.
//!
//! Invariant: a run depends on the bytes and the seed alone, so a failure replays.

use data_encoding::HEXLOWER;
use hypernet_fuzz_smoke::mutate::Mutator;

/// Mutations tried of each format.
const MUTATIONS: usize = 20_000;
const SEED: u64 = 0x5051;

/// The bytes of a golden file.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    HEXLOWER.decode(digits.as_bytes()).unwrap()
}

/// For comparing: a difference is then readable.
pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Hands `decode` the original cut off everywhere, then many mutations of it.
pub(crate) fn mutations(original: &[u8], mut decode: impl FnMut(&[u8])) {
    for len in 0..=original.len() {
        decode(&original[..len]);
    }
    let mut mutator = Mutator::new(SEED);
    for _ in 0..MUTATIONS {
        decode(&mutator.mutate(original, original));
    }
}
