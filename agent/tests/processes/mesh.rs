//! A mesh of real agents for one test: processes, sockets, disks and mounts, all gone when the test ends, however it
//! ends.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hypernet_sdk::api;
use hypernet_sdk::client::Client;
use hypernet_sdk::home::Home;
use tempfile::TempDir;

const HND: &str = env!("CARGO_BIN_EXE_hnd");
/// Longest wait for something that other processes do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// One agent.
pub(crate) struct Agent {
    pub(crate) home: PathBuf,
    /// The words that bring its identity back, in one line.
    pub(crate) phrase: String,
    child: Option<Child>,
    pub(crate) mount: Option<PathBuf>,
    runtime: tokio::runtime::Runtime,
}

/// Runs a set-up verb of `hnd` and gives what it printed.
pub(crate) fn hnd(home: &Path, args: &[&str]) -> Result<serde_json::Value, serde_json::Value> {
    hnd_told(home, args, "")
}

/// The same, with something to read on its standard input.
pub(crate) fn hnd_told(home: &Path, args: &[&str], told: &str) -> Result<serde_json::Value, serde_json::Value> {
    let mut child = Command::new(HND);
    child.args(args).env("HN_HOME", home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // One that reads nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(told.as_bytes());
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let value: serde_json::Value = serde_json::from_str(text.trim()).unwrap_or_else(|error| {
        panic!("hnd {args:?} printed {text:?} and {:?}: {error}", String::from_utf8_lossy(&out.stderr))
    });
    if out.status.success() { Ok(value) } else { Err(value) }
}

/// 24 words, in one line.
pub(crate) fn new_phrase() -> String {
    let made = hnd(Path::new("/"), &["phrase"]).unwrap();
    let words = made["words"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    words.collect::<Vec<_>>().join(" ")
}

impl Agent {
    /// An agent that is set up already.
    pub(crate) fn at(home: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { home, phrase: String::new(), child: None, mount: None, runtime }
    }

    /// Starts it; the handshake is the line that it prints when it is ready.
    pub(crate) fn try_start(&mut self, args: &[&str]) -> Result<api::Ready, api::ApiError> {
        self.try_start_told(args, "", &[])
    }

    /// The same, with something to read on its standard input and in its environment.
    pub(crate) fn try_start_told(
        &mut self,
        args: &[&str],
        told: &str,
        env: &[(&str, &str)],
    ) -> Result<api::Ready, api::ApiError> {
        assert!(self.child.is_none(), "it is running");
        let mut child = Command::new(HND)
            .arg("run")
            .args(args)
            .env("HN_HOME", &self.home)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(told.as_bytes());
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: api::Ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        if !ready.ready {
            let _ = child.wait();
            return Err(ready.error.unwrap());
        }
        self.child = Some(child);
        self.mount.clone_from(&ready.mount);
        Ok(ready)
    }

    pub(crate) fn start(&mut self, args: &[&str]) -> &mut Self {
        self.try_start(args).unwrap_or_else(|error| panic!("{}: {error:?}\n{}", self.home.display(), self.log()));
        self
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.join("hnd.log")).unwrap_or_default()
    }

    /// What the kernel says of its process in this file below `/proc/PID`.
    pub(crate) fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.as_ref().unwrap().id())).unwrap()
    }

    /// Sends it the signal of one that has found itself to be wrong. Returns how it ended.
    pub(crate) fn abort(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        let sent = Command::new("kill").args(["-ABRT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        child.wait().unwrap()
    }

    /// It stands still, with open connections, or goes on.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.unmount();
    }

    fn unmount(&mut self) {
        if let Some(dir) = self.mount.take() {
            let quiet = || Stdio::null();
            let _ = Command::new("umount").arg("-l").arg(&dir).stdout(quiet()).stderr(quiet()).status();
        }
    }

    /// Asks it to stop, and waits until its process is gone.
    pub(crate) fn stop(&mut self) {
        self.call(async |client| client.down().await).unwrap();
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{}", self.log());
        self.mount = None;
    }

    pub(crate) fn call<T>(
        &self,
        f: impl AsyncFnOnce(&Client) -> Result<T, hypernet_sdk::client::Error>,
    ) -> Result<T, hypernet_sdk::client::Error> {
        let client = Client::new(Home::new(&self.home)).unwrap();
        self.runtime.block_on(f(&client))
    }

    pub(crate) fn status(&self) -> api::Status {
        self.call(async |client| client.status().await).unwrap()
    }

    pub(crate) fn sync(&self) -> Result<api::SyncReport, api::ApiError> {
        self.call(async |client| {
            let mut events = client.sync(None).await?;
            while let Some(event) = events.next().await? {
                match event {
                    api::SyncEvent::Progress(_) => {}
                    api::SyncEvent::Done(report) => return Ok(Ok(report)),
                    api::SyncEvent::Error(error) => return Ok(Err(error)),
                }
            }
            Err(events.interrupted())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Below where it is mounted.
    pub(crate) fn below(&self, path: &str) -> PathBuf {
        self.mount.as_ref().unwrap().join(path)
    }

    /// Syncs until what others have published is here.
    pub(crate) fn sync_until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            assert!(begun.elapsed() < PATIENCE, "{what} did not come\n{}", self.log());
            self.sync().unwrap();
        }
    }

    pub(crate) fn recover(&self, device: Option<&str>) -> Result<api::Recovered, api::ApiError> {
        let phrase = Some(api::PhraseInput::new(self.phrase.as_str().into(), Default::default()));
        self.recover_by(&api::RecoverRequest {
            phrase,
            from: None,
            device: device.map(str::to_owned),
            ..Default::default()
        })
    }

    pub(crate) fn recover_by(&self, request: &api::RecoverRequest) -> Result<api::Recovered, api::ApiError> {
        self.call(async |client| {
            let mut events = client.recover(request).await?;
            while let Some(event) = events.next().await? {
                match event {
                    api::RecoverEvent::Progress { .. } => {}
                    api::RecoverEvent::Done(found) => return Ok(Ok(found)),
                    api::RecoverEvent::Error(error) => return Ok(Err(error)),
                }
            }
            Err(events.interrupted())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    pub(crate) fn fsck(&self) -> api::FsckReport {
        self.call(async |client| {
            let mut events = client.fsck(api::FsckRequest { repair: false, verify: true }).await?;
            while let Some(event) = events.next().await? {
                match event {
                    api::FsckEvent::Progress(_) => {}
                    api::FsckEvent::Done(report) => return Ok(report),
                    api::FsckEvent::Error(error) => return Err(error.into()),
                }
            }
            Err(events.interrupted())
        })
        .unwrap()
    }

    pub(crate) fn drop_cache(&self) -> api::CacheDropped {
        self.drop_cache_as(&api::CacheDropRequest::default())
    }

    pub(crate) fn drop_cache_as(&self, request: &api::CacheDropRequest) -> api::CacheDropped {
        self.call(async |client| {
            let mut events = client.cache_drop(request).await?;
            while let Some(event) = events.next().await? {
                match event {
                    api::CacheDropEvent::Progress(_) => {}
                    api::CacheDropEvent::Done(dropped) => return Ok(dropped),
                    api::CacheDropEvent::Error(error) => return Err(error.into()),
                }
            }
            Err(events.interrupted())
        })
        .unwrap()
    }

    /// Waits until so many donors are connected.
    pub(crate) fn wait_for_donors(&self, count: u64) {
        let mut there = None;
        let heard = self.call(async |client| {
            let listening = async {
                let mut events = client.donors(None).await?;
                while let Some(event) = events.next().await? {
                    let (api::DonorsEvent::Progress { donors } | api::DonorsEvent::Done { donors }) = event;
                    there = Some(donors);
                    if donors == count {
                        return Ok(());
                    }
                }
                Err(events.interrupted())
            };
            Ok(tokio::time::timeout(PATIENCE, listening).await)
        });
        assert!(matches!(heard, Ok(Ok(Ok(())))), "{there:?} of {count} donors came: {heard:?}\n{}", self.log());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Storage peers, and a place for agents.
pub(crate) struct Mesh {
    pub(crate) peers: Vec<Agent>,
    pub(crate) link: String,
    extra: Vec<String>,
    pub(crate) dir: TempDir,
}

impl Mesh {
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, &[])
    }

    /// With further arguments for `hnd init` of every agent.
    pub(crate) fn start_with(count: usize, extra: &[&str]) -> Self {
        let mesh = Self::empty(extra);
        let place = mesh.dir.path().to_owned();
        mesh.with_peers(&place, count)
    }

    /// With the directories of its peers in `place`.
    pub(crate) fn start_on(place: &Path, count: usize) -> Self {
        Self::empty(&[]).with_peers(place, count)
    }

    /// With peers that join an agent which begins the mesh all alone.
    pub(crate) fn founded_by(name: &str, count: usize) -> (Self, Agent) {
        let mut mesh = Self::empty(&[]);
        let founder = mesh.agent(name);
        mesh.link = founder.call(async |client| client.invite().await).unwrap().link;
        let place = mesh.dir.path().to_owned();
        (mesh.with_peers(&place, count), founder)
    }

    fn empty(extra: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("hn").tempdir().unwrap();
        Self { peers: vec![], link: String::new(), extra: extra.iter().map(ToString::to_string).collect(), dir }
    }

    fn with_peers(self, place: &Path, count: usize) -> Self {
        let mut mesh = self;
        for i in 0..count {
            let home = place.join(format!("p{i}"));
            mesh.init(&home, &["--storage-only", "--donate", "1G", "--newcomers", "100"], "");
            let mut agent = Agent::at(home);
            agent.start(&[]);
            if mesh.link.is_empty() {
                mesh.link = agent.call(async |client| client.invite().await).unwrap().link;
            }
            mesh.peers.push(agent);
        }
        // An invite made now names several of them: it is good while any of those is there.
        let first = &mesh.peers[0];
        first.wait_for_donors(count as u64 - 1);
        mesh.link = first.call(async |client| client.invite().await).unwrap().link;
        mesh
    }

    /// With words, or of a peer that only stores.
    fn init(&self, home: &Path, args: &[&str], phrase: &str) -> serde_json::Value {
        let mut all = vec!["init", "--listen", "127.0.0.1", "--no-mdns"];
        all.extend(self.extra.iter().map(String::as_str));
        all.extend_from_slice(args);
        if !self.link.is_empty() {
            all.extend(["--join", &self.link]);
        }
        let told = if phrase.is_empty() { String::new() } else { format!("{phrase}\n\n") };
        hnd_told(home, &all, &told).unwrap()
    }

    /// An agent with an identity, mounted and connected to all peers.
    pub(crate) fn agent(&self, name: &str) -> Agent {
        let home = self.dir.path().join(name);
        let phrase = new_phrase();
        self.init(&home, &["--device-name", name, "--donate", "0"], &phrase);
        let mut agent = Agent::at(home);
        agent.phrase = phrase;
        self.run(&mut agent);
        agent
    }

    /// Starts an agent with its mount beside its home.
    pub(crate) fn run(&self, agent: &mut Agent) {
        self.run_with(agent, &[]);
    }

    /// The same with something in its environment.
    pub(crate) fn run_with(&self, agent: &mut Agent, env: &[(&str, &str)]) {
        let mount = agent.home.with_extension("mnt");
        let started = agent.try_start_told(&["--hold", "--mount", mount.to_str().unwrap()], "", env);
        started.unwrap_or_else(|error| panic!("{}: {error:?}\n{}", agent.home.display(), agent.log()));
        agent.wait_for_donors(self.peers.iter().filter(|peer| peer.child.is_some()).count() as u64);
    }

    /// A new device by the phrase, its head found, mounted.
    pub(crate) fn recovered(&self, name: &str, phrase: &str) -> (Agent, api::Recovered) {
        self.recovered_of(name, phrase, None)
    }

    /// The same with the head of the device that is named.
    pub(crate) fn recovered_of(&self, name: &str, phrase: &str, device: Option<&str>) -> (Agent, api::Recovered) {
        let home = self.dir.path().join(name);
        let place = ["--listen", "127.0.0.1", "--no-mdns", "--device-name", name, "--donate", "0"];
        hnd(&home, &[&["recover", "--join", &self.link], &place[..]].concat()).unwrap();
        let mut agent = Agent::at(home.clone());
        phrase.clone_into(&mut agent.phrase);
        agent.start(&["--hold"]);
        agent.wait_for_donors(self.peers.iter().filter(|peer| peer.child.is_some()).count() as u64);
        let found = agent.recover(device).unwrap_or_else(|error| panic!("{error:?}\n{}", agent.log()));
        let dir = home.with_extension("mnt");
        let mounted = agent.call(async |client| client.mount(Some(&dir), true).await).unwrap();
        agent.mount = Some(mounted.dir);
        (agent, found)
    }

    pub(crate) fn kill(&mut self, peers: impl IntoIterator<Item = usize>) {
        for peer in peers {
            self.peers[peer].kill();
        }
    }

    /// kill -9 of every peer and of another agent: all are told before one is waited for.
    pub(crate) fn kill_all(&mut self, other: &mut Agent) {
        for child in self.peers.iter_mut().chain([&mut *other]).filter_map(|agent| agent.child.as_mut()) {
            let _ = child.kill();
        }
        for agent in self.peers.iter_mut().chain([other]) {
            agent.kill();
        }
    }

    pub(crate) fn revive(&mut self) {
        for peer in &mut self.peers {
            if peer.child.is_none() {
                peer.start(&[]);
            }
        }
    }
}
