//! What holders that were asked said they do not have any more of what they acknowledged, or have spoiled.
//!
//! The index says who took a shard. A check (`hn fsck --verify`), a sync that asked or an audit finds out who still has it, and what
//! was found out is not forgotten: it is what health is told by, and what a sync may not rely on. Of whoever was asked to
//! prove it and could not, the word is worth nothing any more: that stands until they do, or the segment is placed anew.
//!
//! It is known of a row *and* a peer. A row that was mended is with somebody else, of whom nothing is said by what its holder
//! before has lost; and what is answered late by one says nothing of the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use hypernet_core::id::{PeerId, SegmentId};
use hypernet_core::segment::{Holder, Placement};
use minicbor::{Decode, Encode};
use parking_lot::Mutex;

use super::audit::Gone;

/// Holders of whom it is filed what they lack: others are audited again.
const FILED_MAX: usize = 65_536;
/// Holders of one segment of whom that is known: it has at most 255 rows, and few of them move more than once.
const OF_SEGMENT_MAX: usize = 512;

/// A holder of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct At {
    #[n(0)]
    pub(crate) row: u8,
    #[n(1)]
    pub(crate) peer: PeerId,
}

/// The holders of these rows of a placement.
fn at(placement: &Placement, rows: &[u8]) -> BTreeSet<At> {
    let of = placement.holders.iter().filter(|holder| rows.contains(&holder.row));
    of.map(|holder| At { row: holder.row, peer: holder.peer }).collect()
}

/// Holders of a segment that have nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holders {
    /// As they say.
    said: BTreeSet<At>,
    /// Whatever these say.
    unproven: BTreeSet<At>,
}

/// Holders that have nothing, by segment.
#[derive(Debug, Default)]
pub(crate) struct Lacking {
    holders: Mutex<BTreeMap<SegmentId, Holders>>,
    changes: AtomicU64,
}

impl Lacking {
    /// Holders of a segment that is placed so were asked: these rows are there, and these are not. Whether that is news.
    pub(crate) fn asked(&self, id: SegmentId, placement: &Placement, held: &[u8], missing: &[u8]) -> bool {
        let (held, missing) = (at(placement, held), at(placement, missing));
        self.change(id, |holders| {
            holders.said.retain(|at| !held.contains(at));
            holders.said.extend(missing);
        })
    }

    /// Holders of a segment that is placed so were to prove that they have these rows: some have, some say that they cannot, and
    /// some lied. Whether that is news.
    pub(crate) fn audited(
        &self,
        id: SegmentId,
        placement: &Placement,
        (passed, missing, lied): (&[u8], &[u8], &[u8]),
    ) -> bool {
        let (passed, missing, lied) = (at(placement, passed), at(placement, missing), at(placement, lied));
        self.change(id, |holders| {
            holders.said.retain(|at| !passed.contains(at));
            holders.unproven.retain(|at| !passed.contains(at));
            holders.said.extend(missing);
            holders.unproven.extend(lied);
        })
    }

    fn change(&self, id: SegmentId, change: impl FnOnce(&mut Holders)) -> bool {
        let mut all = self.holders.lock();
        let before = all.remove(&id).unwrap_or_default();
        let mut holders = before.clone();
        change(&mut holders);
        for some in [&mut holders.said, &mut holders.unproven] {
            while some.len() > OF_SEGMENT_MAX {
                some.pop_first();
            }
        }
        let is_news = holders != before;
        if holders != Holders::default() {
            all.insert(id, holders);
        }
        if is_news {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        is_news
    }

    /// Of rows that their holders say they have those of which they could not prove it.
    pub(crate) fn unproven(&self, id: SegmentId, placement: &Placement, held: &[u8]) -> Vec<u8> {
        let all = self.holders.lock();
        let of = |holders: &Holders| holders.unproven.intersection(&at(placement, held)).map(|at| at.row).collect();
        all.get(&id).map(of).unwrap_or_default()
    }

    /// Whose rows of a segment are gone, and whether they could not prove that they have them, or say so themselves.
    pub(crate) fn gone(&self, placement: &Placement) -> Vec<(PeerId, bool)> {
        let all = self.holders.lock();
        let known = (!all.is_empty()).then(|| all.get(&placement.segment.id())).flatten();
        let Some(known) = known else { return Vec::new() };
        let of = |at: &At| match (known.unproven.contains(at), known.said.contains(at)) {
            (true, _) => Some(true),
            (false, said) => said.then_some(false),
        };
        let gone = |holder: &Holder| Some((holder.peer, of(&At { row: holder.row, peer: holder.peer })?));
        placement.holders.iter().filter_map(gone).collect()
    }

    /// All that is known, to be filed.
    pub(crate) fn all(&self) -> Vec<Gone> {
        let all = self.holders.lock();
        let mut left = FILED_MAX;
        let gone = |(segment, holders): (&SegmentId, &Holders)| {
            left = left.checked_sub(holders.said.len() + holders.unproven.len())?;
            let (said, unproven) = (holders.said.iter().copied().collect(), holders.unproven.iter().copied().collect());
            Some(Gone { segment: *segment, said, unproven })
        };
        all.iter().map_while(gone).collect()
    }

    /// What was known when it was filed.
    pub(crate) fn restore(&self, all: &[Gone]) {
        for gone in all {
            self.change(gone.segment, |holders| {
                holders.said.extend(&gone.said);
                holders.unproven.extend(&gone.unproven);
            });
        }
    }

    /// It was placed anew.
    pub(crate) fn placed(&self, id: SegmentId) {
        if self.holders.lock().remove(&id).is_some() {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How often it has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Calls `see` with the placement, without the holders that are known to have nothing.
    pub(crate) fn without<T>(&self, placement: &Placement, see: impl FnOnce(&Placement) -> T) -> T {
        let gone = {
            let all = self.holders.lock();
            // Most volumes lack nothing, and the id of a segment is a hash over its rows.
            let holders = (!all.is_empty()).then(|| all.get(&placement.segment.id())).flatten();
            holders.map(|holders| &holders.said | &holders.unproven)
        };
        match gone {
            None => see(placement),
            Some(gone) => {
                let mut left = placement.clone();
                left.holders.retain(|holder| !gone.contains(&At { row: holder.row, peer: holder.peer }));
                see(&left)
            }
        }
    }

    /// Whether k rows of a segment are with peers in `connected`, as far as is known.
    pub(crate) fn is_readable(&self, placement: &Placement, connected: &BTreeSet<PeerId>) -> bool {
        self.without(placement, |left| super::write::is_readable(left, connected))
    }
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::ShardId;
    use hypernet_core::segment::{Holder, Segment};
    use hypernet_core::time::UnixSeconds;

    use super::*;

    #[test]
    fn what_is_known_to_be_gone_is_not_counted_until_it_is_there_again() {
        let holder = |row: u8| Holder { row, peer: PeerId([row; 32]), until: UnixSeconds(1) };
        let rows = (0..4).map(|row| ShardId([row; 32])).collect();
        let segment = Segment { k: 2, shard_len: 4096, rows };
        let placement = Placement { segment, n: 4, holders: (0..4).map(holder).collect() };
        let (id, connected) = (placement.segment.id(), (0..4).map(|row| PeerId([row; 32])).collect());
        let lacking = Lacking::default();
        assert!(lacking.asked(id, &placement, &[0], &[1, 2]));
        assert!(lacking.is_readable(&placement, &connected));
        assert!(!lacking.asked(id, &placement, &[0], &[1, 2]), "no news");
        // Row 3 did not answer before, and 1 does not now.
        assert!(lacking.asked(id, &placement, &[0, 2], &[3]));
        assert_eq!(lacking.without(&placement, |left| left.holders.len()), 2);
        assert!(lacking.asked(id, &placement, &[], &[0]));
        assert!(!lacking.is_readable(&placement, &connected));
        // Whoever has lied is not believed, also not by who reads it again after a start.
        lacking.placed(id);
        assert!(lacking.audited(id, &placement, (&[0], &[1], &[2])));
        assert!(lacking.asked(id, &placement, &[0, 1, 2, 3], &[]) && !lacking.asked(id, &placement, &[2], &[]));
        let again = Lacking::default();
        again.restore(&lacking.all());
        for lacking in [&lacking, &again] {
            assert_eq!(lacking.without(&placement, |left| left.holders.len()), 3);
            assert_eq!(lacking.unproven(id, &placement, &[1, 2]), [2]);
        }
        assert!(lacking.audited(id, &placement, (&[2], &[], &[])) && lacking.all().is_empty());
        lacking.audited(id, &placement, (&[], &[0, 1], &[2]));
        assert!(!lacking.is_readable(&placement, &connected));
        let changes = lacking.changes();
        lacking.placed(id);
        assert!(lacking.is_readable(&placement, &connected) && lacking.changes() > changes);
    }

    #[test]
    fn what_a_holder_has_lost_says_nothing_of_who_has_got_its_row_since() {
        let holder = |row: u8, peer: u8| Holder { row, peer: PeerId([peer; 32]), until: UnixSeconds(1) };
        let segment = Segment { k: 1, shard_len: 4096, rows: vec![ShardId([0; 32]), ShardId([1; 32])] };
        let before = Placement { segment, n: 2, holders: vec![holder(0, 1), holder(1, 2)] };
        let id = before.segment.id();
        let lacking = Lacking::default();
        let mended = Placement { holders: vec![holder(0, 1), holder(1, 3)], ..before.clone() };
        // Also where it is said late.
        assert!(lacking.asked(id, &before, &[0], &[1]));
        assert_eq!(lacking.without(&before, |left| left.holders.len()), 1);
        assert_eq!(lacking.without(&mended, |left| left.holders.len()), 2);
        assert!(!lacking.asked(id, &mended, &[0, 1], &[]), "and it is as it was with the one before");
        assert_eq!(lacking.without(&before, |left| left.holders.len()), 1);
    }
}
