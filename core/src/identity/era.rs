//! Eras: what an identity's devices share from one revocation to the next. A device that is revoked has all of the old
//! one, so a revocation begins a new one.
//!
//! One random secret is all of an era: where the roster and the keystore lie, what opens that which is sealed for the
//! identity, and the keys of each volume follow from it. So there is one thing to be told to those who stay, and the
//! change of the roster that begins the era names its hash.

use minicbor::{Decode, Encode};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::VolumeId;
use crate::identity::place::Place;
use crate::key::{Secret, VolumeKeys};

/// Where an identity's roster is found in one era, for who does not have the era itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Door {
    /// Signer of the record of the roster.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub roster: [u8; 32],
    /// Signer of the record that there is once the era has ended: it names the next one's door.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub end: [u8; 32],
}

/// An era of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(array)]
pub struct Era {
    /// Above that of the one before it. Two may have the same one, where two devices have begun one at once.
    #[n(0)]
    pub number: u32,
    #[n(1)]
    secret: Secret,
}
crate::format!(Era, tag = 0x54, version = 1, max = 64, name = "era");

impl Era {
    /// The era of a random secret.
    pub fn new(number: u32, secret: Secret) -> Self {
        Self { number, secret }
    }

    fn place(&self, context: &str) -> Place {
        Place::new(self.secret.derive(context, &[]))
    }

    /// Where the roster is.
    pub fn roster(&self) -> Place {
        self.place("hypernet 2026 era roster place v1")
    }

    /// Where the keystore is.
    pub fn keystore(&self) -> Place {
        self.place("hypernet 2026 era keystore place v1")
    }

    /// Where it is said that the era has ended.
    pub fn end(&self) -> Place {
        self.place("hypernet 2026 era end place v1")
    }

    /// Its door.
    pub fn door(&self) -> Door {
        Door { roster: self.roster().signer(), end: self.end().signer() }
    }

    /// An X25519 secret: opens what is sealed for the identity in this era.
    pub fn opening_key(&self) -> Secret {
        self.secret.derive("hypernet 2026 era opening key v1", &[])
    }

    /// Opens what devices of the identity tell only one another in their [beacons](crate::identity::beacon).
    pub fn devices_secret(&self) -> Secret {
        self.secret.derive("hypernet 2026 era devices secret v1", &[])
    }

    /// The keys of a volume in the epoch of this era.
    pub fn volume(&self, volume: VolumeId) -> VolumeKeys {
        let secret = self.secret.derive("hypernet 2026 era volume secret v1", &[volume.as_bytes()]);
        VolumeKeys::new(volume, self.number, secret)
    }

    /// By which all sort eras alike: the newest last.
    pub fn rank(&self) -> (u32, [u8; 32]) {
        (self.number, *self.secret.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_one_era_leads_to_anything_of_another() {
        let eras = [(0, 1), (1, 1), (0, 2)].map(|(number, byte)| Era::new(number, Secret::new([byte; 32])));
        let volume = VolumeId([7; 16]);
        let of = |era: &Era| {
            [
                era.roster().signer(),
                era.keystore().signer(),
                era.end().signer(),
                *era.opening_key().expose(),
                *era.devices_secret().expose(),
            ]
        };
        // The number is no secret and makes no places; the keys of a volume have it in them.
        let mut all = [of(&eras[0]), of(&eras[2])].concat();
        all.extend(eras.iter().map(|era| *era.volume(volume).head_key().expose()));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 13);
        assert_ne!(eras[0].volume(volume).secret(), eras[0].volume(VolumeId([8; 16])).secret());
    }
}
