//! `hn restore`: what was, in its place again or somewhere else.
//!
//! It is copied out of `.snapshots` by cp, beside the place where it goes, and then takes that place at once. What is there now is in a
//! snapshot that is taken first: nothing is lost by restoring the wrong thing.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use hypernet_sdk::api::{RevisionRequest, SnapRequest, VolumeInfo};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::history::{note_gap, now_revision, short};
use crate::args::history::Restore;
use crate::error::Failure;
use crate::output::bar::{Bar, Counting};
use crate::output::{Output, words};
use crate::volume_path::{self, found_at};

/// Beside the place where something goes, while it is copied.
const BESIDE: &str = ".hn-restore-";
/// Who has waited for so long is told how much there is,
const COUNT_AFTER: Duration = Duration::from_secs(1);
/// and how far a single file has come, as often as this.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines of cp that wait to be counted.
const LINES: usize = 1_024;

/// A copy that is taken away again unless it has got its place.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = match fs::symlink_metadata(&self.0) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.0),
            Ok(_) => fs::remove_file(&self.0),
            Err(_) => Ok(()),
        };
    }
}

impl Beside {
    /// It stays after all, beside what has taken its place; says where.
    fn keep(self, place: &Path) -> Result<PathBuf, Failure> {
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for number in 1.. {
            let label = if number == 1 { String::new() } else { format!(" {number}") };
            let kept = place.with_file_name(format!("{name} (before restoring{label})"));
            match renameat_with(CWD, &self.0, CWD, &kept, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(kept),
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => {
                    // It has a name of its own already.
                    let kept = self.0.clone();
                    std::mem::forget(self);
                    let what = format!("{} was written to meanwhile, and stays there", kept.quote());
                    return Err(Failure::io(what, &error.into()));
                }
            }
        }
        unreachable!("there is an end to numbers before this one")
    }
}

/// By what it is seen whether something was written to, whatever time whoever wrote it has set: which inode, when that was changed last,
/// and how long it is.
fn stamp(path: &Path) -> Option<(u64, i64, i64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.ino(), found.ctime(), found.ctime_nsec(), found.len()))
}

/// Whether something in a tree was changed after that. That its root has another name is none.
fn is_newer(root: &Path, since: SystemTime) -> bool {
    let is_root_newer =
        fs::symlink_metadata(root).and_then(|found| found.modified()).is_ok_and(|modified| modified >= since);
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
            let Ok(found) = entry.metadata() else { continue };
            let nanos = Duration::from_nanos(u64::try_from(found.ctime_nsec()).unwrap_or(0));
            let changed =
                SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(found.ctime()).unwrap_or(0)) + nanos;
            if changed >= since {
                return true;
            }
            if found.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    is_root_newer
}

/// How much there is in a directory: counted beside the copy, and only once that has taken long enough for somebody to ask.
#[derive(Default)]
struct Census {
    total: OnceLock<u64>,
    /// Nobody asks any more.
    is_over: AtomicBool,
}

impl Census {
    /// Counts what cp makes for a directory: that and all that is in it. What cannot be listed is for cp to tell.
    fn count(&self, dir: &Path) {
        let (mut total, mut waiting) = (1, vec![dir.to_owned()]);
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
                if self.is_over.load(Ordering::Relaxed) {
                    return;
                }
                total += 1;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push(entry.path());
                }
            }
        }
        let _ = self.total.set(total);
    }
}

/// How far a copy has come.
struct Progress<'a> {
    bar: Bar,
    from: &'a Path,
    to: &'a Path,
    began: Instant,
    /// Bytes, of one file.
    size: Option<u64>,
    census: Option<Arc<Census>>,
}

impl<'a> Progress<'a> {
    fn new(from: &'a Path, to: &'a Path, out: &Output) -> Self {
        let file = fs::symlink_metadata(from).ok().filter(fs::Metadata::is_file);
        let size = file.map(|file| file.len());
        Self { bar: Bar::new(out, "copying"), from, to, began: Instant::now(), size, census: None }
    }

    /// So many files and directories were begun.
    fn show(&mut self, entries: u64) {
        if self.bar.is_hidden() {
            return;
        }
        if let Some(size) = self.size {
            let done = fs::symlink_metadata(self.to).map_or(0, |copy| copy.len());
            return self.bar.count_of(Counting::Bytes, done, Some(size));
        }
        if self.census.is_none() && self.began.elapsed() > COUNT_AFTER {
            let census = Arc::new(Census::default());
            let (counted, dir) = (census.clone(), self.from.to_owned());
            // Nobody waits for it: a directory that the mesh does not give holds up cp, too.
            std::thread::spawn(move || counted.count(&dir));
            self.census = Some(census);
        }
        let total = self.census.as_ref().and_then(|census| census.total.get().copied());
        self.bar.message(match total {
            None => format!("copied {}", words::plural(entries, "file")),
            Some(_) => "copying".to_owned(),
        });
        self.bar.count_of(Counting::Files, entries, total);
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(census) = &self.census {
            census.is_over.store(true, Ordering::Relaxed);
        }
    }
}

/// Copies, and says how many files and directories there were.
fn copy(from: &Path, to: &Path, out: &Output) -> Result<u64, Failure> {
    let mut progress = Progress::new(from, to, out);
    let mut cp = Command::new("cp")
        .args(["-a", "-v", "-T", "--"])
        .args([from, to])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io("cannot run cp", &error))?;
    let said = cp.stderr.take().map(|stderr| std::thread::spawn(move || std::io::read_to_string(stderr)));
    let (tell, told) = sync_channel(LINES);
    if let Some(stdout) = cp.stdout.take() {
        // It ends when cp has closed its output, or when nobody listens.
        let tell_all =
            move || BufReader::new(stdout).split(b'\n').map_while(Result::ok).try_for_each(|_| tell.send(()));
        std::thread::spawn(tell_all);
    }
    let mut entries = 0;
    loop {
        match told.recv_timeout(LOOK_EVERY) {
            Ok(()) => entries += 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        progress.show(entries);
    }
    let ended = cp.wait().map_err(|error| Failure::io("cannot wait for cp", &error))?;
    let said = said.and_then(|said| said.join().ok()).and_then(Result::ok).unwrap_or_default();
    drop(progress);
    if ended.success() {
        return Ok(entries);
    }
    let first = said.lines().next().unwrap_or("cp failed").to_owned();
    Err(Failure::new(ErrorCode::Io, first)
        .hint("nothing was changed; `hn status` says whether the mesh can be reached"))
}

/// The directory in `.snapshots` that has this number.
pub(super) fn entered(root: &Path, id: &str) -> Result<PathBuf, Failure> {
    let past = root.join(".snapshots");
    let entries = fs::read_dir(&past).map_err(|error| Failure::io(past.display(), &error))?;
    let mut found = entries.filter_map(Result::ok).filter(|entry| {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_dir && entry.file_name().to_string_lossy().ends_with(&format!("-{}", short(id)))
    });
    found.next().map(|entry| entry.path()).ok_or_else(|| {
        Failure::new(ErrorCode::NoInput, format!("snapshot {} is not in {}", short(id), past.display()))
            .hint("try again")
    })
}

/// The volume that a path is in, unless others begin below it.
pub(super) fn volume_of(volumes: &[VolumeInfo], path: &Path, in_place: bool) -> Result<PathBuf, Failure> {
    let above = volumes.iter().filter(|volume| path.starts_with(&volume.path));
    let root = above.max_by_key(|volume| volume.path.components().count()).map(|volume| volume.path.clone());
    let root = root.unwrap_or_else(|| PathBuf::from("/"));
    let below = volumes.iter().find(|volume| volume.path.starts_with(path) && in_place);
    match below {
        Some(volume) if volume.path == path => {
            Err(Failure::new(ErrorCode::Usage, "a whole volume does not change its place")
                .hint("restore what is in it, one by one, or all of it elsewhere with --to"))
        }
        Some(volume) => {
            let text = format!("volume {} begins in it, which has a history of its own", volume.path.quote());
            Err(Failure::new(ErrorCode::Usage, text).hint("restore what is in it, one by one, or elsewhere with --to"))
        }
        None => Ok(root),
    }
}

pub(crate) async fn restore(home: Home, args: Restore, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = volume_path::inside(&status, &args.path)?;
    let root = volume_of(&client.volumes().await?, &path, args.to.is_none())?;
    let request = RevisionRequest { path: root.clone(), revision: now_revision(&args.snapshot)? };
    let meant = client.meant(request).await?;
    note_gap(&meant, &args.snapshot, out);
    let snapshot = meant.snapshot;
    let then = entered(&found_at(&status, &root)?, &snapshot.id)?.join(path.strip_prefix(&root).unwrap_or(&path));
    if let Err(error) = fs::symlink_metadata(&then) {
        let what = format!("{} was not there", args.path.quote());
        return Err(match error.kind() {
            ErrorKind::NotFound => Failure::new(ErrorCode::NoInput, what).hint("`hn log PATH` says when it changed"),
            _ => Failure::io(then.display(), &error),
        });
    }
    let there = match (&args.to, args.path.file_name()) {
        (Some(dir), Some(name)) => dir.join(name),
        (Some(dir), None) => dir.clone(),
        (None, _) => found_at(&status, &path)?,
    };
    let parent = there.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&parent).map_err(|error| Failure::io(parent.display(), &error))?;
    let (since, stood) = (SystemTime::now(), stamp(&there));
    let before = match args.to {
        Some(_) if fs::symlink_metadata(&there).is_ok() => {
            return Err(Failure::new(ErrorCode::CantCreate, format!("{} is there already", there.quote()))
                .hint("choose another directory"));
        }
        Some(_) => None,
        None => {
            let message = format!("before restoring {}", args.path.display());
            Some(client.snap(&SnapRequest { path: root, message, command: true }).await?.snapshot.id)
        }
    };
    let beside = Beside(parent.join(format!("{BESIDE}{}", std::process::id())));
    let entries = copy(&then, &beside.0, out)?;
    let moved = |flags| renameat_with(CWD, &beside.0, CWD, &there, flags).map_err(std::io::Error::from);
    let is_other = stamp(&there) != stood;
    let placed = match moved(RenameFlags::NOREPLACE) {
        // What was there is where the copy was, and goes with it.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && args.to.is_none() => moved(RenameFlags::EXCHANGE),
        other => other,
    };
    placed.map_err(|error| Failure::io(there.display(), &error))?;
    // What came after the snapshot is in nothing else.
    let is_newer = is_newer(&beside.0, since) || is_other && fs::symlink_metadata(&beside.0).is_ok();
    let kept = if is_newer { Some(beside.keep(&there)?) } else { None };
    let (from, restored) = (&snapshot.id, &there);
    out.json(&serde_json::json!({
        "restored": restored, "entries": entries, "from": from, "before": before, "kept": kept,
    }))?;
    out.line(format_args!("{} is as it was in {}", there.quote(), short(&snapshot.id)))?;
    if let Some(before) = before {
        out.note(format_args!("what was there is in {}", short(&before)));
    }
    if let Some(kept) = kept {
        out.warning(format_args!("something was written there meanwhile: all of it is kept in {}", kept.quote()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_later_is_seen_and_kept_by_a_name_that_nothing_has() {
        let dir = tempfile::tempdir().unwrap();
        let (old, place) = (dir.path().join(".hn-restore-1"), dir.path().join("place"));
        fs::create_dir_all(old.join("a/b")).unwrap();
        fs::write(old.join("a/b/f"), "x").unwrap();
        let later = SystemTime::now() + Duration::from_secs(5);
        assert!(!is_newer(&old, later));
        let file = old.join("a/b/f");
        let before = stamp(&file);
        assert!(before.is_some() && stamp(&file) == before && stamp(&place).is_none());
        fs::write(&file, "y").unwrap();
        // As cp -p and tar do.
        fs::File::open(&file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(stamp(&file), before);
        assert!(is_newer(&old, SystemTime::UNIX_EPOCH) && is_newer(&old.join("a/b/f"), SystemTime::UNIX_EPOCH));
        fs::create_dir(dir.path().join("place (before restoring)")).unwrap();
        let kept = Beside(old.clone()).keep(&place).unwrap();
        assert_eq!(kept, dir.path().join("place (before restoring 2)"));
        assert!(!old.exists() && kept.join("a/b/f").exists());
    }

    #[test]
    fn as_much_is_counted_as_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("a/b/c")).unwrap();
        fs::create_dir(from.join("empty")).unwrap();
        for name in ["one", "a/two", "a/b/c/with\na line", "a/it's"] {
            fs::write(from.join(name), name).unwrap();
        }
        fs::hard_link(from.join("one"), from.join("a/link")).unwrap();
        // A link to a directory is none, and one in a circle has an end.
        std::os::unix::fs::symlink("..", from.join("a/up")).unwrap();
        let copied = copy(&from, &dir.path().join("to"), &Output::new(true)).unwrap();
        let census = Census::default();
        census.count(&from);
        assert_eq!((census.total.get(), copied), (Some(&11), 11));
        // Whoever does not ask any more is told nothing.
        let over = Census { is_over: AtomicBool::new(true), ..Census::default() };
        over.count(&from);
        assert_eq!(over.total.get(), None);
        let failed = copy(&from.join("gone"), &dir.path().join("other"), &Output::new(true)).unwrap_err();
        assert!(failed.message.contains("gone"), "{failed:?}");
    }

    #[test]
    fn what_has_volumes_in_it_stays_where_it_is() {
        let volume = |path: &str| VolumeInfo {
            id: String::new(),
            path: path.into(),
            here: true,
            dirty_files: 0,
            dirty_bytes: 0,
            head: None,
        };
        let all = [volume("/"), volume("/a/b")];
        let of = |path: &str, in_place| volume_of(&all, Path::new(path), in_place).ok();
        assert_eq!(of("/a/b/c", true), Some("/a/b".into()));
        assert_eq!(of("/ab", true), Some("/".into()));
        for path in ["/", "/a", "/a/b"] {
            assert_eq!(of(path, true), None, "{path}");
            assert!(of(path, false).is_some(), "{path}");
        }
    }
}
