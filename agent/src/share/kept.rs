//! What the keystore keeps of a volume that several identities have, so that all devices of this one, and the 24 words,
//! come to it.
//!
//! Two devices may change it at once. Epochs and places only become more, and of the rest each part says when it was
//! changed last: so what two of them have comes to the same in any order.

use hypernet_core::id::{EntryId, FileId, VolumeId};
use hypernet_core::identity::beacon::Signer;
use hypernet_core::key::Secret;
use hypernet_core::share::epoch::Epoch;
use hypernet_core::share::offer::{Link, Offer};
use hypernet_core::time::Hlc;
use minicbor::{Decode, Encode};

/// Volumes of this kind in one keystore.
pub(crate) const SHARES_MAX: usize = 512;
/// Epochs of one of them, the newest.
const EPOCHS_MAX: usize = 256;
/// Places of one that are remembered.
const POSTERS_MAX: usize = 64;
/// Links to one, with those that have ended.
const LINKS_MAX: usize = 64;

/// A link that was made here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Made {
    /// When any of this was changed last.
    #[n(0)]
    pub(crate) changed: Hlc,
    #[n(1)]
    secret: [u8; 32],
    /// When it ends, in milliseconds since 1970.
    #[n(2)]
    pub(crate) until: Option<u64>,
    /// It was taken back, or has ended.
    #[n(3)]
    pub(crate) is_over: bool,
}

impl Made {
    pub(crate) fn new(secret: &Secret, until: Option<u64>, now: Hlc) -> Self {
        Self { changed: now, secret: *secret.expose(), until, is_over: false }
    }

    pub(crate) fn secret(&self) -> Secret {
        Secret::new(self.secret)
    }

    pub(crate) fn link(&self) -> Link {
        Link::of(&self.secret())
    }

    /// The same, which has ended.
    pub(crate) fn over(&self, now: Hlc) -> Self {
        Self { is_over: true, changed: now, ..self.clone() }
    }
}

/// A volume that several identities have.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Share {
    #[n(0)]
    pub(crate) volume: VolumeId,
    /// The change by which it is shared: pinned when it was offered.
    #[n(1)]
    pub(crate) begin: EntryId,
    #[n(2)]
    pub(crate) root: FileId,
    /// What it was called where it was shared.
    #[n(3)]
    pub(crate) name: String,
    /// Opens what lies at the places of its admins' devices.
    #[n(4)]
    pub(crate) secret: Secret,
    /// The newest last.
    #[n(5)]
    pub(crate) epochs: Vec<Epoch>,
    /// Signers of these places, sorted.
    #[n(6)]
    pub(crate) posters: Vec<Signer>,
    /// The link by which it was attached, where nobody has granted it to this identity.
    #[n(7)]
    pub(crate) by: Option<Link>,
    /// Sorted.
    #[n(8)]
    pub(crate) links: Vec<Made>,
}

impl Share {
    /// As it was offered.
    pub(crate) fn offered(offer: Offer, by: Option<Link>) -> Self {
        let Offer { volume, begin, root, name, secret, poster, .. } = offer;
        let (epochs, posters, links) = (Vec::new(), vec![Signer(poster)], Vec::new());
        Self { volume, begin, root, name, secret, epochs, posters, by, links }
    }

    /// Takes in an epoch.
    pub(crate) fn add(&mut self, epoch: Epoch) {
        if !self.epochs.contains(&epoch) {
            self.epochs.push(epoch);
            self.epochs.sort_by_key(Epoch::rank);
            let old = self.epochs.len().saturating_sub(EPOCHS_MAX);
            self.epochs.drain(..old);
        }
    }

    /// Remembers a place.
    pub(crate) fn add_poster(&mut self, signer: [u8; 32]) {
        let is_known = self.posters.iter().any(|known| known.0 == signer);
        if !is_known && self.posters.len() < POSTERS_MAX {
            self.posters.push(Signer(signer));
            self.posters.sort_unstable_by_key(|signer| signer.0);
        }
    }

    /// Adds a link, or changes one that is there.
    pub(crate) fn add_link(&mut self, made: &Made) {
        match self.links.iter_mut().find(|other| other.secret == made.secret) {
            Some(other) => *other = (*other).clone().max(made.clone()),
            None => self.links.push(made.clone()),
        }
        // Those that have ended make room first, the oldest before the others.
        self.links.sort_by_key(|link| (!link.is_over, link.changed));
        let old = self.links.len().saturating_sub(LINKS_MAX);
        self.links.drain(..old);
        self.links.sort();
    }

    /// Links that lead here.
    pub(crate) fn open_links(&self) -> impl Iterator<Item = &Made> {
        self.links.iter().filter(|link| !link.is_over)
    }

    fn merge(&mut self, other: &Self) {
        if other.begin != self.begin {
            // What was known first stays: another volume of the same number is somebody's trick.
            return;
        }
        other.epochs.iter().for_each(|epoch| self.add(epoch.clone()));
        other.posters.iter().for_each(|signer| self.add_poster(signer.0));
        other.links.iter().for_each(|made| self.add_link(made));
        // Whoever is granted what they had by a link has it as granted.
        self.by = self.by.filter(|_| other.by.is_some());
    }
}

/// Takes in what another keystore has.
pub(crate) fn merge(mine: &mut Vec<Share>, others: &[Share]) {
    for other in others {
        let has_room = mine.len() < SHARES_MAX;
        match mine.iter_mut().find(|share| share.volume == other.volume) {
            Some(share) => share.merge(other),
            None if has_room => mine.push(other.clone()),
            None => {}
        }
    }
    mine.sort_by_key(|share| share.volume);
}

/// Always the same one.
#[cfg(test)]
pub(crate) fn fixed() -> Share {
    use hypernet_core::share::members::Role;

    let offer = Offer {
        volume: VolumeId([1; 16]),
        begin: EntryId([2; 32]),
        root: FileId([3; 16]),
        name: "photos".into(),
        role: Role::Reader,
        secret: Secret::new([4; 32]),
        poster: [5; 32],
    };
    let mut share = Share::offered(offer, None);
    share.add(Epoch::new(1, Secret::new([1; 32])));
    share.add_poster([6; 32]);
    share.add_link(&Made::new(&Secret::new([7; 32]), Some(8), Hlc { millis: 9, counter: 1 }));
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number, Secret::new([number as u8; 32]))
    }

    #[test]
    fn what_two_devices_change_at_once_comes_to_the_same() {
        let made = |byte, millis| Made::new(&Secret::new([byte; 32]), None, Hlc { millis, counter: 0 });
        let (mut one, mut other) = (fixed(), fixed());
        one.add(epoch(3));
        one.add_link(&made(1, 1));
        one.add_poster([9; 32]);
        other.add(epoch(2));
        other.add_link(&Made { is_over: true, ..made(1, 2) });
        other.add_link(&made(2, 1));
        let (mut left, mut right) = (vec![one.clone()], vec![other.clone()]);
        merge(&mut left, &[other]);
        merge(&mut right, &[one]);
        assert_eq!(left, right);
        let numbers: Vec<u32> = left[0].epochs.iter().map(|epoch| epoch.number).collect();
        assert_eq!((numbers, left[0].open_links().count(), left[0].posters.len()), (vec![1, 2, 3], 2, 3));
    }

    #[test]
    fn what_somebody_else_says_is_the_same_volume_changes_nothing() {
        let mut mine = vec![fixed()];
        let other = Share { begin: EntryId([7; 32]), epochs: vec![epoch(9)], ..fixed() };
        merge(&mut mine, &[other]);
        assert_eq!(mine, [fixed()]);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut share = Share { links: Vec::new(), ..fixed() };
        (2..EPOCHS_MAX as u32 + 10).for_each(|number| share.add(epoch(number)));
        (0..200u8).for_each(|byte| share.add_poster([byte; 32]));
        (0..200u8).for_each(|byte| {
            let made = Made::new(&Secret::new([byte; 32]), None, Hlc { millis: byte.into(), counter: 0 });
            share.add_link(&Made { is_over: byte > 0, ..made });
        });
        assert_eq!((share.epochs.len(), share.posters.len(), share.links.len()), (EPOCHS_MAX, POSTERS_MAX, LINKS_MAX));
        assert_eq!((share.open_links().count(), share.epochs.last().unwrap().number), (1, EPOCHS_MAX as u32 + 9));
    }
}
