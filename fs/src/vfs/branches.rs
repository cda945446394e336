//! Trees beside the uppermost one: branches, each a volume of its own with a root that no directory has a name for.
//!
//! How they are called is kept by whoever keeps their keys, and is told here; they are found below [`BRANCHES`], a directory that
//! is nowhere written down. So no tree has the names of others in it, and none of them is in a snapshot of another one.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use hypernet_core::id::{FileId, VolumeId};
use hypernet_core::limits::FS_VOLUMES_MAX;

use super::state::State;
use super::volumes::vacant;
use super::{Result, Vfs, VfsError};

/// The directory of the uppermost root in which branches are found.
pub const BRANCHES: &str = ".branches";
/// What the uppermost tree is called among them.
pub const MAIN: &str = "main";

/// A branch, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// What it is.
    pub volume: VolumeId,
    /// Its root directory.
    pub root: FileId,
}

/// How branches are called.
pub(super) type Branches = BTreeMap<Vec<u8>, Branch>;

impl State {
    /// What a branch is called whose root this is, where it is one.
    fn branch_name(&self, root: u64) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        let volume = self.nodes.get(&root).filter(|node| node.parent == 0)?.volume()?;
        let named = self.branches.iter().find(|(_, branch)| branch.volume == volume);
        let name = named.map_or_else(|| volume.to_string().into_bytes(), |(name, _)| name.clone());
        Some(Path::new("/").join(BRANCHES).join(std::ffi::OsStr::from_bytes(&name)))
    }
}

impl Vfs {
    /// From now on these are the branches that are found by name. Those whose root is here stay.
    pub fn set_branches(&self, branches: impl IntoIterator<Item = (Vec<u8>, Branch)>) {
        self.state.lock().branches = branches.into_iter().collect();
    }

    /// What branches are called.
    pub fn branches(&self) -> Vec<Vec<u8>> {
        self.state.lock().branches.keys().cloned().collect()
    }

    /// The root of a branch, by its name; of one of which nothing is here yet it is found when it is entered.
    pub fn branch(&self, name: &[u8]) -> Result<u64> {
        let branch = self.state.lock().branches.get(name).copied().ok_or(VfsError::NotFound)?;
        self.plant(branch)
    }

    /// Takes the root of a volume into the tree, below no other one: nothing of it is here yet.
    pub fn plant(&self, branch: Branch) -> Result<u64> {
        let owner = self.config.owner();
        let (root, is_new) = self.run_mut(|state| {
            if let Some(root) = state.root(branch.volume) {
                return Ok((root, false));
            }
            if state.volumes.len() >= FS_VOLUMES_MAX {
                return Err(VfsError::Busy.into());
            }
            let root = state.alloc_ino();
            state.add_root(root, vacant(branch.root, 0, branch.volume, owner), branch.volume);
            Ok((root, true))
        })?;
        if is_new {
            self.commit()?;
        }
        Ok(root)
    }

    /// A mount of its own shows the tree with this root, or does no more: then it is not found among the branches elsewhere.
    pub fn set_shown(&self, root: u64, shown: bool) {
        let mut state = self.state.lock();
        if shown {
            state.shown.insert(root);
        } else {
            state.shown.remove(&root);
        }
    }

    /// Whether one does.
    pub fn is_shown(&self, root: u64) -> bool {
        self.state.lock().shown.contains(&root)
    }

    /// Whether a kernel knows of anything in the volume with this root.
    pub fn knows_of(&self, root: u64) -> bool {
        let state = self.state.lock();
        let is_in = |ino: u64| state.root_of(ino).is_ok_and(|of| of == root);
        state.nodes.iter().any(|(ino, node)| node.told > 0 && is_in(*ino))
            || state.away.keys().any(|ino| self.meta.inode(*ino).ok().flatten().is_some_and(|row| is_in(row.parent)))
    }

    /// A path below [`BRANCHES`] is one in a branch: its root, and the rest.
    pub(super) fn in_branch<'a>(&self, path: &'a Path) -> Result<Option<(u64, &'a Path)>> {
        use std::os::unix::ffi::OsStrExt;
        let Ok(below) = path.strip_prefix("/").unwrap_or(path).strip_prefix(BRANCHES) else { return Ok(None) };
        let mut parts = below.components();
        match parts.next() {
            Some(Component::Normal(name)) => Ok(Some((self.branch(name.as_bytes())?, parts.as_path()))),
            _ => Ok(None),
        }
    }

    /// How the root of a branch is found.
    pub(super) fn branch_path(&self, root: u64) -> Option<PathBuf> {
        self.state.lock().branch_name(root)
    }
}
