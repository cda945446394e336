//! The past of each directory: `.snapshots`, which no listing shows and which can be entered by name, holds one directory for each
//! snapshot, and a symbolic link for each name that one has. What is in them is read from the mesh, and cannot be changed.
//!
//! [`Tree`] is the working tree with that: what the kernel sees. Inodes of the past have numbers of their own, which follow from
//! what they are, so the kernel may forget one and ask for it again by its name. A directory in which somebody has something called
//! `.snapshots` has that there.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use hypernet_core::id::{FileId, SnapshotId, VolumeId};
use hypernet_core::port::{PortError, RemoteTree, Stretch};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, Entry, FileKind, Inode, LinkEntry, Root, Target, TreeRef, Xattr, is_name};
use parking_lot::Mutex;

use crate::vfs::patience::{self, Wait};
use crate::vfs::{
    Attr, BRANCHES, Caller, DirItem, DirSnapshot, OpenFlags, Opened, ROOT, RenameFlags, Result, SetAttr, Vfs, VfsError, Whence,
    XattrFlags,
};

#[cfg(test)]
mod tests;

/// The name of the directory.
pub const NAME: &[u8] = b".snapshots";
/// Inode numbers from here on are of the past.
const FIRST: u64 = 1 << 63;
/// Directories whose entries are kept while somebody lists them.
const LISTINGS_MAX: usize = 64;
/// Directories are as long as they are in the working tree.
const DIR_SIZE: u64 = 4096;

/// What stands in a `.snapshots`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A snapshot.
    Snapshot(SnapshotId, Timespec),
    /// Another name in the same directory.
    Tag(Vec<u8>),
}

/// Where snapshots come from.
pub trait Snapshots: RemoteTree {
    /// The snapshots of a volume, and names for them.
    fn names(&self, volume: VolumeId) -> std::result::Result<BTreeMap<Vec<u8>, Named>, PortError>;
    /// A time that is another one when there are others.
    fn changed(&self, volume: VolumeId) -> std::result::Result<Timespec, PortError>;
    /// What a snapshot holds.
    fn snapshot(&self, volume: VolumeId, id: SnapshotId) -> std::result::Result<Root, PortError>;
    /// The record of something with several names in a snapshot.
    fn link_in(&self, links: &TreeRef, id: FileId) -> std::result::Result<Option<LinkEntry>, PortError>;
}

/// A directory of now, and where it is in its volume.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    dir: u64,
    volume: VolumeId,
    names: Vec<Vec<u8>>,
}

/// A snapshot, seen from a directory.
#[derive(Debug)]
struct Then {
    place: Arc<Place>,
    id: SnapshotId,
    time: Timespec,
}

#[derive(Clone, Debug)]
enum What {
    /// All snapshots.
    All(Arc<Place>),
    /// All branches.
    Branches,
    /// The root of one, which is in the working tree.
    Branch(u64),
    /// One of them, of which nothing was read yet.
    One(Arc<Then>),
    /// A name for one.
    Tag(Arc<Place>, Vec<u8>),
    /// Something in one, and how many names it has there.
    Thing { then: Arc<Then>, links: Option<TreeRef>, inode: Arc<Inode>, nlink: u32 },
}

#[derive(Clone, Debug)]
struct Known {
    what: What,
    parent: u64,
}

/// A listing, and what its names lead to.
struct Listing {
    items: DirSnapshot,
    known: HashMap<Box<[u8]>, (u64, Known)>,
}

#[derive(Default)]
struct State {
    /// What the kernel knows, and how often it was told.
    known: HashMap<u64, (Known, u64)>,
    listings: VecDeque<(u64, Arc<Listing>)>,
}

/// The working tree, and its past.
pub struct Tree {
    vfs: Arc<Vfs>,
    snapshots: Option<Arc<dyn Snapshots>>,
    state: Mutex<State>,
}

impl Deref for Tree {
    type Target = Vfs;

    fn deref(&self) -> &Vfs {
        &self.vfs
    }
}

fn is_past(ino: u64) -> bool {
    ino >= FIRST
}

fn number(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    FIRST | hasher.finish()
}

/// Whatever would change something.
fn now(inos: &[u64]) -> Result<()> {
    if inos.iter().any(|ino| is_past(*ino)) { Err(VfsError::ReadOnlyVolume) } else { Ok(()) }
}

impl Known {
    fn ino(&self) -> u64 {
        match &self.what {
            What::All(place) => number((place.dir, 0u8)),
            What::Branches => number((ROOT, 4u8)),
            What::Branch(root) => *root,
            What::One(then) => number((then.place.dir, 1u8, then.id.0)),
            What::Tag(place, name) => number((place.dir, 2u8, name)),
            What::Thing { then, inode, .. } => number((then.place.dir, 3u8, then.id.0, inode.id.0)),
        }
    }

    fn kind(&self) -> FileKind {
        match &self.what {
            What::All(_) | What::One(_) | What::Branches | What::Branch(_) => FileKind::Directory,
            What::Tag(..) => FileKind::Symlink,
            What::Thing { inode, .. } => inode.kind,
        }
    }

    fn xattrs(&self) -> &[Xattr] {
        match &self.what {
            What::Thing { inode, .. } => &inode.xattrs,
            _ => &[],
        }
    }
}

impl Tree {
    /// The tree with the past that comes from there.
    pub fn new(vfs: Arc<Vfs>, snapshots: Option<Arc<dyn Snapshots>>) -> Self {
        Self { vfs, snapshots, state: Mutex::default() }
    }

    /// Where they come from. What must be read for an answer may lie on the mesh.
    fn snapshots(&self) -> Result<&Arc<dyn Snapshots>> {
        patience::check(Wait::Mesh)?;
        self.snapshots.as_ref().ok_or(VfsError::NotFound)
    }

    fn known(&self, ino: u64) -> Result<Known> {
        self.state.lock().known.get(&ino).map(|(known, _)| known.clone()).ok_or(VfsError::NotFound)
    }

    /// The kernel is about to be told of it.
    fn tell_of(&self, known: &Known) {
        if !is_past(known.ino()) {
            // The working tree counts that.
            return;
        }
        let mut state = self.state.lock();
        let (_, told) = state.known.entry(known.ino()).or_insert_with(|| (known.clone(), 0));
        *told += 1;
    }

    fn attr(&self, known: &Known) -> Result<Attr> {
        let ino = known.ino();
        let directory = |place: &Place, time: Option<Timespec>| {
            // Who may look into the directory now may look into what it was.
            let now = self.vfs.getattr(place.dir)?;
            let time = time.unwrap_or(now.mtime);
            let (atime, mtime, ctime) = (time, time, time);
            Ok(Attr { ino, mode: now.mode & 0o555, nlink: 2, atime, mtime, ctime, volatile: false, ..now })
        };
        match &known.what {
            // There may be others at any time: the kernel looks at the time before it shows a listing that it has.
            What::All(place) => {
                Ok(Attr { volatile: true, ..directory(place, Some(self.snapshots()?.changed(place.volume)?))? })
            }
            What::Branches => {
                let now = self.vfs.getattr(ROOT)?;
                Ok(Attr { ino, mode: now.mode & 0o555, nlink: 2, volatile: true, ..now })
            }
            // It may be let go of at any time.
            What::Branch(root) => Ok(Attr { volatile: true, ..self.vfs.getattr(*root)? }),
            What::One(then) => directory(&then.place, Some(then.time)),
            What::Tag(place, target) => {
                let like = directory(place, None)?;
                let (kind, size) = (FileKind::Symlink, target.len() as u64);
                Ok(Attr { kind, mode: 0o777, nlink: 1, size, blocks: 0, volatile: true, ..like })
            }
            What::Thing { inode, nlink, .. } => {
                let is_dir = inode.kind == FileKind::Directory;
                let size = if is_dir { DIR_SIZE } else { inode.content.size() };
                Ok(Attr {
                    ino,
                    kind: inode.kind,
                    mode: inode.mode,
                    nlink: if is_dir { 2 } else { *nlink },
                    uid: inode.uid,
                    gid: inode.gid,
                    rdev: inode.rdev,
                    size,
                    blocks: if is_dir { DIR_SIZE / 512 } else { inode.content.data().div_ceil(512) },
                    atime: inode.mtime,
                    mtime: inode.mtime,
                    ctime: inode.ctime,
                    volatile: false,
                })
            }
        }
    }

    /// `.snapshots` in a directory of now.
    fn all(&self, dir: u64) -> Result<Known> {
        self.snapshots()?;
        if self.vfs.getattr(dir)?.kind != FileKind::Directory {
            return Err(VfsError::NotDirectory);
        }
        let volume = self.vfs.volume_of(dir)?;
        let root = self.vfs.volumes().into_iter().find(|rooted| rooted.volume == volume).ok_or(VfsError::NotFound)?;
        let (root, path) = (self.vfs.path(root.ino)?, self.vfs.path(dir)?);
        let below = path.strip_prefix(&root).map_err(|_| VfsError::NotFound)?;
        let names = below.iter().map(|name| std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec()).collect();
        Ok(Known { what: What::All(Arc::new(Place { dir, volume, names })), parent: dir })
    }

    fn thing(&self, then: &Arc<Then>, links: &Option<TreeRef>, parent: u64, target: Target) -> Result<Option<Known>> {
        let (inode, nlink) = match target {
            Target::Inode(inode) => (*inode, 1),
            Target::Link(id) => match links {
                Some(links) => match self.snapshots()?.link_in(links, id)? {
                    Some(row) => (row.inode, row.links.max(1)),
                    None => return Ok(None),
                },
                None => return Ok(None),
            },
            // Another volume has a history of its own.
            Target::Volume { .. } => return Ok(None),
        };
        let (then, links, inode) = (then.clone(), links.clone(), Arc::new(inode));
        Ok(Some(Known { what: What::Thing { then, links, inode, nlink }, parent }))
    }

    /// What the directory was in a snapshot; nothing where it was not there, or was none.
    fn entered(&self, then: &Then) -> Result<Option<(TreeRef, Option<TreeRef>)>> {
        let snapshots = self.snapshots()?;
        let Root { mut inode, links, .. } = snapshots.snapshot(then.place.volume, then.id)?;
        for name in &then.place.names {
            let Content::Directory(tree) = &inode.content else { return Ok(None) };
            let mut entries = snapshots.list(tree)?.into_iter();
            match entries.find(|entry| entry.name == *name).map(|entry| entry.target) {
                Some(Target::Inode(below)) => inode = *below,
                _ => return Ok(None),
            }
        }
        match inode.content {
            Content::Directory(tree) => Ok(Some((tree, links))),
            _ => Ok(None),
        }
    }

    /// The branches, as far as there is room for them in the working tree.
    fn branches(&self) -> Vec<(Vec<u8>, Known)> {
        let root = |name: Vec<u8>| {
            let root = self.vfs.branch(&name).ok()?;
            Some((name, Known { what: What::Branch(root), parent: ROOT }))
        };
        self.vfs.branches().into_iter().filter_map(root).collect()
    }

    /// What is in a directory of the past.
    fn entries(&self, ino: u64, known: &Known) -> Result<Vec<(Vec<u8>, Known)>> {
        if let What::Branches = known.what {
            return Ok(self.branches());
        }
        let snapshots = self.snapshots()?;
        let (then, tree, links) = match &known.what {
            What::All(place) => {
                let names = snapshots.names(place.volume)?.into_iter().map(|(name, named)| {
                    let what = match named {
                        Named::Snapshot(id, time) => What::One(Arc::new(Then { place: place.clone(), id, time })),
                        Named::Tag(target) => What::Tag(place.clone(), target),
                    };
                    (name, Known { what, parent: ino })
                });
                return Ok(names.collect());
            }
            What::One(then) => match self.entered(then)? {
                Some((tree, links)) => (then, tree, links),
                None => return Ok(Vec::new()),
            },
            What::Thing { then, links, inode, .. } => match &inode.content {
                Content::Directory(tree) => (then, tree.clone(), links.clone()),
                _ => return Err(VfsError::NotDirectory),
            },
            What::Tag(..) | What::Branches | What::Branch(_) => return Err(VfsError::NotDirectory),
        };
        let mut found = Vec::new();
        for Entry { name, target, .. } in snapshots.list(&tree)?.into_iter().filter(|entry| is_name(&entry.name)) {
            found.extend(self.thing(then, &links, ino, target)?.map(|known| (name, known)));
        }
        Ok(found)
    }

    fn listing(&self, ino: u64, is_new: bool) -> Result<Arc<Listing>> {
        if !is_new && let Some((_, listing)) = self.state.lock().listings.iter().find(|(dir, _)| *dir == ino) {
            return Ok(listing.clone());
        }
        let known = self.known(ino)?;
        let entries = self.entries(ino, &known)?;
        let own = [(&b"."[..], ino), (b"..", known.parent)];
        let directory = |(name, ino): (&[u8], u64)| (name.into(), ino, FileKind::Directory);
        let all = own.map(directory).into_iter();
        let all = all.chain(entries.iter().map(|(name, known)| (name.as_slice().into(), known.ino(), known.kind())));
        let item = |((name, ino, kind), offset)| DirItem { name, ino, kind, offset };
        let items: DirSnapshot = all.zip(1..).map(item).collect();
        let known = entries.into_iter().map(|(name, known)| (name.into(), (known.ino(), known))).collect();
        let listing = Arc::new(Listing { items, known });
        let mut state = self.state.lock();
        state.listings.retain(|(dir, _)| *dir != ino);
        if state.listings.len() >= LISTINGS_MAX {
            state.listings.pop_front();
        }
        state.listings.push_back((ino, listing.clone()));
        Ok(listing)
    }

    fn look(&self, parent: u64, name: &[u8]) -> Result<Known> {
        let known = self.known(parent)?;
        match name {
            b"." => return Ok(known),
            b".." if is_past(known.parent) => return self.known(known.parent),
            _ => {}
        }
        let found = |listing: &Listing| listing.known.get(name).map(|(_, known)| known.clone());
        match (found(&*self.listing(parent, false)?), &known.what) {
            (Some(known), _) => Ok(known),
            // What is in a snapshot stays; others may have come.
            (None, What::All(_) | What::Branches) => found(&*self.listing(parent, true)?).ok_or(VfsError::NotFound),
            (None, _) => Err(VfsError::NotFound),
        }
    }

    fn file(&self, ino: u64) -> Result<Arc<Inode>> {
        match self.known(ino)?.what {
            What::Thing { inode, .. } if inode.kind == FileKind::Regular => Ok(inode),
            What::Thing { inode, .. } if inode.kind != FileKind::Directory => Err(VfsError::Invalid),
            _ => Err(VfsError::IsDirectory),
        }
    }
}

/// What the kernel asks: as [`Vfs`] has it.
impl Tree {
    /// See [`Vfs::lookup`]. What it finds of the past the kernel is told of.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Attr> {
        let known = match is_past(parent) {
            true => self.look(parent, name)?,
            false => match self.vfs.lookup(parent, name) {
                Err(VfsError::NotFound) if name == NAME => self.all(parent)?,
                Err(VfsError::NotFound) if parent == ROOT && name == BRANCHES.as_bytes() => {
                    Known { what: What::Branches, parent: ROOT }
                }
                found => return found,
            },
        };
        let attr = self.attr(&known)?;
        self.tell_of(&known);
        Ok(attr)
    }

    /// See [`Vfs::tell_found`].
    pub fn tell_found<T>(&self, look: impl Fn() -> T, ino: impl Fn(&T) -> Option<u64>) -> T {
        self.vfs.tell_found(look, |found| ino(found).filter(|ino| !is_past(*ino)))
    }

    /// See [`Vfs::forget`].
    pub fn forget(&self, ino: u64, times: u64) {
        if !is_past(ino) {
            return self.vfs.forget(ino, times);
        }
        let mut state = self.state.lock();
        if let Some((_, told)) = state.known.get_mut(&ino) {
            *told = told.saturating_sub(times);
            if *told == 0 {
                state.known.remove(&ino);
                state.listings.retain(|(dir, _)| *dir != ino);
            }
        }
    }

    /// See [`Vfs::getattr`].
    pub fn getattr(&self, ino: u64) -> Result<Attr> {
        if is_past(ino) { self.attr(&self.known(ino)?) } else { self.vfs.getattr(ino) }
    }

    /// See [`Vfs::readlink`].
    pub fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        if !is_past(ino) {
            return self.vfs.readlink(ino);
        }
        match self.known(ino)?.what {
            What::Tag(_, target) => Ok(target),
            What::Thing { inode, .. } => match &inode.content {
                Content::Symlink(target) => Ok(target.clone()),
                _ => Err(VfsError::Invalid),
            },
            _ => Err(VfsError::Invalid),
        }
    }

    /// See [`Vfs::open_file`].
    pub fn open_file(&self, caller: Caller, ino: u64, flags: OpenFlags, passthrough: bool) -> Result<Opened> {
        if !is_past(ino) {
            return self.vfs.open_file(caller, ino, flags, passthrough);
        }
        if flags.writes() {
            return Err(VfsError::ReadOnlyVolume);
        }
        self.file(ino)?;
        Ok(Opened::default())
    }

    /// See [`Vfs::read`].
    pub fn read(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if !is_past(ino) {
            return self.vfs.read(ino, offset, buf);
        }
        let inode = self.file(ino)?;
        let end = inode.content.size().min(offset.saturating_add(buf.len() as u64));
        let Some(len) = end.checked_sub(offset).and_then(|len| usize::try_from(len).ok()).filter(|len| *len > 0) else {
            return Ok(0);
        };
        let buf = &mut buf[..len];
        buf.fill(0);
        for (at, bytes) in self.snapshots()?.read(&inode.content, offset..end)? {
            fill(buf, offset, at, &bytes);
        }
        Ok(len)
    }

    /// See [`Vfs::release`].
    pub fn release(&self, ino: u64, flags: OpenFlags) -> Result<()> {
        if is_past(ino) { Ok(()) } else { self.vfs.release(ino, flags) }
    }

    /// See [`Vfs::release_passed_through`].
    pub fn release_passed_through(&self, ino: u64, flags: OpenFlags) -> Result<()> {
        if is_past(ino) { Ok(()) } else { self.vfs.release_passed_through(ino, flags) }
    }

    /// See [`Vfs::readdir`].
    pub fn readdir(&self, ino: u64, offset: u64) -> Result<DirSnapshot> {
        match is_past(ino) {
            true => Ok(self.listing(ino, offset == 0)?.items.clone()),
            false => self.vfs.readdir(ino, offset),
        }
    }

    /// See [`Vfs::item_now`]. The kernel is told of what is of the past.
    pub fn item_now(&self, dir: u64, item: &DirItem) -> Option<Attr> {
        if !is_past(dir) {
            return self.vfs.item_now(dir, item);
        }
        if matches!(&*item.name, b"." | b"..") {
            return self.getattr(item.ino).ok();
        }
        let listing = self.listing(dir, false).ok()?;
        let (_, known) = listing.known.get(&item.name)?;
        let attr = self.attr(known).ok()?;
        self.tell_of(known);
        Some(attr)
    }

    /// See [`Vfs::getxattr`].
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        if !is_past(ino) {
            return self.vfs.getxattr(ino, name);
        }
        let known = self.known(ino)?;
        let found = known.xattrs().iter().find(|xattr| xattr.name == name);
        found.map(|xattr| xattr.value.clone()).ok_or(VfsError::NoAttribute)
    }

    /// See [`Vfs::listxattr`].
    pub fn listxattr(&self, caller: Caller, ino: u64) -> Result<Vec<u8>> {
        if !is_past(ino) {
            return self.vfs.listxattr(caller, ino);
        }
        let known = self.known(ino)?;
        let shown = known.xattrs().iter().filter(|xattr| caller.uid == 0 || !xattr.name.starts_with(b"trusted."));
        Ok(shown.flat_map(|xattr| xattr.name.iter().copied().chain([0])).collect())
    }

    /// See [`Vfs::lseek`].
    pub fn lseek(&self, ino: u64, offset: u64, whence: Whence, cached: bool) -> Result<u64> {
        if !is_past(ino) {
            return self.vfs.lseek(ino, offset, whence, cached);
        }
        let inode = self.file(ino)?;
        let size = inode.content.size();
        if offset >= size {
            return Err(VfsError::NoSuchOffset);
        }
        let wanted = match whence {
            Whence::Data => Stretch::Data,
            Whence::Hole => Stretch::Hole,
        };
        let found = self.snapshots()?.seek(&inode.content, offset, wanted)?;
        match (found, whence) {
            (Some(at), _) => Ok(at),
            // The end counts as one.
            (None, Whence::Hole) => Ok(size),
            (None, Whence::Data) => Err(VfsError::NoSuchOffset),
        }
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
        if is_past(ino) { Ok(()) } else { self.vfs.fsyncdir(ino) }
    }
}

/// Puts what overlaps into a buffer that begins at `start` of a file.
fn fill(buf: &mut [u8], start: u64, at: u64, bytes: &Bytes) {
    let end = start + buf.len() as u64;
    let (from, to) = (at.max(start), end.min(at.saturating_add(bytes.len() as u64)));
    if from < to {
        let (into, of) = ((from - start) as usize, (from - at) as usize);
        let len = (to - from) as usize;
        buf[into..into + len].copy_from_slice(&bytes[of..of + len]);
    }
}

/// Nothing of the past changes.
impl Tree {
    /// See [`Vfs::setattr`].
    pub fn setattr(&self, caller: Caller, ino: u64, set: SetAttr) -> Result<Attr> {
        now(&[ino])?;
        self.vfs.setattr(caller, ino, set)
    }

    /// See [`Vfs::mknod`].
    pub fn mknod(&self, caller: Caller, parent: u64, name: &[u8], mode: u32, rdev: u64) -> Result<Attr> {
        now(&[parent])?;
        self.vfs.mknod(caller, parent, name, mode, rdev)
    }

    /// See [`Vfs::mkdir`].
    pub fn mkdir(&self, caller: Caller, parent: u64, name: &[u8], mode: u32) -> Result<Attr> {
        now(&[parent])?;
        self.vfs.mkdir(caller, parent, name, mode)
    }

    /// See [`Vfs::symlink`].
    pub fn symlink(&self, caller: Caller, parent: u64, name: &[u8], target: &[u8]) -> Result<Attr> {
        now(&[parent])?;
        self.vfs.symlink(caller, parent, name, target)
    }

    /// See [`Vfs::unlink`].
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        now(&[parent])?;
        self.vfs.unlink(parent, name)
    }

    /// See [`Vfs::rmdir`].
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        now(&[parent])?;
        match self.vfs.rmdir(parent, name) {
            Err(VfsError::NotFound) if name == NAME && self.snapshots.is_some() => Err(VfsError::ReadOnlyVolume),
            other => other,
        }
    }

    /// See [`Vfs::rename`].
    pub fn rename(&self, parent: u64, name: &[u8], to: u64, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        now(&[parent, to])?;
        self.vfs.rename(parent, name, to, to_name, flags)
    }

    /// See [`Vfs::link`].
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
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
        now(&[parent])?;
        self.vfs.create(caller, parent, name, mode, flags, passthrough)
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
        now(&[ino])?;
        self.vfs.setxattr(caller, ino, name, value, flags)
    }

    /// See [`Vfs::removexattr`].
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        now(&[ino])?;
        self.vfs.removexattr(ino, name)
    }
}
