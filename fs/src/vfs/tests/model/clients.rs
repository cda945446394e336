//! Several clients, one order.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::calls::{CLIENTS, Call, Op, Place, SLOTS, any_call};
use super::*;

/// An open file of a client.
#[derive(Clone, Debug)]
struct Handle {
    id: usize,
    ino: u64,
    flags: OpenFlags,
    /// What it reads and writes past us.
    backing: Option<Arc<File>>,
}

impl Handle {
    fn reads(&self) -> bool {
        self.flags.0 & libc::O_ACCMODE != libc::O_WRONLY
    }
}

/// What the kernel keeps of an inode that is open: how the first handle was opened decides for all until the last is
/// closed.
struct Open {
    handles: usize,
    backing: Option<Arc<File>>,
}

/// A listing under way of a client.
#[derive(Debug)]
struct Listing {
    id: usize,
    ino: u64,
    /// What was there all the time since it began, and must come; none before it has begun.
    always: Option<BTreeSet<(String, FileKind)>>,
    /// What was there at any time since, and may come.
    ever: BTreeSet<(String, FileKind)>,
}

struct Client {
    who: Caller,
    files: [Option<Handle>; SLOTS],
    dirs: [Option<Listing>; SLOTS],
}

impl Client {
    fn all() -> [Self; CLIENTS] {
        std::array::from_fn(|n| {
            let who = match n {
                0 => ADMIN,
                n => Caller { uid: 1_000 + n as u32, gid: 100, umask: 0o022 },
            };
            Self { who, files: [const { None }; SLOTS], dirs: [const { None }; SLOTS] }
        })
    }

    fn keeps_bits(&self) -> bool {
        self.who.uid == 0
    }
}

struct Run {
    bed: Option<Bed>,
    model: Model,
    /// Whether the mount lets reads and writes pass by.
    passes: bool,
    opens: BTreeMap<u64, Open>,
    clients: [Client; CLIENTS],
    /// What has lost its last name and the kernel knows: its number here, and there.
    nameless: Vec<(usize, u64)>,
}

impl Run {
    fn new(passes: bool) -> Self {
        let bed = Some(Bed::new().mounted());
        let opens = BTreeMap::new();
        Self { bed, model: Model::new(), passes, opens, clients: Client::all(), nameless: Vec::new() }
    }

    fn bed(&self) -> &Bed {
        self.bed.as_ref().unwrap()
    }

    fn vfs(&self) -> &Vfs {
        &self.bed().vfs
    }

    fn dir(&self, n: usize) -> (usize, u64) {
        let dirs = self.model.dirs();
        let (id, path) = &dirs[n % dirs.len()];
        (*id, self.bed().at(path))
    }

    /// What a place has in it, if anything: its number here, and there.
    fn found(&self, (dir, name): Place) -> Option<(usize, u64)> {
        let (dir, ino) = self.dir(dir);
        let expected = self.model.child(dir, NAMES[name]);
        let found = self.vfs().lookup(ino, NAMES[name].as_bytes());
        assert_eq!(found.clone().map(|attr| attr.kind), expected.clone().map(|id| self.model.things[id].kind()));
        Some((expected.ok()?, found.ok()?.ino))
    }

    fn writer(&self, client: usize, slot: usize) -> Option<Handle> {
        self.clients[client].files[slot].clone().filter(|handle| handle.flags.writes())
    }

    fn close(&mut self, client: usize, slot: usize) {
        if let Some(handle) = self.clients[client].files[slot].take() {
            self.vfs().release(handle.ino, handle.flags).unwrap();
            let open = self.opens.get_mut(&handle.ino).unwrap();
            open.handles -= 1;
            if open.handles == 0 {
                self.opens.remove(&handle.ino);
            }
        }
    }

    fn close_dir(&mut self, client: usize, slot: usize) {
        self.clients[client].dirs[slot] = None;
    }

    /// What a name leads to, and will have no name any more once that one is gone.
    fn last_name(&self, dir: usize, at: u64, name: &str) -> Option<(usize, u64)> {
        let id = self.model.child(dir, name).ok()?;
        let ino = self.vfs().lookup(at, name.as_bytes()).ok()?.ino;
        (self.model.is_dir(id) || self.model.things[id].nlink == 1).then_some((id, ino))
    }

    /// The kernel forgets something without a name that nobody has open.
    fn forget(&mut self, n: usize) {
        let open = |ino| {
            let files = self.clients.iter().flat_map(|client| &client.files).flatten().map(|handle| handle.ino);
            let dirs = self.clients.iter().flat_map(|client| &client.dirs).flatten().map(|listing| listing.ino);
            files.chain(dirs).any(|other| other == ino)
        };
        let Some(&(_, ino)) = self.nameless.get(n).filter(|(_, ino)| !open(*ino)) else { return };
        self.nameless.remove(n);
        self.vfs().forget(ino, 1);
        assert_eq!(self.vfs().getattr(ino), Err(VfsError::NotFound));
    }

    fn close_all(&mut self) {
        for client in 0..CLIENTS {
            for slot in 0..SLOTS {
                self.close(client, slot);
                self.close_dir(client, slot);
            }
        }
    }

    fn step(&mut self, Call { client, op }: &Call) {
        let (client, who) = (*client, self.clients[*client].who);
        match op.clone() {
            Op::Open { .. }
            | Op::Close(_)
            | Op::Write(..)
            | Op::Append(..)
            | Op::Read(..)
            | Op::Copy(..)
            | Op::Seek(..)
            | Op::Fallocate(..)
            | Op::Fsync(..) => self.file_step(client, op),
            Op::Restart | Op::Kill | Op::Power | Op::Publish | Op::Drop | Op::Trim(_) | Op::Evict | Op::Recover => {
                self.event(op)
            }
            Op::Forget(n) => self.forget(n),
            Op::Mkdir(place, mode) => {
                self.make(who, place, What::Dir(BTreeMap::new()), mode, |vfs, dir, name| {
                    vfs.mkdir(who, dir, name, mode)
                });
            }
            Op::Symlink(place) => {
                let target = format!("target of {client}").into_bytes();
                self.make(who, place, What::Symlink(target.clone()), 0o777, |vfs, dir, name| {
                    vfs.symlink(who, dir, name, &target)
                });
            }
            Op::Mkfifo(place) => {
                self.make(who, place, What::Fifo, 0o644, |vfs, dir, name| {
                    vfs.mknod(who, dir, name, libc::S_IFIFO | 0o644, 0)
                });
            }
            Op::Link(from, (dir, name)) => {
                let Some((id, ino)) = self.found(from) else { return };
                let (dir, at) = self.dir(dir);
                let done = self.vfs().link(ino, at, NAMES[name].as_bytes()).map(drop);
                assert_eq!(done, self.model.link(id, dir, NAMES[name]));
            }
            Op::Unlink((dir, name)) => {
                let (dir, at) = self.dir(dir);
                let last = self.last_name(dir, at, NAMES[name]);
                let done = self.vfs().unlink(at, NAMES[name].as_bytes());
                assert_eq!(done, self.model.unlink(dir, NAMES[name]));
                self.nameless.extend(last.filter(|_| done.is_ok()));
            }
            Op::Rmdir((dir, name)) => {
                let (dir, at) = self.dir(dir);
                let last = self.last_name(dir, at, NAMES[name]);
                let done = self.vfs().rmdir(at, NAMES[name].as_bytes());
                assert_eq!(done, self.model.rmdir(dir, NAMES[name]));
                self.nameless.extend(last.filter(|_| done.is_ok()));
            }
            Op::Rename((from, old), (to, new), flags) => {
                let ((from, from_at), (to, to_at)) = (self.dir(from), self.dir(to));
                let (old, new) = (NAMES[old], NAMES[new]);
                let same = self.model.child(from, old) == self.model.child(to, new);
                let last = self.last_name(to, to_at, new).filter(|_| flags != RenameFlags::Exchange && !same);
                let done = self.vfs().rename(from_at, old.as_bytes(), to_at, new.as_bytes(), flags);
                assert_eq!(done, self.model.rename((from, old), (to, new), flags));
                self.nameless.extend(last.filter(|_| done.is_ok()));
            }
            Op::Truncate(place, size) => {
                let Some((id, ino)) = self.found(place) else { return };
                let set = SetAttr { size: Some(size.into()), ..SetAttr::default() };
                let done = self.vfs().setattr(who, ino, set).map(drop);
                let expected = match self.model.things[id].kind() {
                    FileKind::Regular => {
                        self.model.truncate(id, size as usize, who.uid == 0);
                        Ok(())
                    }
                    FileKind::Directory => Err(VfsError::IsDirectory),
                    _ => Err(VfsError::Invalid),
                };
                assert_eq!(done, expected);
            }
            Op::Chmod(place, mode) => {
                let Some((id, ino)) = self.found(place) else { return };
                self.vfs().setattr(who, ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
                self.model.thing(id).mode = mode;
            }
            Op::Chown(place, uid, gid) => {
                let Some((id, ino)) = self.found(place) else { return };
                let set = SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
                self.vfs().setattr(who, ino, set).unwrap();
                self.model.chown(id, uid, gid);
            }
            Op::Utimes(place, time) => {
                let Some((id, ino)) = self.found(place) else { return };
                self.vfs().setattr(who, ino, SetAttr { mtime: Some(time), ..SetAttr::default() }).unwrap();
                self.model.thing(id).mtime = match time {
                    SetTime::At(time) => Some(time),
                    SetTime::Now => None,
                };
            }
            Op::SetXattr(place, name, len, flags) => {
                let Some((id, ino)) = self.found(place) else { return };
                let value = vec![len; len.into()];
                let done = self.vfs().setxattr(who, ino, name.as_bytes(), &value, flags);
                assert_eq!(done, self.model.set_xattr(id, name, value, flags));
            }
            Op::RemoveXattr(place, name) => {
                let Some((id, ino)) = self.found(place) else { return };
                let removed = self.model.thing(id).xattrs.remove(name).map(drop).ok_or(VfsError::NoAttribute);
                assert_eq!(self.vfs().removexattr(ino, name.as_bytes()), removed);
            }
            Op::OpenDir(dir, slot) => {
                self.close_dir(client, slot);
                let (id, ino) = self.dir(dir);
                self.clients[client].dirs[slot] = Some(Listing { id, ino, always: None, ever: BTreeSet::new() });
            }
            Op::ReadDir(slot, rewind) => self.read_dir(client, slot, rewind),
            Op::CloseDir(slot) => self.close_dir(client, slot),
            Op::SyncDir(dir) => self.vfs().fsyncdir(self.dir(dir).1).unwrap(),
        }
    }

    fn make(
        &mut self,
        who: Caller,
        (dir, name): Place,
        what: What,
        mode: u32,
        make: impl FnOnce(&Vfs, u64, &[u8]) -> Result<Attr>,
    ) {
        let (dir, ino) = self.dir(dir);
        let made = make(self.vfs(), ino, NAMES[name].as_bytes());
        assert_eq!(made.map(drop), self.model.make(who, dir, NAMES[name], what, mode).map(drop));
    }

    fn entries(&self, id: usize) -> BTreeSet<(String, FileKind)> {
        self.model.entries(id).iter().map(|(name, id)| (name.clone(), self.model.things[*id].kind())).collect()
    }

    /// Whoever goes on with a listing gets all that was there from its beginning, whatever came and went.
    fn read_dir(&mut self, client: usize, slot: usize, rewind: bool) {
        let Some(listing) = &self.clients[client].dirs[slot] else { return };
        let (id, goes_on) = (listing.id, listing.always.is_some() && !rewind);
        let items = self.vfs().readdir(listing.ino, u64::from(goes_on)).unwrap();
        assert_eq!([&*items[0].name, &*items[1].name], [b".".as_slice(), b".."]);
        let shown = |item: &DirItem| (String::from_utf8(item.name.to_vec()).unwrap(), item.kind);
        let listed: BTreeSet<_> = items[2..].iter().map(shown).collect();
        assert_eq!(listed.len(), items.len() - 2, "an entry comes twice");
        match &listing.always {
            Some(always) if goes_on => {
                assert!(listed.is_superset(always), "{listed:?} lacks some of {always:?}");
                assert!(listed.is_subset(&listing.ever), "{listed:?} has more than {:?}", listing.ever);
            }
            _ => {
                let now = self.entries(id);
                assert_eq!(listed, now);
                if let Some(listing) = &mut self.clients[client].dirs[slot] {
                    (listing.always, listing.ever) = (Some(now.clone()), now);
                }
            }
        }
    }

    /// Something may have changed under listings.
    fn watch_listings(&mut self) {
        for (client, slot) in (0..CLIENTS).flat_map(|client| (0..SLOTS).map(move |slot| (client, slot))) {
            let Some(id) = self.clients[client].dirs[slot].as_ref().map(|listing| listing.id) else { continue };
            let now = self.entries(id);
            if let Some(listing) = &mut self.clients[client].dirs[slot]
                && let Some(always) = &mut listing.always
            {
                always.retain(|entry| now.contains(entry));
                listing.ever.extend(now);
            }
        }
    }

    fn file_step(&mut self, client: usize, op: &Op) {
        let (who, keeps) = (self.clients[client].who, self.clients[client].keeps_bits());
        match op.clone() {
            Op::Open { place, slot, flags } => self.open(client, place, slot, flags),
            Op::Close(slot) => self.close(client, slot),
            Op::Write(slot, at, len, byte) => {
                let Some(handle) = self.writer(client, slot) else { return };
                self.write(&handle, at as usize, &vec![byte; len.into()], keeps);
            }
            Op::Append(slot, len, byte) => {
                let Some(handle) = self.writer(client, slot) else { return };
                let (data, end) = (vec![byte; len.into()], self.model.content(handle.id).len());
                // What the kernel goes by when it appends.
                let size = match &handle.backing {
                    Some(file) => file.metadata().unwrap().len(),
                    None => self.bed().stat(handle.ino).size,
                };
                assert_eq!(size, end as u64);
                self.write(&handle, end, &data, keeps);
            }
            Op::Read(slot, at, len) => {
                let Some(handle) = self.clients[client].files[slot].clone().filter(|handle| handle.reads()) else {
                    return;
                };
                let mut buf = vec![0xee; len.into()];
                let read = match &handle.backing {
                    Some(file) => file.read_at(&mut buf, at.into()).unwrap(),
                    None => self.vfs().read(handle.ino, at.into(), &mut buf).unwrap(),
                };
                let content = self.model.content(handle.id);
                let from = content.len().min(at as usize);
                let expected = &content[from..content.len().min(from + usize::from(len))];
                assert!(buf[..read] == *expected, "read {read} bytes at {at}");
            }
            Op::Copy((other, from, from_at), (to, to_at), len) => {
                let Some(from) = self.clients[other].files[from].clone().filter(|handle| handle.reads()) else {
                    return;
                };
                let Some(to) = self.writer(client, to) else { return };
                let (from_at, to_at) = (from_at as usize, to_at as usize);
                let len = self.model.content(from.id).len().saturating_sub(from_at).min(len.into());
                let done = self.vfs().copy_range(from.ino, from_at as u64, to.ino, to_at as u64, len as u64);
                let overlap = from.id == to.id && from_at < to_at + len && to_at < from_at + len;
                if len > 0 && overlap {
                    assert_eq!(done, Err(VfsError::Invalid));
                    return;
                }
                assert_eq!(done, Ok(len as u64));
                if len > 0 {
                    let data = self.model.content(from.id)[from_at..from_at + len].to_vec();
                    self.model.write(to.id, to_at, &data, false);
                }
            }
            Op::Seek(slot, at, whence) => {
                let Some(handle) = self.clients[client].files[slot].clone() else { return };
                self.seek(&handle, at as usize, whence);
            }
            Op::Fallocate(slot, at, len, mode) => {
                let Some(handle) = self.writer(client, slot) else { return };
                let done = self.vfs().fallocate(who, handle.ino, at.into(), len.into(), mode);
                if mode == libc::FALLOC_FL_PUNCH_HOLE {
                    assert_eq!(done, Err(VfsError::NotSupported));
                } else if len == 0 {
                    assert_eq!(done, Err(VfsError::Invalid));
                } else {
                    assert_eq!(done, Ok(()));
                    let range = at as usize..at as usize + usize::from(len);
                    self.model.fallocate(handle.id, range, mode, keeps);
                }
            }
            Op::Fsync(slot, data_only) => {
                let Some(handle) = self.clients[client].files[slot].clone() else { return };
                self.vfs().fsync(handle.ino, data_only).unwrap();
            }
            other => panic!("not about an open file: {other:?}"),
        }
    }

    fn write(&mut self, handle: &Handle, at: usize, data: &[u8], keeps: bool) {
        match &handle.backing {
            None => {
                self.vfs().write(handle.ino, at as u64, data, !keeps).unwrap();
                self.model.write(handle.id, at, data, keeps);
            }
            Some(_) if data.is_empty() => {}
            // By whom nobody knows, so that it takes the bits of a program that changes identity from everyone.
            Some(file) => {
                file.write_all_at(data, at as u64).unwrap();
                self.model.write(handle.id, at, data, false);
            }
        }
    }

    fn open(&mut self, client: usize, (dir, name): Place, slot: usize, flags: i32) {
        self.close(client, slot);
        let who = self.clients[client].who;
        let (dir, at) = self.dir(dir);
        let name = NAMES[name];
        let opens = OpenFlags(flags & (libc::O_ACCMODE | libc::O_TRUNC));
        let there = self.model.child(dir, name);
        let must_make = flags & libc::O_CREAT != 0 && (there.is_err() || flags & libc::O_EXCL != 0);
        let handle = if must_make {
            let made = self.vfs().create(who, at, name.as_bytes(), 0o4775, opens, self.passes);
            let expected = self.model.make(who, dir, name, What::File(Vec::new()), 0o4775);
            assert_eq!(made.as_ref().map(drop), expected.as_ref().map(drop));
            made.ok().zip(expected.ok()).map(|((attr, opened), id)| (id, attr.ino, opened))
        } else {
            let found = self.vfs().lookup(at, name.as_bytes());
            assert_eq!(found.as_ref().map(drop), there.as_ref().map(drop));
            let Some((attr, id)) = found.ok().zip(there.ok()) else { return };
            let opened = self.vfs().open_file(who, attr.ino, opens, self.passes);
            let expected = match self.model.things[id].kind() {
                FileKind::Regular => Ok(()),
                FileKind::Directory => Err(VfsError::IsDirectory),
                _ => Err(VfsError::Invalid),
            };
            assert_eq!(opened.as_ref().map(drop), expected.as_ref().map(drop));
            if opened.is_ok() && flags & libc::O_TRUNC != 0 {
                self.model.truncate(id, 0, who.uid == 0);
            }
            opened.ok().map(|opened| (id, attr.ino, opened))
        };
        self.clients[client].files[slot] = handle.map(|(id, ino, Opened { passthrough, .. })| {
            let may_pass = passthrough.is_some();
            let open = self.opens.entry(ino).or_insert(Open { handles: 0, backing: passthrough });
            open.handles += 1;
            Handle { id, ino, flags: opens, backing: open.backing.clone().filter(|_| may_pass) }
        });
    }

    /// Where holes are is up to the disk below, in blocks of its own; what is no zero is never in one.
    fn seek(&self, handle: &Handle, at: usize, whence: Whence) {
        let content = self.model.content(handle.id);
        let found = self.vfs().lseek(handle.ino, at as u64, whence, false);
        let zeros = |range: Range<usize>| content[range].iter().all(|byte| *byte == 0);
        match (found, whence) {
            (Err(error), _) => {
                assert_eq!(error, VfsError::NoSuchOffset);
                assert!(at >= content.len() || whence == Whence::Data && zeros(at..content.len()));
            }
            (Ok(found), Whence::Data) => assert!(zeros(at..found as usize), "data before {found}"),
            (Ok(found), Whence::Hole) => {
                let found = found as usize;
                assert!((at..=content.len()).contains(&found) && (found == content.len() || content[found] == 0));
            }
        }
    }

    fn event(&mut self, op: &Op) {
        match op {
            Op::Restart => {
                self.close_all();
                self.nameless.clear();
                self.bed = self.bed.take().map(|bed| bed.restart().mounted());
            }
            Op::Kill | Op::Power => {
                // Nobody closes anything.
                self.clients = Client::all();
                self.opens.clear();
                self.nameless.clear();
                let bed = self.bed.take().unwrap();
                bed.vfs.commit().unwrap();
                let meta = if matches!(op, Op::Kill) { bed.meta.after_kill() } else { bed.meta.after_power_loss() };
                self.bed = Some(bed.reopen(meta).mounted());
            }
            Op::Publish => {
                self.bed().publish();
                let writers = self.clients.iter().flat_map(|client| &client.files).flatten();
                if writers.filter(|handle| handle.flags.writes()).count() == 0 {
                    assert_eq!(self.bed().publish(), None, "nothing changed since");
                }
            }
            Op::Drop => {
                self.bed().drop_cache(None).unwrap();
            }
            Op::Trim(limit) => {
                let limit = u64::from(*limit);
                let served = &mut |contents: &[&Content]| vec![true; contents.len()];
                let trimmed = self.vfs().trim_cache(limit, served).unwrap();
                let is_open = self.clients.iter().flat_map(|client| &client.files).flatten().next().is_some();
                let is_dirty = self.vfs().pending(VOLUME).files > 0;
                assert!(trimmed.after <= limit || is_open || is_dirty, "{trimmed:?}");
                assert!(trimmed.before > limit || trimmed.after == trimmed.before, "{trimmed:?}");
            }
            Op::Evict => {
                self.vfs().commit().unwrap();
                for _ in 0..3 {
                    self.vfs().evict();
                }
            }
            Op::Recover => {
                self.close_all();
                self.vfs().setattr(ADMIN, ROOT, SetAttr { mode: Some(0o755), ..SetAttr::default() }).unwrap();
                self.model.thing(TOP).mode = 0o755;
                let root = self.bed().publish().unwrap();
                self.nameless.clear();
                self.bed = Some(self.bed().recovered(root).mounted());
            }
            other => panic!("not an event: {other:?}"),
        }
    }

    #[track_caller]
    fn compare_thing(&self, id: usize, ino: u64, path: &str) {
        let (attr, thing) = (self.bed().stat(ino), &self.model.things[id]);
        let shown = (attr.kind, attr.nlink, attr.mode, attr.uid, attr.gid);
        let expected = (thing.kind(), thing.nlink, thing.mode, thing.uid, thing.gid);
        assert_eq!(shown, expected, "kind, links, mode, owner and group of {path:?}");
        if let Some(mtime) = thing.mtime {
            assert_eq!(attr.mtime, mtime, "mtime of {path:?}");
        }
        let names: String = thing.xattrs.keys().map(|name| format!("{name}\0")).collect();
        assert_eq!(String::from_utf8(self.vfs().listxattr(ADMIN, ino).unwrap()).unwrap(), names, "xattrs of {path:?}");
        for (name, value) in &thing.xattrs {
            assert!(self.vfs().getxattr(ino, name.as_bytes()).unwrap() == *value, "{name} of {path:?}");
        }
        match &thing.what {
            What::File(content) => {
                assert_eq!(attr.size, content.len() as u64, "size of {path:?}");
                assert!(self.bed().read(ino) == *content, "content of {path:?}");
            }
            What::Symlink(target) => assert_eq!(self.vfs().readlink(ino).unwrap(), *target, "target of {path:?}"),
            What::Dir(_) | What::Fifo => {}
        }
    }

    fn compare(&self) {
        let bed = self.bed();
        let mut inos = BTreeMap::new();
        for (id, path) in self.model.dirs() {
            let ino = bed.at(&path);
            let entries = self.model.entries(id);
            assert_eq!(bed.names(ino), entries.keys().cloned().collect::<Vec<_>>(), "in {path:?}");
            self.compare_thing(id, ino, &path);
            for (name, child) in entries {
                let at = bed.vfs.lookup(ino, name.as_bytes()).unwrap().ino;
                assert_eq!(*inos.entry(*child).or_insert(at), at, "hard links are one inode");
                // Of a directory the links are right once it has been listed.
                if !self.model.is_dir(*child) {
                    self.compare_thing(*child, at, &format!("{path}/{name}"));
                }
            }
        }
        for handle in self.clients.iter().flat_map(|client| &client.files).flatten() {
            self.compare_thing(handle.id, handle.ino, "an open file");
        }
        for (id, ino) in &self.nameless {
            self.compare_thing(*id, *ino, "what has no name");
        }
        bed.assert_sound();
    }
}

fn check(passes: bool, calls: &[Call]) {
    let mut run = Run::new(passes);
    for call in calls {
        run.step(call);
        run.watch_listings();
    }
    run.compare();
    // Nor does anything depend on what is in memory, or open.
    run.event(&Op::Restart);
    run.compare();
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn it_agrees_with_the_model(calls in prop::collection::vec(any_call(), 1..100)) {
        check(false, &calls);
    }

    #[test]
    fn so_it_does_where_reads_and_writes_pass_by(calls in prop::collection::vec(any_call(), 1..100)) {
        check(true, &calls);
    }
}

#[test]
fn a_hard_link_in_a_recovered_directory_is_counted_when_the_other_is_listed() {
    let create = |place| Op::Open { place, slot: 0, flags: libc::O_CREAT | libc::O_EXCL | libc::O_RDWR };
    let ops = [
        Op::Mkdir((0, 0), 0o755),
        create((1, 2)),
        Op::Mkdir((0, 1), 0o755),
        Op::Link((1, 2), (2, 0)),
        Op::Recover,
        create((1, 0)),
        Op::Publish,
        Op::Restart,
        create((2, 1)),
        Op::Publish,
    ];
    check(false, &ops.map(|op| Call { client: 0, op }));
}

#[test]
fn a_write_that_passed_by_before_a_kill_takes_the_bits_too() {
    let ops = [
        Op::Open { place: (0, 0), slot: 0, flags: libc::O_CREAT },
        Op::Restart,
        Op::Open { place: (0, 0), slot: 0, flags: libc::O_TRUNC | libc::O_WRONLY },
        Op::Chmod((0, 0), 0o4755),
        Op::Append(0, 1, 0),
        Op::Kill,
    ];
    check(true, &ops.map(|op| Call { client: 1, op }));
}
