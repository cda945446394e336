//! Secrets and what is derived from them. Every derivation is BLAKE3's `derive_key` under a context of its own, so
//! that no two uses can ever share a key.

use std::fmt;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::{DeviceId, IdentityId, VolumeId};
use crate::lease::{LeaseNumber, LeaseSecret};

/// 32 secret bytes that never show in logs and are wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Wraps secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for sealing into a keystore or keying a cipher.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives a secret for one purpose from this one and public `parts`. Parts are length-prefixed, so no two lists
    /// of parts run together.
    pub(crate) fn derive(&self, context: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.0)
    }
}

/// Whether a signature is right. Everything that is signed is checked here, by the strict rules: a key or a point of small
/// order, for which signatures of many messages are right, is refused, and so is what is not written in the one way.
pub(crate) fn is_signed(key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<C> minicbor::Encode<C> for Secret {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Secret {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d.bytes()?;
        bytes.try_into().map(Self).map_err(|_| minicbor::decode::Error::message("wrong length for a secret"))
    }
}

/// What the 24 words yield: they speak for the identity above all its devices. In memory only while an identity is made
/// or recovered.
#[derive(Clone, Debug)]
pub struct RecoveryKeys(Secret);

impl RecoveryKeys {
    /// From the seed that BIP-39 makes of the words.
    pub fn new(seed: &[u8; 64]) -> Self {
        Self(Secret(blake3::derive_key("hypernet 2026 recovery v1", seed)))
    }

    /// Of an identity that nobody has words for.
    pub(crate) fn of(secret: Secret) -> Self {
        Self(secret)
    }

    /// Signs the list of devices, and where everything is found. Its public half is the identity's name.
    pub fn signing_key(&self) -> SigningKey {
        self.0.derive("hypernet 2026 recovery signing key v1", &[]).signing_key()
    }

    /// The identity.
    pub fn id(&self) -> IdentityId {
        IdentityId(self.signing_key().verifying_key().to_bytes())
    }

    /// Signs the record of the signpost and nothing else, so that who keeps it does not learn the identity's name.
    pub fn signpost_key(&self) -> SigningKey {
        self.0.derive("hypernet 2026 recovery signpost key v1", &[]).signing_key()
    }

    /// Seals the signpost for those who have the identity's address.
    pub fn signpost_secret(&self) -> [u8; 16] {
        let mut secret = [0; 16];
        secret.copy_from_slice(&self.0.derive("hypernet 2026 recovery signpost secret v1", &[]).expose()[..16]);
        secret
    }

    /// An X25519 secret: opens what is sealed for whoever has the words.
    pub fn opening_key(&self) -> Secret {
        self.0.derive("hypernet 2026 recovery opening key v1", &[])
    }

    /// The volume that is mounted where nothing else is said. Whoever has the words knows which it is, whatever a keystore
    /// says that a stolen device has written.
    pub fn main_volume(&self) -> VolumeId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0.derive("hypernet 2026 recovery main volume v1", &[]).expose()[..16]);
        VolumeId::new(id, false)
    }
}

/// The keys of one device, which never leave it.
#[derive(Clone, Debug, Zeroize, ZeroizeOnDrop)]
pub struct DeviceKeys(Secret);

impl DeviceKeys {
    /// From the random seed in the device's state.
    pub fn new(seed: Secret) -> Self {
        Self(seed)
    }

    /// The seed.
    pub fn seed(&self) -> &Secret {
        &self.0
    }

    /// Signs snapshots and heads.
    pub fn signing_key(&self) -> SigningKey {
        self.0.derive("hypernet 2026 device signing key v1", &[]).signing_key()
    }

    /// An X25519 secret: opens what is sealed for this device.
    pub fn opening_key(&self) -> Secret {
        self.0.derive("hypernet 2026 device opening key v1", &[])
    }

    /// The public name of this device.
    pub fn id(&self) -> DeviceId {
        DeviceId(self.signing_key().verifying_key().to_bytes())
    }

    /// Signs the records of this device's head of one volume: a key per volume, so that the DHT cannot tell that two
    /// volumes have a device in common, and per epoch, so that who knew the last one does not see when it writes.
    pub fn head_record_key(&self, keys: &VolumeKeys) -> SigningKey {
        let secret = keys.derive("hypernet 2026 volume head record v1", &[]);
        self.0.derive("hypernet 2026 device head record key v1", &[secret.expose()]).signing_key()
    }

    /// Public half of [`Self::head_record_key`].
    pub fn head_signer(&self, keys: &VolumeKeys) -> [u8; 32] {
        self.head_record_key(keys).verifying_key().to_bytes()
    }

    /// The secret of the place of this device's [beacon](crate::identity::beacon::Beacon).
    pub fn beacon_secret(&self) -> Secret {
        self.0.derive("hypernet 2026 device beacon v1", &[])
    }

    /// The secret of the place where this device puts who may do what in a volume.
    pub fn share_secret(&self, volume: &VolumeId) -> Secret {
        self.0.derive("hypernet 2026 device share place v1", &[volume.as_bytes()])
    }

    /// Of the place of what it says of itself as one of the devices of a [bearer](crate::share::bearer).
    pub fn bearer_beacon_secret(&self, bearer: &IdentityId) -> Secret {
        self.0.derive("hypernet 2026 device bearer beacon v1", &[bearer.as_bytes()])
    }

    /// The secret of the leases of what it places, by the number of the placement.
    pub fn lease_secret(&self, number: &LeaseNumber) -> LeaseSecret {
        LeaseSecret::new(self.0.derive("hypernet 2026 device leases v1", &[number]))
    }

    /// The secret of the place of what this device offers to others.
    pub fn offers_secret(&self) -> Secret {
        self.0.derive("hypernet 2026 device offers place v1", &[])
    }
}

/// The secret of one epoch of a volume, and all keys under it.
#[derive(Clone, Debug)]
pub struct VolumeKeys {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch whose secret this is.
    pub epoch: u32,
    secret: Secret,
}

/// Epochs from here on are those of volumes that several identities have a part in; below are those of eras.
pub const SHARED_EPOCHS: u32 = 1 << 31;

impl VolumeKeys {
    /// Whether several identities have these keys.
    pub fn is_shared(&self) -> bool {
        self.epoch >= SHARED_EPOCHS
    }

    /// Keys of `epoch` of `volume`.
    pub fn new(volume: VolumeId, epoch: u32, secret: Secret) -> Self {
        Self { volume, epoch, secret }
    }

    /// The secret.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    fn derive(&self, context: &str, more: &[&[u8]]) -> Secret {
        let epoch = self.epoch.to_be_bytes();
        let mut parts: Vec<&[u8]> = vec![self.volume.as_bytes(), &epoch];
        parts.extend_from_slice(more);
        self.secret.derive(context, &parts)
    }

    /// Keys the hash from which extent keys come: dedup works inside one volume and epoch and nowhere else.
    pub fn convergence(&self) -> Secret {
        self.derive("hypernet 2026 volume convergence v1", &[])
    }

    /// Seals heads.
    pub fn head_key(&self) -> Secret {
        self.derive("hypernet 2026 volume head key v1", &[])
    }

    /// Seeds the cutting of files into extents. Never 0, which would mean the public default.
    pub fn cut_seed(&self) -> u64 {
        let seed = self.derive("hypernet 2026 volume cut seed v1", &[]);
        let mut first = [0; 8];
        first.copy_from_slice(&seed.expose()[..8]);
        u64::from_be_bytes(first) | 1
    }

    /// Keys the bytes that fill up a segment, so that padding looks like everything else.
    pub fn padding(&self) -> Secret {
        self.derive("hypernet 2026 volume padding v1", &[])
    }

    /// By what, and under which key, a device tells where it publishes its heads.
    pub fn announcement(&self, device: &DeviceId) -> ([u8; 16], Secret) {
        let mut tag = [0; 16];
        let name = self.derive("hypernet 2026 volume announcement tag v1", &[device.as_bytes()]);
        tag.copy_from_slice(&name.expose()[..16]);
        (tag, self.derive("hypernet 2026 volume announcement key v1", &[device.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{PeerId, ShardId};
    use crate::identity::era::Era;
    use crate::identity::phrase::Phrase;
    use crate::identity::place::{Address, Place};
    use crate::seal::ExtentKey;

    #[test]
    fn no_two_purposes_share_a_key() {
        let secret = Secret::new([1; 32]);
        let v = VolumeKeys::new(VolumeId([2; 16]), 0, secret.clone());
        let next = VolumeKeys::new(VolumeId([2; 16]), 1, secret.clone());
        let device = DeviceKeys::new(secret.clone());
        let recovery = RecoveryKeys(secret.clone());
        let all = [
            recovery.signing_key().to_bytes(),
            *recovery.opening_key().expose(),
            recovery.signpost_key().to_bytes(),
            *v.convergence().expose(),
            *v.head_key().expose(),
            *v.padding().expose(),
            *next.convergence().expose(),
            device.signing_key().to_bytes(),
            device.head_record_key(&v).to_bytes(),
            device.head_record_key(&next).to_bytes(),
            *device.beacon_secret().expose(),
            *device.share_secret(&v.volume).expose(),
            *device.offers_secret().expose(),
            device.lease_secret(&[0; 16]).token(&PeerId([0; 32]), &ShardId([0; 32])).0,
            device.lease_secret(&[1; 16]).token(&PeerId([0; 32]), &ShardId([0; 32])).0,
            device.lease_secret(&[0; 16]).token(&PeerId([1; 32]), &ShardId([0; 32])).0,
            device.lease_secret(&[0; 16]).token(&PeerId([0; 32]), &ShardId([1; 32])).0,
            *device.opening_key().expose(),
            *secret.expose(),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn nothing_that_has_a_secret_in_it_shows_it() {
        let secret = || Secret::new([0xa7; 32]);
        let (device, volume) = (DeviceKeys::new(secret()), VolumeKeys::new(VolumeId([2; 16]), 3, secret()));
        let recovery = RecoveryKeys(secret());
        let address = Address { signer: [3; 32], secret: [0xa7; 16] };
        let shown = [
            format!("{:?}", secret()),
            format!("{device:?} {:?}", device.signing_key()),
            format!("{volume:?} {recovery:#?} {address:?}"),
            format!("{:?} {:?}", Era::new(1, secret()), Place::new(secret())),
            format!("{:?}", minicbor::decode::<ExtentKey>(&minicbor::to_vec(secret()).unwrap()).unwrap()),
            format!("{:?}", Phrase::new(&secret())),
        ];
        for text in &shown {
            // Neither as numbers nor as text in hex.
            assert!(!text.contains("167, 167") && !text.to_lowercase().contains("a7a7"), "{text}");
        }
        assert_eq!(shown[0], "Secret(..)");
        assert!(Phrase::new(&secret()).words().all(|word| !shown[5].contains(word)), "{}", shown[5]);
    }
}
