//! Commits, crashes and what is found afterwards.

use std::os::unix::fs::FileExt;

use super::*;

#[test]
fn an_fsynced_file_survives_the_loss_of_power_and_what_came_before_it_does_too() {
    let bed = Bed::new();
    bed.file(ROOT, "before", b"1");
    let ino = bed.file(ROOT, "synced", b"content");
    bed.vfs.fsync(ino, false).unwrap();
    bed.file(ROOT, "after", b"2");
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    assert_eq!(bed.names(ROOT), ["before", "synced"]);
    assert_eq!(bed.read(bed.at("synced")), b"content");
    bed.assert_sound();
}

#[test]
fn an_inode_number_is_never_given_out_twice() {
    let bed = Bed::new();
    let lost = bed.file(ROOT, "lost", b"");
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    assert!(bed.file(ROOT, "next", b"") > lost);
}

/// Writes to a durable file, and syncs it, three times; `tell` is called in between. It stays open.
#[track_caller]
fn synced_without_a_commit(bed: &Bed, data_only: bool, tell: impl Fn(u64, u64)) -> u64 {
    let ino = bed.file(ROOT, "db", b"content");
    bed.vfs.fsync(ino, false).unwrap();
    let commits = bed.meta.commits();
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    for n in 0..3 {
        bed.vfs.write(ino, n * 7, b"content", false).unwrap();
        tell(ino, n);
        bed.vfs.fsync(ino, data_only).unwrap();
    }
    assert_eq!(bed.meta.commits(), commits, "the backing file is all there is to sync");
    ino
}

#[test]
fn an_fsync_of_what_is_durable_commits_nothing() {
    let bed = Bed::new();
    let ino = synced_without_a_commit(&bed, true, |_, _| {});
    let commits = bed.meta.commits();
    bed.vfs.release(ino, RW).unwrap();
    bed.vfs.setattr(ME, ino, SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
    bed.vfs.fsync(ino, true).unwrap();
    assert_eq!(bed.meta.commits(), commits + 1);
}

/// What the kernel that collects writes tells before each fsync.
fn times_of_a_write(seconds: i64) -> SetAttr {
    let time = Timespec { seconds, nanos: 7 };
    SetAttr { mtime: Some(SetTime::At(time)), ctime: Some(time), ..SetAttr::default() }
}

#[test]
fn the_times_of_a_write_cost_no_commit_and_survive_the_loss_of_power() {
    let bed = Bed::new();
    let ino = synced_without_a_commit(&bed, false, |ino, n| {
        bed.vfs.setattr(ME, ino, times_of_a_write(2_000_000_000 + n as i64)).unwrap();
    });
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    let attr = bed.stat(ino);
    assert_eq!((attr.size, attr.mtime), (21, Timespec { seconds: 2_000_000_002, nanos: 7 }));
    assert!(bed.meta.inode(ino).unwrap().unwrap().dirty);
}

#[test]
fn times_that_nobody_wrote_are_committed_by_an_fsync() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"content");
    bed.publish().unwrap();
    bed.vfs.setattr(ME, ino, times_of_a_write(1_000_000)).unwrap();
    bed.vfs.fsync(ino, false).unwrap();
    let row = bed.meta.after_power_loss().inode(ino).unwrap().unwrap();
    assert_eq!((row.dirty, row.mtime.seconds), (true, 1_000_000));
}

#[test]
fn after_a_crash_the_backing_file_knows_the_size() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "log", b"start");
    bed.vfs.fsync(ino, false).unwrap();
    bed.overwrite(ino, 5, b" and more");
    let mtime = bed.stat(ino).mtime;
    let meta = bed.meta.after_power_loss();
    assert_eq!(meta.inode(ino).unwrap().unwrap().size, 5);
    let bed = bed.reopen(meta);
    assert_eq!((bed.stat(ino).size, bed.stat(ino).mtime), (14, mtime));
    assert_eq!(bed.read(ino), b"start and more");
}

/// A descriptor of its own stands for the handle of a program that was not killed with the agent.
#[test]
fn what_survives_an_agent_counts_as_a_writer_of_the_next() {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    let bed = Bed::new();
    let (left, held) = (bed.file(ROOT, "left", b"published"), bed.file(ROOT, "held", b"published"));
    bed.publish().unwrap();
    bed.vfs.open_file(ME, left, RW, true).unwrap();
    let passed = bed.vfs.open_file(ME, held, RW, true).unwrap().passthrough.unwrap();
    let path = format!("/proc/self/fd/{}", passed.as_raw_fd());
    let survivor = std::fs::File::options().read(true).write(true).open(path).unwrap();
    drop(passed);
    let meta = bed.meta.after_kill();
    let bed = bed.reopen(meta);
    for text in ["written on", "and once more"] {
        survivor.write_all_at(text.as_bytes(), 0).unwrap();
        assert_eq!(bed.stat(held).size, text.len() as u64);
        assert!(bed.publish().is_some());
        bed.drop_cache(None).unwrap();
        assert_eq!(bed.read(held), text.as_bytes());
        assert_eq!(bed.remote.reads(), 0, "it is held");
    }
    drop(survivor);
    bed.publish();
    bed.drop_cache(None).unwrap();
    assert_eq!((bed.read(left), bed.read(held)), (b"published".to_vec(), b"and once more".to_vec()));
    assert_eq!(bed.remote.reads(), 2, "nobody holds them");
    bed.assert_sound();
}

/// Two writes within one tick of its clock have one time, which it tells once.
#[test]
fn times_are_those_of_the_kernel_where_it_keeps_them_also_after_a_crash() {
    let bed = Bed::new().mounted_by(true);
    let ino = bed.file(ROOT, "a", b"one");
    let told = Timespec { seconds: 1_000_000_000, nanos: 4_000_000 };
    let set = SetAttr { mtime: Some(SetTime::At(told)), ctime: Some(told), ..SetAttr::default() };
    bed.vfs.setattr(ME, ino, set).unwrap();
    bed.overwrite(ino, 3, b" and two");
    assert_eq!((bed.stat(ino).mtime, bed.stat(ino).size), (told, 11));
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    bed.vfs.write(ino, 0, b"ONE", false).unwrap();
    assert_eq!(bed.stat(ino).mtime, told);
    bed.vfs.release(ino, RW).unwrap();
    bed.vfs.fsync(ino, false).unwrap();
    bed.vfs.commit().unwrap();
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    assert_eq!((bed.stat(ino).mtime, bed.read(ino)), (told, b"ONE and two".to_vec()));
}

#[test]
fn an_explicit_time_is_not_taken_for_a_write_after_a_crash() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"x");
    let past = Timespec { seconds: 1_000_000, nanos: 5 };
    bed.vfs.setattr(ME, ino, SetAttr { mtime: Some(SetTime::At(past)), ..SetAttr::default() }).unwrap();
    bed.vfs.fsync(ino, false).unwrap();
    let meta = bed.meta.after_kill();
    let bed = bed.reopen(meta);
    assert_eq!(bed.stat(ino).mtime, past);
}

#[test]
fn opening_a_clean_file_for_writing_marks_it_before_the_answer() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"clean");
    bed.publish().unwrap();
    assert!(!bed.meta.inode(ino).unwrap().unwrap().dirty);
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    let row = bed.meta.inode(ino).unwrap().unwrap();
    assert!(row.dirty && row.local == Local::Complete);
    bed.vfs.release(ino, RW).unwrap();
    bed.publish();
    // A file that was written to a moment ago is taken for dirty at its release, to be on the safe side.
    while file::is_racy(bed.vfs.backing.stat(ino).unwrap().unwrap().ctime) {
        std::thread::yield_now();
    }
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    bed.vfs.release(ino, RW).unwrap();
    bed.vfs.commit().unwrap();
    let row = bed.meta.inode(ino).unwrap().unwrap();
    assert!(!row.dirty && matches!(row.local, Local::Clean { .. }), "nothing was written: it is clean again");
    assert_eq!(bed.publish(), None);
}

#[test]
fn what_was_written_unseen_is_found_after_an_unclean_stop() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"published");
    let untouched = bed.file(ROOT, "b", b"published too");
    bed.publish().unwrap();
    let file = bed.vfs.backing.get(ino).unwrap().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&*file, b"scribbled", 0).unwrap();
    drop(file);
    let meta = bed.meta.after_kill();
    let bed = bed.reopen(meta);
    assert_eq!(bed.vfs.pending(VOLUME).files, 1);
    let cut = bed.vfs.cut(VOLUME).unwrap();
    bed.vfs.end_cut();
    let entries = cut.directories[0].entries.as_ref().unwrap();
    let dirty: Vec<u64> = entries.iter().filter(|entry| entry.dirty).map(|entry| entry.ino).collect();
    assert_eq!(dirty, [ino]);
    assert!(bed.drop_cache(None).unwrap().files == 1, "only the clean one may go");
    assert_eq!(bed.read(ino), b"scribbled");
    assert_eq!(bed.read(untouched), b"published too");
}

#[test]
fn after_a_clean_stop_nothing_is_looked_for() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"published");
    bed.publish().unwrap();
    assert!(!bed.dir.path().join("clean-shutdown").exists());
    bed.vfs.close(true).unwrap();
    assert!(bed.dir.path().join("clean-shutdown").exists());
    let meta = bed.meta.clone();
    let bed = bed.reopen(meta);
    assert!(!bed.dir.path().join("clean-shutdown").exists(), "from now on a stop is unclean");
    assert_eq!(bed.vfs.pending(VOLUME).files, 0);
    assert_eq!(bed.read(ino), b"published");
}

#[test]
fn orphans_go_at_start() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"x");
    bed.vfs.open_file(ME, ino, RW, false).unwrap();
    bed.vfs.unlink(ROOT, b"a").unwrap();
    bed.vfs.commit().unwrap();
    assert_eq!(bed.meta.inode(ino).unwrap().unwrap().nlink, 0);
    std::fs::write(bed.dir.path().join("data/00/fff"), b"belongs to nobody").unwrap();
    let meta = bed.meta.after_kill();
    let bed = bed.reopen(meta);
    assert_eq!(bed.meta.inode(ino).unwrap(), None);
    assert_eq!(bed.vfs.backing.all().unwrap(), Vec::<u64>::new());
    bed.assert_sound();
}

#[test]
fn content_outlives_a_removal_that_is_not_durable_yet() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"keep me");
    bed.vfs.fsync(ino, false).unwrap();
    bed.vfs.unlink(ROOT, b"a").unwrap();
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    assert_eq!(bed.read(bed.at("a")), b"keep me");
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_whole() {
    let bed = Bed::new();
    let old = bed.file(ROOT, "config", b"old");
    bed.vfs.fsync(old, false).unwrap();
    bed.file(ROOT, "config.new", b"new and longer");
    bed.vfs.rename(ROOT, b"config.new", ROOT, b"config", RenameFlags::Replace).unwrap();
    let before = bed.meta.after_power_loss();
    assert_eq!(before.children(ROOT).unwrap().len(), 1);
    bed.vfs.fsyncdir(ROOT).unwrap();
    let after = bed.meta.after_power_loss();
    let bed = bed.reopen(after);
    assert_eq!(bed.read(bed.at("config")), b"new and longer");
    bed.assert_sound();
}

#[test]
fn a_commit_that_fails_is_reported_kept_and_tried_again() {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", b"x");
    bed.meta.fail(Some(PortError::DiskFull("no room".into())));
    assert_eq!(bed.vfs.fsync(ino, false), Err(VfsError::NoSpace));
    bed.file(ROOT, "b", b"y");
    assert_eq!(bed.vfs.fsync(ino, false), Err(VfsError::NoSpace));
    assert_eq!(bed.read(ino), b"x");
    bed.meta.fail(None);
    bed.vfs.fsync(ino, false).unwrap();
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    assert_eq!(bed.names(ROOT), ["a", "b"]);
    bed.assert_sound();
}

#[test]
fn while_nothing_can_be_committed_no_more_is_taken_in_than_may_wait() {
    const WAITING: usize = 50;
    let remote = Arc::new(MemoryRemote::default());
    let (dir, meta) = (tempfile::tempdir().unwrap(), MemoryMeta::strict());
    let config = Config { pending_ops: WAITING, ..config(&dir) };
    let vfs = Vfs::open(config, meta.clone(), remote.clone()).unwrap();
    let bed = Bed { device: DeviceTag(1), dir, meta, remote, vfs };
    let log = bed.file(ROOT, "log", b"");
    bed.vfs.open_file(ME, log, RW, false).unwrap();
    bed.meta.fail(Some(PortError::DiskFull("no room".into())));
    let mut made = Vec::new();
    for n in 0..10 * WAITING {
        let name = format!("d{n:04}");
        match bed.vfs.mkdir(ME, ROOT, name.as_bytes(), 0o755) {
            Ok(_) => made.push(name),
            Err(error) => assert_eq!(error, VfsError::NoSpace),
        }
        // As the background does.
        assert_eq!(bed.vfs.commit(), Err(VfsError::NoSpace));
        // A write changes an inode that waits already, and nothing more.
        bed.vfs.write(log, n as u64, b"x", false).unwrap();
    }
    assert!((1..WAITING).contains(&made.len()), "{} were made", made.len());
    // One change may bring a few.
    assert!(bed.vfs.state.lock().waiting() < WAITING + 10, "{}", bed.vfs.state.lock().waiting());
    assert_eq!(bed.vfs.unlink(ROOT, b"log"), Err(VfsError::NoSpace));
    bed.meta.fail(None);
    bed.dir(ROOT, "more");
    made.extend(["log".to_owned(), "more".to_owned()]);
    bed.vfs.release(log, RW).unwrap();
    bed.vfs.fsyncdir(ROOT).unwrap();
    let meta = bed.meta.after_power_loss();
    let bed = bed.reopen(meta);
    assert_eq!(bed.names(ROOT), made);
    assert_eq!(bed.stat(log).size, 10 * WAITING as u64);
    bed.assert_sound();
}

#[test]
fn the_background_commit_comes_by_itself() {
    let (dir, meta) = (tempfile::tempdir().unwrap(), MemoryMeta::strict());
    let config = Config { commit_interval: Duration::ZERO, ..Config::new(dir.path(), VOLUME, DeviceTag(1)) };
    let vfs = Vfs::open(config, meta.clone(), Arc::new(MemoryRemote::default())).unwrap();
    vfs.mkdir(ME, ROOT, b"d", 0o755).unwrap();
    let mut state = vfs.state.lock();
    let batch = state.batch.min(state.committed + 1);
    while state.committed < batch {
        vfs.committed.wait(&mut state);
    }
    drop(state);
    assert_eq!(meta.after_power_loss().children(ROOT).unwrap().len(), 1);
}

#[test]
fn backing_files_outlive_the_loss_of_all_metadata() {
    for in_order in [false, true] {
        let bed = Bed::new();
        let ino = bed.file(ROOT, "only", b"here");
        bed.vfs.fsync(ino, false).unwrap();
        bed.vfs.close(in_order).unwrap();
        let Bed { dir, meta, remote, vfs, .. } = bed;
        drop(vfs);
        for _ in 0..2 {
            let empty = MemoryMeta::strict();
            let error = Vfs::open(config(&dir), empty.clone(), remote.clone()).map(|_| ()).unwrap_err();
            assert_eq!(error, VfsError::Rootless(ino));
            assert_eq!(empty.commits(), 0);
        }
        let backing = Vfs::any_backing(dir.path()).unwrap().unwrap();
        assert_eq!(std::fs::read(backing).unwrap(), b"here");
        let vfs = Vfs::open(config(&dir), meta.clone(), remote.clone()).unwrap();
        let bed = Bed { device: DeviceTag(1), dir, meta, remote, vfs };
        assert_eq!(bed.read(bed.at("only")), b"here");
        bed.assert_sound();
    }
}

#[test]
fn fsck_finds_and_mends() {
    let bed = Bed::new();
    let (ino, lost) = (bed.file(ROOT, "a", b"x"), bed.file(ROOT, "b", b"published"));
    bed.publish().unwrap();
    bed.meta.damage(ino, |row| row.nlink = 7);
    bed.vfs.backing.remove(lost).unwrap();
    std::fs::write(bed.dir.path().join("data/00/ffe"), b"nobody's").unwrap();
    let found = bed.vfs.fsck(false).unwrap();
    assert_eq!((found.problems.len(), found.mended), (3, 0), "{found:?}");
    // What cannot be mended is not counted, whatever its line ends with.
    bed.meta.damage(ino, |row| row.parent = 1 << 20);
    let mended = bed.vfs.fsck(true).unwrap();
    assert_eq!((mended.problems.len(), mended.mended), (4, 3), "{mended:?}");
    bed.meta.damage(ino, |row| row.parent = ROOT);
    bed.assert_sound();
    assert_eq!(bed.read(lost), b"published", "it came from the mesh");
}

#[test]
fn on_a_full_disk_what_can_be_evicted_is() {
    let bed = Bed::new();
    let clean = bed.file(ROOT, "clean", b"durable");
    bed.publish().unwrap();
    bed.meta.fail(Some(PortError::DiskFull("no room".into())));
    let new = bed.file(ROOT, "new", b"");
    assert_eq!(bed.vfs.commit(), Err(VfsError::NoSpace));
    assert_eq!(bed.drop_cache(None).unwrap().files, 1);
    assert_eq!(bed.vfs.backing.stat(clean).unwrap(), None);
    // What waited went along.
    assert!(bed.meta.inode(new).unwrap().is_some());
    bed.meta.fail(None);
    assert_eq!(bed.read(clean), b"durable");
    bed.assert_sound();
}

/// A file that the mesh has, and all of that on stable storage.
fn published(content: &[u8], evicted: bool) -> (Bed, u64) {
    let bed = Bed::new();
    let ino = bed.file(ROOT, "a", content);
    bed.publish().unwrap();
    if evicted {
        bed.drop_cache(None).unwrap();
    }
    bed.vfs.commit().unwrap();
    (bed, ino)
}

/// By msync, or by a write with RWF_DSYNC: nobody hears of it.
#[test]
fn what_passed_by_and_was_synced_is_found_after_the_loss_of_power() {
    for (evicted, before) in [(false, false), (false, true), (true, false), (true, true)] {
        let (bed, ino) = published(b"published", evicted);
        if before {
            // Then its mark is one that outlives no loss of power.
            bed.vfs.open_file(ME, ino, RW, false).unwrap();
            bed.vfs.write(ino, 0, b"P", false).unwrap();
            bed.vfs.release(ino, RW).unwrap();
        }
        let passed = bed.vfs.open_file(ME, ino, RW, true).unwrap().passthrough.unwrap();
        passed.write_all_at(b"scribbled", 0).unwrap();
        passed.sync_data().unwrap();
        drop(passed);
        let meta = bed.meta.after_power_loss();
        assert!(meta.inode(ino).unwrap().unwrap().dirty, "evicted {evicted}, written to before {before}");
        let bed = bed.reopen(meta);
        assert_eq!(bed.read(ino), b"scribbled");
        assert_eq!(bed.vfs.pending(VOLUME).files, 1);
        bed.assert_sound();
    }
}

#[test]
fn what_follows_the_truncation_of_a_file_that_is_not_here_survives_a_kill() {
    let size = (5 << 20) + 1;
    for (opens, partly, written) in [
        (true, false, &b"new"[..]),
        (true, true, b"new"),
        (false, false, b"new"),
        (false, true, b"new"),
        (true, true, b""),
        (false, false, b""),
    ] {
        let (bed, ino) = published(&super::remote::big(size), true);
        if partly {
            bed.vfs.ensure(ino, 1 << 20..2 << 20).unwrap();
        }
        let cut = OpenFlags(libc::O_RDWR | libc::O_TRUNC);
        if !opens {
            bed.vfs.truncate(ME, ino, 0).unwrap();
        }
        let opened = bed.vfs.open_file(ME, ino, if opens { cut } else { RW }, true).unwrap();
        if let Some(file) = opened.passthrough {
            file.write_all_at(written, 0).unwrap();
        }
        let meta = bed.meta.after_kill();
        let bed = bed.reopen(meta);
        assert!(bed.read(ino) == written, "opens {opens}, partly {partly}: {} bytes", bed.stat(ino).size);
        assert_eq!(bed.vfs.pending(VOLUME).files, 1);
        bed.assert_sound();
    }
}

/// Two open it at once, and the first is still about to mark it.
#[test]
fn nobody_has_a_file_before_its_mark_is_in_the_store() {
    for (passthrough, evicted, flags) in [
        (true, true, libc::O_RDWR),
        (true, false, libc::O_RDWR),
        (false, true, libc::O_RDWR),
        (false, false, libc::O_RDWR),
        (true, true, libc::O_RDWR | libc::O_TRUNC),
    ] {
        let (bed, ino) = published(b"published", evicted);
        let (vfs, meta) = (bed.vfs.clone(), bed.meta.clone());
        bed.meta.before_look(move || {
            vfs.open_file(ME, ino, RW, passthrough).unwrap();
            let left = if passthrough { meta.after_power_loss() } else { meta.after_kill() };
            let row = left.inode(ino).unwrap().unwrap();
            assert!(row.dirty && row.local == Local::Complete, "passthrough {passthrough}, evicted {evicted}");
        });
        bed.vfs.open_file(ME, ino, OpenFlags(flags), passthrough).unwrap();
        bed.vfs.release(ino, RW).unwrap();
        bed.vfs.release(ino, RW).unwrap();
        bed.assert_sound();
    }
}

#[test]
fn a_truncation_that_fails_takes_nothing_away() {
    for (opens, partly) in [(true, false), (true, true), (false, false), (false, true)] {
        let content = super::remote::big((5 << 20) + 1);
        let (bed, ino) = published(&content, true);
        if partly {
            bed.vfs.ensure(ino, 1 << 20..2 << 20).unwrap();
        }
        bed.meta.fail(Some(PortError::DiskFull("no room".into())));
        let failed = match opens {
            true => bed.vfs.open_file(ME, ino, OpenFlags(libc::O_RDWR | libc::O_TRUNC), true).map(drop),
            false => bed.vfs.truncate(ME, ino, 0),
        };
        assert_eq!(failed, Err(VfsError::NoSpace));
        bed.meta.fail(None);
        // Some of it is fetched once more, and then there is an end.
        bed.vfs.ensure(ino, 3 << 20..4 << 20).unwrap();
        let meta = bed.meta.after_kill();
        let bed = bed.reopen(meta);
        assert!(bed.read(ino) == content, "opens {opens}, partly {partly}: {} bytes", bed.stat(ino).size);
        bed.publish();
        let bed = bed.restart();
        assert!(bed.read(ino) == content);
        // And it can be done later.
        bed.vfs.truncate(ME, ino, 0).unwrap();
        let meta = bed.meta.after_kill();
        let bed = bed.reopen(meta);
        assert!(bed.read(ino).is_empty());
        bed.assert_sound();
    }
}

/// Its directory has been listed from the mesh a moment ago.
#[test]
fn what_is_written_to_a_file_whose_record_is_on_its_way_to_the_store_survives_a_kill() {
    for passthrough in [true, false] {
        let bed = Bed::new();
        let dir = bed.dir(ROOT, "d");
        bed.file(dir, "a", &super::remote::big(100_000));
        let root = bed.publish().unwrap();
        let other = bed.recovered(root);
        let ino = other.at("d/a");
        let opened = other.vfs.open_file(ME, ino, RW, passthrough).unwrap();
        match opened.passthrough {
            Some(file) => file.write_all_at(b"written since", 0).unwrap(),
            None => other.vfs.write(ino, 0, b"written since", false).unwrap(),
        }
        let meta = if passthrough { other.meta.after_power_loss() } else { other.meta.after_kill() };
        let other = other.reopen(meta);
        assert_eq!(other.read(other.at("d/a"))[..13], *b"written since");
        assert_eq!(other.vfs.pending(VOLUME).files, 1);
        other.assert_sound();
    }
}
