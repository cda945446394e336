//! What the keystore keeps of a volume that several identities have, so that all devices of this one, and the 24 words,
//! come to it.
//!
//! Two devices may change it at once. Epochs and places only become more, and of the rest each part says when it was
//! changed last: so what two of them have comes to the same in any order.

use std::fmt;

use hypernet_core::id::{EntryId, FileId, VolumeId};
use hypernet_core::identity::beacon::Signer;
use hypernet_core::key::Secret;
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::epoch::Epoch;
use hypernet_core::share::members::{Members, Role};
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
/// Links by which one was attached.
const BY_MAX: usize = 16;

/// A link that was made here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
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
    /// What whoever has it may do.
    #[n(4)]
    pub(crate) role: Role,
}

/// Not what the link is made of.
impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changed, until, is_over, role, .. } = self;
        let mut shown = f.debug_struct("Made");
        shown.field("changed", changed).field("until", until).field("is_over", is_over).field("role", role);
        shown.finish_non_exhaustive()
    }
}

impl Made {
    pub(crate) fn new(secret: &Secret, role: Role, until: Option<u64>, now: Hlc) -> Self {
        Self { changed: now, secret: *secret.expose(), until, is_over: false, role }
    }

    /// The identity that is granted what whoever has the link may do; none of a link that only reads.
    pub(crate) fn bearer(&self) -> Option<Bearer> {
        (self.role >= Role::Writer).then(|| Bearer::of(&self.link()))
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

/// A link by which a volume was attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct By {
    /// What it leads to was found to say that it has ended.
    #[n(0)]
    pub(crate) is_over: bool,
    #[n(1)]
    pub(crate) link: Link,
    /// When it ends, in milliseconds since 1970.
    #[n(2)]
    pub(crate) until: Option<u64>,
}

impl By {
    pub(crate) fn is_open(&self, now: u64) -> bool {
        !self.is_over && self.until.is_none_or(|until| until > now)
    }

    /// Whose part in the volume whoever has it has, if it is one that writes.
    pub(crate) fn bearer(&self, members: &Members, now: u64) -> Option<Bearer> {
        let bearer = self.is_open(now).then(|| Bearer::of(&self.link))?;
        Some(bearer).filter(|bearer| members.role(&bearer.id()) >= Some(Role::Writer))
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
    /// The links by which it was attached, sorted: what they say counts beside what this identity was granted.
    #[n(7)]
    pub(crate) by: Vec<By>,
    /// Sorted.
    #[n(8)]
    pub(crate) links: Vec<Made>,
    /// Whether it is out of the tree, and since when that is so.
    #[n(9)]
    pub(crate) left: Left,
    /// This identity has begun to share it.
    #[n(10)]
    pub(crate) is_own: bool,
}

/// Whether somebody has taken what was attached out of the tree again. Of two devices the later one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Left {
    #[n(0)]
    pub(crate) changed: Hlc,
    #[n(1)]
    pub(crate) is_out: bool,
}

impl Share {
    /// As it was offered, or as a link says.
    pub(crate) fn offered(offer: Offer, by: Option<By>) -> Self {
        let Offer { volume, begin, root, name, secret, poster, .. } = offer;
        let (epochs, posters, links) = (Vec::new(), vec![Signer(poster)], Vec::new());
        let by = by.into_iter().collect();
        Self { volume, begin, root, name, secret, epochs, posters, by, links, left: Left::default(), is_own: false }
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

    /// Has these places, and not those; there is room for others of which nothing is known here. The last one stays, whatever it
    /// is: by it another device of this identity comes to the others.
    pub(crate) fn set_posters(&mut self, kept: &[[u8; 32]], gone: &[[u8; 32]]) {
        let others = self.posters.iter().map(|signer| signer.0);
        let others: Vec<[u8; 32]> = others.filter(|one| !kept.contains(one) && !gone.contains(one)).collect();
        let mut posters: Vec<Signer> = kept.iter().copied().chain(others).take(POSTERS_MAX).map(Signer).collect();
        if !posters.is_empty() {
            posters.sort_unstable_by_key(|signer| signer.0);
            posters.dedup_by_key(|signer| signer.0);
            self.posters = posters;
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

    /// Remembers a link by which it was attached, or that one has ended. Those that have make room first.
    pub(crate) fn add_by(&mut self, by: &By) {
        match self.by.iter_mut().find(|other| other.link == by.link) {
            Some(other) => {
                other.is_over |= by.is_over;
                other.until = other.until.max(by.until);
            }
            None => self.by.push(by.clone()),
        }
        self.by.sort();
        self.by.truncate(BY_MAX);
    }

    /// What whoever has one of the links by which it was attached may do. Who has had one reads what there was.
    pub(crate) fn role_by_links(&self, members: &Members, now: u64) -> Option<Role> {
        let role = |by: &By| by.bearer(members, now).map_or(Role::Reader, |_| Role::Writer);
        self.by.iter().map(role).max()
    }

    /// Links that lead here.
    pub(crate) fn open_links(&self) -> impl Iterator<Item = &Made> {
        self.links.iter().filter(|link| !link.is_over)
    }

    fn merge(&mut self, other: &Self) {
        if other.begin != self.begin {
            // Another volume of the same number is somebody's trick. But two devices of one identity may have begun to share one at
            // once: all of them go on by one of the two, and find what was written by the other one.
            if self.is_own && other.is_own {
                let (mut wins, loses) =
                    if self.begin < other.begin { (self.clone(), other) } else { (other.clone(), &*self) };
                loses.epochs.iter().for_each(|epoch| wins.add(epoch.clone()));
                wins.left = self.left.max(other.left);
                *self = wins;
            }
            return;
        }
        other.epochs.iter().for_each(|epoch| self.add(epoch.clone()));
        other.posters.iter().for_each(|signer| self.add_poster(signer.0));
        other.links.iter().for_each(|made| self.add_link(made));
        other.by.iter().for_each(|by| self.add_by(by));
        self.left = self.left.max(other.left);
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
    let offer = Offer {
        volume: VolumeId([1; 16]),
        begin: EntryId([2; 32]),
        root: FileId([3; 16]),
        name: "photos".into(),
        role: Role::Reader,
        secret: Secret::new([4; 32]),
        poster: [5; 32],
    };
    let by = By { is_over: false, link: Link { signer: [8; 32], secret: [9; 16] }, until: Some(7) };
    let mut share = Share::offered(offer, Some(by));
    share.add(Epoch::new(1, Secret::new([1; 32])));
    share.left = Left { changed: Hlc { millis: 3, counter: 1 }, is_out: true };
    share.add_poster([6; 32]);
    share.add_link(&Made::new(&Secret::new([7; 32]), Role::Writer, Some(8), Hlc { millis: 9, counter: 1 }));
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
        let made = |byte, millis| Made::new(&Secret::new([byte; 32]), Role::Reader, None, Hlc { millis, counter: 0 });
        let (mut one, mut other) = (fixed(), fixed());
        one.add(epoch(3));
        one.add_link(&made(1, 1));
        one.add_poster([9; 32]);
        other.add(epoch(2));
        other.add_link(&Made { is_over: true, ..made(1, 2) });
        other.add_link(&made(2, 1));
        let by = |byte, is_over| By { is_over, link: Link { signer: [byte; 32], secret: [1; 16] }, until: None };
        one.add_by(&by(1, false));
        other.add_by(&by(1, true));
        other.add_by(&by(2, false));
        let (mut left, mut right) = (vec![one.clone()], vec![other.clone()]);
        merge(&mut left, &[other]);
        merge(&mut right, &[one]);
        assert_eq!(left, right);
        let numbers: Vec<u32> = left[0].epochs.iter().map(|epoch| epoch.number).collect();
        assert_eq!((numbers, left[0].open_links().count(), left[0].posters.len()), (vec![1, 2, 3], 2, 3));
        let over: Vec<bool> = left[0].by.iter().map(|by| by.is_over).collect();
        assert_eq!(over, [false, false, true], "that a link has ended is not forgotten");
    }

    #[test]
    fn what_somebody_else_says_is_the_same_volume_changes_nothing() {
        let mut mine = vec![fixed()];
        let other = Share { begin: EntryId([7; 32]), epochs: vec![epoch(9)], ..fixed() };
        merge(&mut mine, &[other]);
        assert_eq!(mine, [fixed()]);
    }

    #[test]
    fn two_devices_that_have_begun_to_share_a_volume_go_on_by_one_beginning_and_find_what_both_wrote() {
        let own = Share { is_own: true, ..fixed() };
        let other =
            Share { begin: EntryId([7; 32]), secret: Secret::new([8; 32]), epochs: vec![epoch(9)], ..own.clone() };
        let (mut left, mut right) = (vec![own.clone()], vec![other.clone()]);
        merge(&mut left, std::slice::from_ref(&other));
        merge(&mut right, std::slice::from_ref(&own));
        assert_eq!(left, right);
        let [all] = &left[..] else { panic!() };
        assert_eq!((all.begin, all.secret.clone()), (own.begin, own.secret.clone()));
        assert!(own.epochs.iter().chain(&other.epochs).all(|epoch| all.epochs.contains(epoch)));
        // Whatever comes later.
        merge(&mut left, &[other]);
        assert_eq!(left, right);
    }

    #[test]
    fn what_a_link_is_made_of_is_not_shown() {
        let shown = format!("{:?}", fixed());
        assert!(!shown.contains("7, 7") && !shown.contains("9, 9") && shown.contains("Made"), "{shown}");
    }

    #[test]
    fn places_that_are_known_to_be_somebodys_have_room_before_others() {
        let mut share = fixed();
        (0..200u8).for_each(|byte| share.add_poster([byte; 32]));
        share.set_posters(&[[201; 32], [202; 32]], &[[0; 32], [1; 32]]);
        let has = |byte| share.posters.iter().any(|signer| signer.0 == [byte; 32]);
        assert!(has(201) && has(202) && has(2) && !has(0) && !has(1) && share.posters.len() <= POSTERS_MAX);
        let all: Vec<[u8; 32]> = share.posters.iter().map(|signer| signer.0).collect();
        share.set_posters(&[], &all);
        assert_eq!(share.posters.len(), all.len(), "nobody would find the others by nothing");
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut share = Share { links: Vec::new(), ..fixed() };
        (2..EPOCHS_MAX as u32 + 10).for_each(|number| share.add(epoch(number)));
        (0..200u8).for_each(|byte| share.add_poster([byte; 32]));
        (0..200u8).for_each(|byte| {
            let made = Made::new(&Secret::new([byte; 32]), Role::Reader, None, Hlc { millis: byte.into(), counter: 0 });
            share.add_link(&Made { is_over: byte > 0, ..made });
        });
        assert_eq!((share.epochs.len(), share.posters.len(), share.links.len()), (EPOCHS_MAX, POSTERS_MAX, LINKS_MAX));
        assert_eq!((share.open_links().count(), share.epochs.last().unwrap().number), (1, EPOCHS_MAX as u32 + 9));
    }
}
