//! What the trees say, where they differ: directories that are equal in all of them are not looked into.

use std::collections::{BTreeMap, BTreeSet};

use super::inodes::{self, is_directory};
use super::{MergeError, Part, SourceOf, Sources};
use crate::codec::CodecError;
use crate::id::{FileId, VolumeId};
use crate::limits::{MERGED_NAMES_MAX, SECOND_NAMES_MAX, SECOND_PLACES_MAX, TREE_ITEMS_AT_ONCE};
use crate::tree::{self, Content, Dot, Entry, Inode, Item, LinkEntry, Target, TreeError, TreeRef, is_name};

const ALIAS_CONTEXT: &str = "hypernet 2026 id by which the second volume of one directory goes in a merge v1";
const BESIDE_CONTEXT: &str = "hypernet 2026 id of a directory that is kept beside the volume that it has become v1";
const TWICE_CONTEXT: &str = "hypernet 2026 id of what stands in a second place v1";

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) parent: FileId,
    pub(super) name: Vec<u8>,
}

/// Where each of some things is.
type Homes = BTreeMap<FileId, Place>;

/// What one tree has, where it is looked into.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Where each id is found, and since when. What is the same in all trees is left out.
    pub(super) names: BTreeMap<FileId, BTreeMap<Place, Dot>>,
    /// Records of these, and of all that has several names.
    pub(super) inodes: BTreeMap<FileId, Inode>,
    /// How many names these have.
    pub(super) links: BTreeMap<FileId, u32>,
}

/// What all trees have, where they differ.
pub(super) struct Gathered<'a> {
    pub(super) parts: &'a [Part],
    pub(super) root: FileId,
    /// By part.
    pub(super) seen: Vec<Seen>,
    /// Directories that are roots of other volumes in any of them. Where one has become two volumes, apart from one another,
    /// the second one goes by an id of its own here.
    pub(super) volumes: BTreeMap<FileId, VolumeId>,
    /// By whose trees they are named, where these were looked into: numbers of parts.
    pub(super) named_by: BTreeMap<FileId, BTreeSet<usize>>,
    /// The ids of those that go by another one.
    pub(super) aliases: BTreeMap<FileId, FileId>,
    /// Directories that were looked into, with the entries that are the same in all trees.
    pub(super) same: BTreeMap<FileId, Vec<Entry>>,
    /// Where something is found of which only the record differs, and in more than its metadata.
    pub(super) homes: Homes,
}

/// One tree, as far as it was looked into.
#[derive(Default)]
struct Known {
    directories: BTreeMap<FileId, TreeRef>,
    listings: BTreeMap<FileId, Vec<Entry>>,
    /// Second places of directories, and the names in them.
    twice: (usize, u64),
    /// Names in all listings.
    names: usize,
    /// Directories that are kept beside the volumes that they have become, and by what these go.
    beside: BTreeMap<FileId, FileId>,
}

impl Known {
    /// Takes in a directory, by an id that nothing else has: says by which, and whether it was looked into in another tree. None
    /// for what is no directory, and for one too many in second places.
    fn take(
        &mut self,
        inode: &mut Inode,
        place: &Place,
        kept: &BTreeSet<FileId>,
        looked: &BTreeSet<FileId>,
    ) -> Option<(FileId, bool)> {
        let Content::Directory(tree) = &inode.content else { return None };
        if kept.contains(&inode.id) {
            self.beside.insert(beside(inode.id), inode.id);
            inode.id = beside(inode.id);
        }
        if self.directories.contains_key(&inode.id) {
            // What is in it has two places as well: without an end that would double at each step.
            let (places, names) = (self.twice.0 + 1, self.twice.1.saturating_add(tree.weight));
            if places > SECOND_PLACES_MAX || names > SECOND_NAMES_MAX {
                return None;
            }
            self.twice = (places, names);
            inode.id = twice(inode.id, place);
        }
        self.directories.insert(inode.id, tree.clone());
        Some((inode.id, looked.contains(&inode.id)))
    }
}

struct Walk<'a, S> {
    parts: &'a [Part],
    source: &'a S,
    known: Vec<Known>,
    looked: BTreeSet<FileId>,
    volumes: BTreeMap<FileId, VolumeId>,
    /// Directories that stay such, whatever volumes they have become.
    beside: &'a BTreeSet<FileId>,
}

fn malformed<E>(part: &Part, reason: &'static str) -> MergeError<E> {
    MergeError::Malformed { number: part.number, reason }
}

/// The items of a tree; none where it is no tree, which is so for everybody who reads it.
pub(super) fn listed<T: Item, S: Sources>(
    part: &Part,
    tree: &TreeRef,
    source: &S,
) -> Result<Vec<T>, MergeError<S::Error>> {
    match tree::list(tree, &SourceOf(source, part.number)) {
        Ok(items) => Ok(items),
        Err(error @ (TreeError::Codec(CodecError::Version { .. }) | TreeError::Port(_) | TreeError::TooMuch(_))) => {
            Err(MergeError::Unread { number: part.number, error })
        }
        Err(TreeError::Codec(_) | TreeError::Seal(_) | TreeError::Malformed { .. }) => Ok(Vec::new()),
    }
}

impl<'a> Gathered<'a> {
    pub(super) fn gather<S: Sources>(
        parts: &'a [Part],
        beside: &'a BTreeSet<FileId>,
        source: &'a S,
    ) -> Result<Self, MergeError<S::Error>> {
        let root = parts.first().ok_or(MergeError::Nothing)?.inode.id;
        let (known, looked, volumes) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        let mut walk = Walk { parts, source, known, looked, volumes, beside };
        // A directory that turns out to be a volume is not to be looked into.
        while walk.walk(root)? {}
        let tables = walk.tables()?;
        let mut wanted = differing(parts, &tables);
        wanted.extend(walk.missing_rows(&tables));
        let homes = walk.homes(root, wanted)?;
        let Walk { known, looked, mut volumes, .. } = walk;
        let mut aliases = BTreeMap::new();
        let mut named_by: BTreeMap<FileId, BTreeSet<usize>> = BTreeMap::new();
        for (part, known) in parts.iter().zip(&known) {
            for entry in known.listings.values().flatten() {
                let Target::Volume { volume, id } = &entry.target else { continue };
                if volumes.get(id) == Some(volume) {
                    named_by.entry(*id).or_default().insert(part.number);
                } else {
                    volumes.insert(alias(*volume), *volume);
                    aliases.insert(alias(*volume), *id);
                }
            }
        }
        let (seen, same) = (Vec::new(), BTreeMap::new());
        let mut gathered = Self { parts, root, seen, volumes, named_by, aliases, same, homes };
        for id in &looked {
            gathered.same.insert(*id, same_in_all(&known, *id, &looked));
        }
        for ((part, known), table) in parts.iter().zip(known).zip(tables) {
            let seen = gathered.seen_in(part, known, table);
            gathered.seen.push(seen);
        }
        Ok(gathered)
    }

    fn seen_in(&self, part: &Part, known: Known, table: BTreeMap<FileId, LinkEntry>) -> Seen {
        let mut seen = Seen::default();
        let settled: BTreeSet<FileId> = self.same.values().flatten().filter_map(single).collect();
        for (id, LinkEntry { inode, links }) in table {
            seen.links.insert(id, links);
            seen.inodes.insert(id, inode);
        }
        for (parent, listing) in known.listings {
            let same: BTreeSet<&[u8]> =
                self.same.get(&parent).into_iter().flatten().map(|entry| &entry.name[..]).collect();
            for Entry { name, dot, target } in listing {
                if same.contains(&name[..]) {
                    continue;
                }
                let id = match &target {
                    Target::Volume { volume, id } if self.volumes.get(id) != Some(volume) => alias(*volume),
                    other => other.id(),
                };
                let place = Place { parent, name };
                let id = match target {
                    Target::Inode(mut inode) => {
                        if id == self.root || seen.inodes.contains_key(&id) || settled.contains(&id) {
                            inode.id = twice(id, &place);
                        }
                        let id = inode.id;
                        seen.inodes.insert(id, *inode);
                        id
                    }
                    Target::Link(_) if id == self.root => twice(id, &place),
                    // Where the link table has nothing of it, that of another tree may.
                    Target::Link(_) | Target::Volume { .. } => id,
                };
                if let Some(volume) = known.beside.get(&id) {
                    // It is not that the volume was taken away.
                    seen.names.entry(*volume).or_default().insert(place.clone(), dot);
                }
                seen.names.entry(id).or_default().insert(place, dot);
            }
        }
        seen.inodes.insert(self.root, part.inode.clone());
        seen
    }

    /// All that stands anywhere where the trees differ, and what has several names and another record.
    pub(super) fn ids(&self) -> BTreeSet<FileId> {
        let named = self.seen.iter().flat_map(|seen| seen.names.keys().copied());
        named.chain(self.homes.keys().copied()).chain(self.differing_records()).collect()
    }

    fn differing_records(&self) -> BTreeSet<FileId> {
        let mut records: BTreeMap<FileId, &Inode> = BTreeMap::new();
        let mut counts: BTreeMap<FileId, u32> = BTreeMap::new();
        let mut differing = BTreeSet::new();
        for (part, seen) in self.parts.iter().zip(&self.seen) {
            for (id, links) in &seen.links {
                let Some(inode) = seen.inodes.get(id) else { continue };
                // Of names that are elsewhere in the other volume nothing follows.
                let is_counted_so = part.is_below || *counts.entry(*id).or_insert(*links) == *links;
                if *records.entry(*id).or_insert(inode) != inode || !is_counted_so {
                    differing.insert(*id);
                }
            }
        }
        differing
    }

    pub(super) fn is_directory(&self, id: FileId) -> bool {
        let is_one = |seen: &Seen| seen.inodes.get(&id).is_some_and(is_directory);
        self.volumes.contains_key(&id) || self.seen.iter().any(is_one)
    }
}

/// By what a volume goes whose root has an id that another one's has, too.
fn alias(volume: VolumeId) -> FileId {
    derived(ALIAS_CONTEXT, volume.as_bytes())
}

/// By what a directory goes that is kept beside the volume that it has become.
fn beside(id: FileId) -> FileId {
    derived(BESIDE_CONTEXT, &id.0)
}

/// By what something goes that has the id of something else in the same tree. No device makes that by itself, and whoever did
/// must not be in the way of all others.
fn twice(id: FileId, place: &Place) -> FileId {
    derived(TWICE_CONTEXT, &[&id.0[..], &place.parent.0, &place.name].concat())
}

fn derived(context: &str, of: &[u8]) -> FileId {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::derive_key(context, of)[..16]);
    FileId(id)
}

/// What has this one name.
fn single(entry: &Entry) -> Option<FileId> {
    match &entry.target {
        Target::Inode(inode) => Some(inode.id),
        Target::Link(_) | Target::Volume { .. } => None,
    }
}

/// Entries of a directory that all trees have looked into, and that all of them have.
fn same_in_all(known: &[Known], id: FileId, looked: &BTreeSet<FileId>) -> Vec<Entry> {
    let listings: Option<Vec<&Vec<Entry>>> = known.iter().map(|known| known.listings.get(&id)).collect();
    let Some(listings) = listings else { return Vec::new() };
    let Some((first, others)) = listings.split_first() else { return Vec::new() };
    let others: Vec<BTreeMap<&[u8], &Entry>> =
        others.iter().map(|all| all.iter().map(|entry| (&entry.name[..], entry)).collect()).collect();
    let is_same = |entry: &&Entry| {
        !looked.contains(&entry.target.id()) && others.iter().all(|other| other.get(&entry.name[..]) == Some(entry))
    };
    first.iter().filter(is_same).cloned().collect()
}

/// What has several names, and of which there are several contents to keep.
fn differing(parts: &[Part], tables: &[BTreeMap<FileId, LinkEntry>]) -> BTreeSet<FileId> {
    let mut records: BTreeMap<FileId, Vec<(usize, &Inode)>> = BTreeMap::new();
    for (number, table) in tables.iter().enumerate() {
        for (id, row) in table {
            records.entry(*id).or_default().push((number, &row.inode));
        }
    }
    let several = records.into_iter().filter(|(_, records)| inodes::contents(parts, records).len() > 1);
    several.map(|(id, _)| id).collect()
}

impl<S: Sources> Walk<'_, S> {
    /// Looks into all directories that differ. True when one of those turned out to be a volume.
    fn walk(&mut self, root: FileId) -> Result<bool, MergeError<S::Error>> {
        self.known = self.parts.iter().map(|_| Known::default()).collect();
        self.looked.clear();
        let mut pending = BTreeSet::from([root]);
        for (part, known) in self.parts.iter().zip(&mut self.known) {
            match &part.inode.content {
                Content::Directory(tree) if part.inode.id == root => known.directories.insert(root, tree.clone()),
                _ => return Err(malformed(part, "its root is not that of the volume")),
            };
        }
        loop {
            pending.retain(|id| !self.volumes.contains_key(id));
            // First those of which several trees know different listings: what is missing in one tree may have moved, and is
            // found by that.
            let mut next: Vec<FileId> = pending.iter().copied().filter(|id| self.differs(*id)).collect();
            if next.is_empty() {
                next = pending.iter().copied().filter(|id| self.is_missing(*id)).collect();
            }
            if next.is_empty() {
                return Ok(false);
            }
            for id in next {
                pending.remove(&id);
                self.looked.insert(id);
                for part in 0..self.parts.len() {
                    self.look(part, id, &mut pending)?;
                }
            }
            if self.looked.iter().any(|id| self.volumes.contains_key(id)) {
                return Ok(true);
            }
        }
    }

    fn trees(&self, id: FileId) -> impl Iterator<Item = &TreeRef> {
        self.known.iter().filter_map(move |known| known.directories.get(&id))
    }

    fn differs(&self, id: FileId) -> bool {
        let mut trees = self.trees(id);
        let first = trees.next();
        trees.any(|tree| Some(tree) != first)
    }

    fn is_missing(&self, id: FileId) -> bool {
        self.trees(id).count() < self.parts.len()
    }

    /// Lists a directory in one tree, and what is below it there that was looked into already in another one.
    fn look(&mut self, part: usize, id: FileId, pending: &mut BTreeSet<FileId>) -> Result<(), MergeError<S::Error>> {
        let root = self.parts[part].inode.id;
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let known = &mut self.known[part];
            let Some(tree) = known.directories.get(&id) else { continue };
            if known.listings.contains_key(&id) {
                continue;
            }
            let mut entries: Vec<Entry> = listed(&self.parts[part], tree, self.source)?;
            entries.retain(|entry| is_name(&entry.name));
            known.names += entries.len();
            if known.names > MERGED_NAMES_MAX {
                let (number, error) = (self.parts[part].number, TreeError::TooMuch("names of all directories"));
                return Err(MergeError::Unread { number, error });
            }
            entries.retain_mut(|entry| {
                let place = Place { parent: id, name: entry.name.clone() };
                match &mut entry.target {
                    // What has the id of the root is no other directory's.
                    Target::Volume { id, .. } if *id == root => true,
                    Target::Volume { volume, id } => {
                        let first = self.volumes.entry(*id).or_insert(*volume);
                        *first = (*volume).min(*first);
                        true
                    }
                    Target::Inode(inode) => {
                        let Some((below, is_looked)) = known.take(inode, &place, self.beside, &self.looked) else {
                            return !is_directory(inode);
                        };
                        match is_looked {
                            true => waiting.push(below),
                            false => drop(pending.insert(below)),
                        }
                        true
                    }
                    Target::Link(_) => true,
                }
            });
            known.listings.insert(id, entries);
        }
        Ok(())
    }

    /// What has a row in some tables and not in all, and no name where the trees differ. Where a directory has become a volume
    /// in one of them its rows have gone there. Else that table is wrong, and all the same has no part in what happens to what has a
    /// name in all trees.
    fn missing_rows(&self, tables: &[BTreeMap<FileId, LinkEntry>]) -> BTreeSet<FileId> {
        let volumes_of = |known: &Known| -> BTreeSet<FileId> {
            let entries = known.listings.values().flatten();
            entries
                .filter(|entry| matches!(entry.target, Target::Volume { .. }))
                .map(|entry| entry.target.id())
                .collect()
        };
        let whole = || self.parts.iter().zip(self.known.iter().zip(tables)).filter(|(part, _)| !part.is_below);
        let volumes: BTreeSet<BTreeSet<FileId>> = whole().map(|(_, (known, _))| volumes_of(known)).collect();
        let in_all = |id: &FileId| whole().all(|(_, (_, table))| table.contains_key(id));
        let mut missing: BTreeSet<FileId> =
            whole().flat_map(|(_, (_, table))| table.keys().copied()).filter(|id| !in_all(id)).collect();
        if missing.is_empty() || volumes.len() > 1 {
            return BTreeSet::new();
        }
        for id in &self.looked {
            let same = same_in_all(&self.known, *id, &self.looked);
            let same: BTreeSet<&[u8]> = same.iter().map(|entry| &entry.name[..]).collect();
            let listings = self.known.iter().filter_map(|known| known.listings.get(id)).flatten();
            for entry in listings.filter(|entry| !same.contains(&entry.name[..])) {
                missing.remove(&entry.target.id());
            }
        }
        missing
    }

    fn tables(&self) -> Result<Vec<BTreeMap<FileId, LinkEntry>>, MergeError<S::Error>> {
        let table = |part: &Part| -> Result<BTreeMap<FileId, LinkEntry>, MergeError<S::Error>> {
            match &part.links {
                Some(links) => {
                    let rows: Vec<LinkEntry> = listed(part, links, self.source)?;
                    // A directory has one name, and its record is there; a row of one would have no name to be kept by.
                    let rows = rows.into_iter().filter(|row| !inodes::is_directory(&row.inode));
                    Ok(rows.map(|row| (row.inode.id, row)).collect())
                }
                None => Ok(BTreeMap::new()),
            }
        };
        let mut tables = self.parts.iter().map(table).collect::<Result<Vec<_>, MergeError<S::Error>>>()?;
        let of_volume = self.parts.iter().zip(&tables).filter(|(part, _)| !part.is_below);
        let of_volume: BTreeSet<FileId> = of_volume.flat_map(|(_, table)| table.keys().copied()).collect();
        for ((part, known), table) in self.parts.iter().zip(&self.known).zip(&mut tables) {
            if part.is_below {
                let entries = known.listings.values().flatten();
                let named: BTreeSet<FileId> = entries.map(|entry| entry.target.id()).collect();
                table.retain(|id, _| of_volume.contains(id) || named.contains(id));
            }
        }
        Ok(tables)
    }

    /// A name that each of these has in all trees: a version that is kept beside it is to lie there, where no other name is left.
    /// Of directories it is kept which one each is in, and not the way: of a deep and wide tree there would be no end of that.
    fn homes(&mut self, root: FileId, mut wanted: BTreeSet<FileId>) -> Result<Homes, MergeError<S::Error>> {
        let mut homes = Homes::new();
        let mut above: BTreeMap<FileId, FileId> = BTreeMap::new();
        let first = self.known.first().and_then(|known| known.directories.get(&root));
        let mut waiting = vec![(root, first.cloned())];
        while !wanted.is_empty()
            && let Some((parent, tree)) = waiting.pop()
        {
            let (all, same) = match (self.looked.contains(&parent), tree) {
                (true, _) => {
                    let listings = self.known.iter().filter_map(|known| known.listings.get(&parent));
                    (listings.flatten().cloned().collect(), same_in_all(&self.known, parent, &self.looked))
                }
                (false, Some(tree)) => {
                    // All have it.
                    let all: Vec<Entry> = listed(&self.parts[0], &tree, self.source).map_err(|error| match error {
                        MergeError::Unread { error, .. } => MergeError::Tree(error),
                        other => other,
                    })?;
                    (all.clone(), all)
                }
                (false, None) => continue,
            };
            for Entry { name, target, .. } in same {
                if let Target::Link(id) = target
                    && wanted.remove(&id)
                {
                    homes.insert(id, Place { parent, name });
                }
            }
            for entry in all {
                if let Target::Inode(inode) = entry.target
                    && let Content::Directory(tree) = inode.content
                    && inode.id != root
                    && !above.contains_key(&inode.id)
                {
                    above.insert(inode.id, parent);
                    waiting.push((inode.id, Some(tree)));
                }
            }
            // As many as one directory can have, which are read at once as well.
            if above.len() > TREE_ITEMS_AT_ONCE {
                return Err(MergeError::Tree(TreeError::TooMuch("directories of a tree")));
            }
        }
        let mut ways: BTreeSet<FileId> = BTreeSet::new();
        for Place { parent, .. } in homes.values() {
            let mut path = Vec::new();
            let mut at = Some(*parent);
            while let Some(id) = at.filter(|id| ways.insert(*id)) {
                path.push(id);
                at = above.get(&id).copied();
            }
            path.reverse();
            self.look_down(&path)?;
        }
        Ok(homes)
    }

    /// Looks into the directories on the way, in all trees.
    fn look_down(&mut self, path: &[FileId]) -> Result<(), MergeError<S::Error>> {
        for id in path {
            self.looked.insert(*id);
            for part in 0..self.parts.len() {
                self.look(part, *id, &mut BTreeSet::new())?;
            }
        }
        Ok(())
    }
}
