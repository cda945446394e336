//! The one task that owns the swarm: takes commands, tells events, keeps the timers.
//!
//! Invariant: it never waits for anything but its next input. What it has to tell waits in a bounded outbox; when
//! that is full, news that peers would repeat are dropped, inbound requests are refused as busy, and as the last
//! resort the swarm is not polled, which pushes back on the peers themselves.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use hypernet_core::id::{PeerId, RecordKey};
use hypernet_core::limits::{
    MESH_COMMANDS, MESH_EVENTS, MESH_QUERIES_MAX, MESH_SENDS_MAX, MESH_SERVING_MAX, PEERS_MAX,
};
use hypernet_core::wire::{Request, Response};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, Swarm, identify, ping, request_response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::absent::Told;
use crate::address::{self, Book};
use crate::behaviour::{Behaviour, BehaviourEvent, Names, With};
use crate::pace::{Pace, Shared};
use crate::trial::Trials;
use crate::{Mesh, MeshConfig, MeshError, MeshEvent, Missed, PeerInfo, Standing, peer_id};

mod listen;
mod outbox;
mod peers;
mod reach;
mod records;
mod renew;
mod sends;
mod serving;
mod timers;

use outbox::Outbox;
use peers::{Bootstrap, Connected, Refresh};
use reach::Reach;
use records::Query;
use renew::Clocks;
use sends::Sends;
use serving::Serving;
use timers::{Timer, Timers};

/// libp2p's id of a peer, as opposed to ours.
type P2p = libp2p::PeerId;

/// How long peers have to be told goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Peers of other networks that are remembered, so that mdns does not have us dial them again and again.
const FOREIGN_MAX: usize = 1_024;

/// What the handle wants done.
pub(crate) enum Command {
    Send { peer: PeerId, id: u64, request: Request, deadline: Duration },
    Reply { inbound: u64, response: Response },
    FindClosest { id: u64, key: RecordKey },
    GetRecord { id: u64, key: RecordKey },
    KeepRecord { key: RecordKey, bytes: Vec<u8> },
    ForgetRecord { key: RecordKey },
    Dial { addr: Multiaddr },
    Disconnect { peer: PeerId },
    Block { peer: PeerId, time: Duration },
    Peers { answer: oneshot::Sender<Vec<PeerInfo>> },
    Missed { answer: oneshot::Sender<Vec<Missed>> },
    Standing { answer: oneshot::Sender<Standing> },
    Renew,
    Shutdown { done: oneshot::Sender<()> },
}

/// See the module.
pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    names: Names,
    me: P2p,
    commands: mpsc::Receiver<Command>,
    outbox: Outbox,
    timers: Timers,
    listen: Arc<RwLock<Vec<Multiaddr>>>,
    book: Book,
    peers: BTreeMap<P2p, Connected>,
    dialing: HashMap<P2p, ConnectionId>,
    foreign: HashSet<P2p>,
    blocked: HashMap<P2p, timers::Key>,
    bootstrap: Vec<Bootstrap>,
    refresh: Refresh,
    reach: Reach,
    trials: Trials,
    clocks: Clocks,
    /// Bytes of shards that go out,
    up: Pace,
    /// and that come in.
    down: Shared,
    sends: Sends,
    serving: Serving,
    queries: HashMap<libp2p::kad::QueryId, Query>,
}

impl Driver {
    /// Binds the sockets and dials the first peers; [`Driver::run`] does the rest.
    pub(crate) async fn start(config: MeshConfig) -> Result<(Self, Mesh, mpsc::Receiver<MeshEvent>), MeshError> {
        let key = Keypair::ed25519_from_bytes(*config.secret.expose()).map_err(io::Error::other)?;
        let me = key.public().to_peer_id();
        let peer = peer_id::from_libp2p(&me).ok_or_else(|| io::Error::other("the key is not Ed25519"))?;
        let names = Names::new(config.network)?;
        let bootstrap = peers::bootstrap(&config.bootstrap, me)?;
        let down = Shared::new(config.download);
        // A router is asked about nothing that does not leave this machine.
        let upnp = config.upnp && config.listen.iter().any(|addr| !address::is_loopback(addr));
        let with = With { mdns: config.mdns, upnp, relay: config.relay, down: down.clone() };
        let mut swarm = crate::behaviour::swarm(key, &names, &with)?;
        let trials = swarm.behaviour().tried.trials();
        let addrs = listen::bind(&mut swarm, &config.listen).await?;

        let (tell, events) = mpsc::channel(MESH_EVENTS);
        let (commands, commanded) = mpsc::channel(MESH_COMMANDS);
        let listen = Arc::new(RwLock::new(Vec::new()));
        let mesh = Mesh { peer, listen: Arc::clone(&listen), commands };
        let mut driver = Self {
            swarm,
            names,
            me,
            commands: commanded,
            outbox: Outbox::new(tell),
            timers: Timers::default(),
            listen,
            book: Book::default(),
            peers: BTreeMap::new(),
            dialing: HashMap::new(),
            foreign: HashSet::new(),
            blocked: HashMap::new(),
            bootstrap,
            refresh: Refresh::default(),
            reach: Reach::default(),
            trials,
            clocks: Clocks::now(),
            up: Pace::new(config.upload, Instant::now()),
            down,
            sends: Sends::default(),
            serving: Serving::default(),
            queries: HashMap::new(),
        };
        for addr in addrs {
            driver.on_listening(addr);
        }
        driver.dial_bootstrap();
        driver.compare_clocks();
        Ok((driver, mesh, events))
    }

    /// Runs until it is told to stop, or nobody is there to tell.
    pub(crate) async fn run(mut self) {
        let done = self.serve().await;
        self.goodbye().await;
        drop(self);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    async fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        while self.outbox.flush() {
            let wake = self.timers.next();
            tokio::select! {
                () = self.outbox.room(), if !self.outbox.is_empty() => {}
                () = self.outbox.closed() => break,
                command = self.commands.recv(), if self.takes_commands() => match command {
                    Some(Command::Shutdown { done }) => return Some(done),
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some(), if !self.outbox.is_jammed() => self.on_swarm(event),
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    while let Some(timer) = self.timers.due(Instant::now()) {
                        self.on_timer(timer);
                    }
                }
            }
        }
        None
    }

    fn takes_commands(&self) -> bool {
        // The outbox counts too: an outcome that nobody has read is not done with.
        self.sends.len() < MESH_SENDS_MAX && self.queries.len() < MESH_QUERIES_MAX && !self.outbox.is_jammed()
    }

    async fn goodbye(&mut self) {
        self.fail_all_sends();
        self.outbox.flush();
        let connected: Vec<P2p> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(GOODBYE, closed).await.is_err() {
            debug!("stopped before all peers were told");
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Send { peer, id, request, deadline } => self.send(peer, id, request, deadline),
            Command::Reply { inbound, response } => self.reply(inbound, response),
            Command::FindClosest { id, key } => self.find_closest(id, &key),
            Command::GetRecord { id, key } => self.get_record(id, key),
            Command::KeepRecord { key, bytes } => self.keep_record(key, bytes),
            Command::ForgetRecord { key } => self.forget_record(key),
            Command::Dial { addr } => self.dial_addr(addr),
            Command::Disconnect { peer } => {
                if let Some(peer) = peer_id::to_libp2p(&peer) {
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            Command::Block { peer, time } => self.block(peer, time),
            Command::Peers { answer } => {
                let _ = answer.send(self.peer_infos());
            }
            Command::Missed { answer } => {
                let _ = answer.send(self.missed());
            }
            Command::Standing { answer } => {
                let _ = answer.send(self.standing());
            }
            Command::Renew => self.renew("it was asked for"),
            // Taken care of by the loop, which has to end for it.
            Command::Shutdown { .. } => {}
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Deadline(send) => self.on_deadline(send),
            Timer::Redial(index) => self.redial(index),
            Timer::Unblock(peer) => self.unblock(&peer),
            Timer::Refresh => self.on_refresh(),
            Timer::Enough(query) => self.enough(query),
            Timer::Paced(send) => self.proceed(send),
            Timer::PacedReply(inbound) => self.reply_now(inbound),
            Timer::Hangup(peer, connection) => self.hang_up(&peer, connection),
            Timer::Punch(peer) => self.punched_long_enough(peer),
            Timer::Relays => self.on_relays(),
            Timer::Again(peer) => {
                self.dial_peer(peer);
            }
            Timer::Renew => {
                self.reach.renew_timer = None;
                self.renew("the network has changed again");
            }
            Timer::Clocks => self.compare_clocks(),
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => self.on_closed(peer_id, connection_id),
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id: Some(peer), error } => {
                debug!(%peer, %error, "dial failed");
                if self.trials.has(connection_id) {
                    self.trials.forget(connection_id);
                } else {
                    self.on_dial_failed(peer, connection_id, &error);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                self.on_listening(address.clone());
                self.on_address_change(&address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.on_not_listening(&address);
                self.on_address_change(&address);
                self.let_go(&address);
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                for address in &addresses {
                    self.on_not_listening(address);
                }
                if !self.on_place_lost(listener_id, &reason) {
                    warn!(?addresses, ?reason, "a listener closed");
                }
            }
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_external(address),
            SwarmEvent::ExternalAddrExpired { address } => self.on_not_external(&address),
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "a listener failed"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        if let Some(peer) = spoke(&event) {
            self.swarm.behaviour_mut().kad.heard(&peer);
        }
        match event {
            BehaviourEvent::Shards(event) => self.on_shards(event),
            BehaviourEvent::Kad(Told::Kad(event)) => self.on_kad(*event),
            BehaviourEvent::Kad(Told::Wanted(peer)) => {
                self.dial_peer(peer);
            }
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Tried(event) => self.on_tried(&event),
            // What became of it is for those who asked.
            BehaviourEvent::Trier(_) => {}
            BehaviourEvent::Upnp(event) => self.on_router(&event),
            BehaviourEvent::Hop(event) => self.on_hop(&event),
            BehaviourEvent::Relayed(event) => self.on_relayed(event),
            BehaviourEvent::Punch(event) => self.on_punch(event),
            BehaviourEvent::Limits(never)
            | BehaviourEvent::Blocks(never)
            | BehaviourEvent::Gate(never)
            | BehaviourEvent::Whose(never) => match never {},
        }
    }

    /// Dials a peer at all addresses we know, unless that is under way; whether there is hope.
    fn dial_peer(&mut self, peer: P2p) -> bool {
        if self.dialing.contains_key(&peer) || self.peers.contains_key(&peer) {
            return true;
        }
        // There may be a trial of it, which is no connection to speak of.
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::NotDialing)
            .addresses(self.book.of(&peer))
            .extend_addresses_through_behaviour()
            .build();
        let connection = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dialing.insert(peer, connection);
                true
            }
            // Kademlia dials it already.
            Err(DialError::DialPeerConditionFalse(_)) => true,
            Err(error) => {
                debug!(%peer, %error, "cannot dial");
                self.reach.failed(peer, &error);
                false
            }
        }
    }
}

/// Who has said something that Kademlia has not heard itself.
fn spoke(event: &BehaviourEvent) -> Option<P2p> {
    match event {
        BehaviourEvent::Shards(request_response::Event::Message { peer, .. }) => Some(*peer),
        BehaviourEvent::Identify(identify::Event::Received { peer_id, .. }) => Some(*peer_id),
        BehaviourEvent::Ping(ping::Event { peer, result: Ok(_), .. }) => Some(*peer),
        _ => None,
    }
}
