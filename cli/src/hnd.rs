//! Starting `hnd`: finding it, asking it to set up an agent's directory, and putting it into the background.
//!
//! Everything has a deadline, and what `hnd` prints is one bounded line of JSON. A background agent belongs to no
//! terminal: it has a session of its own, nothing on its standard input, and its standard error in the agent's log.

use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hypernet_sdk::api::{Cleared, KeystoreSealed, Ready, SealedBy, SetUp, Words};
use hypernet_sdk::{ErrorCode, Home, SecretText, home};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::process::{ChildStdin, Command};
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::process::{Identity, Process};

/// Names another `hnd` than the one beside `hn`.
const ENV_HND: &str = "HN_HND";
/// Setting up derives a key from a passphrase, slowly on purpose.
const SET_UP_WITHIN: Duration = Duration::from_secs(120);
/// Starting replays journals and mounts.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// What `hnd` prints is one line, and short.
const LINE_MAX: u64 = 1 << 20;

/// Where `hnd` is: HN_HND, beside `hn`, in PATH.
pub(crate) fn locate() -> Result<PathBuf, Failure> {
    if let Some(path) = env::var_os(ENV_HND).filter(|path| !path.is_empty()).map(PathBuf::from) {
        let path = std::path::absolute(&path).unwrap_or(path);
        return match is_program(&path) {
            true => Ok(path),
            false => {
                Err(Failure::new(ErrorCode::Config, format!("{ENV_HND} names {}, which is no program", path.display()))
                    .hint(format!("unset {ENV_HND} to use the hnd beside hn")))
            }
        };
    }
    let beside = env::current_exe().ok().and_then(|hn| Some(hn.parent()?.join("hnd")));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("hnd"));
    beside.into_iter().chain(in_path).find(|path| is_program(path)).ok_or_else(|| {
        Failure::new(ErrorCode::Config, "hnd, the agent, is neither beside hn nor in PATH")
            .hint("build it with `cargo build --release`, or point HN_HND to it")
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn command(home: &Home) -> Result<Command, Failure> {
    let mut command = Command::new(locate()?);
    // The directory of whoever typed `hn` must not stay in use.
    command.env(home::ENV, home.path()).current_dir("/").stdout(Stdio::piped());
    Ok(command)
}

fn cannot_start(error: &std::io::Error) -> Failure {
    Failure::new(ErrorCode::System, format!("cannot start hnd: {error}"))
}

/// Hands secrets over, a line each.
async fn tell_secrets(stdin: &mut ChildStdin, secrets: &[&SecretText]) {
    for secret in secrets {
        // One that has already given up says why on its standard output.
        let _ = stdin.write_all(secret.expose().as_bytes()).await;
        let _ = stdin.write_all(b"\n").await;
    }
}

/// The first line, without its end; none when the stream ended before.
async fn first_line(stream: impl AsyncRead + Unpin) -> Option<Zeroizing<String>> {
    next_line(&mut lines(stream)).await
}

/// All that is read of what `hnd` prints.
fn lines<S: AsyncRead + Unpin>(stream: S) -> BufReader<Take<S>> {
    BufReader::new(stream.take(LINE_MAX))
}

async fn next_line(lines: &mut (impl AsyncBufRead + Unpin)) -> Option<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    let read = lines.read_line(&mut line).await;
    (read.is_ok() && line.ends_with('\n')).then(|| Zeroizing::new(line.trim_end().to_owned()))
}

/// What a line says that is no success.
fn refusal(line: &str) -> Option<Failure> {
    let ready: Ready = serde_json::from_str(line).ok()?;
    match (ready.ready, ready.error) {
        (false, Some(error)) => Some(error.into()),
        _ => None,
    }
}

fn ended(status: Option<ExitStatus>, stderr: &str, log: Option<&Path>) -> Failure {
    let how = status.map_or_else(|| "without a word".to_owned(), |status| format!("with {status}"));
    let why = stderr.lines().rev().find(|line| !line.trim().is_empty()).map(|line| format!(": {}", line.trim()));
    let failure = Failure::new(ErrorCode::Internal, format!("hnd ended {how}{}", why.unwrap_or_default()));
    match log {
        Some(log) => failure.hint(format!("the end of {} says more", log.display())),
        None => failure,
    }
}

/// Has something else open the keystore of an agent that does not run.
pub(crate) async fn seal(home: &Home, by: SealedBy, secrets: &[&SecretText]) -> Result<KeystoreSealed, Failure> {
    answer(home, vec!["seal".into(), "--by".into(), by.words().into()], secrets).await
}

/// Runs a verb of `hnd` that sets up an agent's directory, and tells it secrets on its standard input.
pub(crate) async fn set_up(home: &Home, args: Vec<OsString>, secrets: &[&SecretText]) -> Result<SetUp, Failure> {
    answer(home, args, secrets).await
}

/// The same, of a new identity, which counts when `tell` has told of it. Whoever is killed before has made nothing.
pub(crate) async fn set_up_told(
    home: &Home,
    mut args: Vec<OsString>,
    secrets: &[&SecretText],
    tell: &mut (dyn FnMut(SetUp) -> Result<(), Failure> + Send),
) -> Result<SetUp, Failure> {
    args.push("--tell-first".into());
    converse(home, args, secrets, Some(tell)).await
}

/// An error where none could be set up so.
pub(crate) async fn check_set_up(home: &Home, mut args: Vec<OsString>) -> Result<(), Failure> {
    args.push("--check".into());
    answer::<serde_json::Value>(home, args, &[]).await.map(drop)
}

/// An error where these are no words of an identity.
pub(crate) async fn check_words(home: &Home, words: &SecretText) -> Result<(), Failure> {
    answer::<serde_json::Value>(home, vec!["phrase".into(), "--check".into()], &[words]).await.map(drop)
}

/// 24 words that were never shown to anybody.
pub(crate) async fn new_words(home: &Home) -> Result<Words, Failure> {
    answer(home, vec!["phrase".into()], &[]).await
}

/// Clears away the mount that an agent which died has left. Returns where it was.
pub(crate) async fn clear_mount(home: &Home) -> Result<Option<PathBuf>, Failure> {
    Ok(answer::<Cleared>(home, vec!["clear".into()], &[]).await?.mount)
}

/// Whether this is an invite link; nothing is done with it.
pub(crate) async fn check_link(home: &Home, link: &str) -> Result<(), Failure> {
    let args = vec!["join".into(), "--check".into(), "--".into(), link.into()];
    answer::<serde_json::Value>(home, args, &[]).await.map(drop)
}

/// What `hnd` answers in one line.
async fn answer<T: DeserializeOwned>(home: &Home, args: Vec<OsString>, secrets: &[&SecretText]) -> Result<T, Failure> {
    converse(home, args, secrets, None).await
}

/// The same, in two lines where there is a `tell` for the first: the second comes once it has told.
async fn converse<T: DeserializeOwned>(
    home: &Home,
    args: Vec<OsString>,
    secrets: &[&SecretText],
    tell: Option<&mut (dyn FnMut(T) -> Result<(), Failure> + Send)>,
) -> Result<T, Failure> {
    let mut command = command(home)?;
    command.args(&args).stderr(Stdio::piped()).kill_on_drop(true);
    command.stdin(if secrets.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command.spawn().map_err(|error| cannot_start(&error))?;
    let work = async {
        let (mut stdin, stderr) = (child.stdin.take(), child.stderr.take());
        if let Some(stdin) = &mut stdin {
            tell_secrets(stdin, secrets).await;
        }
        let mut stdout = child.stdout.take().map(lines);
        let line = async {
            let Some(lines) = &mut stdout else { return Ok::<_, Failure>(None) };
            let Some(tell) = tell.filter(|_| stdin.is_some()) else {
                // It waits for nothing more.
                stdin.take();
                return Ok(next_line(lines).await);
            };
            let line = next_line(lines).await;
            let Some(Ok(made)) = line.as_deref().map(|line| serde_json::from_str(line)) else { return Ok(line) };
            if let Err(failure) = tell(made) {
                // Nothing was told, and it ends when nothing more comes.
                stdin.take();
                return Err(failure);
            }
            if let Some(stdin) = &mut stdin {
                tell_secrets(stdin, &[&SecretText::default()]).await;
            }
            Ok(next_line(lines).await)
        };
        let complaint = async {
            let mut text = Vec::new();
            if let Some(stderr) = stderr {
                let _ = stderr.take(LINE_MAX).read_to_end(&mut text).await;
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        let (line, complaint) = tokio::join!(line, complaint);
        (line, complaint, child.wait().await.ok())
    };
    let (line, complaint, status) = tokio::time::timeout(SET_UP_WITHIN, work).await.map_err(|_| {
        Failure::new(ErrorCode::TryAgain, format!("hnd did not end within {} s", SET_UP_WITHIN.as_secs()))
    })?;
    let line = line?.unwrap_or_default();
    if let Some(failure) = refusal(&line) {
        return Err(failure);
    }
    match serde_json::from_str(&line) {
        Ok(done) if status.is_some_and(|status| status.success()) => Ok(done),
        _ => Err(ended(status, &complaint, None)),
    }
}

/// Starts `hnd run` in the background. Returns when it is ready, with what tells its process from every other.
pub(crate) async fn start(
    home: &Home,
    args: Vec<OsString>,
    passphrase: Option<&SecretText>,
) -> Result<Identity, Failure> {
    let mut command = command(home)?;
    command.arg("run").args(&args).stderr(log(home)?);
    if passphrase.is_some() {
        command.arg("--passphrase-stdin").stdin(Stdio::piped());
    } else {
        command.stdin(Stdio::null());
    }
    detach(&mut command);
    let mut child = command.spawn().map_err(|error| cannot_start(&error))?;
    // Known by its identity from the first moment, so that one which hangs can be ended.
    let identity = child.id().and_then(|pid| Identity::of(pid).ok());
    let work = async {
        if let Some(mut stdin) = child.stdin.take() {
            tell_secrets(&mut stdin, passphrase.as_slice()).await;
        }
        let stdout = child.stdout.take()?;
        first_line(stdout).await
    };
    let line = match tokio::time::timeout(READY_WITHIN, work).await {
        Ok(Some(line)) => line,
        Ok(None) => {
            let status = tokio::time::timeout(SET_UP_WITHIN, child.wait()).await.ok().and_then(Result::ok);
            return Err(ended(status, "", Some(&home.log())));
        }
        Err(_) => {
            if let Some(process) = identity.as_ref().and_then(Identity::find) {
                end(&process).await;
            }
            return Err(Failure::new(
                ErrorCode::TryAgain,
                format!("hnd was not ready within {} s", READY_WITHIN.as_secs()),
            )
            .hint(format!("the end of {} says what it was doing", home.log().display())));
        }
    };
    if let Some(failure) = refusal(&line) {
        let _ = tokio::time::timeout(SET_UP_WITHIN, child.wait()).await;
        return Err(failure);
    }
    let ready: Ready = serde_json::from_str(&line).map_err(|error| {
        Failure::new(ErrorCode::Data, format!("what hnd says when it is ready is not understood: {error}"))
            .hint("update `hn` and `hnd` together")
    })?;
    // Asked again: only now it is certain that the program is hnd and no longer the copy of hn that became it.
    Identity::of(ready.pid).map_err(|error| Failure::io("hnd ended right after its start", &error))
}

/// Asks a process to end, and makes it when it does not.
pub(crate) async fn end(process: &Process) {
    use rustix::process::Signal;
    let _ = process.signal(Signal::TERM);
    if !process.gone(Duration::from_secs(20)).await {
        let _ = process.signal(Signal::KILL);
        process.gone(Duration::from_secs(20)).await;
    }
}

/// A session of its own: no terminal's hang-up or interrupt reaches it.
#[expect(unsafe_code, reason = "there is no safe way to call setsid in the child")]
fn detach(command: &mut Command) {
    // SAFETY: between fork and exec only setsid(2) is called, which is async-signal-safe and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}

/// The log, for what hnd says before or beside its own logging, such as a panic.
fn log(home: &Home) -> Result<Stdio, Failure> {
    let cannot = |error: std::io::Error| {
        Failure::io(format!("cannot write {}", home.log().display()), &error)
            .hint("set HN_HOME to a directory of yours")
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(home.path()).map_err(cannot)?;
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(home.log()).map_err(cannot)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_whole_and_bounded_lines_count() {
        assert_eq!(first_line(&b"{}\nmore"[..]).await.as_deref().map(String::as_str), Some("{}"));
        assert_eq!(first_line(&b"cut off"[..]).await, None);
        assert_eq!(first_line(&b""[..]).await, None);
        let long = vec![b'a'; LINE_MAX as usize + 10];
        assert_eq!(first_line(&long[..]).await, None);
    }

    #[test]
    fn refusals_are_told_from_answers() {
        let line = r#"{"ready":false,"error":{"code":"config","message":"no agent","hint":"hn init"}}"#;
        let failure = refusal(line).unwrap();
        assert_eq!((failure.exit_code(), failure.hint.as_deref()), (78, Some("hn init")));
        assert_eq!(refusal(r#"{"ready":true,"pid":1}"#), None);
        assert_eq!(refusal(r#"{"home":"/x","peer":"p","network":"n"}"#), None);
    }
}
