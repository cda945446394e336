//! Operations on names: lookup, create, link, unlink, rename.

use hypernet_core::id::FileId;
use hypernet_core::limits::SYMLINK_MAX;
use hypernet_core::port::{InodeRow, Local};
use hypernet_core::tree::FileKind;

use super::node::{Node, ROOT};
use super::state::{State, Step, check_name, now};
use super::{Attr, Caller, Result, Vfs, VfsError, acl};

const SETGID: u32 = 0o2000;

/// Most names an inode can have, as on ext4.
const LINKS_MAX: u32 = 65_000;

/// How `rename` treats the new name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameFlags {
    /// What the new name leads to is replaced.
    #[default]
    Replace,
    /// The new name must be free.
    NoReplace,
    /// Both names must exist and change places.
    Exchange,
}

/// What a new inode is.
struct New<'a> {
    kind: FileKind,
    mode: u32,
    rdev: u64,
    symlink: &'a [u8],
}

impl Vfs {
    /// The inode behind a name.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr> {
        self.run(|state| match name {
            b"." => self.attr_of(state, parent),
            b".." => {
                let up = state.node(parent)?.parent;
                self.attr_of(state, if up == 0 { ROOT } else { up })
            }
            _ if name.len() > hypernet_core::limits::NAME_MAX => Err(VfsError::NameTooLong.into()),
            _ => {
                let ino = state.child(parent, name)?.ok_or(VfsError::NotFound)?;
                self.attr_of(state, ino)
            }
        })
    }

    /// The inode at a path from the root; symlinks are not followed.
    pub fn resolve(&self, path: impl AsRef<std::path::Path>) -> Result<u64> {
        use std::os::unix::ffi::OsStrExt;
        use std::path::Component;
        let (mut at, below) = self.in_branch(path.as_ref())?.unwrap_or((ROOT, path.as_ref()));
        for part in below.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir => at = self.lookup(at, b"..")?.ino,
                Component::Normal(name) => at = self.lookup(at, name.as_bytes())?.ino,
                Component::Prefix(_) => return Err(VfsError::Invalid),
            }
        }
        Ok(at)
    }

    fn make(&self, state: &mut State, caller: Caller, parent: u64, name: &[u8], new: &New<'_>) -> Step<u64> {
        check_name(name)?;
        state.moves(parent)?;
        state.writable(parent)?;
        let dir = state.live_dir(parent)?;
        let (dir_mode, dir_gid) = (dir.mode, dir.gid);
        if state.entries(parent)?.contains_key(name) {
            return Err(VfsError::Exists.into());
        }
        let is_dir = new.kind == FileKind::Directory;
        let (mut mode, xattrs) = acl::inherit(state.node(parent)?, new.kind, new.mode & 0o7777, caller.umask)?;
        let inherits = dir_mode & SETGID != 0;
        if inherits && is_dir {
            mode |= SETGID;
        }
        let ino = state.alloc_ino();
        let time = now();
        let node = Node::from_row(InodeRow {
            ino,
            id: FileId::new(self.config.device, ino),
            kind: new.kind,
            mode,
            uid: caller.uid,
            gid: if inherits { dir_gid } else { caller.gid },
            rdev: new.rdev,
            nlink: if is_dir { 2 } else { 1 },
            size: new.symlink.len() as u64,
            atime: time,
            mtime: time,
            ctime: time,
            xattrs,
            symlink: new.symlink.to_vec(),
            parent,
            linked: false,
            volume: None,
            dirty: true,
            remote: None,
            local: Local::Complete,
        });
        state.insert(ino, node);
        if is_dir {
            if let Some(dir) = state.node_mut(ino)?.dir.as_mut() {
                dir.entries = Some(super::node::Entries::new());
            }
            state.add_links(parent, 1);
        }
        state.add_name(parent, name, ino)?;
        state.queue_needed(ino);
        state.entries_changed(parent);
        state.touch(ino);
        Ok(ino)
    }

    fn make_and_stat(&self, caller: Caller, parent: u64, name: &[u8], new: &New<'_>) -> Result<Attr> {
        self.run_mut(|state| {
            let ino = self.make(state, caller, parent, name, new)?;
            self.attr_of(state, ino)
        })
    }

    /// Makes a regular file, a pipe, a socket or a device node. `mode` has the type bits too, as for `mknod(2)`.
    pub fn mknod(&self, caller: Caller, parent: u64, name: &[u8], mode: u32, rdev: u64) -> Result<Attr> {
        let kind = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => FileKind::Regular,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            _ => return Err(VfsError::Invalid),
        };
        let rdev = if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) { rdev } else { 0 };
        self.make_and_stat(caller, parent, name, &New { kind, mode, rdev, symlink: b"" })
    }

    /// Makes a directory.
    pub fn mkdir(&self, caller: Caller, parent: u64, name: &[u8], mode: u32) -> Result<Attr> {
        self.make_and_stat(caller, parent, name, &New { kind: FileKind::Directory, mode, rdev: 0, symlink: b"" })
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, caller: Caller, parent: u64, name: &[u8], target: &[u8]) -> Result<Attr> {
        match target.len() {
            0 => return Err(VfsError::NotFound),
            len if len > SYMLINK_MAX => return Err(VfsError::NameTooLong),
            _ => {}
        }
        self.make_and_stat(
            caller,
            parent,
            name,
            &New { kind: FileKind::Symlink, mode: 0o777, rdev: 0, symlink: target },
        )
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        self.run(|state| {
            let node = state.node(ino)?;
            match (node.kind, &node.rare) {
                (FileKind::Symlink, Some(rare)) => Ok(rare.symlink.to_vec()),
                _ => Err(VfsError::Invalid.into()),
            }
        })
    }

    /// Gives an inode another name.
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        self.run_mut(|state| {
            check_name(name)?;
            state.moves(parent)?;
            let node = state.node(ino)?;
            if node.is_dir() {
                return Err(VfsError::NotPermitted.into());
            }
            if node.nlink == 0 {
                return Err(VfsError::NotFound.into());
            }
            if node.nlink >= LINKS_MAX {
                return Err(VfsError::TooManyLinks.into());
            }
            state.live_dir(parent)?;
            if state.entries(parent)?.contains_key(name) {
                return Err(VfsError::Exists.into());
            }
            state.within_one(ino, parent)?;
            state.writable(parent)?;
            let root = state.root_of(parent)?;
            let (first, was_linked) = {
                let node = state.node(ino)?;
                (node.parent, node.linked)
            };
            if !was_linked {
                // The record moves from the entry to the link table, so the entry changes too.
                state.touch(first);
                state.queue(first);
            }
            state.relink(ino, root);
            state.add_links(ino, 1);
            state.add_name(parent, name, ino)?;
            state.changed(ino);
            state.entries_changed(parent);
            self.attr_of(state, ino)
        })
    }

    /// One name less; at the last one the inode goes with its last handle.
    fn drop_name(&self, state: &mut State, ino: u64) {
        state.add_links(ino, -1);
        if state.nodes.get(&ino).is_some_and(|node| node.linked) {
            state.note_relinked();
        }
        if state.nodes.get(&ino).is_some_and(|node| node.nlink > 0) {
            state.changed(ino);
        } else {
            if let Some(node) = state.nodes.get_mut(&ino) {
                node.set_ctime(now());
            }
            state.orphaned(ino);
        }
    }

    /// Removes a name of something that is not a directory.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.run_mut(|state| {
            check_name(name)?;
            state.moves(parent)?;
            state.writable(parent)?;
            let ino = state.child(parent, name)?.ok_or(VfsError::NotFound)?;
            if state.node(ino)?.is_dir() {
                return Err(VfsError::IsDirectory.into());
            }
            state.remove_name(parent, name)?;
            self.drop_name(state, ino);
            state.entries_changed(parent);
            Ok(())
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.run_mut(|state| {
            match name {
                b"." => return Err(VfsError::Invalid.into()),
                b".." => return Err(VfsError::NotEmpty.into()),
                _ => check_name(name)?,
            }
            state.moves(parent)?;
            state.writable(parent)?;
            let ino = state.child(parent, name)?.ok_or(VfsError::NotFound)?;
            state.no_root(ino)?;
            if !state.entries(ino)?.is_empty() {
                return Err(VfsError::NotEmpty.into());
            }
            state.remove_name(parent, name)?;
            state.orphaned(ino);
            state.add_links(parent, -1);
            state.entries_changed(parent);
            Ok(())
        })
    }

    /// Moves a name.
    pub fn rename(&self, parent: u64, name: &[u8], to: u64, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        self.run_mut(|state| {
            check_name(name)?;
            check_name(to_name)?;
            state.moves(parent)?;
            let ino = state.child(parent, name)?.ok_or(VfsError::NotFound)?;
            state.live_dir(to)?;
            state.within_one(parent, to)?;
            state.writable(parent)?;
            let target = state.child(to, to_name)?;
            if flags == RenameFlags::NoReplace && target.is_some() {
                return Err(VfsError::Exists.into());
            }
            if target == Some(ino) {
                return Ok(());
            }
            let is_dir = state.node(ino)?.is_dir();
            if is_dir && state.is_ancestor(ino, to)? {
                return Err(VfsError::Invalid.into());
            }
            match (flags, target) {
                (RenameFlags::Exchange, Some(target)) => {
                    self.exchange(state, (parent, name, ino), (to, to_name, target))
                }
                (RenameFlags::Exchange, None) => Err(VfsError::NotFound.into()),
                (_, target) => {
                    if let Some(target) = target {
                        check_replaceable(state, is_dir, target)?;
                        state.remove_name(to, to_name)?;
                        if is_dir {
                            state.orphaned(target);
                            state.add_links(to, -1);
                        } else {
                            self.drop_name(state, target);
                        }
                    }
                    state.remove_name(parent, name)?;
                    state.add_name(to, to_name, ino)?;
                    self.moved(state, ino, parent, to)?;
                    state.entries_changed(parent);
                    state.entries_changed(to);
                    Ok(())
                }
            }
        })
    }

    fn exchange(&self, state: &mut State, a: (u64, &[u8], u64), b: (u64, &[u8], u64)) -> Step<()> {
        if state.node(b.2)?.is_dir() && state.is_ancestor(b.2, a.0)? {
            return Err(VfsError::Invalid.into());
        }
        state.add_name(a.0, a.1, b.2)?;
        state.add_name(b.0, b.1, a.2)?;
        self.moved(state, a.2, a.0, b.0)?;
        self.moved(state, b.2, b.0, a.0)?;
        state.entries_changed(a.0);
        state.entries_changed(b.0);
        Ok(())
    }

    /// What a move changes besides the names.
    fn moved(&self, state: &mut State, ino: u64, from: u64, to: u64) -> Step<()> {
        let node = state.node(ino)?;
        let (is_dir, linked) = (node.is_dir(), node.linked);
        if from != to {
            if linked || is_dir {
                state.note_relinked();
            }
            if !linked {
                state.set_parent(ino, to);
            }
            if is_dir {
                state.add_links(from, -1);
                state.add_links(to, 1);
            }
        }
        // The name of a root is not its own volume's.
        if state.vacant(ino).is_some() || state.writable(ino).is_err() {
            state.queue_needed(ino);
        } else {
            state.changed(ino);
        }
        Ok(())
    }
}

fn check_replaceable(state: &State, source_is_dir: bool, target: u64) -> Step<()> {
    state.no_root(target)?;
    match (source_is_dir, state.node(target)?.is_dir()) {
        (true, false) => Err(VfsError::NotDirectory.into()),
        (false, true) => Err(VfsError::IsDirectory.into()),
        (true, true) if !state.entries(target)?.is_empty() => Err(VfsError::NotEmpty.into()),
        _ => Ok(()),
    }
}
