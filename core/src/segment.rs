//! Segments: sealed extents packed together, padded, and coded into rows that become shards.
//!
//! A descriptor names the hash of every row that was committed when the segment was made, more than are placed at
//! first: whoever repairs can make those rows and no others. The padding is a keyed stream, so a holder cannot see
//! how full a segment is, and no two shards are ever equal by being empty.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::erasure::{self, ErasureError};
use crate::id::{ExtentId, PeerId, SegmentId, ShardId};
use crate::key::Secret;
use crate::limits::{KIB, NO_STRADDLE_MAX, ROWS_MAX, SEALED_MAX, SEGMENT_EXTENTS_MAX, SEGMENT_TARGET, SHARD_MAX};
use crate::seal::Sealed;
use crate::time::UnixSeconds;

const ID_CONTEXT: &str = "hypernet 2026 segment id v1";
const PADDING_CONTEXT: &str = "hypernet 2026 segment padding stream v1";

/// What a segment is, wherever its shards are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Segment {
    /// Rows that suffice.
    #[n(0)]
    pub k: u8,
    /// Bytes of each row.
    #[n(1)]
    pub shard_len: u32,
    /// The hash of each committed row, in row order; the first k are the payload itself.
    #[n(2)]
    pub rows: Vec<ShardId>,
}

impl Segment {
    /// Its id: a hash of all that it is.
    pub fn id(&self) -> SegmentId {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(&[self.k]);
        hasher.update(&self.shard_len.to_be_bytes());
        for row in &self.rows {
            hasher.update(row.as_bytes());
        }
        SegmentId(*hasher.finalize().as_bytes())
    }

    /// Whether the numbers are possible: checked before a descriptor from elsewhere is used.
    pub fn is_sound(&self) -> bool {
        self.k > 0
            && self.shard_len > 0
            && self.shard_len as usize <= SHARD_MAX
            && self.rows.len() > usize::from(self.k)
            && self.rows.len() <= ROWS_MAX
    }

    /// Bytes of payload, padding included.
    pub fn payload_len(&self) -> u64 {
        u64::from(self.k) * u64::from(self.shard_len)
    }
}

/// Who holds which row, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Holder {
    /// Row number.
    #[n(0)]
    pub row: u8,
    /// The peer.
    #[n(1)]
    pub peer: PeerId,
    /// When its lease ends.
    #[n(2)]
    pub until: UnixSeconds,
}

/// A segment and its holders: one row of the placement log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Placement {
    /// What is placed.
    #[n(0)]
    pub segment: Segment,
    /// How many rows are meant to be held.
    #[n(1)]
    pub n: u8,
    /// Who holds them.
    #[n(2)]
    pub holders: Vec<Holder>,
}
crate::format!(Placement, tag = 0x40, version = 1, max = 64 * KIB, name = "placement");

impl Placement {
    /// Whether it can be used: sound numbers, rows that exist.
    pub fn is_sound(&self) -> bool {
        self.segment.is_sound()
            && usize::from(self.n) <= self.segment.rows.len()
            && self.holders.len() <= ROWS_MAX
            && self.holders.iter().all(|holder| usize::from(holder.row) < self.segment.rows.len())
    }

    /// Whether whoever holds `row` still owes it at `now`.
    pub fn is_leased(&self, row: u8, now: UnixSeconds) -> bool {
        self.holders.iter().any(|holder| holder.row == row && holder.until > now)
    }
}

/// Where an extent lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Which extent.
    pub id: ExtentId,
    /// First byte in the payload.
    pub offset: u32,
    /// Sealed bytes.
    pub len: u32,
}

/// Why a segment could not be made.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum SegmentError {
    /// The code failed.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// An extent that fits in no segment.
    #[error("an extent of {0} sealed bytes fits in no segment")]
    TooLong(usize),
}

/// A full segment, ready to be placed.
#[derive(Clone, Debug)]
pub struct Coded {
    /// What it is.
    pub segment: Segment,
    /// Its rows up to the number that is placed at first, in row order.
    pub shards: Vec<Bytes>,
    /// What lies where.
    pub contents: Vec<Located>,
}

/// The length of shard that `bytes` bytes need: lengths come in steps, so that a holder learns little from them, and
/// fine enough to cost next to nothing.
pub fn size_class(bytes: usize) -> usize {
    let step = match bytes {
        0..=65_536 => 4 * KIB,
        65_537..=524_288 => 16 * KIB,
        _ => 32 * KIB,
    };
    bytes.max(1).next_multiple_of(step)
}

/// Length of the shards of a full segment with k rows of data.
pub fn full_shard_len(k: u8) -> usize {
    size_class(SEGMENT_TARGET.div_ceil(usize::from(k.max(1)))).min(SHARD_MAX)
}

/// What is packed: an extent that was sealed now, or the bytes of one that lies in another segment.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Which extent.
    pub id: ExtentId,
    /// It, sealed.
    pub bytes: Bytes,
}

impl From<Sealed> for Piece {
    fn from(sealed: Sealed) -> Self {
        Self { id: sealed.reference.id(), bytes: sealed.bytes }
    }
}

/// Collects sealed extents until they fill a segment.
pub struct Packer {
    k: u8,
    waiting: Vec<Piece>,
    end: usize,
}

/// Where an extent of `len` bytes goes when `end` bytes are taken: small ones never straddle two rows.
fn lay(end: usize, len: usize, shard_len: usize) -> usize {
    let room = shard_len - end % shard_len;
    if len <= NO_STRADDLE_MAX && len <= shard_len && room < len { end + room } else { end }
}

impl Packer {
    /// A packer for segments with k rows of data.
    pub fn new(k: u8) -> Self {
        Self { k, waiting: Vec::new(), end: 0 }
    }

    fn capacity(&self) -> usize {
        full_shard_len(self.k) * usize::from(self.k)
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.end
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes an extent in; gives back the contents of a segment when it would no longer fit.
    pub fn add(&mut self, piece: impl Into<Piece>) -> Result<Option<Packed>, SegmentError> {
        let sealed = piece.into();
        let len = sealed.bytes.len();
        if len > (SEALED_MAX + 1024).min(self.capacity()) {
            return Err(SegmentError::TooLong(len));
        }
        let shard_len = full_shard_len(self.k);
        let full = self.waiting.len() >= SEGMENT_EXTENTS_MAX || lay(self.end, len, shard_len) + len > self.capacity();
        let packed = if full { self.finish() } else { None };
        self.end = lay(self.end, len, shard_len) + len;
        self.waiting.push(sealed);
        Ok(packed)
    }

    /// Gives back what waits, as a segment of its own.
    pub fn finish(&mut self) -> Option<Packed> {
        self.end = 0;
        if self.waiting.is_empty() {
            return None;
        }
        let extents = std::mem::take(&mut self.waiting);
        Some(Packed { extents })
    }
}

/// The contents of one segment, not yet laid out or coded.
#[derive(Clone)]
pub struct Packed {
    extents: Vec<Piece>,
}

/// The parts of `range` of the payload, each in its row.
fn in_rows(rows: &mut [Vec<u8>], range: std::ops::Range<usize>, mut part: impl FnMut(&mut [u8])) {
    let mut at = range.start;
    while at < range.end {
        let len = rows[0].len();
        let stop = range.end.min((at / len + 1) * len);
        part(&mut rows[at / len][at % len..][..stop - at]);
        at = stop;
    }
}

impl Packed {
    /// Bytes of its extents.
    pub fn len(&self) -> usize {
        self.extents.iter().map(|sealed| sealed.bytes.len()).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Whether it can be laid out in k rows of at most so many bytes. Those of the packer's k it fits in; of fewer, each
    /// would be longer.
    pub fn fits(&self, k: u8, most: u64) -> bool {
        self.cut(k).is_some_and(|(shard_len, _)| shard_len as u64 <= most)
    }

    /// Two halves of it, for when it does not fit; none of what is one extent.
    pub fn split(&self) -> Option<(Self, Self)> {
        let (left, right) = self.extents.split_at(self.extents.len() / 2);
        let half = |extents: &[Piece]| Self { extents: extents.to_vec() };
        (!left.is_empty()).then(|| (half(left), half(right)))
    }

    /// The length of the rows, and where in them each extent begins.
    fn cut(&self, k: u8) -> Option<(usize, Vec<usize>)> {
        let mut shard_len = size_class(self.len().div_ceil(usize::from(k.max(1))));
        while shard_len <= SHARD_MAX {
            match self.layout(k, shard_len) {
                Some(starts) => return Some((shard_len, starts)),
                None => shard_len = size_class(shard_len + 1),
            }
        }
        None
    }

    fn layout(&self, k: u8, shard_len: usize) -> Option<Vec<usize>> {
        let mut end = 0;
        let mut starts = Vec::with_capacity(self.extents.len());
        for sealed in &self.extents {
            let start = lay(end, sealed.bytes.len(), shard_len);
            starts.push(start);
            end = start + sealed.bytes.len();
        }
        (end <= shard_len * usize::from(k)).then_some(starts)
    }

    /// Lays out, pads, codes and hashes: k rows of data, `placed` rows to be placed now, `committed` rows named in the
    /// descriptor.
    pub fn code(&self, k: u8, placed: u8, committed: u8, padding: &Secret) -> Result<Coded, SegmentError> {
        let (placed, committed) = (usize::from(placed), usize::from(committed).max(usize::from(placed)));
        let (shard_len, starts) = self.cut(k).ok_or_else(|| SegmentError::TooLong(self.len()))?;
        // A buffer a row, each freed when its row is placed.
        let mut data = vec![vec![0; shard_len]; usize::from(k)];
        let mut contents = Vec::with_capacity(self.extents.len());
        let mut names = blake3::Hasher::new_derive_key(PADDING_CONTEXT);
        names.update(padding.expose());
        let mut gaps = Vec::new();
        let mut end = 0;
        for (sealed, start) in self.extents.iter().zip(starts) {
            let (id, len) = (sealed.id, sealed.bytes.len());
            let mut rest = &sealed.bytes[..];
            in_rows(&mut data, start..start + len, |part| {
                let (now, later) = rest.split_at(part.len());
                part.copy_from_slice(now);
                rest = later;
            });
            names.update(id.as_bytes());
            gaps.push(end..start);
            end = start + len;
            contents.push(Located { id, offset: start as u32, len: len as u32 });
        }
        gaps.push(end..usize::from(k) * shard_len);
        let mut stream = names.finalize_xof();
        for gap in gaps {
            in_rows(&mut data, gap, |part| stream.fill(part));
        }
        let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let parity = erasure::parity(&slices, committed)?;
        let mut shards: Vec<Bytes> = data.into_iter().chain(parity).map(Bytes::from).collect();
        let rows = shards.iter().map(|shard| ShardId(*blake3::hash(shard).as_bytes())).collect();
        shards.truncate(placed);
        let segment = Segment { k, shard_len: shard_len as u32, rows };
        Ok(Coded { segment, shards, contents })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VolumeId;
    use crate::key::VolumeKeys;
    use crate::seal::{Kind, Sealer};

    fn sealed(count: usize, len: usize) -> Vec<Sealed> {
        let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
        let sealer = Sealer::new(&keys);
        (0..count)
            .map(|i| {
                let mut plain = vec![0; len];
                blake3::Hasher::new().update(&i.to_be_bytes()).finalize_xof().fill(&mut plain);
                sealer.seal(Kind::Content, &plain).unwrap()
            })
            .collect()
    }

    fn pack(k: u8, extents: Vec<Sealed>) -> Vec<Packed> {
        let mut packer = Packer::new(k);
        let mut out = vec![];
        for extent in extents {
            out.extend(packer.add(extent).unwrap());
        }
        out.extend(packer.finish());
        out
    }

    #[test]
    fn every_extent_is_where_the_contents_say_and_small_ones_in_one_row() {
        for (k, len) in [(6u8, 1000), (10, 20_000), (4, 200_000), (2, 3)] {
            let extents = sealed(60, len);
            let originals: Vec<Bytes> = extents.iter().map(|e| e.bytes.clone()).collect();
            let mut seen = 0;
            for packed in pack(k, extents) {
                let coded = packed.code(k, k + 3, k + 5, &Secret::new([3; 32])).unwrap();
                assert!(coded.segment.is_sound());
                assert_eq!(coded.shards.len(), usize::from(k) + 3);
                assert_eq!(coded.segment.rows.len(), usize::from(k) + 5);
                let payload: Vec<u8> = coded.shards[..usize::from(k)].concat();
                for at in &coded.contents {
                    let (start, end) = (at.offset as usize, (at.offset + at.len) as usize);
                    assert_eq!(payload[start..end], originals[seen][..]);
                    let shard_len = coded.segment.shard_len as usize;
                    if at.len as usize <= NO_STRADDLE_MAX {
                        assert_eq!(start / shard_len, (end - 1) / shard_len);
                    }
                    seen += 1;
                }
                let distinct: std::collections::BTreeSet<_> = coded.segment.rows.iter().collect();
                assert_eq!(distinct.len(), coded.segment.rows.len(), "two shards are equal");
            }
            assert_eq!(seen, 60);
        }
    }

    #[test]
    fn a_full_segment_wastes_little() {
        let extents = sealed(500, 60_000);
        let all = pack(6, extents);
        for packed in &all[..all.len() - 1] {
            let coded = packed.code(6, 10, 12, &Secret::new([3; 32])).unwrap();
            let waste = coded.segment.payload_len() as f64 / packed.len() as f64;
            assert!(waste < 1.02, "{waste}");
        }
    }

    #[test]
    fn tiny_extents_fill_a_segment_by_their_number() {
        let counts: Vec<usize> =
            pack(6, sealed(2 * SEGMENT_EXTENTS_MAX + 5, 3)).iter().map(|p| p.extents.len()).collect();
        assert_eq!(counts, [SEGMENT_EXTENTS_MAX, SEGMENT_EXTENTS_MAX, 5]);
    }

    #[test]
    fn lengths_tell_little_of_a_small_segment() {
        let lens: Vec<u32> = [1, 100, 5000]
            .map(|len| pack(6, sealed(1, len))[0].code(6, 10, 10, &Secret::new([3; 32])).unwrap().segment.shard_len)
            .to_vec();
        assert_eq!(lens, [4096, 4096, 4096]);
    }

    #[test]
    fn descriptors_from_elsewhere_are_checked() {
        let good = pack(4, sealed(3, 100))[0].code(4, 6, 6, &Secret::new([3; 32])).unwrap().segment;
        assert!(!Segment { k: 0, ..good.clone() }.is_sound());
        assert!(!Segment { shard_len: u32::MAX, ..good.clone() }.is_sound());
        assert!(!Segment { rows: vec![], ..good.clone() }.is_sound());
        let holder = Holder { row: 200, peer: PeerId([0; 32]), until: UnixSeconds(0) };
        assert!(!Placement { segment: good, n: 6, holders: vec![holder] }.is_sound());
    }
}
