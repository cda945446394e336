//! From a keystore to a mounted tree: the roster names the devices, each device's head is asked for, the newest one
//! leads to its catalog and its root. Heads that it does not contain are named. This device enrols when it has a head of
//! its own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hypernet_core::catalog::Manifest;
use hypernet_core::codec;
use hypernet_core::head::{Head, Snapshot};
use hypernet_core::port::PortError;
use hypernet_core::record::Record;
use hypernet_core::roster::{Device, Roster, RosterError};
use hypernet_core::seal::Kind;
use hypernet_core::time::Hlc;
use hypernet_core::tree::Root;
use thiserror::Error;

use super::heads::{Found, Survey, when};
use super::read::{Deadline, expect_kind};
use super::state::{self, Latest};
use super::write::unix_now;
use super::{Volume, damaged};

/// Devices that are named when there is no room for another.
const OLDEST: usize = 5;
/// Devices without a head that are named.
const SILENT: usize = 5;

/// What was found.
pub(crate) struct Recovered {
    pub(crate) devices: usize,
    pub(crate) head_device: String,
    pub(crate) head_sequence: u64,
    pub(crate) head_age_seconds: u64,
    /// Heads of other devices that are not part of this one.
    pub(crate) others: Vec<Found>,
    /// Those in words, and heads that are missing, older than some device has seen, or not believed.
    pub(crate) warnings: Vec<String>,
    pub(crate) root: Root,
}

/// Why a recovery came to nothing.
#[derive(Debug, Error)]
pub(crate) enum RecoverError {
    /// It may be there later.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Another device must be named.
    #[error(transparent)]
    Device(#[from] RosterError),
}

/// What is known to be, or may be, on the mesh and was not found.
fn missing(survey: &Survey) -> Vec<String> {
    let mut warnings = Vec::new();
    for (device, error) in &survey.refused {
        warnings.push(format!("a head of {} is not believed: {error}", device.name));
    }
    for Found { device, head } in &survey.found {
        let seen = survey.seen_of(&device.id);
        if head.sequence < seen {
            warnings.push(format!("head {seen} of {} was seen, and only {} is found", device.name, head.sequence));
        }
    }
    let (seen, silent): (Vec<&Device>, Vec<&Device>) =
        survey.silent().partition(|device| survey.seen_of(&device.id) > 0);
    for device in seen {
        warnings.push(format!("head {} of {} was seen, and none is found", survey.seen_of(&device.id), device.name));
    }
    // A device enrols just before it publishes its first head: one without may have been stopped in between.
    let silent: Vec<&str> = silent.iter().map(|device| device.name.as_str()).collect();
    if !silent.is_empty() {
        let (named, more) = silent.split_at(silent.len().min(SILENT));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        warnings.push(format!(
            "no head is found of {}{more}: what they synced, if they did, is not found now",
            named.join(", ")
        ));
    }
    warnings
}

pub(crate) fn clock(after: Hlc) -> Hlc {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // To the millisecond: of two devices the newer head is taken, and they may sync within one second.
    after.next(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

impl Volume {
    /// The roster as the mesh has it.
    pub(crate) fn roster(&self) -> Result<Option<Roster>, PortError> {
        self.open_roster(self.peers.lookup(Roster::locator(&self.identity))?.as_ref())
    }

    /// The same, asked for as in [`Self::look_well`].
    pub(super) fn roster_well(&self) -> Result<Option<Roster>, PortError> {
        self.open_roster(self.peers.look_well(Roster::locator(&self.identity))?.as_ref())
    }

    fn open_roster(&self, record: Option<&Record>) -> Result<Option<Roster>, PortError> {
        record.map(|record| Roster::open(record, &self.identity).map_err(damaged)).transpose()
    }

    /// Makes sure that the roster lists this device, and that enough peers keep it: what this node found may be its own
    /// copy, and the mesh may have grown. Of two devices that enrol at once only one is in the roster that stays: the
    /// other must look again, because no head is found of a device that no roster lists.
    ///
    /// A device enrols when it has a head to publish. One that only recovered and read takes up no room.
    pub(crate) fn enrol(&self) -> Result<Roster, PortError> {
        let found = self.peers.lookup(Roster::locator(&self.identity))?;
        let known = self.open_roster(found.as_ref())?;
        let me = self.device.id();
        let listed = known.as_ref().is_some_and(|roster| {
            roster
                .devices
                .iter()
                .any(|device| device.id == me && device.heads.iter().any(|head| head.volume == self.keys.volume))
        });
        let known = known.unwrap_or_default();
        let (roster, record) = if let Some(record) = found.filter(|_| listed) {
            (known, record)
        } else {
            if state::is_enrolled(&self.db)? {
                tracing::warn!("the list of devices does not name this one any more; enrolling again");
            }
            let volumes = [self.keys.volume];
            let enrolled = known
                .enrol(&self.device, &self.device_name, &volumes, clock(Hlc::default()))
                .and_then(|roster| Ok((roster.publish(&self.identity)?, roster)));
            match enrolled {
                Ok((record, roster)) => (roster, record),
                Err(error @ RosterError::Full) => return Err(self.no_room(&known, &error)),
                Err(error) => return Err(damaged(error)),
            }
        };
        self.peers.publish(record, self.peers.keepers(), "the list of devices")?;
        state::set_enrolled(&self.db)?;
        Ok(roster)
    }

    /// Why this device is not enrolled, with the devices that could make room: those that published least lately.
    fn no_room(&self, roster: &Roster, error: &RosterError) -> PortError {
        let survey = self.find_heads(&roster.devices).unwrap_or_default();
        let head = |device: &Device| survey.found.iter().find(|found| found.device.id == device.id);
        let mut devices: Vec<&Device> = roster.devices.iter().collect();
        devices.sort_by_key(|device| head(device).map_or(device.enrolled, |found| found.head.time));
        let oldest = devices.into_iter().take(OLDEST).map(|device| match head(device) {
            Some(found) => format!("{} (head {} of {})", device.name, found.head.sequence, when(found.head.time)),
            None => format!("{} (no head found, enrolled {})", device.name, when(device.enrolled)),
        });
        let oldest: Vec<String> = oldest.collect();
        PortError::Unreachable(format!("{error}; the oldest of {}: {}", roster.devices.len(), oldest.join(", ")))
    }

    /// The heads of all other devices, asked for twice as in [`Self::look_well`].
    fn heads_well(&self, roster: &Roster) -> Result<Survey, PortError> {
        let others = self.others(roster);
        self.peers.settle();
        self.find_heads(&others)?;
        self.find_heads(&others)
    }

    /// Everything that leads from the identity to the newest root, or to that of the device that is named. `say` is told
    /// what happens.
    pub(crate) fn recover(&self, device: Option<&str>, say: &mut dyn FnMut(String)) -> Result<Recovered, RecoverError> {
        say("asking the mesh for the list of devices".into());
        let roster = self.roster_well()?.ok_or_else(|| {
            PortError::NotFound(
                "the mesh has no list of devices for this identity, or no peer that has it is there".into(),
            )
        })?;
        let wanted = device.map(|name| roster.named(name)).transpose()?.map(|device| device.id);
        say(format!("{} device(s); asking for their heads", roster.devices.len()));
        let survey = self.heads_well(&roster)?;
        let chosen = survey.found.iter().filter(|found| wanted.is_none_or(|id| found.device.id == id));
        let newest = chosen.max_by_key(|found| (found.head.time, found.head.device)).ok_or_else(|| {
            let of = device.map_or_else(|| "no device".to_owned(), |name| format!("device {name} is not known to"));
            let have = if device.is_some() { "have" } else { "has" };
            PortError::NotFound(format!("{of} {have} published a head of this volume, or none can be reached yet"))
        })?;
        let head = newest.head.clone();
        say(format!("head {} found; reading its catalog", head.sequence));
        expect_kind(&head.manifest, Kind::Manifest)?;
        let placement = Arc::new(head.manifest_placement.clone());
        let plain = self.peers.fetch_at(placement, vec![(head.manifest.clone(), 0)])?;
        let bytes = plain.first().ok_or_else(|| damaged("the manifest came back empty"))?;
        let manifest: Manifest = codec::decode(bytes).map_err(damaged)?;
        if !manifest.is_sound() {
            return Err(damaged("the manifest refers to what it does not list").into());
        }
        self.load_catalog(&manifest, &mut |done, all| say(format!("{done} of {all} rows of the catalog")))?;
        say("reading the snapshot".into());
        let root = self.read_root(&head, &roster)?;
        let latest =
            Latest { snapshot: head.snapshot, root: root.clone(), manifest, time: head.time, head: head.clone() };
        state::put_latest(&self.db, &latest)?;
        (*self.links.lock()).clone_from(&root.links);
        Ok(self.recovered(&roster, &survey, &head, root))
    }

    fn recovered(&self, roster: &Roster, survey: &Survey, head: &Head, root: Root) -> Recovered {
        let others: Vec<Found> = survey.found.iter().filter(|found| !found.is_part_of(&root.vector)).cloned().collect();
        let mut warnings: Vec<String> = others.iter().map(Found::words).collect();
        warnings.extend(missing(survey));
        let device = roster.devices.iter().find(|device| device.id == head.device);
        Recovered {
            devices: self.others(roster).len(),
            head_device: device.map_or_else(|| head.device.short(), |device| device.name.clone()),
            head_sequence: head.sequence,
            head_age_seconds: unix_now().saturating_sub(head.time.millis / 1000),
            others,
            warnings,
            root,
        }
    }

    /// What [`Self::recover`] found before, if it ended well: the head that the index is of. No other is taken.
    pub(crate) fn recovered_before(&self) -> Result<Option<Recovered>, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(None) };
        let looked = self.roster_well().and_then(|roster| {
            let roster = roster.unwrap_or_default();
            Ok((self.heads_well(&roster)?, roster))
        });
        let (survey, roster) = looked.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look up the devices of this identity");
            Default::default()
        });
        let mut recovered = self.recovered(&roster, &survey, &latest.head, latest.root);
        recovered.warnings.push("an earlier attempt had set up the tree; no newer head was taken".to_owned());
        Ok(Some(recovered))
    }

    fn read_root(&self, head: &Head, roster: &Roster) -> Result<Root, PortError> {
        expect_kind(&head.snapshot_extent, Kind::Snapshot)?;
        let one = |reference| -> Result<bytes::Bytes, PortError> {
            self.fetch(std::slice::from_ref(reference), Deadline::of_read())?
                .pop()
                .ok_or_else(|| damaged("it came back empty"))
        };
        let snapshot = Snapshot::verify(&one(&head.snapshot_extent)?).map_err(damaged)?;
        if snapshot.id() != head.snapshot {
            return Err(damaged("the snapshot is not the one that the head names"));
        }
        if !roster.devices.iter().any(|device| device.id == snapshot.author) {
            return Err(damaged("the snapshot's author is not a device of this identity"));
        }
        expect_kind(&snapshot.root, Kind::Root)?;
        let root: Root = codec::decode(&one(&snapshot.root)?).map_err(damaged)?;
        if root.volume != self.keys.volume {
            return Err(damaged("the root is of another volume"));
        }
        Ok(root)
    }
}
