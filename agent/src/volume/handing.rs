//! Letting go of what peers that stop storing for others had, once it is elsewhere.
//!
//! Repair places it anew (`super::repair`). Whoever stops goes on keeping it for as long as somebody has a lease of it, and this
//! device ends its own only when
//! 1. the catalog of its newest head, which its keepers have confirmed, knows where it is now,
//! 2. it has leases of its own with those who have it now, and
//! 3. all others that may publish have a head that has seen that one: whoever recovers by one of theirs finds it, too.
//!
//! So nobody who follows a head comes to a peer that has let go of what is to be found there. What is placed anew as a whole, such as
//! pages of the catalog, and what nothing needs any more, goes as all garbage does (`super::collect`); it is looked for more often
//! while a peer waits for that.

use std::collections::BTreeSet;

use hypernet_core::codec;
use hypernet_core::id::PeerId;
use hypernet_core::port::PortError;
use hypernet_core::segment::Placement;
use hypernet_fs::vfs::Vfs;
use hypernet_store::volume::Leased;

use super::leases::{Ending, Held, held};
use super::state;
use super::sync::of_tree;
use super::tended::Tending as _;
use super::{Volume, damaged};

/// Leases looked at together.
const LEASES_AT_ONCE: u32 = 1_024;

/// Leases that are given up at one look, each of them one row of the ledger: the rest follows at the next.
const MOVED_AT_ONCE: usize = 16 * 1_024;

/// What peers that stop had, and have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LetGo {
    /// Bytes of shards that were let go of.
    pub(crate) bytes: u64,
    /// Shards that this device has leases of with such peers still,
    pub(crate) left: u64,
    /// and what some of these wait for that are elsewhere by now.
    pub(crate) waits: Vec<String>,
}

impl Volume {
    /// Whom this device can reach of those that stop storing for others.
    fn leavers(&self) -> Result<BTreeSet<PeerId>, PortError> {
        let views = self.peers.views()?;
        Ok(views.iter().filter(|view| view.leaving && view.connected).map(|view| view.peer).collect())
    }

    /// Gives up leases with peers that stop storing for others, of what is known to be elsewhere; and looks for garbage among the
    /// rest, which nothing has needed for `grace` seconds.
    pub(crate) fn let_go(&self, vfs: &Vfs, grace: u64) -> Result<LetGo, PortError> {
        let leavers = self.leavers()?;
        if leavers.is_empty() {
            return Ok(LetGo::default());
        }
        let mut done = LetGo::default();
        let (moved, is_garbage) = self.moved_from(&leavers, &mut done)?;
        if !moved.is_empty() && self.is_settled(vfs, &mut done.waits)? {
            for some in moved.chunks(LEASES_AT_ONCE as usize) {
                done.bytes += self.let_go_of(some)?;
            }
        }
        if is_garbage {
            done.bytes += self.release(vfs, grace)?.bytes;
        }
        done.waits.sort();
        done.waits.dedup();
        Ok(done)
    }

    /// Leases with these peers of rows that are elsewhere, as published pages of the catalog say; and whether there are leases with
    /// them of what is in no index.
    fn moved_from(
        &self,
        leavers: &BTreeSet<PeerId>,
        done: &mut LetGo,
    ) -> Result<(Vec<(Leased, Held)>, bool), PortError> {
        let stale: BTreeSet<u64> = self.db.stale()?.iter().map(|stale| stale.num).collect();
        let (mut moved, mut is_garbage) = (Vec::new(), false);
        let mut after = 0;
        loop {
            let rows = self.db.leases_iter(after, LEASES_AT_ONCE)?;
            let Some(last) = rows.last() else { return Ok((moved, is_garbage)) };
            after = last.row;
            for row in rows {
                let leased: Placement = codec::decode(&row.descriptor).map_err(damaged)?;
                let mine: Held = held(&leased).into_iter().filter(|(_, peer)| leavers.contains(peer)).collect();
                if mine.is_empty() {
                    continue;
                }
                done.left += mine.len() as u64;
                let Some(there) = self.db.segment(&row.segment)? else {
                    is_garbage = true;
                    continue;
                };
                is_garbage |= row.gone.is_some();
                let going = &mine - &held(&codec::decode(&there.descriptor).map_err(damaged)?);
                if going.is_empty() {
                    continue;
                }
                match stale.contains(&there.num) {
                    true => done.waits.push("a head of this device".into()),
                    false if moved.len() < MOVED_AT_ONCE => moved.push((row, going)),
                    false => {}
                }
            }
        }
    }

    /// Whether all that others go by knows what was moved.
    fn is_settled(&self, vfs: &Vfs, waits: &mut Vec<String>) -> Result<bool, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(false) };
        if self.may_write().is_err() {
            // Whoever only reads goes by what others have published.
            return Ok(true);
        }
        let handed_out = state::handed_out(&self.db)?.and_then(|record| self.open_own(&record));
        let is_confirmed = latest.head.device == self.device.id()
            && handed_out.is_none_or(|handed| handed.sequence == latest.head.sequence);
        let since = match state::handed(&self.db)? {
            Some(0) => None,
            // Somebody else has moved it, and this index has followed.
            None => {
                state::put_handed(&self.db, 0)?;
                None
            }
            since => since,
        };
        let Some(since) = since.filter(|_| is_confirmed) else {
            waits.push("a head of this device".into());
            vfs.mark_changed(self.id).map_err(of_tree)?;
            return Ok(false);
        };
        let (seen, _) = self.seen_by_others(waits)?;
        Ok(seen.is_none_or(|seen| seen >= since))
    }

    fn let_go_of(&self, moved: &[(Leased, Held)]) -> Result<u64, PortError> {
        let tended = self.tended();
        let mut ending = Vec::new();
        for (row, going) in moved {
            let Some(there) = self.db.segment(&row.segment)? else { continue };
            let there: Placement = codec::decode(&there.descriptor).map_err(damaged)?;
            // It may have come back there since.
            let going = going - &held(&there);
            if tended.lease_all(vec![there])? {
                let placement = codec::decode(&row.descriptor).map_err(damaged)?;
                ending.push(Ending { number: row.number, placement, going });
            }
        }
        tended.end_some(&ending)
    }
}

#[cfg(test)]
mod tests;
