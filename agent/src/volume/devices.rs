//! The devices of the identity, as the roster lists them, and taking one off.
//!
//! Invariant: without force no device is taken off whose head is the only way to something: what it published last must
//! be part of a head that stays. What it publishes while it is taken off is told, and can be recovered by its name.

use hypernet_core::head::Head;
use hypernet_core::id::DeviceId;
use hypernet_core::identity::log::{Device, NameError, Roster};
use hypernet_core::key::RecoveryKeys;
use hypernet_core::port::PortError;
use hypernet_core::share::members::Role;
use hypernet_core::time::Hlc;
use std::sync::Arc;

use os_display::Quotable;
use thiserror::Error;

use super::Volume;
use super::heads::{Found, Survey, when};
use super::state::{self, Latest};
use crate::share::hearing::Known;

/// A device and what it published last.
pub(crate) struct Listed {
    pub(crate) device: Device,
    /// When it came onto the list.
    pub(crate) enrolled: Hlc,
    pub(crate) head: Option<Head>,
    pub(crate) is_this: bool,
    /// Whether all of that head is in this device's tree.
    pub(crate) is_here: bool,
}

/// Why a device stays on the list.
#[derive(Debug, Error)]
pub(crate) enum RevokeError {
    /// The mesh did not do its part.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No device is called so, or several are.
    #[error(transparent)]
    Device(#[from] NameError),
    /// It would be back with its next head.
    #[error("{0} is this device itself")]
    This(String),
    /// Nothing else leads to what it published.
    #[error(
        "head {sequence} of {name}, of {time}, in {place}, is not part of what another device of this identity has published: \
         nothing of it would lead to that"
    )]
    Only {
        /// The device.
        name: String,
        /// Its head.
        sequence: u64,
        /// Of when.
        time: String,
        /// In which volume, for people.
        place: String,
        /// That was taken out of the tree, so that nothing in it is moved on to or published.
        is_out: bool,
    },
    /// It may have published what is not found now.
    #[error("no head of {0} is found now: if it has one, nothing would lead to it")]
    Unseen(String),
    /// The phrase is of somebody else.
    #[error("these words, with this passphrase or without, are not those of this identity")]
    Words,
}

/// A device that is on the list no more.
pub(crate) struct Revoked {
    pub(crate) device: Device,
    /// Devices that were on the list as far as was known here, and are not any more either.
    pub(crate) with: Vec<Device>,
    /// Devices that it has brought onto the list, and that are on it still.
    pub(crate) brought: Vec<Device>,
    /// A head that it published before it knew, and that nobody had seen when it was taken off.
    pub(crate) late: Option<Found>,
}

/// What the words have put right.
pub(crate) struct Renewed {
    /// This device had been taken off the list.
    pub(crate) is_back: bool,
    /// All that are on the list now.
    pub(crate) devices: Vec<Device>,
}

/// A device that is gone and is called so, or why none is meant.
pub(super) fn gone_or<'a>(roster: &'a Roster, name: &str, error: NameError) -> Result<&'a Device, NameError> {
    match (roster.named_gone(name), error) {
        (Err(NameError::Unknown { .. }), error) => Err(error),
        (found, NameError::Unknown { .. }) => found,
        (_, error) => Err(error),
    }
}

impl Volume {
    /// All devices that the roster lists, with their heads.
    pub(crate) fn devices(&self) -> Result<Vec<Listed>, PortError> {
        let roster = self.identity.look_well()?;
        let survey = self.find_heads(&roster.devices)?;
        let vector = state::latest(&self.db)?.map(|latest| latest.root.vector).unwrap_or_default();
        let listed = |device: Device| {
            let found = survey.found.iter().find(|found| found.device.id == device.id);
            let is_here = found.is_some_and(|found| found.is_part_of(&vector));
            let head = found.map(|found| found.head.clone());
            let enrolled = self.identity.enrolled(&device.id).unwrap_or_default();
            Listed { enrolled, is_this: device.id == self.device.id(), head, is_here, device }
        };
        Ok(roster.devices.into_iter().map(listed).collect())
    }

    /// Takes a device off the roster; by the phrase also against what that device has signed or put in the way.
    ///
    /// `others` gives the other volumes in which it may have published something, as far as is known then.
    pub(crate) fn revoke_device(
        &self,
        others: &dyn Fn() -> Result<Vec<Arc<Self>>, PortError>,
        name: &str,
        force: bool,
        phrase: Option<&RecoveryKeys>,
    ) -> Result<Revoked, RevokeError> {
        if phrase.is_some_and(|phrase| phrase.id() != self.identity.id()) {
            return Err(RevokeError::Words);
        }
        let before = self.identity.roster();
        let roster = match (self.identity.look_well(), phrase) {
            (Err(error), Some(_)) => {
                tracing::warn!(%error, "the phrase is to mend it");
                self.identity.roster()
            }
            (roster, _) => roster?,
        };
        // The words also take off whom somebody has taken off already: what that one had put in the way stays until then.
        let found = roster.named(name);
        let device = match phrase {
            Some(_) => found.or_else(|error| gone_or(&roster, name, error))?.clone(),
            None => found?.clone(),
        };
        if device.id == self.device.id() {
            return Err(RevokeError::This(device.name));
        }
        let others = others()?;
        let survey = self.find_heads(&roster.devices)?;
        if !force && roster.device(&device.id).is_some() {
            if !survey.found.iter().any(|found| found.device.id == device.id) {
                return Err(RevokeError::Unseen(device.name));
            }
            self.may_go(&roster, &device, &survey)?;
        }
        let mut surveys = vec![survey];
        for other in &others {
            let survey = other.find_heads(&roster.devices)?;
            if !force && roster.device(&device.id).is_some() {
                other.may_go(&roster, &device, &survey)?;
            }
            surveys.push(survey);
        }
        match phrase {
            Some(phrase) => self.identity.revoke_by_phrase(phrase, &device.id)?,
            None => self.identity.revoke(&device.id)?,
        }
        let now = self.identity.roster();
        let mut with: Vec<Device> = Vec::new();
        for other in before.devices.into_iter().chain(roster.devices) {
            let is_new = other.id != device.id && with.iter().all(|known| known.id != other.id);
            if is_new && now.device(&other.id).is_none() {
                with.push(other);
            }
        }
        for gone in with.iter().chain([&device]) {
            self.heads.lock().forget(&gone.id);
            others.iter().for_each(|other| other.heads.lock().forget(&gone.id));
        }
        // It publishes and then looks whether it still may; here it is the other way round. So one of the two sees the other.
        let newest = |survey: &Survey| survey.found.iter().find(|found| found.device.id == device.id).cloned();
        let mut late = None;
        for (volume, before) in std::iter::once(self).chain(others.iter().map(AsRef::as_ref)).zip(&surveys) {
            let seen = newest(before).map_or(0, |found| found.head.sequence);
            let now = newest(&volume.find_heads(std::slice::from_ref(&device))?);
            late = late.or(now.filter(|found| found.head.sequence > seen));
        }
        let brought = self.identity.brought_by(&device.id);
        Ok(Revoked { device, with, brought, late })
    }

    /// Begins an era by the phrase, comes back onto the list, and puts up another signpost; takes nobody off.
    pub(crate) fn renew(&self, phrase: &RecoveryKeys) -> Result<Renewed, RevokeError> {
        if phrase.id() != self.identity.id() {
            return Err(RevokeError::Words);
        }
        if let Err(error) = self.identity.look_well() {
            tracing::warn!(%error, "the phrase is to mend it");
        }
        let is_back = self.identity.renew_by_phrase(phrase)?;
        Ok(Renewed { is_back, devices: self.identity.roster().devices })
    }

    /// Whether a head of another device of this identity, which stays, leads to all that this one published: the one that is
    /// stood on here, or one that is found.
    fn may_go(&self, roster: &Roster, device: &Device, survey: &Survey) -> Result<(), RevokeError> {
        let Some(found) = survey.found.iter().find(|found| found.device.id == device.id) else {
            // It may say that it publishes here, and another may have seen a head of it.
            let has_one = survey.silent().any(|silent| silent.id == device.id) || survey.seen_of(&device.id) > 0;
            return if has_one { Err(RevokeError::Unseen(device.name.clone())) } else { Ok(()) };
        };
        // Of whom a removal has left only to read, or nothing, that is taken which it names, whoever leaves the list. What was not
        // heard yet may be that they write again.
        let may_not_write = |known: Known| known.role(&self.identity.id()) < Some(Role::Writer);
        if self.known_share().is_some_and(may_not_write) && !self.is_behind() {
            return Ok(());
        }
        let published = found.head.sequence.max(survey.seen_of(&device.id));
        let stays = |id: &DeviceId| *id != device.id && roster.device(id).is_some();
        let latest = state::latest(&self.db)?;
        let share = self.share();
        // In what is out of the tree this device publishes nothing of its own beside the head of somebody else that it stands on.
        let is_out = share.as_ref().is_some_and(|share| share.left.is_out);
        // A head of the device that leaves leads nowhere when it is gone, and neither does one of a device that is gone already.
        let is_of_others = |id: &DeviceId| *id != device.id && self.publishers().device(id).is_some();
        let is_here = latest.is_some_and(|Latest { head, root, .. }| {
            let leads = stays(&head.device) || is_out && is_of_others(&head.device);
            leads && found.is_part_of(&root.vector)
        });
        let is_there =
            || survey.found.iter().any(|other| stays(&other.device.id) && found.is_part_of(&other.head.vector));
        if found.head.sequence >= published && (is_here || is_there()) {
            return Ok(());
        }
        let (name, time) = (device.name.clone(), when(found.head.time));
        let place = match share {
            Some(share) => format!("{} (volume {})", share.name.quote(), self.id.short()),
            None if self.id == self.identity.keystore().keystore().main => "the main volume".into(),
            None => format!("volume {}", self.id.short()),
        };
        Err(RevokeError::Only { name, sequence: published, time, place, is_out })
    }
}
