//! What it takes to look after segments: to know which there are, to reach their holders, and to have leases of them.
//!
//! A volume looks after what it has stored, a custodian after what it cannot read. Both do it by the same rules, which are on
//! [`Tended`]: leases in `leases`, repair in `repair`; audits take whatever is [`Tending`].

use std::collections::BTreeSet;

use hypernet_core::id::PeerId;
use hypernet_core::key::DeviceKeys;
use hypernet_core::port::PortError;
use hypernet_core::segment::Placement;
use hypernet_store::volume::VolumeDb;
use parking_lot::Mutex;

use super::lacking::Lacking;
use super::read::PlacementCache;
use super::{Volume, state};
use crate::driver::NodeHandle;
use crate::peers::Peers;

/// Segments that are looked after.
#[derive(Clone, Copy)]
pub(crate) struct Tended<'a> {
    /// Where they are, and which leases there are of them.
    pub(crate) db: &'a VolumeDb,
    pub(crate) node: &'a NodeHandle,
    pub(crate) peers: &'a Peers,
    /// What holders were found not to have.
    pub(crate) lacking: &'a Lacking,
    /// Whose leases they are.
    pub(crate) device: &'a DeviceKeys,
    /// Placements that were read lately.
    pub(crate) placements: &'a Mutex<PlacementCache>,
    /// Who is to get nothing of them, beside those whom the node itself spares.
    pub(crate) avoid: &'a BTreeSet<PeerId>,
}

/// Whom a volume avoids beside those whom its node spares.
pub(crate) static NOBODY: BTreeSet<PeerId> = BTreeSet::new();

/// Whoever looks after segments.
pub(crate) trait Tending: Send + Sync {
    /// All of them, but those of catalogs.
    fn tended(&self) -> Tended<'_>;

    /// The segments of the catalog that `db` is of, as far as they are known here.
    fn catalog_segments(&self, db: &VolumeDb) -> Result<Vec<Placement>, PortError>;

    /// A holder was found to lack something.
    fn is_told(&self);
}

impl Tending for Volume {
    fn tended(&self) -> Tended<'_> {
        Tended {
            db: &self.db,
            node: &self.node,
            peers: &self.peers,
            lacking: &self.lacking,
            device: &self.device,
            placements: &self.placements,
            avoid: &NOBODY,
        }
    }

    fn catalog_segments(&self, db: &VolumeDb) -> Result<Vec<Placement>, PortError> {
        let Some(latest) = state::latest(db)? else { return Ok(Vec::new()) };
        let mut all = vec![latest.head.manifest_placement.clone()];
        // A listing that is not here was never read on this device.
        self.each_catalog_segment(&latest.manifest, false, &mut |found| all.extend(found.ok().cloned()));
        Ok(all)
    }

    fn is_told(&self) {
        // What lies with fewer holders than was thought may be of the catalog, which a sync then looks at anew.
        *self.surveyed.lock() = None;
    }
}
