//! Sealed bytes that came along with others: small files that were written together lie together in a segment, and are
//! mostly read together.
//!
//! The first read in a row asks for its own bytes only, so that one small file is one short answer. Whoever reads there
//! again gets a whole window, and the next files come from it without a request. What is kept here was checked by
//! nobody; an extent that does not open is asked for as if this did not exist.

use std::num::NonZeroUsize;

use bytes::Bytes;
use hypernet_core::id::SegmentId;
use hypernet_core::limits::KIB;
use hypernet_core::node::Stretch;
use hypernet_core::seal::ExtentRef;
use lru::LruCache;

/// Bytes of a window; windows begin at multiples of it.
const WINDOW: u32 = 512 * KIB as u32;
/// Windows kept: 16 MiB.
const WINDOWS: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// Rows remembered to have been read from.
const ROWS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// More than this at once is no small read and goes its own way.
pub(super) const SMALL: u64 = 256 * KIB as u64;

/// Windows of rows, those used last.
pub(crate) struct Nearby {
    rows: LruCache<(SegmentId, u8), ()>,
    windows: LruCache<(SegmentId, u8, u32), Bytes>,
}

/// Row, and first and last byte in it, of an extent that lies in one row.
fn place(reference: &ExtentRef, offset: u32, shard_len: u32) -> Option<(u8, u32, u32)> {
    let last = offset.checked_add(reference.sealed_len)?.checked_sub(1)?;
    let row = offset.checked_div(shard_len)?;
    (row == last / shard_len).then_some((u8::try_from(row).ok()?, offset % shard_len, last % shard_len))
}

impl Nearby {
    pub(crate) fn new() -> Self {
        Self { rows: LruCache::new(ROWS), windows: LruCache::new(WINDOWS) }
    }

    /// The sealed bytes of an extent, if they came along.
    pub(super) fn sealed(
        &mut self,
        segment: SegmentId,
        shard_len: u32,
        extent: &ExtentRef,
        offset: u32,
    ) -> Option<Bytes> {
        let (row, first, last) = place(extent, offset, shard_len)?;
        let window = first / WINDOW;
        let bytes = self.windows.get(&(segment, row, window)).filter(|_| window == last / WINDOW)?;
        let start = window * WINDOW;
        bytes.get((first - start) as usize..=(last - start) as usize).map(|part| bytes.slice_ref(part))
    }

    /// How much to ask for around an extent; 0 for no more than it.
    pub(super) fn width(&mut self, segment: SegmentId, shard_len: u32, extent: &ExtentRef, offset: u32) -> u32 {
        let Some((row, ..)) = place(extent, offset, shard_len) else { return 0 };
        if self.rows.put((segment, row), ()).is_some() { WINDOW } else { 0 }
    }

    /// Keeps the whole windows in what came.
    pub(super) fn keep(&mut self, segment: SegmentId, shard_len: u32, stretch: &Stretch) {
        let end = stretch.start + stretch.bytes.len() as u32;
        let mut start = stretch.start.next_multiple_of(WINDOW);
        while start < end {
            let stop = (start + WINDOW).min(shard_len);
            if stop <= end {
                let bytes = stretch.bytes.slice((start - stretch.start) as usize..(stop - stretch.start) as usize);
                self.windows.put((segment, stretch.row, start / WINDOW), bytes);
            }
            start += WINDOW;
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.windows.clear();
    }

    /// Forgets a window: an extent in it did not open.
    pub(super) fn forget(&mut self, segment: SegmentId, shard_len: u32, extent: &ExtentRef, offset: u32) {
        if let Some((row, first, _)) = place(extent, offset, shard_len) {
            self.windows.pop(&(segment, row, first / WINDOW));
        }
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::VolumeId;
    use hypernet_core::key::{Secret, VolumeKeys};
    use hypernet_core::seal::{Kind, Sealer};

    use super::*;

    #[test]
    fn what_came_along_is_found_and_nothing_else_is() {
        let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
        let sealed = Sealer::new(&keys).seal(Kind::Content, &[7; 9000]).unwrap();
        let extent = &sealed.reference;
        let (segment, shard_len) = (SegmentId([3; 32]), 3 * WINDOW / 2);
        let mut nearby = Nearby::new();
        assert_eq!(nearby.width(segment, shard_len, extent, shard_len + 5), 0);
        assert_eq!(nearby.width(segment, shard_len, extent, shard_len + 5), WINDOW);
        assert_eq!(nearby.width(segment, shard_len, extent, 5), 0, "another row");
        let mut row: Vec<u8> = (0..shard_len).map(|i| (i / 7) as u8).collect();
        let at = (WINDOW + 100) as usize;
        row[at..at + sealed.bytes.len()].copy_from_slice(&sealed.bytes);
        let bytes = Bytes::from(row);
        assert_eq!(nearby.sealed(segment, shard_len, extent, shard_len + WINDOW + 100), None);
        // The last window of a row is shorter; a part of a window is not kept.
        nearby.keep(segment, shard_len, &Stretch { row: 1, start: WINDOW, bytes: bytes.slice(WINDOW as usize..) });
        nearby.keep(segment, shard_len, &Stretch { row: 1, start: 0, bytes: bytes.slice(..4096) });
        let found = nearby.sealed(segment, shard_len, extent, shard_len + WINDOW + 100).unwrap();
        assert_eq!(extent.open(&found).unwrap(), vec![7; 9000]);
        assert_eq!(nearby.sealed(segment, shard_len, extent, shard_len + 100), None, "only a part of that window came");
        assert_eq!(nearby.sealed(segment, shard_len, extent, WINDOW + 100), None, "another row");
        assert_eq!(nearby.sealed(segment, shard_len, extent, 2 * shard_len - 3), None, "it lies in two rows");
        nearby.forget(segment, shard_len, extent, shard_len + WINDOW + 100);
        assert_eq!(nearby.sealed(segment, shard_len, extent, shard_len + WINDOW + 100), None);
    }
}
