//! The roster: which devices speak for an identity, and where each publishes its heads.
//!
//! Signed by a key of the identity's that signs nothing else, sealed for the identity, hash-chained by `previous`.
//! Authority comes from here and never from a peer id.

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{DeviceId, VolumeId};
use crate::key::{DeviceKeys, IdentityKeys};
use crate::limits::{DEVICE_NAME_MAX, DEVICES_MAX, RECORD_PAYLOAD_MAX};
use crate::record::{Record, RecordError, record_key};
use crate::seal::{SealError, open_record, seal_record};
use crate::time::Hlc;

/// Digits of an id that name a device: as many as are shown.
const ID_MIN: usize = 8;
const CONTEXT: &[u8] = b"hypernet roster v1\0";
const HASH_CONTEXT: &str = "hypernet 2026 roster hash v1";

/// Where a device publishes its heads of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct HeadRecord {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Public key that signs the records.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signer: [u8; 32],
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Device {
    /// Its public key.
    #[n(0)]
    pub id: DeviceId,
    /// What its owner calls it.
    #[n(1)]
    pub name: String,
    /// Since when.
    #[n(2)]
    pub enrolled: Hlc,
    /// Its heads.
    #[n(3)]
    pub heads: Vec<HeadRecord>,
}

/// All devices of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Roster {
    /// Counts up with each change.
    #[n(0)]
    pub sequence: u64,
    /// Hash of the roster before this one; zeros in the first.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub previous: [u8; 32],
    /// The devices.
    #[n(2)]
    pub devices: Vec<Device>,
}
crate::format!(Roster, tag = 0x34, version = 1, max = RECORD_PAYLOAD_MAX, name = "roster");

/// Why a roster was refused or could not be changed.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum RosterError {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The record around it is not sound.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It was not sealed for this identity.
    #[error("roster: {0}")]
    Seal(#[from] SealError),
    /// Its sequence is not its record's.
    #[error("roster: its sequence is not that of its record")]
    Mismatch,
    /// Too many devices, or they do not fit into a record.
    #[error("the list of devices has no room for another one; `hn devices remove NAME` makes some")]
    Full,
    /// Two devices would share a tag.
    #[error("roster: the new device's tag is taken; make its keys anew")]
    TagTaken,
    /// No device is called so.
    #[error("no device is called {name}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Several devices are called so.
    #[error("several devices are called {name}; name one by its id: {ids}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their ids.
        ids: String,
    },
}

impl Roster {
    /// Adds `device` (or brings its entry up to date) for `volumes`; the chain and the sequence move on.
    pub fn enrol(&self, device: &DeviceKeys, name: &str, volumes: &[VolumeId], time: Hlc) -> Result<Self, RosterError> {
        let id = device.id();
        if self.devices.iter().any(|other| other.id != id && other.id.tag() == id.tag()) {
            return Err(RosterError::TagTaken);
        }
        let name = name.get(..name.floor_char_boundary(DEVICE_NAME_MAX)).unwrap_or_default().to_owned();
        let heads = volumes
            .iter()
            .map(|volume| HeadRecord {
                volume: *volume,
                signer: device.head_record_key(volume).verifying_key().to_bytes(),
            })
            .collect();
        let mut devices: Vec<Device> = self.devices.iter().filter(|other| other.id != id).cloned().collect();
        devices.push(Device { id, name, enrolled: time, heads });
        if devices.len() > DEVICES_MAX {
            return Err(RosterError::Full);
        }
        Ok(Self { sequence: self.sequence + 1, previous: self.hash(), devices })
    }

    /// Takes a device off; the chain and the sequence move on.
    pub fn without(&self, id: &DeviceId) -> Self {
        let devices = self.devices.iter().filter(|device| device.id != *id).cloned().collect();
        Self { sequence: self.sequence + 1, previous: self.hash(), devices }
    }

    /// The device that a person means: by its name, or by the beginning of its id where that is not enough.
    pub fn named(&self, name: &str) -> Result<&Device, RosterError> {
        let called: Vec<&Device> = self.devices.iter().filter(|device| device.name == name).collect();
        let begins = |device: &&Device| name.len() >= ID_MIN && device.id.to_string().starts_with(name);
        match called.as_slice() {
            [device] => Ok(device),
            [] => self.devices.iter().find(begins).ok_or_else(|| {
                let known: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
                RosterError::Unknown { name: name.to_owned(), known: known.join(", ") }
            }),
            several => {
                let ids: Vec<String> = several.iter().map(|device| device.id.short()).collect();
                Err(RosterError::Ambiguous { name: name.to_owned(), ids: ids.join(", ") })
            }
        }
    }

    fn hash(&self) -> [u8; 32] {
        if self.sequence == 0 { [0; 32] } else { blake3::derive_key(HASH_CONTEXT, &codec::encode(self)) }
    }

    /// Seals and signs it into the record that the mesh keeps.
    pub fn publish(&self, identity: &IdentityKeys) -> Result<Record, RosterError> {
        // The identity has one such key: it is of epoch 0, as the keys of most volumes are.
        let payload =
            seal_record(&identity.roster_key(), 0, CONTEXT, self.sequence, &codec::encode(self)).map_err(|error| {
                match error {
                    SealError::TooLong(_) => RosterError::Full,
                    other => other.into(),
                }
            })?;
        Ok(Record::sign(&identity.roster_record_key(), self.sequence, payload)?)
    }

    /// Opens a record that was fetched from [`Self::locator`].
    pub fn open(record: &Record, identity: &IdentityKeys) -> Result<Self, RosterError> {
        let plain = open_record(&identity.roster_key(), CONTEXT, record.sequence, &record.payload)?;
        let roster: Self = codec::decode(&plain)?;
        if roster.sequence != record.sequence {
            return Err(RosterError::Mismatch);
        }
        if roster.devices.len() > DEVICES_MAX {
            return Err(RosterError::Full);
        }
        Ok(roster)
    }

    /// Where an identity's roster lives.
    pub fn locator(identity: &IdentityKeys) -> crate::id::RecordKey {
        record_key(&identity.roster_record_key().verifying_key().to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Secret;

    #[test]
    fn the_record_of_a_roster_does_not_tell_whose_it_is() {
        let identity = IdentityKeys::new(Secret::new([1; 32]));
        let record = Roster::default().publish(&identity).unwrap();
        let (bytes, name) = (codec::encode(&record), identity.id().0);
        assert!(!bytes.windows(name.len()).any(|window| window == name));
    }

    #[test]
    fn devices_enrol_and_the_chain_moves_on() {
        let identity = IdentityKeys::new(Secret::new([1; 32]));
        let (laptop, desktop) = (DeviceKeys::new(Secret::new([2; 32])), DeviceKeys::new(Secret::new([3; 32])));
        let volume = VolumeId([4; 16]);
        let first = Roster::default().enrol(&laptop, "laptop", &[volume], Hlc::default()).unwrap();
        assert_eq!((first.sequence, first.previous), (1, [0; 32]));
        let second = first.enrol(&desktop, "desktop", &[volume], Hlc::default()).unwrap();
        assert_eq!((second.sequence, second.devices.len()), (2, 2));
        assert_eq!(second.previous, first.hash());
        let record = second.publish(&identity).unwrap();
        assert_eq!(record.key(), Roster::locator(&identity));
        assert_eq!(Roster::open(&record, &identity).unwrap(), second);
        assert!(Roster::open(&record, &IdentityKeys::new(Secret::new([9; 32]))).is_err());
        assert_eq!(second.enrol(&laptop, "again", &[volume], Hlc::default()).unwrap().devices.len(), 2);
    }

    fn device(i: usize) -> DeviceKeys {
        DeviceKeys::new(Secret::new([i as u8; 32]))
    }

    /// Every name and number as long as it gets.
    fn widest(devices: usize) -> Roster {
        let end = Hlc { millis: u64::MAX, counter: u32::MAX };
        let begin = Roster { sequence: u64::MAX - devices as u64, ..Roster::default() };
        (0..devices).fold(begin, |roster, i| {
            let name = format!("{i:02}{}", "ü".repeat(DEVICE_NAME_MAX));
            roster.enrol(&device(i), &name, &[VolumeId([1; 16])], end).unwrap()
        })
    }

    #[test]
    fn as_many_devices_as_may_be_fit_and_a_full_roster_says_so() {
        let identity = IdentityKeys::new(Secret::new([1; 32]));
        let full = widest(DEVICES_MAX);
        assert_eq!((full.sequence, full.devices[0].name.len()), (u64::MAX, DEVICE_NAME_MAX));
        let record = full.publish(&identity).unwrap();
        assert_eq!(Roster::open(&record, &identity).unwrap(), full);
        let full = Roster { sequence: 1, ..full };
        let more = |roster: &Roster, i| roster.enrol(&device(i), "one more", &[], Hlc::default());
        assert_eq!(more(&full, DEVICES_MAX), Err(RosterError::Full));
        assert!(more(&full, 7).is_ok(), "a device that is listed changes its entry");
        let less = full.without(&device(3).id());
        assert_eq!((less.sequence, less.previous, less.devices.len()), (2, full.hash(), DEVICES_MAX - 1));
        assert!(less.devices.iter().all(|other| other.id != device(3).id()));
        assert!(more(&less, DEVICES_MAX).is_ok());
    }

    #[test]
    fn a_device_is_named_by_name_or_by_the_beginning_of_its_id() {
        let roster = ["vm", "laptop", "vm"]
            .iter()
            .enumerate()
            .fold(Roster::default(), |roster, (i, name)| roster.enrol(&device(i), name, &[], Hlc::default()).unwrap());
        assert_eq!(roster.named("laptop").unwrap().id, device(1).id());
        let ids = format!("{}, {}", device(0).id().short(), device(2).id().short());
        assert_eq!(roster.named("vm"), Err(RosterError::Ambiguous { name: "vm".into(), ids }));
        assert_eq!(roster.named(&device(2).id().short()).unwrap().id, device(2).id());
        let known = "vm, laptop, vm".to_owned();
        assert_eq!(roster.named("phone"), Err(RosterError::Unknown { name: "phone".into(), known: known.clone() }));
        // The beginning of nearly every id is the beginning of none.
        assert_eq!(roster.named(""), Err(RosterError::Unknown { name: String::new(), known }));
    }
}
