//! Who is connected, and staying connected.
//!
//! Invariants: the owner hears of a peer only once it has shown that it belongs to this network, by identify or by
//! speaking a protocol that carries the network's id, and only such a peer's addresses enter the routing table. A
//! lost bootstrap peer is dialed again for ever, ever less often. In a small mesh everybody finds everybody: a
//! look-up of one's own id visits all of its peers, and is repeated, ever less often, until nothing changes.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use hypernet_core::limits::{MESH_ADDRS_PER_PEER, MESH_CONNECTIONS_PER_PEER, MESH_PEERS_KEPT, MESH_SMALL};
use libp2p::core::ConnectedPoint;
use libp2p::{mdns, relay};

use super::reach::{Link, Way};
use super::*;

const REDIAL_FIRST: Duration = Duration::from_secs(1);
const REDIAL_LAST: Duration = Duration::from_secs(300);
/// While nobody at all is connected: then it is most likely this node that was cut off.
const REDIAL_LAST_ALONE: Duration = Duration::from_secs(15);
/// Connections that two peers make to each other at once come up within this time.
const SAME_MOMENT: Duration = Duration::from_secs(5);
/// and are so many.
const AT_ONCE: usize = 2;
/// One that comes to those is still let in, and the oldest is let go.
const _: () = assert!(AT_ONCE < MESH_CONNECTIONS_PER_PEER);
const REFRESH_FIRST: Duration = Duration::from_millis(200);
const REFRESH_LAST: Duration = Duration::from_secs(300);
/// Addresses of one peer that the owner is told while it stays connected, so that a peer that renames itself all the
/// time is nobody's work.
const TOLD_MAX: usize = 4 * MESH_ADDRS_PER_PEER;
/// Addresses that one peer says it listens on, of which the best are taken.
const LISTENS_MAX: usize = 4 * MESH_ADDRS_PER_PEER;
const LONGEST_BLOCK: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A connected peer.
pub(super) struct Connected {
    pub(super) id: PeerId,
    /// It has shown that it belongs to this network.
    confirmed: bool,
    /// Its connections, the oldest first.
    pub(super) links: Vec<Link>,
    /// When the last of them came up.
    newest: Instant,
    /// The addresses the owner was told.
    told: Vec<Multiaddr>,
    pub(super) rtt: Option<Duration>,
    since: std::time::Instant,
    pub(super) last_used: Instant,
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Connected {
    /// Every connection goes by way of a relay.
    pub(super) fn is_relayed(&self) -> bool {
        self.links.iter().all(Link::is_relayed)
    }

    /// Whether it is on that host.
    pub(super) fn is_at(&self, host: Option<std::net::IpAddr>) -> bool {
        host.is_some() && self.links.iter().any(|link| address::ip(&link.addr) == host)
    }
}

/// A peer to start from.
pub(super) struct Bootstrap {
    peer: P2p,
    addrs: Vec<Multiaddr>,
    pub(super) failures: u32,
    /// When it is dialed again.
    pub(super) redialing: Option<timers::Key>,
}

/// When our neighbourhood is looked up next.
pub(super) struct Refresh {
    pub(super) running: bool,
    timer: Option<timers::Key>,
    delay: Duration,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { running: false, timer: None, delay: REFRESH_FIRST }
    }
}

/// Between half and one and a half of `time`: peers that lost the same peer at once do not come back at once.
fn jittered(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) as u32;
    time / 2 + time.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn backoff(failures: u32, alone: bool) -> Duration {
    let last = if alone { REDIAL_LAST_ALONE } else { REDIAL_LAST };
    REDIAL_FIRST.saturating_mul(1 << failures.min(20)).min(last)
}

/// Reads the addresses to start from; ourselves we leave out.
pub(super) fn bootstrap(addrs: &[Multiaddr], me: P2p) -> Result<Vec<Bootstrap>, MeshError> {
    let mut found: Vec<Bootstrap> = Vec::new();
    for addr in addrs {
        let (bare, Some(peer)) = address::split(addr) else { return Err(MeshError::Bootstrap(addr.clone())) };
        if !address::is_dialable(&bare) || peer_id::from_libp2p(&peer).is_none() {
            return Err(MeshError::Bootstrap(addr.clone()));
        }
        match found.iter_mut().find(|known| known.peer == peer) {
            Some(known) => known.addrs.push(bare),
            None if peer == me => {}
            None => found.push(Bootstrap { peer, addrs: vec![bare], failures: 0, redialing: None }),
        }
    }
    Ok(found)
}

impl Driver {
    pub(super) fn dial_bootstrap(&mut self) {
        for index in 0..self.bootstrap.len() {
            // In reverse, because the book puts the newest first.
            for addr in self.bootstrap[index].addrs.clone().into_iter().rev() {
                self.book.add(self.bootstrap[index].peer, addr);
            }
            let peer = self.bootstrap[index].peer;
            if !self.dial_peer(peer) {
                self.redial_later(&peer);
            }
        }
    }

    /// If this is a peer we started from, dials it again after a while.
    fn redial_later(&mut self, peer: &P2p) {
        let Some(index) = self.bootstrap.iter().position(|known| known.peer == *peer) else { return };
        let known = &mut self.bootstrap[index];
        if known.redialing.is_none() {
            let delay = jittered(backoff(known.failures, self.peers.is_empty()));
            known.failures = known.failures.saturating_add(1);
            known.redialing = Some(self.timers.set(Instant::now() + delay, Timer::Redial(index)));
        }
    }

    pub(super) fn redial(&mut self, index: usize) {
        self.bootstrap[index].redialing = None;
        let peer = self.bootstrap[index].peer;
        if self.peers.contains_key(&peer) {
            return;
        }
        // The book may have lost them to newer ones.
        for addr in self.bootstrap[index].addrs.clone() {
            self.book.add(peer, addr);
        }
        if !self.dial_peer(peer) {
            self.redial_later(&peer);
        }
    }

    pub(super) fn dial_addr(&mut self, addr: Multiaddr) {
        match address::split(&addr) {
            (bare, Some(peer)) if address::is_dialable(&bare) => {
                self.book.add(peer, bare);
                self.dial_peer(peer);
            }
            _ => {
                if let Err(error) = self.swarm.dial(addr) {
                    debug!(%error, "cannot dial");
                }
            }
        }
    }

    pub(super) fn on_established(&mut self, p2p: P2p, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(id) = peer_id::from_libp2p(&p2p) else {
            let _ = self.swarm.disconnect_peer_id(p2p);
            return;
        };
        if self.trials.has(connection) {
            return self.on_trial(p2p, connection);
        }
        self.dialing.remove(&p2p);
        if self.peers.is_empty() {
            self.swarm.behaviour_mut().kad.forget_absent();
        }
        let mut link = self.link(p2p, connection, endpoint);
        if endpoint.is_dialer() {
            self.book.add(p2p, address::split(&link.addr).0);
        }
        let peer = self.peers.entry(p2p).or_insert_with(|| Connected {
            id,
            confirmed: false,
            links: Vec::new(),
            newest: Instant::now(),
            told: Vec::new(),
            rtt: None,
            since: std::time::Instant::now(),
            last_used: Instant::now(),
            sent: 0,
            received: 0,
        });
        let is_young = peer.newest.elapsed() <= SAME_MOMENT;
        let is_upgrade = !link.is_relayed() && !peer.links.is_empty() && peer.is_relayed();
        // Two attempts to open the routers may both have worked.
        if is_upgrade || (is_young && !link.is_relayed() && peer.links.iter().any(Link::is_punched)) {
            link.way = Way::Punched;
        }
        if link.is_relayed() && is_young && peer.links.iter().any(|link| !link.is_relayed()) {
            // Both were dialed at once, and the straight one is there.
            self.swarm.close_connection(connection);
            return;
        }
        // Nobody who has a connection makes another, unless both ends made one in the same moment: whoever comes anew has
        // lost the one before, and what is sent on that is waited for in vain until it times out. Nor does anybody need a
        // relay any more who is there without it.
        let is_lost = |old: &mut Link| !is_young || is_upgrade || (old.dialed == link.dialed && !link.is_punched());
        let mut lost: Vec<Link> = peer.links.extract_if(.., is_lost).collect();
        // Nor that many times: whoever is killed and comes back again and again would soon be one too many.
        lost.extend(peer.links.drain(..(peer.links.len() + 1).saturating_sub(AT_ONCE)));
        peer.newest = Instant::now();
        let is_relayed = link.is_relayed();
        peer.links.push(link);
        if !lost.is_empty() && !is_upgrade && std::mem::take(&mut peer.confirmed) {
            self.outbox.tell(MeshEvent::Disconnected { peer: id });
        }
        for link in lost {
            self.swarm.close_connection(link.id);
        }
        match is_relayed {
            true => self.await_punch(p2p),
            false => self.end_punch(&p2p),
        }
        if is_upgrade {
            self.moved(&p2p);
        }
        self.give_waiting(p2p);
        self.let_one_go();
    }

    /// Closes the connection that was idle longest when there are too many.
    fn let_one_go(&mut self) {
        if self.peers.len() <= MESH_PEERS_KEPT {
            return;
        }
        if let Some(p2p) = self.peers.iter().min_by_key(|(_, peer)| peer.last_used).map(|(p2p, _)| *p2p) {
            let _ = self.swarm.disconnect_peer_id(p2p);
        }
    }

    pub(super) fn on_closed(&mut self, p2p: P2p, connection: ConnectionId) {
        if self.trials.has(connection) {
            return self.trials.forget(connection);
        }
        let Some(peer) = self.peers.get_mut(&p2p) else { return };
        peer.links.retain(|link| link.id != connection);
        if !peer.links.is_empty() {
            return;
        }
        self.stop_waiting(&p2p);
        self.reach.gone(p2p);
        if let Some(peer) = self.peers.remove(&p2p)
            && peer.confirmed
        {
            self.outbox.tell(MeshEvent::Disconnected { peer: peer.id });
            self.refresh_soon();
        }
        let is_wanted = self.is_waited_for(&p2p) || (self.is_renewing() && !self.blocked.contains_key(&p2p));
        if is_wanted && !self.dial_peer(p2p) {
            self.fail_waiting(&p2p);
        }
        self.redial_later(&p2p);
    }

    pub(super) fn on_dial_failed(&mut self, p2p: P2p, connection: ConnectionId, error: &DialError) {
        let ours = self.dialing.get(&p2p) == Some(&connection);
        if ours {
            self.dialing.remove(&p2p);
        }
        if self.peers.contains_key(&p2p) {
            self.on_punch_dial_failed(p2p, error);
            self.give_waiting(p2p);
            return;
        }
        self.reach.failed(p2p, error);
        self.try_again(p2p);
        // Somebody else lives there by now. libp2p takes the first who answers and then gives up on the others, so
        // those get their turn without it.
        if let DialError::WrongPeerId { address, .. } = error {
            let gone = address::split(address).0;
            self.swarm.behaviour_mut().kad.remove_address(&p2p, &gone);
            if self.book.remove(&p2p, &gone) && self.dial_peer(p2p) {
                return;
            }
        }
        if let DialError::Transport(_) | DialError::WrongPeerId { .. } = error {
            self.swarm.behaviour_mut().kad.absent(p2p);
        }
        // Another part of libp2p dialed with what it knew; we may know better.
        if self.is_waited_for(&p2p) && (ours || !self.dial_peer(p2p)) {
            self.fail_waiting(&p2p);
        }
        self.redial_later(&p2p);
    }

    /// The peer has shown that it is of this network.
    pub(super) fn confirm(&mut self, p2p: &P2p) {
        let Some(peer) = self.peers.get_mut(p2p) else { return };
        if peer.confirmed {
            return;
        }
        peer.confirmed = true;
        let addr = peer.links.first().map_or_else(Multiaddr::empty, |link| link.addr.clone());
        self.outbox.tell(MeshEvent::Connected { peer: peer.id, addr });
        if let Some(known) = self.bootstrap.iter_mut().find(|known| known.peer == *p2p) {
            known.failures = 0;
        }
        self.refresh_soon();
    }

    pub(super) fn misbehaved(&mut self, p2p: &P2p, reason: String) {
        if let Some(peer) = peer_id::from_libp2p(p2p) {
            self.outbox.tell_if_room(MeshEvent::Misbehaved { peer, reason });
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { peer_id: p2p, info, connection_id } = event else { return };
        if info.protocol_version != self.names.identify {
            debug!(peer = %p2p, network = %info.protocol_version, "a peer of another network");
            if self.foreign.len() >= FOREIGN_MAX {
                self.foreign.clear();
            }
            self.foreign.insert(p2p);
            let _ = self.swarm.disconnect_peer_id(p2p);
            return;
        }
        if self.trials.has(connection_id) {
            return;
        }
        self.confirm(&p2p);
        self.on_observed(&p2p, connection_id, &info.observed_addr);
        self.on_hop_known(p2p, info.protocols.contains(&relay::HOP_PROTOCOL_NAME));
        let Some(peer) = self.peers.get_mut(&p2p) else { return };
        let from_here = peer.links.iter().any(|link| link.id == connection_id && address::is_loopback(&link.addr));
        let speaks_kad = info.protocols.contains(&self.names.kad);
        // They come in no order, and what leads there from everywhere must not be among those that are left out.
        let mut listens: Vec<Multiaddr> = info.listen_addrs.into_iter().take(LISTENS_MAX).collect();
        listens.sort_by_key(|addr| !(address::is_public(addr) || address::relay(addr).is_some()));
        for addr in listens.into_iter().take(MESH_ADDRS_PER_PEER) {
            let (addr, owner) = address::split(&addr);
            let dialable = address::is_dialable(&addr) && owner.is_none_or(|owner| owner == p2p);
            // A distant peer's loopback is our own.
            if !dialable || (address::is_loopback(&addr) && !from_here) {
                continue;
            }
            let gone = self.book.add(p2p, addr.clone());
            let kad = &mut self.swarm.behaviour_mut().kad;
            if speaks_kad {
                kad.add_address(&p2p, addr.clone());
            }
            // Kademlia itself would remember every address that a peer ever claimed.
            if let Some(gone) = gone {
                kad.remove_address(&p2p, &gone);
            }
            if peer.told.len() < TOLD_MAX && !peer.told.contains(&addr) {
                peer.told.push(addr.clone());
                self.outbox.tell_if_room(MeshEvent::PeerAddr { peer: peer.id, addr: address::join(&addr, p2p) });
            }
        }
    }

    pub(super) fn on_ping(&mut self, event: ping::Event) {
        match event.result {
            Ok(rtt) => {
                if let Some(peer) = self.peers.get_mut(&event.peer) {
                    peer.rtt = Some(rtt);
                }
            }
            // QUIC misses its other end by itself. With TCP it is the kernel that answers for a process that stands still.
            // A failure is told of the second ping in a row that is not answered; a slow link alone makes nobody silent.
            Err(ping::Failure::Timeout | ping::Failure::Other { .. })
                if self.swarm.behaviour().kad.is_silent(&event.peer) =>
            {
                debug!(peer = %event.peer, "nothing is heard of a peer on a connection any more");
                self.swarm.close_connection(event.connection);
            }
            Err(_) => {}
        }
    }

    pub(super) fn on_mdns(&mut self, event: mdns::Event) {
        let mdns::Event::Discovered(found) = event else { return };
        // All addresses of a peer before the first dial, which tries those that are known.
        let mut wanted = BTreeSet::new();
        for (p2p, addr) in found {
            let addr = address::split(&addr).0;
            let stranger = p2p != self.me && !self.foreign.contains(&p2p) && !self.peers.contains_key(&p2p);
            if stranger && self.peers.len() < MESH_SMALL && address::transport(&addr).is_some() {
                // Whether it is one of ours, identify will tell; until then it is only dialed.
                self.book.add(p2p, addr);
                wanted.insert(p2p);
            }
        }
        for p2p in wanted {
            self.dial_peer(p2p);
        }
    }

    /// The mesh has changed: look around soon, then less and less often.
    pub(super) fn refresh_soon(&mut self) {
        if self.peers.len() >= MESH_SMALL {
            return;
        }
        self.refresh.delay = REFRESH_FIRST;
        if let Some(timer) = self.refresh.timer.take() {
            self.timers.cancel(timer);
        }
        self.set_refresh();
    }

    fn set_refresh(&mut self) {
        let at = Instant::now() + jittered(self.refresh.delay);
        self.refresh.timer = Some(self.timers.set(at, Timer::Refresh));
    }

    pub(super) fn on_refresh(&mut self) {
        self.refresh.timer = None;
        if !self.refresh.running && self.peers.values().any(|peer| peer.confirmed) {
            self.refresh.running = true;
            self.look_around();
        }
        self.refresh.delay = (self.refresh.delay * 2).min(REFRESH_LAST);
        self.set_refresh();
    }

    pub(super) fn block(&mut self, peer: PeerId, time: Duration) {
        let Some(p2p) = peer_id::to_libp2p(&peer) else { return };
        let known = self.blocked.remove(&p2p);
        if let Some(timer) = known {
            self.timers.cancel(timer);
        } else if self.blocked.len() >= PEERS_MAX {
            warn!("too many peers are blocked; one more is only disconnected");
            let _ = self.swarm.disconnect_peer_id(p2p);
            return;
        }
        self.swarm.behaviour_mut().blocks.block_peer(p2p);
        let timer = self.timers.set(Instant::now() + time.min(LONGEST_BLOCK), Timer::Unblock(p2p));
        self.blocked.insert(p2p, timer);
    }

    pub(super) fn unblock(&mut self, p2p: &P2p) {
        self.blocked.remove(p2p);
        self.swarm.behaviour_mut().blocks.unblock_peer(*p2p);
        self.redial_later(p2p);
    }

    pub(super) fn peer_infos(&self) -> Vec<PeerInfo> {
        let mut infos: Vec<PeerInfo> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.confirmed)
            .filter_map(|(p2p, peer)| {
                let first = peer.links.first()?;
                Some(PeerInfo {
                    peer: peer.id,
                    addrs: peer.links.iter().map(|link| link.addr.clone()).collect(),
                    rtt: peer.rtt,
                    transport: first.transport(),
                    path: Self::path(first),
                    why: self.why(p2p, first),
                    since: peer.since,
                    sent: peer.sent,
                    received: peer.received,
                })
            })
            .collect();
        infos.sort_unstable_by_key(|info| info.peer);
        infos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redials_become_rare_but_never_stop_and_are_spread() {
        assert_eq!(backoff(0, false), REDIAL_FIRST);
        assert_eq!(backoff(3, true), REDIAL_FIRST * 8);
        assert_eq!((backoff(u32::MAX, false), backoff(u32::MAX, true)), (REDIAL_LAST, REDIAL_LAST_ALONE));
        let spread: Vec<Duration> = (0..64).map(|_| jittered(REDIAL_LAST)).collect();
        assert!(spread.iter().all(|t| (REDIAL_LAST / 2..=REDIAL_LAST * 3 / 2).contains(t)));
        assert!(spread.iter().any(|t| *t != spread[0]), "64 equal draws of 32 bits");
    }

    #[test]
    fn bootstrap_addresses_are_grouped_by_peer_and_checked() {
        let key = |n| Keypair::ed25519_from_bytes([n; 32]).unwrap().public().to_peer_id();
        let (me, other) = (key(1), key(2));
        let at = |text: &str, peer| address::join(&text.parse().unwrap(), peer);
        let quic = at("/ip4/10.0.0.1/udp/1/quic-v1", other);
        let tcp = at("/ip4/10.0.0.1/tcp/1", other);
        let found = bootstrap(&[quic.clone(), at("/ip4/10.0.0.2/tcp/1", me), tcp], me).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].peer, found[0].addrs.len()), (other, 2));
        let bare = address::split(&quic).0;
        assert!(matches!(bootstrap(&[bare], me), Err(MeshError::Bootstrap(_))));
        assert!(bootstrap(&[at("/ip4/0.0.0.0/tcp/1", other)], me).is_err());
    }
}
