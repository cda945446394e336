//! Branches: volumes whose root has no name in the tree.

use hypernet_core::id::VolumeId;

use super::*;
use crate::testing::publish_volume;
use crate::vfs::Branch;

const BRANCH: VolumeId = VolumeId([0x82; 16]);

/// A tree with `f` and `dir/g` that is published, and a branch of it.
fn branched() -> (Bed, u64) {
    let bed = Bed::new();
    bed.file(ROOT, "f", b"was");
    let dir = bed.dir(ROOT, "dir");
    bed.file(dir, "g", b"deep");
    let root = bed.publish().unwrap();
    bed.vfs.set_branches([(b"dev".to_vec(), Branch { volume: BRANCH, root: root.id })]);
    let branch = bed.vfs.branch(b"dev").unwrap();
    bed.remote.put_root(BRANCH, root);
    (bed, branch)
}

#[test]
fn a_branch_has_a_tree_of_its_own_beside_the_uppermost_one() {
    let (bed, branch) = branched();
    assert_eq!(bed.vfs.branch(b"dev").unwrap(), branch, "it is there once");
    assert_eq!(bed.vfs.branch(b"other"), Err(VfsError::NotFound));
    let of = |bed: &Bed| bed.vfs.volumes().into_iter().find(|one| one.volume == BRANCH).unwrap();
    assert_eq!((of(&bed).above, of(&bed).is_vacant), (None, true));
    let there = |bed: &Bed, path: &str| bed.vfs.resolve(path).unwrap();
    assert_eq!(bed.read(there(&bed, "/.branches/dev/dir/g")), b"deep");
    assert!(!of(&bed).is_vacant);
    assert_ne!(there(&bed, "/.branches/dev/f"), bed.at("f"), "what has one id in both is two things here");
    // What is written in one is not in the other.
    bed.overwrite(there(&bed, "/.branches/dev/f"), 0, b"BRANCH");
    bed.overwrite(bed.at("f"), 0, b"TOP");
    let made = bed.file(branch, "new", b"x");
    assert_eq!(bed.vfs.path(made).unwrap(), std::path::Path::new("/.branches/dev/new"));
    assert_eq!(
        (bed.read(there(&bed, "/.branches/dev/f")), bed.read(bed.at("f"))),
        (b"BRANCH".to_vec(), b"TOP".to_vec())
    );
    assert_eq!(bed.names(ROOT), ["dir", "f"]);
    assert_eq!(bed.vfs.pending(VOLUME).files, 1);
    assert!(bed.vfs.pending(BRANCH).files > 1);
    // No name leads from one into the other.
    assert_eq!(bed.vfs.rename(branch, b"new", ROOT, b"new", RenameFlags::Replace), Err(VfsError::CrossesVolumes));
    assert_eq!(bed.vfs.link(made, ROOT, b"new"), Err(VfsError::CrossesVolumes));
    publish_volume(&bed.vfs, &bed.remote, BRANCH).unwrap().unwrap();
    // It is there after a restart, under its number until it is told what it is called.
    let bed = bed.restart();
    let root = of(&bed).ino;
    assert_eq!(bed.vfs.path(root).unwrap(), std::path::PathBuf::from(format!("/.branches/{BRANCH}")));
    bed.vfs.set_branches([(b"dev".to_vec(), Branch { volume: BRANCH, root: hypernet_core::id::FileId::ROOT })]);
    assert_eq!(bed.vfs.branch(b"dev").unwrap(), root);
    assert_eq!(bed.read(there(&bed, ".branches/dev/f")), b"BRANCH");
    bed.assert_sound();
}

#[test]
fn a_branch_is_let_go_of_with_its_root() {
    let (bed, branch) = branched();
    assert_eq!(bed.read(bed.vfs.resolve("/.branches/dev/f").unwrap()), b"was");
    bed.file(branch, "new", b"x");
    assert_eq!(bed.vfs.detach(BRANCH, false), Err(VfsError::Busy), "what is only here stays");
    bed.vfs.detach(BRANCH, true).unwrap();
    assert_eq!(bed.vfs.volumes().len(), 1);
    assert_eq!(bed.read(bed.at("f")), b"was");
    let bed = bed.restart();
    assert_eq!(bed.vfs.volumes().len(), 1);
    bed.assert_sound();
}
