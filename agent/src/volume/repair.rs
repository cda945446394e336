//! Making anew what holders have lost, or have taken along for good.
//!
//! It is lazy: whoever reads k rows to make one can as well make several, so a segment is mended when it has come down to a
//! threshold above k (see [`hypernet_core::durability`]), and then up to the number of rows that it is meant to have. Those that
//! are nearest to their loss come first, and so many bytes at a time. Rows are made from ciphertext, and are those that were
//! committed when the segment was made: each is checked against its hash before it goes out.
//!
//! A row counts while its holder has not been found to lack it and is not taken to be gone for good; of who comes back it counts
//! again. Two devices that mend one segment at once do no harm: each has leases of what it has placed, and when their catalogs
//! come together, both count.
//!
//! Invariant: a row of the index is replaced only by one that has all holders that count, and the new ones, whose leases are
//! written down first. Wherever this is broken off, what was placed and is in no index is given up later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hypernet_core::codec;
use hypernet_core::durability::Plan;
use hypernet_core::erasure;
use hypernet_core::id::{PeerId, SegmentId};
use hypernet_core::node::{Command, CommandError, Outcome, PeerView, Presence};
use hypernet_core::port::PortError;
use hypernet_core::segment::{Coded, Placement};
use hypernet_core::time::UnixSeconds;
use hypernet_fs::vfs::Vfs;

use super::lacking::Lacking;
use super::leases::new_leases;
use super::read::failed;
use super::sync::of_tree;
use super::write::unix_now;
use super::{LEASE_SECONDS, READ_WITHIN, UPLOAD_PATIENCE, Volume, damaged, state};

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
    /// Segments of the catalog that the next sync is to write anew.
    pub(crate) catalog: u64,
    /// Why the first that was not mended was not.
    pub(crate) failed: Option<String>,
}

/// Which rows count, and how few are too few.
pub(super) struct Wear<'a> {
    pub(super) lacking: &'a Lacking,
    pub(super) gone: BTreeSet<PeerId>,
    /// k, n and the threshold of what is placed now.
    planned: Option<(u8, u8, u8)>,
}

/// What is left of a segment.
pub(super) struct Left {
    /// Rows that count.
    pub(super) rows: u8,
    /// At how many of them it is mended.
    pub(super) threshold: u8,
}

impl<'a> Wear<'a> {
    /// By these peers, and what is placed now.
    pub(super) fn new(lacking: &'a Lacking, views: &[PeerView], plan: Option<&Plan>) -> Self {
        let gone = views.iter().filter(|view| view.presence == Presence::Gone).map(|view| view.peer).collect();
        Self { lacking, gone, planned: plan.map(|plan| (plan.k, plan.n, plan.threshold)) }
    }

    /// A placement without the rows that do not count.
    pub(super) fn counted(&self, placement: &Placement) -> Placement {
        self.lacking.without(placement, |left| {
            let mut left = left.clone();
            left.holders.retain(|holder| !self.gone.contains(&holder.peer));
            left
        })
    }

    pub(super) fn left(&self, placement: &Placement) -> Left {
        let counted = self.counted(placement);
        // Two devices may have made the same row anew.
        let rows = counted.holders.iter().map(|holder| holder.row).collect::<BTreeSet<u8>>().len() as u8;
        Left { rows, threshold: threshold(placement.segment.k, placement.n, self.planned) }
    }

    /// Whether it is time to make rows of a segment anew, or to write anew what lies in it.
    pub(super) fn is_worn(&self, placement: &Placement) -> bool {
        let Left { rows, threshold } = self.left(placement);
        rows <= threshold && rows < placement.n
    }
}

/// Bytes that each peer takes who takes some.
fn room(views: &[PeerView]) -> BTreeMap<PeerId, u64> {
    let takes = |view: &&PeerView| view.connected && !view.blocked;
    let free = |view: &PeerView| view.hello.as_ref().map(|hello| (view.peer, hello.free));
    views.iter().filter(takes).filter_map(free).collect()
}

/// At how many rows that count a segment is mended. One that was made under another plan may have lost a third of those beyond k.
fn threshold(k: u8, n: u8, planned: Option<(u8, u8, u8)>) -> u8 {
    match planned {
        Some((of, to, threshold)) if (of, to) == (k, n) => threshold.clamp(k, n.saturating_sub(1).max(k)),
        _ => n.saturating_sub(n.saturating_sub(k).div_ceil(3)).clamp(k, n.saturating_sub(1).max(k)),
    }
}

impl Volume {
    /// Looks for segments of which too few rows are left, and mends them until so many bytes of shards were placed.
    pub(crate) fn repair(&self, vfs: &Vfs, bytes: u64) -> Result<Repaired, PortError> {
        let began = Instant::now();
        let found = self.mend_worn(vfs, bytes);
        self.mending.lock().note(&found, began.elapsed());
        found
    }

    fn mend_worn(&self, vfs: &Vfs, bytes: u64) -> Result<Repaired, PortError> {
        // Whoever was full is asked what it has by now, where too few have room: so that comes first.
        let plan = self.peers.plan().ok();
        let views = self.peers.views()?;
        let (wear, room) = (Wear::new(&self.lacking, &views, plan.as_ref()), room(&views));
        let mut repaired = Repaired::default();
        let mut due: BTreeSet<(u8, SegmentId)> = BTreeSet::new();
        let mut after = 0;
        loop {
            let rows = self.db.segments_iter(after, SEGMENTS_AT_ONCE)?;
            let Some(last) = rows.last() else { break };
            after = last.num;
            for row in rows {
                let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                let (k, Left { rows, threshold }) = (placement.segment.k, wear.left(&placement));
                if rows < k {
                    repaired.lost += 1;
                } else if rows <= threshold && rows < placement.n {
                    repaired.due += 1;
                    due.insert((rows - k, row.id));
                    if due.len() > DUE_MAX {
                        due.pop_last();
                    }
                }
            }
        }
        for (_, id) in due {
            if repaired.bytes >= bytes {
                break;
            }
            let mended = {
                // What is collected or followed meanwhile is another index.
                let _turn = self.turn.lock();
                self.mend(id, &wear, &room)
            };
            match mended {
                Ok(0) => {}
                Ok(placed) => {
                    repaired.mended += 1;
                    repaired.bytes += placed;
                }
                Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                Err(error) => drop(repaired.failed.get_or_insert(error.to_string())),
            }
        }
        repaired.catalog = self.worn_catalog(&wear)?;
        if repaired.mended + repaired.catalog > 0 && self.may_write().is_ok() {
            // Where it is now is to be found by the words alone, and a sync writes anew what is worn of a catalog.
            vfs.mark_changed(self.id).map_err(of_tree)?;
        }
        Ok(repaired)
    }

    /// What counts, by these peers.
    pub(super) fn wear(&self, views: &[PeerView]) -> Wear<'_> {
        Wear::new(&self.lacking, views, self.peers.plan().ok().as_ref())
    }

    /// How many segments of the catalog that this device has published are to be written anew.
    fn worn_catalog(&self, wear: &Wear<'_>) -> Result<u64, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(0) };
        let mut worn = u64::from(wear.is_worn(&latest.head.manifest_placement));
        // A listing that is not here was never read on this device: the sync that reads it sees to it.
        self.each_catalog_segment(&latest.manifest, false, &mut |found| {
            worn += u64::from(found.is_ok_and(|placement| wear.is_worn(placement)));
        });
        Ok(worn)
    }

    /// Makes rows of one segment anew; returns bytes of the shards that were placed.
    fn mend(&self, id: SegmentId, wear: &Wear<'_>, room: &BTreeMap<PeerId, u64>) -> Result<u64, PortError> {
        let Some(row) = self.db.segment(&id)? else { return Ok(0) };
        let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
        let left = wear.counted(&placement);
        let (segment, shard_len) = (&placement.segment, u64::from(placement.segment.shard_len));
        let others: BTreeSet<PeerId> = left.holders.iter().map(|holder| holder.peer).collect();
        let room = room.iter().filter(|(peer, free)| **free >= shard_len && !others.contains(peer)).count();
        let held: BTreeSet<u8> = left.holders.iter().map(|holder| holder.row).collect();
        let missing = usize::from(placement.n).saturating_sub(held.len()).min(room);
        let all = 0..segment.rows.len() as u8;
        let wanted: Vec<u8> = all.filter(|row| !held.contains(row)).take(missing).collect();
        if wanted.is_empty() {
            return Err(PortError::Unreachable("no peer is there that has room and none of it".into()));
        }
        let rows = Command::Rows { placement: Arc::new(left.clone()), within: READ_WITHIN };
        let data = match self.node.run_blocking(rows) {
            Outcome::Rows(rows) => rows,
            Outcome::Failed(error) => return Err(failed(error)),
            other => return Err(damaged(format!("unexpected outcome {other:?}"))),
        };
        let data: Vec<(u8, Bytes)> = (0..).zip(data).collect();
        let shards = erasure::remake(usize::from(segment.k), &data, &wanted).map_err(damaged)?;
        let is_right =
            |(row, shard): (&u8, &Bytes)| blake3::hash(shard).as_bytes() == segment.rows[usize::from(*row)].as_bytes();
        if !wanted.iter().zip(&shards).all(is_right) {
            return Err(damaged("the rows that a segment has are not those of what it commits to"));
        }
        let (number, leases) = self.draw()?;
        let coded = Arc::new(Coded { segment: segment.clone(), shards, contents: Vec::new() });
        let until = UnixSeconds(unix_now() + LEASE_SECONDS);
        let (patience, count) = (UPLOAD_PATIENCE, wanted.len() as u64);
        let command = Command::Mend { coded, rows: wanted, others, leases, until, patience };
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
        let mut whole = left;
        whole.holders.extend(new.holders);
        whole.holders.sort_by_key(|holder| holder.row);
        self.db.replace_descriptors(&[(id, codec::encode(&whole))])?;
        self.placements.lock().put(id, Arc::new(whole));
        self.lacking.placed(id);
        Ok(count * shard_len)
    }
}

#[cfg(test)]
mod tests {
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
    fn it_waits_until_some_rows_are_gone_and_never_for_the_last_one() {
        for n in 2..=50 {
            for k in 1..n {
                let threshold = threshold(k, n, None);
                assert!(threshold >= k && threshold < n, "{k} of {n}: {threshold}");
                assert_eq!(super::threshold(k, n, Some((k, n, n))), n - 1);
                assert_eq!(super::threshold(k, n, Some((k, n, 0))), k);
            }
        }
        assert_eq!((threshold(10, 18, None), threshold(20, 50, Some((20, 50, 41)))), (15, 41));
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
            home.volume.lacking.asked(placement.segment.id(), &[], &missing);
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
        let all = || {
            let latest = state::latest(&volume.db).unwrap().unwrap();
            let mut all = vec![latest.head.manifest_placement.clone()];
            volume.each_catalog_segment(&latest.manifest, false, &mut |found| all.push(found.unwrap().clone()));
            all
        };
        let before = all();
        assert!(before.len() > 1);
        assert_eq!(home.volume.repair(&home.vfs, u64::MAX).unwrap().catalog, 0);
        let (k, n) = (before[0].segment.k, before[0].n);
        let lost: Vec<PeerId> = before[0].holders.iter().take(usize::from(n - k)).map(|holder| holder.peer).collect();
        lost.iter().for_each(|peer| mesh.lose_disk(*peer));
        for placement in &before {
            let missing: Vec<u8> =
                placement.holders.iter().filter(|at| lost.contains(&at.peer)).map(|at| at.row).collect();
            volume.lacking.asked(placement.segment.id(), &[], &missing);
        }
        *volume.surveyed.lock() = None;
        let found = volume.repair(&home.vfs, u64::MAX).unwrap();
        assert_eq!(found.catalog, before.len() as u64);
        home.sync();
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
}
