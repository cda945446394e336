//! Sealing what was written before in the epoch of now: whoever was taken off can still open what was sealed for them, and has
//! no key to the same once it is sealed anew.
//!
//! It goes on a stretch at a time, and each stretch is published: a tree of which some is sealed in one epoch and some in
//! another is as good as any. So whatever it is broken off by, it goes on where it was, and what is in the epoch of now
//! already is not read again. The working tree moves on after each; while something is changed or in use there, it waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hypernet_core::merge::join;
use hypernet_core::port::PortError;
use hypernet_core::seal::{ExtentRef, Kind, Origin};
use hypernet_core::tree::{self, Content, Entry, Run, Sink, Target, TreeRef};
use hypernet_fs::vfs::Vfs;

use super::Volume;
use super::progress::Meter;
use super::read::{Deadline, tree_error};
use super::state;
use super::sync::{Publication, publish};
use super::write::Writer;

/// Bytes that are sealed anew before a head is published.
const STRETCH: u64 = 256 << 20;
/// Extents read at once.
const AT_ONCE: usize = 16;

/// A directory that is looked through.
struct Level {
    entries: Vec<Entry>,
    at: usize,
    changed: bool,
}

struct Rekey<'a> {
    volume: &'a Volume,
    writer: &'a mut Writer,
    origin: Origin,
    epoch: u32,
    left: u64,
    /// Why something stays as it is that cannot be read now.
    missed: Option<PortError>,
}

impl Volume {
    /// What is in this volume is to be sealed anew, in the background.
    pub(crate) fn begin_rekey(&self) -> Result<(), PortError> {
        state::put_rekeying(&self.db, true)?;
        self.rekeying.store(true, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn is_rekeying(&self) -> bool {
        self.rekeying.load(Ordering::SeqCst)
    }

    /// Seals a stretch of it anew. Returns whether there is more to do now.
    pub(crate) fn rekey(self: &Arc<Self>, vfs: &Vfs, meter: &Meter) -> Result<bool, PortError> {
        if !self.is_rekeying() || vfs.pending(self.id).files > 0 || self.has_edits() {
            return Ok(false);
        }
        self.end_following(vfs, meter)?;
        let Some(latest) = state::latest(&self.db)? else { return Ok(false) };
        self.may_write()?;
        self.seal_off()?;
        if self.share().is_some() && !self.keys().is_shared() {
            // What is here is to be merged with what is shared first.
            return Ok(false);
        }
        // Where it was in use when the last stretch was published.
        if !self.advance(vfs, &latest.root)? {
            return Ok(false);
        }
        let mut writer = Writer::new(self.clone(), meter.clone())?;
        let epoch = writer.keys().epoch;
        let mut rekey =
            Rekey { volume: self, writer: &mut writer, origin: self.id.into(), epoch, left: STRETCH, missed: None };
        let content = rekey.tree(&latest.root.inode.content)?;
        let links = latest.root.links.as_ref().map(|links| rekey.links(links)).transpose()?.flatten();
        if content.is_none() && links.is_none() {
            if let Some(error) = rekey.missed {
                // The rest is done. This is tried again.
                tracing::warn!(volume = %self.id.short(), %error, "not all can be read that is to be sealed anew");
                return Ok(false);
            }
            state::put_rekeying(&self.db, false)?;
            self.rekeying.store(false, Ordering::SeqCst);
            tracing::info!(volume = %self.id.short(), "all of it is sealed in the epoch of now");
            return Ok(false);
        }
        let sequence = self.take_number()?;
        let mut root = latest.root.clone();
        root.inode.content = content.unwrap_or(root.inode.content);
        root.links = links.or(root.links);
        root.vector = join([&root.vector[..], &[self.dot(sequence)]]);
        root.parts.clear();
        publish(self, writer, Publication::after(Some(&latest), root.clone(), sequence), meter)?;
        self.advance(vfs, &root)
    }
}

impl Rekey<'_> {
    fn is_old(&self, extent: &ExtentRef) -> bool {
        (extent.origin, extent.epoch) != (self.origin, self.epoch)
    }

    /// The same extents, of which those that are old are sealed anew as long as something is left of the stretch.
    fn extents(&mut self, extents: &mut [&mut ExtentRef]) -> Result<bool, PortError> {
        let mut changed = false;
        let mut old: Vec<&mut &mut ExtentRef> = extents.iter_mut().filter(|extent| self.is_old(extent)).collect();
        for some in old.chunks_mut(AT_ONCE) {
            if self.left == 0 {
                break;
            }
            let refs: Vec<ExtentRef> = some.iter().map(|extent| (***extent).clone()).collect();
            let plain = match self.volume.fetch(&refs, Deadline::of_read()) {
                Err(error) if error.is_of_what_was_read() => {
                    self.missed = Some(error);
                    return Ok(false);
                }
                other => other?,
            };
            for (extent, plain) in some.iter_mut().zip(plain) {
                ***extent = self.writer.put(Kind::Content, &plain)?;
                self.left = self.left.saturating_sub(plain.len() as u64);
            }
            changed = true;
        }
        Ok(changed)
    }

    /// A file's content, where anything of it is another one.
    fn content(&mut self, content: &Content) -> Result<Option<Content>, PortError> {
        match content {
            Content::Empty | Content::Inline(_) | Content::Symlink(_) | Content::Directory(_) => Ok(None),
            Content::Extent(extent) => {
                let mut extent = extent.clone();
                Ok(self.extents(&mut [&mut extent])?.then_some(Content::Extent(extent)))
            }
            Content::Runs { tree, .. } => {
                if self.left == 0 {
                    return Ok(None);
                }
                let found = match self.volume.runs(tree, 0..tree.weight, Deadline::of_read()) {
                    Err(error) if error.is_of_what_was_read() => {
                        self.missed = Some(error);
                        return Ok(None);
                    }
                    other => other?,
                };
                let mut runs: Vec<Run> = found.into_iter().map(|(_, run)| run).collect();
                let extents = runs.iter_mut().filter_map(|run| match run {
                    Run::Data(extent) => Some(extent),
                    _ => None,
                });
                let changed = self.extents(&mut extents.collect::<Vec<_>>())?;
                if !changed && !self.is_old(&tree.node) {
                    return Ok(None);
                }
                let tree = tree::build(runs, self.writer).map_err(tree_error)?;
                let mut content = content.clone();
                if let Content::Runs { tree: old, .. } = &mut content {
                    *old = tree;
                }
                Ok(Some(content))
            }
        }
    }

    fn level(&self, tree: &TreeRef) -> Result<Level, PortError> {
        let entries = self.volume.entries(tree, Deadline::of_read())?;
        Ok(Level { entries, at: 0, changed: self.is_old(&tree.node) })
    }

    /// All below a directory, those that are deep down first: as deep as a tree may be, no stack is.
    fn tree(&mut self, content: &Content) -> Result<Option<Content>, PortError> {
        let Content::Directory(top) = content else { return Ok(None) };
        let mut levels = vec![self.level(top)?];
        while let Some(level) = levels.last_mut() {
            let Some(entry) = level.entries.get(level.at) else {
                let Some(Level { entries, changed, .. }) = levels.pop() else { break };
                let new = match changed {
                    true => Some(Content::Directory(tree::build(entries, self.writer).map_err(tree_error)?)),
                    false => None,
                };
                let Some(above) = levels.last_mut() else { return Ok(new) };
                above.put(new);
                continue;
            };
            let below = match &entry.target {
                Target::Inode(inode) => inode.content.clone(),
                Target::Link(_) | Target::Volume { .. } => Content::Empty,
            };
            if let Content::Directory(tree) = &below {
                match self.level(tree) {
                    Ok(below) => {
                        levels.push(below);
                        continue;
                    }
                    Err(error) if error.is_of_what_was_read() => self.missed = Some(error),
                    Err(error) => return Err(error),
                }
            }
            let new = self.content(&below)?;
            if let Some(level) = levels.last_mut() {
                level.put(new);
            }
        }
        Ok(None)
    }

    fn links(&mut self, links: &TreeRef) -> Result<Option<TreeRef>, PortError> {
        let mut rows = self.volume.link_entries(links, Deadline::of_read())?;
        let mut changed = self.is_old(&links.node);
        for row in &mut rows {
            if let Some(new) = self.content(&row.inode.content)? {
                row.inode.content = new;
                changed = true;
            }
        }
        if !changed {
            return Ok(None);
        }
        tree::build(rows, self.writer).map(Some).map_err(tree_error)
    }
}

impl Level {
    /// What the entry that is looked at has now; on to the next one.
    fn put(&mut self, new: Option<Content>) {
        if let (Some(new), Some(entry)) = (new, self.entries.get_mut(self.at))
            && let Target::Inode(inode) = &mut entry.target
        {
            inode.content = new;
            self.changed = true;
        }
        self.at += 1;
    }
}
