//! Where an identity's roster and its sealed keystore are found on the mesh.
//!
//! Both lie at a *place*: the record of a key that all devices have. A device that was revoked has it, too; so a
//! revocation moves both to new places, and the last record of an old one, after which no other is kept, says where.
//! The first way in is the *signpost*, a record of the phrase's own key, which no device has:
//!
//! ```text
//! identity ──► signpost ──► place of the roster ───► (moved ──► place) ──► roster
//! phrase ────────┘    └───► place of the keystore ─► (moved ──► place) ──► keystore, sealed
//! ```
//!
//! Who knows the identity finds its roster. The way to the keystore is sealed for the phrase. Whoever has a place's
//! secret can spoil what is there, and not forge it: a roster is believed by its signatures, a keystore by its seal. And
//! the phrase can put up another signpost.

use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{IdentityId, RecordKey, VolumeId};
use crate::key::{RecoveryKeys, Secret, VolumeKeys};
use crate::limits::RECORD_PAYLOAD_MAX;
use crate::record::{LAST, Record, RecordError, record_key};
use crate::seal::{ExtentRef, SealError, open_bytes, open_record, seal_bytes, seal_record};
use crate::segment::Placement;

const SIGNPOST_CONTEXT: &[u8] = b"hypernet signpost v1\0";
const WAY_CONTEXT: &[u8] = b"hypernet way to the keystore v1\0";
const NOTICE_CONTEXT: &[u8] = b"hypernet notice v1\0";
const SIGNPOST_KEY_CONTEXT: &str = "hypernet 2026 signpost sealing key v1";
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

/// Seals the records of a roster's places: whoever knows the identity reads them.
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
    /// It has moved: for a roster the signer of its new place, for a keystore the secret of its new place, sealed for
    /// those who may know it. Nothing comes after this.
    #[n(2)]
    Moved(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}
crate::format!(Notice, tag = 0x37, version = 1, max = RECORD_PAYLOAD_MAX, name = "notice");

impl Notice {
    /// The record of a place. What has moved gets the last number that there is, whatever `sequence` says.
    pub fn publish(&self, place: &Place, key: &Secret, sequence: u64) -> Result<Record, PlaceError> {
        let sequence = if matches!(self, Self::Moved(_)) { LAST } else { sequence.min(LAST - 1) };
        let payload = seal_record(key, 0, NOTICE_CONTEXT, sequence, &codec::encode(self))?;
        Ok(Record::sign(&place.signing_key(), sequence, payload)?)
    }

    /// Opens the record that was found at a place.
    pub fn open(record: &Record, key: &Secret) -> Result<Self, PlaceError> {
        let plain = open_record(key, NOTICE_CONTEXT, record.sequence, &record.payload)?;
        Ok(codec::decode(&plain)?)
    }
}

/// The first way to what an identity has on the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Signpost {
    /// Signer of the place of the roster.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub roster: [u8; 32],
    /// The secret of the place of the keystore, sealed for the phrase.
    #[cbor(n(1), with = "minicbor::bytes")]
    keystore: Vec<u8>,
}
crate::format!(Signpost, tag = 0x36, version = 1, max = RECORD_PAYLOAD_MAX, name = "signpost");

impl Signpost {
    /// One that leads to these places.
    pub fn new(phrase: &RecoveryKeys, roster: &Place, keystore: &Place) -> Result<Self, PlaceError> {
        let sealed = seal_bytes(&phrase.opening_key(), WAY_CONTEXT, keystore.secret().expose())?;
        Ok(Self { roster: roster.signer(), keystore: sealed })
    }

    /// Where the signpost of an identity is.
    pub fn record_key(identity: &IdentityId) -> RecordKey {
        record_key(identity.as_bytes())
    }

    fn sealing_key(identity: &IdentityId) -> Secret {
        Secret::new(blake3::derive_key(SIGNPOST_KEY_CONTEXT, identity.as_bytes()))
    }

    /// Its record. A higher `sequence` replaces an older one.
    pub fn publish(&self, phrase: &RecoveryKeys, sequence: u64) -> Result<Record, PlaceError> {
        let payload =
            seal_record(&Self::sealing_key(&phrase.id()), 0, SIGNPOST_CONTEXT, sequence, &codec::encode(self))?;
        Ok(Record::sign(&phrase.signing_key(), sequence, payload)?)
    }

    /// Opens the record that was found for an identity.
    pub fn open(record: &Record, identity: &IdentityId) -> Result<Self, PlaceError> {
        if record.signer != *identity.as_bytes() {
            return Err(RecordError::WrongKey.into());
        }
        let plain = open_record(&Self::sealing_key(identity), SIGNPOST_CONTEXT, record.sequence, &record.payload)?;
        Ok(codec::decode(&plain)?)
    }

    /// The place of the keystore, for who has the phrase.
    pub fn keystore(&self, phrase: &RecoveryKeys) -> Result<Place, PlaceError> {
        let plain = open_bytes(&phrase.opening_key(), WAY_CONTEXT, &self.keystore)?;
        let secret: [u8; 32] = plain.try_into().map_err(|_| SealError::Length)?;
        Ok(Place::new(Secret::new(secret)))
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

    #[test]
    fn a_signpost_leads_to_the_roster_for_all_and_to_the_keystore_for_the_phrase() {
        let (mine, others) = (phrase(1), phrase(2));
        let record = Signpost::new(&mine, &place(1), &place(2)).unwrap().publish(&mine, 7).unwrap();
        assert_eq!(record.key(), Signpost::record_key(&mine.id()));
        let found = Signpost::open(&record, &mine.id()).unwrap();
        assert_eq!(found.roster, place(1).signer());
        assert_eq!(found.keystore(&mine), Ok(place(2)));
        assert!(found.keystore(&others).is_err());
        assert!(Signpost::open(&record, &others.id()).is_err());
        let secret = place(2).secret().expose().to_vec();
        assert!(!record.payload.windows(32).any(|part| part == secret || part == mine.id().as_bytes()));
        // Nobody but the phrase puts one up.
        let forged = Signpost::new(&mine, &place(3), &place(3)).unwrap().publish(&others, 8).unwrap();
        assert_eq!(Signpost::open(&forged, &mine.id()), Err(RecordError::WrongKey.into()));
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
    fn nothing_replaces_the_notice_that_it_has_moved() {
        let (place, key) = (place(1), place(1).sealing_key());
        let here = Notice::Here(vec![1]).publish(&place, &key, u64::MAX).unwrap();
        let moved = Notice::Moved(vec![2]).publish(&place, &key, 4).unwrap();
        assert!(moved.replaces(&here) && !here.replaces(&moved));
        for byte in 0..=255 {
            let other = Notice::Moved(vec![byte]).publish(&place, &key, 5).unwrap();
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
