//! The roster: which devices speak for an identity, and where each publishes its heads.
//!
//! Signed by the identity's key (it is the record's signer), sealed for the identity, hash-chained by `previous`.
//! Authority comes from here and never from a peer id.

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{DeviceId, VolumeId};
use crate::key::{DeviceKeys, IdentityKeys};
use crate::limits::{DEVICES_MAX, RECORD_PAYLOAD_MAX};
use crate::record::{Record, RecordError, record_key};
use crate::seal::{SealError, open_record, seal_record};
use crate::time::Hlc;

const CONTEXT: &[u8] = b"hypernet roster v1\0";
const HASH_CONTEXT: &str = "hypernet 2026 roster hash v1";
/// Longest device name in bytes.
pub const DEVICE_NAME_MAX: usize = 64;

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
    #[error("roster: it has no room for another device; remove one first")]
    Full,
    /// Two devices would share a tag.
    #[error("roster: the new device's tag is taken; make its keys anew")]
    TagTaken,
}

impl Roster {
    /// Adds `device` (or brings its entry up to date) for `volumes`; the chain and the sequence move on.
    pub fn enrol(&self, device: &DeviceKeys, name: &str, volumes: &[VolumeId], time: Hlc) -> Result<Self, RosterError> {
        let id = device.id();
        if self.devices.iter().any(|other| other.id != id && other.id.tag() == id.tag()) {
            return Err(RosterError::TagTaken);
        }
        let name: String = name.chars().take(DEVICE_NAME_MAX / 4).collect();
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
        Ok(Record::sign(&identity.signing_key(), self.sequence, payload)?)
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
        record_key(&identity.signing_key().verifying_key().to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Secret;

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

    #[test]
    fn a_full_roster_says_so() {
        let identity = IdentityKeys::new(Secret::new([1; 32]));
        let mut roster = Roster::default();
        let outcome = (0..=255u8).try_for_each(|i| {
            let device = DeviceKeys::new(Secret::new([i; 32]));
            roster = roster.enrol(&device, "a device with a name", &[VolumeId([1; 16])], Hlc::default())?;
            roster.publish(&identity).map(drop)
        });
        assert_eq!(outcome, Err(RosterError::Full));
        assert!(roster.devices.len() > 16, "only {} devices fit", roster.devices.len());
    }
}
