//! The built binaries. `cargo build --workspace --bins` makes them; `scripts/test` does that first.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Environment variable that names another directory with `hn` and `hnd` than the one that cargo built into.
pub const ENV_BIN_DIR: &str = "HN_TEST_BIN_DIR";

/// A built binary.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os(ENV_BIN_DIR) {
        Some(dir) => PathBuf::from(dir),
        None => {
            // target/PROFILE/deps/test-hash, or target/PROFILE/examples/name.
            let test = std::env::current_exe().context("cannot tell where this test is")?;
            test.parent().and_then(|deps| deps.parent()).context("this test is nowhere")?.to_path_buf()
        }
    };
    let path = dir.join(name);
    ensure!(path.is_file(), "{} is not built: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}

/// A command line of `hn` that knows nothing of this user's own agents.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = Command::new(binary("hn")?);
    command
        .args(args)
        .env("HN_HND", binary("hnd")?)
        .env_remove("HN_HOME")
        .env_remove("HN_DEV_MESH")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    Ok(command)
}

/// What a command left behind.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What was run, to name it in failures.
    pub what: String,
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Fails unless it succeeded.
    pub fn ok(self) -> Result<Self> {
        match self.code {
            Some(0) => Ok(self),
            code => bail!("`{}` ended with {code:?}\n{}{}", self.what, self.stdout, self.stderr),
        }
    }

    /// Checks the form of a failure: its exit code, one line that says what happened, one that says what to do.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &str, hints: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "not an error and a hint: {self:?}");
        assert!(lines[0].starts_with("error: ") && lines[0].contains(says), "{self:?}");
        assert!(lines[1].starts_with("hint: ") && lines[1].contains(hints), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
    }

    /// Standard output as one JSON document, or the last of several.
    pub fn json(&self) -> Result<Value> {
        let line = self.stdout.lines().last().with_context(|| format!("`{}` said nothing", self.what))?;
        serde_json::from_str(line).with_context(|| format!("`{}` answered {line:?}", self.what))
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Ran> {
    let what = std::iter::once(command.get_program().to_string_lossy().into_owned())
        .chain(command.get_args().map(|arg| arg.to_string_lossy().into_owned()))
        .collect::<Vec<_>>()
        .join(" ");
    let output = command.output().with_context(|| format!("cannot run `{what}`"))?;
    Ok(Ran {
        what,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `hn` without an agent.
pub fn hn<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Ran> {
    run(&mut command(args)?)
}
