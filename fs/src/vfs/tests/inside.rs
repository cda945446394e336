//! What the agent itself changes in files.

use super::*;
use hypernet_core::merge::mark;

#[test]
fn a_file_gets_another_content_at_once_and_keeps_all_else() {
    let bed = Bed::new().mounted();
    let file = bed.file(ROOT, "f", b"what was");
    bed.vfs.setxattr(ME, file, b"user.of", b"it", XattrFlags::Set).unwrap();
    bed.publish().unwrap();
    let id = bed.vfs.still(file).unwrap();
    bed.vfs.fill(&id, Fill::Bytes(b"and is")).unwrap();
    assert_eq!(bed.read(file), b"and is");
    assert_eq!(bed.vfs.getxattr(file, b"user.of").unwrap(), b"it");
    assert_eq!(bed.vfs.lookup(ROOT, b"f").unwrap().ino, file);
    assert!(bed.vfs.pending(VOLUME).files > 0, "it is to be published");
    // It was looked at before that.
    assert_eq!(bed.vfs.fill(&id, Fill::Bytes(b"late")).unwrap_err(), VfsError::Busy);
    // What nothing was published of, and what is not here.
    let new = bed.file(ROOT, "new", b"");
    bed.vfs.fill(&bed.vfs.still(new).unwrap(), Fill::Of(&bed.vfs.still(file).unwrap())).unwrap();
    assert_eq!(bed.read(new), b"and is");
    let root = bed.publish().unwrap();
    let other = bed.recovered(root);
    let [one, two] = ["f", "new"].map(|name| other.vfs.lookup(ROOT, name.as_bytes()).unwrap().ino);
    other.vfs.fill(&other.vfs.still(one).unwrap(), Fill::Bytes(b"written over")).unwrap();
    other.vfs.fill(&other.vfs.still(one).unwrap(), Fill::Of(&other.vfs.still(two).unwrap())).unwrap();
    assert_eq!((other.read(one), other.read(two)), (b"and is".to_vec(), b"and is".to_vec()));
    let other = other.restart();
    assert_eq!(other.read(one), b"and is");
    other.assert_sound();
}

#[test]
fn nothing_is_changed_in_what_is_in_use_or_was_changed_since() {
    let bed = Bed::new();
    let (file, version) = (bed.file(ROOT, "f", b"one"), bed.file(ROOT, "version", b"two"));
    let [still, other] = [file, version].map(|ino| bed.vfs.still(ino).unwrap());
    bed.vfs.open_file(ME, version, RW, false).unwrap();
    assert_eq!(bed.vfs.still(version).unwrap_err(), VfsError::Busy);
    assert_eq!(bed.vfs.fill(&still, Fill::Of(&other)).unwrap_err(), VfsError::Busy);
    assert_eq!(bed.vfs.take_away(ROOT, b"version", &other).unwrap_err(), VfsError::Busy);
    assert_eq!(bed.vfs.unmark(&other).unwrap_err(), VfsError::Busy);
    bed.vfs.write(version, 0, b"changed", false).unwrap();
    bed.vfs.release(version, RW).unwrap();
    assert_eq!(bed.vfs.take_away(ROOT, b"version", &other).unwrap_err(), VfsError::Busy);
    // Whoever reads it is shown the old content or the new one, and so must have closed it.
    bed.vfs.open_file(ME, file, RO, false).unwrap();
    let (still, other) = (bed.vfs.still(file).unwrap(), bed.vfs.still(version).unwrap());
    assert_eq!(bed.vfs.fill(&still, Fill::Of(&other)).unwrap_err(), VfsError::Busy);
    assert_eq!((bed.read(file), bed.read(version)), (b"one".to_vec(), b"changed".to_vec()));
    bed.vfs.release(file, RO).unwrap();
    bed.vfs.fill(&still, Fill::Of(&other)).unwrap();
    // By another name it is something else.
    bed.vfs.rename(ROOT, b"version", ROOT, b"v", RenameFlags::Replace).unwrap();
    let other = bed.vfs.still(version).unwrap();
    assert_eq!(bed.vfs.take_away(ROOT, b"f", &other).unwrap_err(), VfsError::Busy);
    bed.vfs.take_away(ROOT, b"v", &other).unwrap();
    assert_eq!(bed.vfs.lookup(ROOT, b"v").unwrap_err(), VfsError::NotFound);
    bed.vfs.set_read_only(VOLUME, true);
    assert_eq!(bed.vfs.still(file).unwrap_err(), VfsError::ReadOnlyVolume);
}

#[test]
fn a_crash_leaves_the_old_content_or_the_new_one() {
    let bed = Bed::new();
    let (file, away) = (bed.file(ROOT, "f", b"what was"), bed.file(ROOT, "away", b"published"));
    bed.publish().unwrap();
    bed.drop_cache(Some(away)).unwrap();
    // What the store has is from before, and what is on the disk is not.
    let before = bed.meta.after_kill();
    for ino in [file, away] {
        bed.vfs.fill(&bed.vfs.still(ino).unwrap(), Fill::Bytes(b"and is")).unwrap();
    }
    let bed = bed.reopen(before);
    assert_eq!((bed.read(file), bed.read(away)), (b"and is".to_vec(), b"published".to_vec()));
    bed.assert_sound();
}

#[test]
fn a_mark_can_be_copied_and_taken_away() {
    let bed = Bed::new();
    let file = bed.file(ROOT, "f", b"");
    bed.vfs.setxattr(ME, file, mark::XATTR, b"whatever", XattrFlags::Set).unwrap();
    assert_eq!(bed.vfs.getxattr(file, mark::XATTR).unwrap(), b"whatever");
    bed.vfs.unmark(&bed.vfs.still(file).unwrap()).unwrap();
    assert_eq!(bed.vfs.getxattr(file, mark::XATTR).unwrap_err(), VfsError::NoAttribute);
    bed.vfs.setxattr(ME, file, mark::XATTR, b"again", XattrFlags::Set).unwrap();
    bed.vfs.removexattr(file, mark::XATTR).unwrap();
    assert_eq!(bed.vfs.setxattr(ME, file, b"user.hypernet.other", b"", XattrFlags::Set), Err(VfsError::NotPermitted));
}
