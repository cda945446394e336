//! Doubles of the ports, stricter than the real things: a violation of a port's contract is an error here that
//! production might not notice.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use hypernet_core::id::{DeviceTag, ExtentId, FileId, VolumeId};
use hypernet_core::key::{Secret, VolumeKeys};
use hypernet_core::port::{Durability, InodeRow, Local, MetaOp, MetaStore, PortError, RemoteTree, Stretch};
use hypernet_core::seal::{Kind, Sealer};
use hypernet_core::tree::{Content, Dot, Entry, FileKind, Inode, LinkEntry, Target, TreeRef};
use parking_lot::{Condvar, Mutex};

use crate::vfs::{Cut, Result, Synced, Vfs, VfsError, patience};

/// Tables of a working tree.
#[derive(Clone, Debug, Default)]
struct Tables {
    inodes: BTreeMap<u64, InodeRow>,
    names: BTreeMap<(u64, Vec<u8>), u64>,
    next_ino: u64,
}

impl Tables {
    fn apply(&mut self, op: &MetaOp) -> std::result::Result<(), String> {
        match op {
            MetaOp::PutInode(row) => {
                if let Some(old) = self.inodes.get(&row.ino)
                    && (old.id, old.kind) != (row.id, row.kind)
                {
                    return Err(format!("inode {} became another", row.ino));
                }
                self.inodes.insert(row.ino, row.clone());
            }
            MetaOp::RemoveInode(ino) => {
                if self.names.values().any(|named| named == ino) {
                    return Err(format!("inode {ino} is removed but still has a name"));
                }
                self.inodes.remove(ino);
            }
            MetaOp::Link { parent, name, ino } => {
                self.names.insert((*parent, name.clone()), *ino);
            }
            MetaOp::Unlink { parent, name } => {
                if self.names.remove(&(*parent, name.clone())).is_none() {
                    return Err(format!("there is no name {:?} in {parent}", String::from_utf8_lossy(name)));
                }
            }
            MetaOp::NextIno(next) => {
                if *next < self.next_ino {
                    return Err("inode numbers went back".to_owned());
                }
                self.next_ino = *next;
            }
        }
        Ok(())
    }

    fn check(&self) -> std::result::Result<(), String> {
        for ((parent, name), ino) in &self.names {
            let text = String::from_utf8_lossy(name);
            let row = self.inodes.get(ino).ok_or(format!("{text:?} leads to inode {ino}, which is not there"))?;
            if row.nlink == 0 {
                return Err(format!("{text:?} leads to inode {ino}, which is unlinked"));
            }
            let dir =
                self.inodes.get(parent).ok_or(format!("{text:?} is in directory {parent}, which is not there"))?;
            if dir.kind != FileKind::Directory {
                return Err(format!("{text:?} is in {parent}, which is not a directory"));
            }
        }
        Ok(())
    }
}

/// Something to do in the middle of something else.
struct Hook(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

/// The metadata store in memory.
#[derive(Debug, Default)]
pub struct MemoryMeta {
    now: Mutex<Tables>,
    /// As after the last [`Durability::Power`] commit.
    durable: Mutex<Tables>,
    failure: Mutex<Option<PortError>>,
    commits: AtomicUsize,
    /// Called once, when an inode is looked for.
    before_look: Mutex<Option<Hook>>,
    /// Every commit checks all names: for small trees.
    strict: bool,
}

impl MemoryMeta {
    /// An empty store that checks every commit.
    pub fn strict() -> Arc<Self> {
        Arc::new(Self { strict: true, ..Self::default() })
    }

    /// An empty store that is as quick as can be.
    pub fn quick() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// What is left after the power went: a new store with the last durable commit.
    pub fn after_power_loss(&self) -> Arc<Self> {
        let tables = self.durable.lock().clone();
        let now = Mutex::new(tables.clone());
        Arc::new(Self { now, durable: Mutex::new(tables), strict: self.strict, ..Self::default() })
    }

    /// What is left after the process died.
    pub fn after_kill(&self) -> Arc<Self> {
        let tables = self.now.lock().clone();
        let now = Mutex::new(tables.clone());
        Arc::new(Self { now, durable: Mutex::new(tables), strict: self.strict, ..Self::default() })
    }

    /// Every commit fails with this from now on; `None` ends it.
    pub fn fail(&self, failure: Option<PortError>) {
        *self.failure.lock() = failure;
    }

    /// Does this when an inode is looked for the next time, before it is.
    pub fn before_look(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_look.lock() = Some(Hook(Box::new(hook)));
    }

    /// Commits so far.
    pub fn commits(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }

    /// Changes a row behind everybody's back.
    pub fn damage(&self, ino: u64, change: impl FnOnce(&mut InodeRow)) {
        if let Some(row) = self.now.lock().inodes.get_mut(&ino) {
            change(row);
        }
    }
}

impl MetaStore for MemoryMeta {
    fn inode(&self, ino: u64) -> std::result::Result<Option<InodeRow>, PortError> {
        let hook = self.before_look.lock().take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        Ok(self.now.lock().inodes.get(&ino).cloned())
    }

    fn linked(&self, root: u64, id: FileId) -> std::result::Result<Option<InodeRow>, PortError> {
        let is_it = |row: &&InodeRow| row.linked && row.id == id && row.parent == root;
        Ok(self.now.lock().inodes.values().find(is_it).cloned())
    }

    fn all_linked(
        &self,
        root: u64,
        after: Option<FileId>,
        limit: u32,
    ) -> std::result::Result<Vec<InodeRow>, PortError> {
        let tables = self.now.lock();
        let is_it = |row: &&InodeRow| row.linked && row.parent == root && after.is_none_or(|after| row.id > after);
        let mut rows: Vec<InodeRow> = tables.inodes.values().filter(is_it).cloned().collect();
        rows.sort_by_key(|row| row.id);
        rows.truncate(limit as usize);
        Ok(rows)
    }

    fn names_of(&self, inos: &[u64]) -> std::result::Result<Vec<(u64, Vec<u8>)>, PortError> {
        let tables = self.now.lock();
        Ok(tables.names.iter().filter(|(_, ino)| inos.contains(ino)).map(|(name, _)| name.clone()).collect())
    }

    fn roots(&self) -> std::result::Result<Vec<InodeRow>, PortError> {
        Ok(self.now.lock().inodes.values().filter(|row| row.volume.is_some()).cloned().collect())
    }

    fn children(&self, parent: u64) -> std::result::Result<Vec<(Vec<u8>, InodeRow)>, PortError> {
        let tables = self.now.lock();
        let range = tables.names.range((parent, Vec::new())..(parent + 1, Vec::new()));
        Ok(range.filter_map(|((_, name), ino)| Some((name.clone(), tables.inodes.get(ino)?.clone()))).collect())
    }

    fn pending(&self, after: u64, limit: u32) -> std::result::Result<Vec<InodeRow>, PortError> {
        let tables = self.now.lock();
        let rows = tables.inodes.range(after + 1..).map(|(_, row)| row);
        Ok(rows.filter(|row| row.dirty || row.nlink == 0).take(limit as usize).cloned().collect())
    }

    fn clean(&self, after: u64, limit: u32) -> std::result::Result<Vec<InodeRow>, PortError> {
        let tables = self.now.lock();
        let rows = tables.inodes.range(after + 1..).map(|(_, row)| row);
        Ok(rows.filter(|row| matches!(row.local, Local::Clean { .. })).take(limit as usize).cloned().collect())
    }

    fn next_ino(&self) -> std::result::Result<u64, PortError> {
        Ok(self.now.lock().next_ino)
    }

    fn commit(&self, ops: &[MetaOp], durability: Durability) -> std::result::Result<(), PortError> {
        match self.failure.lock().clone() {
            // The real one has something set aside for what makes room.
            Some(PortError::DiskFull(_)) if ops.iter().any(MetaOp::makes_room) => {}
            Some(failure) => return Err(failure),
            None => {}
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        let mut now = self.now.lock();
        if self.strict {
            let mut next = now.clone();
            ops.iter().try_for_each(|op| next.apply(op)).and_then(|()| next.check()).map_err(PortError::Disk)?;
            *now = next;
            if durability == Durability::Power {
                *self.durable.lock() = now.clone();
            }
            return Ok(());
        }
        for op in ops {
            match op {
                // Looking for names of a removed inode takes too long here.
                MetaOp::RemoveInode(ino) => drop(now.inodes.remove(ino)),
                op => now.apply(op).map_err(PortError::Disk)?,
            }
        }
        Ok(())
    }
}

/// A mesh that has nothing.
#[derive(Debug, Default)]
pub struct NoRemote;

impl RemoteTree for NoRemote {
    fn list(&self, _directory: &TreeRef) -> std::result::Result<Vec<Entry>, PortError> {
        Err(PortError::NotFound("there is no mesh".into()))
    }

    fn link(&self, _: VolumeId, _: FileId) -> std::result::Result<LinkEntry, PortError> {
        Err(PortError::NotFound("there is no mesh".into()))
    }

    fn read(&self, _: &Content, _: Range<u64>) -> std::result::Result<Vec<(u64, Bytes)>, PortError> {
        Err(PortError::NotFound("there is no mesh".into()))
    }

    fn seek(&self, _: &Content, _: u64, _: Stretch) -> std::result::Result<Option<u64>, PortError> {
        Err(PortError::NotFound("there is no mesh".into()))
    }

    fn root(&self, _: VolumeId, _: &mut dyn FnMut(Inode)) -> std::result::Result<(), PortError> {
        Err(PortError::NotFound("there is no mesh".into()))
    }
}

/// Directories by their names and what these lead to.
type Published = HashMap<Vec<(Vec<u8>, FileId)>, Vec<TreeRef>>;

#[derive(Debug, Default)]
struct Held {
    hold: bool,
    /// Reads that begin here wait, too.
    from: Option<u64>,
    waiting: usize,
}

/// A mesh in memory: content is kept inline whatever its size, in extents of [`Self::EXTENT`] bytes.
#[derive(Debug, Default)]
pub struct MemoryRemote {
    directories: Mutex<HashMap<ExtentId, Vec<Entry>>>,
    published: Mutex<Published>,
    links: Mutex<HashMap<(VolumeId, FileId), LinkEntry>>,
    roots: Mutex<HashMap<VolumeId, Inode>>,
    next: AtomicU64,
    failure: Mutex<Option<PortError>>,
    panics: AtomicBool,
    held: Mutex<Held>,
    /// A read came to wait, or may go on.
    changed: Condvar,
    reads: AtomicUsize,
    lists: AtomicUsize,
}

impl MemoryRemote {
    /// Content comes in pieces of this size.
    pub const EXTENT: u64 = 64 * 1024;

    /// Everything asked fails with this from now on; `None` ends it.
    pub fn fail(&self, failure: Option<PortError>) {
        *self.failure.lock() = failure;
    }

    /// Everything asked panics from now on, or no more.
    pub fn panic(&self, panics: bool) {
        self.panics.store(panics, Ordering::SeqCst);
    }

    /// Takes a row out of the link table of [`VOLUME`].
    pub fn take_link(&self, id: FileId) -> Option<LinkEntry> {
        self.links.lock().remove(&(VOLUME, id))
    }

    /// Puts a row into the link table of [`VOLUME`].
    pub fn put_link(&self, row: LinkEntry) {
        self.links.lock().insert((VOLUME, row.inode.id), row);
    }

    /// The newest root of a volume is this one.
    pub fn put_root(&self, volume: VolumeId, root: Inode) {
        self.roots.lock().insert(volume, root);
    }

    /// Reads of content so far.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// Listings so far.
    pub fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }

    /// Reads wait from now on until they are let go.
    pub fn hold(&self, hold: bool) {
        self.held.lock().hold = hold;
        self.changed.notify_all();
    }

    /// Reads that begin at `from` wait from now on until they are let go.
    pub fn hold_from(&self, from: Option<u64>) {
        self.held.lock().from = from;
        self.changed.notify_all();
    }

    /// Returns when this many reads wait.
    pub fn await_waiting(&self, reads: usize) {
        let mut held = self.held.lock();
        while held.waiting < reads {
            self.changed.wait(&mut held);
        }
    }

    fn check(&self) -> std::result::Result<(), PortError> {
        if patience::check(patience::Wait::Mesh).is_err() {
            return Err(PortError::Disk("the mesh was asked on a thread that must not wait for it".into()));
        }
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        self.failure.lock().clone().map_or(Ok(()), Err)
    }

    /// Publishes a directory. Equal ones are one.
    pub fn put_directory(&self, entries: Vec<Entry>) -> Result<TreeRef> {
        let names = entries.iter().map(|entry| (entry.name.clone(), entry.target.id())).collect();
        let mut published = self.published.lock();
        let alike = published.entry(names).or_default();
        let is_equal = |tree: &&TreeRef| self.directories.lock().get(&tree.node.id()) == Some(&entries);
        if let Some(tree) = alike.iter().find(is_equal) {
            return Ok(tree.clone());
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let keys = VolumeKeys::new(VolumeId([7; 16]), 0, Secret::new([7; 32]));
        let node = Sealer::new(&keys).prepare(Kind::Node, &number.to_be_bytes());
        let node = node.map_err(|error| VfsError::Damaged(error.to_string()))?.reference;
        let weight = entries.len() as u64;
        self.directories.lock().insert(node.id(), entries);
        let tree = TreeRef { node, depth: 0, weight };
        alike.push(tree.clone());
        Ok(tree)
    }

    /// How many rows the link table of a volume has.
    pub fn rows(&self, volume: VolumeId) -> usize {
        self.links.lock().keys().filter(|(of, _)| *of == volume).count()
    }

    /// An error where a row of the link table of a volume has not just as many names in the tree as it says.
    fn check_links(&self, volume: VolumeId, root: &Inode) -> Result<()> {
        let links = self.links.lock();
        let rows: BTreeMap<FileId, u32> =
            links.iter().filter(|((of, _), _)| *of == volume).map(|((_, id), row)| (*id, row.links)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let directories = self.directories.lock();
        let (mut names, mut waiting) = (BTreeMap::new(), vec![&root.content]);
        while let Some(content) = waiting.pop() {
            let Content::Directory(tree) = content else { continue };
            for entry in directories.get(&tree.node.id()).into_iter().flatten() {
                match &entry.target {
                    Target::Link(id) => *names.entry(*id).or_insert(0) += 1,
                    Target::Inode(inode) => waiting.push(&inode.content),
                    Target::Volume { .. } => {}
                }
            }
        }
        match rows == names {
            true => Ok(()),
            false => Err(VfsError::Damaged(format!("the link table has {rows:?}, and the tree {names:?}"))),
        }
    }
}

impl RemoteTree for MemoryRemote {
    fn list(&self, directory: &TreeRef) -> std::result::Result<Vec<Entry>, PortError> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        let found = self.directories.lock().get(&directory.node.id()).cloned();
        found.ok_or(PortError::NotFound("a directory that was never published".into()))
    }

    fn link(&self, volume: VolumeId, id: FileId) -> std::result::Result<LinkEntry, PortError> {
        self.check()?;
        self.links.lock().get(&(volume, id)).cloned().ok_or(PortError::NotFound(format!("{id} in the link table")))
    }

    fn read(&self, content: &Content, range: Range<u64>) -> std::result::Result<Vec<(u64, Bytes)>, PortError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut held = self.held.lock();
        held.waiting += 1;
        self.changed.notify_all();
        while held.hold || held.from == Some(range.start) {
            self.changed.wait(&mut held);
        }
        held.waiting -= 1;
        drop(held);
        self.check()?;
        let Content::Inline(bytes) = content else {
            return Err(PortError::NotFound("content of another kind".into()));
        };
        let end = range.end.min(bytes.len() as u64);
        let mut at = range.start / Self::EXTENT * Self::EXTENT;
        let mut extents = Vec::new();
        while at < end {
            let stop = (at + Self::EXTENT).min(bytes.len() as u64);
            let piece = &bytes[at as usize..stop as usize];
            // Holes are left out.
            if piece.iter().any(|byte| *byte != 0) {
                extents.push((at, Bytes::copy_from_slice(piece)));
            }
            at = stop;
        }
        Ok(extents)
    }

    fn seek(&self, content: &Content, from: u64, wanted: Stretch) -> std::result::Result<Option<u64>, PortError> {
        self.check()?;
        let Content::Inline(bytes) = content else {
            return Err(PortError::NotFound("content of another kind".into()));
        };
        let pieces = bytes.chunks(Self::EXTENT as usize).zip((0..).step_by(Self::EXTENT as usize));
        let found = pieces.map(|(piece, at)| {
            let is_data = piece.iter().any(|byte| *byte != 0);
            (at, at + piece.len() as u64, if is_data { Stretch::Data } else { Stretch::Hole })
        });
        Ok(found.filter(|(_, end, is)| *end > from && *is == wanted).map(|(at, ..)| at.max(from)).next())
    }

    fn root(&self, volume: VolumeId, enter: &mut dyn FnMut(Inode)) -> std::result::Result<(), PortError> {
        self.check()?;
        let root = self.roots.lock().get(&volume).cloned();
        root.map(enter).ok_or(PortError::NotFound(format!("volume {volume}")))
    }
}

/// The volume whose root is the uppermost, in tests.
pub const VOLUME: VolumeId = VolumeId([1; 16]);

/// What the agent's uploader does, in short: cut, read, publish, mark. Returns the root, if anything was dirty.
pub fn publish(vfs: &Vfs, remote: &MemoryRemote) -> Result<Option<Inode>> {
    publish_volume(vfs, remote, VOLUME)
}

/// The same with another volume of the tree.
pub fn publish_volume(vfs: &Vfs, remote: &MemoryRemote, volume: VolumeId) -> Result<Option<Inode>> {
    let cut = vfs.cut(volume)?;
    let done = publish_cut(vfs, remote, &cut);
    vfs.end_cut();
    done
}

fn publish_cut(vfs: &Vfs, remote: &MemoryRemote, cut: &Cut) -> Result<Option<Inode>> {
    let (root, synced) = put_cut(vfs, remote, cut)?;
    vfs.mark_synced(cut.volume, cut.seq, synced)?;
    Ok(root)
}

/// Reads and publishes a cut, as far as the working tree hears nothing of it.
pub fn put_cut(vfs: &Vfs, remote: &MemoryRemote, cut: &Cut) -> Result<(Option<Inode>, Vec<Synced>)> {
    let mut synced = Vec::new();
    let mut published: HashMap<u64, Content> = HashMap::new();
    for row in &cut.linked {
        let one = publish_row(vfs, row)?;
        let links = row.nlink;
        remote
            .links
            .lock()
            .insert((cut.volume, row.id), LinkEntry { inode: inode(row, (*one.content).clone()), links });
        synced.push(one);
    }
    for id in &cut.unlinked {
        remote.links.lock().remove(&(cut.volume, *id));
    }
    let mut root = None;
    for directory in &cut.directories {
        let mut entries = Vec::new();
        for entry in directory.entries.iter().flatten() {
            if let Some(volume) = entry.volume {
                let target = Target::Volume { volume, id: entry.inode.id() };
                entries.push(Entry { name: entry.name.to_vec(), dot: DOT, target });
                continue;
            }
            let target = match &entry.row() {
                None => Target::Link(entry.inode.id()),
                Some(row) => {
                    let content = match (&row.remote, entry.dirty, row.kind) {
                        (Some(content), false, _) => content.clone(),
                        (_, true, FileKind::Directory) => match published.get(&entry.ino) {
                            Some(content) => content.clone(),
                            None => return Err(VfsError::Damaged("a child came after its parent".into())),
                        },
                        (None, false, _) => return Err(VfsError::Damaged("clean but never published".into())),
                        (_, true, _) => {
                            let one = publish_row(vfs, row)?;
                            synced.push(one.clone());
                            *one.content
                        }
                    };
                    Target::Inode(Box::new(inode(row, content)))
                }
            };
            entries.push(Entry { name: entry.name.to_vec(), dot: DOT, target });
        }
        let content = match (&directory.entries, &directory.row.remote) {
            (Some(_), _) => Content::Directory(remote.put_directory(entries)?),
            (None, Some(content)) => content.clone(),
            (None, None) => return Err(VfsError::Damaged("a directory without entries".into())),
        };
        published.insert(directory.row.ino, content.clone());
        root = Some(inode(&directory.row, content.clone()));
        synced.push(Synced { ino: directory.row.ino, content: Box::new(content), stamp: None });
    }
    if let Some(root) = &root {
        remote.check_links(cut.volume, root)?;
    }
    Ok((root, synced))
}

const DOT: Dot = Dot { device: DeviceTag(1), sequence: 1 };

fn publish_row(vfs: &Vfs, row: &InodeRow) -> Result<Synced> {
    let ino = row.ino;
    if row.kind == FileKind::Symlink {
        return Ok(Synced { ino, content: Box::new(Content::Symlink(row.symlink.clone())), stamp: None });
    }
    if row.kind != FileKind::Regular {
        return Ok(Synced { ino, content: Box::new(Content::Empty), stamp: None });
    }
    if let (Some(content), Local::Absent | Local::Clean { .. }) = (&row.remote, row.local) {
        return Ok(Synced { ino, content: Box::new(content.clone()), stamp: None });
    }
    let Some((file, stamp)) = vfs.open_backing(ino)? else {
        return Ok(Synced { ino, content: Box::new(Content::Empty), stamp: None });
    };
    // It may be truncated meanwhile; then it stays dirty, because its stamp is another.
    let mut bytes = Vec::new();
    file.take(stamp.size).read_to_end(&mut bytes)?;
    let content = if bytes.is_empty() { Content::Empty } else { Content::Inline(bytes) };
    Ok(Synced { ino, content: Box::new(content), stamp: Some(stamp) })
}

fn inode(row: &InodeRow, content: Content) -> Inode {
    Inode {
        id: row.id,
        kind: row.kind,
        mode: row.mode,
        uid: row.uid,
        gid: row.gid,
        rdev: row.rdev,
        mtime: row.mtime,
        ctime: row.ctime,
        xattrs: row.xattrs.clone(),
        content,
        meta_dot: DOT,
        content_dot: None,
        older: None,
    }
}

/// Calls `unmount` at SIGINT and SIGTERM, until it says that it worked. Must come before other threads are started
/// that should not get these signals; the examples use it.
pub fn unmount_at_signal(unmount: impl Fn() -> bool + Send + 'static) -> std::io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before it is used, and the calls only read it.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigaddset(&mut set, libc::SIGTERM);
        set
    };
    // Every thread would have to block them; a handler that writes to a pipe works with any.
    let (read, write) = std::os::unix::net::UnixStream::pair()?;
    let write = std::os::fd::IntoRawFd::into_raw_fd(write);
    SIGNAL_PIPE.store(write, Ordering::SeqCst);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler only calls write(2), which may be called from one.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_mask = set;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        if action != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut read = read;
        let mut byte = [0; 1];
        while read.read(&mut byte).is_ok_and(|read| read == 1) {
            if unmount() {
                return;
            }
        }
    })?;
    Ok(())
}

static SIGNAL_PIPE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: write(2) may be called from a signal handler, and the buffer is a constant.
    unsafe { libc::write(SIGNAL_PIPE.load(Ordering::SeqCst), b"x".as_ptr().cast(), 1) };
}
