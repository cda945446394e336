//! A mesh of storage peers on this machine, for development and for trying things out.
//!
//! Every peer is a real `hnd` with a directory, keys and ports of its own, under one directory of the mesh:
//! `peer-01/` is an HN_HOME, and `peer-01.json` says which process serves it. The files are the only state, so commands
//! may be broken off anywhere and given again. One command works on a mesh at a time, which a lock makes sure of.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hypernet_sdk::api::Status;
use hypernet_sdk::{Client, ErrorCode, Home, home};
use rustix::process::Signal;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::args::Setup;
use crate::commands::init::arguments as init_arguments;
use crate::error::Failure;
use crate::hnd;
use crate::process::{Identity, Process};

/// Name of the directory when nobody names one.
pub(crate) const DIRECTORY: &str = "hypernet-dev-mesh";
/// Whoever works on a mesh holds it.
const LOCK: &str = "lock";
/// Starts at once: more only fight for the processors.
const STARTS_AT_ONCE: usize = 8;
/// A link with more addresses is cut by whoever reads it.
const LINK_ADDRESSES: usize = 16;
/// A stopping peer ends the requests under way.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// The kernel needs a moment to take a process apart.
const KILL_WITHIN: Duration = Duration::from_secs(30);

/// A mesh, locked for one command.
#[derive(Debug)]
pub(crate) struct Mesh {
    dir: PathBuf,
    _lock: File,
}

/// One peer of it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) number: u32,
    pub(crate) home: Home,
    record: PathBuf,
}

/// One peer, as it was found.
#[derive(Debug, Serialize)]
pub(crate) struct PeerState {
    pub(crate) number: u32,
    #[serde(with = "hypernet_sdk::exact_path")]
    pub(crate) home: PathBuf,
    pub(crate) running: bool,
    pub(crate) pid: Option<u32>,
    /// What it says of itself, when it answers.
    pub(crate) status: Option<Status>,
}

/// How peers are made.
#[derive(Clone, Debug)]
pub(crate) struct NewPeers {
    pub(crate) donate: u64,
    pub(crate) record_lifetime: Option<u64>,
}

fn cannot_use(dir: &Path, error: &std::io::Error) -> Failure {
    Failure {
        code: ErrorCode::CantCreate,
        ..Failure::io(format!("cannot use {}", dir.display()), error).hint("name another directory with --dir")
    }
}

impl Mesh {
    /// Where it is when nobody says where.
    pub(crate) fn default_dir() -> PathBuf {
        home::data_dir().join(DIRECTORY)
    }

    /// Opens or begins a mesh.
    pub(crate) fn begin(dir: &Path) -> Result<Self, Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| cannot_use(dir, &error))?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK));
        Self::locked(dir, lock.map_err(|error| cannot_use(dir, &error))?)
    }

    /// Opens a mesh that has a peer, and leaves no trace where there is none.
    pub(crate) fn find(dir: &Path) -> Result<Option<Self>, Failure> {
        let lock = match File::options().write(true).open(dir.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_use(dir, &error)),
        };
        let mesh = Self::locked(dir, lock)?;
        Ok(if mesh.peers()?.is_empty() { None } else { Some(mesh) })
    }

    fn locked(dir: &Path, lock: File) -> Result<Self, Failure> {
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(Failure::new(ErrorCode::TryAgain, format!("another `hn dev mesh` is at work in {}", dir.display()))
                    .hint("wait until it has ended"))
            }
            Err(fs::TryLockError::Error(error)) => Err(cannot_use(dir, &error)),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn peer(&self, number: u32) -> Peer {
        let name = format!("peer-{number:02}");
        Peer { number, home: Home::new(self.dir.join(&name)), record: self.dir.join(format!("{name}.json")) }
    }

    /// All peers that were ever made here, in order.
    pub(crate) fn peers(&self) -> Result<Vec<Peer>, Failure> {
        let failed = |error: std::io::Error| Failure::io(format!("cannot read {}", self.dir.display()), &error);
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("peer-")?.parse::<u32>().ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(|number| self.peer(number)).filter(|peer| peer.home.is_set_up()).collect())
    }

    /// Makes peers 1 to `count` where they are missing and starts those that do not run. `done` is told of each that
    /// runs.
    pub(crate) async fn up(&self, count: u32, new: &NewPeers, mut done: impl FnMut(u32)) -> Result<(), Failure> {
        let first = self.peer(1);
        if !first.home.is_set_up() {
            first.make(new, None).await?;
        }
        first.start().await?;
        done(1);
        let link = Client::new(first.home.clone())?.invite().await?.link;
        let rest = (2..=count).map(|number| self.peer(number)).collect();
        start_all(rest, Some((new.clone(), link)), &mut |number| done(number)).await
    }

    /// The link by which others join. It names every peer that runs: whoever keeps it, as a keystore does, finds the
    /// mesh when some of them are gone.
    pub(crate) async fn invite(&self) -> Result<Option<String>, Failure> {
        let mut asking = JoinSet::new();
        for peer in self.peers()?.into_iter().filter(|peer| peer.process().is_some()) {
            asking.spawn(async move {
                let link = Client::new(peer.home).ok()?.invite().await.ok()?.link;
                Some((peer.number, link))
            });
        }
        let mut links: Vec<(u32, String)> = asking.join_all().await.into_iter().flatten().collect();
        links.sort_unstable();
        Ok(merged(links.iter().map(|(_, link)| link.as_str())))
    }

    /// Every peer as it is now.
    pub(crate) async fn state(&self) -> Result<Vec<PeerState>, Failure> {
        let mut asking = JoinSet::new();
        for peer in self.peers()? {
            asking.spawn(peer.state());
        }
        let mut states = asking.join_all().await;
        states.sort_by_key(|state| state.number);
        Ok(states)
    }
}

/// Starts peers side by side, making those that are missing if it is known how.
pub(crate) async fn start_all(
    peers: Vec<Peer>,
    make: Option<(NewPeers, String)>,
    done: &mut dyn FnMut(u32),
) -> Result<(), Failure> {
    let permits = Arc::new(Semaphore::new(STARTS_AT_ONCE));
    let mut starting = JoinSet::new();
    for peer in peers {
        let (permits, make) = (permits.clone(), make.clone());
        starting.spawn(async move {
            let _permit = permits.acquire().await;
            if let Some((new, link)) = make.as_ref().filter(|_| !peer.home.is_set_up()) {
                peer.make(new, Some(link)).await?;
            }
            peer.start().await.map(|()| peer.number)
        });
    }
    let mut first_failure = None;
    while let Some(ended) = starting.join_next().await {
        match ended {
            Ok(Ok(number)) => done(number),
            // The others are let finish: a mesh of nine is of more use than one of which nobody knows what runs.
            Ok(Err(failure)) => first_failure = first_failure.or(Some(failure)),
            Err(error) => {
                first_failure = first_failure
                    .or_else(|| Some(Failure::new(ErrorCode::Internal, format!("a start broke off: {error}"))));
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// Stops peers side by side; those that do not listen are ended by signals.
pub(crate) async fn stop_all(peers: Vec<Peer>, done: &mut dyn FnMut(u32)) -> Result<(), Failure> {
    let mut stopping = JoinSet::new();
    for peer in peers {
        stopping.spawn(async move { peer.stop().await.map(|()| peer.number) });
    }
    let mut first_failure = None;
    while let Some(ended) = stopping.join_next().await {
        match ended {
            Ok(Ok(number)) => done(number),
            Ok(Err(failure)) => first_failure = first_failure.or(Some(failure)),
            Err(error) => {
                first_failure = first_failure
                    .or_else(|| Some(Failure::new(ErrorCode::Internal, format!("a stop broke off: {error}"))));
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}

impl Peer {
    /// How people call it.
    pub(crate) fn name(&self) -> String {
        format!("peer-{:02}", self.number)
    }

    fn in_words(&self, failure: Failure) -> Failure {
        Failure { message: format!("{}: {}", self.name(), failure.message), ..failure }
    }

    async fn make(&self, new: &NewPeers, link: Option<&str>) -> Result<(), Failure> {
        let setup = Setup {
            join: link.map(str::to_owned),
            device_name: Some(self.name()),
            donate: Some(new.donate),
            // Its peers know nobody, and all of them are of whoever tries it out.
            newcomers: Some(100),
            // The mesh is of this machine alone.
            listen: vec![std::net::Ipv4Addr::LOCALHOST.into()],
            no_mdns: true,
            record_lifetime: new.record_lifetime,
            ..Setup::default()
        };
        let mut arguments = init_arguments("init", &setup);
        arguments.push("--storage-only".into());
        hnd::set_up(&self.home, arguments, &[]).await.map(|_| ()).map_err(|failure| self.in_words(failure))
    }

    /// Its process, if it runs.
    pub(crate) fn process(&self) -> Option<Process> {
        self.identity()?.find()
    }

    fn identity(&self) -> Option<Identity> {
        serde_json::from_slice(&fs::read(&self.record).ok()?).ok()
    }

    /// Starts it, unless it runs.
    pub(crate) async fn start(&self) -> Result<(), Failure> {
        if self.process().is_some() {
            return Ok(());
        }
        let identity = hnd::start(&self.home, Vec::new(), None).await.map_err(|failure| self.in_words(failure))?;
        let written = write_whole(&self.record, &identity);
        if let Err(failure) = written {
            // One that nobody has written down could not be stopped later.
            if let Some(process) = identity.find() {
                hnd::end(&process).await;
            }
            return Err(self.in_words(failure));
        }
        Ok(())
    }

    /// Kills it as a power cut would, and returns when it is gone.
    pub(crate) async fn kill(&self) -> Result<(), Failure> {
        let Some(process) = self.process() else { return Ok(()) };
        process.signal(Signal::KILL).map_err(|error| self.in_words(Failure::io("cannot be killed", &error)))?;
        match process.gone(KILL_WITHIN).await {
            true => Ok(()),
            false => Err(self.in_words(Failure::new(ErrorCode::System, "still there after SIGKILL"))),
        }
    }

    async fn stop(&self) -> Result<(), Failure> {
        let Some(process) = self.process() else { return Ok(()) };
        let asked = match Client::new(self.home.clone()) {
            Ok(client) => client.down().await.is_ok(),
            Err(_) => false,
        };
        if !(asked && process.gone(STOP_WITHIN).await) {
            hnd::end(&process).await;
        }
        match process.is_running() {
            false => Ok(()),
            true => Err(self.in_words(Failure::new(ErrorCode::System, "does not stop"))),
        }
    }

    async fn state(self) -> PeerState {
        let identity = self.identity().filter(|identity| identity.find().is_some());
        let status = match (&identity, Client::new(self.home.clone())) {
            (Some(_), Ok(client)) => client.status().await.ok(),
            _ => None,
        };
        PeerState {
            number: self.number,
            home: self.home.path().to_path_buf(),
            running: identity.is_some(),
            pid: identity.map(|identity| identity.pid),
            status,
        }
    }
}

/// One link out of the links of several peers of a mesh: an address of each, and of as many as a link may name.
fn merged<'a>(links: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut mesh = None;
    let mut addresses: Vec<&str> = Vec::new();
    for link in links {
        let (name, query) = link.split_once('?')?;
        mesh = mesh.or(Some(name));
        let all = query.split('&').filter(|part| part.starts_with("via="));
        // QUIC first, as peers themselves do. What a peer says of others is left out: they are asked, too.
        let own = all.clone().find(|part| part.contains("/quic-v1")).or_else(|| all.clone().next());
        addresses.extend(own.filter(|address| !addresses.contains(address)));
    }
    addresses.truncate(LINK_ADDRESSES);
    mesh.filter(|_| !addresses.is_empty()).map(|mesh| format!("{mesh}?{}", addresses.join("&")))
}

/// Written whole or not at all.
fn write_whole(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("cannot write {}: {error}", path.display())))?;
    let temporary = path.with_extension("new");
    let written =
        File::create(&temporary).and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| Failure::io(format!("cannot write {}", path.display()), &error))
}

#[cfg(test)]
mod tests;
