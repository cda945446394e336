//! The translation between [`Vfs`] and the kernel: the only module that knows `fuser`.
//!
//! It decides two things only, both about how the kernel gets at content. *Passthrough*: the kernel reads and writes
//! the backing file of an open file itself; it takes CAP_SYS_ADMIN and Linux 6.9. *Writeback*: the kernel collects
//! writes in its page cache. A mount has one of them, because the kernel excludes both at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use parking_lot::{Condvar, Mutex};

use crate::tree::Tree;
use crate::vfs::{ROOT, Vfs};

mod convert;
mod error;
mod handler;
mod kernels;
mod linger;
mod mounts;
mod opens;
mod pool;

pub use error::MountError;
pub use kernels::Kernels;
pub use mounts::clear_stale;

use handler::Handler;
use kernels::KernelCache;
use linger::Linger;
use opens::Opens;

/// File system name and subtype, as `mount` and `df` show them.
const NAME: &str = "hypernet";

/// How long the kernel may keep names and attributes: as long as it likes, since every change passes through it or
/// is announced to it.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the kernel may take to end a session after unmounting.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Whether the kernel may use backing files directly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passthrough {
    /// Where kernel and capabilities allow it.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Other users may use the mount; the kernel checks permissions either way.
    pub allow_other: bool,
    /// Whether the kernel may use backing files directly.
    pub passthrough: Passthrough,
    /// Threads that serve the kernel.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { allow_other: rustix::process::geteuid().is_root(), passthrough: Passthrough::Auto, threads: 2 }
    }
}

/// How the kernel gets at content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// It reads and writes local files itself.
    Passthrough,
    /// It collects writes in its page cache.
    Writeback,
}

/// Set when the session is over.
#[derive(Debug, Default)]
struct Ended {
    flag: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    fn set(&self) {
        *self.flag.lock() = true;
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Option<Duration>) -> bool {
        let mut flag = self.flag.lock();
        let until = timeout.map(|timeout| std::time::Instant::now() + timeout);
        while !*flag {
            match until {
                None => self.changed.wait(&mut flag),
                Some(until) => {
                    if self.changed.wait_until(&mut flag, until).timed_out() {
                        break;
                    }
                }
            }
        }
        *flag
    }
}

/// A mounted filesystem. Dropping it unmounts it.
pub struct MountHandle {
    tree: Arc<Tree>,
    kernels: Arc<Kernels>,
    dir: PathBuf,
    device: Option<String>,
    profile: Profile,
    session: Mutex<Option<BackgroundSession>>,
    ended: Arc<Ended>,
    inside: Arc<Mutex<()>>,
}

impl std::fmt::Debug for MountHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountHandle").field("dir", &self.dir).field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// Mounts a working tree on `dir`, which must exist, with nothing beside it.
pub fn mount(vfs: Arc<Vfs>, dir: &Path, options: MountOptions) -> Result<MountHandle, MountError> {
    mount_tree(Arc::new(Tree::new(vfs.clone(), None, ROOT)), Kernels::new(vfs), dir, options)
}

/// Mounts a tree on `dir`, which must exist. Several of one working tree are mounted side by side with the same `kernels`.
pub fn mount_tree(
    tree: Arc<Tree>,
    kernels: Arc<Kernels>,
    dir: &Path,
    options: MountOptions,
) -> Result<MountHandle, MountError> {
    let dir = mounts::check_mount_point(dir)?;
    let ended = Arc::new(Ended::default());
    let profile = Arc::new(OnceLock::new());
    let linger = Arc::new(Linger::default());
    let opens = Arc::new(Opens::default());
    let all = kernels.clone();
    let handler =
        Handler::new(tree.clone(), all, &options, profile.clone(), ended.clone(), linger.clone(), opens.clone())?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(NAME.into()),
        MountOption::Subtype(NAME.into()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    if rustix::process::geteuid().is_root() {
        // Who is root here may have device nodes and setuid programs in the tree, as on any local disk.
        config.mount_options.retain(|option| !matches!(option, MountOption::NoDev | MountOption::NoSuid));
        config.mount_options.extend([MountOption::Dev, MountOption::Suid]);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.threads.max(1));
    let session = Session::new(handler, &dir, &config).map_err(|error| MountError::from_mount(&dir, error))?;
    let profile = profile.get().copied().ok_or(MountError::Handshake)?;
    linger.begin(&session);
    let inside = Arc::new(Mutex::new(()));
    let device = mounts::device(&dir);
    let (notifier, inside_too) = (session.notifier(), inside.clone());
    let (at, on) = (dir.clone(), device.clone());
    let kernel = KernelCache { notifier, tree: tree.clone(), dir: at, device: on, profile, opens, inside: inside_too };
    // What the first request finds must be known to be known.
    kernels.join(kernel);
    let passed_through = profile == Profile::Passthrough;
    let session = session.spawn().map_err(|error| {
        kernels.leave(&tree, passed_through);
        MountError::from_mount(&dir, error)
    })?;
    if let Some(device) = &device {
        mounts::raise_read_ahead(device);
    }
    Ok(MountHandle { tree, kernels, dir, device, profile, session: Mutex::new(Some(session)), ended, inside })
}

impl MountHandle {
    fn leave(&self) {
        self.kernels.leave(&self.tree, self.profile == Profile::Passthrough);
    }

    /// Shows another root of the working tree from now on. Blocks.
    pub fn switch(&self, top: u64) -> crate::vfs::Result<()> {
        self.kernels.switch(&self.tree, top)
    }

    /// The root that is shown.
    pub fn top(&self) -> u64 {
        self.tree.top()
    }

    /// How the kernel gets at content here.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether anybody who has nothing open there can find it. One that was taken out of sight lives on until its last
    /// user lets go of it.
    pub fn is_in_sight(&self) -> bool {
        !self.ended.wait(Some(Duration::ZERO)) && mounts::is_in_sight(self.device.as_deref())
    }

    /// Unmounts; an error while somebody uses the mount, which then stays.
    pub fn unmount(&self) -> Result<(), MountError> {
        // What is found in its place otherwise is somebody else's.
        if self.is_in_sight() {
            let _inside = self.inside.lock();
            mounts::unmount(&self.dir, false)?;
        }
        // One that was taken out of sight before lives on until its last user lets go of it.
        if !self.ended.wait(Some(LAST_WORDS)) {
            return Err(MountError::Busy(self.dir.clone()));
        }
        self.finish()
    }

    /// Takes the mount out of sight at once; it ends when its last user lets go of it.
    pub fn detach(&self) -> Result<(), MountError> {
        if self.is_in_sight() {
            mounts::unmount(&self.dir, true)?;
        }
        Ok(())
    }

    /// Waits until the mount has ended, whoever unmounted it.
    pub fn wait(&self) -> Result<(), MountError> {
        self.ended.wait(None);
        self.finish()
    }

    /// As [`Self::wait`], but not longer than `timeout`; whether it has ended.
    pub fn wait_for(&self, timeout: Duration) -> bool {
        self.ended.wait(Some(timeout))
    }

    fn finish(&self) -> Result<(), MountError> {
        self.leave();
        match self.session.lock().take() {
            Some(session) => session.join().map_err(|error| MountError::from_mount(&self.dir, error)),
            None => Ok(()),
        }
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if let Some(session) = self.session.lock().take() {
            self.leave();
            if self.is_in_sight()
                && let Err(error) = mounts::unmount(&self.dir, true)
            {
                tracing::warn!(dir = %self.dir.display(), %error, "the mount could not be taken down");
            }
            drop(session);
        }
    }
}
