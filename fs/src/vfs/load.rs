//! Bringing inodes and directories into memory, from the local store or from the mesh, and letting them go again.

use std::sync::{Arc, OnceLock};

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::limits::FS_VOLUMES_MAX;
use hypernet_core::port::{InodeRow, Local, PortError};
use hypernet_core::tree::{Content, Entry, FileKind, Inode, LinkEntry, Target, TreeRef, is_name};
use parking_lot::{Condvar, Mutex};

use super::node::{Entries, Node};
use super::patience::{self, Wait};
use super::state::{Need, Op, State, Step};
use super::{Result, Vfs, VfsError};

/// A listing that several callers wait for.
#[derive(Debug, Default)]
pub(super) struct Listing {
    done: OnceLock<Result<()>>,
    lock: Mutex<()>,
    arrived: Condvar,
}

impl Listing {
    fn finish(&self, result: Result<()>) {
        let _ = self.done.set(result);
        drop(self.lock.lock());
        self.arrived.notify_all();
    }

    fn wait(&self) -> Result<()> {
        let mut lock = self.lock.lock();
        loop {
            if let Some(done) = self.done.get() {
                return done.clone();
            }
            self.arrived.wait(&mut lock);
        }
    }
}

/// A listing of this thread. Whoever waits for it is told how it ended, even when the thread panics; who comes later
/// begins another.
struct Listed<'a> {
    vfs: &'a Vfs,
    ino: u64,
    listing: Arc<Listing>,
}

impl Listed<'_> {
    fn end(&self, result: Result<()>) {
        self.vfs.listing.lock().remove(&self.ino);
        self.listing.finish(result);
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        if self.listing.done.get().is_none() {
            self.end(Err(VfsError::Local("the thread that listed it panicked".into())));
        }
    }
}

impl Vfs {
    /// Runs `op` under the lock until nothing is missing any more.
    pub(super) fn run<T>(&self, mut op: impl FnMut(&mut State) -> Step<T>) -> Result<T> {
        let mut not_there = None;
        loop {
            let need = {
                let mut state = self.state.lock();
                match op(&mut state) {
                    Ok(value) => {
                        if state.waiters > 0 {
                            self.dirtied.notify_all();
                        }
                        if !state.ops.is_empty() {
                            self.arm(&mut state);
                        }
                        return Ok(value);
                    }
                    Err(need) => need,
                }
            };
            let (ino, loaded) = match need {
                Need::Fail(error) => return Err(error),
                Need::Paused(until) => {
                    self.wait_moving(until);
                    continue;
                }
                Need::Node(ino) => (ino, self.load_node(ino)),
                Need::Dir(ino) => (ino, self.load_dir(ino)),
            };
            match loaded {
                // It may have gone since `op` came upon it: a name that led to it may lead to something else now.
                Err(VfsError::NotFound) if not_there != Some(ino) => not_there = Some(ino),
                loaded => loaded?,
            }
        }
    }

    /// As [`Self::run`], for what adds changes: whoever finds too many waiting commits them first, and is refused with
    /// the error when that fails, as it does while the disk is full.
    pub(super) fn run_mut<T>(&self, op: impl FnMut(&mut State) -> Step<T>) -> Result<T> {
        if self.state.lock().waiting() >= self.config.pending_ops {
            self.commit()?;
        }
        self.run(op)
    }

    /// Loads an inode and all its ancestors.
    fn load_node(&self, ino: u64) -> Result<()> {
        let mut chain: Vec<InodeRow> = Vec::new();
        let epoch = self.state.lock().epoch;
        let mut at = ino;
        while at != 0 && !self.state.lock().nodes.contains_key(&at) {
            let row = self.meta.inode(at)?.filter(|row| row.nlink > 0).ok_or(VfsError::NotFound)?;
            if chain.iter().any(|seen| seen.ino == row.ino) {
                return Err(VfsError::Local(format!("inode {at} is its own ancestor: run hn fsck")));
            }
            at = row.parent;
            chain.push(row);
        }
        let mut state = self.state.lock();
        if state.epoch != epoch {
            // What was read may be older than what has been committed and let go since. The caller asks again.
            return Ok(());
        }
        for row in chain.into_iter().rev() {
            if !state.nodes.contains_key(&row.ino) && !state.gone.contains_key(&row.ino) {
                state.insert(row.ino, Node::from_row(row));
            }
        }
        Ok(())
    }

    /// Loads the entries of a directory, and the inodes behind them: all at once, because one by one takes too long
    /// in a large one.
    pub(super) fn load_dir(&self, ino: u64) -> Result<()> {
        let (local, epoch) = self.run(|state| {
            let node = state.node(ino)?;
            if !node.is_dir() {
                return Err(VfsError::NotDirectory.into());
            }
            Ok((node.local(), state.epoch))
        })?;
        if local == Local::Absent {
            return self.list_remote(ino);
        }
        let rows = self.meta.children(ino)?;
        let mut state = self.state.lock();
        if state.epoch != epoch {
            return Ok(());
        }
        let known = state.entries(ino).is_ok();
        let mut entries = Entries::new();
        for (name, row) in rows {
            if !known {
                entries.insert(name.into(), row.ino);
            }
            if !state.nodes.contains_key(&row.ino) && !state.gone.contains_key(&row.ino) {
                state.insert(row.ino, Node::from_row(row));
            }
        }
        if !known {
            set_entries(&mut state, ino, entries);
            return Ok(());
        }
        // The names were here but some of their inodes were not. The few that are missing even now have a name in
        // this directory that is not committed yet: hard links that came with its listing.
        let all = state.entries(ino).map(|all| all.values().copied().collect::<Vec<_>>()).unwrap_or_default();
        let missing: Vec<u64> = all.into_iter().filter(|ino| !state.nodes.contains_key(ino)).collect();
        drop(state);
        for lost in missing {
            match self.load_node(lost) {
                Err(VfsError::NotFound) => {
                    let state = self.state.lock();
                    if state.entries(ino).is_ok_and(|all| all.values().any(|named| *named == lost)) {
                        let text = format!("a name leads to inode {lost}, which is gone: run hn fsck");
                        return Err(VfsError::Local(text));
                    }
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Lists a directory from the mesh; who comes while that is under way waits for the same listing.
    pub(super) fn list_remote(&self, ino: u64) -> Result<()> {
        patience::check(Wait::Mesh)?;
        let (listing, mine) = {
            let mut under_way = self.listing.lock();
            match under_way.get(&ino) {
                Some(listing) => (listing.clone(), false),
                None => {
                    let listing = Arc::new(Listing::default());
                    under_way.insert(ino, listing.clone());
                    (listing, true)
                }
            }
        };
        if !mine {
            return listing.wait();
        }
        let listed = Listed { vfs: self, ino, listing };
        // Only now: another listing may have ended just before this one began.
        let there = self.run(|state| {
            let node = state.node(ino)?;
            let is_absent = node.local() == Local::Absent;
            Ok(is_absent.then(|| (state.vacant(ino), node.remote.as_deref().cloned(), state.advanced)))
        });
        let result = match there {
            Ok(None) => Ok(()),
            Ok(Some((Some(volume), ..))) => self.find_root(volume),
            Ok(Some((None, Some(Content::Directory(tree)), _))) => self.list_and_adopt(ino, &tree),
            Ok(Some((None, _, advanced))) => self.adopt(ino, Vec::new(), None, advanced),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            tracing::warn!(ino, %error, "a directory could not be listed from the mesh");
        }
        listed.end(result.clone());
        result
    }

    fn list_and_adopt(&self, ino: u64, tree: &TreeRef) -> Result<()> {
        let (root, volume, advanced) = self.run(|state| {
            let root = state.root_of(ino)?;
            Ok((root, state.held(root)?.volume, state.advanced))
        })?;
        let mut found = Vec::new();
        for Entry { name, target, .. } in self.listing_of(ino, tree)? {
            let target = match target {
                Target::Inode(inode) => Found::New(inode, None),
                Target::Link(id) => self.find_linked(root, volume, id)?,
                Target::Volume { volume, id } => Found::Root(volume, id),
            };
            found.push((name, target));
        }
        self.adopt(ino, found, Some(tree), advanced)
    }

    /// The entries of a directory as the mesh has them.
    pub(super) fn listing_of(&self, ino: u64, tree: &TreeRef) -> Result<Vec<Entry>> {
        let mut entries = self.remote.list(tree)?;
        let all = entries.len();
        entries.retain(|entry| is_name(&entry.name));
        if entries.len() < all {
            tracing::warn!(ino, left_out = all - entries.len(), "a directory of the mesh has what cannot be a name");
        }
        if !entries.is_sorted_by(|one, next| one.name < next.name) {
            return Err(VfsError::Damaged(format!("a directory of the mesh is out of order: {ino}")));
        }
        Ok(entries)
    }

    /// An inode with several names may be here already, under another of them.
    pub(super) fn find_linked(&self, root: u64, volume: VolumeId, id: FileId) -> Result<Found> {
        let known = self.state.lock().linked.get(&(root, id)).copied();
        if let Some(ino) = known {
            return Ok(Found::Known(ino));
        }
        if let Some(row) = self.meta.linked(root, id)?.filter(|row| row.nlink > 0) {
            // What is in memory is newer.
            let state = self.state.lock();
            if !state.gone.contains_key(&row.ino) && state.nodes.get(&row.ino).is_none_or(|node| node.linked) {
                return Ok(Found::Known(row.ino));
            }
        }
        Ok(match self.record_of(volume, id)? {
            Some(link) => Found::New(Box::new(link.inode), Some(link.links)),
            None => {
                tracing::error!(%id, "a hard link of the mesh leads nowhere: it is listed, and reading it fails");
                Found::Lost(id)
            }
        })
    }

    /// The record of an inode with several names; `None` where the snapshot has none.
    pub(super) fn record_of(&self, volume: VolumeId, id: FileId) -> Result<Option<LinkEntry>> {
        let why = match self.remote.link(volume, id) {
            Ok(link) if link.inode.id == id && link.inode.kind != FileKind::Directory => {
                return Ok(Some(LinkEntry { links: link.links.max(1), ..link }));
            }
            Ok(_) => "its row is about something else".to_owned(),
            // The snapshot itself lacks it: asking again would not help.
            Err(PortError::NotFound(text)) => text,
            Err(other) => return Err(other.into()),
        };
        tracing::debug!(%id, why, "the link table has no record");
        Ok(None)
    }

    /// Puts a listing into the working tree; the directory is complete from then on.
    pub(super) fn adopt(
        &self,
        ino: u64,
        found: Vec<(Vec<u8>, Found)>,
        of: Option<&TreeRef>,
        advanced: u64,
    ) -> Result<()> {
        self.run_mut(|state| {
            let node = state.node(ino)?;
            if node.local() != Local::Absent {
                return Ok(());
            }
            let now = match node.remote.as_deref() {
                Some(Content::Directory(tree)) => Some(tree),
                _ => None,
            };
            if now != of || state.advanced != advanced {
                // It got other content meanwhile, or the link table did; the caller asks again.
                return Ok(());
            }
            let root = state.root_of(ino)?;
            let mut entries = Entries::new();
            let mut subdirectories = 0;
            for (name, target) in &found {
                let child = match target {
                    // Two names for one volume would be two trees of it.
                    Found::Root(volume, _) if state.root(*volume).is_some() => {
                        tracing::error!(%volume, "a volume has a second name in the tree, which is left out");
                        continue;
                    }
                    Found::Root(volume, _) if state.volumes.len() >= FS_VOLUMES_MAX => {
                        tracing::error!(%volume, "there are more volumes in the tree than there may be; one is left out");
                        continue;
                    }
                    Found::Root(volume, id) => {
                        let child = state.alloc_ino();
                        subdirectories += 1;
                        let owner = self.config.owner();
                        state.add_root(child, super::volumes::vacant(*id, ino, *volume, owner), *volume);
                        child
                    }
                    Found::Known(child) => *child,
                    // The same one may have come meanwhile, with the listing of another directory.
                    Found::Lost(id) => match state.linked.get(&(root, *id)).copied() {
                        Some(child) => child,
                        None => {
                            let child = state.alloc_ino();
                            state.insert(child, Node::lost(*id, root));
                            state.queue(child);
                            child
                        }
                    },
                    Found::New(inode, links) => match state.linked.get(&(root, inode.id)).copied() {
                        Some(child) if links.is_some() => child,
                        _ => {
                            let child = state.alloc_ino();
                            subdirectories += u32::from(inode.kind == FileKind::Directory);
                            let parent = if links.is_some() { root } else { ino };
                            state.insert(child, Node::from_snapshot(Inode::clone(inode), parent, *links));
                            state.queue(child);
                            child
                        }
                    },
                };
                entries.insert(name.as_slice().into(), child);
                state.ops.push(Op::Link { parent: ino, name: name.as_slice().into(), ino: child });
            }
            set_entries(state, ino, entries);
            let node = state.node_mut(ino)?;
            node.set_local(Local::Complete);
            node.nlink = 2 + subdirectories;
            state.queue(ino);
            Ok(())
        })
    }

    /// Lets go of inodes that have not been used for longest, down to the configured number.
    pub(super) fn evict(&self) {
        let mut state = self.state.lock();
        state.tick = state.tick.wrapping_add(1);
        let over = state.nodes.len().saturating_sub(self.config.hot_inodes);
        if over == 0 || state.pinned > 0 {
            return;
        }
        let committed = state.committed;
        let idle =
            |node: &Node| node.queued <= committed && !node.is_dirty_within() && node.handles() == 0 && node.nlink > 0;
        let mut candidates: Vec<(u32, u64)> = state
            .nodes
            .iter()
            .filter(|(_, node)| idle(node) && node.dir.as_ref().is_none_or(|dir| dir.kids == 0 && dir.volume.is_none()))
            .map(|(ino, node)| (node.used, *ino))
            .collect();
        let count = candidates.len().min(over + self.config.hot_inodes / 10);
        if count == 0 {
            return;
        }
        if count < candidates.len() {
            candidates.select_nth_unstable(count);
        }
        for (_, ino) in &candidates[..count] {
            if !self.fetcher.is_partial(*ino)
                && let Some(node) = state.forget(*ino)
                && node.told > 0
            {
                state.away.insert(*ino, node.told);
            }
        }
        // The names of directories whose inodes have gone are of little use now.
        let stale: Vec<u64> = state
            .nodes
            .iter()
            .filter(|(_, node)| idle(node) && node.dir.as_ref().is_some_and(|dir| dir.kids == 0))
            .map(|(ino, _)| *ino)
            .collect();
        for ino in stale {
            if let Some(dir) = state.nodes.get_mut(&ino).and_then(|node| node.dir.as_mut()) {
                dir.entries = None;
            }
        }
        state.epoch += 1;
    }
}

pub(super) enum Found {
    Known(u64),
    New(Box<Inode>, Option<u32>),
    /// The root of another volume.
    Root(VolumeId, FileId),
    /// A name for what the link table does not have.
    Lost(FileId),
}

fn set_entries(state: &mut State, ino: u64, entries: Entries) {
    if let Some(dir) = state.nodes.get_mut(&ino).and_then(|node| node.dir.as_mut()) {
        dir.entries = Some(entries);
    }
}
