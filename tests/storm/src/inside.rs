//! Runs a program where nothing leaves: in network, mount and process namespaces of its own.
//!
//! Invariant: with the program ends every process, mount, network and device that it has made, also when it is killed;
//! and its directory goes away, also when whoever started it is.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use hypernet_kit::Watcher;
use tempfile::TempDir;

/// Set in the program that runs inside: its directory.
const ENV_INSIDE: &str = "HYPERNET_STORM_INSIDE";
/// What `ip netns` keeps its names in, out of everybody else's sight. The shell is the first process in there: it reaps
/// agents, which nobody else waits for, and when it ends the kernel ends all others.
const PREPARE: &str = "mount -t tmpfs tmpfs /run
    mkdir /run/netns
    ip link set lo up
    \"$@\" &
    wait \"$!\"";
/// Whoever started it can be killed, and nobody inside hears of that.
const CLEAN_UP: &str = "[ ! -f \"$DIR/pid\" ] || kill -9 \"$(cat \"$DIR/pid\")\"
    [ -n \"$KEEP\" ] || while ! rm -rf --one-file-system \"$DIR\"; do sleep 0.1; done";

/// The directory of the program, if this is the run inside.
pub fn directory() -> Option<PathBuf> {
    env::var_os(ENV_INSIDE).map(PathBuf::from)
}

/// Runs a program inside to its end. `keep` leaves its directory, whose name is given back.
pub fn run<S: AsRef<OsStr>>(program: &Path, args: &[S], keep: bool) -> Result<(ExitStatus, PathBuf)> {
    let dir = tempfile::Builder::new().prefix("hn-storm").tempdir().context("cannot make a directory")?;
    let keep_it = OsStr::new(if keep { "1" } else { "" });
    let watcher = Watcher::new(CLEAN_UP, &[("DIR", dir.path().as_os_str()), ("KEEP", keep_it)])?;
    let ended = wait_for(program, args, &dir);
    // Watched over until here.
    let path = if keep { dir.keep() } else { dir.path().to_path_buf() };
    drop(watcher);
    Ok((ended?, path))
}

fn wait_for<S: AsRef<OsStr>>(program: &Path, args: &[S], dir: &TempDir) -> Result<ExitStatus> {
    let mut child = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-euc", PREPARE, "sh"])
        .arg(program)
        .args(args)
        .env(ENV_INSIDE, dir.path())
        .env("TMPDIR", dir.path())
        .spawn()
        .context("cannot run unshare: install util-linux")?;
    let pid = dir.path().join("pid");
    let written = std::fs::write(&pid, child.id().to_string());
    let ended = child.wait().context("cannot wait for the end of it");
    written.context("cannot write down which process it is")?;
    // Its number may soon be somebody else's.
    std::fs::remove_file(pid).context("cannot forget which process it was")?;
    ended
}
