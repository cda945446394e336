//! What becomes of each inode: which content, which metadata, and which content is kept beside it.

use std::collections::BTreeMap;

use super::Part;
use super::gather::Gathered;
use super::mark::Mark;
use super::metadata;
use crate::id::FileId;
use crate::tree::{Content, Dot, Inode};

const COPY_CONTEXT: &str = "hypernet 2026 id of a version that is kept beside another v1";

/// What becomes of an inode.
#[derive(Debug)]
pub(super) struct Outcome {
    /// It.
    pub(super) inode: Inode,
    /// Versions that are kept beside it, as files of their own.
    pub(super) copies: Vec<Inode>,
}

pub(super) type Outcomes = BTreeMap<FileId, Outcome>;

/// The last change of an inode's content.
pub(super) fn content_dot(inode: &Inode) -> Dot {
    inode.content_dot.unwrap_or(inode.meta_dot)
}

pub(super) fn is_directory(inode: &Inode) -> bool {
    matches!(inode.content, Content::Directory(_))
}

/// By which things are put in order, and told from others.
pub(super) fn bytes<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec is infallible.
    let _ = minicbor::encode(value, &mut bytes);
    bytes
}

/// Whether two records have one content, which may have been sealed anew since. A state that was cloned gives one dot twice,
/// for what was written at different times.
fn is_one_version(a: &Inode, b: &Inode) -> bool {
    let version = |inode: &Inode| (content_dot(inode), inode.mtime, inode.content.size());
    a.content == b.content || version(a) == version(b)
}

/// The epoch in which a content was sealed.
fn epoch(content: &Content) -> u32 {
    match content {
        Content::Extent(extent) => extent.epoch,
        Content::Runs { tree, .. } => tree.node.epoch,
        Content::Empty | Content::Inline(_) | Content::Symlink(_) | Content::Directory(_) => 0,
    }
}

/// Of the records that parts have of one file, those with a content that no other part had seen and replaced or taken away:
/// each content once, the one that stays last.
pub(super) fn contents<'a>(parts: &[Part], records: &[(usize, &'a Inode)]) -> Vec<&'a Inode> {
    let replaced = |inode: &Inode| {
        let (content, dot) = (&inode.content, content_dot(inode));
        parts.iter().enumerate().any(|(number, part)| {
            let other = records.iter().find(|(of, _)| *of == number).map(|(_, other)| *other);
            let is_other = other.map_or(!part.is_below, |other| content_dot(other) != dot && other.content != *content);
            is_other && part.covers(dot)
        })
    };
    let mut kept: Vec<&Inode> = records.iter().map(|(_, inode)| *inode).filter(|inode| !replaced(inode)).collect();
    if kept.is_empty() {
        kept = records.iter().map(|(_, inode)| *inode).collect();
    }
    kept.sort_by_cached_key(|inode| (inode.mtime, content_dot(inode), epoch(&inode.content), bytes(*inode)));
    let mut distinct: Vec<&Inode> = Vec::with_capacity(kept.len());
    for inode in kept.into_iter().rev() {
        if !distinct.iter().any(|other| is_one_version(other, inode)) {
            distinct.push(inode);
        }
    }
    distinct.reverse();
    distinct
}

/// A version that is kept beside another one: a file of its own.
fn copy(of: &Inode) -> Inode {
    let dot = content_dot(of);
    let version = bytes(&(of.id, dot, &of.content));
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::derive_key(COPY_CONTEXT, &version)[..16]);
    let mut copy = Inode { id: FileId(id), meta_dot: dot, content_dot: None, older: None, ..of.clone() };
    Mark { file: of.id, device: dot.device }.put(&mut copy);
    copy
}

fn outcome(parts: &[Part], mut records: Vec<(usize, &Inode)>) -> Option<Outcome> {
    let kind = records.iter().map(|(_, inode)| inode.kind).max()?;
    records.retain(|(_, inode)| inode.kind == kind);
    let meta = metadata::record(parts, &records)?;
    let mut inode = metadata::merged(parts, &records, meta);
    inode.ctime = records.iter().map(|(_, inode)| inode.ctime).max().unwrap_or(inode.ctime);
    if is_directory(meta) {
        // What it holds is worked out from its entries.
        let times = records.iter().filter(|(_, one)| one.content != meta.content).map(|(_, one)| one.mtime);
        inode.mtime = times.chain([meta.mtime]).max().unwrap_or(meta.mtime);
        let newest = records.iter().map(|(_, one)| content_dot(one)).max();
        inode.content_dot = newest.filter(|dot| *dot != inode.meta_dot);
        return Some(Outcome { inode, copies: Vec::new() });
    }
    let mut contents = contents(parts, &records);
    let content = contents.pop()?;
    if content.content != meta.content {
        inode.mtime = content.mtime;
    }
    inode.content = content.content.clone();
    inode.content_dot = Some(content_dot(content)).filter(|dot| *dot != inode.meta_dot);
    let copies = contents.into_iter().map(copy).collect();
    Some(Outcome { inode, copies })
}

/// All inodes that stand anywhere where the trees differ.
pub(super) fn resolve(gathered: &Gathered<'_>) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for id in gathered.ids().into_iter().chain([gathered.root]) {
        let records: Vec<(usize, &Inode)> = gathered
            .seen
            .iter()
            .enumerate()
            .filter_map(|(number, seen)| Some((number, seen.inodes.get(&id)?)))
            .collect();
        if let Some(outcome) = outcome(gathered.parts, records) {
            outcomes.insert(id, outcome);
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DeviceTag, VolumeId};
    use crate::key::{Secret, VolumeKeys};
    use crate::limits::XATTRS_TOTAL_MAX;
    use crate::merge::mark;
    use crate::seal::{Kind, Sealer};
    use crate::time::Timespec;
    use crate::tree::{FileKind, Xattr};

    fn record(epoch: u32, seconds: i64) -> Inode {
        let keys = VolumeKeys::new(VolumeId([1; 16]), epoch, Secret::new([2; 32]));
        let extent = Sealer::new(&keys).seal(Kind::Content, b"what somebody wrote").unwrap().reference;
        let time = Timespec { seconds, nanos: 0 };
        Inode {
            id: FileId([3; 16]),
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            rdev: 0,
            mtime: time,
            ctime: time,
            xattrs: vec![],
            content: Content::Extent(extent),
            meta_dot: Dot { device: DeviceTag(1), sequence: 4 },
            content_dot: None,
            older: None,
        }
    }

    #[test]
    fn what_was_sealed_anew_is_the_same_version_and_what_a_cloned_state_wrote_is_not() {
        let (old, new, cloned) = (record(7, 1), record(9, 1), record(7, 2));
        assert_ne!(old.content, new.content);
        let vector = vec![old.meta_dot];
        let part = Part {
            number: 0,
            inode: record(0, 0),
            links: None,
            vector,
            is_below: false,
            is_past: false,
            has_history: true,
            history: None,
            tags: None,
        };
        let parts = [part.clone(), part];
        for (one, other) in [(&old, &new), (&new, &old)] {
            assert_eq!(contents(&parts, &[(0, one), (1, other)]), [&new]);
        }
        let bent = Inode { content: record(8, 2).content, ..cloned };
        assert_eq!(contents(&parts, &[(0, &new), (1, &bent)]), [&new, &bent]);
    }
    #[test]
    fn a_version_says_of_which_file_it_is_and_whose() {
        let xattr = |name: &[u8], value: &[u8]| Xattr { name: name.to_vec(), value: value.to_vec() };
        let of = Inode { content_dot: Some(Dot { device: DeviceTag(7), sequence: 9 }), ..record(7, 1) };
        let marked = |xattrs: Vec<Xattr>| copy(&Inode { xattrs, ..of.clone() });
        let mark = Mark { file: of.id, device: DeviceTag(7) };
        let value = mark.to_string().into_bytes();
        let (first, last) = (xattr(b"user.a", b"1"), xattr(b"user.z", b"2"));
        // In its place in the order of names, and instead of that of whatever it is a copy of.
        let old = xattr(mark::XATTR, b"of another one");
        for xattrs in [vec![first.clone(), last.clone()], vec![first.clone(), old.clone(), last.clone()]] {
            let copy = marked(xattrs);
            assert_eq!(copy.xattrs, [first.clone(), xattr(mark::XATTR, &value), last.clone()]);
            assert_eq!((Mark::of(&copy), Mark::of(&of)), (Some(mark), None));
        }
        // What somebody has set is not pushed out, and nothing is longer than it may be.
        let full = xattr(b"user.full", &vec![0; XATTRS_TOTAL_MAX - 10]);
        assert_eq!(marked(vec![full.clone()]).xattrs, [full]);
    }
}
