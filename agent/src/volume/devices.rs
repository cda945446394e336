//! The devices of the identity, as the roster lists them, and taking one off.
//!
//! Invariant: without force no device is taken off whose head is the only way to something: what it published last must
//! be part of a head that stays.

use hypernet_core::head::Head;
use hypernet_core::port::PortError;
use hypernet_core::roster::{Device, Roster, RosterError};
use thiserror::Error;

use super::Volume;
use super::heads::{Survey, sequence_of, when};
use super::state;

/// A device and what it published last.
pub(crate) struct Listed {
    pub(crate) device: Device,
    pub(crate) head: Option<Head>,
    pub(crate) is_this: bool,
    /// Whether all of that head is in this device's tree.
    pub(crate) is_here: bool,
}

/// Why a device stays on the list.
#[derive(Debug, Error)]
pub(crate) enum RemoveError {
    /// The mesh did not do its part.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No device is called so, or several are.
    #[error(transparent)]
    Device(#[from] RosterError),
    /// It would be back with its next head.
    #[error("{0} is this device itself")]
    This(String),
    /// Nothing else leads to what it published.
    #[error(
        "head {sequence} of {name}, of {time}, is not part of what another device has published: nothing would lead to it"
    )]
    Only {
        /// The device.
        name: String,
        /// Its head.
        sequence: u64,
        /// Of when.
        time: String,
    },
    /// It may have published what is not found now.
    #[error("no head of {0} is found now: if it has one, nothing would lead to it")]
    Unseen(String),
}

impl Volume {
    fn listed(&self) -> Result<Roster, PortError> {
        self.roster_well()?
            .ok_or_else(|| PortError::NotFound("the mesh has no list of devices: none has synced anything yet".into()))
    }

    /// All devices that the roster lists, with their heads.
    pub(crate) fn devices(&self) -> Result<Vec<Listed>, PortError> {
        let Some(roster) = self.roster_well()? else { return Ok(Vec::new()) };
        let survey = self.find_heads(&roster.devices)?;
        let vector = state::latest(&self.db)?.map(|latest| latest.root.vector).unwrap_or_default();
        let listed = |device: Device| {
            let found = survey.found.iter().find(|found| found.device.id == device.id);
            let is_here = found.is_some_and(|found| found.is_part_of(&vector));
            let head = found.map(|found| found.head.clone());
            Listed { is_this: device.id == self.device.id(), head, is_here, device }
        };
        Ok(roster.devices.into_iter().map(listed).collect())
    }

    /// Takes a device off the roster.
    pub(crate) fn remove_device(&self, name: &str, force: bool) -> Result<Device, RemoveError> {
        let roster = self.listed()?;
        let device = roster.named(name)?.clone();
        if device.id == self.device.id() {
            return Err(RemoveError::This(device.name));
        }
        if !force {
            let survey = self.find_heads(&roster.devices)?;
            self.may_go(&roster, &device, &survey)?;
        }
        let record = roster.without(&device.id).publish(&self.identity)?;
        self.peers.publish(record, self.peers.keepers(), "the list of devices")?;
        self.heads.lock().forget(&device.id);
        Ok(device)
    }

    /// Whether another device's head, which stays, leads to all that this one published.
    fn may_go(&self, roster: &Roster, device: &Device, survey: &Survey) -> Result<(), RemoveError> {
        let Some(found) = survey.found.iter().find(|found| found.device.id == device.id) else {
            return Err(RemoveError::Unseen(device.name.clone()));
        };
        let published = found.head.sequence.max(survey.seen_of(&device.id));
        let is_in_another = state::latest(&self.db)?.is_some_and(|latest| {
            latest.head.device != device.id
                && roster.devices.iter().any(|other| other.id == latest.head.device)
                && sequence_of(&latest.root.vector, &device.id) >= published
        });
        if is_in_another {
            return Ok(());
        }
        let time = when(found.head.time);
        Err(RemoveError::Only { name: device.name.clone(), sequence: published, time })
    }
}
