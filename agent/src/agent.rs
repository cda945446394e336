//! The composition root: opens everything in order, runs until told to stop, and closes everything in order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use clap::Args;
use hypernet_core::id::{PeerId, VolumeId};
use hypernet_core::identity::share::Shares;
use hypernet_core::node::{Node, NodeConfig};
use hypernet_core::port::{MetaStore, PortError, RemoteTree};
use hypernet_fs::fuse::Kernels;
use hypernet_fs::vfs::{Config as VfsConfig, ROOT, Rooted, Vfs, VfsError};
use hypernet_mesh::{Mesh, MeshConfig, MeshError, RelayLimits};
use hypernet_sdk::api;
use hypernet_sdk::size;
use hypernet_store::error::{LOST, StoreError};
use hypernet_store::shards::ShardStore;
use hypernet_store::worktree::WorkTree;
use os_display::Quotable;
use parking_lot::{Mutex, ReentrantMutex};
use tokio::sync::Notify;

use crate::config::{self, Config, Home};
use crate::custody::serving::Serving;
use crate::driver::{self, NodeHandle, Remember};
use crate::failure::{Failure, Kind};
use crate::identity::Identity;
use crate::keystore::{KeystoreFile, Unlock};
use crate::peers::Peers;
use crate::volume::audit::{Auditor, ROUND};
use crate::volume::health::Counter;
use crate::volume::sync::{Engine, Engines};
use crate::volume::trim::Trimmer;
use crate::volume::{Volume, state};
use crate::volumes::{Reader, Volumes};
use crate::{databases, log, reserve, server, standings};

pub(crate) mod acquaint;
mod audit;
mod branch;
pub(crate) mod collect;
mod conflicts;
mod custody;
mod detach;
pub(crate) mod donate;
mod guardians;
mod history;
mod hunks;
mod keeper;
pub(crate) mod mount;
mod news;
pub(crate) mod people;
mod policy;
pub(crate) mod recovery;
mod share;
pub(crate) mod side;
mod tree;
pub(crate) mod work;

/// Peers that are remembered over a restart.
const REMEMBERED_MAX: usize = 256;
/// Addresses remembered of each.
const ADDRS_PER_PEER: usize = 4;
/// Attributes that the kernel may keep are few; so are the bytes of tree nodes kept decoded on disk.
const NODE_CACHE_BYTES: u64 = 256 << 20;

/// `hnd run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Mount the volume here.
    #[arg(long)]
    pub(crate) mount: Option<PathBuf>,
    #[command(flatten)]
    opened: crate::Opened,
    /// Mount in writeback mode even where passthrough is possible.
    #[arg(long)]
    pub(crate) no_passthrough: bool,
    /// Hold the background upload back until `hn sync`.
    #[arg(long)]
    hold: bool,
    /// Space for others from now on, such as 50G.
    #[arg(long, value_parser = size::parse_size)]
    donate: Option<u64>,
    /// Bytes of local copies from now on, such as 20G, or `none` for no limit.
    #[arg(long, value_parser = size::parse_limit)]
    cache: Option<size::Limit>,
    /// Bytes of shards a second that go out from now on, such as 2M, or `none` for no limit.
    #[arg(long, value_parser = size::parse_limit)]
    upload: Option<size::Limit>,
    /// Bytes of shards a second that come in from now on, such as 10M, or `none` for no limit.
    #[arg(long, value_parser = size::parse_limit)]
    download: Option<size::Limit>,
    /// Whether to ask the router to let others in (UPnP), from now on.
    #[arg(long)]
    upnp: Option<bool>,
}

/// The parts of an agent that has a volume.
pub(crate) struct Own {
    /// The main one.
    pub(crate) volume: Arc<Volume>,
    pub(crate) volumes: Arc<Volumes>,
    tree: Arc<WorkTree>,
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) engines: Arc<Engines>,
    pub(crate) counter: Arc<Counter>,
    pub(crate) auditor: Arc<Auditor>,
    pub(crate) trimmer: Option<Trimmer>,
    pub(crate) mount: Mutex<Option<mount::Mounted>>,
    /// Of whoever makes branches, or lets go of them. There is nothing in it.
    pub(crate) branching: ReentrantMutex<()>,
    /// Branches and snapshots that are mounted beside it.
    pub(crate) sides: Mutex<Vec<side::Side>>,
    /// All that shows something of the working tree.
    pub(crate) kernels: Arc<Kernels>,
    /// Volumes that could not be opened at the start, and why.
    pub(crate) closed: Mutex<BTreeMap<VolumeId, String>>,
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) home: Home,
    pub(crate) config: Mutex<Config>,
    pub(crate) began: Instant,
    pub(crate) mesh: Mesh,
    pub(crate) node: NodeHandle,
    pub(crate) store: Arc<ShardStore>,
    /// None on a storage peer, and until a recovery has found the identity.
    own: OnceLock<Own>,
    /// What is looked after for others.
    pub(crate) serving: Arc<Serving>,
    /// Of whoever finds the identity. There is nothing in it.
    arriving: Mutex<()>,
    /// What opens a keystore that is not there yet, once it is.
    unlock: Mutex<Unlock>,
    hold: bool,
    runtime: tokio::runtime::Handle,
    pub(crate) memory: Arc<Mutex<Memory>>,
    pub(crate) pairings: people::Table,
    /// Whose peers are.
    pub(crate) acquainted: acquaint::People,
    /// Of the words of the identity that is looked for.
    shares: Mutex<Shares>,
    /// What whoever recovers should know of what was found, when it has ended well.
    arrival_warning: Mutex<Option<String>>,
    /// What was out of order at the start.
    pub(crate) notes: Vec<String>,
    pub(crate) stop: Notify,
}

/// A peer that was met.
#[derive(Default)]
struct Met {
    /// Newest first.
    addrs: Vec<String>,
    /// Which meeting was the newest, counted over all peers.
    last: u64,
}

/// Addresses of peers, to be met again after a restart. It begins with what the last run knew: a start while the mesh
/// is not to be reached forgets nobody.
#[derive(Default)]
pub(crate) struct Memory {
    peers: BTreeMap<PeerId, Met>,
    meetings: u64,
    changed: bool,
}

impl Memory {
    /// From a list as [`Self::list`] gives it. What names no peer is left out.
    fn load(list: &[String]) -> Self {
        let mut memory = Self::default();
        for addr in list.iter().rev() {
            if let Some(peer) = addr.parse().ok().as_ref().and_then(mount::peer_named) {
                memory.note(peer, addr.clone());
            }
        }
        memory.changed = false;
        memory
    }

    /// A peer was met at an address. The one that was met longest ago makes room.
    fn note(&mut self, peer: PeerId, addr: String) {
        if self.peers.len() >= REMEMBERED_MAX
            && !self.peers.contains_key(&peer)
            && let Some(oldest) = self.peers.iter().min_by_key(|(_, met)| met.last).map(|(peer, _)| *peer)
        {
            self.peers.remove(&oldest);
        }
        let newest = self.meetings;
        let met = self.peers.entry(peer).or_default();
        if met.last == newest && met.addrs.first() == Some(&addr) {
            return;
        }
        met.addrs.retain(|known| *known != addr);
        met.addrs.insert(0, addr);
        met.addrs.truncate(ADDRS_PER_PEER);
        self.meetings += 1;
        met.last = self.meetings;
        self.changed = true;
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The peers, the one met last first.
    fn newest_first(&self) -> Vec<&Met> {
        let mut met: Vec<&Met> = self.peers.values().collect();
        met.sort_by_key(|met| std::cmp::Reverse(met.last));
        met
    }

    /// All addresses, newest first.
    fn list(&self) -> Vec<String> {
        self.newest_first().into_iter().flat_map(|met| &met.addrs).cloned().collect()
    }

    /// One address of each of some peers, those met last, QUIC where there is one.
    pub(crate) fn others(&self, count: usize) -> impl Iterator<Item = &String> {
        let best = |met: &Met| met.addrs.iter().position(|addr| addr.contains("/quic")).unwrap_or(0);
        self.newest_first().into_iter().filter_map(move |met| met.addrs.get(best(met))).take(count)
    }
}

/// The mesh did not start. Its addresses are in the configuration, so that is where to change them.
fn mesh_failure(home: &Home, error: &MeshError) -> Failure {
    let config = home.config();
    let config = config.display();
    let (kind, hint) = match error {
        MeshError::PortInUse(_) => (
            Kind::Unavailable,
            format!("stop the other program, or set another port under `listen` in {config}; 0 takes a free one"),
        ),
        MeshError::Listen { .. } => {
            (Kind::Unavailable, format!("set an address of this machine and a free port under `listen` in {config}"))
        }
        MeshError::Bootstrap(_) => (Kind::Config, format!("correct or remove it under `bootstrap` in {config}")),
        MeshError::Setup(_) => {
            (Kind::System, "the system gave no socket: look at `ulimit -n` and the system log (`dmesg`)".to_owned())
        }
    };
    Failure::new(kind, error.to_string()).hint(hint)
}

/// Local storage failed: what it was decides the kind, and the store knows what to do about it.
pub(crate) fn store_failure(error: StoreError) -> Failure {
    let kind = match &error {
        StoreError::Locked { .. } => Kind::TryAgain,
        StoreError::ReadOnly { .. } => Kind::Permission,
        StoreError::Corrupt { .. } | StoreError::Newer { .. } | StoreError::Missing { .. } => Kind::Data,
        StoreError::DiskFull { .. } | StoreError::Io { .. } | StoreError::Database { .. } => Kind::Io,
    };
    Failure::new(kind, error.to_string()).hint(error.hint())
}

/// What is whole, and was written by a program that knows more.
pub(crate) const UPDATE: &str = "a newer program wrote it: update this one. Where you have no newer one, a device that you do not trust \
                                 has put it there: `hn device renew` leads past it";

/// Something behind a port failed. Where the disk did, the text carries what to do already.
pub(crate) fn port_failure(error: PortError) -> Failure {
    let failure = |kind| Failure::new(kind, error.to_string());
    match &error {
        PortError::Unreachable(_) => failure(Kind::Unavailable).hint("`hn peers` shows who is there; try again later"),
        PortError::Deadline(_) => failure(Kind::TryAgain).hint("try again; `hn peers` shows who is there"),
        PortError::Damaged(_) => {
            failure(Kind::Data).hint("keep this directory, and recover what was synced into an empty HN_HOME")
        }
        PortError::Newer(_) => failure(Kind::Data).hint(UPDATE),
        PortError::DiskFull(_) => failure(Kind::Io).hint("free some space on this disk; nothing is lost"),
        PortError::Disk(_) => failure(Kind::Io).hint("check the disk and the system log (`dmesg`)"),
        PortError::NotFound(_) => failure(Kind::NoInput),
        PortError::Superseded(_) => failure(Kind::Data).hint(
            "`hn recover` in an empty HN_HOME brings that head back; then copy over what was changed here \
             since: nothing here is deleted",
        ),
        PortError::NoPart(_) => failure(Kind::Permission).hint(
            "ask whoever shares it (`hn share DIR` shows who) for a part in it, and copy what you have written to a directory of \
             your own; `hn detach DIR` takes it out of your tree when nothing in it waits to be published",
        ),
    }
}

/// The working tree did not open. Where a database is damaged, the text carries what to do already.
pub(crate) fn tree_failure(error: &VfsError) -> Failure {
    let failure = |kind| Failure::new(kind, format!("cannot open the working tree: {error}"));
    match error {
        VfsError::Damaged(_) => failure(Kind::Data),
        VfsError::Rootless(_) => failure(Kind::Data).hint(LOST),
        VfsError::NoSpace => failure(Kind::Io).hint("free some space on this disk; nothing is lost"),
        _ => failure(Kind::Io),
    }
}

/// Runs an agent until it is told to stop.
pub(crate) fn run(home: Home, args: RunArgs) -> Result<(), Failure> {
    let mut config = Config::load(&home)?;
    reserve::release(&home);
    log::start(&home)?;
    let before = config.clone();
    config.donate = args.donate.unwrap_or(config.donate);
    // Whoever gives something from now on goes on.
    config.leaving = config.leaving.filter(|_| args.donate.is_none_or(|bytes| bytes == 0));
    config.cache = args.cache.map_or(config.cache, |limit| limit.0);
    config.upload = args.upload.map_or(config.upload, |limit| limit.0);
    config.download = args.download.map_or(config.download, |limit| limit.0);
    config.upnp = args.upnp.unwrap_or(config.upnp);
    if config != before {
        config.save(&home)?;
    }
    // A recovery writes the keystore last of all that makes a device.
    let is_bare = config.storage_only || (config.recovering && !home.keystore().exists());
    let (unlock, keystore) = if is_bare {
        (crate::unlock(args.opened)?, None)
    } else {
        let unlock = crate::unlock_existing(&home.keystore(), args.opened.passphrase_stdin)?;
        let keystore = KeystoreFile::load(&home.keystore(), &unlock)?;
        (unlock, Some(Arc::new(keystore)))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Kind::System, format!("cannot start: {error}")))?;
    let result = runtime.block_on(serve(home, config, args, unlock, keystore));
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

/// Also says what was out of order, if anything was.
async fn start_mesh(
    home: &Home,
    config: &mut Config,
) -> Result<(Mesh, tokio::sync::mpsc::Receiver<hypernet_mesh::MeshEvent>, Option<String>), Failure> {
    let seed = config::peer_seed(home, config)?;
    let mut bootstrap = config.bootstrap.clone();
    bootstrap.extend(config::known_peers(home));
    bootstrap.sort();
    bootstrap.dedup();
    let make = |listen: &[String]| MeshConfig {
        secret: seed.clone(),
        network: config.network().unwrap_or(hypernet_core::id::NetworkId([0; 16])),
        listen: Config::addrs(listen),
        bootstrap: Config::addrs(&bootstrap).into_iter().filter(mount::names_a_peer).collect(),
        mdns: config.mdns,
        upnp: config.upnp,
        relay: RelayLimits::default(),
        upload: config.upload,
        download: config.download,
    };
    config.network()?;
    let mut note = None;
    let started = match Mesh::start(make(&config.listen)).await {
        Err(MeshError::PortInUse(addr)) => {
            // The ports of the last run are a convenience; whoever took one of them is not to be fought.
            tracing::warn!(%addr, "a port of the last run is taken; asking for another");
            note = Some(format!(
                "{addr} is in use by another program: this agent listens on another port for now, and links of `hn invite` \
                 that name the old one lead nowhere; stop the other program, or set another port under `listen` in {}",
                home.config().display()
            ));
            let fresh: Vec<String> = config.listen.iter().map(|addr| mount::without_port(addr)).collect();
            Mesh::start(make(&fresh)).await
        }
        other => other,
    };
    let (mesh, events) = started.map_err(|error| mesh_failure(home, &error))?;
    let listen: Vec<String> = mount::keep_ports(&config.listen, &mesh.listen_addrs());
    if listen != config.listen {
        config.listen = listen;
        config.save(home)?;
    }
    Ok((mesh, events, note))
}

fn open_own(
    home: &Home,
    config: &Config,
    keystore: Arc<KeystoreFile>,
    node: &NodeHandle,
    hold: bool,
) -> Result<Own, Failure> {
    let main = keystore.keystore().main;
    let device = keystore.load_device(&home.device())?;
    let peers = Arc::new(Peers::new(node.clone()));
    let identity = Identity::load(home.identity(), keystore, device.clone(), peers)?;
    // A copy of this home gives others to what it makes.
    let tag = device.id().tag().of_home(identity.home());
    let db = databases::open_catalog(home, config, main, NODE_CACHE_BYTES)?;
    let tree = Arc::new(databases::open_tree(home, config, &db)?);
    let volume = Volume::open(main, device, Arc::new(identity), Arc::new(db), node.clone()).map_err(port_failure)?;
    let volume = Arc::new(volume);
    let mut vfs_config = VfsConfig::new(home.files(), main, tag);
    vfs_config.uid = rustix::process::getuid().as_raw();
    vfs_config.gid = rustix::process::getgid().as_raw();
    let meta: Arc<dyn MetaStore> = tree.clone();
    let engines = Arc::new(Engines::new(hold));
    let begin = engines.clone();
    let volumes = Volumes::new(volume.clone(), move |found| {
        if let Err(error) = begin.start(found) {
            tracing::error!(%error, "what is changed in a volume stays on this device until the next start");
        }
    });
    let remote: Arc<dyn RemoteTree> = Arc::new(Reader(volumes.clone()));
    let vfs = Vfs::open(vfs_config, meta, remote).map_err(|error| tree_failure(&error))?;
    vfs.set_durability_info(Some(Arc::new(crate::status::Describe(volume.clone()))));
    let counter = Arc::new(Counter::new());
    let auditor = Auditor::open(volume.clone(), config.audits_every.unwrap_or(ROUND)).map_err(port_failure)?;
    let auditor = Arc::new(auditor);
    let trimmer = match config.cache {
        Some(limit) => Some(
            Trimmer::start(volume.clone(), vfs.clone(), limit)
                .map_err(|error| Failure::new(Kind::System, format!("cannot start a thread: {error}")))?,
        ),
        None => None,
    };
    engines.set_tree(&vfs, &volumes);
    let (mount, sides, kernels) = (Mutex::new(None), Mutex::default(), Kernels::new(vfs.clone()));
    let branching = ReentrantMutex::new(());
    let closed = Mutex::default();
    Ok(Own { volume, volumes, tree, vfs, engines, counter, auditor, trimmer, mount, branching, sides, kernels, closed })
}

impl Own {
    /// Lets the uploads begin: at start, or once the head was found.
    pub(crate) fn start_engines(&self) -> Result<(), Failure> {
        self.tell_of_shares()?;
        self.tell_of_branches()?;
        // Also with nothing in it: who has only the words is to find a head, or nothing more could be done by them.
        if state::latest(&self.volume.db).map_err(port_failure)?.is_none() {
            self.vfs.mark_changed(self.volume.id).map_err(|error| tree_failure(&error))?;
        }
        let rooted = self.vfs.volumes();
        let known: BTreeSet<VolumeId> = rooted.iter().map(|rooted| rooted.volume).collect();
        self.volume.forget_unmade(&known).map_err(port_failure)?;
        let there = rooted.into_iter().filter(|rooted| !rooted.is_vacant || rooted.ino == ROOT);
        for rooted in there {
            // What is damaged of one volume, by whomever, keeps nobody from all others.
            match self.volumes.of(rooted.volume) {
                Err(error @ PortError::Damaged(_)) if rooted.ino != ROOT => self.keep_closed(&rooted, &error),
                volume => {
                    let volume = volume.map_err(port_failure)?;
                    tree::note_origin(self, &rooted)?;
                    self.set_rights(&volume);
                    self.start_engine(volume)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing is changed in a volume of which nobody here knows who may, and nothing of it is published.
    fn keep_closed(&self, rooted: &Rooted, error: &PortError) {
        self.vfs.set_read_only(rooted.volume, true);
        let path = self.vfs.path(rooted.ino).unwrap_or_default();
        tracing::error!(%error, volume = %rooted.volume.short(), "a volume stays closed");
        let why = format!("{} is closed, and nothing in it is changed or published: {error}", path.quote());
        self.closed.lock().insert(rooted.volume, why);
    }

    /// The uploads of all volumes, each before that of the volume above it; none before the head of the main one was found.
    pub(crate) fn engines(&self) -> Vec<Arc<Engine>> {
        self.engines.all()
    }

    /// The upload of a volume, if it has begun.
    pub(crate) fn engine_of(&self, volume: VolumeId) -> Option<Arc<Engine>> {
        self.engines().into_iter().find(|engine| engine.volume() == volume)
    }

    /// Lets the upload of a volume begin that was made just now.
    pub(crate) fn start_engine(&self, volume: Arc<Volume>) -> Result<(), Failure> {
        let failed = |error| Failure::new(Kind::System, format!("cannot start the upload: {error}"));
        self.engines.start(volume).map_err(failed)
    }
}

async fn serve(
    home: Home,
    mut config: Config,
    args: RunArgs,
    unlock: Unlock,
    keystore: Option<Arc<KeystoreFile>>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let store = Arc::new(ShardStore::open(&home.donated(), config.quota()).map_err(store_failure)?);
    let (mesh, events, note) = start_mesh(&home, &mut config).await?;
    let mut node_config = NodeConfig::new(mesh.peer_id(), hypernet_mesh::distance, config.quota(), store.used());
    node_config.record_lifetime = config.record_lifetime * 1000;
    node_config.leaving = config.leaving.is_some();
    let memory = Arc::new(Mutex::new(Memory::load(&config::known_peers(&home))));
    let noted = memory.clone();
    let remember: Remember = Box::new(move |peer, addr| noted.lock().note(peer, addr));
    let mut machine = Node::new(node_config);
    if let Some(seen) = standings::load(&home) {
        machine.restore(&seen);
    }
    let (node, driver) = driver::start(machine, mesh.clone(), events, store.clone(), remember, config.upload);
    let socket = server::bind(&home)?;
    let round = config.audits_every.unwrap_or(ROUND);
    let serving = Arc::new(Serving::open(&home, mesh.peer_id(), node.clone(), round)?);
    let agent = Arc::new(Agent {
        serving,
        home: home.clone(),
        config: Mutex::new(config),
        began,
        mesh: mesh.clone(),
        node: node.clone(),
        store: store.clone(),
        own: OnceLock::new(),
        arriving: Mutex::default(),
        unlock: Mutex::new(unlock),
        hold: args.hold,
        runtime: tokio::runtime::Handle::current(),
        memory: memory.clone(),
        pairings: people::Table::default(),
        acquainted: acquaint::People::default(),
        shares: Mutex::default(),
        arrival_warning: Mutex::default(),
        notes: note.into_iter().chain(crate::locked::refused()).collect(),
        stop: Notify::new(),
    });
    if let Some(keystore) = keystore {
        let opener = agent.clone();
        blocking(move || opener.open(keystore)).await??;
    }
    agent.clear_last_mount(args.mount.as_deref()).await;
    let clearer = agent.clone();
    blocking(move || clearer.clear_sides()).await?;
    let mounted = match &args.mount {
        Some(dir) => {
            let (mounter, dir, passthrough) = (agent.clone(), dir.clone(), !args.no_passthrough);
            let done = blocking(move || mounter.mount(&dir, passthrough)).await?;
            match done {
                Ok(mounted) => Some(mounted),
                Err(failure) => {
                    agent.close(driver).await;
                    return Err(failure);
                }
            }
        }
        None => None,
    };
    let server = tokio::spawn(server::serve(agent.clone(), socket));
    let keeper = Arc::new(keeper::Keeper { home: home.clone(), memory });
    let keeping = tokio::spawn(keeper::run(keeper.clone(), node.clone()));
    let tending = tokio::spawn(policy::run(agent.clone()));
    let collecting = tokio::spawn(collect::run(agent.clone()));
    let auditing = tokio::spawn(audit::run(agent.clone()));
    let hearing = tokio::spawn(news::run(agent.clone()));
    let meeting = tokio::spawn(acquaint::run(agent.clone()));
    let branching = tokio::spawn(branch::run(agent.clone()));
    let looking_after = tokio::spawn(custody::run(agent.clone()));
    crate::print_ready(&api::Ready {
        ready: true,
        pid: std::process::id(),
        socket: home.socket(),
        mount: mounted.map(|mounted| mounted.dir),
        listen: mesh.listen_addrs().iter().map(ToString::to_string).collect(),
        error: None,
    });
    tracing::info!(peer = %mesh.peer_id().short(), "ready");
    wait_for_stop(&agent).await;
    tracing::info!("stopping");
    keeping.abort();
    tending.abort();
    collecting.abort();
    auditing.abort();
    hearing.abort();
    meeting.abort();
    branching.abort();
    looking_after.abort();
    keeper::save(&keeper).await;
    keeper::save_standings(&keeper, &node).await;
    agent.close(driver).await;
    server.abort();
    let _ = std::fs::remove_file(home.socket());
    Ok(())
}

/// Runs something that blocks on a thread made for that.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(Kind::System, format!("an internal task failed: {error}")))
}

async fn wait_for_stop(agent: &Agent) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return agent.stop.notified().await;
    };
    tokio::select! {
        () = agent.stop.notified() => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Agent {
    /// The parts of an agent that has a volume, if this is one by now.
    pub(crate) fn with_volume(&self) -> Option<&Own> {
        self.own.get()
    }

    /// Opens the volume of a keystore, and lets the upload begin where the head is known. Blocks.
    pub(crate) fn open(&self, keystore: Arc<KeystoreFile>) -> Result<(), Failure> {
        let config = self.config.lock().clone();
        let own = open_own(&self.home, &config, keystore, &self.node, self.hold)?;
        if !config.used {
            let mut config = self.config.lock();
            config.used = true;
            config.save(&self.home)?;
        }
        if !config.recovering {
            own.start_engines()?;
        }
        let (counter, volume) = (own.counter.clone(), own.volume.clone());
        if self.own.set(own).is_err() {
            return Err(Failure::new(Kind::Config, "this agent has its volume already"));
        }
        self.runtime.spawn(counter.run(volume));
        reserve::set_aside(&self.home);
        Ok(())
    }

    /// Closes everything, what others depend on last. Loses nothing: what is not on the mesh stays in the working
    /// tree.
    async fn close(self: &Arc<Self>, driver: tokio::task::JoinHandle<()>) {
        let agent = self.clone();
        let closed = blocking(move || {
            let Some(own) = agent.with_volume() else { return };
            own.engines.stop();
            if let Some(trimmer) = &own.trimmer {
                trimmer.stop();
            }
            let quiet = agent.unmount_at_exit();
            if let Err(error) = own.vfs.close(quiet) {
                tracing::error!(%error, "the working tree could not be closed cleanly");
            }
            // Threads that end with the process have them open still.
            for closed in [own.tree.close(), own.volume.db.close()] {
                if let Err(error) = closed {
                    tracing::warn!(%error, "a database keeps its log until the next start");
                }
            }
        })
        .await;
        if let Err(failure) = closed {
            tracing::error!(%failure, "closing");
        }
        tracing::debug!("stopping the node");
        self.node.stop().await;
        let _ = driver.await;
        tracing::debug!("stopping the mesh");
        self.mesh.clone().shutdown().await;
        tracing::debug!("stopping the store");
        let store = self.store.clone();
        let _ = blocking(move || store.close()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_store_keep_their_kind_and_what_to_do() {
        let path = PathBuf::from("/x/volume.db");
        let locked = store_failure(StoreError::Locked { dir: "/x".into() });
        assert_eq!(locked.kind, Kind::TryAgain);
        assert!(locked.hint.unwrap().contains("hn down"));
        let full = store_failure(StoreError::DiskFull { path: path.clone() });
        assert_eq!(full.kind, Kind::Io);
        assert!(full.hint.unwrap().contains("free some space"));
        let corrupt = store_failure(StoreError::Corrupt { path, detail: "x".into(), remedy: "restore it" });
        assert_eq!((corrupt.kind, corrupt.hint.as_deref()), (Kind::Data, Some("restore it")));
        let damaged = tree_failure(&VfsError::Damaged("worktree.db is corrupted; restore it".into()));
        assert_eq!(damaged.kind, Kind::Data);
        assert!(damaged.message.contains("restore it"));
        assert!(tree_failure(&VfsError::NoSpace).hint.unwrap().contains("free some space"));
    }

    /// An address of one of many peers.
    pub(super) fn addr(peer: u8, port: u16) -> String {
        let name = crate::status::peer_name(&peer_id(peer));
        format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{name}")
    }

    pub(super) fn peer_id(peer: u8) -> PeerId {
        let keys = libp2p::identity::Keypair::ed25519_from_bytes([peer; 32]).unwrap();
        PeerId(keys.public().try_into_ed25519().unwrap().to_bytes())
    }

    #[test]
    fn memory_outlives_a_start_without_a_mesh_and_forgets_the_oldest() {
        let mut memory = Memory::default();
        for peer in 0..3 {
            memory.note(peer_id(peer), addr(peer, 1));
        }
        memory.note(peer_id(0), addr(0, 2));
        let list = memory.list();
        assert_eq!(list, [addr(0, 2), addr(0, 1), addr(2, 1), addr(1, 1)]);
        // Nobody is met in this run.
        let mut again = Memory::load(&list);
        assert!(!again.changed);
        assert_eq!(again.list(), list);
        assert_eq!(again.others(2).collect::<Vec<_>>(), [&addr(0, 2), &addr(2, 1)]);
        // The newest meeting once more changes nothing; an older one comes first.
        again.note(peer_id(0), addr(0, 2));
        assert!(!again.changed);
        again.note(peer_id(1), addr(1, 1));
        assert!(again.changed);
        assert_eq!(again.list()[0], addr(1, 1));
        // Strangers push out the one that was met longest ago, and only that.
        for i in 0..REMEMBERED_MAX - 2 {
            let mut stranger = [0xff; 32];
            stranger[..8].copy_from_slice(&i.to_be_bytes());
            again.note(PeerId(stranger), format!("/ip4/127.0.0.1/tcp/{i}"));
        }
        assert_eq!(again.peers.len(), REMEMBERED_MAX);
        assert!(!again.peers.contains_key(&peer_id(2)));
        assert!(again.peers.contains_key(&peer_id(0)) && again.peers.contains_key(&peer_id(1)));
        assert!(Memory::load(&["nonsense".into(), "/ip4/127.0.0.1/tcp/1".into()]).peers.is_empty());
    }

    #[test]
    fn a_port_that_is_taken_names_the_file_that_sets_another() {
        let home = Home::new("/x".into());
        let failure = mesh_failure(&home, &MeshError::PortInUse("/ip4/127.0.0.1/tcp/1".parse().unwrap()));
        assert!(failure.hint.unwrap().contains("/x/config.json"));
    }
}
