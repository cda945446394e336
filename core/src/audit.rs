//! Audits: a challenge that the holder of a shard cannot answer without the bytes, and that anybody can check who has no more than
//! the shard's address and length.
//!
//! An address is the BLAKE3 hash of the shard, and that is the root of a tree over chunks of 1 KiB. So one chunk and the hashes
//! beside its way up prove that its holder has that chunk, without anything having been made ready beforehand. Which chunk is
//! asked for follows from what nobody else knows until it is asked.
//!
//! Invariant: no proof is accepted but the one that an honest holder makes, and checking one takes no more memory than the proof
//! has bytes. What that says of the rest of a shard stands in docs/design/0015-audits.md.

use bao_tree::io::outboard::PostOrderMemOutboard;
use bao_tree::io::sync::{DecodeResponseIter, encode_ranges_validated};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};

use crate::id::{PeerId, ShardId};
use crate::limits::{AUDIT_CHUNK, AUDIT_PROOF_MAX, SHARD_MAX};

/// What the chunks of one round of audits follow from: 32 random bytes, which nobody else has.
pub type Seed = [u8; 32];

/// How many chunks a shard of `len` bytes has.
pub fn chunks(len: u32) -> u32 {
    len.div_ceil(AUDIT_CHUNK as u32)
}

/// Which chunk of a shard of `len` bytes is asked of `holder`: any of them is as likely as any other one.
pub fn chunk_of(seed: &Seed, holder: &PeerId, shard: &ShardId, len: u32) -> u32 {
    let mut hasher = blake3::Hasher::new_keyed(seed);
    hasher.update(holder.as_bytes()).update(shard.as_bytes());
    let mut word = [0; 8];
    hasher.finalize_xof().fill(&mut word);
    // Of 2^64 numbers as many fall to each chunk, but for one in 2^52.
    ((u128::from(u64::from_le_bytes(word)) * u128::from(chunks(len))) >> 64) as u32
}

fn ranges(chunk: u32) -> ChunkRanges {
    ChunkRanges::from(ChunkNum(chunk.into())..ChunkNum(u64::from(chunk) + 1))
}

/// The proof that `shard`, all of it, is here: the hashes on the way down to a chunk in pairs, then the chunk. `None` where the shard
/// ends before that.
pub fn prove(shard: &[u8], chunk: u32) -> Option<Vec<u8>> {
    if shard.len() > SHARD_MAX || chunk >= chunks(shard.len() as u32) {
        return None;
    }
    let hashes = PostOrderMemOutboard::create(shard, BlockSize::ZERO);
    let mut proof = Vec::with_capacity(AUDIT_PROOF_MAX);
    encode_ranges_validated(shard, &hashes, &ranges(chunk), &mut proof).ok()?;
    Some(proof)
}

/// Whether `proof` shows that its maker has this chunk of the shard with this address and length.
pub fn verify(shard: &ShardId, len: u32, chunk: u32, proof: &[u8]) -> bool {
    if len as usize > SHARD_MAX || chunk >= chunks(len) || proof.len() > AUDIT_PROOF_MAX {
        return false;
    }
    let (ranges, tree) = (ranges(chunk), BaoTree::new(len.into(), BlockSize::ZERO));
    let mut left = proof;
    let root = blake3::Hash::from_bytes(shard.0);
    let is_right = DecodeResponseIter::new(root, tree, &mut left, &ranges).all(|item| item.is_ok());
    is_right && left.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::KIB;

    fn shard(len: usize) -> (Vec<u8>, ShardId) {
        let mut bytes = vec![0; len];
        blake3::Hasher::new_keyed(&[len as u8; 32]).finalize_xof().fill(&mut bytes);
        let id = ShardId(*blake3::hash(&bytes).as_bytes());
        (bytes, id)
    }

    #[test]
    fn every_chunk_of_shards_of_all_shapes_is_proven_by_a_chunk_and_a_pair_of_hashes_for_each_level() {
        for len in [1, 1023, 1024, 1025, 3 * KIB, 4 * KIB, 5 * KIB + 1, 36 * KIB] {
            let (bytes, id) = shard(len);
            let len = len as u32;
            for chunk in 0..chunks(len) {
                let proof = prove(&bytes, chunk).unwrap();
                assert!(verify(&id, len, chunk, &proof), "chunk {chunk} of {len}");
                let own = (len as usize - chunk as usize * AUDIT_CHUNK).min(AUDIT_CHUNK);
                assert_eq!((proof.len() - own) % 64, 0);
                assert!(proof.ends_with(&bytes[chunk as usize * AUDIT_CHUNK..][..own]));
                // Of another length, chunk or shard it proves nothing.
                for other in (0..chunks(len)).filter(|other| *other != chunk) {
                    assert!(!verify(&id, len, other, &proof));
                }
                assert!(!verify(&ShardId([7; 32]), len, chunk, &proof));
                assert!(!verify(&id, len + 1, chunk, &proof) || chunks(len) > chunk + 1);
            }
            assert!(prove(&bytes, chunks(len)).is_none() && !verify(&id, len, chunks(len), &[]));
        }
        assert!(prove(&[], 0).is_none() && !verify(&shard(0).1, 0, 0, &[]));
    }

    /// The figures of docs/design/0015-audits.md.
    #[test]
    fn an_audit_costs_what_the_design_says() {
        for (len, bytes) in [(4 * KIB, 1152), (512 * KIB, 1600), (1024 * KIB, 1664), (SHARD_MAX, AUDIT_PROOF_MAX)] {
            let (shard, id) = shard(len);
            let proof = prove(&shard, 1).unwrap();
            assert_eq!(proof.len(), bytes);
            assert!(verify(&id, len as u32, 1, &proof));
        }
        assert_eq!(AUDIT_PROOF_MAX, 1792);
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_fails() {
        let (bytes, id) = shard(9 * KIB);
        let good = prove(&bytes, 8).unwrap();
        let is_right = |proof: &[u8]| verify(&id, 9 * KIB as u32, 8, proof);
        assert!(is_right(&good));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(&bad), "bit {bit}");
        }
        assert!((0..good.len()).all(|len| !is_right(&good[..len])));
        assert!(!is_right(&[&good[..], &[0]].concat()) && !is_right(&[&good[..], &good[..]].concat()));
        assert!(!is_right(&vec![0; 1 << 20]));
    }

    #[test]
    fn chunks_are_asked_for_evenly_and_differently_by_seed_holder_and_shard() {
        let (holder, shard, len) = (PeerId([1; 32]), ShardId([2; 32]), 16 * KIB as u32);
        let mut seen = [0u32; 16];
        for round in 0u32..16_000 {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&round.to_le_bytes());
            seen[chunk_of(&seed, &holder, &shard, len) as usize] += 1;
        }
        // A thousand each, give or take five standard deviations.
        assert!(seen.iter().all(|times| (845..1155).contains(times)), "{seen:?}");
        let of = |seed, holder, shard| chunk_of(&[seed; 32], &PeerId([holder; 32]), &ShardId([shard; 32]), 4 << 20);
        assert!(of(1, 1, 1) != of(2, 1, 1) && of(1, 1, 1) != of(1, 2, 1) && of(1, 1, 1) != of(1, 1, 2));
        assert_eq!(chunk_of(&[9; 32], &holder, &shard, 1), 0);
    }

    /// The false-pass probability: whoever has kept a part of a shard passes when that is asked for, and only then.
    #[test]
    fn who_has_kept_a_part_passes_as_often_as_that_is_asked_for() {
        let (bytes, id) = shard(20 * KIB);
        let (holder, len, mut passed) = (PeerId([1; 32]), 20 * KIB as u32, 0);
        let mut kept = bytes;
        // 15 of 20 chunks are there still, and all hashes: the others are zeros now.
        let proofs: Vec<Vec<u8>> = (0..20).map(|chunk| prove(&kept, chunk).unwrap()).collect();
        kept[15 * KIB..].fill(0);
        for round in 0u32..2_000 {
            let mut seed = [3; 32];
            seed[..4].copy_from_slice(&round.to_le_bytes());
            let chunk = chunk_of(&seed, &holder, &id, len);
            let mut proof = proofs[chunk as usize].clone();
            let start = proof.len() - AUDIT_CHUNK;
            proof[start..].copy_from_slice(&kept[chunk as usize * AUDIT_CHUNK..][..AUDIT_CHUNK]);
            let passes = verify(&id, len, chunk, &proof);
            assert_eq!(passes, chunk < 15);
            passed += u32::from(passes);
        }
        // 1,500, give or take five standard deviations.
        assert!((1_403..1_597).contains(&passed), "{passed}");
    }

    proptest! {
        #[test]
        fn only_the_right_bytes_pass(
            len in 1usize..20_000, chunk in 0u32..20, other in any::<u32>(), noise in prop::collection::vec(any::<u8>(), 0..2_500),
        ) {
            let (bytes, id) = shard(len);
            let len = len as u32;
            prop_assert!(!verify(&id, len, chunk, &noise) && !verify(&id, other, chunk, &noise));
            match prove(&bytes, chunk) {
                Some(proof) => {
                    prop_assert!(verify(&id, len, chunk, &proof));
                    prop_assert!(other == chunk || !verify(&id, len, other, &proof));
                    // Of another shard of the same length.
                    let mut changed = bytes;
                    changed[other as usize % len as usize] ^= 1;
                    prop_assert!(!verify(&id, len, chunk, &prove(&changed, chunk).unwrap()));
                }
                None => prop_assert!(chunk >= chunks(len)),
            }
        }
    }
}
