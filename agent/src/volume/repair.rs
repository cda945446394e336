//! Making anew what holders have lost, or have taken along for good.
//!
//! What is due, in which order and by which rows, [`hypernet_core::repair`] decides; here it is done, so many bytes at a time.
//! Rows are made from ciphertext, and are those that were committed when the segment was made: each is checked against its hash
//! before it goes out.
//!
//! A row counts while its holder has not been found to lack it and is not taken to be gone for good; of who comes back it counts
//! again. Two devices that mend one segment at once do no harm: each has leases of what it has placed, and when their catalogs
//! come together, both count.
//!
//! Invariant: a row of the index is replaced only by one that has all holders that count, and the new ones, whose leases are
//! written down first. Wherever this is broken off, what was placed and is in no index is given up later.

use std::collections::BTreeSet;
use std::sync::Arc;

use hypernet_core::codec;
use hypernet_core::id::SegmentId;
use hypernet_core::node::{Command, CommandError, Node, Outcome};
use hypernet_core::port::PortError;
use hypernet_core::repair::{self, Due, Mending, Mesh};
use hypernet_core::segment::{Coded, Placement};
use hypernet_core::time::UnixSeconds;
use hypernet_fs::vfs::Vfs;

use super::leases::new_leases;
use super::read::failed;
use super::sync::of_tree;
use super::write::unix_now;
use super::{LEASE_SECONDS, READ_WITHIN, UPLOAD_PATIENCE, Volume, damaged};

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
    /// Why the first that was not mended was not.
    pub(crate) failed: Option<String>,
}

impl Volume {
    /// Looks for segments of which too few rows are left, and mends them until so many bytes of shards were placed.
    pub(crate) fn repair(&self, vfs: &Vfs, bytes: u64) -> Result<Repaired, PortError> {
        let views = self.node.ask_blocking(Node::peers);
        let views = views.ok_or_else(|| PortError::Unreachable("the agent is stopping".into()))?;
        let mesh = Mesh::new(&views);
        let plan = self.peers.plan().ok();
        let mut repaired = Repaired::default();
        let mut due: BTreeSet<(u8, SegmentId)> = BTreeSet::new();
        let mut after = 0;
        loop {
            let rows = self.db.segments_iter(after, SEGMENTS_AT_ONCE)?;
            let Some(last) = rows.last() else { break };
            after = last.num;
            for row in rows {
                let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                let (k, n) = (placement.segment.k, placement.n);
                let counts = self.counted(&placement, &mesh).holders.len() as u8;
                match repair::due(k, n, counts, plan.as_ref()) {
                    Due::No => {}
                    Due::Lost => repaired.lost += 1,
                    Due::Mend(margin) => {
                        repaired.due += 1;
                        due.insert((margin, row.id));
                        if due.len() > DUE_MAX {
                            due.pop_last();
                        }
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
                self.mend(id, &mesh)
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
        if repaired.mended > 0 && self.may_write().is_ok() {
            // Where it is now is to be found by the words alone.
            vfs.mark_changed(self.id).map_err(of_tree)?;
        }
        Ok(repaired)
    }

    /// A placement without the rows that do not count.
    fn counted(&self, placement: &Placement, mesh: &Mesh) -> Placement {
        self.lacking.without(placement, |left| mesh.counted(left))
    }

    /// Makes rows of one segment anew; returns bytes of the shards that were placed.
    fn mend(&self, id: SegmentId, mesh: &Mesh) -> Result<u64, PortError> {
        let Some(row) = self.db.segment(&id)? else { return Ok(0) };
        let placement: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
        let held = self.lacking.without(&placement, Placement::clone);
        let left = mesh.counted(&held);
        let (segment, shard_len) = (&placement.segment, u64::from(placement.segment.shard_len));
        let Some(Mending { rows: wanted, others }) = repair::mending(&held, mesh) else {
            return Err(PortError::Unreachable("no peer is there that has room and none of it".into()));
        };
        let rows = Command::Rows { placement: Arc::new(left), within: READ_WITHIN };
        let data = match self.node.run_blocking(rows) {
            Outcome::Rows(rows) => rows,
            Outcome::Failed(error) => return Err(failed(error)),
            other => return Err(damaged(format!("unexpected outcome {other:?}"))),
        };
        let shards = repair::remake(segment, data, &wanted).map_err(damaged)?;
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
        let whole = repair::mended(held, new.holders);
        self.db.replace_descriptors(&[(id, codec::encode(&whole))])?;
        self.placements.lock().put(id, Arc::new(whole));
        self.lacking.placed(id);
        Ok(count * shard_len)
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::PeerId;

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
}
