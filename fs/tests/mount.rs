//! Real mounts, in both profiles.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hypernet_core::id::DeviceTag;
use hypernet_core::limits::FS_WORKERS_MAX;
use hypernet_core::port::{Local, MetaStore, PortError};
use hypernet_fs::fuse::{MountError, MountHandle, MountOptions, Passthrough, Profile, clear_stale, mount};
use hypernet_fs::testing::{MemoryMeta, MemoryRemote, VOLUME, publish};
use hypernet_fs::{Config, Vfs};
use hypernet_kit::machine::{Need, has, has_passthrough};
use tempfile::TempDir;

#[path = "mount/advanced.rs"]
mod advanced;
#[path = "mount/limits.rs"]
mod limits;
#[path = "mount/replaced.rs"]
mod replaced;
#[path = "mount/rights.rs"]
mod rights;

/// Failures are not remembered: what is back is back at once.
fn config(state: &TempDir) -> Config {
    Config { failed_for: Duration::ZERO, ..Config::new(state.path(), VOLUME, DeviceTag(1)) }
}

/// A mount that is taken down however the test ends.
struct Bed {
    mounted: Option<MountHandle>,
    vfs: Arc<Vfs>,
    remote: Arc<MemoryRemote>,
    meta: Arc<MemoryMeta>,
    state: TempDir,
    point: TempDir,
}

impl Bed {
    fn path(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    /// Publishes everything, and evicts this many files. The kernel reports a close when it likes, and what is open
    /// stays.
    fn evict(&self, files: u64) {
        let mut dropped = 0;
        while dropped < files {
            publish(&self.vfs, &self.remote).unwrap();
            dropped += self.vfs.drop_cache(None, &mut |all| vec![true; all.len()], &mut |_, _| {}).unwrap().files;
            std::thread::yield_now();
        }
        assert_eq!(dropped, files);
    }

    fn remount(mut self) -> Self {
        let mounted = self.mounted.take().unwrap();
        mounted.unmount().unwrap();
        let profile = mounted.profile();
        drop(mounted);
        self.vfs.close(true).unwrap();
        let config = config(&self.state);
        self.vfs = Vfs::open(config, self.meta.clone(), self.remote.clone()).unwrap();
        self.mounted = Some(mount(self.vfs.clone(), self.point.path(), options(profile)).unwrap());
        self
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The handle detaches on its own; the directories must outlive it.
        drop(self.mounted.take());
    }
}

fn options(profile: Profile) -> MountOptions {
    let passthrough = match profile {
        Profile::Passthrough => Passthrough::Auto,
        Profile::Writeback => Passthrough::Off,
    };
    MountOptions { passthrough, ..MountOptions::default() }
}

/// A mount in this profile; `None` where that is not possible.
fn bed(profile: Profile) -> Option<Bed> {
    if !has(&[Need::Fuse]) || profile == Profile::Passthrough && !has_passthrough() {
        return None;
    }
    let (state, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (remote, meta) = (Arc::new(MemoryRemote::default()), MemoryMeta::strict());
    let vfs = Vfs::open(config(&state), meta.clone(), remote.clone()).unwrap();
    let mounted = mount(vfs.clone(), point.path(), options(profile)).unwrap();
    assert_eq!(mounted.profile(), profile);
    Some(Bed { mounted: Some(mounted), vfs, remote, meta, state, point })
}

fn both(test: impl Fn(&Bed)) {
    for profile in [Profile::Passthrough, Profile::Writeback] {
        if let Some(bed) = bed(profile) {
            test(&bed);
            assert_eq!(bed.vfs.fsck(false).unwrap().problems, Vec::<String>::new());
        }
    }
}

#[test]
fn files_are_made_read_and_removed() {
    both(|bed| {
        let file = bed.path("a");
        fs::write(&file, b"hello").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"hello");
        assert_eq!(fs::metadata(&file).unwrap().len(), 5);
        fs::create_dir_all(bed.path("d/e/f")).unwrap();
        fs::rename(&file, bed.path("d/e/b")).unwrap();
        assert_eq!(fs::read(bed.path("d/e/b")).unwrap(), b"hello");
        assert_eq!(fs::metadata(bed.path("d")).unwrap().nlink(), 3);
        let names: Vec<_> = fs::read_dir(bed.path("d/e")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2);
        symlink("e/b", bed.path("d/link")).unwrap();
        assert_eq!(fs::read(bed.path("d/link")).unwrap(), b"hello");
        assert_eq!(fs::remove_dir(bed.path("d")).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
        fs::remove_dir_all(bed.path("d")).unwrap();
        assert!(!bed.path("d").exists());
        fs::write(&file, b"again").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"again");
    });
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_listing_that_the_kernel_keeps_is_never_an_old_one() {
    both(|bed| {
        let (dir, other) = (bed.path("dir"), bed.path("other"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&other).unwrap();
        let many: Vec<String> = (0..500).map(|n| format!("{n:03}")).collect();
        many.iter().for_each(|name| fs::write(dir.join(name), name).unwrap());
        for _ in 0..2 {
            assert_eq!(names(&dir), many);
        }
        fs::remove_file(dir.join("250")).unwrap();
        assert_eq!(names(&dir), [&many[..250], &many[251..]].concat());
        fs::rename(dir.join("251"), other.join("moved")).unwrap();
        assert_eq!((names(&dir).len(), names(&other)), (498, vec!["moved".to_owned()]));
        fs::hard_link(other.join("moved"), dir.join("linked")).unwrap();
        symlink("linked", dir.join("symlink")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        assert_eq!(names(&dir)[498..], ["linked", "sub", "symlink"]);
        // While it is listed, entries come and go: those that stay are listed once.
        let mut listing = fs::read_dir(&dir).unwrap();
        let first = listing.next().unwrap().unwrap().file_name();
        fs::remove_file(dir.join("300")).unwrap();
        fs::write(dir.join("new"), "").unwrap();
        let mut rest: Vec<_> = listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        rest.push(first.into_string().unwrap());
        rest.retain(|name| name != "300" && name != "new");
        rest.sort_unstable();
        let stay: Vec<String> = names(&dir).into_iter().filter(|name| name != "new").collect();
        assert_eq!(rest, stay);
        assert_eq!(stay.len(), 500);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(names(&bed.path("")), ["other"]);
    });
}

/// The next names of an open directory, at most `bytes` of them as the kernel gives them.
fn some_names(dir: &File, bytes: usize) -> Vec<String> {
    let mut room = vec![std::mem::MaybeUninit::uninit(); bytes];
    let mut some = rustix::fs::RawDir::new(dir, &mut room);
    let mut names = Vec::new();
    while let Some(entry) = some.next() {
        names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        if some.is_buffer_empty() {
            break;
        }
    }
    names.retain(|name| name != "." && name != "..");
    names
}

#[test]
fn a_listing_goes_on_where_it_was_though_the_kernel_let_go_of_what_it_kept() {
    both(|bed| {
        let dir = bed.path("dir");
        fs::create_dir(&dir).unwrap();
        let many: Vec<String> = (0..3_000).map(|n| format!("a name of some length, number {n:04}")).collect();
        many.iter().for_each(|name| fs::write(dir.join(name), "").unwrap());
        assert_eq!(names(&dir), many);
        // As `rm -r` does: some entries are read, and removed before the next are read.
        let open = File::open(&dir).unwrap();
        let mut left = many.len();
        loop {
            let some = some_names(&open, 16 << 10);
            if some.is_empty() {
                break;
            }
            some.iter().for_each(|name| fs::remove_file(dir.join(name)).unwrap());
            left -= some.len();
            // Someone else begins to list it, which makes the kernel drop what it has.
            assert_eq!(names(&dir).len(), left);
        }
        assert_eq!(left, 0);
        fs::remove_dir(&dir).unwrap();
    });
}

#[test]
fn the_size_is_right_at_once_and_between_writes() {
    both(|bed| {
        let path = bed.path("log");
        let mut log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        for n in 1..=50u64 {
            log.write_all(b"0123456789").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), 10 * n);
        }
        let other = OpenOptions::new().append(true).open(&path).unwrap();
        (&other).write_all(b"x").unwrap();
        log.write_all(b"y").unwrap();
        assert_eq!(fs::read(&path).unwrap()[500..], *b"xy");
        log.set_len(3).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"012");
        log.set_len(5).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"012\0\0");
        File::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    });
}

#[test]
fn times_modes_and_owners_last_over_writes_and_remounts() {
    for profile in [Profile::Passthrough, Profile::Writeback] {
        let Some(bed) = bed(profile) else { continue };
        let path = bed.path("a");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"content").unwrap();
        let past = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
        file.set_modified(past).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        drop(file);
        let shown = fs::metadata(&path).unwrap();
        assert_eq!((shown.modified().unwrap(), shown.mode() & 0o7777), (past, 0o640), "{profile:?}");
        let ino = shown.ino();
        let bed = bed.remount();
        let shown = fs::metadata(&path).unwrap();
        assert_eq!((shown.modified().unwrap(), shown.mode() & 0o7777, shown.len()), (past, 0o640, 7), "{profile:?}");
        assert_eq!(shown.ino(), ino, "inode numbers last");
        fs::write(&path, b"x").unwrap();
        assert!(fs::metadata(&path).unwrap().modified().unwrap() > past);
        drop(bed);
    }
}

/// The clock of the kernel has ticks, and more than one write fits into one.
#[test]
fn times_are_the_same_after_a_remount_however_a_file_was_written() {
    for bed in [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed) {
        for n in 0..300 {
            let path = bed.path(&n.to_string());
            fs::write(&path, b"one").unwrap();
            if n % 3 > 0 {
                OpenOptions::new().append(true).open(&path).unwrap().write_all(b" and two").unwrap();
            }
            if n % 3 > 1 {
                File::create(&path).unwrap().write_all(b"three").unwrap();
            }
        }
        let times = |bed: &Bed| -> Vec<(i64, i64, u64)> {
            let shown = (0..300).map(|n| fs::metadata(bed.path(&n.to_string())).unwrap());
            shown.map(|shown| (shown.mtime(), shown.mtime_nsec(), shown.len())).collect()
        };
        let before = times(&bed);
        let bed = bed.remount();
        assert_eq!(times(&bed), before);
    }
}

#[test]
fn times_before_1970_and_out_of_range_are_what_a_local_disk_makes_of_them() {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let (first, last) = (-0x8000_0000, 0x3_7fff_ffff);
    let cases = [
        (time(-1, 0), time(-1, 0)),
        (time(-1, 1), time(-1, 1)),
        (time(-2, 500_000_000), time(-2, 500_000_000)),
        (time(-1, 999_999_999), time(-1, 999_999_999)),
        (time(first, 0), time(first, 0)),
        (time(first - 1, 7), time(first, 0)),
        (time(last - 1, 7), time(last - 1, 7)),
        (time(last + 1, 7), time(last, 0)),
        (time(i64::MAX, 999_999_999), time(last, 0)),
        (time(i64::MIN + 1, 7), time(first, 0)),
        (time(i64::MIN, 0), time(first, 0)),
        (time(i64::MIN, 7), time(first, 0)),
    ];
    for profile in [Profile::Passthrough, Profile::Writeback] {
        let Some(bed) = bed(profile) else { continue };
        let all = [("file", false), ("dir", true)];
        for (n, (set, _)) in cases.iter().enumerate() {
            for (kind, is_dir) in all {
                let path = bed.path(&format!("{kind}{n}"));
                if is_dir {
                    fs::create_dir(&path).unwrap()
                } else {
                    fs::write(&path, b"content").unwrap()
                };
                let times = Timestamps { last_access: *set, last_modification: *set };
                utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
            }
        }
        // In writeback the kernel shows what was asked for until it forgets the inode.
        let bed = bed.remount();
        for (n, (set, want)) in cases.iter().enumerate() {
            for (kind, _) in all {
                let shown = fs::metadata(bed.path(&format!("{kind}{n}"))).unwrap();
                let shown = (shown.mtime(), shown.mtime_nsec());
                assert_eq!(shown, (want.tv_sec, want.tv_nsec), "{kind} {set:?} {profile:?}");
            }
        }
    }
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, b"before").unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b" after").unwrap();
        file.sync_all().unwrap();
        let mut content = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, b"before after");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    });
}

#[test]
fn hard_links_are_one_file() {
    both(|bed| {
        fs::write(bed.path("a"), b"1").unwrap();
        fs::hard_link(bed.path("a"), bed.path("b")).unwrap();
        fs::write(bed.path("b"), b"22").unwrap();
        let (a, b) = (fs::metadata(bed.path("a")).unwrap(), fs::metadata(bed.path("b")).unwrap());
        assert_eq!((a.ino(), a.nlink(), a.len()), (b.ino(), 2, 2));
        fs::remove_file(bed.path("a")).unwrap();
        assert_eq!(fs::metadata(bed.path("b")).unwrap().nlink(), 1);
    });
}

/// Maps the first page of a file, shared and writable, for as long as `work` runs. The file can be closed before.
fn with_map(file: File, stays_open: bool, work: impl FnOnce(&mut [u8])) {
    with_map_for(libc::PROT_READ | libc::PROT_WRITE, 0, file, stays_open, work);
}

/// Any page, and for what.
fn with_map_for(protection: libc::c_int, at: i64, file: File, stays_open: bool, work: impl FnOnce(&mut [u8])) {
    use std::os::fd::AsRawFd;
    // SAFETY: a new mapping of 4096 bytes at an address that the kernel chooses, unmapped below.
    let map = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), at) };
    assert_ne!(map, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    let _open = stays_open.then_some(file);
    // SAFETY: the file is at least that long and nobody truncates it meanwhile.
    work(unsafe { std::slice::from_raw_parts_mut(map.cast(), 4096) });
    // SAFETY: the mapping from above; the slice is gone.
    assert_eq!(unsafe { libc::munmap(map, 4096) }, 0);
}

#[test]
fn a_mapping_reads_and_writes() {
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, vec![b'.'; 4096]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        with_map(file, true, |map| {
            assert_eq!(map[4095], b'.');
            map[..5].copy_from_slice(b"stamp");
        });
        assert_eq!(fs::read(&path).unwrap()[..6], *b"stamp.");
        bed.evict(1);
        assert_eq!(fs::read(&path).unwrap()[..6], *b"stamp.");
    });
}

#[test]
fn a_directory_that_is_gone_is_known_to_whoever_is_in_it() {
    both(|bed| {
        fs::create_dir(bed.path("d")).unwrap();
        let inside = File::open(bed.path("d")).unwrap();
        let ino = inside.metadata().unwrap().ino();
        fs::remove_dir(bed.path("d")).unwrap();
        assert_eq!((inside.metadata().unwrap().ino(), inside.metadata().unwrap().nlink()), (ino, 0));
        inside.sync_all().unwrap();
        assert!(fs::write(format!("/proc/self/fd/{}/x", std::os::fd::AsRawFd::as_raw_fd(&inside)), "").is_err());
        assert_eq!(bed.vfs.getattr(ino).unwrap().nlink, 0);
        drop(inside);
        // The kernel says so when it gets to it.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while bed.vfs.getattr(ino).is_ok() {
            assert!(std::time::Instant::now() < until, "it is never forgotten");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

#[test]
fn a_store_to_a_mapping_moves_the_time_that_is_shown() {
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, vec![b'.'; 4096]).unwrap();
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let modified = || fs::metadata(&path).unwrap().modified().unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        open().set_modified(long_ago).unwrap();
        with_map(open(), true, |map| {
            // From here on the kernel has it.
            assert_eq!(modified(), long_ago);
            map[0] = b'1';
            // Not msync, which in passthrough goes to the backing file without a word to us.
            open().sync_all().unwrap();
            assert_ne!(modified(), long_ago, "after a sync");
        });
        for stays_open in [true, false] {
            open().set_modified(long_ago).unwrap();
            with_map(open(), stays_open, |map| {
                assert_eq!(modified(), long_ago);
                map[1] = b'2' + u8::from(stays_open);
            });
            // That the last one has let go is told a moment later.
            let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while modified() == long_ago {
                assert!(std::time::Instant::now() < until, "it stays as it was, open until the end: {stays_open}");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    });
}

#[test]
fn holes_are_told_while_a_file_is_written_and_counted_when_it_is_closed() {
    use rustix::fs::{SeekFrom, seek};
    for bed in [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed) {
        let path = bed.path("a");
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let file = open();
        file.write_all_at(&[b'x'; 4096], 1 << 20).unwrap();
        assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), 1 << 20);
        assert_eq!(seek(&file, SeekFrom::Hole(1 << 20)).unwrap(), (1 << 20) + 4096);
        file.set_len(5 << 20).unwrap();
        drop(file);
        let bed = bed.remount();
        assert_eq!(fs::metadata(bed.path("a")).unwrap().blocks(), 8);
    }
}

#[test]
fn a_cut_has_what_was_written_to_a_file_that_stays_open() {
    both(|bed| {
        let content: Vec<u8> = (0..16u32 << 20).map(|at| (at >> 12) as u8 ^ at as u8).collect();
        let file = File::create(bed.path("a")).unwrap();
        file.write_all_at(&content, 0).unwrap();
        let ino = file.metadata().unwrap().ino();
        bed.vfs.cut(VOLUME).unwrap();
        let (mut backing, _) = bed.vfs.open_backing(ino).unwrap().unwrap();
        let mut found = Vec::new();
        backing.read_to_end(&mut found).unwrap();
        bed.vfs.end_cut();
        assert_eq!(found.len(), content.len());
        assert!(found == content);
    });
}

#[test]
fn what_is_removed_fails_no_sync() {
    both(|bed| {
        let root = File::open(bed.point.path()).unwrap();
        let (one, other) = (bed.path("one"), bed.path("other"));
        let remove = || fs::remove_file(&one).unwrap();
        let replace = || {
            fs::write(&other, b"2").unwrap();
            fs::rename(&other, &one).unwrap();
        };
        for end in [&remove as &dyn Fn(), &replace] {
            fs::write(&one, b"1").unwrap();
            end();
            rustix::fs::syncfs(&root).unwrap();
            // Looks at the mount once more, as every cut does.
            bed.vfs.flush_kernel().unwrap();
            publish(&bed.vfs, &bed.remote).unwrap();
        }
        let open = File::create(&other).unwrap();
        fs::remove_file(&other).unwrap();
        open.write_all_at(b"3", 0).unwrap();
        rustix::fs::syncfs(&root).unwrap();
    });
}

/// What is stored through a mapping whose file was closed is published, and is not dropped with the cache.
#[test]
fn a_mapping_outlives_its_file() {
    both(|bed| {
        let path = bed.path("a");
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::write(&path, vec![b'.'; 4096]).unwrap();
        with_map(open(), false, |map| {
            map[..5].copy_from_slice(b"first");
            publish(&bed.vfs, &bed.remote).unwrap();
            map[..5].copy_from_slice(b"stamp");
            let cut = bed.vfs.cut(VOLUME).unwrap();
            bed.vfs.end_cut();
            assert!(!cut.is_empty(), "what was stored is not seen");
        });
        // Opening it once more does not make it look as if nobody had written.
        drop(open());
        bed.evict(1);
        assert_eq!(fs::read(&path).unwrap()[..6], *b"stamp.");
    });
}

/// A mapping for reading shows what is written later, whatever becomes of the local copy in between.
/// Whoever read it first when it was not here has it in the kernel's cache, and then everyone has.
#[test]
fn what_is_stored_into_a_file_that_was_not_here_is_published_and_is_no_hole() {
    use rustix::fs::{SeekFrom, seek};
    both(|bed| {
        let path = bed.path("a");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"end", 8 << 20).unwrap();
        drop(file);
        bed.evict(1);
        let reader = File::open(&path).unwrap();
        let ino = reader.metadata().unwrap().ino();
        let writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        with_map_for(libc::PROT_READ | libc::PROT_WRITE, 4 << 20, writer, true, |map| {
            map[0] = b'x';
            assert_eq!(seek(&reader, SeekFrom::Data(1 << 20)).unwrap(), 4 << 20);
            map[0] = b'y';
            bed.vfs.flush_kernel().unwrap();
            publish(&bed.vfs, &bed.remote).unwrap();
            let (backing, _) = bed.vfs.open_backing(ino).unwrap().unwrap();
            let mut found = [0];
            backing.read_exact_at(&mut found, 4 << 20).unwrap();
            assert_eq!(found, *b"y");
        });
    });
}

#[test]
fn a_mapping_for_reading_keeps_up_with_its_file() {
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, vec![b'.'; 4096]).unwrap();
        let file = File::open(&path).unwrap();
        with_map_for(libc::PROT_READ, 0, file, false, |map| {
            assert_eq!(map[0], b'.');
            publish(&bed.vfs, &bed.remote).unwrap();
            let drop_cache = || bed.vfs.drop_cache(None, &mut |all| vec![true; all.len()], &mut |_, _| {}).unwrap();
            drop_cache();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(b"newer", 0).unwrap();
            assert_eq!(&map[..6], b"newer.");
        });
        bed.evict(1);
    });
}

/// A lazy unmount while something is open: the mount lives on, and is not taken for one that is there.
#[test]
fn a_mount_that_went_out_of_sight_says_so() {
    for mut bed in [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed) {
        let open = File::create(bed.path("a")).unwrap();
        let mounted = bed.mounted.take().unwrap();
        assert!(mounted.is_in_sight());
        mounted.detach().unwrap();
        assert!(!mounted.is_in_sight() && !mounted.wait_for(std::time::Duration::ZERO));
        assert!(matches!(mounted.unmount(), Err(hypernet_fs::fuse::MountError::Busy(_))));
        open.write_all_at(b"still here", 0).unwrap();
        bed.vfs.flush_kernel().unwrap();
        drop(open);
        let _ = mounted.wait();
        assert!(!mounted.is_in_sight());
    }
}

fn getxattr(path: &Path, name: &str) -> Result<String, i32> {
    let mut buf = [0u8; 256];
    match rustix::fs::getxattr(path, name, &mut buf) {
        Ok(len) => Ok(String::from_utf8_lossy(&buf[..len]).into_owned()),
        Err(errno) => Err(errno.raw_os_error()),
    }
}

#[test]
fn extended_attributes_pass_through_the_kernel() {
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, b"1").unwrap();
        rustix::fs::setxattr(&path, "user.k", b"value", rustix::fs::XattrFlags::CREATE).unwrap();
        assert_eq!(getxattr(&path, "user.k").unwrap(), "value");
        let again = rustix::fs::setxattr(&path, "user.k", b"", rustix::fs::XattrFlags::CREATE);
        assert_eq!(again, Err(rustix::io::Errno::EXIST));
        let mut names = [0u8; 64];
        let len = rustix::fs::listxattr(&path, &mut names).unwrap();
        assert_eq!(names[..len], *b"user.k\0");
        rustix::fs::removexattr(&path, "user.k").unwrap();
        assert_eq!(getxattr(&path, "user.k"), Err(libc::ENODATA));
        assert_eq!(getxattr(&path, "user.hypernet.state").unwrap(), "local");
        bed.evict(1);
        assert_eq!(getxattr(&path, "user.hypernet.state").unwrap(), "durable");
    });
}

/// Runs a shell command in the mount as this user; what it printed, or `None` when it failed.
fn shell(bed: &Bed, uid: u32, script: &str) -> Option<String> {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("sh");
    let output = command.args(["-c", script]).current_dir(bed.point.path()).uid(uid).gid(uid).output().unwrap();
    let missing = output.status.code() == Some(127);
    assert!(!missing, "a program is missing: {}", String::from_utf8_lossy(&output.stderr));
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

const ROOT_USER: u32 = 0;
const NOBODY: u32 = 65534;

/// In both profiles, by root, who alone can act as others.
fn as_several_users(test: impl Fn(Bed)) {
    if has(&[Need::Root]) {
        [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed).for_each(test);
    }
}

#[test]
fn access_control_lists_are_enforced_inherited_and_kept() {
    as_several_users(|bed| {
        let root = |script: &str| shell(&bed, ROOT_USER, script).unwrap_or_else(|| panic!("failed: {script}"));
        let may = |script: &str| shell(&bed, NOBODY, script).is_some();
        root("umask 077; echo secret > a");
        assert!(!may("cat a"));
        root("setfacl -m u:65534:r a");
        assert!(may("cat a") && !may("echo x >> a"));
        assert_eq!(root("stat -c %a a"), "640\n", "the mask shows as the group's bits");
        root("setfacl -m u:65534:rw a");
        assert!(may("echo more >> a"));
        assert_eq!(root("getfacl -cn a"), "user::rw-\nuser:65534:rw-\ngroup::---\nmask::rw-\nother::---\n\n");
        // A mode is a mask for those who are named.
        root("chmod 600 a");
        assert!(!may("cat a"));
        let list = root("getfacl -cn a");
        assert!(list.contains("user:65534:rw-") && list.contains("mask::---"), "{list}");
        root("chmod 640 a");
        assert!(may("cat a") && !may("echo x >> a"));
        // Not theirs to change.
        assert!(!may("setfacl -m u:65534:rw a") && !may("chmod 666 a"));

        root("mkdir d; chmod 755 d; setfacl -d -m u:65534:rwx d");
        assert!(!may("touch d/new"), "the default list is about what is made in it");
        root("umask 077; mkdir d/below; echo 1 > d/file; echo 2 > d/below/file; umask 027; echo 3 > plain");
        assert!(may("cat d/file && echo x >> d/below/file && touch d/below/new && rm d/below/new"));
        assert!(root("getfacl -cn d/below").contains("default:user:65534:rwx"));
        assert_eq!(root("stat -c %a plain"), "640\n", "elsewhere the umask counts");
        root("setfacl -b d/file");
        assert!(may("cat d/file") && !may("echo x >> d/file"), "as for any other user");
        assert_eq!(root("getfacl -cn d/file | grep -c user:65534 || true"), "0\n");

        // Whoever owns a file without being of its group gets no setgid bit this way.
        root("touch s; chown 65534:0 s; chmod 2755 s");
        assert!(may("setfacl -m u:1:r s"));
        assert_eq!(root("stat -c %a s"), "755\n");
        // The copy of a tree has the lists too.
        root(
            "cp -a d e && cd d && getfacl -Rn . > ../want && cd ../e && getfacl -Rn . > ../have && cmp ../want ../have",
        );

        // What is no list is refused, and so is a default list of what is no directory.
        for name in ["system.posix_acl_access", "system.posix_acl_default"] {
            let set = rustix::fs::setxattr(bed.path("a"), name, b"garbage", rustix::fs::XattrFlags::empty());
            assert!(set.is_err(), "{name}");
        }
        let bed = bed.remount();
        let text = shell(&bed, ROOT_USER, "getfacl -cn a d/below").unwrap();
        assert!(text.contains("user:65534:rw-") && text.contains("default:user:65534:rwx"), "{text}");
        assert!(shell(&bed, NOBODY, "cat a d/below/file").is_some());
        assert!(shell(&bed, NOBODY, "echo x >> a").is_none());
        assert_eq!(bed.vfs.fsck(false).unwrap(), hypernet_fs::vfs::Checked::default());
    });
}

#[test]
fn a_file_that_is_open_twice_is_one_file() {
    both(|bed| {
        let path = bed.path("a");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        writer.write_all_at(b"seen", 0).unwrap();
        let mut buf = [0; 4];
        reader.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(buf, *b"seen");
        drop(writer);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all_at(b"SE", 0).unwrap();
        reader.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(buf, *b"SEen");
    });
}

#[test]
fn absent_content_comes_from_the_mesh_in_any_mode_of_access() {
    both(|bed| {
        let content: Vec<u8> = (0..6_000_000u32).map(|i| (i / 7) as u8).collect();
        fs::write(bed.path("big"), &content).unwrap();
        fs::write(bed.path("small"), b"small").unwrap();
        bed.evict(2);
        assert!(fs::read(bed.path("big")).unwrap() == content);
        bed.evict(1);
        // Open for reading while it is absent, then also for writing: both see one file.
        let reader = File::open(bed.path("small")).unwrap();
        let writer = OpenOptions::new().write(true).open(bed.path("small")).unwrap();
        writer.write_all_at(b"S", 0).unwrap();
        let mut buf = [0; 5];
        reader.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(buf, *b"Small");
        drop((reader, writer));
        bed.remote.fail(Some(PortError::Unreachable("segment s lacks 2 shards".into())));
        assert_eq!(fs::read(bed.path("big")).unwrap_err().raw_os_error(), Some(libc::EIO));
        assert_eq!(fs::metadata(bed.path("big")).unwrap().len(), 6_000_000);
        bed.remote.fail(None);
        assert!(fs::read(bed.path("big")).unwrap() == content);
    });
}

#[test]
fn readers_that_wait_for_the_mesh_hold_up_nobody_else() {
    both(|bed| {
        for n in 0..6 {
            fs::write(bed.path(&format!("f{n}")), b"content").unwrap();
        }
        bed.evict(6);
        bed.remote.hold(true);
        std::thread::scope(|scope| {
            let readers: Vec<_> =
                (0..6).map(|n| scope.spawn(move || fs::read(bed.path(&format!("f{n}"))).unwrap())).collect();
            bed.remote.await_waiting(6);
            // More readers wait than there are threads that serve the kernel.
            assert_eq!(fs::read_dir(bed.point.path()).unwrap().count(), 6);
            fs::write(bed.path("new"), b"x").unwrap();
            assert!(rustix::fs::statvfs(bed.point.path()).is_ok());
            bed.remote.hold(false);
            for reader in readers {
                assert_eq!(reader.join().unwrap(), b"content");
            }
        });
    });
}

#[test]
fn local_work_never_stands_behind_fetches_that_hang() {
    /// More than threads that wait for the mesh, and more than the kernel reads ahead by itself at once.
    const READERS: usize = 3 * FS_WORKERS_MAX;
    both(|bed| {
        let cold: Vec<PathBuf> = (0..READERS).map(|n| bed.path(&format!("cold{n}"))).collect();
        cold.iter().for_each(|path| fs::write(path, b"content").unwrap());
        bed.evict(READERS as u64);
        let clean = bed.path("clean");
        fs::write(&clean, b"content").unwrap();
        let ino = fs::metadata(&clean).unwrap().ino();
        // The kernel reports a close when it likes.
        while !matches!(bed.meta.inode(ino).unwrap().map(|row| row.local), Some(Local::Clean { .. })) {
            publish(&bed.vfs, &bed.remote).unwrap();
            std::thread::yield_now();
        }
        bed.remote.hold(true);
        std::thread::scope(|scope| {
            let readers: Vec<_> = cold.iter().map(|path| scope.spawn(move || fs::read(path))).collect();
            bed.remote.await_waiting(FS_WORKERS_MAX);
            let (done, local) = crossbeam_channel::bounded(1);
            scope.spawn(move || {
                // Each of these waits for the disk: a dirty mark, a commit, a flush.
                let open = OpenOptions::new().write(true).open(&clean).unwrap();
                open.write_all_at(b"C", 0).unwrap();
                open.sync_all().unwrap();
                let synced = bed.path("synced");
                let sync = libc::O_SYNC;
                let new = OpenOptions::new().write(true).create_new(true).custom_flags(sync).open(&synced).unwrap();
                new.write_all_at(b"new", 0).unwrap();
                new.sync_data().unwrap();
                fs::rename(&synced, bed.path("renamed")).unwrap();
                File::open(bed.point.path()).unwrap().sync_all().unwrap();
                done.send(()).unwrap();
            });
            // The time only ends a test that has failed.
            let finished = local.recv_timeout(Duration::from_secs(120));
            bed.remote.fail(Some(PortError::Deadline("no peer answers".into())));
            bed.remote.hold(false);
            for reader in readers {
                assert_eq!(reader.join().unwrap().unwrap_err().raw_os_error(), Some(libc::EIO));
            }
            assert_eq!(finished, Ok(()), "local work waited for the mesh");
        });
        bed.remote.fail(None);
        assert_eq!(fs::read(bed.path("clean")).unwrap(), b"Content");
        assert_eq!(fs::read(bed.path("renamed")).unwrap(), b"new");
        assert_eq!(fs::read(bed.path("cold0")).unwrap(), b"content");
    });
}

#[test]
fn a_hard_link_whose_record_is_missing_is_listed_and_fails_alone() {
    let Some(bed) = bed(Profile::Writeback) else { return };
    fs::create_dir(bed.path("d")).unwrap();
    fs::write(bed.path("d/a"), b"1").unwrap();
    fs::hard_link(bed.path("d/a"), bed.path("d/b")).unwrap();
    fs::write(bed.path("d/c"), b"2").unwrap();
    let root = publish(&bed.vfs, &bed.remote).unwrap().unwrap();
    let ino = fs::metadata(bed.path("d/a")).unwrap().ino();
    bed.remote.take_link(bed.meta.inode(ino).unwrap().unwrap().id).unwrap();

    let (state, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let vfs = Vfs::open(config(&state), MemoryMeta::strict(), bed.remote.clone()).unwrap();
    vfs.set_root(VOLUME, root).unwrap();
    let mounted = mount(vfs, point.path(), options(Profile::Writeback)).unwrap();
    let dir = point.path().join("d");
    for _ in 0..2 {
        let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        for name in ["a", "b"] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap_err().raw_os_error(), Some(libc::EIO), "{name}");
        }
        assert_eq!(fs::read(dir.join("c")).unwrap(), b"2");
    }
    mounted.unmount().unwrap();
}

#[test]
fn other_calls_reach_the_right_operation() {
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, vec![7; 16384]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 4096, 4096).unwrap();
        assert_eq!(fs::read(&path).unwrap()[4000..8200].iter().filter(|byte| **byte == 0).count(), 4096);
        assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(), 4096);
        let copy = File::create(bed.path("copy")).unwrap();
        let copied = rustix::fs::copy_file_range(&file, Some(&mut 0), &copy, None, 5000).unwrap();
        assert!(copied > 0);
        assert_eq!(fs::read(bed.path("copy")).unwrap().len(), copied);
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let (from, to) = (bed.path("a"), bed.path("copy"));
        rustix::fs::renameat_with(rustix::fs::CWD, &from, rustix::fs::CWD, &to, flags).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().len(), 16384);
        File::open(bed.point.path()).unwrap().sync_all().unwrap();
        let long = bed.path(&"x".repeat(256));
        assert_eq!(fs::create_dir(long).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
        let exclusive = OpenOptions::new().write(true).create_new(true).open(&to);
        assert_eq!(exclusive.unwrap_err().raw_os_error(), Some(libc::EEXIST));
        OpenOptions::new().write(true).custom_flags(libc::O_SYNC).open(&to).unwrap().write_all(b"s").unwrap();
    });
}

#[test]
fn a_busy_mount_stays_and_says_so_and_a_second_one_is_refused() {
    let Some(bed) = bed(Profile::Writeback) else { return };
    let file = File::create(bed.path("a")).unwrap();
    let mounted = bed.mounted.as_ref().unwrap();
    assert!(matches!(mounted.unmount(), Err(MountError::Busy(_))));
    assert!(bed.path("a").exists());
    let second = mount(bed.vfs.clone(), bed.point.path(), MountOptions::default());
    assert!(matches!(second, Err(MountError::AlreadyMounted(_))));
    assert!(!clear_stale(bed.point.path()).unwrap(), "a live mount is not stale");
    drop(file);
    mounted.unmount().unwrap();
    assert!(!bed.path("a").exists());
    mounted.wait().unwrap();
}

#[test]
fn a_mount_ends_with_its_handle_even_when_a_test_fails() {
    let Some(bed) = bed(Profile::Writeback) else { return };
    let point = bed.point.path().to_owned();
    let failed = catch_unwind(AssertUnwindSafe(move || {
        let _bed = bed;
        panic!("on purpose");
    }));
    assert!(failed.is_err());
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(point.to_str().unwrap()));
}

#[test]
fn a_panic_is_an_error_for_one_call_and_the_mount_goes_on() {
    struct Panics;
    impl hypernet_fs::vfs::DurabilityInfo for Panics {
        fn describe(&self, _: &hypernet_core::tree::Content) -> String {
            panic!("on purpose")
        }
    }
    let Some(bed) = bed(Profile::Writeback) else { return };
    fs::write(bed.path("a"), b"1").unwrap();
    bed.evict(1);
    bed.vfs.set_durability_info(Some(Arc::new(Panics)));
    // More often than there are threads that serve the kernel.
    for _ in 0..4 {
        assert_eq!(getxattr(&bed.path("a"), "user.hypernet.state"), Err(libc::EIO));
    }
    // On a thread that waits for the mesh.
    bed.remote.panic(true);
    for _ in 0..4 {
        assert_eq!(fs::read(bed.path("a")).unwrap_err().raw_os_error(), Some(libc::EIO));
    }
    bed.remote.panic(false);
    assert_eq!(fs::read(bed.path("a")).unwrap(), b"1");
}

/// Where the helper below mounts.
const POINT: &str = "HYPERNET_TEST_MOUNT_POINT";

/// Not a test: the process that [`a_dead_mount_is_named_and_cleared`] kills.
#[test]
#[ignore = "a helper process of another test"]
fn helper_that_mounts_until_it_is_killed() {
    let Some(point) = std::env::var_os(POINT) else { return };
    let state = tempfile::tempdir().unwrap();
    let config = config(&state);
    let vfs = Vfs::open(config, MemoryMeta::quick(), Arc::new(MemoryRemote::default())).unwrap();
    let _mounted = mount(vfs, Path::new(&point), options(Profile::Writeback)).unwrap();
    fs::write(Path::new(&point).join("ready"), b"").unwrap();
    eprintln!("READY");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// A process that has mounted on `point`.
fn other_process(point: &Path) -> std::process::Child {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_that_mounts_until_it_is_killed", "--ignored", "--nocapture"])
        .env(POINT, point)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("READY")), "the helper mounted");
    child
}

#[test]
fn what_the_kernel_was_told_is_asked_for_by_nobody() {
    use rustix::process::{Pid, Signal, kill_process};
    let Some(mut bed) = bed(Profile::Writeback) else { return };
    bed.mounted.take().unwrap().unmount().unwrap();
    let mut child = other_process(bed.point.path());
    let known = fs::metadata(bed.path("ready")).unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    let (path, (told, answer)) = (bed.path("ready"), std::sync::mpsc::channel());
    let looks = std::thread::spawn(move || told.send(fs::metadata(path).unwrap().ino()).unwrap());
    let found = answer.recv_timeout(Duration::from_secs(20));
    kill_process(pid, Signal::CONT).unwrap();
    looks.join().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(clear_stale(bed.point.path()).unwrap());
    assert_eq!(found, Ok(known.ino()), "a process that stands still was asked");
}

#[test]
fn a_dead_mount_is_named_and_cleared() {
    let Some(mut bed) = bed(Profile::Writeback) else { return };
    bed.mounted.take().unwrap().unmount().unwrap();
    let mut child = other_process(bed.point.path());
    child.kill().unwrap();
    child.wait().unwrap();

    let again = mount(bed.vfs.clone(), bed.point.path(), options(Profile::Writeback));
    assert!(matches!(again, Err(MountError::Stale(_))), "{again:?}");
    assert!(clear_stale(bed.point.path()).unwrap());
    assert!(!clear_stale(bed.point.path()).unwrap());
    bed.mounted = Some(mount(bed.vfs.clone(), bed.point.path(), options(Profile::Writeback)).unwrap());
    fs::write(bed.path("a"), b"1").unwrap();
    assert_eq!(fs::read(bed.path("a")).unwrap(), b"1");
}
