//! Snapshots that are kept: taking one, what is kept of them, and what they hold.
//!
//! One is taken without the mesh. Its tree is built as for a sync, but what is sealed stays on this disk, and that it is kept is a
//! change of the history which goes into the next head, as names and their removal do. What this device shows of the history is
//! that of its newest head with these changes.
//!
//! Invariant: a snapshot counts as taken when all that it holds is on stable storage or in a segment that this device's index
//! knows; the index is not given up for that of another device while a snapshot is in no head.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use hypernet_core::codec::{self, CodecError};
use hypernet_core::diff::{Side, differs};
use hypernet_core::extent::Cutter;
use hypernet_core::head::Snapshot;
use hypernet_core::history::policy::is_ahead;
use hypernet_core::history::{By, Edit, History, Kept, Moment, Tag};
use hypernet_core::id::{FileId, SnapshotId, VolumeId};
use hypernet_core::limits::{HISTORY_MAX, SNAPSHOT_PARENTS_MAX};
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::seal::Kind;
use hypernet_core::time::Hlc;
use hypernet_core::tree::{
    self, Content, Dot, Entry, Inode, Item, LinkEntry, Root, Sink, Source, Target, TreeError, TreeRef,
};
use hypernet_fs::vfs::{Cut, Paused, Stamp, Vfs};

use super::heads::YEAR_9999;
use super::progress::Meter;
use super::read::{Deadline, Nodes, expect_kind, tree_error};
use super::recover::wall;
use super::stage::Stage;
use super::sync::{Base, Built, CutGuard, Patience, build, of_tree, read_ahead};
use super::write::Put;
use super::{Volume, damaged, state};
use crate::branch::Branch;

/// For how long a snapshot waits for a tree that moves to what others have published.
const STILL_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Levels of the tree of snapshots that are read when somebody asks for them.
const LISTED_WITHIN: u8 = 2;
/// Of names so many are here by then.
const TAGS_AHEAD: u64 = 1_000;

/// For how long a volume holds still at most, while what is in a cut is read.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// Of more than this as much as can be is read before that.
const AHEAD_FILES: u64 = 256;
const AHEAD_BYTES: u64 = 16 << 20;
/// Times of files are those of the last tick of the kernel's clock.
const TICK: Duration = Duration::from_millis(20);

/// What was read before a cut.
#[derive(Default)]
struct Ahead {
    read: u64,
    new: u64,
}

/// Whether a file may have been written to after that.
fn is_after(stamp: &Stamp, time: SystemTime) -> bool {
    let since = (time - TICK).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (stamp.ctime.seconds, stamp.ctime.nanos) >= (since.as_secs() as i64, since.subsec_nanos())
}

/// What taking a snapshot did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) kept: Kept,
    /// Files whose content was not known from before.
    pub(crate) files: u64,
    /// Bytes that were read of them.
    pub(crate) read: u64,
    /// Sealed bytes that are new.
    pub(crate) new: u64,
    /// It holds what the one before holds.
    pub(crate) is_same: bool,
    /// Files that may be newer than the rest: they were read when the volume held still no more, and written to by then.
    pub(crate) newer: u64,
}

/// The working tree at one moment.
struct Now {
    root: Root,
    files: u64,
    read: u64,
    newer: u64,
}

/// A history, and the trees of what is kept and of the names.
type Known = (Option<TreeRef>, Option<TreeRef>, Arc<History>);

/// What is known of the history of a volume, so that not all of it is read for each snapshot.
#[derive(Default)]
pub(crate) struct Histories {
    /// All of it, and how often the database had changed when it was read.
    all: Option<(u64, Arc<History>)>,
    /// That which trees of these references hold.
    published: Option<Known>,
    /// And that which is to be published next.
    built: Option<Known>,
    /// Snapshots that were found to be signed.
    verified: BTreeSet<Moment>,
}

/// What a volume is a branch of, or a branch of a branch of, if that is known; of what is no branch itself.
pub(crate) fn trunk(branches: &[Branch], mut volume: VolumeId) -> Option<VolumeId> {
    // Each names another one, so there is an end where none is named twice.
    for _ in 0..=branches.len() {
        if !volume.is_branch() {
            return Some(volume);
        }
        volume = branches.iter().find(|branch| branch.volume == volume)?.of;
    }
    None
}

/// The last of those that are not dated far ahead.
fn last_of(history: &History, now: u64) -> Option<&Kept> {
    history.kept.iter().rev().find(|(moment, _)| !is_ahead(moment.time, now)).map(|(_, kept)| kept)
}

impl Volume {
    /// Whether changes of the history wait for the next head.
    pub(crate) fn has_edits(&self) -> bool {
        self.edits.load(Ordering::SeqCst) > 0
    }

    fn add_edit(&self, edit: &Edit) -> Result<(), PortError> {
        self.db.add_edit(&codec::encode(edit))?;
        self.edits.store(self.db.count_edits()?, Ordering::SeqCst);
        Ok(())
    }

    /// Changes that are part of a head now go, and extents up to this number, which are in segments.
    pub(super) fn forget_edits(&self, staged: u64, edits: &[(u64, Vec<u8>)]) -> Result<(), PortError> {
        let mut histories = self.histories.lock();
        if let Some(built) = histories.built.take() {
            // The next snapshot need not read it.
            histories.published = Some(built);
        }
        drop(histories);
        let last = edits.last().map_or(0, |(num, _)| *num);
        if staged > 0 || last > 0 {
            self.db.unstage(staged, last)?;
            self.edits.store(self.db.count_edits()?, Ordering::SeqCst);
        }
        Ok(self.db.clear_contents()?)
    }

    /// Gives up all changes that are in no head, with what they hold.
    pub(crate) fn discard_edits(&self) -> Result<(), PortError> {
        state::forget_handed_tree(&self.db)?;
        self.db.unstage(i64::MAX as u64, i64::MAX as u64)?;
        self.edits.store(self.db.count_edits()?, Ordering::SeqCst);
        Ok(())
    }

    /// What is in such a tree; nothing where it is none, as a merge has it: whoever may write may take all of it away, and no more than
    /// that comes of it.
    fn listed<T: Item>(&self, tree: Option<&TreeRef>) -> Result<Vec<T>, PortError> {
        let Some(tree) = tree else { return Ok(Vec::new()) };
        let too_much = TreeError::Malformed { tree: T::NAME, reason: "more than there can be" };
        let listed = match tree.weight > HISTORY_MAX as u64 {
            true => Err(too_much),
            false => tree::list(tree, &Nodes(self, Deadline::of_read())),
        };
        match listed {
            Err(
                error @ (TreeError::Codec(CodecError::Version { .. }) | TreeError::Port(_) | TreeError::TooMuch(_)),
            ) => Err(tree_error(error)),
            Err(error) => {
                tracing::warn!(volume = %self.id.short(), %error, "what is published as a history counts as an empty one");
                Ok(Vec::new())
            }
            Ok(items) => Ok(items),
        }
    }

    fn history_of(&self, base: &Base) -> Result<History, PortError> {
        let (kept, tags) = base.history();
        self.history_at(kept, tags)
    }

    /// Reads the upper nodes of the history of a root to which this device comes, so that whoever first looks at it waits for two
    /// trips to the mesh at most. That it cannot be had now is in nobody's way.
    pub(super) fn read_history_ahead(&self, root: &Root) {
        let nodes = Nodes(self, Deadline::of_read());
        let kept =
            root.history.as_ref().map_or(Ok(()), |tree| tree::read_ahead::<Kept, _>(tree, &nodes, LISTED_WITHIN));
        // They are read after the others, and there are few.
        let below = |tree: &TreeRef| u8::from(tree.weight > TAGS_AHEAD);
        let tags = root.tags.as_ref().map_or(Ok(()), |tree| tree::read_ahead::<Tag, _>(tree, &nodes, below(tree)));
        if let Err(error) = kept.and(tags) {
            tracing::debug!(volume = %self.id.short(), %error, "the history is read when somebody asks for it");
        }
    }

    /// What is in these trees.
    pub(crate) fn history_at(&self, kept: Option<&TreeRef>, tags: Option<&TreeRef>) -> Result<History, PortError> {
        if let (Some(kept), Some(tags)) = (kept, tags) {
            // In one trip to the mesh, and not one after the other.
            Nodes(self, Deadline::of_read()).get(&[kept.node.clone(), tags.node.clone()])?;
        }
        Ok(History::new(self.listed::<Kept>(kept)?, self.listed::<Tag>(tags)?))
    }

    /// Leaves out what nobody has signed, or what is of no time: whoever may write can put it there, and it is neither to be shown
    /// as somebody's nor to be followed by what comes next.
    fn leave_out_forged(&self, history: &mut History) {
        let mut histories = self.histories.lock();
        let verified = &mut histories.verified;
        verified.retain(|moment| history.kept.contains_key(moment));
        history.kept.retain(|moment, kept| {
            let counts = verified.contains(moment) || (moment.time.millis < YEAR_9999 && kept.verify().is_ok());
            if counts {
                verified.insert(*moment);
            }
            counts
        });
    }

    fn apply(&self, history: &mut History, edits: &[(u64, Vec<u8>)], dot: Dot) -> Result<(), PortError> {
        for (_, edit) in edits {
            history.apply(codec::decode(edit).map_err(damaged)?, dot);
        }
        Ok(())
    }

    /// The trees of a history with these changes.
    pub(super) fn edited<P: Put>(
        &self,
        base: &Base,
        edits: &[(u64, Vec<u8>)],
        dot: Dot,
        writer: &mut P,
    ) -> Result<(Option<TreeRef>, Option<TreeRef>), PortError> {
        // Nobody else is to have what was kept before they had a part in it.
        let is_over = self.stands_on_private()? && self.keys().is_shared();
        if edits.is_empty() {
            let (history, tags) = if is_over { (None, None) } else { base.history() };
            return Ok((history.cloned(), tags.cloned()));
        }
        let mut history = if is_over { History::default() } else { self.history_of(base)? };
        self.leave_out_forged(&mut history);
        self.apply(&mut history, edits, dot)?;
        // What others have published since these were made may have filled it.
        history.keep_newest(HISTORY_MAX);
        let kept = match history.kept.is_empty() {
            true => None,
            false => Some(tree::build(history.kept.values().cloned(), writer).map_err(tree_error)?),
        };
        let tags = match history.tags.is_empty() {
            true => None,
            false => Some(tree::build(history.tags.values().cloned(), writer).map_err(tree_error)?),
        };
        self.histories.lock().built = Some((kept.clone(), tags.clone(), Arc::new(history)));
        Ok((kept, tags))
    }

    /// The history of this volume as this device knows it.
    pub(crate) fn history(&self) -> Result<Arc<History>, PortError> {
        // Before it is read: what changes meanwhile is read again.
        let changes = self.db.changes();
        if let Some((at, known)) = &self.histories.lock().all
            && *at == changes
        {
            return Ok(known.clone());
        }
        let mut history = self.published_history()?;
        let edits = self.db.edits()?;
        if !edits.is_empty() {
            let dot = self.dot(state::next_sequence(&self.db, &self.device.id())?);
            self.apply(Arc::make_mut(&mut history), &edits, dot)?;
        }
        self.histories.lock().all = Some((changes, history.clone()));
        Ok(history)
    }

    /// The trees of snapshots and of tags that this volume goes on from.
    pub(crate) fn history_trees(&self) -> Result<(Option<TreeRef>, Option<TreeRef>), PortError> {
        let base = Base::of(self)?;
        let (kept, tags) = base.history();
        Ok((kept.cloned(), tags.cloned()))
    }

    /// The one that the tree has which this device stands on: it is read once.
    pub(super) fn published_history(&self) -> Result<Arc<History>, PortError> {
        let base = Base::of(self)?;
        let (kept, tags) = base.history();
        if let Some((known_kept, known_tags, known)) = &self.histories.lock().published
            && (known_kept.as_ref(), known_tags.as_ref()) == (kept, tags)
        {
            return Ok(known.clone());
        }
        let mut history = self.history_of(&base)?;
        self.leave_out_forged(&mut history);
        let history = Arc::new(history);
        self.histories.lock().published = Some((kept.cloned(), tags.cloned(), history.clone()));
        Ok(history)
    }

    /// Waits until the tree does not move to what others have published, and has it stay.
    fn hold_still(&self, vfs: &Vfs) -> Result<parking_lot::MutexGuard<'_, ()>, PortError> {
        let until = Instant::now() + STILL_WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let busy = || PortError::Deadline("what others have published is being taken in: try again".into());
            let still = self.still.try_lock_for(left).ok_or_else(busy)?;
            if self.stays(vfs)? {
                return Ok(still);
            }
            drop(still);
            if left.is_zero() {
                return Err(busy());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether the tree is not on its way to another one. One that was merged, and that it has moved to, may wait for a long time for
    /// the mesh to take its head.
    fn stays(&self, vfs: &Vfs) -> Result<bool, PortError> {
        let is_merged = state::merging(&self.db)?.is_none() || self.moved_to(vfs)?.is_some();
        Ok(is_merged && state::following(&self.db)?.is_none())
    }

    /// Takes a snapshot as by hand or as by a policy, by the clock of this machine.
    #[cfg(test)]
    pub(crate) fn snap(
        self: &Arc<Self>,
        vfs: &Arc<Vfs>,
        message: String,
        is_automatic: bool,
    ) -> Result<Option<Taken>, PortError> {
        self.snap_at(vfs, message, is_automatic, wall())
    }

    /// Takes a snapshot by hand, or by a policy, which takes none where nothing has changed, by a clock that shows this.
    pub(super) fn snap_at(
        self: &Arc<Self>,
        vfs: &Arc<Vfs>,
        message: String,
        is_automatic: bool,
        now: u64,
    ) -> Result<Option<Taken>, PortError> {
        let by = if is_automatic { By::Policy } else { By::Hand };
        self.take_snapshot(vfs, message, (by, is_automatic), now)
    }

    /// Takes one by hand or for a command, by the clock of this machine. `unless_same`: none where the newest one holds all that.
    pub(crate) fn snap_by(
        self: &Arc<Self>,
        vfs: &Arc<Vfs>,
        message: String,
        (by, unless_same): (By, bool),
    ) -> Result<Option<Taken>, PortError> {
        self.take_snapshot(vfs, message, (by, unless_same), wall())
    }

    /// The last snapshot that is kept, and is not dated far ahead.
    pub(crate) fn last_snapshot(&self) -> Result<Option<SnapshotId>, PortError> {
        Ok(last_of(&*self.history()?, wall()).map(|kept| kept.snapshot.id()))
    }

    /// Takes a snapshot of what is in the working tree now, and keeps it. The mesh is not needed, but for what is missing in the cache of
    /// nodes of this device.
    fn take_snapshot(
        self: &Arc<Self>,
        vfs: &Arc<Vfs>,
        message: String,
        (by, unless_same): (By, bool),
        now: u64,
    ) -> Result<Option<Taken>, PortError> {
        self.may_write()?;
        let _still = self.hold_still(vfs)?;
        let ahead = self.read_before(vfs)?;
        // A branch may begin with this, and is merged by what it has seen. So what is changed after it must have another number, and
        // whatever is published meanwhile has a later number, or is all in it.
        let one = self.numbering.lock();
        let (base, mut cut, _guard, still) = self.cut_with_base(vfs)?;
        let number = self.take_number()?;
        drop(one);
        // What a branch begins with is in the history of what it is a branch of.
        if base.is_adopted() && !self.id.is_branch() {
            let what = "nothing of this volume is on the mesh yet: `hn sync` first, then it can have snapshots";
            return Err(PortError::Unreachable(what.into()));
        }
        if base.latest.is_none() && cut.is_empty() {
            return Err(PortError::NotFound("nothing was written in this volume yet".into()));
        }
        let history = self.history()?;
        if history.kept.len() >= HISTORY_MAX {
            let what =
                format!("{HISTORY_MAX} snapshots are kept, which is all that can be: `hn snap prune` lets go of some");
            return Err(PortError::DiskFull(what));
        }
        let mut stage = Stage::new(self);
        let has_changes = !cut.is_empty();
        if has_changes {
            state::spend(&self.db, number)?;
        }
        let dot = self.dot(number);
        let Now { root, files, read, newer } = self.stage_now(vfs, &mut cut, &base, dot, &mut stage, Some(&still))?;
        drop(still);
        let (read, new_before) = (read + ahead.read, ahead.new);
        // What is dated far ahead, by a clock that was wrong or by somebody who wanted that, is followed by nothing.
        let before = last_of(&history, now);
        let is_same = match before {
            Some(before) => self.is_same(before, &root, &stage)?,
            None => false,
        };
        if let Some(before) = before.filter(|_| is_same && unless_same) {
            if by < before.by {
                // It is to stay for as long as the one that stands for it.
                self.add_edit(&Edit::Keep { snapshot: before.snapshot.clone(), by })?;
            }
            return Ok(None);
        }
        let extent = stage.put(Kind::Root, &codec::encode(&root))?;
        let mut parents = history.tips(|moment| !is_ahead(moment.time, now));
        parents.reverse();
        parents.truncate(SNAPSHOT_PARENTS_MAX);
        let last = before.map_or(Hlc::default(), |kept| kept.snapshot.time);
        let latest = base.latest.as_ref().map(|latest| latest.time).filter(|time| !is_ahead(*time, now));
        let time = last.max(latest.unwrap_or_default()).next(now);
        let snapshot = Snapshot::sign(&self.device.signing_key(), extent, parents, time, message);
        let new = stage.finish()? + new_before;
        if has_changes {
            self.hand_out(number, Some(base.next(number, &root)))?;
        }
        self.add_edit(&Edit::Keep { snapshot: snapshot.clone(), by })?;
        Ok(Some(Taken { kept: Kept { snapshot, dot, by }, files, read, new, is_same, newer }))
    }

    /// Reads what much has been written of, so that the volume need not hold still for so long: what is written to meanwhile is read
    /// again then.
    fn read_before(&self, vfs: &Vfs) -> Result<Ahead, PortError> {
        let pending = vfs.pending(self.id);
        if pending.files <= AHEAD_FILES && pending.bytes <= AHEAD_BYTES {
            return Ok(Ahead::default());
        }
        let cut = vfs.cut(self.id).map_err(of_tree)?;
        let _guard = CutGuard(vfs);
        let mut stage = Stage::new(self);
        let cutter = Cutter::new(stage.keys());
        let read = read_ahead(vfs, &cut, &cutter, &mut stage)?;
        Ok(Ahead { read, new: stage.finish()? })
    }

    /// A cut, and what it goes on from: nothing was published between the two, and the tree does not move. The volume holds still.
    fn cut_with_base<'a>(&self, vfs: &'a Vfs) -> Result<(Base, Cut, CutGuard<'a>, Paused<'a>), PortError> {
        let until = Instant::now() + STILL_WITHIN;
        let tree = |base: &Base| {
            base.latest
                .as_ref()
                .map(|latest| (latest.snapshot, latest.root.inode.content.clone(), latest.root.links.clone()))
        };
        loop {
            let base = Base::here(self, vfs)?;
            let (cut, still) = vfs.cut_paused(self.id, READ_WITHIN).map_err(of_tree)?;
            let guard = CutGuard(vfs);
            if self.stays(vfs)? && tree(&Base::here(self, vfs)?) == tree(&base) {
                return Ok((base, cut, guard, still));
            }
            drop((guard, still));
            if Instant::now() > until {
                return Err(PortError::Deadline("heads come one after the other: try again".into()));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Seals what is in a cut, and what it goes on from, without the mesh.
    fn stage_now(
        self: &Arc<Self>,
        vfs: &Arc<Vfs>,
        cut: &mut Cut,
        base: &Base,
        dot: Dot,
        stage: &mut Stage<'_>,
        still: Option<&Paused<'_>>,
    ) -> Result<Now, PortError> {
        let mut newer = 0;
        // What has changed is taken out of it.
        let vector = if cut.is_empty() { base.seen() } else { base.vector(dot) };
        let (inode, links, files, read) = match &base.latest {
            Some(latest) if cut.is_empty() => (latest.root.inode.clone(), latest.root.links.clone(), 0, 0),
            _ => {
                let how = (Cutter::new(stage.keys()), Patience::Disk);
                let meter = Meter::new();
                let Built { inode, links, synced, bytes } = build((self, vfs, &meter), (cut, base, dot), how, stage)?;
                if let Some(ended) = still.and_then(Paused::ended) {
                    let stamps = synced.iter().filter_map(|one| one.stamp.as_ref());
                    newer = stamps.filter(|stamp| is_after(stamp, ended)).count() as u64;
                }
                (inode, links, synced.iter().filter(|one| one.stamp.is_some()).count() as u64, bytes)
            }
        };
        let parts = Vec::new();
        let root = Root { volume: self.id, inode, links, vector, parts, history: None, tags: None };
        Ok(Now { root, files, read, newer })
    }

    /// The working tree as it is now, to be compared with what was.
    pub(crate) fn now(self: &Arc<Self>, vfs: &Arc<Vfs>) -> Result<Root, PortError> {
        let _still = self.hold_still(vfs)?;
        // Nobody keeps it.
        let (base, mut cut, _guard, _) = self.cut_with_base(vfs)?;
        let mut stage = Stage::new(self);
        // It stays with whoever asked: nothing else is told of what is in it by this dot.
        let dot = self.dot(state::next_sequence(&self.db, &self.device.id())?);
        let now = self.stage_now(vfs, &mut cut, &base, dot, &mut stage, None)?;
        stage.finish()?;
        Ok(now.root)
    }

    /// Snapshots that are in no head yet.
    pub(crate) fn waiting_snapshots(&self) -> Result<BTreeSet<Moment>, PortError> {
        let mut waiting = BTreeSet::new();
        for (_, edit) in self.db.edits()? {
            if let Edit::Keep { snapshot, .. } = codec::decode(&edit).map_err(damaged)? {
                waiting.insert(Moment { time: snapshot.time, id: snapshot.id() });
            }
        }
        Ok(waiting)
    }

    /// Whether a snapshot holds what this root holds, times aside.
    fn is_same(&self, before: &Kept, root: &Root, stage: &Stage<'_>) -> Result<bool, PortError> {
        let is_same = self.root_in(before).and_then(|old| {
            if (&old.inode.content, &old.links) == (&root.inode.content, &root.links) {
                return Ok(true);
            }
            // The policy by which it is taken is an attribute of the root.
            let has_changed = || differs(Side::from(&old), Side::from(root), &stage.source()).map_err(tree_error);
            Ok(!stage.has_content && !has_changed()?)
        });
        match is_same {
            Ok(is_same) => Ok(is_same),
            Err(error) if error.is_of_what_was_read() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A change of the history that is no snapshot.
    pub(crate) fn edit_history(&self, edit: &Edit) -> Result<(), PortError> {
        self.may_write()?;
        self.add_edit(edit)
    }

    /// The root that a snapshot names: of this volume, and signed.
    pub(crate) fn root_in(&self, kept: &Kept) -> Result<Root, PortError> {
        kept.verify().map_err(damaged)?;
        self.root_of_any(&kept.snapshot.root)
    }

    /// A root by its place, of this volume or, where one is a branch of the other, of that.
    pub(super) fn root_of_any(&self, extent: &ExtentRef) -> Result<Root, PortError> {
        expect_kind(extent, Kind::Root)?;
        // It is small, and kept as nodes are: so the names of what was are here without the mesh, too.
        let bytes = Nodes(self, Deadline::of_read()).get(std::slice::from_ref(extent))?.pop();
        let bytes = bytes.ok_or_else(|| damaged("a root is missing"))?;
        let root: Root = codec::decode(&bytes).map_err(damaged)?;
        if !self.is_kin(root.volume) {
            return Err(damaged("the snapshot is of another volume"));
        }
        Ok(root)
    }

    /// Whether snapshots of another volume may be part of this one's history. A branch has that of what it comes from, which gets
    /// what it has become when they are merged; of a branch that this device does not know it is not told what it comes from.
    fn is_kin(&self, other: VolumeId) -> bool {
        if other == self.id {
            return true;
        }
        let branches = self.identity.keystore().keystore().branches;
        match [self.id, other].map(|volume| trunk(&branches, volume)) {
            [Some(mine), Some(theirs)] => mine == theirs,
            _ => true,
        }
    }

    /// What a snapshot has at a path, given by its names from the root on; none where there is nothing.
    pub(crate) fn find_in(&self, root: &Root, path: &[&[u8]]) -> Result<Option<Inode>, PortError> {
        let mut at = root.inode.clone();
        for name in path {
            let Content::Directory(tree) = &at.content else { return Ok(None) };
            let nodes = Nodes(self, Deadline::of_read());
            let found = tree::find::<Entry, _>(tree, &nodes, &tree::Name(name.to_vec())).map_err(tree_error)?;
            at = match found.map(|entry| entry.target) {
                None | Some(Target::Volume { .. }) => return Ok(None),
                Some(Target::Inode(inode)) => *inode,
                Some(Target::Link(id)) => match self.link_in(root, id)? {
                    Some(row) => row.inode,
                    None => return Ok(None),
                },
            };
        }
        Ok(Some(at))
    }

    /// A row of a link table.
    pub(crate) fn row_of(&self, links: &TreeRef, id: FileId) -> Result<Option<LinkEntry>, PortError> {
        tree::find::<LinkEntry, _>(links, &Nodes(self, Deadline::of_read()), &id).map_err(tree_error)
    }

    /// What has several names in a snapshot.
    pub(crate) fn link_in(&self, root: &Root, id: FileId) -> Result<Option<LinkEntry>, PortError> {
        root.links.as_ref().map_or(Ok(None), |links| self.row_of(links, id))
    }
}

#[cfg(test)]
mod tests;
