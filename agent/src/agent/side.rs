//! What else is mounted beside the main mount: branches, and snapshots; and which tree the main one shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypernet_core::history::revision::short;
use hypernet_core::id::VolumeId;
use hypernet_fs::fuse::{self, MountHandle, MountOptions, Passthrough, Profile};
use hypernet_fs::past::Snapshots;
use hypernet_fs::tree::Tree;
use hypernet_fs::vfs::{BRANCHES, MAIN, ROOT};
use hypernet_sdk::api;

use super::mount::{MountView, make_mount_point};
use super::tree::of_tree;
use super::{Agent, Own};
use crate::failure::{Failure, Kind};
use crate::volumes::Reader;

/// Mounts at once, beside the main one.
const SIDES_MAX: usize = 32;

/// A mount beside the main one.
pub(crate) struct Side {
    pub(crate) dir: PathBuf,
    /// For people.
    what: String,
    /// The volume of the working tree that it shows; a snapshot is no part of that.
    volume: Option<VolumeId>,
    handle: MountHandle,
}

impl Side {
    /// Takes it out of sight; it ends when its last user lets go of it.
    pub(super) fn detach(self) {
        if let Err(error) = self.handle.detach() {
            tracing::warn!(%error, "the mount stays until its users let go of it");
        }
    }
}

impl Own {
    /// The root of a branch, or of the main volume.
    fn top_called(&self, name: &str) -> Result<u64, Failure> {
        let volume = self.called(name)?;
        let rooted = self.vfs.volumes().into_iter().find(|rooted| rooted.volume == volume.id);
        let root = rooted.map(|rooted| rooted.ino).ok_or_else(|| Failure::new(Kind::NoInput, "it is gone already"))?;
        // It is found before anything is shown of it.
        self.vfs.readdir(root, 0).map_err(|error| of_tree(&error))?;
        Ok(root)
    }

    /// Where the root of a tree is found, from the uppermost one.
    pub(super) fn place_of(&self, top: u64) -> PathBuf {
        if top == ROOT { PathBuf::from("/") } else { self.vfs.path(top).unwrap_or_else(|_| PathBuf::from("/")) }
    }

    /// The tree that the main mount is to show: the main one, where the branch that it showed is gone.
    pub(super) fn shown(&self, volume: Option<VolumeId>) -> u64 {
        let rooted = self.vfs.volumes().into_iter().find(|rooted| Some(rooted.volume) == volume);
        rooted.filter(|rooted| rooted.above.is_none()).map_or(ROOT, |rooted| rooted.ino)
    }

    /// Whether a mount shows the tree of a volume, and where.
    pub(super) fn mounted_at(&self, volume: VolumeId) -> Option<PathBuf> {
        let root = self.vfs.volumes().into_iter().find(|rooted| rooted.volume == volume)?.ino;
        let main = self.mount.lock().as_ref().filter(|there| there.top() == root).map(|there| there.dir.clone());
        let side = || self.sides.lock().iter().find(|side| side.volume == Some(volume)).map(|side| side.dir.clone());
        main.or_else(side)
    }

    /// The paths in the tree of a path below a mount; none below none.
    pub(crate) fn below_mount(&self, path: &Path) -> Result<Option<PathBuf>, Failure> {
        let side = self.sides.lock().iter().find_map(|side| {
            let below = path.strip_prefix(&side.dir).ok()?.to_owned();
            Some((side.volume, below, side.what.clone()))
        });
        let (top, below) = match side {
            Some((None, _, what)) => {
                return Err(Failure::new(Kind::Usage, format!("{} is in a mount of {what}", path.display()))
                    .hint("name the same thing below the main mount"));
            }
            Some((volume, below, _)) => (self.shown(volume), below),
            None => match &*self.mount.lock() {
                Some(there) => match path.strip_prefix(&there.dir) {
                    Ok(below) => (there.top(), below.to_owned()),
                    Err(_) => return Ok(None),
                },
                None => return Ok(None),
            },
        };
        let is_of_all = below.starts_with(BRANCHES);
        Ok(Some(if is_of_all { Path::new("/").join(below) } else { self.place_of(top).join(below) }))
    }

    /// What is mounted beside the main mount.
    pub(crate) fn side_mounts(&self) -> Vec<api::SideMount> {
        self.forget_ended();
        let sides = self.sides.lock();
        let info = |side: &Side| {
            let top = side.volume.map(|volume| self.place_of(self.shown(Some(volume))));
            api::SideMount { dir: side.dir.clone(), what: side.what.clone(), top }
        };
        sides.iter().map(info).collect()
    }

    /// An error where another mount shows the tree with this root, or somebody uses it through `.branches`: two kernels would not
    /// know what is changed through the other.
    fn to_be_shown(&self, name: &str, root: u64) -> Result<u64, Failure> {
        let is_main = self.mount.lock().as_ref().is_some_and(|there| there.top() == root);
        if is_main || self.vfs.is_shown(root) {
            return Err(Failure::new(Kind::CantCreate, format!("{name} is mounted already"))
                .hint("`hn status` shows where; `hn umount DIR`, or `hn switch` to another one, first"));
        }
        if name == MAIN || !self.kernels.let_go_of_branch(name.as_bytes(), root) {
            return Err(Failure::new(
                Kind::TryAgain,
                format!("{name} is in use through {BRANCHES}/{name} of another mount"),
            )
            .hint("leave it in all shells, and close its files there"));
        }
        Ok(root)
    }

    /// Somebody may have unmounted one from outside.
    fn forget_ended(&self) {
        let over = |side: &mut Side| side.handle.wait_for(std::time::Duration::ZERO);
        let ended: Vec<Side> = self.sides.lock().extract_if(.., over).collect();
        ended.iter().for_each(|side| self.no_more_shown(side));
    }

    /// What a mount showed is found among the branches again.
    fn no_more_shown(&self, side: &Side) {
        if let Some(volume) = side.volume {
            self.vfs.set_shown(self.shown(Some(volume)), false);
        }
    }
}

impl Agent {
    /// Mounts a branch or a snapshot beside the main mount. Blocks.
    pub(crate) fn mount_side(&self, dir: &Path, request: &api::MountRequest) -> Result<MountView, Failure> {
        let own = self.own_tree()?;
        own.tell_of_branches()?;
        own.forget_ended();
        let reader: Arc<dyn Snapshots> = Arc::new(Reader(own.volumes.clone()));
        let mut root = None;
        let (what, volume, tree) = match (&request.branch, &request.snapshot) {
            (Some(name), _) => {
                let volume = own.called(name)?.id;
                let top = own.top_called(name)?;
                root = Some(own.to_be_shown(name, top)?);
                (format!("branch {name}"), Some(volume), Tree::new(own.vfs.clone(), Some(reader), top))
            }
            (None, Some(revision)) => {
                let past = self.past(&request.of)?;
                let id = past.resolve(revision)?.snapshot.id();
                let tree = Tree::of_snapshot(own.vfs.clone(), reader, past.volume.id, id);
                (format!("snapshot {}", short(&id)), None, tree.map_err(|error| of_tree(&error))?)
            }
            (None, None) => return Err(Failure::new(Kind::Usage, "which branch or snapshot is to be mounted?")),
        };
        let mut sides = own.sides.lock();
        if sides.len() >= SIDES_MAX {
            return Err(Failure::new(Kind::Config, format!("{SIDES_MAX} branches and snapshots are mounted already"))
                .hint("`hn umount DIR` unmounts one"));
        }
        let failed = |error: fuse::MountError| Failure::new(Kind::CantCreate, error.to_string());
        fuse::clear_stale(dir).map_err(failed)?;
        if !dir.exists() {
            make_mount_point(dir)?;
        }
        let passthrough = if request.passthrough { Passthrough::Auto } else { Passthrough::Off };
        let options = MountOptions { passthrough, ..MountOptions::default() };
        // Nothing of a snapshot is in the working tree: it has no part in what the others are told.
        let kernels = match volume {
            Some(_) => own.kernels.clone(),
            None => fuse::Kernels::apart(own.vfs.clone()),
        };
        let handle = fuse::mount_tree(Arc::new(tree), kernels, dir, options).map_err(failed)?;
        if let Some(root) = root {
            own.vfs.set_shown(root, true);
        }
        let (dir, passthrough) = (handle.dir().to_owned(), handle.profile() == Profile::Passthrough);
        sides.push(Side { dir: dir.clone(), what, volume, handle });
        let dirs: Vec<PathBuf> = sides.iter().map(|side| side.dir.clone()).collect();
        drop(sides);
        self.note_sides(dirs)?;
        Ok(MountView { dir, passthrough, reason: None, top: PathBuf::from("/") })
    }

    /// So that they are cleared away when this process dies.
    fn note_sides(&self, dirs: Vec<PathBuf>) -> Result<(), Failure> {
        let mut config = self.config.lock();
        config.side_mounts = dirs;
        config.save(&self.home)
    }

    /// Unmounts one of them, or all. Blocks.
    pub(crate) fn unmount_sides(&self, dir: Option<&Path>) -> Result<bool, Failure> {
        let Some(own) = self.with_volume() else { return Ok(false) };
        own.forget_ended();
        let mut sides = own.sides.lock();
        let mut any = false;
        while let Some(at) = sides.iter().position(|side| dir.is_none_or(|dir| side.dir == dir)) {
            let side = &sides[at];
            side.handle.unmount().map_err(|error| {
                Failure::new(Kind::TryAgain, format!("cannot unmount {}: {error}", side.dir.display()))
                    .hint("leave the directory in all shells and close its files, then try again")
            })?;
            own.no_more_shown(&sides.remove(at));
            any = true;
        }
        let dirs = sides.iter().map(|side| side.dir.clone()).collect();
        drop(sides);
        if any {
            self.note_sides(dirs)?;
        }
        Ok(any)
    }

    /// Clears away what an agent that died has left mounted beside the main mount. Blocks.
    pub(super) fn clear_sides(&self) {
        let left = std::mem::take(&mut self.config.lock().side_mounts);
        if left.is_empty() {
            return;
        }
        for dir in &left {
            if let Err(error) = fuse::clear_stale(dir) {
                tracing::warn!(%error, "the mount of an agent that died stays");
            }
        }
        if let Err(failure) = self.config.lock().save(&self.home) {
            tracing::warn!(%failure, "what is mounted is not written down");
        }
    }

    /// Shows a branch, or the main tree, in the main mount from now on. Blocks.
    pub(crate) fn switch(&self, name: &str) -> Result<api::Switched, Failure> {
        let own = self.own_tree()?;
        own.tell_of_branches()?;
        let volume = own.called(name)?.id;
        let top = own.top_called(name)?;
        if own.vfs.is_shown(top) {
            return Err(Failure::new(Kind::CantCreate, format!("{name} is mounted beside the main mount"))
                .hint("`hn status` shows where; `hn umount DIR` first"));
        }
        {
            let mut config = self.config.lock();
            config.shown = Some(volume.to_string()).filter(|_| name != MAIN);
            config.save(&self.home)?;
        }
        let mounted = own.mount.lock();
        if let Some(there) = mounted.as_ref() {
            there.switch(top)?;
        }
        let dir = mounted.as_ref().map(|there| there.dir.clone());
        Ok(api::Switched { name: name.to_owned(), path: own.place_of(top), dir })
    }
}
