//! What a tree of files is, without any of what makes it fast or durable: each operation is a few lines that anyone
//! can hold against POSIX. Things are numbered as they are made and stay when their last name goes, as an open file
//! does.

use super::*;

/// The number of the root directory.
pub(super) const TOP: usize = 0;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o010;

#[derive(Clone, Debug)]
pub(super) enum What {
    Dir(BTreeMap<String, usize>),
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
}

#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) what: What,
    pub(super) nlink: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Where it was set and nothing has changed it since.
    pub(super) mtime: Option<Timespec>,
    pub(super) xattrs: BTreeMap<&'static str, Vec<u8>>,
}

impl Thing {
    pub(super) fn kind(&self) -> FileKind {
        match self.what {
            What::Dir(_) => FileKind::Directory,
            What::File(_) => FileKind::Regular,
            What::Symlink(_) => FileKind::Symlink,
            What::Fifo => FileKind::Fifo,
        }
    }

    fn drop_privileges(&mut self, keeps_bits: bool) {
        if let What::File(_) = self.what
            && !keeps_bits
        {
            self.mode &= !SETUID;
            if self.mode & GROUP_EXEC != 0 {
                self.mode &= !SETGID;
            }
        }
        self.xattrs.remove("security.capability");
    }
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) things: Vec<Thing>,
}

impl Model {
    pub(super) fn new() -> Self {
        let what = What::Dir(BTreeMap::new());
        let top = Thing { what, nlink: 2, mode: 0o755, uid: 0, gid: 0, mtime: None, xattrs: BTreeMap::new() };
        Self { things: vec![top] }
    }

    pub(super) fn thing(&mut self, id: usize) -> &mut Thing {
        &mut self.things[id]
    }

    /// Directories that can be reached, in a fixed order, each with its path.
    pub(super) fn dirs(&self) -> Vec<(usize, String)> {
        let mut all = vec![(TOP, String::new())];
        let mut at = 0;
        while at < all.len() {
            let (id, path) = all[at].clone();
            for (name, child) in self.entries(id) {
                if self.is_dir(*child) {
                    all.push((*child, format!("{path}/{name}")));
                }
            }
            at += 1;
        }
        all
    }

    pub(super) fn entries(&self, dir: usize) -> &BTreeMap<String, usize> {
        match &self.things[dir].what {
            What::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    fn entries_mut(&mut self, dir: usize) -> &mut BTreeMap<String, usize> {
        self.things[dir].mtime = None;
        match &mut self.things[dir].what {
            What::Dir(entries) => entries,
            _ => panic!("not a directory"),
        }
    }

    pub(super) fn content(&self, id: usize) -> &Vec<u8> {
        match &self.things[id].what {
            What::File(content) => content,
            _ => panic!("not a file"),
        }
    }

    pub(super) fn is_dir(&self, id: usize) -> bool {
        matches!(self.things[id].what, What::Dir(_))
    }

    pub(super) fn child(&self, dir: usize, name: &str) -> Result<usize> {
        self.entries(dir).get(name).copied().ok_or(VfsError::NotFound)
    }

    fn free(&self, dir: usize, name: &str) -> Result<()> {
        match self.things[dir].nlink {
            0 => Err(VfsError::NotFound),
            _ if self.entries(dir).contains_key(name) => Err(VfsError::Exists),
            _ => Ok(()),
        }
    }

    // ---- names ----

    pub(super) fn make(&mut self, who: Caller, dir: usize, name: &str, what: What, mode: u32) -> Result<usize> {
        self.free(dir, name)?;
        let id = self.things.len();
        let is_dir = matches!(what, What::Dir(_));
        // The mode of a symlink means nothing, and is always this.
        let umask = if matches!(what, What::Symlink(_)) { 0 } else { who.umask };
        let (mut mode, mut gid) = (mode & !umask, who.gid);
        if self.things[dir].mode & SETGID != 0 {
            gid = self.things[dir].gid;
            mode |= if is_dir { SETGID } else { 0 };
        }
        let nlink = if is_dir { 2 } else { 1 };
        self.things.push(Thing { what, nlink, mode, uid: who.uid, gid, mtime: None, xattrs: BTreeMap::new() });
        self.entries_mut(dir).insert(name.into(), id);
        self.things[dir].nlink += u32::from(is_dir);
        Ok(id)
    }

    pub(super) fn link(&mut self, id: usize, dir: usize, name: &str) -> Result<()> {
        if self.is_dir(id) {
            return Err(VfsError::NotPermitted);
        }
        if self.things[id].nlink == 0 {
            return Err(VfsError::NotFound);
        }
        self.free(dir, name)?;
        self.entries_mut(dir).insert(name.into(), id);
        self.things[id].nlink += 1;
        Ok(())
    }

    pub(super) fn unlink(&mut self, dir: usize, name: &str) -> Result<()> {
        let id = self.child(dir, name)?;
        if self.is_dir(id) {
            return Err(VfsError::IsDirectory);
        }
        self.entries_mut(dir).remove(name);
        self.things[id].nlink -= 1;
        Ok(())
    }

    pub(super) fn rmdir(&mut self, dir: usize, name: &str) -> Result<()> {
        let id = self.child(dir, name)?;
        if !self.is_dir(id) {
            return Err(VfsError::NotDirectory);
        }
        if !self.entries(id).is_empty() {
            return Err(VfsError::NotEmpty);
        }
        self.entries_mut(dir).remove(name);
        self.things[id].nlink = 0;
        self.things[dir].nlink -= 1;
        Ok(())
    }

    fn within(&self, top: usize, id: usize) -> bool {
        top == id || (self.is_dir(top) && self.entries(top).values().any(|child| self.within(*child, id)))
    }

    fn moves(&mut self, id: usize, from: usize, to: usize) {
        if self.is_dir(id) {
            self.things[from].nlink -= 1;
            self.things[to].nlink += 1;
        }
    }

    pub(super) fn rename(&mut self, from: (usize, &str), to: (usize, &str), flags: RenameFlags) -> Result<()> {
        let source = self.child(from.0, from.1)?;
        if self.things[to.0].nlink == 0 {
            return Err(VfsError::NotFound);
        }
        let target = self.child(to.0, to.1).ok();
        if flags == RenameFlags::NoReplace && target.is_some() {
            return Err(VfsError::Exists);
        }
        if target == Some(source) {
            return Ok(());
        }
        if self.within(source, to.0) {
            return Err(VfsError::Invalid);
        }
        if flags == RenameFlags::Exchange {
            let target = target.ok_or(VfsError::NotFound)?;
            if self.within(target, from.0) {
                return Err(VfsError::Invalid);
            }
            self.entries_mut(from.0).insert(from.1.into(), target);
            self.entries_mut(to.0).insert(to.1.into(), source);
            self.moves(source, from.0, to.0);
            self.moves(target, to.0, from.0);
            return Ok(());
        }
        if let Some(target) = target {
            match (self.is_dir(source), self.is_dir(target)) {
                (true, false) => return Err(VfsError::NotDirectory),
                (false, true) => return Err(VfsError::IsDirectory),
                (true, true) if !self.entries(target).is_empty() => return Err(VfsError::NotEmpty),
                (true, true) => {
                    self.things[target].nlink = 0;
                    self.things[to.0].nlink -= 1;
                }
                (false, false) => self.things[target].nlink -= 1,
            }
        }
        self.entries_mut(from.0).remove(from.1);
        self.entries_mut(to.0).insert(to.1.into(), source);
        self.moves(source, from.0, to.0);
        Ok(())
    }

    // ---- content ----

    /// What every change of content by `who` brings with it.
    fn change(&mut self, id: usize, keeps_bits: bool, change: impl FnOnce(&mut Vec<u8>)) {
        let thing = &mut self.things[id];
        thing.mtime = None;
        thing.drop_privileges(keeps_bits);
        match &mut thing.what {
            What::File(content) => change(content),
            _ => panic!("not a file"),
        }
    }

    pub(super) fn write(&mut self, id: usize, at: usize, data: &[u8], keeps_bits: bool) {
        if !data.is_empty() {
            self.change(id, keeps_bits, |content| {
                let end = at + data.len();
                content.resize(content.len().max(end), 0);
                content[at..end].copy_from_slice(data);
            });
        }
    }

    pub(super) fn truncate(&mut self, id: usize, size: usize, keeps_bits: bool) {
        self.change(id, keeps_bits, |content| content.resize(size, 0));
    }

    pub(super) fn fallocate(&mut self, id: usize, range: Range<usize>, mode: i32, keeps_bits: bool) {
        self.change(id, keeps_bits, |content| {
            if mode & libc::FALLOC_FL_KEEP_SIZE == 0 {
                content.resize(content.len().max(range.end), 0);
            }
            if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 {
                let len = content.len();
                content[range.start.min(len)..range.end.min(len)].fill(0);
            }
        });
    }

    // ---- attributes ----

    pub(super) fn chown(&mut self, id: usize, uid: u32, gid: u32) {
        let thing = &mut self.things[id];
        (thing.uid, thing.gid) = (uid, gid);
        thing.drop_privileges(false);
    }

    pub(super) fn set_xattr(&mut self, id: usize, name: &'static str, value: Vec<u8>, flags: XattrFlags) -> Result<()> {
        let xattrs = &mut self.things[id].xattrs;
        match (flags, xattrs.contains_key(name)) {
            (XattrFlags::Create, true) => Err(VfsError::Exists),
            (XattrFlags::Replace, false) => Err(VfsError::NoAttribute),
            _ => {
                xattrs.insert(name, value);
                Ok(())
            }
        }
    }
}
