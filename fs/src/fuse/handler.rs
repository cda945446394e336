//! One method per request: arguments in, an operation of the [`Tree`], the answer out.
//!
//! A request is first tried on the thread that serves the kernel, which must not wait; what would have to is repeated
//! on a thread that may wait for the disk, or on one that may wait for the mesh. So local work never stands behind
//! peers that do not answer. A panic answers that one request with EIO: the dropped reply does that by itself.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BackingId, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use hypernet_core::limits::{MIB, NAME_MAX};
use hypernet_core::tree::FileKind;

use super::convert::{attr, errno, kind, nothing, set_time, timespec};
use super::kernels::Kernels;
use super::linger::Linger;
use super::opens::{Opens, Reply};
use super::pool::Pool;
use super::{Ended, MountError, MountOptions, Passthrough, Profile, TTL};
use crate::panics;
use crate::tree::Tree;
use crate::vfs::patience::{self, Wait};
use crate::vfs::{self, Caller, SetAttr, VfsError, Whence, XattrFlags};

/// Largest write of the kernel.
const MAX_WRITE: u32 = MIB as u32;

/// Requests of the kernel's own (read-ahead, writeback, release) that it has under way at once.
const MAX_BACKGROUND: u16 = 64;

/// How long after its arrival a request may have to wait for its turn at the mesh: as long as a fetch may take then.
const TURN_WITHIN: Duration = Duration::from_secs(20);

/// File systems below the backing files: an overlay over a disk is as far as the kernel goes.
const STACK_DEPTH: u32 = 2;

/// Inode numbers are never reused.
const GENERATION: Generation = Generation(0);

/// Runs a handler; a panic in it is an error line and not the end of a thread.
pub(super) fn guarded(work: impl FnOnce()) {
    if let Err(text) = panics::caught(work) {
        tracing::error!(text, "a filesystem request panicked and was answered with EIO");
    }
}

pub(super) struct Handler {
    tree: Arc<Tree>,
    kernels: Arc<Kernels>,
    opens: Arc<Opens>,
    disk: Pool,
    mesh: Arc<Pool>,
    wanted: Passthrough,
    profile: Arc<OnceLock<Profile>>,
    /// The kernel can open and close directories without a word to us.
    quiet_dirs: bool,
    ended: Arc<Ended>,
    linger: Arc<Linger>,
}

thread_local! {
    /// What was read last on this thread.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

struct Opening {
    reply: ReplyOpen,
    cached: FopenFlags,
}

impl Reply for Opening {
    fn register(&self, file: &File) -> io::Result<BackingId> {
        self.reply.open_backing(file)
    }

    fn answer(self, backing: Option<&BackingId>, direct: bool) {
        match backing {
            Some(id) => self.reply.opened_passthrough(FileHandle(0), passing(direct), id),
            None => self.reply.opened(FileHandle(0), self.cached),
        }
    }
}

struct Creating {
    reply: ReplyCreate,
    attr: FileAttr,
    ttl: Duration,
    cached: FopenFlags,
}

impl Reply for Creating {
    fn register(&self, file: &File) -> io::Result<BackingId> {
        self.reply.open_backing(file)
    }

    fn answer(self, backing: Option<&BackingId>, direct: bool) {
        let (attr, handle) = (&self.attr, FileHandle(0));
        match backing {
            Some(id) => {
                self.reply.created_passthrough(&self.ttl, attr, GENERATION, handle, passing(direct), id);
            }
            None => self.reply.created(&self.ttl, attr, GENERATION, handle, self.cached),
        }
    }
}

/// How a handle is opened of an inode that is open in passthrough: the kernel knows no other way, but where it does direct
/// I/O that comes first.
fn passing(direct: bool) -> FopenFlags {
    if direct { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() }
}

fn may_pass_through() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

fn ttl(attr: &vfs::Attr) -> Duration {
    if attr.volatile { Duration::ZERO } else { TTL }
}

fn caller(req: &Request, umask: u32) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), umask }
}

fn answer_entry(reply: ReplyEntry, result: vfs::Result<vfs::Attr>) {
    match result {
        // What is beside the working tree may have gone from its place without a word.
        Ok(found) if found.volatile && found.kind == FileKind::Directory => {
            reply.entry(&Duration::ZERO, &attr(&found), GENERATION)
        }
        Ok(found) => reply.entry_with_ttls(&ttl(&found), &TTL, &attr(&found), GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_attr(reply: ReplyAttr, result: vfs::Result<vfs::Attr>) {
    match result {
        Ok(found) => reply.attr(&ttl(&found), &attr(&found)),
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_empty(reply: ReplyEmpty, result: vfs::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_xattr(reply: ReplyXattr, size: u32, result: vfs::Result<Vec<u8>>) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Handler {
    pub(super) fn new(
        tree: Arc<Tree>,
        kernels: Arc<Kernels>,
        options: &MountOptions,
        profile: Arc<OnceLock<Profile>>,
        ended: Arc<Ended>,
        linger: Arc<Linger>,
        opens: Arc<Opens>,
    ) -> Result<Self, MountError> {
        Ok(Self {
            tree,
            kernels,
            opens,
            disk: Pool::new("disk", None),
            mesh: Arc::new(Pool::new("mesh", Some(TURN_WITHIN))),
            wanted: options.passthrough,
            profile,
            quiet_dirs: false,
            ended,
            linger,
        })
    }

    fn passes_through(&self) -> bool {
        self.profile.get() == Some(&Profile::Passthrough)
    }

    /// How a handle is opened that does not use passthrough. Where others write past the page cache, what it has
    /// from an earlier open may be old.
    fn cached(&self) -> FopenFlags {
        if self.passes_through() { FopenFlags::empty() } else { FopenFlags::FOPEN_KEEP_CACHE }
    }

    /// Runs `op` here if it need not wait, else on a thread that may wait for as much as it needs, and answers.
    fn serve<R: Send + 'static, T>(
        &self,
        reply: R,
        op: impl Fn(&Tree) -> vfs::Result<T> + Send + 'static,
        answer: impl FnOnce(R, vfs::Result<T>) + Send + 'static,
    ) {
        let arrived = Instant::now();
        guarded(|| match patience::never(|| op(&self.tree)) {
            Err(VfsError::WouldBlock(Wait::Disk)) => {
                let (tree, mesh) = (self.tree.clone(), self.mesh.clone());
                let job = move || match patience::for_disk(|| op(&tree)) {
                    Err(VfsError::WouldBlock(_)) => mesh.run(arrived, Box::new(move || answer(reply, op(&tree)))),
                    result => answer(reply, result),
                };
                self.disk.run(arrived, Box::new(job));
            }
            Err(VfsError::WouldBlock(Wait::Mesh)) => {
                let tree = self.tree.clone();
                self.mesh.run(arrived, Box::new(move || answer(reply, op(&tree))));
            }
            result => {
                answer(reply, result);
                self.linger.rest();
            }
        });
    }
}

impl Filesystem for Handler {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_POSIX_ACL
            // A directory's default list takes the place of the umask.
            | InitFlags::FUSE_DONT_MASK;
        let passthrough = InitFlags::FUSE_PASSTHROUGH;
        let profile = if self.wanted == Passthrough::Auto
            && offered.contains(passthrough)
            && may_pass_through()
            && self.tree.vfs().tells_holders()
        {
            Profile::Passthrough
        } else {
            Profile::Writeback
        };
        let flags = match profile {
            Profile::Passthrough => wanted | passthrough,
            Profile::Writeback => wanted | InitFlags::FUSE_WRITEBACK_CACHE,
        };
        // What the kernel lacks costs speed, not correctness.
        let _ = config.add_capabilities(flags & offered);
        if profile == Profile::Passthrough {
            let _ = config.set_max_stack_depth(STACK_DEPTH);
        }
        let _ = config.set_max_write(MAX_WRITE);
        if let Err(most) = config.set_max_readahead(MAX_WRITE) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(MAX_BACKGROUND);
        self.quiet_dirs = offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        let _ = self.profile.set(profile);
        Ok(())
    }

    fn destroy(&mut self) {
        self.kernels.leave(&self.tree, self.passes_through());
        self.ended.set();
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        // What is beside the working tree may come without a word.
        let missing_for = if self.tree.is_beside(parent.0, &name) { Duration::ZERO } else { TTL };
        self.serve(
            reply,
            move |tree| {
                tree.tell_found(|| tree.lookup(parent.0, &name), |found| found.as_ref().ok().map(|attr| attr.ino))
            },
            move |reply, result| match result {
                Err(VfsError::NotFound) => reply.entry(&missing_for, &nothing(), GENERATION),
                result => answer_entry(reply, result),
            },
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.tree.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(reply, move |tree| tree.getattr(ino.0), answer_attr);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(timespec),
        };
        let caller = caller(req, 0);
        self.serve(
            reply,
            move |tree| tree.setattr(caller, ino.0, set),
            move |reply, result| match result {
                // In writeback the kernel tells that of what it has just unlinked, too. An error would be one of writing
                // to it, for the next syncfs to tell.
                Err(VfsError::NotFound) if set.is_of_a_write() => reply.attr(&Duration::ZERO, &nothing()),
                result => answer_attr(reply, result),
            },
        );
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(
            reply,
            move |tree| tree.readlink(ino.0),
            |reply, result| match result {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let (caller, name) = (caller(req, umask), name.as_bytes().to_vec());
        self.serve(reply, move |tree| tree.tell(tree.mknod(caller, parent.0, &name, mode, rdev.into())), answer_entry);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (caller, name) = (caller(req, umask), name.as_bytes().to_vec());
        self.serve(reply, move |tree| tree.tell(tree.mkdir(caller, parent.0, &name, mode)), answer_entry);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.serve(reply, move |tree| tree.unlink(parent.0, &name), answer_empty);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.serve(reply, move |tree| tree.rmdir(parent.0, &name), answer_empty);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (caller, name) = (caller(req, 0), name.as_bytes().to_vec());
        let target = target.as_os_str().as_bytes().to_vec();
        self.serve(reply, move |tree| tree.tell(tree.symlink(caller, parent.0, &name, &target)), answer_entry);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = match flags {
            RenameFlags::RENAME_EXCHANGE => vfs::RenameFlags::Exchange,
            RenameFlags::RENAME_NOREPLACE => vfs::RenameFlags::NoReplace,
            flags if flags.is_empty() => vfs::RenameFlags::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (name, newname) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
        self.serve(reply, move |tree| tree.rename(parent.0, &name, newparent.0, &newname, flags), answer_empty);
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let name = newname.as_bytes().to_vec();
        self.serve(reply, move |tree| tree.tell(tree.link(ino.0, newparent.0, &name)), answer_entry);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (caller, flags, pass) = (caller(req, 0), vfs::OpenFlags(flags.0), self.passes_through());
        let (opens, cached, tree) = (self.opens.clone(), self.cached(), self.tree.clone());
        self.serve(
            reply,
            move |tree| tree.open_file(caller, ino.0, flags, pass),
            move |reply, result| match result {
                Ok(opened) => {
                    let cached = if opened.stale { FopenFlags::empty() } else { cached };
                    let refused = || tree.read_through_cache(ino.0);
                    opens.open(ino.0, opened.passthrough.as_deref(), Opening { reply, cached }, refused);
                }
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, flags, pass) = (caller(req, umask), vfs::OpenFlags(flags), self.passes_through());
        let (opens, cached, name) = (self.opens.clone(), self.cached(), name.as_bytes().to_vec());
        let tree = self.tree.clone();
        self.serve(
            reply,
            move |tree| {
                let (attr, opened) = tree.create(caller, parent.0, &name, mode, flags, pass)?;
                tree.told(attr.ino);
                Ok((attr, opened))
            },
            move |reply, result| match result {
                Ok((found, opened)) => {
                    let reply = Creating { reply, attr: attr(&found), ttl: ttl(&found), cached };
                    let refused = || tree.read_through_cache(found.ino);
                    opens.open(found.ino, opened.passthrough.as_deref(), reply, refused);
                }
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = size as usize;
        self.serve(
            reply,
            move |tree| {
                BUFFER.with_borrow_mut(|buffer| {
                    buffer.resize(size.max(buffer.len()), 0);
                    tree.read(ino.0, offset, &mut buffer[..size])
                })
            },
            // On the thread that has just read.
            |reply, result| match result {
                Ok(read) => BUFFER.with_borrow(|buffer| reply.data(&buffer[..read])),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded(|| {
            let drop_bits = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
            match self.tree.write(ino.0, offset, data, drop_bits) {
                Ok(()) => reply.written(data.len() as u32),
                Err(error) => reply.error(errno(&error)),
            }
            self.linger.rest();
        });
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // Nothing is held back until close; the kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            self.opens.release(ino.0);
            let flags = vfs::OpenFlags(flags.0);
            let released = if self.passes_through() {
                self.tree.release_passed_through(ino.0, flags)
            } else {
                self.tree.release(ino.0, flags)
            };
            answer_empty(reply, released);
            self.linger.rest();
        });
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.serve(reply, move |tree| tree.fsync(ino.0, datasync), answer_empty);
    }

    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.quiet_dirs {
            // It takes this for all directories from now on, and keeps their entries as it would with those flags.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let tree = self.tree.clone();
        self.serve(
            reply,
            move |tree| tree.readdir(ino.0, offset),
            move |mut reply, result| match result {
                Ok(snapshot) => {
                    for item in vfs::after(&snapshot, offset) {
                        let name = OsStr::from_bytes(&item.name);
                        if reply.add(INodeNo(tree.turn(item.ino)), item.offset, kind(item.kind), name) {
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let tree = self.tree.clone();
        self.serve(
            reply,
            move |tree| tree.readdir(ino.0, offset),
            move |mut reply, result| match result {
                Ok(snapshot) => {
                    for item in vfs::after(&snapshot, offset) {
                        // Of itself and its parent the kernel takes no note.
                        let counts = !matches!(&*item.name, b"." | b"..");
                        let told = |found: &Option<vfs::Attr>| found.as_ref().map(|attr| attr.ino).filter(|_| counts);
                        let Some(found) = tree.tell_found(|| tree.item_now(ino.0, item), told) else { continue };
                        let (name, ttl) = (OsStr::from_bytes(&item.name), ttl(&found));
                        if reply.add(INodeNo(found.ino), item.offset, name, &ttl, &attr(&found), GENERATION) {
                            if counts {
                                tree.forget(found.ino, 1);
                            }
                            break;
                        }
                    }
                    reply.ok();
                }
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.serve(reply, move |tree| tree.fsyncdir(ino.0), answer_empty);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        guarded(|| match self.tree.vfs().statfs() {
            Ok(space) => reply.statfs(
                space.f_blocks,
                space.f_bfree,
                space.f_bavail,
                space.f_files,
                space.f_ffree,
                space.f_bsize as u32,
                NAME_MAX as u32,
                space.f_frsize as u32,
            ),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let flags = match flags {
            libc::XATTR_CREATE => XattrFlags::Create,
            libc::XATTR_REPLACE => XattrFlags::Replace,
            0 => XattrFlags::Set,
            _ => return reply.error(Errno::EINVAL),
        };
        let (caller, name, value) = (caller(req, 0), name.as_bytes().to_vec(), value.to_vec());
        self.serve(reply, move |tree| tree.setxattr(caller, ino.0, &name, &value, flags), answer_empty);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.as_bytes().to_vec();
        self.serve(
            reply,
            move |tree| tree.getxattr(ino.0, &name),
            move |reply, result| answer_xattr(reply, size, result),
        );
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let caller = caller(req, 0);
        self.serve(
            reply,
            move |tree| tree.listxattr(caller, ino.0),
            move |reply, result| answer_xattr(reply, size, result),
        );
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.serve(reply, move |tree| tree.removexattr(ino.0, &name), answer_empty);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // A file is always ready; the kernel does not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(req, 0);
        self.serve(reply, move |tree| tree.fallocate(caller, ino.0, offset, length, mode), answer_empty);
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let whence = match whence {
            libc::SEEK_DATA => Whence::Data,
            libc::SEEK_HOLE => Whence::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let cached = self.opens.is_cached(ino.0);
        self.serve(
            reply,
            move |tree| tree.lseek(ino.0, offset, whence, cached),
            |reply, result| match result {
                Ok(at) => reply.offset(at as i64),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.serve(
            reply,
            move |tree| tree.copy_range(ino_in.0, offset_in, ino_out.0, offset_out, len),
            |reply, result| match result {
                Ok(copied) => reply.written(copied as u32),
                Err(error) => reply.error(errno(&error)),
            },
        );
    }
}
