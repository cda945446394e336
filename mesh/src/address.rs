//! Which addresses we dial or remember, and what is known of each peer.
//!
//! Invariant: at most [`MESH_ADDRS_PER_PEER`] addresses of at most [`PEERS_MAX`] peers, all of them IP addresses with
//! QUIC or TCP, or over a relay that has such an address: whatever else a peer claims to listen on is not for us.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use hypernet_core::limits::{MESH_ADDRS_PER_PEER, PEERS_MAX};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::Transport;

/// The host part of an address.
pub(crate) fn ip(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Whether anybody on the internet could use the address, as far as it alone says.
pub(crate) fn is_public(addr: &Multiaddr) -> bool {
    match ip(addr) {
        Some(IpAddr::V4(ip)) => {
            let [a, b, ..] = ip.octets();
            // 100.64/10 is what providers put between themselves and their customers.
            let shared = a == 100 && (64..128).contains(&b);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast();
            !(shared || special || a == 0 || ip.is_broadcast())
        }
        Some(IpAddr::V6(ip)) => {
            let local = ip.is_unique_local() || ip.is_unicast_link_local();
            !(local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
        }
        None => false,
    }
}

/// The relay and its own address, of an address over a relay: with or without the peer at the other end.
pub(crate) fn relay(addr: &Multiaddr) -> Option<(Multiaddr, PeerId)> {
    let mut rest = split(addr).0;
    if rest.pop()? != Protocol::P2pCircuit {
        return None;
    }
    let (bare, relay) = split(&rest);
    Some((bare, relay?)).filter(|(bare, _)| transport(bare).is_some())
}

/// Whether we can dial the address, straight or over a relay.
pub(crate) fn is_dialable(addr: &Multiaddr) -> bool {
    transport(addr).is_some() || relay(addr).is_some()
}

/// Whether the address leads back to the machine that uses it.
pub(crate) fn is_loopback(addr: &Multiaddr) -> bool {
    ip(addr).is_some_and(|ip| ip.is_loopback())
}

/// What would carry a connection to this address; `None` when we cannot dial it.
pub(crate) fn transport(addr: &Multiaddr) -> Option<Transport> {
    let host = ip(addr)?;
    let mut rest = addr.iter().skip(1);
    let transport = match (rest.next()?, host.is_unspecified()) {
        (Protocol::Udp(port), false) if port != 0 => (rest.next()? == Protocol::QuicV1).then_some(Transport::Quic)?,
        (Protocol::Tcp(port), false) if port != 0 => Transport::Tcp,
        _ => return None,
    };
    match (rest.next(), rest.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some(transport),
        _ => None,
    }
}

/// Splits the peer off the end of an address.
pub(crate) fn split(addr: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut bare = addr.clone();
    match bare.iter().last() {
        Some(Protocol::P2p(peer)) => {
            bare.pop();
            (bare, Some(peer))
        }
        _ => (bare, None),
    }
}

/// Puts the peer at the end of an address.
pub(crate) fn join(addr: &Multiaddr, peer: PeerId) -> Multiaddr {
    split(addr).0.with(Protocol::P2p(peer))
}

/// Addresses of peers, without `/p2p`; the newest first.
#[derive(Default)]
pub(crate) struct Book {
    peers: BTreeMap<PeerId, VecDeque<Multiaddr>>,
}

impl Book {
    /// Remembers an address and returns the one that had to make room for it, if one had to. When the book is full, a
    /// stranger's address is not written down.
    pub(crate) fn add(&mut self, peer: PeerId, addr: Multiaddr) -> Option<Multiaddr> {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            return None;
        }
        let known = self.peers.entry(peer).or_default();
        if known.contains(&addr) {
            return None;
        }
        known.push_front(addr);
        if known.len() > MESH_ADDRS_PER_PEER { known.pop_back() } else { None }
    }

    /// Forgets an address; whether others of that peer are left.
    pub(crate) fn remove(&mut self, peer: &PeerId, addr: &Multiaddr) -> bool {
        let Some(known) = self.peers.get_mut(peer) else { return false };
        known.retain(|other| other != addr);
        if known.is_empty() {
            self.peers.remove(peer);
            return false;
        }
        true
    }

    /// Some of the peers.
    pub(crate) fn some(&self, count: usize) -> Vec<PeerId> {
        self.peers.keys().take(count).copied().collect()
    }

    /// What is known of a peer.
    pub(crate) fn of(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.peers.get(peer).map(|known| known.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_can_be_dialed_has_a_transport() {
        let peer = PeerId::random();
        assert_eq!(transport(&addr("/ip4/10.0.0.1/udp/4001/quic-v1")), Some(Transport::Quic));
        assert_eq!(transport(&join(&addr("/ip6/::1/tcp/4001"), peer)), Some(Transport::Tcp));
        for bad in [
            "/ip4/0.0.0.0/udp/4001/quic-v1",
            "/ip4/10.0.0.1/udp/0/quic-v1",
            "/ip4/10.0.0.1/udp/4001",
            "/ip4/10.0.0.1/udp/4001/quic",
            "/ip4/10.0.0.1",
            "/dns4/example.org/tcp/4001",
            "/ip4/10.0.0.1/tcp/4001/ws",
            "/memory/1",
        ] {
            assert_eq!(transport(&addr(bad)), None, "{bad}");
        }
        assert_eq!(transport(&addr(&format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit"))), None);
    }

    #[test]
    fn relays_are_found_in_addresses_and_only_those_that_can_be_dialed() {
        let (hop, end) = (PeerId::random(), PeerId::random());
        let over = addr(&format!("/ip4/198.51.100.1/udp/4001/quic-v1/p2p/{hop}/p2p-circuit"));
        let bare = addr("/ip4/198.51.100.1/udp/4001/quic-v1");
        for addr in [over.clone(), join(&over, end)] {
            assert_eq!(relay(&addr), Some((bare.clone(), hop)), "{addr}");
            assert!(is_dialable(&addr));
        }
        assert_eq!(split(&join(&over, end)), (over.clone(), Some(end)));
        let twice = addr(&format!("{over}/p2p/{hop}/p2p-circuit"));
        for bad in [bare, twice, addr(&format!("/p2p/{hop}/p2p-circuit")), addr("/p2p-circuit")] {
            assert_eq!(relay(&bad), None, "{bad}");
        }
    }

    #[test]
    fn what_leads_nowhere_from_outside_is_not_public() {
        for public in ["/ip4/203.0.113.9/tcp/1", "/ip4/100.128.0.1/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1"] {
            assert!(is_public(&addr(public)), "{public}");
        }
        for local in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/192.168.1.1/tcp/1",
            "/ip4/169.254.0.1/tcp/1",
            "/ip4/100.64.0.1/tcp/1",
            "/ip4/0.0.0.0/tcp/1",
            "/ip6/::1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip6/fd00::1/tcp/1",
            "/dns4/example.org/tcp/1",
        ] {
            assert!(!is_public(&addr(local)), "{local}");
        }
    }

    #[test]
    fn the_peer_comes_off_and_goes_back_on() {
        let (peer, bare) = (PeerId::random(), addr("/ip4/10.0.0.1/tcp/4001"));
        let whole = join(&bare, peer);
        assert_eq!(split(&whole), (bare.clone(), Some(peer)));
        assert_eq!(split(&bare), (bare, None));
        assert_eq!(join(&whole, peer), whole);
    }

    #[test]
    fn the_book_keeps_the_newest_addresses_and_no_more_peers_than_it_may() {
        let mut book = Book::default();
        let peer = PeerId::random();
        let at = |port: usize| addr(&format!("/ip4/10.0.0.1/tcp/{port}"));
        for port in 1..=MESH_ADDRS_PER_PEER {
            assert_eq!(book.add(peer, at(port)), None);
        }
        for more in 1..=3 {
            assert_eq!(book.add(peer, at(MESH_ADDRS_PER_PEER + more)), Some(at(more)));
        }
        assert_eq!(book.add(peer, at(MESH_ADDRS_PER_PEER + 3)), None);
        let kept = book.of(&peer);
        assert_eq!(kept.len(), MESH_ADDRS_PER_PEER);
        assert_eq!(kept[0], at(MESH_ADDRS_PER_PEER + 3));
        for addr in &kept[1..] {
            assert!(book.remove(&peer, addr));
        }
        assert_eq!(book.of(&peer), kept[..1]);
        assert!(!book.remove(&peer, &kept[0]) && !book.remove(&peer, &kept[0]));
        for addr in kept.into_iter().rev() {
            book.add(peer, addr);
        }
        while book.peers.len() < PEERS_MAX {
            book.add(PeerId::random(), at(1));
        }
        let late = PeerId::random();
        book.add(late, at(1));
        assert!(book.of(&late).is_empty());
        assert_eq!(book.add(peer, at(100)), Some(at(4)));
    }
}
