//! POSIX access control lists.
//!
//! They are kept as extended attributes in the kernel's form, which is also what the kernel asks for: with
//! `default_permissions` it is the one that enforces them. What is up to a filesystem is that list and mode bits say
//! the same: the bits of the owner and of others are those of the list, and the bits of the group are its mask.

use hypernet_core::limits::ACL_MAX;
use hypernet_core::tree::{FileKind, Xattr};

use super::node::Node;
use super::{Caller, Result, VfsError};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY: usize = 8;
/// The id of entries that have none.
const NOBODY: u32 = u32::MAX;

const RWX: u32 = 0o7;
const SETGID: u32 = 0o2000;

/// Which of the two lists of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Who may use it.
    Access,
    /// What is made in this directory gets this.
    Default,
}

impl Which {
    /// The list that is kept in the extended attribute of this name.
    pub(super) fn of_name(name: &[u8]) -> Option<Self> {
        match name {
            ACCESS => Some(Self::Access),
            DEFAULT => Some(Self::Default),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Access => ACCESS,
            Self::Default => DEFAULT,
        }
    }
}

/// Whom an entry is about, in the order in which entries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whom {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Others,
}

impl Whom {
    fn of(tag: u16, id: u32) -> Option<Self> {
        match (tag, id) {
            (0x01, _) => Some(Self::Owner),
            (0x02, NOBODY) | (0x08, NOBODY) => None,
            (0x02, id) => Some(Self::User(id)),
            (0x04, _) => Some(Self::OwningGroup),
            (0x08, id) => Some(Self::Group(id)),
            (0x10, _) => Some(Self::Mask),
            (0x20, _) => Some(Self::Others),
            _ => None,
        }
    }

    fn encoded(self) -> (u16, u32) {
        match self {
            Self::Owner => (0x01, NOBODY),
            Self::User(id) => (0x02, id),
            Self::OwningGroup => (0x04, NOBODY),
            Self::Group(id) => (0x08, id),
            Self::Mask => (0x10, NOBODY),
            Self::Others => (0x20, NOBODY),
        }
    }

    /// Entries of one rank may come in any order among themselves.
    fn rank(self) -> u8 {
        match self {
            Self::Owner => 0,
            Self::User(_) => 1,
            Self::OwningGroup => 2,
            Self::Group(_) => 3,
            Self::Mask => 4,
            Self::Others => 5,
        }
    }
}

/// A valid list: owner, owning group and others once each, in the order of their kinds, and a mask where users or
/// groups are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<(Whom, u32)>);

impl Acl {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > ACL_MAX {
            return Err(VfsError::AttributeTooLarge);
        }
        let (version, entries) = bytes.split_first_chunk().ok_or(VfsError::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY != 0 {
            return Err(VfsError::Invalid);
        }
        let mut list = Vec::with_capacity(entries.len() / ENTRY);
        for entry in entries.chunks_exact(ENTRY) {
            let [t0, t1, p0, p1, id @ ..] = entry else { return Err(VfsError::Invalid) };
            let id = id.try_into().map(u32::from_le_bytes).map_err(|_| VfsError::Invalid)?;
            let whom = Whom::of(u16::from_le_bytes([*t0, *t1]), id).ok_or(VfsError::Invalid)?;
            let bits = u32::from(u16::from_le_bytes([*p0, *p1]));
            if bits & !RWX != 0 {
                return Err(VfsError::Invalid);
            }
            list.push((whom, bits));
        }
        let acl = Self(list);
        if acl.is_valid() { Ok(acl) } else { Err(VfsError::Invalid) }
    }

    fn is_valid(&self) -> bool {
        let count = |rank: u8| self.0.iter().filter(|(whom, _)| whom.rank() == rank).count();
        let named = count(1) + count(3) > 0;
        let once = [Whom::Owner, Whom::OwningGroup, Whom::Others].iter().all(|whom| count(whom.rank()) == 1);
        let masks = count(Whom::Mask.rank());
        let in_order = self.0.is_sorted_by_key(|(whom, _)| whom.rank());
        once && in_order && masks <= 1 && (masks == 1 || !named)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (whom, bits) in &self.0 {
            let (tag, id) = whom.encoded();
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&(*bits as u16).to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// It says no more than mode bits can.
    fn is_plain(&self) -> bool {
        self.0.len() == 3
    }

    /// The entry that shows as the mode bits shifted by `shift`.
    fn shown(&mut self, shift: u32) -> Option<&mut u32> {
        let whom = match shift {
            6 => Whom::Owner,
            3 if self.0.iter().any(|(whom, _)| *whom == Whom::Mask) => Whom::Mask,
            3 => Whom::OwningGroup,
            _ => Whom::Others,
        };
        self.0.iter_mut().find(|(other, _)| *other == whom).map(|(_, bits)| bits)
    }

    /// `mode` with the bits that this list shows as.
    fn show_in(&mut self, mode: u32) -> u32 {
        [6, 3, 0]
            .into_iter()
            .fold(mode & !0o777, |mode, shift| mode | self.shown(shift).map_or(0, |bits| *bits) << shift)
    }

    /// Changes what shows as mode bits.
    fn change(&mut self, by: impl Fn(u32, u32) -> u32) {
        for shift in [6, 3, 0] {
            if let Some(bits) = self.shown(shift) {
                *bits = by(*bits, shift);
            }
        }
    }
}

fn stored(node: &Node, which: Which) -> Result<Option<Acl>> {
    let found = node.xattrs().iter().find(|xattr| xattr.name == which.name());
    let parsed = found.map(|xattr| Acl::parse(&xattr.value)).transpose();
    // Only what came from elsewhere can be so. It is not passed over: that could give more rights than were meant.
    parsed.map_err(|_| VfsError::Damaged(format!("{} is no access control list", which.name().escape_ascii())))
}

/// What setting one of its lists makes of an inode: the value to keep, `None` where mode bits say it all. The mode is
/// changed.
pub(super) fn set(caller: Caller, node: &mut Node, which: Which, value: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut acl = Acl::parse(value)?;
    match (which, node.kind) {
        (_, FileKind::Symlink) => Err(VfsError::NotSupported),
        (Which::Default, FileKind::Directory) => Ok(Some(acl.encode())),
        (Which::Default, _) => Err(VfsError::Denied),
        (Which::Access, _) => {
            node.mode = acl.show_in(node.mode);
            // Who is not of the group must not keep the bit. Which other groups the caller is of, nobody tells us.
            if node.is_file() && caller.uid != 0 && caller.gid != node.gid {
                node.mode &= !SETGID;
            }
            Ok((!acl.is_plain()).then(|| acl.encode()))
        }
    }
}

/// The new access list of an inode that is given a new mode; `None` where it has no list.
pub(super) fn chmod(node: &Node, mode: u32) -> Result<Option<Vec<u8>>> {
    let acl = stored(node, Which::Access)?;
    Ok(acl.map(|mut acl| {
        acl.change(|_, shift| mode >> shift & RWX);
        acl.encode()
    }))
}

/// Mode and lists of something new in `dir` for which `mode` was asked. The umask counts only where the directory has
/// no default list.
pub(super) fn inherit(dir: &Node, kind: FileKind, mode: u32, umask: u32) -> Result<(u32, Vec<Xattr>)> {
    if kind == FileKind::Symlink {
        return Ok((mode, Vec::new()));
    }
    let Some(default) = stored(dir, Which::Default)? else { return Ok((mode & !(umask & 0o777), Vec::new())) };
    let mut access = default.clone();
    access.change(|bits, shift| bits & (mode >> shift));
    let mut xattrs = Vec::new();
    let mut keep = |which: Which, acl: &Acl| {
        xattrs.push(Xattr { name: which.name().to_vec(), value: acl.encode() });
    };
    if !access.is_plain() {
        keep(Which::Access, &access);
    }
    if kind == FileKind::Directory {
        keep(Which::Default, &default);
    }
    Ok((access.show_in(mode), xattrs))
}
