//! Which segments are to be mended, in which order, and by which rows: the decisions of repair, by what is known of peers.
//!
//! It is lazy: whoever reads k rows to make one can as well make several, so a segment is due when it has come down to a
//! threshold above k (see [`crate::durability`]), and is then brought up to the number of rows that it is meant to have. Those
//! that are nearest to their loss come first. Whoever has the index drives it: the agent over its database, `tests/sim` for a
//! year in minutes.
//!
//! Whoever has said that it stops storing for others has its rows still, and they count no more: each is moved, not only when a
//! threshold is reached, and without reading k rows for it, as its holder hands it over.
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
    /// Those that stop storing for others, and are not gone.
    leaving: BTreeSet<PeerId>,
    /// Bytes that each takes who takes some.
    free: BTreeMap<PeerId, u64>,
    /// Those that store for others, or may, as far as is known, and stay: also those that are not there now.
    donors: BTreeSet<PeerId>,
}

impl Mesh {
    /// As a node sees it.
    pub fn new(views: &[PeerView]) -> Self {
        let gone = views.iter().filter(|view| view.presence == Presence::Gone);
        let gone = gone.map(|view| (view.peer, view.away_for)).collect();
        let leaving = views.iter().filter(|view| view.leaving && view.presence != Presence::Gone);
        let leaving = leaving.map(|view| view.peer).collect();
        let takes = |view: &&PeerView| view.connected && !view.blocked && !view.spared && !view.leaving;
        let free = |view: &PeerView| view.hello.as_ref().map(|hello| (view.peer, hello.free));
        let is_donor = |view: &&PeerView| {
            let may_be = view.hello.as_ref().is_none_or(|hello| hello.donated > 0);
            may_be && view.presence != Presence::Gone && !view.spared && !view.leaving
        };
        let donors = views.iter().filter(is_donor).map(|view| view.peer).collect();
        Self { gone, leaving, free: views.iter().filter(takes).filter_map(free).collect(), donors }
    }

    /// The same, but that this peer, if any, stops storing for others, too: a node has no view of itself.
    pub fn with_leaving(mut self, peer: Option<PeerId>) -> Self {
        self.leaving.extend(peer);
        self
    }

    /// The same, but that these peers are to get nothing.
    pub fn sparing(mut self, peers: &BTreeSet<PeerId>) -> Self {
        self.free.retain(|peer, _| !peers.contains(peer));
        self.donors.retain(|peer| !peers.contains(peer));
        self
    }

    /// Whether a peer is taken to be gone for good.
    pub fn is_gone(&self, peer: &PeerId) -> bool {
        self.gone.contains_key(peer)
    }

    /// Whether a peer stops storing for others, and may hand over what it has.
    pub fn is_leaving(&self, peer: &PeerId) -> bool {
        self.leaving.contains(peer)
    }

    /// Who stops storing for others.
    pub fn leaving(&self) -> &BTreeSet<PeerId> {
        &self.leaving
    }

    /// Whose rows do not count: who is taken to be gone for good, and who stops storing for others.
    pub fn uncounted(&self) -> BTreeSet<PeerId> {
        self.gone.keys().chain(&self.leaving).copied().collect()
    }

    /// A placement without the holders whose rows do not count.
    pub fn counted(&self, placement: &Placement) -> Placement {
        let mut left = placement.clone();
        left.holders.retain(|holder| !self.gone.contains_key(&holder.peer) && !self.leaving.contains(&holder.peer));
        left
    }

    /// A placement without the holders that nothing can be read from: those that stop storing for others are among its holders.
    pub fn readable(&self, placement: &Placement) -> Placement {
        let mut left = placement.clone();
        left.holders.retain(|holder| !self.gone.contains_key(&holder.peer));
        left
    }

    /// Rows of a placement that are with nobody but peers that stop storing for others.
    pub fn rows_leaving(&self, placement: &Placement) -> BTreeSet<u8> {
        if self.leaving.is_empty() {
            return BTreeSet::new();
        }
        let kept: BTreeSet<u8> = self.counted(placement).holders.iter().map(|holder| holder.row).collect();
        let of = placement.holders.iter().filter(|holder| self.is_leaving(&holder.peer) && !kept.contains(&holder.row));
        of.map(|holder| holder.row).collect()
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
    /// Some of its rows are with peers that stop storing for others: those are to be moved. It may lose so many of the others.
    Move(u8),
    /// Fewer rows count than it takes to read it: nobody can mend it until a holder comes back.
    Lost,
}

/// How a segment stands of which k rows suffice, n are meant to be held, so many count, and so many more are with peers that stop
/// storing for others.
pub fn due(k: u8, n: u8, counts: u8, leaving: u8, planned: Option<&Plan>) -> Due {
    match counts {
        counts if counts.saturating_add(leaving) < k => Due::Lost,
        counts if counts < n && counts <= threshold(k, n, planned) => Due::Mend(counts.saturating_sub(k)),
        _ if leaving > 0 => Due::Move(counts.saturating_sub(k)),
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
    /// Who may hand over which of the rows, so that it need not be made.
    pub from: BTreeMap<u8, PeerId>,
}

/// What is to be made of a segment: as many rows as are missing, and as there are peers with room for one that have none of it.
/// None where that is nobody. `placement` has no holders that were found to lack their rows, and those that are gone.
///
/// Most who are away for a week come back, and have their rows still. So of whoever stops storing for others its rows are placed
/// first, then those are made that nobody has, as long as there are some among those that were committed, then those of whoever is
/// away for the longest time.
pub fn mending(placement: &Placement, mesh: &Mesh) -> Option<Mending> {
    place(placement, mesh, false)
}

/// The same, but of a segment that is not due otherwise: only what is with peers that stop storing for others.
pub fn moving(placement: &Placement, mesh: &Mesh) -> Option<Mending> {
    place(placement, mesh, true)
}

fn place(placement: &Placement, mesh: &Mesh, only_leaving: bool) -> Option<Mending> {
    let left = mesh.counted(placement);
    let shard_len = u64::from(placement.segment.shard_len);
    let leaving = mesh.rows_leaving(placement);
    let others: BTreeSet<PeerId> = left.holders.iter().map(|holder| holder.peer).collect();
    let room = mesh.free.iter().filter(|(peer, free)| **free >= shard_len && !others.contains(peer)).count();
    let missing = usize::from(placement.n).saturating_sub(left.holders.len()).min(room);
    let held: BTreeMap<u8, PeerId> = placement.holders.iter().map(|holder| (holder.row, holder.peer)).collect();
    let away = |row: &u8| held.get(row).map_or(Some(u64::MAX), |peer| mesh.gone.get(peer).copied());
    let turn = |row: u8| match leaving.contains(&row) {
        true => Some((false, 0, row)),
        false if only_leaving => None,
        false => Some((true, u64::MAX - away(&row)?, row)),
    };
    let mut rows: Vec<_> = (0..placement.segment.rows.len() as u8).filter_map(turn).collect();
    rows.sort_unstable();
    rows.truncate(missing);
    let rows: Vec<u8> = rows.into_iter().map(|(.., row)| row).collect();
    let from = placement.holders.iter().filter(|holder| leaving.contains(&holder.row) && mesh.is_leaving(&holder.peer));
    let from = from.map(|holder| (holder.row, holder.peer)).filter(|(row, _)| rows.contains(row)).collect();
    (!rows.is_empty()).then_some(Mending { rows, others, from })
}

/// A placement without the holders that stop storing for others, where as many as are meant to be hold rows beside them; none where
/// there is nothing to let go of.
pub fn released(placement: &Placement, mesh: &Mesh) -> Option<Placement> {
    let counted = mesh.counted(placement);
    let rows: BTreeSet<u8> = counted.holders.iter().map(|holder| holder.row).collect();
    let mut left = placement.clone();
    // Of a row that two have, the one that stays has it.
    let is_spare = |holder: &Holder| rows.len() >= usize::from(placement.n) || rows.contains(&holder.row);
    left.holders.retain(|holder| !mesh.is_leaving(&holder.peer) || !is_spare(holder));
    (left.holders.len() < placement.holders.len()).then_some(left)
}

/// Whether every donor that stays has a row of a segment already: none could take that of one that stops, however much room it has.
pub fn is_with_all(placement: &Placement, mesh: &Mesh) -> bool {
    let holders: BTreeSet<PeerId> = mesh.counted(placement).holders.iter().map(|holder| holder.peer).collect();
    mesh.donors.is_subset(&holders)
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
            leaving: BTreeSet::new(),
            free: free.iter().map(|(i, free)| (peer(*i), *free)).collect(),
            donors: free.iter().map(|(i, _)| peer(*i)).collect(),
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
        let of = |counts| due(20, 50, counts, 0, Some(&plan(20, 50, 41)));
        assert_eq!(
            (of(50), of(42), of(41), of(20), of(19)),
            (Due::No, Due::No, Due::Mend(21), Due::Mend(0), Due::Lost)
        );
        assert!(of(20) < of(41), "it comes first");
        assert_eq!(due(1, 2, 1, 0, None), Due::Mend(0));
        assert_eq!(due(1, 2, 2, 0, None), Due::No);
    }

    #[test]
    fn rows_that_do_not_count_are_made_for_peers_that_have_none_and_room() {
        let (placement, _) = placement();
        let known = mesh(&[1, 3], &[(0, 99), (2, 99), (7, 99), (8, 2)]);
        let left = known.counted(&placement);
        assert_eq!(left.holders.iter().map(|holder| holder.row).collect::<Vec<_>>(), [0, 2]);
        // Rows that nobody has come first, then those of whoever is away the longest; one of the peers has no room.
        let others: BTreeSet<PeerId> = [peer(0), peer(2)].into();
        let of = |rows: &[u8]| Some(Mending { rows: rows.to_vec(), others: others.clone(), from: BTreeMap::new() });
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
    fn what_is_with_peers_that_leave_is_moved_and_does_not_count() {
        let of = |counts, leaving| due(20, 50, counts, leaving, Some(&plan(20, 50, 41)));
        assert_eq!(
            (of(49, 1), of(50, 1), of(42, 0), of(41, 2)),
            (Due::Move(29), Due::Move(30), Due::No, Due::Mend(21))
        );
        // As long as they are there it is not lost.
        assert_eq!((of(0, 20), of(5, 14), of(5, 15)), (Due::Mend(0), Due::Lost, Due::Mend(0)));
        assert!(of(20, 1) < of(49, 1), "what is near to its loss comes first");

        let (placement, _) = placement();
        let leaves = |gone: &[u8], leaving: &[u8], free: &[(u8, u64)]| Mesh {
            leaving: leaving.iter().map(|i| peer(*i)).collect(),
            ..mesh(gone, free)
        };
        let known = leaves(&[3], &[1, 2], &[(6, 9), (7, 9), (8, 9)]);
        assert_eq!(known.counted(&placement).holders.len(), 1);
        assert_eq!(known.readable(&placement).holders.len(), 3);
        let from = |rows: &[u8]| rows.iter().map(|row| (*row, peer(*row))).collect::<BTreeMap<u8, PeerId>>();
        let others: BTreeSet<PeerId> = [peer(0)].into();
        let all = Mending { rows: vec![1, 2, 4], others: others.clone(), from: from(&[1, 2]) };
        assert_eq!(mending(&placement, &known), Some(all));
        let moved = Mending { rows: vec![1, 2], others, from: from(&[1, 2]) };
        assert_eq!(moving(&placement, &known), Some(moved));
        // With room for one of them the other stays where it is.
        let known = leaves(&[], &[1, 2], &[(6, 9)]);
        assert_eq!(moving(&placement, &known).map(|moving| moving.rows), Some(vec![1]));
        assert_eq!(moving(&placement, &leaves(&[], &[1], &[(6, 2), (0, 9)])), None, "nobody has room");
        assert_eq!(moving(&placement, &leaves(&[], &[], &[(6, 9)])), None, "nobody leaves");
    }

    #[test]
    fn a_peer_that_leaves_is_let_go_of_when_as_many_others_hold_rows() {
        let (mut placement, _) = placement();
        let known = Mesh { leaving: [peer(1), peer(2)].into(), ..mesh(&[], &[]) };
        assert_eq!(released(&placement, &known), None);
        let new = |row: u8, i: u8| Holder { row, peer: peer(i), until: UnixSeconds(9) };
        // Two devices have moved the same row: it is with the one that stays, and the other row is needed still.
        placement.holders.push(new(1, 7));
        let left = released(&placement, &known).unwrap();
        let who: Vec<(u8, PeerId)> = left.holders.iter().map(|holder| (holder.row, holder.peer)).collect();
        assert_eq!(who, [(0, peer(0)), (2, peer(2)), (3, peer(3)), (1, peer(7))]);
        // A row that nobody had stands for the other one.
        placement.holders.push(new(4, 8));
        assert_eq!(released(&placement, &known).unwrap().holders.len(), 4);
        assert_eq!(released(&placement, &mesh(&[], &[])), None);
    }

    #[test]
    fn a_segment_is_with_all_where_no_donor_that_stays_is_without_a_row() {
        let (placement, _) = placement();
        let of = |free: &[(u8, u64)]| is_with_all(&placement, &Mesh { leaving: [peer(1)].into(), ..mesh(&[], free) });
        // One that is full may have room later.
        assert_eq!((of(&[(0, 9), (2, 9), (3, 9)]), of(&[(0, 9), (2, 9), (3, 9), (7, 0)])), (true, false));
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
