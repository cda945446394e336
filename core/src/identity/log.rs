//! The devices of an identity: signed changes, each of which names by their hashes those that its author had heard of.
//!
//! Everybody keeps all changes that they have heard of and [works out](counting) for themselves which of them count, so
//! that equal sets of changes give equal lists of devices, whoever was heard first.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{DeviceId, EntryId, IdentityId};
use crate::key::is_signed;
use crate::limits::{
    DEVICE_NAME_MAX, DEVICES_BY_DEVICES_MAX, DEVICES_MAX, ROSTER_BEFORE_MAX, ROSTER_ENTRIES_BY_DEVICES_MAX,
    ROSTER_ENTRIES_MAX, ROSTER_MAX,
};
use crate::time::Hlc;

mod counting;

use counting::Outcome;

/// Digits of an id that name a device: as many as are shown.
const ID_MIN: usize = 8;
const SIGN_CONTEXT: &[u8] = b"hypernet roster entry v1\0";
const DEVICE_CONTEXT: &[u8] = b"hypernet roster device v1\0";
const ID_CONTEXT: &str = "hypernet 2026 roster entry id v1";

/// To whom something is sealed. A kind of its own for each way of sealing, so that others can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Recipient {
    /// An X25519 public key, as age uses it.
    #[n(0)]
    X25519(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Device {
    /// The key that signs for it.
    #[n(0)]
    pub id: DeviceId,
    /// What is sealed for it alone.
    #[n(1)]
    pub recipient: Recipient,
    /// What its owner calls it: a [name](crate::name) of at most [`DEVICE_NAME_MAX`] bytes.
    #[n(2)]
    pub name: String,
    /// Signer of its [beacon](crate::identity::beacon::Beacon).
    #[cbor(n(3), with = "minicbor::bytes")]
    pub beacon: [u8; 32],
    /// Ed25519 of the device itself over all the rest and the identity: whoever enrols it adds nothing of their own.
    #[cbor(n(4), with = "minicbor::bytes")]
    signature: [u8; 64],
}

impl Device {
    /// A device as it wants to be listed, signed by its key.
    pub fn sign(identity: &IdentityId, key: &SigningKey, recipient: Recipient, name: String, beacon: [u8; 32]) -> Self {
        let id = DeviceId(key.verifying_key().to_bytes());
        let mut device = Self { id, recipient, name, beacon, signature: [0; 64] };
        device.signature = key.sign(&device.signed_bytes(identity)).to_bytes();
        device
    }

    fn signed_bytes(&self, identity: &IdentityId) -> Vec<u8> {
        let unsigned = Self { signature: [0; 64], ..self.clone() };
        let mut bytes = [DEVICE_CONTEXT, identity.as_bytes()].concat();
        // Writing to a Vec is infallible.
        let _ = minicbor::encode(&unsigned, &mut bytes);
        bytes
    }

    /// Whether it has signed this itself, for that identity.
    pub fn verify(&self, identity: &IdentityId) -> Result<(), LogError> {
        verify(self.id.as_bytes(), &self.signed_bytes(identity), &self.signature)
    }
}

fn verify(key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> Result<(), LogError> {
    if is_signed(key, bytes, signature) { Ok(()) } else { Err(LogError::Signature) }
}

/// An era that begins with a change, as all may know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct NewEra {
    /// To whom is sealed what is for the identity.
    #[n(0)]
    pub recipient: Recipient,
    /// [Hash](crate::identity::posting::way_hash) of the era as it is sealed for those who may have it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub way: [u8; 32],
}

/// Who signs a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Author {
    /// Whoever has the phrase.
    #[n(0)]
    Phrase,
    /// A device that is on the list.
    #[n(1)]
    Device(#[n(0)] DeviceId),
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// A device comes onto the list. One that was taken off comes back by the phrase alone.
    #[n(0)]
    Enrol(#[n(0)] Device),
    /// A device is taken off the list.
    #[n(1)]
    Revoke(#[n(0)] DeviceId),
    /// Nothing but the era: that which counts was begun by somebody who had not heard of all revocations, or cannot be
    /// opened by all who should.
    #[n(2)]
    Rotate,
    /// By the phrase: a list begins anew, with one device on it. The others are those that there were.
    #[n(3)]
    Begin(#[n(0)] Device, #[n(1)] Vec<Device>),
}

impl Change {
    /// Who comes onto the list by it.
    fn enrols(&self) -> Option<&Device> {
        match self {
            Self::Enrol(device) | Self::Begin(device, _) => Some(device),
            Self::Revoke(_) | Self::Rotate => None,
        }
    }
}

/// One signed change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// What its author had heard of, but for what that follows: at most
    /// [`ROSTER_PREVIOUS_MAX`](crate::limits::ROSTER_PREVIOUS_MAX), of the phrase
    /// [eight times](crate::limits::ROSTER_PREVIOUS_BY_PHRASE_MAX) as many, and none where a list begins.
    #[n(0)]
    pub previous: Vec<EntryId>,
    /// Who signs it.
    #[n(1)]
    pub author: Author,
    /// When, by the author's clock. One of the phrase is after those that it follows.
    #[n(2)]
    pub time: Hlc,
    /// What changes.
    #[n(3)]
    pub change: Change,
    /// The era that it begins: the first entry does, one that revokes or rotates, and one of the phrase may.
    #[n(4)]
    pub era: Option<NewEra>,
    /// Ed25519 of the author over all the rest and the identity.
    #[cbor(n(5), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// The signed changes that somebody has heard of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Entries {
    #[n(0)]
    identity: IdentityId,
    #[n(1)]
    entries: Vec<Entry>,
}
crate::format!(Entries, tag = 0x35, version = 1, max = ROSTER_MAX, name = "roster log");

/// Why a change or a log was refused.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum LogError {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It is somebody else's.
    #[error("roster: it is of another identity")]
    Identity,
    /// The author did not sign it.
    #[error("roster: the signature of a change is not its author's")]
    Signature,
    /// There are too many changes.
    #[error("roster: more than {ROSTER_ENTRIES_MAX} changes; `hn recover` with the phrase begins a new list")]
    Full,
    /// It would not count.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Why no device is meant by a name.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum NameError {
    /// No device is called so.
    #[error("no device is called {name}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Several devices are called so, or have such an id.
    #[error("several devices are called {name}, or have an id that begins so; name one by its id: {ids}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Their ids.
        ids: String,
    },
}

/// Why a change is not signed.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum Refused {
    /// Only devices on the list change it, and the phrase.
    #[error("its author is not on the list of devices")]
    Stranger,
    /// The list begins by the phrase.
    #[error("the first device is enrolled by the phrase")]
    Beginning,
    /// It has no name, a long one, or one that is not what it looks like.
    #[error(
        "the name of a device has between 1 and {DEVICE_NAME_MAX} bytes, no blanks around it, and no characters that control \
         what is shown"
    )]
    Name,
    /// It is on the list, or another one has the same tag.
    #[error("the device is on the list already")]
    Taken,
    /// It was revoked.
    #[error("the device was revoked; only the phrase brings it back")]
    Revoked,
    /// There is no room.
    #[error("there is room for {DEVICES_MAX} devices, the last of it for those that the phrase brings; revoke one")]
    Crowded,
    /// It is not on the list.
    #[error("no such device is on the list")]
    Unknown,
    /// Nobody would be left.
    #[error("it is the only device; only the phrase replaces it")]
    Last,
    /// Nothing of what a device had may be in use once it is revoked.
    #[error("a revocation begins an era, and so does the first entry")]
    Era,
}

/// The devices that speak for an identity, as far as some log knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Whose they are.
    pub identity: IdentityId,
    /// In the order in which they were enrolled.
    pub devices: Vec<Device>,
    /// All others that any change has enrolled: revoked, or enrolled by one that was.
    pub gone: Vec<Device>,
    /// The era that counts.
    pub era: Option<NewEra>,
    /// Whoever began it had heard of all revocations. Otherwise one that was revoked may be in it, and a device that hears
    /// of it [rotates](Change::Rotate).
    pub is_sealed_off: bool,
}

impl Entry {
    fn signed_bytes(&self, identity: &IdentityId) -> Vec<u8> {
        let unsigned = Self { signature: [0; 64], ..self.clone() };
        let mut bytes = [SIGN_CONTEXT, identity.as_bytes()].concat();
        // Writing to a Vec is infallible.
        let _ = minicbor::encode(&unsigned, &mut bytes);
        bytes
    }

    /// By which others name it.
    pub fn id(&self) -> EntryId {
        let mut bytes = Vec::new();
        let _ = minicbor::encode(self, &mut bytes);
        EntryId(blake3::derive_key(ID_CONTEXT, &bytes))
    }

    fn verify(&self, identity: &IdentityId) -> Result<(), LogError> {
        let key = match &self.author {
            Author::Phrase => identity.as_bytes(),
            Author::Device(device) => device.as_bytes(),
        };
        verify(key, &self.signed_bytes(identity), &self.signature)?;
        let named = match &self.change {
            Change::Enrol(device) => std::slice::from_ref(device),
            Change::Begin(device, before) => {
                device.verify(identity)?;
                before.as_slice()
            }
            Change::Revoke(_) | Change::Rotate => &[],
        };
        named.iter().try_for_each(|device| device.verify(identity))
    }
}

/// The device that is meant. One may be called as the id of another one begins, and is not taken for it; no name is as long
/// as an id.
fn among<'a>(devices: &'a [Device], name: &str) -> Result<&'a Device, NameError> {
    let ids: Vec<String> = devices.iter().map(|device| device.id.to_string()).collect();
    let is_meant =
        |device: &Device, id: &str, name: &str| device.name == name || (name.len() >= ID_MIN && id.starts_with(name));
    let all = || devices.iter().zip(&ids);
    let meant: Vec<_> = all().filter(|(device, id)| is_meant(device, id, name)).collect();
    match meant.as_slice() {
        [(device, _)] => Ok(device),
        [] => {
            let known: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
            Err(NameError::Unknown { name: name.to_owned(), known: known.join(", ") })
        }
        several => {
            // As much of each as means no other one.
            let enough = |id: &&str| all().filter(|(device, other)| is_meant(device, other, id)).count() == 1;
            let short = several.iter().map(|(_, id)| {
                let mut begins = (ID_MIN..id.len()).filter_map(|len| id.get(..len));
                begins.find(enough).unwrap_or(id.as_str())
            });
            let ids: Vec<&str> = short.collect();
            Err(NameError::Ambiguous { name: name.to_owned(), ids: ids.join(", ") })
        }
    }
}

impl Roster {
    /// A device on the list.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == *id)
    }

    /// The device that a person means: by its name, or by the beginning of its id where that is not enough.
    pub fn named(&self, name: &str) -> Result<&Device, NameError> {
        among(&self.devices, name)
    }

    /// The device that is gone which a person means, for who asks for what it left: as [`Self::named`]. Whoever was revoked
    /// can have enrolled others of the same name.
    pub fn named_gone(&self, name: &str) -> Result<&Device, NameError> {
        among(&self.gone, name)
    }
}

/// All signed changes of one identity's devices that somebody has heard of, and what they come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    entries: BTreeMap<EntryId, Entry>,
    outcome: Outcome,
}

impl Log {
    /// One without a change.
    pub fn new(identity: IdentityId) -> Self {
        let entries = BTreeMap::new();
        Self { outcome: counting::resolve(identity, &entries), entries }
    }

    /// Whose it is.
    pub fn identity(&self) -> IdentityId {
        self.roster().identity
    }

    /// Whether nobody was ever enrolled.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Decodes what came from anywhere, and verifies the signatures in it.
    pub fn decode(bytes: &[u8], identity: &IdentityId) -> Result<Self, LogError> {
        let found: Entries = codec::decode(bytes)?;
        if found.identity != *identity {
            return Err(LogError::Identity);
        }
        let mut log = Self::new(*identity);
        log.take(found.entries)?;
        Ok(log)
    }

    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Entries { identity: self.identity(), entries: self.entries.values().cloned().collect() })
    }

    /// Takes in what another log of the same identity has. Returns whether anything has changed.
    pub fn merge(&mut self, other: &Self) -> Result<bool, LogError> {
        if other.identity() != self.identity() {
            return Err(LogError::Identity);
        }
        let new = other.entries.iter().filter(|(id, _)| !self.entries.contains_key(*id));
        let new: Vec<_> = new.map(|(id, entry)| (*id, entry.clone())).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let before: Vec<EntryId> = self.entries.keys().copied().collect();
        self.entries.extend(new);
        self.settle();
        Ok(!before.iter().eq(self.entries.keys()))
    }

    fn take(&mut self, entries: Vec<Entry>) -> Result<(), LogError> {
        if entries.len() > ROSTER_ENTRIES_MAX {
            return Err(LogError::Full);
        }
        for entry in entries {
            entry.verify(&self.identity())?;
            self.entries.insert(entry.id(), entry);
        }
        self.settle();
        Ok(())
    }

    /// Works out what counts, and forgets what never can, or what there is no room for.
    fn settle(&mut self) {
        self.outcome = counting::resolve(self.identity(), &self.entries);
        let outcome = &self.outcome;
        if outcome.kept.len() != self.entries.len() {
            self.entries.retain(|id, _| outcome.kept.contains(id));
            self.outcome = counting::resolve(self.identity(), &self.entries);
        }
    }

    /// Signs a change that follows all that counts, and takes it in.
    pub fn change(
        &mut self,
        author: Author,
        key: &SigningKey,
        now: Hlc,
        change: Change,
        era: Option<NewEra>,
    ) -> Result<EntryId, LogError> {
        self.check(author, &change, era.is_some())?;
        let begins = matches!(change, Change::Begin(..));
        let room = if author == Author::Phrase { ROSTER_ENTRIES_MAX } else { ROSTER_ENTRIES_BY_DEVICES_MAX };
        if self.outcome.counting >= room && !begins {
            return Err(LogError::Full);
        }
        let mut previous = if begins { Vec::new() } else { self.outcome.tips.clone() };
        previous.truncate(counting::previous_max(&author));
        // The phrase is needed when a clock was set back, too.
        let before = self.entries.values().filter(|entry| entry.author == Author::Phrase).map(|entry| entry.time).max();
        let time = match (author, before) {
            (Author::Phrase, Some(before)) => before.next(now.millis).max(now),
            _ => now,
        };
        let mut entry = Entry { previous, author, time, change, era, signature: [0; 64] };
        entry.signature = key.sign(&entry.signed_bytes(&self.identity())).to_bytes();
        entry.verify(&self.identity())?;
        let (id, before) = (entry.id(), self.clone());
        self.entries.insert(id, entry);
        self.settle();
        if !self.entries.contains_key(&id) {
            *self = before;
            return Err(LogError::Full);
        }
        Ok(id)
    }

    /// A change by which the phrase begins the list anew, with this device alone.
    pub fn anew(&self, device: Device) -> Change {
        let Roster { devices, gone, .. } = self.roster();
        let others = devices.iter().chain(gone).filter(|other| other.id != device.id);
        let others = others.take(ROSTER_BEFORE_MAX).cloned().collect();
        Change::Begin(device, others)
    }

    /// Whether a change would count.
    fn check(&self, author: Author, change: &Change, begins_era: bool) -> Result<(), Refused> {
        let (roster, by_phrase) = (self.roster(), author == Author::Phrase);
        match author {
            Author::Phrase => {}
            Author::Device(_) if self.is_empty() => return Err(Refused::Beginning),
            Author::Device(id) if roster.device(&id).is_none() => return Err(Refused::Stranger),
            Author::Device(_) => {}
        }
        match change {
            Change::Enrol(device) => self.check_enrolment(device, by_phrase)?,
            Change::Begin(device, _) if !counting::is_name(&device.name) => return Err(Refused::Name),
            Change::Begin(..) if !by_phrase => return Err(Refused::Beginning),
            // The phrase revokes also what somebody holds for revoked who has not heard all.
            Change::Revoke(id) => {
                let is_gone = roster.gone.iter().any(|device| device.id == *id);
                if roster.device(id).is_none() && !(by_phrase && is_gone) {
                    return Err(Refused::Unknown);
                }
                if roster.devices.iter().all(|device| device.id == *id) {
                    return Err(Refused::Last);
                }
            }
            Change::Begin(..) | Change::Rotate => {}
        }
        let (needs, may) = match change {
            Change::Enrol(_) => (self.is_empty(), by_phrase),
            Change::Revoke(_) | Change::Rotate | Change::Begin(..) => (true, true),
        };
        if needs && !begins_era || begins_era && !may { Err(Refused::Era) } else { Ok(()) }
    }

    fn check_enrolment(&self, device: &Device, by_phrase: bool) -> Result<(), Refused> {
        let roster = self.roster();
        if !counting::is_name(&device.name) {
            return Err(Refused::Name);
        }
        // Files and changes of them are named by the tag.
        let same_tag = |other: &&Device| other.id.tag() == device.id.tag();
        if roster.devices.iter().any(|other| same_tag(&other)) {
            return Err(Refused::Taken);
        }
        let before = roster.gone.iter().find(same_tag);
        if before.is_some_and(|before| !by_phrase || before.id != device.id) {
            return Err(Refused::Revoked);
        }
        // Whoever has a device could enrol as many as there is room for: that must not shut the phrase out.
        let by_phrase_alone = |device: &&Device| {
            let enrols = |entry: &Entry| entry.change.enrols().is_some_and(|other| other.id == device.id);
            self.entries.values().any(|entry| entry.author == Author::Phrase && enrols(entry))
        };
        let (taken, room) = match by_phrase {
            true => (roster.devices.iter().filter(by_phrase_alone).count(), DEVICES_MAX),
            false => (roster.devices.len(), DEVICES_BY_DEVICES_MAX),
        };
        if taken >= room { Err(Refused::Crowded) } else { Ok(()) }
    }

    /// The devices that count.
    pub fn roster(&self) -> &Roster {
        &self.outcome.roster
    }

    /// When a device that is on the list came onto it.
    pub fn enrolled(&self, id: &DeviceId) -> Option<Hlc> {
        self.outcome.enrolled.get(id).copied()
    }

    /// The devices on the list that this one has brought onto it, and that the phrase has not: whoever takes this one off,
    /// because somebody has stolen it, is to look at them, too.
    pub fn brought_by(&self, id: &DeviceId) -> Vec<Device> {
        let brings = |author: Author, device: &Device| {
            self.entries
                .values()
                .any(|entry| entry.author == author && entry.change.enrols().is_some_and(|other| other.id == device.id))
        };
        let listed = self.roster().devices.iter();
        let brought = |device: &&Device| brings(Author::Device(*id), device) && !brings(Author::Phrase, device);
        listed.filter(brought).cloned().collect()
    }

    /// The era that counts first, and then those that may count in the eyes of somebody who has not heard all.
    pub(crate) fn eras(&self) -> &[NewEra] {
        &self.outcome.eras
    }
}

#[cfg(test)]
mod tests;
