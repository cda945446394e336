//! The mount table: what is mounted where, dead mounts, unmounting.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;

use super::{MountError, NAME};

const HELPER: &str = "fusermount3";

/// A line of /proc/self/mountinfo.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    device: String,
    dir: PathBuf,
    kind: String,
    source: String,
}

/// Names of files are in it as they are, whatever bytes they are of.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let device = text(fields.nth(2)?);
    let dir = unescape(fields.nth(1)?).into();
    fields.find(|field| *field == b"-")?;
    Some(Mounted { device, dir, kind: text(fields.next()?), source: text(fields.next()?) })
}

/// Undoes the octal escapes of the mount table.
fn unescape(bytes: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(out)
}

/// What is mounted on `dir`, on top of anything else there.
fn mounted_on(dir: &Path) -> Option<Mounted> {
    let table = std::fs::read(Path::new("/proc/self/mountinfo")).ok()?;
    table
        .split(|byte| *byte == b'\n')
        .rev()
        .filter_map(parse)
        .find(|mounted| mounted.dir.as_os_str().as_bytes() == dir.as_os_str().as_bytes())
}

/// The device of what this program has just mounted on `dir`: no other mount has it while this one lives.
pub(super) fn device(dir: &Path) -> Option<String> {
    mounted_on(dir).filter(is_ours).map(|mounted| mounted.device)
}

/// Whether the filesystem with this device can be reached by any path. It can live on without, for those who have
/// something open in it. One whose device is not known is taken to be there.
pub(super) fn is_in_sight(device: Option<&str>) -> bool {
    let Some(device) = device else { return true };
    let Ok(table) = std::fs::read("/proc/self/mountinfo") else { return true };
    table.split(|byte| *byte == b'\n').filter_map(parse).any(|mounted| mounted.device == device && is_ours(&mounted))
}

fn is_ours(mounted: &Mounted) -> bool {
    // Root mounts without the helper, and then the kernel shows no subtype.
    mounted.kind == format!("fuse.{NAME}") || (mounted.kind == "fuse" && mounted.source == NAME)
}

/// The path as the mount table has it. The last part is not resolved by asking the filesystem that may be dead.
fn absolute(dir: &Path) -> io::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(dir),
    }
}

fn is_dead(dir: &Path) -> bool {
    // Attributes may still come from the kernel's cache when the daemon is gone; this question never does.
    matches!(rustix::fs::statvfs(dir), Err(rustix::io::Errno::NOTCONN))
}

/// The mount point, fit for mounting.
pub(super) fn check_mount_point(dir: &Path) -> Result<PathBuf, MountError> {
    let missing = |_| MountError::NoMountPoint(dir.to_owned());
    let path = absolute(dir).map_err(missing)?;
    if is_dead(&path) {
        return Err(MountError::Stale(path));
    }
    let path = path.canonicalize().map_err(missing)?;
    if !path.is_dir() {
        return Err(MountError::NotADirectory(path));
    }
    if mounted_on(&path).is_some_and(|mounted| is_ours(&mounted)) {
        return Err(MountError::AlreadyMounted(path));
    }
    Ok(path)
}

/// Unmounts a hypernet mount whose daemon is gone; true if there was one. Other mounts are left alone.
pub fn clear_stale(dir: &Path) -> Result<bool, MountError> {
    let Ok(path) = absolute(dir) else { return Ok(false) };
    if !is_dead(&path) || !mounted_on(&path).is_some_and(|mounted| is_ours(&mounted)) {
        return Ok(false);
    }
    unmount(&path, true)?;
    Ok(true)
}

/// Whether the helper that mounts for ordinary users can be run.
pub(super) fn has_helper() -> bool {
    Command::new(HELPER).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

pub(super) fn unmount(dir: &Path, detach: bool) -> Result<(), MountError> {
    let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => unmount_by_helper(dir, detach),
        // It is not a mount point any more: that is what was wanted.
        Err(rustix::io::Errno::INVAL) => Ok(()),
        Err(errno) => Err(MountError::from_mount(dir, errno.into())),
    }
}

/// Ordinary users unmount as they mount: by the setuid helper.
fn unmount_by_helper(dir: &Path, detach: bool) -> Result<(), MountError> {
    let flags = if detach { "-uz" } else { "-u" };
    let output = Command::new(HELPER).arg(flags).arg("--").arg(dir).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if text.contains("busy") {
                return Err(MountError::Busy(dir.to_owned()));
            }
            Err(MountError::Other { dir: dir.to_owned(), error: io::Error::other(text) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::NoHelper),
        Err(error) => Err(MountError::Other { dir: dir.to_owned(), error }),
    }
}

/// Kernel read-ahead of a cold sequential read, in KiB.
const READ_AHEAD_KIB: u32 = 2048;

/// Lets the kernel ask for more at a time than its 128 KiB; only root may, and it works without.
pub(super) fn raise_read_ahead(device: &str) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%error, path, "read-ahead stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_understood() {
        let line = b"36 35 0:52 / /mnt/a\\040b\xff rw,noatime shared:1 - fuse.hypernet hypernet rw,user_id=0";
        let mounted = parse(line).unwrap();
        assert_eq!(mounted.device, "0:52");
        assert_eq!(mounted.dir.as_os_str().as_bytes(), b"/mnt/a b\xff");
        assert!(is_ours(&mounted));
        let root = b"36 35 0:52 / /mnt/a rw,noatime shared:1 - fuse hypernet rw,user_id=0";
        assert!(is_ours(&parse(root).unwrap()));
        let other = b"36 35 0:52 / /mnt/a rw,noatime shared:1 - fuse sshfs rw,user_id=0";
        assert!(!is_ours(&parse(other).unwrap()));
        assert_eq!(parse(b"nonsense"), None);
        assert_eq!(unescape(b"a\\"), OsString::from("a\\"));
    }

    #[test]
    fn a_missing_mount_point_is_named_and_a_plain_directory_is_not_stale() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(check_mount_point(&dir.path().join("no")), Err(MountError::NoMountPoint(_))));
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(matches!(check_mount_point(&dir.path().join("file")), Err(MountError::NotADirectory(_))));
        assert!(!clear_stale(dir.path()).unwrap());
    }
}
