//! What one writer's directory may be after a crash.
//!
//! The names that a writer changed are a history of trees. A crash may take it back to any of them that is not older
//! than what was synced, and to nothing in between: a rename is there or it is not. The content of a file may be
//! anything between its newest synced version and its newest one, byte by byte, since a write is not atomic; except
//! that a file renamed over a name brings at least the content with it that it had then.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail, ensure};

/// One file, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u64);

/// One directory, whatever its names are. The writer's own is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirId(u64);

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A directory, whatever its names are.
    Dir(DirId),
    /// A file, with the oldest version of it that this name may show.
    File {
        /// Which.
        file: FileId,
        /// Index of the version.
        since: u64,
    },
}

/// All names of a writer, by path. No name is empty.
pub(super) type Tree = BTreeMap<String, Entry>;

/// What is really there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A directory.
    Dir,
    /// A file's content.
    File(Vec<u8>),
}

/// What a file held, from the newest synced version on. Never empty.
#[derive(Clone, Debug, Default)]
struct Versions {
    /// Index of the first of them.
    first: u64,
    all: Vec<Vec<u8>>,
}

impl Versions {
    fn newest(&self) -> &[u8] {
        self.all.last().map_or(&[], Vec::as_slice)
    }

    fn index(&self) -> u64 {
        self.first + self.all.len() as u64 - 1
    }

    fn check(&self, since: u64, found: &[u8]) -> Result<()> {
        let skip = usize::try_from(since.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let allowed = &self.all[skip.min(self.all.len() - 1)..];
        let lengths = || allowed.iter().map(Vec::len);
        let (least, most) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
        ensure!(
            (least..=most).contains(&found.len()),
            "it has {} bytes, and {least} to {most} are allowed by {} versions",
            found.len(),
            allowed.len()
        );
        let is_allowed = |at: usize| {
            let allows = |version: &Vec<u8>| version.get(at).copied().unwrap_or(0) == found[at];
            allowed.iter().any(allows)
        };
        let wrong: Vec<usize> = (0..found.len()).filter(|at| !is_allowed(*at)).collect();
        let (Some(first), Some(last)) = (wrong.first(), wrong.last()) else { return Ok(()) };
        bail!(
            "bytes {first} to {last} of {} are wrong, {} of them, and begin with {:02x?}: none of {} versions has that there",
            found.len(),
            wrong.len(),
            &found[*first..found.len().min(first + 8)],
            allowed.len()
        )
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Model {
    trees: Vec<Tree>,
    files: BTreeMap<FileId, Versions>,
    next: u64,
}

impl Model {
    /// Of what is there now, all of it synced.
    pub(super) fn of(found: &BTreeMap<String, Found>) -> Self {
        let mut model = Self::default();
        let mut tree = Tree::new();
        for (path, found) in found {
            let entry = match found {
                Found::Dir => Entry::Dir(model.dir()),
                Found::File(content) => Entry::File { file: model.file(content.clone()), since: 0 },
            };
            tree.insert(path.clone(), entry);
        }
        model.trees.push(tree);
        model
    }

    fn file(&mut self, content: Vec<u8>) -> FileId {
        self.next += 1;
        self.files.insert(FileId(self.next), Versions { first: 0, all: vec![content] });
        FileId(self.next)
    }

    fn dir(&mut self) -> DirId {
        self.next += 1;
        DirId(self.next)
    }

    /// The names as the writer sees them.
    pub(super) fn tree(&self) -> &Tree {
        self.trees.last().expect("a history has a present")
    }

    /// A file's content as the writer sees it.
    pub(super) fn content(&self, file: FileId) -> &[u8] {
        self.files.get(&file).map_or(&[], Versions::newest)
    }

    /// The names are about to change.
    pub(super) fn changes(&mut self, change: impl FnOnce(&mut Tree)) {
        let mut tree = self.tree().clone();
        change(&mut tree);
        self.trees.push(tree);
    }

    /// A new, empty file is about to get its name.
    pub(super) fn creates(&mut self, path: &str) -> FileId {
        let file = self.file(Vec::new());
        self.changes(|tree| _ = tree.insert(path.to_owned(), Entry::File { file, since: 0 }));
        file
    }

    /// A new directory is about to get its name.
    pub(super) fn makes_dir(&mut self, path: &str) {
        let dir = Entry::Dir(self.dir());
        self.changes(|tree| _ = tree.insert(path.to_owned(), dir));
    }

    /// A file's content is about to change.
    pub(super) fn writes(&mut self, file: FileId, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(versions) = self.files.get_mut(&file) {
            let mut content = versions.newest().to_vec();
            change(&mut content);
            versions.all.push(content);
        }
    }

    /// What is renamed from here to there, with all below it. A file comes with what it holds now where it replaces
    /// another.
    pub(super) fn renames(&mut self, from: &str, to: &str) {
        let over = self.tree().contains_key(to);
        let now: BTreeMap<FileId, u64> = self.files.iter().map(|(file, versions)| (*file, versions.index())).collect();
        self.changes(|tree| {
            let below = format!("{from}/");
            let moved: Vec<String> =
                tree.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
            for path in moved {
                let Some(mut entry) = tree.remove(&path) else { continue };
                if let Entry::File { file, since } = &mut entry
                    && over
                {
                    *since = now.get(file).copied().unwrap_or(*since);
                }
                tree.insert(format!("{to}{}", &path[from.len()..]), entry);
            }
        });
    }

    /// A file was synced under this name: its content, and the name in its directory, are there from now on. Where
    /// that directory is may still be undone.
    pub(super) fn synced(&mut self, path: &str, file: FileId) {
        if let Some(versions) = self.files.get_mut(&file) {
            versions.first = versions.index();
            versions.all.drain(..versions.all.len() - 1);
        }
        let (dir, name) = (dir_of(self.tree(), path), name_of(path).to_owned());
        self.keep_since(|tree| {
            tree.iter().any(|(path, entry)| {
                matches!(entry, Entry::File { file: there, .. } if *there == file)
                    && name_of(path) == name
                    && dir_of(tree, path) == dir
            })
        });
    }

    /// A directory was synced: the names in it are there from now on.
    pub(super) fn synced_dir(&mut self, path: &str) {
        let dir = match self.tree().get(path) {
            Some(Entry::Dir(dir)) => Some(*dir),
            _ => None,
        };
        let names = |tree: &Tree| -> Vec<String> {
            tree.keys().filter(|path| dir_of(tree, path) == dir).map(|path| name_of(path).to_owned()).collect()
        };
        let now = names(self.tree());
        self.keep_since(|tree| names(tree) == now);
    }

    /// Forgets the trees before the run of those, up to now, that have something.
    fn keep_since(&mut self, has: impl Fn(&Tree) -> bool) {
        let run = self.trees.iter().rev().take_while(|tree| has(tree)).count();
        self.trees.drain(..self.trees.len() - run.max(1));
    }

    /// Whether this may be there after a crash; the error says what is wrong with the nearest of all states.
    pub(super) fn check(&self, found: &BTreeMap<String, Found>) -> Result<()> {
        let mut nearest: Option<Wrong> = None;
        for (age, tree) in self.trees.iter().rev().enumerate() {
            let wrong = self.differences(age, tree, found);
            if wrong.what.is_empty() {
                return Ok(());
            }
            if nearest.as_ref().is_none_or(|nearest| wrong.what.len() < nearest.what.len()) {
                nearest = Some(wrong);
            }
        }
        match nearest {
            None => bail!("no state is allowed"),
            Some(wrong) => bail!("{} states are allowed; the nearest, {wrong}", self.trees.len()),
        }
    }

    fn differences(&self, age: usize, tree: &Tree, found: &BTreeMap<String, Found>) -> Wrong {
        let mut what = Vec::new();
        for path in found.keys().filter(|path| !tree.contains_key(*path)) {
            what.push(format!("{path}: should not be there"));
        }
        for (path, entry) in tree {
            match (entry, found.get(path)) {
                (_, None) => what.push(format!("{path}: is missing")),
                (Entry::Dir(_), Some(Found::Dir)) => {}
                (Entry::File { file, since }, Some(Found::File(content))) => {
                    let checked = self.files.get(file).map(|versions| versions.check(*since, content));
                    if let Some(Err(error)) = checked {
                        what.push(format!("{path}: {error}"));
                    }
                }
                _ => what.push(format!("{path}: is of another kind")),
            }
        }
        Wrong { age, what }
    }
}

/// The directory that a path is in; the writer's own is the empty path.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The directory that a path is in; none is the writer's own.
fn dir_of(tree: &Tree, path: &str) -> Option<DirId> {
    match tree.get(parent(path)) {
        Some(Entry::Dir(dir)) => Some(*dir),
        _ => None,
    }
}

struct Wrong {
    age: usize,
    what: Vec<String>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes ago, differs in {}:", self.age, self.what.len())?;
        self.what.iter().take(8).try_for_each(|what| write!(f, "\n    {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &[u8])]) -> BTreeMap<String, Found> {
        files.iter().map(|(path, content)| ((*path).to_owned(), Found::File(content.to_vec()))).collect()
    }

    #[test]
    fn what_is_synced_must_be_there_and_the_rest_may() {
        let mut model = Model::of(&BTreeMap::new());
        let file = model.creates("a");
        model.writes(file, |content| content.extend(b"one"));
        assert!(model.check(&found(&[])).is_ok());
        assert!(model.check(&found(&[("a", b"on")])).is_ok(), "half written");
        assert!(model.check(&found(&[("a", b"two")])).is_err());
        model.synced("a", file);
        assert!(model.check(&found(&[])).is_err(), "a synced file is gone");
        assert!(model.check(&found(&[("a", b"on")])).is_err());
        model.writes(file, |content| content.splice(0..3, *b"two").for_each(drop));
        assert!(model.check(&found(&[("a", b"twe")])).is_ok(), "torn");
        assert!(model.check(&found(&[("a", b"twx")])).is_err());
    }

    #[test]
    fn a_rename_is_whole_and_brings_its_content() {
        let mut model = Model::of(&found(&[("old", b"old")]));
        let file = model.creates("new");
        model.writes(file, |content| content.extend(b"new"));
        model.renames("new", "old");
        assert!(model.check(&found(&[("old", b"old")])).is_ok(), "not even created");
        assert!(model.check(&found(&[("old", b"old"), ("new", b"")])).is_ok(), "created");
        assert!(model.check(&found(&[("old", b"new")])).is_ok());
        assert!(model.check(&found(&[("old", b"")])).is_err(), "a name without its data");
        assert!(model.check(&found(&[("old", b"new"), ("new", b"new")])).is_err(), "half of a rename");
        assert!(model.check(&found(&[])).is_err());
        model.synced_dir("");
        assert!(model.check(&found(&[("old", b"old")])).is_err(), "a synced rename is undone");
    }

    #[test]
    fn a_directory_moves_with_what_is_in_it() {
        let mut model = Model::of(&BTreeMap::new());
        model.makes_dir("d");
        let file = model.creates("d/f");
        model.renames("d", "e");
        model.synced("e/f", file);
        let mut there = found(&[("d/f", b"")]);
        there.insert("d".into(), Found::Dir);
        assert!(model.check(&there).is_ok(), "where its directory is was not synced");
        model.synced_dir("");
        let mut there = found(&[("e/f", b"")]);
        there.insert("e".into(), Found::Dir);
        assert!(model.check(&there).is_ok());
        assert_eq!(model.content(file), b"");
        assert!(model.check(&found(&[("d/f", b"")])).is_err());
    }
}
