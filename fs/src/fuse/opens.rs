//! Which inodes are open, and how: a cached and a passthrough open of one inode cannot coexist, and all passthrough
//! opens of it share one backing id.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use fuser::BackingId;
use parking_lot::Mutex;

enum Mode {
    Cached,
    Passthrough(BackingId),
}

struct Open {
    handles: u32,
    mode: Mode,
}

/// A request to open something, which the kernel waits for.
pub(super) trait Reply {
    /// Registers a backing file with the kernel.
    fn register(&self, file: &File) -> io::Result<BackingId>;
    /// Answers. With a backing id the inode is open in passthrough; a `direct` handle of it is read and written through us
    /// all the same.
    fn answer(self, backing: Option<&BackingId>, direct: bool);
}

/// All open inodes.
#[derive(Default)]
pub(super) struct Opens(Mutex<HashMap<u64, Open>>);

impl Opens {
    /// Counts a handle in and answers. The first handle decides how the inode is open; `file` says whether
    /// passthrough is possible, and without it nothing passes us by through this handle, however the inode is open.
    /// `refused` is called before the answer where the kernel takes none: it reads through its cache then.
    pub(super) fn open(&self, ino: u64, file: Option<&File>, reply: impl Reply, refused: impl FnOnce()) {
        let mut opens = self.0.lock();
        let open = opens.entry(ino).or_insert_with(|| {
            let mode = match file.map(|file| reply.register(file)) {
                None => Mode::Cached,
                Some(Ok(id)) => Mode::Passthrough(id),
                Some(Err(error)) => {
                    tracing::debug!(ino, %error, "the kernel took no backing file: this one is read through us");
                    refused();
                    Mode::Cached
                }
            };
            Open { handles: 0, mode }
        });
        open.handles += 1;
        match &open.mode {
            Mode::Cached => reply.answer(None, false),
            Mode::Passthrough(id) => reply.answer(Some(id), file.is_none()),
        }
    }

    /// Whether an inode is open, and what is written to it passes through the kernel's cache.
    pub(super) fn is_cached(&self, ino: u64) -> bool {
        self.0.lock().get(&ino).is_some_and(|open| matches!(open.mode, Mode::Cached))
    }

    /// Counts a handle out; the backing id goes with the last.
    pub(super) fn release(&self, ino: u64) {
        let mut opens = self.0.lock();
        let gone = match opens.get_mut(&ino) {
            Some(open) if open.handles > 1 => {
                open.handles -= 1;
                None
            }
            Some(_) => opens.remove(&ino),
            None => None,
        };
        drop(opens);
        drop(gone);
    }
}
