//! Room on the disk that is kept for the next start: one on a full disk could write nothing, and an agent that does not
//! run can give nothing back.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::config::Home;

/// What a start writes before anything can be removed, many times over.
const LEN: u64 = 8 << 20;

fn path(home: &Home) -> PathBuf {
    home.path().join("reserve")
}

/// Whether so much can be written under HN_HOME. Where that cannot be told, nothing is changed.
fn has_room(home: &Home, bytes: u64) -> Option<bool> {
    let disk = statvfs(home.path()).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
}

/// Gives the room back to a full disk.
pub(crate) fn release(home: &Home) {
    if has_room(home, LEN) == Some(false) {
        let _ = fs::remove_file(path(home));
    }
}

/// Sets it aside when there is plenty.
pub(crate) fn set_aside(home: &Home) {
    let path = path(home);
    if fs::metadata(&path).is_ok_and(|meta| meta.len() == LEN) || has_room(home, 2 * LEN) != Some(true) {
        return;
    }
    let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let filled = made.and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, LEN)?));
    if let Err(error) = filled {
        tracing::debug!(%error, "no room is kept for a start on a full disk");
        let _ = fs::remove_file(&path);
    }
}
