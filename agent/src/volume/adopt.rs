//! The first snapshot of a volume that was split off another: what it refers to stays where it is, sealed as it was, and
//! the new volume's index takes over where that is.
//!
//! Invariant: before a volume counts as one that can do without the other, its index knows all that its snapshots reach, and
//! this device has leases of its own of that. Of segments that also hold what stays with the other volume, only the extents
//! are listed that the new one reaches. Where a node of the tree cannot be read now, all devices of this identity find what
//! is below it by the index of the other volume, and the next snapshot takes over what it can.

use std::collections::BTreeMap;

use hypernet_core::history::History;
use hypernet_core::id::{ExtentId, SegmentId};
use hypernet_core::port::PortError;
use hypernet_core::tree::{Content, Root};
use hypernet_store::marks::Marks;
use hypernet_store::volume::NewSegment;

use super::walk::{Seen, Walk};
use super::{Volume, damaged, state};

/// Extents looked up at once.
const AT_ONCE: usize = 1_000;
/// Segments taken over with one flush.
const SEGMENTS_AT_ONCE: usize = 256;

/// By segment: what is known of it, and what of it is reached.
type Reached = BTreeMap<SegmentId, (Vec<u8>, BTreeMap<u32, (ExtentId, u32)>)>;

struct Adopting<'a> {
    volume: &'a Volume,
    looked_up: Vec<ExtentId>,
    reached: Reached,
    /// An extent that no volume knows.
    unknown: Option<ExtentId>,
}

impl Volume {
    /// Whether a head was published of what was begun from another volume, and not all of that could be taken over yet: until then
    /// nothing is collected, and nothing of others is followed here.
    pub(super) fn is_still_adopting(&self) -> Result<bool, PortError> {
        Ok(state::latest(&self.db)?.is_some() && state::origin(&self.db)?.is_some())
    }

    /// Takes over what a new root of this volume reaches, and the snapshots that it keeps, and only other volumes know;
    /// whether all of it could be read, and is leased.
    pub(super) fn adopt(&self, root: &Root, history: &History) -> Result<bool, PortError> {
        self.adopt_all(|walk| {
            walk.root(root)?;
            walk.history(root, history.kept.values())
        })
    }

    /// The same of a root to which a merge comes: what it `holds` that none of this volume's trees does, and snapshots that this volume does
    /// not keep yet. Its other nodes were written by the merge.
    pub(super) fn adopt_merged(&self, root: &Root, holds: &[&Content]) -> Result<bool, PortError> {
        let known = self.published_history()?;
        let history = self.history_at(root.history.as_ref(), root.tags.as_ref())?;
        self.adopt_all(|walk| {
            holds.iter().try_for_each(|content| walk.held(content))?;
            walk.table(root)?;
            let kept = history.kept.iter().filter(|(moment, _)| !known.kept.contains_key(moment));
            walk.history(root, kept.map(|(_, kept)| kept))
        })
    }

    /// Takes over what a walk finds.
    fn adopt_all(&self, find: impl FnOnce(&mut Walk<'_>) -> Result<(), PortError>) -> Result<bool, PortError> {
        let mut adopting = Adopting { volume: self, looked_up: Vec::new(), reached: Reached::new(), unknown: None };
        let mut marks = Marks::new(std::path::Path::new("temporary files"))?;
        let mut see = |seen: Seen<'_>| match seen {
            Seen::Tree(key) => Ok(marks.add(&key)?),
            Seen::Extent(extent) => {
                let is_new = marks.add(&extent.id())?;
                if is_new {
                    adopting.extent(extent.id())?;
                }
                Ok(is_new)
            }
        };
        let mut walk = Walk::new(self, PortError::is_of_what_was_read, &mut see);
        find(&mut walk)?;
        let mut missed = walk.missed.take();
        adopting.look_up()?;
        let Adopting { reached, unknown, .. } = adopting;
        if let Some(id) = unknown {
            missed = Some(damaged(format!("extent {} is in no segment of any volume", id.short())));
        }
        let reached: Vec<_> = reached.into_iter().collect();
        for some in reached.chunks(SEGMENTS_AT_ONCE) {
            let mut extents: Vec<Vec<_>> = Vec::with_capacity(some.len());
            for (id, (_, at)) in some {
                // What was taken over of it before stays.
                let mut all = self.db.contents(id)?;
                all.extend(at.iter().map(|(offset, (id, len))| (*id, *offset, *len)));
                all.sort_by_key(|(_, offset, _)| *offset);
                extents.push(all);
            }
            let new: Vec<NewSegment<'_>> = some
                .iter()
                .zip(&extents)
                .map(|((id, (descriptor, _)), extents)| NewSegment {
                    id: *id,
                    descriptor,
                    extents,
                    leases: None,
                    is_foreign: false,
                })
                .collect();
            self.db.add_segments(&new)?;
        }
        if let Some(error) = &missed {
            tracing::warn!(volume = %self.id.short(), %error, "a part of a new volume stays in the index of the old one");
        }
        // Also of what was taken over when this was tried before.
        let is_leased = self.lease_everything()?;
        Ok(missed.is_none() && is_leased)
    }
}

impl Adopting<'_> {
    fn extent(&mut self, id: ExtentId) -> Result<(), PortError> {
        self.looked_up.push(id);
        if self.looked_up.len() >= AT_ONCE { self.look_up() } else { Ok(()) }
    }

    fn look_up(&mut self) -> Result<(), PortError> {
        let ids = std::mem::take(&mut self.looked_up);
        let known = self.volume.db.has_extents(&ids)?;
        let ids: Vec<ExtentId> = ids.into_iter().zip(known).filter_map(|(id, known)| (!known).then_some(id)).collect();
        for (id, located) in ids.iter().zip(self.volume.db.locate_many(&ids)?) {
            let Some(at) = located else {
                self.unknown = Some(*id);
                continue;
            };
            let (_, contents) = self.reached.entry(at.segment).or_insert_with(|| (at.descriptor, BTreeMap::new()));
            contents.insert(at.offset, (*id, at.len));
        }
        Ok(())
    }
}
