//! The kernel's sides of all mounts of one working tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use fuser::{INodeNo, Notifier};
use parking_lot::{Mutex, RwLock};

use super::opens::Opens;
use super::{Profile, mounts};
use crate::tree::Tree;
use crate::vfs::{Invalidate, Result, Vfs};

/// Tells the kernel to let go of what it caches. A notification waits for pages under writeback, so it must not
/// come from a thread that serves the kernel.
pub(super) struct KernelCache {
    pub(super) notifier: Notifier,
    pub(super) tree: Arc<Tree>,
    pub(super) dir: PathBuf,
    pub(super) device: Option<String>,
    pub(super) profile: Profile,
    pub(super) opens: Arc<Opens>,
    /// Held while the mount is looked at from outside, which would keep it from being unmounted.
    pub(super) inside: Arc<Mutex<()>>,
}

impl KernelCache {
    fn notify_entry(&self, parent: u64, name: &[u8]) {
        if let Err(error) = self.notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(name)) {
            tracing::debug!(parent, %error, "the kernel could not be told to look a name up again");
        }
    }

    fn no(&self, ino: u64) -> INodeNo {
        INodeNo(self.tree.turn(ino))
    }
}

impl Invalidate for KernelCache {
    fn inode(&self, ino: u64) {
        if let Err(error) = self.notifier.inval_inode(self.no(ino), 0, 0) {
            tracing::debug!(ino, %error, "the kernel could not be told to drop its cache");
        }
    }

    fn attributes(&self, ino: u64) {
        if self.profile == Profile::Writeback {
            // All stores pass through its own cache.
            return;
        }
        self.mode(ino);
    }

    fn mode(&self, ino: u64) {
        // A negative offset: no pages, and so none that are waited for.
        if let Err(error) = self.notifier.inval_inode(self.no(ino), -1, 0) {
            tracing::debug!(ino, %error, "the kernel could not be told to ask for attributes");
        }
    }

    fn entry(&self, parent: u64, name: &[u8]) {
        self.notify_entry(self.tree.turn(parent), name);
    }

    fn keeps_times(&self) -> bool {
        self.profile == Profile::Writeback
    }

    fn flush(&self, open: &[u64]) -> std::io::Result<()> {
        if self.profile == Profile::Passthrough {
            // What is written is in the backing files, whose cache everyone sees; but for what was stored through mappings
            // of files that were first opened when they were not here.
            open.iter().filter(|ino| self.opens.is_cached(**ino)).for_each(|ino| self.inode(*ino));
            return Ok(());
        }
        if mounts::is_in_sight(self.device.as_deref()) {
            let _inside = self.inside.lock();
            match rustix::fs::syncfs(std::fs::File::open(&self.dir)?) {
                // Where no file can end nothing is ever written. Its writer is told, and nobody else need wait for it.
                Err(rustix::io::Errno::FBIG) => tracing::warn!("a write past where a file can end came to nothing"),
                written => written?,
            }
        }
        // Of a FUSE filesystem that starts the writing and waits for none of it; what is let go of is written first.
        open.iter().for_each(|ino| self.inode(*ino));
        Ok(())
    }
}

/// How long a kernel may take to forget a branch.
const LET_GO_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(20);

/// All of them. What is void for one is void for the others: one inode may be seen through several mounts.
pub struct Kernels {
    vfs: Arc<Vfs>,
    /// None of them shows anything of the working tree.
    is_apart: bool,
    /// Of whoever adds one or takes one away.
    turn: Mutex<()>,
    all: Arc<All>,
}

#[derive(Default)]
struct All(RwLock<Vec<Arc<KernelCache>>>);

impl All {
    fn each(&self, tell: impl Fn(&KernelCache)) {
        let all = self.0.read().clone();
        all.iter().for_each(|kernel| tell(kernel));
    }
}

impl Invalidate for All {
    fn inode(&self, ino: u64) {
        self.each(|kernel| kernel.inode(ino));
    }

    fn attributes(&self, ino: u64) {
        self.each(|kernel| kernel.attributes(ino));
    }

    fn mode(&self, ino: u64) {
        self.each(|kernel| kernel.mode(ino));
    }

    fn entry(&self, parent: u64, name: &[u8]) {
        self.each(|kernel| kernel.entry(parent, name));
    }

    fn keeps_times(&self) -> bool {
        self.0.read().iter().any(|kernel| kernel.keeps_times())
    }

    fn flush(&self, open: &[u64]) -> std::io::Result<()> {
        let all = self.0.read().clone();
        all.iter().try_for_each(|kernel| kernel.flush(open))
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("mounts", &self.all.0.read().len()).finish_non_exhaustive()
    }
}

impl Kernels {
    /// Of a working tree that is not mounted yet.
    pub fn new(vfs: Arc<Vfs>) -> Arc<Self> {
        Arc::new(Self { vfs, is_apart: false, turn: Mutex::default(), all: Arc::default() })
    }

    /// Of mounts that show nothing of the working tree, but its past.
    pub fn apart(vfs: Arc<Vfs>) -> Arc<Self> {
        Arc::new(Self { vfs, is_apart: true, turn: Mutex::default(), all: Arc::default() })
    }

    /// One more mount begins.
    pub(super) fn join(&self, kernel: KernelCache) {
        let _turn = self.turn.lock();
        let mut all = self.all.0.write();
        all.push(Arc::new(kernel));
        let is_first = all.len() == 1;
        drop(all);
        if is_first && !self.is_apart {
            self.vfs.set_invalidate(Some(self.all.clone()));
        }
    }

    /// A mount has ended. Nothing where that was said before.
    pub(super) fn leave(&self, tree: &Arc<Tree>, passed_through: bool) {
        let _turn = self.turn.lock();
        let mut all = self.all.0.write();
        let before = all.len();
        all.retain(|kernel| !Arc::ptr_eq(&kernel.tree, tree));
        let (is_known, is_last) = (all.len() < before, all.is_empty());
        drop(all);
        match (is_known, is_last) {
            (false, _) => {}
            (true, _) if self.is_apart => {}
            // A kernel whose mount has ended does not always say what it closes.
            (true, true) => self.vfs.set_invalidate(None),
            (true, false) => tree.give_back(passed_through),
        }
    }

    /// What the kernels have of a branch is let go of, as far as nobody uses it there: then one mount alone may show it. False where
    /// somebody does.
    pub fn let_go_of_branch(&self, name: &[u8], root: u64) -> bool {
        for kernel in self.all.0.read().clone() {
            kernel.notify_entry(crate::past::branches_number(kernel.tree.top()), name);
        }
        let until = std::time::Instant::now() + LET_GO_WITHIN;
        while self.vfs.knows_of(root) {
            if std::time::Instant::now() > until {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// One of them shows another root: what its kernel has of both roots is void.
    pub(super) fn switch(&self, tree: &Arc<Tree>, top: u64) -> Result<()> {
        let before = tree.top();
        if before == top {
            return Ok(());
        }
        let mut names: Vec<Vec<u8>> = Vec::new();
        for root in [before, top] {
            let listing = self.vfs.readdir(root, 0)?;
            names.extend(listing.iter().map(|item| item.name.to_vec()));
        }
        names.extend([crate::past::NAME, crate::vfs::BRANCHES.as_bytes()].map(<[u8]>::to_vec));
        names.sort();
        names.dedup();
        tree.switch(top);
        let Some(kernel) = self.all.0.read().iter().find(|kernel| Arc::ptr_eq(&kernel.tree, tree)).cloned() else {
            return Ok(());
        };
        for root in [before, top] {
            kernel.inode(root);
            kernel.mode(root);
            names.iter().filter(|name| !matches!(&name[..], b"." | b"..")).for_each(|name| kernel.entry(root, name));
        }
        Ok(())
    }
}
