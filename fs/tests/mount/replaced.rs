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
