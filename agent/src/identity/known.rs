//! What is known of an identity that is no secret: the record of its signpost, and what it posts; and what this device has
//! put on the mesh of it.

use std::fs;
use std::path::Path;

use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::era::Era;
use hypernet_core::identity::log::{Author, Change, Device, Log, LogError, NewEra, Recipient, Refused};
use hypernet_core::identity::place::{Address, PlaceError, Signpost};
use hypernet_core::identity::posting::{Posting, way_hash};
use hypernet_core::key::{DeviceKeys, RecoveryKeys};
use hypernet_core::limits::{DEVICE_NAME_MAX, POSTING_MAX};
use hypernet_core::name::filtered;
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::config::PUT_BACK;
use crate::failure::{Failure, Kind};
use crate::files;
use crate::keystore::Keystore;
use crate::sealing::{self, SealingError};
use crate::volume::damaged;

const CONTENT_CONTEXT: &str = "hypernet 2026 content of a known keystore v1";

/// What was put at a place last, or found there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Put {
    /// The highest number that was seen there.
    #[n(0)]
    pub(crate) number: u64,
    /// Its record, while what it says is what is known.
    #[n(1)]
    pub(crate) record: Option<Record>,
    /// Of what it says, where that is secret.
    #[cbor(n(2), with = "minicbor::bytes")]
    hash: [u8; 32],
}

fn content(keystore: &Keystore) -> [u8; 32] {
    blake3::derive_key(CONTENT_CONTEXT, &Zeroizing::new(codec::encode(keystore)))
}

impl Put {
    /// A record; whether what it says is what is known.
    pub(crate) fn of(record: Record, is_all: bool) -> Self {
        Self { number: record.sequence, record: Some(record).filter(|_| is_all), hash: [0; 32] }
    }

    /// The record of a keystore.
    pub(crate) fn of_keystore(record: Record, keystore: &Keystore) -> Self {
        Self { number: record.sequence, record: Some(record), hash: content(keystore) }
    }

    /// Whether this keystore is what the record holds.
    pub(crate) fn is_of(&self, keystore: &Keystore) -> bool {
        self.hash == content(keystore)
    }
}

/// As it lies in its file.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Filed {
    #[n(0)]
    signpost: Record,
    #[cbor(n(1), with = "minicbor::bytes")]
    secret: [u8; 16],
    #[cbor(n(2), with = "minicbor::bytes")]
    posting: Vec<u8>,
    #[n(3)]
    posted: Put,
    #[n(4)]
    kept: Put,
    #[n(5)]
    beacon: u64,
}
hypernet_core::format!(Filed, tag = 0x52, version = 2, max = POSTING_MAX + (32 << 10), name = "known identity");

/// What is known of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) signpost: Record,
    /// What opens it.
    secret: [u8; 16],
    pub(crate) posting: Posting,
    /// At the place of the roster.
    pub(crate) posted: Put,
    /// At the place of the keystore.
    pub(crate) kept: Put,
    /// The highest number of this device's beacon.
    pub(crate) beacon: u64,
}

/// The name of a device as a roster can have it: that of the machine may be any.
pub(crate) fn device_name(name: &str) -> String {
    let name = filtered(name, DEVICE_NAME_MAX);
    if name.is_empty() { "device".to_owned() } else { name }
}

/// How a roster of this identity lists a device.
pub(crate) fn listed(identity: &IdentityId, device: &DeviceKeys, name: &str) -> Result<Device, SealingError> {
    let recipient = sealing::recipient(&device.opening_key())?;
    let beacon = Beacon::place(device).signer();
    Ok(Device::sign(identity, &device.signing_key(), recipient, device_name(name), beacon))
}

/// The phrase enrols a device. A list that begins, or is full and begins anew, needs an era.
pub(crate) fn enrol_by_phrase(
    log: &mut Log,
    phrase: &RecoveryKeys,
    device: &Device,
    now: Hlc,
    era: NewEra,
) -> Result<(), LogError> {
    match log.change(Author::Phrase, &phrase.signing_key(), now, Change::Enrol(device.clone()), None) {
        Err(LogError::Refused(Refused::Era) | LogError::Full) => enrol_in_new_era(log, phrase, device, now, era),
        other => other.map(drop),
    }
}

/// The same, and an era begins in any case.
pub(crate) fn enrol_in_new_era(
    log: &mut Log,
    phrase: &RecoveryKeys,
    device: &Device,
    now: Hlc,
    era: NewEra,
) -> Result<(), LogError> {
    let key = phrase.signing_key();
    match log.change(Author::Phrase, &key, now, Change::Enrol(device.clone()), Some(era)) {
        Err(LogError::Full) => {
            let begin = log.anew(device.clone());
            log.change(Author::Phrase, &key, now, begin, Some(era)).map(drop)
        }
        other => other.map(drop),
    }
}

/// An era sealed for those who may have it, and how a change names it.
pub(crate) fn seal_era(era: &Era, for_whom: &[Recipient]) -> Result<(NewEra, Vec<u8>), SealingError> {
    let way = sealing::seal(for_whom, &Zeroizing::new(codec::encode(era)))?;
    let recipient = sealing::recipient(&era.opening_key())?;
    Ok((NewEra { recipient, way: way_hash(&way) }, way))
}

/// A signpost that leads to an era.
pub(crate) fn signpost(phrase: &RecoveryKeys, era: &Era, sequence: u64) -> Result<Record, PortError> {
    let recipient = sealing::recipient(&phrase.opening_key()).map_err(damaged)?;
    Signpost::publish(era.door(), recipient, phrase, sequence).map_err(damaged)
}

impl Known {
    /// Nothing of it is on the mesh as far as this device knows.
    pub(crate) fn new(signpost: Record, address: Address, posting: Posting) -> Self {
        let (posted, kept) = (Put::default(), Put::default());
        Self { signpost, secret: address.secret, posting, posted, kept, beacon: 0 }
    }

    /// Of a new identity with one device.
    pub(crate) fn create(
        phrase: &RecoveryKeys,
        keystore: &Keystore,
        device: &DeviceKeys,
        name: &str,
        now: Hlc,
    ) -> Result<Self, Failure> {
        let failed =
            |error: &dyn std::fmt::Display| Failure::new(Kind::System, format!("cannot make an identity: {error}"));
        let era = &keystore.eras.last().ok_or_else(|| failed(&"it has no era"))?;
        let device = listed(&phrase.id(), device, name).map_err(|error| failed(&error))?;
        let (new, way) = seal_era(era, &[keystore.phrase, device.recipient]).map_err(|error| failed(&error))?;
        let mut posting = Posting::new(Log::new(phrase.id()));
        posting.change(|log| enrol_by_phrase(log, phrase, &device, now, new)).map_err(|error| failed(&error))?;
        posting.add_way(way);
        let signpost = signpost(phrase, era, 1).map_err(|error| failed(&error))?;
        Ok(Self::new(signpost, Address::of(phrase), posting))
    }

    /// By which the identity is found.
    pub(crate) fn address(&self) -> Address {
        Address { signer: self.signpost.signer, secret: self.secret }
    }

    /// What the signpost says; an error where the identity that it names has not signed it.
    pub(crate) fn signposted(&self) -> Result<Signpost, PlaceError> {
        Signpost::open(&self.signpost, &self.address())
    }

    /// Takes in what is posted.
    pub(crate) fn merge(&mut self, posting: &Posting) -> Result<(), PortError> {
        self.change(|mine| mine.merge(posting).map(drop).map_err(damaged))
    }

    /// Changes what is to be posted.
    pub(crate) fn change(
        &mut self,
        change: impl FnOnce(&mut Posting) -> Result<(), PortError>,
    ) -> Result<(), PortError> {
        let before = self.posting.clone();
        change(&mut self.posting)?;
        if self.posting != before {
            self.posted.record = None;
        }
        Ok(())
    }

    pub(crate) fn load(path: &Path, identity: &IdentityId) -> Result<Self, Failure> {
        let bytes = fs::read(path).map_err(|error| {
            Failure::new(Kind::NoInput, format!("cannot read {}: {error}", path.display())).hint(PUT_BACK)
        })?;
        Self::from_bytes(&bytes, identity).map_err(|error| {
            Failure::new(Kind::Data, format!("{} cannot be used: {error}", path.display())).hint(PUT_BACK)
        })
    }

    /// As it was written down or handed over; all signatures in it are verified.
    pub(crate) fn from_bytes(bytes: &[u8], identity: &IdentityId) -> Result<Self, LogError> {
        let Filed { signpost, secret, posting, posted, kept, beacon } = codec::decode(bytes)?;
        let posting = Posting::decode(&posting, identity)?;
        Ok(Self { signpost, secret, posting, posted, kept, beacon })
    }

    /// To be written down, or handed over.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self { signpost, secret, posting, posted, kept, beacon } = self.clone();
        codec::encode(&Filed { signpost, secret, posting: posting.encode(), posted, kept, beacon })
    }

    /// Writes it, atomically.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        files::write_secret(path, &self.to_bytes())
    }
}
