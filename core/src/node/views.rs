//! What can be asked of a node between two steps.

use super::{NoPlan, Node, PeerView, Standings};
use crate::durability::Plan;
use crate::id::PeerId;
use crate::quota::{Quota, Used};

impl Node {
    /// What is known of each peer.
    pub fn peers(&self) -> Vec<PeerView> {
        self.peers.views(&self.context, &self.donor)
    }

    /// What the next start is to know of the peers, as of the last step.
    pub fn standings(&self) -> Standings {
        self.peers.standings(&self.context)
    }

    /// Takes over what an earlier run has written down; to be done before the first step.
    pub fn restore(&mut self, standings: &Standings) {
        self.peers.restore(&self.context, standings);
    }

    /// How segments would be coded and placed now, or why they cannot be.
    pub fn plan(&self) -> Result<Plan, NoPlan> {
        self.peers.plan(&self.context, false)
    }

    /// The same for what could not be placed as planned: without donors that come and go, if two others are there.
    pub fn cautious_plan(&self) -> Result<Plan, NoPlan> {
        self.peers.plan(&self.context, true)
    }

    /// How many peers leave for good, for each that is there and each year, as far as one has seen.
    pub fn departures(&self) -> f64 {
        self.peers.departures()
    }

    /// The longest shard for which `n` donors have room, in bytes, as far as one knows; none when there are fewer donors
    /// that have any.
    pub fn shard_room(&self, n: u8) -> Option<u64> {
        self.peers.shard_room(&self.context, n)
    }

    /// Peers that are connected and store for others; counted, not gone through. One step changes it by one at most.
    pub fn donors(&self) -> usize {
        self.peers.donors()
    }

    /// Milliseconds, as of the last step, since a donor last came or went: a plan made while peers are still coming in
    /// would use fewer of them than there are.
    pub fn settled_for(&self) -> u64 {
        self.peers.settled_for(&self.context)
    }

    /// Bytes stored for others.
    pub fn used(&self) -> Used {
        self.donor.used()
    }

    /// Which peer this is.
    pub fn me(&self) -> PeerId {
        self.context.config.me
    }

    /// Bytes that those may bring who store for this node, all together, as far as there is room.
    pub fn reciprocal_most(&self) -> u64 {
        super::donor::Donor::reciprocal_most(&self.peers).min(self.quota().bytes)
    }

    /// What is given to others.
    pub fn quota(&self) -> Quota {
        self.donor.quota()
    }

    /// Whether it stops storing for others.
    pub fn is_leaving(&self) -> bool {
        self.donor.is_leaving()
    }

    /// Records kept for the mesh.
    pub fn records_held(&self) -> usize {
        self.records.len()
    }
}
