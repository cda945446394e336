//! What is beside the working tree: the past of each directory, and other branches.
//!
//! `.snapshots`, which no listing shows and which can be entered by name, holds one directory for each snapshot, and a symbolic link
//! for each name that one has. What is in them is read from the mesh, and cannot be changed. `.branches`, in the uppermost directory,
//! holds the roots of other trees. Inodes of the past have numbers of their own, which follow from what they are, so the kernel may
//! forget one and ask for it again by its name.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use hypernet_core::id::{FileId, SnapshotId, VolumeId};
use hypernet_core::port::{PortError, RemoteTree, Stretch};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, Entry, FileKind, Inode, LinkEntry, Root, Target, TreeRef, Xattr, is_name};
use parking_lot::Mutex;

use crate::vfs::patience::{self, Wait};
use crate::vfs::{Attr, BRANCHES, DirItem, DirSnapshot, MAIN, ROOT, Result, Vfs, VfsError, Whence};

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
    /// The branches that are not the tree with this root.
    Branches(u64),
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

/// What is beside a working tree.
pub(crate) struct Past {
    vfs: Arc<Vfs>,
    snapshots: Option<Arc<dyn Snapshots>>,
    state: Mutex<State>,
}

/// The number of `.branches` in a mount that shows this root.
pub(crate) fn branches_number(top: u64) -> u64 {
    number((top, 4u8))
}

pub(crate) fn is_past(ino: u64) -> bool {
    ino >= FIRST
}

fn number(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    FIRST | hasher.finish()
}

impl Known {
    fn ino(&self) -> u64 {
        match &self.what {
            What::All(place) => number((place.dir, 0u8)),
            What::Branches(top) => branches_number(*top),
            What::Branch(root) => *root,
            What::One(then) => number((then.place.dir, 1u8, then.id.0)),
            What::Tag(place, name) => number((place.dir, 2u8, name)),
            What::Thing { then, inode, .. } => number((then.place.dir, 3u8, then.id.0, inode.id.0)),
        }
    }

    fn kind(&self) -> FileKind {
        match &self.what {
            What::All(_) | What::One(_) | What::Branches(_) | What::Branch(_) => FileKind::Directory,
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

impl Past {
    /// Beside this tree, with snapshots that come from there.
    pub(crate) fn new(vfs: Arc<Vfs>, snapshots: Option<Arc<dyn Snapshots>>) -> Self {
        Self { vfs, snapshots, state: Mutex::default() }
    }

    /// Inodes that the kernel knows, and listings that are kept.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.known.len(), state.listings.len())
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
            What::Branches(top) => {
                let now = self.vfs.getattr(*top)?;
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

    /// The trees beside the one with this root, as far as there is room for them.
    fn branches(&self, top: u64) -> Vec<(Vec<u8>, Known)> {
        let named = self.vfs.branches().into_iter().filter_map(|name| Some((self.vfs.branch(&name).ok()?, name)));
        // What another mount shows is found there alone: neither kernel would know what is changed through the other.
        let is_free = |(root, _): &(u64, Vec<u8>)| *root != top && !self.vfs.is_shown(*root);
        let all = named.chain([(ROOT, MAIN.as_bytes().to_vec())]).filter(is_free);
        all.map(|(root, name)| (name, Known { what: What::Branch(root), parent: top })).collect()
    }

    /// What is in a directory of the past.
    fn entries(&self, ino: u64, known: &Known) -> Result<Vec<(Vec<u8>, Known)>> {
        if let What::Branches(top) = known.what {
            return Ok(self.branches(top));
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
            What::Tag(..) | What::Branches(_) | What::Branch(_) => return Err(VfsError::NotDirectory),
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
        // What is in a snapshot stays; others may have come, and branches gone.
        let is_new = matches!(known.what, What::Branches(_));
        match (found(&*self.listing(parent, is_new)?), &known.what) {
            (Some(known), _) => Ok(known),
            (None, What::All(_)) => found(&*self.listing(parent, true)?).ok_or(VfsError::NotFound),
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

/// What the kernel asks.
impl Past {
    /// Something in a directory of now of which the working tree has nothing by that name.
    pub(crate) fn beside(&self, dir: u64, top: u64, name: &[u8]) -> Result<Attr> {
        let known = match name {
            NAME => self.all(dir)?,
            _ if dir == top && name == BRANCHES.as_bytes() => Known { what: What::Branches(top), parent: top },
            _ => return Err(VfsError::NotFound),
        };
        self.found(&known)
    }

    /// Something in a directory of the past. The kernel is told of it.
    pub(crate) fn lookup(&self, dir: u64, name: &[u8]) -> Result<Attr> {
        self.found(&self.look(dir, name)?)
    }

    fn found(&self, known: &Known) -> Result<Attr> {
        let attr = self.attr(known)?;
        self.tell_of(known);
        Ok(attr)
    }

    /// The root of a snapshot, which is never forgotten: what is mounted begins with it.
    pub(crate) fn top(&self, volume: VolumeId, id: SnapshotId) -> Result<u64> {
        let root = self.vfs.volumes().into_iter().find(|rooted| rooted.volume == volume).ok_or(VfsError::NotFound)?;
        let time = self.snapshots()?.names(volume)?.into_values().find_map(|named| match named {
            Named::Snapshot(other, time) => (other == id).then_some(time),
            Named::Tag(_) => None,
        });
        let time = time.ok_or(VfsError::NotFound)?;
        let place = Arc::new(Place { dir: root.ino, volume, names: Vec::new() });
        let known = Known { what: What::One(Arc::new(Then { place, id, time })), parent: ROOT };
        self.tell_of(&known);
        Ok(known.ino())
    }

    /// Whether `.snapshots` are found here.
    pub(crate) fn has_snapshots(&self) -> bool {
        self.snapshots.is_some()
    }

    pub(crate) fn forget(&self, ino: u64, times: u64) {
        let mut state = self.state.lock();
        if let Some((_, told)) = state.known.get_mut(&ino) {
            *told = told.saturating_sub(times);
            if *told == 0 {
                state.known.remove(&ino);
                state.listings.retain(|(dir, _)| *dir != ino);
            }
        }
    }

    pub(crate) fn getattr(&self, ino: u64) -> Result<Attr> {
        self.attr(&self.known(ino)?)
    }

    pub(crate) fn readlink(&self, ino: u64) -> Result<Vec<u8>> {
        match self.known(ino)?.what {
            What::Tag(_, target) => Ok(target),
            What::Thing { inode, .. } => match &inode.content {
                Content::Symlink(target) => Ok(target.clone()),
                _ => Err(VfsError::Invalid),
            },
            _ => Err(VfsError::Invalid),
        }
    }

    /// Whether it can be read as a file.
    pub(crate) fn open(&self, ino: u64) -> Result<()> {
        self.file(ino).map(drop)
    }

    pub(crate) fn read(&self, ino: u64, offset: u64, buf: &mut [u8]) -> Result<usize> {
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

    pub(crate) fn readdir(&self, ino: u64, offset: u64) -> Result<DirSnapshot> {
        Ok(self.listing(ino, offset == 0)?.items.clone())
    }

    /// What an entry leads to. The kernel is told of it.
    pub(crate) fn item_now(&self, dir: u64, item: &DirItem) -> Option<Attr> {
        if matches!(&*item.name, b"." | b"..") {
            return match is_past(item.ino) {
                true => self.getattr(item.ino).ok(),
                false => self.vfs.getattr(item.ino).ok(),
            };
        }
        let listing = self.listing(dir, false).ok()?;
        let (_, known) = listing.known.get(&item.name)?;
        self.found(known).ok()
    }

    pub(crate) fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        let known = self.known(ino)?;
        let found = known.xattrs().iter().find(|xattr| xattr.name == name);
        found.map(|xattr| xattr.value.clone()).ok_or(VfsError::NoAttribute)
    }

    pub(crate) fn listxattr(&self, may_see_all: bool, ino: u64) -> Result<Vec<u8>> {
        let known = self.known(ino)?;
        let shown = known.xattrs().iter().filter(|xattr| may_see_all || !xattr.name.starts_with(b"trusted."));
        Ok(shown.flat_map(|xattr| xattr.name.iter().copied().chain([0])).collect())
    }

    pub(crate) fn lseek(&self, ino: u64, offset: u64, whence: Whence) -> Result<u64> {
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
