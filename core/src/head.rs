//! Heads: the newest snapshot of one device, signed by the device, sealed for the volume, kept by the mesh.
//!
//! The outer signature (of the record) lets strangers check who may replace it; the inner one (of the head) is what
//! members believe. A head also says which heads of other devices its author had seen, so that a rollback shows.

use ed25519_dalek::{Signer, SigningKey};
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{self, CodecError};
use crate::id::{DeviceId, HomeNumber, SnapshotId, VolumeId};
use crate::key::{DeviceKeys, VolumeKeys, is_signed};
use crate::limits::{RECORD_PAYLOAD_MAX, SEALED_MAX};
use crate::record::{Record, RecordError};
use crate::seal::{ExtentRef, SealError, open_record, seal_record};
use crate::segment::Placement;
use crate::time::Hlc;
use crate::tree::Dot;

const HEAD_CONTEXT: &[u8] = b"hypernet head v1\0";
const SNAPSHOT_CONTEXT: &[u8] = b"hypernet snapshot v1\0";
const SNAPSHOT_ID_CONTEXT: &str = "hypernet 2026 snapshot id v1";

/// Rows that the segment of a manifest may have, so that a head with it fits into a record, however many devices it has
/// seen: see [`crate::placement::Plan::within`].
pub const MANIFEST_ROWS_MAX: u8 = 30;

/// A signed root with parents: what history is made of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Snapshot {
    /// The root: a sealed [`crate::tree::Root`].
    #[n(0)]
    pub root: ExtentRef,
    /// What it follows.
    #[n(1)]
    pub parents: Vec<SnapshotId>,
    /// Who made it.
    #[n(2)]
    pub author: DeviceId,
    /// When.
    #[n(3)]
    pub time: Hlc,
    /// In the author's words.
    #[n(4)]
    pub message: String,
    /// Ed25519 of the author over all the rest.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}
crate::format!(Snapshot, tag = 0x32, version = 1, max = SEALED_MAX, name = "snapshot");

/// Why a snapshot or head was not believed.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum HeadError {
    /// It does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The record around it is not sound.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It was not sealed for this volume.
    #[error("head: {0}")]
    Seal(#[from] SealError),
    /// The author did not sign it.
    #[error("its signature is not its author's")]
    Signature,
    /// It is of another volume, device or sequence than the record it came in says.
    #[error("head: it is not what its record says ({0})")]
    Mismatch(&'static str),
    /// It does not fit into a record.
    #[error("head: {0} bytes do not fit into a record; fewer holders or devices would")]
    TooLong(usize),
}

fn check(author: &DeviceId, message: &[u8], signature: &[u8; 64]) -> Result<(), HeadError> {
    if is_signed(author.as_bytes(), message, signature) { Ok(()) } else { Err(HeadError::Signature) }
}

impl Snapshot {
    /// Makes and signs a snapshot.
    pub fn sign(key: &SigningKey, root: ExtentRef, parents: Vec<SnapshotId>, time: Hlc, message: String) -> Self {
        let author = DeviceId(key.verifying_key().to_bytes());
        let mut snapshot = Self { root, parents, author, time, message, signature: [0; 64] };
        snapshot.signature = key.sign(&snapshot.signed_bytes()).to_bytes();
        snapshot
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let unsigned = Self { signature: [0; 64], ..self.clone() };
        [SNAPSHOT_CONTEXT, &codec::encode(&unsigned)].concat()
    }

    /// Decodes and verifies.
    pub fn verify(bytes: &[u8]) -> Result<Self, HeadError> {
        let snapshot: Self = codec::decode(bytes)?;
        check(&snapshot.author, &snapshot.signed_bytes(), &snapshot.signature)?;
        Ok(snapshot)
    }

    /// Its id.
    pub fn id(&self) -> SnapshotId {
        SnapshotId(blake3::derive_key(SNAPSHOT_ID_CONTEXT, &codec::encode(self)))
    }
}

/// The newest state of a volume on one device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Head {
    /// The volume.
    #[n(0)]
    pub volume: VolumeId,
    /// Who publishes.
    #[n(1)]
    pub device: DeviceId,
    /// Counts this device's heads of this volume.
    #[n(2)]
    pub sequence: u64,
    /// When.
    #[n(3)]
    pub time: Hlc,
    /// The newest heads of other devices that this one had seen.
    #[n(4)]
    pub seen: Vec<Dot>,
    /// What its tree has all of, of this device, too: one that was only merged is a head without a dot of its own.
    #[n(5)]
    pub vector: Vec<Dot>,
    /// Which snapshot.
    #[n(6)]
    pub snapshot: SnapshotId,
    /// The sealed [`Snapshot`].
    #[n(7)]
    pub snapshot_extent: ExtentRef,
    /// The sealed [`crate::catalog::Manifest`], which begins the payload of the segment placed next.
    #[n(8)]
    pub manifest: ExtentRef,
    /// Where the manifest is.
    #[n(9)]
    pub manifest_placement: Placement,
    /// The other devices are asked to publish heads that have seen the one of this device with this number: it wants to be
    /// sure that none of them relies on what is not in its catalog any more. 0 where they are not.
    #[n(10)]
    pub asks: u64,
    /// From which home of the device: one that was copied has two, which publish under the same numbers.
    #[n(11)]
    pub home: HomeNumber,
    /// The last number of the device when this home was copied from another one, 0 for the first. What another home of the device
    /// has done under a later number it has done beside this one.
    #[n(12)]
    pub copied: u64,
    /// Ed25519 of the device over all the rest.
    #[cbor(n(13), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}
crate::format!(Head, tag = 0x33, version = 4, max = RECORD_PAYLOAD_MAX, name = "head");

impl Head {
    fn signed_bytes(&self) -> Vec<u8> {
        let unsigned = Self { signature: [0; 64], ..self.clone() };
        [HEAD_CONTEXT, &codec::encode(&unsigned)].concat()
    }

    /// Signs, seals and wraps it into the record that the mesh keeps.
    pub fn publish(mut self, device: &DeviceKeys, keys: &VolumeKeys) -> Result<Record, HeadError> {
        self.signature = device.signing_key().sign(&self.signed_bytes()).to_bytes();
        let payload =
            seal_record(&keys.head_key(), HEAD_CONTEXT, self.sequence, &codec::encode(&self)).map_err(|error| {
                match error {
                    SealError::TooLong(len) => HeadError::TooLong(len),
                    other => other.into(),
                }
            })?;
        Ok(Record::sign(&device.head_record_key(keys), self.sequence, payload)?)
    }

    /// Opens a record that was fetched for `device` of the volume of `keys`, and believes nothing unchecked.
    pub fn open(record: &Record, device: &DeviceId, keys: &VolumeKeys) -> Result<Self, HeadError> {
        let plain = open_record(&keys.head_key(), HEAD_CONTEXT, record.sequence, &record.payload)?;
        let head: Self = codec::decode(&plain)?;
        if head.volume != keys.volume {
            return Err(HeadError::Mismatch("volume"));
        }
        if head.device != *device {
            return Err(HeadError::Mismatch("device"));
        }
        if head.sequence != record.sequence {
            return Err(HeadError::Mismatch("sequence"));
        }
        if !head.manifest_placement.is_sound() {
            return Err(HeadError::Mismatch("placement"));
        }
        check(device, &head.signed_bytes(), &head.signature)?;
        Ok(head)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::{DeviceTag, PeerId, ShardId};
    use crate::identity::era::Door;
    use crate::identity::place::{Notice, Place};
    use crate::key::Secret;
    use crate::limits::DEVICES_MAX;
    use crate::placement::{self, Plan};
    use crate::seal::{Kind, Sealer};
    use crate::segment::{Holder, Segment};
    use crate::time::UnixSeconds;

    fn head(plan: Plan) -> (Head, DeviceKeys, VolumeKeys) {
        let device = DeviceKeys::new(Secret::new([4; 32]));
        let keys = VolumeKeys::new(VolumeId([1; 16]), u32::MAX, Secret::new([2; 32]));
        let extent = Sealer::new(&keys).seal(Kind::Manifest, b"manifest").unwrap().reference;
        let extent = ExtentRef { len: 1 << 20, sealed_len: (1 << 20) + 16, ..extent };
        let segment =
            Segment { k: plan.k, shard_len: 1 << 22, rows: vec![ShardId([9; 32]); usize::from(plan.committed)] };
        let holders = (0..plan.n).map(|row| Holder { row, peer: PeerId([row; 32]), until: UnixSeconds(u64::MAX) });
        let head = Head {
            volume: keys.volume,
            device: device.id(),
            sequence: u64::MAX,
            time: Hlc { millis: u64::MAX, counter: u32::MAX },
            seen: vec![],
            vector: vec![],
            snapshot: SnapshotId([7; 32]),
            snapshot_extent: extent.clone(),
            manifest: extent,
            manifest_placement: Placement { segment, n: plan.n, holders: holders.collect() },
            asks: u64::MAX,
            home: HomeNumber(u16::MAX),
            copied: u64::MAX,
            signature: [0; 64],
        };
        (head, device, keys)
    }

    #[test]
    fn a_head_is_believed_only_as_its_device_published_it() {
        let (head, device, keys) = head(placement::plan(16, 0.9).unwrap());
        let record = head.clone().publish(&device, &keys).unwrap();
        let opened = Head::open(&record, &device.id(), &keys).unwrap();
        assert_eq!(opened.snapshot, head.snapshot);
        let other = DeviceKeys::new(Secret::new([5; 32]));
        assert!(Head::open(&record, &other.id(), &keys).is_err());
        let wrong = VolumeKeys::new(keys.volume, 0, Secret::new([3; 32]));
        assert!(matches!(Head::open(&record, &device.id(), &wrong), Err(HeadError::Seal(_))));
        // a member that holds the volume's key cannot speak for another device
        let forged = Head { device: device.id(), ..head }.publish(&other, &keys).unwrap();
        assert_eq!(Head::open(&forged, &device.id(), &keys), Err(HeadError::Signature));
    }

    /// Every number as long as it gets, and as many other devices as there may be.
    #[test]
    fn a_head_fits_a_record_whatever_the_plan() {
        let dot = |i| Dot { device: DeviceTag(u64::MAX - i), sequence: u64::MAX };
        let seen: Vec<Dot> = (1..DEVICES_MAX as u64).map(dot).collect();
        let publish = |plan: Plan| {
            let (head, device, keys) = head(plan);
            Head { seen: seen.clone(), vector: seen.iter().copied().chain([dot(0)]).collect(), ..head }
                .publish(&device, &keys)
        };
        for peers in 2..120 {
            for availability in (0..=20).map(|i| f64::from(i) / 20.0) {
                let plan = placement::plan(peers, availability).unwrap();
                let published = publish(plan.within(MANIFEST_ROWS_MAX));
                assert!(published.is_ok(), "{peers} {availability}: {published:?}");
            }
        }
        // Without the bound it would not fit.
        let widest = placement::plan(100, 0.5).unwrap();
        assert!(matches!(publish(widest), Err(HeadError::TooLong(_))), "{widest:?}");
    }

    #[test]
    fn a_keeper_cannot_tell_a_head_from_what_lies_at_a_place() {
        let (head, device, keys) = head(placement::plan(10, 0.9).unwrap());
        let head = head.publish(&device, &keys).unwrap();
        let place = Place::new(Secret::new([1; 32]));
        for len in [0, 32, 300, 1_500] {
            let door = Door { roster: [1; 32], end: [2; 32] };
            for notice in [Notice::Here(vec![1; len]), Notice::Ended(door)] {
                let record = notice.publish(&place, &place.sealing_key(), 1).unwrap();
                assert_eq!(record.payload.len(), head.payload.len(), "{len}");
            }
        }
    }

    #[test]
    fn a_snapshot_is_what_its_author_signed() {
        let (head, device, _) = head(placement::plan(11, 0.9).unwrap());
        let snapshot = Snapshot::sign(&device.signing_key(), head.manifest, vec![], head.time, "first".into());
        let bytes = codec::encode(&snapshot);
        assert_eq!(Snapshot::verify(&bytes).unwrap().id(), snapshot.id());
        let bent = Snapshot { message: "other".into(), ..snapshot };
        assert_eq!(Snapshot::verify(&codec::encode(&bent)), Err(HeadError::Signature));
    }
}
