//! Small files of the agent's own: written whole or not at all, and for their owner only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::failure::{Failure, Kind};

/// Makes a directory that only its owner can enter.
pub(crate) fn private_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| cannot("create", path, &error))
}

/// Writes a file atomically, with mode 0600, and makes it durable together with its name.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| cannot("write", path, &error);
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.new"));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // On a full disk it would take up room that others need.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Removes a file that is there, durably.
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| cannot("remove", path, &error);
    fs::remove_file(path).map_err(failed)?;
    File::open(path.parent().unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn cannot(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::StorageFull {
        let why = format!("cannot {verb} {}: the disk is full", path.display());
        return Failure::new(Kind::Io, why).hint("free some space on this disk; nothing is lost");
    }
    let failure = Failure::new(Kind::CantCreate, format!("cannot {verb} {}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            failure.hint("set HN_HOME to a directory that you can write to")
        }
        // No directory can be made in /proc, or below a file.
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            failure.hint("set HN_HOME to a path where a directory can be made")
        }
        _ => failure,
    }
}
