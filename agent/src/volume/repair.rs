//! Making anew what holders have lost, or have taken along for good.
//!
//! What is due, in which order and by which rows, [`hypernet_core::repair`] decides; here it is done, so many bytes at a time.
//! Rows are made from ciphertext, and are those that were committed when the segment was made: each is checked against its hash
//! before it goes out.
//!
//! A row counts while its holder has not been found to lack it, is not taken to be gone for good and has not said that it stops
//! storing for others; of who comes back, or goes on, it counts again. What is with peers that stop is handed over by them, at once
//! and not only when few rows are left; what they cannot hand over is made anew like all else. Two devices that mend one segment at once do no harm: each has leases of what it has placed, and when their catalogs
//! come together, both count.
//!
//! Invariant: a row of the index is replaced only by one that has all holders that count, and the new ones, whose leases are
//! written down first. Wherever this is broken off, what was placed and is in no index is given up later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hypernet_core::codec;
use hypernet_core::id::{PeerId, SegmentId};
use hypernet_core::node::{Command, CommandError, Outcome, PeerView};
use hypernet_core::placement::Plan;
use hypernet_core::port::PortError;
use hypernet_core::repair::{self, Due, Mending, Mesh};
use hypernet_core::segment::{Coded, Packer, Placement};
use hypernet_core::time::UnixSeconds;
use hypernet_fs::vfs::Vfs;
use parking_lot::Mutex;

use super::census::Enough;
use super::collect::piece;
use super::lacking::Lacking;
use super::leases::new_leases;
use super::progress::Meter;
use super::read::failed;
use super::state;
use super::sync::of_tree;
use super::tended::{Tended, Tending as _};
use super::write::{Placed, unix_now};
use super::{LEASE_SECONDS, READ_WITHIN, UPLOAD_PATIENCE, Volume, damaged};
use crate::driver::NodeHandle;

/// Segments looked at together.
const SEGMENTS_AT_ONCE: u32 = 512;
/// Segments that are known to be due at once: the rest is found by the next look.
const DUE_MAX: usize = 1_024;

/// What a look has found, and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// Segments that are to be mended, those included that have been.
    pub(crate) due: u64,
    /// Segments that nobody can mend: fewer rows count than it takes to read them.
    pub(crate) lost: u64,
    /// Segments that were mended, and bytes of the shards that were placed for it.
    pub(crate) mended: u64,
    pub(crate) bytes: u64,
    /// Segments that are due for nothing else than that peers stop storing for others, and shards that those have handed over.
    pub(crate) leaving: u64,
    pub(crate) handed: u64,
    /// Segments of which peers that stop have rows, and every other donor has one already.
    pub(crate) with_all: Vec<SegmentId>,
    /// Segments of the catalog that the next sync is to write anew.
    pub(crate) catalog: u64,
    /// Why the first that was not mended was not.
    pub(crate) failed: Option<String>,
}

/// Which rows count, and how few are too few.
pub(crate) struct Wear<'a> {
    pub(super) lacking: &'a Lacking,
    pub(crate) mesh: Mesh,
    /// What is placed now.
    plan: Option<Plan>,
}

/// What is left of a segment.
pub(super) struct Left {
    /// Rows that count.
    pub(super) rows: u8,
    /// Further rows that are with peers that stop storing for others.
    pub(super) leaving: u8,
    /// At how many of them it is mended.
    pub(super) threshold: u8,
}

impl<'a> Wear<'a> {
    /// By these peers, and what is placed now.
    pub(super) fn new(lacking: &'a Lacking, mesh: Mesh, plan: Option<&Plan>) -> Self {
        Self { lacking, mesh, plan: plan.copied() }
    }

    /// A placement without the rows that do not count.
    pub(crate) fn counted(&self, placement: &Placement) -> Placement {
        self.lacking.without(placement, |left| self.mesh.counted(left))
    }

    /// Whether so many rows count that it outlives further losses.
    pub(super) fn lasts(&self, placement: &Placement) -> bool {
        self.counted(placement).holders.len() >= usize::from(Enough::Last.rows(placement))
    }

    pub(super) fn left(&self, placement: &Placement) -> Left {
        let counted = self.counted(placement);
        // Two devices may have made the same row anew.
        let rows = counted.holders.iter().map(|holder| holder.row).collect::<BTreeSet<u8>>().len() as u8;
        let leaving = self.lacking.without(placement, |left| self.mesh.rows_leaving(left).len() as u8);
        let threshold = repair::threshold(placement.segment.k, placement.n, self.plan.as_ref());
        Left { rows, leaving, threshold }
    }

    pub(super) fn due(&self, placement: &Placement) -> Due {
        let Left { rows, leaving, .. } = self.left(placement);
        repair::due(placement.segment.k, placement.n, rows, leaving, self.plan.as_ref())
    }

    /// Whether it is time to make rows of a segment anew, or to write anew what lies in it.
    pub(crate) fn is_worn(&self, placement: &Placement) -> bool {
        self.due(placement) != Due::No
    }
}

/// What has become of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Mended {
    /// It is elsewhere now than before.
    is_changed: bool,
    /// Bytes of shards that were placed,
    bytes: u64,
    /// and shards among those that were handed over.
    handed: u64,
    /// Every donor that stays has a row of it already.
    is_with_all: bool,
}

impl Volume {
    /// Looks for segments of which too few rows are left, and mends them until so many bytes of shards were placed; and has the
    /// next sync write anew what is worn of the catalog.
    pub(crate) fn repair(&self, vfs: &Vfs, bytes: u64) -> Result<Repaired, PortError> {
        let began = Instant::now();
        let found = self.mend_worn(vfs, bytes);
        self.mending.lock().note(&found, began.elapsed());
        found
    }

    fn mend_worn(&self, vfs: &Vfs, bytes: u64) -> Result<Repaired, PortError> {
        // Whoever was full is asked what it has by now, where too few have room: so that comes first.
        let _ = self.peers.plan();
        let views = self.peers.views()?;
        let tended = self.tended();
        // What is collected or followed meanwhile is another index.
        let mut repaired = tended.repair(&views, bytes, &self.turn)?;
        self.write_all_anew(&mut repaired, bytes)?;
        let wear = tended.wear(&views);
        repaired.catalog =
            self.catalog_segments(&self.db)?.iter().filter(|segment| wear.is_worn(segment)).count() as u64;
        if repaired.mended + repaired.catalog > 0 && self.may_write().is_ok() {
            // Where it is now is to be found by the words alone.
            vfs.mark_changed(self.id).map_err(of_tree)?;
        }
        Ok(repaired)
    }
}

impl Volume {
    /// Writes what lies in segments anew, of which every donor that stays has a row, for as many donors as there are then: a segment of
    /// as many rows as there are peers cannot do without any of them.
    fn write_all_anew(&self, repaired: &mut Repaired, bytes: u64) -> Result<(), PortError> {
        let mut is_dropped = false;
        for id in std::mem::take(&mut repaired.with_all) {
            if repaired.bytes >= bytes {
                break;
            }
            match self.write_anew(id) {
                Ok(0) => {}
                Ok(placed) => {
                    is_dropped = true;
                    repaired.mended += 1;
                    repaired.bytes += placed;
                }
                Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                Err(error) => {
                    // What was placed for nothing counts in no limit.
                    repaired.failed.get_or_insert(error.to_string());
                    break;
                }
            }
        }
        if is_dropped {
            // What was dropped goes as garbage does: others are asked for a head that has seen that.
            state::ask(&self.db, Some(0))?;
        }
        Ok(())
    }

    /// Moves all that lies in a segment into new ones, and drops it; bytes of the shards that were placed. Whoever has placed it does so.
    fn write_anew(&self, id: SegmentId) -> Result<u64, PortError> {
        let _turn = self.turn.lock();
        self.may_write()?;
        let Some(row) = self.db.segment(&id)?.filter(|_| self.db.has_leases(&id).unwrap_or(false)) else {
            return Ok(0);
        };
        let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
        let extents = self.db.segments_since(row.num, 1)?.pop().filter(|(found, _)| found.num == row.num);
        let Some((_, mut extents)) = extents else { return Ok(0) };
        // What is read from elsewhere stays where it is; where that is all, the segment goes as garbage does.
        let ids: Vec<_> = extents.iter().map(|(extent, ..)| *extent).collect();
        let mut from = self.db.numbers_of(&ids)?.into_iter();
        extents.retain(|_| from.next().flatten() == Some(row.num));
        if extents.is_empty() {
            return Ok(0);
        }
        // It is not to become weaker because some who have rows of it are away just now.
        let wear = self.tended().wear(&self.peers.views()?);
        let spare = wear.mesh.counted(&placement).holders.len().saturating_sub(usize::from(placement.segment.k));
        let is_as_strong = |rows: usize, k: u8| rows.saturating_sub(usize::from(k)) >= spare;
        let weaker = || {
            PortError::Unreachable("what every donor has a row of is written anew when all of them are there".into())
        };
        let plan = self.peers.settled_plan()?;
        if !is_as_strong(usize::from(plan.n), plan.k) {
            return Err(weaker());
        }
        let payload: Bytes = read_rows(&self.node, placement)?.concat().into();
        let mut packer = Packer::new(plan.k);
        let mut packed = Vec::new();
        for extent in &extents {
            packed.extend(packer.add(piece(&payload, extent)?).map_err(damaged)?);
        }
        packed.extend(packer.finish());
        let (keys, mut bytes, mut is_same) = (self.keys(), 0, false);
        state::put_handed(&self.db, 0)?;
        for packed in packed {
            let placed = self.peers.place((&keys, &|| self.draw()), &packed, plan, &Meter::new())?;
            let of = |placed: &Placed| u64::from(placed.placement.n) * u64::from(placed.placement.segment.shard_len);
            bytes += placed.iter().map(of).sum::<u64>();
            if !placed.iter().all(|one| is_as_strong(one.placement.holders.len(), one.placement.segment.k)) {
                return Err(weaker());
            }
            is_same |= placed.iter().any(|placed| placed.id == id);
            self.remember(&placed)?;
        }
        // Of the same content by the same k it is the same segment, which is elsewhere now.
        if !is_same {
            self.db.drop_segments(&[id])?;
            self.lacking.placed(id);
        }
        self.placements.lock().clear();
        Ok(bytes)
    }
}

impl<'a> Tended<'a> {
    /// Looks for segments of which too few rows are left, and mends them until so many bytes of shards were placed. One at a time
    /// is mended under `turn`.
    pub(crate) fn repair(&self, views: &[PeerView], bytes: u64, turn: &Mutex<()>) -> Result<Repaired, PortError> {
        let wear = self.wear(views);
        let mut repaired = Repaired::default();
        let mut due: BTreeSet<(Due, SegmentId)> = BTreeSet::new();
        let mut after = 0;
        loop {
            let rows = self.db.segments_iter(after, SEGMENTS_AT_ONCE)?;
            let Some(last) = rows.last() else { break };
            after = last.num;
            for row in rows {
                let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                match wear.due(&placement) {
                    Due::No => {}
                    Due::Lost => repaired.lost += 1,
                    of @ (Due::Mend(_) | Due::Move(_)) => {
                        repaired.due += 1;
                        repaired.leaving += u64::from(matches!(of, Due::Move(_)));
                        due.insert((of, row.id));
                        if due.len() > DUE_MAX {
                            due.pop_last();
                        }
                    }
                }
            }
        }
        let mut silent = BTreeSet::new();
        for (_, id) in due {
            if repaired.bytes >= bytes {
                break;
            }
            let mended = {
                let _turn = turn.lock();
                self.mend(id, &wear, &mut silent)
            };
            match mended {
                Ok(Mended { is_with_all: true, .. }) => repaired.with_all.push(id),
                Ok(Mended { is_changed: false, .. }) => {}
                Ok(Mended { bytes, handed, .. }) => {
                    repaired.mended += 1;
                    repaired.bytes += bytes;
                    repaired.handed += handed;
                }
                Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                Err(error) => drop(repaired.failed.get_or_insert(error.to_string())),
            }
        }
        Ok(repaired)
    }

    /// What counts, by these peers.
    pub(crate) fn wear(&self, views: &[PeerView]) -> Wear<'a> {
        let mesh = Mesh::new(views).with_leaving(self.peers.leaving_here()).sparing(self.avoid);
        Wear { lacking: self.lacking, mesh, plan: self.peers.plan().ok() }
    }

    /// Places rows of one segment anew that do not count.
    fn mend(&self, id: SegmentId, wear: &Wear<'_>, silent: &mut BTreeSet<PeerId>) -> Result<Mended, PortError> {
        let Some(row) = self.db.segment(&id)? else { return Ok(Mended::default()) };
        let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
        let held = self.lacking.without(&placement, Placement::clone);
        let mending = match wear.due(&placement) {
            Due::Mend(_) => repair::mending(&held, &wear.mesh),
            Due::Move(_) => repair::moving(&held, &wear.mesh),
            // Something has changed since it was looked at.
            Due::No | Due::Lost => return Ok(Mended::default()),
        };
        let Some(mending) = mending else {
            // As many as are needed have rows without those that stop.
            if let Some(whole) = repair::released(&held, &wear.mesh) {
                self.is_at(id, whole, true)?;
                return Ok(Mended { is_changed: true, ..Mended::default() });
            }
            if repair::is_with_all(&held, &wear.mesh) && !wear.mesh.rows_leaving(&held).is_empty() {
                return Ok(Mended { is_with_all: true, ..Mended::default() });
            }
            return Err(PortError::Unreachable("no peer is there that has room and none of it".into()));
        };
        let (segment, shard_len) = (&placement.segment, u64::from(placement.segment.shard_len));
        let (shards, handed) = self.shards(id, &held, &mending, wear, silent)?;
        let Mending { rows: wanted, others, .. } = mending;
        let (number, leases) = self.draw()?;
        let coded = Arc::new(Coded { segment: segment.clone(), shards, contents: Vec::new() });
        let until = UnixSeconds(unix_now() + LEASE_SECONDS);
        let (patience, count) = (UPLOAD_PATIENCE, wanted.len() as u64);
        let command =
            Command::Mend { coded, rows: wanted, others, spared: self.avoid.clone(), leases, until, patience };
        let new = match self.node.run_blocking(command) {
            Outcome::Uploaded(new) => new,
            Outcome::Failed(error @ (CommandError::NotPlaced { .. } | CommandError::Busy)) => {
                return Err(PortError::Unreachable(error.to_string()));
            }
            Outcome::Failed(error) => return Err(failed(error)),
            other => return Err(damaged(format!("unexpected outcome {other:?}"))),
        };
        let descriptor = codec::encode(&new);
        self.db.add_leases(&[new_leases(number, id, &new, &descriptor)])?;
        let rows: Vec<u8> = new.holders.iter().map(|holder| holder.row).collect();
        self.lacking.audited(id, &new, (&rows, &[], &[]));
        let whole = repair::mended(held, new.holders);
        let whole = repair::released(&whole, &wear.mesh).unwrap_or(whole);
        self.is_at(id, whole, !wear.mesh.leaving().is_empty())?;
        Ok(Mended { is_changed: true, bytes: count * shard_len, handed, is_with_all: false })
    }

    /// A segment is there from now on. Where a peer that stops had rows of it, that has them until this is known to all.
    fn is_at(&self, id: SegmentId, whole: Placement, is_handed: bool) -> Result<(), PortError> {
        if is_handed && state::handed(self.db)? != Some(0) {
            state::put_handed(self.db, 0)?;
            state::ask(self.db, Some(0))?;
        }
        self.db.replace_descriptors(&[(id, codec::encode(&whole))])?;
        self.placements.lock().put(id, Arc::new(whole));
        Ok(())
    }

    /// The shards that are to be placed, in the order of their rows, and how many of them were handed over: the others are made of
    /// k rows that are read.
    fn shards(
        &self,
        id: SegmentId,
        held: &Placement,
        mending: &Mending,
        wear: &Wear<'_>,
        silent: &mut BTreeSet<PeerId>,
    ) -> Result<(Vec<Bytes>, u64), PortError> {
        let segment = &held.segment;
        let mut had: BTreeMap<u8, Bytes> = BTreeMap::new();
        // Who has not handed one over is not waited for again at this look.
        for (row, holder) in mending.from.iter().filter(|(_, holder)| !silent.contains(holder)).collect::<Vec<_>>() {
            let (shard, len) = (segment.rows[usize::from(*row)], segment.shard_len);
            match self.node.run_blocking(Command::Copy { holder: *holder, shard, len, within: READ_WITHIN }) {
                Outcome::Copied(bytes) => drop(had.insert(*row, bytes)),
                Outcome::Failed(error) => {
                    tracing::info!(%error, "a shard is made anew that its holder was to hand over");
                    match error {
                        CommandError::Copy { lacks: true, .. } => drop(self.lacking.asked(id, held, &[], &[*row])),
                        _ => drop(silent.insert(*holder)),
                    }
                }
                other => return Err(damaged(format!("unexpected outcome {other:?}"))),
            }
        }
        let made: Vec<u8> = mending.rows.iter().copied().filter(|row| !had.contains_key(row)).collect();
        let handed = had.len() as u64;
        if !made.is_empty() {
            // What is found out to be gone on the way is not asked for again.
            let left = self.lacking.without(held, |left| wear.mesh.readable(left));
            let data = read_rows(self.node, left)?;
            had.extend(made.iter().copied().zip(repair::remake(segment, data, &made).map_err(damaged)?));
        }
        let shards = mending.rows.iter().filter_map(|row| had.remove(row)).collect();
        Ok((shards, handed))
    }
}

/// As many rows of a segment as it takes, those of its data.
fn read_rows(node: &NodeHandle, placement: Placement) -> Result<Vec<Bytes>, PortError> {
    match node.run_blocking(Command::Rows { placement: Arc::new(placement), within: READ_WITHIN }) {
        Outcome::Rows(rows) => Ok(rows),
        Outcome::Failed(error) => Err(failed(error)),
        other => Err(damaged(format!("unexpected outcome {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::PeerId;
    use hypernet_store::volume::LeaseChange;

    use super::super::double::Mesh as Double;
    use super::super::merging::tests::{Home, homes};
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn placements(home: &Home) -> Vec<Placement> {
        let rows = home.volume.db.segments_iter(0, 999).unwrap();
        rows.iter().map(|row| codec::decode(&row.descriptor).unwrap()).collect()
    }

    #[test]
    fn what_disks_have_lost_is_made_anew_beside_what_is_left() {
        let mesh = Double::new(8);
        let home = homes(&mesh, 1, |home| home.write("file", &noise(700_000))).remove(0);
        let before = placements(&home);
        let (k, n) = (before[0].segment.k, before[0].n);
        let none = home.volume.repair(&home.vfs, u64::MAX).unwrap();
        assert_eq!((none.due, none.lost, none.mended), (0, 0, 0));

        // As many as may be, of everything; whoever asks finds that out.
        let lost: Vec<PeerId> = before[0].holders.iter().take(usize::from(n - k)).map(|holder| holder.peer).collect();
        lost.iter().for_each(|peer| mesh.lose_disk(*peer));
        for placement in &before {
            let missing: Vec<u8> =
                placement.holders.iter().filter(|at| lost.contains(&at.peer)).map(|at| at.row).collect();
            home.volume.lacking.asked(placement.segment.id(), placement, &[], &missing);
        }
        let some = home.volume.repair(&home.vfs, 1).unwrap();
        assert!(some.mended == 1 && some.due >= 1, "one by one: {some:?}");
        let rest = home.volume.repair(&home.vfs, u64::MAX).unwrap();
        assert_eq!((rest.mended, rest.lost, rest.failed), (some.due - 1, 0, None));
        assert_eq!(home.volume.repair(&home.vfs, u64::MAX).unwrap().due, 0);
        for placement in placements(&home) {
            let peers: BTreeSet<PeerId> = placement.holders.iter().map(|holder| holder.peer).collect();
            assert_eq!((placement.holders.len(), peers.len()), (usize::from(placement.n), usize::from(placement.n)));
        }
        home.sync();
        // What was there before stays leased.
        let held = |home: &Home| placements(home).iter().map(|placement| placement.holders.len()).sum::<usize>();
        let before = held(&home);
        home.collect().unwrap();
        home.collect().unwrap();
        assert!(held(&home) >= before);
        assert!(home.volume.repair(&home.vfs, u64::MAX).unwrap().due == 0);
    }

    #[test]
    fn a_catalog_of_which_few_rows_are_left_is_written_anew_and_once() {
        let mesh = Double::new(8);
        let home = homes(&mesh, 1, |home| home.write("file", &noise(300_000))).remove(0);
        let volume = &home.volume;
        let all = || volume.catalog_segments(&volume.db).unwrap();
        let before = all();
        assert!(before.len() > 1);
        assert_eq!(home.volume.repair(&home.vfs, u64::MAX).unwrap().catalog, 0);
        let (k, n) = (before[0].segment.k, before[0].n);
        let lost: Vec<PeerId> = before[0].holders.iter().take(usize::from(n - k)).map(|holder| holder.peer).collect();
        lost.iter().for_each(|peer| mesh.lose_disk(*peer));
        for placement in &before {
            let missing: Vec<u8> =
                placement.holders.iter().filter(|at| lost.contains(&at.peer)).map(|at| at.row).collect();
            volume.lacking.asked(placement.segment.id(), placement, &[], &missing);
        }
        *volume.surveyed.lock() = None;
        let found = volume.repair(&home.vfs, u64::MAX).unwrap();
        assert_eq!(found.catalog, before.len() as u64);
        home.sync();
        // What is not of the catalog, and has been found out on the way, is mended.
        volume.repair(&home.vfs, u64::MAX).unwrap();
        assert_eq!(volume.repair(&home.vfs, u64::MAX).unwrap(), Repaired::default());
        let after = all();
        for placement in &after {
            assert!(!before.contains(placement));
            assert_eq!(placement.holders.len(), usize::from(placement.n));
        }
        // Nothing is left to do: the next one takes over all but the manifest.
        home.write("other", b"small");
        home.sync();
        let kept = all().iter().filter(|placement| after.contains(placement)).count();
        assert!(kept > 0, "a catalog that is sound was written anew");
    }

    /// Has all leases of this device end soon, as after two months.
    fn end_soon(home: &Home) {
        for row in home.volume.db.leases_iter(0, 999).unwrap() {
            let mut placement: Placement = codec::decode(&row.descriptor).unwrap();
            let until = unix_now() + 86_400;
            placement.holders.iter_mut().for_each(|holder| holder.until = UnixSeconds(until));
            let descriptor = codec::encode(&placement);
            let changes = [LeaseChange::Renewed(row.number, until), LeaseChange::Held(row.number, descriptor)];
            home.volume.db.change_leases(&changes).unwrap();
        }
    }

    #[test]
    fn rows_that_were_mended_are_not_asked_of_who_has_lost_them() {
        let mesh = Double::new(8);
        let home = homes(&mesh, 1, |home| home.write("file", &noise(700_000))).remove(0);
        let before = placements(&home);
        let (k, n) = (before[0].segment.k, before[0].n);
        // Those that have lost their disks stay, and others take what they had.
        let lost: BTreeSet<PeerId> =
            before[0].holders.iter().take(usize::from(n - k)).map(|holder| holder.peer).collect();
        lost.iter().for_each(|peer| mesh.lose_disk(*peer));
        mesh.connect((1..=8).map(|last| {
            let mut id = [0; 32];
            id[31] = last;
            PeerId(id)
        }));
        let mut due = 0;
        for placement in &before {
            let holders = placement.holders.iter();
            let missing: Vec<u8> = holders.filter(|at| lost.contains(&at.peer)).map(|at| at.row).collect();
            home.volume.lacking.asked(placement.segment.id(), placement, &[], &missing);
            due += u64::from(!missing.is_empty());
        }
        assert!(home.volume.repair(&home.vfs, u64::MAX).unwrap().mended > 0 && due > 0);
        let whole = placements(&home);
        assert!(whole.iter().all(|placement| placement.holders.iter().all(|at| !lost.contains(&at.peer))));
        home.sync();

        end_soon(&home);
        let renewed = home.volume.renew_leases().unwrap();
        let mended: BTreeSet<SegmentId> = whole.iter().map(|placement| placement.segment.id()).collect();
        let of_index = |placement: &Placement| mended.contains(&placement.segment.id());
        // What the catalog before lay in was never mended.
        let views = home.volume.peers.views().unwrap();
        let wear = home.volume.tended().wear(&views);
        for placement in placements(&home).iter().filter(|placement| of_index(placement)) {
            assert_eq!(wear.counted(placement).holders.len(), usize::from(placement.n), "{renewed:?}");
        }
        assert_eq!(home.volume.repair(&home.vfs, u64::MAX).unwrap().due, 0);
        let asked = |home: &Home| -> usize {
            let rows = home.volume.db.leases_iter(0, 999).unwrap();
            let due = rows.iter().filter(|row| row.gone.is_none() && mended.contains(&row.segment));
            due.filter(|row| row.until < unix_now() + LEASE_SECONDS / 2).count()
        };
        assert_eq!(asked(&home), 0, "the next look would ask them again");
    }
}
