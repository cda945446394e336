//! Mounts of an ordinary user, by fusermount3 and without passthrough; and what is said when there can be none.
//!
//! Root runs this, as an ordinary user.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hypernet_kit::hn::{self, Ran};
use hypernet_kit::machine::{Need, has};
use serde_json::Value;
use tempfile::TempDir;

/// `nobody`, which every Debian has.
const USER: u32 = 65_534;
const DEVICE: &str = "/dev/fuse";

/// Puts the device's mode back.
struct Mode(u32);

impl Mode {
    fn set(mode: u32) -> Result<Self> {
        let before = fs::metadata(DEVICE)?.permissions().mode();
        fs::set_permissions(DEVICE, Permissions::from_mode(mode))?;
        Ok(Self(before))
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        let _ = fs::set_permissions(DEVICE, Permissions::from_mode(self.0));
    }
}

/// An ordinary user with programs and directories of its own.
struct Ordinary {
    dir: TempDir,
}

impl Ordinary {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hn-ordinary").tempdir()?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        for name in ["hn", "hnd"] {
            // Where the build is, others may not look.
            fs::copy(hn::binary(name)?, dir.path().join(name))?;
        }
        for name in ["home", "mnt"] {
            fs::create_dir(dir.path().join(name))?;
            chown(dir.path().join(name), Some(USER), Some(USER))?;
        }
        let it = Self { dir };
        it.hn(&["init", "--no-confirm", "--no-mdns", "--listen", "127.0.0.1"])?.ok()?;
        Ok(it)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(program)
            .env("HN_HOME", self.path("home/hn"))
            .env("HN_HND", self.path("hnd"))
            .env("HOME", self.path("home"))
            .env("NO_COLOR", "1")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    fn hn(&self, args: &[&str]) -> Result<Ran> {
        hn::run(self.command(&self.path("hn")).args(args))
    }

    fn up(&self) -> Result<Ran> {
        let mount = self.path("mnt");
        self.hn(&["--json", "up", "--mount", mount.to_str().context("no text")?])
    }

    /// Runs a script in the mount: nobody else may look into it, root included.
    fn sh(&self, script: &str) -> Result<String> {
        let said =
            hn::run(self.command(Path::new("/bin/sh")).args(["-euc", script]).env("M", self.path("mnt")))?.ok()?;
        Ok(said.stdout)
    }

    fn status(&self) -> Result<Value> {
        self.hn(&["--json", "status"])?.ok()?.json()
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        let _ = self.hn(&["down"]);
        let _ = Command::new("umount").arg("-l").arg(self.path("mnt")).stderr(Stdio::null()).status();
    }
}

/// A mount that did not come about: one line, which says what to do.
#[track_caller]
fn one_line(refused: &Ran, says: &str) {
    assert_eq!(refused.code, Some(73), "{refused:?}");
    assert!(refused.stderr.starts_with("error: ") && refused.stderr.contains(says), "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
}

#[test]
fn an_ordinary_user_mounts_writes_and_comes_back() -> Result<()> {
    if !has(&[Need::Fuse, Need::Root]) {
        return Ok(());
    }
    let user = Ordinary::new()?;
    {
        let _closed = Mode::set(0o600)?;
        let refused = user.up()?;
        one_line(&refused, "chmod 0666 /dev/fuse");
    }
    let _open = Mode::set(0o666)?;
    user.up()?.ok()?;
    let status = user.status()?;
    assert_eq!(status["mount"]["dir"].as_str(), user.path("mnt").to_str(), "{status}");
    assert!(status["mount"].to_string().contains("writeback"), "{status}");
    // What it has in memory is told to nobody but root, also not to whoever has started it.
    let environ = format!("/proc/{}/environ", status["pid"]);
    let refused = hn::run(user.command(Path::new("/bin/cat")).arg(&environ))?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("Permission denied"), "{refused:?}");
    user.sh(r#"
        cd "$M"; mkdir d; printf 'by hand' >d/file; ln d/file d/hard; ln -s file d/soft; chmod 0640 d/file
        mkfifo d/pipe; seq 100000 >numbers; mv numbers d/; touch -d '2001-02-03 04:05:06 UTC' d/file
        sync -f d/file; sync d/file d/numbers d
    "#)?;
    let look = r#"cd "$M/d"; cat soft; sha256sum numbers; stat -c '%a %h %Y' file; test -p pipe; ls"#;
    let before = user.sh(look)?;
    assert!(before.starts_with("by hand") && before.contains("640 2 981173106"), "{before}");

    // Killed, it leaves a dead mount; the next start clears it, by the helper.
    let pid = status["pid"].as_u64().context("no process")?.to_string();
    ensure!(Command::new("kill").args(["-9", &pid]).status()?.success(), "cannot kill {pid}");
    user.up()?.ok()?;
    assert_eq!(user.sh(look)?, before);
    user.hn(&["umount"])?.ok()?;
    assert_eq!(user.sh(r#"ls "$M""#)?, "");
    user.hn(&["down"])?.ok()?;
    Ok(())
}

#[test]
fn a_missing_helper_is_named() -> Result<()> {
    if !has(&[Need::Fuse, Need::Root]) {
        return Ok(());
    }
    let user = Ordinary::new()?;
    let _open = Mode::set(0o666)?;
    // All programs but this one, in a namespace of its own.
    let script = r#"
        mount -t tmpfs none "$M"; mkdir "$M/up" "$M/work"
        mount -t overlay -o "lowerdir=/usr/bin,upperdir=$M/up,workdir=$M/work" none /usr/bin; umount -l "$M"
        rm -f /usr/bin/fusermount3 /usr/bin/fusermount
        exec "$@"
    "#;
    let mount = user.path("mnt");
    let mut command = user.command(&user.path("hn"));
    command.args(["up", "--mount"]).arg(&mount);
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-euc", script, "sh"]).arg(command.get_program()).args(command.get_args());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("M", &mount);
    // Where this user may look: a place that is closed would hide whether it is there.
    inside.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    one_line(&hn::run(inside.stdin(Stdio::null()))?, "fusermount3 is missing: install the package fuse3");
    Ok(())
}

#[test]
fn a_kernel_without_fuse_is_named() -> Result<()> {
    if !has(&[Need::Fuse, Need::Root]) {
        return Ok(());
    }
    let agent = hypernet_kit::Agent::alone()?;
    // A /dev of its own, in a namespace of its own, with the least that programs need.
    let script = r#"
        mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9
        exec "$@" up --mount "$M"
    "#;
    let command = agent.command(["up"])?;
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-euc", script, "sh"]).arg(command.get_program()).env("M", agent.mount());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let refused = hn::run(&mut inside)?;
    one_line(&refused, "/dev/fuse does not exist: load it with `modprobe fuse`");
    Ok(())
}
