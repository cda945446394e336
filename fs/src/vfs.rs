//! POSIX semantics without a kernel: every operation is a method that takes inode numbers and returns a value or a
//! [`VfsError`].
//!
//! Hot metadata is served from memory under one lock with short critical sections; nothing is read from the mesh, and
//! no file is synced, while it is held. Every change is queued in the order in which it happened; a commit brings the
//! content that was written so far to stable storage first and then the queue, in one transaction. So a crash leaves
//! a prefix of the namespace's history, and never a name without its data.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hypernet_core::id::{DeviceTag, VolumeId};
use hypernet_core::limits::{FS_HOT_INODES_MAX, FS_PENDING_OPS_MAX};
use hypernet_core::port::{MetaStore, RemoteTree};
use hypernet_core::time::Timespec;
use hypernet_core::tree::{Content, FileKind};
use parking_lot::{Condvar, Mutex, RwLock};

mod acl;
mod advance;
mod attr;
mod backing;
mod branches;
mod commit;
mod dir;
mod error;
mod evict;
mod fetch;
mod file;
mod fsck;
mod life;
mod load;
mod mapped;
mod names;
mod node;
pub mod patience;
mod paused;
mod ranges;
mod spoilt;
mod state;
mod sync;
mod volumes;

pub use advance::{Fill, Still};
pub use attr::{SetAttr, SetTime, XattrFlags};
pub use branches::{BRANCHES, Branch, MAIN};
pub use dir::{DirItem, DirSnapshot, after};
pub use error::VfsError;
pub use evict::{Dropped, Served, Trimmed};
pub use file::{OpenFlags, Opened, Whence};
pub use fsck::Checked;
pub use names::RenameFlags;
pub use node::ROOT;
pub use paused::Paused;
pub use sync::{Cut, CutDirectory, CutEntry, Frozen, Pending, Stamp, Synced};
pub use volumes::Rooted;

use backing::Backing;
use commit::{Signal, Stuck};
use fetch::Fetcher;
use state::State;

/// Result of a filesystem operation.
pub type Result<T> = std::result::Result<T, VfsError>;

/// How a working tree is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the backing files; made with mode 0700.
    pub dir: PathBuf,
    /// The volume of the uppermost root.
    pub volume: VolumeId,
    /// Part of the ids of new files: two devices must never make the same one.
    pub device: DeviceTag,
    /// Owner of the root directory of a new volume.
    pub uid: u32,
    /// Group of the root directory of a new volume.
    pub gid: u32,
    /// What was not synced is committed this often.
    pub commit_interval: Duration,
    /// Inodes kept in memory, as far as they are committed and uploaded.
    pub hot_inodes: usize,
    /// Changes that may wait for a commit.
    pub pending_ops: usize,
    /// For so long after a fetch failed, whoever reads there again is told so at once: the kernel asks twice, for its
    /// read-ahead and for the reader, and each would wait for the deadline.
    pub failed_for: Duration,
}

impl Config {
    /// The usual settings for a volume kept in `dir`.
    pub fn new(dir: impl Into<PathBuf>, volume: VolumeId, device: DeviceTag) -> Self {
        Self {
            dir: dir.into(),
            volume,
            device,
            uid: 0,
            gid: 0,
            commit_interval: Duration::from_secs(1),
            hot_inodes: FS_HOT_INODES_MAX,
            pending_ops: FS_PENDING_OPS_MAX,
            failed_for: Duration::from_millis(100),
        }
    }

    /// Who owns what nobody has made here.
    fn owner(&self) -> Caller {
        Caller { uid: self.uid, gid: self.gid, umask: 0o022 }
    }
}

/// Who asks, as far as it matters to what is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bits that new files do not get.
    pub umask: u32,
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    /// `mode & 0o7777`.
    pub mode: u32,
    /// Names, or of a directory 2 and its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of content.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// It may change without an operation that passes through the caller, so it must not be cached.
    pub volatile: bool,
}

/// Tells whoever caches content or attributes (the kernel) to let go of them. Called from a thread that serves no
/// requests and holds no lock.
pub trait Invalidate: Send + Sync {
    /// What is cached of this inode is void.
    fn inode(&self, ino: u64);
    /// The attributes of this inode changed past the kernel, which may have others. This waits for nothing: it may be
    /// called from a thread that serves the kernel.
    fn attributes(&self, ino: u64);
    /// What a write does not move of its attributes has changed, such as the mode, on which it depends who may run it.
    /// This waits for nothing either.
    fn mode(&self, ino: u64);
    /// This name leads to something else, or to nothing any more, or to something since. This waits for whoever looks a
    /// name up in that directory.
    fn entry(&self, parent: u64, name: &[u8]);
    /// Whether the kernel keeps the times of what it writes, and tells of them when they move. They do not move with each
    /// write: its clock has ticks.
    fn keeps_times(&self) -> bool;
    /// Returns when what was written and is only cached so far has been handed over, of these inodes, which are open for
    /// writing, and of all that were closed; an error when some was not.
    fn flush(&self, open: &[u64]) -> std::io::Result<()>;
}

/// Knows how durable a piece of published content is.
pub trait DurabilityInfo: Send + Sync {
    /// For people, such as `durable 25/25`.
    fn describe(&self, content: &Content) -> String;
}

/// The working tree on this device: a volume, with others below it.
pub struct Vfs {
    /// For threads that must not keep it alive.
    me: Weak<Self>,
    config: Config,
    meta: Arc<dyn MetaStore>,
    remote: Arc<dyn RemoteTree>,
    state: Mutex<State>,
    /// A batch was committed, or failed to be.
    committed: Condvar,
    /// Something became dirty.
    dirtied: Condvar,
    /// A volume does not hold still any more.
    stilled: Condvar,
    /// The kernel does not know an inode any more.
    forgotten: Condvar,
    backing: Arc<Backing>,
    syncs: spoilt::Syncs,
    /// Held during a whole commit; has what a failed one must bring again.
    commit: Mutex<Stuck>,
    /// Held around each write to the metadata store. Taken before `state`, never after it.
    meta_write: Mutex<()>,
    /// Held by whoever closes what nobody has mapped any more.
    letting_go: Mutex<()>,
    signal: Arc<Signal>,
    fetcher: Fetcher,
    gauge: evict::Gauge,
    listings: Mutex<dir::Listings>,
    /// Directories whose listing is on its way from the mesh.
    listing: Mutex<HashMap<u64, Arc<load::Listing>>>,
    invalidate: RwLock<Option<Arc<dyn Invalidate>>>,
    durability: RwLock<Option<Arc<dyn DurabilityInfo>>>,
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vfs").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}

impl Vfs {
    /// Who is told when cached content is void, and will [forget](Self::forget) each inode that it has come to know.
    /// Without one nobody knows of any, nor has anything open: a kernel whose mount has ended does not always say what it
    /// closes.
    pub fn set_invalidate(&self, invalidate: Option<Arc<dyn Invalidate>>) {
        let mounted = invalidate.is_some();
        if !mounted {
            self.close_all();
        }
        let known = {
            let mut state = self.state.lock();
            state.mounted = mounted;
            state.told_times = invalidate.as_ref().is_some_and(|kernel| kernel.keeps_times());
            // Another knows of none yet.
            state.away.clear();
            state.nodes.values_mut().for_each(|node| node.told = 0);
            if mounted { state::InoSet::default() } else { std::mem::take(&mut state.known) }
        };
        known.into_iter().for_each(|ino| self.bury_free(ino));
        *self.invalidate.write() = invalidate;
    }

    /// The kernel is about to be told of an inode: once more it will have to forget it.
    pub fn told(&self, ino: u64) {
        self.state.lock().tell(ino);
    }

    /// The same, by this answer, which says of a file what it is as long as nobody changes it.
    pub fn tell(&self, answer: Result<Attr>) -> Result<Attr> {
        answer.inspect(|attr| self.told(attr.ino))
    }

    /// The same, by the answer to a look-up. Another snapshot that comes meanwhile is looked at again: of a file that the
    /// kernel does not know it changes the content.
    pub fn tell_found<T>(&self, look: impl Fn() -> T, ino: impl Fn(&T) -> Option<u64>) -> T {
        loop {
            let before = self.state.lock().advanced;
            let found = look();
            let Some(ino) = ino(&found) else { return found };
            let mut state = self.state.lock();
            if state.advanced == before {
                state.tell(ino);
                return found;
            }
        }
    }

    /// The kernel forgets that it was told of an inode so many times. What it says may come late: it knows one that it
    /// has been told of again.
    pub fn forget(&self, ino: u64, times: u64) {
        {
            let mut state = self.state.lock();
            let State { nodes, away, .. } = &mut *state;
            let told = nodes.get_mut(&ino).map(|node| &mut node.told).or_else(|| away.get_mut(&ino));
            if let Some(told) = told {
                *told = told.saturating_sub(u16::try_from(times).unwrap_or(u16::MAX));
                if *told > 0 {
                    return;
                }
                away.remove(&ino);
                self.forgotten.notify_all();
            }
            if !state.known.remove(&ino) {
                return;
            }
        }
        self.bury_free(ino);
    }

    fn bury_free(&self, ino: u64) {
        let mut state = self.state.lock();
        if state.is_free(ino) {
            state.bury(ino);
            self.arm(&mut state);
        }
    }

    /// Who describes the durability of published content.
    pub fn set_durability_info(&self, info: Option<Arc<dyn DurabilityInfo>>) {
        *self.durability.write() = info;
    }
}

#[cfg(test)]
mod tests;
