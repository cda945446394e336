//! What holders that were asked said they do not have any more of what they acknowledged, or have spoiled.
//!
//! The index says who took a shard. A check (`hn fsck --verify`), a sync that asked or an audit finds out who still has it, and what
//! was found out is not forgotten: it is what health is told by, and what a sync may not rely on. Of whoever was asked to
//! prove it and could not, the word is worth nothing any more: that stands until they do, or the segment is placed anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use hypernet_core::id::{PeerId, SegmentId};
use hypernet_core::segment::Placement;
use parking_lot::Mutex;

use super::audit::Gone;

/// Segments of which it is filed what they lack: others are audited again.
const FILED_MAX: usize = 32_768;

/// Rows of a segment that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rows {
    /// As their holders say.
    said: BTreeSet<u8>,
    /// Whatever these say.
    unproven: BTreeSet<u8>,
}

/// Rows that are gone, by segment.
#[derive(Debug, Default)]
pub(crate) struct Lacking {
    rows: Mutex<BTreeMap<SegmentId, Rows>>,
    changes: AtomicU64,
}

impl Lacking {
    /// Holders of a segment were asked: these rows are there, and these are not. Whether that is news.
    pub(crate) fn asked(&self, id: SegmentId, held: &[u8], missing: &[u8]) -> bool {
        self.change(id, |rows| {
            rows.said.retain(|row| !held.contains(row));
            rows.said.extend(missing);
        })
    }

    /// Holders of a segment were to prove that they have these rows: some have, some say that they cannot, and some lied. Whether
    /// that is news.
    pub(crate) fn audited(&self, id: SegmentId, passed: &[u8], missing: &[u8], lied: &[u8]) -> bool {
        self.change(id, |rows| {
            rows.said.retain(|row| !passed.contains(row));
            rows.unproven.retain(|row| !passed.contains(row));
            rows.said.extend(missing);
            rows.unproven.extend(lied);
        })
    }

    fn change(&self, id: SegmentId, change: impl FnOnce(&mut Rows)) -> bool {
        let mut all = self.rows.lock();
        let before = all.remove(&id).unwrap_or_default();
        let mut rows = before.clone();
        change(&mut rows);
        let is_news = rows != before;
        if rows != Rows::default() {
            all.insert(id, rows);
        }
        if is_news {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        is_news
    }

    /// Of rows that their holders say they have those of which they could not prove it.
    pub(crate) fn unproven(&self, id: SegmentId, held: &[u8]) -> Vec<u8> {
        let all = self.rows.lock();
        let of = |rows: &Rows| held.iter().copied().filter(|row| rows.unproven.contains(row)).collect();
        all.get(&id).map(of).unwrap_or_default()
    }

    /// Whose rows of a segment are gone, and whether they could not prove that they have them, or say so themselves.
    pub(crate) fn gone(&self, placement: &Placement) -> Vec<(PeerId, bool)> {
        let all = self.rows.lock();
        let rows = (!all.is_empty()).then(|| all.get(&placement.segment.id())).flatten();
        let Some(rows) = rows else { return Vec::new() };
        let of = |row: u8| match (rows.unproven.contains(&row), rows.said.contains(&row)) {
            (true, _) => Some(true),
            (false, said) => said.then_some(false),
        };
        placement.holders.iter().filter_map(|holder| Some((holder.peer, of(holder.row)?))).collect()
    }

    /// All that is known, to be filed.
    pub(crate) fn all(&self) -> Vec<Gone> {
        let all = self.rows.lock();
        let gone = |(segment, rows): (&SegmentId, &Rows)| Gone {
            segment: *segment,
            said: rows.said.iter().copied().collect(),
            unproven: rows.unproven.iter().copied().collect(),
        };
        all.iter().take(FILED_MAX).map(gone).collect()
    }

    /// What was known when it was filed.
    pub(crate) fn restore(&self, all: &[Gone]) {
        for gone in all {
            self.audited(gone.segment, &[], &gone.said, &gone.unproven);
        }
    }

    /// It was placed anew.
    pub(crate) fn placed(&self, id: SegmentId) {
        if self.rows.lock().remove(&id).is_some() {
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
            let all = self.rows.lock();
            // Most volumes lack nothing, and the id of a segment is a hash over its rows.
            let rows = (!all.is_empty()).then(|| all.get(&placement.segment.id())).flatten();
            rows.map(|rows| &rows.said | &rows.unproven)
        };
        match gone {
            None => see(placement),
            Some(gone) => {
                let mut left = placement.clone();
                left.holders.retain(|holder| !gone.contains(&holder.row));
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
        assert!(lacking.asked(id, &[0], &[1, 2]));
        assert!(lacking.is_readable(&placement, &connected));
        assert!(!lacking.asked(id, &[0], &[1, 2]), "no news");
        // Row 3 did not answer before, and 1 does not now.
        assert!(lacking.asked(id, &[0, 2], &[3]));
        assert_eq!(lacking.without(&placement, |left| left.holders.len()), 2);
        assert!(lacking.asked(id, &[], &[0]));
        assert!(!lacking.is_readable(&placement, &connected));
        // Whoever has lied is not believed, also not by who reads it again after a start.
        lacking.placed(id);
        assert!(lacking.audited(id, &[0], &[1], &[2]));
        assert!(lacking.asked(id, &[0, 1, 2, 3], &[]) && !lacking.asked(id, &[2], &[]));
        let again = Lacking::default();
        again.restore(&lacking.all());
        for lacking in [&lacking, &again] {
            assert_eq!(lacking.without(&placement, |left| left.holders.len()), 3);
            assert_eq!(lacking.unproven(id, &[1, 2]), [2]);
        }
        assert!(lacking.audited(id, &[2], &[], &[]) && lacking.all().is_empty());
        lacking.audited(id, &[], &[0, 1], &[2]);
        assert!(!lacking.is_readable(&placement, &connected));
        let changes = lacking.changes();
        lacking.placed(id);
        assert!(lacking.is_readable(&placement, &connected) && lacking.changes() > changes);
    }
}
