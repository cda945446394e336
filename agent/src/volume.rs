//! One volume on this device: reading what is on the mesh, and writing snapshots to it.
//!
//! - `read`: extents and tree nodes by reference, from the local caches or the mesh;
//! - `reach`: whether the index knows all that the newest snapshot reaches;
//! - `audit`: having holders prove that they have what they took;
//! - `census`: what the holders of segments say they have;
//! - `leases`: what this device has leases of, which it renews and gives up;
//! - `health`: how healthy all its segments are;
//! - `served`: what the peers of now can give back;
//! - `write`: sealing, packing, coding and placing, as a pipeline;
//! - `sync`: a cut of the working tree becomes a snapshot, then a catalog, then a head;
//! - `adopt`: what a volume takes over from that which it was split off;
//! - `collect`: giving back the space of what nothing reaches any more;
//! - `walk`: all that a tree reaches;
//! - `catalog`: the pages of index and placement log, and the manifest;
//! - `heads`: what the mesh has of this device's heads and of those of the others;
//! - `devices`: the devices of the identity, and taking one off;
//! - `follow`: moving on to what another device has published;
//! - `conflicts`: versions that are kept beside others;
//! - `settling`: texts of which two versions are kept, merged line by line;
//! - `snapshots`: taking one, what is kept of them, and what they hold;
//! - `policy`: the snapshots that nobody takes by hand;
//! - `stage`: what is sealed and waits on this disk to be placed;
//! - `repair`: making anew what holders have lost, or have taken along;
//! - `rekey`: sealing what was written before in the epoch of now;
//! - `recover`: from the list of devices to the newest head, its catalog and its root.
//!
//! Invariant: a head is published only when everything that it reaches is acknowledged by its holders, and inodes
//! count as synced only when the head is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use hypernet_core::id::{DeviceId, DeviceTag, IdentityId, VolumeId};
use hypernet_core::identity::log::Device;
use hypernet_core::key::{DeviceKeys, VolumeKeys};
use hypernet_core::merge::Part;
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::share::epoch::Epoch;
use hypernet_core::share::posting::SealedFor;
use hypernet_core::tree::{Dot, TreeRef};
use hypernet_store::volume::VolumeDb;
use parking_lot::Mutex;

use crate::custody::ward::Moved;
use crate::driver::NodeHandle;
use crate::identity::Identity;
use crate::locked::Locked;
use crate::peers::Peers;
use crate::share::bearer::Borne;
use crate::share::circle::{Circle, Publishers};
use crate::share::hearing::{Known, Lost};

mod adopt;
pub(crate) mod audit;
pub(crate) mod catalog;
pub(crate) mod census;
pub(crate) mod collect;
pub(crate) mod conflicts;
pub(crate) mod devices;
#[cfg(test)]
pub(crate) mod double;
pub(crate) mod follow;
pub(crate) mod handing;
pub(crate) mod heads;
pub(crate) mod health;
pub(crate) mod lacking;
pub(crate) mod leases;
pub(crate) mod mending;
pub(crate) mod merging;
pub(crate) mod nearby;
pub(crate) mod policy;
pub(crate) mod progress;
pub(crate) mod reach;
pub(crate) mod read;
pub(crate) mod recover;
mod rekey;
pub(crate) mod repair;
pub(crate) mod served;
pub(crate) mod settling;
pub(crate) mod snapshots;
mod stage;
pub(crate) mod state;
pub(crate) mod sync;
pub(crate) mod tended;
pub(crate) mod trim;
mod walk;
pub(crate) mod whole;
pub(crate) mod write;

use snapshots::Histories;

/// Milliseconds within which a read from the mesh must have ended.
pub(crate) const READ_WITHIN: u64 = 20_000;
/// Milliseconds after which an upload that does not move is planned anew.
pub(crate) const UPLOAD_PATIENCE: u64 = 20_000;
/// How long leases run, in seconds: 90 days.
pub(crate) const LEASE_SECONDS: u64 = 90 * 24 * 3600;

/// What came from elsewhere, or was to be sealed, is not as it must be.
pub(crate) fn damaged(error: impl std::fmt::Display) -> PortError {
    PortError::Damaged(error.to_string())
}

/// A volume on this device.
pub(crate) struct Volume {
    pub(crate) id: VolumeId,
    pub(crate) device: Locked<DeviceKeys>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) db: Arc<VolumeDb>,
    pub(crate) node: NodeHandle,
    /// The link table of the newest durable snapshot.
    pub(crate) links: Mutex<Option<TreeRef>>,
    /// Placements that were read lately, decoded.
    pub(crate) placements: Mutex<read::PlacementCache>,
    /// When the catalog was last found to be as it should.
    pub(crate) surveyed: Mutex<Option<catalog::Surveyed>>,
    /// Where custodians say that rows are, while a catalog is read that may not know of it.
    pub(crate) moved: Mutex<Moved>,
    /// What is asked of all of them.
    pub(crate) peers: Arc<Peers>,
    /// What holders were found not to have any more.
    pub(crate) lacking: Arc<lacking::Lacking>,
    /// What the last looks for something to mend have come to.
    pub(crate) mending: Mutex<mending::Mending>,
    /// The heads of all devices, as the mesh had them when it was last asked.
    pub(crate) heads: Mutex<heads::Heads>,
    /// Sealed bytes that came along with what was read lately.
    pub(crate) nearby: Mutex<nearby::Nearby>,
    /// Who has a part in it, where others have.
    pub(crate) circle: Mutex<Option<Circle>>,
    /// Of whoever brings together what is here of that and what is on the mesh. There is nothing in it.
    pub(crate) circle_turn: Mutex<()>,
    /// What was taken in of it last.
    pub(crate) heard: Mutex<Vec<Record>>,
    /// How long it took to read what devices say, by whose they are: what was long ago counts less.
    pub(crate) slow: Mutex<BTreeMap<IdentityId, Duration>>,
    /// Signers of what is sealed for others and not for this identity.
    pub(crate) shut: Mutex<BTreeSet<[u8; 32]>>,
    /// Signers of what is there and could not be read when it was last tried.
    pub(crate) unread: Mutex<BTreeSet<[u8; 32]>>,
    /// Epochs that somebody has told, by who signs what tells them, until a change that counts names them.
    pub(crate) told: Mutex<BTreeMap<[u8; 32], Vec<Epoch>>>,
    /// For whom others seal, as they say, by who signs what says so.
    pub(crate) met: Mutex<BTreeMap<[u8; 32], SealedFor>>,
    /// What this device has last put up by a link that writes, where it may write by that alone.
    pub(crate) borne: Mutex<Option<Borne>>,
    /// How many of those who only read were looked up so far.
    pub(crate) looked: AtomicUsize,
    /// And of those whom nobody here has met.
    pub(crate) strangers: AtomicUsize,
    /// Who has lost devices lately, as far as another epoch has begun for that.
    pub(crate) lost: Mutex<Lost>,
    /// What was written before is being sealed anew.
    pub(crate) rekeying: AtomicBool,
    /// Of whoever publishes heads of it, or has it come into the tree. There is nothing in it.
    pub(crate) turn: Arc<Mutex<()>>,
    /// Directories that have become this volume, as other devices have changed them.
    pub(crate) splits: Mutex<Vec<Part>>,
    /// What the last merge here has kept beside something else.
    pub(crate) kept: Mutex<settling::Kept>,
    /// Something was added to them.
    pub(crate) news: AtomicBool,
    /// What is known of heads that this device has not moved on to.
    pub(crate) waiting: Mutex<follow::Waiting>,
    /// Changes of the history that wait for the next head.
    pub(crate) edits: AtomicU64,
    /// How often the mesh was waited for by whoever reads.
    #[cfg(test)]
    pub(crate) trips: AtomicU64,
    /// What was read of the history.
    histories: Mutex<Histories>,
    /// Of whoever takes a cut, until it has its number: of two cuts the later one has the greater number. There is nothing in it.
    numbering: Mutex<()>,
    /// Of whoever notes what others may have. There is nothing in it.
    handing_out: Mutex<()>,
    /// The heads of others that have asked for one of this device, up to which it has answered.
    pub(crate) answered: Mutex<BTreeMap<DeviceId, u64>>,
    /// What it has all of from homes of this device that this one was copied from.
    pub(crate) homes_before: Vec<Dot>,
    /// The last number of this device when this home was copied from another one; 0 for the first.
    pub(crate) copied: u64,
    /// Of whoever takes a snapshot, or moves the index to that of another device. There is nothing in it.
    pub(crate) still: Mutex<()>,
}

impl Volume {
    /// A volume of an identity, as this device left it.
    pub(crate) fn open(
        id: VolumeId,
        device: DeviceKeys,
        identity: Arc<Identity>,
        db: Arc<VolumeDb>,
        node: NodeHandle,
    ) -> Result<Self, PortError> {
        let links = match state::latest(&db)? {
            Some(latest) => latest.root.links,
            // A branch goes on from what it begins with.
            None => state::origin(&db)?.and_then(|origin| origin.table().cloned()),
        };
        let (last, rekeying) = (state::last_signers(&db)?, state::is_rekeying(&db)?);
        let edits = db.count_edits()?;
        let homes_before = state::homes_before(&db, &device.id(), id, identity.home())?;
        if !last.is_empty() {
            // Whatever this process publishes of itself first, it does not take these back.
            identity.tell(id, last);
        }
        let volume = Self {
            id,
            device: Locked::new(device),
            peers: identity.peers().clone(),
            identity,
            db,
            node,
            links: Mutex::new(links),
            placements: Mutex::new(read::placement_cache()),
            surveyed: Mutex::new(None),
            moved: Mutex::default(),
            lacking: Default::default(),
            mending: Mutex::default(),
            heads: Mutex::default(),
            nearby: Mutex::new(nearby::Nearby::new()),
            circle: Mutex::default(),
            circle_turn: Mutex::default(),
            heard: Mutex::default(),
            slow: Mutex::default(),
            shut: Mutex::default(),
            unread: Mutex::default(),
            told: Mutex::default(),
            met: Mutex::default(),
            borne: Mutex::default(),
            looked: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            lost: Mutex::default(),
            rekeying: AtomicBool::new(rekeying),
            turn: Arc::default(),
            splits: Mutex::default(),
            kept: Mutex::default(),
            news: AtomicBool::new(false),
            waiting: Mutex::default(),
            edits: AtomicU64::new(edits),
            #[cfg(test)]
            trips: AtomicU64::default(),
            histories: Mutex::default(),
            numbering: Mutex::default(),
            handing_out: Mutex::default(),
            answered: Mutex::default(),
            copied: homes_before.iter().map(|dot| dot.sequence).max().unwrap_or(0),
            homes_before,
            still: Mutex::default(),
        };
        volume.remember_share()?;
        Ok(volume)
    }

    /// Another volume of the same identity, as this device left it.
    pub(crate) fn below(main: &Self, id: VolumeId) -> Result<Self, PortError> {
        let db = Arc::new(main.db.of(id)?);
        let (device, identity, node) = (DeviceKeys::clone(&main.device), main.identity.clone(), main.node.clone());
        let volume = Self::open(id, device, identity, db, node)?;
        // One that was begun since has what was done before in another one.
        let copied = volume.copied.max(main.copied);
        Ok(Self { lacking: main.lacking.clone(), copied, ..volume })
    }

    /// The change of this device that its head with this number is.
    pub(crate) fn dot(&self, sequence: u64) -> Dot {
        Dot { device: self.tag(), sequence }
    }

    /// What the dots of this device carry that come from this home of it.
    pub(crate) fn tag(&self) -> DeviceTag {
        self.device.id().tag_in(self.id).of_home(self.identity.home())
    }

    /// A number for a head, which nobody else gets: of several volumes heads are published at once.
    pub(crate) fn take_number(&self) -> Result<u64, PortError> {
        let mut last = self.identity.last_number.lock();
        *last = state::next_sequence(&self.db, &self.device.id())?.max(last.saturating_add(1));
        Ok(*last)
    }

    /// Whose heads of it are taken, as far as is known here.
    pub(crate) fn publishers(&self) -> Publishers {
        let own = self.identity.roster();
        match (self.share(), &*self.circle.lock()) {
            (Some(_), Some(circle)) => circle.publishers(&own),
            (Some(_), None) => Publishers::default(),
            (None, _) => Publishers::of(own),
        }
    }

    /// The same without this device.
    pub(crate) fn other_publishers(&self) -> Vec<Device> {
        let me = self.device.id();
        self.publishers().listed.into_iter().filter(|device| device.id != me).collect()
    }

    /// Whether anybody else may publish something here, or has before they were taken off: also who is not on any list yet, and
    /// comes by a link.
    pub(crate) fn has_others(&self) -> bool {
        let me = self.identity.id();
        let may = |known: Known| known.members.writers().any(|member| member.identity != me);
        self.known_share().is_some_and(may) || !self.heard_devices().is_empty() || self.has_twin()
    }

    /// The keys by which is written now. Who has a part in the volume is to find nothing of what it was before: so a device that
    /// stands on that goes on as before, which the others of its identity find, until it has merged with what is shared. Only where
    /// it was shared what is there becomes that.
    pub(crate) fn keys(&self) -> Arc<VolumeKeys> {
        match self.goes_on_privately().unwrap_or(true) {
            true => self.identity.private_keys(self.id),
            false => self.identity.keys(self.id),
        }
    }

    fn goes_on_privately(&self) -> Result<bool, PortError> {
        let Some(share) = self.share() else { return Ok(false) };
        if !self.stands_on_private()? || state::opens(&self.db, &share.begin)? {
            return Ok(false);
        }
        // What was merged with what is shared is shared.
        Ok(!state::merging(&self.db)?.is_some_and(|merging| merging.is_shared))
    }

    /// Whether this device is to publish the first tree that others may read, and has not.
    pub(crate) fn is_to_open(&self) -> Result<bool, PortError> {
        let Some(share) = self.share() else { return Ok(false) };
        Ok(state::opens(&self.db, &share.begin)? && self.stands_on_private()?)
    }

    /// Whether what this device stands on is from before others had a part in the volume.
    pub(crate) fn stands_on_private(&self) -> Result<bool, PortError> {
        let latest = if self.share().is_some() { state::latest(&self.db)? } else { None };
        Ok(latest.is_some_and(|latest| !Identity::is_shared_epoch(self.id, &latest.head.snapshot_extent)))
    }
}
