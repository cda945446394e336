//! Pack files: shards one after another, each at the start of a disk block, and nothing else.
//!
//! A pack says nothing about itself; only a row in the database makes bytes of it a shard. Space is only ever added
//! at the end and never used twice while the process lives, so a reader that looked up a row just before its shard
//! was given up finds a hole there, never another shard.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypernet_core::limits::{PACKS_OPEN_MAX, SHARD_CHECK_BLOCK};
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;

use crate::database::{private_dir, sync_dir};
use crate::error::StoreError;

/// Shards start at multiples of this, so that all of one can be given back to the disk.
pub(super) const BLOCK: u64 = 4096;
/// Bytes kept of each block's BLAKE3. It is against rot, not malice: whole shards are checked against their address.
pub(super) const SUM_LEN: usize = 8;

/// What a shard of `len` bytes takes up.
pub(super) fn room(len: u64) -> u64 {
    len.next_multiple_of(BLOCK)
}

/// The short hashes of a shard's blocks, one after another.
pub(super) fn sums(body: &[u8]) -> Vec<u8> {
    body.chunks(SHARD_CHECK_BLOCK).flat_map(sum).collect()
}

fn sum(block: &[u8]) -> [u8; SUM_LEN] {
    let mut short = [0; SUM_LEN];
    short.copy_from_slice(&blake3::hash(block).as_bytes()[..SUM_LEN]);
    short
}

/// Whether `bytes`, read from the start of block `first` on, are what `sums` say.
pub(super) fn sums_match(bytes: &[u8], sums: &[u8], first: usize) -> bool {
    bytes.chunks(SHARD_CHECK_BLOCK).enumerate().all(|(i, block)| {
        let at = (first + i) * SUM_LEN;
        sums.get(at..at + SUM_LEN).is_some_and(|expected| expected == sum(block).as_slice())
    })
}

/// A stretch of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) pack: u32,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The directory of packs.
pub(super) struct Packs {
    dir: PathBuf,
    open: Mutex<BTreeMap<u32, Arc<File>>>,
}

impl Packs {
    pub(super) fn open(dir: PathBuf) -> Result<Self, StoreError> {
        private_dir(&dir)?;
        Ok(Self { dir, open: Mutex::new(BTreeMap::new()) })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, pack: u32) -> PathBuf {
        self.dir.join(format!("{pack:06}.pack"))
    }

    /// The numbers and lengths of all packs. Files with other names are left alone.
    pub(super) fn list(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let error = |e| StoreError::io(&self.dir, e);
        let mut packs = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".pack")).and_then(|stem| stem.parse().ok());
            if let Some(number) = number {
                packs.insert(number, entry.metadata().map_err(error)?.len());
            }
        }
        Ok(packs)
    }

    /// An existing pack.
    pub(super) fn file(&self, pack: u32) -> io::Result<Arc<File>> {
        self.file_or(pack, || File::options().read(true).write(true).open(self.path(pack)))
    }

    /// A new pack; it is an error when there is one with this number.
    pub(super) fn create(&self, pack: u32) -> io::Result<Arc<File>> {
        self.file_or(pack, || File::options().read(true).write(true).create_new(true).mode(0o600).open(self.path(pack)))
    }

    /// Opens under the lock, so that a pack that is being removed cannot come back as an open file nobody closes.
    fn file_or(&self, pack: u32, open: impl FnOnce() -> io::Result<File>) -> io::Result<Arc<File>> {
        let mut files = self.open.lock();
        if let Some(file) = files.get(&pack) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(open()?);
        if files.len() >= PACKS_OPEN_MAX {
            // The oldest is the least likely to be wanted next; whoever wants it opens it again.
            files.pop_first();
        }
        files.insert(pack, Arc::clone(&file));
        Ok(file)
    }

    /// Makes the names of new packs durable.
    pub(super) fn sync_names(&self) -> Result<(), StoreError> {
        sync_dir(&self.dir)
    }

    /// Cuts a pack to `len` bytes.
    pub(super) fn truncate(&self, pack: u32, len: u64) -> io::Result<()> {
        self.file(pack)?.set_len(len)
    }

    /// Removes a pack; readers that have it open can finish.
    pub(super) fn remove(&self, pack: u32) -> io::Result<()> {
        let mut files = self.open.lock();
        files.remove(&pack);
        match std::fs::remove_file(self.path(pack)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Gives the space of a span back to the disk. Where the file system cannot, the space stays taken until the
    /// pack goes: no error, because nothing is wrong with any shard.
    pub(super) fn punch(&self, span: Span) {
        let punched = self.file(span.pack).and_then(|file| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&*file, flags, span.offset, room(span.len))?)
        });
        match punched {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(pack = span.pack, error = %e, "space of a released shard stays taken");
            }
            _ => {}
        }
    }

    /// Reads exactly `len` bytes.
    pub(super) fn read(&self, pack: u32, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = self.file(pack)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}
