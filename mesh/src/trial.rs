//! Whether anybody can reach us from outside: libp2p's autonat, kept to public addresses, and to a rate.
//!
//! Who wants to know has its addresses tried by a peer that it is connected to: that one dials it anew, says a word and
//! is done. Such a connection is a *trial*, and nothing but that word goes over it: [`Untried`] hides it from the
//! behaviour in which requests wait, because it ends soon and they would end with it.
//!
//! Invariants: only public addresses are tried, so on a machine and on a LAN nothing happens at all; at most
//! [`MESH_CANDIDATES_MAX`] of our own are, whatever peers say that they see; and we try others' at the rates of
//! [`hypernet_core::limits`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, RateLimiter};
use hypernet_core::limits::{
    MESH_CANDIDATES_MAX, MESH_TRIES_ALL_BURST, MESH_TRIES_ALL_PER_MINUTE, MESH_TRIES_BURST, MESH_TRIES_PER_MINUTE,
    PEERS_MAX,
};
use libp2p::autonat::v2::{client, server};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::address;
use crate::gate::quota;

/// Which connections are trials, known to all behaviours that must know.
#[derive(Clone, Default)]
pub(crate) struct Trials(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Under way, or up.
    connections: HashSet<ConnectionId>,
    /// Who has been asked to try us, and how often, without an answer yet.
    asked: BTreeMap<PeerId, u32>,
}

impl Trials {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is one.
    pub(crate) fn has(&self, connection: ConnectionId) -> bool {
        self.known().connections.contains(&connection)
    }

    /// It is over, and everybody has been told.
    pub(crate) fn forget(&self, connection: ConnectionId) {
        self.known().connections.remove(&connection);
    }

    fn is_asked(&self, peer: &PeerId) -> bool {
        self.known().asked.contains_key(peer)
    }
}

/// Has our addresses tried.
pub(crate) struct Tried {
    inner: client::Behaviour,
    trials: Trials,
    candidates: HashSet<Multiaddr>,
    /// Of our question, by the connection on which it was asked.
    questions: HashMap<ConnectionId, (PeerId, u32)>,
}

impl Tried {
    pub(crate) fn new(trials: Trials) -> Self {
        Self { inner: client::Behaviour::default(), trials, candidates: HashSet::new(), questions: HashMap::new() }
    }

    /// Which connections are trials.
    pub(crate) fn trials(&self) -> Trials {
        self.trials.clone()
    }

    fn asks(&mut self, connection: ConnectionId, peer: PeerId) {
        self.questions.entry(connection).or_insert((peer, 0)).1 += 1;
        *self.trials.known().asked.entry(peer).or_default() += 1;
    }

    /// So many questions have an answer, or never will.
    fn answered(&mut self, connection: ConnectionId, all: bool) {
        let Some((peer, open)) = self.questions.get_mut(&connection) else { return };
        let count = if all { *open } else { (*open).min(1) };
        *open -= count;
        let (peer, done) = (*peer, *open == 0);
        if done {
            self.questions.remove(&connection);
        }
        let mut known = self.trials.known();
        if let Some(asked) = known.asked.get_mut(&peer) {
            *asked = asked.saturating_sub(count);
            if *asked == 0 {
                known.asked.remove(&peer);
            }
        }
    }
}

impl NetworkBehaviour for Tried {
    type ConnectionHandler = THandler<client::Behaviour>;
    type ToSwarm = client::Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // Nobody who has a connection makes another, but those whom we have asked to.
        if self.trials.is_asked(&peer) {
            self.trials.known().connections.insert(connection);
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote)
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
        match &event {
            FromSwarm::NewExternalAddrCandidate(candidate) => {
                let is_new = !self.candidates.contains(candidate.addr);
                let can_be_tried = address::is_public(candidate.addr) && address::transport(candidate.addr).is_some();
                if !can_be_tried || (is_new && self.candidates.len() >= MESH_CANDIDATES_MAX) {
                    return;
                }
                self.candidates.insert(candidate.addr.clone());
            }
            FromSwarm::ConnectionClosed(closed) => self.answered(closed.connection_id, true),
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        // A connection says once that we can ask there, and after that nothing but outcomes.
        if event.is_left() {
            self.answered(connection, false);
        }
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let polled = self.inner.poll(cx);
        if let Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: Either::Left(_) }) = &polled
            && let libp2p::swarm::NotifyHandler::One(connection) = handler
        {
            self.asks(*connection, *peer_id);
        }
        polled
    }
}

/// Tries the addresses of others.
pub(crate) struct Trier {
    inner: server::Behaviour,
    trials: Trials,
    per_peer: DefaultKeyedRateLimiter<PeerId>,
    all: DefaultDirectRateLimiter,
}

impl Trier {
    pub(crate) fn new(trials: Trials) -> Self {
        Self {
            inner: server::Behaviour::default(),
            trials,
            per_peer: RateLimiter::keyed(quota(MESH_TRIES_BURST, MESH_TRIES_PER_MINUTE)),
            all: RateLimiter::direct(quota(MESH_TRIES_ALL_BURST, MESH_TRIES_ALL_PER_MINUTE)),
        }
    }

    fn may_try(&self, peer: &PeerId) -> bool {
        if self.per_peer.len() >= PEERS_MAX {
            self.per_peer.retain_recent();
        }
        self.per_peer.len() < PEERS_MAX && self.per_peer.check_key(peer).is_ok() && self.all.check().is_ok()
    }

    fn fail(&mut self, peer: Option<PeerId>, connection: ConnectionId) {
        let failure = DialFailure { peer_id: peer, error: &DialError::Aborted, connection_id: connection };
        self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
    }
}

impl NetworkBehaviour for Trier {
    type ConnectionHandler = THandler<server::Behaviour>;
    type ToSwarm = server::Event;

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        addrs: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // What others claim to be is dialed for them only where it can be theirs.
        match self.trials.has(connection) && !addrs.iter().all(address::is_public) {
            true => Err(ConnectionDenied::new("an address that is not public is not tried")),
            false => Ok(Vec::new()),
        }
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
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let polled = self.inner.poll(cx);
            let Poll::Ready(ToSwarm::Dial { opts }) = &polled else { return polled };
            let (peer, connection) = (opts.get_peer_id(), opts.connection_id());
            if peer.is_some_and(|peer| self.may_try(&peer)) {
                self.trials.known().connections.insert(connection);
                return polled;
            }
            self.fail(peer, connection);
        }
    }
}

/// Hides trials from a behaviour.
pub(crate) struct Untried<B> {
    inner: B,
    trials: Trials,
    /// Those of each peer that are up.
    hidden: HashMap<PeerId, HashSet<ConnectionId>>,
}

impl<B> Untried<B> {
    pub(crate) fn new(inner: B, trials: Trials) -> Self {
        Self { inner, trials, hidden: HashMap::new() }
    }

    fn count(&self, peer: &PeerId) -> usize {
        self.hidden.get(peer).map_or(0, HashSet::len)
    }

    /// Whether it was one of them.
    fn unhide(&mut self, peer: &PeerId, connection: ConnectionId) -> bool {
        let Some(hidden) = self.hidden.get_mut(peer) else { return false };
        let was = hidden.remove(&connection);
        if hidden.is_empty() {
            self.hidden.remove(peer);
        }
        was
    }
}

impl<B> std::ops::Deref for Untried<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B> std::ops::DerefMut for Untried<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Untried<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

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
        if self.trials.has(connection) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(connection, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.trials.has(connection) {
            return Ok(Vec::new());
        }
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
        if self.trials.has(connection) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_outbound_connection(connection, peer, addr, role, port).map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let event = match event {
            FromSwarm::ConnectionEstablished(up) if self.trials.has(up.connection_id) => {
                self.hidden.entry(up.peer_id).or_default().insert(up.connection_id);
                return;
            }
            FromSwarm::ConnectionEstablished(up) => {
                let other_established = up.other_established.saturating_sub(self.count(&up.peer_id));
                FromSwarm::ConnectionEstablished(ConnectionEstablished { other_established, ..up })
            }
            FromSwarm::ConnectionClosed(closed) => {
                if self.unhide(&closed.peer_id, closed.connection_id) {
                    return;
                }
                let remaining_established = closed.remaining_established.saturating_sub(self.count(&closed.peer_id));
                FromSwarm::ConnectionClosed(ConnectionClosed { remaining_established, ..closed })
            }
            FromSwarm::AddressChange(change) if self.trials.has(change.connection_id) => return,
            // Nobody waits for it here: whoever is dialed in a trial is connected already.
            FromSwarm::DialFailure(failure) if self.trials.has(failure.connection_id) => return,
            event => event,
        };
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, connection, event),
            Either::Right(never) => match never {},
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx).map(|event| event.map_in(Either::Left))
    }
}
