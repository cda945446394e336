//! `hn revert`: what a snapshot has changed is undone in the tree of now, and what was changed since stays.
//!
//! It works through the mount, as `hn restore` does: what was is copied out of `.snapshots`, beside the place where it goes, and takes that
//! place at once. All that is there is in a snapshot that is taken first. Nothing is written down of how far it has come: what is as it was
//! before the snapshot is done, so that the same command goes on after a kill.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hypernet_sdk::api::{ChangeInfo, DiffRequest, LogRequest, RevisionRequest, Shown, SnapRequest, SnapshotInfo};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;

use super::history::{note_gap, now_revision, path_or_volume, plain, print_changes, short, shown};
use super::restore::{entered, volume_of};
use crate::args::history::Revert;
use crate::error::Failure;
use crate::output::{Output, words};
use crate::volume_path::found_at;

mod ground;
mod metadata;
mod moves;
mod text;
mod undo;

use ground::Ground;
use moves::{Course, Moves, join};
use undo::{Left, Outcome, Trees, Undo};

/// Bytes of a first line that is quoted: what is said about a snapshot has an end.
const QUOTED_MAX: usize = 1_024;

/// What is to be undone, and where.
struct Job {
    client: Client,
    /// The snapshot,
    snapshot: SnapshotInfo,
    /// the one before it,
    parent: String,
    /// and those that were taken before it was reverted so far, the oldest first.
    tries: Vec<String>,
    /// Root of the volume,
    root: PathBuf,
    /// where that is found,
    found: PathBuf,
    /// and the place in it that is meant.
    place: PathBuf,
}

/// What is said about the snapshot that is taken first.
fn before(id: &str) -> String {
    format!("before reverting {}", short(id))
}

impl Job {
    async fn new(home: Home, args: &Revert, out: &Output) -> Result<Self, Failure> {
        let (client, status) = Client::connect(home).await?;
        found_at(&status, Path::new("/"))?;
        let path = path_or_volume(&client, &status, args.path.as_deref()).await?;
        let volumes = client.volumes().await?;
        let root = volume_of(&volumes, &path, false)?;
        let found = found_at(&status, &root)?;
        let place = path.strip_prefix(&root).unwrap_or(Path::new("")).to_owned();
        let request = RevisionRequest { path, revision: now_revision(&args.snapshot)? };
        let meant = client.meant(request).await?;
        note_gap(&meant, &args.snapshot, out);
        let Shown { snapshot, before: parent, gap, .. } = meant;
        let Some(parent) = parent.map(|parent| parent.id) else {
            let of = short(&snapshot.id);
            let (code, text, hint) = match gap {
                true => {
                    let text = format!("what came before {of} is pruned or unknown: nobody knows what it has changed");
                    (ErrorCode::NoInput, text, "`hn log` shows what there is")
                }
                false => {
                    let text = format!("snapshot {of} is the first one: there is nothing before it");
                    (ErrorCode::Usage, text, "`hn log` shows those that came after it")
                }
            };
            return Err(Failure::new(code, text).hint(hint));
        };
        if gap {
            let text = "what it follows is pruned or unknown";
            out.note(format_args!(
                "what has changed since {}, the one before in time, is undone: {text}",
                short(&parent)
            ));
        }
        let kept = client.snapshots(&LogRequest { path: root.clone(), limit: None }).await?;
        let message = before(&snapshot.id);
        let later = kept.iter().take_while(|kept| kept.id != snapshot.id);
        let mut tries: Vec<String> = later.filter(|kept| kept.message == message).map(|kept| kept.id.clone()).collect();
        tries.reverse();
        Ok(Self { client, snapshot, parent, tries, root, found, place })
    }

    fn is_meant(&self, change: &ChangeInfo) -> bool {
        [&change.before, &change.after].into_iter().flatten().any(|thing| thing.path.starts_with(&self.place))
    }

    /// All that has changed in the volume: a directory above the place may have been renamed. Where that is too much it is what has
    /// changed at the place.
    async fn changes(&self, from: &str, to: Option<&str>) -> Result<Vec<ChangeInfo>, Failure> {
        let (from, to) = (from.to_owned(), to.map(str::to_owned));
        let whole = DiffRequest { path: self.root.clone(), from, to };
        match self.client.diff(&whole).await {
            Err(error) if error.code() == ErrorCode::Data && !self.place.as_os_str().is_empty() => {
                let path = self.root.join(&self.place);
                Ok(self.client.diff(&DiffRequest { path, ..whole }).await?)
            }
            other => Ok(other?),
        }
    }

    /// All that is known, as it is now or in the snapshot that was just taken.
    async fn trees(&self, now: Option<&str>) -> Result<Trees, Failure> {
        let changes = self.changes(&self.parent, Some(&self.snapshot.id)).await?;
        let mut since = Course::default();
        let mut from = &self.snapshot.id;
        // What has got its content back is another file: that it is in the place of the one from before is seen from there only.
        for to in &self.tries {
            since.0.push(Moves::new(&self.changes(from, Some(to)).await?));
            from = to;
        }
        since.0.push(Moves::new(&self.changes(from, now).await?));
        let volumes = self.client.volumes().await?;
        let below = volumes.iter().filter_map(|volume| volume.path.strip_prefix(&self.root).ok());
        let others = below.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned).collect();
        Ok(Trees {
            before: entered(&self.found, &self.parent)?,
            then: entered(&self.found, &self.snapshot.id)?,
            changed: Moves::new(&changes),
            changes: changes.into_iter().filter(|change| self.is_meant(change)).collect(),
            since,
            others,
        })
    }

    fn ground(&self, since: Option<SystemTime>) -> Result<Ground, Failure> {
        Ground::new(&self.found, since).map_err(|error| Failure::io(self.found.display(), &error))
    }

    /// Takes a snapshot of what is there first, or of what was asked for.
    async fn snap(&self, message: String, is_first: bool) -> Result<String, Failure> {
        let request = SnapRequest { path: self.root.clone(), message, command: is_first };
        Ok(self.client.snap(&request).await?.snapshot.id)
    }

    /// What is said about the snapshot that has it undone.
    fn message(&self) -> String {
        let first = self.snapshot.message.lines().next().unwrap_or_default();
        let end = first.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= QUOTED_MAX).last();
        let quoted = match end {
            Some(end) => format!("\"{}\"", &first[..end]),
            None => short(&self.snapshot.id).to_owned(),
        };
        format!("Revert {quoted}\n\nThis reverts snapshot {}.", self.snapshot.id)
    }
}

/// What was done.
struct Reverted {
    outcome: Outcome,
    /// The snapshot that was taken first,
    before: Option<String>,
    /// and the one that was taken in the end.
    taken: Option<String>,
}

async fn undo(job: &Job, args: &Revert, out: &Output) -> Result<Reverted, Failure> {
    // First nothing is done: where there is nothing to do no snapshot is taken.
    let trees = job.trees(None).await?;
    let (outcome, dirs) = Undo::new(&trees, job.ground(None)?, "looking", out).run();
    if args.dry_run || outcome.undone.is_empty() {
        return Ok(Reverted { outcome, before: None, taken: None });
    }
    let since = SystemTime::now();
    job.ground(None)?.clean(&dirs);
    let taken_first = job.snap(before(&job.snapshot.id), true).await?;
    let trees = job.trees(Some(&taken_first)).await?;
    let (outcome, _) = Undo::new(&trees, job.ground(Some(since))?, "undoing", out).run();
    let taken = match args.no_snap || outcome.undone.is_empty() {
        true => None,
        false => Some(job.snap(job.message(), false).await?),
    };
    Ok(Reverted { outcome, before: Some(taken_first), taken })
}

fn print(job: &Job, reverted: &Reverted, args: &Revert, out: &mut Output) -> Result<(), Failure> {
    let Reverted { outcome: Outcome { undone, left }, before, taken } = reverted;
    print_changes(undone, out)?;
    let of = short(&job.snapshot.id);
    for Left { change, reason } in left {
        let thing = change.after.as_ref().or(change.before.as_ref());
        out.note(format_args!("{} is left: {}", thing.map(shown).unwrap_or_default(), plain(reason)));
    }
    let changes = words::plural(undone.len() as u64, "change");
    match (undone.is_empty(), args.dry_run) {
        (true, _) if left.is_empty() => out.note(format_args!("nothing of what {of} has changed is left to be undone")),
        (true, _) => out.note("nothing was changed"),
        (false, true) => out.note(format_args!("{changes} would be undone; nothing was changed")),
        (false, false) => out.note(format_args!("{changes} of {of} undone")),
    }
    if let Some(before) = before {
        out.note(format_args!("what was there is in {}", short(before)));
    }
    if let Some(taken) = taken {
        out.note(format_args!("snapshot {}", short(taken)));
    }
    Ok(())
}

/// What is left is told by the exit code, too.
fn check_left(job: &Job, left: &[Left], out: &Output) -> Result<(), Failure> {
    let Some(Left { change, .. }) = left.first() else { return Ok(()) };
    let text = format!("{} left as they are", words::plural(left.len() as u64, "change"));
    let before = change.before.as_ref().map(|thing| join(&job.found, &thing.path));
    let hint = match before {
        Some(path) => {
            let path = path.maybe_quote();
            format!("`hn restore {} {path}` has it as it was before, whatever is there now", short(&job.parent))
        }
        None => "settle each by hand, or by `hn restore`; the same command again goes on with what is left".to_owned(),
    };
    Err(Failure { silent: out.is_json(), ..Failure::new(ErrorCode::TryAgain, text).hint(hint) })
}

pub(crate) async fn revert(home: Home, args: Revert, out: &mut Output) -> Result<(), Failure> {
    let job = Job::new(home, &args, out).await?;
    let reverted = undo(&job, &args, out).await?;
    let left = &reverted.outcome.left;
    let told = left.iter().map(|Left { change, reason }| serde_json::json!({ "change": change, "reason": reason }));
    out.json(&serde_json::json!({
        "of": job.snapshot.id, "undone": reverted.outcome.undone, "left": told.collect::<Vec<_>>(),
        "dry_run": args.dry_run, "before": reverted.before, "snapshot": reverted.taken,
    }))?;
    print(&job, &reverted, &args, out)?;
    check_left(&job, left, out)
}
