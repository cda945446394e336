//! Names that are given to something else while others use them: they lead to the old or to the new, at every moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// Replacements that every call meets.
const TIMES: usize = 400;

/// Runs `call` on and on while `replace` is done [`TIMES`] times.
#[track_caller]
fn meets(replace: impl Fn(usize), call: impl Fn() + Sync) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                call();
            }
        });
        (0..TIMES).for_each(&replace);
        done.store(true, Ordering::Relaxed);
        caller.join().unwrap();
    });
}

#[test]
fn a_file_that_is_replaced_is_there_at_every_moment() {
    both(|bed| {
        let (path, fresh) = (bed.path("current"), bed.path("fresh"));
        let replace = |n: usize| {
            fs::write(&fresh, format!("{n:08}")).unwrap();
            fs::rename(&fresh, &path).unwrap();
        };
        replace(0);
        meets(replace, || assert_eq!(fs::read(&path).unwrap().len(), 8));
        meets(replace, || drop(OpenOptions::new().read(true).write(true).open(&path).unwrap()));
        meets(replace, || drop(OpenOptions::new().write(true).create(true).truncate(false).open(&path).unwrap()));
        meets(replace, || assert_eq!(fs::metadata(&path).unwrap().len(), 8));
        meets(replace, || fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap());
        meets(replace, || assert_eq!(rustix::fs::listxattr(&path, &mut [0u8; 100]), Ok(0)));
        meets(replace, || rustix::fs::setxattr(&path, "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap());
    });
}

#[test]
fn a_link_that_is_replaced_leads_somewhere_at_every_moment() {
    both(|bed| {
        let (path, fresh) = (bed.path("current"), bed.path("fresh"));
        for name in ["0", "1"] {
            fs::write(bed.path(name), b"there").unwrap();
        }
        let replace = |n: usize| {
            symlink((n % 2).to_string(), &fresh).unwrap();
            fs::rename(&fresh, &path).unwrap();
        };
        replace(0);
        meets(replace, || assert_eq!(fs::read_link(&path).unwrap().as_os_str().len(), 1));
        meets(replace, || assert_eq!(fs::read(&path).unwrap(), b"there"));
    });
}

#[test]
fn a_file_that_comes_and_goes_is_opened_or_made() {
    both(|bed| {
        let path = bed.path("lock");
        let remove = |_| drop(fs::remove_file(&path));
        meets(remove, || drop(OpenOptions::new().write(true).create(true).truncate(false).open(&path).unwrap()));
    });
}

/// Somebody has it, though by no handle that we know of.
#[test]
fn what_is_held_by_its_path_alone_outlives_its_name() {
    both(|bed| {
        use rustix::fs::{Mode, OFlags};
        let path = bed.path("a");
        fs::write(&path, b"content").unwrap();
        let held = rustix::fs::open(&path, OFlags::PATH, Mode::empty()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        rustix::fs::setxattr(&path, "user.a", b"value", rustix::fs::XattrFlags::empty()).unwrap();
        let dir = File::open(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        let shown = |fd: &dyn std::os::fd::AsRawFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        assert_eq!(fs::read(shown(&held)).unwrap(), b"content");
        assert_eq!(fs::metadata(shown(&held)).unwrap().nlink(), 0);
        let mut value = [0; 10];
        assert_eq!(rustix::fs::fgetxattr(&dir, "user.a", &mut value), Ok(5));
        drop((held, dir));
    });
}

/// The kernel asks for attributes with a listing as soon as somebody looks names up in the directory, and believes them.
#[test]
fn a_listing_under_way_brings_no_name_back() {
    const FILES: usize = 2_000;
    both(|bed| {
        let (dir, out) = (bed.path("dir"), bed.path("out"));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&out).unwrap();
        let path = |n: usize| dir.join(n.to_string());
        for n in 0..FILES {
            fs::write(path(n), b"old").unwrap();
        }
        let mut listing = fs::read_dir(&dir).unwrap();
        listing.next().unwrap().unwrap();
        let mut held = Vec::new();
        for n in 0..FILES {
            match n % 4 {
                0 => fs::rename(path(n), out.join(n.to_string())).unwrap(),
                1 => fs::remove_file(path(n)).unwrap(),
                2 => {
                    // Who has it open keeps the old one there.
                    held.push(File::open(path(n)).unwrap());
                    fs::write(bed.path("new"), b"new").unwrap();
                    fs::rename(bed.path("new"), path(n)).unwrap();
                }
                _ => {}
            }
        }
        for (n, entry) in listing.enumerate() {
            entry.unwrap();
            if n % 20 == 0 {
                assert!(!dir.join(format!("none {n}")).exists());
            }
        }
        for n in 0..FILES {
            let found = fs::read(path(n)).ok();
            let expected = [None, None, Some(b"new".to_vec()), Some(b"old".to_vec())];
            assert_eq!(found, expected[n % 4], "file {n}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), FILES / 2);
        drop(held);
    });
}

/// A lazy unmount: the kernel says nothing of what is closed after it.
#[test]
fn what_was_open_when_a_mount_went_out_of_sight_is_closed_with_it() {
    for mut bed in [Profile::Passthrough, Profile::Writeback].into_iter().filter_map(bed) {
        let files: Vec<File> = (0..20)
            .map(|n| {
                let path = bed.path(&n.to_string());
                fs::write(&path, b"content").unwrap();
                let file = OpenOptions::new().read(true).write(n % 2 == 0).open(&path).unwrap();
                fs::remove_file(&path).unwrap();
                file
            })
            .collect();
        let mounted = bed.mounted.take().unwrap();
        mounted.detach().unwrap();
        drop(files);
        // The kernel may call that the end, or an abort.
        let _ = mounted.wait();
        bed.vfs.close(true).unwrap();
        let dirs = fs::read_dir(bed.state.path().join("data")).unwrap();
        let left: usize = dirs.map(|dir| fs::read_dir(dir.unwrap().path()).map_or(0, Iterator::count)).sum();
        assert_eq!(left, 0, "backing files of what nobody has");
    }
}
