//! Moving on to what other devices have published, where nothing waits to be published here: to the tree of one that has all
//! that the others have, or else to one that is merged of theirs and this one's (see [`super::merging`]).
//!
//! Another device's catalog is read beside this device's own, then the working tree moves on, and only then the one takes the
//! place of the other, together with the head that this device stands on. What is under way is written down before the
//! working tree moves: wherever this is broken off, it is ended before anything is published or looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::catalog::Manifest;
use hypernet_core::head::Head;
use hypernet_core::id::{DeviceTag, ExtentId, FileId, SnapshotId, VolumeId};
use hypernet_core::identity::log::Device;
use hypernet_core::limits::DEVICES_MAX;
use hypernet_core::merge::{covers, covers_all};
use hypernet_core::port::PortError;
use hypernet_core::share::members::{Role, head_hash};
use hypernet_core::tree::{self, Differing, Dot, LinkEntry, Root, TreeRef};
use hypernet_fs::vfs::{Vfs, VfsError};
use hypernet_store::volume::{ExtentAt, NewSegment, VolumeDb};

use super::merging::Weights;
use super::progress::Meter;
use super::read::{Deadline, Nodes, tree_error};
use super::state::{self, Latest, Merging};
use super::sync::of_tree;
use super::tended::Tending as _;
use super::walk::{Seen, Walk};
use super::{Volume, damaged};
use crate::share::circle::Publishers;
use crate::volumes::Volumes;

/// Segments that are looked at together.
const SEGMENTS_AT_ONCE: u32 = 64;

/// The number of the volume beside another one.
const BESIDE_CONTEXT: &str = "hypernet 2026 catalog beside a volume v1";

/// Why it is looked at the heads of the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// A head of a merged tree may be published now.
    pub(crate) publishes: bool,
    /// Somebody waits for it.
    pub(crate) by_somebody: bool,
}

/// What a look at the heads of the others came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Nothing, for now.
    Nothing,
    /// This device stands on another one's head.
    MovedOn,
    /// It has published a head whose tree was merged.
    Merged,
}

/// Which dots of a version vector count. Of what others did nobody need have anything: see [`Publishers::counted`].
pub(crate) struct Counted(BTreeMap<DeviceTag, u64>);

impl Counted {
    pub(crate) fn by(publishers: &Publishers, volume: VolumeId) -> Self {
        Self(publishers.counted(volume))
    }

    /// What counts of a vector, sorted.
    pub(crate) fn of(&self, vector: &[Dot]) -> Vec<Dot> {
        let mut dots: Vec<Dot> = vector
            .iter()
            .filter_map(|dot| {
                // What counts of a device does from whichever of its homes.
                let last = self.0.get(&dot.device.of_device()).max(self.0.get(&dot.device))?;
                Some(Dot { device: dot.device, sequence: dot.sequence.min(*last) })
            })
            .filter(|dot| dot.sequence > 0)
            .collect();
        dots.sort();
        dots
    }

    /// Whether a tree with this vector has all that counts of one with the other.
    pub(crate) fn has_all(&self, vector: &[Dot], other: &[Dot]) -> bool {
        covers_all(vector, &self.of(other))
    }
}

/// A [head](head_hash), or a [directory](hypernet_core::merge::Part::hash) that is to become part of this volume. Not the
/// snapshot that a head names: anybody's head may name that of somebody else.
pub(super) type Left = [u8; 32];

/// What is known of heads that this device has not moved on to.
#[derive(Default)]
pub(crate) struct Waiting {
    /// What was to be merged was left to those who have a part in it.
    has_left: bool,
    /// Heads and directories that are left out, and until when: what was damaged on its way comes again.
    refused: BTreeMap<Left, Instant>,
    /// Those that could not be read, and how often.
    unread: BTreeMap<Left, u32>,
    /// Snapshots to which something that is in use did not let the tree move.
    in_use: Option<(Vec<SnapshotId>, Instant, u32)>,
    /// Volumes that directories have become and that nothing is known of here, and since when.
    unknown: BTreeMap<VolumeId, Instant>,
}

/// For how long something is left out that is not what it must be,
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(600);
/// or one that cannot be read now,
const UNREAD_FOR: Duration = Duration::from_secs(60);
/// after as many tries;
const UNREAD_TRIES: u32 = 3;
/// how many of them are remembered,
const REFUSED_MAX: usize = 1_024;
/// and for how long a move is not tried again, unless somebody asks, that something in use was in the way of.
const IN_USE_FOR: Duration = Duration::from_secs(60);
/// The first time; whoever only reads a file is soon done. Each further time twice as long.
const IN_USE_FIRST: Duration = Duration::from_millis(500);

fn in_use_for(tries: u32) -> Duration {
    IN_USE_FIRST.saturating_mul(1 << tries.min(10)).min(IN_USE_FOR)
}

/// For how long another device of this identity may have made a volume of which its keystore does not tell here yet.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

/// Where this device goes from the head that it stands on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Stay,
    MoveOn(Box<Head>),
    /// None of these has all of the others, and this tree.
    Merge(Vec<Head>),
}

/// Whether a head's tree has all of a vector. A head has not room for all devices there may be: of those that it does not name
/// its root is asked when it is read.
fn head_has(counted: &Counted, head: &Head, vector: &[Dot]) -> bool {
    let is_full = head.vector.len() >= DEVICES_MAX;
    let is_named = |dot: &Dot| !is_full || head.vector.iter().any(|named| named.device == dot.device);
    counted.of(vector).into_iter().filter(is_named).all(|dot| covers(&head.vector, dot))
}

/// Of heads that have the same, all come to stand on the last one: trees that were merged apart need not be equal in names
/// that follow from what somebody has heard of others, and in how they are sealed.
fn rank(head: &Head) -> impl Ord + use<> {
    (head.time, head.device)
}

fn next(counted: &Counted, heads: &[&Head], latest: &Latest) -> Next {
    let mine = &latest.root.vector;
    let ahead: Vec<&&Head> = heads.iter().filter(|head| !counted.has_all(mine, &head.vector)).collect();
    let is_past = |head: &Head| {
        ahead.iter().any(|other| {
            let (has, had) = (head_has(counted, other, &head.vector), head_has(counted, head, &other.vector));
            has && (!had || rank(other) > rank(head))
        })
    };
    let newest: Vec<&Head> = ahead.iter().filter(|head| !is_past(head)).map(|head| **head).collect();
    match newest[..] {
        [] => {
            let equal = heads.iter().filter(|head| head_has(counted, head, mine));
            let last = equal.max_by_key(|head| rank(head)).filter(|head| rank(head) > rank(&latest.head));
            last.map_or(Next::Stay, |head| Next::MoveOn(Box::new(Head::clone(head))))
        }
        [one] if head_has(counted, one, mine) => Next::MoveOn(Box::new(one.clone())),
        _ => Next::Merge(newest.into_iter().cloned().collect()),
    }
}

impl Volume {
    /// Where the catalog of another device is read. Nobody else knows the number that this goes by: no volume has it.
    pub(super) fn beside(&self) -> Result<VolumeDb, PortError> {
        let key = self.device.signing_key().to_bytes();
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::derive_key(BESIDE_CONTEXT, &[&key[..], self.id.as_bytes()].concat())[..16]);
        Ok(self.db.of(VolumeId(id))?)
    }

    /// Whose heads have a part in what this volume is, but for this device: also of those who may not publish any more, as
    /// far as something of theirs was taken.
    pub(super) fn heard_devices(&self) -> Vec<Device> {
        let (me, publishers) = (self.device.id(), self.publishers());
        let taken: Vec<_> = publishers.accepted().map(|(device, _)| device).collect();
        let gone = publishers.gone.into_iter().filter(|device| taken.contains(&device.id));
        publishers.listed.into_iter().chain(gone).filter(|device| device.id != me).collect()
    }

    /// Moves on to what others have published, unless something waits to be published here.
    pub(crate) fn follow(
        self: &Arc<Self>,
        vfs: &Vfs,
        volumes: &Volumes,
        asked: Asked,
        meter: &Meter,
    ) -> Result<Followed, PortError> {
        self.end_following(vfs, meter)?;
        let Some(latest) = state::latest(&self.db)? else { return Ok(Followed::Nothing) };
        if asked.publishes
            && let Err(error) = self.publish_again(&latest)
        {
            tracing::info!(%error, "the newest head cannot be published again yet");
        }
        if (self.is_to_open()? || self.stands_on_removed(&latest)) && vfs.pending(self.id).files == 0 {
            // Sharing it was broken off, or taking somebody off.
            vfs.mark_changed(self.id).map_err(of_tree)?;
        }
        if state::origin(&self.db)?.is_some() || !self.may_follow(vfs)? {
            return Ok(Followed::Nothing);
        }
        let counted = Counted::by(&self.publishers(), self.id);
        let survey = self.find_others()?;
        let heads: Vec<Head> = survey.found.iter().map(|found| found.head.clone()).collect();
        self.heads.lock().set_others(survey);
        let heads = self.believed(heads)?;
        let heads: Vec<&Head> = heads.iter().collect();
        let splits = self.splits_to_take(&latest.root.vector);
        let next = match next(&counted, &heads, &latest) {
            Next::Stay if !splits.is_empty() => Next::Merge(Vec::new()),
            // What was split off is merged in when this device stands there.
            next => next,
        };
        let mut snapshots: Vec<SnapshotId> = match &next {
            Next::Stay => return Ok(Followed::Nothing),
            Next::MoveOn(head) => vec![head.snapshot],
            Next::Merge(heads) => heads.iter().map(|head| head.snapshot).collect(),
        };
        snapshots.sort();
        if !vfs.may_advance(self.id).map_err(of_tree)? || (!asked.by_somebody && self.was_in_use(&snapshots)) {
            return Ok(Followed::Nothing);
        }
        let followed = match next {
            Next::Stay => return Ok(Followed::Nothing),
            Next::MoveOn(head) => self.move_on_to(vfs, &head, &latest)?,
            Next::Merge(heads) if self.may_write().is_err() => {
                // Whoever may write merges them; until then this is the newest that goes on from here.
                let goes_on = heads.iter().filter(|head| head_has(&counted, head, &latest.root.vector));
                match goes_on.max_by_key(|head| rank(head)) {
                    Some(head) => self.move_on_to(vfs, head, &latest)?,
                    None => return Ok(Followed::Nothing),
                }
            }
            Next::Merge(_) if !asked.publishes => return Ok(Followed::Nothing),
            Next::Merge(heads) if splits.is_empty() && self.leaves_to_others(&counted, &latest, &heads) => {
                return Ok(Followed::Nothing);
            }
            Next::Merge(heads) => self.merge(vfs, volumes, &latest, &heads, splits, meter)?,
        };
        let mut waiting = self.waiting.lock();
        if followed == Followed::Nothing {
            let before = waiting.in_use.take().filter(|(before, ..)| *before == snapshots);
            waiting.in_use = Some((snapshots, Instant::now(), before.map_or(0, |(.., tries)| tries + 1)));
        } else {
            (waiting.in_use, waiting.has_left) = (None, false);
        }
        Ok(followed)
    }

    /// Whether this device, as one of those who take people off, stands on a head of somebody who was taken off: another one that
    /// says the same is to lead there, in the epoch of now.
    fn stands_on_removed(&self, latest: &Latest) -> bool {
        self.role() >= Some(Role::Admin) && self.publishers().is_removed(&latest.head.device)
    }

    /// Whether nothing waits to be published, but for what is written to files that are open.
    pub(in crate::volume) fn may_follow(&self, vfs: &Vfs) -> Result<bool, PortError> {
        Ok(!self.has_edits() && (vfs.pending(self.id).files == 0 || vfs.may_advance(self.id).map_err(of_tree)?))
    }

    fn was_in_use(&self, snapshots: &[SnapshotId]) -> bool {
        let waiting = self.waiting.lock();
        let is_same = |(before, ..): &&(Vec<SnapshotId>, Instant, u32)| before == snapshots;
        waiting.in_use.as_ref().filter(is_same).is_some_and(|(_, since, tries)| since.elapsed() < in_use_for(*tries))
    }

    /// When it is looked again whether what was in use is so still.
    pub(super) fn in_use_until(&self) -> Option<Instant> {
        self.waiting.lock().in_use.as_ref().map(|(_, since, tries)| *since + in_use_for(*tries))
    }

    pub(crate) fn is_refused(&self, head: &Head) -> bool {
        self.is_left_out(&head_hash(head))
    }

    pub(super) fn is_left_out(&self, what: &Left) -> bool {
        self.waiting.lock().refused.get(what).is_some_and(|until| Instant::now() < *until)
    }

    /// What a head leads to is not what it must be, is nowhere, or cannot be read again and again: the others go on without it. False
    /// where it is not left out for this.
    pub(super) fn leave_out(&self, head: &Head, why: &PortError) -> bool {
        let is_out = self.leave(head_hash(head), why);
        if is_out {
            let (volume, of) = (self.id.short(), head.device.short());
            tracing::warn!(volume, of, sequence = head.sequence, %why, "a head is left out");
        }
        is_out
    }

    /// The same of anything that was to be merged.
    pub(super) fn leave(&self, what: Left, why: &PortError) -> bool {
        let mut waiting = self.waiting.lock();
        let time = match why {
            PortError::Damaged(_) | PortError::Newer(_) | PortError::NotFound(_) => REFUSED_FOR,
            PortError::Unreachable(_) | PortError::Deadline(_) => {
                if waiting.unread.len() >= REFUSED_MAX {
                    waiting.unread.clear();
                }
                let tries = waiting.unread.entry(what).or_default();
                *tries += 1;
                if *tries < UNREAD_TRIES {
                    return false;
                }
                UNREAD_FOR
            }
            PortError::Disk(_) | PortError::DiskFull(_) | PortError::Superseded(_) | PortError::NoPart(_) => {
                return false;
            }
        };
        drop(waiting);
        self.leave_for(what, time);
        true
    }

    pub(super) fn leave_for(&self, what: Left, time: Duration) {
        let mut waiting = self.waiting.lock();
        if waiting.refused.len() >= REFUSED_MAX {
            waiting.refused.clear();
        }
        waiting.refused.insert(what, Instant::now() + time);
    }

    /// Up to which number a tree with this vector has what this home has done.
    fn claimed(&self, vector: &[Dot]) -> u64 {
        let mine = self.tag();
        vector.iter().filter(|dot| dot.device == mine).map(|dot| dot.sequence).max().unwrap_or(0)
    }

    /// Those heads that may be what they must be. One whose author says that it has seen what this device never published is
    /// not: whatever this device publishes next would count as part of it.
    pub(super) fn believed(&self, mut heads: Vec<Head>) -> Result<Vec<Head>, PortError> {
        let me = self.device.id();
        let next = state::next_sequence(&self.db, &me)?;
        heads.retain(|head| {
            let claimed = self.claimed(&head.vector);
            if claimed >= next {
                let (volume, of) = (self.id.short(), head.device.short());
                tracing::warn!(
                    volume,
                    of,
                    claimed,
                    "a head is not believed that has more of this device than there is"
                );
            }
            claimed < next && !self.is_refused(head)
        });
        Ok(heads)
    }

    /// Whether what others have changed in a directory that has become this volume can become part of it by this device's doing;
    /// none where that is not known yet.
    pub(super) fn can_enter(
        &self,
        volumes: &Volumes,
        volume: VolumeId,
        directory: FileId,
    ) -> Result<Option<bool>, PortError> {
        let keystore = self.identity.keystore().keystore();
        // Where nobody else has a part in this volume, that one is of this identity, too.
        let is_own = self.share().is_none() || keystore.volumes.contains(&volume) || keystore.share(volume).is_some();
        if is_own {
            let below = volumes.of(volume)?;
            let root = match state::latest(&below.db)? {
                Some(latest) => Some(latest.root.inode.id),
                None => keystore.share(volume).map(|share| share.root),
            };
            if root.is_some_and(|root| root != directory) {
                // Somebody has named a volume there that the directory has not become.
                return Ok(Some(false));
            }
            // Of one that nobody here has heard of it turns out when it is entered.
            return Ok(Some(below.known_share().is_none() || below.may_write().is_ok()));
        }
        let has_devices = self.identity.roster().devices.len() > 1;
        let mut waiting = self.waiting.lock();
        if waiting.unknown.len() >= REFUSED_MAX && !waiting.unknown.contains_key(&volume) {
            // Nobody waits for so many: to begin anew with those that are waited for would have all wait for ever.
            return Ok(Some(false));
        }
        let since = *waiting.unknown.entry(volume).or_insert_with(Instant::now);
        let may_come = has_devices && since.elapsed() < UNKNOWN_FOR;
        Ok((!may_come).then_some(false))
    }

    /// Whoever has a part in what is to be merged does it first; this device waits for that once.
    fn leaves_to_others(&self, counted: &Counted, latest: &Latest, heads: &[Head]) -> bool {
        let is_mine = heads.iter().all(|head| !head_has(counted, head, &latest.root.vector));
        let mut waiting = self.waiting.lock();
        !is_mine && !std::mem::replace(&mut waiting.has_left, true)
    }

    /// Moves on to a head, unless its tree turns out not to have all that is here.
    pub(super) fn move_on_to(&self, vfs: &Vfs, head: &Head, latest: &Latest) -> Result<Followed, PortError> {
        let (beside, next) = match self.read_beside(head) {
            Err(why) => {
                self.leave_out(head, &why);
                return Err(why);
            }
            Ok(read) => read,
        };
        let counted = Counted::by(&self.publishers(), self.id);
        let why = if next.root.inode.id != latest.root.inode.id {
            Some("its root is not that of the volume")
        } else if !counted.has_all(&next.root.vector, &latest.root.vector) {
            Some("it has not all that is here")
        } else {
            None
        };
        if let Some(why) = why {
            beside.clear_segments()?;
            self.leave_out(head, &damaged(why));
            return Ok(Followed::Nothing);
        }
        state::put_following(&self.db, &next)?;
        Ok(if self.move_or_leave_out(vfs, &beside, next)? { Followed::MovedOn } else { Followed::Nothing })
    }

    /// Ends what a crash, or a mesh that was not to be reached, has left under way.
    pub(crate) fn end_following(self: &Arc<Self>, vfs: &Vfs, meter: &Meter) -> Result<(), PortError> {
        if let Some(next) = state::following(&self.db)? {
            self.move_or_leave_out(vfs, &self.beside()?, next)?;
        }
        self.end_merging(vfs, meter).map(drop)
    }

    /// Moves on, or leaves out what cannot be moved to: it is not to be in the way of everything else.
    fn move_or_leave_out(&self, vfs: &Vfs, beside: &VolumeDb, next: Latest) -> Result<bool, PortError> {
        let (head, root) = (next.head.clone(), next.root.clone());
        match self.move_on(vfs, beside, next) {
            Err(why) if self.is_given_up(vfs, &root, &why)? => {
                state::forget_following(&self.db)?;
                self.leave_out(&head, &why);
                Ok(false)
            }
            other => other,
        }
    }

    /// Whether a move that was written down is not tried again: nothing tells that the tree has moved already. Where it has, what is
    /// published next would be a tree without its catalog, so that is tried for as long as it takes.
    pub(super) fn is_given_up(&self, vfs: &Vfs, next: &Root, why: &PortError) -> Result<bool, PortError> {
        Ok(why.is_of_what_was_read() && !self.has_moved(vfs, next)?)
    }

    /// Whether the tree has moved to this root for certain.
    fn has_moved(&self, vfs: &Vfs, next: &Root) -> Result<bool, PortError> {
        let before = state::latest(&self.db)?.map(|latest| latest.root.inode.content);
        Ok(before.as_ref() != Some(&next.inode.content)
            && vfs.published(self.id).map_err(of_tree)?.as_ref() == Some(&next.inode.content))
    }

    /// The tree that was merged and is in no head of this device yet, where it has moved to that. Not one that gets a number of this
    /// device when it is published: that would stand for what is changed before as well.
    pub(super) fn moved_to(&self, vfs: &Vfs) -> Result<Option<Merging>, PortError> {
        let is_change = |merging: &Merging| merging.is_change || !merging.is_shared && self.keys().is_shared();
        match state::merging(&self.db)?.filter(|merging| !is_change(merging)) {
            Some(merging) if state::latest(&self.db)?.is_some() && self.has_moved(vfs, &merging.root)? => {
                Ok(Some(merging))
            }
            _ => Ok(None),
        }
    }

    /// Reads the catalog and the root of a head.
    fn read_beside(&self, head: &Head) -> Result<(VolumeDb, Latest), PortError> {
        let (beside, manifest) = self.load_beside(head)?;
        let root = self.root_of(head, &self.publishers())?;
        let (snapshot, time) = (head.snapshot, head.time);
        Ok((beside, Latest { snapshot, root, manifest, time, head: head.clone() }))
    }

    /// The root of a head that counts. It has what its head says that it has, and nothing that this device never published.
    pub(super) fn root_of(&self, head: &Head, publishers: &Publishers) -> Result<Root, PortError> {
        let root = self.read_root(head, publishers, publishers.device(&head.device).is_none())?;
        let is_true = self.claimed(&root.vector) < state::next_sequence(&self.db, &self.device.id())?;
        // Of who was taken off its author may count less than there is, and of whom it has not heard nothing.
        let counts_all = |dot: &&Dot| {
            let is_named = head.vector.iter().any(|named| named.device == dot.device);
            is_named && publishers.listed.iter().any(|device| device.id.tag_in(self.id) == dot.device.of_device())
        };
        let is_said = root.vector.iter().filter(counts_all).all(|dot| covers(&head.vector, *dot));
        if is_true && is_said && covers_all(&root.vector, &head.vector) {
            return Ok(root);
        }
        Err(damaged("a head says that it has what its tree has not, or what nobody has published"))
    }

    /// Reads the catalog of a head.
    pub(super) fn load_beside(&self, head: &Head) -> Result<(VolumeDb, Manifest), PortError> {
        let manifest = self.manifest_of(head)?;
        let beside = self.beside()?;
        self.load_catalog_into(&beside, &manifest, &mut |_, _| ())?;
        Ok((beside, manifest))
    }

    /// The working tree moves to this root of the volume. False when something was changed here meanwhile, or is in use.
    pub(super) fn advance(&self, vfs: &Vfs, root: &Root) -> Result<bool, PortError> {
        let before = std::mem::replace(&mut *self.links.lock(), root.links.clone());
        // What another device of this identity has taken out of its tree goes from this one, too.
        vfs.set_leaving(self.leaving(vfs));
        let moved = match vfs.advance(self.id, root.inode.clone()) {
            Ok(()) => Ok(true),
            // It may have moved on before a crash, or before its head could be published, and have been changed since.
            Err(VfsError::Busy) => self.stands_on(vfs, root, before.as_ref()),
            Err(VfsError::Invalid) => Err(damaged("a published root is not that of the volume")),
            Err(error) => Err(of_tree(error)),
        };
        if !matches!(moved, Ok(true)) {
            *self.links.lock() = before;
        }
        moved
    }

    /// Volumes that were taken out of the tree, and those that begin in them. In one that others have a part in no place is
    /// kept for volumes of somebody else: whoever may write there takes them out for all.
    fn leaving(&self, vfs: &Vfs) -> Vec<VolumeId> {
        let keystore = self.identity.keystore().keystore();
        let out = keystore.shares.iter().filter(|share| share.left.is_out);
        let mut leaving: Vec<VolumeId> = out.map(|share| share.volume).collect();
        if keystore.share(self.id).is_some() {
            let is_own = |volume: VolumeId| {
                keystore.share(volume).map_or(keystore.volumes.contains(&volume), |share| share.is_own)
            };
            let here = vfs.volumes().into_iter().filter(|rooted| rooted.above == Some(self.id));
            leaving.extend(here.map(|rooted| rooted.volume).filter(|volume| !is_own(*volume)));
        }
        leaving.extend(vfs.volumes_below(leaving.iter().copied()).iter().map(|rooted| rooted.volume));
        leaving
    }

    /// Whether the working tree is that of this root, whatever was changed in it since. It moves at once or not at all, so anything
    /// tells that is not the same in the tree before: the listing of the root, or, where files with several names have others
    /// contents only, one of these. Of what says nothing it is not so: it is merged once more.
    fn stands_on(&self, vfs: &Vfs, root: &Root, links: Option<&TreeRef>) -> Result<bool, PortError> {
        if vfs.published(self.id).map_err(of_tree)?.as_ref() != Some(&root.inode.content) {
            return Ok(false);
        }
        let Some(Latest { root: before, .. }) = state::latest(&self.db)? else { return Ok(true) };
        if before.inode.content != root.inode.content || links == root.links.as_ref() {
            return Ok(true);
        }
        let nodes = Nodes(self, Deadline::of_read());
        let pairs = [(before.links.as_ref(), root.links.as_ref())];
        let differing = tree::differing::<LinkEntry, _>(&pairs, &nodes).map_err(tree_error)?;
        for Differing { before, after } in differing {
            for row in after {
                let old = before.iter().find(|old| old.inode.id == row.inode.id).map(|old| &old.inode.content);
                let here = vfs.published_of(self.id, row.inode.id).map_err(of_tree)?;
                if let Some(here) = here
                    .filter(|here| old != Some(&row.inode.content) && (*here == row.inode.content || old == Some(here)))
                {
                    return Ok(here == row.inode.content);
                }
            }
        }
        Ok(false)
    }

    /// What files reach that have no name any more and that somebody has open here.
    fn held_without_name(&self, vfs: &Vfs) -> Result<BTreeSet<ExtentId>, PortError> {
        let mut held = BTreeSet::new();
        let mut see = |seen: Seen<'_>| {
            if let Seen::Extent(extent) = seen {
                held.insert(extent.id());
            }
            Ok(true)
        };
        let mut walk = Walk::new(self, PortError::is_of_what_was_read, &mut see);
        vfs.held_without_name().iter().try_for_each(|content| walk.held(content))?;
        Ok(held)
    }

    /// Another catalog gets to know what this one knows and that one does not: of what this device has leases of, for nobody's
    /// catalog is a reason to give that up, only that nothing reaches it; and `all` while something that was begun from this volume
    /// and is not published finds by this index what is in it, or what is `held` open lies in it. Of what both know with holders of
    /// whom this device has leases the two are brought together. Whether a segment lasts by that which did not by the other catalog.
    fn keep_segments_in(&self, beside: &VolumeDb, all: bool, held: &BTreeSet<ExtentId>) -> Result<bool, PortError> {
        let views = self.peers.views()?;
        let mut weights = Weights::new(beside, self.tended().wear(&views));
        // Who only reads never walks the tree to see what goes: the catalog of whoever writes is what counts.
        let may_write = self.may_write().is_ok();
        let mut is_better = false;
        let mut at = 0;
        loop {
            let mut rows = self.db.segments_since(at, SEGMENTS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { return Ok(is_better) };
            at = last.num + 1;
            let (mut kept, mut moved) = (Vec::new(), Vec::new());
            for (row, extents) in &mut rows {
                let is_mine = may_write && self.db.has_leases(&row.id)?;
                let there = beside.segment(&row.id)?;
                if let Some(there) = there.as_ref().filter(|there| is_mine && there.descriptor != row.descriptor) {
                    row.descriptor = self.united(&row.id, (&there.descriptor, &row.descriptor), &weights.wear)?;
                    is_better |= weights.lasts(row)? && !weights.lasts(there)?;
                    if row.descriptor != there.descriptor {
                        moved.push((row.id, row.descriptor.clone()));
                    }
                }
                let there = there.map(|there| there.num);
                let stays =
                    is_mine && weights.lasts(row)? && self.is_led_astray(&mut weights, row.num, there, extents)?;
                let is_held = || extents.iter().any(|(id, ..)| held.contains(id));
                if (there.is_none() && (all || is_mine || is_held())) || stays {
                    let leases = None;
                    kept.push(NewSegment {
                        id: row.id,
                        descriptor: &row.descriptor,
                        extents,
                        leases,
                        is_foreign: !stays,
                    });
                }
            }
            beside.replace_descriptors(&moved)?;
            beside.add_segments(&kept)?;
        }
    }

    /// Whether the other catalog has some extents that lead to a segment here (`num`) elsewhere than there (`there`), and that is
    /// worse: it does not last, or is what this device has itself moved them out of. Else whoever has placed them anew had a reason to.
    fn is_led_astray(
        &self,
        weights: &mut Weights<'_>,
        num: u64,
        there: Option<u64>,
        extents: &[ExtentAt],
    ) -> Result<bool, PortError> {
        let ids: Vec<ExtentId> = extents.iter().map(|(id, ..)| *id).collect();
        let (here, now) = (self.db.numbers_of(&ids)?, weights.numbers_of(&ids)?);
        let elsewhere = here.into_iter().zip(now).filter(|(here, now)| *here == Some(num) && *now != there);
        let elsewhere: BTreeSet<Option<u64>> = elsewhere.map(|(_, now)| now).collect();
        let mut is_worse = true;
        for now in elsewhere.iter().flatten() {
            is_worse &= match weights.of(*now)? {
                Some((id, lasts)) => !lasts || !self.db.leases_of(&id)?.is_empty(),
                None => true,
            };
        }
        Ok(!elsewhere.is_empty() && is_worse)
    }

    /// The working tree moves on, then the index. False when something was changed here meanwhile, or is in use.
    fn move_on(&self, vfs: &Vfs, beside: &VolumeDb, next: Latest) -> Result<bool, PortError> {
        // A snapshot may hold what only this device's index knows so far.
        let still = self.still.lock();
        // Where the tree has moved already, what has been changed of the history since is no reason to give that up.
        let stays = self.has_edits() && !self.has_moved(vfs, &next.root)?;
        if stays || !self.advance(vfs, &next.root)? {
            state::forget_following(&self.db)?;
            beside.clear_segments()?;
            return Ok(false);
        }
        let is_better = self.keep_segments_in(beside, self.branched()?.is_some(), &self.held_without_name(vfs)?)?;
        let changes = state::stands_on(&self.db, &next)?;
        let changes: Vec<(&str, Option<&[u8]>)> = changes.iter().map(|(key, value)| (*key, value.as_deref())).collect();
        self.db.take_over(beside, &changes)?;
        self.placements.lock().clear();
        *self.surveyed.lock() = None;
        drop(still);
        self.read_history_ahead(&next.root);
        tracing::info!(volume = %self.id.short(), head = next.head.sequence, of = %next.head.device.short(), "moved on");
        if is_better && self.may_write().is_ok() {
            // Whoever has nothing but the words looks for it where it is not.
            vfs.mark_changed(self.id).map_err(of_tree)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::codec;
    use hypernet_core::id::DeviceId;
    use hypernet_core::time::Hlc;

    use super::*;
    use crate::volume::state::tests::golden;

    fn device(byte: u8) -> DeviceId {
        DeviceId([byte; 32])
    }

    fn dots(all: &[(u8, u64)]) -> Vec<Dot> {
        all.iter().map(|(byte, sequence)| Dot { device: device(*byte).tag(), sequence: *sequence }).collect()
    }

    /// A head of a tree that has all of these.
    fn head(byte: u8, millis: u64, vector: &[(u8, u64)]) -> Head {
        let golden: Head = codec::decode(&hypernet_format::all()["head"].bytes).unwrap();
        Head { device: device(byte), time: Hlc { millis, counter: 0 }, vector: dots(vector), ..golden }
    }

    fn from(vector: &[(u8, u64)], heads: &[&Head]) -> Next {
        let mut latest = golden();
        latest.root.vector = dots(vector);
        latest.head = head(1, 5, vector);
        let known = [(1, u64::MAX), (2, u64::MAX), (3, u64::MAX), (4, 5)];
        next(&Counted(known.map(|(byte, last)| (device(byte).tag(), last)).into()), heads, &latest)
    }

    #[test]
    fn a_device_moves_on_to_a_head_that_has_all_and_more() {
        let moves = |head: &Head, vector: &[(u8, u64)]| from(vector, &[head]) == Next::MoveOn(Box::new(head.clone()));
        assert!(moves(&head(2, 9, &[(1, 3), (2, 5)]), &[(1, 3)]));
        assert!(moves(&head(2, 9, &[(1, 3), (2, 5)]), &[(1, 3), (2, 4)]));
        assert_eq!(from(&[(1, 4), (2, 5)], &[&head(2, 9, &[(1, 3), (2, 5)])]), Next::Stay, "it is here already");
        assert!(!moves(&head(2, 9, &[(1, 2), (2, 5)]), &[(1, 3)]), "something is here that it lacks");
        // Of one that was taken off, what was taken stays, and what came after that does not.
        assert!(!moves(&head(2, 9, &[(1, 3), (2, 5)]), &[(1, 3), (4, 5)]));
        assert!(moves(&head(2, 9, &[(1, 3), (2, 5), (4, 5)]), &[(1, 3), (4, 7)]));
        // What a device published that may not any more is nobody's business.
        assert!(moves(&head(2, 9, &[(1, 3), (2, 5)]), &[(1, 3), (9, 7)]));
        // The last of those that are one after the other.
        let (one, two) = (head(2, 9, &[(1, 3), (2, 5)]), head(3, 7, &[(1, 3), (2, 5), (3, 1)]));
        assert_eq!(from(&[(1, 3)], &[&one, &two]), Next::MoveOn(Box::new(two)));
    }

    #[test]
    fn heads_of_which_none_has_all_are_merged() {
        let (one, two) = (head(2, 9, &[(1, 3), (2, 5)]), head(3, 7, &[(1, 3), (3, 1)]));
        assert_eq!(from(&[(1, 3)], &[&one, &two]), Next::Merge(vec![one.clone(), two.clone()]));
        assert_eq!(from(&[(1, 4)], &[&one]), Next::Merge(vec![one.clone()]));
        // One that has both, and one more that has not.
        let both = head(1, 8, &[(1, 3), (2, 5), (3, 1)]);
        let other = head(3, 6, &[(1, 3), (3, 2)]);
        assert_eq!(from(&[(1, 3)], &[&one, &two, &both, &other]), Next::Merge(vec![both, other]));
    }

    #[test]
    fn of_heads_that_have_the_same_the_last_one_is_stood_on() {
        let (before, after) = (head(2, 4, &[(1, 3)]), head(3, 6, &[(1, 3)]));
        assert_eq!(from(&[(1, 3)], &[&before]), Next::Stay);
        assert_eq!(from(&[(1, 3)], &[&before, &after]), Next::MoveOn(Box::new(after.clone())));
        let later = head(2, 7, &[(1, 3)]);
        assert_eq!(from(&[(1, 2)], &[&later, &after]), Next::MoveOn(Box::new(later)));
    }
}
