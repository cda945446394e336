//! Moving a volume on to another published root.
//!
//! What is here of the volume is compared with the new snapshot by the ids of files. What has the same id stays the same
//! inode, with what is cached of it where its content is the same; what has no place any more goes as if it were unlinked.
//! Only directories whose listing is here and whose published content differs are listed from the mesh and looked at: what
//! is below an equal one is equal. Of records in the link table directories say nothing, so each that is here is looked up
//! there every time; by then the mesh must answer from the link table of the new snapshot.
//!
//! What there is to do is worked out under the lock, from what has come from the mesh so far. It ends with a list of what is
//! missing, which is fetched without the lock, or, in the same step, with doing it.
//!
//! What the kernel has cached of a file is gone for certain only when it does not know the inode any more: where it collects
//! writes it takes no size from us, and whoever opens a file just then would read the new content with the pages and the
//! size of the old. So it is had to forget all files whose content changes before that happens, and what it does not forget
//! is treated as what [is read](grown).
//!
//! Invariants: names, attributes and content are those of the old snapshot or those of the new one, at every moment; and so
//! are the rows in the store, because all of them are changed in one batch. A copy of what the new snapshot does not hold
//! counts as absent from that step on. Its backing file is left alone until that is on stable storage, and then goes: after
//! a crash it is either what its row says, or removed for being there though its row says that nothing is. So a crash
//! leaves one snapshot or the other, whole, and whoever calls again with the same root comes to the same end. Nothing
//! becomes dirty by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::tree::{Content, Entry, FileKind, Inode, LinkEntry, TreeRef};

use super::fetch::Growth;
use super::patience::{self, Wait};
use super::state::{State, Step};
use super::{Result, Vfs, VfsError};

mod apply;
mod grown;
mod inside;
mod vacate;
mod work;

use grown::{Grown, Opened};
pub use inside::{Fill, Still};
use work::{Held, Work};

/// How long the kernel may take to forget files that nobody uses.
const FORGETS_WITHIN: Duration = Duration::from_secs(1);

/// How long it is waited for before they are named again.
const FORGETS_AGAIN: Duration = Duration::from_millis(20);

/// Inodes with several names read at a time.
const PAGE: u32 = 1_000;

/// What has come from the mesh so far.
#[derive(Default)]
struct Known {
    /// By the directory that is to have these entries.
    listings: BTreeMap<u64, (TreeRef, Vec<Entry>)>,
    /// `None` for what the link table does not have.
    records: BTreeMap<FileId, Option<LinkEntry>>,
    /// Files that are open.
    grown: BTreeMap<u64, Grown>,
    /// Something was not to be had by which it would be known whether a file has grown.
    has_failed: bool,
    /// Files that the kernel did not forget in time: somebody watches them, say.
    kept: BTreeSet<u64>,
}

impl Known {
    fn listing(&self, dir: u64, content: &Content) -> Option<&[Entry]> {
        match content {
            Content::Directory(tree) => match self.listings.get(&dir) {
                Some((of, entries)) if of == tree => Some(entries),
                _ => None,
            },
            // As it is listed, too.
            _ => Some(&[]),
        }
    }

    /// Files that the kernel keeps are not waited for again. False: there are none that could go without that.
    fn keep(&mut self, held: &Held) -> bool {
        let before = self.kept.len();
        self.kept.extend(held.inos.iter().filter(|ino| !held.linked.contains(ino)));
        self.kept.len() > before
    }

    /// The record of an inode with several names that is of this kind.
    fn record(&self, id: FileId, kind: Option<FileKind>) -> Option<&LinkEntry> {
        let record = self.records.get(&id)?.as_ref()?;
        kind.is_none_or(|kind| kind == record.inode.kind).then_some(record)
    }
}

/// What is missing.
#[derive(Default)]
struct Wants {
    /// Directories whose entries are in the store but not in memory.
    loaded: Vec<u64>,
    listings: Vec<(u64, TreeRef)>,
    records: BTreeSet<FileId>,
    growths: Vec<Opened>,
}

impl Wants {
    fn is_empty(&self) -> bool {
        let Self { loaded, listings, records, growths } = self;
        loaded.is_empty() && listings.is_empty() && records.is_empty() && growths.is_empty()
    }
}

/// What was done, and what is to follow.
#[derive(Default)]
struct Done {
    /// Whose content or listing is another.
    inodes: Vec<u64>,
    /// Whose attributes are others.
    attributes: Vec<u64>,
    /// Names that lead elsewhere, parents before children.
    entries: Vec<(u64, Box<[u8]>)>,
    /// Names of files of which only attributes are others.
    stay: Vec<(u64, Box<[u8]>)>,
    /// Such files with several names.
    linked: Vec<u64>,
    /// Files to which something is added.
    growths: Vec<Growth>,
}

enum Next {
    Get(Wants),
    Hold(Held),
    /// Other volumes that go with their names: first all that is here of them.
    Leave(Vec<VolumeId>),
    /// A file turned out to be changed.
    Dirty,
    Done(Done),
}

/// While this is kept nothing leaves memory.
struct Pinned<'a>(&'a Vfs);

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.0.state.lock().pinned -= 1;
    }
}

impl Vfs {
    /// Moves a volume, in which nothing waits for the upload, on to another published root. What is looked up, listed, read
    /// or asked for from now on is of the new snapshot; the kernel is told, so this must not be called from a thread that
    /// serves it.
    ///
    /// A file that is open for reading, and has grown, grows; whose content is another one otherwise keeps what it holds until it is
    /// closed, and what it has become is another inode with the same name.
    ///
    /// [`VfsError::Busy`] when something in the volume is being cut, or is dirty, but for files that are open for writing and are what
    /// they were, but for times, in the new snapshot; when a file is open for writing whose content differs, or one with several
    /// names is open or held in another way, and when the new snapshot has no place for the root of another volume that is
    /// here, and which is not to [leave](Self::set_leaving) or cannot: nothing has changed then, but that there may be
    /// nothing here any more of others that leave. With another error from the store it has, in memory, and calling again writes it down.
    ///
    /// Where a kernel keeps the times of files to itself, which it does where it collects writes, whoever has a file open
    /// whose content is the same is shown the old ones until it is closed.
    pub fn advance(&self, volume: VolumeId, new: Inode) -> Result<()> {
        if new.kind != FileKind::Directory || !matches!(new.content, Content::Directory(_)) {
            return Err(VfsError::Invalid);
        }
        patience::check(Wait::Mesh)?;
        if self.run(|state| Ok(state.vacant(state.root_here(volume)?).is_some()))? {
            match self.set_root(volume, new.clone()) {
                // Somebody else was first.
                Err(VfsError::NotEmpty) => {}
                other => return other,
            }
        }
        self.flush_kernel()?;
        self.let_go()?;
        self.state.lock().pinned += 1;
        let _pinned = Pinned(self);
        self.load_linked(volume)?;
        let mut known = Known::default();
        let mut until = None;
        loop {
            match self.run_mut(|state| self.work_on(state, volume, &new, &known))? {
                Next::Get(wants) => self.get(volume, wants, &mut known)?,
                Next::Hold(held) => {
                    let until = *until.get_or_insert_with(|| Instant::now() + FORGETS_WITHIN);
                    if !self.have_forgotten(&held, until)? && !known.keep(&held) {
                        return Err(VfsError::Busy);
                    }
                }
                Next::Leave(others) => others.into_iter().try_for_each(|other| self.vacate(other))?,
                Next::Dirty => return Err(VfsError::Busy),
                Next::Done(done) => return self.follow_up(&done, &known),
            }
        }
    }

    /// Whether nothing in a volume waits for the upload, or is on its way there, but what is written to files that are open: a look
    /// before the work that leads to [`Self::advance`], which looks again.
    pub fn may_advance(&self, volume: VolumeId) -> Result<bool> {
        self.run(|state| {
            let root = state.root_here(volume)?;
            Ok(!is_in_the_way(state, root)?)
        })
    }

    /// Inodes with several names are found by their ids, in memory.
    fn load_linked(&self, volume: VolumeId) -> Result<()> {
        let root = self.run(|state| state.root_here(volume))?;
        let mut after = None;
        loop {
            let page = self.meta.all_linked(root, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            for row in page.iter().filter(|row| row.nlink > 0) {
                match self.run(|state| state.node(row.ino).map(drop)) {
                    Ok(()) | Err(VfsError::NotFound) => {}
                    other => return other,
                }
            }
        }
    }

    /// Brings what is missing. No lock is held.
    fn get(&self, volume: VolumeId, wants: Wants, known: &mut Known) -> Result<()> {
        for dir in wants.loaded {
            match self.load_dir(dir) {
                Ok(()) | Err(VfsError::NotFound) => {}
                other => return other,
            }
        }
        for (dir, tree) in wants.listings {
            let entries = self.listing_of(dir, &tree)?;
            known.listings.insert(dir, (tree, entries));
        }
        for id in wants.records {
            known.records.insert(id, self.record_of(volume, id)?);
        }
        wants.growths.into_iter().for_each(|opened| self.look_for_growth(opened, known));
        Ok(())
    }

    /// Has the kernel forget files, which it does unless somebody uses them. Whoever looks one up meanwhile makes it known
    /// again. False: it has not until then.
    fn have_forgotten(&self, held: &Held, until: Instant) -> Result<bool> {
        let Some(kernel) = self.invalidate.read().clone() else { return Ok(Instant::now() < until) };
        held.names.iter().for_each(|(parent, name)| kernel.entry(*parent, name));
        if !held.linked.is_empty() {
            self.commit()?;
            let names = self.meta.names_of(&held.linked)?;
            names.iter().for_each(|(parent, name)| kernel.entry(*parent, name));
        }
        let mut state = self.state.lock();
        let is_known = |state: &State| {
            held.inos.iter().any(|ino| state.nodes.get(ino).is_some_and(|node| node.told > 0 && node.handles() == 0))
        };
        while is_known(&state) {
            // It may be known again when it is: then its name is dropped again, soon.
            let soon = until.min(Instant::now() + FORGETS_AGAIN);
            if self.forgotten.wait_until(&mut state, soon).timed_out() {
                break;
            }
        }
        Ok(Instant::now() < until)
    }

    fn work_on(&self, state: &mut State, volume: VolumeId, new: &Inode, known: &Known) -> Step<Next> {
        let root = state.root_here(volume)?;
        if state.node(root)?.id != new.id {
            return Err(VfsError::Invalid.into());
        }
        if is_in_the_way(state, root)? {
            return Err(VfsError::Busy.into());
        }
        let work = match Work::out(state, root, new, known)? {
            Ok(work) => work,
            Err(wants) => return Ok(Next::Get(wants)),
        };
        let plan = work.plan(state)?;
        if plan.takes_what_is_in_use(state)? {
            return Err(VfsError::Busy.into());
        }
        if !plan.leaving.is_empty() {
            return Ok(Next::Leave(plan.leaving));
        }
        if let Some(held) = work.held(state, &plan)? {
            return Ok(Next::Hold(held));
        }
        if !state.read_only.contains(&volume) && self.finds_written(state, &plan)? {
            return Ok(Next::Dirty);
        }
        Ok(Next::Done(self.carry_out(state, root, plan, known)))
    }

    /// After the tree has become another: the kernel is told at once, because until then it has names of the old.
    fn follow_up(&self, done: &Done, known: &Known) -> Result<()> {
        let kernel = self.invalidate.read().clone();
        if let Some(kernel) = &kernel {
            done.inodes.iter().for_each(|ino| kernel.inode(*ino));
            done.attributes.iter().for_each(|ino| kernel.mode(*ino));
            // Names in a directory that has gone before its own.
            done.entries.iter().rev().for_each(|(parent, name)| kernel.entry(*parent, name));
            if kernel.keeps_times() {
                done.stay.iter().for_each(|(parent, name)| kernel.entry(*parent, name));
            }
        }
        self.commit()?;
        for growth in &done.growths {
            if let Err(error) = self.grow(growth, known.growth(growth.ino)) {
                tracing::warn!(ino = growth.ino, %error, "what was added to an open file comes when it is opened again");
            }
        }
        // All of them are there: whoever waits for one may have what the kernel needs to hear of another.
        if let Some(kernel) = &kernel {
            done.growths.iter().for_each(|growth| kernel.inode(growth.ino));
        }
        if let Some(kernel) = kernel
            && kernel.keeps_times()
            && !done.linked.is_empty()
        {
            let names = self.meta.names_of(&done.linked)?;
            names.iter().for_each(|(parent, name)| kernel.entry(*parent, name));
        }
        Ok(())
    }
}

/// Whether something in the volume of this root keeps it from becoming another. What is written to a file that is open, and is what
/// it was in the new snapshot, is as much a change of that: see [`work::is_in_use`].
fn is_in_the_way(state: &mut State, root: u64) -> Step<bool> {
    let is_cut = state.cuts > 0;
    let held = state.held(root)?;
    if is_cut || !held.tombs.is_empty() {
        return Ok(true);
    }
    let dirty: Vec<u64> = held.dirty.iter().copied().collect();
    for ino in dirty {
        let node = state.node(ino)?;
        if !(node.is_file() && node.writers() > 0 && node.remote.is_some() && !node.linked) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether something in the volume of this root waits for the upload, is on its way there, or may change without a word.
fn is_busy(state: &mut State, root: u64) -> Step<bool> {
    let held = state.held(root)?;
    if !held.dirty.is_empty() || !held.tombs.is_empty() {
        return Ok(true);
    }
    is_changing(state, root)
}

/// Whether something in the volume of this root is on its way to the mesh, or may change without a word.
fn is_changing(state: &mut State, root: u64) -> Step<bool> {
    if state.cuts > 0 {
        return Ok(true);
    }
    for ino in &state.watch {
        match state.root_of(*ino) {
            Ok(of) if of != root => {}
            // It has no name any more.
            Err(super::state::Need::Fail(VfsError::NotFound)) => {}
            other => return other.map(|_| true),
        }
    }
    Ok(false)
}
