//! A tree of very many files that are new: what each of them costs in the agent's memory, and how long a start takes.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Mounted;

/// Files in each directory.
const IN_EACH: u64 = 1_000;

/// What a tree came to. Memory is in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Files and directories.
    pub inodes: u64,
    /// To make them, by one thread.
    pub made: Duration,
    /// The agent's memory before.
    pub empty: u64,
    /// The most that it had meanwhile.
    pub peak: u64,
    /// `hn up` over all of it.
    pub start: Duration,
    /// The agent's memory after it.
    pub started: u64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes / 1_000_000;
        write!(
            f,
            "{} inodes made in {:.0} s: {} MB at most, {} bytes for each; hn up over them in {:.1} s, {} MB then",
            self.inodes,
            self.made.as_secs_f64(),
            megabytes(self.peak),
            self.peak.saturating_sub(self.empty) / self.inodes.max(1),
            self.start.as_secs_f64(),
            megabytes(self.started)
        )
    }
}

/// A line of `/proc/PID/status` in bytes.
fn memory(mounted: &Mounted, line: &str) -> Result<u64> {
    let pid = mounted.agent.status()?["pid"].as_u64().context("the status names no process")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)).context("there is no such line")?;
    let kibibytes = value.trim_start_matches(':').trim().trim_end_matches("kB").trim();
    Ok(kibibytes.parse::<u64>()? * 1024)
}

/// Makes `files` empty files in directories of a thousand each, and starts the agent again over them.
pub fn run(mounted: &Mounted, files: u64) -> Result<Cost> {
    let empty = memory(mounted, "VmRSS")?;
    let began = Instant::now();
    for dir in 0..files.div_ceil(IN_EACH) {
        let dir_path = mounted.path().join(format!("d{dir}"));
        fs::create_dir(&dir_path)?;
        for file in 0..IN_EACH.min(files - dir * IN_EACH) {
            OpenOptions::new().write(true).create_new(true).open(dir_path.join(format!("f{file}")))?;
        }
    }
    let (made, peak) = (began.elapsed(), memory(mounted, "VmHWM")?);
    mounted.agent.down()?;
    let began = Instant::now();
    mounted.up()?;
    let start = began.elapsed();
    let inodes = files + files.div_ceil(IN_EACH);
    Ok(Cost { inodes, made, empty, peak, start, started: memory(mounted, "VmRSS")? })
}
