//! What the mesh has of this volume's heads: this device's own, and those of the other devices.
//!
//! - Its own says whether this home is the newest of its device. One that was put back from a copy, or of which a copy
//!   runs elsewhere, does not know a head that the mesh has: what it published would take that head's place, and what
//!   only that head reaches would be lost.
//! - Those of the others are each durable by themselves until they can be merged. What is known of them goes into the
//!   next head, and what is not part of this tree is told.
//!
//! A home that was copied shares with its copy where both publish, and what each of them does is told apart
//! ([`crate::identity::homes`]). Whoever finds there what the other one has published merges it as that of another device,
//! and remembers it before it takes its place. One of both goes on: whoever finds that the other one has all that it has published
//! itself publishes nothing any more. Other devices keep both heads for as long as neither has what the other one has.
//!
//! Invariants: no head is published before its device's own was looked for by this process, among peers that had just
//! taken in segments; and again after one was not taken. None counts before it was seen, after it was published, that the
//! list of devices and the keys are still those under which it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hypernet_core::head::Head;
use hypernet_core::id::{DeviceId, DeviceTag, RecordKey, VolumeId};
use hypernet_core::identity::log::Device;
use hypernet_core::key::VolumeKeys;
use hypernet_core::limits::DEVICES_MAX;
use hypernet_core::merge::{covers, covers_all};
use hypernet_core::port::PortError;
use hypernet_core::record::{Record, record_key};
use hypernet_core::time::Hlc;
use hypernet_core::tree::Dot;

use super::state::{self, Latest};
use super::{Volume, damaged};
use crate::identity::Identity;

/// How often the mesh is asked while this process runs.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How often a head is published, while others change the keys.
const TRIES: u32 = 4;
/// Epochs in which a head of this device may have been published, from the newest.
const EPOCHS: usize = 16;

/// The newest head of one device that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) device: Device,
    pub(crate) head: Head,
}

impl Found {
    /// Whether a tree with this version vector has all of it.
    pub(crate) fn is_part_of(&self, vector: &[Dot]) -> bool {
        covers_all(vector, &self.head.vector)
    }

    /// Whether two homes of one device have published these, and neither has what the other one has.
    fn is_apart(&self, other: &Self) -> bool {
        let has = |one: &Self, other: &Self| {
            let tag = other.device.id.tag_in(other.head.volume);
            let mut own = other.head.vector.iter().filter(|dot| dot.device.of_device() == tag);
            own.all(|dot| covers(&one.head.vector, *dot))
        };
        self.head.home != other.head.home && !has(self, other) && !has(other, self)
    }

    /// Whether its tree has what another home of the device has done beside this one.
    fn has_twin(&self) -> bool {
        let Head { volume, home, copied, .. } = self.head;
        let tag = self.device.id.tag_in(volume);
        let is_beside = |dot: &Dot| dot.device != tag.of_home(home) && dot.sequence > copied;
        self.head.vector.iter().any(|dot| dot.device.of_device() == tag && is_beside(dot))
    }

    /// For a person who sees a tree that it is not part of.
    pub(crate) fn words(&self) -> String {
        let Device { name, .. } = &self.device;
        let (sequence, when) = (self.head.sequence, when(self.head.time));
        format!("device {name} has head {sequence} of {when}, which is not part of this tree yet")
    }
}

/// A time as people and programs read it.
pub(crate) fn when(time: Hlc) -> String {
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_millis(time.millis.min(YEAR_9999)))
        .to_string()
}

/// Where that notation ends, in milliseconds: a clock may say anything.
pub(crate) const YEAR_9999: u64 = 253_402_300_799_000;

/// The last number of a device in a volume, from any of its homes.
pub(crate) fn sequence_of(dots: &[Dot], device: &DeviceId, volume: VolumeId) -> u64 {
    let tag = device.tag_in(volume);
    dots.iter().filter(|dot| dot.device.of_device() == tag).map(|dot| dot.sequence).max().unwrap_or(0)
}

/// All heads that were found at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// The devices that have told where they publish.
    pub(crate) devices: Vec<Device>,
    /// Those of which nothing is found that tells whether they do.
    pub(crate) untold: Vec<Device>,
    pub(crate) found: Vec<Found>,
    /// Of which device, and why its head is not believed.
    pub(crate) refused: Vec<(Device, String)>,
    /// Where they were looked for.
    pub(crate) places: Vec<RecordKey>,
}

impl Survey {
    /// Devices without a head that is found.
    pub(crate) fn silent(&self) -> impl Iterator<Item = &Device> {
        let has_one = |id| {
            self.found.iter().any(|found| found.device.id == id) || self.refused.iter().any(|(other, _)| other.id == id)
        };
        self.devices.iter().filter(move |device| !has_one(device.id))
    }

    /// Of two heads of one device the newer one counts.
    fn add(&mut self, found: Found) {
        self.refused.retain(|(device, _)| device.id != found.device.id);
        match self.found.iter_mut().find(|other| other.device.id == found.device.id) {
            Some(other) if found.head.sequence > other.head.sequence => *other = found,
            Some(_) => {}
            None => self.found.push(found),
        }
    }

    /// Heads that were found before are kept beside those of other homes of their devices that do not have what they have. Returns
    /// whose those are.
    fn keep_apart(&mut self, before: &[Found]) -> BTreeSet<DeviceId> {
        let mut apart = BTreeSet::new();
        for one in before {
            let mut all = self.found.iter().filter(|found| found.device.id == one.device.id);
            if all.clone().next().is_some() && all.all(|found| found.is_apart(one)) {
                apart.insert(one.device.id);
                self.found.push(one.clone());
            }
        }
        apart
    }

    /// The newest head of a device that any of the heads found has seen.
    pub(crate) fn seen_of(&self, device: &DeviceId) -> u64 {
        self.found.iter().map(|found| sequence_of(&found.head.seen, device, found.head.volume)).max().unwrap_or(0)
    }
}

/// What is known of the heads on the mesh.
#[derive(Default)]
pub(crate) struct Heads {
    /// Of the other devices.
    others: Survey,
    /// When everything that must come before the publication of a head was last done.
    confirmed: Option<Instant>,
    /// Why this home must publish no more.
    superseded: Option<PortError>,
    /// Devices that were seen to publish from two homes, and what to tell of each.
    twice: BTreeMap<DeviceId, String>,
}

/// What to do about a device that runs from two homes.
const ONE_HOME: &str = "stop one of the two agents; in its place make a new device in an empty HN_HOME (`hn device add` here, \
                        `hn device join` there), and copy over what is only there";

impl Heads {
    /// The newest heads of the other devices that are known, for a head of a tree with this version vector. Devices that
    /// no roster lists are left out, so that there is room for all.
    pub(crate) fn seen(&self, volume: VolumeId, vector: &[Dot]) -> Vec<Dot> {
        let newest = |device: &Device| {
            let found = self.others.found.iter().find(|found| found.device.id == device.id);
            let sequence = found.map_or(0, |found| found.head.sequence).max(sequence_of(vector, &device.id, volume));
            Dot { device: device.id.tag_in(volume), sequence }
        };
        self.those_of(newest)
    }

    /// Of what a tree of the device `me` has all of, what counts, as far as a head has room for it.
    pub(crate) fn had_by(&self, counted: Vec<Dot>, me: DeviceTag) -> Vec<Dot> {
        let (mine, others): (Vec<Dot>, Vec<Dot>) = counted.into_iter().partition(|dot| dot.device == me);
        let mut dots = self.last_ones(others);
        dots.extend(mine);
        dots.sort();
        dots
    }

    /// A dot of each device that has one: of those that published last, as many as a head has room for.
    fn those_of(&self, dot: impl Fn(&Device) -> Dot) -> Vec<Dot> {
        self.last_ones(self.others.devices.iter().map(dot).filter(|dot| dot.sequence > 0).collect())
    }

    fn last_ones(&self, mut dots: Vec<Dot>) -> Vec<Dot> {
        let time = |dot: &Dot| {
            let tag = dot.device.of_device();
            let found = self.others.found.iter().find(|found| found.device.id.tag_in(found.head.volume) == tag);
            found.map(|found| found.head.time)
        };
        dots.sort_by_key(|dot| (std::cmp::Reverse(time(dot)), dot.device));
        dots.truncate(DEVICES_MAX - 1);
        dots.sort();
        dots
    }

    /// Where the heads of the others are looked for.
    pub(crate) fn places(&self) -> &[RecordKey] {
        &self.others.places
    }

    /// What was found of the others just now.
    pub(super) fn set_others(&mut self, survey: Survey) {
        self.others = survey;
    }

    /// Devices that publish from two homes at once, in words.
    pub(crate) fn twice(&self) -> Vec<String> {
        self.twice.values().cloned().collect()
    }

    fn note_twice(&mut self, device: &DeviceId, who: &str) {
        let words = || {
            format!("{who} publishes from two homes, which is what a copied HN_HOME does: both are kept; {ONE_HOME}")
        };
        if !self.twice.contains_key(device) {
            let words = words();
            tracing::warn!(%words, "two homes of one device");
            self.twice.insert(*device, words);
        }
    }

    /// A device is not on the roster any more.
    pub(super) fn forget(&mut self, device: &DeviceId) {
        self.twice.remove(device);
        self.others.devices.retain(|other| other.id != *device);
        self.others.found.retain(|found| found.device.id != *device);
    }

    /// Heads of other devices of which a tree with this version vector does not have all.
    pub(crate) fn not_part_of(&self, vector: &[Dot]) -> Vec<Found> {
        self.others.found.iter().filter(|found| !found.is_part_of(vector)).cloned().collect()
    }
}

impl Volume {
    /// An error when this home was found to be older than its device's history, or its device to be off the list: nothing
    /// leads out of that.
    pub(crate) fn still_current(&self) -> Result<(), PortError> {
        self.heads.lock().superseded.clone().map_or(Ok(()), Err)?;
        self.identity.still_listed().map(drop)
    }

    /// The heads of these devices, all asked for at once, in all epochs in which they say that there is one.
    pub(crate) fn find_heads(&self, devices: &[Device]) -> Result<Survey, PortError> {
        let (all, publishers) = (self.identity.all_keys(self.id), self.publishers());
        let mut survey = Survey::default();
        let mut places: Vec<(&Device, VolumeKeys)> = Vec::new();
        let mut keys = Vec::new();
        for device in devices {
            let told = self.identity.head_signers(&device.id, &all);
            if !told.is_empty() {
                survey.devices.push(device.clone());
            } else if !self.identity.has_told(&device.id) {
                survey.untold.push(device.clone());
            }
            for (signer, epoch) in told {
                keys.push(record_key(&signer));
                places.push((device, epoch));
            }
        }
        for ((device, keys), record) in places.into_iter().zip(self.peers.lookup_all(&keys)?) {
            match record.map(|record| Head::open(&record, &device.id, &keys)) {
                // Whoever stood on it would publish for their own devices only.
                Some(Ok(head)) if keys.is_shared() && !Identity::is_shared_epoch(self.id, &head.snapshot_extent) => {
                    survey
                        .refused
                        .push((device.clone(), "what it leads to is not sealed for those who have a part".into()));
                }
                Some(Ok(head)) if publishers.takes(&head) => survey.add(Found { device: device.clone(), head }),
                Some(Ok(_)) => {
                    let why = "it was published after whoever did had no part in the volume any more";
                    survey.refused.push((device.clone(), why.to_owned()));
                }
                Some(Err(error)) => survey.refused.push((device.clone(), error.to_string())),
                None => {}
            }
        }
        survey.places = keys;
        // Whoever was taken off has put something else in the place of what the removal names.
        let named = state::named(&self.db)?.into_iter().chain(self.last_heads());
        for head in named.filter(|head| publishers.is_named(head)) {
            if let Some(device) = devices.iter().find(|device| device.id == head.device) {
                survey.add(Found { device: device.clone(), head });
            }
        }
        Ok(survey)
    }

    /// The newest heads of all but this home: of other devices, and of another home of this one, as far as a tree of this one does
    /// not have all of it.
    pub(super) fn find_others(&self) -> Result<Survey, PortError> {
        let mut survey = self.find_heads(&self.heard_devices())?;
        let vector = state::latest(&self.db)?.map(|latest| latest.root.vector).unwrap_or_default();
        {
            let mut heads = self.heads.lock();
            let mut twice = survey.keep_apart(&heads.others.found);
            // Of what is in this tree already it was told.
            let new = survey.found.iter().filter(|found| !found.is_part_of(&vector) && found.has_twin());
            twice.extend(new.map(|found| found.device.id));
            for device in twice {
                let named = survey.devices.iter().find(|other| other.id == device);
                let who = named.map_or_else(|| "a device".into(), |named| format!("device {}", named.name));
                heads.note_twice(&device, &who);
            }
        }
        let device = self.identity.roster().device(&self.device.id()).cloned();
        let twins = self.twins()?.into_iter().zip(std::iter::repeat(device));
        survey.found.extend(twins.filter_map(|(head, device)| Some(Found { device: device?, head })));
        Ok(survey)
    }

    /// What another home of this device has published and this one's tree does not have.
    fn twins(&self) -> Result<Vec<Head>, PortError> {
        let vector = state::latest(&self.db)?.map(|latest| latest.root.vector).unwrap_or_default();
        let mut twins = state::twins(&self.db)?;
        twins.retain(|twin| !covers_all(&vector, &twin.vector));
        Ok(twins)
    }

    /// Whether there is any of that.
    pub(crate) fn has_twin(&self) -> bool {
        self.twins().is_ok_and(|twins| !twins.is_empty())
    }

    /// Heads of other devices as they were found last.
    pub(crate) fn last_heads(&self) -> Vec<Head> {
        self.heads.lock().others.found.iter().map(|found| found.head.clone()).collect()
    }

    /// Where this device's heads are, or were, from the newest epoch.
    fn own_places(&self) -> Vec<(VolumeKeys, [u8; 32])> {
        // Those of now, of whichever kind, come before others.
        let now = [self.keys(), self.identity.private_keys(self.id)];
        let now = now.iter().map(|keys| VolumeKeys::clone(keys));
        let all = now.chain(self.identity.all_keys(self.id).into_iter().take(EPOCHS));
        let mut places: Vec<(VolumeKeys, [u8; 32])> = Vec::new();
        for keys in all {
            let signer = self.device.head_signer(&keys);
            if places.iter().all(|(_, other)| *other != signer) {
                places.push((keys, signer));
            }
        }
        places
    }

    /// The head in a record of this device.
    pub(super) fn open_own(&self, record: &Record) -> Option<Head> {
        let mut places = self.own_places().into_iter();
        let (keys, _) = places.find(|(_, signer)| *signer == record.signer)?;
        Head::open(record, &self.device.id(), &keys).ok()
    }

    /// Whether this home goes on though another one of its device has published this: it has published something that is not in
    /// there. Then that one is remembered, durably, until it is merged.
    fn keeps_twin(&self, twin: &Head, own: Option<&Head>) -> Result<bool, PortError> {
        let (me, mine) = (self.device.id(), self.tag());
        let published = own.into_iter().flat_map(|own| own.vector.iter()).find(|dot| dot.device == mine);
        if published.is_none_or(|dot| covers(&twin.vector, *dot)) {
            return Ok(false);
        }
        self.heads.lock().note_twice(&me, "this device");
        let vector = state::latest(&self.db)?.map(|latest| latest.root.vector).unwrap_or_default();
        if !covers_all(&vector, &twin.vector) {
            state::add_twin(&self.db, twin.clone(), &vector)?;
        }
        if twin.sequence >= state::next_sequence(&self.db, &me)? {
            // What comes next is to take its place.
            state::spend(&self.db, twin.sequence)?;
        }
        Ok(true)
    }

    /// Whether a record that the mesh has as this device's head is one that this home knows of.
    fn judge(&self, found: &Record) -> Result<(), PortError> {
        let handed = state::handed_out(&self.db)?;
        let mine = handed.as_ref().map_or(0, |record| record.sequence);
        if handed.as_ref() == Some(found) {
            return Ok(());
        }
        let (head, own) = (self.open_own(found), handed.and_then(|record| self.open_own(&record)));
        if let Some(twin) = head.as_ref().filter(|head| head.home != self.identity.home())
            && self.keeps_twin(twin, own.as_ref())?
        {
            return Ok(());
        }
        if found.sequence < mine || (head.is_some() && head == own) {
            // The latter when the keys have changed while it was published.
            return Ok(());
        }
        let time = head.map(|head| format!(" at {}", when(head.time)));
        let which = format!("head {}, which this device published{}", found.sequence, time.unwrap_or_default());
        let what = if found.sequence > mine {
            format!("this home is older than {which}")
        } else {
            format!("{which}, is not the one that this home published")
        };
        let error = PortError::Superseded(format!(
            "{what}: it was probably restored from a copy, or runs twice; nothing more is published from here, and {ONE_HOME}"
        ));
        tracing::error!(%error, "stopping the upload for good");
        self.heads.lock().superseded = Some(error.clone());
        Err(error)
    }

    /// Asks for this device's own head and for those of the others.
    fn look_at_heads(&self) -> Result<(), PortError> {
        let own: Vec<_> = self.own_places().iter().map(|(_, signer)| record_key(signer)).collect();
        for found in self.peers.lookup_all(&own)?.into_iter().flatten() {
            self.judge(&found)?;
        }
        let survey = self.find_others()?;
        self.heads.lock().set_others(survey);
        Ok(())
    }

    /// What [`Self::confirm`] asks, for whoever wants to know and has no head to publish. The identity is told: it is to
    /// be found by its phrase though nothing was written yet.
    pub(crate) fn look_around(&self) -> Result<(), PortError> {
        self.peers.settle();
        // Without it nobody is there to be asked.
        self.peers.plan()?;
        let told = self.identity.confirm();
        if let Err(error @ PortError::Superseded(_)) = told {
            return Err(error);
        }
        self.tend()?;
        if self.id == self.identity.keystore().keystore().main {
            self.put_offers()?;
        }
        self.look_at_heads()?;
        told.map(drop)
    }

    /// Makes sure, unless it has lately, that the roster lists this device and that the mesh has no head of it that this
    /// home does not know.
    pub(super) fn confirm(&self) -> Result<(), PortError> {
        {
            let heads = self.heads.lock();
            // Whatever was made sure of before: nothing leads out of that.
            heads.superseded.clone().map_or(Ok(()), Err)?;
            if heads.confirmed.is_some_and(|when| when.elapsed() < LOOK_EVERY) {
                return Ok(());
            }
        }
        self.tell()?;
        self.identity.confirm()?;
        self.tend()?;
        self.look_at_heads()?;
        self.heads.lock().confirmed = Some(Instant::now());
        Ok(())
    }

    /// The next head is published only when that was made sure again.
    pub(crate) fn confirm_again(&self) {
        self.heads.lock().confirmed = None;
    }

    /// Where its last heads are, or its first will be, is to be told.
    pub(crate) fn tell(&self) -> Result<(), PortError> {
        self.identity.tell(self.id, state::last_signers(&self.db)?);
        Ok(())
    }

    /// Whether who looks for the heads of this device is told of where this one is.
    fn is_told(&self, record: &Record) -> bool {
        let (me, keys) = (self.device.id(), self.keys());
        let told = self.identity.own_beacon(&me).and_then(|beacon| beacon.head_signer(&me, &keys));
        told == Some(record.signer)
    }

    /// The newest head of this device is found by those who know the keys of now: an epoch in which it was published may have been
    /// begun by somebody whose word counts no more, and who comes later does not have it.
    pub(super) fn publish_again(&self, latest: &Latest) -> Result<(), PortError> {
        let mine = latest.head.device == self.device.id();
        let Some(handed) = state::handed_out(&self.db)?.filter(|_| mine) else { return Ok(()) };
        let keys = self.keys();
        let is_current = handed.signer == self.device.head_signer(&keys);
        // What is not for others is not published for them.
        let is_other = keys.is_shared() && !Identity::is_shared_epoch(self.id, &latest.head.snapshot_extent);
        if is_current || is_other || self.may_write().is_err() || handed.sequence != latest.head.sequence {
            return Ok(());
        }
        self.confirm()?;
        let plan = self.peers.settled_plan()?;
        tracing::info!(volume = %self.id.short(), head = latest.head.sequence, "published again, under the keys of now");
        let head = self.publish_head(latest.head.clone(), usize::from(plan.n.saturating_sub(plan.k)) + 1)?;
        state::put_latest(&self.db, &Latest { head, ..latest.clone() })
    }

    /// Publishes a head of this device so that it counts, and returns it as it was published. One that too few took may
    /// have met a newer one there, so the mesh is asked again; and one that came when the keys had changed, or after this
    /// device was taken off the list, would be found by nobody.
    pub(super) fn publish_head(&self, head: Head, wanted: usize) -> Result<Head, PortError> {
        for _ in 0..TRIES {
            // Whatever the keys have become meanwhile: whoever was taken off has none of those by which it is sealed.
            self.seal_off()?;
            let keys = self.keys();
            if keys.is_shared() && !Identity::is_shared_epoch(self.id, &head.snapshot_extent) {
                // It was begun before others got a part in the volume.
                let what =
                    "others have got a part in this volume meanwhile: what waits is published with the next sync";
                return Err(PortError::Unreachable(what.into()));
            }
            let record = head.clone().publish(&self.device, &keys).map_err(damaged)?;
            state::hand_out(&self.db, &record)?;
            // Whenever the identity says next where the heads are: when another era has begun, too.
            self.tell()?;
            let published = self.peers.publish(record.clone(), wanted, "the head");
            if published.is_err() {
                self.confirm_again();
                // What else may fail here is a reason not to be taken by enough, too, and the first one is told.
                let _ = self.look_around();
                self.still_current()?;
            }
            published?;
            if self.identity.is_current(wanted)? && self.is_told(&record) && self.is_borne(&record, wanted)? {
                state::acknowledge(&self.db, &record)?;
                return self.open_own(&record).ok_or_else(|| damaged("the head that was published does not open"));
            }
            self.confirm_again();
            self.confirm()?;
        }
        Err(PortError::Unreachable("other devices change the list of devices all the time; try again".into()))
    }
}

#[cfg(test)]
mod tests;
