//! What was published before of what is in a cut: by it is known what has changed since, and what has not keeps its dots. What
//! others may have counts as published, though this device does not know whether it was: whoever has taken something of it away
//! has taken away what is in this cut, too.
//!
//! It tells only that. Everything else is in the cut, so a listing that nobody has any more costs its entries new dots, and
//! does not keep what is new from being stored. A file that got another name, in another directory or in the link table, is
//! the same one: only its name is new, and whoever has written to it elsewhere has not written beside it.

use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::id::FileId;
use hypernet_core::port::{InodeRow, PortError};
use hypernet_core::tree::{self, Content, Entry, Inode, LinkEntry, Root, Target, TreeRef};
use hypernet_fs::vfs::Cut;

use super::super::Volume;
use super::super::read::{Deadline, Nodes, tree_error};
use super::Base;

/// Entries of listings that are kept from the first look to the second one.
const KEPT_MAX: usize = 100_000;
/// Entries that are looked at below directories that are gone.
const GONE_MAX: usize = 100_000;

/// For how long something is waited for that only spares work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::volume) enum Patience {
    /// As for a read.
    Read,
    /// Only what is on this disk is looked at.
    Disk,
}

impl Patience {
    fn deadline(self) -> Deadline {
        match self {
            Self::Read => Deadline::of_read(),
            Self::Disk => Deadline::of_disk(),
        }
    }
}

/// The entries of a directory by name.
type Listing = BTreeMap<Vec<u8>, Entry>;

/// See the module.
pub(super) struct Before {
    /// For how long what was published is waited for.
    patience: Patience,
    kept: BTreeMap<u64, Listing>,
    /// What was published last of directories.
    published: BTreeMap<u64, TreeRef>,
    /// What had several names already.
    linked: BTreeMap<FileId, Inode>,
    /// What had another place.
    moved: BTreeMap<FileId, Inode>,
}

fn listing(volume: &Volume, ino: u64, tree: &TreeRef, patience: Patience) -> Result<Listing, PortError> {
    let read = readable(volume, tree, patience)?;
    if read.is_none() && patience == Patience::Read {
        tracing::warn!(ino, "the last listing of a directory cannot be read; its entries count as new");
    }
    Ok(read.unwrap_or_default())
}

/// The same, where it can be read.
fn readable(volume: &Volume, tree: &TreeRef, patience: Patience) -> Result<Option<Listing>, PortError> {
    match volume.entries(tree, patience.deadline()) {
        Ok(entries) => Ok(Some(entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect())),
        Err(error) if error.is_of_what_was_read() => {
            tracing::debug!(%error, "a listing cannot be read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What was published last of the directories of a cut whose entries are in it. Where the tree that others may have is another one
/// than that which they were found in, it is what that has of them, as far as it can be read.
fn published(
    volume: &Volume,
    cut: &Cut,
    root: Option<&Root>,
    patience: Patience,
) -> Result<BTreeMap<u64, TreeRef>, PortError> {
    let tree_of = |content: &Content| match content {
        Content::Directory(tree) => Some(tree.clone()),
        _ => None,
    };
    let whole = cut.directories.iter().filter(|directory| directory.entries.is_some());
    let found = |row: &InodeRow| Some((row.ino, row.remote.as_ref().and_then(tree_of)?));
    let mut published: BTreeMap<u64, TreeRef> = whole.clone().filter_map(|directory| found(&directory.row)).collect();
    let root = root.and_then(|root| tree_of(&root.inode.content)).filter(|tree| published.get(&cut.root) != Some(tree));
    let Some(root) = root else { return Ok(published) };
    if readable(volume, &root, patience)?.is_none() {
        return Ok(published);
    }
    published.insert(cut.root, root);
    let mut there: BTreeSet<u64> = [cut.root].into();
    let listed: BTreeSet<u64> = whole.map(|directory| directory.row.ino).collect();
    // Parents come after what is in them.
    for directory in cut.directories.iter().rev().filter(|directory| listed.contains(&directory.row.ino)) {
        let (ino, entries) = (directory.row.ino, directory.entries.iter().flatten());
        let below: BTreeMap<FileId, u64> = entries
            .filter(|entry| entry.volume.is_none() && listed.contains(&entry.ino))
            .map(|entry| (entry.inode.id(), entry.ino))
            .collect();
        let Some(tree) = published.get(&ino).filter(|_| there.contains(&ino) && !below.is_empty()) else { continue };
        for entry in listing(volume, ino, tree, patience)?.into_values() {
            if let Target::Inode(inode) = &entry.target
                && let Some(child) = below.get(&inode.id)
                && let Some(tree) = tree_of(&inode.content)
                && readable(volume, &tree, patience)?.is_some()
            {
                published.insert(*child, tree);
                there.insert(*child);
            }
        }
    }
    Ok(published)
}

impl Before {
    /// Looks at all that is in the cut.
    pub(super) fn look(volume: &Volume, cut: &Cut, base: &Base, patience: Patience) -> Result<Self, PortError> {
        let (kept, linked, moved) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let published = published(volume, cut, base.known(), patience)?;
        let mut before = Self { patience, kept, published, linked, moved };
        before.find_linked(volume, cut, base)?;
        let mut wanted: BTreeSet<FileId> = BTreeSet::new();
        let mut room = KEPT_MAX;
        for directory in &cut.directories {
            let Some(entries) = &directory.entries else { continue };
            let old = match before.published.get(&directory.row.ino) {
                Some(tree) => listing(volume, directory.row.ino, tree, patience)?,
                None => Listing::new(),
            };
            for entry in entries.iter().filter(|entry| entry.inode.is_published() && entry.volume.is_none()) {
                let is_here = |old: &&Entry| match &old.target {
                    Target::Inode(inode) => inode.id == entry.inode.id(),
                    Target::Link(id) => *id == entry.inode.id() && entry.inode.is_linked(),
                    Target::Volume { .. } => false,
                };
                if old.get(&*entry.name).filter(is_here).is_none() {
                    wanted.insert(entry.inode.id());
                }
            }
            if let Some(left) = room.checked_sub(old.len()) {
                room = left;
                before.kept.insert(directory.row.ino, old);
            }
        }
        wanted.extend(cut.linked.iter().filter(|row| row.remote.is_some()).map(|row| row.id));
        if !wanted.is_empty() {
            before.find(volume, cut, base.links(), wanted)?;
        }
        Ok(before)
    }

    /// Finds what the tree that others may have says of what has several names, where that is another one.
    fn find_linked(&mut self, volume: &Volume, cut: &Cut, base: &Base) -> Result<(), PortError> {
        let links = base.known().and_then(|root| root.links.as_ref());
        let Some(links) = links.filter(|links| Some(*links) != base.links()) else { return Ok(()) };
        for row in &cut.linked {
            let nodes = Nodes(volume, self.patience.deadline());
            match tree::find::<LinkEntry, _>(links, &nodes, &row.id).map_err(tree_error) {
                Ok(found) => self.linked.extend(found.map(|found| (row.id, found.inode))),
                Err(error) if error.is_of_what_was_read() => {
                    tracing::warn!(%error, "the last list of files with several names cannot be read; they count as new");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Finds where these were: in directories of the cut, in the link table, and below directories that are gone.
    fn find(
        &mut self,
        volume: &Volume,
        cut: &Cut,
        links: Option<&TreeRef>,
        mut wanted: BTreeSet<FileId>,
    ) -> Result<(), PortError> {
        let mut gone: Vec<TreeRef> = Vec::new();
        for directory in &cut.directories {
            let ino = directory.row.ino;
            let (Some(entries), Some(tree)) = (&directory.entries, self.published.get(&ino)) else { continue };
            let here: BTreeSet<FileId> = entries.iter().map(|entry| entry.inode.id()).collect();
            let read = match self.kept.get(&ino) {
                Some(_) => None,
                None => Some(listing(volume, ino, tree, self.patience)?),
            };
            let Some(old) = read.as_ref().or_else(|| self.kept.get(&ino)) else { continue };
            for entry in old.values() {
                let Target::Inode(inode) = &entry.target else { continue };
                if wanted.remove(&inode.id) {
                    self.moved.insert(inode.id, Inode::clone(inode));
                } else if let Content::Directory(tree) = &inode.content
                    && !here.contains(&inode.id)
                {
                    gone.push(tree.clone());
                }
            }
        }
        if let Some(links) = links {
            for id in wanted.clone() {
                let found = tree::find::<LinkEntry, _>(links, &Nodes(volume, self.patience.deadline()), &id);
                match found.map_err(tree_error) {
                    Ok(Some(row)) => {
                        wanted.remove(&id);
                        self.moved.insert(id, row.inode);
                    }
                    Ok(None) => {}
                    Err(error) if error.is_of_what_was_read() => {
                        tracing::warn!(%error, "the last list of files with several names cannot be read; they count as new");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let mut left = GONE_MAX;
        while let Some(tree) = gone.pop().filter(|_| !wanted.is_empty() && left > 0) {
            for entry in listing(volume, 0, &tree, self.patience)?.into_values() {
                left = left.saturating_sub(1);
                let Target::Inode(inode) = entry.target else { continue };
                if let Content::Directory(tree) = &inode.content {
                    gone.push(tree.clone());
                }
                if wanted.remove(&inode.id) {
                    self.moved.insert(inode.id, *inode);
                }
            }
        }
        Ok(())
    }

    /// What was published of a directory.
    pub(super) fn listing(&mut self, volume: &Volume, ino: u64) -> Result<Listing, PortError> {
        match (self.kept.remove(&ino), self.published.get(&ino)) {
            (Some(kept), _) => Ok(kept),
            (None, Some(tree)) => listing(volume, ino, tree, self.patience),
            (None, None) => Ok(Listing::new()),
        }
    }

    /// What others may have of a file that had several names.
    pub(super) fn linked(&self, id: FileId) -> Option<Inode> {
        self.linked.get(&id).cloned()
    }

    /// What was published of a file that had another place.
    pub(super) fn moved(&self, id: FileId) -> Option<Inode> {
        self.moved.get(&id).cloned()
    }
}
