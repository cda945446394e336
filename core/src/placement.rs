//! On whom the shards of a segment lie. How many there are is computed in [`crate::durability`].
//!
//! Every segment has an order of all peers of its own: rendezvous hashing (Thaler and Ravishankar, 1998), in the
//! weighted form (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005; the logarithm is from
//! Resch, "New hashing algorithms for data storage", 2015). A peer has the number u in (0, 1], a hash of it and the
//! segment, and comes the earlier the greater -w / ln u is: it is the first with a probability in proportion to its
//! weight w, and one that comes or goes moves nobody else. The weight is the room that it has, but no more than so many
//! times what others have, since that is only its own word; times how well it has behaved, which was measured.
//!
//! That order then gives way to what fails together. Peers of one subnet may be one machine, and go together: each
//! further one of a subnet comes after all that are the first of theirs. So it is with peers of one operator, where the
//! agent knows whose they are; and no more than m of these come before others, so that a segment outlives an operator who
//! leaves, or lies. Young peers may be one machine under many
//! names: no more than m = n - k of them, which may all be lost at once, come before others that are not young, where
//! there are k of those.

use std::collections::BTreeMap;

use crate::durability::Outlook;
pub use crate::durability::{K_PREFERRED, Plan};
use crate::id::{IdentityId, PeerId, SegmentId};

/// A peer has room when so many shards fit.
const ROOMY: u64 = 64;
/// The room that a peer says it has counts for at most so many times that of the middle one.
const ROOM_MOST: u64 = 8;
/// However badly a peer has behaved, it is not left out where it is needed.
const QUALITY_LEAST: f64 = 0.01;

/// The plan for `peers` donors of this availability, of which nothing else is known; `None` with fewer than two.
pub fn plan(peers: usize, availability: f64) -> Option<Plan> {
    Outlook::of(peers, availability).plan()
}

/// Addresses that are likely one operator's: the first 24 bits of IPv4, the first 48 of IPv6, which are what a customer
/// of a network is given at most as a rule. Local networks are none: whoever is found there is somebody's own machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet([u8; 7]);

impl Subnet {
    /// Of an IPv4 address; none of one that is not public.
    pub fn v4(address: [u8; 4]) -> Option<Self> {
        let [a, b, c, _] = address;
        // This host, private and shared networks, loopback, link-local; multicast and what is reserved.
        let local = matches!(
            (a, b),
            (0 | 10 | 127, _) | (100, 64..=127) | (169, 254) | (172, 16..=31) | (192, 168) | (224..=255, _)
        );
        (!local).then_some(Self([4, a, b, c, 0, 0, 0]))
    }

    /// Of an IPv6 address; none of one that is not public. One that stands for an IPv4 address is that.
    pub fn v6(address: [u8; 16]) -> Option<Self> {
        let [a, b, c, d, e, f, rest @ ..] = address;
        if [a, b, c, d, e, f] == [0; 6] && rest[..6] == [0, 0, 0, 0, 0xff, 0xff] {
            return Self::v4([rest[6], rest[7], rest[8], rest[9]]);
        }
        // Global addresses begin with 001.
        (a >> 5 == 1).then_some(Self([6, a, b, c, d, e, f]))
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [4, a, b, c, ..] => write!(to, "{a}.{b}.{c}.0/24"),
            [_, a, b, c, d, e, f] => write!(to, "{a:02x}{b:02x}:{c:02x}{d:02x}:{e:02x}{f:02x}::/48"),
        }
    }
}

/// A peer that may take a shard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which peer.
    pub peer: PeerId,
    /// Bytes it still takes.
    pub free: u64,
    /// Whether it has kept what it took, as far as one knows.
    pub trusted: bool,
    /// Whether it is known for too short a time for much to be entrusted to it and others like it.
    pub young: bool,
    /// How well it has behaved, from 0 to 1.
    pub quality: f64,
    /// Where it is; none where that says nothing.
    pub subnet: Option<Subnet>,
    /// Whose it is; none of an unknown one.
    pub operator: Option<IdentityId>,
}

impl Candidate {
    /// One of which nothing speaks for or against it.
    pub fn new(peer: PeerId, free: u64) -> Self {
        Self { peer, free, trusted: true, young: false, quality: 1.0, subnet: None, operator: None }
    }
}

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Of which segment.
    pub segment: &'a SegmentId,
    /// Bytes of a shard.
    pub shard_len: u64,
    /// Rows that suffice.
    pub k: u8,
    /// Rows that are to be placed, in all.
    pub n: u8,
}

/// Who has taken rows of a segment: how many of each subnet and of each operator, and how many young ones.
#[derive(Default)]
struct Taken {
    subnets: BTreeMap<Subnet, usize>,
    operators: BTreeMap<IdentityId, usize>,
    young: usize,
}

/// How many of a subnet, and of an operator, came before one.
struct Before {
    of_subnet: usize,
    of_operator: usize,
}

impl Taken {
    /// One more.
    fn add(&mut self, candidate: &Candidate) -> Before {
        self.young += usize::from(candidate.young);
        Before {
            of_subnet: candidate.subnet.map_or(0, |subnet| one_more(&mut self.subnets, subnet)),
            of_operator: candidate.operator.map_or(0, |operator| one_more(&mut self.operators, operator)),
        }
    }
}

/// Counts one more, and says how many there were before.
fn one_more<K: Ord>(counts: &mut BTreeMap<K, usize>, of: K) -> usize {
    let count = counts.entry(of).or_default();
    *count += 1;
    *count - 1
}

/// The weighted rendezvous number of a candidate: the greatest comes first.
fn score(segment: &SegmentId, candidate: &Candidate, room_most: u64) -> f64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(segment.as_bytes());
    hasher.update(candidate.peer.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    // Above 0, and below 1: of 52 bits and a half, so that neither is rounded to.
    let u = 1.0 - ((u64::from_be_bytes(bytes) >> 12) as f64 + 0.5) / (1u64 << 52) as f64;
    let weight = candidate.free.clamp(1, room_most) as f64 * candidate.quality.clamp(QUALITY_LEAST, 1.0);
    -weight / u.ln()
}

/// The order in which `candidates` are asked to hold rows of a segment, when those in `holding` have some already: it
/// depends on the segment, on them and on nothing else. Peers short of room come late, further young ones and further ones of
/// an operator than may be later, and those that are not trusted last; each one more of a subnet or an operator after the
/// others. See above.
pub fn order(wanted: &Wanted<'_>, candidates: &[Candidate], holding: &[Candidate]) -> Vec<PeerId> {
    let roomy = |candidate: &Candidate| candidate.free >= wanted.shard_len.saturating_mul(ROOMY);
    let mut fit: Vec<&Candidate> = candidates.iter().filter(|candidate| candidate.free >= wanted.shard_len).collect();
    let mut rooms: Vec<u64> = fit.iter().map(|candidate| candidate.free).collect();
    rooms.sort_unstable();
    let room_most = rooms.get(rooms.len() / 2).map_or(1, |middle| middle.saturating_mul(ROOM_MOST)).max(1);
    fit.sort_by_cached_key(|candidate| {
        // The bits of a positive number are ordered as it is.
        let last = u64::MAX - score(wanted.segment, candidate, room_most).to_bits();
        (!candidate.trusted, !roomy(candidate), last, candidate.peer)
    });
    let is_old = |candidate: &&&Candidate| !candidate.young && candidate.trusted;
    let old = fit.iter().filter(is_old).count() + holding.iter().filter(|held| !held.young).count();
    let most = usize::from(wanted.n.saturating_sub(wanted.k));
    let young_most = if old >= usize::from(wanted.k) { most } else { usize::MAX };
    let mut taken = Taken::default();
    for held in holding {
        taken.add(held);
    }
    let placed = |candidate: &Candidate| {
        let Before { of_subnet, of_operator } = taken.add(candidate);
        let too_young = candidate.young && taken.young > young_most;
        (!candidate.trusted, too_young, of_operator >= most, !roomy(candidate), of_subnet.max(of_operator))
    };
    let mut placed: Vec<_> = fit.iter().copied().map(placed).zip(&fit).collect();
    // Stable: what is alike keeps its order.
    placed.sort_by_key(|(when, _)| *when);
    placed.into_iter().map(|(_, candidate)| candidate.peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(i: u8) -> PeerId {
        PeerId([i; 32])
    }

    fn segment(i: u32) -> SegmentId {
        SegmentId(*blake3::hash(&i.to_be_bytes()).as_bytes())
    }

    fn order_of(segment: &SegmentId, candidates: &[Candidate], holding: &[Candidate]) -> Vec<PeerId> {
        order(&Wanted { segment, shard_len: 10, k: 3, n: 5 }, candidates, holding)
    }

    /// How often each is among the first five of twenty, of 2,000 segments.
    fn first_five(candidates: &[Candidate]) -> Vec<u32> {
        let mut first = vec![0; candidates.len()];
        for i in 0..2000 {
            let order = order_of(&segment(i), candidates, &[]);
            assert_eq!(order.len(), candidates.len());
            order[..5].iter().for_each(|peer| first[usize::from(peer.0[0])] += 1);
        }
        first
    }

    #[test]
    fn every_peer_gets_its_share() {
        let candidates: Vec<Candidate> = (0..20).map(|i| Candidate::new(peer(i), 1 << 40)).collect();
        let first = first_five(&candidates);
        assert!(first.iter().all(|count| (350..650).contains(count)), "{first:?}");
    }

    #[test]
    fn who_has_more_room_and_who_behaves_better_gets_more_and_boasting_helps_little() {
        let mut candidates: Vec<Candidate> = (0..20).map(|i| Candidate::new(peer(i), 1 << 30)).collect();
        candidates[0].free = 1 << 32;
        candidates[1].quality = 0.2;
        candidates[2].quality = 0.0;
        candidates[3].free = u64::MAX;
        let first = first_five(&candidates);
        assert!(first[0] > 1_000 && first[1] < 250 && first[2] < 60, "{first:?}");
        assert!(first[3] > first[0] && first[3] < 1_900, "{first:?}");
        assert!(first[4..].iter().all(|count| (300..550).contains(count)), "{first:?}");
    }

    #[test]
    fn one_that_goes_moves_nobody_else() {
        let candidates: Vec<Candidate> = (0..20).map(|i| Candidate::new(peer(i), 1 << 40)).collect();
        for i in 0..50 {
            let mut all = order_of(&segment(i), &candidates, &[]);
            all.retain(|at| *at != peer(7));
            let left: Vec<Candidate> = candidates.iter().copied().filter(|at| at.peer != peer(7)).collect();
            assert_eq!(order_of(&segment(i), &left, &[]), all);
        }
    }

    #[test]
    fn the_full_are_left_out_and_the_nearly_full_and_then_the_untrusted_come_last() {
        let candidates = [
            Candidate::new(peer(1), 9),
            Candidate::new(peer(2), 11),
            Candidate::new(peer(3), 1 << 30),
            Candidate { trusted: false, ..Candidate::new(peer(4), 1 << 30) },
        ];
        assert_eq!(order_of(&segment(0), &candidates, &[]), [peer(3), peer(2), peer(4)]);
    }

    #[test]
    fn subnets_come_one_after_the_other_and_those_that_hold_a_row_last() {
        let at = |net: u8| Subnet::v4([9, 9, net, 1]);
        // Eight in one subnet, two in another, three in none.
        let candidates: Vec<Candidate> = (0..13)
            .map(|i| {
                let subnet = [at(1), at(2), None][if i < 8 { 0 } else { usize::from(i > 9) + 1 }];
                Candidate { subnet, ..Candidate::new(peer(i), 1 << 30) }
            })
            .collect();
        for i in 0..50 {
            let order = order_of(&segment(i), &candidates, &[]);
            let of = |net: Option<Subnet>, first: usize| {
                let there = |at: &&PeerId| candidates[usize::from(at.0[0])].subnet == net;
                order[..first].iter().filter(there).count()
            };
            assert_eq!((of(at(1), 5), of(at(2), 5), of(None, 5)), (1, 1, 3), "{order:?}");
            assert_eq!((of(at(1), 7), of(at(2), 7)), (2, 2), "{order:?}");
            // Where one of them has a row already, the next one comes after those that are the first of theirs.
            let order = order_of(&segment(i), &candidates[1..], &candidates[..1]);
            let first = order.iter().position(|at| at.0[0] < 8);
            assert_eq!(first.map(|first| first >= 4), Some(true), "{order:?}");
        }
    }

    #[test]
    fn operators_come_one_after_the_other_and_none_holds_more_than_may_be_lost_where_others_suffice() {
        let of = |by: u8, i: u8| Candidate {
            operator: Some(IdentityId([by; 32])),
            ..Candidate::new(peer(i), if by == 1 { 1 << 40 } else { 1 << 20 })
        };
        let is_of_one = |at: &&PeerId| at.0[0] < 20;
        for i in 0..50 {
            // One with twenty peers and much room; two others, and one that nobody knows.
            let all: Vec<Candidate> =
                (0..20).map(|i| of(1, i)).chain([of(2, 20), of(3, 21), Candidate::new(peer(22), 1 << 20)]).collect();
            let order = order_of(&segment(i), &all, &[]);
            assert_eq!(order[..4].iter().filter(is_of_one).count(), 1, "{order:?}");
            assert_eq!(order[..5].iter().filter(is_of_one).count(), 2, "{order:?}");
            assert_eq!(order.len(), all.len(), "the rest of it comes last, and comes");
            // Where its peers hold two rows, which is all that may be lost, others come before any more of them: also one with
            // less room than is good.
            let short = Candidate { free: 11, ..of(4, 23) };
            let left: Vec<Candidate> = all[2..].iter().copied().chain([short]).collect();
            let order = order_of(&segment(i), &left, &all[..2]);
            assert_eq!(order[..4].iter().filter(is_of_one).count(), 0, "{order:?}");
        }
    }

    #[test]
    fn young_peers_hold_no_more_than_may_be_lost_where_others_suffice() {
        let young = |i: u8| Candidate { young: true, ..Candidate::new(peer(100 + i), 1 << 40) };
        let old = |i: u8| Candidate::new(peer(i), 1 << 20);
        let is_young = |at: &&PeerId| at.0[0] >= 100;
        for i in 0..50 {
            // However many there are, and however much room they say they have.
            let mixed: Vec<Candidate> = (0..90).map(young).chain((0..4).map(old)).collect();
            let order = order_of(&segment(i), &mixed, &[]);
            assert!(order[..5].iter().filter(is_young).count() <= 2, "{order:?}");
            // With two young ones that hold a row none more comes.
            let order = order_of(&segment(i), &mixed[1..], &[young(91), young(92)]);
            assert!(order[..4].iter().filter(is_young).count() == 0, "{order:?}");
            // Where others do not suffice it makes no difference.
            let most: Vec<Candidate> = (0..90).map(young).chain((0..2).map(old)).collect();
            assert!(order_of(&segment(i), &most, &[])[..5].iter().filter(is_young).count() >= 3);
            // And whoever lost something is no help.
            let lost: Vec<Candidate> =
                (0..9).map(young).chain((0..4).map(|i| Candidate { trusted: false, ..old(i) })).collect();
            assert!(order_of(&segment(i), &lost, &[])[..9].iter().all(|at| is_young(&at)));
        }
    }

    #[test]
    fn local_addresses_say_nothing_and_others_what_they_begin_with() {
        for local in
            [[10, 0, 0, 1], [127, 0, 0, 1], [192, 168, 1, 1], [172, 20, 0, 1], [169, 254, 0, 1], [100, 64, 0, 1]]
        {
            assert_eq!(Subnet::v4(local), None, "{local:?}");
        }
        assert_eq!(Subnet::v4([9, 8, 7, 6]), Subnet::v4([9, 8, 7, 200]));
        assert_ne!(Subnet::v4([9, 8, 7, 6]), Subnet::v4([9, 8, 6, 6]));
        let v6 = |start: &[u8]| {
            let mut address = [1; 16];
            address[..start.len()].copy_from_slice(start);
            Subnet::v6(address)
        };
        assert_eq!(v6(&[0x2a, 1, 2, 3, 4, 5, 6]), v6(&[0x2a, 1, 2, 3, 4, 5, 7]));
        assert_ne!(v6(&[0x2a, 1, 2, 3, 4, 5]), v6(&[0x2a, 1, 2, 3, 4, 6]));
        assert_eq!((v6(&[0xfe, 0x80]), v6(&[0xfd]), v6(&[0; 15])), (None, None, None));
        assert_eq!(v6(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 9, 8, 7, 6]), Subnet::v4([9, 8, 7, 1]));
        let shown = [Subnet::v4([9, 8, 7, 6]), v6(&[0x2a, 1, 2, 3, 4, 5])].map(|subnet| subnet.unwrap().to_string());
        assert_eq!(shown, ["9.8.7.0/24", "2a01:0203:0405::/48"]);
    }
}
