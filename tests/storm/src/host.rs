//! A host with an agent, which is started, killed and frozen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hypernet_kit::hn::{self, Ran};
use hypernet_kit::{Disk, PowerCut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::network;

/// What `hn` may take for anything but a sync, in seconds.
const COMMAND: u64 = 240;
/// How often a start is tried: a machine under load can be slow beyond its deadline.
const STARTS: u32 = 3;
/// How long the end of a killed process is waited for.
const GONE_WITHIN: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };
/// How long somebody waits for an agent that was killed to be there again.
const BACK_WITHIN: Duration = Duration::from_secs(300);
/// Bytes of local copies that an agent with a mount keeps, so that it has to fetch what it reads.
const CACHE: &str = "8M";

/// Whether the agent runs.
#[derive(Debug, Default)]
struct Life {
    pid: Option<i32>,
    /// How often it was started.
    generation: u64,
    /// How often it was killed.
    kills: u64,
    /// When it was stopped, and until when.
    frozen: Vec<(Instant, Option<Instant>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Host {
    /// Its number, by which the network knows it.
    pub number: usize,
    /// How people call it.
    pub name: String,
    /// HN_HOME of its agent.
    pub home: PathBuf,
    /// Where it mounts; none of a donor.
    pub mount: Option<PathBuf>,
    /// A disk of its own that can be filled.
    pub disk: Option<Disk>,
    life: Mutex<Life>,
    lives: Condvar,
}

impl Host {
    /// A host without an agent.
    pub fn new(number: usize, name: &str, work: &Path, has_mount: bool, disk: Option<Disk>) -> Result<Self> {
        let dir = work.join(name);
        fs::create_dir(&dir).context("cannot make a directory")?;
        let home = disk.as_ref().map_or_else(|| dir.join("home"), |disk| disk.path().join("home"));
        let mount = has_mount.then(|| dir.join("mnt"));
        if let Some(mount) = &mount {
            fs::create_dir(mount).context("cannot make the directory to mount at")?;
        }
        let (life, lives) = Default::default();
        Ok(Self { number, name: name.to_owned(), home, mount, disk, life, lives })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `hn` on this host, with this on its standard input, for so many seconds at most.
    pub fn hn_within(&self, seconds: u64, args: &[&str], input: Option<&Path>) -> Result<Ran> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", network::file(self.number)))
            .args(["timeout", "-k", "5", &seconds.to_string()])
            .arg(hn::binary("hn")?)
            .arg("--json")
            .args(args)
            .env("HN_HND", hn::binary("hnd")?)
            .env("HN_HOME", &self.home)
            .env_remove("HN_DEV_MESH")
            .env("NO_COLOR", "1");
        match input {
            Some(path) => command.stdin(fs::File::open(path).context("cannot open what is to be told")?),
            None => command.stdin(Stdio::null()),
        };
        hn::run(&mut command)
    }

    /// The (last) answer of a success.
    pub fn hn(&self, args: &[&str]) -> Result<Value> {
        self.hn_within(COMMAND, args, None)?.ok()?.json()
    }

    /// Changes what its agent remembers of its set-up. It must not run.
    pub fn configure(&self, changes: &[(&str, Value)]) -> Result<()> {
        let path = self.home.join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        for (name, value) in changes {
            config[*name] = value.clone();
        }
        fs::write(path, config.to_string()).context("cannot write the configuration")
    }

    /// Starts the agent. Whoever waits for it goes on.
    pub fn up(&self) -> Result<()> {
        let mut args = vec!["up", "--upnp", "false"];
        match self.mount.as_deref().and_then(Path::to_str) {
            Some(mount) => args.extend(["--mount", mount, "--cache", CACHE]),
            None => args.push("--no-mount"),
        }
        let mut tries = 1;
        let up = loop {
            match self.hn(&args) {
                Ok(up) => break up,
                Err(error) if tries == STARTS => return Err(error.context(format!("{} does not start", self.name))),
                Err(_) => tries += 1,
            }
        };
        ensure!(
            self.mount.is_none() || up["profile"] == "passthrough",
            "this needs mounts by root with passthrough, and {} has {}: {}",
            self.name,
            up["profile"],
            up["reason"]
        );
        let mut life = self.life();
        life.pid = Some(i32::try_from(up["pid"].as_i64().context("hn up names no process")?)?);
        life.generation += 1;
        self.lives.notify_all();
        Ok(())
    }

    fn signal(pid: i32, signal: Signal) -> Result<rustix::fd::OwnedFd> {
        let pid = Pid::from_raw(pid).context("no process has this number")?;
        let process = pidfd_open(pid, PidfdFlags::empty()).context("the agent is gone")?;
        pidfd_send_signal(&process, signal).context("the agent takes no signal")?;
        Ok(process)
    }

    /// Kills the agent as a power cut would, and returns when it is gone.
    pub fn kill(&self) -> Result<()> {
        let pid = {
            let mut life = self.life();
            // Whoever works on its mount must not take what it meets from now on for anything else.
            life.kills += 1;
            life.pid.take().with_context(|| format!("{} does not run", self.name))?
        };
        let process = Self::signal(pid, Signal::KILL).with_context(|| format!("{} ended by itself", self.name))?;
        ensure!(
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&GONE_WITHIN))? == 1,
            "{} does not end",
            self.name
        );
        Ok(())
    }

    /// Stops the agent's clock, so to speak: it does nothing, and does not know.
    pub fn freeze(&self) -> Result<()> {
        let mut life = self.life();
        let pid = life.pid.with_context(|| format!("{} does not run", self.name))?;
        Self::signal(pid, Signal::STOP).with_context(|| format!("{} ended by itself", self.name))?;
        life.frozen.push((Instant::now(), None));
        Ok(())
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        let mut life = self.life();
        let pid = life.pid.with_context(|| format!("{} does not run", self.name))?;
        Self::signal(pid, Signal::CONT).with_context(|| format!("{} ended by itself", self.name))?;
        if let Some((_, until)) = life.frozen.last_mut() {
            until.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Stops the agent in an orderly way.
    pub fn down(&self) -> Result<()> {
        self.life().pid = None;
        self.hn(&["down"]).map(drop)
    }

    /// Fails where the agent should run and does not.
    pub fn look(&self) -> Result<()> {
        let Some(pid) = self.life().pid else { return Ok(()) };
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        ensure!(comm.trim() == "hnd", "the agent of {} ended by itself: see its hnd.log", self.name);
        Ok(())
    }

    /// How long the agent was frozen between two moments.
    pub fn frozen(&self, from: Instant, to: Instant) -> Duration {
        let overlap = |(start, end): &(Instant, Option<Instant>)| {
            end.unwrap_or(to).min(to).saturating_duration_since((*start).max(from))
        };
        self.life().frozen.iter().map(overlap).sum()
    }

    /// How often the agent was killed.
    pub fn kills(&self) -> u64 {
        self.life().kills
    }

    /// Returns when the agent runs again after it was killed, with how often that was.
    pub fn wait_until_up(&self) -> Result<u64> {
        let until = Instant::now() + BACK_WITHIN;
        let mut life = self.life();
        loop {
            if life.pid.is_some() {
                return Ok(life.kills);
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                bail!("{} did not come back", self.name)
            };
            life = self.lives.wait_timeout(life, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The plan of what it stores now: shards that are enough, and shards that are made.
    pub fn plan(&self) -> Result<(u64, u64)> {
        let status = self.hn(&["status"])?;
        let plan = &status["volume"]["plan"];
        plan["k"].as_u64().zip(plan["n"].as_u64()).with_context(|| format!("{} has no plan: {status}", self.name))
    }

    /// The newest lines of the agent's log that say something is wrong.
    pub fn complaints(&self, lines: usize) -> Vec<String> {
        let log = fs::read_to_string(self.home.join("hnd.log")).unwrap_or_default();
        let wrong = |line: &&str| line.contains("WARN") || line.contains("ERROR") || line.contains("panicked");
        let mut newest: Vec<String> = log.lines().rev().filter(wrong).take(lines).map(str::to_owned).collect();
        newest.reverse();
        newest
    }

    /// Segments that it says it has mended.
    pub fn mended(&self) -> u64 {
        let log = ["hnd.log.old", "hnd.log"].map(|name| fs::read_to_string(self.home.join(name)).unwrap_or_default());
        let of_line = |line: &str| {
            let (_, rest) = line.split_once("mended=").or_else(|| line.split_once("\"mended\":"))?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let lines = log.iter().flat_map(|log| log.lines());
        lines.filter(|line| line.contains("segments are mended")).filter_map(of_line).sum()
    }
}
