//! Where devices of admins say who has a part in a volume, and which of these places are looked at.
//!
//! A device has one place, which its beacon names: the one before it is forgotten, as are the places of those who say
//! nothing any more. So nobody takes the room of the others, however often they name another place. The keystore keeps a
//! few of each, by which another device of this identity finds all.

use std::collections::BTreeMap;

use hypernet_core::id::{DeviceId, IdentityId};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::log::Roster;
use hypernet_core::limits::DEVICES_MAX;
use hypernet_core::port::PortError;
use hypernet_core::share::members::{Members, Role};
use minicbor::{Decode, Encode};

use super::circle::Circle;
use super::hearing::Known;
use super::kept::Share;
use crate::volume::Volume;

/// Places that are looked at.
const POSTERS_MAX: usize = 256;
/// Places of one identity that the keystore keeps.
const KEPT_OF_ONE: usize = 4;

/// A place at which somebody says who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Poster {
    /// Signs what lies there.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) signer: [u8; 32],
    /// Whose it is.
    #[n(1)]
    pub(crate) identity: IdentityId,
    /// The device that has said so.
    #[n(2)]
    pub(crate) device: Option<DeviceId>,
    /// The number of what was understood of it last.
    #[n(3)]
    pub(crate) heard: Option<u64>,
}

impl Poster {
    /// Whether both are the same place of the same device.
    fn is_same(&self, other: &Self) -> bool {
        (self.signer, self.identity, self.device) == (other.signer, other.identity, other.device)
    }
}

impl Circle {
    /// Whether it is a place of an admin's device that is on the list now.
    fn is_place(&self, own: &Roster, members: &Members, poster: &Poster) -> bool {
        let roster = if poster.identity == own.identity { Some(own) } else { self.roster(&poster.identity) };
        let is_listed = |device| roster.is_some_and(|roster| roster.device(&device).is_some());
        members.role(&poster.identity) >= Some(Role::Admin) && poster.device.is_none_or(is_listed)
    }

    /// Whether there are places of those who say nothing any more.
    fn has_idle_places(&self, own: &Roster, members: &Members) -> bool {
        self.posters.iter().any(|poster| !self.is_place(own, members, poster))
    }

    /// Takes in places, and forgets those that are none any more.
    fn keep_places(&mut self, new: &[Poster], own: &Roster) {
        let members = self.members(own);
        for new in new {
            let heard = self.posters.iter().filter(|old| old.signer == new.signer).filter_map(|old| old.heard).max();
            let is_over = |old: &Poster| old.signer == new.signer || old.device.is_some() && old.device == new.device;
            self.posters.retain(|old| old.identity != new.identity || !is_over(old));
            self.posters.push(Poster { heard: heard.max(new.heard), ..*new });
        }
        let mut posters = std::mem::take(&mut self.posters);
        posters.retain(|poster| self.is_place(own, &members, poster));
        while let Some(at) = self.in_excess(own, &posters) {
            posters.remove(at);
        }
        self.posters = posters;
    }

    /// Which of so many places goes first: the oldest of those who have the most. Those of the owner and of this identity stay.
    fn in_excess(&self, own: &Roster, posters: &[Poster]) -> Option<usize> {
        let owner = self.log.owner().map(|owner| owner.identity);
        let mut count: BTreeMap<IdentityId, usize> = BTreeMap::new();
        posters.iter().for_each(|poster| *count.entry(poster.identity).or_default() += 1);
        let is_spared = |identity: &IdentityId| *identity == own.identity || Some(*identity) == owner;
        let others = count.iter().filter(|(identity, _)| !is_spared(identity)).max_by_key(|(_, count)| **count);
        let (most, count) = others.or_else(|| count.iter().max_by_key(|(_, count)| **count))?;
        let is_full = posters.len() > POSTERS_MAX || *count > DEVICES_MAX;
        if is_full { posters.iter().position(|poster| poster.identity == *most) } else { None }
    }

    /// The places that the keystore is to have, those first that matter most.
    fn places_to_keep(&self, own: &IdentityId) -> Vec<[u8; 32]> {
        let owner = self.log.owner().map(|owner| owner.identity);
        let mut of: BTreeMap<IdentityId, usize> = BTreeMap::new();
        let mut all: Vec<(usize, bool, [u8; 32])> = Vec::new();
        for poster in self.posters.iter().rev() {
            let before = of.entry(poster.identity).or_default();
            let is_first = poster.identity == *own || Some(poster.identity) == owner;
            all.push((*before, !is_first, poster.signer));
            *before += 1;
        }
        all.retain(|(before, ..)| *before < KEPT_OF_ONE);
        all.sort_unstable();
        all.into_iter().map(|(.., signer)| signer).collect()
    }

    /// What lies at this place was understood.
    pub(super) fn was_heard(&mut self, signer: &[u8; 32], number: u64) {
        for poster in self.posters.iter_mut().filter(|poster| poster.signer == *signer) {
            poster.heard = poster.heard.max(Some(number));
        }
    }

    /// Whether what lies at this place was understood before: it may be that nobody has it any more who can give it back.
    pub(super) fn has_heard(&self, signer: &[u8; 32], number: u64) -> bool {
        self.posters.iter().any(|poster| poster.signer == *signer && poster.heard >= Some(number))
    }

    /// Whether it is known that this is a place.
    pub(super) fn has_place(&self, poster: &Poster) -> bool {
        self.posters.iter().any(|other| other.is_same(poster))
    }

    /// Whether an admin is known to have a place with this signer.
    pub(super) fn is_admins(&self, members: &Members, signer: &[u8; 32]) -> bool {
        let mut theirs = self.posters.iter().filter(|poster| poster.signer == *signer);
        theirs.any(|poster| members.role(&poster.identity) >= Some(Role::Admin))
    }
}

impl Known {
    /// Signers of all places that are looked at.
    pub(super) fn signers(&self) -> Vec<[u8; 32]> {
        signers(&self.share, Some(&self.circle))
    }
}

/// The same where nothing may be heard yet.
pub(super) fn signers(share: &Share, circle: Option<&Circle>) -> Vec<[u8; 32]> {
    let told = circle.into_iter().flat_map(|circle| &circle.posters).map(|poster| poster.signer);
    let mut all: Vec<[u8; 32]> = share.posters.iter().map(|signer| signer.0).chain(told).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Volume {
    /// Remembers where devices of somebody who says who may do what say so. Returns whether any of that is new.
    pub(super) fn meet_posters<'a>(
        &self,
        known: &Known,
        identity: IdentityId,
        beacons: impl IntoIterator<Item = (&'a DeviceId, &'a Beacon)>,
    ) -> Result<bool, PortError> {
        let Known { share, circle, members } = known;
        if members.role(&identity) < Some(Role::Admin) {
            return Ok(false);
        }
        let places = beacons.into_iter().filter_map(|(device, beacon)| {
            let signer = beacon.poster(device, &self.id, &share.secret)?;
            // It may have been heard before anybody said whose it is.
            let heard = self.heard.lock().iter().find(|heard| heard.signer == signer).map(|heard| heard.sequence);
            Some(Poster { signer, identity, device: Some(*device), heard })
        });
        let told: Vec<Poster> = places.filter(|poster| !circle.has_place(poster)).collect();
        if told.is_empty() {
            return Ok(false);
        }
        let before = known.signers();
        self.remember_posters(&told)?;
        Ok(told.iter().any(|poster| !before.contains(&poster.signer)))
    }

    /// Forgets the places of those who say nothing any more.
    pub(super) fn forget_posters(&self) -> Result<(), PortError> {
        let Some(Known { circle, members, .. }) = self.known_share() else { return Ok(()) };
        if circle.has_idle_places(&self.identity.roster(), &members) { self.remember_posters(&[]) } else { Ok(()) }
    }

    pub(super) fn remember_posters(&self, new: &[Poster]) -> Result<(), PortError> {
        let own = self.identity.roster();
        let (kept, others) = self.change_circle(|circle| {
            let Some(circle) = circle else { return Ok::<_, PortError>((Vec::new(), Vec::new())) };
            let mut others: Vec<[u8; 32]> = circle.posters.iter().map(|poster| poster.signer).collect();
            circle.keep_places(new, &own);
            let kept = circle.places_to_keep(&own.identity);
            others.extend(circle.posters.iter().map(|poster| poster.signer));
            others.retain(|signer| !kept.contains(signer));
            Ok((kept, others))
        })?;
        self.identity
            .keystore()
            .change(|mine| mine.change_share(self.id, |share| share.set_posters(&kept, &others)))
            .map_err(|failure| PortError::Disk(failure.to_string()))
    }
}
