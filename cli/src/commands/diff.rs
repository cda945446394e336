//! `hn diff`.

use std::path::Path;

use clap::builder::styling::{AnsiColor, Style};
use hypernet_sdk::api::{ChangeInfo, DiffRequest, HunksEvent, HunksRequest, RevisionRequest, Status, ThingInfo};
use hypernet_sdk::{Client, ErrorCode, Home};
use os_display::Quotable;

use super::history::{note_gap, now_revision, path_or_volume, print_changes, shown};
use crate::args::history::Diff;
use crate::error::Failure;
use crate::output::patch::Patch;
use crate::output::{Output, words};
use crate::volume_path;

/// Bytes of hunks in one JSON document. Lines are counted beyond that, too.
const JSON_MAX: usize = 64 << 20;
/// Characters of a line of `--stat`, but for long names.
const STAT_WIDTH: usize = 80;
/// Signs there at least.
const SIGNS_MIN: usize = 10;

const ADDED: Style = AnsiColor::Green.on_default();
const REMOVED: Style = AnsiColor::Red.on_default();

pub(crate) async fn diff(home: Home, args: Diff, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let of = compared(&client, &status, &args, out).await?;
    if args.name_status || args.name_only {
        let changes = client.diff(&of).await?;
        out.json(&changes)?;
        return if args.name_status { print_changes(&changes, out) } else { print_names(&changes, out) };
    }
    // For a program what was renamed is one change, with all that is in it.
    let context = (!args.stat).then_some(u64::from(args.unified));
    let mut events = client.hunks(&HunksRequest { of, context, by_file: !out.is_json() }).await?;
    let (mut changes, mut bytes) = (Vec::new(), 0);
    loop {
        match events.next().await? {
            Some(HunksEvent::Change(change)) if !args.stat && !out.is_json() => out.patch(&Patch::of(&change))?,
            Some(HunksEvent::Change(mut change)) => {
                if let Some(text) = &mut change.text {
                    bytes += text.hunks.as_ref().map_or(0, String::len);
                    text.hunks = text.hunks.take().filter(|_| bytes <= JSON_MAX);
                }
                changes.push(*change);
            }
            Some(HunksEvent::Error(error)) => return Err(error.into()),
            Some(HunksEvent::Done) => break,
            None => return Err(events.interrupted().into()),
        }
    }
    out.json(&changes)?;
    if args.stat { print_stat(&changes, out) } else { Ok(()) }
}

/// What is to be compared, and where.
async fn compared(client: &Client, status: &Status, args: &Diff, out: &Output) -> Result<DiffRequest, Failure> {
    let (from, to, path) = match (args.range.split_once(".."), &args.path, &args.below) {
        (Some(_), _, Some(below)) => {
            let text = format!("{} names two snapshots already: what is {} to be?", args.range, below.quote());
            return Err(Failure::new(ErrorCode::Usage, text).hint("`hn diff A..B PATH`, or `hn diff A B PATH`"));
        }
        (Some((from, to)), path, None) => (head(from), Some(head(to).to_owned()), path.as_deref()),
        (None, Some(to), Some(below)) => (&args.range[..], Some(word(to)?.to_owned()), Some(below.as_path())),
        (None, Some(path), None) if is_second(client, status, &args.range, path).await? => {
            (&args.range[..], Some(word(path)?.to_owned()), None)
        }
        (None, path, _) => (&args.range[..], None, path.as_deref()),
    };
    let path = path_or_volume(client, status, path).await?;
    for revision in [Some(from), to.as_deref()].into_iter().flatten().filter(|revision| revision.contains(['~', '^'])) {
        let request = RevisionRequest { path: path.clone(), revision: now_revision(revision)? };
        note_gap(&client.meant(request).await?, revision, out);
    }
    Ok(DiffRequest { path, from: now_revision(from)?, to: to.as_deref().map(now_revision).transpose()? })
}

fn head(revision: &str) -> &str {
    if revision.is_empty() { "HEAD" } else { revision }
}

fn word(revision: &Path) -> Result<&str, Failure> {
    let none = || Failure::new(ErrorCode::NoInput, format!("there is no snapshot or tag {}", revision.quote()));
    revision.to_str().ok_or_else(none)
}

/// Whether the second of two words is a snapshot, as git has it: something is called so, and nothing is at such a path, neither now nor in
/// the first snapshot.
async fn is_second(client: &Client, status: &Status, from: &str, second: &Path) -> Result<bool, Failure> {
    if second.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let below = match volume_path::inside(status, second) {
        // What was there is gone: that is a change.
        Ok(path) => match client.diff(&DiffRequest { path, from: now_revision(from)?, to: None }).await {
            Ok(changes) => changes.len(),
            Err(error) if error.code() == ErrorCode::Data => 1,
            Err(error) => return Err(error.into()),
        },
        Err(_) => 0,
    };
    if below > 0 {
        return Ok(false);
    }
    let (path, revision) = (path_or_volume(client, status, None).await?, now_revision(word(second)?)?);
    match client.snapshot(RevisionRequest { path, revision }).await {
        Ok(_) => Ok(true),
        Err(error) if error.code() == ErrorCode::NoInput => {
            let error = Failure::from(error);
            let text = format!("{}; nor is or was anything at {}", error.message, second.quote());
            Err(Failure { message: text, ..error })
        }
        Err(error) => Err(error.into()),
    }
}

fn print_names(changes: &[ChangeInfo], out: &mut Output) -> Result<(), Failure> {
    for thing in changes.iter().filter_map(|change| change.after.as_ref().or(change.before.as_ref())) {
        out.line(thing.path.maybe_quote())?;
    }
    Ok(())
}

/// So many lines as so many signs, of at most `room`: each kind that there is has one.
fn signs(added: u64, removed: u64, most: u64, room: usize) -> (usize, usize) {
    let room = room as u64;
    let scaled = |lines: u64| match lines {
        0 => 0,
        lines if most <= room => lines,
        lines => 1 + (u128::from(lines) * u128::from(room - 1) / u128::from(most)) as u64,
    };
    let all = scaled(added + removed).max(u64::from(added > 0) + u64::from(removed > 0));
    let fewer = scaled(added.min(removed)).min(all);
    let (plus, minus) = if added < removed { (fewer, all - fewer) } else { (all - fewer, fewer) };
    (plus as usize, minus as usize)
}

/// What stands in the place of a number where no lines are counted.
fn mark(change: &ChangeInfo) -> Option<&'static str> {
    match (change.binary, change.large) {
        (true, _) => Some("Bin"),
        (_, true) => Some("Large"),
        _ => None,
    }
}

/// As git shows it, but for what is too large.
fn stat_lines(changes: &[ChangeInfo]) -> Vec<String> {
    let name = |change: &ChangeInfo| match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.path != after.path => format!("{} => {}", shown(before), shown(after)),
        (Some(thing), _) | (None, Some(thing)) => shown(thing),
        (None, None) => String::new(),
    };
    let lines = |change: &ChangeInfo| change.text.as_ref().map_or((0, 0), |text| (text.added, text.removed));
    let most = changes.iter().map(lines).map(|(added, removed)| added + removed).max().unwrap_or_default();
    let names: Vec<String> = changes.iter().map(name).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let marks = changes.iter().filter_map(mark).map(str::len);
    let digits = marks.chain([most.to_string().len()]).max().unwrap_or_default();
    let room = STAT_WIDTH.saturating_sub(width + digits + " |  ".len() + 1).max(SIGNS_MIN);
    let size = |thing: &Option<ThingInfo>| thing.as_ref().map_or(0, |thing| thing.size);
    let (mut all, mut in_all) = (Vec::new(), (0, 0));
    for (change, name) in changes.iter().zip(&names) {
        let (added, removed) = lines(change);
        in_all = (in_all.0 + added, in_all.1 + removed);
        let pad = " ".repeat(width - name.chars().count());
        let (plus, minus) = signs(added, removed, most, room);
        let (plus, minus) = ("+".repeat(plus), "-".repeat(minus));
        all.push(match mark(change) {
            Some(mark) => {
                let (before, after) = (size(&change.before), size(&change.after));
                format!(" {name}{pad} | {mark:>digits$} {before} -> {after} bytes")
            }
            None if added + removed == 0 => format!(" {name}{pad} | {:>digits$}", 0),
            None => {
                let count = added + removed;
                format!(" {name}{pad} | {count:>digits$} {ADDED}{plus}{ADDED:#}{REMOVED}{minus}{REMOVED:#}")
            }
        });
    }
    if !all.is_empty() {
        all.push(sum(changes.len() as u64, in_all.0, in_all.1));
    }
    all
}

/// With plain numbers, for programs that read what git writes.
fn sum(files: u64, added: u64, removed: u64) -> String {
    let counted = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = format!(" {} changed", counted(files, "file"));
    if added > 0 || removed == 0 {
        text += &format!(", {}(+)", counted(added, "insertion"));
    }
    if removed > 0 || added == 0 {
        text += &format!(", {}(-)", counted(removed, "deletion"));
    }
    text
}

fn print_stat(changes: &[ChangeInfo], out: &mut Output) -> Result<(), Failure> {
    stat_lines(changes).into_iter().try_for_each(|line| out.line(line))?;
    let large = changes.iter().filter(|change| change.large).count();
    if large > 0 {
        let files = words::plural(large as u64, "file");
        out.note(format_args!("lines of {files} are not counted: too large to be compared"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hypernet_sdk::api::TextInfo;

    use super::*;

    fn change(before: Option<&str>, after: Option<&str>, lines: Option<(u64, u64)>) -> ChangeInfo {
        let thing =
            |path: &str| ThingInfo { path: path.into(), kind: "file".into(), size: 7, mode: 0o644, content: None };
        let text = lines.map(|(added, removed)| TextInfo { added, removed, hunks: None });
        let (before, after) = (before.map(thing), after.map(thing));
        ChangeInfo {
            before,
            after,
            renamed: false,
            content: true,
            metadata: false,
            text,
            binary: lines.is_none(),
            large: false,
        }
    }

    #[test]
    fn lines_are_counted_as_git_counts_them() {
        let changes = [
            change(Some("a"), Some("a"), Some((3, 1))),
            change(Some("a"), Some("b c"), Some((0, 0))),
            change(None, Some("new"), Some((1, 0))),
            change(Some("picture"), None, None),
            ChangeInfo { binary: false, large: true, ..change(None, Some("log"), None) },
        ];
        let plain = |line: &String| anstream::adapter::strip_str(line).to_string();
        let lines: Vec<String> = stat_lines(&changes).iter().map(plain).collect();
        let expected = [
            " a          |     4 +++-",
            " a => 'b c' |     0",
            " new        |     1 +",
            " picture    |   Bin 7 -> 0 bytes",
            " log        | Large 0 -> 7 bytes",
            " 5 files changed, 4 insertions(+), 1 deletion(-)",
        ];
        assert_eq!(lines, expected);
        assert_eq!(stat_lines(&[]), Vec::<String>::new());
        assert_eq!(sum(1, 0, 0), " 1 file changed, 0 insertions(+), 0 deletions(-)");
        assert_eq!(sum(2_000, 0, 2), " 2000 files changed, 2 deletions(-)");
        assert_eq!(sum(1, 0, 2), " 1 file changed, 2 deletions(-)");
    }

    #[test]
    fn signs_fit_into_a_line_and_none_is_left_out() {
        assert_eq!(signs(3, 1, 4, 10), (3, 1));
        assert_eq!(signs(1_000_000, 1, 1_000_001, 10), (9, 1));
        assert_eq!(signs(1, 1, 1_000_000, 10), (1, 1));
        assert_eq!(signs(0, 5, 1_000, 10), (0, 1));
        for (added, removed) in [(u64::MAX / 2, u64::MAX / 2), (0, u64::MAX), (7, 9_000)] {
            let (plus, minus) = signs(added, removed, added + removed, 60);
            assert!(plus + minus <= 60 && (plus > 0) == (added > 0) && (minus > 0) == (removed > 0), "{plus} {minus}");
        }
    }
}
