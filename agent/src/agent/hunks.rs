//! What has changed in files from one snapshot to another, line by line.
//!
//! What files hold is read some of them at a time, so that neither memory nor requests grow with what has changed. What is longer
//! than a text may be is not read at all.

use std::collections::{BTreeMap, BTreeSet};

use hypernet_core::diff::{Change, Thing, Version};
use hypernet_core::limits::MIB;
use hypernet_core::port::PortError;
use hypernet_core::text::{Hunks, NotCompared, Text};
use hypernet_core::tree::{Content, FileKind, Inode, Root, Target, TreeRef};
use hypernet_sdk::api;

use super::history::{Past, change_info, check_number};
use super::port_failure;
use crate::failure::Failure;
use crate::volume::read::Deadline;
use crate::volume::whole::not_compared;

/// Bytes that are read at once, but for what is beyond that of the last file.
const BYTES_AT_ONCE: u64 = 8 * MIB as u64;
/// Changes of which that is.
const CHANGES_AT_ONCE: usize = 512;

/// Digits of a number for what is not compared.
const ID_DIGITS: usize = 12;

fn inode(version: Option<&Version>) -> Option<&Inode> {
    match &version?.thing {
        Thing::Inode(inode) => Some(inode),
        Thing::Volume(_) => None,
    }
}

/// What is compared of one side of a change: none where a patch holds nothing of it.
fn held(version: Option<&Version>) -> Option<&Content> {
    inode(version)
        .filter(|inode| matches!(inode.kind, FileKind::Regular | FileKind::Symlink))
        .map(|inode| &inode.content)
}

/// A number for what is compared of one side: as long as that is what it was it has the same one.
fn id(version: Option<&Version>) -> Option<String> {
    let content = held(version)?;
    Some(blake3::hash(&minicbor::to_vec(content).ok()?).to_hex()[..ID_DIGITS].to_owned())
}

/// A change with what is to be compared: nothing, what is not compared, or one text or two.
enum Compared<'a> {
    Nothing,
    Not(NotCompared),
    Texts([Option<&'a Content>; 2]),
}

impl<'a> Compared<'a> {
    fn of(change: &'a Change) -> Self {
        let is_both = change.before.is_some() && change.after.is_some();
        let sides = [held(change.before.as_ref()), held(change.after.as_ref())];
        if sides == [None, None] || is_both && !change.has_other_content() {
            Self::Nothing
        } else {
            // What is no text on one side is none, however long the other one is.
            let why = sides.iter().flatten().filter_map(|content| not_compared(content));
            why.min_by_key(|why| *why != NotCompared::Binary).map_or(Self::Texts(sides), Self::Not)
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Texts(sides) => sides.iter().flatten().map(|content| content.size()).sum(),
            Self::Nothing | Self::Not(_) => 0,
        }
    }
}

/// The directory that something is in.
fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

fn is_directory(version: Option<&Version>) -> bool {
    inode(version).is_some_and(|inode| inode.kind == FileKind::Directory)
}

fn path(version: Option<&Version>) -> Option<&[u8]> {
    version.map(|version| &version.path[..])
}

/// What is told of one path in the second tree.
fn news(changes: &[Change]) -> BTreeMap<Vec<u8>, bool> {
    let told = changes.iter().filter_map(|change| {
        let is_other = change.is_renamed || !is_directory(change.before.as_ref());
        Some((change.after.as_ref()?.path.clone(), is_other))
    });
    told.collect()
}

/// Paths where something was that is gone, or has another name.
fn left(changes: &[Change]) -> BTreeSet<Vec<u8>> {
    let left = changes.iter().filter(|change| change.is_renamed || change.after.is_none());
    left.filter_map(|change| path(change.before.as_ref()).map(<[u8]>::to_vec)).collect()
}

/// Whether something is new where one of these was. `patch` takes the one away first only where it is told so first.
fn is_in_place_of(change: &Change, left: &BTreeSet<Vec<u8>>) -> bool {
    change.before.is_none() && path(change.after.as_ref()).is_some_and(|path| left.contains(path))
}

impl Past<'_> {
    /// Tells what has changed, with what is different in files, until that is not wanted any more. Blocks.
    pub(crate) fn hunks(
        &self,
        request: &api::HunksRequest,
        tell: &mut dyn FnMut(api::ChangeInfo) -> bool,
    ) -> Result<(), Failure> {
        let api::DiffRequest { from, to, .. } = &request.of;
        let (all, after) = self.changes(from, to.as_deref())?;
        let changes = match request.by_file {
            true => {
                let told = news(&all);
                self.within(self.by_file(self.within(all)?, &told, &after)?)?
            }
            false => self.within(all)?,
        };
        let context = request.context.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
        let (mut some, mut bytes) = (Vec::new(), 0);
        for change in changes {
            bytes += Compared::of(&change).bytes();
            some.push(change);
            if (bytes >= BYTES_AT_ONCE || some.len() >= CHANGES_AT_ONCE)
                && !self.tell_some(std::mem::take(&mut some), context, tell)?
            {
                return Ok(());
            }
            bytes = if some.is_empty() { 0 } else { bytes };
        }
        self.tell_some(some, context, tell).map(|_| ())
    }

    fn tell_some(
        &self,
        changes: Vec<Change>,
        context: Option<usize>,
        tell: &mut dyn FnMut(api::ChangeInfo) -> bool,
    ) -> Result<bool, Failure> {
        let compared: Vec<Compared<'_>> = changes.iter().map(Compared::of).collect();
        let texts = compared.iter().filter_map(|compared| match compared {
            Compared::Texts(sides) => Some(sides.iter().flatten().copied()),
            Compared::Nothing | Compared::Not(_) => None,
        });
        let wanted: Vec<&Content> = texts.flatten().collect();
        let mut read = self.volume.whole(&wanted, Deadline::of_read()).map_err(unread)?.into_iter();
        let mut told: Vec<Option<Result<api::TextInfo, NotCompared>>> = Vec::new();
        for one in &compared {
            told.push(match one {
                Compared::Nothing => None,
                Compared::Not(why) => Some(Err(*why)),
                Compared::Texts(sides) => {
                    let bytes = sides.map(|side| side.and_then(|_| read.next()).unwrap_or_default());
                    Some(text(&bytes, context))
                }
            });
        }
        drop(compared);
        for (change, told) in changes.into_iter().zip(told) {
            let not = told.as_ref().and_then(|told| told.as_ref().err());
            let (binary, large) = (not == Some(&NotCompared::Binary), not == Some(&NotCompared::Large));
            let ids = not.map(|_| [id(change.before.as_ref()), id(change.after.as_ref())]);
            let mut info = api::ChangeInfo { text: told.and_then(Result::ok), binary, large, ..change_info(change) };
            for (thing, id) in [&mut info.before, &mut info.after].into_iter().zip(ids.into_iter().flatten()) {
                if let Some(thing) = thing {
                    thing.content = id;
                }
            }
            if !tell(info) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Changes as a patch tells them, of which each path that is new or other in the second tree is `told`.
    fn by_file(
        &self,
        changes: Vec<Change>,
        told: &BTreeMap<Vec<u8>, bool>,
        after: &Root,
    ) -> Result<Vec<Change>, Failure> {
        let mut files: Vec<Change> = Vec::new();
        for mut change in changes {
            let (was, is) = (change.before.as_ref(), change.after.as_ref());
            if is_directory(was) && is_directory(is) && change.is_renamed {
                self.add_moved(&change, told, after, &mut files)?;
            }
            let kinds = was.map(|version| version.thing.kind()).zip(is.map(|version| version.thing.kind()));
            if kinds.is_some_and(|(was, is)| was != is) {
                let new = Change { before: None, after: change.after.take(), is_renamed: false };
                files.extend([Change { is_renamed: false, ..change }, new]);
                continue;
            }
            change.is_renamed = was.is_some() && is.is_some() && path(was) != path(is);
            files.push(change);
        }
        let parents = |side: fn(&Change) -> Option<&Version>| -> BTreeSet<Vec<u8>> {
            let paths = files.iter().filter_map(|change| path(side(change)));
            paths.filter(|path| !path.is_empty()).map(|path| parent(path).to_vec()).collect()
        };
        let (gone, new) = (parents(|change| change.before.as_ref()), parents(|change| change.after.as_ref()));
        files.retain(|change| {
            let (was, is) = (change.before.as_ref(), change.after.as_ref());
            let is_told =
                path(is).map_or_else(|| path(was).is_some_and(|path| gone.contains(path)), |path| new.contains(path));
            !(is_directory(was) || is_directory(is)) || change.has_other_metadata() || !is_told
        });
        let left = left(&files);
        files.sort_by_cached_key(|change| (is_in_place_of(change, &left), change.path().to_vec()));
        Ok(files)
    }

    /// What is in a directory that was renamed, as far as nothing is told of it.
    fn add_moved(
        &self,
        change: &Change,
        told: &BTreeMap<Vec<u8>, bool>,
        root: &Root,
        files: &mut Vec<Change>,
    ) -> Result<(), Failure> {
        let tree = |inode: &Inode| match &inode.content {
            Content::Directory(tree) => Some(tree.clone()),
            _ => None,
        };
        let (Some(before), Some(after)) = (&change.before, &change.after) else { return Ok(()) };
        let mut waiting: Vec<(Vec<u8>, Vec<u8>, TreeRef)> = Vec::new();
        let top = inode(Some(after)).and_then(tree);
        waiting.extend(top.map(|tree| (before.path.clone(), after.path.clone(), tree)));
        while let Some((was, is, directory)) = waiting.pop() {
            for entry in self.volume.entries(&directory, Deadline::of_read()).map_err(port_failure)? {
                let path = [&is[..], &entry.name].join(&b'/');
                let told = told.get(&path);
                let thing = match entry.target {
                    Target::Inode(inode) => match tree(&inode) {
                        // One that has come from elsewhere, or is new, is told with all that is in it.
                        Some(_) if told == Some(&true) => continue,
                        Some(tree) => {
                            waiting.push(([&was[..], &entry.name].join(&b'/'), path, tree));
                            continue;
                        }
                        None => Thing::Inode(inode),
                    },
                    Target::Link(id) => match self.volume.link_in(root, id).map_err(port_failure)? {
                        Some(row) => Thing::Inode(row.inode.into()),
                        None => continue,
                    },
                    Target::Volume { volume, .. } => Thing::Volume(volume),
                };
                if told.is_none() {
                    let before = Version { path: [&was[..], &entry.name].join(&b'/'), thing: thing.clone() };
                    let after = Some(Version { path, thing });
                    files.push(Change { before: Some(before), after, is_renamed: true });
                }
            }
            check_number(files.len())?;
        }
        Ok(())
    }
}

fn unread(error: PortError) -> Failure {
    let failure = port_failure(error);
    Failure { message: format!("what files hold cannot be read: {}", failure.message), ..failure }
}

/// What is different in two texts.
fn text(sides: &[Vec<u8>; 2], context: Option<usize>) -> Result<api::TextInfo, NotCompared> {
    let [before, after] = sides;
    let Hunks { added, removed, text } = Hunks::of(&Text::of(before)?, &Text::of(after)?, context)?;
    Ok(api::TextInfo { added, removed, hunks: context.map(|_| text) })
}

#[cfg(test)]
mod tests {
    use hypernet_core::id::VolumeId;
    use hypernet_core::limits::TEXT_MAX;

    use super::*;

    #[test]
    fn what_comes_in_the_place_of_something_is_told_after_that_has_gone() {
        let version = |path: &str| Version { path: path.into(), thing: Thing::Volume(VolumeId([1; 16])) };
        let change = |before: &str, after: &str, is_renamed| Change {
            before: Some(before).filter(|path| !path.is_empty()).map(version),
            after: Some(after).filter(|path| !path.is_empty()).map(version),
            is_renamed,
        };
        let left = left(&[change("log", "log.1", true), change("a", "", false), change("y", "y", false)]);
        let is_late = |path| is_in_place_of(&change("", path, false), &left);
        assert!(is_late("log") && is_late("a"));
        assert!(!is_late("log.1") && !is_late("y") && !is_late("a/b"));
        assert!(!is_in_place_of(&change("z", "log", true), &left));
    }

    #[test]
    fn only_two_texts_are_compared() {
        let of = |before: &[u8], after: &[u8], context| text(&[before.to_vec(), after.to_vec()], context);
        assert_eq!(of(b"a\n", b"b\xff", Some(3)), Err(NotCompared::Binary));
        assert_eq!(of(b"\0", b"", None), Err(NotCompared::Binary));
        assert_eq!(of(&vec![b'a'; TEXT_MAX + 1], b"", None), Err(NotCompared::Large));
        let counted = api::TextInfo { added: 2, removed: 1, hunks: None };
        assert_eq!(of(b"a\n", b"b\nc\n", None), Ok(counted.clone()));
        let hunks = Some("@@ -1 +1,2 @@\n-a\n+b\n+c\n".to_owned());
        assert_eq!(of(b"a\n", b"b\nc\n", Some(3)), Ok(api::TextInfo { hunks, ..counted }));
    }
}
