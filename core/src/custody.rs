//! Custody: somebody's segments are kept whole by a peer that can read none of them.
//!
//! An owner *appoints* a custodian by a secret that both have and nobody else. From it follow [places](Place), where each of them
//! puts what the other one is to find, so neither has to be there when the other one is:
//!
//! - [`Wards`], by the owner's devices: what there is to look after. A ward is one volume as one device knows it.
//! - Of each ward its *log*, a [`Manifest`](crate::catalog::Manifest) that leads to the pages of the placement log alone: which
//!   rows make up a segment, how many of them are enough, and who has them. Nothing in it opens anything else.
//! - Of each volume the [`Moves`], by the custodian: rows that it has made anew, and who has them now.
//!
//! A custodian renews and adds, and ends nothing: no lease of anybody else's can be ended without its token
//! ([`crate::lease`]). What it says of moves is believed row by row, where a holder confirms it.

use minicbor::{Decode, Encode};

use crate::id::{DeviceId, PeerId, SegmentId, VolumeId};
use crate::identity::place::Place;
use crate::key::Secret;
use crate::limits::{CUSTODIANS_MAX, MOVES_PER_PAGE, SEALED_MAX, WARDS_MAX};
use crate::seal::{ExtentRef, Kind};
use crate::segment::{Holder, Placement};

/// What owner and custodian have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appointment(Secret);

/// A name that says nothing to whoever lacks the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Tag(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl Tag {
    fn of(secret: &Secret) -> Self {
        let mut tag = [0; 16];
        tag.copy_from_slice(&secret.expose()[..16]);
        Self(tag)
    }
}

/// One volume, as one device knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Ward {
    /// Which volume: the same for all devices.
    #[n(0)]
    pub volume: Tag,
    /// Whose log it is.
    #[n(1)]
    pub device: Tag,
}

/// What a custodian looks after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Wards {
    /// Sorted, at most [`WARDS_MAX`].
    #[n(0)]
    pub wards: Vec<Ward>,
    /// All custodians of this owner, sorted, at most [`CUSTODIANS_MAX`]: none of them is to hold a shard.
    #[n(1)]
    pub custodians: Vec<PeerId>,
}
crate::format!(Wards, tag = 0x44, version = 1, max = 8 * crate::limits::KIB, name = "list of wards");

impl Wards {
    /// Whether it is no longer than it may be.
    pub fn is_sound(&self) -> bool {
        self.wards.len() <= WARDS_MAX && self.custodians.len() <= CUSTODIANS_MAX
    }
}

/// A row that somebody else has now.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Move {
    /// Of which segment.
    #[n(0)]
    pub segment: SegmentId,
    /// Which row, who has it, and until when.
    #[n(1)]
    pub holder: Holder,
}

/// Some of what has moved, by segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct MovesPage {
    /// At most [`MOVES_PER_PAGE`].
    #[n(0)]
    pub moves: Vec<Move>,
}
crate::format!(MovesPage, tag = 0x46, version = 1, max = SEALED_MAX, name = "page of moves");

/// A page, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PlacedPage {
    /// How to open it.
    #[n(0)]
    pub extent: ExtentRef,
    /// The segment that it alone is in.
    #[n(1)]
    pub placement: Placement,
}

/// All that has moved and that no log of the volume tells yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Moves {
    /// Pages of it, which tell of different segments.
    #[n(0)]
    pub pages: Vec<PlacedPage>,
}
crate::format!(Moves, tag = 0x45, version = 1, max = SEALED_MAX, name = "moves");

impl Moves {
    /// Whether its pages can be asked for.
    pub fn is_sound(&self) -> bool {
        let is_sound =
            |page: &PlacedPage| page.extent.is_sound() && page.extent.kind == Kind::Posted && page.placement.is_sound();
        self.pages.iter().all(is_sound)
    }
}

impl MovesPage {
    /// Whether it is no longer than it may be.
    pub fn is_sound(&self) -> bool {
        self.moves.len() <= MOVES_PER_PAGE
    }
}

impl Appointment {
    /// By this secret, which was drawn for it.
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The secret.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// By which both sides name it.
    pub fn tag(&self) -> Tag {
        Tag::of(&self.0.derive("hypernet 2026 custody tag v1", &[]))
    }

    /// Where the [`Wards`] are.
    pub fn wards(&self) -> Place {
        Place::new(self.0.derive("hypernet 2026 custody wards v1", &[]))
    }

    /// The ward that a device makes of a volume.
    pub fn ward(&self, volume: &VolumeId, device: &DeviceId) -> Ward {
        let volume = self.0.derive("hypernet 2026 custody volume v1", &[volume.as_bytes()]);
        let device = self.0.derive("hypernet 2026 custody device v1", &[device.as_bytes()]);
        Ward { volume: Tag::of(&volume), device: Tag::of(&device) }
    }

    /// Where the log of a ward is.
    pub fn log(&self, ward: &Ward) -> Place {
        Place::new(self.0.derive("hypernet 2026 custody log v1", &[&ward.volume.0, &ward.device.0]))
    }

    /// Where the [`Moves`] of a volume are.
    pub fn moves(&self, volume: &Tag) -> Place {
        Place::new(self.0.derive("hypernet 2026 custody moves v1", &[&volume.0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::key::DeviceKeys;
    use crate::time::UnixSeconds;

    #[test]
    fn places_of_one_appointment_have_nothing_in_common_but_the_secret() {
        let (one, other) = (Appointment::new(Secret::new([1; 32])), Appointment::new(Secret::new([2; 32])));
        let (laptop, desk) = (DeviceKeys::new(Secret::new([3; 32])).id(), DeviceKeys::new(Secret::new([4; 32])).id());
        let (main, share) = (VolumeId([5; 16]), VolumeId([6; 16]));
        let mut signers = Vec::new();
        for appointment in [&one, &other] {
            signers.push(appointment.wards().signer());
            for volume in [main, share] {
                let wards = [&laptop, &desk].map(|device| appointment.ward(&volume, device));
                assert_eq!(wards[0].volume, wards[1].volume, "both devices look after one volume");
                assert_ne!(wards[0].device, wards[1].device);
                signers.extend(wards.iter().map(|ward| appointment.log(ward).signer()));
                signers.push(appointment.moves(&wards[0].volume).signer());
            }
        }
        let all = signers.len();
        signers.sort_unstable();
        signers.dedup();
        assert_eq!(signers.len(), all);
        assert_eq!(one.tag(), Appointment::new(one.secret().clone()).tag());
        assert_ne!(one.tag(), other.tag());
    }

    #[test]
    fn what_is_too_long_is_not_sound_and_the_longest_page_fits() {
        let holder = Holder { row: 255, peer: PeerId([0xff; 32]), until: UnixSeconds(u64::MAX) };
        let moves = vec![Move { segment: SegmentId([0xff; 32]), holder }; MOVES_PER_PAGE];
        let page = MovesPage { moves };
        assert!(page.is_sound() && codec::decode::<MovesPage>(&codec::encode(&page)).unwrap() == page);
        let longer = MovesPage { moves: [&page.moves[..], &page.moves[..1]].concat() };
        assert!(!longer.is_sound());
        let ward = Ward { volume: Tag([1; 16]), device: Tag([2; 16]) };
        let wards = Wards { wards: vec![ward; WARDS_MAX], custodians: vec![PeerId([3; 32]); CUSTODIANS_MAX] };
        assert!(wards.is_sound() && codec::encode(&wards).len() < 8 * crate::limits::KIB);
        assert!(!Wards { wards: vec![ward; WARDS_MAX + 1], ..Wards::default() }.is_sound());
    }
}
