//! The secrets of a volume that several identities have. Whoever is taken off has all until then, so that begins another
//! epoch. The change that begins it names it by a hash of its secret: whoever is told a secret, by whomever, knows whether
//! it is that one.

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::VolumeId;
use crate::key::{SHARED_EPOCHS, Secret, VolumeKeys};
use crate::limits::{EPOCHS_MAX, EPOCHS_TOLD_MAX};
use crate::share::members::NewEpoch;

/// One epoch of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Encode, Decode)]
#[cbor(array)]
pub struct Epoch {
    /// Above that of the one before it.
    #[n(0)]
    pub number: u32,
    #[n(1)]
    secret: Secret,
}

impl Epoch {
    /// The epoch of a random secret.
    pub fn new(number: u32, secret: Secret) -> Self {
        Self { number, secret }
    }

    /// As a change names it.
    pub fn name(&self) -> NewEpoch {
        let name = self.secret.derive("hypernet 2026 epoch name v1", &[&self.number.to_be_bytes()]);
        NewEpoch { number: self.number, name: *name.expose() }
    }

    /// The keys of the volume in this epoch.
    pub fn volume(&self, volume: VolumeId) -> VolumeKeys {
        let secret = self.secret.derive("hypernet 2026 epoch volume secret v1", &[volume.as_bytes()]);
        VolumeKeys::new(volume, SHARED_EPOCHS | self.number, secret)
    }

    /// Seals the changes of who may do what, so that whoever was taken off does not read how they go on.
    pub fn members_key(&self) -> Secret {
        self.secret.derive("hypernet 2026 epoch members key v1", &[])
    }

    /// By which all sort epochs alike: the newest last.
    pub fn rank(&self) -> (u32, [u8; 32]) {
        (self.number, *self.secret.expose())
    }
}

/// Epochs as they are told to members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Epochs {
    /// The newest last.
    #[n(0)]
    pub epochs: Vec<Epoch>,
}
crate::format!(Epochs, tag = 0x61, version = 1, max = EPOCHS_MAX, name = "epochs");

impl Epochs {
    /// The newest of some.
    pub fn newest(mut epochs: Vec<Epoch>) -> Self {
        epochs.sort_by_key(Epoch::rank);
        let old = epochs.len().saturating_sub(EPOCHS_TOLD_MAX);
        epochs.drain(..old);
        Self { epochs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_known_by_its_name_and_by_nothing_else() {
        let epoch = |number, byte| Epoch::new(number, Secret::new([byte; 32]));
        assert_eq!(epoch(1, 1).name(), epoch(1, 1).name());
        let all = [epoch(1, 1), epoch(2, 1), epoch(1, 2)];
        let mut names: Vec<_> = all.iter().map(|epoch| epoch.name().name).collect();
        names.extend(all.iter().map(|epoch| *epoch.volume(VolumeId([3; 16])).head_key().expose()));
        names.extend([&all[0], &all[2]].map(|epoch| *epoch.members_key().expose()));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn the_newest_are_told() {
        let all = (0..EPOCHS_TOLD_MAX as u32 + 5).rev().map(|number| Epoch::new(number, Secret::new([1; 32])));
        let told = Epochs::newest(all.collect()).epochs;
        assert_eq!((told.len(), told[0].number), (EPOCHS_TOLD_MAX, 5));
    }
}
