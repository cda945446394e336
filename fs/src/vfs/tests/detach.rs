//! Taking a volume out of the tree, and having it back.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use hypernet_core::id::{FileId, VolumeId};

use super::*;
use crate::testing::publish_volume;

const OTHER: VolumeId = VolumeId([2; 16]);
const THIRD: VolumeId = VolumeId([3; 16]);

impl Bed {
    /// `top`, and `theirs/{a,deep/{b,c}}`, where `deep/c` is also `twice`; all of it is published and cached.
    fn attached() -> (Self, Inode) {
        let bed = Self::new();
        bed.file(ROOT, "top", b"above");
        let theirs = bed.dir(ROOT, "theirs");
        bed.file(theirs, "a", b"in it");
        let deep = bed.dir(theirs, "deep");
        bed.file(deep, "b", b"deep in it");
        let twice = bed.file(deep, "c", b"twice");
        bed.vfs.link(twice, theirs, b"twice").unwrap();
        bed.vfs.split(theirs, OTHER).unwrap();
        let other = publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap().unwrap();
        bed.publish().unwrap();
        bed.remote.put_root(OTHER, other.clone());
        (bed, other)
    }

    #[track_caller]
    fn assert_whole(&self, at: &str) {
        for (path, content) in
            [("a", &b"in it"[..]), ("deep/b", b"deep in it"), ("deep/c", b"twice"), ("twice", b"twice")]
        {
            assert_eq!(self.read(self.at(&format!("{at}/{path}"))), content);
        }
        assert_eq!(self.at(&format!("{at}/twice")), self.at(&format!("{at}/deep/c")));
    }

    fn volumes_here(&self) -> Vec<VolumeId> {
        self.vfs.volumes().iter().map(|one| one.volume).collect()
    }
}

#[test]
fn what_is_detached_is_gone_and_attached_anew_it_is_all_there() {
    for is_mounted in [false, true] {
        let (bed, other) = Bed::attached();
        let bed = if is_mounted { bed.mounted() } else { bed };
        bed.assert_whole("theirs");
        bed.vfs.commit().unwrap();
        bed.vfs.detach(OTHER, false).unwrap();
        assert_eq!((bed.names(ROOT), bed.volumes_here()), (vec!["top".to_owned()], vec![VOLUME]));
        assert_eq!(bed.vfs.resolve("theirs"), Err(VfsError::NotFound));
        assert_eq!(bed.vfs.detach(OTHER, false), Err(VfsError::NotFound));
        assert_eq!(bed.stat(ROOT).nlink, 2);
        bed.assert_sound();
        // The volume above publishes that it is gone.
        let again = bed.recovered(bed.publish().unwrap());
        assert_eq!(again.names(ROOT), ["top"]);
        let bed = bed.restart();
        assert_eq!((bed.names(ROOT), bed.volumes_here()), (vec!["top".to_owned()], vec![VOLUME]));
        // The name is free for something else meanwhile.
        bed.vfs.attach(ME, ROOT, b"again", OTHER, other.id).unwrap();
        bed.assert_whole("again");
        bed.assert_sound();
        let bed = bed.restart();
        bed.assert_whole("again");
    }
}

#[test]
fn what_is_not_all_on_the_mesh_or_in_use_stays() {
    let (bed, _) = Bed::attached();
    let busy = |bed: &Bed| {
        assert_eq!(bed.vfs.detach(OTHER, false), Err(VfsError::Busy));
        bed.assert_whole("theirs");
        bed.assert_sound();
    };
    assert_eq!(bed.vfs.detach(VOLUME, false), Err(VfsError::Invalid));
    assert_eq!(bed.vfs.detach(THIRD, false), Err(VfsError::NotFound));
    let b = bed.at("theirs/deep/b");
    bed.vfs.open_file(ME, b, RO, false).unwrap();
    assert_eq!(bed.vfs.open_in(OTHER).unwrap(), [PathBuf::from("/theirs/deep/b")]);
    busy(&bed);
    bed.vfs.release(b, RO).unwrap();
    assert_eq!(bed.vfs.open_in(OTHER).unwrap(), Vec::<PathBuf>::new());
    bed.vfs.cut(OTHER).unwrap();
    busy(&bed);
    bed.vfs.end_cut();
    let new = bed.file(bed.at("theirs"), "new", b"only here");
    busy(&bed);
    publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap();
    // The kernel wrote it without a word.
    bed.vfs.backing.get(new).unwrap().unwrap().write_all_at(b"ONLY", 0).unwrap();
    busy(&bed);
    assert_eq!(bed.read(new), b"ONLY here");
    publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap();
    // Another volume begins in it.
    bed.vfs.attach(ME, bed.at("theirs"), b"below", THIRD, FileId([9; 16])).unwrap();
    publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap();
    busy(&bed);
    bed.vfs.detach(THIRD, false).unwrap();
    publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap();
    bed.vfs.detach(OTHER, false).unwrap();
    assert_eq!(bed.names(ROOT), ["top"]);
    bed.assert_sound();
}

#[test]
fn wherever_it_is_broken_off_it_is_attached_or_it_is_not() {
    // The first commit lets go of what is here, the second of the name.
    for lost in 0..3 {
        let (bed, other) = Bed::attached();
        bed.vfs.commit().unwrap();
        let before = bed.meta.after_power_loss();
        let mut left = vec![before];
        bed.vfs.vacate(OTHER).unwrap();
        left.push(bed.meta.after_power_loss());
        bed.vfs.detach(OTHER, false).unwrap();
        left.push(bed.meta.after_power_loss());
        let bed = bed.reopen(left.swap_remove(lost));
        if lost == 2 {
            assert_eq!(bed.names(ROOT), ["top"]);
            bed.vfs.attach(ME, ROOT, b"theirs", OTHER, other.id).unwrap();
        }
        bed.assert_whole("theirs");
        bed.assert_sound();
    }
}

#[test]
fn what_begins_in_it_goes_with_it_when_it_may() {
    let (bed, other) = Bed::attached();
    let inner = bed.dir(bed.at("theirs"), "inner");
    bed.file(inner, "b", b"deep in it");
    bed.vfs.split(inner, THIRD).unwrap();
    let third = publish_volume(&bed.vfs, &bed.remote, THIRD).unwrap().unwrap();
    bed.remote.put_root(THIRD, third);
    let dead = bed.vfs.attach(ME, bed.at("theirs"), b"dead", VolumeId([4; 16]), FileId([9; 16])).unwrap();
    publish_volume(&bed.vfs, &bed.remote, OTHER).unwrap();
    assert_eq!(bed.vfs.detach(OTHER, false), Err(VfsError::Busy));
    // Of one something is only here.
    bed.vfs.set_leaving([THIRD, VolumeId([4; 16])]);
    bed.overwrite(bed.at("theirs/inner/b"), 0, b"DEEP");
    assert_eq!(bed.vfs.detach(OTHER, false), Err(VfsError::Busy));
    assert_eq!(bed.read(bed.at("theirs/inner/b")), b"DEEP in it");
    assert_eq!(bed.volumes_here(), [VOLUME, OTHER, THIRD, VolumeId([4; 16])]);
    assert_eq!(bed.at("theirs/dead"), dead.ino);
    publish_volume(&bed.vfs, &bed.remote, THIRD).unwrap();
    bed.vfs.detach(OTHER, false).unwrap();
    assert_eq!((bed.names(ROOT), bed.volumes_here()), (vec!["top".to_owned()], vec![VOLUME]));
    bed.assert_sound();
    let bed = bed.restart();
    assert_eq!(bed.volumes_here(), [VOLUME]);
    bed.vfs.attach(ME, ROOT, b"again", OTHER, other.id).unwrap();
    assert_eq!(bed.read(bed.at("again/a")), b"in it");
}

#[test]
fn whoever_enters_it_meanwhile_has_it_back() {
    let (bed, _) = Bed::attached();
    bed.vfs.vacate(OTHER).unwrap();
    assert!(bed.vfs.volumes()[1].is_vacant);
    bed.assert_whole("theirs");
    // And what nobody has ever entered goes, too.
    bed.vfs.vacate(OTHER).unwrap();
    let bed = bed.restart();
    bed.vfs.detach(OTHER, false).unwrap();
    assert_eq!(bed.names(ROOT), ["top"]);
    bed.assert_sound();
}

#[test]
fn another_device_lets_it_go_when_it_is_told_to_and_not_before() {
    let (writer, other) = Bed::attached();
    writer.file(ROOT, "more", b"");
    let reader = writer.recovered(writer.publish().unwrap());
    reader.assert_whole("theirs");
    writer.vfs.detach(OTHER, false).unwrap();
    let root = writer.publish().unwrap();
    assert_eq!(reader.vfs.advance(VOLUME, root.clone()), Err(VfsError::Busy));
    reader.vfs.set_leaving([OTHER]);
    // What is only there it keeps, and stays where it is.
    let a = reader.at("theirs/a");
    reader.overwrite(a, 0, b"IN");
    assert_eq!(reader.vfs.advance(VOLUME, root.clone()), Err(VfsError::Busy));
    assert_eq!(reader.read(a), b"IN it");
    publish_volume(&reader.vfs, &reader.remote, OTHER).unwrap();
    reader.vfs.advance(VOLUME, root).unwrap();
    assert_eq!((reader.names(ROOT), reader.volumes_here()), (vec!["more".to_owned(), "top".to_owned()], vec![VOLUME]));
    assert_eq!(reader.vfs.pending(VOLUME).files, 0, "it has nothing to say of that");
    reader.assert_sound();
    let reader = reader.restart();
    assert_eq!(reader.names(ROOT), ["more", "top"]);
    // One of which it has the name alone.
    writer.vfs.attach(ME, ROOT, b"back", OTHER, other.id).unwrap();
    reader.vfs.advance(VOLUME, writer.publish().unwrap()).unwrap();
    assert_eq!(reader.volumes_here(), [VOLUME, OTHER]);
    writer.vfs.detach(OTHER, false).unwrap();
    reader.vfs.set_leaving([OTHER]);
    reader.vfs.advance(VOLUME, writer.publish().unwrap()).unwrap();
    assert_eq!(reader.names(ROOT), ["more", "top"]);
    reader.assert_sound();
}

#[test]
fn what_is_given_up_is_gone_with_it_and_the_rest_is_as_it_was() {
    for is_mounted in [false, true] {
        let (bed, other) = Bed::attached();
        let bed = if is_mounted { bed.mounted() } else { bed };
        bed.overwrite(bed.at("theirs/a"), 0, b"IN IT");
        let deep = bed.at("theirs/deep");
        bed.file(deep, "new", b"only here");
        bed.vfs.unlink(bed.at("theirs"), b"twice").unwrap();
        bed.vfs.unlink(deep, b"b").unwrap();
        let more = bed.dir(deep, "more");
        let new = bed.file(more, "both", b"two names");
        bed.vfs.link(new, deep, b"again").unwrap();
        bed.overwrite(bed.at("top"), 0, b"ABOVE");
        assert_eq!(bed.vfs.detach(OTHER, false), Err(VfsError::Busy));
        bed.vfs.open_file(ME, new, OpenFlags(libc::O_RDONLY), false).unwrap();
        assert_eq!(bed.vfs.detach(OTHER, true), Err(VfsError::Busy), "somebody has it open");
        assert!(bed.vfs.pending(OTHER).files > 0);
        bed.vfs.release(new, OpenFlags(libc::O_RDONLY)).unwrap();
        bed.vfs.detach(OTHER, true).unwrap();
        assert_eq!((bed.names(ROOT), bed.volumes_here()), (vec!["top".to_owned()], vec![VOLUME]));
        bed.assert_sound();
        let bed = bed.restart();
        bed.assert_sound();
        assert_eq!(bed.read(bed.at("top")), b"ABOVE");
        bed.publish().unwrap();
        bed.vfs.attach(ME, ROOT, b"again", OTHER, other.id).unwrap();
        bed.assert_whole("again");
        bed.assert_sound();
    }
}
