//! Where we listen.

use std::net::{SocketAddr, TcpListener};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;

use super::*;

/// Listens on all of `wanted` and waits until each listener has its address.
pub(super) async fn bind(swarm: &mut Swarm<Behaviour>, wanted: &[Multiaddr]) -> Result<Vec<Multiaddr>, MeshError> {
    let mut open: Vec<(ListenerId, &Multiaddr)> = Vec::new();
    for address in wanted {
        tcp_port_is_free(address).map_err(|error| failure(address, &error))?;
        let listener = swarm.listen_on(address.clone()).map_err(|error| match error {
            libp2p::TransportError::Other(error) => failure(address, &error),
            libp2p::TransportError::MultiaddrNotSupported(_) => MeshError::Listen {
                address: address.clone(),
                reason: "only /ip4|ip6/…/udp/…/quic-v1 and /ip4|ip6/…/tcp/… are supported".to_owned(),
            },
        })?;
        open.push((listener, address));
    }
    let mut bound = Vec::new();
    while !open.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                open.retain(|(id, _)| *id != listener_id);
                bound.push(address);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                if let Some((_, address)) = open.iter().find(|(id, _)| *id == listener_id) {
                    let error = reason.err().unwrap_or_else(|| io::Error::other("the listener closed"));
                    return Err(failure(address, &error));
                }
            }
            SwarmEvent::ListenerError { listener_id, error } => {
                if let Some((_, address)) = open.iter().find(|(id, _)| *id == listener_id) {
                    return Err(failure(address, &error));
                }
            }
            _ => {}
        }
    }
    Ok(bound)
}

/// libp2p listens on TCP with SO_REUSEPORT, so that two programs of one user would share a port without a word and
/// each get half of the connections. An ordinary bind finds that out.
fn tcp_port_is_free(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    if let (Some(ip), Some(Protocol::Ip4(_) | Protocol::Ip6(_)), Some(Protocol::Tcp(port))) =
        (address::ip(address), parts.next(), parts.next())
        && port != 0
    {
        TcpListener::bind(SocketAddr::new(ip, port))?;
    }
    Ok(())
}

fn failure(address: &Multiaddr, error: &io::Error) -> MeshError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::AddrInUse) {
            return MeshError::PortInUse(address.clone());
        }
        cause = error.source();
    }
    // libp2p wraps the system's error in its own, whose text is all that is left of it.
    let reason = error.to_string();
    if reason.contains("in use") {
        return MeshError::PortInUse(address.clone());
    }
    MeshError::Listen { address: address.clone(), reason }
}

impl Driver {
    pub(super) fn on_listening(&mut self, addr: Multiaddr) {
        let addr = address::join(&addr, self.me);
        let mut listen = self.listen.write().unwrap_or_else(PoisonError::into_inner);
        if !listen.contains(&addr) {
            listen.push(addr.clone());
            drop(listen);
            self.outbox.tell(MeshEvent::Listening { addr });
        }
    }

    pub(super) fn on_not_listening(&mut self, addr: &Multiaddr) {
        let addr = address::join(addr, self.me);
        self.listen.write().unwrap_or_else(PoisonError::into_inner).retain(|known| *known != addr);
    }
}
