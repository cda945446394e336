//! Operations on names.

use super::*;

#[test]
fn made_things_are_found_with_their_attributes() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    let file = bed.vfs.mknod(ME, dir, b"file", libc::S_IFREG | 0o666, 0).unwrap();
    assert_eq!((file.mode, file.uid, file.gid, file.nlink, file.size), (0o644, 1000, 100, 1, 0));
    let link = bed.vfs.symlink(ME, dir, b"link", b"../elsewhere").unwrap();
    assert_eq!((link.kind, link.size), (FileKind::Symlink, 12));
    assert_eq!(bed.vfs.readlink(link.ino).unwrap(), b"../elsewhere");
    assert_eq!(bed.vfs.readlink(file.ino), Err(VfsError::Invalid));
    let fifo = bed.vfs.mknod(ME, dir, b"fifo", libc::S_IFIFO | 0o600, 7).unwrap();
    assert_eq!((fifo.kind, fifo.rdev), (FileKind::Fifo, 0));
    let device = bed.vfs.mknod(ADMIN, dir, b"null", libc::S_IFCHR | 0o666, 259).unwrap();
    assert_eq!((device.kind, device.rdev, device.mode), (FileKind::CharDevice, 259, 0o666));
    assert_eq!(bed.names(dir), ["fifo", "file", "link", "null"]);
    assert_eq!(bed.at("/dir/file"), file.ino);
    assert_eq!(bed.vfs.lookup(dir, b"..").unwrap().ino, ROOT);
    assert_eq!(bed.vfs.lookup(dir, b"none"), Err(VfsError::NotFound));
    assert_eq!(bed.vfs.lookup(file.ino, b"x"), Err(VfsError::NotDirectory));
    bed.assert_sound();
    let bed = bed.restart();
    assert_eq!(bed.names(bed.at("dir")), ["fifo", "file", "link", "null"]);
    assert_eq!(bed.stat(bed.at("dir/null")).rdev, 259);
    assert_eq!(bed.at("dir/file"), file.ino, "inode numbers last");
}

#[test]
fn names_are_checked() {
    let bed = Bed::new();
    let long = vec![b'x'; 255];
    bed.vfs.mkdir(ME, ROOT, &long, 0o755).unwrap();
    let too_long = vec![b'x'; 256];
    assert_eq!(bed.vfs.mkdir(ME, ROOT, &too_long, 0o755).unwrap_err(), VfsError::NameTooLong);
    assert_eq!(bed.vfs.lookup(ROOT, &too_long).unwrap_err(), VfsError::NameTooLong);
    assert_eq!(bed.vfs.mkdir(ME, ROOT, b"a/b", 0o755).unwrap_err(), VfsError::Invalid);
    assert_eq!(bed.vfs.mkdir(ME, ROOT, b"..", 0o755).unwrap_err(), VfsError::Invalid);
    assert_eq!(bed.vfs.symlink(ME, ROOT, b"s", &[b'x'; 4096]).unwrap_err(), VfsError::NameTooLong);
    bed.vfs.mkdir(ME, ROOT, b"\xff\xfe", 0o755).unwrap();
    assert_eq!(bed.vfs.mkdir(ME, ROOT, b"\xff\xfe", 0o755).unwrap_err(), VfsError::Exists);
}

#[test]
fn directories_count_their_subdirectories() {
    let bed = Bed::new().mounted();
    let a = bed.dir(ROOT, "a");
    let b = bed.dir(a, "b");
    assert_eq!((bed.stat(ROOT).nlink, bed.stat(a).nlink, bed.stat(b).nlink), (3, 3, 2));
    assert_eq!(bed.vfs.rmdir(ROOT, b"a"), Err(VfsError::NotEmpty));
    assert_eq!(bed.vfs.unlink(ROOT, b"a"), Err(VfsError::IsDirectory));
    bed.vfs.rename(a, b"b", ROOT, b"b", RenameFlags::Replace).unwrap();
    assert_eq!((bed.stat(ROOT).nlink, bed.stat(a).nlink), (4, 2));
    bed.vfs.rmdir(ROOT, b"a").unwrap();
    assert_eq!(bed.stat(ROOT).nlink, 3);
    assert_eq!(bed.stat(a).nlink, 0);
    bed.file(ROOT, "f", b"");
    assert_eq!(bed.vfs.rmdir(ROOT, b"f"), Err(VfsError::NotDirectory));
    bed.assert_sound();
}

#[test]
fn a_setgid_directory_hands_its_group_down() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "shared");
    bed.vfs.setattr(ADMIN, dir, SetAttr { mode: Some(0o2775), gid: Some(50), ..SetAttr::default() }).unwrap();
    assert_eq!(bed.stat(dir).mode, 0o2775);
    let sub = bed.vfs.mkdir(ME, dir, b"sub", 0o755).unwrap();
    assert_eq!((sub.gid, sub.mode), (50, 0o2755));
    let file = bed.vfs.mknod(ME, dir, b"file", 0o644, 0).unwrap();
    assert_eq!((file.gid, file.mode), (50, 0o644));
}

#[test]
fn hard_links_share_an_inode_until_the_last_goes() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "d");
    let ino = bed.file(ROOT, "a", b"content");
    assert_eq!(bed.vfs.link(ino, dir, b"b").unwrap().nlink, 2);
    assert_eq!(bed.at("d/b"), ino);
    assert_eq!(bed.vfs.link(ino, dir, b"b").unwrap_err(), VfsError::Exists);
    assert_eq!(bed.vfs.link(dir, ROOT, b"e").unwrap_err(), VfsError::NotPermitted);
    // Renaming one name of a file over another name of it does nothing.
    bed.vfs.rename(ROOT, b"a", dir, b"b", RenameFlags::Replace).unwrap();
    assert_eq!(bed.stat(ino).nlink, 2);
    bed.vfs.unlink(ROOT, b"a").unwrap();
    let bed = bed.restart();
    assert_eq!((bed.stat(ino).nlink, bed.read(ino)), (1, b"content".to_vec()));
    bed.vfs.unlink(bed.at("d"), b"b").unwrap();
    assert_eq!(bed.vfs.getattr(ino), Err(VfsError::NotFound));
    bed.assert_sound();
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"before");
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    bed.vfs.unlink(ROOT, b"a").unwrap();
    assert_eq!(bed.stat(ino).nlink, 0);
    bed.vfs.commit().unwrap();
    bed.vfs.write(ino, 6, b" after", false).unwrap();
    assert_eq!(bed.read(ino), b"before after");
    assert_eq!(bed.vfs.link(ino, ROOT, b"again").unwrap_err(), VfsError::NotFound);
    assert!(bed.vfs.backing.stat(ino).unwrap().is_some());
    bed.vfs.release(ino, RW).unwrap();
    assert_eq!(bed.vfs.getattr(ino), Err(VfsError::NotFound));
    bed.vfs.commit().unwrap();
    assert_eq!(bed.vfs.backing.stat(ino).unwrap(), None);
    assert_eq!(bed.meta.inode(ino).unwrap(), None);
}

#[test]
fn a_removed_directory_that_the_kernel_knows_takes_nothing_in() {
    let bed = Bed::new().mounted();
    let dir = bed.dir(ROOT, "d");
    bed.vfs.rmdir(ROOT, b"d").unwrap();
    assert_eq!(bed.stat(dir).nlink, 0);
    assert_eq!(bed.vfs.mkdir(ME, dir, b"x", 0o755).unwrap_err(), VfsError::NotFound);
    assert_eq!(bed.vfs.readdir(dir, 0).unwrap().len(), 2);
    bed.vfs.fsyncdir(dir).unwrap();
    assert_eq!(bed.stat(dir).nlink, 0);
    bed.vfs.forget(dir, 1);
    assert_eq!(bed.vfs.getattr(dir), Err(VfsError::NotFound));
    bed.vfs.commit().unwrap();
    assert_eq!(bed.meta.inode(dir).unwrap(), None);
    bed.assert_sound();
}

/// The kernel opens by number what it looked up by name, and the name may be gone in between.
#[test]
fn what_lost_its_name_is_opened_by_who_had_found_it() {
    let bed = Bed::new().mounted();
    let (old, new) = (bed.file(ROOT, "a", b"old"), bed.file(ROOT, "b", b"new"));
    let link = bed.vfs.symlink(ME, ROOT, b"l", b"target").unwrap().ino;
    bed.vfs.rename(ROOT, b"b", ROOT, b"a", RenameFlags::Replace).unwrap();
    bed.vfs.unlink(ROOT, b"l").unwrap();
    assert_eq!((bed.read(old), bed.read(new)), (b"old".to_vec(), b"new".to_vec()));
    assert_eq!(bed.vfs.readlink(link).unwrap(), b"target");
    bed.overwrite(old, 0, b"OLD");
    bed.vfs.setxattr(ME, old, b"user.a", b"x", XattrFlags::Set).unwrap();
    bed.vfs.commit().unwrap();
    for _ in 0..3 {
        bed.vfs.evict();
    }
    assert_eq!((bed.stat(old).nlink, bed.read(old)), (0, b"OLD".to_vec()));
    assert_eq!(bed.vfs.link(old, ROOT, b"again").unwrap_err(), VfsError::NotFound);
    // Forgotten while it is open, and closed.
    bed.vfs.open_file(ME, old, RO, false).unwrap();
    bed.vfs.forget(old, 1);
    assert_eq!(bed.read(old), b"OLD");
    bed.vfs.release(old, RO).unwrap();
    bed.vfs.forget(link, 1);
    for ino in [old, link] {
        assert_eq!(bed.vfs.getattr(ino), Err(VfsError::NotFound));
    }
    // What still has a name is not touched by that.
    bed.vfs.forget(new, 1);
    assert_eq!(bed.read(new), b"new");
    bed.vfs.commit().unwrap();
    assert_eq!((bed.vfs.backing.stat(old).unwrap(), bed.meta.inode(old).unwrap()), (None, None));
    bed.assert_sound();
}

/// A kernel whose mount was taken out of sight does not say that it closes what was open to its end.
#[test]
fn what_is_open_when_a_mount_ends_is_closed() {
    let bed = Bed::new().mounted();
    let (a, b, c) = (bed.file(ROOT, "a", b"x"), bed.file(ROOT, "b", b"x"), bed.file(ROOT, "c", b"x"));
    bed.publish();
    for ino in [a, b, c] {
        bed.vfs.open_file(ME, ino, RO, false).unwrap();
        bed.vfs.open_file(ME, ino, RW, false).unwrap();
    }
    bed.vfs.unlink(ROOT, b"a").unwrap();
    bed.vfs.write(b, 0, b"written", false).unwrap();
    bed.vfs.set_invalidate(None);
    bed.vfs.commit().unwrap();
    assert_eq!((bed.vfs.backing.stat(a).unwrap(), bed.meta.inode(a).unwrap()), (None, None));
    assert_eq!(bed.vfs.release(b, RO), Err(VfsError::BadHandle));
    assert!(bed.publish().is_some());
    assert_eq!(bed.drop_cache(None).unwrap().files, 2, "nothing is open");
    assert_eq!(bed.read(b), b"written");
    bed.assert_sound();
}

/// It says so late: between its turning from one and our hearing of it, it may have looked it up again.
#[test]
fn what_the_kernel_was_told_of_again_is_not_forgotten() {
    let bed = Bed::new().mounted();
    let ino = bed.file(ROOT, "a", b"content");
    for _ in 0..3 {
        bed.vfs.tell(bed.vfs.lookup(ROOT, b"a")).unwrap();
    }
    bed.vfs.unlink(ROOT, b"a").unwrap();
    bed.vfs.forget(ino, 2);
    assert_eq!(bed.read(ino), b"content");
    bed.vfs.forget(ino, 1);
    assert_eq!(bed.vfs.getattr(ino), Err(VfsError::NotFound));
}

#[test]
fn what_the_kernel_still_knows_goes_with_the_mount_or_with_the_next_start() {
    let bed = Bed::new().mounted();
    let (a, b) = (bed.file(ROOT, "a", b"x"), bed.file(ROOT, "b", b"x"));
    bed.vfs.unlink(ROOT, b"a").unwrap();
    bed.vfs.commit().unwrap();
    assert!(bed.vfs.backing.stat(a).unwrap().is_some());
    bed.vfs.set_invalidate(None);
    bed.vfs.commit().unwrap();
    assert_eq!((bed.vfs.backing.stat(a).unwrap(), bed.meta.inode(a).unwrap()), (None, None));
    let bed = bed.mounted();
    bed.vfs.unlink(ROOT, b"b").unwrap();
    bed.vfs.commit().unwrap();
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    bed.vfs.commit().unwrap();
    assert_eq!((bed.vfs.backing.stat(b).unwrap(), bed.meta.inode(b).unwrap()), (None, None));
    bed.assert_sound();
}

#[test]
fn rename_replaces_moves_and_refuses() {
    let bed = Bed::new();
    let (a, b) = (bed.dir(ROOT, "a"), bed.dir(ROOT, "b"));
    let (x, y) = (bed.file(a, "x", b"x"), bed.file(b, "y", b"y"));
    assert_eq!(bed.vfs.rename(a, b"x", b, b"y", RenameFlags::NoReplace), Err(VfsError::Exists));
    bed.vfs.rename(a, b"x", b, b"y", RenameFlags::Replace).unwrap();
    assert_eq!((bed.at("b/y"), bed.names(a).len()), (x, 0));
    assert_eq!(bed.vfs.getattr(y), Err(VfsError::NotFound));
    assert_eq!(bed.vfs.rename(ROOT, b"b", b, b"self", RenameFlags::Replace), Err(VfsError::Invalid));
    let deep = bed.dir(b, "deep");
    assert_eq!(bed.vfs.rename(ROOT, b"b", deep, b"self", RenameFlags::Replace), Err(VfsError::Invalid));
    assert_eq!(bed.vfs.rename(ROOT, b"a", b, b"y", RenameFlags::Replace), Err(VfsError::NotDirectory));
    assert_eq!(bed.vfs.rename(b, b"y", ROOT, b"a", RenameFlags::Replace), Err(VfsError::IsDirectory));
    assert_eq!(bed.vfs.rename(ROOT, b"a", ROOT, b"b", RenameFlags::Replace), Err(VfsError::NotEmpty));
    bed.vfs.rename(b, b"deep", ROOT, b"a", RenameFlags::Replace).unwrap();
    assert_eq!(bed.at("a"), deep);
    assert_eq!(bed.vfs.rename(ROOT, b"none", ROOT, b"c", RenameFlags::Replace), Err(VfsError::NotFound));
    assert_eq!(bed.stat(ROOT).nlink, 4);
    bed.assert_sound();
}

#[test]
fn rename_exchanges() {
    let bed = Bed::new();
    let (a, b) = (bed.dir(ROOT, "a"), bed.dir(ROOT, "b"));
    let (file, sub) = (bed.file(a, "x", b"x"), bed.dir(b, "sub"));
    bed.vfs.rename(a, b"x", b, b"sub", RenameFlags::Exchange).unwrap();
    assert_eq!((bed.at("a/x"), bed.at("b/sub")), (sub, file));
    assert_eq!((bed.stat(a).nlink, bed.stat(b).nlink), (3, 2));
    assert_eq!(bed.vfs.rename(a, b"x", b, b"none", RenameFlags::Exchange), Err(VfsError::NotFound));
    // Neither may end up inside itself.
    assert_eq!(bed.vfs.rename(a, b"x", ROOT, b"a", RenameFlags::Exchange), Err(VfsError::Invalid));
    assert_eq!(bed.vfs.rename(ROOT, b"a", a, b"x", RenameFlags::Exchange), Err(VfsError::Invalid));
    bed.assert_sound();
    let bed = bed.restart();
    assert_eq!((bed.at("a/x"), bed.at("b/sub")), (sub, file));
    assert_eq!(bed.vfs.lookup(sub, b"..").unwrap().ino, a);
}

/// The kernel believes a listing as it believes a look-up.
#[test]
fn an_entry_of_a_listing_leads_to_what_its_name_leads_to_now() {
    let bed = Bed::new().mounted();
    let dir = bed.dir(ROOT, "dir");
    let [kept, replaced, moved, removed] =
        ["kept", "replaced", "moved", "removed"].map(|name| bed.file(dir, name, b"old"));
    let listing = bed.vfs.readdir(dir, 0).unwrap();
    let new = bed.file(dir, "new", b"new");
    bed.vfs.rename(dir, b"new", dir, b"replaced", RenameFlags::Replace).unwrap();
    bed.vfs.rename(dir, b"moved", ROOT, b"moved", RenameFlags::Replace).unwrap();
    bed.vfs.unlink(dir, b"removed").unwrap();
    let now = |name: &str| {
        let item = listing.iter().find(|item| *item.name == *name.as_bytes()).unwrap();
        bed.vfs.item_now(dir, item).map(|attr| attr.ino)
    };
    assert_eq!((now("kept"), now("replaced"), now("moved"), now("removed")), (Some(kept), Some(new), None, None));
    assert_eq!((now("."), bed.stat(replaced).nlink, bed.stat(removed).nlink), (Some(dir), 0, 0));
    assert_eq!(bed.read(moved), b"old");
    // One that is made again is another.
    let again = bed.file(dir, "removed", b"again");
    assert_eq!(now("removed"), Some(again));
}

#[test]
fn a_listing_goes_on_as_it_began() {
    let bed = Bed::new();
    for n in 0..5 {
        bed.file(ROOT, &format!("f{n}"), b"");
    }
    let first = bed.vfs.readdir(ROOT, 0).unwrap();
    assert_eq!(first.len(), 7);
    bed.vfs.unlink(ROOT, b"f3").unwrap();
    bed.file(ROOT, "f9", b"");
    assert_eq!(bed.vfs.readdir(ROOT, 3).unwrap(), first);
    let gone = first.iter().find(|item| &*item.name == b"f3").unwrap();
    assert_eq!(bed.vfs.item_now(ROOT, gone), None, "f3 is gone");
    // Whoever begins sees what is there now, and whoever goes on then has all that was there from the beginning.
    let mut again: Vec<_> = bed.vfs.readdir(ROOT, 0).unwrap().iter().map(|item| item.name.clone()).collect();
    again.sort_unstable();
    assert_eq!(again[2..], [b"f0".as_slice(), b"f1", b"f2", b"f4", b"f9"].map(Box::from));
    let rest = bed.vfs.readdir(ROOT, first[3].offset).unwrap();
    let left = after(&first, first[3].offset).iter().filter(|item| &*item.name != b"f3");
    assert!(left.eq(after(&rest, first[3].offset).iter().filter(|item| &*item.name != b"f9")));
    // At its end it is forgotten, and a new one has what came since.
    let last = rest.last().unwrap().offset;
    assert!(after(&bed.vfs.readdir(ROOT, last).unwrap(), last).is_empty());
    bed.file(ROOT, "late", b"");
    assert!(bed.vfs.readdir(ROOT, 3).unwrap().iter().any(|item| &*item.name == b"late"));
}

#[test]
fn a_name_that_is_replaced_while_it_is_looked_up_is_never_missing() {
    let bed = Bed::new();
    let files: Vec<_> = (0..10).map(|n| (format!("f{n}"), bed.file(ROOT, &format!("f{n}"), b""))).collect();
    let new = bed.file(ROOT, "new", b"");
    bed.publish().unwrap();
    // An open file keeps the names of its directory in memory, though not the inodes behind them.
    bed.vfs.open_file(ME, new, RO, false).unwrap();
    bed.vfs.evict();
    let (name, _) =
        files.into_iter().find(|(_, ino)| !bed.vfs.state.lock().nodes.contains_key(ino)).expect("one that is evicted");
    let (vfs, replaced) = (bed.vfs.clone(), name.clone());
    bed.meta.before_look(move || {
        vfs.rename(ROOT, b"new", ROOT, replaced.as_bytes(), RenameFlags::Replace).unwrap();
        vfs.commit().unwrap();
    });
    assert_eq!(bed.vfs.lookup(ROOT, name.as_bytes()).map(|attr| attr.ino), Ok(new));
    bed.vfs.release(new, RO).unwrap();
    bed.assert_sound();
}
