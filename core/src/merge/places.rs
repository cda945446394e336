//! Which names stay, and what each of them leads to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::gather::{Gathered, Place, Seen};
use super::inodes::{Outcomes, bytes, content_dot, is_directory};
use super::mark::Mark;
use super::{Conflict, Label};
use crate::id::FileId;
use crate::limits::NAME_MAX;
use crate::tree::{Content, Dot, Entry, FileKind, Inode, Target};

/// What a name leads to.
#[derive(Clone, Debug)]
pub(super) enum Leads {
    /// The same as in all trees.
    Same(Entry),
    /// Something that was looked at.
    To(FileId, Dot),
    /// A version that is kept beside another one.
    Copy(Box<Inode>, Dot),
}

/// The directories that stay and were looked into, those above before those below, with all that is in them.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) directories: Vec<(FileId, BTreeMap<Vec<u8>, Leads>)>,
    pub(super) conflicts: BTreeSet<Conflict>,
    /// Files that are kept beside another one whose name they would have.
    pub(super) marks: BTreeMap<FileId, Mark>,
    /// Names that were looked at and lead to this.
    pub(super) names: BTreeMap<FileId, u32>,
}

/// What was written, and when.
type Version = (Dot, [u8; 32]);

fn version(inode: &Inode) -> Version {
    (content_dot(inode), *blake3::hash(&bytes(&inode.content)).as_bytes())
}

fn has_content(inode: &Inode) -> bool {
    !matches!(inode.content, Content::Directory(_) | Content::Empty | Content::Symlink(_))
}

/// Where each thing is found.
type Chosen = BTreeMap<FileId, BTreeMap<Place, Dot>>;

struct Choice<'a> {
    gathered: &'a Gathered<'a>,
    chosen: Chosen,
}

/// How many names a file with several has where nobody looked, or where all is the same.
pub(super) fn names_elsewhere(gathered: &Gathered<'_>, id: FileId) -> u32 {
    let parts = gathered.parts.iter().zip(&gathered.seen).filter(|(part, _)| !part.is_below);
    let elsewhere = parts.filter_map(|(_, seen)| {
        let names = seen.names.get(&id).map_or(0, BTreeMap::len);
        Some(seen.links.get(&id)?.saturating_sub(u32::try_from(names).unwrap_or(u32::MAX)))
    });
    elsewhere.min().unwrap_or(0)
}

pub(super) fn resolve(gathered: &Gathered<'_>, outcomes: &Outcomes, label: Label<'_>) -> Places {
    let mut choice = Choice { gathered, chosen: Chosen::new() };
    for id in gathered.ids() {
        choice.choose(id);
    }
    choice.keep_versions(outcomes);
    choice.keep_ways();
    choice.break_circles();
    let same = gathered.same.values().flatten().map(|entry| entry.target.id());
    let known = choice.chosen.keys().copied().chain(same).collect();
    Laying { gathered, outcomes, label, known, places: Places::default() }.lay(choice.chosen)
}

impl Choice<'_> {
    /// All places of something, in any tree: where it came to last is last.
    fn candidates(&self, id: FileId) -> Vec<(Dot, Place)> {
        let seen = self.gathered.seen.iter().filter_map(|seen| seen.names.get(&id));
        let mut all: Vec<_> = seen.flatten().map(|(place, dot)| (*dot, place.clone())).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether it has one name only, wherever it is.
    fn is_single(&self, id: FileId) -> bool {
        self.gathered.seen.iter().all(|seen| !seen.links.contains_key(&id))
    }

    /// Names that no other part has seen and taken away.
    fn surviving(&self, id: FileId) -> BTreeMap<Place, Dot> {
        let names: Vec<Option<&BTreeMap<Place, Dot>>> =
            self.gathered.seen.iter().map(|seen| seen.names.get(&id)).collect();
        let mut surviving = BTreeMap::new();
        for (dot, place) in self.candidates(id) {
            let mut parts = self.gathered.parts.iter().zip(&names);
            let lacks = |names: &Option<&BTreeMap<Place, Dot>>| names.is_none_or(|names| !names.contains_key(&place));
            if !parts.any(|(part, names)| lacks(names) && part.covers(dot)) {
                surviving.insert(place, dot);
            }
        }
        surviving
    }

    /// Whether a tree has something under a name. A row of the link table alone says nothing: whoever took the names away need not
    /// have taken that.
    fn has(&self, number: usize, id: FileId) -> bool {
        self.gathered.seen[number].names.contains_key(&id) || self.is_elsewhere(id)
    }

    /// Whether something without a name that stays is kept all the same: nobody has taken it away, or whoever did had not
    /// seen what is in it now.
    fn is_kept(&self, id: FileId) -> bool {
        let lacking: Vec<_> = (0..self.gathered.parts.len()).filter(|number| !self.has(*number, id)).collect();
        let is_new = |seen: &Seen| {
            let inode = seen.inodes.get(&id).filter(|inode| !is_directory(inode));
            inode.is_some_and(|inode| {
                lacking.iter().all(|number| !self.gathered.parts[*number].covers(content_dot(inode)))
            })
        };
        lacking.is_empty() || self.gathered.seen.iter().any(is_new)
    }

    fn choose(&mut self, id: FileId) {
        let mut places = self.surviving(id);
        let elsewhere = names_elsewhere(self.gathered, id);
        if places.is_empty() && elsewhere == 0 && self.is_kept(id) {
            places = self.candidates(id).into_iter().map(|(dot, place)| (place, dot)).collect();
        }
        if self.is_single(id) {
            places = places.into_iter().max_by_key(|(place, dot)| (*dot, place.clone())).into_iter().collect();
        }
        if !places.is_empty() {
            self.chosen.insert(id, places);
        }
    }

    /// A version that one part keeps beside another one, and the other part in the file itself, is in both, though each lacks
    /// what the other has it in: what no part has seen and taken away is found somewhere.
    fn keep_versions(&mut self, outcomes: &Outcomes) {
        let mut versions: BTreeMap<Version, Vec<(usize, FileId)>> = BTreeMap::new();
        for (number, seen) in self.gathered.seen.iter().enumerate() {
            for (id, inode) in seen.inodes.iter().filter(|(id, inode)| has_content(inode) && self.has(number, **id)) {
                versions.entry(version(inode)).or_default().push((number, *id));
            }
        }
        let stay = outcomes.iter().filter(|(id, _)| self.chosen.contains_key(*id) || self.is_elsewhere(**id));
        let stay = stay.flat_map(|(_, outcome)| outcome.copies.iter().chain([&outcome.inode]));
        let stay: BTreeSet<Version> = stay.map(version).collect();
        for (version, holders) in versions.into_iter().filter(|(version, _)| !stay.contains(version)) {
            let lacks = |number: usize| holders.iter().all(|(holder, _)| *holder != number);
            let parts = self.gathered.parts.iter().enumerate();
            let is_taken_away = parts.into_iter().any(|(number, part)| lacks(number) && part.covers(version.0));
            let last = holders.iter().map(|(_, id)| *id).filter(|id| !self.chosen.contains_key(id)).max();
            if !is_taken_away
                && let Some(id) = last
                && let Some((dot, place)) = self.candidates(id).pop()
            {
                self.chosen.insert(id, BTreeMap::from([(place, dot)]));
            }
        }
    }

    /// Whether it has names where nobody looked.
    fn is_elsewhere(&self, id: FileId) -> bool {
        names_elsewhere(self.gathered, id) > 0
    }

    /// The directories that lead to what stays, stay.
    fn keep_ways(&mut self) {
        let all = self.chosen.values().flat_map(BTreeMap::keys).map(|place| place.parent).collect();
        self.keep_way(all);
    }

    /// These directories stay, and those that lead to them; says which of them did not before.
    fn keep_way(&mut self, mut waiting: Vec<FileId>) -> Vec<FileId> {
        let mut kept = Vec::new();
        while let Some(id) = waiting.pop() {
            if id == self.gathered.root || self.chosen.contains_key(&id) {
                continue;
            }
            // It has a place in each tree in which something is in it.
            if let Some((dot, place)) = self.candidates(id).pop() {
                waiting.push(place.parent);
                self.chosen.insert(id, BTreeMap::from([(place, dot)]));
                kept.push(id);
            }
        }
        kept
    }

    fn parent(&self, id: FileId) -> Option<FileId> {
        Some(self.chosen.get(&id)?.first_key_value()?.0.parent)
    }

    /// Of moves that make a circle the one with the greatest dot does not count.
    fn break_circles(&mut self) {
        let directories: Vec<FileId> =
            self.chosen.keys().copied().filter(|id| self.gathered.is_directory(*id)).collect();
        // What is reached from the root once is reached for good.
        let mut fine = BTreeSet::new();
        for id in directories {
            while let Some(circle) = self.circle_above(id, &mut fine) {
                let last = circle.iter().copied().max_by_key(|id| {
                    self.chosen.get(id).and_then(|all| all.first_key_value()).map(|(place, dot)| (*dot, place.clone()))
                });
                match last {
                    Some(last) => self.put_elsewhere(last),
                    None => break,
                }
            }
        }
    }

    /// The circle that the way up from here leads into; otherwise all on it are fine.
    fn circle_above(&self, id: FileId, fine: &mut BTreeSet<FileId>) -> Option<BTreeSet<FileId>> {
        let mut passed = Vec::new();
        let mut set = BTreeSet::new();
        let mut at = id;
        while at != self.gathered.root && !fine.contains(&at) {
            if !set.insert(at) {
                let from = passed.iter().position(|other| *other == at)?;
                return Some(passed[from..].iter().copied().collect());
            }
            passed.push(at);
            match self.parent(at) {
                Some(parent) => at = parent,
                None => break,
            }
        }
        fine.extend(passed);
        None
    }

    /// Another place for a directory that is part of a circle: where it was before, or below the root.
    fn put_elsewhere(&mut self, id: FileId) {
        let now = self.chosen.remove(&id).unwrap_or_default();
        for (dot, place) in self.candidates(id).into_iter().rev() {
            if now.contains_key(&place) {
                continue;
            }
            let parent = place.parent;
            self.chosen.insert(id, BTreeMap::from([(place, dot)]));
            let kept = self.keep_way(vec![parent]);
            if self.circle_above(id, &mut BTreeSet::new()).is_none() {
                return;
            }
            kept.iter().chain([&id]).for_each(|id| drop(self.chosen.remove(id)));
        }
        let places = now.into_iter().map(|(place, dot)| (Place { parent: self.gathered.root, ..place }, dot));
        self.chosen.insert(id, places.collect());
    }
}

/// Something that is to have a name in one directory.
#[derive(Clone)]
struct Wanting {
    leads: Leads,
    /// Versions that are kept beside it here.
    copies: Vec<Inode>,
    /// The file that has the name which it would have.
    beside: Option<FileId>,
}

struct Laying<'a> {
    gathered: &'a Gathered<'a>,
    outcomes: &'a Outcomes,
    label: Label<'a>,
    /// All that has a name already.
    known: BTreeSet<FileId>,
    places: Places,
}

type Slots = BTreeMap<Vec<u8>, Vec<Wanting>>;
/// What is to have a name in a directory, since when, and whether that is its first place.
type Below = Vec<(Vec<u8>, FileId, Dot, bool)>;
/// What each name in a directory leads to, and the directories below it, each with those that become part of it.
type Settled = (BTreeMap<Vec<u8>, Leads>, Vec<(FileId, Vec<FileId>)>);

impl Wanting {
    fn id(&self) -> FileId {
        match &self.leads {
            Leads::Same(entry) => entry.target.id(),
            Leads::To(id, _) => *id,
            Leads::Copy(inode, _) => inode.id,
        }
    }

    fn dot(&self) -> Dot {
        match &self.leads {
            Leads::Same(Entry { dot, .. }) | Leads::To(_, dot) | Leads::Copy(_, dot) => *dot,
        }
    }
}

impl Laying<'_> {
    /// From the root down: what is in a directory is known when it is known which others have become part of it.
    fn lay(mut self, chosen: Chosen) -> Places {
        let mut below: BTreeMap<FileId, Below> = BTreeMap::new();
        for (id, all) in chosen {
            for (number, (place, dot)) in all.into_iter().enumerate() {
                below.entry(place.parent).or_default().push((place.name, id, dot, number == 0));
            }
        }
        let root = self.gathered.root;
        let is_looked_into = self.gathered.same.contains_key(&root);
        let mut waiting: VecDeque<_> = is_looked_into.then(|| (root, vec![root])).into_iter().collect();
        while let Some((id, all)) = waiting.pop_front() {
            let mut slots = Slots::new();
            for part in &all {
                for entry in self.gathered.same.get(part).into_iter().flatten() {
                    let wanting = self.wanting_same(*part, entry);
                    slots.entry(entry.name.clone()).or_default().push(wanting);
                }
                for (name, id, dot, is_first) in below.remove(part).unwrap_or_default() {
                    let wanting = self.wanting(id, dot, is_first);
                    slots.entry(name).or_default().push(wanting);
                }
            }
            let (entries, directories) = self.settle(id, slots);
            self.places.directories.push((id, entries));
            waiting.extend(directories);
        }
        self.places
    }

    fn wanting(&self, id: FileId, dot: Dot, is_first: bool) -> Wanting {
        let copies = self.outcomes.get(&id).filter(|_| is_first).map(|outcome| outcome.copies.clone());
        Wanting { leads: Leads::To(id, dot), copies: copies.unwrap_or_default(), beside: None }
    }

    fn wanting_same(&self, parent: FileId, entry: &Entry) -> Wanting {
        let id = entry.target.id();
        let is_home = self.gathered.homes.get(&id) == Some(&Place { parent, name: entry.name.clone() });
        let copies = self.outcomes.get(&id).filter(|_| is_home).map(|outcome| outcome.copies.clone());
        Wanting { leads: Leads::Same(entry.clone()), copies: copies.unwrap_or_default(), beside: None }
    }

    fn inode<'a>(&'a self, wanting: &'a Wanting) -> Option<&'a Inode> {
        match &wanting.leads {
            Leads::Same(Entry { target: Target::Inode(inode), .. }) => Some(inode),
            Leads::Copy(inode, _) => Some(inode),
            Leads::Same(_) | Leads::To(..) => self.outcomes.get(&wanting.id()).map(|outcome| &outcome.inode),
        }
    }

    /// Whether it can become one with another directory.
    fn is_open(&self, wanting: &Wanting) -> bool {
        let id = wanting.id();
        self.gathered.same.contains_key(&id) && !self.gathered.volumes.contains_key(&id)
    }

    /// Which of several things keeps the name: volumes and directories before files, then what was written last.
    fn rank(&self, wanting: &Wanting) -> impl Ord + use<> {
        let inode = self.inode(wanting);
        let is_volume = self.gathered.volumes.contains_key(&wanting.id())
            || matches!(&wanting.leads, Leads::Same(Entry { target: Target::Volume { .. }, .. }));
        let is_directory = inode.is_some_and(is_directory);
        (is_volume, is_directory, inode.map(|inode| inode.mtime), wanting.dot(), wanting.id())
    }

    /// What each name in a directory leads to, and which directories that were looked into are below it, each with those that
    /// become part of it.
    fn settle(&mut self, parent: FileId, slots: Slots) -> Settled {
        let mut entries = BTreeMap::new();
        let mut below = Vec::new();
        let mut others: Vec<(Vec<u8>, Wanting)> = Vec::new();
        for (name, mut all) in slots {
            all.sort_by_cached_key(|wanting| self.rank(wanting));
            let copies = all.iter().flat_map(|wanting| {
                let dot = self.inode(wanting).map_or(wanting.dot(), content_dot);
                wanting.copies.iter().map(move |copy| Leads::Copy(copy.clone().into(), dot))
            });
            let copies: Vec<_> =
                copies.map(|leads| (name.clone(), Wanting { leads, copies: Vec::new(), beside: None })).collect();
            others.extend(copies);
            let Some(first) = all.pop() else { continue };
            let (mut same, mut rest) = (vec![first.id()], Vec::new());
            for wanting in all.into_iter().rev() {
                match self.is_open(&first) && self.is_open(&wanting) {
                    true => same.push(wanting.id()),
                    false => rest.push(wanting),
                }
            }
            let inode = self.inode(&first);
            let is_equal = |wanting: &Wanting| {
                let both = inode.zip(self.inode(wanting));
                both.is_some_and(|(one, other)| one.kind == other.kind && one.content == other.content)
            };
            // As editors save: a new file takes the name, on each device another one. They are versions of one another.
            let file = Some(first.id()).filter(|_| inode.is_some_and(|inode| inode.kind == FileKind::Regular));
            let rest = rest.into_iter().filter(|one| !is_equal(one));
            others.extend(rest.map(|one| (name.clone(), Wanting { beside: file, ..one })));
            if self.is_open(&first) {
                below.push((first.id(), same));
            }
            entries.insert(name, first.leads);
        }
        for (wanted, mut wanting) in others {
            // A version that is here already, under whatever name.
            if matches!(wanting.leads, Leads::Copy(..)) && !self.known.insert(wanting.id()) {
                continue;
            }
            let name = self.beside(&entries, &wanted, &wanting);
            let (of, id) = (self.author(&wanting), wanting.id());
            let parts =
                self.part_with(&wanting.leads).zip(entries.get(&wanted).and_then(|leads| self.part_with(leads)));
            let is_new = match wanting.beside {
                Some(file) => {
                    let both = (0..self.gathered.parts.len()).any(|part| self.has(part, file) && self.has(part, id));
                    self.mark(&mut wanting, Mark { file, device: of }) && !both
                }
                None => matches!(wanting.leads, Leads::Copy(..)),
            };
            self.places.conflicts.insert(Conflict { parent, wanted, name: name.clone(), of, id, is_new, parts });
            if self.is_open(&wanting) {
                below.push((wanting.id(), vec![wanting.id()]));
            }
            entries.insert(name, wanting.leads);
        }
        for leads in entries.values() {
            if let Leads::To(id, _) = leads {
                *self.places.names.entry(*id).or_default() += 1;
            }
        }
        (entries, below)
    }

    /// Whether a tree has this: what was not looked at is the same in all.
    fn has(&self, part: usize, id: FileId) -> bool {
        let is_looked_at = self.gathered.seen.iter().any(|seen| seen.names.contains_key(&id));
        !is_looked_at || self.gathered.seen[part].names.contains_key(&id)
    }

    /// The number of a part that has what a name leads to.
    fn part_with(&self, leads: &Leads) -> Option<usize> {
        let (id, content) = match leads {
            // All of them.
            Leads::Same(_) => return self.gathered.parts.first().map(|part| part.number),
            Leads::To(id, _) => (*id, &self.outcomes.get(id)?.inode.content),
            Leads::Copy(inode, _) => (Mark::of(inode)?.file, &inode.content),
        };
        let mut parts = self.gathered.parts.iter().zip(&self.gathered.seen);
        let has = |seen: &Seen| seen.inodes.get(&id).is_some_and(|inode| inode.content == *content);
        parts.find(|(_, seen)| has(seen)).map(|(part, _)| part.number)
    }

    /// A file gets a mark, unless it has one already: says whether it did.
    fn mark(&mut self, wanting: &mut Wanting, mark: Mark) -> bool {
        let is_new = |inode: &Inode| inode.kind == FileKind::Regular && Mark::of(inode).is_none();
        if !self.inode(wanting).is_some_and(is_new) {
            return false;
        }
        match &mut wanting.leads {
            Leads::To(id, _) => drop(self.places.marks.insert(*id, mark)),
            Leads::Same(Entry { target: Target::Inode(inode), .. }) => mark.put(inode),
            Leads::Same(_) | Leads::Copy(..) => return false,
        }
        true
    }

    fn author(&self, wanting: &Wanting) -> crate::id::DeviceTag {
        let dot = match &wanting.leads {
            Leads::Copy(inode, _) => content_dot(inode),
            Leads::Same(_) | Leads::To(..) => wanting.dot(),
        };
        dot.device
    }

    /// A name that nothing has, beside one that something else has.
    fn beside(&self, taken: &BTreeMap<Vec<u8>, Leads>, wanted: &[u8], wanting: &Wanting) -> Vec<u8> {
        let time = self.inode(wanting).map(|inode| inode.mtime).unwrap_or_default();
        let label = (self.label)(self.author(wanting), time);
        (1u64..)
            .map(|number| match number {
                1 => labelled(wanted, &label),
                _ => labelled(wanted, &format!("{label} {number}")),
            })
            .find(|name| !taken.contains_key(name))
            .unwrap_or_else(|| wanted.to_vec())
    }
}

/// `name (label).ext`. The end of a name that becomes too long goes.
fn labelled(name: &[u8], label: &str) -> Vec<u8> {
    // A dot at the front hides a file, and what is after it is no extension.
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0 && name.len() - at <= 16);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let label = format!(" ({label})");
    let room = NAME_MAX.saturating_sub(label.len() + extension.len());
    let mut end = stem.len().min(room);
    while end > 0 && end < stem.len() && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&stem[..end], label.as_bytes(), extension].concat()
}
