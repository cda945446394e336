//! What the mesh has of who has a part in a volume, and what this device puts there.
//!
//! Each device of an admin has a place, which nobody else can write to. What lies at any of them is taken in, as far as it
//! is signed by whom it says; and whoever may, puts at its own place what it has heard, sealed for all who have a part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::log::Recipient;
use hypernet_core::identity::place::roster_sealing_key;
use hypernet_core::identity::posting::Posting;
use hypernet_core::port::PortError;
use hypernet_core::record::{Record, record_key};
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::epoch::{Epoch, Epochs};
use hypernet_core::share::members::{Change, Log, Member, Members, MembersError, Merged, NewEpoch, Role};
use hypernet_core::share::posting::{self, Met, SealedFor, SharePosting, SharePostingError};
use zeroize::Zeroizing;

use super::circle::{Circle, LISTS_BYTES_MAX, Person, Told};
use super::granting::{ShareError, into_port};
use super::kept::{By, Share};
use super::links::now;
use super::posters::{self, Poster};
use crate::identity::places::{Allowance, At, is_whole, put, read};
use crate::people::{self, Found};
use crate::sealing;
use crate::volume::{Volume, damaged};

/// How often new places are looked at that were found by what lay at others.
const ROUNDS: usize = 4;
/// Places at which the list of devices of one identity is looked for.
const LISTS_MAX: usize = 4;
/// Of those who only read, how many are looked up each time.
const READERS_AT_ONCE: usize = 16;
/// For how long others wait while people are looked up.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(3);
/// For how long that is fetched which devices of others have put into segments.
const FETCHED_WITHIN: Duration = Duration::from_secs(5);
const FETCHED_SOON: Duration = Duration::from_secs(1);
/// Records that are known again.
const HEARD_MAX: usize = 4_096;
/// Because of one person another epoch begins so seldom, but for the first time.
const LOST_AGAIN_AFTER: Duration = Duration::from_secs(3600);
/// Of those who wrote and are gone, how many others are told of.
const GONE_MAX: usize = 256;
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
    /// The same of those who are found at once: for whoever has something to say that cannot wait.
    Soon,
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
        self.members.role(identity).max(self.share.role_by_links(&self.members, now()))
    }

    /// Whether it was attached by a link, and neither that nor anybody else lets this identity do anything any more.
    fn is_ended(&self, identity: &IdentityId) -> bool {
        let is_over = self.share.by.iter().all(|by| !by.is_open(now()));
        self.members.role(identity).is_none() && !self.share.by.is_empty() && is_over
    }
}

/// Who somebody is called as long as nothing else is known.
fn called(identity: &IdentityId) -> String {
    format!("identity {}", identity.short())
}

/// Opens what was sealed for whoever has one of the links by which a volume was attached.
fn open_by_links(share: &Share, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let open = |by: &By| sealing::open(&Bearer::of(&by.link).era().opening_key(), sealed).ok();
    share.by.iter().filter(|by| by.is_open(now())).find_map(open)
}

/// Looks up somebody who has a part in a volume.
pub(super) fn look_up(volume: &Volume, member: &Member, known: Option<&Person>) -> Result<Found, PortError> {
    let contacts = volume.identity.keystore().keystore().contacts;
    let mut theirs = contacts.into_iter().filter(|one| one.identity == member.identity && !one.is_removed);
    match (theirs.next(), known.and_then(|person| person.posting.as_ref())) {
        // Of whom it is not asked what they have signed nothing is kept here, but a list that was seen of a contact stays seen.
        (Some(contact), None) if contact.address() == member.address() => {
            people::look_up_contact(&volume.identity, &contact)
        }
        (contact, before) => {
            let name = contact.map_or_else(|| called(&member.identity), |contact| contact.name);
            people::look_up(volume.identity.peers(), &name, member.identity, &member.address(), before)
        }
    }
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
    /// takes it that it was taken off, which is not told to it in any other way. Nobody takes off the owner, and what is
    /// sealed by one who is no admin any more is nobody's business.
    pub(crate) fn role(&self) -> Option<Role> {
        let known = self.known_share()?;
        let role = known.role(&self.identity.id());
        let by_admin = |signer: &[u8; 32]| known.circle.is_admins(&known.members, signer);
        let is_shut_out = self.shut.lock().iter().any(by_admin);
        role.filter(|role| *role == Role::Owner || !is_shut_out)
    }

    /// An error unless this identity may publish here.
    pub(crate) fn may_write(&self) -> Result<(), PortError> {
        if self.share().is_none() {
            return Ok(());
        }
        let why = match self.role() {
            Some(role) if role >= Role::Writer => return Ok(()),
            _ if self.known_share().is_some_and(|known| known.is_ended(&self.identity.id())) => {
                "the link by which this volume was attached has ended, or was taken back: nothing is published from here"
            }
            Some(_) => "this volume is shared for reading: nothing is published here",
            None => "this identity has no part in this volume any more: nothing is published from here",
        };
        Err(PortError::NoPart(why.into()))
    }

    /// Whether an admin has said something that was not understood here yet, so that this device may have older keys than it
    /// is to write by.
    pub(crate) fn is_behind(&self) -> bool {
        let Some(Known { share, circle, members }) = self.known_share() else { return false };
        let is_unread = self.unread.lock().iter().any(|signer| circle.is_admins(&members, signer));
        is_unread || members.epoch.is_some_and(|now| share.epochs.iter().all(|epoch| epoch.name() != now))
    }

    /// Asked before anything is written: whoever was taken off is to read nothing of it. So all that admins say must have been
    /// heard. And where two admins have taken off somebody each, neither of whose epochs the other one's is kept from, nothing is
    /// to be written before an admin's device has begun one that both are.
    pub(crate) fn seal_off(&self) -> Result<(), PortError> {
        if self.is_behind() {
            self.hear(Ask::Places)?;
            self.may_write()?;
        }
        if self.is_behind() {
            return Err(PortError::Unreachable(
                "somebody who shares this volume has said who has a part in it, and that cannot be read now: what is written \
                 here stays here until it can, since the keys may have changed. It comes back with the device that said so, or \
                 is given up by whoever takes that device off"
                    .into(),
            ));
        }
        let is_sealed_off = || self.known_share().is_none_or(|known| known.members.is_sealed_off);
        if !is_sealed_off() {
            self.tend()?;
        }
        match is_sealed_off() {
            true => Ok(()),
            false => Err(PortError::Unreachable(
                "two who share this volume have taken somebody off at once, and neither has changed its keys since: what is \
                 written here stays here until one of them has"
                    .into(),
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
        self.begin_again()?;
        let mut looked: BTreeSet<IdentityId> = BTreeSet::new();
        let within = if ask == Ask::Soon { FETCHED_SOON } else { FETCHED_WITHIN };
        // What devices say keeps nobody from what their lists say.
        let mut allowances = (Allowance::new(within), Allowance::new(within));
        for _ in 0..ROUNDS {
            let is_new = self.hear_places()? | self.hear_beacons(&mut allowances)?;
            let is_more = match ask {
                Ask::Places => false,
                // Whoever is not looked up is not believed.
                Ask::All => self.hear_people(&mut looked, Duration::MAX)?,
                Ask::Soon => self.hear_people(&mut looked, LOOKED_UP_WITHIN)?,
            };
            // What counts by the lists of devices that were found only now.
            let circle = self.circle.lock().clone();
            let is_told = circle.map_or(Ok(false), |circle| self.take_epochs(&circle))?;
            let is_met = self.take_met()?;
            if !is_new && !is_more && !is_told && !is_met {
                break;
            }
        }
        let known = self.known_share();
        let known = known.ok_or_else(|| {
            PortError::NotFound(
                "the mesh has nothing of who has a part in this volume, or no peer that has it is there".into(),
            )
        })?;
        self.acts_by(&known);
        Ok(Some(known))
    }

    /// Reads what lies at the places that are known. Returns whether anything was new.
    fn hear_places(&self) -> Result<bool, PortError> {
        let Some(share) = self.share() else { return Ok(false) };
        self.hear_links(&share)?;
        let signers = posters::signers(&share, self.circle.lock().as_ref());
        let keys: Vec<_> = signers.iter().map(record_key).collect();
        self.unread.lock().retain(|signer| signers.contains(signer));
        let is_asked =
            |signer: &[u8; 32]| signers.contains(signer) || share.by.iter().any(|by| by.link.signer == *signer);
        self.told.lock().retain(|signer, _| is_asked(signer));
        self.met.lock().retain(|signer, _| is_asked(signer));
        let mut is_new = false;
        for record in self.peers.lookup_all(&keys)?.into_iter().flatten() {
            let is_before = |heard: &Record| heard.signer == record.signer && !record.replaces(heard);
            if self.heard.lock().iter().any(is_before) {
                continue;
            }
            match self.hear_record(&record) {
                Ok(merged) => {
                    is_new |= merged.is_new;
                    // What had no room now may have when more lists of devices are known.
                    match merged.is_all {
                        true => self.was_heard(record),
                        false => self.heard.lock().retain(|other| other.signer != record.signer),
                    }
                }
                Err(error) => {
                    tracing::warn!(volume = %self.id.short(), %error, "what an admin says of a volume is not taken");
                }
            }
        }
        Ok(is_new)
    }

    /// Asks the devices of the others where they publish by now, and looks at the lists of devices that are there. Returns
    /// whether there are devices that were not known.
    fn hear_beacons(&self, allowances: &mut (Allowance, Allowance)) -> Result<bool, PortError> {
        let Some(known) = self.known_share() else { return Ok(false) };
        let mut asked = Vec::new();
        for (identity, person) in &known.circle.people {
            let roster = person.posting.as_ref().map(|posting| posting.log().roster());
            asked.extend(
                roster.into_iter().flat_map(|roster| &roster.devices).map(|device| (*identity, device.clone())),
            );
        }
        // Another device of this identity may have taken somebody off that this one has not heard of.
        let (own, this) = (self.identity.roster(), self.device.id());
        asked.extend(own.devices.into_iter().filter(|device| device.id != this).map(|device| (own.identity, device)));
        let keys: Vec<_> = asked.iter().map(|(_, device)| record_key(&device.beacon)).collect();
        let mut lists: BTreeMap<IdentityId, BTreeSet<[u8; 32]>> = BTreeMap::new();
        let mut is_new = false;
        let records = self.peers.lookup_all(&keys)?;
        let mut said: Vec<_> =
            asked.into_iter().zip(records).filter_map(|(asked, record)| Some((asked, record?))).collect();
        // Whoever had others wait before has no others wait now.
        let before: BTreeMap<IdentityId, Duration> = {
            let mut slow = self.slow.lock();
            slow.retain(|identity, _| *identity == own.identity || known.circle.people.contains_key(identity));
            slow.values_mut().for_each(|took| *took /= 2);
            slow.clone()
        };
        let rank =
            |identity: &IdentityId| (*identity != own.identity, before.get(identity).copied().unwrap_or_default());
        said.sort_by_key(|((identity, _), _)| rank(identity));
        for ((identity, device), record) in said {
            let read = |record: &Record| match self.read_of(identity, record, &mut allowances.0)? {
                At::Here(bytes) => Ok(Some(codec::decode::<Beacon>(&bytes)?)),
                At::Nothing | At::Ended(_) => Ok(None),
            };
            match self.identity.hear_in(identity, device.id, record, read) {
                Ok(Some(beacon)) => {
                    is_new |= self.meet_posters(&known, identity, [(&device.id, &beacon)])?;
                    lists.entry(identity).or_default().insert(beacon.door.roster);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, device = %device.id.short(), "what a device says cannot be read"),
            }
        }
        let is_newer = self.hear_lists(lists, &mut allowances.1)?;
        self.forget_posters()?;
        Ok(is_newer || is_new)
    }

    /// Reads what somebody has put there, and remembers of whom that has taken how long.
    fn read_of(&self, of: IdentityId, record: &Record, allowance: &mut Allowance) -> Result<At, PortError> {
        let began = Instant::now();
        let at = allowance.read(&self.peers, record, &roster_sealing_key(&of));
        *self.slow.lock().entry(of).or_default() += began.elapsed();
        at
    }

    /// Takes in lists of devices that have changed: whoever comes by a link is on one only since then.
    fn hear_lists(
        &self,
        lists: BTreeMap<IdentityId, BTreeSet<[u8; 32]>>,
        allowance: &mut Allowance,
    ) -> Result<bool, PortError> {
        let me = self.identity.id();
        let others = lists.into_iter().filter(|(identity, _)| *identity != me);
        let mut places: Vec<(IdentityId, [u8; 32])> = others
            .flat_map(|(identity, signers)| signers.into_iter().take(LISTS_MAX).map(move |one| (identity, one)))
            .collect();
        let slow = self.slow.lock().clone();
        places.sort_by_key(|(identity, _)| slow.get(identity).copied().unwrap_or_default());
        let keys: Vec<_> = places.iter().map(|(_, signer)| record_key(signer)).collect();
        let mut is_new = false;
        for ((identity, _), record) in places.into_iter().zip(self.peers.lookup_all(&keys)?) {
            let Some(record) = record.filter(|record| !self.heard.lock().contains(record)) else { continue };
            let bytes = match self.read_of(identity, &record, allowance) {
                Ok(At::Here(bytes)) => bytes,
                Ok(At::Nothing | At::Ended(_)) => continue,
                Err(error) => {
                    tracing::warn!(%error, identity = %identity.short(), "a list of devices cannot be read");
                    continue;
                }
            };
            let posting = Posting::decode(&bytes, &identity).map_err(damaged);
            match posting.and_then(|posting| self.hear_list(&identity, &posting)) {
                Ok(is_newer) => is_new |= is_newer,
                Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, identity = %identity.short(), "a list of devices is not believed")
                }
            }
            self.was_heard(record);
        }
        Ok(is_new)
    }

    /// Nothing more is to be taken in of it. Of the oldest ones it is not known again: that costs time and nothing else.
    fn was_heard(&self, record: Record) {
        let mut heard = self.heard.lock();
        heard.retain(|other| other.signer != record.signer);
        if heard.len() >= HEARD_MAX {
            heard.remove(0);
        }
        heard.push(record);
    }

    fn hear_list(&self, identity: &IdentityId, found: &Posting) -> Result<bool, PortError> {
        self.change_circle(|circle| {
            let person = circle.as_mut().and_then(|circle| circle.people.get_mut(identity));
            let Some(Person { recipient, posting: Some(posting), .. }) = person else { return Ok(false) };
            let is_new = posting.merge(found).map_err(damaged)?;
            *recipient = posting.log().roster().era.map_or(*recipient, |era| era.recipient);
            Ok(is_new)
        })
    }

    fn hear_record(&self, record: &Record) -> Result<Merged, PortError> {
        let Some(share) = self.share() else { return Ok(Merged { is_new: false, is_all: true }) };
        let there = read(&self.peers, record, &posting::sealing_key(&share.secret));
        match &there {
            Ok(_) => self.unread.lock().remove(&record.signer),
            // What was understood before tells nothing new.
            Err(_)
                if self
                    .circle
                    .lock()
                    .as_ref()
                    .is_some_and(|circle| circle.has_heard(&record.signer, record.sequence)) =>
            {
                false
            }
            Err(_) => self.unread.lock().insert(record.signer),
        };
        let At::Here(bytes) = there? else {
            return Err(damaged("at the place of an admin's device there is nothing of it"));
        };
        let posting = SharePosting::decode(&bytes).map_err(damaged)?;
        let mut told: Vec<Epoch> = share.epochs.clone();
        told.extend(self.told_by_links(&share));
        if let Some(plain) = self.identity.open_sealed(&posting.way).or_else(|| open_by_links(&share, &posting.way)) {
            told.extend(codec::decode::<Epochs>(&plain).map_err(damaged)?.epochs);
        }
        told.sort_by_key(Epoch::rank);
        told.dedup();
        match posting.members(&told, self.id, share.begin) {
            Ok((log, met)) => {
                self.shut.lock().remove(&record.signer);
                let merged = self.take_in(record.signer, log, met, told)?;
                self.change_circle(|circle| {
                    circle.iter_mut().for_each(|circle| circle.was_heard(&record.signer, record.sequence));
                    Ok::<_, PortError>(merged)
                })
            }
            Err(error) => {
                if error == SharePostingError::Sealed {
                    self.shut.lock().insert(record.signer);
                }
                Err(damaged(error))
            }
        }
    }

    /// Takes in changes, and of the epochs that were `told` those that begin with changes which count. The keystore comes first:
    /// what the circle names is then there. Others wait: what they begin with may count once more was heard. And so do those whom
    /// somebody has `met`, until it is known whose place that is.
    pub(super) fn take_in(
        &self,
        from: [u8; 32],
        log: Log,
        met: SealedFor,
        mut told: Vec<Epoch>,
    ) -> Result<Merged, PortError> {
        let named: Vec<NewEpoch> = log.entries().filter_map(|entry| entry.epoch).collect();
        let known = self.share().map(|share| share.epochs).unwrap_or_default();
        told.retain(|epoch| named.contains(&epoch.name()) && !known.contains(epoch));
        self.told.lock().insert(from, Epochs::newest(told).epochs);
        self.met.lock().insert(from, met);
        let own = self.identity.roster();
        // Whoever hears of the volume first takes in no more of what somebody says than all others.
        let begun = || Circle::new(log.begun());
        let mut merged = self.circle.lock().clone().unwrap_or_else(begun);
        merged.hear_log(&own, &log).map_err(damaged)?;
        let epochs = self.take_epochs(&merged)?;
        self.change_circle(|circle| {
            let is_first = circle.is_none();
            let heard = circle.get_or_insert_with(begun).hear_log(&own, &log).map_err(damaged)?;
            Ok(Merged { is_new: heard.is_new || is_first || epochs, ..heard })
        })
    }

    /// Takes in whom those have met who are admins by now: one who was taken off would have others seal for whomever it likes.
    /// Returns whether anybody is new.
    fn take_met(&self) -> Result<bool, PortError> {
        let (own, met) = (self.identity.roster(), self.met.lock().clone());
        self.change_circle(|circle| Ok(circle.as_mut().is_some_and(|circle| circle.hear_of(&own, &met))))
    }

    /// Takes those epochs that were told into the keystore that begin with changes which count: whoever was taken off may tell
    /// any number of others. Returns whether any of them is new.
    fn take_epochs(&self, circle: &Circle) -> Result<bool, PortError> {
        let counting = circle.members(&self.identity.roster()).epochs;
        let known = self.share().map(|share| share.epochs).unwrap_or_default();
        let mut new: Vec<Epoch> = Vec::new();
        for told in self.told.lock().values_mut() {
            told.retain(|epoch| !known.contains(epoch));
            new.extend(told.iter().filter(|epoch| counting.contains(&epoch.name())).cloned());
        }
        if new.is_empty() {
            return Ok(false);
        }
        self.identity
            .keystore()
            .change(|mine| mine.change_share(self.id, |share| new.into_iter().for_each(|epoch| share.add(epoch))))
            .map_err(|failure| PortError::Disk(failure.to_string()))?;
        Ok(self.share().map_or(0, |share| share.epochs.len()) != known.len())
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
            if let Some(circle) = &mut changed {
                circle.fit_lists(&self.identity.roster(), LISTS_BYTES_MAX);
            }
            if let Some(circle) = &changed {
                circle.save(&self.db)?;
            }
            *circle = changed;
        }
        Ok(said)
    }

    /// Looks up all whose word counts, but for those that were `looked` up already. Returns whether that led to more.
    fn hear_people(&self, looked: &mut BTreeSet<IdentityId>, within: Duration) -> Result<bool, PortError> {
        let mut is_new = false;
        loop {
            let people = self.next_people(looked);
            if people.is_empty() {
                return Ok(is_new);
            }
            looked.extend(people.iter().map(|(member, _)| member.identity));
            let found = people::for_each(&people, within, |(member, known)| look_up(self, member, known.as_ref()));
            for ((member, _), found) in people.iter().zip(found) {
                match found.and_then(|found| self.meet(member, found)) {
                    Ok(is_met) => is_new |= is_met,
                    Err(error @ (PortError::Disk(_) | PortError::DiskFull(_))) => return Err(error),
                    // Whatever is wrong with the list of one keeps nobody from hearing of the others.
                    Err(error) => {
                        tracing::warn!(%error, volume = %self.id.short(), "somebody who has a part in a volume is not found");
                    }
                }
            }
        }
    }

    /// Those whose devices may have signed something, or publish, as they are known.
    fn next_people(&self, looked: &BTreeSet<IdentityId>) -> Vec<(Member, Option<Person>)> {
        let me = self.identity.id();
        let Some(known) = self.known_share() else { return Vec::new() };
        let owner = known.circle.log.owner();
        let Known { circle, members, .. } = &known;
        let gone = members.gone.values().filter(|member| circle.people.contains_key(&member.identity));
        let read = members.members.values().filter(|member| members.wrote.contains(&member.identity));
        let all = owner.into_iter().chain(members.writers().copied()).chain(gone.chain(read).copied());
        let all: BTreeMap<IdentityId, Member> = all.into_iter().map(|member| (member.identity, member)).collect();
        let new = all.into_values().filter(|member| member.identity != me && !looked.contains(&member.identity));
        new.map(|member| (member, circle.people.get(&member.identity).cloned())).collect()
    }

    /// Takes in somebody who was looked up. Returns whether anything is new by it.
    pub(super) fn meet(&self, member: &Member, found: Found) -> Result<bool, PortError> {
        let recipient = found.recipient()?;
        let beacons = found.beacons.iter().map(|(id, beacon)| (id, beacon));
        let Some(known) = self.known_share() else { return Ok(false) };
        let is_new = self.meet_posters(&known, member.identity, beacons)?;
        self.identity.heard(member.identity, found.beacons);
        let is_asked = member.role >= Role::Writer || known.members.wrote.contains(&member.identity);
        self.change_circle(|circle| {
            let Some(circle) = circle else { return Ok(false) };
            Ok(circle.meet(member.identity, recipient, found.posting, is_asked)? || is_new)
        })
    }

    /// Puts at this device's place what it has heard, unless that is there already. Only an admin's device does. What another
    /// device of this identity is to know by the keystore when it hears of that, such as that a link was taken back, is there
    /// first.
    pub(crate) fn post(&self) -> Result<(), PortError> {
        let is_admin = |known: Known| known.members.role(&self.identity.id()) >= Some(Role::Admin);
        if self.known_share().is_some_and(is_admin) && !self.identity.has_put_up_keystore() {
            self.identity.confirm()?;
            self.begin_again()?;
        }
        self.post_at_once()
    }

    pub(super) fn post_at_once(&self) -> Result<(), PortError> {
        let Some(known) = self.known_share() else { return Ok(()) };
        if known.members.role(&self.identity.id()) < Some(Role::Admin) {
            return Ok(());
        }
        // Others find this place by what this device says of itself. Where its heads are it says when it publishes one: of
        // a device that has only looked nobody is to wonder where they have gone.
        self.look_at_strangers(&known);
        let known = self.known_share().unwrap_or(known);
        let to = self.recipients(&known)?;
        let Known { share, circle, members } = known;
        let key = posting::sealing_key(&share.secret);
        let place = posting::place(self.identity.device(), &self.id);
        // The other devices of this identity look there, too.
        let device = Some(self.device.id());
        let own = Poster { signer: place.signer(), identity: self.identity.id(), device, heard: None };
        if !circle.has_place(&own) || share.posters.iter().all(|signer| signer.0 != own.signer) {
            self.remember_posters(&[own])?;
        }
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
        // Before anybody can open it: whoever of these takes a device off their list from here on has had it told to that.
        self.note_told(epoch.name(), &to)?;
        let all: Vec<Recipient> = to.iter().map(|met| met.recipient).collect();
        let way = sealing::seal(&all, &Zeroizing::new(codec::encode(&epochs))).map_err(damaged)?;
        let met = |(identity, person): (&IdentityId, &Person)| Met { identity: *identity, recipient: person.recipient };
        let now = circle.people.iter().filter(|(identity, _)| members.members.contains_key(*identity)).map(met);
        // Whoever comes later is to count what these have published while they could.
        let wrote = |identity: &IdentityId| members.wrote.contains(identity) && !members.members.contains_key(identity);
        let gone = circle.people.iter().filter(|(identity, _)| wrote(identity)).take(GONE_MAX).map(met);
        let own = self.identity.recipient().map(|recipient| Met { identity: self.identity.id(), recipient })?;
        let people = std::iter::once(own).chain(now).chain(gone).collect();
        let posting = SharePosting::new(way, &circle.log, people, epoch).map_err(damaged)?;
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
        self.bear(&known)?;
        if known.members.role(&self.identity.id()) < Some(Role::Admin) {
            return Ok(());
        }
        self.bring_along(&known)?;
        if let Err(error) = self.end_links_of_gone() {
            tracing::warn!(%error, volume = %self.id.short(), "links of somebody who was taken off are ended later");
        }
        self.look_at_readers(&known)?;
        self.rotate_if_due()?;
        if let Err(error) = self.end_links(false) {
            tracing::warn!(%error, volume = %self.id.short(), "links to a volume whose time has come are ended later");
        }
        self.tend_bearers()?;
        self.post()?;
        self.put_links()
    }

    /// Begins another epoch where somebody may have this one who is not to. Where there is no room for that, all else goes on.
    fn rotate_if_due(&self) -> Result<(), PortError> {
        let is_sealed_off = self.known_share().is_none_or(|known| known.members.is_sealed_off);
        let others = self.told_to_others()?;
        if is_sealed_off && !self.lost.lock().is_due(&others) {
            return Ok(());
        }
        match self.change_members(Change::Rotate) {
            Ok(()) => {
                self.lost.lock().answered(others.into_iter().filter(|identity| *identity != self.identity.id()));
                self.told_to_others().map(drop)
            }
            Err(error @ ShareError::Members(MembersError::Full)) => {
                tracing::warn!(
                    %error, volume = %self.id.short(),
                    "the keys of a volume stay, and who has lost a device has them there, too: share what is in it as another \
                     directory"
                );
                Ok(())
            }
            Err(error) => Err(into_port(error)),
        }
    }

    /// Looks up those of whom nobody knows who opens what is sealed for them, since nobody is to be left out, and then those of
    /// whom somebody else has said it. Before all of them come those for whom another one seals otherwise: one of their devices
    /// may be lost, and this may be the epoch that was begun to shut it out.
    fn look_at_strangers(&self, known: &Known) {
        let me = self.identity.id();
        let otherwise = self.found_otherwise(known);
        let is_otherwise = |member: &Member| otherwise.contains(&member.identity);
        let person = |member: &Member| known.circle.people.get(&member.identity);
        let is_stranger = |member: &Member| person(member).is_none_or(|person| person.told_by.is_some());
        let all = known.members.members.values().filter(|member| member.identity != me);
        let mut strangers: Vec<&Member> = all.filter(|member| is_otherwise(member) || is_stranger(member)).collect();
        // Others each time: some may be nowhere.
        let from = self.strangers.load(Ordering::Relaxed) % strangers.len().max(1);
        strangers.rotate_left(from);
        strangers.sort_by_key(|member| (!is_otherwise(member), person(member).is_some()));
        let look = |member: &&Member| look_up(self, member, person(member));
        let found = people::for_each(&strangers, LOOKED_UP_WITHIN, look);
        self.strangers.fetch_add(found.len(), Ordering::Relaxed);
        for (member, found) in strangers.into_iter().zip(found) {
            if let Err(error) = found.and_then(|found| self.meet(member, found)) {
                tracing::warn!(%error, volume = %self.id.short(), "somebody who has a part in a volume is not told yet");
            }
        }
    }

    /// Looks up some of those who only read, others each time: each of them may have lost a device. Those come first whom another
    /// admin's device has found otherwise, since what is put up here next is not to be sealed for a device that is lost.
    fn look_at_readers(&self, known: &Known) -> Result<(), PortError> {
        let me = self.identity.id();
        let readers =
            known.members.members.values().filter(|member| member.role < Role::Writer && member.identity != me);
        let otherwise = self.found_otherwise(known);
        let (first, others): (Vec<&Member>, Vec<&Member>) =
            readers.partition(|member| otherwise.contains(&member.identity));
        let from = self.looked.fetch_add(READERS_AT_ONCE, Ordering::Relaxed);
        let some = 0..READERS_AT_ONCE.min(others.len());
        let some = some.map(|at| others[(from + at) % others.len()]);
        let some: Vec<&Member> = first.into_iter().take(READERS_AT_ONCE).chain(some).collect();
        let look = |member: &&Member| look_up(self, member, known.circle.people.get(&member.identity));
        for (member, found) in some.iter().zip(people::for_each(&some, LOOKED_UP_WITHIN, look)) {
            match found {
                Ok(found) => drop(self.meet(member, found)?),
                Err(error) => tracing::debug!(%error, "somebody who reads a volume is not found now"),
            }
        }
        Ok(())
    }

    /// Those for whom others seal the epoch that counts otherwise than this device would.
    fn found_otherwise(&self, known: &Known) -> BTreeSet<IdentityId> {
        let met = self.met.lock();
        let now = met.values().filter(|met| Some(met.epoch) == known.members.epoch).flat_map(|met| &met.people);
        let person = |met: &Met| known.circle.people.get(&met.identity);
        now.filter(|met| person(met).is_some_and(|known| known.recipient != met.recipient))
            .map(|met| met.identity)
            .collect()
    }

    /// For whom what all members are to open is sealed.
    fn recipients(&self, known: &Known) -> Result<Vec<Met>, PortError> {
        let own = Met { identity: self.identity.id(), recipient: self.identity.recipient()? };
        let others = known.members.members.keys().filter_map(|identity| {
            let person = known.circle.people.get(identity)?;
            Some(Met { identity: *identity, recipient: person.recipient })
        });
        Ok(std::iter::once(own).chain(others).collect())
    }

    /// An epoch is sealed for these, beside whom it was sealed for before.
    fn note_told(&self, epoch: NewEpoch, to: &[Met]) -> Result<(), PortError> {
        self.change_circle(|circle| {
            circle.iter_mut().for_each(|circle| circle.note_told(epoch, to));
            Ok::<_, PortError>(())
        })
    }

    /// Whose devices of before the epoch that counts was sealed for, too: each of these has taken a device off their list since,
    /// which still opens it. Where there is nobody, remembers for whom it is sealed from now on.
    pub(super) fn told_to_others(&self) -> Result<BTreeSet<IdentityId>, PortError> {
        let Some(known) = self.known_share() else { return Ok(BTreeSet::new()) };
        let (Some(epoch), to) = (known.members.epoch, self.recipients(&known)?) else { return Ok(BTreeSet::new()) };
        let told = known.circle.told.filter(|told| told.epoch == epoch);
        let is_now = |before: &Met| to.iter().any(|now| now.recipient == before.recipient);
        let others = told.into_iter().flat_map(|told| told.to).filter(|before| !is_now(before));
        let others: BTreeSet<IdentityId> = others.map(|before| before.identity).collect();
        if others.is_empty() {
            self.change_circle(|circle| {
                if let Some(circle) = circle {
                    circle.told = Some(Told { epoch, to });
                }
                Ok::<_, PortError>(())
            })?;
        }
        Ok(others)
    }
}

/// When another epoch was begun last because somebody had lost a device. Who only reads can say so as often as they like, and
/// each time takes room from those who say who may do what.
#[derive(Default)]
pub(crate) struct Lost(BTreeMap<IdentityId, Instant>);

impl Lost {
    /// Whether another epoch is to begin because of any of these.
    fn is_due(&self, others: &BTreeSet<IdentityId>) -> bool {
        let is_new = |identity| self.0.get(identity).is_none_or(|answered| answered.elapsed() >= LOST_AGAIN_AFTER);
        others.iter().any(is_new)
    }

    /// It has begun.
    fn answered(&mut self, others: impl Iterator<Item = IdentityId>) {
        self.0.retain(|_, answered| answered.elapsed() < LOST_AGAIN_AFTER);
        self.0.extend(others.map(|identity| (identity, Instant::now())));
    }
}

/// What is said at the place of a device, in a hash: sealing it anew would give other bytes each time.
fn said(log: &Log, epochs: &Epochs, to: &[Met]) -> [u8; 32] {
    let mut to: Vec<[u8; 32]> = to.iter().map(|Met { recipient: Recipient::X25519(key), .. }| *key).collect();
    to.sort_unstable();
    let names = epochs.epochs.iter().map(|epoch| epoch.name().name);
    let all: Vec<u8> = to.into_iter().chain(names).flatten().collect();
    blake3::derive_key(SAID_CONTEXT, &[all, log.encode()].concat())
}
