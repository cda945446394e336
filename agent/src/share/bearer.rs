//! Writing by a link: whoever has it is one identity, its *bearer*, which is granted its part as any other, and each device
//! that writes by the link is on the list of that identity.
//!
//! All who have the link put that list at one place. Lists only grow together, so where two put theirs at once, the one
//! that is not there afterwards takes in the other one, and puts itself on it again.
//!
//! Invariant: no head counts as published by a link before the list at that place was seen, after it was published, to
//! have this device on it.

use hypernet_core::codec;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::log::{Device, Log, LogError, Refused};
use hypernet_core::identity::place::{Signpost, roster_sealing_key};
use hypernet_core::identity::posting::Posting;
use hypernet_core::limits::DEVICES_MAX;
use hypernet_core::port::PortError;
use hypernet_core::record::{LAST, Record};
use hypernet_core::share::bearer::Bearer;
use hypernet_core::share::members::{Change, Member, Role};
use hypernet_core::time::Hlc;

use super::ShareError;
use super::circle::Person;
use super::granting::into_port;
use super::hearing::Known;
use super::links::now;
use crate::identity::gathering::{Gathered, gather};
use crate::identity::known::{enrol_by_phrase, seal_era, signpost};
use crate::identity::places::{At, is_whole, put, read};
use crate::sealing;
use crate::volume::recover::clock;
use crate::volume::{Volume, damaged};

/// How often the list is put up while others who have the link change it.
const TRIES: u32 = 4;
/// What the records are called when they cannot be published.
const LIST: &str = "the list of devices that write by the link";
const BEACON: &str = "where this device publishes by the link";
const WAY: &str = "the way to the list of a link";

/// What this device has put up as one that writes by a link.
#[derive(Clone)]
pub(crate) struct Borne {
    bearer: IdentityId,
    beacon: Beacon,
    list: Record,
}

/// Why a device looks after the list of a bearer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The link was made by its identity: it begins the list, and keeps it up.
    Maker,
    /// It writes by the link: it is to be on the list.
    Holder,
}

impl Volume {
    /// The bearer by whose part alone this device writes here; none where its own identity may, or no link that writes is
    /// there.
    fn borne_by(&self, known: &Known) -> Option<Bearer> {
        if known.members.role(&self.identity.id()) >= Some(Role::Writer) {
            return None;
        }
        known.share.by.iter().find_map(|by| by.bearer(&known.members, now()))
    }

    /// Puts this device on the list of the link by which it writes, unless it writes otherwise.
    pub(super) fn bear(&self, known: &Known) -> Result<(), PortError> {
        self.borne_by(known).map_or(Ok(()), |bearer| self.keep_list(&bearer, Part::Holder))
    }

    /// The bearer of a link that was made here gets its part in the volume: it has a list of devices before anybody is told.
    pub(super) fn grant_bearer(&self, bearer: &Bearer) -> Result<(), ShareError> {
        self.keep_list(bearer, Part::Maker)?;
        let member = Member::of_link(bearer.id(), bearer.address(), Role::Writer);
        self.change_members(Change::Grant(vec![member]))
    }

    /// Keeps up the lists of links that were made here; the making of one that was broken off ends. What somebody who has the
    /// link has put in the way of the others keeps nobody else from anything.
    pub(super) fn tend_bearers(&self) -> Result<(), PortError> {
        let Some(Known { share, members, .. }) = self.known_share() else { return Ok(()) };
        for bearer in share.open_links().filter_map(super::kept::Made::bearer) {
            let kept = match members.role(&bearer.id()) {
                Some(_) => self.keep_list(&bearer, Part::Maker),
                None => self.grant_bearer(&bearer).map_err(into_port),
            };
            if let Err(error) = kept {
                tracing::warn!(%error, volume = %self.id.short(), "the devices of a link that writes are not kept up");
            }
        }
        Ok(())
    }

    /// Whether whoever looks for this head, by the part of the link by which it was published, finds it: asked after that, as
    /// [`is_current`](crate::identity::Identity::is_current).
    pub(crate) fn is_borne(&self, head: &Record, wanted: usize) -> Result<bool, PortError> {
        let Some(bearer) = self.known_share().and_then(|known| self.borne_by(&known)) else { return Ok(true) };
        let Some(borne) = self.borne.lock().clone().filter(|borne| borne.bearer == bearer.id()) else {
            return Ok(false);
        };
        let me = self.device.id();
        if borne.beacon.head_signer(&me, &self.keys()) != Some(head.signer) {
            return Ok(false);
        }
        let place = bearer.era().roster().record_key();
        let found = self.peers.lookup_heard(&[place], wanted, "whether the list of the link has this device")?;
        let Some(record) = found.into_iter().next().flatten() else { return Ok(false) };
        if record == borne.list {
            return Ok(true);
        }
        let At::Here(bytes) = read(&self.peers, &record, &roster_sealing_key(&bearer.id()))? else { return Ok(false) };
        let posting = Posting::decode(&bytes, &bearer.id());
        Ok(posting.is_ok_and(|posting| posting.log().roster().device(&me).is_some()))
    }

    /// Brings together what is here and what is on the mesh of the list of a bearer, with this device on it where it is to be.
    fn keep_list(&self, bearer: &Bearer, part: Part) -> Result<(), PortError> {
        let mut tried = 1;
        loop {
            let there = self.gather_list(bearer)?;
            let posting = self.with_this(there.posting.clone(), bearer, part)?;
            let is_on_it = posting.log().roster().device(&self.device.id()).is_some();
            self.remember_list(bearer, &posting)?;
            // Whoever finds this device on the list is to find where it publishes.
            let beacon = if is_on_it { Some(self.put_bearer_beacon(bearer, &there)?) } else { None };
            match self.put_list(bearer, &there, &posting) {
                Ok(list) => {
                    if let Some(beacon) = beacon.filter(|_| part == Part::Holder) {
                        *self.borne.lock() = Some(Borne { bearer: bearer.id(), beacon, list });
                    }
                    return self.put_way(bearer);
                }
                // Somebody else may have put theirs there.
                Err(PortError::Unreachable(_)) if tried < TRIES => tried += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn gather_list(&self, bearer: &Bearer) -> Result<Gathered, PortError> {
        let known = self.circle.lock().as_ref().and_then(|circle| circle.people.get(&bearer.id())?.posting.clone());
        let known = known.unwrap_or_else(|| Posting::new(Log::new(bearer.id())));
        gather(&self.peers, known, vec![bearer.era().door()], None)
    }

    /// A list, with this device on it: where it is to be, and where there is none yet, which the maker alone begins.
    fn with_this(&self, mut posting: Posting, bearer: &Bearer, part: Part) -> Result<Posting, PortError> {
        let is_on_it = posting.log().roster().device(&self.device.id()).is_some();
        match part {
            Part::Holder if posting.log().is_empty() => {
                return Err(PortError::NotFound(
                    "the mesh has nothing of who writes by this link, or no peer that has it is there".into(),
                ));
            }
            Part::Maker if !posting.log().is_empty() => return Ok(posting),
            Part::Maker | Part::Holder if is_on_it => return Ok(posting),
            Part::Maker | Part::Holder => {}
        }
        let phrase = sealing::recipient(&bearer.keys().opening_key()).map_err(damaged)?;
        let (era, way) = seal_era(bearer.era(), &[phrase]).map_err(damaged)?;
        let recipient = sealing::recipient(&self.device.opening_key()).map_err(damaged)?;
        // What this device is called is nobody's business who has the link.
        let name = format!("link-{}", self.device.id().short());
        let beacon = bearer.beacon(&self.device).signer();
        let device = Device::sign(&bearer.id(), &self.device.signing_key(), recipient, name, beacon);
        let now = clock(Hlc::default());
        posting.change(|log| enrol_by_phrase(log, bearer.keys(), &device, now, era)).map_err(|error| match error {
            LogError::Refused(Refused::Crowded) => PortError::NoPart(format!(
                "{DEVICES_MAX} devices write by this link, and no more can: ask for a link of your own"
            )),
            other => damaged(other),
        })?;
        posting.add_way(way);
        Ok(posting)
    }

    fn remember_list(&self, bearer: &Bearer, posting: &Posting) -> Result<(), PortError> {
        let own = sealing::recipient(&bearer.era().opening_key()).map_err(damaged)?;
        let recipient = posting.log().roster().era.map_or(own, |era| era.recipient);
        self.change_circle(|circle| {
            if let Some(circle) = circle {
                let person = Person { recipient, posting: Some(posting.clone()), told_by: None };
                circle.people.insert(bearer.id(), person);
            }
            Ok(())
        })
    }

    /// Puts a list at its place, unless it is there already.
    fn put_list(&self, bearer: &Bearer, there: &Gathered, posting: &Posting) -> Result<Record, PortError> {
        let (place, key) = (bearer.era().roster(), roster_sealing_key(&bearer.id()));
        let rostered = there.rosters.get(&bearer.era().door());
        let rostered = rostered.ok_or_else(|| damaged("the list of a link was not looked for"))?;
        if let Some(error) = &rostered.unread {
            return Err(error.clone());
        }
        if rostered.record.as_ref().is_some_and(|record| record.sequence >= LAST - 1) {
            return Err(PortError::NoPart(
                "somebody who has this link keeps others from writing by it: ask for another one".into(),
            ));
        }
        let bytes = posting.encode();
        let is_there = rostered.bytes.as_ref() == Some(&bytes);
        let record = match &rostered.record {
            Some(record) if is_there && is_whole(&self.peers, record, &key)? => record.clone(),
            found => put(&self.peers, &place, &key, bytes, found.as_ref().map_or(0, |record| record.sequence))?,
        };
        self.peers.publish(record.clone(), self.peers.keepers(), LIST)?;
        Ok(record)
    }

    fn put_bearer_beacon(&self, bearer: &Bearer, there: &Gathered) -> Result<Beacon, PortError> {
        let (place, key) = (bearer.beacon(&self.device), roster_sealing_key(&bearer.id()));
        let told = self.identity.told_of(self.id);
        let beacon = Beacon::new(&self.device, bearer.era().door(), &told, &[], false).map_err(damaged)?;
        let record = match there.beacons.get(&self.device.id()) {
            Some((found, record)) if *found == beacon && is_whole(&self.peers, record, &key)? => record.clone(),
            _ => {
                let found = self.peers.lookup(place.record_key())?.map_or(0, |record| record.sequence);
                put(&self.peers, &place, &key, codec::encode(&beacon), found)?
            }
        };
        self.peers.publish(record, self.peers.keepers(), BEACON)?;
        Ok(beacon)
    }

    /// Whoever knows the address of a bearer comes to its list by this.
    fn put_way(&self, bearer: &Bearer) -> Result<(), PortError> {
        let address = bearer.address();
        let there = self.peers.lookup(address.record_key())?;
        let leads = |record: &&Record| {
            Signpost::open(record, &address).is_ok_and(|signpost| signpost.door == bearer.era().door())
        };
        let record = match there.as_ref().filter(leads) {
            Some(record) => record.clone(),
            None => {
                let after = there.map_or(0, |record| record.sequence);
                signpost(bearer.keys(), bearer.era(), after.saturating_add(1))?
            }
        };
        self.peers.publish(record, self.peers.keepers(), WAY)
    }
}

#[cfg(test)]
impl Volume {
    /// What whoever has a link can do with the keys of its bearer, whatever the link may do.
    pub(super) fn forge_list(&self, bearer: &Bearer) -> Result<(), PortError> {
        self.keep_list(bearer, Part::Maker)
    }
}
