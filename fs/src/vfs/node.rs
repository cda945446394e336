//! An inode in memory. Kept small: a source tree has a hundred thousand of them.

use std::collections::BTreeMap;

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::port::{InodeRow, Local};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, FileKind, Inode, Xattr};

use super::backing::Stat;
use super::state::{EARLIEST, LATEST, fit};

/// The root directory's inode number on every device.
pub const ROOT: u64 = 1;

/// Names of a directory, in bytewise order.
pub(super) type Entries = BTreeMap<Box<[u8]>, u64>;

/// What few inodes have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rare {
    pub(super) xattrs: Vec<Xattr>,
    pub(super) symlink: Box<[u8]>,
    pub(super) rdev: u64,
}

/// What directories have.
#[derive(Debug, Default)]
pub(super) struct Dir {
    /// `None` until they are needed.
    pub(super) entries: Option<Entries>,
    /// Newest change in the subtree, itself left out; 0 when all of it is in a durable snapshot.
    pub(super) below: u64,
    /// Inodes in memory whose `parent` this is: they keep it there.
    pub(super) kids: u32,
    /// The volume whose root this is.
    pub(super) volume: Option<VolumeId>,
}

/// What inodes with open handles have.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) handles: u32,
    pub(super) writers: u32,
    /// Somebody may read it through the kernel's cache.
    pub(super) cached: bool,
    /// The backing file as it was when its size and times were last taken over.
    pub(super) seen: Option<Stat>,
    /// A write since then could have left the same times.
    pub(super) racy: bool,
    /// It was clean, with this stamp, when it was first opened for writing.
    pub(super) clean: Option<Local>,
}

/// A time that a file can have, in half the space: nanoseconds since the [earliest](EARLIEST).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u64);

const NANOS: u64 = 1_000_000_000;
const _: () = assert!(((LATEST - EARLIEST) as u64) < u64::MAX / NANOS, "every time that a file can have fits");

impl From<Timespec> for Packed {
    fn from(time: Timespec) -> Self {
        let time = fit(time);
        Self((time.seconds - EARLIEST) as u64 * NANOS + u64::from(time.nanos))
    }
}

impl From<Packed> for Timespec {
    fn from(Packed(since): Packed) -> Self {
        Self { seconds: EARLIEST + (since / NANOS) as i64, nanos: (since % NANOS) as u32 }
    }
}

/// [`Local`] in less space.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Absent,
    Complete,
    Clean { size: u64, ctime: Packed },
}

impl From<Local> for Kept {
    fn from(local: Local) -> Self {
        match local {
            Local::Absent => Self::Absent,
            Local::Complete => Self::Complete,
            Local::Clean { size, ctime } => Self::Clean { size, ctime: ctime.into() },
        }
    }
}

impl From<Kept> for Local {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Absent => Self::Absent,
            Kept::Complete => Self::Complete,
            Kept::Clean { size, ctime } => Self::Clean { size, ctime: ctime.into() },
        }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: FileId,
    pub(super) size: u64,
    atime: Packed,
    mtime: Packed,
    ctime: Packed,
    pub(super) parent: u64,
    /// Number of its last change; 0 when a durable snapshot has it as it is.
    pub(super) changed: u64,
    /// The newest batch of commits that has its row.
    pub(super) queued: u64,
    /// The batch an fsync of it must wait for.
    pub(super) needs: u64,
    local: Kept,
    pub(super) remote: Option<Box<Content>>,
    pub(super) rare: Option<Box<Rare>>,
    pub(super) dir: Option<Box<Dir>>,
    pub(super) open: Option<Box<Open>>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) nlink: u32,
    /// Tick of its last use.
    pub(super) used: u32,
    /// Times that the kernel was told of it and has not forgotten, since it is in memory.
    pub(super) told: u16,
    pub(super) kind: FileKind,
    pub(super) linked: bool,
}

const _: () = assert!(size_of::<Node>() <= 160, "a hot inode must stay small: the allocator's next size is 192");

impl Node {
    pub(super) fn from_row(row: InodeRow) -> Self {
        let rare = Rare { xattrs: row.xattrs, symlink: row.symlink.into(), rdev: row.rdev };
        Self {
            id: row.id,
            size: row.size,
            atime: row.atime.into(),
            mtime: row.mtime.into(),
            ctime: row.ctime.into(),
            parent: row.parent,
            changed: 0,
            queued: 0,
            needs: 0,
            local: row.local.into(),
            remote: row.remote.map(Box::new),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
            dir: (row.kind == FileKind::Directory).then(|| Box::new(Dir { volume: row.volume, ..Dir::default() })),
            open: None,
            mode: row.mode,
            uid: row.uid,
            gid: row.gid,
            nlink: row.nlink,
            used: 0,
            told: 0,
            kind: row.kind,
            linked: row.linked,
        }
    }

    /// An inode as a snapshot has it, of which nothing is here yet. The parent of one with several names is the root.
    pub(super) fn from_snapshot(inode: Inode, parent: u64, links: Option<u32>) -> Self {
        let local = match (inode.kind, &inode.content) {
            (FileKind::Regular, content) if content.size() == 0 => Local::Clean { size: 0, ctime: Timespec::default() },
            (FileKind::Regular | FileKind::Directory, _) => Local::Absent,
            _ => Local::Complete,
        };
        let symlink = match &inode.content {
            Content::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        let is_dir = inode.kind == FileKind::Directory;
        Self::from_row(InodeRow {
            ino: 0,
            id: inode.id,
            kind: inode.kind,
            mode: inode.mode & 0o7777,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            nlink: links.unwrap_or(if is_dir { 2 } else { 1 }),
            size: inode.content.size(),
            atime: fit(inode.mtime),
            mtime: fit(inode.mtime),
            ctime: fit(inode.ctime),
            xattrs: inode.xattrs,
            symlink,
            parent,
            linked: links.is_some(),
            volume: None,
            dirty: false,
            remote: Some(inode.content),
            local,
        })
    }

    /// What a name leads to whose record is missing from the link table. It is kept so that the name is, here and in
    /// the next snapshot.
    pub(super) fn lost(id: FileId, root: u64) -> Self {
        Self::from_row(InodeRow {
            ino: 0,
            id,
            kind: FileKind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            nlink: 1,
            size: 0,
            atime: Timespec::default(),
            mtime: Timespec::default(),
            ctime: Timespec::default(),
            xattrs: Vec::new(),
            symlink: Vec::new(),
            parent: root,
            linked: true,
            volume: None,
            dirty: false,
            remote: None,
            local: Local::Absent,
        })
    }

    pub(super) fn atime(&self) -> Timespec {
        self.atime.into()
    }

    pub(super) fn mtime(&self) -> Timespec {
        self.mtime.into()
    }

    pub(super) fn ctime(&self) -> Timespec {
        self.ctime.into()
    }

    pub(super) fn set_atime(&mut self, time: Timespec) {
        self.atime = time.into();
    }

    pub(super) fn set_mtime(&mut self, time: Timespec) {
        self.mtime = time.into();
    }

    pub(super) fn set_ctime(&mut self, time: Timespec) {
        self.ctime = time.into();
    }

    /// What of its content is on this device.
    pub(super) fn local(&self) -> Local {
        self.local.into()
    }

    pub(super) fn set_local(&mut self, local: Local) {
        self.local = local.into();
    }

    /// Neither here nor on the mesh: only its name is known.
    pub(super) fn is_lost(&self) -> bool {
        self.is_file() && self.local() == Local::Absent && self.remote.is_none()
    }

    /// The volume whose root it is.
    pub(super) fn volume(&self) -> Option<VolumeId> {
        self.dir.as_ref().and_then(|dir| dir.volume)
    }

    /// Takes over what was found of the volume whose root this is.
    pub(super) fn become_root(&mut self, found: Self) {
        let (volume, kids) = self.dir.as_ref().map_or((None, 0), |dir| (dir.volume, dir.kids));
        *self = Self { used: self.used, told: self.told, dir: self.dir.take(), ..found };
        self.dir = Some(Box::new(Dir { volume, kids, ..Dir::default() }));
    }

    /// A copy without its handles and its entries.
    pub(super) fn at_rest(&self) -> Self {
        Self { dir: None, open: None, remote: self.remote.clone(), rare: self.rare.clone(), ..*self }
    }

    pub(super) fn row(&self, ino: u64) -> InodeRow {
        let rare = self.rare.as_deref();
        InodeRow {
            ino,
            id: self.id,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            rdev: rare.map_or(0, |r| r.rdev),
            nlink: self.nlink,
            size: self.size,
            atime: self.atime(),
            mtime: self.mtime(),
            ctime: self.ctime(),
            xattrs: rare.map(|r| r.xattrs.clone()).unwrap_or_default(),
            symlink: rare.map(|r| r.symlink.to_vec()).unwrap_or_default(),
            parent: self.parent,
            linked: self.linked,
            volume: self.volume(),
            dirty: self.is_dirty(),
            remote: self.remote.as_deref().cloned(),
            local: self.local(),
        }
    }

    /// What a crash must leave marked: a change, or a writer whose changes nobody reports.
    pub(super) fn is_dirty(&self) -> bool {
        self.changed != 0 || self.writers() > 0
    }

    /// Itself or something below it is not in a durable snapshot.
    pub(super) fn is_dirty_within(&self) -> bool {
        self.changed != 0 || self.dir.as_ref().is_some_and(|d| d.below != 0)
    }

    pub(super) fn writers(&self) -> u32 {
        self.open.as_ref().map_or(0, |o| o.writers)
    }

    pub(super) fn handles(&self) -> u32 {
        self.open.as_ref().map_or(0, |o| o.handles)
    }

    pub(super) fn xattrs(&self) -> &[Xattr] {
        self.rare.as_ref().map_or(&[], |r| &r.xattrs)
    }

    /// Sets an extended attribute, or removes it.
    pub(super) fn put_xattr(&mut self, name: &[u8], value: Option<Vec<u8>>) {
        let at = self.xattrs().binary_search_by(|xattr| xattr.name.as_slice().cmp(name));
        match (value, at) {
            (Some(value), Ok(at)) => self.rare_mut().xattrs[at].value = value,
            (Some(value), Err(at)) => self.rare_mut().xattrs.insert(at, Xattr { name: name.to_vec(), value }),
            (None, Ok(at)) => drop(self.rare_mut().xattrs.remove(at)),
            (None, Err(_)) => {}
        }
    }

    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub(super) fn is_file(&self) -> bool {
        self.kind == FileKind::Regular
    }
}
