//! An agent of one's own, with a directory and a place to mount.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::hn::{self, Ran};
use crate::watcher::Watcher;
use crate::{Host, Mesh};

/// What the watcher does: a polite stop, else the end of the process that the agent wrote down, then the mount.
const CLEAN_UP: &str = r#"
timeout 60 "$HN" down || { pid=$(cat "$DIR/pid" 2>/dev/null) && [ "$(cat "/proc/$pid/comm")" = hnd ] && kill -9 "$pid"; }
umount -l "$DIR/mnt" || fusermount3 -uz "$DIR/mnt"
rm -rf --one-file-system "$DIR"
"#;

/// An agent. It stops, and everything of it goes away, when this is dropped.
#[derive(Debug)]
pub struct Agent {
    _watcher: Watcher,
    dir: TempDir,
    home: PathBuf,
    /// Where it runs, if not where the test does.
    host: Option<Host>,
}

impl Agent {
    /// One that is not set up.
    pub fn empty() -> Result<Self> {
        Self::empty_with(None)
    }

    /// One that is not set up, and is to run on this host.
    pub fn empty_on(host: &Host) -> Result<Self> {
        Ok(Self { host: Some(host.clone()), ..Self::empty()? })
    }

    /// One that only stores for others, on this host and the mesh of this link, or on one of its own. It runs.
    pub fn stores_on(host: &Host, link: Option<&str>) -> Result<Self> {
        let agent = Self::empty_on(host)?;
        let mut args = vec!["init", "--storage-only", "--no-mdns", "--listen", host.address()];
        if let Some(link) = link {
            args.extend(["--join", link]);
        }
        agent.json(args)?;
        agent.up_unmounted()?;
        Ok(agent)
    }

    /// The link of its mesh.
    pub fn link(&self) -> Result<String> {
        Ok(self.json(["invite"])?["link"].as_str().context("there is no link")?.to_owned())
    }

    /// One that is not set up, and is to live in this directory instead of its own.
    pub fn empty_at(home: PathBuf) -> Result<Self> {
        Self::empty_with(Some(home))
    }

    fn empty_with(home: Option<PathBuf>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hn-agent").tempdir().context("cannot make a directory")?;
        fs::create_dir(dir.path().join("mnt")).context("cannot make the directory to mount at")?;
        let home = home.unwrap_or_else(|| dir.path().join("home"));
        let watcher = Watcher::new(
            CLEAN_UP,
            &[("HN", hn::binary("hn")?.as_os_str()), ("HN_HOME", home.as_os_str()), ("DIR", dir.path().as_os_str())],
        )?;
        Ok(Self { _watcher: watcher, dir, home, host: None })
    }

    /// One with a new identity on a mesh of its own.
    pub fn alone() -> Result<Self> {
        let agent = Self::empty()?;
        agent.init(&[])?;
        Ok(agent)
    }

    /// One with a new identity on this mesh.
    pub fn on(mesh: &Mesh) -> Result<Self> {
        let agent = Self::empty()?;
        agent.init(&["--join", mesh.link()])?;
        Ok(agent)
    }

    /// Gives it a new identity. Returns what was made; the words are kept for [`Self::recover`].
    pub fn init(&self, args: &[&str]) -> Result<Value> {
        let made = self.json(["init", "--no-confirm", "--no-mdns", "--listen", self.address()].iter().chain(args))?;
        let words = made["phrase"].as_array().context("no words were told")?;
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        fs::write(self.words(), words.join(" ") + "\n").context("cannot keep the words")?;
        Ok(made)
    }

    /// Where it listens.
    fn address(&self) -> &str {
        self.host.as_ref().map_or("127.0.0.1", Host::address)
    }

    fn words(&self) -> PathBuf {
        self.scratch().join("words")
    }

    /// `hn recover` by the words of [`Self::init`].
    pub fn recover(&self, args: &[&str]) -> Result<Ran> {
        self.by_words(&[&["recover", "--no-mdns", "--listen", self.address()], args].concat())
    }

    /// Runs `hn` for this agent, and gives it the words of [`Self::init`].
    pub fn by_words(&self, args: &[&str]) -> Result<Ran> {
        let mut command = self.command(args.iter().chain(&["--phrase-stdin"]))?;
        command.stdin(fs::File::open(self.words()).context("no words were kept")?);
        hn::run(&mut command)
    }

    /// The same, mounted, with so many storage peers connected.
    pub fn up_on(mesh: &Mesh, peers: u32) -> Result<Self> {
        let agent = Self::on(mesh)?;
        agent.up()?;
        agent.wait_for_peers(peers)?;
        Ok(agent)
    }

    /// The same, whose uploads wait for [`Self::sync`].
    pub fn held_on(mesh: &Mesh, peers: u32) -> Result<Self> {
        let agent = Self::on(mesh)?;
        agent.up_with(&["--hold"])?;
        agent.wait_for_peers(peers)?;
        Ok(agent)
    }

    /// A command line of `hn` for this agent.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = hn::command(args)?;
        command.env("HN_HOME", self.home());
        Ok(match &self.host {
            Some(host) => host.runs(&command),
            None => command,
        })
    }

    /// Runs `hn` for this agent.
    pub fn hn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Ran> {
        hn::run(&mut self.command(args)?)
    }

    /// Runs `hn --json` for this agent and takes the (last) answer of a success.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Value> {
        hn::run(self.command(["--json"])?.args(args))?.ok()?.json()
    }

    /// Starts it, with a mount.
    pub fn up(&self) -> Result<Value> {
        self.up_with(&[])
    }

    /// Starts it, with a mount and further arguments for `hn up`.
    pub fn up_with(&self, args: &[&str]) -> Result<Value> {
        let mount = self.mount();
        let mount = mount.to_str().context("the directory's name is no text")?;
        let up = self.json(["up", "--mount", mount].iter().chain(args))?;
        self.remember(&up)?;
        Ok(up)
    }

    /// Starts it without a mount.
    pub fn up_unmounted(&self) -> Result<Value> {
        let up = self.json(["up", "--no-mount"])?;
        self.remember(&up)?;
        Ok(up)
    }

    fn remember(&self, up: &Value) -> Result<()> {
        let pid = up["pid"].as_u64().context("hn up names no process")?;
        fs::write(self.dir.path().join("pid"), pid.to_string()).context("cannot write down the process")
    }

    /// Stops it.
    pub fn down(&self) -> Result<()> {
        self.hn(["down"])?.ok().map(drop)
    }

    /// Kills it as a power cut would, and returns when it is gone.
    pub fn kill(&self) -> Result<()> {
        let pid = self.status()?["pid"].as_u64().context("the status names no process")?;
        self.kill_process(pid)
    }

    /// The same for one that may not answer any more: this is its process.
    pub fn kill_process(&self, pid: u64) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no process has this number")?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_send_signal(&process, Signal::KILL)?;
        ensure!(poll(&mut [PollFd::new(&process, PollFlags::IN)], None)? == 1, "the process does not go away");
        Ok(())
    }

    /// `hn status`.
    pub fn status(&self) -> Result<Value> {
        self.json(["status"])
    }

    /// `hn sync`: the report.
    pub fn sync(&self) -> Result<Value> {
        self.json(["sync"])
    }

    /// Returns when this many storage peers are connected.
    pub fn wait_for_peers(&self, count: u32) -> Result<()> {
        self.json(["peers", "--wait", &count.to_string()]).map(drop)
    }

    /// Deletes all that it has. It must be stopped.
    pub fn wipe(&self) -> Result<()> {
        fs::remove_dir_all(self.home()).context("cannot delete the agent's directory")
    }

    /// Its HN_HOME.
    pub fn home(&self) -> PathBuf {
        self.home.clone()
    }

    /// Where it mounts.
    pub fn mount(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A directory of the test's own that goes away with the agent.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }
}
