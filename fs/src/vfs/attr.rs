//! Attributes and extended attributes.

use hypernet_core::history::policy;
use hypernet_core::limits::{XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_TOTAL_MAX};
use hypernet_core::merge::mark;
use hypernet_core::port::Local;
use hypernet_core::time::Timespec;
use hypernet_core::tree::Xattr;

use super::acl::{self, Which};
use super::node::Node;
use super::state::{State, Step, fit, now};
use super::volumes::Held;
use super::{Attr, Caller, Result, Vfs, VfsError};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o010;

/// Set by the kernel for programs with capabilities; a write voids it as it voids the setuid bit.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Shown for every file, stored for none: how durable it is.
const STATE_XATTR: &[u8] = b"user.hypernet.state";
const OUR_XATTRS: &[u8] = b"user.hypernet.";
/// Those that only files and directories can have.
const USER: &[u8] = b"user.";
/// Those of root alone.
const TRUSTED: &[u8] = b"trusted.";

/// What a directory shows as its size.
pub(super) const DIR_SIZE: u64 = 4096;
/// Files from this size on are asked how much of them is there; smaller ones are taken for whole, which costs no call.
const HOLES_FROM: u64 = 64 << 10;

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// This.
    At(Timespec),
}

impl SetTime {
    fn or_now(self, now: Timespec) -> Timespec {
        match self {
            Self::Now => now,
            Self::At(time) => fit(time),
        }
    }
}

/// Attributes to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// `mode & 0o7777`.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of content.
    pub mtime: Option<SetTime>,
    /// Last change of the inode, where the kernel keeps it.
    pub ctime: Option<Timespec>,
}

impl SetAttr {
    /// Whether these are the times of a write and nothing else: what the kernel that collects writes tells of a file
    /// before each fsync of it, and when it lets go of it.
    pub fn is_of_a_write(&self) -> bool {
        *self == Self { mtime: self.mtime, ctime: self.ctime, ..Self::default() }
            && self.mtime.is_some()
            && self.ctime.is_some()
    }
}

/// Whether an extended attribute may or must exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrFlags {
    /// Make or replace.
    #[default]
    Set,
    /// It must be new.
    Create,
    /// It must exist.
    Replace,
}

/// Takes the bits and the attribute off that let a program run with more rights than its caller's.
pub(super) fn drop_privileges(node: &mut Node) -> bool {
    let before = node.mode;
    if node.is_file() {
        node.mode &= !SETUID;
        if node.mode & GROUP_EXEC != 0 {
            node.mode &= !SETGID;
        }
    }
    let had_capability = drop_capability(node);
    had_capability || node.mode != before
}

/// As [`drop_privileges`], for callers that may keep the bits.
pub(super) fn drop_capability(node: &mut Node) -> bool {
    let Some(rare) = node.rare.as_mut() else { return false };
    let before = rare.xattrs.len();
    rare.xattrs.retain(|xattr| xattr.name != CAPABILITY);
    rare.xattrs.len() != before
}

/// It has bits or attributes that a write must take away.
pub(super) fn has_privileges(node: &Node) -> bool {
    node.mode & (SETUID | SETGID) != 0 || node.xattrs().iter().any(|xattr| xattr.name == CAPABILITY)
}

/// The number of links to show. How many subdirectories a directory has is known when it has been listed: until then
/// it has 1, as on filesystems that do not count them, so that nobody takes it for one without.
fn shown_links(node: &Node) -> u32 {
    let unknown = node.is_dir() && node.local() == Local::Absent;
    if unknown { node.nlink.min(1) } else { node.nlink }
}

/// What `stat` shows of an inode that takes up so many blocks of 512 bytes.
pub(super) fn shown(ino: u64, node: &Node, blocks: u64) -> Attr {
    Attr {
        ino,
        kind: node.kind,
        mode: node.mode,
        nlink: shown_links(node),
        uid: node.uid,
        gid: node.gid,
        rdev: node.rare.as_ref().map_or(0, |rare| rare.rdev),
        size: if node.is_dir() { DIR_SIZE } else { node.size },
        blocks,
        atime: node.atime(),
        mtime: node.mtime(),
        ctime: node.ctime(),
        // The subdirectories of what has not been listed are not counted yet; and a write that passes us by takes
        // privileges away, so nobody runs what somebody can write to before we have looked.
        volatile: (node.is_dir() && node.local() == Local::Absent) || (node.writers() > 0 && has_privileges(node)),
    }
}

impl Vfs {
    /// What `stat` shows of an inode in memory.
    pub(super) fn attr_of(&self, state: &mut State, ino: u64) -> Step<Attr> {
        self.refresh(state, ino)?;
        state.stale.remove(&ino);
        let node = state.node_mut(ino)?;
        if node.is_lost() {
            return Err(VfsError::Damaged(format!("inode {ino} is missing from the link table")).into());
        }
        let blocks = match node.open.as_ref().and_then(|open| open.seen) {
            _ if node.is_dir() => DIR_SIZE / 512,
            Some(seen) => seen.blocks,
            None if node.is_file() && node.local() != Local::Absent && node.size >= HOLES_FROM => {
                self.backing.stat(ino).map_err(VfsError::from)?.map_or(0, |stat| stat.blocks)
            }
            None if node.local() == Local::Absent => {
                node.remote.as_ref().map_or(node.size, |content| content.data()).div_ceil(512)
            }
            None => node.size.div_ceil(512),
        };
        Ok(shown(ino, state.node(ino)?, blocks))
    }

    /// What `stat` shows.
    pub fn getattr(&self, ino: u64) -> Result<Attr> {
        self.run(|state| self.attr_of(state, ino))
    }

    /// Sets attributes and shows them. Who may do so is for the kernel to decide.
    pub fn setattr(&self, caller: Caller, ino: u64, set: SetAttr) -> Result<Attr> {
        if let Some(size) = set.size {
            self.truncate(caller, ino, size)?;
        }
        self.run_mut(|state| {
            if set != SetAttr::default() {
                state.writable(ino)?;
            }
            state.found(ino)?;
            self.refresh(state, ino)?;
            let time = now();
            let node = state.node_mut(ino)?;
            let mut changed = false;
            if let Some(mode) = set.mode {
                if let Some(list) = acl::chmod(node, mode)? {
                    node.put_xattr(Which::Access.name(), Some(list));
                }
                node.mode = mode & 0o7777;
                changed = true;
            }
            if set.uid.is_some() || set.gid.is_some() {
                node.uid = set.uid.unwrap_or(node.uid);
                node.gid = set.gid.unwrap_or(node.gid);
                if set.mode.is_none() {
                    drop_privileges(node);
                }
                changed = true;
            }
            let pick = |set: SetTime| set.or_now(time);
            let times = set.atime.is_some() || set.mtime.is_some();
            node.set_atime(set.atime.map_or(node.atime(), pick));
            node.set_mtime(set.mtime.map_or(node.mtime(), pick));
            if times || changed || set.ctime.is_some() {
                let is_whole_file = node.is_file() && node.local() == Local::Complete;
                let was_written = is_whole_file && set.is_of_a_write() && node.is_dirty();
                let (atime, mtime) = (node.atime(), node.mtime());
                if set.mtime.is_some() && is_whole_file {
                    // The backing file is what tells a later write by its mtime, here and after a crash.
                    self.backing.set_times(ino, atime, mtime).map_err(VfsError::from)?;
                    self.see(state, ino)?;
                }
                if was_written {
                    self.mark_written(state, ino);
                } else {
                    state.changed(ino);
                }
                if let Some(ctime) = set.ctime {
                    state.node_mut(ino)?.set_ctime(fit(ctime));
                }
            }
            self.attr_of(state, ino)
        })
    }

    // ---- extended attributes ----

    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        if name == STATE_XATTR {
            return self.state_xattr(ino).map(String::into_bytes);
        }
        if let Err(error @ VfsError::NotSupported) = check_xattr_name(name) {
            return Err(error);
        }
        self.run(|state| {
            if name == policy::XATTR {
                // Of a volume of which nothing is here it is not known that it has none.
                state.found(ino)?;
            }
            let found = state.node(ino)?.xattrs().iter().find(|xattr| xattr.name == name);
            Ok(found.ok_or(VfsError::NoAttribute)?.value.clone())
        })
    }

    /// The names of all extended attributes that this caller may know of, each followed by a zero byte.
    pub fn listxattr(&self, caller: Caller, ino: u64) -> Result<Vec<u8>> {
        self.run(|state| {
            let mut names = Vec::new();
            let node = state.node(ino)?;
            // The kernel lets nobody read what a merge says of anything else, so it would be a name without a value.
            let has_mark = node.is_file() || node.is_dir();
            let is_trusted = |xattr: &Xattr| xattr.name.starts_with(TRUSTED);
            let shown = |xattr: &&Xattr| {
                (caller.uid == 0 || !is_trusted(xattr)) && (has_mark || xattr.name != hypernet_core::merge::mark::XATTR)
            };
            for xattr in node.xattrs().iter().filter(shown) {
                names.extend_from_slice(&xattr.name);
                names.push(0);
            }
            Ok(names)
        })
    }

    /// Sets an extended attribute. An access control list also changes the mode.
    pub fn setxattr(&self, caller: Caller, ino: u64, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        check_xattr_name(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(VfsError::AttributeTooLarge);
        }
        self.run_mut(|state| {
            state.writable(ino)?;
            state.found(ino)?;
            let node = state.node_mut(ino)?;
            if name == policy::XATTR && !node.is_dir() {
                return Err(VfsError::NotPermitted.into());
            }
            match (flags, node.xattrs().iter().any(|xattr| xattr.name == name)) {
                (XattrFlags::Create, true) => return Err(VfsError::Exists.into()),
                (XattrFlags::Replace, false) => return Err(VfsError::NoAttribute.into()),
                _ => {}
            }
            let others = node.xattrs().iter().filter(|xattr| xattr.name != name);
            // A list of them has a zero after each name, and must not become longer than the kernel takes.
            let room = |name: &[u8], value: &[u8]| name.len() + 1 + value.len();
            let total: usize = others.map(|xattr| room(&xattr.name, &xattr.value)).sum();
            if total + room(name, value) > XATTRS_TOTAL_MAX {
                return Err(VfsError::AttributeSpace.into());
            }
            let kept = match Which::of_name(name) {
                Some(which) => acl::set(caller, node, which, value)?,
                None => Some(value.to_vec()),
            };
            node.put_xattr(name, kept);
            state.changed(ino);
            Ok(())
        })
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<()> {
        check_xattr_name(name)?;
        self.run_mut(|state| {
            state.writable(ino)?;
            state.found(ino)?;
            let node = state.node_mut(ino)?;
            if !node.xattrs().iter().any(|xattr| xattr.name == name) {
                return Err(VfsError::NoAttribute.into());
            }
            node.put_xattr(name, None);
            state.changed(ino);
            Ok(())
        })
    }

    /// How durable an inode is: `local`, `uploading`, or what [`super::DurabilityInfo`] says of its content.
    pub fn state_xattr(&self, ino: u64) -> Result<String> {
        let published = self.run(|state| {
            self.refresh(state, ino)?;
            let uploading = state.cuts > 0;
            let lacks = |(root, held): (&u64, &Held)| {
                let has_any = !held.dirty.is_empty() || !held.tombs.is_empty();
                has_any && *root != ino && state.is_ancestor(ino, *root).unwrap_or(true)
            };
            let is_dirty_below = state.node(ino)?.is_dir() && state.volumes.iter().any(lacks);
            let node = state.node(ino)?;
            Ok(match node.remote.as_deref() {
                Some(content) if !node.is_dirty_within() && !is_dirty_below => Ok(content.clone()),
                _ if uploading => Err("uploading"),
                _ => Err("local"),
            })
        })?;
        let info = self.durability.read().clone();
        Ok(match (published, info) {
            (Ok(content), Some(info)) => info.describe(&content),
            (Ok(_), None) => "durable".to_owned(),
            (Err(text), _) => text.to_owned(),
        })
    }
}

fn check_xattr_name(name: &[u8]) -> Result<()> {
    let known = [USER, TRUSTED, b"security."];
    match name {
        // What people set; that of a volume's root counts, and a copy of it has it, too.
        policy::XATTR => Ok(()),
        // A copy of a version is one, too, and whoever takes it away says that it is none any more.
        mark::XATTR => Ok(()),
        _ if name.starts_with(OUR_XATTRS) => Err(VfsError::NotPermitted),
        _ if name.is_empty() || name.len() > XATTR_NAME_MAX => Err(VfsError::BufferTooSmall),
        _ if known.contains(&name) => Err(VfsError::Invalid),
        _ if known.iter().any(|prefix| name.starts_with(prefix)) || Which::of_name(name).is_some() => Ok(()),
        _ => Err(VfsError::NotSupported),
    }
}
