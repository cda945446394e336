//! What has changed from one tree to another: found by looking only into what differs, and told by what files are rather than
//! by what they are called, so that one that was renamed is the same one.
//!
//! Directories that both have are compared entry by entry; one that only one of them has is listed. A file is known by its id.
//! What took the place of something else, as editors save, is told as a change of what has that name.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{FileId, VolumeId};
use crate::limits::{DIFF_DIRECTORIES_AT_ONCE, TREE_ITEMS_AT_ONCE};
use crate::tree::{self, Content, Entry, FileKind, Inode, Item, LinkEntry, Root, Source, Target, TreeError, TreeRef};

pub use any::differs;

mod any;
mod report;
#[cfg(test)]
mod tests;

/// One of two trees.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Its uppermost directory.
    pub inode: &'a Inode,
    /// What has several names in the volume.
    pub links: Option<&'a TreeRef>,
}

impl<'a> From<&'a Root> for Side<'a> {
    fn from(root: &'a Root) -> Self {
        Self { inode: &root.inode, links: root.links.as_ref() }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// This.
    Inode(Box<Inode>),
    /// The root of another volume, whose history is its own.
    Volume(VolumeId),
}

impl Thing {
    /// What kind it is.
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Inode(inode) => inode.kind,
            Self::Volume(_) => FileKind::Directory,
        }
    }

    fn has_other_content(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inode(one), Self::Inode(other)) if one.kind == other.kind => {
                one.kind != FileKind::Directory && (one.content != other.content || one.rdev != other.rdev)
            }
            (Self::Volume(one), Self::Volume(other)) => one != other,
            _ => true,
        }
    }

    fn has_other_metadata(&self, other: &Self) -> bool {
        let of = |inode: &Inode| (inode.mode, inode.uid, inode.gid);
        match (self, other) {
            (Self::Inode(one), Self::Inode(other)) => of(one) != of(other) || one.xattrs != other.xattrs,
            _ => false,
        }
    }
}

/// Something in one of two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Where, from the uppermost directory, without a slash at its start.
    pub path: Vec<u8>,
    /// What.
    pub thing: Thing,
}

/// Something that is not the same in both trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// In the first one, unless it was added.
    pub before: Option<Version>,
    /// In the second one, unless it was removed.
    pub after: Option<Version>,
    /// It has another name, or is in another directory. What is in a directory that was renamed was not.
    pub is_renamed: bool,
}

impl Change {
    fn both(&self) -> Option<(&Thing, &Thing)> {
        Some((&self.before.as_ref()?.thing, &self.after.as_ref()?.thing))
    }

    /// Whether it is there in both, and what it holds is another. Of directories nothing is said here: what is in them is told
    /// for itself.
    pub fn has_other_content(&self) -> bool {
        self.both().is_some_and(|(before, after)| before.has_other_content(after))
    }

    /// Whether it is there in both, and its mode, its owner or its extended attributes are others.
    pub fn has_other_metadata(&self) -> bool {
        self.both().is_some_and(|(before, after)| before.has_other_metadata(after))
    }

    /// The path by which it is put in order: where it is now, or was.
    pub fn path(&self) -> &[u8] {
        self.after.as_ref().or(self.before.as_ref()).map_or(&[], |version| &version.path)
    }
}

/// A directory and a name in it.
type Place = (FileId, Vec<u8>);

/// What was seen of one tree.
#[derive(Default)]
struct Seen {
    /// Names that the other tree has not, or not so.
    names: BTreeMap<FileId, BTreeSet<Place>>,
    /// Records of what has one name.
    inodes: BTreeMap<FileId, Inode>,
    volumes: BTreeMap<FileId, VolumeId>,
    /// What has several names, as far as the other tree has another record of it.
    rows: BTreeMap<FileId, Inode>,
    /// Where directories are that were looked into or found.
    ways: BTreeMap<FileId, Place>,
    /// Directories of which all is in `names`.
    listed: BTreeSet<FileId>,
    entries: usize,
}

impl Seen {
    fn add(&mut self, parent: FileId, entry: Entry) {
        let id = entry.target.id();
        match entry.target {
            Target::Inode(inode) => {
                if inode.kind == FileKind::Directory {
                    self.ways.insert(id, (parent, entry.name.clone()));
                }
                self.inodes.insert(id, *inode);
            }
            Target::Volume { volume, .. } => drop(self.volumes.insert(id, volume)),
            Target::Link(_) => {}
        }
        self.names.entry(id).or_default().insert((parent, entry.name));
        self.entries += 1;
    }

    fn directory(&self, id: FileId) -> Option<&TreeRef> {
        match &self.inodes.get(&id)?.content {
            Content::Directory(tree) => Some(tree),
            _ => None,
        }
    }

    /// Directories that were found and not looked into.
    fn found<'a>(&'a self, looked: &'a BTreeSet<FileId>) -> impl Iterator<Item = FileId> + 'a {
        let all = self.names.keys().copied();
        all.filter(move |id| self.directory(*id).is_some() && !looked.contains(id) && !self.listed.contains(id))
    }
}

/// Two directories that are compared. By `id` goes what is in them.
struct Pair {
    id: FileId,
    before: Option<TreeRef>,
    after: Option<TreeRef>,
}

/// By this goes what is in the uppermost directories, which need not be one.
const TOP: FileId = FileId([0xff; 16]);

struct Comparison<'a, S> {
    source: &'a S,
    before: Seen,
    after: Seen,
    /// Directories that were compared.
    compared: BTreeSet<FileId>,
    /// Bytes of all paths that are held.
    paths: Cell<usize>,
}

/// All that has changed from the first tree to the second one, in order of paths. Times alone are no change.
pub fn compare<S: Source>(before: Side<'_>, after: Side<'_>, source: &S) -> Result<Vec<Change>, TreeError<S::Error>> {
    let (was, is) = (Seen::default(), Seen::default());
    let (compared, paths) = (BTreeSet::new(), Cell::new(0));
    let mut comparison = Comparison { source, before: was, after: is, compared, paths };
    comparison.rows(before.links, after.links)?;
    comparison.walk(before.inode, after.inode)?;
    comparison.report(before, after)
}

impl<S: Source> Comparison<'_, S> {
    fn rows(&mut self, before: Option<&TreeRef>, after: Option<&TreeRef>) -> Result<(), TreeError<S::Error>> {
        for rows in tree::differing::<LinkEntry, S>(&[(before, after)], self.source)? {
            self.before.rows.extend(rows.before.into_iter().map(|row| (row.inode.id, row.inode)));
            self.after.rows.extend(rows.after.into_iter().map(|row| (row.inode.id, row.inode)));
        }
        Ok(())
    }

    fn walk(&mut self, before: &Inode, after: &Inode) -> Result<(), TreeError<S::Error>> {
        let tree = |inode: &Inode| match &inode.content {
            Content::Directory(tree) => Some(tree.clone()),
            _ => None,
        };
        let mut next = vec![Pair { id: TOP, before: tree(before), after: tree(after) }];
        loop {
            while !next.is_empty() {
                let later = next.split_off(next.len().min(DIFF_DIRECTORIES_AT_ONCE));
                let mut found = self.compare_all(next)?;
                found.extend(later);
                next = found;
            }
            // Only what has no counterpart anywhere is listed, and what is new first: what is gone may have moved there.
            next = self.counterparts();
            if next.is_empty() && !self.list_new()? && !self.list_gone()? {
                return Ok(());
            }
        }
    }

    /// Compares directories; those below that both have and that differ are next.
    fn compare_all(&mut self, pairs: Vec<Pair>) -> Result<Vec<Pair>, TreeError<S::Error>> {
        let trees: Vec<_> = pairs.iter().map(|pair| (pair.before.as_ref(), pair.after.as_ref())).collect();
        let all = tree::differing::<Entry, S>(&trees, self.source)?;
        let mut next = Vec::new();
        for (pair, differing) in pairs.iter().zip(all) {
            self.compared.insert(pair.id);
            let mut news: BTreeSet<FileId> = BTreeSet::new();
            for entry in differing.after {
                news.insert(entry.target.id());
                self.after.add(pair.id, entry);
            }
            for entry in differing.before {
                let id = entry.target.id();
                self.before.add(pair.id, entry);
                if news.contains(&id) {
                    next.extend(self.counterpart(id));
                }
            }
        }
        self.check()?;
        Ok(next)
    }

    fn check(&self) -> Result<(), TreeError<S::Error>> {
        match self.before.entries + self.after.entries > TREE_ITEMS_AT_ONCE {
            true => Err(TreeError::TooMuch(<Entry as Item>::NAME)),
            false => Ok(()),
        }
    }

    /// A directory that both have, to be compared, unless it was, or is the same.
    fn counterpart(&mut self, id: FileId) -> Option<Pair> {
        let (before, after) = (self.before.directory(id)?, self.after.directory(id)?);
        let is_listed = self.before.listed.contains(&id) || self.after.listed.contains(&id);
        if is_listed || self.compared.contains(&id) {
            return None;
        }
        let pair = Pair { id, before: Some(before.clone()), after: Some(after.clone()) };
        self.compared.insert(id);
        (pair.before != pair.after).then_some(pair)
    }

    fn counterparts(&mut self) -> Vec<Pair> {
        let both: Vec<FileId> =
            self.before.found(&self.compared).filter(|id| self.after.directory(*id).is_some()).collect();
        both.into_iter().filter_map(|id| self.counterpart(id)).collect()
    }

    /// Lists the directories that only the second tree has; false where there is none.
    fn list_new(&mut self) -> Result<bool, TreeError<S::Error>> {
        let ids: Vec<FileId> = self.after.found(&self.compared).take(DIFF_DIRECTORIES_AT_ONCE).collect();
        let listed = list(self.source, &mut self.after, ids)?;
        self.check().map(|()| listed)
    }

    /// The same for the first one.
    fn list_gone(&mut self) -> Result<bool, TreeError<S::Error>> {
        let ids: Vec<FileId> = self.before.found(&self.compared).take(DIFF_DIRECTORIES_AT_ONCE).collect();
        let listed = list(self.source, &mut self.before, ids)?;
        self.check().map(|()| listed)
    }
}

fn list<S: Source>(source: &S, seen: &mut Seen, ids: Vec<FileId>) -> Result<bool, TreeError<S::Error>> {
    let trees: Vec<TreeRef> = ids.iter().filter_map(|id| seen.directory(*id).cloned()).collect();
    let pairs: Vec<_> = trees.iter().map(|tree| (None, Some(tree))).collect();
    let all = tree::differing::<Entry, S>(&pairs, source)?;
    for (id, differing) in ids.iter().zip(all) {
        seen.listed.insert(*id);
        differing.after.into_iter().for_each(|entry| seen.add(*id, entry));
    }
    Ok(!ids.is_empty())
}
