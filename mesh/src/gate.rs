//! Who may knock how often.
//!
//! A connection that comes in costs a handshake before anybody knows whose it is, so what is counted is where it comes
//! from: a subnet that one customer of a provider has. Whoever comes from this machine is not counted, and over a relay
//! it is the relay that counts.
//!
//! Invariant: at most [`SUBNETS_MAX`] subnets are remembered, and those that have been quiet are forgotten first.

use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::task::{Context, Poll};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hypernet_core::limits::{MESH_INCOMING_BURST, MESH_INCOMING_PER_MINUTE};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

use crate::address;

/// Beyond so many the quiet ones are forgotten.
const SUBNETS_MAX: usize = 4_096;

/// So many at once, and then so many a minute.
pub(crate) fn quota(burst: u32, per_minute: u32) -> Quota {
    Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN))
        .allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

/// What one customer of a provider has; none of this machine's own addresses.
fn subnet(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        _ if ip.is_loopback() => None,
        IpAddr::V4(ip) => Some(IpAddr::V4((ip.to_bits() & !0xff).into())),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => subnet(IpAddr::V4(ip)),
            None => Some(IpAddr::V6((ip.to_bits() & (!0 << 72)).into())),
        },
    }
}

/// Somebody knocks too often.
#[derive(Debug, Error)]
#[error("too many connections from {0}")]
struct TooOften(IpAddr);

/// See the module.
pub(crate) struct Gate {
    subnets: DefaultKeyedRateLimiter<IpAddr>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { subnets: RateLimiter::keyed(quota(MESH_INCOMING_BURST, MESH_INCOMING_PER_MINUTE)) }
    }

    /// Whether one more may come from there; if not, from where too many have come.
    fn lets_in(&self, ip: IpAddr) -> Result<(), IpAddr> {
        let Some(subnet) = subnet(ip) else { return Ok(()) };
        if self.subnets.len() >= SUBNETS_MAX {
            self.subnets.retain_recent();
            if self.subnets.len() >= SUBNETS_MAX {
                // All of them are busy: whoever is new waits, and those that are known go on.
                return Err(subnet);
            }
        }
        self.subnets.check_key(&subnet).map_err(|_| subnet)
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        match address::ip(remote).map(|ip| self.lets_in(ip)) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(subnet)) => Err(ConnectionDenied::new(TooOften(subnet))),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subnet_is_let_in_so_often_and_others_all_the_same() {
        let gate = Gate::new();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        // No more come back while this runs than one a second.
        let let_in = (0..4 * MESH_INCOMING_BURST).filter(|n| gate.lets_in(ip(&format!("192.0.2.{}", n % 200))).is_ok());
        let let_in = let_in.count() as u32;
        assert!((MESH_INCOMING_BURST..2 * MESH_INCOMING_BURST).contains(&let_in), "{let_in}");
        assert_eq!(gate.lets_in(ip("::ffff:192.0.2.7")), Err(ip("192.0.2.0")), "the same one, written otherwise");
        assert_eq!(gate.lets_in(ip("192.0.3.1")), Ok(()));
        assert_eq!(subnet(ip("2001:db8:0:12ff::7")), Some(ip("2001:db8:0:1200::")));
        for _ in 0..4 * MESH_INCOMING_BURST {
            assert_eq!(gate.lets_in(ip("127.0.0.1")), Ok(()));
        }
    }
}
