//! What one look at the node gives of the peers, as far as health depends on them.

use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::durability::{Outlook, Plan, REPAIR_YEARS};
use hypernet_core::id::PeerId;
use hypernet_core::node::{NoPlan, Node, PeerView, Presence};
use hypernet_core::placement::Subnet;
use hypernet_core::repair::Mesh;

use super::super::lacking::Lacking;
use super::super::repair::Wear;

/// One look.
pub(crate) struct Sight {
    pub(crate) peers: Vec<PeerView>,
    pub(crate) plan: Result<Plan, NoPlan>,
    /// This peer, if it stops storing for others.
    leaving_here: Option<PeerId>,
    /// How many peers leave for good, for each that is there and each year.
    departures: f64,
}

impl Sight {
    pub(crate) fn of(node: &Node) -> Self {
        let leaving_here = node.is_leaving().then(|| node.me());
        Self { peers: node.peers(), plan: node.plan(), leaving_here, departures: node.departures() }
    }

    /// Where the agent is stopping.
    pub(crate) fn nobody() -> Self {
        let departures = hypernet_core::durability::DEPARTURES_PRIOR;
        Self { peers: Vec::new(), plan: Err(NoPlan::Few), leaving_here: None, departures }
    }

    pub(crate) fn online(&self) -> BTreeSet<PeerId> {
        self.peers.iter().filter(|peer| peer.connected).map(|peer| peer.peer).collect()
    }

    /// By which rows count.
    pub(super) fn mesh(&self) -> Mesh {
        Mesh::new(&self.peers).with_leaving(self.leaving_here)
    }

    pub(super) fn planned(&self) -> Option<(u8, u8, u8)> {
        self.plan.as_ref().ok().map(|plan| (plan.k, plan.n, plan.threshold))
    }

    /// What is expected of what is stored. Where nothing can be placed nothing is made anew: there is nobody to put it on.
    fn outlook(&self) -> Outlook {
        let departures = self.departures;
        match &self.plan {
            Ok(plan) => Outlook { departures, ..plan.outlook },
            Err(_) => Outlook { peers: 0, availability: 0.0, departures, repair: REPAIR_YEARS },
        }
    }
}

/// What fails together: peers of one subnet, as far as that is known; else a peer by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Domain {
    Subnet(Subnet),
    Peer(PeerId),
}

/// What is known of a holder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) connected: bool,
    pub(super) presence: Presence,
    /// With which probability it is there in its worst hour.
    pub(super) there: f64,
    subnet: Option<Subnet>,
}

/// By what segments are counted.
pub(super) struct Measure<'a> {
    pub(super) wear: Wear<'a>,
    pub(super) connected: BTreeSet<PeerId>,
    known: BTreeMap<PeerId, Known>,
    pub(super) outlook: Outlook,
}

impl<'a> Measure<'a> {
    pub(super) fn new(lacking: &'a Lacking, sight: &Sight) -> Self {
        let known = |view: &PeerView| Known {
            connected: view.connected,
            presence: view.presence,
            there: view.worst_hour,
            subnet: view.subnet,
        };
        Self {
            wear: Wear::new(lacking, sight.mesh(), sight.plan.as_ref().ok()),
            connected: sight.online(),
            known: sight.peers.iter().map(|view| (view.peer, known(view))).collect(),
            outlook: sight.outlook(),
        }
    }

    /// None of a holder that this device has not met.
    pub(super) fn known(&self, peer: &PeerId) -> Option<Known> {
        self.known.get(peer).copied()
    }

    pub(super) fn domain(&self, peer: PeerId) -> Domain {
        self.known(&peer).and_then(|known| known.subnet).map_or(Domain::Peer(peer), Domain::Subnet)
    }
}
