//! Paths as people type them, as paths inside the volume.

use std::path::{Path, PathBuf};

use hypernet_sdk::ErrorCode;
use hypernet_sdk::api::Status;

use crate::error::Failure;

/// The path below the volume's root, with a leading slash, of a path below the mount.
pub(crate) fn inside(status: &Status, path: &Path) -> Result<PathBuf, Failure> {
    let Some(mount) = &status.mount else {
        return Err(Failure::new(
            ErrorCode::Usage,
            format!("{} is not below a mount: nothing is mounted", path.display()),
        )
        .hint("`hn mount` first, or leave the path out to mean everything"));
    };
    // Follows links and dots where the path exists; one that does not is taken as it is written.
    let real = std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let real = real.map_err(|error| Failure::io(path.display(), &error))?;
    match real.strip_prefix(&mount.dir) {
        Ok(below) => Ok(Path::new("/").join(below)),
        Err(_) => Err(Failure::new(
            ErrorCode::Usage,
            format!("{} is not below the mount {}", path.display(), mount.dir.display()),
        )
        .hint("name something below the mount, or leave the path out to mean everything")),
    }
}
