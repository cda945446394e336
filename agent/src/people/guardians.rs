//! Guardians: who has shares of the words of this identity, and the shares of others' words that it has itself, as the
//! keystore has them.
//!
//! Whose words they are puts each share where the guardian's devices find it, sealed for them: a record at a place that
//! follows from both addresses. All devices of the one keep those records up; a device of the other takes the share from
//! there into its own keystore, so that it outlives the record.
//!
//! Invariant: of two sets the one that was made later counts, and who is in an older one only has an empty record put in the
//! place of theirs: sets of changes come to the same in any order. One of no time counts as the oldest that there is. A share
//! comes into a keystore only when the phrase of the one whose it is has signed it, for this identity.

use std::collections::BTreeMap;
use std::fmt;

use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::place::{Address, Notice, PlaceError};
use hypernet_core::identity::share::{self, Share};
use hypernet_core::limits::{GUARDIAN_NAME_MAX, GUARDIANS_MAX};
use hypernet_core::name::is_name;
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::contact::Contact;
use crate::identity::Identity;
use crate::identity::places::{At, read_here};
use crate::keystore::Keystore;
use crate::peers::Peers;
use crate::sealing;
use crate::volume::damaged;
use crate::volume::heads::YEAR_9999;
use crate::volume::recover::clock;

/// Guardians of before whose records are kept empty.
const FORMER_MAX: usize = 32;
/// Shares of others in one keystore; the newest stay.
const HELD_MAX: usize = 64;
/// Shares that are looked for at the same time.
const LOOKED_FOR_AT_ONCE: usize = 16;
/// Digits of an id by which somebody is named: fewer than are shown.
const ID_MIN: usize = 8;
/// Bits of a record's number that the counter of a clock has.
const COUNTER_BITS: u32 = 16;
/// A share that is sealed is never longer.
const SEALED_MAX: usize = 1024;

/// What a keystore has of guardians.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Guardianship {
    /// Those of this identity's words.
    #[n(0)]
    pub(crate) mine: Option<Guardians>,
    /// Shares of others' words: one of each identity, in their order.
    #[n(1)]
    pub(crate) held: Vec<Share>,
}

/// The guardians of this identity's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Guardians {
    /// When they were set, or taken back.
    #[n(0)]
    pub(crate) changed: Hlc,
    /// How many of them are enough.
    #[n(1)]
    pub(crate) threshold: u8,
    /// A passphrase belongs to the words as well.
    #[n(2)]
    pub(crate) has_passphrase: bool,
    /// Those of now as they were named, then those of before.
    #[n(3)]
    guardians: Vec<Guardian>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Guardian {
    #[n(0)]
    pub(crate) identity: IdentityId,
    #[n(1)]
    pub(crate) name: String,
    #[cbor(n(2), with = "minicbor::bytes")]
    signer: [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    secret: [u8; 16],
    /// Their share, sealed for them. Empty for one of before.
    #[cbor(n(4), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

/// Not what opens the way to them.
impl fmt::Debug for Guardian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guardian").field("identity", &self.identity).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Guardian {
    /// A contact, with their share, sealed for all devices that they have now. Those that come later have its key, too.
    pub(crate) fn with(me: &Identity, contact: &Contact, share: &Share) -> Result<Self, PortError> {
        let recipient = super::look_up_contact(me, contact)?.recipient()?;
        let sealed = sealing::seal(&[recipient], &Zeroizing::new(codec::encode(share))).map_err(damaged)?;
        Ok(Self::sealed(contact, sealed))
    }

    fn sealed(contact: &Contact, sealed: Vec<u8>) -> Self {
        let Address { signer, secret } = contact.address();
        Self { identity: contact.identity, name: contact.name.clone(), signer, secret, sealed }
    }

    /// Where they are found.
    pub(crate) fn address(&self) -> Address {
        Address { signer: self.signer, secret: self.secret }
    }

    /// Whether they are one now.
    fn is_one(&self) -> bool {
        !self.sealed.is_empty()
    }

    fn is_sound(&self) -> bool {
        is_name(&self.name, GUARDIAN_NAME_MAX) && self.sealed.len() <= SEALED_MAX
    }
}

impl Guardians {
    /// A new set. Who is in `before` and not in it is a guardian no more.
    pub(crate) fn new(
        changed: Hlc,
        threshold: u8,
        has_passphrase: bool,
        guardians: Vec<Guardian>,
        before: Option<&Self>,
    ) -> Self {
        let mut set = Self { changed, threshold, has_passphrase, guardians };
        set.take_former(before.into_iter().flat_map(|before| &before.guardians));
        set
    }

    /// The same when all are taken back.
    pub(crate) fn taken_back(&self, changed: Hlc) -> Self {
        Self::new(changed, self.threshold, self.has_passphrase, Vec::new(), Some(self))
    }

    /// When another set is made: later than this one, and with higher numbers of its records.
    pub(crate) fn next(before: Option<&Self>) -> Hlc {
        let last = before.map_or(Hlc::default(), Self::made);
        let is_full = u64::from(last.counter) >= (1 << COUNTER_BITS) - 1;
        clock(if is_full { Hlc { millis: last.millis + 1, counter: 0 } } else { last })
    }

    /// When it was made; at no time where it says one after which there is none.
    fn made(&self) -> Hlc {
        if self.changed.millis < YEAR_9999 { self.changed } else { Hlc::default() }
    }

    /// Of two the higher one counts.
    fn rank(&self) -> (Hlc, &Self) {
        (self.made(), self)
    }

    /// Those of now.
    pub(crate) fn current(&self) -> impl Iterator<Item = &Guardian> {
        self.guardians.iter().filter(|one| one.is_one())
    }

    fn take_former<'a>(&mut self, before: impl Iterator<Item = &'a Guardian>) {
        let (current, former): (Vec<_>, Vec<_>) = self.guardians.drain(..).partition(Guardian::is_one);
        let is_current = |address: &Address| current.iter().any(|one| one.address() == *address);
        let mut by_place: BTreeMap<_, Guardian> = BTreeMap::new();
        for one in former.into_iter().chain(before.cloned()).filter(|one| !is_current(&one.address())) {
            let one = Guardian { sealed: Vec::new(), ..one };
            let held = by_place.entry((one.signer, one.secret)).or_insert_with(|| one.clone());
            *held = held.clone().min(one);
        }
        self.guardians = current;
        self.guardians.extend(by_place.into_values().take(FORMER_MAX));
    }

    fn is_sound(&self) -> bool {
        let current = self.current().count();
        let threshold = usize::from(self.threshold);
        current <= GUARDIANS_MAX
            && (1..=GUARDIANS_MAX).contains(&threshold)
            && (current == 0 || threshold <= current)
            && self.guardians.len() - current <= FORMER_MAX
            && self.guardians.iter().all(Guardian::is_sound)
    }

    /// The later set has the higher one, also where the clock of the device that made it is behind and only counts on. No
    /// clock says so much that it would be the last number, which nothing replaces.
    fn number(&self) -> u64 {
        let (millis, counter) = (self.changed.millis, u64::from(self.changed.counter));
        (millis.min((u64::MAX >> COUNTER_BITS) - 1) << COUNTER_BITS) | counter.min((1 << COUNTER_BITS) - 1)
    }

    /// What is to be on the mesh: the share of each, and for each of before an empty record in its place.
    pub(crate) fn records(&self, own: &Address) -> Result<Vec<(&Guardian, Record)>, PlaceError> {
        let mut records = Vec::with_capacity(self.guardians.len());
        for one in &self.guardians {
            let place = share::place(own, &one.address());
            let here = Notice::Here(one.sealed.clone());
            records.push((one, here.publish(&place, &place.sealing_key(), self.number())?));
        }
        Ok(records)
    }
}

impl Guardianship {
    /// Takes in what another copy has, of the identity `me`.
    pub(crate) fn merge(&mut self, other: &Self, me: &IdentityId) {
        if let Some(theirs) = other.mine.clone().filter(Guardians::is_sound) {
            self.mine = Some(match self.mine.take() {
                None => theirs,
                Some(mine) => {
                    let (mut newer, older) = if mine.rank() >= theirs.rank() { (mine, theirs) } else { (theirs, mine) };
                    newer.take_former(older.guardians.iter());
                    newer
                }
            });
        }
        for share in &other.held {
            self.hold(share, me);
        }
    }

    /// Keeps a share of somebody's words, if it is signed by them, for `me`, and newer than what is there, or what is there
    /// is damaged. Returns whether it was good.
    pub(crate) fn hold(&mut self, share: &Share, me: &IdentityId) -> bool {
        if self.held.contains(share) {
            return true;
        }
        if share.guardian != *me || share.verify().is_err() {
            return false;
        }
        match self.held.iter_mut().find(|one| one.identity == share.identity) {
            Some(there) if share.replaces(there) || there.verify().is_err() => *there = share.clone(),
            Some(_) => {}
            None => self.held.push(share.clone()),
        }
        if self.held.len() > HELD_MAX {
            self.held.sort_by_key(|one| (std::cmp::Reverse(one.made), one.identity));
            self.held.truncate(HELD_MAX);
        }
        self.held.sort_by_key(|one| one.identity);
        true
    }

    /// The share of somebody's words.
    pub(crate) fn of(&self, owner: &IdentityId) -> Option<&Share> {
        self.held.iter().find(|share| share.identity == *owner)
    }

    /// The shares of the words of those whose ids begin so: who is no contact any more has no other name.
    pub(crate) fn of_id(&self, begins: &str) -> Vec<&Share> {
        let is_meant = |share: &&Share| begins.len() >= ID_MIN && share.identity.to_string().starts_with(begins);
        self.held.iter().filter(is_meant).collect()
    }
}

/// The shares of their words that these contacts have put on the mesh for the identity of `keystore`, whose address is
/// `own`; none of a contact that has put none there. One that is there and no good is an error of its own.
pub(crate) fn look_for_shares(
    peers: &Peers,
    keystore: &Keystore,
    own: &Address,
    contacts: &[Contact],
) -> Result<Vec<Result<Option<Share>, PortError>>, PortError> {
    let mut found = Vec::with_capacity(contacts.len());
    for contacts in contacts.chunks(LOOKED_FOR_AT_ONCE) {
        let places: Vec<_> = contacts.iter().map(|contact| share::place(&contact.address(), own)).collect();
        let keys: Vec<_> = places.iter().map(|place| place.record_key()).collect();
        let records = peers.lookup_all(&keys)?;
        for ((contact, place), record) in contacts.iter().zip(&places).zip(records) {
            found.push(match record.map(|record| read_here(&record, &place.sealing_key())).transpose() {
                Ok(Some(At::Here(sealed))) if !sealed.is_empty() => open(keystore, contact, &sealed).map(Some),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            });
        }
    }
    Ok(found)
}

/// Opens a share by any era that this identity has had.
fn open(keystore: &Keystore, contact: &Contact, sealed: &[u8]) -> Result<Share, PortError> {
    let name = &contact.name;
    let no_good = |why: &str| damaged(format!("what lies where {name}'s share is to be is no good: {why}"));
    let mut eras = keystore.eras.iter().rev();
    let plain = eras.find_map(|era| sealing::open(&era.opening_key(), sealed).ok());
    let plain = plain.ok_or_else(|| no_good("it is not sealed for this identity"))?;
    let share = codec::decode::<Share>(&plain).map_err(|error| no_good(&error.to_string()))?;
    share.verify().map_err(|error| no_good(&error.to_string()))?;
    if share.identity != contact.identity {
        return Err(no_good("it is of somebody else's words"));
    }
    if share.guardian != keystore.identity { Err(no_good("it is for somebody else")) } else { Ok(share) }
}

/// What the golden keystore has of them.
#[cfg(test)]
pub(crate) fn golden() -> Guardianship {
    let address = Address { signer: [6; 32], secret: [7; 16] };
    let ben = Contact::new("ben", IdentityId([0x62; 32]), address, Hlc::default());
    let guardians = vec![Guardian::sealed(&ben, b"a sealed share".to_vec())];
    let mine = Guardians::new(Hlc { millis: 10, counter: 2 }, 2, true, guardians, None);
    let share = codec::decode(&hypernet_format::all()["share"].bytes);
    Guardianship { mine: Some(mine), held: share.into_iter().collect() }
}

#[cfg(test)]
mod tests;
