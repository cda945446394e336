//! What somebody is told who is to have a volume of somebody else.
//!
//! A device puts what it offers at a place of its own, which its beacon names: a box for each identity that is offered
//! anything, sealed for it. Who knows the sharing identity sees how many boxes there are, and opens its own.
//! A link tells the same to whoever has it, and the keys with it; one that writes is an identity, too, which is granted its
//! part as any other ([bearer](super::bearer)).

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{EntryId, FileId, RecordKey, VolumeId};
use crate::identity::place::Place;
use crate::key::{DeviceKeys, Secret};
use crate::limits::{NAME_MAX, OFFER_BOX_MAX, OFFERS_MAX, SHARE_POSTING_MAX};
use crate::name::{filtered, is_shown};
use crate::record::record_key;
use crate::share::epoch::Epoch;
use crate::share::members::Role;

/// Of a name that is none so much is shown.
const NAME_SHOWN_MAX: usize = 64;

/// By which a volume of somebody else is found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Offer {
    /// Which.
    #[n(0)]
    pub volume: VolumeId,
    /// By which change it is shared.
    #[n(1)]
    pub begin: EntryId,
    /// Its root.
    #[n(2)]
    pub root: FileId,
    /// What it is called there; it is shown, and nothing is ever called so here by itself.
    #[n(3)]
    pub name: String,
    /// What it may do who is told this, as far as whoever says so knew.
    #[n(4)]
    pub role: Role,
    /// Opens what lies at the places of its admins' devices.
    #[n(5)]
    pub secret: Secret,
    /// Signer of one of these places.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub poster: [u8; 32],
}

impl Offer {
    /// Whether its name is one that a directory can have.
    pub fn is_sound(&self) -> bool {
        is_name(&self.name)
    }

    /// What may be shown of its name where it is none.
    pub fn shown_name(&self) -> String {
        filtered(&self.name, NAME_SHOWN_MAX)
    }
}

/// Whether somebody else's directory can be called so: it is shown, proposed and typed again by people.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && name != "." && name != ".." && name.chars().all(|c| c != '/' && is_shown(c))
}

/// What is offered to one identity.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Offers {
    /// All of it.
    #[n(0)]
    pub offers: Vec<Offer>,
}
crate::format!(Offers, tag = 0x63, version = 1, max = OFFER_BOX_MAX, name = "offers");

/// What lies at the place of a device's offers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Boxes {
    /// [`Offers`], each sealed for an identity.
    #[n(0)]
    pub boxes: Vec<ByteVec>,
}
crate::format!(Boxes, tag = 0x64, version = 1, max = OFFERS_MAX, name = "boxes of offers");

/// Where the offers of a device are.
pub fn place(device: &DeviceKeys) -> Place {
    Place::new(device.offers_secret())
}

/// What a link leads to: whoever has it reads the volume, or also writes, as the offer says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Linked {
    /// Which volume.
    #[n(0)]
    pub offer: Offer,
    /// Its epochs, the newest last.
    #[n(1)]
    pub epochs: Vec<Epoch>,
    /// When it ends, in milliseconds since 1970.
    #[n(2)]
    pub until: Option<u64>,
}

/// At the place of a link.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LinkNotice {
    /// It leads there.
    #[n(0)]
    Leads(#[n(0)] Box<Linked>),
    /// It has ended, or was taken back.
    #[n(1)]
    Ended,
}
crate::format!(LinkNotice, tag = 0x65, version = 1, max = SHARE_POSTING_MAX, name = "link notice");

/// A link as it is handed on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Link {
    /// Signer of the record that it leads to.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub signer: [u8; 32],
    /// What opens that.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub secret: [u8; 16],
}

/// Not what opens it.
impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("signer", &self.signer).finish_non_exhaustive()
    }
}

impl Link {
    /// The link of a random secret, which whoever made it keeps.
    pub fn of(secret: &Secret) -> Self {
        let mut opens = [0; 16];
        opens.copy_from_slice(&secret.derive("hypernet 2026 link secret v1", &[]).expose()[..16]);
        Self { signer: Self::place(secret).signer(), secret: opens }
    }

    /// Where what it leads to is put.
    pub fn place(secret: &Secret) -> Place {
        Place::new(secret.derive("hypernet 2026 link place v1", &[]))
    }

    /// Where what it leads to is.
    pub fn record_key(&self) -> RecordKey {
        record_key(&self.signer)
    }

    /// Seals that.
    pub fn sealing_key(&self) -> Secret {
        Secret::new(blake3::derive_key("hypernet 2026 link sealing key v1", &[&self.signer[..], &self.secret].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_else_calls_it_is_a_name_and_no_path() {
        for name in ["photos", "Fotos 2026", "…", "-rf", "con\u{301}"] {
            assert!(is_name(name), "{name}");
        }
        let long = "x".repeat(NAME_MAX + 1);
        for name in ["", ".", "..", "../../etc", "/etc", "a/b", "a\nb", "a\0b", "\u{1b}[2J", "gpj.\u{202e}exe", &long] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_link_leads_where_its_maker_puts_it_and_signs_nothing() {
        let secret = Secret::new([1; 32]);
        let link = Link::of(&secret);
        assert_eq!(link.signer, Link::place(&secret).signer());
        assert_ne!(link, Link::of(&Secret::new([2; 32])));
        assert!(!format!("{link:?}").contains(&format!("{}, {}", link.secret[0], link.secret[1])));
    }
}
