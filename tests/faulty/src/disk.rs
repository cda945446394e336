//! The disk: what is written, what of it is on stable storage, and what a cut of the power makes of the difference.
//!
//! It promises what POSIX and a journal do and nothing more. An fsync brings the content of one file to stable storage,
//! and all changes of names and attributes that were made before it, in their order. At a cut, of each sector that was
//! written since its file was last synced the old content or the new one remains, each with a chance of one half,
//! whatever the order of the writes; a file that grew has any length in between; and of the changes of names since the
//! last sync of anything a prefix remains.
//!
//! A sync that fails behaves as on Linux: what it did not write counts as written from then on, and no later sync brings
//! it to stable storage unless it is written again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Bytes of a page, by which content is kept.
pub(crate) const PAGE: u64 = 4096;
/// Bytes that a power cut leaves whole.
const SECTOR: usize = 512;
/// What an inode costs on a disk that can be full.
const INODE: u64 = 256;
/// Largest file.
pub(crate) const SIZE_MAX: u64 = 1 << 44;

type Page = Arc<[u8; PAGE as usize]>;

/// What faults may happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Reading content.
    Read,
    /// Writing content.
    Write,
    /// Bringing something to stable storage.
    Sync,
    /// Changing names or attributes.
    Change,
}

/// Content since the last sync: what the stable storage still has in its place.
#[derive(Debug, Default)]
struct Content {
    pages: BTreeMap<u64, Page>,
    /// Pages that differ from the stable ones, which these are; none is zeros.
    stale: BTreeMap<u64, Option<Page>>,
    /// Of those, the ones that a sync failed to write: it is not tried again.
    given_up: BTreeSet<u64>,
    stable_size: u64,
}

#[derive(Debug)]
struct Inode {
    attr: FileAttr,
    content: Content,
    entries: BTreeMap<OsString, u64>,
    symlink: OsString,
    xattrs: BTreeMap<OsString, Vec<u8>>,
    opens: u64,
}

/// How to take back a change that is not on stable storage.
#[derive(Debug)]
enum Undo {
    Entry { dir: u64, name: OsString, was: Option<u64> },
    Attr { ino: u64, was: FileAttr },
    Xattr { ino: u64, name: OsString, was: Option<Vec<u8>> },
}

/// See the module.
pub(crate) struct Disk {
    inodes: HashMap<u64, Inode>,
    next: u64,
    journal: Vec<Undo>,
    random: ChaCha8Rng,
    power: bool,
    capacity: u64,
    /// Calls of a thousand that fail.
    faults: Option<(Call, u64)>,
    /// Faults that happened since they were last asked for.
    pub(crate) failed: u64,
}

type Result<T> = std::result::Result<T, Errno>;

/// Who makes something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What to change of an inode's attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<SystemTime>,
    pub(crate) mtime: Option<SystemTime>,
}

fn fresh(ino: u64, kind: FileType, perm: u16, owner: Owner, rdev: u32) -> Inode {
    let now = SystemTime::now();
    let attr = FileAttr {
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
        uid: owner.uid,
        gid: owner.gid,
        rdev,
        blksize: PAGE as u32,
        flags: 0,
    };
    Inode {
        attr,
        content: Content::default(),
        entries: BTreeMap::new(),
        symlink: OsString::new(),
        xattrs: BTreeMap::new(),
        opens: 0,
    }
}

impl Content {
    /// Puts a page in the place of another, none for zeros.
    fn put(&mut self, at: u64, page: Option<Page>) {
        let was = match page {
            Some(page) => self.pages.insert(at, page),
            None => self.pages.remove(&at),
        };
        self.stale.entry(at).or_insert(was);
        self.given_up.remove(&at);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let count = (PAGE as usize - within).min(data.len() - done);
            let mut page = self.pages.get(&(at / PAGE)).map_or([0; PAGE as usize], |page| **page);
            page[within..within + count].copy_from_slice(&data[done..done + count]);
            self.put(at / PAGE, Some(Arc::new(page)));
            done += count;
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let within = (at % PAGE) as usize;
            let count = (PAGE as usize - within).min(into.len() - done);
            match self.pages.get(&(at / PAGE)) {
                Some(page) => into[done..done + count].copy_from_slice(&page[within..within + count]),
                None => into[done..done + count].fill(0),
            }
            done += count;
        }
    }

    /// Makes zeros of a range.
    fn zero(&mut self, start: u64, end: u64) {
        let whole = start.div_ceil(PAGE)..end / PAGE;
        let inner: Vec<u64> =
            if whole.start < whole.end { self.pages.range(whole).map(|(at, _)| *at).collect() } else { Vec::new() };
        inner.into_iter().for_each(|at| self.put(at, None));
        let first = start..end.min(start.next_multiple_of(PAGE));
        let last = start.max(end - end % PAGE)..end;
        for edge in [first, last] {
            if edge.start < edge.end && self.pages.contains_key(&(edge.start / PAGE)) {
                self.write(edge.start, &vec![0; (edge.end - edge.start) as usize]);
            }
        }
    }

    fn synced(&mut self, size: u64) {
        let given_up = &self.given_up;
        self.stale.retain(|at, _| given_up.contains(at));
        self.stable_size = size;
    }

    /// What is there when the power is back, and how many sectors are the old ones; the size too.
    fn cut(&mut self, size: u64, random: &mut ChaCha8Rng) -> (u64, u64) {
        let mut lost = 0;
        for (at, old) in std::mem::take(&mut self.stale) {
            let never = self.given_up.contains(&at);
            let new = self.pages.get(&at).map_or([0; PAGE as usize], |page| **page);
            let old = old.map_or([0; PAGE as usize], |page| *page);
            let mut left = new;
            let coins = random.next_u64();
            for (sector, bytes) in left.chunks_exact_mut(SECTOR).enumerate() {
                if never || coins >> sector & 1 == 0 {
                    let start = sector * SECTOR;
                    bytes.copy_from_slice(&old[start..start + SECTOR]);
                    lost += 1;
                }
            }
            self.pages.insert(at, Arc::new(left));
        }
        self.given_up.clear();
        let stable = self.stable_size;
        let size = match random.next_u64() % 3 {
            0 => stable,
            1 => size,
            _ => stable.min(size) + random.next_u64() % (stable.abs_diff(size) + 1),
        };
        self.stable_size = size;
        // Nothing is beyond the end.
        self.pages.retain(|at, _| at * PAGE < size);
        if size % PAGE != 0
            && let Some(page) = self.pages.get_mut(&(size / PAGE))
        {
            Arc::make_mut(page)[(size % PAGE) as usize..].fill(0);
        }
        (size, lost)
    }
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(seed: u64, capacity: u64) -> Self {
        let root = fresh(1, FileType::Directory, 0o755, Owner { uid: 0, gid: 0 }, 0);
        Self {
            inodes: HashMap::from([(1, root)]),
            next: 2,
            journal: Vec::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            power: true,
            capacity,
            faults: None,
            failed: 0,
        }
    }

    // ---- what is done to the disk -----------------------------------------------------------------------------------

    /// The power fails. Gives how many sectors and how many changes of names are lost.
    pub(crate) fn cut(&mut self) -> (u64, u64) {
        self.power = false;
        self.faults = None;
        let kept = self.random.next_u64() % (self.journal.len() as u64 + 1);
        let undone = self.journal.split_off(kept as usize);
        let changes = undone.len() as u64;
        for undo in undone.into_iter().rev() {
            match undo {
                Undo::Entry { dir, name, was } => {
                    let Some(dir) = self.inodes.get_mut(&dir) else { continue };
                    match was {
                        Some(ino) => dir.entries.insert(name, ino),
                        None => dir.entries.remove(&name),
                    };
                }
                Undo::Attr { ino, was } => {
                    let Some(inode) = self.inodes.get_mut(&ino) else { continue };
                    // How long it is its content decides.
                    inode.attr = FileAttr { size: inode.attr.size, blocks: inode.attr.blocks, ..was };
                }
                Undo::Xattr { ino, name, was } => {
                    let Some(inode) = self.inodes.get_mut(&ino) else { continue };
                    match was {
                        Some(value) => inode.xattrs.insert(name, value),
                        None => inode.xattrs.remove(&name),
                    };
                }
            }
        }
        self.journal.clear();
        let mut sectors = 0;
        let mut all: Vec<u64> = self.inodes.keys().copied().collect();
        all.sort_unstable();
        for ino in all {
            let Some(inode) = self.inodes.get_mut(&ino) else { continue };
            inode.opens = 0;
            if inode.attr.kind == FileType::RegularFile {
                let (size, lost) = inode.content.cut(inode.attr.size, &mut self.random);
                inode.attr.size = size;
                inode.attr.blocks = inode.content.pages.len() as u64 * (PAGE / 512);
                sectors += lost;
            }
        }
        let mut reached = BTreeSet::from([1]);
        let mut next = vec![1];
        while let Some(dir) = next.pop() {
            if let Some(dir) = self.inodes.get(&dir) {
                next.extend(dir.entries.values().filter(|ino| reached.insert(**ino)));
            }
        }
        self.inodes.retain(|ino, _| reached.contains(ino));
        (sectors, changes)
    }

    /// The power is back.
    pub(crate) fn restore(&mut self) {
        self.power = true;
    }

    /// Leaves this much room, or as much as there was.
    pub(crate) fn fill(&mut self, room: Option<u64>) {
        self.capacity = room.map_or(u64::MAX, |room| self.used() + room);
    }

    /// Of a thousand calls of a kind so many fail.
    pub(crate) fn fail(&mut self, faults: Option<(Call, u64)>) {
        self.faults = faults;
        self.failed = 0;
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.content.pages.len() as u64 * PAGE + INODE).sum()
    }

    /// Bytes in all, and of these the free ones.
    pub(crate) fn space(&self) -> (u64, u64) {
        let used = self.used();
        let all = self.capacity.min(used + (64 << 30));
        (all, all.saturating_sub(used))
    }

    fn may(&mut self, call: Call) -> Result<()> {
        if !self.power {
            return Err(Errno::EIO);
        }
        match self.faults {
            Some((kind, of_thousand)) if kind == call && self.random.next_u64() % 1000 < of_thousand => {
                self.failed += 1;
                Err(Errno::EIO)
            }
            _ => Ok(()),
        }
    }

    fn has_room(&self, bytes: u64) -> Result<()> {
        if self.capacity != u64::MAX && self.used() + bytes > self.capacity { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    // ---- what is asked of it ----------------------------------------------------------------------------------------

    fn get(&self, ino: u64) -> Result<&Inode> {
        if self.power { self.inodes.get(&ino).ok_or(Errno::ENOENT) } else { Err(Errno::EIO) }
    }

    /// Its attributes are about to change.
    fn get_mut(&mut self, ino: u64) -> Result<&mut Inode> {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        self.journal.push(Undo::Attr { ino, was: inode.attr });
        inode.attr.ctime = SystemTime::now();
        Ok(inode)
    }

    fn set_entry(&mut self, dir: u64, name: &OsStr, ino: Option<u64>) -> Result<()> {
        let inode = self.get_mut(dir)?;
        inode.attr.mtime = inode.attr.ctime;
        let was = match ino {
            Some(ino) => inode.entries.insert(name.to_owned(), ino),
            None => inode.entries.remove(name),
        };
        self.journal.push(Undo::Entry { dir, name: name.to_owned(), was });
        Ok(())
    }

    fn find(&self, dir: u64, name: &OsStr) -> Result<u64> {
        self.get(dir)?.entries.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(crate) fn lookup(&self, dir: u64, name: &OsStr) -> Result<FileAttr> {
        self.attr(self.find(dir, name)?)
    }

    pub(crate) fn attr(&self, ino: u64) -> Result<FileAttr> {
        Ok(self.get(ino)?.attr)
    }

    pub(crate) fn change(&mut self, ino: u64, change: Change) -> Result<FileAttr> {
        self.may(if change.size.is_some() { Call::Write } else { Call::Change })?;
        let inode = self.get_mut(ino)?;
        let attr = &mut inode.attr;
        attr.perm = change.mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.unwrap_or(attr.atime);
        attr.mtime = change.mtime.unwrap_or(attr.mtime);
        if let Some(size) = change.size {
            if size > SIZE_MAX {
                return Err(Errno::EFBIG);
            }
            let old = attr.size;
            if change.mtime.is_none() {
                attr.mtime = attr.ctime;
            }
            attr.size = size;
            inode.content.zero(size.min(old), old);
            inode.attr.blocks = inode.content.pages.len() as u64 * (PAGE / 512);
        }
        Ok(inode.attr)
    }

    pub(crate) fn make(
        &mut self,
        dir: u64,
        name: &OsStr,
        kind: FileType,
        mode: u32,
        owner: Owner,
        rdev: u32,
    ) -> Result<FileAttr> {
        self.may(Call::Change)?;
        self.has_room(INODE)?;
        if self.get(dir)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let ino = self.next;
        self.next += 1;
        let inode = fresh(ino, kind, (mode & 0o7777) as u16, owner, rdev);
        let attr = inode.attr;
        self.inodes.insert(ino, inode);
        self.set_entry(dir, name, Some(ino))?;
        if kind == FileType::Directory {
            self.get_mut(dir)?.attr.nlink += 1;
        }
        Ok(attr)
    }

    pub(crate) fn symlink(&mut self, dir: u64, name: &OsStr, target: &OsStr, owner: Owner) -> Result<FileAttr> {
        let ino = self.make(dir, name, FileType::Symlink, 0o777, owner, 0)?.ino.0;
        let inode = self.get_mut(ino)?;
        inode.symlink = target.to_owned();
        inode.attr.size = target.len() as u64;
        Ok(inode.attr)
    }

    pub(crate) fn readlink(&self, ino: u64) -> Result<OsString> {
        Ok(self.get(ino)?.symlink.clone())
    }

    pub(crate) fn link(&mut self, ino: u64, dir: u64, name: &OsStr) -> Result<FileAttr> {
        self.may(Call::Change)?;
        if self.get(dir)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.get_mut(ino)?.attr.nlink += 1;
        self.set_entry(dir, name, Some(ino))?;
        self.attr(ino)
    }

    pub(crate) fn remove(&mut self, dir: u64, name: &OsStr) -> Result<()> {
        self.may(Call::Change)?;
        let ino = self.find(dir, name)?;
        if !self.get(ino)?.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.drop_name(dir, name, ino)
    }

    fn drop_name(&mut self, dir: u64, name: &OsStr, ino: u64) -> Result<()> {
        self.set_entry(dir, name, None)?;
        let inode = self.get_mut(ino)?;
        let is_dir = inode.attr.kind == FileType::Directory;
        inode.attr.nlink = if is_dir { 0 } else { inode.attr.nlink.saturating_sub(1) };
        if is_dir {
            let parent = self.get_mut(dir)?;
            parent.attr.nlink = parent.attr.nlink.saturating_sub(1);
        }
        Ok(())
    }

    pub(crate) fn rename(&mut self, dir: u64, name: &OsStr, to: u64, to_name: &OsStr, flags: u32) -> Result<()> {
        self.may(Call::Change)?;
        let ino = self.find(dir, name)?;
        let target = self.find(to, to_name).ok();
        if flags & libc::RENAME_EXCHANGE != 0 {
            let target = target.ok_or(Errno::ENOENT)?;
            self.set_entry(dir, name, Some(target))?;
            return self.set_entry(to, to_name, Some(ino));
        }
        if let Some(target) = target {
            if flags & libc::RENAME_NOREPLACE != 0 {
                return Err(Errno::EEXIST);
            }
            if target == ino {
                return Ok(());
            }
            if !self.get(target)?.entries.is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
            self.drop_name(to, to_name, target)?;
        }
        self.set_entry(dir, name, None)?;
        self.set_entry(to, to_name, Some(ino))?;
        if dir != to && self.get(ino)?.attr.kind == FileType::Directory {
            let from = self.get_mut(dir)?;
            from.attr.nlink = from.attr.nlink.saturating_sub(1);
            self.get_mut(to)?.attr.nlink += 1;
        }
        Ok(())
    }

    pub(crate) fn opened(&mut self, ino: u64) -> Result<()> {
        if !self.power {
            return Err(Errno::EIO);
        }
        self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?.opens += 1;
        Ok(())
    }

    pub(crate) fn closed(&mut self, ino: u64) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opens = inode.opens.saturating_sub(1);
        }
    }

    pub(crate) fn read(&mut self, ino: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        self.may(Call::Read)?;
        let inode = self.get(ino)?;
        let end = offset.saturating_add(size.into()).min(inode.attr.size);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        inode.content.read(offset, &mut bytes);
        Ok(bytes)
    }

    pub(crate) fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.may(Call::Write)?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        let content = &self.get(ino)?.content;
        let new = (offset / PAGE..end.div_ceil(PAGE)).filter(|at| !content.pages.contains_key(at)).count() as u64;
        self.has_room(new * PAGE)?;
        // What a write does to size and time is no change of names: the content brings it along.
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        inode.content.write(offset, data);
        inode.attr.size = inode.attr.size.max(end);
        inode.attr.blocks = inode.content.pages.len() as u64 * (PAGE / 512);
        inode.attr.mtime = SystemTime::now();
        inode.attr.ctime = inode.attr.mtime;
        Ok(())
    }

    pub(crate) fn fallocate(&mut self, ino: u64, offset: u64, length: u64, mode: i32) -> Result<()> {
        self.may(Call::Write)?;
        let end = offset.checked_add(length).filter(|end| *end <= SIZE_MAX).ok_or(Errno::EFBIG)?;
        let inode = self.get_mut(ino)?;
        match mode {
            0 => inode.attr.size = inode.attr.size.max(end),
            libc::FALLOC_FL_KEEP_SIZE => {}
            _ if mode == libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE => {
                inode.content.zero(offset, end.min(inode.attr.size));
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(())
    }

    /// Brings one file to stable storage, or only changes of names, and what else the journal has.
    pub(crate) fn sync(&mut self, ino: Option<u64>) -> Result<()> {
        let result = self.may(Call::Sync);
        if !self.power {
            return result;
        }
        let which: Vec<u64> = match ino {
            Some(ino) => vec![ino],
            None => self.inodes.keys().copied().collect(),
        };
        for ino in which {
            let Some(inode) = self.inodes.get_mut(&ino) else { continue };
            if result.is_err() {
                let pages: Vec<u64> = inode.content.stale.keys().copied().collect();
                inode.content.given_up.extend(pages);
            } else {
                inode.content.synced(inode.attr.size);
            }
        }
        result?;
        self.journal.clear();
        // What nothing leads to any more.
        self.inodes.retain(|_, inode| inode.attr.nlink > 0 || inode.opens > 0);
        Ok(())
    }

    pub(crate) fn entries(&self, ino: u64) -> Result<Vec<(u64, FileType, OsString)>> {
        let dir = self.get(ino)?;
        let kind = |ino: &u64| self.inodes.get(ino).map_or(FileType::RegularFile, |inode| inode.attr.kind);
        Ok(dir.entries.iter().map(|(name, ino)| (*ino, kind(ino), name.clone())).collect())
    }

    pub(crate) fn xattr(&self, ino: u64, name: &OsStr) -> Result<Vec<u8>> {
        self.get(ino)?.xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    pub(crate) fn xattrs(&self, ino: u64) -> Result<Vec<OsString>> {
        Ok(self.get(ino)?.xattrs.keys().cloned().collect())
    }

    pub(crate) fn set_xattr(&mut self, ino: u64, name: &OsStr, value: Option<&[u8]>) -> Result<()> {
        self.may(Call::Change)?;
        let inode = self.get_mut(ino)?;
        let was = match value {
            Some(value) => inode.xattrs.insert(name.to_owned(), value.to_vec()),
            None => Some(inode.xattrs.remove(name).ok_or(Errno::ENODATA)?),
        };
        self.journal.push(Undo::Xattr { ino, name: name.to_owned(), was });
        Ok(())
    }

    /// Where data or a hole begins at or after an offset.
    pub(crate) fn seek(&self, ino: u64, offset: u64, data: bool) -> Result<u64> {
        let inode = self.get(ino)?;
        if offset >= inode.attr.size {
            return Err(Errno::ENXIO);
        }
        let pages = &inode.content.pages;
        if data {
            let at = pages.range(offset / PAGE..).next().map(|(at, _)| at * PAGE).ok_or(Errno::ENXIO)?;
            return if at < inode.attr.size { Ok(at.max(offset)) } else { Err(Errno::ENXIO) };
        }
        let mut at = offset / PAGE;
        while pages.contains_key(&at) {
            at += 1;
        }
        Ok((at * PAGE).max(offset).min(inode.attr.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Owner = Owner { uid: 0, gid: 0 };

    fn file(disk: &mut Disk, name: &str) -> u64 {
        disk.make(1, OsStr::new(name), FileType::RegularFile, 0o644, ME, 0).unwrap().ino.0
    }

    fn text(disk: &mut Disk, ino: u64) -> Vec<u8> {
        disk.read(ino, 0, 1 << 20).unwrap()
    }

    #[test]
    fn what_is_synced_stays_and_what_is_not_is_torn() {
        let mut torn = 0;
        for seed in 0..40 {
            let mut disk = Disk::new(seed, u64::MAX);
            let ino = file(&mut disk, "a");
            disk.write(ino, 0, &[1; 8192]).unwrap();
            disk.sync(Some(ino)).unwrap();
            disk.write(ino, 0, &[2; 8192]).unwrap();
            disk.cut();
            assert!(disk.read(ino, 0, 1).is_err(), "the power is on");
            disk.restore();
            let found = text(&mut disk, ino);
            assert_eq!(found.len(), 8192);
            assert!(found.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]));
            torn += u64::from(found.contains(&1) && found.contains(&2));
        }
        assert!(torn > 30, "{torn} of 40 were torn");
    }

    #[test]
    fn a_sync_of_anything_brings_the_names_before_it() {
        for seed in 0..20 {
            let mut disk = Disk::new(seed, u64::MAX);
            let (a, b) = (file(&mut disk, "a"), file(&mut disk, "b"));
            disk.rename(1, OsStr::new("a"), 1, OsStr::new("c"), 0).unwrap();
            disk.sync(Some(b)).unwrap();
            disk.rename(1, OsStr::new("c"), 1, OsStr::new("d"), 0).unwrap();
            disk.remove(1, OsStr::new("b")).unwrap();
            disk.cut();
            disk.restore();
            let names: Vec<OsString> = disk.entries(1).unwrap().into_iter().map(|(_, _, name)| name).collect();
            let allowed: [&[&str]; 4] = [&["b", "c"], &["b"], &["b", "d"], &["d"]];
            assert!(allowed.iter().any(|allowed| *allowed == names), "{names:?}");
            assert!(names == ["b"] || disk.attr(a).is_ok());
        }
    }

    #[test]
    fn what_a_failed_sync_gave_up_no_later_one_brings() {
        let mut disk = Disk::new(1, u64::MAX);
        let ino = file(&mut disk, "a");
        disk.sync(None).unwrap();
        disk.write(ino, 0, b"given up").unwrap();
        disk.fail(Some((Call::Sync, 1000)));
        assert!(disk.sync(Some(ino)).is_err());
        disk.fail(None);
        disk.sync(Some(ino)).unwrap();
        assert_eq!(text(&mut disk, ino), b"given up", "the cache still has it");
        disk.cut();
        disk.restore();
        assert_eq!(text(&mut disk, ino), [0; 8]);
        disk.write(ino, 0, b"again").unwrap();
        disk.sync(Some(ino)).unwrap();
        disk.cut();
        disk.restore();
        assert_eq!(text(&mut disk, ino), b"again\0\0\0");
    }

    #[test]
    fn a_full_disk_refuses_what_is_new() {
        let mut disk = Disk::new(1, u64::MAX);
        let ino = file(&mut disk, "a");
        disk.write(ino, 0, &[1; 4096]).unwrap();
        disk.fill(Some(PAGE));
        disk.write(ino, 0, &[2; 8192]).unwrap();
        assert_eq!(disk.write(ino, 8192, &[2]), Err(Errno::ENOSPC));
        assert!(disk.make(1, OsStr::new("b"), FileType::RegularFile, 0o644, ME, 0).is_err());
        disk.write(ino, 0, &[3; 8192]).unwrap();
        disk.fill(None);
        file(&mut disk, "b");
    }

    #[test]
    fn content_is_what_was_written_with_its_holes() {
        let mut disk = Disk::new(1, u64::MAX);
        let ino = file(&mut disk, "a");
        disk.write(ino, 3 * PAGE + 5, b"data").unwrap();
        assert_eq!(disk.seek(ino, 0, true).unwrap(), 3 * PAGE);
        assert_eq!(disk.seek(ino, 0, false).unwrap(), 0);
        assert_eq!(disk.seek(ino, 3 * PAGE, false).unwrap(), 3 * PAGE + 9);
        disk.change(ino, Change { size: Some(3 * PAGE + 7), ..Change::default() }).unwrap();
        disk.change(ino, Change { size: Some(3 * PAGE + 9), ..Change::default() }).unwrap();
        assert_eq!(text(&mut disk, ino)[3 * PAGE as usize..], *b"\0\0\0\0\0da\0\0");
        disk.write(ino, 0, &[7; 3 * PAGE as usize]).unwrap();
        let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        disk.fallocate(ino, 10, 2 * PAGE, hole).unwrap();
        let found = text(&mut disk, ino);
        let (start, end) = (10, 10 + 2 * PAGE as usize);
        assert!(found[..start].iter().chain(&found[end..3 * PAGE as usize]).all(|byte| *byte == 7));
        assert!(found[start..end].iter().all(|byte| *byte == 0));
    }
}
