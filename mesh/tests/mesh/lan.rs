//! Peers that nobody has told of one another.

use std::net::Ipv4Addr;

use hypernet_core::id::{NetworkId, PeerId};
use hypernet_mesh::{Mesh, MeshEvent};

use crate::net;
use crate::peer::{NETWORK, Peer, config};

const NAME: &str = "lan::peers_on_one_lan_find_each_other_and_nobody_elses";
const LAN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Multicast leaves by `v0`.
const MAKE: &str = "ip link add v0 type veth peer name v1
    ip addr add 10.9.0.1/24 dev v0
    ip link set v1 up
    ip link set v0 up
    ip route add 224.0.0.0/4 dev v0";

/// Multicast would leave the machine and meet whoever else is there, so this test runs itself again where it cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_on_one_lan_find_each_other_and_nobody_elses() {
    if net::is_inside(NAME, MAKE).await {
        on_one_lan().await;
    }
}

async fn on_one_lan() {
    let start = async |seed, network| {
        let mut config = config(seed, network, "/ip4/0.0.0.0/tcp/0", &[]);
        config.listen.push("/ip4/0.0.0.0/udp/0/quic-v1".parse().unwrap());
        config.mdns = true;
        let (mesh, events) = Mesh::start(config).await.unwrap();
        Peer { mesh, events }
    };
    let mut first = start(1, NETWORK).await;
    let mut stranger = start(2, NetworkId([2; 16])).await;
    let mut second = start(3, NETWORK).await;
    let mut third = start(4, NetworkId([2; 16])).await;
    for (peer, other) in [(&mut first, &mut second), (&mut stranger, &mut third)] {
        // What it says of itself can be dialed on the LAN. That may be known before they are connected, and is told once.
        let (mut met, mut told) = (false, false);
        peer.until(|event| {
            match event {
                MeshEvent::Connected { peer, .. } => met |= peer == other.id(),
                MeshEvent::PeerAddr { peer, addr } => {
                    told |= peer == other.id() && addr.iter().any(|part| part == LAN.into());
                }
                _ => {}
            }
            (met && told).then_some(())
        })
        .await;
        other.connected_to(peer.id()).await;
    }
    for (peer, friend) in [(&first, second.id()), (&stranger, third.id())] {
        let connected: Vec<PeerId> = peer.mesh.peers().await.iter().map(|info| info.peer).collect();
        assert_eq!(connected, [friend]);
    }
}
