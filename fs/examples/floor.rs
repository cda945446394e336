//! The floor: a filesystem in memory on bare `fuser`, with two threads and long TTLs, that does nothing but what a
//! `tar x` and an `rm -r` need. What Hypernet's mount costs is measured against it.
//!
//! `floor MOUNTPOINT`: ends when it is unmounted, or at SIGINT and SIGTERM.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, Session, SessionACL, TimeOrNow,
    WriteFlags,
};
use hypernet_fs::testing::unmount_at_signal;

const TTL: Duration = Duration::from_secs(24 * 60 * 60);
const GENERATION: Generation = Generation(0);

struct Inode {
    attr: FileAttr,
    data: Vec<u8>,
    entries: BTreeMap<OsString, u64>,
}

struct Tables {
    inodes: HashMap<u64, Inode>,
    next: u64,
}

struct Floor(Mutex<Tables>);

fn new_attr(ino: u64, kind: FileType, perm: u16, uid: u32, gid: u32) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Tables {
    fn find(&self, parent: INodeNo, name: &OsStr) -> Option<u64> {
        self.inodes.get(&parent.0)?.entries.get(name).copied()
    }

    fn make(&mut self, req: &Request, parent: INodeNo, name: &OsStr, kind: FileType, mode: u32) -> Option<FileAttr> {
        let ino = self.next;
        let dir = self.inodes.get_mut(&parent.0)?;
        dir.entries.insert(name.to_owned(), ino);
        dir.attr.nlink += u32::from(kind == FileType::Directory);
        self.next += 1;
        let attr = new_attr(ino, kind, (mode & 0o7777) as u16, req.uid(), req.gid());
        self.inodes.insert(ino, Inode { attr, data: Vec::new(), entries: BTreeMap::new() });
        Some(attr)
    }

    fn drop_link(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.attr.nlink = inode.attr.nlink.saturating_sub(1);
            if inode.attr.nlink == 0 || inode.attr.kind == FileType::Directory {
                self.inodes.remove(&ino);
            }
        }
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> bool {
        let Some(ino) = self.inodes.get_mut(&parent.0).and_then(|dir| dir.entries.remove(name)) else { return false };
        self.drop_link(ino);
        true
    }
}

impl Floor {
    fn new() -> Self {
        let root =
            Inode { attr: new_attr(1, FileType::Directory, 0o755, 0, 0), data: Vec::new(), entries: BTreeMap::new() };
        Self(Mutex::new(Tables { inodes: HashMap::from([(1, root)]), next: 2 }))
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::Now => SystemTime::now(),
        TimeOrNow::SpecificTime(time) => time,
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC | InitFlags::FUSE_PARALLEL_DIROPS;
        let _ = config.add_capabilities(wanted | InitFlags::FUSE_HANDLE_KILLPRIV_V2);
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tables = self.lock();
        match tables.find(parent, name).and_then(|ino| tables.inodes.get(&ino)) {
            Some(inode) => reply.entry(&TTL, &inode.attr, GENERATION),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.lock().inodes.get(&ino.0) {
            Some(inode) => reply.attr(&TTL, &inode.attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tables = self.lock();
        let Some(inode) = tables.inodes.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        inode.attr.perm = mode.map_or(inode.attr.perm, |mode| (mode & 0o7777) as u16);
        inode.attr.uid = uid.unwrap_or(inode.attr.uid);
        inode.attr.gid = gid.unwrap_or(inode.attr.gid);
        if let Some(size) = size {
            inode.data.resize(size as usize, 0);
            inode.attr.size = size;
        }
        inode.attr.atime = atime.map_or(inode.attr.atime, time);
        inode.attr.mtime = mtime.map_or(inode.attr.mtime, time);
        reply.attr(&TTL, &inode.attr);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.lock().inodes.get(&ino.0) {
            Some(inode) => reply.data(&inode.data),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        match self.lock().make(req, parent, name, FileType::Directory, mode) {
            Some(attr) => reply.entry(&TTL, &attr, GENERATION),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let mut tables = self.lock();
        let Some(attr) = tables.make(req, parent, name, FileType::Symlink, 0o777) else {
            return reply.error(Errno::ENOENT);
        };
        if let Some(inode) = tables.inodes.get_mut(&attr.ino.0) {
            inode.data = target.as_os_str().as_bytes().to_vec();
            inode.attr.size = inode.data.len() as u64;
            reply.entry(&TTL, &inode.attr, GENERATION);
        }
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut tables = self.lock();
        let Some(dir) = tables.inodes.get_mut(&newparent.0) else { return reply.error(Errno::ENOENT) };
        dir.entries.insert(newname.to_owned(), ino.0);
        let Some(inode) = tables.inodes.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        inode.attr.nlink += 1;
        reply.entry(&TTL, &inode.attr, GENERATION);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.lock().remove(parent, name) { reply.ok() } else { reply.error(Errno::ENOENT) }
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut tables = self.lock();
        let Some(ino) = tables.find(parent, name) else { return reply.error(Errno::ENOENT) };
        if tables.inodes.get(&ino).is_some_and(|dir| !dir.entries.is_empty()) {
            return reply.error(Errno::ENOTEMPTY);
        }
        tables.remove(parent, name);
        if let Some(dir) = tables.inodes.get_mut(&parent.0) {
            dir.attr.nlink = dir.attr.nlink.saturating_sub(1);
        }
        reply.ok();
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
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let mut tables = self.lock();
        let Some(ino) = tables.inodes.get_mut(&parent.0).and_then(|dir| dir.entries.remove(name)) else {
            return reply.error(Errno::ENOENT);
        };
        tables.remove(newparent, newname);
        if let Some(dir) = tables.inodes.get_mut(&newparent.0) {
            dir.entries.insert(newname.to_owned(), ino);
        }
        reply.ok();
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.lock().make(req, parent, name, FileType::RegularFile, mode) {
            Some(attr) => reply.created(&TTL, &attr, GENERATION, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & libc::O_TRUNC != 0
            && let Some(inode) = self.lock().inodes.get_mut(&ino.0)
        {
            inode.data.clear();
            inode.attr.size = 0;
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
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
        match self.lock().inodes.get(&ino.0) {
            Some(inode) => {
                let start = (offset as usize).min(inode.data.len());
                let end = (start + size as usize).min(inode.data.len());
                reply.data(&inode.data[start..end]);
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut tables = self.lock();
        let Some(inode) = tables.inodes.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        let (start, end) = (offset as usize, offset as usize + data.len());
        if inode.data.len() < end {
            inode.data.resize(end, 0);
        }
        inode.data[start..end].copy_from_slice(data);
        inode.attr.size = inode.data.len() as u64;
        inode.attr.blocks = inode.attr.size.div_ceil(512);
        inode.attr.mtime = SystemTime::now();
        reply.written(data.len() as u32);
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let tables = self.lock();
        let Some(dir) = tables.inodes.get(&ino.0) else { return reply.error(Errno::ENOENT) };
        let dots = [(OsStr::new("."), ino.0), (OsStr::new(".."), 1)];
        let all = dots.into_iter().chain(dir.entries.iter().map(|(name, ino)| (name.as_os_str(), *ino)));
        for (at, (name, child)) in all.enumerate().skip(offset as usize) {
            let kind = tables.inodes.get(&child).map_or(FileType::Directory, |inode| inode.attr.kind);
            if reply.add(INodeNo(child), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(dir) = std::env::args().nth(1) else { return Err("usage: floor MOUNTPOINT".into()) };
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("floor".into()), MountOption::DefaultPermissions];
    config.acl = if rustix::process::geteuid().is_root() { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(2);
    let mut session = Session::new(Floor::new(), &dir, &config)?;
    let unmount = Mutex::new(session.unmount_callable());
    unmount_at_signal(move || unmount.lock().unwrap_or_else(PoisonError::into_inner).unmount().is_ok())?;
    session.run()?;
    Ok(())
}
