//! From a keystore to a mounted tree: the roster names the devices, each device's head is asked for, the newest one
//! leads to its catalog and its root, and this device enrols itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::catalog::Manifest;
use hypernet_core::codec;
use hypernet_core::head::{Head, Snapshot};
use hypernet_core::id::RecordKey;
use hypernet_core::limits::RECORD_KEEPERS_MAX;
use hypernet_core::node::{Command, Outcome};
use hypernet_core::port::PortError;
use hypernet_core::record::{Record, record_key};
use hypernet_core::roster::Roster;
use hypernet_core::seal::Kind;
use hypernet_core::time::Hlc;
use hypernet_core::tree::Root;

use super::Volume;
use super::read::{Deadline, expect_kind};
use super::state::{self, Latest};
use super::write::unix_now;

/// How often the roster is asked for while this device publishes heads.
const CONFIRM_EVERY: Duration = Duration::from_secs(600);

/// What was found.
pub(crate) struct Recovered {
    pub(crate) devices: usize,
    pub(crate) head_device: String,
    pub(crate) head_sequence: u64,
    pub(crate) head_age_seconds: u64,
    /// Heads that are missing, older than some device has seen, or not believed.
    pub(crate) warnings: Vec<String>,
    pub(crate) root: Root,
}

fn damaged(error: impl std::fmt::Display) -> PortError {
    PortError::Damaged(error.to_string())
}

pub(crate) fn clock(after: Hlc) -> Hlc {
    after.next(unix_now().saturating_mul(1000))
}

/// When the roster was last seen to list this device. Of two devices that enrol at once only one is in the roster that
/// stays: the other must look again, because no head is found of a device that no roster lists.
#[derive(Debug, Default)]
pub(crate) struct Enrolment {
    seen: Option<Instant>,
}

impl Enrolment {
    /// Looks, unless it has lately, and enrols this device again where it must.
    pub(crate) fn confirm(&mut self, volume: &Volume) -> Result<(), PortError> {
        if self.seen.is_none_or(|seen| seen.elapsed() >= CONFIRM_EVERY) {
            volume.enrol()?;
            self.seen = Some(Instant::now());
        }
        Ok(())
    }
}

impl Volume {
    fn lookup(&self, key: RecordKey) -> Result<Option<Record>, PortError> {
        match self.node.run_blocking(Command::Lookup(key)) {
            Outcome::Found(record) => Ok(record),
            Outcome::Failed(error) => Err(PortError::Unreachable(error.to_string())),
            other => Err(damaged(format!("unexpected outcome {other:?}"))),
        }
    }

    /// As [`Self::lookup`], twice, and once peers have stopped coming in: the first answer after a start may be that of
    /// the few who are there already, and they may have missed the newest record. The node keeps the newer of both.
    fn look_well(&self, key: RecordKey) -> Result<Option<Record>, PortError> {
        self.settle();
        self.lookup(key)?;
        self.lookup(key)
    }

    /// The roster as the mesh has it.
    pub(crate) fn roster(&self) -> Result<Option<Roster>, PortError> {
        self.open_roster(self.lookup(Roster::locator(&self.identity))?.as_ref())
    }

    fn open_roster(&self, record: Option<&Record>) -> Result<Option<Roster>, PortError> {
        record.map(|record| Roster::open(record, &self.identity).map_err(damaged)).transpose()
    }

    /// Publishes a record; an error unless `wanted` other peers have it on stable storage.
    pub(crate) fn publish(&self, record: Record, wanted: usize, what: &str) -> Result<(), PortError> {
        // It is handed to no more; where segments survive more losses than that, so must one of these.
        let wanted = wanted.min(RECORD_KEEPERS_MAX);
        match self.node.run_blocking(Command::Publish { record, enough: wanted }) {
            Outcome::Published { stored } if stored >= wanted => Ok(()),
            Outcome::Published { stored } => Err(PortError::Unreachable(format!(
                "{what} is kept by {stored} peers where {wanted} are needed to outlive the loss of {}",
                wanted.saturating_sub(1)
            ))),
            Outcome::Failed(error) => Err(PortError::Unreachable(error.to_string())),
            other => Err(damaged(format!("unexpected outcome {other:?}"))),
        }
    }

    /// Peers that must keep a record, so that it outlives as many losses as a segment does.
    fn keepers(&self) -> usize {
        // Without a plan nothing can be stored, but what is there can be recovered and read.
        self.plan().map_or(1, |plan| usize::from(plan.n - plan.k) + 1)
    }

    /// Makes sure that the roster lists this device, and that enough peers keep it: what this node found may be its own
    /// copy, and the mesh may have grown.
    pub(crate) fn enrol(&self) -> Result<(), PortError> {
        let found = self.lookup(Roster::locator(&self.identity))?;
        let known = self.open_roster(found.as_ref())?;
        let me = self.device.id();
        let listed = known.as_ref().is_some_and(|roster| {
            roster
                .devices
                .iter()
                .any(|device| device.id == me && device.heads.iter().any(|head| head.volume == self.keys.volume))
        });
        let record = if let Some(record) = found.filter(|_| listed) {
            record
        } else {
            if state::is_enrolled(&self.db)? {
                tracing::warn!("the list of devices does not name this one any more; enrolling again");
            }
            let roster = known
                .unwrap_or_default()
                .enrol(&self.device, &self.device_name, &[self.keys.volume], clock(Hlc::default()))
                .map_err(damaged)?;
            roster.publish(&self.identity).map_err(damaged)?
        };
        self.publish(record, self.keepers(), "the list of devices")?;
        state::set_enrolled(&self.db)
    }

    /// The newest head of all devices of the roster, and what is wrong with the others.
    fn newest_head(&self, roster: &Roster) -> Result<(Head, Vec<String>), PortError> {
        let mut heads: Vec<Head> = Vec::new();
        let mut warnings = Vec::new();
        for device in &roster.devices {
            for place in device.heads.iter().filter(|place| place.volume == self.keys.volume) {
                let Some(record) = self.look_well(record_key(&place.signer))? else {
                    // A device that never synced has none; of one that did, another device's head is only the next best.
                    warnings.push(format!("no head of {} is found; it may have synced nothing yet", device.name));
                    continue;
                };
                match Head::open(&record, &device.id, &self.keys) {
                    Ok(head) => heads.push(head),
                    Err(error) => warnings.push(format!("a head of {} is not believed: {error}", device.name)),
                }
            }
        }
        for head in &heads {
            for seen in &head.seen {
                let found =
                    heads.iter().find(|other| other.device.tag() == seen.device).map_or(0, |other| other.sequence);
                if found < seen.sequence {
                    let name = roster.devices.iter().find(|device| device.id.tag() == seen.device);
                    let name = name.map_or("a device", |device| device.name.as_str());
                    warnings.push(format!("head {} of {name} was seen, and only {found} is found", seen.sequence));
                }
            }
        }
        let newest = heads.into_iter().max_by_key(|head| (head.time, head.device));
        newest.map(|head| (head, warnings)).ok_or_else(|| {
            PortError::NotFound("no device has published a head of this volume, or none can be reached yet".into())
        })
    }

    /// Everything that leads from the identity to the newest root. `say` is told what happens.
    pub(crate) fn recover(&self, say: &mut dyn FnMut(String)) -> Result<Recovered, PortError> {
        say("asking the mesh for the list of devices".into());
        let found = self.look_well(Roster::locator(&self.identity))?;
        let roster = self.open_roster(found.as_ref())?.ok_or_else(|| {
            PortError::NotFound(
                "the mesh has no list of devices for this identity, or no peer that has it is there".into(),
            )
        })?;
        say(format!("{} device(s); asking for their heads", roster.devices.len()));
        let (head, warnings) = self.newest_head(&roster)?;
        say(format!("head {} found; reading its catalog", head.sequence));
        expect_kind(&head.manifest, Kind::Manifest)?;
        let placement = Arc::new(head.manifest_placement.clone());
        let plain = self.fetch_at(placement, vec![(head.manifest.clone(), 0)])?;
        let bytes = plain.first().ok_or_else(|| damaged("the manifest came back empty"))?;
        let manifest: Manifest = codec::decode(bytes).map_err(damaged)?;
        if !manifest.is_sound() {
            return Err(damaged("the manifest refers to what it does not list"));
        }
        self.load_catalog(&manifest, &mut |done, all| say(format!("{done} of {all} rows of the catalog")))?;
        say("reading the snapshot".into());
        let root = self.read_root(&head, &roster)?;
        let latest =
            Latest { snapshot: head.snapshot, root: root.clone(), manifest, time: head.time, head: head.clone() };
        state::put_latest(&self.db, &latest)?;
        (*self.links.lock()).clone_from(&root.links);
        say("enrolling this device".into());
        self.enrol()?;
        Ok(self.recovered(&roster, &head, warnings, root))
    }

    fn recovered(&self, roster: &Roster, head: &Head, warnings: Vec<String>, root: Root) -> Recovered {
        let device = roster.devices.iter().find(|device| device.id == head.device);
        Recovered {
            devices: roster.devices.iter().filter(|device| device.id != self.device.id()).count(),
            head_device: device.map_or_else(|| head.device.short(), |device| device.name.clone()),
            head_sequence: head.sequence,
            head_age_seconds: unix_now().saturating_sub(head.time.millis / 1000),
            warnings,
            root,
        }
    }

    /// What [`Self::recover`] found before, if it ended well: the head that the index is of. No other is looked for.
    pub(crate) fn recovered_before(&self) -> Result<Option<Recovered>, PortError> {
        let Some(latest) = state::latest(&self.db)? else { return Ok(None) };
        let roster = self.roster().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look up the devices of this identity");
            None
        });
        let warning = "an earlier attempt had set up the tree; no newer head was looked for".to_owned();
        Ok(Some(self.recovered(&roster.unwrap_or_default(), &latest.head, vec![warning], latest.root)))
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
