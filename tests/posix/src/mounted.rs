//! A mount with an agent of its own.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use hypernet_kit::{Agent, hn, machine};

/// Lines of a failed script's trace that are shown.
const TRACE: usize = 20;

/// How the kernel treats file content: see `docs/semantics.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// The kernel reads and writes backing files itself.
    Passthrough,
    /// The kernel caches writes, as an ordinary user's mount has it.
    Writeback,
}

impl Profile {
    /// Those that this machine can have.
    pub fn all() -> Vec<Self> {
        let passthrough = machine::has_passthrough().then_some(Self::Passthrough);
        passthrough.into_iter().chain([Self::Writeback]).collect()
    }

    /// Its name in `hn status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Writeback => "writeback",
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Passthrough => &[],
            Self::Writeback => &["--no-passthrough"],
        }
    }
}

/// A running agent and its mount.
#[derive(Debug)]
pub struct Mounted {
    /// Whose mount it is.
    pub agent: Agent,
    profile: Profile,
}

impl Mounted {
    /// A new volume without peers, mounted.
    pub fn new(profile: Profile) -> Result<Self> {
        Self::with(Agent::alone()?, profile)
    }

    /// The mount of an agent that is set up and not running.
    pub fn with(agent: Agent, profile: Profile) -> Result<Self> {
        let mounted = Self { agent, profile };
        mounted.up()?;
        Ok(mounted)
    }

    /// Starts the agent again, with the same kind of mount.
    pub fn up(&self) -> Result<()> {
        let arguments: Vec<&str> = self.profile.arguments().iter().copied().chain(["--hold"]).collect();
        self.agent.up_with(&arguments)?;
        let status = self.agent.status()?;
        ensure!(
            status["mount"].to_string().contains(self.profile.name()),
            "no {} mount: {status}",
            self.profile.name()
        );
        Ok(())
    }

    /// How it is mounted.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.agent.mount()
    }

    /// A command that works in the mount, with a home of its own there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env("HOME", self.path()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs a script in the mount, which fails at its first failing command, and gives its standard output.
    pub fn sh(&self, script: &str) -> Result<String> {
        let mut command = self.command("timeout");
        command.args(["-k", "5", "280", "bash", "-euxo", "pipefail", "-c", script]);
        let ran = hn::run(&mut command)?;
        if ran.code != Some(0) {
            // The trace ends with what failed.
            let lines: Vec<&str> = ran.stderr.lines().collect();
            let last = lines[lines.len().saturating_sub(TRACE)..].join("\n");
            bail!("a script failed in a {} mount ({:?}), after\n{last}", self.profile.name(), ran.code);
        }
        Ok(ran.stdout)
    }
}
