//! Writing and reading the catalog: pages of index and placement log, and the manifest that lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypernet_core::catalog::{
    INDEX_PAGE_ROWS, IndexPage, IndexRow, Manifest, PLACEMENT_PAGE_ROWS, PageKind, PageRef, PlacementPage,
};
use hypernet_core::codec;
use hypernet_core::id::{ExtentId, PeerId, SegmentId};
use hypernet_core::placement::Plan;
use hypernet_core::port::PortError;
use hypernet_core::seal::{ExtentRef, Kind, Sealed, Sealer};
use hypernet_core::segment::Placement;

use hypernet_store::volume::NewSegment;

use super::Volume;
use super::progress::Meter;
use super::read::{expect_kind, store_error};
use super::write::{Tally, is_readable, tally};

/// Segments read from the local index at once while pages are made.
const SEGMENTS_AT_ONCE: u32 = 64;

fn damaged(error: impl std::fmt::Display) -> PortError {
    PortError::Damaged(error.to_string())
}

/// A page that is sealed and not yet placed.
struct Draft {
    kind: PageKind,
    sealed: Sealed,
    from: u64,
    to: u64,
    rows: u32,
}

/// A manifest that is placed.
pub(crate) struct Published {
    pub(crate) manifest: Manifest,
    pub(crate) extent: ExtentRef,
    pub(crate) placement: Placement,
    /// What was placed for it.
    pub(crate) tally: Tally,
}

impl Volume {
    /// Brings the catalog up to date with the local index, and places what is new of it.
    pub(crate) fn publish_catalog(
        &self,
        mut manifest: Manifest,
        plan: Plan,
        meter: &Meter,
    ) -> Result<Published, PortError> {
        let sealer = Sealer::new(&self.keys);
        drop_unreadable(&mut manifest, &self.connected()?);
        let next = self.db.next_segment().map_err(store_error)?;
        let mut drafts = self.index_pages(&mut manifest, &sealer, next)?;
        drafts.extend(self.placement_pages(&mut manifest, &sealer, next)?);
        let extents = drafts.iter().map(|draft| draft.sealed.clone()).collect();
        let mut places: BTreeMap<ExtentId, (u32, u32)> = BTreeMap::new();
        let pages = self.place_alone(extents, plan, meter)?;
        let of_pages = tally(pages.iter().map(|placed| &placed.placement));
        for placed in pages {
            let segment = manifest.segments.len() as u32;
            places.extend(placed.contents.iter().map(|at| (at.id, (segment, at.offset))));
            manifest.segments.push(placed.placement);
        }
        for Draft { kind, sealed, from, to, rows } in drafts {
            let (segment, offset) = *places
                .get(&sealed.reference.id())
                .ok_or_else(|| damaged("a page of the catalog was placed nowhere"))?;
            manifest.pages.push(PageRef { kind, extent: sealed.reference, segment, offset, from, to, rows });
        }
        manifest.prune();
        let sealed = sealer.seal(Kind::Manifest, &codec::encode(&manifest)).map_err(damaged)?;
        let extent = sealed.reference.clone();
        let placed = self.place_alone(vec![sealed], plan, meter)?;
        let placement = placed.into_iter().next().ok_or_else(|| damaged("the manifest was placed nowhere"))?.placement;
        let tally = of_pages.and(tally([&placement]));
        Ok(Published { manifest, extent, placement, tally })
    }

    fn index_pages(&self, manifest: &mut Manifest, sealer: &Sealer, next: u64) -> Result<Vec<Draft>, PortError> {
        let covered = covered(manifest, PageKind::Index);
        let mut new_rows = 0;
        let mut counted = covered;
        loop {
            let rows = self.db.segments_since(counted, SEGMENTS_AT_ONCE).map_err(store_error)?;
            let Some((last, _)) = rows.last() else { break };
            counted = last.num + 1;
            new_rows += rows.iter().map(|(_, extents)| extents.len()).sum::<usize>();
        }
        let from = manifest.reopen(PageKind::Index, new_rows);
        let mut drafts = Vec::new();
        let mut page = IndexPage { segments: Vec::new(), rows: Vec::new() };
        let mut page_from = from;
        let mut at = from;
        while at < next {
            let rows = self.db.segments_since(at, SEGMENTS_AT_ONCE).map_err(store_error)?;
            if rows.is_empty() {
                at = next; // numbers at the end that no segment has
            }
            for (row, extents) in rows {
                let mut position = page.segments.len() as u32;
                page.segments.push(row.id);
                for (id, offset, len) in extents {
                    if page.rows.len() >= INDEX_PAGE_ROWS {
                        // A segment may be spread over pages: those before its last end below its number.
                        drafts.push(draft(sealer, PageKind::Index, &page, page.rows.len(), page_from, row.num)?);
                        page = IndexPage { segments: vec![row.id], rows: Vec::new() };
                        position = 0;
                        page_from = row.num;
                    }
                    page.rows.push(IndexRow { id, segment: position, offset, len });
                }
                at = row.num + 1;
            }
        }
        if !page.segments.is_empty() {
            drafts.push(draft(sealer, PageKind::Index, &page, page.rows.len(), page_from, at)?);
        }
        Ok(drafts)
    }

    fn placement_pages(&self, manifest: &mut Manifest, sealer: &Sealer, next: u64) -> Result<Vec<Draft>, PortError> {
        let covered = covered(manifest, PageKind::Placement);
        let from = manifest.reopen(PageKind::Placement, next.saturating_sub(covered) as usize);
        let mut drafts = Vec::new();
        let mut page = PlacementPage { rows: Vec::new() };
        let (mut page_from, mut at) = (from, from);
        while at < next {
            let rows = self.db.segments_iter(at.saturating_sub(1), SEGMENTS_AT_ONCE).map_err(store_error)?;
            if rows.is_empty() {
                at = next;
            }
            for row in rows {
                page.rows.push(codec::decode(&row.descriptor).map_err(damaged)?);
                at = row.num + 1;
                if page.rows.len() >= PLACEMENT_PAGE_ROWS {
                    drafts.push(draft(sealer, PageKind::Placement, &page, page.rows.len(), page_from, at)?);
                    page.rows.clear();
                    page_from = at;
                }
            }
        }
        if !page.rows.is_empty() {
            drafts.push(draft(sealer, PageKind::Placement, &page, page.rows.len(), page_from, at)?);
        }
        Ok(drafts)
    }

    /// Reads a whole catalog from the mesh, puts it in the place of the local index, and gives the manifest with its
    /// pages renumbered to this device's numbers of the segments. A segment that several pages tell of was placed
    /// again: the last counts. When this fails the index is as it was; when not, it has nothing of another catalog.
    pub(crate) fn load_catalog(
        &self,
        mut manifest: Manifest,
        seen: &mut dyn FnMut(usize, usize),
    ) -> Result<Manifest, PortError> {
        let mut extents: BTreeMap<SegmentId, Vec<(ExtentId, u32, u32)>> = BTreeMap::new();
        let mut listed: Vec<Vec<SegmentId>> = Vec::new();
        let mut placements: Vec<(SegmentId, Placement)> = Vec::new();
        for (at, page) in manifest.pages.iter().enumerate() {
            seen(at, manifest.pages.len());
            expect_kind(&page.extent, Kind::Page)?;
            let placement =
                manifest.segments.get(page.segment as usize).ok_or_else(|| damaged("a page without place"))?;
            let plain = self.fetch_at(Arc::new(placement.clone()), vec![(page.extent.clone(), page.offset)])?;
            let bytes = plain.first().ok_or_else(|| damaged("a page came back empty"))?;
            listed.push(match page.kind {
                PageKind::Index => {
                    let page: IndexPage = codec::decode(bytes).map_err(damaged)?;
                    for row in page.rows {
                        let segment = page
                            .segments
                            .get(row.segment as usize)
                            .ok_or_else(|| damaged("an index row names no segment"))?;
                        extents.entry(*segment).or_default().push((row.id, row.offset, row.len));
                    }
                    page.segments
                }
                PageKind::Placement => {
                    let page: PlacementPage = codec::decode(bytes).map_err(damaged)?;
                    if !page.rows.iter().all(Placement::is_sound) {
                        return Err(damaged("a placement in the catalog cannot be"));
                    }
                    let first = placements.len();
                    placements.extend(page.rows.into_iter().map(|row| (row.segment.id(), row)));
                    placements[first..].iter().map(|(id, _)| *id).collect()
                }
            });
        }
        let last: BTreeMap<SegmentId, usize> = placements.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
        let mut rows = Vec::with_capacity(last.len());
        for (at, (id, placement)) in placements.iter().enumerate() {
            if last.get(id) != Some(&at) {
                continue;
            }
            let mut extents = extents.remove(id).unwrap_or_default();
            // Two pages may both tell of what lies in it.
            extents.sort_unstable_by_key(|(_, offset, _)| *offset);
            extents.dedup();
            rows.push((*id, codec::encode(placement), extents));
        }
        let new: Vec<NewSegment<'_>> =
            rows.iter().map(|(id, descriptor, extents)| NewSegment { id: *id, descriptor, extents }).collect();
        let given = self.db.replace_all(&new).map_err(store_error)?;
        // What was read under another catalog may name other holders.
        self.placements.lock().clear();
        let numbers: BTreeMap<SegmentId, u64> = rows.iter().map(|(id, _, _)| *id).zip(given).collect();
        let next = self.db.next_segment().map_err(store_error)?;
        for kind in [PageKind::Index, PageKind::Placement] {
            let mut to = next;
            // Which numbers an earlier page covers is what the later ones leave of them.
            let mut later: BTreeSet<SegmentId> = BTreeSet::new();
            for (page, ids) in manifest.pages.iter_mut().zip(&listed).rev().filter(|(page, _)| page.kind == kind) {
                page.to = to;
                let covered = ids.iter().filter(|id| !later.contains(id)).filter_map(|id| numbers.get(id));
                page.from = covered.copied().min().unwrap_or(to).min(to);
                to = page.from;
                later.extend(ids);
            }
        }
        Ok(manifest)
    }
}

/// Drops the pages that cannot be read from the peers in `connected`, and all that are younger: they are made anew from
/// the local index. Without them nothing could be recovered, whatever else is stored.
fn drop_unreadable(manifest: &mut Manifest, connected: &BTreeSet<PeerId>) {
    let readable: Vec<bool> = manifest.segments.iter().map(|placement| is_readable(placement, connected)).collect();
    for kind in [PageKind::Index, PageKind::Placement] {
        let mut gone = false;
        manifest.pages.retain(|page| {
            gone |= page.kind == kind && !readable.get(page.segment as usize).copied().unwrap_or(false);
            page.kind != kind || !gone
        });
        if gone {
            tracing::warn!(?kind, "pages of the catalog have too few holders; writing them anew");
        }
    }
}

fn covered(manifest: &Manifest, kind: PageKind) -> u64 {
    manifest.pages.iter().filter(|page| page.kind == kind).map(|page| page.to).max().unwrap_or(0)
}

fn draft<P: codec::Format + minicbor::Encode<()>>(
    sealer: &Sealer,
    kind: PageKind,
    page: &P,
    rows: usize,
    from: u64,
    to: u64,
) -> Result<Draft, PortError> {
    let sealed = sealer.seal(Kind::Page, &codec::encode(page)).map_err(damaged)?;
    Ok(Draft { kind, sealed, from, to, rows: rows as u32 })
}
