//! Syncs that fail, on a disk that then gives up what it should have written, as Linux does.

use std::path::PathBuf;

use hypernet_kit::machine::{Need, has};
use hypernet_kit::{Fault, FaultyDisk, PowerCut};

use super::*;

struct Failing {
    disk: FaultyDisk,
    meta: Arc<MemoryMeta>,
    vfs: Arc<Vfs>,
    ino: u64,
}

fn open(dir: PathBuf, meta: &Arc<MemoryMeta>) -> Arc<Vfs> {
    let config = Config { commit_interval: Duration::from_secs(3600), ..Config::new(dir, VOLUME, DeviceTag(1)) };
    Vfs::open(config, meta.clone(), Arc::new(MemoryRemote::default())).unwrap()
}

const OLD: &[u8] = &[1; 100_000];
const NEW: &[u8] = &[2; 100_000];

impl Failing {
    /// A file whose newest content was written, and met a sync that failed.
    fn new() -> Option<Self> {
        if !has(&[Need::Root, Need::Fuse]) {
            return None;
        }
        let (disk, meta) = (FaultyDisk::new(1).unwrap(), MemoryMeta::strict());
        let vfs = open(disk.path().join("tree"), &meta);
        let (attr, _) = vfs.create(ME, ROOT, b"file", 0o644, RW, false).unwrap();
        vfs.write(attr.ino, 0, OLD, false).unwrap();
        vfs.fsync(attr.ino, false).unwrap();
        vfs.write(attr.ino, 0, NEW, false).unwrap();
        disk.fail(Fault::Sync, 1000).unwrap();
        vfs.fsync(attr.ino, false).unwrap_err();
        assert!(disk.heal().unwrap() > 0);
        Some(Self { disk, meta, vfs, ino: attr.ino })
    }

    /// The agent ends without a word; what it wrote stays in the kernel's memory.
    fn kill(self) -> Self {
        drop(self.vfs);
        let vfs = open(self.disk.path().join("tree"), &self.meta);
        Self { vfs, ..self }
    }

    fn loses_nothing(self) {
        let Self { disk, meta, vfs, ino } = self;
        vfs.fsync(ino, true).unwrap();
        disk.cut().unwrap();
        drop(vfs);
        disk.restore().unwrap();
        let vfs = open(disk.path().join("tree"), &meta);
        let mut found = vec![0; NEW.len()];
        assert_eq!(vfs.read(ino, 0, &mut found).unwrap(), NEW.len());
        assert!(found == NEW, "{} bytes are old", found.iter().filter(|byte| **byte == 1).count());
        drop(vfs);
    }
}

#[test]
fn a_sync_after_one_that_failed_writes_all_of_it() {
    if let Some(failing) = Failing::new() {
        failing.loses_nothing();
    }
}

#[test]
fn a_sync_that_failed_is_known_to_the_next_agent() {
    if let Some(failing) = Failing::new() {
        failing.kill().loses_nothing();
    }
}

#[test]
fn a_backing_file_that_cannot_be_removed_goes_later() {
    let Some(failing) = Failing::new() else { return };
    let (disk, vfs) = (&failing.disk, &failing.vfs);
    let path = disk.path().join("tree/data").join(backing::path(failing.ino));
    assert!(path.exists());
    disk.fail(Fault::Change, 1000).unwrap();
    vfs.release(failing.ino, RW).unwrap();
    vfs.unlink(ROOT, b"file").unwrap();
    vfs.fsyncdir(ROOT).unwrap();
    assert!(path.exists() && disk.heal().unwrap() > 0);
    vfs.fsyncdir(ROOT).unwrap();
    vfs.close(true).unwrap();
    assert!(!path.exists());
}
