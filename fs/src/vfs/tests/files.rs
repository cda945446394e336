//! Content, attributes, extended attributes.

use hypernet_core::history::policy;

use super::*;

#[test]
fn content_is_read_as_it_was_written() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"hello world");
    bed.overwrite(ino, 6, b"there");
    assert_eq!(bed.read(ino), b"hello there");
    bed.overwrite(ino, 20, b"far");
    assert_eq!(bed.read(ino), b"hello there\0\0\0\0\0\0\0\0\0far");
    assert_eq!(bed.stat(ino).size, 23);
    bed.vfs.open_file(ME, ino, RO, false).unwrap();
    let mut buf = [0; 8];
    assert_eq!(bed.vfs.read(ino, 23, &mut buf).unwrap(), 0);
    assert_eq!(bed.vfs.read(ino, 20, &mut buf).unwrap(), 3);
    assert_eq!(bed.vfs.write(ino, 0, b"x", false), Err(VfsError::BadHandle), "it is open for reading only");
    bed.vfs.release(ino, RO).unwrap();
    let bed = bed.restart();
    assert_eq!(bed.read(ino).len(), 23);
    bed.assert_sound();
}

#[test]
fn an_empty_file_has_no_backing_file() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"");
    assert_eq!(bed.read(ino), b"");
    assert_eq!(bed.vfs.backing.stat(ino).unwrap(), None);
    assert_eq!(bed.vfs.lseek(ino, 0, Whence::Data, false), Err(VfsError::NoSuchOffset));
}

#[test]
fn truncation_cuts_and_extends() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"hello world");
    let before = bed.stat(ino);
    bed.vfs.truncate(ME, ino, 5).unwrap();
    assert_eq!(bed.read(ino), b"hello");
    bed.vfs.truncate(ME, ino, 8).unwrap();
    assert_eq!(bed.read(ino), b"hello\0\0\0");
    assert!(bed.stat(ino).mtime >= before.mtime);
    bed.vfs.open_file(ME, ino, OpenFlags(libc::O_RDWR | libc::O_TRUNC), false).unwrap();
    bed.vfs.release(ino, RW).unwrap();
    assert_eq!(bed.stat(ino).size, 0);
    assert_eq!(bed.vfs.truncate(ME, ino, 1 << 63), Err(VfsError::FileTooLarge));
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    assert_eq!(bed.vfs.write(ino, i64::MAX as u64, b"x", false), Err(VfsError::FileTooLarge));
    bed.vfs.release(ino, RW).unwrap();
    assert_eq!(bed.vfs.truncate(ME, ROOT, 0), Err(VfsError::IsDirectory));
}

#[test]
fn what_is_written_past_us_is_seen() {
    let bed = Bed::new();
    let (attr, opened) = bed.vfs.create(ME, ROOT, b"db", 0o644, RW, true).unwrap();
    let file = opened.passthrough.unwrap();
    std::os::unix::fs::FileExt::write_all_at(&*file, b"by the kernel", 0).unwrap();
    assert_eq!(bed.stat(attr.ino).size, 13);
    bed.publish().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&*file, b"by the kernel again", 0).unwrap();
    assert!(bed.vfs.pending(VOLUME).files > 0, "a write to an open file is noticed");
    bed.vfs.release(attr.ino, RW).unwrap();
    assert_eq!(bed.read(attr.ino), b"by the kernel again");
    let bed = bed.restart();
    assert_eq!(bed.read(attr.ino), b"by the kernel again");
    assert_eq!(bed.stat(attr.ino).size, 19);
}

#[test]
fn ranges_are_reserved_punched_and_zeroed() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", &[1; 16384]);
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    bed.vfs.fallocate(ME, ino, 4096, 4096, punch).unwrap();
    bed.vfs.fallocate(ME, ino, 0, 20_000, libc::FALLOC_FL_KEEP_SIZE).unwrap();
    assert_eq!(bed.stat(ino).size, 16384);
    bed.vfs.fallocate(ME, ino, 0, 20_000, 0).unwrap();
    assert_eq!(bed.stat(ino).size, 20_000);
    match bed.vfs.fallocate(ME, ino, 100, 10, libc::FALLOC_FL_ZERO_RANGE) {
        Ok(()) => assert_eq!(bed.read(ino)[99..111], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        Err(error) => assert_eq!(error, VfsError::NotSupported, "not every disk can do it"),
    }
    assert_eq!(bed.read(ino)[4096..8192], [0; 4096]);
    assert_eq!(bed.vfs.fallocate(ME, ino, 0, 0, 0), Err(VfsError::Invalid));
    assert_eq!(bed.vfs.fallocate(ME, ino, 0, 1, libc::FALLOC_FL_COLLAPSE_RANGE), Err(VfsError::NotSupported));
    assert_eq!(bed.vfs.fallocate(ME, ino, i64::MAX as u64, 1, 0), Err(VfsError::FileTooLarge));
    bed.vfs.release(ino, RW).unwrap();
}

#[test]
fn data_and_holes_are_told_apart() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"");
    bed.overwrite(ino, 1 << 20, &[1; 4096]);
    bed.vfs.fsync(ino, true).unwrap();
    assert_eq!(bed.vfs.lseek(ino, 0, Whence::Data, false).unwrap(), 1 << 20);
    assert_eq!(bed.vfs.lseek(ino, 1 << 20, Whence::Hole, false).unwrap(), (1 << 20) + 4096);
    assert_eq!(bed.vfs.lseek(ino, (1 << 20) + 4096, Whence::Data, false), Err(VfsError::NoSuchOffset));
}

#[test]
fn ranges_are_copied() {
    let bed = Bed::new();
    let (a, b) = (bed.file(ROOT, "a", b"0123456789"), bed.file(ROOT, "b", b"----------"));
    bed.vfs.open_file(ME, b, RW, false).unwrap();
    assert_eq!(bed.vfs.copy_range(a, 2, b, 4, 3).unwrap(), 3);
    assert_eq!(bed.vfs.copy_range(a, 8, b, 9, 100).unwrap(), 2);
    assert_eq!(bed.vfs.copy_range(a, 10, b, 0, 1).unwrap(), 0);
    assert_eq!(bed.vfs.copy_range(b, 0, b, 1, 5), Err(VfsError::Invalid));
    assert_eq!(bed.vfs.copy_range(b, 0, a, 0, 1), Err(VfsError::BadHandle));
    bed.vfs.release(b, RW).unwrap();
    assert_eq!(bed.read(b), b"----234--89");
}

#[test]
fn times_modes_and_owners_are_set() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"x");
    let past = Timespec { seconds: -5, nanos: 7 };
    let set = SetAttr {
        mode: Some(0o4755),
        atime: Some(SetTime::At(past)),
        mtime: Some(SetTime::At(past)),
        ..SetAttr::default()
    };
    let attr = bed.vfs.setattr(ME, ino, set).unwrap();
    assert_eq!((attr.mode, attr.atime, attr.mtime), (0o4755, past, past));
    assert!(attr.ctime > past);
    let owned = bed.vfs.setattr(ADMIN, ino, SetAttr { uid: Some(5), gid: Some(6), ..SetAttr::default() }).unwrap();
    assert_eq!((owned.uid, owned.gid, owned.mode), (5, 6, 0o755), "a new owner voids the setuid bit");
    bed.vfs.setattr(ADMIN, ino, SetAttr { mode: Some(0o4755), ..SetAttr::default() }).unwrap();
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    bed.vfs.write(ino, 0, b"y", true).unwrap();
    bed.vfs.release(ino, RW).unwrap();
    assert_eq!(bed.stat(ino).mode, 0o755, "a write voids it too");
    bed.vfs.setattr(ADMIN, ino, SetAttr { mode: Some(0o4755), ..SetAttr::default() }).unwrap();
    bed.vfs.setxattr(ADMIN, ino, b"security.capability", b"all", XattrFlags::Set).unwrap();
    bed.vfs.setattr(ADMIN, ino, SetAttr { uid: Some(7), ..SetAttr::default() }).unwrap();
    assert_eq!(
        (bed.stat(ino).mode, bed.vfs.listxattr(ADMIN, ino).unwrap()),
        (0o755, Vec::new()),
        "and so are capabilities"
    );
    bed.vfs.setattr(ME, ino, set).unwrap();
    let bed = bed.restart();
    assert_eq!((bed.stat(ino).mtime, bed.stat(ino).mode), (past, 0o4755));
}

#[test]
fn a_setuid_file_is_not_written_past_us() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"x");
    bed.vfs.setattr(ADMIN, ino, SetAttr { mode: Some(0o4755), ..SetAttr::default() }).unwrap();
    assert!(!bed.stat(ino).volatile);
    assert!(bed.vfs.open_file(ME, ino, RW, true).unwrap().passthrough.is_none());
    assert!(bed.stat(ino).volatile, "the kernel keeps a mode that a write can change");
    bed.vfs.release(ino, RW).unwrap();
    assert!(bed.vfs.open_file(ME, ino, RO, true).unwrap().passthrough.is_some());
    bed.vfs.release(ino, RO).unwrap();
}

#[test]
fn extended_attributes_are_kept_within_limits() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"x");
    let vfs = &bed.vfs;
    vfs.setxattr(ME, ino, b"user.b", b"2", XattrFlags::Set).unwrap();
    vfs.setxattr(ME, ino, b"user.a", b"1", XattrFlags::Create).unwrap();
    assert_eq!(vfs.setxattr(ME, ino, b"user.a", b"", XattrFlags::Create), Err(VfsError::Exists));
    assert_eq!(vfs.setxattr(ME, ino, b"user.c", b"", XattrFlags::Replace), Err(VfsError::NoAttribute));
    vfs.setxattr(ME, ino, b"user.a", b"3", XattrFlags::Replace).unwrap();
    assert_eq!(vfs.listxattr(ADMIN, ino).unwrap(), b"user.a\0user.b\0");
    assert_eq!(vfs.getxattr(ino, b"user.a").unwrap(), b"3");
    assert_eq!(vfs.getxattr(ino, b"user.none"), Err(VfsError::NoAttribute));
    assert_eq!(vfs.setxattr(ME, ino, b"odd.name", b"", XattrFlags::Set), Err(VfsError::NotSupported));
    assert_eq!(vfs.setxattr(ME, ino, &[b'u'; 256], b"", XattrFlags::Set), Err(VfsError::BufferTooSmall));
    assert_eq!(vfs.setxattr(ME, ino, b"user.big", &[0; 65_537], XattrFlags::Set), Err(VfsError::AttributeTooLarge));
    vfs.setxattr(ME, ino, b"user.big", &[0; 60_000], XattrFlags::Set).unwrap();
    assert_eq!(vfs.setxattr(ME, ino, b"user.more", &[0; 6_000], XattrFlags::Set), Err(VfsError::AttributeSpace));
    vfs.removexattr(ino, b"user.big").unwrap();
    assert_eq!(vfs.removexattr(ino, b"user.big"), Err(VfsError::NoAttribute));
    let bed = bed.restart();
    assert_eq!(bed.vfs.listxattr(ADMIN, ino).unwrap(), b"user.a\0user.b\0");
}

#[test]
fn the_state_of_a_file_can_be_read_but_not_set() {
    struct Info;
    impl DurabilityInfo for Info {
        fn describe(&self, content: &Content) -> String {
            format!("durable {}", content.size())
        }
    }
    let bed = Bed::new();
    bed.vfs.set_durability_info(Some(Arc::new(Info)));
    let ino = bed.file(ROOT, "a", b"xyz");
    let state = |bed: &Bed| String::from_utf8(bed.vfs.getxattr(ino, b"user.hypernet.state").unwrap()).unwrap();
    assert_eq!(state(&bed), "local");
    bed.vfs.cut(VOLUME).unwrap();
    assert_eq!(state(&bed), "uploading");
    bed.vfs.end_cut();
    bed.publish().unwrap();
    assert_eq!(state(&bed), "durable 3");
    assert_eq!(bed.vfs.listxattr(ADMIN, ino).unwrap(), b"");
    let set = bed.vfs.setxattr(ME, ino, b"user.hypernet.state", b"durable", XattrFlags::Set);
    assert_eq!(set, Err(VfsError::NotPermitted));
}

#[test]
fn a_directory_can_have_a_policy_and_a_file_cannot() {
    let bed = Bed::new();
    let (dir, file) = (bed.dir(ROOT, "dir"), bed.file(ROOT, "file", b""));
    let set = |ino| bed.vfs.setxattr(ME, ino, policy::XATTR, b"hourly=24", XattrFlags::Set);
    assert_eq!((set(ROOT), set(dir), set(file)), (Ok(()), Ok(()), Err(VfsError::NotPermitted)));
    assert_eq!(bed.vfs.getxattr(ROOT, policy::XATTR).unwrap(), b"hourly=24");
    assert_eq!(bed.vfs.listxattr(ME, ROOT).unwrap(), [policy::XATTR, b"\0"].concat());
    bed.vfs.removexattr(ROOT, policy::XATTR).unwrap();
    assert_eq!(bed.vfs.getxattr(ROOT, policy::XATTR), Err(VfsError::NoAttribute));
}

#[test]
fn names_of_root_are_shown_to_root() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "file", b"");
    for name in [b"trusted.a".as_slice(), b"user.a"] {
        bed.vfs.setxattr(ADMIN, ino, name, b"1", XattrFlags::Set).unwrap();
    }
    assert_eq!(bed.vfs.listxattr(ADMIN, ino).unwrap(), b"trusted.a\0user.a\0");
    assert_eq!(bed.vfs.listxattr(ME, ino).unwrap(), b"user.a\0");
    assert_eq!(bed.vfs.setxattr(ADMIN, ino, b"user.", b"1", XattrFlags::Set), Err(VfsError::Invalid));
    assert_eq!(bed.vfs.getxattr(ino, b"foo.a"), Err(VfsError::NotSupported));
}
