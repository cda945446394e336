//! `hn restore`: what was, in its place again or somewhere else.
//!
//! It is copied out of `.snapshots` by cp, beside the place where it goes, and then takes that place at once. What is there now is in a
//! snapshot that is taken first: nothing is lost by restoring the wrong thing.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hypernet_sdk::api::{RevisionRequest, SnapRequest, VolumeInfo};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::history::{now_revision, short};
use crate::args::history::Restore;
use crate::error::Failure;
use crate::output::{Output, bar::Bar, words};
use crate::volume_path;

/// Beside the place where something goes, while it is copied.
const BESIDE: &str = ".hn-restore-";

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

fn copy(from: &Path, to: &Path, out: &Output) -> Result<u64, Failure> {
    let bar = Bar::new(out, "copying");
    let mut cp = Command::new("cp")
        .args(["-a", "-v", "-T", "--"])
        .args([from, to])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io("cannot run cp", &error))?;
    let said = cp.stderr.take().map(|stderr| std::thread::spawn(move || std::io::read_to_string(stderr)));
    let mut entries = 0;
    if let Some(stdout) = cp.stdout.take() {
        for _ in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            entries += 1;
            bar.message(format!("copied {}", words::plural(entries, "file")));
        }
    }
    let ended = cp.wait().map_err(|error| Failure::io("cannot wait for cp", &error))?;
    let said = said.and_then(|said| said.join().ok()).and_then(Result::ok).unwrap_or_default();
    bar.clear();
    if ended.success() {
        return Ok(entries);
    }
    let first = said.lines().next().unwrap_or("cp failed").to_owned();
    Err(Failure::new(ErrorCode::Io, first)
        .hint("nothing was changed; `hn status` says whether the mesh can be reached"))
}

/// The directory in `.snapshots` that has this number.
fn entered(root: &Path, id: &str) -> Result<PathBuf, Failure> {
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
fn volume_of(volumes: &[VolumeInfo], path: &Path, in_place: bool) -> Result<PathBuf, Failure> {
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
    let mount = status.mount.as_ref().map_or_else(PathBuf::new, |mount| mount.dir.clone());
    let root = volume_of(&client.volumes().await?, &path, args.to.is_none())?;
    let here = |inside: &Path| mount.join(inside.strip_prefix("/").unwrap_or(inside));
    let request = RevisionRequest { path: root.clone(), revision: now_revision(&args.snapshot)? };
    let snapshot = client.snapshot(&request).await?.snapshot;
    let then = entered(&here(&root), &snapshot.id)?.join(path.strip_prefix(&root).unwrap_or(&path));
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
        (None, _) => here(&path),
    };
    let parent = there.parent().unwrap_or(Path::new("/")).to_owned();
    fs::create_dir_all(&parent).map_err(|error| Failure::io(parent.display(), &error))?;
    let before = match args.to {
        Some(_) if fs::symlink_metadata(&there).is_ok() => {
            return Err(Failure::new(ErrorCode::CantCreate, format!("{} is there already", there.quote()))
                .hint("choose another directory"));
        }
        Some(_) => None,
        None => {
            let message = format!("before restoring {}", args.path.display());
            Some(client.snap(&SnapRequest { path: root, message }).await?.snapshot.id)
        }
    };
    let beside = Beside(parent.join(format!("{BESIDE}{}", std::process::id())));
    let entries = copy(&then, &beside.0, out)?;
    let moved = |flags| renameat_with(CWD, &beside.0, CWD, &there, flags).map_err(std::io::Error::from);
    let placed = match moved(RenameFlags::NOREPLACE) {
        // What was there is where the copy was, and goes with it.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && args.to.is_none() => moved(RenameFlags::EXCHANGE),
        other => other,
    };
    placed.map_err(|error| Failure::io(there.display(), &error))?;
    drop(beside);
    out.json(&serde_json::json!({ "restored": there, "entries": entries, "from": snapshot.id, "before": before }))?;
    out.line(format_args!("{} is as it was in {}", there.quote(), short(&snapshot.id)))?;
    if let Some(before) = before {
        out.note(format_args!("what was there is in {}", short(&before)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
