//! The hot metadata: inodes and names in memory, what of them waits for a commit, and what of them the mesh does
//! not have yet.
//!
//! Invariants: an inode in memory has its parent in memory, up to the root, so that a change can be noted on the way
//! up; what is not committed or not uploaded stays in memory; the root does too. An operation that meets something
//! missing returns a [`Need`] before it has changed anything, and is run again once that is loaded.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::limits::{INO_RESERVE, NAME_MAX};
use hypernet_core::port::{Durability, InodeRow};
use hypernet_core::time::Timespec;
use rustix::time::{ClockId, clock_gettime};

use super::VfsError;
use super::branches::Branches;
use super::node::{Dir, Entries, Node, ROOT};
use super::volumes::Held;

/// Why an operation did not come about.
#[derive(Debug)]
pub(super) enum Need {
    /// This inode must be loaded first.
    Node(u64),
    /// The entries of this directory must be loaded first.
    Dir(u64),
    /// Its volume holds still, until then at most.
    Paused(std::time::Instant),
    /// It failed.
    Fail(VfsError),
}

impl From<VfsError> for Need {
    fn from(error: VfsError) -> Self {
        Self::Fail(error)
    }
}

pub(super) type Step<T> = Result<T, Need>;

/// Inode numbers are given out in order; spreading them needs no more than a multiplication.
#[derive(Default)]
pub(super) struct InoHasher(u64);

impl Hasher for InoHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(8) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    fn write_u64(&mut self, ino: u64) {
        self.0 = ino.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) type InoMap<T> = HashMap<u64, T, BuildHasherDefault<InoHasher>>;
pub(super) type InoSet = HashSet<u64, BuildHasherDefault<InoHasher>>;

/// A change that waits for its commit. Rows are made when the batch is closed, so a row is written once per batch.
#[derive(Debug)]
pub(super) enum Op {
    Put(u64),
    PutRow(Box<InodeRow>),
    Remove(u64),
    Link { parent: u64, name: Box<[u8]>, ino: u64 },
    Unlink { parent: u64, name: Box<[u8]> },
    NextIno(u64),
}

/// A file that has no name any more, and of which the published link table may have a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tomb {
    pub(super) id: FileId,
    pub(super) changed: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) nodes: InoMap<Box<Node>>,
    pub(super) ops: Vec<Op>,
    /// The batch that is being filled, from 1.
    pub(super) batch: u64,
    /// All batches up to this one survive the loss of power.
    pub(super) committed: u64,
    /// Changes of the batch whose commit failed; they wait beside `ops`.
    pub(super) stuck: usize,
    /// Whether the commit thread knows that there is work.
    pub(super) armed: bool,
    /// Inodes that are gone but whose rows are still in the store, with the batch that removes them.
    pub(super) gone: InoMap<u64>,
    /// Inodes in memory that have or had several names, by their volume's root and their id.
    pub(super) linked: HashMap<(u64, FileId), u64>,
    /// Counts changes of which inodes have several names, and where these are.
    pub(super) relinked: u64,
    pub(super) next_ino: u64,
    pub(super) reserved: u64,
    /// Number of the last change.
    pub(super) clock: u64,
    pub(super) tick: u32,
    /// Something left memory since an unlocked read of the store with an older number began.
    pub(super) epoch: u64,
    /// Files written to since the last flush.
    pub(super) unsynced: InoSet,
    /// Files whose flush failed: the kernel tells that once, and the next fsync must hear of it.
    pub(super) unflushed: InoSet,
    /// Files of which a write failed since they were last opened.
    pub(super) unwritten: InoSet,
    /// Files whose dirty mark was committed on its own since the last batch was closed.
    pub(super) marked: InoSet,
    /// Files that are written to by somebody whose dirty mark is on its way to the store: whoever opens one waits for it, too.
    pub(super) unmarked: InoSet,
    /// Files whose dirty mark would not outlive the loss of power, with the batch that brings it.
    pub(super) weakly_marked: InoMap<u64>,
    /// Files open for writing: nobody reports what is written to them in passthrough.
    pub(super) watch: BTreeSet<u64>,
    /// Those of them whose size or times have moved since the kernel was last shown them.
    pub(super) stale: BTreeSet<u64>,
    /// A kernel knows of inodes, and says when it forgets one.
    pub(super) mounted: bool,
    /// And tells of the times of what it writes: those that its writes leave on the backing files are others.
    pub(super) told_times: bool,
    /// Inodes without a name that the kernel has not forgotten. It may have looked one up just before the name was gone:
    /// whoever opens it then must find it. Somebody may be in a directory, or hold it open without a word to us.
    pub(super) known: InoSet,
    /// Of those, and of what is open, files whose names lead to others with the same id: what others have made of them.
    pub(super) replaced: InoSet,
    /// Inodes that the kernel knows and that are not in memory, with the times that it was told of them.
    pub(super) away: InoMap<u16>,
    /// Somebody needs much of the tree at once: nothing leaves memory meanwhile.
    pub(super) pinned: u32,
    /// Counts the volumes that were moved on to another snapshot: what was listed before that may be of the one before.
    pub(super) advanced: u64,
    /// Handles that were closed while their file may be mapped for writing, by inode; they count as open.
    pub(super) lingering: BTreeMap<u64, u32>,
    /// Backing files to remove once the removal of their inode is on stable storage.
    pub(super) doomed: Vec<u64>,
    /// Of those, the ones that a cut may still read.
    pub(super) held: Vec<u64>,
    /// Backing files of what counts as absent from this batch on: they go when it is on stable storage, if nothing is here
    /// again by then.
    pub(super) given_up: Vec<u64>,
    /// Backing files that are being removed.
    pub(super) removing: InoSet,
    pub(super) cuts: u32,
    /// Inodes from this one on were made since the last cut, or since this device has begun.
    pub(super) uncut: u64,
    /// By their roots.
    pub(super) volumes: BTreeMap<u64, Held>,
    /// Those in which nothing may be changed, in the tree or not.
    pub(super) read_only: BTreeSet<VolumeId>,
    /// Those that go with their names.
    pub(super) leaving: BTreeSet<VolumeId>,
    /// Roots that a mount of their own shows.
    pub(super) shown: BTreeSet<u64>,
    /// How volumes without a name in the tree are found.
    pub(super) branches: Branches,
    /// Roots of volumes that hold still, each with the time after which nobody waits for that.
    pub(super) paused: BTreeMap<u64, std::time::Instant>,
    /// Threads that wait for one of them.
    pub(super) stopped: usize,
    /// Threads that wait for a change.
    pub(super) waiters: u32,
}

/// The time that files get: of the same coarse clock that the kernel takes for the backing files.
pub(super) fn now() -> Timespec {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    Timespec { seconds: now.tv_sec, nanos: now.tv_nsec as u32 }
}

/// The times that a file can have: those of ext4, which backing files are mostly kept on.
pub(super) const EARLIEST: i64 = i32::MIN as i64;
pub(super) const LATEST: i64 = EARLIEST + (1 << 34) - 1;

/// The nearest time that a file can have, as the kernel chooses it: at either end without nanoseconds.
pub(super) fn fit(time: Timespec) -> Timespec {
    match time.seconds.clamp(EARLIEST, LATEST) {
        seconds @ (EARLIEST | LATEST) => Timespec { seconds, nanos: 0 },
        seconds => Timespec { seconds, nanos: time.nanos.min(999_999_999) },
    }
}

pub(super) fn check_name(name: &[u8]) -> Result<(), VfsError> {
    match name {
        [] => Err(VfsError::NotFound),
        [b'.'] | [b'.', b'.'] => Err(VfsError::Invalid),
        _ if name.len() > NAME_MAX => Err(VfsError::NameTooLong),
        _ if name.iter().any(|b| matches!(b, b'/' | 0)) => Err(VfsError::Invalid),
        _ => Ok(()),
    }
}

impl State {
    pub(super) fn new(next_ino: u64) -> Self {
        Self {
            nodes: InoMap::default(),
            ops: Vec::new(),
            batch: 1,
            committed: 0,
            stuck: 0,
            armed: false,
            gone: InoMap::default(),
            linked: HashMap::new(),
            relinked: 0,
            next_ino,
            reserved: next_ino,
            clock: 0,
            tick: 1,
            epoch: 0,
            unsynced: InoSet::default(),
            unflushed: InoSet::default(),
            unwritten: InoSet::default(),
            marked: InoSet::default(),
            unmarked: InoSet::default(),
            weakly_marked: InoMap::default(),
            watch: BTreeSet::new(),
            stale: BTreeSet::new(),
            mounted: false,
            told_times: false,
            known: InoSet::default(),
            replaced: InoSet::default(),
            away: InoMap::default(),
            pinned: 0,
            advanced: 0,
            lingering: BTreeMap::new(),
            doomed: Vec::new(),
            given_up: Vec::new(),
            removing: InoSet::default(),
            held: Vec::new(),
            cuts: 0,
            uncut: next_ino,
            volumes: BTreeMap::new(),
            read_only: BTreeSet::new(),
            leaving: BTreeSet::new(),
            shown: BTreeSet::new(),
            branches: Branches::new(),
            paused: BTreeMap::new(),
            stopped: 0,
            waiters: 0,
        }
    }

    // ---- looking ----

    pub(super) fn node(&self, ino: u64) -> Step<&Node> {
        match self.nodes.get(&ino) {
            Some(node) => Ok(node),
            None if self.is_gone(ino) => Err(Need::Fail(VfsError::NotFound)),
            None => Err(Need::Node(ino)),
        }
    }

    fn is_gone(&self, ino: u64) -> bool {
        self.gone.contains_key(&ino) || self.volumes.values().any(|held| held.tombs.contains_key(&ino))
    }

    pub(super) fn node_mut(&mut self, ino: u64) -> Step<&mut Node> {
        self.node(ino)?;
        let tick = self.tick;
        match self.nodes.get_mut(&ino) {
            Some(node) => {
                node.used = tick;
                Ok(node)
            }
            None => Err(Need::Node(ino)),
        }
    }

    fn dir_mut(&mut self, ino: u64) -> Step<&mut Dir> {
        self.node_mut(ino)?.dir.as_deref_mut().ok_or(Need::Fail(VfsError::NotDirectory))
    }

    pub(super) fn entries(&self, ino: u64) -> Step<&Entries> {
        let dir = self.node(ino)?.dir.as_ref().ok_or(VfsError::NotDirectory)?;
        dir.entries.as_ref().ok_or(Need::Dir(ino))
    }

    pub(super) fn entries_mut(&mut self, ino: u64) -> Step<&mut Entries> {
        self.dir_mut(ino)?.entries.as_mut().ok_or(Need::Dir(ino))
    }

    /// The inode behind a name, which is in memory when this returns one.
    pub(super) fn child(&self, parent: u64, name: &[u8]) -> Step<Option<u64>> {
        match self.entries(parent)?.get(name) {
            Some(&ino) => self.node(ino).map(|_| Some(ino)),
            None => Ok(None),
        }
    }

    /// A directory in which a name can be made.
    pub(super) fn live_dir(&self, ino: u64) -> Step<&Node> {
        self.entries(ino)?;
        let node = self.node(ino)?;
        if node.nlink == 0 {
            return Err(VfsError::NotFound.into());
        }
        Ok(node)
    }

    /// Whether `ino` is `below` or one of its ancestors.
    pub(super) fn is_ancestor(&self, ino: u64, below: u64) -> Step<bool> {
        let mut at = below;
        loop {
            if at == ino {
                return Ok(true);
            }
            if at == ROOT || at == 0 {
                return Ok(false);
            }
            at = self.node(at)?.parent;
        }
    }

    /// Changes that wait for a commit.
    pub(super) fn waiting(&self) -> usize {
        self.ops.len() + self.stuck
    }

    // ---- changing ----

    /// The row of `ino` goes into the current batch.
    pub(super) fn queue(&mut self, ino: u64) {
        let batch = self.batch;
        if let Some(node) = self.nodes.get_mut(&ino)
            && node.queued != batch
        {
            node.queued = batch;
            self.ops.push(Op::Put(ino));
        }
    }

    /// Whether a file that may be written to is found to be dirty after a crash that leaves as much as this.
    pub(super) fn is_marked(&self, ino: u64, durability: Durability) -> bool {
        let is_weak = durability == Durability::Power && self.weakly_marked.contains_key(&ino);
        !is_weak && !self.unmarked.contains(&ino)
    }

    /// As [`Self::queue`], and an fsync of `ino` must wait for it.
    pub(super) fn queue_needed(&mut self, ino: u64) {
        self.queue(ino);
        let batch = self.batch;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.needs = batch;
        }
    }

    /// Notes a change that snapshots show, on the inode and on the way up to the root of its volume.
    pub(super) fn touch(&mut self, ino: u64) {
        self.clock += 1;
        let clock = self.clock;
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if node.nlink == 0 || node.is_lost() {
            // A record that is made up must not reach a snapshot.
            return;
        }
        node.changed = clock;
        let root = self.mark_above(ino);
        if let Some(held) = self.volumes.get_mut(&root) {
            held.add(ino, clock);
        }
    }

    /// Notes in all directories above an inode that it has changed. Returns the root of its volume.
    pub(super) fn mark_above(&mut self, ino: u64) -> u64 {
        let Some(node) = self.nodes.get(&ino) else { return ROOT };
        let clock = node.changed;
        let mut root = if node.volume().is_some() { Some(ino) } else { None };
        let mut at = node.parent;
        while root.is_none()
            && let Some(node) = self.nodes.get_mut(&at)
            && let Some(dir) = node.dir.as_mut()
        {
            dir.below = dir.below.max(clock);
            root = dir.volume.map(|_| at);
            at = node.parent;
        }
        root.unwrap_or(ROOT)
    }

    /// Notes a change of attributes: ctime, commit and upload.
    pub(super) fn changed(&mut self, ino: u64) {
        let time = now();
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.set_ctime(time);
        }
        self.queue_needed(ino);
        self.touch(ino);
    }

    /// As [`Self::changed`] for a directory whose entries changed.
    pub(super) fn entries_changed(&mut self, ino: u64) {
        let time = now();
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.set_mtime(time);
        }
        self.changed(ino);
    }

    pub(super) fn clean(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.changed = 0;
        }
        for held in self.volumes.values_mut() {
            held.clean(ino);
        }
    }

    /// It is not the volume of this root any more that lacks it on the mesh.
    pub(super) fn clean_in(&mut self, root: u64, ino: u64) {
        if let Some(held) = self.volumes.get_mut(&root) {
            held.clean(ino);
        }
    }

    pub(super) fn alloc_ino(&mut self) -> u64 {
        let ino = self.next_ino;
        self.next_ino += 1;
        if self.next_ino + INO_RESERVE / 2 > self.reserved {
            self.reserved = self.next_ino + INO_RESERVE;
            self.ops.push(Op::NextIno(self.reserved));
        }
        ino
    }

    /// Takes an inode into memory. Its parent is there already.
    pub(super) fn insert(&mut self, ino: u64, mut node: Node) {
        node.used = self.tick;
        node.told = self.away.remove(&ino).unwrap_or(node.told);
        let parent = node.parent;
        if node.linked {
            self.linked.insert((parent, node.id), ino);
        }
        if let Some(volume) = node.volume() {
            self.volumes.entry(ino).or_insert_with(|| Held::new(volume));
        }
        if self.nodes.insert(ino, Box::new(node)).is_none() {
            self.kid(parent, 1);
        }
    }

    /// The kernel is told of an inode once more.
    pub(super) fn tell(&mut self, ino: u64) {
        let told = match self.nodes.get_mut(&ino) {
            Some(node) => &mut node.told,
            None => self.away.entry(ino).or_default(),
        };
        *told = told.saturating_add(1);
    }

    /// Lets an inode go from memory.
    pub(super) fn forget(&mut self, ino: u64) -> Option<Box<Node>> {
        let node = self.nodes.remove(&ino)?;
        self.kid(node.parent, -1);
        if node.linked {
            self.linked.remove(&(node.parent, node.id));
        }
        Some(node)
    }

    fn kid(&mut self, parent: u64, by: i32) {
        if let Some(dir) = self.nodes.get_mut(&parent).and_then(|node| node.dir.as_mut()) {
            dir.kids = dir.kids.saturating_add_signed(by);
        }
    }

    /// Gives an inode another parent, or none.
    pub(super) fn set_parent(&mut self, ino: u64, parent: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let old = std::mem::replace(&mut node.parent, parent);
        self.kid(old, -1);
        self.kid(parent, 1);
    }

    /// What has several names is not where it was.
    pub(super) fn note_relinked(&mut self) {
        self.relinked += 1;
    }

    /// From now on an inode counts as one with several names, in the volume of this root.
    pub(super) fn relink(&mut self, ino: u64, root: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let (id, before) = (node.id, node.parent);
        if std::mem::replace(&mut node.linked, true) {
            self.linked.remove(&(before, id));
        }
        self.linked.insert((root, id), ino);
        self.set_parent(ino, root);
        self.note_relinked();
    }

    /// From now on it counts as one with one name, which is in this directory; 0 for none.
    pub(super) fn unlink_record(&mut self, ino: u64, parent: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        let (id, root) = (node.id, node.parent);
        if std::mem::replace(&mut node.linked, false) && self.linked.get(&(root, id)) == Some(&ino) {
            self.linked.remove(&(root, id));
        }
        self.set_parent(ino, parent);
        self.note_relinked();
    }

    /// Adds to the number of names or, of a directory, of subdirectories.
    pub(super) fn add_links(&mut self, ino: u64, by: i32) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.nlink = node.nlink.saturating_add_signed(by);
        }
    }

    /// Puts a name in a directory whose entries are loaded.
    pub(super) fn add_name(&mut self, parent: u64, name: &[u8], ino: u64) -> Step<()> {
        self.entries_mut(parent)?.insert(name.into(), ino);
        self.ops.push(Op::Link { parent, name: name.into(), ino });
        Ok(())
    }

    /// Takes a name out of a directory whose entries are loaded.
    pub(super) fn remove_name(&mut self, parent: u64, name: &[u8]) -> Step<()> {
        self.entries_mut(parent)?.remove(name);
        self.ops.push(Op::Unlink { parent, name: name.into() });
        Ok(())
    }

    /// Follows up on the loss of an inode's last name.
    pub(super) fn orphaned(&mut self, ino: u64) {
        if self.mounted && self.nodes.contains_key(&ino) {
            self.known.insert(ino);
        }
        self.lose(ino);
    }

    /// The same, where it was not the kernel that took the name: it says that it forgets an inode only if it was told of
    /// it.
    pub(super) fn vanished(&mut self, ino: u64) {
        if self.mounted && self.nodes.get(&ino).is_some_and(|node| node.told > 0) {
            self.known.insert(ino);
        }
        self.lose(ino);
    }

    fn lose(&mut self, ino: u64) {
        self.clean(ino);
        if self.may_have_row(ino)
            && let Some(node) = self.nodes.get(&ino)
        {
            // At once, whoever has it open: a row without a name says that this device has not seen it taken away.
            let (id, root) = (node.id, node.parent);
            self.clock += 1;
            let changed = self.clock;
            self.add_tomb(root, ino, Tomb { id, changed });
        }
        if self.nodes.get(&ino).is_some_and(|node| !node.linked) {
            self.set_parent(ino, 0);
        }
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.nlink = 0;
        if node.is_dir() {
            node.set_ctime(now());
        }
        if self.is_free(ino) {
            self.bury(ino);
        } else {
            self.queue_needed(ino);
        }
    }

    /// The link table of the volume of this root has a row that it must lose.
    pub(super) fn add_tomb(&mut self, root: u64, ino: u64, tomb: Tomb) {
        if let Some(held) = self.volumes.get_mut(&root) {
            held.changed = tomb.changed;
            held.tombs.insert(ino, tomb);
        }
        if let Some(dir) = self.nodes.get_mut(&root).and_then(|root| root.dir.as_mut()) {
            dir.below = tomb.changed;
        }
    }

    /// Whether the published link table may have a row of an inode: also of one that was cut, and of which it is not known whether
    /// that was published.
    pub(super) fn may_have_row(&self, ino: u64) -> bool {
        self.nodes.get(&ino).is_some_and(|node| node.linked && (node.remote.is_some() || ino < self.uncut))
    }

    /// The link table has lost its row.
    pub(super) fn end_tomb(&mut self, ino: u64) {
        if self.nodes.contains_key(&ino) {
            // Somebody has it open.
            self.unlink_record(ino, 0);
            self.queue(ino);
        } else {
            self.gone.insert(ino, self.batch);
            self.ops.push(Op::Remove(ino));
        }
    }

    /// An inode that nobody has, and nobody can get at any more.
    pub(super) fn is_free(&self, ino: u64) -> bool {
        !self.known.contains(&ino) && self.nodes.get(&ino).is_some_and(|node| node.nlink == 0 && node.handles() == 0)
    }

    /// Removes an inode that [is free](Self::is_free).
    pub(super) fn bury(&mut self, ino: u64) {
        let Some(node) = self.nodes.get(&ino) else { return };
        let is_file = node.is_file();
        if self.volumes.get(&node.parent).is_some_and(|held| held.tombs.contains_key(&ino)) {
            // Its row stays as a mark that the link table still has it, so that a restart does not forget that.
            let row = Box::new(InodeRow { nlink: 0, ..node.row(ino) });
            self.ops.push(Op::PutRow(row));
        } else {
            self.ops.push(Op::Remove(ino));
        }
        self.gone.insert(ino, self.batch);
        self.watch.remove(&ino);
        self.unsynced.remove(&ino);
        self.unwritten.remove(&ino);
        self.replaced.remove(&ino);
        self.clean(ino);
        if is_file {
            self.doomed.push(ino);
        }
        self.forget(ino);
    }
}
