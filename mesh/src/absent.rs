//! Kademlia, told of peers that could not be reached when they were last tried.
//!
//! A look-up asks whoever it hears of and has to connect to those first, and somebody who is gone keeps it waiting for
//! the timeout of a handshake: each look-up, for as long as anybody remembers that peer. So a look-up's dial of such a
//! peer fails at once, and the driver dials in its place, beside the look-up: whoever has come back is connected a
//! moment later, and found by the next.
//!
//! Invariant: a connection, from either side, ends the absence.

use std::collections::HashSet;
use std::ops::{Deref, DerefMut};
use std::task::{Context, Poll};

use hypernet_core::limits::MESH_ABSENT_MAX;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::behaviour::{ConnectionEstablished, DialFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

type Inner = kad::Behaviour<MemoryStore>;

/// See the module.
pub(crate) struct Kademlia {
    inner: Inner,
    gone: HashSet<PeerId>,
}

/// What it tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// Kademlia itself.
    Kad(Box<kad::Event>),
    /// A look-up wants this peer, and does not wait for it.
    Wanted(PeerId),
}

impl Kademlia {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner, gone: HashSet::new() }
    }

    /// It could not be reached.
    pub(crate) fn absent(&mut self, peer: PeerId) {
        if self.gone.len() >= MESH_ABSENT_MAX {
            // Each costs a look-up one timeout more.
            self.gone.clear();
        }
        self.gone.insert(peer);
    }

    /// Who could not be reached says nothing of the peers when it was this node that was cut off.
    pub(crate) fn forget_absent(&mut self) {
        self.gone.clear();
    }
}

impl Deref for Kademlia {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Kademlia {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl NetworkBehaviour for Kademlia {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Told;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(connection, peer, addrs, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection, peer, addr, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, .. }) = &event {
            self.gone.remove(peer_id);
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|event| match event {
            ToSwarm::Dial { opts } if opts.get_peer_id().is_some_and(|peer| self.gone.contains(&peer)) => {
                let (peer_id, connection_id) = (opts.get_peer_id(), opts.connection_id());
                let failure = DialFailure { peer_id, error: &DialError::Aborted, connection_id };
                self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
                peer_id.map_or(ToSwarm::Dial { opts }, |peer| ToSwarm::GenerateEvent(Told::Wanted(peer)))
            }
            other => other.map_out(|event| Told::Kad(Box::new(event))),
        })
    }
}
