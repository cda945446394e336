//! A mesh of storage peers, as `hn dev mesh` makes it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::hn::{self, Ran};
use crate::watcher::Watcher;

/// Storage peers, each a process. All of them stop when this is dropped.
#[derive(Debug)]
pub struct Mesh {
    // Dropped in this order: the processes first, then their directory.
    _watcher: Watcher,
    dir: TempDir,
    link: String,
}

impl Mesh {
    /// Starts `peers` of them.
    pub fn start(peers: u32) -> Result<Self> {
        Self::with(peers, &[])
    }

    /// Starts `peers` of them, with further arguments for `hn dev mesh up`.
    pub fn with(peers: u32, args: &[&str]) -> Result<Self> {
        Self::made(&std::env::temp_dir(), peers, args)
    }

    /// Starts `peers` of them, with all that they have in this directory.
    pub fn within(parent: &Path, peers: u32) -> Result<Self> {
        Self::made(parent, peers, &[])
    }

    fn made(parent: &Path, peers: u32, args: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hn-mesh").tempdir_in(parent).context("cannot make a directory")?;
        let watcher = Watcher::new(
            "\"$HN\" dev mesh down --dir \"$DIR\"; rm -rf \"$DIR\"",
            &[("HN", hn::binary("hn")?.as_os_str()), ("DIR", dir.path().as_os_str())],
        )?;
        let mut mesh = Self { _watcher: watcher, dir, link: String::new() };
        let count = peers.to_string();
        let up = mesh.mesh(["up", "--peers", &count].iter().chain(args))?.ok()?.json()?;
        mesh.link = up["invite"].as_str().context("the mesh has no invite link")?.to_owned();
        Ok(mesh)
    }

    /// Runs `hn dev mesh` with `--json`.
    pub fn mesh<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Ran> {
        let mut all: Vec<OsString> = ["dev", "mesh", "--json", "--dir"].map(OsString::from).into();
        all.push(self.dir.path().into());
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        hn::hn(all)
    }

    /// The link by which others join.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Kills the lowest-numbered that run, as a power cut would.
    pub fn kill(&self, count: u32) -> Result<()> {
        self.mesh(["kill", &count.to_string()])?.ok().map(drop)
    }

    /// Starts all that are dead.
    pub fn revive(&self) -> Result<()> {
        self.mesh(["revive", "--all"])?.ok().map(drop)
    }

    /// All of them.
    pub fn status(&self) -> Result<Value> {
        self.mesh(["status"])?.ok()?.json()
    }

    /// Where everything of it lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of one peer.
    pub fn peer_home(&self, number: u32) -> PathBuf {
        self.dir.path().join(format!("peer-{number:02}"))
    }
}
