//! Volumes below the uppermost one.

use hypernet_core::id::{FileId, VolumeId};

use super::*;
use crate::testing::publish_volume;

const OTHER: VolumeId = VolumeId([2; 16]);
const THIRD: VolumeId = VolumeId([3; 16]);

impl Bed {
    fn publish_of(&self, volume: VolumeId) -> Option<Inode> {
        publish_volume(&self.vfs, &self.remote, volume).unwrap()
    }

    fn waiting(&self) -> [u64; 2] {
        [VOLUME, OTHER].map(|volume| self.vfs.pending(volume).files)
    }

    /// `top`, `shared/{a,deep/b}`: published, then `shared` split off and published again.
    fn split() -> (Self, Inode, Inode) {
        let bed = Self::new();
        bed.file(ROOT, "top", b"above");
        let shared = bed.dir(ROOT, "shared");
        bed.file(shared, "a", b"in it");
        let deep = bed.dir(shared, "deep");
        bed.file(deep, "b", b"deep in it");
        bed.publish().unwrap();
        bed.vfs.split(shared, OTHER).unwrap();
        let (main, other) = (bed.publish().unwrap(), bed.publish_of(OTHER).unwrap());
        (bed, main, other)
    }
}

#[test]
fn a_directory_becomes_a_volume_where_it_is_and_each_is_recovered_by_its_own_root() {
    let (bed, main, other) = Bed::split();
    assert_eq!(bed.waiting(), [0, 0]);
    assert_eq!(bed.read(bed.at("shared/deep/b")), b"deep in it");
    let all: Vec<_> = bed.vfs.volumes().iter().map(|one| (one.volume, one.ino, one.above, one.is_vacant)).collect();
    assert_eq!(all, [(VOLUME, ROOT, None, false), (OTHER, bed.at("shared"), Some(VOLUME), false)]);
    assert_eq!(bed.vfs.path(bed.at("shared/deep/b")).unwrap(), std::path::Path::new("/shared/deep/b"));
    assert_eq!(bed.vfs.volume_of(bed.at("shared/deep/b")).unwrap(), OTHER);
    assert_eq!(bed.vfs.volume_of(bed.at("top")).unwrap(), VOLUME);

    let again = bed.recovered(main);
    assert_eq!(again.names(ROOT), ["shared", "top"]);
    let shared = again.at("shared");
    assert!(again.vfs.volumes()[1].is_vacant);
    assert!(matches!(again.vfs.readdir(shared, 0), Err(VfsError::Unreachable(_))));
    assert!(matches!(again.vfs.lookup(shared, b"a"), Err(VfsError::Unreachable(_))));
    assert!(matches!(again.vfs.mkdir(ME, shared, b"d", 0o755), Err(VfsError::Unreachable(_))));
    // It outlives a restart.
    let again = again.restart();
    assert!(again.vfs.volumes()[1].is_vacant);
    again.remote.put_root(OTHER, Inode { id: FileId([7; 16]), ..other.clone() });
    assert!(matches!(again.vfs.resolve("shared/deep/b"), Err(VfsError::Damaged(_))));
    again.remote.put_root(OTHER, other.clone());
    assert_eq!(again.read(again.at("shared/deep/b")), b"deep in it");
    assert_eq!(again.vfs.set_root(OTHER, other), Err(VfsError::NotEmpty));
    assert_eq!(again.waiting(), [0, 0]);
    let again = again.restart();
    assert_eq!(again.read(again.at("shared/a")), b"in it");
    assert!(!again.vfs.volumes()[1].is_vacant);
    again.assert_sound();
    bed.assert_sound();
}

#[test]
fn what_changes_is_the_business_of_the_volume_that_it_is_in() {
    let (bed, ..) = Bed::split();
    bed.overwrite(bed.at("shared/deep/b"), 0, b"DEEP");
    assert_eq!(bed.waiting(), [0, 1]);
    bed.file(ROOT, "new", b"x");
    let (main, other) = (bed.vfs.cut(VOLUME).unwrap(), bed.vfs.cut(OTHER).unwrap());
    assert_eq!(main.directories.iter().map(|dir| dir.row.ino).collect::<Vec<_>>(), [ROOT]);
    let inside = [bed.at("shared/deep"), bed.at("shared")];
    assert_eq!(other.directories.iter().map(|dir| dir.row.ino).collect::<Vec<_>>(), inside);
    bed.vfs.end_cut();
    bed.vfs.end_cut();
    assert_eq!(bed.publish_of(OTHER).unwrap().id, bed.vfs.meta.inode(bed.at("shared")).unwrap().unwrap().id);
    assert_eq!(bed.waiting()[1], 0);
    assert!(bed.waiting()[0] > 0, "what the other published is no news of this one");
    bed.publish().unwrap();
    assert_eq!(bed.waiting(), [0, 0]);
    // The attributes of a root are its own volume's, and its name is the upper one's.
    bed.vfs.setattr(ME, bed.at("shared"), SetAttr { mode: Some(0o700), ..SetAttr::default() }).unwrap();
    assert_eq!(bed.waiting(), [0, 1]);
    bed.publish_of(OTHER).unwrap();
    bed.vfs.rename(ROOT, b"shared", ROOT, b"renamed", RenameFlags::Replace).unwrap();
    assert!(bed.waiting()[0] > 0);
    let again = bed.recovered(bed.publish().unwrap());
    assert_eq!(again.names(ROOT), ["new", "renamed", "top"]);
}

#[test]
fn no_name_crosses_the_border_and_a_root_stays_until_it_is_let_go() {
    let (bed, ..) = Bed::split();
    let (shared, top, a) = (bed.at("shared"), bed.at("top"), bed.at("shared/a"));
    let rename = |from, name: &[u8], to, new: &[u8], flags| bed.vfs.rename(from, name, to, new, flags);
    for flags in [RenameFlags::Replace, RenameFlags::NoReplace] {
        assert_eq!(rename(ROOT, b"top", shared, b"t", flags), Err(VfsError::CrossesVolumes));
        assert_eq!(rename(shared, b"a", ROOT, b"a", flags), Err(VfsError::CrossesVolumes));
    }
    assert_eq!(rename(ROOT, b"top", shared, b"a", RenameFlags::Exchange), Err(VfsError::CrossesVolumes));
    assert_eq!(bed.vfs.link(top, shared, b"t"), Err(VfsError::CrossesVolumes));
    assert_eq!(bed.vfs.link(a, ROOT, b"a"), Err(VfsError::CrossesVolumes));
    assert_eq!(VfsError::CrossesVolumes.errno(), libc::EXDEV);
    bed.dir(ROOT, "empty");
    assert_eq!(rename(ROOT, b"empty", ROOT, b"shared", RenameFlags::Replace), Err(VfsError::Busy));
    bed.vfs.unlink(shared, b"a").unwrap();
    let deep = bed.at("shared/deep");
    bed.vfs.unlink(deep, b"b").unwrap();
    bed.vfs.rmdir(shared, b"deep").unwrap();
    assert_eq!(bed.vfs.rmdir(ROOT, b"shared"), Err(VfsError::Busy));
    // Below its own volume a root may be called otherwise, and elsewhere.
    let place = bed.dir(ROOT, "place");
    rename(ROOT, b"shared", place, b"there", RenameFlags::Replace).unwrap();
    bed.file(shared, "c", b"x");
    assert_eq!(bed.read(bed.at("place/there/c")), b"x");
    assert_eq!(bed.vfs.lookup(shared, b"..").unwrap().ino, place);
    bed.assert_sound();
}

#[test]
fn files_with_several_names_belong_to_one_volume() {
    let bed = Bed::new();
    let shared = bed.dir(ROOT, "shared");
    let deep = bed.dir(shared, "deep");
    let twice = bed.file(shared, "one", b"twice");
    bed.vfs.link(twice, deep, b"two").unwrap();
    let outside = bed.file(ROOT, "outside", b"out");
    bed.vfs.link(outside, shared, b"inside").unwrap();
    bed.publish().unwrap();
    let bed = bed.restart();
    let shared = bed.at("shared");
    assert_eq!(bed.vfs.split(shared, OTHER), Err(VfsError::LinkedElsewhere(outside)));
    bed.vfs.unlink(shared, b"inside").unwrap();
    bed.vfs.split(shared, OTHER).unwrap();
    let (main, other) = (bed.publish().unwrap(), bed.publish_of(OTHER).unwrap());
    let again = bed.recovered(main);
    assert_eq!(again.read(again.at("outside")), b"out");
    again.vfs.lookup(ROOT, b"shared").unwrap();
    again.vfs.set_root(OTHER, other).unwrap();
    assert_eq!(again.read(again.at("shared/deep/two")), b"twice");
    assert_eq!(again.at("shared/one"), again.at("shared/deep/two"));

    // And so does the mark that one is gone, over a restart too.
    bed.vfs.unlink(bed.at("shared"), b"one").unwrap();
    bed.vfs.unlink(bed.at("shared/deep"), b"two").unwrap();
    let bed = bed.restart();
    assert_eq!(bed.waiting()[0], 0);
    let cut = bed.vfs.cut(OTHER).unwrap();
    assert_eq!(cut.unlinked.len(), 1);
    bed.vfs.end_cut();
    bed.publish_of(OTHER).unwrap();
    assert_eq!(bed.waiting(), [0, 0]);
    bed.assert_sound();
    again.assert_sound();
}

#[test]
fn one_id_in_two_volumes_names_two_files() {
    let (bed, _, mut other) = Bed::split();
    let reader = Bed::on(bed.remote.clone());
    let own = reader.file(ROOT, "own", b"own");
    reader.vfs.link(own, ROOT, b"own too").unwrap();
    let root = reader.publish().unwrap();
    // Whoever writes to the other volume makes up entries with the id of a file of this one.
    let id = reader.meta.inode(own).unwrap().unwrap().id;
    let entry = |name: &[u8]| {
        let target = Target::Link(id);
        hypernet_core::tree::Entry { name: name.to_vec(), dot: root.meta_dot, target }
    };
    other.content = Content::Directory(bed.remote.put_directory(vec![entry(b"x"), entry(b"y")]).unwrap());
    reader.vfs.attach(ME, ROOT, b"theirs", OTHER, other.id).unwrap();
    reader.vfs.set_root(OTHER, other).unwrap();
    assert_eq!(reader.names(reader.at("theirs")), ["x", "y"]);
    // Its row is in no link table of that volume.
    assert!(matches!(reader.vfs.resolve("theirs/x"), Err(VfsError::Damaged(_))));
    let reader = reader.restart();
    assert!(matches!(reader.vfs.resolve("theirs/y"), Err(VfsError::Damaged(_))));
    assert_eq!((reader.read(own), reader.stat(own).nlink), (b"own".to_vec(), 2));
}

#[test]
fn a_crash_leaves_both_volumes_as_they_were_committed() {
    let (bed, ..) = Bed::split();
    bed.overwrite(bed.at("shared/a"), 0, b"IN");
    bed.file(bed.at("shared/deep"), "new", b"new");
    bed.file(ROOT, "newer", b"newer");
    bed.vfs.fsync(bed.at("newer"), false).unwrap();
    for kill in [true, false] {
        let left = if kill { bed.meta.after_kill() } else { bed.meta.after_power_loss() };
        let roots: Vec<u64> = left.roots().unwrap().iter().map(|row| row.ino).collect();
        assert_eq!(roots, [ROOT, bed.at("shared")]);
    }
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    assert_eq!(bed.read(bed.at("shared/deep/new")), b"new");
    assert_eq!(bed.read(bed.at("shared/a")), b"IN it");
    let [main, other] = bed.waiting();
    assert!(main > 0 && other > 0);
    let (main, other) = (bed.publish().unwrap(), bed.publish_of(OTHER).unwrap());
    let again = bed.recovered(main);
    again.at("shared");
    again.vfs.set_root(OTHER, other).unwrap();
    assert_eq!(again.read(again.at("shared/a")), b"IN it");
    bed.assert_sound();
}

#[test]
fn what_was_not_published_goes_along_and_nothing_is_split_while_it_is_cut() {
    let bed = Bed::new();
    bed.file(ROOT, "top", b"above");
    let shared = bed.dir(ROOT, "shared");
    let a = bed.file(shared, "a", b"never published");
    assert_eq!(bed.vfs.split(a, OTHER), Err(VfsError::NotDirectory));
    assert_eq!(bed.vfs.split(ROOT, OTHER), Err(VfsError::Busy));
    let cut = bed.vfs.cut(VOLUME).unwrap();
    assert_eq!(bed.vfs.split(shared, OTHER), Err(VfsError::Busy));
    bed.vfs.end_cut();
    drop(cut);
    let before = bed.waiting()[0];
    bed.vfs.split(shared, OTHER).unwrap();
    // The root, `top`, and the name of the other.
    assert_eq!((before, bed.waiting()), (4, [2, 2]));
    assert_eq!(bed.vfs.split(shared, THIRD), Err(VfsError::Busy));
    let inner = bed.dir(shared, "inner");
    bed.file(inner, "c", b"x");
    assert_eq!(bed.vfs.split(inner, OTHER), Err(VfsError::Exists));
    bed.vfs.split(inner, THIRD).unwrap();
    let above: Vec<_> = bed.vfs.volumes().iter().map(|one| (one.volume, one.above)).collect();
    assert_eq!(above, [(VOLUME, None), (OTHER, Some(VOLUME)), (THIRD, Some(OTHER))]);
    let roots = [VOLUME, OTHER, THIRD].map(|volume| bed.publish_of(volume).unwrap());
    let again = bed.recovered(roots[0].clone());
    again.at("shared");
    again.vfs.set_root(OTHER, roots[1].clone()).unwrap();
    again.at("shared/inner");
    again.vfs.set_root(THIRD, roots[2].clone()).unwrap();
    assert_eq!(again.read(again.at("shared/inner/c")), b"x");
    assert_eq!(again.read(again.at("shared/a")), b"never published");
    again.assert_sound();
}

#[test]
fn a_volume_has_one_place_in_a_tree() {
    let (bed, _, other) = Bed::split();
    let id = FileId([9; 16]);
    assert_eq!(bed.vfs.attach(ME, ROOT, b"again", OTHER, other.id), Err(VfsError::Busy));
    assert_eq!(bed.vfs.attach(ME, ROOT, b"top", THIRD, id), Err(VfsError::Exists));
    let attached = bed.vfs.attach(ME, ROOT, b"third", THIRD, id).unwrap();
    assert_eq!((attached.kind, attached.mode, attached.uid), (FileKind::Directory, 0o755, ME.uid));
    let strange = Inode { id: FileId([8; 16]), ..other.clone() };
    assert_eq!(bed.vfs.set_root(THIRD, strange), Err(VfsError::Invalid));
    bed.vfs.set_root(THIRD, Inode { id, ..other.clone() }).unwrap();
    assert_eq!(bed.read(bed.at("third/a")), b"in it");

    // What means ill lists one twice, and the volume that it stands in.
    let root = |name: &[u8], volume| {
        let target = Target::Volume { volume, id: other.id };
        hypernet_core::tree::Entry { name: name.to_vec(), dot: other.meta_dot, target }
    };
    let names = vec![root(b"loop", OTHER), root(b"one", THIRD), root(b"two", THIRD), root(b"up", VOLUME)];
    let content = Content::Directory(bed.remote.put_directory(names).unwrap());
    let reader = Bed::on(bed.remote.clone());
    reader.vfs.attach(ME, ROOT, b"theirs", OTHER, other.id).unwrap();
    reader.vfs.set_root(OTHER, Inode { content, ..other.clone() }).unwrap();
    assert_eq!(reader.names(reader.at("theirs")), ["one"]);
    reader.assert_sound();
}

#[test]
fn roots_stay_in_memory_and_what_is_in_them_may_go() {
    let (bed, ..) = Bed::split();
    for number in 0..30 {
        bed.file(bed.at("shared/deep"), &number.to_string(), b"x");
    }
    bed.publish_of(OTHER).unwrap();
    bed.vfs.evict();
    let state = bed.vfs.state.lock();
    assert!(state.nodes.len() < 12, "{}", state.nodes.len());
    assert!(state.volumes.keys().all(|root| state.nodes.contains_key(root)));
    drop(state);
    assert_eq!(bed.names(bed.at("shared/deep")).len(), 31);
    let dropped = bed.drop_cache(Some(bed.at("shared"))).unwrap();
    assert_eq!(dropped.files, 32);
    assert_eq!(bed.read(bed.at("shared/deep/7")), b"x");
}

#[test]
fn what_was_found_meanwhile_is_listed_and_not_taken_for_nothing() {
    let (bed, main, other) = Bed::split();
    let again = bed.recovered(main);
    let shared = again.at("shared");
    again.remote.put_root(OTHER, other);
    again.vfs.find_root(OTHER).unwrap();
    // Of somebody who has seen that nothing was here, and begins only now.
    again.vfs.list_remote(shared).unwrap();
    again.vfs.list_remote(shared).unwrap();
    assert_eq!(again.names(shared), ["a", "deep"]);
}

#[test]
fn a_root_is_found_before_it_is_changed() {
    let (bed, main, other) = Bed::split();
    let again = bed.recovered(main);
    let shared = again.at("shared");
    let chmod = |bed: &Bed| bed.vfs.setattr(ME, shared, SetAttr { mode: Some(0o700), ..SetAttr::default() });
    assert!(matches!(chmod(&again), Err(VfsError::Unreachable(_))));
    assert!(again.vfs.setxattr(ME, shared, b"user.a", b"b", XattrFlags::Set).is_err());
    again.vfs.rename(ROOT, b"shared", ROOT, b"renamed", RenameFlags::Replace).unwrap();
    assert_eq!(again.waiting()[1], 0, "nothing of it is here that could be published");
    again.remote.put_root(OTHER, other);
    assert_eq!(chmod(&again).unwrap().mode, 0o700);
    assert_eq!(again.read(again.at("renamed/a")), b"in it");
    assert_eq!(again.stat(shared).mode, 0o700);
}

#[test]
fn a_directory_is_durable_when_the_volumes_below_it_are() {
    let (bed, ..) = Bed::split();
    let state = |path: &str| bed.vfs.state_xattr(bed.at(path)).unwrap();
    assert_eq!((state("/"), state("shared")), ("durable".into(), "durable".into()));
    bed.overwrite(bed.at("shared/deep/b"), 0, b"DEEP");
    assert_eq!((state("/"), state("shared"), state("top")), ("local".into(), "local".into(), "durable".into()));
    bed.publish_of(OTHER).unwrap();
    assert_eq!(state("/"), "durable");
}
