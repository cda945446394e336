//! Writing and reading the catalog: pages of index and placement log, and the manifest that leads to them.
//!
//! Pages are made from the local index, as segments of it are: a few at a time, however many there are. What the mesh
//! no longer serves of a catalog is made anew, and nothing else of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hypernet_core::catalog::{
    Contents, IndexPage, IndexRow, Listing, MANIFEST_TARGET, Manifest, PageKind, PageRef, PlacementPage, PlacementRow,
};
use hypernet_core::codec;
use hypernet_core::id::{ExtentId, PeerId};
use hypernet_core::key::VolumeKeys;
use hypernet_core::node::PeerView;
use hypernet_core::placement::Plan;
use hypernet_core::port::PortError;
use hypernet_core::seal::{ExtentRef, Kind, Sealer};
use hypernet_core::segment::{Packed, Packer, Placement};
use hypernet_store::volume::{ExtentAt, SegmentRow, Stale, VolumeDb};

use super::census::Enough;
use super::progress::Meter;
use super::repair::Wear;
use super::tended::Tending as _;
use super::write::Tally;
use super::{Volume, damaged};

#[cfg(test)]
mod tests;

/// Segments read from the local index at once while pages are made.
const SEGMENTS_AT_ONCE: u32 = 64;

/// Rows that are taken into the local index at once, and a page more.
const ROWS_AT_ONCE: usize = 4_000;

/// How large the parts of a catalog become before the next is begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    page_rows: fn(PageKind) -> usize,
    manifest: usize,
}

impl Sizes {
    /// Those that are used.
    pub(crate) const FULL: Self = Self { page_rows: PageKind::page_rows, manifest: MANIFEST_TARGET };
}

/// A manifest that is placed.
pub(crate) struct Published {
    pub(crate) manifest: Manifest,
    pub(crate) extent: ExtentRef,
    pub(crate) placement: Placement,
    /// What was placed for it.
    pub(crate) tally: Tally,
    /// What pages were written anew for, which is so when the manifest is found.
    pub(crate) stale: Vec<Stale>,
}

/// Pages on their way into segments, and from there into the manifest. As few wait as fill a segment.
struct Placing<'a> {
    volume: &'a Volume,
    keys: Arc<VolumeKeys>,
    sealer: Sealer,
    plan: Plan,
    meter: &'a Meter,
    packer: Packer,
    /// Sealed and not yet placed; where they lie is filled in then.
    waiting: BTreeMap<ExtentId, PageRef>,
    manifest: Manifest,
    tally: Tally,
}

impl Placing<'_> {
    /// Seals a page or a listing of `rows` rows that covers these numbers.
    fn add(&mut self, kind: PageKind, level: u8, covers: Range<u64>, rows: u64, plain: &[u8]) -> Result<(), PortError> {
        let unit = if level == 0 { Kind::Page } else { Kind::Manifest };
        let sealed = self.sealer.seal(unit, plain).map_err(damaged)?;
        let extent = sealed.reference.clone();
        if level > 0 {
            // Looked at again whenever a peer goes.
            self.volume.db.put_nodes(&[(extent.id(), plain)])?;
        }
        if let Some(packed) = self.packer.add(sealed).map_err(damaged)? {
            self.place(&packed)?;
        }
        let (from, to) = (covers.start, covers.end);
        self.waiting.insert(extent.id(), PageRef { kind, level, extent, segment: 0, offset: 0, from, to, rows });
        Ok(())
    }

    fn place(&mut self, packed: &Packed) -> Result<(), PortError> {
        for placed in self.volume.peers.place((&self.keys, &|| self.volume.draw()), packed, self.plan, self.meter)? {
            let segment = self.manifest.segments.len() as u32;
            for at in &placed.contents {
                let page = self.waiting.remove(&at.id).ok_or_else(|| damaged("a page was placed that nobody wrote"))?;
                self.manifest.pages.push(PageRef { segment, offset: at.offset, ..page });
            }
            self.volume.remember_leases(&placed)?;
            self.tally = self.tally.and(Tally::of(&placed.placement));
            self.manifest.segments.push(placed.placement);
        }
        Ok(())
    }

    /// Places what waits.
    fn flush(&mut self) -> Result<(), PortError> {
        if let Some(packed) = self.packer.finish() {
            self.place(&packed)?;
        }
        self.manifest.put_in_order();
        Ok(())
    }

    /// Pages of the index for segments with these numbers, from the local index.
    fn index(&mut self, numbers: Range<u64>, full: usize) -> Result<(), PortError> {
        let mut page = IndexPage { segments: Vec::new() };
        let (mut begin, mut rows) = (numbers.start, 0);
        self.volume.each_segment(numbers.clone(), |row, extents| {
            rows += extents.len();
            let extents = extents.into_iter().map(|(id, offset, len)| IndexRow { id, offset, len }).collect();
            page.segments.push(Contents { number: row.num, rows: extents });
            if rows >= full {
                let end = row.num + 1;
                self.add(PageKind::Index, 0, begin..end, rows as u64, &codec::encode(&page))?;
                page.segments.clear();
                (begin, rows) = (end, 0);
            }
            Ok(())
        })?;
        if page.segments.is_empty() {
            return Ok(());
        }
        self.add(PageKind::Index, 0, begin..numbers.end, rows as u64, &codec::encode(&page))
    }

    /// Pages of the placement log for segments with these numbers, from the local index.
    fn placements(&mut self, numbers: Range<u64>, full: usize) -> Result<(), PortError> {
        let mut page = PlacementPage { rows: Vec::new() };
        let mut begin = numbers.start;
        self.volume.each_segment(numbers.clone(), |row, _| {
            let placement = codec::decode(&row.descriptor).map_err(damaged)?;
            page.rows.push(PlacementRow { number: row.num, placement });
            if page.rows.len() >= full {
                let end = row.num + 1;
                self.add(PageKind::Placement, 0, begin..end, page.rows.len() as u64, &codec::encode(&page))?;
                page.rows.clear();
                begin = end;
            }
            Ok(())
        })?;
        if page.rows.is_empty() {
            return Ok(());
        }
        self.add(PageKind::Placement, 0, begin..numbers.end, page.rows.len() as u64, &codec::encode(&page))
    }
}

impl Volume {
    /// Brings the catalog up to date with the local index, and places what is new of it.
    pub(crate) fn publish_catalog(
        &self,
        manifest: &Manifest,
        sizes: Sizes,
        plan: Plan,
        meter: &Meter,
    ) -> Result<Published, PortError> {
        let views = self.peers.views()?;
        let next = self.db.next_segment()?;
        let stale = self.db.stale()?;
        let (manifest, lost) = self.survey(manifest, &views, &stale)?;
        let keys = self.keys();
        let mut placing = Placing {
            volume: self,
            sealer: Sealer::new(&keys),
            keys,
            plan,
            meter,
            packer: Packer::new(plan.k),
            waiting: BTreeMap::new(),
            manifest,
            tally: Tally::default(),
        };
        for kind in PageKind::ALL {
            let full = (sizes.page_rows)(kind);
            let new_rows = self.new_rows(kind, placing.manifest.covered(kind)..next)?;
            let tail = placing.manifest.reopen(kind, full, new_rows);
            // What was lost of the tail is written along with it.
            let lost = lost.iter().filter(|lost| lost.kind == kind && lost.numbers.start < tail);
            for numbers in lost.map(|lost| lost.numbers.clone()).chain(std::iter::once(tail..next)) {
                match kind {
                    PageKind::Index => placing.index(numbers, full)?,
                    PageKind::Placement => placing.placements(numbers, full)?,
                }
            }
        }
        let mut folded = false;
        loop {
            placing.flush()?;
            let listings = placing.manifest.fold(sizes.manifest);
            if listings.is_empty() {
                break;
            }
            folded = true;
            for Listing { kind, level, from, to, rows, manifest } in listings {
                placing.add(kind, level, from..to, rows, &codec::encode(&manifest))?;
            }
        }
        let Placing { keys, manifest, tally, .. } = placing;
        let (extent, placed) =
            self.peers.place_alone((&keys, &|| self.draw()), Kind::Manifest, &codec::encode(&manifest), plan, meter)?;
        if folded {
            // What is in the new listings was looked at together with peers that nobody had looked at before.
            *self.surveyed.lock() = None;
        }
        self.remember_leases(&placed)?;
        let placement = placed.placement;
        let tally = tally.and(Tally::of(&placement));
        Ok(Published { manifest, extent, placement, tally, stale })
    }

    /// Segments of the local index with these numbers, in order.
    fn each_segment(
        &self,
        numbers: Range<u64>,
        mut see: impl FnMut(SegmentRow, Vec<ExtentAt>) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let mut at = numbers.start;
        while at < numbers.end {
            let rows = self.db.segments_since(at, SEGMENTS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            at = last.num + 1;
            for (row, extents) in rows {
                if row.num >= numbers.end {
                    return Ok(());
                }
                see(row, extents)?;
            }
        }
        Ok(())
    }

    /// How many rows of a kind segments with these numbers have.
    fn new_rows(&self, kind: PageKind, numbers: Range<u64>) -> Result<usize, PortError> {
        let mut rows = 0;
        self.each_segment(numbers, |_, extents| {
            rows += if kind == PageKind::Index { extents.len() } else { 1 };
            Ok(())
        })?;
        Ok(rows)
    }

    /// What of a catalog can be read from the peers in `connected`, and the numbers that the rest covers, in order.
    /// Without what it was nothing could be recovered, whatever else is stored.
    ///
    /// Whatever could be read from fewer peers still can, and listings never change: so they are looked into only when
    /// one of the peers that were there the last time is not there, or its rows do not count any more.
    fn survey(
        &self,
        manifest: &Manifest,
        views: &[PeerView],
        stale: &[Stale],
    ) -> Result<(Manifest, Vec<Lost>), PortError> {
        let connected = views.iter().filter(|view| view.connected).map(|view| view.peer).collect();
        let wear = self.tended().wear(views);
        let now = Surveyed { connected, uncounted: wear.mesh.uncounted() };
        let deep = self.surveyed.lock().as_ref().is_none_or(|before| !before.holds_for(&now));
        let mut survey =
            Survey { volume: self, connected: &now.connected, wear, stale, deep, intact: true, lost: Vec::new() };
        let mut kept = Manifest::default();
        survey.look(manifest, &mut kept)?;
        let Survey { intact, mut lost, .. } = survey;
        lost.dedup_by(|next, last| {
            let goes_on = next.kind == last.kind && next.numbers.start == last.numbers.end;
            if goes_on {
                last.numbers.end = next.numbers.end;
            }
            goes_on
        });
        if deep && intact {
            *self.surveyed.lock() = Some(now);
        }
        kept.put_in_order();
        Ok((kept, lost))
    }

    /// A unit of the catalog, from the mesh.
    pub(super) fn fetch_listed(&self, listed_in: &Manifest, page: &PageRef) -> Result<Bytes, PortError> {
        let placement = listed_in
            .segments
            .get(page.segment as usize)
            .ok_or_else(|| damaged("a page of the catalog without place"))?;
        let placement = Arc::new(self.as_moved(placement)?);
        let plain = self.peers.fetch_at(placement, vec![(page.extent.clone(), page.offset)])?;
        plain.into_iter().next().ok_or_else(|| damaged("a page of the catalog came back empty"))
    }

    /// The listing that `page` names: as it was kept here, or, if `ask`, from the mesh.
    pub(crate) fn listing(&self, listed_in: &Manifest, page: &PageRef, ask: bool) -> Result<Manifest, PortError> {
        let id = page.extent.id();
        let bytes = match self.db.node(&id)? {
            Some(bytes) => Bytes::from(bytes),
            None if ask => {
                let bytes = self.fetch_listed(listed_in, page)?;
                self.db.put_nodes(&[(id, &bytes)])?;
                bytes
            }
            None => return Err(PortError::NotFound("a listing of the catalog is not on this device".into())),
        };
        let listing: Manifest = codec::decode(&bytes).map_err(damaged)?;
        if !listing.is_listed_as(page) {
            return Err(damaged("a listing of the catalog is not what it is listed as"));
        }
        Ok(listing)
    }

    /// All segments that a catalog lies in. Listings that are not here are asked for if `ask`; `see` hears of those that
    /// cannot be had, too. No more than one listing is held for each level.
    pub(crate) fn each_catalog_segment(
        &self,
        manifest: &Manifest,
        ask: bool,
        see: &mut dyn FnMut(Result<&Placement, PortError>),
    ) {
        manifest.segments.iter().for_each(|placement| see(Ok(placement)));
        for page in manifest.pages.iter().filter(|page| page.level > 0) {
            match self.listing(manifest, page, ask) {
                Ok(listing) => self.each_catalog_segment(&listing, ask, see),
                Err(error) => see(Err(error)),
            }
        }
    }

    /// Reads a whole catalog from the mesh, and puts it in the place of the local index, a page at a time. Numbers stay
    /// as they are, so the manifest is good for this device, too. When this fails the index is incomplete, and nobody
    /// may use it until this was done again to its end.
    pub(crate) fn load_catalog(&self, manifest: &Manifest, seen: &mut dyn FnMut(u64, u64)) -> Result<(), PortError> {
        // What was read under another catalog may name other holders.
        self.placements.lock().clear();
        self.load_catalog_into(&self.db, manifest, seen)
    }

    /// The same into another index, where it is in nobody's way.
    pub(crate) fn load_catalog_into(
        &self,
        db: &VolumeDb,
        manifest: &Manifest,
        seen: &mut dyn FnMut(u64, u64),
    ) -> Result<(), PortError> {
        let all = manifest.pages.iter().fold(0u64, |sum, page| sum.saturating_add(page.rows));
        db.clear_segments()?;
        let mut done = 0;
        let mut seen = |rows| {
            done = u64::saturating_add(done, rows);
            seen(done, all);
        };
        // An extent can be taken in only when its segment is known.
        for kind in [PageKind::Placement, PageKind::Index] {
            let mut loading = Loading { volume: self, db, segments: Vec::new(), contents: Vec::new(), rows: 0 };
            loading.load(manifest, kind, &mut seen)?;
            loading.flush()?;
        }
        let next = PageKind::ALL.map(|kind| manifest.covered(kind)).into_iter().max().unwrap_or(0);
        db.number_from(next)?;
        Ok(())
    }
}

/// Rows on their way into the local index.
struct Loading<'a> {
    volume: &'a Volume,
    db: &'a VolumeDb,
    segments: Vec<SegmentRow>,
    contents: Vec<(u64, Vec<ExtentAt>)>,
    rows: usize,
}

impl Loading<'_> {
    /// Reads all pages of a kind below `listing`, in order.
    fn load(&mut self, listing: &Manifest, kind: PageKind, seen: &mut dyn FnMut(u64)) -> Result<(), PortError> {
        for page in listing.pages.iter().filter(|page| page.kind == kind) {
            if page.level > 0 {
                self.load(&self.volume.listing(listing, page, true)?, kind, seen)?;
                continue;
            }
            let bytes = self.volume.fetch_listed(listing, page)?;
            let unsound = || damaged("a page of the catalog is not what it is listed as");
            match kind {
                PageKind::Placement => {
                    let plain: PlacementPage = codec::decode(&bytes).map_err(damaged)?;
                    if !plain.is_sound(page) {
                        return Err(unsound());
                    }
                    self.rows += plain.rows.len();
                    self.segments.extend(plain.rows.iter().map(|row| SegmentRow {
                        num: row.number,
                        id: row.placement.segment.id(),
                        descriptor: codec::encode(&row.placement),
                    }));
                }
                PageKind::Index => {
                    let plain: IndexPage = codec::decode(&bytes).map_err(damaged)?;
                    if !plain.is_sound(page) {
                        return Err(unsound());
                    }
                    for Contents { number, rows } in plain.segments {
                        self.rows += rows.len();
                        self.contents.push((number, rows.iter().map(|row| (row.id, row.offset, row.len)).collect()));
                    }
                }
            }
            if self.rows >= ROWS_AT_ONCE {
                self.flush()?;
            }
            seen(page.rows);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PortError> {
        self.db.take_segments(&self.segments)?;
        self.db.take_contents(&self.contents)?;
        self.segments.clear();
        self.contents.clear();
        self.rows = 0;
        Ok(())
    }
}

/// Numbers that no page covers which can be read.
struct Lost {
    kind: PageKind,
    numbers: Range<u64>,
}

/// With whom a catalog was found to be as it should.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surveyed {
    connected: BTreeSet<PeerId>,
    uncounted: BTreeSet<PeerId>,
}

impl Surveyed {
    /// Whether the same would be found now.
    fn holds_for(&self, now: &Self) -> bool {
        self.connected.is_subset(&now.connected) && now.uncounted.is_subset(&self.uncounted)
    }
}

/// A look at what can be read of a catalog.
struct Survey<'a> {
    volume: &'a Volume,
    connected: &'a BTreeSet<PeerId>,
    wear: Wear<'a>,
    stale: &'a [Stale],
    /// Also into listings that can be read.
    deep: bool,
    /// Whether everything was taken over as it was.
    intact: bool,
    lost: Vec<Lost>,
}

impl Survey<'_> {
    /// Takes over what can be read, has enough rows and is kept for this device, and notes what has not. Of a listing that is lost, or
    /// that something is lost of, what is left is taken over in its place.
    fn look(&mut self, listing: &Manifest, kept: &mut Manifest) -> Result<(), PortError> {
        let readable = |at: &Placement| self.volume.lacking.is_readable(at, self.connected);
        // Of somebody else's catalog, or one of this device's from long ago, its next head has nothing that others may give up.
        let kept_here = self.volume.tended().keep(&listing.segments, Enough::Read)?;
        let looked: Vec<(bool, bool)> = listing
            .segments
            .iter()
            .zip(kept_here)
            .map(|(at, is_kept)| (readable(at), readable(at) && is_kept && !self.wear.is_worn(at)))
            .collect();
        for page in &listing.pages {
            let (readable, is_sound) = looked.get(page.segment as usize).copied().unwrap_or((false, false));
            let is_stale = self.is_stale(page);
            if is_sound && !is_stale && (page.level == 0 || !self.deep) {
                kept.adopt(listing, page);
                continue;
            }
            let below = match page.level {
                0 => None,
                _ => self.below(listing, page, readable)?,
            };
            let Some(below) = below else {
                self.intact = false;
                let (kind, numbers) = (page.kind, page.from..page.to);
                if !is_sound {
                    tracing::warn!(?kind, ?numbers, "pages of the catalog have too few holders; writing them anew");
                }
                self.lost.push(Lost { kind, numbers });
                continue;
            };
            let lost_before = self.lost.len();
            let mut left = Manifest::default();
            let deep = std::mem::replace(&mut self.deep, true);
            self.look(&below, &mut left)?;
            self.deep = deep;
            if is_sound && self.lost.len() == lost_before {
                kept.adopt(listing, page);
            } else {
                self.intact = false;
                left.pages.iter().for_each(|page| kept.adopt(&left, page));
            }
        }
        Ok(())
    }

    /// Whether a page, or one below a listing, tells of what is not so any more.
    fn is_stale(&self, page: &PageRef) -> bool {
        let from = self.stale.partition_point(|stale| stale.num < page.from);
        let within = self.stale[from..].iter().take_while(|stale| stale.num < page.to);
        // Where a segment is stands in the placement log alone.
        within.into_iter().any(|stale| stale.is_gone || page.kind == PageKind::Placement)
    }

    /// A listing, unless it cannot be had.
    fn below(&self, listing: &Manifest, page: &PageRef, ask: bool) -> Result<Option<Manifest>, PortError> {
        match self.volume.listing(listing, page, ask) {
            Ok(below) => Ok(Some(below)),
            Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => Err(error),
            Err(error) => {
                tracing::warn!(%error, "a listing of the catalog cannot be read");
                Ok(None)
            }
        }
    }
}
