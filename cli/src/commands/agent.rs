//! Starting, stopping, mounting: the life of the agent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hypernet_sdk::api::{MountProfile, MountRequest, Status};
use hypernet_sdk::size::Limit;
use hypernet_sdk::{Client, Error, ErrorCode, Home, exact_path};
use os_display::Quotable;
use serde::Serialize;

use crate::args::{Join, Mount, PassphraseFrom, Up};
use crate::error::Failure;
use crate::hnd;
use crate::mountpoint;
use crate::output::{Output, bar::Bar};
use crate::passphrase;
use crate::process::Process;

use super::init;

/// A stop flushes what was written and ends the upload between two shards.
const STOP_WITHIN: Duration = Duration::from_secs(120);

/// How an agent is started.
#[derive(Debug, Default)]
pub(crate) struct Start {
    pub(crate) mount: Option<PathBuf>,
    pub(crate) no_passthrough: bool,
    pub(crate) donate: Option<u64>,
    pub(crate) cache: Option<Limit>,
    pub(crate) upload: Option<Limit>,
    pub(crate) download: Option<Limit>,
    pub(crate) upnp: Option<bool>,
    pub(crate) hold: bool,
    pub(crate) passphrase: PassphraseFrom,
}

/// The answer of `hn up`.
#[derive(Debug, Serialize)]
struct Running {
    /// False when it ran already.
    started: bool,
    pid: u32,
    #[serde(with = "exact_path")]
    home: PathBuf,
    #[serde(with = "exact_path::option")]
    mount: Option<PathBuf>,
    profile: Option<MountProfile>,
    reason: Option<String>,
}

/// A client of the agent, if it runs.
pub(crate) async fn running(home: &Home) -> Result<Option<(Client, Status)>, Failure> {
    let mut found = Client::connect(home.clone()).await;
    if let Err(Error::Interrupted { .. }) = found {
        // It went away while it was asked: that is known now.
        found = Client::connect(home.clone()).await;
    }
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::io(path.display(), &error))
}

/// Puts the agent into the background.
pub(crate) async fn start(home: &Home, start: &Start, out: &Output) -> Result<(), Failure> {
    let passphrase = passphrase::existing(&home.keystore(), start.passphrase.passphrase_stdin)?;
    let mut args: Vec<OsString> = Vec::new();
    if let Some(dir) = &start.mount {
        args.extend(["--mount".into(), dir.into()]);
    }
    if start.no_passthrough {
        args.push("--no-passthrough".into());
    }
    if let Some(bytes) = start.donate {
        args.extend(["--donate".into(), bytes.to_string().into()]);
    }
    if let Some(limit) = start.cache {
        args.extend(["--cache".into(), limit.to_string().into()]);
    }
    if let Some(limit) = start.upload {
        args.extend(["--upload".into(), limit.to_string().into()]);
    }
    if let Some(limit) = start.download {
        args.extend(["--download".into(), limit.to_string().into()]);
    }
    if let Some(upnp) = start.upnp {
        args.extend(["--upnp".into(), upnp.to_string().into()]);
    }
    if start.hold {
        args.push("--hold".into());
    }
    let bar = Bar::new(out, "starting the agent");
    hnd::start(home, args, passphrase.as_ref()).await?;
    bar.clear();
    Ok(())
}

pub(crate) async fn up(home: &Home, args: Up, out: &mut Output) -> Result<(), Failure> {
    let started = match running(home).await? {
        Some((client, status)) => {
            adjust(&client, &status, &args, out).await?;
            false
        }
        None => {
            let settings = home.settings();
            if !home.is_set_up() {
                // Said here rather than by hnd, so that no directory and no log is made for nothing.
                return Err(Error::NotRunning { home: home.path().to_path_buf(), set_up: false }.into());
            }
            let settings = settings.unwrap_or_default();
            if settings.recovering {
                return Err(Failure::new(ErrorCode::TryAgain, "the recovery of this agent has not ended")
                    .hint("`hn recover` goes on with it"));
            }
            let mount = match &args.mount {
                Some(dir) => Some(absolute(dir)?),
                None if args.no_mount || settings.storage_only => None,
                None => Some(place(settings.mount, out).await?),
            };
            let wanted = Start {
                mount,
                no_passthrough: args.no_passthrough,
                donate: args.donate,
                cache: args.cache,
                upload: args.upload,
                download: args.download,
                upnp: args.upnp,
                hold: args.hold,
                passphrase: args.passphrase,
            };
            start(home, &wanted, out).await?;
            true
        }
    };
    let (_, status) = Client::connect(home.clone()).await?;
    tell_running(started, &status, out)
}

/// Where it was mounted last, if it can be mounted there again; else the default, and a word about it.
async fn place(last: Option<PathBuf>, out: &Output) -> Result<PathBuf, Failure> {
    let Some(last) = last else { return mountpoint::default_dir().await };
    match mountpoint::can_mount_again(&last).await {
        Ok(()) => Ok(last),
        Err(why) => {
            let dir = mountpoint::default_dir().await?;
            out.note(format_args!(
                "note: {}, where it was mounted last, {why}; {} is used instead",
                last.display(),
                dir.display()
            ));
            Ok(dir)
        }
    }
}

/// What `hn up` does to an agent that runs: only what was asked for.
async fn adjust(client: &Client, status: &Status, args: &Up, out: &Output) -> Result<(), Failure> {
    if args.donate.is_some_and(|bytes| bytes != status.donate.quota) {
        return Err(Failure::new(ErrorCode::TryAgain, "the agent runs, and takes --donate only at its start")
            .hint("`hn donate --space SIZE` changes it at once"));
    }
    let limit = status.volume.as_ref().and_then(|volume| volume.cache.as_ref()).map(|cache| cache.limit);
    if args.cache.is_some_and(|wanted| wanted.0 != limit) {
        return Err(Failure::new(ErrorCode::TryAgain, "the agent runs, and takes --cache only at its start")
            .hint("`hn down` first, then `hn up --cache SIZE`"));
    }
    let reach = status.reach.as_ref();
    let limits = [
        ("--upload", args.upload, reach.and_then(|reach| reach.upload)),
        ("--download", args.download, reach.and_then(|reach| reach.download)),
    ];
    for (name, wanted, now) in limits {
        if wanted.is_some_and(|wanted| wanted.0 != now) {
            return Err(Failure::new(
                ErrorCode::TryAgain,
                format!("the agent runs, and takes {name} only at its start"),
            )
            .hint(format!("`hn down` first, then `hn up {name} SIZE`")));
        }
    }
    if args.upnp.is_some() {
        return Err(Failure::new(ErrorCode::TryAgain, "the agent runs, and takes --upnp only at its start")
            .hint("`hn down` first, then `hn up --upnp true` or `false`"));
    }
    if let Some(dir) = &args.mount {
        mount_at(client, Some(absolute(dir)?), !args.no_passthrough, out).await?;
    }
    if status.volume.is_some() && args.mount.is_none() {
        // Without --hold, `hn up` means that the agent should work.
        let held = matches!(status.volume.as_ref().map(|volume| &volume.upload), Some(hypernet_sdk::api::Upload::Held));
        if held != args.hold {
            client.hold(args.hold).await?;
        }
    }
    Ok(())
}

fn tell_running(started: bool, status: &Status, out: &mut Output) -> Result<(), Failure> {
    for note in &status.notes {
        out.note(format_args!("note: {note}"));
    }
    let mount = status.mount.clone();
    out.json(&Running {
        started,
        pid: status.pid,
        home: status.home.clone(),
        mount: mount.as_ref().map(|mount| mount.dir.clone()),
        profile: mount.as_ref().map(|mount| mount.profile),
        reason: mount.as_ref().and_then(|mount| mount.reason.clone()),
    })?;
    let what = if started { "the agent is up" } else { "the agent was up already" };
    match mount {
        Some(mount) => {
            out.line(format_args!("{what}: mounted at {} ({})", mount.dir.display(), mount.profile.word()))?;
            if let Some(reason) = mount.reason {
                out.note(format_args!("note: {reason}"));
            }
            Ok(())
        }
        None if status.volume.is_some() => out.line(format_args!("{what}; nothing is mounted (`hn mount`)")),
        None => out.line(format_args!("{what}; it stores for others")),
    }
}

async fn mount_at(
    client: &Client,
    dir: Option<PathBuf>,
    passthrough: bool,
    out: &Output,
) -> Result<hypernet_sdk::api::Mounted, Failure> {
    let bar = Bar::new(out, "mounting");
    let mounted = client.mount(dir.as_deref(), passthrough).await?;
    bar.clear();
    Ok(mounted)
}

pub(crate) async fn mount(home: Home, args: Mount, out: &mut Output) -> Result<(), Failure> {
    let (client, status) = Client::connect(home.clone()).await?;
    if args.branch.is_some() || args.snapshot.is_some() {
        return mount_side(&client, &status, args, out).await;
    }
    let dir = match (args.dir, &status.mount) {
        (Some(dir), _) => absolute(&dir)?,
        (None, Some(mount)) => mount.dir.clone(),
        (None, None) => place(home.settings().and_then(|settings| settings.mount), out).await?,
    };
    let mounted = mount_at(&client, Some(dir), !args.no_passthrough, out).await?;
    out.json(&mounted)?;
    out.line(format_args!("mounted at {} ({})", mounted.dir.display(), mounted.profile.word()))?;
    if let Some(reason) = mounted.reason {
        out.note(format_args!("note: {reason}"));
    }
    Ok(())
}

/// A branch or a snapshot, beside the main mount.
async fn mount_side(client: &Client, status: &Status, args: Mount, out: &mut Output) -> Result<(), Failure> {
    let Some(dir) = args.dir else { return Err(Failure::new(ErrorCode::Usage, "where is it to be mounted?")) };
    let of = super::history::place(status, args.of.as_deref())?;
    let snapshot = args.snapshot.as_deref().map(super::history::now_revision).transpose()?;
    let (dir, passthrough, branch) = (Some(absolute(&dir)?), !args.no_passthrough, args.branch.clone());
    let bar = Bar::new(out, "mounting");
    let mounted = client.mount_as(&MountRequest { dir, passthrough, branch, snapshot, of }).await?;
    bar.clear();
    out.json(&mounted)?;
    let what = match (&args.branch, &args.snapshot) {
        (Some(branch), _) => format!("branch {branch}"),
        (None, snapshot) => format!("snapshot {}", snapshot.as_deref().unwrap_or_default()),
    };
    out.line(format_args!("{what} is mounted at {}", mounted.dir.display()))
}

/// Stops an agent and returns when its process is gone.
pub(crate) async fn stop(client: &Client, status: &Status, out: &Output) -> Result<(), Failure> {
    // Opened before it is asked to stop: afterwards its number may be somebody else's.
    let process = Process::open(status.pid);
    let bar = Bar::new(out, "stopping the agent");
    client.down().await?;
    let gone = match &process {
        Some(process) => process.gone(STOP_WITHIN).await,
        None => true,
    };
    bar.clear();
    if gone {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::TryAgain,
        format!("the agent (process {}) has not stopped within {} s", status.pid, STOP_WITHIN.as_secs()),
    )
    .hint(format!("the end of {} says what it is doing", status.home.join("hnd.log").display())))
}

/// What `hn down` did.
#[derive(Serialize)]
struct Down {
    stopped: bool,
    /// Where an agent that died had left its mount.
    #[serde(with = "exact_path::option")]
    cleared: Option<PathBuf>,
}

pub(crate) async fn down(home: &Home, out: &mut Output) -> Result<(), Failure> {
    let Some((client, status)) = running(home).await? else {
        let left = home.settings().and_then(|settings| settings.mount);
        let cleared = match left {
            Some(_) => hnd::clear_mount(home).await?,
            None => None,
        };
        out.json(&Down { stopped: false, cleared: cleared.clone() })?;
        return match cleared {
            Some(dir) => out.line(format_args!(
                "the agent was not running; {}, which it had left, is unmounted",
                dir.maybe_quote()
            )),
            None => out.line("the agent was not running"),
        };
    };
    stop(&client, &status, out).await?;
    out.json(&Down { stopped: true, cleared: None })?;
    out.line("the agent is stopped")?;
    if let Some(volume) = status.volume.filter(|volume| volume.dirty_files > 0) {
        out.note(format_args!(
            "note: {} not on the mesh yet; kept on this device until the next `hn up`",
            if volume.dirty_files == 1 { "1 file is".to_owned() } else { format!("{} files are", volume.dirty_files) }
        ));
    }
    Ok(())
}

pub(crate) async fn join(home: &Home, args: Join, out: &mut Output) -> Result<(), Failure> {
    if !home.is_set_up() {
        return Err(Failure::new(ErrorCode::Config, format!("no agent is set up in {}", home.path().display()))
            .hint("`hn init --join LINK` makes one on that mesh"));
    }
    hnd::check_link(home, &args.link).await?;
    // Asked for once, before anything is stopped.
    let passphrase = passphrase::existing(&home.keystore(), args.passphrase.passphrase_stdin)?;
    let was = running(home).await?;
    if let Some((client, status)) = &was {
        stop(client, status, out).await?;
    }
    let joined = hnd::set_up(home, vec!["join".into(), args.link.into()], &[]).await;
    if let Some((_, status)) = &was {
        let mut again: Vec<OsString> = Vec::new();
        if let Some(mount) = &status.mount {
            again.extend(["--mount".into(), mount.dir.clone().into()]);
            if mount.profile == MountProfile::Writeback {
                again.push("--no-passthrough".into());
            }
        }
        if matches!(status.volume.as_ref().map(|volume| &volume.upload), Some(hypernet_sdk::api::Upload::Held)) {
            again.push("--hold".into());
        }
        // Also when joining failed: an agent that ran before runs afterwards. Why it failed comes first.
        let started = hnd::start(home, again, passphrase.as_ref()).await;
        if joined.is_ok() {
            started?;
        } else if let Err(failure) = started {
            out.warning(format_args!("the agent did not start again: {}", failure.message));
        }
    }
    let joined = joined?;
    out.json(&joined)?;
    out.line(format_args!("joined the mesh {}", joined.network))?;
    match was {
        Some(_) => out.line("the agent is up again"),
        None => out.line(format_args!("Next: {}hn up", init::prefix(home))),
    }
}
