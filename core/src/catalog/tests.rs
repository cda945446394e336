use std::collections::BTreeMap;

use super::*;
use crate::id::{PeerId, ShardId, VolumeId};
use crate::key::{Secret, VolumeKeys};
use crate::placement::{self, Plan};
use crate::seal::Sealer;
use crate::segment::{Holder, Segment};
use crate::time::UnixSeconds;

fn sealer() -> Sealer {
    Sealer::new(&VolumeKeys::new(VolumeId([1; 16]), 0, Secret::new([2; 32])))
}

fn page(kind: PageKind, from: u64, to: u64, rows: u64, segment: u32) -> PageRef {
    let plain = [from.to_be_bytes(), to.to_be_bytes(), (kind as u64).to_be_bytes()].concat();
    let extent = sealer().seal(Kind::Page, &plain).unwrap().reference;
    PageRef { kind, level: 0, extent, segment, offset: 0, from, to, rows }
}

fn placed(plan: Plan, seed: u64) -> Placement {
    let hash = |i: u8| *blake3::hash(&[&seed.to_be_bytes()[..], &[i]].concat()).as_bytes();
    let rows = (0..plan.committed).map(|i| ShardId(hash(i))).collect();
    let holders = (0..plan.n).map(|row| Holder { row, peer: PeerId(hash(row)), until: UnixSeconds(u64::MAX) });
    Placement { segment: Segment { k: plan.k, shard_len: 1 << 20, rows }, n: plan.n, holders: holders.collect() }
}

#[test]
fn pages_stay_few_and_cover_everything() {
    const FULL: usize = PLACEMENT_PAGE_ROWS;
    let mut manifest = Manifest::default();
    let mut rewritten = 0u64;
    let total = 3000u64;
    for next in 1..=total {
        let from = manifest.reopen(PageKind::Placement, FULL, 1);
        rewritten += next - from;
        let mut at = from;
        while at < next {
            let to = next.min(at + FULL as u64);
            manifest.pages.push(page(PageKind::Placement, at, to, to - at, 0));
            at = to;
        }
        let mut covered = 0;
        for page in &manifest.pages {
            assert_eq!(page.from, covered);
            covered = page.to;
        }
        assert_eq!((covered, manifest.covered(PageKind::Placement)), (next, next));
        let young = manifest.pages.iter().rev().take_while(|page| page.rows < FULL as u64).count();
        assert!(young <= YOUNG_PAGES, "{young} pages may be written anew");
    }
    let full = (total as usize).div_ceil(FULL);
    assert!(manifest.pages.len() <= full + YOUNG_PAGES, "{} pages", manifest.pages.len());
    assert!(rewritten < total * 16, "{rewritten} rows written for {total}");
}

#[test]
fn unused_segments_go_and_pages_still_find_theirs() {
    let plan = placement::plan(10, 0.9).unwrap();
    let mut manifest = Manifest {
        segments: vec![placed(plan, 1), placed(plan, 2), placed(plan, 3)],
        pages: vec![page(PageKind::Index, 0, 1, 1, 2), page(PageKind::Placement, 0, 1, 1, 0)],
    };
    assert!(manifest.is_sound());
    manifest.prune();
    assert_eq!(manifest.segments, [placed(plan, 1), placed(plan, 3)]);
    assert_eq!((manifest.pages[0].segment, manifest.pages[1].segment), (1, 0));
    manifest.pages[0].segment = 9;
    assert!(!manifest.is_sound());
}

/// A catalog that grows, and the listings that it was folded into, by id.
struct Growing {
    plan: Plan,
    /// The number of the next page.
    next: u64,
    manifest: Manifest,
    listings: BTreeMap<ExtentId, Manifest>,
    /// The longest that a manifest and a listing became.
    longest: (usize, usize),
    rewritten: usize,
}

impl Growing {
    fn new(plan: Plan) -> Self {
        let manifest = Manifest::default();
        Self { plan, next: 0, manifest, listings: BTreeMap::new(), longest: (0, 0), rewritten: 0 }
    }

    /// One sync that brings so many full pages of each kind, so many in a segment.
    fn sync(&mut self, pages: u64, in_segment: u64) {
        for from in self.next..self.next + pages {
            let lying = Manifest { segments: vec![placed(self.plan, from / in_segment)], pages: vec![] };
            for kind in PageKind::ALL {
                self.manifest.adopt(&lying, &page(kind, from, from + 1, kind.page_rows() as u64, 0));
            }
        }
        self.next += pages;
        self.manifest.put_in_order();
        loop {
            let listings = self.manifest.fold(MANIFEST_TARGET);
            if listings.is_empty() {
                break;
            }
            for listing in listings {
                let bytes = codec::encode(&listing.manifest);
                self.longest.1 = self.longest.1.max(bytes.len());
                self.rewritten += bytes.len();
                let extent = sealer().seal(Kind::Manifest, &bytes).unwrap().reference;
                let id = extent.id();
                let Listing { kind, level, from, to, rows, manifest } = listing;
                let mut other = Manifest { segments: vec![placed(self.plan, u64::MAX - from)], pages: vec![] };
                other.pages.push(PageRef { kind, level, extent, segment: 0, offset: 0, from, to, rows });
                self.manifest.adopt(&other, &other.pages[0]);
                assert!(manifest.is_listed_as(&other.pages[0]));
                self.listings.insert(id, manifest);
            }
            self.manifest.put_in_order();
        }
        assert!(self.manifest.is_sound());
        self.longest.0 = self.longest.0.max(codec::encode(&self.manifest).len());
    }

    /// The ranges of all pages of a kind below `manifest`, and how deep it goes.
    fn walk(&self, manifest: &Manifest, kind: PageKind, out: &mut Vec<(u64, u64)>) -> u8 {
        let mut depth = 0;
        for page in manifest.pages.iter().filter(|page| page.kind == kind) {
            if page.level == 0 {
                out.push((page.from, page.to));
            } else {
                depth = depth.max(1 + self.walk(&self.listings[&page.extent.id()], kind, out));
            }
        }
        depth
    }

    fn check(&self, pages: u64) -> u8 {
        let mut deepest = 0;
        for kind in PageKind::ALL {
            let mut found = Vec::new();
            deepest = deepest.max(self.walk(&self.manifest, kind, &mut found));
            assert!(found.iter().copied().eq((0..pages).map(|at| (at, at + 1))), "{kind:?}");
        }
        assert!(self.longest.0 <= MANIFEST_TARGET, "a manifest of {} bytes", self.longest.0);
        assert!(self.longest.1 <= MANIFEST_TARGET, "a listing of {} bytes", self.longest.1);
        deepest
    }
}

/// 100 million extents, a sync for every 10,000 of them, on the mesh whose placements are the longest.
#[test]
fn a_catalog_that_grows_for_ever_has_a_bounded_manifest() {
    let mut catalog = Growing::new(placement::plan(100, 0.1).unwrap());
    let pages = 10_000;
    for _ in 0..pages {
        catalog.sync(1, 1);
    }
    let deepest = catalog.check(pages);
    // Eight others below each, at least: what the greatest depth was chosen for.
    assert!((1..=5).contains(&deepest), "{deepest} listings deep");
    let page = encoded_len(&catalog.manifest.pages[0]) + encoded_len(&catalog.manifest.segments[0]);
    let all = page * 2 * pages as usize;
    assert!(all > 50 * SEALED_MAX, "it would have fitted into one unit");
    assert!(catalog.rewritten < 2 * all, "{} bytes of listings for {all} of references", catalog.rewritten);
}

#[test]
fn a_catalog_that_is_large_at_once_is_folded_too() {
    let mut catalog = Growing::new(placement::plan(10, 0.95).unwrap());
    let pages = 30_000;
    catalog.sync(pages, 16);
    assert!(catalog.check(pages) >= 1);
    catalog.sync(1, 16);
    catalog.check(pages + 1);
}

#[test]
fn nothing_can_be_listed_twice_or_elsewhere_than_it_says() {
    let plan = placement::plan(10, 0.9).unwrap();
    let below = |pages: Vec<PageRef>| Manifest { segments: vec![placed(plan, 1)], pages };
    let extent = sealer().seal(Kind::Manifest, b"listing").unwrap().reference;
    let two = [page(PageKind::Index, 5, 7, 2, 0), page(PageKind::Index, 7, 9, 2, 0)];
    let listed = PageRef { level: 1, extent, from: 5, to: 9, ..two[0].clone() };
    assert!(below(two.to_vec()).is_listed_as(&listed));
    let bad = |name: &str, manifest: Manifest, listed: &PageRef| {
        assert!(!manifest.is_listed_as(listed), "{name}");
    };
    bad("nothing in it", below(vec![]), &listed);
    bad("a narrower range", below(two.to_vec()), &PageRef { from: 6, ..listed.clone() });
    bad("another kind", below(two.to_vec()), &PageRef { kind: PageKind::Placement, ..listed.clone() });
    bad("two levels up", below(two.to_vec()), &PageRef { level: 2, ..listed.clone() });
    bad("the same twice", below(vec![two[0].clone(), two[0].clone()]), &listed);
    bad("out of order", below(vec![two[1].clone(), two[0].clone()]), &listed);
    bad("an empty range", below(vec![PageRef { to: 5, ..two[0].clone() }]), &listed);
    let long = ExtentRef { sealed_len: u32::MAX, ..two[0].extent.clone() };
    bad("a page of four gigabytes", below(vec![PageRef { extent: long, ..two[0].clone() }]), &listed);
    bad("a listing as a page", below(vec![PageRef { extent: listed.extent.clone(), ..two[0].clone() }]), &listed);
    let root = below(vec![PageRef { level: CATALOG_DEPTH_MAX + 1, ..listed.clone() }]);
    assert!(!root.is_sound(), "too deep");
    let root = below(vec![PageRef { to: SEGMENT_NUMBER_MAX + 1, ..listed }]);
    assert!(!root.is_sound(), "more segments than there can be");
}

#[test]
fn pages_have_the_numbers_that_they_are_listed_with() {
    let at = page(PageKind::Index, 5, 9, 2, 0);
    let index = |numbers: &[u64]| {
        let contents = |number: &u64| Contents { number: *number, rows: vec![] };
        IndexPage { segments: numbers.iter().map(contents).collect() }.is_sound(&at)
    };
    assert!(index(&[5, 8]));
    for numbers in [&[][..], &[4, 5], &[8, 9], &[6, 6], &[7, 6]] {
        assert!(!index(numbers), "{numbers:?}");
    }
    let plan = placement::plan(10, 0.9).unwrap();
    let row = |number| PlacementRow { number, placement: placed(plan, number) };
    assert!(PlacementPage { rows: vec![row(5), row(6)] }.is_sound(&at));
    assert!(!PlacementPage { rows: vec![row(6), row(5)] }.is_sound(&at));
    let mut bad = row(5);
    bad.placement.segment.shard_len = 0;
    assert!(!PlacementPage { rows: vec![bad] }.is_sound(&at));
}

/// The longest that pages get: the most rows, the longest numbers, the widest plan.
#[test]
fn the_fullest_pages_can_be_sealed() {
    let top = SEGMENT_NUMBER_MAX;
    let row = |i: usize| IndexRow { id: ExtentId([i as u8; 32]), offset: u32::MAX, len: u32::MAX };
    let alone = |i| Contents { number: top - 1 - i as u64, rows: vec![row(i)] };
    let mut segments: Vec<Contents> = (0..INDEX_PAGE_ROWS - 1).map(alone).collect();
    segments.push(Contents { number: top, rows: (0..SEGMENT_EXTENTS_MAX).map(row).collect() });
    let bytes = codec::encode(&IndexPage { segments });
    assert!(sealer().seal(Kind::Page, &bytes).is_ok(), "{} bytes of index", bytes.len());
    let widest = placement::plan(100, 0.1).unwrap();
    let row = |i| PlacementRow { number: top - i, placement: placed(widest, i) };
    let bytes = codec::encode(&PlacementPage { rows: (0..PLACEMENT_PAGE_ROWS as u64).map(row).collect() });
    assert!(sealer().seal(Kind::Page, &bytes).is_ok(), "{} bytes of placements", bytes.len());
}
