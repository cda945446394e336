//! What a device says of itself: which era it is in, and where it publishes its heads, told to who has a volume's key and
//! to nobody else.
//!
//! A beacon lies at a place of the device's own, whose signer the roster names, so no other device can spoil it: where two
//! have begun an era each, every device finds the other one by it. All who know the identity read it. So what it says of
//! a volume is sealed under that volume's key: others see how many volumes a device has, and neither which nor where
//! their heads are.

use minicbor::{Decode, Encode};

use crate::id::DeviceId;
use crate::identity::era::Door;
use crate::identity::place::Place;
use crate::key::{DeviceKeys, VolumeKeys};
use crate::limits::BEACON_MAX;
use crate::seal::{SealError, open_bytes, seal_bytes};
use crate::share::{offer, posting};

const SEAL_CONTEXT: &[u8] = b"hypernet announced place v1\0";

/// The place of a device's heads of one volume in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Announced {
    /// By which who has the volume's key knows it.
    #[cbor(n(0), with = "minicbor::bytes")]
    tag: [u8; 16],
    /// The signer of their records, and that of the place of [who may do what](crate::share::posting) there.
    #[cbor(n(1), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

/// Who signs the record of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Signer(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// What one device says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Beacon {
    /// Of the era that counts as far as it has heard.
    #[n(0)]
    pub door: Door,
    #[n(1)]
    heads: Vec<Announced>,
    /// Signer of the place of what it [offers](crate::share::offer), if it offers anything.
    #[n(2)]
    pub offers: Option<Signer>,
}
crate::format!(Beacon, tag = 0x38, version = 1, max = BEACON_MAX, name = "beacon");

impl Beacon {
    /// Where the beacon of a device is.
    pub fn place(device: &DeviceKeys) -> Place {
        Place::new(device.beacon_secret())
    }

    /// Tells where `device` publishes its heads under these keys.
    pub fn new(device: &DeviceKeys, door: Door, keys: &[VolumeKeys], offers: bool) -> Result<Self, SealError> {
        let id = device.id();
        let mut heads = Vec::with_capacity(keys.len());
        for keys in keys {
            let signers = [device.head_signer(keys), posting::place(device, &keys.volume).signer()].concat();
            let (tag, key) = keys.announcement(&id);
            heads.push(Announced { tag, sealed: seal_bytes(&key, SEAL_CONTEXT, &signers)? });
        }
        // The order in which volumes came is nobody's business.
        heads.sort_unstable_by_key(|head| head.tag);
        heads.dedup_by_key(|head| head.tag);
        let offers = offers.then(|| Signer(offer::place(device).signer()));
        Ok(Self { door, heads, offers })
    }

    /// Signer of the records of the heads of `device`, whose beacon this is, under these keys.
    pub fn head_signer(&self, device: &DeviceId, keys: &VolumeKeys) -> Option<[u8; 32]> {
        self.announced(device, keys).map(|(head, _)| head)
    }

    /// Signer of the place where it puts who may do what in that volume.
    pub fn poster(&self, device: &DeviceId, keys: &VolumeKeys) -> Option<[u8; 32]> {
        self.announced(device, keys).map(|(_, poster)| poster)
    }

    fn announced(&self, device: &DeviceId, keys: &VolumeKeys) -> Option<([u8; 32], [u8; 32])> {
        let (tag, key) = keys.announcement(device);
        let head = self.heads.iter().find(|head| head.tag == tag)?;
        let signers = open_bytes(&key, SEAL_CONTEXT, &head.sealed).ok()?;
        let (head, poster) = signers.split_first_chunk::<32>()?;
        Some((*head, poster.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VolumeId;
    use crate::key::Secret;

    #[test]
    fn who_has_a_volumes_key_finds_its_heads_and_nobody_else_does() {
        let device = DeviceKeys::new(Secret::new([1; 32]));
        let door = Door { roster: [7; 32], end: [8; 32] };
        let keys = |byte, epoch| VolumeKeys::new(VolumeId([byte; 16]), epoch, Secret::new([byte; 32]));
        let all = [keys(1, 0), keys(2, 0), keys(1, 1)];
        let told = Beacon::new(&device, door, &all, false).unwrap();
        for keys in &all {
            let signer = device.head_signer(keys);
            assert_eq!(told.head_signer(&device.id(), keys), Some(signer));
            let poster = posting::place(&device, &keys.volume).signer();
            assert_eq!(told.poster(&device.id(), keys), Some(poster));
        }
        assert_eq!(told.head_signer(&device.id(), &keys(3, 0)), None);
        let guess = VolumeKeys::new(all[0].volume, 0, Secret::new([9; 32]));
        assert_eq!(told.head_signer(&device.id(), &guess), None, "the volume's id is not enough");
        assert_eq!(told.offers, None);
        // Nothing that two devices tell of one volume is equal.
        let other = Beacon::new(&DeviceKeys::new(Secret::new([2; 32])), door, &all, true).unwrap();
        assert!(other.offers.is_some());
        assert!(told.heads.iter().all(|head| other.heads.iter().all(|there| there.tag != head.tag)));
    }
}
