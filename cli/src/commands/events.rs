//! Operations that take long: `hn sync`, `hn fsck` and `hn cache drop`.

use std::path::PathBuf;

use hypernet_sdk::api::{
    CacheDropEvent, CacheDropRequest, CacheDropped, FsckEvent, FsckReport, FsckRequest, SyncEvent, SyncReport,
};
use hypernet_sdk::{Client, ErrorCode, Home};

use crate::args::{Fsck, Sync};
use crate::error::Failure;
use crate::output::{Output, bar::Bar, words};
use crate::volume_path;

pub(crate) async fn sync(home: Home, args: Sync, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = args.path.as_deref().map(|path| volume_path::inside(&status, path)).transpose()?;
    let mut events = client.sync(path.as_deref()).await?;
    let mut bar = Bar::new(out, "looking for what is not durable yet");
    while let Some(event) = events.next().await? {
        // The failure at the end is written once, where every failure is.
        if !matches!(event, SyncEvent::Error(_)) {
            out.json(&event)?;
        }
        match event {
            SyncEvent::Progress(progress) => bar.progress(&progress),
            SyncEvent::Error(error) => return Err(error.into()),
            SyncEvent::Done(report) => {
                bar.clear();
                out.line(sync_line(&report))?;
                return match (&args.path, &report.state) {
                    (Some(path), Some(state)) => out.line(format_args!("{}: {state}", path.display())),
                    _ => Ok(()),
                };
            }
        }
    }
    Err(events.interrupted().into())
}

fn sync_line(report: &SyncReport) -> String {
    if report.files == 0 && report.segments == 0 {
        return "everything is durable already".to_owned();
    }
    let rate = match report.millis {
        0 => String::new(),
        millis => format!(", {}/s", words::bytes((report.bytes as f64 * 1000.0 / millis as f64) as u64)),
    };
    format!(
        "durable: {}, {} in {}{rate}; {} of {} shards each, on {} distinct peers, any {} of which are enough (head {})",
        words::plural(report.files, "file"),
        words::bytes(report.bytes),
        words::millis(report.millis),
        words::plural(report.segments, "segment"),
        report.n,
        report.peers,
        report.k,
        report.head
    )
}

pub(crate) async fn cache_drop(
    home: Home,
    path: Option<PathBuf>,
    force: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let (client, status) = Client::connect(home).await?;
    let path = path.map(|path| volume_path::inside(&status, &path)).transpose()?;
    let mut events = client.cache_drop(&CacheDropRequest { path, force }).await?;
    let mut bar = Bar::new(out, "looking for local copies");
    while let Some(event) = events.next().await? {
        if !matches!(event, CacheDropEvent::Error(_)) {
            out.json(&event)?;
        }
        match event {
            CacheDropEvent::Progress(progress) => bar.progress(&progress),
            CacheDropEvent::Error(error) => return Err(error.into()),
            CacheDropEvent::Done(dropped) => {
                bar.clear();
                return out.line(dropped_lines(&dropped));
            }
        }
    }
    Err(events.interrupted().into())
}

fn dropped_lines(dropped: &CacheDropped) -> String {
    let mut text = format!(
        "dropped the local copies of {} ({}); they are fetched when they are read",
        words::plural(dropped.files, "file"),
        words::bytes(dropped.bytes)
    );
    if let Some(why) = &dropped.kept_because {
        text += &format!(
            "\nkept {} ({}): {why}\ntry again when they are back (`hn peers` lists them), or drop them all the same with \
             `--force`",
            words::plural(dropped.kept_files, "file"),
            words::bytes(dropped.kept_bytes)
        );
    }
    text
}

pub(crate) async fn fsck(home: Home, args: Fsck, out: &mut Output) -> Result<(), Failure> {
    let request = FsckRequest { repair: args.repair, verify: args.verify };
    let mut events = Client::new(home)?.fsck(request).await?;
    let mut bar = Bar::new(out, "checking");
    while let Some(event) = events.next().await? {
        if !matches!(event, FsckEvent::Error(_)) {
            out.json(&event)?;
        }
        match event {
            FsckEvent::Progress(progress) => bar.progress(&progress),
            FsckEvent::Error(error) => return Err(error.into()),
            FsckEvent::Done(report) => {
                bar.clear();
                return tell(&report, args.repair, out);
            }
        }
    }
    Err(events.interrupted().into())
}

fn tell(report: &FsckReport, repair: bool, out: &mut Output) -> Result<(), Failure> {
    for problem in &report.problems {
        out.line(problem)?;
    }
    let looked = match report.segments {
        0 => "the databases and the working tree".to_owned(),
        segments => format!(
            "the databases, the working tree and {}, of which {} are there",
            words::plural(segments, "segment"),
            words::plural(report.shards, "shard")
        ),
    };
    let found = report.problems.len() as u64;
    let left = found.saturating_sub(report.repaired);
    if left == 0 {
        let mended = if found > 0 { format!("; {} mended", words::plural(found, "problem")) } else { String::new() };
        return out.line(format_args!("all is well: {looked}{mended}"));
    }
    let failure =
        Failure::new(ErrorCode::Data, format!("{} found; looked at {looked}", words::plural(left, "problem")));
    Err(match repair {
        true => failure.hint("shards come back with their peers (`hn peers`); one that is gone is not placed anew yet"),
        false => {
            failure.hint("`hn fsck --repair` mends what is wrong on this device; shards come back with their peers")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_says_what_it_made_safe() {
        let report = SyncReport {
            files: 2,
            bytes: 4 << 20,
            segments: 1,
            k: 7,
            n: 10,
            peers: 10,
            head: 3,
            millis: 2_000,
            ..SyncReport::default()
        };
        let line = sync_line(&report);
        assert!(
            line.starts_with("durable: 2 files, 4.00 MiB in 2.0 s, 2.00 MiB/s; 1 segment of 10 shards each"),
            "{line}"
        );
        assert_eq!(sync_line(&SyncReport { head: 3, ..SyncReport::default() }), "everything is durable already");
    }

    #[test]
    fn what_stays_is_named_with_the_reason() {
        let mut dropped = CacheDropped { files: 2, bytes: 4 << 20, ..CacheDropped::default() };
        assert_eq!(dropped_lines(&dropped).lines().count(), 1);
        dropped.kept_files = 1;
        dropped.kept_because = Some("too few peers".into());
        let text = dropped_lines(&dropped);
        assert!(text.contains("\nkept 1 file (0 B): too few peers\n") && text.contains("--force"), "{text}");
    }

    #[test]
    fn problems_decide_the_exit_code() {
        let mut out = Output::new(true);
        let mut report = FsckReport { segments: 3, ..FsckReport::default() };
        assert!(tell(&report, false, &mut out).is_ok());
        report.problems = vec!["segment 1 lacks 2 shards".into()];
        let failure = tell(&report, false, &mut out).unwrap_err();
        assert_eq!(failure.exit_code(), 65);
        report.repaired = 1;
        assert!(tell(&report, true, &mut out).is_ok());
    }
}
