//! Which metadata an inode has: mode, owner and each extended attribute are merged by themselves, times are those of the record that was
//! changed last.

use super::Part;
use super::inodes::bytes;
use super::mark;
use crate::limits::XATTRS_TOTAL_MAX;
use crate::tree::{Dot, Inode, Xattr, is_of_mode};

/// What parts have of one inode, each with the number of the part.
type Records<'a> = [(usize, &'a Inode)];

/// Whether two records differ in nothing that counts as metadata. Times follow from what else has changed.
fn is_same(a: &Inode, b: &Inode) -> bool {
    (a.mode, a.uid, a.gid, a.rdev, &a.xattrs, a.meta_dot) == (b.mode, b.uid, b.gid, b.rdev, &b.xattrs, b.meta_dot)
}

/// By which the later one of two changes is known that were made apart from one another.
fn rank(inode: &Inode, dot: Dot) -> impl Ord + use<> {
    (inode.ctime, dot, bytes(inode))
}

/// The record whose times count.
pub(super) fn record<'a>(parts: &[Part], records: &Records<'a>) -> Option<&'a Inode> {
    let replaced = |inode: &Inode| {
        records.iter().any(|(of, other)| {
            !is_same(other, inode) && other.meta_dot != inode.meta_dot && parts[*of].covers(inode.meta_dot)
        })
    };
    let all = || records.iter().map(|(_, inode)| *inode);
    let last = |inode: &&Inode| rank(inode, inode.meta_dot);
    all().filter(|inode| !replaced(inode)).max_by_key(last).or_else(|| all().max_by_key(last))
}

/// The record that has a value of its own which nobody else has seen and replaced, and of several the last.
fn latest<'a, T: PartialEq>(
    parts: &[Part],
    records: &Records<'a>,
    value: impl Fn(&'a Inode) -> T,
    dot: impl Fn(&Inode) -> Dot,
) -> Option<&'a Inode> {
    let replaced = |inode: &'a Inode| {
        let is_later = |other: &'a Inode| value(other) != value(inode) && dot(other) != dot(inode);
        records.iter().any(|(of, other)| is_later(other) && parts[*of].covers(dot(inode)))
    };
    let all = || records.iter().map(|(_, inode)| *inode);
    let last = |inode: &&Inode| rank(inode, dot(inode));
    all().filter(|inode| !replaced(inode)).max_by_key(last).or_else(|| all().max_by_key(last))
}

/// The extended attribute with this name that stays: none where somebody has seen all that there are and has taken them away.
fn xattr<'a>(parts: &[Part], records: &Records<'a>, name: &[u8]) -> Option<(&'a Xattr, Dot)> {
    let find = |inode: &'a Inode| inode.xattrs.iter().find(|one| one.name == name);
    let stays = |inode: &Inode, one: &Xattr| {
        let dot = inode.xattr_dot(name);
        !records.iter().any(|(of, other)| {
            let is_later = find(other).is_none_or(|there| there != one && other.xattr_dot(name) != dot);
            is_later && parts[*of].covers(dot)
        })
    };
    let found = records.iter().filter_map(|(_, inode)| Some((*inode, find(inode)?)));
    let last =
        found.filter(|(inode, one)| stays(inode, one)).max_by_key(|(inode, _)| rank(inode, inode.xattr_dot(name)));
    last.map(|(inode, one)| (one, inode.xattr_dot(name)))
}

/// The record that counts, with the parts of the others that were changed elsewhere meanwhile. By what a version is marked goes with the
/// record.
pub(super) fn merged(parts: &[Part], records: &Records<'_>, record: &Inode) -> Inode {
    let mut inode = record.clone();
    if records.iter().all(|(_, other)| is_same(other, record) && other.older == record.older) {
        return inode;
    }
    let mode = latest(parts, records, |inode| (inode.mode, inode.of_mode().collect::<Vec<_>>()), Inode::mode_dot)
        .unwrap_or(record);
    let owner = latest(parts, records, |inode| (inode.uid, inode.gid), Inode::owner_dot).unwrap_or(record);
    let is_own = |one: &Xattr| !is_of_mode(one) && one.name != mark::XATTR;
    let all = records.iter().flat_map(|(_, inode)| &inode.xattrs).filter(|one| is_own(one));
    let mut names: Vec<&[u8]> = all.map(|one| &one.name[..]).collect();
    names.sort_unstable();
    names.dedup();
    (inode.mode, inode.uid, inode.gid) = (mode.mode, owner.uid, owner.gid);
    let mut kept: Vec<Xattr> = mode.of_mode().cloned().collect();
    kept.extend(record.xattrs.iter().filter(|one| one.name == mark::XATTR).cloned());
    let mut left = XATTRS_TOTAL_MAX.saturating_sub(kept.iter().map(Xattr::room).sum());
    let mut found: Vec<(&Xattr, Dot)> = names.into_iter().filter_map(|name| xattr(parts, records, name)).collect();
    // Where there is no room for all, those of the record that counts are there.
    found.sort_by_key(|(one, _)| !record.xattrs.contains(one));
    found.retain(|(one, _)| match left.checked_sub(one.room()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    });
    kept.extend(found.iter().map(|(one, _)| (*one).clone()));
    kept.sort();
    inode.xattrs = kept;
    let mark_dot = record.xattr_dot(mark::XATTR);
    inode.date(mode.mode_dot(), owner.owner_dot(), |name| {
        found.iter().find(|(one, _)| one.name == name).map_or(mark_dot, |(_, dot)| *dot)
    });
    inode
}
