//! Where what an identity has is found on the mesh.
//!
//! It lies at *places*: records of keys that follow from an [era](super::era), which all devices have. A device that was
//! revoked has them, too; so a revocation begins another era, and the record at the *end* of the old one, which nothing
//! replaces, says where that is. The first way in is the *signpost*, a record of a key of the phrase's own, which no device
//! has:
//!
//! ```text
//! address ─► signpost ─► door of an era ─► (end ─► door of the next) ─► roster, and the sealed way to the era
//!                                                                       └─► keystore, sealed
//! ```
//!
//! Who has the [address](Address) of an identity finds its roster; who keeps the records learns neither whose they are nor
//! which of them belong together. An address and an identity belong together because both sign: the address signs the record
//! of the signpost, and in it the identity signs the address. So nobody puts another identity's name at an address of their
//! own. Whoever has an era can spoil what is at its places, and not forge it: a roster is
//! believed by its signatures, an era because a change of the roster names its way, a keystore by its seal. And the phrase
//! can put up another signpost.

use std::fmt;

use ed25519_dalek::{Signer, SigningKey};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{IdentityId, RecordKey, VolumeId};
use crate::identity::era::Door;
use crate::identity::log::Recipient;
use crate::key::{RecoveryKeys, Secret, VolumeKeys, is_signed};
use crate::limits::RECORD_PAYLOAD_MAX;
use crate::record::{LAST, Record, RecordError, record_key};
use crate::seal::{ExtentRef, SealError, open_record, seal_record};
use crate::segment::Placement;

const SIGNPOST_CONTEXT: &[u8] = b"hypernet signpost v1\0";
const ADDRESS_CONTEXT: &[u8] = b"hypernet address v1\0";
const NOTICE_CONTEXT: &[u8] = b"hypernet notice v1\0";
const SIGNPOST_KEY_CONTEXT: &str = "hypernet 2026 signpost sealing key v1";
const CONTACTS_CONTEXT: &str = "hypernet 2026 secret of two contacts v1";
const ROSTER_KEY_CONTEXT: &str = "hypernet 2026 roster sealing key v1";

/// Why what was found is not believed, or could not be put up.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum PlaceError {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The record around it is not sound.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is not for this identity, this phrase or this place.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// Whoever has the address names an identity that has not signed it.
    #[error("the identity that it names has not signed this address")]
    Identity,
}

/// A record's key, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(Secret);

impl Place {
    /// The place of a random secret.
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The secret.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    fn signing_key(&self) -> SigningKey {
        self.0.derive("hypernet 2026 place signing key v1", &[]).signing_key()
    }

    /// Public half of the key that signs its record.
    pub fn signer(&self) -> [u8; 32] {
        self.signing_key().verifying_key().to_bytes()
    }

    /// Where its record lives.
    pub fn record_key(&self) -> RecordKey {
        record_key(&self.signer())
    }

    /// Seals what is there so that only who has the place reads it.
    pub fn sealing_key(&self) -> Secret {
        self.0.derive("hypernet 2026 place sealing key v1", &[])
    }

    /// Keys for what does not fit into its record: a volume of its own, which has no tree.
    pub fn keys(&self) -> VolumeKeys {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0.derive("hypernet 2026 place volume id v1", &[]).expose()[..16]);
        VolumeKeys::new(VolumeId(id), 0, self.0.derive("hypernet 2026 place volume secret v1", &[]))
    }
}

/// Seals the records of rosters, beacons and ends: whoever knows the identity reads them.
pub fn roster_sealing_key(identity: &IdentityId) -> Secret {
    Secret::new(blake3::derive_key(ROSTER_KEY_CONTEXT, identity.as_bytes()))
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Notice {
    /// It is here, in the record.
    #[n(0)]
    Here(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// It is here, in a segment of its own.
    #[n(1)]
    Placed(#[n(0)] ExtentRef, #[n(1)] Placement),
    /// The era has ended, and this is the door of the next one. Nothing comes after this.
    #[n(2)]
    Ended(#[n(0)] Door),
}
crate::format!(Notice, tag = 0x37, version = 1, max = RECORD_PAYLOAD_MAX, name = "notice");

impl Notice {
    /// The record of a place. The end gets the last number that there is, whatever `sequence` says.
    pub fn publish(&self, place: &Place, key: &Secret, sequence: u64) -> Result<Record, PlaceError> {
        let sequence = if matches!(self, Self::Ended(_)) { LAST } else { sequence.min(LAST - 1) };
        let payload = seal_record(key, NOTICE_CONTEXT, sequence, &codec::encode(self))?;
        Ok(Record::sign(&place.signing_key(), sequence, payload)?)
    }

    /// Opens the record that was found at a place.
    pub fn open(record: &Record, key: &Secret) -> Result<Self, PlaceError> {
        let plain = open_record(key, NOTICE_CONTEXT, record.sequence, &record.payload)?;
        Ok(codec::decode(&plain)?)
    }
}

/// By which an identity is found: what its owner gives to those who are to know it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Signer of the signpost's record.
    pub signer: [u8; 32],
    /// What opens it, which who keeps the record does not have.
    pub secret: [u8; 16],
}

/// Not what opens the signpost.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Address {
    /// Of the identity with these words.
    pub fn of(phrase: &RecoveryKeys) -> Self {
        Self { signer: phrase.signpost_key().verifying_key().to_bytes(), secret: phrase.signpost_secret() }
    }

    /// Where its signpost is.
    pub fn record_key(&self) -> RecordKey {
        record_key(&self.signer)
    }

    /// What two identities have in common who know each other's address, whichever of them asks. Whoever knows both addresses
    /// has it, too: it hides who knows whom from everybody else, and proves nothing.
    pub fn secret_with(&self, other: &Self) -> Secret {
        let mut both = [self, other].map(|one| [&one.signer[..], &one.secret].concat());
        both.sort_unstable();
        Secret::new(blake3::derive_key(CONTACTS_CONTEXT, &both.concat()))
    }

    fn sealing_key(&self) -> Secret {
        Secret::new(blake3::derive_key(SIGNPOST_KEY_CONTEXT, &[&self.signer[..], &self.secret].concat()))
    }
}

/// The first way to what an identity has on the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Signpost {
    /// Whose it is.
    #[n(0)]
    pub identity: IdentityId,
    /// Where its roster was when this was put up.
    #[n(1)]
    pub door: Door,
    /// Who has the words: for whom the keystore is sealed besides the devices. A device does not say who that is.
    #[n(2)]
    pub phrase: Recipient,
    /// Ed25519 of the identity over the signer of the address and `phrase`.
    #[cbor(n(3), with = "minicbor::bytes")]
    signature: [u8; 64],
}
crate::format!(Signpost, tag = 0x36, version = 2, max = RECORD_PAYLOAD_MAX, name = "signpost");

/// What the identity signs. The door is not in it: it changes, and who has the words signs the record.
fn address_bytes(signer: &[u8; 32], phrase: &Recipient) -> Vec<u8> {
    let mut bytes = [ADDRESS_CONTEXT, signer].concat();
    // Writing to a Vec is infallible.
    let _ = minicbor::encode(phrase, &mut bytes);
    bytes
}

impl Signpost {
    /// As whoever has the words puts it up; `recipient` is for whom is sealed what the words open.
    pub fn sign(door: Door, recipient: Recipient, phrase: &RecoveryKeys) -> Self {
        let bytes = address_bytes(&Address::of(phrase).signer, &recipient);
        let signature = phrase.signing_key().sign(&bytes).to_bytes();
        Self { identity: phrase.id(), door, phrase: recipient, signature }
    }

    /// Its record. A higher `sequence` replaces an older one.
    pub fn publish(
        door: Door,
        recipient: Recipient,
        phrase: &RecoveryKeys,
        sequence: u64,
    ) -> Result<Record, PlaceError> {
        Self::sign(door, recipient, phrase).seal(&phrase.signpost_key(), &Address::of(phrase), sequence)
    }

    fn seal(&self, key: &SigningKey, address: &Address, sequence: u64) -> Result<Record, PlaceError> {
        let payload = seal_record(&address.sealing_key(), SIGNPOST_CONTEXT, sequence, &codec::encode(self))?;
        Ok(Record::sign(key, sequence, payload)?)
    }

    /// Opens the record that was found at an address. Whose it is it says itself, and that identity has signed the address.
    pub fn open(record: &Record, address: &Address) -> Result<Self, PlaceError> {
        if record.signer != address.signer {
            return Err(RecordError::WrongKey.into());
        }
        let plain = open_record(&address.sealing_key(), SIGNPOST_CONTEXT, record.sequence, &record.payload)?;
        let found: Self = codec::decode(&plain)?;
        let bytes = address_bytes(&address.signer, &found.phrase);
        match is_signed(found.identity.as_bytes(), &bytes, &found.signature) {
            true => Ok(found),
            false => Err(PlaceError::Identity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(byte: u8) -> RecoveryKeys {
        RecoveryKeys::new(&[byte; 64])
    }

    fn place(byte: u8) -> Place {
        Place::new(Secret::new([byte; 32]))
    }

    fn words(byte: u8) -> Recipient {
        Recipient::X25519([byte; 32])
    }

    fn door(byte: u8) -> Door {
        Door { roster: [byte; 32], end: [byte + 1; 32] }
    }

    #[test]
    fn a_signpost_leads_who_has_the_address_to_the_roster() {
        let (mine, others) = (phrase(1), phrase(2));
        let record = Signpost::publish(door(1), words(1), &mine, 7).unwrap();
        let address = Address::of(&mine);
        assert_eq!(record.key(), address.record_key());
        let found = Signpost::open(&record, &address).unwrap();
        assert_eq!((found.identity, found.door, found.phrase), (mine.id(), door(1), words(1)));
        assert!(Signpost::open(&record, &Address::of(&others)).is_err());
        // Who keeps it has all of the address but what opens it.
        assert!(Signpost::open(&record, &Address { secret: [0; 16], ..address }).is_err());
        let bytes = codec::encode(&record);
        assert!(!bytes.windows(32).any(|part| part == door(1).roster || part == mine.id().as_bytes()));
        // Nobody but the phrase puts one up.
        let forged = Signpost::publish(door(3), words(2), &others, 8).unwrap();
        assert_eq!(Signpost::open(&forged, &address), Err(RecordError::WrongKey.into()));
    }

    /// Whoever makes an address of their own has all keys of it, and not the identity's.
    #[test]
    fn nobody_puts_another_identity_or_other_words_at_an_address() {
        let (theirs, thief) = (phrase(1), phrase(2));
        let address = Address::of(&thief);
        let open =
            |signpost: Signpost| Signpost::open(&signpost.seal(&thief.signpost_key(), &address, 1).unwrap(), &address);
        let own = || Signpost::sign(door(1), words(2), &thief);
        assert_eq!(open(own()), Ok(own()));
        // As anybody has it who knows the identity.
        let signed = Signpost::sign(door(1), words(1), &theirs);
        assert_eq!(open(signed), Err(PlaceError::Identity));
        assert_eq!(open(Signpost { identity: theirs.id(), ..own() }), Err(PlaceError::Identity));
        assert_eq!(open(Signpost { phrase: words(3), ..own() }), Err(PlaceError::Identity));
        // A key of small order has signed everything.
        assert_eq!(open(Signpost { identity: IdentityId([0; 32]), ..own() }), Err(PlaceError::Identity));
    }

    #[test]
    fn two_who_know_each_other_have_a_secret_that_neither_has_with_others() {
        let [one, other, third] = [1, 2, 3].map(|byte| Address::of(&phrase(byte)));
        assert_eq!(one.secret_with(&other), other.secret_with(&one));
        assert_ne!(one.secret_with(&other), one.secret_with(&third));
        assert_ne!(one.secret_with(&other), one.secret_with(&Address { secret: [0; 16], ..other }));
    }

    #[test]
    fn what_is_at_a_place_is_read_by_who_has_its_key() {
        let (place, key) = (place(1), place(1).sealing_key());
        let here = Notice::Here(b"sealed".to_vec());
        let record = here.publish(&place, &key, 3).unwrap();
        assert_eq!((record.key(), record.sequence), (place.record_key(), 3));
        assert_eq!(Notice::open(&record, &key), Ok(here));
        assert!(Notice::open(&record, &roster_sealing_key(&phrase(1).id())).is_err());
    }

    #[test]
    fn nothing_replaces_the_notice_that_an_era_has_ended() {
        let (place, key) = (place(1), place(1).sealing_key());
        let here = Notice::Here(vec![1]).publish(&place, &key, u64::MAX).unwrap();
        let moved = Notice::Ended(door(2)).publish(&place, &key, 4).unwrap();
        assert!(moved.replaces(&here) && !here.replaces(&moved));
        for byte in 0..255 {
            let other = Notice::Ended(door(byte)).publish(&place, &key, 5).unwrap();
            assert!(!other.replaces(&moved), "{byte}");
        }
    }

    #[test]
    fn what_is_too_long_for_a_record_is_refused() {
        let long = Notice::Here(vec![0; RECORD_PAYLOAD_MAX]);
        let refused = long.publish(&place(1), &place(1).sealing_key(), 1);
        assert!(matches!(refused, Err(PlaceError::Seal(SealError::TooLong(_)))), "{refused:?}");
    }
}
