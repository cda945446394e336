//! Files whose sync failed.
//!
//! When Linux cannot write a page, it says so to the next sync and then counts the page as written: the sync after that
//! succeeds, and the page is in memory only. Whoever acknowledges on the word of that second sync loses data with the
//! power. So a file whose sync failed is spoilt: before it is synced again, all of its pages are made dirty.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::backing::Backing;
use super::state::InoSet;
use super::{Result, Vfs};

/// Present while a sync failed and was not made good: memory outlives the agent, and what is spoilt must be known to the
/// next one. A loss of power leaves nothing of it to be known.
const MARKER: &str = "sync-failed";

/// Bytes that are mapped at a time.
const PIECE: u64 = 64 << 20;

/// Which files are spoilt, and which are being synced: each by one thread at a time, since the kernel tells an error to
/// one of them only.
#[derive(Debug)]
pub(super) struct Syncs {
    marker: PathBuf,
    state: Mutex<SyncState>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct SyncState {
    spoilt: BTreeSet<u64>,
    under_way: BTreeSet<u64>,
}

/// The sync of one file.
struct Turn<'a> {
    syncs: &'a Syncs,
    ino: u64,
    spoilt: bool,
}

impl Syncs {
    pub(super) fn new(dir: &Path) -> Self {
        Self { marker: dir.join(MARKER), state: Mutex::default(), over: Condvar::new() }
    }

    fn turn(&self, ino: u64) -> Turn<'_> {
        let mut state = self.state.lock();
        while !state.under_way.insert(ino) {
            self.over.wait(&mut state);
        }
        Turn { syncs: self, ino, spoilt: state.spoilt.contains(&ino) }
    }

    fn failed(&self, inos: impl IntoIterator<Item = u64>) {
        let mut state = self.state.lock();
        let before = state.spoilt.len();
        state.spoilt.extend(inos);
        if before == 0
            && !state.spoilt.is_empty()
            && let Err(error) = File::create(&self.marker)
        {
            tracing::warn!(%error, "the disk fails, and it cannot even be noted that a sync failed");
        }
    }

    fn made_good(&self, which: impl Fn(&u64) -> bool) {
        let mut state = self.state.lock();
        if !state.spoilt.is_empty() {
            state.spoilt.retain(|ino| !which(ino));
            if state.spoilt.is_empty() {
                self.forget_marker();
            }
        }
    }

    /// A file is gone, and with it what of it was not synced.
    pub(super) fn gone(&self, ino: u64) {
        self.made_good(|other| *other == ino);
    }

    fn forget_marker(&self) {
        if let Err(error) = std::fs::remove_file(&self.marker)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "it stays noted that a sync failed: the next start after a crash writes all files anew");
        }
    }

    /// After an unclean stop: whatever the last agent could not sync is made good. Nobody else has the files open.
    pub(super) fn recover(&self, backing: &Backing) -> io::Result<()> {
        if !self.marker.exists() {
            return Ok(());
        }
        tracing::warn!("the disk failed to sync before the last stop: all files here are written anew");
        let mut failed = 0u64;
        for ino in backing.all()? {
            let Some(file) = backing.get(ino)? else { continue };
            if let Err(error) = redirty(&file).and_then(|()| file.sync_all()) {
                // What cannot be read is not in memory only.
                failed += 1;
                tracing::error!(ino, %error, "a file could not be written anew: what of it was not synced may be lost");
            }
            backing.close(ino);
        }
        if failed == 0 {
            self.forget_marker();
        }
        Ok(())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.syncs.state.lock().under_way.remove(&self.ino);
        self.syncs.over.notify_all();
    }
}

impl Vfs {
    /// Brings a file's content to stable storage.
    pub(super) fn sync_content(&self, ino: u64, file: &File, data_only: bool) -> Result<()> {
        let turn = self.syncs.turn(ino);
        let synced = if turn.spoilt { redirty(file) } else { Ok(()) };
        match synced.and_then(|()| if data_only { file.sync_data() } else { file.sync_all() }) {
            Ok(()) if turn.spoilt => self.syncs.made_good(|other| *other == ino),
            Ok(()) => {}
            Err(error) => {
                self.syncs.failed([ino]);
                drop(turn);
                // The commit thread tries again.
                let mut state = self.state.lock();
                state.unsynced.insert(ino);
                self.arm(&mut state);
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// The same for many files, and everything else on their disk.
    pub(super) fn sync_all_content(&self, inos: &InoSet) -> Result<()> {
        let spoilt: Vec<u64> =
            self.syncs.state.lock().spoilt.iter().copied().filter(|ino| inos.contains(ino)).collect();
        for ino in spoilt {
            if let Some(file) = self.backing.get(ino)? {
                self.sync_content(ino, &file, true)?;
            }
        }
        if let Err(error) = self.backing.sync_all() {
            self.syncs.failed(inos.iter().copied());
            return Err(error.into());
        }
        Ok(())
    }
}

/// Makes all pages of a file dirty without changing a byte, whoever writes to it meanwhile.
fn redirty(file: &File) -> io::Result<()> {
    let page = rustix::param::page_size() as u64;
    let size = file.metadata()?.len();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start / page * page,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start.max(at)))?.min(start + PIECE);
        touch(file, start, (end - start) as usize)?;
        at = end;
    }
    Ok(())
}

fn touch(file: &File, offset: u64, len: usize) -> io::Result<()> {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
    // SAFETY: the kernel chooses where, so it overlaps nothing; nobody gets to see the memory.
    let start = unsafe { mmap(std::ptr::null_mut(), len, access, flags, file, offset) }?;
    // Faults the pages in as a write would, and where that is not possible it is an error and no signal.
    // SAFETY: the range is the one just mapped, and populating it changes no content.
    let touched = unsafe { madvise(start, len, Advice::LinuxPopulateWrite) };
    // SAFETY: as above; nothing refers to it any more.
    unsafe { munmap(start, len) }?;
    Ok(touched?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn every_page_is_written_again_and_none_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![7; 5 * 4096 + 100]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"far", (1 << 40) - 3).unwrap();
        file.sync_all().unwrap();
        let before = std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        redirty(&file).unwrap();
        file.sync_all().unwrap();
        let after = file.metadata().unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::blocks(&after), before, "holes were filled");
        let mut start = vec![0; 5 * 4096 + 101];
        file.read_exact_at(&mut start, 0).unwrap();
        assert!(start[..5 * 4096 + 100].iter().all(|byte| *byte == 7) && start[5 * 4096 + 100] == 0);
        let mut end = [0; 3];
        file.read_exact_at(&mut end, (1 << 40) - 3).unwrap();
        assert_eq!(&end, b"far");
    }
}
