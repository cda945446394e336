//! What the uploader sees: a consistent cut of everything the mesh does not have yet, and the way back once it has.
//!
//! Each change gets a number. An inode remembers the number of its last change, a directory also the newest in its
//! subtree. A cut is taken under the lock; its content is read afterwards, from backing files that are not removed
//! before the cut ends. What changed after the cut stays dirty.

use std::fs::File;
use std::io;
use std::time::Duration;

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::port::{InodeRow, Local};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, FileKind};

use super::backing::Stat;
use super::file::is_racy;
use super::node::Node;
use super::state::{Need, State, Step};
use super::{Result, Vfs, VfsError};

/// The dirty part of a volume at one moment.
#[derive(Debug)]
pub struct Cut {
    /// The volume.
    pub volume: VolumeId,
    /// Its root.
    pub root: u64,
    /// The number of the last change that is in it.
    pub seq: u64,
    /// Every directory that is dirty itself or below, children before parents: the root comes last.
    pub directories: Vec<CutDirectory>,
    /// Inodes with several names that are dirty: rows of the link table.
    pub linked: Vec<InodeRow>,
    /// Inodes whose rows the link table must lose.
    pub unlinked: Vec<FileId>,
}

impl Cut {
    /// Nothing has changed since the last one.
    pub fn is_empty(&self) -> bool {
        self.directories.is_empty() && self.linked.is_empty() && self.unlinked.is_empty()
    }

    /// Files that are dirty, and the bytes that are to be read of them.
    pub fn to_read(&self) -> (u64, u64) {
        let named = self.directories.iter().flat_map(|directory| directory.entries.iter().flatten());
        let named = named.filter(|entry| entry.dirty && !entry.inode.is_linked());
        let named = named.map(|entry| (entry.inode.kind(), entry.inode.0.local(), entry.inode.0.size));
        let linked = self.linked.iter().map(|row| (row.kind, row.local, row.size));
        let files = named.chain(linked).filter(|(kind, ..)| *kind == FileKind::Regular);
        files.fold((0, 0), |(files, bytes), (_, local, size)| {
            (files + 1, bytes + if local == Local::Complete { size } else { 0 })
        })
    }
}

/// A directory of a cut.
#[derive(Debug)]
pub struct CutDirectory {
    /// Its attributes. Those of the root stand nowhere else.
    pub row: InodeRow,
    /// All its entries, in bytewise order; `None` when only attributes changed and its published content still holds.
    pub entries: Option<Vec<CutEntry>>,
}

/// An entry of a directory of a cut.
#[derive(Debug)]
pub struct CutEntry {
    /// Name.
    pub name: Box<[u8]>,
    /// Inode.
    pub ino: u64,
    /// What it was.
    pub inode: Frozen,
    /// It (or, of a directory, something below) is not published as it is. A clean entry's published content holds.
    pub dirty: bool,
    /// The root of another volume: what it holds is not part of this cut.
    pub volume: Option<VolumeId>,
}

impl CutEntry {
    /// Its record, unless that stands in the link table. Content is unchanged where `local` is not `Complete` and
    /// `remote` is there.
    pub fn row(&self) -> Option<InodeRow> {
        (!self.inode.is_linked()).then(|| self.inode.0.row(self.ino))
    }
}

/// An inode as it was at the moment of a cut, in as little space as the tree keeps it in: a cut may have a million.
#[derive(Debug)]
pub struct Frozen(Node);

impl Frozen {
    /// Its id.
    pub fn id(&self) -> FileId {
        self.0.id
    }

    /// What it is.
    pub fn kind(&self) -> FileKind {
        self.0.kind
    }

    /// The root of another volume of which nothing was found yet.
    pub fn is_vacant(&self) -> bool {
        self.0.remote.is_none() && self.0.local() == Local::Absent
    }

    /// Something of it was published, here or under another name.
    pub fn is_published(&self) -> bool {
        self.0.remote.is_some()
    }

    /// Its record is in the link table.
    pub fn is_linked(&self) -> bool {
        self.0.linked
    }
}

/// How a backing file was when its content was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `st_size`.
    pub size: u64,
    /// `st_ctime`.
    pub ctime: Timespec,
    /// A write right after this was taken could leave the same.
    pub racy: bool,
}

impl Stamp {
    /// The stamp of a backing file; taken before its content is read.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Stat::of(file)?.into())
    }
}

impl From<Stat> for Stamp {
    fn from(stat: Stat) -> Self {
        Self { size: stat.size, ctime: stat.ctime, racy: is_racy(stat.ctime) }
    }
}

/// An inode of a cut that the mesh has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Inode.
    pub ino: u64,
    /// What was published.
    pub content: Box<Content>,
    /// The stamp of the backing file that was read for it; `None` where none was.
    pub stamp: Option<Stamp>,
}

/// What the mesh does not have yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Inodes.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Since when something has been waiting.
    pub since: Option<Timespec>,
    /// Number of the last change.
    pub seq: u64,
}

impl Vfs {
    /// Notes what was written to open files without a word to us.
    fn poll_writers(&self, state: &mut State) -> Step<()> {
        let watched: Vec<u64> = state.watch.iter().copied().collect();
        for ino in watched {
            self.refresh(state, ino)?;
        }
        Ok(())
    }

    /// Everything of a volume that is dirty now. Backing files stay until [`Self::end_cut`], which must follow. What is in the
    /// cut is committed when this returns: a snapshot that knew more than this device after a crash would take names
    /// for clean whose inodes it lacks.
    pub fn cut(&self, volume: VolumeId) -> Result<Cut> {
        self.cut_and(volume, |_, _| ())
    }

    /// The same; `also` is done at the moment of the cut, with the root of the volume.
    pub(super) fn cut_and(&self, volume: VolumeId, also: impl Fn(&mut State, u64)) -> Result<Cut> {
        self.flush_kernel()?;
        self.let_go()?;
        self.load_dirty_dirs()?;
        let cut = self.run(|state| {
            self.poll_writers(state)?;
            let (seq, root) = (state.clock, state.root_here(volume)?);
            let (directories, linked, unlinked) = (Vec::new(), Vec::new(), Vec::new());
            let mut cut = Cut { volume, root, seq, directories, linked, unlinked };
            if state.node(root)?.is_dirty_within() {
                cut_directory(state, root, &mut cut.directories)?;
            }
            let held = state.held(root)?;
            cut.unlinked = held.tombs.values().map(|tomb| tomb.id).collect();
            let dirty: Vec<u64> = held.dirty.iter().copied().collect();
            for ino in dirty {
                let node = state.node(ino)?;
                if node.linked {
                    cut.linked.push(node.row(ino));
                }
            }
            cut.linked.sort_by_key(|row| row.id);
            state.cuts += 1;
            state.uncut = state.next_ino;
            also(state, root);
            Ok(cut)
        })?;
        if let Err(error) = self.commit() {
            self.end_cut();
            self.state.lock().paused.remove(&cut.root);
            self.stilled.notify_all();
            return Err(error);
        }
        Ok(cut)
    }

    /// Returns when what the kernel has only cached has been written. Not from a thread that serves it.
    pub fn flush_kernel(&self) -> Result<()> {
        let kernel = self.invalidate.read().clone();
        match kernel {
            Some(kernel) => {
                let open: Vec<u64> = self.state.lock().watch.iter().copied().collect();
                Ok(kernel.flush(&open)?)
            }
            None => Ok(()),
        }
    }

    /// After a restart the dirty inodes are in memory, but not the entries beside them.
    fn load_dirty_dirs(&self) -> Result<()> {
        let missing: Vec<u64> = {
            let state = self.state.lock();
            let is_missing = |ino: &u64| match state.nodes.get(ino) {
                Some(node) => {
                    node.is_dirty_within()
                        && node.local() != Local::Absent
                        && node.dir.as_ref().is_some_and(|dir| dir.entries.is_none())
                }
                None => false,
            };
            state.nodes.keys().copied().filter(is_missing).collect()
        };
        missing.into_iter().try_for_each(|ino| match self.load_dir(ino) {
            Err(VfsError::NotFound) => Ok(()),
            other => other,
        })
    }

    /// The content of a file of a cut, and how its backing file was before it is read; `None` when there is none (an
    /// empty file, or one that is not here).
    pub fn open_backing(&self, ino: u64) -> Result<Option<(File, Stamp)>> {
        let written = self.state.lock().watch.contains(&ino);
        let Some(file) = self.backing.get(ino)? else { return Ok(None) };
        // Before the pages are protected: a store between the two moves the time, or is read.
        let stamp = Stamp::of(&file)?;
        if written {
            // Pages of a mapping are protected again by this, so that a later store to them changes the times.
            self.sync_content(ino, &file, true)?;
        }
        // A descriptor of its own: the shared one may be closed, and its position moved, at any time.
        let own = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*file)))?;
        Ok(Some((own, stamp)))
    }

    /// The cut is not needed any more; what was unlinked since goes now.
    pub fn end_cut(&self) {
        let mut state = self.state.lock();
        state.cuts = state.cuts.saturating_sub(1);
        if state.cuts == 0 && !state.held.is_empty() {
            let held = std::mem::take(&mut state.held);
            state.doomed.extend(held);
            self.arm(&mut state);
        }
    }

    /// The mesh has these inodes of the cut with this number now. Those that have not changed since are clean; this is on
    /// stable storage when the call returns.
    pub fn mark_synced(&self, volume: VolumeId, seq: u64, mut synced: Vec<Synced>) -> Result<()> {
        let inodes: Vec<u64> = synced.iter().map(|one| one.ino).collect();
        // In portions: nobody waits long for the lock, and what is marked is not kept twice.
        synced.reverse();
        while !synced.is_empty() {
            let some = synced.split_off(synced.len().saturating_sub(1_000));
            self.run_mut(|state| {
                for one in some.iter().rev() {
                    match self.mark_one(state, seq, one) {
                        // What is in a cut is dirty and so in memory, unless it has gone since.
                        Ok(()) | Err(Need::Node(_) | Need::Fail(VfsError::NotFound)) => {}
                        Err(other) => return Err(other),
                    }
                }
                Ok(())
            })?;
        }
        self.run_mut(|state| {
            // The newest change below decides, so children first: `synced` need not be in that order.
            for ino in &inodes {
                if let Some(dir) = state.nodes.get_mut(ino).and_then(|node| node.dir.as_mut())
                    && dir.below <= seq
                {
                    dir.below = 0;
                }
            }
            // What was in the cut but was not published must not be lost under directories that were.
            let root = state.root_here(volume)?;
            let left: Vec<u64> = state.held(root)?.dirty.iter().copied().collect();
            for ino in left {
                if state.nodes.get(&ino).is_some_and(|node| node.changed <= seq) {
                    state.touch(ino);
                }
            }
            let held = state.held(root)?;
            let done: Vec<u64> =
                held.tombs.iter().filter(|(_, tomb)| tomb.changed <= seq).map(|(ino, _)| *ino).collect();
            done.iter().for_each(|ino| _ = held.tombs.remove(ino));
            if !held.dirty.is_empty() {
                held.since = Some(super::state::now());
            }
            done.into_iter().for_each(|ino| state.end_tomb(ino));
            Ok(())
        })?;
        self.commit()
    }

    fn mark_one(&self, state: &mut State, seq: u64, one: &Synced) -> Step<()> {
        self.refresh(state, one.ino)?;
        let node = state.node(one.ino)?;
        let (is_file, local, changed) = (node.is_file(), node.local(), node.changed);
        let stat = if is_file && local == Local::Complete {
            self.backing.stat(one.ino).map_err(VfsError::from)?
        } else {
            None
        };
        let writing = node.writers() > 0;
        let now_local = match (one.stamp, stat) {
            _ if !is_file || local != Local::Complete => Some(local),
            (Some(stamp), Some(stat)) if (stamp.size, stamp.ctime) == (stat.size, stat.ctime) => {
                (!(writing && stamp.racy)).then_some(Local::Clean { size: stat.size, ctime: stat.ctime })
            }
            (None, None) if one.content.size() == 0 => Some(Local::Clean { size: 0, ctime: Timespec::default() }),
            // What it held here is gone from the disk; what the mesh has was published again.
            (None, None) => Some(Local::Absent),
            // Written and then emptied or truncated, but with no content to read: nothing to compare.
            (None, Some(stat)) if stat.size == 0 && one.content.size() == 0 => {
                Some(Local::Clean { size: 0, ctime: stat.ctime })
            }
            _ => None,
        };
        let node = state.node_mut(one.ino)?;
        node.remote = Some(one.content.clone());
        match now_local {
            Some(clean) if changed <= seq => {
                if !is_file {
                    // Of a directory `local` says whether its entries are here, not whether they are published.
                } else if writing {
                    if let Some(open) = node.open.as_mut() {
                        open.clean = Some(clean);
                    }
                } else {
                    node.set_local(clean);
                    self.gauge.add(stat.map_or(0, |stat| stat.bytes()));
                    // The backing file, whose content was published, knows the size better than the row.
                    node.size = one.content.size();
                    state.unsynced.insert(one.ino);
                }
                state.clean(one.ino);
            }
            Some(_) => {}
            // Its content changed while it was read: it is dirty under a number that no cut has yet.
            None => state.touch(one.ino),
        }
        state.queue(one.ino);
        Ok(())
    }

    /// How much of a volume the mesh does not have yet.
    pub fn pending(&self, volume: VolumeId) -> Pending {
        let mut state = self.state.lock();
        // A watched file is open and so in memory: nothing can be missing.
        let _ = self.poll_writers(&mut state);
        drop(state);
        self.tell_stale();
        let state = self.state.lock();
        let Some(held) = state.root(volume).and_then(|root| state.volumes.get(&root)) else {
            return Pending::default();
        };
        let bytes = held.dirty.iter().filter_map(|ino| state.nodes.get(ino)).filter(|node| node.is_file());
        Pending {
            files: (held.dirty.len() + held.tombs.len()) as u64,
            bytes: bytes.filter(|node| node.local() == Local::Complete).map(|node| node.size).sum(),
            since: held.since,
            seq: held.changed,
        }
    }

    /// What is published of all that somebody has open, or has looked up and that has no name any more: they may read it yet.
    pub fn held(&self) -> Vec<Content> {
        self.remotes(|node| node.handles() > 0 || node.nlink == 0)
    }

    /// What is published of all that has no name any more and is open.
    pub fn held_without_name(&self) -> Vec<Content> {
        self.remotes(|node| node.handles() > 0 && node.nlink == 0)
    }

    fn remotes(&self, of: impl Fn(&Node) -> bool) -> Vec<Content> {
        let state = self.state.lock();
        state.nodes.values().filter(|node| of(node)).filter_map(|node| node.remote.as_deref().cloned()).collect()
    }

    /// Waits until something has changed after change `seq`, or for as long as `timeout`; returns the number of the
    /// last change.
    pub fn wait_change(&self, seq: u64, timeout: Duration) -> u64 {
        let until = std::time::Instant::now() + timeout;
        let mut state = self.state.lock();
        while state.clock <= seq {
            state.waiters += 1;
            let timed_out = self.dirtied.wait_until(&mut state, until).timed_out();
            state.waiters -= 1;
            if timed_out {
                let _ = self.poll_writers(&mut state);
                let clock = state.clock;
                drop(state);
                self.tell_stale();
                return clock;
            }
        }
        state.clock
    }
}

/// Appends a dirty directory, after all dirty directories below it. Not recursive: trees may be deep.
fn cut_directory(state: &State, root: u64, out: &mut Vec<CutDirectory>) -> Step<()> {
    let mut stack = vec![root];
    let first = out.len();
    while let Some(ino) = stack.pop() {
        let node = state.node(ino)?;
        let mut cut = CutDirectory { row: node.row(ino), entries: None };
        if node.local() != Local::Absent {
            let entries = state.entries(ino)?;
            let mut list = Vec::with_capacity(entries.len());
            for (name, child) in entries {
                let node = state.nodes.get(child).ok_or(Need::Dir(ino))?;
                let volume = node.volume();
                let dirty = volume.is_none() && node.is_dirty_within();
                if dirty && node.is_dir() {
                    stack.push(*child);
                }
                list.push(CutEntry { name: name.clone(), ino: *child, inode: Frozen(node.at_rest()), dirty, volume });
            }
            cut.entries = Some(list);
        }
        out.push(cut);
    }
    // Parents were taken before their children.
    out[first..].reverse();
    Ok(())
}
