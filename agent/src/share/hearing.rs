//! What the mesh has of who has a part in a volume, and what this device puts there.
//!
//! Each device of an admin has a place, which nobody else can write to. What lies at any of them is taken in, as far as it
//! is signed by whom it says; and whoever may, puts at its own place what it has heard, sealed for all who have a part.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::log::Recipient;
use hypernet_core::identity::place::roster_sealing_key;
use hypernet_core::port::PortError;
use hypernet_core::record::{Record, record_key};
use hypernet_core::share::epoch::{Epoch, Epochs};
use hypernet_core::share::members::{Change, Log, Member, Members, Role};
use hypernet_core::share::posting::{self, SharePosting, SharePostingError};
use zeroize::Zeroizing;

use super::circle::{Circle, Person, Told};
use super::granting::into_port;
use super::kept::Share;
use crate::identity::places::{At, is_whole, put, read};
use crate::people::{self, Found};
use crate::sealing;
use crate::volume::{Volume, damaged};

/// How often new places are looked at that were found by what lay at others.
const ROUNDS: usize = 4;
/// Of those who only read, how many are looked up each time.
const READERS_AT_ONCE: usize = 16;
const SAID_CONTEXT: &str = "hypernet 2026 said of a circle v1";
/// What the record is called when it cannot be published.
const POSTING: &str = "who has a part in the volume";

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// What lies at the places that are known, in one round.
    Places,
    /// Also the lists of devices of all whose word counts.
    All,
}

/// What this device knows of a volume that others have a part in.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) share: Share,
    pub(crate) circle: Circle,
    pub(crate) members: Members,
}

impl Known {
    /// What this identity may do.
    pub(crate) fn role(&self, identity: &IdentityId) -> Option<Role> {
        self.members.role(identity).or(self.share.by.map(|_| Role::Reader))
    }
}

/// Who somebody is called as long as nothing else is known.
fn called(identity: &IdentityId) -> String {
    format!("identity {}", identity.short())
}

/// Looks up somebody who has a part in a volume.
pub(super) fn look_up(volume: &Volume, member: &Member, known: Option<&Person>) -> Result<Found, PortError> {
    let before = known.and_then(|person| person.posting.as_ref());
    let name =
        volume.identity.keystore().keystore().contacts.iter().find_map(|contact| {
            (contact.identity == member.identity && !contact.is_removed).then(|| contact.name.clone())
        });
    let name = name.unwrap_or_else(|| called(&member.identity));
    people::look_up(volume.identity.peers(), &name, member.identity, &member.address(), before)
}

impl Volume {
    /// What is kept of this volume where others have a part in it.
    pub(crate) fn share(&self) -> Option<Share> {
        self.identity.keystore().keystore().share(self.id).cloned()
    }

    /// What is known of it on this device; none where nobody else has a part in it, or nothing was heard yet.
    pub(crate) fn known_share(&self) -> Option<Known> {
        let share = self.share()?;
        let circle = self.circle.lock().clone()?;
        let members = circle.members(&self.identity.roster());
        Some(Known { share, circle, members })
    }

    /// What this identity may do here, as far as is known. Who finds that an admin has sealed for others what it cannot open
    /// takes it that it was taken off, which is not told to it in any other way. Nobody takes off the owner.
    pub(crate) fn role(&self) -> Option<Role> {
        let role = self.known_share()?.role(&self.identity.id());
        let is_shut_out = !self.shut.lock().is_empty();
        role.filter(|role| *role == Role::Owner || !is_shut_out)
    }

    /// An error unless this identity may publish here.
    pub(crate) fn may_write(&self) -> Result<(), PortError> {
        if self.share().is_none() {
            return Ok(());
        }
        match self.role() {
            Some(role) if role >= Role::Writer => Ok(()),
            Some(_) => {
                Err(PortError::Superseded("this volume is shared for reading: nothing is published here".into()))
            }
            None => Err(PortError::Superseded(
                "this identity has no part in this volume any more: nothing is published from here".into(),
            )),
        }
    }

    /// Takes in what the mesh has of who has a part in this volume. Nothing where nobody else has.
    pub(crate) fn hear(&self, ask: Ask) -> Result<Option<Known>, PortError> {
        if self.share().is_none() {
            return Ok(None);
        }
        let _turn = self.circle_turn.lock();
        self.hear_in_turn(ask)
    }

    pub(super) fn hear_in_turn(&self, ask: Ask) -> Result<Option<Known>, PortError> {
        let mut looked: BTreeSet<IdentityId> = BTreeSet::new();
        for _ in 0..ROUNDS {
            let is_new = self.hear_places()?;
            self.hear_beacons()?;
            let is_more = ask == Ask::All && self.hear_people(&mut looked)?;
            if !is_new && !is_more {
                break;
            }
        }
        let known = self.known_share();
        let known = known.ok_or_else(|| {
            PortError::NotFound(
                "the mesh has nothing of who has a part in this volume, or no peer that has it is there".into(),
            )
        })?;
        self.identity.set_epoch(self.id, known.members.epoch);
        self.identity.set_offers_of(self.id, known.members.role(&self.identity.id()) >= Some(Role::Admin));
        Ok(Some(known))
    }

    /// Reads what lies at the places that are known. Returns whether anything was new.
    fn hear_places(&self) -> Result<bool, PortError> {
        let Some(share) = self.share() else { return Ok(false) };
        if let Some(link) = share.by {
            self.hear_link(&link)?;
        }
        let keys: Vec<_> = share.posters.iter().map(|signer| record_key(&signer.0)).collect();
        let mut is_new = false;
        for record in self.peers.lookup_all(&keys)?.into_iter().flatten() {
            if self.heard.lock().contains(&record) {
                continue;
            }
            match self.hear_record(&record) {
                Ok(new) => {
                    is_new |= new;
                    let mut heard = self.heard.lock();
                    heard.retain(|other| other.signer != record.signer);
                    heard.push(record);
                }
                Err(error) => {
                    tracing::warn!(volume = %self.id.short(), %error, "what an admin says of a volume is not taken");
                }
            }
        }
        Ok(is_new)
    }

    /// Asks the devices of the others where they publish by now.
    fn hear_beacons(&self) -> Result<(), PortError> {
        let Some(Known { circle, .. }) = self.known_share() else { return Ok(()) };
        let mut asked = Vec::new();
        for (identity, person) in &circle.people {
            let roster = person.posting.as_ref().map(|posting| posting.log().roster());
            asked.extend(
                roster.into_iter().flat_map(|roster| &roster.devices).map(|device| (*identity, device.clone())),
            );
        }
        let keys: Vec<_> = asked.iter().map(|(_, device)| record_key(&device.beacon)).collect();
        for ((identity, device), record) in asked.into_iter().zip(self.peers.lookup_all(&keys)?) {
            let Some(record) = record else { continue };
            match read(&self.peers, &record, &roster_sealing_key(&identity)) {
                Ok(At::Here(bytes)) => match codec::decode::<Beacon>(&bytes) {
                    Ok(beacon) => self.identity.heard([(device.id, beacon)]),
                    Err(error) => {
                        tracing::warn!(%error, device = %device.id.short(), "what a device says is not believed")
                    }
                },
                Ok(At::Nothing | At::Ended(_)) => {}
                Err(error) => tracing::warn!(%error, device = %device.id.short(), "what a device says cannot be read"),
            }
        }
        Ok(())
    }

    fn hear_record(&self, record: &Record) -> Result<bool, PortError> {
        let Some(share) = self.share() else { return Ok(false) };
        let At::Here(bytes) = read(&self.peers, record, &posting::sealing_key(&share.secret))? else {
            return Err(damaged("at the place of an admin's device there is nothing of it"));
        };
        let posting = SharePosting::decode(&bytes).map_err(damaged)?;
        let mut told: Vec<Epoch> = share.epochs.clone();
        if let Some(plain) = self.identity.open_sealed(&posting.way) {
            told.extend(codec::decode::<Epochs>(&plain).map_err(damaged)?.epochs);
        }
        told.sort_by_key(Epoch::rank);
        told.dedup();
        match posting.members(&told, self.id, share.begin) {
            Ok(log) => {
                self.shut.lock().remove(&record.signer);
                self.take_in(log, told)
            }
            Err(error) => {
                if error == SharePostingError::Sealed {
                    self.shut.lock().insert(record.signer);
                }
                Err(damaged(error))
            }
        }
    }

    /// Takes in changes and the epochs that they name. The keystore comes first: what the circle names is then there.
    pub(super) fn take_in(&self, log: Log, told: Vec<Epoch>) -> Result<bool, PortError> {
        let named = |epoch: &Epoch| log.entries().any(|entry| entry.epoch == Some(epoch.name()));
        let told: Vec<Epoch> = told.into_iter().filter(named).collect();
        let before = self.share().map_or(0, |share| share.epochs.len());
        self.identity
            .keystore()
            .change(|mine| mine.change_share(self.id, |share| told.into_iter().for_each(|epoch| share.add(epoch))))
            .map_err(|failure| PortError::Disk(failure.to_string()))?;
        let epochs = self.share().map_or(0, |share| share.epochs.len()) != before;
        let new: bool = self.change_circle(|circle| match circle {
            Some(circle) => circle.log.merge(&log).map_err(damaged),
            None => {
                *circle = Some(Circle::new(log));
                Ok(true)
            }
        })?;
        Ok(epochs || new)
    }

    /// Changes what is known of who has a part in it; it is on the disk when this returns.
    pub(super) fn change_circle<T, E: From<PortError>>(
        &self,
        change: impl FnOnce(&mut Option<Circle>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut circle = self.circle.lock();
        let mut changed = circle.clone();
        let said = change(&mut changed)?;
        if changed != *circle {
            if let Some(circle) = &changed {
                circle.save(&self.db)?;
            }
            *circle = changed;
        }
        Ok(said)
    }

    /// Looks up all whose word counts, but for those that were `looked` up already. Returns whether that led to more.
    fn hear_people(&self, looked: &mut BTreeSet<IdentityId>) -> Result<bool, PortError> {
        let mut is_new = false;
        while let Some(member) = self.next_person(looked) {
            looked.insert(member.identity);
            let before = self.circle.lock().as_ref().and_then(|circle| circle.people.get(&member.identity).cloned());
            let found = match look_up(self, &member, before.as_ref()) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, volume = %self.id.short(), "somebody who has a part in a volume is not found");
                    continue;
                }
            };
            is_new |= self.meet(&member, found)?;
        }
        Ok(is_new)
    }

    /// Somebody whose devices may have signed something, or publish.
    fn next_person(&self, looked: &BTreeSet<IdentityId>) -> Option<Member> {
        let me = self.identity.id();
        let known = self.known_share()?;
        let owner = known.circle.log.owner();
        let gone = known.members.gone.values().filter(|member| known.circle.people.contains_key(&member.identity));
        let all = owner.into_iter().chain(known.members.writers().copied()).chain(gone.copied());
        all.into_iter().find(|member| member.identity != me && !looked.contains(&member.identity))
    }

    /// Takes in somebody who was looked up. Returns whether anything is new by it.
    pub(super) fn meet(&self, member: &Member, found: Found) -> Result<bool, PortError> {
        let recipient = found.recipient()?;
        let is_admin = member.role >= Role::Admin;
        let keys = self.identity.all_keys(self.id);
        let mut is_new = false;
        for (device, beacon) in found.beacons.iter().filter(|_| is_admin) {
            for signer in keys.iter().filter_map(|keys| beacon.poster(device, keys)) {
                is_new |= self.share().is_some_and(|share| share.posters.iter().all(|known| known.0 != signer));
                self.identity
                    .keystore()
                    .change(|mine| mine.change_share(self.id, |share| share.add_poster(signer)))
                    .map_err(|failure| PortError::Disk(failure.to_string()))?;
            }
        }
        self.identity.heard(found.beacons);
        let is_writer = member.role >= Role::Writer;
        self.change_circle(|circle| {
            let Some(circle) = circle else { return Ok(false) };
            let posting = Some(found.posting).filter(|_| is_writer);
            let person = Person { recipient, posting };
            let before = circle.people.insert(member.identity, person.clone());
            Ok(is_new || before != Some(person))
        })
    }

    /// Puts at this device's place what it has heard, unless that is there already. Only an admin's device does.
    pub(crate) fn post(&self) -> Result<(), PortError> {
        let Some(known) = self.known_share() else { return Ok(()) };
        if known.members.role(&self.identity.id()) < Some(Role::Admin) {
            return Ok(());
        }
        // Others find this place by what this device says of itself.
        self.tell()?;
        let to = self.recipients(&known)?;
        let Known { share, circle, members } = known;
        let key = posting::sealing_key(&share.secret);
        let place = posting::place(self.identity.device(), &self.id);
        // The other devices of this identity look there, too.
        self.identity
            .keystore()
            .change(|mine| mine.change_share(self.id, |share| share.add_poster(place.signer())))
            .map_err(|failure| PortError::Disk(failure.to_string()))?;
        let epoch = share.epochs.iter().find(|epoch| Some(epoch.name()) == members.epoch);
        let epoch = epoch.ok_or_else(|| damaged("the epoch that counts is not known on this device"))?;
        let epochs = Epochs::newest(share.epochs.clone());
        let said = said(&circle.log, &epochs, &to);
        let there = self.peers.lookup(place.record_key())?;
        if let Some(record) = there.as_ref().filter(|record| circle.said == said && record.sequence == circle.posted)
            && is_whole(&self.peers, record, &key)?
        {
            return self.peers.publish(record.clone(), self.peers.keepers(), POSTING);
        }
        let way = sealing::seal(&to, &Zeroizing::new(codec::encode(&epochs))).map_err(damaged)?;
        let posting = SharePosting::new(way, &circle.log, epoch).map_err(damaged)?;
        let after = circle.posted.max(there.map_or(0, |record| record.sequence));
        let record = put(&self.peers, &place, &key, codec::encode(&posting), after)?;
        let posted = record.sequence;
        self.peers.publish(record, self.peers.keepers(), POSTING)?;
        self.change_circle(|circle| {
            if let Some(circle) = circle {
                (circle.posted, circle.said) = (posted, said);
            }
            Ok(())
        })
    }

    /// What an admin's device does when it has heard of something: whoever was taken off, or has lost a device, has no
    /// part in what comes after, and all who are new to it are told.
    pub(crate) fn tend(&self) -> Result<(), PortError> {
        if self.share().is_none() {
            return Ok(());
        }
        let _turn = self.circle_turn.lock();
        let Some(known) = self.hear_in_turn(Ask::All)? else { return Ok(()) };
        if known.members.role(&self.identity.id()) < Some(Role::Admin) {
            return Ok(());
        }
        self.look_at_readers(&known)?;
        if !known.members.is_sealed_off || self.has_stale_tips(&known) || self.is_told_to_others()? {
            self.change_members(Change::Rotate).map_err(into_port)?;
            self.is_told_to_others()?;
        }
        self.end_links()?;
        self.post()?;
        self.put_links()
    }

    /// Looks up some of those who only read, others each time: each of them may have lost a device.
    fn look_at_readers(&self, known: &Known) -> Result<(), PortError> {
        let me = self.identity.id();
        let readers =
            known.members.members.values().filter(|member| member.role < Role::Writer && member.identity != me);
        let readers: Vec<&Member> = readers.collect();
        let from = self.looked.fetch_add(READERS_AT_ONCE, Ordering::Relaxed);
        for at in 0..READERS_AT_ONCE.min(readers.len()) {
            let member = readers[(from + at) % readers.len()];
            let before = known.circle.people.get(&member.identity);
            match look_up(self, member, before) {
                Ok(found) => drop(self.meet(member, found)?),
                Err(error) => tracing::debug!(%error, "somebody who reads a volume is not found now"),
            }
        }
        Ok(())
    }

    /// For whom what all members are to open is sealed.
    fn recipients(&self, known: &Known) -> Result<Vec<Recipient>, PortError> {
        let mut to = vec![self.identity.recipient()?];
        let others = known.members.members.keys().filter_map(|identity| known.circle.people.get(identity));
        to.extend(others.map(|person| person.recipient));
        Ok(to)
    }

    /// Whether the epoch that counts was sealed for somebody who is none of the members as they are now: one of them has taken
    /// a device off their list since, which still opens it. Remembers for whom it is sealed from now on.
    fn is_told_to_others(&self) -> Result<bool, PortError> {
        let Some(known) = self.known_share() else { return Ok(false) };
        let (Some(epoch), to) = (known.members.epoch, self.recipients(&known)?) else { return Ok(false) };
        let told = known.circle.told.filter(|told| told.epoch == epoch);
        let is_told = told.is_some_and(|told| told.to.iter().any(|before| !to.contains(before)));
        if !is_told {
            self.change_circle(|circle| {
                if let Some(circle) = circle {
                    circle.told = Some(Told { epoch, to });
                }
                Ok::<_, PortError>(())
            })?;
        }
        Ok(is_told)
    }

    /// Whether something that counts was signed by a device of this identity that is off its list: until one that is on it
    /// has signed something after that, nobody knows how much of it is to count.
    fn has_stale_tips(&self, known: &Known) -> bool {
        let roster = self.identity.roster();
        let is_gone = |device| roster.gone.iter().any(|gone| gone.id == device);
        let mine = known.circle.log.entries().filter(|entry| entry.author.identity == roster.identity);
        let followed: BTreeSet<_> = known.circle.log.entries().flat_map(|entry| entry.previous.clone()).collect();
        mine.filter(|entry| is_gone(entry.author.device)).any(|entry| !followed.contains(&entry.id()))
    }
}

/// What is said at the place of a device, in a hash: sealing it anew would give other bytes each time.
fn said(log: &Log, epochs: &Epochs, to: &[Recipient]) -> [u8; 32] {
    let mut to: Vec<[u8; 32]> = to.iter().map(|Recipient::X25519(key)| *key).collect();
    to.sort_unstable();
    let names = epochs.epochs.iter().map(|epoch| epoch.name().name);
    let all: Vec<u8> = to.into_iter().chain(names).flatten().collect();
    blake3::derive_key(SAID_CONTEXT, &[all, log.encode()].concat())
}
