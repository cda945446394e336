//! Merging what several devices have published into one tree, and publishing that: see [`hypernet_core::merge`].
//!
//! - What is merged are the trees that were changed: of a tree that was merged already, those that it was made of.
//! - The catalogs of the others are added to this device's own: the new tree leads to what lies in their segments.
//! - The nodes of the new tree are placed, then it is written down, then the working tree moves to it, and then its head is
//!   published. So this device never stands on a head that has what its working tree has not: the next sync would publish
//!   that as taken away. Where the working tree is in use, nothing has happened but that some nodes were placed; a merge of
//!   the same later gives the same nodes, which are not placed again.
//! - A directory that has become a volume in one tree, and was changed in another, is merged into that volume first: by
//!   whoever uploads that volume here, or, where the working tree has it as a directory still, beside it. Nothing of the
//!   volume above is published before that has happened, so what was changed stays in a head all the time. Whoever has no
//!   part in that volume keeps what was changed in a directory beside it.
//! - When all that is done, texts of which two versions are kept are merged line by line, as an edit of this device: see
//!   [`super::settling`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::head::Head;
use hypernet_core::id::{DeviceTag, ExtentId, FileId, SegmentId, SnapshotId, VolumeId};
use hypernet_core::limits::{MERGED_MAX, SEALED_MAX};
use hypernet_core::merge::{Holding, MergeError, Merged, Part, Sources, Split, covers_all, join, merge};
use hypernet_core::port::PortError;
use hypernet_core::seal::ExtentRef;
use hypernet_core::segment::{Holder, Placement};
use hypernet_core::share::members::head_hash;
use hypernet_core::time::{Hlc, Timespec, UnixSeconds};
use hypernet_core::tree::{Dot, Root, Source};
use hypernet_fs::vfs::Vfs;
use hypernet_store::volume::{ExtentAt, NewSegment, SegmentRow, VolumeDb};
use parking_lot::Mutex;

use super::conflicts::called;
use super::follow::{Counted, Followed, Left, REFUSED_FOR};
use super::heads::when;
use super::leases::Held;
use super::progress::{Meter, Phase};
use super::read::{Deadline, Nodes, tree_error};
use super::repair::Wear;
use super::settling::Kept;
use super::state::{self, Before, Latest, Merging};
use super::sync::{Publication, publish};
use super::tended::Tending as _;
use super::write::{Writer, unix_now};
use super::{LEASE_SECONDS, Volume, damaged};
use crate::identity::Identity;
use crate::share::circle::Publishers;
use crate::share::hearing::Ask;
use crate::volumes::Volumes;

/// Segments taken in with one flush.
const SEGMENTS_AT_ONCE: u32 = 64;

/// For how long trees are read that are to be merged: longer than that nobody has the others wait.
const MERGED_WITHIN: Duration = Duration::from_secs(900);

/// A tree that was changed, where its root is, and the heads that lead to it, of others than this device.
struct Tree {
    at: ExtentRef,
    root: Root,
    of: Vec<Left>,
    /// Something that is merged with it has seen all of it.
    is_past: bool,
}

/// Trees that are to be merged, the snapshots that they come from, and the last of their times.
struct Gathered {
    trees: Vec<Tree>,
    parents: Vec<SnapshotId>,
    time: Hlc,
}

/// What became of directories that belong into other volumes.
enum Handed {
    All,
    /// They are to be looked at again.
    NotYet,
    /// These never will be by this device's doing: it has no part in the volumes that they have become.
    Not(BTreeSet<FileId>),
}

/// Nodes of trees, each within the time of a read, and all of them within that of a merge.
struct Unhurried<'a> {
    volume: &'a Volume,
    spent: Spent,
}

/// How long each of several trees has been read.
#[derive(Default)]
struct Spent(Mutex<BTreeMap<usize, Duration>>);

impl Spent {
    fn add(&self, number: usize, time: Duration) {
        *self.0.lock().entry(number).or_default() += time;
    }

    fn is_too_long(&self) -> bool {
        self.0.lock().values().sum::<Duration>() > MERGED_WITHIN
    }

    /// Where all of them together took too long, the one of these that took the longest: it need not be the one that was read last.
    fn to_blame(&self, is_one: impl Fn(usize) -> bool) -> Option<usize> {
        let spent = self.0.lock().clone();
        let all = spent.into_iter().filter(|(number, _)| self.is_too_long() && is_one(*number));
        all.max_by_key(|(_, time)| *time).map(|(number, _)| number)
    }
}

impl Sources for Unhurried<'_> {
    type Error = PortError;

    fn get_for(&self, number: usize, refs: &[ExtentRef]) -> Result<Vec<Vec<u8>>, PortError> {
        if self.spent.is_too_long() {
            return Err(PortError::Deadline("the trees that are to be merged come too slowly".into()));
        }
        let begun = Instant::now();
        let nodes = Nodes(self.volume, Deadline::of_read()).get(refs);
        self.spent.add(number, begun.elapsed());
        nodes
    }
}

impl Gathered {
    /// The directories of these that are no past of a tree here; what is here and past of one of them is only that from here on.
    fn without_past(mut self, mut splits: Vec<Part>) -> (Self, Vec<Part>) {
        let has = |part: &Part, tree: &Tree| !part.is_below && covers_all(&part.vector, &tree.root.vector);
        splits
            .retain(|part| part.is_below || !self.trees.iter().any(|tree| covers_all(&tree.root.vector, &part.vector)));
        for tree in &mut self.trees {
            tree.is_past = splits.iter().any(|part| has(part, tree));
        }
        (self, splits)
    }
}

impl Volume {
    /// Directories that are to be merged into this volume, and of which a tree with this vector does not have all.
    pub(super) fn splits_to_take(&self, vector: &[Dot]) -> Vec<Part> {
        let mut splits = self.splits.lock();
        splits.retain(|part| !covers_all(vector, &part.vector));
        splits.clone()
    }

    /// Whether there are some.
    pub(crate) fn has_splits(&self) -> bool {
        !self.splits.lock().is_empty()
    }

    /// Directories that are not merged into this volume, at once or after a few tries: the volume above keeps them beside it, or leaves
    /// out who has them. Otherwise neither of both would be merged with anything any more.
    fn give_up<'a>(&self, splits: impl Iterator<Item = &'a Part>, why: &PortError) {
        for part in splits {
            if self.leave(part.hash(), why) {
                self.splits.lock().retain(|other| other.vector != part.vector);
                tracing::warn!(volume = %self.id.short(), %why, "what was changed before there was this volume is left out of it");
            }
        }
    }

    /// Whether something is to be merged into this volume of which whoever uploads it was not told yet; it is, by this.
    pub(crate) fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::SeqCst)
    }

    /// There is something to be merged, or to be followed.
    pub(crate) fn tell_news(&self) {
        self.news.store(true, Ordering::SeqCst);
    }

    /// Merges the trees of these heads, this device's own, and directories that are to become part of it.
    pub(super) fn merge(
        self: &Arc<Self>,
        vfs: &Vfs,
        volumes: &Volumes,
        latest: &Latest,
        heads: &[Head],
        splits: Vec<Part>,
        meter: &Meter,
    ) -> Result<Followed, PortError> {
        self.seal_off()?;
        meter.update(|progress| progress.phase = Phase::Merging);
        let (gathered, splits) = self.gather(latest, heads)?.without_past(splits);
        if let ([tree], true) = (&gathered.trees[..], splits.is_empty()) {
            // It has all of the others after all: a head has not room for all devices.
            let mut all = heads.iter().filter(|head| gathered.parents.contains(&head.snapshot));
            let head = all.find(|head| self.read_snapshot(head).is_ok_and(|snapshot| snapshot.root == tree.at));
            return head.map_or(Ok(Followed::Nothing), |head| self.move_on_to(vfs, head, latest));
        }
        let done = self.move_to_merged(vfs, volumes, gathered, splits, heads, meter)?;
        Ok(if done { Followed::Merged } else { Followed::Nothing })
    }

    /// Merges these trees, and directories that are to become part of them, and publishes what they come to. False when something
    /// else is to come first, or is in use.
    fn move_to_merged(
        self: &Arc<Self>,
        vfs: &Vfs,
        volumes: &Volumes,
        gathered: Gathered,
        splits: Vec<Part>,
        heads: &[Head],
        meter: &Meter,
    ) -> Result<bool, PortError> {
        let mut beside: BTreeSet<FileId> = BTreeSet::new();
        let trees = gathered.trees.len();
        let is_from_above = |number: &usize| {
            number.checked_sub(trees).and_then(|number| splits.get(number)).is_some_and(|part| part.is_below)
        };
        loop {
            let mut merged = self.merged(&gathered.trees, &splits, &beside, heads, meter)?;
            match self.hand_over(vfs, volumes, std::mem::take(&mut merged.splits), &is_from_above)? {
                Handed::All => {
                    self.put_merged(merged, gathered, &splits, !beside.is_empty())?;
                    return self.end_merging(vfs, meter);
                }
                // It is merged again when what belongs into other volumes is there.
                Handed::NotYet => return Ok(false),
                Handed::Not(directories) => {
                    let before = beside.len();
                    beside.extend(directories);
                    if beside.len() == before {
                        return Err(damaged("a directory is not kept beside the volume that it has become"));
                    }
                }
            }
        }
    }

    /// Writes down what is to be moved to, and published. `is_own`: nobody else makes the same of these trees, nor where there are
    /// directories that become part of them.
    fn put_merged(&self, merged: Merged, gathered: Gathered, splits: &[Part], is_own: bool) -> Result<(), PortError> {
        let Gathered { trees, parents, time } = gathered;
        // A dot of this volume's own: only those are counted, and others must see that something came from elsewhere.
        let is_own = is_own || !splits.is_empty();
        let is_change = is_own || trees.len() > MERGED_MAX || trees.iter().any(|tree| self.is_private(tree));
        let is_shared = self.share().is_some() && !trees.iter().all(|tree| self.is_private(tree));
        let Merged { inode, links, vector, conflicts, history, tags, held, .. } = merged;
        let own = trees.len();
        for conflict in &conflicts {
            let (wanted, name) = (conflict.wanted.escape_ascii(), conflict.name.escape_ascii());
            tracing::info!(volume = %self.id.short(), %wanted, %name, "two versions are kept");
        }
        let vectors =
            trees.iter().map(|tree| tree.root.vector.clone()).chain(splits.iter().map(|part| part.vector.clone()));
        *self.kept.lock() = Kept { conflicts, vectors: vectors.collect(), texts: 0 };
        // What is written from here on may begin with one of them.
        let merged_here = trees.iter().map(|tree| Before { vector: tree.root.vector.clone(), at: tree.at.clone() });
        state::remember(&self.db, merged_here)?;
        let parts = match is_change {
            true => Vec::new(),
            false => trees.into_iter().map(|tree| tree.at).collect(),
        };
        let root = Root { volume: self.id, inode, links, vector, parts, history, tags };
        if codec::encode(&root).len() > SEALED_MAX / 2 {
            return Err(damaged("the root of what was merged is too long"));
        }
        // Who has a part in this volume need not have one in that which a directory comes from.
        let is_from_elsewhere = |one: &&Holding| one.of.iter().all(|of| *of >= own);
        let held: Vec<_> = held.iter().filter(is_from_elsewhere).map(|one| &one.content).collect();
        if is_change && !self.adopt_merged(&root, &held)? {
            let why = PortError::Unreachable("not all that is to be merged into a volume can be read now".into());
            self.give_up(splits.iter(), &why);
            return Err(why);
        }
        state::put_merging(&self.db, &Merging { root, parents, time, is_change, is_shared })
    }

    /// Whether a tree is from before this volume was shared: who has a part in it is to find nothing of that.
    fn is_private(&self, tree: &Tree) -> bool {
        self.share().is_some() && !Identity::is_shared_epoch(self.id, &tree.at)
    }

    fn part_of(&self, tree: &Tree) -> Part {
        Part { has_history: !self.is_private(tree), is_past: tree.is_past, ..Part::from(&tree.root) }
    }

    /// A part that somebody on this device has given. Of a branch, which may have begun before this volume was shared, the others
    /// get what is there now.
    fn given(&self, part: &Part) -> Part {
        Part { has_history: part.has_history && self.share().is_none(), ..part.clone() }
    }

    /// What trees, and directories that are to become part of them, come to. What is new of it is placed.
    fn merged(
        self: &Arc<Self>,
        trees: &[Tree],
        splits: &[Part],
        beside: &BTreeSet<FileId>,
        heads: &[Head],
        meter: &Meter,
    ) -> Result<Merged, PortError> {
        let parts = trees.iter().map(|tree| self.part_of(tree)).chain(splits.iter().map(|part| self.given(part)));
        let parts: Vec<Part> = parts.enumerate().map(|(number, part)| Part { number, ..part }).collect();
        let names = self.names();
        let label = |device: DeviceTag, time: Timespec| conflict_label(&called(&names, device), time);
        let mut writer = Writer::new(self.clone(), meter.clone())?;
        let source = Unhurried { volume: self, spent: Spent::default() };
        let left_out = |number: usize, why: PortError| {
            let slowest = source.spent.to_blame(|number| trees.get(number).is_none_or(|tree| !tree.of.is_empty()));
            if slowest.is_some() {
                tracing::warn!(volume = %self.id.short(), "a merge took too long, and goes on without whoever took the longest");
            }
            let number = slowest.unwrap_or(number);
            match (trees.get(number), slowest) {
                // Each try would take as long.
                (Some(Tree { of, .. }), Some(_)) => of.iter().for_each(|head| self.leave_for(*head, REFUSED_FOR)),
                (Some(Tree { of, .. }), None) => {
                    for head in heads.iter().filter(|head| of.contains(&head_hash(head))) {
                        self.leave_out(head, &why);
                    }
                }
                (None, _) => self.give_up(splits.get(number - trees.len()).into_iter(), &why),
            }
            why
        };
        let merged = merge(&parts, beside, &label, &source, &mut writer).map_err(|error| match error {
            MergeError::Tree(error) => tree_error(error),
            MergeError::Unread { number, error } => left_out(number, tree_error(error)),
            MergeError::Malformed { number, .. } => left_out(number, damaged(error.to_string())),
            MergeError::Nothing => damaged(error),
        })?;
        writer.finish()?;
        Ok(merged)
    }

    /// The trees that were changed among those of these heads and of this device, of which no other one has all; with the
    /// snapshots that they come from, and the last of their times. Their segments are in this device's index then.
    fn gather(&self, latest: &Latest, heads: &[Head]) -> Result<Gathered, PortError> {
        let publishers = self.publishers();
        let mut found: Vec<Tree> = Vec::new();
        let at = self.read_snapshot(&latest.head)?.root;
        self.add_changed(Tree { at, root: latest.root.clone(), of: Vec::new(), is_past: false }, &mut found)?;
        let (mut parents, mut time) = (vec![latest.snapshot], latest.time);
        for head in heads.iter().take(MERGED_MAX) {
            match self.add_head(head, latest, &publishers, &mut found) {
                Err(why) if self.leave_out(head, &why) => continue,
                other => other?,
            }
            parents.push(head.snapshot);
            time = time.max(head.time);
        }
        let counted = Counted::by(&publishers, self.id);
        let is_past = |tree: &Tree| {
            found.iter().any(|other| {
                let has = counted.has_all(&other.root.vector, &tree.root.vector);
                let had = counted.has_all(&tree.root.vector, &other.root.vector);
                has && (!had || other.at.id() > tree.at.id())
            })
        };
        let past: Vec<bool> = found.iter().map(is_past).collect();
        let trees = found.into_iter().zip(past).filter(|(_, is_past)| !is_past).map(|(tree, _)| tree);
        Ok(Gathered { trees: trees.collect(), parents, time })
    }

    fn add_head(
        &self,
        head: &Head,
        latest: &Latest,
        publishers: &Publishers,
        found: &mut Vec<Tree>,
    ) -> Result<(), PortError> {
        let (beside, _) = self.load_beside(head)?;
        let root = self.root_of(head, publishers)?;
        if root.inode.id != latest.root.inode.id {
            return Err(damaged("its root is not that of the volume"));
        }
        let at = self.read_snapshot(head)?.root;
        self.take_segments_of(&beside)?;
        beside.clear_segments()?;
        self.add_changed(Tree { at, root, of: vec![head_hash(head)], is_past: false }, found)
    }

    /// Adds a tree to which a head leads, or those that it was made of.
    fn add_changed(&self, tree: Tree, found: &mut Vec<Tree>) -> Result<(), PortError> {
        let mut changed = Vec::new();
        if tree.root.parts.is_empty() {
            changed.push(tree);
        } else {
            let of = tree.of;
            for at in tree.root.parts {
                let root = self.read_root_at(&at)?;
                if !root.parts.is_empty() || !covers_all(&tree.root.vector, &root.vector) {
                    return Err(damaged("a tree was not made of what it says"));
                }
                changed.push(Tree { at, root, of: of.clone(), is_past: false });
            }
        }
        for tree in changed {
            match found.iter_mut().find(|other| other.at.id() == tree.at.id()) {
                // Of what this device has itself nobody is left out.
                Some(other) if other.of.is_empty() => {}
                Some(other) => other.of.extend(tree.of),
                None => found.push(tree),
            }
        }
        Ok(())
    }

    /// Takes what another catalog knows and this one does not.
    fn take_segments_of(&self, beside: &VolumeDb) -> Result<(), PortError> {
        let views = self.peers.views()?;
        let mut weights = Weights::new(&self.db, self.tended().wear(&views));
        let mut at = 0;
        loop {
            let rows = beside.segments_since(at, SEGMENTS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            at = last.num + 1;
            let mut new: Vec<(SegmentRow, Vec<ExtentAt>, bool)> = Vec::new();
            let mut moved = Vec::new();
            for (mut row, theirs) in rows {
                // Of a segment that was taken over from another volume each may list what the other one does not.
                let mut all = self.db.contents(&row.id)?;
                let before = all.len();
                all.extend(theirs);
                all.sort_by_key(|(_, offset, _)| *offset);
                all.dedup();
                let here = self.db.segment(&row.id)?.filter(|here| here.descriptor != row.descriptor);
                if let Some(here) = here {
                    row.descriptor = self.united(&row.id, (&here.descriptor, &row.descriptor), &weights.wear)?;
                    if row.descriptor != here.descriptor && all.len() == before {
                        moved.push((row.id, row.descriptor.clone()));
                    }
                }
                if all.len() > before {
                    // Where what is here does not last, whoever has placed it anew had a reason to.
                    let is_better = weights.lasts(&row)? && !weights.all_last(&all, row.id)?;
                    new.push((row, all, !is_better));
                }
            }
            self.db.replace_descriptors(&moved)?;
            let new: Vec<NewSegment<'_>> = new
                .iter()
                .map(|(row, extents, is_foreign)| NewSegment {
                    id: row.id,
                    descriptor: &row.descriptor,
                    extents,
                    leases: None,
                    is_foreign: *is_foreign,
                })
                .collect();
            self.db.add_segments(&new)?;
        }
        // What was read before may name other holders.
        self.placements.lock().clear();
        Ok(())
    }

    /// Where a segment is, of two who know it.
    pub(super) fn united(
        &self,
        id: &SegmentId,
        (one, other): (&[u8], &[u8]),
        wear: &Wear<'_>,
    ) -> Result<Vec<u8>, PortError> {
        let mine = self.tended().leased(id, unix_now())?;
        let (one, other) = (codec::decode(one).map_err(damaged)?, codec::decode(other).map_err(damaged)?);
        Ok(codec::encode(&unite(one, other, &mine, wear)?))
    }

    /// Whether the working tree has more of it than its name. What has only that stays so for as long as one has its turn.
    fn is_here(&self, vfs: &Vfs) -> bool {
        vfs.volumes().iter().any(|rooted| rooted.volume == self.id && !rooted.is_vacant)
    }

    /// Ends a merge that was written down. False when there is none, or something was changed or is in use.
    pub(super) fn end_merging(self: &Arc<Self>, vfs: &Vfs, meter: &Meter) -> Result<bool, PortError> {
        let Some(merging) = state::merging(&self.db)? else { return Ok(false) };
        let is_here = self.is_here(vfs);
        let moved = match is_here && self.may_write().is_ok() {
            true => self.advance(vfs, &merging.root),
            false => Ok(self.may_write().is_ok()),
        };
        match moved {
            Ok(true) => {}
            Ok(false) => {
                state::forget_merging(&self.db)?;
                return Ok(false);
            }
            Err(why) => {
                // What cannot be moved to is not to be in the way of everything else for ever.
                if self.is_given_up(vfs, &merging.root, &why)? {
                    state::forget_merging(&self.db)?;
                }
                return Err(why);
            }
        }
        let Merging { mut root, parents, time, mut is_change, is_shared } = merging;
        if !is_shared && self.keys().is_shared() {
            // Others have got a part in it since.
            (root.history, root.tags, is_change) = (None, None, true);
            root.parts.clear();
        }
        let latest = state::latest(&self.db)?;
        let sequence = self.take_number()?;
        if is_change {
            let dot = self.dot(sequence);
            root.vector = join([&root.vector[..], &[dot]]);
        }
        let tree = root.clone();
        let writer = Writer::new(self.clone(), meter.clone())?;
        let (vector, manifest) = (root.vector.len(), latest.map(|latest| latest.manifest).unwrap_or_default());
        let handed = None;
        publish(self, writer, Publication { root, sequence, parents, after: time, manifest, handed }, meter)?;
        meter.update(|progress| progress.phase = Phase::Idle);
        tracing::info!(volume = %self.id.short(), head = sequence, devices = vector, "merged");
        if is_here {
            self.settle(vfs, &tree);
        }
        Ok(true)
    }

    /// Has directories merged into the volumes that they have become. Some parts of the merge are from the volume above, which has
    /// handed them over by the same rule.
    ///
    /// Where others have a part in this volume, one of them may name any volume in its trees, and put anything into a directory
    /// with the id of that volume's root; and its branches begin with those. So nothing from those trees goes into another volume,
    /// and what comes from above goes only where that leads.
    fn hand_over(
        &self,
        vfs: &Vfs,
        volumes: &Volumes,
        splits: Vec<Split>,
        is_from_above: &dyn Fn(&usize) -> bool,
    ) -> Result<Handed, PortError> {
        let is_closed = self.share().is_some() || self.id.is_branch();
        let mut by_volume: BTreeMap<VolumeId, Vec<Part>> = BTreeMap::new();
        let (mut is_done, mut closed) = (true, BTreeSet::new());
        for Split { volume, part, named_by } in splits {
            if is_closed && !(is_from_above(&part.number) && named_by.iter().any(is_from_above)) {
                closed.insert(part.inode.id);
                continue;
            }
            match self.can_enter(volumes, volume, part.inode.id)? {
                Some(true) => by_volume.entry(volume).or_default().push(part),
                Some(false) => drop(closed.insert(part.inode.id)),
                None => is_done = false,
            }
        }
        if !closed.is_empty() {
            return Ok(Handed::Not(closed));
        }
        for (volume, parts) in by_volume {
            let below = volumes.of(volume)?;
            let missing = below.lacks(parts)?;
            // What cannot be read there is looked at again as part of this volume.
            closed.extend(missing.iter().filter(|part| below.is_left_out(&part.hash())).map(|part| part.inode.id));
            if missing.is_empty() || !closed.is_empty() {
                continue;
            }
            if below.is_here(vfs) {
                let mut waiting = below.splits.lock();
                for part in missing {
                    if waiting.iter().all(|other| other.vector != part.vector) && waiting.len() < MERGED_MAX {
                        waiting.push(part);
                        below.tell_news();
                    }
                }
                is_done = false;
            } else {
                match below.take_splits(vfs, volumes, missing.clone()) {
                    Err(PortError::NoPart(_)) => closed.extend(missing.iter().map(|part| part.inode.id)),
                    taken => taken?,
                }
                is_done &= below.lacks(missing)?.is_empty();
            }
        }
        Ok(match (closed.is_empty(), is_done) {
            (false, _) => Handed::Not(closed),
            (true, true) => Handed::All,
            (true, false) => Handed::NotYet,
        })
    }

    /// Those of these parts of which the tree that this device stands on does not have all.
    fn lacks(&self, mut parts: Vec<Part>) -> Result<Vec<Part>, PortError> {
        if let Some(latest) = state::latest(&self.db)? {
            parts.retain(|part| !covers_all(&latest.root.vector, &part.vector));
        }
        Ok(parts)
    }

    /// Merges directories into this volume, which is not in the working tree.
    fn take_splits(self: &Arc<Self>, vfs: &Vfs, volumes: &Volumes, parts: Vec<Part>) -> Result<(), PortError> {
        // Nobody enters it meanwhile: what is published here the tree would lack.
        let Some(_turn) = self.turn.try_lock() else { return Ok(()) };
        if self.is_here(vfs) {
            return Ok(());
        }
        let meter = Meter::new();
        // Nothing of it can have moved on to anything, and what is read beside it now is another head's.
        state::forget_following(&self.db)?;
        self.end_merging(vfs, &meter)?;
        if state::latest(&self.db)?.is_none() {
            self.recover(None, &mut |_| ())?;
        }
        let Some(latest) = state::latest(&self.db)? else { return Ok(()) };
        let parts = self.lacks(parts)?;
        if parts.is_empty() {
            return Ok(());
        }
        self.hear(Ask::Places)?;
        self.may_write()?;
        self.seal_off()?;
        // With what others have published of it since: so one head has all of it.
        let found = self.find_others()?.found;
        let mut heads = self.believed(found.into_iter().map(|found| found.head).collect())?;
        heads.retain(|head| !covers_all(&latest.root.vector, &head.vector));
        let gathered = self.gather(&latest, &heads)?;
        self.move_to_merged(vfs, volumes, gathered, parts, &heads, &meter).map(drop)
    }
}

/// Where a segment is, of two who have placed shards of it anew: of each row with whom it counts, or else of whom this device has a
/// lease (`mine`), or else with whom it is to stay the longest. A lease of a holder that has nothing is no reason to look for it there.
fn unite(mut one: Placement, other: Placement, mine: &Held, wear: &Wear<'_>) -> Result<Placement, PortError> {
    if one.segment != other.segment {
        return Err(damaged("two segments have one id"));
    }
    let at = |holder: &Holder| (holder.row, holder.peer);
    let counted: Held =
        [&one, &other].into_iter().flat_map(|all| wear.counted(all).holders).map(|one| at(&one)).collect();
    let rank = |holder: &Holder| (counted.contains(&at(holder)), mine.contains(&at(holder)), holder.until);
    let latest = UnixSeconds(unix_now() + LEASE_SECONDS).end_of_day();
    one.holders.iter_mut().for_each(|holder| holder.until = holder.until.min(latest));
    for mut holder in other.holders {
        holder.until = holder.until.min(latest);
        match one.holders.iter_mut().find(|held| held.row == holder.row) {
            Some(held) if held.peer == holder.peer => held.until = held.until.max(holder.until),
            Some(held) if rank(&holder) > rank(held) => *held = holder,
            Some(_) => {}
            None => one.holders.push(holder),
        }
    }
    one.holders.sort_by_key(|holder| holder.row);
    one.n = one.n.max(other.n);
    Ok(one)
}

/// Which segments of an index last, each looked at once.
pub(super) struct Weights<'a> {
    db: &'a VolumeDb,
    pub(super) wear: Wear<'a>,
    /// By number: the segment, and whether it does; none where there is none.
    known: BTreeMap<u64, Option<(SegmentId, bool)>>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(db: &'a VolumeDb, wear: Wear<'a>) -> Self {
        Self { db, wear, known: BTreeMap::new() }
    }

    /// The segments of the index that these extents lead to, by their numbers.
    pub(super) fn numbers_of(&self, ids: &[ExtentId]) -> Result<Vec<Option<u64>>, PortError> {
        Ok(self.db.numbers_of(ids)?)
    }

    /// Whether a segment, where this row has it, lasts.
    pub(super) fn lasts(&self, row: &SegmentRow) -> Result<bool, PortError> {
        Ok(self.wear.lasts(&codec::decode(&row.descriptor).map_err(damaged)?))
    }

    /// The segment with this number, and whether it lasts.
    pub(super) fn of(&mut self, num: u64) -> Result<Option<(SegmentId, bool)>, PortError> {
        if let Some(known) = self.known.get(&num) {
            return Ok(*known);
        }
        let row = self.db.segments_iter(num.saturating_sub(1), 1)?.pop().filter(|row| row.num == num);
        let known = row.map(|row| Ok::<_, PortError>((row.id, self.lasts(&row)?))).transpose()?;
        self.known.insert(num, known);
        Ok(known)
    }

    /// Whether all other segments last to which some of these extents lead.
    fn all_last(&mut self, extents: &[ExtentAt], but: SegmentId) -> Result<bool, PortError> {
        let ids: Vec<ExtentId> = extents.iter().map(|(id, ..)| *id).collect();
        let numbers: BTreeSet<u64> = self.db.numbers_of(&ids)?.into_iter().flatten().collect();
        for num in numbers {
            if self.of(num)?.is_some_and(|(id, lasts)| id != but && !lasts) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What stands in the name of a version that is kept beside another one. The name of a device is what somebody else says.
fn conflict_label(device: &str, time: Timespec) -> String {
    let is_plain = |c: char| !c.is_control() && c != '/' && c != '\\';
    let device: String = device.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if time.seconds <= 0 {
        // Of a volume nothing is said here of when it was changed.
        return format!("conflict of {device}");
    }
    let millis = time.seconds.unsigned_abs().saturating_mul(1_000);
    // Colons are no part of names elsewhere.
    let when = when(Hlc { millis, counter: 0 });
    let when = when.trim_end_matches('Z').replace('T', " ").replace(':', ".");
    format!("conflict of {device} {when}")
}

#[cfg(test)]
pub(crate) mod tests;
