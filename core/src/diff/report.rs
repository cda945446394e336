//! From what was seen of two trees to what is told of it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Comparison, Place, Seen, Side, Thing, Version};
use crate::id::FileId;
use crate::limits::{DIFF_DIRECTORIES_AT_ONCE, PATH_DEPTH_MAX, PATH_MAX, PATHS_MAX, TREE_ITEMS_AT_ONCE};
use crate::tree::{self, Content, Entry, LinkEntry, Source, Target, TreeError, TreeRef};

/// What is where, of one tree.
type Found = (Place, Version);

impl Seen {
    /// The path of a name, as far as there is one: what somebody else has made may lead in circles.
    fn path(&self, (parent, name): &Place) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = vec![name];
        let mut at = parent;
        while let Some((parent, name)) = self.ways.get(at).filter(|_| parts.len() < PATH_DEPTH_MAX) {
            parts.push(name);
            at = parent;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    /// What is behind an id. `links`: where it is looked up when both trees have the same record of it.
    fn thing<S: Source>(
        &self,
        id: FileId,
        links: Option<&TreeRef>,
        source: &S,
    ) -> Result<Option<Thing>, TreeError<S::Error>> {
        if let Some(volume) = self.volumes.get(&id) {
            return Ok(Some(Thing::Volume(*volume)));
        }
        if let Some(inode) = self.inodes.get(&id).or_else(|| self.rows.get(&id)) {
            return Ok(Some(Thing::Inode(inode.clone().into())));
        }
        let row = match links {
            Some(links) => tree::find::<LinkEntry, S>(links, source, &id)?,
            None => None,
        };
        Ok(row.map(|row| Thing::Inode(row.inode.into())))
    }

    fn places(&self, id: FileId) -> BTreeSet<Place> {
        self.names.get(&id).cloned().unwrap_or_default()
    }
}

impl<S: Source> Comparison<'_, S> {
    pub(super) fn report(mut self, before: Side<'_>, after: Side<'_>) -> Result<Vec<Change>, TreeError<S::Error>> {
        self.replace();
        let named = self.before.names.keys().chain(self.after.names.keys());
        let ids: BTreeSet<FileId> =
            named.chain(self.before.rows.keys()).chain(self.after.rows.keys()).copied().collect();
        let (mut changes, mut gone, mut news) = (Vec::new(), Vec::new(), Vec::new());
        let mut nameless: BTreeMap<FileId, (Thing, Thing)> = BTreeMap::new();
        for id in ids {
            let (was, is) = (self.before.places(id), self.after.places(id));
            let was_thing = self.before.thing(id, before.links, self.source)?;
            let is_thing = self.after.thing(id, after.links, self.source)?;
            let mut gone_names = was.difference(&is);
            let mut new_names = is.difference(&was);
            let mut is_told = false;
            loop {
                let was_here = gone_names.next().zip(was_thing.clone());
                let was_here = was_here.map(|(place, thing)| self.version(&self.before, place, thing)).transpose()?;
                let is_here = new_names.next().zip(is_thing.clone());
                let is_here = is_here.map(|(place, thing)| self.version(&self.after, place, thing)).transpose()?;
                match (was_here, is_here) {
                    (Some((_, before)), Some((_, after))) => {
                        is_told = true;
                        changes.push(Change { before: Some(before), after: Some(after), is_renamed: true });
                    }
                    (Some(found), None) => gone.push(found),
                    (None, Some(found)) => news.push(found),
                    (None, None) => break,
                }
            }
            let (Some(was_thing), Some(is_thing)) = (was_thing, is_thing) else { continue };
            let differs = was_thing.has_other_content(&is_thing) || was_thing.has_other_metadata(&is_thing);
            if !is_told && differs {
                match was.intersection(&is).next() {
                    Some(place) => {
                        let (_, before) = self.version(&self.before, place, was_thing)?;
                        let (_, after) = self.version(&self.after, place, is_thing)?;
                        changes.push(Change { before: Some(before), after: Some(after), is_renamed: false });
                    }
                    None => drop(nameless.insert(id, (was_thing, is_thing))),
                }
            }
        }
        changes.extend(self.find_names(after, nameless, &news)?);
        changes.extend(together(gone, news));
        let root = |side: Side<'_>| Version { path: Vec::new(), thing: Thing::Inode(side.inode.clone().into()) };
        changes.push(Change { before: Some(root(before)), after: Some(root(after)), is_renamed: false });
        changes.retain(|change| {
            let is_both = change.before.is_some() && change.after.is_some();
            !is_both || change.is_renamed || change.has_other_content() || change.has_other_metadata()
        });
        changes.sort_by(|one, other| one.path().cmp(other.path()));
        Ok(changes)
    }

    fn version(&self, seen: &Seen, place: &Place, thing: Thing) -> Result<Found, TreeError<S::Error>> {
        let path = seen.path(place);
        self.hold([&path])?;
        Ok((place.clone(), Version { path, thing }))
    }

    /// These paths are held from now on; an error where they are too long with all the others.
    fn hold<'a>(&self, paths: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<(), TreeError<S::Error>> {
        self.paths.set(self.paths.get() + paths.into_iter().map(Vec::len).sum::<usize>());
        match self.paths.get() > PATHS_MAX {
            true => Err(TreeError::TooMuch("paths of what has changed")),
            false => Ok(()),
        }
    }

    fn let_go<'a>(&self, paths: impl IntoIterator<Item = &'a Vec<u8>>) {
        self.paths.set(self.paths.get().saturating_sub(paths.into_iter().map(Vec::len).sum()));
    }

    /// Where a directory has taken the place of another one, what is in the one was in the other.
    fn replace(&mut self) {
        let only = |one: &Seen, other: &Seen| -> BTreeMap<Place, FileId> {
            let directories = one.ways.iter().filter(|(id, _)| !other.ways.contains_key(*id));
            directories.map(|(id, place)| (place.clone(), *id)).collect()
        };
        let (gone, news) = (only(&self.before, &self.after), only(&self.after, &self.before));
        let is_gone: BTreeSet<FileId> = gone.values().copied().collect();
        let mut below: BTreeMap<FileId, Vec<(Vec<u8>, FileId)>> = BTreeMap::new();
        for ((parent, name), id) in gone {
            below.entry(parent).or_default().push((name, id));
        }
        let mut replaced: BTreeMap<FileId, FileId> = BTreeMap::new();
        let mut waiting: Vec<(FileId, FileId)> =
            below.keys().filter(|parent| !is_gone.contains(*parent)).map(|parent| (*parent, *parent)).collect();
        while let Some((was, is)) = waiting.pop() {
            for (name, old) in below.remove(&was).unwrap_or_default() {
                if let Some(new) = news.get(&(is, name)) {
                    replaced.insert(old, *new);
                    waiting.push((old, *new));
                }
            }
        }
        let Seen { names, ways, .. } = &mut self.before;
        let moved = |(parent, name): Place| (replaced.get(&parent).copied().unwrap_or(parent), name);
        for places in names.values_mut() {
            *places = std::mem::take(places).into_iter().map(moved).collect();
        }
        *ways = std::mem::take(ways).into_iter().map(|(id, place)| (id, moved(place))).collect();
        let places: Vec<_> = replaced.iter().filter_map(|(old, new)| Some((*new, ways.get(old)?.clone()))).collect();
        ways.extend(places);
    }

    /// What has several names, and of which only others are different than the names that it has in both trees: each is told by
    /// the first one of these.
    fn find_names(
        &self,
        after: Side<'_>,
        mut nameless: BTreeMap<FileId, (Thing, Thing)>,
        news: &[Found],
    ) -> Result<Vec<Change>, TreeError<S::Error>> {
        let news: BTreeSet<&[u8]> = news.iter().map(|(_, version)| &version.path[..]).collect();
        let mut changes = Vec::new();
        // Directories, each with the path that it had and the one that it has.
        let mut waiting: Vec<([Vec<u8>; 2], TreeRef)> = Vec::new();
        if let Content::Directory(tree) = &after.inode.content {
            waiting.push((Default::default(), tree.clone()));
        }
        let mut read = 0;
        while !nameless.is_empty() && !waiting.is_empty() && read < TREE_ITEMS_AT_ONCE {
            let now = waiting.split_off(waiting.len().saturating_sub(DIFF_DIRECTORIES_AT_ONCE));
            let pairs: Vec<_> = now.iter().map(|(_, tree)| (None, Some(tree))).collect();
            let listings = tree::differing::<Entry, S>(&pairs, self.source)?;
            for ((above, _), listing) in now.iter().zip(listings) {
                read += listing.after.len() + 1;
                for Entry { name, target, .. } in listing.after {
                    let paths = || above.each_ref().map(|above| join(above, &name));
                    match target {
                        Target::Link(id) if nameless.contains_key(&id) => {
                            let [before, path] = paths();
                            if !news.contains(&path[..])
                                && let Some((was, is)) = nameless.remove(&id)
                            {
                                self.hold([&before, &path])?;
                                changes.push(Change {
                                    before: Some(Version { path: before, thing: was }),
                                    after: Some(Version { path, thing: is }),
                                    is_renamed: false,
                                });
                            }
                        }
                        Target::Inode(inode) => {
                            if let Content::Directory(tree) = inode.content
                                && above.iter().all(|above| above.len() + name.len() < PATH_MAX)
                            {
                                let [before, path] = paths();
                                let place = self.before.ways.get(&inode.id);
                                let before = place.map_or(before, |place| self.before.path(place));
                                self.hold([&before, &path])?;
                                waiting.push(([before, path], tree));
                            }
                        }
                        Target::Link(_) | Target::Volume { .. } => {}
                    }
                }
                self.let_go(above);
            }
        }
        Ok(changes)
    }
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, name].join(&b'/') }
}

/// What is gone, and what is new: where both have one place, the one has become the other.
fn together(gone: Vec<Found>, news: Vec<Found>) -> Vec<Change> {
    let mut news: BTreeMap<Place, Version> = news.into_iter().collect();
    let mut changes: Vec<Change> = Vec::new();
    for (place, before) in gone {
        let after = news.remove(&place);
        changes.push(Change { before: Some(before), after, is_renamed: false });
    }
    changes.extend(news.into_values().map(|after| Change { before: None, after: Some(after), is_renamed: false }));
    changes
}
