//! Letting go of a volume below another one: of all that is here of it, and of its name.
//!
//! The first is done as a volume is moved on, to a root that has nothing in it, in one batch; its name stays, as that of one
//! of which nothing was found yet. The second is another batch, and whoever enters it in between has it back. So a crash
//! leaves it as it was, or with its name alone, or without: all of it is on the mesh each time.

use std::path::PathBuf;

use hypernet_core::id::VolumeId;
use hypernet_core::port::Local;
use hypernet_core::tree::{Content, Dot, FileKind, Inode};

use super::super::node::{Entries, Node, ROOT};
use super::super::state::{Need, State, Step};
use super::super::{Result, Vfs, VfsError};
use super::work::Work;
use super::{Done, Known, Next, Pinned, Wants, is_busy, is_changing};

/// How often it is let go of again that somebody has entered.
const TRIES: u32 = 5;

impl Vfs {
    /// These volumes may go from the tree with their names, when a volume above them is moved on. This is not written down.
    pub fn set_leaving(&self, leaving: impl IntoIterator<Item = VolumeId>) {
        self.state.lock().leaving = leaving.into_iter().collect();
    }

    /// Takes the root of a volume below another one out of the tree; what it holds is on the mesh. Others that begin in it go
    /// with it, of those that may [leave](Self::set_leaving).
    ///
    /// [`VfsError::Busy`] when something in it is not, or is open, or another volume begins in it that is to stay: nothing has
    /// changed then, but that there may be nothing here any more of others that leave. `discard`: what is not on the mesh is
    /// lost.
    pub fn detach(&self, volume: VolumeId, discard: bool) -> Result<()> {
        for _ in 0..TRIES {
            self.vacate_with(volume, discard)?;
            if self.run(|state| Ok(state.node(state.root_here(volume)?)?.parent == 0))? {
                if self.run_mut(|state| uproot(state, volume))? {
                    return self.commit();
                }
                continue;
            }
            if let Some((parent, name)) = self.run_mut(|state| take_out(state, volume))? {
                self.tell_name(parent, &name);
                return self.commit();
            }
        }
        Err(VfsError::Busy)
    }

    /// What is open in a volume, as far as it has a path.
    pub fn open_in(&self, volume: VolumeId) -> Result<Vec<PathBuf>> {
        self.flush_kernel()?;
        self.let_go()?;
        let open: Vec<u64> = {
            let state = self.state.lock();
            let root = state.root(volume);
            let is_in = |ino: u64| root.is_some() && state.root_of(ino).ok() == root;
            let open = state.nodes.iter().filter(|(ino, node)| node.handles() > 0 && is_in(**ino));
            open.map(|(ino, _)| *ino).collect()
        };
        let mut paths: Vec<PathBuf> = open.into_iter().filter_map(|ino| self.path(ino).ok()).collect();
        paths.sort();
        Ok(paths)
    }

    /// Forgets all that is here of a volume below another one: it is as it was when it had just got its name.
    pub(in super::super) fn vacate(&self, volume: VolumeId) -> Result<()> {
        self.vacate_with(volume, false)
    }

    fn vacate_with(&self, volume: VolumeId, discard: bool) -> Result<()> {
        self.flush_kernel()?;
        self.let_go()?;
        self.state.lock().pinned += 1;
        let _pinned = Pinned(self);
        self.load_linked(volume)?;
        let empty = self.run(|state| Ok(empty(state.node(state.root_here(volume)?)?)))?;
        let mut known = Known::default();
        loop {
            match self.run_mut(|state| self.vacate_now(state, volume, &empty, &known, discard))? {
                Next::Get(wants) => {
                    // Nothing is in the link table, either.
                    known.records.extend(wants.records.iter().map(|id| (*id, None)));
                    self.get(volume, Wants { loaded: wants.loaded, ..Wants::default() }, &mut known)?;
                }
                Next::Leave(others) => others.into_iter().try_for_each(|other| self.vacate_with(other, discard))?,
                Next::Done(done) => return self.follow_up(&done, &known),
                Next::Dirty | Next::Hold(_) => return Err(VfsError::Busy),
            }
        }
    }

    fn vacate_now(
        &self,
        state: &mut State,
        volume: VolumeId,
        empty: &Inode,
        known: &Known,
        discard: bool,
    ) -> Step<Next> {
        let root = state.root_here(volume)?;
        if root == ROOT {
            return Err(VfsError::Invalid.into());
        }
        if state.vacant(root).is_some() {
            return Ok(Next::Done(Done::default()));
        }
        if if discard { is_changing(state, root)? } else { is_busy(state, root)? } {
            return Err(VfsError::Busy.into());
        }
        let work = match Work::out(state, root, empty, known)? {
            Ok(work) => work,
            Err(wants) => return Ok(Next::Get(wants)),
        };
        let mut plan = work.plan(state)?;
        if !plan.leaving.is_empty() {
            return Ok(Next::Leave(plan.leaving));
        }
        // Of what has several names not all need be in directories that are listed here.
        let lost = std::mem::take(&mut plan.lost);
        plan.removed.extend(lost);
        for ino in plan.removed.iter().chain([&root]) {
            if state.node(*ino)?.handles() > 0 {
                return Err(VfsError::Busy.into());
            }
        }
        if discard {
            give_up_changes(state, root)?;
        } else if self.finds_written(state, &plan)? {
            return Ok(Next::Dirty);
        }
        let done = self.carry_out(state, root, plan, known);
        if let Some(node) = state.nodes.get_mut(&root) {
            node.remote = None;
            node.set_local(Local::Absent);
            if let Some(dir) = node.dir.as_mut() {
                (dir.entries, dir.below) = (None, 0);
            }
        }
        state.clean(root);
        state.queue_needed(root);
        Ok(Next::Done(done))
    }
}

/// Nothing in the volume of this root waits for the upload any more, though the mesh does not have it.
fn give_up_changes(state: &mut State, root: u64) -> Step<()> {
    let held = state.held(root)?;
    let dirty: Vec<u64> = held.dirty.iter().copied().collect();
    let tombs: Vec<u64> = std::mem::take(&mut held.tombs).into_keys().collect();
    for ino in dirty {
        if let Some(dir) = state.nodes.get_mut(&ino).and_then(|node| node.dir.as_mut()) {
            dir.below = 0;
        }
        state.clean(ino);
        state.queue(ino);
    }
    tombs.into_iter().for_each(|ino| state.end_tomb(ino));
    Ok(())
}

/// A directory that has nothing in it, and is otherwise the same.
fn empty(node: &Node) -> Inode {
    let nobody = Dot { device: hypernet_core::id::DeviceId([0; 32]).tag(), sequence: 0 };
    Inode {
        id: node.id,
        kind: FileKind::Directory,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        mtime: node.mtime(),
        ctime: node.ctime(),
        xattrs: node.xattrs().to_vec(),
        content: Content::Empty,
        meta_dot: nobody,
        content_dot: None,
        older: None,
    }
}

/// The name of a root of which nothing is here goes, and the root with it. `None` where something is here again.
fn take_out(state: &mut State, volume: VolumeId) -> Step<Option<(u64, Box<[u8]>)>> {
    let root = state.root_here(volume)?;
    if root == ROOT {
        return Err(VfsError::Invalid.into());
    }
    if state.vacant(root).is_none() {
        return Ok(None);
    }
    let parent = state.node(root)?.parent;
    state.writable(parent)?;
    let name = state.entries(parent)?.iter().find(|(_, ino)| **ino == root).map(|(name, _)| name.clone());
    let name = name.ok_or(Need::Fail(VfsError::NotFound))?;
    state.remove_name(parent, &name)?;
    drop_root(state, root);
    state.add_links(parent, -1);
    state.entries_changed(parent);
    Ok(Some((parent, name)))
}

/// The root of a branch goes, of which nothing is here. False where something is here again.
fn uproot(state: &mut State, volume: VolumeId) -> Step<bool> {
    let root = state.root_here(volume)?;
    let is_vacant = state.vacant(root).is_some();
    if is_vacant {
        drop_root(state, root);
    }
    Ok(is_vacant)
}

/// The root of a volume of which nothing is here, and whose name is gone, is one no more. Who is in it finds it empty.
pub(super) fn drop_root(state: &mut State, root: u64) {
    state.volumes.remove(&root);
    if let Some(node) = state.nodes.get_mut(&root) {
        node.set_local(Local::Complete);
        if let Some(dir) = node.dir.as_mut() {
            (dir.volume, dir.entries) = (None, Some(Entries::new()));
        }
    }
    state.vanished(root);
}
