//! The tree in which something is undone: what is where, and all that is done to it.
//!
//! Invariants: no symbolic link is followed on the way to a place; what comes to a place is complete when it comes there; nothing is
//! ever put where something is, but for the content of a file, which takes the place of the one from before at once. When it is
//! only tried out nothing of that is done, and what would be where is known all the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, linkat, mkdirat, open, openat, openat2,
    renameat_with, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::metadata::{About, Settings, at};
use super::moves::join;

/// Beside the place where something goes, while it is copied.
const BESIDE: &str = ".hn-revert-";
/// How far a copy has come is shown as often as this.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For a file of at most so many bytes no program is started.
const SMALL_MAX: u64 = 256 << 10;

/// What cannot be done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// As long as something else is as it is.
    Yet(String),
    /// At all.
    Ever(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let of_kind = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
        match error.kind() {
            io::ErrorKind::AlreadyExists => Self::Yet("something else is in its place".to_owned()),
            io::ErrorKind::DirectoryNotEmpty => Self::Yet("it is not empty".to_owned()),
            io::ErrorKind::InvalidInput => Self::Yet("its place would be in itself".to_owned()),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                Self::Yet("the directory that it was in is not there".to_owned())
            }
            _ if of_kind(Errno::LOOP) => Self::Ever("a symbolic link is on the way to it".to_owned()),
            _ if of_kind(Errno::BUSY) => Self::Ever("it is in use".to_owned()),
            _ => Self::Ever(error.to_string()),
        }
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Where what would be at a place lies.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seat {
    Gone,
    /// In the tree.
    Real(PathBuf),
    /// In a snapshot.
    Then(PathBuf),
}

/// What would have been done.
#[derive(Debug, Default)]
struct Imagined(BTreeMap<PathBuf, Seat>);

impl Imagined {
    fn seat(&self, path: &Path) -> Seat {
        let told = path.ancestors().find_map(|above| Some((above, self.0.get(above)?)));
        match told {
            None => Seat::Real(path.to_owned()),
            Some((above, seat)) if above == path => seat.clone(),
            Some((above, Seat::Real(real))) => Seat::Real(join(real, path.strip_prefix(above).unwrap_or(path))),
            // A directory that comes back is empty at first.
            Some(_) => Seat::Gone,
        }
    }

    fn below(&self, path: &Path) -> impl Iterator<Item = (&PathBuf, &Seat)> {
        let from = self.0.range(path.to_owned()..);
        from.take_while(move |(other, _)| other.starts_with(path)).filter(move |(other, _)| *other != path)
    }

    /// What is at a place, with all that is told of what is below it.
    fn take(&mut self, path: &Path) -> Vec<(PathBuf, Seat)> {
        let mut taken = vec![(PathBuf::new(), self.seat(path))];
        let below: Vec<PathBuf> = self.below(path).map(|(other, _)| other.clone()).collect();
        for other in below {
            let rest = other.strip_prefix(path).unwrap_or(&other).to_owned();
            taken.extend(self.0.remove(&other).map(|seat| (rest, seat)));
        }
        self.0.insert(path.to_owned(), Seat::Gone);
        taken
    }

    fn put(&mut self, path: &Path, taken: Vec<(PathBuf, Seat)>) {
        self.0.extend(taken.into_iter().map(|(rest, seat)| (join(path, &rest), seat)));
    }
}

/// What a file is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// What this file holds, or where this symbolic link leads.
    Of(&'a Path),
    /// This.
    Bytes(&'a [u8]),
}

/// The tree.
#[derive(Debug)]
pub(super) struct Ground {
    root: OwnedFd,
    /// When it was looked at; none: nothing is done.
    since: Option<SystemTime>,
    imagined: Imagined,
    /// Files that somebody has open for writing, by device and number.
    busy: HashSet<(u64, u64)>,
    /// Directories in which something was copied, or would be.
    pub(super) touched: BTreeSet<PathBuf>,
}

/// The directory of a place, and its name in it.
fn split(path: &Path) -> (&Path, &Path) {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (dir, path.file_name().map_or(Path::new("."), Path::new))
}

fn beside() -> PathBuf {
    format!("{BESIDE}{}", std::process::id()).into()
}

/// Whether it is the copy of a process that was ended before that has got its place.
fn is_left_over(name: &[u8]) -> bool {
    let Some(pid) = name.strip_prefix(BESIDE.as_bytes()).and_then(|pid| std::str::from_utf8(pid).ok()) else {
        return false;
    };
    let is_running = pid != std::process::id().to_string() && Path::new("/proc").join(pid).exists();
    !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) && !is_running
}

/// Files below a mount that somebody has open for writing. Of processes of others nothing is told to everybody.
fn busy(mount: &Path) -> HashSet<(u64, u64)> {
    let list = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let is_number = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_bytes()[0].is_ascii_digit());
    let writes = |fd: &PathBuf| {
        let info = fd.parent()?.with_file_name("fdinfo").join(fd.file_name()?);
        let info = fs::read_to_string(info).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        Some(u32::from_str_radix(flags.trim(), 8).ok()? & OFlags::ACCMODE.bits() != OFlags::RDONLY.bits())
    };
    let open = list("/proc".into()).filter(is_number).flat_map(|process| list(process.join("fd")));
    let below = open.filter(|fd| fs::read_link(fd).is_ok_and(|to| to.starts_with(mount)));
    let written = below.filter(|fd| writes(fd).unwrap_or(false)).filter_map(|fd| fs::metadata(fd).ok());
    written.map(|found| (found.dev(), found.ino())).collect()
}

impl Ground {
    /// `since`: when it was looked at; without it nothing is done.
    pub(super) fn new(root: &Path, since: Option<SystemTime>) -> io::Result<Self> {
        let dir = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let busy = busy(root);
        Ok(Self { root: dir, since, imagined: Imagined::default(), busy, touched: BTreeSet::new() })
    }

    fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(openat2(&self.root, path, flags, Mode::empty(), resolve)?)
    }

    /// Calls with a path for what is at a place; the path is good only there.
    fn with<T>(&self, path: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        match self.imagined.seat(path) {
            Seat::Gone => Err(io::ErrorKind::NotFound.into()),
            Seat::Then(then) => call(&then),
            Seat::Real(real) => {
                let (dir, name) = split(&real);
                let dir = self.open_dir(dir)?;
                call(&at(&dir, name))
            }
        }
    }

    /// What is at a place.
    pub(super) fn look(&self, path: &Path) -> io::Result<Option<Metadata>> {
        match self.with(path, |path| fs::symlink_metadata(path)) {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn about(&self, path: &Path) -> io::Result<About> {
        self.with(path, About::read)
    }

    /// Opens a file.
    pub(super) fn read(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.with(path, |path| Ok(open(path, flags, Mode::empty())?.into()))
    }

    /// Calls with the directory of a place, and the name in it.
    pub(super) fn in_dir<T>(&self, path: &Path, call: impl FnOnce(&Path, &Path) -> T) -> io::Result<T> {
        self.with(path, |path| {
            let (dir, name) = split(path);
            Ok(call(dir, name))
        })
    }

    /// Where a symbolic link leads that is at a place.
    pub(super) fn target(&self, path: &Path) -> io::Result<PathBuf> {
        self.with(path, |path| fs::read_link(path))
    }

    /// Whether somebody is writing to a file, or has since all was looked at.
    pub(super) fn check_quiet(&self, found: &Metadata) -> Result<(), Refusal> {
        if self.busy.contains(&(found.dev(), found.ino())) {
            return Err(Refusal::Ever("somebody has it open for writing".to_owned()));
        }
        let written = found.modified().map_err(Refusal::from)?;
        // Any time can be set; what is not over yet is none at which something was written.
        match self.since.is_some_and(|since| written >= since && written <= SystemTime::now()) {
            true => Err(Refusal::Ever("it was written to just now".to_owned())),
            false => Ok(()),
        }
    }

    /// Takes away what is at a place; of directories only one that is empty.
    pub(super) fn remove(&mut self, path: &Path, is_dir: bool) -> Result<(), Refusal> {
        if self.since.is_none() {
            if is_dir && !self.would_be_empty(path)? {
                return Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty).into());
            }
            self.imagined.take(path);
            return Ok(());
        }
        let (dir, name) = split(path);
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(unlinkat(self.open_dir(dir)?, name, flags)?)
    }

    fn would_be_empty(&self, path: &Path) -> io::Result<bool> {
        if self.imagined.below(path).any(|(_, seat)| *seat != Seat::Gone) {
            return Ok(false);
        }
        let Seat::Real(real) = self.imagined.seat(path) else { return Ok(true) };
        for entry in fs::read_dir(at(&self.open_dir(split(&real).0)?, split(&real).1))? {
            if self.imagined.seat(&path.join(entry?.file_name())) != Seat::Gone {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives something another name, which must be free; or the name of something else, which gets its name.
    pub(super) fn rename(&mut self, from: &Path, to: &Path, is_exchange: bool) -> Result<(), Refusal> {
        if self.since.is_none() {
            let is_free = self.look(to)?.is_none();
            let is_reached = self.look(split(to).0)?.is_some_and(|dir| dir.is_dir());
            let is_in_itself = to.starts_with(from) || is_exchange && from.starts_with(to);
            match (is_free || is_exchange, is_in_itself, is_reached) {
                (false, ..) => return Err(io::Error::from(io::ErrorKind::AlreadyExists).into()),
                (_, true, _) => return Err(io::Error::from(io::ErrorKind::InvalidInput).into()),
                (.., false) => return Err(io::Error::from(io::ErrorKind::NotFound).into()),
                _ => {}
            }
            let (one, other) = (self.imagined.take(from), self.imagined.take(to));
            self.imagined.put(to, one);
            if is_exchange {
                self.imagined.put(from, other);
            }
            return Ok(());
        }
        let flags = if is_exchange { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let [(old_dir, old), (new_dir, new)] = [split(from), split(to)];
        Ok(renameat_with(self.open_dir(old_dir)?, old, self.open_dir(new_dir)?, new, flags)?)
    }

    fn touch(&mut self, path: &Path) {
        self.touched.insert(split(path).0.to_owned());
    }

    /// Puts what was into a place that is free. A directory comes empty.
    pub(super) fn put(&mut self, path: &Path, then: &Path, show: &mut dyn FnMut(u64)) -> Result<(), Refusal> {
        self.touch(path);
        let (dir, name) = split(path);
        if self.since.is_none() {
            let is_reached = self.look(dir)?.is_some_and(|dir| dir.is_dir());
            if !is_reached {
                return Err(io::Error::from(io::ErrorKind::NotFound).into());
            }
            self.imagined.put(path, vec![(PathBuf::new(), Seat::Then(then.to_owned()))]);
            return Ok(());
        }
        let dir = self.open_dir(dir)?;
        let beside = Beside::new(&dir);
        match fs::symlink_metadata(then)?.is_dir() {
            true => {
                mkdirat(&dir, &beside.name, Mode::RWXU)?;
                About::read(then)?.settings().apply(&dir, &beside.name)?;
            }
            false => copy(true, then, &dir, &beside.name, show)?,
        }
        Ok(renameat_with(&dir, &beside.name, &dir, name, RenameFlags::NOREPLACE)?)
    }

    /// Gives a file another name, which must be free.
    pub(super) fn link(&mut self, from: &Path, to: &Path) -> Result<(), Refusal> {
        if self.since.is_none() {
            let seat = self.imagined.seat(from);
            self.imagined.put(to, vec![(PathBuf::new(), seat)]);
            return Ok(());
        }
        let [(old_dir, old), (new_dir, new)] = [split(from), split(to)];
        Ok(linkat(self.open_dir(old_dir)?, old, self.open_dir(new_dir)?, new, AtFlags::empty())?)
    }

    /// A file holds something else from now on, all at once; all else of it stays.
    pub(super) fn fill(&mut self, path: &Path, to: Content<'_>, show: &mut dyn FnMut(u64)) -> Result<(), Refusal> {
        self.touch(path);
        if self.since.is_none() {
            return Ok(());
        }
        let (dir, name) = split(path);
        let dir = self.open_dir(dir)?;
        let about = About::read(&at(&dir, name))?;
        let beside = Beside::new(&dir);
        match to {
            Content::Of(then) => copy(false, then, &dir, &beside.name, show)?,
            Content::Bytes(bytes) => create(&dir, &beside.name)?.write_all(bytes)?,
        }
        about.settings().apply(&dir, &beside.name)?;
        // It may have taken long.
        self.check_quiet(&fs::symlink_metadata(at(&dir, name))?)?;
        Ok(renameat_with(&dir, &beside.name, &dir, name, RenameFlags::empty())?)
    }

    /// Sets modes, owners and attributes.
    pub(super) fn set(&mut self, path: &Path, settings: &Settings) -> Result<(), Refusal> {
        if self.since.is_none() {
            return Ok(());
        }
        let (dir, name) = split(path);
        Ok(settings.apply(&self.open_dir(dir)?, name)?)
    }

    /// Sets the times that a directory had.
    pub(super) fn set_times(&self, path: &Path, then: &Path) -> io::Result<()> {
        if self.since.is_none() {
            return Ok(());
        }
        let (dir, name) = split(path);
        set_times(&self.open_dir(dir)?, name, &fs::symlink_metadata(then)?)
    }

    /// Takes away what a process has left in these directories that was ended in the middle of it.
    pub(super) fn clean(&self, dirs: &BTreeSet<PathBuf>) {
        for path in dirs {
            let Ok(dir) = self.open_dir(path) else { continue };
            let entries = fs::read_dir(at(&dir, Path::new("."))).into_iter().flatten().filter_map(Result::ok);
            for name in entries.map(|entry| entry.file_name()).filter(|name| is_left_over(name.as_bytes())) {
                drop(Beside { dir: &dir, name: name.into() });
            }
        }
    }
}

/// A copy that is taken away again unless it has got its place.
struct Beside<'a> {
    dir: &'a OwnedFd,
    name: PathBuf,
}

impl<'a> Beside<'a> {
    fn new(dir: &'a OwnedFd) -> Self {
        // Whoever had this number before is gone.
        drop(Self { dir, name: beside() });
        Self { dir, name: beside() }
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if unlinkat(self.dir, &self.name, AtFlags::empty()) == Err(Errno::ISDIR) {
            let _ = unlinkat(self.dir, &self.name, AtFlags::REMOVEDIR);
        }
    }
}

/// A file of its own that nobody else reads yet.
fn create(dir: &OwnedFd, name: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Times of what was, for what has come of it.
fn set_times(dir: &OwnedFd, name: &Path, then: &Metadata) -> io::Result<()> {
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let last_access = time(then.atime(), then.atime_nsec());
    let last_modification = time(then.mtime(), then.mtime_nsec());
    let times = Timestamps { last_access, last_modification };
    Ok(utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Copies what is no directory, and shows how many bytes there are by now.
fn copy(is_whole: bool, from: &Path, dir: &OwnedFd, name: &Path, show: &mut dyn FnMut(u64)) -> Result<(), Refusal> {
    let found = fs::symlink_metadata(from)?;
    if !found.is_file() || found.len() > SMALL_MAX {
        let how: &[&str] = if is_whole { &["-a"] } else { &["-R", "-P"] };
        return run_cp(how, from, dir, name, show);
    }
    create(dir, name)?.write_all(&fs::read(from)?)?;
    if is_whole {
        About::read(from)?.settings().apply(dir, name)?;
        set_times(dir, name, &found)?;
    }
    Ok(())
}

/// What is long, or special, is copied as anybody would copy it, holes and all.
fn run_cp(how: &[&str], from: &Path, dir: &OwnedFd, name: &Path, show: &mut dyn FnMut(u64)) -> Result<(), Refusal> {
    let mut cp = Command::new("cp")
        .args(how)
        .args(["-T", "--"])
        .args([from, &Path::new(".").join(name)])
        .current_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Refusal::Ever(format!("cp cannot be run: {error}")))?;
    let (tell, told) = sync_channel(1);
    if let Some(mut stderr) = cp.stderr.take() {
        // It ends with cp.
        std::thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            let _ = tell.send(said);
        });
    }
    let said = loop {
        match told.recv_timeout(LOOK_EVERY) {
            Ok(said) => break said,
            Err(RecvTimeoutError::Disconnected) => break Vec::new(),
            Err(RecvTimeoutError::Timeout) => show(fs::symlink_metadata(at(dir, name)).map_or(0, |copy| copy.len())),
        }
    };
    match cp.wait() {
        Ok(ended) if ended.success() => Ok(()),
        Ok(_) => {
            let said = String::from_utf8_lossy(&said);
            Err(Refusal::Ever(said.lines().next().unwrap_or("cp failed").to_owned()))
        }
        Err(error) => Err(Refusal::Ever(format!("cannot wait for cp: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> &Path {
        Path::new(text)
    }

    #[test]
    fn what_would_be_where_is_known_and_nothing_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(dir.path().join(name), name).unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        ["a/one", "a/b/two", "left", "right", "then"].into_iter().for_each(write);
        let then = dir.path().join("then");
        let mut ground = Ground::new(dir.path(), None).unwrap();
        let text = |ground: &Ground, at: &str| {
            let mut text = String::new();
            ground.read(path(at)).and_then(|mut file| file.read_to_string(&mut text)).map(|_| text).ok()
        };
        assert!(matches!(ground.remove(path("a"), true), Err(Refusal::Yet(_))));
        assert!(matches!(ground.rename(path("a"), path("a/b/c"), false), Err(Refusal::Yet(_))));
        assert!(matches!(ground.rename(path("left"), path("right"), false), Err(Refusal::Yet(_))));
        ground.rename(path("left"), path("right"), true).unwrap();
        assert_eq!(text(&ground, "left").as_deref(), Some("right"));
        ground.rename(path("a/b"), path("c"), false).unwrap();
        ground.remove(path("c/two"), false).unwrap();
        ground.put(path("c/three"), &then, &mut |_| {}).unwrap();
        ground.rename(path("c"), path("a/d"), false).unwrap();
        assert_eq!(text(&ground, "a/d/three").as_deref(), Some("then"));
        assert_eq!((text(&ground, "a/d/two"), text(&ground, "c/three")), (None, None));
        assert!(matches!(ground.put(path("gone/x"), &then, &mut |_| {}), Err(Refusal::Yet(_))));
        ground.remove(path("a/d/three"), false).unwrap();
        ground.remove(path("a/d"), true).unwrap();
        ground.remove(path("a/one"), false).unwrap();
        ground.remove(path("a"), true).unwrap();
        assert!(ground.look(path("a/b")).unwrap().is_none());
        assert_eq!(fs::read_to_string(dir.path().join("a/b/two")).unwrap(), "a/b/two");
        assert_eq!(fs::read_to_string(dir.path().join("left")).unwrap(), "left");
    }

    #[test]
    fn no_link_is_followed_and_what_is_in_use_is_known() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/real")).unwrap();
        fs::write(dir.path().join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        std::os::unix::fs::symlink(dir.path(), tree.join("out")).unwrap();
        let now = SystemTime::now() + Duration::from_secs(60);
        let mut ground = Ground::new(&tree, Some(now)).unwrap();
        let from = dir.path().join("file");
        for done in [
            ground.put(path("out/new"), &from, &mut |_| {}),
            ground.remove(path("out/file"), false),
            ground.fill(path("out/file"), Content::Bytes(b"y"), &mut |_| {}),
            ground.rename(path("real"), path("out/real"), false),
        ] {
            assert!(matches!(done, Err(Refusal::Ever(_))), "{done:?}");
        }
        ground.put(path("real/new"), &from, &mut |_| {}).unwrap();
        assert!(matches!(ground.put(path("real/new"), &from, &mut |_| {}), Err(Refusal::Yet(_))));
        ground.fill(path("real/new"), Content::Bytes(b"y"), &mut |_| {}).unwrap();
        assert_eq!(fs::read_to_string(tree.join("real/new")).unwrap(), "y");
        assert_eq!(fs::read_dir(tree.join("real")).unwrap().count(), 1);
        let open = fs::OpenOptions::new().append(true).open(tree.join("real/new")).unwrap();
        let ground = Ground::new(&tree, Some(now)).unwrap();
        let found = ground.look(path("real/new")).unwrap().unwrap();
        assert!(matches!(ground.check_quiet(&found), Err(Refusal::Ever(_))));
        drop(open);
        assert!(Ground::new(&tree, Some(now)).unwrap().check_quiet(&found).is_ok());
        assert!(Ground::new(&tree, Some(SystemTime::UNIX_EPOCH)).unwrap().check_quiet(&found).is_err());
    }

    #[test]
    fn what_was_left_half_done_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mine = beside();
        for name in [".hn-revert-4294967295", ".hn-revert-x", ".hn-revert-1"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join(&mine)).unwrap();
        let ground = Ground::new(dir.path(), None).unwrap();
        ground.clean(&BTreeSet::from([PathBuf::from(".")]));
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".hn-revert-1", ".hn-revert-x"]);
    }
}
