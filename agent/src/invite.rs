//! Invite links: which mesh, and where some of its peers are.
//!
//! `hypernet:join/<network, base32>?via=<multiaddress>&via=...`

use hypernet_core::id::NetworkId;
use libp2p::Multiaddr;

use crate::failure::{Failure, Kind};

/// How a link begins.
pub(crate) const SCHEME: &str = "hypernet:join/";
/// Addresses in one link.
const ADDRESSES_MAX: usize = 24;
/// Longest link.
const LINK_MAX: usize = 8192;

/// A parsed link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invite {
    pub(crate) network: NetworkId,
    pub(crate) via: Vec<Multiaddr>,
}

impl Invite {
    pub(crate) fn to_link(&self) -> String {
        let via: Vec<String> = self.via.iter().take(ADDRESSES_MAX).map(|addr| format!("via={addr}")).collect();
        format!("{SCHEME}{}?{}", self.network.to_base32(), via.join("&"))
    }

    pub(crate) fn parse(link: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::new(Kind::Usage, format!("not an invite link: {why}"))
                .hint("copy the whole line that `hn invite` printed, in quotes")
        };
        if link.len() > LINK_MAX {
            return Err(wrong("it is too long"));
        }
        let rest = link.trim().strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with hypernet:join/"))?;
        let (network, query) = rest.split_once('?').ok_or_else(|| wrong("it names no address"))?;
        let network = NetworkId::from_base32(network).ok_or_else(|| wrong("its network name is cut short"))?;
        let via = query
            .split('&')
            .filter_map(|part| part.strip_prefix("via="))
            .take(ADDRESSES_MAX)
            .map(|addr| addr.parse().map_err(|error| wrong(&format!("{addr}: {error}"))))
            .collect::<Result<Vec<Multiaddr>, _>>()?;
        if via.is_empty() {
            return Err(wrong("it names no address"));
        }
        Ok(Self { network, via })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_round_trip_and_nonsense_is_refused() {
        let via: Multiaddr =
            "/ip4/127.0.0.1/udp/4001/quic-v1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".parse().unwrap();
        let invite = Invite { network: NetworkId([3; 16]), via: vec![via] };
        assert_eq!(Invite::parse(&invite.to_link()), Ok(invite.clone()));
        let link = invite.to_link();
        for bad in ["", "http://x", &link[..20], &link[..link.len() - 30], "hypernet:join/aaaa?via=/ip4/1.2.3.4"] {
            assert!(Invite::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_damaged_link_is_refused_and_never_a_panic() {
        let via = "/ip4/127.0.0.1/udp/4001/quic-v1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
        let invite = Invite { network: NetworkId([3; 16]), via: vec![via.parse().unwrap(), via.parse().unwrap()] };
        crate::golden::mutations(invite.to_link().as_bytes(), |bytes| {
            if let Ok(parsed) = Invite::parse(&String::from_utf8_lossy(bytes)) {
                assert_eq!(Invite::parse(&parsed.to_link()), Ok(parsed), "what is taken in can be handed on");
            }
        });
    }
}
