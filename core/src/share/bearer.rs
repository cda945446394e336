//! Whoever has a link that writes: an identity of its own, whose keys all follow from the link.
//!
//! Whoever makes such a link grants this identity its part; whoever has the link puts a device of theirs on its list, as
//! one who has the words does. So nothing is asked of who may write but what is asked of any member, and taking the
//! identity off ends the link. Of a link that only reads the same keys follow, and nobody has granted them anything.

use crate::id::IdentityId;
use crate::identity::era::Era;
use crate::identity::place::{Address, Place};
use crate::key::{DeviceKeys, RecoveryKeys, Secret};
use crate::share::offer::Link;

/// The identity of one link.
#[derive(Clone, Debug)]
pub struct Bearer {
    keys: RecoveryKeys,
    era: Era,
}

impl Bearer {
    /// That of a link.
    pub fn of(link: &Link) -> Self {
        let from = [&link.signer[..], &link.secret].concat();
        let derive = |context| Secret::new(blake3::derive_key(context, &from));
        let era = Era::new(0, derive("hypernet 2026 link bearer era v1"));
        Self { keys: RecoveryKeys::of(derive("hypernet 2026 link bearer keys v1")), era }
    }

    /// As others know it.
    pub fn id(&self) -> IdentityId {
        self.keys.id()
    }

    /// Where its list of devices is found.
    pub fn address(&self) -> Address {
        Address::of(&self.keys)
    }

    /// What signs its list, as the words of a person do.
    pub fn keys(&self) -> &RecoveryKeys {
        &self.keys
    }

    /// Its only era: what is sealed for it whoever has the link opens, and where its list lies.
    pub fn era(&self) -> &Era {
        &self.era
    }

    /// The place of what a device of its says of itself. It is another one for each link, so that who knows the list of one
    /// finds neither the device's own identity by it nor what else it has.
    pub fn beacon(&self, device: &DeviceKeys) -> Place {
        Place::new(device.bearer_beacon_secret(&self.id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_link_is_that_of_no_other_one() {
        let link = |byte| Link { signer: [byte; 32], secret: [7; 16] };
        let [one, other] = [1, 2].map(|byte| Bearer::of(&link(byte)));
        assert_eq!(Bearer::of(&link(1)).id(), one.id());
        assert_ne!(one.id(), other.id());
        assert_ne!(one.era().door(), other.era().door());
        assert_ne!(Bearer::of(&Link { secret: [8; 16], ..link(1) }).id(), one.id());
        let device = DeviceKeys::new(Secret::new([1; 32]));
        let places = [one.beacon(&device), other.beacon(&device), Place::new(device.beacon_secret())];
        let mut signers: Vec<_> = places.iter().map(Place::signer).collect();
        signers.sort_unstable();
        signers.dedup();
        assert_eq!(signers.len(), 3);
        assert!(!format!("{one:?}").contains("070707"));
    }
}
