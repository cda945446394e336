//! The first snapshot of a volume that was split off another: what it refers to stays where it is, sealed as it was, and
//! the new volume's index takes over where that is.
//!
//! Invariant: before a volume counts as one that can do without the other, its index knows all that its snapshots reach. Of
//! segments that also hold what stays with the other volume, only the extents are listed that the new one reaches. Where a
//! node of the tree cannot be read now, all devices of this identity find what is below it by the index of the other
//! volume, and the next snapshot takes over what it can.

use std::collections::BTreeMap;

use hypernet_core::id::{ExtentId, SegmentId};
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::tree::{self, Content, Entry, LinkEntry, Root, Run, Target, TreeRef};
use hypernet_store::volume::NewSegment;

use super::read::{Deadline, Nodes, tree_error};
use super::served::{WINDOW, after_window};
use super::{Volume, damaged};

/// Extents looked up at once.
const AT_ONCE: usize = 1_000;
/// Segments taken over with one flush.
const SEGMENTS_AT_ONCE: usize = 256;

/// By segment: what is known of it, and what of it is reached.
type Reached = BTreeMap<SegmentId, (Vec<u8>, BTreeMap<u32, (ExtentId, u32)>)>;

struct Walk<'a> {
    volume: &'a Volume,
    waiting: Vec<TreeRef>,
    looked_up: Vec<ExtentId>,
    reached: Reached,
    /// Why something could not be read.
    missed: Option<PortError>,
}

impl Volume {
    /// Takes over what a new root of this volume reaches and only other volumes know; whether all of it could be read.
    pub(super) fn adopt(&self, root: &Root) -> Result<bool, PortError> {
        let (waiting, looked_up, reached) = (Vec::new(), Vec::new(), Reached::new());
        let mut walk = Walk { volume: self, waiting, looked_up, reached, missed: None };
        walk.content(&root.inode.content)?;
        if let Some(links) = &root.links {
            let seen = walk.links(links);
            walk.miss(seen)?;
        }
        while let Some(directory) = walk.waiting.pop() {
            let seen = walk.directory(&directory);
            walk.miss(seen)?;
        }
        walk.look_up()?;
        let is_whole = walk.missed.is_none();
        if let Some(error) = &walk.missed {
            tracing::warn!(volume = %self.id.short(), %error, "a part of a new volume stays in the index of the old one");
        }
        let reached: Vec<_> = walk.reached.into_iter().collect();
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
                .map(|((id, (descriptor, _)), extents)| NewSegment { id: *id, descriptor, extents })
                .collect();
            self.db.add_segments(&new)?;
        }
        Ok(is_whole)
    }
}

impl Walk<'_> {
    /// What cannot be read now is left for the next time.
    fn miss(&mut self, seen: Result<(), PortError>) -> Result<(), PortError> {
        match seen {
            Err(error) if error.is_of_what_was_read() => {
                self.missed = Some(error);
                Ok(())
            }
            other => other,
        }
    }

    fn links(&mut self, links: &TreeRef) -> Result<(), PortError> {
        self.nodes::<LinkEntry>(links)?;
        let rows = self.volume.link_entries(links, Deadline::of_read())?;
        rows.iter().try_for_each(|row| self.content(&row.inode.content))
    }

    fn directory(&mut self, directory: &TreeRef) -> Result<(), PortError> {
        self.nodes::<Entry>(directory)?;
        for entry in self.volume.entries(directory, Deadline::of_read())? {
            if let Target::Inode(inode) = entry.target {
                self.content(&inode.content)?;
            }
        }
        Ok(())
    }

    fn content(&mut self, content: &Content) -> Result<(), PortError> {
        match content {
            Content::Empty | Content::Inline(_) | Content::Symlink(_) => Ok(()),
            Content::Extent(extent) => self.extent(extent),
            Content::Runs { tree, .. } => {
                let seen = self.runs(tree);
                self.miss(seen)
            }
            Content::Directory(directory) => {
                self.waiting.push(directory.clone());
                Ok(())
            }
        }
    }

    fn nodes<T: tree::Item>(&mut self, of: &TreeRef) -> Result<(), PortError> {
        let nodes = Nodes(self.volume, Deadline::of_read());
        let refs = tree::node_refs::<T, _>(of, &nodes).map_err(tree_error)?;
        refs.iter().try_for_each(|node| self.extent(node))
    }

    /// A file's tree and content, a stretch of it at a time.
    fn runs(&mut self, runs: &TreeRef) -> Result<(), PortError> {
        self.nodes::<Run>(runs)?;
        let mut at = 0;
        while at < runs.weight {
            let end = at.saturating_add(WINDOW);
            let found = self.volume.runs(runs, at..end, Deadline::of_read())?;
            for (_, run) in &found {
                if let Run::Data(extent) = run {
                    self.extent(extent)?;
                }
            }
            at = after_window(&found, end);
        }
        Ok(())
    }

    fn extent(&mut self, extent: &ExtentRef) -> Result<(), PortError> {
        self.looked_up.push(extent.id());
        if self.looked_up.len() >= AT_ONCE { self.look_up() } else { Ok(()) }
    }

    fn look_up(&mut self) -> Result<(), PortError> {
        let ids = std::mem::take(&mut self.looked_up);
        let known = self.volume.db.has_extents(&ids)?;
        let ids: Vec<ExtentId> = ids.into_iter().zip(known).filter_map(|(id, known)| (!known).then_some(id)).collect();
        for (id, located) in ids.iter().zip(self.volume.db.locate_many(&ids)?) {
            let Some(at) = located else {
                self.missed = Some(damaged(format!("extent {} is in no segment of any volume", id.short())));
                continue;
            };
            let (_, contents) = self.reached.entry(at.segment).or_insert_with(|| (at.descriptor, BTreeMap::new()));
            contents.insert(at.offset, (*id, at.len));
        }
        Ok(())
    }
}
