//! The files that hold the content of this volume's files: sparse, one per inode, in a 0700 directory.
//!
//! Consecutive inode numbers share a directory, so that a tree that was written in one go lies together on the disk.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypernet_core::limits::FS_OPEN_BACKING_MAX;
use hypernet_core::time::Timespec;
use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Inode numbers that share a directory.
const PER_DIRECTORY_BITS: u32 = 12;

/// Of fcntl(2) on Linux: which signal tells of a lease that is to be given back.
const F_SETSIG: libc::c_int = 10;

/// What of a backing file's `stat` says whether it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) mtime: Timespec,
    pub(super) ctime: Timespec,
}

impl Stat {
    /// Bytes on the disk: holes take none.
    pub(super) fn bytes(&self) -> u64 {
        self.blocks * 512
    }

    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(rustix::fs::fstat(file)?))
    }
}

impl From<rustix::fs::Stat> for Stat {
    fn from(stat: rustix::fs::Stat) -> Self {
        let time = |seconds: i64, nanos: u64| Timespec { seconds, nanos: nanos as u32 };
        Self {
            size: stat.st_size as u64,
            blocks: stat.st_blocks as u64,
            mtime: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
            ctime: time(stat.st_ctime as _, stat.st_ctime_nsec as _),
        }
    }
}

/// The directory of backing files and those of them that are open.
#[derive(Debug)]
pub(super) struct Backing {
    root: OwnedFd,
    made: Mutex<std::collections::HashSet<u64>>,
    open: Mutex<LruCache<u64, Arc<File>>>,
    whole: bool,
}

/// `xx/<ino hex>`.
pub(super) fn path(ino: u64) -> String {
    format!("{:02x}/{ino:x}", (ino >> PER_DIRECTORY_BITS) & 0xff)
}

/// Lets the process open as many files as it may, and says how many of them backing files can be.
fn raise_open_files() -> NonZeroUsize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused only where the hard limit is not what it says; then the soft limit stands.
    let _ = setrlimit(Resource::Nofile, wanted);
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let share = usize::try_from(now / 2).unwrap_or(usize::MAX).clamp(16, FS_OPEN_BACKING_MAX);
    NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN)
}

/// Has ext4 put each subdirectory in a part of the disk of its own. Otherwise all files share one, and while many of
/// its inodes have been freed a moment ago, making a file there takes milliseconds (ext4 does not give such inodes
/// out again, and looks at all of them first). Other filesystems refuse the flag and do not need it.
fn spread(dir: &OwnedFd) {
    let set = rustix::fs::ioctl_getflags(dir)
        .and_then(|flags| rustix::fs::ioctl_setflags(dir, flags | rustix::fs::IFlags::TOPDIR));
    if let Err(error) = set {
        tracing::debug!(%error, "backing files are not spread over the disk");
    }
}

/// Takes a lease and gives it back; false when somebody else has the file open for writing, or, with `F_WRLCK`, at all.
fn lease(file: &OwnedFd, kind: libc::c_int) -> io::Result<bool> {
    let set = |command: libc::c_int, value: libc::c_int| {
        // SAFETY: these commands take a number, and the descriptor is open.
        match unsafe { libc::fcntl(file.as_raw_fd(), command, value) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // Who opens it for writing meanwhile waits until it is given back. We would be told by SIGIO, which ends a process
    // that does not expect it; this one is ignored.
    set(F_SETSIG, libc::SIGURG)?;
    match set(libc::F_SETLEASE, kind) {
        Ok(()) => set(libc::F_SETLEASE, libc::F_UNLCK).map(|()| true),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Backing {
    pub(super) fn open_dir(dir: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let root = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        spread(&root);
        let whole = rustix::fs::fstatfs(&root)?.f_type != libc::FUSE_SUPER_MAGIC;
        Ok(Self { root, made: Mutex::default(), open: Mutex::new(LruCache::new(raise_open_files())), whole })
    }

    fn open_with(&self, ino: u64, flags: OFlags) -> io::Result<File> {
        let fd = rustix::fs::openat(
            &self.root,
            path(ino),
            OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOATIME | flags,
            Mode::RUSR | Mode::WUSR,
        )?;
        Ok(File::from(fd))
    }

    /// The backing file; `None` for what was never written.
    pub(super) fn get(&self, ino: u64) -> io::Result<Option<Arc<File>>> {
        if let Some(file) = self.open.lock().get(&ino) {
            return Ok(Some(file.clone()));
        }
        match self.open_with(ino, OFlags::empty()) {
            Ok(file) => Ok(Some(self.keep(ino, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The backing file, made if need be.
    pub(super) fn ensure(&self, ino: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.open.lock().get(&ino) {
            return Ok(file.clone());
        }
        self.make(ino, OFlags::CREATE)
    }

    /// A new, empty backing file, whatever was there: who still has that mapped keeps it as it was.
    pub(super) fn fresh(&self, ino: u64) -> io::Result<Arc<File>> {
        self.remove(ino)?;
        self.make(ino, OFlags::CREATE | OFlags::TRUNC)
    }

    /// A backing file takes the place of that of another inode: who still has that mapped keeps it as it was.
    pub(super) fn take_over(&self, from: u64, ino: u64) -> io::Result<()> {
        self.make_directory_of(ino)?;
        rustix::fs::renameat(&self.root, path(from), &self.root, path(ino))?;
        self.close(from);
        self.close(ino);
        Ok(())
    }

    fn make_directory_of(&self, ino: u64) -> io::Result<()> {
        let sub = (ino >> PER_DIRECTORY_BITS) & 0xff;
        if !self.made.lock().contains(&sub) {
            self.make_directory(&format!("{sub:02x}"))?;
            self.made.lock().insert(sub);
        }
        Ok(())
    }

    fn make(&self, ino: u64, flags: OFlags) -> io::Result<Arc<File>> {
        self.make_directory_of(ino)?;
        let file = self.open_with(ino, flags)?;
        Ok(self.keep(ino, file))
    }

    /// Makes a subdirectory, under another name first: ext4 chooses its place by the name, and the places of an
    /// earlier tree, removed a moment ago, are the ones to avoid.
    fn make_directory(&self, name: &str) -> io::Result<()> {
        if rustix::fs::statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(());
        }
        static MADE: AtomicU64 = AtomicU64::new(0);
        let now = super::state::now();
        let count = MADE.fetch_add(1, Ordering::Relaxed);
        let new = format!(".{name}-{}-{}-{}-{count}", std::process::id(), now.seconds, now.nanos);
        rustix::fs::mkdirat(&self.root, &new, Mode::RWXU)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.root, &new, &self.root, name, flags) {
            Ok(()) => Ok(()),
            Err(errno) => {
                rustix::fs::unlinkat(&self.root, &new, AtFlags::REMOVEDIR)?;
                match errno {
                    // Another thread was first.
                    rustix::io::Errno::EXIST => Ok(()),
                    // Not every filesystem can do it without replacing.
                    _ => match rustix::fs::mkdirat(&self.root, name, Mode::RWXU) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                        Err(errno) => Err(errno.into()),
                    },
                }
            }
        }
    }

    fn keep(&self, ino: u64, file: File) -> Arc<File> {
        let file = Arc::new(file);
        // What falls out is closed after the lock is gone: close can write.
        let evicted = self.open.lock().push(ino, file.clone());
        drop(evicted);
        file
    }

    pub(super) fn close(&self, ino: u64) {
        let closed = self.open.lock().pop(&ino);
        drop(closed);
    }

    /// Whether somebody has this file open for writing, or mapped so. Not while it is closed here.
    pub(super) fn is_held(&self, ino: u64) -> io::Result<bool> {
        self.is_leased_away(ino, libc::F_RDLCK)
    }

    /// Whether somebody has this file open, or mapped, in whatever way.
    pub(super) fn is_open(&self, ino: u64) -> io::Result<bool> {
        self.is_leased_away(ino, libc::F_WRLCK)
    }

    fn is_leased_away(&self, ino: u64, kind: libc::c_int) -> io::Result<bool> {
        self.close(ino);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOATIME;
        match rustix::fs::openat(&self.root, path(ino), flags, Mode::empty()) {
            Ok(file) => Ok(!lease(&file, kind)?),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether [`Self::is_held`] has an answer on this filesystem.
    pub(super) fn tells_holders(&self) -> bool {
        let probe = || -> io::Result<bool> {
            let name = format!(".probe-{}", std::process::id());
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let held = rustix::fs::openat(&self.root, &name, flags, Mode::RUSR | Mode::WUSR)?;
            let file = rustix::fs::openat(&self.root, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::unlinkat(&self.root, &name, AtFlags::empty())?;
            let while_held = lease(&file, libc::F_RDLCK)?;
            drop(held);
            Ok(!while_held && lease(&file, libc::F_RDLCK)? && lease(&file, libc::F_WRLCK)?)
        };
        probe().unwrap_or(false)
    }

    pub(super) fn stat(&self, ino: u64) -> io::Result<Option<Stat>> {
        let cached = self.open.lock().get(&ino).cloned();
        if let Some(file) = cached {
            return Stat::of(&file).map(Some);
        }
        match rustix::fs::statat(&self.root, path(ino), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sets the times of a backing file that may be closed, so that after a crash they are not taken for a write's.
    pub(super) fn set_times(&self, ino: u64, atime: Timespec, mtime: Timespec) -> io::Result<()> {
        let spec = |t: Timespec| rustix::fs::Timespec { tv_sec: t.seconds, tv_nsec: t.nanos.into() };
        let times = rustix::fs::Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
        match rustix::fs::utimensat(&self.root, path(ino), &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn remove(&self, ino: u64) -> io::Result<()> {
        self.close(ino);
        match rustix::fs::unlinkat(&self.root, path(ino), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether [`Self::sync_all`] does: a FUSE filesystem is not told of it, and it succeeds.
    pub(super) fn syncs_all(&self) -> bool {
        self.whole
    }

    /// Brings everything on the disk that holds the backing files to stable storage.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    pub(super) fn space(&self) -> io::Result<rustix::fs::StatVfs> {
        Ok(rustix::fs::fstatvfs(&self.root)?)
    }

    /// The inode numbers of all backing files.
    pub(super) fn all(&self) -> io::Result<Vec<u64>> {
        let mut all = Vec::new();
        for sub in 0..=0xffu32 {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = match rustix::fs::openat(&self.root, format!("{sub:02x}"), flags, Mode::empty()) {
                Ok(dir) => dir,
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for entry in rustix::fs::Dir::new(dir)? {
                let entry = entry?;
                let ino = entry.file_name().to_str().ok().and_then(|name| u64::from_str_radix(name, 16).ok());
                all.extend(ino);
            }
        }
        Ok(all)
    }
}
