//! Finding all that the mesh has of an identity: from the door of an era to its roster, over its end to the next door, and
//! from each device that a roster names over its beacon to the era that it is in. So whoever begins anywhere comes to
//! all that is connected, and what somebody who once was a device has put in the way hides nothing that another one tells.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hypernet_core::codec::{self, CodecError};
use hypernet_core::id::{DeviceId, RecordKey};
use hypernet_core::identity::beacon::Beacon;
use hypernet_core::identity::era::{Door, Era};
use hypernet_core::identity::log::{Device, LogError};
use hypernet_core::identity::place::roster_sealing_key;
use hypernet_core::identity::posting::Posting;
use hypernet_core::key::Secret;
use hypernet_core::port::PortError;
use hypernet_core::record::{Record, record_key};

use super::named_by;
use super::places::{Allowance, At, read, read_here};
use crate::peers::Peers;
use crate::sealing;

/// Doors that are looked behind, and beacons that are looked at.
const DOORS_MAX: usize = 64;
const BEACONS_MAX: usize = 128;
/// Of the doors, those to which devices lead that are not on the list: one of them could name any number. And those to which
/// one of several ends leads.
const DOORS_OF_GONE_MAX: usize = 16;
const DOORS_CLAIMED_MAX: usize = 16;

/// For how long what lies in segments is read there, and in all of somebody else's.
const CLAIMED_WITHIN: Duration = Duration::from_secs(5);

/// What is at the place of a roster.
pub(crate) struct Rostered {
    pub(crate) record: Option<Record>,
    /// What it says, unless that was known.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Why it could not be read.
    pub(crate) unread: Option<PortError>,
}

/// All that was found.
pub(crate) struct Gathered {
    /// All of it that is signed, together with what was known.
    pub(crate) posting: Posting,
    pub(crate) rosters: BTreeMap<Door, Rostered>,
    /// The eras that have ended, and what says so: more than one record where somebody who has their keys lies.
    pub(super) ends: BTreeMap<Door, Vec<(Door, Record)>>,
    pub(crate) beacons: BTreeMap<DeviceId, (Beacon, Record)>,
}

impl Gathered {
    /// The doors to which ends lead from one, and that one first.
    pub(super) fn path(&self, from: Door) -> Vec<Door> {
        let mut path = vec![from];
        let mut at = 0;
        while let Some(door) = path.get(at).copied() {
            at += 1;
            for (next, _) in self.ends.get(&door).into_iter().flatten() {
                if path.len() < DOORS_MAX && !path.contains(next) {
                    path.push(*next);
                }
            }
        }
        path
    }

    /// What says that an era has ended: of several the one that leads to `now`.
    pub(super) fn end(&self, of: Door, now: Door) -> Option<&Record> {
        let ends = self.ends.get(&of)?;
        let leading = ends.iter().find(|(next, _)| self.leads(*next, now));
        leading.or_else(|| ends.first()).map(|(_, record)| record)
    }

    /// Whether ends lead from one door to another.
    pub(super) fn leads(&self, from: Door, to: Door) -> bool {
        self.path(from).contains(&to)
    }
}

/// How a door was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// By this device, the phrase, or a device on the list, and what these lead to.
    Listed,
    /// By one of several ends: whoever has the keys of an era, and a peer that lies, can have it end anywhere.
    Claimed,
    /// By one that is gone: it could lead to any number of places, each of which takes as long as it can.
    Gone,
}

/// A search under way.
struct Search<'a> {
    peers: &'a Peers,
    key: Secret,
    /// A record whose content is known already.
    known: Option<&'a Record>,
    /// Ends that are passed over.
    untold: Vec<Record>,
    found: Gathered,
    open: BTreeMap<Door, By>,
    asked: BTreeSet<DeviceId>,
    by_gone: usize,
    claimed: usize,
    /// For what lies behind such doors, or behind all.
    allowance: Allowance,
    of_others: bool,
    /// What was read by that: it is not fetched again.
    fetched: Vec<(Record, Vec<u8>)>,
    /// Doors behind which only what lies in the record itself was looked at.
    skimmed: BTreeSet<Door>,
}

/// Finds all that these doors lead to. `known` is a record whose content is part of `posting` already.
pub(crate) fn gather(
    peers: &Peers,
    posting: Posting,
    doors: Vec<Door>,
    known: Option<&Record>,
) -> Result<Gathered, PortError> {
    Search { known, ..Search::new(peers, posting, doors) }.run()
}

/// The same, of somebody else, twice, as in [`Peers::look_well`]: they keep nobody waiting for long.
pub(crate) fn gather_of_others(peers: &Peers, posting: Posting, doors: Vec<Door>) -> Result<Gathered, PortError> {
    let mut once = Search { of_others: true, ..Search::new(peers, posting, doors.clone()) };
    while once.go_on()? {}
    let Search { found, allowance, fetched, .. } = once;
    Search { of_others: true, allowance, fetched, ..Search::new(peers, found.posting, doors) }.run()
}

/// The same as somebody finds it who is not told of these records.
pub(super) fn gather_without(
    peers: &Peers,
    posting: Posting,
    doors: Vec<Door>,
    untold: Vec<Record>,
) -> Result<Gathered, PortError> {
    Search { untold, ..Search::new(peers, posting, doors) }.run()
}

impl<'a> Search<'a> {
    fn new(peers: &'a Peers, posting: Posting, doors: Vec<Door>) -> Self {
        let key = roster_sealing_key(&posting.log().identity());
        let found = Gathered { posting, rosters: BTreeMap::new(), ends: BTreeMap::new(), beacons: BTreeMap::new() };
        Self {
            peers,
            key,
            known: None,
            untold: Vec::new(),
            found,
            open: doors.into_iter().map(|door| (door, By::Listed)).collect(),
            asked: BTreeSet::new(),
            by_gone: 0,
            claimed: 0,
            allowance: Allowance::new(CLAIMED_WITHIN),
            of_others: false,
            fetched: Vec::new(),
            skimmed: BTreeSet::new(),
        }
    }

    fn run(mut self) -> Result<Gathered, PortError> {
        while self.go_on()? {}
        Ok(self.found)
    }
}

impl Search<'_> {
    /// Looks behind all doors and at all beacons that were not looked at yet. Returns whether there were any.
    fn go_on(&mut self) -> Result<bool, PortError> {
        let doors = std::mem::take(&mut self.open);
        let mut doors: Vec<(By, Door)> = doors.into_iter().map(|(door, by)| (by, door)).collect();
        doors.retain(|(_, door)| !self.found.rosters.contains_key(door));
        doors.sort_unstable();
        doors.truncate(DOORS_MAX.saturating_sub(self.found.rosters.len()));
        let devices = self.unasked();
        if doors.is_empty() && devices.is_empty() {
            return Ok(false);
        }
        let signers = doors.iter().flat_map(|(_, door)| [door.roster, door.end]);
        let signers = signers.chain(devices.iter().map(|(_, _, beacon)| *beacon));
        let keys: Vec<RecordKey> = signers.map(|signer| record_key(&signer)).collect();
        let mut records = self.peers.lookup_lasts(&keys)?.into_iter();
        let mut next = || records.next().unwrap_or_default();
        for (by, door) in doors {
            let (roster, ends) = (next().into_iter().next(), next());
            self.look_behind(by, door, roster, ends);
        }
        for (by, id, _) in devices {
            if let Some(record) = next().into_iter().next() {
                self.look_at(by, id, record);
            }
        }
        Ok(true)
    }

    /// A door that was found. Of those that nobody on the list leads to, only some are looked behind.
    fn lead_to(&mut self, by: By, door: Door) {
        let room = match by {
            By::Listed => None,
            By::Claimed => Some((&mut self.claimed, DOORS_CLAIMED_MAX)),
            By::Gone => Some((&mut self.by_gone, DOORS_OF_GONE_MAX)),
        };
        if let Some((taken, most)) = room.filter(|_| !self.open.contains_key(&door)) {
            *taken += 1;
            if *taken > most {
                return;
            }
        }
        if by != By::Gone && self.skimmed.remove(&door) {
            self.found.rosters.remove(&door);
        }
        let how = self.open.entry(door).or_insert(by);
        *how = by.min(*how);
    }

    /// Reads a record; what lies in a segment not where only somebody who is gone leads there, nor when what lies behind doors that
    /// anybody could have made up has taken long.
    fn read(&mut self, by: By, record: &Record) -> Result<At, PortError> {
        match by {
            By::Listed if !self.of_others => read(self.peers, record, &self.key),
            By::Listed | By::Claimed => {
                if let Some((_, bytes)) = self.fetched.iter().find(|(fetched, _)| fetched == record) {
                    return Ok(At::Here(bytes.clone()));
                }
                let at = self.allowance.read(self.peers, record, &self.key)?;
                if let At::Here(bytes) = &at {
                    self.fetched.push((record.clone(), bytes.clone()));
                }
                Ok(at)
            }
            By::Gone => read_here(record, &self.key),
        }
    }

    fn look_behind(&mut self, by: By, door: Door, roster: Option<Record>, ends: Vec<Record>) {
        let mut rostered = Rostered { record: roster, bytes: None, unread: None };
        if let Some(record) = rostered.record.as_ref().filter(|record| Some(*record) != self.known) {
            match self.read(by, record) {
                Ok(At::Here(bytes)) => rostered.bytes = Some(bytes),
                Ok(At::Nothing | At::Ended(_)) => {}
                Err(error) => rostered.unread = Some(error),
            }
        }
        if let Some(bytes) = &rostered.bytes {
            let posting = &mut self.found.posting;
            let merged = Posting::decode(bytes, &posting.log().identity()).and_then(|other| posting.merge(&other));
            match merged {
                Ok(_) => {}
                // It says more than is understood here, so nothing is to take its place.
                Err(LogError::Codec(error @ CodecError::Version { .. })) => rostered.unread = Some(error.into()),
                Err(error) => tracing::warn!(%error, "a list of devices of this identity is not believed"),
            }
        }
        if by == By::Gone && rostered.unread.is_some() {
            self.skimmed.insert(door);
        }
        self.found.rosters.insert(door, rostered);
        // An end is a record and nothing else.
        let next = |record: Record| match read_here(&record, &self.key) {
            Ok(At::Ended(next)) => Some((next, record)),
            _ => None,
        };
        let ends = ends.into_iter().filter(|record| !self.untold.contains(record));
        let ends: Vec<(Door, Record)> = ends.filter_map(next).collect();
        let by = if ends.len() > 1 { by.max(By::Claimed) } else { by };
        ends.iter().for_each(|(next, _)| self.lead_to(by, *next));
        if !ends.is_empty() {
            self.found.ends.insert(door, ends);
        }
    }

    fn look_at(&mut self, by: By, id: DeviceId, record: Record) {
        let bytes = match self.read(by, &record) {
            Ok(At::Here(bytes)) => bytes,
            Ok(At::Nothing | At::Ended(_)) => return,
            Err(error) => {
                tracing::warn!(%error, device = %id.short(), "what a device says of itself cannot be read");
                return;
            }
        };
        match codec::decode::<Beacon>(&bytes) {
            Ok(beacon) => {
                self.lead_to(by, beacon.door);
                self.found.beacons.insert(id, (beacon, record));
            }
            Err(error) => {
                tracing::warn!(%error, device = %id.short(), "what a device says of itself is not believed")
            }
        }
    }

    /// Devices whose beacons were not looked at yet: those that are listed first.
    fn unasked(&mut self) -> Vec<(By, DeviceId, [u8; 32])> {
        let roster = self.found.posting.log().roster();
        let listed = roster.devices.iter().map(|device| (By::Listed, device));
        let all = listed.chain(roster.gone.iter().map(|device| (By::Gone, device)));
        let mut new = Vec::new();
        for (by, Device { id, beacon, .. }) in all {
            if self.asked.len() < BEACONS_MAX && self.asked.insert(*id) {
                new.push((by, *id, *beacon));
            }
        }
        new
    }
}

/// The eras that may count whose ways this secret opens, but for those that are known.
pub(super) fn open_ways(posting: &Posting, opening: &Secret, known: &[Era]) -> Vec<Era> {
    let known: Vec<_> = known.iter().filter_map(named_by).collect();
    let mut eras = Vec::new();
    for (new, way) in posting.ways() {
        let Some(way) = way.filter(|_| !known.contains(&new.recipient)) else { continue };
        let Ok(plain) = sealing::open(opening, way) else { continue };
        match codec::decode::<Era>(&plain) {
            Ok(era) if named_by(&era) == Some(new.recipient) => eras.push(era),
            Ok(_) => tracing::warn!("the way to an era leads to another one"),
            Err(error) => tracing::warn!(%error, "the way to an era cannot be read"),
        }
    }
    eras
}

#[cfg(test)]
mod tests {
    use hypernet_core::identity::log::Log;

    use super::super::places::put;
    use super::*;
    use crate::volume::double::{Mesh, phrase, publish};

    /// It is not to be taken for nothing, and replaced.
    #[test]
    fn what_was_only_skimmed_is_read_when_somebody_who_is_listed_leads_there() {
        let (mesh, home) = (Mesh::new(5), tempfile::tempdir().unwrap());
        let first = mesh.volume(home.path(), 1);
        publish(&first, 1).unwrap();
        let (peers, era) = (mesh.peers(), Era::new(1, Secret::new([9; 32])));
        let key = roster_sealing_key(&phrase().id());
        let long = vec![7; 10_000];
        mesh.keep(put(&peers, &era.roster(), &key, long.clone(), 0).unwrap());
        let mut search = Search::new(&peers, Posting::new(Log::new(phrase().id())), Vec::new());
        search.lead_to(By::Gone, era.door());
        assert!(search.go_on().unwrap());
        let there = &search.found.rosters[&era.door()];
        assert!(there.bytes.is_none() && there.unread.is_some());
        search.lead_to(By::Gone, era.door());
        assert!(!search.go_on().unwrap(), "nothing is new");
        search.lead_to(By::Listed, era.door());
        assert!(search.go_on().unwrap());
        assert_eq!(search.found.rosters[&era.door()].bytes, Some(long.clone()));

        // So long do others have one wait, and no longer.
        let record = search.found.rosters[&era.door()].record.clone().unwrap();
        let mut allowance = Allowance::new(CLAIMED_WITHIN);
        assert!(matches!(allowance.read(&peers, &record, &key), Ok(At::Here(bytes)) if bytes == long));
        let mut spent = Allowance::new(Duration::ZERO);
        assert!(spent.is_spent() && matches!(spent.read(&peers, &record, &key), Err(PortError::Unreachable(_))));
    }
}
