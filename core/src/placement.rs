//! How many shards, and on whom.
//!
//! The plan takes the smallest n at which a segment is readable with the target probability when each holder is
//! online independently with the availability that was measured: the binomial tail P(X >= k), X ~ B(n, p). With
//! fewer peers than that it shrinks and says what it risks.

use crate::id::{PeerId, SegmentId};
use crate::limits::ROWS_MAX;

/// Rows of data when there are peers enough.
pub const K_PREFERRED: u8 = 10;
/// The probability that a segment is readable at any moment that plans aim at.
pub const TARGET: f64 = 0.9999;
/// What is assumed of a peer until it was measured: Beta(19, 1), a mean of 0.95.
pub const PRIOR_ONLINE: f64 = 19.0;
/// See [`PRIOR_ONLINE`].
pub const PRIOR_OFFLINE: f64 = 1.0;
/// The most that is stored per byte: what half-present peers need (10 of 43).
pub const OVERHEAD_MAX: f64 = 4.5;

/// How a segment is coded and placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Rows that suffice.
    pub k: u8,
    /// Rows that are placed, each on a peer of its own.
    pub n: u8,
    /// Rows whose hashes are committed, so that repair can add some.
    pub committed: u8,
    /// Probability that a segment is readable at any moment.
    pub readable: f64,
    /// Whether that meets the target.
    pub meets_target: bool,
    /// The availability of a peer that it was made for.
    pub availability: f64,
}

impl Plan {
    fn of(k: u8, n: u8, committed: u8, availability: f64) -> Self {
        let readable = readable(k, n, availability);
        Self { k, n, committed, readable, meets_target: readable >= TARGET, availability }
    }

    /// The plan for something that is as readable and has no more than `most` rows in all: rows that are dearer than
    /// bytes, because something small lists them. Fewer rows take fewer of data, so it costs more than a byte for each.
    /// None are committed beyond the placed ones.
    pub fn within(self, most: u8) -> Self {
        if self.n <= most {
            return Self { committed: self.n, ..self };
        }
        let goal = self.readable.min(TARGET);
        let mut all = (2..=self.k).rev().map(|k| Self::of(k, most, most, self.availability));
        let smallest = Self::of(self.k.min(2), most, most, self.availability);
        all.find(|plan| plan.readable >= goal).unwrap_or(smallest)
    }
}

/// P(X >= k) for X ~ B(n, p), by summing the tail that is shorter.
pub fn readable(k: u8, n: u8, p: f64) -> f64 {
    if k > n {
        return 0.0;
    }
    let (n, k) = (u32::from(n), u32::from(k));
    // P(X < k) is the small tail in every case that matters, and sums without cancellation.
    let q = 1.0 - p;
    let mut term = 1.0;
    for _ in 0..n {
        term *= q;
    }
    let mut below = 0.0;
    for i in 0..k {
        below += term;
        term = if q > 0.0 { term * f64::from(n - i) / f64::from(i + 1) * p / q } else { 0.0 };
    }
    (1.0 - below).clamp(0.0, 1.0)
}

/// The plan for `peers` donors of this availability; `None` with fewer than two, because nothing can be coded.
pub fn plan(peers: usize, availability: f64) -> Option<Plan> {
    if peers < 2 {
        return None;
    }
    let most = (f64::from(K_PREFERRED) * OVERHEAD_MAX) as usize;
    let peers = peers.min(most) as u8;
    let make = |k: u8, n: u8| {
        let committed = (usize::from(n) + usize::from(n - k).div_ceil(2)).min(ROWS_MAX) as u8;
        Plan::of(k, n, committed, availability)
    };
    // Enough peers: the preferred k, and the smallest n that meets the target.
    for n in K_PREFERRED + 1..=peers {
        let plan = make(K_PREFERRED, n);
        if plan.meets_target {
            return Some(plan);
        }
    }
    // Too few: a shard on every peer, and the largest k that meets the target, or the smallest that is affordable.
    // With k = 1 all shards are equal, and holders that compare notes can link them: only two peers leave no choice.
    let smallest = (f64::from(peers) / OVERHEAD_MAX).ceil().max(if peers > 2 { 2.0 } else { 1.0 }) as u8;
    let largest = (peers - 1).min(K_PREFERRED);
    (smallest..=largest)
        .rev()
        .map(|k| make(k, peers))
        .find(|plan| plan.meets_target)
        .or(Some(make(smallest.min(largest), peers)))
}

/// A peer that may take a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which peer.
    pub peer: PeerId,
    /// Bytes it still takes.
    pub free: u64,
    /// Whether it has kept what it took, as far as one knows.
    pub trusted: bool,
}

/// The order in which the peers are asked to hold rows of a segment: rendezvous hashing (Thaler and Ravishankar,
/// 1998), so that it depends on the segment and the peers and on nothing else; peers short of room come last, and after
/// them those that are not trusted.
pub fn order(segment: &SegmentId, shard_len: u64, candidates: &[Candidate]) -> Vec<PeerId> {
    const ROOMY: u64 = 64;
    let mut scored: Vec<(bool, bool, [u8; 32], PeerId)> = candidates
        .iter()
        .filter(|candidate| candidate.free >= shard_len)
        .map(|candidate| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(segment.as_bytes());
            hasher.update(candidate.peer.as_bytes());
            let short = candidate.free < shard_len.saturating_mul(ROOMY);
            (!candidate.trusted, short, *hasher.finalize().as_bytes(), candidate.peer)
        })
        .collect();
    scored.sort();
    scored.into_iter().map(|(_, _, _, peer)| peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_matches_what_the_design_names() {
        assert!(readable(10, 18, 0.9) >= TARGET && readable(10, 17, 0.9) < TARGET);
        assert!(readable(10, 25, 0.75) >= TARGET && readable(10, 24, 0.75) < TARGET);
        assert!(readable(10, 43, 0.5) >= TARGET && readable(10, 41, 0.5) < TARGET);
        assert_eq!(readable(3, 2, 0.9), 0.0);
        assert_eq!(readable(1, 5, 1.0), 1.0);
    }

    #[test]
    fn plans_shrink_with_the_mesh() {
        assert_eq!(plan(0, 0.9), None);
        assert_eq!(plan(1, 0.9), None);
        for peers in 2..60 {
            for availability in [0.5, 0.75, 0.9, 0.95, 0.99, 1.0] {
                let plan = plan(peers, availability).unwrap();
                assert!(plan.k >= 1 && plan.k < plan.n && usize::from(plan.n) <= peers, "{peers} {plan:?}");
                assert!(plan.committed >= plan.n);
                assert!(plan.k > 1 || peers == 2, "equal shards: {peers} {plan:?}");
                assert!(f64::from(plan.n) <= f64::from(plan.k) * OVERHEAD_MAX + 1.0, "{peers} {plan:?}");
            }
        }
        let ten = plan(10, 0.95).unwrap();
        assert_eq!((ten.k, ten.n), (6, 10));
        assert!(ten.meets_target);
        let many = plan(100, 0.9).unwrap();
        assert_eq!((many.k, many.n), (10, 18));
        assert!(!plan(3, 0.9).unwrap().meets_target);
    }

    #[test]
    fn fewer_rows_are_as_readable() {
        for peers in 2..80 {
            for availability in (0..=100).map(|percent| f64::from(percent) / 100.0) {
                let plan = plan(peers, availability).unwrap();
                for most in [20, 25, 30, 45] {
                    let within = plan.within(most);
                    assert!(within.k >= 1 && within.k < within.n && within.n <= plan.n.min(most), "{within:?}");
                    assert_eq!(within.committed, within.n);
                    assert!(most < 25 || within.readable >= plan.readable.min(TARGET), "{plan:?} {within:?}");
                    assert!(within.k > 1 || peers == 2, "equal shards: {peers} {within:?}");
                    assert_eq!(within.n, plan.n.min(most));
                }
            }
        }
    }

    #[test]
    fn every_peer_gets_its_share() {
        let candidates: Vec<Candidate> =
            (0..20).map(|i| Candidate { peer: PeerId([i; 32]), free: 1 << 40, trusted: true }).collect();
        let mut first = [0u32; 20];
        for i in 0..2000u32 {
            let segment = SegmentId(*blake3::hash(&i.to_be_bytes()).as_bytes());
            let order = order(&segment, 1, &candidates);
            assert_eq!(order.len(), 20);
            for peer in &order[..5] {
                first[usize::from(peer.0[0])] += 1;
            }
        }
        assert!(first.iter().all(|count| (350..650).contains(count)), "{first:?}");
    }

    #[test]
    fn the_full_are_left_out_and_the_nearly_full_and_then_the_untrusted_come_last() {
        let peer = |i| PeerId([i; 32]);
        let candidates = [
            Candidate { peer: peer(1), free: 9, trusted: true },
            Candidate { peer: peer(2), free: 11, trusted: true },
            Candidate { peer: peer(3), free: 1 << 30, trusted: true },
            Candidate { peer: peer(4), free: 1 << 30, trusted: false },
        ];
        assert_eq!(order(&SegmentId([0; 32]), 10, &candidates), [peer(3), peer(2), peer(4)]);
    }
}
