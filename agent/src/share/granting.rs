//! Beginning to share a volume, bringing people and taking them off.
//!
//! Order: what opens an epoch is in the keystore before a change names it, the change is on this disk before it is on the
//! mesh, and what is told to others comes last. So wherever this is broken off, either nothing has happened, or
//! [tending](Volume::tend) ends it.

use hypernet_core::head::Head;
use hypernet_core::id::{DeviceId, FileId, IdentityId};
use hypernet_core::limits::{ACCEPTED_MAX, CHANGED_MAX, TAKEN_MAX};
use hypernet_core::port::PortError;
use hypernet_core::share::epoch::Epoch;
use hypernet_core::share::members::{Accepted, Author, Change, Log, Member, MembersError, Refused, Role};
use hypernet_core::share::offer::Offer;
use hypernet_core::time::Hlc;
use thiserror::Error;

use super::circle::Circle;
use super::hearing::{Ask, Known};
use super::kept::{SHARES_MAX, Share};
use crate::failure::Failure;
use crate::keystore::random_secret;
use crate::people::ContactError;
use crate::people::contact::Contact;
use crate::people::{self, Found};
use crate::volume::heads::sequence_of;
use crate::volume::recover::clock;
use crate::volume::{Volume, damaged, state};

/// Why something is not shared, or not taken back.
#[derive(Debug, Error)]
pub(crate) enum ShareError {
    /// The mesh or the disk did not do its part.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The keystore could not be changed.
    #[error(transparent)]
    Disk(#[from] Failure),
    /// Nobody is known by that name.
    #[error(transparent)]
    Contact(#[from] ContactError),
    /// The change would not count.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// Nobody else has a part in it.
    #[error("this volume is not shared with anybody")]
    NotShared,
    /// There is no room.
    #[error("there is room for {SHARES_MAX} volumes that are shared")]
    Full,
    /// No link is that.
    #[error("no link to this volume is {0}")]
    Link(String),
    /// It has ended.
    #[error("this link has ended, or was taken back")]
    Ended,
    /// Nothing is offered by that name.
    #[error("nothing that is offered is called {0}")]
    Unknown(String),
    /// Somebody means harm, or their program is broken.
    #[error("this invitation names {0:?}, which is no name for a directory")]
    Name(String),
    /// It is here already.
    #[error("it is attached already, at {0}")]
    Attached(String),
}

/// Somebody who is to get a part in a volume, as they were found.
pub(crate) struct Guest {
    pub(crate) contact: Contact,
    found: Found,
}

impl Guest {
    /// Looks a contact up.
    pub(crate) fn find(volume: &Volume, contact: Contact) -> Result<Self, PortError> {
        let found = people::look_up_contact(&volume.identity, &contact)?;
        Ok(Self { contact, found })
    }
}

impl Volume {
    pub(super) fn author(&self) -> Author {
        Author { identity: self.identity.id(), device: self.device.id() }
    }

    /// Begins to share it, with nobody so far; nothing when that has begun. `name` is what others are shown.
    pub(crate) fn begin_share(&self, root: FileId, name: &str) -> Result<(), ShareError> {
        if self.share().is_some() {
            return Ok(());
        }
        let _turn = self.circle_turn.lock();
        let (epoch, secret) = (Epoch::new(1, random_secret()?), random_secret()?);
        let key = self.device.signing_key();
        let (owner, now) = (self.identity.address(), clock(Hlc::default()));
        let log = Log::begin(self.id, self.author(), &key, owner, now, epoch.name());
        let poster = hypernet_core::share::posting::place(&self.device, &self.id).signer();
        let (begin, role) = (log.beginning(), Role::Owner);
        let offer = Offer { volume: self.id, begin, root, name: name.to_owned(), role, secret, poster };
        let mut share = Share { is_own: true, ..Share::offered(offer, None) };
        share.add(epoch);
        state::put_opens(&self.db, &begin)?;
        self.change_circle(|circle| {
            *circle = Some(Circle::new(log));
            Ok::<_, PortError>(())
        })?;
        let is_kept = self.identity.keystore().change(|mine| mine.add_share(share))?;
        if !is_kept {
            return Err(ShareError::Full);
        }
        self.heard();
        Ok(())
    }

    /// Two devices of this identity have begun to share this volume at once, and the other beginning counts: what was said after
    /// this one is set aside.
    pub(super) fn begin_again(&self) -> Result<(), PortError> {
        let mut circle = self.circle.lock();
        let (Some(share), Some(known)) = (self.share(), &*circle) else { return Ok(()) };
        if known.log.beginning() != share.begin {
            tracing::warn!(volume = %self.id.short(), "this volume is shared by another beginning than before");
            Circle::set_aside(&self.db)?;
            *circle = None;
        }
        Ok(())
    }

    /// Whether that is to be made good.
    pub(crate) fn has_begun_again(&self) -> Result<bool, PortError> {
        Ok(self.share().is_some() && Circle::before(&self.db, self.id)?.is_some())
    }

    /// Those who were given a part before that have one now, too, and those who were taken off have none.
    pub(super) fn bring_along(&self, known: &Known) -> Result<(), PortError> {
        let Some(before) = Circle::before(&self.db, self.id)? else { return Ok(()) };
        let has_less = |member: &&Member| known.members.role(&member.identity) < Some(member.role);
        let members = before.members(&self.identity.roster());
        // The links of before lead nowhere.
        let is_link = |member: &&Member| members.links().any(|link| link == member.identity);
        let all = members.members.values().filter(|member| member.role < Role::Owner && !is_link(member));
        // Of a grant and a removal, neither of which knew of the other, the removal counts.
        let is_gone = |member: &&Member| known.members.gone.contains_key(&member.identity);
        let new: Vec<Member> = all.filter(|member| has_less(member) && !is_gone(member)).copied().collect();
        let is_left = |identity: &&IdentityId| known.members.role(identity).is_some_and(|role| role < Role::Owner);
        let gone: Vec<IdentityId> = members.gone.keys().filter(is_left).copied().collect();
        if !gone.is_empty() {
            self.remove_in_turn(known, &gone).map_err(into_port)?;
        }
        let people =
            before.people.iter().filter(|(identity, _)| new.iter().any(|member| member.identity == **identity));
        let people: Vec<_> = people.map(|(identity, person)| (*identity, person.clone())).collect();
        for some in new.chunks(CHANGED_MAX) {
            let meet = |circle: &mut Circle| {
                for (identity, person) in &people {
                    circle.people.entry(*identity).or_insert_with(|| person.clone());
                }
                Ok(())
            };
            self.change_members_with(Change::Grant(some.to_vec()), meet).map_err(into_port)?;
        }
        Circle::forget_before(&self.db)
    }

    /// What this device knows now is what it acts by.
    fn heard(&self) {
        if let Some(known) = self.known_share() {
            self.acts_by(&known);
        }
    }

    pub(super) fn acts_by(&self, Known { members, .. }: &Known) {
        self.identity.set_epoch(self.id, members.epoch);
        self.identity.set_offers_of(self.id, members.role(&self.identity.id()) >= Some(Role::Admin));
    }

    /// The same of what was known when this device was started.
    pub(crate) fn remember_share(&self) -> Result<(), PortError> {
        if self.share().is_some() {
            let circle = Circle::load(&self.db, self.id).map_err(|error| match error {
                PortError::Damaged(why) => damaged(format!(
                    "what this device knows of who has a part in volume {} cannot be read, so it stays closed: {why}",
                    self.id.short()
                )),
                other => other,
            })?;
            *self.circle.lock() = circle;
            self.heard();
        }
        Ok(())
    }

    /// All that is known, to whoever says who may do what. Who was taken off finds that nothing it says counts.
    pub(super) fn hear_as_admin(&self, ask: Ask) -> Result<Known, ShareError> {
        let known = self.hear_in_turn(ask)?.ok_or(ShareError::NotShared)?;
        match self.role() >= Some(Role::Admin) {
            true => Ok(known),
            false => Err(ShareError::Members(Refused::Stranger.into())),
        }
    }

    /// These get a part in it. It is on the mesh when this returns.
    pub(crate) fn grant(&self, guests: Vec<Guest>, role: Role) -> Result<(), ShareError> {
        let _turn = self.circle_turn.lock();
        let known = self.hear_as_admin(Ask::All)?;
        let mut new = Vec::with_capacity(guests.len());
        let mut met = Vec::with_capacity(guests.len());
        let mut beacons = Vec::with_capacity(guests.len());
        for Guest { contact, found } in guests {
            let member = Member::new(contact.identity, contact.address(), role);
            let is_asked = role >= Role::Writer || known.members.wrote.contains(&member.identity);
            met.push((member.identity, found.recipient()?, found.posting, is_asked));
            beacons.push((member.identity, found.beacons));
            if known.members.role(&member.identity) != Some(role) {
                new.push(member);
            }
        }
        // Who they are comes with it: what is sealed from now on is sealed for them, too. Where it is refused nobody was met.
        let meet = |circle: &mut Circle| {
            met.into_iter().try_for_each(|(identity, recipient, found, is_asked)| {
                circle.meet(identity, recipient, found, is_asked).map(drop)
            })
        };
        match new.is_empty() {
            true => self.change_circle(|circle| circle.as_mut().map_or(Ok(()), meet))?,
            false => self.change_members_with(Change::Grant(new), meet)?,
        }
        beacons.into_iter().for_each(|(identity, beacons)| self.identity.heard(identity, beacons));
        Ok(self.post()?)
    }

    /// These have no part in it any more: what is written from now on is sealed in another epoch, and of what their devices
    /// publish nothing is taken that is not found now. So it is with links that they have made: who is taken off would write by
    /// one. It is on the mesh when this returns. Where it was broken off, saying it again ends it: nobody is taken off twice.
    pub(crate) fn remove(&self, gone: &[IdentityId]) -> Result<(), ShareError> {
        let _turn = self.circle_turn.lock();
        // They read on until this is said.
        let known = self.hear_as_admin(Ask::Soon)?;
        let mut all: Vec<IdentityId> = gone.to_vec();
        all.retain(|identity| !known.members.gone.contains_key(identity));
        all.sort();
        all.dedup();
        self.remove_in_turn(&known, &all)?;
        // A link that writes is one of those who may be gone.
        for ended in [self.end_links_of_gone(), self.end_links(!all.is_empty())] {
            match ended {
                // Who was named is off all the same, and the others are to hear of that.
                Err(error @ ShareError::Members(MembersError::Full)) => {
                    tracing::warn!(volume = %self.id.short(), %error, "links that were to end lead on");
                }
                ended => ended?,
            }
        }
        self.post()?;
        Ok(self.put_links()?)
    }

    /// These are taken off, in as many changes as it takes. Links come last: there may be many, with many devices each, and
    /// nobody who was named is to stay because what they have made has taken the room.
    pub(super) fn remove_in_turn(&self, known: &Known, gone: &[IdentityId]) -> Result<(), ShareError> {
        let (links, people): (Vec<IdentityId>, Vec<IdentityId>) =
            gone.iter().partition(|identity| known.members.is_link(identity));
        let devices = |identity: &IdentityId| {
            known.circle.roster(identity).map_or(0, |roster| roster.devices.len() + roster.gone.len())
        };
        for (mut waiting, are_links) in [(&people[..], false), (&links[..], true)] {
            while !waiting.is_empty() {
                // One change says so much.
                let mut heads = 0;
                let some = waiting.iter().take(CHANGED_MAX).take_while(|identity| {
                    heads += devices(identity);
                    heads <= ACCEPTED_MAX
                });
                let mut some = some.count().max(1);
                let now = self.known_share();
                let now = now.as_ref().unwrap_or(known);
                // Whoever has a link lists as many devices as they like. What is kept for taking off people is not spent on these.
                let names_heads = !are_links || now.circle.log.has_room_to_name(some, heads.min(ACCEPTED_MAX));
                if !names_heads {
                    tracing::warn!(volume = %self.id.short(), "there is no room to name what was published by links that end");
                    some = waiting.len().min(CHANGED_MAX);
                }
                let (some, others) = waiting.split_at(some);
                self.remove_some(now, some, names_heads)?;
                waiting = others;
            }
        }
        Ok(())
    }

    fn remove_some(&self, known: &Known, gone: &[IdentityId], names_heads: bool) -> Result<(), ShareError> {
        let (mut listed, mut devices) = (Vec::new(), Vec::new());
        for roster in gone.iter().filter_map(|identity| known.circle.roster(identity)) {
            listed.extend(roster.devices.iter().cloned());
            devices.extend(roster.devices.iter().chain(&roster.gone).map(|device| device.id));
        }
        let tree = state::latest(&self.db)?.map(|latest| latest.root.vector).unwrap_or_default();
        let publishers = known.circle.publishers(&self.identity.roster());
        // What is of devices that nobody knows may be theirs, and their lists are where they can put anything in the way: it counts as
        // far as it is part of this tree. So many devices come by links and by lists that cannot be read; of more than that nobody
        // need have anything.
        let mut taken = publishers.untaken(self.id, &tree);
        taken.truncate(TAKEN_MAX);
        devices.sort();
        devices.dedup();
        // Of a head that nobody finds now, or only an older one, the one that was found last.
        let found = self.find_heads(&listed)?.found.into_iter().map(|found| found.head);
        let found: Vec<Head> = found.chain(self.last_heads()).collect();
        let accepted = devices.iter().filter_map(|device| {
            // A device that they have taken off themselves may be somebody else's by now, who still publishes where it did.
            let is_theirs = listed.iter().any(|listed| listed.id == *device);
            let heads = found.iter().filter(|head| is_theirs && head.device == *device);
            let newest = heads.filter(|head| publishers.takes(head)).max_by_key(|head| head.sequence).map(Accepted::of);
            // What is part of this tree was taken, also where the head that it came by is not found any more.
            let taken = sequence_of(&tree, device, self.id);
            match newest {
                Some(newest) if newest.sequence >= taken => Some(newest),
                _ if taken > 0 => Some(Accepted { device: *device, sequence: taken, head: [0; 32] }),
                newest => newest,
            }
        });
        let mut accepted: Vec<Accepted> = accepted.collect();
        // Of devices that have left the list long ago more than that can be one identity's.
        accepted.sort_by_key(|accepted| listed.iter().all(|device| device.id != accepted.device));
        accepted.truncate(if names_heads { ACCEPTED_MAX } else { 0 });
        // Whoever is taken off may put something else in their place before anybody has merged them.
        let named = found.into_iter().filter(|head| accepted.iter().any(|accepted| accepted.takes(head)));
        state::add_named(&self.db, named.collect(), &tree)?;
        self.change_members(Change::Remove(gone.to_vec(), accepted, taken))
    }

    /// Of what another device of this identity has signed counts nothing, once it is off the list, that no device on it has
    /// signed something after. So that comes before it leaves. For whom the epoch is sealed until then is remembered, so that
    /// another one begins when it has left.
    pub(crate) fn vouch_for(&self, device: &DeviceId) -> Result<(), ShareError> {
        let _turn = self.circle_turn.lock();
        let known = self.hear_in_turn(Ask::All)?.ok_or(ShareError::NotShared)?;
        let me = self.author();
        if known.members.role(&me.identity) < Some(Role::Admin) {
            return Ok(());
        }
        if !known.circle.log.has_all_of(device, &me) {
            self.change_members(Change::Rotate)?;
        }
        self.told_to_others()?;
        Ok(self.post()?)
    }

    /// Another epoch, and nothing else.
    pub(crate) fn rotate(&self) -> Result<(), ShareError> {
        let _turn = self.circle_turn.lock();
        self.hear_as_admin(Ask::All)?;
        self.change_members(Change::Rotate)?;
        Ok(self.post()?)
    }

    /// The same of one who has not heard of anything.
    #[cfg(test)]
    pub(super) fn remove_unheard(&self, gone: &[IdentityId]) -> Result<(), ShareError> {
        let _turn = self.circle_turn.lock();
        self.change_members(Change::Remove(gone.to_vec(), Vec::new(), Vec::new()))?;
        Ok(self.post_at_once()?)
    }

    /// Signs a change; it is on this disk when this returns.
    pub(super) fn change_members(&self, change: Change) -> Result<(), ShareError> {
        self.change_members_with(change, |_| Ok(()))
    }

    /// The same, with what was found out about those whom it is of. Where the change is refused nothing of that is kept.
    fn change_members_with(
        &self,
        change: Change,
        meet: impl FnOnce(&mut Circle) -> Result<(), PortError>,
    ) -> Result<(), ShareError> {
        let Known { circle, members, .. } =
            self.known_share().ok_or_else(|| damaged("nothing is known of who has a part in this volume"))?;
        let (author, key, own) = (self.author(), self.device.signing_key(), self.identity.roster());
        let met = self.met.lock().clone();
        let epoch = match change {
            Change::Grant(_) => None,
            Change::Begin(_) | Change::Remove(..) | Change::Rotate => {
                Some(Epoch::new(members.next_epoch, random_secret()?))
            }
        };
        let name = epoch.as_ref().map(Epoch::name);
        circle.log.may_change(&author, &change, name, &|author: &Author| circle.is_listed(&own, author))?;
        if let Some(epoch) = epoch {
            self.identity.keystore().change(|mine| mine.change_share(self.id, |share| share.add(epoch)))?;
        }
        self.change_circle(|circle| {
            let circle = circle.as_mut().ok_or_else(|| damaged("nothing is known of this volume"))?;
            meet(circle)?;
            let lists = circle.clone();
            let is_listed = |author: &Author| lists.is_listed(&own, author);
            circle.log.change(author, &key, clock(Hlc::default()), change, name, &is_listed)?;
            // What is sealed from now on is not for those whom somebody names who has no say any more.
            circle.hear_of(&own, &met);
            Ok::<_, ShareError>(())
        })?;
        self.heard();
        Ok(())
    }
}

/// The same for who only wants to know whether it can be tried again.
pub(super) fn into_port(error: ShareError) -> PortError {
    match error {
        ShareError::Port(error) => error,
        ShareError::Disk(failure) => PortError::Disk(failure.to_string()),
        other => PortError::Damaged(other.to_string()),
    }
}
