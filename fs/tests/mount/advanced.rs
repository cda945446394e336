//! A mount that follows what another device publishes, and one in which nothing may be changed.

use hypernet_core::tree::Inode;
use hypernet_fs::VfsError;
use hypernet_fs::vfs::{self, Caller};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

use super::*;

/// A device without a mount that publishes what the mounted one follows.
struct Writer {
    vfs: Arc<Vfs>,
    remote: Arc<MemoryRemote>,
    _state: TempDir,
}

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0o022 };
const RW: vfs::OpenFlags = vfs::OpenFlags(libc::O_RDWR | libc::O_TRUNC);

impl Writer {
    fn new(reader: &Bed) -> Self {
        let state = tempfile::tempdir().unwrap();
        let config = Config { device: DeviceTag(2), ..config(&state) };
        let vfs = Vfs::open(config, MemoryMeta::strict(), reader.remote.clone()).unwrap();
        Self { vfs, remote: reader.remote.clone(), _state: state }
    }

    fn at(&self, path: &str) -> u64 {
        self.vfs.resolve(path).unwrap()
    }

    fn split<'a>(&self, path: &'a str) -> (u64, &'a [u8]) {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.at(dir), name.as_bytes())
    }

    fn write(&self, path: &str, content: &str) {
        let (dir, name) = self.split(path);
        let ino = match self.vfs.lookup(dir, name) {
            Ok(found) => {
                self.vfs.open_file(ME, found.ino, RW, false).unwrap();
                found.ino
            }
            Err(_) => self.vfs.create(ME, dir, name, 0o644, RW, false).unwrap().0.ino,
        };
        self.vfs.write(ino, 0, content.as_bytes(), false).unwrap();
        self.vfs.release(ino, RW).unwrap();
    }

    fn mkdir(&self, path: &str) {
        let (dir, name) = self.split(path);
        self.vfs.mkdir(ME, dir, name, 0o755).unwrap();
    }

    fn link(&self, from: &str, to: &str) {
        let (dir, name) = self.split(to);
        self.vfs.link(self.at(from), dir, name).unwrap();
    }

    fn remove(&self, path: &str) {
        let (dir, name) = self.split(path);
        self.vfs.unlink(dir, name).or_else(|_| self.vfs.rmdir(dir, name)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        let ((from, name), (to, new)) = (self.split(from), self.split(to));
        self.vfs.rename(from, name, to, new, vfs::RenameFlags::Replace).unwrap();
    }

    fn set_mode(&self, path: &str, mode: u32) {
        let set = vfs::SetAttr { mode: Some(mode), ..vfs::SetAttr::default() };
        self.vfs.setattr(ME, self.at(path), set).unwrap();
    }

    /// Publishes what changed, and moves the other on to it. The kernel reports a close when it likes, and until then what
    /// was read counts as being read.
    fn publish_to(&self, reader: &Bed) {
        let root: Inode = publish(&self.vfs, &self.remote).unwrap().unwrap();
        loop {
            match reader.vfs.advance(VOLUME, root.clone()) {
                Err(VfsError::Busy) => std::thread::yield_now(),
                done => return done.unwrap(),
            }
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_another_device_published_is_seen_at_once_through_the_kernel() {
    both(|bed| {
        let writer = Writer::new(bed);
        let path = |name: &str| bed.path(name);
        // The kernel keeps that there is nothing, too.
        assert!(!path("dir").exists() && names(&path("")).is_empty());
        for dir in ["dir", "dir/sub", "dir/gone", "swapped"] {
            writer.mkdir(dir);
        }
        for file in ["longer", "shorter", "empty", "mode", "old", "removed", "sub/deep", "gone/x"] {
            writer.write(&format!("dir/{file}"), &format!("old content of {file}"));
        }
        writer.write("swapping", "a file");
        writer.link("dir/shorter", "swapped/linked");
        writer.publish_to(bed);
        let look = || {
            let mut all: Vec<(String, u64, i64, u32)> = Vec::new();
            for dir in ["", "dir", "dir/sub", "dir/gone", "swapped"] {
                for name in names(&path(dir)) {
                    let file = path(dir).join(&name);
                    let shown = fs::metadata(&file).unwrap();
                    if shown.is_file() {
                        assert_eq!(read(&file).len() as u64, shown.len());
                    }
                    all.push((name, shown.len(), shown.mtime_nsec(), shown.mode()));
                }
            }
            all
        };
        assert_eq!(look(), look());
        assert_eq!(read(&path("dir/sub/deep")), "old content of sub/deep");
        assert!(!path("dir/new").exists() && !path("dir/sub/moved").exists());
        let inos = ["dir/longer", "dir/old", "dir/sub"].map(|name| fs::metadata(path(name)).unwrap().ino());
        // Something is held that goes.
        let held = File::open(path("dir/removed")).unwrap();
        // After a read the kernel asks for attributes anyway; now it has all of them.
        for name in ["dir/mode", "dir/sub", "dir/removed"] {
            assert_eq!(fs::metadata(path(name)).unwrap().mode() & 0o600, 0o600);
        }

        writer.write("dir/longer", "the new content, which is longer than the old");
        writer.write("dir/shorter", "short");
        writer.vfs.truncate(ME, writer.at("dir/empty"), 0).unwrap();
        writer.set_mode("dir/mode", 0o600);
        writer.set_mode("dir/sub", 0o700);
        writer.rename("dir/old", "dir/sub/moved");
        ["dir/removed", "dir/gone/x", "dir/gone"].iter().for_each(|name| writer.remove(name));
        writer.write("dir/new", "new");
        writer.write("dir/sub/deep", "DEEP");
        writer.remove("swapping");
        writer.mkdir("swapping");
        writer.write("swapping/in it", "in it");
        writer.publish_to(bed);

        // By name, before anything is listed.
        let size = |name: &str| fs::metadata(path(name)).unwrap().len();
        assert_eq!((size("dir/longer"), size("dir/shorter"), size("dir/empty"), size("swapped/linked")), (45, 5, 0, 5));
        assert_eq!(read(&path("dir/longer")), "the new content, which is longer than the old");
        assert_eq!((read(&path("dir/shorter")), read(&path("swapped/linked"))), ("short".into(), "short".into()));
        assert_eq!((read(&path("dir/empty")), read(&path("dir/new"))), (String::new(), "new".into()));
        assert_eq!(
            (read(&path("dir/sub/moved")), read(&path("dir/sub/deep"))),
            ("old content of old".into(), "DEEP".into())
        );
        for gone in ["dir/old", "dir/removed", "dir/gone", "dir/gone/x"] {
            assert_eq!(fs::metadata(path(gone)).unwrap_err().raw_os_error(), Some(libc::ENOENT), "{gone}");
        }
        assert_eq!(fs::metadata(path("dir/mode")).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(path("dir/sub")).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(
            (names(&path("swapping")), read(&path("swapping/in it"))),
            (vec!["in it".to_owned()], "in it".into())
        );
        assert_eq!(names(&path("dir")), ["empty", "longer", "mode", "new", "shorter", "sub"]);
        assert_eq!(
            (names(&path("dir/sub")), names(&path(""))),
            (vec!["deep".into(), "moved".into()], vec!["dir".into(), "swapped".into(), "swapping".to_owned()])
        );
        let now = ["dir/longer", "dir/sub/moved", "dir/sub"].map(|name| fs::metadata(path(name)).unwrap().ino());
        assert_eq!(now, inos);
        for name in ["dir/longer", "dir/mode", "dir/sub", "swapped/linked"] {
            let (shown, published) = (fs::metadata(path(name)).unwrap(), writer.vfs.getattr(writer.at(name)).unwrap());
            let time = |time: hypernet_core::time::Timespec| (time.seconds, i64::from(time.nanos));
            assert_eq!((shown.mtime(), shown.mtime_nsec()), time(published.mtime), "{name}");
            assert_eq!((shown.ctime(), shown.ctime_nsec()), time(published.ctime), "{name}");
        }
        // Who has it reads it still.
        let mut content = String::new();
        (&held).read_to_string(&mut content).unwrap();
        assert_eq!((content.as_str(), held.metadata().unwrap().nlink()), ("old content of removed", 0));
        // And it can be changed here.
        fs::write(path("dir/empty"), "mine").unwrap();
        assert_eq!((read(&path("dir/empty")), size("dir/empty")), ("mine".into(), 4));
    });
}

#[test]
fn whoever_reads_a_file_reads_on_and_whoever_opens_it_gets_what_it_is() {
    both(|bed| {
        let writer = Writer::new(bed);
        writer.write("page", "old");
        writer.write("log", "begun, ");
        writer.publish_to(bed);
        // All of it is here when it is opened: so the kernel reads past its cache, where it can do that.
        assert_eq!((read(&bed.path("page")).as_str(), read(&bed.path("log")).as_str()), ("old", "begun, "));
        let (mut page, mut log) = (File::open(bed.path("page")).unwrap(), File::open(bed.path("log")).unwrap());
        let rest = |file: &mut File| {
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            content
        };
        assert_eq!(rest(&mut log), "begun, ");
        writer.write("page", "new and longer");
        writer.write("log", "begun, and more");
        let root = publish(&writer.vfs, &writer.remote).unwrap().unwrap();
        while bed.vfs.advance(VOLUME, root.clone()) == Err(VfsError::Busy) {
            std::thread::yield_now();
        }
        assert_eq!((rest(&mut page).as_str(), read(&bed.path("page")).as_str()), ("old", "new and longer"));
        let is_same =
            |file: &File, name: &str| file.metadata().unwrap().ino() == fs::metadata(bed.path(name)).unwrap().ino();
        assert!(!is_same(&page, "page"));
        match bed.mounted.as_ref().unwrap().profile() {
            Profile::Passthrough => {
                assert_eq!((log.metadata().unwrap().len(), rest(&mut log).as_str()), (15, "and more"));
                assert!(is_same(&log, "log"));
            }
            Profile::Writeback => assert_eq!(rest(&mut log), ""),
        }
        assert_eq!(read(&bed.path("log")), "begun, and more");
        // Who writes by name writes to what it is now, and nobody to what it was.
        OpenOptions::new().append(true).open(bed.path("page")).unwrap().write_all(b"!").unwrap();
        assert_eq!(read(&bed.path("page")), "new and longer!");
        let what_it_was = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&page));
        let refused = OpenOptions::new().write(true).open(what_it_was).map(drop).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ESTALE));
        page.seek(std::io::SeekFrom::Start(0)).unwrap();
        assert_eq!(rest(&mut page), "old");
    });
}

#[test]
fn where_nothing_may_be_changed_every_system_call_says_so() {
    both(|bed| {
        let writer = Writer::new(bed);
        writer.mkdir("dir");
        writer.mkdir("dir/empty");
        writer.write("dir/a", "content");
        writer.set_mode("dir/a", 0o666);
        writer.publish_to(bed);
        bed.vfs.set_read_only(VOLUME, true);
        let (dir, a) = (bed.path("dir"), bed.path("dir/a"));
        let refused = |what: &str, result: std::io::Result<()>| {
            assert_eq!(result.map_err(|error| error.raw_os_error()), Err(Some(libc::EROFS)), "{what}");
        };
        refused("open", OpenOptions::new().write(true).open(&a).map(drop));
        refused("append", OpenOptions::new().append(true).open(&a).map(drop));
        refused("O_TRUNC", File::create(&a).map(drop));
        refused("create", File::create(dir.join("new")).map(drop));
        refused("mkdir", fs::create_dir(dir.join("new")));
        refused("mkdir at the root", fs::create_dir(bed.path("new")));
        refused("symlink", symlink("a", dir.join("new")));
        refused("link", fs::hard_link(&a, dir.join("new")));
        refused("unlink", fs::remove_file(&a));
        refused("rmdir", fs::remove_dir(dir.join("empty")));
        refused("rename", fs::rename(&a, dir.join("b")));
        refused("chmod", fs::set_permissions(&a, fs::Permissions::from_mode(0o600)));
        refused("chown", std::os::unix::fs::chown(&a, None, Some(rustix::process::getegid().as_raw())));
        refused("truncate", {
            let path = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(a.as_os_str())).unwrap();
            // SAFETY: the path ends with a zero.
            match unsafe { libc::truncate(path.as_ptr(), 3) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
        let times = Timestamps {
            last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
            last_modification: Timespec { tv_sec: 1, tv_nsec: 0 },
        };
        refused("utimensat", rustix::fs::utimensat(CWD, &a, &times, AtFlags::empty()).map_err(Into::into));
        refused("setxattr", rustix::fs::setxattr(&a, "user.k", b"v", XattrFlags::empty()).map_err(Into::into));
        refused("removexattr", rustix::fs::removexattr(&a, "user.k").map_err(Into::into));
        assert_eq!((read(&a), names(&dir)), ("content".into(), vec!["a".into(), "empty".to_owned()]));
        assert_eq!(bed.vfs.pending(VOLUME).files, 0);
        // It follows all the same.
        writer.write("dir/a", "CONTENT!");
        writer.publish_to(bed);
        assert_eq!(read(&a), "CONTENT!");
    });
}

/// However closely they follow one another.
#[test]
fn whoever_reads_meanwhile_has_one_version_or_another() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let content = |n: usize| format!("{n:08} ").repeat(1 + n * 7919 % 2_000);
    let version = |file: &Path| read(file).get(..8).map(|n| n.parse::<usize>().unwrap());
    both(|bed| {
        let writer = Writer::new(bed);
        let publish = |n: usize| {
            for name in ["a", "b"] {
                writer.write(name, &content(n));
            }
            writer.publish_to(bed);
        };
        publish(0);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let (file, done) = (bed.path(name), &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let found = read(&file);
                        let n: usize = found[..8].parse().unwrap();
                        assert!(found == content(n), "{} bytes of {n}", found.len());
                        assert!(fs::metadata(&file).unwrap().len() % 9 == 0);
                        std::thread::yield_now();
                    }
                });
            }
            (1..40).for_each(publish);
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!([version(&bed.path("a")), version(&bed.path("b"))], [Some(39), Some(39)]);
    });
}
