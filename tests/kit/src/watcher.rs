//! Cleans up after a test, however the test ends.
//!
//! A shell waits for the end of a pipe that the test holds open. The kernel closes it when the test ends, even by
//! SIGKILL, and the shell then runs the clean-up. It is in a process group of its own, because a runner that gives up on
//! a test kills the test's group.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// Runs a shell script when dropped, or when the test dies.
#[derive(Debug)]
pub struct Watcher {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watcher {
    /// `script` sees the environment that is given, and the current one.
    pub fn new(script: &str, env: &[(&str, &std::ffi::OsStr)]) -> Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .arg("-c")
            // `read` returns at the end of the pipe.
            .arg(format!("while read -r _; do :; done; exec </dev/null; {script}"))
            .envs(env.iter().copied())
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a shell")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_its_script_once_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ran");
        let watcher = Watcher::new(": > \"$FILE\"", &[("FILE", file.as_os_str())]).unwrap();
        assert!(!file.exists());
        drop(watcher);
        assert!(file.exists());
    }
}
