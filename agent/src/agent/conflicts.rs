//! Versions that are kept beside others, as people ask for them and settle which of them stays.
//!
//! Invariant: before something goes it is in a snapshot, and what is to stay is on stable storage.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hypernet_core::id::FileId;
use hypernet_core::tree::FileKind;
use hypernet_fs::vfs::{Fill, Still, VfsError};
use hypernet_sdk::api::{self, Keep};
use os_display::Quotable;

use super::history::Past;
use super::port_failure;
use super::tree::of_tree;
use crate::failure::{Failure, Kind};
use crate::volume::conflicts::{Conflict, called};

/// A name in the working tree, and what it leads to.
struct Name {
    parent: u64,
    name: Vec<u8>,
    still: Still,
}

/// A version and its file, as they were before the snapshot was taken.
struct Looked {
    version: Name,
    file: Option<Name>,
}

fn os(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn refused(error: &VfsError, path: &Path) -> Failure {
    match error {
        VfsError::Busy => Failure::new(Kind::TryAgain, format!("{} is in use, or is just being changed", path.quote()))
            .hint("close it everywhere and try again; nothing was lost"),
        VfsError::NotFound | VfsError::NotDirectory => {
            Failure::new(Kind::TryAgain, format!("{} is not there any more", path.quote()))
                .hint("`hn conflicts` shows what there is now")
        }
        other => of_tree(other),
    }
}

/// How many versions of each file there are.
fn versions(all: &[Conflict]) -> BTreeMap<FileId, BTreeSet<FileId>> {
    let mut versions: BTreeMap<FileId, BTreeSet<FileId>> = BTreeMap::new();
    for conflict in all {
        versions.entry(conflict.mark.file).or_default().insert(conflict.inode.id);
    }
    versions
}

impl Past<'_> {
    /// Where the volume has its root, from that of the tree.
    fn top(&self) -> Result<PathBuf, Failure> {
        self.own.vfs.path(self.root).map_err(|error| of_tree(&error))
    }

    fn all_conflicts(&self) -> Result<Vec<Conflict>, Failure> {
        let now = self.volume.now(&self.own.vfs).map_err(port_failure)?;
        self.volume.conflicts_in(&now).map_err(port_failure)
    }

    fn infos<'c>(&self, all: impl IntoIterator<Item = &'c Conflict>) -> Result<Vec<api::ConflictInfo>, Failure> {
        let (top, names) = (self.top()?, self.volume.names());
        let info = |conflict: &Conflict| {
            let Conflict { path, inode, mark, file } = conflict;
            let time = inode.mtime;
            api::ConflictInfo {
                path: top.join(os(path)),
                file: file.first().map(|file| top.join(os(file))),
                device: called(&names, mark.device),
                time_ms: time.seconds.saturating_mul(1_000).saturating_add(i64::from(time.nanos / 1_000_000)),
                size: inode.content.size(),
            }
        };
        Ok(all.into_iter().map(info).collect())
    }

    /// All versions in the volume that are kept beside others. Blocks.
    pub(crate) fn conflicts(&self) -> Result<Vec<api::ConflictInfo>, Failure> {
        self.infos(&self.all_conflicts()?)
    }

    /// Those that are meant.
    fn chosen<'c>(&self, all: &'c [Conflict], request: &api::ResolveRequest) -> Result<Vec<&'c Conflict>, Failure> {
        let place = self.place();
        let is_below = |path: &[u8]| match path.strip_prefix(&place[..]) {
            Some(rest) => place.is_empty() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        };
        if request.all {
            return Ok(all.iter().filter(|conflict| is_below(&conflict.path)).collect());
        }
        let here: Vec<&Conflict> =
            all.iter().filter(|conflict| conflict.path == place || conflict.file.contains(&place)).collect();
        let shown = self.top()?.join(os(&place));
        let count = versions(all);
        let others = here.first().and_then(|conflict| count.get(&conflict.mark.file)).map_or(0, BTreeSet::len);
        let is_file = here.iter().all(|conflict| conflict.path != place);
        match here.len() {
            0 if all.iter().any(|conflict| is_below(&conflict.path)) => {
                Err(Failure::new(Kind::Usage, format!("{} has conflicts below it", shown.quote()))
                    .hint("--all settles all of them; `hn conflicts` shows them"))
            }
            0 => Err(Failure::new(Kind::NoInput, format!("nothing is in conflict with {}", shown.quote()))
                .hint("`hn conflicts` shows what is")),
            _ if is_file && others > 1 && request.keep == Keep::Version => {
                Err(Failure::new(Kind::Usage, format!("{others} versions are kept beside {}", shown.quote()))
                    .hint("name the one that is to take its place; `hn conflicts` shows them"))
            }
            // A version that is itself a file with versions: what was named is meant.
            _ if !is_file => Ok(here.into_iter().filter(|conflict| conflict.path == place).collect()),
            _ => Ok(here),
        }
    }

    /// Settles conflicts. Blocks.
    pub(crate) fn resolve_conflicts(&self, request: &api::ResolveRequest) -> Result<api::Resolved, Failure> {
        self.volume.may_write().map_err(port_failure)?;
        let all = self.all_conflicts()?;
        let chosen = self.chosen(&all, request)?;
        // What goes is what is in the snapshot: so it is looked at before, and whatever changes since then stays.
        let looked: Vec<(&Conflict, Result<Looked, Failure>)> =
            chosen.into_iter().map(|conflict| (conflict, self.look_at(conflict))).collect();
        let chosen = &looked;
        let mut before = None;
        if request.keep != Keep::Both && !chosen.is_empty() {
            let message = format!("before resolving {}", self.top()?.join(os(&self.place())).display());
            before = self.snap_first(message)?;
        }
        let several = versions(&all);
        let (mut settled, mut left): (Vec<&Conflict>, _) = (Vec::new(), Vec::new());
        for (conflict, looked) in looked {
            // Another name of what was changed by this just now.
            let looked = match settled.iter().any(|other| other.inode.id == conflict.inode.id) {
                true if request.keep == Keep::Both || (request.keep == Keep::Version && conflict.file.is_empty()) => {
                    settled.push(conflict);
                    continue;
                }
                true => self.look_again(conflict),
                false => looked,
            };
            let is_one_of_several = several.get(&conflict.mark.file).is_some_and(|all| all.len() > 1);
            let done = match request.all && request.keep == Keep::Version && is_one_of_several {
                true => Err(Failure::new(Kind::Usage, "it is one of several versions of its file: name one of them")),
                false => looked.and_then(|looked| self.settle(conflict, request.keep, looked)),
            };
            match done {
                Ok(()) => settled.push(conflict),
                Err(failure) if !request.all => return Err(failure),
                Err(failure) => {
                    left.push(api::Unresolved { path: self.top()?.join(os(&conflict.path)), reason: failure.message });
                }
            }
        }
        Ok(api::Resolved { settled: self.infos(settled)?, left, before: before.map(|id| id.to_string()) })
    }

    /// What stands at a path of the volume, if it is this one still.
    fn look(&self, path: &[u8], id: FileId) -> Result<Name, Failure> {
        let found = || {
            let (mut parent, mut names) = (self.root, path.split(|byte| *byte == b'/').peekable());
            loop {
                let name = names.next().ok_or(VfsError::NotFound)?;
                let ino = self.own.vfs.lookup(parent, name)?.ino;
                if names.peek().is_none() {
                    return Ok(Name { parent, name: name.to_vec(), still: self.own.vfs.still(ino)? });
                }
                parent = ino;
            }
        };
        let name = found().map_err(|error| refused(&error, os(path)))?;
        match name.still.id() == id {
            true => Ok(name),
            false => Err(refused(&VfsError::NotFound, os(path))),
        }
    }

    fn look_at(&self, conflict: &Conflict) -> Result<Looked, Failure> {
        let version = self.look(&conflict.path, conflict.inode.id)?;
        let file = conflict.file.first().map(|path| self.look(path, conflict.mark.file)).transpose()?;
        Ok(Looked { version, file })
    }

    /// The same, of what is as it was but for its names.
    fn look_again(&self, conflict: &Conflict) -> Result<Looked, Failure> {
        let looked = self.look_at(conflict)?;
        match looked.version.still.is(conflict.inode.id, &conflict.inode.content) {
            true => Ok(looked),
            false => Err(refused(&VfsError::Busy, os(&conflict.path))),
        }
    }

    fn settle(&self, conflict: &Conflict, keep: Keep, looked: Looked) -> Result<(), Failure> {
        let failed = |error: VfsError| refused(&error, os(&conflict.path));
        let Looked { version, file } = looked;
        match (keep, conflict.file.first().zip(file)) {
            (Keep::File, None) => {
                let text =
                    format!("{} is all there is: the file that it is a version of is gone", os(&conflict.path).quote());
                return Err(
                    Failure::new(Kind::Usage, text).hint("--keep both makes it a file of its own; or remove it")
                );
            }
            (Keep::Both, _) | (Keep::Version, None) => return self.own.vfs.unmark(&version.still).map_err(failed),
            (Keep::Version, Some((path, file))) => {
                if [&version, &file].iter().any(|one| one.still.kind != FileKind::Regular) {
                    let text = format!("{} is no regular file, and cannot get another content", os(path).quote());
                    return Err(Failure::new(Kind::Usage, text).hint("`mv VERSION FILE`, or --keep file or both"));
                }
                let filled = self.own.vfs.fill(&file.still, Fill::Of(&version.still));
                filled.map_err(|error| refused(&error, os(path)))?;
            }
            (Keep::File, Some(_)) => {}
        }
        self.own.vfs.take_away(version.parent, &version.name, &version.still).map_err(failed)
    }
}
