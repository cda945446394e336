//! Reading directories, without handles: the kernel opens and closes them on its own, which saves two messages each
//! time, and asks with an inode and an offset.
//!
//! So an entry's offset must not depend on the other entries: it is a hash of the name, as in ext4, and entries are
//! listed in that order. A listing that goes on from an offset is the one that somebody began last, of the same
//! directory, or a new one: either has all entries that were there from the beginning of any listing under way, and none
//! twice.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hypernet_core::limits::FS_LISTINGS_MAX;
use hypernet_core::time::Timespec;
use hypernet_core::tree::FileKind;

use super::node::ROOT;
use super::patience::{self, Wait};
use super::state::Need;
use super::{Attr, Result, Vfs, VfsError};

/// An entry of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirItem {
    /// Name.
    pub name: Box<[u8]>,
    /// Inode.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    /// Where it stands in a listing, from 1. A name has the same one as long as the filesystem is open.
    pub offset: u64,
}

/// All entries of a directory at one moment, by offset, `.` and `..` first.
pub type DirSnapshot = Arc<[DirItem]>;

/// What comes after `offset` in a listing.
pub fn after(snapshot: &[DirItem], offset: u64) -> &[DirItem] {
    &snapshot[snapshot.partition_point(|item| item.offset <= offset)..]
}

/// The offset of `..`; all names come after it.
const PARENT: u64 = 2;

/// Puts entries in order.
fn order(items: &mut [DirItem], hasher: &RandomState) {
    for item in items.iter_mut() {
        item.offset = match &*item.name {
            b"." => 1,
            b".." => PARENT,
            // Programs take offsets for signed numbers, and room is left for what follows.
            name => (hasher.hash_one(name) >> 2).max(PARENT + 1),
        };
    }
    items.sort_unstable_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
    for at in 1..items.len() {
        // Of 62 bits two are equal in one of ten million directories with a million entries.
        items[at].offset = items[at].offset.max(items[at - 1].offset + 1);
    }
}

/// Listings that are kept while somebody goes on with them.
#[derive(Debug, Default)]
pub(super) struct Listings {
    /// By directory; what was asked for last comes last.
    kept: VecDeque<(u64, DirSnapshot)>,
    hasher: RandomState,
}

impl Listings {
    fn take(&mut self, ino: u64) -> Option<DirSnapshot> {
        let at = self.kept.iter().position(|(dir, _)| *dir == ino)?;
        self.kept.remove(at).map(|(_, snapshot)| snapshot)
    }

    fn keep(&mut self, ino: u64, snapshot: DirSnapshot) {
        self.take(ino);
        if self.kept.len() >= FS_LISTINGS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((ino, snapshot));
    }
}

impl Vfs {
    /// The entries of a directory, of which those [`after`] the offset are asked for. Offset 0 begins anew.
    pub fn readdir(&self, ino: u64, offset: u64) -> Result<DirSnapshot> {
        let (kept, hasher) = {
            let mut listings = self.listings.lock();
            (listings.take(ino).filter(|_| offset > 0), listings.hasher.clone())
        };
        let snapshot = match kept {
            Some(snapshot) => snapshot,
            None => {
                let mut items = self.items(ino)?;
                order(&mut items, &hasher);
                DirSnapshot::from(items)
            }
        };
        // Whoever finds the end asks for no more.
        if !after(&snapshot, offset).is_empty() {
            self.listings.lock().keep(ino, snapshot.clone());
        }
        Ok(snapshot)
    }

    fn items(&self, dir: u64) -> Result<Vec<DirItem>> {
        self.run(|state| {
            let own = [(b".".as_slice(), dir), (b"..", ROOT)];
            let item =
                |(name, ino): (&[u8], u64)| DirItem { name: name.into(), ino, kind: FileKind::Directory, offset: 0 };
            if state.node(dir)?.nlink == 0 {
                return Ok(own.map(item).into());
            }
            let parent = match state.node(dir)?.parent {
                0 => ROOT,
                parent => parent,
            };
            let entries = state.entries(dir)?;
            let mut items = Vec::with_capacity(entries.len() + 2);
            items.extend([own[0], (b"..", parent)].map(item));
            for (name, ino) in entries {
                let kind = state.nodes.get(ino).ok_or(Need::Dir(dir))?.kind;
                items.push(DirItem { name: name.clone(), ino: *ino, kind, offset: 0 });
            }
            Ok(items)
        })
    }

    /// What an entry of a snapshot of `dir` leads to by now; `None` when it has gone since. The kernel takes the answer for
    /// that to a look-up, so it must be right at this moment, in which nobody changes the names of the directory: whoever
    /// lists it has the kernel keep the others out. Where attributes are not to be had, ones that nobody may keep: the
    /// entry is listed, and who wants to know more of it asks, and is told.
    pub fn item_now(&self, dir: u64, item: &DirItem) -> Option<Attr> {
        let now = || match &*item.name {
            b"." | b".." => Ok(Some(item.ino)),
            name => self.run(|state| Ok(state.entries(dir)?.get(name).copied())),
        };
        let ino = match patience::never(now) {
            Ok(ino) => ino?,
            Err(VfsError::NotFound) => return None,
            Err(_) => item.ino,
        };
        match patience::never(|| self.getattr(ino)) {
            Ok(attr) => Some(attr),
            Err(VfsError::NotFound) => None,
            Err(_) => Some(Attr {
                ino,
                kind: item.kind,
                mode: 0,
                nlink: 1,
                uid: 0,
                gid: 0,
                rdev: 0,
                size: 0,
                blocks: 0,
                atime: Timespec::default(),
                mtime: Timespec::default(),
                ctime: Timespec::default(),
                volatile: true,
            }),
        }
    }

    /// Returns when the entries and attributes of a directory are on stable storage.
    pub fn fsyncdir(&self, ino: u64) -> Result<()> {
        patience::check(Wait::Disk)?;
        let needs = self.run(|state| Ok(state.node(ino)?.needs))?;
        self.commit_through(needs)?;
        self.run(|state| state.moves(ino))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: impl Iterator<Item = String>, hasher: &RandomState) -> Vec<DirItem> {
        let item = |name: &str| DirItem { name: name.as_bytes().into(), ino: 1, kind: FileKind::Regular, offset: 0 };
        let mut items: Vec<_> = [item("."), item("..")].into_iter().chain(names.map(|name| item(&name))).collect();
        order(&mut items, hasher);
        items
    }

    #[test]
    fn an_offset_belongs_to_a_name_and_not_to_a_listing() {
        let hasher = RandomState::new();
        let all = listed((0..5_000).map(|n| n.to_string()), &hasher);
        assert_eq!((&*all[0].name, &*all[1].name), (b".".as_slice(), b"..".as_slice()));
        assert!(all.is_sorted_by(|a, b| a.offset < b.offset) && i64::try_from(all[all.len() - 1].offset).is_ok());
        let odd = listed((0..5_000).filter(|n| n % 2 == 1).map(|n| n.to_string()), &hasher);
        let offsets: std::collections::HashMap<_, _> =
            all.iter().map(|item| (item.name.clone(), item.offset)).collect();
        assert!(odd.iter().all(|item| offsets[&item.name] == item.offset));
        for at in [0, 1, 2, 1_000, all.len() - 1] {
            assert_eq!(after(&all, all[at].offset), &all[at + 1..]);
        }
        assert_eq!(after(&all, 0), &all[..]);
    }

    #[test]
    fn names_with_the_same_hash_are_all_listed() {
        let item = |name: &str| DirItem { name: name.as_bytes().into(), ino: 1, kind: FileKind::Regular, offset: 0 };
        // The same name stands for two with the same hash.
        let mut items = [item("same"), item("."), item("same"), item(".."), item("same")];
        order(&mut items, &RandomState::new());
        assert!(items.is_sorted_by(|a, b| a.offset < b.offset));
    }
}
