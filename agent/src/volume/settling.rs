//! Merging texts line by line: what a merge has kept beside a file becomes part of it, where both began with one text and what each has
//! changed in it does not touch the other's.
//!
//! Merging trees asks for no common ancestor; this does. It is the tree that had seen just what both have seen who have the versions, if
//! this device has stood on it, or merged it, or keeps it as a snapshot: what is in there both versions go on from. Where there is none, or
//! it cannot be read, both versions stay.
//!
//! It is an edit of this device like any other: two that make the same of the same come to equal bytes, which are one version.
//!
//! Invariant: nothing is touched that is not as it was merged, and a version goes only when the file has all of it on stable storage. What
//! comes in between is not in the way of anything: then both versions stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypernet_core::diff::{Change, Side, Thing, Version, compare};
use hypernet_core::head::Snapshot;
use hypernet_core::id::FileId;
use hypernet_core::limits::TEXT_MAX;
use hypernet_core::merge::mark::Mark;
use hypernet_core::merge::{Conflict, meet};
use hypernet_core::port::PortError;
use hypernet_core::seal::{ExtentRef, Kind};
use hypernet_core::text;
use hypernet_core::tree::{Dot, FileKind, Inode, Root};
use hypernet_fs::vfs::{Fill, Still, Vfs, VfsError};

use super::read::{Deadline, Nodes, expect_kind, tree_error};
use super::snapshots::trunk;
use super::sync::of_tree;
use super::whole::may_be_text;
use super::{Volume, damaged, state};

/// For how long texts are merged before others wait no longer: of the rest both versions stay.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// Snapshots that are looked at for what two versions began with.
const SNAPSHOTS_MAX: usize = 32;

/// What a merge has kept beside something else.
#[derive(Default)]
pub(crate) struct Kept {
    /// What is left of it.
    pub(crate) conflicts: Vec<Conflict>,
    /// What those had seen that were merged, by their numbers.
    pub(crate) vectors: Vec<Vec<Dot>>,
    /// Versions that have become part of their files.
    pub(crate) texts: u64,
}

/// Versions, by what was seen by all who have one of them and the file beside which they are. What is in the tree that had seen just that is
/// what these began with: in an older one something is missing that all of them have, and whoever has taken it back since would seem to have
/// changed nothing.
fn began_with(conflicts: &[Conflict], vectors: &[Vec<Dot>]) -> BTreeMap<Vec<Dot>, BTreeSet<FileId>> {
    let mut files: BTreeMap<(FileId, &[u8]), Vec<&Conflict>> = BTreeMap::new();
    // What somebody has seen beside one another, and left so, stays so.
    for conflict in conflicts.iter().filter(|conflict| conflict.is_new) {
        files.entry((conflict.parent, &conflict.wanted)).or_default().push(conflict);
    }
    let mut began: BTreeMap<Vec<Dot>, BTreeSet<FileId>> = BTreeMap::new();
    for versions in files.into_values() {
        let Some(parts) = versions.iter().map(|conflict| conflict.parts).collect::<Option<Vec<_>>>() else { continue };
        let parts: BTreeSet<usize> = parts.into_iter().flat_map(|(one, other)| [one, other]).collect();
        let seen: Vec<&[Dot]> = parts.iter().filter_map(|part| Some(&vectors.get(*part)?[..])).collect();
        let pairs = seen.iter().enumerate().flat_map(|(at, one)| seen[at + 1..].iter().map(|other| meet(one, other)));
        let pairs: BTreeSet<Vec<Dot>> = pairs.collect();
        if let ([vector], true) = (&pairs.into_iter().collect::<Vec<_>>()[..], seen.len() == parts.len()) {
            began.entry(vector.clone()).or_default().extend(versions.iter().map(|conflict| conflict.id));
        }
    }
    began
}

/// A file with its versions (of which one may be what had its name before), by their ids, so that all devices take them in one order.
struct Texts<'a> {
    /// What all of them began with.
    before: &'a Inode,
    file: Placed<'a>,
    versions: BTreeMap<FileId, Placed<'a>>,
}

/// A file in the tree that was merged.
#[derive(Clone, Copy)]
struct Placed<'a> {
    path: &'a [u8],
    inode: &'a Inode,
}

fn regular(version: Option<&Version>) -> Option<Placed<'_>> {
    let version = version?;
    match &version.thing {
        Thing::Inode(inode) if inode.kind == FileKind::Regular => Some(Placed { path: &version.path, inode }),
        _ => None,
    }
}

/// Files of which these versions are, as far as something is known that they began with.
fn texts<'a>(changes: &'a [Change], kept: &BTreeSet<FileId>) -> Vec<Texts<'a>> {
    let mut versions: BTreeMap<FileId, BTreeMap<FileId, Placed<'a>>> = BTreeMap::new();
    for placed in changes.iter().filter_map(|change| regular(change.after.as_ref())) {
        if let Some(mark) = Mark::of(placed.inode).filter(|_| kept.contains(&placed.inode.id)) {
            versions.entry(mark.file).or_default().insert(placed.inode.id, placed);
        }
    }
    // What each was, as far as it was there: itself, or what had its name, as editors save.
    let mut were: BTreeMap<FileId, Option<Placed<'a>>> = BTreeMap::new();
    for change in changes {
        if let Some(after) = regular(change.after.as_ref()) {
            were.insert(after.inode.id, regular(change.before.as_ref()));
        }
    }
    let was = |id: &FileId| were.get(id).copied().flatten();
    let mut files: BTreeMap<FileId, Texts<'a>> = BTreeMap::new();
    for file in changes.iter().filter_map(|change| regular(change.after.as_ref())) {
        let id = file.inode.id;
        let Some(versions) = versions.remove(&id) else { continue };
        let had_name = |before: &Placed<'a>| before.path == file.path;
        let before = was(&id).filter(|before| before.inode.id == id || had_name(before));
        // It may lie beside what took its name.
        let before = before.or_else(|| versions.keys().find_map(|version| was(version).filter(had_name)));
        if let Some(before) = before {
            files.insert(id, Texts { before: before.inode, file, versions });
        }
    }
    files.into_values().collect()
}

/// A name in the working tree, and what it leads to.
struct Name {
    parent: u64,
    name: Vec<u8>,
    still: Still,
}

/// What is at a path below the root of a volume, if it is as it was merged.
fn look(vfs: &Vfs, root: u64, placed: Placed<'_>) -> Result<Option<Name>, PortError> {
    let found = || {
        let (mut parent, mut names) = (root, placed.path.split(|byte| *byte == b'/').peekable());
        loop {
            let name = names.next().ok_or(VfsError::NotFound)?;
            let ino = vfs.lookup(parent, name)?.ino;
            if names.peek().is_none() {
                return Ok(Name { parent, name: name.to_vec(), still: vfs.still(ino)? });
            }
            parent = ino;
        }
    };
    match found() {
        Ok(name) => Ok(Some(name).filter(|name| name.still.is(placed.inode.id, &placed.inode.content))),
        Err(VfsError::NotFound | VfsError::NotDirectory | VfsError::Busy) => Ok(None),
        Err(error) => Err(of_tree(error)),
    }
}

impl Volume {
    /// Merges line by line what the merge that has come to this tree has kept beside something else, as far as that is clear.
    pub(super) fn settle(self: &Arc<Self>, vfs: &Vfs, merged: &Root) {
        let versions = {
            let kept = self.kept.lock();
            began_with(&kept.conflicts, &kept.vectors)
        };
        let mut settled = BTreeSet::new();
        let until = Instant::now() + SETTLED_WITHIN;
        for (vector, versions) in versions {
            if let Err(error) = self.settle_all(vfs, merged, (&vector, &versions), until, &mut settled) {
                tracing::debug!(volume = %self.id.short(), %error, "both versions of files stay");
            }
        }
        let mut kept = self.kept.lock();
        kept.conflicts.retain(|conflict| !settled.contains(&conflict.id));
        kept.texts = settled.len() as u64;
    }

    /// The same of versions that began with the tree of this vector.
    fn settle_all(
        self: &Arc<Self>,
        vfs: &Vfs,
        merged: &Root,
        (vector, versions): (&[Dot], &BTreeSet<FileId>),
        until: Instant,
        settled: &mut BTreeSet<FileId>,
    ) -> Result<(), PortError> {
        let Some(before) = self.tree_of(vector)? else { return Ok(()) };
        let nodes = Nodes(self, Deadline::of_read());
        let changes = compare(Side::from(&before), Side::from(merged), &nodes).map_err(tree_error)?;
        let rooted = vfs.volumes().into_iter().find(|rooted| rooted.volume == self.id);
        let root = rooted.ok_or_else(|| damaged("the volume is not in the tree"))?.ino;
        for texts in texts(&changes, versions) {
            if Instant::now() > until {
                return Err(PortError::Deadline("there is no time for more texts".into()));
            }
            match self.settle_one(vfs, root, &texts) {
                Ok(some) => settled.extend(some),
                Err(error) => tracing::debug!(volume = %self.id.short(), %error, "both versions of a file stay"),
            }
        }
        Ok(())
    }

    /// Says which versions have become part of the file.
    fn settle_one(&self, vfs: &Vfs, root: u64, texts: &Texts<'_>) -> Result<Vec<FileId>, PortError> {
        let Texts { before, file, versions } = texts;
        let mut contents = vec![&before.content, &file.inode.content];
        if !contents.iter().all(|content| may_be_text(content)) {
            return Ok(Vec::new());
        }
        let versions: Vec<&Placed<'_>> =
            versions.values().filter(|version| may_be_text(&version.inode.content)).collect();
        contents.extend(versions.iter().map(|version| &version.inode.content));
        let read = self.whole(&contents, Deadline::of_read())?;
        let [was, is, others @ ..] = &read[..] else { return Ok(Vec::new()) };
        let (mut text, mut taken) = (is.clone(), Vec::new());
        for (version, other) in versions.iter().zip(others) {
            if let Some(both) = text::merge(was, &text, other).filter(|both| both.len() <= TEXT_MAX) {
                text = both;
                taken.push(**version);
            }
        }
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let Some(file) = look(vfs, root, *file)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for placed in &taken {
            let Some(name) = look(vfs, root, *placed)? else { return Ok(Vec::new()) };
            names.push(name);
        }
        if text != *is {
            vfs.fill(&file.still, Fill::Bytes(&text)).map_err(of_tree)?;
        }
        let mut gone = Vec::new();
        for (name, placed) in names.iter().zip(&taken) {
            vfs.take_away(name.parent, &name.name, &name.still).map_err(of_tree)?;
            let path = placed.path.escape_ascii();
            tracing::info!(volume = %self.id.short(), %path, "a text was merged line by line");
            gone.push(placed.inode.id);
        }
        Ok(gone)
    }

    /// The tree that had seen this, neither more nor less, where one is known here.
    fn tree_of(&self, vector: &[Dot]) -> Result<Option<Root>, PortError> {
        let branches = self.identity.keystore().keystore().branches;
        // A branch, and what it comes from, are merged to and fro.
        let mine = trunk(&branches, self.id);
        let kin = branches.iter().map(|branch| branch.volume).chain(mine);
        let kin: Vec<_> = kin.filter(|other| *other != self.id && trunk(&branches, *other) == mine).collect();
        let mut databases = vec![self.db.of(self.id)?];
        for other in kin {
            databases.push(self.db.of(other)?);
        }
        for db in databases {
            let stood = state::stood(&db)?.all;
            let mut same = stood.iter().rev().filter(|before| before.vector == vector);
            if let Some(root) = same.find_map(|before| self.root_at(&before.at).ok()) {
                return Ok(Some(root));
            }
        }
        // With these branches begin.
        let history = self.history()?;
        let begins = branches.iter().filter_map(|branch| history.snapshot(&branch.from)).take(SNAPSHOTS_MAX);
        let last = history.kept.values().rev().take(SNAPSHOTS_MAX);
        let mut roots = begins.chain(last).filter_map(|kept| self.root_in(kept).ok());
        Ok(roots.find(|root| root.vector == vector))
    }

    fn root_at(&self, at: &ExtentRef) -> Result<Root, PortError> {
        if at.kind == Kind::Root {
            return self.root_of_any(at);
        }
        expect_kind(at, Kind::Snapshot)?;
        let plain = self.fetch(std::slice::from_ref(at), Deadline::of_read())?;
        let bytes = plain.first().ok_or_else(|| damaged("a snapshot is missing"))?;
        self.root_of_any(&Snapshot::verify(bytes).map_err(damaged)?.root)
    }
}

#[cfg(test)]
mod tests;
