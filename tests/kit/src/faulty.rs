//! A disk that fails on command: `faulty-disk`, a filesystem in memory, run as a process of its own.
//!
//! Unlike ext4 it tears: of what was not synced, any sectors survive a cut of the power and any do not.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::disk::{PowerCut, watched};
use crate::hn;
use crate::watcher::Watcher;

/// Calls that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Reading content.
    Read,
    /// Writing content.
    Write,
    /// Bringing something to stable storage: what this does not write counts as written from then on, as on Linux.
    Sync,
    /// Changing names and attributes.
    Change,
}

impl Fault {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Sync, Self::Change];

    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Change => "change",
        }
    }
}

#[derive(Debug)]
struct Talk {
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// See the module. Needs root.
#[derive(Debug)]
pub struct FaultyDisk {
    talk: Mutex<Talk>,
    process: Child,
    // Cleans up last.
    _watcher: Watcher,
    dir: TempDir,
}

impl FaultyDisk {
    /// An empty one. `seed` decides what a cut leaves, and which calls fail.
    pub fn new(seed: u64) -> Result<Self> {
        let (dir, watcher) = watched()?;
        let mut process = Command::new(hn::binary("faulty-disk")?)
            .arg(dir.path().join("mnt"))
            .args(["--seed", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the disk")?;
        let to = process.stdin.take();
        let from = BufReader::new(process.stdout.take().context("the disk has no output")?);
        let disk = Self { talk: Mutex::new(Talk { to, from }), process, _watcher: watcher, dir };
        disk.hear(&mut disk.talk.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(disk)
    }

    fn hear(&self, talk: &mut Talk) -> Result<String> {
        let mut line = String::new();
        talk.from.read_line(&mut line).context("the disk does not answer")?;
        match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
            ("ok", said) => Ok(said.to_owned()),
            (_, said) => bail!("the disk says: {said}"),
        }
    }

    fn tell(&self, what: &str) -> Result<String> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let to = talk.to.as_mut().context("the disk is gone")?;
        writeln!(to, "{what}").and_then(|()| to.flush()).with_context(|| format!("cannot tell the disk: {what}"))?;
        self.hear(&mut talk).with_context(|| format!("after: {what}"))
    }

    /// Leaves so much room on it, or all that there was.
    pub fn fill(&self, room: Option<u64>) -> Result<()> {
        match room {
            Some(room) => self.tell(&format!("fill {room}")),
            None => self.tell("fill"),
        }
        .map(drop)
    }

    /// Of a thousand calls of this kind so many fail from now on.
    pub fn fail(&self, fault: Fault, of_thousand: u64) -> Result<()> {
        self.tell(&format!("fail {} {of_thousand}", fault.word())).map(drop)
    }

    /// No call fails any more. Gives how many did.
    pub fn heal(&self) -> Result<u64> {
        self.tell("fail")?.parse().context("that is no number")
    }
}

impl PowerCut for FaultyDisk {
    fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn cut(&self) -> Result<()> {
        self.tell("cut").map(drop)
    }

    fn restore(&self) -> Result<()> {
        self.tell("restore").map(drop)
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.talk.get_mut().unwrap_or_else(PoisonError::into_inner).to = None;
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::machine::{Need, has};

    #[test]
    fn it_tears_and_fails_as_it_is_told() {
        if !has(&[Need::Root, Need::Fuse]) {
            return;
        }
        let disk = FaultyDisk::new(1).unwrap();
        let path = disk.path().join("file");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.sync_all().unwrap();
        file.write_all_at(&vec![2; 1 << 20], 0).unwrap();
        disk.fail(Fault::Sync, 1000).unwrap();
        assert!(file.sync_all().is_err());
        assert_eq!(disk.heal().unwrap(), 1);
        file.write_all_at(&vec![3; 1 << 19], 0).unwrap();
        disk.cut().unwrap();
        assert!(File::open(&path).is_err(), "the power is on");
        drop(file);
        disk.restore().unwrap();
        let left = fs::read(&path).unwrap();
        let count = |byte| left.iter().filter(|found| **found == byte).count();
        assert_eq!(left.len(), 1 << 20);
        assert!(count(1) > 1 << 19 && count(3) > 1 << 17, "not torn");
        assert_eq!(count(1) + count(3), left.len(), "what a sync gave up came through");
        disk.fill(Some(1 << 16)).unwrap();
        assert!(fs::write(disk.path().join("other"), vec![0; 1 << 20]).is_err());
        disk.fill(None).unwrap();
        fs::write(disk.path().join("other"), vec![0; 1 << 20]).unwrap();
    }
}
