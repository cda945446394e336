//! The lists of devices of other people, as this device has seen them: what was taken off one of them stays off it here,
//! whoever keeps the records and shows an old one.
//!
//! Invariant: a list that is kept only grows. They are sealed for this device, and their names say nothing: whom somebody
//! knows is not to be read where the keystore is locked.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use hypernet_core::id::IdentityId;
use hypernet_core::identity::log::Log;
use hypernet_core::identity::posting::Posting;
use hypernet_core::key::DeviceKeys;
use hypernet_core::limits::ROSTER_MAX;
use hypernet_core::port::PortError;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::volume::damaged;
use crate::{files, sealing};

const NAME_CONTEXT: &str = "hypernet 2026 name of a list of devices v1";
/// Lists that are kept, and bytes of all of them; those that have not changed for longest make room.
const LISTS_MAX: usize = 256;
const BYTES_MAX: u64 = 16 << 20;
/// What sealing adds, at most.
const SEAL_MAX: u64 = 16 << 10;

/// Those of one device.
pub(crate) struct Lists<'a> {
    dir: PathBuf,
    device: &'a DeviceKeys,
}

impl<'a> Lists<'a> {
    /// In a directory that is made when there is one to keep.
    pub(crate) fn new(dir: PathBuf, device: &'a DeviceKeys) -> Self {
        Self { dir, device }
    }

    fn path(&self, identity: &IdentityId) -> PathBuf {
        let key = Zeroizing::new(blake3::derive_key(NAME_CONTEXT, self.device.seed().expose()));
        let name = blake3::keyed_hash(&key, identity.as_bytes());
        self.dir.join(HEXLOWER.encode(&name.as_bytes()[..16]))
    }

    /// What is known of somebody's devices. One that cannot be read is as good as none.
    pub(crate) fn known(&self, identity: &IdentityId) -> Option<Posting> {
        let path = self.path(identity);
        let len = fs::metadata(&path).ok()?.len();
        let read = || -> Result<Log, PortError> {
            if len > ROSTER_MAX as u64 + SEAL_MAX {
                return Err(damaged("it is too long"));
            }
            let sealed = fs::read(&path).map_err(|error| PortError::Disk(error.to_string()))?;
            let plain = sealing::open(&self.device.opening_key(), &sealed).map_err(damaged)?;
            Log::decode(&plain, identity).map_err(damaged)
        };
        let found = read();
        let log = found.inspect_err(|error| tracing::warn!(%error, "what was known of a contact's devices is lost"));
        Some(Posting::new(log.ok()?))
    }

    /// Keeps what is known of somebody's devices now, where there was `before`.
    pub(crate) fn keep(&self, found: &Posting, before: Option<&Posting>) -> Result<(), PortError> {
        let log = found.log();
        if before.is_some_and(|before| before.log() == log) {
            return Ok(());
        }
        let recipient = sealing::recipient(&self.device.opening_key()).map_err(damaged)?;
        let sealed = sealing::seal(&[recipient], &log.encode()).map_err(damaged)?;
        let on_disk = |failure: Failure| PortError::Disk(failure.to_string());
        files::private_dir(&self.dir).map_err(on_disk)?;
        files::write_secret(&self.path(&log.identity()), &sealed).map_err(on_disk)?;
        make_room(&self.dir, LISTS_MAX, BYTES_MAX).map_err(|error| PortError::Disk(error.to_string()))
    }
}

fn make_room(dir: &Path, count: usize, bytes: u64) -> std::io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let about = entry.metadata()?;
        all.push((about.modified()?, entry.path(), about.len()));
    }
    all.sort_by(|one, other| other.cmp(one));
    let mut total = 0;
    for (number, (_, path, len)) in all.into_iter().enumerate() {
        total += len;
        if number >= count || total > bytes {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn those_that_have_not_changed_for_longest_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let there = || {
            let names =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        for (age, name) in ["newest", "second", "third", "oldest"].iter().enumerate() {
            let path = dir.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 - age as u64);
            fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
        }
        make_room(dir.path(), 3, 1_000).unwrap();
        assert_eq!(there(), ["newest", "second", "third"]);
        make_room(dir.path(), 3, 250).unwrap();
        assert_eq!(there(), ["newest", "second"]);
    }
}
