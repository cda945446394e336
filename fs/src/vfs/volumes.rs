//! The volumes of a working tree: the uppermost one, and others whose roots are directories in it.
//!
//! A volume is all that is below its root, down to the roots of others, which have a name in it and nothing else. What one
//! of them lacks on the mesh is kept apart for each, so that each is cut, published and marked by itself. No name leads
//! from one into another but to its root: so rename and link do not cross the border, and a file with several names
//! belongs to one volume.
//!
//! Invariant: the roots are in memory, and so is all that is above them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::limits::FS_VOLUMES_MAX;
use hypernet_core::port::{InodeRow, Local};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, FileKind, Inode};

use super::node::{Node, ROOT};
use super::state::{InoSet, Need, Op, State, Step, Tomb, check_name, now};
use super::{Attr, Caller, Result, Vfs, VfsError};

/// What the mesh lacks of a volume.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) volume: VolumeId,
    pub(super) dirty: InoSet,
    pub(super) since: Option<Timespec>,
    /// Number of the last change.
    pub(super) changed: u64,
    /// Rows that the published link table may have, and must lose, by what is or was their inode.
    pub(super) tombs: BTreeMap<u64, Tomb>,
}

impl Held {
    pub(super) fn new(volume: VolumeId) -> Self {
        Self { volume, dirty: InoSet::default(), since: None, changed: 0, tombs: BTreeMap::new() }
    }

    /// Notes that an inode has changed.
    pub(super) fn add(&mut self, ino: u64, change: u64) {
        self.changed = change;
        if self.dirty.insert(ino) && self.dirty.len() == 1 {
            self.since = Some(now());
        }
    }

    pub(super) fn clean(&mut self, ino: u64) {
        self.dirty.remove(&ino);
        if self.dirty.is_empty() {
            self.since = None;
        }
    }
}

impl State {
    /// The root of the volume that an inode is in; of a root itself.
    pub(super) fn root_of(&self, ino: u64) -> Step<u64> {
        let mut at = ino;
        loop {
            let node = self.node(at)?;
            if node.volume().is_some() {
                return Ok(at);
            }
            if node.parent == 0 {
                return Err(VfsError::NotFound.into());
            }
            at = node.parent;
        }
    }

    /// The root of a volume, if it is in this tree.
    pub(super) fn root(&self, volume: VolumeId) -> Option<u64> {
        self.volumes.iter().find(|(_, held)| held.volume == volume).map(|(root, _)| *root)
    }

    /// The same, of one that must be.
    pub(super) fn root_here(&self, volume: VolumeId) -> Step<u64> {
        self.root(volume).ok_or_else(|| VfsError::NotFound.into())
    }

    pub(super) fn held(&mut self, root: u64) -> Step<&mut Held> {
        self.volumes.get_mut(&root).ok_or_else(|| VfsError::NotFound.into())
    }

    /// An error where two directories are not in one volume.
    pub(super) fn within_one(&self, one: u64, other: u64) -> Step<()> {
        if one == other || self.root_of(one)? == self.root_of(other)? {
            return Ok(());
        }
        Err(VfsError::CrossesVolumes.into())
    }

    /// An error where an inode is in a volume in which nothing may be changed. What has no name any more is in none, but nothing
    /// is to be changed in what was [replaced](Self::replaced) either: whoever looked it up just before that means the other one.
    pub(super) fn writable(&self, ino: u64) -> Step<()> {
        if self.replaced.contains(&ino) {
            return Err(VfsError::Replaced.into());
        }
        if self.read_only.is_empty() || self.node(ino)?.nlink == 0 {
            return Ok(());
        }
        let root = self.root_of(ino)?;
        match self.volumes.get(&root) {
            Some(held) if self.read_only.contains(&held.volume) => Err(VfsError::ReadOnlyVolume.into()),
            _ => Ok(()),
        }
    }

    /// Of a root whose volume is to be found first.
    pub(super) fn found(&self, ino: u64) -> Step<()> {
        match self.vacant(ino) {
            Some(_) => Err(Need::Dir(ino)),
            None => Ok(()),
        }
    }

    /// An error where a volume begins: its root goes with it, and not by its name.
    pub(super) fn no_root(&self, ino: u64) -> Step<()> {
        match self.node(ino)?.volume() {
            Some(_) => Err(VfsError::Busy.into()),
            None => Ok(()),
        }
    }

    /// The volume that begins with this inode, if nothing of it was found yet.
    pub(super) fn vacant(&self, ino: u64) -> Option<VolumeId> {
        let node = self.nodes.get(&ino).filter(|node| node.remote.is_none() && node.local() == Local::Absent)?;
        node.volume()
    }

    /// Takes the root of a volume into memory; its name is to follow.
    pub(super) fn add_root(&mut self, ino: u64, row: InodeRow, volume: VolumeId) {
        self.insert(ino, Node::from_row(InodeRow { volume: Some(volume), ..row }));
        self.queue(ino);
    }
}

/// The row of a root of which only the name is known.
pub(super) fn vacant(id: FileId, parent: u64, volume: VolumeId, caller: Caller) -> InodeRow {
    let time = now();
    InodeRow {
        ino: 0,
        id,
        kind: FileKind::Directory,
        mode: 0o755 & !caller.umask,
        uid: caller.uid,
        gid: caller.gid,
        rdev: 0,
        nlink: 2,
        size: 0,
        atime: time,
        mtime: time,
        ctime: time,
        xattrs: Vec::new(),
        symlink: Vec::new(),
        parent,
        linked: false,
        volume: Some(volume),
        dirty: false,
        remote: None,
        local: Local::Absent,
    }
}

/// A volume that has its root in this tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rooted {
    /// The volume.
    pub volume: VolumeId,
    /// Its root.
    pub ino: u64,
    /// The same, in every tree that it is in.
    pub id: FileId,
    /// The volume in which its root has its name; of the uppermost none.
    pub above: Option<VolumeId>,
    /// Nothing of it was found yet: whoever enters it has it looked for.
    pub is_vacant: bool,
}

impl Vfs {
    /// The volumes of this tree, each after those above it.
    pub fn volumes(&self) -> Vec<Rooted> {
        let state = self.state.lock();
        let above = |root: u64| {
            let parent = state.nodes.get(&root).map_or(0, |node| node.parent);
            state.root_of(parent).ok()
        };
        let mut all: Vec<(usize, Rooted)> = Vec::with_capacity(state.volumes.len());
        for (root, held) in &state.volumes {
            let named_in = above(*root);
            let depth = std::iter::successors(named_in, |root| above(*root)).count();
            let above = named_in.and_then(|root| state.volumes.get(&root)).map(|held| held.volume);
            let is_vacant = state.vacant(*root).is_some();
            let Some(id) = state.nodes.get(root).map(|node| node.id) else { continue };
            all.push((depth, Rooted { volume: held.volume, ino: *root, id, above, is_vacant }));
        }
        all.sort_by_key(|(depth, _)| *depth);
        all.into_iter().map(|(_, rooted)| rooted).collect()
    }

    /// Those that begin in any of these, and in these in turn, each after those above it.
    pub fn volumes_below(&self, of: impl IntoIterator<Item = VolumeId>) -> Vec<Rooted> {
        let mut all: BTreeSet<VolumeId> = of.into_iter().collect();
        let mut below = self.volumes();
        below.retain(|rooted| rooted.above.is_some_and(|above| all.contains(&above)) && all.insert(rooted.volume));
        below
    }

    /// The volume that an inode is in.
    pub fn volume_of(&self, ino: u64) -> Result<VolumeId> {
        self.run(|state| {
            let root = state.root_of(ino)?;
            Ok(state.held(root)?.volume)
        })
    }

    /// From now on nothing in a volume may be changed, or everything again. This is not written down, and the volume need not
    /// be in the tree. Whoever has a file open for writing is refused from now on, but for what the kernel writes to the
    /// backing file itself: where that is possible it is to be said before there is a mount.
    pub fn set_read_only(&self, volume: VolumeId, read_only: bool) {
        let mut state = self.state.lock();
        if read_only {
            state.read_only.insert(volume);
        } else {
            state.read_only.remove(&volume);
        }
    }

    /// A path from the uppermost root to a directory, or to a file with one name.
    pub fn path(&self, ino: u64) -> Result<PathBuf> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = ino;
        let mut top = PathBuf::from("/");
        while at != ROOT {
            if let Some(branch) = self.branch_path(at) {
                top = branch;
                break;
            }
            let (parent, name) = self.run(|state| {
                let parent = state.node(at)?.parent;
                let entries = state.entries(parent)?;
                let name = entries.iter().find(|(_, child)| **child == at).map(|(name, _)| name.to_vec());
                Ok((parent, name.ok_or(VfsError::NotFound)?))
            })?;
            names.push(name);
            at = parent;
        }
        let below = names.iter().rev().map(|name| OsStr::from_bytes(name));
        top.extend(below);
        Ok(top)
    }

    /// The roots of all volumes come into memory, where they stay.
    pub(super) fn load_roots(&self) -> Result<()> {
        for row in self.meta.roots()? {
            match self.run(|state| state.node(row.ino).map(drop)) {
                Err(VfsError::NotFound) => {
                    tracing::error!(
                        ino = row.ino,
                        "the root of a volume hangs in the air and is left alone: run hn fsck"
                    );
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes a directory the root of a volume of its own, with all that is below it, down to the roots of others. What was
    /// published of it stays published, and what was not is the new volume's to publish. An error when a file has names
    /// both below it and elsewhere in its volume, and while a cut is being published, which could have it all in the old
    /// one.
    pub fn split(&self, ino: u64, volume: VolumeId) -> Result<()> {
        for _ in 0..SPLITS {
            let before = self.state.lock().relinked;
            let linked = self.linked_below(ino)?;
            let split = self.run_mut(|state| {
                if state.relinked != before {
                    return Ok(false);
                }
                split(state, ino, volume, &linked)?;
                Ok(true)
            })?;
            if split {
                return self.commit();
            }
        }
        Err(VfsError::Busy)
    }

    /// What was published of the root of a volume that this tree goes on from; none where nothing was.
    pub fn published(&self, volume: VolumeId) -> Result<Option<Content>> {
        self.run(|state| Ok(state.node(state.root_here(volume)?)?.remote.as_deref().cloned()))
    }

    /// The same of a file in it that had several names.
    pub fn published_of(&self, volume: VolumeId, linked: FileId) -> Result<Option<Content>> {
        let root = self.run(|state| state.root_here(volume))?;
        Ok(self.meta.linked(root, linked)?.and_then(|row| row.remote))
    }

    /// The next cut of a volume has its root in it, though nothing has changed: another head is to be published. Nothing
    /// where nothing was found of it yet.
    pub fn mark_changed(&self, volume: VolumeId) -> Result<()> {
        self.run_mut(|state| {
            let root = state.root_here(volume)?;
            if state.vacant(root).is_none() {
                state.queue_needed(root);
                state.touch(root);
            }
            Ok(())
        })?;
        self.commit()
    }

    /// Whether [`Self::split`] would find anything in the way, but for a cut. Nothing is changed.
    pub fn may_split(&self, ino: u64) -> Result<()> {
        self.run(|state| {
            state.no_root(ino)?;
            state.writable(ino)?;
            match state.node(ino)?.is_dir() {
                true if state.volumes.len() >= FS_VOLUMES_MAX => Err(VfsError::Busy.into()),
                true => Ok(()),
                false => Err(VfsError::NotDirectory.into()),
            }
        })?;
        self.linked_below(ino).map(drop)
    }

    /// Files with several names, all of which are below a directory. An error when one has another name elsewhere.
    fn linked_below(&self, ino: u64) -> Result<BTreeSet<u64>> {
        let mut names: BTreeMap<u64, u32> = BTreeMap::new();
        let mut waiting = vec![ino];
        while let Some(dir) = waiting.pop() {
            let entries = self.run(|state| {
                let entries = state.entries(dir)?;
                let mut below = Vec::new();
                for child in entries.values() {
                    let node = state.node(*child)?;
                    if node.linked || (node.is_dir() && node.volume().is_none()) {
                        below.push((*child, node.linked));
                    }
                }
                Ok(below)
            })?;
            for (child, is_linked) in entries {
                match is_linked {
                    true => *names.entry(child).or_default() += 1,
                    false => waiting.push(child),
                }
            }
        }
        self.run(|state| {
            for (ino, count) in &names {
                if state.node(*ino)?.nlink != *count {
                    return Err(VfsError::LinkedElsewhere(*ino).into());
                }
            }
            Ok(())
        })?;
        Ok(names.into_keys().collect())
    }

    /// Gives the root of a volume a name, in a directory of another: nothing of it is here yet.
    pub fn attach(&self, caller: Caller, parent: u64, name: &[u8], volume: VolumeId, id: FileId) -> Result<Attr> {
        let attr = self.run_mut(|state| {
            check_name(name)?;
            state.writable(parent)?;
            state.live_dir(parent)?;
            if state.entries(parent)?.contains_key(name) {
                return Err(VfsError::Exists.into());
            }
            if state.root(volume).is_some() || state.volumes.len() >= FS_VOLUMES_MAX {
                return Err(VfsError::Busy.into());
            }
            let ino = state.alloc_ino();
            state.add_root(ino, vacant(id, parent, volume, caller), volume);
            state.add_links(parent, 1);
            state.add_name(parent, name, ino)?;
            state.entries_changed(parent);
            self.attr_of(state, ino)
        })?;
        self.tell_name(parent, name);
        self.commit()?;
        Ok(attr)
    }

    /// A name has come, or gone, that no request of the kernel's was about: it may have another answer in mind.
    pub(super) fn tell_name(&self, parent: u64, name: &[u8]) {
        if let Some(kernel) = self.invalidate.read().clone() {
            kernel.inode(parent);
            kernel.mode(parent);
            kernel.entry(parent, name);
        }
    }

    /// Asks the mesh for the root of a volume of which nothing is here yet.
    pub(super) fn find_root(&self, volume: VolumeId) -> Result<()> {
        let mut entered = Ok(());
        self.remote.root(volume, &mut |found| entered = self.set_root(volume, found))?;
        match entered {
            // Somebody else was told it, too.
            Err(VfsError::NotEmpty) => Ok(()),
            Err(VfsError::Invalid) => Err(VfsError::Damaged(format!("volume {volume} has another root here"))),
            other => other,
        }
    }

    /// Makes a recovered snapshot's root the root of a volume of which nothing is here yet.
    pub fn set_root(&self, volume: VolumeId, inode: Inode) -> Result<()> {
        if inode.kind != FileKind::Directory {
            return Err(VfsError::Invalid);
        }
        let root = self.run_mut(|state| {
            let root = state.root_here(volume)?;
            let is_fresh = state.vacant(root).is_some()
                || (root == ROOT && state.entries(ROOT)?.is_empty() && state.node(ROOT)?.remote.is_none());
            if !is_fresh || !state.held(root)?.tombs.is_empty() {
                return Err(VfsError::NotEmpty.into());
            }
            if inode.id != state.node(root)?.id {
                return Err(VfsError::Invalid.into());
            }
            state.clean(root);
            let node = state.node_mut(root)?;
            let found = Node::from_snapshot(inode.clone(), node.parent, None);
            node.become_root(found);
            state.queue_needed(root);
            Ok(root)
        })?;
        self.void(root);
        self.commit()
    }
}

/// How often a directory that others change is looked through.
const SPLITS: u32 = 5;

fn split(state: &mut State, ino: u64, volume: VolumeId, linked: &BTreeSet<u64>) -> Step<()> {
    let node = state.node(ino)?;
    if !node.is_dir() {
        return Err(VfsError::NotDirectory.into());
    }
    if node.nlink == 0 {
        return Err(VfsError::NotFound.into());
    }
    let parent = node.parent;
    if state.root(volume).is_some() {
        return Err(VfsError::Exists.into());
    }
    state.no_root(ino)?;
    state.writable(ino)?;
    if state.cuts > 0 {
        return Err(VfsError::Busy.into());
    }
    let before = state.root_of(ino)?;
    // All that may fail comes before the first change.
    for linked in linked {
        state.node(*linked)?;
    }
    let dirty: Vec<u64> = state.held(before)?.dirty.iter().copied().collect();
    let mut leaving = Vec::new();
    for at in dirty {
        if linked.contains(&at) || state.is_ancestor(ino, at)? {
            leaving.push(at);
        }
    }
    state.volumes.insert(ino, Held::new(volume));
    if let Some(dir) = state.nodes.get_mut(&ino).and_then(|node| node.dir.as_mut()) {
        dir.volume = Some(volume);
    }
    for at in linked {
        leave_link_table(state, *at, before);
        state.relink(*at, ino);
    }
    for at in leaving {
        let change = state.nodes.get(&at).map_or(0, |node| node.changed);
        state.clean_in(before, at);
        state.held(ino)?.add(at, change);
    }
    // The link table of the new one has none of them yet.
    for at in linked {
        state.queue_needed(*at);
        state.touch(*at);
    }
    // Its entry is another one, and it has never been published as a root.
    state.queue_needed(parent);
    state.touch(parent);
    state.queue_needed(ino);
    state.touch(ino);
    Ok(())
}

/// The published link table of the volume of this root loses a row, though what it is of stays. The mark of that has a row
/// of its own.
fn leave_link_table(state: &mut State, ino: u64, root: u64) {
    let may_have_row = state.may_have_row(ino);
    let Some(node) = state.nodes.get(&ino).filter(|_| may_have_row) else { return };
    let (row, id) = (node.row(ino), node.id);
    let mark = state.alloc_ino();
    let row = InodeRow { ino: mark, nlink: 0, parent: root, dirty: false, local: Local::Absent, ..row };
    state.ops.push(Op::PutRow(Box::new(row)));
    state.clock += 1;
    let changed = state.clock;
    state.add_tomb(root, mark, Tomb { id, changed });
}
