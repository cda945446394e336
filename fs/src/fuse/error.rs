//! Why a mount did not come about, each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Mounting or unmounting failed.
#[derive(Debug, Error)]
pub enum MountError {
    /// The kernel has no FUSE.
    #[error("/dev/fuse does not exist: load it with `modprobe fuse` (in a container: pass --device /dev/fuse)")]
    NoDevice,
    /// The device is there but not for this user.
    #[error("/dev/fuse may not be opened by this user: `chmod 0666 /dev/fuse` (as root) is how distributions have it")]
    DeviceDenied,
    /// The helper that mounts for ordinary users is missing.
    #[error("fusermount3 is missing: install the package fuse3")]
    NoHelper,
    /// The helper refuses `allow_other`.
    #[error("allow_other is not permitted: add `user_allow_other` to /etc/fuse.conf, or mount without it")]
    AllowOther,
    /// The mount point is not there.
    #[error("{0} does not exist: make it with mkdir")]
    NoMountPoint(PathBuf),
    /// The mount point is no directory.
    #[error("{0} is not a directory: choose another mount point")]
    NotADirectory(PathBuf),
    /// A mount whose daemon is gone is in the way.
    #[error("{0} is a dead mount (transport endpoint is not connected): `fusermount3 -uz {0}` removes it")]
    Stale(PathBuf),
    /// It is mounted already.
    #[error("{0} is a mounted hypernet already: unmount it first")]
    AlreadyMounted(PathBuf),
    /// Somebody is using the mount.
    #[error("{0} is in use: close what is open there (`fuser -m {0}` lists it) and try again")]
    Busy(PathBuf),
    /// The kernel did not get through with us.
    #[error("the kernel ended the connection during the handshake: try again")]
    Handshake,
    /// Anything else.
    #[error("{dir}: {error}")]
    Other {
        /// Mount point.
        dir: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl MountError {
    /// What an error of mounting or unmounting on `dir` means.
    pub(super) fn from_mount(dir: &Path, error: io::Error) -> Self {
        let text = error.to_string();
        let device = Path::new("/dev/fuse");
        if text.contains("user_allow_other") {
            return Self::AllowOther;
        }
        if !device.exists() {
            return Self::NoDevice;
        }
        if error.raw_os_error() == Some(libc::ENOTCONN) || text.contains("not connected") {
            return Self::Stale(dir.to_owned());
        }
        if error.raw_os_error() == Some(libc::EBUSY) {
            return Self::Busy(dir.to_owned());
        }
        if std::fs::OpenOptions::new().read(true).write(true).open(device).is_err() {
            return Self::DeviceDenied;
        }
        if error.kind() == io::ErrorKind::NotFound && !super::mounts::has_helper() {
            return Self::NoHelper;
        }
        Self::Other { dir: dir.to_owned(), error }
    }
}
