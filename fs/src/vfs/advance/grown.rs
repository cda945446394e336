//! Files that others have changed while somebody here reads them.
//!
//! One that is open in passthrough, and whose new content begins with what is here, grows in place: whoever has it open reads on, as
//! `tail -f` does. Any other becomes a file of its own under the same name, as if it had been replaced by `rename`: whoever has it open
//! has what it was, until it is closed, and whoever opens it gets what it is. What is read through the kernel's cache does not grow: its
//! last page is there, with zeros after the old end, and whoever hears of the new size before that page is dropped would read those.
//!
//! Invariant: nobody writes to the file that is replaced. What is written to keeps the volume where it is.

use bytes::Bytes;
use hypernet_core::port::Local;
use hypernet_core::tree::{Content, Inode};

use super::super::node::Node;
use super::super::state::State;
use super::super::{Result, Vfs};
use super::Known;
use super::work::is_in_use;

/// A file that has grown by more is replaced: what it has grown by is held in memory.
const GROWTH_MAX: u64 = 8 << 20;

/// The same for all files of one step.
const GROWTHS_MAX: u64 = 32 << 20;

/// A file that is open, with what it holds and is to hold.
pub(super) struct Opened {
    pub(super) ino: u64,
    pub(super) was: Content,
    pub(super) is: Content,
}

/// What such a file has grown by.
pub(super) struct Grown {
    was: Content,
    is: Content,
    /// `None` where it is not the same, and more.
    by: Option<Vec<(u64, Bytes)>>,
}

impl Grown {
    fn is_of(&self, node: &Node, content: &Content) -> bool {
        node.remote.as_deref() == Some(&self.was) && *content == self.is
    }
}

/// Whether somebody reads a file, and nobody writes to it, whose content is to be another.
fn is_read(node: &Node, inode: &Inode) -> bool {
    node.is_file() && node.handles() > 0 && !is_in_use(node) && node.remote.as_deref() != Some(&inode.content)
}

/// Whether all who read it do so past the kernel's cache.
fn passes(node: &Node) -> bool {
    node.open.as_ref().is_some_and(|open| open.handles > 0 && !open.cached)
}

impl Known {
    /// A file of which it is to be found out whether it has grown.
    pub(super) fn asks(&self, state: &State, ino: u64, inode: &Inode) -> Option<Opened> {
        let node = state.nodes.get(&ino).filter(|node| is_read(node, inode))?;
        let is_known = self.grown.get(&ino).is_some_and(|grown| grown.is_of(node, &inode.content));
        let Local::Clean { size, .. } = node.local() else { return None };
        let growth = inode.content.size().checked_sub(size).filter(|growth| (1..=GROWTH_MAX).contains(growth));
        // A kernel that keeps sizes to itself would not read on.
        let may_grow = !is_known && growth.is_some() && !state.told_times && passes(node);
        let was = node.remote.as_deref().filter(|_| may_grow)?;
        Some(Opened { ino, was: was.clone(), is: inode.content.clone() })
    }

    /// Whether a file that is open has grown by what has come from the mesh.
    pub(super) fn has_grown(&self, node: &Node, ino: u64, inode: &Inode) -> bool {
        let grown = self.grown.get(&ino).filter(|grown| grown.by.is_some() && grown.is_of(node, &inode.content));
        grown.is_some() && is_read(node, inode) && passes(node) && matches!(node.local(), Local::Clean { .. })
    }

    /// Whether a file leaves its name to another one.
    pub(super) fn is_replaced(&self, node: &Node, ino: u64, inode: &Inode) -> bool {
        let is_another = node.is_file() && node.remote.as_deref() != Some(&inode.content);
        let is_left = self.kept.contains(&ino) && !is_in_use(node) && !node.linked;
        is_another && (is_left || is_read(node, inode)) && !self.has_grown(node, ino, inode)
    }

    /// What a file has grown by.
    pub(super) fn growth(&self, ino: u64) -> &[(u64, Bytes)] {
        self.grown.get(&ino).and_then(|grown| grown.by.as_deref()).unwrap_or_default()
    }
}

impl Vfs {
    /// Finds out what a file has grown by. No lock is held. What it held and is to hold need not be had from the mesh for the volume to
    /// move on: where that fails once, whatever is open is replaced.
    pub(super) fn look_for_growth(&self, opened: Opened, known: &mut Known) {
        let Opened { ino, was, is } = opened;
        let held = known.grown.values().flat_map(|grown| grown.by.iter().flatten());
        let held = held.map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        let by = match known.has_failed {
            true => Ok(None),
            false => self.grown_by(ino, &was, &is, GROWTHS_MAX.saturating_sub(held)),
        };
        let by = by.unwrap_or_else(|error| {
            tracing::debug!(ino, %error, "it is not known whether a file has grown");
            known.has_failed = true;
            None
        });
        known.grown.insert(ino, Grown { was, is, by });
    }

    /// The extents from where the two differ, where that is no more than `max` bytes and the file here goes on as they do.
    fn grown_by(&self, ino: u64, was: &Content, is: &Content, max: u64) -> Result<Option<Vec<(u64, Bytes)>>> {
        let (from, size) = (self.remote.common(was, is)?.min(was.size()), was.size());
        if is.size() - from > max {
            return Ok(None);
        }
        let extents = self.remote.read(is, from..is.size())?;
        let Some(file) = self.backing.get(ino)? else { return Ok(None) };
        let mut here = vec![0; (size - from) as usize];
        match std::os::unix::fs::FileExt::read_exact_at(&*file, &mut here, from) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        // What no extent covers is a hole.
        let mut there = vec![0; here.len()];
        for (at, bytes) in &extents {
            let skip = from.saturating_sub(*at) as usize;
            let to = at.saturating_sub(from) as usize;
            if let (Some(bytes), Some(room)) = (bytes.get(skip..), there.get_mut(to..)) {
                let len = bytes.len().min(room.len());
                room[..len].copy_from_slice(&bytes[..len]);
            }
        }
        Ok((here == there).then_some(extents))
    }
}
