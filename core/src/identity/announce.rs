//! Where devices publish their heads, told to who has a volume's key and to nobody else.
//!
//! A roster is read by all who know the identity. So what a device says there of a volume is sealed under that
//! volume's key: others see how many volumes a device has, and neither which nor where their heads are.

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::id::DeviceId;
use crate::key::{DeviceKeys, VolumeKeys};
use crate::seal::{SealError, open_bytes, seal_bytes};

const SIGN_CONTEXT: &[u8] = b"hypernet announcement v1\0";
const SEAL_CONTEXT: &[u8] = b"hypernet announced place v1\0";

/// The place of a device's heads of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Announced {
    /// By which who has the volume's key knows it.
    #[cbor(n(0), with = "minicbor::bytes")]
    tag: [u8; 16],
    /// The signer of the records.
    #[cbor(n(1), with = "minicbor::bytes")]
    sealed: Vec<u8>,
}

/// The places of all heads of one device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Announcement {
    /// The device.
    #[n(0)]
    pub device: DeviceId,
    /// The highest counts.
    #[n(1)]
    pub sequence: u64,
    #[n(2)]
    places: Vec<Announced>,
    /// Ed25519 of the device over all the rest.
    #[cbor(n(3), with = "minicbor::bytes")]
    signature: [u8; 64],
}

impl Announcement {
    /// Tells where `device` publishes its heads of these volumes.
    pub fn sign(device: &DeviceKeys, sequence: u64, volumes: &[&VolumeKeys]) -> Result<Self, SealError> {
        let id = device.id();
        let mut places = Vec::with_capacity(volumes.len());
        for keys in volumes {
            let signer = device.head_record_key(&keys.volume).verifying_key().to_bytes();
            let (tag, key) = keys.announcement(&id);
            places.push(Announced { tag, sealed: seal_bytes(&key, SEAL_CONTEXT, &signer)? });
        }
        // The order in which volumes came is nobody's business.
        places.sort_unstable_by_key(|place| place.tag);
        let mut announcement = Self { device: id, sequence, places, signature: [0; 64] };
        announcement.signature = device.signing_key().sign(&announcement.signed_bytes()).to_bytes();
        Ok(announcement)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = SIGN_CONTEXT.to_vec();
        // Writing to a Vec is infallible.
        let _ = minicbor::encode(Self { signature: [0; 64], ..self.clone() }, &mut bytes);
        bytes
    }

    /// Whether its device signed it.
    pub fn is_signed(&self) -> bool {
        VerifyingKey::from_bytes(self.device.as_bytes())
            .is_ok_and(|key| key.verify_strict(&self.signed_bytes(), &Signature::from_bytes(&self.signature)).is_ok())
    }

    /// Signer of the records of its heads of a volume.
    pub fn head_signer(&self, keys: &VolumeKeys) -> Option<[u8; 32]> {
        let (tag, key) = keys.announcement(&self.device);
        let place = self.places.iter().find(|place| place.tag == tag)?;
        open_bytes(&key, SEAL_CONTEXT, &place.sealed).ok()?.try_into().ok()
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
        let keys = |byte| VolumeKeys::new(VolumeId([byte; 16]), 0, Secret::new([byte; 32]));
        let (one, two) = (keys(1), keys(2));
        let told = Announcement::sign(&device, 1, &[&one, &two]).unwrap();
        assert!(told.is_signed());
        let signer = |keys: &VolumeKeys| device.head_record_key(&keys.volume).verifying_key().to_bytes();
        assert_eq!(told.head_signer(&one), Some(signer(&one)));
        assert_eq!(told.head_signer(&two), Some(signer(&two)));
        assert_eq!(told.head_signer(&keys(3)), None);
        let guess = VolumeKeys::new(one.volume, 0, Secret::new([9; 32]));
        assert_eq!(told.head_signer(&guess), None, "the volume's id is not enough");
        // Nothing that two devices tell of one volume is equal.
        let other = Announcement::sign(&DeviceKeys::new(Secret::new([2; 32])), 1, &[&one, &two]).unwrap();
        assert!(told.places.iter().all(|place| other.places.iter().all(|there| there.tag != place.tag)));
        assert!(!Announcement { sequence: 2, ..told.clone() }.is_signed());
        assert!(!Announcement { device: other.device, ..told }.is_signed());
    }
}
