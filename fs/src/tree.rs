//! What the kernel sees of one mount: the working tree from some root on, and what is [beside](crate::past) it.
//!
//! A mount begins with inode 1, and the working tree has several trees. So the root that is mounted and [`ROOT`] have each other's
//! number there: [`Tree::turn`] is its own inverse. What of the tree another mount has been told, and has open, is no business of this
//! one: each knows what is its own, and gives it back when it ends ([`Tree::give_back`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypernet_core::id::{SnapshotId, VolumeId};
use parking_lot::Mutex;

use crate::past::{NAME, Past, Snapshots, is_past};
use crate::vfs::{
    Attr, BRANCHES, Caller, DirItem, DirSnapshot, OpenFlags, Opened, ROOT, RenameFlags, Result, SetAttr, Vfs, VfsError,
    Whence, XattrFlags,
};

#[cfg(test)]
mod tests;

/// What a mount was told of the working tree, and has open.
#[derive(Debug, Default)]
struct Own {
    told: HashMap<u64, u64>,
    open: HashMap<u64, Vec<OpenFlags>>,
}

/// See the module.
pub struct Tree {
    vfs: Arc<Vfs>,
    past: Past,
    /// The root that is mounted.
    top: AtomicU64,
    own: Mutex<Own>,
}

/// Whatever would change something.
fn now(inos: &[u64]) -> Result<()> {
    if inos.iter().any(|ino| is_past(*ino)) { Err(VfsError::ReadOnlyVolume) } else { Ok(()) }
}

impl Tree {
    /// The working tree from this root on, with the past that comes from there.
    pub fn new(vfs: Arc<Vfs>, snapshots: Option<Arc<dyn Snapshots>>, top: u64) -> Self {
        let past = Past::new(vfs.clone(), snapshots);
        Self { vfs, past, top: AtomicU64::new(top), own: Mutex::default() }
    }

    /// A snapshot of a volume, and nothing else. What is to be known of it may lie on the mesh.
    pub fn of_snapshot(
        vfs: Arc<Vfs>,
        snapshots: Arc<dyn Snapshots>,
        volume: VolumeId,
        snapshot: SnapshotId,
    ) -> Result<Self> {
        let tree = Self::new(vfs, Some(snapshots), ROOT);
        tree.top.store(tree.past.top(volume, snapshot)?, Ordering::SeqCst);
        Ok(tree)
    }

    /// The working tree that this is of.
    pub fn vfs(&self) -> &Arc<Vfs> {
        &self.vfs
    }

    /// The root that is mounted.
    pub fn top(&self) -> u64 {
        self.top.load(Ordering::SeqCst)
    }

    /// Mounts another root from now on. What the kernel has of both roots is void: it is told by whoever calls this.
    pub fn switch(&self, top: u64) {
        self.top.store(top, Ordering::SeqCst);
    }

    /// The number that the kernel has for an inode, and the inode that it means by a number.
    pub fn turn(&self, ino: u64) -> u64 {
        let top = self.top();
        match ino {
            ROOT => top,
            _ if ino == top => ROOT,
            other => other,
        }
    }

    /// Whether what has this name is none of the working tree, if it is there.
    pub fn is_beside(&self, parent: u64, name: &[u8]) -> bool {
        is_past(self.turn(parent)) || name == NAME || name == BRANCHES.as_bytes()
    }

    fn seen(&self, attr: Attr) -> Attr {
        Attr { ino: self.turn(attr.ino), ..attr }
    }

    fn note_told(&self, ino: u64) {
        *self.own.lock().told.entry(ino).or_default() += 1;
    }

    fn note_open(&self, ino: u64, flags: OpenFlags) {
        self.own.lock().open.entry(ino).or_default().push(flags);
    }

    fn note_closed(&self, ino: u64, flags: OpenFlags) {
        let mut own = self.own.lock();
        let Some(open) = own.open.get_mut(&ino) else { return };
        if let Some(at) = open.iter().position(|other| other.0 == flags.0) {
            open.swap_remove(at);
        }
        if open.is_empty() {
            own.open.remove(&ino);
        }
    }

    /// The mount has ended, and others have not: what its kernel knew it has forgotten, and what was open is closed.
    /// `passed_through`: the kernel had the backing files.
    pub fn give_back(&self, passed_through: bool) {
        let Own { told, open } = std::mem::take(&mut *self.own.lock());
        for (ino, flags) in open.into_iter().flat_map(|(ino, all)| all.into_iter().map(move |flags| (ino, flags))) {
            let closed = match passed_through {
                true => self.vfs.release_passed_through(ino, flags),
                false => self.vfs.release(ino, flags),
            };
            if let Err(error) = closed {
                tracing::debug!(ino, %error, "a file was closed already");
            }
        }
        told.into_iter().for_each(|(ino, times)| self.vfs.forget(ino, times));
    }
}

/// What the kernel asks: as [`Vfs`] has it.
impl Tree {
    /// See [`Vfs::lookup`]. What it finds beside the working tree the kernel is told of.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr> {
        let parent = self.turn(parent);
        let found = match is_past(parent) {
            true => self.past.lookup(parent, name),
            false => match self.vfs.lookup(parent, name) {
                Err(VfsError::NotFound) => self.past.beside(parent, self.top(), name),
                found => found,
            },
        };
        found.map(|attr| self.seen(attr))
    }

    /// See [`Vfs::told`].
    pub fn told(&self, ino: u64) {
        let ino = self.turn(ino);
        if !is_past(ino) {
            self.vfs.told(ino);
            self.note_told(ino);
        }
    }

    /// See [`Vfs::tell`].
    pub fn tell(&self, answer: Result<Attr>) -> Result<Attr> {
        answer.inspect(|attr| self.told(attr.ino))
    }

    /// See [`Vfs::tell_found`].
    pub fn tell_found<T>(&self, look: impl Fn() -> T, ino: impl Fn(&T) -> Option<u64>) -> T {
        let inside = |found: &T| ino(found).map(|ino| self.turn(ino)).filter(|ino| !is_past(*ino));
        let found = self.vfs.tell_found(look, inside);
        inside(&found).into_iter().for_each(|ino| self.note_told(ino));
        found
    }

    /// See [`Vfs::forget`].
    pub fn forget(&self, ino: u64, times: u64) {
        let ino = self.turn(ino);
        if is_past(ino) {
            return self.past.forget(ino, times);
        }
        {
            let mut own = self.own.lock();
            if let Some(told) = own.told.get_mut(&ino) {
                *told = told.saturating_sub(times);
                if *told == 0 {
                    own.told.remove(&ino);
                }
            }
        }
        self.vfs.forget(ino, times);
    }

    /// See [`Vfs::getattr`].
    pub fn getattr(&self, ino: u64) -> Result<Attr> {
        let ino = self.turn(ino);
        let found = if is_past(ino) { self.past.getattr(ino) } else { self.vfs.getattr(ino) };
        found.map(|attr| self.seen(attr))
    }

    /// See [`Vfs::readlink`].
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        if is_past(ino) { self.past.readlink(ino) } else { self.vfs.readlink(ino) }
    }

    /// See [`Vfs::open_file`].
    pub fn open_file(&self, caller: Caller, ino: u64, flags: OpenFlags, passthrough: bool) -> Result<Opened> {
        let ino = self.turn(ino);
        if !is_past(ino) {
            let opened = self.vfs.open_file(caller, ino, flags, passthrough)?;
            self.note_open(ino, flags);
            return Ok(opened);
        }
        if flags.writes() {
            return Err(VfsError::ReadOnlyVolume);
        }
        self.past.open(ino)?;
        Ok(Opened::default())
    }

    /// See [`Vfs::read_through_cache`].
    pub fn read_through_cache(&self, ino: u64) {
        let ino = self.turn(ino);
        if !is_past(ino) {
            self.vfs.read_through_cache(ino);
        }
    }

    /// See [`Vfs::read`].
    pub fn read(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let ino = self.turn(ino);
        if is_past(ino) { self.past.read(ino, offset, buf) } else { self.vfs.read(ino, offset, buf) }
    }

    /// See [`Vfs::release`].
    pub fn release(&self, ino: u64, flags: OpenFlags) -> Result<()> {
        if is_past(ino) {
            return Ok(());
        }
        self.note_closed(ino, flags);
        self.vfs.release(ino, flags)
    }

    /// See [`Vfs::release_passed_through`].
    pub fn release_passed_through(&self, ino: u64, flags: OpenFlags) -> Result<()> {
        if is_past(ino) {
            return Ok(());
        }
        self.note_closed(ino, flags);
        self.vfs.release_passed_through(ino, flags)
    }

    /// See [`Vfs::readdir`]. The numbers in it are those of the tree: see [`Self::turn`].
    pub fn readdir(&self, ino: u64, offset: u64) -> Result<DirSnapshot> {
        let ino = self.turn(ino);
        if is_past(ino) { self.past.readdir(ino, offset) } else { self.vfs.readdir(ino, offset) }
    }

    /// See [`Vfs::item_now`]. The kernel is told of what is beside the working tree.
    pub fn item_now(&self, dir: u64, item: &DirItem) -> Option<Attr> {
        let dir = self.turn(dir);
        let found = if is_past(dir) { self.past.item_now(dir, item) } else { self.vfs.item_now(dir, item) };
        found.map(|attr| self.seen(attr))
    }

    /// See [`Vfs::getxattr`].
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        let ino = self.turn(ino);
        if is_past(ino) { self.past.getxattr(ino, name) } else { self.vfs.getxattr(ino, name) }
    }

    /// See [`Vfs::listxattr`].
    pub fn listxattr(&self, caller: Caller, ino: u64) -> Result<Vec<u8>> {
        let ino = self.turn(ino);
        if is_past(ino) { self.past.listxattr(caller.uid == 0, ino) } else { self.vfs.listxattr(caller, ino) }
    }

    /// See [`Vfs::lseek`].
    pub fn lseek(&self, ino: u64, offset: u64, whence: Whence, cached: bool) -> Result<u64> {
        if is_past(ino) { self.past.lseek(ino, offset, whence) } else { self.vfs.lseek(ino, offset, whence, cached) }
    }

    /// See [`Vfs::copy_range`]. Of the past the kernel copies by reading and writing.
    pub fn copy_range(&self, from: u64, from_at: u64, to: u64, to_at: u64, len: u64) -> Result<u64> {
        now(&[to])?;
        if is_past(from) { Err(VfsError::NotSupported) } else { self.vfs.copy_range(from, from_at, to, to_at, len) }
    }

    /// See [`Vfs::fsync`].
    pub fn fsync(&self, ino: u64, data_only: bool) -> Result<()> {
        if is_past(ino) { Ok(()) } else { self.vfs.fsync(ino, data_only) }
    }

    /// See [`Vfs::fsyncdir`].
    pub fn fsyncdir(&self, ino: u64) -> Result<()> {
        let ino = self.turn(ino);
        if is_past(ino) { Ok(()) } else { self.vfs.fsyncdir(ino) }
    }
}

/// Nothing of the past changes.
impl Tree {
    /// See [`Vfs::setattr`].
    pub fn setattr(&self, caller: Caller, ino: u64, set: SetAttr) -> Result<Attr> {
        let ino = self.turn(ino);
        now(&[ino])?;
        self.vfs.setattr(caller, ino, set).map(|attr| self.seen(attr))
    }

    /// See [`Vfs::mknod`].
    pub fn mknod(&self, caller: Caller, parent: u64, name: &[u8], mode: u32, rdev: u64) -> Result<Attr> {
        let parent = self.turn(parent);
        now(&[parent])?;
        self.vfs.mknod(caller, parent, name, mode, rdev)
    }

    /// See [`Vfs::mkdir`].
    pub fn mkdir(&self, caller: Caller, parent: u64, name: &[u8], mode: u32) -> Result<Attr> {
        let parent = self.turn(parent);
        now(&[parent])?;
        self.vfs.mkdir(caller, parent, name, mode)
    }

    /// See [`Vfs::symlink`].
    pub fn symlink(&self, caller: Caller, parent: u64, name: &[u8], target: &[u8]) -> Result<Attr> {
        let parent = self.turn(parent);
        now(&[parent])?;
        self.vfs.symlink(caller, parent, name, target)
    }

    /// See [`Vfs::unlink`].
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        let parent = self.turn(parent);
        now(&[parent])?;
        self.vfs.unlink(parent, name)
    }

    /// See [`Vfs::rmdir`].
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        let parent = self.turn(parent);
        now(&[parent])?;
        match self.vfs.rmdir(parent, name) {
            Err(VfsError::NotFound) if name == NAME && self.past.has_snapshots() => Err(VfsError::ReadOnlyVolume),
            other => other,
        }
    }

    /// See [`Vfs::rename`].
    pub fn rename(&self, parent: u64, name: &[u8], to: u64, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        let (parent, to) = (self.turn(parent), self.turn(to));
        now(&[parent, to])?;
        self.vfs.rename(parent, name, to, to_name, flags)
    }

    /// See [`Vfs::link`].
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        let parent = self.turn(parent);
        now(&[ino, parent])?;
        self.vfs.link(ino, parent, name)
    }

    /// See [`Vfs::create`].
    pub fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        flags: OpenFlags,
        passthrough: bool,
    ) -> Result<(Attr, Opened)> {
        let parent = self.turn(parent);
        now(&[parent])?;
        let (attr, opened) = self.vfs.create(caller, parent, name, mode, flags, passthrough)?;
        self.note_open(attr.ino, flags);
        Ok((attr, opened))
    }

    /// See [`Vfs::write`].
    pub fn write(&self, ino: u64, offset: u64, data: &[u8], drop_bits: bool) -> Result<()> {
        now(&[ino])?;
        self.vfs.write(ino, offset, data, drop_bits)
    }

    /// See [`Vfs::fallocate`].
    pub fn fallocate(&self, caller: Caller, ino: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        now(&[ino])?;
        self.vfs.fallocate(caller, ino, offset, len, mode)
    }

    /// See [`Vfs::setxattr`].
    pub fn setxattr(&self, caller: Caller, ino: u64, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let ino = self.turn(ino);
        now(&[ino])?;
        self.vfs.setxattr(caller, ino, name, value, flags)
    }

    /// See [`Vfs::removexattr`].
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        let ino = self.turn(ino);
        now(&[ino])?;
        self.vfs.removexattr(ino, name)
    }
}
