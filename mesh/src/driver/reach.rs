//! How others reach us, and how each connection came about.
//!
//! Whoever is behind a router that lets nobody in is to be met at relays: peers that others can reach. Once two have
//! met there, both open their routers at the same moment (hole punching), and go on without the relay. What is to be
//! sent waits a little for that ([`PUNCH_PATIENCE`]), because a relay carries little.
//!
//! Invariants: this node is a relay only while it has a public address at which others have reached it, and looks for
//! relays only while it is known to have none. A circuit is given no more than its relay lets through: what can never
//! fit is refused, and before a circuit is used up a new one is made.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use hypernet_core::limits::{MESH_ABSENT_MAX, MESH_EXTERNAL_MAX, MESH_RELAYS_USED};
use libp2p::autonat::v2::client;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{dcutr, relay, upnp};

use super::*;
use crate::{Path, Reachability};

/// How long what is to be sent waits for hole punching: several round trips around the world.
const PUNCH_PATIENCE: Duration = Duration::from_secs(5);
/// How long a trial may take.
const TRIAL: Duration = Duration::from_secs(10);
/// After a relay has refused us, or was lost.
const RELAYS_AGAIN: Duration = Duration::from_secs(15);
/// What encryption, multiplexing and headers add to a body, at most.
const OVERHEAD: u64 = 16 << 10;

/// A port: any will do.
const DISCARD: u16 = 9;

/// How a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    Punched,
    /// Over this one, where it is known.
    Relayed(Option<P2p>),
}

/// One connection of a peer.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    /// The remote end, with `/p2p`.
    pub(super) addr: Multiaddr,
    pub(super) way: Way,
    /// By us.
    pub(super) dialed: bool,
    /// Bytes that went over it, about; counted only over a relay.
    used: u64,
    /// Our own address that carries it. It does not outlive that.
    pub(super) from: Option<IpAddr>,
}

impl Link {
    pub(super) fn is_relayed(&self) -> bool {
        matches!(self.way, Way::Relayed(_))
    }

    pub(super) fn is_punched(&self) -> bool {
        self.way == Way::Punched
    }

    /// What carries it, or carries it to its relay.
    pub(super) fn transport(&self) -> crate::Transport {
        let to_relay = || address::transport(&address::relay(&self.addr)?.0);
        address::transport(&self.addr).or_else(to_relay).unwrap_or(crate::Transport::Quic)
    }
}

/// What hole punching with a peer has come to.
enum Punch {
    /// Until this timer it is waited for.
    UnderWay(timers::Key),
    /// Why it did not work.
    Failed(String),
}

/// What is known of a peer that is not connected.
#[derive(Default)]
struct Last {
    seen: Option<std::time::Instant>,
    failed: Option<(std::time::Instant, String)>,
}

/// See the module.
pub(super) struct Reach {
    verdict: Reachability,
    /// Public addresses at which others have reached us, the newest last.
    external: Vec<Multiaddr>,
    /// Places at relays that we have, or have asked for.
    places: HashMap<ListenerId, (P2p, bool)>,
    /// Relays that have refused us, or were lost, until they are asked again.
    refused: BTreeSet<P2p>,
    /// Connected peers that say that they are relays.
    hops: BTreeSet<P2p>,
    relays_timer: Option<timers::Key>,
    punches: HashMap<P2p, Punch>,
    /// Bytes that a circuit may carry, by the relay, or by the peer that came over it.
    carries: HashMap<P2p, u64>,
    /// Peers that have a place at us.
    hosted: BTreeSet<P2p>,
    router: Option<&'static str>,
    missed: BTreeMap<P2p, Last>,
    pub(super) renewed: Option<Instant>,
    pub(super) renew_timer: Option<timers::Key>,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            verdict: Reachability::Unknown,
            external: Vec::new(),
            places: HashMap::new(),
            refused: BTreeSet::new(),
            hops: BTreeSet::new(),
            relays_timer: None,
            punches: HashMap::new(),
            carries: HashMap::new(),
            hosted: BTreeSet::new(),
            router: None,
            missed: BTreeMap::new(),
            renewed: None,
            renew_timer: None,
        }
    }
}

impl Reach {
    /// A peer could not be dialed.
    pub(super) fn failed(&mut self, peer: P2p, error: &DialError) {
        if let Some(why) = words(error) {
            self.missed(peer).failed = Some((std::time::Instant::now(), why));
        }
    }

    /// Whether a peer was there until so long ago.
    pub(super) fn was_here(&self, peer: &P2p, ago: Duration) -> bool {
        self.missed.get(peer).and_then(|last| last.seen).is_some_and(|seen| seen.elapsed() < ago)
    }

    /// A peer is gone, that was there until now.
    pub(super) fn gone(&mut self, peer: P2p) {
        self.missed(peer).seen = Some(std::time::Instant::now());
        self.hops.remove(&peer);
        self.carries.remove(&peer);
    }

    fn missed(&mut self, peer: P2p) -> &mut Last {
        if self.missed.len() >= MESH_ABSENT_MAX && !self.missed.contains_key(&peer) {
            self.missed.pop_first();
        }
        self.missed.entry(peer).or_default()
    }
}

/// Why a peer could not be dialed; none when it was not tried.
fn words(error: &DialError) -> Option<String> {
    match error {
        DialError::DialPeerConditionFalse(_) => None,
        DialError::NoAddresses => Some("no address of it is known".to_owned()),
        DialError::Aborted => Some("the attempt was given up".to_owned()),
        DialError::WrongPeerId { address, .. } => {
            Some(format!("somebody else answers at {}", address::split(address).0))
        }
        DialError::LocalPeerId { address } => Some(format!("{} is this peer itself", address::split(address).0)),
        DialError::Denied { cause } => Some(deepest(cause)),
        DialError::Transport(tried) => {
            let (addr, error) = tried.last()?;
            let at = match address::relay(addr) {
                Some((bare, _)) => format!("the relay at {bare}"),
                None => address::split(addr).0.to_string(),
            };
            let others = match tried.len() {
                0 | 1 => String::new(),
                n => format!(" (and at {} more)", n - 1),
            };
            Some(format!("no answer at {at}{others}: {}", deepest(error)))
        }
    }
}

/// The cause of a cause says what happened; those before it only where.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    // libp2p puts several attempts on several lines.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Which of our addresses what goes there comes from. Nothing is sent for that.
fn source(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, DISCARD)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The relay in the address of a connection over one.
fn relay_in(addr: &Multiaddr) -> Option<P2p> {
    let before = addr.iter().take_while(|part| *part != Protocol::P2pCircuit);
    before.filter_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None }).last()
}

impl Driver {
    /// What there is to know of a new connection.
    pub(super) fn link(&self, p2p: P2p, id: ConnectionId, endpoint: &ConnectedPoint) -> Link {
        let (dialed, way, addr) = match endpoint {
            ConnectedPoint::Dialer { address, .. } if endpoint.is_relayed() => {
                (true, Way::Relayed(relay_in(address)), address.clone())
            }
            ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => {
                let host = address::ip(local_addr);
                let by_host = || {
                    let mut places = self.reach.places.values().map(|(relay, _)| *relay);
                    places.find(|relay| self.peers.get(relay).is_some_and(|peer| peer.is_at(host)))
                };
                let relay = relay_in(local_addr).or_else(by_host);
                (false, Way::Relayed(relay), local_addr.clone())
            }
            endpoint => (endpoint.is_dialer(), Way::Direct, endpoint.get_remote_address().clone()),
        };
        let from = if way == Way::Direct { address::ip(&addr).and_then(source) } else { None };
        Link { id, addr: address::join(&addr, p2p), way, dialed, used: 0, from }
    }

    /// Whether what is to be sent to a peer waits for hole punching.
    pub(super) fn waits_for_punch(&self, p2p: &P2p) -> bool {
        matches!(self.reach.punches.get(p2p), Some(Punch::UnderWay(_)))
    }

    /// Two have met over a relay.
    pub(super) fn await_punch(&mut self, p2p: P2p) {
        // Where it did not work a moment ago nothing waits for it again, though it is tried.
        if !self.reach.punches.contains_key(&p2p) {
            if self.reach.punches.len() >= MESH_ABSENT_MAX {
                self.forget_punches();
            }
            let timer = self.timers.set(Instant::now() + PUNCH_PATIENCE, Timer::Punch(p2p));
            self.reach.punches.insert(p2p, Punch::UnderWay(timer));
        }
    }

    /// It works without the relay, or nobody is there any more.
    pub(super) fn end_punch(&mut self, p2p: &P2p) {
        if let Some(Punch::UnderWay(timer)) = self.reach.punches.remove(p2p) {
            self.timers.cancel(timer);
        }
    }

    /// Nobody is there any more to wait for it with.
    pub(super) fn stop_waiting(&mut self, p2p: &P2p) {
        if self.waits_for_punch(p2p) {
            self.end_punch(p2p);
        }
    }

    /// What has not worked may work now.
    pub(super) fn forget_punches(&mut self) {
        self.reach.punches.retain(|_, punch| matches!(punch, Punch::UnderWay(_)));
    }

    fn punch_failed(&mut self, p2p: P2p, why: String) {
        if !self.peers.get(&p2p).is_some_and(Connected::is_relayed) {
            return;
        }
        self.end_punch(&p2p);
        debug!(peer = %p2p, why, "hole punching failed");
        self.reach.punches.insert(p2p, Punch::Failed(why));
        self.moved(&p2p);
        self.give_waiting(p2p);
    }

    pub(super) fn punched_long_enough(&mut self, p2p: P2p) {
        if self.waits_for_punch(&p2p) {
            self.punch_failed(p2p, format!("nothing came of it in {} seconds", PUNCH_PATIENCE.as_secs()));
        }
    }

    pub(super) fn on_punch(&mut self, event: dcutr::Event) {
        let p2p = event.remote_peer_id;
        match event.result {
            Ok(connection) => {
                let links = self.peers.get_mut(&p2p).map(|peer| peer.links.iter_mut());
                if let Some(link) = links.into_iter().flatten().find(|link| link.id == connection)
                    && !link.is_punched()
                {
                    link.way = Way::Punched;
                    self.moved(&p2p);
                }
            }
            Err(error) => self.punch_failed(p2p, deepest(&error)),
        }
    }

    /// Tells how a peer is reached now.
    pub(super) fn moved(&mut self, p2p: &P2p) {
        let Some(peer) = self.peers.get(p2p) else { return };
        if let Some(link) = peer.links.last() {
            let (peer, path, why) = (peer.id, Self::path(link), self.why(p2p, link));
            self.outbox.tell_if_room(MeshEvent::Moved { peer, path, why });
        }
    }

    /// A dial to somebody who is met over a relay has failed: it was to open the routers.
    pub(super) fn on_punch_dial_failed(&mut self, p2p: P2p, error: &DialError) {
        // There are more attempts to come, and each says why.
        if let (Some(Punch::Failed(said)), Some(why)) = (self.reach.punches.get_mut(&p2p), words(error)) {
            *said = why;
        }
    }

    /// A trial is under way: nothing that the owner hears of.
    pub(super) fn on_trial(&mut self, p2p: P2p, connection: ConnectionId) {
        self.timers.set(Instant::now() + TRIAL, Timer::Hangup(p2p, connection));
    }

    pub(super) fn hang_up(&mut self, p2p: &P2p, connection: ConnectionId) {
        if self.trials.has(connection) {
            debug!(peer = %p2p, "a trial is over");
            self.swarm.close_connection(connection);
        }
    }

    pub(super) fn on_tried(&mut self, event: &client::Event) {
        match &event.result {
            Ok(()) => debug!(addr = %event.tested_addr, by = %event.server, "others can reach us"),
            Err(error) => {
                debug!(addr = %event.tested_addr, by = %event.server, %error, "others cannot reach us");
                if self.reach.external.is_empty() {
                    self.reach.verdict = Reachability::Private;
                    self.look_for_relays();
                }
            }
        }
    }

    /// Somebody has reached us at an address of one of our own interfaces: no trial can say more.
    pub(super) fn on_observed(&mut self, p2p: &P2p, connection: ConnectionId, observed: &Multiaddr) {
        let Some(link) = self.peers.get(p2p).and_then(|peer| peer.links.iter().find(|link| link.id == connection))
        else {
            return;
        };
        let came_by_itself = !link.dialed && link.way == Way::Direct && !self.reach.punches.contains_key(p2p);
        let ours = self.swarm.listeners().any(|addr| addr == observed);
        if came_by_itself && ours && address::is_public(observed) && address::is_public(&link.addr) {
            self.swarm.add_external_address(observed.clone());
            self.on_external(observed.clone());
        }
    }

    /// Others can reach us there.
    pub(super) fn on_external(&mut self, addr: Multiaddr) {
        if !address::is_public(&addr) || address::transport(&addr).is_none() || self.reach.external.contains(&addr) {
            return;
        }
        if self.reach.external.len() >= MESH_EXTERNAL_MAX {
            let oldest = self.reach.external.remove(0);
            self.swarm.remove_external_address(&oldest);
            self.on_not_listening(&oldest);
        }
        debug!(%addr, "others can reach us here");
        self.reach.external.push(addr.clone());
        self.on_listening(addr);
        if self.reach.verdict != Reachability::Public {
            self.reach.verdict = Reachability::Public;
            self.swarm.behaviour_mut().hop.set_status(Some(relay::Status::Enable));
            for (place, _) in std::mem::take(&mut self.reach.places) {
                self.swarm.remove_listener(place);
            }
        }
    }

    pub(super) fn on_not_external(&mut self, addr: &Multiaddr) {
        let before = self.reach.external.len();
        self.reach.external.retain(|known| known != addr);
        if self.reach.external.len() == before {
            return;
        }
        if !self.swarm.listeners().any(|known| known == addr) {
            self.on_not_listening(addr);
        }
        if self.reach.external.is_empty() {
            self.reach.verdict = Reachability::Unknown;
            self.swarm.behaviour_mut().hop.set_status(Some(relay::Status::Disable));
        }
    }

    pub(super) fn on_router(&mut self, event: &upnp::Event) {
        let says = match event {
            upnp::Event::NewExternalAddr { .. } => "it lets others in (UPnP)",
            upnp::Event::ExpiredExternalAddr { .. } => "it lets others in no longer (UPnP)",
            upnp::Event::GatewayNotFound => "it cannot be asked to let others in (no UPnP)",
            upnp::Event::NonRoutableGateway => "it is itself behind another one (UPnP)",
        };
        debug!(says, "the router");
        self.reach.router = Some(says);
    }

    pub(super) fn on_hop(&mut self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                self.reach.hosted.insert(*src_peer_id);
            }
            relay::Event::ReservationClosed { src_peer_id } | relay::Event::ReservationTimedOut { src_peer_id } => {
                self.reach.hosted.remove(src_peer_id);
            }
            event => debug!(?event, "as a relay"),
        }
    }

    /// Whether a peer says that it is a relay.
    pub(super) fn on_hop_known(&mut self, p2p: P2p, is_hop: bool) {
        let is_new = if is_hop { self.reach.hops.insert(p2p) } else { self.reach.hops.remove(&p2p) };
        if is_hop && is_new {
            self.look_for_relays();
        }
    }

    /// Takes places at relays, if nobody can reach us otherwise.
    pub(super) fn look_for_relays(&mut self) {
        if self.reach.verdict != Reachability::Private {
            return;
        }
        let taken: BTreeSet<P2p> = self.reach.places.values().map(|(relay, _)| *relay).collect();
        let is_free = |p2p: &&P2p| !taken.contains(*p2p) && !self.reach.refused.contains(*p2p);
        let mut found: Vec<(Option<Duration>, P2p, Multiaddr)> = Vec::new();
        for p2p in self.reach.hops.iter().filter(is_free) {
            let Some(peer) = self.peers.get(p2p) else { continue };
            let known = peer.links.iter().filter(|link| link.way == Way::Direct && link.dialed);
            let dialable =
                known.map(|link| address::split(&link.addr).0).find(|addr| address::transport(addr).is_some());
            found.extend(dialable.map(|addr| (peer.rtt, *p2p, addr)));
        }
        // The nearest first; whoever has not been measured yet comes last.
        found.sort_by_key(|(rtt, p2p, _)| (rtt.unwrap_or(Duration::MAX), *p2p));
        for (_, p2p, addr) in found.into_iter().take(MESH_RELAYS_USED.saturating_sub(taken.len())) {
            let place = address::join(&addr, p2p).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(place) {
                Ok(listener) => {
                    debug!(relay = %p2p, "asking for a place at a relay");
                    self.reach.places.insert(listener, (p2p, false));
                }
                Err(error) => {
                    debug!(relay = %p2p, %error, "cannot ask for a place at a relay");
                    self.reach.refused.insert(p2p);
                    self.look_again();
                }
            }
        }
    }

    fn look_again(&mut self) {
        if self.reach.relays_timer.is_none() {
            let timer = self.timers.set(Instant::now() + RELAYS_AGAIN, Timer::Relays);
            self.reach.relays_timer = Some(timer);
        }
    }

    pub(super) fn on_relays(&mut self) {
        self.reach.relays_timer = None;
        self.reach.refused.clear();
        self.look_for_relays();
    }

    /// Whether it was a place at a relay that is gone.
    pub(super) fn on_place_lost(&mut self, listener: ListenerId, reason: &Result<(), io::Error>) -> bool {
        let Some((relay, _)) = self.reach.places.remove(&listener) else {
            // One that we have given up ourselves ends without a reason.
            return reason.is_ok();
        };
        debug!(%relay, ?reason, "a place at a relay is gone");
        self.reach.refused.insert(relay);
        self.look_for_relays();
        self.look_again();
        true
    }

    pub(super) fn on_relayed(&mut self, event: relay::client::Event) {
        use relay::client::Event;
        let (p2p, limit) = match event {
            Event::ReservationReqAccepted { relay_peer_id, limit, .. } => {
                for (relay, has) in self.reach.places.values_mut() {
                    *has |= *relay == relay_peer_id;
                }
                (relay_peer_id, limit)
            }
            Event::OutboundCircuitEstablished { relay_peer_id, limit } => (relay_peer_id, limit),
            Event::InboundCircuitEstablished { src_peer_id, limit } => (src_peer_id, limit),
        };
        // A relay says zero where there is no limit.
        match limit.and_then(|limit| limit.data_in_bytes()).filter(|bytes| *bytes > 0) {
            Some(bytes) if self.reach.carries.len() < PEERS_MAX => {
                self.reach.carries.insert(p2p, bytes);
            }
            _ => {
                self.reach.carries.remove(&p2p);
            }
        }
    }

    /// Counts bytes that are about to go over a relay. An error says how many bytes it carries where these can never fit;
    /// `false`, that they do not fit any more.
    pub(super) fn fits(&mut self, p2p: &P2p, bytes: usize) -> Result<bool, u64> {
        let Some(peer) = self.peers.get_mut(p2p) else { return Ok(true) };
        let Some(link) = peer.links.last_mut() else { return Ok(true) };
        let Way::Relayed(relay) = link.way else { return Ok(true) };
        let carries = &self.reach.carries;
        let limit = carries.get(p2p).or_else(|| carries.get(&relay?)).copied();
        let bytes = bytes as u64 + bytes as u64 / 64 + OVERHEAD;
        let Some(limit) = limit else { return Ok(true) };
        if bytes > limit {
            return Err(limit);
        }
        if link.used + bytes > limit {
            return Ok(false);
        }
        link.used += bytes;
        Ok(true)
    }

    /// Bytes have come, or are asked for, over a connection.
    pub(super) fn used(&mut self, p2p: &P2p, bytes: usize) {
        if let Some(link) = self.peers.get_mut(p2p).and_then(|peer| peer.links.last_mut()) {
            link.used += bytes as u64;
        }
    }

    /// In words why a connection is as it is.
    pub(super) fn why(&self, p2p: &P2p, link: &Link) -> String {
        let by = if link.dialed { "dialed by us" } else { "dialed by it" };
        match link.way {
            Way::Direct if address::is_loopback(&link.addr) => format!("on this machine, {by}"),
            Way::Direct if !address::is_public(&link.addr) => format!("on the same network, {by}"),
            Way::Direct => format!("over the internet, {by}"),
            Way::Punched => "both routers were opened at the same moment".to_owned(),
            Way::Relayed(_) => match self.reach.punches.get(p2p) {
                Some(Punch::Failed(why)) => format!("hole punching failed: {why}"),
                _ => "hole punching is under way".to_owned(),
            },
        }
    }

    pub(super) fn path(link: &Link) -> Path {
        match link.way {
            Way::Direct => Path::Direct,
            Way::Punched => Path::HolePunched,
            Way::Relayed(relay) => Path::Relayed(relay.and_then(|relay| peer_id::from_libp2p(&relay))),
        }
    }

    pub(super) fn missed(&self) -> Vec<Missed> {
        let gone = self.reach.missed.iter().filter(|(p2p, _)| !self.peers.contains_key(*p2p));
        let told = gone.filter_map(|(p2p, last)| {
            Some(Missed { peer: peer_id::from_libp2p(p2p)?, seen: last.seen, failed: last.failed.clone() })
        });
        let mut missed: Vec<Missed> = told.collect();
        missed.sort_unstable_by_key(|missed| missed.peer);
        missed
    }

    pub(super) fn standing(&self) -> Standing {
        let places = self.reach.places.values().filter(|(_, has)| *has);
        Standing {
            reachability: self.reach.verdict,
            external: self.reach.external.clone(),
            relays: places.filter_map(|(relay, _)| peer_id::from_libp2p(relay)).collect(),
            hosted: self.reach.hosted.len(),
            router: self.reach.router,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_is_told_in_words() {
        let peer = P2p::random();
        let at: Multiaddr = "/ip4/192.0.2.1/tcp/4001".parse().unwrap();
        let refused = || libp2p::TransportError::Other(io::Error::new(io::ErrorKind::ConnectionRefused, "refused"));
        let tried = DialError::Transport(vec![(at.clone(), refused()), (address::join(&at, peer), refused())]);
        let told = words(&tried).unwrap();
        assert_eq!(told, "no answer at /ip4/192.0.2.1/tcp/4001 (and at 1 more): refused");
        let over = address::join(&at, peer).with(Protocol::P2pCircuit).with(Protocol::P2p(P2p::random()));
        let told = words(&DialError::Transport(vec![(over.clone(), refused())])).unwrap();
        assert_eq!(told, "no answer at the relay at /ip4/192.0.2.1/tcp/4001: refused");
        assert_eq!(words(&DialError::NoAddresses).unwrap(), "no address of it is known");
        assert_eq!(relay_in(&over), Some(peer));
        assert_eq!(relay_in(&"/p2p-circuit".parse().unwrap()), None);
    }

    #[test]
    fn no_more_peers_are_missed_than_there_is_room_for() {
        let mut reach = Reach::default();
        for _ in 0..MESH_ABSENT_MAX + 10 {
            reach.failed(P2p::random(), &DialError::NoAddresses);
        }
        assert_eq!(reach.missed.len(), MESH_ABSENT_MAX);
        let peer = P2p::random();
        assert!(!reach.was_here(&peer, Duration::from_secs(60)));
        reach.gone(peer);
        assert!(reach.was_here(&peer, Duration::from_secs(60)));
    }

    #[test]
    fn what_goes_to_this_machine_comes_from_it() {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(source(here), Some(here));
    }
}
