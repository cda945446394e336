//! Copies of content that a new snapshot does not have, and whoever uses them.

use super::*;

#[test]
fn what_was_written_behind_our_back_is_not_given_up() {
    for remove in [false, true] {
        let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", b"content"));
        two.reader.load_all();
        let a = two.reader.at("a");
        two.reader.vfs.backing.get(a).unwrap().unwrap().write_all_at(b"scribbled over", 0).unwrap();
        two.publish(|bed| match remove {
            true => bed.remove_all(ROOT, "a"),
            false => bed.overwrite(bed.at("a"), 0, b"CONTENT"),
        });
        assert_eq!(two.try_advance(), Err(VfsError::Busy));
        assert_eq!((two.reader.read(a), two.reader.vfs.pending(VOLUME).files), (b"scribbled over".to_vec(), 1));
        assert_eq!(two.try_advance(), Err(VfsError::Busy));
        assert!(two.reader.publish().is_some());
    }
}

#[test]
fn what_is_gone_can_be_read_by_whoever_has_it() {
    let two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        bed.file(dir, "here", b"here");
        bed.file(dir, "not here", b"not here");
        let twice = bed.file(dir, "twice", b"twice");
        bed.vfs.link(twice, dir, b"too").unwrap();
        bed.file(dir, "unknown", b"unknown");
    });
    let mut two = Two { reader: two.reader.mounted(), ..two };
    two.reader.load_all();
    let (vfs, dir) = (two.reader.vfs.clone(), two.reader.at("dir"));
    let [here, absent, twice, unknown] =
        ["here", "not here", "twice", "unknown"].map(|name| two.reader.at(&format!("dir/{name}")));
    two.reader.drop_cache(Some(absent)).unwrap();
    for ino in [here, absent, twice] {
        vfs.open_file(ME, ino, RO, false).unwrap();
    }
    vfs.tell(vfs.getattr(dir)).unwrap();
    // Known to the kernel, though not in memory all the time.
    vfs.tell(vfs.getattr(unknown)).unwrap();
    vfs.commit().unwrap();
    (0..3).for_each(|_| vfs.evict());
    assert!(!vfs.state.lock().nodes.contains_key(&unknown));
    two.advance(|bed| bed.remove_all(ROOT, "dir"));
    assert!(two.reader.names(ROOT).is_empty());
    let read = |ino| {
        let mut buf = [0; 20];
        let len = vfs.read(ino, 0, &mut buf).unwrap();
        buf[..len].to_vec()
    };
    assert_eq!([here, absent, twice].map(read), [b"here".to_vec(), b"not here".to_vec(), b"twice".to_vec()]);
    assert_eq!((two.reader.stat(dir).nlink, two.reader.names(dir).len(), two.reader.stat(twice).nlink), (0, 0, 0));
    assert_eq!(two.reader.read(unknown), b"unknown");
    assert_eq!(vfs.mkdir(ME, dir, b"d", 0o755).map(drop), Err(VfsError::NotFound));
    for ino in [here, absent, twice] {
        vfs.release(ino, RO).unwrap();
        assert_eq!(vfs.getattr(ino).map(drop), Err(VfsError::NotFound));
    }
    assert_eq!(vfs.getattr(unknown).map(|attr| attr.nlink), Ok(0));
    vfs.forget(unknown, 1);
    vfs.forget(dir, 1);
    assert_eq!(
        [unknown, dir].map(|ino| vfs.getattr(ino).map(drop)),
        [Err(VfsError::NotFound), Err(VfsError::NotFound)]
    );
    vfs.commit().unwrap();
    assert_eq!(vfs.backing.all().unwrap(), Vec::<u64>::new());
    assert_eq!(vfs.pending(VOLUME).files, 0);
    two.assert_equal();
}

#[test]
fn a_file_that_is_empty_now_is_empty_whatever_its_copy_here_was() {
    let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", b"content"));
    two.reader.load_all();
    let a = two.reader.at("a");
    two.publish(|bed| bed.vfs.truncate(ME, bed.at("a"), 0).unwrap());
    two.try_advance().unwrap();
    assert_eq!((two.reader.stat(a).size, two.reader.read(a)), (0, Vec::new()));
    two.assert_equal();
    let mut two = two.kill();
    two.assert_equal();
    // It can be opened for writing, which alone changes nothing.
    while file::is_racy(two.reader.stat(a).ctime) {
        std::thread::yield_now();
    }
    two.reader.vfs.open_file(ME, a, RW, false).unwrap();
    while file::is_racy(two.reader.vfs.backing.stat(a).unwrap().unwrap().ctime) {
        std::thread::yield_now();
    }
    two.reader.vfs.release(a, RW).unwrap();
    assert_eq!(two.reader.vfs.pending(VOLUME).files, 0);
    two.advance(|bed| bed.overwrite(bed.at("a"), 0, b"filled"));
    two.advance(|bed| bed.vfs.truncate(ME, bed.at("a"), 0).unwrap());
    two.reader.overwrite(a, 0, b"mine");
    assert_eq!((two.reader.read(a), two.reader.vfs.pending(VOLUME).files), (b"mine".to_vec(), 1));
    let two = two.kill();
    assert_eq!((two.reader.read(a), two.reader.vfs.pending(VOLUME).files), (b"mine".to_vec(), 1));
    two.reader.assert_sound();
}

/// A descriptor of its own stands for the mapping of one who has closed the file.
#[test]
fn what_is_mapped_stays_what_it_was() {
    use std::os::fd::AsRawFd;
    let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", b"content"));
    two.reader.load_all();
    let a = two.reader.at("a");
    let passed = two.reader.vfs.open_file(ME, a, RO, true).unwrap().passthrough.unwrap();
    let mapped = std::fs::File::open(format!("/proc/self/fd/{}", passed.as_raw_fd())).unwrap();
    drop(passed);
    two.reader.vfs.release_passed_through(a, RO).unwrap();
    two.publish(|bed| bed.overwrite(bed.at("a"), 0, b"CONTENT!"));
    two.reader.meta.fail(Some(PortError::Disk("it broke".into())));
    assert!(two.try_advance().is_err());
    // Its copy is still there, and somebody comes to read the new one.
    two.reader.meta.fail(None);
    assert_eq!(two.reader.read(a), b"CONTENT!");
    let mut old = [0; 20];
    let len = mapped.read_at(&mut old, 0).unwrap();
    assert_eq!(&old[..len], b"content");
    two.try_advance().unwrap();
    two.assert_equal();
}

#[test]
fn parts_of_what_was_there_are_no_parts_of_what_is() {
    let content = |of: u8| (0..9_000_000u32).map(|at| (at / 7) as u8 ^ of).collect::<Vec<u8>>();
    let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", &content(1)));
    let a = two.reader.at("a");
    two.reader.vfs.ensure(a, 0..100).unwrap();
    assert!(two.reader.vfs.fetcher.is_partial(a));
    two.publish(|bed| bed.overwrite(bed.at("a"), 0, &content(2)));
    two.try_advance().unwrap();
    assert!(!two.reader.vfs.fetcher.is_partial(a) && two.reader.vfs.backing.stat(a).unwrap().is_none());
    // And of one whose content is the same they are.
    two.reader.vfs.ensure(a, 0..100).unwrap();
    two.publish(|bed| bed.set_mode(bed.at("a"), 0o600));
    two.try_advance().unwrap();
    assert!(two.reader.vfs.fetcher.is_partial(a));
    assert!(two.reader.read(a) == content(2));
    // A fetch that is under way brings what it was asked for to nobody.
    two.reader.drop_cache(None).unwrap();
    two.publish(|bed| bed.overwrite(bed.at("a"), 0, &content(3)));
    two.reader.remote.hold(true);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| two.reader.vfs.ensure(a, 0..100));
        two.reader.remote.await_waiting(1);
        two.try_advance().unwrap();
        two.reader.remote.hold(false);
        late.join().unwrap().unwrap();
    });
    assert!(two.reader.read(a) == content(3));
    two.assert_equal();
}
