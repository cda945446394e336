//! On whom the shards of a segment lie. How many there are is computed in [`crate::durability`].

use crate::durability::Outlook;
pub use crate::durability::{K_PREFERRED, Plan};
use crate::id::{PeerId, SegmentId};

/// What is assumed of a peer until it was measured: Beta(19, 1), a mean of 0.95.
pub const PRIOR_ONLINE: f64 = 19.0;
/// See [`PRIOR_ONLINE`].
pub const PRIOR_OFFLINE: f64 = 1.0;
/// The plan for `peers` donors of this availability, of which nothing else is known; `None` with fewer than two.
pub fn plan(peers: usize, availability: f64) -> Option<Plan> {
    Outlook::of(peers, availability).plan()
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
