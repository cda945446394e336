//! fsx on a file that is larger than the local cache, so that it is evicted and fetched back while fsx runs.
//!
//! What is open stays, and fsx opens its file again as soon as it has closed it. So strace stops it after each close,
//! until the file is on the mesh and as much of it is evicted as the cache's limit demands.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hypernet_kit::{Agent, Mesh};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{Mounted, Profile, suite};

/// How often the file is closed and opened again, beside [`FSX`]'s 50 and more of everything else: some hundred times in a
/// million operations,
pub const RARELY: f64 = 0.02;
/// or once in some fifty.
pub const OFTEN: f64 = 1.0;

/// Peers that store.
const PEERS: u32 = 4;

/// The limit of the cache, in bytes; the file grows to several times that.
const CACHE: u64 = 4 << 20;

/// How often an eviction is looked for,
const LOOKS: u32 = 12_000;
/// and how long it is waited for in between.
const LOOK: Duration = Duration::from_millis(10);
/// After so many looks the file is brought to the mesh once more.
const SYNC_AGAIN: u32 = 100;

/// Nothing is read through a mapping: fsx 0.3.2 never unmaps that, and what is mapped is open.
const FSX: &str = "
flen = 16777216
[opsize]
min = 1
max = 524288
[weights]
invalidate = 1
mapread = 0
mapwrite = 10
read = 10
write = 10
truncate = 0.2
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 2
punch_hole = 1
sendfile = 3
posix_fadvise = 1
copy_file_range = 4
";

/// A mount with a small cache, and peers.
#[derive(Debug)]
pub struct Pressed {
    mounted: Mounted,
    _mesh: Mesh,
}

/// What happened to the file while it was closed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closed {
    /// How often it was.
    pub times: u64,
    /// And evicted then.
    pub evicted: u64,
}

/// Ends what was started when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Without strace, fsx could stay stopped for good: the whole group goes. One that has ended has none.
        if let Ok(None) = self.0.try_wait()
            && let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

impl Pressed {
    /// A mesh, and a new volume on it.
    pub fn new(profile: Profile) -> Result<Self> {
        let mesh = Mesh::start(PEERS)?;
        let agent = Agent::on(&mesh)?;
        agent.json(["up", "--no-mount", "--cache", &CACHE.to_string()])?;
        agent.down()?;
        let mounted = Mounted::with(agent, profile)?;
        mounted.agent.wait_for_peers(PEERS)?;
        Ok(Self { mounted, _mesh: mesh })
    }

    /// A directory that goes away with it.
    pub fn scratch(&self) -> &Path {
        self.mounted.agent.scratch()
    }

    /// Runs fsx; artifacts of a failure stay in `artifacts`.
    pub fn fsx(&self, seed: u64, operations: u64, closes: f64, artifacts: &Path) -> Result<Closed> {
        let mut all = Closed::default();
        for (seed, operations) in suite::fsx_runs(seed, operations) {
            let closed = self.run(seed, operations, closes, artifacts)?;
            all.times += closed.times;
            all.evicted += closed.evicted;
        }
        Ok(all)
    }

    fn run(&self, seed: u64, operations: u64, closes: f64, artifacts: &Path) -> Result<Closed> {
        let args = suite::fsx_args(&format!("{FSX}close_open = {closes}\n"), seed, operations, artifacts)?;
        let file = self.mounted.path().join(format!("fsx-{seed}"));
        let mut command = Command::new("strace");
        command.args(["-q", "-e", "trace=close", "-e", "inject=close:signal=SIGSTOP", "-P"]).arg(&file);
        command.arg("fsx").args(args).arg(&file);
        // In a group of their own, which ends as a whole.
        let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut running = Running(child.context("cannot run strace")?);
        let said = running.0.stderr.take().context("strace has no standard error")?;
        let mut closed = Closed::default();
        let mut last = Vec::new();
        for line in BufReader::new(said).lines() {
            let line = line?;
            if line.contains("stopped by SIGSTOP") {
                closed.times += 1;
                closed.evicted += u64::from(self.evicted()?);
                kill_process(traced(running.0.id())?, Signal::CONT).context("cannot let fsx go on")?;
            }
            last.push(line);
            let excess = last.len().saturating_sub(40);
            last.drain(..excess);
        }
        let ended = running.0.wait()?;
        // strace ends as fsx does.
        ensure!(ended.success(), "seed {seed}: fsx failed ({ended}):\n{}", last.join("\n"));
        fs::remove_file(&file).context("cannot remove the file of fsx")?;
        Ok(closed)
    }

    /// Brings the file to the mesh, and waits until no more of it is here than may be. False: it was small enough.
    fn evicted(&self) -> Result<bool> {
        let before = self.on_disk()?;
        self.mounted.agent.sync()?;
        let mut looks = 0;
        while self.on_disk()? > CACHE {
            ensure!(looks < LOOKS, "{} bytes of local copies stay, and {CACHE} are allowed", self.on_disk()?);
            looks += 1;
            std::thread::sleep(LOOK);
            if looks % SYNC_AGAIN == 0 {
                // The kernel tells of the last close when it likes: what was open while it was brought to the mesh, and
                // may have been written to at that moment, counts as dirty.
                self.mounted.agent.sync()?;
            }
        }
        Ok(before > CACHE)
    }

    /// Bytes that all backing files have on the disk.
    fn on_disk(&self) -> Result<u64> {
        let mut bytes = 0;
        for dir in fs::read_dir(self.mounted.agent.home().join("tree/files/data"))? {
            for file in fs::read_dir(dir?.path())? {
                // It may go at any moment.
                bytes += file?.metadata().map_or(0, |metadata| metadata.blocks() * 512);
            }
        }
        Ok(bytes)
    }
}

/// The one process that strace runs.
fn traced(strace: u32) -> Result<Pid> {
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"))?;
    let pid = children.split_whitespace().next().context("strace runs nothing")?;
    Pid::from_raw(pid.parse()?).context("no process has this number")
}
