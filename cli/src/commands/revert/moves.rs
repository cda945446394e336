//! Where what was in one tree is in another one, as a list of changes tells it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hypernet_sdk::api::ChangeInfo;

const DIRECTORY: &str = "directory";

/// What has become of something.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// Where it is, and whether it is a directory there; none: it is gone.
    after: Option<(PathBuf, bool)>,
    pub(super) is_renamed: bool,
    pub(super) has_other_content: bool,
    pub(super) has_other_metadata: bool,
}

/// From paths in one tree to paths in another one.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<PathBuf, Fate>);

/// Nothing joined to a path would be a slash at its end.
pub(super) fn join(dir: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { dir.to_owned() } else { dir.join(rest) }
}

impl Moves {
    pub(super) fn new(changes: &[ChangeInfo]) -> Self {
        let fate = |change: &ChangeInfo| {
            let after = change.after.as_ref().map(|after| (after.path.clone(), after.kind == DIRECTORY));
            let fate = Fate {
                after,
                is_renamed: change.renamed,
                has_other_content: change.content,
                has_other_metadata: change.metadata,
            };
            Some((change.before.as_ref()?.path.clone(), fate))
        };
        Self(changes.iter().filter_map(fate).collect())
    }

    /// Where something is in the second tree; none: it is gone. What has moved with a directory is not told for itself.
    pub(super) fn to(&self, path: &Path) -> Option<PathBuf> {
        let told = path.ancestors().find_map(|above| Some((above, self.0.get(above)?)));
        let Some((above, fate)) = told else { return Some(path.to_owned()) };
        let (after, is_directory) = fate.after.as_ref()?;
        let rest = path.strip_prefix(above).ok()?;
        (above == path || *is_directory).then(|| join(after, rest))
    }

    /// The same of a directory, as long as it is one.
    pub(super) fn directory(&self, path: &Path) -> Option<PathBuf> {
        let is_one = self.0.get(path).is_none_or(|fate| fate.after.as_ref().is_some_and(|(_, is_one)| *is_one));
        self.to(path).filter(|_| is_one)
    }
}

/// The same over several trees, one after another: what each of them has in the place of something else is told as a change of that,
/// which from the first one to the last one need not be told.
#[derive(Debug, Default)]
pub(super) struct Course(pub(super) Vec<Moves>);

impl Course {
    pub(super) fn to(&self, path: &Path) -> Option<PathBuf> {
        self.0.iter().try_fold(path.to_owned(), |path, moves| moves.to(&path))
    }

    pub(super) fn directory(&self, path: &Path) -> Option<PathBuf> {
        self.0.iter().try_fold(path.to_owned(), |path, moves| moves.directory(&path))
    }

    /// All that has happened to something that was at this very path.
    pub(super) fn fate(&self, path: &Path) -> Fate {
        let (mut all, mut at) = (Fate::default(), Some(path.to_owned()));
        for moves in &self.0 {
            let Some(path) = at else { break };
            if let Some(fate) = moves.0.get(&path) {
                all.is_renamed |= fate.is_renamed;
                all.has_other_content |= fate.has_other_content;
                all.has_other_metadata |= fate.has_other_metadata;
            }
            at = moves.to(&path);
        }
        all
    }
}

/// Where things are by now that have been moved since somebody has looked: from where each was then.
#[derive(Debug, Default)]
pub(super) struct Tracked(BTreeMap<PathBuf, PathBuf>);

impl Tracked {
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        let told = path.ancestors().find_map(|above| Some((above, self.0.get(above)?)));
        match told {
            Some((above, at)) => join(at, path.strip_prefix(above).unwrap_or(Path::new(""))),
            None => path.to_owned(),
        }
    }

    pub(super) fn put(&mut self, path: PathBuf, at: PathBuf) {
        self.0.insert(path, at);
    }

    pub(super) fn get(&self, path: &Path) -> Option<&PathBuf> {
        self.0.get(path)
    }

    /// What was in one of these places, or below it, is in another one, all at once.
    pub(super) fn relocate(&mut self, moves: &[(PathBuf, PathBuf)]) {
        for at in self.0.values_mut() {
            if let Some(new) = moves.iter().find_map(|(from, to)| Some(join(to, at.strip_prefix(from).ok()?))) {
                *at = new;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::ThingInfo;

    use super::*;

    fn change(before: Option<(&str, &str)>, after: Option<(&str, &str)>) -> ChangeInfo {
        let thing = |(path, kind): (&str, &str)| ThingInfo {
            path: path.into(),
            kind: kind.into(),
            size: 0,
            mode: 0,
            content: None,
        };
        let renamed = before.is_some() && after.is_some() && before != after;
        let (before, after) = (before.map(thing), after.map(thing));
        ChangeInfo { before, after, renamed, content: false, metadata: false, text: None, binary: false, large: false }
    }

    #[test]
    fn what_is_in_a_directory_moves_with_it_unless_it_is_told_for_itself() {
        let (dir, file) = ("directory", "file");
        let moves = Moves::new(&[
            change(Some(("a", dir)), Some(("b/c", dir))),
            change(Some(("a/out", file)), Some(("out", file))),
            change(Some(("a/gone", dir)), None),
            change(Some(("d", dir)), Some(("d", file))),
            change(None, Some(("new", file))),
        ]);
        let to = |path: &str| moves.to(Path::new(path)).map(|to| to.to_str().unwrap().to_owned());
        assert_eq!(to("a").as_deref(), Some("b/c"));
        assert_eq!(to("a/x/y").as_deref(), Some("b/c/x/y"));
        assert_eq!(to("a/out").as_deref(), Some("out"));
        assert_eq!(to("ab").as_deref(), Some("ab"));
        assert_eq!(to("new").as_deref(), Some("new"));
        assert_eq!((to("a/gone"), to("a/gone/x"), to("d/x")), (None, None, None));
        assert_eq!(to("d").as_deref(), Some("d"));
        assert_eq!(moves.directory(Path::new("d")), None);
        assert_eq!(moves.directory(Path::new("a/x")), Some("b/c/x".into()));

        let edited = ChangeInfo { content: true, ..change(Some(("out", file)), Some(("out", file))) };
        let course = Course(vec![moves, Moves::new(&[edited, change(Some(("b", dir)), Some(("a", dir)))])]);
        assert_eq!(course.to(Path::new("a/x")), Some("a/c/x".into()));
        assert_eq!(course.directory(Path::new("a")), Some("a/c".into()));
        assert_eq!((course.to(Path::new("a/gone")), course.directory(Path::new("d"))), (None, None));
        let fate = course.fate(Path::new("a/out"));
        assert!(fate.is_renamed && fate.has_other_content && !fate.has_other_metadata);
        let fate = course.fate(Path::new("a/x"));
        assert!(!fate.is_renamed && !fate.has_other_content);
    }

    #[test]
    fn what_has_moved_twice_is_where_it_is_last() {
        let mut tracked = Tracked::default();
        tracked.put("a".into(), "b".into());
        tracked.put("x".into(), "b/x".into());
        tracked.relocate(&[("b".into(), "c/d".into())]);
        assert_eq!(tracked.at(Path::new("a/1")), Path::new("c/d/1"));
        assert_eq!(tracked.at(Path::new("x")), Path::new("c/d/x"));
        tracked.relocate(&[("c/d".into(), "e".into()), ("e".into(), "c/d".into())]);
        assert_eq!(tracked.at(Path::new("a")), Path::new("e"));
        assert_eq!(tracked.at(Path::new("other")), Path::new("other"));
    }
}
