//! When each part of an inode's metadata was last changed: devices that change different parts of it apart from one another are
//! merged without a loss.

use minicbor::{Decode, Encode};

use super::{Dot, Inode, Xattr};

/// Extended attributes that belong to the mode: access control lists, of which it shows a part.
const OF_MODE: &[u8] = b"system.posix_acl_";

/// Of so many extended attributes it is written down when each was changed; the others count as changed with the record.
pub const DATED_XATTRS_MAX: usize = 64;

/// What of an inode was last changed before its metadata was: absent where it was then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Older {
    /// Mode, and access control lists.
    #[n(0)]
    pub mode: Option<Dot>,
    /// Owner and group.
    #[n(1)]
    pub owner: Option<Dot>,
    /// Other extended attributes, by name, sorted.
    #[n(2)]
    pub xattrs: Vec<DatedXattr>,
}

/// An extended attribute that is older than its record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DatedXattr {
    /// Its name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Its last change.
    #[n(1)]
    pub dot: Dot,
}

/// Whether an extended attribute is merged with the mode, and not by itself.
pub fn is_of_mode(xattr: &Xattr) -> bool {
    xattr.name.starts_with(OF_MODE)
}

impl Inode {
    /// Extended attributes that are merged with the mode.
    pub fn of_mode(&self) -> impl Iterator<Item = &Xattr> {
        self.xattrs.iter().filter(|one| is_of_mode(one))
    }

    /// Last change of the mode.
    pub fn mode_dot(&self) -> Dot {
        self.older.as_ref().and_then(|older| older.mode).unwrap_or(self.meta_dot)
    }

    /// Last change of owner and group.
    pub fn owner_dot(&self) -> Dot {
        self.older.as_ref().and_then(|older| older.owner).unwrap_or(self.meta_dot)
    }

    /// Last change of an extended attribute that it has.
    pub fn xattr_dot(&self, name: &[u8]) -> Dot {
        let dated = self.older.as_ref().and_then(|older| older.xattrs.iter().find(|one| one.name == name));
        dated.map_or(self.meta_dot, |one| one.dot)
    }

    /// Writes down when each part was changed last, given the same for the whole.
    pub fn date(&mut self, mode: Dot, owner: Dot, xattr: impl Fn(&[u8]) -> Dot) {
        let older = |dot: Dot| Some(dot).filter(|dot| *dot != self.meta_dot);
        let dated = self
            .xattrs
            .iter()
            .filter(|one| !is_of_mode(one))
            .filter_map(|one| Some(DatedXattr { name: one.name.clone(), dot: older(xattr(&one.name))? }));
        let older = Older { mode: older(mode), owner: older(owner), xattrs: dated.take(DATED_XATTRS_MAX).collect() };
        self.older = (older != Older::default()).then(|| Box::new(older));
    }

    /// The same, of a record that goes on from an earlier one: what is as it was there was not changed since.
    pub fn date_after(&mut self, old: &Self) {
        let is_same_mode = self.mode == old.mode && self.of_mode().eq(old.of_mode());
        let is_same_owner = (self.uid, self.gid) == (old.uid, old.gid);
        let kept: Vec<(Vec<u8>, Dot)> = self
            .xattrs
            .iter()
            .filter(|one| old.xattrs.contains(one))
            .map(|one| (one.name.clone(), old.xattr_dot(&one.name)))
            .collect();
        let now = self.meta_dot;
        let mode = if is_same_mode { old.mode_dot() } else { now };
        let owner = if is_same_owner { old.owner_dot() } else { now };
        self.date(mode, owner, |name| kept.iter().find(|(kept, _)| kept == name).map_or(now, |(_, dot)| *dot));
    }
}
