//! Giving back the space of what nothing reaches any more.
//!
//! 1. *Marking*: all is marked that the tree of this device reaches, the snapshots that are kept, the newest heads of the
//!    others, and files that are open. It is done only where this device stands on a tree that has all that the others have
//!    published, and nothing waits to be published here.
//! 2. *Weighing*: a segment of which nothing is marked is dropped from the index. What is marked of one of which the lesser part
//!    is, goes into new segments, a bounded number of bytes at a time, and that one is dropped, too.
//! 3. The next head of this device, with a catalog that knows nothing of them, asks the others to publish one, too: whoever
//!    has seen it, and has a catalog that does not know them either, will never rely on them again.
//! 4. *Giving up*: when all devices that may publish have done so, and some time later, so that whoever is reading comes to an
//!    end, this device ends its leases of them. Where somebody does not come back, they end by themselves.
//!
//! What lies in several segments is looked for in one of them. Another one goes only when the holders of that one have said that they
//! keep it: an index that leads to what is not there any more is no reason to let go of what is.
//!
//! Nothing is lost wherever this is broken off: what is in no index is on the mesh until its leases are given up, and those are
//! written down until they are. Whatever was given up too early would still be there for as long as its holder has room.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::catalog::{Manifest, PageKind, PlacementPage};
use hypernet_core::codec;
use hypernet_core::head::Head;
use hypernet_core::id::{ExtentId, IdentityId, SegmentId, VolumeId};
use hypernet_core::node::{Command, Outcome};
use hypernet_core::placement::Plan;
use hypernet_core::port::PortError;
use hypernet_core::segment::{Packed, Packer, Piece, Placement};
use hypernet_fs::vfs::Vfs;
use hypernet_store::marks::Marks;
use hypernet_store::volume::{ExtentAt, LeaseChange, NewSegment, SegmentRow};

use super::census::{Census, Enough};
use super::follow::Counted;
use super::heads::sequence_of;
use super::leases::{first_end, last_end};
use super::progress::Meter;
use super::read::failed;
use super::state::{self, Latest};
use super::sync::of_tree;
use super::tended::Tending as _;
use super::walk::{Seen, Walk};
use super::write::unix_now;
use super::{READ_WITHIN, Volume, damaged};

/// Segments looked at together.
const SEGMENTS_AT_ONCE: u32 = 64;
/// Of a segment of which less than this part is marked, that is moved.
const SPARSE: f64 = 0.5;
/// Bytes that are moved in one round.
const MOVED_AT_ONCE: u64 = 256 << 20;
/// Extents that are looked up together.
const LOOKED_UP_AT_ONCE: usize = 1_000;
/// Leases looked at together: for so many the catalogs of the others are read once.
const LEASES_AT_ONCE: u32 = 4_096;
/// For how long the catalog of another device is read.
const CATALOG_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of shards for which others are asked to publish heads: each of these leaves some behind, too, and there is to be an end
/// of it.
const ASKED_FROM: u64 = 1 << 20;
/// How long after nothing needs them any more leases are given up, in seconds: who reads has long been done.
pub(crate) const GRACE: u64 = 3_600;

/// What a round found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Segments that there were.
    pub(crate) segments: u64,
    /// Bytes of payload in them, and of what is reached.
    pub(crate) bytes: u64,
    pub(crate) live: u64,
    /// Segments of which nothing is reached, and bytes of their shards.
    pub(crate) dead: u64,
    pub(crate) dead_bytes: u64,
    /// Those of which little is, bytes of that, and of their shards.
    pub(crate) sparse: u64,
    pub(crate) sparse_live: u64,
    pub(crate) sparse_bytes: u64,
    /// Bytes that were moved out of such.
    pub(crate) moved: u64,
    /// Why nothing was looked at.
    pub(crate) waits: Option<String>,
}

/// What has become of leases that nothing needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    /// Bytes of shards that were given up.
    pub(crate) bytes: u64,
    /// Bytes of shards that are to be, and whom or what they wait for.
    pub(crate) waiting: u64,
    pub(crate) waits: Vec<String>,
}

/// A segment on the scales.
struct Weighed {
    /// What of it is reached, in payload order.
    live: Vec<ExtentAt>,
    bytes: u64,
    /// Segments that others of its extents lead to that are reached, by their numbers; none where they lead to none.
    elsewhere: BTreeSet<Option<u64>>,
}

impl Volume {
    /// Looks for what nothing reaches any more and, unless `dry`, has this device forget it. The next head says so.
    pub(crate) fn collect(self: &Arc<Self>, vfs: &Vfs, meter: &Meter, dry: bool) -> Result<Collected, PortError> {
        let _still = self.still.lock();
        let Some(latest) = state::latest(&self.db)? else { return Ok(Collected::default()) };
        let heads = match self.may_collect(&latest)? {
            Ok(heads) => heads,
            Err(why) => return Ok(Collected { waits: Some(why), ..Collected::default() }),
        };
        let marks = match self.mark(vfs, &latest, &heads) {
            // What cannot be read may lead to anything.
            Err(error) if error.is_of_what_was_read() => {
                let why = format!("not all can be read that may be needed: {error}");
                return Ok(Collected { waits: Some(why), ..Collected::default() });
            }
            marks => marks?,
        };
        let census = Census::new(self)?;
        let mut round =
            Round { volume: self, meter, marks, census, dry, collected: Collected::default(), moving: None };
        round.run()?;
        let collected = round.collected;
        // Also of a round that was broken off: before a head says so, nothing is gone.
        if !dry && self.has_dropped()? {
            self.placements.lock().clear();
            // What was dropped before others are asked about when it turns out to be worth that.
            if self.has_others() && collected.dead + collected.sparse > 0 {
                state::ask(&self.db, Some(0))?;
            }
            vfs.mark_changed(self.id).map_err(of_tree)?;
        }
        Ok(collected)
    }

    /// Whether segments were dropped that pages of the catalog tell of: a head of this device is to come that does not.
    pub(crate) fn has_dropped(&self) -> Result<bool, PortError> {
        Ok(self.db.has_dropped()?)
    }

    /// The newest heads of the others, where this device knows all that may be reached; or why it does not.
    fn may_collect(&self, latest: &Latest) -> Result<Result<Vec<Head>, String>, PortError> {
        if let Err(why) = self.may_write() {
            return Ok(Err(why.to_string()));
        }
        let is_under_way = state::following(&self.db)?.is_some() || state::merging(&self.db)?.is_some();
        if self.has_edits() || is_under_way || self.has_splits() || self.is_to_open()? {
            return Ok(Err("something waits to be published".into()));
        }
        if let Some(why) = self.branched()? {
            return Ok(Err(why));
        }
        if !self.has_others() && !self.has_twin() {
            return Ok(Ok(Vec::new()));
        }
        let counted = Counted::by(&self.publishers(), self.id);
        let survey = self.find_others()?;
        let heads: Vec<Head> = survey.found.iter().map(|found| found.head.clone()).collect();
        self.heads.lock().set_others(survey);
        let ahead = heads.iter().find(|head| !counted.has_all(&latest.root.vector, &head.vector));
        if let Some(head) = ahead {
            let of = head.device.short();
            return Ok(Err(format!("device {of} has published what is not part of this tree yet")));
        }
        Ok(Ok(heads))
    }

    /// What the head of this device with this number asks of the others.
    pub(super) fn asks(&self, sequence: u64) -> Result<u64, PortError> {
        if state::handed(&self.db)? == Some(0) {
            // Its catalog knows where all is that was moved so far.
            state::put_handed(&self.db, sequence)?;
        }
        match state::asks(&self.db)? {
            Some(0) => {
                state::ask(&self.db, Some(sequence))?;
                Ok(sequence)
            }
            asks => Ok(asks.unwrap_or(0)),
        }
    }

    /// Whether another device waits for a head of this one, which has not seen what it is asked to have seen.
    pub(crate) fn is_asked(&self) -> Result<bool, PortError> {
        if self.may_write().is_err() || self.branched()?.is_some() {
            return Ok(false);
        }
        let Some(record) = state::handed_out(&self.db)? else {
            // It has published none, and may rely on what those of others know.
            return Ok(state::latest(&self.db)?.is_some() && self.last_heads().iter().any(|head| head.asks > 0));
        };
        let Some(mine) = self.open_own(&record) else { return Ok(false) };
        // Of more devices than a head has room for, it has not room for all that it has seen: each is answered once.
        let mut answered = self.answered.lock();
        let mut is_asked = false;
        for head in self.last_heads() {
            let asks = head.asks.min(head.sequence);
            let before = answered.entry(head.device).or_default();
            if sequence_of(&mine.seen, &head.device, self.id) < asks && *before < asks {
                *before = asks;
                is_asked = true;
            }
        }
        Ok(is_asked)
    }

    /// Whether somebody may publish here of whom no device is known.
    fn has_unknown_writers(&self) -> bool {
        let Some(known) = self.known_share() else { return false };
        let me = self.identity.id();
        let circle = self.circle.lock();
        let is_known = |id: &IdentityId| {
            circle.as_ref().is_some_and(|circle| circle.people.get(id).is_some_and(|person| person.posting.is_some()))
        };
        known.members.writers().any(|member| member.identity != me && !is_known(&member.identity))
    }

    /// Why what is in this volume may be reached from another one that begins with it.
    pub(super) fn branched(&self) -> Result<Option<String>, PortError> {
        let keystore = self.identity.keystore().keystore();
        // Of branches those are that have not been let go of, whatever volumes there were.
        let is_here = |id: &VolumeId| match id.is_branch() {
            true => keystore.branches.iter().any(|branch| branch.volume == *id && !branch.is_gone),
            false => keystore.volumes.contains(id),
        };
        for id in self.db.volumes()?.into_iter().filter(is_here) {
            if state::origin(&self.db.of(id)?)?.is_some() {
                return Ok(Some(format!(
                    "volume {}, which was begun from another one, is not published yet",
                    id.short()
                )));
            }
        }
        Ok(None)
    }

    /// Forgets what volumes were to begin with that an agent was killed while making: they have no place in the tree (`rooted`), and
    /// nothing was published of them. For as long as they are waited for nothing is collected.
    pub(crate) fn forget_unmade(&self, rooted: &BTreeSet<VolumeId>) -> Result<(), PortError> {
        for id in self.db.volumes()?.into_iter().filter(|id| !rooted.contains(id)) {
            let db = self.db.of(id)?;
            if state::latest(&db)?.is_none() {
                state::forget_origin(&db)?;
            }
        }
        Ok(())
    }

    /// All that is reached. Fails where something cannot be read that may be.
    fn mark(&self, vfs: &Vfs, latest: &Latest, heads: &[Head]) -> Result<Marks, PortError> {
        let mut marks = Marks::new(Path::new("temporary files"))?;
        let mut new: Vec<ExtentId> = Vec::new();
        let is_own = Cell::new(true);
        let mut see = |seen: Seen<'_>| match seen {
            Seen::Tree(key) => Ok(marks.add(&key)?),
            Seen::Extent(extent) => {
                let is_new = marks.add(&extent.id())?;
                if is_new && is_own.get() {
                    new.push(extent.id());
                }
                if new.len() >= LOOKED_UP_AT_ONCE {
                    self.are_known(&std::mem::take(&mut new))?;
                }
                Ok(is_new)
            }
        };
        let mut walk = Walk::new(self, |_| false, &mut see);
        walk.extent(&latest.head.snapshot_extent)?;
        walk.extent(&self.read_snapshot(&latest.head)?.root)?;
        walk.root(&latest.root)?;
        let me = self.device.id();
        let published = if latest.head.device == me { latest.head.sequence } else { 0 };
        let stands = sequence_of(&latest.root.vector, &me, self.id).max(published);
        let handed = state::handed_tree(&self.db)?.filter(|handed| handed.number > stands);
        if let Some(handed) = handed.and_then(|handed| handed.root) {
            // Others may have it, though too few keepers have said that they do.
            walk.root(&handed)?;
        }
        walk.history(&latest.root, self.history()?.kept.values())?;
        // What it was made of is merged again with what others do.
        latest.root.parts.iter().try_for_each(|part| walk.root_at(part).map(drop))?;
        // Of what others stand on, and of files of other volumes, this index need not know all, and lets go of nothing that it does not
        // know.
        is_own.set(false);
        let mut walk = Walk::new(self, |error| matches!(error, PortError::NotFound(_)), &mut see);
        for head in heads {
            walk.extent(&head.snapshot_extent)?;
            let at = match self.read_snapshot(head) {
                Err(PortError::NotFound(_)) => continue,
                snapshot => snapshot?.root,
            };
            if let Some(root) = walk.root_at(&at)? {
                root.parts.iter().try_for_each(|part| walk.root_at(part).map(drop))?;
            }
        }
        // Whoever has a file open goes on reading what it was.
        vfs.held().iter().try_for_each(|content| walk.held(content))?;
        self.are_known(&new)?;
        Ok(marks)
    }

    /// An error where something that is reached is in no segment of this volume: the index is not what it must be, and what it does
    /// not know is no garbage for that.
    fn are_known(&self, ids: &[ExtentId]) -> Result<(), PortError> {
        let known = self.db.has_extents(ids)?;
        match ids.iter().zip(known).find(|(_, known)| !known) {
            Some((id, _)) => Err(damaged(format!("extent {} is in no segment that the index knows", id.short()))),
            None => Ok(()),
        }
    }

    /// After a head of this device: which leases nothing needs any more, and ends those that nobody can need again.
    pub(crate) fn release(&self, vfs: &Vfs, grace: u64) -> Result<Released, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(Released::default()) };
        let mut released = Released::default();
        let may_write = self.may_write().is_ok();
        if may_write && self.has_dropped()? || !self.find_gone(&latest, may_write)? {
            released.waits.push("a head of this device".into());
            return Ok(released);
        }
        let now = unix_now();
        let (seen, heads) = match may_write {
            true => self.seen_by_others(&mut released.waits)?,
            // Nobody waits for a head of who publishes none.
            false => (None, self.last_heads()),
        };
        let mut after = 0;
        let (mut unseen, mut is_unread) = (0, false);
        loop {
            let rows = self.db.leases_iter(after, LEASES_AT_ONCE)?;
            let Some(last) = rows.last() else { break };
            after = last.row;
            let mut may_go = Vec::new();
            let mut over = Vec::new();
            for row in rows {
                let Some((gone, since)) = row.gone else { continue };
                let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                if last_end(&placement) < now {
                    over.push(LeaseChange::Over(row.number));
                    continue;
                }
                let bytes = placement.holders.len() as u64 * u64::from(placement.segment.shard_len);
                let is_seen = seen.as_ref().is_none_or(|seen| *seen >= gone);
                if is_seen && now >= since.saturating_add(grace) {
                    may_go.push((row.segment, row.number, placement, bytes));
                } else {
                    unseen += if is_seen { 0 } else { bytes };
                    released.waiting += bytes;
                }
            }
            self.db.change_leases(&over)?;
            let ids: BTreeSet<SegmentId> = may_go.iter().map(|(segment, ..)| *segment).collect();
            let known = match is_unread {
                true => None,
                false => self.known_to_others(&heads, &ids, &mut released.waits)?,
            };
            // Each try to read what cannot be read would take as long.
            is_unread = known.is_none();
            let kept = known.unwrap_or(ids);
            let (stay, go): (Vec<_>, Vec<_>) = may_go.into_iter().partition(|(segment, ..)| kept.contains(segment));
            released.waiting += stay.iter().map(|(.., bytes)| bytes).sum::<u64>();
            let all: u64 = go.iter().map(|(.., bytes)| bytes).sum();
            let go: Vec<_> = go.into_iter().map(|(_, number, placement, _)| (number, placement)).collect();
            let bytes = self.tended().end_leases(&go)?;
            released.bytes += bytes;
            released.waiting += all.saturating_sub(bytes);
        }
        let handed = state::handed(&self.db)?;
        // Others are asked for a head that has seen what was moved away from peers that stop, too.
        let is_handing = seen.is_some_and(|seen| handed.is_some_and(|handed| handed == 0 || seen < handed));
        if unseen == 0 || seen.is_none() {
            if !is_handing {
                state::ask(&self.db, None)?;
            }
        } else if unseen >= ASKED_FROM && state::asks(&self.db)?.is_none_or(|asked| seen >= Some(asked)) {
            // What the others were asked for they have done, and this has become garbage since.
            self.ask_others(vfs)?;
        }
        released.waits.sort();
        released.waits.dedup();
        Ok(released)
    }

    /// Asks all others for a head that has seen the next one of this device, and has that published.
    pub(super) fn ask_others(&self, vfs: &Vfs) -> Result<(), PortError> {
        state::ask(&self.db, Some(0))?;
        vfs.mark_changed(self.id).map_err(of_tree)
    }

    /// Notes which leases neither the index nor the catalog of this device's newest head needs, and which they need after all. False
    /// where that cannot be told now.
    fn find_gone(&self, latest: &Latest, may_write: bool) -> Result<bool, PortError> {
        let is_mine = latest.head.device == self.device.id();
        // Who only reads has none: what the one lacks that it stands on, nobody needs it to keep.
        let since = if may_write { latest.head.sequence } else { 0 };
        let manifest = &latest.head.manifest_placement;
        let mut listed = BTreeMap::from([(manifest.segment.id(), manifest.clone())]);
        let mut missed = None;
        self.each_catalog_segment(&latest.manifest, true, &mut |found| match found {
            Ok(placement) => drop(listed.insert(placement.segment.id(), placement.clone())),
            Err(error) => missed = Some(error),
        });
        if let Some(error) = missed {
            return Err(error);
        }
        // One that was handed out and that too few keepers have confirmed may be found by whoever looks for it.
        let handed = state::handed_out(&self.db)?.and_then(|record| self.open_own(&record));
        if handed.is_some_and(|handed| is_mine && handed.sequence != latest.head.sequence) {
            return Ok(false);
        }
        let now = unix_now();
        let mut after = 0;
        loop {
            let rows = self.db.leases_iter(after, LEASES_AT_ONCE)?;
            let Some(newest) = rows.last() else { break };
            after = newest.row;
            let mut changes = Vec::new();
            for row in rows {
                let there = match listed.get(&row.segment) {
                    Some(placement) => Some(placement.clone()),
                    None => {
                        let there = self.db.segment(&row.segment)?;
                        there.map(|there| codec::decode(&there.descriptor).map_err(damaged)).transpose()?
                    }
                };
                let is_needed = match there {
                    Some(there) => !self.tended().needed(&row, &there, now)?.is_empty(),
                    None => false,
                };
                match (is_needed, row.gone) {
                    (false, None) if is_mine || !may_write => {
                        changes.push(LeaseChange::Gone(row.number, Some((since, now))))
                    }
                    (true, Some(_)) => changes.push(LeaseChange::Gone(row.number, None)),
                    _ => {}
                }
            }
            if !changes.is_empty() {
                self.db.change_leases(&changes)?;
            }
        }
        Ok(true)
    }

    /// The head of this device that all others have seen that may publish here, none where there are no others; and the heads by which
    /// that is known.
    pub(super) fn seen_by_others(&self, waits: &mut Vec<String>) -> Result<(Option<u64>, Vec<Head>), PortError> {
        if !self.has_others() && !self.has_twin() {
            return Ok((None, Vec::new()));
        }
        let me = self.device.id();
        let others = self.other_publishers();
        let survey = self.find_others()?;
        let asks = state::asks(&self.db)?.unwrap_or(0);
        let mut least = u64::MAX;
        for device in others {
            let found = survey.found.iter().find(|found| found.device.id == device.id);
            let seen = found.map_or(0, |found| sequence_of(&found.head.seen, &me, self.id));
            if seen < asks.max(1) {
                waits.push(format!("device {} to publish a head", device.name));
            }
            least = least.min(seen);
        }
        if self.has_unknown_writers() {
            waits.push("somebody who may write here, and of whom no device is known yet".into());
            least = 0;
        }
        let heads = survey.found.iter().map(|found| found.head.clone()).collect();
        self.heads.lock().set_others(survey);
        Ok((Some(least), heads))
    }

    /// Which of these segments the catalogs of these heads know; none where one cannot be read.
    fn known_to_others(
        &self,
        heads: &[Head],
        ids: &BTreeSet<SegmentId>,
        waits: &mut Vec<String>,
    ) -> Result<Option<BTreeSet<SegmentId>>, PortError> {
        let mut known = BTreeSet::new();
        if ids.is_empty() {
            return Ok(Some(known));
        }
        // Catalogs have most of their pages in common.
        let mut read = BTreeSet::new();
        for head in heads {
            let until = Instant::now() + CATALOG_WITHIN;
            let listed = self.manifest_of(head).and_then(|manifest| {
                let mut listed: BTreeSet<SegmentId> = [head.manifest_placement.segment.id()].into();
                self.listed_in(&manifest, &mut read, ids, until, &mut listed)?;
                Ok(listed)
            });
            match listed {
                Ok(listed) => known.extend(listed.intersection(ids)),
                Err(error) => {
                    waits.push(format!("the catalog of device {} ({error})", head.device.short()));
                    return Ok(None);
                }
            }
        }
        Ok(Some(known))
    }

    fn listed_in(
        &self,
        manifest: &Manifest,
        read: &mut BTreeSet<ExtentId>,
        ids: &BTreeSet<SegmentId>,
        until: Instant,
        listed: &mut BTreeSet<SegmentId>,
    ) -> Result<(), PortError> {
        listed.extend(manifest.segments.iter().map(|placement| placement.segment.id()).filter(|id| ids.contains(id)));
        for page in &manifest.pages {
            if Instant::now() > until {
                return Err(PortError::Deadline("it takes too long to read".into()));
            }
            if page.level > 0 {
                self.listed_in(&self.listing(manifest, page, true)?, read, ids, until, listed)?;
            } else if page.kind == PageKind::Placement && !read.contains(&page.extent.id()) {
                let plain: PlacementPage = codec::decode(&self.fetch_listed(manifest, page)?).map_err(damaged)?;
                listed.extend(plain.rows.iter().map(|row| row.placement.segment.id()).filter(|id| ids.contains(id)));
                read.insert(page.extent.id());
            }
        }
        Ok(())
    }
}

/// One round over the index.
struct Round<'a> {
    volume: &'a Arc<Volume>,
    meter: &'a Meter,
    marks: Marks,
    /// What holders have of segments that something is looked for in from now on.
    census: Census,
    dry: bool,
    collected: Collected,
    /// What is on its way into new segments, and the segments that it comes from.
    moving: Option<(Packer, Plan, Vec<SegmentId>)>,
}

impl Round<'_> {
    fn run(&mut self) -> Result<(), PortError> {
        let db = &self.volume.db;
        // What is moved comes behind.
        let end = db.next_segment()?;
        let mut at = 0;
        loop {
            let rows = db.segments_since(at, SEGMENTS_AT_ONCE)?;
            let Some((last, _)) = rows.last() else { break };
            at = last.num + 1;
            let mut dead = Vec::new();
            for (row, extents) in rows.into_iter().filter(|(row, _)| row.num < end) {
                if self.weigh(&row, &extents)? {
                    dead.push(row.id);
                }
            }
            if !self.dry {
                db.drop_segments(&dead)?;
            }
        }
        self.finish()
    }

    /// Looks at a segment, and moves what is in it where that is little; whether nothing is.
    fn weigh(&mut self, row: &SegmentRow, extents: &[ExtentAt]) -> Result<bool, PortError> {
        let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
        let (payload, shard_len) = (placement.segment.payload_len(), u64::from(placement.segment.shard_len));
        let stored = placement.holders.len() as u64 * shard_len;
        let weighed = self.live(row.num, extents)?;
        self.collected.segments += 1;
        self.collected.bytes += payload;
        self.collected.live += weighed.bytes;
        let is_dead = weighed.live.is_empty();
        let is_sparse = (weighed.bytes as f64) < payload as f64 * SPARSE && self.is_worth_it(&placement, weighed.bytes);
        // Whoever has placed it moves what is left.
        let is_mine = is_sparse && self.volume.db.has_leases(&row.id)?;
        if !is_dead && !is_mine {
            return Ok(false);
        }
        let is_put_off = !is_dead && self.collected.moved >= MOVED_AT_ONCE;
        if !self.dry && !is_put_off && !self.are_there(&weighed.elsewhere)? {
            // What is looked for elsewhere is not to be had there.
            if self.is_there(row.id, &placement)? {
                let (id, descriptor) = (row.id, row.descriptor.as_slice());
                let new = NewSegment { id, descriptor, extents, leases: None, is_foreign: false };
                self.volume.db.add_segments(&[new])?;
            }
            return Ok(false);
        }
        if is_dead {
            self.collected.dead += 1;
            self.collected.dead_bytes += stored;
        } else if self.dry || is_put_off || self.take(row.id, &placement, &weighed)? {
            self.collected.sparse += 1;
            self.collected.sparse_live += weighed.bytes;
            self.collected.sparse_bytes += stored;
        }
        Ok(is_dead)
    }

    /// Whether holders keep a segment for this device.
    fn is_there(&self, id: SegmentId, placement: &Placement) -> Result<bool, PortError> {
        self.census.is_there(self.volume, id, &Arc::new(placement.clone()), Enough::Last)
    }

    fn are_there(&self, numbers: &BTreeSet<Option<u64>>) -> Result<bool, PortError> {
        for num in numbers {
            let Some(num) = num else { return Ok(false) };
            let row = self.volume.db.segments_iter(num.saturating_sub(1), 1)?.pop().filter(|row| row.num == *num);
            let Some(row) = row else { return Ok(false) };
            if !self.is_there(row.id, &codec::decode(&row.descriptor).map_err(damaged)?)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a segment of the rest would have shorter shards: their lengths come in steps.
    fn is_worth_it(&self, placement: &Placement, live: u64) -> bool {
        let k = u64::from(placement.segment.k);
        hypernet_core::segment::size_class(live.div_ceil(k) as usize) < placement.segment.shard_len as usize
    }

    fn live(&self, num: u64, extents: &[ExtentAt]) -> Result<Weighed, PortError> {
        let ids: Vec<ExtentId> = extents.iter().map(|(id, ..)| *id).collect();
        let mut weighed = Weighed { live: Vec::new(), bytes: 0, elsewhere: BTreeSet::new() };
        for (extent, number) in extents.iter().zip(self.volume.db.numbers_of(&ids)?) {
            if !self.marks.has(&extent.0)? {
                continue;
            }
            // What lies in a later one as well is found there.
            if number == Some(num) {
                weighed.bytes += u64::from(extent.2);
                weighed.live.push(*extent);
            } else {
                weighed.elsewhere.insert(number);
            }
        }
        Ok(weighed)
    }

    /// Reads what is reached of a segment and packs it anew. False where it cannot be read now.
    fn take(&mut self, id: SegmentId, placement: &Placement, weighed: &Weighed) -> Result<bool, PortError> {
        let command = Command::Rows { placement: Arc::new(placement.clone()), within: READ_WITHIN };
        let rows = match self.volume.node.run_blocking(command) {
            Outcome::Rows(rows) => rows,
            Outcome::Failed(error) => {
                let error = failed(error);
                tracing::info!(segment = %id.short(), %error, "what is left of a segment cannot be moved yet");
                return Ok(false);
            }
            other => return Err(damaged(format!("unexpected outcome {other:?}"))),
        };
        let payload: bytes::Bytes = rows.concat().into();
        if self.moving.is_none() {
            let plan = self.volume.peers.settled_plan()?;
            self.moving = Some((Packer::new(plan.k), plan, Vec::new()));
        }
        for extent in &weighed.live {
            let piece = piece(&payload, extent)?;
            let Some((packer, ..)) = &mut self.moving else { continue };
            if let Some(packed) = packer.add(piece).map_err(damaged)? {
                self.place(&packed)?;
            }
        }
        self.collected.moved += weighed.bytes;
        if let Some((.., from)) = &mut self.moving {
            from.push(id);
        }
        Ok(true)
    }

    fn place(&self, packed: &Packed) -> Result<(), PortError> {
        let Some((_, plan, _)) = &self.moving else { return Ok(()) };
        let volume = self.volume;
        let placed = volume.peers.place((&volume.keys(), &|| volume.draw()), packed, *plan, self.meter)?;
        volume.remember(&placed)
    }

    /// What was moved is where it is to be: where it comes from is let go of.
    fn finish(&mut self) -> Result<(), PortError> {
        let Some((mut packer, plan, from)) = self.moving.take() else { return Ok(()) };
        let rest = packer.finish();
        self.moving = Some((packer, plan, Vec::new()));
        rest.map_or(Ok(()), |packed| self.place(&packed))?;
        Ok(self.volume.db.drop_segments(&from)?)
    }
}

/// An extent out of what is in its segment.
pub(super) fn piece(payload: &bytes::Bytes, (id, offset, len): &ExtentAt) -> Result<Piece, PortError> {
    let (start, end) = (*offset as usize, *offset as usize + *len as usize);
    if end > payload.len() {
        return Err(damaged("an extent lies beyond its segment"));
    }
    Ok(Piece { id: *id, bytes: payload.slice(start..end) })
}

#[cfg(test)]
mod tests;

/// When fewer leases of a segment are left than it takes to read it, in seconds since 1970: its holders may let go of it then.
pub(crate) fn lives_until(placement: &Placement) -> u64 {
    // With fewer than k of them it cannot be read.
    let mut ends: Vec<u64> = placement.holders.iter().map(|holder| holder.until.0).collect();
    ends.sort_unstable();
    ends.iter().rev().nth(usize::from(placement.segment.k).saturating_sub(1)).copied().unwrap_or(first_end(placement))
}
