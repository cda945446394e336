//! `hn snap`, `hn log`, `hn show`, `hn tag` and `hn verify`.

use std::path::{Path, PathBuf};

use hypernet_sdk::api::{
    ChangeInfo, LogRequest, PolicyInfo, PruneRequest, RevisionRequest, SnapRequest, SnapshotInfo, Status, TagRequest,
    ThingInfo, Verified,
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
    let taken = client.snap(&SnapRequest { path, message: args.message }).await?;
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
    let pruned = client.prune(&PruneRequest { path, revisions, policy, all, dry_run }).await?;
    out.json(&pruned)?;
    for snapshot in &pruned.gone {
        out.line(oneline(snapshot, false))?;
    }
    let gone = words::plural(pruned.gone.len() as u64, "snapshot");
    let how = if dry_run { "would go" } else { "let go of" };
    out.note(format_args!("{gone} {how}; {} left", words::count(pruned.left)));
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
    let snapshots = client.snapshots(&LogRequest { path, limit: args.limit }).await?;
    out.json(&snapshots)?;
    if snapshots.is_empty() {
        out.note("no snapshot was taken yet: `hn snap -m MESSAGE`");
    }
    for (number, snapshot) in snapshots.iter().enumerate() {
        let is_head = is_whole && number == 0;
        match args.oneline {
            true => out.line(oneline(snapshot, is_head))?,
            false => out.line(header(snapshot, is_head))?,
        }
    }
    Ok(())
}

/// The root of the volume that the working directory is in.
async fn volume_of(client: &Client, status: &Status) -> Result<PathBuf, Failure> {
    let here = place(status, None)?;
    let volumes = client.volumes().await?;
    let above = volumes.into_iter().map(|volume| volume.path).filter(|path| here.starts_with(path));
    Ok(above.max_by_key(|path| path.components().count()).unwrap_or_else(|| PathBuf::from("/")))
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
    out.line(header(&shown.snapshot, false))?;
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
        format!("; {} are not kept any more", words::count(verified.gone))
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
