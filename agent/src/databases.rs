//! Opening what a device knows of its own volume: the catalog and the working tree.
//!
//! Invariant: neither is made a second time. An empty catalog in the place of one that was lost would be published, and
//! an empty tree would have its backing files removed and be published, too; so whatever shows that there was one keeps
//! the agent from starting. A first start makes the catalog, then the tree, then notes in the configuration that both
//! are there; it can be cut short between any two of these.

use std::fs;
use std::path::{Path, PathBuf};

use hypernet_core::id::VolumeId;
use hypernet_core::port::{InodeRow, MetaStore};
use hypernet_core::tree::Content;
use hypernet_fs::vfs::{ROOT, Vfs};
use hypernet_store::error::LOST;
use hypernet_store::volume::VolumeDb;
use hypernet_store::worktree::WorkTree;

use crate::agent::{port_failure, store_failure, tree_failure};
use crate::config::{Config, Home};
use crate::failure::{Failure, Kind};
use crate::volume::state::{self, Latest};

fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.len() > 0)
}

/// Whether there is, or was, a catalog.
pub(crate) fn has_catalog(home: &Home, config: &Config) -> bool {
    config.used || is_filled(&VolumeDb::file(&home.volume()))
}

/// What shows that there was a catalog.
fn evidence(home: &Home, config: &Config) -> Option<PathBuf> {
    let tree = WorkTree::file(&home.tree());
    config.used.then(|| home.config()).or_else(|| is_filled(&tree).then_some(tree))
}

/// Opens the catalog of a volume.
pub(crate) fn open_catalog(
    home: &Home,
    config: &Config,
    volume: VolumeId,
    node_cache_bytes: u64,
) -> Result<VolumeDb, Failure> {
    let evidence = evidence(home, config);
    VolumeDb::open_known(&home.volume(), volume, node_cache_bytes, evidence.as_deref()).map_err(store_failure)
}

/// Whether anything of any volume is on a mesh, as far as this device knows.
pub(crate) fn is_published(home: &Home, config: &Config) -> Result<bool, Failure> {
    if !has_catalog(home, config) {
        return Ok(false); // it has never run
    }
    VolumeDb::has_any(&home.volume(), state::LATEST, evidence(home, config).as_deref()).map_err(store_failure)
}

/// Opens the working tree that belongs to a catalog.
pub(crate) fn open_tree(home: &Home, config: &Config, catalog: &VolumeDb) -> Result<WorkTree, Failure> {
    let latest = state::latest(catalog).map_err(port_failure)?;
    // A recovery notes the head before it sets up the tree.
    let published = latest.is_some() && !config.recovering;
    let evidence: Option<PathBuf> = if config.used {
        Some(home.config())
    } else if published {
        Some(VolumeDb::file(&home.volume()))
    } else {
        Vfs::any_backing(&home.files()).map_err(|error| tree_failure(&error))?
    };
    let tree = WorkTree::open_known(&home.tree(), evidence.as_deref()).map_err(store_failure)?;
    let root = tree.inode(ROOT).map_err(port_failure)?;
    if published && root.is_none() {
        return Err(lacks(&WorkTree::file(&home.tree()), &VolumeDb::file(&home.volume())));
    }
    if !knows(catalog, latest.as_ref(), root.as_ref())? {
        return Err(lacks(&VolumeDb::file(&home.volume()), &WorkTree::file(&home.tree())));
    }
    Ok(tree)
}

/// Whether the catalog knows of the tree's root what was published of it: the head is noted before the tree counts as
/// synced, so that an older catalog is not of this tree.
fn knows(catalog: &VolumeDb, latest: Option<&Latest>, root: Option<&InodeRow>) -> Result<bool, Failure> {
    match root.and_then(|root| root.remote.as_ref()) {
        None => Ok(true),
        Some(Content::Directory(tree)) if latest.is_some() => {
            Ok(catalog.locate(&tree.node.id()).map_err(store_failure)?.is_some())
        }
        Some(_) => Ok(false),
    }
}

/// One of the two is older than the other.
fn lacks(file: &Path, other: &Path) -> Failure {
    let message = format!(
        "{} lacks what {} refers to: it is an older copy, or a part of it was lost; nothing was changed",
        file.display(),
        other.display()
    );
    Failure::new(Kind::Data, message).hint(LOST)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hypernet_core::id::{DeviceTag, NetworkId};
    use hypernet_fs::testing::{MemoryRemote, VOLUME};
    use hypernet_fs::vfs::{Caller, OpenFlags};
    use tempfile::TempDir;

    use super::*;

    const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };

    struct Bed {
        home: Home,
        config: Config,
        _dir: TempDir,
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let config = Config::new(NetworkId([1; 16]), "test".into(), 0, false);
            Self { home: Home::new(dir.path().into()), config, _dir: dir }
        }

        fn open(&self) -> Result<(VolumeDb, WorkTree), Failure> {
            let catalog = open_catalog(&self.home, &self.config, VOLUME, 0)?;
            let tree = open_tree(&self.home, &self.config, &catalog)?;
            Ok((catalog, tree))
        }

        /// Opens all of it, and closes it again.
        fn mounted(&self, with: impl FnOnce(&Vfs)) {
            let config = hypernet_fs::vfs::Config::new(self.home.files(), VOLUME, DeviceTag(1));
            let tree = Arc::new(self.open().unwrap().1);
            let vfs = Vfs::open(config, tree.clone(), Arc::new(MemoryRemote::default())).unwrap();
            with(&vfs);
            vfs.close(true).unwrap();
            drop(vfs);
            // A thread of it may be at its end still.
            while Arc::strong_count(&tree) > 1 {
                std::thread::yield_now();
            }
        }

        fn databases(&self) -> [PathBuf; 2] {
            [VolumeDb::file(&self.home.volume()), WorkTree::file(&self.home.tree())]
        }

        /// Takes one away, or empties it, and back again.
        fn is_missed(&self, file: &Path) {
            let whole = fs::read(file).unwrap();
            fs::remove_file(file).unwrap();
            for empty in [false, true] {
                if empty {
                    fs::write(file, "").unwrap();
                }
                for _ in 0..2 {
                    let failure = self.open().map(|_| ()).unwrap_err();
                    assert_eq!((failure.kind, failure.hint.as_deref()), (Kind::Data, Some(LOST)));
                    assert!(failure.message.starts_with(&format!("{} is missing", file.display())), "{failure}");
                    assert_eq!(file.exists(), empty);
                    assert!(!is_filled(file));
                }
            }
            fs::write(file, whole).unwrap();
            self.open().unwrap();
        }
    }

    #[test]
    fn a_first_start_may_be_cut_short_between_any_two_steps() {
        let mut bed = Bed::new();
        assert!(!has_catalog(&bed.home, &bed.config));
        drop(open_catalog(&bed.home, &bed.config, VOLUME, 0).unwrap());
        for _ in 0..2 {
            drop(bed.open().unwrap());
        }
        bed.mounted(|_| {});
        bed.mounted(|_| {});
        bed.config.used = true;
        bed.mounted(|_| {});
        assert!(has_catalog(&bed.home, &bed.config));
    }

    #[test]
    fn a_database_of_a_home_that_was_used_is_missed() {
        let mut bed = Bed::new();
        drop(bed.open().unwrap());
        bed.config.used = true;
        bed.databases().iter().for_each(|file| bed.is_missed(file));
        // Also with all that lies beside it.
        for dir in [bed.home.volume(), bed.home.tree()] {
            fs::rename(&dir, bed.home.path().join("aside")).unwrap();
            assert_eq!(bed.open().map(|_| ()).unwrap_err().kind, Kind::Data);
            fs::remove_dir_all(&dir).unwrap();
            fs::rename(bed.home.path().join("aside"), &dir).unwrap();
        }
        bed.open().unwrap();
    }

    #[test]
    fn what_lies_beside_a_database_shows_that_it_was_there() {
        let bed = Bed::new();
        bed.mounted(|vfs| {
            let flags = OpenFlags(libc::O_RDWR);
            let (made, _) = vfs.create(ME, ROOT, b"only here", 0o600, flags, false).unwrap();
            vfs.write(made.ino, 0, b"written", false).unwrap();
            vfs.release(made.ino, flags).unwrap();
        });
        let backing = Vfs::any_backing(&bed.home.files()).unwrap().unwrap();
        bed.databases().iter().for_each(|file| bed.is_missed(file));
        assert_eq!(fs::read(backing).unwrap(), b"written");
        bed.mounted(|vfs| assert!(vfs.lookup(ROOT, b"only here").is_ok()));
    }
}
