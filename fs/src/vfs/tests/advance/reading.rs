//! Files that are read while others change them.

use std::fs::File;

use super::*;

const EXTENT: usize = MemoryRemote::EXTENT as usize;

/// A file that is open for reading on the device that follows, in passthrough or not.
fn opened(content: &[u8], passthrough: bool) -> (Two, u64, Option<Arc<File>>) {
    let two = Two::new(|bed| {
        let dir = bed.dir(ROOT, "dir");
        bed.file(dir, "log", content);
    });
    two.reader.load_all();
    let log = two.reader.at("dir/log");
    let opened = two.reader.vfs.open_file(ME, log, RO, passthrough).unwrap();
    assert_eq!(opened.passthrough.is_some(), passthrough);
    (two, log, opened.passthrough)
}

/// What whoever has it open reads: past us, in passthrough.
fn read(two: &Two, ino: u64, file: Option<&Arc<File>>) -> Vec<u8> {
    let mut buf = vec![0; 1 << 20];
    let len = match file {
        Some(file) => file.read_at(&mut buf, 0).unwrap(),
        None => two.reader.vfs.read(ino, 0, &mut buf).unwrap(),
    };
    buf.truncate(len);
    buf
}

#[test]
fn whoever_has_a_file_open_reads_what_it_was_and_whoever_opens_it_what_it_is() {
    let changes: [fn(&Bed); 5] = [
        |bed| bed.overwrite(bed.at("dir/log"), 0, b"BEGUN"),
        |bed| bed.overwrite(bed.at("dir/log"), 3, b"UN, and longer"),
        |bed| bed.vfs.truncate(ME, bed.at("dir/log"), 2).unwrap(),
        |bed| bed.vfs.truncate(ME, bed.at("dir/log"), 0).unwrap(),
        |bed| {
            bed.overwrite(bed.at("dir/log"), 0, b"BEGUN");
            bed.rename_to("dir/log", "log");
        },
    ];
    for change in changes {
        for passthrough in [false, true] {
            let (mut two, log, file) = opened(b"begun", passthrough);
            two.reader = two.reader.mounted();
            two.reader.vfs.tell_found(|| two.reader.stat(log), |found| Some(found.ino));
            two.publish(change);
            two.try_advance().unwrap();
            two.assert_equal();
            assert_eq!(read(&two, log, file.as_ref()), b"begun");
            assert_eq!(two.reader.stat(log).nlink, 0);
            // Who had just looked it up and means what it is now looks it up again.
            let vfs = two.reader.vfs.clone();
            assert_eq!(vfs.open_file(ME, log, RW, passthrough).map(drop), Err(VfsError::Replaced));
            assert_eq!(vfs.truncate(ME, log, 0), Err(VfsError::Replaced));
            assert_eq!(read(&two, log, file.as_ref()), b"begun");
            vfs.release(log, RO).unwrap();
            vfs.forget(log, 1);
            assert!(vfs.state.lock().replaced.is_empty());
            vfs.commit().unwrap();
            assert!(!vfs.backing.all().unwrap().contains(&log));
            two.assert_equal();
            two.kill().assert_equal();
        }
    }
}

#[test]
fn what_was_read_in_part_is_read_on_from_the_mesh() {
    let old: Vec<u8> = (0..12 * EXTENT).map(|n| (n / 7) as u8).collect();
    let mut two = Two::new(|bed| _ = bed.file(ROOT, "a", &old));
    let a = two.reader.at("a");
    two.reader.vfs.open_file(ME, a, RO, false).unwrap();
    let mut buf = vec![0; 10];
    two.reader.vfs.read(a, 0, &mut buf).unwrap();
    two.publish(|bed| bed.overwrite(bed.at("a"), 0, b"another"));
    two.try_advance().unwrap();
    assert!(read(&two, a, None) == old);
    two.reader.vfs.release(a, RO).unwrap();
    two.assert_equal();
}

#[test]
fn a_file_that_has_grown_grows_for_whoever_has_it_open() {
    let long: Vec<u8> = (0..3 * EXTENT).map(|n| 1 + (n % 200) as u8).collect();
    let added: [&[u8]; 4] = [b", and more", &[0; 3 * EXTENT], &long, b"\0"];
    let befores = [&b"begun"[..], &long, &[0; 2 * EXTENT]];
    for (before, added) in befores.into_iter().flat_map(|before| added.map(|added| (before, added))) {
        let (mut two, log, file) = opened(before, true);
        let told = Arc::new(Told::default());
        two.reader.vfs.set_invalidate(Some(told.clone()));
        let mut expected = [before, added].concat();
        two.publish(|bed| bed.overwrite(bed.at("dir/log"), before.len() as u64, added));
        two.try_advance().unwrap();
        assert_eq!(two.reader.at("dir/log"), log, "it is the same file");
        assert!(read(&two, log, file.as_ref()) == expected);
        assert!(told.all.lock().contains(&format!("inode {log}")));
        two.reader.vfs.commit().unwrap();
        let row = two.reader.meta.inode(log).unwrap().unwrap();
        assert_eq!((row.size, row.dirty), (expected.len() as u64, false));
        assert!(matches!(row.local, Local::Clean { size, .. } if size == row.size));
        two.publish(|bed| bed.overwrite(bed.at("dir/log"), expected.len() as u64, b"!"));
        two.try_advance().unwrap();
        expected.push(b'!');
        assert!(read(&two, log, file.as_ref()) == expected);
        two.assert_equal();
        two.reader.overwrite(log, 0, b"B");
        expected[0] = b'B';
        assert!(read(&two, log, file.as_ref()) == expected);
        two.reader.vfs.release(log, RO).unwrap();
        two.reader.assert_sound();
    }
}

#[test]
fn killed_while_it_grows_a_file_is_what_was_published() {
    for commits in [false, true] {
        let (mut two, log, file) = opened(b"begun", true);
        two.publish(|bed| bed.overwrite(bed.at("dir/log"), 5, b", and more"));
        if commits {
            two.try_advance().unwrap();
        } else {
            two.reader.meta.fail(Some(PortError::Disk("it broke".into())));
            assert!(two.try_advance().is_err());
            assert_eq!(
                read(&two, log, file.as_ref()),
                b"begun",
                "nothing is added before it is said that it is not here"
            );
        }
        let two = two.kill();
        assert_eq!(two.reader.vfs.pending(VOLUME).files, 0);
        two.try_advance().unwrap();
        assert_eq!(two.reader.read(two.reader.at("dir/log")), b"begun, and more");
        two.assert_equal();
    }
}

#[test]
fn what_cannot_grow_in_place_is_replaced() {
    // By more than is held in memory; where the kernel would not read on; and where somebody reads through its cache.
    for (by, keeps_times, cached) in [(9 << 20, false, false), (5, true, false), (5, false, true)] {
        let (mut two, log, file) = opened(b"begun", true);
        two.reader.vfs.set_invalidate(Some(Arc::new(Told { keeps_times, ..Told::default() })));
        if cached {
            two.reader.vfs.open_file(ME, log, RO, false).unwrap();
        }
        two.publish(|bed| bed.overwrite(bed.at("dir/log"), 5, &vec![7; by]));
        two.try_advance().unwrap();
        assert_ne!(two.reader.at("dir/log"), log);
        assert_eq!(read(&two, log, file.as_ref()), b"begun");
        two.assert_equal();
    }
}

/// What it is to hold is not to be had, or is no file at all: the volume moves on all the same.
#[test]
fn nothing_waits_for_the_content_of_an_open_file() {
    let (mut two, log, file) = opened(b"begun", true);
    let remote = two.reader.remote.clone();
    let list = |content: &Content| {
        let Content::Directory(tree) = content else { panic!("a directory") };
        hypernet_core::port::RemoteTree::list(&*remote, tree).unwrap()
    };
    let mut entries = list(&two.root.content);
    let Target::Inode(dir) = &mut entries[0].target else { panic!("an inode") };
    let mut logs = list(&dir.content);
    let Target::Inode(inode) = &mut logs[0].target else { panic!("an inode") };
    let node = remote.put_directory(Vec::new()).unwrap();
    inode.content = Content::Runs { tree: hypernet_core::tree::TreeRef { weight: 9, ..node }, data: 9 };
    dir.content = Content::Directory(remote.put_directory(logs).unwrap());
    two.root.content = Content::Directory(remote.put_directory(entries).unwrap());
    two.try_advance().unwrap();
    let now = two.reader.at("dir/log");
    assert_ne!(now, log);
    assert_eq!((two.reader.stat(now).size, read(&two, log, file.as_ref())), (9, b"begun".to_vec()));
    assert!(matches!(two.reader.try_read(now), Err(VfsError::Unreachable(_))));
}

#[test]
fn one_with_several_names_keeps_the_volume_where_it_is() {
    let mut two = Two::new(|bed| {
        let linked = bed.file(ROOT, "a", b"content");
        bed.vfs.link(linked, ROOT, b"b").unwrap();
    });
    two.reader.load_all();
    let a = two.reader.at("a");
    two.reader.vfs.open_file(ME, a, RO, false).unwrap();
    two.publish(|bed| bed.overwrite(bed.at("a"), 0, b"CONTENT"));
    assert_eq!(two.try_advance(), Err(VfsError::Busy));
    assert_eq!(two.reader.read(a), b"content");
    two.reader.vfs.release(a, RO).unwrap();
    two.try_advance().unwrap();
    two.assert_equal();
}
