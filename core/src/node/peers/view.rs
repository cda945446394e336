//! What a node tells of its peers.

use super::{Peer, Peers};
use crate::id::PeerId;
use crate::node::Context;
use crate::node::acquainted::Acquaintance;
use crate::node::donor::Donor;
use crate::node::standing::{Presence, Standing};
use crate::placement::Subnet;
use crate::quota::Depositor;
use crate::wire::Hello;

/// What a node tells of a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerView {
    /// Who.
    pub peer: PeerId,
    /// Whether a connection is up.
    pub connected: bool,
    /// What it said it offers.
    pub hello: Option<Hello>,
    /// Whether it is there, or away, and for how long that has been so.
    pub presence: Presence,
    /// Milliseconds that it has been away, of those in which this node was among others.
    pub away_for: u64,
    /// Share of the time watched that it was there, with the prior.
    pub availability: f64,
    /// The same of the hour of the day in which it is there least.
    pub worst_hour: f64,
    /// Milliseconds that it was there, in all.
    pub present: u64,
    /// Whether it is known for too short a time for much to be entrusted to it.
    pub young: bool,
    /// Share of what it did that was without a fault, lately, with a prior.
    pub honesty: f64,
    /// Microseconds of a round trip with a small request, smoothed; none before the first.
    pub round_trip: Option<u64>,
    /// Bytes per second that it sends, smoothed; none before it has sent a large answer.
    pub rate: Option<u64>,
    /// Whose it is, if its people are known here.
    pub acquaintance: Option<Acquaintance>,
    /// For whom a byte of it would be kept here.
    pub depositor: Depositor,
    /// Bytes that it holds for this identity, as far as the agent has told.
    pub holds: u64,
    /// It takes this node for a newcomer, and has less room for those than for others.
    pub to_newcomer: bool,
    /// The subnet that it is in; none when that is not known, or says nothing.
    pub subnet: Option<Subnet>,
    /// Weight of its faults; 0 is spotless.
    pub faults: u32,
    /// Requests it answered.
    pub answered: u64,
    /// Requests it did not answer.
    pub unanswered: u64,
    /// Whether nothing is asked of it for now.
    pub blocked: bool,
    /// Whether others get new shards before it for now, because it lost some.
    pub distrusted: bool,
    /// Whether it is to get no shards, as the agent has said.
    pub spared: bool,
    /// Whether it has said that it stops storing for others: what it holds is to be moved, and it gets nothing new.
    pub leaving: bool,
}

impl Peers {
    pub(in crate::node) fn views(&self, context: &Context, donor: &Donor) -> Vec<PeerView> {
        self.known
            .iter()
            .map(|(id, peer)| {
                let standing = peer.standing.now(context.now, &self.watch, peer.connected);
                self.view(context, donor, id, peer, &standing)
            })
            .collect()
    }

    fn view(&self, context: &Context, donor: &Donor, id: &PeerId, peer: &Peer, standing: &Standing) -> PeerView {
        let now = context.now.mono;
        PeerView {
            peer: *id,
            connected: peer.connected,
            hello: peer.hello.clone().map(|hello| Hello { free: peer.free, ..hello }),
            presence: peer.presence(context, &self.watch),
            away_for: peer.standing.away_for(context.now, &self.watch, peer.connected),
            availability: standing.availability(),
            worst_hour: standing.by_hour().into_iter().fold(1.0, f64::min),
            present: standing.present,
            young: standing.is_young(context.now.unix),
            honesty: standing.honesty(),
            round_trip: standing.round_trip,
            rate: standing.rate,
            acquaintance: self.acquainted.of(id).copied(),
            depositor: donor.depositor(self, id, 1, now),
            holds: self.acquainted.held_by(id),
            to_newcomer: peer.to_newcomer(),
            subnet: peer.subnet,
            faults: peer.faults,
            answered: peer.answered,
            unanswered: peer.unanswered,
            blocked: peer.blocked_until > now,
            distrusted: peer.is_distrusted(now),
            spared: self.spared.contains(id),
            leaving: standing.leaving,
        }
    }
}
