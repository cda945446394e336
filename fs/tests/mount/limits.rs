//! Input at its limits and past them: the errno that POSIX says, and a mount that goes on. [`both`] ends with fsck.

use std::ffi::{CString, OsString};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::*;

/// With the zero at its end.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

fn os(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

#[track_caller]
fn fails<T: std::fmt::Debug>(result: std::io::Result<T>, errno: i32) {
    assert_eq!(result.unwrap_err().raw_os_error(), Some(errno));
}

#[test]
fn names_are_bytes_up_to_255_of_them() {
    for bed in [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed) {
        let longest = vec![b'n'; NAME_MAX];
        let mut all: Vec<OsString> =
            [b"\xff\xfe\x80", b"a\nb".as_slice(), b"\n", b" ", b"-rf", b"*", b"e\xcc\x81", b"\xc3\xa9", &longest]
                .map(os)
                .to_vec();
        for name in &all {
            fs::write(bed.point.path().join(name), name.as_bytes()).unwrap();
        }
        let bed = bed.remount();
        all.sort();
        let mut listed: Vec<_> =
            fs::read_dir(bed.point.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        listed.sort();
        assert_eq!(listed, all);
        for name in &all {
            assert_eq!(fs::read(bed.point.path().join(name)).unwrap(), name.as_bytes());
        }
        let (there, long) = (bed.point.path().join(os(&longest)), bed.path(&"n".repeat(NAME_MAX + 1)));
        fails(fs::metadata(&long), libc::ENAMETOOLONG);
        fails(File::create(&long), libc::ENAMETOOLONG);
        fails(fs::create_dir(&long), libc::ENAMETOOLONG);
        fails(symlink("target", &long), libc::ENAMETOOLONG);
        fails(fs::hard_link(&there, &long), libc::ENAMETOOLONG);
        fails(fs::rename(&there, &long), libc::ENAMETOOLONG);
        fails(fs::remove_file(&long), libc::ENAMETOOLONG);
        fails(fs::remove_dir(&long), libc::ENAMETOOLONG);
    }
}

#[test]
fn paths_are_as_long_as_the_kernel_takes_them_and_trees_are_deeper() {
    both(|bed| {
        let mut path = bed.point.path().to_owned();
        // The last part takes what is left, and there is a byte for its slash.
        while path.as_os_str().len() + 1 + NAME_MAX < PATH_MAX - 1 {
            path.push("d".repeat(100));
            fs::create_dir(&path).unwrap();
        }
        let left = PATH_MAX - 1 - path.as_os_str().len() - 1;
        let longest = path.join("f".repeat(left));
        fs::write(&longest, b"deep").unwrap();
        assert_eq!(longest.as_os_str().len(), PATH_MAX - 1);
        assert_eq!(fs::read(&longest).unwrap(), b"deep");
        fails(fs::metadata(path.join("f".repeat(left + 1))), libc::ENAMETOOLONG);
        // By handles it goes on.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let mut at = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        for _ in 0..100 {
            let name = "e".repeat(200);
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        let file = rustix::fs::openat(&at, "f", OFlags::CREATE | OFlags::RDWR, Mode::RUSR | Mode::WUSR).unwrap();
        File::from(file).write_all(b"deeper").unwrap();
        assert_eq!(rustix::fs::statat(&at, "f", AtFlags::empty()).unwrap().st_size, 6);
    });
}

#[test]
fn symlinks_hold_4095_bytes_and_lead_no_further_than_forty() {
    both(|bed| {
        // One byte of PATH_MAX is the zero at the end.
        let longest = os(&[b"\xff\n/".as_slice(), &vec![b't'; PATH_MAX - 1 - 3]].concat());
        symlink(&longest, bed.path("long")).unwrap();
        assert_eq!(fs::read_link(bed.path("long")).unwrap().as_os_str(), longest);
        assert_eq!(fs::symlink_metadata(bed.path("long")).unwrap().len(), PATH_MAX as u64 - 1);
        fails(symlink(os(&vec![b't'; PATH_MAX]), bed.path("longer")), libc::ENAMETOOLONG);
        fails(symlink("", bed.path("empty")), libc::ENOENT);

        symlink("b", bed.path("a")).unwrap();
        symlink("a", bed.path("b")).unwrap();
        symlink("self", bed.path("self")).unwrap();
        for name in ["a", "b", "self", "a/below"] {
            fails(File::open(bed.path(name)), libc::ELOOP);
            fails(fs::metadata(bed.path(name)), libc::ELOOP);
        }
        fails(OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(bed.path("a")), libc::ELOOP);
        fs::write(bed.path("s0"), b"end").unwrap();
        for n in 0..41 {
            symlink(format!("s{n}"), bed.path(&format!("s{}", n + 1))).unwrap();
        }
        assert_eq!(fs::read(bed.path("s40")).unwrap(), b"end");
        fails(fs::read(bed.path("s41")), libc::ELOOP);
    });
}

#[test]
fn offsets_end_where_the_kernel_or_the_disk_ends() {
    const LAST: u64 = i64::MAX as u64;
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, b"content").unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut buf = [0; 1];
        // An offset and a length that together are more than an offset can be.
        assert_eq!(rustix::io::pread(&file, &mut buf, LAST), Err(Errno::INVAL));
        assert_eq!(rustix::io::pwrite(&file, b"x", LAST), Err(Errno::INVAL));
        assert_eq!(rustix::io::pread(&file, &mut buf, LAST - 1), Ok(0));
        assert_eq!(rustix::fs::ftruncate(&file, LAST), Err(Errno::FBIG));
        // SAFETY: a call with numbers only, on a descriptor that is open.
        assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), -1) }, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EINVAL));
        let none = FallocateFlags::empty();
        assert_eq!(rustix::fs::fallocate(&file, none, LAST - 1, 1), Err(Errno::FBIG));
        assert_eq!(rustix::fs::fallocate(&file, none, LAST, 1), Err(Errno::FBIG));
        assert_eq!(rustix::fs::fallocate(&file, none, 0, 0), Err(Errno::INVAL));
        use rustix::fs::SeekFrom;
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Start(LAST)), Ok(LAST));
        assert_eq!(rustix::io::read(&file, &mut buf), Err(Errno::INVAL));
        let past = rustix::fs::seek(&file, SeekFrom::Current(1));
        assert!(matches!(past, Err(Errno::INVAL | Errno::OVERFLOW)), "{past:?}");
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Current(i64::MIN)), Err(Errno::INVAL));
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(LAST)), Err(Errno::NXIO));
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(LAST)), Err(Errno::NXIO));
        // Of an offset below zero, too.
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(u64::MAX)), Err(Errno::NXIO));
        assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(u64::MAX)), Err(Errno::NXIO));
        assert_eq!(fs::read(&path).unwrap(), b"content", "nothing of that has changed it");

        // As far as the kernel goes, and further than the disk does.
        let far = rustix::io::pwrite(&file, b"x", LAST - 1);
        match bed.mounted.as_ref().unwrap().profile() {
            Profile::Passthrough => assert_eq!(far, Err(Errno::FBIG)),
            Profile::Writeback => {
                assert_eq!(far, Ok(1));
                assert_eq!(rustix::fs::fsync(&file), Err(Errno::FBIG), "told when the kernel hands it on");
            }
        }
        drop(file);
        fs::write(&path, b"again").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"again");
    });
}

#[test]
fn a_sparse_file_of_terabytes_takes_what_is_in_it() {
    use rustix::fs::{SeekFrom, seek};
    const TIB: u64 = 1 << 40;
    for bed in [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed) {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(bed.path("sparse")).unwrap();
        file.set_len(8 * TIB).unwrap();
        file.write_all_at(&[b'x'; 4096], 5 * TIB).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let bed = bed.remount();
        let file = File::open(bed.path("sparse")).unwrap();
        let shown = file.metadata().unwrap();
        assert_eq!((shown.len(), shown.blocks()), (8 * TIB, 8));
        assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(0));
        assert_eq!(seek(&file, SeekFrom::Data(0)), Ok(5 * TIB));
        assert_eq!(seek(&file, SeekFrom::Hole(5 * TIB)), Ok(5 * TIB + 4096));
        assert_eq!(seek(&file, SeekFrom::Data(5 * TIB + 4096)), Err(Errno::NXIO));
        let mut buf = [1; 8192];
        file.read_exact_at(&mut buf, 8 * TIB - 8192).unwrap();
        assert!(buf.iter().all(|byte| *byte == 0));
        file.read_exact_at(&mut buf, 5 * TIB - 4096).unwrap();
        assert_eq!((buf[4095], buf[4096]), (0, b'x'));
    }
}

#[test]
fn extended_attributes_end_at_their_limits() {
    // What Linux takes of one value, and of one list; here all names, each with a zero, and values of an inode together.
    const MOST: usize = 65_536;
    both(|bed| {
        let path = bed.path("a");
        fs::write(&path, b"").unwrap();
        let set = |name: &str, len: usize| rustix::fs::setxattr(&path, name, &vec![7; len], XattrFlags::empty());
        let longest = format!("user.{}", "n".repeat(NAME_MAX - 5));
        set(&longest, 1).unwrap();
        assert_eq!(set(&format!("{longest}n"), 1), Err(Errno::RANGE));
        assert_eq!(set("", 1), Err(Errno::RANGE));
        assert_eq!(set("user.big", MOST + 1), Err(Errno::TOOBIG));
        assert_eq!(set("user.big", MOST), Err(Errno::NOSPC));
        let left = MOST - (longest.len() + 1) - 1 - ("user.big".len() + 1);
        assert_eq!(set("user.big", left + 1), Err(Errno::NOSPC));
        set("user.big", left).unwrap();
        assert_eq!(set("user.one more", 0), Err(Errno::NOSPC));
        assert_eq!(set("unknown.prefix", 1), Err(Errno::OPNOTSUPP));
        assert_eq!(set("user.hypernet.state", 1), Err(Errno::PERM));

        let get = |name: &str, buf: &mut [u8]| rustix::fs::getxattr(&path, name, buf);
        let mut buf = vec![0; left];
        assert_eq!(rustix::fs::getxattr_query(&path, "user.big"), Ok(left));
        assert_eq!(get("user.big", &mut buf[1..]), Err(Errno::RANGE));
        assert_eq!(get("user.big", &mut buf), Ok(left));
        assert!(buf.iter().all(|byte| *byte == 7));
        assert_eq!(get("user.none", &mut buf), Err(Errno::NODATA));
        let names = longest.len() + 1 + "user.big".len() + 1;
        assert_eq!(rustix::fs::listxattr_query(&path), Ok(names));
        assert_eq!(rustix::fs::listxattr(&path, &mut vec![0; names - 1]), Err(Errno::RANGE));
        assert_eq!(rustix::fs::listxattr(&path, &mut vec![0; names]), Ok(names));
        rustix::fs::removexattr(&path, "user.big").unwrap();
        assert_eq!(rustix::fs::removexattr(&path, "user.big"), Err(Errno::NODATA));
        set("user.one more", 0).unwrap();
        assert_eq!(get("user.one more", &mut buf), Ok(0));
        symlink("a", bed.path("link")).unwrap();
        let on_link = rustix::fs::lsetxattr(bed.path("link"), "user.k", b"v", XattrFlags::empty());
        assert_eq!(on_link, Err(Errno::PERM));

        // However many there are, they can be listed.
        let path = bed.path("many");
        fs::write(&path, b"").unwrap();
        let set = |n: usize| rustix::fs::setxattr(&path, format!("user.{n:0240}"), b"", XattrFlags::empty());
        let last = (0..).map(set).find_map(Result::err);
        assert_eq!(last, Some(Errno::NOSPC));
        assert!(rustix::fs::listxattr(&path, &mut vec![0; MOST]).unwrap() > MOST - 300);
    });
}

/// In writeback the kernel takes a write anywhere, and hears only later that it cannot be.
#[test]
fn a_write_where_no_file_can_end_keeps_nothing_else_from_the_mesh() {
    both(|bed| {
        let far = File::create(bed.path("far")).unwrap();
        let _ = far.write_at(b"x", 1 << 62);
        fs::write(bed.path("other"), b"other").unwrap();
        publish(&bed.vfs, &bed.remote).unwrap();
        let other = fs::metadata(bed.path("other")).unwrap().ino();
        assert!(bed.meta.inode(other).unwrap().unwrap().remote.is_some());
    });
}

#[test]
fn what_makes_no_sense_of_a_tree_is_refused() {
    both(|bed| {
        fs::create_dir_all(bed.path("d/e/f")).unwrap();
        fs::create_dir(bed.path("empty")).unwrap();
        fs::write(bed.path("file"), b"1").unwrap();
        let rename = |from: &str, to: &str| fs::rename(bed.path(from), bed.path(to));
        fails(rename("d", "d/e/f/d"), libc::EINVAL);
        fails(rename("d", "d/d"), libc::EINVAL);
        fails(rename("empty", "d"), libc::ENOTEMPTY);
        fails(rename("d/e/f", "d"), libc::ENOTEMPTY);
        fails(rename("file", "empty"), libc::EISDIR);
        fails(rename("empty", "file"), libc::ENOTDIR);
        fails(rename("none", "file"), libc::ENOENT);
        fails(rename("file", "none/file"), libc::ENOENT);
        fails(rename("file", "file/below"), libc::ENOTDIR);
        fails(rename("file", "new/"), libc::ENOTDIR);
        fails(rename("d/.", "new"), libc::EBUSY);
        fails(rename("d", "file/.."), libc::ENOTDIR);
        rename("d", "d").unwrap();

        let with =
            |from: &str, to: &str, flags| rustix::fs::renameat_with(CWD, bed.path(from), CWD, bed.path(to), flags);
        assert_eq!(with("file", "empty", RenameFlags::NOREPLACE), Err(Errno::EXIST));
        assert_eq!(with("file", "none", RenameFlags::EXCHANGE), Err(Errno::NOENT));
        assert_eq!(with("d", "d/e", RenameFlags::EXCHANGE), Err(Errno::INVAL));
        assert_eq!(with("d/e", "d", RenameFlags::EXCHANGE), Err(Errno::INVAL));
        assert_eq!(with("file", "new", RenameFlags::NOREPLACE | RenameFlags::EXCHANGE), Err(Errno::INVAL));
        assert_eq!(with("file", "new", RenameFlags::WHITEOUT), Err(Errno::INVAL));

        fails(fs::remove_dir(bed.path("d")), libc::ENOTEMPTY);
        fails(fs::remove_dir(bed.path("file")), libc::ENOTDIR);
        fails(fs::remove_dir(bed.path("empty/.")), libc::EINVAL);
        fails(fs::remove_dir(bed.path("empty/..")), libc::ENOTEMPTY);
        fails(fs::remove_dir(bed.point.path()), libc::EBUSY);
        fails(fs::remove_file(bed.path("d")), libc::EISDIR);
        fails(fs::remove_file(bed.path("none")), libc::ENOENT);
        fails(fs::hard_link(bed.path("d"), bed.path("link")), libc::EPERM);
        fails(fs::hard_link(bed.path("file"), bed.path("empty")), libc::EEXIST);
        fails(fs::hard_link(bed.path("file"), bed.state.path().join("link")), libc::EXDEV);
        fails(fs::create_dir(bed.path("file/below")), libc::ENOTDIR);
        fails(fs::create_dir(bed.path("d")), libc::EEXIST);
        fails(File::create(bed.path("d")), libc::EISDIR);
        fails(fs::read(bed.path("d")), libc::EISDIR);
        fails(fs::read_dir(bed.path("file")), libc::ENOTDIR);
        fails(fs::read_link(bed.path("file")), libc::EINVAL);
        assert_eq!(fs::read_dir(bed.point.path()).unwrap().count(), 3, "and nothing has come of it");
    });
}

/// What a child of this process is told when it does this.
fn in_child(work: impl Fn() -> std::io::Result<()> + Send + Sync + 'static) -> Option<i32> {
    let mut child = Command::new("true");
    // SAFETY: between fork and exec `work` makes system calls with what was prepared before, and allocates nothing.
    unsafe { child.pre_exec(work) };
    match child.status() {
        Ok(status) => {
            assert!(status.success());
            None
        }
        Err(error) => error.raw_os_error(),
    }
}

fn told(result: i32) -> std::io::Result<()> {
    if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[test]
fn locks_hold_between_processes() {
    both(|bed| {
        let path = bed.path("a");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let fd = file.as_raw_fd();
        let range = |kind: i32, from: i64, len: i64| libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: from,
            l_len: len,
            l_pid: 0,
        };
        // SAFETY: the lock outlives the call, and the descriptor is open, in a child too.
        let lock = move |kind, from, len| told(unsafe { libc::fcntl(fd, libc::F_SETLK, &range(kind, from, len)) });
        lock(libc::F_WRLCK, 0, 10).unwrap();
        assert_eq!(in_child(move || lock(libc::F_RDLCK, 9, 1)), Some(libc::EAGAIN));
        assert_eq!(in_child(move || lock(libc::F_WRLCK, 10, 0)), None);
        lock(libc::F_RDLCK, 0, 5).unwrap();
        assert_eq!(in_child(move || lock(libc::F_RDLCK, 0, 5)), None);
        assert_eq!(in_child(move || lock(libc::F_WRLCK, 4, 1)), Some(libc::EAGAIN));
        // Closing any descriptor of the file gives them all back.
        drop(File::open(&path).unwrap());
        assert_eq!(in_child(move || lock(libc::F_WRLCK, 0, 0)), None);

        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let flock = move |how| {
            // A description of its own: an inherited one shares the lock.
            // SAFETY: the name ends with a zero and outlives the call.
            let fd = unsafe { libc::open(name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
            told(fd)?;
            // SAFETY: the descriptor was just opened.
            told(unsafe { libc::flock(fd, how | libc::LOCK_NB) })
        };
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared).unwrap();
        let (shared, exclusive, after) = (flock.clone(), flock.clone(), flock);
        assert_eq!(in_child(move || shared(libc::LOCK_SH)), None);
        assert_eq!(in_child(move || exclusive(libc::LOCK_EX)), Some(libc::EWOULDBLOCK));
        drop(file);
        assert_eq!(in_child(move || after(libc::LOCK_EX)), None);
    });
}

#[test]
fn a_write_or_a_new_owner_takes_the_setuid_bit() {
    if !has(&[Need::Root]) {
        return;
    }
    both(|bed| {
        let root = |script: &str| shell(bed, ROOT_USER, script).unwrap_or_else(|| panic!("failed: {script}"));
        let theirs = |script: &str| shell(bed, NOBODY, script).unwrap_or_else(|| panic!("failed: {script}"));
        let mode = |name: &str| fs::metadata(bed.path(name)).unwrap().mode() & 0o7777;
        let fresh = |bits: u32| root(&format!("rm -f f; echo 1 > f; chown 65534:65534 f; chmod {bits:o} f"));
        for change in ["echo 2 >> f", "echo 2 > f", "truncate -s 1 f", "echo 2 | dd of=f conv=notrunc status=none"] {
            fresh(0o6777);
            theirs(change);
            assert_eq!(mode("f"), 0o777, "{change}");
            // Without the group's execute bit it means something else.
            fresh(0o2666);
            theirs(change);
            assert_eq!(mode("f"), 0o2666, "{change}");
            fresh(0o6777);
            root(change);
            assert_eq!(mode("f"), 0o6777, "root may keep it: {change}");
        }
        for change in ["chown 0 f", "chgrp 0 f"] {
            fresh(0o6777);
            root(change);
            assert_eq!(mode("f"), 0o777, "{change}");
        }
        fresh(0o6755);
        theirs("cat f; touch f; chmod u+w f");
        assert_eq!(mode("f"), 0o6755, "what changes no content takes nothing");
    });
}

#[test]
fn inode_numbers_and_times_outlast_a_remount_and_an_eviction() {
    for bed in [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed) {
        fs::create_dir(bed.path("dir")).unwrap();
        fs::write(bed.path("dir/file"), b"content").unwrap();
        fs::hard_link(bed.path("dir/file"), bed.path("linked")).unwrap();
        symlink("dir", bed.path("symlink")).unwrap();
        rustix::fs::mknodat(CWD, bed.path("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for (n, name) in ["dir/file", "symlink", "fifo", "dir"].iter().enumerate() {
            let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_780 + n as i64 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, bed.path(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
        let all = |bed: &Bed| {
            ["", "dir", "dir/file", "linked", "symlink", "fifo"].map(|name| {
                let shown = fs::symlink_metadata(bed.path(name)).unwrap();
                (name, shown.ino(), shown.nlink(), shown.mtime(), shown.mtime_nsec(), shown.mode())
            })
        };
        let before = all(&bed);
        assert_eq!(before[2].1, before[3].1);
        assert_eq!(before[2].4, 123_456_780);
        assert!(fs::symlink_metadata(bed.path("fifo")).unwrap().file_type().is_fifo());
        let bed = bed.remount();
        assert_eq!(all(&bed), before);
        bed.evict(1);
        assert_eq!(fs::read(bed.path("linked")).unwrap(), b"content");
        assert_eq!(all(&bed), before);
        let bed = bed.remount();
        assert_eq!(all(&bed), before);
    }
}

#[test]
fn appends_of_many_lose_nothing() {
    const WRITERS: usize = 8;
    const EACH: usize = 200;
    both(|bed| {
        let path = bed.path("log");
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let path = &path;
                scope.spawn(move || {
                    let mut log = OpenOptions::new().append(true).create(true).open(path).unwrap();
                    for n in 0..EACH {
                        log.write_all(format!("{writer} {n} {}\n", "-".repeat(n)).as_bytes()).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        let mut next = [0; WRITERS];
        for line in text.lines() {
            let (writer, rest) = line.split_once(' ').unwrap();
            let next = &mut next[writer.parse::<usize>().unwrap()];
            assert_eq!(rest, format!("{next} {}", "-".repeat(*next)), "each writer's lines, whole and in order");
            *next += 1;
        }
        assert_eq!(next, [EACH; WRITERS]);
    });
}

/// More entries than one call lists.
#[test]
fn a_listing_has_what_stays_once_while_others_come_and_go() {
    const STAY: usize = 400;
    both(|bed| {
        let name = |n: usize| format!("{n:03} {}", "stays ".repeat(20));
        for n in 0..STAY {
            fs::write(bed.path(&name(n)), b"").unwrap();
        }
        let done = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in (0..STAY).cycle().take_while(|_| !done.load(relaxed)) {
                    let (new, moved) =
                        (bed.path(&format!("{n:03} comes")), bed.path(&format!("{:03} moved", STAY - n)));
                    fs::write(&new, b"").unwrap();
                    fs::rename(&new, &moved).unwrap();
                    fs::remove_file(&moved).unwrap();
                }
            });
            for _ in 0..20 {
                let mut listed: Vec<_> = fs::read_dir(bed.point.path())
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                listed.sort();
                let stay: Vec<_> = listed.iter().filter(|name| name.contains("stays")).cloned().collect();
                assert_eq!(stay, (0..STAY).map(name).collect::<Vec<_>>());
                let all = listed.len();
                listed.dedup();
                assert_eq!(listed.len(), all, "a name twice in one listing");
            }
            done.store(true, relaxed);
        });
        assert_eq!(fs::read_dir(bed.point.path()).unwrap().count(), STAY);
    });
}
