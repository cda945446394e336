//! The link table that is published has what has a name in the tree, and nothing else.

use hypernet_core::id::VolumeId;

use super::*;
use crate::testing::{publish_volume, put_cut};

const OTHER: VolumeId = VolumeId([2; 16]);

impl Bed {
    /// A file with a second name.
    fn linked(&self, name: &str, other: &str, content: &[u8]) -> u64 {
        let ino = self.file(ROOT, name, content);
        self.vfs.link(ino, ROOT, other.as_bytes()).unwrap();
        ino
    }

    fn unlink(&self, name: &str) {
        self.vfs.unlink(ROOT, name.as_bytes()).unwrap();
    }

    fn rows(&self) -> usize {
        self.remote.rows(VOLUME)
    }
}

#[test]
fn a_file_that_is_open_and_has_no_name_any_more_has_no_row() {
    for kernel_knows in [false, true] {
        let bed = Bed::new();
        let bed = if kernel_knows { bed.mounted() } else { bed };
        let ino = bed.linked("server", "server-1", b"runs");
        bed.publish().unwrap();
        assert_eq!(bed.rows(), 1);
        bed.vfs.open_file(ME, ino, RO, false).unwrap();
        bed.unlink("server");
        bed.unlink("server-1");
        bed.publish().unwrap();
        assert_eq!(bed.rows(), 0);
        bed.vfs.release(ino, RO).unwrap();
        if kernel_knows {
            bed.vfs.forget(ino, 1_000);
        }
        bed.publish();
        let bed = bed.restart();
        assert_eq!((bed.publish(), bed.rows()), (None, 0));
        bed.assert_sound();
    }
}

#[test]
fn what_goes_while_it_is_published_for_the_first_time_has_no_row_after_that() {
    // As git makes its objects.
    let make = |bed: &Bed| {
        bed.linked("tmp", "object", b"new");
        bed.unlink("tmp");
    };
    let bed = Bed::new();
    make(&bed);
    let cut = bed.vfs.cut(VOLUME).unwrap();
    bed.unlink("object");
    let (_, synced) = put_cut(&bed.vfs, &bed.remote, &cut).unwrap();
    bed.vfs.mark_synced(VOLUME, cut.seq, synced).unwrap();
    bed.vfs.end_cut();
    assert_eq!(bed.rows(), 1);
    bed.publish().unwrap();
    assert_eq!((bed.rows(), bed.publish()), (0, None));
}

#[test]
fn what_goes_after_a_crash_that_kept_from_this_device_that_it_was_published_has_no_row_after_that() {
    for is_gone_before in [false, true] {
        let bed = Bed::new();
        bed.linked("tmp", "object", b"new");
        let cut = bed.vfs.cut(VOLUME).unwrap();
        put_cut(&bed.vfs, &bed.remote, &cut).unwrap();
        let go = |bed: &Bed| ["tmp", "object"].iter().for_each(|name| bed.unlink(name));
        if is_gone_before {
            go(&bed);
            bed.vfs.commit().unwrap();
        }
        let meta = bed.meta.after_kill();
        let bed = bed.reopen(meta);
        if !is_gone_before {
            go(&bed);
        }
        bed.publish().unwrap();
        assert_eq!((bed.rows(), bed.publish()), (0, None));
        bed.assert_sound();
    }
}

#[test]
fn what_becomes_another_volumes_after_such_a_crash_has_no_row_in_the_one_it_was_in() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    let ino = bed.file(dir, "a", b"a");
    bed.vfs.link(ino, dir, b"b").unwrap();
    let cut = bed.vfs.cut(VOLUME).unwrap();
    put_cut(&bed.vfs, &bed.remote, &cut).unwrap();
    let meta = bed.meta.after_kill();
    let bed = bed.reopen(meta);
    bed.vfs.split(dir, OTHER).unwrap();
    bed.publish().unwrap();
    publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap();
    assert_eq!((bed.rows(), bed.remote.rows(OTHER)), (0, 1));
    bed.assert_sound();
}

#[test]
fn what_was_in_no_cut_leaves_nothing_to_be_published() {
    let bed = Bed::new();
    bed.publish();
    let ino = bed.linked("tmp", "lock", b"");
    bed.unlink("lock");
    bed.unlink("tmp");
    bed.vfs.commit().unwrap();
    assert_eq!(bed.meta.inode(ino).unwrap(), None);
    assert_eq!(bed.vfs.pending(VOLUME).files, 1, "the directory");
}
