//! Letting go of what peers that stop storing for others had, once it is elsewhere.
//!
//! Repair places it anew (`super::repair`). Whoever stops goes on keeping it for as long as somebody has a lease of it, and this
//! device ends its own only when
//! 1. the catalog of its newest head, which its keepers have confirmed, knows where it is now,
//! 2. it has leases of its own with those who have it now, and
//! 3. all others that may publish have a head that has seen that one, and whose catalog says of none of these rows that a peer which
//!    stops has it: whoever recovers by one of theirs finds it, too. (A head has seen others that were found when it was published, and
//!    its catalog may be older than that.)
//!
//! So nobody who follows a head comes to a peer that has let go of what is to be found there. What is placed anew as a whole, such as
//! pages of the catalog, and what nothing needs any more, goes as all garbage does (`super::collect`); it is looked for more often
//! while a peer waits for that.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::head::Head;
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

/// Of them those whose present holders are asked together,
const ENDED_AT_ONCE: usize = 64;
/// and for how long at one look: nothing else of the volume goes on meanwhile.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

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

/// The head of this device that all others have seen, and theirs.
type Settled = (Option<u64>, Vec<Head>);

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
        if !moved.is_empty()
            && let Some((seen, heads)) = self.settled_by(vfs, &mut done.waits)?
        {
            let all = moved.len();
            let moved = self.named_by_none(&heads, moved, &mut done.waits);
            // Whoever published the catalog of before has this one by now, or will have: asked again, once they have done what they
            // were asked for, they publish that.
            if moved.len() < all
                && self.may_write().is_ok()
                && state::asks(&self.db)?.is_none_or(|asked| seen >= Some(asked))
            {
                self.ask_others(vfs)?;
            }
            let until = Instant::now() + ENDED_WITHIN;
            for some in moved.chunks(ENDED_AT_ONCE).take_while(|_| Instant::now() < until) {
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

    /// The heads of the others, where all of them have seen the one of this device by which others know what was moved.
    fn settled_by(&self, vfs: &Vfs, waits: &mut Vec<String>) -> Result<Option<Settled>, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(None) };
        if self.may_write().is_err() {
            // Whoever only reads goes by what others have published.
            return Ok(Some((None, self.last_heads())));
        }
        let handed_out = state::handed_out(&self.db)?.and_then(|record| self.open_own(&record));
        // Where this device stands on a head of another one, that is among those whose catalogs are looked at.
        let is_confirmed = latest.head.device != self.device.id()
            || handed_out.is_none_or(|handed| handed.sequence == latest.head.sequence);
        let handed = state::handed(&self.db)?;
        if handed.is_none() {
            // Somebody else has moved it, and this index has followed.
            state::put_handed(&self.db, 0)?;
        }
        let Some(since) = handed.filter(|number| *number > 0) else {
            waits.push("a head of this device".into());
            vfs.mark_changed(self.id).map_err(of_tree)?;
            return Ok(None);
        };
        if !is_confirmed {
            // It goes on by itself; and two devices that both published for this would do so in turn while a third one is away.
            waits.push("a head of this device".into());
            return Ok(None);
        }
        let (seen, heads) = self.seen_by_others(waits)?;
        if seen.is_none_or(|seen| seen >= since) {
            return Ok(Some((seen, heads)));
        }
        // They may have been asked for another one before, or for none.
        if state::asks(&self.db)?.is_none_or(|asked| asked != 0 && asked < since) {
            self.ask_others(vfs)?;
        }
        Ok(None)
    }

    /// Those of which no catalog of these heads says that a peer has them which is to let go of them; none where one cannot be read.
    fn named_by_none(
        &self,
        heads: &[Head],
        mut moved: Vec<(Leased, Held)>,
        waits: &mut Vec<String>,
    ) -> Vec<(Leased, Held)> {
        for head in heads {
            let named = self.load_beside(head).and_then(|(beside, _)| {
                let mut left = Vec::new();
                for (row, going) in std::mem::take(&mut moved) {
                    let there = match beside.segment(&row.segment)? {
                        Some(there) => held(&codec::decode(&there.descriptor).map_err(damaged)?),
                        None => Held::default(),
                    };
                    if there.is_disjoint(&going) {
                        left.push((row, going));
                    }
                }
                beside.clear_segments()?;
                Ok(left)
            });
            match named {
                Ok(left) => moved = left,
                Err(error) => {
                    tracing::debug!(volume = %self.id.short(), %error, "leases stay: a catalog of another device cannot be read");
                    waits.push("a catalog of another device".into());
                    return Vec::new();
                }
            }
        }
        moved
    }

    fn let_go_of(&self, moved: &[(Leased, Held)]) -> Result<u64, PortError> {
        let tended = self.tended();
        let (mut ending, mut places) = (Vec::new(), Vec::new());
        for (row, going) in moved {
            let Some(there) = self.db.segment(&row.segment)? else { continue };
            let there: Placement = codec::decode(&there.descriptor).map_err(damaged)?;
            // It may have come back there since.
            let going = going - &held(&there);
            let placement = codec::decode(&row.descriptor).map_err(damaged)?;
            ending.push(Ending { number: row.number, placement, going });
            places.push(there);
        }
        // Asked together: of one of them that does not answer the others of this lot wait for the next look.
        if places.is_empty() || !tended.lease_all(places)? { Ok(0) } else { tended.end_some(&ending) }
    }
}

#[cfg(test)]
mod tests;
