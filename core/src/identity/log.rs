//! The devices of an identity: signed changes, each of which names the one before it by its hash.
//!
//! Everybody keeps all changes that they have heard of and works out for themselves which of them count, so that equal
//! sets of changes give equal lists of devices. Where two follow the same one, a device's list must not depend on whom
//! it heard first:
//!
//! - the phrase comes first: all that leads to the newest change that was signed by it counts;
//! - after that, at each fork the branch that the device enrolled first has begun.
//!
//! So nobody gets stuck when two devices revoke each other at once, and a stolen device can fight the revocation by a
//! device that was enrolled later than itself, but not one by the phrase. Changes that do not count are kept as what
//! was lost: whoever made one makes it again, if they still want it and still may.
//!
//! Times order the changes of the phrase among themselves, and nothing else: a device could name any.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{DeviceId, EntryId, IdentityId};
use crate::limits::{DEVICE_NAME_MAX, DEVICES_MAX, ROSTER_ENTRIES_MAX, ROSTER_LOST_MAX, ROSTER_MAX};
use crate::time::Hlc;

const SIGN_CONTEXT: &[u8] = b"hypernet roster entry v1\0";
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
    /// What its owner calls it: at most [`DEVICE_NAME_MAX`] bytes.
    #[n(2)]
    pub name: String,
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
}

/// One signed change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Entry {
    /// What it follows; zeros for the first of all.
    #[n(0)]
    pub previous: EntryId,
    /// Who signs it.
    #[n(1)]
    pub author: Author,
    /// When, by the author's clock. One of the phrase is after those that it follows.
    #[n(2)]
    pub time: Hlc,
    /// What changes.
    #[n(3)]
    pub change: Change,
    /// To whom is sealed what is for the identity, from here on; the first entry has one, and one that revokes.
    #[n(4)]
    pub recipient: Option<Recipient>,
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

/// Why a change does not count after what is before it.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum Refused {
    /// Only devices on the list change it, and the phrase.
    #[error("its author is not on the list of devices")]
    Stranger,
    /// The list begins by the phrase.
    #[error("the first device is enrolled by the phrase")]
    Beginning,
    /// It does not come after what it follows.
    #[error("the phrase dates it before another of its changes that it follows")]
    Time,
    /// It has no name, or a long one.
    #[error("the name of a device has between 1 and {DEVICE_NAME_MAX} bytes")]
    Name,
    /// It is on the list, or another one has the same tag.
    #[error("the device is on the list already")]
    Taken,
    /// It was revoked.
    #[error("the device was revoked; only the phrase brings it back")]
    Revoked,
    /// There is no room.
    #[error("there are {DEVICES_MAX} devices, and no more may be; revoke one")]
    Crowded,
    /// It is not on the list.
    #[error("no such device is on the list")]
    Unknown,
    /// Nobody would be left.
    #[error("it is the only device; only the phrase replaces it")]
    Last,
    /// What is for the identity must be sealed to somebody else once a device is revoked.
    #[error("a revocation names whom to seal to from there on, and so does the first entry")]
    Recipient,
}

/// The devices that speak for an identity, as far as some log knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// Whose they are.
    pub identity: IdentityId,
    /// In the order in which they were enrolled.
    pub devices: Vec<Device>,
    /// Devices that were taken off.
    pub revoked: Vec<Device>,
    /// To whom is sealed what is for the identity.
    pub recipient: Option<Recipient>,
    /// The last change that counts; zeros when there is none.
    pub tip: EntryId,
    /// Changes that count.
    pub length: usize,
    /// When the phrase signed last.
    by_phrase: Option<Hlc>,
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
        VerifyingKey::from_bytes(key)
            .and_then(|key| key.verify_strict(&self.signed_bytes(identity), &Signature::from_bytes(&self.signature)))
            .map_err(|_| LogError::Signature)
    }
}

impl Roster {
    fn nobody(identity: IdentityId) -> Self {
        Self {
            identity,
            devices: Vec::new(),
            revoked: Vec::new(),
            recipient: None,
            tip: EntryId([0; 32]),
            length: 0,
            by_phrase: None,
        }
    }

    /// A device on the list.
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == *id)
    }

    /// How early an author was enrolled; the phrase was before all.
    fn rank(&self, author: &Author) -> Option<usize> {
        match author {
            Author::Phrase => Some(0),
            Author::Device(id) => self.devices.iter().position(|device| device.id == *id).map(|at| at + 1),
        }
    }

    /// The list after one more change.
    fn after(&self, entry: &Entry, id: EntryId) -> Result<Self, Refused> {
        self.rank(&entry.author).ok_or(Refused::Stranger)?;
        if self.length == 0 && entry.author != Author::Phrase {
            return Err(Refused::Beginning);
        }
        if entry.author == Author::Phrase && self.by_phrase.is_some_and(|time| entry.time <= time) {
            return Err(Refused::Time);
        }
        let mut next = self.clone();
        match &entry.change {
            Change::Enrol(device) => next.enrol(device, entry.author)?,
            Change::Revoke(id) => {
                let at = next.devices.iter().position(|device| device.id == *id).ok_or(Refused::Unknown)?;
                if next.devices.len() == 1 {
                    return Err(Refused::Last);
                }
                let device = next.devices.remove(at);
                next.revoked.push(device);
            }
        }
        let needs_one = self.length == 0 || matches!(entry.change, Change::Revoke(_));
        if needs_one != entry.recipient.is_some() {
            return Err(Refused::Recipient);
        }
        next.recipient = entry.recipient.or(self.recipient);
        next.tip = id;
        next.length += 1;
        if entry.author == Author::Phrase {
            next.by_phrase = Some(entry.time);
        }
        Ok(next)
    }

    fn enrol(&mut self, device: &Device, author: Author) -> Result<(), Refused> {
        if device.name.is_empty() || device.name.len() > DEVICE_NAME_MAX {
            return Err(Refused::Name);
        }
        // Files and changes of them are named by the tag.
        if self.devices.iter().any(|other| other.id.tag() == device.id.tag()) {
            return Err(Refused::Taken);
        }
        let before = self.revoked.iter().position(|other| other.id.tag() == device.id.tag());
        match before {
            Some(at) if author == Author::Phrase && self.revoked[at].id == device.id => drop(self.revoked.remove(at)),
            Some(_) => return Err(Refused::Revoked),
            None => {}
        }
        if self.devices.len() == DEVICES_MAX {
            return Err(Refused::Crowded);
        }
        self.devices.push(device.clone());
        Ok(())
    }
}

/// All signed changes of one identity's devices that somebody has heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    identity: IdentityId,
    entries: BTreeMap<EntryId, Entry>,
}

impl Log {
    /// One without a change.
    pub fn new(identity: IdentityId) -> Self {
        Self { identity, entries: BTreeMap::new() }
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
        codec::encode(&Entries { identity: self.identity, entries: self.entries.values().cloned().collect() })
    }

    /// Takes in what another log of the same identity has. Returns whether that was anything new.
    pub fn merge(&mut self, other: &Self) -> Result<bool, LogError> {
        if other.identity != self.identity {
            return Err(LogError::Identity);
        }
        let before = self.entries.len();
        let new = other.entries.iter().filter(|(id, _)| !self.entries.contains_key(*id));
        let new: Vec<_> = new.map(|(id, entry)| (*id, entry.clone())).collect();
        self.entries.extend(new);
        self.prune()?;
        Ok(self.entries.len() != before)
    }

    fn take(&mut self, entries: Vec<Entry>) -> Result<(), LogError> {
        if entries.len() > ROSTER_ENTRIES_MAX + ROSTER_LOST_MAX {
            return Err(LogError::Full);
        }
        for entry in entries {
            entry.verify(&self.identity)?;
            self.entries.insert(entry.id(), entry);
        }
        self.prune()
    }

    /// Signs a change that follows all that counts, and takes it in. Where that has become too much, the phrase begins
    /// anew, with nobody on the list.
    pub fn change(
        &mut self,
        author: Author,
        key: &SigningKey,
        now: Hlc,
        change: Change,
        recipient: Option<Recipient>,
    ) -> Result<EntryId, LogError> {
        let mut roster = self.roster();
        // The phrase is needed when a clock was set back, too.
        let time = roster.by_phrase.map_or(now, |before| before.next(now.millis).max(now));
        if roster.length >= ROSTER_ENTRIES_MAX {
            if author != Author::Phrase {
                return Err(LogError::Full);
            }
            roster = Roster::nobody(self.identity);
        }
        let mut entry = Entry { previous: roster.tip, author, time, change, recipient, signature: [0; 64] };
        entry.signature = key.sign(&entry.signed_bytes(&self.identity)).to_bytes();
        entry.verify(&self.identity)?;
        let id = entry.id();
        roster.after(&entry, id)?;
        self.entries.insert(id, entry);
        Ok(id)
    }

    /// The devices that count.
    pub fn roster(&self) -> Roster {
        self.resolve().0
    }

    /// Changes that would count if others did not: two who changed the list at once, or somebody who forks it.
    pub fn lost(&self) -> Vec<&Entry> {
        let (_, counting) = self.resolve();
        let valid = self.valid();
        self.entries
            .iter()
            .filter(|(id, _)| valid.contains_key(*id) && !counting.contains(*id))
            .map(|(_, e)| e)
            .collect()
    }

    fn after(&self) -> BTreeMap<EntryId, Vec<EntryId>> {
        let mut after: BTreeMap<EntryId, Vec<EntryId>> = BTreeMap::new();
        for (id, entry) in &self.entries {
            after.entry(entry.previous).or_default().push(*id);
        }
        after
    }

    /// The list of devices after each entry that may stand where it stands.
    fn valid(&self) -> BTreeMap<EntryId, Roster> {
        let after = self.after();
        let mut valid = BTreeMap::new();
        let mut open = vec![Roster::nobody(self.identity)];
        while let Some(roster) = open.pop() {
            for id in after.get(&roster.tip).into_iter().flatten() {
                if let Some(entry) = self.entries.get(id)
                    && let Ok(next) = roster.after(entry, *id)
                {
                    valid.insert(*id, next.clone());
                    open.push(next);
                }
            }
        }
        valid
    }

    /// The devices that count, and the changes by which they do.
    fn resolve(&self) -> (Roster, BTreeSet<EntryId>) {
        let valid = self.valid();
        let by_phrase = |id: &&EntryId| self.entries[*id].author == Author::Phrase;
        let newest = valid.keys().filter(by_phrase).max_by_key(|id| (self.entries[*id].time, **id));
        let Some(newest) = newest else { return (Roster::nobody(self.identity), BTreeSet::new()) };
        let mut counting = BTreeSet::new();
        let mut at = *newest;
        while let Some(entry) = self.entries.get(&at) {
            counting.insert(at);
            at = entry.previous;
        }
        let after = self.after();
        let mut roster = &valid[newest];
        loop {
            let next = after.get(&roster.tip).into_iter().flatten().filter(|id| valid.contains_key(*id));
            let Some(best) = next.min_by_key(|id| (roster.rank(&self.entries[*id].author), **id)) else { break };
            counting.insert(*best);
            roster = &valid[best];
        }
        (roster.clone(), counting)
    }

    /// Forgets what can never count, and the oldest of what was lost.
    fn prune(&mut self) -> Result<(), LogError> {
        let (roster, counting) = self.resolve();
        if roster.length > ROSTER_ENTRIES_MAX {
            return Err(LogError::Full);
        }
        let lost = self.entries.iter().filter(|(id, _)| !counting.contains(*id));
        let mut lost: Vec<_> = lost.map(|(id, entry)| (entry.time, *id)).collect();
        lost.sort_unstable();
        for (_, id) in lost.iter().rev().skip(ROSTER_LOST_MAX) {
            self.entries.remove(id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
