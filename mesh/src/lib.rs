//! Bytes in and out: a libp2p swarm behind a small handle. Nothing is decided here.
//!
//! Invariants: [`Mesh::start`] returns only once every listening socket is bound. Every [`Mesh::send`],
//! [`Mesh::find_closest`] and [`Mesh::get_record`] has exactly one outcome among the events, as long as the events are
//! read and the mesh runs. Protocol names carry the network id, and a peer whose identify names another network is
//! disconnected before the owner hears of it, so two meshes never mix. Everything that waits is bounded: what peers
//! ask for beyond the bounds is refused as busy, what we are told to do beyond them waits in the command queue.
//!
//! One task owns the swarm ([`driver`]). The owner of the mesh must read events while it gives commands: after
//! [`MESH_SENDS_MAX`](hypernet_core::limits::MESH_SENDS_MAX) open sends the next command waits for an outcome to be
//! read.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hypernet_core::id::{NetworkId, PeerId, RecordKey};
use hypernet_core::key::Secret;
use hypernet_core::limits::{
    RELAY_CIRCUIT_BYTES, RELAY_CIRCUIT_SECONDS, RELAY_CIRCUITS_MAX, RELAY_CIRCUITS_PER_PEER, RELAY_RESERVATIONS_MAX,
    RELAY_RESERVATIONS_PER_PEER,
};
use hypernet_core::wire::{Request, Response};
pub use libp2p::Multiaddr;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

mod absent;
mod address;
mod behaviour;
mod codec;
mod driver;
mod gate;
mod pace;
mod peer_id;
mod silence;
mod trial;

use driver::{Command, Driver};
pub use peer_id::distance;

/// What a mesh needs to start.
pub struct MeshConfig {
    /// Seed of the transport's Ed25519 key.
    pub secret: Secret,
    /// Peers of other networks are not talked to.
    pub network: NetworkId,
    /// Where to listen: `/ip4/…/udp/…/quic-v1` and `/ip4/…/tcp/…`; port 0 lets the kernel choose.
    pub listen: Vec<Multiaddr>,
    /// Peers to start from, each with its `/p2p/…`; a lost one is dialed again for as long as the mesh runs.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// Whether to ask the router to let others in.
    pub upnp: bool,
    /// What others get of us as a relay, while others can reach us.
    pub relay: RelayLimits,
    /// Bytes of shards a second that go out, in answers too; no limit when there is none.
    pub upload: Option<u64>,
    /// Bytes of shards a second that come in; no limit when there is none.
    pub download: Option<u64>,
}

/// What peers that nobody can reach otherwise get of a relay. How often they may ask is not for a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// Peers that have a place at once; no more are taken.
    pub reservations: usize,
    /// Places of one peer.
    pub reservations_per_peer: usize,
    /// Circuits at once.
    pub circuits: usize,
    /// Those from one peer.
    pub circuits_per_peer: usize,
    /// After that a circuit ends.
    pub circuit_time: Duration,
    /// After so many bytes, both directions together, a circuit ends.
    pub circuit_bytes: u64,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            reservations: RELAY_RESERVATIONS_MAX,
            reservations_per_peer: RELAY_RESERVATIONS_PER_PEER,
            circuits: RELAY_CIRCUITS_MAX,
            circuits_per_peer: RELAY_CIRCUITS_PER_PEER,
            circuit_time: Duration::from_secs(RELAY_CIRCUIT_SECONDS),
            circuit_bytes: RELAY_CIRCUIT_BYTES,
        }
    }
}

/// Why a mesh did not start.
#[derive(Debug, Error)]
pub enum MeshError {
    /// Somebody else listens there.
    #[error("port in use: {0}; stop the other program or choose another port")]
    PortInUse(Multiaddr),
    /// It cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address of the configuration.
        address: Multiaddr,
        /// What the system said.
        reason: String,
    },
    /// An address to start from is of no use.
    #[error("{0} is no address of a peer: it must be an IP address with QUIC or TCP and end in /p2p/ID")]
    Bootstrap(Multiaddr),
    /// libp2p could not be set up.
    #[error("cannot set up the network: {0}")]
    Setup(#[from] io::Error),
}

/// Why a request has no response.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The peer is not connected and cannot be reached at any known address.
    #[error("it cannot be reached")]
    Unreachable,
    /// No response by the deadline; the request may have been carried out.
    #[error("no answer within the deadline")]
    Deadline,
    /// The connection or stream broke, or the mesh stops; the request may have been carried out.
    #[error("the connection was lost")]
    Closed,
    /// The peer does not speak the shard protocol of this network.
    #[error("it does not speak this network's protocol")]
    Unsupported,
    /// It is met over a relay, which ends each circuit before so many bytes are through.
    #[error("the relay between us carries {limit} bytes at most, which is too little for this")]
    OverLimit {
        /// Bytes, both directions together.
        limit: u64,
    },
    /// The response breaks the protocol.
    #[error("its answer is malformed: {0}")]
    Malformed(String),
}

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// QUIC v1 over UDP.
    Quic,
    /// TCP with Noise and Yamux.
    Tcp,
}

impl Transport {
    /// `quic` or `tcp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

/// How a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// One end dialed the other.
    Direct,
    /// Both ends are behind routers, which they opened at the same moment, told to by way of a relay.
    HolePunched,
    /// Every byte goes by way of this peer, where it is known which; it cannot read them.
    Relayed(Option<PeerId>),
}

/// Whether others can reach us, as they have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// Nobody has tried, or could: on a network of its own nobody has a public address.
    Unknown,
    /// At one public address or more.
    Public,
    /// None of our addresses leads here from outside.
    Private,
}

/// How this node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether others can.
    pub reachability: Reachability,
    /// The public addresses at which they can.
    pub external: Vec<Multiaddr>,
    /// The relays at which we are to be met.
    pub relays: Vec<PeerId>,
    /// Peers that are to be met at us, as a relay.
    pub hosted: usize,
    /// What the router says to our wish to be let in; none when it was not asked, or has not answered.
    pub router: Option<&'static str>,
}

/// A peer that is not connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// Who.
    pub peer: PeerId,
    /// When it was last connected, since we run.
    pub seen: Option<Instant>,
    /// When it was last tried in vain, and why that was.
    pub failed: Option<(Instant, String)>,
}

/// A connected peer.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// The remote ends of its connections.
    pub addrs: Vec<Multiaddr>,
    /// The last measured round trip.
    pub rtt: Option<Duration>,
    /// What carries its oldest connection; over a relay, what carries it to there.
    pub transport: Transport,
    /// How it came about.
    pub path: Path,
    /// Why it is that way, in words.
    pub why: String,
    /// Since when it is connected.
    pub since: Instant,
    /// Bytes of shards sent to it.
    pub sent: u64,
    /// Bytes of shards received from it.
    pub received: u64,
}

/// What the mesh tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum MeshEvent {
    /// A peer of this network is connected.
    Connected {
        /// Who.
        peer: PeerId,
        /// The remote end, with `/p2p`. Of an incoming TCP connection it may not be an address to dial.
        addr: Multiaddr,
    },
    /// The way to a connected peer is another one now, or there is nothing left that could make it another one. Not every
    /// time is told when events pile up.
    Moved {
        /// Who.
        peer: PeerId,
        /// How it is reached.
        path: Path,
        /// Why, in words.
        why: String,
    },
    /// Its last connection is gone.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A peer asks; answer with [`Mesh::reply`]. The body counts against
    /// [`MESH_INBOUND_BODIES`](hypernet_core::limits::MESH_INBOUND_BODIES) until the last reference to it is
    /// dropped: who wants to keep it in memory copies it.
    Request {
        /// Who asks.
        peer: PeerId,
        /// What to answer under.
        inbound: u64,
        /// What it asks.
        request: Request,
    },
    /// The outcome of [`Mesh::send`].
    Response {
        /// The id that was given to it.
        id: u64,
        /// Who was asked.
        peer: PeerId,
        /// What it said.
        result: Result<Response, SendError>,
    },
    /// A peer broke a protocol. Malformed answers to our own requests come as [`SendError::Malformed`] instead.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// How, for a log.
        reason: String,
    },
    /// A peer asked for more than is served at once, and was told that we are busy. Not every time is told when events
    /// pile up.
    TurnedAway {
        /// Who.
        peer: PeerId,
    },
    /// The outcome of [`Mesh::find_closest`].
    Closest {
        /// The id that was given to it.
        id: u64,
        /// The closest first, at most Kademlia's k.
        peers: Vec<PeerId>,
    },
    /// The outcome of [`Mesh::get_record`].
    RecordFound {
        /// The id that was given to it.
        id: u64,
        /// The distinct answers, not verified.
        records: Vec<Vec<u8>>,
        /// How many other peers have answered, with a record or without.
        answers: usize,
    },
    /// An address at which a peer of this network says it listens; worth remembering across restarts.
    PeerAddr {
        /// Who.
        peer: PeerId,
        /// With `/p2p`.
        addr: Multiaddr,
    },
    /// We listen here.
    Listening {
        /// With `/p2p`.
        addr: Multiaddr,
    },
}

/// The handle of a running mesh. The mesh stops when [`Mesh::shutdown`] is called, when all handles are dropped, or
/// when nobody reads its events any more.
#[derive(Clone)]
pub struct Mesh {
    peer: PeerId,
    listen: Arc<RwLock<Vec<Multiaddr>>>,
    commands: mpsc::Sender<Command>,
}

impl Mesh {
    /// Starts a mesh; its sockets are bound when this returns. Must be called inside a tokio runtime.
    pub async fn start(config: MeshConfig) -> Result<(Self, mpsc::Receiver<MeshEvent>), MeshError> {
        let (driver, mesh, events) = Driver::start(config).await?;
        tokio::spawn(driver.run());
        Ok((mesh, events))
    }

    /// Who we are on the network.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Where we can be met, with real ports and `/p2p`: the addresses that we listen on, those at which others have
    /// reached us, and those over relays. It is what an invite holds.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.listen.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks a peer, dialing it first if need be. The outcome comes as [`MeshEvent::Response`].
    pub async fn send(&self, peer: PeerId, id: u64, request: Request, deadline: Duration) {
        self.give(Command::Send { peer, id, request, deadline }).await;
    }

    /// Answers a [`MeshEvent::Request`]. An answer that is too late is dropped.
    pub async fn reply(&self, inbound: u64, response: Response) {
        self.give(Command::Reply { inbound, response }).await;
    }

    /// Finds the peers closest to a key, this one left out. The outcome comes as [`MeshEvent::Closest`].
    pub async fn find_closest(&self, id: u64, key: RecordKey) {
        self.give(Command::FindClosest { id, key }).await;
    }

    /// Collects all answers for a key over disjoint paths, what is kept here among them. The outcome comes as
    /// [`MeshEvent::RecordFound`].
    pub async fn get_record(&self, id: u64, key: RecordKey) {
        self.give(Command::GetRecord { id, key }).await;
    }

    /// Keeps a record for the mesh, in place of what was kept under its key. The owner has verified it.
    pub async fn keep_record(&self, key: RecordKey, bytes: Vec<u8>) {
        self.give(Command::KeepRecord { key, bytes }).await;
    }

    /// Keeps a record no longer.
    pub async fn forget_record(&self, key: RecordKey) {
        self.give(Command::ForgetRecord { key }).await;
    }

    /// Dials an address once.
    pub async fn dial(&self, addr: Multiaddr) {
        self.give(Command::Dial { addr }).await;
    }

    /// Closes all connections to a peer.
    pub async fn disconnect(&self, peer: PeerId) {
        self.give(Command::Disconnect { peer }).await;
    }

    /// Closes all connections to a peer and makes none with it for this long.
    pub async fn block(&self, peer: PeerId, time: Duration) {
        self.give(Command::Block { peer, time }).await;
    }

    /// The connected peers of this network, in the order of their ids.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        let (answer, peers) = oneshot::channel();
        self.give(Command::Peers { answer }).await;
        // The mesh has stopped when there is no answer, and then nobody is connected.
        peers.await.unwrap_or_default()
    }

    /// Peers that are not connected and were, or were tried; in the order of their ids.
    pub async fn missed(&self) -> Vec<Missed> {
        let (answer, missed) = oneshot::channel();
        self.give(Command::Missed { answer }).await;
        missed.await.unwrap_or_default()
    }

    /// How this node is reached; none when the mesh has stopped.
    pub async fn standing(&self) -> Option<Standing> {
        let (answer, standing) = oneshot::channel();
        self.give(Command::Standing { answer }).await;
        standing.await.ok()
    }

    /// Something about the network has changed, such as that the machine was asleep: whoever is not there is dialed now.
    /// The mesh notices by itself when an address comes or goes, and when a clock has jumped.
    pub async fn renew(&self) {
        self.give(Command::Renew).await;
    }

    /// Stops the mesh: open sends end with [`SendError::Closed`], and peers are told goodbye. A QUIC port is free
    /// again when its connections have drained, a fraction of a second later, or with the end of the process.
    pub async fn shutdown(self) {
        let (done, stopped) = oneshot::channel();
        self.give(Command::Shutdown { done }).await;
        tokio::select! {
            _ = stopped => {}
            // It may stop by itself just now, because nobody hears its events. A command that was queued in that moment
            // is dropped only with the last sender, which this is not.
            () = self.commands.closed() => {}
        }
    }

    /// The queue is closed only when the mesh has stopped, which its owner learns from the end of the events.
    async fn give(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}
