//! Reading directories, from a snapshot that is taken when one is opened or rewound: what others add or remove
//! meanwhile never makes an entry come twice or be left out.

use std::collections::HashMap;
use std::sync::Arc;

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
}

/// All entries of a directory at one moment, `.` and `..` first.
pub type DirSnapshot = Arc<[DirItem]>;

/// Open directories.
#[derive(Debug, Default)]
pub(super) struct Handles {
    next: u64,
    open: HashMap<u64, (u64, Option<DirSnapshot>)>,
}

impl Vfs {
    /// Opens a directory; its entries are read with the handle.
    pub fn opendir(&self, ino: u64) -> Result<u64> {
        self.run(|state| {
            let node = state.node_mut(ino)?;
            if !node.is_dir() {
                return Err(VfsError::NotDirectory.into());
            }
            node.open.get_or_insert_default().handles += 1;
            Ok(())
        })?;
        let mut dirs = self.dirs.lock();
        dirs.next += 1;
        let handle = dirs.next;
        dirs.open.insert(handle, (ino, None));
        Ok(handle)
    }

    /// The entries as they were when the directory was opened or rewound. Offset 0 takes a new snapshot.
    pub fn readdir(&self, handle: u64, offset: u64) -> Result<DirSnapshot> {
        let (ino, held) = self.dirs.lock().open.get(&handle).cloned().ok_or(VfsError::BadHandle)?;
        if offset > 0
            && let Some(snapshot) = held
        {
            return Ok(snapshot);
        }
        let snapshot = self.snapshot(ino)?;
        if let Some(open) = self.dirs.lock().open.get_mut(&handle) {
            open.1 = Some(snapshot.clone());
        }
        Ok(snapshot)
    }

    fn snapshot(&self, dir: u64) -> Result<DirSnapshot> {
        self.run(|state| {
            let parent = match state.node(dir)?.parent {
                0 => ROOT,
                parent => parent,
            };
            let entries = state.entries(dir)?;
            let mut items = Vec::with_capacity(entries.len() + 2);
            for (name, ino) in [(b".".as_slice(), dir), (b"..", parent)] {
                items.push(DirItem { name: name.into(), ino, kind: FileKind::Directory });
            }
            for (name, ino) in entries {
                let kind = state.nodes.get(ino).ok_or(Need::Dir(dir))?.kind;
                items.push(DirItem { name: name.clone(), ino: *ino, kind });
            }
            Ok(items.into())
        })
    }

    /// Attributes for an entry of a snapshot; `None` when it has gone since. Where they are not to be had, ones that
    /// nobody may keep: the entry is listed, and who wants to know more of it asks, and is told.
    pub fn item_attr(&self, item: &DirItem) -> Option<Attr> {
        match patience::never(|| self.getattr(item.ino)) {
            Ok(attr) => Some(attr),
            Err(VfsError::NotFound) => None,
            Err(_) => Some(Attr {
                ino: item.ino,
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

    /// Closes a directory.
    pub fn releasedir(&self, handle: u64) -> Result<()> {
        let (ino, _) = self.dirs.lock().open.remove(&handle).ok_or(VfsError::BadHandle)?;
        self.run(|state| {
            let node = state.node_mut(ino)?;
            let Some(open) = node.open.as_mut() else { return Err(VfsError::BadHandle.into()) };
            open.handles = open.handles.saturating_sub(1);
            if open.handles == 0 {
                node.open = None;
                if node.nlink == 0 {
                    state.bury(ino);
                }
            }
            Ok(())
        })
    }

    /// Returns when the entries and attributes of a directory are on stable storage.
    pub fn fsyncdir(&self, ino: u64) -> Result<()> {
        patience::check(Wait::Disk)?;
        let needs = self.run(|state| Ok(state.node(ino)?.needs))?;
        self.commit_through(needs)
    }
}
