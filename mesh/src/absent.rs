//! Kademlia, told of peers that could not be reached, or said nothing, when they were last tried.
//!
//! A look-up asks whoever it hears of and has to connect to those first, and somebody who is gone keeps it waiting for
//! the timeout of a handshake, or of a request where a connection is still up: each look-up, for as long as anybody
//! remembers that peer. So to a look-up such a peer fails at once ([`Silence`]). Who is not connected the driver dials in
//! its place, beside the look-up, and who is connected is asked all the same: whoever has come back is heard a moment
//! later, and found by the next.
//!
//! Invariant: a connection, from either side, ends the absence, and so does any word.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::{Instant, Sleep};

use crate::silence::{Ask, Silence};

type Inner = kad::Behaviour<MemoryStore>;
/// What is asked of a connection, and what is heard on it.
type Asked = THandlerInEvent<Inner>;
type Heard = THandlerOutEvent<Inner>;

/// See the module.
pub(crate) struct Kademlia {
    inner: Inner,
    silence: Silence,
    /// Until the first of those that were asked may be silent.
    wake: Option<Pin<Box<Sleep>>>,
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
        Self { inner, silence: Silence::default(), wake: None }
    }

    /// It could not be reached.
    pub(crate) fn absent(&mut self, peer: PeerId) {
        self.silence.absent(peer);
    }

    /// It said something, to any part of this node.
    pub(crate) fn heard(&mut self, peer: &PeerId) {
        self.silence.heard(peer);
    }

    /// Nothing is heard of it.
    pub(crate) fn is_silent(&self, peer: &PeerId) -> bool {
        self.silence.is_silent(peer)
    }

    /// Who could not be reached says nothing of the peers when it was this node that was cut off.
    pub(crate) fn forget_absent(&mut self) {
        self.silence.forget();
    }

    fn ask(&mut self, peer: PeerId) -> Ask {
        let asked = self.silence.ask(peer, Instant::now());
        self.wake_for(self.wake.is_none());
        if asked != Ask::Wait {
            self.fail(peer);
        }
        asked
    }

    /// All who are asked have the same time, so whoever was asked first is due first.
    fn wake_for(&mut self, another: bool) {
        if another {
            self.wake = self.silence.next().map(|at| Box::pin(tokio::time::sleep_until(at)));
        }
    }

    /// No look-up waits for it any longer. Kademlia has no other way to be told.
    fn fail(&mut self, peer: PeerId) {
        let connection_id = ConnectionId::new_unchecked(0);
        let failure = DialFailure { peer_id: Some(peer), error: &DialError::Aborted, connection_id };
        self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
    }

    /// Fails those of whom nothing was heard in time.
    fn look(&mut self, cx: &mut Context<'_>) {
        while let Some(wake) = &mut self.wake
            && wake.as_mut().poll(cx).is_ready()
        {
            let due = wake.deadline();
            for peer in self.silence.look(due, Instant::now()) {
                tracing::debug!(%peer, "nothing is heard of a peer: it is not waited for until it says something");
                self.fail(peer);
            }
            self.wake_for(true);
        }
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
        match &event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, .. }) => self.silence.connected(*peer_id),
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, remaining_established: 0, .. }) => {
                self.silence.disconnected(peer_id);
            }
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), error, .. })
                if !matches!(error, DialError::DialPeerConditionFalse(_)) =>
            {
                self.silence.unanswered(peer);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        // This end says it: the time for an answer has passed, or there is no way to ask.
        let says_nothing = matches!(event, Heard::QueryError { .. } | Heard::ProtocolNotSupported { .. });
        match says_nothing {
            true => self.silence.unanswered(&peer),
            false => self.silence.heard(&peer),
        }
        self.inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            self.look(cx);
            let Poll::Ready(event) = self.inner.poll(cx) else { return Poll::Pending };
            let asked = match &event {
                ToSwarm::Dial { opts } => opts.get_peer_id(),
                ToSwarm::NotifyHandler { peer_id, event, .. } => is_asked(event).then_some(*peer_id),
                _ => None,
            };
            match (asked.map(|peer| (peer, self.ask(peer))), event) {
                (Some((peer, Ask::Try | Ask::Spare)), ToSwarm::Dial { .. }) => {
                    self.silence.unanswered(&peer);
                    return Poll::Ready(ToSwarm::GenerateEvent(Told::Wanted(peer)));
                }
                (Some((_, Ask::Spare)), _) => {}
                (_, event) => return Poll::Ready(event.map_out(|event| Told::Kad(Box::new(event)))),
            }
        }
    }
}

/// Whether it is to be answered.
fn is_asked(event: &Asked) -> bool {
    matches!(event, Asked::FindNodeReq { .. } | Asked::GetRecord { .. })
}
