//! What an identity posts at the place of its roster: who its devices are, for all who know it; and the way to each era
//! that may count, sealed for those who may have it.

use std::collections::BTreeMap;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::codec;
use crate::id::IdentityId;
use crate::identity::log::{Log, LogError, NewEra};
use crate::limits::{POSTING_MAX, WAY_MAX};

const WAY_CONTEXT: &str = "hypernet 2026 way to an era v1";

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Posted {
    #[cbor(n(0), with = "minicbor::bytes")]
    log: Vec<u8>,
    #[n(1)]
    ways: Vec<ByteVec>,
}
crate::format!(Posted, tag = 0x34, version = 1, max = POSTING_MAX, name = "posting");

/// By which the change that begins an era names its way.
pub fn way_hash(sealed: &[u8]) -> [u8; 32] {
    blake3::derive_key(WAY_CONTEXT, sealed)
}

/// All that somebody has heard of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    log: Log,
    /// By their hashes; only those that a change names which may count.
    ways: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Posting {
    /// Of a list of devices.
    pub fn new(log: Log) -> Self {
        Self { log, ways: BTreeMap::new() }
    }

    /// Decodes what came from anywhere, and verifies all signatures in it.
    pub fn decode(bytes: &[u8], identity: &IdentityId) -> Result<Self, LogError> {
        let found: Posted = codec::decode(bytes)?;
        let mut posting = Self::new(Log::decode(&found.log, identity)?);
        posting.take(found.ways.into_iter().map(Into::into));
        Ok(posting)
    }

    /// Encodes it. What is equal has equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let ways = self.ways.values().cloned().map(ByteVec::from).collect();
        codec::encode(&Posted { log: self.log.encode(), ways })
    }

    /// The list of devices, and how it came about.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Changes the list of devices.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Log) -> Result<T, LogError>) -> Result<T, LogError> {
        let changed = change(&mut self.log)?;
        self.take([]);
        Ok(changed)
    }

    /// The sealed way to an era that a change has begun. Others are not kept.
    pub fn add_way(&mut self, sealed: Vec<u8>) {
        self.take([sealed]);
    }

    /// Takes in what another one of the same identity has. Returns whether that was anything new.
    pub fn merge(&mut self, other: &Self) -> Result<bool, LogError> {
        let before = self.clone();
        self.log.merge(&other.log)?;
        self.take(other.ways.values().cloned());
        Ok(*self != before)
    }

    /// The eras that may count, that which does first, and the sealed way to each that is known.
    pub fn ways(&self) -> Vec<(NewEra, Option<&[u8]>)> {
        let way = |era: &NewEra| self.ways.get(&era.way).map(Vec::as_slice);
        self.log.eras().iter().map(|era| (*era, way(era))).collect()
    }

    fn take(&mut self, ways: impl IntoIterator<Item = Vec<u8>>) {
        let named: Vec<[u8; 32]> = self.log.eras().iter().map(|era| era.way).collect();
        let ways = ways.into_iter().filter(|way| way.len() <= WAY_MAX);
        self.ways.extend(ways.map(|way| (way_hash(&way), way)));
        self.ways.retain(|hash, _| named.contains(hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::log::{Author, Change, Device, Recipient};
    use crate::key::{DeviceKeys, RecoveryKeys, Secret};
    use crate::time::Hlc;

    fn device(byte: u8) -> DeviceKeys {
        DeviceKeys::new(Secret::new([byte; 32]))
    }

    fn era(way: &[u8]) -> Option<NewEra> {
        Some(NewEra { recipient: Recipient::X25519([9; 32]), way: way_hash(way) })
    }

    fn now(millis: u64) -> Hlc {
        Hlc { millis, counter: 0 }
    }

    fn phrase() -> RecoveryKeys {
        RecoveryKeys::new(&[1; 64])
    }

    fn enrol(posting: &mut Posting, byte: u8) {
        let first = posting.log.is_empty();
        let (key, recipient) = (device(byte).signing_key(), Recipient::X25519([byte; 32]));
        let one = Device::sign(&phrase().id(), &key, recipient, "x".into(), [byte; 32]);
        let era = if first { era(b"first") } else { None };
        let change = |log: &mut Log| {
            log.change(Author::Phrase, &phrase().signing_key(), now(byte.into()), Change::Enrol(one), era)
        };
        posting.change(change).unwrap();
    }

    fn revoke(posting: &mut Posting, by: u8, whom: u8, way: &[u8]) {
        let (me, revoke) = (device(by), Change::Revoke(device(whom).id()));
        let change = |log: &mut Log| log.change(Author::Device(me.id()), &me.signing_key(), now(9), revoke, era(way));
        posting.change(change).unwrap();
        posting.add_way(way.to_vec());
    }

    /// An identity with four devices.
    fn posting() -> Posting {
        let mut posting = Posting::new(Log::new(phrase().id()));
        (1..=4).for_each(|byte| enrol(&mut posting, byte));
        posting.add_way(b"first".to_vec());
        posting
    }

    fn known(posting: &Posting) -> Vec<Option<&[u8]>> {
        posting.ways().into_iter().map(|(_, way)| way).collect()
    }

    #[test]
    fn what_two_have_heard_comes_to_the_same_in_any_order() {
        let (mut one, mut other) = (posting(), posting());
        revoke(&mut one, 4, 1, b"of one");
        revoke(&mut other, 3, 2, b"of the other");
        let (first, second) = (one.clone(), other.clone());
        assert!(one.merge(&second).unwrap() && other.merge(&first).unwrap());
        assert_eq!((one.encode(), one.merge(&other)), (other.encode(), Ok(false)));
        assert_eq!(Posting::decode(&one.encode(), &phrase().id()).unwrap(), one);
        // That of the device which comes first counts, and the ways to all that may count are kept.
        assert_eq!(known(&one), [Some(&b"of one"[..]), Some(b"first"), Some(b"of the other")]);
    }

    #[test]
    fn a_way_is_that_which_a_signed_change_names() {
        let mut posting = posting();
        posting.add_way(b"another".to_vec());
        assert_eq!(known(&posting), [Some(&b"first"[..])]);
        let without = Posting::new(posting.log.clone());
        assert_eq!(known(&without), [None]);
        assert_eq!(posting.merge(&without), Ok(false), "nobody takes it away by leaving it out");
        assert!(Posting::decode(&posting.encode(), &RecoveryKeys::new(&[2; 64]).id()).is_err());
        let long = vec![0; WAY_MAX + 1];
        revoke(&mut posting, 1, 2, &long);
        assert_eq!(known(&posting)[0], None);
    }

    #[test]
    fn what_others_did_at_the_same_time_leaves_the_new_era() {
        let mut posting = posting();
        let mut stale = posting.clone();
        revoke(&mut posting, 1, 3, b"second");
        enrol(&mut stale, 5);
        posting.merge(&stale).unwrap();
        assert_eq!(known(&posting), [Some(&b"second"[..]), Some(b"first")]);
    }
}
