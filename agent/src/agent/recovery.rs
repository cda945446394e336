//! Recovering: first the identity, by the phrase or by the directory of another device, then the newest head.
//!
//! A new device is made of three files, the keystore last. Where it is there, the identity was found: what else a
//! recovery that was broken off has to do, it does without being told by what. Nothing of a device is on the mesh before
//! it is written down here.

use std::path::PathBuf;
use std::sync::Arc;

use hypernet_core::identity::phrase::Phrase;
use hypernet_core::identity::share::Shares;
use hypernet_core::key::{DeviceKeys, RecoveryKeys};
use hypernet_core::port::PortError;
use hypernet_fs::vfs::ROOT;
use hypernet_sdk::api;
use parking_lot::MutexGuard;

use super::{Agent, Own, port_failure};
use crate::config::{Config, Home};
use crate::failure::{Failure, Kind};
use crate::identity::Identity;
use crate::identity::arrival::{self, Arrived};
use crate::identity::known::Known;
use crate::keystore::{KeystoreFile, Unlock, random_secret};
use crate::peers::Peers;
use crate::setup::write_device;
use crate::volume::heads::{Found, when};
use crate::volume::recover::{RecoverError, Recovered};

impl Agent {
    /// What helps a recovery that found too little.
    fn how_to_recover(&self) -> &'static str {
        if self.config.lock().bootstrap.is_empty() && self.memory.lock().is_empty() {
            "no peer is known: run the command again with --join LINK, a link that `hn invite` prints on any machine of \
             that mesh"
        } else {
            "nothing is lost: `hn recover` tries again when more peers are there; --join LINK, of `hn invite` on another \
             machine, names some that are"
        }
    }

    /// More peers do not help where the disk must be seen to, or what was found is no good.
    pub(super) fn not_yet(&self, error: PortError) -> Failure {
        match error {
            PortError::DiskFull(_) | PortError::Disk(_) => port_failure(error),
            PortError::Damaged(_) => Failure::new(Kind::Data, format!("cannot recover: {error}"))
                .hint("what the mesh has of this identity is not as it must be: a newer version may understand it"),
            PortError::NoPart(_) | PortError::Newer(_) => port_failure(error),
            PortError::Superseded(_) => Failure::new(Kind::Data, format!("cannot recover here: {error}"))
                .hint("begin again in an empty HN_HOME: nothing was written here yet"),
            error @ (PortError::Unreachable(_) | PortError::Deadline(_) | PortError::NotFound(_)) => {
                Failure::new(Kind::TryAgain, format!("cannot recover yet: {error}")).hint(self.how_to_recover())
            }
        }
    }

    /// Looks for the identity, and then for the newest head or for that of one device, and makes it this device's tree.
    /// Blocks.
    pub(crate) fn recover(
        &self,
        request: &api::RecoverRequest,
        say: &mut dyn FnMut(String),
    ) -> Result<api::Recovered, Failure> {
        let needs_none = || {
            Failure::new(Kind::Config, "this agent has its state and needs no recovery")
                .hint("recovering begins in an empty HN_HOME: `hn recover`")
        };
        if !self.config.lock().recovering {
            return Err(needs_none());
        }
        let _alone = self.alone(say);
        self.open_found()?;
        self.is_meant(request)?;
        if !self.config.lock().recovering {
            // Whoever was waited for has done it, and what was written since stays.
            let found = self.own()?.volume.recovered_before().map_err(|error| self.not_yet(error))?;
            return found.map(|found| self.told(found)).ok_or_else(needs_none);
        }
        if self.with_volume().is_none() {
            self.arrive(request, say)?;
        }
        let own = self.own()?;
        let found = match rooted(own)? {
            Some(found) => Some(found),
            None => match own.volume.recover(request.device.as_deref(), say) {
                // Into an empty tree comes what is found later.
                Err(RecoverError::NoHead(..)) if request.empty && request.device.is_none() => None,
                found => {
                    let found = found.map_err(|error| self.not_found(error, request))?;
                    own.vfs
                        .set_root(own.volume.id, found.root.inode.clone())
                        .map_err(|error| Failure::new(Kind::Io, format!("cannot set up the working tree: {error}")))?;
                    Some(found)
                }
            },
        };
        {
            let mut config = self.config.lock();
            let done = Config { recovering: false, ..config.clone() };
            // Also here: what is not on disk must not count as done, or the next attempt would be refused.
            done.save(&self.home)?;
            *config = done;
        }
        own.start_engines()?;
        let warnings = || self.arrival_warning.lock().iter().cloned().collect();
        Ok(found.map_or_else(
            || api::Recovered { warnings: warnings(), ..api::Recovered::default() },
            |found| self.told(found),
        ))
    }

    fn not_found(&self, error: RecoverError, request: &api::RecoverRequest) -> Failure {
        match error {
            RecoverError::Port(error) => self.not_yet(error),
            RecoverError::Device(error) => Failure::new(Kind::Usage, error.to_string())
                .hint("run the command again with one of these, or without --device for the newest head"),
            RecoverError::NoHead(..) if request.device.is_some() => self.not_yet(PortError::NotFound(error.to_string())),
            RecoverError::NoHead(..) => Failure::new(Kind::TryAgain, format!("cannot recover yet: {error}")).hint(
                "bring more of the mesh's peers up, then run the same command again; if nothing was ever synced, `hn recover --empty` \
                 begins with an empty directory, into which comes what is found later",
            ),
        }
    }

    /// What a command before has found may not be what this one asks for.
    fn is_meant(&self, request: &api::RecoverRequest) -> Result<(), Failure> {
        let (Some(own), Some(phrase)) = (self.with_volume(), &request.phrase) else { return Ok(()) };
        if keys_of(phrase)?.id() == own.volume.identity.id() {
            return Ok(());
        }
        Err(Failure::new(Kind::Usage, "an identity with other words was found here by a command before")
            .hint("recover that of these words in an empty HN_HOME"))
    }

    fn told(&self, found: Recovered) -> api::Recovered {
        api::Recovered {
            devices: found.devices as u64,
            head_age_seconds: found.head_age_seconds,
            head_device: found.head_device,
            head_sequence: found.head_sequence,
            others: found.others.iter().map(other_head).collect(),
            warnings: self.arrival_warning.lock().iter().cloned().chain(found.warnings).collect(),
        }
    }

    /// Of whoever finds the identity: one at a time, for a command that was broken off goes on in here, and each makes a
    /// device of its own. Waits for the one before.
    pub(super) fn alone(&self, say: &mut dyn FnMut(String)) -> MutexGuard<'_, ()> {
        self.arriving.try_lock().unwrap_or_else(|| {
            say("waiting for a command from before, which this agent is still at".into());
            self.arriving.lock()
        })
    }

    /// Opens what was written down and not opened, as where the disk was full. To be called by whoever is [alone](Self::alone).
    pub(super) fn open_found(&self) -> Result<(), Failure> {
        if self.with_volume().is_some() || !self.home.keystore().exists() {
            return Ok(());
        }
        let unlock = self.unlock.lock().clone();
        self.open(Arc::new(KeystoreFile::load(&self.home.keystore(), &unlock)?))
    }

    /// Writes down all that makes a device, and opens it.
    pub(super) fn settle_down(&self, arrived: Arrived, device: &DeviceKeys) -> Result<(), Failure> {
        if self.with_volume().is_some() {
            return Err(Failure::new(Kind::Config, "this agent is a device of its identity already")
                .hint("`hn device list` shows it; a second one begins in an empty HN_HOME"));
        }
        let Arrived { keystore, known, warning } = arrived;
        let file = KeystoreFile::new(self.home.keystore(), self.unlock.lock().clone(), keystore);
        write_device(&self.home, &file, device, &known)?;
        *self.arrival_warning.lock() = warning;
        self.open(Arc::new(file))
    }

    /// Finds the identity and comes onto its list of devices.
    fn arrive(&self, request: &api::RecoverRequest, say: &mut dyn FnMut(String)) -> Result<(), Failure> {
        let name = self.config.lock().device_name.clone();
        let peers = Arc::new(Peers::new(self.node.clone()));
        let device = DeviceKeys::new(random_secret()?);
        let arrived = match (&request.phrase, &request.from) {
            (Some(phrase), _) => {
                arrival::by_phrase(&peers, &keys_of(phrase)?, &device, &name, request.without_keystore, say)
            }
            (None, Some(from)) => {
                let other = Home::new(from.clone());
                let unlock = self.unlock.lock().clone();
                let identity = of_device(&other, self.home.identity(), &unlock, peers)?;
                identity.enrol(&device, &name, say)
            }
            (None, None) => {
                return Err(Failure::new(Kind::Usage, "the identity has not been found yet")
                    .hint("`hn recover` asks for the phrase"));
            }
        };
        self.settle_down(arrived.map_err(|error| self.not_yet(error))?, &device)?;
        // Who needed them to get here needs them no more.
        *self.shares.lock() = Shares::default();
        say("coming onto the list of devices".into());
        // It tells where its heads are when it has one: until then nobody need look for it.
        self.own()?.volume.identity.confirm().map(drop).map_err(|error| self.not_yet(error))
    }
}

/// The identity by the directory of a device that is on the list, or a copy of it, which is left as it is. What becomes
/// known meanwhile goes into `file`.
fn of_device(other: &Home, file: PathBuf, unlock: &Unlock, peers: Arc<Peers>) -> Result<Identity, Failure> {
    let unlock = match KeystoreFile::sealed_by(&other.keystore())? {
        api::SealedBy::KeyFile => &Unlock::KeyFile,
        api::SealedBy::Keyring => &Unlock::Keyring,
        api::SealedBy::Passphrase => unlock,
    };
    let keystore = KeystoreFile::load(&other.keystore(), unlock)?;
    let device = keystore.load_device(&other.device())?;
    let known = Known::load(&other.identity(), &keystore.keystore().identity)?;
    Identity::new(known, file, Arc::new(keystore.untouched()), device, peers)
}

/// What the words of a person yield.
pub(super) fn keys_of(phrase: &api::PhraseInput) -> Result<RecoveryKeys, Failure> {
    Ok(words_of(phrase.words())?.keys(phrase.passphrase()))
}

/// The words of a person.
pub(crate) fn words_of(words: &str) -> Result<Phrase, Failure> {
    Phrase::parse(words).map_err(|error| {
        Failure::new(Kind::Usage, error.to_string()).hint("look at the paper again; nothing was changed")
    })
}

pub(super) fn other_head(found: &Found) -> api::OtherHead {
    api::OtherHead {
        device: found.device.name.clone(),
        device_id: found.device.id.to_string(),
        sequence: found.head.sequence,
        time: when(found.head.time),
    }
}

/// What an earlier attempt found, if it came as far as the working tree and not as far as the configuration. The tree
/// and the index are of that head; another one would take the index away from under the tree. Nobody else can have
/// written to the tree: it is not mounted before the recovery has ended.
fn rooted(own: &Own) -> Result<Option<Recovered>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Kind::Io, format!("cannot read what is here: {error}"));
    // A tree that was never published has a root that is only local.
    let state = own.vfs.state_xattr(ROOT).map_err(|error| failed(&error))?;
    if state == "local" {
        return Ok(None);
    }
    own.volume.recovered_before().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests;
