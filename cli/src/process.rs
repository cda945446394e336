//! Processes that are known by more than their number.
//!
//! Invariant: a signal only ever reaches the process that was meant. A number may have been given to somebody else since
//! it was written down, so a process is opened as a descriptor first, then compared by boot, start time and program name, and
//! signals go through the descriptor. Waiting is a wake-up by the kernel, not a look every now and then.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// What tells a process from every other, now and after a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// In clock ticks since the boot.
    start: u64,
    boot: String,
    program: String,
}

/// A process that was found, alive or not yet forgotten by its parent.
#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The program's name and field 22 of `/proc/PID/stat`, the start. The second field is the name in parentheses and may
/// contain anything, so fields are counted from the last parenthesis. This file everybody may read; where the program lies
/// (`/proc/PID/exe`) is told of an agent to nobody but root, as all that is in its memory.
fn name_and_start(stat: &str) -> Option<(&str, u64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    Some((name, after.split_ascii_whitespace().nth(19)?.parse().ok()?))
}

impl Identity {
    /// Of a process that is known to run.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (name, start) =
            name_and_start(&stat).ok_or_else(|| io::Error::other("/proc/PID/stat is not understood"))?;
        Ok(Self { pid, start, boot: boot_id()?, program: name.to_owned() })
    }

    /// The process, if it still runs and is the same.
    pub(crate) fn find(&self) -> Option<Process> {
        let process = Process::open(self.pid)?;
        // In this order: what is compared now is what the descriptor stands for, as long as it has not exited.
        let same = Self::of(self.pid).is_ok_and(|now| now == *self);
        (same && process.is_running()).then_some(process)
    }
}

impl Process {
    /// Whoever has this number now.
    pub(crate) fn open(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(Self)
    }

    /// Whether it has not exited.
    pub(crate) fn is_running(&self) -> bool {
        !has_exited(&self.0, Duration::ZERO)
    }

    /// Sends a signal; to one that has exited it means nothing.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.0.as_fd(), signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other.map_err(Into::into),
        }
    }

    /// Waits until it has exited; false when it has not within the time.
    pub(crate) async fn gone(&self, within: Duration) -> bool {
        let Ok(fd) = self.0.try_clone() else { return !self.is_running() };
        tokio::task::spawn_blocking(move || has_exited(&fd, within)).await.unwrap_or(false)
    }
}

/// The descriptor of a process becomes readable when it exits.
fn has_exited(process: &OwnedFd, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_confuse() {
        let stat = "12 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(name_and_start(stat), Some(("a) b) c", 4711)));
        assert_eq!(name_and_start("nonsense"), None);
    }

    #[tokio::test]
    async fn finds_signals_and_sees_the_end_of_a_process() {
        let mut child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let process = identity.find().unwrap();
        assert!(process.is_running());
        assert!(!process.gone(Duration::ZERO).await);
        process.signal(Signal::KILL).unwrap();
        assert!(process.gone(Duration::from_secs(60)).await);
        // Not waited for by its parent yet: a number, but nobody who runs.
        assert!(identity.find().is_none());
        child.wait().unwrap();
        process.signal(Signal::KILL).unwrap();
        assert!(identity.find().is_none());
    }

    #[test]
    fn a_stranger_with_the_same_number_is_not_found() {
        let mut other = Identity::of(std::process::id()).unwrap();
        assert!(other.find().is_some());
        other.start += 1;
        assert!(other.find().is_none());
        let mut other = Identity::of(std::process::id()).unwrap();
        other.boot = "another".into();
        assert!(other.find().is_none());
    }
}
