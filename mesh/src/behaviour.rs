//! The libp2p behaviours and how they are configured.
//!
//! Invariant: the three behaviours that may refuse a connection come first in the struct. libp2p asks them in that
//! order, and one that was asked before the refusal would go on believing in a connection that never was. Those that
//! know which connection is a trial come before all that must know, and `whose` comes just before `shards`, which it
//! tells whose connection it is asked about.

use std::convert::Infallible;
use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hypernet_core::id::NetworkId;
use hypernet_core::limits::{
    MESH_CONNECTIONS_MAX, MESH_CONNECTIONS_PENDING, MESH_CONNECTIONS_PER_PEER, MESH_STREAMS_PER_CONNECTION, RECORD_MAX,
    RECORDS_STORED_MAX, RELAY_ASKS_BURST, RELAY_ASKS_EVERY_SECONDS,
};
use libp2p::allow_block_list::{self, BlockedPeers};
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, dcutr, identify, kad, mdns, noise, ping, relay, tcp, upnp,
    yamux,
};

use crate::RelayLimits;
use crate::absent::Kademlia;
use crate::codec::{Budget, ShardCodec};
use crate::gate::Gate;
use crate::pace::Shared;
use crate::trial::{Trials, Tried, Trier, Untried};

/// No request may take longer than this, in or out.
pub(crate) const LONGEST_REQUEST: Duration = Duration::from_secs(120);
/// Nothing closes an idle connection in ordinary life: peers of a mesh stay connected.
const IDLE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(3);
/// After this long without a sign of life a peer is gone; a killed one says no goodbye.
const QUIC_IDLE_MS: u32 = 10_000;
/// How often it is measured how far away a peer is, and how long that may take. It tells what a TCP connection does not.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// At least one full body must fit, or its sender waits a round trip for each window.
const QUIC_STREAM_WINDOW: u32 = 8 << 20;
const QUIC_CONNECTION_WINDOW: u32 = 16 << 20;
/// Who hears any answer on a LAN stops asking until this has passed. Peers that start in one moment can each have asked
/// before the other could answer, and then meet no sooner. Of all peers on the LAN one asks, and all hear what it is told.
const MDNS_QUERY_INTERVAL: Duration = Duration::from_secs(15);
const RECORD_QUERY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a place at a relay is good for; it is renewed before that.
const RESERVATION: Duration = Duration::from_secs(3600);
/// Peers that may live behind one address of a provider, as far as the rates of a relay go.
const HOUSEHOLD: NonZeroU32 = NonZeroU32::new(4).unwrap();
/// Disjoint paths of a look-up, each with a peer of its own to start from, the closest ones. A liar can lead its path
/// to peers that do not exist and never answer, so more than so many must lie, or an honest one is heard in time.
const PATHS: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// The names under which peers of one network know each other.
#[derive(Clone)]
pub(crate) struct Names {
    /// The shard protocol.
    pub(crate) shard: StreamProtocol,
    /// Kademlia.
    pub(crate) kad: StreamProtocol,
    /// What identify says of the network.
    pub(crate) identify: String,
}

impl Names {
    pub(crate) fn new(network: NetworkId) -> io::Result<Self> {
        let network = network.to_base32();
        let name = |what: &str| {
            StreamProtocol::try_from_owned(format!("/hypernet/{network}/{what}/1")).map_err(io::Error::other)
        };
        Ok(Self { shard: name("shard")?, kad: name("kad")?, identify: format!("/hypernet/{network}/1") })
    }
}

/// All that a mesh speaks.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) blocks: allow_block_list::Behaviour<BlockedPeers>,
    pub(crate) gate: Gate,
    pub(crate) tried: Tried,
    pub(crate) trier: Trier,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) kad: Kademlia,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) upnp: Toggle<upnp::tokio::Behaviour>,
    pub(crate) hop: relay::Behaviour,
    pub(crate) relayed: relay::client::Behaviour,
    pub(crate) punch: dcutr::Behaviour,
    pub(crate) whose: Whose,
    pub(crate) shards: Untried<request_response::Behaviour<ShardCodec>>,
}

/// Does nothing on the network; see [`Budget::expect`].
pub(crate) struct Whose(Arc<Budget>);

impl NetworkBehaviour for Whose {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0.expect(peer);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0.expect(peer);
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: THandlerOutEvent<Self>) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

fn limits() -> ConnectionLimits {
    let some = |n: usize| Some(n as u32);
    ConnectionLimits::default()
        .with_max_pending_incoming(some(MESH_CONNECTIONS_PENDING))
        .with_max_pending_outgoing(some(MESH_CONNECTIONS_PENDING))
        // A quarter is kept for peers that we choose, or strangers could shut us off from all of them.
        .with_max_established_incoming(some(MESH_CONNECTIONS_MAX / 4 * 3))
        .with_max_established(some(MESH_CONNECTIONS_MAX))
        .with_max_established_per_peer(some(MESH_CONNECTIONS_PER_PEER))
}

fn kademlia(key: &Keypair, names: &Names) -> kad::Behaviour<MemoryStore> {
    let me = key.public().to_peer_id();
    let store = MemoryStoreConfig {
        // As on disk: what the node no longer holds may leave here later.
        max_records: RECORDS_STORED_MAX,
        // The store refuses values of this length and above.
        max_value_bytes: RECORD_MAX + 1,
        max_providers_per_key: 0,
        max_provided_keys: 0,
    };
    let mut config = kad::Config::new(names.kad.clone());
    config
        // Kademlia's k, which is 20.
        .set_replication_factor(kad::K_VALUE)
        .disjoint_query_paths(true)
        .set_parallelism(PATHS)
        .set_query_timeout(RECORD_QUERY_TIMEOUT)
        // Records have no end here and are never republished by libp2p: the node does that with verified ones.
        .set_record_ttl(None)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_record_ttl(None)
        .set_provider_publication_interval(None)
        // Nothing that is put is stored, and nobody provides anything: whoever does either is reported.
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_caching(kad::Caching::Disabled);
    let mut kad = kad::Behaviour::with_config(me, MemoryStore::with_config(me, store), config);
    kad.set_mode(Some(kad::Mode::Server));
    kad
}

/// A relay for others. It is one only while [`crate::driver`] says that others can reach it.
fn hop(me: PeerId, limits: &RelayLimits) -> relay::Behaviour {
    let asks = NonZeroU32::new(RELAY_ASKS_BURST).unwrap_or(NonZeroU32::MIN);
    let every = Duration::from_secs(RELAY_ASKS_EVERY_SECONDS);
    let config = relay::Config {
        max_reservations: limits.reservations,
        max_reservations_per_peer: limits.reservations_per_peer,
        reservation_duration: RESERVATION,
        reservation_rate_limiters: Vec::new(),
        max_circuits: limits.circuits,
        max_circuits_per_peer: limits.circuits_per_peer,
        max_circuit_duration: limits.circuit_time,
        max_circuit_bytes: limits.circuit_bytes,
        circuit_src_rate_limiters: Vec::new(),
    };
    let config = config
        .reservation_rate_per_peer(asks, every)
        .reservation_rate_per_ip(asks.saturating_mul(HOUSEHOLD), every / HOUSEHOLD.get())
        .circuit_src_per_peer(asks, every)
        .circuit_src_per_ip(asks.saturating_mul(HOUSEHOLD), every / HOUSEHOLD.get());
    let mut hop = relay::Behaviour::new(me, config);
    // By itself it would count an address over another relay, too.
    hop.set_status(Some(relay::Status::Disable));
    hop
}

fn behaviour(key: &Keypair, names: &Names, with: &With, relayed: relay::client::Behaviour) -> Behaviour {
    let me = key.public().to_peer_id();
    let config = mdns::Config { query_interval: MDNS_QUERY_INTERVAL, ..mdns::Config::default() };
    let mdns = with.mdns.then(|| mdns::tokio::Behaviour::new(config, me)).and_then(|mdns| {
        // Finding neighbours is a convenience; where it is forbidden the mesh still works.
        mdns.inspect_err(|error| tracing::warn!(%error, "cannot look for peers on the local network")).ok()
    });
    let shards = request_response::Config::default()
        .with_request_timeout(LONGEST_REQUEST)
        .with_max_concurrent_streams(MESH_STREAMS_PER_CONNECTION);
    let codec = ShardCodec::new(with.down.clone());
    let trials = Trials::default();
    let whose = Whose(codec.budget());
    let shards = request_response::Behaviour::with_codec(codec, [(names.shard.clone(), ProtocolSupport::Full)], shards);
    Behaviour {
        limits: connection_limits::Behaviour::new(limits()),
        blocks: allow_block_list::Behaviour::default(),
        gate: Gate::new(),
        tried: Tried::new(trials.clone()),
        trier: Trier::new(trials.clone()),
        identify: identify::Behaviour::new(
            identify::Config::new(names.identify.clone(), key.public())
                .with_agent_version(concat!("hypernet/", env!("CARGO_PKG_VERSION")).to_owned())
                .with_push_listen_addr_updates(true)
                // Its cache would dial addresses that nobody has checked.
                .with_cache_size(0),
        ),
        ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT)),
        kad: Kademlia::new(kademlia(key, names)),
        mdns: mdns.into(),
        upnp: with.upnp.then(upnp::tokio::Behaviour::default).into(),
        hop: hop(me, &with.relay),
        relayed,
        punch: dcutr::Behaviour::new(me),
        whose,
        shards: Untried::new(shards, trials),
    }
}

/// What a swarm does beside its protocols.
pub(crate) struct With {
    /// See [`crate::MeshConfig`].
    pub(crate) mdns: bool,
    /// See [`crate::MeshConfig`].
    pub(crate) upnp: bool,
    /// See [`crate::MeshConfig`].
    pub(crate) relay: RelayLimits,
    /// Of what others send without having been asked.
    pub(crate) down: Shared,
}

/// A swarm that listens nowhere yet.
pub(crate) fn swarm(key: Keypair, names: &Names, with: &With) -> io::Result<Swarm<Behaviour>> {
    let builder = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(io::Error::other)?
        .with_quic_config(|mut quic| {
            quic.keep_alive_interval = QUIC_KEEP_ALIVE;
            quic.max_idle_timeout = QUIC_IDLE_MS;
            quic.max_stream_data = QUIC_STREAM_WINDOW;
            quic.max_connection_data = QUIC_CONNECTION_WINDOW;
            quic
        })
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .map_err(io::Error::other)?
        .with_behaviour(|key, relayed| behaviour(key, names, with, relayed))
        .map_err(io::Error::other)?;
    Ok(builder
        // Smart dialing prefers QUIC and gives TCP its turn a moment later.
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE).with_smart_dial())
        .with_connection_timeout(CONNECT_TIMEOUT)
        .build())
}
