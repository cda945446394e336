//! What holders that were asked said they do not have any more of what they acknowledged, or have spoiled.
//!
//! The index says who took a shard. A check (`hn fsck --verify`) or a sync that asked finds out who still has it, and what
//! was found out is not forgotten while the agent runs: it is what health is told by, and what a sync may not rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use hypernet_core::id::{PeerId, SegmentId};
use hypernet_core::segment::Placement;
use parking_lot::Mutex;

/// Rows that are gone, by segment.
#[derive(Debug, Default)]
pub(crate) struct Lacking {
    rows: Mutex<BTreeMap<SegmentId, BTreeSet<u8>>>,
    changes: AtomicU64,
}

impl Lacking {
    /// Holders of a segment were asked: these rows are there, and these are not. Whether that is news.
    pub(crate) fn asked(&self, id: SegmentId, held: &[u8], missing: &[u8]) -> bool {
        let mut all = self.rows.lock();
        let before = all.remove(&id).unwrap_or_default();
        let mut rows = before.clone();
        rows.retain(|row| !held.contains(row));
        rows.extend(missing);
        let is_news = rows != before;
        if !rows.is_empty() {
            all.insert(id, rows);
        }
        if is_news {
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
        is_news
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
            (!all.is_empty()).then(|| all.get(&placement.segment.id()).cloned()).flatten()
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
        let changes = lacking.changes();
        lacking.placed(id);
        assert!(lacking.is_readable(&placement, &connected) && lacking.changes() > changes);
    }
}
