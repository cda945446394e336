//! Working out what a new snapshot changes of what is here.
//!
//! A directory is *paired* when its names here are compared with its entries in the snapshot, and *gone* when it has no
//! place there, as far as is known: what was in it may have been moved elsewhere, and it itself may turn up in a directory
//! that is looked at later. So directories are given up only when nothing else is left to look at, and one that turns up is
//! paired even if its content is the same.
//!
//! Invariant: above a directory that is looked at, all up to the root are. So what is below one that keeps its place and its
//! content is not touched at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::limits::FS_VOLUMES_MAX;
use hypernet_core::port::Local;
use hypernet_core::tree::{Content, Entry, FileKind, Inode, Target};

use super::super::backing::Stat;
use super::super::node::Node;
use super::super::state::{InoMap, InoSet, State, Step, fit};
use super::super::{Vfs, VfsError};
use super::{Known, Wants};

/// What differs between an inode here and its record in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Differs {
    pub(super) content: bool,
    pub(super) attributes: bool,
}

impl Differs {
    fn of(node: &Node, inode: &Inode, links: Option<u32>) -> Self {
        let is_same = !Self::but_for_times(node, inode, links)
            && (node.mtime(), node.ctime()) == (fit(inode.mtime), fit(inode.ctime));
        Self { content: node.remote.as_deref() != Some(&inode.content), attributes: !is_same }
    }

    /// Whether attributes differ that nobody changes by writing.
    fn but_for_times(node: &Node, inode: &Inode, links: Option<u32>) -> bool {
        let rdev = node.rare.as_ref().map_or(0, |rare| rare.rdev);
        (node.mode, node.uid, node.gid, rdev) != (inode.mode & 0o7777, inode.uid, inode.gid, inode.rdev)
            || node.xattrs() != inode.xattrs
            || !(node.is_dir() || node.nlink == links.unwrap_or(1))
    }
}

/// A file that is written to, or may be: it stays as it is, with what is not published of it, while the volume moves on.
pub(super) fn is_in_use(node: &Node) -> bool {
    node.is_file() && node.is_dirty()
}

/// An inode that is here and becomes what the snapshot says.
pub(super) struct Renewed<'a> {
    pub(super) ino: u64,
    pub(super) inode: &'a Inode,
    /// How many names it has, where its record is in the link table.
    pub(super) links: Option<u32>,
    pub(super) differs: Differs,
    /// It holds what it held, and more.
    pub(super) grows: bool,
    /// Its one name.
    pub(super) place: Option<(u64, &'a [u8])>,
}

/// What a name leads to.
pub(super) enum Leads<'a> {
    Here(u64),
    New(&'a Inode),
    Linked(FileId),
    Root(VolumeId, FileId),
}

/// The new names of a directory.
pub(super) struct Named<'a> {
    pub(super) dir: u64,
    pub(super) names: Vec<(&'a [u8], Leads<'a>)>,
}

/// Names that the kernel is to forget first.
#[derive(Default)]
pub(super) struct Held {
    pub(super) inos: Vec<u64>,
    pub(super) names: Vec<(u64, Box<[u8]>)>,
    /// Those of them that have several names, wherever these are.
    pub(super) linked: Vec<u64>,
}

/// What is to be done.
#[derive(Default)]
pub(super) struct Plan<'a> {
    /// Each directory after the one that it is to be in.
    pub(super) named: Vec<Named<'a>>,
    /// Directories that lose all names, parents before children.
    pub(super) emptied: Vec<u64>,
    pub(super) renewed: Vec<Renewed<'a>>,
    /// Files that come to have several names.
    pub(super) relinked: Vec<u64>,
    /// Files that had several names, and now have one, in that directory.
    pub(super) unlinked: Vec<(u64, u64)>,
    /// Files with several names that the link table lacks.
    pub(super) lost: Vec<u64>,
    /// Files that leave their names to others.
    pub(super) replaced: Vec<u64>,
    /// Those among them; parents before children.
    pub(super) removed: Vec<u64>,
    /// Volumes of which something is here, and which go.
    pub(super) leaving: Vec<VolumeId>,
}

impl Plan<'_> {
    /// Whether something would go that is written to.
    pub(super) fn takes_what_is_in_use(&self, state: &State) -> Step<bool> {
        for ino in self.removed.iter().chain(&self.lost) {
            if is_in_use(state.node(*ino)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Files whose copy here is not needed any more.
    fn given_up(&self) -> impl Iterator<Item = u64> {
        let renewed = self.renewed.iter().filter(|one| one.differs.content).map(|one| one.ino);
        renewed.chain(self.lost.iter().copied()).chain(self.removed.iter().copied())
    }
}

/// What is known so far.
pub(super) struct Work<'a> {
    root: u64,
    new: &'a Inode,
    known: &'a Known,
    paired: Vec<(u64, &'a [Entry])>,
    is_paired: InoSet,
    queue: VecDeque<(u64, &'a Inode)>,
    gone: InoSet,
    /// Directories whose names were looked at, each after the one that it is in.
    seen: Vec<u64>,
    is_seen: InoSet,
    /// Inodes with one name, which is in one of those; the first where an id is there twice.
    here: HashMap<FileId, u64>,
    dirs: Vec<u64>,
    /// Names of inodes with several that are in those directories.
    names: InoMap<u32>,
    /// Roots of other volumes in those directories.
    roots: InoSet,
    /// Records in the entries of the snapshot; the first where an id is there twice.
    places: HashMap<FileId, &'a Inode>,
    wants: Wants,
}

impl<'a> Work<'a> {
    /// Finds out which directories differ, or what is needed to.
    pub(super) fn out(state: &State, root: u64, new: &'a Inode, known: &'a Known) -> Step<Result<Self, Wants>> {
        let mut work = Self {
            root,
            new,
            known,
            paired: Vec::new(),
            is_paired: InoSet::default(),
            queue: VecDeque::new(),
            gone: InoSet::default(),
            seen: Vec::new(),
            is_seen: InoSet::default(),
            here: HashMap::new(),
            dirs: Vec::new(),
            names: InoMap::default(),
            roots: InoSet::default(),
            places: HashMap::new(),
            wants: Wants::default(),
        };
        let node = state.node(root)?;
        if node.local() != Local::Absent && node.remote.as_deref() != Some(&new.content) {
            work.is_paired.insert(root);
            work.queue.push_back((root, new));
        }
        loop {
            while let Some((dir, inode)) = work.queue.pop_front() {
                work.look_at(state, dir)?;
                work.pair(state, dir, inode);
            }
            if !work.wants.is_empty() || !work.give_up(state)? {
                break;
            }
        }
        if work.wants.is_empty() {
            work.look_for_records(state);
            work.look_for_growth(state);
        }
        Ok(match work.wants.is_empty() {
            true => Ok(work),
            false => Err(work.wants),
        })
    }

    /// Notes what the names in a directory lead to.
    fn look_at(&mut self, state: &State, dir: u64) -> Step<()> {
        if !self.is_seen.insert(dir) {
            return Ok(());
        }
        let entries = state.node(dir)?.dir.as_ref().and_then(|dir| dir.entries.as_ref());
        let Some(entries) = entries.filter(|all| all.values().all(|ino| state.nodes.contains_key(ino))) else {
            self.wants.loaded.push(dir);
            return Ok(());
        };
        self.seen.push(dir);
        for ino in entries.values() {
            let node = state.node(*ino)?;
            if node.volume().is_some() {
                self.roots.insert(*ino);
            } else if node.linked {
                *self.names.entry(*ino).or_default() += 1;
            } else {
                self.here.entry(node.id).or_insert(*ino);
                if node.is_dir() {
                    self.dirs.push(*ino);
                    self.match_up(state, node.id);
                }
            }
        }
        Ok(())
    }

    /// Notes what the snapshot has in a directory.
    fn pair(&mut self, state: &State, dir: u64, inode: &'a Inode) {
        let Some(entries) = self.known.listing(dir, &inode.content) else {
            if let Content::Directory(tree) = &inode.content {
                self.wants.listings.push((dir, tree.clone()));
            }
            return;
        };
        self.paired.push((dir, entries));
        for entry in entries {
            if let Target::Inode(inode) = &entry.target {
                self.places.entry(inode.id).or_insert(inode);
                if inode.kind == FileKind::Directory {
                    self.match_up(state, inode.id);
                }
            }
        }
    }

    /// The directory with this id, and its record in the snapshot.
    fn both(&self, state: &State, id: FileId) -> Option<(u64, &'a Inode)> {
        let (ino, inode) = (*self.here.get(&id)?, *self.places.get(&id)?);
        let node = state.nodes.get(&ino)?;
        (node.is_dir() && inode.kind == FileKind::Directory).then_some((ino, inode))
    }

    /// Has a directory looked at that is here and in the snapshot, if it has to be.
    fn match_up(&mut self, state: &State, id: FileId) {
        let Some((ino, inode)) = self.both(state, id) else { return };
        let Some(node) = state.nodes.get(&ino) else { return };
        let differs = node.remote.as_deref() != Some(&inode.content) || self.gone.contains(&ino);
        if node.local() != Local::Absent && differs && self.is_paired.insert(ino) {
            self.queue.push_back((ino, inode));
        }
    }

    /// Looks at what is in directories that have no place in the snapshot. False: there are no more.
    fn give_up(&mut self, state: &State) -> Step<bool> {
        let before = self.gone.len();
        for at in 0..self.dirs.len() {
            let ino = self.dirs[at];
            let node = state.node(ino)?;
            let has_place = self.both(state, node.id).is_some_and(|(placed, _)| placed == ino);
            if !has_place && node.local() != Local::Absent && self.gone.insert(ino) {
                self.look_at(state, ino)?;
            }
        }
        Ok(self.gone.len() > before)
    }

    fn look_for_records(&mut self, state: &State) {
        let here = state.linked.iter().filter(|((root, _), ino)| *root == self.root && is_named(state, **ino));
        let here = here.map(|((_, id), _)| *id);
        let entries = self.paired.iter().flat_map(|(_, entries)| entries.iter());
        let linked = entries.filter_map(|entry| match &entry.target {
            Target::Link(id) => Some(*id),
            _ => None,
        });
        self.wants.records = here.chain(linked).filter(|id| !self.known.records.contains_key(id)).collect();
    }

    fn look_for_growth(&mut self, state: &State) {
        let both = self.places.iter().filter_map(|(id, inode)| Some((*self.here.get(id)?, *inode)));
        self.wants.growths = both.filter_map(|(ino, inode)| self.known.asks(state, ino, inode)).collect();
    }

    /// The inode with several names that has this id.
    fn linked(&self, state: &State, id: FileId) -> Option<u64> {
        state.linked.get(&(self.root, id)).copied().filter(|ino| is_named(state, *ino))
    }

    /// What is to be done, when nothing is missing. An error when it cannot be.
    pub(super) fn plan(&self, state: &State) -> Step<Plan<'a>> {
        let mut plan = Plan::default();
        let mut taken = InoSet::default();
        let mut named: BTreeMap<FileId, u32> = BTreeMap::new();
        let mut volumes: BTreeSet<VolumeId> = BTreeSet::new();
        plan.renew(state, self.root, self.new, None, None, false)?;
        for (dir, entries) in &self.paired {
            let mut names = Vec::with_capacity(entries.len());
            for entry in *entries {
                let leads = match &entry.target {
                    Target::Inode(inode) => match self.claim(state, inode, *dir, &mut taken, &mut plan)? {
                        Some(ino) => {
                            let grows = self.known.has_grown(state.node(ino)?, ino, inode);
                            plan.renew(state, ino, inode, None, Some((*dir, &entry.name)), grows)?;
                            Leads::Here(ino)
                        }
                        None => Leads::New(inode),
                    },
                    Target::Link(id) => {
                        *named.entry(*id).or_default() += 1;
                        self.relink(state, *id, &mut taken, &mut plan)?;
                        Leads::Linked(*id)
                    }
                    Target::Volume { volume, id } => match self.root_of(state, *volume, &mut taken, &mut volumes) {
                        Some(Some(ino)) => Leads::Here(ino),
                        Some(None) => Leads::Root(*volume, *id),
                        None => continue,
                    },
                };
                names.push((&*entry.name, leads));
            }
            plan.named.push(Named { dir: *dir, names });
        }
        self.look_up(state, &named, &mut taken, &mut plan)?;
        for dir in &self.seen {
            if !self.is_paired.contains(dir) {
                plan.emptied.push(*dir);
            }
            for ino in state.entries(*dir)?.values().filter(|ino| !self.names.contains_key(ino)) {
                match taken.insert(*ino) {
                    true if self.roots.contains(ino) => {
                        let goes_along = self.is_in_another(state, *ino)?;
                        plan.leave(state, *ino, goes_along)?;
                    }
                    true => plan.removed.push(*ino),
                    false => {}
                }
            }
        }
        Ok(plan)
    }

    /// The inode that a record in an entry is about, if it is here.
    fn claim(
        &self,
        state: &State,
        inode: &Inode,
        dir: u64,
        taken: &mut InoSet,
        plan: &mut Plan<'a>,
    ) -> Step<Option<u64>> {
        if let Some(ino) = self.here.get(&inode.id) {
            // Of several records with one id the first is meant everywhere.
            let is_meant = self.places.get(&inode.id).is_some_and(|first| std::ptr::eq(*first, inode));
            let node = state.node(*ino)?;
            if !is_meant || node.kind != inode.kind || taken.contains(ino) {
                return Ok(None);
            }
            if self.known.is_replaced(node, *ino, inode) {
                plan.replaced.push(*ino);
                return Ok(None);
            }
            taken.insert(*ino);
            return Ok(Some(*ino));
        }
        // Its record was in the link table. No name of it may be left behind in what is not looked at.
        let Some(ino) = self.linked(state, inode.id) else { return Ok(None) };
        let node = state.node(ino)?;
        let is_last = self.names.get(&ino).is_some_and(|seen| *seen >= node.nlink);
        if node.kind == inode.kind && is_last && self.record(state, inode.id).is_none() && taken.insert(ino) {
            plan.unlinked.push((ino, dir));
            return Ok(Some(ino));
        }
        Ok(None)
    }

    /// The record of an inode with several names, where it can be one of what is here.
    fn record(&self, state: &State, id: FileId) -> Option<(&'a Inode, u32)> {
        let kind = self.linked(state, id).and_then(|ino| state.nodes.get(&ino)).map(|node| node.kind);
        self.known.record(id, kind).map(|record| (&record.inode, record.links))
    }

    /// What had one name may have got more.
    fn relink(&self, state: &State, id: FileId, taken: &mut InoSet, plan: &mut Plan<'a>) -> Step<()> {
        if self.linked(state, id).is_none()
            && let (Some(ino), Some((inode, links))) = (self.here.get(&id), self.record(state, id))
            && state.node(*ino)?.kind == inode.kind
            && taken.insert(*ino)
        {
            plan.relinked.push(*ino);
            plan.renew(state, *ino, inode, Some(links), None, false)?;
        }
        Ok(())
    }

    /// Whether a directory that is above this one has become a volume of its own: what is below it is found there.
    fn is_in_another(&self, state: &State, root: u64) -> Step<bool> {
        let entries = self.paired.iter().flat_map(|(_, entries)| *entries);
        let volumes: BTreeSet<FileId> = entries
            .filter_map(|entry| match &entry.target {
                Target::Volume { id, .. } => Some(*id),
                Target::Inode(_) | Target::Link(_) => None,
            })
            .collect();
        let mut at = state.node(root)?.parent;
        while at != self.root {
            let node = state.node(at)?;
            if volumes.contains(&node.id) {
                return Ok(true);
            }
            at = node.parent;
        }
        Ok(false)
    }

    /// The root of another volume: here, `Some(None)` where it is new, and `None` where it has no place in the tree.
    fn root_of(
        &self,
        state: &State,
        volume: VolumeId,
        taken: &mut InoSet,
        new: &mut BTreeSet<VolumeId>,
    ) -> Option<Option<u64>> {
        match state.root(volume) {
            Some(ino) if self.roots.contains(&ino) && taken.insert(ino) => Some(Some(ino)),
            None if state.volumes.len() + new.len() < FS_VOLUMES_MAX && new.insert(volume) => Some(None),
            _ => {
                tracing::error!(%volume, "a volume has a second name in the tree, or is one too many, and is left out");
                None
            }
        }
    }

    /// What becomes of inodes with several names.
    fn look_up(
        &self,
        state: &State,
        named: &BTreeMap<FileId, u32>,
        taken: &mut InoSet,
        plan: &mut Plan<'a>,
    ) -> Step<()> {
        let mut linked: Vec<(FileId, u64)> = Vec::new();
        for ((root, id), ino) in &state.linked {
            if *root == self.root && is_named(state, *ino) && !taken.contains(ino) {
                linked.push((*id, *ino));
            }
        }
        linked.sort_unstable();
        for (id, ino) in linked {
            let node = state.node(ino)?;
            let seen = self.names.get(&ino).copied().unwrap_or(0);
            match self.record(state, id) {
                Some((inode, links)) => plan.renew(state, ino, inode, Some(links), None, false)?,
                None if seen >= node.nlink && !named.contains_key(&id) => {
                    taken.insert(ino);
                    plan.removed.push(ino);
                }
                // A name may be left in what was not looked at: it must lead somewhere.
                None if node.is_file() && !node.is_lost() && node.handles() > 0 => return Err(VfsError::Busy.into()),
                None if node.is_file() && !node.is_lost() => plan.lost.push(ino),
                None => {}
            }
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Files whose content changes though the kernel knows them, with their names.
    pub(super) fn held(&self, state: &State, plan: &Plan<'_>) -> Step<Option<Held>> {
        let mut held = Held::default();
        let mut inos = InoSet::default();
        let changed = plan.renewed.iter().filter(|one| one.differs.content && !one.grows).map(|one| one.ino);
        for ino in changed.chain(plan.lost.iter().copied()) {
            let node = state.node(ino)?;
            if node.is_file() && node.told > 0 {
                inos.insert(ino);
                held.inos.push(ino);
                if node.linked {
                    held.linked.push(ino);
                }
            }
        }
        if inos.is_empty() {
            return Ok(None);
        }
        for dir in &self.seen {
            for (name, ino) in state.entries(*dir)?.iter().filter(|(_, ino)| inos.contains(*ino)) {
                if state.node(*ino).is_ok_and(|node| !node.linked) {
                    held.names.push((*dir, name.clone()));
                }
            }
        }
        Ok(Some(held))
    }
}

impl<'a> Plan<'a> {
    /// The root of another volume has no place any more, or has one in a volume that is not here yet.
    fn leave(&mut self, state: &State, root: u64, goes_along: bool) -> Step<()> {
        let volume = state.node(root)?.volume().filter(|volume| goes_along || state.leaving.contains(volume));
        match (volume, state.vacant(root)) {
            (None, _) => return Err(VfsError::Busy.into()),
            (Some(_), Some(_)) => self.removed.push(root),
            (Some(volume), None) => self.leaving.push(volume),
        }
        Ok(())
    }

    fn renew(
        &mut self,
        state: &State,
        ino: u64,
        inode: &'a Inode,
        links: Option<u32>,
        place: Option<(u64, &'a [u8])>,
        grows: bool,
    ) -> Step<()> {
        let node = state.node(ino)?;
        let differs = Differs::of(node, inode, links);
        if differs.content && node.is_file() && node.handles() > 0 && !grows {
            return Err(VfsError::Busy.into());
        }
        if is_in_use(node) {
            // Its times are those of what is written to it.
            return if Differs::but_for_times(node, inode, links) { Err(VfsError::Busy.into()) } else { Ok(()) };
        }
        if differs.content || differs.attributes {
            self.renewed.push(Renewed { ino, inode, links, differs, grows, place });
        }
        Ok(())
    }
}

/// It has a name still.
fn is_named(state: &State, ino: u64) -> bool {
    state.nodes.get(&ino).is_some_and(|node| node.nlink > 0)
}

impl Vfs {
    /// Whether a file that would be given up was written to past us. It counts as changed from now on.
    pub(super) fn finds_written(&self, state: &mut State, plan: &Plan<'_>) -> Step<bool> {
        let mut found: Vec<(u64, Stat)> = Vec::new();
        for ino in plan.given_up() {
            let node = state.node(ino)?;
            if node.is_file()
                && let Local::Clean { size, ctime } = node.local()
                && let Some(stat) = self.backing.stat(ino).map_err(VfsError::from)?
                && (stat.size, stat.ctime) != (size, ctime)
                && (stat.size, size) != (0, 0)
            {
                found.push((ino, stat));
            }
        }
        for (ino, stat) in &found {
            self.found_written(state, *ino, *stat)?;
        }
        Ok(!found.is_empty())
    }
}
