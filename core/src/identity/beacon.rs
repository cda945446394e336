//! What a device says of itself: which era it is in, and where it publishes its heads, told to who has a volume's key and
//! to nobody else.
//!
//! A beacon lies at a place of the device's own, whose signer the roster names, so no other device can spoil it: where two
//! have begun an era each, every device finds the other one by it. All who know the identity read it. So what it says of
//! a volume is sealed under that volume's key: others see how many volumes a device has, and neither which nor where
//! their heads are. Which peers it vouches for, that of its own agent first, is sealed for each of those who are to know: for the
//! other devices of its identity, and for each contact by a [secret](crate::identity::place::Address::secret_with) of the two;
//! others see between which powers of two their number is. Where it puts who may do what in a volume is sealed under a secret that all have who were ever told of the
//! volume, and that stays: whoever has not heard of the newest epoch yet hears of it there.

use minicbor::{Decode, Encode};

use crate::id::{DeviceId, PeerId, VolumeId};
use crate::identity::era::Door;
use crate::identity::place::Place;
use crate::key::{DeviceKeys, Secret, VolumeKeys};
use crate::limits::{BEACON_MAX, PEERS_TOLD_MAX, PEERS_TOLD_TO_MAX};
use crate::seal::{SealError, open_bytes, seal_bytes};
use crate::share::{offer, posting};

const SEAL_CONTEXT: &[u8] = b"hypernet announced place v1\0";

const PEERS_CONTEXT: &[u8] = b"hypernet announced peers v1\0";
/// Those to whom a device tells its peers are shown to be no fewer.
const TOLD_TO_LEAST: usize = 8;

/// A place of a device: of its heads of one volume in one epoch, or of what it says of who may do what in one; or its peers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Announced {
    /// By which who has the key knows it.
    #[cbor(n(0), with = "minicbor::bytes")]
    tag: [u8; 16],
    /// The signer of the records.
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
    #[n(3)]
    posters: Vec<Announced>,
    #[n(4)]
    peers: Vec<Announced>,
}
crate::format!(Beacon, tag = 0x38, version = 1, max = BEACON_MAX, name = "beacon");

impl Beacon {
    /// Where the beacon of a device is.
    pub fn place(device: &DeviceKeys) -> Place {
        Place::new(device.beacon_secret())
    }

    /// Tells where `device` publishes its heads under these keys, and where it puts who may do what in these volumes, each with
    /// the secret of its share.
    pub fn new(
        device: &DeviceKeys,
        door: Door,
        keys: &[VolumeKeys],
        shares: &[(VolumeId, Secret)],
        offers: bool,
    ) -> Result<Self, SealError> {
        let id = device.id();
        let heads = keys.iter().map(|keys| Announced::new(keys.announcement(&id), device.head_signer(keys)));
        let posters = shares.iter().map(|(volume, secret)| {
            Announced::new(posting::announcement(secret, volume, &id), posting::place(device, volume).signer())
        });
        let offers = offers.then(|| Signer(offer::place(device).signer()));
        Ok(Self { door, heads: sorted(heads)?, offers, posters: sorted(posters)?, peers: Vec::new() })
    }

    /// Tells which peers `device` vouches for, at most [`PEERS_TOLD_MAX`] of them, to whoever has one of these secrets, at most
    /// [`PEERS_TOLD_TO_MAX`] of those; the first ones count. What there is to be seen of their number is its power of two.
    pub fn tell_peers(mut self, device: &DeviceKeys, peers: &[PeerId], to: &[Secret]) -> Result<Self, SealError> {
        let id = device.id();
        let mut secrets: Vec<Secret> = to.iter().take(PEERS_TOLD_TO_MAX).cloned().collect();
        let places = secrets.len().next_power_of_two().max(TOLD_TO_LEAST);
        let hidden = device.beacon_secret();
        let nobody = (secrets.len()..places).map(|i| hidden.derive(NOBODY_CONTEXT, &[&(i as u64).to_be_bytes()]));
        secrets.extend(nobody);
        let plain: Vec<u8> = peers.iter().take(PEERS_TOLD_MAX).flat_map(|peer| peer.0).collect();
        let sealed = secrets.iter().map(|secret| {
            let (tag, key) = peers_announcement(secret, &id);
            Ok(Announced { tag, sealed: seal_bytes(&key, PEERS_CONTEXT, &plain)? })
        });
        self.peers = sorted(sealed)?;
        Ok(self)
    }

    /// The peers that `device`, whose beacon this is, vouches for, as far as it tells who has this secret.
    pub fn peers(&self, device: &DeviceId, secret: &Secret) -> Vec<PeerId> {
        let (tag, key) = peers_announcement(secret, device);
        let Some(one) = self.peers.iter().find(|one| one.tag == tag) else { return Vec::new() };
        let plain = open_bytes(&key, PEERS_CONTEXT, &one.sealed).unwrap_or_default();
        plain.chunks_exact(PeerId::LEN).take(PEERS_TOLD_MAX).filter_map(PeerId::from_slice).collect()
    }

    /// Signer of the records of the heads of `device`, whose beacon this is, under these keys.
    pub fn head_signer(&self, device: &DeviceId, keys: &VolumeKeys) -> Option<[u8; 32]> {
        find(&self.heads, &keys.announcement(device))
    }

    /// Signer of the place where it puts who may do what in that volume.
    pub fn poster(&self, device: &DeviceId, volume: &VolumeId, secret: &Secret) -> Option<[u8; 32]> {
        find(&self.posters, &posting::announcement(secret, volume, device))
    }
}

const NOBODY_CONTEXT: &str = "hypernet 2026 peers told to nobody v1";

/// By which who has a secret finds the peers of a device, and what opens them.
fn peers_announcement(secret: &Secret, device: &DeviceId) -> ([u8; 16], Secret) {
    let mut tag = [0; 16];
    tag.copy_from_slice(&secret.derive("hypernet 2026 peers tag v1", &[device.as_bytes()]).expose()[..16]);
    (tag, secret.derive("hypernet 2026 peers sealing key v1", &[device.as_bytes()]))
}

impl Announced {
    fn new((tag, key): ([u8; 16], Secret), signer: [u8; 32]) -> Result<Self, SealError> {
        Ok(Self { tag, sealed: seal_bytes(&key, SEAL_CONTEXT, &signer)? })
    }
}

/// The order in which volumes came is nobody's business.
fn sorted(all: impl Iterator<Item = Result<Announced, SealError>>) -> Result<Vec<Announced>, SealError> {
    let mut all = all.collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable_by_key(|one| one.tag);
    all.dedup_by_key(|one| one.tag);
    Ok(all)
}

fn find(all: &[Announced], (tag, key): &([u8; 16], Secret)) -> Option<[u8; 32]> {
    let one = all.iter().find(|one| one.tag == *tag)?;
    open_bytes(key, SEAL_CONTEXT, &one.sealed).ok()?[..].try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_tells_its_peers_to_whom_it_means_to_and_to_nobody_else() {
        let device = DeviceKeys::new(Secret::new([1; 32]));
        let door = Door { roster: [7; 32], end: [8; 32] };
        let peers = [PeerId([4; 32]), PeerId([5; 32])];
        let secret = |byte| Secret::new([byte; 32]);
        let tell = |to: &[Secret]| {
            Beacon::new(&device, door, &[], &[], false).unwrap().tell_peers(&device, &peers, to).unwrap()
        };
        let told = tell(&[secret(1), secret(2)]);
        for who in [secret(1), secret(2)] {
            assert_eq!(told.peers(&device.id(), &who), peers);
        }
        let other = DeviceKeys::new(secret(9)).id();
        assert_eq!((told.peers(&device.id(), &secret(3)), told.peers(&other, &secret(1))), (vec![], vec![]));
        assert_eq!(told, tell(&[secret(2), secret(1)]), "the same twice is no change");
        // How many are told is hidden, and no two entries are alike.
        let sealed =
            |told: &Beacon| told.peers.iter().map(|one| one.sealed.clone()).collect::<std::collections::BTreeSet<_>>();
        assert_eq!((sealed(&told).len(), sealed(&tell(&[])).len()), (8, 8));
        assert_eq!(tell(&(0..9).map(secret).collect::<Vec<_>>()).peers.len(), 16);
        // As many as there may be fit into it, beside a lot of volumes.
        let many: Vec<Secret> =
            (0..2 * PEERS_TOLD_TO_MAX as u64).map(|i| secret(1).derive("test", &[&i.to_be_bytes()])).collect();
        let full = vec![PeerId([6; 32]); 2 * PEERS_TOLD_MAX];
        let full = Beacon::new(&device, door, &[], &[], false).unwrap().tell_peers(&device, &full, &many).unwrap();
        assert!(crate::codec::encode(&full).len() < BEACON_MAX * 3 / 4);
        assert_eq!(full.peers(&device.id(), &many[0]).len(), PEERS_TOLD_MAX);
        assert_eq!(full.peers(&device.id(), &many[PEERS_TOLD_TO_MAX]), vec![]);
    }

    #[test]
    fn who_has_a_volumes_key_finds_its_heads_and_nobody_else_does() {
        let device = DeviceKeys::new(Secret::new([1; 32]));
        let door = Door { roster: [7; 32], end: [8; 32] };
        let keys = |byte, epoch| VolumeKeys::new(VolumeId([byte; 16]), epoch, Secret::new([byte; 32]));
        let all = [keys(1, 0), keys(2, 0), keys(1, 1)];
        let shares = [(VolumeId([1; 16]), Secret::new([5; 32]))];
        let told = Beacon::new(&device, door, &all, &shares, false).unwrap();
        for keys in &all {
            let signer = device.head_signer(keys);
            assert_eq!(told.head_signer(&device.id(), keys), Some(signer));
        }
        let (volume, secret) = &shares[0];
        let poster = |volume: &VolumeId, secret: &Secret| told.poster(&device.id(), volume, secret);
        assert_eq!(poster(volume, secret), Some(posting::place(&device, volume).signer()));
        assert_eq!(poster(volume, &Secret::new([6; 32])), None);
        assert_eq!(poster(&VolumeId([2; 16]), secret), None);
        assert_eq!(told.head_signer(&device.id(), &keys(3, 0)), None);
        let guess = VolumeKeys::new(all[0].volume, 0, Secret::new([9; 32]));
        assert_eq!(told.head_signer(&device.id(), &guess), None, "the volume's id is not enough");
        assert_eq!(told.offers, None);
        // Nothing that two devices tell of one volume is equal.
        let other = Beacon::new(&DeviceKeys::new(Secret::new([2; 32])), door, &all, &shares, true).unwrap();
        assert!(other.offers.is_some());
        assert!(told.heads.iter().all(|head| other.heads.iter().all(|there| there.tag != head.tag)));
    }
}
