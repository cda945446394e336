//! The catalog of a volume: which segment holds an extent (the index) and which peers hold a segment (the placement
//! log). Both lie outside the snapshot tree, so that a shard can move and segments can be compacted without touching
//! anything that is signed.
//!
//! Both are runs of sealed pages, listed with their own placement in a manifest; the head of a device names the
//! manifest's placement in full. So everything can be found from a head and the volume's key. A device numbers the
//! segments it knows; a page covers a range of those numbers. New pages are merged with the youngest ones in the
//! manner of a log-structured merge tree (O'Neil et al., 1996), so that the number of pages stays logarithmic until
//! they are full, and a full page is never written again.

use minicbor::{Decode, Encode};

use crate::id::{ExtentId, SegmentId};
use crate::limits::SEALED_MAX;
use crate::seal::ExtentRef;
use crate::segment::Placement;

/// Extents in a full page of the index: about half of what one sealed unit can hold.
pub const INDEX_PAGE_ROWS: usize = 12_000;
/// Segments in a full page of the placement log.
pub const PLACEMENT_PAGE_ROWS: usize = 200;

/// One row of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct IndexRow {
    /// The extent.
    #[n(0)]
    pub id: ExtentId,
    /// Its segment, as a position in [`IndexPage::segments`].
    #[n(1)]
    pub segment: u32,
    /// First byte in the segment's payload.
    #[n(2)]
    pub offset: u32,
    /// Sealed bytes.
    #[n(3)]
    pub len: u32,
}

/// A page of the index.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct IndexPage {
    /// The segments that rows refer to.
    #[n(0)]
    pub segments: Vec<SegmentId>,
    /// The extents.
    #[n(1)]
    pub rows: Vec<IndexRow>,
}
crate::format!(IndexPage, tag = 0x41, version = 1, max = SEALED_MAX, name = "index page");

/// A page of the placement log. Of two rows for one segment the one in the later page counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PlacementPage {
    /// The segments with their holders.
    #[n(0)]
    pub rows: Vec<Placement>,
}
crate::format!(PlacementPage, tag = 0x42, version = 1, max = SEALED_MAX, name = "placement page");

/// Which of the two a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum PageKind {
    /// The index.
    #[n(0)]
    Index,
    /// The placement log.
    #[n(1)]
    Placement,
}

/// A page as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PageRef {
    /// What it is a page of.
    #[n(0)]
    pub kind: PageKind,
    /// How to open it.
    #[n(1)]
    pub extent: ExtentRef,
    /// The segment it is packed in, as a position in [`Manifest::segments`].
    #[n(2)]
    pub segment: u32,
    /// First byte in that segment's payload.
    #[n(3)]
    pub offset: u32,
    /// It covers the author's segments from this number on.
    #[n(4)]
    pub from: u64,
    /// To below this number.
    #[n(5)]
    pub to: u64,
    /// Rows in it.
    #[n(6)]
    pub rows: u32,
}

/// All pages of a catalog, and where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Manifest {
    /// The segments that hold pages.
    #[n(0)]
    pub segments: Vec<Placement>,
    /// The pages, oldest first.
    #[n(1)]
    pub pages: Vec<PageRef>,
}
crate::format!(Manifest, tag = 0x43, version = 1, max = SEALED_MAX, name = "manifest");

impl Manifest {
    /// Whether all references in it lead somewhere.
    pub fn is_sound(&self) -> bool {
        self.segments.iter().all(Placement::is_sound)
            && self.pages.iter().all(|page| (page.segment as usize) < self.segments.len() && page.from <= page.to)
    }

    /// Drops segments that no page lies in.
    pub fn prune(&mut self) {
        let used: Vec<bool> =
            (0..self.segments.len()).map(|i| self.pages.iter().any(|page| page.segment as usize == i)).collect();
        let mut renumbered = vec![0u32; used.len()];
        let mut next = 0;
        for (i, used) in used.iter().enumerate() {
            renumbered[i] = next;
            next += u32::from(*used);
        }
        let mut flags = used.iter();
        self.segments.retain(|_| flags.next().copied().unwrap_or(false));
        for page in &mut self.pages {
            page.segment = renumbered[page.segment as usize];
        }
    }

    /// Where writing has to start again, when segments up to below `next` are to be covered: pages of `kind` from
    /// that number on are dropped from the manifest and made anew together with what is new. A page that is full, or
    /// more than twice as large as all that is younger, stays.
    pub fn reopen(&mut self, kind: PageKind, new_rows: usize) -> u64 {
        let full = match kind {
            PageKind::Index => INDEX_PAGE_ROWS,
            PageKind::Placement => PLACEMENT_PAGE_ROWS,
        };
        let mut young = new_rows;
        let mut from = self.pages.iter().filter(|page| page.kind == kind).map(|page| page.to).max().unwrap_or(0);
        while let Some(at) = self.pages.iter().rposition(|page| page.kind == kind) {
            let page = &self.pages[at];
            let rows = page.rows as usize;
            if rows >= full || rows > 2 * young.max(1) {
                break;
            }
            young += rows;
            from = page.from;
            self.pages.remove(at);
        }
        from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VolumeId;
    use crate::key::{Secret, VolumeKeys};
    use crate::seal::{Kind, Sealer};

    fn page(kind: PageKind, from: u64, to: u64, rows: u32, segment: u32) -> PageRef {
        let keys = VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32]));
        let extent = Sealer::new(&keys).seal(Kind::Page, &from.to_be_bytes()).unwrap().reference;
        PageRef { kind, extent, segment, offset: 0, from, to, rows }
    }

    #[test]
    fn pages_stay_few_and_cover_everything() {
        let mut manifest = Manifest::default();
        let mut rewritten = 0u64;
        let total = 3000u64;
        for next in 1..=total {
            let from = manifest.reopen(PageKind::Placement, 1);
            rewritten += next - from;
            let mut at = from;
            while at < next {
                let to = next.min(at + PLACEMENT_PAGE_ROWS as u64);
                manifest.pages.push(page(PageKind::Placement, at, to, (to - at) as u32, 0));
                at = to;
            }
            let mut covered = 0;
            for page in &manifest.pages {
                assert_eq!(page.from, covered);
                covered = page.to;
            }
            assert_eq!(covered, next);
        }
        let full = (total as usize).div_ceil(PLACEMENT_PAGE_ROWS);
        assert!(manifest.pages.len() <= full + 12, "{} pages", manifest.pages.len());
        assert!(rewritten < total * 16, "{rewritten} rows written for {total}");
    }

    #[test]
    fn unused_segments_go_and_pages_still_find_theirs() {
        let segment = crate::segment::Segment { k: 1, shard_len: 4096, rows: vec![crate::id::ShardId([1; 32]); 2] };
        let placed = |n| Placement {
            segment: crate::segment::Segment { shard_len: n, ..segment.clone() },
            n: 2,
            holders: vec![],
        };
        let mut manifest = Manifest {
            segments: vec![placed(1), placed(2), placed(3)],
            pages: vec![page(PageKind::Index, 0, 1, 1, 2), page(PageKind::Placement, 0, 1, 1, 0)],
        };
        assert!(manifest.is_sound());
        manifest.prune();
        assert_eq!(manifest.segments, [placed(1), placed(3)]);
        assert_eq!((manifest.pages[0].segment, manifest.pages[1].segment), (1, 0));
        manifest.pages[0].segment = 9;
        assert!(!manifest.is_sound());
    }
}
