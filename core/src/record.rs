//! Signed records: what the DHT keeps. Anyone can check one, nobody but its signer can make one, and only who has
//! the key of what is inside can read it.
//!
//! A record lives at the hash of its signer's public key, and each signing key is derived for one purpose (the
//! head of one volume on one device, the roster of one identity), so the DHT sees unrelated keys. A newer sequence
//! number wins. Whoever holds a record may publish it again verbatim: that is how it outlives its owner's absence.
//! The idea is that of mutable items in BitTorrent's BEP 44.

use ed25519_dalek::{Signer, SigningKey};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::RecordKey;
use crate::key::is_signed;
use crate::limits::{RECORD_MAX, RECORD_PAYLOAD_MAX};

const KEY_CONTEXT: &str = "hypernet 2026 record key v1";
const SIGN_CONTEXT: &[u8] = b"hypernet record v1\0";

/// The number of a signer's last record: whoever keeps that one keeps it for good.
pub const LAST: u64 = u64::MAX;

/// A sealed payload under a signature and a sequence number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Record {
    /// Ed25519 public key of the signer.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub signer: [u8; 32],
    /// Newer wins.
    #[n(1)]
    pub sequence: u64,
    /// Sealed; at most [`RECORD_PAYLOAD_MAX`] bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub payload: Vec<u8>,
    /// Ed25519 over context, sequence and payload.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}
crate::format!(Record, tag = 0x10, version = 1, max = RECORD_MAX, name = "record");

/// Why a record was refused.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum RecordError {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Its payload is too long.
    #[error("record: payload of {0} bytes, at most {max} are allowed", max = RECORD_PAYLOAD_MAX)]
    TooLong(usize),
    /// The signature does not match.
    #[error("record: its signature is not its signer's")]
    Signature,
    /// It came under a key that is not its signer's.
    #[error("record: filed under a key that is not its signer's")]
    WrongKey,
    /// A newer one is already here.
    #[error("record: sequence {found} is not newer than {held}")]
    Stale {
        /// Sequence of the refused record.
        found: u64,
        /// Sequence of the record that stays.
        held: u64,
    },
}

/// Where the record of the signer with this public key lives.
pub fn record_key(signer: &[u8; 32]) -> RecordKey {
    RecordKey(blake3::derive_key(KEY_CONTEXT, signer))
}

fn signed_bytes(sequence: u64, payload: &[u8]) -> Vec<u8> {
    [SIGN_CONTEXT, &sequence.to_be_bytes(), payload].concat()
}

impl Record {
    /// Signs `payload`; an error when it is too long.
    pub fn sign(key: &SigningKey, sequence: u64, payload: Vec<u8>) -> Result<Self, RecordError> {
        if payload.len() > RECORD_PAYLOAD_MAX {
            return Err(RecordError::TooLong(payload.len()));
        }
        let signature = key.sign(&signed_bytes(sequence, &payload)).to_bytes();
        Ok(Self { signer: key.verifying_key().to_bytes(), sequence, payload, signature })
    }

    /// Decodes and verifies bytes from anywhere.
    pub fn verify(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = codec::decode(bytes)?;
        if record.payload.len() > RECORD_PAYLOAD_MAX {
            return Err(RecordError::TooLong(record.payload.len()));
        }
        let signed = signed_bytes(record.sequence, &record.payload);
        if !is_signed(&record.signer, &signed, &record.signature) {
            return Err(RecordError::Signature);
        }
        Ok(record)
    }

    /// [`Self::verify`], and it must belong under `key`.
    pub fn verify_under(key: &RecordKey, bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::verify(bytes)?;
        if record.key() != *key {
            return Err(RecordError::WrongKey);
        }
        Ok(record)
    }

    /// Where it lives.
    pub fn key(&self) -> RecordKey {
        record_key(&self.signer)
    }

    /// Whether this one replaces `held`: the newer sequence wins; of two with one sequence the smaller bytes do, so
    /// that every holder ends up with the same. Nothing replaces the [`LAST`] one.
    pub fn replaces(&self, held: &Self) -> bool {
        held.sequence < LAST
            && (self.sequence, std::cmp::Reverse(&self.payload)) > (held.sequence, std::cmp::Reverse(&held.payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    #[test]
    fn a_signed_record_verifies_and_a_changed_one_does_not() {
        let record = Record::sign(&key(), 7, b"sealed".to_vec()).unwrap();
        let bytes = codec::encode(&record);
        assert_eq!(Record::verify(&bytes), Ok(record.clone()));
        assert!(Record::verify_under(&record.key(), &bytes).is_ok());
        assert_eq!(Record::verify_under(&RecordKey([0; 32]), &bytes), Err(RecordError::WrongKey));
        let mut forged = record.clone();
        forged.sequence = 8;
        assert_eq!(Record::verify(&codec::encode(&forged)), Err(RecordError::Signature));
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1;
            assert!(Record::verify(&flipped).is_err(), "flip at {i} went unnoticed");
        }
    }

    #[test]
    fn newer_wins_and_ties_break_the_same_way_everywhere() {
        let a = Record::sign(&key(), 7, b"a".to_vec()).unwrap();
        let b = Record::sign(&key(), 7, b"b".to_vec()).unwrap();
        let newer = Record::sign(&key(), 8, b"z".to_vec()).unwrap();
        assert!(newer.replaces(&a) && !a.replaces(&newer));
        assert!(a.replaces(&b) && !b.replaces(&a) && !a.replaces(&a));
        let last = Record::sign(&key(), LAST, b"b".to_vec()).unwrap();
        let other = Record::sign(&key(), LAST, b"a".to_vec()).unwrap();
        assert!(last.replaces(&newer) && !other.replaces(&last));
    }

    #[test]
    fn too_long_is_refused() {
        assert!(matches!(Record::sign(&key(), 1, vec![0; RECORD_PAYLOAD_MAX + 1]), Err(RecordError::TooLong(_))));
        assert!(Record::verify(&vec![0; RECORD_MAX + 1]).is_err());
    }
}
