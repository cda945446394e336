//! The volumes of the tree: which there are, and making a directory one of its own.
//!
//! What a new volume begins with is written down before its root becomes one, so that a crash in between leaves a volume
//! that nothing leads to, and nothing else.

use std::time::{Duration, Instant};

use hypernet_fs::vfs::{Rooted, VfsError};
use hypernet_sdk::api;

use super::{Agent, Own, port_failure};
use crate::failure::{Failure, Kind};
use crate::keystore::random_volume;
use crate::status::head_status;
use crate::volume::Volume;
use crate::volume::state::{self, Origin};

/// A sync that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);

pub(super) fn of_tree(error: &VfsError) -> Failure {
    match error {
        VfsError::NotDirectory => Failure::new(Kind::Usage, "only a directory can become a volume"),
        VfsError::LinkedElsewhere(ino) => {
            Failure::new(Kind::Usage, format!("inode {ino} has names both in this directory and outside of it"))
                .hint(format!("`find MOUNT -inum {ino}` shows them: leave one of the two, or make a copy"))
        }
        VfsError::NoSpace => Failure::new(Kind::Io, error.to_string()).hint("free some space on this disk"),
        VfsError::ReadOnlyVolume => {
            Failure::new(Kind::Permission, "this directory is shared with you for reading only")
                .hint("whoever shares it can let you write: `hn share DIR --with YOU --write`")
        }
        other => Failure::new(Kind::Io, other.to_string()),
    }
}

/// Notes what a volume begins with, of which nothing was published yet.
fn put_origin(volume: &Volume, above: &Volume) -> Result<(), Failure> {
    let (vector, links) = match state::latest(&above.db).map_err(port_failure)? {
        Some(latest) => (latest.root.vector, latest.root.links),
        None => {
            let origin = state::origin(&above.db).map_err(port_failure)?;
            origin.map(|origin| (origin.vector, origin.links)).unwrap_or_default()
        }
    };
    let head = state::next_sequence(&above.db, &above.device.id()).map_err(port_failure)? - 1;
    state::put_origin(&volume.db, &Origin { head, vector, links, ..Origin::default() }).map_err(port_failure)
}

/// The same of one that was made before the last stop, which may have come before all of it was noted.
pub(super) fn note_origin(own: &Own, rooted: &Rooted) -> Result<(), Failure> {
    let volume = own.volumes.of(rooted.volume).map_err(port_failure)?;
    let is_new = state::latest(&volume.db).map_err(port_failure)?.is_none()
        && state::origin(&volume.db).map_err(port_failure)?.is_some();
    match rooted.above {
        Some(above) if is_new => put_origin(&volume, &*own.volumes.of(above).map_err(port_failure)?),
        _ => Ok(()),
    }
}

fn info(own: &Own, rooted: Rooted) -> Result<api::VolumeInfo, Failure> {
    // Who lists them does not open what nobody has entered, or what cannot be opened.
    let latest = match rooted.is_vacant || own.closed.lock().contains_key(&rooted.volume) {
        true => None,
        false => {
            let volume = own.volumes.of(rooted.volume).map_err(port_failure)?;
            state::latest(&volume.db).map_err(port_failure)?
        }
    };
    let pending = own.vfs.pending(rooted.volume);
    Ok(api::VolumeInfo {
        id: rooted.volume.to_string(),
        path: own.vfs.path(rooted.ino).map_err(|error| of_tree(&error))?,
        here: !rooted.is_vacant,
        dirty_files: pending.files,
        dirty_bytes: pending.bytes,
        head: latest.map(|latest| head_status(&latest.head)),
    })
}

/// Nobody else finds a volume that begins in one in which others have a part.
pub(super) fn not_shared(above: &Volume) -> Result<(), Failure> {
    match above.share() {
        None => Ok(()),
        Some(share) => Err(Failure::new(
            Kind::Usage,
            format!("others have a part in {}, and would not find another volume in it", share.name),
        )
        .hint("choose a place outside of it; what is to be a volume of its own is moved there first")),
    }
}

impl Agent {
    /// The volumes of the tree, each after those above it. Blocks.
    pub(crate) fn volumes(&self) -> Result<Vec<api::VolumeInfo>, Failure> {
        let own = self.own()?;
        own.vfs.volumes().into_iter().map(|rooted| info(own, rooted)).collect()
    }

    /// Makes a directory the root of a volume of its own. Blocks.
    pub(crate) fn make_volume(&self, ino: u64) -> Result<api::VolumeInfo, Failure> {
        let own = self.own()?;
        if self.config.lock().recovering {
            return Err(Failure::new(Kind::TryAgain, "the head of this volume has not been found yet")
                .hint("`hn recover` looks again"));
        }
        if let Some(root) = own.vfs.volumes().into_iter().find(|rooted| rooted.ino == ino) {
            return Err(Failure::new(Kind::Usage, format!("volume {} begins there already", root.volume.short())));
        }
        own.vfs.may_split(ino).map_err(|error| of_tree(&error))?;
        let above = own.vfs.volume_of(ino).map_err(|error| of_tree(&error))?;
        let above = own.volumes.of(above).map_err(port_failure)?;
        not_shared(&above)?;
        let id = random_volume(false)?;
        if !own.volume.identity.keystore().change(|keystore| keystore.add_volume(id))? {
            return Err(Failure::new(Kind::Config, "this identity has as many volumes as it can have"));
        }
        let volume = own.volumes.of(id).map_err(port_failure)?;
        put_origin(&volume, &above)?;
        let until = Instant::now() + PATIENCE;
        let split = loop {
            match own.vfs.split(ino, id) {
                Err(VfsError::Busy) if Instant::now() < until => std::thread::sleep(AGAIN),
                Err(VfsError::Busy) => {
                    break Err(Failure::new(Kind::TryAgain, "the directory is being uploaded")
                        .hint("try again when `hn status` says that nothing is uploaded"));
                }
                other => break other.map_err(|error| of_tree(&error)),
            }
        };
        if let Err(failure) = split {
            own.volumes.close(id);
            state::forget_origin(&volume.db).map_err(port_failure)?;
            return Err(failure);
        }
        // Heads of the volume above may have been published while the directory was looked through.
        put_origin(&volume, &above)?;
        own.start_engine(volume)?;
        let rooted = own.vfs.volumes().into_iter().find(|rooted| rooted.volume == id);
        info(own, rooted.ok_or_else(|| Failure::new(Kind::System, "the new volume is gone already"))?)
    }
}
