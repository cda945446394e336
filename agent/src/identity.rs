//! What this device knows of its identity, and what of it the mesh has.
//!
//! - `known`: what lies beside the keystore, in a file of its own: signed by whom it is of, and no secret;
//! - `places`: reading and writing what is at a place;
//! - `gathering`: finding all that the mesh has of an identity;
//! - `meeting`: bringing together what is here and what is there;
//! - `revocation`: taking a device off the list, and beginning an era;
//! - `arrival`: coming onto the list, by the phrase or by a device that is on it.
//!
//! Invariant: nothing at a place is replaced before it was read and taken in. Both the keystore and the list of devices
//! only grow, so that what two devices put there one after the other comes to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hypernet_core::id::{DeviceId, HomeNumber, IdentityId, VolumeId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::era::Era;
use hypernet_core::identity::log::{Device, Recipient, Roster};
use hypernet_core::identity::place::Address;
use hypernet_core::key::{DeviceKeys, SHARED_EPOCHS, Secret, VolumeKeys};
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::seal::ExtentRef;
use hypernet_core::share::epoch::Epoch;
use hypernet_core::share::members::NewEpoch;
use hypernet_core::time::Hlc;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::keystore::KeystoreFile;
use crate::locked::Locked;
use crate::peers::Peers;
use crate::people::Lists;
use crate::sealing;
use crate::volume::damaged;

pub(crate) mod arrival;
pub(crate) mod gathering;
pub(crate) mod homes;
pub(crate) mod known;
mod meeting;
pub(crate) mod places;
pub(crate) mod revocation;
mod said;
#[cfg(test)]
mod tests;

use known::Known;
pub(crate) use meeting::SHARE;
use said::OfOthers;

/// An identity on one of its devices.
pub(crate) struct Identity {
    id: IdentityId,
    file: PathBuf,
    keystore: Arc<KeystoreFile>,
    device: Locked<DeviceKeys>,
    /// Which of the homes of this device this is.
    home: HomeNumber,
    peers: Arc<Peers>,
    /// Of whoever brings together what is here and what is on the mesh, so that what one has read another does not replace.
    /// There is nothing in it, and nobody waits for it who only asks what is known.
    turn: Mutex<()>,
    known: Mutex<Known>,
    /// That which counts, of those that this device has.
    era: Mutex<Locked<Era>>,
    /// What devices said of themselves when they were last asked.
    beacons: Mutex<BTreeMap<DeviceId, Beacon>>,
    /// The last number that this process has given to a head.
    pub(crate) last_number: Mutex<u64>,
    /// When all of that was last looked at.
    looked: Mutex<Option<Instant>>,
    /// The same, of devices of others.
    of_others: Mutex<OfOthers>,
    /// Of volumes that other identities have a part in: which epoch counts.
    epochs: Mutex<BTreeMap<VolumeId, Option<NewEpoch>>>,
    /// Volumes that this device offers to others.
    offered: Mutex<BTreeSet<VolumeId>>,
    /// What was at the end of the era, if somebody put anything there though it goes on.
    end: Mutex<Option<Record>>,
    /// Volumes whose heads this device publishes, and the signers of the records of the last ones.
    told: Mutex<BTreeMap<VolumeId, Vec<[u8; 32]>>>,
}

/// The disk of this device failed.
fn on_disk(failure: Failure) -> PortError {
    PortError::Disk(failure.to_string())
}

/// By which a list of devices names an era.
fn named_by(era: &Era) -> Option<Recipient> {
    sealing::recipient(&era.opening_key()).ok()
}

/// That of some eras which counts by a list of devices, if it is among them.
fn era_of(eras: &[Era], roster: &Roster) -> Option<Era> {
    let counts = roster.era?.recipient;
    eras.iter().rev().find(|era| named_by(era) == Some(counts)).cloned()
}

impl Identity {
    /// What is known of it lies in `file`.
    pub(crate) fn load(
        file: PathBuf,
        keystore: Arc<KeystoreFile>,
        device: DeviceKeys,
        peers: Arc<Peers>,
    ) -> Result<Self, Failure> {
        let known = Known::load(&file, &keystore.keystore().identity)?;
        let home = homes::number_in(file.parent().unwrap_or(Path::new(".")))?;
        Ok(Self { home, ..Self::new(known, file, keystore, device, peers)? })
    }

    /// What becomes known of it will lie in `file`.
    pub(crate) fn new(
        known: Known,
        file: PathBuf,
        keystore: Arc<KeystoreFile>,
        device: DeviceKeys,
        peers: Arc<Peers>,
    ) -> Result<Self, Failure> {
        let kept = keystore.keystore();
        // Who was revoked knows that there is another era, and has the last one that it was told of.
        let era = era_of(&kept.eras, known.posting.log().roster());
        let era = era.or_else(|| kept.eras.last().cloned());
        let era = era.ok_or_else(|| {
            Failure::new(crate::failure::Kind::Data, "the keystore has no era").hint("use a copy of it that is whole")
        })?;
        Ok(Self {
            id: kept.identity,
            file,
            keystore,
            device: Locked::new(device),
            home: HomeNumber::default(),
            peers,
            turn: Mutex::default(),
            known: Mutex::new(known),
            era: Mutex::new(Locked::new(era)),
            beacons: Mutex::default(),
            last_number: Mutex::default(),
            looked: Mutex::default(),
            of_others: Mutex::default(),
            epochs: Mutex::default(),
            offered: Mutex::default(),
            end: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// Which of the homes of this device this is.
    pub(crate) fn home(&self) -> HomeNumber {
        self.home
    }

    pub(crate) fn id(&self) -> IdentityId {
        self.id
    }

    /// By which others find it.
    pub(crate) fn address(&self) -> Address {
        self.known.lock().address()
    }

    pub(crate) fn keystore(&self) -> &Arc<KeystoreFile> {
        &self.keystore
    }

    /// What this device has seen of the devices of other people.
    pub(crate) fn lists(&self) -> Lists<'_> {
        Lists::new(self.file.with_file_name("contacts"), &self.device)
    }

    /// What is asked of the peers of its mesh.
    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Its devices, as far as this one has heard.
    pub(crate) fn roster(&self) -> Roster {
        self.known.lock().posting.log().roster().clone()
    }

    /// When a device came onto the list.
    pub(crate) fn enrolled(&self, device: &DeviceId) -> Option<Hlc> {
        self.known.lock().posting.log().enrolled(device)
    }

    /// The devices on the list that this one has brought onto it.
    pub(crate) fn brought_by(&self, device: &DeviceId) -> Vec<Device> {
        self.known.lock().posting.log().brought_by(device)
    }

    /// The keys of a volume by which is written now.
    pub(crate) fn keys(&self, volume: VolumeId) -> Arc<VolumeKeys> {
        let epoch = self.shared_keys(volume).into_iter().next();
        Arc::new(epoch.unwrap_or_else(|| self.era.lock().volume(volume)))
    }

    /// Those by which was written before others had a part in it.
    pub(crate) fn private_keys(&self, volume: VolumeId) -> Arc<VolumeKeys> {
        Arc::new(self.era.lock().volume(volume))
    }

    /// Those of a volume that other identities have a part in, the newest first.
    fn shared_keys(&self, volume: VolumeId) -> Vec<VolumeKeys> {
        let keystore = self.keystore.keystore();
        let Some(share) = keystore.share(volume) else { return Vec::new() };
        let now = *self.epochs.lock().get(&volume).unwrap_or(&None);
        let mut epochs: Vec<&Epoch> = share.epochs.iter().rev().collect();
        epochs.sort_by_key(|epoch| now.is_some_and(|now| epoch.name() != now));
        epochs.into_iter().map(|epoch| epoch.volume(volume)).collect()
    }

    /// Whether this was sealed when other identities had a part in the volume already: whoever has one now may have had it then.
    pub(crate) fn is_shared_epoch(volume: VolumeId, extent: &ExtentRef) -> bool {
        extent.origin == volume.into() && extent.epoch >= SHARED_EPOCHS
    }

    /// Which epoch of a volume counts, where other identities have a part in it.
    pub(crate) fn set_epoch(&self, volume: VolumeId, epoch: Option<NewEpoch>) {
        self.epochs.lock().insert(volume, epoch);
    }

    /// All keys that a volume had, those by which is written now first.
    pub(crate) fn all_keys(&self, volume: VolumeId) -> Vec<VolumeKeys> {
        let now = Era::clone(&self.era.lock());
        let before = self.keystore.keystore().eras;
        let before = before.iter().rev().filter(|era| **era != now);
        let eras = std::iter::once(&now).chain(before).map(|era| era.volume(volume));
        // Before it was shared its keys were those of an era.
        self.shared_keys(volume).into_iter().chain(eras).collect()
    }

    /// Signers of the records of a device's heads of a volume that it has told, and under which keys each of them is.
    pub(crate) fn head_signers(&self, device: &DeviceId, keys: &[VolumeKeys]) -> Vec<([u8; 32], VolumeKeys)> {
        let mut all: Vec<([u8; 32], VolumeKeys)> = Vec::new();
        for beacon in self.beacons_of(device) {
            for keys in keys {
                let signer = beacon.head_signer(device, keys);
                if let Some(signer) = signer.filter(|signer| all.iter().all(|(other, _)| other != signer)) {
                    all.push((signer, keys.clone()));
                }
            }
        }
        all
    }

    /// What a device of this identity, this one too, said of itself when it was last asked.
    pub(crate) fn own_beacon(&self, device: &DeviceId) -> Option<Beacon> {
        self.beacons.lock().get(device).cloned()
    }

    /// What a device said of itself when it was last asked, in whosever name.
    fn beacons_of(&self, device: &DeviceId) -> Vec<Beacon> {
        self.own_beacon(device).into_iter().chain(self.of_others.lock().of(device).cloned()).collect()
    }

    /// Remembers what devices of another identity said.
    pub(crate) fn heard(&self, of: IdentityId, beacons: impl IntoIterator<Item = (DeviceId, Beacon)>) {
        let mut others = self.of_others.lock();
        beacons.into_iter().for_each(|(device, beacon)| others.hear(of, device, beacon, None));
    }

    /// What a device of another identity says of itself in this record, read unless it was before.
    pub(crate) fn hear_in(
        &self,
        of: IdentityId,
        device: DeviceId,
        record: Record,
        read: impl FnOnce(&Record) -> Result<Option<Beacon>, PortError>,
    ) -> Result<Option<Beacon>, PortError> {
        if let Some(beacon) = self.of_others.lock().in_record(of, device, &record) {
            return Ok(Some(beacon.clone()));
        }
        let beacon = read(&record)?;
        if let Some(beacon) = &beacon {
            self.of_others.lock().hear(of, device, beacon.clone(), Some(record));
        }
        Ok(beacon)
    }

    /// Whether a device was found to say anything of itself.
    pub(crate) fn has_told(&self, device: &DeviceId) -> bool {
        !self.beacons_of(device).is_empty()
    }

    /// Opens what was sealed for this identity, in whichever era.
    pub(crate) fn open_sealed(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let now = self.era.lock().opening_key();
        sealing::open(&now, sealed).ok().or_else(|| {
            let before = self.keystore.keystore().eras;
            before.iter().rev().find_map(|era| sealing::open(&era.opening_key(), sealed).ok())
        })
    }

    /// Opens what devices of this identity tell only one another.
    pub(crate) fn devices_secret(&self) -> Secret {
        self.era.lock().devices_secret()
    }

    /// For whom is sealed what all devices of this identity are to open.
    pub(crate) fn recipient(&self) -> Result<Recipient, PortError> {
        sealing::recipient(&self.era.lock().opening_key()).map_err(damaged)
    }

    /// The keys of this device.
    pub(crate) fn device(&self) -> &DeviceKeys {
        &self.device
    }

    /// From now on it is told whether this device offers a volume to others.
    pub(crate) fn set_offers_of(&self, volume: VolumeId, offers: bool) {
        let mut offered = self.offered.lock();
        if offers {
            offered.insert(volume)
        } else {
            offered.remove(&volume)
        };
    }

    /// The volumes that it offers.
    pub(crate) fn offered(&self) -> BTreeSet<VolumeId> {
        self.offered.lock().clone()
    }

    /// From now on this device tells where its heads of a volume are; the last ones had these signers.
    pub(crate) fn tell(&self, volume: VolumeId, last: Vec<[u8; 32]>) {
        self.told.lock().insert(volume, last);
    }

    /// Changes what is known; it is on the disk when this returns.
    fn change_known(&self, change: impl FnOnce(&mut Known) -> Result<(), PortError>) -> Result<(), PortError> {
        let mut known = self.known.lock();
        let mut changed = known.clone();
        change(&mut changed)?;
        if changed != *known {
            changed.save(&self.file).map_err(on_disk)?;
            *known = changed;
        }
        Ok(())
    }

    fn revoked(&self) -> PortError {
        PortError::Superseded(
            "this device is not on the list of devices of its identity any more: nothing is published from here".into(),
        )
    }

    /// An error when this device was taken off the list.
    pub(crate) fn still_listed(&self) -> Result<Roster, PortError> {
        let roster = self.roster();
        match roster.device(&self.device.id()) {
            Some(_) => Ok(roster),
            None => Err(self.revoked()),
        }
    }
}
