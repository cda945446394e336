//! One directory with very many entries: what each of them costs to make, to look up, to list and to remove, at the
//! beginning and at the end.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Mounted;

/// What something cost for each entry.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What was done.
    pub what: &'static str,
    /// In the first tenth.
    pub first: Duration,
    /// In the last tenth.
    pub last: Duration,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        write!(f, "{} {:.1} us at first, {:.1} us at last", self.what, micros(self.first), micros(self.last))
    }
}

fn name(dir: &Path, number: u64) -> PathBuf {
    // In no order that a list would have.
    dir.join(format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn each(what: &'static str, entries: u64, mut act: impl FnMut(u64) -> Result<()>) -> Result<Cost> {
    let tenth = (entries / 10).max(1);
    let mut stretch = |from: u64, to: u64| -> Result<Duration> {
        let began = Instant::now();
        (from..to).try_for_each(&mut act).with_context(|| format!("{what} failed"))?;
        Ok(began.elapsed() / u32::try_from((to - from).max(1))?)
    };
    let first = stretch(0, tenth)?;
    stretch(tenth, entries - tenth)?;
    Ok(Cost { what, first, last: stretch(entries - tenth, entries)? })
}

/// Makes `entries` files in one directory, looks each of them up, lists them, and removes them.
pub fn run(mounted: &Mounted, entries: u64) -> Result<Vec<Cost>> {
    let dir = mounted.path().join("crowd");
    fs::create_dir(&dir)?;
    let make = |number| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(name(&dir, number))?;
        drop(file);
        Ok(())
    };
    let mut costs = vec![each("create", entries, make)?];
    // Nothing is in the kernel's cache of names any more.
    mounted.agent.down()?;
    mounted.up()?;
    costs.push(each("look up", entries, |number| {
        ensure!(fs::symlink_metadata(name(&dir, number))?.is_file(), "it is another");
        Ok(())
    })?);
    let mut list = fs::read_dir(&dir)?;
    costs.push(each("list", entries, |_| {
        list.next().context("the list has ended")??;
        Ok(())
    })?);
    ensure!(list.next().is_none(), "more are listed than there are");
    costs.push(each("remove", entries, |number| Ok(fs::remove_file(name(&dir, number))?))?);
    ensure!(fs::read_dir(&dir)?.next().is_none(), "some are left");
    fs::remove_dir(&dir)?;
    Ok(costs)
}
