//! Volumes in which nothing may be changed.

use hypernet_core::id::{FileId, VolumeId};

use super::*;
use crate::testing::publish_volume;

const OTHER: VolumeId = VolumeId([2; 16]);
const THIRD: VolumeId = VolumeId([3; 16]);

/// `top` and `shared/{a,sub/b,link}`, of which `shared` is a volume of its own; all of it is published.
fn shared() -> Bed {
    let bed = Bed::new();
    bed.file(ROOT, "top", b"above");
    let shared = bed.dir(ROOT, "shared");
    let a = bed.file(shared, "a", b"content");
    bed.vfs.setxattr(ME, a, b"user.k", b"v", XattrFlags::Set).unwrap();
    let sub = bed.dir(shared, "sub");
    bed.file(sub, "b", b"below");
    bed.vfs.symlink(ME, shared, b"link", b"a").unwrap();
    bed.vfs.split(shared, OTHER).unwrap();
    bed.publish().unwrap();
    publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap().unwrap();
    bed
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.map(drop).unwrap_err();
    assert_eq!((&error, error.errno()), (&VfsError::ReadOnlyVolume, libc::EROFS));
}

fn waiting(bed: &Bed) -> [u64; 2] {
    [VOLUME, OTHER].map(|volume| bed.vfs.pending(volume).files)
}

#[test]
fn every_change_is_refused_and_nothing_waits_for_the_upload() {
    let bed = shared();
    let (vfs, shared) = (&bed.vfs, bed.at("shared"));
    let (a, sub) = (bed.at("shared/a"), bed.at("shared/sub"));
    let commits = bed.meta.commits();
    vfs.set_read_only(OTHER, true);
    for dir in [shared, sub] {
        refused(vfs.create(ME, dir, b"new", 0o644, RW, false));
        refused(vfs.mknod(ME, dir, b"new", libc::S_IFIFO, 0));
        refused(vfs.mkdir(ME, dir, b"new", 0o755));
        refused(vfs.symlink(ME, dir, b"new", b"target"));
        refused(vfs.attach(ME, dir, b"new", THIRD, FileId([9; 16])));
        refused(vfs.rename(dir, b"a", shared, b"new", RenameFlags::Replace).or_else(|error| match error {
            // There is none in the other.
            VfsError::NotFound => vfs.rename(dir, b"b", shared, b"new", RenameFlags::NoReplace),
            other => Err(other),
        }));
    }
    refused(vfs.link(a, sub, b"new"));
    refused(vfs.unlink(shared, b"a"));
    refused(vfs.rmdir(shared, b"sub"));
    refused(vfs.rename(shared, b"a", shared, b"link", RenameFlags::Exchange));
    refused(vfs.split(sub, THIRD));
    refused(vfs.may_split(sub));
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC, libc::O_RDONLY | libc::O_TRUNC] {
        for passthrough in [false, true] {
            refused(vfs.open_file(ME, a, OpenFlags(flags), passthrough));
        }
    }
    refused(vfs.truncate(ME, a, 3));
    let none = SetAttr::default();
    for set in [
        SetAttr { mode: Some(0o600), ..none },
        SetAttr { uid: Some(7), ..none },
        SetAttr { gid: Some(7), ..none },
        SetAttr { size: Some(3), ..none },
        SetAttr { atime: Some(SetTime::Now), ..none },
        SetAttr { mtime: Some(SetTime::Now), ..none },
        SetAttr { ctime: Some(Timespec::default()), ..none },
    ] {
        refused(vfs.setattr(ME, a, set));
        if set.size.is_none() {
            refused(vfs.setattr(ME, shared, set));
        }
    }
    vfs.setattr(ME, a, none).unwrap();
    refused(vfs.setxattr(ME, a, b"user.k", b"w", XattrFlags::Set));
    refused(vfs.setxattr(ME, shared, b"user.k", b"w", XattrFlags::Set));
    refused(vfs.removexattr(a, b"user.k"));

    // What has been refused has left nothing behind.
    assert_eq!((waiting(&bed), bed.publish()), ([0, 0], None));
    assert_eq!(vfs.state.lock().nodes[&a].handles(), 0);
    assert!(vfs.state.lock().watch.is_empty());
    assert_eq!(bed.meta.commits(), commits);
    assert_eq!(bed.names(shared), ["a", "link", "sub"]);
    assert_eq!((bed.read(a), bed.stat(a).mode), (b"content".to_vec(), 0o644));
    // It is not for good.
    vfs.set_read_only(OTHER, false);
    bed.overwrite(a, 0, b"C");
    assert_eq!(waiting(&bed), [0, 1]);
    bed.assert_sound();
}

#[test]
fn what_changes_nothing_works_as_ever_and_so_does_what_is_above() {
    let bed = shared();
    bed.vfs.set_read_only(OTHER, true);
    let (shared, a) = (bed.at("shared"), bed.at("shared/a"));
    assert_eq!(bed.drop_cache(Some(shared)).unwrap().files, 2);
    assert_eq!((bed.read(a), bed.read(bed.at("shared/sub/b"))), (b"content".to_vec(), b"below".to_vec()));
    assert_eq!(bed.vfs.getxattr(a, b"user.k").unwrap(), b"v");
    assert_eq!(bed.vfs.listxattr(ME, a).unwrap(), b"user.k\0");
    assert_eq!(bed.vfs.readlink(bed.at("shared/link")).unwrap(), b"a");
    bed.vfs.fsync(a, false).unwrap();
    bed.vfs.fsyncdir(shared).unwrap();
    assert_eq!(waiting(&bed), [0, 0]);

    // The volume above is another, and the name of the root is one of its names.
    bed.overwrite(bed.at("top"), 0, b"A");
    assert_eq!(bed.vfs.rename(ROOT, b"top", shared, b"top", RenameFlags::Replace), Err(VfsError::CrossesVolumes));
    assert_eq!(bed.vfs.link(a, ROOT, b"a"), Err(VfsError::CrossesVolumes));
    let place = bed.dir(ROOT, "place");
    bed.vfs.rename(ROOT, b"shared", place, b"theirs", RenameFlags::Replace).unwrap();
    assert_eq!(bed.vfs.rmdir(place, b"theirs"), Err(VfsError::Busy));
    assert_eq!(waiting(&bed)[1], 0, "nothing in it has changed");
    bed.publish().unwrap();
    assert_eq!(waiting(&bed), [0, 0]);
    // It is in the store where it is in memory.
    let bed = bed.restart();
    assert_eq!(bed.at("place/theirs"), shared);
    assert_eq!(bed.vfs.lookup(shared, b"..").unwrap().ino, bed.at("place"));
    bed.assert_sound();
}

#[test]
fn who_has_a_file_open_for_writing_writes_no_more() {
    let bed = shared();
    let (a, top) = (bed.at("shared/a"), bed.at("top"));
    let gone = bed.file(bed.at("shared"), "gone", b"x");
    for ino in [a, top, gone] {
        bed.vfs.open_file(ME, ino, RW, false).unwrap();
    }
    bed.vfs.unlink(bed.at("shared"), b"gone").unwrap();
    bed.vfs.set_read_only(OTHER, true);
    refused(bed.vfs.write(a, 0, b"x", false));
    refused(bed.vfs.fallocate(ME, a, 0, 10, 0));
    refused(bed.vfs.copy_range(top, 0, a, 0, 5));
    assert_eq!(bed.vfs.copy_range(a, 0, top, 0, 7), Ok(7));
    // What has no name is in no volume.
    bed.vfs.write(gone, 0, b"scratch", false).unwrap();
    for ino in [a, top, gone] {
        bed.vfs.release(ino, RW).unwrap();
    }
    assert_eq!((bed.read(a), bed.read(top)), (b"content".to_vec(), b"content".to_vec()));
    bed.assert_sound();
}

/// Nothing of it need be looked for to know that.
#[test]
fn a_volume_that_was_not_found_yet_can_be_one_and_the_uppermost_too() {
    let bed = shared();
    let id = bed.meta.inode(bed.at("shared")).unwrap().unwrap().id;
    let other = Bed::on(bed.remote.clone());
    other.vfs.set_read_only(OTHER, true);
    let theirs = other.vfs.attach(ME, ROOT, b"theirs", OTHER, id).unwrap().ino;
    refused(other.vfs.mkdir(ME, theirs, b"d", 0o755));
    refused(other.vfs.setattr(ME, theirs, SetAttr { mode: Some(0o700), ..SetAttr::default() }));
    other.vfs.set_read_only(VOLUME, true);
    refused(other.vfs.mkdir(ME, ROOT, b"d", 0o755));
    refused(other.vfs.rename(ROOT, b"theirs", ROOT, b"t", RenameFlags::Replace));
    other.vfs.set_read_only(VOLUME, false);
    other.dir(ROOT, "d");
    other.assert_sound();
}
