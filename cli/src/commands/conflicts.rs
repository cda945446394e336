//! `hn conflicts` and `hn resolve`.

use std::path::{Path, PathBuf};

use hypernet_sdk::api::{self, ConflictInfo, ConflictsRequest, ResolveRequest, Status};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;

use super::branch::seen;
use super::history::{check_there, date, place, plain, short};
use crate::args::conflicts::{Conflicts, Keep, Resolve};
use crate::error::Failure;
use crate::output::table::table;
use crate::output::{Output, words};

/// Where a command is meant. Without a mount a path is one of the tree, as `hn conflicts` shows them then.
fn meant(status: &Status, path: Option<&Path>) -> Result<PathBuf, Failure> {
    match path {
        Some(path) if status.mount.is_none() => Ok(Path::new("/").join(path)),
        path => place(status, path),
    }
}

fn shown(status: &Status, path: &Path) -> String {
    seen(status, path).quote().to_string()
}

pub(crate) async fn conflicts(home: Home, args: Conflicts, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    if status.mount.is_some() {
        check_there(args.path.as_deref())?;
    }
    let found = client.conflicts(&ConflictsRequest { path: meant(&status, args.path.as_deref())? }).await?;
    out.json(&found)?;
    if found.is_empty() {
        out.note("nothing is in conflict");
        return Ok(());
    }
    let row = |conflict: &ConflictInfo| {
        let file = conflict.file.as_ref().map_or_else(|| "is gone".to_owned(), |file| shown(&status, file));
        let time = u64::try_from(conflict.time_ms).map_or_else(|_| "before 1970".to_owned(), date);
        vec![shown(&status, &conflict.path), file, plain(&conflict.device), time, words::bytes(conflict.size)]
    };
    let rows = found.iter().map(row).collect();
    out.line(table(&["VERSION", "OF", "BY", "WRITTEN", "SIZE"], rows, &[4]))?;
    out.note("`hn resolve PATH --keep file|version|both` settles which stays");
    Ok(())
}

pub(crate) async fn resolve(home: Home, args: Resolve, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let keep = match args.keep {
        Keep::File => api::Keep::File,
        Keep::Version => api::Keep::Version,
        Keep::Both => api::Keep::Both,
    };
    let is_whole = args.path.is_none();
    let mut path = meant(&status, args.path.as_deref())?;
    if is_whole {
        // A directory that one happens to stand in is not meant.
        let volumes = client.volumes().await?;
        let above = volumes.iter().map(|volume| &volume.path).filter(|root| path.starts_with(root));
        path = above.max_by_key(|root| root.components().count()).cloned().unwrap_or(path);
    }
    let done = client.resolve(&ResolveRequest { path, keep, all: args.all }).await?;
    out.json(&done)?;
    for conflict in &done.settled {
        let version = shown(&status, &conflict.path);
        let file = conflict.file.as_ref().map(|file| shown(&status, file));
        match (args.keep, file) {
            (Keep::File, Some(file)) => out.line(format_args!("{file} stays as it is, {version} is gone"))?,
            (Keep::Version, Some(file)) => out.line(format_args!("{file} holds what {version} held"))?,
            _ => out.line(format_args!("{version} is a file of its own"))?,
        }
    }
    for left in &done.left {
        out.note(format_args!("{} is left: {}", shown(&status, &left.path), plain(&left.reason)));
    }
    if let Some(before) = &done.before {
        out.note(format_args!("what was there is in {}", short(before)));
    }
    if done.settled.is_empty() && done.left.is_empty() {
        out.note("nothing is in conflict");
    }
    match done.left.len() {
        0 => Ok(()),
        left => {
            let text = format!("{} left as they were", words::plural(left as u64, "conflict"));
            let failure = Failure::new(ErrorCode::TryAgain, text).hint("close what is open, or name them one by one");
            Err(Failure { silent: out.is_json(), ..failure })
        }
    }
}
