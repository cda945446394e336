//! Which segments are to be mended, in which order, and by which rows: the decisions of repair, by what is known of peers.
//!
//! It is lazy: whoever reads k rows to make one can as well make several, so a segment is due when it has come down to a
//! threshold above k (see [`crate::durability`]), and is then brought up to the number of rows that it is meant to have. Those
//! that are nearest to their loss come first. Whoever has the index drives it: the agent over its database, `tests/sim` for a
//! year in minutes.
//!
//! Invariant: a row is made anew only in place of one that does not count, and goes to a peer that has none of the segment.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use thiserror::Error;

use crate::durability::Plan;
use crate::erasure::{self, ErasureError};
use crate::id::PeerId;
use crate::node::{PeerView, Presence};
use crate::segment::{Holder, Placement, Segment};

/// Who is there, by what is known of peers.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// Those that are taken to be gone, and for how many milliseconds each is away.
    gone: BTreeMap<PeerId, u64>,
    /// Bytes that each takes who takes some.
    free: BTreeMap<PeerId, u64>,
}

impl Mesh {
    /// As a node sees it.
    pub fn new(views: &[PeerView]) -> Self {
        let gone = views.iter().filter(|view| view.presence == Presence::Gone);
        let gone = gone.map(|view| (view.peer, view.away_for)).collect();
        let takes = |view: &&PeerView| view.connected && !view.blocked && !view.spared;
        let free = |view: &PeerView| view.hello.as_ref().map(|hello| (view.peer, hello.free));
        Self { gone, free: views.iter().filter(takes).filter_map(free).collect() }
    }

    /// The same, but that these peers are to get nothing.
    pub fn sparing(mut self, peers: &BTreeSet<PeerId>) -> Self {
        self.free.retain(|peer, _| !peers.contains(peer));
        self
    }

    /// Whether a peer is taken to be gone for good.
    pub fn is_gone(&self, peer: &PeerId) -> bool {
        self.gone.contains_key(peer)
    }

    /// Who is taken to be gone for good.
    pub fn gone(&self) -> BTreeSet<PeerId> {
        self.gone.keys().copied().collect()
    }

    /// A placement without the holders that are taken to be gone for good.
    pub fn counted(&self, placement: &Placement) -> Placement {
        let mut left = placement.clone();
        left.holders.retain(|holder| !self.gone.contains_key(&holder.peer));
        left
    }
}

/// At how many rows that count a segment is mended. One that was made under another plan may have lost a third of those beyond k.
pub fn threshold(k: u8, n: u8, planned: Option<&Plan>) -> u8 {
    match planned {
        Some(plan) if (plan.k, plan.n) == (k, n) => plan.threshold.clamp(k, n.saturating_sub(1).max(k)),
        _ => n.saturating_sub(n.saturating_sub(k).div_ceil(3)).clamp(k, n.saturating_sub(1).max(k)),
    }
}

/// How a segment stands, by its rows that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Nothing is to be done.
    No,
    /// It is to be mended. It may lose so many rows more and can be read still: those with the fewest come first.
    Mend(u8),
    /// Fewer rows count than it takes to read it: nobody can mend it until a holder comes back.
    Lost,
}

/// How a segment stands of which k rows suffice, n are meant to be held, and so many count.
pub fn due(k: u8, n: u8, counts: u8, planned: Option<&Plan>) -> Due {
    match counts {
        counts if counts < k => Due::Lost,
        counts if counts < n && counts <= threshold(k, n, planned) => Due::Mend(counts - k),
        _ => Due::No,
    }
}

/// What is made to mend a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mending {
    /// The rows that are to be made, at least one.
    pub rows: Vec<u8>,
    /// Who has others of it, and is given none of these.
    pub others: BTreeSet<PeerId>,
}

/// What is to be made of a segment: as many rows as are missing, and as there are peers with room for one that have none of it.
/// None where that is nobody. `placement` has no holders that were found to lack their rows, and those that are gone.
///
/// Most who are away for a week come back, and have their rows still. So rows are made that nobody has, as long as there are
/// some among those that were committed, then those of whoever is away for the longest time.
pub fn mending(placement: &Placement, mesh: &Mesh) -> Option<Mending> {
    let left = mesh.counted(placement);
    let shard_len = u64::from(placement.segment.shard_len);
    let others: BTreeSet<PeerId> = left.holders.iter().map(|holder| holder.peer).collect();
    let room = mesh.free.iter().filter(|(peer, free)| **free >= shard_len && !others.contains(peer)).count();
    let missing = usize::from(placement.n).saturating_sub(left.holders.len()).min(room);
    let held: BTreeMap<u8, PeerId> = placement.holders.iter().map(|holder| (holder.row, holder.peer)).collect();
    let away = |row: &u8| held.get(row).map_or(Some(u64::MAX), |peer| mesh.gone.get(peer).copied());
    let mut rows: Vec<(u64, u8)> =
        (0..placement.segment.rows.len() as u8).filter_map(|row| Some((u64::MAX - away(&row)?, row))).collect();
    rows.sort_unstable();
    rows.truncate(missing);
    let rows: Vec<u8> = rows.into_iter().map(|(_, row)| row).collect();
    (!rows.is_empty()).then_some(Mending { rows, others })
}

/// A placement after rows were made anew: with the new holders, and with those of before whose rows are not among theirs. Who is
/// gone stays in it, and counts when it is there again.
pub fn mended(mut placement: Placement, new: Vec<Holder>) -> Placement {
    let is_new = |holder: &Holder| new.iter().any(|other| other.row == holder.row || other.peer == holder.peer);
    placement.holders.retain(|holder| !is_new(holder));
    placement.holders.extend(new);
    placement.holders.sort_by_key(|holder| holder.row);
    placement
}

/// Why rows could not be made anew.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RemakeError {
    /// The code failed.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// Whoever made the segment has committed to other rows than those of its data.
    #[error("the rows that a segment has are not those of what it commits to")]
    NotCommitted,
}

/// Makes rows anew from the k rows of data, one after the other; each is what the segment commits to.
pub fn remake(segment: &Segment, data: Vec<Bytes>, rows: &[u8]) -> Result<Vec<Bytes>, RemakeError> {
    let data: Vec<(u8, Bytes)> = (0..).zip(data).collect();
    let shards = erasure::remake(usize::from(segment.k), &data, rows)?;
    let is_committed = |(row, shard): (&u8, &Bytes)| {
        segment.rows.get(usize::from(*row)).is_some_and(|id| blake3::hash(shard).as_bytes() == id.as_bytes())
    };
    if rows.iter().zip(&shards).all(is_committed) { Ok(shards) } else { Err(RemakeError::NotCommitted) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durability::Outlook;
    use crate::id::ShardId;
    use crate::time::UnixSeconds;

    fn plan(k: u8, n: u8, threshold: u8) -> Plan {
        Plan { k, n, threshold, ..Outlook::of(60, 0.9).plan().unwrap() }
    }

    fn peer(i: u8) -> PeerId {
        PeerId([i; 32])
    }

    /// 2 of 4, with 6 rows committed; row i is with peer i.
    fn placement() -> (Placement, Vec<Bytes>) {
        let data = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        let parity = erasure::parity(&[&data[0], &data[1]], 6).unwrap();
        let all: Vec<Bytes> = data.into_iter().chain(parity.into_iter().map(Bytes::from)).collect();
        let rows = all.iter().map(|row| ShardId(*blake3::hash(row).as_bytes())).collect();
        let holders = (0..4).map(|row| Holder { row, peer: peer(row), until: UnixSeconds(9) }).collect();
        (Placement { segment: Segment { k: 2, shard_len: 3, rows }, n: 4, holders }, all)
    }

    fn mesh(gone: &[u8], free: &[(u8, u64)]) -> Mesh {
        Mesh {
            gone: gone.iter().map(|i| (peer(*i), u64::from(*i))).collect(),
            free: free.iter().map(|(i, free)| (peer(*i), *free)).collect(),
        }
    }

    #[test]
    fn it_waits_until_some_rows_are_gone_and_never_for_the_last_one() {
        for n in 2..=50 {
            for k in 1..n {
                let of = threshold(k, n, None);
                assert!(of >= k && of < n, "{k} of {n}: {of}");
                assert_eq!(threshold(k, n, Some(&plan(k, n, n))), n - 1);
                assert_eq!(threshold(k, n, Some(&plan(k, n, 0))), k);
                // Of another plan nothing is taken.
                assert_eq!(threshold(k, n, Some(&plan(k, n + 1, 0))), of);
            }
        }
        assert_eq!((threshold(10, 18, None), threshold(20, 50, Some(&plan(20, 50, 41)))), (15, 41));
    }

    #[test]
    fn the_nearest_to_its_loss_comes_first_and_what_is_lost_is_told_apart() {
        let of = |counts| due(20, 50, counts, Some(&plan(20, 50, 41)));
        assert_eq!(
            (of(50), of(42), of(41), of(20), of(19)),
            (Due::No, Due::No, Due::Mend(21), Due::Mend(0), Due::Lost)
        );
        assert!(of(20) < of(41), "it comes first");
        assert_eq!(due(1, 2, 1, None), Due::Mend(0));
        assert_eq!(due(1, 2, 2, None), Due::No);
    }

    #[test]
    fn rows_that_do_not_count_are_made_for_peers_that_have_none_and_room() {
        let (placement, _) = placement();
        let known = mesh(&[1, 3], &[(0, 99), (2, 99), (7, 99), (8, 2)]);
        let left = known.counted(&placement);
        assert_eq!(left.holders.iter().map(|holder| holder.row).collect::<Vec<_>>(), [0, 2]);
        // Rows that nobody has come first, then those of whoever is away the longest; one of the peers has no room.
        let others: BTreeSet<PeerId> = [peer(0), peer(2)].into();
        let of = |rows: &[u8]| Some(Mending { rows: rows.to_vec(), others: others.clone() });
        assert_eq!(mending(&placement, &known), of(&[4]));
        let known = mesh(&[1, 3], &[(0, 99), (6, 9), (7, 99), (8, 3)]);
        assert_eq!(mending(&placement, &known), of(&[4, 5]));
        let mut fewer = placement.clone();
        fewer.segment.rows.truncate(5);
        assert_eq!(mending(&fewer, &known), of(&[4, 3]));
        assert_eq!(mending(&placement, &mesh(&[1, 3], &[(0, 99)])), None);
        assert_eq!(mending(&placement, &mesh(&[], &[(7, 99)])), None);
        // Who was found to lack its row is in it no more, so that one is as good as any.
        fewer.holders.remove(0);
        assert_eq!(mending(&fewer, &mesh(&[], &[(7, 99)])).map(|mending| mending.rows), Some(vec![0]));
    }

    #[test]
    fn who_comes_back_counts_again_beside_those_who_took_its_place() {
        let (placement, _) = placement();
        let new = |row: u8, i: u8| Holder { row, peer: peer(i), until: UnixSeconds(9) };
        let whole = mended(placement.clone(), vec![new(4, 7), new(3, 8)]);
        let who: Vec<(u8, PeerId)> = whole.holders.iter().map(|holder| (holder.row, holder.peer)).collect();
        assert_eq!(who, [(0, peer(0)), (1, peer(1)), (2, peer(2)), (3, peer(8)), (4, peer(7))]);
        assert!(whole.is_sound());
        assert_eq!(mesh(&[1], &[]).counted(&whole).holders.len(), 4);
        assert_eq!(mesh(&[], &[]).counted(&whole).holders.len(), 5);
    }

    #[test]
    fn what_is_made_is_what_was_committed() {
        let (placement, all) = placement();
        let data = || all[..2].to_vec();
        assert_eq!(remake(&placement.segment, data(), &[1, 3, 5]), Ok([1, 3, 5].map(|i| all[i].clone()).to_vec()));
        let mut other = placement.segment.clone();
        other.rows[5] = ShardId([0; 32]);
        assert_eq!(remake(&other, data(), &[5]), Err(RemakeError::NotCommitted));
        assert_eq!(remake(&placement.segment, data(), &[6]), Err(RemakeError::NotCommitted));
        assert!(matches!(remake(&placement.segment, all[..1].to_vec(), &[1]), Err(RemakeError::Erasure(_))));
    }
}
