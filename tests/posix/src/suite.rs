//! Suites of others: `pjdfstest` and `fsx`, both installed by `scripts/deps test`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hypernet_kit::hn;

use crate::Mounted;

/// Every optional feature that Linux has, and the users that Debian has.
fn pjdfstest_config(remounts: bool) -> String {
    format!(
        r#"
[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utime_now = {{}}
utimensat = {{}}
[settings]
naptime = 0.01
allow_remount = {remounts}
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#
    )
}

/// The only ones that cannot pass on any FUSE filesystem; `docs/semantics.md` has the reason of each.
pub const SKIPPED: [&str; 1] = ["link::link_count_max"];

/// It opens a program that is just starting with O_RDONLY | O_TRUNC. The kernel has the filesystem truncate first, as was
/// agreed with it, and finds afterwards that the program is busy: now and then that has ended by then, for want of its
/// text. So this one may be tried again.
const RACY: &str = "open::etxtbsy";
/// Tries of it.
const TRIES: u32 = 5;

/// mount(8) hands a remount of a FUSE filesystem to this helper, which would start a program named like its source.
/// For the time of the suite, in a namespace of its own, it does what mount(8) does for all other filesystems.
const REMOUNT: &str = r#"#!/bin/sh
exec mount -i -o "$4" "$2"
"#;

/// Runs pjdfstest in a mount, as root; the error has the lines of what failed.
pub fn pjdfstest(mounted: &Mounted) -> Result<()> {
    // Those that remount run by themselves: others of the suite leave removed files open, and then nothing can be made
    // read-only, on a local disk neither.
    let (all, read_only) = (pjdfstest_of(mounted, false, "")?, pjdfstest_of(mounted, true, "erofs")?);
    let mut failed: Vec<String> = all.failed.iter().chain(&read_only.failed).cloned().collect();
    let mut tries = 1;
    while failed == [RACY] && tries < TRIES {
        failed = pjdfstest_of(mounted, false, RACY)?.failed;
        tries += 1;
    }
    ensure!(failed.is_empty(), "failed: {failed:?}\n{}", all.said);
    let skipped: Vec<&str> = all.skipped.iter().map(String::as_str).filter(|name| !name.contains("erofs")).collect();
    ensure!(skipped == SKIPPED, "skipped: {skipped:?}");
    ensure!(read_only.skipped.is_empty(), "skipped: {:?}", read_only.skipped);
    ensure!(all.passed > 350 && read_only.passed > 10, "only {} and {} ran", all.passed, read_only.passed);
    Ok(())
}

struct Outcome {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    said: String,
}

fn pjdfstest_of(mounted: &Mounted, remounts: bool, pattern: &str) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("hn-pjdfstest").tempdir().context("cannot make a directory")?;
    let config = dir.path().join("config.toml");
    fs::write(&config, pjdfstest_config(remounts))?;
    let helper = dir.path().join("remount");
    fs::write(&helper, REMOUNT)?;
    let there = mounted.path().join(format!("pjdfstest-{pattern}"));
    fs::create_dir_all(&there)?;
    let script = r#"
        helper=$(readlink -f /sbin/mount.fuse || true)
        [ -z "$helper" ] || { chmod 755 "$HELPER"; chmod 777 "$THERE"; mount --bind "$HELPER" "$helper"; }
        mkdir "$DIR/other"; mount -t tmpfs none "$DIR/other"
        exec pjdfstest -c "$DIR/config.toml" -p "$THERE" -s "$DIR/other" $PATTERN
    "#;
    let ran = hn::run(
        Command::new("unshare")
            .args(["--mount", "bash", "-euc", script])
            .env("DIR", dir.path())
            .env("HELPER", &helper)
            .env("THERE", &there)
            .env("PATTERN", pattern),
    )?;
    let named = |mark: &str| -> Vec<String> {
        let line = |line: &str| line.strip_suffix(mark).map(|name| name.trim().to_owned());
        ran.stdout.lines().filter_map(line).collect()
    };
    let failed = named("FAILED");
    // It fails where a test does; any other failure is one of running it.
    ensure!(ran.code == Some(0) || !failed.is_empty(), "it did not run: {ran:?}");
    Ok(Outcome { passed: named("ok").len(), failed, skipped: named("skipped"), said: ran.stdout })
}

/// All that fsx can do, in a file of a MiB. Of `posix_fallocate` with nothing POSIX says EINVAL, and fsx 0.3.2 takes that
/// for a filesystem without it: no operation is empty.
const FSX: &str = "
flen = 1048576
[opsize]
min = 1
max = 65536
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 3
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 2
punch_hole = 4
sendfile = 3
posix_fadvise = 1
copy_file_range = 4
";

/// Operations of one run of fsx at most. It never unmaps what it reads through a mapping (0.3.2), and the kernel walks all
/// of a file's mappings whenever that is truncated: with 250,000 operations most of the time went there.
const FSX_RUN: u64 = 50_000;

/// The runs, each with its seed, that one of many operations is made of.
pub(crate) fn fsx_runs(seed: u64, operations: u64) -> impl Iterator<Item = (u64, u64)> {
    let left = move |run| operations - run * FSX_RUN;
    (0..operations.div_ceil(FSX_RUN)).map(move |run| (seed + run * 1_000_000, FSX_RUN.min(left(run))))
}

/// Runs fsx on a file of a mount; artifacts of a failure stay in `artifacts`.
pub fn fsx(mounted: &Mounted, seed: u64, operations: u64, artifacts: &Path) -> Result<()> {
    let file = mounted.path().join(format!("fsx-{seed}"));
    for (seed, operations) in fsx_runs(seed, operations) {
        let args = fsx_args(FSX, seed, operations, artifacts)?;
        let ran = hn::run(Command::new("fsx").args(args).arg(&file))?.ok()?;
        ensure!(ran.stdout.contains("A-OK") || ran.stderr.contains("A-OK"), "it did not finish: {ran:?}");
    }
    fs::remove_file(&file).context("cannot remove the file of fsx")
}

/// What fsx is told, but for the file; its configuration is written to the directory of artifacts.
pub(crate) fn fsx_args(config: &str, seed: u64, operations: u64, artifacts: &Path) -> Result<Vec<OsString>> {
    fs::create_dir_all(artifacts).context("cannot make the directory of artifacts")?;
    let file = artifacts.join("fsx.toml");
    fs::write(&file, config)?;
    let (seed, operations) = (seed.to_string(), operations.to_string());
    Ok(vec![
        "-q".into(),
        "-f".into(),
        file.into(),
        "-P".into(),
        artifacts.into(),
        "-N".into(),
        operations.into(),
        "-S".into(),
        seed.into(),
    ])
}
