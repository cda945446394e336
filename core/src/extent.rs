//! Cutting a file's bytes into extents where the content says so, so that an insertion shifts no later cut.
//!
//! FastCDC (Xia et al., USENIX ATC 2016, in the 2020 revision of the crate `fastcdc`), 16 to 256 KiB. The gear table
//! is seeded per volume: cut positions of known files do not give them away.

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

use crate::key::VolumeKeys;
use crate::limits::{EXTENT_AVG, EXTENT_MAX, EXTENT_MIN};

/// Cuts bytes of one volume. The tables are made once; a cutter serves any number of files.
pub struct Cutter {
    gear: Vec<u64>,
    gear_ls: Vec<u64>,
    mask_s: u64,
    mask_l: u64,
}

impl Cutter {
    /// A cutter for the volume of `keys`.
    pub fn new(keys: &VolumeKeys) -> Self {
        let (gear, gear_ls) = get_gear_with_seed(keys.cut_seed());
        let (mask_s, mask_l) = select_masks(EXTENT_AVG, Normalization::Level1);
        Self { gear: gear.into_owned(), gear_ls: gear_ls.into_owned(), mask_s, mask_l }
    }

    /// Length of the first extent of `bytes`. Unless the file ends with them, `bytes` must be at least
    /// [`EXTENT_MAX`] long, or the cut would depend on how the file was read.
    pub fn first(&self, bytes: &[u8]) -> usize {
        if bytes.len() <= EXTENT_MIN {
            return bytes.len();
        }
        let (_, len) = cut_gear(
            bytes,
            EXTENT_MIN,
            EXTENT_AVG,
            EXTENT_MAX,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
            &self.gear,
            &self.gear_ls,
        );
        len.clamp(1, bytes.len().min(EXTENT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VolumeId;
    use crate::key::Secret;

    fn cutter(secret: u8) -> Cutter {
        Cutter::new(&VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([secret; 32])))
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut out);
        out
    }

    fn cuts(cutter: &Cutter, mut bytes: &[u8]) -> Vec<usize> {
        let mut out = vec![];
        let mut at = 0;
        while !bytes.is_empty() {
            let len = cutter.first(bytes);
            at += len;
            out.push(at);
            bytes = &bytes[len..];
        }
        out
    }

    #[test]
    fn sizes_are_bounded_and_average_near_the_aim() {
        let bytes = noise(20 << 20);
        let all = cuts(&cutter(1), &bytes);
        let lens: Vec<usize> = std::iter::once(0).chain(all.iter().copied()).collect();
        for pair in lens.windows(2).rev().skip(1) {
            let len = pair[1] - pair[0];
            assert!((EXTENT_MIN..=EXTENT_MAX).contains(&len), "{len}");
        }
        let average = bytes.len() / all.len();
        assert!((EXTENT_AVG / 2..EXTENT_AVG * 2).contains(&average), "{average}");
    }

    #[test]
    fn an_insertion_shifts_no_later_cut() {
        let bytes = noise(4 << 20);
        let mut edited = bytes.clone();
        edited.splice(100..100, [1, 2, 3]);
        let (a, b) = (cuts(&cutter(1), &bytes), cuts(&cutter(1), &edited));
        let shifted: Vec<usize> = a.iter().map(|cut| cut + 3).collect();
        let shared = b.iter().filter(|cut| shifted.contains(cut)).count();
        assert!(shared + 5 > a.len(), "{shared} of {}", a.len());
    }

    #[test]
    fn volumes_cut_differently() {
        let bytes = noise(2 << 20);
        assert_ne!(cuts(&cutter(1), &bytes), cuts(&cutter(2), &bytes));
    }

    #[test]
    fn the_cut_needs_no_more_than_the_longest_extent() {
        let bytes = noise(1 << 20);
        assert_eq!(cutter(1).first(&bytes), cutter(1).first(&bytes[..EXTENT_MAX]));
    }
}
