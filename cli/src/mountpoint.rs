//! Where a volume is mounted when nobody says where: `/hypernet` where permitted, else `hypernet` in the home directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hypernet_sdk::ErrorCode;
use rustix::fs::Access;

use crate::error::Failure;

/// The place that people and programs expect.
const PREFERRED: &str = "/hypernet";
/// A directory on a filesystem that does not answer is not waited for.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// The first place that can be used.
pub(crate) async fn default_dir() -> Result<PathBuf, Failure> {
    let mut tried = Vec::new();
    let in_home = std::env::home_dir().map(|home| home.join("hypernet"));
    for dir in std::iter::once(PathBuf::from(PREFERRED)).chain(in_home) {
        match look(&dir, usable).await {
            Ok(()) => return Ok(dir),
            Err(why) => tried.push(format!("{} {why}", dir.display())),
        }
    }
    Err(Failure::new(ErrorCode::CantCreate, format!("there is no place to mount at: {}", tried.join(", ")))
        .hint("name an empty directory of yours: --mount DIR, or --no-mount"))
}

/// Whether a volume can be mounted again where a person once wanted it; if not, why.
pub(crate) async fn can_mount_again(dir: &Path) -> Result<(), String> {
    look(dir, mountable).await
}

async fn look(dir: &Path, check: fn(&Path) -> Result<(), String>) -> Result<(), String> {
    let dir = dir.to_owned();
    match tokio::time::timeout(LOOK_WITHIN, tokio::task::spawn_blocking(move || check(&dir))).await {
        Ok(Ok(answer)) => answer,
        _ => Err("does not answer".into()),
    }
}

/// Whether a volume can be mounted here and hides nothing; if not, why. Makes the directory if it is missing.
fn usable(dir: &Path) -> Result<(), String> {
    mountable(dir)?;
    if is_dead(dir) {
        return Ok(());
    }
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err("is not empty, and a mount would hide what is in it".into()),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

/// A mount whose agent died, which the next agent clears away. The kernel goes on showing what it knows of it.
fn is_dead(dir: &Path) -> bool {
    matches!(rustix::fs::statvfs(dir), Err(rustix::io::Errno::NOTCONN))
}

/// Whether a volume can be mounted here; if not, why. Makes the directory if it is missing.
fn mountable(dir: &Path) -> Result<(), String> {
    if is_dead(dir) {
        return Ok(());
    }
    let meta = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fs::create_dir(dir).map_err(|error| format!("cannot be created ({error})"));
        }
        Err(error) => return Err(format!("cannot be used ({error})")),
        Ok(meta) => meta,
    };
    if !meta.is_dir() {
        return Err("is no directory".into());
    }
    let parent = dir.parent().and_then(|parent| fs::metadata(parent).ok());
    if parent.is_some_and(|parent| parent.dev() != meta.dev()) {
        return Err("is in use by another mount".into());
    }
    if rustix::fs::access(dir, Access::WRITE_OK | Access::READ_OK | Access::EXEC_OK).is_err() {
        return Err("is not writable".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_directories_of_ones_own_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new");
        assert_eq!(usable(&new), Ok(()));
        assert!(new.is_dir());
        assert_eq!(usable(&new), Ok(()));
        fs::write(new.join("file"), "").unwrap();
        assert!(usable(&new).unwrap_err().contains("not empty"));
        assert_eq!(mountable(&new), Ok(()), "who wanted it there once may have it there again");
        assert!(usable(&new.join("file")).unwrap_err().contains("no directory"));
        assert!(usable(&dir.path().join("a/b")).is_err());
        assert!(usable(Path::new("/proc")).is_err());
    }
}
