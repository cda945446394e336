//! `hn snap`, `hn log`, `hn show`, `hn tag` and `hn verify`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use hypernet_sdk::api::{
    ChangeInfo, LogRequest, PolicyInfo, PruneRequest, RevisionRequest, Shown, SnapRequest, SnapshotInfo, Status,
    TagRequest, ThingInfo, Verified,
};
use hypernet_sdk::{Client, ErrorCode, Home};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use os_display::Quotable;

use crate::args::history::{Log, Prune, Show, Snap, SnapCommand, Tag, Verify};
use crate::error::Failure;
use crate::output::{Output, words};
use crate::volume_path;

mod times;

pub(super) use times::now_revision;

/// Digits of a number that are shown.
const SHORT: usize = 12;

pub(super) fn short(id: &str) -> &str {
    id.get(..SHORT).unwrap_or(id)
}

/// The root of what the main mount shows.
fn top(status: &Status) -> PathBuf {
    status.mount.as_ref().map_or_else(|| PathBuf::from("/"), |mount| mount.top.clone())
}

/// Where a command is meant: what was named, or the working directory, or the main volume.
pub(super) fn place(status: &Status, path: Option<&Path>) -> Result<PathBuf, Failure> {
    match path {
        Some(path) => volume_path::inside(status, path),
        None => Ok(volume_path::inside(status, Path::new(".")).unwrap_or_else(|_| top(status))),
    }
}

/// An error where nothing is at a path that somebody has named: it may be a slip, and another volume was meant.
pub(super) fn check_there(path: Option<&Path>) -> Result<(), Failure> {
    let Some((path, error)) = path.and_then(|path| Some((path, std::fs::symlink_metadata(path).err()?))) else {
        return Ok(());
    };
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Err(Failure::new(ErrorCode::NoInput, format!("nothing is at {}", path.quote()))
                .hint("name a file or a directory that is there"))
        }
        _ => Err(Failure::io(path.quote(), &error)),
    }
}

/// What others have written, on a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A time as git shows it.
pub(super) fn date(millis: u64) -> String {
    let stamp = i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    match stamp {
        Some(stamp) => stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z").to_string(),
        None => format!("{millis} ms after 1970"),
    }
}

pub(crate) async fn snap(home: Home, args: Snap, out: &mut Output) -> Result<(), Failure> {
    if let Some(SnapCommand::Prune(prune)) = args.command {
        return self::prune(home, prune, out).await;
    }
    let (client, status) = Client::connect(home).await?;
    let path = place(&status, args.path.as_deref())?;
    check_there(args.path.as_deref())?;
    let taken = client.snap(&SnapRequest { path, message: args.message, command: false }).await?;
    out.json(&taken)?;
    let what = match (taken.same, taken.files) {
        (true, _) => "nothing has changed since the one before".to_owned(),
        (false, files) => format!("{} read, {} new", words::plural(files, "file"), words::bytes(taken.new_bytes)),
    };
    let took = words::millis(taken.micros / 1_000);
    if taken.newer > 0 {
        let files = words::plural(taken.newer, "file");
        out.warning(format_args!("{files} were written to for so long that they may be newer than the rest of it"));
    }
    out.line(format_args!("snapshot {} ({what}, {took})", short(&taken.snapshot.id)))
}

async fn prune(home: Home, args: Prune, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let Prune { keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, all, dry_run, .. } = args;
    let policy = PolicyInfo {
        last: keep_last,
        hourly: keep_hourly,
        daily: keep_daily,
        weekly: keep_weekly,
        monthly: keep_monthly,
        yearly: keep_yearly,
    };
    let policy = Some(policy).filter(|policy| *policy != PolicyInfo::default());
    if policy.is_none() && args.snapshots.is_empty() {
        return Err(Failure::new(ErrorCode::Usage, "which snapshots are to go?")
            .hint("name them, or say which stay: --keep-last 10 --keep-daily 7; -n only shows what would go"));
    }
    let path = place(&status, args.of.as_deref())?;
    let revisions = args.snapshots.iter().map(|text| now_revision(text)).collect::<Result<_, _>>()?;
    let request = PruneRequest { path, revisions, policy, all, dry_run };
    let pruned = client.prune(&request).await?;
    let more = match policy.is_some() && !all {
        // What it has not let go of yet is in both.
        true => {
            let would =
                client.prune(&PruneRequest { revisions: Vec::new(), all: true, dry_run: true, ..request }).await?;
            let is_gone = |one: &SnapshotInfo| pruned.gone.iter().any(|gone| gone.id == one.id);
            would.gone.iter().filter(|one| !is_gone(one)).count()
        }
        false => 0,
    };
    out.json(&pruned)?;
    for snapshot in &pruned.gone {
        out.line(oneline(snapshot, false))?;
    }
    let gone = words::plural(pruned.gone.len() as u64, "snapshot");
    let how = if dry_run { "would go" } else { "let go of" };
    out.note(format_args!("{gone} {how}; {} left", words::count(pruned.left)));
    if more > 0 {
        let more = words::plural(more as u64, "snapshot");
        out.note(format_args!("{more} more would go that no policy has taken: --all lets go of those, too"));
    }
    Ok(())
}

fn names(snapshot: &SnapshotInfo, is_head: bool) -> String {
    let mut names: Vec<String> = is_head.then(|| "HEAD".to_owned()).into_iter().collect();
    names.extend(snapshot.tags.iter().map(|tag| format!("tag: {}", plain(tag))));
    if snapshot.waiting {
        names.push("only here so far".into());
    }
    if snapshot.automatic {
        names.push("automatic".into());
    }
    if snapshot.command {
        names.push("by a command".into());
    }
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

fn oneline(snapshot: &SnapshotInfo, is_head: bool) -> String {
    let message = plain(&snapshot.message);
    let first = message.lines().next().unwrap_or_default();
    format!("{}{} {first}", short(&snapshot.id), names(snapshot, is_head)).trim_end().to_owned()
}

/// As git shows a commit.
fn header(snapshot: &SnapshotInfo, is_head: bool) -> String {
    let mut text = format!("snapshot {}{}\n", snapshot.id, names(snapshot, is_head));
    if snapshot.parents.len() > 1 {
        let parents: Vec<&str> = snapshot.parents.iter().map(|parent| short(parent)).collect();
        text.push_str(&format!("Merge:  {}\n", parents.join(" ")));
    }
    text.push_str(&format!("Author: {}\nDate:   {}\n", plain(&snapshot.author), date(snapshot.time_ms)));
    if !snapshot.message.is_empty() {
        text.push('\n');
        for line in plain(&snapshot.message).lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

pub(crate) async fn log(home: Home, args: Log, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = path_or_volume(&client, &status, args.path.as_deref()).await?;
    let is_whole = args.path.is_none();
    let snapshots = client.snapshots(&LogRequest { path: path.clone(), limit: args.limit }).await?;
    out.json(&snapshots)?;
    if snapshots.is_empty() && args.limit != Some(0) {
        say_none(&client, &status, (&path, args.path.as_deref()), out).await?;
    }
    let head = snapshots.iter().find(|snapshot| !snapshot.command).filter(|_| is_whole).map(|snapshot| &snapshot.id);
    for snapshot in &snapshots {
        let is_head = head == Some(&snapshot.id);
        match args.oneline {
            true => out.line(oneline(snapshot, is_head))?,
            false => out.line(header(snapshot, is_head))?,
        }
    }
    Ok(())
}

/// Why there is nothing to be listed of a path, as it is in the tree and as somebody has typed it.
async fn say_none(
    client: &Client,
    status: &Status,
    (path, typed): (&Path, Option<&Path>),
    out: &Output,
) -> Result<(), Failure> {
    let root = root_of(client, path).await?;
    let any = client.snapshots(&LogRequest { path: root.clone(), limit: Some(1) }).await?;
    match typed {
        Some(typed) if !any.is_empty() && path != root => {
            let text = format!("in no snapshot there is anything at {}", typed.quote());
            if !is_there(status, path) {
                return Err(Failure::new(ErrorCode::NoInput, format!("{text}, nor is there now"))
                    .hint("`hn log` without it shows all snapshots"));
            }
            out.note(text);
        }
        _ => out.note("no snapshot was taken yet: `hn snap -m MESSAGE`"),
    }
    Ok(())
}

/// Whether something is at a path of the tree now, as far as a mount shows it.
pub(super) fn is_there(status: &Status, path: &Path) -> bool {
    volume_path::found_at(status, path).is_ok_and(|found| std::fs::symlink_metadata(found).is_ok())
}

/// The root of the volume that a path is in.
pub(super) async fn root_of(client: &Client, path: &Path) -> Result<PathBuf, Failure> {
    let volumes = client.volumes().await?;
    let above = volumes.into_iter().map(|volume| volume.path).filter(|root| path.starts_with(root));
    Ok(above.max_by_key(|root| root.components().count()).unwrap_or_else(|| PathBuf::from("/")))
}

/// The root of the volume that the working directory is in.
async fn volume_of(client: &Client, status: &Status) -> Result<PathBuf, Failure> {
    root_of(client, &place(status, None)?).await
}

/// Says that a revision has gone back over something that is not here.
pub(super) fn note_gap(meant: &Shown, revision: &str, out: &Output) {
    if meant.passed_gap {
        let text = "snapshots that it passes over are pruned or unknown";
        out.note(format_args!("{revision} is {} here: {text}", short(&meant.snapshot.id)));
    }
}

/// What a snapshot is compared with, where that is not simply the one that somebody took before it.
fn compared_with(shown: &Shown) -> Option<String> {
    let gone = "pruned or unknown";
    match &shown.before {
        None if shown.gap => Some(format!("what came before it is {gone}: all that it holds is listed")),
        Some(before) if shown.gap => {
            Some(format!("compared with {}, the one before in time: what it follows is {gone}", short(&before.id)))
        }
        Some(before) if before.command => Some(format!("compared with {}", oneline(before, false))),
        _ => None,
    }
}

/// Without a path it is all of the volume, wherever in it one stands.
pub(super) async fn path_or_volume(client: &Client, status: &Status, path: Option<&Path>) -> Result<PathBuf, Failure> {
    match path {
        Some(path) => volume_path::inside(status, path),
        None => volume_of(client, status).await,
    }
}

fn letter(change: &ChangeInfo) -> &'static str {
    match (&change.before, &change.after) {
        (None, _) => "A",
        (_, None) => "D",
        _ if change.renamed && change.content => "RM",
        _ if change.renamed => "R",
        _ if change.content => "M",
        _ => "m",
    }
}

pub(super) fn shown(thing: &ThingInfo) -> String {
    let slash = if thing.kind == "directory" || thing.kind == "volume" { "/" } else { "" };
    format!("{}{slash}", thing.path.maybe_quote())
}

fn path_of(change: &ChangeInfo) -> String {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if change.renamed => format!("{} -> {}", shown(before), shown(after)),
        (_, Some(after)) => shown(after),
        (Some(before), None) => shown(before),
        (None, None) => String::new(),
    }
}

/// A letter and a path for each.
pub(super) fn print_changes(changes: &[ChangeInfo], out: &mut Output) -> Result<(), Failure> {
    for change in changes {
        out.line(format_args!("{:<2} {}", letter(change), path_of(change)))?;
    }
    Ok(())
}

pub(crate) async fn show(home: Home, args: Show, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = path_or_volume(&client, &status, args.path.as_deref()).await?;
    let shown = client.show(RevisionRequest { path, revision: now_revision(&args.snapshot)? }).await?;
    out.json(&shown)?;
    note_gap(&shown, &args.snapshot, out);
    out.line(header(&shown.snapshot, false))?;
    if let Some(with) = compared_with(&shown) {
        out.note(with);
    }
    if shown.too_many {
        out.note(
            "so much has changed that it is not listed: `hn show SNAPSHOT DIR` lists what has changed in a directory",
        );
    }
    print_changes(&shown.changes, out)
}

pub(crate) async fn tag(home: Home, args: Tag, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = place(&status, args.of.as_deref())?;
    let revision = args.snapshot.as_deref().map(now_revision).transpose()?;
    let Tag { name, delete, force, .. } = args;
    let is_list = name.is_none();
    let tags = client.tag(&TagRequest { path, name: name.clone(), revision, delete, force }).await?;
    out.json(&tags)?;
    for tag in tags.iter().filter(|tag| is_list || name.as_ref() == Some(&tag.name)) {
        out.line(format_args!("{} {}", short(&tag.id), plain(&tag.name)))?;
    }
    Ok(())
}

pub(crate) async fn verify(home: Home, args: Verify, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = place(&status, args.of.as_deref())?;
    let verified = client.verify(&RevisionRequest { path, revision: now_revision(&args.snapshot)? }).await?;
    out.json(&verified)?;
    let snapshot = &verified.snapshot;
    let (author, when) = (plain(&snapshot.author), date(snapshot.time_ms));
    let who = if verified.known { "which may write here or could" } else { "which is on no list that is known here" };
    out.line(format_args!("snapshot {}: signed by {author}, {who}, {when}", short(&snapshot.id)))?;
    let gone = if verified.gone > 0 {
        format!("; not here, pruned or never known: {}", words::count(verified.gone))
    } else {
        String::new()
    };
    out.line(format_args!("snapshots before it, all signed and earlier: {}{gone}", words::count(verified.followed)))?;
    out.line(format_args!("files and directories in it: {}", words::count(verified.inodes)))?;
    for problem in &verified.problems {
        out.warning(problem);
    }
    check(&verified)
}

/// What could not be proven is told by the exit code, too.
fn check(verified: &Verified) -> Result<(), Failure> {
    match verified.known && verified.problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(ErrorCode::Data, "not all of it could be proven")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> SnapshotInfo {
        SnapshotInfo {
            id: "0123456789abcdef".repeat(4),
            time_ms: 1_700_000_000_000,
            author: "laptop".into(),
            author_id: "ab".repeat(32),
            message: "first\u{1b}[2J\nmore".into(),
            parents: vec!["aa".repeat(32), "bb".repeat(32)],
            tags: vec!["v1".into()],
            automatic: false,
            command: false,
            waiting: true,
        }
    }

    #[test]
    fn a_snapshot_is_shown_as_git_shows_a_commit_and_nothing_of_it_reaches_the_terminal() {
        let text = header(&snapshot(), true);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(" (HEAD, tag: v1, only here so far)"), "{text}");
        assert_eq!(lines[1], "Merge:  aaaaaaaaaaaa bbbbbbbbbbbb");
        assert_eq!((lines[2], lines[4]), ("Author: laptop", ""));
        assert!(lines[3].starts_with("Date:   2023-11-1"), "{text}");
        assert_eq!(lines[5..], ["    first\u{fffd}[2J", "    more"]);
        assert_eq!(oneline(&snapshot(), false), "0123456789ab (tag: v1, only here so far) first\u{fffd}[2J");
    }

    #[test]
    fn what_a_snapshot_is_compared_with_is_told_where_nobody_would_think_so() {
        let before = SnapshotInfo { message: "before restoring a".into(), command: true, waiting: false, ..snapshot() };
        let by_hand = SnapshotInfo { command: false, ..before.clone() };
        let shown = |before: Option<&SnapshotInfo>, gap| {
            let (changes, before) = (Vec::new(), before.cloned());
            Shown { snapshot: snapshot(), passed_gap: false, before, gap, changes, too_many: false }
        };
        let with = |before, gap| compared_with(&shown(before, gap)).unwrap_or_default();
        assert_eq!((with(None, false), with(Some(&by_hand), false)), (String::new(), String::new()));
        assert_eq!(with(Some(&before), false), "compared with 0123456789ab (tag: v1, by a command) before restoring a");
        assert!(with(Some(&by_hand), true).contains("0123456789ab, the one before in time"));
        assert!(with(None, true).contains("all that it holds is listed"));
    }

    #[test]
    fn what_could_not_be_proven_is_told_by_the_exit_code() {
        let good =
            Verified { snapshot: snapshot(), known: true, followed: 0, gone: 3, inodes: 1, problems: Vec::new() };
        assert!(check(&good).is_ok());
        let problems = vec!["a: parts of it are gone".to_owned()];
        for bad in [Verified { known: false, ..good.clone() }, Verified { problems, ..good }] {
            assert_eq!(check(&bad).unwrap_err().exit_code(), 65);
        }
    }

    #[test]
    fn changes_are_told_by_one_letter() {
        let thing = |path: &str| {
            Some(ThingInfo { path: path.into(), kind: "file".into(), size: 1, mode: 0o644, content: None })
        };
        let change = |before: Option<&str>, after: Option<&str>, renamed, content| ChangeInfo {
            before: before.and_then(thing),
            after: after.and_then(thing),
            renamed,
            content,
            metadata: false,
            text: None,
            binary: false,
            large: false,
        };
        let all = [
            (change(None, Some("a"), false, false), "A", "a"),
            (change(Some("a"), None, false, false), "D", "a"),
            (change(Some("a"), Some("a"), false, true), "M", "a"),
            (change(Some("a"), Some("b c"), true, false), "R", "a -> 'b c'"),
            (change(Some("a"), Some("b"), true, true), "RM", "a -> b"),
            (change(Some("a"), Some("a"), false, false), "m", "a"),
        ];
        for (change, sign, path) in all {
            assert_eq!((letter(&change), path_of(&change).as_str()), (sign, path));
        }
    }
}
