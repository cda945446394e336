//! Every operation through [`Vfs`], on doubles that are stricter than the real ports.

use std::sync::Arc;
use std::time::Duration;

use hypernet_core::id::DeviceTag;
use hypernet_core::port::{Local, MetaStore, PortError};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, FileKind, Inode, Target};
use tempfile::TempDir;

use super::*;
use crate::panics;
use crate::testing::{MemoryMeta, MemoryRemote, VOLUME, publish};

mod acl;
mod advance;
mod branches;
mod crash;
mod detach;
mod evict;
mod files;
mod inside;
mod links;
mod model;
mod names;
mod paused;
mod read_only;
mod remote;
mod spoilt;
mod together;
mod volumes;

pub(super) const ME: Caller = Caller { uid: 1000, gid: 100, umask: 0o022 };
pub(super) const ADMIN: Caller = Caller { uid: 0, gid: 0, umask: 0 };
pub(super) const RW: OpenFlags = OpenFlags(libc::O_RDWR);
pub(super) const RO: OpenFlags = OpenFlags(libc::O_RDONLY);

/// A working tree on doubles.
pub(super) struct Bed {
    pub(super) device: DeviceTag,
    pub(super) dir: TempDir,
    pub(super) meta: Arc<MemoryMeta>,
    pub(super) remote: Arc<MemoryRemote>,
    pub(super) vfs: Arc<Vfs>,
}

fn config(dir: &TempDir) -> Config {
    // Nothing happens by itself in a test: no commit comes before it is asked for.
    Config {
        commit_interval: Duration::from_secs(3600),
        // Nor does anything stay in memory that need not.
        hot_inodes: 4,
        failed_for: Duration::ZERO,
        ..Config::new(dir.path(), VOLUME, DeviceTag(1))
    }
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::on(Arc::default())
    }

    pub(super) fn on(remote: Arc<MemoryRemote>) -> Self {
        Self::of(DeviceTag(1), remote)
    }

    fn of(device: DeviceTag, remote: Arc<MemoryRemote>) -> Self {
        let (dir, meta) = (tempfile::tempdir().unwrap(), MemoryMeta::strict());
        let vfs = Vfs::open(Config { device, ..config(&dir) }, meta.clone(), remote.clone()).unwrap();
        Self { device, dir, meta, remote, vfs }
    }

    /// With a kernel that knows every inode until it is forgotten.
    pub(super) fn mounted(self) -> Self {
        self.mounted_by(false)
    }

    /// The same, and whether it tells of the times of what it writes.
    pub(super) fn mounted_by(self, keeps_times: bool) -> Self {
        struct Kernel(bool);
        impl Invalidate for Kernel {
            fn inode(&self, _ino: u64) {}
            fn attributes(&self, _ino: u64) {}
            fn mode(&self, _ino: u64) {}
            fn entry(&self, _parent: u64, _name: &[u8]) {}
            fn keeps_times(&self) -> bool {
                self.0
            }
            fn flush(&self, _open: &[u64]) -> std::io::Result<()> {
                Ok(())
            }
        }
        self.vfs.set_invalidate(Some(Arc::new(Kernel(keeps_times))));
        self
    }

    /// Drops what a mesh serves that serves everything.
    pub(super) fn drop_cache(&self, below: Option<u64>) -> Result<Dropped> {
        self.vfs.drop_cache(below, &mut |contents| vec![true; contents.len()], &mut |_, _| {})
    }

    /// Opens the same tree again over what `meta` has left.
    pub(super) fn reopen(self, meta: Arc<MemoryMeta>) -> Self {
        let Self { device, dir, remote, vfs, .. } = self;
        drop(vfs);
        let vfs = Vfs::open(Config { device, ..config(&dir) }, meta.clone(), remote.clone()).unwrap();
        Self { device, dir, meta, remote, vfs }
    }

    pub(super) fn restart(self) -> Self {
        self.vfs.close(true).unwrap();
        let meta = self.meta.clone();
        self.reopen(meta)
    }

    /// Another device that has nothing but the published root.
    pub(super) fn recovered(&self, root: Inode) -> Self {
        let bed = Self::of(DeviceTag(self.device.0 + 1), self.remote.clone());
        bed.vfs.set_root(VOLUME, root).unwrap();
        bed
    }

    pub(super) fn publish(&self) -> Option<Inode> {
        publish(&self.vfs, &self.remote).unwrap()
    }

    pub(super) fn file(&self, parent: u64, name: &str, content: &[u8]) -> u64 {
        let (attr, _) = self.vfs.create(ME, parent, name.as_bytes(), 0o644, RW, false).unwrap();
        if !content.is_empty() {
            self.vfs.write(attr.ino, 0, content, false).unwrap();
        }
        self.vfs.release(attr.ino, RW).unwrap();
        attr.ino
    }

    pub(super) fn dir(&self, parent: u64, name: &str) -> u64 {
        self.vfs.mkdir(ME, parent, name.as_bytes(), 0o755).unwrap().ino
    }

    pub(super) fn overwrite(&self, ino: u64, offset: u64, content: &[u8]) {
        self.vfs.open_file(ME, ino, RW, false).unwrap();
        self.vfs.write(ino, offset, content, false).unwrap();
        self.vfs.release(ino, RW).unwrap();
    }

    pub(super) fn try_read(&self, ino: u64) -> Result<Vec<u8>> {
        let size = self.vfs.getattr(ino)?.size;
        self.vfs.open_file(ME, ino, RO, false)?;
        let mut buf = vec![0; size as usize + 16];
        let read = self.vfs.read(ino, 0, &mut buf);
        self.vfs.release(ino, RO)?;
        buf.truncate(read?);
        Ok(buf)
    }

    pub(super) fn read(&self, ino: u64) -> Vec<u8> {
        self.try_read(ino).unwrap()
    }

    pub(super) fn at(&self, path: &str) -> u64 {
        self.vfs.resolve(path).unwrap()
    }

    pub(super) fn names(&self, dir: u64) -> Vec<String> {
        let all = self.vfs.readdir(dir, 0).unwrap();
        let mut names: Vec<_> =
            all.iter().skip(2).map(|item| String::from_utf8_lossy(&item.name).into_owned()).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn stat(&self, ino: u64) -> Attr {
        self.vfs.getattr(ino).unwrap()
    }

    #[track_caller]
    pub(super) fn assert_sound(&self) {
        assert_eq!(self.vfs.fsck(false).unwrap(), Checked::default());
    }
}

#[test]
fn a_new_volume_has_an_empty_root() {
    let bed = Bed::new();
    let root = bed.stat(ROOT);
    assert_eq!((root.kind, root.mode, root.nlink), (FileKind::Directory, 0o755, 2));
    assert!(bed.names(ROOT).is_empty());
    assert_eq!(bed.vfs.pending(VOLUME).files, 0);
    assert_eq!(bed.publish(), None);
    bed.assert_sound();
}

#[test]
fn errors_have_their_errno() {
    assert_eq!(VfsError::NotEmpty.errno(), libc::ENOTEMPTY);
    assert_eq!(VfsError::from(PortError::Deadline("x".into())).errno(), libc::EIO);
    assert_eq!(VfsError::from(PortError::DiskFull("x".into())).errno(), libc::ENOSPC);
    assert_eq!(VfsError::from(std::io::Error::from_raw_os_error(libc::ENOSPC)), VfsError::NoSpace);
}

#[test]
fn an_impatient_thread_is_refused_before_it_waits() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"x");
    let refused = VfsError::WouldBlock(patience::Wait::Disk);
    assert_eq!(patience::never(|| bed.vfs.fsync(ino, false)), Err(refused.clone()));
    patience::for_disk(|| bed.vfs.fsync(ino, false)).unwrap();
    let synced = OpenFlags(libc::O_RDWR | libc::O_SYNC);
    let create = || bed.vfs.create(ME, ROOT, b"synced", 0o600, synced, false);
    assert_eq!(patience::never(create).map(drop), Err(refused));
    patience::for_disk(create).unwrap();
}
