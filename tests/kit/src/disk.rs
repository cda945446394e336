//! A disk whose power can be cut: what nobody has brought to it by then is gone, as it is on a machine.
//!
//! SIGKILL does not show that: what a process has written stays in the kernel's memory, synced or not. Here the
//! filesystem is shut down without a flush, as its own developers test it, and mounted again from what the disk has.
//! It is stricter than most disks: it writes nothing by itself for an hour.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::ioctl::{Setter, ioctl, opcode};
use tempfile::TempDir;

use crate::hn;
use crate::watcher::Watcher;

/// EXT4_IOC_SHUTDOWN.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// EXT4_GOING_FLAGS_NOLOGFLUSH: neither data nor the journal is written.
const WITHOUT_FLUSH: u32 = 2;

/// Something to live on whose power can be cut.
pub trait PowerCut: Sync {
    /// Where it is mounted.
    fn path(&self) -> PathBuf;

    /// The power fails: from now on every call fails that reaches this disk.
    fn cut(&self) -> Result<()>;

    /// The power is back. Nobody may have anything open there any more.
    fn restore(&self) -> Result<()>;
}

/// An ext4 of its own, on a file. Needs root.
#[derive(Debug)]
pub struct Disk {
    _watcher: Watcher,
    dir: TempDir,
}

/// A directory with one to mount a disk at, which is cleaned up with all that lives there.
pub(crate) fn watched() -> Result<(TempDir, Watcher)> {
    let dir = tempfile::Builder::new().prefix("hn-disk").tempdir().context("cannot make a directory")?;
    fs::create_dir(dir.path().join("mnt")).context("cannot make the directory to mount at")?;
    let watcher = Watcher::new(
        // Agents that live on it would outlive a test that was killed: whoever stops them finds nothing of them here.
        r#"for environ in /proc/[0-9]*/environ; do
               if grep -qzF "HN_HOME=$DIR/mnt/" "$environ"; then
                   pid=${environ#/proc/}
                   kill -9 "${pid%/environ}"
               fi
           done
           umount -l "$DIR/mnt"
           rm -rf --one-file-system "$DIR""#,
        &[("DIR", dir.path().as_os_str())],
    )?;
    Ok((dir, watcher))
}

impl Disk {
    /// Makes one of this size. The file is sparse.
    pub fn new(bytes: u64) -> Result<Self> {
        let (dir, watcher) = watched()?;
        let disk = Self { _watcher: watcher, dir };
        File::create(disk.image()).and_then(|file| file.set_len(bytes)).context("cannot make the disk's file")?;
        hn::run(Command::new("mkfs.ext4").arg("-q").arg(disk.image()))?.ok()?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount(&self) -> Result<()> {
        // No transaction ends by itself, and no rename over a name brings the data along.
        let options = "loop,commit=3600,noauto_da_alloc";
        hn::run(Command::new("mount").args(["-o", options]).arg(self.image()).arg(self.path()))?.ok().map(drop)
    }

    /// Nothing can be written any more, or again.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        hn::run(Command::new("mount").args(["-o", options]).arg(self.path()))?.ok().map(drop)
    }

    /// Takes all the room that is left, also what was given back since. The file that is returned is all of it.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.path().join("filler");
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .context("cannot make the file that fills the disk")?;
        // What was removed comes back when the filesystem has written down that it was: it is full when a round takes nothing.
        loop {
            let before = file.metadata().context("cannot look at the file that fills the disk")?.len();
            // The last bytes go in small pieces: not even one of them is to fit.
            for size in [1 << 20, 4 << 10, 1] {
                let piece = vec![0; size];
                while file.write_all(&piece).is_ok() {}
            }
            file.sync_all().ok();
            if file.metadata().is_ok_and(|now| now.len() == before) {
                return Ok(path);
            }
        }
    }
}

impl PowerCut for Disk {
    fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn cut(&self) -> Result<()> {
        let root = File::open(self.path()).context("cannot open the disk")?;
        // SAFETY: the kernel reads one u32 for this request, which is what the setter points at.
        unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH)) }.context("cannot cut the power")
    }

    fn restore(&self) -> Result<()> {
        hn::run(Command::new("umount").arg(self.path()))?.ok()?;
        // A mount namespace that somebody made meanwhile still holds the filesystem that was shut down, and mounting
        // its file again would give that one back. What is on the disk is the same in a file of its own.
        let copy = self.image().with_extension("copy");
        hn::run(Command::new("cp").arg("--sparse=always").arg(self.image()).arg(&copy))?.ok()?;
        fs::rename(copy, self.image()).context("cannot replace the disk's file")?;
        self.mount()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use super::*;
    use crate::machine::{Need, has};

    #[test]
    fn what_is_synced_stays_and_the_rest_is_lost() {
        if !has(&[Need::Root]) {
            return;
        }
        let disk = Disk::new(64 << 20).unwrap();
        let (synced, written) = (disk.path().join("synced"), disk.path().join("written"));
        fs::write(&synced, "synced").unwrap();
        for path in [&synced, &disk.path()] {
            File::open(path).unwrap().sync_all().unwrap();
        }
        fs::write(&written, "written").unwrap();
        fs::write(&synced, "synced, and written over").unwrap();
        disk.cut().unwrap();
        assert!(fs::write(disk.path().join("after"), "").is_err(), "the power is on");
        disk.restore().unwrap();
        assert_eq!(fs::read_to_string(&synced).unwrap(), "synced");
        assert!(!written.exists(), "what nobody synced came through");
        fs::write(&written, "written").unwrap();
    }

    #[test]
    fn it_comes_back_also_while_another_namespace_has_it_mounted() {
        if !has(&[Need::Root]) {
            return;
        }
        let disk = Disk::new(64 << 20).unwrap();
        let file = disk.path().join("file");
        fs::write(&file, "synced").unwrap();
        for path in [&file, &disk.path()] {
            File::open(path).unwrap().sync_all().unwrap();
        }
        let mut other = Command::new("unshare")
            .args(["--mount", "sh", "-c", "echo there; read -r end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(other.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        disk.cut().unwrap();
        let restored = disk.restore();
        drop(other.stdin.take());
        other.wait().unwrap();
        restored.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "synced");
    }
}
