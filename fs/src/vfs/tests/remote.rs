//! Content that comes from the mesh, and what goes there.

use std::os::unix::fs::FileExt;

use hypernet_core::port::RemoteTree;
use hypernet_core::tree::Entry;

use super::*;

pub(super) fn big(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 251 % 255) as u8 + 1).collect()
}

#[test]
fn a_recovered_tree_is_equal() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    let a = bed.file(dir, "a", b"alpha");
    bed.vfs.link(a, ROOT, b"hard").unwrap();
    bed.file(dir, "empty", b"");
    bed.vfs.symlink(ME, dir, b"sym", b"a").unwrap();
    bed.vfs.setxattr(ME, a, b"user.k", b"v", XattrFlags::Set).unwrap();
    let past = Timespec { seconds: 77, nanos: 5 };
    bed.vfs.setattr(ME, a, SetAttr { mtime: Some(SetTime::At(past)), ..SetAttr::default() }).unwrap();
    let root = bed.publish().unwrap();
    assert_eq!(bed.vfs.pending(VOLUME).files, 0);
    assert_eq!(bed.publish(), None, "nothing is left to do");

    let other = bed.recovered(root);
    assert_eq!(other.remote.lists(), 0, "nothing is listed before it is looked at");
    assert_eq!(other.names(ROOT), ["dir", "hard"]);
    assert_eq!(other.names(other.at("dir")), ["a", "empty", "sym"]);
    let a = other.at("dir/a");
    assert_eq!((a, other.stat(a).nlink, other.stat(a).mtime), (other.at("hard"), 2, past));
    assert_eq!(other.read(a), b"alpha");
    assert_eq!(other.read(other.at("dir/empty")), b"");
    assert_eq!(other.vfs.readlink(other.at("dir/sym")).unwrap(), b"a");
    assert_eq!(other.vfs.getxattr(a, b"user.k").unwrap(), b"v");
    assert_eq!(other.stat(ROOT).nlink, 3);
    assert_eq!(other.publish(), None, "reading makes nothing dirty");
    other.assert_sound();
    let other = other.restart();
    assert_eq!(other.read(other.at("hard")), b"alpha");
    other.assert_sound();
}

#[test]
fn dropped_content_comes_back_and_only_once() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", &big(100_000));
    let dirty = bed.file(ROOT, "dirty", b"x");
    bed.publish().unwrap();
    bed.overwrite(dirty, 0, b"yy");
    bed.vfs.open_file(ME, ino, RO, false).unwrap();
    assert_eq!(bed.drop_cache(None).unwrap(), Dropped::default(), "what is open stays");
    bed.vfs.release(ino, RO).unwrap();
    assert_eq!(bed.drop_cache(None).unwrap(), Dropped { files: 1, bytes: 100_000, ..Dropped::default() });
    assert_eq!(bed.vfs.backing.stat(ino).unwrap(), None);
    assert_eq!(bed.stat(ino).size, 100_000);
    assert_eq!(bed.read(ino), big(100_000));
    let reads = bed.remote.reads();
    assert_eq!(bed.read(ino), big(100_000));
    assert_eq!(bed.remote.reads(), reads);
    bed.vfs.commit().unwrap();
    assert!(matches!(bed.meta.inode(ino).unwrap().unwrap().local, Local::Clean { .. }));
    assert_eq!(bed.read(dirty), b"yy");
    bed.assert_sound();
}

#[test]
fn what_the_mesh_does_not_serve_stays() {
    let bed = Bed::new();
    let (a, b) = (bed.file(ROOT, "a", &big(100_000)), bed.file(ROOT, "b", &big(50_000)));
    bed.file(ROOT, "dirty", b"x");
    bed.publish().unwrap();
    bed.file(ROOT, "new", b"x");
    let content = |ino| bed.meta.inode(ino).unwrap().unwrap().remote.unwrap();
    let unserved = content(b);
    let mut asked = Vec::new();
    let mut served = |contents: &[&Content]| {
        asked.extend(contents.iter().map(|content| (*content).clone()));
        contents.iter().map(|content| **content != unserved).collect()
    };
    let dropped = bed.vfs.drop_cache(None, &mut served, &mut |_, _| {}).unwrap();
    assert_eq!(dropped, Dropped { files: 2, bytes: 100_001, kept_files: 1, kept_bytes: 50_000 });
    assert!(bed.vfs.backing.stat(a).unwrap().is_none());
    assert!(bed.vfs.backing.stat(b).unwrap().is_some());
    assert_eq!(asked.len(), 3, "what must stay is not asked about");
    // An answer about what a file had before it changed is none about what it has now.
    let changed = bed.vfs.drop_cache(
        None,
        &mut |contents| {
            bed.overwrite(b, 0, b"changed");
            vec![true; contents.len()]
        },
        &mut |_, _| {},
    );
    assert_eq!(changed.unwrap(), Dropped::default());
    assert_eq!(bed.read(b)[..7], *b"changed");
    // Neither is one that is missing.
    bed.publish().unwrap();
    let dropped = bed.vfs.drop_cache(None, &mut |_| Vec::new(), &mut |_, _| {}).unwrap();
    assert_eq!((dropped.files, dropped.kept_files), (0, 2));
    bed.assert_sound();
}

#[test]
fn only_a_subtree_is_dropped() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    let (inside, outside) = (bed.file(dir, "in", b"in"), bed.file(ROOT, "out", b"out"));
    bed.publish().unwrap();
    assert_eq!(bed.drop_cache(Some(dir)).unwrap().files, 1);
    assert!(bed.vfs.backing.stat(inside).unwrap().is_none());
    assert!(bed.vfs.backing.stat(outside).unwrap().is_some());
}

#[test]
fn the_kernel_is_told_what_is_void() {
    #[derive(Default)]
    struct Told(Mutex<Vec<u64>>);
    impl Invalidate for Told {
        fn inode(&self, ino: u64) {
            self.0.lock().push(ino);
        }
        fn attributes(&self, _ino: u64) {}
        fn mode(&self, _ino: u64) {}
        fn entry(&self, _parent: u64, _name: &[u8]) {}
        fn keeps_times(&self) -> bool {
            false
        }
        fn flush(&self, _open: &[u64]) -> std::io::Result<()> {
            Err(std::io::Error::from_raw_os_error(libc::ENOSPC))
        }
    }
    let (bed, told) = (Bed::new(), Arc::new(Told::default()));
    let ino = bed.file(ROOT, "a", b"content");
    bed.publish().unwrap();
    bed.vfs.set_invalidate(Some(told.clone()));
    bed.drop_cache(None).unwrap();
    assert_eq!(*told.0.lock(), [ino]);
    // What it could not write is in no cut: none is taken.
    assert_eq!(bed.vfs.cut(VOLUME).unwrap_err(), VfsError::NoSpace);
}

/// A published file that was scribbled over is published again before it is dropped.
#[track_caller]
fn scribble_is_kept(bed: &Bed, ino: u64) {
    assert_eq!(bed.drop_cache(None).unwrap().files, 0);
    assert_eq!(bed.vfs.pending(VOLUME).files, 1);
    bed.publish().unwrap();
    assert_eq!(bed.drop_cache(None).unwrap().files, 1);
    assert_eq!(bed.read(ino), b"scribbled over");
}

#[test]
fn what_was_changed_behind_our_back_is_not_dropped() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"published");
    bed.publish().unwrap();
    // As a process does that had it open in passthrough when the agent was killed.
    bed.vfs.backing.get(ino).unwrap().unwrap().write_all_at(b"scribbled over", 0).unwrap();
    scribble_is_kept(&bed, ino);
}

#[test]
fn opening_does_not_hide_what_was_written_past_us() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"published");
    bed.publish().unwrap();
    bed.vfs.backing.get(ino).unwrap().unwrap().write_all_at(b"scribbled over", 0).unwrap();
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    bed.vfs.release(ino, RW).unwrap();
    assert_eq!(bed.vfs.pending(VOLUME).files, 1);
    scribble_is_kept(&bed, ino);
}

/// A descriptor of its own stands for the mapping: the kernel counts both alike.
#[test]
fn a_file_counts_as_open_while_somebody_holds_what_passed_through() {
    use std::os::fd::AsRawFd;
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"published");
    bed.publish().unwrap();
    let passed = bed.vfs.open_file(ME, ino, RW, true).unwrap().passthrough.unwrap();
    let path = format!("/proc/self/fd/{}", passed.as_raw_fd());
    let mapped = std::fs::File::options().read(true).write(true).open(path).unwrap();
    drop(passed);
    bed.vfs.release_passed_through(ino, RW).unwrap();
    for text in [b"scribbled", b"once more"] {
        mapped.write_all_at(text, 0).unwrap();
        assert_eq!(bed.vfs.pending(VOLUME).files, 1, "what is stored is not seen");
        bed.publish().unwrap();
        assert_eq!(bed.drop_cache(None).unwrap().files, 0, "it is held");
    }
    drop(mapped);
    bed.publish().unwrap();
    assert_eq!(bed.drop_cache(None).unwrap().files, 1);
    assert_eq!(bed.read(ino), b"once more");
    assert_eq!(bed.vfs.release(ino, RW), Err(VfsError::BadHandle), "it was closed once");
}

#[test]
fn opening_for_reading_can_truncate() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"published");
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    let flags = OpenFlags(libc::O_RDONLY | libc::O_TRUNC);
    bed.vfs.open_file(Caller::default(), ino, flags, true).unwrap();
    // The kernel leaves the flag out when it closes.
    bed.vfs.release(ino, OpenFlags(libc::O_RDONLY)).unwrap();
    assert_eq!(bed.vfs.getattr(ino).unwrap().size, 0);
    assert_eq!(bed.vfs.pending(VOLUME).files, 1);
    bed.publish().unwrap();
    assert_eq!(bed.vfs.pending(VOLUME).files, 0);
    assert_eq!(bed.read(ino), b"");
}

#[test]
fn several_readers_of_what_is_missing_fetch_it_once() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", &big(3_000_000));
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    let reads = bed.remote.reads();
    bed.remote.hold(true);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| bed.read(ino))).collect();
        // Let one of them get as far as the mesh; the others find its claim whenever they come.
        bed.remote.await_waiting(1);
        assert_eq!(patience::for_disk(|| bed.try_read(ino)), Err(VfsError::WouldBlock(patience::Wait::Mesh)));
        assert!(bed.vfs.getattr(ino).is_ok(), "nobody else is held up");
        bed.remote.hold(false);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), big(3_000_000));
        }
    });
    assert_eq!(bed.remote.reads(), reads + 1);
}

#[test]
fn a_large_file_is_read_in_order_and_at_random() {
    let bed = Bed::new();
    let content = big(12_000_000);
    let ino = bed.file(ROOT, "a", &content);
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    bed.vfs.open_file(ME, ino, RO, false).unwrap();
    let mut buf = vec![0; 100_000];
    for at in [11_950_000, 5_000_000, 0] {
        let read = bed.vfs.read(ino, at, &mut buf).unwrap();
        assert_eq!(buf[..read], content[at as usize..][..read]);
    }
    let mut whole = Vec::new();
    loop {
        match bed.vfs.read(ino, whole.len() as u64, &mut buf).unwrap() {
            0 => break,
            read => whole.extend_from_slice(&buf[..read]),
        }
    }
    assert!(whole == content);
    bed.vfs.release(ino, RO).unwrap();
    bed.vfs.hydrate(ino).unwrap();
    assert!(bed.vfs.fetcher.partial().is_empty());
    assert!(bed.try_read(ino).unwrap() == content);
}

#[test]
fn at_the_end_of_what_is_not_here_there_is_nothing_to_fetch() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"content");
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    bed.vfs.open_file(ME, ino, RO, false).unwrap();
    assert_eq!(bed.vfs.read(ino, 7, &mut [0; 8]), Ok(0));
    assert_eq!(bed.vfs.read(ino, 100, &mut [0; 8]), Ok(0));
    assert_eq!(bed.vfs.read(ino, 1, &mut []), Ok(0));
    assert_eq!(bed.remote.reads(), 0);
    bed.vfs.release(ino, RO).unwrap();
    assert_eq!(bed.read(ino), b"content");
}

#[test]
fn a_failed_fetch_is_an_error_then_and_no_more_than_that() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    bed.file(dir, "a", b"content");
    let root = bed.publish().unwrap();
    let other = bed.recovered(root);
    other.remote.fail(Some(PortError::Unreachable("segment s lacks 3 shards".into())));
    let error = other.vfs.lookup(ROOT, b"dir").unwrap_err();
    assert_eq!((error.errno(), error.to_string().contains("lacks 3 shards")), (libc::EIO, true));
    other.remote.fail(None);
    let ino = other.at("dir/a");
    other.remote.fail(Some(PortError::Deadline("10 s".into())));
    assert_eq!(other.try_read(ino).unwrap_err().errno(), libc::EIO);
    assert_eq!(other.stat(ino).size, 7);
    other.remote.fail(None);
    assert_eq!(other.read(ino), b"content");
}

#[test]
fn what_cannot_be_a_name_is_left_out_and_takes_nothing_else_with_it() {
    let bed = Bed::new();
    bed.file(ROOT, "a", b"alpha");
    let mut root = bed.publish().unwrap();
    let Content::Directory(tree) = &root.content else { panic!() };
    let mut entries = bed.remote.list(tree).unwrap();
    let good = entries[0].clone();
    for name in [&b"b/c"[..], b"..", &[b'n'; 300]] {
        entries.push(Entry { name: name.to_vec(), ..good.clone() });
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    root.content = Content::Directory(bed.remote.put_directory(entries).unwrap());
    let other = bed.recovered(root);
    assert_eq!(other.names(ROOT), ["a"]);
    assert_eq!(other.read(other.at("a")), b"alpha");
    other.vfs.unlink(ROOT, b"a").unwrap();
    other.assert_sound();
}

#[test]
fn a_hard_link_whose_record_is_missing_takes_nothing_else_with_it() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    let lost = bed.file(dir, "lost", b"x");
    bed.vfs.link(lost, ROOT, b"lost too").unwrap();
    bed.file(dir, "other", b"other");
    let root = bed.publish().unwrap();
    let id = bed.meta.inode(lost).unwrap().unwrap().id;
    let row = bed.remote.take_link(id).unwrap();

    let there = bed.recovered(root);
    let dir = there.at("dir");
    assert_eq!(there.names(dir), ["lost", "other"]);
    assert_eq!(there.names(ROOT), ["dir", "lost too"]);
    assert_eq!(there.read(there.at("dir/other")), b"other");
    for (parent, name) in [(dir, "lost"), (ROOT, "lost too")] {
        let error = there.vfs.lookup(parent, name.as_bytes()).unwrap_err();
        assert_eq!((error.errno(), error.to_string().contains("link table")), (libc::EIO, true));
    }
    // With attributes too it is listed; nobody keeps them.
    let items = there.vfs.readdir(dir, 0).unwrap();
    let item = items.iter().find(|item| *item.name == *b"lost").unwrap();
    assert!(there.vfs.item_now(dir, item).unwrap().volatile);
    let set = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    assert_eq!(there.vfs.setattr(ME, item.ino, set).unwrap_err().errno(), libc::EIO);
    // Once it is known nobody asks for it again, not even after a restart.
    let lists = there.remote.lists();
    let there = there.restart();
    assert_eq!(there.names(there.at("dir")).len(), 2);
    assert_eq!(there.remote.lists(), lists);
    let found = there.vfs.fsck(false).unwrap();
    assert!(found.problems.iter().any(|line| line.contains("neither here nor on the mesh")), "{found:?}");

    // The next snapshot has the name, and nothing made up behind it: whoever has the record has the file.
    let dir = there.at("dir");
    there.file(dir, "new", b"new");
    there.vfs.rename(dir, b"lost", dir, b"found", RenameFlags::Replace).unwrap();
    let root = there.publish().unwrap();
    assert!(there.remote.take_link(id).is_none());
    there.remote.put_link(row);
    let third = there.recovered(root);
    assert_eq!(third.names(third.at("dir")), ["found", "new", "other"]);
    assert_eq!(third.read(third.at("dir/found")), b"x");
    third.assert_sound();
}

#[test]
fn a_panic_while_fetching_is_an_error_for_those_who_wait_and_nothing_stays_behind() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    bed.file(dir, "a", &big(3_000_000));
    let root = bed.publish().unwrap();
    let other = bed.recovered(root);
    other.names(ROOT);
    let dir = other.at("dir");
    // A listing first.
    other.remote.panic(true);
    assert_eq!(panics::caught(|| other.vfs.lookup(dir, b"a")), Err("on purpose".to_owned()));
    other.remote.panic(false);
    let ino = other.at("dir/a");
    // Then content, with others who wait for the same piece.
    other.vfs.open_file(ME, ino, RO, false).unwrap();
    other.remote.hold(true);
    std::thread::scope(|scope| {
        let read = || panics::caught(|| other.vfs.read(ino, 0, &mut [0; 10]));
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
        other.remote.await_waiting(1);
        other.remote.panic(true);
        other.remote.hold(false);
        for reader in readers {
            match reader.join().unwrap() {
                Err(text) => assert_eq!(text, "on purpose"),
                Ok(told) => assert_eq!(told.unwrap_err().errno(), libc::EIO),
            }
        }
    });
    other.remote.panic(false);
    other.vfs.release(ino, RO).unwrap();
    assert!(other.read(ino) == big(3_000_000));
    other.assert_sound();
}

#[test]
fn writing_to_an_absent_file_fetches_it_first_but_truncation_does_not() {
    let bed = Bed::new();
    let (a, b, c) = (bed.file(ROOT, "a", b"0123456789"), bed.file(ROOT, "b", b"bbb"), bed.file(ROOT, "c", b"ccc"));
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    bed.overwrite(a, 3, b"x");
    assert_eq!(bed.read(a), b"012x456789");
    let reads = bed.remote.reads();
    bed.vfs.open_file(ME, b, OpenFlags(libc::O_WRONLY | libc::O_TRUNC), false).unwrap();
    bed.vfs.write(b, 0, b"B", false).unwrap();
    bed.vfs.release(b, OpenFlags(libc::O_WRONLY)).unwrap();
    bed.vfs.truncate(ME, c, 0).unwrap();
    assert_eq!(bed.remote.reads(), reads);
    assert_eq!((bed.read(b), bed.read(c)), (b"B".to_vec(), Vec::new()));
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    assert_eq!((bed.read(a), bed.read(b), bed.read(c)), (b"012x456789".to_vec(), b"B".to_vec(), Vec::new()));
    bed.assert_sound();
}

#[test]
fn a_partly_fetched_file_is_absent_after_a_crash() {
    let bed = Bed::new();
    let content = big(9_000_000);
    let ino = bed.file(ROOT, "a", &content);
    bed.publish().unwrap();
    bed.drop_cache(None).unwrap();
    bed.vfs.open_file(ME, ino, RO, false).unwrap();
    bed.vfs.read(ino, 8_000_000, &mut [0; 10]).unwrap();
    assert!(bed.vfs.backing.stat(ino).unwrap().is_some());
    let meta = bed.meta.after_kill();
    let bed = bed.reopen(meta);
    assert!(bed.vfs.backing.stat(ino).unwrap().is_none());
    assert!(bed.read(ino) == content);
}

#[test]
fn attributes_of_absent_things_change_without_their_content() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    bed.file(dir, "a", b"content");
    let root = bed.publish().unwrap();
    let other = bed.recovered(root);
    let dir = other.at("dir");
    let lists = other.remote.lists();
    other.vfs.setattr(ME, dir, SetAttr { mode: Some(0o700), ..SetAttr::default() }).unwrap();
    other.vfs.rename(ROOT, b"dir", ROOT, b"moved", RenameFlags::Replace).unwrap();
    let root = other.publish().unwrap();
    assert_eq!(other.remote.lists(), lists);
    let third = other.recovered(root);
    let dir = third.at("moved");
    assert_eq!(third.stat(dir).mode, 0o700);
    let a = third.at("moved/a");
    let reads = third.remote.reads();
    third.vfs.setattr(ME, a, SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    third.publish().unwrap();
    assert_eq!(third.remote.reads(), reads);
    assert_eq!((third.read(a), third.stat(a).mode), (b"content".to_vec(), 0o600));
    third.assert_sound();
}

#[test]
fn what_changes_after_a_cut_stays_dirty() {
    let bed = Bed::new();
    let (a, b) = (bed.file(ROOT, "a", b"a"), bed.file(ROOT, "b", b"b"));
    let cut = bed.vfs.cut(VOLUME).unwrap();
    bed.overwrite(a, 0, b"A");
    let synced: Vec<Synced> = [a, b]
        .map(|ino| {
            let (_, stamp) = bed.vfs.open_backing(ino).unwrap().unwrap();
            Synced { ino, content: Box::new(Content::Inline(b"x".to_vec())), stamp: Some(stamp) }
        })
        .into_iter()
        .chain([Synced { ino: ROOT, content: Box::new(Content::Empty), stamp: None }])
        .collect();
    bed.vfs.mark_synced(VOLUME, cut.seq, synced).unwrap();
    bed.vfs.end_cut();
    assert_eq!(bed.vfs.pending(VOLUME).files, 1);
    let next = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.end_cut();
    let root = next.directories.last().unwrap();
    let dirty: Vec<u64> =
        root.entries.as_ref().unwrap().iter().filter(|entry| entry.dirty).map(|entry| entry.ino).collect();
    assert_eq!(dirty, [a]);
}

#[test]
fn content_that_changes_while_it_is_read_stays_dirty() {
    let bed = Bed::new();
    let a = bed.file(ROOT, "a", b"a");
    let cut = bed.vfs.cut(VOLUME).unwrap();
    let (_, stamp) = bed.vfs.open_backing(a).unwrap().unwrap();
    let stamp = Stamp { ctime: Timespec { seconds: 1, nanos: 0 }, ..stamp };
    let synced = vec![
        Synced { ino: a, content: Box::new(Content::Inline(b"a".to_vec())), stamp: Some(stamp) },
        Synced { ino: ROOT, content: Box::new(Content::Empty), stamp: None },
    ];
    bed.vfs.mark_synced(VOLUME, cut.seq, synced).unwrap();
    bed.vfs.end_cut();
    assert!(!bed.vfs.cut(VOLUME).unwrap().is_empty());
    bed.vfs.end_cut();
    assert_eq!(bed.drop_cache(None).unwrap().files, 0);
}

#[test]
fn what_is_left_out_of_a_publication_is_in_the_next_cut() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    bed.file(dir, "unreadable", b"a");
    let cut = bed.vfs.cut(VOLUME).unwrap();
    let synced = Vec::from([dir, ROOT].map(|ino| Synced { ino, content: Box::new(Content::Empty), stamp: None }));
    bed.vfs.mark_synced(VOLUME, cut.seq, synced).unwrap();
    bed.vfs.end_cut();
    let next = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.end_cut();
    assert_eq!(next.directories.iter().map(|dir| dir.row.ino).collect::<Vec<_>>(), [dir, ROOT]);
}

#[test]
fn what_goes_while_it_is_published_does_not_keep_the_rest_from_it() {
    let bed = Bed::new();
    let (gone, stays) = (bed.file(ROOT, "gone", b"1"), bed.file(ROOT, "stays", b"2"));
    let cut = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.unlink(ROOT, b"gone").unwrap();
    bed.vfs.commit().unwrap();
    let one = |ino| {
        let (mut file, stamp) = bed.vfs.open_backing(ino).unwrap().unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        Synced { ino, content: Box::new(Content::Inline(bytes)), stamp: Some(stamp) }
    };
    let synced = vec![one(gone), one(stays)];
    bed.vfs.mark_synced(VOLUME, cut.seq, synced).unwrap();
    bed.vfs.end_cut();
    assert_eq!(bed.vfs.state_xattr(stays).unwrap(), "durable");
    bed.assert_sound();
}

#[test]
fn content_of_a_cut_outlives_its_file() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"in the cut");
    let _cut = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.unlink(ROOT, b"a").unwrap();
    bed.vfs.commit().unwrap();
    assert!(bed.vfs.open_backing(ino).unwrap().is_some());
    bed.vfs.end_cut();
    bed.vfs.commit().unwrap();
    assert!(bed.vfs.open_backing(ino).unwrap().is_none());
}

#[test]
fn a_removed_hard_link_leaves_the_link_table_even_over_a_restart() {
    let bed = Bed::new();
    let a = bed.file(ROOT, "a", b"x");
    bed.vfs.link(a, ROOT, b"b").unwrap();
    bed.publish().unwrap();
    let id = bed.meta.inode(a).unwrap().unwrap().id;
    bed.vfs.unlink(ROOT, b"a").unwrap();
    bed.vfs.unlink(ROOT, b"b").unwrap();
    let bed = bed.restart();
    let cut = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.end_cut();
    assert_eq!(cut.unlinked, [id]);
    bed.publish().unwrap();
    assert_eq!(bed.meta.inode(a).unwrap(), None);
    assert_eq!(bed.publish(), None);
    bed.assert_sound();
}

#[test]
fn dirty_marks_last_over_a_restart() {
    let bed = Bed::new();
    let dir = bed.dir(ROOT, "dir");
    let (a, b) = (bed.file(dir, "a", b"a"), bed.file(dir, "b", b"b"));
    bed.publish().unwrap();
    bed.overwrite(a, 0, b"A");
    let bed = bed.restart();
    let cut = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.end_cut();
    let list: Vec<_> = cut.directories.iter().map(|dir| dir.row.ino).collect();
    assert_eq!(list, [dir, ROOT]);
    let dirty: Vec<_> =
        cut.directories[0].entries.as_ref().unwrap().iter().map(|entry| (entry.ino, entry.dirty)).collect();
    assert_eq!(dirty, [(a, true), (b, false)]);
}

#[test]
fn who_waits_for_a_change_is_woken() {
    let bed = Bed::new();
    let seq = bed.vfs.pending(VOLUME).seq;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| bed.vfs.wait_change(seq, Duration::from_secs(3600)));
        bed.file(ROOT, "a", b"x");
        assert!(waiter.join().unwrap() > seq);
    });
    assert_eq!(bed.vfs.wait_change(u64::MAX - 1, Duration::ZERO), bed.vfs.pending(VOLUME).seq);
}

#[test]
fn idle_inodes_leave_memory_and_come_back() {
    let remote = Arc::new(MemoryRemote::default());
    let (dir, meta) = (tempfile::tempdir().unwrap(), MemoryMeta::strict());
    let config = Config { hot_inodes: 10, ..config(&dir) };
    let vfs = Vfs::open(config, meta.clone(), remote.clone()).unwrap();
    let bed = Bed { device: DeviceTag(1), dir, meta, remote, vfs };
    for d in 0..4 {
        let dir = bed.dir(ROOT, &format!("d{d}"));
        for f in 0..20 {
            bed.file(dir, &format!("f{f}"), format!("{d}{f}").as_bytes());
        }
    }
    bed.vfs.evict();
    assert_eq!(bed.vfs.state.lock().nodes.len(), 85, "what is not published stays");
    bed.publish().unwrap();
    for _ in 0..3 {
        bed.vfs.evict();
    }
    assert!(bed.vfs.state.lock().nodes.len() <= 10);
    let ino = bed.at("d2/f7");
    assert_eq!(bed.read(ino), b"27");
    // Names whose inodes are only partly in memory.
    let dir = bed.at("d2");
    for n in 8..20 {
        let gone = bed.at(&format!("d2/f{n}"));
        bed.vfs.state.lock().forget(gone).unwrap();
    }
    assert_eq!(bed.names(dir).len(), 20);
    for _ in 0..3 {
        bed.vfs.evict();
    }
    bed.overwrite(ino, 0, b"!");
    let cut = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.end_cut();
    assert_eq!(cut.directories.len(), 2);
    bed.assert_sound();
}

#[test]
fn times_from_elsewhere_that_no_file_can_have_are_brought_into_range() {
    let bed = Bed::new();
    bed.file(ROOT, "a", b"content");
    let root = bed.publish().unwrap();
    let Content::Directory(tree) = &root.content else { panic!("a directory") };
    let wild = [
        (Timespec { seconds: i64::MIN, nanos: 0 }, Timespec { seconds: -0x8000_0000, nanos: 0 }),
        (Timespec { seconds: i64::MAX, nanos: u32::MAX }, Timespec { seconds: 0x3_7fff_ffff, nanos: 0 }),
        (Timespec { seconds: -2, nanos: u32::MAX }, Timespec { seconds: -2, nanos: 999_999_999 }),
    ];
    for (from, to) in wild {
        let mut entries = hypernet_core::port::RemoteTree::list(&*bed.remote, tree).unwrap();
        let Target::Inode(inode) = &mut entries[0].target else { panic!("an inode") };
        (inode.mtime, inode.ctime) = (from, from);
        let content = Content::Directory(bed.remote.put_directory(entries).unwrap());
        let other = bed.recovered(Inode { content, ..root.clone() });
        let ino = other.at("a");
        assert_eq!((other.stat(ino).mtime, other.stat(ino).ctime), (to, to));
        // Its backing file takes that time.
        assert_eq!(other.read(ino), b"content");
        assert_eq!(other.vfs.backing.stat(ino).unwrap().unwrap().mtime, to);
        other.assert_sound();
    }
}

#[test]
fn a_root_is_set_only_on_an_empty_tree() {
    let bed = Bed::new();
    bed.file(ROOT, "a", b"x");
    let root = bed.publish().unwrap();
    assert_eq!(bed.vfs.set_root(VOLUME, root.clone()), Err(VfsError::NotEmpty));
    let other = bed.recovered(root.clone());
    assert_eq!(other.vfs.set_root(VOLUME, root), Err(VfsError::NotEmpty));
}

#[test]
fn a_damaged_listing_is_refused() {
    let bed = Bed::new();
    bed.file(ROOT, "a", b"x");
    bed.file(ROOT, "b", b"y");
    let root = bed.publish().unwrap();
    let Content::Directory(tree) = &root.content else { panic!("a directory") };
    let mut entries = bed.remote.list(tree).unwrap();
    entries.reverse();
    let content = Content::Directory(bed.remote.put_directory(entries).unwrap());
    let other = bed.recovered(Inode { content, ..root });
    assert!(matches!(other.vfs.lookup(ROOT, b"a"), Err(VfsError::Damaged(_))));
}

/// What comes from the mesh is more than was asked for: all of a file can be here while somebody still fetches a part.
#[test]
fn what_comes_late_takes_nothing_back() {
    const END: u64 = (5 << 20) + MemoryRemote::EXTENT;
    const LATE: u64 = END - MemoryRemote::EXTENT / 2;
    for writes in [false, true] {
        let bed = Bed::new();
        let mut content = big(END as usize);
        let ino = bed.file(ROOT, "a", &content);
        bed.publish().unwrap();
        bed.drop_cache(None).unwrap();
        bed.vfs.ensure(ino, 0..5 << 20).unwrap();
        bed.remote.hold_from(Some(LATE));
        std::thread::scope(|scope| {
            let late = scope.spawn(|| bed.vfs.ensure(ino, LATE..END));
            bed.remote.await_waiting(1);
            bed.vfs.ensure(ino, END - MemoryRemote::EXTENT..LATE).unwrap();
            assert!(!bed.vfs.fetcher.is_partial(ino), "it was not all here before the last fetch had ended");
            if writes {
                bed.overwrite(ino, LATE + 100, b"written since");
                content[LATE as usize + 100..][..13].copy_from_slice(b"written since");
            }
            bed.remote.hold_from(None);
            late.join().unwrap().unwrap();
        });
        assert!(bed.try_read(ino).unwrap() == content, "what was written has become what was there before");
        assert_eq!(bed.publish().is_some(), writes, "reading makes nothing dirty");
        bed.assert_sound();
    }
}
