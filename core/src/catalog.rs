//! The catalog of a volume: which segment holds an extent (the index) and which peers hold a segment (the placement
//! log). Both lie outside the snapshot tree, so that a shard can move and segments can be compacted without touching
//! anything that is signed.
//!
//! Both are runs of sealed pages, listed with their own placement in a manifest; the head of a device names the
//! manifest's placement in full. So everything can be found from a head and the volume's key. A device numbers the
//! segments it knows, and rows carry these numbers: whoever takes a catalog over goes on counting where it ends, and
//! the pages stay true as they are. A page covers a range of numbers. New pages are merged with the youngest ones in
//! the manner of a log-structured merge tree (O'Neil et al., 1996), so that the number of pages stays logarithmic
//! until they are full, and a full page is never written again unless its holders are gone.
//!
//! A manifest that grows past [`MANIFEST_TARGET`] is folded: a run of its pages moves into a listing, which is a
//! manifest of one level below, sealed and placed like a page. So a catalog is a tree; its root, which every sync
//! writes, is bounded, and a listing is written once for all the pages in it.
//!
//! Invariant: the pages of a kind cover ranges that are not empty, in order, without overlap, each within the range of
//! the listing that it stands in; and no page is empty. So nothing can be reached twice, and reading a catalog from a
//! device that means ill takes no longer than writing it took.

use minicbor::{Decode, Encode};

use crate::codec;
use crate::id::ExtentId;
use crate::limits::{KIB, SEALED_MAX, SEGMENT_EXTENTS_MAX};
use crate::seal::{ExtentRef, Kind};
use crate::segment::Placement;

/// Extents in a full page of the index. What lies in one segment stays together, so a page may have up to
/// [`SEGMENT_EXTENTS_MAX`] more.
pub const INDEX_PAGE_ROWS: usize = 10_000;
/// Segments in a full page of the placement log.
pub const PLACEMENT_PAGE_ROWS: usize = 200;
/// A manifest that is longer than this is folded, and no listing is made longer.
pub const MANIFEST_TARGET: usize = 256 * KIB;
/// Listings lie in one another at most this deep. One of them leads to eight others at the very least, and to a
/// hundred and more on an ordinary mesh.
pub const CATALOG_DEPTH_MAX: u8 = 8;
/// Segments are numbered below this.
pub const SEGMENT_NUMBER_MAX: u64 = 1 << 48;

/// The youngest pages of a kind, which no listing takes: more than stay small. Each of those has more than twice as many
/// rows as all that are younger, so there are log₃ of a full page's.
const YOUNG_PAGES: usize = 10;
/// Bytes of a manifest's frame and of the heads of its arrays, at most.
const FRAME_BYTES: usize = 2 + 1 + 5 + 5;

/// Bytes of an encoded row of the index, and of what is around the rows of one segment, at most.
const INDEX_ROW_BYTES: usize = 1 + 34 + 5 + 5;
const CONTENTS_BYTES: usize = 1 + 9 + 3;
const _: () = assert!(
    INDEX_PAGE_ROWS * (INDEX_ROW_BYTES + CONTENTS_BYTES) + SEGMENT_EXTENTS_MAX * INDEX_ROW_BYTES + KIB < SEALED_MAX
);

/// One row of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct IndexRow {
    /// The extent.
    #[n(0)]
    pub id: ExtentId,
    /// First byte in the segment's payload.
    #[n(1)]
    pub offset: u32,
    /// Sealed bytes.
    #[n(2)]
    pub len: u32,
}

/// All that lies in one segment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Contents {
    /// The segment's number.
    #[n(0)]
    pub number: u64,
    /// The extents, in payload order.
    #[n(1)]
    pub rows: Vec<IndexRow>,
}

/// A page of the index. A segment that the placement log does not list under this number was placed again since, and
/// is told of again under its new one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct IndexPage {
    /// By segment, their numbers ascending.
    #[n(0)]
    pub segments: Vec<Contents>,
}
crate::format!(IndexPage, tag = 0x41, version = 1, max = SEALED_MAX, name = "index page");

/// One row of the placement log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PlacementRow {
    /// The segment's number.
    #[n(0)]
    pub number: u64,
    /// The segment and its holders.
    #[n(1)]
    pub placement: Placement,
}

/// A page of the placement log. Of two rows for one segment the one with the higher number counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PlacementPage {
    /// The segments with their holders, their numbers ascending.
    #[n(0)]
    pub rows: Vec<PlacementRow>,
}
crate::format!(PlacementPage, tag = 0x42, version = 1, max = SEALED_MAX, name = "placement page");

/// Whether there are numbers, ascending, and all of them in the range of `page`.
fn covered_by(page: &PageRef, numbers: impl Iterator<Item = u64> + Clone) -> bool {
    let mut next = page.from;
    let mut any = false;
    numbers.into_iter().all(|number| {
        let good = number >= next && number < page.to;
        next = number.saturating_add(1);
        any = true;
        good
    }) && any
}

impl IndexPage {
    /// Whether it is what `page` says.
    pub fn is_sound(&self, page: &PageRef) -> bool {
        covered_by(page, self.segments.iter().map(|contents| contents.number))
    }
}

impl PlacementPage {
    /// Whether it is what `page` says, and can be.
    pub fn is_sound(&self, page: &PageRef) -> bool {
        covered_by(page, self.rows.iter().map(|row| row.number)) && self.rows.iter().all(|row| row.placement.is_sound())
    }
}

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

impl PageKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Index, Self::Placement];

    /// Rows in a full page.
    pub fn page_rows(self) -> usize {
        match self {
            Self::Index => INDEX_PAGE_ROWS,
            Self::Placement => PLACEMENT_PAGE_ROWS,
        }
    }
}

/// A page, or a listing of pages, as a manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PageRef {
    /// What it is a page of.
    #[n(0)]
    pub kind: PageKind,
    /// 0 for a page; a listing of pages has 1, one of such listings 2.
    #[n(1)]
    pub level: u8,
    /// How to open it.
    #[n(2)]
    pub extent: ExtentRef,
    /// The segment it is packed in, as a position in [`Manifest::segments`].
    #[n(3)]
    pub segment: u32,
    /// First byte in that segment's payload.
    #[n(4)]
    pub offset: u32,
    /// It covers the author's segments from this number on.
    #[n(5)]
    pub from: u64,
    /// To below this number.
    #[n(6)]
    pub to: u64,
    /// Rows in it and below it.
    #[n(7)]
    pub rows: u64,
}

fn encoded_len<T: Encode<()>>(value: &T) -> usize {
    let mut out = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = minicbor::encode(value, &mut out);
    out.len()
}

impl PageRef {
    fn is_sound(&self) -> bool {
        let kind = if self.level == 0 { Kind::Page } else { Kind::Manifest };
        self.extent.kind == kind
            && self.extent.is_sound()
            && self.level <= CATALOG_DEPTH_MAX
            && self.from < self.to
            && self.to <= SEGMENT_NUMBER_MAX
    }
}

/// Pages of a catalog, and where they are: all of them, or those of one listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Manifest {
    /// The segments that hold pages.
    #[n(0)]
    pub segments: Vec<Placement>,
    /// The pages, by kind, the oldest of each first.
    #[n(1)]
    pub pages: Vec<PageRef>,
}
crate::format!(Manifest, tag = 0x43, version = 1, max = SEALED_MAX, name = "manifest");

/// A run of pages that is to be sealed and placed as a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What it lists pages of.
    pub kind: PageKind,
    /// Its level.
    pub level: u8,
    /// It covers numbers from this on.
    pub from: u64,
    /// To below this.
    pub to: u64,
    /// Rows in all pages below it.
    pub rows: u64,
    /// The pages.
    pub manifest: Manifest,
}

impl Manifest {
    /// Whether all references in it lead somewhere, and none leads where another does.
    pub fn is_sound(&self) -> bool {
        let found = |page: &PageRef| (page.segment as usize) < self.segments.len();
        self.segments.iter().all(Placement::is_sound)
            && self.pages.iter().all(|page| page.is_sound() && found(page))
            && self
                .pages
                .windows(2)
                .all(|pair| pair[0].kind < pair[1].kind || (pair[0].kind == pair[1].kind && pair[0].to <= pair[1].from))
    }

    /// Whether it is the listing that `page` names.
    pub fn is_listed_as(&self, page: &PageRef) -> bool {
        let within = |below: &PageRef| {
            (below.kind, below.level.checked_add(1)) == (page.kind, Some(page.level))
                && below.from >= page.from
                && below.to <= page.to
        };
        !self.pages.is_empty() && self.is_sound() && self.pages.iter().all(within)
    }

    /// Where the pages of `kind` end: the number of the first segment that none of them covers.
    pub fn covered(&self, kind: PageKind) -> u64 {
        self.pages.iter().rfind(|page| page.kind == kind).map_or(0, |page| page.to)
    }

    /// Takes over a page of another manifest, and the segment it lies in. Call [`Self::put_in_order`] after the last.
    pub fn adopt(&mut self, other: &Self, page: &PageRef) {
        let Some(placement) = other.segments.get(page.segment as usize) else { return };
        // Pages that lie together mostly come together.
        let known = self.segments.iter().rposition(|known| known.segment == placement.segment);
        let segment = known.unwrap_or_else(|| {
            self.segments.push(placement.clone());
            self.segments.len() - 1
        }) as u32;
        self.pages.push(PageRef { segment, ..page.clone() });
    }

    /// Puts pages that were added where they belong.
    pub fn put_in_order(&mut self) {
        self.pages.sort_by_key(|page| (page.kind, page.from));
    }

    /// Drops segments that no page lies in.
    pub fn prune(&mut self) {
        let mut renumbered: Vec<Option<u32>> = vec![None; self.segments.len()];
        for page in &self.pages {
            renumbered[page.segment as usize] = Some(0);
        }
        for (next, used) in renumbered.iter_mut().flatten().enumerate() {
            *used = next as u32;
        }
        let mut used = renumbered.iter();
        self.segments.retain(|_| used.next().is_some_and(Option::is_some));
        for page in &mut self.pages {
            page.segment = renumbered[page.segment as usize].unwrap_or_default();
        }
    }

    /// Where writing has to start again, when segments up to below some number are to be covered and `new_rows` rows
    /// are new: pages of `kind` from there on are dropped from the manifest and made anew together with what is new. A
    /// page of `full` rows, or more than twice as large as all that is younger, stays, and so does a listing.
    pub fn reopen(&mut self, kind: PageKind, full: usize, new_rows: usize) -> u64 {
        let mut young = new_rows as u64;
        let mut from = self.covered(kind);
        while let Some(at) = self.pages.iter().rposition(|page| page.kind == kind) {
            let page = &self.pages[at];
            if page.level > 0 || page.rows >= full as u64 || page.rows > 2 * young.max(1) {
                break;
            }
            young += page.rows;
            from = page.from;
            self.pages.remove(at);
        }
        from
    }

    /// Takes runs of pages out until what is left is no longer than `target`, if that can be, and gives them as
    /// listings. When they are placed and added, this may have more to do. The youngest pages, which the next sync may
    /// write anew, are not taken.
    pub fn fold(&mut self, target: usize) -> Vec<Listing> {
        let mut out = Vec::new();
        loop {
            self.prune();
            if codec::encode(self).len() <= target {
                return out;
            }
            let Some(run) = self.longest_run() else { return out };
            let mut manifest = Self::default();
            let (mut taken, mut len) = (0, FRAME_BYTES);
            for page in &self.pages[run.clone()] {
                let segments = manifest.segments.len();
                manifest.adopt(self, page);
                len += encoded_len(page) + manifest.segments[segments..].iter().map(encoded_len).sum::<usize>();
                if taken >= 2 && len > target {
                    manifest.pages.pop();
                    manifest.segments.truncate(segments);
                    break;
                }
                taken += 1;
            }
            let taken: Vec<PageRef> = self.pages.drain(run.start..run.start + taken).collect();
            let [first, .., last] = taken.as_slice() else { return out };
            let rows = taken.iter().fold(0u64, |sum, page| sum.saturating_add(page.rows));
            let (kind, level) = (first.kind, first.level + 1);
            out.push(Listing { kind, level, from: first.from, to: last.to, rows, manifest });
        }
    }

    /// The longest run of two and more pages of one kind and level, without the youngest of their kind.
    fn longest_run(&self) -> Option<std::ops::Range<usize>> {
        let mut longest = 0..0;
        let mut end = 0;
        for of_kind in self.pages.chunk_by(|one, next| one.kind == next.kind) {
            let young = of_kind.iter().rev().take(YOUNG_PAGES).take_while(|page| page.level == 0).count();
            let mut start = end;
            end += of_kind.len();
            for run in of_kind[..of_kind.len() - young].chunk_by(|one, next| one.level == next.level) {
                if run.len() > longest.len() && run[0].level < CATALOG_DEPTH_MAX {
                    longest = start..start + run.len();
                }
                start += run.len();
            }
        }
        (longest.len() >= 2).then_some(longest)
    }
}

#[cfg(test)]
mod tests;
